"""Streaming: images through an engine into an `.npy`, row by row, resumable, by many at once.

On a CPU each worker thread decodes a batch, computes it and writes its rows in place; nothing
waits for anything else, and no more than a batch a worker is in memory. Beside a GPU worker
processes decode. Beside the growing file lies one
byte for each batch that is done, so any later run, of one process or of several, continues at
what is missing. A batch always holds the same images, so its rows are the same bytes whoever
computes it, and when.
"""

import contextlib
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.engines import Engine
from helpers.errors import SuiteError
from helpers.features import describe_changes, load_progress, progress_file
from helpers.files import reserve_array, save_json, show_path, write_whole
from helpers.pixels import PixelReader, read_file
from helpers.processes import RANK, WORLD, gather, wait_for_all

LOOK_EVERY_S = 0.5  # at the progress; more often would cost the workers their cores
BLOCK = 1024  # files that wait to be checked
SAVE_EVERY_S = 5.0  # a killed run repeats at most this much work


class ImageRows:
    """The images behind an array of features: where each is, and which are the same file.

    Args:
        rows: with `path`, and `sha256` of the content where files are to be checked and exact
            copies computed once.
        cached: (images, H, W, 3) uint8 as from `build_cache`; nothing is decoded any more.
    """

    def __init__(self, rows: pd.DataFrame, data_config: dict, cached: np.ndarray | None = None):
        self.paths, self.data_config, self.cached = rows.path.tolist(), data_config, cached
        self.hashes = rows.sha256.tolist() if "sha256" in rows else [None] * len(rows)
        codes = (pd.factorize(rows.sha256, use_na_sentinel=False)[0] if "sha256" in rows
                 else np.arange(len(rows)))
        by_file = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[by_file], prepend=-1))
        self.places = np.split(by_file, starts[1:]) if len(rows) else []

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, reader: PixelReader, number: int, out: np.ndarray) -> None:
        """Put the pixels of distinct image `number` into `out`."""
        row, *copies = self.places[number]
        if self.cached is not None:
            out[:] = self.cached[row]
            return
        reader.read(self.paths[row], out, self.hashes[row])
        for copy in copies:  # still copies?
            read_file(self.paths[copy], self.hashes[copy])

    def check(self) -> None:
        """Raise SuiteError if a file is not the one that was inspected any more.

        For rows that are kept, not computed: those check their files as they read them.
        """
        def check(row: int) -> None:
            read_file(self.paths[row], self.hashes[row])

        with ThreadPoolExecutor() as pool:
            for start in range(0, len(self), BLOCK):
                list(pool.map(check, range(start, min(start + BLOCK, len(self)))))


class _Batches:
    """The batches of an extraction's pixels; a torch dataset, and what each thread reads with."""

    def __init__(self, images: ImageRows, shape: tuple[int, int, int, int]):
        self.images, self.shape, self.reader, self.pixels = images, shape, None, None

    def read(self, batch: int) -> np.ndarray:
        """Return a batch's pixels, in memory that the next batch takes over."""
        if self.reader is None:
            self.reader = PixelReader(self.images.data_config)
            self.pixels = np.zeros(self.shape, np.uint8)
        numbers = _number_images(batch, self.shape[0], self.images)
        for slot, number in enumerate(numbers):
            self.images.read(self.reader, number, self.pixels[slot])
        self.pixels[len(numbers):] = 0
        return self.pixels

    def __getitem__(self, batch: int):
        import torch

        try:
            # A copy: it is sent while the next batch is read.
            return torch.from_numpy(self.read(batch).copy())
        except SuiteError as error:  # torch would wrap it into a worker's stack
            return str(error)


def _number_images(batch: int, size: int, images: ImageRows) -> range:
    """Return the numbers of the distinct images in a batch; the last one may hold fewer."""
    return range(batch * size, min((batch + 1) * size, len(images.places)))


def stream_features(engine: Engine, images: ImageRows, target: Path, fingerprint: dict) -> None:
    """Fill `target`, an `.npy` of (images, features) float32, and write the record beside it.

    Every process of a torchrun takes its share of what is missing; the first one gives the file
    its name when all are done.

    Raises:
        SuiteError: an image that cannot be read or has changed, features that are no numbers,
            a full disk. What was done until then is kept.
    """
    job = _Job(engine, images, target, fingerprint)
    job.prepare()
    missing = np.flatnonzero(job.marks == 0)
    wait_for_all()  # nobody marks anything before all have seen what is missing
    try:
        job.fill(missing[RANK::WORLD].tolist())
    finally:
        job.save()
        os.close(job.file)
    job.finish()


class _Job:
    """One array on its way: the growing file, its marks, and the record of how it is made."""

    def __init__(self, engine: Engine, images: ImageRows, target: Path, fingerprint: dict):
        self.engine, self.images, self.target = engine, images, target
        self.partial = target.with_name(f".{target.name}.partial")
        self.marks_file = target.with_name(f".{target.name}.marks")
        self.how = {"fingerprint": fingerprint, "engine": engine.name, "device": engine.device,
                    "batch_size": engine.batch_size}
        self.batches = -(-len(images.places) // engine.batch_size)
        self.seconds, self.computed = 0.0, []

    def prepare(self) -> None:
        """Continue what an earlier run has left of the same features, or start anew."""
        before = load_progress(self.target)
        then = {key: before.get(key) for key in self.how}
        left = self.partial.exists() and self.marks_file.exists()
        wait_for_all()
        if then == self.how and left and not before["complete"]:
            self.seconds = before["seconds"]
            self.images.check()
        elif RANK == 0:
            if before and then != self.how:
                print(f"{self.target.name} is computed anew: {describe_changes(then, self.how)}")
            # From here on nothing vouches for an older array, or for another's partial one.
            progress_file(self.target).unlink(missing_ok=True)
            reserve_array(self.partial, (len(self.images), self.engine.width), np.float32)
            with write_whole(self.marks_file) as temporary:
                temporary.write_bytes(bytes(max(self.batches, 1)))
            self.record(complete=False)
        wait_for_all()
        self.marked = np.memmap(self.marks_file, np.uint8, "r+")
        self.marks = self.marked[: self.batches]
        self.offset = np.load(self.partial, mmap_mode="r").offset
        self.file = os.open(self.partial, os.O_RDWR)
        self.identity = os.fstat(self.file)
        self.last = time.monotonic()

    def fill(self, missing: list[int]) -> None:
        """Compute the missing batches, as many at a time as there are workers."""
        count, size = len(self.images.places), self.engine.batch_size
        before = min(count, int(np.count_nonzero(self.marks)) * size)
        name = f"{self.target.stem} ({WORLD} processes)" if WORLD > 1 else self.target.stem
        work = self.fill_by_threads if self.engine.device == "cpu" else self.fill_from_loader
        with tqdm(total=count, initial=before, desc=name, unit="image", mininterval=1,
                  disable=RANK > 0) as bar:
            for _ in work(missing):
                bar.update(min(count, before + len(self.computed) * size * WORLD) - bar.n)
                if time.monotonic() - self.last > SAVE_EVERY_S:
                    self.save()

    def fill_by_threads(self, missing: list[int]) -> Iterator[None]:
        """Let each thread decode, compute and write whole batches; yield now and then."""
        waiting = deque(missing)

        def work() -> None:
            batches = _Batches(self.images, self.engine.shape)
            while (batch := _take(waiting)) is not None:
                self.write(batch, self.engine.compute(batches.read(batch)))

        with one_thread_each(), ThreadPoolExecutor(self.engine.workers) as pool:
            running = {pool.submit(work) for _ in range(self.engine.workers)}
            try:
                while running:
                    done, running = wait(running, LOOK_EVERY_S, FIRST_EXCEPTION)
                    yield
                    for worker in done:
                        worker.result()
            finally:
                waiting.clear()

    def fill_from_loader(self, missing: list[int]) -> Iterator[None]:
        """Compute and write what worker processes decode; yield after each batch.

        For a GPU: it waits for one thread of Python alone, and many threads that decode would
        keep that one from its turn.
        """
        import torch
        from torch.utils.data import DataLoader

        loader = DataLoader(_Batches(self.images, self.engine.shape), batch_size=None,
                            sampler=missing, pin_memory=torch.cuda.is_available(),
                            num_workers=min(self.engine.workers, len(missing)))
        for batch, pixels in zip(missing, loader, strict=True):
            if isinstance(pixels, str):
                raise SuiteError(pixels)
            self.write(batch, self.engine.compute(pixels.numpy()))
            yield

    def write(self, batch: int, values: np.ndarray) -> None:
        """Put the rows of one batch into their places in the file."""
        numbers = _number_images(batch, self.engine.batch_size, self.images)
        finite = np.isfinite(values[: len(numbers)]).all(axis=1)
        if not finite.all():
            row = self.images.places[numbers[int(np.argmin(finite))]][0]
            raise SuiteError(f"the features of {show_path(self.images.paths[row])} are no "
                             "numbers: set `precision: float32`, or look at the `weights`.")
        for number, value in zip(numbers, values, strict=False):
            for row in self.images.places[number]:
                self.write_row(value, int(row))
        self.computed.append(batch)

    def write_row(self, value: np.ndarray, row: int) -> None:
        """Put one row into its place in the file."""
        try:
            written = os.pwrite(self.file, value, self.offset + row * value.nbytes)
        except OSError as error:
            raise SuiteError(f"cannot write {show_path(self.partial)} ({error.strerror}). Free "
                             "some space, and run again.") from error
        if written != value.nbytes:
            raise SuiteError(f"{show_path(self.partial)} could not be written in full. Free some "
                             "space, and run again.")

    def save(self) -> None:
        """Mark what is computed, once its rows are safely on the disk."""
        computed, now = list(self.computed), time.monotonic()
        os.fsync(self.file)
        self.marks[computed] = 1
        self.marked.flush()
        self.seconds, self.last = self.seconds + now - self.last, now
        if RANK == 0:
            self.record(complete=False)

    def finish(self) -> None:
        """Give the file its name when every process has done its share."""
        peaks = gather(measure_peak())
        if RANK == 0:
            if not self.marks.all():
                raise SuiteError(f"{show_path(self.partial)} lacks rows: run again.")
            if self.partial.exists() and os.path.samestat(self.identity, self.partial.stat()):
                self.partial.replace(self.target)
            elif not os.path.samestat(self.identity, self.target.stat()):
                raise SuiteError(f"another run has started to make {show_path(self.target)} "
                                 "anew meanwhile: let only one at a time.")
            self.record(complete=True, rows=len(self.images), computed=len(self.images.places),
                        processes=WORLD, peak_memory_mb=round(max(peaks)),
                        precision=self.engine.precision,
                        max_relative_difference=self.engine.difference)
            self.marks_file.unlink(missing_ok=True)
        wait_for_all()

    def record(self, **facts) -> None:
        """Write how the array is made and how far it is."""
        save_json(self.how | {"seconds": round(self.seconds, 2)} | facts,
                  progress_file(self.target))


def _take(waiting: deque) -> int | None:
    """Return the next batch's number; None if another worker took the last one."""
    try:
        return waiting.popleft()
    except IndexError:
        return None


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


def measure_peak() -> float:
    """Return the most memory that this process has held so far, in MiB."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:  # getrusage would count the parent's memory in a new process
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)
