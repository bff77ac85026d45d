"""Files: written whole or not at all, shown without the machine in them, told apart by content.

And the one exception that a person is meant to read.
"""

import functools
import hashlib
import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the folder that holds helpers/
BLOCK = 4096  # files that wait to be hashed


class SuiteError(Exception):
    """Something the user can put right: the message says what, where and what to do.

    Notebooks show the message alone (IPython calls `_render_traceback_`), and so does
    `helpers.batch`: stack frames would bury the sentence that helps.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


def show_path(path: str | Path) -> str:
    """Return `path` relative to the suite's root where it lies inside, else as it is."""
    path = Path(path)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def resolve_path(path: str | Path) -> Path:
    """Return `path` as an absolute one; a relative path starts at the suite's root."""
    return Path(os.path.abspath(ROOT / Path(path).expanduser()))


def natural_key(name: str) -> tuple:
    """Return a key that sorts names as people do: 9 before 10, numbers before words."""
    parts = [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold())
             for part in re.split(r"(\d+)", name) if part]
    return parts, name


def make_folder(folder: Path) -> Path:
    """Create `folder` with its parents; SuiteError when the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SuiteError(
            f"cannot create the folder {show_path(folder)} ({error.strerror}). "
            "Make its parent writable, or free some space, and run again."
        ) from error
    return folder


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; rename it to `path` on success, remove it on any failure.

    The temporary file lies in the same folder, so that the rename is atomic, and keeps the
    suffix, so that writers which look at it (NumPy, matplotlib) behave as usual.

    Raises:
        SuiteError: the disk is full or cannot be written; nothing is left behind.
    """
    path = Path(path)
    temporary = make_folder(path.parent) / f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}"
    try:
        with _explain_refusal(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def write_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder; it replaces the folder `path` on success, else it is removed.

    Raises:
        SuiteError: the disk is full or cannot be written; what was at `path` is still there.
    """
    path = Path(path)
    with _explain_refusal(path), tempfile.TemporaryDirectory(
            dir=make_folder(path.parent), prefix=f".{path.name}.") as place:
        new = Path(place, "new")
        new.mkdir()
        yield new
        if path.exists():
            path.rename(Path(place, "old"))
        new.rename(path)


@contextmanager
def _explain_refusal(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SuiteError(
            f"cannot write {show_path(path)} ({error.strerror or error}). "
            "Free some space or make the folder writable, and run again."
        ) from error


def save_json(content: dict | list, path: str | Path) -> None:
    """Write `content` as indented UTF-8 JSON."""
    with write_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def load_json(path: str | Path, kind: type = dict):
    """Read a JSON file that this suite wrote; SuiteError when it is damaged.

    Args:
        kind: what it must hold, a dictionary or a list.
    """
    try:
        content = json.loads(Path(path).read_text("utf-8"))
        if not isinstance(content, kind):
            raise ValueError(f"it holds a {type(content).__name__}")
    except (ValueError, RecursionError) as error:
        raise SuiteError(
            f"{show_path(path)} is damaged ({error}). Delete it and run again.") from error
    return content


def save_csv(table, path: str | Path, index: bool = False) -> None:
    """Write a DataFrame as UTF-8 CSV, its index left out unless asked for."""
    with write_whole(path) as temporary:
        table.to_csv(temporary, index=index)


def save_array(array, path: str | Path) -> None:
    """Write a NumPy array as `.npy`, never pickled."""
    import numpy as np

    with write_whole(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits.

    Raises:
        SuiteError: it cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise SuiteError(f"{show_path(path)} cannot be read ({error.strerror}).") from error


@functools.lru_cache(maxsize=1024)
def _hash_unchanged(path: str, size: int, changed: int) -> str:
    return hash_file(path)


def hash_files(place: Path, known: dict | None = None) -> tuple[str, dict]:
    """Hash a file, or every file below a folder, reading only what size or time says is new.

    Args:
        known: what an earlier call returned.

    Returns:
        One SHA-256 over names and contents, and for each name its size in bytes, the time of
        its last change in nanoseconds, and the SHA-256 of its content.
    """
    names = [""] if place.is_file() else sorted(
        os.path.relpath(os.path.join(folder, name), place)
        for folder, _, files in os.walk(place) for name in files)
    known, found = known or {}, {}

    def describe(name: str) -> list:
        path = os.path.join(place, name) if name else str(place)
        try:
            facts = os.stat(path)
            state = [facts.st_size, facts.st_mtime_ns]
            return known[name] if known.get(name, [])[:2] == state else [
                *state, _hash_unchanged(path, *state)]
        except (OSError, SuiteError) as error:  # a link that leads nowhere, a forbidden file
            return [-1, -1, str(error)]

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(names), BLOCK):
            part = names[start : start + BLOCK]
            found |= zip(part, pool.map(describe, part), strict=True)
    text = "\n".join(f"{name}\0{facts[2]}" for name, facts in found.items())
    return hashlib.sha256(os.fsencode(text)).hexdigest(), found
