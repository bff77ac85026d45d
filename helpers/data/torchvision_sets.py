"""Data sets by name: torchvision downloads, verifies and lists them.

`data: OxfordIIITPet` lies in data/torchvision/OxfordIIITPet/ as soon as all of it is there.
Images that are files stay where torchvision puts them; those that lie in arrays become files.
"""

import errno
import posixpath
import sys
import tarfile
import tempfile
import zipfile
import zlib
from contextlib import ExitStack, suppress
from http.client import HTTPException
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data.archives import SUFFIXES, claim_place, name_place
from helpers.data.cifar import read_cifar, write_arrays
from helpers.files import SuiteError, show_path
from helpers.settings import DataSettings

TRAIN_TEST = {"train": [{"split": "train"}], "test": [{"split": "test"}]}
TRAINVAL_TEST = {"train": [{"split": "trainval"}], "test": [{"split": "test"}]}
TRAIN_VAL_TEST = {"train": [{"split": "train"}, {"split": "val"}], "test": [{"split": "test"}]}
FLAG = {"train": [{"train": True}], "test": [{"train": False}]}
WHOLE = {"train": [{}]}  # no test images of its own
# Data set -> the parts that torchvision gives for each split (`val` is for training, because the
# folds take its place), and the attributes that hold a part's images and their class numbers.
# Left out: no plain classes, more than 15 GB, or not to be downloaded (StanfordCars, SUN397).
DATA_SETS = {
    "CIFAR10": (FLAG, ()), "CIFAR100": (FLAG, ()),  # read by `helpers.data.cifar`
    "Caltech101": (WHOLE, ("index", "y")),
    "Country211": ({"train": [{"split": "train"}, {"split": "valid"}],
                    "test": [{"split": "test"}]}, ("samples",)),
    "DTD": (TRAIN_VAL_TEST, ("_image_files", "_labels")),
    "EuroSAT": (WHOLE, ("samples",)),
    "FGVCAircraft": (TRAINVAL_TEST, ("_image_files", "_labels")),
    "FashionMNIST": (FLAG, ("data", "targets")),
    "Flowers102": (TRAIN_VAL_TEST, ("_image_files", "_labels")),
    "Food101": (TRAIN_TEST, ("_image_files", "_labels")),
    "GTSRB": (TRAIN_TEST, ("_samples",)),
    "Imagenette": ({"train": [{"split": "train"}, {"split": "val"}]}, ("_samples",)),
    "KMNIST": (FLAG, ("data", "targets")),
    "MNIST": (FLAG, ("data", "targets")),
    "OxfordIIITPet": (TRAINVAL_TEST, ("_images", "_labels")),
    "STL10": (TRAIN_TEST, ("data", "labels")),
    "SVHN": (TRAIN_TEST, ("data", "labels")),
}
REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)  # by the disk, not the network
FAILURES = (OSError, RuntimeError, HTTPException,  # and of archives that are cut short:
            EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error)


def fetch_data_set(place: Path) -> None:
    """Let torchvision download and unpack the data set that `place` is named after (once).

    All happens in <name>.partial beside it, which takes the name at the end. After an interrupted
    run finished downloads are used, but unpacked anew: nothing tells half a folder from all.

    Raises:
        SuiteError: no connection, no room, a damaged archive; only finished downloads are left.
    """
    name, partial = place.name, place.with_name(f"{place.name}.partial")
    with claim_place(place) as missing:
        if not missing:
            return
        files = list_downloads(name, partial)
        _keep(files, partial)
        # Where Python can, unpack nothing outside the folder: not all archives have a checksum.
        tarfile.TarFile.extraction_filter = staticmethod(getattr(tarfile, "data_filter", None))
        try:
            _download(name, partial)
            for path in files:
                if path.name.endswith(SUFFIXES):  # it is unpacked, and as large again
                    path.unlink(missing_ok=True)
            partial.rename(place)
        except FAILURES as error:
            raise SuiteError(_clean_up(name, files, partial, error)) from error
        finally:
            _keep(files, partial)


def list_downloads(name: str, place: Path) -> dict[Path, tuple[str, str | None]]:
    """Return each file that torchvision downloads below `place`, with its address and MD5.

    Few classes list them. So each is asked to download into an empty folder, with torchvision's
    own download function replaced by one that only takes notes.
    """
    from unittest.mock import patch

    from torchvision import datasets

    found = {}
    with tempfile.TemporaryDirectory() as empty, ExitStack() as replaced:
        def note(url, root, filename=None, md5=None, *_, **__):
            folder = place / Path(root).relative_to(empty)
            found[folder / (filename or posixpath.basename(url))] = url, md5

        for module in (datasets.utils, sys.modules[getattr(datasets, name).__module__]):
            for function, other in (("download_url", note), ("extract_archive", lambda *_: None)):
                if hasattr(module, function):
                    replaced.enter_context(patch.object(module, function, other))
        _download(name, Path(empty), Exception)  # whatever comes of the files not being there
    return found


def _download(name: str, place: Path, *ignored: type[Exception]) -> None:
    """Make torchvision's objects: each downloads and unpacks what it misses, and reads it."""
    from torchvision import datasets

    kind = getattr(datasets, name)
    for options in chain(*DATA_SETS[name][0].values()):
        with suppress(*ignored):
            if name.startswith("CIFAR"):  # reading, it would run whatever a pickle says
                unread = kind.__new__(kind)
                unread.root = str(place)
                unread.download()
            else:
                kind(place, download=True, **options)


def _keep(files: dict, partial: Path) -> None:
    """Remove everything but `files` from the folder `partial`, and itself if there are none."""
    for path in sorted(partial.rglob("*"), reverse=True):  # a folder after what is in it
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):  # not empty
                path.rmdir()
        elif path not in files:
            path.unlink()
    with suppress(OSError):
        partial.rmdir()


def _clean_up(name: str, files: dict, partial: Path, error: Exception) -> str:
    """Remove downloads that are cut short, and return what is wrong and what to do."""
    from torchvision.datasets.utils import check_integrity

    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    if getattr(error, "errno", None) in REFUSED:
        return (f"cannot write {show_path(partial)} ({error.strerror}). Free some space or make "
                "it writable, and run again.")
    # Without a checksum, however short, it would pass for whole.
    wanted = [path for path, (_, md5) in files.items()
              if md5 is None or not check_integrity(path, md5)]
    damaged = [path.name for path in wanted if path.exists()]
    for path in wanted:
        path.unlink(missing_ok=True)
    text = f"{name} could not be downloaded ({reason}): run again where there is internet"
    if wanted:
        text += (f", or put {' and '.join(files[path][0] for path in wanted)} into "
                 f"{show_path(wanted[0].parent)} first")
    return text + (f" ({' and '.join(damaged)} in there was damaged)." if damaged else ".")


def read_torchvision(place: Path, settings: DataSettings) -> pd.DataFrame:
    """Read a data set that was fetched; arrays are written as PNG to data/unpacked/ (once).

    Returns:
        image_id, path, label and split, both splits labelled.
    """
    from torchvision import datasets

    kind, (splits, held) = getattr(datasets, settings.path.name), DATA_SETS[settings.path.name]
    if not held:
        return read_cifar(place / kind.base_folder, settings)
    try:
        parts = [(split, *_open_part(kind(place, **options), *held))
                 for split, several in splits.items() for options in several]
    except Exception as error:  # damaged files raise whatever torchvision stumbles over
        raise SuiteError(f"{show_path(place)} is incomplete or damaged ({error!r:.200}). Delete "
                         "it, and it is fetched again.") from error
    if held[0] == "data":
        files = sorted(path for path in place.rglob("*") if path.is_file())
        return write_arrays(name_place(place, files),
                            {split: (pixels, labels) for split, pixels, labels in parts})
    frames = [pd.DataFrame({"image_id": [Path(file).relative_to(place).as_posix()
                                         for file in files], "label": labels, "split": split})
              for split, files, labels in parts]
    table = pd.concat(frames, ignore_index=True)
    table.insert(1, "path", show_path(place) + "/" + table.image_id)
    return table


def _open_part(part, images: str, codes: str = "") -> tuple[list | np.ndarray, list[str]]:
    """Return the files (or, of arrays, the pixels) and the classes of one part's images."""
    found = getattr(part, images)
    found, codes = (found, getattr(part, codes)) if codes else zip(*found, strict=True)
    codes = np.asarray(codes).tolist()
    names = getattr(part, "classes", None)
    if images == "index":  # Caltech101 keeps numbers
        names, folder = part.categories, Path(part.root, "101_ObjectCategories")
        found = [folder / names[code] / f"image_{number:04d}.jpg"
                 for number, code in zip(found, codes, strict=True)]
    elif images == "data":
        found = np.asarray(found)
        found = found.transpose(0, 2, 3, 1) if found.ndim == 4 else found
    labels = [names[code] if names else str(code) for code in codes]
    # Imagenette gives synonyms.
    return found, [label if isinstance(label, str) else label[0] for label in labels]
