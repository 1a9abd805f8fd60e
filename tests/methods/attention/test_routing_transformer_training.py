"""The Routing Transformer's models and the tasks that train them."""

from __future__ import annotations

import math

import pytest
import torch

from harness.errors import BadOutput, MissingData, RequestError
from harness.testing import prepared, run_once
from methods.attention.routing_transformer.baselines import (
    FullTransformer,
    HashRoutingTransformer,
    LocalTransformer,
    RandomRoutingTransformer,
    StridedTransformer,
)
from methods.attention.routing_transformer.method import RoutingTransformer
from methods.attention.routing_transformer.model import Shape, SparseTransformer, rotate
from methods.attention.routing_transformer.tasks import KEYS, AssociativeRecall, LongTextTraining
from tests.conftest import needs_data

ARMS = [
    RoutingTransformer,
    RandomRoutingTransformer,
    HashRoutingTransformer,
    LocalTransformer,
    StridedTransformer,
    FullTransformer,
]
SMALL = {"steps": 3, "batch": 2, "width": 16, "feed_forward": 16, "block": 16, "clusters": 4, "window": 32}


def model(other: str = "routing", **changes: object) -> SparseTransformer:
    shape = {
        "vocabulary": 11,
        "layers": 2,
        "width": 16,
        "heads": 2,
        "others": 1,
        "other": other,
        "local_layers": 0,
        "feed_forward": 8,
        "block": 4,
        "clusters": 2,
        "window": 6,
        **changes,
    }
    torch.manual_seed(0)
    return SparseTransformer(Shape(**shape), torch.Generator().manual_seed(0))


def test_sequences_hold_every_pair_twice_and_far_apart():
    work = AssociativeRecall(length=512, pairs=24, test_sequences=50).load(3)
    assert work.tokens.shape == (50, 512)
    assert work.answers.shape == (50, 24)
    for tokens, answers in zip(work.tokens.tolist(), work.answers.tolist(), strict=True):
        assert sum(t < KEYS for t in tokens) == 48
        for at in answers:
            key, value = tokens[at - 1], tokens[at]
            first = tokens.index(key)
            assert tokens.count(key) == 2
            assert tokens[first + 1] == value
            assert KEYS <= value < 2 * KEYS
            assert at - (first + 1) > 128
    with pytest.raises(RequestError, match="pairs need a length"):
        AssociativeRecall(length=200).load(0)


def test_recall_counts_second_values():
    task = AssociativeRecall(length=146, pairs=4, test_sequences=3)
    work = task.load(0)
    right = torch.nn.functional.one_hot(work.tokens[:, 1:], 256).double().log()
    assert task.score(work, right)["accuracy"] == 1.0
    assert task.score(work, right.roll(1, 1))["accuracy"] < 0.2
    with pytest.raises(BadOutput, match="shape"):
        task.score(work, right[:, 1:])


@pytest.mark.parametrize("other", ["routing", "random", "hash", "strided", "local", "full"])
@pytest.mark.parametrize("variant", ["default", "official"])
def test_the_future_is_seen_through_membership_alone(other, variant):
    net = model(other, variant=variant, token_shift=True).eval()
    tokens = torch.randint(11, (2, 13), generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 11
    same = torch.allclose(net(tokens)[:, :9], net(changed)[:, :9], atol=1e-5)
    assert same or other in ("routing", "random", "hash")
    assert not torch.allclose(net(tokens)[:, 9:], net(changed)[:, 9:], atol=1e-5)
    if other in ("routing", "random", "hash"):
        # With one cluster of everything there is no membership to leak.
        whole = model(other, variant=variant, clusters=1, window=13).eval()
        assert torch.allclose(whole(tokens)[:, :9], whole(changed)[:, :9], atol=1e-5)


def test_batches_do_not_mix():
    net = model().eval()
    tokens = torch.randint(11, (3, 12), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(net(tokens)[1:2], net(tokens[1:2]), atol=1e-5)


def test_centroids_move_in_training_only_and_by_no_gradient():
    net = model(layers=1)
    tokens = torch.randint(11, (3, 12), generator=torch.Generator().manual_seed(1))
    (heads,) = [h for h in net.layers[0].kinds if h.kind == "routing"]
    before = heads.centroids.means.clone()
    net.eval()(tokens)
    assert torch.equal(heads.centroids.means, before)
    out = net.train()(tokens)
    assert not torch.equal(heads.centroids.means, before)
    assert float(net.commitment()) > 0
    (out.sum() + net.commitment()).backward()
    assert all(p.grad is not None for p in net.parameters())
    assert not any("centroids" in name for name, _ in net.named_parameters())
    frozen = model("random", layers=1).train()
    (heads,) = [h for h in frozen.layers[0].kinds if h.kind == "random"]
    before = heads.centroids.means.clone()
    frozen(tokens)
    assert torch.equal(heads.centroids.means, before)


def test_local_layers_and_shapes_that_do_not_fit():
    net = model(layers=3, local_layers=2)
    assert [[h.kind for h in layer.kinds] for layer in net.layers] == [
        ["local"],
        ["local"],
        ["local", "routing"],
    ]
    with pytest.raises(RequestError, match="twice the heads"):
        model(width=18)
    with pytest.raises(RequestError, match="heads cannot"):
        model(others=3)
    with pytest.raises(RequestError, match="power of two"):
        model("hash", clusters=3)


def test_rotation_depends_on_distance_alone():
    q, k = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0))
    turned_q, turned_k = (rotate(x.expand(20, 8)) for x in (q, k))
    scores = turned_q @ turned_k.T
    assert torch.allclose(scores[5, 2], scores[15, 12], atol=1e-5)
    assert torch.allclose(turned_q.norm(dim=-1), q.norm().expand(20), atol=1e-5)


@pytest.mark.parametrize("kind", ARMS, ids=lambda k: k.name)
def test_every_kind_trains_and_repeats_itself(kind):
    task = AssociativeRecall(length=160, pairs=4, test_sequences=4)
    method = prepared(kind(**SMALL), task)
    one, two = method.run(), method.run()
    assert torch.equal(one, two)
    result = method.measure(one)
    assert 0 <= result.metrics["accuracy"] <= 1
    assert len(result.series["loss"].y) == 3
    assert result.series["loss"].y[0] == pytest.approx(math.log(256), abs=2.0)


@pytest.mark.slow
def test_the_loss_of_the_routing_transformer_falls():
    task = AssociativeRecall(length=160, pairs=4, test_sequences=4)
    losses = run_once(
        RoutingTransformer(**SMALL | {"steps": 80, "width": 32, "variant": "official", "dropout": 0.1}), task
    ).series["loss"]
    assert sum(losses.y[-10:]) < 0.95 * sum(losses.y[:10])


@needs_data("gutenberg-novels")
def test_text_is_scored_in_bits_and_by_words():
    task = LongTextTraining(length=64, test_windows=3)
    work = task.load(0)
    uniform = torch.full((3, 64, 256), -math.log(256.0))
    scores = task.score(work, uniform)
    assert scores["bits_per_byte"] == pytest.approx(8.0, abs=1e-5)
    windows = [bytes(w) for w in work.test.tolist()]
    spaces = (b" ", b"\n")
    ends = sum(
        (w[i : i + 1] in spaces and w[i - 1 : i] not in spaces) + (w[i : i + 1] == b"\n")
        for w in windows
        for i in range(1, 65)
    )
    assert math.log(scores["word_perplexity"]) == pytest.approx(min(700, 192 * math.log(256) / ends), rel=1e-4)
    with pytest.raises(BadOutput, match="shape"):
        task.score(work, uniform[:2])
    result = run_once(RoutingTransformer(**SMALL, precision="bfloat16"), task).metrics
    assert 3 < result["bits_per_byte"] < 12


def test_text_that_is_not_here_is_missing_data(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    with pytest.raises(MissingData):
        LongTextTraining(corpus="wikitext-103").load(0)
