"""Corrections: labels that a person has put right, read from a CSV; the data stays as it is."""

from difflib import get_close_matches

import pandas as pd

from helpers.data.csv_tables import parse_csv
from helpers.data.labels import clean_label
from helpers.files import SuiteError, resolve_path, show_path
from helpers.run import OUTPUTS
from helpers.settings import DataSettings

LEFT_OUT = "(leave out)"


def correct_labels(table: pd.DataFrame, settings: DataSettings) -> pd.DataFrame:
    """Return the table with corrected labels, beside them `given_label` and `left_out`.

    The CSV has `image_id` and `correction`: a class name, `(leave out)`, or nothing, which leaves
    the label as it is.

    Raises:
        SuiteError: no such file, it is a run's own, a column is missing, an image stands twice or
            is unknown, or a correction is no class of the data; names it.
    """
    if settings.corrections is None:
        return table
    path = resolve_path(settings.corrections)
    if path.is_relative_to(OUTPUTS):
        raise SuiteError(f"{show_path(path)} belongs to a run, which will write it anew: copy it "
                         "to data/ and name the copy in `corrections`.")
    if not path.is_file():
        raise SuiteError(f"{show_path(path)} is missing: copy a run's label_suspects.csv there "
                         "and fill in its column `correction`, or take `corrections` out.")
    found = parse_csv(path, ["image_id", "correction"], index=False, filled=["image_id"])
    wanted = found.assign(correction=[clean_label(said, path) or ""
                                      for said in found.correction.fillna("")],
                          image_id=found.image_id.str.strip().str.replace("\\", "/"))
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
    labels = table.image_id.map(wanted.set_index("image_id").correction)
    left = labels == LEFT_OUT
    changed = labels.notna() & ~left & (labels != table.label)
    print(f"{show_path(path)}: {changed.sum()} labels corrected, {left.sum()} images left out")
    return table.assign(label=labels.mask(left).fillna(table.label), given_label=table.label,
                        left_out=left)
