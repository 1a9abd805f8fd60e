"""Which half of a transformer stays as it is: the random selection of the paper, and its variants.

The unit is a module as a whole, weights and biases together. Only modules inside the decoder (or encoder)
layers take part; embeddings, output layer and final norm are outside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Level = Literal["category", "layer", "model", "element"]
State = Mapping[str, Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class Layer:
    """Names of one layer's modules, by the paper's three categories."""

    attention: tuple[str, ...]
    feed_forward: tuple[str, ...]
    norms: tuple[str, ...]

    @property
    def categories(self) -> tuple[tuple[str, ...], ...]:
        return self.attention, self.feed_forward, self.norms

    @property
    def matrices(self) -> tuple[str, ...]:
        return self.attention + self.feed_forward

    @property
    def modules(self) -> tuple[str, ...]:
        return self.matrices + self.norms


# Per architecture: what a layer is called, and its attention, feed-forward and norm modules in it.
_NAMES = (
    (  # Llama and the many that took over its names
        r"layers\.\d+",
        r"self_attn\.(q|k|v|o)_proj",
        r"mlp\.(gate|up|down)_proj",
        r"(input|post_attention)_layernorm",
    ),
    (r"h\.\d+", r"attn\.c_(attn|proj)", r"mlp\.c_(fc|proj)", r"ln_[12]"),  # GPT-2
    (  # BERT
        r"layer\.\d+",
        r"attention\.(self\.(query|key|value)|output\.dense)",
        r"(intermediate|output)\.dense",
        r"(attention\.)?output\.LayerNorm",
    ),
)


def layers(model: nn.Module) -> list[Layer]:
    """The layers of `model` from the bottom up, found by the names of their modules.

    Raises:
        ValueError: the names are not those of Llama, GPT-2 or BERT.
    """
    names = [name for name, _ in model.named_modules()]
    for layer, *categories in _NAMES:
        pattern = re.compile(rf"^((?:.*\.)?{layer})\.(?:" + "|".join(f"({c})" for c in categories) + ")$")
        found: dict[str, tuple[list[str], list[str], list[str]]] = {}
        for name in names:
            if match := pattern.match(name):
                kind = next(i for i, c in enumerate(categories) if re.fullmatch(c, name[len(match[1]) + 1 :]))
                found.setdefault(match[1], ([], [], []))[kind].append(name)
        if found:
            return [Layer(*(tuple(kind) for kind in kinds)) for kinds in found.values()]
    raise ValueError(f"no transformer layers are known in a {type(model).__name__}")


def selectable(model: nn.Module) -> tuple[str, ...]:
    """All modules that a selection can freeze."""
    return tuple(name for layer in layers(model) for name in layer.modules)


def size(model: nn.Module, modules: Iterable[str]) -> int:
    """Number of parameters in `modules` of `model`."""
    return sum(p.numel() for name in modules for p in model.get_submodule(name).parameters())


def select(
    model: nn.Module, ratio: float, rng: np.random.Generator, level: Level = "category"
) -> frozenset[str]:
    """Draw the modules to freeze.

    Args:
        model: a Llama-, GPT-2- or BERT-shaped model.
        ratio: share to freeze, 0 to 1.
        rng: a fresh stream for every stage.
        level: "category": within each layer, in the attention, feed-forward and norm modules apart (the
            method of the paper); "layer": whole layers; "model": any matrices and any norms of the model.
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio is a share between 0 and 1, not {ratio}")
    every = layers(model)
    if level == "layer":
        return frozenset(m for layer in _some(every, ratio, rng) for m in layer.modules)
    if level == "model":
        matrices = [m for layer in every for m in layer.matrices]
        norms = [m for layer in every for m in layer.norms]
        return frozenset(_some(matrices, ratio, rng)) | frozenset(_some(norms, ratio, rng))
    if level != "category":
        raise ValueError(f"modules are selected by category, layer or model, not by {level}")
    if ratio == 0.5:
        return _halves(every, rng)
    return frozenset(m for layer in every for m in _near(model, layer, ratio, rng))


def _halves(every: Sequence[Layer], rng: np.random.Generator) -> frozenset[str]:
    """Half of each category of each layer; an odd category rounds up in a random half of the layers."""
    up = set(rng.permutation(len(every))[: len(every) // 2].tolist())
    frozen: set[str] = set()
    for i, layer in enumerate(every):
        for category in layer.categories:
            count = (len(category) + (i in up)) // 2
            frozen.update(rng.permutation(np.array(category, dtype=object))[:count])
    return frozenset(frozen)


def _near(model: nn.Module, layer: Layer, ratio: float, rng: np.random.Generator) -> frozenset[str]:
    """About `ratio` of each category, then matrices exchanged until the layer's share is near `ratio`."""
    frozen = {m for category in layer.categories for m in _some(category, ratio, rng)}
    goal = ratio * size(model, layer.modules)
    while True:
        count = size(model, frozen)
        # Ties are broken at random: equal matrices are equally likely to be added or removed.
        order = rng.permutation(np.array(layer.matrices, dtype=object))
        after = [count + (-1 if m in frozen else 1) * size(model, [m]) for m in order]
        best = int(np.argmin([abs(a - goal) for a in after]))
        if abs(after[best] - goal) >= abs(count - goal):
            return frozenset(frozen)
        frozen ^= {order[best]}


def _some(items: Sequence[T], ratio: float, rng: np.random.Generator) -> list[T]:
    """round(ratio * n) of `items`, uniformly; halves are rounded up."""
    count = int(ratio * len(items) + 0.5)
    return [items[i] for i in rng.permutation(len(items))[:count]]


def freeze(model: nn.Module, modules: Iterable[str]) -> None:
    """Take `modules` out of training: no gradient, so no optimizer state and no weight-gradient product."""
    for name in modules:
        model.get_submodule(name).requires_grad_(False)


def select_elements(model: nn.Module, ratio: float, rng: np.random.Generator) -> dict[str, Tensor]:
    """Element level: for each tensor of the selectable modules which entries stay, a bool tensor on its device.

    Exactly round(ratio * n) entries of each tensor are True.
    """
    masks = {}
    for module in selectable(model):
        for name, p in model.get_submodule(module).named_parameters():
            flat = torch.zeros(p.numel(), dtype=torch.bool)
            flat[torch.from_numpy(rng.permutation(p.numel())[: int(ratio * p.numel() + 0.5)])] = True
            masks[f"{module}.{name}"] = flat.view_as(p).to(p.device)
    return masks


def hold_elements(
    model: nn.Module, optimizer: torch.optim.Optimizer, masks: Mapping[str, Tensor]
) -> Callable[[], None]:
    """Keep the entries in `masks` where they are during the steps of `optimizer`.

    Their gradient is set to zero, which leaves them out of a clipped norm; decoupled weight decay moves
    entries with a zero gradient too, so they are also put back after each step.

    Returns:
        A function that ends it.
    """
    start = {name: model.get_parameter(name).detach().clone() for name in masks}
    handles = [
        model.get_parameter(name).register_hook(lambda grad, mask=mask: grad.masked_fill(mask, 0))
        for name, mask in masks.items()
    ]

    def put_back(*_: object) -> None:
        with torch.no_grad():
            for name, mask in masks.items():
                p = model.get_parameter(name)
                p.copy_(torch.where(mask, start[name], p))

    handles.append(optimizer.register_step_post_hook(put_back))

    def end() -> None:
        for handle in handles:
            handle.remove()

    return end


def half_reset(base: State, tuned: State, modules: Iterable[str]) -> dict[str, Tensor]:
    """The fine-tuned state with `modules` as they are in `base`; no training.

    Args:
        base: tensors of the pre-trained model by name.
        tuned: those of the fine-tuned one, same names and shapes.
        modules: names of the modules to reset, e.g. from `select`.
    """
    chosen = set(modules)
    return {name: (base if name.rpartition(".")[0] in chosen else tuned)[name] for name in tuned}
