"""Columns: the names and types of the suite's tables, so that a CSV is read as it was written.

Only an empty field is missing: a class may well be called "NA", "None" or "007".
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

# An empty field is an empty text.
TEXTS = ("image_id", "path", "split", "sha256", "reason", "format", "mode", "check", "decision",
         "note", "weights", "backbone", "copy_of", "candidate", "cue", "part", "verdict",
         "first_id", "second_id", "how", "transform", "inverse")
# An empty field is missing.
LABELS = ("label", "prediction", "class", "code", "suggestion", "correction", "runner_up",
          "given_label")
FLAGS = ("rotated", "transparent", "animated", "grey", "copy", "suspect", "left_out")
NUMBERS = ("bytes", "width", "height", "group", "fold", "score", "brightness", "entropy",
           "sharpness", *(f"brightness_perc_{p}" for p in (1, 5, 10, 15, 90, 95, 99)),
           *(f"{what}_{channel}" for what in ("mean", "square") for channel in "rgb"),
           "first", "second", "correlation", "details", "points", "overlap", "colours",
           "confidence", "x", "y", "images", "precision", "recall",
           "F1", "low", "high", "parameters", "features", "file_mb",
           "images_per_second", "peak_memory_mb", "macro F1", "behind", "behind_low",
           "behind_high", "value", "difference", "p", "p_holm", "seconds",
           "told", "told_low", "told_high", "chance", "misled", "fall")
# A layout's own columns of these names are renamed: later steps add columns called so.
RESERVED = {"image_id", "path", "label", "split", "group", "fold", "bytes", "sha256", "reason",
            "format", "mode", "prediction", "confidence", "check", "score", "decision", "note",
            "copy_of", "given_label", *FLAGS,
            *NUMBERS[NUMBERS.index("width") : NUMBERS.index("first")]}


def read_table(path: Path, texts: Iterable[str] = ()) -> pd.DataFrame:
    """Read one of the suite's CSV files, every column in its type.

    Args:
        texts: further columns to be read as text, such as a data set's own product numbers.
    """
    names = pd.read_csv(path, nrows=0).columns
    kinds = {name: str for name in names if name in (*TEXTS, *LABELS, *texts)}
    kinds |= {name: "boolean" for name in names if name in FLAGS}
    missing = {name: [""] for name in names
               if name in (*LABELS, *FLAGS, *NUMBERS) or name.startswith("p_")}
    return pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=missing,
                       low_memory=False)
