"""Cache: all images of a run resized once and kept as one memory-mapped array of uint8.

Worth its disk space when images are read many times, as in fine-tuning: decoding large photos
then happens once, not once an epoch and fold.
"""

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.errors import SuiteError
from helpers.features import fingerprint_images
from helpers.files import make_folder, reserve_array, save_json, show_path
from helpers.images import describe_preprocessing
from helpers.pixels import PixelReader
from helpers.progress import is_complete, progress_file

BLOCK = 1024  # images in flight


def build_cache(table: pd.DataFrame, data_config: dict, target: Path) -> np.ndarray:
    """Resize every image of the table into `target`, once, and return it as a memory map.

    The size is printed and the disk checked before anything is written.

    Returns:
        (images, H, W, 3) uint8, in the table's order, exactly what the network's
        preprocessing makes of each image before it becomes numbers.

    Raises:
        SuiteError: too little room on the disk, or an image that cannot be read or has changed.
    """
    _, height, width = data_config["input_size"]
    shape = (len(table), height, width, 3)
    # Numbers come after the cache: mean, deviation and normalisation do not matter here.
    pixels = describe_preprocessing(data_config | {"normalisation": "none"})
    fingerprint = {"images": fingerprint_images(table)} | {
        key: value for key, value in pixels.items() if key not in ("mean", "std")}
    if not is_complete(target, fingerprint):
        partial = target.with_name(f".{target.name}.partial")
        partial.unlink(missing_ok=True)  # it would count against the free space
        size = int(np.prod(shape)) / 2**20
        free = shutil.disk_usage(make_folder(target.parent)).free / 2**20
        print(f"{len(table)} images of {width} x {height} take {size:,.0f} MiB in "
              f"{show_path(target.parent)}; {free:,.0f} MiB are free")
        if size > free:
            raise SuiteError(f"the cache needs {size:,.0f} MiB, {show_path(target.parent)} has "
                             f"{free:,.0f}. Set `cache: false`, or a smaller `image_size`.")
        progress_file(target).unlink(missing_ok=True)
        images = reserve_array(partial, shape, np.uint8)
        paths, hashes, local = table.path.tolist(), table.sha256.tolist(), threading.local()

        def fill(row: int) -> None:
            if not hasattr(local, "reader"):
                local.reader = PixelReader(data_config)
            local.reader.read(paths[row], images[row], hashes[row])

        with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(
                total=len(table), desc="caching", unit="image", mininterval=2) as bar:
            for start in range(0, len(table), BLOCK):
                for _ in pool.map(fill, range(start, min(start + BLOCK, len(table)))):
                    bar.update()
        images.flush()
        partial.replace(target)
        save_json({"fingerprint": fingerprint, "rows": len(table), "complete": True},
                  progress_file(target))
    return np.load(target, mmap_mode="r", allow_pickle=False)
