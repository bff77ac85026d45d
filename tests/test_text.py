"""Text beside the photo: counted as scikit-learn counts, blended inside the fold, or missing."""

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline, make_union

from helpers.data.preparation import prepare_run
from helpers.evaluation import head_comparison
from helpers.evaluation.head_comparison import answer_heads, tabulate_heads
from helpers.evaluation_settings import CANDIDATES, EvaluationSettings
from helpers.features.extraction import extract_run
from helpers.files import SuiteError
from helpers.head_settings import HeadSettings
from helpers.run import open_run
from helpers.settings import Recipe
from helpers.training import estimators, perceptron, text
from helpers.training.crossvalidation import (
    cross_validate,
    describe_inputs,
    load_inputs,
    load_models,
)
from helpers.training.fusion import FusionHead, PhotoAndText
from helpers.training.heads import create_head, create_model
from helpers.training.strategies import train_run
from helpers.training.text import TextHead, check_texts, count_terms, join_texts

WORDS = ["caisse en carton", "bouteille en verre", "boîte en métal"]


@pytest.fixture(scope="module")
def described():
    """Sixty short texts of three classes, three of them empty, in five folds."""
    rng = np.random.default_rng(0)
    codes = np.arange(60) % 3
    texts = [" ".join(rng.permutation(f"{WORDS[code]} numéro {n % 7} d'occasion".split()))
             for n, code in enumerate(codes)]
    texts = ["" if n in (7, 8, 9) else said for n, said in enumerate(texts)]
    return texts, codes, np.arange(60) // 3 % 5


@pytest.fixture(scope="module")
def run(rakuten, write_recipe):
    """The demo's photos with texts, as far as features."""
    run = open_run(write_recipe("texts", rakuten, run="texts", near_copy=0.93, folds=3,
                                text_columns=["designation", "description"], inputs="both",
                                small_classes="merge",
                                compare_heads=EvaluationSettings().compare_heads))
    prepare_run(run)
    extract_run(run)
    return run


def test_terms_are_counted_and_weighed_as_scikit_learn_does(described):
    texts, codes, _ = described
    options = {"strip_accents": "unicode", "alternate_sign": False, "norm": None,
               "n_features": text.COLUMNS, "dtype": np.float32}
    library = make_pipeline(
        make_union(*(make_pipeline(HashingVectorizer(**options, **how),
                                   TfidfTransformer(sublinear_tf=True))
                     for how in ({"ngram_range": (1, 2)},
                                 {"analyzer": "char_wb", "ngram_range": (3, 5)}))),
        SGDClassifier(loss="log_loss", alpha=1e-5, average=True, random_state=0))
    library.fit(texts, codes)
    terms = count_terms(texts)
    head = TextHead(3)
    head.arrays = head.learn({"alpha": 1e-5}, terms, codes)
    np.testing.assert_allclose(head.answer(terms), library.decision_function(texts), atol=1e-3)


def test_two_classes_of_text_are_saved_as_many_are(described):
    texts, codes, folds = described
    two = np.array(codes) < 2
    terms, targets, inner = count_terms(np.array(texts)[two]), codes[two], folds[two] == 1
    head = TextHead(2).fit(terms, targets, inner)
    assert head.arrays["weights"].shape == (2 * text.COLUMNS, 2)
    answers = head.predict(terms)
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)
    written = np.diff(terms.indptr) > 0
    assert (answers.argmax(axis=1) == targets)[written].all()


def test_accents_case_and_html_make_no_difference():
    rows = pd.DataFrame({"title": ["Métal", "METAL"],
                         "more": ["<b>rouill&eacute;</b>", "rouille"]})
    one, other = join_texts(rows, ["title", "more"])
    assert one == "Métal  rouillé" and other == "METAL rouille"
    sizes = pd.DataFrame({"title": ["taille < 40 cm et poids > 3 kg", "&lt;b&gt; et <br/>"]})
    assert join_texts(sizes, ["title"]).tolist() == ["taille < 40 cm et poids > 3 kg", "<b> et"]
    terms = count_terms([one, other])
    assert (terms[[0]] != terms[[1]]).nnz == 0 and terms.nnz > 0


@pytest.mark.parametrize(("column", "message"), [
    ("titel", "no column 'titel' of text; it has: title, price, none"),
    ("price", "'price' holds numbers, not text, e.g. 12.5"), ("none", "'none' is empty")])
def test_a_column_that_is_no_text_is_refused(column, message):
    rows = pd.DataFrame({"title": ["a", "b"], "price": ["12.5", ""], "none": ["", None]})
    with pytest.raises(SuiteError, match=message):
        check_texts(rows, ["title", column], "table.csv")


def test_the_blend_is_the_best_on_rows_that_neither_has_learnt_from(described):
    texts, codes, folds = described
    rng = np.random.default_rng(1)
    inputs = PhotoAndText((np.eye(3)[codes] + rng.normal(size=(60, 3))).astype(np.float32),
                          count_terms(texts))
    recipe = Recipe(name="x", data={"source": "folders", "path": "x"},
                    head={"inputs": "both", "text_columns": ["title"]}).head
    model = create_model(recipe, 3, 0).fit(inputs, codes, folds == 1)
    assert isinstance(model, FusionHead)
    photo, said, both = (log_loss(codes[folds == 1], part.judged)
                         for part in (model.photo, model.text, model))
    assert both <= min(photo, said) and both == pytest.approx(model.choices["log loss"].min())
    answers = model.predict(inputs)
    mute = np.array([not text for text in texts])
    assert np.array_equal(answers[mute], model.photo.predict(inputs.features)[mute])
    blend = (model.share * model.photo.predict(inputs.features)
             + (1 - model.share) * model.text.predict(inputs.terms))
    np.testing.assert_allclose(answers[~mute], blend[~mute], rtol=1e-5)


def test_an_image_never_decides_its_own_text_either(described):
    texts, codes, folds = described
    terms = count_terms(texts)
    found = [cross_validate(lambda: TextHead(3), terms, given, folds, progress=False)[0]
             for given in (codes, np.where(folds == 2, (codes + 1) % 3, codes))]
    assert np.array_equal(found[0][folds == 2], found[1][folds == 2])
    assert (found[0].argmax(axis=1) == codes)[[bool(text) for text in texts]].mean() > 0.9


def test_photo_and_text_train_a_run_and_are_loaded_again(run):
    train_run(run, progress=False)
    oof = run.load_table("oof_probabilities")
    assert (oof.prediction == oof.label).mean() > 0.95  # the texts name the class
    models, classes = load_models(run.need("head"), describe_inputs(run))
    again = models[0].predict(load_inputs(run, "train", "both"))
    fold = (oof.fold == 0).to_numpy()
    assert [classes[code] for code in again[fold].argmax(axis=1)] == list(oof.prediction[fold])
    with pytest.raises(SuiteError, match="other inputs: columns"):
        load_models(run.need("head"), describe_inputs(run) | {"columns": ["designation"]})


def test_every_head_and_remedy_runs_on_the_demos_folds_and_is_kept(run, monkeypatch):
    monkeypatch.setattr(perceptron, "EPOCHS", (1, 5))
    monkeypatch.setattr(estimators, "TREES", 20)
    for kind in (estimators.BoostingHead, estimators.NeighboursHead):
        monkeypatch.setattr(kind, "preparation", {"standardised": [True], "components": [16]})
    answers = answer_heads(run)
    names = [head_comparison.TITLES[part] for part in ("logistic", "smote", "text", "both")]
    assert len(answers) == 19 and set(names) < set(answers)
    assert next(iter(answers)) == names[0]
    ids = answers[names[0]].image_id
    for table in answers.values():
        assert list(table.image_id) == list(ids)
        probabilities = table.filter(regex="^p_").to_numpy()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-4)
    # These texts name the class, so that the photo's share is 0: the last two are alike.
    every = [table.filter(regex="^p_").to_numpy().tobytes() for table in answers.values()]
    assert len(set(every[:-1])) == len(every) - 1
    table, by_class = tabulate_heads(run, answers)
    macro = table[table.score == "macro F1"].set_index("candidate")
    assert macro.difference[names[0]] == 0 and macro.low["text alone"] > 0
    assert macro.p_holm.drop(names[0]).ge(macro.p.drop(names[0])).all()
    gained = by_class[by_class.candidate == "text alone"]
    assert gained.difference.mean() == pytest.approx(macro.difference["text alone"])

    monkeypatch.setattr(head_comparison, "cross_validate", None)  # nothing is fitted again
    kept = answer_heads(run)
    assert all(kept[name].equals(answers[name]) for name in answers)
    (run.folder / "heads" / "SMOTE.npz").write_bytes(b"cut off")
    with pytest.raises(TypeError):
        answer_heads(run)


def test_a_column_that_is_not_there_stops_the_first_notebook(rakuten, write_recipe):
    run = open_run(write_recipe("typo", rakuten, run="typo", text_columns=["designaton"]))
    with pytest.raises(SuiteError, match=r"no column 'designaton' of text; .*designation"):
        prepare_run(run)


def test_a_fold_without_text_is_answered_by_its_photos(described):
    _, codes, folds = described
    rng = np.random.default_rng(1)
    features = (3 * np.eye(3)[codes] + rng.normal(size=(60, 3))).astype(np.float32)
    noise = ["".join(rng.choice(list("abcdef"), 8)) if fold != 1 else "" for fold in folds]
    recipe = Recipe(name="x", data={"source": "folders", "path": "x"},
                    head={"inputs": "both", "text_columns": ["title"]}).head
    model = create_model(recipe, 3, 0).fit(
        PhotoAndText(features, count_terms(noise)), codes, folds == 1)
    assert model.share == 1


def test_another_setting_is_compared_anew_and_a_heedless_one_is_not(run, monkeypatch):
    few = {"compare_heads": ["logistic", "class_mean"], "text_columns": [], "inputs": "photo"}
    one = type(run)(run.recipe.change(**few), run.folder)
    before = answer_heads(one)
    fitted = []
    original = head_comparison.create_model
    monkeypatch.setattr(head_comparison, "create_model", lambda settings, *rest: (
        fitted.append(settings.classifier), original(settings, *rest))[1])
    other = type(run)(run.recipe.change(**few, c_grid=[0.5]), run.folder)
    after = answer_heads(other)
    assert set(fitted) == {"logistic"}
    assert after["nearest class mean"].equals(before["nearest class mean"])


def test_all_default_candidates_can_be_made():
    for name in CANDIDATES:
        head, _, remedy = name.partition("+")
        made = create_head(HeadSettings(classifier=head, imbalance=remedy or "none"), 2, 0)
        assert made.count == 2
