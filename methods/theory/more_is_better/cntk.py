"""The neural tangent kernel of the Myrtle convolutional networks, in closed form.

A pair of images is described by the covariances between every pixel p of one and every pixel q of the other.
Average pooling mixes pixels, so all H W H W of them are needed: memory traffic, not arithmetic, sets the pace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.theory import arc_cosine

BLOCKS = {5: (2, 1, 1), 7: (2, 2, 2), 10: (3, 3, 3)}
"""3 x 3 convolutions with ReLU in each of the three blocks; each block ends with 2 x 2 average pooling."""


@dataclass(frozen=True)
class Prepared:
    """Images and the standard deviations of their own pre-activations at every ReLU.

    Attributes:
        images: [n, h, w, c].
        deviations: per ReLU [n, h_l, w_l].
    """

    images: Tensor
    deviations: tuple[Tensor, ...]


@dataclass(frozen=True)
class MyrtleKernel:
    """NTK of a Myrtle network: blocks of convolutions, poolings down to about one pixel, a dense layer.

    Weights have variance 2/fan-in in the convolutions and 1/fan-in in the dense layer; without biases any
    other choice only scales the kernel. Convolutions are padded with zeros, poolings drop an odd last row
    or column.

    Attributes:
        depth: 5, 7 or 10.
        pair_batch: pairs of images at a time.
    """

    depth: int = 10
    pair_batch: int = 256

    def layers(self, size: int) -> list[str]:
        """The layers before the dense one, "conv" (with its ReLU) and "pool", for images of `size` x `size`."""
        if self.depth not in BLOCKS:
            raise ValueError(f"the Myrtle networks have depth {sorted(BLOCKS)}, not {self.depth}")
        first, second, third = BLOCKS[self.depth]
        final = int(math.log2(size)) - 2
        if final < 1:
            raise ValueError(f"images must be at least 8 x 8, not {size} x {size}")
        convolutions = [["conv"] * first, ["pool"], ["conv"] * second, ["pool"], ["conv"] * third]
        return [layer for group in convolutions for layer in group] + ["pool"] * final

    def prepare(self, images: Tensor) -> Prepared:
        """The pass of every image with itself, which fixes the scale of each ReLU."""
        parts = [self._pass(part, part, None)[1] for part in torch.split(images, self.pair_batch)]
        return Prepared(images, tuple(torch.cat(layer) for layer in zip(*parts, strict=True)))

    def symmetric(self, prepared: Prepared) -> Tensor:
        """K between all pairs of one set of images, [n, n]; each pair is computed once."""
        n = len(prepared.images)
        i, j = torch.triu_indices(n, n, device=prepared.images.device)
        kernel = prepared.images.new_empty(n, n)
        kernel[i, j] = self._pairs(prepared, prepared, i, j)
        kernel[j, i] = kernel[i, j]
        return kernel

    def cross(self, prepared: Prepared, other: Prepared) -> Tensor:
        """K between two sets of images, [n, m]."""
        n, m = len(prepared.images), len(other.images)
        index = torch.arange(n * m, device=prepared.images.device)
        return self._pairs(prepared, other, index // m, index % m).view(n, m)

    def _pairs(self, left: Prepared, right: Prepared, i: Tensor, j: Tensor) -> Tensor:
        chunks = zip(torch.split(i, self.pair_batch), torch.split(j, self.pair_batch), strict=True)
        return torch.cat([self._pair_batch(left, right, a, b) for a, b in chunks])

    def _pair_batch(self, left: Prepared, right: Prepared, a: Tensor, b: Tensor) -> Tensor:
        deviations = [(x[a], y[b]) for x, y in zip(left.deviations, right.deviations, strict=True)]
        return self._pass(left.images[a], right.images[b], deviations)[0]

    def _pass(
        self, x: Tensor, other: Tensor, deviations: list[tuple[Tensor, Tensor]] | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The kernel of each pair, [b], and the deviations met on the way.

        `deviations` None means that `x` and `other` are the same images, whose deviations are read off the
        diagonal of their covariances.
        """
        met: list[Tensor] = []
        sigma = torch.einsum("bijc,bklc->bijkl", x, other) / x.shape[-1]
        theta = torch.zeros_like(sigma)
        for layer in self.layers(x.shape[1]):
            if layer == "pool":
                sigma, theta = pool(sigma), pool(theta)
                continue
            sigma = convolve(sigma)
            theta = convolve(theta) + sigma
            if deviations is None:
                deviation = diagonal(sigma).clamp_min(0.0).sqrt()
                pair = (deviation, deviation)
            else:
                pair = deviations[len(met)]
            met.append(pair[0])
            sigma, theta = rectify(sigma, theta, *pair)
        # Flatten and a dense layer: the mean over pixels of both kernels, added.
        return (diagonal(sigma) + diagonal(theta)).mean(dim=(1, 2)), met


def diagonal(covariance: Tensor) -> Tensor:
    """The covariances of each pixel with the same pixel of the other image: [b, h, w] of [b, h, w, h, w]."""
    return torch.einsum("bijij->bij", covariance)


def convolve(covariance: Tensor) -> Tensor:
    """A 3 x 3 convolution with zero padding: (1/9) sum over offsets d of C[p + d, q + d].

    The sum over the two coordinates of d is taken one after the other.
    """
    out = covariance.clone()
    out[:, 1:, :, 1:, :] += covariance[:, :-1, :, :-1, :]
    out[:, :-1, :, :-1, :] += covariance[:, 1:, :, 1:, :]
    total = out.clone()
    total[:, :, 1:, :, 1:] += out[:, :, :-1, :, :-1]
    total[:, :, :-1, :, :-1] += out[:, :, 1:, :, 1:]
    return total.div_(9.0)


def pool(covariance: Tensor) -> Tensor:
    """2 x 2 average pooling with stride 2 of both images: [b, h, w, h, w] to [b, h//2, w//2, h//2, w//2]."""
    b, h, w = covariance.shape[:3]
    right = F.avg_pool2d(covariance.reshape(b * h * w, 1, h, w), 2).reshape(b, h, w, -1)
    left = F.avg_pool2d(right.permute(0, 3, 1, 2).reshape(-1, 1, h, w), 2)
    return left.reshape(b, h // 2, w // 2, h // 2, w // 2).permute(0, 3, 4, 1, 2)


def rectify(sigma: Tensor, theta: Tensor, deviation: Tensor, deviation_other: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(2) ReLU: sigma becomes s s' kappa_1(rho), theta is multiplied by kappa_0(rho); [b, h, w, h, w].

    A pixel whose deviation is 0 is constant zero and stays so.
    """
    scale = deviation[:, :, :, None, None] * deviation_other[:, None, None, :, :]
    rho = sigma / scale.clamp_min(torch.finfo(sigma.dtype).tiny)
    zero, one = arc_cosine.both(rho)
    return scale * one, theta * zero
