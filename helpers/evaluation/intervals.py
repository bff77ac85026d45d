"""Intervals: how much a score would move with other images of the same kind.

Everything starts from the confusion matrix. Drawing n images with replacement from n images
is the same as drawing a matrix from the multinomial distribution over its cells, so thousands
of resamples cost milliseconds even for 100,000 images (Efron and Tibshirani 1993, chapter 6).
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from helpers.evaluation.scores import class_f1, count_confusion, divide, score_confusion
from helpers.run import Run

CONFIDENCE = 0.95
CELLS_AT_ONCE = 10_000_000  # of resampled matrices in memory, 80 MB


def resample_confusion(confusion: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield bootstrap matrices in stacks, (some, classes, classes), so that memory stays flat."""
    rng = np.random.default_rng(seed)
    rows, columns = np.nonzero(confusion)
    counts = confusion[rows, columns]
    at_once = max(1, CELLS_AT_ONCE // confusion.size)
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        stack = np.zeros((size, *confusion.shape), np.int64)
        stack[:, rows, columns] = rng.multinomial(counts.sum(), counts / counts.sum(), size)
        yield stack


def score_with_intervals(confusion: np.ndarray, resamples: int, seed: int) -> pd.DataFrame:
    """Return a row a score: value, low and high of its 95 % percentile interval."""
    values = score_confusion(confusion)
    stacks = [score_confusion(s) for s in resample_confusion(confusion, resamples, seed)]
    rows = {name: (float(values[name]), *find_interval(np.concatenate([s[name] for s in stacks])))
            for name in values}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])


def score_sets(sets: dict[str, pd.DataFrame], classes: list[str],
               run: Run) -> dict[str, pd.DataFrame]:
    """Return the scores with intervals of each set of answered images."""
    resampling = {"resamples": run.recipe.evaluation.bootstrap, "seed": run.recipe.splits.seed}
    return {name: score_with_intervals(count_confusion(rows, classes), **resampling)
            for name, rows in sets.items()}


def score_classes(confusion: np.ndarray, classes: list[str], resamples: int,
                  seed: int) -> pd.DataFrame:
    """Return a row a class: images, precision, recall, F1 with its 95 % interval.

    Resamples that hold no image of a class say nothing about it and are left out of its interval.
    """
    hits, images = np.diagonal(confusion), confusion.sum(axis=1)
    stacks = [np.where(s.sum(axis=-1) > 0, class_f1(s), np.nan)
              for s in resample_confusion(confusion, resamples, seed)]
    low, high = find_interval(np.concatenate(stacks))
    return pd.DataFrame({"images": images, "precision": divide(hits, confusion.sum(axis=0)),
                         "recall": divide(hits, images), "F1": class_f1(confusion), "low": low,
                         "high": high}, index=pd.Index(classes, name="class"))


def find_interval(draws: np.ndarray) -> tuple:
    """Return low and high of the 95 % percentile interval of draws, along their first axis."""
    tail = (1 - CONFIDENCE) / 2
    # A class without a single image has no interval, and F1 0.
    draws = np.where(np.isnan(draws).all(axis=0), 0.0, draws)
    return tuple(np.nanquantile(draws, [tail, 1 - tail], axis=0))
