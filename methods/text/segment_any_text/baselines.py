"""The published package, by the name of a checkpoint, and a model on characters as the predecessor was."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any, Literal

import numpy as np
import torch

from harness.errors import MissingModel, MissingPackage, first_line
from harness.method import Measurement, Method, Metric, as_measurement, method
from harness.types import Fraction, PositiveInt
from methods.text.segment_any_text import canine, costs, windows
from methods.text.segment_any_text.tasks import Plain
from methods.text.segment_any_text.windows import Inference
from methods.text.sentence_data import Span
from methods.text.sentence_score import Sentences, strip
from methods.text.sentence_views import Scored, Thresholded, Views
from methods.text.tasks import Texts


class Published:
    """A checkpoint in the package wtpsplit."""

    checkpoint: str = "sat-3l"
    """Its name under segment-any-text on the Hugging Face hub, or a folder."""
    checkpoint_tokenizer: str = "facebookAI/xlm-roberta-base"
    """Its tokenizer: a Hugging Face id or a folder."""
    style: str = ""
    """Style or domain of a LoRA module of the checkpoint; empty for none."""
    language: str = ""
    """Language of that module."""
    runtime: Literal["pytorch", "onnx"] = "onnx"
    """What computes the model; wtpsplit 2.2.2 in PyTorch needs a transformers that is older than 5.24."""
    precision: Literal["float32", "float16"] = "float32"
    """Of the model in PyTorch."""
    window: PositiveInt = 512
    """Tokens of a window, special ones counted."""
    stride: PositiveInt = 64
    """Tokens from one window to the next."""
    weighting: Literal["uniform", "hat"] = "uniform"
    """How windows that overlap count."""
    inference_batch: PositiveInt = 32
    """Windows at a time."""
    threshold: Fraction | None = None
    """A sentence ends where the probability is above it; null for the package's default."""

    def load_published(self, device: str) -> Any:
        """The package's segmenter.

        Raises:
            MissingModel: checkpoint, tokenizer or module cannot be loaded here.
            MissingPackage: the runtime is ONNX and onnxruntime is not installed, or it is PyTorch and the
                installed transformers is too new for the package.
        """
        from wtpsplit import SaT

        if self.runtime == "pytorch":
            _check_transformers()
        cuda = torch.device(device).type == "cuda"
        providers = None
        if self.runtime == "onnx":
            try:
                import onnxruntime
            except ImportError as error:
                raise MissingPackage("the runtime ONNX needs onnxruntime: pip install onnxruntime") from error
            providers = ["CUDAExecutionProvider"] if cuda else ["CPUExecutionProvider"]
            if providers[0] not in onnxruntime.get_available_providers():
                raise MissingPackage("ONNX on a GPU needs the package onnxruntime-gpu")
        try:
            segmenter = SaT(
                self.checkpoint,
                tokenizer_name_or_path=self.checkpoint_tokenizer,
                ort_providers=providers,
                style_or_domain=self.style or None,
                language=self.language or None,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise MissingModel(
                f"wtpsplit cannot load '{self.checkpoint}' here: {first_line(error)};"
                f" put it into the Hugging Face cache with 'huggingface-cli download segment-any-text/{self.checkpoint}',"
                f" and '{self.checkpoint_tokenizer}' likewise"
            ) from error
        if providers is None:
            segmenter.model.model.to(device, getattr(torch, self.precision)).eval()
        return segmenter

    def own_threshold(self) -> float:
        """The threshold, or the default of the package for the checkpoint."""
        if self.threshold is not None:
            return self.threshold
        if self.style:
            return 0.5
        if "sm" in self.checkpoint:
            return 0.25
        return 0.01 if "no-limited-lookahead" in self.checkpoint else 0.025

    def published_probabilities(self, segmenter: Any, texts: Sequence[str]) -> list[Scored]:
        """The probability of each character of each text, where the package has one."""
        found = segmenter.predict_proba(
            list(texts),
            stride=self.stride,
            block_size=self.window,
            batch_size=self.inference_batch,
            weighting=self.weighting,
        )
        return [_scored(text, np.asarray(p, dtype=np.float64)) for text, p in zip(texts, found, strict=True)]


def _check_transformers() -> None:
    """Raise `MissingPackage` where the package calls transformers in a way that the installed one no longer has."""
    import transformers
    from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaEmbeddings

    if "past_key_values_length" not in signature(XLMRobertaEmbeddings.forward).parameters:
        raise MissingPackage(
            f"wtpsplit's models in PyTorch do not run with transformers {transformers.__version__}: use the runtime"
            " 'onnx', the method segment-any-text with its parameter checkpoint, or an older transformers"
        )


def _scored(text: str, probabilities: np.ndarray) -> Scored:
    # The package gives one character to an empty text, and 0 to characters that end no token.
    there = np.flatnonzero(probabilities[: len(text)] > 0)
    return Scored(there + 1, probabilities[there])


@method("sat-published", task="robust-sentence-boundaries", packages=("wtpsplit>=2.2,<3",))
class SatPublished(Published, Method[Views, Thresholded]):
    """The authors' package with one of their checkpoints."""

    def prepare(self, work: Views) -> None:
        """Load the checkpoint and score the labelled texts.

        Raises:
            MissingModel: it cannot be loaded here.
        """
        self.segmenter = self.load_published(self.context.device)
        self.texts = work.texts
        self.tuning = self.published_probabilities(self.segmenter, work.tuning_texts)

    def run(self) -> Thresholded:
        """Probabilities of the test texts."""
        found = self.published_probabilities(self.segmenter, self.texts)
        return Thresholded(found, self.tuning, self.own_threshold())


@method(
    "sat-published-splitter",
    task=("sentence-boundaries", "held-out-sentence-boundaries"),
    packages=("wtpsplit>=2.2,<3",),
)
class SatPublishedSplitter(Published, Method[Texts, list[Sentences]]):
    """The authors' package with one of their checkpoints at one threshold, beside splitters that have none."""

    at_line_ends: bool = True
    """Whether a line end ends a sentence, too."""
    trim: bool = True
    """Whether sentences are returned without the white space at their ends."""

    def prepare(self, work: Texts) -> None:
        """Load the checkpoint.

        Raises:
            MissingModel: it cannot be loaded here.
        """
        self.segmenter = self.load_published(self.context.device)
        self.texts = work.texts

    def run(self) -> list[Sentences]:
        """The spans of each document."""
        found: list[Sentences] = []
        for text, scored in zip(
            self.texts, self.published_probabilities(self.segmenter, self.texts), strict=True
        ):
            spans = windows.split(text, scored, self.own_threshold(), at_line_ends=self.at_line_ends)
            found.append(strip(text, spans) if self.trim else spans)
        return found


@method("sat-published-segmenter", task="segmentation-latency", packages=("wtpsplit>=2.2,<3",))
class SatPublishedSegmenter(Published, Method[Plain, list[list[Span]]]):
    """The authors' package with one of their checkpoints, for its time."""

    def prepare(self, work: Plain) -> None:
        """Load the checkpoint.

        Raises:
            MissingModel: it cannot be loaded here.
        """
        self.segmenter = self.load_published(self.context.device)
        self.texts = work.texts

    def run(self) -> list[list[Span]]:
        """The segments of each text."""
        found = self.published_probabilities(self.segmenter, self.texts)
        return [
            windows.split(text, scored, self.own_threshold())
            for text, scored in zip(self.texts, found, strict=True)
        ]


@method(
    "canine-segmenter",
    task="segmentation-latency",
    metrics=(
        Metric("tokens_per_character", better="lower", doc="1: each character is one.", deterministic=True),
        Metric("flops_per_character", better="lower", doc="Operations, by count.", deterministic=True),
    ),
)
class CanineSegmenter(Method[Plain, list[list[Span]]]):
    """CANINE with random weights: a model on characters of the shape of WtP, the state of the art before the paper."""

    layers: PositiveInt = 3
    """Deep blocks, on every fourth character; there are two more on all characters."""
    hidden: PositiveInt = 768
    """Width."""
    heads: PositiveInt = 12
    """Attention heads."""
    window: PositiveInt = 512
    """Characters of a window, a multiple of 4."""
    stride: PositiveInt = 256
    """Characters from one window to the next."""
    inference_batch: PositiveInt = 32
    """Windows at a time."""
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of weights and activations."""

    def prepare(self, work: Plain) -> None:
        """Build the model."""
        made = canine.fresh(self.layers, self.hidden, self.heads, self.context.seed)
        self.model = made.to(self.context.device, getattr(torch, self.precision))
        self.tokenizer = canine.Characters()
        self.how = Inference(
            self.window, self.stride, "uniform", self.inference_batch, special=False, multiple=4
        )
        self.texts = work.texts

    def run(self) -> list[list[Span]]:
        """The segments of each text."""
        scored = windows.probabilities(self.model, self.tokenizer, self.texts, self.how, self.context.device)
        return [windows.split(text, one, 0.5) for text, one in zip(self.texts, scored, strict=True)]

    def measure(self, output: list[list[Span]]) -> Measurement:
        """The task's score and the count of operations without overlap of windows."""
        score = as_measurement(self.task.score(self.work, output))
        n = float(np.mean([min(len(text), self.window) for text in self.texts]))
        flops = costs.character_flops(self.layers, self.hidden, n)
        return score | {"tokens_per_character": 1.0, "flops_per_character": flops}
