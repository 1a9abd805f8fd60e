"""Labelled images: scikit-learn's digits, MNIST, CIFAR-10 and CIFAR-100, and random crops of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from harness import data
from harness.data import Hub

if TYPE_CHECKING:
    from datasets import Dataset

ImageData = Literal["digits", "mnist-10k", "cifar10-subset", "cifar10", "cifar100"]

_TRAIN = {"digits": 1200, "mnist-10k": 8000}
"""How many images train where the data set has no split of its own; the rest tests."""

_COLUMNS = {
    "cifar10-subset": ("image", "label", None),
    "cifar10": ("img", "label", None),
    "cifar100": ("img", "fine_label", "coarse_label"),
}
"""Columns of image, label and superclass."""


@dataclass(frozen=True)
class Images:
    """A data set in two parts.

    Attributes:
        train: [n, channels, height, width] float32, each channel with mean 0 and deviation 1 over `train`.
        train_labels: [n] int64.
        test: [m, channels, height, width] float32, normalised with the figures of `train`.
        test_labels: [m] int64.
        classes: how many classes there are.
        superclass: [classes] int64, where the data set has superclasses.
        black: [channels] float32, the value of a black pixel.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: int
    superclass: Tensor | None
    black: Tensor


def load(name: ImageData, train: int | None, test: int | None, generator: np.random.Generator) -> Images:
    """Draw a training and a test part of data set `name`.

    Args:
        name: "cifar10" and "cifar100" are looked for as ``train.parquet`` and ``test.parquet`` with the
            columns of the hub's ``uoft-cs/cifar10`` and ``uoft-cs/cifar100``, then on the hub.
        train: images to train with; None for all (1,200 of digits, 8,000 of mnist-10k, whose rest tests).
        test: images to test with; None for all that are left or that the test split has.
        generator: draws which images; a given test split is only drawn from when `test` says fewer.

    Raises:
        ValueError: there are not as many images.
        MissingData: the data set is nowhere to be found.
    """
    if name in _TRAIN:
        pixels, labels = _digits() if name == "digits" else _mnist()
        order = generator.permutation(len(pixels))
        n = _TRAIN[name] if train is None else train
        first, second = order[:n], order[n:] if test is None else order[n : n + test]
        if len(first) < n or len(second) < (test or 1):
            raise ValueError(f"{name} has {len(pixels)} images: {n} to train with leave too few to test with")
        parts = [(pixels[part], labels[part]) for part in (first, second)]
        superclass = None
    else:
        image, label, above = _COLUMNS[name]
        parts = []
        for split, size in (("train", train), ("test", test)):
            table = _table(name, split)
            if size is not None and size > len(table):
                raise ValueError(f"{name} has {len(table)} {split} images, not {size}")
            rows = np.arange(len(table)) if size is None else generator.permutation(len(table))[:size]
            parts.append((_decode(table, image, rows), np.asarray(table[label])[rows]))
        superclass = None if above is None else _superclasses(_table(name, "train"), label, above)
    (x, y), (x_test, y_test) = parts
    mean, deviation = x.mean(axis=(0, 2, 3)), x.std(axis=(0, 2, 3))

    def normalise(pixels: np.ndarray) -> Tensor:
        return torch.from_numpy((pixels - mean[:, None, None]) / deviation[:, None, None])

    return Images(
        train=normalise(x),
        train_labels=torch.from_numpy(y.astype(np.int64)),
        test=normalise(x_test),
        test_labels=torch.from_numpy(y_test.astype(np.int64)),
        classes=100 if name == "cifar100" else 10,
        superclass=superclass,
        black=torch.from_numpy(-mean / deviation),
    )


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images[:, None] / 16).astype(np.float32), bunch.target


def _mnist() -> tuple[np.ndarray, np.ndarray]:
    archive = data.arrays("mnist-10k", "mnist_10k.npz")
    return archive["images"][:, None].astype(np.float32) / 255, archive["labels"]


def _table(name: str, split: str) -> Dataset:
    hub = None if name == "cifar10-subset" else Hub(f"uoft-cs/{name}", split)
    return data.table(name, f"{split}.parquet", hub)


def _decode(table: Dataset, column: str, rows: np.ndarray) -> np.ndarray:
    """The images of `rows` as [len(rows), 3, height, width] float32 in [0, 1]."""
    import datasets

    chosen = table.select(rows).select_columns([column]).cast_column(column, datasets.Image())
    pixels = np.stack([np.asarray(row[column].convert("RGB")) for row in chosen])
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / 255


def _superclasses(table: Dataset, label: str, above: str) -> Tensor:
    labels, coarse = (torch.from_numpy(np.asarray(table[column])) for column in (label, above))
    superclass = torch.empty(int(labels.max()) + 1, dtype=torch.int64)
    superclass[labels] = coarse
    return superclass


class RandomCrops:
    """Padding by 4 black pixels, a random crop of the old size, and a flip from left to right half the time.

    Each call cuts the images that it is asked for out of the padded ones in one indexing operation.
    """

    def __init__(self, images: Tensor, black: Tensor, padding: int = 4) -> None:
        """Args: images [n, channels, height, width]; black [channels], the value of a black pixel."""
        n, channels, self.height, self.width = images.shape
        self.reach = 2 * padding
        size = (n, channels, self.height + self.reach, self.width + self.reach)
        self.padded = black.to(images).view(1, -1, 1, 1).expand(size).contiguous()
        self.padded[:, :, padding : padding + self.height, padding : padding + self.width] = images

    def __call__(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Crops [batch, channels, height, width] of the images `index` [batch], drawn on the CPU."""
        device, batch = self.padded.device, len(index)
        corner = torch.randint(self.reach + 1, (2, batch, 1), generator=generator)
        flip = torch.rand(batch, 1, generator=generator) < 0.5
        columns = torch.arange(self.width)
        rows = (corner[0] + torch.arange(self.height)).to(device)
        columns = (corner[1] + torch.where(flip, columns.flip(0), columns)).to(device)
        cut = self.padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return cut.permute(0, 3, 1, 2).contiguous()
