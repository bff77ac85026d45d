"""Imbalance: remedies for classes of unequal size, all of them inside the training part.

What is judged is never resampled. Random sampling and SMOTE are imbalanced-learn's.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from sklearn.metrics import f1_score

from helpers.training.losses import FOCUS

NEIGHBOURS = 5  # between which SMOTE interpolates (Chawla et al. 2002)
STRENGTHS = np.linspace(0, 1.5, 7)  # candidates for logit adjustment; 1 is Menon et al.'s


@dataclass(frozen=True)
class Remedy:
    """What is done about unequal classes while a head learns.

    Everything, class weights too, is measured on the images that are learnt from.

    Args:
        name: one of `settings.REMEDIES`.
        seed: of what is drawn.
    """

    name: str = "none"
    seed: int = 0

    def resample(self, features: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return features and codes to learn from; as they are unless the remedy samples."""
        if self.name == "oversampling":
            return RandomOverSampler(random_state=self.seed).fit_resample(features, codes)
        if self.name == "undersampling":
            return RandomUnderSampler(random_state=self.seed).fit_resample(features, codes)
        return self._interpolate(features, codes) if self.name == "smote" else (features, codes)

    def _interpolate(self, features, codes):
        """Apply SMOTE; a class of few images has fewer neighbours, a single image is repeated."""
        classes, counts = np.unique(codes, return_counts=True)
        small = {code: count for code, count in zip(classes, counts, strict=True)
                 if count < counts.max()}
        for count in sorted({min(count, NEIGHBOURS + 1) for count in small.values()}):
            wanted = {code: counts.max() for code, size in small.items()
                      if min(size, NEIGHBOURS + 1) == count}
            sampler = RandomOverSampler(sampling_strategy=wanted, random_state=self.seed)
            if count > 1:
                sampler = SMOTE(sampling_strategy=wanted, random_state=self.seed,
                                k_neighbors=count - 1)
            features, codes = sampler.fit_resample(features, codes)
        return features, codes

    @property
    def class_weight(self) -> str | None:
        """What scikit-learn's classifiers take as `class_weight`."""
        return "balanced" if self.name == "class_weights" else None

    def weigh(self, numbers: np.ndarray) -> np.ndarray:
        """Return the weight of an image of each class, (classes,): as "balanced", or 1.

        Args:
            numbers: (images,) the class of each image, 0..n-1, each of which occurs.
        """
        counts = np.bincount(numbers)
        if self.class_weight is None:
            return np.ones(len(counts))
        return len(numbers) / (len(counts) * counts)

    def offset(self, numbers: np.ndarray) -> np.ndarray | float:
        """Return what the balanced softmax adds to the logits while learning, else 0."""
        if self.name != "balanced_softmax":
            return 0.0
        return np.log(np.bincount(numbers) / len(numbers))

    @property
    def focus(self) -> float:
        """Gamma of the focal loss; 0 is cross-entropy."""
        return FOCUS if self.name == "focal" else 0.0


def choose_adjustment(logits: np.ndarray, codes: np.ndarray,
                      priors: np.ndarray) -> tuple[float, np.ndarray]:
    """Choose how strongly frequent classes are held back afterwards (Menon et al. 2021).

    Args:
        logits: (images, classes) of images that the model has not learnt from.
        codes: (images,) their classes.
        priors: (classes,) shares in the training part.

    Returns:
        The strength of the best macro F1, and what it adds to the logits, (classes,).
    """
    frequencies = np.log(np.maximum(priors, 1 / len(codes) ** 2))
    scores = [f1_score(codes, (logits - strength * frequencies).argmax(axis=1), average="macro",
                       zero_division=0) for strength in STRENGTHS]
    best = float(STRENGTHS[int(np.argmax(scores))])
    return best, -best * frequencies


def describe_small_classes(rows: pd.DataFrame) -> str:
    """Say which classes are too small for SMOTE as published in some training part.

    Args:
        rows: the training images, with `label` and `fold`.
    """
    counts = pd.crosstab(rows.label, rows.fold)
    # The smallest training part lacks the fold that is judged and the one that chooses.
    folds = counts.shape[1]
    least = pd.concat([counts.drop(columns=[fold, (fold + 1) % folds]).sum(axis=1)
                       for fold in range(folds)], axis=1).min(axis=1)
    few = least[(least > 0) & (least <= NEIGHBOURS)]
    names = ", ".join(f"'{name}' ({count})" for name, count in few.items())
    return (f"too few images in a training part for {NEIGHBOURS} neighbours: {names}; SMOTE uses "
            "as many neighbours as there are, and repeats a single image") if len(few) else ""
