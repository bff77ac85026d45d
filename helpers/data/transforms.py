"""Transforms: copies that were turned, shifted, cropped or augmented, found by their keypoints.

Candidates are images whose keypoints use the same words. What proves a copy is `alignment`: the
matching keypoints must agree on one affine transform, and the details on it everywhere.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import DisjointSet
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from helpers.data.alignment import SHOWN, Transform, correlate_thumbnails, fit_and_compare
from helpers.data.judging import create_reader, describe_pair, judge_pairs
from helpers.data.keypoints import (
    LEAST,
    KeypointFile,
    Keypoints,
    fit_transform,
    match_keypoints,
)
from helpers.data.neighbours import find_neighbours
from helpers.data.vocabulary import AT_ONCE, LEARNT_FROM, Vocabulary
from helpers.processes import count_cores

NEIGHBOURS = range(8, 17)  # candidates an image, the more the fewer images there are
ANY = -1.1  # likeness (cosine) that every two images have
PAIRS = 25_000  # to be compared, while these numbers allow it
MOST_PAIRS = 150_000  # the likeliest; of more than 20,000 images fewer for each
DESCRIBERS = 8  # threads, at most: each holds 256 images' vectors
ROUNDS = 4  # of looking for candidates
ALIKE = 0.3  # correlation of two thumbnails laid over each other, below which no file is opened


def find_transformed_pairs(images: pd.DataFrame, thumbnails: np.ndarray, keypoints: KeypointFile,
                           order: np.ndarray, is_copy: Callable, known: set[tuple[int, int]],
                           groups: DisjointSet) -> pd.DataFrame:
    """Return the pairs of images of which one is a transformed copy of the other, and near ones.

    Args:
        images: as from `inspect_images`, with their thumbnails and keypoints.
        order: positions of the images to compare, in an order that does not depend on that of
            the files.
        is_copy: whether an `Agreement` makes two images copies.
        known: pairs of positions that are not looked at again.
        groups: of positions, what is joined already; it is changed.

    Returns:
        Rows as in `copies.find_copies`.
    """
    read, sizes = create_reader(images), keypoints.sizes

    def judge(first: int, second: int, mirrored: bool) -> dict | None:
        one, other = keypoints[first], keypoints[second]
        transform, _ = propose_transform(one, other, mirrored)
        if not transform.plausible or correlate_thumbnails(
                thumbnails[first], thumbnails[second], transform, (one.size, other.size)) < ALIKE:
            return None
        transform, agreement = fit_and_compare(read(first), read(second), transform)
        if not agreement.details >= SHOWN:
            return None
        return describe_pair(transform, agreement, (sizes[first], sizes[second]),
                             is_copy(agreement), agreement.details)

    order = order[keypoints.counts[order] >= LEAST]
    if len(order) < 2:
        return judge_pairs([], judge, groups, "comparing keypoints")
    plain, mirrored = _describe_images(keypoints, order)
    parts, asked, chosen, rows = [], set(known), np.arange(len(order)), None
    for _ in range(ROUNDS):
        pairs = []
        for first, second, flipped in _propose_pairs(plain[chosen], mirrored[chosen],
                                                     order[chosen], rows):
            if not asked & {(first, second), (second, first)}:
                asked.add((first, second))
                pairs.append((first, second, flipped))
        parts.append(judge_pairs(pairs, judge, groups, "comparing keypoints"))
        # The candidates of one copy of many are the copies most like it. So that all meet, each
        # large group sends its first member once more.
        firsts = pd.Series([groups[number] for number in order.tolist()])
        chosen = np.flatnonzero(~firsts.duplicated())
        rows = np.flatnonzero([groups.subset_size(number) >= NEIGHBOURS[0]
                               for number in order[chosen].tolist()])
        if not pairs or not len(rows):
            break
    return pd.concat(parts, ignore_index=True).assign(how="transformed")


def propose_transform(one: Keypoints, other: Keypoints,
                      mirrored: bool) -> tuple[Transform, tuple[np.ndarray, np.ndarray]]:
    """Return how one image may lie on another, and the places of the keypoints that say so.

    Returns:
        The transform, not plausible if too few keypoints agree; and two arrays (points, 2) of
        pixels of the reduced images, the first one mirrored if `mirrored`.
    """
    places, others = match_keypoints(one.mirror() if mirrored else one, other)
    matrix, agreeing = fit_transform(places, others)
    transform = Transform(matrix / (1, 1, max(other.size)), mirrored, int(agreeing.sum()))
    return transform, (places[agreeing], others[agreeing])


def _describe_images(keypoints: KeypointFile,
                     order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors of the images in `order`, and of their mirror images."""
    vocabulary = Vocabulary([keypoints[number] for number in order[:LEARNT_FROM]], len(order))
    plain, mirrored = (np.empty((len(order), vocabulary.width), np.float32) for _ in range(2))

    def describe(start: int) -> None:
        part = slice(start, start + AT_ONCE)
        images = [keypoints[number] for number in order[part]]
        plain[part] = vocabulary.describe(images)
        mirrored[part] = vocabulary.describe([image.mirror() for image in images])

    starts = range(0, len(order), AT_ONCE)
    with threadpool_limits(1), ThreadPoolExecutor(min(DESCRIBERS, count_cores())) as pool:
        for _ in tqdm(pool.map(describe, starts), "describing images", len(starts), unit="block",
                      mininterval=2):
            pass
    return plain, mirrored


def _propose_pairs(plain: np.ndarray, mirrored: np.ndarray, order: np.ndarray,
                   rows: np.ndarray | None) -> list[tuple[int, int, bool]]:
    """Return the likeliest pairs first: positions, and whether one may be mirrored.

    Args:
        rows: of the vectors for which candidates are wanted; null: all.
    """
    count = min(max(PAIRS // len(order), NEIGHBOURS[0]), NEIGHBOURS[-1])
    firsts, seconds, likeness, ways = find_neighbours(plain, (plain, mirrored), ANY, count,
                                                      rows=rows)
    best = np.lexsort((seconds, firsts, -likeness))[:MOST_PAIRS]
    return list(zip(order[firsts[best]].tolist(), order[seconds[best]].tolist(),
                    (ways[best] == 1).tolist(), strict=True))
