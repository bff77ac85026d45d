"""Preprocessing: what the network is given of an image, and how that is told from another way.

Size, crop and interpolation, mean and deviation come from the backbone's own data config in timm,
unless the recipe says otherwise.
"""

import hashlib
import json
from functools import partial

import numpy as np

from helpers.files import SuiteError
from helpers.network.weights import check_network, find_config
from helpers.settings import Recipe

DECODING = 2  # raised when files come out as other pixels, so that no old features are kept
NUMBERS = {"ToTensor", "MaybeToTensor", "PILToTensor", "MaybePILToTensor", "Normalize"}


def resolve_data_config(recipe: Recipe, measured: dict | None = None) -> dict:
    """Return timm's data config of the backbone, with what the recipe changes in it.

    Args:
        measured: `mean` and `std` of the data set's own pixels, for `normalisation: dataset`.

    Returns:
        `input_size` (3, H, W), `interpolation`, `mean`, `std`, `crop_pct`, `crop_mode`, and
        `normalisation`, the recipe's word for it.
    """
    from timm.data import resolve_data_config as resolve

    check_network(recipe)
    config = resolve(pretrained_cfg=find_config(recipe))
    if recipe.network.image_size:
        config["input_size"] = (3, recipe.network.image_size, recipe.network.image_size)
    if recipe.network.resize == "squash":
        config |= {"crop_mode": "squash", "crop_pct": 1.0}
    return normalise_config(config, recipe.network.normalisation, measured)


def normalise_config(config: dict, normalisation: str, measured: dict | None = None) -> dict:
    """Return a data config with another `normalisation`, one of the recipe's."""
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    if normalisation == "dataset" and measured is None:
        raise SuiteError("`normalisation: dataset` needs the data set's measured mean and "
                         "deviation: run 01_eda first.")
    mean, std = {
        "backbone": (config["mean"], config["std"]),
        "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        "minmax": ((0.0,) * 3, (1.0,) * 3),
        "symmetric": ((0.5,) * 3, (0.5,) * 3),
        "dataset": (measured["mean"], measured["std"]) if measured else None,
        "zscore": ((0.0,) * 3, (1.0,) * 3),
    }[normalisation]
    return config | {"mean": tuple(mean), "std": tuple(std), "normalisation": normalisation}


def list_geometry(data_config: dict) -> list:
    """Return timm's transforms for a prediction, without those that make numbers of pixels."""
    from timm.data import create_transform

    options = {key: value for key, value in data_config.items() if key != "normalisation"}
    return [step for step in create_transform(**options, is_training=False).transforms
            if type(step).__name__ not in NUMBERS]


def describe_geometry(data_config: dict) -> dict | None:
    """Return the resize and the crop after it, where there is nothing else, as plain values.

    Returns:
        `resize` (pixels of the shorter side, or height and width), `interpolation`, and `crop`
        (height and width from the middle). None for padding to a border and for Lanczos, which
        timm does to Pillow's images alone.
    """
    steps = list_geometry(data_config)
    first, kinds = steps[0], [type(step).__name__ for step in steps]
    if kinds not in (["Resize"], ["Resize", "CenterCrop"]) or (
            first.interpolation.value not in ("bilinear", "bicubic")):
        return None
    crop = steps[1].size if len(steps) > 1 else data_config["input_size"][1:]
    return {"resize": first.size if isinstance(first.size, int) else list(first.size),
            "interpolation": first.interpolation.value, "crop": [int(side) for side in crop]}


def create_geometry(data_config: dict):
    """Return what resizes and crops an image to the network's size.

    The steps are timm's; the resize is torchvision's antialiasing one of bytes, the same for
    every image, whatever decoded it.

    Returns:
        A function of an RGB image of Pillow, or of its (3, H, W) uint8 pixels, to (H, W, 3)
        uint8.
    """
    import torch
    from PIL import Image
    from torchvision.transforms.v2 import functional

    steps = list_geometry(data_config)
    first, usual = steps[0], describe_geometry(data_config) is not None
    if usual:
        steps[0] = partial(functional.resize, size=first.size, interpolation=first.interpolation,
                           antialias=True)

    def resize(image) -> np.ndarray:
        if usual and not torch.is_tensor(image):
            image = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        elif not usual and torch.is_tensor(image):
            image = Image.fromarray(image.permute(1, 2, 0).numpy())
        for step in steps:
            image = step(image)
        return image.permute(1, 2, 0).numpy() if usual else np.array(image)

    return resize


def create_normalisation(data_config: dict):
    """Return what turns resized pixels, (..., H, W, 3) uint8, into (..., 3, H, W) float32.

    The same sums as torchvision's ToTensor and Normalize, in torch operations only, so that it
    can also be the first step of a network on any device.
    """
    import torch

    mean, std = (torch.tensor(data_config[key]).view(3, 1, 1) for key in ("mean", "std"))

    def normalise(pixels):
        values = pixels.movedim(pixels.ndim - 1, pixels.ndim - 3).float() / 255
        if data_config.get("normalisation") == "zscore":  # by each image's own channels
            spread = values.std((-2, -1), keepdim=True).clamp_min(1e-3)
            return (values - values.mean((-2, -1), keepdim=True)) / spread
        return (values - mean.to(pixels.device)) / std.to(pixels.device)

    return normalise


def create_preprocessing(data_config: dict):
    """Return what makes an RGB image of Pillow the network's input, (3, H, W) float32.

    No augmentation: the same for training features, test features and every prediction.
    """
    import torch

    resize, normalise = create_geometry(data_config), create_normalisation(data_config)
    return lambda image: normalise(torch.from_numpy(resize(image))).contiguous()


def undo_normalisation(tensor, data_config: dict) -> np.ndarray:
    """Return a prepared (3, H, W) tensor as an (H, W, 3) picture in 0 to 1, to look at."""
    values = tensor.numpy().transpose(1, 2, 0)
    if data_config.get("normalisation") == "zscore":  # its own mean and deviation are gone
        return ((values - values.min()) / max(np.ptp(values), 1e-6)).clip(0, 1)
    mean, std = (np.array(data_config[key]) for key in ("mean", "std"))
    return (values * std + mean).clip(0, 1)


def describe_preprocessing(data_config: dict) -> dict:
    """Return all that a prepared image means, as plain values; two are the same if these are.

    Versions of libraries are no part of it: they are noted beside it, and a change of theirs is
    warned of.
    """
    names = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
    facts = {name: data_config.get(name) for name in names}
    facts |= {"normalisation": data_config.get("normalisation", "backbone"), "decoding": DECODING}
    return json.loads(json.dumps(facts))  # tuples as lists, as they are read back from a file


def fingerprint_preprocessing(data_config: dict) -> str:
    """Return 16 hexadecimal digits that stand for `describe_preprocessing`."""
    text = json.dumps(describe_preprocessing(data_config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
