"""CSV tables: as spreadsheets and programs write them, read strictly; and the images they name.

A row with a comma too many would give an image another label, so it is refused with its line.
"""

import codecs
import csv
import io
import posixpath
import re
from pathlib import Path

import pandas as pd

from helpers.data.class_folders import list_folders
from helpers.data.images import IMAGE_SUFFIXES
from helpers.files import SuiteError, show_path

SEPARATORS = ",;\t|"
SAMPLED = 50  # rows by which it is found out how a table is written
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", *sorted(IMAGE_SUFFIXES))  # the usual ones first
KINDS = {b"PK\x03\x04": "an Excel workbook (.xlsx) or another archive",
         b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls)", b"%PDF": "a PDF document"}
csv.field_size_limit(2**24)


def parse_csv(path: Path, columns: list[str], index: bool = True,
              filled: list[str] | None = None) -> pd.DataFrame:
    """Read a CSV as text and check it; columns in `filled` (null: all) must not be empty.

    In UTF-8, UTF-16 or Windows encoding, separated by commas, semicolons, tabs or bars.

    Args:
        columns: that it must have.
        index: whether the first column numbers the rows.

    Returns:
        A DataFrame of text; empty fields are missing.

    Raises:
        SuiteError: no such file, another kind of file, a row with more or fewer fields than the
            header, a column that is missing or stands twice, or an empty field.
    """
    if not path.is_file():
        raise SuiteError(f"{show_path(path)} is missing: the recipe's layout needs it.")
    header, rows, lines = _read_rows(path)
    twice = {name for name in header if name and header.count(name) > 1}
    if twice:
        raise SuiteError(f"{show_path(path)} has two columns named '{sorted(twice)[0]}'. Rename "
                         "one of them.")
    table = pd.DataFrame(rows, columns=header, index=lines, dtype=object)
    # Without a name are the numbers of the rows, as pandas writes them.
    table = table.loc[:, [bool(name) or (index and not place)
                          for place, name in enumerate(header)]]
    for column in columns:
        if column not in table:
            raise SuiteError(f"{show_path(path)} has no column '{column}'; it has: "
                             f"{', '.join(map(str, table.columns))}.")
        empty = table.index[table[column].fillna("").str.strip() == ""]
        if len(empty) and column in (columns if filled is None else filled):
            raise SuiteError(f"{show_path(path)}: column '{column}' is empty in {len(empty)} "
                             f"rows, first in line {empty[0]}.")
    return table.set_index(table.columns[0]) if index else table.reset_index(drop=True)


def find_table(folder: Path, name: str | None, source: str) -> Path:
    """Return the table that a recipe names, or the only one there is.

    Raises:
        SuiteError: none is named, and there is none or more than one.
    """
    if name is not None:
        return folder / name
    tables = [path for path in sorted(folder.iterdir())
              if path.suffix.lower() in (".csv", ".tsv") and not path.name.startswith(".")]
    if len(tables) != 1:
        raise SuiteError(f"`source: {source}` needs `csv`, the name of the table in "
                         f"{show_path(folder)}"
                         + f" ({', '.join(path.name for path in tables)})" * bool(tables)
                         + ": set it in the recipe.")
    return tables[0]


def locate_images(base: Path, names: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return ids and paths of the images that a table names, found as people name them.

    Names may lack their ending (`.jpg`) or their folder, or be the full paths of another
    computer; which it is, some rows tell, and what was done is said in one line.

    Args:
        base: the folder where the names start.
        names: text, one a row.
    """
    names = names.str.strip().str.replace("\\", "/").map(posixpath.normpath)
    some = names.iloc[:: max(1, len(names) // SAMPLED)].tolist()
    if names.map(_is_absolute).all():
        return _locate_absolute(base, names, some)
    best, place = max((_count_there(place, some, True), -number, place) for number, place in
                      enumerate([base, *list_folders(base)]))[::2]
    if not best:
        return names, join_paths(base, names)
    if place != base:
        print(f"images are looked for in {show_path(place)}")
    bare = ~names.map(lambda name: posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES)
    whole = names.where(~bare, names.map(lambda name: _add_ending(place, name)) if bare.any()
                        else names)
    if (whole != names).any():
        added = sorted({posixpath.splitext(name)[1] for name in whole[whole != names]})
        print(f"added {', '.join(added)} to {(whole != names).sum()} names without an ending")
    return whole, join_paths(place, whole)


def join_paths(folder: Path, names: pd.Series) -> pd.Series:
    """Return the paths, as a table keeps them, of names in a folder."""
    return show_path(folder) + "/" + names


def _read_rows(path: Path) -> tuple[list[str], list[list], list[int]]:
    """Return the header, the rows, empty fields as None, and the line that each ends in."""
    text, first = _read_text(path), 0
    hint = re.match(r"\ufeff?\"?sep=(.)\"?\r?\n", text, re.IGNORECASE)  # Excel's own line
    if hint:
        text, first = text[hint.end() :], 1
    separator = hint[1] if hint else _find_separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header, rows, lines = None, [], []
    try:
        for row in reader:
            if not any(field.strip() for field in row):
                continue
            if header is None:
                # A separator at the end of each line names no column.
                header = [name.strip() for name in row]
                while not header[-1]:
                    header.pop()
                continue
            if any(field.strip() for field in row[len(header) :]) or len(row) < len(header):
                raise SuiteError(
                    f"{show_path(path)}: line {first + reader.line_num} has {len(row)} fields, "
                    f"and the header {len(header)} ({', '.join(header)}). Text that holds "
                    f"{separator!r} must stand in quotes.")
            rows.append([field or None for field in row[: len(header)]])
            lines.append(first + reader.line_num)
    except csv.Error as error:
        raise SuiteError(f"{show_path(path)} cannot be read as CSV: {error}, in the row that "
                         f"ends in line {first + reader.line_num}.") from error
    return header or [], rows, lines


def _read_text(path: Path) -> str:
    content = path.read_bytes()
    for start, kind in KINDS.items():
        if content.startswith(start):
            raise SuiteError(f"{show_path(path)} is {kind}, no CSV: save the table as CSV.")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in content and not wide:
        raise SuiteError(f"{show_path(path)} is no text in UTF-8 (it holds zero bytes): save the "
                         "table as CSV in UTF-8.")
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _find_separator(text: str) -> str:
    """Return the separator with which most fields fit the header."""
    def count(separator: str) -> tuple[bool, int]:
        try:
            rows = csv.reader(io.StringIO(text[: 2**16], newline=""), delimiter=separator)
            sizes = [len(row) for row, _ in zip(rows, range(SAMPLED), strict=False) if row]
        except csv.Error:
            return False, 0
        # The last one may be cut off.
        return len(set(sizes[:-1])) == 1 and sizes[0] > 1, sizes[0] if sizes else 0

    return max(SEPARATORS, key=count)


def _is_absolute(name: str) -> bool:
    return name.startswith("/") or bool(re.match("[A-Za-z]:/", name))


def _count_there(place: Path, names: list[str], bare: bool) -> int:
    return sum((place / (_add_ending(place, name) if bare else name)).is_file()
               for name in names)


def _add_ending(place: Path, name: str) -> str:
    """Return a name with the ending that a file of it has, if it has none itself."""
    if (place / name).is_file():
        return name
    return next((name + ending for ending in ENDINGS if (place / (name + ending)).is_file()),
                name)


def _locate_absolute(base: Path, names: pd.Series, some: list[str]) -> tuple:
    """Return ids and paths of names that are full paths, of this computer or another one."""
    above = posixpath.commonpath(names.map(posixpath.dirname).unique().tolist())
    ids = names.str.slice(len(above)).str.lstrip("/")
    if any(Path(name).is_file() for name in some):
        return ids, names.map(show_path)
    # Of all folders at the end of the common path, those that are here, too.
    parts = [part for part in above.split("/") if part]
    for start in range(len(parts) + 1):
        place = base.joinpath(*parts[start:])
        if _count_there(place, ids.loc[names.isin(some)].tolist(), False):
            print(f"the table's paths are those of another computer: {above} is taken for "
                  f"{show_path(place)}")
            return ids, join_paths(place, ids)
    raise SuiteError(f"the table names full paths, e.g. {some[0]}, which are not on this "
                     f"computer, nor below {show_path(base)}: put the images there.")
