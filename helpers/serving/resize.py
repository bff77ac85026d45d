"""Resize: the suite's own resize and crop as torch operations, for an exported network.

Libraries resize differently, and an application that resizes otherwise than the training gets
other answers. So the export brings its resize along, equal to the last bit.
"""

import torch
from torch import nn

PRECISIONS = 22  # of the weights' fixed point, at most, in bits
LARGEST = 2**15  # of an integer weight


class ExactResize(nn.Module):
    """Resize and central crop of one photo: (H, W, 3) uint8 to (height, width, 3) uint8.

    The sums of PyTorch's antialiasing resize of bytes (ATen's UpSampleKernel): weights in fixed
    point, rows first, then columns, each rounded to bytes. Products of bytes and 16-bit weights
    add up exactly in double precision.

    Args:
        geometry: as from `describe_geometry`.
    """

    def __init__(self, geometry: dict):
        super().__init__()
        self.side, (self.height, self.width) = geometry["resize"], geometry["crop"]
        self.cubic = geometry["interpolation"] == "bicubic"

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        """Return the pixels that the network is given."""
        rows, columns = photo.shape[0], photo.shape[1]
        if isinstance(self.side, int):
            shorter = torch.sym_min(rows, columns)
            height, width = self.side * rows // shorter, self.side * columns // shorter
        else:
            height, width = self.side
        values = self._apply(photo.double(), columns, width, self.width)
        values = values.reshape(-1, self.width * 3)
        values = self._apply(values, rows, height, self.height)
        return values.reshape(self.height, self.width, 3).to(torch.uint8)

    def _apply(self, values: torch.Tensor, given: int, wanted: int, kept: int) -> torch.Tensor:
        """Resize the last axis but one from `given` to `wanted`, and keep the middle of it."""
        weights = self._weigh(given, wanted)
        bits = torch.arange(1, PRECISIONS + 1, dtype=torch.float64)
        fits = torch.trunc(0.5 + weights.max() * 2.0**bits) < LARGEST
        one = 2.0 ** fits.double().sum()
        spare = wanted - kept
        start = (spare + (spare // 2) % 2) // 2  # half of it, rounded to even as Python does
        weights = weights[start : start + kept]
        whole = torch.trunc(weights * one + torch.where(weights < 0, -0.5, 0.5))
        return torch.floor((whole @ values + one / 2) / one).clamp(0, 255)

    def _weigh(self, given: int, wanted: int) -> torch.Tensor:
        """Return how much of each given place a wanted one takes, (wanted, given) float64."""
        scale = torch.scalar_tensor(given, dtype=torch.float64) / wanted
        wide = scale.clamp_min(1.0)  # antialiasing: a kernel as wide as what becomes one pixel
        reach = (2.0 if self.cubic else 1.0) * wide
        centre = scale * (torch.arange(wanted, dtype=torch.float64)[:, None] + 0.5)
        places = torch.arange(given, dtype=torch.float64)[None]
        x = ((places - centre + 0.5) * (1.0 / wide)).abs()
        if self.cubic:  # Keys's kernel with a = -0.5
            near, far = (1.5 * x - 2.5) * x * x + 1, (((x - 5) * x + 8) * x - 4) * -0.5
            weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
        else:
            weights = (1 - x).clamp_min(0)
        first = torch.trunc(centre - reach + 0.5).clamp_min(0)
        inside = (places >= first) & (places < torch.trunc(centre + reach + 0.5))
        weights = torch.where(inside, weights, 0.0)
        return weights / weights.sum(1, keepdim=True)
