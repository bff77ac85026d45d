"""Images: one way to decode a file, used by every later step."""

import contextlib
import hashlib
import io
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from helpers.files import ROOT, SuiteError, resolve_path, show_path

# What cannot be decoded is refused with its reason; Pillow's warnings would come on top.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")

PAPER = (255, 255, 255)  # colour behind transparent pixels
MAX_PIXELS = 100_000_000  # a larger image is refused: it may be a decompression bomb
MAX_ASPECT = 100  # longer side to shorter one: a line of pixels would be resampled to gigabytes
DEPTHS = tuple(2**bits - 1 for bits in (1, 8, 10, 12, 14, 16))  # largest values of sensors
# Others are no images here: PostScript would start Ghostscript, an icon is decoded before its
# size is known.
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "TGA", "PCX",
           "JPEG2000", "AVIF", "HEIF")
with contextlib.suppress(ImportError):  # photos of iPhones, where this plugin is installed
    import pillow_heif

    pillow_heif.register_heif_opener()
HEIF_SUFFIXES = {".heic", ".heif"}
# Of all that this Pillow can read.
IMAGE_SUFFIXES = {ending for ending, kind in Image.registered_extensions().items()
                  if kind in FORMATS and kind in Image.OPEN}
Check = Callable[[tuple[int, int]], None] | None  # raises UnreadableImageError


class UnreadableImageError(Exception):
    """A file that cannot be decoded; the message is the reason alone."""


def decode_image(path: str | Path, content: bytes | None = None, check: Check = None,
                 side: int | None = None) -> Image.Image:
    """Decode one file to RGB, uint8, the same everywhere.

    EXIF rotation is applied, transparency laid on white, deep values are scaled (see
    `find_range`; Pillow alone would clip them; `info["white"]` is then the value that became
    255), palettes and CMYK converted. An animation gives its first frame.

    Args:
        content: what the file holds, if it has been read already.
        check: is given width and height before anything is decoded, to refuse them.
        side: pixels of the longer side that will do: JPEG files are decoded no larger than
            needed for it, several times as fast.

    Raises:
        UnreadableImageError: missing, empty, truncated, no image, none of FORMATS, over
            MAX_PIXELS or MAX_ASPECT.
    """
    path = resolve_path(path)
    try:
        content = path.read_bytes() if content is None else content
        if not content:
            raise UnreadableImageError("empty file")
        image = open_image(content)
        if check:
            check(image.size)
        refuse_size(image.size)
        if side:
            scale = side / max(image.size)
            image.draft(None, tuple(math.ceil(scale * length) for length in image.size))
        return convert_image(image)
    except UnreadableImageError:
        raise
    except FileNotFoundError:
        raise UnreadableImageError("file is missing") from None
    except Image.UnidentifiedImageError:
        raise UnreadableImageError("not an image") from None
    except Image.DecompressionBombError:  # beyond Pillow's own limit, before ours is asked
        raise UnreadableImageError("too large: may be a decompression bomb") from None
    except Exception as error:  # damaged files raise whatever a decoder stumbles over
        reason = str(error) or type(error).__name__
        reason = "truncated file" if "truncated" in reason.lower() else reason
        raise UnreadableImageError(reason.replace(str(path), show_path(path))) from error


def refuse_size(size: tuple[int, int]) -> None:
    """Raise UnreadableImageError if an image of this width and height is not worth decoding."""
    if size[0] * size[1] > MAX_PIXELS:
        raise UnreadableImageError(f"too large: {size[0]} x {size[1]} pixels")
    if max(size) > MAX_ASPECT * max(1, min(size)):
        raise UnreadableImageError(f"too narrow: {size[0]} x {size[1]} pixels")


def open_image(content: bytes) -> Image.Image:
    """Return an image of which only the header has been read; Pillow's errors."""
    Image.init()  # all that this Pillow, and plugins of it, can decode
    return Image.open(io.BytesIO(content), formats=[k for k in FORMATS if k in Image.OPEN])


def shrink_image(path: str | Path, side: int, quality: int,
                 content: bytes | None = None) -> bytes:
    """Return a photo that fits into `side` pixels, as JPEG; the rest as `decode_image`."""
    image, stream = decode_image(path, content), io.BytesIO()
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    image.save(stream, "JPEG", quality=quality, comment=b"")  # nothing but the picture
    return stream.getvalue()


def describe_header(content: bytes) -> dict:
    """Return what a readable file's header says: what decode_image will have to put right.

    Keys: `format` (Pillow's name), `mode`, `rotated`, `transparent`, `animated`.
    """
    with Image.open(io.BytesIO(content)) as image:
        facts = {"format": image.format, "mode": image.mode, "rotated": False,
                 "transparent": bool(image.has_transparency_data), "animated": False}
        # Damaged EXIF is no EXIF, and damaged further frames are none.
        with contextlib.suppress(Exception):
            facts["rotated"] = image.getexif().get(0x0112, 1) not in (0, 1)
        with contextlib.suppress(Exception):
            facts["animated"] = getattr(image, "n_frames", 1) > 1
        return facts


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
        raise refuse_image(path, error.strerror or error) from None
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise SuiteError(f"{show_path(path)} has changed since it was inspected: run 01_eda and "
                         "what follows again.")
    return content


def refuse_image(path: str, reason) -> SuiteError:
    """Return the error for a file that 01 could read and that cannot be read now."""
    return SuiteError(f"{show_path(path)} cannot be read any more ({reason}). Run 01_eda again "
                      "to set it aside.")


def convert_image(image: Image.Image) -> Image.Image:
    """Return an opened image as RGB, uint8, upright: see `decode_image`."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, np.float64), posinf=0, neginf=0)
        black, white = find_range(values)
        shares = (values - black) / max(white - black, 1e-12)
        image = Image.fromarray((shares * 255).round().clip(0, 255).astype(np.uint8))
        image.info["white"] = white
    elif image.mode == "P" or image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*PAPER, 255)), image)
    return image.convert("RGB")


def find_range(values: np.ndarray) -> tuple[float, float]:
    """Return which of one image's deep values become black and white, by what it uses.

    Sensors and X-rays write 10 or 12 bits into files of 16: values up to 1,023 count as 10 bits,
    up to 4,095 as 12, and so on, and values up to 1 as shares. Larger and negative ones are
    scaled from the smallest to the largest.
    """
    low, high = min(0.0, float(values.min())), float(values.max())
    return low, next((float(top) for top in DEPTHS if low == 0 and high <= top), high)
