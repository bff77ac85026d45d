"""Weights: which ones a recipe means, whether they can be had, how a file of them is loaded."""

import difflib
from pathlib import Path

from helpers.files import SuiteError, hash_file, resolve_path, show_path
from helpers.settings import WEIGHT_FILES, Recipe


class DownloadError(SuiteError):
    """Pretrained weights are neither in the hub client's cache nor to be downloaded."""


def check_network(recipe: Recipe) -> None:
    """Raise SuiteError if timm lacks the backbone or its tag, or the weight file is missing."""
    import timm

    backbone, weights = recipe.network.backbone, recipe.network.weights
    if not timm.is_model(backbone):
        near = difflib.get_close_matches(backbone, timm.list_models(), n=3, cutoff=0.5)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise SuiteError(f"timm has no backbone '{backbone}'{hint}. "
                         "`timm.list_models()` lists them all.")
    if weights.endswith(WEIGHT_FILES):
        path = resolve_path(weights)
        if not path.is_file():
            raise SuiteError(f"the weight file {show_path(path)} does not exist. Put it there, "
                             "or set `weights` to `pretrained` or `random`.")
    elif weights not in ("random", "pretrained"):
        tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{backbone}.*")]
        if weights not in tags:
            raise SuiteError(f"timm knows no weights '{weights}' for {backbone}; it knows: "
                             f"{', '.join(tags) or 'none'}. Or set `weights` to a file ending in "
                             f"{', '.join(WEIGHT_FILES)}, or to `random`.")


def find_config(recipe: Recipe) -> dict:
    """Return what timm notes of the recipe's weights: tag, input size, mean, crop and so on."""
    from timm.models import get_pretrained_cfg

    backbone, weights = recipe.network.backbone, recipe.network.weights
    special = weights.endswith(WEIGHT_FILES) or weights in ("random", "pretrained")
    found = get_pretrained_cfg(backbone if special else f"{backbone}.{weights}")
    return found.to_dict() if found else {}


def fingerprint_weights(recipe: Recipe) -> str:
    """Return what tells these weights from others: a file's SHA-256, a tag, or the seed."""
    weights = recipe.network.weights
    if weights.endswith(WEIGHT_FILES):
        return hash_file(resolve_path(weights))
    if weights == "random":
        return f"random {recipe.splits.seed}"
    # timm's default tag may be another one next year.
    return find_config(recipe).get("tag") or weights if weights == "pretrained" else weights


def load_weights(model, path: Path, name: str) -> None:
    """Load a state dict; a classifier's tensors may be there or not, all others must fit."""
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(path), use_ema=False, weights_only=True)
        result = model.load_state_dict(state, strict=False)
    except Exception as error:  # unpickling, safetensors and shape errors share no base
        raise SuiteError(f"{show_path(path)} cannot be loaded into {name}: {str(error)[:300]} "
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
            "architecture that the file was saved from.")


def explain_download(tagged: str, error: Exception) -> DownloadError:
    """Return the error for weights that could not be had: what to do on which machine."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(tagged)
    hub_id = getattr(config, "hf_hub_id", None) or "timm/" + tagged
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return DownloadError(
        f"the weights of {tagged} could not be downloaded ({reason}). On a machine with "
        f"internet run `hf download {hub_id} model.safetensors --local-dir weights`, copy the "
        f"file here as data/weights/{tagged}.safetensors, and set "
        f"`weights: data/weights/{tagged}.safetensors`. Or set `weights: random` to try the "
        "suite without them.")
