"""Layouts: one small reader for each way in which images and labels lie on disk.

A reader takes the data's folder and the recipe's data settings, and returns `image_id`, `path`,
`label`, `split` and whatever the layout knows besides. A new one needs a name in `LAYOUTS`, at
the end, and in `source` of `helpers.settings`.
"""

import csv
import posixpath
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from helpers.columns import RESERVED
from helpers.data.cifar import read_cifar
from helpers.data.torchvision_sets import read_torchvision
from helpers.files import SuiteError, natural_key, show_path
from helpers.settings import DataSettings

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
SPLITS = {"train": "train", "training": "train", "val": "train", "valid": "train",
          "validation": "train", "test": "test", "testing": "test"}


def read_rakuten(folder: Path, settings: DataSettings) -> pd.DataFrame:
    """Read the Rakuten France layout (challenge data, 2020): codes as labels, test unlabelled."""
    keys = ["productid", "imageid"]
    train = parse_csv(folder / "X_train_update.csv", keys)
    codes = parse_csv(folder / "Y_train_CVw08PX.csv", ["prdtypecode"])
    test = parse_csv(folder / "X_test_update.csv", keys)
    if not train.index.equals(codes.index):
        raise SuiteError(f"{show_path(folder)}: X_train_update.csv has {len(train)} rows and "
                         f"Y_train_CVw08PX.csv {len(codes)}, or their first columns differ; they "
                         "must name the same rows in the same order.")
    parts = []
    for split, rows, labels in (("train", train, codes.prdtypecode), ("test", test, None)):
        images = _find_folder(folder, f"image_{split}")
        names = "image_" + rows.imageid + "_product_" + rows.productid + ".jpg"
        table = pd.DataFrame({"image_id": rows.imageid, "path": _join(images, names),
                              "label": labels, "split": split})
        kept = [name for name in ("productid", "designation", "description") if name in rows]
        parts.append(table.join(rows[kept]))
    return pd.concat(parts, ignore_index=True)


def read_folders(folder: Path, settings: DataSettings) -> pd.DataFrame:
    """Read a folder per class, with or without train, val and test folders above them.

    Sub-folders belong to their class. Images of `val` join the training images, because the
    folds take its place; those of `test` stay a test set, labelled.
    """
    above = {p.name.lower(): p for p in _list_folders(folder)}
    own = {name: path for name, path in above.items() if name in SPLITS}
    if any(SPLITS[name] == "train" for name in own) and (len(own) > 1 or own == above):
        parts = [(path, SPLITS[name]) for name, path in own.items()]
        others = ", ".join(above.keys() - own.keys())
        print(f"{show_path(folder)} has its own splits: {', '.join(own)}"
              f"{f'; ignored {others}' if others else ''}")
    else:
        parts = [(folder, "train")]
    rows = [row for place, split in parts for row in _list_classes(folder, place, split)]
    if not rows:
        raise SuiteError(f"{show_path(folder)} holds no images in class folders: put them as "
                         f"{folder.name}/<class>/<image>, with one of "
                         f"{', '.join(sorted(SUFFIXES))}.")
    table = pd.DataFrame(rows, columns=["image_id", "label", "split"])
    table.insert(1, "path", _join(folder, table.image_id))
    return table


def _list_folders(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir())
            if p.is_dir() and not p.name.startswith(".") and p.name != "__MACOSX"]


def is_image(path: Path) -> bool:
    """Return whether a file's name is that of an image, and not a hidden one."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _list_classes(folder: Path, place: Path, split: str) -> list[tuple[str, str, str]]:
    rows, ignored = [], sum(is_image(p) for p in place.iterdir() if p.is_file())
    for name in _list_folders(place):
        files = sorted(p for p in name.rglob("*") if p.is_file())
        images = [p for p in files if is_image(p)]
        ignored += len(files) - len(images)
        if not images:
            print(f"{show_path(name)} holds no images: no class of this name")
        rows += [(p.relative_to(folder).as_posix(), name.name, split) for p in images]
    if ignored:
        print(f"ignored {ignored} files in {show_path(place)}: no images by name, or beside the "
              "class folders")
    return rows


def read_csv(folder: Path, settings: DataSettings) -> pd.DataFrame:
    """Read any CSV of paths and labels, in UTF-8 or Windows encoding, commas or semicolons.

    Paths start at the CSV's folder. A column named by `split_column` may hold train, val or
    test; all other columns are kept.
    """
    if settings.csv is None:
        raise SuiteError(f"`source: {settings.source}` needs `csv`, the name of the table in "
                         f"{show_path(folder)}: set it in the recipe.")
    path, part = folder / settings.csv, settings.split_column
    columns = [settings.path_column, settings.label_column, *([part] if part else [])]
    found = parse_csv(path, columns, index=False, filled=columns[:1])
    names = found[settings.path_column].str.strip().str.replace("\\", "/").map(posixpath.normpath)
    table = pd.DataFrame({"image_id": names, "path": _join(path.parent, names),
                          "label": found[settings.label_column], "split": "train"})
    if part:
        table["split"] = found[part].str.strip().str.lower().map(SPLITS)
        wrong = found[part][table.split.isna()]
        if len(wrong):
            raise SuiteError(f"{show_path(path)}: '{wrong.iloc[0]}' in column '{part}' is none "
                             f"of {', '.join(SPLITS)}.")
    rest = found.drop(columns=columns)
    renamed = {name: f"csv_{name}" for name in rest if name in RESERVED}
    if renamed:
        print(f"{settings.csv}: columns kept as {', '.join(renamed.values())}, because the suite "
              "uses their names itself")
    return table.join(rest.rename(columns=renamed))


def read_alternating(folder: Path, settings: DataSettings) -> pd.DataFrame:
    """Read a folder in which photos of two kinds alternate, and keep one kind.

    `keep` is `even` or `odd` (the position among the image files of `images`, sorted by
    name with 9 before 10, starting at 0) or `column=value` of the CSV.
    """
    table = read_csv(folder, settings)
    images = next(p for p in (folder / "images", folder) if p.is_dir())
    names = table.image_id.str.rsplit("/", n=1).str[-1]
    if images != folder and not table.image_id.str.contains("/").any():
        table["path"] = _join(images, names)
    if "=" in settings.keep:
        column, _, value = settings.keep.partition("=")
        if column not in table:
            raise SuiteError(f"the recipe's `keep` names the column '{column}'; {settings.csv} "
                             f"has: {', '.join(table.columns)}.")
        kept = table[column].str.strip() == value
    else:
        files = sorted((p.name for p in images.iterdir() if is_image(p)), key=natural_key)
        gone = names[~names.isin(files)]
        if len(gone):
            raise SuiteError(f"{show_path(folder / settings.csv)} names {len(gone)} images that "
                             f"are not in {show_path(images)}, e.g. {gone.iloc[0]}.")
        kept = names.isin(files[1 if settings.keep == "odd" else 0 :: 2])
    print(f"kept {kept.sum()} of {len(table)} images ({settings.keep}), set the others aside")
    return table[kept].reset_index(drop=True)


def parse_csv(path: Path, columns: list[str], index: bool = True,
              filled: list[str] | None = None) -> pd.DataFrame:
    """Read a CSV as text and check its columns; those in `filled` (all) must not be empty."""
    if not path.is_file():
        raise SuiteError(f"{show_path(path)} is missing: the recipe's layout needs it.")
    encoding, separator, header = _detect_format(path)
    twice = {name for name in header if name and header.count(name) > 1}
    if twice:
        raise SuiteError(f"{show_path(path)} has two columns named '{sorted(twice)[0]}'. Rename "
                         "one of them.")
    try:
        table = pd.read_csv(path, index_col=0 if index else False, dtype=str, sep=separator,
                            encoding=encoding, keep_default_na=False, na_values=[""])
    except ValueError as error:
        raise SuiteError(f"{show_path(path)} cannot be read as CSV: {error}") from error
    for column in columns:
        if column not in table:
            raise SuiteError(f"{show_path(path)} has no column '{column}'; it has: "
                             f"{', '.join(map(str, table.columns))}.")
        empty = table.index[table[column].isna()]
        if len(empty) and column in (columns if filled is None else filled):
            raise SuiteError(f"{show_path(path)}: column '{column}' is empty in {len(empty)} "
                             f"rows, first in row {empty[0]}.")
    return table


def _detect_format(path: Path) -> tuple[str, str, list[str]]:
    """Return encoding, separator and header of a CSV: spreadsheets write more than one kind."""
    encoding = "utf-8-sig"
    try:
        text = path.read_text(encoding)
    except UnicodeDecodeError:
        encoding = "cp1252"
        text = path.read_text(encoding, "replace")
    line = text.partition("\n")[0]
    separator = max(",;\t|", key=line.count)
    return encoding, separator, next(csv.reader([line], delimiter=separator), [])


def _find_folder(folder: Path, name: str) -> Path:
    """Find an image folder where the challenge's archives put it, unpacked once or twice."""
    places = [folder / name, folder / "images" / name, folder / "images" / "images" / name]
    for place in places:
        if place.is_dir():
            return place
    raise SuiteError(f"{show_path(folder)} has no folder {name}; looked for "
                     f"{', '.join(map(show_path, places))}.")


def _join(folder: Path, names: pd.Series) -> pd.Series:
    return show_path(folder) + "/" + names


LAYOUTS: dict[str, Callable[[Path, DataSettings], pd.DataFrame]] = {
    "rakuten": read_rakuten, "folders": read_folders, "csv": read_csv,
    "alternating": read_alternating, "cifar": read_cifar, "torchvision": read_torchvision}
