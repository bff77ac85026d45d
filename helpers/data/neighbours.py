"""Neighbours: of many vectors those that are alike, in bounded memory."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

ROWS_AT_ONCE = 256
COMPONENTS = 64  # in which most of a vector's length lies
LEARNT_FROM = 5_000  # vectors
SLACK = 1e-4  # of rounding
ROOM = 4  # times the neighbours wanted: what a row keeps before both sides are heard


def find_neighbours(plain: np.ndarray, asking: Sequence[np.ndarray], least: float, count: int,
                    smooth: bool = False, rows: np.ndarray | None = None,
                    quiet: bool = False) -> tuple[np.ndarray, ...]:
    """Return the pairs that are among the `count` most alike of either of the two.

    Every vector is compared with every other. Where far more pairs than wanted are alike, only
    the most alike ones are kept.

    Args:
        plain: (images, width) float32 of length 1; zeros for what has no neighbours.
        asking: the same of the images as they are to be compared with those: themselves, their
            mirror images, their parts. Without `rows`, a first one should be about as like a
            second one as the second is like the first: only one is asked for.
        least: likeness (cosine) below which two are no neighbours.
        smooth: the vectors are small pictures, so that most of a vector lies in few components.
            These are compared first, and the length of the rest: their product bounds the true
            one from above.
        rows: positions that ask for their `count` most alike; null: all, each pair once.
        quiet: whether there is no progress bar.

    Returns:
        Positions of first, which asks, and second, their likeness, and which of `asking` it is
        that of. Without `rows`, first < second.
    """
    from sklearn.decomposition import PCA

    # Of a hundred thousand images there are tens of millions before both sides are heard.
    kinds = np.int32, np.int32, np.float32, np.uint8
    found = [np.empty(0, kind) for kind in kinds]
    if len(plain) < 2:
        return tuple(found)
    short = [plain, *asking]
    if smooth and len(plain) > 2 * COMPONENTS:
        sample = plain[: LEARNT_FROM]
        fitted = PCA(COMPONENTS, svd_solver="covariance_eigh").fit(np.r_[sample, -sample])
        short = [_bound(vectors, fitted.components_.T) for vectors in short]
    least = max(least, _find_level(short[0], ROOM * count))
    wanted, parts = np.arange(len(plain)) if rows is None else rows, [found]
    # Made once: the pages of an array that is made anew cost more than the sums.
    room = np.empty(ROWS_AT_ONCE * len(plain), np.float32)
    marks = np.empty(len(room), bool)
    for start in tqdm(range(0, len(wanted), ROWS_AT_ONCE), "finding candidates", unit="block",
                      mininterval=2, disable=quiet):
        some, after = wanted[start : start + ROWS_AT_ONCE], start if rows is None else 0
        for which, (whole, brief) in enumerate(zip(asking, short[1:], strict=True)):
            few, many = brief[some], short[0][after:]
            size = len(few) * len(many)
            scores = np.matmul(few, many.T, out=room[:size].reshape(len(few), len(many)))
            if rows is None:
                scores[np.tril_indices(len(scores))] = -2  # each pair once
            else:
                scores[np.arange(len(some)), some] = -2
            near = np.greater_equal(room[:size], least - SLACK, out=marks[:size])
            firsts, seconds = _choose(scores, near, ROOM * count if rows is None else count)
            firsts, seconds = some[firsts], seconds + after
            exact = np.einsum("ij,ij->i", whole[firsts], plain[seconds])
            kept = exact >= least
            columns = firsts[kept], seconds[kept], exact[kept], np.full(kept.sum(), which)
            parts.append([column.astype(kind) for column, kind in
                          zip(columns, kinds, strict=True)])
    firsts, seconds, exact, ways = map(np.concatenate, zip(*parts, strict=True))
    del parts
    # Of a pair that is alike both ways the better way.
    order = np.lexsort((ways, -exact, seconds, firsts))
    firsts, seconds, exact, ways = (a[order] for a in (firsts, seconds, exact, ways))
    once = np.r_[True, (np.diff(firsts) != 0) | (np.diff(seconds) != 0)][: len(firsts)]
    firsts, seconds, exact, ways = (a[once] for a in (firsts, seconds, exact, ways))
    if rows is not None:
        return firsts, seconds, exact, ways
    best = rank_pairs(firsts, exact, seconds, len(plain)) < count
    best |= rank_pairs(seconds, exact, firsts, len(plain)) < count
    return firsts[best], seconds[best], exact[best], ways[best]


def _find_level(vectors: np.ndarray, count: int) -> float:
    """Return the likeness that the middle one of the first vectors has with `count` others.

    Not the mean one: a thousand copies of one image would set it for all.
    """
    if count >= len(vectors):
        return -2.0
    scores = vectors[:ROWS_AT_ONCE] @ vectors.T
    return float(np.median(np.partition(scores, -count, axis=1)[:, -count]))


def _bound(vectors: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Return vectors whose product is at least that of the given ones (Cauchy-Schwarz)."""
    short = vectors @ components
    rest = (vectors**2).sum(axis=1) - (short**2).sum(axis=1)
    return np.c_[short, np.sqrt(np.maximum(rest, 0))].astype(np.float32)


def _choose(scores: np.ndarray, near: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the scores that are near (flat), of each row at most `most`."""
    rows, columns = np.divmod(np.flatnonzero(near), scores.shape[1])
    crowded = np.flatnonzero(np.bincount(rows, minlength=len(scores)) > most)
    if len(crowded):
        best = np.argpartition(-scores[crowded], most, axis=1)[:, :most]
        others = ~np.isin(rows, crowded)
        rows = np.r_[rows[others], np.repeat(crowded, most)]
        columns = np.r_[columns[others], best.ravel()]
    return rows, columns


def rank_pairs(of: np.ndarray, scores: np.ndarray, ties: np.ndarray, count: int) -> np.ndarray:
    """Return each pair's place, from 0, among those of the same image, best first."""
    order = np.lexsort((ties, -scores, of))
    starts = np.searchsorted(of[order], np.arange(count))
    rank = np.empty(len(of), np.int64)
    rank[order] = np.arange(len(of)) - starts[of[order]]
    return rank
