"""Layers: which of a network are trained, which stay as they are, and where the two meet.

The order of layers, from the stem to the classifier, is timm's own (`group_matcher`).
"""

import contextlib
import math

import torch
from timm.models import group_parameters
from torch import nn

from helpers.files import SuiteError


def group_layers(network: nn.Module) -> list[list[str]]:
    """Return the parameters' names by layer, from the stem up; the classifier is the last."""
    head = {id(parameter) for parameter in network.get_classifier().parameters()}
    names = {name for name, parameter in network.named_parameters() if id(parameter) in head}
    groups = group_parameters(network, network.group_matcher(coarse=False))
    layers = [[name for name in groups[key] if name not in names] for key in sorted(groups)]
    return [layer for layer in layers if layer] + [sorted(names)]


def unfreeze_top(network: nn.Module, share: float) -> int:
    """Let the classifier and a `share` of the layers below it be trained, and nothing else.

    Returns:
        How many layers are trained, the classifier included.
    """
    layers, parameters = group_layers(network), dict(network.named_parameters())
    count = 1 + math.ceil(share * (len(layers) - 1) - 1e-9)
    for place, layer in enumerate(layers):
        for name in layer:
            parameters[name].requires_grad_(place >= len(layers) - count)
    return count


def set_training(network: nn.Module) -> None:
    """Put a network into training mode, and every part whose parameters are all frozen back.

    So BatchNorm of a frozen part keeps its statistics, and nothing there is dropped.
    """
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def has_trained_norm(network: nn.Module) -> bool:
    """Return whether a BatchNorm that looks at other images of its batch is trained."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) and any(
        parameter.requires_grad for parameter in module.parameters())
        for module in network.modules())


class Trunk(nn.Module):
    """The frozen lower part of a network: prepared images in, flattened activations out.

    Args:
        shape: of one image's activations, (channels, H, W) or what the architecture has.
    """

    def __init__(self, network: nn.Module, boundary: str, skipped: list[str],
                 shape: tuple[int, ...]):
        super().__init__()
        self.network, self.boundary, self.skipped, self.shape = network, boundary, skipped, shape

    def forward(self, images):
        """Return (images, values)."""
        found = []
        handle = self.network.get_submodule(self.boundary).register_forward_hook(
            lambda module, given, output: found.append(output))
        try:
            self.network(images)
        finally:
            handle.remove()
        return found[0].flatten(1)

    @contextlib.contextmanager
    def passed(self):
        """Let the network take activations, (images, *shape), in place of images for a while."""
        modules = [self.network.get_submodule(name) for name in self.skipped]
        for module in modules:
            module.forward = _pass_on
        try:
            yield
        finally:
            for module in modules:
                del module.forward


def _pass_on(values):
    return values


def find_trunk(network: nn.Module, size: tuple[int, int, int]) -> Trunk | None:
    """Cut a network below its first trained layer.

    Everything below the cut has to be a chain of modules. Whether it is, is tried: activations
    that are put in at the cut have to give the very output of the image that they are of.

    Args:
        size: of an image, (3, H, W).

    Returns:
        The trunk, or None if nothing below is frozen or it cannot be cut.
    """
    device = next(network.parameters()).device
    images = torch.rand(2, *size, generator=torch.Generator().manual_seed(0)).to(device)
    before = [(module, module.training) for module in network.modules()]
    with torch.no_grad():
        network.eval()
        called, whole = _record_calls(network, images)
        skipped = []
        for name, trained in called:
            if trained:
                break
            skipped.append(name)
        trunk = None
        # The last one that is skipped has parameters: what follows it costs nothing.
        while skipped and not list(network.get_submodule(skipped[-1]).parameters()):
            skipped.pop()
        if skipped and len(set(skipped)) == len(skipped):
            trunk = _try_cut(network, images, skipped, whole)
    for module, training in before:
        module.training = training
    return trunk


def _record_calls(network: nn.Module, images) -> tuple[list[tuple[str, bool]], torch.Tensor]:
    """Return the largest modules that are frozen or trained throughout, in order of calls."""
    called, handles = [], []

    def enter(name: str, module: nn.Module) -> None:
        states = {parameter.requires_grad for parameter in module.parameters()}
        if len(states) == 2 or (not states and any(True for _ in module.children())) or (
                not name):
            for key, child in module.named_children():
                enter(f"{name}.{key}" if name else key, child)
        else:
            handles.append(module.register_forward_pre_hook(
                lambda *_, call=(name, True in states): called.append(call)))

    enter("", network)
    try:
        whole = network(images)
    finally:
        for handle in handles:
            handle.remove()
    return called, whole


def _try_cut(network: nn.Module, images, skipped: list[str], whole) -> Trunk | None:
    try:
        trunk = Trunk(network, skipped[-1], skipped, ())
        with torch.no_grad():
            shapes = []
            handle = network.get_submodule(skipped[-1]).register_forward_hook(
                lambda module, given, output: shapes.append(tuple(output.shape[1:])))
            flat = trunk(images)
            handle.remove()
            trunk.shape = shapes[0]
            with trunk.passed():
                again = network(flat.unflatten(1, trunk.shape))
    except (RuntimeError, TypeError, AttributeError, ValueError, IndexError):
        return None  # a part that takes more than one thing, or gives more
    return trunk if torch.equal(whole, again) else None


def require_classifier(network: nn.Module, name: str) -> nn.Linear:
    """Return the network's classifier; SuiteError if it is not one linear layer."""
    head = network.get_classifier()
    if not isinstance(head, nn.Linear):
        raise SuiteError(f"the classifier of {name} is no linear layer but "
                         f"{type(head).__name__}; choose another `backbone`.")
    return head
