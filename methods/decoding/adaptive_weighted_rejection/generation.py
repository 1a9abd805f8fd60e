"""What is to be generated, and what comes out of it."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import data
from methods.decoding.adaptive_weighted_rejection.constraints import (
    JSON_SCHEMA,
    Constraint,
    Molecule,
    Parsed,
    Pattern,
)
from methods.decoding.adaptive_weighted_rejection.headers import header_ngram
from methods.decoding.adaptive_weighted_rejection.particles import Cost
from methods.decoding.language_models import FloatArray, HuggingFaceModel, LanguageModel
from methods.decoding.sql import GRAMMAR

if TYPE_CHECKING:
    from methods.decoding.adaptive_weighted_rejection.tasks import ConstrainedGeneration


@dataclass
class Problem:
    """What to generate; the method builds model and constraint, which may need a device.

    Attributes:
        settings: the task.
        prompt: text before the strings.
        pattern: the regular expression of the domains that have one.
    """

    settings: ConstrainedGeneration
    prompt: str
    pattern: str

    def constraint(self) -> Constraint:
        """A fresh constraint.

        Raises:
            MissingPackage: a package of the domain is not installed.
        """
        match self.settings.domain:
            case "json":
                return Parsed.schema(JSON_SCHEMA)
            case "sql":
                return Parsed.ebnf(GRAMMAR)
            case "molecules":
                return Molecule()
            case _:
                return Pattern(self.pattern)

    def model(self, device: str) -> LanguageModel:
        """The language model.

        Raises:
            MissingData, MissingModel: its text or its weights are not here.
        """
        settings = self.settings
        if settings.named == "ngram":
            return header_ngram(settings.order, settings.entries, settings.spelling)
        from methods.decoding.small_models import load_causal_model

        model, tokenizer = load_causal_model(settings.named, device, settings.dtype)
        return HuggingFaceModel(model, tokenizer, chat(tokenizer, self.prompt))


def chat(tokenizer: Any, request: str) -> str:
    """A request in the chat format of a tokenizer, or as plain text where it has none; nothing stays nothing."""
    if not request:
        return ""
    if not tokenizer.chat_template:
        return request + "\nAnswer: "
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": request}], tokenize=False, add_generation_prompt=True
    )
    # Encoding the prompt puts the beginning of the sequence in front once more.
    first = tokenizer.bos_token
    return (
        text.removeprefix(first) if first and tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id else text
    )


@dataclass
class Population:
    """The outcome of one answer.

    Attributes:
        texts: the strings of the particles.
        log_weights: shape (particles,).
        log_p: log P of each string.
        ended: whether each ends with the end of sequence.
    """

    texts: list[bytes]
    log_weights: FloatArray
    log_p: FloatArray
    ended: list[bool]

    def shares(self) -> FloatArray:
        """Normalised weights; zeros where every weight is zero."""
        top = self.log_weights.max()
        if top == -np.inf:
            return np.zeros(len(self.texts))
        w = np.exp(self.log_weights - top)
        result: FloatArray = w / w.sum()
        return result


@dataclass
class Generations:
    """Answers and what they cost.

    Attributes:
        populations: one for each answer.
        cost: of all together.
        vocabulary: tokens of the model, the end of sequence included.
        exact: whether the incremental weights are the exact local masses Z.
        proper: whether the mean weight of an answer is an unbiased estimate of P(language).
    """

    populations: list[Population]
    cost: Cost
    vocabulary: int
    exact: bool = False
    proper: bool = False


def patterns() -> list[str]:
    """The 454 expressions of the data set ``regex-patterns``.

    Raises:
        MissingData: it is not under ``HARNESS_DATA``.
    """
    return [row["regex"] for row in csv.DictReader(io.StringIO(data.text("regex-patterns", "patterns.csv")))]
