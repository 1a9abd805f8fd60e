"""HyperAttention: hashing, blocks and samples, recursion, gradients, cost."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness.testing import run_once
from methods.attention.hyperattention.algorithm import HyperAttention
from methods.attention.hyperattention.method import HyperAttention as Method
from methods.attention.hyperattention.method import HyperAttentionTheory
from methods.attention.hyperattention.sort_lsh import buckets, gray, gray_place, hash_codes
from methods.attention.inputs import clustered
from methods.attention.partial import attend
from methods.attention.tasks import SelfAttention, SelfAttentionGradient


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=stream(seed))


def qkv(heads: int, n: int, d: int, seed: int = 0) -> list[Tensor]:
    return [normal(heads, n, d, seed=3 * seed + i) for i in range(3)]


def hyper(d: int, bits: int = 8, **parameters: Any) -> HyperAttention:
    return HyperAttention(normal(d, bits, seed=77), **{"min_seq_len": 0, **parameters})


def exact(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
    scores = q.double() @ k.double().mT / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    return scores.softmax(-1) @ v.double(), scores.logsumexp(-1)


# --- hashing -------------------------------------------------------------------------------------


def test_gray_sequence_of_three_bits():
    numbers = torch.arange(8, dtype=torch.int32)
    assert gray(numbers).tolist() == [0, 1, 3, 2, 6, 7, 5, 4]
    assert numbers[gray_place(numbers).argsort()].tolist() == [0, 1, 3, 2, 6, 7, 5, 4]


@pytest.mark.parametrize("bits", range(1, 13))
def test_codes_in_sorted_order_differ_in_one_bit(bits):
    codes = torch.arange(2**bits, dtype=torch.int32)
    order = codes[gray_place(codes).argsort()]
    assert {int(a ^ b).bit_count() for a, b in itertools.pairwise(order)} == {1}


@pytest.mark.parametrize(("bits", "most"), [(3, 2), (4, 2), (8, 4)])
def test_the_official_numbering_has_neighbours_further_apart(bits, most):
    codes = torch.arange(2**bits, dtype=torch.int32)
    order = codes[gray(codes).argsort()]
    assert max(int(a ^ b).bit_count() for a, b in itertools.pairwise(order)) == most


@given(st.integers(0, 2**30 - 1))
def test_place_in_the_gray_sequence_is_the_inverse(code):
    one = torch.tensor([code], dtype=torch.int32)
    assert gray_place(gray(one)).item() == code
    assert gray(gray_place(one)).item() == code


def test_hash_codes_are_sign_bits():
    x, directions = normal(2, 50, 6), normal(6, 5, seed=1)
    signs = (x.numpy() @ directions.numpy() > 0).astype(int)
    assert hash_codes(x, directions).tolist() == (signs @ (2 ** np.arange(5))).tolist()


def test_bits_agree_with_probability_one_minus_angle_over_pi():
    angle = 0.7
    x = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])
    directions = normal(2, 20_000)
    agree = ((x @ directions > 0)[0] == (x @ directions > 0)[1]).double().mean()
    assert abs(float(agree) - (1 - angle / math.pi)) < 4 * math.sqrt(0.25 / 20_000)


def test_official_order_sorts_differently():
    x, directions = normal(100, 16), normal(16, 8, seed=1)
    codes = hash_codes(x, directions)
    assert torch.equal(gray(buckets(x, directions)), codes)
    assert torch.equal(gray_place(buckets(x, directions, "official")), codes)


def mass_in_blocks(order: str, bits: int) -> float:
    q, k = clustered(1000, 1, 4096, 64)
    covered = hyper(64, bits, order=order).covered(q, k, causal=False, generator=stream(), scale=1 / 8)
    _, lse = exact(q, k, k)
    return float(torch.exp(covered - lse).mean())


def test_blocks_of_hashes_catch_the_mass_of_clustered_keys():
    by_bits = [mass_in_blocks("lsh", bits) for bits in (4, 8)]
    random = mass_in_blocks("random", 8)
    assert random == pytest.approx(256 / 4096, rel=0.15)
    assert by_bits[1] >= 4 * random
    assert by_bits[1] > by_bits[0]


# --- without a mask --------------------------------------------------------------------------------


def plain(algorithm: HyperAttention, q: Tensor, k: Tensor, v: Tensor, generator: torch.Generator) -> Any:
    """Steps 1 to 4 for one head as the paper writes them, one query at a time, in float64."""
    n, b, m = len(q), algorithm.block, algorithm.samples
    order = []
    for x in (q, k):
        codes = (x.numpy() @ algorithm.directions.numpy() > 0).astype(int) @ (
            2 ** np.arange(algorithm.directions.shape[1])
        )
        places = [[i ^ (i >> 1) for i in range(2 ** algorithm.directions.shape[1])].index(c) for c in codes]
        order.append(np.argsort(places, kind="stable"))
    block_of = [{int(row): place // b for place, row in enumerate(rows)} for rows in order]
    sample = torch.randint(n, (1, m), generator=generator)[0].tolist()
    scores = (q.double() @ k.double().T / math.sqrt(q.shape[1])).numpy()
    out, lse = np.zeros(v.shape), np.zeros(n)
    for i in range(n):
        own = [j for j in range(n) if block_of[1][j] == block_of[0][i]]
        rest = [j for j in sample if block_of[1][j] != block_of[0][i]]
        weights = [(j, math.exp(scores[i, j])) for j in own]
        weights += [(j, math.exp(scores[i, j]) * n / m) for j in rest]
        total = sum(w for _, w in weights)
        out[i] = sum(w / total * v[j].double().numpy() for j, w in weights)
        lse[i] = math.log(total)
    return torch.tensor(out), torch.tensor(lse)


@pytest.mark.parametrize(
    ("n", "b", "m", "bits"), [(48, 8, 10, 3), (60, 12, 5, 6), (32, 4, 64, 8), (53, 8, 10, 3), (37, 36, 5, 4)]
)
def test_against_the_paper_s_steps_query_by_query(n, b, m, bits):
    q, k, v = qkv(1, n, 6)
    algorithm = hyper(6, bits, block=b, samples=m)
    found = algorithm(q, k, v, causal=False, generator=stream(5), scale=6**-0.5)
    out, lse = plain(algorithm, q[0], k[0], v[0], stream(5))
    assert torch.allclose(found.out[0].double(), out, atol=1e-5)
    assert torch.allclose(found.lse[0].double(), lse, atol=1e-5)


@pytest.mark.parametrize("parameters", [{}, {"order": "random"}, {"gray": "official"}, {"bits": 2}])
def test_a_single_block_is_exact_whatever_the_hash(parameters):
    q, k, v = qkv(2, 256, 32)
    algorithm = hyper(32, block=256, samples=16, **parameters)
    out, lse = algorithm(q, k, v, causal=False, generator=stream(), scale=32**-0.5)
    assert torch.allclose(out.double(), exact(q, k, v)[0], atol=1e-5)
    assert torch.allclose(lse.double(), exact(q, k, v)[1], atol=1e-5)
    assert algorithm.visits == 2 * 256 * 256


@pytest.mark.parametrize("n", [131, 250])
def test_row_sums_are_unbiased_where_a_block_is_left_over(n):
    q, k, v = qkv(1, n, 16)
    _, truth = exact(q, k, v)
    algorithm = hyper(16, block=32, samples=32)
    sums = [algorithm(q, k, v, causal=False, generator=stream(i), scale=0.25).lse for i in range(200)]
    means = torch.exp(torch.cat(sums).double() - truth).mean(1)
    assert abs(float(means.mean()) - 1) < 3.5 * float(means.std()) / math.sqrt(len(means))


@pytest.mark.parametrize("causal", [False, True])
def test_grouped_heads_batches_and_odd_lengths(causal):
    """One block of everything is exact, whatever heads share; a budget is close to it."""
    sizes = {"length": 333, "heads": 4, "key_heads": 2, "batch": 2, "head_dim": 16, "inputs": "clustered"}
    task = SelfAttentionGradient(**sizes, causal=causal)
    limit = run_once(Method(block=333, samples=0, min_seq_len=0), task).metrics
    assert limit["operator_error"] < 1e-5
    assert limit["gradient_error"] < 1e-4
    some = run_once(Method(block=50, samples=50, min_seq_len=64), task).metrics
    assert 0 < some["operator_error"] < 1
    assert 0 < some["block_mass"] < 1
    half = SelfAttention(**sizes, causal=causal, dtype="bfloat16")
    assert run_once(Method(block=333, samples=0, min_seq_len=0), half).metrics["operator_error"] < 0.01


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n", [128, 101])
def test_short_sequences_are_exact(causal, n):
    q, k, v = qkv(2, n, 16)
    out, _ = hyper(16, block=64, min_seq_len=128)(q, k, v, causal=causal, generator=stream(), scale=0.25)
    assert torch.allclose(out.double(), exact(q, k, v, causal)[0], atol=1e-5)


def test_the_prefix_is_the_first_keys_once_more_without_weight():
    q, k, v = qkv(1, 64, 8)
    algorithm = hyper(8, block=16, samples=24, sampling="prefix")
    _, lse = algorithm(q, k, v, causal=False, generator=stream(), scale=8**-0.5)
    blocks = replace(algorithm, samples=0)(q, k, v, causal=False, generator=stream(), scale=8**-0.5)
    scores = q.double() @ k[:, :24].double().mT * 8**-0.5
    assert torch.allclose(lse.double(), torch.logaddexp(blocks.lse.double(), scores.logsumexp(-1)), atol=1e-5)


def test_row_sums_are_unbiased_and_what_each_part_is_for():
    """For a fixed hash; each seed is one set of samples for all queries of a head."""
    n, d = 256, 32
    q, k, v = qkv(1, n, d)
    _, truth = exact(q, k, v)
    algorithm = hyper(d, block=32, samples=32)

    def ratios(algorithm: HyperAttention, draws: int) -> Tensor:
        sums = [algorithm(q, k, v, causal=False, generator=stream(i), scale=d**-0.5).lse for i in range(draws)]
        return torch.exp(torch.cat(sums).double() - truth)

    each = ratios(algorithm, 200)
    means = each.mean(1)
    assert abs(float(means.mean()) - 1) < 3 * float(means.std()) / math.sqrt(len(means))
    rows = (each.mean(0) - 1).abs() / (each.std(0) / math.sqrt(len(each)))
    assert float((rows < 3).double().mean()) > 0.97  # 99.7 % are expected of independent rows
    blocks = ratios(replace(algorithm, samples=0), 1)
    assert -2.5 < float(blocks.log().mean()) < -1.5  # an eighth of the keys: log(1/8) = -2.1, a bit more mass
    without_weight = ratios(replace(algorithm, sampling="prefix"), 1)
    assert float(without_weight.log().mean()) < -1.0


def test_samples_alone_are_a_uniform_estimate():
    n, m = 128, 50
    q, k, v = qkv(1, n, 8)
    out, lse = hyper(8, block=0, samples=m)(q, k, v, causal=False, generator=stream(2), scale=1.0)
    index = torch.randint(n, (1, m), generator=stream(2))[0]
    expected = attend(q[None], k[None, :, index], v[None, :, index], scale=1.0)
    assert torch.allclose(out, expected.out[0], atol=1e-6)
    assert torch.allclose(lse, expected.lse[0] + math.log(n / m), atol=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "clustered"])
def test_error_falls_with_the_budget(kind):
    errors = [
        run_once(Method(block=b, samples=b, min_seq_len=0), SelfAttention(length=1024, inputs=kind)).metrics[
            "operator_error"
        ]
        for b in (64, 128, 256)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.6 * errors[0]


# --- with a causal mask --------------------------------------------------------------------------


def weights(plan: Any, heads: int, n: int) -> Tensor:
    """How often each key counts for each query, (heads * n, heads * n), read off a plan."""
    size = heads * n
    counted = torch.zeros(size, size, dtype=torch.float64)
    if plan.leaves:
        length = size // plan.leaves
        square = torch.ones(length, length, dtype=torch.float64)
        counted += torch.block_diag(*[square.tril() if plan.causal else square] * plan.leaves)
    for step in plan.steps:
        for keys in step.keys:
            index = keys.index.expand(*step.rows.shape[:2], -1)
            weight = (
                torch.ones(index.shape) if keys.bias is None else keys.bias.exp()[:, :, 0].expand(index.shape)
            )
            rows = step.rows[..., :, None].expand(*step.rows.shape, index.shape[-1])
            both = rows.flatten(), index[..., None, :].expand(rows.shape).flatten()
            counted.index_put_(
                both, weight[..., None, :].expand(rows.shape).flatten().double(), accumulate=True
            )
    return counted


VARIANTS = [
    {},
    {"sampling": "prefix"},
    {"block": 0},
    {"samples": 0},
    {"order": "random", "gray": "official"},
    {"samples": 2},
]


@pytest.mark.parametrize("n", [256, 251])
@pytest.mark.parametrize("parameters", VARIANTS, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_output_and_gradients_against_weighted_dense_attention(causal, parameters, n):
    heads, d = 2, 16
    q, k, v = (x.requires_grad_() for x in qkv(heads, n, d))
    algorithm = hyper(d, **{"block": 16, "samples": 24, "min_seq_len": 64, **parameters})
    out, lse = algorithm(q, k, v, causal=causal, generator=stream(3), scale=d**-0.5)
    up = normal(heads, n, d, seed=9)
    found = torch.autograd.grad(out, (q, k, v), up)
    plan, (wide_q, wide_k, wide_v) = algorithm._planned(q, k, v, causal=causal, generator=stream(3))
    padded = wide_q.shape[1]
    scores = wide_q.double().flatten(0, 1) @ wide_k.double().flatten(0, 1).T * d**-0.5
    a = weights(plan, heads, padded) * torch.exp(scores)
    row_sums = a.sum(-1, keepdim=True)
    dense = (a / row_sums @ wide_v.double().flatten(0, 1)).view(heads, padded, d)[:, :n]
    assert torch.allclose(out.double(), dense, atol=1e-5)
    assert torch.allclose(lse.double(), row_sums.log().view(heads, padded)[:, :n], atol=1e-5)
    for one, two in zip(found, torch.autograd.grad(dense, (q, k, v), up.double()), strict=True):
        assert torch.allclose(one, two, atol=3e-5)


@pytest.mark.parametrize(("n", "block"), [(256, 16), (257, 16), (300, 32), (130, 0)])
def test_causal_plans_see_no_later_key_at_any_length(n, block):
    q, k, _ = qkv(1, n, 8)
    plan, (padded, _) = hyper(8, block=block, samples=9, min_seq_len=64)._planned(
        q, k, causal=True, generator=stream()
    )
    counted = weights(plan, 1, padded.shape[1])[:n]
    assert float(counted.triu(1).abs().max()) == 0
    assert float(counted.diagonal().min()) > 0


def test_expected_weights_of_a_causal_plan_are_the_causal_mask():
    """Averaged over samples, every earlier key counts once: the recursion covers the triangle."""
    q, k, _ = qkv(1, 64, 8)
    algorithm = hyper(8, block=8, samples=32, min_seq_len=16)
    draws = [weights(algorithm._planned(q, k, causal=True, generator=stream(i))[0], 1, 64) for i in range(200)]
    stacked = torch.stack(draws)
    off = (stacked.mean(0) - torch.ones(64, 64).tril()).abs()
    assert float((off / (stacked.std(0) / math.sqrt(200) + 1e-9)).quantile(0.99)) < 3.5
    assert float(off.mean()) < 0.1


@pytest.mark.parametrize("n", [256, 257, 300])
def test_halves_of_one_block_are_exact(n):
    """Nothing is left to sampling, so this is the recursion, the merge and the padding alone."""
    q, k, v = qkv(1, n, 8)
    half = -(-n // 2)
    algorithm = hyper(8, block=half, samples=7, min_seq_len=half)
    out, _ = algorithm(q, k, v, causal=True, generator=stream(), scale=8**-0.5)
    assert algorithm.levels(n) == 1
    assert torch.allclose(out.double(), exact(q, k, v, causal=True)[0], atol=1e-5)


@pytest.mark.parametrize("place", [5, 63, 64, 100, 128, 200, 255])
def test_later_keys_and_values_never_change_earlier_outputs(place):
    q, k, v = qkv(1, 256, 8)
    algorithm = hyper(8, block=16, samples=24, min_seq_len=64)
    before = algorithm(q, k, v, causal=True, generator=stream(), scale=1.0).out
    for x in (k, v):
        x[:, place:] = normal(*x[:, place:].shape, seed=50)
    after = algorithm(q, k, v, causal=True, generator=stream(), scale=1.0).out
    assert torch.equal(before[:, :place], after[:, :place])
    assert not torch.allclose(before[:, place:], after[:, place:])


@pytest.mark.parametrize(("place", "block"), [(64, 16), (128, 16), (40, 16), (200, 0), (130, 0)])
def test_later_tokens_never_change_earlier_outputs(place, block):
    """Where no half is cut in two, and everywhere without blocks; see the next test for the exception."""
    q, k, v = qkv(1, 256, 8)
    algorithm = hyper(8, block=block, samples=24, min_seq_len=64)
    before = algorithm(q, k, v, causal=True, generator=stream(), scale=1.0).out
    for x in (q, k, v):
        x[:, place:] = normal(*x[:, place:].shape, seed=50)
    after = algorithm(q, k, v, causal=True, generator=stream(), scale=1.0).out
    assert torch.allclose(before[:, :place], after[:, :place], atol=1e-6)


def test_later_queries_decide_which_earlier_keys_a_query_sees():
    """Queries are sorted together, so the block that a query falls into depends on the queries after it in its half.

    It still attends to earlier keys alone (the tests above), but to others of them.
    """
    q, k, v = qkv(1, 256, 8)
    algorithm = hyper(8, block=16, samples=24, min_seq_len=64)
    before = algorithm(q, k, v, causal=True, generator=stream(), scale=1.0).out
    q[:, 200:] = normal(1, 56, 8, seed=50)
    after = algorithm(q, k, v, causal=True, generator=stream(), scale=1.0).out
    changed = (before != after).any(-1)[0]
    assert not changed[:128].any()
    assert changed[128:200].any()


# --- cost ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("b", "m"), [(16, 16), (32, 8), (0, 24), (8, 0)])
def test_key_visits_without_a_mask(b, m):
    q, k, v = qkv(2, 256, 8)
    algorithm = hyper(8, block=b, samples=m)
    algorithm(q, k, v, causal=False, generator=stream(), scale=1.0)
    assert algorithm.visits == 2 * 256 * (b + m)


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_key_visits_with_a_causal_mask(levels):
    shortest, b, m = 32, 8, 8
    n = shortest << levels
    q, k, v = qkv(2, n, 8)
    algorithm = hyper(8, block=b, samples=m, min_seq_len=shortest)
    algorithm(q, k, v, causal=True, generator=stream(), scale=1.0)
    # n0/2 + L (b + m)/2, and half a key more because a query of a leaf sees itself.
    assert algorithm.visits / (2 * n) == (shortest + 1) / 2 + levels * (b + m) / 2


@pytest.mark.parametrize("block", [0, 8])
def test_halving_stops_at_a_block_when_no_shortest_length_is_given(block):
    q, k, v = qkv(1, 64, 8)
    algorithm = hyper(8, block=block, samples=8)
    assert algorithm.levels(64) == (3 if block else 6)
    out, _ = algorithm(q, k, v, causal=True, generator=stream(), scale=1.0)
    assert torch.allclose(out[:, 0], v[:, 0], atol=1e-6)


def test_cost_model_at_131k():
    algorithm = hyper(8, min_seq_len=2048)
    assert algorithm.levels(131072) == 6
    assert 2048 / 2 + 6 * (256 + 256) / 2 == 2560
    scaled = hyper(4, block=2, samples=2, min_seq_len=16)  # the same shape at a 128th of the length
    q, k, v = qkv(1, 1024, 4)
    scaled(q, k, v, causal=True, generator=stream(), scale=1.0)
    assert scaled.visits / 1024 - 0.5 == 2560 / 128


# --- parameters ----------------------------------------------------------------------------------


def test_parameters_that_do_not_fit():
    q, k, v = qkv(1, 100, 8)
    with pytest.raises(ValueError, match="both be 0"):
        hyper(8, block=0, samples=0)
    with pytest.raises(ValueError, match="bits"):
        hyper(8, bits=31)
    with pytest.raises(ValueError, match="prefix"):
        hyper(8, block=10, samples=101, sampling="prefix")(q, k, v, causal=False, generator=stream(), scale=1.0)
    with pytest.raises(ValueError, match="causal"):
        run_once(HyperAttentionTheory(block=16), SelfAttention(length=64, causal=True))
