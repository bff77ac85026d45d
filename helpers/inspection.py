"""Inspection: every image opened once before it is used; what is seen of it, in numbers.

One pass gives the header's facts, CleanVision's image properties (Apache-2.0, cleanlab 2022),
the sums behind the data set's own mean and standard deviation, and a thumbnail for the search
for copies. Pixels are measured on the image reduced to at most 128 pixels a side.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from helpers.files import resolve_path
from helpers.images import UnreadableImageError, decode_image, describe_file

THUMBNAIL = 64  # pixels a side, grey
MEASURED = 128  # pixels a side at most; enough for every property, and flat in cost
BLOCK = 256  # images in flight, and rows before they are packed: memory stays flat


def inspect_images(table: pd.DataFrame, thumbnails: Path | None = None) -> pd.DataFrame:
    """Decode every image of the table to its last byte and measure it.

    Args:
        table: with `path`.
        thumbnails: an `.npy` to fill, (images, 64, 64) uint8 in the table's order.

    Returns:
        The table with `bytes`, `sha256`, `reason` ("" if readable), and for readable images
        `width`, `height` (after EXIF rotation), `format`, `mode`, `rotated`, `transparent`,
        `animated`, `grey`, CleanVision's raw properties, and `mean_r` ... `square_b` (0 to 1).
    """
    store = None if thumbnails is None else np.lib.format.open_memmap(
        thumbnails, mode="w+", dtype=np.uint8, shape=(len(table), THUMBNAIL, THUMBNAIL))
    paths, blocks = table.path.tolist(), []
    # Threads suffice: Pillow decodes and resizes outside Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(
            total=len(table), desc="inspecting", unit="image", mininterval=2) as bar:
        for start in range(0, len(paths), BLOCK):
            rows = []
            for facts, thumbnail in pool.map(_inspect, paths[start : start + BLOCK]):
                if store is not None and thumbnail is not None:
                    store[start + len(rows)] = thumbnail
                rows.append(facts)
                bar.update()
            blocks.append(pd.DataFrame(rows))
    facts = pd.concat(blocks, ignore_index=True).set_index(table.index).round(5)
    for column in ("width", "height"):
        facts[column] = facts[column].astype("Int64") if column in facts else pd.NA
    return table.join(facts)


def _inspect(path: str) -> tuple[dict, np.ndarray | None]:
    file = resolve_path(path)
    content = file.read_bytes() if file.is_file() else b""
    facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "reason": ""}
    try:
        image = decode_image(path)
        facts |= describe_file(path)
    except UnreadableImageError as error:
        return facts | {"reason": str(error)}, None
    facts |= {"width": image.width, "height": image.height}
    small = image.reduce(max(1, -(-max(image.size) // MEASURED)))
    thumbnail = small.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    return facts | measure_image(small), np.asarray(thumbnail)


def measure_image(image: Image.Image) -> dict[str, float]:
    """Return CleanVision's properties, channel sums and greyness of one RGB image."""
    from cleanvision.issue_managers.image_property import (
        BlurrinessProperty,
        BrightnessProperty,
        EntropyProperty,
    )

    values = BrightnessProperty("dark").calculate(image)
    values |= EntropyProperty().calculate(image) | BlurrinessProperty().calculate(image)
    pixels = np.asarray(image, np.float32).reshape(-1, 3) / 255
    values["grey"] = bool(np.ptp(pixels, axis=1).max() < 0.05)
    for name, numbers in (("mean", pixels.mean(axis=0)), ("square", (pixels**2).mean(axis=0))):
        values |= {f"{name}_{c}": float(v) for c, v in zip("rgb", numbers, strict=True)}
    return values


def measure_normalisation(images: pd.DataFrame) -> tuple[tuple, tuple]:
    """Return mean and standard deviation of the data set's own pixels, (r, g, b) in 0 to 1.

    Each readable training image counts the same, whatever its size.
    """
    train = images[(images.split == "train") & (images.reason == "")]
    mean = train[["mean_r", "mean_g", "mean_b"]].mean().to_numpy()
    square = train[["square_r", "square_g", "square_b"]].mean().to_numpy()
    std = np.sqrt(np.maximum(square - mean**2, 1e-6))
    return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())
