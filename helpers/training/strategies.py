"""Strategies: what 04 leaves, by heads on frozen features or by networks that are trained."""

from helpers.run import Run
from helpers.training.crossvalidation import save_answers, train_heads


def train_run(run: Run, progress: bool = True) -> None:
    """Write all that 04 leaves under the recipe's strategy."""
    if run.recipe.network.strategy == "frozen":
        save_answers(run, *train_heads(run, progress))
        return
    from helpers.training.finetuning import finetune_run  # Lightning takes seconds to load

    finetune_run(run, progress)
