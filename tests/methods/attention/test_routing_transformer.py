"""The Routing Transformer: clusters, attention inside them, patterns to compare with, and single layers."""

from __future__ import annotations

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.errors import MissingPackage, RequestError
from harness.testing import prepared, run_once
from methods.attention.baselines import ExactAttention, LocalWindowAttention
from methods.attention.inputs import shared_clusters
from methods.attention.routing_transformer import routing
from methods.attention.routing_transformer.attend import (
    block_attention,
    routed_attention,
    strided_attention,
)
from methods.attention.routing_transformer.baselines import (
    BlockLocalAttention,
    HashRoutingAttention,
    RandomRoutingAttention,
    StridedAttention,
)
from methods.attention.routing_transformer.method import RoutingAttention
from methods.attention.tasks import SelfAttention, SelfAttentionGradient


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=stream(seed), dtype=dtype)


def masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    scores = (q @ k.mT * scale).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).nan_to_num() @ v


def triangle(n: int) -> Tensor:
    return torch.ones(n, n, dtype=torch.bool).tril()


def brute(q, k, v, members, keys, scale, causal, self_mask, eps) -> Tensor:
    """Token by token and cluster by cluster."""
    heads, n, _ = q.shape
    out = torch.zeros_like(v)
    for h in range(heads):
        count = torch.zeros(n)
        for own, others in zip(members[h].tolist(), keys[h].tolist(), strict=True):
            for i in own:
                seen = [j for j in others if not causal or j <= i]
                if self_mask and i in seen and len(seen) > 1:
                    seen.remove(i)
                count[i] += 1
                if seen:
                    weight = (q[h, i] @ k[h, seen].T * scale).softmax(-1)
                    out[h, i] += weight @ v[h, seen]
        out[h] /= (count + eps).clamp(min=1e-30)[:, None]
    return out


# --- clusters --------------------------------------------------------------------------------------


def test_normalised_vectors_have_norm_sqrt_d_and_the_nearest_centroid_has_the_largest_product():
    x = routing.normalise(normal(2, 50, 64) * 3 + 1)
    assert torch.allclose(x.norm(dim=-1), torch.tensor(8.0, dtype=torch.float64), atol=1e-4)
    mu = routing.random_centroids(2, 9, 64, stream()).double()
    assert torch.allclose(mu.norm(dim=-1), torch.tensor(8.0, dtype=torch.float64), atol=1e-5)
    near = torch.cdist(x, mu).argmin(-1)
    assert torch.equal(routing.similarities(x, mu).argmax(1), near)


def test_worked_routing():
    x = torch.tensor([[[1, 0], [0.8, 0.6], [-1, 0], [-0.6, 0.8]]])
    mu = torch.tensor([[[1.0, 0], [-1, 0]]])
    scores = routing.similarities(x, mu)
    assert torch.allclose(scores[0, 0], torch.tensor([1, 0.8, -1, -0.6]))
    assert routing.balanced_members(scores, 2).tolist() == [[[0, 1], [2, 3]]]
    centroids = routing.Centroids(mu, decay=0.9, rule="means")
    centroids.update(x)
    assert torch.allclose(centroids.means, torch.tensor([[[0.99, 0.03], [-0.98, 0.04]]]), atol=1e-6)


def test_equation_averages_the_means_of_queries_and_of_keys():
    mu = torch.tensor([[[1.0, 0], [-1, 0], [0, -9]]])
    q, k = torch.tensor([[[1.0, 1], [-2, 0]]]), torch.tensor([[[3.0, 0], [1, 0]]])
    centroids = routing.Centroids(mu, decay=0.8, rule="means")
    centroids.update(q, k)
    first = 0.8 * mu[0, 0] + 0.1 * torch.tensor([1.0, 1]) + 0.1 * torch.tensor([2.0, 0])
    second = mu[0, 1] + 0.1 * (torch.tensor([-2.0, 0]) - mu[0, 1])  # no key is near it
    assert torch.allclose(centroids.means[0], torch.stack([first, second, mu[0, 2]]), atol=1e-6)


def test_averaged_counts_and_sums():
    mu = torch.tensor([[[1.0, 0], [-1, 0]]])
    centroids = routing.Centroids(mu, decay=0.5)
    x = torch.tensor([[[2.0, 0], [4.0, 2.0], [9.0, 9.0]]])
    centroids.update(x, real=torch.tensor([[True, True, False]]))  # padding moves nothing
    # counts 0.5 * 1 + 0.5 * 2 and 0.5, sums 0.5 * mu + 0.5 * (6, 2) and 0.5 * mu
    n, smooth = 2.0, 1e-5
    counts = torch.tensor([1.5, 0.5])
    expected = torch.tensor([[3.5, 1.0], [-0.5, 0.0]]) / ((counts + smooth) / (n + 2 * smooth) * n)[:, None]
    assert torch.allclose(centroids.means[0], expected, atol=1e-6)


def test_padding_is_in_no_cluster():
    scores = normal(2, 4, 10)
    real = torch.ones(2, 10, dtype=torch.bool)
    real[:, 6:] = False
    assert int(routing.balanced_members(scores, 5, real).max()) < 6
    with pytest.raises(RequestError, match="7 tokens in a sequence of 6"):
        routing.balanced_members(scores, 7, real)


def test_clusters_of_n_over_c_are_n_slots_and_cover_what_they_can():
    n, c, d = 1024, 32, 64
    x = routing.normalise(normal(1, n, d))
    members = routing.balanced_members(
        routing.similarities(x, routing.random_centroids(1, c, d, stream(1)).double()), n // c
    )
    assert members.numel() == n
    assert (members.diff(dim=-1) > 0).all()
    assert len(members.unique()) / n == pytest.approx(1 - 1 / math.e, abs=0.06)
    centres = torch.eye(d)[:c].double() * 8
    separated = centres.repeat(n // c, 1)[None] + 0.1 * normal(1, n, d)
    members = routing.balanced_members(routing.similarities(separated, centres[None]), n // c)
    assert len(members.unique()) == n


def test_k_means_finds_separated_clusters_and_keeps_empty_ones():
    x = shared_clusters(0, 2, 800, 32)
    mu = routing.k_means(x, 64, 10, stream())
    assert torch.allclose(mu.norm(dim=-1), torch.tensor(32.0).sqrt(), atol=0.2)
    cosine = (routing.similarities(x, mu).amax(1) / 32).mean()
    assert cosine > 0.9
    same = torch.ones(1, 10, 4)
    same[..., 0] = 2
    assert routing.k_means(routing.normalise(same), 3, 2, stream()).isfinite().all()
    with pytest.raises(RequestError, match="clusters of"):
        routing.k_means(x, 900, 1, stream())


def test_online_centroids_converge():
    x = shared_clusters(0, 1, 64 * 256, 64)
    centroids = routing.Centroids(routing.random_centroids(1, 32, 64, stream()), decay=0.9)
    distances = []
    for step in range(60):
        distances.append(float(routing.commitment(x[:, :4096], centroids.means)))
        centroids.update(x[:, 256 * step : 256 * (step + 1)])
    tens = torch.tensor(distances).view(6, 10).mean(1)
    # Sampling noise of 256 tokens under a decay of 0.9 is left once they have converged.
    assert (tens.diff() < 0.01 * tens[0]).all()
    assert tens[-1] < 0.6 * tens[0]


def test_centroids_get_no_gradient():
    x = shared_clusters(0, 1, 32, 64).requires_grad_()
    centroids = routing.Centroids(routing.random_centroids(1, 8, 64, stream()))
    (gradient,) = torch.autograd.grad(routing.commitment(x, centroids.means), x)
    best = routing.similarities(x, centroids.means).argmax(1)
    target = centroids.means.take_along_dim(best[..., None], 1)
    assert torch.allclose(gradient, 2 * (x - target) / x.numel(), atol=1e-6)
    centroids.update(x)
    assert not centroids.means.requires_grad
    assert not list(centroids.parameters())


def test_cost_is_least_at_the_square_root():
    assert [routing.pairs(4096, c) for c in (16, 64, 256)] == [1_114_112, 524_288, 1_114_112]
    ratios = [n * n / routing.pairs(n, round(n**0.5)) for n in (1024, 4096, 16384)]
    assert ratios == [16, 32, 64]


def test_hash_codes_are_signs_of_orthogonal_projections():
    directions = routing.projections(16, 4, stream())
    assert torch.allclose(directions.T @ directions, torch.eye(4), atol=1e-5)
    x = torch.stack([directions[:, 2], -directions.sum(1)])[None]
    codes = routing.codes_of(x, directions)
    assert int(codes[0, 1]) == 0
    assert (int(codes[0, 0]) >> 2) & 1 == 1
    scores = routing.code_scores(x, torch.tensor([[3, 1]]), 4)
    assert scores[0].argmax(1)[[3, 1]].tolist() == [0, 1]
    with pytest.raises(RequestError, match="projections"):
        routing.projections(4, 5, stream())


# --- attention in clusters -------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_one_cluster_of_everything_is_full_attention(causal):
    q, k, v = (normal(2, 33, 16, seed=s) for s in range(3))
    members = torch.arange(33).expand(2, 1, 33)
    options = {"scale": 0.25, "causal": causal, "self_mask": False, "eps": 0.0}
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=0.25)
    shared = routed_attention(q, q, v, members, **options)
    assert torch.allclose(
        shared, F.scaled_dot_product_attention(q, q, v, is_causal=causal, scale=0.25), atol=1e-12
    )
    assert torch.allclose(routed_attention(q, k, v, members, members.clone(), **options), expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 12),
    clusters=st.integers(1, 4),
    share=st.floats(0, 1),
    separate=st.booleans(),
    causal=st.booleans(),
    self_mask=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_attention_in_clusters_is_the_definition(n, clusters, share, separate, causal, self_mask, seed):
    w = max(1, round(share * n))
    q, k, v = (normal(2, n, 4, seed=seed + s) for s in range(3))
    members = routing.balanced_members(normal(2, clusters, n, seed=seed + 3), w)
    keys = routing.balanced_members(normal(2, clusters, n, seed=seed + 4), max(1, w - 1)) if separate else None
    k = k if separate else q
    found = routed_attention(q, k, v, members, keys, scale=0.5, causal=causal, self_mask=self_mask, eps=1e-2)
    expected = brute(q, k, v, members, members if keys is None else keys, 0.5, causal, self_mask, 1e-2)
    assert torch.allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("self_mask", [False, True])
def test_gradients_are_those_of_finite_differences(separate, self_mask):
    q, k, v = (normal(1, 7, 3, seed=s).requires_grad_() for s in range(3))
    members = routing.balanced_members(normal(1, 3, 7), 4)
    keys = routing.balanced_members(normal(1, 3, 7, seed=1), 3) if separate else None

    def out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return routed_attention(q, k, v, members, keys, scale=0.6, causal=True, self_mask=self_mask)

    assert torch.autograd.gradcheck(out, (q, k, v))


def test_rank_bias_is_added_by_rank():
    q, v = normal(1, 6, 4), normal(1, 6, 4, seed=1)
    members = torch.tensor([[[0, 2, 5]]])
    bias = normal(1, 1, 3, 3, seed=2)
    found = routed_attention(q, q, v, members, scale=1.0, causal=True, self_mask=False, rank_bias=bias, eps=0.0)
    own = q[:, members[0, 0]]
    scores = (own @ own.mT + bias[0]).masked_fill(~triangle(3), -torch.inf)
    assert torch.allclose(found[:, members[0, 0]], scores.softmax(-1) @ v[:, members[0, 0]])
    assert float(found[:, [1, 3, 4]].abs().max()) == 0
    with pytest.raises(RequestError, match="no separate"):
        routed_attention(
            q, q, v, members, members.clone(), scale=1.0, causal=True, self_mask=False, rank_bias=bias
        )
    with pytest.raises(RequestError, match="no backward"):
        routed_attention(q, q, v, members, scale=1.0, causal=True, rank_bias=bias, kernel="triton")


def test_values_never_leak_and_keys_only_through_membership():
    n = 40
    x, v = routing.normalise(normal(1, n, 8)), normal(1, n, 8, seed=1)
    mu = routing.random_centroids(1, 4, 8, stream(2)).double()
    members = routing.balanced_members(routing.similarities(x, mu), 10)

    def out(x: Tensor, v: Tensor, members: Tensor) -> Tensor:
        return routed_attention(x, x, v, members, scale=0.3, causal=True)

    before = out(x, v, members)
    t = int(members[0, 0, 5])
    changed = v.clone()
    changed[:, t] += 100
    after = out(x, changed, members)
    assert torch.equal(after[:, :t], before[:, :t])
    assert not torch.equal(after[:, t:], before[:, t:])
    # The key of the last token: it now surely is in a cluster, in place of a token before it.
    t = n - 1
    cluster = next(c for c in range(4) if t not in members[0, c])
    moved = x.clone()
    moved[:, t] = mu[:, cluster]
    assert torch.equal(out(moved, v, members)[:, :t], before[:, :t])
    other = routing.balanced_members(routing.similarities(moved, mu), 10)
    assert not torch.equal(out(moved, v, other)[:, :t], before[:, :t])


def test_the_kernel_without_triton_is_a_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "methods.attention.routing_transformer.kernel", raising=False)
    monkeypatch.delattr("methods.attention.routing_transformer.kernel", raising=False)
    x = normal(1, 4, 2)
    with pytest.raises(MissingPackage, match="triton"):
        routed_attention(x, x, x, torch.zeros(1, 1, 1).long(), scale=1.0, causal=True, kernel="triton")


# --- the other patterns ----------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 23), size=st.integers(1, 9), causal=st.booleans(), seed=st.integers(0, 2**16))
def test_blocks_and_strides_are_their_masks(n, size, causal, seed):
    q, k, v = (normal(2, n, 4, seed=seed + s) for s in range(3))
    place = torch.arange(n)
    own = place[:, None] // min(size, n)
    blocks = (own == own.T) | (own - 1 == own.T)
    strides = (place[:, None] - place) % size == 0
    visible = triangle(n) if causal else torch.ones(n, n, dtype=torch.bool)
    found = block_attention(q, k, v, size, scale=0.5, causal=causal)
    assert torch.allclose(found, masked(q, k, v, blocks & visible, 0.5), atol=1e-10)
    found = strided_attention(q, k, v, size, scale=0.5, causal=causal)
    assert torch.allclose(found, masked(q, k, v, strides & visible, 0.5), atol=1e-10)


# --- layers ----------------------------------------------------------------------------------------


def test_recall_on_clusters_is_far_above_random_clusters_and_a_window():
    task = SelfAttention(length=1024, inputs="shared-clusters", causal=True)
    methods = {
        "routing": RoutingAttention(self_mask=False),
        "random": RandomRoutingAttention(self_mask=False),
        "centroids": RandomRoutingAttention(by="centroids", self_mask=False),
        "hash": HashRoutingAttention(self_mask=False),
        "blocks": BlockLocalAttention(block=11),
        "window": LocalWindowAttention(window=32),
        "strides": StridedAttention(stride=32),
    }
    scores = {name: run_once(method, task).metrics for name, method in methods.items()}
    for name in ("random", "blocks", "window", "strides"):
        assert scores["routing"]["mass_recall"] > 2 * scores[name]["mass_recall"]
    assert scores["routing"]["relative_error"] < scores["random"]["relative_error"]
    assert scores["routing"]["scored_pairs"] == routing.pairs(1024, 32)
    assert scores["random"]["kept_share"] == pytest.approx(32 * 32 * 33 / (1024 * 1025))


@pytest.mark.parametrize(
    "method",
    [
        RoutingAttention(clusters=1, self_mask=False),
        RandomRoutingAttention(clusters=1, self_mask=False),
        HashRoutingAttention(clusters=1, self_mask=False),
        BlockLocalAttention(block=200),
        LocalWindowAttention(window=200),
        StridedAttention(stride=1),
    ],
    ids=lambda m: m.name,
)
@pytest.mark.parametrize(("inputs", "key_heads"), [("shared-clusters", 0), ("clustered", 1)])
def test_with_everything_kept_a_layer_is_exact(method, inputs, key_heads):
    task = SelfAttentionGradient(
        length=101, heads=2, key_heads=key_heads, batch=2, head_dim=16, causal=True, inputs=inputs
    )
    scores = run_once(method, task).metrics
    assert scores["relative_error"] < 2e-5
    assert scores["gradient_error"] < 2e-5
    assert scores["mass_recall"] == pytest.approx(1.0, abs=1e-5)
    assert scores["kept_share"] == pytest.approx(1.0)


@pytest.mark.parametrize("self_mask", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_kept_pairs_are_those_that_change_the_output(self_mask, causal):
    task = SelfAttention(length=21, head_dim=4, inputs="clustered", causal=causal)
    method = prepared(RoutingAttention(clusters=3, window=7, self_mask=self_mask), task)
    rows = torch.arange(21)
    kept = method.kept(rows)
    if causal:
        kept = kept & triangle(21)
    x = method.inputs
    v = torch.eye(21)[None].clone()  # the output is the matrix of weights
    weights = method.attention(x.q, x.k, v, causal=causal, scale=0.01)
    assert torch.equal(weights > 0, kept)


def test_half_precision_is_close_to_single():
    fine, coarse = (
        run_once(
            RoutingAttention(self_mask=False),
            SelfAttention(length=300, head_dim=32, inputs="shared-clusters", causal=True, dtype=dtype),
        ).metrics
        for dtype in ("float32", "bfloat16")
    )
    assert coarse["mass_recall"] == pytest.approx(fine["mass_recall"], abs=0.05)
    assert coarse["relative_error"] == pytest.approx(fine["relative_error"], rel=0.3)


def test_parameters_that_do_not_fit():
    task = SelfAttention(length=16, head_dim=8)
    with pytest.raises(RequestError, match="power of two"):
        prepared(HashRoutingAttention(clusters=3), task)
    with pytest.raises(RequestError, match="in a sequence of 16"):
        prepared(RoutingAttention(clusters=2, window=17), task)
    with pytest.raises(RequestError, match="shared queries and keys"):
        prepared(ExactAttention(), SelfAttention(length=8, heads=2, key_heads=1, inputs="shared-clusters"))
