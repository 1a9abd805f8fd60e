"""Signum: the sign of an exponential moving average of the gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class Signum(Optimizer):
    """Sign descent with momentum (Bernstein et al. 2018, "signSGD", arXiv 1802.04434, algorithm 1).

    m = beta m + (1 - beta) g;  theta = theta - lr (sign(m) + weight_decay theta). The average includes the
    current gradient. With beta = 0 it is signSGD.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        beta: of the average, in [0, 1).
        weight_decay: decoupled.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-4, beta: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        if not (lr >= 0.0 and 0.0 <= beta < 1.0 and weight_decay >= 0.0):
            raise ValueError(f"out of range: {lr=}, {beta=}, {weight_decay=}")
        super().__init__(params, {"lr": lr, "beta": beta, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient; closures are not supported."""
        if closure is not None:
            raise ValueError("Signum takes no closure")
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            for parameter in parameters:
                self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            momenta = [self.state[p]["momentum"] for p in parameters]
            torch._foreach_lerp_(momenta, gradients, 1.0 - group["beta"])
            torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, torch._foreach_sign(momenta), alpha=-group["lr"])
