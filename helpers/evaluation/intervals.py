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
    rows = {name: (float(values[name]), *_interval(np.concatenate([s[name] for s in stacks])))
            for name in values}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])


def score_sets(sets: dict[str, pd.DataFrame], classes: list[str],
               run: Run) -> dict[str, pd.DataFrame]:
    """Return the scores with intervals of each set of answered images."""
    resampling = {"resamples": run.recipe.evaluation.bootstrap, "seed": run.recipe.splits.seed}
    return {name: score_with_intervals(count_confusion(rows, classes), **resampling)
            for name, rows in sets.items()}


def compare_scores(one: pd.DataFrame, other: pd.DataFrame, classes: list[str], resamples: int,
                   seed: int) -> pd.DataFrame:
    """Return a row a score: how far `one` is ahead of `other` on the same images, low and high.

    A paired bootstrap: every resample scores both on the same draw of images, so that what is
    easy or hard for both cancels out (Efron and Tibshirani 1993, chapter 16).

    Args:
        one, other: tables with `label` and `prediction`, a row an image, in one order.
    """
    count, codes = len(classes), {name: code for code, name in enumerate(classes)}
    columns = [one.label, one.prediction, other.prediction]
    cells, images = np.unique([column.map(codes) for column in columns], axis=1,
                              return_counts=True)
    at_once = max(1, CELLS_AT_ONCE // max(count**2, len(images)))
    rng, draws = np.random.default_rng(seed), []
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        draws.append(rng.multinomial(images.sum(), images / images.sum(), size))

    def score(drawn: np.ndarray, answers: np.ndarray) -> dict[str, np.ndarray]:
        stack = np.zeros((count, count, len(drawn)), np.int64)
        np.add.at(stack, (cells[0], answers), drawn.T)
        return score_confusion(stack.transpose(2, 0, 1))

    def subtract(drawn: np.ndarray) -> dict[str, np.ndarray]:
        ours, theirs = score(drawn, cells[1]), score(drawn, cells[2])
        return {name: ours[name] - theirs[name] for name in ours}

    values, parts = subtract(images[None]), [subtract(drawn) for drawn in draws]
    rows = {name: (float(value[0]), *_interval(np.concatenate([part[name] for part in parts])))
            for name, value in values.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])


def score_classes(confusion: np.ndarray, classes: list[str], resamples: int,
                  seed: int) -> pd.DataFrame:
    """Return a row a class: images, precision, recall, F1 with its 95 % interval.

    Resamples that hold no image of a class say nothing about it and are left out of its interval.
    """
    hits, images = np.diagonal(confusion), confusion.sum(axis=1)
    stacks = [np.where(s.sum(axis=-1) > 0, class_f1(s), np.nan)
              for s in resample_confusion(confusion, resamples, seed)]
    low, high = _interval(np.concatenate(stacks))
    return pd.DataFrame({"images": images, "precision": divide(hits, confusion.sum(axis=0)),
                         "recall": divide(hits, images), "F1": class_f1(confusion), "low": low,
                         "high": high}, index=pd.Index(classes, name="class"))


def _interval(draws: np.ndarray) -> tuple:
    tail = (1 - CONFIDENCE) / 2
    # A class without a single image has no interval, and F1 0.
    draws = np.where(np.isnan(draws).all(axis=0), 0.0, draws)
    return tuple(np.nanquantile(draws, [tail, 1 - tail], axis=0))
