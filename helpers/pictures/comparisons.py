"""Comparisons drawn: backbones, baselines, learning curves, heads and remedies (04, 07, 08)."""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from helpers.evaluation.scores import LOWER_IS_BETTER
from helpers.pictures.charts import (
    create_figure,
    draw_intervals,
    pick_colour,
    shorten,
    styled,
)

SCORES = ("macro F1", "balanced accuracy", "accuracy", "log loss")  # of the picture of heads
BETTER, WORSE, UNSEEN = "#0072b2", "#d55e00", "0.55"  # as told apart by the colour-blind
REACH = 3  # times the usual interval is drawn; what lies outside gets an arrow
SHADED = 20  # points of F1 of the darkest colours


@styled
def plot_backbones(table: pd.DataFrame):
    """Score with its interval, and speed, a line a backbone, best on top; hollow: random weights.

    Args:
        table: from `compare_backbones`; rows without a score are left out.
    """
    rows = table.dropna(subset="macro F1")[::-1]
    figure, (left, right) = create_figure(0.36 * len(rows) + 1.5, 1, 2, sharey=True)
    places, trained = np.arange(len(rows)), (rows.weights != "random").to_numpy()
    left.hlines(places, rows.low, rows.high, color=pick_colour(0), linewidth=2)
    left.scatter(rows["macro F1"], places, s=55, zorder=3, edgecolor=pick_colour(0), linewidth=2,
                 color=np.where(trained, pick_colour(0), "white"))
    left.set_yticks(places, map(shorten, rows.index))
    left.set(xlabel="macro F1, out-of-fold, 95 % interval", title="Score")
    left.grid(axis="x")
    bars = right.barh(places, rows.images_per_second, height=0.55, color=pick_colour(3))
    right.bar_label(bars, [f"{rate:,.0f}" for rate in rows.images_per_second], padding=4)
    right.set(xlabel="images a second, decoding included", title="Speed")
    right.margins(x=0.15)
    return figure


@styled
def plot_learning_curve(curve: pd.DataFrame):
    """Out-of-fold macro F1 with its interval against the images that were learnt from."""
    figure, axes = create_figure(3.2)
    draw_intervals(axes, curve.value, curve.low, curve.high, curve.images, upright=True,
                   fmt="o-")
    axes.set_xticks(curve.images)
    axes.set(xlabel="images learnt from in each fold", ylabel="macro F1, out-of-fold",
             title="Would more labelled images help?", xlim=(0, None))
    axes.grid(axis="y")
    return figure


@styled
def plot_baselines(table: pd.DataFrame):
    """Macro F1 of each baseline with its interval, in the table's order.

    Args:
        table: from `tabulate_baselines`.
    """
    figure, axes = create_figure(0.45 * len(table) + 1.2)
    value, low, high = (table[f"macro F1 {key}"] for key in ("value", "low", "high"))
    draw_intervals(axes, value, low, high, range(len(table)))
    axes.set_yticks(range(len(table)), table.index)
    axes.grid(axis="x")
    axes.set(xlabel="macro F1, out-of-fold, 95 % interval", title="The same head and folds",
             xlim=(0, 1), ylim=(len(table) - 0.5, -0.5))
    return figure


@styled
def plot_differences(table: pd.DataFrame):
    """Each candidate's difference from the baseline with its interval, a column a score.

    Args:
        table: from `tabulate_heads`.
    """
    names = table.candidate.unique()
    figure, panels = create_figure(0.34 * len(names) + 1.9, 1, len(SCORES), sharey=True)
    for axes, score in zip(panels, SCORES, strict=True):
        rows = table[table.score == score].set_index("candidate").loc[names]
        scale, sign = (1, -1) if score in LOWER_IS_BETTER else (100, 1)
        low, high = _choose_range(scale * rows[["low", "high"]].iloc[1:])
        for place, row in enumerate(rows.iloc[1:].itertuples(), 1):
            ahead = sign if row.low > 0 else -sign if row.high < 0 else 0
            colour = {1: BETTER, -1: WORSE, 0: UNSEEN}[ahead]
            axes.hlines(place, scale * row.low, scale * row.high, color=colour, linewidth=2)
            if not low <= scale * row.difference <= high:
                aside, edge = (-1, high) if row.difference > 0 else (1, low)
                axes.annotate(f"{scale * row.difference:+.2g}", (edge, place), (30 * aside, 0),
                              textcoords="offset points", ha="center", va="center", fontsize=9,
                              color=colour, bbox={"color": "white", "pad": 1},
                              arrowprops={"arrowstyle": "->", "color": colour})
                continue
            axes.plot(scale * row.difference, place, "o", color=colour, markersize=5,
                      markerfacecolor=colour if row.p_holm < 0.05 else "white")
            for value in rows.loc[row.Index].filter(like="seed "):
                axes.plot(scale * value, place, "|", color="0.3", markersize=7)
        axes.axvline(0, color="0.3", linewidth=1, zorder=0)
        axes.plot(0, 0, "D", color="0.3", markersize=6)
        if low < high:
            margin = 0.05 * (high - low)
            axes.set_xlim(min(low, 0) - margin, max(high, 0) + margin)
        axes.set_title(score, loc="center", fontsize=11)
        axes.set_xlabel("points" if scale == 100 else "left is better")
        axes.locator_params(axis="x", nbins=5)
        axes.tick_params(axis="x", labelsize=9)
        axes.grid(axis="x")
    first = names[0] if names[0] == "baseline" else f"{names[0]} (baseline)"
    panels[0].set_yticks(range(len(names)), [first, *names[1:]])
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    shown = {"better": BETTER, "worse": WORSE, "no difference seen": UNSEEN}
    handles = [Line2D([], [], linewidth=2, color=colour, label=name)
               for name, colour in shown.items()]
    handles.append(Line2D([], [], marker="o", linestyle="", color="0.3",
                          label="filled: also after Holm's correction"))
    if table.columns.str.startswith("seed ").any():
        handles.append(Line2D([], [], marker="|", linestyle="", color="0.3", label="one seed"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=10)
    figure.suptitle("Difference from the baseline on the same images, 95 % interval")
    return figure


def _choose_range(rows: pd.DataFrame) -> tuple[float, float]:
    """Return limits for most intervals: a few far ones would squeeze all others."""
    widths = rows[["low", "high"]].abs().max(axis=1)
    reach = REACH * widths[widths > 0].median()  # some may be the baseline's very answers
    return max(rows.low.min(), -reach), min(rows.high.max(), reach)


@styled
def plot_class_differences(table: pd.DataFrame, most: int = 30):
    """Each class's gain or loss in F1 by candidate, the largest class on top.

    Args:
        table: the second one from `tabulate_heads`; its first candidate is the baseline.
        most: classes to show; of more, the largest and the smallest half of these.
    """
    baseline, *names = table.candidate.unique()
    wide = {key: table.pivot(index="class", columns="candidate", values=key)[names]
            for key in ("difference", "low", "high")}
    images = table[table.candidate == baseline].set_index("class").images.sort_values(
        ascending=False, kind="stable")
    shown = images.index if len(images) <= most else (
        images.index[: most // 2].append(images.index[-(most // 2):]))
    values, low, high = (100 * wide[key].loc[shown].to_numpy() for key in wide)
    figure, axes = create_figure(0.3 * len(shown) + 2.8)
    picture = axes.imshow(values, cmap="RdBu", vmin=-SHADED, vmax=SHADED, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        clear = low[row, column] > 0 or high[row, column] < 0
        axes.text(column, row, f"{value:+.0f}".replace("-0", "0"), ha="center", va="center",
                  fontsize=9, weight="bold" if clear else "normal",
                  color="white" if abs(value) > 0.6 * SHADED else "black" if clear else "0.4")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=10)
    axes.set_yticks(range(len(shown)), [f"{shorten(name)} ({images[name]})" for name in shown])
    axes.spines[:].set_visible(False)
    axes.set_title("Difference in F1 from the baseline, in points; bold: interval without 0",
                   fontsize=12)
    figure.colorbar(picture, ax=axes, label="points of F1", fraction=0.03, extend="both")
    return figure
