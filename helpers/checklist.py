"""Checklist: what must hold before a model is trained, run as checks rather than read as text."""

import shutil

import numpy as np
import pandas as pd

from helpers.backbones import normalise_config, resolve_data_config
from helpers.errors import SuiteError
from helpers.files import load_json
from helpers.images import create_preprocessing, decode_image
from helpers.run import Run, describe_versions
from helpers.splits import check_splits, count_classes, imbalance_ratio

UNBALANCED = 10  # to 1: from here on, accuracy alone says little
CHAINED = 0.05  # share of the images in one group of copies that looks like a mistake
FEATURE_BYTES = 4 * 2048  # a generous row of features


def run_checklist(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """Check data, splits, preprocessing and reproducibility of a run.

    Args:
        table: as saved by 02, with split, group and fold.

    Returns:
        A row a check: `area`, `check`, `status` (pass, warn, fail) and `detail`.
    """
    rows = [*_check_data(run, table), *_check_splits(run, table),
            *_check_preprocessing(run, table), *_check_reproducibility(run)]
    return pd.DataFrame(rows, columns=["area", "check", "status", "detail"])


def _grade(area: str, check: str, fine: bool, detail: str, otherwise: str = "fail") -> tuple:
    return area, check, "pass" if fine else otherwise, detail


def _check_data(run: Run, table: pd.DataFrame):
    quarantine = run.load_table("quarantine")
    counts = count_classes(table)
    ratio = imbalance_ratio(counts)
    yield _grade("data", "all images readable", quarantine.empty,
                 f"{len(quarantine)} images set aside", "warn")
    train = table[table.split == "train"]
    clash = int((train.groupby("sha256").label.nunique() > 1).sum())
    yield _grade("data", "no image under two labels", not clash,
                 f"{clash} images with conflicting labels in use")
    yield _grade("data", "classes documented", len(counts) > 1,
                 f"{len(counts)} classes, {counts.min()} to {counts.max()} images")
    yield _grade("data", "classes balanced", ratio < UNBALANCED,
                 f"largest to smallest {ratio:.1f}:1", "warn")


def _check_splits(run: Run, table: pd.DataFrame):
    try:
        check_splits(table, run.recipe.leaks)
        fine, detail = True, f"{table.group.nunique()} groups, each on one side"
    except SuiteError as error:
        fine, detail = False, str(error)
    yield _grade("splits", "no copy on two sides", fine, detail)
    reach = set(table.group[table.split == "train"]) & set(table.group[table.split == "test"])
    yield _grade("splits", "no training image in the test set", not reach,
                 f"{len(reach)} groups reach from training into test", "warn")
    largest = table.group.value_counts().iloc[0]
    fine = largest < max(3, CHAINED * len(table)) or run.recipe.group_column
    yield _grade("splits", "copies do not chain", fine, f"the largest group holds {largest} "
                 "images; if they are no copies, raise `near_copy`", "warn")
    train = table[table.split == "train"]
    lacking = [name for name, folds in train.groupby("label").fold.nunique().items()
               if folds < run.recipe.folds]
    yield _grade("splits", "every class in every fold", not lacking,
                 f"{len(lacking)} classes are missing from some fold", "warn")
    mapping = load_json(run.need("label_mapping"))
    yield _grade("splits", "label mapping complete", set(train.label) == set(mapping),
                 f"{len(mapping)} classes saved")


def _check_preprocessing(run: Run, table: pd.DataFrame):
    config = resolve_data_config(run.recipe, run.measured)
    prepare = create_preprocessing(config)
    paths = table.path.sample(min(4, len(table)), random_state=run.recipe.seed)
    first, second = ([prepare(decode_image(path)).numpy() for path in paths] for _ in "ab")
    same = all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    sound = all(a.shape == config["input_size"] and np.isfinite(a).all() for a in first)
    yield _grade("preprocessing", "the same image gives the same numbers", same and sound,
                 f"{len(paths)} images prepared twice, shape {config['input_size']}")
    own = normalise_config(resolve_data_config(
        run.recipe.model_copy(update={"normalisation": "backbone"})), "backbone")
    fits = (config["mean"], config["std"]) == (own["mean"], own["std"]) and (
        run.recipe.normalisation != "zscore")
    yield _grade("preprocessing", "normalised as the backbone was trained",
                 fits or run.recipe.weights == "random", f"`{run.recipe.normalisation}`", "warn")


def _check_reproducibility(run: Run):
    versions = describe_versions()
    yield _grade("reproducibility", "seed fixed", True, f"seed {run.recipe.seed}")
    yield _grade("reproducibility", "versions known", all(versions.values()),
                 f"python {versions['python']}, torch {versions['torch']}")
    free = shutil.disk_usage(run.folder).free
    needed = FEATURE_BYTES * len(run.load_table("images"))
    yield _grade("reproducibility", "room for the features", free > needed,
                 f"{needed / 2**20:,.0f} MiB needed at most, {free / 2**20:,.0f} MiB free")
