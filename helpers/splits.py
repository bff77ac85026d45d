"""Splits: class codes, a hold-out that is scored once, and stratified folds."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

from helpers.errors import SuiteError
from helpers.files import write_folder


def encode_labels(table: pd.DataFrame, order: Iterable[str] = ()) -> dict[str, int]:
    """Return class name -> code 0..n-1: first `order`, then naturally ("9" before "10")."""
    names = set(table.label.dropna())
    first = [name for name in dict.fromkeys(order) if name in names]
    rest = sorted(names - set(first), key=_natural_key)
    return {name: code for code, name in enumerate(first + rest)}


def _natural_key(name: str) -> tuple:
    return (0, float(name), name) if name.isdecimal() else (1, 0.0, name)


def assign_splits(table: pd.DataFrame, holdout: float, folds: int, seed: int) -> pd.DataFrame:
    """Give every image its place.

    `split` becomes `holdout` for a stratified share of the labelled training images, and
    `fold` 0..folds-1 for those that stay in `train`, -1 for all others. The data set's own
    `test` images keep their split.

    Raises:
        SuiteError: a class has too few images for a hold-out and `folds` folds.
    """
    table = table.assign(fold=-1)
    labelled = table.index[table.split == "train"]
    if holdout > 0:
        _require_members(table.label[labelled], 2, "a hold-out")
        try:
            labelled, kept_out = train_test_split(
                labelled, test_size=holdout, stratify=table.label[labelled], random_state=seed)
        except ValueError as error:
            raise SuiteError(
                f"a hold-out of {holdout} cannot be drawn from {len(labelled)} images: {error} "
                "Set `holdout` to another share, or to 0."
            ) from error
        table.loc[kept_out, "split"] = "holdout"
    labels = table.label[table.split == "train"]
    _require_members(labels, folds, f"{folds} folds")
    for fold, (_, rows) in enumerate(
        StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)
    ):
        table.loc[labels.index[rows], "fold"] = fold
    return table


def _require_members(labels: pd.Series, least: int, purpose: str) -> None:
    counts = labels.value_counts()
    small = counts[counts < least]
    if len(small):
        listed = ", ".join(f"'{name}' ({count})" for name, count in small.head(5).items())
        raise SuiteError(
            f"{len(small)} of {len(counts)} classes have fewer than {least} training images, "
            f"too few for {purpose}: {listed}. Lower `folds` or `holdout`, add images, or "
            "take the class out of the data."
        )


def save_folds(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write fold_<k>_train.csv and fold_<k>_test.csv of all folds, whole or not at all."""
    train = table[table.split == "train"]
    columns = ["image_id", "path", "label"]
    with write_folder(folder) as place:
        for fold in range(train.fold.max() + 1):
            for part, rows in (("train", train.fold != fold), ("test", train.fold == fold)):
                train.loc[rows, columns].to_csv(place / f"fold_{fold:02d}_{part}.csv",
                                                index=False)
    return sorted(folder.iterdir())


def count_classes(table: pd.DataFrame) -> pd.Series:
    """Return labelled training images per class, largest first."""
    return table.label[table.split == "train"].value_counts()


def imbalance_ratio(counts: pd.Series) -> float:
    """Return the largest class size divided by the smallest."""
    return float(counts.max() / counts.min())
