"""Penalty path: linear models from strong to weak penalties, each the start of the next.

The objectives are scikit-learn's (L2 penalty, standardised features): multinomial logistic
regression, with a choice of loss, and the squared hinge of the linear support vector machine.
SciPy's L-BFGS minimises them in the features' principal directions, each scaled so that the
curvature is about that of a sphere (for the softmax at equal probabilities, Böhning 1992). A
network's features are so correlated that otherwise weak penalties take hundreds of iterations.
"""

import numpy as np
from scipy.optimize import minimize

FEW = 1_000  # images, up to which exactness costs nothing
TOLERANCES = 1e-10, 1e-5  # of few and many images: relative change of the mean loss at the end
MAX_ITERATIONS = 500
ROWS_AT_ONCE = 8192


class PenaltyPath:
    """Solutions for some training images, to be asked for from strong to weak penalties.

    Args:
        features: (images, features) float32; a copy is standardised.
        codes: (images,) class codes 0..n-1, each of which occurs.
        image_weights: (images,) weight of each image in the loss.
        offsets: (classes,) added to the logits while learning: the balanced softmax (Ren et al.
            2020) when they are the logarithms of the classes' shares.
        focus: the focal loss's gamma (Lin et al. 2017): how much less images count that are
            answered well; 0 is cross-entropy.
        hinge: squared hinge in place of the softmax, each class against the rest; as in liblinear
            a weight counts for an image's own class, and biases are penalised.
        start: `weights` and `biases` of a solution for other images, to begin from.
    """

    def __init__(self, features: np.ndarray, codes: np.ndarray, image_weights: np.ndarray,
                 offsets: np.ndarray | float = 0.0, focus: float = 0.0, hinge: bool = False,
                 start: tuple[np.ndarray, np.ndarray] | None = None):
        # Of few images sums in float64 cost nothing, and end alike on every processor.
        self.kind = np.float64 if len(codes) <= FEW else np.float32
        self.codes, self.image_weights = codes, image_weights.astype(self.kind)
        self.count, self.focus, self.hinge = codes.max() + 1, focus, hinge
        self.offsets = np.broadcast_to(self.kind(offsets), self.count)
        self.mean = features.mean(axis=0, dtype=np.float64)
        squares = sum(((features[part] - self.mean) ** 2).sum(axis=0) for part in self._blocks())
        deviation = np.sqrt(squares / len(codes))
        self.deviation = np.where(deviation > 1e-12, deviation, 1)  # of a constant feature
        standard = features - self.mean.astype(self.kind)
        standard /= self.deviation.astype(self.kind)
        squares, self.directions = self._find_directions(standard)
        self.curvature = squares / (1 if hinge else self.count)
        self.features = standard @ self.directions
        weights, biases = start or (np.zeros((features.shape[1], self.count)),
                                    np.zeros(self.count))
        self.solution = np.vstack([self.directions.T @ (weights * self.deviation[:, None]),
                                   biases + self.mean @ weights])

    def _find_directions(self, standard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sum of squares along each principal direction, and these as columns.

        With fewer images than features there are at most as many as images: an L2 penalty leaves
        no weight outside the space that the images span.
        """
        if len(standard) < standard.shape[1]:
            weighted = standard * np.sqrt(self.image_weights)[:, None]
            _, lengths, directions = np.linalg.svd(weighted, full_matrices=False)
            kept = lengths > 1e-6 * lengths[0]  # repeated images span no more
            return lengths[kept].astype(np.float64) ** 2, directions[kept].T
        gram = sum((standard[part] * self.image_weights[part, None]).T @ standard[part]
                   for part in self._blocks())
        squares, directions = np.linalg.eigh(gram.astype(np.float64))
        return np.maximum(squares, 0), directions.astype(self.kind)

    def fit(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the solution for a C, as (features, classes) weights and (classes,) biases.

        Both are for features as they are, not standardised.
        """
        # Of two classes scikit-learn penalises the one difference, as if C were twice this.
        strength = strength / 2 if self.count == 2 and not self.hinge else strength
        total = float(self.image_weights.sum())
        scale = 1 / np.sqrt(np.append(self.curvature + 1 / strength, total / self.count))[:, None]

        def measure(point: np.ndarray) -> tuple[float, np.ndarray]:
            solution = point.reshape(-1, self.count) * scale
            loss, slope = self._measure(solution)
            penalised = solution[: None if self.hinge else -1]
            loss += float((penalised**2).sum()) / (2 * strength)
            slope[: len(penalised)] += penalised / strength
            return loss / total, (slope * scale).ravel() / total

        tolerance = TOLERANCES[len(self.codes) > FEW]
        found = minimize(measure, (self.solution / scale).ravel(), jac=True, method="L-BFGS-B",
                         options={"ftol": tolerance, "gtol": 0, "maxiter": MAX_ITERATIONS})
        self.solution = found.x.reshape(-1, self.count) * scale
        weights = self.directions @ self.solution[:-1] / self.deviation[:, None]
        return weights, self.solution[-1] - self.mean @ weights

    def _measure(self, solution: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the summed loss, and its slope by the weights and, in the last row, biases."""
        loss, slope = 0.0, np.zeros_like(solution)
        weights, biases = solution[:-1].astype(self.kind), solution[-1] + self.offsets
        for part in self._blocks():
            block, codes, worth = self.features[part], self.codes[part], self.image_weights[part]
            logits = block @ weights + biases.astype(self.kind)
            measure = self._measure_hinge if self.hinge else self._measure_softmax
            losses, odds = measure(logits, codes, worth)
            loss += float(losses.sum(dtype=np.float64))
            slope[:-1] += block.T @ odds
            slope[-1] += odds.sum(axis=0, dtype=np.float64)
        return loss, slope

    def _measure_softmax(self, logits, codes, worth) -> tuple[np.ndarray, np.ndarray]:
        """Return the images' losses, and their slope by the logits, which are overwritten."""
        logits -= logits.max(axis=1, keepdims=True)
        rows = np.arange(len(codes))
        own = logits[rows, codes]
        odds = np.exp(logits, out=logits)
        sums = odds.sum(axis=1)
        losses = np.log(sums) - own
        odds /= sums[:, None]
        odds[rows, codes] -= 1
        if self.focus:
            missed = np.maximum(1 - np.exp(-losses), self.kind(1e-7))
            steeper = self.focus * (1 - missed) * losses / missed
            odds *= (worth * missed**self.focus * (1 + steeper))[:, None]
            return worth * missed**self.focus * losses, odds
        odds *= worth[:, None]
        return worth * losses, odds

    @staticmethod
    def _measure_hinge(logits, codes, worth) -> tuple[np.ndarray, np.ndarray]:
        """As `_measure_softmax`, for the squared hinge."""
        own = np.arange(len(codes)), codes
        signs, worths = np.full_like(logits, -1), np.ones_like(logits)
        signs[own], worths[own] = 1, worth
        if logits.shape[1] == 2:  # one problem, in which both classes' weights count
            worths[:] = worth[:, None]
        slack = np.maximum(1 - signs * logits, 0)
        return worths * slack**2, -2 * signs * worths * slack

    def _blocks(self):
        for start in range(0, len(self.codes), ROWS_AT_ONCE):
            yield slice(start, start + ROWS_AT_ONCE)
