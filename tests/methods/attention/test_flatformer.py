"""FlatFormer's groups and layers against closed forms, brute force and torch's own attention."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.attention.flatformer import grouping
from methods.attention.flatformer.convolutions import ConvolutionEncoder, DenseEncoder
from methods.attention.flatformer.encoders import (
    FlatEncoder,
    GlobalEncoder,
    PlainEncoder,
    RandomEncoder,
    Shape,
    WindowEncoder,
)
from methods.attention.flatformer.layers import Layer, attend_groups, attend_slots
from methods.attention.flatformer.structure import attended, extents, missed, neighbour_recall, tokens

TURNS = list(itertools.product(("x", "y"), (False, True)))


def some_pillars(counts, cells=40, seed=0):
    """Distinct random pillars of several samples, in the order of their keys or shuffled within a sample."""
    draws = torch.Generator().manual_seed(seed)
    parts = []
    for sample, count in enumerate(counts):
        cell = torch.randperm(cells * cells, generator=draws)[:count]
        parts.append(torch.stack([torch.full_like(cell, sample), cell // cells, cell % cells], 1))
    return torch.cat(parts)


def features(n, width, seed=1, dtype=torch.float32):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def encoder(kind, shape, **parameters):
    torch.manual_seed(7)
    return kind(shape, **parameters).eval()


def flat(shape, group=12, window=5, **more):
    return encoder(FlatEncoder, shape, group=group, window=window, **more)


# --- orders ---------------------------------------------------------------------------------------


def test_the_order_of_a_full_grid_is_the_serpentine_of_the_paper():
    x, y = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    coords = torch.stack([torch.zeros(16, dtype=torch.int64), x.flatten(), y.flatten()], 1)
    order = torch.argsort(grouping.flat_key(coords, 2, 4, axis="x"))
    expected = ["00", "01", "11", "10", "20", "21", "31", "30", "32", "33", "23", "22", "12", "13", "03", "02"]
    assert [f"{int(a)}{int(b)}" for a, b in coords[order, 1:]] == expected
    transposed = torch.argsort(grouping.flat_key(coords, 2, 4, axis="y"))
    assert torch.equal(coords[transposed, 1:].flip(1), coords[order, 1:])
    # Neighbours throughout, but for the step from the first row of windows to the second, of two pillars.
    steps = coords[order, 1:].diff(dim=0).abs().sum(1)
    assert steps.tolist() == [1] * 7 + [2] + [1] * 7


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 14), st.integers(1, 40), st.sampled_from(TURNS), st.integers(0, 5))
def test_keys_are_distinct_and_rise_with_the_sample(window, cells, turn, seed):
    counts = (min(cells * cells, 30), min(cells * cells, 7))
    coords = some_pillars(counts, cells, seed)
    key = grouping.flat_key(coords, window, cells, axis=turn[0], shift=turn[1])
    assert key.dtype == torch.int64
    assert len(key.unique()) == len(key)
    assert key[: counts[0]].max() < key[counts[0] :].min()


def test_the_order_is_that_of_a_walk_written_as_loops():
    window, cells = 5, 23
    coords = some_pillars((150,), cells)
    place = {(int(x), int(y)): i for i, (_, x, y) in enumerate(coords)}
    for axis, shift in TURNS:
        moved = window // 2 if shift else 0
        walk = []
        for row in range(cells // window + 2):
            line = []
            for column in range(cells // window + 2):
                for a in range(window):
                    up = range(window) if a % 2 == 0 else range(window - 1, -1, -1)
                    line += [(column * window + a - moved, row * window + b - moved) for b in up]
            walk += line if row % 2 == 0 else line[::-1]
        walk = [p if axis == "x" else p[::-1] for p in walk]
        expected = [place[p] for p in walk if p in place]
        found = torch.argsort(grouping.flat_key(coords, window, cells, axis=axis, shift=shift))
        assert found.tolist() == expected


# --- groups ---------------------------------------------------------------------------------------


def test_slots_left_over_take_the_pillars_of_the_group_before():
    order = torch.tensor([2, 0, 1, 4, 3])
    slots = grouping.equal_groups(order, (5,), 3)
    assert slots.rows.tolist() == [[2, 0, 1], [4, 3, 1]]
    assert slots.mask is None
    assert slots.slot[order].tolist() == [0, 1, 2, 3, 4]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 50), st.integers(0, 9))
def test_gather_and_scatter_are_the_identity_and_no_sample_meets_another(counts, group, seed):
    n = sum(counts)
    if n == 0:
        with pytest.raises(ValueError, match="no pillar"):
            grouping.equal_groups(torch.arange(0), counts, group)
        return
    draws = torch.Generator().manual_seed(seed)
    sample = torch.repeat_interleave(torch.tensor(counts))
    order = torch.argsort(sample + torch.rand(n, generator=draws, dtype=torch.float64))
    slots = grouping.equal_groups(order, counts, group)
    size = min(group, max(counts))
    assert sorted(order.tolist()) == list(range(n))
    assert slots.rows.shape == (sum(-(-c // size) for c in counts), size)
    assert torch.equal(slots.rows.flatten()[slots.slot], torch.arange(n))
    real = torch.ones_like(slots.rows, dtype=torch.bool) if slots.mask is None else slots.mask
    for line, mask in zip(slots.rows, real, strict=True):
        assert len(sample[line[mask]].unique()) == 1
        assert len(line[mask].unique()) == int(mask.sum())
    if len(counts) == 1:
        assert slots.mask is None
        assert slots.rows.numel() / n < 1 + size / n


def test_groups_equal_those_written_as_loops():
    counts, group = (17, 5, 12), 6
    coords = some_pillars(counts)
    slots = grouping.flat_groups(coords, counts, window=5, group=group, cells=40)
    order = torch.argsort(grouping.flat_key(coords, 5, 40))
    lines, at = [], 0
    for count in counts:
        mine = order[at : at + count].tolist()
        for start in range(0, count, group):
            line = mine[start : start + group]
            previous = mine[start - group : start]
            lines.append(line + previous[len(line) :] if start else line + [None] * (group - len(line)))
        at += count
    real = slots.mask if slots.mask is not None else torch.ones_like(slots.rows, dtype=torch.bool)
    found = [
        [int(r) if m else None for r, m in zip(*pair, strict=True)]
        for pair in zip(slots.rows, real, strict=True)
    ]
    assert found == lines


def test_samples_of_another_size_than_said_are_refused():
    with pytest.raises(ValueError, match="7 pillars together"):
        grouping.equal_groups(torch.arange(5), (4, 3), 2)


@pytest.mark.parametrize(
    ("limits", "sizes"), [((), (16,)), ((3, 6), (3, 6, 16)), ((3,), (3, 5)), ((1, 9), (4, 12, 16))], ids=str
)
@pytest.mark.parametrize("shift", [False, True])
def test_windows_equal_those_written_as_loops(limits, sizes, shift):
    window, cells = 4, 21
    coords = some_pillars((90, 31), cells)
    windows = grouping.sst_windows(coords, window=window, cells=cells, shift=shift, limits=limits, sizes=sizes)
    expected = {}
    for i, (b, x, y) in enumerate(coords.tolist()):
        moved = window // 2 if shift else 0
        expected.setdefault((b, (x + moved) // window, (y + moved) // window), []).append(i)
    found = {
        tuple(row[mask].tolist()): len(mask)
        for bucket in windows.buckets
        for row, mask in zip(bucket.rows, bucket.mask, strict=True)
    }
    for members in expected.values():
        size = sizes[sum(len(members) >= limit for limit in limits)]
        assert found.pop(tuple(members[:size])) == size
    assert not found
    flat_rows = torch.cat(
        [torch.where(b.mask, b.rows, -1).flatten() for b in windows.buckets] + [torch.tensor([-1])]
    )
    kept = torch.cat([torch.tensor(m[: sizes[sum(len(m) >= t for t in limits)]]) for m in expected.values()])
    back = flat_rows[windows.slot]
    assert torch.equal(back[kept], kept)
    assert int((back == -1).sum()) == len(coords) - len(kept)


# --- layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axis", "shift"), TURNS)
def test_one_group_is_multi_head_attention_of_torch_over_all_pillars(axis, shift):
    n, width, heads = 33, 24, 4
    coords = some_pillars((n,))
    x = features(n, width, dtype=torch.float64)
    layer = Layer(width, heads).double()
    torch.nn.init.normal_(layer.into.bias)
    pe = features(n, width, seed=2, dtype=torch.float64)
    slots = grouping.flat_groups(coords, (n,), window=7, group=n, cells=40, axis=axis, shift=shift)
    found = layer(x, pe, lambda q, k, v: attend_slots(q, k, v, slots))
    reference = torch.nn.MultiheadAttention(width, heads, batch_first=True, dtype=torch.float64)
    reference.load_state_dict(
        {
            "in_proj_weight": layer.into.weight,
            "in_proj_bias": layer.into.bias,
            "out_proj.weight": layer.out.weight,
            "out_proj.bias": layer.out.bias,
        }
    )
    attention = reference((x + pe)[None], (x + pe)[None], x[None], need_weights=False)[0][0]
    norm = torch.nn.functional.layer_norm
    h = norm(x + attention, (width,), layer.norm1.weight, layer.norm1.bias)
    fed = (
        torch.nn.functional.gelu(h @ layer.up.weight.T + layer.up.bias) @ layer.down.weight.T + layer.down.bias
    )
    expected = norm(h + fed, (width,), layer.norm2.weight, layer.norm2.bias)
    assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("counts", [(50,), (48,), (7,), (31, 18), (31, 5), (30, 0, 24)], ids=str)
def test_moving_rows_once_a_layer_is_gathering_and_scattering_around_each_attention(counts):
    shape = Shape(6, 16, 2, 40)
    coords, x = some_pillars(counts), features(sum(counts), 16, dtype=torch.float64)
    network = flat(shape).double()
    slots = network.groups(coords, counts)
    expected, pe = x, network.position(coords)
    for i, layer in enumerate(network.layers):
        turn = slots[i % 4]
        expected = layer(expected, pe, lambda q, k, v, turn=turn: attend_slots(q, k, v, turn))
    assert torch.allclose(network(x, coords, counts), expected, atol=1e-12)
    network.kernel = attend_slots
    assert torch.allclose(network(x, coords, counts), expected, atol=1e-12)


def test_attention_in_groups_is_a_softmax_written_out():
    counts, width, heads = (29, 4), 12, 3
    coords = some_pillars(counts)
    slots = grouping.flat_groups(coords, counts, window=5, group=8, cells=40)
    q, k, v = (features(33, width, seed, torch.float64).view(33, heads, -1) for seed in (1, 2, 3))
    found = attend_slots(q, k, v, slots)
    table = attended(slots, torch.arange(33), 33)
    for i in range(33):
        keys = torch.nonzero(table[i])[:, 0]
        weight = torch.softmax(torch.einsum("hd,khd->hk", q[i], k[keys]) * (width // heads) ** -0.5, 1)
        assert torch.allclose(found[i], torch.einsum("hk,khd->hd", weight, v[keys]), atol=1e-12)


KINDS = {
    "flatformer": (FlatEncoder, {"group": 12, "window": 5}),
    "one axis, no shift": (FlatEncoder, {"group": 12, "window": 5, "axes": "x", "shift": False}),
    "sst": (WindowEncoder, {"window": 6, "limits": (3, 6), "sizes": (3, 6, 36)}),
    "sst, no room": (WindowEncoder, {"window": 6, "limits": (), "sizes": (2,)}),
    "all": (GlobalEncoder, {}),
    "none": (PlainEncoder, {}),
    "sparse": (ConvolutionEncoder, {}),
    "dense": (DenseEncoder, {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_two_samples_in_a_batch_give_what_two_passes_give(name):
    kind, parameters = KINDS[name]
    counts = (45, 9)
    network = encoder(kind, Shape(4, 16, 2, 40), **parameters).double()
    coords, x = some_pillars(counts), features(54, 16, dtype=torch.float64)
    together = network(x, coords, counts)
    first = network(x[:45], coords[:45], (45,))
    alone = coords[45:].clone()
    alone[:, 0] = 0
    second = network(x[45:], alone, (9,))
    assert torch.allclose(together, torch.cat([first, second]), atol=1e-12)


@pytest.mark.parametrize("name", [n for n in KINDS if n != "sst, no room"])
def test_outputs_do_not_depend_on_the_order_of_the_pillars(name):
    kind, parameters = KINDS[name]
    network = encoder(kind, Shape(4, 16, 2, 40), **parameters).double()
    coords, x = some_pillars((61,)), features(61, 16, dtype=torch.float64)
    shuffled = torch.randperm(61, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(
        network(x, coords, (61,))[shuffled], network(x[shuffled], coords[shuffled], (61,)), atol=1e-12
    )


def test_one_group_or_one_window_is_attention_to_all_pillars():
    shape, coords, x = Shape(4, 16, 2, 24), some_pillars((50,), 12), features(50, 16, dtype=torch.float64)
    expected = encoder(GlobalEncoder, shape).double()(x, coords, (50,))
    for network in (
        flat(shape, group=50),
        flat(shape, group=500),
        encoder(RandomEncoder, shape, group=50, seed=1),
        encoder(WindowEncoder, shape, window=24, limits=(), sizes=(64,)),
    ):
        if isinstance(network, WindowEncoder):
            moved = network.groups(coords, (50,))[:1]
            found = network.double().encode(x, network.position(coords), moved)
        else:
            found = network.double()(x, coords, (50,))
        assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_stays_near_float64(dtype):
    shape, counts = Shape(4, 32, 4, 40), (70, 33)
    coords, x = some_pillars(counts), features(103, 32, dtype=torch.float64)
    with torch.no_grad():
        exact = flat(shape).double()(x, coords, counts)
        found = flat(shape).to(dtype)(x.to(dtype), coords, counts).double()
    assert float((found - exact).norm() / exact.norm()) < {torch.float32: 1e-6, torch.bfloat16: 0.03}[dtype]


def test_eight_layers_have_the_parameters_of_the_paper():
    network = flat(Shape(8, 128, 8, 468), group=144, window=13)
    assert sum(p.numel() for p in network.parameters()) == 1_059_840


def test_gradients_are_those_of_finite_differences():
    shape, counts = Shape(2, 8, 2, 40), (11,)
    coords = some_pillars(counts)
    x = features(11, 8, dtype=torch.float64).requires_grad_()
    network = flat(shape, group=4).double()
    assert torch.autograd.gradcheck(lambda t: network(t, coords, counts), (x,))


def test_flops_of_a_block_are_those_of_the_formula():
    from torch.utils.flop_counter import FlopCounterMode

    n, group, width = 300, 60, 32
    network = flat(Shape(4, width, 4, 40), group=group)
    coords, x = some_pillars((n,)), features(n, width)
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        torch.no_grad(),
    ):
        network(x, coords, (n,))
    assert counter.get_total_flops() == 4 * (16 * n * width**2 + 4 * n * group * width)
    assert pytest.approx(7.91e9, rel=1e-3) == 4 * (16 * 5886 * 128**2 + 4 * 5886 * 144 * 128)


def test_widths_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiple of heads"):
        Layer(10, 4)
    with pytest.raises(ValueError, match="must be even"):
        ConvolutionEncoder(Shape(3, 8, 1, 10))


# --- convolutions ---------------------------------------------------------------------------------


def test_sparse_convolutions_are_dense_ones_at_occupied_pillars():
    counts = (70, 22)
    coords, x = some_pillars(counts, 14), features(92, 8, dtype=torch.float64)
    sparse, dense = (encoder(kind, Shape(4, 8, 1, 14)).double() for kind in (ConvolutionEncoder, DenseEncoder))
    assert torch.allclose(sparse(x, coords, counts), dense(x, coords, counts), atol=1e-12)
    # Written out: the value at a pillar is the sum over its occupied neighbours.
    table = {tuple(c): i for i, c in enumerate(coords.tolist())}
    weight = sparse.weights[0]
    found = sparse.convolve(x, weight, sparse.table(coords, 2))
    for i in (0, 33, 91):
        b, r, c = coords[i].tolist()
        near = ((3 * (u + 1) + v + 1, table.get((b, r + u, c + v))) for u in (-1, 0, 1) for v in (-1, 0, 1))
        expected = sum(x[j] @ weight[w] for w, j in near if j is not None)
        assert torch.allclose(found[i], expected, atol=1e-12)


# --- what is said of groups -----------------------------------------------------------------------


def test_nothing_is_missed_by_one_group_and_a_tenth_seen_by_ten():
    shape, n = Shape(4, 16, 2, 40), 120
    coords, x, rows = some_pillars((n,)), features(n, 16), torch.arange(n)
    whole = flat(shape, group=n)
    found = missed(whole, x, coords, (n,), rows)
    assert found["attention_mass"] == pytest.approx(1.0)
    assert found["attention_error"] == pytest.approx(0.0, abs=1e-12)
    assert neighbour_recall(whole.groups(coords, (n,)), coords, rows) == 1.0
    tenth = encoder(RandomEncoder, shape, group=n // 10, seed=0)
    assert missed(tenth, x, coords, (n,), rows)["attention_mass"] == pytest.approx(0.1, abs=0.04)


def test_counts_and_boxes_of_groups():
    coords = torch.tensor([[0, 1, 1], [0, 3, 1], [0, 3, 2], [0, 20, 30], [0, 21, 30]])
    windows = grouping.sst_windows(coords, window=8, cells=40, shift=False, limits=(3,), sizes=(2, 4))
    assert tokens([windows]) == 6
    assert sorted(extents(windows, coords).tolist()) == [[2.0, 1.0], [3.0, 2.0]]
    assert attended(windows, torch.tensor([4, 0]), 5).tolist() == [
        [False] * 3 + [True] * 2,
        [True] * 3 + [False] * 2,
    ]
    mask = torch.ones(2, 2, dtype=torch.bool)
    q = torch.randn(4, 1, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(attend_groups(q, q, q, mask, 2), attend_groups(q, q, q, None, 2), atol=1e-6)
