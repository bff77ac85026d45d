"""Batches: the images behind an array of features, and their pixels, a batch at a time."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from helpers.errors import SuiteError
from helpers.pixels import PixelReader, read_file

BLOCK = 1024  # files that wait to be checked


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

    def check(self, numbers: Iterable[int]) -> None:
        """Raise SuiteError if a file of these distinct images has changed since it was inspected.

        For rows that are kept, not computed: those check their files as they read them.
        """
        if self.cached is not None:
            return
        rows = [row for number in numbers for row in self.places[number]]

        def check(row: int) -> None:
            read_file(self.paths[row], self.hashes[row])

        with ThreadPoolExecutor() as pool:
            for start in range(0, len(rows), BLOCK):
                list(pool.map(check, rows[start : start + BLOCK]))


class Batches:
    """An extraction's batches of pixels; also a torch dataset. Each thread needs its own.

    Args:
        shape: of a batch: batch, H, W, 3. The last batch may hold fewer images.
    """

    def __init__(self, images: ImageRows, shape: tuple[int, int, int, int]):
        self.images, self.shape, self.reader, self.pixels = images, shape, None, None

    def __len__(self) -> int:
        return -(-len(self.images.places) // self.shape[0])

    def numbers(self, batch: int) -> range:
        """Return the numbers of a batch's distinct images."""
        start = batch * self.shape[0]
        return range(start, min(start + self.shape[0], len(self.images.places)))

    def read(self, batch: int) -> np.ndarray:
        """Return a batch's pixels, in memory that the next batch takes over.

        Raises:
            SuiteError: an image cannot be read, or has changed since it was inspected.
        """
        if self.reader is None:  # not earlier: a worker process makes its own
            self.reader = PixelReader(self.images.data_config)
            self.pixels = np.zeros(self.shape, np.uint8)
        numbers = self.numbers(batch)
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
