"""Members: the networks and classifiers of a saved model, read from its folder."""

from pathlib import Path

import numpy as np
from torch import nn

from helpers.files import SuiteError, show_path
from helpers.network.backbones import create_network
from helpers.network.preprocessing import describe_preprocessing
from helpers.serving.layers import StackedNetworks
from helpers.serving.model_folder import BACKBONE, HEADS, NETWORK, NETWORKS, read_arrays
from helpers.settings import Recipe
from helpers.training.crossvalidation import form_inputs
from helpers.training.heads import restore_model
from helpers.training.networks import load_network, read_network


def load_trunk(folder: Path, note: dict, recipe: Recipe, config: dict) -> nn.Module:
    """Return the frozen backbone, or the trained networks as one, on the CPU.

    Args:
        recipe: of the architecture, weights left out; `config`: the preprocessing saved with it.

    Raises:
        SuiteError: the tensors are damaged, or do not fit the architecture of this timm.
    """
    if note["kind"] == NETWORKS:
        known = {"classes": note["classes"], "backbone": note["backbone"],
                 "preprocessing": describe_preprocessing(config)}
        return StackedNetworks([load_network(folder / NETWORK.format(number), recipe, known)
                                for number in range(len(note["temperatures"]))]).eval()
    model = create_network(recipe)
    model.reset_classifier(0)
    try:
        model.load_state_dict(read_network(folder / BACKBONE)[1])
    except RuntimeError as error:
        raise SuiteError(f"{show_path(folder / BACKBONE)} does not fit {note['backbone']} in "
                         f"this version of timm: {str(error)[:200]}") from error
    return model.eval()


def load_heads(folder: Path, note: dict) -> list:
    """Return the classifiers on the backbone's features; none if networks answer by themselves.

    Raises:
        SuiteError: they are not those that the note speaks of.
    """
    if note["kind"] == NETWORKS:
        return []
    members = {}
    for name, array in read_arrays(folder / HEADS).items():
        number, _, key = name.partition("/")
        members.setdefault(int(number), {})[key] = array
    try:
        heads = [restore_model(note["kind"], arrays) for _, arrays in sorted(members.items())]
        found = np.stack([_ask(head, note) for head in heads])
    except (KeyError, ValueError, TypeError) as error:
        raise SuiteError(f"{show_path(folder / HEADS)} does not hold the classifiers that "
                         f"model.json speaks of ({error}). Save the model again (notebook 11)."
                         ) from error
    if found.shape != (len(note["temperatures"]), 1, len(note["classes"])):
        raise SuiteError(f"{show_path(folder / HEADS)} holds other classifiers than model.json "
                         "speaks of. Save the model again (notebook 11).")
    return heads


def _ask(head, note: dict) -> np.ndarray:
    """Return what a head says of features that are nothing, to see that it can."""
    return head.predict(form_inputs(note["inputs"], np.zeros((1, note["features"]), np.float32),
                                    [""]))
