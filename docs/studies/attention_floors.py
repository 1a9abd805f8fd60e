"""How far the attention kernels are from the work that they cannot avoid; docs/attention.md shows what it printed.

    python docs/studies/attention_floors.py                    two threads of this CPU, under a minute
    python docs/studies/attention_floors.py --device cuda      a GPU, bfloat16

A row is a kernel on one size. Its floor is the larger of its FLOPs over the rate at which this machine multiplies
large matrices and its bytes over the rate at which it copies memory, both measured here first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from methods.attention.floor import Floor, attention_floor
from methods.attention.hyperattention.algorithm import HyperAttention
from methods.attention.inputs import clustered
from methods.attention.ntk_attention.algorithm import from_prefix, ntk_attention
from methods.attention.partial import attend

D = 64


def seconds(function: Callable[[], object], device: str, budget: float = 1.0) -> float:
    """Shortest time of a call, after one that is not counted: on a shared machine the least disturbed one."""

    def once() -> float:
        start = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    times = [once()]
    while sum(times) < budget or len(times) < 4:
        times.append(once())
    return min(times)


def peaks(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """FLOP/s of a large product of matrices, and B/s of a large copy, read and written counted."""
    n = 8192 if device == "cuda" else 2048
    a, b = torch.randn(2, n, n, device=device).to(dtype)
    source = torch.empty(1 << (30 if device == "cuda" else 27), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    flops = 2 * n**3 / seconds(lambda: a @ b, device)
    return flops, 2 * source.numel() / seconds(lambda: target.copy_(source), device)


def rows(device: str, dtype: torch.dtype, heads: int, lengths: list[int]) -> list[tuple[str, Floor, float]]:
    """Name, floor and time of each kernel."""
    size = torch.finfo(dtype).bits // 8
    found = []

    def add(name: str, floor: Floor, function: Callable[[], object]) -> None:
        found.append((name, floor, seconds(function, device)))

    for n in lengths:
        q, k = (x.to(device, dtype) for x in clustered(1000, heads, n, D))
        v = torch.randn(heads, n, D).to(device, dtype)
        for causal in (False, True):
            kind = f"n = {n}{', causal' if causal else ''}"
            pairs = heads * (n * (n + 1) // 2 if causal else n * n)
            whole = attention_floor(pairs, heads * n, heads * n, D, size)
            add(
                f"exact attention, {kind}",
                whole,
                lambda q=q, k=k, v=v, causal=causal: F.scaled_dot_product_attention(
                    q[None], k[None], v[None], is_causal=causal
                ),
            )
            hyper = HyperAttention(torch.randn(D, 8, device=device))
            draws = torch.Generator(device)

            def run(q=q, k=k, v=v, causal=causal, hyper=hyper, draws=draws) -> object:  # type: ignore[no-untyped-def]
                return hyper(q, k, v, causal=causal, generator=draws.manual_seed(1), scale=D**-0.5)

            run()
            add(f"HyperAttention, {kind}", attention_floor(hyper.visits, heads * n, heads * n, D, size), run)
    for length, m in ((128, 16384), (1024, 16384)):
        q, k, v = torch.randn(3, 1, heads, length, D).to(device, dtype)
        keys, values = torch.randn(2, heads, m, D).to(device, dtype)
        state = from_prefix(keys, values, phi="elu1", degree=2, scale=D**-0.5)
        both = [torch.cat(x, 2) for x in ((keys[None], k), (values[None], v))]
        name = f"L = {length}, m = {m}"
        add(
            f"attention with its prefix, {name}",
            attention_floor(heads * length * (length + m), heads * length, heads * (length + m), D, size),
            lambda q=q, both=both: attend(q, *both, scale=D**-0.5),
        )
        real = attention_floor(heads * length**2, heads * length, heads * length, D, size)
        ntk = Floor(real.flops + 2 * heads * length * D * (D + 1), real.bytes + 4 * heads * D * (D + 1))
        add(
            f"NTK-Attention, {name}",
            ntk,
            lambda q=q, k=k, v=v, state=state: ntk_attention(q, k, v, state, scale=D**-0.5),
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    device = parser.parse_args().device
    gpu = device == "cuda"
    dtype, heads = (torch.bfloat16, 32) if gpu else (torch.float32, 1)
    torch.set_grad_enabled(False)
    flops, bandwidth = peaks(device, dtype)
    print(f"{flops / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s\n")
    print(
        "| kernel | MFLOP | MB | floor, ms | measured, ms | times the floor |\n| --- | --: | --: | --: | --: | --: |"
    )
    for name, floor, took in rows(device, dtype, heads, [4096, 16384] if not gpu else [16384, 131072]):
        least = floor.seconds(flops, bandwidth)
        print(
            f"| {name} | {floor.flops / 1e6:,.0f} | {floor.bytes / 1e6:.2f} | {least * 1e3:.2f} "
            f"| {took * 1e3:.2f} | {took / least:.1f} |"
        )


if __name__ == "__main__":
    main()
