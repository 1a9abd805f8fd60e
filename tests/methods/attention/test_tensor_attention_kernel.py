"""The Triton kernels of the polynomial method, on a GPU or else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytest.importorskip("triton")

from methods.attention.tensor_attention import kernel, polynomial  # noqa: E402


@pytest.mark.parametrize(
    ("heads", "key_heads", "n", "d", "order", "degree", "dtype"),
    [
        (2, 1, 70, 4, 3, 4, torch.float32),
        (1, 1, 64, 6, 3, 2, torch.float32),
        (2, 2, 37, 8, 2, 2, torch.float32),
        (2, 2, 37, 8, 2, 2, torch.bfloat16),
        (1, 1, 20, 3, 4, 2, torch.float32),
        (1, 1, 9, 3, 3, 0, torch.float32),
    ],
)
def test_the_kernels_give_the_sums_in_double_precision(heads, key_heads, n, d, order, degree, dtype):
    generator = torch.Generator().manual_seed(0)

    def draw(heads):
        return (torch.rand(heads, n, d, generator=generator) * 2 - 1).to(DEVICE, dtype)

    q, keys = draw(heads), [draw(key_heads) for _ in range(order - 1)]
    values = [draw(key_heads) for _ in range(order - 1)]
    found = kernel.polynomial_sums(q, keys, values, degree=degree, scale=0.5)
    expected = polynomial.polynomial_sums(
        q.double(), [k.double() for k in keys], [v.double() for v in values], degree=degree, scale=0.5
    )
    size = expected.denominator.max()
    assert torch.allclose(found.denominator.double() / size, expected.denominator / size, atol=1e-6)
    assert torch.allclose(found.numerator.double() / size, expected.numerator / size, atol=1e-6)
    out = polynomial.polynomial_attention(q, keys, values, degree=degree, scale=0.5, kernel="triton").out
    assert out.dtype == dtype
