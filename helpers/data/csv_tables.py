"""CSV tables: as spreadsheets and programs write them, read strictly.

A row with a comma too many would give an image another label, so it is refused with its line.
"""

import codecs
import csv
import io
import re
from pathlib import Path

import pandas as pd

from helpers.data.listing import scan_folder
from helpers.files import SuiteError, show_path
from helpers.recipe import suggest

SEPARATORS = ",;\t|"
SAMPLED = 50  # rows by which it is found out how a table is written
KINDS = {b"PK\x03\x04": "an Excel workbook (.xlsx) or another archive",
         b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls)", b"%PDF": "a PDF document"}
csv.field_size_limit(2**24)


def parse_csv(path: Path, columns: list[str], index: bool = True,
              filled: list[str] | None = None, hint: str = "") -> pd.DataFrame:
    """Read a CSV as text and check it; columns in `filled` (null: all) must not be empty.

    In UTF-8, UTF-16 or Windows encoding, separated by commas, semicolons, tabs or bars.

    Args:
        columns: that it must have.
        index: whether the first column numbers the rows.
        hint: what to do about a column that is missing.

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
            raise SuiteError(f"{show_path(path)} has no column '{column}'"
                             f"{suggest(column, list(table.columns))}; it has: "
                             f"{', '.join(map(str, table.columns))}.{hint}")
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
    _, files = scan_folder(folder)
    tables = [path for path in files
              if path.suffix.lower() in (".csv", ".tsv") and not path.name.startswith(".")]
    books = [path.name for path in files if path.suffix.lower() in (".xlsx", ".xls")]
    if not tables and books:
        raise SuiteError(f"{show_path(folder)} holds no CSV, but {books[0]}: save it as CSV.")
    if len(tables) != 1:
        raise SuiteError(f"`source: {source}` needs `csv`, the name of the table in "
                         f"{show_path(folder)}"
                         + f" ({', '.join(path.name for path in tables)})" * bool(tables)
                         + ": set it in the recipe.")
    return tables[0]


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
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SuiteError(f"{show_path(path)} cannot be read ({error.strerror}).") from error
    for start, kind in KINDS.items():
        if content.startswith(start):
            raise SuiteError(f"{show_path(path)} is {kind}, no CSV: save the table as CSV.")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in content and not wide:
        raise SuiteError(f"{show_path(path)} is no text in UTF-8 (it holds zero bytes): save the "
                         "table as CSV in UTF-8.")
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
    try:
        if not content.decode("utf-8", "ignore").isascii():  # nearly all of it is UTF-8
            raise ValueError
        text = content.decode("cp1252")
    except ValueError:
        raise SuiteError(f"{show_path(path)} is no text in UTF-8, first in line {line}: save the "
                         "table as CSV in UTF-8 (in Excel: `CSV UTF-8`).") from None
    print(f"{show_path(path)} is not in UTF-8 (line {line}): read as Western European. If names "
          "look wrong, save it as CSV in UTF-8")
    return text


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
