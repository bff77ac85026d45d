"""Inputs: whatever people point the suite at is read right, or refused in a sentence.

A row each: what lies there, the settings, and what must come of it. New ones go at the end of
their list.
"""

import contextlib
import errno
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbclient import NotebookClient
from PIL import Image

from helpers import batch, execution
from helpers.command import report_errors
from helpers.data.archives import unpack_archive
from helpers.data.checks import CHECKS, Seen
from helpers.data.cifar import load_pickle
from helpers.data.csv_tables import parse_csv
from helpers.data.images import UnreadableImageError, decode_image
from helpers.data.inspection import inspect_images
from helpers.data.layouts import read_folders
from helpers.data.listing import is_image
from helpers.data.preparation import inspect_run, load_used
from helpers.data.splits import join_groups, settle_small_classes
from helpers.data.table import load_table
from helpers.evaluation.intervals import score_with_intervals
from helpers.files import ROOT, SuiteError, load_json, write_whole
from helpers.network.backbones import create_backbone
from helpers.pictures.charts import plot_class_counts
from helpers.pictures.fonts import tell_missing_signs
from helpers.recipe import format_settings, load_recipe, parse_settings
from helpers.run import Run
from helpers.settings import DataSettings

FOLDERS, TABLE = {"source": "folders"}, {"source": "csv"}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty folder of the data; archives are unpacked beside it."""
    monkeypatch.setattr("helpers.data.archives.UNPACKED", tmp_path / "unpacked")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def load(write_recipe):
    """Return a function that loads the table of the data at a path."""
    return lambda data, **changes: load_table(
        load_recipe(write_recipe("inputs", data, **changes)))


def fill(place: Path, files: dict | list[str]) -> Path:
    """Write files: images, or texts, bytes and links where they stand for their names."""
    for number, name in enumerate(files):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = files[name] if isinstance(files, dict) else None
        if isinstance(content, Path):
            path.symlink_to(content)
        elif content is None:
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path, "JPEG")
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return place


def describe(table) -> list[str]:
    """Return what is read of each image: `label split`, sorted."""
    return sorted({f"{row.label} {row.split}" for row in table.itertuples()})


# --- folders

BOTH = ["a train", "b train"]
SPLIT = ["a test", "a train", "b test", "b train"]


def under(*folders: str) -> list[str]:
    """Return a name of an image in each of `folders`, for classes a and b."""
    return [f"{folder}/{name}/{number}.jpg" for number, folder in enumerate(folders)
            for name in "ab"]


@pytest.mark.parametrize(("files", "changes", "expected", "said"), [
    (under("seg_train/seg_train", "seg_test/seg_test", "seg_pred/x"), {}, SPLIT,
     "ignored seg_pred"),
    (under("training_set", "test_set"), {}, SPLIT, "its own splits: test_set, training_set"),
    (under("train", "eval"), {}, BOTH, "eval joins the training images"),
    (under("train", "test1"), {}, SPLIT, "splits"),
    (under("train2017", "val2017", "test2017"), {}, SPLIT, "val2017 joins"),
    (under("Train", "train"), {}, BOTH, "splits: Train, train"),
    (under("TRAIN", "Test"), {}, SPLIT, "splits"),
    (under("trainSet", "testSet"), {}, SPLIT, "splits"),
    (under("trainset", "testset"), {}, SPLIT, "splits"),
    (under("Training Set"), {}, BOTH, "splits: Training Set"),
    (under("dataset"), {}, BOTH, ""),
    (under("images/images"), {}, BOTH, ""),
    (under("archive/data/train", "archive/data/test"), {}, SPLIT, "splits"),
    ({"docs/readme.txt": "", **dict.fromkeys(under("pack/v1/all"))}, {}, BOTH,
     "docs holds no images but .txt 1"),
    ({"Annotations/1.xml": "", **dict.fromkeys(under("Data/CLS/train", "Data/CLS/val"))}, {},
     BOTH, "val joins"),
    ([*under("train"), "test/1.jpg"], {}, BOTH, "test holds no class folders"),
    ([*under("Training", "Test"), "test-several/1.jpg", "papers/2.jpg"], {}, SPLIT,
     "ignored papers, test-several"),
    ([*under("train"), "train_unlabeled/1.jpg"], {}, BOTH, "ignored train_unlabeled"),
    (["a/train/1.jpg", "a/test/2.jpg", "a/cover.jpg", "b/train/3.jpg", "b/test/4.jpg",
      "b/probe/5.jpg"], {}, SPLIT, "b/probe are left out"),
    (["a/x/1.jpg", "a/y/2.jpg", "b/3.jpg"], {}, BOTH, "folders in them (x, y) are part of"),
    (["a/1.jpg", "a/.checkpoints/1.jpg", "a/@eaDir/1.jpg", "$RECYCLE.BIN/1.jpg", "b/2.jpg"], {},
     BOTH, "2 images in 2 classes"),
    ({"a/1": "", "a/2.jpg": None, "b/3.jpg": None, "c/4": "", "c/.5.jpg": ""}, {}, BOTH,
     "c holds no images but hidden 1, no ending 1"),
    (["a/train/1.jpg", "a/test/2.jpg", "b/train/3.jpg", "b/test/4.jpg"], {}, SPLIT, ""),
    (["a/images/1.jpg", "b/images/2.jpg"], {}, BOTH, ""),  # a folder inside each class
    (["train/1.jpg", "bus/2.jpg", "car/3.jpg"], {},
     ["bus train", "car train", "train train"], ""),  # vehicles
    (["trainers/1.jpg", "sandals/2.jpg"], {}, ["sandals train", "trainers train"], ""),
    (under("photo", "sketch"), {"class_level": 2}, BOTH, ""),
    (under("photo", "sketch"), {"class_level": 1}, ["photo train", "sketch train"], ""),
    ([*under("photo", "sketch"), "photo/9.jpg"], {"class_level": 2}, BOTH,
     "photo lies above `class_level`"),
    (under("train/photo", "train/sketch", "test/photo"), {"class_level": 3}, SPLIT, ""),
    (["train station/1.jpg", "test tube/2.jpg"], {"class_level": 1},
     ["test tube train", "train station train"], ""),
    ([*under("."), "c/3.jpg"], {"exclude": ["c"]}, BOTH, "left out 1 images of c"),
    (["cafe\u0301/1.jpg", "tea/2.jpg", "caf\u00e9 /3.jpg", "te\u200ba/4.jpg"], {},
     ["caf\u00e9 train", "tea train"], "cleaned 3 labels"),
    (["a/1.jfif", "b/2.jpe"], {}, BOTH, ""),
])
def test_folders_are_read_as_they_were_meant(place, load, capsys, files, changes, expected, said):
    assert describe(load(fill(place, files), **FOLDERS, **changes)) == expected
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("files", "changes", "words"), [
    (under("photo", "sketch"), {}, ["two ways", "class_level: 1   2 classes",
                                    "class_level: 2   2 classes", "photo/   <- class",
                                    "a/   <- class"]),
    (under("pack/train/photo", "pack/train/sketch"), {},
     ["class_level: 3   2 classes", "class_level: 4   2 classes"]),
    (["train station/1.jpg", "test tube/2.jpg"], {}, ["two ways", "class_level: 1"]),
    (["2023/a/1.jpg", "2023/b/2.jpg", "2024/a/3.jpg", "2025/b/4.jpg"], {}, ["two ways"]),
    ([*under("."), *under("all")], {}, ["all holds folders of the same names as beside it (a, b)",
                                        "set `data` to it"]),
    ([*under("train"), "bus/1.jpg"], {}, ["two ways", "train a split"]),
    (under("test"), {}, ["a test set and nothing to train on"]),
    (["a/1.jpg", "a/2.jpg"], {}, ["holds 1 class"]),
    ([*under("."), "c/3.jpg"], {"exclude": ["C"]}, ["no class", "did you mean 'c'"]),
    (["a\x01/1.jpg", "b/2.jpg"], {}, ["control character"]),
    (["1.0/1.jpg", "2/2.jpg"], {"class_names": {"1": "one"}}, ["code '1'", "mean '1.0'"]),
    ({"a/1.jpg": None, "b/2.jpg": None, "b/gone.jpg": Path("/nowhere/1.jpg")}, {},
     ["1 of 3 images are not there"]),
    (["rock/1.jpg", "tea/2.jpg"], {"class_names": {"rok": "Rock"}}, ["did you mean 'rock'"]),
])
def test_folders_that_cannot_be_read_are_refused(place, load, files, changes, words):
    with pytest.raises(SuiteError) as error:
        load(fill(place, files), **FOLDERS, **changes)
    assert all(word in str(error.value) for word in words), error.value


def test_domains_are_kept_beside_the_classes(place, load):
    table = load(fill(place, under("train/photo", "train/sketch", "test/photo")), **FOLDERS,
                 class_level=3)
    assert sorted(set(zip(table.domain, table.split, strict=True))) == [
        ("photo", "test"), ("photo", "train"), ("sketch", "train")]


def test_images_behind_a_link_to_a_folder_are_read_once(place, load, tmp_path):
    more = fill(tmp_path / "more", ["2.jpg", "3.jpg"])
    fill(place, {"a/1.jpg": None, "a/more": more, "b/4.jpg": None})
    (more / "back").symlink_to(place / "a")
    assert len(load(place, **FOLDERS)) == 4


def test_a_folder_that_may_not_be_read_is_named(place, load, monkeypatch):
    def scan(folder, real=os.scandir):
        if Path(folder).name == "b":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return real(folder)

    fill(place, under("."))
    monkeypatch.setattr(os, "scandir", scan)  # root may read everything
    with pytest.raises(SuiteError, match=r"b cannot be read \(Permission denied\)"):
        load(place, **FOLDERS)


@pytest.mark.parametrize(("files", "said"), [
    ([*under("."), "a/0_mask.jpg", "b/x_mask.jpg"], "1 images are named like another one"),
    (["a|b/1.jpg", "b|a/2.jpg"], "2 labels such as 'a|b' look like several at once"),
    (["['a', 'b']/1.jpg", "b/2.jpg"], "1 labels such as"),
])
def test_what_folders_may_mean_is_said(place, load, capsys, files, said):
    load(fill(place, files), **FOLDERS)
    assert said in capsys.readouterr().out


def test_a_large_group_may_be_a_word_for_none(capsys):
    table = pd.DataFrame({"group": range(9), "patient": ["unknown"] * 6 + list("abc")})
    join_groups(table, "patient")
    assert "67% of the images have 'unknown' in 'patient'" in capsys.readouterr().out


def test_signs_that_no_font_has_are_said_in_one_line(capsys, recwarn):
    figure = plot_class_counts(pd.Series({"\U0001fbf0 \U0001fbf1": 3, "b": 2}))
    with tell_missing_signs("counts.png"):
        figure.savefig(io.BytesIO())
    assert "counts.png shows 2 signs of names as boxes" in capsys.readouterr().out
    assert not recwarn


def test_the_suite_itself_is_no_data(load):
    with pytest.raises(SuiteError, match="holds the suite itself"):
        load(ROOT, **FOLDERS)


def test_images_that_are_gone_since_01_are_named(place, write_recipe, tmp_path):
    fill(place, [f"{name}/{number}.jpg" for name in "ab" for number in range(9)])
    run = Run(load_recipe(write_recipe("inputs", place, near_copy=1, quarantine=[], **FOLDERS)),
              tmp_path / "run")
    inspect_run(run)
    (place / "b").rename(place / "c")
    with pytest.raises(SuiteError, match=r"9 of 18 images are gone since 01_eda, e\.g\. .*b/0"):
        load_used(run)


def test_a_file_that_may_not_be_read_is_set_aside(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything
    images = inspect_images(pd.DataFrame({"image_id": ["a"], "path": [str(tmp_path / "a.jpg")]}))
    assert images.reason[0] == "cannot be read: Permission denied"


def test_a_link_back_to_the_data_is_no_class(place, load, capsys):
    fill(place, under("."))
    (place / "again").symlink_to(place)
    assert describe(load(place, **FOLDERS)) == BOTH
    assert "leads back" in capsys.readouterr().out


def test_a_correction_is_written_like_any_label(place, load, tmp_path):
    fill(place, ["cafe\u0301/1.jpg", "tea/2.jpg", "tea/3.jpg"])
    (tmp_path / "put_right.csv").write_text("image_id,correction\ntea/3.jpg,cafe\u0301\u200b\n")
    table = load(place, **FOLDERS, corrections=str(tmp_path / "put_right.csv"))
    assert list(table.label) == ["caf\u00e9", "tea", "caf\u00e9"]


def test_files_that_are_left_out_are_counted_by_their_ending(place, load, capsys):
    fill(place, under("."))
    fill(place, {"a/1.heic": "x", "a/2.heic": "x", "b/notes.txt": "x", "Thumbs.db": "x"})
    load(place, **FOLDERS)
    said = capsys.readouterr().out
    assert ".heic 2" in said and ".txt 1" in said and ".db 1" in said


NAMES = st.sampled_from(["a", "b", "train", "Test", "val", "images", "photo", "seg_train", "x1"])


@settings(deadline=None, max_examples=60,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join), min_size=1, max_size=6),
       st.sampled_from([None, 1, 2, 3]))
def test_no_tree_of_folders_loses_an_image_in_silence(tmp_path_factory, folders, level):
    place = fill(tmp_path_factory.mktemp("tree"),
                 [f"{folder}/{number}.jpg" for number, folder in enumerate(folders)])
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            table = read_folders(place, DataSettings(source="folders", path=str(place),
                                                     class_level=level))
    except SuiteError:
        return
    assert table.image_id.is_unique
    for image in set(place.rglob("*.jpg")) - {place / name for name in table.image_id}:
        parents = image.relative_to(place).parts[:-1]
        assert any(name in said.getvalue() for name in parents), f"{image} is lost in silence"


# --- tables

GOOD = "image,label\na.jpg,x\nb.jpg,y\n"


def rows(text: str) -> str:
    return "image,label\n" + text


@pytest.mark.parametrize(("files", "changes", "said"), [
    ({"table.csv": GOOD}, {}, ""),
    ({"table.csv": "sep=;\n" + GOOD.replace(",", ";")}, {}, ""),
    ({"table.csv": '"image","label"\n"a.jpg","x"\n"b.jpg","y"\n'}, {}, ""),
    ({"table.csv": '"image";"la,bel"\n"a.jpg";"x"\n"b.jpg";"y"\n'}, {"label_column": "la,bel"},
     ""),
    ({"table.csv": GOOD.encode("utf-16")}, {}, ""),
    ({"table.csv": GOOD.replace("\n", "\r")}, {}, ""),
    ({"table.csv": GOOD + "\n\n,,\n"}, {}, ""),
    ({"table.csv": GOOD.replace(".jpg", "")}, {}, "added .jpg to 2 names"),
    ({"table.csv": GOOD.replace(",x", ",x,").replace("label", "label,")}, {}, ""),
    ({"labels.tsv": GOOD.replace(",", "\t")}, {}, ""),
    ({"table.csv": rows("C:\\pics\\a.jpg,x\nC:\\pics\\b.jpg,y\n")}, {},
     "of another computer"),
    ({"table.csv": rows("/elsewhere/data/a.jpg,x\n/elsewhere/data/b.jpg,y\n")}, {},
     "of another computer"),
    ({"table.csv": rows(".\\a.jpg,x\nb.jpg ,y\n")}, {}, ""),
    ({"table.csv": rows("a.jpg,x\nb.jpg,y\ngone.jpg,z\n")}, {"missing_images": "drop"},
     "left out 1 rows whose image is not there, and so the classes z"),
])
def test_tables_are_read_as_they_were_meant(place, load, capsys, files, changes, said):
    fill(place, ["a.jpg", "b.jpg"])
    table = load(fill(place, files), **TABLE, **changes)
    assert list(table.label) == ["x", "y"]
    assert [Path(path).name for path in table.path] == ["a.jpg", "b.jpg"]
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("name", ["images", "photos/all"])
def test_ids_without_an_ending_are_found_in_a_folder_beside_the_table(place, load, name):
    fill(place / name, ["a.jpg", "b.png"])
    fill(place, {"table.csv": GOOD.replace(".jpg", "")})
    changes = {"images": name} if "/" in name else {}
    table = load(place, **TABLE, **changes)
    assert [Path(path).name for path in table.path] == ["a.jpg", "b.png"]


def test_images_in_several_folders_are_found_by_their_names(place, load, capsys):
    fill(place, ["part_1/a.jpg", "part_2/cafe\u0301.jpg"])
    fill(place, {"table.csv": rows("a,x\ncaf\u00e9,y\ngone,z\n")})
    table = load(place, **TABLE, missing_images="drop")
    assert list(table.image_id) == ["part_1/a.jpg", "part_2/cafe\u0301.jpg"]
    assert "2 images were found by their names" in capsys.readouterr().out


@pytest.mark.parametrize(("files", "words"), [
    (["train/a.jpg", "train/b.jpg", "test/a.jpg", "test/b.jpg"], ["/test and in ", "`images`"]),
    (["x/1/a.jpg", "x/2/a.jpg", "x/3/b.jpg"], ["a.jpg, which may be x/1/a.jpg or x/2/"]),
    ({"photos/a.jpg": None, "photos/b.jpg": None, "labels.xlsx": "PK"}, []),
])
def test_of_two_files_with_the_name_none_is_guessed(place, load, files, words):
    fill(place, files)
    fill(place, {"table.csv": GOOD})
    if not words:
        assert len(load(place, **TABLE)) == 2
        return
    with pytest.raises(SuiteError) as error:
        load(place, **TABLE)
    assert all(word in str(error.value) for word in words), error.value


def test_a_name_that_two_endings_fit_is_refused(place, load):
    fill(place, ["a.png", "a.jpg", "b.jpg"])
    fill(place, {"table.csv": GOOD.replace(".jpg", "")})
    with pytest.raises(SuiteError, match=r"names a, which may be a\.jpg or a\.png"):
        load(place, **TABLE)


@pytest.mark.parametrize(("text", "encoding", "said"), [
    ("image,label\na.jpg,caf\u00e9\nb.jpg,tea\n", "cp1252", "read as Western European"),
    ("image,label,split\na.jpg,x,train\nb.jpg,y,test\n", "utf-8",
     "`split` (train, test): `split_column: split` uses it"),
])
def test_what_a_table_may_mean_is_said(place, load, capsys, text, encoding, said):
    fill(place, ["a.jpg", "b.jpg"])
    assert len(load(fill(place, {"t.csv": text.encode(encoding)}), **TABLE)) == 2
    assert said in capsys.readouterr().out


def test_full_paths_of_this_computer_are_kept(place, load, tmp_path):
    elsewhere = fill(tmp_path / "elsewhere", ["p/a.jpg", "q/b.jpg"])
    fill(place, {"table.csv": rows(f"{elsewhere}/p/a.jpg,x\n{elsewhere}/q/b.jpg,y\n")})
    table = load(place, **TABLE)
    assert list(table.image_id) == ["p/a.jpg", "q/b.jpg"] and list(table.label) == ["x", "y"]


@pytest.mark.parametrize(("content", "changes", "words"), [
    (rows("a.jpg,x\nb.jpg,y,z\n"), {}, ["line 3 has 3 fields", "header 2"]),
    (rows("a.jpg,x\nb.jpg\n"), {}, ["line 3 has 1 fields"]),
    ('image,label,note\na.jpg,x,"two\nlines"\nb.jpg,y,z,more\n', {}, ["line 4 has 4 fields"]),
    (rows('a.jpg,"x\nb.jpg,y\n'), {}, ["cannot be read as CSV"]),
    (rows(",x\n,y\n"), {}, ["column 'image' is empty in 2 rows, first in line 2"]),
    ("image,label,part\na.jpg,x,\nb.jpg,y,\n", {"split_column": "part"},
     ["column 'part' is empty in 2 rows"]),
    ("image,label,part\na.jpg,x,test\nb.jpg,y,test\n", {"split_column": "part"},
     ["no image is a training image"]),
    (b"PK\x03\x04rest", {}, ["an Excel workbook"]),
    (b"\xd0\xcf\x11\xe0rest", {}, ["an old Excel workbook"]),
    (GOOD.encode("utf-16-le"), {}, ["no text in UTF-8"]),
    (rows("Z:\\pics\\q.jpg,x\nZ:\\pics\\r.jpg,y\n"), {}, ["full paths", "not on this computer"]),
    (rows("gone.jpg,x\na.jpg,y\n"), {}, ["1 of 2 images are not there", "`drop`"]),
    (rows("gone.jpg,x\na.jpg,y\n"), {"missing_images": "drop"}, ["holds 1 class"]),
    (rows("../../etc/passwd,x\na.jpg,y\n"), {}, ["not there"]),
    ("", {}, ["no column 'image'"]),
    ("Image,Class\na.jpg,x\n", {}, ["did you mean 'Image'", "`path_column`"]),
    (rows("https://x.org/a.jpg,x\nb.jpg,y\n"), {}, ["1 addresses", "download the images"]),
    (rows("a.jpg,\u30ce\u30fc\u30c8\n").encode("cp932"), {}, ["no text in UTF-8", "line 2"]),
    (rows("a.jpg,Gr\u00f6\u00dfe\nb.jpg,").encode() + b"\xe9\n", {}, ["first in line 3"]),
    ("image,label\n", {}, ["a header and no rows"]),
])
def test_tables_that_cannot_be_read_are_refused(place, load, content, changes, words):
    fill(place, ["a.jpg", "b.jpg"])
    with pytest.raises(SuiteError) as error:
        load(fill(place, {"table.csv": content}), **TABLE, **changes)
    assert all(word in str(error.value) for word in words), error.value


def test_of_several_tables_one_must_be_named(place, load):
    fill(place, {"one.csv": GOOD, "two.csv": GOOD})
    with pytest.raises(SuiteError, match=r"needs `csv`.*\(one\.csv, two\.csv\)"):
        load(place, **TABLE)


@settings(deadline=None, max_examples=200,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=80), st.text("ab,;\t\"\n\r '=é\0", max_size=80).map(
    lambda text: text.encode())))
def test_no_table_ends_in_a_raw_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    try:
        table = parse_csv(path, [], index=False)
    except SuiteError:
        return
    assert table.columns.is_unique


# --- recipes

@pytest.mark.parametrize(("text", "words"), [
    ("folds: 3\nfolds: 4\n", ["'folds' stands there twice, in lines 1 and 2"]),
    ("class_names: {1: a, 1: b}\n", ["'1' stands there twice"]),
    ("a: &a [x]\nb: [*a, *a]\n", ["uses the alias *a"]),
    ("source: folders\ndata:\n", ["name the folder that holds the data"]),
    ("source: folders\ndata: x\nrun: a/b\n", ["run cannot be 'a/b'", "name of a folder"]),
    ("source: folders\ndata: x\nrun: ..\n", ["run cannot be '..'"]),
    ("source: folders\ndata: x\nrun: my run\n", ["letters (a to z)"]),
    (f"source: folders\ndata: x\nrun: {'r' * 300}\n", ["up to 100 letters"]),
    ("a: " + "[" * 3000, ["not valid YAML"]),
    ("source: folders\ndata: x\nclass_names: {true: a}\n", ["true, false or null in quotes"]),
])
def test_recipes_that_cannot_be_read_are_refused(tmp_path, text, words):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(SuiteError) as error:
        load_recipe(str(tmp_path / "own.yaml"))
    assert all(word in str(error.value) for word in words), error.value
    assert len(str(error.value)) < 1000 and "^[" not in str(error.value)


@settings(deadline=None, max_examples=100,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("ab:[]{}&*!|>-#'\"\n 0", max_size=60))
def test_no_recipe_ends_in_a_raw_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text)
    with pytest.raises(SuiteError):
        load_recipe(str(path))


def test_names_are_read_as_they_are_written(place, write_recipe):
    fill(place, under("."))
    changes = parse_settings(["exclude=[no, 001, 7]", "run=2024-05-01", "csv=12:30",
                              f"data={place} #1", "class_names={no: healthy}"])
    place.rename(f"{place} #1")
    recipe = load_recipe("own", changes)
    assert recipe.data.exclude == ["no", "001", "7"] and recipe.run_name == "2024-05-01"
    assert recipe.data.csv == "12:30" and recipe.data.place.name == "data #1"
    assert recipe.data.class_names == {"no": "healthy"}


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8)
    | st.sampled_from(["no", "010", "1e5", "12:30", "null", "~", "x #1", "2024-05-01", "="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abn1", max_size=3),
                                                                inner, max_size=3)))
def test_settings_are_read_back_as_they_were(value):
    assert parse_settings(format_settings({"key": value})) == {"key": value}


def test_the_demos_recipe_is_not_for_other_data(folders):
    with pytest.raises(SuiteError, match=r"not the demo.*`generate: null`"):
        load_table(load_recipe("demo", {"data": str(folders), "source": "folders"}))


@pytest.mark.parametrize(("labels", "choice", "words"), [
    ("aaaaabbbbb C", "refuse", ["'C' (0) (C: in the test set alone)", "`merge` or `drop`"]),
    ("aaaaabbbbbc", "merge", ["'other' (1)", "`small_classes` to `drop`"]),
    ("aaaaabbbbbc", "refuse", ["'c' (1)", "`exclude`"]),
])
def test_classes_that_are_too_small_are_named(labels, choice, words):
    labels = labels.replace(" ", "")
    table = pd.DataFrame({"label": list(labels), "group": range(len(labels)),
                          "split": ["test" if label == "C" else "train" for label in labels]})
    with pytest.raises(SuiteError) as error:
        settle_small_classes(table, 0, 3, choice)
    assert all(word in str(error.value) for word in words), error.value


# --- pixels

def test_values_of_sensors_are_scaled_by_what_they_use(tmp_path):
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    expected = np.round(ramp * 255)
    for number, values in enumerate((
            (ramp * 1023).astype(np.uint16), (ramp * 4095).astype(np.uint16),
            (ramp * 16383).astype(np.uint16), (ramp * 65535).astype(np.uint16),
            (ramp * 4095).astype(np.float32), (ramp * 2 - 1).astype(np.float32),
            (ramp * 4000 - 1000).astype(np.int32), (ramp * 1e6).astype(np.float32))):
        Image.fromarray(values).save(tmp_path / f"{number}.tif")
        found = np.asarray(decode_image(tmp_path / f"{number}.tif"))[..., 0]
        assert np.abs(found - expected).max() <= 1, number


def test_a_sensors_dark_image_is_told_from_the_others(tmp_path):
    for number, white in enumerate((4000, 3500, 900, 3900)):
        values = np.linspace(0, white, 64 * 64).reshape(64, 64).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    images = inspect_images(pd.DataFrame({
        "image_id": list("0123"), "path": [str(tmp_path / f"{n}.png") for n in range(4)],
        "label": "a", "split": "train"}))
    rows, _, notes = CHECKS["16-bit"](Seen(images, None, None))
    assert list(rows.image_id) == list("0123") and notes[0] == "white is 4095"
    assert notes[2].startswith("white is 1023, in most others 4095")


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 900)])
def test_a_line_of_pixels_is_refused_before_it_is_resampled(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "line.png")
    with pytest.raises(UnreadableImageError, match="too narrow"):
        decode_image(tmp_path / "line.png")


@pytest.mark.parametrize(("name", "content", "why"), [
    ("eps.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
     "not an image"),
    ("page.png", b"<html>Not found</html>", "not an image"),
    ("empty.jpg", b"", "empty file"),
    ("line.png", (1, 20_000), "too narrow: 1 x 20000 pixels"),
])
def test_what_is_no_image_is_set_aside_with_its_reason(tmp_path, name, content, why):
    if isinstance(content, tuple):
        Image.new("RGB", content).save(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    images = inspect_images(pd.DataFrame({"image_id": [name], "path": [str(tmp_path / name)]}))
    assert images.reason[0] == why


@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "TIFF", "GIF", "JPEG2000", "HEIF"])
def test_other_formats_are_read_as_pillow_has_them(tmp_path, kind):
    endings = [end for end, name in Image.registered_extensions().items() if name == kind]
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    path = tmp_path / f"photo{endings[0]}"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(path, kind)
    assert is_image(path)
    assert np.abs(np.asarray(decode_image(path), int) - (200, 30, 30)).max() < 8


# --- archives

def pack(place: Path, kind: str) -> Path:
    """Pack a folder beside itself."""
    target = place.with_suffix(kind)
    if kind == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path in sorted(place.rglob("*")):
                archive.write(path, path.relative_to(place.parent))
    else:
        with tarfile.open(target, "w:gz") as archive:
            archive.add(place, place.name)
    return target


@pytest.mark.parametrize("kind", [".zip", ".tar.gz"])
def test_an_archive_holds_any_layout(place, load, kind):
    fill(place / "pics", ["a.jpg", "b.jpg"])
    fill(place, {"table.csv": GOOD.replace(".jpg", "")})
    assert list(load(pack(place, kind), **TABLE).label) == ["x", "y"]


LAYOUTS = {  # source, files, what is read
    "train and val": ("folders", under("train", "val"), BOTH),
    "splits nested twice": ("folders", under("seg_train/seg_train", "seg_test/seg_test"), SPLIT),
    "splits in classes": ("folders", ["a/train/1.jpg", "a/test/2.jpg", "b/train/3.jpg",
                                      "b/test/4.jpg"], SPLIT),
    "ids in a table": ("csv", {"t.csv": "image,label\n1,a\n2,b\n", "pics/1.jpg": None,
                               "pics/2.jpg": None}, BOTH),
    "pairs in turn": ("alternating", {
        "t.csv": "image,label\n1.jpg,a\n2.jpg,a\n3.jpg,b\n4.jpg,b\n",
        **{f"images/{number}.jpg": None for number in range(1, 5)}}, BOTH),
}


@pytest.mark.parametrize("kind", ["folder", ".zip", ".tar.gz"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_two_lines_are_a_recipe(place, name, kind):
    source, files, expected = LAYOUTS[name]
    data = fill(place, files) if kind == "folder" else pack(fill(place, files), kind)
    (place.parent / "mine.yaml").write_text(f"source: {source}\ndata: {data}\n")
    assert describe(load_table(load_recipe(str(place.parent / "mine.yaml")))) == expected


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_an_archive_that_was_cut_off_leaves_nothing_behind(place, load, cut):
    rng = np.random.default_rng(0)
    for name in "ab":
        (place / name).mkdir()
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(place / name / "1.png")
    archive = pack(place, ".tar.gz")
    archive.write_bytes(archive.read_bytes()[: int(cut * archive.stat().st_size)])
    with pytest.raises(SuiteError, match=r"data\.tar\.gz is damaged or no archive"):
        load(archive, **FOLDERS)
    assert not [path for path in place.parent.rglob("*") if "partial" in path.name]


def test_names_of_an_archive_from_a_mac_are_read(place, load):
    archive = pack(fill(place, ["cafXX/1.jpg", "tea/2.jpg"]), ".zip")
    archive.write_bytes(archive.read_bytes().replace(b"cafXX", "caf\u00e9".encode()))
    assert describe(load(archive, **FOLDERS)) == ["caf\u00e9 train", "tea train"]


def test_a_zip_that_fails_half_way_leaves_nothing_behind(place, load, tmp_path):
    archive = pack(fill(place, under(".")), ".zip")
    content = archive.read_bytes()
    spoilt = content.rindex(b"JFIF", 0, content.index(b"PK\x01\x02"))  # of the last member
    archive.write_bytes(content[:spoilt] + b"XXXX" + content[spoilt + 4 :])
    with pytest.raises(SuiteError, match=r"data\.zip is damaged"):
        load(archive, **FOLDERS)
    assert not [path for path in (tmp_path / "unpacked").rglob("*") if path.suffix == ".jpg"]


def test_an_archive_in_an_archive_is_named(place, load, tmp_path):
    fill(place / "pics", under("."))
    inner = pack(place / "pics", ".zip")
    (tmp_path / "outer").mkdir()
    inner.rename(tmp_path / "outer/pics.zip")
    with pytest.raises(SuiteError, match=r"holds another archive, pics\.zip.*set `data` to"):
        load(pack(tmp_path / "outer", ".tar.gz"), **FOLDERS)


PARTS = st.sampled_from(["a", "..", ".", "", "b.jpg", "C:", "x\\y", " ", "con", "\u202e", ".git"])


@settings(deadline=None, max_examples=60,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), max_size=4),
       st.sampled_from([".zip", ".tar"]), st.binary(max_size=20))
def test_no_member_of_an_archive_is_written_outside(tmp_path_factory, names, kind, tail):
    place = tmp_path_factory.mktemp("archive")
    path = place / f"any{kind}"
    if kind == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in dict.fromkeys(names):
                archive.writestr(zipfile.ZipInfo(name or "empty"), b"content")
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = 7
                archive.addfile(member, io.BytesIO(b"content"))
    path.write_bytes(path.read_bytes() + tail)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helpers.data.archives.UNPACKED", place / "unpacked")
        try:
            assert unpack_archive(path).is_relative_to(place / "unpacked")
        except SuiteError as error:
            assert path.name in str(error)
    assert {file.name for file in place.iterdir()} <= {path.name, "unpacked"}


@settings(deadline=None, max_examples=100,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner,
                                                                max_size=3)).map(pickle.dumps)))
def test_no_file_of_cifar_ends_in_a_raw_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "train"
    path.write_bytes(content)
    try:
        assert isinstance(load_pickle(path), dict)
    except SuiteError as error:
        assert "train is no CIFAR file" in str(error)


# --- weights

class _Gadget:
    def __reduce__(self):
        return (print, ("code of a stranger was run",))


def damage(path: Path, how: str, model) -> None:
    """Write what is no file of weights for `model`."""
    state = model.state_dict()
    if how == "page":
        path.write_text("<!DOCTYPE html><html>Sign in</html>")
    elif how == "whole model":
        torch.save(model, path)
    elif how == "gadget":
        path.write_bytes(pickle.dumps({"state_dict": _Gadget()}))
    elif how == "zeros":
        torch.save({key: value * 0 for key, value in state.items()}, path)
    elif how == "no numbers":
        torch.save({key: value * float("nan") for key, value in state.items()}, path)
    elif how == "cut off":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:5000])
    elif how == "empty":
        path.touch()
    elif how == "other shapes":
        torch.save({key: value[:1] if value.ndim else value for key, value in state.items()},
                   path)


@pytest.mark.parametrize(("how", "words"), [
    ("page", ["it is a web page"]),
    ("whole model", ["holds more than tensors", "was not opened", "state_dict()"]),
    ("gadget", ["holds more than tensors", "was not opened"]),
    ("zeros", ["nothing but zeros"]), ("no numbers", ["values that are no numbers"]),
    ("cut off", ["damaged, or cut off"]), ("empty", ["damaged, or cut off"]),
    ("other shapes", ["other shapes", "`backbone`"]),
])
def test_files_that_are_no_weights_are_refused(tmp_path, folders, capsys, how, words):
    path = tmp_path / "weights.pth"
    damage(path, how, timm.create_model("test_efficientnet"))
    recipe = load_recipe("demo", {"data": str(folders), "backbone": "test_efficientnet",
                                  "weights": str(path)})
    with pytest.raises(SuiteError) as error:
        create_backbone(recipe)
    said = str(error.value)
    assert all(word in said for word in ["weights.pth", *words]), said
    # The library's own advice is to open the file in a way that runs the code in it.
    assert "weights_only" not in said and "trust" not in said
    assert "stranger" not in capsys.readouterr().out


# --- scores

@pytest.mark.parametrize(("right", "of", "low", "high"), [(32, 32, 0.893, 1), (0, 7, 0, 0.354)])
def test_no_interval_is_shorter_than_wilsons(right, of, low, high):
    labels = np.array(["a", "b"] * of)[:of]
    others = np.where(labels == "a", "b", "a")
    answers = pd.DataFrame({"label": labels, "prediction": np.where(
        np.arange(of) < right, labels, others)})
    found = score_with_intervals(answers, ["a", "b"], 200, 0, ["accuracy"]).loc["accuracy"]
    # Wilson's is that of statsmodels' proportion_confint(right, of, method="wilson").
    assert low - 0.15 < found.low <= low + 1e-3 and high - 1e-3 <= found.high < high + 0.15


# --- runs

def break_file(path: Path, how: str) -> None:
    """Empty a file, cut it off, or remove it."""
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 0 if how == "emptied" else 100])


@pytest.mark.parametrize("how", ["emptied", "cut off", "removed"])
@pytest.mark.parametrize(("artefact", "file"), [
    ("images", ""), ("table", ""), ("train_features", ""), ("folds", "fold_00_test.csv"),
    ("oof_probabilities", "")])
def test_what_was_broken_afterwards_is_not_done(served_run, artefact, file, how):
    path = served_run.path(artefact)
    path = path / file if file else path
    assert served_run.is_current(artefact)
    content, facts = path.read_bytes(), path.stat()
    try:
        break_file(path, how)
        assert not served_run.is_current(artefact)
        with pytest.raises(SuiteError, match=f"{path.stem}|{artefact}"):
            served_run.need(artefact)
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert served_run.is_current(artefact)


@pytest.mark.parametrize("text", ["[]", "3", '{"a": ', "", "\0"])
def test_records_that_are_none_are_named(tmp_path, text):
    (tmp_path / "progress.json").write_text(text)
    with pytest.raises(SuiteError, match=r"progress\.json is damaged .*Delete it and run again"):
        load_json(tmp_path / "progress.json")


@pytest.mark.parametrize("minutes", ["nan", "0", "-1", "inf", "soon"])
def test_a_time_limit_is_a_number_of_minutes(capsys, minutes):
    with pytest.raises(SystemExit):
        batch.main(["--recipe", "demo", "--time-limit", minutes])
    assert "--time-limit" in capsys.readouterr().err


def test_a_full_disk_is_not_taken_for_too_little_memory(tmp_path, monkeypatch, capsys):
    def execute(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "01.ipynb"))

    monkeypatch.setattr("papermill.execute_notebook", execute)
    with pytest.raises(SystemExit):
        execution._execute("01_eda", tmp_path / "01.ipynb", "demo", {})
    said = capsys.readouterr().err
    assert "No space left" in said and "batch_size" not in said
    with pytest.raises(SuiteError, match=r"cannot write .*No space left.*Free some space"), \
            write_whole(tmp_path / "table.csv"):
        execute()


def test_a_command_says_what_to_report_of_errors_that_nobody_foresaw(capsys):
    @report_errors
    def main(error):
        raise error

    with pytest.raises(KeyError) as unforeseen:
        main(KeyError("mine"))
    assert "report it" in unforeseen.value.__notes__[0]
    assert main(SuiteError("what is wrong")) == 2
    assert capsys.readouterr().err == "error: what is wrong\n"


def test_an_error_that_nobody_foresaw_says_what_to_report():
    cells = ["from helpers.unforeseen import explain_unforeseen\n"
             "from helpers.files import SuiteError, natural_key\n"
             "explain_unforeseen('recipe demo')",
             "natural_key(3)", "{}['mine']", "raise SuiteError('said')"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, allow_errors=True, kernel_name="python3",
                   resources={"metadata": {"path": str(ROOT)}}).execute()
    ours, theirs, said = ("\n".join(cell.outputs[-1].traceback) for cell in book.cells[1:])
    assert "TypeError" in ours and "report it" in ours and "recipe demo" in ours
    assert "KeyError" in theirs and "report" not in theirs
    assert said == "SuiteError: said"
