"""CIFAR: the same pixels as files, and pickles that cannot harm."""

import pickle
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.data import archives
from helpers.data.cifar import load_pickle
from helpers.data.images import decode_image
from helpers.data.table import load_table
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
        load_recipe(write_recipe("tiny", data, source="cifar", **settings)))


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
    table = load(cifar)
    assert table.split.value_counts().to_dict() == {"train": 12, "test": 4}
    assert list(table.label[:4]) == list("abcd")
    content = load_pickle(cifar / "train")
    pixels = content["data"][5].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(decode_image(table.path[5])), pixels)
    coarse = load(cifar, labels="coarse")
    assert set(coarse.label) == {"even", "odd"} and list(coarse.path) == list(table.path)


def test_cifar_10_has_other_files(cifar, load):
    for number in range(1, 6):
        content = load_pickle(cifar / "train")
        part = {"data": content["data"], "labels": content["fine_labels"]}
        (cifar / f"data_batch_{number}").write_bytes(pickle.dumps(part, protocol=2))
    (cifar / "test_batch").write_bytes(pickle.dumps(part, protocol=2))
    (cifar / "batches.meta").write_bytes(pickle.dumps({"label_names": list("wxyz")}, protocol=2))
    (cifar / "meta").unlink()
    table = load(cifar)
    assert len(table) == 72 and set(table.label) == set("wxyz")
    with pytest.raises(SuiteError, match="no coarse labels"):
        load(cifar, labels="coarse")


# --- pickles that load

@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", ["_core", "core"])
def test_arrays_of_every_numpy_are_read(tmp_path, protocol, core):
    content = {"data": np.arange(24, dtype=np.uint8).reshape(2, 12), "raw": b"\x00\xff",
               "floats": np.arange(6.0).reshape(2, 3).T, "big": np.arange(3, dtype=">i4")}
    written = pickle.dumps(content, protocol)
    if protocol < 4:  # later ones write the length before the name
        written = written.replace(b"cnumpy._core.", f"cnumpy.{core}.".encode())
    (tmp_path / "file").write_bytes(written)
    read = load_pickle(tmp_path / "file")
    assert read.keys() == content.keys() and read["raw"] == b"\x00\xff"
    for name in ("data", "floats", "big"):
        assert np.array_equal(read[name], content[name])
        assert read[name].dtype.newbyteorder("=") == content[name].dtype.newbyteorder("=")


def test_a_file_written_by_python_2_is_read(tmp_path):
    raw = b"\x01\x80\xff\x00"
    (tmp_path / "file").write_bytes(
        b"\x80\x02}q\x01U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray"
        b"\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02K\x02\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K"
        b"\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04"
        + raw + b"tbs.")
    assert load_pickle(tmp_path / "file")["data"].tolist() == [[1, 128], [255, 0]]


# --- pickles that would harm

def test_a_pickle_that_runs_code_is_refused(cifar, tmp_path, load):
    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    (cifar / "train").write_bytes(pickle.dumps({"data": Hostile()}, protocol=2))
    with pytest.raises(SuiteError, match="No code in it was run"):
        load(cifar)
    assert not (tmp_path / "touched").exists()


def write(path: Path, **content) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def relabel(path: Path, labels) -> None:
    write(path, data=np.zeros((12, 3072), np.uint8), fine_labels=labels)


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda path: path.write_bytes(path.read_bytes()[:-500]), "no CIFAR file, or damaged"),
    (lambda path: path.write_bytes(pickle.dumps([1, 2])), "holds no dictionary"),
    (lambda path: write(path, data=np.zeros((3, 5))), "train part is incomplete"),
    (lambda path: path.unlink(), "train is missing"),
    (lambda path: relabel(path, [0, 1, 2] * 4), None),
    (lambda path: relabel(path, [-1, 1, 2] * 4), "label -1 is none of its 4 classes"),
    (lambda path: relabel(path, [4, 1, 2] * 4), "label 4 is none of its 4 classes"),
    (lambda path: relabel(path, [10**30, 1, 2] * 4), "label 10+ is none of its 4 classes"),
    (lambda path: relabel(path, [0.5, 1, 2] * 4), r"label 0\.5 is none of its 4 classes"),
    (lambda path: relabel(path, ["a"] * 12), "label 'a' is none of its 4 classes"),
    (lambda path: relabel(path, [0, 1]), r"pixels of shape \(12, 3072\) instead of \(2,"),
    (lambda path: relabel(path, None), "train part is incomplete"),
    (lambda path: write(path, fine_labels=[0], data=np.zeros((1, 3072))), "no array of uint8"),
    (lambda path: write(path, fine_labels=[0], data=[[0] * 3072]), "no array of uint8"),
    (lambda path: write(path, fine_labels=[0], data=np.array(0, np.uint8)), "incomplete"),
    (lambda path: write(path.with_name("meta"), fine_label_names=4), "meta names no classes"),
])
def test_a_damaged_cifar_file_is_named(cifar, load, spoil, words):
    spoil(cifar / "train")
    if words is None:
        assert len(load(cifar)) == 16
    else:
        with pytest.raises(SuiteError, match=words):
            load(cifar)


ARRAY = b"cnumpy\nndarray\n"
DTYPE = b"cnumpy\ndtype\n"
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n" + ARRAY + b"K\x00\x85C\x01b\x87R"
ADDRESS = struct.pack("<Q", 0xDEAD)


def name_dtype(code: str, order: str = "|") -> bytes:
    """Return a pickled dtype, with a byte order that may be anything."""
    text = [b"X" + struct.pack("<I", len(name)) + name.encode() for name in (code, order)]
    return (DTYPE + text[0] + b"\x89\x88\x87R(K\x03" + text[1]
            + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")


def build_array(shape: bytes, dtype: bytes, raw: bytes = ADDRESS) -> bytes:
    """Return a pickled array: `shape` and `dtype` as pickled, `raw` as bytes."""
    return EMPTY + b"(K\x01" + shape + dtype + b"\x89C" + bytes([len(raw)]) + raw + b"tb"


ONE = b"K\x01\x85"
HOSTILE = {
    "the array type called": ARRAY + ONE + DTYPE + b"X\x01\0\0\0O\x85RC\x08" + ADDRESS + b"\x87R",
    "called over a buffer": ARRAY + ONE + b"X\x01\0\0\0OC\x08" + ADDRESS + b"\x87R",
    "called by NEWOBJ": ARRAY + ONE + b"X\x01\0\0\0OC\x08" + ADDRESS + b"\x87\x81",
    "called by INST": b"(" + ONE + b"inumpy\nndarray\n",
    "called by OBJ": b"(" + ARRAY + ONE + b"o",
    "an array of objects": build_array(ONE, name_dtype("O")),
    "objects as O8": build_array(ONE, name_dtype("O8")),
    "objects in a record": build_array(ONE, name_dtype("u1", "O,"), ADDRESS + b"1"),
    "objects as byte order": build_array(ONE, name_dtype("u8", "O,"), ADDRESS * 2),
    "numbers in a record": build_array(ONE, name_dtype("u1", "u1,"), b"12"),
    "an unknown order": (b"cnumpy._core.numeric\n_frombuffer\n(C\x0812345678" + name_dtype("u1")
                         + b"K\x02K\x04\x86X\x01\0\0\0KtR"),
    "many numbers in one": build_array(ONE, name_dtype("u1", "8")),
    "a record": build_array(ONE, name_dtype("u4,u4")),
    "texts": build_array(ONE, name_dtype("S8")),
    "raw memory": build_array(ONE, name_dtype("V8")),
    "a dtype of objects": DTYPE + b"X\x01\0\0\0O\x85R",
    "a dtype of a type": DTYPE + ARRAY + b"\x85R",
    "a negative shape": build_array(b"J\xff\xff\xff\xff\x85", name_dtype("u1")),
    "two negative sides": build_array(b"J\xff\xff\xff\xffJ\xf8\xff\xff\xff\x86",
                                      name_dtype("u1")),
    "a huge shape": build_array(b"J\xff\xff\xff\x7f\x85", name_dtype("u1")),
    "an overflowing shape": build_array(b"\x8a\x09" + bytes(8) + b"\x01\x85", name_dtype("u1")),
    "an empty overflowing shape": build_array(b"K\0\x8a\x09" + bytes(8) + b"\x01\x86",
                                              name_dtype("u1"), b""),
    "more than there is": build_array(b"K\x02\x85", name_dtype("u8")),
    "less than there is": build_array(b"K\x01\x85", name_dtype("u1")),
    "an array never filled": EMPTY,
    "a list as raw": EMPTY + b"(K\x01" + ONE + name_dtype("u1") + b"\x89]K\x01atb",
    "a changed function": DTYPE + b"}X\x04\0\0\0callK\x01sb",
    "a changed function's slot": DTYPE + b"N}X\x04\0\0\0callK\x01s\x86b",
    "a command": b"cos\nsystem\nX\x04\0\0\0true\x85R",
    "eval": b"cbuiltins\neval\nX\x01\0\0\x001\x85R",
    "the inside of a stand-in": b"cnumpy\ndtype.call\n",
    "another encoding": b"c_codecs\ndecode\nC\x01aX\x03\0\0\0hex\x86R",
    "a name that is no text": b"\x8c\x03\xed\xa0\x80\x8c\x01a\x93",
    "nested tuples": b"})" + b"\x85" * 300_000 + b"Ns",
    "a memo of 256 MiB": b"Nr\xff\xff\xff\x00",  # and of 64 GiB with one byte more
    "a memo of 256 MiB as text": b"Np16777215\n",
    "bytes that are not there": b"\x8e" + struct.pack("<Q", 2**40),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_pickle_is_refused(tmp_path, what):
    (tmp_path / "file").write_bytes(b"\x80\x02}X\x04\0\0\0data" + HOSTILE[what] + b"s.")
    with pytest.raises(SuiteError, match="No code in it was run") as caught:
        load_pickle(tmp_path / "file")
    assert str(caught.value).encode() and len(str(caught.value)) < 600
    (tmp_path / "file").write_bytes(  # and the reader is the same afterwards
        b"\x80\x02}X\x04\0\0\0data" + build_array(ONE, name_dtype("u8", "<")) + b"s.")
    assert load_pickle(tmp_path / "file")["data"].tolist() == [0xDEAD]


def require_plain(content: dict) -> None:
    """Fail unless every array in `content`, however deep, is of plain numbers and can be read."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:  # a list may hold itself
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting += value
        elif isinstance(value, np.ndarray):
            assert value.dtype.kind in "biuf" and not value.dtype.hasobject
            assert isinstance(value.sum(), np.generic) and len(value.tobytes()) == value.nbytes


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_spoilt_bytes_give_plain_arrays_or_are_refused(tmp_path, protocol):
    rng, path = random.Random(protocol), tmp_path / "file"
    good = pickle.dumps({"data": np.arange(16, dtype=np.uint8).reshape(2, 8), "raw": b"xy",
                         "fine_labels": [0, 1], "means": np.arange(4.0)}, protocol)
    interesting = b"O|<>=SUVbcdiopqru0123456789()]}tsaeRN.\x81\x85\x86\x87\x88\x89\x93\x00\xff"
    loaded = 0
    for _ in range(600):
        spoilt = bytearray(good)
        for _ in range(rng.choice((1, 1, 2, 4))):
            place = rng.randrange(len(spoilt))
            new = bytes([rng.choice(interesting) if rng.random() < 0.5 else rng.randrange(256)])
            spoilt[place : place + rng.choice((0, 1, 1, 1, 2))] = new
        path.write_bytes(spoilt)
        try:
            content = load_pickle(path)
        except SuiteError:
            continue
        loaded += 1
        assert isinstance(content, dict)
        require_plain(content)
    assert 0 < loaded < 600


# --- two at once

READ = """
import sys, time
from pathlib import Path
from helpers.data import archives, cifar
from helpers.settings import DataSettings

archives.UNPACKED, real = Path(sys.argv[2]), cifar._write_images

def write_slowly(*arguments):
    print("wrote", flush=True)
    time.sleep(0.5)
    real(*arguments)

cifar._write_images = write_slowly
table = cifar.read_cifar(Path(sys.argv[1]), DataSettings(source="cifar", path=sys.argv[1]))
assert all(Path(path).is_file() for path in table.path)
"""


def test_two_processes_write_the_images_once(cifar, unpacked):
    command = [sys.executable, "-c", READ, str(cifar), str(unpacked)]
    first = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)
    assert first.stdout.readline() == "wrote\n"  # so it is at work when the second starts
    second = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=60)
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 0 and second.returncode == 0, second.stderr
    assert output.count("wrote") == 1 and "wrote" not in second.stdout
    assert len([path for path in unpacked.iterdir() if not path.name.startswith(".")]) == 1
