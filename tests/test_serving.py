"""Serving: a saved model answers as the run did, by every way, or is refused in a sentence."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop
from torchvision.transforms.v2 import InterpolationMode, functional

from helpers.data.demo import PHOTOS
from helpers.data.splits import select_rows
from helpers.features.store import load_codes, load_features
from helpers.features.streaming import record_file
from helpers.files import ROOT, SuiteError, hash_file, load_json, save_json
from helpers.head_settings import HEADS
from helpers.run import open_run, reopen_run
from helpers.serving import predict, saving
from helpers.serving.export import EXAMPLE, export_model, open_session
from helpers.serving.launch import start_page
from helpers.serving.model_folder import NOTE, SUMS, find_model, seal_folder
from helpers.serving.predictor import load_predictor
from helpers.serving.references import choose_references, load_references, save_references
from helpers.serving.resize import ExactResize
from helpers.serving.saving import compare_answers, save_model
from helpers.training.crossvalidation import load_inputs
from helpers.training.selection import fit_temperature


@pytest.fixture(scope="module")
def recipe(served_recipe):
    return served_recipe


@pytest.fixture(scope="module")
def run(served_run):
    return served_run


@pytest.fixture(scope="module")
def photos(many_photos):
    return many_photos


@pytest.fixture(scope="module")
def predictor(run):
    return load_predictor(run.folder)


@pytest.fixture
def copied(run, tmp_path):
    """A copy of the model, to be spoilt."""
    return Path(shutil.copytree(run.need("model"), tmp_path / "model"))


def columns_of(table):
    return table.filter(regex="^p_").to_numpy()


def test_notebook_batch_and_onnx_give_the_same_answer(run, predictor, photos, tmp_path):
    assert len(photos) == 200
    own = predictor.predict(photos)
    assert (own.refused == "").all() and np.allclose(columns_of(own).sum(axis=1), 1)
    assert own.prediction.nunique() > 1
    target = tmp_path / "predictions.csv"
    assert predict.main(["--run", str(run.folder), "--out", str(target), *photos]) == 0
    ways = {"batch": columns_of(pd.read_csv(target))}
    export_model(predictor, tmp_path / "onnx")
    resize, model = (open_session(tmp_path / "onnx" / f"{n}.onnx") for n in ("resize", "model"))
    pixels = np.stack([resize.run(None, {"photo": np.asarray(Image.open(path).convert("RGB"))})[0]
                       for path in photos])
    ways["onnx"] = model.run(None, {"pixels": pixels})[0]
    for way, found in ways.items():
        assert (found.argmax(axis=1) == columns_of(own).argmax(axis=1)).all(), way
        assert np.abs(found - columns_of(own)).max() <= 1e-4, way
    few = predictor.predict([Path(photos[0]).read_bytes(), Image.open(photos[1])])
    assert np.abs(columns_of(few) - columns_of(own)[:2]).max() <= 1e-6
    assert few.photo.tolist() == ["photo 1", "photo 2"]


def test_it_answers_from_photos_as_04_did_from_features(run, predictor):
    rows = select_rows(run.load_table(), "test")
    stored = predictor.combine(predictor.answer_members(np.asarray(load_features(run, "test"))))
    assert np.abs(columns_of(predictor.predict(rows.path.tolist())) - stored).max() < 1e-4
    own = run.load_table("test_probabilities")
    mean = predictor.answer_members(np.asarray(load_features(run, "test"))).mean(axis=0)
    assert np.abs(mean - columns_of(own)).max() < 1e-6
    temperatures = load_json(run.need("calibration"))["temperatures"]
    assert predictor.note["temperatures"] == [temperatures[key] for key in sorted(temperatures)]


def test_one_fingerprint_from_features_to_export(run, predictor, tmp_path):
    described = export_model(predictor, tmp_path / "onnx")
    trained = load_json(record_file(run.path("train_features")))["description"]["preprocessing"]
    assert predictor.note["trained_on"]["preprocessing"] == trained
    assert {predictor.note["fingerprint"], described["fingerprint"]} == {
        load_json(run.need("metadata"))["preprocessing_fingerprint"]}


def test_the_example_needs_onnxruntime_and_pillow_alone(predictor, photos, tmp_path):
    export_model(predictor, tmp_path / "onnx")
    program = tmp_path / "onnx" / EXAMPLE
    lines = program.read_text("utf-8").splitlines()
    assert len([line for line in lines if line and not line.startswith(('"""', "import", "from"))]
               ) <= 15
    done = subprocess.run([sys.executable, str(program), photos[0]], text=True, cwd=tmp_path,
                          capture_output=True, check=True)
    said = [line.split(" ", 1) for line in done.stdout.splitlines()]
    (own,) = predictor.predict(photos[:1]).to_dict("records")
    assert said[0][1] == own["prediction"]
    assert all(abs(float(value) - own[f"p_{name}"]) <= 1e-4 for value, name in said)


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 700), st.integers(8, 700), st.integers(8, 260), st.floats(0.6, 1),
       st.sampled_from(["bilinear", "bicubic"]))
def test_the_exported_resize_is_equal_to_the_last_bit(height, width, side, share, kernel):
    crop = max(1, int(side * share))
    photo = torch.from_numpy(np.random.default_rng(height * width).integers(
        0, 256, (height, width, 3), dtype=np.uint8))
    own = ExactResize({"resize": side, "crop": [crop, crop], "interpolation": kernel})(photo)
    resized = functional.resize(photo.permute(2, 0, 1), side, InterpolationMode(kernel),
                                antialias=True)
    assert torch.equal(CenterCrop(crop)(resized).permute(1, 2, 0), own)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_is_saved_and_answers_as_in_the_run(recipe, finish_run, run, head, tmp_path):
    other = finish_run(recipe, head=head, imbalance="none", run="served-heads")
    save_model(other)
    assert compare_answers(other, other.need("model")) < 1e-4
    loaded = load_predictor(other.folder, batch_size=1)
    assert loaded.note["kind"] == head
    if head in ("knn", "forest", "boosting"):
        with pytest.raises(SuiteError, match="ONNX needs a classifier with a gradient"):
            export_model(loaded, tmp_path / "onnx")
        assert not (tmp_path / "onnx").exists()
    elif head in ("ridge", "mlp"):  # a layer, and two; the test above exports another
        assert export_model(loaded, tmp_path / "onnx")["largest_difference"] <= 1e-4


def test_trained_networks_are_saved_as_one(recipe, finish_run, tmp_path):
    run = finish_run(recipe, strategy="finetune", run="served-networks")
    save_model(run)
    predictor = load_predictor(run.folder)
    assert compare_answers(run, predictor.folder) < 1e-4
    assert len(predictor.note["temperatures"]) == 3
    assert export_model(predictor, tmp_path / "onnx")["largest_difference"] <= 1e-4
    first = run.load_table().path[0]
    near = predictor.find_nearest(first)
    assert near.image_id[0] == run.load_table().image_id[0] and len(near) == 5
    pixels, heat = predictor.explain(first, predictor.classes[0])
    assert pixels.shape[:2] == heat.shape
    again = open_run(recipe, {"strategy": "finetune", "run": "served-networks", "serve": "refit"})
    save_model(again)
    alone = load_predictor(again.folder)
    assert len(alone.note["temperatures"]) == 1 and not (again.folder / ".refit").exists()
    assert np.isfinite(alone.predict([first]).confidence).all()
    sizes = [path.stat().st_size for path in alone.folder.glob("network_*")]
    assert len(sizes) == 1 and len(list(predictor.folder.glob("network_*"))) == 1, "replaced"


def test_one_model_of_all_training_images(recipe, run):
    again = open_run(recipe, {"serve": "refit"})
    model = saving._write_networks.__globals__["create_run_model"](again)  # as 04 would make it

    folds = select_rows(run.load_table(), "train").fold.to_numpy()
    model.fit(load_inputs(run, "train", "photo"), load_codes(run), folds == 0)
    place = saving.save_model(again)
    try:
        alone = load_predictor(place)
        features = np.asarray(load_features(run, "test"))
        assert np.allclose(alone.answer_members(features)[0], model.predict(features), atol=1e-6)
        power = fit_temperature(np.log(model.judged), load_codes(run)[folds == 0])
        assert alone.note["temperatures"] == pytest.approx([1 / power])
        assert np.isnan(compare_answers(again, place)), "nothing judged it"
        assert reopen_run(run.folder).recipe.serving.serve == "refit"
        assert "one model, trained on all training images" in (
            place / "MODEL_CARD.md").read_text("utf-8")
    finally:
        save_model(run)


def test_photo_and_text(rakuten, write_recipe, finish_run, tmp_path, capsys):
    run = finish_run(write_recipe("worded", rakuten, run="served-text", inputs="both",
                                  text_columns=["designation"], reference_photos=0))
    save_model(run)
    predictor = load_predictor(run.folder)
    rows = select_rows(run.load_table(), "test").head(12)
    texts = rows.designation.fillna("").tolist()
    both = predictor.predict(rows.path.tolist(), texts)
    own = run.load_table("test_probabilities").head(12)
    assert np.abs(predictor.answer_members(
        np.stack([predictor.compute(path)[0] for path in rows.path]), texts).mean(axis=0)
        - columns_of(own)).max() < 1e-4
    alone = predictor.predict(rows.path.tolist())
    assert np.abs(columns_of(both) - columns_of(alone)).max() > 1e-3
    table = tmp_path / "texts.csv"
    rows.assign(photo=[Path(path).name for path in rows.path])[["photo", "designation"]].to_csv(
        table, index=False)
    arguments = ["--run", str(run.folder), "--out", str(tmp_path / "p.csv"), "--texts"]
    assert predict.main([*arguments, str(table), *rows.path]) == 0
    assert np.allclose(columns_of(pd.read_csv(tmp_path / "p.csv")), columns_of(both), atol=1e-6)
    assert predictor.references is None and predictor.note["samples"] == []
    assert not list(predictor.folder.rglob("*.jpg")), "no photo was to leave the run"
    with pytest.raises(SuiteError, match="reference_photos: 0"):
        predictor.find_nearest(rows.path.iloc[0])
    with pytest.raises(SuiteError, match="answers for texts, not for photos"):
        save_model(open_run(run.options[1], {"inputs": "text", "run": "served-text"}))


def test_what_is_kept_with_it(run, predictor):
    note = predictor.note
    assert note["notes"]["data"] == "TrashNet, MIT" and note["scores"]["out-of-fold"]["accuracy"]
    card = (predictor.folder / "MODEL_CARD.md").read_text("utf-8")
    assert "## Saved model" in card and "TrashNet, MIT" in card
    rows = select_rows(run.load_table(), "train")
    near = predictor.find_nearest(rows.path.iloc[3])
    assert near.image_id[0] == rows.image_id.iloc[3] and near.similarity[0] > 0.999
    assert Image.open(io.BytesIO(near.photo[0])).format == "JPEG"
    unseen = set(select_rows(run.load_table(), "test").label)
    assert note["samples"] and {sample["label"] for sample in note["samples"]} <= unseen
    text = (predictor.folder / NOTE).read_text("utf-8")
    assert str(run.recipe.data.place.parent) not in text + card, "no folder of this machine"
    pixels, heat = predictor.explain(rows.path.iloc[0], predictor.classes[0])
    assert pixels.shape == (32, 32, 3) and 0 <= heat.min() <= heat.max() <= 1


def test_references_keep_the_shares_of_classes():
    labels = pd.Series(["a"] * 900 + ["b"] * 99 + ["c"])
    found = labels.iloc[choose_references(labels, 100, 0)].value_counts()
    assert found.sum() == 100 and found["c"] == 1 and 8 <= found["b"] <= 12
    assert len(choose_references(labels, 5000, 0)) == 1000


def spoil_missing(folder):
    (folder / "heads.safetensors").unlink()


def spoil_altered(folder):
    content = bytearray((folder / "backbone.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "backbone.safetensors").write_bytes(content)


def spoil_names(folder):
    note = load_json(folder / NOTE)
    save_json(note | {"classes": note["classes"][::-1]}, folder / NOTE)


def spoil_version(folder):
    seal_folder(folder, load_json(folder / NOTE) | {"format": 2})


def spoil_preprocessing(folder):
    note = load_json(folder / NOTE)
    note["preprocessing"]["crop_pct"] = 0.5
    seal_folder(folder, note)


def spoil_sums(folder):
    (folder / SUMS).unlink()


def spoil_note(folder):
    (folder / NOTE).write_text("[]", "utf-8")


def spoil_sample(folder):
    note = load_json(folder / NOTE)
    note["samples"][0]["file"] = "../../secret.jpg"
    seal_folder(folder, note)


def spoil_temperatures(folder):
    note = load_json(folder / NOTE)
    seal_folder(folder, note | {"temperatures": note["temperatures"][1:]})


def spoil_kind(folder):
    seal_folder(folder, load_json(folder / NOTE) | {"kind": "oracle"})


def forget_classes(folder):
    note = load_json(folder / NOTE)
    del note["classes"]
    seal_folder(folder, note)


def forget_labels(folder):
    (folder / "references.csv").unlink()
    seal_folder(folder, load_json(folder / NOTE))


def add_file(folder):
    shutil.copy(folder / "samples" / "00.jpg", folder / "samples" / "77.jpg")


class Planted:
    """Leaves a mark if it is ever unpickled."""

    def __reduce__(self):
        return (open, ("/tmp/suite-was-unpickled", "w"))  # pragma: no cover


def add_pickle(folder):
    (folder / "weights.pkl").write_bytes(pickle.dumps(Planted()))
    seal_folder(folder, load_json(folder / NOTE))


def disguise_pickle(folder):
    (folder / "backbone.safetensors").write_bytes(pickle.dumps(Planted()))
    seal_folder(folder, load_json(folder / NOTE))


@pytest.mark.parametrize(("spoil", "said"), [
    (spoil_missing, "heads.safetensors is missing"),
    (spoil_altered, "backbone.safetensors has changed since the model was saved"),
    (spoil_names, "model.json has changed since the model was saved"),
    (spoil_version, "saved by another version of the suite .format 2; this one reads 1"),
    (spoil_preprocessing, "prepares photos in another way"),
    (spoil_sums, "SHA256SUMS is missing or damaged"),
    (spoil_note, "model.json cannot be read"),
    (spoil_sample, "samples.0.file is not as this version"),
    (spoil_temperatures, "holds other classifiers than model.json speaks of"),
    (spoil_kind, "does not hold the classifiers that model.json speaks of"),
    (forget_classes, "classes is not as this version of the suite writes it"),
    (forget_labels, "references.csv is missing"),
    (add_file, "samples/77.jpg was not saved with the model"),
    (add_pickle, "holds weights.pkl, which is no part of a saved model"),
    (disguise_pickle, "damaged, or no network of this suite"),
], ids=lambda value: getattr(value, "__name__", ""))
def test_a_spoilt_model_is_refused(copied, spoil, said):
    mark = Path("/tmp/suite-was-unpickled")
    mark.unlink(missing_ok=True)
    load_predictor(copied)
    spoil(copied)
    with pytest.raises(SuiteError, match=said):
        load_predictor(copied)
    assert not mark.exists()


def test_another_network_than_the_probe_says_is_refused(copied, monkeypatch):
    from helpers.serving import predictor

    def load(*arguments):
        trunk = original(*arguments)
        trunk.conv_stem.weight.data *= 1.01
        return trunk

    original = predictor.load_trunk
    monkeypatch.setattr(predictor, "load_trunk", load)
    with pytest.raises(SuiteError, match="does not answer here as it did where it was saved"):
        load_predictor(copied)


def test_another_resize_is_refused(copied, monkeypatch):
    from helpers.serving import photos

    def create(config):
        return lambda image: np.asarray(image.resize((32, 32), Image.Resampling.NEAREST))

    monkeypatch.setattr(photos, "create_geometry", create)
    with pytest.raises(SuiteError, match="libraries resize photos in another way"):
        load_predictor(copied)


def encode(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_photos_of_every_kind_are_answered(predictor):
    photo = Image.open(next(PHOTOS.rglob("*.jpg"))).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    upright = photo.transpose(Image.Transpose.ROTATE_90)
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    few = photo.convert("P", palette=Image.Palette.ADAPTIVE)
    kinds = {
        "png": (encode(photo, "PNG"), photo),
        "palette": (encode(few, "PNG"), few.convert("RGB")),
        "CMYK": (encode(photo.convert("CMYK"), "TIFF"), photo.convert("CMYK").convert("RGB")),
        "16 bits": (encode(deep, "PNG"), photo.convert("L")),
        "animated": (encode(few, "GIF", save_all=True, append_images=[upright]),
                     few.convert("RGB")),
        "rotated": (encode(upright, "TIFF", exif=turned), photo)}
    found = predictor.predict([content for content, _ in kinds.values()])
    wanted = predictor.predict([image for _, image in kinds.values()])
    assert (found.refused == "").all()
    for kind, own, other in zip(kinds, columns_of(found), columns_of(wanted), strict=True):
        assert np.abs(own - other).max() < 1e-6, kind


@pytest.mark.parametrize(("content", "said"), [
    (b"", "empty file"), (b"nothing", "not an image"),
    (b"PK\x03\x04" + bytes(99), "not an image"),
    (next(PHOTOS.rglob("*.jpg")).read_bytes()[:2000], "truncated file"),
    (encode(Image.new("L", (1, 1)), "PNG"), "too small: 1 x 1 pixels"),
    (encode(Image.new("1", (20_000, 20_000)), "PNG"), "too large"),
    (encode(Image.new("1", (11_000, 11_000)), "PNG"), "too large: 11000 x 11000 pixels"),
    (encode(Image.new("L", (20, 20_000)), "PNG"), "too long and narrow: 20 x 20000 pixels"),
    (bytes(101 * 2**20), "larger than 100 MB"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
    (encode(Image.new("RGB", (64, 64)), "ICO"), "not an image"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_no_photo_is_refused_in_a_sentence(predictor, content, said):
    good = next(PHOTOS.rglob("*.jpg")).read_bytes()
    found = predictor.predict([good, content, good])
    assert said in found.refused[1] and found.refused[0] == found.refused[2] == ""
    assert found.prediction[1] == "" and not found.sure[1] and np.isnan(found.confidence[1])
    assert found.confidence[0] == found.confidence[2]


def test_the_command_lists_what_it_cannot_read(run, tmp_path, capsys):
    place = tmp_path / "photos"
    (place / "deeper").mkdir(parents=True)
    for number, path in enumerate(sorted(PHOTOS.rglob("*.jpg"))[:12]):
        shutil.copy(path, place / "deeper" / f"{number}.jpg")
    (place / "bad.jpg").write_bytes(b"nothing")
    (place / "notes.txt").write_text("no image")
    target = tmp_path / "answers" / "predictions.csv"
    arguments = ["--run", str(run.folder), "--out", str(target), str(place)]
    assert predict.main(arguments) == 1
    said = capsys.readouterr()
    assert "12 photos classified, 1 could not be read" in said.out
    assert "bad.jpg: not an image" in said.err
    table = pd.read_csv(target, keep_default_na=False)
    assert len(table) == 13 and (table.refused != "").sum() == 1
    names = [Path(path).name for path in table.photo]
    assert names == ["bad.jpg", *(f"{number}.jpg" for number in range(12))]
    assert predict.main([*arguments, "--keep-going"]) == 0


@pytest.mark.parametrize(("arguments", "said"), [
    (["{photos}/nowhere"], "does not exist"), (["{empty}"], "there is no image in"),
    (["{photos}", "--run", "{empty}"], "there is no saved model in"),
    (["{photos}", "--out", "{empty}"], "is a folder: name a file"),
    (["{photos}", "--engine", "abacus"], "engine cannot be 'abacus'"),
    (["{photos}", "--texts", "x.csv"], "takes photos only"),
])
def test_the_command_says_what_is_wrong(run, arguments, said, tmp_path, capsys):
    places = {"photos": str(PHOTOS / "trash"), "empty": str(tmp_path)}
    given = [argument.format(**places) for argument in arguments]
    assert predict.main(["--run", str(run.folder), "--out", str(tmp_path / "p.csv"), *given]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "p.csv").exists()


def test_saving_by_command(run, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["saving", "--run", str(run.folder), *arguments])
        return saving.main()

    assert call() == 0 and "is there already" in capsys.readouterr().out
    assert call("--set", "folds=3") == 2
    assert "only serve, reference_photos, notes can be changed here" in capsys.readouterr().err
    assert call("--set", "serve=twice") == 2
    assert "it is one of ensemble, refit" in capsys.readouterr().err
    assert reopen_run(run.folder).recipe == run.recipe


def test_a_run_without_a_model_says_how_to_make_one(run, tmp_path):
    shutil.copy(run.folder / "metadata.json", tmp_path)
    with pytest.raises(SuiteError, match="has no saved model yet"):
        find_model(tmp_path)
    with pytest.raises(SuiteError, match="no run that could be opened"):
        reopen_run(tmp_path / "nowhere")
    (tmp_path / "metadata.json").write_text(json.dumps({"configuration": {"network": {}}}))
    with pytest.raises(SuiteError, match="made by another version of the suite"):
        reopen_run(tmp_path)


def test_the_hashes_are_those_of_sha256sum(run):
    for line in (run.need("model") / SUMS).read_text("utf-8").splitlines():
        digest, name = line.split("  ")
        assert hash_file(run.need("model") / name) == digest


def test_a_page_starts_and_ends(run):
    page = start_page(run.folder)
    try:
        with pytest.raises(SuiteError, match="is taken"):
            start_page(run.folder, page.port)
    finally:
        page.stop()
    assert page.process.poll() is not None


def test_serving_needs_nothing_of_the_data(run, photos, tmp_path):
    """The folder alone is copied elsewhere: another process, another place, no run beside it."""
    place = shutil.copytree(run.need("model"), tmp_path / "elsewhere")
    program = ("from helpers.serving.predictor import load_predictor; import sys; "
               "print(load_predictor(sys.argv[1]).predict(sys.argv[2:]).confidence[0])")
    done = subprocess.run([sys.executable, "-c", program, str(place), photos[0]], cwd=ROOT,
                          text=True, capture_output=True, check=True)
    own = load_predictor(run.folder).predict(photos[:1]).confidence[0]
    assert abs(float(done.stdout.split()[-1]) - own) < 1e-6


def test_what_is_handed_in_wrongly_is_refused(predictor):
    cut = Image.open(io.BytesIO(next(PHOTOS.rglob("*.jpg")).read_bytes()[:2000]))
    assert predictor.predict([cut]).refused[0] == "truncated file"
    with pytest.raises(SuiteError, match="takes a list of photos"):
        predictor.predict("photo.jpg")
    assert predictor.predict([]).empty
    again = pickle.loads(pickle.dumps(predictor.reader))  # as for a worker process
    photo = str(next(PHOTOS.rglob("*.jpg")))
    assert np.array_equal(again.read(photo), predictor.reader.read(photo))


def test_answers_that_are_no_numbers_are_refused(run, photos, monkeypatch):
    own = load_predictor(run.folder)
    compute = own.engine.compute

    def overflow(pixels):
        found = compute(pixels)
        found[1] = np.inf
        return found

    monkeypatch.setattr(own.engine, "compute", overflow)
    found = own.predict(photos[:3])
    assert "no numbers" in found.refused[1] and found.prediction[1] == ""
    assert (found.refused[[0, 2]] == "").all()


def test_threads_do_not_disturb_an_explanation(run, predictor, photos):
    """With torch as engine the network that answers is the one that hooks would be on."""
    plain = load_predictor(run.folder, engine="torch", batch_size=1)
    name = plain.classes[0]
    _, expected = plain.explain(photos[0], name)
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(plain.predict, photos[1:30]) for _ in range(2)]
        maps = [pool.submit(plain.explain, photos[0], name) for _ in range(10)]
        assert all(np.allclose(each.result()[1], expected, atol=1e-5) for each in maps)
        own = columns_of(predictor.predict(photos[1:30]))
        assert all(np.abs(columns_of(each.result()) - own).max() < 1e-4 for each in answers)


def test_nothing_to_compare_with_is_not_taken_for_equal(run, capsys, monkeypatch):
    gone = run.load_table("test_probabilities").assign(path="/nowhere/1.jpg")
    monkeypatch.setattr(saving, "restore_images", lambda *_: None)
    own = type(run).load_table
    monkeypatch.setattr(type(run), "load_table", lambda run, name="table": (
        gone if name == "test_probabilities" else own(run, name)))
    assert np.isnan(compare_answers(run, run.path("model")))
    assert "was compared with none" in capsys.readouterr().out


def test_a_photo_that_has_gone_is_no_reference(run, tmp_path, capsys):
    rows = select_rows(run.load_table(), "train").head(4).copy()
    rows.loc[rows.index[1], "path"] = "/nowhere/1.jpg"
    save_references(tmp_path, rows, np.eye(4, dtype=np.float32))
    kept = load_references(tmp_path)
    assert len(kept.table) == len(kept.thumbnails) == 3
    assert "left out of the references: file is missing" in capsys.readouterr().out
    assert kept.find_nearest(np.eye(4)[2], 1).image_id[0] == rows.image_id.iloc[2]


def test_names_that_are_no_text_and_texts_that_match_nothing(run, tmp_path, capsys):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    shutil.copy(next(PHOTOS.rglob("*.jpg")), odd)
    target = tmp_path / "p.csv"
    assert predict.main(["--run", str(run.folder), "--out", str(target), str(tmp_path)]) == 0
    assert len(pd.read_csv(target)) == 1
    assert predict.main(["--run", str(run.folder), "x" * 5000]) == 2
    assert "does not exist" in capsys.readouterr().err
    table = tmp_path / "texts.csv"
    table.write_text("photo,said\nother.jpg,hello\n")
    with pytest.raises(SuiteError, match="names none of the photos"):
        predict.load_table_of_texts(table, ["said"], ["a/1.jpg"])
    table.write_text("photo,said\n1.jpg,hello\n./1.jpg,you\n")
    with pytest.raises(SuiteError, match=r"names 1\.jpg twice"):
        predict.load_table_of_texts(table, ["said"], ["a/1.jpg"])
    table.write_text("photo,said\na/1.jpg,hello\n2.jpg,you\n")
    assert predict.load_table_of_texts(table, ["said"], ["./a/1.jpg", "b/2.jpg", "b/1.jpg"]) == [
        "hello", "you", ""]


def test_an_export_replaces_an_export_alone(run, predictor, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(SuiteError, match="no export: choose another"):
        export_model(predictor, tmp_path)
    with pytest.raises(SuiteError, match="no export: choose another"):
        export_model(predictor, tmp_path / "mine.txt")
    target = tmp_path / "onnx"
    export_model(predictor, target)
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((40, 40), 30_000, np.uint16)).save(deep)
    done = subprocess.run([sys.executable, str(target / EXAMPLE), str(deep)], text=True,
                          capture_output=True, check=False)
    assert done.returncode == 1 and "has to be converted first" in done.stderr
    stale = Path(shutil.copytree(target, run.folder / "onnx"))
    save_model(run)
    assert not stale.exists() and "exported from an earlier model" in capsys.readouterr().out
