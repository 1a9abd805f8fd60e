"""AnchorAttention against masked softmax in float64, planted keys, and exact attention in its limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from harness.testing import prepared, run_once
from methods.attention.anchor_attention.algorithm import AnchorAttention, theta_of
from methods.attention.anchor_attention.method import (
    AnchorAttentionLanguageModel,
    AnchorAttentionMethod,
)
from methods.attention.baselines import ExactLanguageModel, OracleAttention
from methods.attention.block_sparse import attend_causal
from methods.attention.flexprefill.method import FlexPrefillLanguageModel
from methods.attention.heads import KINDS, structured
from methods.attention.llama import Recipe
from methods.attention.tasks import (
    LongContextLanguageModel,
    MixedHeadsAttention,
    NeedleRetrieval,
    PrefillAttention,
)
from methods.attention.work import Text

SCALE = 0.125


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def anchor(theta: float = 6.0, **parameters: Any) -> AnchorAttention:
    return AnchorAttention(torch.tensor(theta, dtype=torch.float64), **{"block": 16, "step": 4, **parameters})


def heads(n: int, group: int = 1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    return structured(tuple(KINDS), seed, group, n, 64)


def tokens(algorithm: AnchorAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The mask that the algorithm attends to, bool, (heads, n, n), read off its parts."""
    n, group = q.shape[1], algorithm.group
    whole = n // group * group
    mask = torch.ones(len(q), n, n, dtype=torch.bool).tril()
    if whole:
        mask[:, :whole, :] = False
        mask[:, :whole, :whole] = algorithm.anchor_mask(whole, len(q), torch.device("cpu")).tokens(whole)
        rows = q[:, :whole]
        top = algorithm.anchor(rows, k, v, scale=SCALE).top
        lists = algorithm.identify(rows, k, top, scale=SCALE)
        for unit, keys in enumerate(lists.entries.split(lists.counts.tolist())):
            head, g = divmod(unit, whole // group)
            for key in keys.tolist():
                span = slice(key * lists.span, (key + 1) * lists.span)
                assert not bool(mask[head, g * group : (g + 1) * group, span].any()), "a key counted twice"
                mask[head, g * group : (g + 1) * group, span] = True
    return mask


@pytest.mark.parametrize("n", [256, 333, 40])
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("pool", ["mean", "max-score"])
@pytest.mark.parametrize("granularity", ["stripe", "block"])
def test_it_is_exact_attention_over_its_mask(n, group, step, pool, granularity):
    q, k, v = heads(n, group)
    algorithm = anchor(5.0, step=step, pool=pool, granularity=granularity)
    mask = tokens(algorithm, q, k, v)
    assert not bool(mask.triu(1).any())
    scores = q.double() @ k.double().repeat_interleave(group, 0).mT * SCALE
    scores = scores.masked_fill(~mask, -torch.inf)
    found = algorithm(q, k, v, scale=SCALE)
    expected = scores.softmax(-1) @ v.double().repeat_interleave(group, 0)
    # Scores reach 40, so their rounding to float32 alone moves weights by 1e-5.
    assert torch.allclose(found.part.out.double(), expected, atol=5e-5)
    assert torch.allclose(found.part.lse.double(), scores.logsumexp(-1), atol=1e-5)
    assert found.pairs.tolist() == mask.sum((1, 2)).tolist()


@pytest.mark.parametrize("n", [512, 499])
def test_the_limits_of_theta(n):
    q, k, v = heads(n)
    everything = anchor(1e9)(q, k, v, scale=SCALE)
    assert torch.allclose(everything.part.out, attend_causal(q, k, v, scale=SCALE).out, atol=1e-5)
    assert everything.pairs.tolist() == [n * (n + 1) // 2] * 4
    nothing = anchor(-1e9)
    whole = n // nothing.group * nothing.group
    tail = (n * (n + 1) - whole * (whole + 1)) // 2
    assert nothing(q, k, v, scale=SCALE).pairs.tolist() == [nothing.anchor_pairs(whole) + tail] * 4


def test_size_of_the_anchor_region():
    pairs = AnchorAttention(torch.tensor(0.0), block=64, step=4).anchor_pairs(4096)
    assert pairs / (4096 * 4097 / 2) == pytest.approx(0.121, abs=5e-4)


def test_anchor_is_the_largest_score_of_its_region():
    q, k, v = heads(256, 2)
    algorithm = anchor()
    found = algorithm.anchor(q, k, v, scale=SCALE)
    region = algorithm.anchor_mask(256, len(q), torch.device("cpu")).tokens(256)
    scores = (q.double() @ k.double().repeat_interleave(2, 0).mT * SCALE).masked_fill(~region, -torch.inf)
    assert torch.allclose(found.top.double(), scores.amax(-1), atol=1e-5)
    assert torch.allclose(found.part.lse.double(), scores.logsumexp(-1), atol=1e-5)


def test_the_windows_and_the_candidates_divide_the_keys():
    n = 16 * 64
    zero = torch.zeros(1, n, 64)
    v = torch.randn(1, n, 64, generator=stream())
    algorithm = anchor(0.0)
    assert torch.equal(tokens(algorithm, zero, zero, v), torch.ones(1, n, n, dtype=torch.bool).tril())
    mean = v.double().cumsum(1) / torch.arange(1, n + 1)[:, None]
    assert torch.allclose(algorithm(zero, zero, v, scale=SCALE).part.out.double(), mean, atol=1e-5)


def test_more_theta_selects_more():
    q, k, v = heads(512)
    exact = attend_causal(q, k, v, scale=SCALE).lse
    before, recall = None, torch.zeros(4)
    for theta in (-2.0, 2.0, 5.0, 9.0):
        mask = tokens(anchor(theta), q, k, v)
        assert before is None or bool((before <= mask).all())
        found = (anchor(theta)(q, k, v, scale=SCALE).part.lse - exact).exp().mean(-1)
        assert bool((found >= recall - 1e-5).all())
        before, recall = mask, found


def test_lost_mass_is_bounded_when_every_row_is_asked():
    q, k, v = heads(512, seed=3)
    theta = 3.0
    mask = tokens(anchor(theta, pool="max-score"), q, k, v)
    scores = (q @ k.mT * SCALE).masked_fill(torch.ones(512, 512, dtype=torch.bool).triu(1), -torch.inf)
    weights = scores.double().softmax(-1)
    lost = weights.masked_fill(mask, 0.0).sum(-1)
    dropped = (~mask).tril().sum(-1)
    bound = dropped * torch.exp(torch.tensor(-theta, dtype=torch.float64)) * weights.amax(-1)
    assert bool((lost <= bound + 1e-9).all())


def test_planted_stripes_are_found_and_nothing_else():
    n, d, block = 1024, 64, 16
    g = stream(1)
    u = torch.nn.functional.normalize(torch.randn(d, generator=g), dim=0)
    q = 8 * u + 0.1 * torch.randn(1, n, d, generator=g)
    k = 0.1 * torch.randn(1, n, d, generator=g)
    planted = block + torch.randperm(n - 80 - block, generator=g)[:20]
    k[0, planted] = 20 * u
    k[0, 0] = 20 * u
    algorithm = anchor(12.0)
    lists = algorithm.identify(q, k, algorithm.anchor(q, k, k, scale=SCALE).top, scale=SCALE)
    for group, keys in enumerate(lists.entries.split(lists.counts.tolist())):
        expected = planted[planted < group * 64 - block].sort().values
        assert keys.tolist() == expected.tolist()


def test_groups_do_not_look_ahead():
    q, k, v = heads(512)
    t = 300  # in the group of rows 256 to 319
    changed = [x.clone() for x in (q, k, v)]
    for x in changed:
        x[:, t] += 3.0
    before, after = (anchor(4.0)(*x, scale=SCALE).part.out for x in ((q, k, v), changed))
    assert torch.equal(before[:, :256], after[:, :256])
    assert not torch.equal(before[:, t], after[:, t])
    # Within the group only the selection may change: with everything selected nothing does before t.
    before, after = (anchor(1e9)(*x, scale=SCALE).part.out for x in ((q, k, v), changed))
    assert torch.allclose(before[:, :t], after[:, :t], atol=1e-5)


def test_work_of_the_search():
    algorithm = AnchorAttention(torch.tensor(12.0), block=128, step=16)
    n, d = 131072, 64
    scores = 2.0 * d * n * (n + 1) / 2
    assert algorithm.search_flops(n, d) == pytest.approx(scores / 128, rel=0.02)


def test_strengths_span_all_thetas():
    found = theta_of(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert found.tolist() == [-20.0, 20.0, float("inf")]


# --- the methods --------------------------------------------------------------------------------------


def test_figures_of_a_run():
    scores = run_once(
        AnchorAttentionMethod(block=16, step=4, theta=4.0), MixedHeadsAttention(length=512)
    ).metrics
    assert scores["anchor_density"] < scores["density"] < 1
    assert 0 < scores["least_mass_recall"] <= scores["mass_recall"] < 1
    assert scores["flop_ratio"] < 1 / scores["density"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_batches_and_grouped_heads(dtype):
    sizes = {"length": 300, "heads": 4, "key_heads": 2, "batch": 2, "inputs": "topic-sharp"}
    fine, coarse = (
        run_once(AnchorAttentionMethod(block=16, step=4, theta=4.0), PrefillAttention(**sizes, dtype=d)).metrics
        for d in ("float32", dtype)
    )
    assert coarse["density"] == pytest.approx(fine["density"], abs=0.05)
    assert coarse["mass_recall"] == pytest.approx(fine["mass_recall"], abs=0.05)


def test_targets_are_met():
    method = AnchorAttentionMethod(block=16, step=4, match="mass-recall", target=0.9)
    scores = run_once(method, MixedHeadsAttention(length=512)).metrics
    assert scores["least_mass_recall"] >= 0.9 - 1e-6
    assert scores["mass_recall"] < 0.97


def test_a_block_of_the_same_question_is_answered():
    sizes = {"length": 1024, "prompts": 4, "needles": 2}
    method = AnchorAttentionMethod(block=16, step=4)
    assert run_once(method, NeedleRetrieval(**sizes, repeat=16)).metrics["accuracy"] > 0.9


@pytest.mark.parametrize(
    "parameters",
    [
        {"rule": "top-keys", "keys": 512},
        {"rule": "top-mass", "mass": 1.0},
        {"rule": "difference", "delta": 1e4},
    ],
    ids=str,
)
def test_oracles_without_a_limit_are_exact(parameters):
    scores = run_once(OracleAttention(**parameters), PrefillAttention(length=200, heads=4, key_heads=2)).metrics
    assert scores["density"] == pytest.approx(1.0, abs=1e-3)
    assert scores["relative_error"] < 1e-5


def test_the_oracle_of_mass_reaches_it_with_the_fewest_keys():
    scores = run_once(OracleAttention(mass=0.9), PrefillAttention(length=300)).metrics
    assert 0.9 <= scores["least_mass_recall"] < 0.99
    keys = OracleAttention(rule="top-keys", keys=1)
    assert run_once(keys, PrefillAttention(length=300)).metrics["density"] == pytest.approx(
        300 / (300 * 301 / 2)
    )


class Given(LongContextLanguageModel):
    """The task with random text and random weights."""

    def load(self, seed: int) -> Text:
        recipe = Recipe(
            corpora=("none/none",), hidden=32, feed_forward=48, layers=2, heads=2, context=192, steps=0
        )
        return Text(torch.randint(256, (1, 192), generator=stream()), recipe)


def test_language_models_without_a_limit_are_the_model():
    task = Given(length=192, windows=1, layers=2)
    expected = prepared(ExactLanguageModel(), task).run()
    for method in (
        AnchorAttentionLanguageModel(patched_layers=2, block=16, step=2, theta=1e9),
        FlexPrefillLanguageModel(patched_layers=2, block=16, min_budget=32, gamma=1.0),
    ):
        found = prepared(method, task)
        assert torch.allclose(found.run(), expected, atol=1e-4)
        assert found.measure(found.run())["density"] == pytest.approx(1.0)
    sparse = prepared(AnchorAttentionLanguageModel(patched_layers=2, block=16, step=2, theta=-5.0), task)
    assert sparse.measure(sparse.run())["density"] < 0.9
