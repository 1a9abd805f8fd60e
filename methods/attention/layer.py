"""What the methods of one attention layer share: moving the inputs, and the backward pass."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from harness.method import Method
from methods.attention.llama import log_probabilities, model, replace_attention
from methods.attention.partial import Partial
from methods.attention.tasks import LongContextLanguageModel
from methods.attention.work import Attended, Inputs, Text


class Layer(Method[Inputs, Attended]):
    """A method that is a function of q, k and v; its gradient is autograd's."""

    grouped: ClassVar[bool] = False
    """Whether `attention` takes fewer heads of keys than of queries; else they are repeated in front of it."""

    def prepare(self, work: Inputs) -> None:
        self.inputs = work.to(self.context.device)

    @abstractmethod
    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor | Partial:
        """The output, (heads, n, d), with the log-sum-exp where the method has it.

        Args:
            q: shape (heads, n, d); a batch's sequences add heads.
            k, v: shape (heads, n, d), or (key heads, n, d) for a method that is `grouped`.
            causal: whether query i sees only keys 0..i.
            scale: of the scores.
        """

    def run(self) -> Attended:
        x = self.inputs
        differentiate = x.upstream is not None
        q, k, v = (t.detach().requires_grad_(differentiate) for t in (x.q, x.k, x.v))
        with torch.set_grad_enabled(differentiate):
            keys, values = k, v
            if x.group > 1 and not self.grouped:
                keys, values = (t.repeat_interleave(x.group, 0) for t in (k, v))
            result = self.attention(q, keys, values, causal=x.causal, scale=x.scale)
        out, lse = result if isinstance(result, Partial) else (result, None)
        if not differentiate:
            return Attended(out, lse)
        dq, dk, dv = torch.autograd.grad(out, (q, k, v), x.upstream)
        return Attended(out.detach(), lse, (dq, dk, dv))


class LanguageModel(Method[Text, Tensor]):
    """The task's model with `attention` in place of that of its last `patched_layers` layers."""

    patched_layers: int

    @abstractmethod
    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> Tensor | Partial:
        """See `Layer.attention`."""

    def prepare(self, work: Text) -> None:
        assert isinstance(self.task, LongContextLanguageModel)
        layers = work.recipe.layers
        if self.patched_layers > layers:
            raise ValueError(f"{self.patched_layers} patched layers in a model of {layers}")
        dtype = getattr(torch, self.task.dtype)
        self.model = model(work.recipe, dtype=dtype, device=self.context.device, cache=self.context.cache)
        self.tokens = work.tokens.to(self.context.device)
        replace_attention(self.model, range(layers - self.patched_layers, layers), self._replacement)

    def _replacement(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        result = self.attention(q, k, v, causal=True, scale=scale)
        return result.out if isinstance(result, Partial) else result

    def run(self) -> Tensor:
        return log_probabilities(self.model, self.tokens)
