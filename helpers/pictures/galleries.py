"""Galleries: pictures of the images themselves, for everything that an eye judges best."""

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from helpers.data.images import UnreadableImageError, decode_image
from helpers.network.preprocessing import create_preprocessing, undo_normalisation
from helpers.pictures.charts import WIDTH, create_figure, shorten, styled

THUMBNAIL = 96  # pixels
MOST_CLASSES = 30  # a taller grid could not be read


def show_classes(table: pd.DataFrame, per_class: int = 10, seed: int = 0):
    """A row of random images for every class, largest class on top."""
    rows = {}
    for name in table.label.value_counts().index[:MOST_CLASSES]:
        paths = table.path[table.label == name]
        rows[shorten(name)] = paths.sample(min(per_class, len(paths)), random_state=seed).tolist()
    more = table.label.nunique() - MOST_CLASSES
    return _show_rows(rows, per_class, "Images of each class" + (
        f" ({more} smaller classes not shown)" if more > 0 else ""))


@styled
def _show_rows(rows: dict[str, list[str]], columns: int, title: str, size: int = 12,
               names: list[str] | None = None):
    """Thumbnails of paths in rows, each row named at its left, by its key or by `names`."""
    figure, axes = create_figure(0.79 * len(rows) + 0.5)
    step = THUMBNAIL + 4
    canvas = np.full((step * len(rows), step * columns, 3), 255, np.uint8)
    for row, paths in enumerate(rows.values()):
        for column, path in enumerate(paths[:columns]):
            top, left = row * step, column * step
            canvas[top : top + THUMBNAIL, left : left + THUMBNAIL] = _thumbnail(path)
    axes.imshow(canvas)
    axes.set(xticks=[], title=title)
    axes.set_yticks(np.arange(len(rows)) * step + THUMBNAIL / 2, names or rows, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@styled
def show_preprocessing(table: pd.DataFrame, data_config: dict, count: int = 6, seed: int = 0):
    """Images as they are (top), and what the network sees of them (bottom)."""
    chosen = table.sample(min(count, len(table)), random_state=seed)
    prepare = create_preprocessing(data_config)
    figure, axes = _create_grid(2 * WIDTH / count + 0.7, 2, len(chosen))
    for (above, below), path, label in zip(axes.T, chosen.path, chosen.label, strict=True):
        image = decode_image(path)
        tensor = prepare(image)
        above.imshow(image)
        _write_title(above, f"{shorten(label, 16)}\n{image.width} x {image.height}")
        below.imshow(undo_normalisation(tensor, data_config))
        _write_title(below, f"{tensor.shape[2]} x {tensor.shape[1]}")
    return figure


@styled
def show_pairs(paths: list[tuple[str, str]], titles: list[str], count: int = 8):
    """The first `count` pairs of paths, one image above the other, a title on top of each."""
    if not paths:
        return _write_sentence("no pair comes near")
    figure, axes = _create_grid(2 * WIDTH / count + 0.5, 2, count)
    for column, pair, title in zip(axes.T, paths, titles, strict=False):
        _write_title(column[0], title)
        for place, path in zip(column, pair, strict=True):
            place.imshow(_thumbnail(path))
    return figure


@styled
def show_photos(paths: list[str], titles: list[str]):
    """Photos side by side, at most eight, a title of one or two lines above each."""
    paths, count = paths[:8], max(4, min(8, len(paths)))
    figure, axes = _create_grid(WIDTH / count + 0.6, 1, count)
    for place, path, title in zip(axes.flat, paths, titles, strict=False):
        place.imshow(_thumbnail(path, 2 * THUMBNAIL))
        place.set_title(title, fontsize=10 if count < 7 else 9, weight="normal")
    return figure


@styled
def show_feature_maps(path: str, early, late, count: int = 7):
    """A photo, and below each other the strongest maps of an early and of a late block.

    Args:
        early, late: (channels, H, W) tensors of that photo.
    """
    figure, axes = _create_grid(2 * WIDTH / (count + 1) + 0.8, 2, count + 1)
    axes[0, 0].imshow(_thumbnail(path, 2 * THUMBNAIL))
    for row, maps, name in ((axes[0], early, "early"), (axes[1], late, "late")):
        strongest = maps.flatten(1).std(1).argsort(descending=True)[:count]
        for place, channel in zip(row[1:], strongest.tolist(), strict=False):
            place.imshow(maps[channel].numpy(), cmap="viridis")
        _write_title(row[0], " ")  # room for what reaches over several maps
        row[1].text(0, 1.06, f"{name} block: {len(maps)} maps of "
                    f"{maps.shape[2]} x {maps.shape[1]}", fontsize=11,
                    transform=row[1].transAxes, in_layout=False)
    return figure


def show_findings(findings: pd.DataFrame, images: pd.DataFrame, per_check: int = 8):
    """A row of images for every check, worst first, copies after what they are copies of.

    What cannot be read is left out. Of checks other than copies an image is shown once, in the
    row of the first that found it.
    """
    paths = images.set_index("image_id").path
    shown = findings[~findings.image_id.isin(findings.image_id[findings.check == "unreadable"])]
    counts, rows = shown.check.value_counts(sort=False), {}
    again = shown.duplicated("image_id") & (shown.copy_of == "")
    for name, found in shown[~again].groupby("check", sort=False):
        worst = found.sort_values("score", kind="stable")
        if worst.copy_of.any():
            pairs = np.column_stack([paths[worst.copy_of], worst.path])
            rows[f"{name}: {counts[name]}\n(original, copy)"] = pairs.ravel().tolist()
        else:
            rows[f"{name}: {counts[name]}"] = worst.path.tolist()
    if not rows:
        return _write_sentence("the checks found nothing to show")
    return _show_rows(rows, per_check, "What the checks found", size=10)


@styled
def show_normalisations(path: str, configs: dict[str, dict]):
    """One image under several normalisations: its channels' values as histograms."""
    figure, axes = create_figure(2.6, 1, len(configs) + 1)
    image = decode_image(path)
    axes[0].imshow(image)
    axes[0].set_axis_off()
    for place, (name, config) in zip(axes[1:], configs.items(), strict=True):
        values = create_preprocessing(config)(image).numpy().reshape(3, -1)
        bins = np.histogram_bin_edges(values, 30)
        for channel, colour in zip(values, ("#bd1f01", "#4f9e2f", "#3f90da"), strict=True):
            place.hist(channel, bins, histtype="step", color=colour, linewidth=1.5)
        _write_title(place, name)
        place.set_xlabel(f"{values.min():.1f} to {values.max():.1f}", fontsize=10)
        place.set_yticks([])
    return figure


@styled
def show_augmentations(table: pd.DataFrame, columns: int = 8, seed: int = 0):
    """One image a level: as it is, then what LIGHT, MEDIUM and HEAVY make of it."""
    from helpers.network.augmentation import LEVELS, create_level

    original = _thumbnail(table.path.sample(1, random_state=seed).iloc[0], 2 * THUMBNAIL)
    figure, axes = create_figure(3.6, 3, columns, squeeze=False)
    for row, level in zip(axes, LEVELS, strict=True):
        change = create_level(level, seed=seed)
        for column, place in enumerate(row):
            place.imshow(change(image=original)["image"] if column else original)
            place.set(xticks=[], yticks=[])
            place.spines[:].set_visible(False)
        row[0].set_ylabel(level, fontsize=11)
    _write_title(axes[0, 0], "original")
    return figure


@styled
def show_mistakes(mistakes: pd.DataFrame, count: int = 15, columns: int = 5,
                  answer: str = "model"):
    """The first `count` mistakes as pictures: label, who answered what, confidence, and id."""
    shown = mistakes.head(count)
    if shown.empty:
        return _write_sentence("not one mistake")
    rows = -(-len(shown) // columns)
    figure, axes = _create_grid(2.35 * rows + 0.1, rows, columns)
    for place, mistake in zip(axes.flat, shown.itertuples(), strict=False):
        place.imshow(_thumbnail(mistake.path, 2 * THUMBNAIL))
        sure = getattr(mistake, "confidence", None)
        # 99.6 % must not read as certainty.
        sure = "" if sure is None else ", >99%" if sure > 0.99 else f", {sure:.0%}"
        other = getattr(mistake, "runner_up", None)
        given = (f"{shorten(mistake.prediction, 16)}{sure}" if other is None
                 else f"{shorten(mistake.prediction, 10)} or {shorten(other, 10)}")
        _write_title(place, f"label {shorten(mistake.label, 16)}\n"
                            f"{answer + ' ' if other is None else ''}{given}")
        place.text(0.5, -0.02, shorten(mistake.image_id), fontsize=9, ha="center", va="top",
                   color="0.3", transform=place.transAxes)
    return figure


@styled
def show_explanations(explanations: list, columns: int = 2):
    """Photos as the network saw them, and what spoke for its prediction and for the label.

    Args:
        explanations: from `explain_answers`, at most eight are shown.
    """
    shown = explanations[:8]
    if not shown:
        return _write_sentence("nothing to explain")
    rows = -(-len(shown) // columns)
    figure, axes = _create_grid(1.95 * rows + 0.3, rows, 3 * columns)
    for number, explanation in enumerate(shown):
        row, column = divmod(number, columns)
        places = axes[row, 3 * column : 3 * column + 3]
        places[0].imshow(explanation.image)
        places[0].set_title(f"label {shorten(explanation.row.label, 14)}", fontsize=10,
                            weight="normal")
        titles = ("prediction:", "label:") if len(explanation.maps) > 1 else ("both:",)
        for place, said, (name, heat) in zip(places[1:], titles, explanation.maps.items(),
                                             strict=False):
            place.imshow(light_up(explanation.image, heat))
            place.contour(heat, [0.5], colors=["#ffa90e"], linewidths=1)
            place.set_title(f"{said} {shorten(name, 12)}", fontsize=9, weight="normal")
    return figure


def light_up(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return a photo as if a lamp shone on what counted.

    Args:
        image: (H, W, 3) from 0 to 1; `heat`: (H, W) from 0 to 1.
    """
    return image * (0.2 + 0.8 * heat[:, :, None])


def show_confusions(table: pd.DataFrame, pairs: pd.DataFrame, count: int = 8):
    """A row of photos for each pair of classes that are mixed up.

    Args:
        table: of answers; `pairs`: from `list_confusions`.
    """
    rows, names = {}, []
    for pair in pairs.itertuples():
        wrong = table[(table.label == pair.label) & (table.prediction == pair.prediction)]
        sure = wrong[f"p_{pair.prediction}"].sort_values(ascending=False).index
        rows[pair.label, pair.prediction] = wrong.path.loc[sure].tolist()
        names.append(f"{shorten(pair.label, 16)}\n"
                     f"→ {shorten(pair.prediction, 16)} ({pair.images})")
    if not rows:
        return _write_sentence("not one mistake")
    return _show_rows(rows, count, f"Label → prediction (images), the first {count}",
                      size=10, names=names)


def show_ends(table: pd.DataFrame, cue: pd.Series, count: int = 8):
    """The photos with the smallest and the largest value of a cue, or of its commonest values.

    Args:
        table: `path`, a row an image; `cue`: its values, from `describe_cues`.
    """
    paths = table.path.reset_index(drop=True)
    cue = cue.reset_index(drop=True)
    if pd.api.types.is_numeric_dtype(cue):
        order = cue.dropna().sort_values(kind="stable").index
        rows = {f"lowest\n{cue.name}": paths[order[:count]].tolist(),
                f"highest\n{cue.name}": paths[order[::-1][:count]].tolist()}
    else:
        rows = {f"{cue.name}\n{shorten(str(value), 16)}": paths[cue == value].head(count).tolist()
                for value in cue.value_counts().index[:3]}
    return _show_rows(rows, count, f"Both ends of {cue.name}", size=10)


def _create_grid(height: float, rows: int, columns: int):
    """Return a figure and rows x columns places for pictures, which show no axes."""
    figure, axes = create_figure(height, rows, columns, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    return figure, axes


def _write_title(place, text: str) -> None:
    place.set_title(text, fontsize=11, weight="normal")


@styled
def _write_sentence(sentence: str):
    """A picture of a sentence, where there are no images to show."""
    figure, axes = create_figure(0.8)
    axes.text(0, 0.5, sentence, va="center")
    axes.set_axis_off()
    return figure


def _thumbnail(path: str, side: int = THUMBNAIL) -> np.ndarray:
    """Return an image fitted into a white square of `side` pixels, its aspect kept.

    One that is no longer there is a grey square: a picture of many should not fail for one.
    """
    try:
        image = decode_image(path)
    except UnreadableImageError:
        return np.full((side, side, 3), 210, np.uint8)
    return np.asarray(ImageOps.pad(image, (side, side), Image.Resampling.BICUBIC, "white"))
