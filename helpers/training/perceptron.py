"""Perceptron: heads that torch trains in batches; how many epochs is one of their settings."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import BatchSampler, RandomSampler, WeightedRandomSampler

from helpers.training.imbalance import Remedy
from helpers.training.losses import Loss
from helpers.training.selection import Head, multiply, pack_linear

HIDDEN = 256  # neurons
EPOCHS = 1, 2, 3, 5, 8, 12, 18, 27, 40  # candidates: the best of them is an early stop
BATCHES = 16, 256  # images a step: at least, and at most
STEPS = 16  # an epoch's, for few images
RATE, DECAY = 1e-3, 1e-2  # AdamW's


class LinearLayerHead(Head):
    """A linear layer with dropout before it, trained in batches."""

    dropouts: ClassVar[tuple] = (0.0, 0.5)

    def create_network(self, width: int, count: int, dropout: float) -> nn.Sequential:
        """Make the layers between standardised features and logits."""
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, count))

    def try_candidates(self, inputs: np.ndarray, codes: np.ndarray,
                       judged: np.ndarray) -> Iterator[tuple[dict, np.ndarray]]:
        """Yield each dropout with each number of epochs, and its logits of `judged`."""
        for dropout in self.dropouts:
            for epoch, arrays in self._train(inputs, codes, dropout):
                if epoch in EPOCHS:
                    yield {"dropout": dropout, "epochs": epoch}, self._multiply(judged, arrays)

    def learn(self, settings: dict, inputs: np.ndarray, codes: np.ndarray) -> dict:
        """Return the layers' weights and biases after the chosen number of epochs."""
        trained = self._train(inputs, codes, settings["dropout"])
        return next(arrays for epoch, arrays in trained if epoch == settings["epochs"])

    def answer(self, inputs: np.ndarray) -> np.ndarray:
        """Return the logits, (rows, classes)."""
        return self._multiply(inputs, self.arrays)

    @staticmethod
    def _multiply(inputs: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
        if "hidden_weights" in arrays:
            inputs = np.maximum(inputs @ arrays["hidden_weights"] + arrays["hidden_biases"], 0)
        return multiply(inputs, arrays)

    def _train(self, inputs, codes, dropout: float) -> Iterator[tuple[int, dict]]:
        """Yield each epoch's number, and the arrays after it."""
        classes, numbers = np.unique(codes, return_inverse=True)
        scaler = StandardScaler().fit(inputs)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        scaled = scaler.transform(inputs).astype(np.float32, copy=False)
        features = torch.from_numpy(scaled).to(device)
        targets = torch.from_numpy(numbers).to(device)
        loss = create_loss(self.remedy, numbers, device)
        with torch.random.fork_rng():
            torch.manual_seed(self.remedy.seed)
            network = self.create_network(features.shape[1], len(classes), dropout).to(device)
            generator = torch.Generator().manual_seed(self.remedy.seed)
            batches = draw_batches(self.remedy, numbers, generator)
            optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
            for epoch in range(1, max(EPOCHS) + 1):
                network.train()
                for rows in batches:
                    optimizer.zero_grad()
                    weights = loss.weigh(targets[rows])
                    losses = loss.measure(network(features[rows]), targets[rows])
                    ((weights * losses).sum() / weights.sum()).backward()
                    optimizer.step()
                yield epoch, self._pack(network, scaler, classes)

    def _pack(self, network: nn.Sequential, scaler: StandardScaler, classes: np.ndarray) -> dict:
        """Return all layers as arrays, the first for features that are not standardised."""
        layers = [(layer.weight.T.double().cpu().detach().numpy(),
                   layer.bias.double().cpu().detach().numpy())
                  for layer in network if isinstance(layer, nn.Linear)]
        weights = layers[0][0] / scaler.scale_[:, None]
        layers[0] = weights, layers[0][1] - scaler.mean_ @ weights
        hidden = {} if len(layers) == 1 else {
            "hidden_weights": layers[0][0].astype(np.float32),
            "hidden_biases": layers[0][1].astype(np.float32)}
        return hidden | pack_linear(*layers[-1], classes, self.count)


class PerceptronHead(LinearLayerHead):
    """A multi-layer perceptron: one hidden layer, and dropout behind it."""

    dropouts: ClassVar[tuple] = (0.2, 0.5)

    def create_network(self, width: int, count: int, dropout: float) -> nn.Sequential:
        """Make the layers between standardised features and logits."""
        return nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(dropout),
                             nn.Linear(HIDDEN, count))


def create_loss(remedy: Remedy, numbers: np.ndarray, device: torch.device) -> Loss:
    """Return the loss that goes with a remedy.

    Args:
        numbers: (images,) the class of each image to learn from, 0..n-1.
    """
    weights = torch.tensor(remedy.weigh(numbers), dtype=torch.float32, device=device)
    offset = torch.tensor(remedy.offset(numbers), dtype=torch.float32, device=device)
    return Loss(weights, offset, remedy.focus)


def draw_batches(remedy: Remedy, numbers: np.ndarray, generator: torch.Generator) -> BatchSampler:
    """Return batches of row numbers; balanced ones draw each class equally often.

    Args:
        numbers: (images,) the class of each image, 0..n-1.
    """
    size = int(np.clip(len(numbers) // STEPS, *BATCHES))
    if remedy.name != "balanced_batches":
        return BatchSampler(RandomSampler(numbers, generator=generator), size, drop_last=False)
    chances = 1 / np.bincount(numbers)[numbers]
    return BatchSampler(WeightedRandomSampler(chances, len(numbers), generator=generator), size,
                        drop_last=False)
