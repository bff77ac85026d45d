"""Images: one way to decode a file, used by every later step."""

import contextlib
import hashlib
import io
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
# Others are no images here: PostScript would start Ghostscript, an icon is decoded before its
# size is known.
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "TGA", "PCX",
           "JPEG2000", "AVIF", "HEIF")
Check = Callable[[tuple[int, int]], None] | None  # raises UnreadableImageError


class UnreadableImageError(Exception):
    """A file that cannot be decoded; the message is the reason alone."""


def decode_image(path: str | Path, content: bytes | None = None,
                 check: Check = None) -> Image.Image:
    """Decode one file to RGB, uint8, the same everywhere.

    EXIF rotation is applied, transparency laid on white, 16-bit and float values are scaled
    (Pillow alone would clip them), palettes and CMYK converted. An animation gives its first
    frame.

    Args:
        content: what the file holds, if it has been read already.
        check: is given width and height before anything is decoded, to refuse them.

    Raises:
        UnreadableImageError: missing, empty, truncated, no image, none of FORMATS, or over
            MAX_PIXELS.
    """
    path = resolve_path(path)
    try:
        content = path.read_bytes() if content is None else content
        if not content:
            raise UnreadableImageError("empty file")
        image = open_image(content)
        if check:
            check(image.size)
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableImageError(f"too large: {image.width} x {image.height} pixels")
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
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        # 16 bits are scaled by their type, wider numbers by what they hold.
        deep = image.mode.startswith("I;16") or values.max() > 255
        most = 65535 if deep else 255 if values.max() > 1 else 1
        image = Image.fromarray((values * 255 / most).round().clip(0, 255).astype(np.uint8))
    elif image.mode == "P" or image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*PAPER, 255)), image)
    return image.convert("RGB")
