"""Recipes: what is wrong is named, with the nearest valid name, before anything starts."""

import pytest

from helpers.errors import SuiteError
from helpers.files import ROOT
from helpers.recipe import Recipe, describe_settings, list_recipes, load_recipe


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
        load_recipe(name, {"data": "data"})


def test_settings_belong_to_the_notebook_that_first_reads_them(folders):
    recipe = load_recipe("demo", {"data": str(folders)})
    assert "backbone" not in recipe.settings_until("01")
    assert {"data", "backbone"} <= set(recipe.settings_until("02"))
    # They change no result.
    everywhere = {"name", "run", "batch_size", "workers", "cache", "engine"}
    assert set(recipe.settings_until("07")) == set(Recipe.model_fields) - everywhere


def test_the_readme_explains_every_setting():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert describe_settings() in readme, "paste what `python -m helpers.recipe` prints"
