"""Copy pairs: images that were taken for copies of one another, or nearly, and why."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.patches import ConnectionPatch

from helpers.data.alignment import OTHER_COLOURS, lay_over, shrink
from helpers.data.copies import REFUTED
from helpers.data.images import decode_image
from helpers.data.keypoints import LEAST, Keypoints, find_keypoints
from helpers.data.transforms import propose_transform
from helpers.pictures.charts import create_figure, pick_colour, styled
from helpers.pictures.galleries import show_pairs

COLUMNS = 6
LINES = 40  # keypoints drawn, at most


def show_copies(images: pd.DataFrame, pairs: pd.DataFrame, how: str):
    """Copies found in one way, from the surest to the weakest, with what was done to them."""
    found = pairs[(pairs.how == how) & pairs["copy"]]
    chosen = found.iloc[np.unique(np.linspace(0, len(found) - 1, COLUMNS).round().astype(int))
                        if len(found) else []]
    return _show(images, chosen, chosen["transform"].tolist())


def show_borderline(images: pd.DataFrame, pairs: pd.DataFrame, how: str):
    """The weakest copies (=) and the strongest pairs that are none (≠), found in one way."""
    found = pairs[pairs.how == how].sort_values("correlation", ascending=False, kind="stable")
    half = COLUMNS // 2
    shown = pd.concat([found[found["copy"]].tail(half), found[~found["copy"]].head(half)])
    refuted = np.select([shown["copy"], shown.colours >= OTHER_COLOURS,
                         shown.points.between(0, LEAST - 1), shown.details < REFUTED],
                        ["", " other colours", " too few keypoints", " details differ"], "")
    titles = [f"{'=' if copy else '≠'} {correlation:.3f}{why}" for copy, correlation, why in zip(
        shown["copy"], shown.correlation, refuted, strict=True)]
    return _show(images, shown, titles)


def _show(images: pd.DataFrame, pairs: pd.DataFrame, titles: list[str]):
    paths = images.path.to_numpy()[pairs[["first", "second"]].to_numpy(int)]
    short = [textwrap.fill(title.replace(" degrees", "°"), 18) for title in titles]
    return show_pairs(paths.tolist(), short, COLUMNS)


@styled
def show_keypoints(images: pd.DataFrame, pairs: pd.DataFrame):
    """One transformed copy: the keypoints that agree, and one image laid over the other."""
    found = pairs[(pairs.how == "transformed") & pairs["copy"] & (pairs.points > 0)]
    if found.empty:
        return show_pairs([], [])
    pair = found.iloc[found.points.argmax()]
    pictures = [decode_image(images.path.iloc[pair[which]]) for which in ("first", "second")]
    points = [Keypoints.unpack(*find_keypoints(picture)) for picture in pictures]
    transform, places = max((propose_transform(*points, mirrored) for mirrored in (False, True)),
                            key=lambda answer: answer[0].points)
    first, second = map(shrink, pictures)
    over = lay_over(first, second, transform)
    first = first[:, ::-1] if transform.mirrored else first
    figure, axes = create_figure(3.0, 1, 3)
    for place, picture, title in zip(axes, (first, second, over), (
            "the first" + (", mirrored" if transform.mirrored else ""), "the second",
            "the first laid over the second"), strict=True):
        place.imshow(picture)
        place.set_title(title, fontsize=11, weight="normal")
        place.set_axis_off()
    for number in np.linspace(0, len(places[0]) - 1, min(LINES, len(places[0]))).astype(int):
        ends = [side[number] * max(picture.shape) / max(found.size) for side, picture, found
                in zip(places, (first, second), points, strict=True)]
        figure.add_artist(ConnectionPatch(*ends, "data", "data", axesA=axes[0], axesB=axes[1],
                                          color=pick_colour(number % 6), linewidth=0.8))
    return figure
