"""Data sets by name: torchvision's own readers and checks on small files, with no network."""

import errno
import hashlib
import io
import json
import pickle
import re
import subprocess
import sys
import tarfile
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from helpers import settings
from helpers.batch import _hash_data
from helpers.data import archives, cifar
from helpers.data.images import decode_image
from helpers.data.table import load_table
from helpers.data.torchvision_sets import DATA_SETS, list_downloads
from helpers.files import ROOT, SuiteError
from helpers.recipe import load_recipe
from helpers.run import open_run


@pytest.fixture(autouse=True)
def fetched(tmp_path, monkeypatch) -> Path:
    """Keep what is fetched and unpacked among the test's own files."""
    monkeypatch.setattr(archives, "UNPACKED", tmp_path / "unpacked")
    monkeypatch.setattr(settings, "FETCHED", tmp_path / "fetched")
    return tmp_path / "fetched"


class Web(dict):
    """The internet: file name -> content. What is asked for is noted; an exception is raised."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def open(self, request, *_, **__):
        name = request.full_url.rsplit("/", 1)[-1]
        self.asked.append(name)
        content = self.get(name, urllib.error.URLError("[Errno -3] no name resolution"))
        if isinstance(content, BaseException):
            raise content
        response = io.BytesIO(content)
        response.url, response.length = request.full_url, len(content)
        return response


@pytest.fixture(autouse=True)
def web(monkeypatch) -> Web:
    """An internet that is out of reach until a test puts files into it."""
    web = Web()
    monkeypatch.setattr("urllib.request.urlopen", web.open)
    return web


@pytest.fixture
def load(write_recipe):
    """Load the table of a data set by name."""
    return lambda name, **others: load_table(
        load_recipe(write_recipe("tiny", name, source="torchvision", **others)))


def draw(*paths: Path) -> None:
    """Write a small photo of its own to each path."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = int(hashlib.md5(str(path).encode()).hexdigest()[:2], 16)
        Image.new("RGB", (8, 8), (shade, 90, 90)).save(path, "JPEG")


def write(path: Path, content: str | bytes | dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict):
        savemat(path, content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def pack(folder: Path) -> bytes:
    """Return a .tar.gz of a folder."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.add(folder, folder.name)
    return stream.getvalue()


# --- downloads

BREEDS = ("Abyssinian_1 1 1 1\nAbyssinian_2 1 1 1\nbull_dog_1 2 2 1\n",
          "Abyssinian_3 1 1 1\nbull_dog_2 2 2 1\n")


@pytest.fixture
def pets(tmp_path, web, monkeypatch) -> Web:
    """Put small archives in the layout of the Oxford pets on the web, with checksums that fit."""
    place = tmp_path / "pets"
    for name, text in zip(("trainval.txt", "test.txt"), BREEDS, strict=True):
        write(place / "annotations" / name, text)
        draw(*(place / "images" / f"{line.split()[0]}.jpg" for line in text.splitlines()))
    resources = []
    for url, _ in datasets.OxfordIIITPet._RESOURCES:
        name = url.rsplit("/", 1)[-1]
        web[name] = pack(place / name.split(".")[0])
        resources.append((url, md5(web[name])))
    monkeypatch.setattr(datasets.OxfordIIITPet, "_RESOURCES", tuple(resources))
    return web


def check_pets(table, fetched: Path) -> None:
    assert table.groupby("split").label.value_counts().to_dict() == {
        ("train", "Abyssinian"): 2, ("train", "Bull Dog"): 1,
        ("test", "Abyssinian"): 1, ("test", "Bull Dog"): 1}
    assert table.image_id[0] == "oxford-iiit-pet/images/Abyssinian_1.jpg"
    assert [Path(path) for path in table.path] == [
        fetched / "OxfordIIITPet" / name for name in table.image_id]
    assert not list(fetched.rglob("*.gz")) and not list(fetched.glob("*.partial"))


def test_a_data_set_is_downloaded_once_and_keeps_its_test_images(pets, fetched, load):
    check_pets(load("OxfordIIITPet"), fetched)
    asked, _ = list(pets.asked), pets.clear()
    check_pets(load("OxfordIIITPet"), fetched)
    assert pets.asked == asked and set(asked) == {"images.tar.gz", "annotations.tar.gz"}


def test_the_batch_downloads_it_and_hashes_its_files(pets, fetched, write_recipe):
    run = open_run(write_recipe("by_name", "OxfordIIITPet", source="torchvision"))
    digest = _hash_data(run)
    assert digest == _hash_data(run)
    draw(fetched / "OxfordIIITPet/oxford-iiit-pet/images/new.jpg")
    assert digest != _hash_data(run)


def test_without_internet_one_sentence_says_what_goes_where(pets, fetched, load):
    content = dict(pets)
    pets.clear()
    with pytest.raises(SuiteError) as caught:
        load("OxfordIIITPet")
    text = str(caught.value)
    assert "\n" not in text and text.count(". ") == 0 and text.endswith(".")
    assert "OxfordIIITPet could not be downloaded (<urlopen error [Errno -3]" in text
    assert not [path for path in fetched.iterdir() if path.suffix != ".lock"]
    folder = Path(re.search(r"into (\S+) first", text)[1])
    for url in re.findall(r"https://\S+", text):  # do as it says, one file cut short
        name = url.rsplit("/", 1)[-1]
        write(folder / name, content[name][: -20 if name == "images.tar.gz" else None])
    with pytest.raises(SuiteError, match=r"/images\.tar\.gz into \S+ first \(images\.tar\.gz in "
                                         r"there was damaged\)\.$"):
        load("OxfordIIITPet")
    assert [path.name for path in folder.iterdir()] == ["annotations.tar.gz"]
    write(folder / "images.tar.gz", content["images.tar.gz"])
    check_pets(load("OxfordIIITPet"), fetched)


def test_an_interrupted_download_is_continued_and_half_a_folder_is_not_believed(
        pets, fetched, load):
    annotations, pets["annotations.tar.gz"] = pets["annotations.tar.gz"], KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        load("OxfordIIITPet")
    partial = fetched / "OxfordIIITPet.partial/oxford-iiit-pet"
    assert [path.name for path in partial.iterdir()] == ["images.tar.gz"]
    # As a killed process leaves it: torchvision would be content with two folders.
    draw(partial / "images/Abyssinian_1.jpg")
    (partial / "annotations/trimaps").mkdir(parents=True)
    pets.asked.clear()
    pets["annotations.tar.gz"] = annotations
    check_pets(load("OxfordIIITPet"), fetched)
    assert set(pets.asked) == {"annotations.tar.gz"}


def test_an_archive_without_checksum_is_not_used_again_when_it_is_damaged(tmp_path, web, load):
    place = tmp_path / "fgvc-aircraft-2013b"
    write(place / "data/variants.txt", "707-320\nDC-3\n")
    for part in ("trainval", "test"):
        rows = [f"{part}{number}" for number in range(2)]
        write(place / f"data/images_variant_{part}.txt",
              f"{rows[0]} DC-3\n{rows[1]} 707-320\n")
        draw(*(place / f"data/images/{name}.jpg" for name in rows))
    name = f"{place.name}.tar.gz"
    whole = pack(place)
    web[name] = whole[: len(whole) // 2]  # the connection ends, and nothing tells
    with pytest.raises(SuiteError, match=r"FGVCAircraft could not be downloaded \(.*ended"):
        load("FGVCAircraft")
    web[name] = whole
    table = load("FGVCAircraft")
    assert list(table.label) == ["DC-3", "707-320"] * 2
    assert list(table.split) == ["train", "train", "test", "test"]


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="this Python cannot refuse")
def test_an_archive_writes_nothing_outside_its_folder(tmp_path, fetched, web, load):
    write(tmp_path / "hostile", "text")
    with tarfile.open(tmp_path / "hostile.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "hostile", "../../escaped")
    web["fgvc-aircraft-2013b.tar.gz"] = (tmp_path / "hostile.tar.gz").read_bytes()
    with pytest.raises(SuiteError, match="outside the destination"):
        load("FGVCAircraft")
    assert not list(tmp_path.rglob("escaped"))


def test_a_full_disk_is_not_taken_for_the_network(pets, fetched, load):
    pets["annotations.tar.gz"] = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(SuiteError, match=r"cannot write .*Pet\.partial \(No space left"):
        load("OxfordIIITPet")
    assert [p.name for p in fetched.rglob("*.*") if p.is_file() and p.suffix != ".lock"] == [
        "images.tar.gz"]  # a finished download


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_data_set_names_its_downloads(name, tmp_path):
    files = list_downloads(name, tmp_path / name)
    assert files and len({path.parent for path in files}) == 1
    for path, (url, checksum) in files.items():
        assert path.is_relative_to(tmp_path / name) and re.match(r"https?://.+/.+", url)
        assert re.fullmatch("[0-9a-f]{32}", checksum or "") or name == "FGVCAircraft"
    assert not (tmp_path / name).exists()


# --- images that are files

def lay_flowers(place: Path, monkeypatch) -> None:
    place /= "flowers-102"
    draw(*(place / f"jpg/image_{number:05d}.jpg" for number in range(1, 7)))
    known = dict(datasets.Flowers102._file_dict)
    for key, content in (("label", {"labels": [[1, 1, 2, 2, 1, 2]]}), (
            "setid", {"trnid": [[1, 3]], "valid": [[2, 4]], "tstid": [[5, 6]]})):
        path = write(place / known[key][0], content)
        known[key] = path.name, md5(path.read_bytes())
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", known)


def lay_eurosat(place: Path, _) -> None:
    draw(*(place / f"eurosat/2750/{name}/{name}_{number}.jpg"
           for name in ("Forest", "River") for number in range(2)))


def lay_imagenette(place: Path, _) -> None:
    draw(*(place / f"imagenette2/{part}/{name}/{part}_{name}.JPEG"
           for part in ("train", "val") for name in ("n01440764", "n02102040")))


def lay_food(place: Path, _) -> None:
    for part in ("train", "test"):
        names = {"soup": [f"soup/{part}"], "pie": [f"pie/{part}"]}
        write(place / f"food-101/meta/{part}.json", json.dumps(names))
        draw(*(place / f"food-101/images/{name}.jpg" for [name] in names.values()))


def lay_caltech(place: Path, _) -> None:
    draw(*(place / f"caltech101/101_ObjectCategories/{name}/image_000{number}.jpg"
           for name in ("BACKGROUND_Google", "ant", "chair") for number in (1, 2)))


def lay_signs(place: Path, _) -> None:
    place /= "gtsrb"
    draw(place / "GTSRB/Training/00000/0.ppm", place / "GTSRB/Training/00001/0.ppm",
         place / "GTSRB/Final_Test/Images/0.ppm")
    write(place / "GT-final_test.csv", "Filename;ClassId\n0.ppm;1\n")


def lay_textures(place: Path, _) -> None:
    for part in ("train", "val", "test"):
        names = [f"{name}/{part}.jpg" for name in ("dotted", "woven")]
        draw(*(place / "dtd/dtd/images" / name for name in names))
        write(place / f"dtd/dtd/labels/{part}1.txt", "\n".join(names))


def lay_countries(place: Path, _) -> None:
    draw(*(place / f"country211/{part}/{name}/{part}.jpg"
           for part in ("train", "valid", "test") for name in ("NA", "NZ")))


@pytest.mark.parametrize(("name", "lay", "labels", "train", "test"), [
    ("Flowers102", lay_flowers, {"pink primrose", "hard-leaved pocket orchid"}, 4, 2),
    ("EuroSAT", lay_eurosat, {"Forest", "River"}, 4, 0),
    ("Imagenette", lay_imagenette, {"tench", "English springer"}, 4, 0),
    ("Food101", lay_food, {"soup", "pie"}, 2, 2),
    ("Caltech101", lay_caltech, {"ant", "chair"}, 4, 0),
    ("GTSRB", lay_signs, {"0", "1"}, 2, 1),
    ("DTD", lay_textures, {"dotted", "woven"}, 4, 2),
    ("Country211", lay_countries, {"NA", "NZ"}, 4, 2),
])
def test_files_are_used_in_place(name, lay, labels, train, test, fetched, load, monkeypatch):
    lay(fetched / name, monkeypatch)
    table = load(name)
    assert set(table.label) == labels
    assert ((table.split == "train").sum(), (table.split == "test").sum()) == (train, test)
    assert all(Path(path).is_relative_to(fetched / name) for path in table.path)
    if name in ("EuroSAT", "Food101", "Caltech101", "DTD", "Country211"):
        assert list(table.label) == [Path(path).parent.name for path in table.path]


# --- images that lie in arrays

def lay_digits(place: Path, _) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("t10k", 2)):
        head = b"".join(n.to_bytes(4, "big") for n in (0x803, count, 28, 28))
        write(place / f"MNIST/raw/{part}-images-idx3-ubyte",
              head + rng.integers(0, 255, (count, 28, 28), np.uint8).tobytes())
        write(place / f"MNIST/raw/{part}-labels-idx1-ubyte", b"".join(
            n.to_bytes(4, "big") for n in (0x801, count)) + bytes(n % 2 for n in range(count)))


def lay_house_numbers(place: Path, monkeypatch) -> None:
    rng, known = np.random.default_rng(0), dict(datasets.SVHN.split_list)
    for part, count in (("train", 6), ("test", 2)):
        url, name, _ = known[part]
        path = write(place / name, {"X": rng.integers(0, 255, (32, 32, 3, count), np.uint8),
                                    "y": [[1 + 9 * (n % 2)] for n in range(count)]})
        known[part] = [url, name, md5(path.read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", known)


def lay_objects(place: Path, monkeypatch) -> None:
    place /= "stl10_binary"
    rng = np.random.default_rng(0)
    sizes = {"train": 6, "test": 2, "unlabeled": 1}
    for part, count in sizes.items():
        pixels = rng.integers(0, 255, (count, 3, 96, 96), np.uint8)
        write(place / f"{part}_X.bin", pixels.tobytes())
        write(place / f"{part}_y.bin", bytes(1 + n % 2 for n in range(count)))
    write(place / "class_names.txt", "plane\nbird\n")
    for key in ("train_list", "test_list"):
        names = [name for name, _ in getattr(datasets.STL10, key)]
        monkeypatch.setattr(datasets.STL10, key,
                            [[name, md5((place / name).read_bytes())] for name in names])


@pytest.mark.parametrize(("name", "lay", "labels"), [
    ("MNIST", lay_digits, ["0 - zero", "1 - one"]), ("SVHN", lay_house_numbers, ["1", "0"]),
    ("STL10", lay_objects, ["plane", "bird"]),
])
def test_arrays_become_files_with_the_same_pixels(name, lay, labels, fetched, load, monkeypatch):
    lay(fetched / name, monkeypatch)
    table = load(name)
    assert list(table.label) == labels * 4 and list(table.split) == ["train"] * 6 + ["test"] * 2
    options = {"train": False} if name == "MNIST" else {"split": "test"}
    for path, (image, _) in zip(table.path[6:], getattr(datasets, name)(
            fetched / name, **options), strict=True):
        assert np.array_equal(decode_image(path), image.convert("RGB"))


def test_a_conversion_that_was_stopped_starts_again(fetched, load, monkeypatch):
    lay_digits(fetched / "MNIST", monkeypatch)
    with monkeypatch.context() as context:
        def stop(*_):
            raise KeyboardInterrupt

        context.setattr(cifar, "_write_images", stop)
        with pytest.raises(KeyboardInterrupt):
            load("MNIST")
    assert not [p for p in archives.UNPACKED.iterdir() if p.is_dir()]
    table = load("MNIST")
    assert all(Path(path).is_file() for path in table.path)
    before = [Path(path).stat().st_mtime_ns for path in table.path]
    load("MNIST")  # and is done once
    assert before == [Path(path).stat().st_mtime_ns for path in table.path]


def test_damaged_files_are_named(fetched, load, monkeypatch):
    lay_digits(fetched / "MNIST", monkeypatch)
    path = fetched / "MNIST/MNIST/raw/train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SuiteError, match=r"MNIST is incomplete or damaged .*Delete it"):
        load("MNIST")


def test_torchvision_downloads_cifar_but_reads_no_pickle(
        tmp_path, fetched, web, load, monkeypatch):
    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    place = tmp_path / "cifar-100-python"
    good = {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [0, 1], "coarse_labels": [0, 0]}
    meta = {"fine_label_names": ["cat", "dog"], "coarse_label_names": ["pet"]}
    for name, content in (("train", good), ("test", good), ("meta", meta)):
        write(place / name, pickle.dumps(content, protocol=2))

    def publish():
        web["cifar-100-python.tar.gz"] = pack(place)
        for key, value in (("tgz_md5", md5(web["cifar-100-python.tar.gz"])),
                           ("train_list", [["train", md5((place / "train").read_bytes())]]),
                           ("test_list", [["test", md5((place / "test").read_bytes())]])):
            monkeypatch.setattr(datasets.CIFAR100, key, value)

    publish()
    table = load("CIFAR100")
    assert list(table.label) == ["cat", "dog"] * 2 and "test" in set(table.split)
    assert len(web.asked) == 2  # where the address leads, and the file
    (fetched / "CIFAR100").rename(tmp_path / "aside")
    write(place / "train", pickle.dumps({"data": Hostile()}, protocol=2))
    publish()
    with pytest.raises(SuiteError, match="No code in it was run"):
        load("CIFAR100")
    assert not (tmp_path / "touched").exists()


# --- names

def test_layouts_do_not_load_torchvision():
    code = "import sys, helpers.data.table; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
