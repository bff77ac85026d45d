"""Archives: unpacked once, whole, and never outside their folder or beyond the disk."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from helpers.data import archives
from helpers.data.archives import unpack_archive
from helpers.data.table import load_table, restore_images
from helpers.files import ROOT, SuiteError
from helpers.recipe import load_recipe


@pytest.fixture(autouse=True)
def unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "UNPACKED", tmp_path / "unpacked")
    return tmp_path / "unpacked"


@pytest.fixture
def load(write_recipe):
    """Load the table of a recipe for `data`."""
    return lambda data, **settings: load_table(
        load_recipe(write_recipe("tiny", data, source="folders", **settings)))


def list_unpacked(unpacked: Path) -> list[Path]:
    """Return what lies in data/unpacked/, locks and unfinished folders left out."""
    return [path for path in unpacked.glob("*") if not path.name.startswith(".")]


def pack(path: Path, members: dict[str, bytes]) -> Path:
    """Write `members` into a zip or tar, whichever the suffix says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def pack_folder(path: Path, folder: Path) -> Path:
    return pack(path, {f"top/{file.relative_to(folder).as_posix()}": file.read_bytes()
                       for file in sorted(folder.rglob("*")) if file.is_file()})


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_is_unpacked_once(folders, tmp_path, load, kind, unpacked, capsys):
    path = pack_folder(tmp_path / f"waste.{kind}", folders)
    table = load(path)
    assert table.label.value_counts().to_dict() == {"glass": 12, "metal": 12, "paper": 12}
    assert "MiB are free" in capsys.readouterr().out
    before = {p: p.stat().st_mtime_ns for p in unpacked.rglob("*")}
    assert load(path).equals(table)
    assert {p: p.stat().st_mtime_ns for p in unpacked.rglob("*")} == before
    assert len(list_unpacked(unpacked)) == 1


def test_an_interrupted_unpacking_continues(folders, tmp_path, load, unpacked, monkeypatch):
    path = pack_folder(tmp_path / "waste.zip", folders)
    real, written = archives._write_member, []

    def stop_after_ten(member, target):
        if len(written) == 10:
            raise KeyboardInterrupt
        written.append(target)
        real(member, target)

    monkeypatch.setattr(archives, "_write_member", stop_after_ten)
    with pytest.raises(KeyboardInterrupt):
        load(path)
    times = {p: p.stat().st_mtime_ns for p in written}
    monkeypatch.setattr(archives, "_write_member", real)
    table = load(path)
    assert len(table) == 36 and len(list_unpacked(unpacked)) == 1
    moved = [list_unpacked(unpacked)[0] / Path(*p.relative_to(unpacked).parts[1:])
             for p in written]
    assert [p.stat().st_mtime_ns for p in moved] == list(times.values())


def test_a_truncated_zip_is_refused_and_leaves_nothing(folders, tmp_path, load, unpacked):
    path = pack_folder(tmp_path / "waste.zip", folders)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(SuiteError, match=r"waste\.zip is damaged or no archive"):
        load(path)
    assert not list_unpacked(unpacked)


@pytest.mark.parametrize("name", ["../evil.jpg", "/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg",
                                  "C:\\evil.jpg"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_outside_the_folder_are_refused(tmp_path, load, name, kind):
    path = tmp_path / f"evil.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/good.jpg", b"x")
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            archive.writestr(info, b"x")
    else:
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(SuiteError, match="outside the folder"):
        load(path)
    assert not list(tmp_path.rglob("*.jpg"))


@pytest.mark.parametrize("kind", ["zip", "symlink", "hardlink"])
def test_links_are_refused(tmp_path, load, kind):
    path = tmp_path / ("evil.zip" if kind == "zip" else "evil.tar")
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            info = zipfile.ZipInfo("a/link.jpg")
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
    else:
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo("a/link.jpg")
            info.type = tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE
            info.linkname = "/etc/passwd"
            archive.addfile(info)
    with pytest.raises(SuiteError, match=r"'a/link\.jpg' is a link"):
        load(path)


FOUR = {f"set/{name}.jpg": bytes(100) for name in "abcd"}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(("limit", "most"), [("MOST_FILES", 4), ("MOST_BYTES", 400)])
def test_the_limits_of_count_and_bytes(tmp_path, unpacked, monkeypatch, kind, limit, most):
    path = pack(tmp_path / f"four.{kind}", FOUR)
    monkeypatch.setattr(archives, limit, most - 1)
    with pytest.raises(SuiteError, match=rf"four\.{kind} holds 4 files of 0 GiB or more, and "
                                         "that is more than this suite unpacks"):
        unpack_archive(path)
    assert not list(unpacked.rglob("*.jpg"))
    monkeypatch.setattr(archives, limit, most)
    assert len(list(unpack_archive(path).iterdir())) == 4


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_the_limit_of_ratio(tmp_path, unpacked, monkeypatch, kind):
    path = pack(tmp_path / f"bomb.{kind}", {"a/1.jpg": bytes(10**6)})
    monkeypatch.setattr(archives, "RATIO_FROM", 10**6 - 1)
    ratio = 10**6 / path.stat().st_size
    monkeypatch.setattr(archives, "MOST_RATIO", ratio * 0.99)
    with pytest.raises(SuiteError, match=r"to 1 MiB or more, as archive bombs do"):
        unpack_archive(path)
    assert not list(unpacked.rglob("*.jpg"))
    monkeypatch.setattr(archives, "RATIO_FROM", 10**6)  # too small to matter
    assert unpack_archive(path).is_dir()
    shutil.rmtree(unpacked)
    monkeypatch.setattr(archives, "RATIO_FROM", 0)
    monkeypatch.setattr(archives, "MOST_RATIO", ratio * 1.01)
    assert unpack_archive(path).is_dir()


def test_the_limits_suit_real_data_and_real_bombs(tmp_path):
    assert 10**6 <= archives.MOST_FILES <= 10**7  # ImageNet has 1.4 million files
    assert 200 * 2**30 <= archives.MOST_BYTES <= 2**40  # ... of 150 GiB
    path = pack(tmp_path / "bomb.zip", {"a/1.jpg": bytes(120 * 2**20)})
    with pytest.raises(SuiteError, match=r"grow from 0\.1 MiB to 120 MiB or more, as archive"):
        unpack_archive(path)


@pytest.mark.parametrize(("limit", "most"), [("MOST_FILES", 2), ("MOST_BYTES", 200),
                                             ("MOST_RATIO", 0)])
def test_a_tar_bomb_is_left_before_it_is_listed_whole(tmp_path, monkeypatch, limit, most):
    path = pack(tmp_path / "bomb.tar", FOUR)
    with tarfile.open(path, "a") as archive:  # refused for the link, were it read to its end
        link = tarfile.TarInfo("link.jpg")
        link.type = tarfile.SYMTYPE
        archive.addfile(link)
    monkeypatch.setattr(archives, "RATIO_FROM", 0)
    with pytest.raises(SuiteError, match="is a link"):
        unpack_archive(path)
    monkeypatch.setattr(archives, limit, most)
    with pytest.raises(SuiteError, match=r"more than this suite unpacks|archive bombs"):
        unpack_archive(path)


def test_what_macos_and_old_windows_put_into_archives(tmp_path, load):
    path = tmp_path / "photos.zip"
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("set/train/a/1.jpg", "set/train/b/2.jpg", "set/test/a/3.jpg",
                     "set/notes/readme.txt", "__MACOSX/set/train/a/._1.jpg", "set/.DS_Store"):
            info = zipfile.ZipInfo("placeholder")
            info.filename = name.replace("/", "\\") if "2" in name else name
            archive.writestr(info, stream.getvalue())
    table = load(path)
    assert table.groupby(["split", "label"]).size().to_dict() == {
        ("test", "a"): 1, ("train", "a"): 1, ("train", "b"): 1}


def test_an_archive_needs_room_for_all_of_it(tmp_path, unpacked, monkeypatch):
    path, usage = pack(tmp_path / "four.zip", FOUR), shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=399))
    with pytest.raises(SuiteError, match=r"needs 0 MiB in .* where 0 MiB are free"):
        unpack_archive(path)
    assert not list(unpacked.rglob("*.jpg"))
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=400))
    assert unpack_archive(path).is_dir()


def test_an_unpacking_that_continues_needs_room_for_the_rest(tmp_path, monkeypatch):
    path, usage, real = pack(tmp_path / "four.zip", FOUR), shutil.disk_usage(tmp_path), (
        archives._write_member)

    def stop_at_the_last(member, target):
        if member.name == "set/d.jpg":
            raise KeyboardInterrupt
        real(member, target)

    monkeypatch.setattr(archives, "_write_member", stop_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        unpack_archive(path)
    monkeypatch.setattr(archives, "_write_member", real)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=99))
    with pytest.raises(SuiteError, match="are free"):
        unpack_archive(path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=100))
    assert len(list(unpack_archive(path).iterdir())) == 4


# --- two at once, and disks that refuse

UNPACK = """
import sys, time
from pathlib import Path
from helpers.data import archives

archives.UNPACKED, real = Path(sys.argv[2]), archives._write_member

def write_slowly(member, target):
    print("wrote", flush=True)
    time.sleep(0.5)
    real(member, target)

archives._write_member = write_slowly
print(archives.unpack_archive(Path(sys.argv[1])))
"""


def test_two_processes_unpack_one_archive_once(tmp_path, unpacked):
    path = pack(tmp_path / "four.zip", FOUR)
    command = [sys.executable, "-c", UNPACK, str(path), str(unpacked)]
    first = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)
    assert first.stdout.readline().startswith("four.zip unpacks")
    assert first.stdout.readline() == "wrote\n"  # so it is at work when the second starts
    second = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=60)
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 0 and second.returncode == 0, second.stderr
    assert output.splitlines()[-1] == second.stdout.splitlines()[-1]
    assert output.count("wrote") == 3 and "wrote" not in second.stdout
    assert "another process is making" in second.stdout
    assert len(list_unpacked(unpacked)) == 1


def test_what_the_disk_refuses_is_said(tmp_path, unpacked, monkeypatch):
    path = pack(tmp_path / "four.zip", FOUR)

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(SuiteError, match=r"four\.zip cannot be unpacked to .*Read-only"):
            unpack_archive(path)
    with monkeypatch.context() as patch:
        patch.setattr(archives.FileLock, "acquire", refuse)
        with pytest.raises(SuiteError, match=r"unpacked cannot be written .*Read-only"):
            unpack_archive(path)
        patch.undo()
        folder = unpack_archive(path)
        patch.setattr(archives.FileLock, "acquire", refuse)
        assert unpack_archive(path) == folder  # what is there needs no lock


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_can_lie_about_its_size_is_refused(tmp_path, method):
    """A few hundred bytes of bzip2 whose header says 10 would take a gigabyte of memory."""
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a/1.jpg", bytes(1000))
    with pytest.raises(SuiteError, match=r"pack it anew as a usual \.zip"):
        unpack_archive(path)


def test_a_run_on_another_machine_finds_its_images_again(folders, tmp_path, load, unpacked):
    """The archive has another place and time there, and nothing is unpacked yet."""
    first = pack_folder(tmp_path / "waste.zip", folders)
    table = load(first)
    shutil.rmtree(unpacked)
    second = tmp_path / "elsewhere" / "waste.zip"
    second.parent.mkdir()
    first.rename(second)
    os.utime(second, (1, 1))
    assert not Path(table.path[0]).exists()
    recipe = load_recipe("demo", {"source": "folders", "data": str(second), "generate": None})
    restore_images(recipe, table)
    assert all(Path(path).exists() for path in table.path)
