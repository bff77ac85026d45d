"""Pixels: a file's resized pixels as Pillow gives them, to the last bit, in half the time.

Extraction on a CPU spends a fifth of its time before the network. Most photos are plain JPEG
files and most backbones resize bilinearly or bicubically; for these, libjpeg-turbo decodes into
a buffer that is kept (simplejpeg), and Pillow's own integer arithmetic is done on whole rows at
once (numba). Every other file takes the plain way, `decode_image` and `create_geometry`, which
also says what a pixel should be: the tests compare the two.
"""

import functools
import hashlib
import io
import math
import os

import cv2
import numba
import numpy as np
import simplejpeg
from PIL import Image

from helpers.errors import SuiteError
from helpers.files import ROOT, show_path
from helpers.images import MAX_PIXELS, UnreadableImageError, create_geometry, decode_image

BITS = 22  # of Pillow's fixed-point weights (PRECISION_BITS in its Resample.c)
KEPT = 48 * 2**20  # bytes; larger buffers, of photos over 16 megapixels, are not kept
FILTERS = {"bilinear": 1.0, "bicubic": 2.0}  # support in pixels
ORIENTATION = 0x0112


class PixelReader:
    """Reads files as the network's resized pixels; it keeps buffers, so one for each thread."""

    def __init__(self, data_config: dict):
        self.size = data_config["input_size"][1:]
        self.geometry = create_geometry(data_config)
        self.resize, self.crop = _plan(self.geometry.transforms)
        self.buffers = {}

    def read(self, path: str, out: np.ndarray | None = None,
             sha256: str | None = None) -> np.ndarray:
        """Decode, resize and crop one file, into `out` if it is given.

        Args:
            sha256: what the file's content must still hash to.

        Returns:
            (H, W, 3) uint8.

        Raises:
            SuiteError: it cannot be read, or is another file than 01_eda has seen. Never a
                black image in its place: features of nothing look like any others.
        """
        out = np.empty((*self.size, 3), np.uint8) if out is None else out
        content = read_file(path, sha256)
        if not self._read_jpeg(content, out):
            try:
                out[:] = np.asarray(self.geometry(decode_image(path)))
            except UnreadableImageError as error:
                raise SuiteError(_explain(path, error)) from None
        return out

    def _read_jpeg(self, content: bytes, out: np.ndarray) -> bool:
        """Take the fast way and return True, or False where Pillow has to answer."""
        if not self.resize or not content.startswith(b"\xff\xd8") or _is_rotated(content):
            return False
        try:
            height, width, space, _ = simplejpeg.decode_jpeg_header(content)
            if space not in ("YCbCr", "RGB") or height * width > MAX_PIXELS:
                return False
            pixels = simplejpeg.decode_jpeg(content, buffer=self._take("file", height, width))
        except ValueError:  # damaged, or unusual: Pillow says which
            return False
        size = self.resize.size_for(height, width)
        top, left, *target = self.crop.window_for(*size) if self.crop else (0, 0, *size)
        # An image that loses twice as much height as width has its rows summed first by Pillow
        # 13, last by those before; below that all versions agree.
        rows_first = height > size[0] and height - size[0] >= 2 * (width - size[1])
        if min(top, left) < 0 or rows_first:
            out[:] = np.asarray(self.geometry(Image.fromarray(pixels)))
            return True
        rows = weigh(height, size[0], top, target[0], self.resize.filter)
        columns = weigh(width, size[1], left, target[1], self.resize.filter)
        self._resample(pixels, rows, columns, out)
        return True

    def _resample(self, pixels, rows, columns, out) -> None:
        # As Pillow: first each row's columns, rounded to bytes, then the rows. Both are sums of
        # whole rows here, which processors do many bytes at a time, so the image lies on its
        # side for the first.
        low, high = rows[0][0], rows[0][-1] + rows[1][-1]
        height, width = high - low, pixels.shape[1]
        lying = self._take("lying", width, height)
        cv2.transpose(pixels[low:high], lying)
        narrow = self._take("narrow", len(columns[0]), height)
        sums = self._take("sums", 1, max(height, out.shape[1]), dtype=np.int32).ravel()
        _sum_rows(lying.reshape(width, -1), *columns, sums, narrow.reshape(len(narrow), -1))
        upright = self._take("upright", height, len(columns[0]))
        cv2.transpose(narrow, upright)
        _sum_rows(upright.reshape(height, -1), rows[0] - low, *rows[1:], sums,
                  out.reshape(len(out), -1))

    def _take(self, name: str, height: int, width: int, dtype=np.uint8) -> np.ndarray:
        """Return a (height, width, 3) buffer; fresh memory for each photo would cost more
        than resizing it, because the system hands it out page by page."""
        size = height * width * 3
        buffer = self.buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = np.empty(size, dtype)
            if buffer.nbytes <= KEPT:
                self.buffers[name] = buffer
        return buffer[:size].reshape(height, width, 3)


def read_file(path: str, sha256: str | None = None) -> bytes:
    """Return a file's content, if it still hashes to `sha256`.

    Raises:
        SuiteError: it cannot be read, or has changed since it was inspected.
    """
    try:  # three calls of the system; pathlib would take longer than the disk
        stream = os.open(os.path.join(ROOT, path), os.O_RDONLY)
        try:
            size = os.fstat(stream).st_size
            content = os.read(stream, size)
        finally:
            os.close(stream)
        if len(content) < size:
            raise OSError(f"{len(content)} of {size} bytes could be read")
    except OSError as error:
        raise SuiteError(_explain(path, error.strerror or str(error))) from None
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise SuiteError(f"{show_path(path)} has changed since it was inspected: run 01_eda and "
                         "what follows again.")
    return content


class _Resize:
    def __init__(self, step):
        self.size = step.size
        self.filter = step.interpolation.value

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """As torchvision: a number is the shorter side, a pair is both."""
        if not isinstance(self.size, int) and len(self.size) == 2:
            return tuple(self.size)
        short = self.size if isinstance(self.size, int) else self.size[0]
        long = int(short * max(height, width) / min(height, width))
        return (short, long) if height <= width else (long, short)


class _CenterCrop:
    def __init__(self, step):
        self.height, self.width = step.size

    def window_for(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return top, left, height, width; as torchvision, which rounds half to even."""
        return (round((height - self.height) / 2), round((width - self.width) / 2),
                self.height, self.width)


def _plan(steps: list) -> tuple[_Resize | None, _CenterCrop | None]:
    """Return what of timm's geometry can be done fast: a Resize, perhaps a CenterCrop."""
    names = [type(step).__name__ for step in steps]
    if names not in (["Resize"], ["Resize", "CenterCrop"]) or (
            steps[0].interpolation.value not in FILTERS or steps[0].max_size):
        return None, None
    return _Resize(steps[0]), _CenterCrop(steps[1]) if len(steps) == 2 else None


def _is_rotated(content: bytes) -> bool:
    """Return whether a JPEG file's EXIF or XMP may ask for a rotation."""
    header = content[: _measure_header(content)]
    if b"Exif\0" not in header and b"Orientation" not in header:
        return False
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.getexif().get(ORIENTATION, 1) not in (0, 1)
    except Exception:  # damaged metadata raises whatever its reader stumbles over
        return True


def _measure_header(content: bytes) -> int:
    """Return where a JPEG file's compressed pixels begin; its length if it is unusual."""
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xDA:
            return place
        if marker < 0xC0 or 0xD0 <= marker <= 0xD9 or marker == 0xFF:  # no length follows
            break
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return len(content)


def _explain(path: str, reason) -> str:
    return (f"{show_path(path)} cannot be read any more ({reason}). Run 01_eda again to set it "
            "aside.")


@functools.lru_cache(maxsize=512)
def weigh(size: int, resized: int, start: int, count: int,
          kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Pillow's resampling weights for resized pixels `start` to `start + count`.

    Returns:
        first source pixel (count,), number of source pixels (count,), and their weights
        (count, most) as fixed-point int32 with 22 bits, as in Pillow's Resample.c.
    """
    scale = size / resized
    stretch = max(scale, 1.0)
    support = FILTERS[kind] * stretch
    first, number = np.empty(count, np.int64), np.empty(count, np.int64)
    weights = np.zeros((count, math.ceil(support) * 2 + 1), np.int32)
    for row in range(count):
        center = (start + row + 0.5) * scale
        low = max(int(center - support + 0.5), 0)
        high = min(int(center + support + 0.5), size)
        distance = np.abs((np.arange(low, high) - center + 0.5) * (1 / stretch))
        values = _triangle(distance) if kind == "bilinear" else _cubic(distance)
        values = values / _sum(values)
        first[row], number[row] = low, high - low
        half = np.where(values < 0, -0.5, 0.5)
        weights[row, : high - low] = (values * (1 << BITS) + half).astype(np.int32)
    return first, number, weights


def _sum(values: np.ndarray) -> float:
    """Add one after the other, as C does; NumPy's pairwise sum rounds otherwise."""
    return functools.reduce(lambda total, value: total + value, values.tolist(), 0.0)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.where(x < 1, 1 - x, 0.0)


def _cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _sum_rows(source, first, number, weights, sums, out):
    """Make each row of `out` a weighted sum of rows of `source`, rounded to bytes."""
    width = source.shape[1]
    for y in range(out.shape[0]):
        target = out[y]
        row, weight = source[first[y]], weights[y, 0]
        for x in range(width):
            sums[x] = np.int32(1 << (BITS - 1)) + weight * np.int32(row[x])
        for tap in range(1, number[y]):
            row, weight = source[first[y] + tap], weights[y, tap]
            for x in range(width):
                sums[x] += weight * np.int32(row[x])
        for x in range(width):
            target[x] = min(max(sums[x] >> BITS, 0), 255)
