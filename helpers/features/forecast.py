"""Forecast: what an extraction will cost, measured on a few images before it starts."""

import re
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


def forecast_extraction(engine: Engine, files, place: Path) -> None:
    """Decode and compute a few images, and print what all of them will take.

    Args:
        files: `ImageFiles`, at least one.
        place: the folder that the features go to.

    Raises:
        SuiteError: the disk has too little room.
    """
    tried, images = min(TRIED, len(files)), len(files.paths)
    batch = files.read_batch([0], engine.shape)  # what happens only once is not counted
    # Every worker of a CPU computes; a GPU is given one batch after the other.
    threads = engine.workers if engine.device == "cpu" else 1
    with one_thread_each(), ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        for number in range(tried):
            batch[number % len(batch)] = files.read(number)
        decoding = engine.workers * tried / (time.perf_counter() - start)
        batches = [batch] * max(threads, 4)
        list(pool.map(engine.compute, batches))
        start = time.perf_counter()
        list(pool.map(engine.compute, batches))
        network = len(batches) * len(batch) / (time.perf_counter() - start)
    # On a CPU both share the cores; a GPU computes while the CPU decodes.
    shared = 1 / (1 / decoding + 1 / network)
    rate = world() * (shared if engine.device == "cpu" else min(decoding, network))
    values = (images + len(files)) * engine.width  # in the shards, and what they are joined to
    disk = values * np.dtype(np.float32).itemsize / 2**20
    # What is to be continued is there already, or makes way.
    there = sum(path.stat().st_size for path in place.glob("*.shards/*.npz"))
    free = (shutil.disk_usage(place).free + there) / 2**20
    copies = images - len(files)
    print(f"{engine.name} in {engine.precision} on {engine.device}, {engine.workers} workers, "
          f"{engine.batch_size} images a batch: decodes {decoding:,.0f} and computes "
          f"{network:,.0f} images/s")
    print(f"{images:,} images" + (f" ({copies} exact copies)" if copies else "")
          + f": about {format_minutes(len(files) / rate / 60)} at {rate:,.0f} images/s, "
          f"{measure_peak():,.0f} MiB of memory, {disk:,.0f} MiB on the disk at most")
    if disk > free:
        raise SuiteError(f"the features need {disk:,.0f} MiB, {show_path(place)} has "
                         f"{free:,.0f}. Free some space, or send runs elsewhere with "
                         "SUITE_OUTPUTS.")


def measure_peak() -> float:
    """Return the most memory that this process has held so far, in MiB."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+)", status.read_text()) if status.exists() else None
    if found:  # getrusage would count the parent's memory in a new process
        return int(found[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def format_minutes(minutes: float) -> str:
    """Say a duration in words."""
    if minutes < 1.5:
        return f"{minutes * 60:.0f} seconds" if minutes * 60 > 1.5 else "a second"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
