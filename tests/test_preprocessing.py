"""Normalisation, augmentation, cache, checklist: what happens to pixels, and what must hold."""

import numpy as np
import pandas as pd
import pytest
import timm
import torch

from helpers.augmentation import LEVELS, choose_levels, create_group, create_level
from helpers.backbones import normalise_config, resolve_data_config
from helpers.cache import build_cache
from helpers.checklist import run_checklist
from helpers.errors import SuiteError
from helpers.files import save_csv, save_json
from helpers.images import (
    create_geometry,
    create_normalisation,
    create_preprocessing,
    decode_image,
    undo_normalisation,
)
from helpers.inspection import inspect_images
from helpers.recipe import load_recipe
from helpers.run import open_run
from helpers.sources import load_table
from helpers.splits import assign_splits, encode_labels


@pytest.fixture(scope="module")
def table(folders, write_recipe):
    recipe = load_recipe(write_recipe("tiny", folders, source="folders"))
    images = inspect_images(load_table(recipe))
    return assign_splits(images.assign(group=range(len(images))), 0.2, 3, 42)


@pytest.fixture(scope="module")
def config():
    return resolve_data_config(load_recipe("demo", {
        "backbone": "test_efficientnet", "image_size": 32, "data": "data"}))


def test_preprocessing_is_timms_own(table, config):
    for resize in ("center", "squash"):
        wanted = config | {"crop_mode": resize, "crop_pct": 0.875}
        options = {key: value for key, value in wanted.items() if key != "normalisation"}
        image = decode_image(table.path[0]).resize((50, 40))
        expected = timm.data.create_transform(**options)(image)
        assert np.array_equal(create_preprocessing(wanted)(image), expected)


def test_each_normalisation_does_what_its_name_says(table, config):
    image = decode_image(table.path[0])
    measured = {"mean": (0.7, 0.6, 0.5), "std": (0.3, 0.2, 0.1)}
    plain = np.asarray(create_geometry(config)(image)).transpose(2, 0, 1) / 255

    def prepared(way):
        return create_preprocessing(normalise_config(config, way, measured))(image).numpy()

    def close(found, expected):
        np.testing.assert_allclose(found, expected, atol=1e-5)

    close(prepared("minmax"), plain)
    close(prepared("symmetric"), plain * 2 - 1)
    for way, mean, std in (("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
                           ("dataset", *measured.values())):
        close(prepared(way), (plain - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1)))
        changed = normalise_config(config, way, measured)
        back = undo_normalisation(create_preprocessing(changed)(image), changed)
        close(back, plain.transpose(1, 2, 0))
    close(prepared("zscore").mean(axis=(1, 2)), 0)
    close(prepared("zscore").std(axis=(1, 2), ddof=1), 1)
    with pytest.raises(SuiteError, match="run 01_eda first"):
        normalise_config(config, "dataset")


def test_levels_follow_class_sizes():
    counts = pd.Series({"large": 3001, "full": 3000, "some": 1500, "few": 1499})
    levels = choose_levels(counts, (3000, 1500))
    assert levels.to_dict() == {
        "large": "LIGHT", "full": "MEDIUM", "some": "MEDIUM", "few": "HEAVY"}


def test_augmentation_changes_pixels_more_with_each_level(table):
    image = np.asarray(decode_image(table.path[0]))
    changes = []
    for level in LEVELS:
        change = create_level(level, seed=0)
        pictures = [change(image=image)["image"] for _ in range(60)]
        assert all(p.shape == image.shape and p.dtype == np.uint8 for p in pictures)
        again = create_level(level, seed=0)
        assert np.array_equal(pictures[0], again(image=image)["image"])
        changes.append(np.mean([np.abs(p.astype(float) - image).mean() for p in pictures]))
    assert changes == sorted(changes) and changes[0] > 0
    for group in ("geometric", "colour", "quality", "advanced"):
        assert create_group(group)(image=image)["image"].shape == image.shape


def test_the_cache_holds_what_the_network_sees(table, config, tmp_path, capsys):
    target = tmp_path / "images.npy"
    cached = build_cache(table, config, target)
    assert cached.dtype == np.uint8 and cached.shape == (36, 32, 32, 3)
    assert "36 images of 32 x 32 take 0 MiB" in capsys.readouterr().out
    finish, prepare = create_normalisation(config), create_preprocessing(config)
    for row in (0, 35):
        whole = prepare(decode_image(table.path[row]))
        assert np.array_equal(finish(torch.from_numpy(cached[row].copy())), whole)
    written = target.stat().st_mtime_ns
    build_cache(table, config | {"mean": (0.0,) * 3}, target)  # numbers come after the cache
    assert target.stat().st_mtime_ns == written
    build_cache(table, config | {"input_size": (3, 16, 16)}, target)
    assert np.load(target, mmap_mode="r").shape == (36, 16, 16, 3)


def test_a_cache_that_does_not_fit_is_refused(table, config, tmp_path, monkeypatch):
    from helpers import cache

    usage = cache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(SuiteError, match="Set `cache: false`"):
        build_cache(table, config, tmp_path / "images.npy")
    assert not list(tmp_path.iterdir())


def test_the_checklist_sees_what_is_wrong(table, folders, write_recipe):
    run = open_run(write_recipe("tiny", folders, source="folders", run="checklist"))
    save_csv(table, run.path("images"))
    save_json(encode_labels(table), run.path("label_mapping"))
    save_csv(pd.DataFrame(columns=["image_id", "reason"]), run.path("quarantine"))

    def judge(changed, name=run):
        found = run_checklist(name, changed)
        return found.set_index("check").status.to_dict()

    good = judge(table)
    assert set(good.values()) == {"pass"}
    train = table.index[table.split == "train"]
    torn = table.assign(group=table.group.where(table.fold < 0, 0))
    assert judge(torn)["no copy on two sides"] == "fail"
    unknown = table.assign(label=table.label.where(table.index != train[0], "digit 9"))
    assert judge(unknown)["label mapping complete"] == "fail"
    assert judge(unknown)["every class in every fold"] == "warn"
    save_csv(pd.DataFrame({"image_id": ["x"], "reason": ["blank"]}), run.path("quarantine"))
    assert judge(table)["all images readable"] == "warn"
    save_json({"mean": [0.5] * 3, "std": [0.5] * 3}, run.path("normalisation"))
    other = open_run(write_recipe("tiny", folders, source="folders", run="checklist",
                                  normalisation="minmax", weights="pretrained"))
    other._made.update(run._made)
    assert judge(table, other)["normalised as the backbone was trained"] == "warn"
