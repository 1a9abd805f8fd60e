"""The documents of a task and the recipe of its models: familiar text with a small share of several novel domains."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.errors import RequestError
from harness.seeding import rng
from harness.types import NonNegativeInt, PositiveFloat, PositiveInt
from methods.decoding.contrastive_generation import domains
from methods.decoding.contrastive_generation.domains import DIGESTS, ENGLISH, Part

CHARACTERS = "characters"
"""The name of the recurrent models over characters; every other name is a Hugging Face causal model."""

_CHARACTERS_A_TOKEN = 6
"""Characters of a document for each token of a pretrained model's length: more than any tokenizer needs."""


@dataclass(frozen=True)
class Recipe:
    """How p_0 and p_1 are made; the fields are those of `Mixture`."""

    pretrained: str
    dtype: str
    hidden: int
    length: int
    pretraining_epochs: int
    pretraining_rate: float
    tuning_epochs: int
    tuning_rate: float
    batch: int
    adapter: str
    noise_multiplier: float | None
    target_epsilon: float | None
    clip_norm: float
    private_steps: int
    private_batch: int
    private_rate: float
    private_optimizer: str
    seed: int

    @property
    def private(self) -> bool:
        """Whether p_1 is fine-tuned by DP-SGD."""
        return self.noise_multiplier is not None or self.target_epsilon is not None


@dataclass(frozen=True)
class Problem:
    """Two models, as what they are made from.

    Attributes:
        recipe: how they are made.
        base: documents that p_0 is pretrained on; none for a pretrained model.
        familiar: familiar documents that p_1 is fine-tuned on.
        novel: novel documents that it is fine-tuned on, by domain.
        held_out: familiar documents that no model and no judge learns from.
        judging: documents of every domain for a judge, which no model learns from.
    """

    recipe: Recipe
    base: Sequence[str]
    familiar: Sequence[str]
    novel: Mapping[str, Sequence[str]]
    held_out: Sequence[str]
    judging: Mapping[str, Sequence[str]]

    @property
    def documents(self) -> list[str]:
        """What p_1 is fine-tuned on: the familiar documents, then the novel ones domain by domain."""
        return [*self.familiar, *(text for texts in self.novel.values() for text in texts)]

    @property
    def labels(self) -> np.ndarray:
        """The novel domain of each of `documents` by its number, -1 for familiar ones: int64."""
        counts = [len(self.familiar), *(len(texts) for texts in self.novel.values())]
        return np.repeat(np.arange(-1, len(self.novel)), counts)


def digest(texts: Sequence[str]) -> str:
    """SHA-256 of texts in their order, by which what was made from them is kept in the cache."""
    total = hashlib.sha256()
    for text in texts:
        total.update(text.encode() + b"\x00")
    return total.hexdigest()


class Mixture:
    """Parameters that say what the models learn, and how."""

    pretrained: str = "characters"
    """p_0: ``characters`` (a recurrent model over characters, pretrained here), or a Hugging Face causal model."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of a Hugging Face model's weights."""
    hidden: PositiveInt = 256
    """Units of the recurrent model."""
    length: PositiveInt = 160
    """Most tokens (or characters) of a document after its start, and those of a generated text."""
    novel: tuple[str, ...] = ("python", "java", "shakespeare", "sums")
    """Novel domains: see `methods.decoding.contrastive_generation.domains.draw`."""
    novel_documents: NonNegativeInt = 40
    """Documents of each novel domain that p_1 is fine-tuned on."""
    familiar_documents: PositiveInt = 600
    """Familiar documents that it is fine-tuned on."""
    digest_every: NonNegativeInt = 6
    """Every so-many-th familiar document is base64 of digests, familiar but unpredictable; 0: none is."""
    pretraining_documents: PositiveInt = 3000
    """Familiar documents that a recurrent p_0 is pretrained on."""
    pretraining_epochs: PositiveInt = 5
    """Passes over them."""
    pretraining_rate: PositiveFloat = 3e-3
    """Learning rate (AdamW) of the pretraining."""
    tuning_epochs: PositiveInt = 12
    """Passes over the fine-tuning documents."""
    tuning_rate: PositiveFloat = 2e-3
    """Learning rate (AdamW) of the fine-tuning."""
    batch: PositiveInt = 64
    """Documents of a step."""
    adapter: Literal["none", "lora"] = "none"
    """``lora``: fine-tune adapters of rank 8 on the attention's matrices and merge them; else all parameters."""
    noise_multiplier: PositiveFloat | None = None
    """Fine-tune by DP-SGD with noise of this many clip norms; at most one of this and `target_epsilon`."""
    target_epsilon: PositiveFloat | None = None
    """Fine-tune by DP-SGD with the least noise that is (epsilon, 1 / documents)-private."""
    clip_norm: PositiveFloat = 1.0
    """DP-SGD: largest norm of one document's gradient."""
    private_steps: PositiveInt = 150
    """DP-SGD: steps."""
    private_batch: PositiveInt = 16
    """DP-SGD: documents of a step on average; each is drawn on its own (Poisson sampling)."""
    private_rate: PositiveFloat = 0.1
    """DP-SGD: learning rate."""
    private_optimizer: Literal["sgd", "adamw"] = "sgd"
    """DP-SGD: what is done with a private gradient."""
    judged: PositiveInt = 200
    """Documents of each domain for the judge, which learns three quarters of them and is tried on the rest."""

    def problem(self, seed: int) -> Problem:
        """Documents and recipe for a seed. p_0 is the same for every seed.

        Raises:
            RequestError: parameters that contradict each other.
            MissingData: texts that are not here.
        """
        self._check()
        length = self.length * (1 if self.pretrained == CHARACTERS else _CHARACTERS_A_TOKEN)
        base: tuple[str, ...] = ()
        if self.pretrained == CHARACTERS:
            base = self._familiar(self.pretraining_documents, length, "learning", rng(0, "pretraining"))
        familiar = self._familiar(self.familiar_documents, length, "learning", rng(seed, "familiar"), base)
        novel = {
            name: domains.draw(name, self.novel_documents, length, "learning", rng(seed, "novel", name))
            for name in self.novel
        }
        everything = (ENGLISH, *([DIGESTS] if self.digest_every else []), *self.novel)
        judging = {
            name: domains.draw(name, self.judged, length, "judging", rng(seed, "judging", name))
            for name in everything
        }
        stream = rng(seed, "held out")
        held_out = domains.draw(ENGLISH, HELD_OUT, length, "judging", stream, judging[ENGLISH])
        return Problem(self.recipe(seed), base, familiar, novel, held_out, judging)

    def recipe(self, seed: int) -> Recipe:
        """The part of the parameters that says how the models are made."""
        names = [name for name in Recipe.__dataclass_fields__ if name != "seed"]
        return Recipe(**{name: getattr(self, name) for name in names}, seed=seed)

    def _familiar(
        self, count: int, length: int, part: Part, stream: np.random.Generator, without: Sequence[str] = ()
    ) -> tuple[str, ...]:
        digests = count // self.digest_every if self.digest_every else 0
        return (
            *domains.draw(ENGLISH, count - digests, length, part, stream, without),
            *domains.draw(DIGESTS, digests, length, part, stream, without),
        )

    def _check(self) -> None:
        domains.check(self.novel)
        if self.noise_multiplier is not None and self.target_epsilon is not None:
            raise RequestError(
                "private fine-tuning takes exactly one of noise_multiplier and target_epsilon, not both",
                hint="leave one of them out",
            )
        if self.pretrained == CHARACTERS and self.adapter != "none":
            raise RequestError(
                "a recurrent model has no attention for the adapters of 'lora'", hint="set adapter: none"
            )


HELD_OUT = 40
"""Familiar documents held out."""
