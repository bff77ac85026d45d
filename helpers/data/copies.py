"""Copies: exact ones by hash, near ones by correlated thumbnails, joined into groups.

A near copy survives re-encoding, scaling, mirroring, another brightness and a small crop.
First every thumbnail, shrunk to 16 x 16, is compared with every other and with its mirror
image. Then the best candidates are laid over each other at 64 x 64, shifted and scaled a
little, and the best normalised correlation of their details decides: two sunsets share the
broad course of light and dark, but not what remains when it is taken away. Neither brightness
nor contrast matter.
"""

import cv2
import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

COARSE = 16  # pixels a side of the first comparison
CANDIDATE = 0.75  # its correlation from which a pair is looked at closely
NEIGHBOURS = 24  # candidates an image
ROWS_AT_ONCE = 256
MARGIN = 6  # pixels by which one image may be shifted against the other
ZOOMS = (0.95, 1.0, 1.05)
DETAIL = (1.0, 3.0)  # pixels; finer and broader things are taken away before that comparison
FLAT = 4.0  # grey levels of deviation below which a thumbnail shows nothing to compare


def find_exact_copies(images: pd.DataFrame) -> pd.Series:
    """Return for each image the position of the first one with the same bytes, -1 if alone."""
    first = pd.Series(range(len(images)), images.index).groupby(images.sha256).transform("min")
    copied = images.sha256.duplicated(keep=False) & (images.bytes > 0)
    return first.where(copied, -1)


def find_near_copies(thumbnails: np.ndarray, threshold: float,
                     exact: pd.Series | None = None) -> pd.DataFrame:
    """Return the pairs of images whose thumbnails correlate at least 0.05 below `threshold`.

    Args:
        thumbnails: (images, 64, 64) uint8; flat ones, as of unreadable images, pair with none.
        exact: as from `find_exact_copies`; of each file only its first copy is compared.

    Returns:
        `first`, `second` (positions, first < second), `correlation`, `mirrored`, and `copy`:
        whether the correlation reaches the threshold. The others are there to be looked at.
    """
    cv2.setNumThreads(1)
    own = np.ones(len(thumbnails), bool) if exact is None else (
        (exact < 0) | (exact == np.arange(len(exact)))).to_numpy()
    pairs = _find_candidates(thumbnails if threshold < 1 else thumbnails[:0], own)
    progress = tqdm(pairs.itertuples(), "comparing", len(pairs), unit="pair", mininterval=2)
    pairs["correlation"] = np.array([
        correlate(thumbnails[pair.first], thumbnails[pair.second], pair.mirrored)
        for pair in progress], float)
    pairs["copy"] = pairs.correlation >= threshold
    return pairs[pairs.correlation >= threshold - 0.05].sort_values(
        "correlation", ascending=False, ignore_index=True)


def _find_candidates(thumbnails: np.ndarray, own: np.ndarray) -> pd.DataFrame:
    plain, mirrored = _describe(thumbnails), _describe(thumbnails[:, :, ::-1])
    plain[~own[: len(plain)]] = 0  # as if it showed nothing
    shows = np.any(plain, axis=1)
    found = {}
    for start in range(0, len(plain), ROWS_AT_ONCE):
        block = plain[start : start + ROWS_AT_ONCE]
        for flipped, others in ((False, plain), (True, mirrored)):
            scores = block @ others.T
            scores[:, ~shows] = -1
            scores[np.arange(len(block)), start + np.arange(len(block))] = -1
            count = min(NEIGHBOURS, scores.shape[1] - 1)
            best = np.argpartition(-scores, count, axis=1)[:, :count]
            rows, columns = np.nonzero(np.take_along_axis(scores, best, axis=1) >= CANDIDATE)
            for row, other in zip(rows, best[rows, columns], strict=True):
                key = tuple(sorted((int(start + row), int(other))))
                score = scores[row, other]
                if score > found.get(key, (-1, False))[0]:
                    found[key] = (score, flipped)
    keys = np.array(list(found), np.int64).reshape(-1, 2)
    return pd.DataFrame({"first": keys[:, 0], "second": keys[:, 1],
                         "mirrored": [flipped for _, flipped in found.values()]})


def _describe(thumbnails: np.ndarray) -> np.ndarray:
    """Return (images, 256) float32 of mean 0 and length 1; zeros for flat pictures."""
    parts = []
    for start in range(0, len(thumbnails), ROWS_AT_ONCE):
        block = np.asarray(thumbnails[start : start + ROWS_AT_ONCE], np.float32)
        step = block.shape[1] // COARSE
        small = block.reshape(len(block), COARSE, step, COARSE, step).mean(axis=(2, 4))
        small = small.reshape(len(block), -1)
        small -= small.mean(axis=1, keepdims=True)
        small[small.std(axis=1) < FLAT] = 0
        length = np.linalg.norm(small, axis=1, keepdims=True)
        parts.append(small / np.maximum(length, 1e-6))
    return np.concatenate(parts) if parts else np.empty((0, COARSE**2), np.float32)


def correlate(first: np.ndarray, second: np.ndarray, mirrored: bool) -> float:
    """Return the best normalised correlation of two thumbnails' details over shifts and zooms."""
    second = _sharpen(second[:, ::-1] if mirrored else second)
    middle = np.ascontiguousarray(_sharpen(first)[MARGIN:-MARGIN, MARGIN:-MARGIN])
    best = -1.0
    for zoom in ZOOMS:
        side = round(len(middle) * zoom)
        template = middle if zoom == 1 else cv2.resize(middle, (side, side))
        best = max(best, float(cv2.matchTemplate(second, template, cv2.TM_CCOEFF_NORMED).max()))
    return best


def _sharpen(thumbnail: np.ndarray) -> np.ndarray:
    values = np.ascontiguousarray(thumbnail, np.float32)
    fine, broad = (cv2.GaussianBlur(values, (0, 0), sigma) for sigma in DETAIL)
    return fine - broad


def group_copies(count: int, exact: pd.Series, pairs: pd.DataFrame) -> np.ndarray:
    """Return a group number for each of `count` images: copies of copies share one.

    Args:
        exact: as from `find_exact_copies`, positions or -1.
        pairs: as from `find_near_copies`; only rows with `copy` join.
    """
    exact, near = exact.to_numpy(), pairs[pairs["copy"]]
    copied = np.flatnonzero(exact >= 0)
    ends = np.r_[copied, near["first"]], np.r_[exact[copied], near["second"]]
    edges = coo_array((np.ones(len(ends[0])), ends), shape=(count, count))
    return connected_components(edges, directed=False)[1]
