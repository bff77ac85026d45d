"""Cache: all images of a run resized once and kept as one memory-mapped array of uint8.

Worth its disk space when images are read many times, as in fine-tuning: decoding large photos
then happens once, not once an epoch and fold.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.errors import SuiteError
from helpers.features import fingerprint_images, is_complete, progress_file
from helpers.files import make_folder, reserve_array, save_json, show_path
from helpers.images import create_geometry, decode_image


def build_cache(table: pd.DataFrame, data_config: dict, target: Path) -> np.ndarray:
    """Resize every image of the table into `target`, once, and return it as a memory map.

    The size is printed and the disk checked before anything is written.

    Returns:
        (images, H, W, 3) uint8, in the table's order, exactly what the network's
        preprocessing makes of each image before it becomes numbers.

    Raises:
        SuiteError: too little room on the disk.
    """
    _, height, width = data_config["input_size"]
    shape = (len(table), height, width, 3)
    geometry = {key: data_config[key] for key in
                ("input_size", "interpolation", "crop_pct", "crop_mode")}
    fingerprint = fingerprint_images(table, geometry)
    if not is_complete(target, fingerprint):
        size = int(np.prod(shape)) / 2**20
        free = shutil.disk_usage(make_folder(target.parent)).free / 2**20
        print(f"{len(table)} images of {width} x {height} take {size:,.0f} MiB in "
              f"{show_path(target.parent)}; {free:,.0f} MiB are free")
        if size > free:
            raise SuiteError(f"the cache needs {size:,.0f} MiB, {show_path(target.parent)} has "
                             f"{free:,.0f}. Set `cache: false`, or a smaller `image_size`.")
        progress_file(target).unlink(missing_ok=True)
        resize = create_geometry(data_config)
        partial = target.with_name(f".{target.name}.partial")
        images = reserve_array(partial, shape, np.uint8)
        for row, path in enumerate(tqdm(table.path, desc="caching", unit="image",
                                        mininterval=2)):
            images[row] = np.asarray(resize(decode_image(path)))
        images.flush()
        partial.replace(target)
        save_json({"fingerprint": fingerprint, "rows": len(table), "complete": True},
                  progress_file(target))
    return np.load(target, mmap_mode="r", allow_pickle=False)
