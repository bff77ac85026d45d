"""Leak price: what the score would be if copies stood on both sides of the folds.

The same images, the same classifier, the same number of folds; but dealt image by image, as
most scripts do, so that models are judged on copies of images that they have learnt from.
"""

import numpy as np
import pandas as pd

from helpers.data.splits import deal_groups, select_rows
from helpers.evaluation.compare import compare_scores, describe_difference
from helpers.evaluation.intervals import score_with_intervals
from helpers.features.store import load_codes
from helpers.run import Run
from helpers.training.crossvalidation import (
    create_run_model,
    cross_validate,
    load_inputs,
    tabulate_probabilities,
)

KEPT, TORN = "groups kept together", "groups torn apart"
SCORES = ("accuracy", "macro F1")


def answer_torn_folds(run: Run, classes: list[str]) -> dict[str, pd.DataFrame]:
    """Return out-of-fold answers with groups kept together, and with groups torn apart.

    Under every strategy these are the answers of the recipe's head.
    """
    rows, codes = select_rows(run.load_table(), "train"), load_codes(run)
    count, inputs = rows.fold.max() + 1, load_inputs(run, "train", run.recipe.head.inputs)
    torn = deal_groups(codes, np.arange(len(rows)), np.full(count, 1 / count),
                       run.recipe.splits.seed)
    answers = {}
    for name, folds in ((KEPT, rows.fold.to_numpy()), (TORN, torn)):
        if name == KEPT and run.recipe.network.strategy == "frozen":
            answers[name] = run.load_table("oof_probabilities")
            continue
        probabilities, _ = cross_validate(lambda: create_run_model(run), inputs, codes, folds,
                                          keep=False)
        answers[name] = tabulate_probabilities(rows.assign(fold=folds), probabilities, classes)
    return answers


def measure_leak_price(run: Run, classes: list[str]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return the scores both ways, and the difference in words.

    Returns:
        Title -> table of `score_with_intervals`, of all images and of those that share a group
        (copies; products of a `group_column`); empty if none does, or the recipe does not ask.
    """
    if not run.recipe.evaluation.leak_price:
        return {}, ["not asked for: set `leak_price: true`"]
    shared = select_rows(run.load_table(), "train").group.duplicated(keep=False).to_numpy()
    if not shared.any():
        return {}, ["no two images in the folds share a group: nothing can leak"]
    answers = answer_torn_folds(run, classes)
    resampling = run.recipe.evaluation.bootstrap, run.recipe.splits.seed
    scores = {f"{name}, {which}": score_with_intervals(
        table[rows], classes, *resampling, SCORES)
        for which, rows in ((f"all {len(shared):,} images", shared | True),
                            (f"the {shared.sum():,} that share a group", shared))
        for name, table in answers.items()}
    differences = compare_scores(answers[TORN], answers[KEPT], classes, *resampling)
    return scores, [describe_difference(TORN, score, differences.loc[score]) for score in SCORES]
