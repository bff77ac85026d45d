"""Intervals: how much a score would move with other images of the same kind.

Groups (near copies, products) are drawn whole, for their images are no independent evidence, and
class by class, so that a small class does not vanish: the bootstrap of stratified clusters by Rao
and Wu (1988, Resampling Inference with Complex Survey Data). `make bench` measures the coverage.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
import pandas as pd
from scipy import stats

from helpers.evaluation.scores import (
    class_f1,
    create_sample,
    divide,
    list_scores,
    measure_gaps,
)
from helpers.files import SuiteError
from helpers.run import Run

CONFIDENCE = 0.95
# The largest that they can be: log loss as in scikit-learn, Brier score if sure and wrong.
LARGEST = {"log loss": -float(np.log(np.finfo(np.float32).eps)), "Brier score": 2.0, "AUC": 1.0}
EVEN = ("balanced accuracy", "macro F1", "AUC")  # each class counts the same
CELLS_AT_ONCE = 10_000_000  # of drawn weights or matrices in memory, 80 MB


def draw_weights(table: pd.DataFrame, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how much each image counts in each draw, in stacks (some draws, images).

    Of the n groups of a class n - 1 are drawn with replacement, each counting n / (n - 1): so the
    draws vary as much as the score does, also where n is small. A group of several labels is
    drawn with its most frequent one.
    """
    groups, strata = describe_groups(table)
    rng, count = np.random.default_rng(seed), len(strata)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    # Each draw also gets a confusion matrix.
    at_once = max(1, CELLS_AT_ONCE // max(len(table), table.label.nunique() ** 2))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        weights = np.ones((size, count))
        for own in members:
            if (n := len(own)) > 1:  # what is alone stays
                drawn = rng.integers(0, n, (size, n - 1)) + n * np.arange(size)[:, None]
                times = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
                weights[:, own] = times * (n / (n - 1))
        yield weights if count == len(table) else weights[:, groups]


def describe_groups(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's group, (images,) 0..n-1, and each group's most frequent label, (n,)."""
    labels = pd.factorize(table.label)[0]
    if "group" not in table:
        return np.arange(len(table)), labels
    alone = pd.Series([f"alone {n}" for n in range(len(table))], table.index)
    groups = pd.factorize(table.group.astype(object).where(table.group.notna(), alone))[0]
    counts = pd.DataFrame({"group": groups, "label": labels}).value_counts(sort=False)
    counts = counts.reset_index().sort_values(["group", "count"], kind="stable")
    return groups, counts.drop_duplicates("group", keep="last").label.to_numpy()


def resample_scores(tables: dict[str, pd.DataFrame], classes: list[str], resamples: int,
                    seed: int, names: Iterable[str] | None = None, by_class: bool = False
                    ) -> dict[str, dict[str, np.ndarray]]:
    """Score every table on the same draws of groups (Efron and Tibshirani 1993, chapter 16).

    Args:
        tables: name -> `label`, `prediction` and perhaps `group` and `p_<class>`, a row an image,
            all in one order.
        names: of the scores; null: all that the tables allow.
        by_class: return `classes` too: F1 of each, (1 + resamples, classes), NaN where a draw has
            none of its images.

    Returns:
        Name -> score -> (1 + resamples,) values, the first of the images as they are; `gaps` are
        those of the calibration error.

    Raises:
        SuiteError: the tables' labels differ, or as `create_sample`.
    """
    first = next(iter(tables.values()))
    if any(list(table.label) != list(first.label) for table in tables.values()):
        raise SuiteError("the answers are for different images.")
    found = {name: {} for name in tables}
    for weights in chain([np.ones((1, len(first)))], draw_weights(first, resamples, seed)):
        for name, table in tables.items():
            sample = create_sample(table, classes, weights)
            scores = {score: function for score, function in list_scores(sample).items()
                      if names is None or score in names}
            if "calibration error" in scores:
                scores["gaps"] = measure_gaps
            if by_class:
                scores["classes"] = _score_each
            for score, function in scores.items():
                found[name].setdefault(score, []).append(function(sample))
    return {name: {score: np.concatenate(parts) for score, parts in scores.items()}
            for name, scores in found.items()}


def _score_each(sample) -> np.ndarray:
    # A draw without an image of a class says nothing about it.
    return np.where(sample.confusion.sum(axis=-1) > 0, class_f1(sample.confusion), np.nan)


def score_with_intervals(table: pd.DataFrame, classes: list[str], resamples: int, seed: int,
                         names: Iterable[str] | None = None) -> pd.DataFrame:
    """Return a row a score: `value`, `low` and `high` of its 95 % interval.

    Args:
        table: as in `resample_scores`.
        names: of the scores; null: all that the table allows.
    """
    drawn = resample_scores({"": table}, classes, resamples, seed, names)[""]
    sizes = np.bincount(describe_groups(table)[1])
    rows = {name: (draws[0], *(bound_calibration(drawn["gaps"], sizes)
                               if name == "calibration error"
                               else bound_score(name, draws[0], draws[1:], sizes)))
            for name, draws in drawn.items() if draws.ndim == 1}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])


def score_sets(sets: dict[str, pd.DataFrame], classes: list[str], run: Run,
               names: Iterable[str] | None = None) -> dict[str, pd.DataFrame]:
    """Return the scores with intervals of each set of answered images."""
    return {name: score_with_intervals(rows, classes, run.recipe.evaluation.bootstrap,
                                       run.recipe.splits.seed, names)
            for name, rows in sets.items()}


def score_classes(table: pd.DataFrame, classes: list[str], resamples: int,
                  seed: int) -> pd.DataFrame:
    """Return a row a class: images, groups, precision, recall, F1 with its 95 % interval.

    A class without an image has no interval.
    """
    drawn = resample_scores({"": table}, classes, resamples, seed, (), True)[""]["classes"]
    confusion = create_sample(table, classes).confusion[0]
    hits, images = np.diagonal(confusion), confusion.sum(axis=1)
    groups, _ = describe_groups(table)
    owners = pd.DataFrame({"class": table.label.to_numpy(), "group": groups})
    counts = owners.groupby("class").group.nunique().reindex(classes, fill_value=0)
    f1 = class_f1(confusion)
    bounds = [bound_score("F1", value, draws[np.isfinite(draws)], np.array([count]))
              if count else (np.nan, np.nan)
              for value, draws, count in zip(f1, drawn[1:].T, counts, strict=True)]
    low, high = np.transpose(bounds)
    return pd.DataFrame({"images": images.astype(int), "groups": counts.to_numpy(),
                         "precision": divide(hits, confusion.sum(axis=0)),
                         "recall": divide(hits, images), "F1": f1, "low": low, "high": high},
                        index=pd.Index(classes, name="class"))


def bound_score(name: str, value: float, draws: np.ndarray,
                sizes: np.ndarray) -> tuple[float, float]:
    """Return low and high of a score's 95 % interval.

    A score from 0 to 1 is taken for a share of as many images as would vary like its draws, and
    gets Wilson's interval (1927): so no mistake among few images is no certainty. A loss is made
    symmetric by 1 / sqrt, for a few large losses make up much of it. Either uses Student's t,
    with the degrees of freedom that the classes' groups give (Satterthwaite 1946).

    Args:
        draws: (resamples,) of the bootstrap.
        sizes: (classes,) groups of each class.
    """
    sizes, even = sizes[sizes > 0], name in EVEN
    t, deviation = find_t(sizes, even), float(draws.std()) if len(draws) else 0.0
    flip = name == "AUC" and draws.max(initial=value) < 1  # near 1 as lopsided as a loss
    if flip or (name in LARGEST and name != "AUC"):
        loss, drawn = (1 - value, 1 - draws) if flip else (max(value, 1e-12), draws)
        middle, spread = loss**-0.5, np.std(np.maximum(drawn, loss / 100) ** -0.5)
        low = (middle + t * spread) ** -2.0
        high = (middle - t * spread) ** -2.0 if middle > t * spread else np.inf
        high = min(high, LARGEST[name])
        if not flip:
            return low, high
        if middle > 2 * t * spread:  # else that reaches too far: some class has next to no images
            return 1 - high, 1 - low
    value = min(max(float(value), 0.0), 1.0)
    # As if every class were equally hard.
    count = len(sizes) ** 2 / (1 / sizes).sum() if even else sizes.sum()
    if 0 < value < 1 and deviation > 1e-9:
        count = max(1.0, value * (1 - value) / deviation**2)
    middle = (value + t**2 / 2 / count) / (1 + t**2 / count)
    reach = t / (1 + t**2 / count) * np.sqrt(value * (1 - value) / count + (t / 2 / count) ** 2)
    return max(0.0, float(middle - reach)), min(1.0, float(middle + reach))


def bound_calibration(gaps: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """Return low and high of the calibration error's 95 % interval.

    Chance makes the error larger, never smaller. The upper end takes away what the draws add to
    it, the lower end what a perfectly calibrated model would show on as many images.

    Args:
        gaps: (1 + resamples, bins) from `measure_gaps`, the first of the images as they are.
    """
    value, draws = np.abs(gaps[0]).sum(), np.abs(gaps[1:]).sum(axis=1)
    reach = find_t(sizes[sizes > 0]) * draws.std()
    chance = np.abs(gaps[1:] - gaps[0]).sum(axis=1).mean()
    return max(0.0, value - chance - reach), min(1.0, 2 * value - draws.mean() + reach)


def find_t(sizes: np.ndarray, even: bool = False) -> float:
    """Return Student's t for the groups that each class has.

    Args:
        even: of a score in which each class counts the same, whatever its size.
    """
    several = sizes[sizes > 1].astype(float)
    freedom = 1.0
    if len(several):
        parts = 1 / several if even else several  # of the variance, were all equally hard
        freedom = parts.sum() ** 2 / (parts**2 / (several - 1)).sum()
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, max(1.0, freedom)))


def find_interval(draws: np.ndarray) -> tuple:
    """Return low and high of the 95 % percentile interval of draws, along their first axis.

    For differences, which are far from any end of their scale.
    """
    tail = (1 - CONFIDENCE) / 2
    # Of a class without a single image nothing moves.
    draws = np.where(np.isnan(draws).all(axis=0), 0.0, draws)
    return tuple(np.nanquantile(draws, [tail, 1 - tail], axis=0))
