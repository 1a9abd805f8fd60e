"""NTK-Attention as methods of the catalog: behind a given prefix, learned, and in image classifiers."""

from __future__ import annotations

import sys

import pytest
import torch

from harness.errors import BadOutput, MissingData, MissingModel, MissingPackage, RequestError
from harness.testing import prepared, run_once
from methods.attention.ntk_attention import images
from methods.attention.ntk_attention.adapters import NtkAdapter, PrefixAdapter, adapt, attention_layers
from methods.attention.ntk_attention.algorithm import State
from methods.attention.ntk_attention.baselines import (
    ExactPrefixAttention,
    FullImageAdaptation,
    HeadImageAdaptation,
    LoraImageAdaptation,
    NoPrefix,
    NoPrefixAttention,
    PrefixImageAdaptation,
)
from methods.attention.ntk_attention.method import (
    NtkAttention,
    NtkEmulation,
    NtkImageAdaptation,
    PrefixTraining,
)
from methods.attention.ntk_attention.tasks import (
    Attended,
    AttentionWithPrefix,
    ImageAdaptation,
    PrefixEmulation,
    PrefixRegression,
)

SIZES = {"length": 21, "prefix": 37, "heads": 4, "key_heads": 2, "batch": 3, "head_dim": 8}


@pytest.mark.parametrize("causal", [False, True])
def test_the_exact_baseline_is_one_softmax_over_prefix_and_tokens(causal):
    method = prepared(ExactPrefixAttention(), AttentionWithPrefix(**SIZES, causal=causal, inputs="clustered"))
    x, found = method.inputs.wide(), method.run()
    k, v = (torch.cat([p.expand(3, *p.shape), t], 2) for p, t in ((x.prefix_k, x.k), (x.prefix_v, x.v)))
    scores = x.q @ k.mT * x.scale
    if causal:
        scores = scores.masked_fill(torch.ones(21, 58, dtype=torch.bool).triu(38), -torch.inf)
    assert torch.allclose(found.out.double(), scores.softmax(-1) @ v, atol=1e-5)
    assert torch.allclose(found.lse.double(), scores.logsumexp(-1), atol=1e-5)
    metrics = method.measure(found)
    assert metrics["relative_squared_error"] < 1e-10
    assert metrics["recall"] == 1
    on_prefix = float(scores.softmax(-1)[..., :37].sum(-1).mean())
    assert metrics["prefix_mass"] == pytest.approx(on_prefix, rel=1e-6)
    assert metrics["extra_parameters"] == 2 * 4 * 37 * 8


def test_scores_of_what_leaves_the_prefix_out_and_of_what_stands_for_it():
    task = AttentionWithPrefix(**SIZES)
    without = run_once(NoPrefixAttention(), task).metrics
    assert without["mass_error"] == pytest.approx(without["prefix_mass"])
    assert without["recall"] == pytest.approx(1 - without["prefix_mass"])
    coarse, fine = (run_once(NtkAttention(phi="taylor", degree=g), task).metrics for g in (2, 4))
    assert fine["relative_squared_error"] < 0.3 * coarse["relative_squared_error"] < 0.1
    assert fine["mass_error"] < coarse["mass_error"] < without["mass_error"]


@pytest.mark.parametrize("prefix", [1, 50, 900])
def test_parameters_and_work_do_not_depend_on_the_prefix(prefix):
    task = AttentionWithPrefix(length=32, prefix=prefix, head_dim=64)
    own, other = (run_once(m, task).metrics for m in (NtkAttention(), ExactPrefixAttention()))
    assert own["extra_parameters"] == 64**2 + 64
    assert own["floor_flops"] == 4 * 32**2 * 64 + 2 * 32 * 64 * 65
    assert other["extra_parameters"] == 2 * prefix * 64
    assert other["floor_flops"] == 4 * 32 * (32 + prefix) * 64
    assert other["floor_bytes"] == 4 * (4 * 32 * 64 + 2 * prefix * 64)


def test_half_precision():
    task = AttentionWithPrefix(**SIZES, dtype="bfloat16")
    assert run_once(ExactPrefixAttention(), task).metrics["relative_squared_error"] < 1e-3
    assert run_once(NtkAttention(phi="taylor"), task).metrics["relative_squared_error"] < 0.1


def test_what_is_refused(monkeypatch):
    with pytest.raises(RequestError, match="multiple"):
        AttentionWithPrefix(heads=3, key_heads=2).load(0)
    with pytest.raises(ValueError, match="elu1"):
        prepared(NtkAttention(phi="taylor", kernel="triton"), AttentionWithPrefix(length=4, prefix=4))
    task = AttentionWithPrefix(length=4, prefix=4)
    work = task.load(0)
    with pytest.raises(BadOutput, match="finite"):
        task.score(work, Attended(work.q * float("nan"), work.q[..., 0]))
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "methods.attention.ntk_attention.fused", raising=False)
    monkeypatch.delattr("methods.attention.ntk_attention.fused", raising=False)
    with pytest.raises(MissingPackage, match="triton"):
        prepared(NtkAttention(kernel="triton"), task)


def test_learning_beats_leaving_a_long_prefix_out():
    task = PrefixEmulation(prefix=256, length=8, dim=8, steps=150, sequences=16)
    learned, without = (
        run_once(m, task).metrics["relative_squared_error"] for m in (NtkEmulation(lr=0.1), NoPrefix())
    )
    assert learned < 0.8 * without
    made = run_once(NtkEmulation(phi="taylor", degree=4, start="prefix"), task).metrics
    assert made["relative_squared_error"] < 0.3
    with pytest.raises(ValueError, match="even"):
        run_once(NtkEmulation(phi="taylor", degree=3), task)


def test_training_a_prefix():
    task = PrefixRegression(inputs=12, dim=4, steps=80)
    short, long = (run_once(PrefixTraining(prefix=m), task) for m in (1, 64))
    losses = long.series["loss"].y
    assert losses[-1] < losses[0]
    assert long.metrics["final_loss"] < short.metrics["final_loss"]
    assert long.metrics["kernel_error"] < short.metrics["kernel_error"]
    work = task.load(1000)
    assert torch.allclose(work.x.norm(dim=1), torch.full((12,), 2.0))


# --- image classifiers ---------------------------------------------------------------------------

TINY = {"width": 16, "heads": 2, "layers": 2, "patch": 4, "first_steps": 3, "steps": 4, "batch": 8}


def tiny() -> images.Shape:
    return images.Shape(side=8, channels=1, classes=5, width=16, layers=2, heads=2, patch=4)


def test_adapters_that_say_nothing_change_nothing():
    model, x = tiny().fresh(0), torch.randn(3, 1, 8, 8)
    expected = model(pixel_values=x).logits
    layers = attention_layers(model, pixel_values=x)
    assert [(layer.heads, layer.head_dim) for layer in layers] == [(2, 8), (2, 8)]
    for layer in layers:
        adapt(layer, NtkAdapter(State(torch.zeros(2, 8, 8), torch.zeros(2, 8))))
    assert torch.allclose(model(pixel_values=x).logits, expected, atol=1e-5)
    for layer in layers:
        adapt(layer, PrefixAdapter(2, 4, 8, torch.Generator()))
    assert not torch.allclose(model(pixel_values=x).logits, expected, atol=1e-5)


def test_a_prefix_adapter_under_a_causal_mask():
    q, k, v = torch.randn(3, 2, 2, 6, 8)
    adapter = PrefixAdapter(2, 4, 8, torch.Generator())
    before = adapter(q, k, v, 0.35, True)
    k[:, :, 4:], v[:, :, 4:] = 0, 0
    assert torch.equal(adapter(q, k, v, 0.35, True)[:, :, :4], before[:, :, :4])
    scores = torch.cat([q @ adapter.keys.mT, q @ k.mT], -1)[:, :, 0] * 0.35
    expected = scores[..., :5].softmax(-1)[..., None, :] @ torch.cat(
        [adapter.values.expand(2, -1, -1, -1), v[:, :, :1]], 2
    )
    assert torch.allclose(before[:, :, 0], expected[:, :, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (HeadImageAdaptation(), 0),
        (NtkImageAdaptation(dropout=0.1), 2 * 2 * (8**2 + 8)),
        (NtkImageAdaptation(phi="taylor"), 2 * 2 * 45 * 9),
        (PrefixImageAdaptation(prefix=4), 2 * 2 * 2 * 4 * 8),
        (LoraImageAdaptation(rank=4), 2 * 2 * 2 * 4 * 16),
        (FullImageAdaptation(), None),
    ],
    ids=lambda x: getattr(type(x), "name", ""),
)
def test_each_way_trains_what_it_says_and_nothing_else(method, parameters, tmp_path):
    if method.packages:
        pytest.importorskip("peft")
    task = ImageAdaptation(**TINY)
    prepared(method, task, cache=tmp_path)
    model, own = method._build()
    total = sum(p.numel() for p in model.parameters())
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert trained == {id(p) for p in (*own, *model.classifier.parameters())}
    metrics = method.measure(method.run()).metrics
    head = 16 * 5 + 5
    assert metrics["trained_parameters"] == (total - head if parameters is None else parameters)
    assert 0 <= metrics["accuracy"] <= 1
    assert metrics == method.measure(method.run()).metrics  # from the same state each time


def test_the_parts_of_the_digits():
    task = ImageAdaptation(**TINY)
    one, two, other = task.load(1000), task.load(1000), task.load(1001)
    assert torch.equal(one.train.images, two.train.images)
    assert not torch.equal(one.train.labels, other.train.labels)
    assert len(one.train.labels) == 200
    assert len(one.train.labels) + len(one.test.labels) + len(one.source.labels) == 1797
    assert set(one.test.labels.tolist()) == set(range(5))
    assert ImageAdaptation(**{**TINY, "passes": 2}).length(one) == 50
    with pytest.raises(RequestError, match="patches"):
        ImageAdaptation(patch=3).load(0)
    with pytest.raises(MissingData, match="leave none"):
        ImageAdaptation(images=5000).load(0)
    with pytest.raises(RequestError, match="model"):
        ImageAdaptation(data="cifar100").load(0)
    assert images.ready(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_a_model_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingModel, match="cannot be loaded"):
        prepared(HeadImageAdaptation(), ImageAdaptation(model=str(tmp_path / "none")))
