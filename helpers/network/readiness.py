"""Readiness: what must hold before a model is trained, looked at rather than ticked off.

`run_checklist` asks all; each answer says what it looked at, and can be no.
"""

import shutil
from collections.abc import Iterator

import numpy as np
import pandas as pd

from helpers.data.images import decode_image
from helpers.data.splits import assign_splits, check_splits, count_classes, imbalance_ratio
from helpers.files import ROOT, SuiteError, load_json
from helpers.network.pixels import read_pixels
from helpers.network.preprocessing import (
    create_geometry,
    create_normalisation,
    resolve_data_config,
)
from helpers.run import Run
from helpers.versions import describe_versions

UNBALANCED = 10  # to 1: from here on, accuracy alone says little
FEW = 30  # images of a class; with fewer, its score is hardly known
CHAINED = 0.05  # share of the images in one group of copies that looks like a mistake
FEATURE_BYTES = 2 * 4 * 2048  # a generous row of features, in its shard and joined
LOOKED_AT = 16  # images
Answer = tuple[str, bool, str, str]  # check, whether it holds, the status if not, detail


def run_checklist(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """Check data, splits, preprocessing and reproducibility of a run.

    Args:
        table: as saved by 02, with split, group and fold.

    Returns:
        A row a check: `area`, `check`, `status` (pass, warn, fail) and `detail`.
    """
    areas = {"data": _check_data, "splits": _check_splits,
             "preprocessing": _check_preprocessing, "reproducibility": _check_reproducibility}
    rows = [(area, check, "pass" if fine else otherwise, detail)
            for area, ask in areas.items() for check, fine, otherwise, detail in ask(run, table)]
    return pd.DataFrame(rows, columns=["area", "check", "status", "detail"])


def _check_data(run: Run, table: pd.DataFrame) -> Iterator[Answer]:
    images, quarantine = run.load_table("images"), run.load_table("quarantine")
    counts, train = count_classes(table), table[table.split == "train"]
    ratio = imbalance_ratio(counts)
    yield ("all images usable", quarantine.empty, "warn",
           f"{len(quarantine)} of {len(images)} images set aside")
    clash = int((train.groupby("sha256").label.nunique() > 1).sum())
    yield ("no image under two labels", not clash, "fail",
           f"{clash} of {train.sha256.nunique()} training files stand under two labels")
    yield ("classes large enough", counts.min() >= FEW, "warn",
           f"{len(counts)} classes; the smallest, {counts.idxmin()}, has {counts.min()} images "
           "in the folds")
    yield "classes balanced", ratio < UNBALANCED, "warn", f"largest to smallest {ratio:.1f}:1"


def _check_splits(run: Run, table: pd.DataFrame) -> Iterator[Answer]:
    train, mapping = table[table.split == "train"], load_json(run.need("label_mapping"))
    try:
        check_splits(table, run.recipe.splits.leaks)
        torn = ""
    except SuiteError as error:
        torn = str(error)
    yield ("no copy on two sides", not torn, "fail",
           torn or f"{table.group.nunique()} groups, each on one side")
    reach = set(train.group) & set(table.group[table.split == "test"])
    yield ("no training image in the test set", not reach, "warn",
           f"{len(reach)} groups reach from training into test")
    largest = table.group.value_counts().iloc[0]
    fine = largest < max(3, CHAINED * len(table)) or run.recipe.splits.group_column
    yield ("copies do not chain", fine, "warn", f"the largest group holds {largest} of "
           f"{len(table)} images; if they are no copies, raise `near_copy` or "
           "`transformed_copy`")
    lacking = (train.groupby("label").fold.nunique() < run.recipe.splits.folds).sum()
    yield ("every class in every fold", not lacking, "warn",
           f"{lacking} of {train.label.nunique()} classes are missing from some fold")
    yield ("label mapping complete", set(train.label) == set(mapping), "fail",
           f"{len(mapping)} classes saved, {train.label.nunique()} in the folds")


def _check_preprocessing(run: Run, table: pd.DataFrame) -> Iterator[Answer]:
    import torch

    config, settings = resolve_data_config(run.recipe, run.measured), run.recipe.network
    geometry, normalise = create_geometry(config), create_normalisation(config)
    paths = table.path.sample(min(LOOKED_AT, len(table)), random_state=run.recipe.splits.seed)
    pixels = np.stack([read_pixels(path, geometry) for path in paths])
    same = sum(np.array_equal(ours, geometry(decode_image(path)))
               for ours, path in zip(pixels, paths, strict=True))
    yield ("pixels do not depend on the decoder", same == len(paths), "fail",
           f"{same} of {len(paths)} images come out the same by libjpeg and by Pillow")
    values = normalise(torch.from_numpy(pixels))
    spread, middle = float(values.std()), float(values.mean())
    yield ("values of the usual size", 0.1 < spread < 4 and abs(middle) < 4, "warn",
           f"{len(paths)} images have mean {middle:.2f} and deviation {spread:.2f}")
    own = resolve_data_config(run.recipe.change(normalisation="backbone"))
    fits = settings.normalisation != "zscore" and all(
        np.allclose(config[key], own[key]) for key in ("mean", "std"))
    yield ("normalised as the backbone expects", fits, "warn",
           f"`{settings.normalisation}`: mean {list(config['mean'])}, the backbone's "
           f"{list(own['mean'])}")
    yield ("backbone trained on photos", settings.weights != "random", "warn",
           f"`weights: {settings.weights.rsplit('/', 1)[-1]}`")


def _check_reproducibility(run: Run, table: pd.DataFrame) -> Iterator[Answer]:
    settings = run.recipe.splits
    before = table.assign(split=table.split.replace("holdout", "train"))
    again = assign_splits(before, settings.holdout, settings.folds, settings.seed)
    moved = int(((again.split != table.split) | (again.fold != table.fold)).sum())
    yield ("splits follow from the seed", not moved, "fail",
           f"dealt again with seed {settings.seed}, {moved} of {len(table)} images move")
    pins = dict(line.lower().split("==") for line in
                (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line)
    versions = describe_versions()
    others = [f"{name} {number}" for name, number in versions.items()
              if pins.get(name, number) != number]
    yield ("versions that the tests ran with", not others, "warn",
           f"of {len(versions)} packages these differ: {', '.join(others) or 'none'}")
    free, needed = shutil.disk_usage(run.folder).free, FEATURE_BYTES * len(table)
    yield ("room for the features", free > needed, "fail",
           f"{needed / 2**20:,.0f} MiB needed at most, {free / 2**20:,.0f} MiB free")
