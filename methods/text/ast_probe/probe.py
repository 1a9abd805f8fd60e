"""The probe: an orthogonal projection whose squared distances order the splits of a tree, and two label scores."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.seeding import torch_generator


class Probe(nn.Module):
    """z_i = B^T h_i; distances ||z_i - z_{i-1}||^2, scores (z_i - z_{i-1}) C and z_i U, without biases.

    Args:
        width: m1, numbers of a state.
        rank: m2, dimensions of the subspace.
        labels: of common ancestors (c).
        unary: of tokens (u).
        generator: of the weights, uniform in [-0.05, 0.05].
    """

    def __init__(
        self, width: int, rank: int, labels: int, unary: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-0.05, 0.05, generator=generator))

        self.B, self.C, self.U = uniform(width, rank), uniform(rank, labels), uniform(rank, unary)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From states (rows, T, m1): distances (rows, T - 1), scores (rows, T - 1, labels) and (rows, T, unary)."""
        z = states @ self.B
        step = z[:, 1:] - z[:, :-1]
        return step.square().sum(-1), step @ self.C, z @ self.U

    def orthogonality(self) -> Tensor:
        """||B^T B - I||_F^2."""
        return (self.B.T @ self.B - torch.eye(self.B.shape[1], device=self.B.device)).square().sum()


def rank_loss(predicted: Tensor, heights: Tensor, there: Tensor) -> Tensor:
    """Mean of max(0, 1 - (p_i - p_j)) over all pairs of a row with d_i > d_j; 0 where there is none.

    Args:
        predicted: distances p, shape (rows, n).
        heights: d, shape (rows, n).
        there: which are no padding, bool, shape (rows, n).
    """
    ordered = (heights[:, :, None] > heights[:, None, :]) & there[:, :, None] & there[:, None, :]
    hinge = F.relu(1 - (predicted[:, :, None] - predicted[:, None, :]))
    return (hinge * ordered).sum() / ordered.sum().clamp(min=1)


@dataclass(frozen=True)
class Examples:
    """Snippets as tensors: states of all tokens one after the other, and each snippet's tuple in numbers.

    Attributes:
        states: shape (tokens, m1).
        starts: first row of each snippet, and one past the last.
        d, c: one list for each snippet, one less than its tokens.
        u: one list for each snippet.
    """

    states: Tensor
    starts: Sequence[int]
    d: Sequence[Sequence[float]]
    c: Sequence[Sequence[int]]
    u: Sequence[Sequence[int]]

    def batches(self, order: Sequence[int], size: int) -> Iterator[Batch]:
        """Batches of snippets in `order`, padded to their longest."""
        device = self.states.device
        for first in range(0, len(order), size):
            numbers = list(order[first : first + size])
            lengths = torch.tensor([self.starts[n + 1] - self.starts[n] for n in numbers])
            offsets = torch.arange(int(lengths.max()))
            there = offsets < lengths[:, None]
            rows = torch.tensor([self.starts[n] for n in numbers])[:, None] + offsets.expand(len(numbers), -1)
            rows = torch.where(there, rows, 0).to(device)
            padded = [
                nn.utils.rnn.pad_sequence(
                    [torch.tensor(table[n], dtype=kind) for n in numbers], batch_first=True, padding_value=-1
                ).to(device)
                for table, kind in ((self.d, torch.float32), (self.c, torch.int64), (self.u, torch.int64))
            ]
            yield Batch(self.states[rows], there.to(device), *padded)


@dataclass(frozen=True)
class Batch:
    """States (rows, T, m1), which tokens are there (rows, T), and d, c (rows, T - 1), u (rows, T), padded with -1."""

    states: Tensor
    there: Tensor
    d: Tensor
    c: Tensor
    u: Tensor


def loss(probe: Probe, batch: Batch, orthogonality: float) -> Tensor:
    """L_d + L_c + L_u + lambda ||B^T B - I||^2, each a mean without the padding."""
    distances, labels, unary = probe(batch.states)
    return (
        rank_loss(distances, batch.d, batch.there[:, 1:])
        + F.cross_entropy(labels.flatten(0, 1), batch.c.flatten(), ignore_index=-1)
        + F.cross_entropy(unary.flatten(0, 1), batch.u.flatten(), ignore_index=-1)
        + orthogonality * probe.orthogonality()
    )


@dataclass(frozen=True)
class Recipe:
    """How a probe is trained, by default as in the paper.

    Attributes:
        rank: m2.
        orthogonality: lambda.
        lr: of Adam; times 0.1 after each epoch in which the validation loss is no better.
        batch: snippets of a batch.
        epochs: at most.
        patience: epochs without a better validation loss until it stops.
    """

    rank: int = 128
    orthogonality: float = 5.0
    lr: float = 1e-3
    batch: int = 32
    epochs: int = 20
    patience: int = 5


def fit(
    training: Examples, validation: Examples, labels: int, unary: int, recipe: Recipe, seed: int
) -> tuple[Probe, list[float]]:
    """The probe with the best validation loss, and the validation loss of each epoch.

    Args:
        training: what is learnt from, on the device that is used.
        validation: what decides which epoch is kept.
        labels, unary: how many there are.
        recipe: how.
        seed: of the weights and the order of the snippets.
    """
    device = training.states.device
    probe = Probe(
        training.states.shape[1], recipe.rank, labels, unary, torch_generator(seed, "ast-probe", "weights")
    ).to(device)
    optimizer = torch.optim.Adam(probe.parameters(), lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
    order = torch_generator(seed, "ast-probe", "order")
    best, kept, waited, curve = float("inf"), copy.deepcopy(probe.state_dict()), 0, []
    for _ in range(recipe.epochs):
        for batch in training.batches(torch.randperm(len(training.d), generator=order).tolist(), recipe.batch):
            optimizer.zero_grad(set_to_none=True)
            loss(probe, batch, recipe.orthogonality).backward()
            optimizer.step()
        with torch.inference_mode():
            parts = [
                (len(batch.d), loss(probe, batch, recipe.orthogonality).item())
                for batch in validation.batches(range(len(validation.d)), recipe.batch)
            ]
        value = sum(rows * part for rows, part in parts) / sum(rows for rows, _ in parts)
        curve.append(value)
        schedule.step(value)
        if value < best:
            best, kept, waited = value, copy.deepcopy(probe.state_dict()), 0
        else:
            waited += 1
            if waited == recipe.patience:
                break
    probe.load_state_dict(kept)
    return probe, curve


@torch.inference_mode()
def predict(probe: Probe, examples: Examples, batch: int) -> list[tuple[list[float], list[int], list[int]]]:
    """Distances and the labels with the highest scores, of each snippet, as (d, c, u)."""
    found = []
    for part in examples.batches(range(len(examples.starts) - 1), batch):
        distances, labels, unary = probe(part.states)
        columns = (distances.cpu(), labels.argmax(-1).cpu(), unary.argmax(-1).cpu())
        for row, length in enumerate(part.there.sum(1).tolist()):
            d, c, u = (column[row].tolist() for column in columns)
            found.append((d[: length - 1], c[: length - 1], u[:length]))
    return found
