"""Extraction: the frozen backbone's features of every image of a run, and what is known of them.

    python -m helpers.extraction --recipe vehicles --set precision=bf16
    torchrun --nproc-per-node=2 -m helpers.extraction --recipe vehicles

does what notebook 03 does; torchrun's processes share the images and make the same array.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.backbones import create_backbone
from helpers.batches import ImageRows
from helpers.cache import build_cache
from helpers.engines import TOLERANCE, Engine, create_engine
from helpers.errors import SuiteError
from helpers.estimate import estimate_extraction
from helpers.features import fingerprint_features, load_features, select_rows
from helpers.files import load_json, save_array, save_json, show_path
from helpers.images import create_preprocessing, decode_image, fingerprint_preprocessing
from helpers.processes import RANK, join_processes, wait_for_all
from helpers.progress import is_complete, load_progress
from helpers.recipe import parse_settings
from helpers.run import Run, describe_versions, open_run
from helpers.streaming import stream_features

PARTS = ("train", "test")


def extract_run(run: Run, model, data_config: dict) -> dict:
    """Extract train and test features of a run and write everything that belongs to them.

    Writes `train_features_<backbone>.npy`, `test_features_<backbone>.npy` (float32, images x
    features), `train_labels.npy` (int64 codes, in the same row order) and `metadata.json`.
    Features that are there already, of the same images, weights and preprocessing, are kept;
    an interrupted extraction continues.

    Returns:
        The metadata.

    Raises:
        SuiteError: as `stream_features` and `create_engine`.
    """
    table, mapping = run.load_table(), load_json(run.need("label_mapping"))
    rows = {part: select_rows(table, part) for part in PARTS}
    prints = {part: fingerprint_features(run, rows[part], data_config) for part in PARTS}
    missing = [part for part in PARTS
               if not is_complete(run.path(f"{part}_features"), prints[part])]
    engine = None
    for part in PARTS:
        if part not in missing:
            images = ImageRows(rows[part], data_config)
            images.check(range(len(images.places)))
            print(f"{run.path(f'{part}_features').name}: features of {len(rows[part])} images "
                  "are there already")
            continue
        engine = engine or create_engine(model, data_config, run.recipe,
                                         rows[part].path.tolist() or rows["train"].path.tolist())
        cached = _open_cache(run, rows[part], data_config, part) if (
            run.recipe.cache and len(rows[part])) else None
        extract_features(engine, ImageRows(rows[part], data_config, cached),
                         run.path(f"{part}_features"), prints[part])
    codes = rows["train"].label.map(mapping).to_numpy(np.int64)
    metadata = describe_features(run, table, codes, mapping, data_config)
    if RANK == 0:
        save_array(codes, run.path("train_labels"))
        save_json(metadata, run.path("metadata"))
    wait_for_all()
    return metadata


def _open_cache(run: Run, rows: pd.DataFrame, data_config: dict, part: str) -> np.ndarray:
    target = run.folder / f"{part}_images.npy"
    if RANK == 0:
        build_cache(rows, data_config, target)
    wait_for_all()
    return build_cache(rows, data_config, target)  # it is there by now


def extract_features(engine: Engine, images: ImageRows, target: Path, fingerprint: dict) -> None:
    """Say what it will take, then write the features of `images` to `target`."""
    if len(images):
        estimate_extraction(engine, images)
    stream_features(engine, images, target, fingerprint)


def describe_features(run: Run, table: pd.DataFrame, codes: np.ndarray,
                      mapping: dict[str, int], data_config: dict) -> dict:
    """Return the metadata of a run's features, under the mission's names.

    `images_per_second` counts decoding, not loading the model; `peak_memory_mb` is that of the
    whole process; `max_relative_difference` is from eager float32, on the first batch.
    """
    from sklearn.utils.class_weight import compute_class_weight

    made = [load_progress(run.path(f"{part}_features")) for part in PARTS]
    seconds = sum(part["seconds"] for part in made)
    weights = compute_class_weight("balanced", classes=np.unique(codes), y=codes)
    return {
        "model": run.recipe.backbone,
        "feature_dim": np.load(run.path("train_features"), mmap_mode="r").shape[1],
        "configuration": run.recipe.model_dump(mode="json"),
        "preprocessing": data_config,
        "preprocessing_fingerprint": fingerprint_preprocessing(data_config),
        "label_encoder": mapping,
        "class_weights": weights.tolist(),
        "train_samples": int((table.split == "train").sum()),
        "holdout_samples": int((table.split == "holdout").sum()),
        "test_samples": int((table.split == "test").sum()),
        "excluded_samples": int((table.split == "excluded").sum()),
        "num_classes": len(mapping),
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": describe_versions(),
        **{key: made[0][key] for key in ("engine", "precision", "device", "batch_size",
                                         "processes")},
        "images_per_second": round(sum(part["computed"] for part in made) / max(
            seconds, 0.01), 1),
        "peak_memory_mb": max(part["peak_memory_mb"] for part in made),
        "max_relative_difference": max(part["max_relative_difference"] for part in made),
        "seed": run.recipe.seed,
    }


def check_determinism(run: Run, model, data_config: dict, count: int = 16) -> float:
    """Compute the first training images' features the plain way and compare them with the file.

    Returns:
        The largest difference, relative to the largest feature: about 1e-6 in float32, since
        sums in another order round otherwise, and 1e-2 in bf16.

    Raises:
        SuiteError: it is larger than rounding explains: the file was made in another way than
            it says.
    """
    import torch

    paths = select_rows(run.load_table(), "train").path[:count].tolist()
    prepare = create_preprocessing(data_config)
    batch = torch.stack([prepare(decode_image(path)) for path in paths])
    with torch.inference_mode():  # on the CPU, where float32 is float32
        again = model.cpu()(batch).numpy()
    stored = load_features(run, "train")[:count]
    difference = float(np.abs(again - stored).max() / np.abs(stored).max())
    if not difference <= TOLERANCE[run.recipe.precision]:
        raise SuiteError(
            f"features computed again differ by {difference:.2g} (relative) from those in "
            f"{show_path(run.need('train_features'))}. Delete that file and run 03 again."
        )
    return difference


def main(arguments: list[str] | None = None) -> int:
    """Extract the features of a run whose first two notebooks are done; return exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.extraction",
                                     description="Extract a recipe's features.")
    parser.add_argument("--recipe", default="demo", help="name under data/, or a YAML file")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="settings that replace the recipe's")
    options = parser.parse_args(arguments)
    try:
        with join_processes():
            run = open_run(options.recipe, parse_settings(options.set))
            extract_run(run, *create_backbone(run.recipe, run.measured))
            if RANK == 0:
                run.finish("03_extraction")
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
