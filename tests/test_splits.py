"""Splits: every image in one place, no group torn, classes in their shares."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.data.splits import (
    assign_splits,
    check_splits,
    count_folds,
    encode_labels,
    exclude_leaks,
    join_groups,
    save_folds,
    settle_small_classes,
)
from helpers.files import SuiteError


@pytest.fixture
def table():
    labels = ["a"] * 60 + ["b"] * 25 + ["c"] * 12
    ids = [str(i) for i in range(107)]
    return pd.DataFrame({
        "image_id": ids, "path": [f"{i}.jpg" for i in ids], "label": labels + [None] * 10,
        "split": ["train"] * 97 + ["test"] * 10, "group": range(107), "sha256": ids})


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
    assert all(abs(held[name] - 0.15 * count) <= 1
               for name, count in (("a", 60), ("b", 25), ("c", 12)))


def test_the_seed_decides(table):
    first, same, other = (assign_splits(table, 0.15, 5, seed) for seed in (1, 1, 2))
    assert first.equals(same)
    assert not first.fold.equals(other.fold)


def test_no_holdout(table):
    assert "holdout" not in set(assign_splits(table, 0, 5, 42).split)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_group_is_ever_torn(data):
    """Any classes, any groups, across classes and into the test set, with copies by hash."""
    count = data.draw(st.integers(30, 120))
    folds = data.draw(st.integers(3, 10))
    draw = lambda top: data.draw(st.lists(st.integers(0, top), min_size=count, max_size=count))  # noqa: E731
    table = pd.DataFrame({
        "image_id": [str(i) for i in range(count)], "label": [f"c{c}" for c in draw(3)],
        "split": ["test" if s == 0 else "train" for s in draw(9)], "group": draw(count // 2),
        "product": [f"p{p}" for p in draw(count)]})
    table["sha256"] = [f"hash {group}" for group in table.group]
    holdout = data.draw(st.sampled_from([0, 0.1, 0.3]))
    joined = exclude_leaks(join_groups(table, "product"), "drop")
    if not (joined.split == "train").any():
        return
    split = assign_splits(joined, holdout, folds, data.draw(st.integers(0, 99)))
    check_splits(split)
    side = split.split.where(split.split != "train", split.fold.astype(str))
    for column in ("group", "sha256", "product"):
        used = split.split != "excluded"
        assert side[used].groupby(split[column][used]).nunique().max() == 1
    assert ((split.fold >= 0) == (split.split == "train")).all()
    assert len(split) == count and (holdout > 0 or "holdout" not in set(split.split))


def test_groups_keep_the_classes_in_their_shares():
    rng = np.random.default_rng(0)
    codes = rng.choice(4, 4000, p=[0.5, 0.3, 0.15, 0.05])
    table = pd.DataFrame({
        "image_id": [str(i) for i in range(4000)], "label": [f"c{code}" for code in codes],
        "split": "train", "sha256": range(4000),
        "group": np.where(rng.random(4000) < 0.5, rng.integers(0, 500, 4000),
                          np.arange(1000, 5000))})
    split = assign_splits(table, 0.1, 5, 0)
    check_splits(split)
    train = split[split.split == "train"]
    shares = pd.crosstab(train.label, train.fold, normalize="index")
    assert shares.sub(0.2).abs().to_numpy().max() < 0.03
    assert (split.split == "holdout").mean() == pytest.approx(0.1, abs=0.01)


def test_rows_without_a_value_in_the_group_column_stay_alone(table):
    patients = ["p1"] * 5 + [""] * 50 + [" "] * 20 + [None] * 32
    joined = join_groups(table.assign(patient=patients), "patient")
    assert sorted(joined.group.value_counts())[-2:] == [1, 5]


def test_classes_never_vanish_in_silence(table):
    only_tested = table.assign(label=table.label.fillna("new"))
    with pytest.raises(SuiteError, match=r"'new' \(0\)"):
        settle_small_classes(only_tested, 0.15, 5, "refuse")
    with pytest.raises(SuiteError, match="1 classes are left for training"):
        settle_small_classes(table, 0, 30, "drop")
    with pytest.raises(SuiteError, match="a class has this name"):
        settle_small_classes(table.replace({"label": {"a": "other"}}), 0.15, 13, "merge")


def test_a_torn_group_is_noticed(table):
    split = assign_splits(table, 0.15, 5, 42)
    check_splits(split)
    torn = split.assign(group=split.group.where(split.group > 1, 0))
    torn.loc[[0, 1], "fold"], torn.loc[[0, 1], "split"] = [0, 1], "train"
    with pytest.raises(SuiteError, match=r"two sides, e\.g\. 0, 1 in fold 0, fold 1"):
        check_splits(torn)


def test_copies_of_test_images_are_left_out_or_admitted(table):
    table.loc[[3, 100], "group"] = 3
    dropped = exclude_leaks(table, "drop")
    assert list(dropped.image_id[dropped.split == "excluded"]) == ["3"]
    check_splits(assign_splits(dropped, 0.15, 5, 42))
    kept = assign_splits(exclude_leaks(table, "keep").assign(
        split=table.split, group=table.group), 0, 5, 42)
    with pytest.raises(SuiteError, match="two sides"):
        check_splits(kept)
    check_splits(kept, "keep")


def test_small_classes_are_refused_merged_or_dropped(table, capsys):
    arguments = (0.15, 13)
    with pytest.raises(SuiteError, match=r"13 folds and a hold-out: 'c' \(12\)"):
        settle_small_classes(table, *arguments, "refuse")
    dropped = settle_small_classes(table, *arguments, "drop")
    assert set(dropped.label[dropped.split == "train"]) == {"a", "b"}
    assert "left out: 'c' (12)" in capsys.readouterr().out
    with pytest.raises(SuiteError, match=r"'other' \(12\)"):
        settle_small_classes(table, *arguments, "merge")
    merged = settle_small_classes(table, 0.15, 26, "merge")
    assert set(merged.label.dropna()) == {"a", "other"}
    copies = table.assign(group=table.group.where(table.label != "c", 90))
    with pytest.raises(SuiteError, match=r"'c' \(1\)"):  # twelve copies are one picture
        settle_small_classes(copies, 0.15, 5, "refuse")


def test_fold_tables_share_no_image(table, tmp_path):
    tmp_path = tmp_path / "folds"
    split = assign_splits(table, 0.15, 5, 42)
    assert len(save_folds(split, tmp_path)) == 10
    judged = []
    for fold in range(5):
        train, test = (pd.read_csv(tmp_path / f"fold_{fold:02d}_{part}.csv", dtype=str)
                       for part in ("train", "test"))
        assert not set(train.image_id) & set(test.image_id)
        judged += list(test.image_id)
    assert sorted(judged) == sorted(split[split.split == "train"].image_id)
    assert len(save_folds(assign_splits(table, 0.15, 3, 42), tmp_path)) == 6


def test_a_class_that_a_fold_lacks_counts_0_there():
    table = pd.DataFrame({"label": [*"aaabb", None], "fold": [0, 1, 2, 0, 0, -1],
                          "split": ["train"] * 5 + ["test"]})
    assert count_folds(table).loc["b"].tolist() == [2, 0, 0]
    assert count_folds(table).to_numpy().sum() == 5


def test_labels_are_coded_in_natural_order():
    table = pd.DataFrame({"label": ["10", "9", "b", "a", None], "split": "train"})
    assert list(encode_labels(table)) == ["9", "10", "a", "b"]
    assert list(encode_labels(table, ["b", "unused"])) == ["b", "9", "10", "a"]
