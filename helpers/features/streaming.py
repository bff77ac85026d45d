"""Streaming: images through an engine into an `.npy`, in shards, resumable, by many at once.

On a CPU each worker thread decodes a batch and computes it; beside a GPU worker processes decode.
Results come in the order of the images, and no more than a shard of them is in memory.
"""

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.colab import copy_part
from helpers.data.images import read_file
from helpers.features.engines import Engine, one_thread_each
from helpers.features.forecast import measure_peak
from helpers.files import SuiteError, save_json, show_path, write_whole
from helpers.network.pixels import read_pixels
from helpers.network.preprocessing import create_geometry
from helpers.processes import gather, rank, wait_for_all, world
from helpers.resuming import Shards, choose_rows
from helpers.versions import describe_versions

AHEAD = 4  # batches a worker that may wait for an earlier one
CHECKED = 1024  # files that wait to be checked


class ImageFiles:
    """The distinct files behind the rows of a table; exact copies are computed once.

    Args:
        rows: with `path`, and `sha256` of the content where files are to be checked and copies
            found.
    """

    def __init__(self, rows: pd.DataFrame, data_config: dict):
        self.paths, self.data_config, self.geometry = rows.path.tolist(), data_config, None
        self.refused = {}  # none ever: what cannot be read stops an extraction
        hashed = "sha256" in rows
        self.hashes = rows.sha256.tolist() if hashed else [None] * len(rows)
        codes = pd.factorize(rows.sha256)[0] if hashed else np.arange(len(rows))
        by_file = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes))
        self.places = np.split(by_file, ends[:-1]) if len(rows) else []  # rows of each file

    def __len__(self) -> int:
        return len(self.places)

    def read(self, number: int) -> np.ndarray:
        """Return the resized pixels of one file, (H, W, 3) uint8.

        Raises:
            SuiteError: it, or a copy of it, cannot be read or has changed.
        """
        # Not earlier: a worker process makes its own.
        self.geometry = self.geometry or create_geometry(self.data_config)
        row, *copies = self.places[number]
        for copy in copies:  # still copies?
            read_file(self.paths[copy], self.hashes[copy])
        return read_pixels(self.paths[row], self.geometry, self.hashes[row])

    def read_batch(self, numbers: Iterable[int], shape: tuple) -> np.ndarray:
        """Return a batch of `shape`: the pixels of some files, then zeros."""
        pixels = np.zeros(shape, np.uint8)
        for slot, number in enumerate(numbers):
            pixels[slot] = self.read(number)
        return pixels

    def check(self, numbers: Iterable[int]) -> None:
        """Raise SuiteError if one of these files has changed since it was inspected.

        For files whose features are kept, not computed: those are checked as they are read.
        """
        rows = [row for number in numbers for row in self.places[number]]
        with ThreadPoolExecutor() as pool:
            for part in split_numbers(rows, CHECKED):
                list(pool.map(lambda row: read_file(self.paths[row], self.hashes[row]), part))


def split_numbers(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    """Return numbers in parts of `size`; the last may be shorter."""
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def record_file(target: Path) -> Path:
    """Return the file beside an array that says from what and how it was made."""
    return target.with_suffix(".json")


def stream_features(engine: Engine, files: ImageFiles, target: Path, description: dict,
                    run_folder: Path | None = None, progress: bool = True) -> None:
    """Fill `target`, an `.npy` of (images, features) float32, and write the record beside it.

    Every process of a torchrun computes its share of the missing shards; the first joins them.

    Args:
        description: what the features mean; it goes into the record.
        run_folder: the run's, if `target` lies deeper.
        progress: show a bar.

    Raises:
        SuiteError: an image that cannot be read or has changed, features that are no numbers,
            a full disk. The shards that were done until then are kept.
    """
    size = choose_rows(len(files), engine.batch_size)
    origin = {"description": description, "engine": engine.name, "device": engine.device,
              "batch_size": engine.batch_size, "shard": size, "versions": describe_versions()}
    parts = split_numbers(range(len(files)), size)
    run_folder = run_folder or target.parent
    shards = Shards(target.with_suffix(".shards"), run_folder, len(parts), origin)
    shards.open()
    for number in shards.list_done()[rank() :: world()]:
        files.check(parts[number])
    missing = {number: parts[number] for number in shards.list_missing()}
    _compute_shards(shards, engine, files, missing, progress)
    peaks = gather(measure_peak())  # and everybody is done
    if rank() == 0:
        record_file(target).unlink(missing_ok=True)  # nothing vouches for an older array
        seconds = _join(shards, files, target, engine.width) / world()
        facts = {"images": len(files), "rows": len(files.paths), "seconds": round(seconds, 2),
                 "processes": world(), "precision": engine.precision,
                 "peak_memory_mb": round(max(peaks)),
                 "max_relative_difference": engine.difference}
        save_json(origin | facts, record_file(target))
        for part in (target, record_file(target)):  # before Drive loses the shards
            copy_part(part, run_folder)
        shards.remove()
    wait_for_all()


def _compute_shards(shards: Shards, engine: Engine, files: ImageFiles,
                    missing: dict[int, range], progress: bool) -> None:
    batches = {number: split_numbers(part, engine.batch_size) for number, part in missing.items()}
    found = compute_batches(engine, files, list(chain.from_iterable(batches.values())))
    name = f"{shards.place.stem} ({world()} processes)" if world() > 1 else shards.place.stem
    before = len(files) - world() * sum(map(len, missing.values()))
    with contextlib.closing(found), tqdm(
            total=len(files), initial=max(0, before), desc=name, unit="image", mininterval=1,
            disable=not progress or rank() > 0) as bar:
        for number, some in batches.items():
            start, values = time.monotonic(), []
            for batch in some:
                values.append(next(found))
                _require_numbers(values[-1], files, batch)
                bar.update(min(len(batch) * world(), bar.total - bar.n))
            shards.save(number, features=np.concatenate(values),
                        seconds=np.array(time.monotonic() - start))


class Files(Protocol):
    """What batches are read from."""

    refused: dict[int, str]  # of what could not be read, and has zeros in its place: why

    def read_batch(self, numbers: Iterable[int], shape: tuple) -> np.ndarray:
        """Return a batch of `shape`, uint8: the pixels of some files, then zeros."""


def compute_batches(engine: Engine, files: Files,
                    batches: list[Sequence[int]]) -> Iterator[np.ndarray]:
    """Yield the features of each batch, in order, while the next ones are read."""
    compute = _compute_by_threads if engine.device == "cpu" else _compute_from_loader
    return compute(engine, files, batches)


def _compute_by_threads(engine: Engine, files: Files,
                        batches: list[Sequence[int]]) -> Iterator[np.ndarray]:
    """Yield the features of each batch, in order, while threads work on the next ones."""
    waiting = deque()

    def work(numbers: range) -> np.ndarray:
        return engine.compute(files.read_batch(numbers, engine.shape))[: len(numbers)]

    with one_thread_each(), ThreadPoolExecutor(engine.workers) as pool:
        try:
            for numbers in batches:
                waiting.append(pool.submit(work, numbers))
                if len(waiting) > AHEAD * engine.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _compute_from_loader(engine: Engine, files: Files,
                         batches: list[Sequence[int]]) -> Iterator[np.ndarray]:
    """Yield the features of each batch, in order, from what worker processes decode.

    For a GPU: it waits for one thread of Python alone, and many threads that decode would keep
    that one from its turn.
    """
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(batches, batch_size=None, pin_memory=torch.cuda.is_available(),
                        collate_fn=partial(_read_batch, files, engine.shape),
                        num_workers=min(engine.workers, len(batches)))
    for numbers, found in zip(batches, loader, strict=True):
        if isinstance(found, str):
            raise SuiteError(found)
        pixels, refused = found
        files.refused.update(refused)
        yield engine.compute(pixels.numpy())[: len(numbers)]


def _read_batch(files: Files, shape: tuple, numbers: Sequence[int]):
    """Return a batch as a tensor, and what was refused; or what is wrong with a file."""
    import torch

    try:
        pixels = torch.from_numpy(files.read_batch(numbers, shape))
        return pixels, {n: files.refused[n] for n in numbers if n in files.refused}
    except SuiteError as error:  # torch would wrap it into a worker's stack
        return str(error)


def _require_numbers(values: np.ndarray, files: ImageFiles, numbers: range) -> None:
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        path = files.paths[files.places[numbers[int(np.argmin(finite))]][0]]
        raise SuiteError(f"the features of {show_path(path)} are no numbers: set "
                         "`precision: float32`, or look at the `weights`.")


def _join(shards: Shards, files: ImageFiles, target: Path, width: int) -> float:
    """Write the rows of all shards, copies included, into one `.npy`; return their seconds."""
    seconds, number = 0.0, 0
    with write_whole(target) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {
            "shape": (len(files.paths), width), "fortran_order": False, "descr": "<f4"})
        start = stream.tell()
        for shard in range(shards.count):
            arrays = shards.load(shard)
            seconds += float(arrays["seconds"])
            places = files.places[number : number + len(arrays["features"])]
            number += len(places)
            rows = np.concatenate(places)
            values = np.repeat(arrays["features"], [len(place) for place in places], axis=0)
            # Rows that follow each other are written at once; a memory map would count as memory.
            breaks = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
            for first, last in pairwise([*breaks, len(rows)]):
                stream.seek(start + int(rows[first]) * width * values.itemsize)
                stream.write(values[first:last].tobytes())
    return seconds
