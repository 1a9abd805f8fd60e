"""Which pillars attend to each other: flattened windows in groups of equal size, and what they are compared with.

Coordinates are those of `pillars.Pillars`: sample, x and y, int64, (N, 3), sample after sample with `counts` pillars
each. Nothing here loops over pillars, groups or windows, and with one sample nothing waits for the device but SST's
windows, whose number depends on the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Axis = Literal["x", "y"]


@dataclass(frozen=True)
class Slots:
    """Groups of one size, sample after sample.

    Attributes:
        rows: the pillar in each slot, int64, (groups, G). The slots that are left over in a sample's last group hold
            pillars of the group before it, which so are in two groups.
        slot: the slot, counted over all groups, that a pillar's output is taken from: int64, (N,).
        mask: True where a slot holds a pillar, (groups, G), where a sample has fewer than G pillars; else None.
    """

    rows: Tensor
    slot: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class Bucket:
    """Windows that are padded to the same number of tokens.

    Attributes:
        rows: the pillar in each slot, 0 in an empty one, int64, (windows, M).
        mask: True where a slot holds a pillar, (windows, M).
    """

    rows: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Windows:
    """Windows by how full they are.

    Attributes:
        buckets: those that have windows.
        slot: where a pillar is in the slots of all buckets one after another, int64, (N,); the number of all slots
            where its window had no room for it.
    """

    buckets: tuple[Bucket, ...]
    slot: Tensor


def flat_key(coords: Tensor, window: int, cells: int, *, axis: Axis = "x", shift: bool = False) -> Tensor:
    """The place of each pillar in the flattened windows: int64, (N,); larger in a later sample.

    Windows are swept row by row and a window column by column, each in the opposite direction to the one before it, so
    that neighbours in the order are neighbours on the ground (section 3.2 of the paper). `axis` "y" exchanges x and y;
    `shift` moves the windows by half their side.

    Args:
        coords: (N, 3).
        window: w, pillars along a window's side.
        cells: S, pillars along the grid's side.
    """
    sample, x, y = coords.unbind(1)
    if axis == "y":
        x, y = y, x
    if shift:
        x, y = x + window // 2, y + window // 2
    # Twice as many digits as needed: signs flip, and digits must not overlap.
    n1, n2 = 2 * (math.ceil(cells / window) + 1), 2 * window
    row, a = y // window, x % window
    inside = n2 * a + _sign(a) * (y % window)
    key = (n1 * row + _sign(row) * (x // window)) * n2 * n2 + _sign(row) * inside
    return sample * (n1 * n1 * n2 * n2) + key


def _sign(t: Tensor) -> Tensor:
    """+1 for even, -1 for odd."""
    return 1 - 2 * (t % 2)


def equal_groups(order: Tensor, counts: Sequence[int], group: int) -> Slots:
    """Cut an order of the pillars, sample after sample, into groups of `group` pillars.

    With n pillars in a sample it has ceil(n / G) groups. Slot j of the last, where it is not full, takes the pillar of
    slot j of the group before; a sample of fewer than G pillars is one group, padded with masked slots when another
    sample of the batch is larger.
    """
    n, device = len(order), order.device
    if sum(counts) != n:
        raise ValueError(f"the samples have {sum(counts)} pillars together, the order has {n}")
    if n == 0:
        raise ValueError("there is no pillar to put into a group")
    size = min(group, max(counts))
    groups = [-(-c // size) for c in counts]
    firsts, begins = _running(counts), _running(groups)
    if len(counts) == 1:
        place = torch.arange(groups[0] * size, device=device)
        wrapped = torch.where(place < n, place, place - size)
        slot = torch.empty_like(order).scatter_(0, order, torch.arange(n, device=device))
        return Slots(order[wrapped].view(-1, size), slot)
    each = torch.tensor(groups, device=device)
    count, first, begin = (torch.tensor(v, device=device) for v in (counts, firsts, begins))
    sample = torch.repeat_interleave(each * size, output_size=sum(groups) * size)
    place = torch.arange(len(sample), device=device) - begin[sample] * size
    wrapped = torch.where(place < count[sample], place, place - size)
    rows = order[(first[sample] + wrapped.clamp(min=0))]
    mask = (wrapped >= 0).view(-1, size) if min(counts) < size else None
    sample = torch.repeat_interleave(count, output_size=n)
    at = torch.arange(n, device=device) - first[sample] + begin[sample] * size
    return Slots(rows.view(-1, size), torch.empty_like(order).scatter_(0, order, at), mask)


def _running(lengths: Sequence[int]) -> list[int]:
    """Where each piece begins."""
    starts = [0]
    for length in lengths[:-1]:
        starts.append(starts[-1] + length)
    return starts


def flat_groups(
    coords: Tensor,
    counts: Sequence[int],
    *,
    window: int,
    group: int,
    cells: int,
    axis: Axis = "x",
    shift: bool = False,
) -> Slots:
    """FlatFormer's groups along one axis."""
    key = flat_key(coords, window, cells, axis=axis, shift=shift)
    return equal_groups(torch.argsort(key), counts, group)


def random_groups(coords: Tensor, counts: Sequence[int], group: int, generator: torch.Generator) -> Slots:
    """Groups as large as FlatFormer's of pillars that have nothing to do with each other.

    `generator` is on the CPU, so that a seed gives the same groups on every machine.
    """
    draws = torch.rand(len(coords), generator=generator, dtype=torch.float64).to(coords.device)
    return equal_groups(torch.argsort(coords[:, 0] + draws), counts, group)


def sst_windows(
    coords: Tensor, *, window: int, cells: int, shift: bool, limits: Sequence[int], sizes: Sequence[int]
) -> Windows:
    """SST's windows, in buckets by occupancy.

    A window with at least `limits[i - 1]` and fewer than `limits[i]` pillars is padded to `sizes[i]` tokens; the last
    of `sizes` is for those with more. Where that is too small, the last pillars of a window have no slot.

    Args:
        window: pillars along a window's side; `shift` moves windows by half of it.
        limits: one fewer than `sizes`, rising.
    """
    sample, x, y = coords.unbind(1)
    if shift:
        x, y = x + window // 2, y + window // 2
    across = cells // window + 2
    key, order = torch.sort((sample * across + x // window) * across + y // window, stable=True)
    _, of, count = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
    start = count.cumsum(0) - count
    rank = torch.arange(len(key), device=key.device) - start[of]
    level = torch.bucketize(count, torch.tensor(list(limits), device=count.device), right=True)
    slot = torch.empty_like(order)
    place = torch.empty_like(order)
    buckets, used = [], 0
    for i, size in enumerate(sizes):
        (member,) = torch.nonzero(level == i, as_tuple=True)
        if not len(member):
            continue
        column = torch.arange(size, device=key.device)
        mask = column < count[member, None]
        rows = order[(start[member, None] + column).clamp(max=len(key) - 1)]
        buckets.append(Bucket(torch.where(mask, rows, 0), mask))
        index = torch.full_like(count, -1)
        index[member] = torch.arange(len(member), device=key.device)
        here = level[of] == i
        place = torch.where(here, torch.where(rank < size, used + index[of] * size + rank, -1), place)
        used += rows.numel()
    slot[order] = torch.where(place < 0, used, place)
    return Windows(tuple(buckets), slot)
