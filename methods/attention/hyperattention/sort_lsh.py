"""sortLSH (Algorithm 1): sort vectors so that those at a small angle are likely to be close together.

A vector's code is the signs of its products with r random directions. Two vectors at angle t agree in each
bit with probability 1 - t/pi, so near vectors have codes at a small Hamming distance. Sorting by the place of
a code in the Gray sequence makes neighbouring buckets differ in one bit.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

MOST_BITS = 30

Gray = Literal["sequence", "official"]


def gray(code: Tensor) -> Tensor:
    """The `code`-th code of the Gray sequence 0, 1, 3, 2, 6, 7, 5, 4, ...; int32, any shape."""
    return code ^ (code >> 1)


def gray_place(code: Tensor) -> Tensor:
    """The place of `code` in the Gray sequence: the inverse of `gray`; int32, any shape."""
    place = code.clone()
    for shift in (1, 2, 4, 8, 16):
        place ^= place >> shift
    return place


def hash_codes(x: Tensor, directions: Tensor) -> Tensor:
    """Sign bits of ``x @ directions``, the first direction the lowest bit.

    Args:
        x: shape (..., d).
        directions: shape (d, r), r <= 30.

    Returns:
        int32, shape (...).
    """
    bits = (x @ directions.to(x.dtype) > 0).to(torch.int32)
    return (bits << torch.arange(bits.shape[-1], device=x.device, dtype=torch.int32)).sum(-1, dtype=torch.int32)


def buckets(x: Tensor, directions: Tensor, order: Gray = "sequence") -> Tensor:
    """Bucket numbers to sort by; int32, shape (...), of `x`, shape (..., d).

    Args:
        order: "sequence" numbers a code by its place in the Gray sequence. "official" does what the authors'
            code
            does: it takes the code as the place, and the code found there as the number, so that neighbouring
            buckets differ in up to 2 bits for r = 3 and 4, and up to 4 bits for r = 8.
    """
    code = hash_codes(x, directions)
    return gray_place(code) if order == "sequence" else gray(code)
