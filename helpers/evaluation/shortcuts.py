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
        cues["pixels"], cues["width / height"] = width * height, width / height
        cues["bytes per pixel"] = table.bytes / (width * height)
    for column, name in (("format", "file type"), ("mode", "colour mode"), ("grey", "grey")):
        if column in table:
            cues[name] = table[column].astype(str)
    for name in table.columns.difference(list(OWN), sort=False):
        values = table[name]
        # An empty field of a CSV is an empty text, also among numbers.
        numbers = pd.to_numeric(values.replace("", np.nan), errors="coerce").astype(float)
        title = f"table: {name}" if name in cues else name
        if not is_bool_dtype(values) and numbers.notna().equals(values.notna() & (values != "")):
            several = numbers.nunique() > 2 * BINS
            cues[title] = numbers if several else numbers.map("{:g}".format, "ignore").fillna("")
        elif values.nunique() <= MOST_VALUES:
            cues[title] = values.astype(str)
    return cues[[name for name in cues if cues[name].nunique() > 1]]


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
        for the number of cues; and `verdict`: `yes`, `no`, or `untestable` where the cue gives
        the class away and no class has images on both sides.
    """
    # With fewer draws even a fall in all of them would not pass Holm's correction.
    rows, folds, resamples = [], answers.fold.to_numpy(), max(resamples, 50 * len(cues.columns))
    present = answers.label.nunique()
    for name in cues:
        guesses = guess_classes(cues[name], answers.label, folds, seed)
        alone = answers.filter(["label", "group"]).assign(prediction=guesses)
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
    tested = found.p_holm.notna()
    found.loc[tested, "p_holm"] = correct_for_many(found.p_holm[tested])
    used = np.where(tested, np.where(found.p_holm < 0.05, "yes", "no"), "untestable")
    found["verdict"] = np.where(found.told_low > found.chance, used, "no")
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
        total = weight.sum(axis=1)
        fall = divide(((shares[:, :, 0] - shares[:, :, 1]) * weight).sum(axis=1), total)
        return np.where(total > 0, fall, np.nan)

    draws = np.concatenate([measure(weights)
                            for weights in draw_weights(answers, resamples, seed)])
    value, draws = float(measure(np.ones((1, len(answers))))[0]), draws[np.isfinite(draws)]
    if np.isnan(value) or not len(draws):
        return (np.nan,) * 4
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
        for part, members in _cut(cues[name]):
            if members.sum() < FEWEST:
                continue
            score = score_with_intervals(answers[members], classes, resamples, seed, ["accuracy"])
            value, low, high = score.loc["accuracy"]
            rows.append({"cue": name, "part": part, "images": int(members.sum()),
                         "accuracy": value, "low": low, "high": high})
    return pd.DataFrame(rows, columns=["cue", "part", "images", "accuracy", "low", "high"])


def _cut(cue: pd.Series) -> list[tuple[str, np.ndarray]]:
    """Return what each part of a cue's values is called, and which images are in it."""
    if not is_numeric_dtype(cue):
        return [(str(value) or "(empty)", (cue == value).to_numpy())
                for value in cue.value_counts().index]
    parts, edges = pd.qcut(cue, BINS, labels=False, retbins=True, duplicates="drop")
    digits = next((number for number in range(3, 12)
                   if len({_show(edge, number) for edge in edges}) == len(edges)), 12)
    found = [(f"{_show(low, digits)} to {_show(high, digits)}", (parts == number).to_numpy())
             for number, (low, high) in enumerate(pairwise(edges))]
    return [*found, *([("(missing)", cue.isna().to_numpy())] if cue.isna().any() else [])]


def _show(number: float, digits: int) -> str:
    whole = abs(number) >= 10 ** (digits - 1)
    return f"{number:,.0f}" if whole else f"{number:.{digits}g}"


def describe_shortcut(row: pd.Series) -> str:
    """Say what was found of one cue, a row of `find_shortcuts`, in words."""
    said = (f"{row.cue} alone reaches a balanced accuracy of {row.told:.0%} (chance "
            f"{row.chance:.0%}); ")
    if pd.isna(row.fall):
        return said + ("no image contradicts it, so whether the model uses it cannot be told"
                       if row.told_low > row.chance else "there is nothing to compare")
    return said + (f"where it points to another class, the model's accuracy differs by "
                   f"{-100 * row.fall:+.1f} points from that on other images of the same class "
                   f"({-100 * row.high:+.1f} to {-100 * row.low:+.1f})"
                   f"{': no evidence of a shortcut' * (row.verdict == 'no')}")
