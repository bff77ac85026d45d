"""Galleries: pictures of the images themselves, for everything that an eye judges best."""

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from helpers.charts import WIDTH, create_figure, shorten, styled
from helpers.images import create_preprocessing, decode_image, undo_normalisation

THUMBNAIL = 96  # pixels
MOST_CLASSES = 30  # a taller grid could not be read


@styled
def show_classes(table: pd.DataFrame, per_class: int = 10, seed: int = 0):
    """A row of random images for every class, largest class on top."""
    names = table.label.value_counts().index[:MOST_CLASSES]
    figure, axes = create_figure(0.78 * len(names) + 0.5)
    gap = 4
    step = THUMBNAIL + gap
    canvas = np.full((step * len(names), step * per_class, 3), 255, np.uint8)
    for row, name in enumerate(names):
        members = table[table.label == name]
        chosen = members.sample(min(per_class, len(members)), random_state=seed)
        for column, path in enumerate(chosen.path):
            canvas[row * step : row * step + THUMBNAIL,
                   column * step : column * step + THUMBNAIL] = _thumbnail(path)
    axes.imshow(canvas)
    axes.set_yticks(np.arange(len(names)) * step + THUMBNAIL / 2, map(shorten, names))
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    more = table.label.nunique() - len(names)
    axes.set_title(f"Images of each class{f' ({more} smaller classes not shown)' * (more > 0)}")
    return figure


@styled
def show_preprocessing(table: pd.DataFrame, data_config: dict, count: int = 6, seed: int = 0):
    """Images as they are (top), and what the network sees of them (bottom)."""
    chosen = table.sample(min(count, len(table)), random_state=seed)
    prepare = create_preprocessing(data_config)
    figure, axes = create_figure(2 * WIDTH / count + 0.7, 2, len(chosen), squeeze=False)
    for column, (path, label) in enumerate(zip(chosen.path, chosen.label, strict=True)):
        image = decode_image(path)
        tensor = prepare(image)
        axes[0, column].imshow(np.asarray(image))
        axes[0, column].set_title(f"{shorten(label, 16)}\n{image.width} x {image.height}",
                                  fontsize=11, weight="normal")
        axes[1, column].imshow(undo_normalisation(tensor, data_config))
        axes[1, column].set_title(f"{tensor.shape[2]} x {tensor.shape[1]}", fontsize=11,
                                  weight="normal")
    for place in axes.flat:
        place.set_axis_off()
    return figure


@styled
def show_pairs(pairs: dict[frozenset[str], float], count: int = 8):
    """The first `count` pairs of paths, one image above the other, their distance on top."""
    figure, axes = create_figure(2 * WIDTH / count + 0.4, 2, count, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for column, (pair, distance) in zip(axes.T, pairs.items(), strict=False):
        column[0].set_title(f"{distance:.2f}", fontsize=11, weight="normal")
        for place, path in zip(column, sorted(pair), strict=False):
            place.imshow(_thumbnail(path))
    return figure


@styled
def show_mistakes(mistakes: pd.DataFrame, count: int = 15, columns: int = 5):
    """The first `count` mistakes as pictures: label, answer, confidence if known, and id."""
    shown = mistakes.head(count)
    rows = max(1, -(-len(shown) // columns))
    figure, axes = create_figure(2.35 * rows + 0.1, rows, columns, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for place, mistake in zip(axes.flat, shown.itertuples(), strict=False):
        place.imshow(_thumbnail(mistake.path, 2 * THUMBNAIL))
        sure = getattr(mistake, "confidence", None)
        # 99.6 % must not read as certainty.
        sure = "" if sure is None else ", >99%" if sure > 0.99 else f", {sure:.0%}"
        place.set_title(f"label {shorten(mistake.label, 16)}\n"
                        f"model {shorten(mistake.prediction, 16)}{sure}",
                        fontsize=11, weight="normal")
        place.text(0.5, -0.02, shorten(mistake.image_id), fontsize=9, ha="center", va="top",
                   color="0.3", transform=place.transAxes)
    return figure


def _thumbnail(path: str, side: int = THUMBNAIL) -> np.ndarray:
    """Return an image fitted into a white square of `side` pixels, its aspect kept."""
    image = decode_image(path)
    return np.asarray(ImageOps.pad(image, (side, side), Image.Resampling.BICUBIC, "white"))
