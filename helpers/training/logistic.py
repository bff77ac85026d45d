"""Logistic regression along a path of penalties: each solution is the start of the next.

The objective is scikit-learn's (multinomial, L2 penalty, free intercepts, standardised features).
SciPy's L-BFGS minimises it in variables that take out the correlation of the features and the
penalty: in them the curvature at equal probabilities is that of a sphere (Böhning 1992). A
network's features are so correlated that otherwise weak penalties take hundreds of iterations.
"""

import numpy as np
from scipy.optimize import minimize

TOLERANCE = 1e-5  # of the mean loss, relative, from one iteration to the next
MAX_ITERATIONS = 500
ROWS_AT_ONCE = 8192


class LogisticPath:
    """Solutions for some training images, to be asked for from strong to weak penalties.

    Args:
        features: (images, features) float32; a copy is standardised.
        codes: (images,) class codes 0..n-1, each of which occurs.
        image_weights: (images,) weight of each image in the loss.
        start: `weights` and `biases` of a solution for other images, to begin from.
    """

    def __init__(self, features: np.ndarray, codes: np.ndarray, image_weights: np.ndarray,
                 start: tuple[np.ndarray, np.ndarray] | None = None):
        self.codes, self.image_weights = codes, image_weights.astype(np.float32)
        self.mean = features.mean(axis=0, dtype=np.float64)
        deviation = features.std(axis=0, dtype=np.float64)
        self.deviation = np.where(deviation > 1e-12, deviation, 1)  # of a constant feature
        self.features = features - self.mean.astype(np.float32)
        self.features /= self.deviation.astype(np.float32)
        gram = sum((block * weights[:, None]).T @ block for block, weights, _ in self._blocks())
        curvature, self.directions = np.linalg.eigh(gram.astype(np.float64))
        count = codes.max() + 1
        self.curvature = np.maximum(curvature, 0) / count
        self.directions = self.directions.astype(np.float32)
        weights, biases = start or (np.zeros((features.shape[1], count)), np.zeros(count))
        self.solution = weights * self.deviation[:, None], biases + self.mean @ weights

    def fit(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the solution for a C, as (features, classes) weights and (classes,) biases.

        Both are for features as they are, not standardised.
        """
        count = len(self.solution[1])
        # Of two classes scikit-learn penalises the one difference, as if C were twice this.
        strength = strength / 2 if count == 2 else strength
        total = float(self.image_weights.sum())
        scale = 1 / np.sqrt(np.append(self.curvature + 1 / strength, total / count))[:, None]

        def unfold(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            scaled = point.reshape(-1, count) * scale
            return self.directions @ scaled[:-1].astype(np.float32), scaled[-1]

        def measure(point: np.ndarray) -> tuple[float, np.ndarray]:
            weights, biases = unfold(point)
            loss, slope, bias_slope = self._measure(weights, biases)
            loss += float((weights.astype(np.float64) ** 2).sum()) / (2 * strength)
            slope = self.directions.T @ (slope + weights / np.float32(strength))
            return loss / total, (np.vstack([slope, bias_slope]) * scale).ravel() / total

        weights, biases = self.solution
        rotated = np.vstack([self.directions.T @ weights, biases]) / scale
        found = minimize(measure, rotated.ravel(), jac=True, method="L-BFGS-B", options={
            "ftol": TOLERANCE, "gtol": 0, "maxiter": MAX_ITERATIONS})
        self.solution = unfold(found.x)
        weights = self.solution[0] / self.deviation[:, None]
        return weights, self.solution[1] - self.mean @ weights

    def _measure(self, weights: np.ndarray, biases: np.ndarray):
        """Return the summed loss, and its slope by weights and by biases."""
        loss, slope, bias_slope = 0.0, np.zeros_like(weights), np.zeros(len(biases))
        for block, image_weights, codes in self._blocks():
            logits = block @ weights + biases.astype(np.float32)
            logits -= logits.max(axis=1, keepdims=True)
            rows = np.arange(len(codes))
            own = logits[rows, codes]
            odds = np.exp(logits, out=logits)
            sums = odds.sum(axis=1)
            loss += float((image_weights * (np.log(sums) - own)).sum(dtype=np.float64))
            odds /= sums[:, None]
            odds[rows, codes] -= 1
            odds *= image_weights[:, None]
            slope += block.T @ odds
            bias_slope += odds.sum(axis=0, dtype=np.float64)
        return loss, slope, bias_slope

    def _blocks(self):
        for start in range(0, len(self.features), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            yield self.features[part], self.image_weights[part], self.codes[part]
