"""Lion as a `torch.optim.Optimizer`: the sign of an interpolated momentum, with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lion(Optimizer):
    """EvoLved Sign Momentum (Program 1 of the paper).

    State: one tensor m per parameter, of its shape, dtype and device, zero at first. There is no epsilon, no
    bias correction and no step counter. A step with gradient g, learning rate eta and weight decay lambda is

        c     = beta1 m + (1 - beta1) g
        theta = theta - eta (sign(c) + lambda theta)
        m     = beta2 m + (1 - beta2) g

    with sign(0) = 0, so before weight decay each coordinate moves by eta or not at all. All parameters of a
    device and dtype are updated together by five `torch._foreach` kernels.

    An update below half a unit in the last place of a parameter is lost, as in every optimizer: keep
    bfloat16 models' weights in float32 and compute under autocast.

    Args:
        params: parameters, or groups of them with options of their own.
        lr: eta; a third to a tenth of what Adam wants.
        betas: (beta1, beta2), each in [0, 1); (0.95, 0.98) is steadier on language models.
        weight_decay: lambda; three to ten times AdamW's, so that eta * lambda is kept.

    Raises:
        ValueError: an option is out of range.
        RuntimeError: (in `step`) a gradient is sparse, or a parameter is complex.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; options it lacks are the optimizer's."""
        options = {**self.defaults, **param_group}
        if not options["lr"] >= 0.0:
            raise ValueError(f"lr must not be negative: {options['lr']}")
        if not options["weight_decay"] >= 0.0:
            raise ValueError(f"weight_decay must not be negative: {options['weight_decay']}")
        if len(options["betas"]) != 2 or not all(0.0 <= beta < 1.0 for beta in options["betas"]):
            raise ValueError(f"betas must be two numbers in [0, 1): {options['betas']}")
        super().add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have a gradient; the closure, if given, recomputes the loss first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameters, gradients, momenta in self._alike(group["params"]):
                _update(
                    parameters,
                    gradients,
                    momenta,
                    lr=group["lr"],
                    betas=group["betas"],
                    weight_decay=group["weight_decay"],
                )
        return loss

    def _alike(self, params: list[Tensor]) -> Iterable[tuple[list[Tensor], list[Tensor], list[Tensor]]]:
        """Parameters, gradients and momenta by device and dtype: foreach kernels are fast on equal kinds."""
        alike: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor], list[Tensor]]] = {}
        for parameter in params:
            gradient = parameter.grad
            if gradient is None:
                continue
            if gradient.is_sparse:
                raise RuntimeError("Lion does not take sparse gradients; build the embedding with sparse=False")
            if parameter.is_complex():
                raise RuntimeError("Lion does not take complex parameters: they have no sign")
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            lists = alike.setdefault((parameter.device, parameter.dtype), ([], [], []))
            for chosen, tensor in zip(lists, (parameter, gradient, state["momentum"]), strict=True):
                chosen.append(tensor)
        return alike.values()


def _update(
    parameters: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Tensor],
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> None:
    """One step in place; the three lists are aligned. lerp(m, g, w) is (1 - w) m + w g."""
    beta1, beta2 = betas
    signs = torch._foreach_lerp(momenta, gradients, 1.0 - beta1)  # c, in tensors of its own: m is still needed
    torch._foreach_sign_(signs)
    if weight_decay:
        torch._foreach_mul_(parameters, 1.0 - lr * weight_decay)
    torch._foreach_add_(parameters, signs, alpha=-lr)
    torch._foreach_lerp_(momenta, gradients, 1.0 - beta2)  # after the step: c used the old m
