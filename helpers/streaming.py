"""Streaming: images through an engine into an `.npy`, row by row, resumable, by many at once.

On a CPU each worker thread decodes a batch, computes it and writes its rows in place; nothing
waits for anything else, and no more than a batch a worker is in memory. Beside a GPU worker
processes decode.
"""

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers.batches import Batches, ImageRows
from helpers.engines import Engine
from helpers.errors import SuiteError
from helpers.files import show_path
from helpers.processes import RANK, WORLD, gather, measure_peak, wait_for_all
from helpers.progress import GrowingArray

LOOK_EVERY_S = 0.5  # at the progress; more often would cost the workers their cores
SAVE_EVERY_S = 5.0  # a killed run repeats at most this much work


def stream_features(engine: Engine, images: ImageRows, target: Path, fingerprint: dict) -> None:
    """Fill `target`, an `.npy` of (images, features) float32, and write the record beside it.

    Every process of a torchrun takes its share of what is missing; the first one gives the file
    its name when all are done.

    Raises:
        SuiteError: an image that cannot be read or has changed, features that are no numbers,
            a full disk. What was done until then is kept.
    """
    batches = Batches(images, engine.shape)
    how = {"fingerprint": fingerprint, "engine": engine.name, "device": engine.device,
           "batch_size": engine.batch_size, "engine_version": version(engine.name)}
    array = GrowingArray(target, (len(images), engine.width), len(batches), how)
    continues = array.open()
    try:
        done, missing = np.flatnonzero(array.marks), np.flatnonzero(array.marks == 0)
        if continues:
            images.check(number for batch in done[RANK::WORLD]
                         for number in batches.numbers(batch))
        wait_for_all()  # nobody marks anything before all have seen what is missing
        array.start_clock()
        _fill(array, engine, batches, missing[RANK::WORLD].tolist())
    finally:
        array.close()
    peaks, seconds = zip(*gather((measure_peak(), array.seconds)), strict=True)
    array.finish(computed=len(images.places), peak_memory_mb=round(max(peaks)),
                 seconds=round(max(seconds), 2), precision=engine.precision,
                 max_relative_difference=engine.difference)


def _fill(array: GrowingArray, engine: Engine, batches: Batches, missing: list[int]) -> None:
    """Compute the missing batches; show how far it is and save it now and then."""
    count = len(batches.images.places)
    before = min(count, int(np.count_nonzero(array.marks)) * engine.batch_size)
    name = f"{array.target.stem} ({WORLD} processes)" if WORLD > 1 else array.target.stem
    work = _compute_by_threads if engine.device == "cpu" else _compute_from_loader
    with tqdm(total=count, initial=before, desc=name, unit="image", mininterval=1,
              disable=RANK > 0) as bar:
        for _ in work(array, engine, batches, missing):
            done = before + len(array.computed) * engine.batch_size * WORLD
            bar.update(min(count, done) - bar.n)
            if time.monotonic() - array.last_save > SAVE_EVERY_S:
                array.save()


def _compute_by_threads(array: GrowingArray, engine: Engine, batches: Batches,
                        missing: list[int]) -> Iterator[None]:
    """Let each thread decode, compute and write whole batches; yield now and then."""
    waiting = deque(missing)

    def work() -> None:
        own = Batches(batches.images, batches.shape)
        while (batch := _take(waiting)) is not None:
            _write(array, own, batch, engine.compute(own.read(batch)))

    with one_thread_each(), ThreadPoolExecutor(engine.workers) as pool:
        running = {pool.submit(work) for _ in range(engine.workers)}
        try:
            while running:
                done, running = wait(running, LOOK_EVERY_S, FIRST_EXCEPTION)
                yield
                for worker in done:
                    worker.result()
        finally:
            waiting.clear()


def _take(waiting: deque) -> int | None:
    """Return the next batch's number; None if another worker took the last one."""
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _compute_from_loader(array: GrowingArray, engine: Engine, batches: Batches,
                         missing: list[int]) -> Iterator[None]:
    """Compute and write what worker processes decode; yield after each batch.

    For a GPU: it waits for one thread of Python alone, and many threads that decode would keep
    that one from its turn.
    """
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(batches, batch_size=None, sampler=missing,
                        pin_memory=torch.cuda.is_available(),
                        num_workers=min(engine.workers, len(missing)))
    for batch, pixels in zip(missing, loader, strict=True):
        if isinstance(pixels, str):
            raise SuiteError(pixels)
        _write(array, batches, batch, engine.compute(pixels.numpy()))
        yield


def _write(array: GrowingArray, batches: Batches, batch: int, values: np.ndarray) -> None:
    """Put the rows of one batch, copies included, into the array."""
    places = [batches.images.places[number] for number in batches.numbers(batch)]
    rows, counts = np.concatenate(places), [len(place) for place in places]
    values = np.repeat(values[: len(places)], counts, axis=0)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        path = batches.images.paths[rows[np.argmin(finite)]]
        raise SuiteError(f"the features of {show_path(path)} are no numbers: set "
                         "`precision: float32`, or look at the `weights`.")
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of rows that follow each other
    for start, end in pairwise([*starts, len(rows)]):
        array.write(int(rows[start]), values[start:end])
    array.computed.append(batch)


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
