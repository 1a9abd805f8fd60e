"""Monte-Carlo tensor attention: combinations of keys drawn uniformly, and softmax over those alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from methods.attention.partial import Partial
from methods.attention.tensor_attention.exact import spread, tensor_attention


def sampled_attention(
    q: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    samples: int,
    scale: float,
    generator: torch.Generator,
) -> Partial:
    """Softmax over R combinations (j, k, ...), drawn with replacement and shared by the queries of a head.

    exp(lse) is an unbiased estimate of D; the output, a quotient of two unbiased estimates, has a bias of the order
    1 / R. Shapes as in `exact.tensor_attention`; differentiable.

    Args:
        samples: R.
        generator: on the device of `q`.
    """
    keys, values = spread(q, keys, values)
    places = [
        torch.randint(k.shape[1], (len(q), samples, 1), generator=generator, device=q.device) for k in keys
    ]
    key, value = (
        math.prod((x.take_along_dim(at, 1) for x, at in zip(sets, places, strict=True)), start=q.new_ones(()))
        for sets in (keys, values)
    )
    out, lse = tensor_attention(q, [key], [value], scale=scale)
    return Partial(out, lse + sum(math.log(k.shape[1]) for k in keys) - math.log(samples))
