"""Photos from outside: bounded, decoded and resized as in training, or refused in a sentence."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.data.images import FORMATS, MAX_PIXELS, UnreadableImageError, convert_image
from helpers.network.pixels import decode_pixels
from helpers.network.preprocessing import create_geometry

Photo = str | Path | bytes | bytearray | memoryview | Image.Image


@dataclass(frozen=True)
class Limits:
    """What is not even decoded."""

    megabytes: int = 100  # of a file
    pixels: int = MAX_PIXELS
    least: int = 8  # pixels of a side: less shows nothing
    aspect: int = 50  # longer side by shorter: resizing more would take gigabytes


class PhotoReader:
    """Reads photos for a network: files, what files hold, or opened images.

    Args:
        data_config: of the network, as from `resolve_data_config`.
    """

    def __init__(self, data_config: dict, limits: Limits | None = None):
        self.data_config, self.limits = data_config, limits or Limits()

    @cached_property
    def _geometry(self):
        return create_geometry(self.data_config)

    def __getstate__(self) -> dict:
        """Leave the geometry out: a worker process makes its own."""
        return {"data_config": self.data_config, "limits": self.limits}

    def read(self, photo: Photo) -> np.ndarray:
        """Return what the network is given of a photo, (H, W, 3) uint8.

        Raises:
            UnreadableImageError: no image, damaged, or beyond the limits; says which.
        """
        if isinstance(photo, Image.Image):
            return self._geometry(self._convert(photo))
        content = self._read_file(Path(photo)) if isinstance(photo, str | Path) else bytes(photo)
        if len(content) > self.limits.megabytes * 2**20:
            raise UnreadableImageError(f"larger than {self.limits.megabytes} MB")
        return decode_pixels(content, self._geometry, check=self._require_size)

    def _convert(self, image: Image.Image) -> Image.Image:
        self._require_size(image.size)
        if image.format not in (None, *FORMATS):  # None: it was made here, not opened
            raise UnreadableImageError("not an image")
        try:
            return convert_image(image)
        except Exception as error:  # an opened file is decoded only now
            reason = str(error) or type(error).__name__
            raise UnreadableImageError(
                "truncated file" if "truncated" in reason.lower() else reason) from error

    def _read_file(self, path: Path) -> bytes:
        try:
            if path.stat().st_size > self.limits.megabytes * 2**20:
                raise UnreadableImageError(f"larger than {self.limits.megabytes} MB")
            return path.read_bytes()
        except OSError as error:
            raise UnreadableImageError(str(error.strerror or error)) from None

    def _require_size(self, size: tuple[int, int]) -> None:
        shorter, longer = sorted(size)
        said = "{} x {} pixels".format(*size)
        if size[0] * size[1] > self.limits.pixels:
            raise UnreadableImageError(f"too large: {said}")
        if shorter < self.limits.least:
            raise UnreadableImageError(f"too small: {said}")
        if longer > self.limits.aspect * shorter:
            raise UnreadableImageError(f"too long and narrow: {said}")


class PhotoFiles:
    """Photos as batches for an engine; zeros stand for what is refused, and `refused` says why.

    Args:
        photos: indexed by the numbers of batches.
    """

    def __init__(self, photos: Sequence[Photo], reader: PhotoReader):
        self.photos, self.reader, self.refused = photos, reader, {}

    def read_batch(self, numbers: Iterable[int], shape: tuple) -> np.ndarray:
        """Return a batch of `shape`, uint8: the pixels of some photos, then zeros."""
        pixels = np.zeros(shape, np.uint8)
        for slot, number in enumerate(numbers):
            try:
                pixels[slot] = self.reader.read(self.photos[number])
            except UnreadableImageError as error:
                self.refused[number] = str(error)
        return pixels
