"""Subword tokenizers: ids, and the character at which each token ends.

A text never holds a line end when it is tokenised: the lines of a training text are joined by the separator of their
language, just as the sentences of a test text are, so that nothing is left of a line end that could give it away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness import cache
from harness.errors import MissingModel, MissingPackage, first_line
from methods.text.marks import MARKS

SPACE = "▁"
"""What stands for the blank in front of a word."""


@dataclass(frozen=True)
class Pieces:
    """A tokenised text.

    Attributes:
        ids: int64, shape (n,), without special tokens.
        ends: int64, shape (n,): the offset just behind the last character of each token; never falling.
    """

    ids: NDArray[np.int64]
    ends: NDArray[np.int64]


class Tokenizer(Protocol):
    """What inference needs of a tokenizer: special ids and pieces."""

    cls: int
    sep: int
    pad: int

    def encode(self, texts: Sequence[str]) -> list[Pieces]:
        """The pieces of each text."""
        ...


class Subwords:
    """A tokenizer of the package tokenizers with XLM-R's special tokens.

    Attributes:
        cls, sep, pad: ids of the special tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.cls, self.pad, self.sep = (tokenizer.token_to_id(t) for t in ("<s>", "<pad>", "</s>"))

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def encode(self, texts: Sequence[str]) -> list[Pieces]:
        """The pieces of each text."""
        found = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            Pieces(
                np.array(e.ids, dtype=np.int64),
                np.maximum.accumulate(np.array([end for _, end in e.offsets], dtype=np.int64)),
            )
            for e in found
        ]

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """By id the auxiliary class of a token: 0 for none, 1 + i for the mark ``MARKS[i]``."""
        number = {mark: i + 1 for i, mark in enumerate(MARKS)}
        table = np.zeros(len(self), dtype=np.int64)
        for token, i in self.tokenizer.get_vocab().items():
            table[i] = number.get(token.removeprefix(SPACE), 0)
        return table

    def save(self, path: Path) -> None:
        """Write the tokenizer as JSON."""
        path.write_text(self.tokenizer.to_str(), encoding="utf-8")


def load(path: Path) -> Subwords:
    """The tokenizer in a ``tokenizer.json``."""
    from tokenizers import Tokenizer as Library

    return Subwords(Library.from_file(str(path)))


def train(lines: Iterable[str], vocabulary: int) -> Subwords:
    """A byte-pair tokenizer of at most `vocabulary` tokens; every mark and every digit is a token of its own.

    Raises:
        MissingPackage: tokenizers is not installed.
    """
    try:
        from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers
        from tokenizers import Tokenizer as Library
    except ImportError as error:
        raise MissingPackage("subwords need the package tokenizers: pip install tokenizers") from error
    tokenizer = Library(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    words = rf"{SPACE}?[\p{{L}}\p{{M}}]+|{SPACE}?\p{{N}}|{SPACE}?[^\p{{L}}\p{{M}}\p{{N}}{SPACE}]|{SPACE}+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=False),
            pre_tokenizers.Split(Regex(words), "isolated"),
        ]
    )
    # In the order in which XLM-R has them.
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=[SPACE, *MARKS],
        limit_alphabet=1000,
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return Subwords(tokenizer)


def trained(lines: Sequence[str], vocabulary: int, directory: Path | None = None) -> Subwords:
    """What `train` makes of `lines`, made once and kept in the cache."""
    import tokenizers

    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    recipe = {"version": 1, "library": tokenizers.__version__, "vocabulary": vocabulary, "lines": digest}
    return load(
        cache.artefact("sat-subwords", recipe, lambda path: train(lines, vocabulary).save(path), directory)
    )


def pretrained(name: str) -> Subwords:
    """The fast tokenizer of a Hugging Face id or a folder.

    Raises:
        MissingModel: it cannot be loaded here.
    """
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        raise MissingModel(f"the tokenizer '{name}' cannot be loaded here: {first_line(error)}") from error
    return Subwords(found.backend_tokenizer)


class XlmRoberta:
    """The real tokenizer of XLM-RoBERTa, in the compiled form that the package blingfire carries.

    Its ids are those of the model's own vocabulary of 250,002.

    Raises:
        MissingPackage: blingfire is not installed.
    """

    cls, pad, sep = 0, 1, 2

    def __init__(self) -> None:
        try:
            import blingfire
        except ImportError as error:
            raise MissingPackage(
                "XLM-R's subwords are in the package blingfire: pip install blingfire"
            ) from error
        self._library = blingfire
        self._model = blingfire.load_model(str(Path(blingfire.__file__).parent / "xlm_roberta_base.bin"))

    def encode(self, texts: Sequence[str]) -> list[Pieces]:
        """The pieces of each text."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> Pieces:
        raw = text.encode()
        ids, _, last = self._library.utf8text_to_ids_with_offsets(
            self._model, raw, 2 * len(raw) + 8, unk=3, no_padding=True
        )
        # Offsets are those of the last byte; a character begins at each byte that continues none.
        begins = (np.frombuffer(raw, dtype=np.uint8) & 0xC0) != 0x80
        through = np.cumsum(begins)
        ends = through[np.clip(last.astype(np.int64), 0, max(0, len(raw) - 1))] if len(ids) else last
        return Pieces(ids.astype(np.int64), np.maximum.accumulate(ends.astype(np.int64)))
