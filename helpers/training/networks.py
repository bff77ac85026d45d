"""Networks: a fold's network made, started, saved as plain tensors, loaded again, and asked."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from helpers.features.store import describe_network, warn_of_versions
from helpers.files import SuiteError, show_path, write_whole
from helpers.network.backbones import create_network
from helpers.network.layers import require_classifier
from helpers.settings import Recipe
from helpers.training.imbalance import Remedy
from helpers.training.linear import LogisticHead
from helpers.training.module import join_answers
from helpers.training.selection import NEVER
from helpers.versions import describe_changes, describe_versions

REFIT = ".refit"  # of a run: where a network trained once more is kept until it is saved
UNMET = -20.0  # a bias of a class that was not met, small enough to be never answered


def create_classifier(recipe: Recipe, classes: int, dropout: float = 0.0):
    """Build the recipe's network with a new classifier for `classes` classes, on the CPU.

    Under `strategy: scratch` its weights are random.

    Raises:
        SuiteError: as `create_network`, or its classifier is no linear layer.
    """
    if recipe.network.strategy == "scratch":
        recipe = recipe.change(weights="random")
    network = create_network(recipe)
    torch.manual_seed(recipe.splits.seed)
    network.reset_classifier(classes)
    require_classifier(network, recipe.network.backbone)
    for part in (network, getattr(network, "head", None)):  # where timm keeps its dropout
        if isinstance(getattr(part, "drop_rate", None), float):
            part.drop_rate = dropout
    for name in ("head_drop", "drop"):
        for part in (network, getattr(network, "head", None)):
            if isinstance(getattr(part, name, None), torch.nn.Dropout):
                setattr(part, name, torch.nn.Dropout(dropout))
    return network.to(memory_format=torch.channels_last)


def fit_start(recipe: Recipe, features: np.ndarray, codes: np.ndarray, part: np.ndarray,
              inner: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Fit the logistic regression that a classifier begins as, on images it may learn from.

    Args:
        features: (images, features) of the frozen backbone.
        part: positions of the training part; `inner` those of it that C is chosen on.

    Returns:
        `weights` (features, classes) and `biases` (classes,); of all of the part, or under
        `keep_epoch: best` of all but the inner fold.
    """
    settings = recipe.finetune
    remedy = Remedy("class_weights" if settings.weighted_loss else "none", recipe.splits.seed)
    head = LogisticHead(count, remedy, recipe.head.c_grid)
    head.fit(features[part], codes[part], np.isin(part, inner))
    if settings.keep_epoch == "best":
        rest, chosen = np.setdiff1d(part, inner), head.choices.C[head.choices.chosen].item()
        alone = LogisticHead(count, remedy, [chosen])
        list(alone.try_candidates(features[rest], codes[rest], features[:1]))
        return alone.learn({"C": chosen}, features[rest], codes[rest])
    return head.arrays


def start_classifier(network, arrays: dict[str, np.ndarray]) -> None:
    """Let a network's classifier begin as a linear head."""
    layer, biases = network.get_classifier(), arrays["biases"]
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(arrays["weights"].T)))
        layer.bias.copy_(torch.from_numpy(np.where(biases == NEVER, UNMET, biases)))


def describe_classifier(recipe: Recipe, measured: dict | None, classes: list[str]) -> dict:
    """Return what a trained network is, as plain values: what it is given, what it answers."""
    network = describe_network(recipe, measured)
    return {"classes": classes, "backbone": network["backbone"],
            "preprocessing": network["preprocessing"]}


def save_network(network, description: dict, path: Path) -> None:
    """Write a network's tensors as `.safetensors`, with its description."""
    state = {name: tensor.detach().cpu().contiguous()
             for name, tensor in network.state_dict().items()}
    note = description | {"versions": describe_versions()}
    with write_whole(path) as temporary:
        save_file(state, temporary, {"suite": json.dumps(note)})


def read_network(path: Path) -> tuple[dict, dict]:
    """Return what `save_network` wrote: the description with `versions`, and the tensors.

    Raises:
        SuiteError: the file is damaged, or no such file.
    """
    try:
        with safe_open(path, "pt") as stored:
            return json.loads((stored.metadata() or {})["suite"]), {
                name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise SuiteError(f"{show_path(path)} is damaged, or no network of this suite ({error}). "
                         "Remove it and run 04_training again.") from error


def load_network(path: Path, recipe: Recipe, description: dict):
    """Read a trained network, in evaluation mode.

    Raises:
        SuiteError: the file is damaged, or is of another architecture, other classes, or
            another preprocessing than `description`.
    """
    note, state = read_network(path)
    versions = note.pop("versions", {})
    changed = describe_changes(note, description)
    if changed:
        raise SuiteError(f"the network in {show_path(path)} is another one than is wanted: "
                         f"{changed}. Use the run it was trained in, or train again.")
    warn_of_versions(versions, show_path(path))
    network = create_classifier(recipe.change(weights="random"), len(description["classes"]))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise SuiteError(f"{show_path(path)} does not fit {recipe.network.backbone}: "
                         f"{str(error)[:200]}") from error
    return network.eval()


def answer_images(network, prepare, batches: Iterable, count: int) -> np.ndarray:
    """Return a network's probabilities for the images of all processes' batches, in float32.

    Args:
        prepare: makes a batch the network's input.
        batches: as from a predict loader; this process's.
        count: of the images that all of them hold together.

    Returns:
        (count, classes) float32, in the order of positions.

    Raises:
        SuiteError: an image is missing among the answers.
    """
    device = next(network.parameters()).device
    network.eval()
    parts = []
    # As the engine of extraction: TF32 is not float32.
    with torch.inference_mode(), torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        for inputs, _, positions in batches:
            logits = network(prepare(inputs.to(device)))
            parts.append((positions.numpy(), torch.softmax(logits.float(), dim=1)))
    positions, found = join_answers(parts)
    if len(positions) != count:
        raise SuiteError(f"{count - len(positions)} of {count} images have no answer: another "
                         "process has gone. Run again.")
    return found
