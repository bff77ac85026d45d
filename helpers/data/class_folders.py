"""Class folders: which folders are classes, and which are splits, domains or wrapping.

Data sets come as `cat/`, `train/cat/`, `seg_train/seg_train/cat/`, `cat/train/` or `photo/cat/`.
What the names make plain is read; where two readings are possible, the user is shown both.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.data.images import HEIF_SUFFIXES, IMAGE_SUFFIXES
from helpers.files import SuiteError, show_path

SPLITS = {"train": "train", "training": "train", "val": "train", "valid": "train",
          "validation": "train", "eval": "train", "evaluation": "train", "test": "test",
          "testing": "test"}
# What may stand beside the name of a split: test_set, Validation Images, train2017.
BESIDE = {"set", "sets", "data", "dataset", "image", "images", "img", "imgs", "photos",
          "pictures", "split", "folder"}
SHOWN = 3  # folders of a tree in a message


@dataclass(frozen=True)
class ClassFolder:
    """A folder of images of one class."""

    path: Path
    label: str
    split: str | None = None  # None where nothing names one
    domain: str = ""  # folders above that are no splits, as photo or sketch


def is_image(path: Path) -> bool:
    """Return whether a file's name is that of an image, and not a hidden one."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def list_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without hidden ones and links to what is above them."""
    with os.scandir(folder) as entries:  # which knows what is a folder without asking the disk
        names = sorted(entry.name for entry in entries if entry.is_dir())
    found = []
    for path in (folder / name for name in names if name[0] != "." and name != "__MACOSX"):
        if path.is_symlink() and folder.resolve().is_relative_to(path.resolve()):
            print(f"{show_path(path)} leads back to {show_path(path.resolve())}: no class")
        else:
            found.append(path)
    return found


def find_class_folders(folder: Path, level: int | None) -> list[ClassFolder]:
    """Return the class folders below a folder, in the order of their names.

    Args:
        level: how deep they lie, 1 for `folder/<class>`; null: as their names say.

    Raises:
        SuiteError: they can be read in two ways, or there is only a test set.
    """
    if level:
        return list(_take_level(folder, level, None, ()))
    found = _read(folder, None, 0)
    if found and all(place.split == "test" for place in found):
        raise SuiteError(f"{show_path(folder)} holds a test set and nothing to train on: add "
                         "`train` beside it, or set `data` to the folder that holds the classes.")
    return found


def list_images(folder: Path) -> tuple[list[Path], Counter]:
    """Return the images below a folder, and the endings of the other files."""
    # A link that leads nowhere is an image that is missing.
    files = sorted(path for path in folder.rglob("*")
                   if path.is_file() or (path.is_symlink() and not path.exists()))
    images = [path for path in files if is_image(path)]
    return images, count_others(files)


def count_others(files: list[Path]) -> Counter:
    """Return how many files are no images, by their ending."""
    return Counter(path.suffix.lower() or path.name for path in files if not is_image(path))


def describe_others(others: Counter) -> str:
    """Return the endings in words: `.heic 120, .txt 2`."""
    said = ", ".join(f"{ending} {count}" for ending, count in others.most_common())
    if HEIF_SUFFIXES & others.keys() - IMAGE_SUFFIXES:
        said += " (photos of iPhones are read once `pip install pillow-heif` was run)"
    return said


def read_split(name: str) -> tuple[str, str] | None:
    """Return the split that a folder's name says, and what else it says; null if none.

    `seg_train` gives ("train", "seg"), `Validation Set` and `val2017` give ("train", "").
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W\d_]+", spaced.casefold())
    known = {SPLITS[word] for word in words if word in SPLITS}
    if not known:  # trainset, testdata
        matched = re.fullmatch(rf"({'|'.join(SPLITS)})({'|'.join(BESIDE)})", "".join(words))
        return (SPLITS[matched[1]], "") if matched else None
    rest = [word for word in words if word not in SPLITS and word not in BESIDE]
    return ("train" if "train" in known else "test", " ".join(rest))


def _read(folder: Path, split: str | None, depth: int) -> list[ClassFolder]:
    """Return the class folders below a folder that lies `depth` folders below the data's own."""
    folders = _list_filled(folder)
    if split and not folders:
        print(f"{show_path(folder)} holds no class folders: its images are left out. A saved "
              "model classifies them with `python -m helpers.serving.predict`.")
    splits = _find_splits(folder, folders, depth)
    if splits:
        return [place for path, own in splits.items() for place in _read(path, own, depth + 1)]
    inside = {path: _list_filled(path, quiet=True) for path in folders}
    direct = any(_holds_images(path) for path in folders)
    if len(folders) == 1 and inside[folders[0]] and not direct:  # one folder around all
        return _read(folders[0], split, depth + 1)
    if len(folders) > 1 and not direct and all(inside.values()):
        shared = set.intersection(*({path.name for path in paths} for paths in inside.values()))
        names = {path.name for paths in inside.values() for path in paths}
        if all(read_split(name) for name in names):  # cat/train, cat/test
            return [ClassFolder(path, above.name, read_split(path.name)[0])
                    for above, paths in inside.items() for path in paths]
        if len(shared) > 1:
            raise _refuse_ambiguous(folder, folders, depth,
                                    "holds folders of the same names")
    return [ClassFolder(path, path.name, split) for path in folders]


def _find_splits(folder: Path, folders: list[Path], depth: int) -> dict[Path, str]:
    """Return the folders that are splits, none if they are classes."""
    named = {path: read_split(path.name) for path in folders if read_split(path.name)}
    splits = {path: split for path, (split, _) in named.items()}
    others = [path for path in folders if path not in named]
    rests = {rest for _, rest in named.values()}
    if len(rests) > 1 or (len(named) == 1 and rests != {""}):  # test tube, train station
        if not others and len(set(splits.values())) > 1:
            raise _refuse_ambiguous(folder, folders, depth,
                                    "begins with the name of a split")
        return {}
    if others and "train" not in splits.values():
        return {}
    if others and len(named) == 1:
        # Beside cars and buses `train` is a class; with folders of its own it may be a split.
        (path,) = named
        if len(list_folders(path)) > 1 and not _holds_images(path):
            raise _refuse_ambiguous(folder, folders, depth,
                                    f"may be a class, or {path.name} a split")
        return {}
    joined = [path.name for path, split in splits.items()
              if split == "train" and "train" not in path.name.casefold()]
    if splits:
        print(f"{show_path(folder)} has its own splits: "
              f"{', '.join(path.name for path in splits)}"
              + f"; {', '.join(joined)} joins the training images, since folds take its place"
              * bool(joined)
              + f"; ignored {', '.join(path.name for path in others)}" * bool(others))
    return splits


def _take_level(folder: Path, level: int, split: str | None,
                domain: tuple[str, ...]) -> Iterator[ClassFolder]:
    for path in _list_filled(folder):
        if level == 1:
            yield ClassFolder(path, path.name, split, "/".join(domain))
            continue
        if _holds_images(path):
            print(f"{show_path(path)} lies above `class_level`: its own images are left out")
        own = read_split(path.name)
        clear = own is not None and not own[1]
        yield from _take_level(path, level - 1, own[0] if clear else split,
                               domain if clear else (*domain, path.name))


def _list_filled(folder: Path, quiet: bool = False) -> list[Path]:
    """Return the folders in a folder with images somewhere below, and say which have none."""
    filled = []
    for path in list_folders(folder):
        if any(is_image(Path(name)) for _, _, names in os.walk(path) for name in names):
            filled.append(path)
        elif not quiet:
            others = describe_others(count_others(list(path.rglob("*.*"))))
            print(f"{show_path(path)} holds no images{f' but {others}' * bool(others)}: no class")
    return filled


def _holds_images(folder: Path) -> bool:
    return any(is_image(path) for path in folder.iterdir() if path.is_file())


def _refuse_ambiguous(folder: Path, folders: list[Path], depth: int, why: str) -> SuiteError:
    below = sorted({path.name for above in folders for path in list_folders(above)})
    lines = [f"{show_path(folder)} can be read in two ways, because each of its folders {why}. "
             "Set `class_level`:", ""]
    for level, names in ((1, folders), (2, below)):
        lines.append(f"  class_level: {depth + level}   {len(names)} classes")
        lines += _draw_tree(folders, level)
    return SuiteError("\n".join(lines))


def _draw_tree(folders: list[Path], marked: int) -> list[str]:
    """Return some lines of a tree of two levels, the classes marked."""
    lines = []
    for path in folders[:SHOWN]:
        lines.append(f"    {path.name}/" + "   <- class" * (marked == 1))
        lines += [f"      {inner.name}/" + "   <- class" * (marked == 2)
                  for inner in list_folders(path)[:SHOWN]]
    return lines
