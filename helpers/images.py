"""Images: one way to decode a file and one way to prepare it, used by every later step."""

import contextlib
import hashlib
import json
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from helpers.files import resolve_path, show_path

# What cannot be decoded is refused with its reason; Pillow's warnings would come on top.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")

PAPER = (255, 255, 255)  # colour behind transparent pixels
DECODING = 1  # raised when decode_image returns other pixels, so that no old features are kept
NUMBERS = {"ToTensor", "MaybeToTensor", "PILToTensor", "MaybePILToTensor", "Normalize"}
_DECODERS = ("pillow", "torchvision", "simplejpeg")
MAX_PIXELS = 100_000_000  # a larger image is refused: it may be a decompression bomb


class UnreadableImageError(Exception):
    """A file that cannot be decoded; the message is the reason alone."""


def decode_image(path: str | Path) -> Image.Image:
    """Decode one file to RGB, uint8, the same everywhere.

    EXIF rotation is applied, transparency laid on white, 16-bit and float values are scaled
    (Pillow alone would clip them), palettes and CMYK converted. An animation gives its first
    frame.

    Raises:
        UnreadableImageError: missing, empty, truncated, no image, or over MAX_PIXELS.
    """
    path = resolve_path(path)
    try:
        if path.stat().st_size == 0:
            raise UnreadableImageError("empty file")
        image = Image.open(path)
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableImageError(f"too large: {image.width} x {image.height} pixels")
        return _to_rgb(ImageOps.exif_transpose(image))
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


def describe_file(path: str | Path) -> dict:
    """Return what a readable file's header says: what decode_image will have to put right.

    Keys: `format` (Pillow's name), `mode`, `rotated`, `transparent`, `animated`.
    """
    with Image.open(resolve_path(path)) as image:
        facts = {"format": image.format, "mode": image.mode, "rotated": False,
                 "transparent": bool(image.has_transparency_data), "animated": False}
        # Damaged EXIF is no EXIF, and damaged further frames are none.
        with contextlib.suppress(Exception):
            facts["rotated"] = image.getexif().get(0x0112, 1) not in (0, 1)
        with contextlib.suppress(Exception):
            facts["animated"] = getattr(image, "n_frames", 1) > 1
        return facts


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        # 16 bits are scaled by their type, wider numbers by what they hold.
        most = 65535 if image.mode.startswith("I;16") or values.max() > 255 else (
            255 if values.max() > 1 else 1)
        image = Image.fromarray((values * 255 / most).round().clip(0, 255).astype(np.uint8))
    elif image.mode == "P" or image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*PAPER, 255)), image)
    return image.convert("RGB")


def create_geometry(data_config: dict):
    """Return what resizes and crops an RGB image to the network's size, still uint8."""
    from torchvision.transforms import Compose

    steps = _create_transform(data_config).transforms
    return Compose([step for step in steps if type(step).__name__ not in NUMBERS])


def create_normalisation(data_config: dict):
    """Return what turns resized pixels, (..., H, W, 3) uint8, into (..., 3, H, W) float32.

    The same sums as torchvision's ToTensor and Normalize, in torch operations only, so that it
    can also be the first step of a network on any device.
    """
    import torch

    if data_config.get("normalisation") == "zscore":
        return lambda pixels: standardise_image(_scale(pixels))
    mean, std = (torch.tensor(data_config[key]).view(3, 1, 1) for key in ("mean", "std"))
    return lambda pixels: (_scale(pixels) - mean.to(pixels.device)) / std.to(pixels.device)


def _scale(pixels):
    return pixels.movedim(-1, -3).float() / 255


def create_preprocessing(data_config: dict):
    """Return timm's evaluation transform for a data config: RGB image to (3, H, W) float32.

    No augmentation: the same for training features, test features and every prediction.
    """
    import torch

    resize, normalise = create_geometry(data_config), create_normalisation(data_config)
    return lambda image: normalise(torch.from_numpy(np.array(resize(image)))).contiguous()


def describe_preprocessing(data_config: dict) -> dict:
    """Return all that decides a prepared image, decoder and versions included, as plain values.

    Two preprocessings are the same if and only if their descriptions are.
    """
    names = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
    facts = {name: data_config.get(name) for name in names}
    facts["normalisation"] = data_config.get("normalisation", "backbone")
    facts |= {"decoding": DECODING} | {name: version(name) for name in _DECODERS}
    return json.loads(json.dumps(facts))  # tuples as lists, as they are read back from a file


def fingerprint_preprocessing(data_config: dict) -> str:
    """Return 16 hexadecimal digits that stand for `describe_preprocessing`."""
    text = json.dumps(describe_preprocessing(data_config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _create_transform(data_config: dict):
    from timm.data import create_transform

    options = {key: value for key, value in data_config.items() if key != "normalisation"}
    return create_transform(**options, is_training=False)


def standardise_image(tensor):
    """Return (..., 3, H, W) with mean 0 and deviation 1 in each image's own channels."""
    return (tensor - tensor.mean((-2, -1), keepdim=True)) / tensor.std(
        (-2, -1), keepdim=True).clamp_min(1e-3)


def undo_normalisation(tensor, data_config: dict) -> np.ndarray:
    """Return a prepared (3, H, W) tensor as an (H, W, 3) picture in 0 to 1, to look at."""
    values = tensor.numpy().transpose(1, 2, 0)
    if data_config.get("normalisation") == "zscore":  # its own mean and deviation are gone
        return ((values - values.min()) / max(np.ptp(values), 1e-6)).clip(0, 1)
    mean, std = (np.array(data_config[key]) for key in ("mean", "std"))
    return (values * std + mean).clip(0, 1)
