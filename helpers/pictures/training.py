"""Training drawn: logs of networks, techniques compared, the curve over sizes (04, 09, 10)."""

import numpy as np
import pandas as pd
import torch
from matplotlib.ticker import NullFormatter, ScalarFormatter

from helpers.data.images import decode_image
from helpers.network.preprocessing import create_geometry
from helpers.pictures.charts import WIDTH, create_figure, pick_colour, shorten, styled

SIZES_ACROSS = 3  # pictures of one photo in a line
CURVES_TOP = 1.3  # times the baseline's largest loss
SEED_GIVEN = 50, 78  # % of test accuracy before and after enlarging, in the project replaced


@styled
def plot_training_log(log: pd.DataFrame):
    """Loss, score and learning rate by epoch: a thin line a fold, a thick one their mean.

    Args:
        log: `training_log`; epochs of later phases follow those of earlier ones.
    """
    lengths = log.groupby("phase").epoch.max() + 1
    starts = lengths.cumsum() - lengths
    log = log.assign(step=log.epoch + log.phase.map(starts) + 1)
    judged = "log_loss" in log
    panels = [("loss", {"train_loss": "learnt from"} | (
        {"log_loss": "inner fold"} if judged else {}))]
    panels += [("macro F1, inner fold", {"macro_F1": "inner fold"})] if judged else []
    panels += [("learning rate", {"learning_rate": "highest layer"})]
    figure, every = create_figure(3.4, 1, len(panels), squeeze=False)
    for axes, (title, columns) in zip(every[0], panels, strict=True):
        for place, (column, name) in enumerate(columns.items()):
            for _, rows in log.groupby("fold"):
                axes.plot(rows.step, rows[column], color=pick_colour(place), alpha=0.3,
                          linewidth=1)
            mean = log.groupby("step")[column].mean()
            axes.plot(mean.index, mean, color=pick_colour(place), linewidth=2.5, label=name)
        for start in starts[1:]:
            axes.axvline(start + 0.5, color="0.6", linestyle=":")
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(columns) > 1:
            axes.legend()
    every[0][-1].set_yscale("log")
    return figure


@styled
def plot_learning_curves(log: pd.DataFrame, baseline: str = "baseline"):
    """Log loss of the fold left out by epoch, a small panel an experiment, the baseline in grey.

    Args:
        log: from `join_logs`.
    """
    names = [name for name in log.candidate.unique() if name != baseline]
    columns = 4
    figure, panels = create_figure(1.75 * -(-len(names) // columns) + 0.6,
                                   -(-len(names) // columns), columns, sharex=True, sharey=True,
                                   squeeze=False)
    curves = log.assign(step=log.groupby(["candidate", "seed", "fold"]).cumcount() + 1).groupby(
        ["candidate", "step"])[["train_loss", "log_loss"]].mean()
    for axes, name in zip(panels.flat, names, strict=False):
        axes.plot(curves.loc[baseline].log_loss, color="0.8", linewidth=6)
        axes.plot(curves.loc[name].log_loss, color=pick_colour(0), linewidth=2)
        axes.plot(curves.loc[name].train_loss, color=pick_colour(1), linewidth=1.2,
                  linestyle="--")
        axes.set_title(shorten(name), fontsize=10, loc="left")
        axes.tick_params(labelsize=9)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    # A few losses on scales of their own would flatten all others.
    every = curves.to_numpy()
    panels[0, 0].set_ylim(0.95 * every.min(), CURVES_TOP * curves.loc[baseline].to_numpy().max())
    figure.supylabel("loss", fontsize=10)
    for axes in panels[-1]:
        axes.set_xlabel("epoch", fontsize=10)
    shown = panels.flat[0].lines
    figure.legend(shown[:3], [f"{baseline}, fold left out", "fold left out", "learnt from"],
                  loc="outside lower center", ncols=3, fontsize=10)
    figure.suptitle("Loss by epoch, mean over folds and seeds", fontsize=12)
    return figure


@styled
def plot_sizes_curve(table: pd.DataFrame, reference: bool):
    """Accuracy with its interval against the size of the input, a line a strategy and set.

    Args:
        table: from `measure_sizes`.
        reference: draw the two accuracies of the project that the suite replaces.
    """
    figure, axes = create_figure(4.4)
    titles = {"frozen": "frozen features", "finetune": "fine-tuned"}
    groups = table.groupby(["strategy", "images"], sort=False)
    for place, ((strategy, images), rows) in enumerate(groups):
        errors = np.clip([rows.value - rows.low, rows.high - rows.value], 0, None)
        aside = 1.04 ** (place - (len(groups) - 1) / 2)  # or intervals would hide each other
        colour, test = pick_colour(list(titles).index(strategy)), images == "test"
        axes.errorbar(aside * rows["size"], rows.value, yerr=errors, capsize=3, color=colour,
                      fmt=("o" if strategy == "frozen" else "D") + ("--" if test else "-"),
                      markerfacecolor="white" if test else colour,
                      label=f"{titles[strategy]}, {images}")
    if reference:
        for share, name in zip(SEED_GIVEN, ("before", "after"), strict=True):
            axes.axhline(share / 100, color="0.5", linestyle="--", linewidth=1)
            axes.annotate(f"the earlier project {name} enlarging: {share} %", (0, share / 100),
                          (4, 4), xycoords=("axes fraction", "data"), ha="left",
                          textcoords="offset points", fontsize=10, color="0.3")
    axes.set_xscale("log")
    axes.set_xticks(sorted(table["size"].unique()))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="side of the input in pixels", ylabel="accuracy, 95 % interval",
             title="Accuracy by the size of the input")
    axes.grid(axis="y")
    axes.legend(loc="lower right")
    return figure


@styled
def show_mixed(mixed: dict[str, tuple[torch.Tensor, torch.Tensor]], classes: list[str],
               count: int = 6):
    """The same photos, mixed in several ways, a row a way, with the shares of their classes.

    Args:
        mixed: way -> photos, (batch, 3, H, W) from 0 to 1, and targets, (batch, classes).
    """
    figure, axes = create_figure(len(mixed) * (WIDTH / count + 0.35) + 0.2, len(mixed), count)
    for row, (way, (photos, targets)) in zip(axes, mixed.items(), strict=True):
        for place, photo, target in zip(row, photos, targets, strict=False):
            place.imshow(photo.permute(1, 2, 0).numpy())
            shares = sorted(zip(target.tolist(), classes, strict=True), reverse=True)
            place.set_title("\n".join(f"{shorten(name, 12)} {share:.0%}"
                                      for share, name in shares[:2] if share > 0.005),
                            fontsize=10, loc="center")
            place.set(xticks=[], yticks=[])
        row[0].set_ylabel(way)
    return figure


@styled
def show_sizes(path: str, configs: dict[int, dict]):
    """One photo as the network sees it at several sizes, all drawn equally large.

    Args:
        configs: side in pixels -> data config.
    """
    columns = min(SIZES_ACROSS, len(configs))
    lines = -(-len(configs) // columns)
    figure, axes = create_figure(lines * (WIDTH / columns + 0.4), lines, columns, squeeze=False)
    image = decode_image(path)
    for place in axes.flat[len(configs) :]:
        place.set_visible(False)
    for place, (size, config) in zip(axes.flat, configs.items(), strict=False):
        place.imshow(create_geometry(config)(image), interpolation="nearest")
        place.set_title(f"{size} pixels", fontsize=11, loc="center")
        place.set(xticks=[], yticks=[])
    return figure
