"""Splits: class codes, a hold-out that is scored once, and stratified folds of whole groups."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from helpers.files import SuiteError, natural_key, write_folder

OTHER = "other"  # the class that too small ones are merged into
LARGE = 0.25  # share of the images in one group from which it may be a word for none


def encode_labels(table: pd.DataFrame, order: Iterable[str] = ()) -> dict[str, int]:
    """Return class name -> code 0..n-1: first `order`, then naturally ("9" before "10")."""
    names = set(table.label[table.split != "excluded"].dropna())
    first = [name for name in dict.fromkeys(order) if name in names]
    rest = sorted(names - set(first), key=natural_key)
    return {name: code for code, name in enumerate(first + rest)}


def join_groups(table: pd.DataFrame, column: str | None) -> pd.DataFrame:
    """Join the groups of copies with those of a column (product, patient, camera).

    Rows without a value in `column` stay with their copies alone.
    """
    if column is None:
        return table
    copies, _ = pd.factorize(table.group)
    text = table[column].astype("string").str.strip()
    values, names = pd.factorize(text.mask(text == ""))
    shares = pd.Series(values[values >= 0]).value_counts() / len(table)
    if len(shares) > 1 and shares.iloc[0] > LARGE:
        print(f"{shares.iloc[0]:.0%} of the images have '{names[shares.index[0]]}' in '{column}' "
              "and stay on one side of every split: if that says nothing, leave it empty")
    values = np.where(values < 0, len(names) + np.arange(len(table)), values)
    # Rows are edges between the group of copies and the column's value.
    count = copies.max() + 1
    edges = coo_array((np.ones(len(table)), (copies, count + values)),
                      shape=(count + values.max() + 1,) * 2)
    return table.assign(group=connected_components(edges, directed=False)[1][copies])


def exclude_leaks(table: pd.DataFrame, choice: str) -> pd.DataFrame:
    """Take training images out that share a group with the data set's own test images.

    `choice` is the recipe's `leaks`: with `keep` they stay, and `check_splits` admits them.
    """
    leaks = (table.split == "train") & table.group.isin(table.group[table.split == "test"])
    if choice == "keep" or not leaks.any():
        return table
    print(f"{leaks.sum()} training images are copies of test images, or of their group, and are "
          "left out")
    return table.assign(split=table.split.mask(leaks, "excluded"))


def settle_small_classes(table: pd.DataFrame, holdout: float, folds: int,
                         choice: str) -> pd.DataFrame:
    """Refuse, merge or drop classes with too few groups for every fold and the hold-out.

    Raises:
        SuiteError: such a class, and `choice` is `refuse`; what is merged is still too small;
            or fewer than two classes are left.
    """
    # Enough for one in every fold when the hold-out has its share.
    least = math.ceil(folds / (1 - holdout)) + (holdout > 0)
    small = _find_small(table, least)
    concerned = table.label.isin(small.index)
    if len(small) and choice == "drop":
        print(f"{len(small)} classes are too small for {folds} folds and left out: "
              f"{_list_classes(small)}")
        table = table.assign(split=table.split.mask(concerned, "excluded"))
    elif len(small) and choice == "merge":
        if OTHER in set(table.label[~concerned]):
            raise SuiteError(f"small classes cannot be merged into '{OTHER}': a class has this "
                             "name. Rename it, or set `small_classes` to `drop`.")
        print(f"{len(small)} small classes are now one, '{OTHER}': {_list_classes(small)}")
        table = table.assign(label=table.label.mask(concerned, OTHER))
    small = _find_small(table, least)
    if len(small):
        only = f" ({', '.join(small.index[small == 0][:3])}: in the test set alone)" * bool(
            (small == 0).any())
        choices = "`drop`" if choice == "merge" else "`merge` or `drop`"
        raise SuiteError(f"{len(small)} of {table.label.nunique()} classes have fewer than "
                         f"{least} training images that are no copies, too few for {folds} folds"
                         f"{' and a hold-out' if holdout > 0 else ''}: {_list_classes(small)}"
                         f"{only}. Lower `folds`, set `holdout` to 0, add images, or set "
                         f"`small_classes` to {choices}; `exclude` leaves classes out by name.")
    classes = table.label[table.split == "train"].nunique()
    if classes < 2:
        raise SuiteError(f"{classes} classes are left for training, too few to tell anything "
                         "apart. Lower `folds`, or change `small_classes` or `leaks`.")
    return table


def _find_small(table: pd.DataFrame, least: int) -> pd.Series:
    train = table[table.split == "train"]
    names = table.label[table.split != "excluded"].dropna().unique()
    # A class that only the test set has counts 0.
    counts = train.groupby("label").group.nunique().reindex(names, fill_value=0)
    return counts[counts < least].sort_values()


def _list_classes(counts: pd.Series) -> str:
    return ", ".join(f"'{name}' ({count})" for name, count in counts.head(5).items())


def assign_splits(table: pd.DataFrame, holdout: float, folds: int, seed: int) -> pd.DataFrame:
    """Give every image its place; a group stays together.

    `split` becomes `holdout` for a stratified share of the labelled training images, and
    `fold` 0..folds-1 for those that stay in `train`, -1 for all others. The data set's own
    `test` images and `excluded` ones keep their split. Where labels were corrected, images are
    dealt by those they came with, so that none moves into the hold-out for having been looked
    at; only then those that are to be left out become `excluded`.
    """
    train = table[table.split == "train"]
    shares = np.r_[np.full(folds, (1 - holdout) / folds), holdout]
    labels = train.given_label if "given_label" in train else train.label
    bins = deal_groups(pd.factorize(labels)[0], pd.factorize(train.group)[0], shares, seed)
    table = table.assign(fold=-1)
    kept = bins < folds
    table.loc[train.index[kept], "fold"] = bins[kept]
    table.loc[train.index[~kept], "split"] = "holdout"
    if "left_out" in table:
        left = table.left_out.astype(bool) & (table.split != "test")
        table = table.assign(split=table.split.mask(left, "excluded"),
                             fold=table.fold.mask(left, -1))
    return table


def deal_groups(codes: np.ndarray, groups: np.ndarray, shares: np.ndarray,
                seed: int) -> np.ndarray:
    """Deal images into bins so that each class comes near its share and no group is torn.

    Groups of several images go first, the largest ahead, each to the bin that it leaves
    nearest to its targets (greedy, as scikit-learn's StratifiedGroupKFold); single images
    then fill what is missing, class by class, which makes 100,000 of them a matter of
    milliseconds.

    Args:
        codes, groups: (images,) class codes and group numbers, both 0..n-1.
        shares: (bins,) adding up to 1.

    Returns:
        (images,) bin numbers.
    """
    rng = np.random.default_rng(seed)
    totals = np.bincount(codes)
    targets = shares[:, None] * totals
    filled = np.zeros_like(targets)
    bins = np.full(len(codes), -1)
    sizes = np.bincount(groups)
    order, ends = np.argsort(groups, kind="stable"), np.cumsum(sizes)
    weights = 1 / np.maximum(totals, 1)
    several = rng.permutation(np.flatnonzero(sizes > 1))
    for group in several[np.argsort(-sizes[several], kind="stable")]:
        rows = order[ends[group] - sizes[group] : ends[group]]
        present, counts = np.unique(codes[rows], return_counts=True)
        gaps = (targets - filled)[:, present]
        # What the group changes in the squared distance to the targets, relative to class size.
        change = ((2 * gaps - counts) * counts * weights[present]).sum(axis=1)
        best = np.where(shares > 0, change, -np.inf).argmax()
        bins[rows] = best
        filled[best, present] += counts
    singles = np.flatnonzero(bins < 0)
    for code in range(len(totals)):
        rows = rng.permutation(singles[codes[singles] == code])
        wanted = _round_shares(np.maximum(targets[:, code] - filled[:, code], 0), len(rows), rng)
        bins[rows] = np.repeat(np.arange(len(shares)), wanted)
    return bins


def _round_shares(wanted: np.ndarray, total: int, rng) -> np.ndarray:
    """Round to whole numbers that add up to `total`, largest remainders first."""
    scaled = wanted * total / wanted.sum() if wanted.sum() else np.zeros(len(wanted))
    whole = np.floor(scaled + 1e-9).astype(int)
    remainder = scaled - whole + rng.random(len(wanted)) * 1e-6  # ties by chance
    remainder[wanted == 0] = -1
    whole[np.argsort(-remainder)[: total - whole.sum()]] += 1
    return whole


def check_splits(table: pd.DataFrame, leaks: str = "drop") -> None:
    """Raise SuiteError if a group or an exact copy stands on two sides of any split.

    Sides are the folds, the hold-out and the test images; `excluded` ones are on no side.
    With `leaks` at `keep`, groups that reach from training into the test set are admitted.
    """
    unseen = ["excluded", "test"] if leaks == "keep" else ["excluded"]
    used = table[~table.split.isin(unseen)]
    side = used.split.where(used.split != "train", "fold " + used.fold.astype(str))
    for column in ("group", "sha256"):
        crossing = side.groupby(used[column]).nunique().loc[lambda sides: sides > 1]
        if len(crossing):
            torn = used[column] == crossing.index[0]
            raise SuiteError(f"{len(crossing)} groups of copies stand on two sides, e.g. "
                             f"{', '.join(used.image_id[torn].head(3))} in "
                             f"{', '.join(sorted(set(side[torn])))}: no score from these splits "
                             "would be honest. Run 02_preprocessing again.")


def save_folds(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write fold_<k>_train.csv and fold_<k>_test.csv of all folds, whole or not at all."""
    train = table[table.split == "train"]
    columns = ["image_id", "path", "label", "group"]
    with write_folder(folder) as place:
        for fold in range(train.fold.max() + 1):
            for part, rows in (("train", train.fold != fold), ("test", train.fold == fold)):
                file = place / f"fold_{fold:02d}_{part}.csv"
                train.loc[rows, columns].to_csv(file, index=False)
    return sorted(folder.iterdir())


def select_rows(table: pd.DataFrame, part: str) -> pd.DataFrame:
    """Return the table's rows behind `train_features` or `test_features`, in its order.

    `train` are the labelled images in the folds; `test` all that no model learns from: the
    hold-out and the data set's own test images.
    """
    splits = {"train": ["train"], "test": ["holdout", "test"]}[part]
    return table[table.split.isin(splits)].reset_index(drop=True)


def sample_rows(rows: pd.DataFrame, count: int, seed: int) -> np.ndarray:
    """Return the positions of about `count` rows, every class and fold in its share, in order."""
    if len(rows) <= count:
        return np.arange(len(rows))
    share, positions = count / len(rows), rows[["label", "fold"]].reset_index(drop=True)
    chosen = [members.sample(max(1, round(share * len(members))), random_state=seed).index
              for _, members in positions.groupby(["label", "fold"])]
    return np.sort(np.concatenate(chosen))


def weigh_classes(table: pd.DataFrame, mapping: dict[str, int]) -> dict[str, float]:
    """Return the weight of one image of each class: the classes' sums of weights are equal.

    As scikit-learn's "balanced": images / (classes x images of the class).
    """
    counts = count_classes(table)
    return {name: float(counts.sum() / (len(counts) * counts[name])) for name in mapping}


def count_folds(table: pd.DataFrame) -> pd.DataFrame:
    """Return labelled training images of each class (rows) in each fold (columns), 0 included."""
    train = table[table.split == "train"]
    return pd.crosstab(train.label, train.fold)


def count_classes(table: pd.DataFrame) -> pd.Series:
    """Return labelled training images per class, largest first."""
    return table.label[table.split == "train"].value_counts()


def imbalance_ratio(counts: pd.Series) -> float:
    """Return the largest class size divided by the smallest."""
    return float(counts.max() / counts.min())
