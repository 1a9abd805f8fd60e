"""The step that the family's Triton attention kernels share: take a tile of scores into a running softmax.

Exponentials are taken relative to the largest score so far, so that any scores can be taken in in any order in one pass:
Milakov and Gimelshein, arXiv 1805.02867.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def take_in(top, total, acc, scores, v):  # type: ignore[no-untyped-def]
    """What the rows of a tile hold once `scores` and their values are in.

    Args:
        top: each row's largest score so far, -inf before the first key; float32, (rows,).
        total: sum of exp(score - top), float32, (rows,).
        acc: sum of exp(score - top) times the value, float32, (rows, value dim).
        scores: scaled, -inf where a row does not see a key; float32, (rows, keys).
        v: (keys, value dim).

    Returns:
        top, total and acc.
    """
    new_top = tl.maximum(top, tl.max(scores, 1))
    shift = tl.where(new_top == float("-inf"), 0.0, new_top)  # no key so far
    p = tl.exp(scores - shift[:, None])
    keep = tl.exp(top - shift)
    total = total * keep + tl.sum(p, 1)
    acc = acc * keep[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
    return new_top, total, acc
