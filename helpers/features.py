"""Features: which rows they belong to, whether they still fit, and what is in them."""

import hashlib
from importlib.metadata import version

import numpy as np
import pandas as pd

from helpers.backbones import fingerprint_weights, resolve_data_config
from helpers.errors import SuiteError
from helpers.files import load_json, show_path
from helpers.images import describe_preprocessing
from helpers.progress import describe_changes, is_complete, load_progress, progress_file
from helpers.run import Run


def select_rows(table: pd.DataFrame, part: str) -> pd.DataFrame:
    """Return the table's rows behind `train_features` or `test_features`, in its order.

    `train` are the labelled images in the folds; `test` all that no model learns from: the
    hold-out and the data set's own test images.
    """
    parts = ["train"] if part == "train" else ["holdout", "test"]
    return table[table.split.isin(parts)].reset_index(drop=True)


def fingerprint_features(run: Run, rows: pd.DataFrame, data_config: dict) -> dict:
    """Return all that decides the features of `rows`: images, weights, preprocessing.

    The engine is not among it: in float32 they agree within 1e-5 of the largest feature.
    """
    return {
        "images": fingerprint_images(rows),
        "backbone": run.recipe.backbone,
        "weights": fingerprint_weights(run.recipe),
        "precision": run.recipe.precision,
        "preprocessing": describe_preprocessing(data_config),
        "versions": {name: version(name) for name in ("torch", "timm")},
    }


def fingerprint_images(rows: pd.DataFrame) -> str:
    """Return how many images there are and a hash of their ids, content and order."""
    digest = hashlib.sha256()
    for pair in zip(rows.image_id, rows.sha256, strict=True):
        digest.update("\0".join(pair).encode() + b"\n")
    return f"{len(rows)}, {digest.hexdigest()[:16]}"


def load_features(run: Run, part: str) -> np.ndarray:
    """Open `train` or `test` features as a read-only memory map, (images, features) float32.

    Raises:
        SuiteError: they are missing, unfinished, or were made from other images, weights or
            with another preprocessing than the run's now; says which.
    """
    path = run.need(f"{part}_features")
    rows = select_rows(run.load_table(), part)
    data_config = resolve_data_config(run.recipe, run.measured)
    expected = fingerprint_features(run, rows, data_config)
    state = load_progress(path)
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    if not is_complete(path, expected) or len(features) != len(rows):
        changed = describe_changes(state.get("fingerprint", {}), expected) if state else (
            f"{show_path(progress_file(path))} is missing, which says from what")
        changed = changed or "its extraction is not finished"
        raise SuiteError(f"{show_path(path)} was made with other settings or images: {changed}. "
                         "Run 03_extraction again.")
    return features


def load_labels(run: Run) -> np.ndarray:
    """Return the class codes of the training images, (images,) int64.

    Raises:
        SuiteError: they are missing, or the table has other labels by now.
    """
    codes = np.load(run.need("train_labels"), allow_pickle=False)
    mapping = load_json(run.need("label_mapping"))
    expected = select_rows(run.load_table(), "train").label.map(mapping).to_numpy()
    if not np.array_equal(codes, expected):
        raise SuiteError(f"{show_path(run.need('train_labels'))} holds other labels than "
                         "table.csv: run 03_extraction again.")
    return codes


def check_features(features: np.ndarray, rows_at_once: int = 8192) -> dict[str, float]:
    """Return statistics of an array of features, read in blocks so that memory stays flat.

    Keys: images, features, nan, inf (counts of values), mean, std, min, max (of the finite
    values), constant (features with one value for all images).
    """
    counts = {"nan": 0, "inf": 0}
    total = squares = finite = 0.0
    low = np.full(features.shape[1], np.inf)
    high = -low
    for start in range(0, len(features), rows_at_once):
        block = np.asarray(features[start : start + rows_at_once], dtype=np.float64)
        counts["nan"] += int(np.isnan(block).sum())
        counts["inf"] += int(np.isinf(block).sum())
        good = np.isfinite(block)
        finite += good.sum()
        total += block[good].sum()
        squares += (block[good] ** 2).sum()
        low = np.minimum(low, np.where(good, block, np.inf).min(axis=0))
        high = np.maximum(high, np.where(good, block, -np.inf).max(axis=0))
    mean = total / finite if finite else np.nan
    variance = max(squares / finite - mean**2, 0.0) if finite else np.nan
    return {"images": features.shape[0], "features": features.shape[1], **counts,
            "mean": float(mean), "std": float(np.sqrt(variance)), "min": float(low.min()),
            "max": float(high.max()), "constant": int((low == high).sum())}


def compare_features(run: Run) -> pd.DataFrame:
    """Return the statistics of train and test features side by side.

    Raises:
        SuiteError: a feature is NaN or infinite, which no model could learn from.
    """
    arrays = {part: load_features(run, part) for part in ("train", "test")}
    statistics = pd.DataFrame({part: check_features(array)
                               for part, array in arrays.items() if len(array)})
    bad = statistics.loc[["nan", "inf"]].to_numpy().sum()
    if bad:
        raise SuiteError(
            f"{int(bad)} feature values are NaN or infinite. Look at the images with "
            "01_eda, try other `weights`, and run 03_extraction again."
        )
    return statistics
