"""Estimate: what an extraction will cost, measured on a few images before it starts."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from helpers.batches import ImageRows
from helpers.engines import Engine
from helpers.pixels import PixelReader
from helpers.processes import WORLD, measure_peak
from helpers.streaming import one_thread_each

TRIED = 48  # images


def estimate_extraction(engine: Engine, images: ImageRows) -> dict[str, float]:
    """Decode and compute a few images, and print what all of them will take.

    Returns:
        Images per second of `decoding` and of the `network`, each by all of this process's
        workers alone, and of `both`; `minutes`, and MiB of `memory` and `disk`.
    """
    count = min(TRIED, len(images.places))
    reader, batch = PixelReader(images.data_config), np.zeros(engine.shape, np.uint8)
    images.read(reader, 0, batch[0])  # what happens only once is not counted
    start = time.perf_counter()
    for number in range(count):
        images.read(reader, number, batch[number % len(batch)])
    decoding = engine.workers * count / (time.perf_counter() - start)
    # Every worker of a CPU computes; a GPU is given one batch after the other.
    threads = engine.workers if engine.device == "cpu" else 1
    batches = [batch] * max(threads, 4)
    with one_thread_each(), ThreadPoolExecutor(threads) as pool:
        list(pool.map(engine.compute, batches))
        start = time.perf_counter()
        list(pool.map(engine.compute, batches))
    network = len(batches) * len(batch) / (time.perf_counter() - start)
    # On a CPU both share the cores; a GPU computes while the CPU decodes.
    both = 1 / (1 / decoding + 1 / network) if engine.device == "cpu" else min(
        decoding, network)
    minutes = len(images.places) / both / WORLD / 60
    disk = len(images) * engine.width * np.dtype(np.float32).itemsize / 2**20
    copies = len(images) - len(images.places)
    print(f"{engine.name} in {engine.precision} on {engine.device}, {engine.workers} workers, "
          f"{engine.batch_size} images a batch: decodes {decoding:,.0f} and computes "
          f"{network:,.0f} images/s")
    print(f"{len(images):,} images" + (f" ({copies} exact copies)" if copies else "")
          + f": about {_say(minutes)} at {both * WORLD:,.0f} images/s, "
          f"{measure_peak():,.0f} MiB of memory, {disk:,.0f} MiB on the disk")
    return {"decoding": decoding, "network": network, "both": both, "minutes": minutes,
            "memory": measure_peak(), "disk": disk}


def _say(minutes: float) -> str:
    if minutes < 1.5:
        return f"{minutes * 60:.0f} seconds" if minutes * 60 > 1.5 else "a second"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
