"""Logistic regression along a path of penalties: each solution is the start of the next.

The objective is scikit-learn's (multinomial, L2 penalty, free intercepts, standardised
features), with a choice of loss. SciPy's L-BFGS minimises it in the features' principal
directions, each scaled so that the curvature at equal probabilities is that of a sphere (Böhning
1992). A network's features are so correlated that otherwise weak penalties take hundreds of
iterations.
"""

from collections.abc import Iterator

import numpy as np
from scipy.optimize import minimize

from helpers.training.selection import LARGE, NEVER, Head, multiply, pack_linear

TOLERANCES = 1e-9, 1e-5  # of few and many images: relative change of the mean loss at the end
MAX_ITERATIONS = 500
ROWS_AT_ONCE = 8192


class LogisticPath:
    """Solutions for some training images, to be asked for from strong to weak penalties.

    Args:
        features: (images, features) float32; a copy is standardised.
        codes: (images,) class codes 0..n-1, each of which occurs.
        image_weights: (images,) weight of each image in the loss.
        offsets: (classes,) added to the logits while learning: the balanced softmax (Ren et al.
            2020) when they are the logarithms of the classes' shares.
        focus: the focal loss's gamma (Lin et al. 2017): how much less images count that are
            answered well; 0 is cross-entropy.
        start: `weights` and `biases` of a solution for other images, to begin from.
    """

    def __init__(self, features: np.ndarray, codes: np.ndarray, image_weights: np.ndarray,
                 offsets: np.ndarray | float = 0.0, focus: float = 0.0,
                 start: tuple[np.ndarray, np.ndarray] | None = None):
        self.codes, self.image_weights = codes, image_weights.astype(np.float32)
        self.count, self.focus = codes.max() + 1, focus
        self.offsets = np.broadcast_to(np.float32(offsets), self.count)
        self.mean = features.mean(axis=0, dtype=np.float64)
        deviation = features.std(axis=0, dtype=np.float64)
        self.deviation = np.where(deviation > 1e-12, deviation, 1)  # of a constant feature
        standard = features - self.mean.astype(np.float32)
        standard /= self.deviation.astype(np.float32)
        self.curvature, self.directions = self._find_directions(standard)
        self.features = standard @ self.directions
        weights, biases = start or (np.zeros((features.shape[1], self.count)),
                                    np.zeros(self.count))
        self.solution = np.vstack([self.directions.T @ (weights * self.deviation[:, None]),
                                   biases + self.mean @ weights])

    def _find_directions(self, standard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the curvature along each principal direction, and the directions as columns.

        With fewer images than features there are at most as many as images: an L2 penalty leaves
        no weight outside the space that the images span.
        """
        if len(standard) < standard.shape[1]:
            weighted = standard * np.sqrt(self.image_weights)[:, None]
            _, lengths, directions = np.linalg.svd(weighted, full_matrices=False)
            kept = lengths > 1e-6 * lengths[0]  # repeated images span no more
            return lengths[kept].astype(np.float64) ** 2 / self.count, directions[kept].T
        gram = sum((standard[part] * self.image_weights[part, None]).T @ standard[part]
                   for part in self._blocks())
        curvature, directions = np.linalg.eigh(gram.astype(np.float64))
        return np.maximum(curvature, 0) / self.count, directions.astype(np.float32)

    def fit(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the solution for a C, as (features, classes) weights and (classes,) biases.

        Both are for features as they are, not standardised.
        """
        # Of two classes scikit-learn penalises the one difference, as if C were twice this.
        strength = strength / 2 if self.count == 2 else strength
        total = float(self.image_weights.sum())
        scale = 1 / np.sqrt(np.append(self.curvature + 1 / strength, total / self.count))[:, None]

        def measure(point: np.ndarray) -> tuple[float, np.ndarray]:
            solution = point.reshape(-1, self.count) * scale
            loss, slope = self._measure(solution)
            loss += float((solution[:-1] ** 2).sum()) / (2 * strength)
            slope[:-1] += solution[:-1] / strength
            return loss / total, (slope * scale).ravel() / total

        tolerance = TOLERANCES[len(self.codes) >= LARGE]
        found = minimize(measure, (self.solution / scale).ravel(), jac=True, method="L-BFGS-B",
                         options={"ftol": tolerance, "gtol": 0, "maxiter": MAX_ITERATIONS})
        self.solution = found.x.reshape(-1, self.count) * scale
        weights = self.directions @ self.solution[:-1] / self.deviation[:, None]
        return weights, self.solution[-1] - self.mean @ weights

    def _measure(self, solution: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the summed loss, and its slope by the weights and, in the last row, biases."""
        loss, slope = 0.0, np.zeros_like(solution)
        weights, biases = solution[:-1].astype(np.float32), solution[-1] + self.offsets
        for part in self._blocks():
            block, codes, worth = self.features[part], self.codes[part], self.image_weights[part]
            logits = block @ weights + biases.astype(np.float32)
            logits -= logits.max(axis=1, keepdims=True)
            rows = np.arange(len(codes))
            own = logits[rows, codes]
            odds = np.exp(logits, out=logits)
            sums = odds.sum(axis=1)
            losses = np.log(sums) - own
            odds /= sums[:, None]
            odds[rows, codes] -= 1
            if self.focus:
                missed = np.maximum(1 - np.exp(-losses), np.float32(1e-7))
                steeper = self.focus * (1 - missed) * losses / missed
                odds *= (worth * missed**self.focus * (1 + steeper))[:, None]
                losses *= missed**self.focus
            else:
                odds *= worth[:, None]
            loss += float((worth * losses).sum(dtype=np.float64))
            slope[:-1] += block.T @ odds
            slope[-1] += odds.sum(axis=0, dtype=np.float64)
        return loss, slope

    def _blocks(self):
        for start in range(0, len(self.codes), ROWS_AT_ONCE):
            yield slice(start, start + ROWS_AT_ONCE)


class LogisticHead(Head):
    """Logistic regression; candidates are the values of `c_grid`, the strongest penalty first."""

    ordered = True

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
        path, classes = self._start_path(inputs, codes, self._solutions.pop(settings["C"]))
        return pack_linear(*path.fit(settings["C"]), classes, self.count)

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """Return the logits, (rows, classes)."""
        return multiply(inputs, self.arrays)

    def _start_path(self, inputs, codes, arrays=None) -> tuple[LogisticPath, np.ndarray]:
        """Return a path over the classes that are there, and these classes."""
        classes, numbers = np.unique(codes, return_inverse=True)
        start = arrays and (arrays["weights"][:, classes], np.where(
            arrays["biases"] == NEVER, 0, arrays["biases"])[classes])
        remedy = self.remedy
        return LogisticPath(inputs, numbers, remedy.weigh(classes)[numbers],
                            remedy.offset(numbers), remedy.focus, start), classes
