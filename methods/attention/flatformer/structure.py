"""What groups of pillars are like, and what attention within them misses of attention to all pillars."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.method import Metric
from methods.attention.flatformer.encoders import AttentionEncoder, Groups
from methods.attention.flatformer.grouping import Slots, Windows

NEIGHBOURS = 32
ROWS = 128

MISSED = (
    Metric(
        "attention_mass",
        doc="Mean share of a pillar's softmax mass over all pillars that lies on those it attends to.",
    ),
    Metric(
        "attention_error",
        better="neither",
        doc="Norm of the difference to attention over all pillars, relative to that; mean over layers.",
    ),
)

GROUPING = (
    Metric("padding_ratio", better="lower", doc="Tokens that are attended with, padding included, per pillar."),
    Metric(
        "neighbour_recall",
        doc="Mean share of a pillar's 32 nearest that it attends to in at least one of the layers.",
    ),
    Metric(
        "group_area",
        unit="pillars",
        better="lower",
        doc="Mean area of a group's bounding box.",
    ),
    *MISSED,
    Metric("mapping_time", unit="s", better="lower", doc="To find out who attends to whom; median of three."),
    Metric(
        "attention_time",
        unit="s",
        better="lower",
        doc="For projections, moves and attention: what mapping and MLP leave of three passes' median.",
    ),
    Metric("mlp_time", unit="s", better="lower", doc="For the second halves of all layers; median of three."),
)


def tokens(groups: Groups) -> int:
    """Slots over all of `groups`, padding and repetitions included."""
    return sum(rows.numel() for group in groups for rows, _ in _parts(group))


def _parts(group: Slots | Windows) -> list[tuple[Tensor, Tensor]]:
    """The pillars in the slots and which of these are real, for each size of groups."""
    if isinstance(group, Windows):
        return [(bucket.rows, bucket.mask) for bucket in group.buckets]
    real = torch.ones_like(group.rows, dtype=torch.bool) if group.mask is None else group.mask
    return [(group.rows, real)]


def attended(group: Slots | Windows, rows: Tensor, pillars: int) -> Tensor:
    """Whether each of the pillars `rows` attends to each of all `pillars`: bool, (rows, pillars)."""
    table = torch.zeros(len(rows), pillars, dtype=torch.bool, device=rows.device)
    used = 0
    for members, real in _parts(group):
        size = members.shape[1]
        slot = group.slot[rows] - used
        (here,) = torch.nonzero((slot >= 0) & (slot < members.numel()), as_tuple=True)
        of = slot[here] // size
        line, column = torch.nonzero(real[of], as_tuple=True)
        table[here[line], members[of[line], column]] = True
        used += members.numel()
    return table


def extents(group: Slots | Windows, coords: Tensor) -> Tensor:
    """Sides along x and y of each group's bounding box, in pillars: float64, (groups, 2)."""
    sides = []
    for members, real in _parts(group):
        place = coords[members][..., 1:]
        far = torch.iinfo(place.dtype).max
        low = torch.where(real[..., None], place, far).amin(1)
        high = torch.where(real[..., None], place, -1).amax(1)
        sides.append(high - low + 1)
    return torch.cat(sides).double()


def neighbour_recall(groups: Groups, coords: Tensor, rows: Tensor) -> float:
    """See the metric; neighbours are those of the pillars `rows` in their own sample."""
    place = coords[:, 1:].double()
    apart = torch.cdist(place[rows], place)
    apart[coords[rows, :1] != coords[:, 0]] = torch.inf
    apart[torch.arange(len(rows)), rows] = torch.inf
    distance, near = apart.topk(min(NEIGHBOURS, len(coords) - 1), largest=False)
    seen = torch.zeros_like(near, dtype=torch.bool)
    for group in groups:
        seen |= attended(group, rows, len(coords)).gather(1, near)
    real = distance.isfinite()
    return float(seen[real].double().mean()) if bool(real.any()) else 1.0


@torch.no_grad()
def missed(
    encoder: AttentionEncoder, x: Tensor, coords: Tensor, counts: Sequence[int], rows: Tensor
) -> dict[str, float]:
    """`MISSED` for the queries `rows`, with the encoder's own queries, keys and values."""
    groups = encoder.groups(coords, counts)
    same = coords[rows, :1] == coords[:, 0]
    seen = [attended(group, rows, len(coords)) for group in groups]
    masses: list[float] = []
    errors: list[float] = []

    def look(q: Tensor, k: Tensor, v: Tensor) -> None:
        mask = seen[len(masses) % len(seen)]
        q, k, v = (t.double().transpose(0, 1) for t in (q[rows], k, v))
        scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
        p = scores.masked_fill(~same, -torch.inf).softmax(-1)
        part = p * mask
        mass = part.sum(-1, keepdim=True)
        exact = p @ v
        # A pillar without room in its window attends to nothing.
        within = torch.where(mass > 0, part @ v / mass.clamp(min=1e-300), 0.0)
        masses.append(float(mass.mean()))
        errors.append(float((within - exact).norm() / exact.norm()))

    encoder.encode(x, encoder.position(coords), groups, look)
    return {"attention_mass": statistics.fmean(masses), "attention_error": statistics.fmean(errors)}


@torch.no_grad()
def describe(
    encoder: AttentionEncoder, x: Tensor, coords: Tensor, counts: Sequence[int], generator: torch.Generator
) -> dict[str, float]:
    """`GROUPING` of an encoder on x (N, d); the queries that are looked at are drawn from `generator`."""
    groups = encoder.groups(coords, counts)
    rows = torch.randperm(len(coords), generator=generator)[:ROWS].to(coords.device)
    mapping = _seconds(lambda: encoder.groups(coords, counts), x)
    mlp = _seconds(lambda: [layer.feed(x) for layer in encoder.layers], x)  # type: ignore[operator]
    whole = _seconds(lambda: encoder(x, coords, counts), x)
    areas = torch.cat([extents(group, coords).prod(1) for group in groups])
    return {
        "padding_ratio": tokens(groups) / (len(groups) * len(coords)),
        "neighbour_recall": neighbour_recall(groups, coords, rows),
        "group_area": float(areas.mean()),
        **missed(encoder, x, coords, counts, rows),
        "mapping_time": mapping,
        "attention_time": max(0.0, whole - mapping - mlp),
        "mlp_time": mlp,
    }


def _seconds(call: Callable[[], object], x: Tensor) -> float:
    """Median of three calls, the device's work included."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
