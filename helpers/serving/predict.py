"""Predict: many photos classified by a saved model, as CSV.

    python -m helpers.serving.predict --run outputs/vehicles my_photos --out predictions.csv

Photos are read while others are computed. Those that cannot be read have a reason in the column
`refused`. Exit status: 0 all were read, or `--keep-going`; 1 some were not; 2 nothing was done.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from helpers.command import report_errors
from helpers.data.listing import list_images
from helpers.files import SuiteError, natural_key, resolve_path, show_path, write_whole
from helpers.serving.predictor import Predictor, load_predictor
from helpers.training.text import check_texts, join_texts

LISTED = 20  # unreadable files that are named at the end


def list_photos(places: Sequence[str]) -> list[str]:
    """Return the files that are named, and every image below the folders that are named.

    Raises:
        SuiteError: a place does not exist, or there is no image.
    """
    photos = []
    for place in map(Path, places):
        if not (os.path.isfile(place) or os.path.isdir(place)):  # noqa: PTH112, PTH113 (no name is too long)
            raise SuiteError(f"{place} does not exist. Name photos, or folders of them.")
        found = [place] if place.is_file() else sorted(
            list_images(place)[0], key=lambda path: natural_key(path.as_posix()))
        if not found:
            raise SuiteError(f"there is no image in {place}.")
        photos += map(str, found)
    return list(dict.fromkeys(photos))


def load_table_of_texts(path: Path, columns: list[str], photos: Sequence[str]) -> list[str]:
    """Return the text of each photo, empty where the table has none.

    Args:
        path: a CSV with a column `photo`, a file's path or its name, and the text's `columns`.

    Raises:
        SuiteError: it cannot be read, or lacks a column.
    """
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise SuiteError(f"{path} cannot be read as CSV ({error}).") from error
    if "photo" not in rows:
        raise SuiteError(f"{path} has no column 'photo'; it has: {', '.join(rows.columns)}.")
    check_texts(rows, columns, str(path))
    names = rows.photo.map(os.path.normpath)
    twice = names[names.duplicated()]
    if len(twice):
        raise SuiteError(f"{path} names {twice.iloc[0]} twice. Each photo needs one row; photos "
                         "of one name in several folders need their paths.")
    known = dict(zip(names, join_texts(rows, columns), strict=True))
    found = [known.get(os.path.normpath(photo), known.get(Path(photo).name)) for photo in photos]
    matched = sum(text is not None for text in found)
    if not matched:
        raise SuiteError(f"{path} names none of the photos, but e.g. {rows.photo.iloc[0]}.")
    print(f"{matched} of {len(photos)} photos have a row in {path}")
    return [text or "" for text in found]


def write_predictions(predictor: Predictor, photos: Sequence[str], target: Path,
                      texts: Sequence[str] | None = None) -> dict[str, str]:
    """Write what `Predictor.predict` returns, as it comes, and return what was refused, and why.

    The file appears when it is complete.
    """
    refused = {}
    with write_whole(target) as temporary, temporary.open("w", encoding="utf-8",
                                                          newline="") as stream:
        for number, part in enumerate(predictor.stream(photos, texts, progress=True)):
            part.to_csv(stream, index=False, header=number == 0)
            bad = part[part.refused != ""]
            refused |= dict(zip(bad.photo, bad.refused, strict=True))
    return refused


@report_errors
def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.serving.predict",
                                     description="Classify photos with a saved model.")
    parser.add_argument("photos", nargs="+", metavar="FOLDER_OR_FILE")
    parser.add_argument("--run", default="outputs/demo", metavar="outputs/RUN",
                        help="a run's folder, or that of a saved model")
    parser.add_argument("--out", default="predictions.csv", metavar="FILE.csv")
    parser.add_argument("--texts", metavar="FILE.csv",
                        help="for a model of photo and text: a column `photo`, and its texts")
    parser.add_argument("--keep-going", action="store_true",
                        help="exit with 0 although some photos could not be read")
    parser.add_argument("--engine", default="auto", help="auto, torch or openvino")
    parser.add_argument("--precision", default="float32", help="float32, bf16 or fp16")
    options = parser.parse_args(arguments)
    photos = list_photos(options.photos)
    predictor = load_predictor(options.run, options.engine, options.precision)
    columns = predictor.note["text_columns"]
    if options.texts and predictor.note["inputs"] != "both":
        raise SuiteError("this model takes photos only: leave out --texts.")
    texts = load_table_of_texts(Path(options.texts), columns, photos
                                ) if options.texts else None
    target = resolve_target(options.out)
    refused = write_predictions(predictor, photos, target, texts)
    print(f"{show_path(target)}: {len(photos) - len(refused)} photos classified, "
          f"{len(refused)} could not be read")
    for photo, reason in list(refused.items())[:LISTED]:
        tqdm.write(f"  {photo}: {reason}", file=sys.stderr)
    if len(refused) > LISTED:
        print(f"  … and {len(refused) - LISTED} more, in the column `refused`", file=sys.stderr)
    return 0 if options.keep_going or not refused else 1


def resolve_target(out: str) -> Path:
    """Return where the CSV goes; SuiteError if that is a folder."""
    target = Path.cwd() / out
    if target.is_dir():
        raise SuiteError(f"{show_path(resolve_path(target))} is a folder: name a file in it "
                         "(`--out predictions.csv`).")
    return target


if __name__ == "__main__":
    sys.exit(main())
