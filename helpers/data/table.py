"""Table: whatever the layout on disk, one table, one row an image.

Columns: `image_id` (text, unique), `path` (from the suite's root where it lies inside),
`label` (the class name as text; missing where the data set gives none), `split` (`train`, or
`test` for the data set's own test images), and whatever the layout knows besides.
"""

import unicodedata
from pathlib import Path

import pandas as pd

from helpers.data.archives import SUFFIXES as ARCHIVES
from helpers.data.archives import claim_place, unpack_archive
from helpers.data.corrections import correct_labels
from helpers.data.labels import clean_labels, exclude_classes, rename_codes
from helpers.data.layouts import LAYOUTS
from helpers.data.torchvision_sets import fetch_data_set
from helpers.files import ROOT, SuiteError, resolve_path, show_path
from helpers.settings import Recipe


def load_table(recipe: Recipe) -> pd.DataFrame:
    """Read the recipe's data into the table; an archive is unpacked first.

    Raises:
        SuiteError: a file, a column or (unless the recipe says otherwise) an image is
            missing, an image stands twice, labels are ambiguous, or there are fewer than two
            classes.
    """
    data = find_data(recipe)
    folder = unpack_archive(data) if data.is_file() else data
    settings, group_column = recipe.data, recipe.splits.group_column
    try:
        table = LAYOUTS[settings.source](folder, settings)
    except UnicodeEncodeError as error:  # Arrow, where pandas finds it, takes text alone
        raise _refuse_names([error.object]) from None
    codes = clean_labels(table.label, folder)
    table["label"] = rename_codes(codes, settings.class_names, folder)
    table = exclude_classes(table, settings.exclude, folder)
    if settings.missing_images != "quarantine":
        table = _take_present(table, settings.missing_images == "drop")
    _check_table(table, folder)
    table = correct_labels(table, settings)
    tested = (table.split == "test").sum()
    print(f"{show_path(data)}: {len(table)} images in {table.label.nunique()} classes"
          f"{f', {tested} of them its own test set' if tested else ''}")
    if group_column and group_column not in table:
        raise SuiteError(f"{show_path(folder)} has no column '{group_column}' to group "
                         f"by; it has: {', '.join(table.columns)}.")
    unknown = [column for column in recipe.head.text_columns if column not in table]
    if unknown:
        raise SuiteError(f"{show_path(folder)} has no column '{unknown[0]}' of text; it has: "
                         f"{', '.join(table.columns)}. Correct `text_columns`.")
    return table


def _take_present(table: pd.DataFrame, drop: bool) -> pd.DataFrame:
    """Return the rows whose image is on the disk; SuiteError if some are not, unless dropped."""
    there = table.path.map(lambda path: resolve_path(path).is_file())
    missing = table.path[~there]
    if len(missing) and not drop:
        raise SuiteError(f"{len(missing)} of {len(table)} images are not there, e.g. "
                         f"{', '.join(missing[:3])}. Put them in place (names must match in "
                         "upper and lower case), or set `missing_images`: `quarantine` lists "
                         "them and goes on, `drop` leaves out their rows.")
    if len(missing):
        gone = sorted(set(table.label.dropna()) - set(table.label[there].dropna()))
        print(f"left out {len(missing)} rows whose image is not there"
              + f", and so the classes {', '.join(gone)}" * bool(gone))
    return table[there].reset_index(drop=True)


def restore_images(recipe: Recipe, table: pd.DataFrame) -> None:
    """Unpack or make the data again if a run's images are not on this machine.

    A run that was brought back, as to a fresh Colab runtime, has its tables, but what was
    unpacked from an archive or made as a demo stayed behind.
    """
    some = table.path.iloc[:: max(1, len(table) // 50)]
    if len(table) and not any(resolve_path(path).exists() for path in some):
        load_table(recipe)


def find_data(recipe: Recipe) -> Path:
    """Return the recipe's data folder or archive; what comes by itself is brought first."""
    place = recipe.data.place
    if recipe.data.source == "torchvision":
        fetch_data_set(place)
    elif recipe.data.generate == "demo":
        from helpers.data.demo import write_demo

        with claim_place(place):  # several processes may come here at once
            write_demo(place)
    if not place.is_dir() and not (place.is_file() and place.name.lower().endswith(ARCHIVES)):
        table = place.suffix.lower() in (".csv", ".tsv")
        hint = f" `data` is its folder, and `csv: {place.name}` names the table." * table
        raise SuiteError(f"{show_path(place)} is neither a folder nor an archive "
                         f"({', '.join(ARCHIVES)}): put the data there, or set `data`.{hint}")
    if ROOT.is_relative_to(place):
        raise SuiteError(f"{show_path(place)} holds the suite itself: set `data` to the folder "
                         "of the images.")
    return place


def name_path(recipe: Recipe, path: str) -> str:
    """Return an image's path as it may be shown to others: from the data's folder on."""
    file = resolve_path(path)
    for folder in (recipe.data.place, recipe.data.place.parent):
        if file.is_relative_to(folder):
            return file.relative_to(folder).as_posix()
    return show_path(file) if file.is_relative_to(ROOT) else file.name


def find_followed(recipe: Recipe, table: pd.DataFrame) -> pd.Series:
    """Return the row of the image that the notebooks follow: `follow`, else the first one.

    One that is not, or no longer, among the training images gives way to the first one.
    """
    train = table[table.split == "train"]
    chosen = train[train.image_id == (recipe.data.follow or train.image_id.iloc[0])]
    if chosen.empty:
        print(f"{recipe.data.follow} is not among the training images: the first one is followed")
    return (train if chosen.empty else chosen).iloc[0]


def _refuse_names(odd: list[str]) -> SuiteError:
    return SuiteError(f"file names hold characters that are no text, e.g. {odd[0]!r}. Rename "
                      "them; old archives often need another encoding.")


def _check_table(table: pd.DataFrame, folder: Path) -> None:
    """Raise SuiteError unless each image has one row and two classes have images to train on."""
    odd = [path for path in table.path
           if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in path)]
    if odd:
        raise _refuse_names(odd)
    for column in ("image_id", "path"):
        repeated = table[column][table[column].duplicated()]
        if len(repeated):
            raise SuiteError(f"{show_path(folder)}: {len(repeated)} images stand in more than "
                             f"one row, e.g. {repeated.iloc[0]}. Every image needs one row.")
    if not (table.split == "train").any():
        raise SuiteError(f"{show_path(folder)}: no image is a training image"
                         f"{'; all are of the test split' if len(table) else ''}. Name some "
                         "`train`, or leave `split_column` out.")
    unlabelled = table.image_id[table.label.isna() & (table.split == "train")]
    if len(unlabelled):
        raise SuiteError(f"{show_path(folder)}: {len(unlabelled)} training images have no label, "
                         f"e.g. {unlabelled.iloc[0]}. Label them or take them out.")
    classes = table.label.nunique()
    if classes < 2:
        raise SuiteError(f"{show_path(folder)} holds {classes} class{'' if classes else 'es'}; a "
                         "classifier needs at least two.")
