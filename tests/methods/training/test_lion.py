"""Lion and its baselines against worked examples, closed forms, limits and the lion-pytorch package."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from harness.testing import prepared, run_once
from methods.training.baselines import (
    Adafactor,
    AdamW,
    AdamWFused,
    SGDMomentum,
    SignumTraining,
)
from methods.training.lion.method import LionTraining
from methods.training.lion.optimizer import Lion
from methods.training.lion.tasks import OptimizerUpdates
from methods.training.loop import state_bytes
from methods.training.signum import Signum
from methods.training.tasks import (
    CharacterLanguageModel,
    ImageClassification,
    OptimizerStep,
)
from tests.conftest import needs_data


def path(make, start, gradients):
    """Parameters after each step of `make(parameters)` along given gradients, and the optimizer."""
    parameter = nn.Parameter(torch.as_tensor(start).clone())
    optimizer = make([parameter])
    visited = []
    for gradient in gradients:
        parameter.grad = torch.as_tensor(gradient).to(parameter)
        optimizer.step()
        visited.append(parameter.detach().clone())
    return torch.stack(visited), optimizer


def scalar_path(make, start, gradients):
    thetas, optimizer = path(make, torch.tensor([start], dtype=torch.float64), [[g] for g in gradients])
    return thetas[:, 0].tolist(), optimizer


def gradients_like(shape, steps, seed=0, dtype=torch.float64):
    return torch.randn(steps, *shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


# --- the update rule ---------------------------------------------------------------------------------


def test_worked_example_of_parameters_and_momentum():
    momenta = []
    parameter = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = Lion([parameter], lr=0.1, weight_decay=0.1)
    thetas = []
    for gradient in (0.5, -2.0, 0.1, 0.0):
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        thetas.append(parameter.item())
        momenta.append(optimizer.state[parameter]["momentum"].item())
    assert thetas == pytest.approx([0.89, 0.9811, 1.071289, 1.16057611], rel=1e-12)
    assert momenta == pytest.approx([0.005, -0.01505, -0.0138995, -0.013760505], rel=1e-12)


def test_momentum_is_updated_after_the_step():
    # With the momentum updated first, the third theta would be -0.1.
    thetas, _ = scalar_path(lambda p: Lion(p, lr=0.1), 0.0, [1.0, -0.08, -0.08])
    assert thetas == pytest.approx([-0.1, -0.2, -0.3], rel=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    lr=st.floats(1e-5, 1e-1),
    betas=st.tuples(st.floats(0.0, 0.999), st.floats(0.0, 0.999)),
    weight_decay=st.floats(0.0, 5.0),
)
def test_formula_in_numpy(seed, lr, betas, weight_decay):
    grads = gradients_like((3, 4), 8, seed)
    start = gradients_like((3, 4), 1, seed + 1)[0]
    thetas, _ = path(lambda p: Lion(p, lr, betas, weight_decay), start, grads)
    theta, m = start.numpy().copy(), 0.0 * start.numpy()
    for g in grads.numpy():
        c = betas[0] * m + (1 - betas[0]) * g
        theta = theta - lr * ((c > 0) * 1.0 - (c < 0) * 1.0 + weight_decay * theta)
        m = betas[1] * m + (1 - betas[1]) * g
    torch.testing.assert_close(thetas[-1], torch.from_numpy(theta), rtol=1e-10, atol=1e-12)


def test_without_momentum_it_is_sign_descent():
    grads = gradients_like((20,), 30)
    grads[3] = 0.0
    thetas, _ = path(lambda p: Lion(p, 0.01, (0.0, 0.0)), torch.zeros(20, dtype=torch.float64), grads)
    expected = -0.01 * grads.sign().cumsum(0)
    torch.testing.assert_close(thetas, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
def test_equal_betas_are_signum(beta):
    grads, start = gradients_like((50,), 40), gradients_like((50,), 1, 7)[0]
    lion, _ = path(lambda p: Lion(p, 0.01, (beta, beta), 0.3), start, grads)
    signum, _ = path(lambda p: Signum(p, 0.01, beta, 0.3), start, grads)
    torch.testing.assert_close(lion, signum, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_1024_times_as_large_give_the_same_bits(dtype):
    grads, start = gradients_like((64,), 60, dtype=dtype), torch.ones(64, dtype=dtype)
    one, _ = path(lambda p: Lion(p, 1e-3, weight_decay=0.1), start, grads)
    other, _ = path(lambda p: Lion(p, 1e-3, weight_decay=0.1), start, 1024 * grads)
    assert torch.equal(one, other)


def test_zero_gradients_only_decay():
    thetas, _ = scalar_path(lambda p: Lion(p, 0.1, weight_decay=0.5), 2.0, [0.0] * 10)
    assert thetas == pytest.approx([2.0 * 0.95**k for k in range(1, 11)], rel=1e-12)


@pytest.mark.parametrize(("start", "lowest"), [(10.5, -0.5), (100.5, -39.5)])
def test_two_cycle_on_the_absolute_value(start, lowest):
    eta = 2.0**-7  # exact in float64, so that the cycle is met exactly
    parameter = nn.Parameter(torch.tensor([start * eta], dtype=torch.float64))
    optimizer = Lion([parameter], lr=eta)
    visited = []
    for _ in range(600):
        parameter.grad = parameter.detach().sign()
        optimizer.step()
        visited.append(parameter.item() / eta)
    assert min(visited) == lowest
    assert sorted(visited[-2:]) == [-0.5, 0.5]


@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.95, 0.98)])
def test_agrees_with_lion_pytorch(betas):
    package = pytest.importorskip("lion_pytorch")
    grads, start = gradients_like((30,), 50, 3, torch.float32), gradients_like((30,), 1, 4, torch.float32)[0]
    ours, _ = path(lambda p: Lion(p, 1e-3, betas, 0.2), start, grads)
    theirs, _ = path(lambda p: package.Lion(p, lr=1e-3, betas=betas, weight_decay=0.2), start, grads)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


# --- the optimizer as a torch citizen ------------------------------------------------------------------


def model_and_gradients(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    return model, torch.randn(9, 6, dtype=torch.float64)


def train(model, optimizer, inputs, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_state_dict_round_trip_continues_bit_for_bit():
    model, inputs = model_and_gradients()
    optimizer = Lion(model.parameters(), lr=0.01, weight_decay=0.1)
    train(model, optimizer, inputs, 5)
    twin = copy.deepcopy(model)
    restored = Lion(twin.parameters(), lr=0.5)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(train(model, optimizer, inputs, 5), train(twin, restored, inputs, 5))


def test_groups_have_their_own_options_and_dtypes():
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3, dtype=torch.float64))
    c = nn.Parameter(torch.ones(1))
    optimizer = Lion([{"params": [a, b], "lr": 0.5}, {"params": [c], "weight_decay": 1.0}], lr=0.25)
    for p in (a, b):
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert a.tolist() == [0.5, 0.5]
    assert b.tolist() == [0.5, 0.5, 0.5]
    assert c.tolist() == [1.0], "a parameter without a gradient stays, decay included"
    assert c not in optimizer.state


def test_closure_is_evaluated_before_the_step():
    p = nn.Parameter(torch.tensor([3.0]))
    optimizer = Lion([p], lr=1.0)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 9.0
    assert p.item() == 2.0


def test_refuses_what_it_cannot_do():
    embedding = nn.Embedding(4, 2, sparse=True)
    optimizer = Lion(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    z = nn.Parameter(torch.ones(1, dtype=torch.complex64))
    z.grad = torch.ones_like(z)
    with pytest.raises(RuntimeError, match="complex"):
        Lion([z]).step()
    p = [nn.Parameter(torch.ones(1))]
    for options in ({"lr": -1.0}, {"betas": (1.0, 0.9)}, {"betas": (0.9, -0.1)}, {"weight_decay": -1.0}):
        with pytest.raises(ValueError):
            Lion(p, **options)


def test_bfloat16_loses_steps_below_half_an_ulp():
    p = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = Lion([p], lr=1e-4)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert p.item() == 1.0


# --- state -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "bytes_per_parameter"),
    [(Lion, 4.0), (torch.optim.AdamW, 8.0), (Signum, 4.0)],
)
def test_state_bytes(make, bytes_per_parameter):
    model, inputs = model_and_gradients()
    model, inputs = model.float(), inputs.float()
    optimizer = make(model.parameters(), lr=1e-3)
    train(model, optimizer, inputs, 2)
    n = sum(p.numel() for p in model.parameters())
    assert state_bytes(optimizer) == bytes_per_parameter * n


def test_adafactor_keeps_rows_and_columns():
    p = nn.Parameter(torch.ones(100, 50))
    optimizer = torch.optim.Adafactor([p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert state_bytes(optimizer) == 4 * (100 + 50)


# --- the methods on their tasks ------------------------------------------------------------------------


def test_lion_moves_every_coordinate_by_exactly_lr_and_adamw_does_not():
    task = OptimizerUpdates(coordinates=500)
    lion = run_once(LionTraining(), task).metrics
    adamw = run_once(AdamW(), task).metrics
    assert lion["step_deviation"] < 1e-6
    assert lion["scale_dependence"] == 0.0
    assert adamw["step_deviation"] > 0.1
    assert adamw["scale_dependence"] > 1e-6, "epsilon matters at small gradients"
    assert lion["state_bytes_per_parameter"] == 8.0
    assert adamw["state_bytes_per_parameter"] == 16.0


@pytest.mark.parametrize(
    ("method", "least"),
    [
        (LionTraining(learning_rate=1e-3), 0.90),
        (AdamW(learning_rate=3e-3), 0.90),
        (SGDMomentum(learning_rate=0.1), 0.85),
        (SignumTraining(learning_rate=1e-3), 0.85),
        (Adafactor(learning_rate=0.03), 0.85),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_digits_are_learned(method, least):
    measured = run_once(method, ImageClassification(steps=150, schedule="constant", warmup=0.0))
    assert measured.metrics["accuracy"] > least
    assert len(measured.series["loss"].y) == 150


def test_foreach_and_fused_adamw_train_alike():
    task = ImageClassification(steps=30)
    foreach, fused = (prepared(m, task).run() for m in (AdamW(), AdamWFused()))
    torch.testing.assert_close(foreach.losses, fused.losses, rtol=1e-4, atol=1e-5)


def test_every_run_starts_from_the_same_weights():
    method = prepared(LionTraining(), ImageClassification(steps=20))
    assert torch.equal(method.run().losses, method.run().losses)


def test_all_optimizers_see_the_same_first_loss():
    first = {
        float(prepared(m, ImageClassification(steps=3)).run().losses[0])
        for m in (LionTraining(), AdamW(), SGDMomentum())
    }
    assert len(first) == 1


@pytest.mark.parametrize("model", ["mlp", "vit", "decoder"])
def test_optimizer_step_reduces_the_loss_when_repeated(model):
    method = prepared(LionTraining(learning_rate=1e-3), OptimizerStep(model=model, batch=8))
    first = float(method.run().losses[0])
    for _ in range(20):
        last = float(method.run().losses[0])
    assert last < first
    measured = run_once(LionTraining(), OptimizerStep(model=model, batch=8))
    assert measured.metrics["state_bytes_per_parameter"] == 4.0


def test_update_alone_keeps_its_gradients():
    method = prepared(LionTraining(learning_rate=0.25), OptimizerStep(model="mlp", batch=4, update_only=True))
    before = method.run().model[1].weight.detach().clone()
    after = method.run().model[1].weight.detach()
    moves = (after - before).abs()
    assert float(moves.max()) == pytest.approx(0.25, rel=1e-5)


@needs_data("gutenberg-novels")
def test_language_model_learns_and_reports_its_milestones():
    task = CharacterLanguageModel(steps=40, batch=16, width=32, depth=1, validation=2048)
    measured = run_once(LionTraining(learning_rate=1e-2, beta1=0.95, beta2=0.98), task)
    bits = measured.series["bits"]
    assert list(bits.x) == [20, 26, 32, 36, 40]
    assert measured.metrics["bits_at_50"] == bits.y[0]
    assert measured.metrics["bits_at_91"] == bits.y[3]
    assert measured.metrics["bits_per_character"] == bits.y[-1] < 5.0
    assert math.isfinite(measured.metrics["final_loss"])


@needs_data("mnist-10k")
def test_vision_transformer_has_about_60_thousand_parameters_and_learns():
    task = ImageClassification(data="mnist-10k", model="vit", width=48, depth=2, batch=512, steps=6)
    work = task.load(1000)
    assert sum(p.numel() for p in work.model.parameters()) == 60298
    outcome = prepared(LionTraining(learning_rate=1e-3), task).run()
    assert outcome.losses[-1] < outcome.losses[0]
