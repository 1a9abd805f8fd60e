"""Training of a scorer on pairs, with the best evaluation kept."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from harness import cache, seeding
from methods.text.legibility.objectives import Objective, best_threshold, measures, pair_loss
from methods.text.legibility.pairs import Pairs


@dataclass(frozen=True)
class Recipe:
    """How a scorer is trained: AdamW without warm-up or decay, as in the paper.

    Attributes:
        objective: which terms of the loss.
        lr: learning rate.
        batch: pairs of a batch.
        accumulation: batches of one step.
        epochs: passes over the training pairs.
        evaluate_every: steps between evaluations on the validation pairs; the best is kept.
        precision: dtype of autocast on a GPU.
    """

    objective: Objective = "multi-task"
    lr: float = 2e-3
    batch: int = 64
    accumulation: int = 1
    epochs: int = 6
    evaluate_every: int = 100
    precision: str = "float32"


@dataclass(frozen=True)
class Trained:
    """A network at its best evaluation, and the threshold on its scores.

    Attributes:
        network: in evaluation mode, on the device it was trained on.
        threshold: 0 where the objective has classification; of a ranking model, whose scores are only fixed up to a
            constant, the one with the best F1 on the validation pairs.
        curve: steps and the evaluation there: F1, or the ranking accuracy of a ranking model.
    """

    network: nn.Module
    threshold: float
    curve: tuple[tuple[int, float], ...]


@torch.inference_mode()
def scores(network: nn.Module, pairs: Pairs, device: str, batch: int = 256) -> np.ndarray:
    """Scores of both words of all pairs: float64, shape (pairs, 2)."""
    columns = []
    for side in (0, 1):
        shown = (pairs.first, pairs.second)[side]
        parts: list[Tensor] = []
        for start in range(0, len(pairs), batch):
            rows = slice(start, start + batch)
            pictures = None if pairs.pictures is None else [pair[side] for pair in pairs.pictures[rows]]
            made = network.inputs(pairs.words[rows], shown[rows], pictures)  # type: ignore[operator]
            parts.append(network(made.to(device)).float().cpu())
        columns.append(torch.cat(parts) if parts else torch.zeros(0))
    return torch.stack(columns, 1).double().numpy()


def train(
    build: Callable[[], nn.Module], training: Pairs, validation: Pairs, recipe: Recipe, seed: int, device: str
) -> Trained:
    """A scorer trained on pairs.

    Args:
        build: makes the network with weights from torch's global generator, which is seeded and restored here.
        training: what is learnt from.
        validation: what decides which evaluation is kept.
        recipe: how.
        seed: of the weights and the order of the pairs.
        device: torch device.
    """
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # weights, and dropout where a pretrained encoder has some
        torch.manual_seed(seeding.derive(seed, "legibility", "weights"))
        return _train(build().to(device), training, validation, recipe, seed, device)


def _train(
    network: nn.Module, training: Pairs, validation: Pairs, recipe: Recipe, seed: int, device: str
) -> Trained:
    order = seeding.torch_generator(seed, "legibility", "order")
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.lr, weight_decay=0.0)
    best, kept, curve, steps, waiting = (-1.0, -1.0), None, [], 0, 0
    # Of equal evaluations by the first measure (most words may be legible) the second decides.
    first_of, second_of = ("f1", "rank_accuracy_strict")[:: -1 if recipe.objective == "ranking" else 1]

    def evaluate() -> None:
        nonlocal best, kept
        network.eval()
        found = measures(scores(network, validation, device), validation.choice)
        value = found[first_of], found[second_of]
        network.train()
        curve.append((steps, value[0]))
        if value > best:
            best, kept = value, copy.deepcopy(network.state_dict())

    network.train()
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(training), generator=order).split(recipe.batch):
            part = training.take(rows.numpy())
            pictures = (
                None
                if part.pictures is None
                else [p for side in zip(*part.pictures, strict=True) for p in side]
            )
            made = network.inputs([*part.words, *part.words], part.perturbed(), pictures)  # type: ignore[operator]
            with torch.autocast(
                torch.device(device).type,
                getattr(torch, recipe.precision),
                enabled=recipe.precision != "float32",
            ):
                first, second = network(made.to(device)).float().chunk(2)
            choice = torch.from_numpy(part.choice).to(device)
            loss = pair_loss(first, second, choice, recipe.objective) / recipe.accumulation
            loss.backward()
            waiting += 1
            if waiting == recipe.accumulation:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                waiting, steps = 0, steps + 1
                if steps % recipe.evaluate_every == 0:
                    evaluate()
    if not curve or curve[-1][0] != steps:
        evaluate()
    assert kept is not None
    network.load_state_dict(kept)
    network.eval()
    threshold = 0.0
    if recipe.objective == "ranking":
        threshold = best_threshold(scores(network, validation, device), validation.choice)
    return Trained(network, threshold, tuple(curve))


def trained_or_kept(
    name: str, build: Callable[[], nn.Module], training: Pairs, validation: Pairs, recipe: Recipe, seed: int,
    device: str, directory: Path | None,
) -> nn.Module:  # fmt: skip
    """The network that `train` makes, from the cache where it has been made before.

    Args:
        name: names the network that `build` makes, with everything that shapes it.
        directory: of the cache; the other arguments are those of `train`.
    """
    from safetensors.torch import load_file, save_file

    def digest(pairs: Pairs) -> str:
        text = repr((pairs.words, pairs.first, pairs.second, pairs.choice.tolist()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    content = {
        **dataclasses.asdict(recipe), "network": name, "training": digest(training),
        "validation": digest(validation), "seed": seed, "version": 2,
    }  # fmt: skip

    def make(path: Path) -> None:
        network = train(build, training, validation, recipe, seed, device).network
        save_file({key: value.cpu().contiguous() for key, value in network.state_dict().items()}, path)

    path = cache.artefact("legibility-scorer", content, make, directory)
    network = build()
    network.load_state_dict(load_file(path))
    return network.to(device).eval()
