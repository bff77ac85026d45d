"""Scores: what answered images say, each score a function of one sample or of many draws.

A score is one line in `SCORES`: a function of a `Sample` that returns a number a draw.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from sklearn.metrics import confusion_matrix

from helpers.files import SuiteError

BINS = 15  # of confidence, for the calibration error
TOLERANCE = 1e-3  # of probabilities that should add up to one


@dataclass(frozen=True)
class Sample:
    """Answered images, and how much each counts in each draw.

    Attributes:
        labels, predictions: (images,) class codes.
        probabilities: (images, classes) float64, or None where only predictions are known.
        weights: (draws, images).
        count: number of classes.
    """

    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray | None
    weights: np.ndarray
    count: int

    @cached_property
    def total(self) -> np.ndarray:
        """(draws,) sums of the weights."""
        return self.weights.sum(axis=1)

    def average(self, values: np.ndarray) -> np.ndarray:
        """Return the mean over the images, (draws,), of a value an image."""
        return self.weights @ values / self.total

    def add_up(self, keys: np.ndarray, count: int, values=None) -> np.ndarray:
        """Return (draws, count) sums of values, or of the images, by their key 0..count-1."""
        values = np.ones(len(keys)) if values is None else np.asarray(values, float)
        table = csr_array((values, (keys, np.arange(len(keys)))), (count, len(keys)))
        return (table @ self.weights.T).T

    @cached_property
    def confusion(self) -> np.ndarray:
        """(draws, classes, classes): rows true labels, columns predictions."""
        cells = self.labels * self.count + self.predictions
        return self.add_up(cells, self.count**2).reshape(-1, self.count, self.count)

    @cached_property
    def own(self) -> np.ndarray:
        """(images,) probability of the image's own class."""
        return self.probabilities[np.arange(len(self.labels)), self.labels]

    @cached_property
    def confidence(self) -> np.ndarray:
        """(images,) the largest probability."""
        return self.probabilities.max(axis=1)


def create_sample(table: pd.DataFrame, classes: list[str],
                  weights: np.ndarray | None = None) -> Sample:
    """Return the sample of a table of answers: `label`, `prediction`, perhaps `p_<class>`.

    Raises:
        SuiteError: a label or prediction is none of the classes, or an image's probabilities are
            missing, negative or do not add up to one; names the first such image.
    """
    named = pd.Index(classes)
    labels, predictions = (named.get_indexer(table[column]) for column in ("label", "prediction"))
    if len(table) == 0:
        raise SuiteError("there is not one image to score.")
    for codes, column in ((labels, "label"), (predictions, "prediction")):
        if (codes < 0).any():
            strange = table[column][codes < 0].iloc[0]
            raise SuiteError(f"{(codes < 0).sum()} images have a {column} that is no class of "
                             f"these answers, e.g. {strange!r}; the classes are "
                             f"{', '.join(classes[:10])}{' …' * (len(classes) > 10)}.")
    columns = [f"p_{name}" for name in classes]
    probabilities = None
    missing = [name for name in columns if name not in table]
    if missing and len(missing) < len(columns):
        raise SuiteError(f"the answers have no column {missing[0]}: make them again.")
    if not missing:
        probabilities = table[columns].to_numpy(float)
        sums = probabilities.sum(axis=1)
        wrong = ~((np.abs(sums - 1) < TOLERANCE) & (probabilities >= 0).all(axis=1))
        if wrong.any():
            first = table.image_id[wrong].iloc[0] if "image_id" in table else wrong.argmax()
            raise SuiteError(f"the probabilities of {wrong.sum()} images are missing, negative "
                             f"or do not add up to 1, e.g. of {first}: make the answers again.")
        # Dividing by all but 1 would only break ties.
        exact = np.where(np.abs(sums - 1) > 1e-6, sums, 1.0)
        probabilities = probabilities / exact[:, None]
    weights = np.ones((1, len(table))) if weights is None else weights
    return Sample(labels, predictions, probabilities, weights, len(classes))


def measure_losses(sample: Sample) -> np.ndarray:
    """Return each image's logarithmic loss, (images,): how unlikely its class was said to be.

    A probability under float32's epsilon counts as that, as in scikit-learn.
    """
    return -np.log(np.clip(sample.own, np.finfo(np.float32).eps, 1))


def find_top(sample: Sample, many: int) -> np.ndarray:
    """Return (images,) whether the own class is among the `many` most probable ones.

    The prediction counts as the first; among others of one probability the earlier class leads.
    """
    own = sample.own[:, None]
    earlier = np.arange(sample.count) < sample.labels[:, None]
    ahead = (sample.probabilities > own) | ((sample.probabilities == own) & earlier)
    return (sample.predictions == sample.labels) | (ahead.sum(axis=1) < many)


def class_f1(confusion: np.ndarray) -> np.ndarray:
    """Return F1 of every class, (..., classes); 0 for one neither present nor predicted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return divide(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def average_recall(sample: Sample) -> np.ndarray:
    """Return balanced accuracy, (draws,): the mean recall of the classes that occur."""
    actual = sample.confusion.sum(axis=-1)
    hits = np.diagonal(sample.confusion, axis1=-2, axis2=-1)
    return _mean(divide(hits, actual), actual > 0)


def average_f1(sample: Sample, weighted: bool = False) -> np.ndarray:
    """Return the mean F1, (draws,), of the classes that occur or are predicted."""
    actual, predicted = sample.confusion.sum(axis=-1), sample.confusion.sum(axis=-2)
    f1 = class_f1(sample.confusion)
    if weighted:
        return (f1 * actual).sum(axis=-1) / sample.total
    return _mean(f1, actual + predicted > 0)


def rank_classes(sample: Sample) -> np.ndarray:
    """Return the area under the ROC curve, (draws,), one class against the rest, averaged.

    As scikit-learn's `roc_auc_score(multi_class="ovr")`, over the classes that occur: how often
    an image of the class has a larger probability of it than an image of another class.
    """
    areas = []
    for code in np.unique(sample.labels):
        values = sample.probabilities[:, code]
        order = np.argsort(values, kind="stable")
        own, ranked = (sample.labels == code)[order], values[order]
        others = np.where(own, 0.0, sample.weights[:, order])
        below = np.zeros((len(others), len(order) + 1))
        np.cumsum(others, axis=1, out=below[:, 1:])
        at = ranked[own]
        # An image of the same probability counts half.
        lower, upper = (below[:, np.searchsorted(ranked, at, side)] for side in ("left", "right"))
        weights = sample.weights[:, order[own]]
        pairs = weights.sum(axis=1) * below[:, -1]
        won = (weights * (lower + upper)).sum(axis=1) / 2
        areas.append(np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan))
    areas, known = np.stack(areas, axis=1), np.isfinite(np.stack(areas, axis=1))
    return np.where(known.any(axis=1), _mean(np.nan_to_num(areas), known), np.nan)


def measure_gaps(sample: Sample) -> np.ndarray:
    """Return (draws, 15): how far confidence is above accuracy in each bin, times its share."""
    bins = np.minimum((sample.confidence * BINS).astype(int), BINS - 1)
    gaps = sample.confidence - (sample.predictions == sample.labels)
    return sample.add_up(bins, BINS, gaps) / sample.total[:, None]


def measure_calibration(sample: Sample) -> np.ndarray:
    """Return the expected calibration error, (draws,), in 15 bins of confidence.

    The mean distance between confidence and accuracy (Guo et al. 2017, On Calibration of Modern
    Neural Networks). Chance alone makes it larger than 0, the more so the fewer images.
    """
    return np.abs(measure_gaps(sample)).sum(axis=1)


OF_PREDICTIONS = {
    "accuracy": lambda sample: sample.average(sample.predictions == sample.labels),
    "balanced accuracy": average_recall,
    "macro F1": average_f1,
    "weighted F1": lambda sample: average_f1(sample, weighted=True),
}
SCORES = OF_PREDICTIONS | {
    "top-5 accuracy": lambda sample: sample.average(find_top(sample, 5)),
    "AUC": rank_classes,
    "log loss": lambda sample: sample.average(measure_losses(sample)),
    # Brier 1950, over all classes: from 0 to 2.
    "Brier score": lambda sample: sample.average(
        (sample.probabilities**2).sum(axis=1) - 2 * sample.own + 1),
    "calibration error": measure_calibration,
}
LOWER_IS_BETTER = ("log loss", "Brier score", "calibration error")


def list_scores(sample: Sample) -> dict:
    """Return the functions of `SCORES` that say something of these answers."""
    found = OF_PREDICTIONS if sample.probabilities is None else dict(SCORES)
    # Of five classes or fewer, all are among the first five.
    unasked = {"top-5 accuracy"} if sample.count <= 5 else set()
    if len(np.unique(sample.labels)) < 2:
        unasked.add("AUC")  # there is nothing to rank above
    return {name: score for name, score in found.items() if name not in unasked}


def count_confusion(table: pd.DataFrame, classes: list[str]) -> np.ndarray:
    """Return the (classes, classes) counts of a table: rows true labels, columns predictions."""
    return confusion_matrix(table.label, table.prediction, labels=classes)


def tabulate_confusion(table: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return `count_confusion` with the classes' names."""
    return pd.DataFrame(count_confusion(table, classes), pd.Index(classes, name="true"), classes)


def divide(top, bottom):
    """Return top / bottom, 0 where the bottom is 0."""
    return np.divide(top, bottom, out=np.zeros(np.shape(top), float), where=bottom > 0)


def _mean(values, chosen):
    return divide((values * chosen).sum(axis=-1), chosen.sum(axis=-1))


def format_scores(scores: pd.DataFrame) -> dict[str, str]:
    """Return each score as text: 0.914 [0.881, 0.942]."""
    return {name: f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
            for name, row in scores.iterrows()}
