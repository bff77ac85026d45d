"""Sources: each data layout read into the same table, one row an image.

Columns: `image_id` (text, unique), `path` (from the suite's root where it lies inside),
`label` (the class name as text; missing where the data set gives none) and `split`
(`train`, or `test` for the data set's own test images).
"""

from pathlib import Path

import pandas as pd

from helpers.errors import SuiteError
from helpers.files import resolve_path, show_path
from helpers.recipe import Recipe

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


def load_table(recipe: Recipe) -> pd.DataFrame:
    """Read the recipe's data into the table.

    Raises:
        SuiteError: a file, a column or (unless the recipe says otherwise) an image is
            missing, an id stands twice, or there are fewer than two classes.
    """
    read = {"rakuten": read_rakuten, "folders": read_folders}[recipe.source]
    table = read(recipe.data_folder)
    table["label"] = table.label.map(lambda code: recipe.class_names.get(code, code),
                                     na_action="ignore")
    repeated = table.image_id[table.image_id.duplicated()]
    if len(repeated):
        raise SuiteError(
            f"{show_path(recipe.data_folder)}: {len(repeated)} image ids stand twice, "
            f"e.g. {repeated.iloc[0]}. Every image needs one row."
        )
    odd = [path for path in table.path if not path.isprintable()]
    if odd:
        raise SuiteError(f"{len(odd)} file names hold characters that are no text, e.g. "
                         f"{odd[0]!r}. Rename them; old archives often need another encoding.")
    classes = table.label.dropna().unique()
    if len(classes) < 2:
        raise SuiteError(
            f"{show_path(recipe.data_folder)} holds {len(classes)} class"
            f"{'es' if not len(classes) else ''}; a classifier needs at least two."
        )
    if recipe.missing_images == "refuse":
        _refuse_missing(table)
    return table


def read_rakuten(folder: Path) -> pd.DataFrame:
    """Read the Rakuten France layout (challenge data, 2020): codes as labels, test unlabelled."""
    keys = ["productid", "imageid"]
    train = _read_csv(folder / "X_train_update.csv", keys)
    codes = _read_csv(folder / "Y_train_CVw08PX.csv", ["prdtypecode"])
    test = _read_csv(folder / "X_test_update.csv", keys)
    if not train.index.equals(codes.index):
        raise SuiteError(
            f"{show_path(folder)}: X_train_update.csv has {len(train)} rows and "
            f"Y_train_CVw08PX.csv {len(codes)}, or their first columns differ; they must name "
            "the same rows in the same order."
        )
    parts = []
    for split, rows, labels in (("train", train, codes.prdtypecode), ("test", test, None)):
        images = _find_folder(folder, f"image_{split}")
        names = "image_" + rows.imageid + "_product_" + rows.productid + ".jpg"
        parts.append(pd.DataFrame({
            "image_id": rows.imageid, "path": _join(images, names), "label": labels,
            "split": split}))
    return pd.concat(parts, ignore_index=True)


def read_folders(folder: Path) -> pd.DataFrame:
    """Read a folder per class; sub-folders belong to their class, other files are ignored."""
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if classes and all(p.name.lower() in SPLIT_NAMES for p in classes):
        raise SuiteError(
            f"{show_path(folder)} holds {', '.join(p.name for p in classes)} instead of a "
            "folder per class. Set `data` to the folder that holds the class folders."
        )
    rows, ignored = [], sum(p.suffix.lower() in SUFFIXES for p in folder.iterdir())
    for name in classes:
        files = sorted(p for p in name.rglob("*") if p.is_file())
        images = [p for p in files if p.suffix.lower() in SUFFIXES]
        ignored += len(files) - len(images)
        if not images:
            print(f"{show_path(name)} holds no images: no class of this name")
        rows += [(p.relative_to(folder).as_posix(), name.name) for p in images]
    if not rows:
        raise SuiteError(
            f"{show_path(folder)} holds no images in class folders: put them as "
            f"{folder.name}/<class>/<image>, with one of {', '.join(sorted(SUFFIXES))}."
        )
    if ignored:
        print(f"ignored {ignored} files in {show_path(folder)}: no images by name, or beside the "
              "class folders")
    table = pd.DataFrame(rows, columns=["image_id", "label"])
    return table.assign(path=_join(folder, table.image_id), split="train")[
        ["image_id", "path", "label", "split"]]


def _read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read a CSV whose first column is the index, all as text, and check its columns."""
    if not path.is_file():
        raise SuiteError(f"{show_path(path)} is missing: the recipe's layout needs it.")
    try:
        table = pd.read_csv(path, index_col=0, dtype=str)
    except (ValueError, pd.errors.ParserError) as error:
        raise SuiteError(f"{show_path(path)} cannot be read as CSV: {error}") from error
    for column in columns:
        if column not in table:
            raise SuiteError(
                f"{show_path(path)} has no column '{column}'; it has: "
                f"{', '.join(map(str, table.columns))}."
            )
        empty = table.index[table[column].isna()]
        if len(empty):
            raise SuiteError(f"{show_path(path)}: column '{column}' is empty in {len(empty)} "
                             f"rows, first in row {empty[0]}.")
    return table


def _find_folder(folder: Path, name: str) -> Path:
    """Find an image folder where the challenge's archives put it, unpacked once or twice."""
    places = [folder / name, folder / "images" / name, folder / "images" / "images" / name]
    for place in places:
        if place.is_dir():
            return place
    raise SuiteError(
        f"{show_path(folder)} has no folder {name}; looked for "
        f"{', '.join(show_path(p) for p in places)}."
    )


def _join(folder: Path, names: pd.Series) -> pd.Series:
    return show_path(folder) + "/" + names


def _refuse_missing(table: pd.DataFrame) -> None:
    missing = [path for path in table.path if not resolve_path(path).is_file()]
    if missing:
        raise SuiteError(
            f"{len(missing)} of {len(table)} images are not there, e.g. "
            f"{', '.join(missing[:3])}. Put them in place, or set `missing_images: quarantine` "
            "to go on without them."
        )
