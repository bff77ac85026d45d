"""Activations: what frozen layers make of each image, computed once by the engine of extraction.

They are shared by all folds and experiments whose cut is the same. Their folder begins with a
dot: they are large, quickly made again, and do not go to Drive.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from helpers.features.engines import create_engine
from helpers.features.store import describe_network
from helpers.features.streaming import record_file, stream_features
from helpers.files import load_json, make_folder
from helpers.network.layers import Trunk
from helpers.processes import wait_for_all
from helpers.settings import Recipe
from helpers.training.loaders import IN_MEMORY, Images

PLACE = ".activations"
OF_THE_DISK = 0.5  # that is free, at most


def load_activations(trunk: Trunk, images: Images, rows: pd.DataFrame, recipe: Recipe,
                     measured: dict | None, folder: Path,
                     progress: bool = True) -> np.ndarray | None:
    """Return the activations of all images at a cut, (images, values) float32.

    Args:
        rows: the table's rows of `images`.
        measured: as in `resolve_data_config`.
        folder: of the run.

    Returns:
        None, and a line that says why, where the disk has too little room for them.
    """
    text = "".join(f"{digest}\n" for digest in rows.sha256)
    description = describe_network(recipe, measured) | {
        "cut": trunk.boundary, "shape": list(trunk.shape),
        "images": f"{len(rows)}, {hashlib.sha256(text.encode()).hexdigest()[:16]}"}
    name = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
    target = make_folder(folder / PLACE) / f"activations_{name}.npy"
    record = record_file(target)
    done = target.exists() and record.exists() and load_json(record)["description"] == description
    size = 2 * 4 * len(images.files) * int(np.prod(trunk.shape))  # in shards, then joined
    if not done and size > OF_THE_DISK * shutil.disk_usage(folder).free:
        print(f"activations at {trunk.boundary} would take {size / 2**20:,.0f} MiB of the disk: "
              "each epoch computes them anew")
        return None
    wait_for_all()
    if not done:
        engine = create_engine(trunk, images.files.data_config, recipe, rows.path.tolist())
        stream_features(engine, images.files, target, description, folder, progress)
    activations = np.load(target, mmap_mode="r", allow_pickle=False)
    fits = activations.nbytes < IN_MEMORY * psutil.virtual_memory().available
    return np.asarray(activations).copy() if fits else activations
