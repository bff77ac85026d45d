"""Copies: images that are there more than once, however they were changed, joined into groups.

One search in three steps: the same bytes, of which only the first file goes on; thumbnails that
correlate (`thumbnails`); keypoints that agree on a transform (`transforms`).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import DisjointSet
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from helpers.data.alignment import Agreement, Transform, fit_and_compare
from helpers.data.inspection import load_keypoints, load_thumbnails
from helpers.data.judging import create_reader, describe_pair, judge_pairs
from helpers.data.thumbnails import find_near_pairs, lay_pairs
from helpers.data.transforms import find_transformed_pairs
from helpers.data.windows import find_part_pairs
from helpers.run import Run

REFUTED = 0.72  # agreement of details below which thumbnails that correlate prove nothing
COLUMNS = ["first", "second", "first_id", "second_id", "how", "copy", "correlation", "details",
           "points", "overlap", "colours", "transform", "inverse"]


def find_copies(images: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Return the pairs of images that are copies, and those that nearly count as such.

    Which images are joined does not depend on their order. Of files with the same bytes the first
    one stands for all.

    Args:
        images: as from `inspect_images` with this run.

    Returns:
        A row a pair, the surest first: `first`, `second` (positions) and their ids; `how` it was
        found (`exact`, `near`, `transformed`); whether it counts as a `copy`, for `data`'s
        thresholds; `correlation`, which is compared with them (of the thumbnails of near copies,
        equal to `details` of transformed ones); `details`, their agreement field by field
        (missing if the images show too little); `points`, keypoints that agree (-1 where none
        were asked); `overlap`, the common share of the smaller image; `colours`, levels by which
        colours differ; `transform`, in words, from the first image to the second; `inverse`,
        from the second to the first.

    Raises:
        SuiteError: an image cannot be read any more, or has changed since it was inspected.
    """
    settings = run.recipe.data
    exact = _find_exact_pairs(images)
    own = images.reset_index(drop=True).drop(index=exact["second"])
    order = own.sort_values("sha256").index.to_numpy()
    order = order if settings.near_copy < 1 else order[:0]
    thumbnails, groups = load_thumbnails(run), DisjointSet(order)
    any_colours = settings.copy_colours == "any"

    def is_near(correlation: float, agreement: Agreement) -> bool:
        # What shows too little to be looked at field by field is not refuted.
        refuted = agreement.details < REFUTED or (agreement.recoloured and not any_colours)
        return correlation >= settings.near_copy and not refuted

    def is_transformed(agreement: Agreement) -> bool:
        return agreement.details >= settings.transformed_copy and (
            any_colours or not agreement.recoloured)

    near = _judge_near_pairs(
        images, find_near_pairs(thumbnails, settings.near_copy, order), is_near, groups)
    parts = [exact, near]
    if settings.transformed_copies and len(order):
        sure = near[near["copy"]]
        known = set(zip(sure["first"], sure["second"], strict=True))
        with load_keypoints(run) as keypoints:
            parts.append(find_transformed_pairs(images, thumbnails, keypoints, order,
                                                is_transformed, known, groups))
            parts.append(find_part_pairs(images, thumbnails, keypoints, order, is_transformed,
                                         groups))
    pairs = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    ids = images.image_id.to_numpy()
    pairs["first_id"], pairs["second_id"] = ids[pairs["first"]], ids[pairs["second"]]
    pairs = pairs.astype({"points": int, "copy": bool}).round(
        {"correlation": 4, "details": 4, "overlap": 3, "colours": 1})
    # Of a pair found both ways, the surer finding.
    pairs = pairs.sort_values(["copy", "correlation", "first_id", "second_id"],
                              ascending=[False, False, True, True])
    ends = np.sort(pairs[["first", "second"]].to_numpy(), axis=1)
    return pairs[~pd.DataFrame(ends).duplicated().to_numpy()][COLUMNS].reset_index(drop=True)


def _find_exact_pairs(images: pd.DataFrame) -> pd.DataFrame:
    """Return each image whose bytes an earlier one has, with the first that has them."""
    numbers = pd.Series(range(len(images)), images.index)
    first = numbers.groupby(images.sha256).transform("min")
    copied = (first < numbers) & (images.bytes > 0)
    return pd.DataFrame({"first": first[copied].to_numpy(), "second": numbers[copied].to_numpy(),
                         "how": "exact", "copy": True, "correlation": 1.0, "details": 1.0,
                         "points": -1, "overlap": 1.0, "colours": 0.0,
                         "transform": "the same file", "inverse": "the same file"})


def _judge_near_pairs(images: pd.DataFrame, pairs: pd.DataFrame, is_copy: Callable,
                      groups: DisjointSet) -> pd.DataFrame:
    """Look at near pairs closely: a thumbnail shows neither print nor colours."""
    read = create_reader(images)
    sizes = images[["width", "height"]].fillna(1).to_numpy(float)

    def judge(first: int, second: int, correlation: float, transform: Transform) -> dict:
        transform, agreement = fit_and_compare(read(first), read(second), transform)
        return describe_pair(transform, agreement, (sizes[first], sizes[second]),
                             is_copy(correlation, agreement), correlation)

    return judge_pairs(lay_pairs(pairs, sizes), judge, groups, "comparing details").assign(
        how="near")


def group_copies(count: int, pairs: pd.DataFrame) -> np.ndarray:
    """Return a group number for each of `count` images: copies of copies share one.

    Args:
        pairs: as from `find_copies`; only rows with `copy` join.
    """
    copies = pairs[pairs["copy"]]
    edges = coo_array((np.ones(len(copies)), (copies["first"], copies["second"])),
                      shape=(count, count))
    return connected_components(edges, directed=False)[1]
