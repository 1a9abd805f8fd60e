"""Early-learning regularization against closed forms, NumPy in double precision, and the limits where it is
its baseline."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from harness.method import Context
from harness.testing import prepared, run_once
from methods.vision.early_learning_regularization.baselines import (
    CrossEntropy,
    EarlyStopping,
    LabelSmoothing,
    StaticTarget,
)
from methods.vision.early_learning_regularization.method import (
    EarlyLearningRegularization,
    EarlyLearningRegularizationPlus,
    Student,
    ramp,
)
from methods.vision.early_learning_regularization.targets import Targets, clipped_softmax, early_learning
from methods.vision.early_learning_regularization.training import Batches, Examples, fresh_network
from methods.vision.noisy_labels import Trained
from methods.vision.tasks import NoisyLabelClassification, TwoGaussiansNoisyLabels


def digits(**parameters: object) -> NoisyLabelClassification:
    """A task of a second or less."""
    return NoisyLabelClassification(**{"epochs": 3, "train": 300, "test": 200, **parameters})  # type: ignore[arg-type]


def elr_loss(logits: Tensor, targets: Tensor, label: Tensor, lam: float) -> Tensor:
    return F.cross_entropy(logits, label) + lam * early_learning(targets, clipped_softmax(logits))


def test_loss_and_gradient_of_a_worked_example() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64)
    label = torch.tensor([1])
    q = clipped_softmax(logits)
    torch.testing.assert_close(q[0], torch.tensor([0.843795, 0.114195, 0.042010]).double(), atol=1e-6, rtol=0)
    pull = early_learning(targets, q)
    assert pull.item() == pytest.approx(-0.786879, abs=1e-6)
    assert F.cross_entropy(logits, label).item() == pytest.approx(2.169846, abs=1e-6)
    (gradient,) = torch.autograd.grad(pull, logits)
    expected = torch.tensor([[-0.102427, 0.061388, 0.041039]]).double()
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)
    loss = elr_loss(logits, targets, label, 3.0)
    assert loss.item() == pytest.approx(-0.190790, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = torch.tensor([[0.536515, -0.701641, 0.165126]]).double()
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 12), visits=st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_gradient_of_the_regulariser_is_the_closed_form(seed: int, classes: int, visits: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Moderate logits, so that nothing is clipped.
    logits = torch.randn(1, classes, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.softmax(torch.randn(1, classes, generator=generator, dtype=torch.float64), 1)
    targets *= 1 - 0.7**visits
    (gradient,) = torch.autograd.grad(early_learning(targets, clipped_softmax(logits)), logits)
    p = torch.softmax(logits.detach()[0], 0)
    t = targets[0]
    expected = torch.stack([p[k] * ((t - t[k]) * p).sum() for k in range(classes)]) / (1 - t @ p)
    torch.testing.assert_close(gradient[0], expected, atol=1e-12, rtol=1e-9)


def test_running_targets_of_a_constant_prediction() -> None:
    table = Targets(4, 3, beta=0.7, device="cpu")
    q = torch.tensor([[0.7, 0.2, 0.1]])
    for expected in (0.3, 0.51, 0.657):
        rows = table.update(torch.tensor([2]), q)
        torch.testing.assert_close(rows, expected * q)
    torch.testing.assert_close(table.rows[2], 0.657 * q[0])
    assert not table.rows[[0, 1, 3]].any()


def test_targets_are_normalised_and_carry_no_gradient() -> None:
    table = Targets(2, 3, beta=0.9, device="cpu")
    logits = torch.tensor([[40.0, 0.0, 0.0]], requires_grad=True)
    rows = table.update(torch.tensor([0]), clipped_softmax(logits))
    assert not rows.requires_grad
    clipped = torch.tensor([0.9999, 0.0001, 0.0001])
    torch.testing.assert_close(rows[0], 0.1 * clipped / clipped.sum())


def test_the_regulariser_falls_as_the_prediction_turns_to_the_target() -> None:
    targets = torch.tensor([[0.0, 1.0, 0.0]])
    logits = torch.zeros(60, 3)
    logits[:, 1] = torch.linspace(-5, 8, 60)
    values = torch.stack([early_learning(targets, clipped_softmax(row[None])) for row in logits])
    assert (values.diff() < 0).all()
    # Beyond the clip it stays finite.
    extreme = early_learning(targets, clipped_softmax(torch.tensor([[0.0, 200.0, 0.0]])))
    assert torch.isfinite(extreme)


def test_an_empty_target_pulls_nowhere() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    value = early_learning(torch.zeros(5, 4), clipped_softmax(logits))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize(
    "limit",
    [EarlyLearningRegularization(lam=0.0), StaticTarget(weight=0.0), LabelSmoothing(smoothing=0.0)],
    ids=["elr", "static-target", "label-smoothing"],
)
@pytest.mark.parametrize("parameters", [{}, {"network": "cnn-5", "augment": True}], ids=["mlp", "cnn"])
def test_without_its_term_a_method_is_cross_entropy_bit_for_bit(limit, parameters) -> None:
    task = digits(**parameters)
    plain = prepared(CrossEntropy(), task).run()
    other = prepared(limit, task).run()
    assert plain.epochs == other.epochs
    for ours, theirs in zip(plain.states, other.states, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    if hasattr(limit, "targets"):
        assert limit.targets.rows.any()  # the table is kept all the same


def test_training_is_plain_stochastic_gradient_descent_on_those_batches() -> None:
    """Written out with momentum, decay and schedule by hand."""
    task = digits(epochs=4, momentum=0.8, weight_decay=0.01, milestones=(2,), decay=0.1)
    output = prepared(CrossEntropy(), task).run()
    work, context = task.load(1000), Context(seed=1000)
    network = fresh_network(work, context, "a")
    parameters = list(network.parameters())
    velocity = [torch.zeros_like(p) for p in parameters]
    batches = Batches(Examples(work, "cpu"), context, "a")
    for epoch, lr in enumerate((0.02, 0.02, 0.002, 0.002)):
        for index, _, _ in batches.epoch():
            loss = -F.log_softmax(network(work.inputs[index]), 1)[torch.arange(len(index)), work.given[index]]
            gradients = torch.autograd.grad(loss.mean(), parameters)
            with torch.no_grad():
                for p, v, g in zip(parameters, velocity, gradients, strict=True):
                    v.mul_(0.8).add_(g + 0.01 * p)
                    p.sub_(lr * v)
        for name, value in network.state_dict().items():
            torch.testing.assert_close(output.states[epoch][name], value, atol=1e-5, rtol=1e-4)


def test_static_target_gradient() -> None:
    method = prepared(StaticTarget(beta=0.7, weight=0.5), digits())
    method.start()
    index, labels = torch.tensor([4]), torch.tensor([2])
    logits = torch.randn(1, 10, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (gradient,) = torch.autograd.grad(method.loss(logits, labels, index), logits)
    t, y = method.targets.rows[4], F.one_hot(labels[0], 10)
    expected = (0.5 + 0.5 * t.sum()) * torch.softmax(logits.detach()[0], 0) - 0.5 * y - 0.5 * t
    torch.testing.assert_close(gradient[0], expected)


def test_label_smoothing_is_the_library_loss_with_a_mixed_target() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    mixed = 0.9 * F.one_hot(labels, 5) + 0.1 / 5
    expected = -(mixed * F.log_softmax(logits, 1)).sum(1).mean()
    torch.testing.assert_close(LabelSmoothing(smoothing=0.1).loss(logits, labels, torch.arange(6)), expected)


def test_the_trajectory_does_not_depend_on_where_examples_stand() -> None:
    """Targets belong to examples: shuffling the set and its indices alike changes no loss."""
    work = digits().load(0)
    generator = torch.Generator().manual_seed(3)
    n = len(work.given)
    move = torch.randperm(
        n, generator=generator
    )  # example i of the second order is example move[i] of the first
    place = torch.argsort(move)
    batches = [torch.randperm(n, generator=generator)[:64] for _ in range(20)]

    def losses(inputs: Tensor, labels: Tensor, where: Tensor) -> list[float]:
        method = prepared(EarlyLearningRegularization(), digits(), seed=0)
        method.start()
        optimizer = torch.optim.SGD(method.network.parameters(), lr=0.05)
        found = []
        for batch in batches:
            index = where[batch]
            loss = method.loss(method.network(inputs[index]), labels[index], index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    assert losses(work.inputs, work.given, torch.arange(n)) == losses(
        work.inputs[move], work.given[move], place
    )


def test_a_run_starts_from_the_same_state_each_time() -> None:
    for method in (EarlyLearningRegularization(), EarlyLearningRegularizationPlus(), EarlyStopping()):
        ready = prepared(method, digits(network="cnn-5", augment=True, epochs=2))
        first, second = ready.run(), ready.run()
        assert first.chosen == second.chosen
        for ours, theirs in zip(first.states, second.states, strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_early_stopping_keeps_the_best_validated_epoch() -> None:
    task = digits(epochs=6, validation=0.3)
    method = prepared(EarlyStopping(), task)
    output = method.run()
    plain = prepared(CrossEntropy(), task).run()
    accuracies = []
    for state in plain.states:  # evaluated here without the harness
        plain.network.load_state_dict(state)
        plain.network.eval()
        with torch.no_grad():
            answer = plain.network(method.work.validation).argmax(1)
        accuracies.append((answer == method.work.validation_given).float().mean().item())
    assert output.chosen == int(np.argmax(accuracies))
    with pytest.raises(ValueError, match="validation"):
        prepared(EarlyStopping(), digits(validation=0.0))


def test_the_logistic_model_descends_as_in_double_precision_and_memorises_late() -> None:
    task = TwoGaussiansNoisyLabels()
    method = prepared(CrossEntropy(), task)
    output = method.run()
    work = method.work
    x, y = work.inputs.double().numpy(), work.given.numpy()
    w = np.zeros(x.shape[1])
    states = dict(zip(output.epochs, output.states, strict=True))
    for step in range(1, 51):
        w -= x.T @ (1 / (1 + np.exp(-x @ w)) - y) / len(y)
        if step in states:
            np.testing.assert_allclose(states[step]["weight"].numpy(), w, rtol=1e-3, atol=2e-5)
    result = task.score(work, output)
    curve = {name: dict(zip(series.x, series.y, strict=True)) for name, series in result.series.items()}
    assert all(curve["corrected_by_epoch"][step] == 1 for step in (1, 2, 3, 4, 5))
    assert all(curve["accuracy_by_epoch"][step] == 1 for step in (1, 2, 3, 4, 5))
    assert 0.75 < curve["memorised_by_epoch"][20] < 1.0
    assert curve["memorised_by_epoch"][50] == 1
    assert curve["accuracy_by_epoch"][1000] == pytest.approx(0.90, abs=0.04)


def test_on_the_logistic_model_the_regulariser_keeps_the_true_labels() -> None:
    result = run_once(EarlyLearningRegularization(), TwoGaussiansNoisyLabels(epochs=300))
    assert result.metrics["memorised"] == 0
    assert result.metrics["accuracy"] > 0.99
    assert result.metrics["table_bytes"] == 300 * 2 * 4


class _Twins(EarlyLearningRegularizationPlus):
    """Both networks on the same streams."""

    streams = ("a", "a")


def test_twins_without_mixup_and_averaging_are_elr() -> None:
    task = digits(epochs=4)
    twins = prepared(_Twins(beta=0.7, lam=3.0, average=0.0, mixup=0.0), task)
    pair = twins.run()
    single = prepared(EarlyLearningRegularization(beta=0.7, lam=3.0), task)
    alone = single.run()
    for ours, theirs in zip(alone.states, pair.states, strict=True):
        for name, value in ours.items():
            torch.testing.assert_close(theirs[f"first.{name}"], value, atol=2e-5, rtol=1e-4)
            assert torch.equal(theirs[f"first.{name}"], theirs[f"second.{name}"])
    torch.testing.assert_close(twins.students[0].targets.rows, single.targets.rows, atol=1e-4, rtol=1e-3)


def elr_plus(
    task: NoisyLabelClassification, **parameters: object
) -> tuple[EarlyLearningRegularizationPlus, Student]:
    method = prepared(EarlyLearningRegularizationPlus(**parameters), task)  # type: ignore[arg-type]
    return method, method.student(fresh_network(method.work, method.context, "a"), "a")


def test_targets_of_one_network_come_from_the_average_of_the_other() -> None:
    method, a = elr_plus(digits())
    b = method.student(fresh_network(method.work, method.context, "b"), "b")
    with torch.no_grad():  # its network is now another than its average
        for parameter in b.network.parameters():
            parameter.add_(1.0)
    batch = next(iter(a.batches.epoch()))
    rows = method.targets(a, b, batch)
    q = clipped_softmax(fresh_network(method.work, method.context, "b")(batch[1])).detach()
    torch.testing.assert_close(rows, 0.3 * q / q.sum(1, keepdim=True))
    assert torch.equal(a.targets.rows[batch[0]], rows)
    assert not b.targets.rows.any()


@pytest.mark.parametrize(("product_from", "lam_ramp"), [(100, 0), (10, 0), (10, 50)])
def test_the_mixed_loss_against_numpy(product_from: int, lam_ramp: int) -> None:
    method, student = elr_plus(digits(), product_from=product_from, lam_ramp=lam_ramp)
    index, inputs, labels = next(iter(student.batches.epoch()))
    q = torch.softmax(torch.randn(len(index), 10, generator=torch.Generator().manual_seed(5)), 1)
    loss = method.loss(student, (index, inputs, labels), q, step=7).item()

    draws = method.context.rng("mixup", "a")
    weight = draws.beta(1.0, 1.0)
    weight = max(weight, 1 - weight)
    other = draws.permutation(len(index))
    x, t, y = inputs.numpy(), q.double().numpy(), np.eye(10)[labels.numpy()]
    x, t, y = (weight * v + (1 - weight) * v[other] for v in (x, t, y))
    if product_from <= 10:
        y = y * t / (y * t).sum(1, keepdims=True)
    with torch.no_grad():
        f = student.network(torch.from_numpy(x).float()).double().numpy()
    p = np.exp(f) / np.exp(f).sum(1, keepdims=True)
    pull = np.log(1 - (t * np.clip(p, 1e-4, 1 - 1e-4)).sum(1)).mean()
    rise = np.exp(-5 * (1 - 7 / 50) ** 2) if lam_ramp else 1.0
    assert loss == pytest.approx(-(y * np.log(p)).sum(1).mean() + rise * 3 * pull, rel=1e-4)


def test_weight_average_and_its_ramp() -> None:
    _, student = elr_plus(digits())
    before = [p.clone() for p in student.average.parameters()]
    with torch.no_grad():
        for parameter in student.network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(6)))
    student.follow(0.9)
    for old, average, new in zip(
        before, student.average.parameters(), student.network.parameters(), strict=True
    ):
        torch.testing.assert_close(average, 0.9 * old + 0.1 * new.detach())
    assert ramp(0, 100) == pytest.approx(np.exp(-5))
    assert ramp(50, 100) == pytest.approx(np.exp(-1.25))
    assert ramp(100, 100) == ramp(170, 100) == ramp(3, 0) == 1


def test_the_pair_answers_with_the_mean_of_its_logits() -> None:
    method = prepared(EarlyLearningRegularizationPlus(), digits())
    output = method.run()
    a, b = (student.network.eval() for student in method.students)
    output.network.eval()
    x = method.work.test
    torch.testing.assert_close(output.network(x), (a(x) + b(x)) / 2)
    result = method.measure(output)
    assert result.metrics["table_bytes"] == 2 * 270 * 10 * 4


def test_bytes_of_the_table_for_cifar100() -> None:
    assert Targets(45_000, 100, 0.9, "cpu").rows.nbytes == 18_000_000


def test_batches_are_the_same_for_every_method_and_cover_the_set() -> None:
    work = digits().load(7)
    examples = Examples(work, "cpu")
    batches = Batches(examples, Context(seed=7), "a")
    first = torch.cat([index for index, _, _ in batches.epoch()])
    second = torch.cat([index for index, _, _ in batches.epoch()])
    assert torch.equal(first.sort().values, torch.arange(270))
    assert not torch.equal(first, second)
    again = torch.cat([index for index, _, _ in Batches(examples, Context(seed=7), "a").epoch()])
    other = torch.cat([index for index, _, _ in Batches(examples, Context(seed=7), "b").epoch()])
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for index, inputs, labels in batches.epoch():
        assert torch.equal(inputs, work.inputs[index])
        assert torch.equal(labels, work.given[index])


def test_suspects_are_what_the_table_disagrees_with() -> None:
    method = prepared(EarlyLearningRegularization(), digits(epochs=8))
    output = method.run()
    assert isinstance(output, Trained)
    assert output.suspected is not None
    suspected = output.suspected.numpy()
    rows, work = method.targets.rows.numpy(), method.work
    expected = rows.argmax(1) != work.given.numpy()
    assert np.array_equal(suspected, expected)
    wrong = (work.given != work.true).numpy()
    result = method.measure(output)
    assert result.metrics["detection_recall"] == pytest.approx((expected & wrong).sum() / wrong.sum())
    assert result.metrics["detection_precision"] == pytest.approx((expected & wrong).sum() / expected.sum())


@pytest.mark.parametrize("method", [EarlyLearningRegularization, EarlyLearningRegularizationPlus, StaticTarget])
def test_every_method_runs_and_measures(method) -> None:
    result = run_once(method(), digits())
    assert 0 <= result.metrics["accuracy"] <= result.metrics["best_accuracy"] <= 1
    assert result.metrics["steps"] == 3 * 5
