"""Scores: what a confusion matrix says, overall and class by class."""

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix


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
    return {"accuracy": hits.sum(axis=-1) / total,
            "balanced accuracy": _mean(divide(hits, actual), actual > 0),
            "macro F1": _mean(f1, actual + predicted > 0),
            "weighted F1": (f1 * actual).sum(axis=-1) / total}


def class_f1(confusion: np.ndarray) -> np.ndarray:
    """Return F1 of every class, (..., classes); 0 for one neither present nor predicted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return divide(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def measure_losses(table: pd.DataFrame, classes: list[str]) -> np.ndarray:
    """Return each image's logarithmic loss, (images,): how unlikely its class was said to be.

    A probability under float32's epsilon counts as that, as in scikit-learn.
    """
    probabilities = table[[f"p_{name}" for name in classes]].to_numpy(np.float32)
    codes = table.label.map({name: code for code, name in enumerate(classes)})
    own = probabilities[np.arange(len(table)), codes] / probabilities.sum(axis=1)
    return -np.log(np.clip(own.astype(np.float64), np.finfo(np.float32).eps, 1))


def divide(top, bottom):
    """Return top / bottom, 0 where the bottom is 0."""
    return np.divide(top, bottom, out=np.zeros(np.shape(top), float), where=bottom > 0)


def _mean(values, chosen):
    return divide((values * chosen).sum(axis=-1), chosen.sum(axis=-1))


def find_mistakes(table: pd.DataFrame) -> pd.DataFrame:
    """Return the misclassified rows, the most confident first, with `confidence`.

    Args:
        table: rows of `tabulate_probabilities`.
    """
    wrong = table[table.prediction != table.label]
    confidence = wrong.filter(regex="^p_").max(axis=1)
    return wrong[["image_id", "path", "label", "prediction"]].assign(
        confidence=confidence).sort_values("confidence", ascending=False, ignore_index=True)


def tabulate_predictions(table: pd.DataFrame, class_names: dict[str, str]) -> pd.DataFrame:
    """Return image_id, path, split, prediction and confidence of every image.

    With `class_names` (code -> name) a column `code` gives the data set's own code back.
    """
    result = table[["image_id", "path", "split", "prediction"]].assign(
        confidence=table.filter(regex="^p_").max(axis=1))
    if class_names:
        codes = {name: code for code, name in class_names.items()}
        result.insert(4, "code", result.prediction.map(lambda name: codes.get(name, name)))
    return result


def format_scores(scores: pd.DataFrame) -> dict[str, str]:
    """Return each score as text: 0.914 [0.881, 0.942]."""
    return {name: f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
            for name, row in scores.iterrows()}
