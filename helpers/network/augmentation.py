"""Augmentation: random changes of training images, in groups and levels (albumentations).

For training alone, never for validation, test or extraction. albumentations 2.0.8 is the last
release under the MIT licence, so it stays behind this one module.
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or importing it asks the network

import albumentations as A  # noqa: N812 - after the line above; the library's own name
import numpy as np
import pandas as pd

LEVELS = ("LIGHT", "MEDIUM", "HEAVY")


def create_group(name: str) -> A.Compose:
    """Return one group of changes: `geometric`, `colour`, `quality` or `advanced`."""
    groups = {
        "geometric": [A.HorizontalFlip(p=0.5), _move(shift=0.1, scale=0.1, rotate=15, p=0.5),
                      A.Perspective(scale=(0.02, 0.05), p=0.3)],
        "colour": [A.RandomBrightnessContrast(0.2, 0.2, p=0.5),
                   A.HueSaturationValue(10, 20, 20, p=0.5),
                   A.RandomGamma((80, 120), p=0.3), A.ToGray(p=0.05)],
        "quality": [A.GaussNoise(std_range=(0.012, 0.028), p=0.3), A.GaussianBlur((3, 5), p=0.2),
                    A.ImageCompression(quality_range=(70, 95), p=0.2)],
        "advanced": [_drop(holes=8, side=0.14, fill=0, p=0.3),
                     A.ElasticTransform(alpha=50, sigma=5, p=0.2)],
    }
    return A.Compose(groups[name])


def create_level(level: str, seed: int | None = None) -> A.Compose:
    """Return the changes of a level: (H, W, 3) uint8 in, the same out.

    LIGHT for large classes, MEDIUM, and HEAVY for small ones, which are seen most often.
    """
    levels = {
        "LIGHT": [A.HorizontalFlip(p=0.3), A.RandomBrightnessContrast(0.1, 0.1, p=0.3),
                  A.Rotate(limit=10, p=0.2)],
        "MEDIUM": [A.HorizontalFlip(p=0.5), _move(shift=0.1, scale=0.1, rotate=15, p=0.5),
                   A.RandomBrightnessContrast(0.2, 0.2, p=0.5),
                   A.HueSaturationValue(10, 20, 20, p=0.3),
                   A.GaussNoise(std_range=(0.012, 0.021), p=0.2)],
        "HEAVY": [
            A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.1),
            _move(shift=0.15, scale=0.15, rotate=20, p=0.7),
            A.OneOf([A.RandomBrightnessContrast(0.3, 0.3), A.HueSaturationValue(20, 30, 30),
                     A.RandomGamma((70, 130))], p=0.7),
            A.OneOf([A.GaussNoise(std_range=(0.012, 0.028)), A.GaussianBlur((3, 7)),
                     A.ImageCompression(quality_range=(60, 90))], p=0.4),
            _drop(holes=4, side=0.18, fill=128, p=0.3),
        ],
    }
    return A.Compose(levels[level], seed=seed)


def choose_levels(counts: pd.Series, sizes: tuple[int, int]) -> pd.Series:
    """Return the level of each class: LIGHT over sizes[0] images, HEAVY under sizes[1]."""
    large, small = sizes
    levels = np.select([counts > large, counts < small], ["LIGHT", "HEAVY"], "MEDIUM")
    return pd.Series(levels, counts.index, name="level")


def _move(shift: float, scale: float, rotate: int, p: float) -> A.Affine:
    return A.Affine(translate_percent=(-shift, shift), scale=(1 - scale, 1 + scale),
                    rotate=(-rotate, rotate), p=p)


def _drop(holes: int, side: float, fill: int, p: float) -> A.CoarseDropout:
    return A.CoarseDropout(num_holes_range=(1, holes), hole_height_range=(0.05, side),
                           hole_width_range=(0.05, side), fill=fill, p=p)
