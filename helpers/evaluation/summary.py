"""Summary: all that notebook 06 leaves but the report, from both tables of probabilities."""

import pandas as pd

from helpers.evaluation.holdout import select_judged
from helpers.evaluation.intervals import score_classes, score_sets
from helpers.evaluation.scores import count_confusion, find_mistakes, tabulate_predictions
from helpers.files import load_json
from helpers.run import Run


def save_scores(run: Run, scores: dict[str, pd.DataFrame]) -> None:
    """Write `metrics.json`: set -> score -> value, low, high."""
    run.save("metrics", {name: table.to_dict("index") for name, table in scores.items()})


def list_predictions(run: Run, answered: pd.DataFrame) -> pd.DataFrame:
    """Return a prediction for every image outside the folds; for the hold-out only at the end."""
    shown = answered if run.recipe.evaluation.final else answered[answered.split != "holdout"]
    return tabulate_predictions(shown, run.recipe.data.class_names)


def evaluate_run(run: Run) -> None:
    """Write all that 06 leaves but pictures and report: scores, confusion, classes, mistakes."""
    oof, answered = run.load_table("oof_probabilities"), run.load_table("test_probabilities")
    classes = list(load_json(run.need("label_mapping")))
    confusion = count_confusion(oof, classes)
    save_scores(run, score_sets({"out-of-fold": oof} | select_judged(run, answered, classes),
                                classes, run))
    run.save("confusion", pd.DataFrame(confusion, pd.Index(classes, name="true"), classes),
             index=True)
    run.save("classes", score_classes(confusion, classes, run.recipe.evaluation.bootstrap,
                                      run.recipe.splits.seed), index=True)
    run.save("mistakes", find_mistakes(oof))
    run.save("predictions", list_predictions(run, answered))
