"""Other ways to the same gradient: all subsets, automatic differentiation, the boundary form, plain V.

They share no code with `recursions` and are slower; baselines and checks use them. Every function takes
p, u: float64[M, n] (items by questions) and K, and returns dU~/dp_i as float64[M, n].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def subset_gradients(p: Array, u: Array, places: int) -> Array:
    """By the definition: sum_S Pr[S] (U(S with i) - U(S without i)) over all 2^M subsets.

    Raises:
        ValueError: more than 20 items, where the subsets no longer fit into memory.
    """
    items = len(p)
    if items > 20:
        raise ValueError(f"{items} items have 2^{items} subsets; at most 20 items can be enumerated")
    gradient = np.zeros_like(p)
    for start in range(0, 2**items, 256):  # in blocks that stay in the cache
        subsets = np.arange(start, min(start + 256, 2**items))
        exists = (subsets[:, None] >> np.arange(items)) & 1 == 1  # [B, M]
        seen = exists & (np.cumsum(exists, axis=1) <= places)
        utility = np.einsum("bm,mn->bn", seen.astype(np.float64), u) / places
        factor = np.where(exists[:, :, None], p, 1.0 - p)  # [B, M, n]
        one = np.ones_like(factor[:, :1])
        before = np.cumprod(np.concatenate([one, factor[:, :-1]], axis=1), axis=1)
        after = np.cumprod(np.concatenate([one, factor[:, :0:-1]], axis=1), axis=1)[:, ::-1]
        sign = np.where(exists, 1.0, -1.0)[:, :, None]
        # before * after is the probability of the other items' part of the subset
        gradient += (sign * before * after * utility[:, None]).sum(axis=0)
    return gradient


def autograd_gradients(p: Array, u: Array, places: int) -> Array:
    """torch's derivative of U~ = (1/K) sum_i p_i u_i Pr[fewer than K of items 1..i-1 exist]."""
    import torch

    probability = torch.tensor(p, dtype=torch.float64, requires_grad=True)
    utility = torch.tensor(u, dtype=torch.float64)
    counts = [torch.ones_like(probability[0])] + [torch.zeros_like(probability[0])] * (places - 1)
    total = torch.zeros((), dtype=torch.float64)
    for p_i, u_i in zip(probability, utility, strict=True):
        total = total + (p_i * u_i * torch.stack(counts).sum(0)).sum()
        counts = [counts[j] * (1 - p_i) + (counts[j - 1] * p_i if j > 0 else 0.0) for j in range(places)]
    (gradient,) = torch.autograd.grad(total / places, probability)
    return gradient.numpy()


def value_gradients(p: Array, u: Array, places: int) -> Array:
    """With the tables of prefix counts P and of suffix values V, written as in the equations."""
    items, questions = p.shape
    value = np.zeros((items + 2, places + 1, questions))
    for i in range(items, 0, -1):
        for j in range(places):
            value[i, j] = p[i - 1] * (u[i - 1] + value[i + 1, j + 1]) + (1 - p[i - 1]) * value[i + 1, j]
    prefix = np.zeros((items + 1, places, questions))
    prefix[0, 0] = 1.0
    for i in range(1, items + 1):
        for j in range(places):
            arrived = prefix[i - 1, j - 1] * p[i - 1] if j > 0 else 0.0
            prefix[i, j] = prefix[i - 1, j] * (1 - p[i - 1]) + arrived
    gradient = np.zeros((items, questions))
    for i in range(1, items + 1):
        gain = u[i - 1] + value[i + 1, 1:] - value[i + 1, :-1]
        gradient[i - 1] = (prefix[i - 1] * gain).sum(axis=0) / places
    return gradient


def boundary_gradients(p: Array, u: Array, places: int) -> Array:
    """In two parts, as the paper's library has it, with E distinct utilities: O(M K (K + E)).

    G1: item i is simply added, because fewer than K of the others exist. G2: it pushes out the item at
    rank K, whose utility is e. Utilities are rounded to two decimals, so that E stays small.
    """
    u = np.round(u, 2)
    items, questions = p.shape
    levels = np.unique(u)
    prefix = np.zeros((items + 1, places, questions))  # IP[i][j]: j of items 1..i exist
    prefix[0, 0] = 1.0
    for i in range(items):
        prefix[i + 1] = prefix[i] * (1 - p[i])
        prefix[i + 1, 1:] += prefix[i, :-1] * p[i]
    suffix = np.zeros((items + 2, places, questions))  # RP[i][j]: j of items i..M exist
    suffix[items + 1, 0] = 1.0
    # B[i][k][e]: the k-th existing item from i on is there and has utility e; k = 0 stands for item i
    boundary = np.zeros((items + 2, places + 1, len(levels), questions))
    for i in range(items, 0, -1):
        suffix[i] = suffix[i + 1] * (1 - p[i - 1])
        suffix[i, 1:] += suffix[i + 1, :-1] * p[i - 1]
        boundary[i + 1, 0] = u[i - 1] == levels[:, None]
        boundary[i, 1:] = boundary[i + 1, 1:] * (1 - p[i - 1]) + boundary[i + 1, :-1] * p[i - 1]
    gradient = np.zeros((items, questions))
    for i in range(1, items + 1):
        fewer = np.cumsum(suffix[i + 1], axis=0)[::-1]  # fewer[j]: at most K - 1 - j of the later ones exist
        added = u[i - 1] * (prefix[i - 1] * fewer).sum(axis=0)
        pushed = np.einsum("jn,jen->en", prefix[i - 1], boundary[i + 1, :0:-1])  # B[K - j][i + 1][e]
        gradient[i - 1] = (added + ((u[i - 1] - levels[:, None]) * pushed).sum(axis=0)) / places
    return gradient
