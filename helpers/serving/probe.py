"""Probe: two drawn pictures saved with a model, and what it made of them where it was saved."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file

from helpers.files import SuiteError, show_path, write_whole
from helpers.network.preprocessing import create_geometry, create_normalisation
from helpers.serving.model_folder import PROBE, read_arrays
from helpers.serving.photos import PhotoReader

LEVELS, SHARE = 2, 0.02  # by which a machine's resized pixels may differ, and how many of them


def draw_probe() -> list[np.ndarray]:
    """Return two drawn pictures, (H, W, 3) uint8, the same everywhere: colours with noise."""
    generator, drawn = np.random.default_rng(0), []
    for height, width in ((240, 330), (401, 260)):
        few = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(few).resize((width, height), Image.BICUBIC), float)
        drawn.append((smooth + generator.integers(-30, 31, smooth.shape)).clip(0, 255).astype(
            np.uint8))
    return drawn


def save_probe(trunk, data_config: dict, folder: Path) -> int:
    """Write the pictures, their pixels and the network's outputs; return how many outputs."""
    photos = draw_probe()
    pixels = np.stack([create_geometry(data_config)(Image.fromarray(photo)) for photo in photos])
    with torch.inference_mode():  # eager float32 on the CPU, whatever answers later
        outputs = trunk(create_normalisation(data_config)(torch.from_numpy(pixels))).numpy()
    arrays = {f"photo_{number}": photo for number, photo in enumerate(photos)}
    with write_whole(folder / PROBE) as temporary:
        save_file(arrays | {"pixels": pixels, "outputs": outputs}, temporary)
    return outputs.shape[1]


def load_probe(folder: Path, reader: PhotoReader) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (pictures, H, W, 3) uint8 and outputs float32, once this machine agrees.

    Raises:
        SuiteError: this machine's libraries resize the pictures to other pixels.
    """
    probe = read_arrays(folder / PROBE)
    for number, expected in enumerate(probe["pixels"]):
        found = reader.read(Image.fromarray(probe[f"photo_{number}"])).astype(int)
        apart = np.abs(found - expected)
        if apart.max() > LEVELS or (apart > 0).mean() > SHARE:
            raise SuiteError(f"{show_path(folder)}: this machine's libraries resize photos in "
                             f"another way (by up to {apart.max()} of 255 levels). Install the "
                             "versions of constraints.txt.")
    return probe["pixels"], probe["outputs"]
