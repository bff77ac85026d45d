"""Explain: which part of a photo spoke for a class, by Grad-CAM, for the model that answered.

Each image is explained by the model of its own fold, which has never learnt from it: the frozen
backbone with that fold's head, or that fold's fine-tuned network.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from helpers.data.images import UnreadableImageError, decode_image
from helpers.files import SuiteError, load_json
from helpers.network.backbones import create_backbone
from helpers.network.preprocessing import (
    create_preprocessing,
    resolve_data_config,
    undo_normalisation,
)
from helpers.run import Run
from helpers.training.crossvalidation import describe_inputs, load_models
from helpers.training.heads import name_kind

FORMULAS = ("logistic", "ridge", "svm", "class_mean", "linear", "mlp")  # heads with a gradient


@dataclass(frozen=True)
class Explanation:
    """One image as the network saw it, and what spoke for two classes."""

    row: pd.Series  # of the answers
    image: np.ndarray  # (H, W, 3) from 0 to 1
    maps: dict[str, np.ndarray]  # class -> (H, W) from 0 to 1


class HeadLayers(nn.Module):
    """A fitted head (arrays from `Head.arrays`) as layers: features to logits."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        super().__init__()
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.array(array, np.float32)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits, (rows, classes)."""
        if hasattr(self, "hidden_weights"):
            features = torch.relu(features @ self.hidden_weights + self.hidden_biases)
        return self.scale * (features @ self.weights + self.biases) + self.shift


def explain_answers(run: Run, answers: pd.DataFrame) -> list[Explanation]:
    """Explain what spoke for the prediction, and for the label, of each image.

    Grad-CAM (Selvaraju et al. 2017) by pytorch-grad-cam, on the last maps of a convolutional
    network or the last block of a transformer.

    Args:
        answers: rows of `tabulate_probabilities`, with `fold`: few, each takes two passes back.

    Raises:
        SuiteError: the head has no gradient (nearest neighbours, trees), the model reads text
            alone, or the network ends in something that Grad-CAM knows nothing of.
    """
    classes = list(load_json(run.need("label_mapping")))
    config = resolve_data_config(run.recipe, run.measured)
    prepare, found, network = create_preprocessing(config), {}, None
    for fold, rows in answers.groupby("fold"):
        network = create_answering_network(run, int(fold), network)
        maps_of = create_explainer(network, config["input_size"])
        for place, row in rows.iterrows():
            try:
                batch = prepare(decode_image(row.path)).unsqueeze(0)
            except UnreadableImageError as error:
                print(f"{row.image_id} cannot be explained: {error}")
                continue
            names = [name for name in dict.fromkeys((row.prediction, row.label))
                     if name in classes]
            maps = maps_of(batch, [classes.index(name) for name in names])
            found[place] = Explanation(row, undo_normalisation(batch[0], config),
                                       dict(zip(names, maps, strict=True)))
    return [found[place] for place in answers.index if place in found]


def create_explainer(network: nn.Module, size: tuple[int, int, int]):
    """Return what explains an image: (1, 3, H, W) and class codes to an (H, W) map for each.

    Args:
        network: (images, 3, H, W) to logits.
        size: of its input, (3, H, W).

    Raises:
        SuiteError: as `find_last_maps`.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layer, reshape = find_last_maps(network, size)

    def explain(batch: torch.Tensor, codes: list[int]) -> list[np.ndarray]:
        batch = batch.to(next(network.parameters()).device, copy=True).requires_grad_(True)
        with GradCAM(network, [layer], reshape) as maps_of:
            return [maps_of(batch, [ClassifierOutputTarget(code)])[0] for code in codes]

    return explain


def create_answering_network(run: Run, fold: int, before: nn.Module | None = None) -> nn.Module:
    """Return a network, pixels to logits, that answered for a fold.

    Args:
        before: the network of another fold; its frozen backbone is used again.
    """
    if run.recipe.network.strategy != "frozen":
        from helpers.training.finetuning import load_fold  # Lightning takes seconds to load

        return load_fold(run, fold)
    require_formula(name_kind(run.recipe.head), "Grad-CAM")
    backbone = before[0] if before is not None else create_backbone(
        run.recipe, run.measured)[0]
    model = load_models(run.need("head"), describe_inputs(run))[0][fold]
    return nn.Sequential(backbone, HeadLayers(getattr(model, "photo", model).arrays)).eval()


def require_formula(kind: str, what: str) -> None:
    """SuiteError unless a head, by `name_kind`, is layers on a photo's features."""
    name = kind.partition("+")[0]
    if name not in FORMULAS:
        said = "the text alone" if name == "text" else f"`{name}`"
        raise SuiteError(f"{what} needs a classifier with a gradient on the photo, and the "
                         f"recipe's is {said}. It works with {', '.join(FORMULAS)}.")


def find_last_maps(network: nn.Module, size: tuple[int, int, int]):
    """Return the layer that Grad-CAM reads, and what makes its output (images, channels, H, W).

    Args:
        size: of the network's input, (3, H, W).

    Raises:
        SuiteError: the network has no maps at its end.
    """
    trunk = network[0] if isinstance(network, nn.Sequential) else network
    blocks = getattr(trunk, "blocks", None)
    if blocks is not None and hasattr(blocks[-1], "norm1"):
        # Behind the last attention only the class token still speaks; before it all do.
        prefix = getattr(trunk, "num_prefix_tokens", 0)

        def fold_tokens(tokens: torch.Tensor) -> torch.Tensor:
            tokens = tokens[:, prefix:]
            side = round(tokens.shape[1] ** 0.5)
            if side**2 != tokens.shape[1]:
                raise SuiteError("Grad-CAM needs a square grid of patches.")
            return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)

        return blocks[-1].norm1, fold_tokens
    layer, channels_last = _find_spatial(trunk, size)
    if layer is None:
        raise SuiteError("the network keeps no maps that Grad-CAM could read.")

    def move_channels(maps: torch.Tensor) -> torch.Tensor:
        return maps.permute(0, 3, 1, 2) if channels_last else maps

    return layer, move_channels


def _find_spatial(trunk: nn.Module, size: tuple[int, int, int]):
    """Return the last layer that gives maps of several places, and whether channels come last.

    The last with as many maps as the network has features, if there is one: of a small image
    they may be left with a single place, and earlier maps have to do.
    """
    seen, hooks = [], []

    def note(layer, _, output):
        if isinstance(output, torch.Tensor) and output.ndim == 4:
            last = output.shape[-1] == trunk.num_features != output.shape[1]
            places = output.shape[1:3] if last else output.shape[2:]
            if min(places) > 1:
                seen.append((trunk.num_features in output.shape[1:], len(seen), layer, last))

    try:
        hooks = [layer.register_forward_hook(note) for layer in trunk.modules()
                 if layer is not trunk]
        with torch.no_grad():
            trunk(torch.zeros(1, *size))
    finally:
        for hook in hooks:
            hook.remove()
    return max(seen, key=lambda one: one[:2])[2:] if seen else (None, False)
