"""The choice among torch's exact kernels, and the work that a kernel cannot do without."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend

from methods.attention import backends
from methods.attention.floor import Floor, attention_floor


def test_the_fastest_of_those_that_take_the_inputs(monkeypatch):
    q, k, v, up = torch.randn(4, 2, 12, 8)
    both = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH)
    took = {SDPBackend.FLASH_ATTENTION: 3.0, SDPBackend.MATH: 2.0}

    def timed(backend: SDPBackend, *_: object) -> float:
        if backend not in took:
            raise RuntimeError("No available kernel. Aborting execution.")
        return took[backend]

    monkeypatch.setattr(backends, "_time", timed)
    assert backends.fastest(q, k, v, causal=True, scale=1.0, candidates=both) == SDPBackend.MATH
    assert backends.fastest(q, k, v, causal=True, scale=1.0, candidates=both[1:2]) is None
    monkeypatch.undo()
    found = backends.fastest(q, k, v, causal=True, scale=1.0, upstream=up, candidates=both[:1])
    assert found == SDPBackend.FLASH_ATTENTION


def test_other_failures_are_not_hidden():
    q, k, v = torch.randn(3, 2, 12, 8)
    with pytest.raises(RuntimeError):
        backends.fastest(q, k[..., :5], v, causal=False, scale=1.0, candidates=(SDPBackend.MATH,))


def test_floor_of_full_attention():
    floor = attention_floor(3 * 10 * 10, 3 * 10, 3 * 10, 8, 4)
    assert floor == Floor(4 * 300 * 8, 4 * 30 * 8 * 4)
    assert floor.seconds(1e3, 1e9) == 9.6
    assert floor.seconds(1e12, 1e3) == pytest.approx(3.84)
    assert set(floor.metrics()) == {"floor_flops", "floor_bytes"}
