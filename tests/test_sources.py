"""Layouts and archives: each gives the same table, and bad ones say what is wrong."""

import io
import pickle
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import archives
from helpers.cifar import load_pickle
from helpers.errors import SuiteError
from helpers.images import UnreadableImageError, decode_image
from helpers.inspection import inspect_images
from helpers.recipe import load_recipe
from helpers.sources import load_table


@pytest.fixture(autouse=True)
def unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "UNPACKED", tmp_path / "unpacked")
    return tmp_path / "unpacked"


@pytest.fixture
def load(write_recipe):
    """Load the table of a recipe for `data`."""
    return lambda data, **settings: load_table(
        load_recipe(write_recipe("tiny", data, **settings)))


@pytest.fixture
def photos(tmp_path) -> Path:
    """Four small images beside an empty place for a table."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("a.jpg", "b c.jpg", "é.jpg", "D.JPG")):
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(folder / name, "JPEG")
    return folder


def write_table(photos: Path, text: str, encoding: str = "utf-8") -> Path:
    (photos / "table.csv").write_bytes(text.encode(encoding))
    return photos


GOOD = "image,label\na.jpg,x\nb c.jpg,y\né.jpg,x\nD.JPG,y\n"


# --- archives

def zip_of(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, Path("top") / file.relative_to(folder))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_is_unpacked_once(folders, tmp_path, load, kind, unpacked, capsys):
    path = tmp_path / f"digits.{kind}"
    if kind == "zip":
        zip_of(path, folders)
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folders, "top")
    table = load(path, source="folders")
    assert table.label.value_counts().to_dict() == {f"digit {n}": 12 for n in (0, 3, 6)}
    assert "MiB are free" in capsys.readouterr().out
    before = {p: p.stat().st_mtime_ns for p in unpacked.rglob("*")}
    assert load(path, source="folders").equals(table)
    assert {p: p.stat().st_mtime_ns for p in unpacked.rglob("*")} == before
    assert len(list(unpacked.iterdir())) == 1


def test_an_interrupted_unpacking_continues(folders, tmp_path, load, unpacked, monkeypatch):
    path, real, written = zip_of(tmp_path / "digits.zip", folders), archives._write_member, []

    def stop_after_ten(member, target):
        if len(written) == 10:
            raise KeyboardInterrupt
        written.append(target)
        real(member, target)

    monkeypatch.setattr(archives, "_write_member", stop_after_ten)
    with pytest.raises(KeyboardInterrupt):
        load(path, source="folders")
    times = {p: p.stat().st_mtime_ns for p in written}
    monkeypatch.setattr(archives, "_write_member", real)
    table = load(path, source="folders")
    assert len(table) == 36 and len(list(unpacked.iterdir())) == 1
    moved = [unpacked / next(unpacked.iterdir()).name / Path(*p.relative_to(unpacked).parts[1:])
             for p in written]
    assert [p.stat().st_mtime_ns for p in moved] == list(times.values())


def test_a_truncated_zip_is_refused_and_leaves_nothing(folders, tmp_path, load, unpacked):
    path = zip_of(tmp_path / "digits.zip", folders)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(SuiteError, match=r"digits\.zip is damaged or no archive"):
        load(path, source="folders")
    assert not [p for p in unpacked.glob("*") if not p.name.startswith(".")]


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
        load(path, source="folders")
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
        load(path, source="folders")


def test_a_bomb_is_refused(tmp_path, load, unpacked, monkeypatch):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.jpg", bytes(120 * 2**20))
    with pytest.raises(SuiteError, match="as archive bombs do"):
        load(path, source="folders")
    monkeypatch.setattr(archives, "MOST_FILES", 0)
    with pytest.raises(SuiteError, match="more than this suite unpacks"):
        load(path, source="folders")
    assert not list(unpacked.rglob("*.jpg"))


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
    table = load(path, source="folders")
    assert table.groupby(["split", "label"]).size().to_dict() == {
        ("test", "a"): 1, ("train", "a"): 1, ("train", "b"): 1}


def test_an_archive_that_does_not_fit_is_refused(folders, tmp_path, load, monkeypatch):
    path = zip_of(tmp_path / "digits.zip", folders)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(SuiteError, match=r"needs 0 MiB in .* where 0 MiB are free"):
        load(path, source="folders")


# --- tables

@pytest.mark.parametrize(("text", "encoding"), [
    (GOOD, "utf-8"), (GOOD, "utf-8-sig"), (GOOD, "cp1252"),
    (GOOD.replace(",", ";"), "cp1252"), (GOOD.replace(",", "\t"), "utf-8"),
    (GOOD.replace("\n", "\r\n"), "utf-8"), (GOOD.replace(",x", ",x  "), "utf-8"),
])
def test_a_csv_of_any_spreadsheet_is_read(photos, load, text, encoding):
    table = load(write_table(photos, text, encoding), source="csv", csv="table.csv")
    assert list(table.label) == ["x", "y", "x", "y"]
    assert all(Path(path).is_file() for path in table.path)
    assert inspect_images(table).reason.eq("").all()


@pytest.mark.parametrize(("text", "words"), [
    ("image,label,label\na.jpg,x,y\n", "two columns named 'label'"),
    (GOOD.replace("label", "class"), "no column 'label'; it has: image, class"),
    (GOOD.replace("a.jpg,x", "a.jpg,"), r"1 training images have no label, e\.g\. a\.jpg"),
    (GOOD.replace("a.jpg,x", "a.jpg,  "), "1 training images have no label"),
    (GOOD.replace("a.jpg,x", ",x"), "column 'image' is empty in 1 rows"),
    (GOOD + "a.jpg,x\n", r"1 images stand in more than one row, e\.g\. a\.jpg"),
    (GOOD + "a.jpg,y\n", "more than one row"),
    (GOOD.replace("D.JPG", "d.jpg"), r"d\.jpg\. Put them in place \(names must match"),
    (GOOD.replace("a.jpg,x", "a.jpg,X"), "'X' and 'x' look like one class"),
    (GOOD.replace("x", "1").replace("é.jpg,1", "é.jpg,1.0"), "'1' and '1.0' look like one"),
    (GOOD.replace(",y", ",x"), "holds 1 class"),
    ("", "no column 'image'|cannot be read as CSV"),
])
def test_a_bad_table_says_what_is_wrong(photos, load, text, words):
    with pytest.raises(SuiteError, match=words):
        load(write_table(photos, text), source="csv", csv="table.csv")


def test_columns_of_the_suites_own_names_are_kept_under_others(photos, load, capsys):
    text = GOOD.replace("label", "label,group,width").replace(",x", ",x,7,9").replace(
        ",y", ",y,8,9")
    table = load(write_table(photos, text), source="csv", csv="table.csv",
                 group_column="csv_group")
    assert list(table.csv_group) == ["7", "8", "7", "8"] and "width" not in table
    assert "kept as csv_group, csv_width" in capsys.readouterr().out


def test_a_separator_at_the_end_of_each_line_does_no_harm(photos, load):
    text = GOOD.replace("\n", ",\n").replace("label,", "label", 1)
    table = load(write_table(photos, text), source="csv", csv="table.csv")
    assert list(table.label) == ["x", "y", "x", "y"]


def test_spaces_around_labels_are_taken_away_and_said(photos, load, capsys):
    load(write_table(photos, GOOD.replace(",x", ", x ")), source="csv", csv="table.csv")
    assert "took spaces from around 2 labels" in capsys.readouterr().out


def test_a_csv_may_name_its_splits(photos, load):
    text = "image,label,part\na.jpg,x,train\nb c.jpg,y,VAL\né.jpg,x,test\nD.JPG,,test\n"
    settings = {"source": "csv", "csv": "table.csv", "split_column": "part"}
    table = load(write_table(photos, text), **settings)
    assert list(table.split) == ["train", "train", "test", "test"]
    with pytest.raises(SuiteError, match="'holiday' in column 'part' is none of train"):
        load(write_table(photos, text.replace("VAL", "holiday")), **settings)
    with pytest.raises(SuiteError, match="no column 'camera' to group by"):
        load(write_table(photos, text), **settings, group_column="camera")
    with pytest.raises(SuiteError, match="needs `csv`"):
        load(photos, source="csv")


def test_own_split_folders_are_kept(folders, tmp_path, load):
    for part in ("train", "val", "test"):
        shutil.copytree(folders, tmp_path / "data" / part)
    table = load(tmp_path / "data", source="folders")
    assert table.split.value_counts().to_dict() == {"train": 72, "test": 36}
    assert table.label.nunique() == 3 and table.label.notna().all()


def test_rakutens_text_and_product_are_kept(demo, load):
    table = load(demo, source="rakuten")
    assert table.designation.str.contains("zéro").any()
    assert table.productid.notna().all() and table.description.isna().any()


# --- alternating photos

@pytest.fixture
def alternating(tmp_path) -> Path:
    folder = tmp_path / "pairs"
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(12):
        name, infrared = f"{number:04d}.jpg", number % 2
        Image.new("RGB", (8, 8), (200 * (1 - infrared), 90, 90)).save(folder / "images" / name)
        rows.append(f"{name},{'ab'[number // 6]},{'infrared' if infrared else 'rgb'}")
    (folder / "labels.csv").write_text("image,label,kind\n" + "\n".join(rows) + "\n")
    return folder


def test_positions_count_nine_before_ten(alternating, load):
    for path in sorted((alternating / "images").iterdir(), reverse=True):
        path.rename(path.with_name(f"{int(path.stem)}.jpg"))
    (alternating / "images/._1.jpg").touch()
    text = (alternating / "labels.csv").read_text()
    (alternating / "labels.csv").write_text(re.sub(r"(?m)^0*(\d+\.jpg)", r"\1", text))
    table = load(alternating, source="alternating", csv="labels.csv")
    assert list(table.image_id) == [f"{n}.jpg" for n in range(0, 12, 2)]


@pytest.mark.parametrize(("keep", "red"), [("even", 200), ("odd", 0), ("kind=rgb", 200)])
def test_one_of_two_kinds_is_kept(alternating, load, keep, red):
    table = load(alternating, source="alternating", csv="labels.csv", keep=keep)
    assert len(table) == 6 and set(table.label) == {"a", "b"}
    assert all(abs(decode_image(path).getpixel((0, 0))[0] - red) < 5 for path in table.path)


def test_a_rule_that_cannot_be_followed_is_named(alternating, load):
    settings = {"source": "alternating", "csv": "labels.csv"}
    with pytest.raises(SuiteError, match="`keep` names the column 'sensor'"):
        load(alternating, **settings, keep="sensor=rgb")
    (alternating / "images/0003.jpg").unlink()
    with pytest.raises(SuiteError, match=r"names 1 images that are not .* 0003\.jpg"):
        load(alternating, **settings)


# --- CIFAR

@pytest.fixture
def cifar(tmp_path) -> Path:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        content = {"data": rng.integers(0, 255, (count, 3072), dtype=np.uint8),
                   "fine_labels": [n % 4 for n in range(count)],
                   "coarse_labels": [n % 2 for n in range(count)]}
        (folder / split).write_bytes(pickle.dumps(content, protocol=2))
    meta = {"fine_label_names": list("abcd"), "coarse_label_names": ["even", "odd"]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    return folder


def test_cifar_100_becomes_files_with_the_same_pixels(cifar, load):
    table = load(cifar, source="cifar")
    assert table.split.value_counts().to_dict() == {"train": 12, "test": 4}
    assert list(table.label[:4]) == list("abcd")
    content = load_pickle(cifar / "train")
    pixels = content["data"][5].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(decode_image(table.path[5])), pixels)
    coarse = load(cifar, source="cifar", labels="coarse")
    assert set(coarse.label) == {"even", "odd"} and list(coarse.path) == list(table.path)


def test_cifar_10_has_other_files(cifar, load):
    for number in range(1, 6):
        content = load_pickle(cifar / "train")
        part = {"data": content["data"], "labels": content["fine_labels"]}
        (cifar / f"data_batch_{number}").write_bytes(pickle.dumps(part, protocol=2))
    (cifar / "test_batch").write_bytes(pickle.dumps(part, protocol=2))
    (cifar / "batches.meta").write_bytes(pickle.dumps({"label_names": list("wxyz")}, protocol=2))
    (cifar / "meta").unlink()
    table = load(cifar, source="cifar")
    assert len(table) == 72 and set(table.label) == set("wxyz")
    with pytest.raises(SuiteError, match="no coarse labels"):
        load(cifar, source="cifar", labels="coarse")


def test_a_pickle_that_runs_code_is_refused(cifar, tmp_path, load):
    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    (cifar / "train").write_bytes(pickle.dumps({"data": Hostile()}, protocol=2))
    with pytest.raises(SuiteError, match="No code in it was run"):
        load(cifar, source="cifar")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda path: path.write_bytes(path.read_bytes()[:-500]), "no CIFAR file, or damaged"),
    (lambda path: path.write_bytes(pickle.dumps([1, 2])), "holds no dictionary"),
    (lambda path: path.write_bytes(pickle.dumps({"data": np.zeros((3, 5))})), "incomplete"),
    (lambda path: path.unlink(), "train is missing"),
])
def test_a_damaged_cifar_file_is_named(cifar, load, spoil, words):
    spoil(cifar / "train")
    with pytest.raises(SuiteError, match=words):
        load(cifar, source="cifar")


# --- images at the edge

def test_tiny_huge_and_moving_images(tmp_path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "tiny.png")
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    header = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(header, "PNG")
    (tmp_path / "huge.png").write_bytes(header.getvalue())
    table = pd.DataFrame({"image_id": ["tiny", "moving", "huge"], "label": "x", "split": "train",
                          "path": [str(tmp_path / n) for n in (
                              "tiny.png", "moving.gif", "huge.png")]})
    images = inspect_images(table, tmp_path / "thumbnails.npy").set_index("image_id")
    assert images.reason.to_dict() == {
        "tiny": "", "moving": "", "huge": "too large: may be a decompression bomb"}
    assert images.animated["moving"] and images.width["tiny"] == 1
    assert decode_image(tmp_path / "moving.gif").size == (9, 9)
    with pytest.raises(UnreadableImageError, match="too large"):
        decode_image(tmp_path / "huge.png")
