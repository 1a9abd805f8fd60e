"""The training that the method and its baselines share; they differ in what they make of a batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from harness.method import Context, Method
from methods.vision import networks
from methods.vision.images import RandomCrops
from methods.vision.noisy_labels import NoisyLabels, Recipe, State, Trained, snapshot

Batch = tuple[Tensor, Tensor, Tensor]
"""Which examples [B] int64, their inputs [B, ...] float32, their given labels [B] int64."""


class Examples:
    """The training set on the device, as one tensor: a batch is one indexing operation."""

    def __init__(self, work: NoisyLabels, device: str) -> None:
        inputs = work.inputs.to(device)
        self.given, self.batch = work.given.to(device), work.recipe.batch
        self.cut: RandomCrops | None = RandomCrops(inputs, work.black) if work.recipe.augment else None
        self.inputs = inputs if self.cut is None else None


class Batches:
    """The training set, shuffled anew in each epoch.

    Order and crops come from streams of their own, which depend on the seed and on `stream` alone.
    """

    def __init__(self, examples: Examples, context: Context, stream: str) -> None:
        self.examples = examples
        self.order = context.torch_generator("order", stream)
        self.crops = context.torch_generator("crops", stream)

    def epoch(self) -> Iterator[Batch]:
        """The batches of one epoch; the last may be smaller."""
        examples = self.examples
        given, n = examples.given, len(examples.given)
        if examples.batch >= n and examples.inputs is not None:
            yield torch.arange(n, device=given.device), examples.inputs, given
            return
        order = torch.randperm(n, generator=self.order).to(given.device)
        for index in torch.split(order, examples.batch):
            yield index, self.inputs(index), given[index]

    def inputs(self, index: Tensor) -> Tensor:
        """The inputs of the examples `index`, cropped anew where the recipe says so."""
        if self.examples.inputs is not None:
            return self.examples.inputs[index]
        assert self.examples.cut is not None
        return self.examples.cut(index, self.crops)


def fresh_network(work: NoisyLabels, context: Context, stream: str) -> nn.Module:
    """A network on the device with weights from the stream "init" and `stream`."""
    shape = tuple(work.inputs.shape[1:])
    seed = context.derive("init", stream)
    return networks.build(work.network, shape, work.classes, seed).to(context.device)


def optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Stochastic gradient descent as the recipe says."""
    return torch.optim.SGD(
        network.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Change the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the gradient of `loss`."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


class Training(Method[NoisyLabels, Trained]):
    """One network, one loss, one optimiser step a batch."""

    stream = "a"
    """Name of the streams of weights, order and crops, the same for all methods."""

    def prepare(self, work: NoisyLabels) -> None:
        self.network = fresh_network(work, self.context, self.stream)
        self.initial: State = snapshot(self.network)
        self.examples = Examples(work, self.context.device)

    def run(self) -> Trained:
        recipe = self.work.recipe
        self.network.load_state_dict(self.initial)
        self.network.train()
        optimizer = optimiser(self.network, recipe)
        batches = Batches(self.examples, self.context, self.stream)
        self.start()
        epochs: list[int] = []
        states: list[State] = []
        for epoch in range(1, recipe.epochs + 1):
            set_rate(optimizer, recipe.rate(epoch))
            for index, inputs, given in batches.epoch():
                descend(optimizer, self.loss(self.network(inputs), given, index))
            if recipe.watched(epoch):
                epochs.append(epoch)
                states.append(snapshot(self.network))
                self.look()
        return Trained(self.network, epochs, states, self.choice(), self.suspected())

    def start(self) -> None:
        """Forget what an earlier run left behind."""

    @abstractmethod
    def loss(self, logits: Tensor, given: Tensor, index: Tensor) -> Tensor:
        """The scalar to minimise.

        Args:
            logits: [B, classes] float32.
            given: [B] int64, possibly wrong.
            index: [B] int64, which training examples these are.
        """

    def look(self) -> None:
        """Called after each watched epoch."""

    def choice(self) -> int:
        """Which watched state to settle on: the last."""
        return -1

    def suspected(self) -> Tensor | None:
        """[n] bool on the CPU, labels taken for wrong; None for those that the network does not predict."""
        return None
