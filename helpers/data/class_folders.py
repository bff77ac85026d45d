"""Class folders: which folders are classes, and which are splits, domains or wrapping.

Data sets come as `cat/`, `train/cat/`, `seg_train/seg_train/cat/`, `cat/train/` or `photo/cat/`.
What the names make plain is read; where two readings are possible, the user is shown both.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.data.listing import holds_images, list_filled, list_folders
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
    folders = list_filled(folder, say=True)
    if split and not folders:
        print(f"{show_path(folder)} holds no class folders: its images are left out. If a table "
              "names their labels, use `source: csv`.")
    splits = _find_splits(folder, folders, depth)
    if splits:
        return [place for path, own in splits.items() for place in _read(path, own, depth + 1)]
    inside = {path: list_filled(path) for path in folders}
    direct = [path for path in folders if holds_images(path)]
    if len(folders) == 1 and inside[folders[0]] and not direct:  # one folder around all
        return _read(folders[0], split, depth + 1)
    inner = _find_inner_splits(inside, direct)
    if inner:
        return inner
    _refuse_nested(folder, inside)
    names = Counter(path.name for paths in inside.values() for path in paths)
    if len(folders) > 1 and not direct and sum(count > 1 for count in names.values()) > 1:
        raise _refuse_ambiguous(folder, folders, depth, "holds folders that others hold, too")
    joined = {path.name: paths for path, paths in inside.items() if len(paths) > 1}
    if joined and len(folders) > 1:
        some = [path.name for paths in joined.values() for path in paths]
        print(f"classes are {', '.join(path.name for path in folders[:SHOWN])}"
              f"{', …' * (len(folders) > SHOWN)}; folders in them ({', '.join(some[:SHOWN])}"
              f"{', …' * (len(some) > SHOWN)}) are part of their class. `class_level: "
              f"{depth + 2}` would make these the classes")
    return [ClassFolder(path, path.name, split) for path in folders]


def _find_splits(folder: Path, folders: list[Path], depth: int) -> dict[Path, str]:
    """Return the folders that are splits, none if they are classes."""
    named = {path: read_split(path.name) for path in folders if read_split(path.name)}
    # With folders of their own, and no images beside these, they are hardly classes.
    likely = {path: split for path, (split, rest) in named.items()
              if not rest and len(list_filled(path)) > 1 and not holds_images(path)}
    others = [path for path in folders if path not in named]
    rests = {rest for _, rest in named.values()}
    splits = {path: split for path, (split, _) in named.items()}
    if len(rests) > 1 or (len(named) == 1 and rests != {""}):  # test tube, train station
        if "train" in likely.values() and ("test" in likely.values() or not others):
            splits, others = likely, [path for path in folders if path not in likely]
        elif likely or (not others and len(set(splits.values())) > 1):
            raise _refuse_ambiguous(folder, folders, depth, "may be a class or a split")
        else:
            return {}
    elif others and ("train" not in splits.values() or len(named) == 1):
        if likely:  # beside cars and buses `train` is a class, but not with folders of its own
            raise _refuse_ambiguous(folder, folders, depth,
                                    f"may be a class, or {next(iter(likely)).name} a split")
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


def _find_inner_splits(inside: dict[Path, list[Path]], direct: list[Path]) -> list[ClassFolder]:
    """Return the class folders of `cat/train`, `cat/test`, `dog/train` ...; none if it is not so.

    Args:
        inside: the folders in each folder.
        direct: those with images of their own.
    """
    splits = {path: {inner: split for inner in paths if (split := _read_clear(inner.name))}
              for path, paths in inside.items()}
    if not all("train" in own.values() for own in splits.values()) or not any(
            "test" in own.values() for own in splits.values()):
        return []
    left = [*direct, *(path for above, paths in inside.items() for path in paths
                       if path not in splits[above])]
    if left:
        print(f"the images in {', '.join(map(show_path, left))} are left out: those beside them "
              "lie in folders of splits")
    return [ClassFolder(path, above.name, split) for above, own in splits.items()
            for path, split in own.items()]


def _refuse_nested(folder: Path, inside: dict[Path, list[Path]]) -> None:
    """Raise SuiteError if one of the folders holds what lies beside it once more."""
    beside = {path.name for path in inside}
    for path, paths in inside.items():
        twice = sorted(beside & {inner.name for inner in paths})
        if len(twice) > 1 and not holds_images(path):
            raise SuiteError(
                f"{show_path(path)} holds folders of the same names as beside it "
                f"({', '.join(twice)}): set `data` to it, or take it out of {show_path(folder)}.")


def _take_level(folder: Path, level: int, split: str | None,
                domain: tuple[str, ...]) -> Iterator[ClassFolder]:
    for path in list_filled(folder, say=True):
        if level == 1:
            yield ClassFolder(path, path.name, split, "/".join(domain))
            continue
        if holds_images(path):
            print(f"{show_path(path)} lies above `class_level`: its own images are left out")
        own = _read_clear(path.name)
        yield from _take_level(path, level - 1, own or split,
                               domain if own else (*domain, path.name))


def _read_clear(name: str) -> str | None:
    """Return the split that a folder's name says if it says nothing else."""
    split, rest = read_split(name) or (None, "")
    return None if rest else split


def _refuse_ambiguous(folder: Path, folders: list[Path], depth: int, why: str) -> SuiteError:
    below = sorted({path.name for above in folders for path in list_folders(above)})
    lines = [f"{show_path(folder)} can be read in two ways, because each of its folders {why}. "
             "Set `class_level`:", ""]
    for level, names in ((1, folders), (2, below)):
        if not names:
            continue
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
