"""Charts: numbers drawn, in one style; each function returns a matplotlib Figure."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from helpers.files import write_whole
from helpers.pictures.fonts import list_families, tell_missing_signs
from helpers.run import Run

# Decorates what draws: texts and colours take the style when they are made.
styled = style.context([Path(__file__).with_name("suite.mplstyle"),
                        {"font.family": list_families()}])
WIDTH = 9.0  # inches; 900 pixels at the style's resolution
MARKERS = "osD^vP"  # with ten colours, 60 classes can be told apart


def create_figure(height: float, rows: int = 1, columns: int = 1, *, width: float = WIDTH,
                  **options):
    """Return a Figure and its axes; no pyplot, so that nothing is shown twice or leaks."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, **options)


def save_figure(run: Run, figure: Figure, name: str):
    """Write a figure to the run's figures/`name` and return that picture to show.

    Pictures of photos are JPEG, a fifth of their size as PNG; charts are PNG, which keeps lines
    sharp.
    """
    from IPython.display import Image

    photos = any(image.get_array().ndim == 3 for axes in figure.axes for image in axes.images)
    path = run.folder / "figures" / f"{name}.{'jpg' if photos else 'png'}"
    with write_whole(path) as temporary, tell_missing_signs(path.name):
        figure.savefig(temporary)
    return Image(filename=str(path))


@styled
def plot_class_counts(counts: pd.Series):
    """Bars of images per class, largest on top, the count written beside each bar."""
    figure, axes = create_figure(max(2.5, 0.32 * len(counts) + 1))
    bars = axes.barh(range(len(counts)), counts.to_numpy()[::-1])
    axes.set_yticks(range(len(counts)), map(shorten, counts.index[::-1]))
    axes.bar_label(bars, padding=4)
    axes.set(xlabel="training images", title="Images per class")
    axes.margins(x=0.08, y=0.02)
    return figure


@styled
def plot_sizes(images: pd.DataFrame):
    """Width against height of the readable images, and the histogram of their file sizes."""
    figure, (left, right) = create_figure(3.6, 1, 2)
    sizes = images.groupby(["width", "height"]).size().reset_index(name="images")
    left.scatter(sizes.width.astype(float), sizes.height.astype(float),
                 s=600 * sizes.images / sizes.images.max(), alpha=0.5)
    if len(sizes) <= 5:
        for size in sizes.itertuples():
            left.annotate(size.images, (size.width, size.height), (-18, 0), ha="right",
                          va="center", textcoords="offset points")
    largest = 1.25 * float(max(sizes.width.max(), sizes.height.max()))
    left.plot([0, largest], [0, largest], color="0.7", zorder=0)
    left.set(xlabel="width (pixels)", ylabel="height (pixels)", xlim=(0, largest),
             ylim=(0, largest), title="Sizes (area: images)", aspect="equal")
    right.hist(images.bytes / 1024, bins=30)
    right.set(xlabel="file size (KiB)", ylabel="images", title="File sizes")
    return figure


@styled
def plot_class_shares(table: pd.DataFrame):
    """Share of each class in every fold and in the hold-out: equal heights, equal shares."""
    named = table[table.split.isin(["train", "holdout"])]
    place = named.fold.map("fold {}".format).where(named.split == "train", "hold-out")
    shares = pd.crosstab(place, named.label, normalize="index")
    shares = shares[named.label.value_counts().index]
    figure, axes = create_figure(max(3.0, 0.36 * len(shares) + 1.6))
    left = np.zeros(len(shares))
    for position, values in enumerate(shares.to_numpy().T):
        axes.barh(shares.index, values, left=left, color=pick_colour(position), edgecolor="white")
        left += values
    axes.invert_yaxis()
    if len(shares.columns) <= 40:
        write_legend(axes, axes.containers, map(shorten, shares), fontsize=10,
                      ncols=1 + len(shares.columns) // 16)
    axes.set(xlabel="share of images", xlim=(0, 1), title="The same classes in every fold")
    return figure


@styled
def plot_feature_statistics(train: np.ndarray, test: np.ndarray):
    """Histogram of every feature's mean, and of every image's length, train against test."""
    figure, (left, right) = create_figure(3.4, 1, 2)
    sets = {name: array for name, array in (("train", train), ("test", test)) if len(array)}
    for axes, measure in ((left, lambda array: array.mean(axis=0)),
                          (right, lambda array: np.linalg.norm(array, axis=1))):
        values = [measure(array) for array in sets.values()]
        joined = np.concatenate(values).astype(np.float64)
        least = 1e-3 * max(float(np.abs(joined).max()), 1e-6)  # all alike: a bar needs a width
        middle, reach = (joined.min() + joined.max()) / 2, max(np.ptp(joined), least) / 2
        bins = np.linspace(middle - reach, middle + reach, 41)
        for name, numbers in zip(sets, values, strict=True):
            axes.hist(numbers, bins, density=True, alpha=0.55, label=name)
        axes.set_yticks([])
        axes.xaxis.set_major_formatter("{x:.4g}")
    left.set(xlabel="mean of a feature over the images", ylabel="share of features",
             title="Features")
    right.set(xlabel="length of an image's feature vector", ylabel="share of images",
              title="Images")
    right.legend()
    return figure


@styled
def plot_choices(choices: pd.DataFrame):
    """The inner fold's score of every candidate, a line a fold, the chosen one marked.

    Args:
        choices: from `tabulate_choices`.
    """
    score = "macro F1" if "macro F1" in choices else "log loss"
    settings = choices.drop(columns=[score, "chosen", "fold", "adjustment"], errors="ignore")
    if list(settings) == ["C"]:
        places, label = choices["C"], "C (right: weaker penalty)"
    else:
        texts = settings.apply(
            lambda row: ", ".join(f"{name} {value:g}" for name, value in row.items()), axis=1)
        (places, names), label = pd.factorize(texts), ""
    figure, axes = create_figure(3.6 if label else 5.0)
    for fold, rows in choices.assign(place=places).groupby("fold"):
        line, = axes.plot(rows.place, rows[score], label=f"fold {fold}", alpha=0.8)
        best = rows[rows.chosen]
        axes.plot(best.place, best[score], "o", markersize=9, color=line.get_color())
    if label:
        axes.set(xscale="log", xlabel=label)
    else:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=9)
    axes.set(ylabel=f"{score}, inner fold", title="What each fold chose inside itself")
    axes.grid(axis="y")
    if choices.fold.nunique() <= 10:
        write_legend(axes)
    return figure


@styled
def plot_projection(points: pd.DataFrame, followed: str | None = None):
    """t-SNE points coloured by class; where there are many, each one's name is at its median.

    Args:
        followed: the id of an image that gets a star.
    """
    figure, axes = create_figure(6.6)
    names = points.label.value_counts().index
    for position, name in enumerate(names):
        rows = points[points.label == name]
        axes.scatter(rows.x, rows.y, s=max(6, min(26, 30_000 / len(points))), alpha=0.7,
                     color=pick_colour(position), marker=_marker(position), linewidth=0)
        if len(names) > 10:  # too many for a legend alone
            axes.text(rows.x.median(), rows.y.median(), shorten(name), ha="center", va="center",
                      fontsize=11 if len(names) <= 40 else 7, weight="bold",
                      bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1})
    classes = list(axes.collections)
    star = points[points.image_id == followed] if followed else points[:0]
    axes.scatter(star.x, star.y, s=260, marker="*", color="black", edgecolor="white", zorder=4)
    if len(names) <= 40:
        write_legend(axes, classes, map(shorten, names), markerscale=1.5,
                      ncols=1 + len(names) // 21)
    axes.set(xticks=[], yticks=[], title="t-SNE of the features, coloured by class")
    axes.spines[:].set_visible(False)
    return figure


@styled
def plot_perplexities(points: pd.DataFrame, places: dict[float, np.ndarray]):
    """The same images on maps of several perplexities, coloured by class.

    Args:
        points: `label`, a row an image; `places`: perplexity -> (images, 2).
    """
    figure, axes = create_figure(3.3, 1, len(places), squeeze=False)
    for place, (perplexity, found) in zip(axes[0], places.items(), strict=True):
        for position, name in enumerate(points.label.value_counts().index):
            x, y = found[(points.label == name).to_numpy()].T
            place.scatter(x, y, s=6, alpha=0.7, linewidth=0, color=pick_colour(position),
                          marker=_marker(position))
        place.set(xticks=[], yticks=[], title=f"perplexity {perplexity:g}")
        place.spines[:].set_visible(False)
    return figure


def draw_intervals(axes, value, low, high, places, upright: bool = False, **options) -> None:
    """Draw intervals with a point at their value, across or upright, NaN as nothing."""
    # Percentile intervals run low where classes are tiny, and can miss the value itself.
    errors = np.clip([value - low, high - value], 0, None)
    given = {"fmt": "o", "capsize": 4} | options
    if upright:
        axes.errorbar(places, value, yerr=errors, **given)
    else:
        axes.errorbar(value, places, xerr=errors, **given)


def shorten(name: str, length: int = 24) -> str:
    """Return a name that fits beside an axis."""
    return name if len(name) <= length else f"{name[: length - 9]}…{name[-8:]}"


def write_legend(axes, *handles_and_names, **options) -> None:
    """Write the legend to the right of the axes, where it hides nothing."""
    axes.legend(*handles_and_names, loc="center left", bbox_to_anchor=(1, 0.5), **options)


def pick_colour(position: int) -> str:
    """Return one of the style's colours; they begin anew after the last one."""
    return to_hex(f"C{position}")


def _marker(position: int) -> str:
    cycle = len(mpl.rcParams["axes.prop_cycle"])
    return MARKERS[position // cycle % len(MARKERS)]
