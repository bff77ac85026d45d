"""Heads, projection, evaluation: out-of-fold means out-of-fold, and scores are right."""

import io

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.evaluation import (
    count_confusion,
    find_mistakes,
    score_classes,
    score_confusion,
    score_with_intervals,
    tabulate_predictions,
)
from helpers.heads import predict_ensemble, predict_head, tabulate_probabilities, train_folds
from helpers.projection import project_features, sample_rows


@pytest.fixture(scope="module")
def digits():
    """The digits' pixels as features, five folds."""
    from sklearn.datasets import load_digits

    features, codes = load_digits(return_X_y=True)
    chosen = np.arange(400)
    return features[chosen].astype(np.float32), codes[chosen], chosen % 5


@pytest.fixture(scope="module")
def trained(digits):
    return train_folds(*digits, [1.0] * 10, [0.01, 1.0])


def test_every_image_gets_one_distribution(trained):
    probabilities, heads, scores = trained
    assert probabilities.shape == (400, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert heads["weights"].shape == (5, 64, 10)
    assert (scores.groupby("fold").chosen.sum() == 1).all()


def test_an_image_never_decides_its_own_probabilities(digits, trained):
    features, codes, folds = digits
    spoilt = np.where(folds == 2, (codes + 1) % 10, codes)
    probabilities, _, _ = train_folds(features, spoilt, folds, [1.0] * 10, [0.01, 1.0])
    assert np.array_equal(probabilities[folds == 2], trained[0][folds == 2])
    assert not np.array_equal(probabilities[folds != 2], trained[0][folds != 2])


def test_a_head_answers_as_scikit_learns_pipeline(digits):
    features, codes, folds = digits
    weights = np.linspace(0.5, 2, 10)
    probabilities, heads, _ = train_folds(features, codes, folds, list(weights), [0.1])
    train = folds != 0
    model = make_pipeline(StandardScaler(), LogisticRegression(
        C=0.1, class_weight=dict(enumerate(weights)), max_iter=1000))
    expected = model.fit(features[train], codes[train]).predict_proba(features)
    found = predict_head(heads["weights"][0], heads["biases"][0], features)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(probabilities[~train], expected[~train], atol=1e-4)
    each = [predict_head(w, b, features) for w, b in zip(*heads.values(), strict=True)]
    np.testing.assert_allclose(predict_ensemble(heads, features), np.mean(each, axis=0))


def test_two_classes_work_as_many_do(digits):
    features, codes, folds = digits
    two = codes < 2
    probabilities, heads, _ = train_folds(features[two], codes[two], folds[two], [1, 1], [1.0])
    assert heads["weights"].shape == (5, 64, 2)
    assert metrics.accuracy_score(codes[two], probabilities.argmax(axis=1)) > 0.95


def test_scores_equal_scikit_learns():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 6, 500), rng.integers(0, 7, 500)  # class 6 never occurs
    found = score_confusion(metrics.confusion_matrix(truth, guess, labels=range(8)))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, guess))
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = metrics.balanced_accuracy_score(truth, guess)
    assert found["balanced accuracy"] == pytest.approx(balanced)
    for average in ("macro", "weighted"):
        expected = metrics.f1_score(truth, guess, average=average)
        assert found[f"{average} F1"] == pytest.approx(expected)


def test_intervals_equal_those_of_resampled_images():
    rng = np.random.default_rng(1)
    truth = rng.choice(4, 300, p=[0.6, 0.2, 0.15, 0.05])
    guess = np.where(rng.random(300) < 0.8, truth, rng.integers(0, 4, 300))
    confusion = metrics.confusion_matrix(truth, guess)
    found = score_with_intervals(confusion, 4000, seed=0).loc["macro F1"]
    draws = []
    for _ in range(1500):
        rows = rng.integers(0, 300, 300)
        draws.append(metrics.f1_score(truth[rows], guess[rows], average="macro"))
    assert found.value == pytest.approx(metrics.f1_score(truth, guess, average="macro"))
    np.testing.assert_allclose([found.low, found.high], np.quantile(draws, [0.025, 0.975]),
                               atol=0.01)


def test_class_scores_equal_scikit_learns():
    rng = np.random.default_rng(2)
    truth, guess = rng.integers(0, 3, 90), rng.integers(0, 3, 90)
    found = score_classes(metrics.confusion_matrix(truth, guess), list("abc"), 200, 0)
    expected = metrics.precision_recall_fscore_support(truth, guess)
    np.testing.assert_allclose(found[["precision", "recall", "F1", "images"]].T, expected)
    assert ((found.low <= found.F1) & (found.high >= found.F1)).all()


def test_mistakes_and_predictions():
    rows = pd.DataFrame({"image_id": list("wxyz"), "path": ["p"] * 4, "split": "train",
                         "fold": 0, "label": ["a", "a", "b", "b"]})
    table = tabulate_probabilities(
        rows, np.array([[.9, .1], [.4, .6], [.8, .2], [.1, .9]], np.float32), ["a", "b"])
    assert list(table.prediction) == ["a", "b", "a", "b"]
    mistakes = find_mistakes(table)
    assert list(mistakes.image_id) == ["y", "x"]
    assert mistakes.confidence.tolist() == pytest.approx([0.8, 0.6])
    assert count_confusion(table, ["a", "b"]).tolist() == [[1, 1], [1, 1]]
    assert find_mistakes(table[table.prediction == table.label]).empty
    predictions = tabulate_predictions(table, {"10": "a", "20": "b"})
    assert list(predictions.code) == ["10", "20", "10", "20"]
    assert "code" not in tabulate_predictions(table, {})


def test_projection_keeps_neighbours_and_bows_to_few_images(digits, capsys):
    features, codes, _ = digits
    places = project_features(features[:150], 30, seed=0)
    assert places.shape == (150, 2)
    assert np.array_equal(places, project_features(features[:150], 30, seed=0))
    project_features(features[:12], 30, seed=0)
    assert "perplexity lowered from 30" in capsys.readouterr().out
    sample = sample_rows(pd.Series(codes), 100, seed=0)
    assert len(set(sample)) == 100
    assert set(codes[sample]) == set(range(10))


def test_charts_take_any_class_name_and_many_classes():
    from helpers import charts

    names = ["true", "cost $^$", "_hidden", "x" * 90, *(f"class {i}" for i in range(60))]
    rng = np.random.default_rng(3)
    points = pd.DataFrame({
        "label": rng.permutation(names * 3), "x": rng.random(192), "y": rng.random(192),
        "split": "train", "fold": rng.integers(0, 3, 192)})
    confusion = rng.integers(0, 3, (64, 64))
    classes = score_classes(confusion, names, 100, 0)
    for few in (points, points[points.label.isin(names[:4])]):
        for figure in (charts.plot_projection(few), charts.plot_class_shares(few),
                       charts.plot_class_counts(few.label.value_counts())):
            figure.savefig(io.BytesIO())
    labels = charts.plot_projection(few).axes[0].get_legend().get_texts()
    assert {text.get_text() for text in labels} == {charts.shorten(name) for name in names[:4]}
    charts.plot_confusion(confusion, names).savefig(io.BytesIO())
    charts.plot_class_scores(classes).savefig(io.BytesIO())


def test_a_score_outside_its_interval_can_be_drawn():
    from helpers.charts import plot_scores

    scores = pd.DataFrame({"value": [0.5], "low": [0.3], "high": [0.45]}, index=["macro F1"])
    plot_scores({"out-of-fold": scores}).savefig(io.BytesIO())


def test_many_classes_fit_in_memory(monkeypatch):
    from helpers import evaluation

    monkeypatch.setattr(evaluation, "CELLS_AT_ONCE", 1000)
    confusion = np.diag([3] * 20) + np.eye(20, k=1, dtype=int)
    stacks = list(evaluation.resample_confusion(confusion, 100, 0))
    assert max(stack.size for stack in stacks) <= 1000
    assert sum(len(stack) for stack in stacks) == 100
    assert {stack.sum(axis=(1, 2)).tolist()[0] for stack in stacks} == {confusion.sum()}
