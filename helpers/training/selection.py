"""Model selection: a head's settings are tried without the inner fold, and judged on it."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import f1_score
from threadpoolctl import threadpool_limits

from helpers.files import SuiteError
from helpers.training.imbalance import Remedy, choose_adjustment

LARGE = 20_000  # images times classes, from which a fit takes its time
FALLEN = 0.9  # of the best score: below it twice in a row, ordered candidates are left
NEVER = -1e9  # a logit whose probability is 0
UNTHINKABLE = -16.0  # the logarithm of about float32's smallest step from 1


class Head:
    """A classifier on features. A kind of head says what it tries, learns and answers.

    Args:
        count: how many classes there are; in a training part some may be missing.
        remedy: what is done about unequal classes.
        c_grid: candidates for C, the inverse strength of the penalty, where a head has one.
        arrays: of a fitted head, which is to predict alone.
    """

    ordered = False  # candidates go from strong to weak penalties; of many images, left early
    margins = False  # logits have no scale of their own: a temperature is fitted

    def __init__(self, count: int = 0, remedy: Remedy | None = None,
                 c_grid: Sequence[float] = (), arrays: dict[str, np.ndarray] | None = None):
        self.count, self.remedy, self.c_grid = count, remedy or Remedy(), c_grid
        self.arrays = arrays or {}
        self.choices, self.judged = pd.DataFrame(), np.empty((0, count), np.float32)

    def try_candidates(self, inputs: np.ndarray, codes: np.ndarray,
                       judged: np.ndarray) -> Iterator[tuple[dict, np.ndarray]]:
        """Yield each candidate's settings and its logits of `judged`, (rows, classes)."""
        raise NotImplementedError

    def learn(self, settings: dict, inputs: np.ndarray, codes: np.ndarray) -> dict:
        """Return the arrays of the chosen candidate, fitted on all that may be learnt from."""
        raise NotImplementedError

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """Return the fitted head's logits, (rows, classes)."""
        raise NotImplementedError

    def fit(self, inputs: np.ndarray, codes: np.ndarray, inner: np.ndarray) -> "Head":
        """Try every candidate without the `inner` rows, then learn the best one on all rows.

        Resampling touches only what is learnt from; `inner` rows are judged as they are.

        Args:
            inputs: (images, features) float32.
            codes: (images,) class codes.
            inner: (images,) bool, the rows that candidates are judged on, by macro F1, and by
                log loss where that is the same.
        """
        # On small data threads mostly wait for each other, for minutes if the machine is busy.
        with threadpool_limits(None if len(codes) * self.count >= LARGE else 1):
            return self._fit(inputs, codes, inner)

    def _fit(self, inputs, codes, inner) -> "Head":
        tried, scores, best, least = [], [], np.empty(0), np.inf
        hurried = self.ordered and len(codes) * self.count >= LARGE
        if len(np.unique(codes[~inner])) < 2:
            raise SuiteError("a training part holds images of one class only: there is nothing "
                             "to tell apart. Lower `folds`, or add images of other classes.")
        learnt = self.remedy.resample(inputs[~inner], codes[~inner])
        for settings, logits in self.try_candidates(*learnt, inputs[inner]):
            score = f1_score(codes[inner], logits.argmax(axis=1), average="macro",
                             zero_division=0)
            loss = self._measure_loss(logits, codes[inner])
            if not scores or (score, -loss) > (max(scores), -least):
                chosen, best, least = len(scores), logits, loss
            tried.append(settings)
            scores.append(score)
            if hurried and max(scores[-2:]) < FALLEN * max(scores):
                break
        del learnt
        self.choices = pd.DataFrame(tried).assign(**{"macro F1": scores, "chosen": False})
        self.choices.loc[chosen, "chosen"] = True
        self.arrays = self.learn(tried[chosen], *self.remedy.resample(inputs, codes))
        self._finish(best, codes, inner)
        return self

    def _measure_loss(self, logits: np.ndarray, codes: np.ndarray) -> float:
        scale = fit_temperature(logits, codes) if self.margins else 1.0
        own = log_softmax(scale * logits, axis=1)[np.arange(len(codes)), codes]
        return -float(np.maximum(own, UNTHINKABLE).mean())

    def _finish(self, logits: np.ndarray, codes: np.ndarray, inner: np.ndarray) -> None:
        """Fit what needs answers for images that were not learnt from: scale and adjustment."""
        scale = fit_temperature(logits, codes[inner]) if self.margins else 1.0
        logits, shift = scale * logits, np.zeros(self.count)
        if self.remedy.name == "logit_adjustment":
            priors = np.bincount(codes, minlength=self.count) / len(codes)
            strength, shift = choose_adjustment(logits, codes[inner], priors)
            self.choices["adjustment"] = np.where(self.choices.chosen, strength, np.nan)
        self.judged = softmax(logits + shift, axis=1).astype(np.float32)
        self.arrays |= {"scale": np.array(scale), "shift": shift}

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return probabilities, (rows, classes) float32."""
        logits = self.arrays["scale"] * self.answer(inputs) + self.arrays["shift"]
        return softmax(logits, axis=1).astype(np.float32)


def spread(logits: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Give the classes that a model has not met a logit of `NEVER`: (rows, count).

    A training part lacks a class whose groups all lie in one fold.
    """
    every = np.full((len(logits), count), NEVER)
    every[:, classes] = logits
    return every


def widen_margins(values: np.ndarray) -> np.ndarray:
    """Return decision values with a column a class, where two classes share one: (rows, classes).

    The softmax of what comes out is the sigmoid of what went in.
    """
    return np.column_stack([-values, values]) / 2 if values.ndim == 1 else values


def multiply(inputs: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return the logits of linear `weights` and `biases`, (rows, classes) float64."""
    return inputs.astype(np.float64) @ arrays["weights"].astype(np.float64) + arrays["biases"]


def pack_linear(weights: np.ndarray, biases: np.ndarray, classes: np.ndarray,
                count: int) -> dict[str, np.ndarray]:
    """Return `weights` (features, count) and `biases` (count,) of classes that were met.

    Those that were not are never answered.
    """
    arrays = {"weights": np.zeros((len(weights), count), np.float32),
              "biases": np.full(count, NEVER, np.float32)}
    arrays["weights"][:, classes], arrays["biases"][classes] = weights, biases
    return arrays


def fit_temperature(logits: np.ndarray, codes: np.ndarray) -> float:
    """Return the factor that makes logits the best probabilities (Guo et al. 2017).

    Of n images without a mistake nobody can tell that mistakes are rarer than 1 in n + 2
    (Laplace's rule of succession), so the log loss is never brought below that.

    Args:
        logits: (images, classes) of images that were not learnt from.
        codes: (images,) their classes.
    """
    known = logits[np.arange(len(codes)), codes] > NEVER / 2
    logits, rows, codes = logits[known], np.arange(known.sum()), codes[known]
    if not len(codes):
        return 1.0

    def measure(power: float) -> float:
        return -log_softmax(np.exp(power) * logits, axis=1)[rows, codes].mean()

    # Where logits differ by about 1.
    middle = -np.log(max(float(np.std(logits[logits > NEVER / 2])), 1e-12))
    best = minimize_scalar(measure, bounds=(middle - 8, middle + 8), method="bounded").x
    floor = 1 / (len(codes) + 2)
    if measure(best) < floor < measure(middle - 8):
        best = brentq(lambda power: measure(power) - floor, middle - 8, best)
    return float(np.exp(best))
