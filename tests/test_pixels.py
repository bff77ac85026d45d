"""Pixels: the fast way gives Pillow's pixels to the last bit, for any file and geometry."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.errors import SuiteError
from helpers.images import create_geometry, decode_image
from helpers.pixels import PixelReader

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
def test_pixels_are_pillows(tmp_path, height, width, side, mode, interpolation, crop, options):
    path = write_photo(tmp_path / "photo.jpg", height, width, mode, **options)
    config = CONFIG | {"input_size": (3, side, side), "interpolation": interpolation,
                       "crop_mode": crop[0], "crop_pct": crop[1]}
    expected = np.asarray(create_geometry(config)(decode_image(path)))
    assert np.array_equal(PixelReader(config).read(path), expected)


@pytest.fixture
def config():
    return CONFIG | {"input_size": (3, 48, 48), "interpolation": "bicubic",
                     "crop_mode": "center", "crop_pct": 0.9}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_photos_stand_upright(tmp_path, config, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write_photo(tmp_path / "photo.jpg", 90, 160, exif=exif)
    expected = np.asarray(create_geometry(config)(decode_image(path)))
    assert np.array_equal(PixelReader(config).read(path), expected)


def test_a_rotation_is_found_behind_other_segments(tmp_path, config):
    """A comment may hold the very bytes that begin a photo's pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write_photo(tmp_path / "photo.jpg", 90, 160, exif=exif)
    content = path.read_bytes()
    comment = b"\xff\xfe\x00\x06\xff\xda\xff\xda"
    path.write_bytes(content[:2] + comment + content[2:])
    expected = np.asarray(create_geometry(config)(decode_image(path)))
    assert np.array_equal(PixelReader(config).read(path), expected)


@pytest.mark.parametrize(("name", "mode"), [
    ("photo.png", "RGB"), ("photo.png", "P"), ("photo.webp", "RGB"), ("photo.jpg", "CMYK"),
    ("photo.gif", "L"), ("really.png.jpg", "RGB")])
def test_other_files_take_the_plain_way(tmp_path, config, name, mode):
    path = write_photo(tmp_path / name, 70, 100, mode)
    expected = np.asarray(create_geometry(config)(decode_image(path)))
    assert np.array_equal(PixelReader(config).read(path), expected)


def test_the_fast_way_is_taken_and_keeps_its_memory(tmp_path, config, monkeypatch):
    path = write_photo(tmp_path / "photo.jpg", 200, 300)
    reader = PixelReader(config)
    monkeypatch.setattr("helpers.pixels.decode_image", lambda _: pytest.fail("the plain way"))
    first = reader.read(path).copy()
    kept = {name: buffer.ctypes.data for name, buffer in reader.buffers.items()}
    assert np.array_equal(reader.read(path), first)
    assert kept == {name: buffer.ctypes.data for name, buffer in reader.buffers.items()}


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999), progressive=st.booleans())
def test_a_truncated_photo_is_refused_as_pillow_does(tmp_path, config, share, progressive):
    path = write_photo(tmp_path / "photo.jpg", 120, 160, progressive=progressive)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    try:
        expected = np.asarray(create_geometry(config)(decode_image(path)))
    except Exception:  # whatever the reason: the reader must not make pixels of it
        with pytest.raises(SuiteError, match="cannot be read any more"):
            PixelReader(config).read(path)
    else:
        assert np.array_equal(PixelReader(config).read(path), expected)


@settings(max_examples=100, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0.02, 0.999), byte=st.integers(0, 255))
def test_a_damaged_photo_is_what_pillow_makes_of_it(tmp_path, config, place, byte):
    path = write_photo(tmp_path / "photo.jpg", 120, 160)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] = byte
    path.write_bytes(content)
    try:
        expected = np.asarray(create_geometry(config)(decode_image(path)))
    except Exception:  # as above
        with pytest.raises(SuiteError, match="cannot be read any more"):
            PixelReader(config).read(path)
    else:
        assert np.array_equal(PixelReader(config).read(path), expected)
