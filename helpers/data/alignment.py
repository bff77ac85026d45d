"""Alignment: two images laid over each other, and how far they then agree.

Keypoints only propose how one image lies on another: letters, bricks and a shop's logo agree as
well. What proves a copy is that details agree everywhere in the overlap, field by field, so
that neither one strong logo nor a common frame can speak for the rest. The fields lie along the
lines of the image, and what runs along their rows and columns is taken away first: lines of print
lie alike on all pages.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

SIDE = 160  # pixels of the longer side on which images are compared
DETAIL = (1.0, 4.0)  # pixels; finer and broader things are taken away
FIELD = 16  # pixels a side
FLAT = 1.5  # grey levels of deviation below which a field shows nothing
RICH = 4.0  # from which it counts in full
FEWEST = 4.0  # fields, counted so, without which nothing is proven
STRETCH = 2.0  # the most that one direction may be scaled more than another
ZOOM = 4.0  # the most that an image may be scaled
OVERLAP = 0.2  # of the smaller image, the least
PROMISING = 0.2  # agreement from which a fit is worth refining
GOOD = 0.9  # and from which it needs none
COLOURED = 3  # fields that must differ in colour; one may be an edge that does not quite meet
BURNT = 248.0  # levels
GREY = 8.0  # levels that channels may differ by in a grey image
OTHER_COLOURS = 40.0  # levels from which two images are two colours of one thing


@dataclass(frozen=True)
class Transform:
    """How a first image lies on a second one."""

    matrix: np.ndarray  # (2, 3), of places in units of the longer side, after mirroring
    mirrored: bool
    points: int = 0  # keypoints that agree on it

    @property
    def plausible(self) -> bool:
        """Whether it neither collapses the image nor scales it beyond reason."""
        if not np.isfinite(self.matrix).all():
            return False
        most, least = np.linalg.svd(self.matrix[:, :2], compute_uv=False)
        return 1 / ZOOM < least <= most < ZOOM and most < STRETCH * least

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
            said.append(f"{'enlarged' if zoom > 1 else 'reduced'} {zoom:.2f} times")
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
    colours: float  # levels (0 to 255) by which the colours of fields differ, apart from a tint

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
    details = _correlate_fields(*(_sharpen(_turn_grey(image).astype(np.float32), mask)
                                  for image in (laid, second)), mask > 0)
    colours = 0.0 if details < PROMISING else _compare_colours(laid, second, mask > 0)
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


def fit_and_compare(first: np.ndarray, second: np.ndarray,
                    transform: Transform) -> tuple[Transform, Agreement]:
    """Compare two images; where they nearly agree, fit the transform better and compare again."""
    agreement = compare(first, second, transform)
    if PROMISING <= agreement.details < GOOD:
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


def _number_fields(mask: np.ndarray, turn: float = 0.0, wide: int = FIELD,
                   high: int = FIELD) -> np.ndarray:
    """Return (pixels,) the number of the field that each pixel inside the mask lies in.

    Args:
        turn: of the fields' grid, radians.
    """
    down, right = np.nonzero(mask)
    along, across = (right * math.cos(turn) + down * math.sin(turn),
                     down * math.cos(turn) - right * math.sin(turn))
    columns, rows = (np.floor(side / step).astype(np.int64)
                     for side, step in ((along, wide), (across, high)))
    columns, rows = columns - columns.min(), rows - rows.min()
    return rows * (columns.max() + 1) + columns


def _find_direction(details: np.ndarray, mask: np.ndarray) -> float:
    """Return the direction, radians, in which an image's details change most, as across lines.

    From the structure tensor (Bigün and Granlund 1987).
    """
    right, down = (cv2.Sobel(details, cv2.CV_32F, *step)[mask] for step in ((1, 0), (0, 1)))
    return math.atan2(2 * float(right @ down), float(right @ right - down @ down)) / 2


def _average(fields: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the mean value of each field."""
    return np.bincount(fields, values) / np.maximum(np.bincount(fields), 1)


def _correlate_fields(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean correlation of the fields that show something, nan if hardly any does."""
    turn, values = _find_direction(second, mask), [first[mask], second[mask]]
    fields = _number_fields(mask, turn)
    for stripes in (_number_fields(mask, turn, high=1), _number_fields(mask, turn, wide=1)):
        values = [part - _average(stripes, part)[stripes] for part in values]
    x, y = values
    deviations = [np.sqrt(_average(fields, part**2)) for part in values]
    correlation = _average(fields, x * y) / np.maximum(deviations[0] * deviations[1], 1e-6)
    # A field is looked at if either image shows something there.
    shows = np.maximum(*deviations)
    weight = np.minimum(np.bincount(fields) / FIELD**2, 1) * np.minimum(shows / RICH, 1)
    weight[shows < FLAT] = 0
    if weight.sum() < FEWEST:
        return float("nan")
    return float((np.clip(correlation, 0, 1) * weight).sum() / weight.sum())


def _compare_colours(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """Return how far fields differ in colour once both have the same light.

    Another exposure or white balance moves each channel by a factor and an offset, everywhere.
    A recoloured object does not fit these.
    """
    ours, theirs = _average_fields(first, mask), _average_fields(second, mask)
    # What is overexposed has lost its colour.
    usable = (np.maximum(ours, theirs).max(axis=1) < BURNT) if len(ours) else np.zeros(0, bool)
    ours, theirs = ours[usable], theirs[usable]
    if len(ours) < COLOURED or min(np.ptp(side, axis=1).max() for side in (ours, theirs)) < GREY:
        return 0.0  # a grey copy of a coloured image is a copy
    fitting = np.ones(len(ours), bool)
    for _ in range(3):  # again without the fields that fit worst
        rest = np.empty_like(ours)
        for channel in range(3):
            x, y = ours[fitting, channel], theirs[fitting, channel]
            factor = float(np.cov(x, y)[0, 1] / x.var(ddof=1)) if np.ptp(x) > 8 else 1.0
            rest[:, channel] = theirs[:, channel] - y.mean() - factor * (
                ours[:, channel] - x.mean())
        red, green, blue = rest.T
        apart = np.hypot(red - green, blue - (red + green) / 2)  # brightness left out
        fitting = apart <= np.quantile(apart, 0.8)
    return float(np.sort(apart)[-COLOURED])


def _average_fields(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return (fields, 3) mean colours of the fields of which half lies inside the mask."""
    fields = _number_fields(mask)
    means = np.stack([_average(fields, channel) for channel in image[mask].T], axis=1)
    return means[np.bincount(fields) >= FIELD**2 / 2]
