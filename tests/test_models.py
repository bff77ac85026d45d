"""Heads: out-of-fold means out-of-fold, and what is chosen is chosen on other images."""

import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.files import SuiteError
from helpers.training import penalty_path, selection
from helpers.training.crossvalidation import (
    cross_validate,
    load_models,
    predict_ensemble,
    save_models,
    tabulate_choices,
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
