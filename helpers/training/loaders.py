"""Loaders: images of a run's table in batches, for training, validation, test and prediction.

Which images make a batch, and how each of them is augmented, follows from the seed and the epoch
alone: it is the same after an interruption, and for any number of worker processes.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import psutil
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from helpers.data.splits import count_classes
from helpers.features.streaming import ImageFiles
from helpers.files import SuiteError
from helpers.network.augmentation import LEVELS, choose_levels, create_group, create_level
from helpers.processes import rank, world

IN_MEMORY = 0.25  # of what is free, at most, for decoded images or activations
JUDGED_AT_ONCE = 64  # images a batch where nothing is learnt
Request = tuple[np.ndarray, int]  # positions of images, and the epoch


def create_seed(*numbers: int) -> int:
    """Return one seed that stands for several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class Images:
    """The images of some rows, decoded for the network, and kept in memory if there is room.

    Args:
        rows: with `path` and `sha256`; positions below are theirs.
    """

    def __init__(self, rows: pd.DataFrame, data_config: dict):
        self.files = ImageFiles(rows, data_config)
        self.shape = (*data_config["input_size"][1:], 3)
        self.numbers = np.empty(len(rows), np.int64)  # the file of each row; copies share one
        for number, places in enumerate(self.files.places):
            self.numbers[places] = number
        self._kept = None

    def __len__(self) -> int:
        return len(self.numbers)

    def keep(self, workers: int, progress: bool = True) -> bool:
        """Decode all images once, side by side, unless they are too many for the memory."""
        size = len(self.files) * math.prod(self.shape)
        if self._kept is None and size <= IN_MEMORY * psutil.virtual_memory().available:
            kept = np.empty((len(self.files), *self.shape), np.uint8)

            def read(number: int) -> None:
                kept[number] = self.files.read(number)

            with ThreadPoolExecutor(workers) as pool:
                list(tqdm(pool.map(read, range(len(kept))), "decoding", len(kept),
                          unit="image", disable=not progress or rank() > 0, mininterval=1))
            self._kept = kept
        return self._kept is not None

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Return the pixels of some images, (images, H, W, 3) uint8.

        Raises:
            SuiteError: one cannot be read or has changed since it was inspected.
        """
        numbers = self.numbers[positions]
        if self._kept is not None:
            return self._kept[numbers]
        return np.stack([self.files.read(number) for number in numbers])


class ImageBatches(Dataset):
    """Batches of images, their class codes and positions; asked for by a `Request`.

    Args:
        codes: (images,) class codes, -1 where there is no label.
        levels: (images,) name of each image's augmentation; None for none at all.
        activations: (images, *shape), in place of pixels.
    """

    def __init__(self, images: Images, codes: np.ndarray, levels: np.ndarray | None = None,
                 activations: np.ndarray | None = None, seed: int = 0):
        self.images, self.codes, self.levels = images, codes, levels
        self.activations, self.seed, self._changes = activations, seed, {}

    def __getitem__(self, request: Request):
        positions, epoch = request
        if self.activations is not None:
            inputs = np.asarray(self.activations[positions])
        else:
            inputs = self.images.read(positions)
            if self.levels is not None:
                inputs = np.stack([self._augment(pixels, position, epoch) for pixels, position
                                   in zip(inputs, positions, strict=True)])
        return (torch.from_numpy(inputs), torch.from_numpy(self.codes[positions]),
                torch.from_numpy(positions))

    def _augment(self, pixels: np.ndarray, position: int, epoch: int) -> np.ndarray:
        level = self.levels[position]
        if level not in self._changes:  # a worker process makes its own
            self._changes[level] = (create_level if level in LEVELS else create_group)(level)
        change = self._changes[level]
        change.set_random_seed(create_seed(self.seed, epoch, int(position)))
        return change(image=pixels)["image"]


class TrainingBatches(Sampler):
    """Each epoch's batches: this process's part of each.

    A last batch too small for BatchNorm in every process is left out; other images are in it in
    the next epoch.

    Args:
        size: images a batch, of all processes together.
        codes: (positions,) classes, to draw each equally often; None to shuffle.
    """

    def __init__(self, positions: np.ndarray, size: int, seed: int,
                 codes: np.ndarray | None = None):
        self.positions, self.size, self.seed, self.epoch = positions, size, seed, 0
        self.chances = None
        if codes is not None:
            self.chances = 1 / np.bincount(codes)[codes]
            self.chances /= self.chances.sum()
        least = min(size, 2 * world())
        starts = range(0, len(positions), size)
        self.slices = [slice(start, start + size) for start in starts
                       if min(size, len(positions) - start) >= least]
        if not self.slices or size < world():
            raise SuiteError(f"{len(positions)} images in batches of {size} (`train_batch`) are "
                             f"too few for {world()} processes: start fewer.")

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.slices)

    def __iter__(self) -> Iterator[Request]:
        rng = np.random.default_rng((self.seed, self.epoch))
        count = len(self.positions)
        order = rng.permutation(count) if self.chances is None else rng.choice(
            count, count, p=self.chances)
        for part in self.slices:
            yield self.positions[order[part]][rank() :: world()], self.epoch


class JudgedBatches(Sampler):
    """All images in turn; each process takes whole batches, so none is padded or cut anew.

    A process for which none is left takes the last one as well: Lightning would not let a process
    without a batch come to where all of them score what they have found.
    """

    def __init__(self, positions: np.ndarray, size: int = JUDGED_AT_ONCE):
        starts = range(0, len(positions), size)
        every = [positions[start : start + size] for start in starts]
        self.batches = every[rank() :: world()] or every[-1:]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Request]:
        return iter([(positions, 0) for positions in self.batches])


@dataclass(eq=False)
class ImageData(LightningDataModule):
    """What one fold's network learns from, is judged on and answers.

    Args:
        codes: (images,) class codes.
        learnt, inner, judged, asked: positions of images to learn from, to choose epochs on, of
            the fold that is left out, and to answer besides.
        batch, sampler, seed: as in `TrainingBatches`; `sampler` of the recipe.
        levels, activations: as in `ImageBatches`.
        workers: processes that decode.
    """

    images: Images
    codes: np.ndarray
    learnt: np.ndarray
    inner: np.ndarray
    judged: np.ndarray
    asked: np.ndarray
    batch: int = 32
    sampler: str = "shuffle"
    seed: int = 0
    levels: np.ndarray | None = None
    activations: np.ndarray | None = None
    workers: int = 0

    def __post_init__(self):
        super().__init__()

    def train_dataloader(self) -> DataLoader:
        """Return shuffled, augmented images to learn from."""
        codes = self.codes[self.learnt] if self.sampler == "balanced" else None
        return self._load(TrainingBatches(self.learnt, self.batch, self.seed, codes),
                          self.levels)

    def val_dataloader(self) -> DataLoader:
        """Return the inner fold's images, on which an epoch is chosen."""
        return self._load(JudgedBatches(self.inner))

    def test_dataloader(self) -> DataLoader:
        """Return the images of the fold that was left out."""
        return self._load(JudgedBatches(self.judged))

    def predict_dataloader(self) -> DataLoader:
        """Return the images of the fold that was left out, and those to answer besides."""
        return self._load(JudgedBatches(np.concatenate([self.judged, self.asked])))

    def _load(self, batches: Sampler, levels: np.ndarray | None = None) -> DataLoader:
        # Activations lie in memory: other processes would only copy them.
        workers = 0 if self.activations is not None else min(self.workers, len(batches))
        data = ImageBatches(self.images, self.codes, levels, self.activations, self.seed)
        # A generator of its own: else an epoch's dropout would depend on when loaders are made.
        return DataLoader(data, sampler=batches, batch_size=None, num_workers=workers,
                          generator=torch.Generator(),
                          pin_memory=torch.cuda.is_available(), persistent_workers=workers > 0)


def choose_augmentations(rows: pd.DataFrame, wanted: str,
                         sizes: tuple[int, int]) -> np.ndarray | None:
    """Return the augmentation of each row's image by name, (rows,); None for none.

    Args:
        rows: training images with `label`.
        wanted: `none`, `by_class_size`, a level or a group.
        sizes: as in `choose_levels`.
    """
    if wanted == "none":
        return None
    if wanted != "by_class_size":
        return np.full(len(rows), wanted, object)
    return rows.label.map(choose_levels(count_classes(rows), sizes)).to_numpy(object)
