"""Windows: copies that show a part of another image, found by thumbnails.

A page of print has few keypoints that tell it from other pages, but its thumbnail does. Every
image's thumbnail is cut into windows of several sizes, and these are compared with all others as
whole thumbnails are.
"""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import DisjointSet
from tqdm import tqdm

from helpers.data.alignment import SHOWN, Transform, fit_and_compare
from helpers.data.judging import create_reader, describe_pair, judge_pairs
from helpers.data.keypoints import LEAST, KeypointFile, count_agreeing
from helpers.data.neighbours import find_neighbours, rank_pairs
from helpers.data.thumbnails import correlate, describe, lay_pairs

MOST = 10_000  # images; the windows of more would take too long
SIDES = (0.6, 0.7, 0.8, 0.9)  # of a window, as shares of the image's
STEP = 0.075  # from one window to the next, as a share of the image
CANDIDATE = 0.7  # correlation of a window from which it is looked at closely
NEIGHBOURS = 8  # candidates an image
PAIRS = 25_000  # candidates in all
PROMISING = 0.65  # correlation of the details without which no file is opened


def find_part_pairs(images: pd.DataFrame, thumbnails: np.ndarray, keypoints: KeypointFile,
                    order: np.ndarray, is_copy: Callable, groups: DisjointSet) -> pd.DataFrame:
    """Return the pairs of images of which one shows a part of the other, and near ones.

    Args and rows are those of `transforms.find_transformed_pairs`.
    """
    read = create_reader(images)
    sizes = images[["width", "height"]].fillna(1).to_numpy(float)

    def judge(first: int, second: int, _: float, transform: Transform) -> dict | None:
        transform, agreement = fit_and_compare(read(first), read(second), transform, least=0)
        if not agreement.details >= SHOWN:
            return None
        # A single edge agrees everywhere as well: some keypoints have to do so, too.
        points = count_agreeing(keypoints[first], keypoints[second], transform.matrix)
        return describe_pair(replace(transform, points=points), agreement,
                             (sizes[first], sizes[second]),
                             points >= LEAST and is_copy(agreement), agreement.details)

    windows = list_windows() if 2 <= len(order) <= MOST else []
    proposed = _choose_parts(_find_parts(thumbnails, order, windows), order, groups)
    pairs = lay_pairs(_lay_parts(proposed, thumbnails, order, windows), sizes)
    return judge_pairs(pairs, judge, groups, "comparing parts").assign(how="transformed")


def _find_parts(thumbnails: np.ndarray, order: np.ndarray, windows: list) -> pd.DataFrame:
    """Return images that look like a window of another one, likest first.

    Columns: `whole` and `part`, positions in `order`; `window`, its number; `side` of it;
    `likeness`.
    """
    found = [np.empty((0, 4))]
    plain = describe(thumbnails, order)
    for across in tqdm(sorted({(side, left) for side, left, _ in windows}), "comparing windows",
                       unit="block", mininterval=2):
        column = [n for n, window in enumerate(windows) if window[:2] == across]
        cut = [describe(thumbnails, order, *windows[number]) for number in column]
        wholes, parts, likeness, ways = find_neighbours(
            plain, cut, CANDIDATE, NEIGHBOURS, smooth=True, rows=np.arange(len(order)),
            quiet=True)
        found.append(np.c_[wholes, parts, np.array(column)[ways], likeness])
    columns = np.concatenate(found).T
    found = pd.DataFrame({"whole": columns[0].astype(int), "part": columns[1].astype(int),
                          "window": columns[2].astype(int), "likeness": columns[3]})
    found["side"] = [windows[number][0] for number in found.window]
    return found.sort_values(["likeness", "whole", "part"], ascending=[False, True, True])


def _choose_parts(found: pd.DataFrame, order: np.ndarray, groups: DisjointSet) -> pd.DataFrame:
    """Return the rows of those nearest to each image, of images that are not in one group yet."""
    # The best window of each size: at 16 x 16 the likest may have the wrong one.
    found = found[~found[["whole", "part", "side"]].duplicated()]
    best = found[~found[["whole", "part"]].duplicated()]
    whole, part, likeness = (best[name].to_numpy() for name in ("whole", "part", "likeness"))
    near = rank_pairs(whole, likeness, part, len(order)) < NEIGHBOURS
    near |= rank_pairs(part, likeness, whole, len(order)) < NEIGHBOURS
    chosen = dict.fromkeys(zip(whole[near], part[near], strict=True))
    chosen = [pair for pair in chosen if not groups.connected(*order[list(pair)])][:PAIRS]
    return found[pd.MultiIndex.from_frame(found[["whole", "part"]]).isin(chosen)]


def _lay_parts(found: pd.DataFrame, thumbnails: np.ndarray, order: np.ndarray,
               windows: list) -> pd.DataFrame:
    """Return how each part lies in its whole, by its best window, as `find_near_pairs` does."""
    rows = []
    for pair in tqdm(found.itertuples(), "laying parts", len(found), unit="pair",
                     mininterval=2):
        first, second = order[[pair.whole, pair.part]]
        side, left, top = windows[pair.window]
        thumbnail = cut_thumbnail(thumbnails[first], side, left, top)
        correlation, zoom, right, down = correlate(thumbnail, thumbnails[second], mirrored=False)
        if correlation >= PROMISING:
            scale = zoom / side
            rows.append((first, second, False, correlation, scale,
                         right - scale * left * len(thumbnail),
                         down - scale * top * len(thumbnail)))
    pairs = pd.DataFrame(rows, columns=["first", "second", "mirrored", "correlation", "zoom",
                                        "right", "down"])
    pairs = pairs.sort_values("correlation", ascending=False, kind="stable")
    return pairs[~pairs[["first", "second"]].duplicated()]


def list_windows() -> list[tuple[float, float, float]]:
    """Return side, left and top of each window, as shares of the image."""
    windows = []
    for side in SIDES:
        places = np.linspace(0, 1 - side, max(2, round((1 - side) / STEP) + 1)).tolist()
        windows += [(side, left, top) for left in places for top in places]
    return windows


def cut_thumbnail(thumbnail: np.ndarray, side: float, left: float, top: float) -> np.ndarray:
    """Return a window of a thumbnail, as large as the whole."""
    size = len(thumbnail)
    matrix = np.array([[side, 0, left * size], [0, side, top * size]])
    matrix[:, 2] += (side - 1) / 2  # from corners to the middles of pixels
    return cv2.warpAffine(thumbnail, matrix, (size, size),
                          flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                          borderMode=cv2.BORDER_REPLICATE)
