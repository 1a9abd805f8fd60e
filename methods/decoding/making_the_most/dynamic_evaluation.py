"""Dynamic evaluation: weights instead of states move along the gradient of the text just seen (a baseline of part C)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.attention
import torch.nn.functional as F
from torch import Tensor

from methods.decoding.making_the_most.states import CausalModel, Decoder, States, newest


def dynamic_evaluation(model: CausalModel, tokens: Tensor, *, segment: int, cache: int, eta: float) -> Tensor:
    """Nats of rows of text; every row has weights of its own, which begin at the model's.

    One backward pass a segment, as many as hidden-state optimisation has. Cached states are those that the weights of
    their time gave.

    Args:
        model: not changed.
        tokens: shape (rows, n + 1).
        segment: tokens read and scored at a time.
        cache: slots that are kept.
        eta: step size of plain gradient descent on the mean loss of a segment.
    """
    if isinstance(model, Decoder):
        # Rows side by side: our own model can be mapped over a batch of weights.
        weights = {
            key: value.detach().expand(len(tokens), *value.shape) for key, value in model.named_parameters()
        }
        step = torch.func.vmap(lambda w, x, p: _step(model, w, x, p, cache, eta), in_dims=(0, 0, 0))
        # Only attention written out in matrix products can be mapped.
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return _walk(step, weights, tokens[:, None], segment)[:, 0]
    rows = []
    for row in tokens:
        own = {key: value.detach() for key, value in model.named_parameters()}
        rows.append(_walk(lambda w, x, p: _step(model, w, x, p, cache, eta), own, row[None], segment))
    return torch.cat(rows)


def _walk(step: Any, weights: dict[str, Tensor], tokens: Tensor, segment: int) -> Tensor:
    past: States = []
    nats = []
    for start in range(0, tokens.shape[-1] - 1, segment):
        weights, past, each = step(weights, tokens[..., start : start + segment + 1], past)
        nats.append(each)
    return torch.cat(nats, -1)


def _step(
    model: CausalModel, weights: dict[str, Tensor], piece: Tensor, past: States, cache: int, eta: float
) -> tuple[dict[str, Tensor], States, Tensor]:
    """Score a segment (1, s + 1), then move the weights."""

    def loss(w: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, States]]:
        out = torch.func.functional_call(
            _Embedding(model), {f"model.{k}": v for k, v in w.items()}, (piece[:, :-1], past)
        )
        each = F.cross_entropy(out.logits.flatten(0, 1), piece[:, 1:].flatten(), reduction="none")
        return each.mean(), (each.view(1, -1), out.states)

    gradients, (each, states) = torch.func.grad(loss, has_aux=True)(weights)
    moved = {key: value - eta * gradients[key] for key, value in weights.items()}
    return moved, newest(states, cache), each


class _Embedding(torch.nn.Module):
    """Tokens to a pass, so that the embedding's weights are among those that move."""

    def __init__(self, model: CausalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, past: States) -> Any:
        return self.model(self.model.embed(tokens), past or None)
