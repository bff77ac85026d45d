"""Backbones and extraction: right weights, right rows, nothing stale, nothing lost."""

import dataclasses
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

from helpers import resuming
from helpers.data.images import decode_image
from helpers.data.preparation import prepare_run
from helpers.data.splits import select_rows
from helpers.features import store
from helpers.features.engines import create_engine
from helpers.features.extraction import check_determinism, extract_run
from helpers.features.forecast import forecast_extraction
from helpers.features.statistics import check_features, compare_features
from helpers.features.store import load_codes, load_features
from helpers.features.streaming import ImageFiles, record_file, stream_features
from helpers.files import SuiteError, load_json
from helpers.network.backbones import create_backbone
from helpers.network.preprocessing import create_preprocessing, resolve_data_config
from helpers.network.weights import DownloadError, check_network, fingerprint_weights
from helpers.pictures.charts import plot_feature_statistics
from helpers.recipe import load_recipe
from helpers.run import open_run
from helpers.steps import STEPS

MODEL = "test_efficientnet"


@pytest.fixture
def prepared(folders, write_recipe, request):
    """A run whose first two notebooks' tables are there, and its backbone."""
    name = request.node.name.split("[")[0]
    run = open_run(write_recipe("tiny", folders, source="folders", run=name, near_copy=1,
                                holdout=0.2, batch_size=5))
    prepare_run(run)
    return run, *create_backbone(run.recipe)


def change(run, **settings):
    return dataclasses.replace(run, recipe=run.recipe.change(**settings))


def recipe_with(**settings):
    return load_recipe("demo", {"backbone": MODEL, "weights": "random", "image_size": 32,
                                "data": "data"} | settings)


def test_an_unknown_backbone_names_near_ones():
    with pytest.raises(SuiteError, match=r"no backbone 'resnet5'; near it: .*resnet50"):
        check_network(recipe_with(backbone="resnet5"))
    with pytest.raises(SuiteError, match=r"no weights 'nope' for resnet18; it knows: .*a1_in1k"):
        check_network(recipe_with(backbone="resnet18", weights="nope"))
    with pytest.raises(SuiteError, match=r"weight file .*gone\.pth does not exist"):
        check_network(recipe_with(weights="data/gone.pth"))


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
    with pytest.raises(DownloadError) as error:
        create_backbone(recipe_with(weights="pretrained"))
    for words in (MODEL, "hf download", "model.safetensors", "weights: packaged"):
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
    metadata = extract_run(run, (model, config))
    prepare = create_preprocessing(config)
    for part, count in (("train", 27), ("test", 9)):
        rows, features = select_rows(run.load_table(), part), load_features(run, part)
        assert features.shape == (count, metadata["feature_dim"])
        assert isinstance(features, np.memmap)
        with torch.inference_mode():
            one = model.cpu()(prepare(decode_image(rows.path[count - 1])).unsqueeze(0))
        np.testing.assert_allclose(features[-1], one[0], rtol=1e-4, atol=1e-7)
    mapping, rows = load_json(run.need("label_mapping")), select_rows(run.load_table(), "train")
    for codes in (np.load(run.need("train_labels")), load_codes(run)):
        assert [list(mapping)[code] for code in codes] == list(rows.label)
    assert {"configuration", "class_weights", "versions", "seed", "timestamp"} <= set(metadata)
    assert compare_features(run).loc["nan"].sum() == 0


def test_a_part_that_is_neither_train_nor_test_is_refused(prepared):
    with pytest.raises(KeyError, match="holdout"):
        select_rows(prepared[0].load_table(), "holdout")


def test_features_that_are_there_are_kept_until_something_changes(prepared, capsys):
    run, model, config = prepared
    extract_run(run, (model, config))
    before = run.path("train_features").stat().st_mtime_ns
    extract_run(run, (model, config))
    assert run.path("train_features").stat().st_mtime_ns == before
    assert "there already" in capsys.readouterr().out
    table = run.load_table()
    first = table.index[table.split == "train"][0]
    table.loc[first, "label"] = "metal" if table.label[first] != "metal" else "glass"
    run.save("table", table)
    with pytest.raises(SuiteError, match=r"train_features.* from another table\.csv .*run 03"):
        load_features(run, "train")
    extract_run(run, (model, config))  # labels are nothing to features
    assert run.path("train_features").stat().st_mtime_ns == before
    assert len(load_features(run, "train")) == 27
    table.loc[first, "image_id"] = "another"
    run.save("table", table)
    extract_run(run, (model, config))
    assert "computed anew: images 27" in capsys.readouterr().out
    assert run.path("train_features").stat().st_mtime_ns != before


@pytest.mark.parametrize(("settings", "named"), [
    ({"seed": 7}, r"weights random 42 \(now random 7\)"),
    ({"precision": "bf16"}, r"precision float32 \(now bf16\)"),
    ({"resize": "center"}, r"crop_pct 1.0 \(now 0.95\), crop_mode squash \(now center\)"),
    ({"normalisation": "minmax"}, r"mean \[0.485, .* \(now \[0.0, 0.0, 0.0\]\), .*minmax"),
])
def test_stale_features_are_refused_by_what_changed(prepared, settings, named, monkeypatch):
    run, model, config = prepared
    extract_run(run, (model, config))
    with pytest.raises(SuiteError, match="was made with"):  # by the settings noted
        load_features(change(run, **settings), "train")
    # And by what they mean, should the notes be lost.
    monkeypatch.setattr(type(run), "need", type(run).path)
    with pytest.raises(SuiteError, match=named):
        load_features(change(run, **settings), "train")


def test_other_versions_are_warned_of_and_features_kept(prepared, monkeypatch, capsys):
    run, model, config = prepared
    extract_run(run, (model, config))
    before = run.path("train_features").stat().st_mtime_ns
    now = store.describe_versions()
    monkeypatch.setattr(store, "describe_versions", lambda: now | {"torch": "9.9"})
    capsys.readouterr()
    assert len(load_features(run, "train")) == 27
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and f"torch {now['torch']} (now 9.9)" in said
    extract_run(run, (model, config))
    assert run.path("train_features").stat().st_mtime_ns == before


def test_pretrained_weights_are_told_apart_by_their_tag(tmp_path):
    recipe = recipe_with(backbone="resnet18", weights="pretrained")
    assert fingerprint_weights(recipe) == "a1_in1k"


def test_features_of_a_file_that_changed_are_not_kept(prepared, rows, tmp_path):
    run, model, config = prepared
    table = run.load_table()
    first = table.index[table.split == "train"][0]
    table.loc[first, "path"] = shutil.copy(table.path[first], tmp_path)
    run.save("table", table)
    extract_run(run, (model, config))
    Path(table.path[first]).write_bytes(Path(rows.path[5]).read_bytes())
    with pytest.raises(SuiteError, match="has changed since it was inspected: run 01_eda"):
        extract_run(run, (model, config))


def extract(prepared, rows, target, description=None, **settings):
    """Extract `rows` to `target` with a fresh engine, as another run of the same recipe would."""
    run, model, config = prepared
    engine = create_engine(model, config, run.recipe.change(**settings), rows.path.tolist())
    stream_features(engine, ImageFiles(rows, config), target, description or {"all": "same"})
    return np.load(target)


@pytest.fixture
def rows(prepared):
    return select_rows(prepared[0].load_table(), "train")


def test_an_image_that_cannot_be_read_never_becomes_a_row(prepared, rows, tmp_path):
    target, bad = tmp_path / "features.npy", tmp_path / "bad.jpg"
    content = Path(rows.path[20]).read_bytes()
    for damage, reason in ((None, "No such file"), (content[: len(content) // 2], "truncated"),
                           (b"", "empty file"), (b"not an image", "not an image")):
        bad.unlink(missing_ok=True)
        if damage is not None:
            bad.write_bytes(damage)
        spoilt = rows[["path"]].copy()
        spoilt.loc[20, "path"] = str(bad)
        with pytest.raises(SuiteError, match=rf"bad\.jpg cannot be read any more \({reason}"):
            extract(prepared, spoilt, target)
        assert not target.exists()


def test_an_image_that_changed_is_refused(prepared, rows, tmp_path):
    changed = tmp_path / "changed.jpg"
    shutil.copy(rows.path[3], changed)
    rows.loc[20, "path"] = str(changed)
    with pytest.raises(SuiteError, match=r"changed\.jpg has changed since it was inspected"):
        extract(prepared, rows, tmp_path / "features.npy")


@pytest.mark.parametrize("moment", [1, 5, 12])
def test_killed_and_run_again_the_array_is_byte_equal(prepared, rows, tmp_path, moment):
    run = prepared[0]
    many = pd.concat([rows[["path"]]] * 40, ignore_index=True)
    whole, killed = tmp_path / "whole.npy", tmp_path / "killed.npy"
    extract(prepared, many, whole)
    many.to_csv(tmp_path / "many.csv")
    script = textwrap.dedent(f"""
        import json, os, pathlib, signal
        import pandas as pd
        from helpers.features.engines import create_engine
        from helpers.features.streaming import ImageFiles, stream_features
        from helpers.network.backbones import create_backbone
        from helpers.settings import Recipe
        from helpers.resuming import Shards

        recipe = Recipe(**json.loads({run.recipe.model_dump_json()!r}))
        model, config = create_backbone(recipe)
        rows = pd.read_csv({str(tmp_path / "many.csv")!r})
        engine, saves = create_engine(model, config, recipe, rows.path.tolist()), []
        save = Shards.save

        def save_then_die(shards, number, **arrays):
            save(shards, number, **arrays)
            saves.append(number)
            if len(saves) == {moment}:
                os.kill(os.getpid(), signal.SIGKILL)

        Shards.save = save_then_die
        stream_features(engine, ImageFiles(rows, config), pathlib.Path({str(killed)!r}),
                        {{"all": "same"}})
    """)
    process = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed.shards").glob("*.npz")}
    assert len(done) == moment and not killed.exists()
    # What is computed again, and what is not.
    kept, plain = [], resuming.Shards.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resuming.Shards, "save", lambda self, number, **arrays: (
            kept.append(number), plain(self, number, **arrays)))
        extract(prepared, many, killed)
    assert set(kept) == set(range(moment, 1 + max(kept)))
    assert killed.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".csv") == [
        "killed.json", "killed.npy", "whole.json", "whole.npy"]


def test_a_killed_run_does_not_compute_again_what_is_done(prepared, rows, tmp_path, monkeypatch):
    target, spoilt = tmp_path / "features.npy", rows[["path"]].copy()
    spoilt.loc[22, "path"] = "data/gone.jpg"
    with pytest.raises(SuiteError, match="cannot be read any more"):
        extract(prepared, spoilt, target, workers=1, engine="openvino")
    read, plain = [], ImageFiles.read
    monkeypatch.setattr(ImageFiles, "read", lambda self, number: (
        read.append(number), plain(self, number))[1])
    extract(prepared, rows[["path"]], target, workers=1, engine="openvino")
    assert sorted(read) == list(range(20, 27))  # shards of one batch of 5: four were done


def test_shards_of_other_features_are_not_continued(prepared, rows, tmp_path, capsys):
    """A is interrupted, then B before its first shard, then A comes again."""
    target, rows = tmp_path / "features.npy", rows[["path"]]
    for description, first in (("A", 20), ("B", 0)):
        spoilt = rows.assign(path=rows.path.where(rows.index < first, "data/gone.jpg"))
        with pytest.raises(SuiteError, match="cannot be read any more"):
            engine = create_engine(prepared[1], prepared[2], prepared[0].recipe,
                                   rows.path.tolist())
            stream_features(engine, ImageFiles(spoilt, prepared[2]), target,
                            {"weights": description})
    features = extract(prepared, rows, target, {"weights": "A"})
    assert "computed anew: weights B (now A)" in capsys.readouterr().out
    assert np.array_equal(features, extract(prepared, rows, tmp_path / "other.npy"))


def open_shards(place, origin):
    opened = resuming.Shards(place / "features.shards", place, 2, origin)
    opened.open()
    return opened


def test_a_run_that_another_one_outran_is_refused(tmp_path):
    """Its shards would stand among those that the other makes in another way."""
    first = open_shards(tmp_path, {"precision": "float32"})
    second = open_shards(tmp_path, {"precision": "bf16"})
    with pytest.raises(SuiteError, match=r"another run has started to make .* anew meanwhile"):
        first.save(0, features=np.zeros(3))
    second.save(0, features=np.ones(3))
    assert second.load(0)["features"].tolist() == [1, 1, 1] and second.list_done() == [0]
    # Whatever a Drive has kept of the first is none of the second's.
    np.savez(first._path(1), features=np.zeros(3))
    assert second.list_done() == [0]


def test_processes_that_compute_in_different_ways_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(resuming, "gather", lambda origin: [origin, {"engine": "torch"}, origin])
    with pytest.raises(SuiteError, match=r"different ways: engine openvino \(now torch\)"):
        open_shards(tmp_path, {"engine": "openvino"})


def test_a_damaged_shard_is_computed_again(tmp_path):
    opened = open_shards(tmp_path, {})
    opened.save(1, features=np.ones(3))
    path = opened._path(1)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SuiteError, match=r"is damaged .* run again"):
        opened.load(1)
    assert opened.list_missing() == [0, 1]


def test_processes_take_turns(tmp_path, monkeypatch):
    """The launcher may say so after this package has been imported."""
    monkeypatch.setattr(resuming, "wait_for_all", lambda: None)
    taken = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        taken.append(resuming.Shards(tmp_path / "none", tmp_path, 8, {}).list_missing())
    assert taken == [[0, 3, 6], [1, 4, 7], [2, 5]]


def test_features_of_unknown_origin_are_refused_and_made_anew(prepared):
    run, model, config = prepared
    extract_run(run, (model, config))
    plain = np.load(run.path("train_features"))
    record_file(run.path("train_features")).unlink()
    with pytest.raises(SuiteError, match=r"train_features.*json is missing, which says from"):
        load_features(run, "train")
    extract_run(run, (model, config))
    assert np.array_equal(load_features(run, "train"), plain)


def test_exact_copies_are_computed_once(prepared, rows, tmp_path, monkeypatch, capsys):
    doubled = pd.concat([rows, rows.iloc[::-1]], ignore_index=True)
    computed, plain = [], ImageFiles.read
    monkeypatch.setattr(ImageFiles, "read", lambda self, number: (
        computed.append(number), plain(self, number))[1])
    features = extract(prepared, doubled, tmp_path / "features.npy", engine="openvino")
    assert sorted(computed) == list(range(27))
    assert np.array_equal(features[27:], features[:27][::-1])
    assert np.array_equal(features[:27], extract(prepared, rows, tmp_path / "plain.npy",
                                                  engine="openvino"))


def test_a_disk_without_room_is_refused_before_the_work(prepared, rows, tmp_path, monkeypatch):
    run, model, config = prepared
    engine = create_engine(model, config, run.recipe, rows.path.tolist())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(SuiteError, match="Free some space, or send runs elsewhere"):
        forecast_extraction(engine, ImageFiles(rows, config), tmp_path)


def test_worker_processes_read_what_threads_read(prepared, rows, tmp_path):
    """Beside a GPU processes decode; the same path with the CPU in the GPU's place."""
    run, model, config = prepared
    expected = extract(prepared, rows, tmp_path / "threads.npy")
    engine = create_engine(model, config, run.recipe, rows.path.tolist())
    engine.device = "no GPU, but read as for one"
    target = tmp_path / "processes.npy"
    stream_features(engine, ImageFiles(rows, config), target, {"all": "same"})
    assert np.array_equal(np.load(target), expected)
    spoilt = rows.assign(path=rows.path.where(rows.index != 25, "data/gone.jpg"))
    with pytest.raises(SuiteError, match=r"^data/gone\.jpg cannot be read any more"):
        stream_features(engine, ImageFiles(spoilt, config), target, {"all": "other"})


def test_a_copy_that_changed_is_refused(prepared, rows, tmp_path):
    copy = tmp_path / "copy.jpg"
    shutil.copy(rows.path[0], copy)
    doubled = pd.concat([rows, rows.iloc[:1].assign(path=str(copy))], ignore_index=True)
    copy.write_bytes(Path(rows.path[1]).read_bytes())
    with pytest.raises(SuiteError, match=r"copy\.jpg has changed"):
        extract(prepared, doubled, tmp_path / "features.npy")


@pytest.mark.parametrize("count", [0, 1, 5])
def test_few_images_or_none_are_features_too(prepared, rows, tmp_path, count):
    run, model, config = prepared
    engine = create_engine(model, config, run.recipe, rows.path.tolist())
    target = tmp_path / "features.npy"
    stream_features(engine, ImageFiles(rows[:count], config), target, {"all": "same"})
    assert np.load(target).shape == (count, engine.width)


@pytest.mark.parametrize("backbone", [MODEL, "test_resnet", "test_vit", "test_convnext"])
def test_the_engines_agree(prepared, rows, tmp_path, backbone):
    run, *_ = prepared
    recipe = run.recipe.change(backbone=backbone)
    found = {}
    for engine in ("torch", "openvino"):
        model, config = create_backbone(recipe)
        found[engine] = extract((run, model, config), rows, tmp_path / f"{engine}.npy",
                                engine=engine, backbone=backbone)
    difference = np.abs(found["torch"] - found["openvino"]).max()
    assert difference <= 1e-5 * np.abs(found["torch"]).max()
    record = load_json(record_file(tmp_path / "openvino.npy"))
    assert record["engine"] == "openvino" and 0 < record["max_relative_difference"] <= 1e-5


def test_bf16_is_declared_and_close(prepared, rows, tmp_path):
    run, model, config = prepared
    exact = extract(prepared, rows, tmp_path / "exact.npy")
    try:
        rough = extract((run, model, config), rows, tmp_path / "rough.npy", precision="bf16")
    except SuiteError as error:
        assert "does not compute in bf16: set `precision: float32`" in str(error)
        pytest.skip("this processor does not compute in bf16")
    cosine = (exact * rough).sum(axis=1) / (
        np.linalg.norm(exact, axis=1) * np.linalg.norm(rough, axis=1))
    assert not np.array_equal(exact, rough) and np.median(cosine) > 0.999
    assert load_json(record_file(tmp_path / "rough.npy"))["precision"] == "bf16"


def test_a_network_that_openvino_cannot_take_runs_on_torch(prepared, rows, capsys):
    run, _, config = prepared
    paths = rows.path.tolist()

    class Awkward(torch.nn.Module):
        def forward(self, images):
            return torch.linalg.svdvals(images[:, :, :8, :8]).flatten(1)

    engine = create_engine(Awkward(), config, run.recipe, paths)
    assert engine.name == "torch"
    assert "torch computes test_efficientnet" in capsys.readouterr().out
    with pytest.raises(SuiteError, match="Set `engine: torch`"):
        create_engine(Awkward(), config, run.recipe.change(engine="openvino"), paths)


def test_an_interrupt_is_survived_when_an_engine_is_gone(prepared, rows):
    """Let go in another thread, OpenVINO unmapped the stack that signals are handled on."""
    script = textwrap.dedent(f"""
        import json, os, signal, threading
        from helpers.network.backbones import create_backbone
        from helpers.features.engines import create_engine
        from helpers.settings import Recipe
        recipe = Recipe(**json.loads({prepared[0].recipe.model_dump_json()!r}))
        engines = [create_engine(*create_backbone(recipe), recipe, {rows.path.tolist()[:1]})]
        thread = threading.Thread(target=engines.clear)
        thread.start()
        thread.join()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            print("interrupted", engines)
    """)
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.stdout == "interrupted []\n", (process.returncode, process.stderr)


def test_two_processes_make_the_array_of_one(folders, write_recipe, tmp_path):
    """27 and 9 images in batches of 2: 14 and 5 batches, so neither divides by two."""
    recipe = write_recipe("tiny", folders, source="folders", batch_size=2, workers=1,
                          near_copy=1, holdout=0.2)
    arrays = {}
    for count in (1, 2):
        run = open_run(recipe, {"run": f"processes-{count}"})
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        for module in ("helpers.data.inspection", "helpers.features.extraction"):
            subprocess.run([sys.executable, *(launcher if count == 2 else []), "-m", module,
                            "--recipe", recipe, "--set", f"run=processes-{count}"], check=True,
                           capture_output=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
            if module == "helpers.data.inspection":
                assert len(list((run.folder / "inspection.shards").glob("*.npz"))) == 12
                prepare_run(run)  # goes on from what the processes have left
        assert load_json(run.path("metadata"))["processes"] == count
        arrays[count] = [run.path(name).read_bytes() for name in (
            "images", "table", "train_features", "test_features")]
        assert len(load_features(run, "train")) == 27
        assert run.is_done(STEPS[2])
    assert arrays[1] == arrays[2]


def test_the_finished_half_survives_an_interruption(prepared):
    run, model, config = prepared
    table = run.load_table()
    spoilt = table.copy()
    spoilt.loc[spoilt.split == "holdout", "path"] = "data/gone.jpg"
    run.save("table", spoilt)
    with pytest.raises(SuiteError, match="cannot be read any more"):
        extract_run(run, (model, config))
    done = run.path("train_features").stat().st_mtime_ns
    run.save("table", table)
    extract_run(run, (model, config))
    assert run.path("train_features").stat().st_mtime_ns == done
    assert len(load_features(run, "test")) == 9


def test_features_computed_again_are_the_same(prepared):
    run, model, config = prepared
    extract_run(run, (model, config))
    assert check_determinism(run, model, config, count=5) < 1e-5
    features = np.load(run.path("train_features"), mmap_mode="r+")
    features[0] *= 2
    features.flush()
    with pytest.raises(SuiteError, match="has changed since it was written: run 03"):
        load_features(run, "train")
    with run.write("train_features"):
        pass  # as if it had been made so
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
    extract_run(run, (model, config))
    features = np.load(run.path("train_features"), mmap_mode="r+")
    features[0, 0] = np.nan
    features.flush()
    with run.write("train_features"):
        pass
    with pytest.raises(SuiteError, match="1 feature values are NaN"):
        compare_features(run)


def test_features_that_are_all_alike_are_drawn():
    alike = np.full((9, 4), 0.3, np.float32)
    alike[0, 0] = np.nextafter(alike[0, 0], 1, dtype=np.float32)
    (left, right) = plot_feature_statistics(alike, alike[:0]).axes
    assert sum(bar.get_height() > 0 for bar in left.patches) == 1 and right.patches
