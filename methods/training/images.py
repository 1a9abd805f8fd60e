"""Images to train on: two small sets in memory, and folders of image files read while training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from harness import data
from harness.errors import MissingData
from harness.seeding import rng, torch_generator
from methods.training.loop import Batches

SPLIT_SEED = 0
"""The split into training and test images is the same for every seed of a record."""
PART = 500
"""Images of a forward and backward pass; the gradients of the parts of a larger batch are added."""


@dataclass(frozen=True)
class ImageSet:
    """Images float32 (n, channels, height, width), standardised over the training part; labels int64 (n,)."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int = 10


def image_set(name: Literal["digits", "mnist-10k"]) -> ImageSet:
    """scikit-learn's digits (8 x 8; 1,437 to train on, 360 to test) or mnist-10k (28 x 28; 6,000 and 2,000).

    Raises:
        MissingData: mnist-10k is not under ``HARNESS_DATA``.
    """
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        images, labels, n_train, n_test = digits.images, digits.target, 1437, 360
    else:
        arrays = data.arrays("mnist-10k", "mnist_10k.npz")
        images, labels, n_train, n_test = arrays["images"], arrays["labels"], 6000, 2000
    order = rng(SPLIT_SEED, "split", name).permutation(len(images))[: n_train + n_test]
    pixels = torch.from_numpy(np.asarray(images, np.float32)[order])[:, None]
    targets = torch.from_numpy(np.asarray(labels, np.int64)[order])
    mean, std = pixels[:n_train].mean(), pixels[:n_train].std()
    pixels = (pixels - mean) / std
    return ImageSet(pixels[:n_train], targets[:n_train], pixels[n_train:], targets[n_train:])


def epochs_order(n: int, steps: int, batch: int, seed: int) -> Tensor:
    """Indices of the images of each step, (steps, batch): permutations of range(n), one after another."""
    if batch > n:
        raise ValueError(f"a batch of {batch} is larger than the {n} images to train on")
    generator = torch_generator(seed, "order of images")
    passes = -(-steps * batch // n)
    order = torch.cat([torch.randperm(n, generator=generator) for _ in range(passes)])
    return order[: steps * batch].view(steps, batch)


@dataclass(frozen=True)
class ImagesInMemory(Batches):
    """Batches of an `ImageSet` in a given order of indices, (steps, batch)."""

    images: ImageSet
    order: Tensor

    @property
    def classes(self) -> int:
        """Of the images."""
        return self.images.classes

    def to(self, device: str) -> ImagesInMemory:
        """The images and their order on `device`."""
        moved = ImageSet(
            self.images.train_images.to(device),
            self.images.train_labels.to(device),
            self.images.test_images.to(device),
            self.images.test_labels.to(device),
            self.images.classes,
        )
        return ImagesInMemory(moved, self.order.to(device))

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Cross-entropy in nats."""
        return torch.stack(list(self.losses(model, step))).sum()

    def losses(self, model: nn.Module, step: int) -> Iterator[Tensor]:
        """The same in parts of at most `PART` images, which the processor's caches can hold."""
        batch = self.order[step]
        for chosen in torch.split(batch, PART):
            logits = model(self.images.train_images[chosen])
            total = F.cross_entropy(logits.float(), self.images.train_labels[chosen], reduction="sum")
            yield total / len(batch)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> float:
        """Share of the test images that are classified right."""
        device, right, count = next(model.parameters()).device, 0, len(self.images.test_labels)
        for start in range(0, count, 1000):
            chosen = slice(start, start + 1000)
            guessed = model(self.images.test_images[chosen].to(device)).argmax(1)
            right += int((guessed == self.images.test_labels[chosen].to(device)).sum())
        return right / count


# --- folders of image files -------------------------------------------------------------------------


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Image files in one folder per class, resized and cropped to a square.

    Training crops have a random area (8 to 100 %) and aspect ratio (3/4 to 4/3) and are flipped half the time;
    test images are scaled so that the shorter side is 8/7 of the crop, and cropped in the middle. What is drawn
    for image i in pass p depends on (seed, p, i) alone, whichever worker reads it.

    Args:
        folder: has one sub-folder per class.
        size: height and width in pixels.
        augment_seed: seed of the crops and flips; None takes the middle.
    """

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, folder: Path, size: int, augment_seed: int | None) -> None:
        self.size, self.augment_seed = size, augment_seed
        self.classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        suffixes = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
        self.files = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((folder / name).iterdir())
            if path.suffix.lower() in suffixes
        ]
        if not self.files:
            raise MissingData(f"{folder} has no images in sub-folders, one per class")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        """Image `place` modulo the number of images, in pass `place` div that number, and its class."""
        passed, index = divmod(place, len(self.files))
        path, label = self.files[index]
        with Image.open(path) as image:
            square = self._crop(image.convert("RGB"), passed, index)
        pixels = torch.from_numpy(np.asarray(square, np.float32) / 255).permute(2, 0, 1)
        return (pixels - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None], label

    def _crop(self, image: Image.Image, passed: int, index: int) -> Image.Image:
        width, height = image.size
        if self.augment_seed is None:
            side = min(width, height) * 7 / 8
            left, top = (width - side) / 2, (height - side) / 2
            box, flip = (left, top, left + side, top + side), False
        else:
            random = rng(self.augment_seed, "crop", passed, index)
            area = width * height * random.uniform(0.08, 1.0)
            ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
            w, h = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
            left, top = random.uniform(0, width - w), random.uniform(0, height - h)
            box, flip = (left, top, left + w, top + h), random.random() < 0.5
        square = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)
        return square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else square


class Shuffled(Sampler[int]):
    """Places `pass * n + index` for `ImageFolder`: as many as asked for, each pass a new permutation."""

    def __init__(self, n: int, count: int, seed: int) -> None:
        self.n, self.count, self.seed = n, count, seed

    def __iter__(self) -> Iterator[int]:
        """The places, the same on every iteration."""
        for start in range(0, self.count, self.n):
            passed = start // self.n
            order = rng(self.seed, "order of images", passed).permutation(self.n)[: self.count - start]
            yield from (passed * self.n + order).tolist()

    def __len__(self) -> int:
        """How many places."""
        return self.count


@dataclass(frozen=True)
class ImagesInFolder(Batches):
    """Batches read from image files by worker processes while the device computes.

    Attributes:
        train, test: the images.
        steps, batch: of the training.
        seed: of the order.
        workers: processes that read; 0 reads in this one.
        device: where the images go.
    """

    train: ImageFolder
    test: ImageFolder
    steps: int
    batch: int
    seed: int
    workers: int
    device: str = "cpu"
    _reading: dict[str, Iterator[tuple[Tensor, Tensor]]] = field(default_factory=dict, repr=False)

    @property
    def classes(self) -> int:
        """Of the images."""
        return len(self.train.classes)

    def to(self, device: str) -> ImagesInFolder:
        """The same files, read to `device`."""
        return dataclasses.replace(self, device=device, _reading={})

    @cached_property
    def _loader(self) -> DataLoader[tuple[Tensor, int]]:
        sampler = Shuffled(len(self.train), self.steps * self.batch, self.seed)
        return DataLoader(
            self.train, self.batch, sampler=sampler, num_workers=self.workers, pin_memory=self.device != "cpu"
        )

    def loss(self, model: nn.Module, step: int) -> Tensor:
        """Cross-entropy in nats; steps come in order, and step 0 starts reading anew."""
        if step == 0:
            self._reading["train"] = iter(self._loader)
        images, labels = next(self._reading["train"])
        logits = model(images.to(self.device, non_blocking=True))
        return F.cross_entropy(logits.float(), labels.to(self.device, non_blocking=True))

    @torch.no_grad()
    def validate(self, model: nn.Module) -> float:
        """Share of the test images that are classified right."""
        device, right = next(model.parameters()).device, 0
        for images, labels in DataLoader(self.test, self.batch, num_workers=self.workers):
            right += int((model(images.to(device)).argmax(1) == labels.to(device)).sum())
        return right / len(self.test)
