"""How far the attention kernels are from the work that they cannot avoid; docs/attention.md shows what it printed.

    python docs/studies/attention_floors.py                    two threads of this CPU, about a minute and a half
    python docs/studies/attention_floors.py --only flatformer  one method
    python docs/studies/attention_floors.py --device cuda      a GPU, bfloat16, longer sequences

A row is a kernel on one size, with the search for what it attends to where it has one. Its floor is the larger of its
FLOPs over the rate at which this machine multiplies large matrices and its bytes over the rate at which it copies
memory, both the best of what is measured here before each method.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.attention.anchor_attention.algorithm import AnchorAttention
from methods.attention.block_sparse import attend_causal
from methods.attention.flatformer.convolutions import ConvolutionEncoder
from methods.attention.flatformer.encoders import Encoder, FlatEncoder, Shape, WindowEncoder
from methods.attention.flatformer.pillars import batched, pillarise
from methods.attention.flatformer.tasks import grid_of, sweeps
from methods.attention.flexprefill.algorithm import FlexPrefill
from methods.attention.floor import Floor, attention_floor
from methods.attention.heads import structured
from methods.attention.hyperattention.algorithm import HyperAttention
from methods.attention.inputs import clustered, shared_clusters
from methods.attention.ntk_attention.algorithm import from_prefix, ntk_attention
from methods.attention.partial import attend
from methods.attention.prefill import Prefilled, Selection
from methods.attention.routing_transformer import routing
from methods.attention.routing_transformer.attend import routed_attention
from methods.attention.tensor_attention.exact import tensor_attention
from methods.attention.tensor_attention.polynomial import Monomials, polynomial_attention

D = 64
SCALE = D**-0.5


class Row(NamedTuple):
    """A kernel on one size: its name, its least work, and a call that does it once."""

    name: str
    floor: Floor
    call: Callable[[], object]


@dataclass(frozen=True)
class Machine:
    """What is measured on, and how large."""

    device: str
    dtype: torch.dtype
    heads: int
    lengths: tuple[int, ...]
    budget: float = field(default=0.6)
    """Seconds of calls for a row, at least."""

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return torch.finfo(self.dtype).bits // 8

    def put(self, *tensors: Tensor) -> list[Tensor]:
        """The tensors on the device, in the dtype."""
        return [x.to(self.device, self.dtype) for x in tensors]

    def seconds(self, call: Callable[[], object]) -> float:
        """Shortest time of a call, after one that is not counted: on a shared machine the least disturbed one."""

        def once() -> float:
            start = time.perf_counter()
            call()
            if self.device == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - start

        once()
        times = [once()]
        while sum(times) < self.budget or len(times) < 4:
            times.append(once())
        return min(times)

    def peaks(self) -> tuple[float, float]:
        """FLOP/s of a large product of matrices, and B/s of a large copy, read and written counted."""
        n = 8192 if self.device == "cuda" else 2048
        (a,), (b,) = self.put(torch.randn(n, n)), self.put(torch.randn(n, n))
        source = torch.empty(1 << (30 if self.device == "cuda" else 27), dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        copied = 2 * source.numel() / self.seconds(lambda: target.copy_(source))
        return 2 * n**3 / self.seconds(lambda: a @ b), copied


def hyperattention(m: Machine) -> Iterator[Row]:
    """Exact attention and HyperAttention on clustered inputs, without and with a causal mask."""
    for n in m.lengths:
        q, k = m.put(*clustered(1000, m.heads, n, D))
        (v,) = m.put(torch.randn(m.heads, n, D))
        for causal in (False, True):
            kind = f"n = {n:,}{', causal' if causal else ''}"
            pairs = m.heads * (n * (n + 1) // 2 if causal else n * n)

            def exact(q=q, k=k, v=v, causal=causal) -> object:  # type: ignore[no-untyped-def]
                return F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=causal)

            yield Row(
                f"exact attention, {kind}", attention_floor(pairs, m.heads * n, m.heads * n, D, m.size), exact
            )
            hyper = HyperAttention(torch.randn(D, 8, device=m.device))
            draws = torch.Generator(m.device)

            def run(q=q, k=k, v=v, causal=causal, hyper=hyper, draws=draws) -> object:  # type: ignore[no-untyped-def]
                return hyper(q, k, v, causal=causal, generator=draws.manual_seed(1), scale=SCALE)

            run()
            floor = attention_floor(hyper.visits, m.heads * n, m.heads * n, D, m.size)
            yield Row(f"HyperAttention, {kind}", floor, run)


def ntk(m: Machine) -> Iterator[Row]:
    """Attention behind a long prefix, and NTK-Attention in its place."""
    prefix = 16384
    for length in (128, 1024):
        q, k, v = m.put(*torch.randn(3, 1, m.heads, length, D))
        keys, values = m.put(*torch.randn(2, m.heads, prefix, D))
        state = from_prefix(keys, values, phi="elu1", degree=2, scale=SCALE)
        both = [torch.cat(x, 2) for x in ((keys[None], k), (values[None], v))]
        name = f"L = {length:,}, m = {prefix:,}"
        rows = m.heads * length
        whole = attention_floor(rows * (length + prefix), rows, m.heads * (length + prefix), D, m.size)

        def exact(q=q, both=both) -> object:  # type: ignore[no-untyped-def]
            return attend(q, *both, scale=SCALE)

        def run(q=q, k=k, v=v, state=state) -> object:  # type: ignore[no-untyped-def]
            return ntk_attention(q, k, v, state, scale=SCALE)

        yield Row(f"attention with its prefix, {name}", whole, exact)
        real = attention_floor(rows * length, rows, rows, D, m.size)
        floor = Floor(real.flops + 2 * rows * D * (D + 1), real.bytes + 4 * m.heads * D * (D + 1))
        yield Row(f"NTK-Attention, {name}", floor, run)


def _selected(m: Machine, name: str, kind: str, n: int, selection: Selection) -> Row:
    """A selection on a head of one kind: its search and the pairs that it attends to."""
    q, k, v = m.put(*structured([kind] * m.heads, 1000, 1, n, D))

    def run() -> Prefilled:
        return selection(q, k, v, scale=SCALE)

    found = run()
    floor = attention_floor(float(found.pairs.sum()), m.heads * n, m.heads * n, D, m.size)
    return Row(f"{name}, {kind} head, n = {n:,}", Floor(floor.flops + found.search, floor.bytes), run)


def prefill(m: Machine) -> Iterator[Row]:
    """Exact causal attention, FlexPrefill and AnchorAttention on heads of known structure."""
    n = m.lengths[-1]
    q, k, v = m.put(*structured(["topic"] * m.heads, 1000, 1, n, D))
    whole = attention_floor(m.heads * n * (n + 1) / 2, m.heads * n, m.heads * n, D, m.size)
    yield Row(f"exact causal attention, n = {n:,}", whole, lambda: attend_causal(q, k, v, scale=SCALE))
    flex = FlexPrefill(torch.tensor(0.95, dtype=torch.float64), min_budget=512)
    for kind in ("topic", "sharp"):
        yield _selected(m, "FlexPrefill, gamma 0.95", kind, n, flex)
    for step, theta in ((4, 6.0), (16, 12.0)):
        anchor = AnchorAttention(torch.tensor(theta, dtype=torch.float64), step=step)
        yield _selected(m, f"AnchorAttention, theta {theta:g}, {step} blocks a group", "sharp", n, anchor)


def routing_transformer(m: Machine) -> Iterator[Row]:
    """A causal routing head with as many clusters as the square root of the length."""
    for n in m.lengths:
        c = w = round(n**0.5)
        x, v = m.put(shared_clusters(1000, m.heads, n, D), torch.randn(m.heads, n, D))
        mu = routing.random_centroids(m.heads, c, D, torch.Generator().manual_seed(0)).to(m.device)

        def run(x=x, v=v, mu=mu, w=w) -> object:  # type: ignore[no-untyped-def]
            members = routing.balanced_members(routing.similarities(routing.normalise(x), mu), w)
            return routed_attention(x, x, v, members, scale=SCALE, causal=True)

        inside = attention_floor(m.heads * c * w * (w + 1) / 2, m.heads * n, m.heads * n, D, m.size)
        floor = Floor(inside.flops + 2 * m.heads * n * c * D, inside.bytes)
        yield Row(f"routing head, causal, n = {n:,}, {c} clusters", floor, run)


def tensor(m: Machine) -> Iterator[Row]:
    """Tensor attention of order 3, exact and by the polynomial method."""
    order, d, degree = 3, 8, 2
    exact, long = (1024, 1 << 18) if m.device == "cuda" else (256, 1 << 16)
    for n in (exact, long):
        x = 0.8 * (2 * torch.rand(5, 1, n, d, generator=torch.Generator().manual_seed(0)) - 1)
        q, *rest = x.to(m.device)
        keys, values = tuple(rest[:2]), tuple(rest[2:])
        moved = 2 * order * n * d * 4

        def whole(q=q, keys=keys, values=values) -> object:  # type: ignore[no-untyped-def]
            return tensor_attention(q, keys, values, scale=1 / d)

        def fast(q=q, keys=keys, values=values) -> object:  # type: ignore[no-untyped-def]
            return polynomial_attention(q, keys, values, degree=degree, scale=1 / d)

        if n == exact:
            yield Row(f"exact tensor attention, n = {n:,}, d = {d}", Floor(4 * n**order * d, moved), whole)
        features = Monomials(d, degree, 1 / d).count
        flops = 2 * order * n * features * (d + 1) + order * n * features * degree
        yield Row(f"polynomial of degree {degree}, n = {n:,}, d = {d}", Floor(flops, moved), fast)


def flatformer(m: Machine) -> Iterator[Row]:
    """Blocks of four layers over the pillars of a made-up sweep: FlatFormer, SST, and convolutions."""
    count, width, heads, layers, group = 6000, 128, 8, 4, 144
    grid = grid_of("generated", 74.88)
    points, sample = batched([s.points for s in sweeps("generated", 1000, 1, count, grid)])
    coords = pillarise(points, sample, 1, grid).coords.to(m.device)
    n = len(coords)
    (x,) = m.put(torch.randn(n, width))
    shape = Shape(layers, width, heads, grid.cells)
    # Projections and MLP; x and places are read, outputs written, and weights read, once a layer.
    dense, moved = 16 * n * width**2, m.size * (3 * n * width + 8 * width**2)

    def block(name: str, encoder: Encoder, floor: Floor) -> Row:
        network = encoder.to(m.device, m.dtype).eval()
        return Row(f"{name}, {n:,} pillars", floor, lambda: network(x, coords, (n,)))

    flat = FlatEncoder(shape, group=group, window=13)
    flops = layers * (dense + 4 * n * group * width)
    yield block("FlatFormer, 4 layers", flat, Floor(flops, layers * moved))
    sst = WindowEncoder(shape, window=12, limits=(30, 60, 100), sizes=(30, 60, 100, 144))
    inside = [
        sum(float(bucket.mask.sum(1).square().sum()) for bucket in windows.buckets)
        for windows in sst.groups(coords, (n,))
    ]
    flops = layers * (dense + 4 * width * sum(inside) / len(inside))
    yield block("SST's windows, 4 layers", sst, Floor(flops, layers * moved))
    convolution = ConvolutionEncoder(shape)
    pairs = sum(len(at) for at, _ in convolution.table(coords, 1))
    least = m.size * (2 * n * width + 9 * width**2)
    yield block(
        "submanifold convolution, 4 layers", convolution, Floor(layers * 2 * pairs * width**2, layers * least)
    )


METHODS = {
    "hyperattention": hyperattention,
    "ntk-attention": ntk,
    "prefill": prefill,
    "routing-transformer": routing_transformer,
    "tensor-attention": tensor,
    "flatformer": flatformer,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", choices=list(METHODS), action="append", help="these alone; may be repeated")
    parser.add_argument("--budget", type=float, default=0.6, help="seconds of calls for a row, at least")
    given = parser.parse_args()
    if given.device == "cuda":
        machine = Machine("cuda", torch.bfloat16, 32, (16384, 131072), given.budget)
    else:
        machine = Machine("cpu", torch.float32, 1, (4096, 16384), given.budget)
    torch.set_grad_enabled(False)
    # The rates are the best of several looks: one slow moment must not make the floors high.
    flops = bandwidth = 0.0
    measured: list[tuple[Row, float]] = []
    for name in given.only or METHODS:
        flops, bandwidth = (max(x) for x in zip((flops, bandwidth), machine.peaks(), strict=True))
        measured += [(row, machine.seconds(row.call)) for row in METHODS[name](machine)]
    print(f"{flops / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s\n")
    print("| kernel | MFLOP | MB | floor, ms | measured, ms | times the floor |")
    print("| --- | --: | --: | --: | --: | --: |")
    for row, took in measured:
        least = row.floor.seconds(flops, bandwidth)
        print(
            f"| {row.name} | {row.floor.flops / 1e6:,.0f} | {row.floor.bytes / 1e6:.2f} | {least * 1e3:.2f} "
            f"| {took * 1e3:.2f} | {took / least:.1f} |"
        )


if __name__ == "__main__":
    main()
