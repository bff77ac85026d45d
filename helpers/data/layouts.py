"""Layouts: one small reader for each way in which images and labels lie on disk.

A reader takes the data's folder and the recipe's data settings, and returns `image_id`, `path`,
`label`, `split` and whatever the layout knows besides. A new one needs a name in `LAYOUTS`, at
the end, and in `source` of `helpers.settings`.
"""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from helpers.columns import RESERVED
from helpers.data.cifar import read_cifar
from helpers.data.class_folders import SPLITS, find_class_folders
from helpers.data.csv_tables import find_table, parse_csv
from helpers.data.image_paths import join_paths, locate_images
from helpers.data.listing import (
    count_others,
    describe_others,
    is_image,
    list_images,
    scan_folder,
)
from helpers.data.torchvision_sets import read_torchvision
from helpers.files import SuiteError, natural_key, resolve_path, show_path
from helpers.settings import DataSettings

MASK = re.compile(r"[-_ ](mask|seg|segmentation|label|gt|annotation)(_?\d+)?$", re.IGNORECASE)


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
        table = pd.DataFrame({"image_id": rows.imageid, "path": join_paths(images, names),
                              "label": labels, "split": split})
        kept = [name for name in ("productid", "designation", "description") if name in rows]
        parts.append(table.join(rows[kept]))
    return pd.concat(parts, ignore_index=True)


def read_folders(folder: Path, settings: DataSettings) -> pd.DataFrame:
    """Read a folder per class, with or without splits or domains above them: `class_folders`.

    Sub-folders belong to their class. Images of `val` join the training images, because the
    folds take its place; those of `test` stay a test set, labelled.
    """
    rows, others, beside = [], Counter(), 0
    places = find_class_folders(folder, settings.class_level)
    for above in {folder, *(place.path.parent for place in places)}:
        files = scan_folder(above)[1]
        others += count_others(files)
        beside += sum(map(is_image, files))
    for place in places:
        images, left = list_images(place.path)
        others += left
        rows += [(path.relative_to(folder).as_posix(), place.label, place.split or "train",
                  place.domain) for path in images]
    if others or beside:
        said = [f"{beside} images beside the class folders"] * bool(beside)
        print(f"left out in {show_path(folder)}: "
              f"{', '.join([*said, *[describe_others(others)] * bool(others)])}")
    _tell_masks([name for name, *_ in rows])
    if not rows:
        raise SuiteError(f"{show_path(folder)} holds no images in class folders: put them as "
                         f"{folder.name}/<class>/<image>, as .jpg, .png, .webp or .tif.")
    table = pd.DataFrame(rows, columns=["image_id", "label", "split", "domain"])
    table.insert(1, "path", join_paths(folder, table.image_id))
    return table if table.domain.any() else table.drop(columns="domain")


def read_csv(folder: Path, settings: DataSettings) -> pd.DataFrame:
    """Read any CSV of paths and labels: `csv_tables`, `image_paths`.

    Paths start at the CSV's folder, or at `images` in it. A column named by `split_column` may
    hold train, val or test; all other columns are kept.
    """
    path, part = find_table(folder, settings.csv, settings.source), settings.split_column
    columns = [settings.path_column, settings.label_column, *([part] if part else [])]
    found = parse_csv(path, columns, index=False, filled=[columns[0], *columns[2:]], hint=(
        " Name the columns in `path_column` and `label_column`."))
    if found.empty:
        raise SuiteError(f"{show_path(path)} has a header and no rows below it.")
    names, paths = locate_images(path.parent / (settings.images or ""), found[columns[0]])
    table = pd.DataFrame({"image_id": names, "path": paths, "label": found[columns[1]],
                          "split": "train"})
    if part:
        said = found[part].str.strip().str.lower()
        table["split"] = said.map(SPLITS)
        wrong = found[part][table.split.isna()]
        if len(wrong):
            raise SuiteError(f"{show_path(path)}: '{wrong.iloc[0]}' in column '{part}' is none "
                             f"of {', '.join(SPLITS)}.")
        joined = sorted(set(said[table.split == "train"]) - {"train", "training"})
        if joined:
            print(f"{', '.join(joined)} joins the training images, since folds take its place")
    elif "split" in found:
        said = ", ".join(found.split.dropna().unique()[:5])
        print(f"{path.name} has a column `split` ({said}): `split_column: split` uses it")
    rest = found.drop(columns=columns)
    renamed = {name: f"csv_{name}" for name in rest if name in RESERVED}
    if renamed:
        print(f"{path.name}: columns kept as {', '.join(renamed.values())}, because the suite "
              "uses their names itself")
    return table.join(rest.rename(columns=renamed))


def read_alternating(folder: Path, settings: DataSettings) -> pd.DataFrame:
    """Read a folder in which photos of two kinds alternate, and keep one kind.

    `keep` is `even` or `odd` (the position among the image files of the folder that holds them,
    sorted by name with 9 before 10, starting at 0) or `column=value` of the CSV.
    """
    table = read_csv(folder, settings)
    if "=" in settings.keep:
        column, _, value = settings.keep.partition("=")
        if column not in table:
            raise SuiteError(f"the recipe's `keep` names the column '{column}'; the table has: "
                             f"{', '.join(table.columns)}.")
        kept = table[column].str.strip() == value
    else:
        files = table.path.map(resolve_path)
        images = files.iloc[0].parent
        ranks = {name: place for place, name in enumerate(sorted(
            (path.name for path in scan_folder(images)[1] if is_image(path)), key=natural_key))}
        gone = files[~files.map(lambda file: file.parent == images and file.name in ranks)]
        if len(gone):
            raise SuiteError(f"the table in {show_path(folder)} names {len(gone)} images that "
                             f"are not in {show_path(images)}, e.g. {gone.iloc[0].name}.")
        kept = files.map(lambda file: ranks[file.name] % 2) == (settings.keep == "odd")
    print(f"kept {kept.sum()} of {len(table)} images ({settings.keep}), set the others aside")
    return table[kept].reset_index(drop=True)


def _tell_masks(names: list[str]) -> None:
    """Print how many images are named like others, with a word for masks behind."""
    stems = {name.rpartition(".")[0] for name in names}
    masks = sorted(stem for stem in stems if MASK.search(stem) and MASK.sub("", stem) in stems)
    if masks:
        print(f"{len(masks)} images are named like another one with more behind it, e.g. "
              f"{masks[0]}: if they are masks, take them out of the class folders")


def _find_folder(folder: Path, name: str) -> Path:
    """Find an image folder where the challenge's archives put it, unpacked once or twice."""
    places = [folder / name, folder / "images" / name, folder / "images" / "images" / name]
    for place in places:
        if place.is_dir():
            return place
    raise SuiteError(f"{show_path(folder)} has no folder {name}; looked for "
                     f"{', '.join(map(show_path, places))}.")


LAYOUTS: dict[str, Callable[[Path, DataSettings], pd.DataFrame]] = {
    "rakuten": read_rakuten, "folders": read_folders, "csv": read_csv,
    "alternating": read_alternating, "cifar": read_cifar, "torchvision": read_torchvision}
