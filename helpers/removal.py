"""Removal: runs' folders below outputs/ taken away, whole runs only and nothing beside them.

    python -m helpers.removal RUN [RUN ...]      says what would go, and asks
    python -m helpers.removal RUN --yes          does not ask

Exit status: 0 removed, 1 not wanted after all, 2 refused; then nothing at all was removed.
"""

import argparse
import difflib
import os
import re
import shutil
import sys
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from helpers.colab import DRIVE_FOLDER
from helpers.command import report_errors
from helpers.files import SuiteError, show_path
from helpers.run import OUTPUTS

REMOVED = "removed"  # the ending of a folder on its way out


def find_run(name: str) -> Path:
    """Return the folder of the run `name`.

    Raises:
        SuiteError: there is no such run, or what bears its name is none.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise SuiteError(f"'{name}' is no run's name: give the name of a folder below "
                         f"{show_path(OUTPUTS)}, without a path.")
    folder = OUTPUTS / name
    if folder.is_symlink():
        raise SuiteError(f"{show_path(folder)} is a link to elsewhere, and nothing was removed. "
                         "Remove the link by hand if that is what you want.")
    if not folder.is_dir():
        near = difflib.get_close_matches(name, list_runs(), 1)
        hint = f"Did you mean {near[0]}?" if near else (
            f"There are: {', '.join(list_runs()) or 'none'}.")
        raise SuiteError(f"there is no run '{name}' in {show_path(OUTPUTS)}. {hint}")
    if not _is_run(folder):
        raise SuiteError(f"{show_path(folder)} holds no artefacts.json, so it is no run of this "
                         "suite, or one that has made nothing yet. Remove it by hand.")
    return folder


def list_runs() -> list[str]:
    """Return the names of all runs."""
    return sorted(folder.name for folder in OUTPUTS.glob("[!.]*")
                  if not folder.is_symlink() and _is_run(folder))


def _is_run(folder: Path) -> bool:
    return (folder / "artefacts.json").is_file()


def measure_folder(folder: Path) -> tuple[int, float]:
    """Return how many files a folder holds, and their MiB; a link counts as itself."""
    sizes = []
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # a notebook that is open may tidy up
                sizes.append(os.lstat(os.path.join(place, name)).st_size)
    return len(sizes), sum(sizes) / 2**20


def hold_run(folder: Path) -> FileLock:
    """Keep batches out of a run, and return what does; SuiteError if one is at work there."""
    lock = FileLock(folder / ".lock")
    try:
        if Path(lock.lock_file).is_symlink():  # not every filelock refuses it
            raise OSError(None, ".lock is a link")
        lock.acquire(timeout=0)
    except Timeout:
        raise SuiteError(f"a batch is at work in {show_path(folder)}: wait for it, or end "
                         "it.") from None
    except OSError as error:
        raise SuiteError(f"{show_path(folder)} cannot be removed ({error.strerror or error}). "
                         "Make it writable, or remove it by hand.") from error
    return lock


def remove_folder(folder: Path) -> None:
    """Remove a run's folder; links in it go, what they lead to stays.

    It gets a hidden name first, so that whatever ends this leaves no half run.

    Raises:
        SuiteError: the disk refuses.
    """
    hidden = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.{REMOVED}")
    try:
        folder.rename(hidden)
        shutil.rmtree(hidden)
    except OSError as error:
        left = hidden if hidden.exists() else folder
        raise SuiteError(f"{show_path(left)} could not be removed ({error.strerror or error}). "
                         "Make it writable, and remove it by hand.") from error


def remove_runs(names: list[str], sure: bool = False) -> bool:
    """Say what would go, ask unless `sure`, remove the runs, and return whether they went.

    Raises:
        SuiteError: one of them cannot be removed, or nobody is there to ask.
    """
    folders = [find_run(name) for name in dict.fromkeys(names)]
    with ExitStack() as locks:
        for folder in folders:
            locks.enter_context(hold_run(folder))
            count, size = measure_folder(folder)
            print(f"{show_path(folder)}: {count:,} files, {size:,.1f} MiB")
        if not sure and not _ask():
            print("nothing was removed")
            return False
        for folder in folders:
            remove_folder(folder)
            print(f"removed {show_path(folder)}")
    if DRIVE_FOLDER in os.environ:
        print(f"Copies in {os.environ[DRIVE_FOLDER]} stay, and the next run of the same name "
              "goes on from them: remove them on Drive as well to start anew.")
    return True


def _ask() -> bool:
    if not sys.stdin.isatty():
        raise SuiteError("nobody is here to be asked: add --yes to remove this.")
    try:
        return input("Remove for good? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


@report_errors
def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.removal",
                                     description="Remove runs' folders.")
    parser.add_argument("names", nargs="+", metavar="RUN", help="name of a folder below outputs/")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(arguments)
    return 0 if remove_runs(options.names, options.yes) else 1


if __name__ == "__main__":
    sys.exit(main())
