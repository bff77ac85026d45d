"""Normalisation, augmentation, checklist: what happens to pixels, and what must hold."""

import numpy as np
import pandas as pd
import pytest
import timm
import torch

from helpers.data.images import decode_image
from helpers.data.inspection import inspect_images
from helpers.data.preparation import prepare_run
from helpers.data.splits import assign_splits
from helpers.data.table import load_table
from helpers.files import SuiteError
from helpers.network import readiness
from helpers.network.augmentation import LEVELS, choose_levels, create_group, create_level
from helpers.network.preprocessing import (
    create_geometry,
    create_preprocessing,
    describe_preprocessing,
    fingerprint_preprocessing,
    normalise_config,
    resolve_data_config,
    undo_normalisation,
)
from helpers.network.readiness import run_checklist
from helpers.recipe import load_recipe
from helpers.run import open_run


@pytest.fixture(scope="module")
def table(folders, write_recipe):
    recipe = load_recipe(write_recipe("tiny", folders, source="folders"))
    images = inspect_images(load_table(recipe))
    return assign_splits(images.assign(group=range(len(images))), 0.2, 3, 42)


@pytest.fixture(scope="module")
def config():
    return resolve_data_config(load_recipe("demo", {
        "backbone": "test_efficientnet", "weights": "random", "image_size": 32, "data": "data"}))


def test_preprocessing_is_timms_own_but_for_the_resizes_rounding(table, config):
    for resize in ("center", "squash"):
        wanted = config | {"crop_mode": resize, "crop_pct": 0.875}
        options = {key: value for key, value in wanted.items() if key != "normalisation"}
        image = decode_image(table.path[0]).resize((50, 40))
        expected = timm.data.create_transform(**options)(image)
        found = create_preprocessing(wanted)(image)
        level = 1 / 255 / min(config["std"])
        assert found.shape == expected.shape
        assert float((found - expected).abs().max()) <= 2.01 * level
        assert float((found - expected).abs().mean()) < 0.05 * level


@pytest.mark.parametrize("change", [{"crop_mode": "border", "crop_pct": 0.9},
                                    {"interpolation": "lanczos"}])
def test_rare_geometries_are_timms_own(table, config, change):
    wanted = config | change
    options = {key: value for key, value in wanted.items() if key != "normalisation"}
    image = decode_image(table.path[0]).resize((50, 40))
    expected = timm.data.create_transform(**options)(image)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert np.array_equal(create_preprocessing(wanted)(image), expected)
    assert np.array_equal(create_geometry(wanted)(pixels), create_geometry(wanted)(image))


def test_a_fingerprint_is_of_the_meaning_alone(config):
    same = fingerprint_preprocessing(config | {"mean": list(config["mean"])})
    assert same == fingerprint_preprocessing(config)
    for change in ({"input_size": (3, 48, 48)}, {"crop_pct": 0.5}, {"crop_mode": "border"},
                   {"interpolation": "bilinear"}, {"mean": (0.1,) * 3}, {"std": (0.1,) * 3},
                   {"normalisation": "zscore"}):
        assert fingerprint_preprocessing(config | change) != same, change
    assert not {"pillow", "torch", "torchvision"} & set(describe_preprocessing(config))


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


@pytest.fixture
def judge(folders, write_recipe):
    """Return a function that runs the checklist on a changed table, under changed settings."""
    path = write_recipe("tiny", folders, source="folders", run="checklist", near_copy=1,
                        holdout=0.2)
    run = open_run(path)
    prepare_run(run)

    def judge(change=lambda table: table, **settings):
        found = run_checklist(open_run(path, settings), change(run.load_table()))
        assert found.detail.str.len().min() > 5  # each says what it looked at
        return found.set_index("check").status.to_dict()

    judge.run = run
    return judge


def test_a_sound_run_passes_but_for_its_few_images_and_random_weights(judge):
    status = judge()
    other = {"versions that the tests ran with"}  # as in Colab
    assert {check for check, grade in status.items() if grade != "pass"} - other == {
        "classes large enough", "backbone trained on photos"}


def test_every_check_of_the_list_can_fail(judge, monkeypatch):
    run, every, failed = judge.run, set(judge()), set()

    def fails(check, grade, change=lambda table: table, **settings):
        assert judge(change, **settings)[check] == grade
        failed.add(check)

    table = run.load_table()
    train = table.index[table.split == "train"]
    fails("no copy on two sides", "fail",
          lambda t: t.assign(group=t.group.where(t.fold < 0, 0)))
    fails("copies do not chain", "warn", lambda t: t.assign(group=0))
    unknown = lambda t: t.assign(label=t.label.where(t.index != train[0], "wood"))  # noqa: E731
    fails("label mapping complete", "fail", unknown)
    fails("every class in every fold", "warn", unknown)
    fails("no image under two labels", "fail",
          lambda t: t.assign(sha256=t.sha256.where(t.split != "train", "same")))
    fails("no training image in the test set", "warn", lambda t: t.assign(
        split=t.split.where(t.index != train[0], "test"),
        group=t.group.where(t.index != train[0], t.group[train[1]])))
    with monkeypatch.context() as patch:
        patch.setattr(readiness, "UNBALANCED", 5)  # the folders hold 12 a class
        fails("classes balanced", "warn", lambda t: t.drop(
            t.index[(t.label == "metal") & (t.split == "train")][1:]))
    fails("classes large enough", "warn")
    fails("backbone trained on photos", "warn")
    fails("splits follow from the seed", "fail", lambda t: t.assign(
        fold=t.fold.where(t.fold < 1, 3 - t.fold)))
    versions = readiness.describe_versions()
    with monkeypatch.context() as patch:
        patch.setattr(readiness, "describe_versions", lambda: versions | {"torch": "1.0"})
        fails("versions that the tests ran with", "warn")
    with monkeypatch.context() as patch:
        usage = readiness.shutil.disk_usage(run.folder)
        patch.setattr(readiness.shutil, "disk_usage", lambda _: usage._replace(free=10))
        fails("room for the features", "fail")
    with monkeypatch.context() as patch:
        patch.setattr(readiness, "read_pixels",
                      lambda path, geometry: 255 - geometry(decode_image(path)))
        fails("pixels do not depend on the decoder", "fail")
    with monkeypatch.context() as patch:
        patch.setattr(type(run), "need", type(run).path)  # these are asked before 02 is run
        fails("normalised as the backbone expects", "warn", normalisation="minmax")
        run.save("normalisation", {"mean": [0.5] * 3, "std": [0.01] * 3})
        fails("values of the usual size", "warn", normalisation="dataset")
        run.save("quarantine", table[["image_id"]].head(1).assign(reason="blank"))
        fails("all images usable", "warn")
    assert failed == every

