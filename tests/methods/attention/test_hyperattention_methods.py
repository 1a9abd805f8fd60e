"""HyperAttention as methods of the catalog, in a language model, and in the form of the theorem."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.errors import MissingPackage
from harness.testing import prepared, run_once
from methods.attention.baselines import ExactAttention, ExactLanguageModel
from methods.attention.hyperattention import theory
from methods.attention.hyperattention.algorithm import HyperAttention
from methods.attention.hyperattention.method import HyperAttention as Method
from methods.attention.hyperattention.method import HyperAttentionLanguageModel, HyperAttentionTheory
from methods.attention.llama import Recipe
from methods.attention.tasks import LongContextLanguageModel, SelfAttention, SelfAttentionGradient
from methods.attention.work import Text


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


# --- the methods -----------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_a_run_starts_from_the_same_state(causal):
    task = SelfAttentionGradient(length=512, heads=2, head_dim=16, causal=causal)
    method = prepared(Method(block=32, samples=32, min_seq_len=128), task)
    one, two = method.run(), method.run()
    assert torch.equal(one.out, two.out)
    assert all(torch.allclose(a, b) for a, b in zip(one.gradients, two.gradients, strict=True))
    scores = method.measure(one)
    assert 0 < scores["block_mass"] < 1
    assert scores["kappa"] > 1
    assert scores["key_visits"] == (64 if not causal else 64.5 + 2 * 32)


def test_figures_of_a_run_that_is_exact():
    scores = run_once(Method(min_seq_len=256), SelfAttention(length=256, head_dim=16)).metrics
    assert scores["operator_error"] < 1e-5
    assert scores["block_mass"] == pytest.approx(1.0, abs=1e-5)
    assert scores["kappa"] == 1.0
    assert abs(scores["lse_bias"]) < 1e-5


def test_kappa_and_block_mass_without_blocks_are_those_of_all_keys():
    task = SelfAttention(length=256, head_dim=16)
    scores = run_once(Method(block=0, samples=32, min_seq_len=0), task).metrics
    work = task.load(1000)
    _, lse = exact(work.q, work.k, work.v)
    assert scores["block_mass"] == 0
    assert scores["kappa"] == pytest.approx(float(torch.exp(lse.max() - lse.min())), rel=1e-4)


def test_half_precision_is_close_to_single():
    sizes = {"length": 512, "head_dim": 32, "inputs": "clustered"}
    fine, coarse = (
        run_once(Method(block=128, samples=128, min_seq_len=0), SelfAttention(**sizes, dtype=dtype)).metrics
        for dtype in ("float32", "bfloat16")
    )
    assert coarse["operator_error"] == pytest.approx(fine["operator_error"], rel=0.3)


def recipe(n: int) -> Recipe:
    return Recipe(corpora=("none/none",), hidden=32, feed_forward=48, layers=3, heads=2, context=n, steps=0)


class Given(LongContextLanguageModel):
    """The task with random text and random weights."""

    def load(self, seed: int) -> Text:
        return Text(torch.randint(256, (1, 128), generator=stream(seed)), recipe(128))


def test_language_model_with_no_layers_patched_or_short_text_is_the_model():
    task = Given(length=128, windows=1, layers=3)
    expected = prepared(ExactLanguageModel(), task).run()
    unpatched = HyperAttentionLanguageModel(patched_layers=0, block=8, samples=8, min_seq_len=32)
    short = HyperAttentionLanguageModel(patched_layers=3, min_seq_len=128)
    for method in (unpatched, short):
        assert torch.allclose(prepared(method, task).run(), expected, atol=1e-5)
    patched = prepared(HyperAttentionLanguageModel(patched_layers=2, block=8, samples=8, min_seq_len=32), task)
    found = patched.run()
    assert not torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(found[:, :31], patched.run()[:, :31])
    with pytest.raises(ValueError, match="4 patched layers in a model of 3"):
        prepared(HyperAttentionLanguageModel(patched_layers=4), task)


# --- the form of the theorem -------------------------------------------------------------------------


def mask_of(q: Tensor, k: Tensor, block: int) -> theory.Mask:
    return theory.block_mask(hyper(q.shape[-1], block=block, samples=0), q, k, q.shape[-1] ** -0.5, stream())


@pytest.mark.parametrize("n", [64, 70])
def test_block_mask_is_the_one_of_the_algorithm(n):
    q, k, _ = qkv(2, n, 8)
    mask = mask_of(q, k, 16)
    same = mask.query_block[:, :, None] == mask.key_block[:, None, :]
    assert sorted(set(same.sum(-1).flatten().tolist())) == ([16] if n == 64 else [6, 16])
    scores = (q @ k.mT * 8**-0.5).masked_fill(~same, -torch.inf)
    assert torch.allclose(mask.lse, scores.logsumexp(-1), atol=1e-5)


def test_approx_d_converges_and_is_exact_with_everything_masked():
    q, k, v = qkv(2, 128, 8)
    _, lse = exact(q, k, v)
    options = {"kappa": 1e6, "cap": 1e9, "scale": 8**-0.5}
    whole = theory.approx_d(q, k, mask_of(q, k, 128), samples=4, generator=stream(), **options)
    assert torch.allclose(whole.double(), lse, atol=1e-5)
    errors = [
        float(
            (theory.approx_d(q, k, mask_of(q, k, 16), samples=m, generator=stream(1), **options) - lse)
            .abs()
            .mean()
        )
        for m in (16, 4096)
    ]
    assert errors[1] < 0.03 < errors[0]


def test_approx_d_has_its_floor_and_its_cap():
    q, k, _ = qkv(1, 128, 8)
    mask = mask_of(q, k, 16)
    options = {"samples": 128, "scale": 8**-0.5}

    def log_d(kappa: float, cap: float) -> Tensor:
        return theory.approx_d(q, k, mask, kappa=kappa, cap=cap, generator=stream(), **options)

    # kappa = 1 says that every row has as much outside the mask as the largest row of the sample.
    scores = (q @ k.mT * 8**-0.5).masked_fill(
        mask.query_block[:, :, None] == mask.key_block[:, None, :], -torch.inf
    )
    t = torch.randint(128, (1, 128), generator=stream())[0]
    tau = scores[:, t].logsumexp(-1).max()
    assert torch.allclose(log_d(1.0, 1e-9), torch.logaddexp(mask.lse, tau), atol=1e-5)
    # With a cap that nothing stays below, all samples count alike: d_i = n C_i times the share outside.
    assert (log_d(1e6, 1e-9) < log_d(1e6, 1e9)).all()


def test_sampled_product_is_unbiased_for_exact_row_sums():
    q, k, v = qkv(1, 64, 8)
    v[:, :8] *= 5
    out, lse = exact(q, k, v)
    estimates = torch.tensor(
        [
            float(
                (
                    theory.sampled_product(q, k, v, lse.float(), samples=32, scale=8**-0.5, generator=g).out
                    * out
                ).sum()
            )
            for g in map(stream, range(400))
        ]
    )
    error = float(estimates.mean()) / float(out.square().sum()) - 1
    assert abs(error) < 3.5 * float(estimates.std() / out.square().sum()) / math.sqrt(400)


def test_values_of_one_norm_that_dominates_are_always_drawn():
    q, k, v = qkv(1, 64, 8)
    v[:, 3] *= 1e6
    _, lse = exact(q, k, v)
    out = theory.sampled_product(
        q, k, v, lse.float(), samples=4, scale=8**-0.5, generator=stream()
    ).out.double()
    assert torch.allclose(out, exact(q, k, v)[0], rtol=1e-3, atol=10.0)


def test_theory_beats_nothing_and_approaches_exact_with_more_samples():
    few, many = (
        run_once(
            HyperAttentionTheory(block=64, samples=m, value_samples=m), SelfAttention(length=512, head_dim=32)
        ).metrics
        for m in (32, 512)
    )
    assert many["operator_error"] < 0.5 * few["operator_error"]
    assert many["lse_error"] < few["lse_error"]
    assert run_once(ExactAttention(), SelfAttention(length=512, head_dim=32)).metrics["operator_error"] < 1e-5


def test_the_triton_kernel_without_triton_is_a_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "methods.attention.hyperattention.fused", raising=False)
    monkeypatch.delattr("methods.attention.hyperattention.fused", raising=False)
    with pytest.raises(MissingPackage, match="triton"):
        prepared(Method(kernel="triton"), SelfAttention(length=64, head_dim=8))
