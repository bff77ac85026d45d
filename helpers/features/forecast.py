"""Forecast: what an extraction will cost, measured on a few images before it starts."""

import resource
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from helpers.features.engines import Engine, one_thread_each
from helpers.files import SuiteError, show_path
from helpers.processes import world

TRIED = 48  # images


def forecast_extraction(engine: Engine, files, place: Path) -> dict[str, float]:
    """Decode and compute a few images, and print what all of them will take.

    Args:
        files: `ImageFiles`, at least one.
        place: the folder that the features go to.

    Returns:
        Images per second of `decoding` and of the `network`, each by all of this process's
        workers alone, and of `both`; `minutes`, and MiB of `memory` and `disk`.

    Raises:
        SuiteError: the disk has too little room.
    """
    count, rows = min(TRIED, len(files)), len(files.paths)
    batch = np.zeros(engine.shape, np.uint8)
    batch[0] = files.read(0)  # what happens only once is not counted
    with one_thread_each():
        start = time.perf_counter()
        for number in range(count):
            batch[number % len(batch)] = files.read(number)
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
    minutes = len(files) / both / world() / 60
    row = engine.width * np.dtype(np.float32).itemsize
    disk = (rows + len(files)) * row / 2**20  # the shards, and what they are joined to
    free = shutil.disk_usage(place).free / 2**20
    copies = rows - len(files)
    print(f"{engine.name} in {engine.precision} on {engine.device}, {engine.workers} workers, "
          f"{engine.batch_size} images a batch: decodes {decoding:,.0f} and computes "
          f"{network:,.0f} images/s")
    print(f"{rows:,} images" + (f" ({copies} exact copies)" if copies else "")
          + f": about {_format_minutes(minutes)} at {both * world():,.0f} images/s, "
          f"{measure_peak():,.0f} MiB of memory, {disk:,.0f} MiB on the disk at most")
    if disk > free:
        raise SuiteError(f"the features need {disk:,.0f} MiB, {show_path(place)} has "
                         f"{free:,.0f}. Free some space, or send runs elsewhere with "
                         "SUITE_OUTPUTS.")
    return {"decoding": decoding, "network": network, "both": both, "minutes": minutes,
            "memory": measure_peak(), "disk": disk}


def measure_peak() -> float:
    """Return the most memory that this process has held so far, in MiB."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:  # getrusage would count the parent's memory in a new process
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def _format_minutes(minutes: float) -> str:
    if minutes < 1.5:
        return f"{minutes * 60:.0f} seconds" if minutes * 60 > 1.5 else "a second"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
