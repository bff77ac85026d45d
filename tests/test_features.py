"""Backbones and extraction: right weights, right rows, nothing stale, nothing lost."""

import dataclasses
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from helpers import extraction
from helpers.backbones import check_backbone, create_backbone, resolve_data_config
from helpers.errors import SuiteError
from helpers.extraction import check_determinism, extract_features, extract_run
from helpers.features import (
    check_features,
    compare_features,
    load_features,
    load_labels,
    progress_file,
    select_rows,
)
from helpers.files import load_json, save_csv, save_json
from helpers.images import create_preprocessing, decode_image
from helpers.inspection import inspect_images
from helpers.recipe import load_recipe
from helpers.run import open_run
from helpers.sources import load_table
from helpers.splits import assign_splits, encode_labels

MODEL = "test_efficientnet"


@pytest.fixture
def prepared(folders, write_recipe, request):
    """A run whose first two notebooks' tables are there, and its backbone."""
    name = request.node.name.split("[")[0]
    run = open_run(write_recipe("tiny", folders, source="folders", run=name, batch_size=5))
    images = inspect_images(load_table(run.recipe))
    images["group"] = range(len(images))
    save_json(encode_labels(images), run.path("label_mapping"))
    save_csv(assign_splits(images, 0.2, 3, 42), run.path("table"))
    return run, *create_backbone(run.recipe)


def recipe_with(**settings):
    return load_recipe("demo", {"backbone": MODEL, "image_size": 32, "data": "data"} | settings)


def test_an_unknown_backbone_names_near_ones():
    with pytest.raises(SuiteError, match=r"no backbone 'resnet5'; near it: .*resnet50"):
        check_backbone(recipe_with(backbone="resnet5"))
    with pytest.raises(SuiteError, match=r"no weights 'nope' for resnet18; it knows: .*a1_in1k"):
        check_backbone(recipe_with(backbone="resnet18", weights="nope"))
    with pytest.raises(SuiteError, match=r"weight file .*gone\.pth does not exist"):
        check_backbone(recipe_with(weights="data/gone.pth"))


def test_random_weights_follow_the_seed_alone():
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def features(seed):
        return create_backbone(recipe_with(weights="random", seed=seed))[0](images)

    first = features(1)
    torch.manual_seed(5)
    assert torch.equal(first, features(1))
    assert not torch.equal(first, features(2))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_local_file_with_its_classifier_is_loaded(tmp_path, suffix):
    whole = timm.create_model(MODEL).eval()
    path = tmp_path / f"weights{suffix}"
    save_file(whole.state_dict(), path) if suffix == ".safetensors" else torch.save(
        whole.state_dict(), path)
    model, _ = create_backbone(recipe_with(weights=str(path)))
    images = torch.rand(2, 3, 32, 32)
    expected = whole.forward_head(whole.forward_features(images), pre_logits=True)
    assert torch.equal(model(images), expected)
    assert not any(p.requires_grad for p in model.parameters()) and not model.training


def test_a_file_of_another_architecture_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    with pytest.raises(SuiteError, match=r"other\.safetensors"):
        create_backbone(recipe_with(weights=str(path)))


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    (tmp_path / "hostile.pth").write_bytes(pickle.dumps(Hostile(), protocol=2))
    torch.save({"weight": Hostile()}, tmp_path / "hostile2.pth")
    for name in ("hostile.pth", "hostile2.pth"):
        with pytest.raises(SuiteError, match=r"hostile2?\.pth cannot be loaded"):
            create_backbone(recipe_with(weights=str(tmp_path / name)))
    assert not (tmp_path / "touched").exists()


def test_without_the_hub_the_message_says_what_to_do():
    with pytest.raises(SuiteError) as error:
        create_backbone(recipe_with(weights="pretrained"))
    for words in (MODEL, "hf download", "model.safetensors", "weights: random"):
        assert words in str(error.value)


def test_a_transformer_takes_the_recipe_size(tmp_path):
    path = tmp_path / "vit.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), path)
    for weights in ("random", str(path)):
        model, config = create_backbone(recipe_with(backbone="test_vit", weights=weights,
                                                    image_size=64))
        assert config["input_size"] == (3, 64, 64)
        assert model(torch.rand(1, 3, 64, 64)).shape == (1, model.num_features)


def test_a_size_that_the_backbone_cannot_take_is_refused():
    with pytest.raises(SuiteError, match="cannot take images of 100 x 100 pixels"):
        create_backbone(recipe_with(backbone="crossvit_tiny_240", weights="random",
                                    image_size=100))


def test_preprocessing_is_the_backbones_own_unless_the_recipe_says():
    own = resolve_data_config(recipe_with(image_size=None, resize="center"))
    timms = timm.data.resolve_model_data_config(timm.create_model(MODEL))
    assert own == timms | {"normalisation": "backbone"}
    assert resolve_data_config(recipe_with(resize="squash"))["crop_pct"] == 1.0


def test_rows_are_the_features_of_their_images(prepared):
    run, model, config = prepared
    metadata = extract_run(run, model, config)
    prepare = create_preprocessing(config)
    mapping = load_json(run.need("label_mapping"))
    for part, count in (("train", 27), ("test", 9)):
        rows, features = select_rows(run.load_table(), part), load_features(run, part)
        assert features.shape == (count, metadata["feature_dim"])
        assert isinstance(features, np.memmap)
        with torch.inference_mode():
            one = model(prepare(decode_image(rows.path[count - 1])).unsqueeze(0))
        np.testing.assert_allclose(features[-1], one[0], rtol=1e-4, atol=1e-7)
    labels = np.load(run.need("train_labels"))
    rows = select_rows(run.load_table(), "train")
    assert [list(mapping)[code] for code in labels] == list(rows.label)
    assert {"configuration", "class_weights", "versions", "seed", "timestamp"} <= set(metadata)
    assert compare_features(run).loc["nan"].sum() == 0


def test_features_that_are_there_are_kept_until_something_changes(prepared, capsys):
    run, model, config = prepared
    extract_run(run, model, config)
    before = run.path("train_features").stat().st_mtime_ns
    extract_run(run, model, config)
    assert run.path("train_features").stat().st_mtime_ns == before
    assert "there already" in capsys.readouterr().out
    table = run.load_table()
    table.loc[table.index[table.split == "train"][0], "sha256"] = "other pixels"
    save_csv(table, run.path("table"))
    with pytest.raises(SuiteError, match="run 03_extraction again"):
        load_features(run, "train")
    extract_run(run, model, config)
    assert run.path("train_features").stat().st_mtime_ns != before


def test_an_image_that_vanished_stops_the_extraction(prepared):
    run, model, config = prepared
    paths = select_rows(run.load_table(), "train").path.tolist()
    target = run.folder / "gone.npy"
    for workers in (0, 1):
        with pytest.raises(SuiteError) as error:
            extract_features(model, config, [*paths[:20], "data/gone.jpg"], target, "print",
                             batch_size=4, workers=workers)
        assert str(error.value).startswith("data/gone.jpg cannot be read any more")
    assert not target.exists()


def test_killed_and_run_again_the_array_is_byte_equal(prepared, tmp_path):
    run, model, config = prepared
    paths = select_rows(run.load_table(), "train").path.tolist() * 40
    whole, killed = tmp_path / "whole.npy", tmp_path / "killed.npy"
    extract_features(model, config, paths, whole, "print", batch_size=8, workers=0)
    script = textwrap.dedent(f"""
        import json, pathlib
        from helpers import extraction
        from helpers.backbones import create_backbone
        from helpers.recipe import Recipe
        extraction.SAVE_EVERY_S = 0
        model, config = create_backbone(Recipe(**json.loads({run.recipe.model_dump_json()!r})))
        extraction.extract_features(model, config, {paths!r}, pathlib.Path({str(killed)!r}),
                                    "print", batch_size=8, workers=0)
    """)
    progress = progress_file(killed)
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    while process.poll() is None and not progress.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < load_json(progress)["rows"] < len(paths)
    assert not killed.exists()
    extract_features(model, config, paths, killed, "print", batch_size=8, workers=0)
    assert killed.read_bytes() == whole.read_bytes()
    left = ["killed.npy", "killed.progress.json", "whole.npy", "whole.progress.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == left


def test_progress_of_other_features_is_not_continued(prepared, tmp_path, monkeypatch):
    """A is interrupted, then B before its first record, then A comes again."""
    run, model, config = prepared
    paths = select_rows(run.load_table(), "train").path.tolist()
    target = tmp_path / "features.npy"

    def extract(fingerprint, gone_after, save_every):
        monkeypatch.setattr(extraction, "SAVE_EVERY_S", save_every)
        some = paths[:gone_after] + ["data/gone.jpg"] * (len(paths) - gone_after)
        return extract_features(model, config, some, target, fingerprint, 5, workers=0)

    for fingerprint, gone_after, save_every in (("A", 20, 0), ("B", 5, 1000)):
        with pytest.raises(SuiteError, match="cannot be read any more"):
            extract(fingerprint, gone_after, save_every)
    assert extract("A", len(paths), 0) > 0
    features = np.load(target)
    assert features.shape == (len(paths), model.num_features)
    assert np.abs(features).sum(axis=1).min() > 0


def test_the_finished_half_survives_an_interruption(prepared):
    run, model, config = prepared
    table = run.load_table()
    spoilt = table.copy()
    spoilt.loc[spoilt.split == "holdout", "path"] = "data/gone.jpg"
    save_csv(spoilt, run.path("table"))
    with pytest.raises(SuiteError, match="cannot be read any more"):
        extract_run(run, model, config)
    done = run.path("train_features").stat().st_mtime_ns
    save_csv(table, run.path("table"))
    extract_run(run, model, config)
    assert run.path("train_features").stat().st_mtime_ns == done
    assert len(load_features(run, "test")) == 9


def test_other_labels_in_the_table_are_noticed(prepared):
    run, model, config = prepared
    extract_run(run, model, config)
    table = run.load_table()
    first = table.index[table.split == "train"][0]
    table.loc[first, "label"] = "digit 3" if table.label[first] != "digit 3" else "digit 0"
    save_csv(table, run.path("table"))
    assert len(load_features(run, "train")) == 27
    with pytest.raises(SuiteError, match="holds other labels than table"):
        load_labels(run)


def test_features_computed_again_are_the_same(prepared):
    run, model, config = prepared
    extract_run(run, model, config)
    assert check_determinism(run, model, config, count=5) < 1e-5
    features = np.load(run.path("train_features"), mmap_mode="r+")
    features[0] *= 2
    features.flush()
    with pytest.raises(SuiteError, match="features computed again differ"):
        check_determinism(run, model, config)


def test_statistics_equal_numpys_and_count_bad_values():
    features = np.random.default_rng(0).normal(3, 2, (1000, 7)).astype(np.float32)
    features[:, 3] = 1.5
    found = check_features(features, rows_at_once=64)
    for name in ("mean", "std", "min", "max"):
        assert found[name] == pytest.approx(getattr(np, name)(features.astype(float)))
    assert (found["nan"], found["inf"], found["constant"]) == (0, 0, 1)
    features[5, 5], features[6, 6] = np.nan, np.inf
    found = check_features(features, rows_at_once=64)
    assert (found["nan"], found["inf"]) == (1, 1)
    assert np.isfinite(found["mean"])


def test_nan_in_features_is_refused(prepared):
    run, model, config = prepared
    extract_run(run, model, config)
    features = np.load(run.path("train_features"), mmap_mode="r+")
    features[0, 0] = np.nan
    features.flush()
    with pytest.raises(SuiteError, match="1 feature values are NaN"):
        compare_features(run)


def test_features_from_the_cache_are_the_same(prepared, tmp_path):
    run, model, config = prepared
    extract_run(run, model, config)
    plain = np.load(run.path("train_features"))
    run.path("train_features").unlink()
    cached = run.recipe.model_copy(update={"cache": True})
    extract_run(dataclasses.replace(run, recipe=cached), model, config)
    assert (run.folder / "train_images.npy").exists()
    assert np.array_equal(np.load(run.path("train_features")), plain)
