"""Checks: what an inspection has found, one row a finding, with a score and a decision.

Scores follow CleanVision where it has the check: from 0 (worst) to 1. Its thresholds are its
defaults. Decisions: `quarantine` (left out of everything), `group` (kept on one side of every
split), `keep` (reported only). Nothing in the data folder is ever changed.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from helpers.errors import SuiteError
from helpers.recipe import Recipe

# Pillow's format -> file name endings that tell the truth.
ENDINGS = {"JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"}, "MPO": {".jpg", ".jpeg", ".mpo"},
           "PNG": {".png"}, "GIF": {".gif"}, "BMP": {".bmp"}, "WEBP": {".webp"},
           "TIFF": {".tif", ".tiff"}}
BLANK = 0.01  # deviation of the pixels (0 to 1) below which an image shows nothing
FEW = 0.5  # greyscale images are odd only where they are the minority


def find_faults(images: pd.DataFrame, exact: pd.Series, pairs: pd.DataFrame,
                recipe: Recipe) -> pd.DataFrame:
    """Return every finding: image_id, path, label, split, check, score, decision, note.

    Args:
        images: as from `inspect_images`.
        exact, pairs: as from `helpers.copies`, positions in `images`.
    """
    readable = images[images.reason == ""]
    found = [_rows(images[images.reason != ""], "unreadable", 0.0,
                   images.reason[images.reason != ""])]
    judged = _judge(readable) if len(readable) else []
    found += [_rows(readable[mask], check, score) for check, mask, score in judged]
    found += [_rows(rows, check, 0.0, note) for check, rows, note in
              _judge_copies(images, exact)]
    found += _judge_pairs(images, pairs)
    findings = pd.concat(found, ignore_index=True)
    unknown = set(recipe.keep_images) - set(images.image_id)
    if unknown:
        raise SuiteError(f"recipe '{recipe.name}': `keep_images` names {sorted(unknown)[0]!r}, "
                         "which is no image id of this data.")
    kept = findings.image_id.isin(recipe.keep_images) & (findings.check != "unreadable")
    aside = findings.check.isin(recipe.quarantine) | (findings.check == "unreadable")
    copied = findings.check.isin(["exact copy", "near copy", "leak"])
    findings["decision"] = np.select([aside & ~kept, copied], ["quarantine", "group"], "keep")
    columns = ["image_id", "path", "label", "split", "check", "score", "decision", "note"]
    return findings[columns].round({"score": 4})


def _rows(rows: pd.DataFrame, check: str, score, note="") -> pd.DataFrame:
    return rows[["image_id", "path", "label", "split"]].assign(
        check=check, score=score if np.isscalar(score) else score[rows.index], note=note)


def _judge(rows: pd.DataFrame) -> list[tuple[str, pd.Series, pd.Series | float]]:
    """Return (check, mask of the images it concerns, score) for the readable images."""
    from cleanvision.issue_managers.image_property import (
        AspectRatioProperty,
        BlurrinessProperty,
        BrightnessProperty,
        EntropyProperty,
        SizeProperty,
    )

    raw = rows.assign(
        aspect_ratio=(rows[["width", "height"]].min(axis=1)
                      / rows[["width", "height"]].max(axis=1)).astype(float),
        size=np.sqrt((rows.width * rows.height).astype(float)))
    judged = []
    for check, prop, issue, threshold, options in (
        ("dark", BrightnessProperty("dark"), "dark", 0.32, {}),
        ("light", BrightnessProperty("light"), "light", 0.05, {}),
        ("odd aspect", AspectRatioProperty(), "odd_aspect_ratio", 0.35, {}),
        ("low information", EntropyProperty(), "low_information", 0.3,
         {"normalizing_factor": 0.1}),
        ("blurry", BlurrinessProperty(), "blurry", 0.29,
         {"normalizing_factor": 0.01, "color_threshold": 0.18}),
        ("odd size", SizeProperty(), "odd_size", None, {"iqr_factor": 3.0}),
    ):
        scores = prop.get_scores(raw_scores=raw, issue_type=issue, **options)
        marked = prop.mark_issue(scores, issue, threshold).iloc[:, 0].astype(bool)
        judged.append((check, marked, scores.iloc[:, 0].astype(float)))
    grey = rows.grey.astype(bool)
    deviation = np.sqrt(np.maximum(
        rows[["square_r", "square_g", "square_b"]].to_numpy()
        - rows[["mean_r", "mean_g", "mean_b"]].to_numpy() ** 2, 0)).max(axis=1)
    ending = rows.path.map(lambda path: Path(path).suffix.lower())
    lies = [end not in ENDINGS.get(kind, {end})
            for end, kind in zip(ending, rows.format, strict=True)]
    return [
        *judged,
        ("blank", pd.Series(deviation < BLANK, rows.index), 0.0),
        ("greyscale", grey & (grey.mean() < FEW), 0.0),
        ("extension", pd.Series(lies, rows.index, dtype=bool), 0.0),
        ("transparency", rows.transparent.astype(bool), 1.0),
        ("rotated", rows.rotated.astype(bool), 1.0),
        ("animated", rows.animated.astype(bool), 1.0),
        ("CMYK", rows["mode"] == "CMYK", 1.0),
        ("16-bit", rows["mode"].str.match("I|F"), 1.0),
        ("palette", rows["mode"] == "P", 1.0),
    ]


def _judge_copies(images: pd.DataFrame, exact: pd.Series):
    """Yield exact copies, those with conflicting labels, and those that leak into the test."""
    chosen = (exact >= 0) & (images.reason == "")
    copies, group = images[chosen], exact[chosen]
    ids = images.image_id.to_numpy()[group] if len(group) else []
    notes = pd.Series([f"same file as {name}" for name in ids], copies.index, dtype=object)
    # The first of each group is the original; a quarantine of copies leaves it.
    original = copies.image_id == ids
    yield "exact copy", copies[~original], notes[~original]
    labels = copies.label.groupby(group).transform("nunique")
    clash = (labels > 1) & copies.label.notna() & (copies.split == "train")
    yield "conflicting labels", copies[clash], notes[clash]
    sides = copies.split.groupby(group).transform("nunique")
    leak = (sides > 1) & (copies.split == "train")
    yield "leak", copies[leak], notes[leak]


def _judge_pairs(rows: pd.DataFrame, pairs: pd.DataFrame) -> list[pd.DataFrame]:
    near = pairs[pairs["copy"]]
    found = []
    for one, other in (("second", "first"), ("first", "second")):
        mine, theirs = rows.iloc[near[one]], rows.iloc[near[other]]
        listed = mine[["image_id", "path", "label", "split"]].assign(
            check="near copy", score=1 - near.correlation.to_numpy(),
            note=("near copy of " + theirs.image_id).to_numpy())
        leak = (mine.split.to_numpy() == "train") & (theirs.split.to_numpy() == "test")
        # The first of a pair is the original, as with exact copies; a leak is one either way.
        found += [listed[:0] if one == "first" else listed, listed[leak].assign(check="leak")]
    # An image with many copies is one finding, with its closest copy.
    joined = pd.concat(found).sort_values("score", kind="stable")
    return [joined.drop_duplicates(["image_id", "check"]).sort_index()]


def set_aside(images: pd.DataFrame,
              findings: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part inspected images into those that are used and the quarantine, with its reasons.

    Raises:
        SuiteError: not one image is left, or not one of some class.
    """
    bad = findings[findings.decision == "quarantine"].sort_values("image_id", kind="stable")
    reasons = (bad.check + bad.note.map(lambda note: f": {note}" if note else "")).groupby(
        bad.image_id).agg("; ".join)
    aside = images.image_id.isin(reasons.index)
    if aside.all():
        raise SuiteError(
            f"none of the {len(images)} images can be used, e.g. {images.path.iloc[0]} "
            f"({reasons[images.image_id.iloc[0]]}). Check `data` in the recipe."
        )
    lost = set(images.label.dropna()) - set(images.label[~aside].dropna())
    if lost:
        first = images[images.label == sorted(lost)[0]].iloc[0]
        raise SuiteError(
            f"no image of {len(lost)} classes can be used, e.g. of '{first.label}' "
            f"({reasons[first.image_id]}). Repair the files, take the class out of the data, or "
            "change `quarantine` in the recipe."
        )
    quarantine = images.loc[aside, ["image_id", "path", "label", "split"]].assign(
        reason=lambda rows: rows.image_id.map(reasons))
    return images[~aside], quarantine
