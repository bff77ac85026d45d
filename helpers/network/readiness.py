"""Readiness: what must hold before a model is trained, looked at rather than ticked off.

`run_checklist` asks all; each answer says what it looked at, and can be no.
"""

import shutil

import numpy as np
import pandas as pd

from helpers.data.images import decode_image
from helpers.data.splits import assign_splits, check_splits, count_classes, imbalance_ratio
from helpers.files import ROOT, SuiteError, load_json
from helpers.network.pixels import read_pixels
from helpers.network.preprocessing import (
    create_geometry,
    create_normalisation,
    normalise_config,
    resolve_data_config,
)
from helpers.run import Run
from helpers.versions import describe_versions

UNBALANCED = 10  # to 1: from here on, accuracy alone says little
FEW = 30  # images of a class; with fewer, its score is hardly known
CHAINED = 0.05  # share of the images in one group of copies that looks like a mistake
FEATURE_BYTES = 2 * 4 * 2048  # a generous row of features, in its shard and joined
LOOKED_AT = 16  # images


def run_checklist(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """Check data, splits, preprocessing and reproducibility of a run.

    Args:
        table: as saved by 02, with split, group and fold.

    Returns:
        A row a check: `area`, `check`, `status` (pass, warn, fail) and `detail`.
    """
    rows = [*_check_data(run, table), *_check_splits(run, table),
            *_check_preprocessing(run, table), *_check_reproducibility(run, table)]
    return pd.DataFrame(rows, columns=["area", "check", "status", "detail"])


def _grade(area: str, check: str, fine: bool, detail: str, otherwise: str = "fail") -> tuple:
    return area, check, "pass" if fine else otherwise, detail


def _check_data(run: Run, table: pd.DataFrame):
    images, quarantine = run.load_table("images"), run.load_table("quarantine")
    counts, train = count_classes(table), table[table.split == "train"]
    ratio = imbalance_ratio(counts)
    yield _grade("data", "all images usable", quarantine.empty,
                 f"{len(quarantine)} of {len(images)} images set aside", "warn")
    clash = int((train.groupby("sha256").label.nunique() > 1).sum())
    yield _grade("data", "no image under two labels", not clash,
                 f"{clash} of {train.sha256.nunique()} training files stand under two labels")
    yield _grade("data", "classes large enough", counts.min() >= FEW,
                 f"{len(counts)} classes; the smallest, {counts.idxmin()}, has {counts.min()} "
                 "images in the folds", "warn")
    yield _grade("data", "classes balanced", ratio < UNBALANCED,
                 f"largest to smallest {ratio:.1f}:1", "warn")


def _check_splits(run: Run, table: pd.DataFrame):
    try:
        check_splits(table, run.recipe.splits.leaks)
        fine, detail = True, f"{table.group.nunique()} groups, each on one side"
    except SuiteError as error:
        fine, detail = False, str(error)
    yield _grade("splits", "no copy on two sides", fine, detail)
    reach = set(table.group[table.split == "train"]) & set(table.group[table.split == "test"])
    yield _grade("splits", "no training image in the test set", not reach,
                 f"{len(reach)} groups reach from training into test", "warn")
    largest = table.group.value_counts().iloc[0]
    fine = largest < max(3, CHAINED * len(table)) or run.recipe.splits.group_column
    yield _grade("splits", "copies do not chain", fine, f"the largest group holds {largest} of "
                 f"{len(table)} images; if they are no copies, raise `near_copy`", "warn")
    train = table[table.split == "train"]
    lacking = [name for name, folds in train.groupby("label").fold.nunique().items()
               if folds < run.recipe.splits.folds]
    yield _grade("splits", "every class in every fold", not lacking,
                 f"{len(lacking)} of {train.label.nunique()} classes are missing from some fold",
                 "warn")
    mapping = load_json(run.need("label_mapping"))
    yield _grade("splits", "label mapping complete", set(train.label) == set(mapping),
                 f"{len(mapping)} classes saved, {train.label.nunique()} in the folds")


def _check_preprocessing(run: Run, table: pd.DataFrame):
    config = resolve_data_config(run.recipe, run.measured)
    geometry, normalise = create_geometry(config), create_normalisation(config)
    paths = table.path.sample(min(LOOKED_AT, len(table)), random_state=run.recipe.splits.seed)
    same = sum(np.array_equal(read_pixels(path, geometry), geometry(decode_image(path)))
               for path in paths)
    yield _grade("preprocessing", "pixels do not depend on the decoder", same == len(paths),
                 f"{same} of {len(paths)} images come out the same by libjpeg and by Pillow")
    import torch

    pixels = torch.from_numpy(np.stack([read_pixels(path, geometry) for path in paths]))
    values = normalise(pixels)
    spread, middle = float(values.std()), float(values.mean())
    usual = 0.1 < spread < 4 and abs(middle) < 4
    yield _grade("preprocessing", "values of the usual size", usual,
                 f"{len(paths)} images have mean {middle:.2f} and deviation {spread:.2f}", "warn")
    own = normalise_config(resolve_data_config(run.recipe.change(normalisation="backbone")),
                           "backbone")
    fits = all(np.allclose(config[key], own[key]) for key in ("mean", "std")) and (
        config["normalisation"] != "zscore")
    yield _grade("preprocessing", "normalised as the backbone expects", fits,
                 f"`{run.recipe.network.normalisation}`: mean {list(config['mean'])}, the "
                 f"backbone's {list(own['mean'])}", "warn")
    yield _grade("preprocessing", "backbone trained on photos",
                 run.recipe.network.weights != "random",
                 f"`weights: {run.recipe.network.weights.rsplit('/', 1)[-1]}`", "warn")


def _check_reproducibility(run: Run, table: pd.DataFrame):
    settings = run.recipe.splits
    before = table.assign(split=table.split.replace("holdout", "train"))
    again = assign_splits(before, settings.holdout, settings.folds, settings.seed)
    moved = int(((again.split != table.split) | (again.fold != table.fold)).sum())
    yield _grade("reproducibility", "splits follow from the seed", not moved,
                 f"dealt again with seed {settings.seed}, {moved} of {len(table)} images move")
    pins = dict(line.lower().split("==") for line in
                (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line)
    versions = describe_versions()
    others = [f"{name} {number}" for name, number in versions.items()
              if pins.get(name, number) != number]
    yield _grade("reproducibility", "versions that the tests ran with", not others,
                 f"of {len(versions)} packages these differ: {', '.join(others) or 'none'}",
                 "warn")
    free, needed = shutil.disk_usage(run.folder).free, FEATURE_BYTES * len(table)
    yield _grade("reproducibility", "room for the features", free > needed,
                 f"{needed / 2**20:,.0f} MiB needed at most, {free / 2**20:,.0f} MiB free")
