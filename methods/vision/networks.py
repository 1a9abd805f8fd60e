"""Image classifiers, from a logistic model to residual networks with the stem for small images.

Every network maps inputs [batch, ...] float32 to logits [batch, classes]. Weights start from torch's own
defaults, drawn from a seed of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NetworkName = Literal["logistic", "mlp-256", "mlp-512", "cnn-5", "resnet-18", "resnet-34", "preact-resnet-18"]


class Logistic(nn.Module):
    """Two classes, one weight vector: the logits are -s/2 and s/2 with s = <w, x>, so p_1 = sigmoid(s).

    It starts at w = 0, and a gradient step on its cross-entropy is one of logistic regression.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        s = x @ self.weight
        return torch.stack((-s / 2, s / 2), dim=1)


def mlp(inputs: int, width: int, classes: int) -> nn.Module:
    """Two hidden layers of `width` rectified units."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


class GlobalMean(nn.Module):
    """[batch, channels, height, width] to [batch, channels]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def cnn(
    channels: int,
    classes: int,
    widths: Sequence[int] = (32, 64, 64, 128, 128),
    strides: Sequence[int] = (2, 1, 2, 1, 2),
) -> nn.Module:
    """3x3 convolutions with batch normalisation, then a mean over the image and a linear layer."""
    layers: list[nn.Module] = []
    for width, stride in zip(widths, strides, strict=True):
        layers += [_conv3(channels, width, stride), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, GlobalMean(), nn.Linear(channels, classes))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016, figure 2)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv3(channels, width, stride), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = _conv3(width, width), nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(h)) + self.shortcut(x))


class PreActivationBlock(nn.Module):
    """The same with normalisation and rectifier before each convolution (He et al. 2016b).

    A shortcut that changes the shape is a 1x1 convolution of the rectified input.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), _conv3(channels, width, stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(width), _conv3(width, width)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels != width:
            self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(h)
        residual: Tensor = self.conv2(F.relu(self.norm2(self.conv1(h))))
        return residual + shortcut


def resnet(channels: int, classes: int, blocks: Sequence[int], *, preact: bool = False) -> nn.Module:
    """A residual network of four stages (64, 128, 256, 512 channels) for images of about 32x32 pixels.

    The stem is one 3x3 convolution of stride 1 without pooling. The pre-activation kind has no
    normalisation after the stem and, as published for CIFAR, none before the final mean.
    """
    layers: list[nn.Module] = [_conv3(channels, 64)]
    if not preact:
        layers += [nn.BatchNorm2d(64), nn.ReLU()]
    block = PreActivationBlock if preact else BasicBlock
    channels = 64
    for stage, count in enumerate(blocks):
        for i in range(count):
            layers.append(block(channels, 64 * 2**stage, 2 if stage > 0 and i == 0 else 1))
            channels = 64 * 2**stage
    return nn.Sequential(*layers, GlobalMean(), nn.Linear(channels, classes))


def build(name: NetworkName, shape: Sequence[int], classes: int, seed: int) -> nn.Module:
    """A fresh network.

    Args:
        name: which one.
        shape: of one input: (features,) for "logistic", else (channels, height, width).
        classes: number of logits.
        seed: of the initial weights; torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        match name:
            case "logistic":
                if classes != 2:
                    raise ValueError(f"the logistic model has 2 classes, not {classes}")
                return Logistic(shape[0])
            case "mlp-256" | "mlp-512":
                return mlp(torch.Size(shape).numel(), int(name.removeprefix("mlp-")), classes)
            case "cnn-5":
                return cnn(shape[0], classes)
            case "resnet-18":
                return resnet(shape[0], classes, (2, 2, 2, 2))
            case "resnet-34":
                return resnet(shape[0], classes, (3, 4, 6, 3))
            case "preact-resnet-18":
                return resnet(shape[0], classes, (2, 2, 2, 2), preact=True)
    raise ValueError(f"there is no network '{name}'")


def _conv3(channels: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
