"""Thumbnails: near copies, found by comparing every image with every other.

A near copy survives re-encoding, scaling, mirroring, another brightness and a small crop.
First every thumbnail, shrunk to 16 x 16, is compared with every other and with its mirror
image. Then the best candidates are laid over each other, shifted and scaled a little, and the
best normalised correlation of their details decides, roughly at 16 x 16 and then at 64 x 64: two
sunsets share the broad course of light and dark, but not what remains when it is taken away.
Neither brightness nor contrast matter.
"""

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.data.alignment import Transform
from helpers.data.neighbours import find_neighbours

THUMBNAIL = 64  # pixels a side, grey
COARSE = 16  # pixels a side of the first comparison
CANDIDATE = 0.75  # its correlation from which a pair is looked at closely
NEIGHBOURS = 24  # candidates an image
ROWS_AT_ONCE = 256
PAIRS_AT_ONCE = 4096
SHIFTS = range(-2, 3)  # of 16 pixels, of the first look at the details
PROMISING = 0.28  # their correlation there without which no pair comes near at 64 x 64
MARGIN = 6  # pixels by which one image may be shifted against the other
ZOOMS = (1.0, 0.95, 1.05)
HOPELESS = 0.3  # correlation without zoom below which none helps
DETAIL = (1.0, 3.0)  # pixels; finer and broader things are taken away before that comparison
FLAT = 4.0  # grey levels of deviation below which a thumbnail shows nothing to compare


def find_near_pairs(thumbnails: np.ndarray, threshold: float,
                    order: np.ndarray | None = None) -> pd.DataFrame:
    """Return the pairs of images whose thumbnails correlate at least 0.05 below `threshold`.

    Args:
        thumbnails: (images, 64, 64) uint8; flat ones, as of unreadable images, pair with none.
        order: positions of the images to compare, in an order that does not depend on that of
            the files; null: all, as they come.

    Returns:
        `first`, `second` (positions), `correlation`, `mirrored`, and `zoom`, `right`, `down`:
        where the first thumbnail (mirrored, if it is) lies on the second, in pixels.
    """
    cv2.setNumThreads(1)
    order = np.arange(len(thumbnails)) if order is None else order
    plain = describe(thumbnails, order)
    flipped = plain.reshape(-1, COARSE, COARSE)[:, :, ::-1].reshape(plain.shape)
    rows, others, _, ways = find_neighbours(
        plain, (plain, flipped), CANDIDATE, NEIGHBOURS, smooth=True)
    mirrored = ways == 1
    promising = _correlate_roughly(thumbnails, order, rows, others, mirrored) >= PROMISING
    rows, others, mirrored = rows[promising], others[promising], mirrored[promising]
    pairs = pd.DataFrame({"first": order[rows], "second": order[others], "mirrored": mirrored})
    progress = tqdm(pairs.itertuples(), "comparing thumbnails", len(pairs), unit="pair",
                    mininterval=2)
    pairs[["correlation", "zoom", "right", "down"]] = np.array([
        correlate(thumbnails[pair.first], thumbnails[pair.second], pair.mirrored)
        for pair in progress], float).reshape(-1, 4)
    return pairs[pairs.correlation >= threshold - 0.05]


def lay_pairs(pairs: pd.DataFrame, sizes: np.ndarray) -> list[tuple[int, int, float, Transform]]:
    """Return first, second, correlation and the transform of each pair, the likeliest first.

    Args:
        pairs: as from `find_near_pairs`.
        sizes: (images, 2) width and height of each image.
    """
    laid = []
    for pair in pairs.sort_values("correlation", ascending=False, kind="stable").itertuples():
        # From thumbnails, which are square, to units of the longer side.
        ours, theirs = (sizes[n] / sizes[n].max() for n in (pair.first, pair.second))
        matrix = np.c_[np.diag(pair.zoom * theirs / ours),
                       theirs * (pair.right, pair.down) / THUMBNAIL]
        laid.append((pair.first, pair.second, pair.correlation,
                     Transform(matrix, pair.mirrored, points=-1)))
    return laid


def describe(thumbnails: np.ndarray, order: np.ndarray, side: float = 1.0, left: float = 0.0,
             top: float = 0.0) -> np.ndarray:
    """Return (images, 256) float32 of mean 0 and length 1, zeros for flat pictures.

    Args:
        thumbnails, order: as for `find_near_pairs`.
        side, left, top: of the part of each that is described, as shares of the whole.
    """
    size, parts = thumbnails.shape[1], [np.empty((0, COARSE**2), np.float32)]
    across, down = (_measure_pooling(size, side, start) for start in (left, top))
    for start in range(0, len(order), ROWS_AT_ONCE):
        block = np.asarray(thumbnails[order[start : start + ROWS_AT_ONCE]], np.float32)
        small = (down @ (block @ across.T)).reshape(len(block), -1)
        small -= small.mean(axis=1, keepdims=True)
        small[small.std(axis=1) < FLAT] = 0
        length = np.linalg.norm(small, axis=1, keepdims=True)
        parts.append(small / np.maximum(length, 1e-6))
    return np.concatenate(parts)


def _measure_pooling(size: int, side: float, start: float) -> np.ndarray:
    """Return (16, size) float32: the shares of `size` pixels in the means of 16 equal steps."""
    ends = size * (start + side * np.arange(COARSE + 1) / COARSE)
    covered = np.clip(ends[:, None] - np.arange(size), 0, 1)
    return (np.diff(covered, axis=0) * COARSE / (side * size)).astype(np.float32)


def _correlate_roughly(thumbnails: np.ndarray, order: np.ndarray, rows: np.ndarray,
                       others: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Return (pairs,) the best correlation of details at 16 x 16 over small shifts."""
    small = np.zeros((len(order), COARSE, COARSE), np.float32)
    for number, place in enumerate(order):
        step = thumbnails.shape[1] // COARSE
        small[number] = _sharpen(thumbnails[place]).reshape(
            COARSE, step, COARSE, step).mean(axis=(1, 3))
    small /= np.maximum(np.linalg.norm(small, axis=(1, 2), keepdims=True), 1e-6)
    best = np.full(len(rows), -1, np.float32)
    for start in range(0, len(rows), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        first, second = small[rows[part]], small[others[part]]
        first[mirrored[part]] = first[mirrored[part], :, ::-1]
        for down in SHIFTS:
            for right in SHIFTS:
                ours, theirs = ((slice(max(0, sign * down), COARSE + min(0, sign * down)),
                                 slice(max(0, sign * right), COARSE + min(0, sign * right)))
                                for sign in (1, -1))
                np.maximum(best[part], np.einsum(
                    "nij,nij->n", first[:, *ours], second[:, *theirs]), out=best[part])
    return best


def correlate(first: np.ndarray, second: np.ndarray, mirrored: bool) -> tuple:
    """Return the best normalised correlation of two thumbnails' details over shifts and zooms.

    Returns:
        The correlation, the zoom, and how far the first lies to the right and down, in pixels.
    """
    first = _sharpen(first[:, ::-1] if mirrored else first)
    middle = np.ascontiguousarray(first[MARGIN:-MARGIN, MARGIN:-MARGIN])
    second, best = _sharpen(second), (-1.0, 1.0, 0.0, 0.0)
    for zoom in ZOOMS:
        side = round(len(middle) * zoom)
        template = middle if zoom == 1 else cv2.resize(middle, (side, side))
        _, found, _, (left, top) = cv2.minMaxLoc(
            cv2.matchTemplate(second, template, cv2.TM_CCOEFF_NORMED))
        if found > best[0]:
            best = found, zoom, left - MARGIN * zoom, top - MARGIN * zoom
        if best[0] < HOPELESS:
            break
    return best


def _sharpen(thumbnail: np.ndarray) -> np.ndarray:
    values = np.ascontiguousarray(thumbnail, np.float32)
    fine, broad = (cv2.GaussianBlur(values, (0, 0), sigma) for sigma in DETAIL)
    return fine - broad
