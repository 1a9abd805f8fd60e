"""Independent random streams from one seed.

The seed of a record names the whole run. What is drawn for different purposes (the data, the noise, the
initial weights, the order of batches) comes from streams of its own, so that changing one never shifts
another: ``rng(seed, "noise")`` is the same on every machine and in every process.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) that depends on `seed` and on every name, in order."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for the stream `names` of `seed`."""
    import numpy as np

    return np.random.default_rng(derive(seed, *names))


def torch_generator(seed: int, *names: str | int, device: str = "cpu") -> torch.Generator:
    """A torch generator on `device` for the stream `names` of `seed`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *names))
