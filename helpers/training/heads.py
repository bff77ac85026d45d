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

        Args:
            inputs: (images, features) float32.
            codes: (images,) class codes.
            inner: (images,) bool, the rows that candidates are judged on, by macro F1.
        """
        weights = {code: self.class_weights[code] for code in np.unique(codes)}
        regression = LogisticRegression(class_weight=weights, max_iter=MAX_ITERATIONS)
        search = GridSearchCV(
            make_pipeline(StandardScaler(), regression), {"logisticregression__C": self.c_grid},
            scoring=make_scorer(f1_score, average="macro", zero_division=0),
            cv=PredefinedSplit(np.where(inner, 0, -1)))
        # A thread a candidate, one core each: sharing a core's small products costs more.
        jobs = min(os.cpu_count() or 1, len(self.c_grid))
        with joblib.parallel_config("threading", n_jobs=jobs), threadpool_limits(1):
            search.fit(inputs, codes)
        best = search.best_params_["logisticregression__C"]
        self.choices = pd.DataFrame({
            "C": self.c_grid, "macro F1": search.cv_results_["mean_test_score"],
            "chosen": [c == best for c in self.c_grid]})
        self.arrays = self._fold_scaler(search.best_estimator_)
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return probabilities, (images, classes) float32."""
        logits = np.asarray(inputs, np.float64) @ self.arrays["weights"].astype(np.float64)
        return softmax(logits + self.arrays["biases"], axis=1).astype(np.float32)

    def _fold_scaler(self, model) -> dict[str, np.ndarray]:
        """Return (features, classes) weights and (classes,) biases for raw features.

        A class that the training part lacked, because its groups lie in one fold, is never
        answered.
        """
        scaler, regression = model[0], model[-1]
        coefficients, intercept = regression.coef_, regression.intercept_
        if len(coefficients) == 1:  # two classes share one row: its logit against zero
            coefficients = np.vstack([np.zeros_like(coefficients), coefficients])
            intercept = np.array([0.0, intercept[0]])
        weights = np.zeros((coefficients.shape[1], len(self.class_weights)))
        biases = np.full(len(self.class_weights), NEVER)
        weights[:, regression.classes_] = (coefficients / scaler.scale_).T
        biases[regression.classes_] = intercept - scaler.mean_ @ weights[:, regression.classes_]
        return {"weights": weights.astype(np.float32), "biases": biases.astype(np.float32)}


HEADS = {"logistic": LogisticHead}
