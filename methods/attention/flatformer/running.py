"""How the methods of the paper's tasks are run; they differ in the encoder that they build."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import MissingPackage, RequestError
from harness.method import Context, Measurement, Method, Series, as_measurement
from methods.attention.flatformer.detector import Detector
from methods.attention.flatformer.encoders import AttentionEncoder, Encoder, Shape
from methods.attention.flatformer.layers import GroupKernel
from methods.attention.flatformer.pillars import PillarEncoder
from methods.attention.flatformer.scans import CLASSES
from methods.attention.flatformer.structure import ROWS, describe, missed
from methods.attention.flatformer.tasks import (
    Batch,
    BirdsEyeDetection,
    Detected,
    PillarClassification,
    PillarEncoding,
    PillarWork,
    Scene,
    Scenes,
)

M = TypeVar("M", bound=nn.Module)


class Builds:
    """Something that builds an encoder from its parameters."""

    context: Context

    @abstractmethod
    def encoder(self, shape: Shape) -> Encoder:
        """An encoder with fresh weights."""


def seeded(build: Callable[[], M], context: Context) -> M:
    """What `build` builds, with weights from the record's seed; encoders with the same layers get the same."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(context.derive("weights"))
        return build()


def group_kernel(name: str, context: Context) -> GroupKernel | None:
    """The kernel `name` of group attention: None for "torch".

    Raises:
        MissingPackage: triton is not installed.
        RequestError: there is no GPU for it.
    """
    if name == "torch":
        return None
    if context.device == "cpu":
        raise RequestError("the kernel 'triton' needs a GPU: leave kernel at 'torch' on the profile cpu")
    try:
        from methods.attention.flatformer import fused
    except ImportError as error:
        raise MissingPackage("the kernel 'triton' needs the package triton: pip install triton") from error
    return fused.attend


class Encodes(Builds, Method[PillarWork, Tensor]):
    """A method of the task pillar-encoding."""

    def prepare(self, work: PillarWork) -> None:
        task = self.task
        assert isinstance(task, PillarEncoding)
        shape = Shape(task.layers, task.width, task.heads, work.grid.cells)
        built = seeded(lambda: self.encoder(shape), self.context)
        self.network = built.to(self.context.device, work.dtype).eval()
        self.coords = work.coords.to(self.context.device)
        self.x = work.x.to(self.context.device, work.dtype)

    @torch.no_grad()
    def run(self) -> Tensor:
        found: Tensor = self.network(self.x, self.coords, self.work.counts)
        return found


class EncodesInGroups(Encodes):
    """One that attends within groups, and says what these are like."""

    def measure(self, output: Tensor) -> Measurement:
        assert isinstance(self.network, AttentionEncoder)
        draws = self.context.torch_generator("looked at")
        found = describe(self.network, self.x, self.coords, self.work.counts, draws)
        return as_measurement(super().measure(output)) | found


class Classifier(nn.Module):
    """Points to pillars to an encoder to a class of each pillar."""

    def __init__(self, width: int, encoder: Encoder) -> None:
        super().__init__()
        self.pillars = PillarEncoder(width)
        self.encoder = encoder
        self.head = nn.Linear(width, len(CLASSES))

    def embed(self, scene: Scene) -> Tensor:
        """x (N, d) of the pillars by themselves."""
        x: Tensor = self.pillars(scene.features, scene.pillar, len(scene.coords))
        return x

    def forward(self, scene: Scene) -> Tensor:
        """Logits, (N, classes)."""
        x = self.encoder(self.embed(scene), scene.coords, (len(scene.coords),))
        logits: Tensor = self.head(x)
        return logits


class Classifies(Builds, Method[Scenes, list[Tensor]]):
    """A method of the task pillar-classification: trained with cross-entropy, one scene a step."""

    def prepare(self, work: Scenes) -> None:
        task = self.task
        assert isinstance(task, PillarClassification)
        self.shape = Shape(task.layers, task.width, task.heads, work.grid.cells)
        self.train_scenes = [scene.to(self.context.device) for scene in work.train]
        self.test_scenes = [scene.to(self.context.device) for scene in work.test]

    def run(self) -> list[Tensor]:
        task = self.task
        assert isinstance(task, PillarClassification)
        build: Callable[[], Classifier] = lambda: Classifier(task.width, self.encoder(self.shape))  # noqa: E731
        network = seeded(build, self.context).to(self.context.device).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=task.lr)
        order = self.context.rng("order")
        losses = []
        for step in range(task.steps):
            if step % len(self.train_scenes) == 0:
                epoch = order.permutation(len(self.train_scenes))
            scene = self.train_scenes[epoch[step % len(epoch)]]
            loss = F.cross_entropy(network(scene), scene.label)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        self.network = network.eval()
        self.losses = torch.stack(losses)
        with torch.no_grad():
            return [network(scene).argmax(1) for scene in self.test_scenes]

    def measure(self, output: list[Tensor]) -> Measurement:
        losses = self.losses.tolist()
        curve = Series(list(range(1, len(losses) + 1)), losses, "step", "training loss, nats")
        return as_measurement(super().measure(output)) | Measurement({}, {"loss": curve})


class ClassifiesInGroups(Classifies):
    """One that attends within groups, and says what its trained layers miss of attention to all pillars."""

    @torch.no_grad()
    def measure(self, output: list[Tensor]) -> Measurement:
        scene, network = self.test_scenes[0], self.network
        draws = self.context.torch_generator("looked at")
        rows = torch.randperm(len(scene.coords), generator=draws)[:ROWS].to(scene.coords.device)
        assert isinstance(network.encoder, AttentionEncoder)
        found = missed(network.encoder, network.embed(scene), scene.coords, (len(scene.coords),), rows)
        return super().measure(output) | found


class Detects(Builds, Method[Batch, Detected]):
    """A method of the task birds-eye-detection."""

    layers: int

    def prepare(self, work: Batch) -> None:
        task = self.task
        assert isinstance(task, BirdsEyeDetection)
        shape = Shape(self.layers, task.width, task.heads, work.grid.cells)
        built = seeded(lambda: Detector(work.grid, task.width, self.encoder(shape)), self.context)
        self.network = built.to(self.context.device, work.dtype, memory_format=torch.channels_last).eval()
        self.points, self.sample = (t.to(self.context.device) for t in (work.points, work.sample))

    @torch.no_grad()
    def run(self) -> Detected:
        return Detected(*self.network(self.points, self.sample, self.work.samples))
