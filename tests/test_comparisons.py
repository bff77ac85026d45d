"""Comparisons: pairs on the same images, baselines on the same folds, the learning curve."""

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.metrics import f1_score

from helpers.data.preparation import prepare_run
from helpers.data.splits import select_rows
from helpers.evaluation.baselines import answer_baselines, tabulate_baselines
from helpers.evaluation.compare import (
    compare_scores,
    correct_for_many,
    describe_difference,
)
from helpers.evaluation.learning_curve import draw_share, measure_learning_curve
from helpers.features.extraction import extract_run
from helpers.features.store import load_codes, load_features
from helpers.files import SuiteError
from helpers.run import open_run
from helpers.training.crossvalidation import cross_validate
from helpers.training.linear import LogisticHead
from helpers.training.strategies import train_run

CLASSES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def trained(folders, write_recipe, tmp_path_factory):
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "test_efficientnet.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), path)
    run = open_run(write_recipe("tiny", folders, source="folders", run="compared", near_copy=1,
                                holdout=0.2, learning_curve=[0.5], weights=str(path)))
    prepare_run(run)
    extract_run(run)
    train_run(run)
    return run


def tables(count=120, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASSES, count, p=[0.6, 0.3, 0.1])
    guess = lambda share: np.where(  # noqa: E731
        rng.random(count) < share, labels, rng.choice(CLASSES, count))
    one = guess(0.7)
    other = np.where(rng.random(count) < 0.8, one, guess(0.2))  # mostly alike
    return [pd.DataFrame({"label": labels, "prediction": found}) for found in (one, other)]


def test_a_paired_difference_is_that_of_resampled_images():
    one, other = tables()
    found = compare_scores(one, other, CLASSES, 2000, seed=0).loc["macro F1"]

    def difference(rows):
        return np.subtract(*(f1_score(t.label.iloc[rows], t.prediction.iloc[rows], labels=CLASSES,
                                      average="macro", zero_division=0) for t in (one, other)))

    rng = np.random.default_rng(1)
    draws = [difference(rng.integers(0, len(one), len(one))) for _ in range(400)]
    assert found.difference == pytest.approx(difference(np.arange(len(one))))
    assert [found.low, found.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.02)


def test_groups_are_drawn_whole():
    """Ten copies of each image are no more evidence than the image alone."""
    one, other = tables(60)
    ten = [table.loc[table.index.repeat(10)].assign(group=np.repeat(np.arange(60), 10))
           for table in (one, other)]
    alone = compare_scores(one, other, CLASSES, 1000, seed=0)
    copied = compare_scores(*ten, CLASSES, 1000, seed=0)
    torn = compare_scores(*(t.drop(columns="group") for t in ten), CLASSES, 1000, seed=0)
    pd.testing.assert_frame_equal(copied, alone)
    width = [found.high.macro_f1 - found.low.macro_f1 for found in (
        table.rename({"macro F1": "macro_f1"}) for table in (copied, torn))]
    assert width[0] > 2 * width[1]
    with pytest.raises(SuiteError, match="different images"):
        compare_scores(one, other.iloc[::-1], CLASSES, 100, seed=0)


def test_holms_correction_is_the_published_one():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, none below the one before.
    assert correct_for_many([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_for_many([0.6, 0.7]).tolist() == [1, 1]


def test_a_difference_is_said_in_words():
    row = pd.Series({"difference": -0.004, "low": -0.016, "high": 0.009})
    assert describe_difference("SMOTE", "macro F1", row) == (
        "SMOTE: macro F1 -0.4 points (-1.6 to +0.9): no difference seen")
    lower = pd.Series({"difference": -0.04, "low": -0.06, "high": -0.02})
    said = describe_difference("x", "log loss", lower)
    assert said == "x: log loss -0.040 (-0.060 to -0.020): better"
    assert describe_difference("x", "accuracy", lower).endswith(": worse")


def test_what_both_find_hard_cancels_out():
    one, other = tables()
    same = compare_scores(one, one, CLASSES, 200, seed=0)
    assert (same[["difference", "low", "high"]] == 0).all(axis=None) and (same.p == 1).all()
    mixed = other.assign(prediction=other.prediction.sample(frac=1, random_state=0).to_numpy())
    paired, apart = (compare_scores(one, t, CLASSES, 500, seed=0).loc["accuracy"]
                     for t in (other, mixed))
    assert paired.high - paired.low < 0.8 * (apart.high - apart.low)


def test_a_larger_share_holds_the_smaller_one():
    codes, folds = np.repeat([0, 1, 2], [50, 9, 1]), np.arange(60) % 2
    small, large = (draw_share(codes, folds, share, seed=3) for share in (0.1, 0.5))
    assert (large | ~small).all()
    # One of each class in each fold that has one, or no model could learn it.
    assert np.bincount(codes[small]).tolist() == [4, 2, 1]
    assert np.bincount(codes[large]).tolist() == [24, 4, 1]


def test_what_is_not_to_be_learnt_from_changes_nothing():
    rng = np.random.default_rng(0)
    codes, folds = np.tile([0, 1], 30), np.arange(60) // 2 % 3
    features = rng.normal(size=(60, 4)) + codes[:, None]
    learnt = rng.random(60) < 0.6
    found = [cross_validate(lambda: LogisticHead(2, None, [1.0]), features, given, folds,
                            progress=False, learnt=learnt)[0]
             for given in (codes, np.where(learnt, codes, 1 - codes))]
    assert np.array_equal(*found)
    assert len(found[0]) == 60


def test_baselines_answer_for_the_same_images_on_the_same_folds(trained):
    answers = answer_baselines(trained)
    oof = trained.load_table("oof_probabilities")
    majority, pixels, untrained, own = answers.values()
    assert all(list(table.image_id) == list(oof.image_id) for table in answers.values())
    assert set(majority.prediction) == {oof.label.value_counts().idxmax()}
    assert list(own.prediction) == list(oof.prediction)
    several = [t.filter(regex="^p_").to_numpy() for t in (pixels, untrained, own)]
    assert len(np.unique(several, axis=0)) == 3
    table = tabulate_baselines(trained, answers)
    assert (table.iloc[-1].filter(like="ahead") == 0).all()
    assert table["ahead value"].to_numpy() == pytest.approx(
        table["macro F1 value"].iloc[-1] - table["macro F1 value"].to_numpy())


def test_the_learning_curve_ends_at_the_score_of_all(trained):
    rows = select_rows(trained.load_table(), "train")
    oof = trained.load_table("oof_probabilities")
    curve = measure_learning_curve(trained, rows, np.asarray(load_features(trained, "train")),
                                   load_codes(trained), oof.filter(regex="^p_").to_numpy())
    assert curve.share.tolist() == [0.5, 1.0] and curve.images[0] < curve.images[1]
    assert curve.value.iloc[-1] == pytest.approx(
        f1_score(oof.label, oof.prediction, average="macro"))
