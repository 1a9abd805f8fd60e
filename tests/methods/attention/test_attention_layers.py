"""The attention family: partial attention, its errors, its baselines, its inputs and its language model."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.errors import BadOutput
from harness.testing import prepared, run_once
from methods.attention import llama
from methods.attention.baselines import (
    ExactAttention,
    ExactLanguageModel,
    LocalWindowAttention,
    TopKeysAttention,
    window_attention,
)
from methods.attention.error import exact_lse, exact_rows, operator_norm, spectral_norm
from methods.attention.inputs import GAIN, NOISE, clustered
from methods.attention.partial import attend, attend_backward, attend_dense, dense_backward, merge
from methods.attention.tasks import LongContextLanguageModel, SelfAttention, SelfAttentionGradient
from methods.attention.work import Attended
from tests.conftest import needs_data


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Softmax attention in float64, scale 1/sqrt(d)."""
    q, k, v = q.double(), k.double(), v.double()
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if bias is not None:
        scores = scores + bias
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


@pytest.mark.parametrize("function", [attend, attend_dense])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "dim"), [(33, 16), (256, 64), (800, 8)])
def test_attend_is_softmax_attention(function, causal, queries, dim):
    q, k, v = (normal(2, 3, queries, dim, seed=s) for s in range(3))
    out, lse = function(q, k, v, scale=dim**-0.5, causal=causal)
    expected, sums = reference(q, k, v, causal=causal)
    assert torch.allclose(out.double(), expected, atol=2e-6)
    assert torch.allclose(lse.double(), sums, atol=2e-6)
    assert lse.dtype == torch.float32


@pytest.mark.parametrize("function", [attend, attend_dense])
def test_attend_with_a_bias_that_all_queries_of_a_block_share(function):
    q, k, v = normal(2, 3, 5, 8), normal(2, 1, 7, 8, seed=1), normal(2, 1, 7, 8, seed=2)
    k, v = k.expand(2, 3, 7, 8), v.expand(2, 3, 7, 8)
    bias = normal(2, 3, 1, 7, seed=3)
    bias[0, 0, 0, :4] = -torch.inf
    out, lse = function(q, k, v, scale=8**-0.5, bias=bias)
    expected, sums = reference(q, k, v, bias)
    assert torch.allclose(out.double(), expected, atol=1e-6)
    assert torch.allclose(lse.double(), sums, atol=1e-6)


@pytest.mark.parametrize("function", [attend, attend_dense])
def test_no_keys_at_all_weigh_nothing(function):
    q, k, v = normal(1, 2, 5, 8), normal(1, 2, 7, 8, seed=1), normal(1, 2, 7, 8, seed=2)
    bias = torch.zeros(1, 2, 1, 7)
    bias[0, 1] = -torch.inf
    part = function(q, k, v, scale=1.0, bias=bias)
    assert torch.equal(part.lse[0, 1], torch.full((5,), -torch.inf))
    whole = attend(q, k, v, scale=1.0)
    merged = merge(whole, part)
    assert torch.allclose(merged.out[0, 1], whole.out[0, 1])
    assert torch.allclose(merged.lse[0, 1], whole.lse[0, 1])


def test_attend_in_half_precision_keeps_a_float_bias():
    q, k, v = (normal(1, 2, 64, 32, seed=s).bfloat16() for s in range(3))
    bias = normal(1, 2, 1, 64, seed=4)
    out, lse = attend(q, k, v, scale=32**-0.5, bias=bias)
    expected, sums = reference(q, k, v, bias)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.double(), expected, atol=2e-2)
    assert torch.allclose(lse.double(), sums, atol=1e-2)


def test_a_causal_mask_and_a_bias_exclude_each_other():
    x = normal(1, 1, 4, 8)
    with pytest.raises(ValueError, match="causal"):
        attend(x, x, x, scale=1.0, bias=torch.zeros(1, 1, 1, 4), causal=True)


@settings(max_examples=40, deadline=None)
@given(
    split=st.lists(st.booleans(), min_size=4, max_size=40),
    gain=st.sampled_from([0.1, 1.0, 8.0]),
    seed=st.integers(0, 2**20),
)
@example(split=[False] * 8, gain=8.0, seed=1048573)
def test_merging_two_arbitrary_sets_of_keys_is_exact(split, gain, seed):
    first = torch.tensor([True, *split])
    keys = len(first) + 1
    first = torch.cat([first, torch.tensor([False])])
    q, k, v = gain * normal(1, 1, 6, 8, seed=seed), normal(1, 1, keys, 8, seed=seed + 1), normal(1, 1, keys, 8)
    parts = [attend(q, k[:, :, chosen], v[:, :, chosen], scale=1.0) for chosen in (first, ~first)]
    out, lse = merge(*parts)
    expected, sums = reference(q * math.sqrt(8), k, v)
    # A logit is known to its own rounding, and a weight, being an exponential, relative to that.
    rounding = 2 * torch.finfo(torch.float32).eps * float(1 + (q @ k.mT).abs().max())
    assert torch.allclose(out.double(), expected, rtol=0, atol=rounding * float(v.abs().max()))
    assert torch.allclose(lse.double(), sums, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backward", [attend_backward, dense_backward])
def test_gradients_of_two_parts_sum_to_the_gradient_of_the_whole(backward):
    q, k, v, up = (normal(2, 2, 40, 16, seed=s) for s in range(4))
    cut, scale = 13, 0.3
    parts = [(k[:, :, :cut], v[:, :, :cut]), (k[:, :, cut:], v[:, :, cut:])]
    union = merge(*(attend(q, *part, scale=scale) for part in parts))
    (dq1, dk1, dv1), (dq2, dk2, dv2) = (backward(up, q, *part, union, scale=scale) for part in parts)
    for x in (q, k, v):
        x.requires_grad_()
    out = torch.softmax(q @ k.mT * scale, -1) @ v
    exact = torch.autograd.grad(out, (q, k, v), up)
    found = (dq1 + dq2, torch.cat([dk1, dk2], 2), torch.cat([dv1, dv2], 2))
    for a, b in zip(found, exact, strict=True):
        assert torch.allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("backward", [attend_backward, dense_backward])
def test_gradients_with_a_bias_and_with_a_causal_mask(backward):
    q, k, v, up = (normal(1, 2, 24, 8, seed=s) for s in range(4))
    bias = normal(1, 2, 1, 24, seed=9)
    bias[..., :5] = -torch.inf
    for options in ({"bias": bias}, {"causal": True}):
        leaves = [x.clone().double().requires_grad_() for x in (q, k, v)]
        exact = torch.autograd.grad(reference(*leaves, **options)[0], leaves, up.double())
        union = attend(q, k, v, scale=8**-0.5, **options)
        found = backward(up, q, k, v, union, scale=8**-0.5, **options)
        for a, b in zip(found, exact, strict=True):
            assert torch.allclose(a.double(), b, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n", "window"), [(50, 8), (64, 16), (37, 5), (20, 1), (9, 16)])
def test_local_window_against_a_mask(causal, n, window):
    q, k, v = (normal(2, n, 8, seed=s) for s in range(3))
    i, j = torch.arange(n)[:, None], torch.arange(n)
    before = window - 1 if causal else window // 2
    seen = (j >= i - before) & (j < i - before + window)
    bias = torch.zeros(n, n).masked_fill(~seen, -torch.inf)
    expected, _ = reference(q, k, v, bias)
    for x in (q, k, v):
        x.requires_grad_()
    out = window_attention(q, k, v, window, causal=causal, scale=8**-0.5)
    assert torch.allclose(out.double(), expected, atol=2e-6)
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), (q, k, v)))


def test_window_of_one_key_before_it_sees_only_itself():
    q, k, v = (normal(1, 12, 4, seed=s) for s in range(3))
    assert torch.allclose(window_attention(q, k, v, 1, causal=True, scale=1.0), v, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_top_keys_are_those_of_the_highest_scores(causal):
    work = prepared(TopKeysAttention(keys=5), SelfAttention(length=40, heads=2, head_dim=8, causal=causal))
    found = work.run()
    x = work.inputs
    scores = x.q @ x.k.mT * x.scale
    if causal:
        scores = scores.masked_fill(torch.ones(40, 40, dtype=torch.bool).triu(1), -torch.inf)
    least = scores.topk(5, -1).values[..., -1:]
    kept = scores.masked_fill(scores < least, -torch.inf)
    assert torch.allclose(found.out, kept.softmax(-1) @ x.v, atol=1e-6)
    assert torch.allclose(found.lse, kept.logsumexp(-1), atol=1e-6)
    metrics = work.measure(found)
    assert metrics["mass_recall"] == pytest.approx(float((found.lse - scores.logsumexp(-1)).exp().mean()))
    pairs = 5 * 40 - 10 if causal else 5 * 40
    assert metrics["kept_share"] == pytest.approx(pairs / (820 if causal else 1600))
    assert metrics["scored_pairs"] == 1600


@pytest.mark.parametrize("causal", [False, True])
def test_recall_of_a_window_is_the_softmax_mass_inside_it(causal):
    work = prepared(LocalWindowAttention(window=6), SelfAttention(length=40, head_dim=8, causal=causal))
    x, found = work.inputs, work.run()
    whole = (x.q @ x.k.mT * x.scale).masked_fill(
        torch.ones(40, 40, dtype=torch.bool).triu(1) & torch.tensor(causal), -torch.inf
    )
    i, j = torch.arange(40)[:, None], torch.arange(40)
    seen = (j >= i - 5) & (j <= i) if causal else (j >= i - 3) & (j < i + 3)
    metrics = work.measure(found)
    assert metrics["mass_recall"] == pytest.approx(float((whole.softmax(-1) * seen).sum(-1).mean()), rel=1e-5)
    kept = seen & (whole > -torch.inf)
    assert metrics["kept_share"] == pytest.approx(float(kept.sum() / (whole > -torch.inf).sum()), rel=1e-5)


@pytest.mark.parametrize("method", [TopKeysAttention(keys=64), LocalWindowAttention(window=64)])
def test_baselines_with_all_keys_are_exact(method):
    scores = run_once(method, SelfAttentionGradient(length=64, head_dim=16, causal=True)).metrics
    assert scores["operator_error"] < 1e-5
    assert scores["gradient_error"] < 1e-4
    assert scores["mass_recall"] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_exact_rows_when_they_are_all_rows(causal):
    n, d = 96, 16
    q, k, v, up = (normal(n, d, seed=s) for s in range(4))
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    exact = exact_rows(q, k, v, rows, causal=causal, scale=d**-0.5, upstream=up)
    for x in (q, k, v):
        x.requires_grad_()
    out, lse = reference(q, k, v, causal=causal)
    assert torch.allclose(exact.out.double(), out[rows], atol=1e-5)
    assert torch.allclose(exact.lse.double(), lse[rows], atol=1e-5)
    assert torch.allclose(exact_lse(q, k, rows, causal=causal, scale=d**-0.5), exact.lse)
    (gradient,) = torch.autograd.grad(out, q, up.double())
    assert torch.allclose(exact.query_gradient, gradient[rows], atol=1e-5)
    softmax, _ = reference(q, k, torch.eye(n), causal=causal)
    assert exact.norm == pytest.approx(float(torch.linalg.matrix_norm(softmax.detach(), 2)), rel=1e-3)
    assert exact.alpha == pytest.approx(float(n * softmax.detach().square().sum(0).max()), rel=1e-4)


@pytest.mark.parametrize(("kind", "lowest"), [("gaussian", 0.99), ("clustered", 0.7)])
def test_norm_of_the_softmax_matrix_from_a_sample_of_rows(kind, lowest):
    task = SelfAttention(length=2048, inputs=kind)
    q, k = (x[0].float() for x in (task.load(1000).q, task.load(1000).k))
    softmax = (q @ k.T * 64**-0.5).softmax(-1)
    rows = torch.randperm(2048, generator=torch.Generator().manual_seed(3))
    ratio = operator_norm(softmax[rows[:1024]]) / operator_norm(softmax)
    assert lowest < ratio < 1.05


def test_norm_of_a_doubly_stochastic_matrix_is_one():
    uniform = torch.full((64, 64), 1 / 64)
    assert operator_norm(uniform) == pytest.approx(1.0)
    assert operator_norm(uniform[:32]) == pytest.approx(1.0)


def test_spectral_norm():
    x = normal(50, 8)
    assert spectral_norm(x) == pytest.approx(float(torch.linalg.matrix_norm(x, 2)), rel=1e-5)


def test_scores_from_a_sample_of_rows_are_close_to_those_of_all():
    sizes = {"length": 2048, "heads": 1, "head_dim": 32}
    every, some = (
        run_once(LocalWindowAttention(window=64), SelfAttention(**sizes, scored_rows=rows)).metrics
        for rows in (2048, 1024)
    )
    for name in ("operator_error", "relative_error", "softmax_norm"):
        assert some[name] == pytest.approx(every[name], rel=0.1)


def test_scale_of_the_error_does_not_change_with_the_values():
    """The error is relative to the norm of V, so ten times V has the same."""
    task = SelfAttention(length=128, head_dim=16)
    work = task.load(1000)
    wrong = Attended(torch.zeros_like(work.v))
    before = task.score(work, wrong)["operator_error"]
    work.v.mul_(10)
    assert task.score(work, wrong)["operator_error"] == pytest.approx(before, rel=1e-4)
    assert 0 < before <= 1


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(lambda out: out[:, :-1], "shape"), (lambda out: out * float("nan"), "finite")],
)
def test_outputs_that_cannot_be_scored(spoil, reason):
    task = SelfAttention(length=32, head_dim=8)
    work = task.load(1000)
    with pytest.raises(BadOutput, match=reason):
        task.score(work, Attended(spoil(work.v)))


def test_a_missing_gradient_cannot_be_scored():
    task = SelfAttentionGradient(length=32, head_dim=8)
    work = task.load(1000)
    with pytest.raises(BadOutput, match="gradient"):
        task.score(work, Attended(work.v))


def test_exact_attention_scores_zero():
    scores = run_once(ExactAttention(), SelfAttentionGradient(length=256, heads=2, head_dim=16)).metrics
    assert scores["operator_error"] < 1e-5
    assert scores["relative_error"] < 1e-5
    assert scores["gradient_error"] < 1e-4


def test_inputs_depend_on_the_seed_alone():
    task = SelfAttention(length=64, inputs="clustered", dtype="bfloat16")
    one, two, other = task.load(1000), task.load(1000), task.load(1001)
    assert torch.equal(one.q, two.q)
    assert not torch.equal(one.q, other.q)
    assert one.q.dtype == torch.bfloat16
    assert not torch.equal(one.q, one.k)


def test_clustered_inputs_have_their_spread_and_their_centres():
    q, k = clustered(1000, 1, 4096, 64)
    assert float(q.square().mean().sqrt()) == pytest.approx(GAIN, rel=0.05)
    nearest = torch.cdist(q[0, :200], k[0]).min(1).values
    # Two vectors of one centre differ by sqrt(2) times the noise in each coordinate.
    within = GAIN * NOISE * math.sqrt(2 * 64 / (1 + NOISE**2))
    assert float(nearest.max()) < 1.2 * within
    between = torch.cdist(q[0, :200], k[0]).median()
    assert float(between) > 2 * within


def tiny(seed: int = 0) -> llama.Recipe:
    return llama.Recipe(
        corpora=("none/none",), hidden=32, feed_forward=48, layers=3, heads=2, context=40, steps=0
    )


def test_replacing_attention_by_itself_changes_nothing():
    tokens = torch.randint(256, (2, 40), generator=torch.Generator().manual_seed(0))
    plain = llama.model(tiny(), dtype=torch.float32, device="cpu")
    expected = llama.log_probabilities(plain, tokens)
    patched = llama.model(tiny(), dtype=torch.float32, device="cpu")
    calls = []

    def exact(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        calls.append(q.shape)
        return reference(q * scale * math.sqrt(q.shape[-1]), k, v, causal=True)[0].float()

    llama.replace_attention(patched, [1, 2], exact)
    found = llama.log_probabilities(patched, tokens)
    assert torch.allclose(found, expected, atol=1e-5)
    assert calls == [(2, 40, 16)] * 4  # two layers, two windows
    llama.replace_attention(patched, [2], lambda q, k, v, scale: v)
    assert not torch.allclose(llama.log_probabilities(patched, tokens), expected, atol=1e-3)


def test_recorded_queries_and_keys_give_the_layer_s_attention():
    tokens = torch.randint(256, (1, 40), generator=torch.Generator().manual_seed(0))
    model = llama.model(tiny(), dtype=torch.float32, device="cpu")
    inputs = {}
    layer = model.model.layers[-1].self_attn
    layer.o_proj.register_forward_pre_hook(lambda _, args: inputs.update(out=args[0]))
    q, k, v = llama.queries_keys_values(model, tokens, layer=-1)
    out, _ = reference(q, k, v, causal=True)
    assert q.shape == (2, 40, 16)
    assert torch.allclose(inputs["out"][0].double(), out.transpose(0, 1).flatten(1), atol=1e-5)


def test_log_probabilities_are_those_of_the_next_token():
    tokens = torch.randint(256, (1, 40), generator=torch.Generator().manual_seed(0))
    model = llama.model(tiny(), dtype=torch.float32, device="cpu")
    found = llama.log_probabilities(model, tokens)
    loss = model(input_ids=tokens, labels=tokens).loss
    assert -found.mean().item() == pytest.approx(loss.item(), rel=1e-5)


def test_perplexity_and_the_one_with_the_wrong_base():
    task = LongContextLanguageModel(length=9, windows=2)
    scores = task.score(None, torch.full((2, 8), -math.log(6.0)))
    assert scores["perplexity"] == pytest.approx(6.0, rel=1e-5)
    assert scores["perplexity_base_2"] == pytest.approx(2 ** math.log(6.0), rel=1e-5)
    with pytest.raises(BadOutput, match="shape"):
        task.score(None, torch.zeros(2, 9))
    with pytest.raises(BadOutput, match="loss"):
        task.score(None, torch.full((2, 8), float("nan")))


@needs_data("gutenberg-novels")
def test_a_briefly_trained_model_beats_a_guess(tmp_path):
    task = LongContextLanguageModel(
        length=64, windows=2, layers=1, heads=2, head_dim=16, feed_forward=32, steps=30
    )
    scores = run_once(ExactLanguageModel(), task, cache=tmp_path).metrics
    assert scores["perplexity"] < 128
    assert task.load(1000).tokens.shape == (2, 64)
