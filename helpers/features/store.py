"""Store: features on disk, refused unless they still mean what the run means now."""

import hashlib

import numpy as np
import pandas as pd

from helpers.data.splits import select_rows
from helpers.features.streaming import record_file
from helpers.files import SuiteError, load_json, show_path
from helpers.network.preprocessing import describe_preprocessing, resolve_data_config
from helpers.network.weights import fingerprint_weights
from helpers.run import Run
from helpers.settings import Recipe
from helpers.versions import describe_changes, describe_versions


def describe_network(recipe: Recipe, measured: dict | None = None) -> dict:
    """Return what a feature means, as plain values: the network and what it is given.

    It is kept whole with features and with models made from them, so that either can be held
    against it on another machine. The engine is no part of it: in float32 they agree within 1e-5
    of the largest feature.
    """
    return {"backbone": recipe.network.backbone, "weights": fingerprint_weights(recipe),
            "precision": recipe.features.precision,
            "preprocessing": describe_preprocessing(resolve_data_config(recipe, measured))}


def describe_features(run: Run, rows: pd.DataFrame) -> dict:
    """Return all that the features of `rows` mean: the images, and `describe_network`."""
    text = "".join(f"{name}\0{digest}\n"
                   for name, digest in zip(rows.image_id, rows.sha256, strict=True))
    images = f"{len(rows)}, {hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return {"images": images} | describe_network(run.recipe, run.measured)


def find_changes(run: Run, part: str, description: dict) -> str:
    """Say why the features that are there do not mean `description`; empty if they do.

    Features made with other versions of the libraries are kept; a line says so.
    """
    path = run.path(f"{part}_features")
    if not path.exists() or not record_file(path).exists():
        return f"{show_path(record_file(path))} is missing, which says from what"
    record = load_json(record_file(path))
    changed = describe_changes(record["description"], description)
    if not changed:
        warn_of_versions(record["versions"], show_path(path))
    return changed


def load_features(run: Run, part: str) -> np.ndarray:
    """Open `train` or `test` features as a read-only memory map, (images, features) float32.

    Raises:
        SuiteError: they are missing or unfinished, or mean other images, other weights or
            another preprocessing than the run's now; says which.
    """
    path = run.need(f"{part}_features")
    rows = select_rows(run.load_table(), part)
    changed = find_changes(run, part, describe_features(run, rows))
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    if changed or len(features) != len(rows):
        raise SuiteError(f"{show_path(path)} was made with other settings or images: "
                         f"{changed or f'it has {len(features)} rows'}. Run 03_extraction again.")
    return features


def warn_of_versions(then: dict, what: str) -> None:
    """Print one line if `what` was made with other versions of the libraries."""
    changed = describe_changes(then, describe_versions())
    if changed:
        print(f"{what} was made with {changed}; it is used all the same")


def load_codes(run: Run) -> np.ndarray:
    """Return the class codes of the training images in the table's order, (images,) int64."""
    mapping = load_json(run.need("label_mapping"))
    return select_rows(run.load_table(), "train").label.map(mapping).to_numpy(np.int64)
