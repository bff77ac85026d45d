"""Inspection: every image opened once before it is used; the unreadable ones set aside."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
from tqdm import tqdm

from helpers.errors import SuiteError
from helpers.files import resolve_path
from helpers.images import UnreadableImageError, decode_image


def inspect_images(table: pd.DataFrame) -> pd.DataFrame:
    """Decode every image of the table, to its last byte.

    Returns:
        The table with `width`, `height` (pixels after EXIF rotation; missing if unreadable),
        `bytes` and `sha256` (of the file) and `reason` ("" if readable), in the table's order.
    """
    # Threads suffice: Pillow decodes outside Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(tqdm(pool.map(_inspect, table.path), total=len(table),
                         desc="inspecting", unit="image", mininterval=2))
    facts = pd.DataFrame(rows, columns=["width", "height", "bytes", "sha256", "reason"],
                         index=table.index)
    return table.join(facts.astype({"width": "Int64", "height": "Int64"}))


def set_aside(images: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part inspected images into the readable ones and the quarantine.

    Nothing in the data folder is moved or deleted: the quarantine is a list.

    Raises:
        SuiteError: not one image can be read, or not one of some class.
    """
    bad = images.reason != ""
    if bad.all():
        raise SuiteError(
            f"none of the {len(images)} images can be read, e.g. {images.path.iloc[0]} "
            f"({images.reason.iloc[0]}). Check `data` in the recipe."
        )
    lost = set(images.label.dropna()) - set(images.label[~bad].dropna())
    if lost:
        raise SuiteError(
            f"no image of {len(lost)} classes can be read, e.g. of '{sorted(lost)[0]}' "
            f"({images.reason[images.label == sorted(lost)[0]].iloc[0]}). Repair the files, or "
            "take the class out of the data."
        )
    quarantine = images.loc[bad, ["image_id", "path", "label", "split", "reason"]]
    return images[~bad].drop(columns="reason"), quarantine


def _inspect(path: str) -> tuple:
    file = resolve_path(path)
    content = file.read_bytes() if file.is_file() else b""
    facts = len(content), hashlib.sha256(content).hexdigest()
    try:
        return *decode_image(path).size, *facts, ""
    except UnreadableImageError as error:
        return None, None, *facts, str(error)
