"""Incremental recognisers over token strings: which tokens may follow a prefix.

Two independent engines with one interface. `FiniteLanguage` knows every string and looks prefixes up in a set;
`ContextFree` reads EBNF and asks `llguidance`, an Earley parser over the bytes of the tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np

from harness import data
from harness.errors import MissingPackage
from methods.decoding.ebnf import scannerless
from methods.decoding.language_models import IntArray, Vocabulary

DATA = "gad-grammars"
"""The data set of EBNF files."""


class Grammar(ABC):
    """A language over the token strings of a vocabulary."""

    vocabulary: Vocabulary

    @abstractmethod
    def admitted(self, prefix: Sequence[int]) -> IntArray:
        """The tokens after which `prefix` can still be completed, as text: sorted ids, int64, shape (admitted,).

        The end of sequence is among them where the prefix is in the language. Empty when the prefix
        cannot be completed. Prefixes may share one array, which the caller must not write to.
        """

    def accepts(self, tokens: Sequence[int]) -> bool:
        """Whether a token string that ends with the end of sequence is in the language."""
        if not tokens or tokens[-1] != self.vocabulary.eos:
            return False
        return bool(np.isin(self.vocabulary.eos, self.admitted(tokens[:-1])))


class FiniteLanguage(Grammar):
    """A language given by its strings.

    Args:
        strings: the texts.
        vocabulary: the tokens that may spell them.
    """

    def __init__(self, strings: Iterable[str], vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.strings = frozenset(text.encode() for text in strings)
        if not self.strings:
            raise ValueError("a language needs at least one string")
        self._prefixes = {text[:length] for text in self.strings for length in range(len(text) + 1)}
        self._admitted: dict[bytes, IntArray] = {}

    def admitted(self, prefix: Sequence[int]) -> IntArray:
        """See `Grammar.admitted`; looked up in the set of all prefixes."""
        if self.vocabulary.eos in prefix:
            return np.empty(0, np.int64)
        text = self.vocabulary.spell(prefix)
        if text not in self._admitted:
            fits = [bool(token) and text + token in self._prefixes for token in self.vocabulary.tokens]
            fits[self.vocabulary.eos] = text in self.strings
            self._admitted[text] = np.flatnonzero(fits)
        return self._admitted[text]

    def accepts(self, tokens: Sequence[int]) -> bool:
        """Whether the text before the end of sequence is one of the strings."""
        eos = self.vocabulary.eos
        if not tokens or tokens[-1] != eos or eos in tokens[:-1]:
            return False
        return self.vocabulary.spell(tokens) in self.strings


class ContextFree(Grammar):
    """A context-free language in EBNF, recognised by `llguidance`.

    Args:
        ebnf: the grammar; its start is ``root``.
        vocabulary: the tokens that may spell its strings.

    Raises:
        MissingPackage: llguidance or lark is not installed.
        ValueError: the grammar cannot be read.
    """

    def __init__(self, ebnf: str, vocabulary: Vocabulary) -> None:
        try:
            import lark  # noqa: F401
            import llguidance
        except ImportError as error:
            raise MissingPackage(f"grammars in EBNF need llguidance and lark: {error}") from error

        self.vocabulary, self.ebnf = vocabulary, ebnf
        tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Tokens(vocabulary)), slices=[])
        # By default a text that the grammar forces may only be spelled with its canonical tokens. The target is a law
        # over all token strings, so every spelling is admitted.
        rules = '%llguidance {"no_forcing": true}\n' + scannerless(ebnf)
        self._matcher = llguidance.LLMatcher(tokenizer, rules, log_level=0)
        if self._matcher.is_error():
            raise ValueError(f"llguidance cannot read the grammar: {self._matcher.get_error()}")
        self._start = self._matcher.deep_copy()
        self._at: list[int] = []
        self._masks: dict[bytes, IntArray] = {}

    def _move(self, prefix: Sequence[int]) -> bool:
        """Bring the matcher to `prefix`, onwards from where it is or else from the start.

        It never rolls back: after a roll-back over a token of several bytes, llguidance 1.9 can return the mask of
        the prefix that was given up.
        """
        known = len(self._at)
        if list(prefix[:known]) != self._at:
            self._matcher, self._at, known = self._start.deep_copy(), [], 0
        rest = [int(token) for token in prefix[known:]]
        taken = self._matcher.try_consume_tokens(rest)
        self._at += rest[:taken]
        return bool(taken == len(rest))

    def admits(self, prefix: Sequence[int], token: int) -> bool:
        """Whether `admitted` would hold one token, without the mask of the others."""
        if self.vocabulary.eos in prefix or not self._move(prefix):
            return False
        if token == self.vocabulary.eos:
            return bool(self._matcher.is_accepting())
        return bool(self.vocabulary.tokens[token]) and bool(self._matcher.validate_tokens([int(token)]) == 1)

    def admitted(self, prefix: Sequence[int]) -> IntArray:
        """See `Grammar.admitted`; the mask of llguidance."""
        if self.vocabulary.eos in prefix or not self._move(prefix):
            return np.empty(0, np.int64)
        bits = self._matcher.compute_bitmask()
        tokens = self._masks.get(bits)
        if tokens is None:
            # Few masks are distinct, and a mask of free text holds most of the vocabulary: prefixes share them.
            flags = np.unpackbits(np.frombuffer(bits, np.uint8), count=len(self.vocabulary), bitorder="little")
            tokens = self._masks[bits] = np.flatnonzero(flags.view(bool))
        if self._matcher.is_error():
            raise RuntimeError(f"llguidance: {self._matcher.get_error()}")
        return tokens


class _Tokens:
    """What llguidance asks of a tokenizer."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        # Ids that spell nothing get a name that no text can contain (0xFF marks special tokens).
        self.tokens = [
            token or b"\xff<" + str(place).encode() + b">" for place, token in enumerate(vocabulary.tokens)
        ]
        self.eos_token_id = vocabulary.eos
        self.bos_token_id = None
        self.special_token_ids = [place for place, token in enumerate(vocabulary.tokens) if not token]
        self._single = {token[0]: place for place, token in enumerate(self.tokens) if len(token) == 1}

    def __call__(self, text: bytes | str) -> list[int]:
        """Tokens of single bytes; llguidance wants to be able to ask, though masks do not depend on it."""
        raw = text.encode() if isinstance(text, str) else text
        return [self._single[byte] for byte in raw if byte in self._single]


BINARY = ("binary_len_3", "binary_len_5_0", "binary_len_5_1")
"""Finite languages of bit strings in which one branch is a single string."""


def binary_language(name: str) -> tuple[str, ...]:
    """The strings of a skewed binary language: one branch admits everything, the other only one string.

    ``binary_len_3`` and ``binary_len_5_0``: zeros only, or anything that begins with 1. ``binary_len_5_1``: ones
    only, or anything that begins with 0.
    """
    if name not in BINARY:
        raise ValueError(f"the binary languages are {', '.join(BINARY)}, not '{name}'")
    length = 3 if name == "binary_len_3" else 5
    alone, free = ("1", "0") if name == "binary_len_5_1" else ("0", "1")
    return (alone * length, *(free + "".join(bits) for bits in product("01", repeat=length - 1)))


def grammar_file(name: str) -> str:
    """The EBNF of one of the files of the data set ``gad-grammars``, e.g. ``"json"``.

    Raises:
        MissingData: the data set is not under ``HARNESS_DATA``.
    """
    return data.text(DATA, f"{name}.ebnf")


def spelled_language(grammar: Grammar, most: int = 100_000) -> set[bytes]:
    """All texts of a finite language, found by following the admitted tokens.

    Raises:
        ValueError: it has more than `most` prefixes.
    """
    texts: set[bytes] = set()
    pending: list[tuple[int, ...]] = [()]
    seen = 0
    while pending:
        prefix = pending.pop()
        seen += 1
        if seen > most:
            raise ValueError(f"the language has more than {most} prefixes")
        for token in grammar.admitted(prefix).tolist():
            if token == grammar.vocabulary.eos:
                texts.add(grammar.vocabulary.spell(prefix))
            else:
                pending.append((*prefix, token))
    return texts
