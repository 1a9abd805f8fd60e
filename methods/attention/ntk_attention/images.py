"""Image classifiers to adapt: a vision transformer from the hub, or a small one trained here on half the classes.

transformers is imported here at the top, for then the process that all methods of a run are forked from imports it, once.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

from harness import data, seeding
from harness.cache import artefact
from harness.errors import MissingData, MissingModel, first_line
from harness.seeding import rng, torch_generator
from methods.common.language_model import fit

ImageSet = Literal["digits", "mnist-10k", "cifar10-subset", "cifar100", "food101"]
HUB = {"cifar100": ("uoft-cs/cifar100", "img", "fine_label", "test"),
       "food101": ("ethz/food101", "image", "label", "validation")}  # fmt: skip
"""Repository, columns of image and label, and the split to test on."""


@dataclass(frozen=True)
class Shape:
    """A vision transformer that is trained here."""

    side: int
    channels: int
    classes: int
    width: int
    layers: int
    heads: int
    patch: int

    def fresh(self, seed: int) -> ViTForImageClassification:
        """It with initial weights that depend on `seed` alone."""
        config = ViTConfig(
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
            image_size=self.side,
            patch_size=self.patch,
            num_channels=self.channels,
            num_labels=self.classes,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seeding.derive(seed, "initial weights"))
            return ViTForImageClassification(config)


@dataclass(frozen=True)
class Images:
    """Images (n, channels, side, side) and their classes from 0, int64 (n,).

    The pixels are standardised float32, or, of large sets, uint8: see `ready`.
    """

    images: Tensor
    labels: Tensor

    def of(self, classes: range) -> Images:
        """Those of `classes`, numbered anew from 0."""
        keep = (self.labels >= classes.start) & (self.labels < classes.stop)
        return Images(self.images[keep], self.labels[keep] - classes.start)

    def split(self, count: int, seed: int) -> tuple[Images, Images]:
        """`count` random images, and the rest.

        Raises:
            MissingData: there are not more than `count`.
        """
        if count >= len(self.labels):
            raise MissingData(
                f"{count} images to train on, of {len(self.labels)} in all, leave none to test on"
            )
        order = torch.randperm(len(self.labels), generator=torch_generator(seed, "images to train on"))
        return self.at(order[:count]), self.at(order[count:])

    def at(self, index: Tensor) -> Images:
        """Some of them."""
        return Images(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Transfer:
    """What is adapted, to what.

    Attributes:
        train, test: of the new classes.
        classes: how many they are.
        source: what the model is trained on first; None for one from the hub.
        model: the hub's id, or the shape of the model for `source`.
        steps: of training on `source`.
    """

    train: Images
    test: Images
    classes: int
    source: Images | None
    model: str | Shape
    steps: int

    def base(self, device: str, cache: Path | None) -> Any:
        """The model as it is before it is adapted, with a new head for the classes.

        Raises:
            MissingModel: it is one of the hub and cannot be loaded here.
        """
        if isinstance(self.model, str):
            model = _from_hub(self.model, self.classes)
        else:
            model = self._trained(self.model, device, cache)
            model.classifier = torch.nn.Linear(self.model.width, self.classes)
        with torch.no_grad():  # the same head for all methods
            model.classifier.weight.zero_()
            model.classifier.bias.zero_()
        return model.to(device)

    def _trained(self, shape: Shape, device: str, cache: Path | None) -> Any:
        source = self.source
        assert source is not None
        digest = hashlib.sha256(source.images.numpy().tobytes() + source.labels.numpy().tobytes()).hexdigest()
        recipe = {**dataclasses.asdict(shape), "steps": self.steps, "images": digest, "version": 1}

        def train(target: Path) -> None:
            model = shape.fresh(0).to(device)
            optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
            learn(model, source, optimizer, self.steps, 64, torch_generator(0, "batches"), device)
            save_file({n: t.detach().cpu().clone() for n, t in model.state_dict().items()}, target)

        model = shape.fresh(0)
        model.load_state_dict(load_file(artefact("small-vit", recipe, train, cache)))
        return model


def learn(
    model: Any, images: Images, optimizer: Any, steps: int, batch: int, generator: torch.Generator, device: str
) -> Tensor:
    """Minimise the cross-entropy on random batches, the rate falling linearly; the loss of each step."""
    x, y = images.images, images.labels

    def loss(_: int) -> Tensor:
        index = torch.randint(len(y), (min(batch, len(y)),), generator=generator)
        return F.cross_entropy(model(pixel_values=ready(x[index].to(device))).logits, y[index].to(device))

    return fit(model, optimizer, loss, steps=steps, schedule="linear")


@torch.no_grad()
def predictions(model: Any, images: Tensor, device: str, batch: int = 256) -> Tensor:
    """The class of each image, int64 (n,), on the CPU."""
    parts = [model(pixel_values=ready(part.to(device))).logits.argmax(-1).cpu() for part in images.split(batch)]
    return torch.cat(parts)


def ready(pixels: Tensor) -> Tensor:
    """As a model takes them: float32; bytes are scaled to [-1, 1]."""
    return pixels.float() / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels


def load(name: ImageSet) -> Images:
    """All images of a small set, standardised over all of them.

    Raises:
        MissingData: it is not under ``HARNESS_DATA``.
    """
    if name == "digits":
        found = load_digits()
        pixels, labels = found.images[:, None], found.target
    elif name == "mnist-10k":
        arrays = data.arrays("mnist-10k", "mnist_10k.npz")
        pixels, labels = arrays["images"][:, None], arrays["labels"]
    else:
        table = data.table("cifar10-subset", "train.parquet").with_format("numpy")
        pixels, labels = np.stack(table["image"]).transpose(0, 3, 1, 2), table["label"]
    x = torch.from_numpy(np.asarray(pixels, np.float32))
    return Images((x - x.mean()) / x.std(), torch.from_numpy(np.asarray(labels, np.int64)))


def from_hub(name: str, count: int, side: int, seed: int) -> tuple[Images, Images, int]:
    """Images to train and test on of a set on the hub, as bytes, `side` pixels wide, and its classes.

    Args:
        count: images to train on, drawn with `seed`; 0: all.

    Raises:
        MissingData: it cannot be loaded here.
    """
    import datasets

    repository, image, label, held_out = HUB[name]
    try:
        train, test = (datasets.load_dataset(repository, split=part) for part in ("train", held_out))
    except (ConnectionError, OSError, ValueError) as error:
        raise MissingData(f"the hub's '{repository}' cannot be loaded here: {error}") from error
    if count:
        train = train.select(rng(seed, "images to train on").permutation(len(train))[:count].tolist())
    both = [_pixels(part[image], part[label], side) for part in (train, test)]
    return both[0], both[1], int(both[1].labels.max()) + 1


def _pixels(images: Any, labels: Any, side: int) -> Images:
    arrays = [np.asarray(i.convert("RGB").resize((side, side)), np.uint8) for i in images]
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    return Images(pixels.contiguous(), torch.as_tensor(labels))


def _from_hub(name: str, classes: int) -> Any:
    from transformers import AutoModelForImageClassification

    try:
        return AutoModelForImageClassification.from_pretrained(
            name, num_labels=classes, ignore_mismatched_sizes=True
        )
    except (OSError, ValueError) as error:
        raise MissingModel(f"the model '{name}' cannot be loaded here: {first_line(error)}") from error
