"""The networks that the family trains: a perceptron, a vision transformer and a decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import seeding

Module = TypeVar("Module", bound=nn.Module)


def initialised(make: Callable[[], Module], seed: int) -> Module:
    """The module that `make` builds, with initial weights that depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeding.derive(seed, "initial weights"))
        return make()


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """A perceptron with ReLU between layers of the given widths; flattens images (batch, ...)."""
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Block(nn.Module):
    """Pre-LN: x + attention(LN x), then x + MLP(LN x). (batch, tokens, width) to the same."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """One block; all tokens see one another."""
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.out(attended)
        changed: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return changed


class VisionTransformer(nn.Module):
    """A vision transformer with learned positions and a mean over tokens in front of the linear head.

    Args:
        image: height and width in pixels, a multiple of `patch`.
        channels: of the image.
        patch: height and width of a patch.
        width: of a token.
        depth: blocks.
        heads: attention heads, a divisor of `width`.
        hidden: width of the MLP inside a block.
        classes: outputs.
    """

    def __init__(
        self,
        *,
        image: int,
        channels: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        classes: int,
    ) -> None:
        super().__init__()
        if image % patch:
            raise ValueError(f"patches of {patch} pixels do not tile an image of {image}")
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.embed = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn((image // patch) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        tokens = self.embed(images).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits
