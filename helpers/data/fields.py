"""Fields: the overlap of two images cut into squares, each of which has to agree.

So neither one strong logo nor a common frame can speak for the rest. The squares lie along the
lines of the image, and what runs along their rows and columns is taken away first: lines of print
lie alike on all pages.
"""

import math

import cv2
import numpy as np

FIELD = 16  # pixels a side
FLAT = 1.5  # grey levels of deviation below which a field shows nothing
RICH = 4.0  # from which it counts in full
FEWEST = 4.0  # fields, counted so, without which nothing is proven
COLOURED = 0.01  # share of the overlap that must differ in colour
NEIGHBOURS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
# Levels by which a field's mean may miss another light before it counts less, round by round.
TOLERATED = (64, 32, 16, 8, 4, 4)
GREY = 8.0  # levels that channels may differ by in a grey image


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


def correlate_fields(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
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


def compare_colours(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """Return by how many levels the colours of 1 % of the overlap differ at least.

    Another exposure or white balance moves each channel by a factor and an offset, everywhere:
    these are taken away. So is what a pixel's neighbours explain, since nothing fits exactly.
    A grey copy of a coloured image has its brightness.
    """
    # At half the size: colours are coarse in a JPEG file, and noise is no colour.
    half = mask.shape[1] // 2, mask.shape[0] // 2
    first, second, share = (cv2.resize(image, half, interpolation=cv2.INTER_AREA)
                            for image in (first, second, mask.astype(np.float32)))
    mask = share == 1
    if not mask.any():
        return 0.0
    grey = min(np.ptp(image[mask], axis=1).max() for image in (first, second)) < GREY
    if grey:
        first, second = (np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
                         for image in (first, second))
    dark, bright = sorted((first, second), key=lambda image: image[mask].mean())
    matched, bright = _match_light(dark, bright, mask), bright.astype(np.float32)
    apart = np.full(mask.shape, np.inf, np.float32)
    for shift in NEIGHBOURS:
        red, green, blue = np.moveaxis(matched - np.roll(bright, shift, axis=(0, 1)), 2, 0)
        # Of two coloured images the brightness is left out.
        differ = np.abs(red) if grey else np.hypot(red - green, blue - (red + green) / 2)
        apart = np.minimum(apart, differ)
    return float(np.quantile(apart[mask], 1 - COLOURED))


def _match_light(dark: np.ndarray, bright: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the darker image in the light of the brighter one, overexposed where that is.

    Factor and offset of each channel are those with which the fields' means agree, by Gauss and
    Newton's method, in which fields that do not fit count less: they may have another colour.
    """
    matched, side = np.empty(dark.shape, np.float32), FIELD // 2  # of images of half the size
    fields = _number_fields(mask, wide=side, high=side)
    covered = np.bincount(fields) >= side**2 / 2
    for channel in range(3):
        ours, theirs = (image[mask][:, channel].astype(float) for image in (dark, bright))
        wanted, light = _average(fields, theirs)[covered], np.array([1.0, 0.0])
        for tolerated in TOLERATED if covered.sum() > 2 else ():
            values = light[0] * ours + light[1]
            rest = wanted - _average(fields, values.clip(0, 255))[covered]
            # What is overexposed does not change with the light.
            free = ((values > 0) & (values < 255)).astype(float)
            slope = np.stack([_average(fields, part)[covered] for part in (ours * free, free)], 1)
            weight = 1 / np.sqrt(1 + (rest / tolerated) ** 2)[:, None]
            light = light + np.linalg.lstsq(weight * slope, weight[:, 0] * rest, 1e-3)[0]
        matched[..., channel] = light[0] * dark[..., channel] + light[1]
    return matched.clip(0, 255)
