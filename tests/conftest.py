"""Shared small real data: the demo, written once, and a recipe that runs in seconds."""

import os
import tempfile

# Before any helper is imported: runs go to a folder of their own, the hub stays silent.
os.environ["SUITE_OUTPUTS"] = tempfile.mkdtemp(prefix="suite-outputs-")
os.environ["HF_HUB_OFFLINE"] = "1"

import shutil
from pathlib import Path

import pytest
import yaml

from helpers.data.demo import PHOTOS, write_demo
from tests.layouts import write_rakuten

TINY = {
    "source": "rakuten", "backbone": "test_efficientnet", "weights": "random",
    "image_size": 32, "resize": "squash", "transformed_copies": False,
    "folds": 3, "c_grid": [0.1, 1.0],
    "bootstrap": 200, "tsne_images": 150, "perplexity": 10, "workers": 2,
    "compare": ["test_resnet"], "compare_images": 120,
    "learning_curve": [0.5], "compare_heads": ["logistic", "class_mean", "logistic+smote"],
    "unfreeze": [0.3], "epochs": 2, "experiments": ["frozen head", "dropout", "distillation"],
    "experiment_seeds": 2, "experiment_epochs": 2, "experiment_images": 60,
    "experiment_size": 32, "sizes": [16, 32], "sizes_finetuned": [32], "sizes_images": 60,
}

CHROMIUM = os.environ.get("SUITE_BROWSER") or shutil.which("chromium") or shutil.which(
    "chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session", autouse=True)
def _remove_outputs():
    yield
    shutil.rmtree(os.environ["SUITE_OUTPUTS"], ignore_errors=True)


@pytest.fixture(scope="module")
def one_thread():
    """Networks this small gain nothing from threads, which fight where others are at work."""
    from helpers.features.engines import one_thread_each

    with one_thread_each():
        yield


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """The demo's folder; read only."""
    return write_demo(tmp_path_factory.mktemp("demo") / "waste")


@pytest.fixture(scope="session")
def rakuten(demo, tmp_path_factory) -> Path:
    """The demo's files in the layout of the Rakuten challenge; read only."""
    return write_rakuten(demo, tmp_path_factory.mktemp("rakuten"))


@pytest.fixture
def rakuten_copy(rakuten, tmp_path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(rakuten, tmp_path / "rakuten"))


@pytest.fixture(scope="session")
def write_recipe(tmp_path_factory):
    """Return a function that writes a recipe file and returns its path as text."""

    def write(name: str, data: Path, **settings) -> str:
        path = tmp_path_factory.mktemp("recipes") / name / "recipe.yaml"
        path.parent.mkdir()
        path.write_text(yaml.safe_dump(TINY | {"data": str(data)} | settings), "utf-8")
        return str(path)

    return write


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> Path:
    """Three classes of the demo's photos, a folder each, 12 images a class."""
    place = tmp_path_factory.mktemp("folders")
    for name in ("glass", "metal", "paper"):
        (place / name).mkdir()
        for path in sorted((PHOTOS / name).iterdir())[:12]:
            shutil.copy(path, place / name)
    return place


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    if not CHROMIUM:
        pytest.skip("no Chromium here: install it, or name one in SUITE_BROWSER")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=[
            "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def finish_run():
    """Return a function that does what 01 to 06 do, pictures left out, and returns the run."""
    from helpers.data.preparation import prepare_run
    from helpers.evaluation.summary import evaluate_run
    from helpers.features.extraction import extract_run
    from helpers.pictures.report import write_report
    from helpers.run import open_run
    from helpers.training.strategies import train_run

    def finish(recipe: str, **settings):
        run = open_run(recipe, settings)
        if not run.is_current("train_features"):
            prepare_run(run)
            extract_run(run)
        train_run(run)
        evaluate_run(run)
        write_report(run)
        return run

    return finish


@pytest.fixture(scope="session")
def served_recipe(folders, write_recipe):
    """The recipe of `served_run`."""
    return write_recipe("served", folders, source="folders", run="served",
                        notes="TrashNet, MIT")


@pytest.fixture(scope="session")
def served_run(served_recipe, finish_run):
    """A finished run of three classes, its model saved."""
    from helpers.serving.saving import save_model

    run = finish_run(served_recipe)
    save_model(run)
    return run


@pytest.fixture(scope="session")
def many_photos() -> list[str]:
    """200 photos of the demo, from all classes."""
    return [str(path) for path in sorted(PHOTOS.rglob("*.jpg"))[::3]]
