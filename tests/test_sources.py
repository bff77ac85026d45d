"""Layouts: each gives the same table, and bad ones say what is wrong."""

import io
import re
import shutil
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from PIL import Image

from helpers.data.images import UnreadableImageError, decode_image
from helpers.data.inspection import inspect_images
from helpers.data.layouts import LAYOUTS
from helpers.data.table import find_followed, load_table
from helpers.files import SuiteError
from helpers.recipe import load_recipe
from helpers.settings import DataSettings


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


def test_columns_that_inspection_adds_do_not_meet_the_tables_own(photos, load):
    names = ["brightness", "entropy", "sharpness", "mean_r",
             "brightness_perc_99", "grey", "sha256", "width"]
    values = ",".join(f"own {place}" for place in range(len(names)))
    text = GOOD.replace("label", ",".join(["label", *names])).replace(",x", f",x,{values}")
    text = text.replace(",y", f",y,{values}")
    images = inspect_images(load(write_table(photos, text), source="csv", csv="table.csv"))
    assert len(images) == 4 and images.columns.is_unique
    for place, name in enumerate(names):
        assert images[f"csv_{name}"].eq(f"own {place}").all()
        assert images[name].notna().all()
        assert not images[name].astype(str).str.contains("own").any()


def test_a_separator_at_the_end_of_each_line_does_no_harm(photos, load):
    text = GOOD.replace("\n", ",\n").replace("label,", "label", 1)
    table = load(write_table(photos, text), source="csv", csv="table.csv")
    assert list(table.label) == ["x", "y", "x", "y"]


def test_spaces_around_labels_are_taken_away_and_said(photos, load, capsys):
    load(write_table(photos, GOOD.replace(",x", ", x ")), source="csv", csv="table.csv")
    assert "cleaned 2 labels" in capsys.readouterr().out


def test_a_csv_may_name_its_splits(photos, load):
    text = "image,label,part\na.jpg,x,train\nb c.jpg,y,VAL\né.jpg,x,test\nD.JPG,,test\n"
    settings = {"source": "csv", "csv": "table.csv", "split_column": "part"}
    table = load(write_table(photos, text), **settings)
    assert list(table.split) == ["train", "train", "test", "test"]
    with pytest.raises(SuiteError, match="'holiday' in column 'part' is none of train"):
        load(write_table(photos, text.replace("VAL", "holiday")), **settings)
    with pytest.raises(SuiteError, match="no column 'camera' to group by"):
        load(write_table(photos, text), **settings, group_column="camera")


# --- folders

def test_own_split_folders_are_kept(folders, tmp_path, load):
    for part in ("train", "val", "test"):
        shutil.copytree(folders, tmp_path / "data" / part)
    table = load(tmp_path / "data", source="folders")
    assert table.split.value_counts().to_dict() == {"train": 72, "test": 36}
    assert table.label.nunique() == 3 and table.label.notna().all()


def make_folders(place: Path, *folders: str) -> Path:
    """Put one image into each of `folders`, named by its number."""
    for number, folder in enumerate(folders):
        (place / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(place / folder / f"{number}.png")
    return place


@pytest.mark.parametrize(("name", "split"), [
    ("train", "train"), ("training", "train"), ("Train", "train"), ("val", "train"),
    ("valid", "train"), ("validation", "train"), ("test", "test"), ("testing", "test")])
def test_each_name_of_a_split_is_known(tmp_path, load, name, split):
    other = "val" if split == "test" or "rain" in name else "train"
    table = load(make_folders(tmp_path / "data", f"{name}/a", f"{other}/b"), source="folders")
    assert dict(zip(table.label, table.split, strict=True)) == {"a": split, "b": "train"}


@pytest.mark.parametrize(("places", "splits"), [
    (["train/a", "train/b"], {"a": "train", "b": "train"}),  # a split folder alone
    (["train/a", "test/b", "notes/c"], {"a": "train", "b": "test"}),  # others are ignored
    (["val/a", "test/b"], {"a": "train", "b": "test"}),
    (["train/a", "car/b"], {"train": "train", "car": "train"}),  # a class called train
])
def test_names_of_splits_count_where_they_split(tmp_path, load, capsys, places, splits):
    table = load(make_folders(tmp_path / "data", *places), source="folders")
    assert dict(zip(table.label, table.split, strict=True)) == splits
    assert ("ignored notes" in capsys.readouterr().out) == ("notes/c" in places)


@pytest.mark.parametrize("files", [[], ["a/notes.txt", "b/.hidden.jpg"], ["beside.jpg"],
                                   ["train/a/notes.txt", "test/a/notes.txt"],
                                   [".git/a.jpg", "__MACOSX/b.jpg"]])
def test_folders_without_images_are_refused(tmp_path, load, files):
    data = tmp_path / "data"
    data.mkdir()
    for name in files:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).touch()
    with pytest.raises(SuiteError, match=r"data holds no images in class folders: put them as "
                                         r"data/<class>/<image>, as \.jpg"):
        load(data, source="folders")


def test_every_source_of_the_settings_has_a_layout():
    assert set(LAYOUTS) == set(get_args(DataSettings.model_fields["source"].annotation))


def test_rakutens_text_and_product_are_kept(rakuten, load):
    table = load(rakuten, source="rakuten")
    assert table.designation.str.contains("métal").any()
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
    images = inspect_images(table).set_index("image_id")
    assert images.reason.to_dict() == {
        "tiny": "", "moving": "", "huge": "too large: may be a decompression bomb"}
    assert images.animated["moving"] and images.width["tiny"] == 1
    assert decode_image(tmp_path / "moving.gif").size == (9, 9)
    with pytest.raises(UnreadableImageError, match="too large"):
        decode_image(tmp_path / "huge.png")


def test_the_photo_that_is_followed_is_the_named_one_or_the_first(folders, write_recipe, capsys):
    recipe = load_recipe(write_recipe("tiny", folders, source="folders"))
    table = load_table(recipe)
    assert find_followed(recipe, table).equals(table.iloc[0])
    named = recipe.change(follow=table.image_id[20])
    assert find_followed(named, table).equals(table.iloc[20])
    held = table.assign(split=table.split.mask(table.index == 20, "holdout"))
    assert find_followed(named, held).equals(held.iloc[0])
    assert f"{table.image_id[20]} is not among the training images" in capsys.readouterr().out
