"""Checks: what can be odd about an image, one function each.

A check is a function of what was seen that returns the images it concerns, a score from 0 (worst)
to 1, and a note; a new one needs a name in `CHECKS`, below and in `helpers.settings`. Scores and
thresholds follow CleanVision (Apache-2.0) where it has the check.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

# Pillow's format -> file name endings that tell the truth.
ENDINGS = {"JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"}, "MPO": {".jpg", ".jpeg", ".mpo"},
           "PNG": {".png"}, "GIF": {".gif"}, "BMP": {".bmp"}, "WEBP": {".webp"},
           "TIFF": {".tif", ".tiff"}}
BLANK = 0.01  # deviation of the pixels (0 to 1) below which an image shows nothing
# Blurred by a Gaussian of 3 % of the side, 99 % of photos fall below it; of 600 photos of waste
# and 580 of vehicles as they are, less than 1 % do.
BLURRY = 0.15
FEW = 0.5  # greyscale images are odd only where they are the minority


@dataclass(frozen=True)
class Seen:
    """All that the checks look at."""

    images: pd.DataFrame  # from `inspect_images`, unreadable ones included, numbered from 0
    file: pd.Series  # for each the number of the first image with the same bytes, or its own
    pairs: pd.DataFrame  # other copies, by the first image of each file

    @property
    def readable(self) -> pd.DataFrame:
        return self.images[self.images.reason == ""]

    def join_copies(self, rows: pd.DataFrame, exact: bool) -> pd.DataFrame:
        """Return `one`, the number of an image in `rows`, for each file `to` that it copies.

        With `distance`, 0 for an exact copy, whose file is its own; and `transform`, in words:
        what was done to `to`.
        """
        mine = pd.DataFrame({"one": rows.index, "file": self.file[rows.index].to_numpy()})
        if exact:
            return mine.assign(to=mine.file, distance=0.0, transform="")
        near = self.pairs.assign(distance=1 - self.pairs.correlation)
        links = pd.concat([
            near.rename(columns={"first": "to", "second": "file"}),
            near.drop(columns="transform").rename(
                columns={"first": "file", "second": "to", "inverse": "transform"})])
        return mine.merge(links[["file", "to", "distance", "transform"]], on="file")

    def find_first(self, chosen: pd.Series) -> pd.Series:
        """Return file -> the first image of it among the `chosen` ones."""
        numbers = self.images.index[chosen]
        return pd.Series(numbers, self.file[numbers].to_numpy()).groupby(level=0).first()

    def report(self, met: pd.DataFrame, label: bool = False):
        """Report each `one` of `met` once, with the closest `other`, and perhaps its label."""
        met = met.dropna(subset="other").sort_values("distance", kind="stable")
        met = met.drop_duplicates("one").sort_values("one")
        others = list(self.images.iloc[met.other.astype(int)].itertuples())
        notes = [("same file as " if row.file == row.to else "near copy of ") + other.image_id
                 + (f", labelled {other.label}" if label else "")
                 + (f" ({row.transform})" if row.transform else "")
                 for row, other in zip(met.itertuples(), others, strict=True)]
        rows = self.images.iloc[met.one].assign(copy_of=[other.image_id for other in others])
        return rows, met.distance.to_numpy(), notes


def find_unreadable(seen: Seen):
    """Files that cannot be decoded, with the reason."""
    rows = seen.images[seen.images.reason != ""]
    return rows, 0.0, rows.reason


def find_blank(seen: Seen):
    """Images of one colour: they show nothing."""
    rows = seen.readable
    squares, means = (rows[[f"{what}_{c}" for c in "rgb"]].to_numpy(float) if len(rows)
                      else np.zeros((0, 3)) for what in ("square", "mean"))
    deviation = np.sqrt(np.maximum(squares - means**2, 0)).max(axis=1)
    return rows[deviation < BLANK], 0.0, ""


def find_blurry(seen: Seen):
    """Images without edges, for the contrast that they have."""
    rows = seen.readable
    if rows.empty:
        return rows, 0.0, ""
    rows = rows[rows.sharpness.astype(float) < BLURRY]
    return rows, rows.sharpness, ""


def _judge(issue: str, create: Callable, threshold: float | None, **options):
    """Return a check that asks one of CleanVision's image properties."""

    def judge(seen: Seen):
        from cleanvision.issue_managers import image_property

        rows = seen.readable
        if rows.empty:
            return rows, 0.0, ""
        sides = rows[["width", "height"]].astype(float)
        raw = rows.assign(aspect_ratio=sides.min(axis=1) / sides.max(axis=1),
                          size=np.sqrt(sides.prod(axis=1)))
        prop = create(image_property)
        scores = prop.get_scores(raw_scores=raw, issue_type=issue, **options)
        marked = prop.mark_issue(scores, issue, threshold).iloc[:, 0].astype(bool)
        return rows[marked], scores.iloc[:, 0].astype(float)[marked], ""

    return judge


def find_greyscale(seen: Seen):
    """Grey images among coloured ones."""
    rows = seen.readable
    grey = rows.grey.astype(bool)
    return rows[grey & (grey.mean() < FEW)], 0.0, ""


def find_wrong_extensions(seen: Seen):
    """Files whose name says another format than their content."""
    rows = seen.readable
    lies = [kind in ENDINGS and Path(path).suffix.lower() not in ENDINGS[kind]
            for path, kind in zip(rows.path, rows["format"], strict=True)]
    return rows[np.array(lies, bool)], 0.0, ""


def find_deep(seen: Seen):
    """Images of more than 8 bits, and whether each was read as most of them were."""
    rows = seen.readable[seen.readable["mode"].astype(str).str.fullmatch("[IF].*")]
    if rows.empty:
        return rows, 1.0, ""
    usual = rows.white.mode().iloc[0]
    others = (f", in most others {usual:g}: it looks brighter or darker than beside them; if "
              "they come from one device, save them all as 8 bits on one scale")
    return rows, 1.0, [f"white is {white:g}{'' if white == usual else others}"
                       for white in rows.white]


def _match(column: str, pattern: str, note: str = ""):
    """Return a check for a fact of the file's header."""
    return lambda seen: (seen.readable[seen.readable[column].astype(str).str.fullmatch(pattern)],
                         1.0, note)


def find_exact(seen: Seen):
    """Files that are there already; a quarantine of copies leaves the first."""
    met = seen.join_copies(seen.images[seen.file != seen.images.index], exact=True)
    return seen.report(met.assign(other=met.to))


def find_near(seen: Seen):
    """Images that are there already, saved, cut or turned otherwise; here too the first stays."""
    met = seen.join_copies(seen.images[seen.file == seen.images.index], exact=False)
    return seen.report(met[met.one > met.to].assign(other=met.to))


def find_conflicts(seen: Seen, exact: bool):
    """Two labels for one file, of which at least one is wrong, or for near copies.

    Likeness is no proof, so that near copies are only shown.
    """
    labels = seen.images.label
    first = seen.find_first(labels.notna())
    second = seen.find_first(labels.notna() & (labels != seen.file.map(first).map(labels)))
    met = seen.join_copies(seen.images[labels.notna() & (seen.images.split == "train")], exact)
    other = met.to.map(first)
    agrees = other.map(labels) == met.one.map(labels)
    return seen.report(met.assign(other=other.mask(agrees, met.to.map(second))), label=True)


def find_leaks(seen: Seen):
    """Training images that are copies of the data set's own test images, which are named."""
    tested = seen.find_first(seen.images.split == "test")
    train = seen.images[seen.images.split == "train"]
    met = pd.concat([seen.join_copies(train, exact) for exact in (True, False)])
    return seen.report(met.assign(other=met.to.map(tested)))


CHECKS: dict[str, Callable[[Seen], tuple]] = {
    "unreadable": find_unreadable,
    "blank": find_blank,
    "dark": _judge("dark", lambda p: p.BrightnessProperty("dark"), 0.32),
    "light": _judge("light", lambda p: p.BrightnessProperty("light"), 0.05),
    "blurry": find_blurry,
    "low information": _judge("low_information", lambda p: p.EntropyProperty(), 0.3,
                              normalizing_factor=0.1),
    "odd size": _judge("odd_size", lambda p: p.SizeProperty(), None, iqr_factor=3.0),
    "odd aspect": _judge("odd_aspect_ratio", lambda p: p.AspectRatioProperty(), 0.35),
    "greyscale": find_greyscale,
    "extension": find_wrong_extensions,
    "transparency": _match("transparent", "True"),
    "rotated": _match("rotated", "True"),
    "animated": _match("animated", "True", "of its frames or pages the first is used"),
    "CMYK": _match("mode", "CMYK"),
    "16-bit": find_deep,
    "palette": _match("mode", "P"),
    "exact copy": find_exact,
    "near copy": find_near,
    "conflicting labels": partial(find_conflicts, exact=True),
    "conflicting near copy": partial(find_conflicts, exact=False),
    "leak": find_leaks,
}
