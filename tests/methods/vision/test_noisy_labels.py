"""The vision family's data, noise, networks and score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from harness import data
from harness.errors import BadOutput, MissingData
from methods.vision import images, networks, noise
from methods.vision.noisy_labels import NoisyLabels, Recipe, Trained, score
from methods.vision.tasks import NoisyLabelClassification, TwoGaussiansNoisyLabels
from tests.conftest import needs_data


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.4, 0.8, 1.0])
def test_symmetric_noise_has_the_expected_share_of_wrong_labels(classes: int, rate: float) -> None:
    n = 20_000
    labels = torch.arange(n) % classes
    noisy = noise.symmetric(labels, classes, rate, np.random.default_rng(0))
    p = rate * (classes - 1) / classes
    wrong = (noisy != labels).double().mean().item()
    assert abs(wrong - p) <= 3 * np.sqrt(p * (1 - p) / n)
    assert noisy.min() >= 0
    assert noisy.max() < classes


def test_confusions_move_an_exact_share_of_each_class_to_one_other() -> None:
    labels = torch.arange(10).repeat(50)
    noisy = noise.confused(labels, noise.CIFAR10_CONFUSIONS, 0.4, np.random.default_rng(1))
    counts = np.zeros((10, 10), dtype=int)
    np.add.at(counts, (labels.numpy(), noisy.numpy()), 1)
    expected = np.diag([50] * 10)
    for true, wrong in {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}.items():
        expected[true, true], expected[true, wrong] = 30, 20
    assert np.array_equal(counts, expected)


def test_noise_inside_a_superclass_goes_round_in_a_circle() -> None:
    superclass = torch.tensor([0, 1, 0, 1, 0, 1])
    labels = torch.arange(6).repeat(4000)
    noisy = noise.next_in_superclass(labels, superclass, 0.3, np.random.default_rng(2))
    moved = noisy != labels
    successor = torch.tensor([2, 3, 4, 5, 0, 1])
    assert torch.equal(noisy[moved], successor[labels[moved]])
    share = moved.double().mean().item()
    assert abs(share - 0.3) <= 3 * np.sqrt(0.21 / len(labels))


def test_noise_has_a_stream_of_its_own() -> None:
    """Another rate changes labels only where the smaller rate already had, and no image."""
    low, high = (NoisyLabelClassification(rate=rate).load(5) for rate in (0.2, 0.6))
    assert torch.equal(low.inputs, high.inputs)
    assert torch.equal(low.true, high.true)
    assert torch.equal(low.test, high.test)
    changed = low.given != low.true
    assert 0 < changed.sum() < (high.given != high.true).sum()
    assert not torch.equal(NoisyLabelClassification().load(6).given, NoisyLabelClassification().load(5).given)


def test_digits_are_split_without_overlap_and_normalised() -> None:
    work = NoisyLabelClassification(validation=0.25).load(0)
    assert (len(work.inputs), len(work.validation), len(work.test)) == (900, 300, 597)
    train = torch.cat([work.inputs, work.validation])
    assert train.mean().item() == pytest.approx(0, abs=1e-5)
    assert train.std().item() == pytest.approx(1, abs=1e-3)
    whole = torch.cat([train, work.test]).flatten(1)
    grey = ((whole - work.black) / (whole.max() - work.black) * 16).round()
    from sklearn.datasets import load_digits

    original = load_digits().data
    assert np.array_equal(np.unique(grey.numpy(), axis=0), np.unique(original.astype(np.float32), axis=0))


@pytest.mark.parametrize(("train", "test"), [(1797, None), (1800, None), (1200, 600)])
def test_too_few_images_are_an_error(train: int, test: int | None) -> None:
    with pytest.raises(ValueError, match="1797"):
        NoisyLabelClassification(train=train, test=test).load(0)


@pytest.mark.parametrize("parameters", [{"lr_floor": 0.001}, {"validation": 1.0}])
def test_parameters_that_do_not_fit_together_are_an_error(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(parameters))):
        NoisyLabelClassification(**parameters)  # type: ignore[arg-type]


def test_data_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    with pytest.raises(MissingData, match="mnist-10k"):
        NoisyLabelClassification(data="mnist-10k").load(0)


@needs_data("mnist-10k")
def test_mnist() -> None:
    work = NoisyLabelClassification(data="mnist-10k", noise="asymmetric").load(0)
    assert work.inputs.shape == (7200, 1, 28, 28)
    assert work.test.shape == (2000, 1, 28, 28)
    wrong = work.given != work.true
    assert set(work.true[wrong].tolist()) == {2, 3, 5, 6, 7}


@needs_data("cifar10-subset")
def test_cifar() -> None:
    work = NoisyLabelClassification(data="cifar10-subset", train=200, test=100, noise="asymmetric").load(0)
    assert work.inputs.shape == (180, 3, 32, 32)
    assert work.test.shape == (100, 3, 32, 32)
    whole = torch.cat([work.inputs, work.validation])
    torch.testing.assert_close(whole.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(whole.amin((0, 2, 3)), work.black, atol=0.1, rtol=0)
    again = NoisyLabelClassification(data="cifar10-subset", train=200, test=100).load(0)
    assert torch.equal(work.inputs, again.inputs)


def test_cifar100_superclasses_come_from_its_two_label_columns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """A small parquet file in the hub's layout."""
    import io
    from pathlib import Path

    import datasets
    from PIL import Image

    folder = Path(str(tmp_path)) / "cifar100"
    folder.mkdir()
    generator = np.random.default_rng(0)

    def png() -> dict[str, bytes | None]:
        stream = io.BytesIO()
        Image.fromarray(generator.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": None}

    fine = list(range(100)) * 2
    for split in ("train", "test"):
        rows = {"img": [png() for _ in fine], "fine_label": fine, "coarse_label": [f % 20 for f in fine]}
        datasets.Dataset.from_dict(rows).to_parquet(folder / f"{split}.parquet")
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    work = NoisyLabelClassification(data="cifar100", noise="asymmetric", rate=0.5, validation=0.0).load(0)
    assert work.classes == 100
    wrong = work.given != work.true
    assert 60 < wrong.sum() < 140
    assert torch.equal(work.given[wrong], (work.true[wrong] + 20) % 100)


def test_crops_are_what_padding_slicing_and_flipping_give() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, 8, 8, generator=generator)
    black = torch.tensor([-1.0, -2.0, -3.0])
    crops = images.RandomCrops(x, black, padding=2)
    index = torch.tensor([5, 0, 3, 3])
    found = crops(index, torch.Generator().manual_seed(1))
    replay = torch.Generator().manual_seed(1)
    corner = torch.randint(5, (2, 4, 1), generator=replay)[..., 0]
    flip = torch.rand(4, 1, generator=replay)[:, 0] < 0.5
    assert flip.any()
    assert not flip.all()
    for i, image in enumerate(index):
        padded = F.pad(x[image] - black[:, None, None], (2, 2, 2, 2)) + black[:, None, None]
        top, left = corner[0, i], corner[1, i]
        crop = padded[:, top : top + 8, left : left + 8]
        expected = crop.flip(2) if flip[i] else crop
        torch.testing.assert_close(found[i], expected)


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("logistic", (50,), 50),
        ("mlp-256", (1, 8, 8), 64 * 256 + 256 + 256 * 256 + 256 + 2570),
        ("mlp-512", (1, 28, 28), 784 * 512 + 512 + 512 * 512 + 512 + 5130),
        ("cnn-5", (3, 32, 32), 9 * (3 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + 2 * 416 + 1290),
        # Published counts of the networks with the stem for CIFAR.
        ("resnet-18", (3, 32, 32), 11_173_962),
        ("resnet-34", (3, 32, 32), 21_282_122),
        ("preact-resnet-18", (3, 32, 32), 11_171_146),
    ],
)
def test_networks(name: networks.NetworkName, shape: tuple[int, ...], parameters: int) -> None:
    classes = 2 if name == "logistic" else 10
    state = torch.get_rng_state()
    network, same, other = (networks.build(name, shape, classes, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert sum(p.numel() for p in network.parameters()) == parameters
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    network.eval()
    assert network(x).shape == (2, classes)
    assert torch.equal(network(x), same.eval()(x))
    assert name == "logistic" or not torch.equal(network(x), other.eval()(x))


def test_residual_networks_halve_the_image_three_times() -> None:
    sizes: list[torch.Size] = []
    for name in ("resnet-18", "preact-resnet-18"):
        network = networks.build(name, (3, 32, 32), 10, 0).eval()  # type: ignore[arg-type]
        pool = next(m for m in network.modules() if isinstance(m, networks.GlobalMean))
        pool.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape))
        network(torch.zeros(1, 3, 32, 32))
    assert sizes == [torch.Size((1, 512, 4, 4))] * 2


@given(
    lr=st.floats(0.001, 1.0),
    milestones=st.lists(st.integers(1, 30), max_size=3, unique=True).map(sorted).map(tuple),
)
@settings(max_examples=20, deadline=None)
def test_step_schedule_is_the_library_one(lr: float, milestones: tuple[int, ...]) -> None:
    recipe = Recipe(epochs=30, batch=1, lr=lr, milestones=milestones, decay=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    for epoch in range(1, 31):
        assert recipe.rate(epoch) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_cosine_schedule_is_the_library_one() -> None:
    recipe = Recipe(epochs=35, batch=1, lr=0.02, restart=10, lr_floor=0.001)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 10, eta_min=0.001)
    for epoch in range(1, 36):
        assert recipe.rate(epoch) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_the_network_is_watched_early_now_and_then_and_at_the_end() -> None:
    recipe = Recipe(epochs=23, batch=10, lr=1.0, early=4, watch_every=10)
    assert [e for e in range(1, 24) if recipe.watched(e)] == [1, 2, 3, 10, 20, 23]
    assert recipe.steps(95) == 230


class _Fixed(nn.Module):
    """Answers with column i of its table for the input i."""

    def __init__(self, answers: list[int]) -> None:
        super().__init__()
        self.table = nn.Parameter(F.one_hot(torch.tensor(answers), 3).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table[x[:, 0].long()]


def _work(early: int = 2) -> NoisyLabels:
    """Six training examples, the last three with a wrong label; inputs 6 and 7 test, 8 validates."""
    inputs = torch.arange(9.0)[:, None]
    return NoisyLabels(
        inputs=inputs[:6],
        given=torch.tensor([0, 1, 2, 1, 2, 0]),
        true=torch.tensor([0, 1, 2, 0, 1, 2]),
        validation=inputs[8:],
        validation_given=torch.tensor([1]),
        test=inputs[6:8],
        test_labels=torch.tensor([0, 2]),
        classes=3,
        black=torch.zeros(1),
        network="logistic",
        recipe=Recipe(epochs=3, batch=4, lr=1.0, early=early),
    )


def test_score_of_a_hand_made_training() -> None:
    early = [0, 1, 2, 0, 1, 0, 0, 2, 1]  # two of three corrected, one memorised, all else right
    late = [0, 1, 1, 1, 2, 1, 0, 1, 0]  # two memorised, one neither, one right label unlearned
    network = _Fixed(early)
    states = [_Fixed(answers).state_dict() for answers in (early, late)]
    result = score(_work(), Trained(network, [1, 3], states))
    assert result.metrics == {
        "accuracy": 0.5,
        "best_accuracy": 1.0,
        "validation_accuracy": 0.0,
        "memorised": pytest.approx(2 / 3),
        "corrected": 0.0,
        "peak_corrected": pytest.approx(2 / 3),
        "memorised_at_peak": pytest.approx(1 / 3),
        "learned": pytest.approx(2 / 3),
        "detection_precision": 0.5,  # suspected: the unlearned right label and the last
        "detection_recall": pytest.approx(1 / 3),
        "wrong_share": 0.5,
        "chosen_epoch": 3.0,
        "steps": 6.0,
    }
    assert list(result.series["memorised_by_epoch"].y) == pytest.approx([1 / 3, 2 / 3])
    chosen = score(_work(), Trained(network, [1, 3], states, chosen=0)).metrics
    assert (chosen["accuracy"], chosen["validation_accuracy"], chosen["chosen_epoch"]) == (1.0, 1.0, 1.0)
    suspected = torch.tensor([True, False, False, True, True, True])
    judged = score(_work(), Trained(network, [1, 3], states, suspected=suspected)).metrics
    assert (judged["detection_precision"], judged["detection_recall"]) == (0.75, 1.0)


def test_the_early_epochs_end_before_the_named_one() -> None:
    answers = [0, 1, 2, 0, 1, 2, 0, 2, 1]
    states = [_Fixed([1] * 9).state_dict(), _Fixed(answers).state_dict()]
    trained = Trained(_Fixed(answers), [1, 2], states)
    assert score(_work(early=2), trained).metrics["peak_corrected"] == pytest.approx(1 / 3)
    assert score(_work(early=3), trained).metrics["peak_corrected"] == 1.0


@pytest.mark.parametrize("fault", ["nothing", "states", "suspects"])
def test_an_output_of_another_form_is_refused(fault: str) -> None:
    network = _Fixed([0] * 9)
    output = {
        "nothing": None,
        "states": Trained(network, [1, 2], [network.state_dict()]),
        "suspects": Trained(network, [1], [network.state_dict()], suspected=torch.zeros(4, dtype=torch.bool)),
    }[fault]
    with pytest.raises(BadOutput):
        score(_work(), output)  # type: ignore[arg-type]


def test_two_gaussians() -> None:
    task = TwoGaussiansNoisyLabels(examples=2000, test=500, dimension=20, sigma=0.5, rate=0.3)
    work = task.load(0)
    sign = 2 * work.true - 1
    centred = work.inputs.clone()
    centred[:, 0] -= sign
    assert centred.mean().abs() < 0.01
    assert centred.std().item() == pytest.approx(0.5, abs=0.01)
    wrong = (work.given != work.true).double().mean().item()
    assert abs(wrong - 0.3) <= 3 * np.sqrt(0.21 / 2000)
    assert task.amount(work) == 1000 * 2000
