"""Progress: from what an array was made, how far it is, and how a killed run continues it.

Beside an array lies a record, `<name>.progress.json`. While the array grows it is called
`.<name>.npy.partial`, and `.<name>.npy.marks` holds one byte for each batch that is done, so any
later run, of one process or of several, continues at what is missing.
"""

import contextlib
import os
import time
from pathlib import Path

import numpy as np

from helpers.errors import SuiteError
from helpers.files import load_json, reserve_array, save_json, show_path, write_whole
from helpers.processes import RANK, WORLD, gather, wait_for_all


def progress_file(path: Path) -> Path:
    """Return the file beside an array that says from what and how far it was made."""
    return path.with_suffix(".progress.json")


def load_progress(path: Path) -> dict:
    """Return what stands beside an array on how it was made; empty if nothing does."""
    progress = progress_file(path)
    return load_json(progress) if progress.exists() else {}


def is_complete(path: Path, fingerprint: dict) -> bool:
    """Return whether an array is finished and was made from `fingerprint`."""
    state = load_progress(path)
    return path.exists() and state.get("complete", False) and (
        state.get("fingerprint") == fingerprint)


def describe_changes(then: dict, now: dict) -> str:
    """Say what differs between two fingerprints: "weights random 42 (now random 43)"."""
    then, now = _flatten(then), _flatten(now)
    return ", ".join(f"{key} {then.get(key, 'not noted')} (now {value})"
                     for key, value in now.items() if then.get(key) != value)


def _flatten(facts: dict) -> dict:
    flat = {}
    for key, value in facts.items():
        flat |= _flatten(value) if isinstance(value, dict) else {key: value}
    return flat


class GrowingArray:
    """A float32 `.npy` that processes and threads fill row by row, and that outlives them.

    Args:
        shape: rows, columns.
        batches: how many; a batch always holds the same rows, so that they are the same bytes
            whoever computes them, and when.
        how: plain values that decide the array; another `how` starts it anew.
    """

    def __init__(self, target: Path, shape: tuple[int, int], batches: int, how: dict):
        self.target, self.shape, self.batches, self.how = target, shape, batches, how
        self.partial = target.with_name(f".{target.name}.partial")
        self.marks_file = target.with_name(f".{target.name}.marks")
        self.seconds, self.computed = 0.0, []

    def open(self) -> bool:
        """Continue what an earlier run has left, or start anew; return whether it continues.

        Raises:
            SuiteError: the processes do not agree on how.
        """
        before = load_progress(self.target)
        then = {key: before.get(key) for key in self.how}
        left = self.partial.exists() and self.marks_file.exists()
        continues = then == self.how and left and not before["complete"]
        hows = gather(self.how)  # and nobody changes anything before all have looked
        other = next((how for how in hows if how != hows[0]), None)
        if other:
            raise SuiteError(f"the processes would make {self.target.name} in different ways: "
                             f"{describe_changes(hows[0], other)}. Name the `engine`, and use "
                             "devices of one kind.")
        if continues:
            self.seconds = before["seconds"]
        elif RANK == 0:
            if before and then != self.how:
                print(f"{self.target.name} is computed anew: {describe_changes(then, self.how)}")
            # From here on nothing vouches for an older array, or for another's partial one.
            progress_file(self.target).unlink(missing_ok=True)
            self.partial.unlink(missing_ok=True)
            reserve_array(self.partial, self.shape, np.float32)
            with write_whole(self.marks_file) as temporary:
                temporary.write_bytes(bytes(max(self.batches, 1)))
            self._record(complete=False)
        wait_for_all()
        self.marked = np.memmap(self.marks_file, np.uint8, "r+")
        self.marks = self.marked[: self.batches]
        self.offset = np.load(self.partial, mmap_mode="r").offset
        self.file = os.open(self.partial, os.O_RDWR)
        self.identity = os.fstat(self.file)
        self.start_clock()
        return continues

    def start_clock(self) -> None:
        """Count the seconds from now on, not from the last save."""
        self.last_save = time.monotonic()

    def write(self, row: int, values: np.ndarray) -> None:
        """Put (rows, columns) values into their place in the file, from `row` on.

        Raises:
            SuiteError: the disk is full, or fails.
        """
        with self._explained():
            written = os.pwrite(self.file, values, self.offset + row * values[0].nbytes)
        if written != values.nbytes:
            raise SuiteError(f"{show_path(self.partial)} could not be written in full. Free some "
                             "space, and run again.")

    def save(self) -> None:
        """Mark the batches in `computed`, once their rows are safely on the disk.

        Raises:
            SuiteError: the disk fails, or another run has started the array anew.
        """
        computed, now = list(self.computed), time.monotonic()
        with self._explained():
            os.fsync(self.file)
        place = self._find()
        self.marks[computed] = 1
        self.marked.flush()
        self.seconds, self.last_save = self.seconds + now - self.last_save, now
        if RANK == 0 and place == self.partial:  # else another run of the same has finished it
            self._record(complete=False)

    def close(self) -> None:
        """Save, and let go of the file."""
        try:
            self.save()
        finally:
            os.close(self.file)

    def finish(self, **facts) -> None:
        """Give the file its name, when every process has closed it, and note `facts`.

        Raises:
            SuiteError: rows are missing, or another run has taken the file over.
        """
        if RANK == 0:
            if not self.marks.all():
                raise SuiteError(f"{show_path(self.partial)} lacks rows: run again.")
            if self._find() == self.partial:
                self.partial.replace(self.target)
            self._record(complete=True, rows=self.shape[0], processes=WORLD, **facts)
            self.marks_file.unlink(missing_ok=True)
        wait_for_all()

    def _find(self) -> Path:
        """Return where this run's file is by now."""
        for path in (self.partial, self.target):
            if path.exists() and os.path.samestat(self.identity, path.stat()):
                return path
        raise SuiteError(f"another run has started to make {show_path(self.target)} anew "
                         "meanwhile: let only one at a time.")

    @contextlib.contextmanager
    def _explained(self):
        try:
            yield
        except OSError as error:
            raise SuiteError(f"cannot write {show_path(self.partial)} ({error.strerror}). Free "
                             "some space, and run again.") from error

    def _record(self, **facts) -> None:
        save_json(self.how | {"seconds": round(self.seconds, 2)} | facts,
                  progress_file(self.target))
