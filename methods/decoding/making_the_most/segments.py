"""What all methods of part C share: load the frozen model, tune on one piece of each domain, score the other."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from harness.method import Measurement, Method
from methods.decoding.making_the_most.models import Base, load_base
from methods.decoding.making_the_most.work import Nats, SegmentWork


class SegmentMethod(Method[SegmentWork, Nats]):
    """Scores segments; a step size, where there is one, is tuned for each domain on a piece of its own."""

    def build(self, work: SegmentWork, etas: tuple[float, ...]) -> None:
        """Load the model and, with more than one step size, try each on the tuning pieces.

        The first step size is never dropped for a worse one, and ties go to it.
        """
        base = load_base(work.model, device=self.context.device, directory=self.context.cache, dtype=work.dtype)
        for parameter in base.model.parameters():
            parameter.requires_grad_(False)
        self.base, self.largest = base, 0
        self.rows = {name: self._rows(base, piece.scored, work.streams) for name, piece in work.domains.items()}
        self.chosen: dict[str, float] = {}
        for name, piece in work.domains.items():
            if len(etas) == 1:
                self.chosen[name] = etas[0]
                continue
            rows, _ = self._rows(base, piece.tuning, work.streams)
            losses = [_finite(self.nats_of(rows, eta)) for eta in etas]
            self.chosen[name] = etas[losses.index(min(losses))]

    def _rows(self, base: Base, text: Tensor, streams: int) -> tuple[Tensor, int]:
        """Streams of equal length, each with the last token of the one before it in front; and the bytes scored."""
        tokens = base.encode(text)
        each = (len(tokens) - 1) // streams
        rows = tokens[(torch.arange(streams) * each)[:, None] + torch.arange(each + 1)]
        return rows.to(self.context.device), int(base.token_bytes[rows[:, 1:]].sum())

    @abstractmethod
    def nats_of(self, rows: Tensor, eta: float) -> Tensor:
        """Nats of the targets of rows of text with step size `eta`, in order."""

    def run(self) -> Nats:
        """Score all domains."""
        nats = {
            name: float(self.nats_of(rows, self.chosen[name]).double().sum())
            for name, (rows, _) in self.rows.items()
        }
        return Nats(nats, {name: count for name, (_, count) in self.rows.items()})

    def etas_measured(self, output: Nats) -> Measurement:
        """The task's score and the step sizes that were chosen."""
        score: Any = self.task.score(self.work, output)
        own = {f"eta_{name}": eta for name, eta in self.chosen.items()}
        return Measurement(score) | own | {"state_bytes": float(self.largest)}


def _finite(nats: Tensor) -> float:
    """The mean, infinity where the states exploded."""
    mean = float(nats.double().mean())
    return mean if mean == mean else float("inf")
