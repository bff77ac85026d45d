"""Extraction: the frozen backbone's features of every image, written row by row to `.npy`."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.backbones import measure_width
from helpers.cache import build_cache
from helpers.errors import SuiteError
from helpers.features import (
    fingerprint_features,
    is_complete,
    load_features,
    progress_file,
    select_rows,
)
from helpers.files import load_json, reserve_array, save_array, save_json, show_path
from helpers.images import (
    UnreadableImageError,
    create_normalisation,
    create_preprocessing,
    decode_image,
)
from helpers.run import Run, describe_versions

SAVE_EVERY_S = 5.0  # a killed run repeats at most this much work


class PreparedImages:
    """A torch dataset: item i is image i, decoded and prepared, (3, H, W) float32.

    With `cached`, (images, H, W, 3) uint8 as from `build_cache`, nothing is decoded any more.
    """

    def __init__(self, paths: list[str], data_config: dict, cached=None):
        self.paths, self.cached = paths, cached
        self.prepare = create_preprocessing(data_config)
        self.finish = create_normalisation(data_config)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int):
        if self.cached is not None:
            return self.finish(np.array(self.cached[index]))
        try:
            return self.prepare(decode_image(self.paths[index]))
        except UnreadableImageError as error:
            # Never a black image in its place: features of nothing look like any others.
            raise SuiteError(f"{self.paths[index]} cannot be read any more ({error}). "
                             "Run 01_eda again to set it aside.") from None


def extract_run(run: Run, model, data_config: dict) -> dict:
    """Extract train and test features of a run and write everything that belongs to them.

    Writes `train_features_<backbone>.npy`, `test_features_<backbone>.npy` (float32, images x
    features), `train_labels.npy` (int64 codes, in the same row order) and `metadata.json`.
    Features that are there already, of the same images, weights and preprocessing, are kept;
    an interrupted extraction continues.

    Returns:
        The metadata.
    """
    table, mapping = run.load_table(), load_json(run.need("label_mapping"))
    old = load_json(run.path("metadata")) if run.path("metadata").exists() else {}
    speed, prints = old.get("images_per_second", {}), {}
    for part in ("train", "test"):
        rows = select_rows(table, part)
        prints[part] = fingerprint_features(run, rows, data_config)
        cached = build_cache(rows, data_config, run.folder / f"{part}_images.npy") if (
            run.recipe.cache and len(rows)) else None
        rate = extract_features(
            model, data_config, rows.path.tolist(), run.path(f"{part}_features"),
            prints[part], run.recipe.batch_size, run.recipe.workers, cached)
        speed[part] = rate or speed.get(part)
    train = select_rows(table, "train")
    codes = train.label.map(mapping).to_numpy(np.int64)
    save_array(codes, run.path("train_labels"))
    metadata = describe_features(run, table, codes, mapping, data_config)
    metadata |= {"images_per_second": speed, "fingerprints": prints}
    save_json(metadata, run.path("metadata"))
    return metadata


def extract_features(model, data_config: dict, paths: list[str], target: Path,
                     fingerprint: str, batch_size: int, workers: int | None,
                     cached: np.ndarray | None = None) -> float | None:
    """Write the features of `paths` to `target`, row i for image i.

    Rows grow in a partial file beside `target`, which takes its name when complete; how far
    it is stands in a file next to it. A killed run continues at the last recorded batch and
    computes the same batches as an uninterrupted one; a complete array with the same
    fingerprint is kept.

    Returns:
        Images per second, decoding included; None if there was nothing to do.
    """
    import torch
    from torch.utils.data import DataLoader, Subset

    if is_complete(target, fingerprint):
        print(f"{target.name}: features of {len(paths)} images are there already")
        return None
    partial, progress = target.with_name(f".{target.name}.partial"), progress_file(target)
    state = load_json(progress) if progress.exists() and partial.exists() else {}
    same = state.get("fingerprint") == fingerprint and not state.get("complete")
    done = state["rows"] if same else 0
    if not done:
        # From here on nothing vouches for an older array, or for another's partial one.
        progress.unlink(missing_ok=True)
    shape = (len(paths), measure_width(model, data_config))
    features = np.lib.format.open_memmap(partial, mode="r+") if done else reserve_array(
        partial, shape, np.float32)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device)
    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    # Starting processes takes longer than decoding a few batches.
    workers = 0 if len(paths) - done <= 4 * batch_size else workers
    images = Subset(PreparedImages(paths, data_config, cached), range(done, len(paths)))
    loader = DataLoader(images, batch_size, num_workers=workers,
                        pin_memory=device.type == "cuda")
    row, start = done, time.monotonic()
    last = start
    with torch.inference_mode(), tqdm(total=len(paths), initial=done, unit="image",
                                      desc=target.stem, mininterval=2) as bar:
        for batch in _clear_errors(loader):
            values = model(batch.to(device, non_blocking=True)).float().cpu().numpy()
            features[row : row + len(values)] = values
            row += len(values)
            bar.update(len(values))
            if time.monotonic() - last > SAVE_EVERY_S:
                features.flush()
                save_json({"fingerprint": fingerprint, "rows": row, "complete": False}, progress)
                last = time.monotonic()
    features.flush()
    os.replace(partial, target)
    save_json({"fingerprint": fingerprint, "rows": row, "complete": True}, progress)
    new = len(paths) - done
    return round(new / (time.monotonic() - start), 1) if new else None


def _clear_errors(loader):
    """Yield the loader's batches; a worker's SuiteError without the worker's stack."""
    try:
        yield from loader
    except SuiteError as error:
        raise SuiteError(str(error).strip().splitlines()[-1].split("SuiteError: ")[-1]) from None


def describe_features(run: Run, table: pd.DataFrame, codes: np.ndarray,
                      mapping: dict[str, int], data_config: dict) -> dict:
    """Return the metadata of a run's features, under the mission's names."""
    import torch
    from sklearn.utils.class_weight import compute_class_weight

    weights = compute_class_weight("balanced", classes=np.unique(codes), y=codes)
    width = np.load(run.path("train_features"), mmap_mode="r").shape[1]
    return {
        "model": run.recipe.backbone,
        "feature_dim": width,
        "configuration": run.recipe.model_dump(mode="json"),
        "preprocessing": data_config,
        "label_encoder": mapping,
        "class_weights": weights.tolist(),
        "train_samples": int((table.split == "train").sum()),
        "holdout_samples": int((table.split == "holdout").sum()),
        "test_samples": int((table.split == "test").sum()),
        "excluded_samples": int((table.split == "excluded").sum()),
        "num_classes": len(mapping),
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": describe_versions(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "seed": run.recipe.seed,
    }


def check_determinism(run: Run, model, data_config: dict, count: int = 16) -> float:
    """Compute the first training images' features again and compare them with the file's.

    Returns:
        The largest difference, relative to the largest feature; 0.0 is the same to the last
        bit, and other batch sizes or devices give about 1e-6.

    Raises:
        SuiteError: over 1e-3, so the file was made in another way than it says.
    """
    import torch

    paths = select_rows(run.load_table(), "train").path[:count].tolist()
    images = PreparedImages(paths, data_config)
    batch = torch.stack([images[i] for i in range(len(images))])
    with torch.inference_mode():
        again = model(batch.to(next(model.parameters()).device)).float().cpu().numpy()
    stored = load_features(run, "train")[:count]
    difference = float(np.abs(again - stored).max() / np.abs(stored).max())
    if not difference <= 1e-3:
        raise SuiteError(
            f"features computed again differ by {difference:.2g} (relative) from those in "
            f"{show_path(run.need('train_features'))}. Delete that file and run 03 again."
        )
    return difference
