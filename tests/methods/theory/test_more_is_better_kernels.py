"""Kernels of infinitely wide networks against loops over pixels and against wide networks themselves."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.theory import arc_cosine
from methods.theory.more_is_better import cntk
from methods.theory.more_is_better.cntk import MyrtleKernel
from methods.theory.more_is_better.kernels import fully_connected, myrtle_gram, network_gram


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_arc_cosine_kernels_by_monte_carlo() -> None:
    u, w = normal(2, 400_000)
    for rho in (-0.9, -0.2, 0.0, 0.5, 0.99):
        v = rho * u + math.sqrt(1 - rho**2) * w
        zero, one = arc_cosine.both(torch.tensor(rho, dtype=torch.float64))
        assert float(zero) == pytest.approx(float(2 * ((u > 0) & (v > 0)).double().mean()), abs=8e-3)
        assert float(one) == pytest.approx(float(2 * (u.relu() * v.relu()).mean()), abs=1.5e-2)
        assert float(arc_cosine.kappa_1(torch.tensor(rho, dtype=torch.float64))) == float(one)


def empirical_ntk(network: torch.nn.Module, inputs: Tensor) -> Tensor:
    """Inner products of the gradients of the network's one output at each input."""
    rows = []
    for x in inputs:
        network.zero_grad()
        network(x[None]).sum().backward()
        rows.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    gradients = torch.stack(rows)
    return gradients @ gradients.T


class Wide(torch.nn.Module):
    """Fully connected, NTK parametrisation: standard normal parameters, scaled in the forward pass."""

    def __init__(self, inputs: int, width: int, depth: int, seed: int) -> None:
        super().__init__()
        sizes = [inputs] + [width] * depth + [1]
        self.weights = torch.nn.ParameterList(
            [normal(b, a, seed=seed * 100 + i) for i, (a, b) in enumerate(itertools.pairwise(sizes))]
        )

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.weights
        for weight in hidden:
            x = F.relu(x @ weight.T * math.sqrt(2 / x.shape[1]))
        return x @ last.T / math.sqrt(x.shape[1])


def test_fully_connected_ntk_of_a_wide_network() -> None:
    x = normal(4, 10, seed=3)
    kernel = fully_connected(x, x, depth=2, kind="ntk")
    measured = torch.stack([empirical_ntk(Wide(10, 1000, 2, seed), x) for seed in range(6)]).mean(0)
    np.testing.assert_allclose(measured, kernel, rtol=0.05, atol=0.05)


def test_fully_connected_limits() -> None:
    x = normal(5, 7)
    linear = x @ x.T / 7
    torch.testing.assert_close(fully_connected(x, x, 0, "ntk"), linear)
    torch.testing.assert_close(fully_connected(x, x, 0, "nngp"), linear)
    for depth in (1, 3):
        torch.testing.assert_close(fully_connected(x, x, depth, "nngp").diag(), linear.diag())
        torch.testing.assert_close(
            fully_connected(x, x, depth, "ntk").diag(), (depth + 1) * linear.diag(), rtol=1e-6, atol=1e-6
        )
    # Without biases the kernel is homogeneous of degree one in each argument.
    torch.testing.assert_close(fully_connected(3 * x, x, 3, "ntk"), 3 * fully_connected(x, x, 3, "ntk"))


def test_gram_in_blocks_is_symmetric_positive_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = normal(9, 4, 4, 1), normal(5, 4, 4, 1, seed=1)
    whole = network_gram(train, test, "ntk", 3)
    monkeypatch.setattr("methods.theory.more_is_better.kernels._ROWS", 4)
    for a, b in zip(network_gram(train, test, "ntk", 3), whole, strict=True):
        torch.testing.assert_close(a, b)
    assert whole[0].equal(whole[0].T)
    assert torch.linalg.eigvalsh(whole[0])[0] > 0


# The same recursion as the paper's network, pixel by pixel.


def looped_myrtle(x: np.ndarray, y: np.ndarray, layers: list[str]) -> float:
    """The Myrtle NTK of two images [h, w, c], with dictionaries over pairs of pixels."""

    def pixels(size: int) -> list[tuple[int, int]]:
        return [(i, j) for i in range(size) for j in range(size)]

    def covariances(a: np.ndarray, b: np.ndarray) -> dict:
        here = pixels(len(a))
        return {(p, q): float(a[p] @ b[q]) / a.shape[2] for p in here for q in here}

    def convolve(c: dict) -> dict:
        offsets = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        return {
            (p, q): sum(c.get(((p[0] + i, p[1] + j), (q[0] + i, q[1] + j)), 0.0) for i, j in offsets) / 9
            for p, q in c
        }

    def pool(c: dict, size: int) -> dict:
        inside = [(i, j) for i in (0, 1) for j in (0, 1)]

        def block(p: tuple[int, int]) -> list[tuple[int, int]]:
            return [(2 * p[0] + i, 2 * p[1] + j) for i, j in inside]

        here = pixels(size // 2)
        return {(p, q): sum(c[a, b] for a in block(p) for b in block(q)) / 16 for p in here for q in here}

    size = len(x)
    sigma = {"xx": covariances(x, x), "xy": covariances(x, y), "yy": covariances(y, y)}
    theta = dict.fromkeys(sigma["xy"], 0.0)
    for layer in layers:
        if layer == "pool":
            sigma = {name: pool(c, size) for name, c in sigma.items()}
            theta, size = pool(theta, size), size // 2
            continue
        sigma = {name: convolve(c) for name, c in sigma.items()}
        theta = {key: value + sigma["xy"][key] for key, value in convolve(theta).items()}
        own = {name: {p: sigma[name][p, p] for p in pixels(size)} for name in ("xx", "yy")}
        new = {}
        for name, c in sigma.items():
            first, second = own[name[0] * 2], own[name[1] * 2]
            new[name] = {}
            for (p, q), value in c.items():
                scale = math.sqrt(first[p] * second[q])
                angle = math.acos(max(-1.0, min(1.0, value / scale)))
                new[name][p, q] = scale / math.pi * (math.sin(angle) + (math.pi - angle) * math.cos(angle))
                if name == "xy":
                    theta[p, q] *= (math.pi - angle) / math.pi
        sigma = new
    here = pixels(size)
    return sum(sigma["xy"][p, p] + theta[p, p] for p in here) / len(here)


@pytest.mark.parametrize("depth", [5, 7, 10])
def test_myrtle_against_loops_over_pixels(depth: int) -> None:
    images, others = normal(2, 8, 8, 2), normal(1, 8, 8, 2, seed=1)
    own, cross = myrtle_gram(images, others, depth, "float64", pair_batch=2)
    layers = MyrtleKernel(depth=depth).layers(8)
    a, b, c = images[0].numpy(), images[1].numpy(), others[0].numpy()
    assert float(own[0, 1]) == pytest.approx(looped_myrtle(a, b, layers), rel=1e-9)
    assert float(own[0, 0]) == pytest.approx(looped_myrtle(a, a, layers), rel=1e-7)
    assert float(cross[0, 1]) == pytest.approx(looped_myrtle(c, b, layers), rel=1e-9)


class WideMyrtle(torch.nn.Module):
    """A Myrtle-5 network of finite width, NTK parametrisation."""

    def __init__(self, channels: int, width: int, layers: list[str], seed: int) -> None:
        super().__init__()
        self.layers = layers
        sizes = [channels] + [width] * layers.count("conv")
        self.weights = torch.nn.ParameterList(
            [normal(b, a, 3, 3, seed=seed * 100 + i) for i, (a, b) in enumerate(itertools.pairwise(sizes))]
        )
        self.last = torch.nn.Parameter(normal(1, width, seed=seed * 100 + 99))

    def forward(self, x: Tensor) -> Tensor:
        weights = iter(self.weights)
        x = x.permute(0, 3, 1, 2)
        for layer in self.layers:
            if layer == "pool":
                x = F.avg_pool2d(x, 2)
            else:
                x = F.relu(F.conv2d(x, next(weights), padding=1) * math.sqrt(2 / (9 * x.shape[1])))
        x = x.flatten(1)
        return x @ self.last.T / math.sqrt(x.shape[1])


def test_myrtle_ntk_of_a_wide_network() -> None:
    images = normal(3, 8, 8, 2, seed=5)
    network = MyrtleKernel(depth=5)
    kernel = network.symmetric(network.prepare(images))
    measured = torch.stack(
        [empirical_ntk(WideMyrtle(2, 80, network.layers(8), seed), images) for seed in range(10)]
    ).mean(0)
    np.testing.assert_allclose(measured, kernel, rtol=0.08)


def test_myrtle_batches_and_precision() -> None:
    images = normal(4, 10, 10, 1)
    whole = myrtle_gram(images, images[:2], 7, "float64", pair_batch=1000)
    for precision, tolerance in (("float64", 1e-12), ("float32", 1e-4)):
        for a, b in zip(whole, myrtle_gram(images, images[:2], 7, precision, pair_batch=3), strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    # A test image that is a training image has that image's row.
    torch.testing.assert_close(whole[1], whole[0][:2], rtol=1e-6, atol=1e-6)


def test_myrtle_layers() -> None:
    assert MyrtleKernel(depth=10).layers(32).count("pool") == 5
    assert MyrtleKernel(depth=10).layers(28).count("pool") == 4
    assert [MyrtleKernel(depth=d).layers(32).count("conv") for d in (5, 7, 10)] == [4, 6, 9]
    with pytest.raises(ValueError, match="have depth"):
        MyrtleKernel(depth=6).layers(32)
    with pytest.raises(ValueError, match="at least 8 x 8"):
        MyrtleKernel(depth=5).layers(6)


def test_blank_images_have_no_kernel() -> None:
    images = torch.cat([torch.zeros(1, 8, 8, 1), normal(1, 8, 8, 1, dtype=torch.float32)])
    own, _ = myrtle_gram(images, images, 5, "float32", 4)
    assert own[0].tolist() == [0.0, 0.0]
    assert float(own[1, 1]) > 0


def test_diagonal_of_covariances() -> None:
    c = normal(2, 3, 3, 3, 3)
    assert float(cntk.diagonal(c)[1, 2, 0]) == float(c[1, 2, 0, 2, 0])
