"""Listing: the folders and images that there are, without what machines keep beside them."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.data.images import HEIF_SUFFIXES, IMAGE_SUFFIXES
from helpers.files import SuiteError, show_path

# Copies and thumbnails that nobody made: by macOS, Synology, Windows, Linux.
MACHINES = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
SUFFIXES = tuple(IMAGE_SUFFIXES)


def is_image(path: Path) -> bool:
    """Return whether a file's name is that of an image, and not a hidden one."""
    return _names_image(path.name)


def scan_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the files in a folder, sorted, links among them.

    Hidden folders and those of MACHINES are left out. A link that leads nowhere is a file, one
    that is missing.

    Raises:
        SuiteError: it cannot be read.
    """
    folders, files = [], []
    with _read_entries(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                files.append(entry.name)
            elif entry.name[0] != "." and entry.name not in MACHINES:
                folders.append(entry.name)
    return [folder / name for name in sorted(folders)], [folder / name for name in sorted(files)]


@contextmanager
def _read_entries(folder: Path) -> Iterator[Iterator[os.DirEntry]]:
    """Yield a folder's entries, which know their kind without asking the disk."""
    try:
        with os.scandir(folder) as entries:
            yield entries
    except OSError as error:
        raise SuiteError(f"{show_path(folder)} cannot be read ({error.strerror}): change its "
                         "permissions, or take it out of the data.") from error


def list_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without links to what is above them."""
    return [path for path in scan_folder(folder)[0] if not _leads_back(path)]


def list_filled(folder: Path, say: bool = False) -> list[Path]:
    """Return the folders in a folder with images somewhere below.

    Args:
        say: print which of the others there are, and why they are none.
    """
    filled = []
    for path in scan_folder(folder)[0]:
        if _leads_back(path):
            if say:
                print(f"{show_path(path)} leads back to {show_path(path.resolve())}: no class")
        elif _holds_some(path):
            filled.append(path)
        elif say:
            others = describe_others(count_others(list(_walk(path))))
            print(f"{show_path(path)} holds no images{f' but {others}' * bool(others)}: no class")
    return filled


def list_images(folder: Path) -> tuple[list[Path], Counter]:
    """Return the images below a folder, and the endings of the other files."""
    folders, files = scan_folder(folder)
    if folders:
        files = sorted(_walk(folder))
    images = [path for path in files if _names_image(path.name)]
    return images, count_others(files) if len(images) < len(files) else Counter()


def count_others(files: list[Path]) -> Counter:
    """Return how many files are no images, by their ending."""
    return Counter("hidden" if path.name.startswith(".") else path.suffix.lower() or "no ending"
                   for path in files if not is_image(path))


def describe_others(others: Counter) -> str:
    """Return the endings in words: `.heic 120, .txt 2`."""
    said = ", ".join(f"{ending} {count}" for ending, count in others.most_common())
    if HEIF_SUFFIXES & others.keys() - IMAGE_SUFFIXES:
        said += " (photos of iPhones are read once `pip install pillow-heif` was run)"
    return said


def holds_images(folder: Path) -> bool:
    """Return whether a folder itself, not those in it, holds images."""
    with _read_entries(folder) as entries:
        return any(_names_image(entry.name) and not entry.is_dir() for entry in entries)


def _holds_some(folder: Path) -> bool:
    return holds_images(folder) or any(_holds_some(path) for path in list_folders(folder))


def _names_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and name[0] != "."


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, through links, but never twice around."""
    folders, files = scan_folder(folder)
    yield from files
    for path in folders:
        if not _leads_back(path):
            yield from _walk(path)


def _leads_back(path: Path) -> bool:
    """Return whether a folder is a link to one above it."""
    if not path.is_symlink():
        return False
    real = path.resolve()
    return path.parent.resolve().is_relative_to(real) or real in {
        above.resolve() for above in path.parents}
