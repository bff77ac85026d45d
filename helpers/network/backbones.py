"""Backbones: a timm architecture without its classifier, frozen, with its preprocessing."""

from helpers.files import SuiteError
from helpers.network.preprocessing import resolve_data_config
from helpers.network.weights import (
    check_network,
    explain_download,
    find_config,
    find_weight_file,
    load_weights,
    try_hub,
)
from helpers.settings import Recipe


def create_backbone(recipe: Recipe, measured: dict | None = None):
    """Build the recipe's backbone, frozen, in evaluation mode, on the CPU.

    Args:
        measured: as in `resolve_data_config`.

    Returns:
        The model, (batch, 3, H, W) float32 to (batch, features) float32, and its data config
        (`resolve_data_config`).

    Raises:
        SuiteError: unknown backbone or weights, a file or an image size that does not fit, no
            vector of features.
        DownloadError: no way to the hub.
    """
    model = create_network(recipe)
    model.reset_classifier(0)
    data_config = resolve_data_config(recipe, measured)
    _require_vector(model, data_config)
    return model, data_config


def create_network(recipe: Recipe):
    """Build the recipe's network whole, with its own classifier if its weights have one.

    Returns:
        The model, frozen, in evaluation mode, on the CPU. Its `num_classes` is 0 where there is
        no classifier: it gives features then.

    Raises:
        SuiteError: unknown backbone or weights, or a file that does not fit.
        DownloadError: no way to the hub.
    """
    import timm
    import torch

    check_network(recipe)
    name, weights = recipe.network.backbone, recipe.network.weights
    # Vision transformers are built for one input size; convolutions take any.
    fixed = recipe.network.image_size and find_config(recipe).get("fixed_input_size")
    size = {"img_size": recipe.network.image_size} if fixed else {}
    if find_weight_file(recipe):
        model = timm.create_model(name)
        load_weights(model, recipe)
        if size and hasattr(model, "set_input_size"):
            model.set_input_size(**size)
    elif weights == "random":
        torch.manual_seed(recipe.splits.seed)
        model = timm.create_model(name, num_classes=0, **size)
    else:
        tagged = name if weights == "pretrained" else f"{name}.{weights}"
        try_hub()
        try:
            model = timm.create_model(tagged, pretrained=True, **size)
        except Exception as error:  # the hub's client raises a dozen unrelated kinds
            raise explain_download(tagged, error) from error
    # Gradients off and evaluation mode: batch norm must not drift with the user's images.
    return model.requires_grad_(False).eval()


def _require_vector(model, data_config: dict) -> None:
    import torch

    try:
        with torch.inference_mode():
            shape = model(torch.zeros(1, *data_config["input_size"])).shape
    except (RuntimeError, AssertionError, ValueError) as error:
        size = "{} x {}".format(*data_config["input_size"][1:])
        raise SuiteError(f"the backbone cannot take images of {size} pixels ({error}). Set "
                         "`image_size` to null for its own size.") from error
    if len(shape) != 2:
        raise SuiteError(f"the backbone gives {tuple(shape)} for an image, no vector of "
                         "features; choose another `backbone`.")
