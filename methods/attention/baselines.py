"""Baselines of the attention family."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from harness.method import method
from harness.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt
from methods.attention.backends import fastest
from methods.attention.layer import LanguageModel, Layer
from methods.attention.pairs import PATTERN, Pattern
from methods.attention.partial import Partial
from methods.attention.prefill import SELECTION, KernelLayer, SelectionLayer
from methods.attention.selections import Oracle, VerticalSlash, Window, budgets_for
from methods.attention.work import Inputs


@method(
    "exact-attention",
    task=(
        "self-attention",
        "self-attention-gradient",
        "prefill-attention",
        "mixed-heads-attention",
        "needle-retrieval",
    ),
)
class ExactAttention(Layer):
    """torch's scaled dot-product attention: on a GPU the fastest of its fused kernels (FlashAttention, cuDNN,
    memory-efficient), found by trying them on the inputs before the run; on a CPU the fused one."""

    def prepare(self, work: Inputs) -> None:
        super().prepare(work)
        x = self.inputs
        self.backend = None
        if x.q.device.type == "cuda":
            k, v = (t.repeat_interleave(x.group, 0) for t in (x.k, x.v))
            self.backend = fastest(x.q, k, v, causal=x.causal, scale=x.scale, upstream=x.upstream)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        with nullcontext() if self.backend is None else sdpa_kernel(self.backend):
            return F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=causal, scale=scale)[0]


@method("local-window-attention", task=("self-attention", "self-attention-gradient"), metrics=PATTERN)
class LocalWindowAttention(Pattern):
    """Every query attends to the nearest keys of the sequence only."""

    window: PositiveInt = 512
    """Keys of a query: the last ones up to its own place under a causal mask, else half of them before it."""

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return window_attention(q, k, v, self.window, causal=causal, scale=scale)

    def kept(self, rows: Tensor) -> Tensor:
        before = self.window - 1 if self.inputs.causal else self.window // 2
        first = (rows - before)[:, None]
        place = torch.arange(self.inputs.q.shape[1], device=rows.device)
        return ((place >= first) & (place < first + self.window))[None]

    def scored(self, n: int) -> float:
        return float((2 * self.window - 1) * n)


@method("top-keys-attention", task=("self-attention", "self-attention-gradient"), metrics=PATTERN)
class TopKeysAttention(Pattern):
    """Every query attends to the keys of its highest scores, which an oracle finds: all scores are computed.

    It says how good a choice of that many keys can be, not how fast.
    """

    keys: PositiveInt = 512
    """Keys of a query."""

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Partial:
        n = q.shape[1]
        parts = [
            self._rows(q[h], k[h], v[h], rows, causal, scale)
            for h in range(len(q))
            for rows in torch.arange(n, device=q.device).split(max(1, (1 << 24) // n))
        ]
        return Partial(
            torch.cat([p.out for p in parts]).view(*q.shape[:2], -1),
            torch.cat([p.lse for p in parts]).view(q.shape[:2]),
        )

    def _rows(self, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, causal: bool, scale: float) -> Partial:
        scores = self._scores(q, k, rows, causal, scale)
        top, index = self._best(scores)
        lse = top.logsumexp(-1, keepdim=True)
        # Rows of the softmax matrix with the chosen entries alone: a dense product is faster than a gather.
        weights = torch.zeros_like(scores).scatter(-1, index, torch.exp(top - lse))
        return Partial(torch.matmul(weights.to(v.dtype), v), lse.squeeze(-1))

    def _scores(self, q: Tensor, k: Tensor, rows: Tensor, causal: bool, scale: float) -> Tensor:
        """Of the queries `rows` of q, (..., n, d), with all keys: (..., rows, n)."""
        scores = torch.matmul(q[..., rows, :], k.mT).float() * scale
        if causal:
            later = torch.arange(k.shape[-2], device=q.device) > rows[:, None]
            scores = scores.masked_fill(later, -torch.inf)
        return scores

    def _best(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The largest of each row, and the keys that they belong to."""
        return scores.topk(min(self.keys, scores.shape[-1]), dim=-1)

    def kept(self, rows: Tensor) -> Tensor:
        x = self.inputs
        scores = self._scores(x.q, x.k.repeat_interleave(x.group, 0), rows, x.causal, x.scale)
        return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, self._best(scores)[1], True)

    def scored(self, n: int) -> float:
        return float(n * n)


@method(
    "streaming-attention",
    task=("prefill-attention", "mixed-heads-attention", "needle-retrieval"),
    metrics=SELECTION,
)
class StreamingAttention(KernelLayer):
    """StreamingLLM's mask over a prompt: the first keys and the last, in whole blocks."""

    first: NonNegativeInt = 1024
    """Keys at the start of the prompt that every query sees."""
    last: NonNegativeInt = 8192
    """Keys up to its own place that a query sees at least."""
    block: PositiveInt = 128
    """Tokens of a block."""

    def build(self, work: Inputs) -> Window:
        return Window(self.first, self.last, self.block, self.kernel)


@method(
    "vertical-slash-attention",
    task=("prefill-attention", "mixed-heads-attention", "needle-retrieval"),
    metrics=SELECTION,
)
class VerticalSlashAttention(KernelLayer):
    """As many block columns and diagonals in every head, at the places where the last 64 queries see most mass."""

    columns: PositiveInt = 1024
    """Tokens of the block columns."""
    diagonals: PositiveInt = 8192
    """Tokens of the block diagonals."""
    block: PositiveInt = 128
    """Tokens of a block."""

    def build(self, work: Inputs) -> VerticalSlash:
        columns, diagonals = (torch.tensor(-(-x // self.block)) for x in (self.columns, self.diagonals))
        return VerticalSlash(columns, diagonals, self.block, self.kernel)


@method(
    "fixed-budget-attention",
    task=("prefill-attention", "mixed-heads-attention", "needle-retrieval"),
    metrics=SELECTION,
)
class FixedBudgetAttention(KernelLayer):
    """Vertical-slash attention as MInference uses it: every head has the same budget of pairs, and a share of
    diagonals in it that was found beforehand on another prompt of the task."""

    density: Fraction = 0.3
    """Pairs attended to over all causal pairs, at most, on the prompt of the search."""
    block: PositiveInt = 128
    """Tokens of a block."""

    def build(self, work: Inputs) -> VerticalSlash:
        other: Inputs = self.task.load(self.context.derive("prompt of the budget search"))
        columns, diagonals = budgets_for(other.to(self.context.device), self.density, self.block, self.kernel)
        return VerticalSlash(columns, diagonals, self.block, self.kernel)


@method(
    "oracle-attention",
    task=("prefill-attention", "mixed-heads-attention", "needle-retrieval"),
    metrics=SELECTION,
)
class OracleAttention(SelectionLayer):
    """The best keys of each single query, from all of its scores: how good a selection can be, not how fast."""

    rule: Literal["top-keys", "top-mass", "difference"] = "top-mass"
    """The `keys` largest scores; the fewest keys that hold `mass` of the softmax; or those within `delta` of the
    largest score."""
    keys: PositiveInt = 512
    """For "top-keys"."""
    mass: Fraction = 0.95
    """For "top-mass"."""
    delta: NonNegativeFloat = 6.0
    """For "difference", in nats."""

    def build(self, work: Inputs) -> Oracle:
        return Oracle(self.rule, self.keys, self.mass, self.delta)


@method("exact-language-model", task="long-context-language-model")
class ExactLanguageModel(LanguageModel):
    """The model as it is."""

    patched_layers = 0

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=causal, scale=scale)[0]


@method("local-window-language-model", task="long-context-language-model")
class LocalWindowLanguageModel(LanguageModel):
    """The model with attention to the nearest keys in its last layers."""

    patched_layers: NonNegativeInt = 4
    """Layers, from the last, that attend to a window."""
    window: PositiveInt = 512
    """Keys of a query: the last ones up to its own place."""

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor:
        return window_attention(q, k, v, self.window, causal=causal, scale=scale)


def window_attention(q: Tensor, k: Tensor, v: Tensor, window: int, *, causal: bool, scale: float) -> Tensor:
    """Exact attention of each query to `window` keys around it: (heads, n, d); differentiable.

    Without a mask query i sees keys i - window/2 (rounded down) to i + window/2 - 1, under a causal mask i -
    window + 1 to i. Blocks of `window` queries are attended to at a time, each over twice as many keys of
    which a mask leaves a band.
    """
    heads, n, d = q.shape
    before = window - 1 if causal else window // 2
    tail = -n % window
    blocks = (n + tail) // window

    def bands(x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 0, before, tail + 2 * window - 1 - before))
        return padded.unfold(1, 2 * window - 1, window)[:, :blocks].transpose(2, 3)

    query = torch.arange(window, device=q.device)[:, None]
    key = torch.arange(2 * window - 1, device=q.device)
    band = (key >= query) & (key < query + window)
    place = torch.arange(blocks, device=q.device)[:, None] * window + key - before
    inside = ((place >= 0) & (place < n))[:, None, :]
    queries = F.pad(q, (0, 0, 0, tail)).view(heads, blocks, window, d)
    # A padded query may see no key at all; one real key keeps the softmax, and its gradient, finite.
    rows = torch.arange(blocks, device=q.device)[:, None, None] * window + query
    mask = (band & inside) | ((rows >= n) & inside)
    out = F.scaled_dot_product_attention(queries, bands(k), bands(v), attn_mask=mask, scale=scale)
    return out.reshape(heads, blocks * window, -1)[:, :n]
