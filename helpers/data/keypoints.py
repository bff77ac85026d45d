"""Keypoints: places of an image that are found again when it is turned, scaled, shifted or cut.

SIFT (Lowe 2004), by OpenCV, on the grey image reduced to 144 pixels, of many images to 128. Its
descriptors do not change with rotation and scale, and those of the mirror image are the same
numbers in another order. Their roots are kept, which tell them apart better (Arandjelović and
Zisserman 2012).
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from helpers.files import write_whole

MANY = 10_000  # images, of more than which less is kept: pages of print need all of it
SIDE = 144, 128  # pixels of the longer side, of few images and of many
MOST = 150, 100  # keypoints of an image, the clearest
CONTRAST = 0.01  # low, since a bottle on a table has few
RATIO = 0.9  # of the best match's distance to the second best's, above which it is ambiguous
LEAST = 4  # keypoints that must agree on a transform: three alone always do
TOLERANCE = 3.0  # pixels by which keypoints that agree with a transform may miss it
# A descriptor's 4 x 4 fields of 8 directions, as the mirror image has them.
MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1, :, -np.arange(8) % 8].ravel()
# Of an image that shows nothing, as from `find_keypoints`.
NO_KEYPOINTS = np.empty((0, 2), np.float16), np.empty((0, 128), np.uint8), (1, 1)


@dataclass(frozen=True)
class Keypoints:
    """The keypoints of one image."""

    places: np.ndarray  # (keypoints, 2) float32, x and y in pixels of the reduced image
    descriptors: np.ndarray  # (keypoints, 128) float32, each of length 1, nearly
    size: tuple[int, int]  # of the reduced image, width and height

    @classmethod
    def unpack(cls, places: np.ndarray, descriptors: np.ndarray,
               size: tuple[int, int]) -> "Keypoints":
        """Return keypoints kept as `find_keypoints` returns them."""
        return cls(places.astype(np.float32), descriptors * np.float32(1 / 255), size)

    def mirror(self) -> "Keypoints":
        """Return the keypoints of the mirror image."""
        places = self.places * (-1, 1) + (self.size[0] - 1, 0)
        return Keypoints(places.astype(np.float32), self.descriptors[:, MIRRORED], self.size)


def find_keypoints(image: Image.Image,
                   images: int = 1) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Return an image's keypoints as they are kept.

    Args:
        images: how many there are in all.

    Returns:
        Places (keypoints, 2) float16, descriptors (keypoints, 128) uint8, of length 255, and the
        size of the reduced image.
    """
    longest, most = (pair[images > MANY] for pair in (SIDE, MOST))
    scale = longest / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    small = image.reduce(max(1, max(image.size) // longest)).convert("L")
    grey = np.asarray(small.resize(size, Image.Resampling.BILINEAR))
    cv2.setNumThreads(1)
    sift = cv2.SIFT_create(most, contrastThreshold=CONTRAST, enable_precise_upscale=True)
    found, descriptors = sift.detectAndCompute(grey, None)
    if not found:
        return *NO_KEYPOINTS[:2], size
    # SIFT returns ties beyond its limit.
    places = cv2.KeyPoint.convert(found[:most]).astype(np.float16)
    roots = np.sqrt(descriptors[:most] / np.maximum(
        descriptors[:most].sum(axis=1, keepdims=True), 1))
    return places, np.round(255 * roots).astype(np.uint8), size


class KeypointFile:
    """The keypoints of many images on disk; `file[number]` reads those of one, until closed.

    Descriptors take 11 KiB an image, too much for the memory; the rest is held.
    """

    def __init__(self, path: Path):
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as index:
            self.counts, self.sizes, self.places = (
                index[name] for name in ("counts", "sizes", "places"))
        self.ends = np.cumsum(self.counts)
        self.stream = path.open("rb")

    def __enter__(self) -> "KeypointFile":
        return self

    def __exit__(self, *_) -> None:
        self.stream.close()

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, number: int) -> Keypoints:
        count, end = int(self.counts[number]), int(self.ends[number])
        # Not by a memory map, whose pages would count as memory; several threads may read.
        content = os.pread(self.stream.fileno(), count * 128, (end - count) * 128)
        return Keypoints.unpack(self.places[end - count : end],
                                np.frombuffer(content, np.uint8).reshape(count, 128),
                                tuple(self.sizes[number].tolist()))


def join_keypoints(found: list[tuple]) -> dict[str, np.ndarray]:
    """Return the keypoints of some images, each as from `find_keypoints`, in four arrays."""
    places, descriptors, sizes = zip(*found, strict=True)
    return {"counts": np.array([len(part) for part in places]),
            "sizes": np.array(sizes, np.int32),
            "places": np.concatenate(places), "descriptors": np.concatenate(descriptors)}


def save_keypoints(path: Path, parts: Iterable[dict]) -> None:
    """Write what `KeypointFile` opens.

    Args:
        parts: one after another, as from `join_keypoints`.
    """
    index = {"counts": [], "sizes": [], "places": []}
    with write_whole(path) as temporary, temporary.open("wb") as stream:
        for arrays in parts:
            stream.write(arrays["descriptors"].tobytes())
            for name, kept in index.items():
                kept.append(arrays[name])
    with write_whole(path.with_suffix(".npz")) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **{name: np.concatenate(kept) for name, kept in index.items()})


def match_keypoints(first: Keypoints, second: Keypoints) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of keypoints that are each other's best match, and no ambiguous ones.

    Returns:
        Two arrays (matches, 2) float32.
    """
    if min(len(first.places), len(second.places)) < 2:
        return np.empty((0, 2), np.float32), np.empty((0, 2), np.float32)
    likeness = first.descriptors @ second.descriptors.T
    best = likeness.argmax(axis=1)
    rows = np.arange(len(best))
    most = likeness[rows, best]
    likeness[rows, best] = -1
    next_best = likeness.max(axis=1)
    likeness[rows, best] = most
    # Distances of vectors of length 1.
    clear = 1 - most < RATIO**2 * (1 - next_best)
    rows, best = rows[clear], best[clear]
    mutual = likeness[:, best].argmax(axis=0) == rows
    return first.places[rows[mutual]], second.places[best[mutual]]


def count_agreeing(first: Keypoints, second: Keypoints, matrix: np.ndarray) -> int:
    """Return how many keypoints that are most alike lie where a transform puts them.

    Args:
        matrix: (2, 3), takes places of the first image to the second, in units of their
            longer sides.
    """
    if not min(len(first.places), len(second.places)):
        return 0
    likeness = first.descriptors @ second.descriptors.T
    best = likeness.argmax(axis=1)
    mutual = likeness[:, best].argmax(axis=0) == np.arange(len(best))
    shift = matrix[:, 2] * max(second.size)
    missed = first.places @ matrix[:, :2].T + shift - second.places[best]
    return int((mutual & (np.linalg.norm(missed, axis=1) <= TOLERANCE)).sum())


def fit_transform(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the affine transform on which most matches agree, and which do (RANSAC).

    Args:
        first, second: (matches, 2) float32.

    Returns:
        (2, 3) float64 that takes the first places to the second, zeros if there is none; and
        (matches,) bool.
    """
    if len(first) >= LEAST:
        matrix, agreeing = cv2.estimateAffine2D(first, second, method=cv2.RANSAC,
                                                ransacReprojThreshold=TOLERANCE)
        if matrix is not None and agreeing.sum() >= LEAST:
            return matrix, agreeing[:, 0] > 0
    return np.zeros((2, 3)), np.zeros(len(first), bool)
