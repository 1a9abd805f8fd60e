"""Trainings that optimizers are compared on, whole and step by step."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from harness import data
from harness.errors import BadOutput
from harness.method import Measurement, Metric, Series, Task, task
from harness.seeding import rng, torch_generator
from harness.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from methods.common.corpora import split
from methods.common.language_model import llama
from methods.training.images import (
    ImageFolder,
    ImageSet,
    ImagesInFolder,
    ImagesInMemory,
    epochs_order,
    image_set,
)
from methods.training.loop import Outcome, SingleStep, Training, Workload
from methods.training.models import VisionTransformer, initialised, mlp
from methods.training.text import TextWindows, named_text, window_starts

MILESTONES = {"bits_at_50": 2.0, "bits_at_67": 1.5, "bits_at_80": 1.25, "bits_at_91": 1.1}
"""Metric: by which factor fewer than all steps have been taken."""


def _curve(losses: Tensor) -> Series:
    """The training loss up to the step where a training diverged, if it did."""
    finite = int(losses.isfinite().long().cumprod(0).sum())
    return Series(list(range(1, finite + 1)), losses[:finite].tolist(), "step", "training loss")


def _final(losses: Tensor, classes: int) -> float:
    """Mean over the last tenth of the steps; a training that diverged knows no more than a uniform guess."""
    value = float(losses[-max(1, len(losses) // 10) :].double().mean())
    return value if math.isfinite(value) else math.log(classes)


def _vision_transformer(
    image: int, channels: int, classes: int, size: ImageClassification | OptimizerStep
) -> nn.Module:
    return VisionTransformer(
        image=image,
        channels=channels,
        patch=size.patch,
        width=size.width,
        depth=size.depth,
        heads=size.heads,
        hidden=4 * size.width,
        classes=classes,
    )


@task(
    "image-classification",
    metrics=[
        Metric("accuracy", doc="Share of the test images classified right after the last step."),
        Metric("final_loss", "nats", "lower", "Training loss, mean over the last tenth of the steps."),
    ],
    repeats="once",
    amount_unit="images",
    data=("mnist-10k",),
)
class ImageClassification(Task[Workload, Outcome]):
    """Train a small classifier of small images from scratch."""

    data: Literal["digits", "mnist-10k"] = "digits"
    """scikit-learn's 8 x 8 digits, or 28 x 28 MNIST images."""
    model: Literal["mlp", "vit"] = "mlp"
    """A perceptron with ReLU, or a vision transformer."""
    width: PositiveInt = 64
    """Units of a hidden layer; width of a token in the transformer."""
    depth: PositiveInt = 1
    """Hidden layers; blocks of the transformer."""
    heads: PositiveInt = 4
    """Attention heads (vit)."""
    patch: PositiveInt = 7
    """Height and width of a patch in pixels (vit)."""
    batch: PositiveInt = 64
    """Images of a step."""
    epochs: PositiveFloat = 5.0
    """Passes over the training images."""
    steps: NonNegativeInt = 0
    """Number of steps; 0 takes as many as the passes have."""
    warmup: Fraction = 0.1
    """Share of the steps in which the learning rate rises linearly."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Of the learning rate after the warm-up."""
    clip: NonNegativeFloat = 0.0
    """Largest 2-norm of the whole gradient; 0 does not clip."""

    def load(self, seed: int) -> Training:
        """The split is fixed; initial weights and order depend on the seed."""
        images = image_set(self.data)
        n, channels, side, _ = images.train_images.shape

        def make() -> nn.Module:
            if self.model == "mlp":
                return mlp([channels * side**2, *[self.width] * self.depth, images.classes])
            return _vision_transformer(side, channels, images.classes, self)

        steps = self.steps or max(1, round(self.epochs * n / self.batch))
        return Training(
            model=initialised(make, seed),
            batches=ImagesInMemory(images, epochs_order(n, steps, self.batch, seed)),
            steps=steps,
            warmup=self.warmup,
            schedule=self.schedule,
            clip=self.clip,
        )

    def score(self, work: Workload, output: Outcome) -> Measurement:
        """Accuracy on the test images and the final training loss."""
        return _score_images(work, output)

    def amount(self, work: Workload) -> float:
        """Images seen in training."""
        return float(work.steps * self.batch) if isinstance(work, Training) else 0.0


def _score_images(work: Workload, output: Outcome) -> Measurement:
    if not isinstance(work, Training):
        raise BadOutput("only a whole training has an accuracy")
    return Measurement(
        {
            "accuracy": work.batches.validate(output.model),
            "final_loss": _final(output.losses, work.batches.classes),
        },
        {"loss": _curve(output.losses)},
    )


@task(
    "image-folder-classification",
    metrics=[
        Metric("accuracy", doc="Share of the validation images classified right after the last step."),
        Metric("final_loss", "nats", "lower", "Training loss, mean over the last tenth of the steps."),
    ],
    repeats="once",
    amount_unit="images",
)
class ImageFolderClassification(Task[Workload, Outcome]):
    """Train a vision transformer on a folder of photographs, for instance ImageNet."""

    folder: str = "imagenet"
    """Data set with the folders train/ and val/, each with one folder of image files per class."""
    image: PositiveInt = 224
    """Height and width in pixels after cropping."""
    patch: PositiveInt = 16
    """Height and width of a patch in pixels."""
    width: PositiveInt = 384
    """Width of a token; 384 is ViT-S, 768 ViT-B."""
    depth: PositiveInt = 12
    """Blocks."""
    heads: PositiveInt = 6
    """Attention heads; 6 in ViT-S, 12 in ViT-B."""
    batch: PositiveInt = 1024
    """Images of a step."""
    epochs: PositiveFloat = 90.0
    """Passes over the training images."""
    warmup: Fraction = 0.1
    """Share of the steps in which the learning rate rises linearly."""
    clip: NonNegativeFloat = 1.0
    """Largest 2-norm of the whole gradient; 0 does not clip."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """"bfloat16" computes forward and backward under autocast; weights stay float32."""
    workers: NonNegativeInt = 12
    """Processes that read images."""

    def load(self, seed: int) -> Training:
        """Initial weights, order and crops depend on the seed.

        Raises:
            MissingData: the folder is not under ``HARNESS_DATA`` or has no images.
        """
        base = data.folder(self.folder)
        train = ImageFolder(base / "train", self.image, augment_seed=seed)
        test = ImageFolder(base / "val", self.image, augment_seed=None)
        if train.classes != test.classes:
            raise ValueError(f"{base}: train and val have different classes")
        steps = max(1, round(self.epochs * len(train) / self.batch))
        return Training(
            model=initialised(
                lambda: VisionTransformer(
                    image=self.image,
                    channels=3,
                    patch=self.patch,
                    width=self.width,
                    depth=self.depth,
                    heads=self.heads,
                    hidden=4 * self.width,
                    classes=len(train.classes),
                ),
                seed,
            ),
            batches=ImagesInFolder(train, test, steps, self.batch, seed, self.workers),
            steps=steps,
            warmup=self.warmup,
            clip=self.clip,
            precision=self.precision,
        )

    def score(self, work: Workload, output: Outcome) -> Measurement:
        """Accuracy on the validation images and the final training loss."""
        return _score_images(work, output)

    def amount(self, work: Workload) -> float:
        """Images seen in training."""
        return float(work.steps * self.batch) if isinstance(work, Training) else 0.0


@task(
    "character-language-model",
    metrics=[
        Metric("bits_per_character", "bits/byte", "lower", "Of held-out text after the last step."),
        Metric("bits_at_50", "bits/byte", "lower", "The same after 1/2 of the steps."),
        Metric("bits_at_67", "bits/byte", "lower", "The same after 1/1.5 of the steps."),
        Metric("bits_at_80", "bits/byte", "lower", "The same after 1/1.25 of the steps."),
        Metric("bits_at_91", "bits/byte", "lower", "The same after 1/1.1 of the steps."),
        Metric("final_loss", "nats", "lower", "Training loss, mean over the last tenth of the steps."),
    ],
    repeats="once",
    amount_unit="bytes",
    data=("gutenberg-novels",),
)
class CharacterLanguageModel(Task[Workload, Outcome]):
    """Train a Llama-shaped decoder on bytes from scratch."""

    corpus: Literal["tinyshakespeare", "python-sources"] = "tinyshakespeare"
    """Shakespeare's plays (ASCII: a byte is a character), or all Python files installed here."""
    cap: NonNegativeInt = 0
    """Bytes of the corpus that are used; 0 uses all."""
    width: PositiveInt = 64
    """Width of the residual stream; the gated feed-forward layer is 8/3 of it."""
    depth: PositiveInt = 2
    """Decoder layers."""
    heads: PositiveInt = 4
    """Attention heads."""
    context: PositiveInt = 64
    """Bytes that the model sees at a time."""
    batch: PositiveInt = 64
    """Windows of a step."""
    steps: PositiveInt = 300
    """Optimizer steps."""
    warmup: Fraction = 0.1
    """Share of the steps in which the learning rate rises linearly; then it falls along a cosine to 0."""
    clip: NonNegativeFloat = 1.0
    """Largest 2-norm of the whole gradient; 0 does not clip."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """"bfloat16" computes forward and backward under autocast; weights stay float32."""
    validation: PositiveInt = 32768
    """Bytes of the held-out tenth of the corpus that are scored."""

    def load(self, seed: int) -> Training:
        """Initial weights and windows depend on the seed; the text does not."""
        text, held_out = split(named_text(self.corpus, self.cap), held_out=0.1)
        starts = window_starts(len(text), self.steps, self.batch, self.context, seed)
        reached = {math.floor(self.steps / factor) for factor in MILESTONES.values()}
        return Training(
            model=llama(
                hidden=self.width,
                feed_forward=8 * round(self.width / 3),
                layers=self.depth,
                heads=self.heads,
                context=self.context,
                seed=seed,
            ),
            batches=TextWindows(text, held_out[: self.validation], starts, self.context, self.precision),
            steps=self.steps,
            warmup=self.warmup,
            clip=self.clip,
            precision=self.precision,
            checkpoints=frozenset(reached | {self.steps}),
        )

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError("a training with milestones has at least two steps")

    def score(self, work: Workload, output: Outcome) -> Measurement:
        """Bits per character at the end and along the way."""
        if not isinstance(work, Training):
            raise BadOutput("only a whole training has checkpoints")
        if set(output.checkpoints) < {self.steps}:
            raise BadOutput("the training was not validated after its last step")
        reached = {name: math.floor(self.steps / factor) for name, factor in MILESTONES.items()}
        # A training that diverged knows no more than a uniform guess, which takes 8 bits.
        bits = {step: b if math.isfinite(b) else 8.0 for step, b in output.checkpoints.items()}
        return Measurement(
            {
                "bits_per_character": bits[self.steps],
                **{name: bits[step] for name, step in reached.items()},
                "final_loss": _final(output.losses, work.batches.classes),
            },
            {
                "loss": _curve(output.losses),
                "bits": Series(list(bits), list(bits.values()), "step", "bits per character"),
            },
        )

    def amount(self, work: Workload) -> float:
        """Bytes seen in training."""
        return float(self.steps * self.batch * self.context)


@task(
    "optimizer-step",
    metrics=[Metric("loss", "nats", "lower", "Training loss before the first update that is timed.")],
    amount_unit="steps",
)
class OptimizerStep(Task[Workload, Outcome]):
    """One whole training step: forward, backward, update. Inputs are random: only the time matters."""

    model: Literal["mlp", "vit", "decoder"] = "vit"
    """A perceptron on 28 x 28 images, a vision transformer on them, or a byte-level decoder."""
    width: PositiveInt = 48
    """Units of a hidden layer, or width of a token."""
    depth: PositiveInt = 2
    """Hidden layers, or blocks."""
    heads: PositiveInt = 4
    """Attention heads (vit and decoder)."""
    patch: PositiveInt = 7
    """Height and width of a patch in pixels (vit)."""
    context: PositiveInt = 64
    """Bytes that the model sees at a time (decoder)."""
    batch: PositiveInt = 64
    """Images or windows of the step."""
    clip: NonNegativeFloat = 0.0
    """Largest 2-norm of the whole gradient; 0 does not clip."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """"bfloat16" computes forward and backward under autocast; weights stay float32."""
    update_only: bool = False
    """Run the optimizer's update alone, on the gradients of one backward pass."""

    def load(self, seed: int) -> SingleStep:
        """Initial weights and the inputs depend on the seed."""
        if self.model == "decoder":
            text = torch.from_numpy(rng(seed, "text").integers(0, 256, 2**16, dtype="uint8"))
            starts = window_starts(len(text), 1, self.batch, self.context, seed)
            model: nn.Module = llama(
                hidden=self.width,
                feed_forward=8 * round(self.width / 3),
                layers=self.depth,
                heads=self.heads,
                context=self.context,
                seed=seed,
            )
            windows = TextWindows(text, text[:1], starts, self.context)
            return SingleStep(model, windows, self.clip, self.precision, self.update_only)
        generator = torch_generator(seed, "images")
        images = torch.randn(self.batch, 1, 28, 28, generator=generator)
        labels = torch.randint(10, (self.batch,), generator=generator)
        batches = ImagesInMemory(ImageSet(images, labels, images, labels), torch.arange(self.batch)[None])

        def make() -> nn.Module:
            if self.model == "mlp":
                return mlp([28 * 28, *[self.width] * self.depth, 10])
            return _vision_transformer(28, 1, 10, self)

        return SingleStep(initialised(make, seed), batches, self.clip, self.precision, self.update_only)

    def score(self, work: Workload, output: Outcome) -> dict[str, float]:
        """The loss before the update."""
        return {"loss": float(output.losses[-1])}

    def amount(self, work: Workload) -> float:
        """One step."""
        return 1.0
