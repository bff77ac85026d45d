"""Splits: every image in one place, every class in every fold, nothing on both sides."""

import pandas as pd
import pytest

from helpers.errors import SuiteError
from helpers.splits import assign_splits, encode_labels, save_folds


@pytest.fixture
def table():
    labels = ["a"] * 60 + ["b"] * 25 + ["c"] * 12
    return pd.DataFrame({
        "image_id": [str(i) for i in range(107)], "path": [f"{i}.jpg" for i in range(107)],
        "label": labels + [None] * 10, "split": ["train"] * 97 + ["test"] * 10})


@pytest.mark.parametrize("folds", [3, 5, 10])
def test_every_image_has_one_place(table, folds):
    split = assign_splits(table, 0.15, folds, 42)
    train = split[split.split == "train"]
    assert set(train.fold) == set(range(folds))
    assert (split[split.split != "train"].fold == -1).all()
    assert (split.split == "test").sum() == 10
    counts = pd.crosstab(train.label, train.fold)
    assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()
    assert counts.to_numpy().min() >= 1
    held = split[split.split == "holdout"].label.value_counts()
    assert held.to_dict() == {"a": 9, "b": 4, "c": 2}


def test_the_seed_decides(table):
    first, same, other = (assign_splits(table, 0.15, 5, seed) for seed in (1, 1, 2))
    assert first.equals(same)
    assert not first.fold.equals(other.fold)


def test_no_holdout(table):
    assert "holdout" not in set(assign_splits(table, 0, 5, 42).split)


def test_a_class_smaller_than_the_folds_is_named(table):
    with pytest.raises(SuiteError, match=r"too few for 12 folds: 'c' \(10\)"):
        assign_splits(table, 0.15, 12, 42)


def test_fold_tables_share_no_image(table, tmp_path):
    split = assign_splits(table, 0.15, 5, 42)
    tmp_path = tmp_path / "folds"
    paths = save_folds(split, tmp_path)
    assert len(paths) == 10
    judged = []
    for fold in range(5):
        train, test = (pd.read_csv(tmp_path / f"fold_{fold:02d}_{part}.csv", dtype=str)
                       for part in ("train", "test"))
        assert not set(train.image_id) & set(test.image_id)
        judged += list(test.image_id)
    assert sorted(judged) == sorted(split[split.split == "train"].image_id)
    assert len(save_folds(assign_splits(table, 0.15, 3, 42), tmp_path)) == 6


def test_labels_are_coded_in_natural_order():
    table = pd.DataFrame({"label": ["10", "9", "b", "a", None]})
    assert list(encode_labels(table)) == ["9", "10", "a", "b"]
    assert list(encode_labels(table, ["b", "unused"])) == ["b", "9", "10", "a"]
