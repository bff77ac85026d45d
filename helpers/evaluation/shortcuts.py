"""Shortcuts: does something cheap (brightness, size, camera) give the class away?

Two questions about each cue. How well does the cue alone tell the classes apart? And does the
model do worse where the cue points to another class? If both answers are yes, the model may well
have learnt the cue, and its score is one for photos on which the cue holds.
"""

from itertools import pairwise

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from sklearn.tree import DecisionTreeClassifier

from helpers.columns import RESERVED
from helpers.evaluation.compare import correct_for_many
from helpers.evaluation.intervals import draw_weights, find_interval, score_with_intervals
from helpers.evaluation.scores import create_sample, divide

BINS = 5  # of a number, with equally many images
MOST_VALUES = 30  # of a text; one with more names the image rather than describes it
FEWEST = 10  # images in a leaf of the tree, and in a part that is scored
OWN = {*RESERVED, "bytes", "fold", "group", "productid"}  # no cues as they are


def describe_cues(table: pd.DataFrame) -> pd.DataFrame:
    """Return what is known of each image apart from what it shows, a column a cue.

    From the file: brightness, sharpness, pixels, width / height, bytes a pixel, and whether it is
    grey, its type and its colour mode; from the table: every other column of numbers, or of texts
    with at most 30 values. A cue that is the same for all images is left out.

    Args:
        table: the run's table, with the columns of `images.csv`.
    """
    cues = table.filter(["brightness", "sharpness"]).astype(float)
    if {"width", "height", "bytes"} <= set(table):
        width, height = table.width.astype(float), table.height.astype(float)
        cues = cues.assign(pixels=width * height, aspect=width / height,
                           bytes_per_pixel=table.bytes / (width * height))
    for column, name in (("format", "file type"), ("mode", "colour mode"), ("grey", "grey")):
        if column in table:
            cues[name] = table[column].astype(str)
    for name in table.columns.difference([*OWN, *cues], sort=False):
        values = table[name]
        if is_numeric_dtype(values) and not is_bool_dtype(values):
            cues[name] = values.astype(float)
        elif values.nunique() <= MOST_VALUES:
            cues[name] = values.astype(str)
    several = [name for name in cues if cues[name].nunique() > 1]
    return cues[several].rename(columns={"aspect": "width / height",
                                         "bytes_per_pixel": "bytes a pixel"})


def guess_classes(cue: pd.Series, labels: pd.Series, folds: np.ndarray, seed: int) -> np.ndarray:
    """Return the class that a cue alone points to, by a tree fitted on the other folds."""
    inputs = (cue.fillna(cue.median()).to_numpy()[:, None] if is_numeric_dtype(cue)
              else pd.get_dummies(cue).to_numpy(float))
    found = np.empty(len(cue), object)
    for fold in np.unique(folds):
        tree = DecisionTreeClassifier(max_leaf_nodes=16, min_samples_leaf=FEWEST,
                                      class_weight="balanced", random_state=seed)
        others = folds != fold
        tree.fit(inputs[others], labels[others])
        found[~others] = tree.predict(inputs[~others])
    return found


def find_shortcuts(answers: pd.DataFrame, cues: pd.DataFrame, classes: list[str],
                   resamples: int, seed: int) -> pd.DataFrame:
    """Ask both questions of every cue.

    Args:
        answers: rows of `tabulate_probabilities`; `cues`: their `describe_cues`.

    Returns:
        A row a cue, the most telling first: `cue`; `told` (balanced accuracy of the cue alone)
        with `told_low`, `told_high`, and `chance`; `misled` (images for which it points to
        another class); `fall` (how much lower the model's accuracy is on them than on other
        images of their class, averaged over classes) with `low`, `high` and `p_holm`, corrected
        for the number of cues; and `shortcut`, whether both answers are clear.
    """
    rows, folds = [], answers.fold.to_numpy()
    present = answers.label.nunique()
    for name in cues:
        guesses = guess_classes(cues[name], answers.label, folds, seed)
        alone = answers[["label", "group"]].assign(prediction=guesses)
        told = score_with_intervals(alone, classes, resamples, seed, ["balanced accuracy"])
        fall, low, high, p = _measure_fall(answers, guesses, classes, resamples, seed)
        value, told_low, told_high = told.loc["balanced accuracy"]
        rows.append({"cue": name, "told": value, "told_low": told_low, "told_high": told_high,
                     "chance": 1 / present, "misled": int((guesses != answers.label).sum()),
                     "fall": fall, "low": low, "high": high, "p_holm": p})
    columns = ["cue", "told", "told_low", "told_high", "chance", "misled", "fall", "low", "high",
               "p_holm"]
    found = pd.DataFrame(rows, columns=columns).sort_values("told", ascending=False,
                                                            ignore_index=True)
    found["p_holm"] = correct_for_many(found.p_holm)
    found["shortcut"] = (found.told_low > found.chance) & (found.p_holm < 0.05)
    return found


def _measure_fall(answers, guesses, classes, resamples, seed) -> tuple[float, ...]:
    """Return the fall, its interval, and one-sided p."""
    sample = create_sample(answers, classes)
    right = sample.labels == sample.predictions
    keys = 2 * sample.labels + (guesses != answers.label.to_numpy())
    count = 2 * len(classes)

    def measure(weights):
        drawn = create_sample(answers, classes, weights)
        images = drawn.add_up(keys, count).reshape(-1, len(classes), 2)
        shares = divide(drawn.add_up(keys, count, right).reshape(images.shape), images)
        # Classes of which images are on both sides, each as often as it is misled.
        weight = np.where(images.min(axis=2) > 0, images[:, :, 1], 0)
        return divide(((shares[:, :, 0] - shares[:, :, 1]) * weight).sum(axis=1),
                      weight.sum(axis=1))

    draws = np.concatenate([measure(weights)
                            for weights in draw_weights(answers, resamples, seed)])
    value = float(measure(np.ones((1, len(answers))))[0])
    p = ((draws <= 0).sum() + 1) / (len(draws) + 1)
    return value, *map(float, find_interval(draws)), float(p)


def score_parts(answers: pd.DataFrame, cues: pd.DataFrame, classes: list[str], resamples: int,
                seed: int) -> pd.DataFrame:
    """Return the model's accuracy by brightness, size, and every other cue.

    Returns:
        A row a cue and part of its values: `cue`, `part`, `images`, `accuracy`, `low`, `high`.
        Parts of fewer than 10 images are left out.
    """
    rows = []
    for name in cues:
        for part, members in _cut(cues[name]).items():
            if members.sum() < FEWEST:
                continue
            score = score_with_intervals(answers[members], classes, resamples, seed, ["accuracy"])
            value, low, high = score.loc["accuracy"]
            rows.append({"cue": name, "part": part, "images": int(members.sum()),
                         "accuracy": value, "low": low, "high": high})
    return pd.DataFrame(rows, columns=["cue", "part", "images", "accuracy", "low", "high"])


def _cut(cue: pd.Series) -> dict[str, np.ndarray]:
    """Return which images are in each part of a cue's values, (images,) bool, in order."""
    if not is_numeric_dtype(cue):
        return {str(value): (cue == value).to_numpy() for value in cue.value_counts().index}
    parts, edges = pd.qcut(cue, BINS, labels=False, retbins=True, duplicates="drop")
    return {f"{_show(low)} to {_show(high)}": (parts == number).to_numpy()
            for number, (low, high) in enumerate(pairwise(edges))}


def _show(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def describe_shortcut(row: pd.Series) -> str:
    """Say what was found of one cue, a row of `find_shortcuts`, in words."""
    return (f"{row.cue} alone reaches a balanced accuracy of {row.told:.0%} (chance "
            f"{row.chance:.0%}); where it points to another class, the model's accuracy differs "
            f"by {-100 * row.fall:+.1f} points from that on other images of the same class "
            f"({-100 * row.high:+.1f} to {-100 * row.low:+.1f})")
