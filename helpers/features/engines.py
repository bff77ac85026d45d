"""Engines: what runs the frozen network, torch or OpenVINO, behind one call.

Both take resized pixels as they are, (batch, H, W, 3) uint8: the normalisation is the network's
first step, so four times fewer bytes travel and no core is spent on it. On a CPU each worker
thread computes whole batches on one core, because one core's sums need no waiting for another's.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from helpers.data.images import decode_image
from helpers.features.openvino_engine import compile_network
from helpers.files import SuiteError
from helpers.network.pixels import read_batch
from helpers.network.preprocessing import create_normalisation, create_preprocessing
from helpers.processes import count_cores
from helpers.settings import Recipe

PIXELS_AT_ONCE = {"cpu": 4 * 224 * 224, "cuda": 128 * 224 * 224}  # what the caches, a GPU like
MAX_BATCH = {"cpu": 128, "cuda": 1024}
MAX_WORKERS = 16  # processes beside a GPU
COMPARED = 32  # images, at most, on which an engine is compared with eager torch
EXACT = 1e-5  # OpenVINO's float32 may differ so much from torch's, relative to the largest
TOLERANCE = {"float32": 1e-3, "bf16": 0.5, "fp16": 0.1}  # more is no rounding, but a mistake


@dataclass
class Engine:
    """A frozen network, ready: `compute` takes pixels and may be called from every worker."""

    name: str  # torch or openvino
    device: str  # cpu, or the GPU's name
    compute: Callable  # (batch, H, W, 3) uint8 to (batch, features) float32
    width: int  # features of an image
    precision: str  # float32, bf16 or fp16
    workers: int
    shape: tuple[int, int, int, int]  # of a batch of pixels: batch, H, W, 3
    difference: float = 0.0  # largest, from eager float32, relative to the largest feature

    @property
    def batch_size(self) -> int:
        """Images in a batch."""
        return self.shape[0]


class DiffersError(SuiteError):
    """An engine computes something else than eager torch."""


def create_engine(model, data_config: dict, recipe: Recipe, paths: list[str]) -> Engine:
    """Make the engine that the recipe asks for, and compare it with eager float32 torch.

    `auto` is torch on a GPU and OpenVINO on a CPU; a network that OpenVINO cannot take, or
    computes otherwise than torch, runs on torch, and a line says so.

    Args:
        model: from `create_backbone`; the engine owns it from here on.
        paths: images to compare on; the first batch is used, at most 32 of it.

    Raises:
        SuiteError: the machine lacks the precision, or OpenVINO is asked for by name and cannot.
    """
    import torch

    paths = paths[: min(choose_batch(recipe, data_config, choose_device(recipe)), COMPARED)]
    pixels = read_batch(paths, data_config)
    # The plain way, by Pillow and eager torch: decoding is compared as well.
    prepare = create_preprocessing(data_config)
    with torch.inference_mode():
        exact = np.concatenate([model.cpu()(prepare(decode_image(path))[None]).numpy()
                                for path in paths])
    return build_engine(model, data_config, recipe, pixels, exact)


def build_engine(model, data_config: dict, recipe: Recipe, pixels: np.ndarray,
                 exact: np.ndarray) -> Engine:
    """Make the engine that the recipe asks for, and compare it with what is known already.

    Args:
        model: as in `create_engine`, which says the rest.
        pixels: (images, H, W, 3) uint8, no more than a batch.
        exact: (images, features) float32, what eager torch makes of them.
    """
    import torch

    wanted, kind = recipe.features.engine, choose_device(recipe)
    on_torch = wanted == "torch" or kind == "cuda"
    options = {"precision": recipe.features.precision, "workers": count_workers(recipe, kind),
               "shape": (choose_batch(recipe, data_config, kind),
                         *data_config["input_size"][1:], 3)}
    width = exact.shape[1]
    if not on_torch:
        try:
            compute = compile_network(model, data_config, **options)
            return _compare(Engine("openvino", "cpu", compute, width, **options), pixels, exact)
        except SuiteError as error:
            if wanted == "openvino" or not isinstance(error, DiffersError):
                raise
            reason = error
        except Exception as error:  # converting raises whatever an operation stumbles over
            reason = f"{type(error).__name__}: {str(error).strip()[:200].partition(chr(10))[0]}"
            if wanted == "openvino":
                raise SuiteError(f"OpenVINO cannot convert {recipe.network.backbone} ({reason}). "
                                 "Set `engine: torch`.") from error
        print(f"torch computes {recipe.network.backbone}, more slowly: {reason}")
    device = torch.device(kind, int(os.environ.get("LOCAL_RANK", 0)) if kind == "cuda" else None)
    compute = _prepare_torch(model, data_config, device, recipe.features.precision)
    name = torch.cuda.get_device_name(device) if kind == "cuda" else "cpu"
    return _compare(Engine("torch", name, compute, width, **options), pixels, exact)


def _compare(engine: Engine, pixels: np.ndarray, exact: np.ndarray) -> Engine:
    batch = np.zeros(engine.shape, np.uint8)
    pixels, exact = pixels[: len(batch)], exact[: len(batch)]
    batch[: len(pixels)] = pixels
    found = engine.compute(batch)[: len(pixels)]
    if not np.isfinite(found).all():
        raise DiffersError(f"{engine.name} in {engine.precision} gives features that are no "
                            "numbers; set `precision: float32`, or look at the `weights`.")
    largest = float(np.abs(exact).max())
    engine.difference = float(np.abs(found - exact).max()) / (largest or 1.0)
    exactly = engine.name == "openvino" and engine.precision == "float32"
    if not engine.difference <= (EXACT if exactly else TOLERANCE[engine.precision]):
        raise DiffersError(f"{engine.name} in {engine.precision} gives features that differ "
                            f"from eager float32 torch by {engine.difference:.1g} of the largest "
                            "one; set `engine: torch` and `precision: float32`.")
    return engine


def choose_device(recipe: Recipe) -> str:
    """Return `cuda` where there is a GPU and torch may compute, else `cpu`."""
    import torch

    gpu = recipe.features.engine != "openvino" and torch.cuda.is_available()
    return "cuda" if gpu else "cpu"


def count_workers(recipe: Recipe, device: str) -> int:
    """Return how many threads, or processes beside a GPU, work side by side."""
    if recipe.features.workers:
        return recipe.features.workers
    cores = count_cores()
    # torchrun says how many processes share this machine.
    share = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    return min(share, MAX_WORKERS) if device == "cuda" else share


def choose_batch(recipe: Recipe, data_config: dict, device: str) -> int:
    """Return the recipe's batch size, or what suits the device and the images' size."""
    if recipe.features.batch_size:
        return recipe.features.batch_size
    _, height, width = data_config["input_size"]
    # Numbers of half the size: twice the images in the same caches and memory.
    pixels = PIXELS_AT_ONCE[device] * (2 if recipe.features.precision != "float32" else 1)
    return min(MAX_BATCH[device], max(1, round(pixels / (height * width))))


def _prepare_torch(model, data_config: dict, device, precision: str) -> Callable:
    import torch

    cuda = device.type == "cuda"
    if cuda and precision == "bf16" and not torch.cuda.is_bf16_supported(
            including_emulation=False):
        raise SuiteError("this GPU does not compute in bf16: set `precision` to `fp16` or "
                         "`float32`.")
    model = model.to(device, memory_format=torch.channels_last)
    normalise = create_normalisation(data_config)
    dtype = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]

    alone = threading.Lock() if cuda else contextlib.nullcontext()  # the flags are the process's

    def compute(pixels):
        # TF32 is not float32, and cuDNN's choice by a race would not resume to the same bytes.
        exactly = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True,
            allow_tf32=False) if cuda else contextlib.nullcontext()
        rounded = torch.autocast(device.type, dtype, enabled=dtype is not None)
        with alone, torch.inference_mode(), exactly, rounded:
            batch = torch.from_numpy(pixels).to(device, non_blocking=True)
            return model(normalise(batch)).float().cpu().numpy()

    return compute


@contextlib.contextmanager
def one_thread_each():
    """Keep torch from taking all cores for each worker; they are taken already."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
