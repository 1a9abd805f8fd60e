"""Stages over texts: the base language model, what is trained, and evaluation through lm-eval."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import MissingData
from methods.common.language_model import (
    Recipe,
    corpus,
    decode,
    encode,
    from_hub,
    pretrained,
    split,
)
from methods.finetuning.half_fine_tuning.stages import (
    Host,
    PreferenceStage,
    Stage,
    StagedWork,
    State,
    TextStage,
    load_into,
)


@dataclass(frozen=True)
class BaseModel:
    """The model before the first stage.

    Attributes:
        name: of a model of the Hugging Face hub; empty for the byte-level model of `recipe`.
        recipe: how the byte-level model was made.
        context: tokens of a window.
    """

    name: str
    recipe: Recipe
    context: int

    def load(self, cache: Path | None, device: str) -> nn.Module:
        """The model; the byte-level one is trained on first use.

        Raises:
            MissingModel: a model with a `name` cannot be loaded here.
        """
        if self.name:
            model: nn.Module = from_hub(self.name, device=device)[0]
            return model
        made: nn.Module = pretrained(self.recipe, cache=cache, device=device)
        return made

    def tokens(self, text: Tensor) -> Tensor:
        """The tokens of a text's bytes: the bytes themselves, or what the model's tokenizer makes of them."""
        if not self.name:
            return text
        ids = self._tokenizer()(decode(text), add_special_tokens=False)["input_ids"]
        return torch.tensor(ids)

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        from harness.errors import MissingModel

        try:
            return AutoTokenizer.from_pretrained(self.name)
        except (OSError, ValueError) as error:
            raise MissingModel(f"the tokenizer of '{self.name}' cannot be loaded here") from error

    def lm(self, state: State) -> Any:
        """The model with the tensors of a snapshot as lm-eval sees one."""
        from methods.common.lm_evaluation import ByteLM, hugging_face_lm

        device = next(iter(state.values())).device
        if self.name:
            return hugging_face_lm(load_into(from_hub(self.name)[0], state, device), self._tokenizer())
        return ByteLM(load_into(self.recipe.fresh(), state, device), self.context)


@dataclass(frozen=True)
class TextWork(StagedWork):
    """Texts to learn one after another, with the documents that forgetting is measured on.

    Attributes:
        documents: held-out text of the base and of each stage.
    """

    model: BaseModel
    host: Host
    stages: Sequence[Stage]
    documents: Sequence[str]

    def base(self, cache: Path | None, device: str) -> nn.Module:
        return self.model.load(cache, device)

    def bits_per_byte(self, state: State) -> list[float]:
        """Of a snapshot on each of the documents, by lm-eval's rolling likelihood."""
        from methods.common.lm_evaluation import HELD_OUT_TEXT, LocalTask, evaluate, write_lines

        with tempfile.TemporaryDirectory() as folder:
            tasks = [
                LocalTask(f"text_{j}", HELD_OUT_TEXT, write_lines(Path(folder, f"{j}.jsonl"), [{"text": text}]))
                for j, text in enumerate(self.documents)
            ]
            results = evaluate(self.model.lm(state), tasks)
        return [results[task.name]["bits_per_byte"] for task in tasks]


@dataclass(frozen=True)
class PreferenceWork(TextWork):
    """One stage of preference optimisation.

    Attributes:
        questions: held-out pairs as multiple-choice rows; see `methods.common.lm_evaluation.MULTIPLE_CHOICE`.
    """

    questions: Sequence[dict[str, Any]] = ()

    def preference_accuracy(self, state: State) -> float:
        """Share of the held-out pairs whose real continuation is the likelier one, by lm-eval."""
        from methods.common.lm_evaluation import MULTIPLE_CHOICE, LocalTask, evaluate, write_lines

        with tempfile.TemporaryDirectory() as folder:
            file = write_lines(Path(folder, "pairs.jsonl"), self.questions)
            results = evaluate(self.model.lm(state), [LocalTask("pairs", MULTIPLE_CHOICE, file)])
        return results["pairs"]["acc"]


def parts(name: str, cap: int | None, held_out: float, evaluated: int) -> tuple[Tensor, str]:
    """The part of a text to train on, uint8, and the first `evaluated` bytes of the rest as a document."""
    train, held = split(corpus(name, cap), held_out)
    # The cut may fall into a character, and lm-eval takes text.
    return train, bytes(held[:evaluated].tolist()).decode(errors="ignore")


def pairs(
    text: Tensor, count: int, length: int, prompt: int, rng: np.random.Generator
) -> list[tuple[str, str, str]]:
    """Prompts with the continuation that the text has and the same words in another order.

    Args:
        text: bytes, uint8.
        count: how many.
        length: bytes of prompt and continuation together.
        prompt: bytes of the prompt.

    Returns:
        (prompt, real, shuffled) of equal lengths in bytes, ASCII.

    Raises:
        MissingData: too few windows of the text are ASCII with two words that differ.
    """
    found = []
    for start in rng.integers(0, len(text) - length, 50 * count).tolist():
        raw = bytes(text[start : start + length].tolist())
        if not raw.isascii():
            continue
        words = raw[prompt:].decode().split(" ")
        if len(set(words)) < 2:
            continue
        real, shuffled = words, words
        while shuffled == real:
            shuffled = rng.permutation(np.array(words, dtype=object)).tolist()
        found.append((raw[:prompt].decode(), " ".join(real), " ".join(shuffled)))
        if len(found) == count:
            return found
    raise MissingData(f"the text has only {len(found)} of {count} pairs of {length} ASCII bytes")


def preference_stage(rows: Sequence[tuple[str, str, str]], batch: int, beta: float) -> PreferenceStage:
    """The stage that learns to prefer the real continuations of `rows`."""
    return PreferenceStage(
        chosen=torch.stack([encode(prompt + real) for prompt, real, _ in rows]),
        rejected=torch.stack([encode(prompt + shuffled) for prompt, _, shuffled in rows]),
        prompt=len(rows[0][0].encode()),
        batch=batch,
        beta=beta,
    )


def text_stages(texts: Sequence[Tensor], batch: int, context: int) -> list[Stage]:
    """One stage per text."""
    return [TextStage(text, batch, context) for text in texts]
