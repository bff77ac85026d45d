"""Alignment: two images laid over each other, and how far they then agree.

Keypoints only propose how one image lies on another: letters, bricks and a shop's logo agree as
well. What proves a copy is that details agree everywhere in the overlap (`fields`).
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from helpers.data.fields import compare_colours, correlate_fields

SIDE = 160  # pixels of the longer side on which images are compared
DETAIL = (1.0, 4.0)  # pixels; finer and broader things are taken away
STRETCH = 2.0  # the most that one direction may be scaled more than another
ZOOM = 4.0  # the most that an image may be scaled
OVERLAP = 0.2  # of the smaller image, the least
PROMISING = 0.2  # agreement from which a fit is worth refining
GOOD = 0.9  # and from which it needs none
SHOWN = 0.5  # below which a transformed pair is not even shown, nor its colours compared
OTHER_COLOURS = 40.0  # levels from which two images are two colours of one thing


@dataclass(frozen=True)
class Transform:
    """How a first image lies on a second one."""

    matrix: np.ndarray  # (2, 3), of places in units of the longer side, after mirroring
    mirrored: bool
    points: int = 0  # keypoints that agree on it

    @property
    def plausible(self) -> bool:
        """Whether it neither collapses the image, nor flips it, nor scales it beyond reason."""
        if not np.isfinite(self.matrix).all():
            return False
        most, least = np.linalg.svd(self.matrix[:, :2], compute_uv=False)
        return (1 / ZOOM < least <= most < ZOOM and most < STRETCH * least
                and np.linalg.det(self.matrix[:, :2]) > 0)

    def invert(self, first: tuple[int, int], second: tuple[int, int]) -> "Transform":
        """Return how the second image lies on the first.

        Args:
            first, second: width and height.
        """
        back = np.linalg.inv(np.vstack([self.matrix, (0, 0, 1)]))
        if self.mirrored:
            ours, theirs = (np.array([[-1, 0, size[0] / max(size)], [0, 1, 0], [0, 0, 1]])
                            for size in (first, second))
            back = ours @ back @ theirs
        return Transform(back[:2], self.mirrored, self.points)

    def describe(self, first: tuple[int, int], second: tuple[int, int]) -> str:
        """Return in words what was done to the first image to get the second.

        Args:
            first, second: width and height.
        """
        (a, b), (c, d) = self.matrix[:, :2]
        turn = round(math.degrees(math.atan2(c - b, a + d)))
        most, least = np.linalg.svd(self.matrix[:, :2], compute_uv=False)
        zoom = math.sqrt(most * least)
        middles = [np.array(size) / max(size) / 2 for size in (first, second)]
        shift = self.matrix @ np.r_[middles[0], 1] - middles[1]
        said = ["mirrored"] * self.mirrored
        if abs(turn) >= 2:
            side = "" if abs(turn) == 180 else " to the right" if turn > 0 else " to the left"
            said.append(f"turned by {abs(turn)} degrees{side}")
        if abs(zoom - 1) >= 0.03:
            said.append(f"zoomed to {zoom:.0%}")
        if most / least >= 1.05:
            said.append("stretched")
        if np.abs(shift).max() >= 0.03:
            said.append(f"shifted by {np.abs(shift).max():.0%}")
        return ", ".join(said) or "the same framing"


@dataclass(frozen=True)
class Agreement:
    """What two images have in common where one lies on the other."""

    details: float  # mean correlation of the fields, 0 to 1; nan if they show too little
    overlap: float  # share of the smaller image
    colours: float  # levels (0 to 255) by which colours differ, apart from another light

    @property
    def recoloured(self) -> bool:
        """Whether these may be two colours of one thing."""
        return self.colours >= OTHER_COLOURS


def shrink(image: Image.Image) -> np.ndarray:
    """Return an image as it is compared, (H, W, 3) uint8."""
    scale = SIDE / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2))


def compare(first: np.ndarray, second: np.ndarray, transform: Transform) -> Agreement:
    """Lay a first image on a second one and measure how far they agree.

    Args:
        first, second: as from `shrink`.
    """
    cv2.setNumThreads(1)
    laid, inside = _lay(first, second, transform)
    mask = cv2.erode(inside.astype(np.uint8), np.ones((3, 3)), borderValue=0).astype(np.float32)
    area = first.shape[0] * first.shape[1] * abs(np.linalg.det(transform.matrix[:, :2]))
    overlap = min(1.0, float(mask.sum()) / max(1.0, min(area, mask.size)))
    if overlap < OVERLAP:
        return Agreement(float("nan"), overlap, 0.0)
    details = correlate_fields(*(_sharpen(_turn_grey(image).astype(np.float32), mask)
                                  for image in (laid, second)), mask > 0)
    # Also of what shows too little to agree: a red sheet and a green one.
    colours = 0.0 if details < SHOWN else compare_colours(laid, second, mask > 0)
    return Agreement(details, overlap, colours)


def correlate_thumbnails(first: np.ndarray, second: np.ndarray, transform: Transform,
                         sizes: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the correlation of two thumbnails' details where one lies on the other.

    A first look, before any file is opened: those of copies correlate, those of most others not.

    Args:
        first, second: (side, side) uint8, the whole images squeezed into squares.
        sizes: width and height of each image.
    """
    side = len(first)
    if transform.mirrored:
        first = first[:, ::-1]
    ours, theirs = (np.asarray(size) / max(size) / side for size in sizes)
    matrix = transform.matrix * np.r_[ours, 1] / theirs[:, None]
    first = np.ascontiguousarray(first, np.float32)
    laid = cv2.warpAffine(first, matrix, (side, side))
    mask = (cv2.warpAffine(np.ones_like(first), matrix, (side, side)) > 0.99).astype(np.float32)
    x, y = (_sharpen(grey, mask)[mask > 0]
            for grey in (laid, np.ascontiguousarray(second, np.float32)))
    if len(x) < OVERLAP * side**2 / ZOOM**2:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / np.sqrt(max((x @ x) * (y @ y), 1e-9)))


def fit_and_compare(first: np.ndarray, second: np.ndarray, transform: Transform,
                    least: float = PROMISING) -> tuple[Transform, Agreement]:
    """Compare two images; where they nearly agree, fit the transform better and compare again."""
    agreement = compare(first, second, transform)
    if least <= agreement.details < GOOD:
        refined = refine(first, second, transform)
        if refined.plausible:
            again = compare(first, second, refined)
            if again.details > agreement.details:
                return refined, again
    return transform, agreement


def lay_over(first: np.ndarray, second: np.ndarray, transform: Transform) -> np.ndarray:
    """Return the mean of both images where the first covers the second, the rest pale."""
    laid, inside = _lay(first, second, transform)
    return np.where(inside[..., None], laid // 2 + second // 2, second // 2 + 127)


def _lay(first: np.ndarray, second: np.ndarray,
         transform: Transform) -> tuple[np.ndarray, np.ndarray]:
    """Return the first image in the second's frame, and (H, W) bool: where it is."""
    if transform.mirrored:
        first = np.ascontiguousarray(first[:, ::-1])
    matrix, shape = transform.matrix * (1, 1, SIDE), second.shape[1::-1]
    inside = cv2.warpAffine(np.full(first.shape[:2], 255, np.uint8), matrix, shape) == 255
    return cv2.warpAffine(first, matrix, shape), inside


def refine(first: np.ndarray, second: np.ndarray, transform: Transform) -> Transform:
    """Return a transform that fits better, from the pixels themselves (ECC, Evangelidis 2008)."""
    if transform.mirrored:
        first = np.ascontiguousarray(first[:, ::-1])
    matrix = cv2.invertAffineTransform(transform.matrix * (1, 1, SIDE)).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    try:
        _, matrix = cv2.findTransformECC(_turn_grey(second), _turn_grey(first), matrix,
                                         cv2.MOTION_AFFINE, stop, None, 5)
    except cv2.error:  # it does not converge
        return transform
    matrix = cv2.invertAffineTransform(matrix.astype(np.float64)) / (1, 1, SIDE)
    return Transform(matrix, transform.mirrored, transform.points)


def _turn_grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _sharpen(grey: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return an image's details, as if what lies outside the mask were not there."""
    fine, broad = (cv2.GaussianBlur(grey * mask, (0, 0), sigma)
                   / np.maximum(cv2.GaussianBlur(mask, (0, 0), sigma), 1e-3) for sigma in DETAIL)
    return fine - broad
