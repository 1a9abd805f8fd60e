"""The recursions of `recursions` in torch, for a CPU or a GPU and for float64 or float32."""

from __future__ import annotations

import torch
from torch import Tensor


def item_gradients(p: Tensor, u: Tensor, places: int) -> Tensor:
    """dU~/dp_i for a batch of questions.

    Args:
        p: [M, n], probability that the i-th item's source exists; 0 pads.
        u: [M, n], its utility, of the same dtype and device.
        places: K.

    Returns:
        [M, n], of the same dtype and device.
    """
    items, questions = p.shape
    displaced = p.new_zeros(items + 1, places + 1, questions)  # displaced[i][j] = W_{i+1}[j], i from 0
    for i in range(items - 1, -1, -1):
        later = displaced[i + 1]
        later[places] = u[i]
        torch.lerp(later[:-1], later[1:], p[i], out=displaced[i][:places])

    taken = p.new_zeros(places + 1, questions)  # taken[j + 1] = P_{i-1}[j]; row 0 is P[-1] = 0
    taken[1] = 1.0
    spare = torch.zeros_like(taken)
    product = torch.empty_like(taken[1:])
    gradient = torch.empty_like(p)
    for i in range(items):
        # u_i (P[0] + .. + P[K-1]) - sum_j P[j] W[j] = sum_j P[j] (u_i - W[j])
        torch.sub(u[i], displaced[i + 1][:places], out=product)
        product *= taken[1:]
        torch.sum(product, dim=0, out=gradient[i])
        torch.lerp(taken[1:], taken[:-1], p[i], out=spare[1:])
        taken, spare = spare, taken
    return gradient / places


def source_gradient(sources: Tensor, utilities: Tensor, v: Tensor, places: int, chunk: int) -> Tensor:
    """The gradient of the mean of U~ over questions, accumulated in float64.

    Args:
        sources: int32[M, N], items by questions; `len(v)` pads.
        utilities: uint8 or float[M, N].
        v: [S], existence probabilities, in the dtype of the recursion.
        places: K.
        chunk: questions per batch: the tables take (K + 3) M chunk numbers.

    Returns:
        float64[S].
    """
    extended = torch.cat([v, v.new_zeros(1)])
    total = torch.zeros(len(extended), dtype=torch.float64, device=v.device)
    for start in range(0, sources.shape[1], chunk):
        index = sources[:, start : start + chunk]
        flat = index.reshape(-1)
        p = extended.index_select(0, flat).view(index.shape)
        u = utilities[:, start : start + chunk].to(v.dtype)
        total.index_add_(0, flat, item_gradients(p, u, places).reshape(-1).double())
    return total[:-1] / sources.shape[1]
