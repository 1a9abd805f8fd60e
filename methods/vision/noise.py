"""Wrong labels, drawn at random: symmetric over all classes, or towards the class most like the true one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CIFAR10_CONFUSIONS = {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}
"""truck to automobile, bird to airplane, cat and dog to each other, deer to horse (Patrini et al. 2017)."""

DIGIT_CONFUSIONS = {2: 7, 3: 8, 5: 6, 6: 5, 7: 1}
"""2 to 7, 3 to 8, 5 and 6 to each other, 7 to 1 (Patrini et al. 2017)."""


def symmetric(labels: Tensor, classes: int, rate: float, generator: np.random.Generator) -> Tensor:
    """A random `rate` of the labels drawn anew from all classes, the true one included.

    The expected share of wrong labels is rate * (classes - 1) / classes.

    Args:
        labels: [n] int64.
    """
    n = len(labels)
    chosen = torch.from_numpy(generator.permutation(n)[: round(rate * n)])
    noisy = labels.clone()
    noisy[chosen] = torch.from_numpy(generator.integers(classes, size=len(chosen)))
    return noisy


def confused(labels: Tensor, confusions: dict[int, int], rate: float, generator: np.random.Generator) -> Tensor:
    """A random `rate` of the examples of each confusable class gets the label of the class it maps to.

    Args:
        labels: [n] int64.
        confusions: from the true class to the wrong one.
    """
    noisy = labels.clone()
    for true, wrong in confusions.items():
        members = generator.permutation(torch.nonzero(labels == true)[:, 0].numpy())
        noisy[torch.from_numpy(members[: round(rate * len(members))])] = wrong
    return noisy


def next_in_superclass(
    labels: Tensor, superclass: Tensor, rate: float, generator: np.random.Generator
) -> Tensor:
    """Each label moves with probability `rate` to the next class of its superclass, the last to the first.

    Args:
        labels: [n] int64.
        superclass: [classes] int64.
    """
    successor = torch.arange(len(superclass))
    for group in torch.unique(superclass):
        members = torch.nonzero(superclass == group)[:, 0]
        successor[members] = members.roll(-1)
    moved = torch.from_numpy(generator.random(len(labels)) < rate)
    return torch.where(moved, successor[labels], labels)
