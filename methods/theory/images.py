"""Labelled images for the tasks of this family, drawn from local data sets."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Literal

import numpy as np

from harness import cache, data
from harness.seeding import rng

Source = Literal["mnist", "cifar10"]
"""MNIST: the data set `mnist-10k`, 10,000 digits of 28 x 28 x 1. CIFAR-10: `cifar10-subset`, of 32 x 32 x 3."""


def draw(
    source: Source, sizes: tuple[int, ...], seed: int, index: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Disjoint random sets of images.

    Args:
        source: which data set.
        sizes: how many images each set has.
        seed: names the draw, together with `index`.
        index: which of several independent draws.

    Returns:
        One pair per size: pixels [size, height, width, channels], float64, standardised by the mean and
        standard deviation of all pixels of the whole data set; labels [size], int64 in 0..9.

    Raises:
        MissingData: the data set is not here.
        ValueError: it has fewer images than asked for.
    """
    pixels, labels = _mnist() if source == "mnist" else _cifar10()
    if sum(sizes) > len(labels):
        raise ValueError(f"{source} has {len(labels)} images, {sum(sizes)} were asked for")
    # The first half of the MNIST digits is cleaner than the second: never take them in file order.
    order = rng(seed, "images", source, index).permutation(len(labels))[: sum(sizes)]
    # From counts of the 256 values: exact, and quicker than floating point over all pixels.
    share = np.bincount(pixels.ravel(), minlength=256) / pixels.size
    mean = float(share @ np.arange(256))
    deviation = float(np.sqrt(share @ (np.arange(256) - mean) ** 2))
    parts = np.split(order, np.cumsum(sizes)[:-1])
    return [((pixels[part] - mean) / deviation, labels[part]) for part in parts]


def _mnist() -> tuple[np.ndarray, np.ndarray]:
    archive = data.arrays("mnist-10k", "mnist_10k.npz")
    return archive["images"][..., None], archive["labels"].astype(np.int64)


def _cifar10() -> tuple[np.ndarray, np.ndarray]:
    """The 15,000 training images, decoded once and kept in the cache."""
    source = data.file("cifar10-subset", "train.parquet")

    def make(path: Path) -> None:
        import pandas as pd
        from PIL import Image

        table = pd.read_parquet(source)
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in table["image"]])
        with path.open("wb") as stream:
            np.savez(stream, pixels=pixels, labels=table["label"].to_numpy(dtype=np.int64))

    recipe = {"parquet": hashlib.sha256(source.read_bytes()).hexdigest()}
    with np.load(cache.artefact("cifar10-pixels", recipe, make), allow_pickle=False) as archive:
        return archive["pixels"], archive["labels"]
