"""Results drawn: scores, confusion, classes, calibration and shortcuts, each a Figure (06)."""

import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from helpers.evaluation.mistakes import order_classes
from helpers.evaluation.scores import LOWER_IS_BETTER
from helpers.pictures.charts import (
    WIDTH,
    create_figure,
    draw_intervals,
    pick_colour,
    shorten,
    styled,
    write_legend,
)

MOST_CLASSES = 40  # with a line each; of more, the weakest are drawn
MOST_PARTS = 24  # of a picture of cues


@styled
def plot_scores(scores: dict[str, pd.DataFrame]):
    """Every score with its interval, a colour a set of images; losses have their own panel."""
    names = list(next(iter(scores.values())).index)
    panels = {"higher is better": [n for n in names if n not in LOWER_IS_BETTER],
              "lower is better": [n for n in names if n in LOWER_IS_BETTER]}
    panels = {title: rows for title, rows in panels.items() if rows}
    tallest = max(map(len, panels.values()))
    figure, axes = create_figure(0.36 * tallest + 1.3, 1, len(panels), squeeze=False)
    for place, (title, rows) in zip(axes[0], panels.items(), strict=True):
        for offset, (name, table) in enumerate(scores.items()):
            table = table.reindex(rows)
            heights = np.arange(len(rows)) + 0.18 * (offset - (len(scores) - 1) / 2)
            draw_intervals(place, table.value, table.low, table.high, heights, label=name)
        place.set_yticks(range(len(rows)), rows)
        place.grid(axis="x")
        place.set(xlabel="score, 95% interval", title=title, ylim=(len(rows) - 0.4, -0.6))
    if len(scores) > 1:
        write_legend(axes[0][-1])
    return figure


@styled
def plot_confusion(table: pd.DataFrame):
    """The confusion matrix, classes that are mixed side by side.

    Colour is the share of the true class, numbers are images.

    Args:
        table: from `tabulate_confusion`.
    """
    order = order_classes(table.to_numpy())
    confusion, classes = table.to_numpy()[np.ix_(order, order)], list(table.columns[order])
    count = len(classes)
    side = min(13.0, max(5.0, 0.42 * count + 2.2))
    figure, axes = create_figure(side - 0.5, width=side)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    # A few per cent should still be seen.
    picture = axes.imshow(np.sqrt(shares), vmin=0, vmax=1)
    if count <= 40:
        for row, column in np.argwhere(confusion > 0):
            axes.text(column, row, confusion[row, column], ha="center", va="center",
                      fontsize=10 if count <= 20 else 6,
                      color="white" if shares[row, column] > 0.3 else "black")
    names, size = [shorten(name) for name in classes], None if count <= 30 else 6
    axes.set_xticks(range(count), names, rotation=90, fontsize=size)
    axes.set_yticks(range(count), names, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion (counts, out-of-fold)")
    axes.spines[:].set_visible(False)
    ticks = np.array([0, 0.05, 0.2, 0.5, 1])
    bar = figure.colorbar(picture, ax=axes, shrink=0.7, label="share of the true class",
                          ticks=np.sqrt(ticks))
    bar.ax.set_yticklabels([f"{tick:.0%}" for tick in ticks])
    return figure


@styled
def plot_class_scores(classes: pd.DataFrame):
    """F1 of each class with its interval, worst on top, its number of images beside it.

    Of more than 40 classes the weakest are drawn.
    """
    shown = classes[classes.images > 0].sort_values("F1").head(MOST_CLASSES)[::-1]
    figure, axes = create_figure(max(2.5, 0.34 * len(shown) + 1.2))
    labels = [f"{shorten(name)} ({count})" for name, count in shown.images.items()]
    draw_intervals(axes, shown.F1, shown.low, shown.high, range(len(shown)), capsize=3)
    axes.set_yticks(range(len(shown)), labels)
    axes.grid(axis="x")
    more = (classes.images > 0).sum() - len(shown)
    axes.set(xlabel="F1, 95% interval", xlim=(0, 1.02), title="F1 per class (images)"
             + (f", {more} better ones not shown" if more > 0 else ""))
    return figure


@styled
def plot_reliability(tables: dict[str, pd.DataFrame]):
    """How often the model is right against how sure it is, a panel a table.

    Args:
        tables: title -> from `measure_reliability`.
    """
    figure, axes = create_figure(4.2, 1, len(tables), squeeze=False, sharey=True)
    for place, (title, table) in zip(axes[0], tables.items(), strict=True):
        place.plot([0, 1], [0, 1], color="0.7", linewidth=1.5)
        place.text(0.42, 0.36, "calibrated", color="0.45", fontsize=10, rotation=45,
                   rotation_mode="anchor", transform_rotates_text=True)
        draw_intervals(place, table.accuracy, table.low, table.high, table.confidence,
                       upright=True)
        place.set(xlabel="confidence", title=title, xlim=(0, 1.03), ylim=(0, 1.03))
        place.grid()
    axes[0][0].set_ylabel("accuracy, 95% interval")
    return figure


@styled
def plot_risk(curve: pd.DataFrame, found: dict):
    """The share of wrong answers against the share of photos answered, and the wished accuracy.

    Args:
        curve: from `trace_risk`; `found`: from `abstain`.
    """
    figure, axes = create_figure(3.6)
    axes.plot(curve.coverage, curve.risk, drawstyle="steps-post")
    axes.axhline(1 - found["wished"], color="0.5", linestyle="--", linewidth=1.5,
                 label=f"target: {1 - found['wished']:.0%} errors")
    if found["accuracy"] is not None:
        errors = np.clip([[found["high"] - found["accuracy"]],
                          [found["accuracy"] - found["low"]]], 0, None)
        axes.errorbar([found["answered"]], [1 - found["accuracy"]], errors, fmt="o", capsize=4,
                      color=pick_colour(2), label="threshold from the other folds")
    axes.set(xlabel="coverage: share of the photos answered", ylabel="error rate of those",
             title="Risk-coverage curve", xlim=(0, 1.01), ylim=(0, None))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.grid()
    axes.legend(loc="upper left")
    return figure


@styled
def plot_shortcuts(cues: pd.DataFrame):
    """What each cue alone tells of the classes, and how much lower accuracy is where it misleads.

    Args:
        cues: from `find_shortcuts`.
    """
    rows = cues.head(MOST_PARTS)[::-1]
    figure, (left, right) = create_figure(0.36 * len(rows) + 1.6, 1, 2, sharey=True)
    places, colours = np.arange(len(rows)), np.where(rows.verdict != "no", "#d55e00",
                                                        pick_colour(0))
    for place, row, colour in zip(places, rows.itertuples(), colours, strict=True):
        draw_intervals(left, *(np.array([v]) for v in (row.told, row.told_low, row.told_high)),
                       [place], color=colour)
        draw_intervals(right, *(100 * np.array([v]) for v in (row.fall, row.low, row.high)),
                       [place], color=colour)
    left.axvline(rows.chance.max(), color="0.4", linestyle="--", linewidth=1.5)
    left.text(rows.chance.max(), len(rows) - 0.45, " chance", color="0.4", fontsize=10)
    left.set_yticks(places, map(shorten, rows.cue))
    left.set(xlabel="balanced accuracy of the cue alone", xlim=(0, 1),
             ylim=(-0.6, len(rows) - 0.2), title="Class predicted from the cue")
    right.axvline(0, color="0.4", linewidth=1)
    right.set(xlabel="drop, percentage points", title="Drop where the cue is wrong")
    if (rows.verdict != "no").any():
        right.plot([], [], "o", color="#d55e00", label="possible shortcut")
        figure.legend(loc="outside lower center", fontsize=10)
    for axes in (left, right):
        axes.grid(axis="x")
    return figure


@styled
def plot_parts(parts: pd.DataFrame, names: list[str], overall: float):
    """Accuracy by the values of some cues, a panel a cue, images beside each value.

    Args:
        parts: from `score_parts`; `overall`: the accuracy of all images, a line.
        names: of cues, at most three are drawn.
    """
    names = [name for name in names if (parts.cue == name).sum() > 1][:3]
    if not names:
        figure, axes = create_figure(0.8)
        axes.text(0, 0.5, "no cue differs between the images", va="center")
        axes.set_axis_off()
        return figure
    tallest = max((parts.cue == name).sum() for name in names)
    figure, axes = create_figure(0.34 * min(tallest, MOST_PARTS) + 1.6, 1, len(names),
                                 squeeze=False, sharex=True, width=max(WIDTH, 4.2 * len(names)))
    for place, name in zip(axes[0], names, strict=True):
        rows = parts[parts.cue == name].head(MOST_PARTS)[::-1]
        draw_intervals(place, rows.accuracy, rows.low, rows.high, range(len(rows)))
        place.set_yticks(range(len(rows)), [f"{shorten(part)} ({images})" for part, images
                                            in zip(rows.part, rows.images, strict=True)],
                         fontsize=10)
        place.axvline(overall, color="0.4", linestyle="--", linewidth=1.5)
        place.set(title=name, xlabel="accuracy, 95% interval")
        place.grid(axis="x")
    figure.suptitle(f"Accuracy by cue (images in each part); dashed: all, {overall:.3f}",
                    fontsize=12)
    return figure
