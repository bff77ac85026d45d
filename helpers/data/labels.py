"""Labels: each class written in one way, named readably, some left out."""

import re
import unicodedata
from pathlib import Path

import pandas as pd

from helpers.files import SuiteError, show_path
from helpers.recipe import suggest

JOINERS = "\u200c\u200d"  # invisible, but part of Persian words and of Indian letters


def clean_labels(labels: pd.Series, folder: Path) -> pd.Series:
    """Return labels as text, each class written in one way, saying how many were changed.

    Spaces around them and invisible signs are taken away, and accents written in one of the two
    ways of Unicode (NFC): `café` from a Mac is the `café` from elsewhere.

    Raises:
        SuiteError: a label holds a control character, or two differ only by case or by how a
            number is written.
    """
    text = labels.astype(object).map(str, na_action="ignore").astype("string").astype(object)
    clean = {name: clean_label(name, folder) for name in text.dropna().unique()}
    cleaned = text.map(clean)
    changed = (text.notna() & (cleaned != text) & (text.str.strip() != "")).sum()
    if changed:
        print(f"cleaned {changed} labels in {show_path(folder)} of spaces, invisible signs or "
              "accents written in another way")
    several = [name for name in cleaned.dropna().unique()
               if re.search(r"\|.|;.|^[\[({].*,", name)]
    if several:
        print(f"{len(several)} labels such as {several[0]!r} look like several at once: an image "
              "has one class here, so that each of them is a class of its own")
    seen = {}
    for name in cleaned.dropna().unique():
        other = seen.setdefault(_comparable(name), name)
        if other != name:
            raise SuiteError(f"{show_path(folder)}: the labels '{other}' and '{name}' look like "
                             "one class written in two ways. Make them the same.")
    return cleaned


def clean_label(name: str, folder: Path) -> str | None:
    """Return one label as `clean_labels` does, or nothing if nothing of it is left."""
    kinds = {unicodedata.category(sign) for sign in name.strip()}
    if "Cc" in kinds:
        raise SuiteError(f"{show_path(folder)}: the label {name!r} holds a control character. "
                         "Rename the class.")
    seen = "".join(sign for sign in unicodedata.normalize("NFC", name)
                   if sign in JOINERS or unicodedata.category(sign) != "Cf")
    return seen.strip().strip("".join(JOINERS)) or None


def _comparable(name: str) -> str:
    try:
        return repr(float(name))
    except ValueError:
        return unicodedata.normalize("NFKC", name).translate(
            dict.fromkeys(map(ord, JOINERS))).casefold()


def rename_codes(codes: pd.Series, names: dict[str, str], folder: Path) -> pd.Series:
    """Return labels with readable names; a code without one stays.

    Raises:
        SuiteError: a name is that of another class, or a code is written as no label is.
    """
    there = set(codes.dropna())
    twice = set(names.values()) & (there - set(names))
    if twice:
        raise SuiteError(f"`class_names` calls a code '{sorted(twice)[0]}', but "
                         f"{show_path(folder)} has a class of that name already.")
    absent, unnamed = [code for code in names if code not in there], sorted(there - set(names))
    alike = {_comparable(label): f" (did you mean '{label}'?)" for label in unnamed}
    for code in absent:
        hint = alike.get(_comparable(code)) or suggest(code, unnamed, cutoff=0.75)
        if hint:
            raise SuiteError(f"`class_names` names the code '{code}', which is no label in "
                             f"{show_path(folder)}{hint}.")
    if absent:
        print(f"`class_names` names {len(absent)} codes that do not occur, e.g. '{absent[0]}'")
    return codes.map(lambda code: names.get(code, code), "ignore")


def exclude_classes(table: pd.DataFrame, classes: list[str], folder: Path) -> pd.DataFrame:
    """Return the table without some classes; SuiteError if there is none of that name."""
    there = sorted(set(table.label.dropna()))
    for name in classes:
        if name not in there:
            raise SuiteError(f"`exclude` names '{name}', which is no class in "
                             f"{show_path(folder)}{suggest(name, there)}.")
    kept = ~table.label.isin(classes)
    if classes:
        print(f"left out {(~kept).sum()} images of {', '.join(classes)}")
    return table[kept].reset_index(drop=True)
