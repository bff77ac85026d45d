"""Archives: .zip and .tar.gz unpacked to local disk once, and only what is safe to unpack."""

import hashlib
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from filelock import FileLock, Timeout
from tqdm import tqdm

from helpers.files import ROOT, SuiteError, hash_file, make_folder, show_path

UNPACKED = ROOT / "data" / "unpacked"
SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar")
MOST_FILES = 2_000_000
MOST_BYTES = 500 * 2**30
MOST_RATIO = 200  # unpacked to packed; photos hardly shrink, a bomb shrinks a thousandfold
RATIO_FROM = 100 * 2**20  # bytes below which the ratio does not matter


@dataclass(frozen=True)
class Member:
    """One member of an archive: its path (a folder's ends in /), its bytes, how to open it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack_archive(archive: Path) -> Path:
    """Unpack an archive into data/unpacked/ unless that was done, and return the folder.

    Members are written under a temporary name and renamed one by one, so that a killed run
    continues; the folder takes its name when all are there. A single folder that holds
    everything is stepped into.

    Raises:
        SuiteError: not an archive, truncated, a member outside the folder or a link, too many
            files or bytes, or no room on the disk. Nothing is written outside the folder.
    """
    target = name_place(archive, [archive])
    with claim_place(target) as missing:
        if missing:
            _unpack(archive, target)
    inside = list(target.iterdir())
    place = inside[0] if len(inside) == 1 and inside[0].is_dir() else target
    packed = [path for path in place.iterdir() if path.name.lower().endswith(SUFFIXES)]
    if packed and not any(path.is_dir() for path in place.iterdir()):
        raise SuiteError(f"{show_path(archive)} holds another archive, {packed[0].name}, which "
                         f"is not unpacked by itself: set `data` to {show_path(packed[0])}.")
    return place


def name_place(source: Path, files: list[Path]) -> Path:
    """Return the folder below data/unpacked/ for what is made of `files`, new if they change.

    Named by content alone: on another machine the paths in a run's tables hold as well.
    """
    key = hashlib.sha256("".join(map(hash_file, files)).encode()).hexdigest()[:8]
    return UNPACKED / f"{source.name.split('.')[0]}-{key}"


@contextmanager
def claim_place(target: Path) -> Iterator[bool]:
    """Yield whether the folder `target` is missing, and let nobody else make it meanwhile.

    Two runs may start on new data together: the second waits, and finds it made.

    Raises:
        SuiteError: the folder above it cannot be written.
    """
    if target.is_dir():
        yield False
        return
    lock = FileLock(make_folder(target.parent) / f".{target.name}.lock")
    try:
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            print(f"another process is making {show_path(target)}: waiting for it")
            held = lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise SuiteError(f"{show_path(target.parent)} cannot be written ({error}). Make it "
                         "writable, or free some space, and run again.") from error
    with held:
        yield not target.is_dir()


def _unpack(archive: Path, target: Path) -> None:
    unfinished = target.with_name(f".{target.name}.partial")
    try:
        with _open_members(archive) as members:
            _require_room(archive, unfinished, sum(member.size for member in members))
            for member in tqdm(members, f"unpacking {archive.name}", unit="file", mininterval=2):
                _write_member(member, unfinished / member.name)
        make_folder(unfinished).rename(target)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError,
            RuntimeError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)  # nothing that could be continued
        why = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
        raise SuiteError(f"{show_path(archive)} is damaged or no archive ({why}), or packed in "
                         "a way that cannot be read here. Get it again, as it was perhaps not "
                         "copied to its end, or pack it anew as .zip or .tar.gz.") from error
    except OSError as error:
        raise SuiteError(f"{show_path(archive)} cannot be unpacked to {show_path(target)}: "
                         f"{error}.") from error


@contextmanager
def _open_members(archive: Path) -> Iterator[list[Member]]:
    """Open an archive, refuse what is unsafe, and yield its files without those macOS adds."""
    is_zip = zipfile.is_zipfile(archive)
    with zipfile.ZipFile(archive) if is_zip else tarfile.open(archive) as opened:
        members, unpacked, packed = [], 0, archive.stat().st_size
        listed = _list_zip(archive, opened) if is_zip else _list_tar(archive, opened)
        for count, member in enumerate(listed, 1):
            unpacked += member.size
            # A tar bomb is unpacked while it is listed, so look as we go.
            _refuse_bomb(archive, count, unpacked, packed)
            path = PurePosixPath(member.name)
            if member.name.endswith("/") or "__MACOSX" in path.parts or (
                    path.name == ".DS_Store" or path.name.startswith("._")):
                continue
            if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]:
                raise _unsafe(archive, member.name, "would be written outside the folder")
            members.append(member)
        yield members


def _list_zip(archive: Path, opened: zipfile.ZipFile) -> Iterator[Member]:
    for info in opened.infolist():
        if stat.S_ISLNK(info.external_attr >> 16):
            raise _unsafe(archive, info.filename, "is a link")
        if info.flag_bits & 1:
            raise SuiteError(f"{show_path(archive)} is encrypted: unpack it yourself and set "
                             "`data` to the folder.")
        # Only these two stop where the header says; a lie in it would fill the memory.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise SuiteError(f"{show_path(archive)} is packed in a way that is not read here: "
                             "pack it anew as a usual .zip, or as .tar.gz.")
        yield Member(_use_slashes(_read_name(info)), info.file_size, partial(opened.open, info))


def _read_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name: macOS writes UTF-8 without saying so, which zipfile misreads."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _list_tar(archive: Path, opened: tarfile.TarFile) -> Iterator[Member]:
    for info in opened:
        if not info.isreg() and not info.isdir():
            raise _unsafe(archive, info.name, "is a link or a device")
        name = _use_slashes(info.name) + "/" * info.isdir()
        yield Member(name, info.size, partial(opened.extractfile, info))


def _use_slashes(name: str) -> str:
    return name.replace("\\", "/")  # old Windows programs write the other kind


def _unsafe(archive: Path, name: str, why: str) -> SuiteError:
    return SuiteError(f"{show_path(archive)}: its member {name!r} {why}. Nothing was unpacked; "
                      "do not trust this archive, or pack the images anew.")


def _refuse_bomb(archive: Path, files: int, unpacked: int, packed: int) -> None:
    if files > MOST_FILES or unpacked > MOST_BYTES:
        raise SuiteError(f"{show_path(archive)} holds {files:,} files of {unpacked / 2**30:,.0f} "
                         "GiB or more, and that is more than this suite unpacks. Unpack it "
                         "yourself and set `data` to the folder.")
    if unpacked > RATIO_FROM and unpacked > MOST_RATIO * packed:
        raise SuiteError(f"{show_path(archive)} would grow from {packed / 2**20:.1f} MiB to "
                         f"{unpacked / 2**20:,.0f} MiB or more, as archive bombs do. Nothing was "
                         "unpacked.")


def _require_room(archive: Path, place: Path, size: int) -> None:
    present = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    free = shutil.disk_usage(make_folder(place)).free
    print(f"{archive.name} unpacks to {size / 2**20:,.0f} MiB; {free / 2**20:,.0f} MiB are free")
    if size - present > free:
        raise SuiteError(f"{show_path(archive)} needs {size / 2**20:,.0f} MiB in "
                         f"{show_path(place.parent)}, where {free / 2**20:,.0f} MiB are free. "
                         "Make room and run again.")


def _write_member(member: Member, target: Path) -> None:
    if target.is_file() and target.stat().st_size == member.size:
        return  # an earlier run has come this far
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    with member.open() as source, temporary.open("wb") as copy:
        # The header may lie about the size, but neither library reads more than it says.
        shutil.copyfileobj(source, copy)
    temporary.replace(target)
