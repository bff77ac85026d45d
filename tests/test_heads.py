"""Heads and remedies: each as its library alone, nothing synthetic is ever judged."""

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline
from imblearn.under_sampling import RandomUnderSampler
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import f1_score, log_loss
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, WeightedRandomSampler

from helpers.files import SuiteError
from helpers.head_settings import HEADS, REMEDIES, TAKEN_BY, HeadSettings
from helpers.training import estimators, linear, perceptron
from helpers.training.crossvalidation import cross_validate, load_models, save_models
from helpers.training.heads import create_head
from helpers.training.imbalance import Remedy, choose_adjustment, describe_small_classes
from helpers.training.selection import fit_temperature

WIDTH = 20


@pytest.fixture(scope="module")
def unequal():
    """Three overlapping classes of 150, 45 and 15 images, five folds."""
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], [150, 45, 15])
    places = rng.normal(size=(3, WIDTH))
    features = (places[codes] + 1.5 * rng.normal(size=(len(codes), WIDTH))).astype(np.float32)
    folds = np.arange(len(codes)) % 5
    return features, codes, folds


def fit(unequal, head="logistic", remedy="none", grid=(0.1,), count=3):
    features, codes, folds = unequal
    settings = HeadSettings(classifier=head, imbalance=remedy, c_grid=list(grid))
    return create_head(settings, count, 0).fit(features, codes, folds == 1)


def few_settings(monkeypatch, kind, **settings):
    """Leave one candidate, so that the library alone can be given the same."""
    monkeypatch.setattr(kind, "preparation", {"standardised": [True], "components": [8]})
    monkeypatch.setattr(kind, "settings", {name: [value] for name, value in settings.items()})


LIBRARY = {
    "ridge": (linear.RidgeHead, {"alpha": 10.0},
              lambda weights: RidgeClassifier(alpha=10.0, class_weight=weights)),
    "knn": (estimators.NeighboursHead, {"n_neighbors": 5}, lambda weights: KNeighborsClassifier(
        5, metric="cosine", weights="distance")),
    "forest": (estimators.ForestHead, {"min_samples_leaf": 2},
               lambda weights: RandomForestClassifier(
                   200, min_samples_leaf=2, max_leaf_nodes=estimators.LEAVES,
                   class_weight=weights, random_state=0)),
    "boosting": (estimators.BoostingHead, {},
                 lambda weights: HistGradientBoostingClassifier(
                     max_iter=50, max_leaf_nodes=15, l2_regularization=1.0, random_state=0,
                     early_stopping=False, class_weight=weights)),
    "class_mean": (linear.ClassMeanHead, {}, lambda weights: NearestCentroid())}


@pytest.mark.parametrize("remedy", ["none", "class_weights"])
@pytest.mark.parametrize("name", LIBRARY)
def test_a_head_answers_as_its_library_alone(unequal, monkeypatch, name, remedy):
    kind, settings, create = LIBRARY[name]
    few_settings(monkeypatch, kind, **settings)
    features, codes, _ = unequal
    library = make_pipeline(StandardScaler(), PCA(8, random_state=0),
                            create("balanced" if remedy == "class_weights" else None))
    library.fit(features, codes)
    found = fit(unequal, name, remedy).predict(features)
    assert np.array_equal(found.argmax(axis=1), library.predict(features))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    if name in ("forest", "boosting"):
        np.testing.assert_allclose(found, library.predict_proba(features), atol=1e-5)


@pytest.mark.parametrize("remedy", ["none", "class_weights"])
@pytest.mark.parametrize("classes", [3, 2])
def test_the_support_vector_machine_is_scikit_learns(unequal, monkeypatch, remedy, classes):
    monkeypatch.setattr(linear, "STRENGTHS", (0.01,))
    features, codes, folds = (part[unequal[1] < classes] for part in unequal)
    library = make_pipeline(StandardScaler(), LinearSVC(
        C=0.01, tol=1e-8, max_iter=100_000,
        class_weight="balanced" if remedy == "class_weights" else None)).fit(features, codes)
    settings = HeadSettings(classifier="svm", imbalance=remedy)
    head = create_head(settings, classes, 0).fit(features, codes, folds == 1)
    expected = library.decision_function(features)
    found = head.answer(features)
    np.testing.assert_allclose(found if classes > 2 else found[:, 1], expected, atol=2e-3)


def test_margins_become_probabilities_by_scikit_learns_temperature(unequal):
    calibration = pytest.importorskip("sklearn.calibration")
    if "temperature" not in str(calibration.CalibratedClassifierCV._parameter_constraints):
        pytest.skip("this scikit-learn has no temperature scaling")
    from sklearn.frozen import FrozenEstimator

    features, codes, folds = unequal
    model = RidgeClassifier().fit(features[folds > 1], codes[folds > 1])
    judged = folds == 1
    library = calibration.CalibratedClassifierCV(FrozenEstimator(model), method="temperature")
    library.fit(features[judged], codes[judged])
    margins = model.decision_function(features)
    scale = fit_temperature(margins[judged], codes[judged])
    np.testing.assert_allclose(softmax(scale * margins, axis=1), library.predict_proba(features),
                               atol=2e-3)


SAMPLERS = {"oversampling": RandomOverSampler(random_state=0),
            "undersampling": RandomUnderSampler(random_state=0),
            "smote": SMOTE(random_state=0)}


@pytest.mark.parametrize("remedy", SAMPLERS)
def test_sampling_remedies_equal_imbalanced_learns_pipeline(unequal, remedy):
    features, codes, _ = unequal
    library = make_pipeline(SAMPLERS[remedy], StandardScaler(), LogisticRegression(
        C=0.1, tol=1e-8, max_iter=5000)).fit(features, codes)
    found = fit(unequal, "logistic", remedy).predict(features)
    if remedy == "smote":  # class after class here, all at once there: other random numbers
        ours, numbers = Remedy("smote").resample(features, codes)
        assert np.bincount(numbers).tolist() == [150] * 3
        assert np.array_equal(ours[: len(codes)], features)
        assert (found.argmax(axis=1) == library.predict(features)).mean() > 0.95
    else:
        np.testing.assert_allclose(found, library.predict_proba(features), atol=1e-3)


def test_the_focal_loss_is_minimised_as_torch_minimises_it(unequal):
    features, codes, _ = unequal
    scaled = torch.from_numpy(StandardScaler().fit_transform(features)).double()
    weights = torch.zeros(WIDTH, 3, dtype=torch.double, requires_grad=True)
    biases = torch.zeros(3, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, biases], max_iter=500, tolerance_change=1e-14,
                                  line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        losses = cross_entropy(scaled @ weights + biases, torch.from_numpy(codes),
                               reduction="none")
        total = ((1 - torch.exp(-losses)) ** 2 * losses).sum() + weights.square().sum() / 0.2
        total.backward()
        return total

    optimizer.step(closure)
    expected = torch.softmax(scaled @ weights + biases, dim=1).detach().numpy()
    found = fit(unequal, "logistic", "focal").predict(features)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    plain = fit(unequal).predict(features)
    assert abs(found - plain).max() > 0.05


def test_balanced_softmax_of_a_linear_head_is_the_adjustment_of_strength_one(unequal):
    """With free intercepts both shift each logit by the logarithm of its class's share."""
    features, codes, _ = unequal
    plain = fit(unequal).predict(features)
    expected = plain / (np.bincount(codes) / len(codes))
    found = fit(unequal, "logistic", "balanced_softmax").predict(features)
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), atol=1e-3)


def test_the_adjustment_is_chosen_on_the_inner_fold(unequal):
    features, codes, folds = unequal
    judged = folds == 1
    plain, adjusted = fit(unequal), fit(unequal, "logistic", "logit_adjustment")
    priors = np.bincount(codes) / len(codes)
    strength, shift = choose_adjustment(np.log(plain.judged), codes[judged], priors)
    assert adjusted.choices.adjustment.item() == strength > 0
    np.testing.assert_allclose(
        adjusted.predict(features), softmax(np.log(plain.predict(features)) + shift, axis=1),
        atol=1e-5)
    scores = [f1_score(codes[judged], head.judged.argmax(axis=1), average="macro")
              for head in (plain, adjusted)]
    assert scores[1] >= scores[0]


@pytest.mark.parametrize("remedy", ["none", "class_weights", "balanced_batches"])
def test_the_perceptron_learns_as_a_loop_in_torch(unequal, monkeypatch, remedy):
    monkeypatch.setattr(perceptron, "EPOCHS", (3,))
    monkeypatch.setattr(perceptron.PerceptronHead, "dropouts", (0.2,))
    features, codes, _ = unequal
    scaled = torch.from_numpy(StandardScaler().fit_transform(features))
    targets, weights = torch.from_numpy(codes), len(codes) / (3 * np.bincount(codes))
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(WIDTH, perceptron.HIDDEN), torch.nn.ReLU(),
                                  torch.nn.Dropout(0.2), torch.nn.Linear(perceptron.HIDDEN, 3))
    loss = torch.nn.CrossEntropyLoss(
        torch.tensor(weights).float() if remedy == "class_weights" else None)
    chances = 1 / np.bincount(codes)[codes] if remedy == "balanced_batches" else None
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-2)
    for _ in range(3):
        if chances is None:
            order = torch.utils.data.RandomSampler(codes, generator=generator)
        else:
            order = WeightedRandomSampler(chances, len(codes), generator=generator)
        for rows in BatchSampler(order, 16, drop_last=False):
            optimizer.zero_grad()
            loss(network(scaled[rows]), targets[rows]).backward()
            optimizer.step()
    expected = torch.softmax(network.eval()(scaled), dim=1).detach().numpy()
    found = fit(unequal, "mlp", remedy)
    np.testing.assert_allclose(found.predict(features), expected, atol=1e-4)


def test_boosting_copes_with_many_small_classes(monkeypatch):
    monkeypatch.setattr(estimators.BoostingHead, "preparation",
                        {"standardised": [True], "components": [32]})
    rng = np.random.default_rng(0)
    codes, folds = np.tile(np.arange(100), 15), np.arange(1500) // 100 % 5
    features = rng.normal(size=(100, 32))[codes] + rng.normal(size=(1500, 32))
    head = fit((features.astype(np.float32), codes, folds), "boosting", count=100)
    assert (head.judged.argmax(axis=1) == codes[folds == 1]).mean() > 0.5


def test_balanced_batches_draw_every_class_equally_often(unequal):
    drawn = perceptron.draw_batches(Remedy("balanced_batches"), unequal[1],
                                    torch.Generator().manual_seed(0))
    seen = np.concatenate([unequal[1][rows] for _ in range(20) for rows in drawn])
    assert np.bincount(seen) / len(seen) == pytest.approx([1 / 3] * 3, abs=0.03)


@pytest.mark.parametrize("remedy", REMEDIES)
@pytest.mark.parametrize("head", ["logistic", "linear", "mlp", "ridge"])
def test_nothing_repeated_or_invented_is_judged(unequal, monkeypatch, head, remedy):
    """Columns say in which fold an image is; no mixture can hide that."""
    if head not in TAKEN_BY.get(remedy, HEADS):
        pytest.skip("refused")
    monkeypatch.setattr(perceptron, "EPOCHS", (1,))
    features, codes, folds = unequal
    marked = np.hstack([features, 9.0 * np.eye(5)[folds]]).astype(np.float32)
    settings = HeadSettings(classifier=head, imbalance=remedy, c_grid=[0.1])
    kind = type(create_head(settings, 3, 0))
    tries, learns, asks = [], [], []
    originals = kind.try_candidates, kind.learn, kind.predict

    def try_candidates(self, inputs, codes, judged):
        tries.append((inputs, judged))
        return originals[0](self, inputs, codes, judged)

    def learn(self, chosen, inputs, codes):
        learns.append(inputs)
        return originals[1](self, chosen, inputs, codes)

    def predict(self, inputs):
        asks.append(inputs)
        return originals[2](self, inputs)

    for method in (try_candidates, learn, predict):
        monkeypatch.setattr(kind, method.__name__, method)
    probabilities, _ = cross_validate(lambda: create_head(settings, 3, 0), marked, codes,
                                      folds, progress=False)
    assert probabilities.shape == (len(codes), 3)
    for fold, (tried, learnt, asked) in enumerate(zip(tries, learns, asks, strict=True)):
        inner, (tried, judged) = (fold + 1) % 5, tried
        assert not tried[:, [WIDTH + fold, WIDTH + inner]].any()
        assert not learnt[:, WIDTH + fold].any()
        assert np.array_equal(judged, marked[folds == inner])
        assert np.array_equal(asked, marked[folds == fold])
        rest, repeats = (folds != fold).sum(), remedy in ("oversampling", "smote")
        assert len(learnt) > rest if repeats else len(learnt) <= rest


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_saved_without_pickle_and_answers_as_before(unequal, tmp_path, monkeypatch,
                                                                 name):
    monkeypatch.setattr(perceptron, "EPOCHS", (1,))
    monkeypatch.setattr(estimators, "TREES", 10)
    features, codes, folds = unequal
    settings = HeadSettings(classifier=name, imbalance="none", c_grid=[0.1])
    _, models = cross_validate(lambda: create_head(settings, 3, 0), features, codes,
                               folds, progress=False)
    save_models(models[:2], name, ["a", "b", "c"], {"backbone": "x"}, tmp_path / "head.npz")
    again, _ = load_models(tmp_path / "head.npz", {"backbone": "x"})
    for model, restored in zip(models, again, strict=False):
        assert np.array_equal(model.predict(features), restored.predict(features))


def test_a_saved_model_that_would_run_code_is_not_opened():
    class Trap:
        def __reduce__(self):
            return (print, ("opened",))

    data = np.frombuffer(skops.io.dumps(Trap()), np.uint8)
    head = estimators.ForestHead(arrays={"estimator": data, "shift": np.zeros(2)})
    with pytest.raises(SuiteError, match="not opened"):
        head.answer(np.zeros((1, 2)))


@pytest.mark.parametrize("name", HEADS)
def test_two_classes_a_missing_class_and_useless_features_are_coped_with(unequal, monkeypatch,
                                                                       name):
    monkeypatch.setattr(perceptron, "EPOCHS", (3,))
    monkeypatch.setattr(estimators, "TREES", 20)
    features, codes, folds = unequal
    dull = np.hstack([features, features[:, :3], np.ones((len(codes), 2), np.float32)])
    lone = np.where((codes == 2) & (folds != 0), 1, codes)  # class 2 in fold 0 alone
    settings = HeadSettings(classifier=name, imbalance="none", c_grid=[0.1])
    for targets, count in ((lone, 3), (np.minimum(codes, 1), 2)):
        found, _ = cross_validate(lambda n=count: create_head(settings, n, 0), dull,
                                  targets, folds, progress=False)
        assert np.isfinite(found).all() and np.allclose(found.sum(axis=1), 1, atol=1e-5)
        if count == 3:
            assert (found[folds == 0, 2] == 0).all()
        else:
            assert f1_score(targets, found.argmax(axis=1), average="macro") > 0.6


def test_more_neighbours_than_images_are_all_images(unequal):
    few = np.concatenate([np.flatnonzero(unequal[1] == code)[:6] for code in range(3)])
    head = fit([part[few] for part in unequal], "knn")
    assert head.choices.n_neighbors.max() > len(few)
    assert np.isfinite(head.predict(unequal[0])).all()


def test_smote_repeats_a_single_image_and_says_so(unequal):
    features, codes, _ = unequal
    kept = np.r_[0:150, 150:154, 195]  # 150, 4 and 1 images
    more, numbers = Remedy("smote").resample(features[kept], codes[kept])
    assert np.bincount(numbers).tolist() == [150] * 3
    assert len(np.unique(more[numbers == 2], axis=0)) == 1
    assert len(np.unique(more[numbers == 1], axis=0)) > 100
    rows = pd.DataFrame({"label": ["many"] * 30 + ["few"] * 5, "fold": [*range(5)] * 7})
    said = describe_small_classes(rows)
    assert "'few' (3)" in said and "'many'" not in said


def test_settings_are_refused_by_name():
    from helpers.recipe import load_recipe

    for wrong, message in (
            ({"head": "rigde"}, "did you mean 'ridge'"),
            ({"imbalance": "smot"}, "did you mean 'smote'"),
            ({"head": "ridge", "imbalance": "focal"}, "and the head is ridge"),
            ({"compare_heads": ["logistic", "foerst"]}, "did you mean 'forest'"),
            ({"compare_heads": ["ridge+focal", "svm"]}, "cannot be 'ridge\\+focal'"),
            ({"compare_heads": ["svm", "svm"]}, "name each head once"),
            ({"text_columns": ["label"]}, "only text about the image"),
            ({"inputs": "both"}, "needs the names of columns")):
        with pytest.raises(SuiteError, match=message):
            load_recipe("demo", wrong)
    assert load_recipe("demo", {"head": "ridge"}).head.classifier == "ridge"


def test_class_weights_too_know_nothing_of_the_judged_fold(unequal):
    features, codes, folds = unequal
    for remedy in REMEDIES:
        name = TAKEN_BY.get(remedy, HEADS)[0]
        settings = HeadSettings(classifier=name, imbalance=remedy, c_grid=[0.1])
        honest, fooled = (cross_validate(lambda s=settings: create_head(s, 3, 0), features, given,
                                         folds, progress=False)[0]
                          for given in (codes, np.where(folds == 2, 2, codes)))
        assert np.array_equal(honest[folds == 2], fooled[folds == 2]), remedy


def test_of_candidates_that_score_the_same_the_log_loss_chooses(unequal):
    features, codes, folds = unequal
    easy = np.hstack([features, 20.0 * np.eye(3)[codes]]).astype(np.float32)
    head = fit((easy, codes, folds), grid=(0.1, 1.0))
    assert head.choices["macro F1"].tolist() == [1, 1]
    assert head.choices.chosen.tolist() == [False, True]


def test_a_flawless_inner_fold_makes_nobody_certain(unequal):
    codes = unequal[1]
    scale = fit_temperature(np.eye(3)[codes], codes)
    losses = -np.log(softmax(scale * np.eye(3)[codes], axis=1)[np.arange(len(codes)), codes])
    assert losses.mean() == pytest.approx(1 / (len(codes) + 2), rel=1e-2)


def test_a_training_part_of_one_class_is_refused(unequal):
    features, codes, folds = unequal
    alone = np.where(folds == 1, codes, 0)
    with pytest.raises(SuiteError, match="one class only"):
        fit((features, alone, folds))


def test_log_loss_of_a_head_is_that_of_scikit_learn(unequal):
    from helpers.evaluation.scores import create_sample, measure_losses
    from helpers.training.crossvalidation import tabulate_probabilities

    features, codes, _ = unequal
    found, classes = fit(unequal).predict(features), ["a", "b", "c"]
    rows = pd.DataFrame({"image_id": codes, "label": np.take(classes, codes)})
    table = tabulate_probabilities(rows, found, classes)
    table["image_id"] = codes.astype(str)
    mean = measure_losses(create_sample(table, classes)).mean()
    assert mean == pytest.approx(log_loss(codes, found), rel=1e-4)
