"""Learning curve: the out-of-fold score by how many images were learnt from.

Still rising at its end, it says that more labelled images would help.
"""

import numpy as np
import pandas as pd

from helpers.evaluation.intervals import score_sets
from helpers.files import load_json
from helpers.run import Run
from helpers.training.crossvalidation import (
    create_run_model,
    cross_validate,
    tabulate_probabilities,
)


def measure_learning_curve(run: Run, rows: pd.DataFrame, inputs, codes: np.ndarray,
                           probabilities: np.ndarray) -> pd.DataFrame:
    """Train on the recipe's shares of the training images, and judge all images each time.

    Args:
        rows, inputs, codes: of the training images, in one order.
        probabilities: theirs out-of-fold, learnt from all of them: the end of the curve.

    Returns:
        A row a share, up to 1: `images` learnt from in a fold, on average; macro F1 out-of-fold
        as `value`, `low` and `high`.
    """
    classes, folds = list(load_json(run.need("label_mapping"))), rows.fold.to_numpy()
    found = []
    for share in [*sorted(run.recipe.head.learning_curve), 1.0]:
        learnt = draw_share(codes, folds, share, run.recipe.splits.seed)
        answers = probabilities if share == 1 else cross_validate(
            lambda: create_run_model(run), inputs, codes, folds, learnt=learnt, keep=False)[0]
        answered = tabulate_probabilities(rows, answers, classes)
        score = score_sets({"all": answered}, classes, run, ["macro F1"])["all"].loc["macro F1"]
        images = np.mean([(learnt & (folds != fold)).sum() for fold in np.unique(folds)])
        found.append({"share": share, "images": round(float(images)), **score})
    return pd.DataFrame(found)


def draw_share(codes: np.ndarray, folds: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose a share of each class in each fold, one image at least.

    A larger share holds the smaller ones.

    Returns:
        (images,) bool.
    """
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(codes), bool)
    for code, fold in np.unique([codes, folds], axis=1).T:
        members = rng.permutation(np.flatnonzero((codes == code) & (folds == fold)))
        chosen[members[: max(1, round(share * len(members)))]] = True
    return chosen
