"""Compare: models on the same images, by differences that both share the luck of.

Groups (near copies, products) are resampled whole: their images are no independent evidence.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from helpers.evaluation.intervals import CELLS_AT_ONCE, find_interval
from helpers.evaluation.scores import class_f1, measure_losses, score_confusion

LOWER_IS_BETTER = ("log loss",)


def resample_scores(tables: dict[str, pd.DataFrame], classes: list[str], resamples: int,
                    seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Score every table on the same draws of groups (Efron and Tibshirani 1993, chapter 16).

    Args:
        tables: name -> `label`, `prediction` and perhaps `group` and `p_<class>`, a row an image,
            all in one order.

    Returns:
        Name -> score -> (1 + resamples,) values, the first of the images as they are; `classes`
        holds F1 of each class, (1 + resamples, classes), NaN where a draw has none of its images.

    Raises:
        ValueError: the tables' labels differ.
    """
    first = next(iter(tables.values()))
    if any(list(table.label) != list(first.label) for table in tables.values()):
        raise ValueError("the tables answer for different images")
    groups = pd.factorize(first.group)[0] if "group" in first else np.arange(len(first))
    sums = {name: _sum_groups(table, groups, classes) for name, table in tables.items()}
    rng, count, drawn = np.random.default_rng(seed), groups.max() + 1, []
    at_once = max(1, CELLS_AT_ONCE // max(count, len(classes) ** 2))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        times = rng.multinomial(count, np.full(count, 1 / count), size)
        times = times if start else np.vstack([np.ones((1, count), int), times])
        drawn.append({name: _score(times, *parts, len(classes)) for name, parts in sums.items()})
    return {name: {score: np.concatenate([part[name][score] for part in drawn])
                   for score in drawn[0][name]} for name in tables}


def _sum_groups(table: pd.DataFrame, groups: np.ndarray, classes: list[str]):
    """Return each group's confusion matrix as a sparse row, and its sum of losses, or None."""
    codes = {name: code for code, name in enumerate(classes)}
    cells = table.label.map(codes) * len(classes) + table.prediction.map(codes)
    shape = groups.max() + 1, len(classes) ** 2
    confusions = csr_array((np.ones(len(table)), (groups, cells)), shape=shape)
    if f"p_{classes[0]}" not in table:
        return confusions, None
    return confusions, np.bincount(groups, measure_losses(table, classes))


def _score(times: np.ndarray, confusions: csr_array, losses: np.ndarray | None,
           count: int) -> dict[str, np.ndarray]:
    stack = (confusions.T @ times.T).T.reshape(len(times), count, count)
    # A draw without an image of a class says nothing about it.
    by_class = np.where(stack.sum(axis=-1) > 0, class_f1(stack), np.nan)
    scores = score_confusion(stack) | {"classes": by_class}
    if losses is not None:
        scores["log loss"] = times @ losses / stack.sum(axis=(1, 2))
    return scores


def subtract_scores(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return a row a score that both have: how far `one` is above `other`.

    Columns: `difference`, `low` and `high` of its 95 % interval, and `p`, two-sided: how rarely
    so large a difference would come about if there were none.
    """
    rows = {}
    for score in one.keys() & other.keys() - {"classes"}:
        value, *draws = one[score] - other[score]
        below = min(np.mean(np.array(draws) <= 0), np.mean(np.array(draws) >= 0))
        p = min(1.0, 2 * (below * len(draws) + 1) / (len(draws) + 1))
        rows[score] = (float(value), *find_interval(np.array(draws)), p)
    found = pd.DataFrame.from_dict(rows, orient="index",
                                   columns=["difference", "low", "high", "p"])
    return found.reindex([score for score in one if score in rows])


def compare_scores(one: pd.DataFrame, other: pd.DataFrame, classes: list[str], resamples: int,
                   seed: int) -> pd.DataFrame:
    """Return `subtract_scores` of two tables of answers for the same images."""
    scores = resample_scores({"one": one, "other": other}, classes, resamples, seed)
    return subtract_scores(scores["one"], scores["other"])


def correct_for_many(p: Iterable[float]) -> np.ndarray:
    """Return p values for many comparisons at once (Holm 1979).

    Among all whose corrected value is under 0.05, not even one is a false alarm in 95 % of cases.
    """
    p = np.asarray(list(p), float)
    order = np.argsort(p)
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(raised, 1)
    return corrected


def describe_difference(name: str, score: str, row: pd.Series) -> str:
    """Say a difference in words: "SMOTE: macro F1 -0.4 points (-1.6 to 0.9): no difference seen".

    Args:
        row: `difference`, `low` and `high`, as from `subtract_scores`.
    """
    scale, unit, digits = (1, "", 3) if score in LOWER_IS_BETTER else (100, " points", 1)
    value, low, high = (f"{scale * number:+.{digits}f}"
                        for number in (row.difference, row.low, row.high))
    better = row.low > 0 if score not in LOWER_IS_BETTER else row.high < 0
    worse = row.high < 0 if score not in LOWER_IS_BETTER else row.low > 0
    verdict = "better" if better else "worse" if worse else "no difference seen"
    return f"{name}: {score} {value}{unit} ({low} to {high}): {verdict}"
