"""What NTK-Attention stands for, and attention without it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.method import Method, method
from harness.types import PositiveFloat, PositiveInt
from methods.attention.floor import FLOOR, Floor, attention_floor
from methods.attention.ntk_attention.adaptation import TRAINED, Adaptation
from methods.attention.ntk_attention.adapters import PrefixAdapter, adapt
from methods.attention.ntk_attention.method import PARAMETERS, PrefixMethod, pairs
from methods.attention.ntk_attention.tasks import Attended, Emulation, Prefixed, exact
from methods.attention.partial import Partial, attend


@method("exact-prefix-attention", task="attention-with-prefix", metrics=(PARAMETERS, *FLOOR))
class ExactPrefixAttention(PrefixMethod):
    """torch's fused attention over the prefix and the real keys.

    Without a mask they stand in one buffer, whose first part is filled once, as prefix tuning does it. Under
    a causal mask, which does not apply to the prefix, two calls are merged.
    """

    def prepare(self, work: Prefixed) -> None:
        super().prepare(work)
        x = self.inputs
        group = x.q.shape[1] // x.k.shape[1]
        self.k, self.v = (
            torch.cat([p.expand(len(x.q), *p.shape), t.repeat_interleave(group, 1)], 2)
            for p, t in ((x.prefix_k, x.k), (x.prefix_v, x.v))
        )

    def run(self) -> Attended:
        x, m = self.inputs, self.inputs.prefix_k.shape[1]
        group = x.q.shape[1] // x.k.shape[1]
        k, v = (t.repeat_interleave(group, 1) if group > 1 else t for t in (x.k, x.v))
        if x.causal:
            _, found = exact(Prefixed(x.prefix_k, x.prefix_v, x.q, k, v, True))
        else:
            self.k[:, :, m:], self.v[:, :, m:] = k, v
            found = attend(x.q, self.k, self.v, scale=x.scale)
        return Attended(*found, exact=True)

    def extra_parameters(self) -> int:
        return self.inputs.prefix_k.numel() + self.inputs.prefix_v.numel()

    def floor(self) -> Floor:
        x = self.inputs
        batch, heads, length, d = x.q.shape
        m, key_heads = x.prefix_k.shape[1], x.k.shape[1]
        visits = batch * heads * (pairs(length, x.causal) + length * m)
        keys = batch * key_heads * length + heads * m
        return attention_floor(visits, batch * heads * length, keys, d, x.q.element_size())


@method("no-prefix-attention", task="attention-with-prefix", metrics=(PARAMETERS, *FLOOR))
class NoPrefixAttention(PrefixMethod):
    """torch's fused attention over the real keys alone."""

    def run(self) -> Attended:
        x = self.inputs
        group = x.q.shape[1] // x.k.shape[1]
        k, v = (t.repeat_interleave(group, 1) if group > 1 else t for t in (x.k, x.v))
        found: Partial = attend(x.q, k, v, scale=x.scale, causal=x.causal)
        return Attended(*found, prefixed=False)

    def extra_parameters(self) -> int:
        return 0

    def floor(self) -> Floor:
        x = self.inputs
        batch, heads, length, d = x.q.shape
        visits = batch * heads * pairs(length, x.causal)
        keys = batch * x.k.shape[1] * length
        return attention_floor(visits, batch * heads * length, keys, d, x.q.element_size())


@method("no-prefix", task="prefix-emulation")
class NoPrefix(Method[Emulation, Tensor]):
    """Attention to the real keys alone."""

    def prepare(self, work: Emulation) -> None:
        """Nothing is to be learned."""

    def run(self) -> Tensor:
        x = self.work.test
        return attend(x.q, x.k, x.v, scale=x.scale).out


@method("full-image-adaptation", task="image-adaptation", metrics=TRAINED)
class FullImageAdaptation(Adaptation):
    """Train everything."""

    lr: PositiveFloat = 3e-3
    """Peak learning rate of AdamW."""

    def extend(self, model: Any) -> list[nn.Parameter]:
        return [p for name, p in model.named_parameters() if not name.startswith("classifier.")]


@method("head-image-adaptation", task="image-adaptation", metrics=TRAINED)
class HeadImageAdaptation(Adaptation):
    """Train the linear head alone: a linear probe."""

    def extend(self, model: Any) -> list[nn.Parameter]:
        return []


@method("lora-image-adaptation", task="image-adaptation", metrics=TRAINED, packages=("peft>=0.15",))
class LoraImageAdaptation(Adaptation):
    """Train low-rank changes of the matrices of queries and values, by peft, and the head."""

    rank: PositiveInt = 8
    """r: 2 r times the width for each matrix."""
    alpha: PositiveFloat = 16.0
    """The change is scaled by alpha / r."""

    def extend(self, model: Any) -> list[nn.Parameter]:
        from peft import LoraConfig, inject_adapter_in_model

        targets = [
            name
            for name, _ in model.named_modules()
            if name.rsplit(".", 1)[-1] in ("q_proj", "v_proj", "query", "value")
        ]
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=0.0, target_modules=targets)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.context.derive("low-rank matrices"))
            inject_adapter_in_model(config, model)
        return [p for name, p in model.named_parameters() if "lora_" in name]


@method("prefix-image-adaptation", task="image-adaptation", metrics=TRAINED)
class PrefixImageAdaptation(Adaptation):
    """Train keys and values of a prefix of every layer (P-Tuning v2), and the head."""

    prefix: PositiveInt = 10
    """m, positions; 2 m d numbers a head, as many as NTK-Attention's d^2 + d at m = (d + 1) / 2."""

    def extend(self, model: Any) -> list[nn.Parameter]:
        draws = self.context.torch_generator("prefix")
        adapters = []
        for layer in self.layers(model):
            adapters.append(PrefixAdapter(layer.heads, self.prefix, layer.head_dim, draws))
            adapt(layer, adapters[-1])
        return [p for adapter in adapters for p in adapter.parameters()]
