"""Causal language models whose inputs are vectors and whose cached keys and values are plain tensors.

Recurrence puts a vector of its own in front of the tokens (part A), hidden-state optimisation moves cached states along
a gradient (part C). Both are written against `CausalModel`; it is a small transformer of our own, or any causal model
of transformers.
"""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import seeding
from harness.errors import RequestError

States = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, shape (rows, heads, slots, head width)."""


@dataclass(frozen=True)
class Pass:
    """What a forward pass gives.

    Attributes:
        logits: shape (rows, n, vocabulary).
        hidden: output of each layer, shape (rows, n, width).
        states: keys and values of the past and of the n inputs, as attention used them.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...]
    states: States


class CausalModel(nn.Module):
    """A causal language model.

    Attributes:
        width: of the residual stream.
        layers: number of layers.
        vocabulary: number of tokens.
        positions: most positions where they are absolute, else None.
    """

    width: int
    layers: int
    vocabulary: int
    positions: int | None

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """Input vectors of tokens (rows, n), without positions: shape (rows, n, width)."""

    @abstractmethod
    def forward(
        self,
        inputs: Tensor,
        past: States | None = None,
        *,
        start: int = 0,
        lead: int = 0,
        masked: bool = False,
        offsets: States | None = None,
    ) -> Pass:
        """Run n inputs after a past.

        Args:
            inputs: input vectors, shape (rows, n, width).
            past: cached states, or None.
            start: position of the first token, for models with positions of their own.
            lead: so many inputs in front are no tokens and take no position.
            masked: hide them from the tokens.
            offsets: added to the keys and values of the inputs of each layer, shape (rows, heads, n, head width).
        """


def slots(states: States | None) -> int:
    """Cached positions."""
    return states[0][0].shape[2] if states else 0


def allowed(n: int, past: int, lead: int, masked: bool, device: torch.device) -> Tensor:
    """Which slots an input sees: bool, shape (n, past + n)."""
    causal = torch.ones(n, past + n, dtype=torch.bool, device=device).tril(past)
    if masked and lead:
        causal[lead:, past : past + lead] = False
    return causal


class Decoder(CausalModel):
    """A pre-norm transformer with GELU and linear biases on the distance (ALiBi), so that it has no positions.

    Args:
        vocabulary: number of tokens.
        width: of the residual stream.
        layers: number of layers.
        heads: attention heads.
        seed: of the weights.
    """

    positions = None

    def __init__(
        self, vocabulary: int = 256, width: int = 64, layers: int = 2, heads: int = 4, *, seed: int = 0
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"the width ({width}) must be a multiple of the heads ({heads})")
        self.vocabulary, self.width, self.layers, self.heads = vocabulary, width, layers, heads
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seeding.derive(seed, "initial weights"))
            self.token = nn.Embedding(vocabulary, width)
            self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, vocabulary)
            nn.init.normal_(self.token.weight, std=0.1)
            for block in self.blocks:
                for layer in (block.out, block.down):
                    nn.init.normal_(layer.weight, std=width**-0.5 / math.sqrt(2 * layers))
        slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads)
        self.register_buffer("slopes", slopes, persistent=False)

    def embed(self, tokens: Tensor) -> Tensor:
        """Rows of the embedding."""
        return self.token(tokens)  # type: ignore[no-any-return]

    def forward(
        self,
        inputs: Tensor,
        past: States | None = None,
        *,
        start: int = 0,
        lead: int = 0,
        masked: bool = False,
        offsets: States | None = None,
    ) -> Pass:
        """See `CausalModel.forward`; only distances count, so `start` changes nothing."""
        n, before = inputs.shape[1], slots(past)
        there = allowed(n, before, lead, masked, inputs.device)
        place = torch.arange(before + n, device=inputs.device)
        distance = place[before:, None] - place
        bias = -self.slopes.to(inputs.dtype)[:, None, None] * distance  # type: ignore[operator]
        bias = bias.masked_fill(~there, -torch.inf)
        x, hidden, states = inputs, [], []
        for layer, block in enumerate(self.blocks):
            x, both = block(x, bias, past[layer] if past else None, offsets[layer] if offsets else None)
            hidden.append(x)
            states.append(both)
        return Pass(self.head(self.norm(x)), tuple(hidden), states)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        past: tuple[Tensor, Tensor] | None,
        offsets: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        rows, n, width = x.shape
        parts = self.qkv(self.first(x)).view(rows, n, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        if offsets is not None:
            k, v = k + offsets[0], v + offsets[1]
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, n, width))
        return x + self.down(F.gelu(self.up(self.second(x)))), (k, v)


class PretrainedDecoder(CausalModel):
    """A causal model of transformers.

    Args:
        model: e.g. a GPT2LMHeadModel or a LlamaForCausalLM.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        config = model.config.get_text_config()
        self.vocabulary, self.layers = config.vocab_size, config.num_hidden_layers
        self.width = model.get_input_embeddings().weight.shape[1]
        relative = any(hasattr(config, name) for name in ("rope_theta", "rope_parameters", "rope_scaling"))
        self.positions = None if relative else getattr(config, "max_position_embeddings", None)
        # transformers 5 calls the argument `cache`; releases before call it `past_key_values`.
        names = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in names else "past_key_values"

    def embed(self, tokens: Tensor) -> Tensor:
        """Rows of the model's input embedding."""
        return self.model.get_input_embeddings()(tokens)  # type: ignore[no-any-return]

    def forward(
        self,
        inputs: Tensor,
        past: States | None = None,
        *,
        start: int = 0,
        lead: int = 0,
        masked: bool = False,
        offsets: States | None = None,
    ) -> Pass:
        """See `CausalModel.forward`.

        Raises:
            RequestError: more positions than the model has.
        """
        n, before = inputs.shape[1], slots(past)
        if self.positions is not None and start + n - lead > self.positions:
            raise RequestError(
                f"the model has {self.positions} positions and position {start + n - lead - 1} was asked for",
                hint="make the streams shorter, or use a model with relative positions",
            )
        place = (torch.arange(n, device=inputs.device) - lead).clamp(min=0) + start
        # A mask of our own: from positions that repeat, transformers would conclude that sequences are packed.
        there = allowed(n, before, lead, masked, inputs.device)
        bias = torch.zeros(there.shape, dtype=inputs.dtype, device=inputs.device)
        bias = bias.masked_fill(~there, torch.finfo(inputs.dtype).min)
        cache = _cache(offsets)
        for layer, (k, v) in enumerate(past or []):
            cache.fill(k, v, layer)
        out = self.model(
            inputs_embeds=inputs,
            attention_mask=bias[None, None].expand(len(inputs), 1, -1, -1),
            position_ids=place[None].expand(len(inputs), -1),
            use_cache=True,
            output_hidden_states=True,
            **{self._cache_argument: cache},
        )
        states = [(layer.keys, layer.values) for layer in cache.layers]
        return Pass(out.logits, tuple(out.hidden_states[1:]), states)


def _cache(offsets: States | None) -> Any:
    from transformers import DynamicCache

    class Shifted(DynamicCache):
        """A cache that adds the offsets to what a layer is about to attend to."""

        def fill(self, k: Tensor, v: Tensor, layer: int) -> None:
            super().update(k, v, layer)

        def update(self, k: Tensor, v: Tensor, layer: int, *rest: Any, **named: Any) -> tuple[Tensor, Tensor]:
            if offsets is not None:
                k, v = k + offsets[layer][0], v + offsets[layer][1]
            return super().update(k, v, layer, *rest, **named)  # type: ignore[no-any-return]

    return Shifted()


def rows_of(states: States, rows: Tensor) -> States:
    """The states of some rows."""
    return [(k[rows], v[rows]) for k, v in states]


def newest(states: States, count: int) -> States:
    """The last `count` slots."""
    return [(k[:, :, -count:], v[:, :, -count:]) for k, v in states] if count else []


def state_bytes(states: Sequence[tuple[Tensor, Tensor]]) -> int:
    """Bytes of the keys and values."""
    return sum(t.numel() * t.element_size() for pair in states for t in pair)
