"""What the methods that select keys before they attend share: running, matching a target, and their own figures."""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from harness.errors import RequestError
from harness.method import Metric
from harness.types import Fraction
from methods.attention.block_sparse import BlockMask, Kernel, attend_blocks, attend_causal
from methods.attention.layer import Layer
from methods.attention.partial import Partial
from methods.attention.prefill_scores import densities
from methods.attention.work import Attended, Inputs

SELECTION = (
    Metric("index_time", unit="s", better="lower", doc="Of finding out what to attend to; median of 5."),
    Metric(
        "flop_ratio",
        doc="FLOPs of exact causal attention over those of the search and of the pairs attended to.",
    ),
)


class Prefilled(NamedTuple):
    """What a selection and its attention make.

    Attributes:
        part: the output, (heads, n, d), with its log-sum-exp.
        pairs: that were attended to, int64, shape (heads,).
        search: FLOPs of the search, of all heads.
    """

    part: Partial
    pairs: Tensor
    search: float


class Selection(ABC):
    """An algorithm that attends causally to keys of its choice."""

    @abstractmethod
    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Prefilled:
        """Attend: q is (heads, n, d), k and v are (key heads, n, d)."""

    @abstractmethod
    def search(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Callable[[], Any]:
        """Something to call that finds the keys to attend to and does nothing else."""


class MaskSelection(Selection):
    """A selection of whole blocks."""

    kernel: Kernel

    @abstractmethod
    def mask(self, q: Tensor, k: Tensor, *, scale: float) -> tuple[BlockMask, float]:
        """The blocks to attend to, and the FLOPs of finding them."""

    def search(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Callable[[], Any]:
        return lambda: self.mask(q, k, scale=scale)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Prefilled:
        mask, search = self.mask(q, k, scale=scale)
        part = attend_blocks(q, k, v, mask, scale=scale, kernel=self.kernel)
        return Prefilled(part, mask.pairs(q.shape[1]), search)


class SelectionLayer(Layer):
    """A `Selection` as a method."""

    grouped = True

    selection: Selection

    @abstractmethod
    def build(self, work: Inputs) -> Selection:
        """The algorithm for this work, whose tensors are on the device."""

    def prepare(self, work: Inputs) -> None:
        if not work.causal or work.upstream is not None:
            raise RequestError(f"{type(self).name} attends causally and has no gradient")
        super().prepare(work)
        self.selection = self.build(self.inputs)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Partial:
        return self.selection(q, k, v, scale=scale).part

    def run(self) -> Attended:
        return attended(self.selection, self.inputs)

    def measure(self, output: Attended) -> dict[str, float]:
        x = self.inputs
        result = self.selection(x.q, x.k, x.v, scale=x.scale)
        return {
            **self.task.score(self.work, output),
            "index_time": seconds(self.selection.search(x.q, x.k, x.v, scale=x.scale), x.q.device),
            "flop_ratio": flop_ratio(result, x.q),
        }


class KernelLayer(SelectionLayer):
    """A selection that is attended to by `methods.attention.block_sparse`."""

    kernel: Literal["auto", "torch", "triton"] = "auto"
    """"torch" gathers for torch's fused attention; "triton" is one kernel (on a GPU); "auto" is the one made for
    the device."""


class MatchingLayer(KernelLayer):
    """A method whose main parameter, of a budget that grows with it, can be set so that a target is met.

    So methods can be compared at the same recall or at the same density. The search for the parameter looks at the
    very inputs that are measured and is part of `prepare`.
    """

    match: Literal["none", "mass-recall", "density"] = "none"
    """What meets `target`: nothing (the parameter is used as it is), the mass recall or the density."""
    target: Fraction = 0.9
    """The least mass recall or density, where `match` asks for one."""
    matched: Literal["each-head", "all-heads"] = "each-head"
    """Whether every head gets a parameter of its own, or all heads one that meets the target on average."""

    @abstractmethod
    def strengthened(self, strength: Tensor) -> Selection:
        """The algorithm with a budget that grows with `strength`, float64, shape (heads,), in [0, 1]."""

    @abstractmethod
    def plain(self) -> Selection:
        """The algorithm with the parameter as it is."""

    def build(self, work: Inputs) -> Selection:
        if self.match == "none":
            return self.plain()
        exact = attend_causal(work.q, work.k, work.v, scale=work.scale).lse

        def reached(strength: Tensor) -> Tensor:
            output = attended(self.strengthened(strength.to(work.q.device)), work)
            if self.match == "density":
                each = densities(work, output)
            else:
                assert output.lse is not None
                each = (output.lse - exact).exp().clamp(max=1.0).double().mean(-1).cpu()
            return each if self.matched == "each-head" else each.mean().expand(len(each))

        return self.strengthened(least(reached, self.target, len(work.q)).to(work.q.device))


def attended(selection: Selection, x: Inputs) -> Attended:
    """`selection` on the inputs, as a task's output."""
    with torch.no_grad():
        result = selection(x.q, x.k, x.v, scale=x.scale)
    return Attended(result.part.out, result.part.lse, pairs=result.pairs)


def least(reached: Callable[[Tensor], Tensor], target: float, heads: int, steps: int = 14) -> Tensor:
    """The smallest strengths in [0, 1], shape (heads,), at which `reached` is at least `target`.

    Args:
        reached: does not fall as its argument, (heads,), grows; at 1 it is assumed to reach any target.
        steps: halvings of the interval.
    """
    low, high = torch.zeros(heads, dtype=torch.float64), torch.ones(heads, dtype=torch.float64)
    enough = reached(low) >= target
    high = torch.where(enough, low, high)
    for _ in range(steps):
        middle = (low + high) / 2
        enough = reached(middle) >= target
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return high


def flop_ratio(result: Prefilled, q: Tensor) -> float:
    """FLOPs of exact causal attention over those of `result`: 4 d for each pair, and the search."""
    heads, n, d = q.shape
    dense = 4 * d * heads * n * (n + 1) / 2
    return dense / (4 * d * float(result.pairs.sum()) + result.search)


def seconds(call: Callable[[], Any], device: torch.device, repeats: int = 5) -> float:
    """Median time of a call, in s, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
