"""How p_0 and p_1 come about: pretraining, fine-tuning of all parameters or of adapters, and DP-SGD."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import seeding
from harness.cache import artefact
from harness.errors import MissingPackage, RequestError
from harness.method import Context
from methods.common.language_model import fit
from methods.decoding.contrastive_generation.characters import CharacterModel
from methods.decoding.contrastive_generation.mixture import CHARACTERS, Problem, Recipe, digest
from methods.decoding.contrastive_generation.models import (
    CausalTransformer,
    TextModel,
    batch_of,
    loss,
    rows_of,
    trainable,
)

_VERSION = 1
"""Raise it when training changes: models of older versions are then made anew."""


def models(problem: Problem, context: Context) -> tuple[TextModel, TextModel]:
    """p_0 and p_1 on the device of `context`, in evaluation mode.

    Each is trained on first use and kept in the cache under everything that made it, so that all methods have the same.

    Raises:
        MissingModel: a Hugging Face model that cannot be loaded.
        MissingPackage: adapters or privacy accounting without their package.
        RequestError: adapters for a model without attention.
    """
    recipe = problem.recipe
    base: dict[str, Any]
    if recipe.pretrained == CHARACTERS:
        fields = ("hidden", "length", "pretraining_epochs", "pretraining_rate", "batch")
        base = {name: getattr(recipe, name) for name in fields} | {"documents": digest(problem.base)}

        def pretrain(model: TextModel) -> None:
            stream = seeding.torch_generator(0, "pretraining order")
            rows = rows_of(model, problem.base, recipe.length)
            train(model, rows, recipe.pretraining_epochs, recipe.pretraining_rate, recipe.batch, stream)

        fresh = CharacterModel.fresh(recipe.hidden, 0)
        fresh.module.to(context.device)
        reference = _kept("novelty-base", base, fresh, pretrain, context.cache)
    else:
        reference = CausalTransformer.load(recipe.pretrained, context.device, recipe.dtype)
        # Weights that change under one name have another commit on the hub.
        base = {"name": recipe.pretrained, "commit": getattr(reference.module.config, "_commit_hash", None)}
    content = {**dataclasses.asdict(recipe), "base": base, "documents": digest(problem.documents)}
    tuned = _kept(
        "novelty-tuned", content, reference.copy(), lambda m: tune(m, problem.documents, recipe), context.cache
    )
    return reference, tuned


def _kept(
    kind: str,
    content: dict[str, Any],
    start: TextModel,
    teach: Callable[[TextModel], None],
    directory: Path | None,
) -> TextModel:
    """`start` with the weights that `teach` gives it, from the cache or into it."""
    from safetensors.torch import load_model, save_model

    def make(path: Path) -> None:
        pupil = start.copy()
        teach(pupil)
        save_model(pupil.module, str(path))

    path = artefact(kind, {**content, "version": _VERSION}, make, directory)
    load_model(start.module, str(path), device=str(start.device))
    start.module.eval()
    return start


def tune(model: TextModel, documents: Sequence[str], recipe: Recipe) -> None:
    """Fine-tune `model` in place on documents, as the recipe says."""
    rows = rows_of(model, documents, recipe.length)
    stream = seeding.torch_generator(recipe.seed, "fine-tuning order")
    devices = [model.device] if model.device.type == "cuda" else []
    # Dropout and the adapters' first weights come from the global generators, which are put back.
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seeding.derive(recipe.seed, "fine-tuning"))
        adapted = with_adapters(model.module) if recipe.adapter == "lora" else None
        if recipe.private:
            noise = noise_of(recipe, len(rows))
            train_privately(model, rows, recipe, noise, stream)
        else:
            train(model, rows, recipe.tuning_epochs, recipe.tuning_rate, recipe.batch, stream)
        if adapted is not None:
            model.module = adapted.merge_and_unload()
    model.module.requires_grad_(True)


def train(
    model: TextModel,
    rows: Sequence[Sequence[int]],
    epochs: int,
    rate: float,
    batch: int,
    stream: torch.Generator,
) -> Tensor:
    """AdamW at a constant rate without decay, gradients clipped to norm 1; every epoch in an order of its own.

    Returns:
        The losses of the steps in nats per token.
    """
    orders = (torch.randperm(len(rows), generator=stream).split(batch) for _ in range(epochs))
    batches = [places.tolist() for order in orders for places in order]

    def step(number: int) -> Tensor:
        return loss(model, *batch_of(model, [rows[place] for place in batches[number]]))

    optimizer = torch.optim.AdamW(trainable(model.module), lr=rate, weight_decay=0.0)
    return fit(model.module, optimizer, step, steps=len(batches), schedule="constant")


def train_privately(
    model: TextModel, rows: Sequence[Sequence[int]], recipe: Recipe, noise: float, stream: torch.Generator
) -> None:
    """DP-SGD (Abadi et al. 2016): Poisson samples, gradients clipped one by one, Gaussian noise on their sum.

    Args:
        model: changed in place.
        rows: tokens of the documents, whose number is public.
        recipe: steps, batch, clip norm, rate and optimizer.
        noise: standard deviation of the noise over the clip norm.
        stream: of the samples and the noise, on the CPU.
    """
    moving = trainable(model.module)
    kind = torch.optim.SGD if recipe.private_optimizer == "sgd" else torch.optim.AdamW
    optimizer = kind(moving, lr=recipe.private_rate, weight_decay=0.0)
    share = min(1.0, recipe.private_batch / len(rows))
    model.module.train()
    for _ in range(recipe.private_steps):
        drawn = torch.nonzero(torch.rand(len(rows), generator=stream) < share)[:, 0].tolist()
        total = clipped_sum(model, [rows[place] for place in drawn], recipe.clip_norm)
        for parameter, gradient in zip(moving, total, strict=True):
            gaussian = torch.randn(gradient.shape, generator=stream).to(gradient)
            gradient += noise * recipe.clip_norm * gaussian
            parameter.grad = (gradient / (share * len(rows))).to(parameter.dtype)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    model.module.eval()


def clipped_sum(model: TextModel, rows: Sequence[Sequence[int]], clip: float) -> list[Tensor]:
    """Sum of the rows' gradients, each scaled down to norm `clip` where it is longer: float32 or the parameters' own."""
    total = [
        torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in trainable(model.module)
    ]
    if rows:
        for few in model.example_gradients(*batch_of(model, rows)):
            scale = (clip / norms(few)).clamp_max(1.0)
            for place, gradient in enumerate(few):
                total[place] += torch.tensordot(
                    scale.to(total[place].dtype), gradient.to(total[place].dtype), 1
                )
    return total


def norms(gradients: Sequence[Tensor]) -> Tensor:
    """2-norm over all parameters of each row's gradient: parameters of shape (rows, ...), result (rows,)."""
    return torch.stack([g.flatten(1).float().square().sum(1) for g in gradients]).sum(0).sqrt()


def noise_of(recipe: Recipe, documents: int) -> float:
    """The noise multiplier of a private recipe, found by accounting where it names an epsilon.

    Raises:
        MissingPackage: opacus is not installed.
    """
    if recipe.noise_multiplier is not None:
        return recipe.noise_multiplier
    assert recipe.target_epsilon is not None
    find = _accounting().utils.get_noise_multiplier
    return float(
        find(
            target_epsilon=recipe.target_epsilon,
            target_delta=1 / documents,
            sample_rate=min(1.0, recipe.private_batch / documents),
            steps=recipe.private_steps,
        )
    )


def epsilon(recipe: Recipe, documents: int) -> float:
    """Epsilon of a private recipe at delta = 1 / documents, by Rényi accounting of opacus.

    Raises:
        MissingPackage: opacus is not installed.
    """
    accountant = _accounting().RDPAccountant()
    share = min(1.0, recipe.private_batch / documents)
    accountant.history = [(noise_of(recipe, documents), share, recipe.private_steps)]
    return float(accountant.get_epsilon(delta=1 / documents))


def _accounting() -> Any:
    try:
        import opacus.accountants.utils
    except ImportError as error:
        raise MissingPackage(f"the accounting of private fine-tuning needs opacus: {error}") from error
    return opacus.accountants


def with_adapters(module: Any) -> Any:
    """Low-rank adapters on every matrix of the attention: rank 8, alpha 16, dropout 0.05; only they are trained.

    Raises:
        MissingPackage: peft is not installed.
        RequestError: the model has no attention.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingPackage(f"the adapters of 'lora' need peft: {error}") from error
    matrices = attention_matrices(module)
    if not matrices:
        raise RequestError(
            f"{type(module).__name__} has no attention whose matrices could get adapters",
            hint="set adapter: none",
        )
    return get_peft_model(module, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=matrices))


def attention_matrices(module: nn.Module) -> list[str]:
    """Names of the linear layers inside of attention: queries, keys, values (or all in one) and output."""
    from transformers.pytorch_utils import Conv1D

    return [
        name
        for name, part in module.named_modules()
        if isinstance(part, (nn.Linear, Conv1D))
        and any("attn" in piece or "attention" in piece for piece in name.lower().split(".")[:-1])
    ]


class Learner:
    """Optimisation steps on single texts: what turns p^(k-1) into p^(k).

    AdamW at a constant rate without decay, gradients clipped by their norm.

    Args:
        model: changed in place by `learn`.
        rate: learning rate; at 0 nothing changes.
        clip: largest norm of the gradient.
        ascend: make texts less probable and not more.
    """

    def __init__(self, model: TextModel, rate: float, clip: float = 1.0, ascend: bool = False) -> None:
        self.model, self.clip, self.sign = model, clip, -1.0 if ascend else 1.0
        self.optimizer = torch.optim.AdamW(model.module.parameters(), lr=rate, weight_decay=0.0)

    def learn(self, row: Sequence[int], steps: int = 1) -> None:
        """`steps` steps on the language-model loss of all tokens of a row, whose first one is the start."""
        batch = batch_of(self.model, [row])
        fit(
            self.model.module,
            self.optimizer,
            lambda _: self.sign * loss(self.model, *batch),
            steps=steps,
            schedule="constant",
            clip=self.clip,
        )
