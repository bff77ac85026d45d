"""Backbones: a timm architecture without its classifier, its weights, its preprocessing."""

import difflib
import hashlib
from pathlib import Path

from helpers.errors import SuiteError
from helpers.files import resolve_path, show_path
from helpers.recipe import Recipe

WEIGHT_FILES = (".safetensors", ".pth", ".pt")


def check_backbone(recipe: Recipe) -> None:
    """Raise SuiteError if timm lacks the backbone or its tag, or the weight file is missing."""
    import timm

    if not timm.is_model(recipe.backbone):
        near = difflib.get_close_matches(recipe.backbone, timm.list_models(), n=3, cutoff=0.5)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise SuiteError(f"timm has no backbone '{recipe.backbone}'{hint}. "
                         "`timm.list_models()` lists them all.")
    if recipe.weights.endswith(WEIGHT_FILES):
        path = resolve_path(recipe.weights)
        if not path.is_file():
            raise SuiteError(f"the weight file {show_path(path)} does not exist. Put it there, "
                             "or set `weights` to `pretrained` or `random`.")
    elif recipe.weights not in ("random", "pretrained"):
        tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{recipe.backbone}.*")]
        if recipe.weights not in tags:
            raise SuiteError(
                f"timm knows no weights '{recipe.weights}' for {recipe.backbone}; it knows: "
                f"{', '.join(tags) or 'none'}. Or set `weights` to a file ending in "
                f"{', '.join(WEIGHT_FILES)}, or to `random`."
            )


def create_backbone(recipe: Recipe, measured: dict | None = None):
    """Build the recipe's backbone, frozen, in evaluation mode, on the CPU.

    Args:
        measured: as in `resolve_data_config`.

    Returns:
        The model, (batch, 3, H, W) float32 to (batch, features) float32, and its data config
        (`resolve_data_config`).

    Raises:
        SuiteError: unknown backbone or weights, a file or an image size that does not fit, no
            way to the hub.
    """
    import timm
    import torch

    check_backbone(recipe)
    name, weights = recipe.backbone, recipe.weights
    options = {"num_classes": 0}
    # Vision transformers are built for one input size; convolutions take any.
    fixed = recipe.image_size and _default_config(recipe).get("fixed_input_size")
    if weights.endswith(WEIGHT_FILES):
        model = timm.create_model(name, **options)
        _load_file(model, resolve_path(weights), name)
        if fixed and hasattr(model, "set_input_size"):
            model.set_input_size(img_size=recipe.image_size)
    elif weights == "random":
        options |= {"img_size": recipe.image_size} if fixed else {}
        torch.manual_seed(recipe.seed)
        model = timm.create_model(name, **options)
    else:
        options |= {"img_size": recipe.image_size} if fixed else {}
        tagged = name if weights == "pretrained" else f"{name}.{weights}"
        try:
            model = timm.create_model(tagged, pretrained=True, **options)
        except Exception as error:  # the hub's client raises a dozen unrelated kinds
            raise SuiteError(_explain_download(tagged, error)) from error
    # Gradients off and evaluation mode: batch norm must not drift with the user's images.
    model.requires_grad_(False).eval()
    data_config = resolve_data_config(recipe, measured)
    measure_width(model, data_config)
    return model, data_config


def measure_width(model, data_config: dict) -> int:
    """Return how many features the model gives for an image, by asking it once.

    Raises:
        SuiteError: it cannot take images of this size, or gives no vector of features.
    """
    import torch

    try:
        device = next(model.parameters()).device
        with torch.inference_mode():
            shape = model(torch.zeros(1, *data_config["input_size"], device=device)).shape
    except (RuntimeError, AssertionError, ValueError) as error:
        size = "{} x {}".format(*data_config["input_size"][1:])
        raise SuiteError(f"the backbone cannot take images of {size} pixels ({error}). Set "
                         "`image_size` to null for its own size.") from error
    if len(shape) != 2:
        raise SuiteError(f"the backbone gives {tuple(shape)} for an image, no vector of "
                         "features; choose another `backbone`.")
    return shape[1]


def resolve_data_config(recipe: Recipe, measured: dict | None = None) -> dict:
    """Return timm's data config of the backbone, with what the recipe changes in it.

    Args:
        measured: `mean` and `std` of the data set's own pixels, for `normalisation: dataset`.

    Returns:
        `input_size` (3, H, W), `interpolation`, `mean`, `std`, `crop_pct`, `crop_mode`, and
        `normalisation`, the recipe's word for it.
    """
    from timm.data import resolve_data_config as resolve

    check_backbone(recipe)
    config = resolve(pretrained_cfg=_default_config(recipe))
    if recipe.image_size:
        config["input_size"] = (3, recipe.image_size, recipe.image_size)
    if recipe.resize == "squash":
        config |= {"crop_mode": "squash", "crop_pct": 1.0}
    return normalise_config(config, recipe.normalisation, measured)


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


def _default_config(recipe: Recipe) -> dict:
    from timm.models import get_pretrained_cfg

    special = recipe.weights.endswith(WEIGHT_FILES) or recipe.weights in ("random", "pretrained")
    name = recipe.backbone if special else f"{recipe.backbone}.{recipe.weights}"
    found = get_pretrained_cfg(name)
    return found.to_dict() if found else {}


def fingerprint_weights(recipe: Recipe) -> str:
    """Return what tells these weights from others: a file's SHA-256, a tag, or the seed."""
    if recipe.weights.endswith(WEIGHT_FILES):
        with resolve_path(recipe.weights).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return f"random {recipe.seed}" if recipe.weights == "random" else recipe.weights


def _load_file(model, path: Path, name: str) -> None:
    """Load a state dict; a classifier's tensors may be there or not, all others must fit."""
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(path), use_ema=False, weights_only=True)
        result = model.load_state_dict(state, strict=False)
    except Exception as error:  # unpickling, safetensors and shape errors share no base
        raise SuiteError(
            f"{show_path(path)} cannot be loaded into {name}: {str(error)[:300]} "
            "Files are read without running code from them (weights_only)."
        ) from error
    classifier = model.pretrained_cfg.get("classifier") or ()
    classifier = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    strange = [key for key in result.unexpected_keys if not key.startswith(classifier)]
    if result.missing_keys or strange:
        raise SuiteError(
            f"{show_path(path)} does not fit {name}: {len(result.missing_keys)} tensors are "
            f"missing ({', '.join(result.missing_keys[:3]) or 'none'}), {len(strange)} are "
            f"unknown ({', '.join(strange[:3]) or 'none'}). Set `backbone` to the "
            "architecture that the file was saved from."
        )


def _explain_download(tagged: str, error: Exception) -> str:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(tagged)
    hub_id = getattr(config, "hf_hub_id", None) or "timm/" + tagged
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return (
        f"the weights of {tagged} could not be downloaded ({reason}). On a machine with "
        f"internet run `hf download {hub_id} model.safetensors --local-dir weights`, copy the "
        f"file here as data/weights/{tagged}.safetensors, and set "
        f"`weights: data/weights/{tagged}.safetensors`. Or set `weights: random` to try the "
        "suite without them."
    )
