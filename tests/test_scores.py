"""Scores and their intervals: as scikit-learn and torchmetrics have them, and wide enough."""

import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics
from torchmetrics.functional.classification import (
    multiclass_auroc,
    multiclass_calibration_error,
)

from helpers.dev.bench_intervals import CLASSES, measure_coverage, simulate_answers
from helpers.evaluation import intervals
from helpers.evaluation.intervals import (
    bound_score,
    draw_weights,
    score_classes,
    score_with_intervals,
)
from helpers.evaluation.scores import SCORES, create_sample, list_scores
from helpers.files import SuiteError

NAMES = [f"c{number}" for number in range(7)]


def answer(images=400, classes=NAMES, seed=0, missing=()):
    """Return answers with probabilities, ties among them; some classes may not occur."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([c for c in range(len(classes)) if c not in missing], images)
    logits = rng.normal(size=(images, len(classes))) + 1.5 * np.eye(len(classes))[labels]
    p = np.exp(logits).round(1) + 0.05
    p /= p.sum(axis=1, keepdims=True)
    table = pd.DataFrame({"image_id": [f"i{n}" for n in range(images)],
                          "label": np.array(classes)[labels],
                          "prediction": np.array(classes)[p.argmax(axis=1)]})
    return table.join(pd.DataFrame(p, columns=[f"p_{name}" for name in classes])), labels, p


def test_scores_are_those_of_scikit_learn_and_torchmetrics():
    table, labels, p = answer()
    sample, guess, count = create_sample(table, NAMES), p.argmax(axis=1), len(NAMES)
    expected = {
        "accuracy": metrics.accuracy_score(labels, guess),
        "balanced accuracy": metrics.balanced_accuracy_score(labels, guess),
        "macro F1": metrics.f1_score(labels, guess, average="macro"),
        "weighted F1": metrics.f1_score(labels, guess, average="weighted"),
        "top-5 accuracy": metrics.top_k_accuracy_score(labels, p, k=5),
        "AUC": metrics.roc_auc_score(labels, p, multi_class="ovr"),
        "log loss": metrics.log_loss(labels, p),
        "Brier score": ((p - np.eye(count)[labels]) ** 2).sum(axis=1).mean(),
        "calibration error": multiclass_calibration_error(
            torch.tensor(p), torch.tensor(labels), count, n_bins=15).item()}
    assert set(expected) == set(SCORES) == set(list_scores(sample))
    for name, value in expected.items():
        # Ties at fifth place are broken in another way.
        close = 0.02 if name == "top-5 accuracy" else 1e-6
        assert SCORES[name](sample)[0] == pytest.approx(value, abs=close), name
    area = multiclass_auroc(torch.tensor(p), torch.tensor(labels), count).item()
    assert expected["AUC"] == pytest.approx(area, abs=1e-6)


def test_a_weight_counts_as_so_many_images():
    table, *_ = answer(80)
    weights = np.random.default_rng(1).integers(0, 4, (3, 80))
    sample = create_sample(table, NAMES, weights.astype(float))
    for name, score in list_scores(sample).items():
        for row, value in zip(weights, score(sample), strict=True):
            alone = create_sample(table.loc[table.index.repeat(row)], NAMES)
            assert value == pytest.approx(score(alone)[0]), name


def test_classes_that_do_not_occur_are_left_out_of_means():
    table, labels, _ = answer(missing=(2,))
    never = table.assign(prediction=table.prediction.where(table.prediction != "c5", "c0"))
    sample, guess = create_sample(never, NAMES), never.prediction.str[1:].astype(int)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = metrics.balanced_accuracy_score(labels, guess)
    assert SCORES["balanced accuracy"](sample)[0] == pytest.approx(balanced)
    assert SCORES["macro F1"](sample)[0] == pytest.approx(
        metrics.f1_score(labels, guess, average="macro"))
    by_class = score_classes(never, NAMES, 200, 0)
    assert by_class.images["c2"] == 0 and np.isnan(by_class.low["c2"])
    assert by_class.F1["c5"] == 0 and 0 <= by_class.low["c5"] < 0.01 < by_class.high["c5"] < 0.3
    expected = metrics.precision_recall_fscore_support(labels, guess, zero_division=0,
                                                       labels=range(7))
    np.testing.assert_allclose(by_class[["precision", "recall", "F1", "images"]].T, expected)


@pytest.mark.parametrize("group", [1, 4])
def test_intervals_hold_the_truth_as_often_as_they_say(group):
    """120 rounds of 60 images: of 100, at least 88 of what should be 95 (3 deviations)."""
    found = measure_coverage(60, group, 1.7, rounds=120, resamples=200)
    assert (found.ours >= 88).all(), found.to_string()
    if group > 1:  # what the images of a group have in common is not seen image by image
        assert found["percentile, groups ignored"]["accuracy"] < 88


def test_groups_are_drawn_whole_and_classes_keep_their_size():
    table = simulate_answers(60, 4, 1.7, np.random.default_rng(0))
    weights = np.concatenate(list(draw_weights(table, 50, seed=0)))
    by_group = pd.DataFrame(weights.T).groupby(table.group.to_numpy())
    assert (by_group.nunique() == 1).all(axis=None)
    totals = pd.DataFrame(weights.T).groupby(table.label.to_numpy()).sum()
    np.testing.assert_allclose(totals, np.tile(table.label.value_counts()[CLASSES], (50, 1)).T)
    alone = score_with_intervals(table.drop_duplicates("group"), CLASSES, 500, 0)
    copied = table.loc[table.drop_duplicates("group").index.repeat(4)]
    pd.testing.assert_frame_equal(alone, score_with_intervals(copied, CLASSES, 500, 0))


def test_a_perfect_score_of_few_images_is_no_certainty():
    few = pd.DataFrame({"label": ["a"] * 3 + ["b"] * 60}).assign(prediction=lambda t: t.label)
    found = score_classes(few, ["a", "b"], 200, 0)
    assert (found[["F1", "high"]] == 1).all(axis=None)
    assert found.low["a"] < 0.4 and 0.9 < found.low["b"] < 0.97
    low, high = bound_score("accuracy", 0.0, np.zeros(100), np.array([30, 30]))
    assert low == 0 and 0.03 < high < 0.1
    # Wilson's interval of 48 right among 60, from draws that vary like it.
    draws = np.random.default_rng(0).binomial(60, 0.8, 200_000) / 60
    low, high = bound_score("accuracy", 0.8, draws, np.array([6000, 6000]))
    assert (low, high) == pytest.approx((0.682, 0.882), abs=0.003)


def test_a_tiny_class_widens_only_what_it_counts_in():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], [300, 300, 2])
    guess = np.where(rng.random(602) < 0.9, labels, "a")
    found = score_with_intervals(pd.DataFrame({"label": labels, "prediction": guess}),
                                 ["a", "b", "c"], 400, 0)
    width = found.high - found.low
    assert width["accuracy"] < 0.06 < 0.12 < width["balanced accuracy"]
    # All right in two classes, all wrong in one: no draw differs, and that is no certainty.
    few = pd.DataFrame({"label": list("aaaabbbbcccc"), "prediction": list("aaaabbbbaaaa")})
    still = score_with_intervals(few, ["a", "b", "c"], 200, 0)
    assert (still.high - still.low).min() > 0.3


def test_one_class_one_group_and_a_perfect_answer_have_their_intervals():
    table, *_ = answer(30, seed=3)
    with np.errstate(all="raise"):
        one_class = table[table.label == "c1"]
        assert score_with_intervals(one_class, NAMES, 100, 0).value.notna().sum() >= 8
        one_group = score_with_intervals(table.assign(group=7), NAMES, 100, 0)
        assert (one_group.high - one_group.low)[["accuracy", "macro F1"]].min() > 0.5
        sure = pd.get_dummies(table.label).astype(float).add_prefix("p_")
        perfect = table[["label"]].assign(prediction=table.label).join(sure)
        found = score_with_intervals(perfect, sorted(set(table.label)), 100, 0)
    wild = bound_score("log loss", 1.0, np.array([0.1, 9.0] * 50), np.array([3, 3]))
    assert 0 < wild[0] < 1 < wild[1] < 16, "no file should hold an infinity"
    assert found.value[["accuracy", "AUC"]].tolist() == [1, 1] and found.low["AUC"] < 1
    assert np.isfinite(found.to_numpy()).all()


@pytest.mark.parametrize(("column", "value", "words"), [
    ("label", "c9", "1 images have a label that is no class of these answers, e.g. 'c9'"),
    ("prediction", None, "1 images have a prediction that is no class"),
    ("p_c1", np.nan, "probabilities of 1 images are missing, negative or do not add up to 1, "
                     "e.g. of i4"),
    ("p_c1", 3.0, "do not add up to 1, e.g. of i4"),
])
def test_answers_that_cannot_be_scored_are_refused_by_name(column, value, words):
    table, *_ = answer(20)
    table.loc[4, column] = value
    with pytest.raises(SuiteError, match=words):
        create_sample(table, NAMES)
    with pytest.raises(SuiteError, match="not one image"):
        create_sample(table[:0], NAMES)


def test_memory_stays_flat(monkeypatch):
    monkeypatch.setattr(intervals, "CELLS_AT_ONCE", 1000)
    table, *_ = answer(300)
    expected = list(draw_weights(table, 100, 0))
    assert max(stack.size for stack in expected) <= 1000 and sum(map(len, expected)) == 100
    held = []

    def watch(*args):
        for stack in expected:
            held.append(weakref.ref(stack_again := stack.copy()))
            yield stack_again
            del stack_again
            assert sum(ref() is not None for ref in held) <= 1, "stacks are kept"

    monkeypatch.setattr(intervals, "draw_weights", watch)
    score_with_intervals(table, NAMES, 100, 0, ["accuracy"])
    assert len(held) == len(expected)
