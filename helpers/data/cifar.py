"""CIFAR-10 and CIFAR-100: their Python pickles read safely and written out as PNG files.

Krizhevsky 2009. As files the images go through the same steps as all others, and are resized
as they stream, so that enlarged images never stand in memory together.
"""

import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from helpers.data.archives import claim_place, name_place
from helpers.files import SuiteError, show_path, write_folder
from helpers.settings import DataSettings

SIDE = 32
MOST_TUPLES = 1000  # an array takes nine; Python's stack ends at some ten thousand nested ones


class _Dtype:
    """Stands in for `numpy.dtype`: plain numbers only, never objects, texts or records."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, *_):
        if not re.fullmatch("b1|[iu][1248]|f[248]", code):
            raise pickle.UnpicklingError(f"it holds an array of {code!r:.80}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in ("|", "<", ">", "="):  # "O,u1" would be a record with an object
            raise pickle.UnpicklingError("it holds an array of unknown byte order")
        self.order = state[1]


class _Array:
    """Stands in for an array that is being read, checked before NumPy sees a byte of it."""

    __slots__ = ("values",)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, by_column, raw = state
        kind = np.dtype(dtype.order + dtype.code)
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # as Python 2 wrote it
        if math.prod(shape) * kind.itemsize != len(raw):
            raise pickle.UnpicklingError(f"{len(raw)} bytes are no array of shape {shape}")
        self.values = np.frombuffer(raw, kind).reshape(shape, order="F" if by_column else "C")


class _Function:
    """A function that a pickle may call but, unlike a bare one, cannot change."""

    __slots__ = ("call",)

    def __init__(self, call: Callable):
        self.call = call

    def __call__(self, *args):
        return self.call(*args)

    def __setstate__(self, state) -> None:
        raise pickle.UnpicklingError("it changes a function")


def _read_buffer(raw: bytearray, dtype: _Dtype, shape: tuple, order: str, *_) -> _Array:
    if order not in ("C", "F"):
        raise pickle.UnpicklingError(f"it holds an array in the order {order!r:.80}")
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", raw))
    return array


# All that the distributed files and today's NumPy ask for. Nothing of NumPy itself is handed
# out: a pickle could make it take raw bytes for objects, and the process would crash.
STAND_INS = {
    "numpy.ndarray": "numpy.ndarray",  # a text: only ever named, never called
    "numpy.dtype": _Function(_Dtype),
    "_codecs.encode": _Function(lambda text, _: text.encode("latin1")),  # bytes in protocol 2
    **{f"numpy.{core}.{name}": function for core in ("core", "_core") for name, function in (
        ("multiarray._reconstruct", _Function(lambda *_: _Array())),
        ("numeric._frombuffer", _Function(_read_buffer)))},
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows plain containers and stand-ins for arrays, and nothing else."""

    def find_class(self, module: str, name: str):
        try:
            return STAND_INS[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'!r:.80}") from None


def _refuse_exhausting(stream: BinaryIO) -> None:
    """Refuse a pickle that would take all memory, or more stack than Python has."""
    tuples = 0
    for number, (code, argument, _) in enumerate(pickletools.genops(stream)):
        tuples += code.name.startswith("TUPLE")  # hashing nested ones overflows the stack
        # The memo is as long as its largest index, and writers count up from 0 or 1.
        if tuples > MOST_TUPLES or (code.name in ("PUT", "LONG_BINPUT") and argument > number):
            raise pickle.UnpicklingError("it is nested or numbered as no array is")
    stream.seek(0)


def load_pickle(path: Path) -> dict:
    """Read one CIFAR file, its arrays made of plain numbers.

    Raises:
        SuiteError: it is missing, damaged or asks for anything but arrays and containers.
    """
    try:
        with path.open("rb") as stream:
            _refuse_exhausting(stream)
            content = _ArraysOnly(stream, encoding="latin1").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError("it holds no dictionary")
        return {key: value.values if isinstance(value, _Array) else value
                for key, value in content.items()}
    except FileNotFoundError:
        raise SuiteError(f"{show_path(path)} is missing: CIFAR comes with it.") from None
    except Exception as error:  # damaged pickles raise whatever they stumble over
        reason = str(error)[:200] or type(error).__name__
        raise SuiteError(f"{show_path(path)} is no CIFAR file, or damaged ({reason}). No code in "
                         "it was run. Get it again from where it is published.") from error


def read_cifar(folder: Path, settings: DataSettings) -> pd.DataFrame:
    """Write the images of a CIFAR folder as PNG to data/unpacked/ (once); return their rows.

    Args:
        folder: `cifar-100-python` (train, test, meta) or `cifar-10-batches-py`.
        settings: with `labels`, `fine` or `coarse`; CIFAR-10 has `fine` only.

    Returns:
        image_id, path, label and split, both splits labelled.
    """
    labels, meta = settings.labels, folder / "meta"
    if meta.exists():  # CIFAR-100
        parts = {"train": [folder / "train"], "test": [folder / "test"]}
        key, names = f"{labels}_labels", load_pickle(meta).get(f"{labels}_label_names")
    elif labels == "coarse":
        raise SuiteError(f"{show_path(folder)} has no coarse labels: set `labels: fine`.")
    else:
        meta = folder / "batches.meta"
        parts = {"train": [folder / f"data_batch_{n}" for n in range(1, 6)],
                 "test": [folder / "test_batch"]}
        key, names = "labels", load_pickle(meta).get("label_names")
    if not isinstance(names, list):
        raise SuiteError(f"{show_path(meta)} names no classes: it is damaged. Get it again.")
    loaded = {split: [load_pickle(file) for file in files] for split, files in parts.items()}
    images = name_place(folder, [*parts["train"], *parts["test"]])
    found = {}
    for split, contents in loaded.items():
        try:
            codes = [code for content in contents for code in content[key]]
            # Python would take -1 for the last class.
            wrong = [code for code in codes if code not in range(len(names))]
            if wrong:
                raise ValueError(f"label {wrong[0]!r:.80} is none of its {len(names)} classes")
            arrays, shape = [content["data"] for content in contents], (len(codes), 3 * SIDE**2)
            if any(getattr(array, "dtype", None) != np.uint8 for array in arrays):
                raise ValueError("its pixels are no array of uint8")
            pixels = np.concatenate(arrays)
            if pixels.shape != shape:
                raise ValueError(f"pixels of shape {pixels.shape} instead of {shape}")
            found[split] = (pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1),
                            [names[code] for code in codes])
        except (KeyError, ValueError, TypeError) as error:
            raise SuiteError(f"{show_path(folder)}: the {split} part is incomplete or damaged "
                             f"({error!r}). Get the archive again.") from error
    return write_arrays(images, found)


def write_arrays(images: Path, found: dict[str, tuple[np.ndarray, list[str]]]) -> pd.DataFrame:
    """Write arrays as PNG into `images`, a folder below data/unpacked/ (once); return their rows.

    Args:
        found: split -> uint8 of (images, height, width) or (images, height, width, 3), and their
            labels.

    Returns:
        image_id, path, label and split.
    """
    frames = []
    for split, (_, labels) in found.items():
        ids = [f"{split}_{row:05d}" for row in range(len(labels))]
        paths = [f"{show_path(images)}/{split}/{name}.png" for name in ids]
        rows = {"image_id": ids, "path": paths, "label": labels, "split": split}
        frames.append(pd.DataFrame(rows))
    with claim_place(images) as missing:
        if missing:
            with write_folder(images) as place:
                for split, (pictures, _) in found.items():
                    _write_images(pictures, place / split, split)
    return pd.concat(frames, ignore_index=True)


def _write_images(pictures: np.ndarray, place: Path, split: str) -> None:
    place.mkdir()
    progress = tqdm(pictures, f"writing {split} as PNG", unit="image", mininterval=2)
    for row, picture in enumerate(progress):
        Image.fromarray(picture).save(place / f"{split}_{row:05d}.png", compress_level=1)
