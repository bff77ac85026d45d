"""Losses: of each image and by class, the same for heads trained in batches and for networks."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import log_softmax, nll_loss, softmax

FOCUS = 2.0  # gamma of the focal loss, as in its paper


@dataclass(frozen=True)
class Loss:
    """How far logits are from targets, image by image.

    Args:
        weights: (classes,) weight of an image of each class.
        offset: (classes,) added to the logits while learning: the balanced softmax (Ren et al.
            2020) when it is the logarithm of the classes' shares.
        focus: gamma of the focal loss (Lin et al. 2017): how much less images count that are
            answered well; 0 is cross-entropy.
        smoothing: share of each target that goes to all classes alike (Szegedy et al. 2016).
    """

    weights: torch.Tensor
    offset: torch.Tensor | float = 0.0
    focus: float = 0.0
    smoothing: float = 0.0

    def measure(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of each image, (batch,), without the weights of classes.

        Args:
            logits: (batch, classes) float32.
            targets: (batch,) class numbers, or (batch, classes) shares that add up to one.
        """
        offset = torch.as_tensor(self.offset, device=logits.device)  # stays on the CPU by itself
        scores = log_softmax(logits + offset, dim=1)
        if targets.ndim == 1 and not self.smoothing:
            losses = nll_loss(scores, targets, reduction="none")
        else:
            shares = targets if targets.ndim == 2 else spread_targets(targets, logits.shape[1])
            shares = (1 - self.smoothing) * shares + self.smoothing / logits.shape[1]
            losses = -(shares * scores).sum(dim=1)
        return (1 - torch.exp(-losses)) ** self.focus * losses if self.focus else losses

    def weigh(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the weight of each image, (batch,)."""
        weights = self.weights.to(targets.device)  # Lightning moves modules alone to a GPU
        return weights[targets] if targets.ndim == 1 else targets @ weights


def spread_targets(numbers: torch.Tensor, classes: int) -> torch.Tensor:
    """Return class numbers as (batch, classes) shares of 0 and 1, float32."""
    return torch.nn.functional.one_hot(numbers, classes).float()


def measure_distillation(logits: torch.Tensor, taught: torch.Tensor,
                         temperature: float) -> torch.Tensor:
    """Return how far a student is from its teacher, (batch,) (Hinton et al. 2015).

    The divergence of both, softened, times the squared temperature, so that its gradients are
    as large as those of the labels.

    Args:
        logits: (batch, classes) of the student.
        taught: (batch, classes) probabilities of the teacher.
    """
    wanted = softmax(torch.log(taught.clamp_min(1e-8)) / temperature, dim=1)
    scores = log_softmax(logits / temperature, dim=1)
    return temperature**2 * (wanted * (wanted.clamp_min(1e-12).log() - scores)).sum(dim=1)


def weigh_hard(losses: np.ndarray, most: float) -> np.ndarray:
    """Return a weight for each image by its last loss: hard example mining with a cap.

    Args:
        losses: (images,) float, NaN for an image that has none yet.
        most: what no weight exceeds.

    Returns:
        (images,) float32 from 1 to `most`: the loss over the mean of all losses.
    """
    if np.isnan(losses).all():
        return np.ones(len(losses), np.float32)
    relative = losses / max(float(np.nanmean(losses)), 1e-12)
    return np.clip(np.nan_to_num(relative, nan=1.0), 1.0, most).astype(np.float32)
