"""FlexPrefill against figures worked out by hand, brute force, and exact attention in its limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.errors import RequestError
from harness.testing import prepared, run_once
from methods.attention.baselines import ExactAttention, FixedBudgetAttention, StreamingAttention
from methods.attention.block_sparse import attend_causal
from methods.attention.flexprefill.algorithm import FlexPrefill, budget, gamma_of, needed, root_divergence
from methods.attention.flexprefill.method import FlexPrefillAttention
from methods.attention.heads import KINDS, structured
from methods.attention.patterns import block_means, block_sums, profile
from methods.attention.tasks import MixedHeadsAttention, NeedleRetrieval, PrefillAttention


def flex(gamma: float = 0.95, **parameters: Any) -> FlexPrefill:
    return FlexPrefill(torch.tensor(gamma), **{"block": 32, "min_budget": 64, **parameters})


def heads(n: int, group: int = 1, kinds: tuple[str, ...] = tuple(KINDS), seed: int = 0) -> tuple[Tensor, ...]:
    return structured(kinds, seed, group, n, 64)


# --- the pieces --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0.5, 0.5), (1, 0), 0.464501),
        ((1, 0), (0, 1), math.sqrt(math.log(2))),
        ((0.25, 0.25, 0.25, 0.25), (0.4, 0.3, 0.2, 0.1), 0.166930),
        ((0.1, 0.2, 0.3, 0.4), (0.12, 0.2, 0.3, 0.38), 0.024154),
    ],
)
def test_divergence(a, b, expected):
    found = root_divergence(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64))
    assert float(found) == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.floats(1e-3, 1), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_divergence_is_symmetric_and_bounded(weights, random):
    a = torch.tensor([weights], dtype=torch.float64)
    a = a / a.sum()
    b = a[:, torch.tensor(random.sample(range(len(weights)), len(weights)))]
    found = root_divergence(a, b)
    assert torch.allclose(found, root_divergence(b, a))
    assert 0 <= float(found) <= math.sqrt(math.log(2)) + 1e-9
    assert float(root_divergence(a, a)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("gamma", "expected"), [(0.9, 3), (0.79, 2), (0.5, 2), (0.0, 1), (1.0, 4)])
def test_entries_that_pass_gamma(gamma, expected):
    mass = torch.tensor([[0.05, 0.5, 0.15, 0.3]])
    assert needed(mass, torch.tensor([gamma], dtype=torch.float64)).tolist() == [expected]


@pytest.mark.parametrize("group", [1, 2])
def test_profile_is_that_of_the_softmax_matrix(group):
    n, rows = 100, 32
    q, k, _ = heads(n, group)
    found = profile(q, k, rows, scale=0.125)
    scores = q.double() @ k.double().repeat_interleave(group, 0).mT * 0.125
    p = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)[:, -rows:]
    slash = torch.zeros(len(q), n, dtype=torch.float64)
    for i in range(rows):
        for j in range(n - rows + i + 1):
            slash[:, n - rows + i - j] += p[:, i, j] / rows
    assert torch.allclose(found.vertical.double(), p.mean(1), atol=1e-6)
    assert torch.allclose(found.slash.double(), slash, atol=1e-6)
    for mass in found:
        assert torch.allclose(mass.sum(-1), torch.ones(len(q)), atol=1e-5)


def test_profile_of_identity_attention_is_the_main_diagonal():
    x = 60 * torch.nn.functional.normalize(
        torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    assert float(profile(x, x, 16, scale=1.0).slash[0, 0]) == pytest.approx(1.0, abs=1e-4)


def test_last_blocks_are_averaged_over_their_true_length():
    x = torch.arange(10.0).view(1, 10, 1)
    assert block_means(x, 4).flatten().tolist() == [1.5, 5.5, 8.5]
    assert block_sums(x[..., 0], 4).tolist() == [[6.0, 22.0, 17.0]]


def test_constant_keys_pass_the_pattern_test():
    n, block = 1024, 32
    q = torch.randn(1, n, 16, generator=torch.Generator().manual_seed(0))
    k = torch.ones(1, n, 16)
    vertical = block_sums(profile(q, k, block, scale=0.25).vertical, block)
    assert float(flex(block=block).divergence(q, k, vertical, 0.25)) < 0.1
    # The last block is seen by half of its rows on average, which is all there is to the divergence.
    exact = torch.full((1, n // block), 1.0 / (n // block))
    half = exact.clone()
    half[:, -1] /= 2
    expected = float(root_divergence(exact, half / half.sum()))
    assert float(flex(block=block).divergence(q, k, vertical, 0.25)) == pytest.approx(expected, abs=0.02)


def test_the_two_rules_differ_on_scattered_columns():
    n, block = 4096, 64
    mass = torch.full((1, n), 0.02 / n)
    mass[0, torch.arange(48) * block + 7] += 0.98 / 48
    gamma = torch.tensor([0.9], dtype=torch.float64)
    blocks = block_sums(mass, block)
    tokens = budget(mass, blocks, gamma, "token-count")
    cover = budget(mass, blocks, gamma, "block-cover")
    assert tokens.tolist() == [1]
    assert abs(int(cover) - 0.9 * 48) <= 2

    def held(count: Tensor) -> float:
        return float(blocks.sort(-1, descending=True).values[0, : int(count)].sum())

    assert held(cover) - held(tokens) > 0.2


def test_strengths_span_all_gammas():
    found = gamma_of(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.0, 0.999, 1.0])


# --- the selection -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [512, 501])
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("parameters", [{"gamma": 1.0}, {"min_budget": 512}], ids=str)
def test_with_the_whole_budget_it_is_exact(n, group, parameters):
    q, k, v = heads(n, group)
    found = flex(**parameters)(q, k, v, scale=0.125)
    exact = attend_causal(q, k, v, scale=0.125)
    assert torch.allclose(found.part.out, exact.out, atol=1e-5)
    assert found.pairs.tolist() == [n * (n + 1) // 2] * len(q)


def test_short_prompts_are_attended_to_in_full():
    q, k, v = heads(70)
    found = flex(block=64, min_budget=64)(q, k, v, scale=0.125)
    assert torch.allclose(found.part.out, attend_causal(q, k, v, scale=0.125).out, atol=1e-5)
    assert found.search == 0


@pytest.mark.parametrize("rule", ["token-count", "block-cover"])
@pytest.mark.parametrize("tau", [0.0, 0.1, 1.0])
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 100))
def test_what_every_mask_keeps(rule, tau, seed):
    q, k, _ = heads(300, seed=seed)
    keeps = []
    for gamma in (0.3, 0.8, 0.97):
        choice = flex(gamma, rule=rule, tau=tau).choose(q, k, scale=0.125)
        keep = choice.mask.keep
        assert bool(keep[:, :, 0].all())
        assert bool(keep.diagonal(dim1=1, dim2=2).all())
        assert not bool(keep.triu(1).any())
        assert bool((choice.query_aware == (tau == 1.0)).all()) or tau == 0.1
        keeps.append(keep)
    assert bool((keeps[0] <= keeps[1]).all())
    assert bool((keeps[1] <= keeps[2]).all())


def test_more_budget_keeps_more_and_limits_hold():
    q, k, _ = heads(600)
    small, large = (flex(0.5, min_budget=b).choose(q, k, scale=0.125).mask.keep for b in (32, 192))
    assert bool((small <= large).all())
    capped = flex(0.999, rule="block-cover", min_budget=32, max_budget=96, tau=0.0).choose(q, k, scale=0.125)
    assert int(capped.columns.max()) <= 3
    assert int(capped.diagonals.max()) <= 3


def test_a_query_aware_head_covers_gamma():
    q, k, v = heads(1024, kinds=("topic",) * 4)
    found = flex(0.9, tau=1.0)(q, k, v, scale=0.125)
    recall = (found.part.lse - attend_causal(q, k, v, scale=0.125).lse).exp().mean(-1)
    assert bool((recall > 0.85).all())


def test_gamma_may_differ_between_heads():
    q, k, _ = heads(512, kinds=("vertical", "vertical"))
    both = FlexPrefill(torch.tensor([0.5, 1.0]), block=32, min_budget=64).choose(q, k, scale=0.125).mask
    for head, gamma in enumerate((0.5, 1.0)):
        assert torch.equal(both.keep[head], flex(gamma).choose(q, k, scale=0.125).mask.keep[head])


def test_it_is_causal():
    q, k, v = heads(320)
    before = flex(0.9)(q, k, v, scale=0.125).part.out
    mask = flex(0.9).choose(q, k, scale=0.125).mask
    assert not bool(mask.tokens(320).triu(1).any())
    k2, v2 = k.clone(), v.clone()
    v2[:, 200:] += 5.0
    assert torch.equal(flex(0.9)(q, k2, v2, scale=0.125).part.out[:, :200], before[:, :200])


# --- the methods --------------------------------------------------------------------------------------


def test_scores_of_exact_attention():
    scores = run_once(ExactAttention(), MixedHeadsAttention(length=256, heads=8, key_heads=4, batch=2)).metrics
    assert scores["density"] == scores["mass_recall"] == scores["output_recall"] == 1.0
    assert scores["relative_error"] < 1e-6


def test_figures_of_a_run():
    method = FlexPrefillAttention(block=32, min_budget=64, gamma=0.9)
    scores = run_once(method, MixedHeadsAttention(length=512)).metrics
    assert 0 < scores["density"] < 1
    assert 0 < scores["least_mass_recall"] <= scores["mass_recall"] < 1
    assert scores["flop_ratio"] < 1 / scores["density"]
    kinds = [scores[f"{kind}_density"] for kind in KINDS]
    assert sum(kinds) / 4 == pytest.approx(scores["density"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_batches_and_grouped_heads(dtype):
    sizes = {"length": 300, "heads": 4, "key_heads": 2, "batch": 2, "inputs": "topic-sharp"}
    fine, coarse = (
        run_once(FlexPrefillAttention(block=32, min_budget=64), PrefillAttention(**sizes, dtype=d)).metrics
        for d in ("float32", dtype)
    )
    assert coarse["density"] == pytest.approx(fine["density"], abs=0.05)
    assert coarse["mass_recall"] == pytest.approx(fine["mass_recall"], abs=0.05)


@pytest.mark.parametrize("matched", ["each-head", "all-heads"])
@pytest.mark.parametrize(("match", "metric"), [("mass-recall", "mass_recall"), ("density", "density")])
def test_targets_are_met(match, metric, matched):
    # Rule token-count can choose no more than a block in four here, short of gamma = 1.
    method = FlexPrefillAttention(
        block=32, min_budget=32, rule="block-cover", match=match, target=0.6, matched=matched
    )
    scores = run_once(method, MixedHeadsAttention(length=512)).metrics
    assert scores[metric] >= 0.6 - 1e-6
    assert scores["density"] < 0.9


def test_a_small_budget_is_below_full_on_needles():
    task = NeedleRetrieval(length=512, prompts=8, needles=2)
    exact = run_once(ExactAttention(), task).metrics["accuracy"]
    window = run_once(StreamingAttention(first=32, last=32, block=32), task).metrics
    assert exact > 0.8
    assert window["accuracy"] < 0.3
    assert (
        run_once(FlexPrefillAttention(block=32, min_budget=128), task).metrics["accuracy"] > window["accuracy"]
    )


def test_a_searched_budget_keeps_to_its_density():
    method = FixedBudgetAttention(block=32, density=0.4)
    scores = run_once(method, PrefillAttention(length=512, heads=4)).metrics
    assert 0.25 < scores["density"] < 0.5


def test_what_is_refused():
    with pytest.raises(RequestError, match="max_budget"):
        prepared(FlexPrefillAttention(max_budget=64), PrefillAttention(length=64))
    with pytest.raises(RequestError, match="head_dim of at least 56"):
        PrefillAttention(head_dim=32).load(0)
    with pytest.raises(RequestError, match="four heads of keys"):
        MixedHeadsAttention(length=64, heads=2).load(0)
    with pytest.raises(RequestError, match="do not fit into a prompt"):
        NeedleRetrieval(length=64, needles=64).load(0)
    with pytest.raises(RequestError, match="multiple of key_heads"):
        PrefillAttention(heads=4, key_heads=3).load(0)
