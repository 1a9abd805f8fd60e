"""HyperAttention as its theorem has it: Algorithms 2 and 3 with separate samples for the row sums and the
product.

The practical form (`algorithm`) uses one uniform sample of keys for both. Here the row sums D~ come from the
block mask and a capped uniform sample (ApproxD), and (D~^-1 A) V from keys drawn with probabilities ||V_i||^2
/ ||V||_F^2. All sums are kept as logarithms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.attention.hyperattention.algorithm import HyperAttention
from methods.attention.hyperattention.steps import run_step
from methods.attention.partial import Partial


@dataclass(frozen=True)
class Mask:
    """sortLSH's mask M^H and the attention inside it.

    Attributes:
        query_block, key_block: block of each query and key, int64, shape (heads, n).
        lse: log <M_i, exp(K q_i)>, shape (heads, n).
    """

    query_block: Tensor
    key_block: Tensor
    lse: Tensor


def block_mask(blocks: HyperAttention, q: Tensor, k: Tensor, scale: float, generator: torch.Generator) -> Mask:
    """The mask of `blocks`, whose sample must be empty, on q and k of shape (heads, n, d)."""
    heads, n, _ = q.shape
    lse = torch.empty(heads * n, device=q.device)
    queries, keys = (x.reshape(heads * n, -1) for x in (q, k))
    out = torch.empty_like(queries)
    query_block, key_block = torch.empty(2, heads * n, dtype=torch.long, device=q.device)
    first = 0
    for step in blocks.plan(q, k, generator).steps:
        run_step(step, queries, keys, keys, out, lse, False, scale)
        number = first + torch.arange(step.rows.shape[1], device=q.device)[:, None].expand(step.rows.shape)
        for block_of, index in ((query_block, step.rows), (key_block, step.keys[0].index)):
            block_of.index_copy_(0, index.flatten(), number.flatten())
        first += step.rows.shape[1]
    return Mask(query_block.view(heads, n), key_block.view(heads, n), lse.view(heads, n))


def approx_d(
    q: Tensor,
    k: Tensor,
    mask: Mask,
    *,
    samples: int,
    kappa: float,
    cap: float,
    scale: float,
    generator: torch.Generator,
) -> Tensor:
    """Algorithm 2 (ApproxD): log D~, shape (heads, n), of q and k of shape (heads, n, d).

    Args:
        samples: m, queries for tau and keys for the row sums.
        kappa: assumed ratio between the largest and smallest row sum outside the mask.
        cap: constant times epsilon^2 in C_i.
    """
    heads, n, _ = q.shape

    def outside(queries: Tensor, query_block: Tensor, keys: Tensor, key_block: Tensor) -> Tensor:
        scores = torch.matmul(queries, keys.mT).float() * scale
        return scores.masked_fill_(query_block[:, :, None] == key_block[:, None, :], -torch.inf)

    def some() -> Tensor:
        return torch.randint(n, (heads, samples), generator=generator, device=q.device)

    # tau: the largest row sum outside the mask among m random queries.
    t = some()
    log_tau = outside(_take(q, t), mask.query_block.gather(1, t), k, mask.key_block).logsumexp(-1).amax(-1)
    floor = log_tau[:, None] - math.log(kappa)  # log tau / kappa, (heads, 1)
    # C_i = cap * m / (n log n) * (<M_i, exp(K q_i)> + tau / kappa)
    log_c = math.log(cap * samples / (n * math.log(n))) + torch.logaddexp(mask.lse, floor)
    # d_i = n/m sum_j (1 - M_ij) min(exp <q_i, k_j>, C_i) over m uniform keys j
    t = some()
    scores = outside(q, mask.query_block, _take(k, t), mask.key_block.gather(1, t))
    log_d = math.log(n / samples) + torch.minimum(scores, log_c[..., None]).logsumexp(-1)
    return torch.logaddexp(mask.lse, torch.maximum(log_d, floor))


def sampled_product(
    q: Tensor, k: Tensor, v: Tensor, log_d: Tensor, *, samples: int, scale: float, generator: torch.Generator
) -> Partial:
    """Algorithm 3: (D~^-1 A S^T) (S V) with keys drawn in proportion to ||V_i||^2; q, k, v are (heads, n, d).

    An unbiased estimate of D~^-1 A V for any D~.
    """
    weight = v.float().square().sum(-1)
    p = weight / weight.sum(-1, keepdim=True)
    t = torch.multinomial(p, samples, replacement=True, generator=generator)
    scores = torch.matmul(q, _take(k, t).mT).float() * scale
    a = torch.exp(scores - log_d[..., None] - torch.log(samples * p.gather(1, t))[:, None, :])
    return Partial(torch.matmul(a.to(v.dtype), _take(v, t)), log_d)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x, (heads, n, d), at index, (heads, m)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
