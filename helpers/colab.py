"""Colab: install what it lacks, mount Drive when asked, bring results back to it.

Everywhere else each function returns at once. Training never reads from Drive: images lie on
the machine's own disk, and only finished results are copied.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from helpers.files import ROOT, SuiteError, show_path

MOUNT_POINT = Path("/content/drive")
MOUNT_LIMIT_S = 120  # long enough to click through the dialogue
DRIVE_FOLDER = "SUITE_DRIVE_FOLDER"  # environment: where results go; kernels inherit it


def in_colab() -> bool:
    """Return whether this is a Colab runtime."""
    return "COLAB_RELEASE_TAG" in os.environ


def prepare(drive_folder: str = "") -> None:
    """Make a Colab runtime ready; safe to run again, nothing at all elsewhere.

    Args:
        drive_folder: folder in "My Drive" that results are copied to; "" leaves Drive alone.
    """
    if not in_colab():
        return
    install_missing()
    if drive_folder and mount_drive():
        os.environ[DRIVE_FOLDER] = str(MOUNT_POINT / "MyDrive" / drive_folder)
        print(f"results are copied to My Drive/{drive_folder} after each notebook")


def install_missing(requirements: Path = ROOT / "requirements-colab.txt") -> list[str]:
    """Install the lines of `requirements` whose package is absent, and return them.

    Packages that are there are never upgraded: Colab's torch fits its GPU driver.

    Raises:
        SuiteError: pip failed; its last words are in the message.
    """
    missing = []
    for line in re.findall(r"(?m)^\w.*", requirements.read_text("utf-8")):  # no comments
        try:
            version(re.split(r"[<>=!~ \[;]", line)[0])
        except PackageNotFoundError:
            missing.append(line)
    if missing:
        done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise SuiteError(f"pip could not install {', '.join(missing)}: "
                             f"{done.stderr.strip().splitlines()[-1:]}. Run the cell again.")
        print(f"installed {', '.join(missing)}")
    return missing


def mount_drive() -> bool:
    """Mount Google Drive unless it is mounted, and return whether it is there now.

    A refusal or a hang (nobody there to click, as under papermill) is no error: the remedies
    are printed and the work goes on with the local disk.
    """
    if (MOUNT_POINT / "MyDrive").is_dir():
        return True
    try:
        from google.colab import drive

        with _time_limit(MOUNT_LIMIT_S):
            drive.mount(str(MOUNT_POINT))
    except Exception as error:  # Colab raises ValueError, pexpect's errors and its own
        print(f"Drive was not mounted ({type(error).__name__}: {error}). Going on with the "
              "local disk; results stay in outputs/ until this runtime ends.\n"
              "To have them on Drive: run this cell again and allow the access; or mount "
              "Drive by the folder symbol at the left, then run this cell again; or download "
              "outputs/ before you leave.")
    return (MOUNT_POINT / "MyDrive").is_dir()


@contextmanager
def _time_limit(seconds: float):
    """Raise TimeoutError in the block after `seconds`; only a main thread can be stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_):
        raise TimeoutError(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def copy_results(folder: Path) -> int:
    """Copy a run's new or changed files to the Drive folder, if one is set.

    Each file is copied under a temporary name and renamed. A Drive that is full or gone is
    reported, not raised: the results are still on the local disk.

    Returns:
        How many files were copied.
    """
    if DRIVE_FOLDER not in os.environ:
        return 0
    return _copy_files(folder.rglob("*"), folder)


def copy_part(part: Path, folder: Path) -> None:
    """Copy one file below a run's `folder` to Drive: a fresh runtime goes on from it."""
    if DRIVE_FOLDER in os.environ:
        _copy_files([part], folder, say=False)


def remove_parts(parts: Path, folder: Path) -> None:
    """Remove a folder of such files from Drive again: their whole has taken their place."""
    if DRIVE_FOLDER in os.environ:
        shutil.rmtree(_find_on_drive(folder) / parts.relative_to(folder), ignore_errors=True)


def fetch_results(folder: Path) -> None:
    """Bring a run back from Drive into an empty folder, whole: yesterday's runtime is gone.

    To start anew, remove the run's folder on Drive as well, or give the run another name.

    Raises:
        SuiteError: Drive did not give all of it; what goes on from a part would spoil the rest.
    """
    if DRIVE_FOLDER not in os.environ or not _find_on_drive(folder).is_dir():
        return
    start, new = _find_on_drive(folder), folder.with_name(f".{folder.name}.fetched")
    shutil.rmtree(new, ignore_errors=True)
    try:
        shutil.copytree(start, new, ignore=shutil.ignore_patterns(".*"))
        new.replace(folder)
    except OSError as error:
        raise SuiteError(f"{start} could not be copied to {show_path(folder)} ({error}). See to "
                         "Drive and run this cell again.") from error
    print(f"copied {start} to {show_path(folder)}")


def _find_on_drive(folder: Path) -> Path:
    return Path(os.environ[DRIVE_FOLDER], folder.name)


def _copy_files(sources: Iterable[Path], folder: Path, say: bool = True) -> int:
    copied, end = 0, _find_on_drive(folder)
    try:
        for source in sorted(sources):
            name = source.relative_to(folder)
            target = end / name
            hidden = any(part.startswith(".") for part in name.parts)  # not whole yet
            if hidden or source.is_dir() or _is_current(source, target):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.part")
            shutil.copy2(source, temporary)
            os.replace(temporary, target)
            copied += 1
        if copied and say:
            print(f"copied {copied} files from {show_path(folder)} to {end}")
    except OSError as error:
        print(f"copying to {end} stopped after {copied} files ({error}). Nothing is "
              "lost on the local disk; see to Drive and run this cell again.")
    return copied


def _is_current(source: Path, target: Path) -> bool:
    if not target.exists():
        return False
    old, new = target.stat(), source.stat()
    # Drive keeps times to the second only.
    return old.st_size == new.st_size and old.st_mtime >= int(new.st_mtime)
