"""Corrections: labels that a person has put right, read from a CSV; the data stays as it is."""

from difflib import get_close_matches

import pandas as pd

from helpers.columns import read_table
from helpers.files import SuiteError, resolve_path, show_path
from helpers.settings import DataSettings

LEFT_OUT = "(leave out)"


def correct_labels(table: pd.DataFrame, settings: DataSettings) -> pd.DataFrame:
    """Return the table with its labels corrected, without what `corrections` leave out.

    The CSV has `image_id` and `correction`: a class name, `(leave out)`, or nothing, which leaves
    the label as it is.

    Raises:
        SuiteError: no such file, a column is missing, an image stands twice or is unknown, or a
            correction is no class of the data; names it.
    """
    if settings.corrections is None:
        return table
    path = resolve_path(settings.corrections)
    if not path.is_file():
        raise SuiteError(f"{show_path(path)} is missing: copy a run's label_suspects.csv there "
                         "and fill in its column `correction`, or take `corrections` out.")
    found = read_table(path)
    if not {"image_id", "correction"} <= set(found):
        raise SuiteError(f"{show_path(path)} needs the columns image_id and correction; it has "
                         f"{', '.join(found)}.")
    wanted = found.assign(correction=found.correction.fillna("").str.strip())
    wanted = wanted[wanted.correction != ""]
    twice = wanted.image_id[wanted.image_id.duplicated()]
    unknown = wanted.image_id[~wanted.image_id.isin(table.image_id)]
    for names, what in ((twice, "stand in more than one row"), (unknown, "are not in the data")):
        if len(names):
            raise SuiteError(f"{show_path(path)}: {len(names)} images {what}, e.g. "
                             f"{names.iloc[0]}.")
    classes = sorted(table.label.dropna().unique())
    strange = wanted.correction[~wanted.correction.isin([*classes, LEFT_OUT])]
    if len(strange):
        near = get_close_matches(strange.iloc[0], [*classes, LEFT_OUT], 1)
        hint = f"; did you mean {near[0]!r}?" if near else (
            f"; classes are {', '.join(classes[:10])}{' …' * (len(classes) > 10)}.")
        raise SuiteError(f"{show_path(path)}: {strange.iloc[0]!r} is no class of the data{hint}")
    labels = wanted.set_index("image_id").correction
    corrected = table.assign(label=table.image_id.map(labels).fillna(table.label))
    left = corrected.label == LEFT_OUT
    changed = (corrected.label != table.label) & table.label.notna() & ~left
    print(f"{show_path(path)}: {changed.sum()} labels corrected, {left.sum()} images left out")
    return corrected[~left].reset_index(drop=True)
