"""Language models that can be asked for the whole next-token law: bit strings and Hugging Face models.

A model here is already given its prompt: its token strings are what follows the prompt, and each ends with
the end-of-sequence token. The n-gram model is in `methods.decoding.ngram`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import MissingModel, MissingPackage

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Vocabulary:
    """What each token id spells.

    Attributes:
        tokens: the bytes of every token; empty for special tokens and unused ids.
        eos: id of the end-of-sequence token, which spells nothing.
    """

    tokens: tuple[bytes, ...]
    eos: int

    def __post_init__(self) -> None:
        if not 0 <= self.eos < len(self.tokens):
            raise ValueError(f"the end of sequence {self.eos} is not one of {len(self.tokens)} tokens")
        if self.tokens[self.eos]:
            raise ValueError(f"the end of sequence spells {self.tokens[self.eos]!r}; it must spell nothing")

    def __len__(self) -> int:
        return len(self.tokens)

    def spell(self, tokens: Sequence[int]) -> bytes:
        """The text of a token string."""
        return b"".join(self.tokens[token] for token in tokens)


class LanguageModel(ABC):
    """A law over token strings that end with the end of sequence."""

    vocabulary: Vocabulary

    @abstractmethod
    def log_probabilities(self, prefix: Sequence[int]) -> FloatArray:
        """Natural log of P(v | prefix) for every token v: shape (vocabulary,), float64, summing to one.

        The caller must not write to the result, which may be shared.
        """

    def log_probabilities_of(self, tokens: IntArray, prefix: Sequence[int]) -> FloatArray:
        """Natural log of P(v | prefix) for the given tokens: shape (tokens,), float64, not renormalised."""
        result: FloatArray = self.log_probabilities(prefix)[tokens]
        return result

    def sample_next(self, prefixes: IntArray, rng: np.random.Generator) -> IntArray:
        """One next token for each prefix.

        Args:
            prefixes: int64, shape (batch, length): prefixes of one length.
            rng: the stream to draw from.

        Returns:
            int64, shape (batch,).
        """
        drawn = np.empty(len(prefixes), np.int64)
        distinct, which = np.unique(prefixes, axis=0, return_inverse=True)
        uniforms = rng.random(len(prefixes))
        for row, prefix in enumerate(distinct):
            members = np.flatnonzero(which.reshape(-1) == row)
            cumulated = np.cumsum(np.exp(self.log_probabilities(prefix.tolist())))
            drawn[members] = np.searchsorted(cumulated, uniforms[members] * cumulated[-1], side="right")
        return np.minimum(drawn, len(self.vocabulary) - 1)


BITS = Vocabulary((b"0", b"1", b""), eos=2)
"""The tokens 0 and 1 and the end of sequence."""


class BitStrings(LanguageModel):
    """Strings of `length` bits, each bit with its own probability given the bits before it.

    Args:
        ones: P(1 | u) for every prefix u shorter than `length`, level by level and in the order of the
            binary numbers within a level: float64, shape (2**length - 1,).
    """

    def __init__(self, ones: FloatArray) -> None:
        self.vocabulary = BITS
        self.length = len(ones).bit_length()
        if len(ones) != 2**self.length - 1:
            raise ValueError(f"{len(ones)} probabilities are not 2**length - 1 of them")
        self.ones = ones
        with np.errstate(divide="ignore"):
            end = np.full(len(ones), -np.inf)
            self._log = np.stack([np.log1p(-ones), np.log(ones), end], axis=1)
        self._ended = np.array([-np.inf, -np.inf, 0.0])

    def log_probabilities(self, prefix: Sequence[int]) -> FloatArray:
        """Log probabilities of 0, 1 and the end of sequence, which comes after exactly `length` bits."""
        if len(prefix) > self.length or BITS.eos in prefix:
            raise ValueError(f"{list(prefix)} is no prefix of {self.length} bits")
        if len(prefix) == self.length:
            return self._ended
        row = 0
        for bit in prefix:
            row = 2 * row + 1 + bit
        law: FloatArray = self._log[row]
        return law


def fair_coin(length: int) -> BitStrings:
    """Every string of `length` bits with probability 2**-length."""
    return BitStrings(np.full(2**length - 1, 0.5))


def random_bits(length: int, concentration: float, rng: np.random.Generator) -> BitStrings:
    """A random law over bit strings: (P(0 | u), P(1 | u)) ~ Dirichlet(concentration, concentration).

    All prefixes are drawn at once, level by level, so that the law does not depend on who asks first.
    """
    return BitStrings(rng.dirichlet((concentration, concentration), 2**length - 1)[:, 1])


class HuggingFaceModel(LanguageModel):
    """A pretrained causal model that continues one prompt.

    Args:
        model: a `transformers` causal model in evaluation mode.
        tokenizer: its fast tokenizer.
        prompt: text before the token strings.
        temperature: the logits are divided by it.
    """

    def __init__(self, model: Any, tokenizer: Any, prompt: str, temperature: float = 1.0) -> None:
        self.model, self.tokenizer, self.temperature = model, tokenizer, temperature
        self.vocabulary = hugging_face_vocabulary(tokenizer, model.config.vocab_size)
        self.prompt_ids: list[int] = tokenizer(prompt)["input_ids"] if prompt else []
        if not self.prompt_ids:
            first = tokenizer.bos_token_id
            self.prompt_ids = [tokenizer.eos_token_id if first is None else first]

    def log_probabilities(self, prefix: Sequence[int]) -> FloatArray:
        """Log softmax in float64 of the raw logits after the prompt and `prefix`."""
        import torch

        ids = torch.tensor([[*self.prompt_ids, *prefix]], device=self.model.device)
        with torch.inference_mode():
            logits = self.model(input_ids=ids).logits[0, -1].double() / self.temperature
        result: FloatArray = torch.log_softmax(logits, 0).cpu().numpy()
        return result


def load_hugging_face(name: str, device: str, dtype: str) -> tuple[Any, Any]:
    """A causal model and its tokenizer, by hub name or local folder.

    Args:
        name: e.g. ``"TinyLlama/TinyLlama_v1.1"`` or the path of a saved model.
        device: torch device to put it on.
        dtype: name of a torch dtype, e.g. ``"bfloat16"``.

    Raises:
        MissingModel: it cannot be loaded, or it has no fast tokenizer.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=getattr(torch, dtype))
    except (OSError, ValueError, ImportError) as error:
        raise MissingModel(f"the causal model '{name}' cannot be loaded: {error}") from error
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        raise MissingModel(f"the tokenizer of '{name}' is not a fast one with an end of sequence")
    return model.to(device).eval(), tokenizer


def hugging_face_vocabulary(tokenizer: Any, size: int) -> Vocabulary:
    """The bytes of every token of a fast tokenizer, padded with unused ids to the `size` of the logits.

    Raises:
        MissingPackage: llguidance, which reads them, is not installed.
    """
    try:
        from llguidance.hf import from_tokenizer
    except ImportError as error:
        raise MissingPackage(
            f"the bytes of a tokenizer's tokens need llguidance, pip install llguidance: {error}"
        ) from error

    reader = from_tokenizer(tokenizer)
    special = set(tokenizer.all_special_ids)
    tokens = [
        b"" if token in special or reader.is_special_token(token) else reader.decode_bytes([token])
        for token in range(min(reader.vocab_size, size))
    ]
    return Vocabulary((*tokens, *[b""] * (size - len(tokens))), tokenizer.eos_token_id)
