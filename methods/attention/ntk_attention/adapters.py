"""Trained parameters inside the attention of a frozen transformer: NTK-Attention's Z and k, or a prefix.

Any model of transformers can take them: its attention layers are found by running it once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from methods.attention.ntk_attention.algorithm import State, ntk_attention
from methods.attention.ntk_attention.features import Phi

_NAME = "adapted"


@dataclass(frozen=True)
class AttentionLayer:
    """An attention layer of a model: its module, its heads, and d of a head."""

    module: Any
    heads: int
    head_dim: int


class NtkAdapter(nn.Module):
    """Z and k of one layer: h (d'^2 + d') numbers.

    Args:
        state: what to start from.
        phi, degree, dropout: see `algorithm.ntk_attention`; dropout is for training alone.
    """

    def __init__(self, state: State, phi: Phi = "elu1", degree: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.z, self.k = nn.Parameter(state.z), nn.Parameter(state.k)
        self.phi, self.degree, self.dropout = phi, degree, dropout

    def forward(self, q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
        """Attention of q, (batch, h, L, d), to k and v, (batch, key heads, L, d), and to the state."""
        rate = self.dropout if self.training else 0.0
        state = State(self.z, self.k)
        return ntk_attention(
            q, k, v, state, scale=scale, phi=self.phi, degree=self.degree, causal=causal, dropout=rate
        ).out


class PrefixAdapter(nn.Module):
    """Keys and values of one layer's prefix, N(0, 1) at first as in P-Tuning v2: 2 h m d numbers."""

    def __init__(self, heads: int, length: int, head_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        keys, values = torch.randn(2, heads, length, head_dim, generator=generator)
        self.keys, self.values = nn.Parameter(keys), nn.Parameter(values)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
        """As `NtkAdapter.forward`."""
        batch, heads, length, _ = q.shape
        group = heads // k.shape[1]
        k, v = (
            torch.cat([p.to(t).expand(batch, -1, -1, -1), t.repeat_interleave(group, 1)], 2)
            for p, t in ((self.keys, k), (self.values, v))
        )
        m = self.keys.shape[1]
        mask = torch.ones(length, m + length, dtype=torch.bool, device=q.device).tril(m) if causal else None
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


@torch.no_grad()
def attention_layers(model: Any, **inputs: Tensor) -> list[AttentionLayer]:
    """The attention layers that `model` runs through on `inputs`, in order; see `adapt`."""
    found: list[AttentionLayer] = []

    def record(module: Any, query: Tensor) -> None:
        found.append(AttentionLayer(module, query.shape[1], query.shape[3]))

    _install(model)
    for module in model.modules():
        module.seen = record
    model(**inputs)
    for module in model.modules():
        del module.seen
    return found


def adapt(layer: AttentionLayer, adapter: nn.Module) -> None:
    """Let `layer` attend through `adapter`, which becomes part of the model."""
    layer.module.adapter = adapter.to(next(layer.module.parameters()).device)


def _install(model: Any) -> None:
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.set_attn_implementation(_NAME)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """What transformers calls: q (batch, h, n, d), k and v (batch, key heads, n, d) -> (batch, n, h, d)."""
    if (seen := getattr(module, "seen", None)) is not None:
        seen(module, query)
    adapter = getattr(module, "adapter", None)
    if adapter is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)  # type: ignore[no-any-return]
    if attention_mask is not None:
        raise ValueError("adapted attention takes whole sequences without padding")
    out = adapter(query, key, value, options["scaling"], bool(getattr(module, "is_causal", False)))
    return out.transpose(1, 2).contiguous(), None
