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

from helpers.data.demo import write_demo

TINY = {
    "source": "rakuten", "backbone": "test_efficientnet", "weights": "random",
    "image_size": 32, "resize": "squash", "folds": 3, "c_grid": [0.1, 1.0],
    "bootstrap": 200, "tsne_images": 150, "perplexity": 10, "workers": 2, "near_copy": 0.985,
    "compare": ["test_resnet"], "compare_images": 120,
}


@pytest.fixture(scope="session", autouse=True)
def _remove_outputs():
    yield
    shutil.rmtree(os.environ["SUITE_OUTPUTS"], ignore_errors=True)


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """The demo's folder; read only."""
    return write_demo(tmp_path_factory.mktemp("demo") / "rakuten")


@pytest.fixture
def demo_copy(demo, tmp_path) -> Path:
    """A copy of the demo that a test may spoil."""
    return Path(shutil.copytree(demo, tmp_path / "rakuten"))


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
def folders(demo, tmp_path_factory) -> Path:
    """Three classes of the demo's digits, a folder each, 12 images a class."""
    import pandas as pd

    place = tmp_path_factory.mktemp("folders")
    codes = pd.read_csv(demo / "Y_train_CVw08PX.csv").prdtypecode
    rows = pd.read_csv(demo / "X_train_update.csv").assign(code=codes)
    spoilt = pd.read_csv(demo / "planted_faults.csv").imageid
    for code, members in rows[~rows.imageid.isin(spoilt)].groupby("code"):
        if code in (1000, 1003, 1006):
            (place / f"digit {code - 1000}").mkdir()
            for row in members.head(12).itertuples():
                name = f"image_{row.imageid}_product_{row.productid}.jpg"
                shutil.copy(demo / "images/image_train" / name,
                            place / f"digit {code - 1000}" / f"{row.imageid}.jpg")
    return place
