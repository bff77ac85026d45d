"""Checks: what can be odd about an image, one function each.

A check is a function of what was seen that returns the images it concerns, a score from 0 (worst)
to 1, and a note; a new one is a function under `@check` with a name that `CHECKS` in
`helpers.settings` lists. Scores and thresholds follow CleanVision (Apache-2.0) where it has the
check.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

# Pillow's format -> file name endings that tell the truth.
ENDINGS = {"JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"}, "MPO": {".jpg", ".jpeg", ".mpo"},
           "PNG": {".png"}, "GIF": {".gif"}, "BMP": {".bmp"}, "WEBP": {".webp"},
           "TIFF": {".tif", ".tiff"}}
BLANK = 0.01  # deviation of the pixels (0 to 1) below which an image shows nothing
FEW = 0.5  # greyscale images are odd only where they are the minority


@dataclass(frozen=True)
class Seen:
    """All that the checks look at."""

    images: pd.DataFrame  # from `inspect_images`, unreadable ones included, numbered from 0
    file: pd.Series  # for each the number of the first image with the same bytes, or its own
    pairs: pd.DataFrame  # near copies, by the first image of each file

    @property
    def readable(self) -> pd.DataFrame:
        return self.images[self.images.reason == ""]

    def join_copies(self, rows: pd.DataFrame, exact: bool) -> pd.DataFrame:
        """Return `one`, the number of an image in `rows`, for each file `to` that it copies.

        With `distance`: 0 for an exact copy, whose file is its own.
        """
        mine = pd.DataFrame({"one": rows.index, "file": self.file[rows.index].to_numpy()})
        if exact:
            return mine.assign(to=mine.file, distance=0.0)
        near = self.pairs[self.pairs["copy"].astype(bool)]
        distance = 1 - near.correlation.to_numpy()
        links = pd.concat([pd.DataFrame({"file": near[a], "to": near[b], "distance": distance})
                           for a, b in (("first", "second"), ("second", "first"))])
        return mine.merge(links, on="file")

    def find_first(self, chosen: pd.Series) -> pd.Series:
        """Return file -> the first image of it among the `chosen` ones."""
        numbers = self.images.index[chosen]
        return pd.Series(numbers, self.file[numbers].to_numpy()).groupby(level=0).first()

    def report(self, met: pd.DataFrame, label: bool = False):
        """Report each `one` of `met` once, with the closest `other`, and perhaps its label."""
        met = met.dropna(subset="other").sort_values("distance", kind="stable")
        met = met.drop_duplicates("one").sort_values("one")
        notes = [f"{'same file as' if distance == 0 else 'near copy of'} {other.image_id}"
                 + (f", labelled {other.label}" if label else "")
                 for distance, other in zip(met.distance, self.images.iloc[
                     met.other.astype(int)].itertuples(), strict=True)]
        return self.images.iloc[met.one], met.distance.to_numpy(), notes


CHECKS: dict[str, Callable[[Seen], tuple]] = {}


def check(name: str):
    """Register a check under its name."""

    def register(function):
        CHECKS[name] = function
        return function

    return register


@check("unreadable")
def find_unreadable(seen: Seen):
    """Files that cannot be decoded, with the reason."""
    rows = seen.images[seen.images.reason != ""]
    return rows, 0.0, rows.reason


@check("blank")
def find_blank(seen: Seen):
    """Images of one colour: they show nothing."""
    rows = seen.readable
    squares, means = (rows[[f"{what}_{c}" for c in "rgb"]].to_numpy(float) if len(rows)
                      else np.zeros((0, 3)) for what in ("square", "mean"))
    deviation = np.sqrt(np.maximum(squares - means**2, 0)).max(axis=1)
    return rows[deviation < BLANK], 0.0, ""


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


check("dark")(_judge("dark", lambda p: p.BrightnessProperty("dark"), 0.32))
check("light")(_judge("light", lambda p: p.BrightnessProperty("light"), 0.05))
check("blurry")(_judge("blurry", lambda p: p.BlurrinessProperty(), 0.29,
                       normalizing_factor=0.01, color_threshold=0.18))
check("low information")(_judge("low_information", lambda p: p.EntropyProperty(), 0.3,
                                normalizing_factor=0.1))
check("odd size")(_judge("odd_size", lambda p: p.SizeProperty(), None, iqr_factor=3.0))
check("odd aspect")(_judge("odd_aspect_ratio", lambda p: p.AspectRatioProperty(), 0.35))


@check("greyscale")
def find_greyscale(seen: Seen):
    """Grey images among coloured ones."""
    rows = seen.readable
    grey = rows.grey.astype(bool)
    return rows[grey & (grey.mean() < FEW)], 0.0, ""


@check("extension")
def find_wrong_extensions(seen: Seen):
    """Files whose name says another format than their content."""
    rows = seen.readable
    ending = rows.path.map(lambda path: Path(path).suffix.lower())
    lies = [end not in ENDINGS.get(kind, {end})
            for end, kind in zip(ending, rows.get("format", ending), strict=True)]
    return rows[np.array(lies, bool)], 0.0, ""


def _match(column: str, pattern: str):
    """Return a check for a fact of the file's header."""
    return lambda seen: (seen.readable[seen.readable[column].astype(str).str.fullmatch(pattern)],
                         1.0, "")


check("transparency")(_match("transparent", "True"))
check("rotated")(_match("rotated", "True"))
check("animated")(_match("animated", "True"))
check("CMYK")(_match("mode", "CMYK"))
check("16-bit")(_match("mode", "[IF].*"))
check("palette")(_match("mode", "P"))


@check("exact copy")
def find_exact(seen: Seen):
    """Files that are there already; a quarantine of copies leaves the first."""
    met = seen.join_copies(seen.images[seen.file != seen.images.index], exact=True)
    return seen.report(met.assign(other=met.to))


@check("near copy")
def find_near(seen: Seen):
    """Images that are there already, saved or cut otherwise; here too the first stays."""
    met = seen.join_copies(seen.images[seen.file == seen.images.index], exact=False)
    return seen.report(met[met.one > met.to].assign(other=met.to))


def _find_conflicts(seen: Seen, exact: bool):
    labels = seen.images.label
    first = seen.find_first(labels.notna())
    second = seen.find_first(labels.notna() & (labels != seen.file.map(first).map(labels)))
    met = seen.join_copies(seen.images[labels.notna() & (seen.images.split == "train")], exact)
    agrees = met.to.map(first).map(labels) == met.one.map(labels)
    return seen.report(met.assign(other=met.to.map(first).mask(agrees, met.to.map(second))),
                       label=True)


@check("conflicting labels")
def find_conflicts(seen: Seen):
    """One file under two labels: at least one of them is wrong."""
    return _find_conflicts(seen, exact=True)


@check("conflicting near copy")
def find_near_conflicts(seen: Seen):
    """Two labels for what looks like one picture; likeness is no proof, so it is only shown."""
    return _find_conflicts(seen, exact=False)


@check("leak")
def find_leaks(seen: Seen):
    """Training images that are copies of the data set's own test images, which are named."""
    tested = seen.find_first(seen.images.split == "test")
    train = seen.images[seen.images.split == "train"]
    met = pd.concat([seen.join_copies(train, exact) for exact in (True, False)])
    return seen.report(met.assign(other=met.to.map(tested)))
