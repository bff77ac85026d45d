"""Recipes: what is wrong is named, with the nearest valid name, before anything starts."""

import re

import pytest

from helpers.files import SuiteError
from helpers.recipe import format_settings, list_recipes, load_recipe, parse_settings
from helpers.settings import OWNERS
from helpers.steps import STEPS


@pytest.mark.parametrize(("overrides", "words"), [
    ({"fold": 3}, ["fold", "did you mean 'folds'?"]),
    ({"zzz": 3}, ["no setting 'zzz'", "lists them all"]),
    ({"folds": "ten"}, ["folds", "'ten'", "integer"]),
    ({"folds": 2}, ["folds", "greater than or equal to 3"]),
    ({"source": "folder"}, ["source", "did you mean 'folders'?", "rakuten"]),
    ({"c_grid": [1, -1]}, ["c_grid", "-1", "greater than 0"]),
    ({"run": "../away"}, ["run", "../away"]),
    ({"name": "../away"}, ["name", "../away"]),
    ({"class_names": {1: "a", 2: "a"}}, ["class_names", "two codes are both called 'a'"]),
    ({"data": "data/nowhere", "generate": None}, ["data/nowhere", "does not exist"]),
    ({"source": "torchvision", "data": "cifar-10"}, ["data", "did you mean 'CIFAR10'?", "SVHN"]),
    ({"source": "torchvision", "data": "../away"}, ["../away", "it is one of CIFAR10, CIFAR100"]),
])
def test_a_wrong_setting_is_named(overrides, words):
    with pytest.raises(SuiteError) as error:
        load_recipe("demo", overrides)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(SuiteError, match=r"no recipe 'dmo' \(did you mean 'demo'\?\)"):
        load_recipe("dmo")


@pytest.mark.parametrize("text", ["a: [1", "- a", "", "\xff", "class_names:\n1000: zero"])
def test_a_file_that_is_no_recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SuiteError, match=r"recipe\.yaml"):
        load_recipe(str(path))


def test_all_committed_recipes_are_valid():
    assert "demo" in list_recipes()
    for name in list_recipes():
        load_recipe(name, {} if name == "pets" else {"data": "data"})  # pets are downloaded


def test_your_own_photos_need_no_more_than_their_folder(tmp_path):
    for folder, name in (("my photos", "my-photos"), ("2024", "2024"), ("été.v2", "été")):
        (tmp_path / folder).mkdir()
        recipe = load_recipe("own", {"data": str(tmp_path / folder)})
        assert recipe.run_name == name
    assert load_recipe("own", {"data": str(tmp_path)} | parse_settings(["run=x"])).run_name == "x"
    with pytest.raises(SuiteError, match="the setting 'data' is missing"):
        load_recipe("own")
    with pytest.raises(SuiteError, match=r"its data .*2025 does not exist"):
        load_recipe("own", parse_settings(["data=2025"]))


@pytest.mark.parametrize("settings", [
    {"backbone": "resnet18", "folds": 7}, {"network.backbone": "resnet18", "splits.folds": 7},
    {"network": {"backbone": "resnet18"}, "splits": {"folds": 7}},
])
def test_a_setting_may_be_set_with_its_section_or_without(folders, settings):
    recipe = load_recipe("demo", settings | {"data": str(folders)})
    assert recipe.network.backbone == "resnet18" and recipe.splits.folds == 7
    assert recipe.data.path == folders and recipe.evaluation.leak_price  # the file's own
    assert recipe == load_recipe("demo", settings | {"data.path": str(folders)})


@pytest.mark.parametrize(("settings", "words"), [
    ({"network.bakbone": "x"}, ["no setting 'bakbone' in network", "did you mean 'backbone'?"]),
    ({"network": 3}, ["network is a section", "`network.SETTING`"]),
    ({"folds": 3, "splits.folds": 4}, ["'folds' of splits stands there twice"]),
    ({"netwrk": {"backbone": "x"}}, ["no setting 'netwrk'", "did you mean 'network'?"]),
])
def test_a_wrong_section_is_named(settings, words):
    with pytest.raises(SuiteError) as error:
        load_recipe("demo", settings)
    assert all(word in str(error.value) for word in words), error.value


def test_every_name_of_a_setting_stands_in_one_section():
    """So that all may be set without it; a name in two is refused until it is told apart."""
    assert {name for name, sections in OWNERS.items() if len(sections) > 1} == set()


def test_settings_come_back_from_a_command_line_as_they_were():
    settings = {"image_size": None, "c_grid": [0.1, 1.0], "final": True, "backbone": "null",
                "class_names": {"007": "a: b"}, "holdout": 0.2, "run": "x"}
    assert parse_settings(format_settings(settings)) == settings


def test_every_setting_that_changes_results_is_heeded_by_a_notebook(folders):
    recipe = load_recipe("demo", {"data": str(folders), "strategy": "finetune"})
    heeded = {name.partition(".")[2] for step in STEPS for name in recipe.select(*step.settings)}
    # They change no result.
    assert set(OWNERS) - heeded == {
        "batch_size", "workers", "engine", "follow", "learning_curve", "checkpointing", "compile",
        "keep_activations", "processes"}
    frozen = recipe.change(strategy="frozen")
    assert not frozen.select("finetune"), "what trains no network does not make it stale"


@pytest.mark.parametrize(("settings", "said"), [
    ({"schedule": "cosin"}, "did you mean 'cosine'"),
    ({"optimizer": "adam"}, "did you mean 'adamw'"),
    ({"loss": "focal_los"}, "did you mean 'focal'"),
    ({"strategy": "fine_tune"}, "did you mean 'finetune'"),
    ({"unfreeze": [0.5, 0.2]}, "each phase should train more layers"),
    ({"unfreeze": [0, 0.5], "epochs": 1}, "1 epochs are too few for 2 phases"),
    ({"patience": 2}, "needs `keep_epoch: best`"),
    ({"hard_examples": 2, "mixup": 0.2}, "cannot go with `mixup`"),
    ({"sizes_finetuned": [77]}, "77 is none of `sizes`"),
])
def test_settings_of_training_that_make_no_sense_are_refused(folders, settings, said):
    with pytest.raises(SuiteError, match=re.escape(said)):
        load_recipe("demo", {"data": str(folders)} | settings)
