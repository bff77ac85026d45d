"""Pixels: the fast way gives the pixels of the plain one to the last bit, for any file."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.data.images import MAX_ASPECT, decode_image
from helpers.files import SuiteError
from helpers.network import pixels
from helpers.network.pixels import read_pixels
from helpers.network.preprocessing import create_geometry

SIDES = st.integers(1, 300)
CONFIG = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


def write_photo(path, height, width, mode="RGB", **options):
    rough = np.random.default_rng(height * width).integers(
        0, 255, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8)
    Image.fromarray(rough).resize((width, height)).convert(mode).save(path, **options)
    return path


@settings(max_examples=150, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=SIDES, width=SIDES, side=st.integers(8, 120), mode=st.sampled_from(["RGB", "L"]),
       interpolation=st.sampled_from(["bilinear", "bicubic", "lanczos"]),
       crop=st.sampled_from([("center", 0.875), ("center", 1.0), ("squash", 1.0)]),
       options=st.sampled_from([{}, {"quality": 95}, {"subsampling": 0}, {"progressive": True}]))
def test_pixels_are_those_of_the_plain_way(tmp_path, height, width, side, mode, interpolation,
                                           crop, options):
    assume(max(height, width) <= MAX_ASPECT * min(height, width))
    path = write_photo(tmp_path / "photo.jpg", height, width, mode, **options)
    config = CONFIG | {"input_size": (3, side, side), "interpolation": interpolation,
                       "crop_mode": crop[0], "crop_pct": crop[1]}
    expected = create_geometry(config)(decode_image(path))
    assert np.array_equal(read_pixels(path, create_geometry(config)), expected)


@pytest.fixture
def config():
    return CONFIG | {"input_size": (3, 48, 48), "interpolation": "bicubic",
                     "crop_mode": "center", "crop_pct": 0.9}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_photos_stand_upright(tmp_path, config, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write_photo(tmp_path / "photo.jpg", 90, 160, exif=exif)
    expected = create_geometry(config)(decode_image(path))
    assert np.array_equal(read_pixels(path, create_geometry(config)), expected)


def test_a_rotation_is_found_behind_other_segments(tmp_path, config):
    """A comment may hold the very bytes that begin a photo's pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write_photo(tmp_path / "photo.jpg", 90, 160, exif=exif)
    content = path.read_bytes()
    comment = b"\xff\xfe\x00\x06\xff\xda\xff\xda"
    path.write_bytes(content[:2] + comment + content[2:])
    expected = create_geometry(config)(decode_image(path))
    assert np.array_equal(read_pixels(path, create_geometry(config)), expected)


@pytest.mark.parametrize(("name", "mode"), [
    ("photo.png", "RGB"), ("photo.png", "P"), ("photo.webp", "RGB"), ("photo.jpg", "CMYK"),
    ("photo.gif", "L"), ("really.png.jpg", "RGB")])
def test_other_files_take_the_plain_way(tmp_path, config, name, mode):
    path = write_photo(tmp_path / name, 70, 100, mode)
    expected = create_geometry(config)(decode_image(path))
    assert np.array_equal(read_pixels(path, create_geometry(config)), expected)


def test_the_fast_way_is_taken(tmp_path, config, monkeypatch):
    path = write_photo(tmp_path / "photo.jpg", 200, 300)
    monkeypatch.setattr(pixels, "decode_image", lambda *_: pytest.fail("the plain way"))
    assert read_pixels(path, create_geometry(config)).shape == (48, 48, 3)


def test_the_resize_is_pillows_but_for_a_level_or_two(tmp_path, config):
    path = write_photo(tmp_path / "photo.jpg", 200, 300)
    short = Image.open(path).resize((79, 53), Image.Resampling.BICUBIC)
    left, top = round((79 - 48) / 2), round((53 - 48) / 2)
    expected = np.asarray(short.crop((left, top, left + 48, top + 48)), int)
    difference = np.abs(read_pixels(path, create_geometry(config)) - expected)
    assert difference.max() <= 2 and (difference > 0).mean() < 0.02


def test_what_is_hashed_is_what_is_decoded(tmp_path, config, monkeypatch):
    """The file may change between two reads, so there is only one."""
    path, other = (write_photo(tmp_path / name, 60, 80) for name in ("a.png", "b.png"))
    Image.new("RGB", (80, 60), "red").save(other)
    expected = read_pixels(path, create_geometry(config))
    read = pixels.read_file

    def read_then_swap(*arguments):
        content = read(*arguments)
        other.replace(path)
        return content

    monkeypatch.setattr(pixels, "read_file", read_then_swap)
    assert np.array_equal(read_pixels(path, create_geometry(config)), expected)


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999), progressive=st.booleans())
def test_a_truncated_photo_is_refused_as_pillow_does(tmp_path, config, share, progressive):
    path = write_photo(tmp_path / "photo.jpg", 120, 160, progressive=progressive)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    try:
        expected = create_geometry(config)(decode_image(path))
    except Exception:  # whatever the reason: the reader must not make pixels of it
        with pytest.raises(SuiteError, match="cannot be read any more"):
            read_pixels(path, create_geometry(config))
    else:
        assert np.array_equal(read_pixels(path, create_geometry(config)), expected)


@settings(max_examples=100, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0.02, 0.999), byte=st.integers(0, 255))
def test_a_damaged_photo_is_what_pillow_makes_of_it(tmp_path, config, place, byte):
    path = write_photo(tmp_path / "photo.jpg", 120, 160)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] = byte
    path.write_bytes(content)
    try:
        expected = create_geometry(config)(decode_image(path))
    except Exception:  # as above
        with pytest.raises(SuiteError, match="cannot be read any more"):
            read_pixels(path, create_geometry(config))
    else:
        assert np.array_equal(read_pixels(path, create_geometry(config)), expected)
