"""Extraction: the frozen backbone's features of every image of a run, and what is known of them.

    python -m helpers.features.extraction --recipe vehicles --set precision=bf16
    torchrun --nproc-per-node=2 -m helpers.features.extraction --recipe vehicles

does what notebook 03 does; torchrun's processes share the images and make the same array.
"""

import sys
from datetime import UTC, datetime

import numpy as np

from helpers.command import run_command
from helpers.data.images import decode_image
from helpers.data.splits import count_classes, select_rows
from helpers.data.table import restore_images
from helpers.features.engines import TOLERANCE, create_engine
from helpers.features.forecast import forecast_extraction
from helpers.features.store import describe_features, find_changes, load_codes, load_features
from helpers.features.streaming import ImageFiles, record_file, stream_features
from helpers.files import SuiteError, load_json, show_path
from helpers.network.backbones import create_backbone
from helpers.network.preprocessing import create_preprocessing, fingerprint_preprocessing
from helpers.processes import rank, wait_for_all
from helpers.run import Run
from helpers.versions import describe_versions

PARTS = ("train", "test")


def extract_run(run: Run, backbone: tuple | None = None, progress: bool = True) -> dict:
    """Extract train and test features of a run and write everything that belongs to them.

    Writes `train_features_<backbone>.npy`, `test_features_<backbone>.npy` (float32, images x
    features), `train_labels.npy` (int64 codes, in the same row order) and `metadata.json`.
    Features that are there already, of the same images, weights and preprocessing, are kept;
    an interrupted extraction continues.

    Args:
        backbone: as from `create_backbone`, if it has been made already.
        progress: say what is done and how long it takes.

    Returns:
        The metadata.

    Raises:
        SuiteError: as `stream_features` and `create_engine`.
    """
    model, data_config = backbone or create_backbone(run.recipe, run.measured)
    table, engine = run.load_table(), None
    restore_images(run.recipe, table)
    for part in PARTS:
        rows = select_rows(table, part)
        files, target = ImageFiles(rows, data_config), run.path(f"{part}_features")
        description = describe_features(run, rows)
        changed = find_changes(run, part, description)
        if not changed:
            files.check(range(len(files)))
            if progress and len(rows):
                print(f"{target.name}: features of {len(rows)} images are there already")
        else:
            if progress and record_file(target).exists():
                print(f"{target.name} is computed anew: {changed}")
            paths = rows.path.tolist() or select_rows(table, "train").path.tolist()
            engine = engine or create_engine(model, data_config, run.recipe, paths)
            if progress and len(files):
                forecast_extraction(engine, files, run.folder)
            stream_features(engine, files, target, description, progress=progress)
        if rank() == 0:  # also of what was kept: the table may be another one
            with run.write(f"{part}_features"):
                pass
    metadata = describe_extraction(run, model, data_config)
    if rank() == 0:
        run.save("train_labels", load_codes(run))
        run.save("metadata", metadata)
    wait_for_all()
    return metadata


def describe_extraction(run: Run, model, data_config: dict) -> dict:
    """Return the metadata of a run's features, under the names of the project it replaces.

    `images_per_second` counts decoding, not loading the model; `peak_memory_mb` is that of the
    whole process; `max_relative_difference` is from eager float32, on the first batch; `file_mb`
    is what the weights take on a disk.
    """
    records = [load_json(record_file(run.path(f"{part}_features"))) for part in PARTS]
    images, seconds = (sum(record[key] for record in records) for key in ("images", "seconds"))
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    table = run.load_table()
    return {
        "model": run.recipe.network.backbone,
        "feature_dim": np.load(run.path("train_features"), mmap_mode="r").shape[1],
        "configuration": run.recipe.model_dump(mode="json"),
        "preprocessing": data_config,
        "preprocessing_fingerprint": fingerprint_preprocessing(data_config),
        "label_encoder": load_json(run.need("label_mapping")),
        "class_weights": list(load_json(run.need("class_weights")).values()),
        **{f"{split}_samples": int((table.split == split).sum())
           for split in ("train", "holdout", "test", "excluded")},
        "num_classes": len(count_classes(table)),
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": describe_versions(),
        **{key: records[0][key]
           for key in ("engine", "precision", "device", "batch_size", "processes")},
        "images_per_second": round(images / max(seconds, 0.01), 1),
        **{key: max(record[key] for record in records)
           for key in ("peak_memory_mb", "max_relative_difference")},
        "seed": run.recipe.splits.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "file_mb": round(size / 1e6, 1),
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
    if not difference <= TOLERANCE[run.recipe.features.precision]:
        raise SuiteError(f"features computed again differ by {difference:.2g} (relative) from "
                         f"those in {show_path(run.path('train_features'))}. Delete that file "
                         "and run 03 again.")
    return difference


def _extract_and_finish(run: Run) -> None:
    extract_run(run)
    if rank() == 0:
        run.finish("03_extraction")


if __name__ == "__main__":
    sys.exit(run_command("helpers.features.extraction", "Extract a recipe's features.",
                         _extract_and_finish))
