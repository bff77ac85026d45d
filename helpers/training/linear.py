"""Linear heads: a weight for each feature and class, saved as plain arrays."""

from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import RidgeClassifier
from sklearn.svm import LinearSVC

from helpers.training.estimators import EstimatorHead
from helpers.training.selection import multiply, pack_linear


class LinearHead(EstimatorHead):
    """A classifier whose decision is linear in the features, whatever prepares them."""

    margins = True

    def decide(self, model: ClassifierMixin, features: np.ndarray) -> np.ndarray:
        """Return the decision values, with a column a class for two classes too."""
        values = model.decision_function(features)
        return np.column_stack([-values, values]) / 2 if values.ndim == 1 else values

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


class RidgeHead(LinearHead):
    """Ridge regression on the classes as -1 and 1."""

    settings: ClassVar[dict] = {"alpha": [1e4, 1e3, 1e2, 1e1, 1.0, 0.1]}

    def create(self, codes: np.ndarray, **settings) -> RidgeClassifier:
        """Make a ridge classifier."""
        return RidgeClassifier(**settings, class_weight=self.weigh_classes(codes))


class SvmHead(LinearHead):
    """Linear support vector machine, one class against the rest; slow from 10,000 images on."""

    ordered = True
    preparation: ClassVar[dict] = {"standardised": [True], "components": [0]}
    settings: ClassVar[dict] = {"C": [1e-5, 1e-4, 1e-3, 1e-2]}

    def create(self, codes: np.ndarray, **settings) -> LinearSVC:
        """Make a support vector machine; for strong penalties the dual problem is faster."""
        return LinearSVC(**settings, dual=True, class_weight=self.weigh_classes(codes),
                         random_state=self.remedy.seed)


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


class ClassMeanHead(LinearHead):
    """The nearest class mean; class weights mean nothing to it."""

    def create(self, codes: np.ndarray) -> ClassMeans:
        """Make means."""
        return ClassMeans()
