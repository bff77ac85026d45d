"""Findings: what the checks report, a row each, and what is decided about it.

Decisions: `quarantine` (left out of everything), `group` (kept on one side of every split),
`keep` (reported only). Nothing in the data folder is ever changed.
"""

import numpy as np
import pandas as pd

from helpers.data.checks import CHECKS, Seen
from helpers.files import SuiteError
from helpers.settings import DataSettings

IMAGE_COLUMNS = ["image_id", "path", "label", "split"]
COPIES = ("exact copy", "near copy", "conflicting near copy", "leak")


def find_faults(images: pd.DataFrame, pairs: pd.DataFrame,
                settings: DataSettings) -> pd.DataFrame:
    """Return every finding: image_id, path, label, split, check, score, decision, note, copy_of.

    Args:
        images: as from `inspect_images`.
        pairs: as from `find_copies`, positions in `images`.
    """
    files, exact = pd.Series(np.arange(len(images))), pairs[pairs.how == "exact"]
    files[exact["second"]] = exact["first"].to_numpy()
    pairs = pairs[(pairs.how != "exact") & pairs["copy"]]
    seen = Seen(images.reset_index(drop=True), files, pairs)
    found = []
    for name, check in CHECKS.items():
        rows, score, note = check(seen)
        found.append(rows[IMAGE_COLUMNS].assign(check=name, score=score, decision="", note=note,
                                                copy_of=rows.get("copy_of", "")))
    findings = pd.concat([part for part in found if len(part)] or found[:1], ignore_index=True)
    unknown = set(settings.keep_images) - set(images.image_id)
    if unknown:
        raise SuiteError(f"the recipe's `keep_images` names {sorted(unknown)[0]!r}, which is no "
                         "image id of this data.")
    kept = findings.image_id.isin(settings.keep_images) & (findings.check != "unreadable")
    aside = findings.check.isin([*settings.quarantine, "unreadable"]) & ~kept
    findings["decision"] = np.select([aside, findings.check.isin(COPIES)],
                                     ["quarantine", "group"], "keep")
    return findings.round({"score": 4})


def set_aside(images: pd.DataFrame, findings: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part inspected images into those that are used and the quarantine, with its reasons.

    Raises:
        SuiteError: not one image is left, or not one of some class.
    """
    bad = findings[findings.decision == "quarantine"].sort_values("image_id", kind="stable")
    reasons = (bad.check + bad.note.map(lambda note: f": {note}" if note else "")).groupby(
        bad.image_id).agg("; ".join)
    aside = images.image_id.isin(reasons.index)
    if aside.all():
        raise SuiteError(f"none of the {len(images)} images can be used, e.g. "
                         f"{images.path.iloc[0]} ({reasons[images.image_id.iloc[0]]}). Check "
                         "`data` in the recipe.")
    lost = set(images.label.dropna()) - set(images.label[~aside].dropna())
    if lost:
        first = images[images.label == sorted(lost)[0]].iloc[0]
        raise SuiteError(f"no image of {len(lost)} classes can be used, e.g. of '{first.label}' "
                         f"({reasons[first.image_id]}). Repair the files, take the class out of "
                         "the data, or change `quarantine` in the recipe.")
    quarantine = images.loc[aside, IMAGE_COLUMNS]
    return images[~aside], quarantine.assign(reason=quarantine.image_id.map(reasons))
