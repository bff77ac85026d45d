"""Inspection: every image opened once before it is used; the unreadable ones set aside."""

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
        `bytes` (of the file) and `reason` ("" if readable), in the table's order.
    """
    # Threads suffice: Pillow decodes outside Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(tqdm(pool.map(_inspect, table.path), total=len(table),
                         desc="inspecting", unit="image", mininterval=2))
    facts = pd.DataFrame(rows, columns=["width", "height", "bytes", "reason"], index=table.index)
    return table.join(facts.astype({"width": "Int64", "height": "Int64"}))


def set_aside(images: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part inspected images into the readable ones and the quarantine.

    Nothing in the data folder is moved or deleted: the quarantine is a list.

    Raises:
        SuiteError: not one image can be read.
    """
    bad = images.reason != ""
    if bad.all():
        raise SuiteError(
            f"none of the {len(images)} images can be read, e.g. {images.path.iloc[0]} "
            f"({images.reason.iloc[0]}). Check `data` in the recipe."
        )
    quarantine = images.loc[bad, ["image_id", "path", "label", "split", "reason"]]
    return images[~bad].drop(columns="reason"), quarantine


def _inspect(path: str) -> tuple:
    try:
        width, height = decode_image(path).size
        return width, height, resolve_path(path).stat().st_size, ""
    except UnreadableImageError as error:
        file = resolve_path(path)
        size = file.stat().st_size if file.is_file() else 0
        return None, None, size, str(error)
