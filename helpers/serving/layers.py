"""Layers: a saved model's networks as torch modules, for engines, for export, for Grad-CAM."""

import numpy as np
import torch
from torch import nn

from helpers.evaluation.calibration import LEAST
from helpers.network.preprocessing import create_normalisation


class StackedNetworks(nn.Module):
    """Trained networks as one: the features of the first, then the logits of each, in a row."""

    def __init__(self, networks: list[nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return (images, features + networks x classes) for (images, 3, H, W)."""
        found = []
        for network in self.networks:
            features = network.forward_head(network.forward_features(inputs), pre_logits=True)
            found += [] if found else [features]
            found.append(network.get_classifier()(features))
        return torch.cat(found, dim=1)


def split_outputs(outputs, width: int, classes: int):
    """Return the features, and each network's logits, of what `StackedNetworks` gives."""
    starts = range(width, outputs.shape[1], classes)
    return outputs[:, :width], [outputs[:, start : start + classes] for start in starts]


class MeanLogits(nn.Module):
    """Heads as one: the mean of their logits, each by its temperature. For Grad-CAM alone."""

    def __init__(self, heads: list[nn.Module], powers: np.ndarray):
        super().__init__()
        self.heads, self.powers = nn.ModuleList(heads), [float(power) for power in powers]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (images, classes)."""
        return sum(power * head(features) for head, power in zip(
            self.heads, self.powers, strict=True)) / len(self.powers)


class CompleteNetwork(nn.Module):
    """Pixels to calibrated probabilities: what is exported.

    Args:
        trunk: a frozen backbone, or `StackedNetworks`.
        heads: on the backbone's features; none if networks answer by themselves.
        powers: of each head or network, the inverse of its temperature.
        width: features of an image.
        classes: how many there are.
    """

    def __init__(self, trunk: nn.Module, heads: list[nn.Module], powers: np.ndarray, width: int,
                 classes: int, data_config: dict):
        super().__init__()
        self.trunk, self.heads = trunk, nn.ModuleList(heads)
        self.powers, self.width, self.classes = [float(p) for p in powers], width, classes
        self.normalise = create_normalisation(data_config)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (images, classes) float32 for (images, H, W, 3) uint8."""
        outputs = self.trunk(self.normalise(pixels))
        answers = [head(outputs) for head in self.heads] or split_outputs(
            outputs, self.width, self.classes)[1]
        least = float(np.log(LEAST))
        return sum(torch.softmax(power * torch.log_softmax(logits, 1).clamp_min(least), 1)
                   for logits, power in zip(answers, self.powers, strict=True)
                   ) / len(self.powers)
