"""Resuming: a long computation cut into numbered shards, each written whole, joined at the end.

Whatever ends the work, the shards that are there stay, and the next run computes the others;
in Colab each goes to Drive as well, unless that would take longer. Several processes take turns
in the numbers.
"""

import contextlib
import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np

from helpers.colab import copy_part, remove_parts
from helpers.files import SuiteError, load_json, make_folder, save_json, write_whole
from helpers.processes import gather, rank, wait_for_all, world
from helpers.versions import describe_changes

ROWS = 1024  # of a shard: what a killed run computes again, at most
LEAST = 16  # shards of a smaller job, so that it too can be shared and continued


def choose_rows(count: int, multiple: int = 1) -> int:
    """Return how many of `count` rows a shard holds, a multiple of `multiple` (a batch)."""
    return max(1, round(min(ROWS, -(-count // LEAST)) / multiple)) * multiple


class Shards:
    """Numbered shards in a folder below a run's folder, and from what they are made.

    Args:
        origin: plain values that decide the content; with another `origin` all starts anew.
        local: large, and quickly made again, so that they are not copied to Drive.
    """

    def __init__(self, place: Path, run_folder: Path, count: int, origin: dict,
                 local: bool = False):
        self.place, self.run_folder, self.count, self.origin = place, run_folder, count, origin
        self.local = local
        # In each name, so that what a Drive has kept of another origin is never taken for ours.
        self.mark = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:8]

    def open(self) -> None:
        """Continue what an earlier run has left, or start anew.

        Raises:
            SuiteError: the processes do not agree on the origin.
        """
        record = self.place / "origin.json"
        then = load_json(record) if record.exists() else None
        first, *others = gather(self.origin)  # nobody changes anything before all have looked
        other = next((origin for origin in others if origin != first), None)
        if other:
            raise SuiteError(f"the processes would make {self.place.stem} in different ways: "
                             f"{describe_changes(first, other)}. Name the `engine`, and use "
                             "devices of one kind.")
        if rank() == 0 and then != self.origin:
            if then is not None:
                changed = describe_changes(then, self.origin)
                print(f"{self.place.stem} is computed anew: {changed}")
                self.remove()
            save_json(self.origin, make_folder(self.place) / "origin.json")
            self._copy(record)
        wait_for_all()

    def list_done(self) -> list[int]:
        """Return the numbers of the shards that are there."""
        return [number for number in range(self.count) if self._path(number).exists()]

    def list_missing(self) -> list[int]:
        """Return the numbers that this process is to compute; all processes must ask at once."""
        done = set(self.list_done())
        wait_for_all()  # nobody writes anything before all have seen what is missing
        return [n for n in range(self.count) if n not in done][rank() :: world()]

    def save(self, number: int, **arrays: np.ndarray) -> None:
        """Write one shard whole.

        Raises:
            SuiteError: the disk is full, or another run has started the same anew meanwhile.
        """
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        if not self.place.is_dir() or load_json(self.place / "origin.json") != self.origin:
            raise SuiteError(f"another run has started to make {self.place.stem} anew meanwhile: "
                             "let only one at a time.")
        with write_whole(self._path(number)) as temporary:
            temporary.write_bytes(stream.getvalue())
        self._copy(self._path(number))

    def load(self, number: int) -> dict[str, np.ndarray]:
        """Return the arrays of one shard; SuiteError if it is damaged."""
        try:
            with np.load(self._path(number), allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            self.drop(number)
            raise SuiteError(f"{self._path(number).name} of {self.place.stem} is damaged "
                             f"({error}) and was removed: run again.") from error

    def drop(self, number: int) -> None:
        """Forget one shard; it is computed again."""
        self._path(number).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all shards, here and on Drive."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.place)
        remove_parts(self.place, self.run_folder)

    def _copy(self, file: Path) -> None:
        if not self.local:
            copy_part(file, self.run_folder)

    def _path(self, number: int) -> Path:
        return self.place / f"{number:05d}-{self.mark}.npz"
