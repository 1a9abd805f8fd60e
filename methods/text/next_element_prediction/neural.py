"""Training the networks on the Brier score itself: the mean squared error of the softmax output.

The authors feed left-padded prefixes, one training example each. Here a trace is one example and the network is causal:
the same function of a prefix, with the work of its beginning done once. A batch is therefore one of traces.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from methods.text.next_element_prediction import score
from methods.text.next_element_prediction.forecaster import Forecaster
from methods.text.next_element_prediction.networks import Cell, NextSymbolNetwork
from methods.text.next_element_prediction.sequences import Traces, padded, targets

FORECAST_BATCH = 256
"""Traces of a forward pass."""


@dataclass(frozen=True)
class Recipe:
    """How a network looks and is trained.

    Attributes:
        cell, layers, units, embedding, dropout: see `NextSymbolNetwork`.
        l1, l2: weights of the penalties on its matrices.
        batch: traces of a step.
        learning_rate: of Adam.
        epochs: at most.
        patience: epochs without a better validation score after which training stops.
    """

    cell: Cell = "lstm"
    layers: int = 1
    units: int = 64
    embedding: int = 64
    dropout: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    batch: int = 32
    learning_rate: float = 1e-3
    epochs: int = 200
    patience: int = 20


class NeuralForecaster(Forecaster):
    """A trained network."""

    def __init__(self, network: NextSymbolNetwork, device: str) -> None:
        self.network = network.eval()
        self.device = device

    @torch.no_grad()
    def forecasts(self, traces: Traces) -> np.ndarray:
        """See `Forecaster.forecasts`."""
        self.network.eval()
        parts = []
        for i in range(0, len(traces), FORECAST_BATCH):
            before, _, mask = _tensors(traces[i : i + FORECAST_BATCH], self.network.symbols, self.device)
            logits = self.network(before)[mask]
            parts.append(logits.double().softmax(-1).cpu().numpy())
        return np.concatenate(parts)

    @property
    def size(self) -> int:
        """The parameters."""
        return sum(p.numel() for p in self.network.parameters())


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        model: with the weights of the best epoch, or of the last without validation traces.
        epochs: how many epochs those weights have seen.
        validation: Brier score of each epoch on the validation traces.
    """

    model: NeuralForecaster
    epochs: int
    validation: tuple[float, ...]

    @property
    def best(self) -> float:
        """The least validation score."""
        return min(self.validation)


def _tensors(traces: Traces, symbols: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Symbols before each place, symbols at it, and which places are real: [traces, longest + 1] each."""
    rows, mask = padded(traces, symbols)
    before = np.full_like(rows, symbols - 1)
    before[:, 1:] = rows[:, :-1]
    return tuple(torch.from_numpy(x).to(device) for x in (before, rows, mask))  # type: ignore[return-value]


def _loss(network: NextSymbolNetwork, batch: tuple[Tensor, Tensor, Tensor], recipe: Recipe) -> Tensor:
    before, following, mask = batch
    p = network(before)[mask].softmax(-1)
    chosen = p.gather(1, following[mask][:, None])[:, 0]
    loss = ((p**2).sum(1) - 2 * chosen + 1).mean() / network.symbols
    if recipe.l1 or recipe.l2:
        for weight in network.penalised():
            loss = loss + recipe.l1 * weight.abs().sum() + recipe.l2 * (weight**2).sum()
    return loss


def train(
    traces: Traces,
    symbols: int,
    recipe: Recipe,
    *,
    seed: int,
    device: str = "cpu",
    validation: Traces = (),
) -> Trained:
    """Train a network.

    Args:
        traces: to learn from.
        symbols: K.
        recipe: how.
        seed: of initial weights, order and dropout.
        device: where.
        validation: traces that choose the epoch; without them all epochs are done.
    """
    devices = [torch.cuda.current_device()] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        network = NextSymbolNetwork(
            symbols,
            cell=recipe.cell,
            layers=recipe.layers,
            units=recipe.units,
            embedding=recipe.embedding,
            dropout=recipe.dropout,
            longest=max(map(len, traces)) + 1,
        ).to(device)
        optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate)
        best, kept, kept_epoch = math.inf, None, recipe.epochs
        history: list[float] = []
        model = NeuralForecaster(network, device)
        following = targets(validation, symbols) if validation else np.zeros(0)
        for epoch in range(recipe.epochs):
            _epoch(network, optimizer, traces, recipe, device)
            if not validation:
                continue
            found = score.brier(model.forecasts(validation), following)
            history.append(found)
            if found < best:
                best, kept_epoch, kept = found, epoch + 1, copy.deepcopy(network.state_dict())
            if epoch + 1 - kept_epoch >= recipe.patience:
                break
        if kept is not None:
            network.load_state_dict(kept)
        return Trained(NeuralForecaster(network, device), kept_epoch, tuple(history))


def _epoch(
    network: NextSymbolNetwork,
    optimizer: torch.optim.Optimizer,
    traces: Traces,
    recipe: Recipe,
    device: str,
) -> None:
    """One pass. Traces of similar length share a batch: of each stretch of eight batches in a random order."""
    network.train()
    order = torch.randperm(len(traces)).tolist()
    stretch = 8 * recipe.batch
    batches = []
    for i in range(0, len(order), stretch):
        near = sorted(order[i : i + stretch], key=lambda n: len(traces[n]))
        batches += [near[j : j + recipe.batch] for j in range(0, len(near), recipe.batch)]
    for place in torch.randperm(len(batches)).tolist():
        batch = _tensors([traces[n] for n in batches[place]], network.symbols, device)
        optimizer.zero_grad(set_to_none=True)
        _loss(network, batch, recipe).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()


def refit(
    traces: Traces, symbols: int, recipe: Recipe, epochs: int, *, seed: int, device: str
) -> NeuralForecaster:
    """The network of `recipe` trained on all training traces for as many epochs as validation chose."""
    return train(traces, symbols, replace(recipe, epochs=epochs), seed=seed, device=device).model
