"""Heads: classifiers on frozen features.

A new head is a class with the methods of `crossvalidation.Model`, and its name in `HEADS`.
"""

import os
from collections.abc import Sequence

import joblib
import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from helpers.training.logistic import LogisticPath

LARGE = 2_000  # images, from which a warm-started path is faster
FALLEN = 0.9  # of the best score: below it twice in a row, the path is left
MAX_ITERATIONS = 1000
NEVER = -1e9  # a logit whose probability is 0


class LogisticHead:
    """Logistic regression on standardised features, its penalty chosen while it is fitted.

    Args:
        class_weights: weight of each class's images in the loss.
        c_grid: candidates for C, the inverse strength of the L2 penalty.
        arrays: of a fitted head, which is to predict alone.
    """

    def __init__(self, class_weights: Sequence[float] = (), c_grid: Sequence[float] = (),
                 arrays: dict[str, np.ndarray] | None = None):
        self.class_weights, self.c_grid, self.arrays = class_weights, c_grid, arrays or {}
        self.choices = pd.DataFrame()

    def fit(self, inputs: np.ndarray, codes: np.ndarray, inner: np.ndarray) -> "LogisticHead":
        """Train every candidate for C without the `inner` rows, then the best on all rows.

        Small data goes through scikit-learn itself; large data along a warm-started path, from
        the strongest penalty on, which is left when the score has clearly fallen.

        Args:
            inputs: (images, features) float32.
            codes: (images,) class codes.
            inner: (images,) bool, the rows that candidates are judged on, by macro F1.
        """
        classes, numbers = np.unique(codes, return_inverse=True)
        search = self._search if len(inputs) < LARGE else self._follow_path
        scores, best, weights, biases = search(inputs, numbers, classes, inner)
        self.choices = pd.DataFrame({"C": self.c_grid, "macro F1": scores,
                                     "chosen": [best == C for C in self.c_grid]})
        # A class that the training part lacks, because its groups lie in one fold, is never
        # answered.
        count = len(self.class_weights)
        self.arrays = {"weights": np.zeros((inputs.shape[1], count), np.float32),
                       "biases": np.full(count, NEVER, np.float32)}
        self.arrays["weights"][:, classes], self.arrays["biases"][classes] = weights, biases
        return self

    def _search(self, inputs, codes, classes, inner):
        """Return the candidates' scores, the best C, and its weights and biases, as fitted."""
        weights = {code: self.class_weights[name] for code, name in enumerate(classes)}
        regression = LogisticRegression(class_weight=weights, max_iter=MAX_ITERATIONS)
        search = GridSearchCV(
            make_pipeline(StandardScaler(), regression), {"logisticregression__C": self.c_grid},
            scoring=make_scorer(f1_score, average="macro", zero_division=0),
            cv=PredefinedSplit(np.where(inner, 0, -1)))
        # A thread a candidate, one core each: sharing a core's small products costs more.
        jobs = min(os.cpu_count() or 1, len(self.c_grid))
        with joblib.parallel_config("threading", n_jobs=jobs), threadpool_limits(1):
            search.fit(inputs, codes)
        scaler, regression = search.best_estimator_[0], search.best_estimator_[-1]
        coefficients, intercept = regression.coef_, regression.intercept_
        if len(coefficients) == 1:  # two classes share one row: its logit against zero
            coefficients = np.vstack([np.zeros_like(coefficients), coefficients])
            intercept = np.array([0.0, intercept[0]])
        weights = (coefficients / scaler.scale_).T
        return (search.cv_results_["mean_test_score"],
                search.best_params_["logisticregression__C"], weights,
                intercept - scaler.mean_ @ weights)

    def _follow_path(self, inputs, codes, classes, inner):
        """As `_search`, each candidate from the solution of the one before."""
        image_weights = np.asarray(self.class_weights, float)[classes][codes]
        known, numbers = np.unique(codes[~inner], return_inverse=True)
        path = LogisticPath(inputs[~inner], numbers, image_weights[~inner])
        scores, solutions = {}, {}
        for strength in sorted(self.c_grid):
            weights, biases = solutions[strength] = path.fit(strength)
            answers = known[(inputs[inner] @ weights.astype(np.float32) + biases).argmax(axis=1)]
            scores[strength] = f1_score(codes[inner], answers, average="macro", zero_division=0)
            if max([*scores.values()][-2:]) < FALLEN * max(scores.values()):
                break
        best, start = max(scores, key=scores.get), (np.zeros((inputs.shape[1], len(classes))),
                                                    np.zeros(len(classes)))
        start[0][:, known], start[1][known] = solutions[best]
        del path  # its copy of the features
        final = LogisticPath(inputs, codes, image_weights, start).fit(best)
        return [scores.get(strength, np.nan) for strength in self.c_grid], best, *final

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return probabilities, (images, classes) float32."""
        logits = np.asarray(inputs, np.float64) @ self.arrays["weights"].astype(np.float64)
        return softmax(logits + self.arrays["biases"], axis=1).astype(np.float32)


HEADS = {"logistic": LogisticHead}
