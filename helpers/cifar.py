"""CIFAR-10 and CIFAR-100: their Python pickles read safely and written out as PNG files.

Krizhevsky 2009. As files the images go through the same steps as all others, and are resized
as they stream, so that enlarged images never stand in memory together.
"""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.archives import name_place
from helpers.errors import SuiteError
from helpers.files import show_path, write_folder

SIDE = 32
# All that the distributed files need, under the names of NumPy 1 and 2.
ADMITTED = {
    ("numpy", "ndarray"), ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that builds NumPy arrays and plain containers, and can call nothing else."""

    def find_class(self, module: str, name: str):
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1  # how protocol 2 writes bytes, and nothing more of it
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        if name == "_reconstruct":
            module = "numpy._core.multiarray" if np.lib.NumpyVersion(
                np.__version__) >= "2.0.0" else "numpy.core.multiarray"
        return super().find_class(module, name)


def _encode_latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def load_pickle(path: Path) -> dict:
    """Read one CIFAR file; SuiteError if it is missing, damaged or asks for anything else."""
    try:
        with path.open("rb") as stream:
            content = _ArraysOnly(stream, encoding="latin1").load()
    except FileNotFoundError:
        raise SuiteError(f"{show_path(path)} is missing: CIFAR comes with it.") from None
    except Exception as error:  # damaged pickles raise whatever they stumble over
        raise SuiteError(f"{show_path(path)} is no CIFAR file, or damaged ({error}). No code in "
                         "it was run. Get it again from where it is published.") from error
    if not isinstance(content, dict):
        raise SuiteError(f"{show_path(path)} is no CIFAR file: it holds no dictionary.")
    return content


def read_cifar(folder: Path, labels: str) -> pd.DataFrame:
    """Write the images of a CIFAR folder as PNG to data/unpacked/ (once); return their rows.

    Args:
        folder: `cifar-100-python` (train, test, meta) or `cifar-10-batches-py`.
        labels: `fine` or `coarse`; CIFAR-10 has `fine` only.

    Returns:
        image_id, path, label and split, both splits labelled.
    """
    hundred = (folder / "meta").exists()
    if not hundred and labels == "coarse":
        raise SuiteError(f"{show_path(folder)} has no coarse labels: set `labels: fine`.")
    parts = {"train": ["train"], "test": ["test"]} if hundred else {
        "train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}
    meta = load_pickle(folder / ("meta" if hundred else "batches.meta"))
    classes = meta[f"{labels}_label_names" if hundred else "label_names"]
    key = f"{labels}_labels" if hundred else "labels"
    loaded = {split: [load_pickle(folder / name) for name in names]
              for split, names in parts.items()}
    files = [folder / name for names in parts.values() for name in names]
    images = name_place(folder, files)
    frames, pixels = [], {}
    for split, contents in loaded.items():
        try:
            codes = np.concatenate([content[key] for content in contents]).astype(int)
            pixels[split] = np.concatenate([content["data"] for content in contents])
            named = [classes[code] for code in codes]
            if pixels[split].shape != (len(codes), 3 * SIDE * SIDE):
                raise ValueError(f"pixels of shape {pixels[split].shape}")
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise SuiteError(f"{show_path(folder)}: the {split} part is incomplete ({error!r}). "
                             "Get the archive again.") from error
        ids = [f"{split}_{row:05d}" for row in range(len(codes))]
        paths = [f"{show_path(images)}/{split}/{name}.png" for name in ids]
        frames.append(pd.DataFrame({"image_id": ids, "path": paths, "label": named,
                                    "split": split}))
    if not images.is_dir():
        with write_folder(images) as place:
            for split, values in pixels.items():
                _write_images(values, place / split, split)
    return pd.concat(frames, ignore_index=True)


def _write_images(values: np.ndarray, place: Path, split: str) -> None:
    from PIL import Image

    place.mkdir()
    planes = values.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    for row, picture in enumerate(tqdm(planes, desc=f"writing {split} as PNG", unit="image",
                                       mininterval=2)):
        Image.fromarray(np.ascontiguousarray(picture)).save(
            place / f"{split}_{row:05d}.png", compress_level=1)
