"""Evaluation: scores with bootstrap intervals, classes one by one, mistakes worth a look.

Everything starts from the confusion matrix. Drawing n images with replacement from n images
is the same as drawing a matrix from the multinomial distribution over its cells, so thousands
of resamples cost milliseconds even for 100,000 images (Efron and Tibshirani 1993, chapter 6).
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

CONFIDENCE = 0.95
CELLS_AT_ONCE = 10_000_000  # of resampled matrices in memory, 80 MB


def count_confusion(table: pd.DataFrame, classes: list[str]) -> np.ndarray:
    """Return the (classes, classes) counts of a table: rows true labels, columns predictions."""
    return confusion_matrix(table.label, table.prediction, labels=classes)


def score_confusion(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of one confusion matrix or of many, (..., classes, classes).

    As in scikit-learn: balanced accuracy averages recall over the classes that occur, F1 of a
    class counts over all classes that occur or are predicted.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    actual, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    total = actual.sum(axis=-1)
    f1 = class_f1(confusion)
    recall = _divide(hits, actual)
    return {
        "accuracy": hits.sum(axis=-1) / total,
        "balanced accuracy": _mean(recall, actual > 0),
        "macro F1": _mean(f1, actual + predicted > 0),
        "weighted F1": (f1 * actual).sum(axis=-1) / total,
    }


def class_f1(confusion: np.ndarray) -> np.ndarray:
    """Return F1 of every class, (..., classes); 0 for one neither present nor predicted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _divide(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def _divide(top, bottom):
    return np.divide(top, bottom, out=np.zeros(np.shape(top), float), where=bottom > 0)


def _mean(values, chosen):
    return _divide((values * chosen).sum(axis=-1), chosen.sum(axis=-1))


def resample_confusion(confusion: np.ndarray, resamples: int,
                       seed: int) -> Iterator[np.ndarray]:
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


def score_classes(confusion: np.ndarray, classes: list[str], resamples: int,
                  seed: int) -> pd.DataFrame:
    """Return a row a class: images, precision, recall, F1 with its 95 % interval."""
    hits = np.diagonal(confusion)
    stacks = [class_f1(s) for s in resample_confusion(confusion, resamples, seed)]
    low, high = _interval(np.concatenate(stacks))
    return pd.DataFrame({
        "images": confusion.sum(axis=1),
        "precision": _divide(hits, confusion.sum(axis=0)),
        "recall": _divide(hits, confusion.sum(axis=1)),
        "F1": class_f1(confusion), "low": low, "high": high,
    }, index=pd.Index(classes, name="class"))


def _interval(draws: np.ndarray) -> tuple:
    tail = (1 - CONFIDENCE) / 2
    return tuple(np.quantile(draws, [tail, 1 - tail], axis=0))


def find_mistakes(table: pd.DataFrame) -> pd.DataFrame:
    """Return the misclassified rows, the most confident first, with `confidence`.

    Args:
        table: rows of `tabulate_probabilities`.
    """
    wrong = table[table.prediction != table.label]
    confidence = [row[f"p_{row['prediction']}"] for _, row in wrong.iterrows()]
    return (wrong[["image_id", "path", "label", "prediction"]]
            .assign(confidence=confidence)
            .sort_values("confidence", ascending=False, ignore_index=True))


def tabulate_predictions(table: pd.DataFrame, class_names: dict[str, str]) -> pd.DataFrame:
    """Return image_id, path, split, prediction and confidence of every test image.

    With `class_names` (code -> name) a column `code` gives the data set's own code back.
    """
    probabilities = table.filter(regex="^p_")
    result = table[["image_id", "path", "split", "prediction"]].assign(
        confidence=probabilities.max(axis=1))
    if class_names:
        codes = {name: code for code, name in class_names.items()}
        result.insert(4, "code", result.prediction.map(lambda name: codes.get(name, name)))
    return result


def format_scores(scores: pd.DataFrame) -> dict[str, str]:
    """Return each score as text: 0.914 [0.881, 0.942]."""
    return {name: f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
            for name, row in scores.iterrows()}
