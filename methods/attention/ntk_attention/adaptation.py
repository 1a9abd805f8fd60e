"""What all ways of adapting a transformer share: the frozen model, the head, and the training."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from harness.method import Measurement, Method, Metric
from harness.types import PositiveFloat
from methods.attention.ntk_attention.adapters import AttentionLayer, attention_layers
from methods.attention.ntk_attention.images import Transfer, learn, predictions, ready

TRAINED = (
    Metric(
        "trained_parameters",
        better="lower",
        doc="Numbers that are trained besides the head's.",
        deterministic=True,
    ),
    Metric("training_loss", unit="nats", better="lower", doc="Mean over the last tenth of the steps."),
)


class Adaptation(Method[Transfer, Tensor]):
    """A method that trains the head and some parameters of its own choice, and freezes the rest."""

    lr: PositiveFloat = 0.01
    """Peak learning rate of AdamW; it falls linearly to 0."""

    @abstractmethod
    def extend(self, model: Any) -> list[nn.Parameter]:
        """Put new parameters into the frozen model where the method has any; those that are trained."""

    def layers(self, model: Any) -> list[AttentionLayer]:
        """The model's attention layers; see `adapters.adapt`."""
        return attention_layers(model, pixel_values=ready(self.work.train.images[:1].to(self.context.device)))

    def prepare(self, work: Transfer) -> None:
        self._build()  # trains or fetches the model that all methods start from

    def _build(self) -> tuple[Any, list[nn.Parameter]]:
        model = self.work.base(self.context.device, self.context.cache)
        for p in model.parameters():
            p.requires_grad_(False)
        own = self.extend(model)
        for p in (*own, *model.classifier.parameters()):
            p.requires_grad_(True)
        return model, own

    def run(self) -> Tensor:
        from methods.attention.ntk_attention.tasks import ImageAdaptation

        task = self.task
        assert isinstance(task, ImageAdaptation)
        model, own = self._build()
        optimizer = torch.optim.AdamW([*own, *model.classifier.parameters()], lr=self.lr)
        batches = self.context.torch_generator("batches")
        device = self.context.device
        # What is random inside the model (dropout of features) depends on the record's seed as well.
        with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
            torch.manual_seed(self.context.derive("dropout"))
            steps = task.length(self.work)
            losses = learn(model, self.work.train, optimizer, steps, task.batch, batches, device)
        self.trained, self.losses = sum(p.numel() for p in own), losses
        return predictions(model, self.work.test.images, device)

    def measure(self, output: Tensor) -> Measurement:
        last = self.losses[-max(1, len(self.losses) // 10) :]
        scores = Measurement(self.task.score(self.work, output))  # type: ignore[arg-type]
        return scores | {"trained_parameters": float(self.trained), "training_loss": float(last.mean())}
