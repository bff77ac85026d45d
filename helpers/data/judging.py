"""Judging: pairs of images looked at one by one, the likeliest first, on all cores."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import DisjointSet
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from helpers.data.alignment import SIDE, Agreement, Transform, shrink
from helpers.data.images import (
    UnreadableImageError,
    decode_image,
    read_file,
    refuse_image,
)
from helpers.processes import count_cores

AT_ONCE = 512  # pairs, after which groups are looked at again
CHUNK = 32  # pairs that a thread looks at by itself
CROWD = 16  # members of a group from which those that are joined are not compared any more
HELD = 2048  # images in memory, of 75 KiB at most
COLUMNS = ["copy", "correlation", "details", "points", "overlap", "colours", "transform",
           "inverse"]


def create_reader(images: pd.DataFrame) -> Callable[[int], np.ndarray]:
    """Return a function that returns the image of a number, as it is compared.

    It raises SuiteError if the file cannot be read any more or has changed.

    Args:
        images: as from `inspect_images`.
    """
    paths, hashes = images.path.tolist(), images.sha256.tolist()

    @lru_cache(HELD)
    def read(number: int) -> np.ndarray:
        path = paths[number]
        try:
            return shrink(decode_image(path, read_file(path, hashes[number]), side=2 * SIDE))
        except UnreadableImageError as error:
            raise refuse_image(path, error) from None

    return read


def describe_pair(transform: Transform, agreement: Agreement, sizes: tuple, copy: bool,
                  correlation: float) -> dict:
    """Return a row of what was found about a pair, see `copies.find_copies`."""
    return {"copy": bool(copy), "correlation": correlation, "details": agreement.details,
            "points": transform.points, "overlap": agreement.overlap,
            "colours": agreement.colours, "transform": transform.describe(*sizes),
            "inverse": transform.invert(*sizes).describe(*sizes[::-1])}


def judge_pairs(pairs: list[tuple], judge: Callable[..., dict | None], groups: DisjointSet,
                title: str) -> pd.DataFrame:
    """Judge pairs in their order, join copies, and return a row for each that has an answer.

    1,000 copies of one image are 499,500 pairs: once images share a group of more than 16, they
    are not compared.

    Args:
        pairs: tuples that begin with two positions.
        judge: is given a pair; returns None, or a row as from `describe_pair`.
        groups: of positions; it is changed.
    """
    def judge_some(part: list[tuple]) -> list:
        return [judge(*pair) for pair in part]

    rows = []
    with threadpool_limits(1), ThreadPoolExecutor(count_cores()) as pool, tqdm(
            total=len(pairs), desc=title, unit="pair", mininterval=2) as bar:
        for start in range(0, len(pairs), AT_ONCE):
            part = [pair for pair in pairs[start : start + AT_ONCE]
                    if not groups.connected(*pair[:2]) or groups.subset_size(pair[0]) <= CROWD]
            chunks = [part[at : at + CHUNK] for at in range(0, len(part), CHUNK)]
            judged = chain.from_iterable(pool.map(judge_some, chunks))
            for (first, second, *_), row in zip(part, judged, strict=True):
                if row is not None:
                    rows.append({"first": first, "second": second} | row)
                    if row["copy"]:
                        groups.merge(first, second)
            bar.update(min(AT_ONCE, len(pairs) - start))
    return pd.DataFrame(rows, columns=["first", "second", *COLUMNS]).astype(
        {"first": int, "second": int, "copy": bool, "points": int,
         **dict.fromkeys(("correlation", "details", "overlap", "colours"), float)})
