"""Findings: mistakes, labels in doubt, shortcuts, calibration, ensembles, explanations, maps."""

import io
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cleanlab.filter import find_label_issues
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from torch import nn
from torch.nn.functional import interpolate, relu

from helpers.columns import read_table
from helpers.data.images import decode_image
from helpers.data.preparation import prepare_run
from helpers.data.splits import assign_splits, sample_rows
from helpers.data.table import load_table, restore_images
from helpers.evaluation import calibration, ensembles, label_errors, mistakes, shortcuts
from helpers.evaluation.compare import (
    compare_runs,
    count_disagreements,
    describe_disagreements,
    find_rivals,
)
from helpers.evaluation.explain import (
    create_answering_network,
    create_explainer,
    explain_answers,
    find_last_maps,
)
from helpers.evaluation.projection import match_neighbours, measure_trust, project_features
from helpers.evaluation.scores import create_sample, tabulate_confusion
from helpers.evaluation.summary import evaluate_run, list_predictions, write_submission
from helpers.features.extraction import extract_run
from helpers.files import SuiteError, save_csv
from helpers.network.preprocessing import create_preprocessing, resolve_data_config
from helpers.recipe import load_recipe
from helpers.run import OUTPUTS, open_run
from helpers.training.crossvalidation import tabulate_probabilities
from helpers.training.strategies import train_run

CLASSES = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def digits():
    """The digits with 30 labels turned, and the out-of-fold answers that they give."""
    images, codes = load_digits(return_X_y=True)
    images = images / 16
    rng, given = np.random.default_rng(0), codes.copy()
    turned = rng.choice(len(codes), 30, replace=False)
    given[turned] = (codes[turned] + rng.integers(1, 10, 30)) % 10
    folds = np.arange(len(codes)) % 5
    model = LogisticRegression(C=0.1, max_iter=500)
    cuts = [(np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in range(5)]
    probabilities = cross_val_predict(model, images, given, cv=cuts, method="predict_proba")
    rows = pd.DataFrame({"image_id": [f"d{n}" for n in range(len(codes))], "path": "p",
                         "split": "train", "fold": folds, "group": np.arange(len(codes)),
                         "label": np.array(CLASSES)[given]})
    return tabulate_probabilities(rows, probabilities, CLASSES), turned


def test_mistakes_and_uncertain_answers():
    rows = pd.DataFrame({"image_id": list("wxyz"), "path": ["p"] * 4, "split": "train",
                         "fold": 0, "label": ["a", "a", "b", "b"]})
    table = tabulate_probabilities(
        rows, np.array([[.9, .1], [.4, .6], [.8, .2], [.05, .95]], np.float32), ["a", "b"])
    assert list(table.prediction) == ["a", "b", "a", "b"]
    found = mistakes.find_mistakes(table)
    assert list(found.image_id) == ["y", "x"]
    assert found.confidence.tolist() == pytest.approx([0.8, 0.6])
    assert mistakes.find_mistakes(table[table.prediction == table.label]).empty
    uncertain = mistakes.find_uncertain(table)
    assert list(uncertain.image_id) == ["x", "y", "w", "z"]
    assert list(uncertain.runner_up) == ["a", "b", "b", "a"]
    pairs = mistakes.list_confusions(table)
    assert pairs[["label", "prediction", "images"]].to_numpy().tolist() == [
        ["a", "b", 1], ["b", "a", 1]]
    assert pairs.share.tolist() == [0.5, 0.5]
    assert mistakes.list_confusions(table[table.prediction == table.label]).empty
    assert tabulate_confusion(table, ["a", "b"]).to_numpy().tolist() == [[1, 1], [1, 1]]


def test_classes_that_are_mixed_stand_side_by_side():
    confusion = np.full((6, 6), 0)
    np.fill_diagonal(confusion, 50)
    for one, other in ((0, 3), (1, 5)):
        confusion[one, other] = confusion[other, one] = 20
    order = list(mistakes.order_classes(confusion))
    assert sorted(order) == list(range(6))
    assert {frozenset(pair) for pair in pairwise(order)} > {
        frozenset((0, 3)), frozenset((1, 5))}
    for empty in (np.zeros((3, 3)), np.eye(4), np.array([[5]])):
        assert list(mistakes.order_classes(empty)) == list(range(len(empty)))


def test_turned_labels_are_found(digits):
    table, turned = digits
    found = label_errors.find_label_errors(table, CLASSES)
    hits = found.image_id.isin([f"d{n}" for n in turned])
    assert hits.sum() >= 24 and hits.head(20).mean() >= 0.9
    assert found.label_probability.is_monotonic_increasing
    assert (found.correction == "").all() and (found.label != found.suggestion).all()
    sample = create_sample(table, CLASSES)
    direct = find_label_issues(sample.labels, sample.probabilities,
                               return_indices_ranked_by="self_confidence")
    assert list(table.image_id.iloc[direct]) == list(found.image_id)
    one = table[table.label == "3"]
    assert label_errors.find_label_errors(one, CLASSES).empty


def test_corrections_are_read_back_and_the_data_stays(folders, write_recipe, tmp_path):
    place = tmp_path / "photos"
    shutil.copytree(folders, place)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    names = [f"glass/{path.name}" for path in sorted((place / "glass").iterdir())]
    file = tmp_path / "corrections.csv"

    def load(rows):
        pd.DataFrame(rows, columns=["image_id", "correction"]).to_csv(file, index=False)
        return load_table(load_recipe(write_recipe("own", place, source="folders",
                                                   corrections=str(file))))

    table = load([(names[0], "metal"), (names[1], "(leave out)"), (names[2], "")])
    labels = table.set_index("image_id").label
    assert labels[names[0]] == "metal" and labels[names[2]] == "glass" and len(table) == 36
    assert table.left_out.sum() == 1 and table.set_index("image_id").left_out[names[1]]
    assert set(table.given_label[table.image_id.isin(names)]) == {"glass"}
    assert before == {path: path.read_bytes() for path in before}
    for rows, words in (([("glass/none.jpg", "metal")], "1 images are not in the data"),
                        ([(names[0], "metl")], "did you mean 'metal'"),
                        ([(names[0], "metal"), (names[0], "paper")], "more than one row")):
        with pytest.raises(SuiteError, match=words):
            load(rows)
    # As spreadsheets write it.
    file.write_bytes(b"\xef\xbb\xbfimage_id;correction\r\n" + names[0].encode() + b" ; metal\r\n")
    again = load_table(load_recipe(write_recipe("own", place, source="folders",
                                                corrections=str(file))))
    assert again.set_index("image_id").label[names[0]] == "metal"
    with pytest.raises(SuiteError, match="belongs to a run"):
        load_table(load_recipe(write_recipe("own", place, source="folders", corrections=str(
            OUTPUTS / "own" / "label_suspects.csv"))))
    file.unlink()
    with pytest.raises(SuiteError, match=r"corrections.csv is missing"):
        load_table(load_recipe(write_recipe("own", place, source="folders",
                                            corrections=str(file))))


def test_corrections_move_no_image_into_the_hold_out():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"image_id": [f"i{n}" for n in range(600)], "split": "train",
                          "label": rng.choice(list("abcdef"), 600), "group": np.arange(600)})
    before = assign_splits(table, 0.15, 5, 42)
    corrected = table.assign(given_label=table.label, left_out=False)
    corrected.loc[:4, "label"] = "b"
    corrected.loc[5:6, "left_out"] = True
    after = assign_splits(corrected, 0.15, 5, 42)
    stays = after.index > 6
    pd.testing.assert_frame_equal(before.loc[stays, ["split", "fold"]],
                                  after.loc[stays, ["split", "fold"]])
    assert (after.split[5:7] == "excluded").all() and (after.fold[5:7] == -1).all()
    assert (after.split[:5] == before.split[:5]).all()


def test_other_corrections_are_noticed(folders, write_recipe, tmp_path):
    file = tmp_path / "corrections.csv"
    file.write_text("image_id,correction\n", "utf-8")
    run = open_run(write_recipe("noticed", folders, source="folders", corrections=str(file)))
    prepare_run(run)
    assert run.is_current("images")
    name = run.load_table("images").image_id[0]
    file.write_text(f"image_id,correction\n{name},metal\n", "utf-8")
    with pytest.raises(SuiteError, match="made from another corrections"):
        run.need("table")


def simulate_cue(learnt, count=600, seed=0):
    """Return answers and a cue that comes with the class; `learnt`: the model goes by it."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    night = np.where(rng.random(count) < 0.85, labels, 1 - labels)
    wrong = rng.random(count) < np.where(learnt & (night != labels), 0.5, 0.1)
    guess = np.where(wrong, 1 - labels, labels)
    p = np.where(guess == 1, 0.9, 0.1)
    rows = pd.DataFrame({"image_id": range(count), "label": np.array(["bus", "car"])[labels],
                         "fold": np.arange(count) % 5, "group": range(count)})
    cues = pd.DataFrame({"brightness": np.where(night, 0.2, 0.7) + rng.normal(0, 0.05, count),
                         "camera": rng.choice(["x", "y"], count)})
    return tabulate_probabilities(rows, np.column_stack([1 - p, p]), ["bus", "car"]), cues


def test_a_shortcut_is_found_only_where_the_model_uses_it():
    for learnt in (True, False):
        flagged = 0
        for seed in range(5):
            answers, cues = simulate_cue(learnt, seed=seed)
            found = shortcuts.find_shortcuts(answers, cues, ["bus", "car"], 500, 0)
            found = found.set_index("cue")
            assert found.told["brightness"] == pytest.approx(0.85, abs=0.05)
            assert found.fall["brightness"] == pytest.approx(0.4 if learnt else 0, abs=0.13)
            assert found.told["camera"] < 0.6
            flagged += found.verdict["brightness"] == "yes"
        assert flagged == 5 if learnt else flagged <= 1
    said = shortcuts.describe_shortcut(found.reset_index().iloc[0])
    assert said.startswith("brightness alone reaches a balanced accuracy of 8")
    assert "(chance 50%)" in said
    parts = shortcuts.score_parts(answers, cues, ["bus", "car"], 200, 0)
    for name, rows in parts.groupby("cue"):
        assert rows.images.sum() == 600 and len(rows) == {"brightness": 5, "camera": 2}[name]
        mean = (rows.accuracy * rows.images).sum() / 600
        assert mean == pytest.approx((answers.prediction == answers.label).mean())


def test_a_cue_that_no_image_contradicts_is_not_called_clean():
    answers, cues = simulate_cue(True)
    cues["file type"] = np.where(answers.label == "bus", "JPEG", "PNG")
    found = shortcuts.find_shortcuts(answers, cues, ["bus", "car"], 100, 0).set_index("cue")
    assert found.verdict["file type"] == "untestable" and np.isnan(found.fall["file type"])
    assert found.verdict["brightness"] == "yes", "100 draws must do for three cues"
    assert "no image contradicts it" in shortcuts.describe_shortcut(
        found.loc["file type"].rename("x").to_frame().T.assign(cue="x").iloc[0])


def test_cues_of_a_table_as_it_is_read_back(tmp_path):
    path = tmp_path / "table.csv"
    rng = np.random.default_rng(0)
    save_csv(pd.DataFrame({
        "image_id": range(100), "label": "a", "brightness": rng.random(100),
        "temperature": np.where(np.arange(100) % 2, rng.random(100), np.nan),
        "flash": rng.integers(0, 2, 100), "north": 48.8560 + rng.random(100) / 1e4,
        "note2": [f"text {n}" for n in range(100)]}), path)
    cues = shortcuts.describe_cues(read_table(path))
    assert list(cues) == ["brightness", "temperature", "flash", "north"]
    answers = pd.DataFrame({"label": "a", "prediction": "a", "group": range(100)}, range(100))
    parts = shortcuts.score_parts(answers, cues, ["a", "b"], 50, 0)
    assert parts.groupby("cue").images.sum().eq(100).all()
    assert parts.groupby("cue").size().to_dict() == {
        "brightness": 5, "temperature": 6, "flash": 2, "north": 5}
    assert not parts.duplicated(["cue", "part"]).any()


def test_each_fold_has_a_temperature_fitted_without_the_image(digits):
    table, _ = digits
    sharp = table.copy()
    columns = list(sharp.filter(regex="^p_"))
    for fold in range(5):
        own = sharp.fold == fold
        sharp.loc[own, columns] = calibration.apply_temperature(
            table.loc[own, columns].to_numpy(float), 1.0 + fold)
    corrected, found = calibration.calibrate_answers(sharp, CLASSES)
    for fold in range(5):
        _, plain = calibration.calibrate_answers(table[table.fold == fold], CLASSES)
        assert found[fold] == pytest.approx(plain[fold] * (1 + fold), rel=0.05)
    assert (corrected.prediction == sharp.prediction).all()
    # An image's own label changes nothing for it, but for others of its fold.
    turned = sharp.assign(label=sharp.label.where(sharp.image_id != "d0", "7"))
    again, _ = calibration.calibrate_answers(turned, CLASSES)
    assert table.label[0] != "7" and table.fold[0] == 0
    pd.testing.assert_series_equal(again.loc[0, columns], corrected.loc[0, columns])
    changed = (again[columns] != corrected[columns]).any(axis=1)
    assert changed[sharp.fold == 0].sum() > 100 and not changed[sharp.fold != 0].any()
    # Copies go together: what is fitted on one is not applied to the other.
    copies = sharp.assign(group=sharp.group.where(sharp.group > 9, 0), fold=0)
    together, _ = calibration.calibrate_answers(copies, CLASSES)
    gaps = [np.diff(np.log(np.sort(rows[columns].to_numpy(float))[:, -2:]), axis=1)[:, 0]
            for rows in (together, sharp)]
    powers = gaps[0] / gaps[1]
    assert np.allclose(powers[:10], powers[0], rtol=1e-3)
    assert len(np.unique(powers.round(3))) >= 4


def test_fewer_answers_are_better_ones(digits):
    table, _ = digits
    curve = calibration.trace_risk(table)
    wrong = (table.prediction != table.label).mean()
    assert curve.risk.iloc[-1] == pytest.approx(wrong) and curve.coverage.iloc[-1] == 1
    found = calibration.abstain(table, CLASSES, 0.97, 200, 0)
    assert 0.5 < found["answered"] < 1 and found["accuracy"] > 1 - wrong
    assert "the model answers" in calibration.describe_abstention(found)
    confidence, right = np.array([0.9, 0.9, 0.8, 0.7]), np.array([True, False, True, True])
    assert calibration.choose_threshold(confidence, right, 0.75) == 0.7
    assert calibration.choose_threshold(confidence, right, 0.8) == np.inf
    hopeless = table.assign(prediction="0", label="1")
    nothing = calibration.abstain(hopeless, CLASSES, 0.9, 200, 0)
    assert nothing["answered"] == 0 and nothing["threshold"] is None
    assert calibration.describe_abstention(nothing).startswith("no confidence threshold")
    certain = table.assign(**{f"p_{name}": (table.prediction == name).astype(float)
                              for name in CLASSES})
    assert calibration.measure_reliability(certain, CLASSES, 50, 0).confidence.eq(1).all()
    bins = calibration.measure_reliability(table, CLASSES, 200, 0)
    assert bins.images.sum() == len(table) and bins.confidence.is_monotonic_increasing
    assert (bins.images * bins.accuracy).sum() == pytest.approx((1 - wrong) * len(table))


def test_an_ensembles_weights_never_see_the_fold_they_are_for(digits, monkeypatch):
    table, _ = digits
    noise = np.random.default_rng(0).dirichlet(np.ones(10), len(table))
    answers = {"good": table, "noise": ensembles.replace_probabilities(table, noise, CLASSES)}
    found, weights = ensembles.combine_answers(answers, CLASSES)
    assert weights[0] > 0.95 and weights.sum() == pytest.approx(1)
    columns = list(table.filter(regex="^p_"))
    np.testing.assert_allclose(found[columns].sum(axis=1), 1, atol=1e-5)
    seen = []
    real = ensembles.fit_weights
    monkeypatch.setattr(ensembles, "fit_weights", lambda given, labels: (
        seen.append(len(labels)), real(given, labels))[1])
    ensembles.combine_answers(answers, CLASSES)
    assert seen == [*(int((table.fold != fold).sum()) for fold in range(5)), len(table)]


def test_disagreements_are_counted_by_group():
    one = pd.DataFrame({"label": list("aaaaaa"), "prediction": list("aaabba"),
                        "group": [0, 0, 0, 1, 2, 3]})
    other = one.assign(prediction=list("bbbaba"))
    assert count_disagreements(one, other) == (1, 1, 1.0)
    assert count_disagreements(one.drop(columns="group"), other)[:2] == (3, 1)
    many = [pd.DataFrame({"label": ["a"] * 20, "prediction": [name] * 20}) for name in "ab"]
    wins, losses, p = count_disagreements(*many)
    assert (wins, losses) == (20, 0) and p == pytest.approx(2 / 2**20)
    assert "p < 0.001" in describe_disagreements("x", "y", (wins, losses, p))


@pytest.fixture(scope="module")
def run(rakuten, write_recipe):
    """A small run in Rakuten's layout, evaluated."""
    path = write_recipe("tiny", rakuten, class_names={1000: "carton"}, run="found",
                        wished_accuracy=0.6)
    run = open_run(path)
    prepare_run(run)
    extract_run(run)
    train_run(run)
    evaluate_run(run)
    return run


def copy_run(run, name, change=lambda table: table):
    target = run.folder.parent / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for file in ("oof_probabilities.csv", "test_probabilities.csv"):
        save_csv(change(read_table(run.folder / file)), target / file)
    return str(target)


def test_runs_are_compared_in_words(run, capsys):
    def shuffle(table):
        names = table.label.dropna().unique()
        columns = [f"p_{name}" for name in names]
        if table.label.isna().any():
            return table
        return table.assign(prediction=names[0], **dict.fromkeys(columns, 1 / len(names))).sample(
            frac=1, random_state=0)

    other = copy_run(run, "found-other", shuffle)
    table = compare_runs([str(run.folder), other])
    said = capsys.readouterr().out
    assert "found-other against found: macro F1 -" in said and "McNemar's test: p" in said
    assert set(table.score) == {"accuracy", "balanced accuracy", "macro F1", "weighted F1",
                                "log loss"}
    assert list(find_rivals(run.folder)) == ["found-other"]
    shutil.rmtree(other)


@pytest.mark.parametrize(("change", "words"), [
    (lambda t: t.iloc[1:], "answer for different images: 1 stand in only one of them"),
    (lambda t: t.assign(label=t.label.where(t.index > 0, "carton")), "other labels for 1 images"),
    (lambda t: t.rename(columns={"p_carton": "p_box"}), "other classes, e.g. 'box'"),
    (lambda t: t.drop(columns="image_id"), "no table of answers"),
    (lambda t: t.assign(p_carton=2.0), "do not add up to 1"),
])
def test_runs_that_cannot_be_compared_are_refused(run, change, words):
    table = read_table(run.folder / "oof_probabilities.csv")
    if "labels" in words and table.label[0] == "carton":
        pytest.skip("the first image has that label")
    other = copy_run(run, "found-refused", change)
    try:
        with pytest.raises(SuiteError, match=words):
            compare_runs([str(run.folder), other])
        with pytest.raises(SuiteError, match="is missing: run 04_training"):
            compare_runs([str(run.folder), other + "-none"])
        assert "found-refused" not in find_rivals(run.folder)
    finally:
        shutil.rmtree(other)


def test_runs_become_an_ensemble(run, tmp_path, capsys):
    other = copy_run(run, "found-twin")
    differences = ensembles.combine_runs([str(run.folder), other], tmp_path / "both")
    assert "weight 0." in capsys.readouterr().out
    parts = json.loads((tmp_path / "both/ensemble.json").read_text("utf-8"))
    assert sum(part["weight"] for part in parts["runs"].values()) == pytest.approx(1)
    answers = read_table(tmp_path / "both/test_probabilities.csv")
    assert len(answers) == len(run.load_table("test_probabilities"))
    assert list(differences.candidate.unique()) == ["ensemble", "found", "found-twin"]
    kept = (run.folder / "oof_probabilities.csv").read_bytes()
    for place in (run.folder, Path(other)):
        with pytest.raises(SuiteError, match="name another folder"):
            ensembles.combine_runs([str(run.folder), other], place)
    assert (run.folder / "oof_probabilities.csv").read_bytes() == kept
    Path(other, "test_probabilities.csv").unlink()
    with pytest.raises(SuiteError, match=r"test_probabilities.csv is missing"):
        ensembles.combine_runs([str(run.folder), other], tmp_path / "none")
    shutil.rmtree(other)


def test_the_challenge_gets_its_own_format(run, rakuten):
    answered = run.load_table("test_probabilities")
    write_submission(run, list_predictions(run, answered))
    found = pd.read_csv(run.folder / "submission.csv", index_col=0)
    rows = pd.read_csv(rakuten / "X_test_update.csv", index_col=0)
    assert list(found) == ["prdtypecode"] and found.index.equals(rows.index)
    known = pd.read_csv(rakuten / "Y_train_CVw08PX.csv", index_col=0)
    assert set(found.prdtypecode) <= set(known.prdtypecode)


def test_grad_cam_of_a_linear_head_is_the_published_map(run):
    """Behind average pooling the maps' weights are the classifier's own (Zhou et al. 2016)."""
    network, size = create_answering_network(run, 1), (3, 160, 160)
    batch, caught = torch.randn(1, *size), []
    layer, _ = find_last_maps(network, size)
    hook = layer.register_forward_hook(lambda *args: caught.append(args[2]))
    network(batch)
    hook.remove()
    alike = []
    for code, heat in enumerate(create_explainer(network, size)(batch, list(range(6)))):
        weights = network[1].weights[:, code]
        expected = relu((caught[0][0] * weights[:, None, None]).sum(dim=0)).detach()
        expected = interpolate(expected[None, None], size[1:], mode="bilinear")[0, 0]
        if heat.std() > 0:
            alike.append(np.corrcoef(heat.ravel(), expected.numpy().ravel())[0, 1])
    assert len(alike) >= 2 and min(alike) > 0.98


def test_a_mistake_is_explained_by_the_model_that_made_it(run):
    oof = run.load_table("oof_probabilities")
    rows = oof[oof.prediction != oof.label].head(3)
    found = explain_answers(run, rows)
    assert [item.row.image_id for item in found] == list(rows.image_id)
    for item in found:
        assert set(item.maps) == {item.row.prediction, item.row.label}
        assert item.image.shape == (32, 32, 3) and 0 <= item.image.min() <= item.image.max() <= 1
        batch = create_preprocessing(resolve_data_config(run.recipe, run.measured))(
            decode_image(item.row.path)).unsqueeze(0)
        logits = create_answering_network(run, int(item.row.fold))(batch)[0]
        classes = oof.filter(regex="^p_").columns.str[2:]
        assert classes[logits.argmax().item()] == item.row.prediction


def test_a_fine_tuned_network_is_explained_too(folders, write_recipe):
    tuned = open_run(write_recipe("tuned", folders, source="folders", run="found-tuned",
                                  strategy="finetune", epochs=1, unfreeze=[1.0], near_copy=1))
    prepare_run(tuned)
    extract_run(tuned)
    train_run(tuned, progress=False)
    rows = tuned.load_table("oof_probabilities").groupby("fold").head(1)
    found = explain_answers(tuned, rows)
    assert len(found) == 3 and max(heat.max() for item in found for heat in item.maps.values())
    batch = create_preprocessing(resolve_data_config(tuned.recipe, tuned.measured))(
        decode_image(rows.path.iloc[1])).unsqueeze(0)
    logits = create_answering_network(tuned, int(rows.fold.iloc[1]))(batch)[0]
    classes = rows.filter(regex="^p_").columns.str[2:]
    assert classes[logits.argmax().item()] == rows.prediction.iloc[1]


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet",
                                  "test_efficientnet"])
def test_maps_of_convolutions_and_transformers_are_found(name):
    import timm
    torch.manual_seed(0)
    size = (3, 160, 160) if name == "test_vit" else (3, 64, 64)
    network = timm.create_model(name, num_classes=3).eval()
    layer, reshape = find_last_maps(network, size)
    batch = torch.randn(1, *size)
    with GradCAM(network, [layer], reshape) as explain:
        heat = [explain(batch, [ClassifierOutputTarget(number)])[0] for number in range(3)]
    assert heat[0].shape == batch.shape[2:]
    assert max(values.std() for values in heat) > 0


def test_what_cannot_be_explained_is_said(run):
    other = run.__class__(run.recipe.change(classifier="knn"), run.folder)
    with pytest.raises(SuiteError, match="needs a classifier with a gradient"):
        explain_answers(other, run.load_table("oof_probabilities").head(1))

    class Flat(nn.Module):
        num_features = 4

        def __init__(self):
            super().__init__()
            self.layer = nn.Flatten()

        def forward(self, images):
            return self.layer(images)

    with pytest.raises(SuiteError, match="keeps no maps"):
        find_last_maps(Flat(), (3, 8, 8))


def test_an_image_that_has_gone_stops_nothing(run, tmp_path, capsys):
    oof = run.load_table("oof_probabilities").head(3)
    gone = oof.assign(path=[str(tmp_path / "gone.jpg"), *oof.path[1:]])
    restore_images(run.recipe, gone)  # others are there
    assert len(explain_answers(run, gone)) == 2
    assert "cannot be explained: " in capsys.readouterr().out
    from helpers.pictures.galleries import show_mistakes

    show_mistakes(gone.assign(prediction="x")).savefig(io.BytesIO())


def test_projection_keeps_neighbours_and_bows_to_few_images(capsys):
    features, codes = load_digits(return_X_y=True)
    found = project_features(features[:150], 30, seed=0)
    assert found.places.shape == (150, 2)
    alone = np.arange(150)
    same = match_neighbours(found.places, codes[:150], alone, 1).mean()
    mixed = np.random.default_rng(0).permutation(found.places)
    assert same > 0.7 > 0.3 > match_neighbours(mixed, codes[:150], alone, 1).mean()
    assert np.array_equal(found.places, project_features(features[:150], 30, seed=0).places)
    assert measure_trust(features[:150], found.places, 0) > 0.8 > measure_trust(
        features[:150], mixed, 0)
    # Images that made the map are placed where they are, and new ones among their kind.
    again = found.place(features[:150])
    reach = np.ptp(found.places, axis=0).max()
    assert np.median(np.linalg.norm(again - found.places, axis=1)) < 0.1 * reach
    assert found.place(features[:0]).shape == (0, 2)
    project_features(features[:12], 30, seed=0)
    assert "perplexity lowered from 30" in capsys.readouterr().out
    rows = pd.DataFrame({"label": codes, "fold": np.arange(len(codes)) % 5})
    sample = sample_rows(rows, 100, seed=0)
    assert len(set(sample)) == len(sample) == pytest.approx(100, abs=20)
    assert rows.iloc[sample].groupby(["label", "fold"]).ngroups == 50


def test_an_images_own_copies_are_not_its_neighbours():
    places = np.array([[0.0, 0], [0.1, 0], [1, 0], [1.1, 0], [5, 0]])
    labels, groups = np.array(list("aabba")), np.array([7, 7, 8, 9, 10])
    assert match_neighbours(places, labels, groups, 1).tolist() == [0, 0, 1, 1, 0]
    assert match_neighbours(places, labels, groups, 3).tolist() == pytest.approx(
        [1 / 3, 1 / 3, 1 / 3, 1 / 3, 1 / 3])
    assert np.isnan(match_neighbours(places[:2], labels[:2], groups[:2])).all()


def test_pictures_take_any_class_name_and_many_classes():
    from helpers.evaluation.intervals import score_classes
    from helpers.pictures import charts, galleries, results

    names = ["true", "cost $^$", "_hidden", "x" * 90, *(f"class {i}" for i in range(60))]
    rng = np.random.default_rng(3)
    points = pd.DataFrame({
        "label": rng.permutation(names * 3), "x": rng.random(192), "y": rng.random(192),
        "split": "train", "fold": rng.integers(0, 3, 192)})
    answers = points.assign(prediction=rng.permutation(points.label))
    for few in (points, points[points.label.isin(names[:4])]):
        for figure in (charts.plot_projection(few), charts.plot_class_shares(few),
                       charts.plot_class_counts(few.label.value_counts())):
            figure.savefig(io.BytesIO())
    labels = charts.plot_projection(few).axes[0].get_legend().get_texts()
    assert {text.get_text() for text in labels} == {charts.shorten(name) for name in names[:4]}
    results.plot_confusion(tabulate_confusion(answers, names)).savefig(io.BytesIO())
    results.plot_class_scores(score_classes(answers, names, 100, 0)).savefig(io.BytesIO())
    scores = pd.DataFrame({"value": [0.5], "low": [0.3], "high": [0.45]}, index=["macro F1"])
    results.plot_scores({"out-of-fold": scores}).savefig(io.BytesIO())
    results.plot_parts(pd.DataFrame(columns=["cue", "part"]), ["a"], 0.5).savefig(io.BytesIO())
    galleries.show_explanations([]).savefig(io.BytesIO())
