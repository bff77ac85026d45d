"""Resize curve: how right a network is by the side that images are enlarged or shrunk to (10).

Images are resized as they stream through the network, so no enlarged copy of the data exists.
"""

import time

import pandas as pd
from tqdm import tqdm

from helpers.data.splits import sample_rows, select_rows
from helpers.evaluation.baselines import open_part
from helpers.evaluation.holdout import note_look
from helpers.evaluation.intervals import score_sets
from helpers.features.extraction import extract_run
from helpers.files import load_json, save_json
from helpers.run import Run
from helpers.training.strategies import train_run

SCORE = "accuracy"


def measure_sizes(run: Run) -> pd.DataFrame:
    """Measure the frozen network at every size, and at some a trained one.

    The penalty of the frozen network's classifier, and all else that is chosen, is chosen inside
    the folds. Test images, if the recipe says `final: true`, are answered by the folds' ensemble.
    What is finished is kept in the run's `sizes/`.

    Returns:
        A row a size, strategy and set of images: `value`, `low` and `high` of the accuracy,
        `images` it was measured on, and `seconds` that features and training took.
    """
    settings, table = run.recipe.evaluation, run.load_table()
    rows, tested = select_rows(table, "train"), table[(table.split == "test")
                                                      & table.label.notna()]
    rows = rows.iloc[sample_rows(rows, settings.sizes_images, run.recipe.splits.seed)]
    if settings.final and len(tested):
        rows = pd.concat([rows, tested])
        note_look(run, ["test, at several sizes"])
    rows, classes = rows.reset_index(drop=True), list(load_json(run.need("label_mapping")))
    jobs = [("frozen", size) for size in settings.sizes] + [
        ("finetune", size) for size in settings.sizes_finetuned]
    found = []
    for strategy, size in (bar := tqdm(jobs, unit="size")):
        bar.set_postfix_str(f"{strategy}, {size} pixels")
        part = open_part(run, f"sizes/{size}-{strategy}", rows, image_size=size,
                         strategy=strategy)
        seconds = _train_part(part)
        answered = part.load_table("test_probabilities")
        sets = {"out-of-fold": part.load_table("oof_probabilities"), "test": answered}
        sets = {name: answers for name, answers in sets.items() if len(answers)}
        found += [{"strategy": strategy, "size": size, "images": name, "count": len(sets[name]),
                   **scores.loc[SCORE], "seconds": seconds}
                  for name, scores in score_sets(sets, classes, run).items()]
    return pd.DataFrame(found)


def _train_part(part: Run) -> float:
    """Extract and train unless it is done; return the seconds that it has taken."""
    record = part.folder / "seconds.json"
    if not (part.is_current("oof_probabilities") and part.is_current("test_probabilities")
            and record.exists()):
        start = time.perf_counter()
        extract_run(part, progress=False)
        train_run(part, progress=False)
        save_json({"seconds": round(time.perf_counter() - start, 1)}, record)
    return load_json(record)["seconds"]
