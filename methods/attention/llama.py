"""The family's language model: a byte-level Llama trained on long windows, and other attention in its layers.

transformers is imported here at the top, for then the process that all methods of a run are forked from imports it, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from harness.seeding import torch_generator
from methods.common.language_model import Recipe, llama, pretrained, windows

Replacement = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""(q, k, v, scale) -> out, each of shape (batch * heads, n, d): causal attention."""

_NAME = "replaceable"


def long_context_recipe(
    length: int, layers: int, heads: int, head_dim: int, feed_forward: int, steps: int
) -> Recipe:
    """A model trained on windows of `length` bytes of War and Peace, one window a step."""
    return Recipe(
        corpora=("gutenberg-novels/war-and-peace.txt.gz",),
        hidden=heads * head_dim,
        feed_forward=feed_forward,
        layers=layers,
        heads=heads,
        context=length,
        steps=steps,
        batch=1,
        lr=3e-3,
        warmup=0.1,
        precision="bfloat16",
    )


def held_out(recipe: Recipe, seed: int, count: int) -> Tensor:
    """Windows of the recipe's context from the text that training never sees: int64, shape (count, context)."""
    text = torch.cat([rest for _, rest in recipe.parts()])
    return windows(text, count, recipe.context, torch_generator(seed, "held-out windows"))


def model(recipe: Recipe, *, dtype: torch.dtype, device: str, cache: Path | None = None) -> LlamaForCausalLM:
    """The model of `recipe` in `dtype` on `device`: trained, or with random weights for 0 steps."""
    if recipe.steps:
        return pretrained(recipe, cache=cache, device=device).to(dtype)
    fresh = llama(256, recipe.hidden, recipe.feed_forward, recipe.layers, recipe.heads, recipe.context)
    return fresh.to(device, dtype)


@torch.no_grad()
def log_probabilities(model: LlamaForCausalLM, tokens: Tensor) -> Tensor:
    """Log-probabilities in nats of tokens 1..n-1, float32, shape (windows, n - 1), one window at a time."""
    return torch.cat([_of_window(model, window[None]) for window in tokens])


def _of_window(model: LlamaForCausalLM, window: Tensor) -> Tensor:
    logits = model(input_ids=window, use_cache=False).logits[:, :-1].float()
    return logits.log_softmax(-1).gather(-1, window[:, 1:, None]).squeeze(-1)


def replace_attention(model: LlamaForCausalLM, layers: Iterable[int], replacement: Replacement) -> None:
    """Let some layers of a Llama attend by `replacement`; the others keep torch's fused attention.

    Args:
        layers: their numbers, from 0.
        replacement: is called with rotated queries and keys, without padding.
    """
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.set_attn_implementation(_NAME)
    for layer in layers:
        model.model.layers[layer].self_attn.replacement = replacement


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """What transformers calls: q (batch, heads, n, d), k and v (batch, key heads, n, d) -> (batch, n, heads,
    d)."""
    replacement = getattr(module, "replacement", None)
    if replacement is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)  # type: ignore[no-any-return]
    if attention_mask is not None:
        raise ValueError("replaced attention takes whole sequences without padding")
    groups = query.shape[1] // key.shape[1]
    q, k, v = (x.flatten(0, 1) for x in (query, *(y.repeat_interleave(groups, 1) for y in (key, value))))
    out = replacement(q, k, v, options["scaling"])
    return out.view(query.shape).transpose(1, 2).contiguous(), None


@torch.no_grad()
def queries_keys_values(model: LlamaForCausalLM, window: Tensor, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries and keys, and values, of one layer on a window, (1, n): each (heads, n, d)."""
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def record(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        seen.append((q.clone(), k.clone(), v.clone()))
        return F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, scale=scale)[0]

    replace_attention(model, [layer], record)
    model(input_ids=window, use_cache=False)
    return seen[0]
