"""Heads, projection, evaluation: out-of-fold means out-of-fold, and scores are right."""

import io

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.data.splits import sample_rows
from helpers.evaluation import intervals
from helpers.evaluation.intervals import score_classes, score_with_intervals
from helpers.evaluation.projection import match_neighbours, project_features
from helpers.evaluation.scores import (
    count_confusion,
    find_mistakes,
    score_confusion,
    tabulate_predictions,
)
from helpers.files import SuiteError
from helpers.training import penalty_path, selection
from helpers.training.crossvalidation import (
    cross_validate,
    load_models,
    predict_ensemble,
    save_models,
    tabulate_choices,
    tabulate_probabilities,
)
from helpers.training.imbalance import Remedy
from helpers.training.linear import LogisticHead


@pytest.fixture(scope="module")
def digits():
    """The digits' pixels as features, five folds."""
    from sklearn.datasets import load_digits

    features, codes = load_digits(return_X_y=True)
    chosen = np.arange(400)
    return features[chosen].astype(np.float32), codes[chosen], chosen % 5


def create_logistic(c_grid, count=10):
    return LogisticHead(count, Remedy("class_weights"), c_grid)


def train_folds(features, codes, folds, c_grid, count=10):
    return cross_validate(lambda: create_logistic(c_grid, count), features, codes, folds, False)


@pytest.fixture(scope="module")
def trained(digits):
    return train_folds(*digits, [0.01, 1.0])


def test_every_image_gets_one_distribution(trained):
    probabilities, models = trained
    assert probabilities.shape == (400, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert [model.arrays["weights"].shape for model in models] == [(64, 10)] * 5
    assert (tabulate_choices(models).groupby("fold").chosen.sum() == 1).all()


def test_settings_are_chosen_on_the_next_fold():
    class Recorder:
        def __init__(self):
            self.choices = None

        def fit(self, inputs, codes, inner):
            self.seen = set(inputs), set(inputs[inner])
            return self

        def predict(self, inputs):
            return np.zeros((len(inputs), 2), np.float32)

    folds = np.repeat([0, 1, 2], 4)
    _, models = cross_validate(Recorder, folds.copy(), folds % 2, folds, False)
    assert [model.seen for model in models] == [({1, 2}, {1}), ({0, 2}, {2}), ({0, 1}, {0})]


def test_the_penalty_is_judged_on_the_inner_rows_alone(digits):
    """On inner rows with scrambled labels every C is as bad, elsewhere not."""
    features, codes, folds = digits
    inner = folds == 1
    honest = create_logistic([1e-4, 1.0]).fit(features, codes, inner)
    spoilt = np.where(inner, (codes + 5) % 10, codes)
    fooled = create_logistic([1e-4, 1.0]).fit(features, spoilt, inner)
    assert honest.choices["macro F1"].max() > 0.8 and fooled.choices["macro F1"].max() < 0.2


def test_models_are_saved_and_answer_for_the_same_inputs_only(digits, trained, tmp_path):
    path, inputs = tmp_path / "head.npz", {"backbone": "a", "preprocessing": {"mean": [0.5]}}
    names = [f"digit {n}" for n in range(10)]
    save_models(trained[1], "logistic", names, inputs, path)
    models, classes = load_models(path, inputs)
    assert classes == names
    for model, again in zip(trained[1], models, strict=True):
        assert np.array_equal(model.predict(digits[0]), again.predict(digits[0]))
    with pytest.raises(SuiteError, match=r"other inputs: mean \[0.5\] \(now \[0.4\]\)"):
        load_models(path, inputs | {"preprocessing": {"mean": [0.4]}})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(SuiteError, match=r"head\.npz holds no models"):
        load_models(path, inputs)


def test_an_image_never_decides_its_own_probabilities(digits, trained):
    features, codes, folds = digits
    spoilt = np.where(folds == 2, (codes + 1) % 10, codes)
    probabilities, _ = train_folds(features, spoilt, folds, [0.01, 1.0])
    assert np.array_equal(probabilities[folds == 2], trained[0][folds == 2])
    assert not np.array_equal(probabilities[folds != 2], trained[0][folds != 2])


def test_a_head_answers_as_scikit_learns_pipeline(digits):
    features, codes, folds = digits
    probabilities, models = train_folds(features, codes, folds, [0.1])
    train = folds != 0
    model = make_pipeline(StandardScaler(), LogisticRegression(
        C=0.1, class_weight="balanced", max_iter=5000, tol=1e-8))
    expected = model.fit(features[train], codes[train]).predict_proba(features)
    found = models[0].predict(features)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(probabilities[~train], expected[~train], atol=1e-3)
    each = [model.predict(features) for model in models]
    np.testing.assert_allclose(predict_ensemble(models, features), np.mean(each, axis=0))


def test_two_classes_work_as_many_do(digits):
    features, codes, folds = digits
    two = codes < 2
    probabilities, models = train_folds(features[two], codes[two], folds[two], [1.0], 2)
    assert models[0].arrays["weights"].shape == (64, 2)
    assert metrics.accuracy_score(codes[two], probabilities.argmax(axis=1)) > 0.95


def test_the_path_is_left_when_the_score_has_fallen(digits, monkeypatch):
    features, codes, folds = digits
    monkeypatch.setattr(selection, "FALLEN", 1.01)  # at once
    monkeypatch.setattr(selection, "LARGE", 0)
    head = create_logistic([10, 1, 0.01, 0.001]).fit(features, codes, folds == 1)
    assert head.choices["C"].tolist() == [0.001] and head.choices.chosen.all()


def test_many_images_take_the_short_cut_to_nearly_the_same_answer(digits, monkeypatch):
    features, codes, folds = digits
    exact = create_logistic([0.01]).fit(features, codes, folds == 1)
    monkeypatch.setattr(penalty_path, "FEW", 0)
    head = create_logistic([0.01]).fit(features, codes, folds == 1)
    np.testing.assert_allclose(head.predict(features), exact.predict(features), atol=0.05)
    assert not np.array_equal(head.predict(features), exact.predict(features))


def test_a_class_that_only_the_inner_fold_has_is_learnt_in_the_end(digits):
    features, codes, folds = digits
    kept = (codes != 4) | (folds == 1)
    head = create_logistic([1.0]).fit(features[kept], codes[kept], folds[kept] == 1)
    found = head.predict(features).argmax(axis=1)
    assert metrics.accuracy_score(codes, found) > 0.9 and (found == 4).any()


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


def test_a_perfect_class_of_two_images_keeps_its_score_in_every_resample():
    """Resamples without either image say nothing about it, least of all 0."""
    found = score_classes(np.diag([2, 60, 40]), list("abc"), 500, 0)
    assert found.loc["a", ["F1", "low", "high"]].tolist() == [1, 1, 1]
    absent = score_classes(np.diag([0, 60, 40]), list("abc"), 100, 0)
    assert absent.loc["a", ["F1", "low", "high"]].tolist() == [0, 0, 0]


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
    alone = np.arange(150)
    same = match_neighbours(places, codes[:150], alone).mean()
    assert same > 0.7 > 0.3 > match_neighbours(
        np.random.default_rng(0).permutation(places), codes[:150], alone).mean()
    assert np.array_equal(places, project_features(features[:150], 30, seed=0))
    project_features(features[:12], 30, seed=0)
    assert "perplexity lowered from 30" in capsys.readouterr().out
    rows = pd.DataFrame({"label": codes, "fold": np.arange(len(codes)) % 5})
    sample = sample_rows(rows, 100, seed=0)
    assert len(set(sample)) == len(sample) == pytest.approx(100, abs=20)
    assert rows.iloc[sample].groupby(["label", "fold"]).ngroups == 50


def test_an_images_own_copies_are_not_its_neighbours():
    places = np.array([[0.0, 0], [0.1, 0], [1, 0], [1.1, 0], [5, 0]])
    labels, groups = np.array(list("aabba")), np.array([7, 7, 8, 9, 10])
    assert match_neighbours(places, labels, groups).tolist() == [0, 0, 1, 1, 0]
    assert np.isnan(match_neighbours(places[:2], labels[:2], groups[:2])).all()


def test_charts_take_any_class_name_and_many_classes():
    from helpers.pictures import charts

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
    from helpers.pictures.charts import plot_scores

    scores = pd.DataFrame({"value": [0.5], "low": [0.3], "high": [0.45]}, index=["macro F1"])
    plot_scores({"out-of-fold": scores}).savefig(io.BytesIO())


def test_many_classes_fit_in_memory(monkeypatch):
    monkeypatch.setattr(intervals, "CELLS_AT_ONCE", 1000)
    confusion = np.diag([3] * 20) + np.eye(20, k=1, dtype=int)
    stacks = list(intervals.resample_confusion(confusion, 100, 0))
    assert max(stack.size for stack in stacks) <= 1000
    assert sum(len(stack) for stack in stacks) == 100
    assert {stack.sum(axis=(1, 2)).tolist()[0] for stack in stacks} == {confusion.sum()}
