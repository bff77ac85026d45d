"""Linear heads: a weight for each feature and class, saved as plain arrays."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import RidgeClassifier

from helpers.training.estimators import EstimatorHead
from helpers.training.imbalance import Remedy
from helpers.training.penalty_path import PenaltyPath
from helpers.training.selection import NEVER, Head, multiply, pack_linear, widen_margins

STRENGTHS = 1e-5, 1e-4, 1e-3, 1e-2  # candidates for C of the support vector machine


class MarginHead(EstimatorHead):
    """A classifier whose decision is linear in the features, whatever prepares them."""

    margins = True

    def decide(self, model: ClassifierMixin, features: np.ndarray) -> np.ndarray:
        """Return the decision values, (rows, classes)."""
        return widen_margins(model.decision_function(features))

    def learn(self, settings: dict, inputs: np.ndarray, codes: np.ndarray) -> dict:
        """Return preparation and decision as one linear function of the features."""
        pipeline = self.fit_pipeline(settings, inputs, codes)
        width = inputs.shape[1]
        points = pipeline[:-1].transform(np.vstack([np.zeros((1, width)), np.eye(width)]))
        biases, *weights = self.decide(pipeline[-1], points)
        return pack_linear(np.array(weights) - biases, biases, pipeline.classes_, self.count)

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """Return the decision values, (rows, classes)."""
        return multiply(inputs, self.arrays)


class RidgeHead(MarginHead):
    """Ridge regression on the classes as -1 and 1."""

    settings: ClassVar[dict] = {"alpha": [1e4, 1e3, 1e2, 1e1, 1.0, 0.1]}

    def create(self, codes: np.ndarray, **settings) -> RidgeClassifier:
        """Make a ridge classifier."""
        return RidgeClassifier(**settings, class_weight=self.remedy.class_weight)


class ClassMeans(ClassifierMixin, BaseEstimator):
    """The mean of each class; the decision is half the squared distance, less what all share."""

    def fit(self, features: np.ndarray, codes: np.ndarray) -> "ClassMeans":
        """Measure the means."""
        self.classes_ = np.unique(codes)
        self.means_ = np.stack([features[codes == code].mean(axis=0) for code in self.classes_])
        return self

    def decision_function(self, features: np.ndarray) -> np.ndarray:
        """Return the decision values, (rows, classes)."""
        return features @ self.means_.T - (self.means_**2).sum(axis=1) / 2


class ClassMeanHead(MarginHead):
    """The nearest class mean; class weights mean nothing to it."""

    def create(self, codes: np.ndarray) -> ClassMeans:
        """Make means."""
        return ClassMeans()


class LogisticHead(Head):
    """Logistic regression; candidates are the values of `c_grid`, the strongest penalty first."""

    ordered = True
    hinge = False

    def try_candidates(self, inputs: np.ndarray, codes: np.ndarray,
                       judged: np.ndarray) -> Iterator[tuple[dict, np.ndarray]]:
        """Yield each C and its logits of `judged`."""
        path, classes = self._start_path(inputs, codes)
        self._solutions = {}
        for strength in sorted(self.c_grid):
            arrays = pack_linear(*path.fit(strength), classes, self.count)
            self._solutions[strength] = arrays
            yield {"C": strength}, multiply(judged, arrays)

    def learn(self, settings: dict, inputs: np.ndarray, codes: np.ndarray) -> dict:
        """Return the weights and biases for one C, found from those of its trial."""
        path, classes = self._start_path(inputs, codes, self._solutions[settings["C"]])
        self._solutions.clear()
        return pack_linear(*path.fit(settings["C"]), classes, self.count)

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """Return the logits, (rows, classes)."""
        return multiply(inputs, self.arrays)

    def _start_path(self, inputs, codes, arrays=None) -> tuple[PenaltyPath, np.ndarray]:
        """Return a path over the classes that are there, and these classes."""
        classes, numbers = np.unique(codes, return_inverse=True)
        start = arrays and (arrays["weights"][:, classes], np.where(
            arrays["biases"] == NEVER, 0, arrays["biases"])[classes])
        remedy = self.remedy
        return PenaltyPath(inputs, numbers, remedy.weigh(numbers)[numbers],
                           remedy.offset(numbers), remedy.focus, self.hinge, start), classes


class SvmHead(LogisticHead):
    """Linear support vector machine, each class against the rest, with penalties of its own."""

    hinge = margins = True

    def __init__(self, count: int = 0, remedy: Remedy | None = None, c_grid: Sequence[float] = (),
                 arrays: dict[str, np.ndarray] | None = None):
        super().__init__(count, remedy, STRENGTHS, arrays)
