"""Constraints as black boxes: can a text still be completed, and is it complete?

None of them is compiled against a vocabulary. Regular expressions are matched by `regex`, grammars and JSON schemas by
`llguidance`, molecules by `partialsmiles` and RDKit.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.errors import MissingPackage
from methods.decoding.adaptive_weighted_rejection.characters import kinds_decide, representatives, split
from methods.decoding.adaptive_weighted_rejection.particles import Context
from methods.decoding.adaptive_weighted_rejection.rejection import Test
from methods.decoding.ebnf import scannerless
from methods.decoding.grammars import ContextFree, Grammar
from methods.decoding.language_models import Vocabulary

IDENTIFIER = r"[A-Za-z_]\w*"
_ANNOTATION = r"[\w.\[\], |'\"]+"
_DEFAULT = rf"(?:-?\d+(?:\.\d+)?|None|True|False|'[^'\"]*'|\"[^'\"]*\"|{IDENTIFIER}(?:\.{IDENTIFIER})*|\(\)|\[\]|\{{\}})"
_ARGUMENT = rf"(?:\*|/|\*{{0,2}}{IDENTIFIER}(?:: ?{_ANNOTATION})?(?: ?= ?{_DEFAULT})?)"
HEADER = rf"def {IDENTIFIER}\((?:{_ARGUMENT}(?:, {_ARGUMENT})*)?\)(?: -> {_ANNOTATION})?:"
"""Headers of Python functions on one line."""

JSON_SCHEMA = {
    "type": "object",
    "properties": {
        "question": {"type": "integer"}, "intent": {"type": "string"}, "snippet": {"type": "string"}
    },
    "required": ["question", "intent", "snippet"],
    "additionalProperties": False,
}  # fmt: skip
"""Of the documents of the text ``json``."""


class Constraint(ABC):
    """A language over texts, known by two questions."""

    @abstractmethod
    def prefix(self, text: bytes) -> bool:
        """Whether the text can be completed."""

    @abstractmethod
    def complete(self, text: bytes) -> bool:
        """Whether the text is in the language."""

    def after(self, text: bytes) -> Any:
        """The test of what follows a text: bytes -> whether text + bytes can be completed."""
        return lambda more: self.prefix(text + more)

    def context(self, vocabulary: Vocabulary) -> Context:
        """C over the tokens of a vocabulary. Tokens that spell nothing never pass, but for the end of sequence."""

        def at(prefix: Sequence[int]) -> Test:
            text = vocabulary.spell(prefix)
            after = self.after(text)

            def test(token: int) -> bool:
                if token == vocabulary.eos:
                    return self.complete(text)
                spelled = vocabulary.tokens[token]
                return bool(spelled) and bool(after(spelled))

            return test

        return at

    def mask(self, vocabulary: Vocabulary, prefix: Sequence[int]) -> np.ndarray:
        """C of all tokens after a prefix at once: bool, shape (vocabulary,).

        The same as the test of `context` for each token, with the fewer evaluations of `prefix_mask`.
        """
        return prefix_mask(vocabulary, by_spelling(vocabulary), self.context(vocabulary)(prefix))[0]


def by_spelling(vocabulary: Vocabulary) -> list[int]:
    """The tokens that spell something, in the order of what they spell."""
    spelling = [token for token in range(len(vocabulary)) if vocabulary.tokens[token]]
    return sorted(spelling, key=vocabulary.tokens.__getitem__)


def prefix_mask(vocabulary: Vocabulary, order: Sequence[int], test: Test) -> tuple[np.ndarray, int]:
    """C of all tokens of one context, and how often it was evaluated.

    What cannot be completed cannot be by writing on, so that tokens which begin with one that failed are not tried.

    Args:
        vocabulary: the tokens.
        order: what `by_spelling` says of it.
        test: C, of a constraint over texts.

    Returns:
        bool, shape (vocabulary,), and the evaluations.
    """
    passes = np.zeros(len(vocabulary), bool)
    passes[vocabulary.eos] = test(vocabulary.eos)
    failed: bytes | None = None
    calls = 1
    for token in order:
        if failed is not None and vocabulary.tokens[token].startswith(failed):
            continue
        calls += 1
        passes[token] = test(token)
        if not passes[token]:
            failed = vocabulary.tokens[token]
    return passes, calls


class Pattern(Constraint):
    """The texts that a regular expression matches as a whole.

    `regex` answers by a partial match. It does not look ahead of the end, so that a few patterns with look-arounds have
    prefixes that cannot be completed; a string that gets stuck there has weight 0. A text that ends inside a character is
    a prefix where some character that begins like this makes one; where the expression tells more characters apart than
    `kinds_decide` can see, it always is, and may get stuck too.

    Raises:
        MissingPackage: regex is not installed.
        ValueError: not an expression.
    """

    def __init__(self, pattern: str) -> None:
        try:
            import regex
        except ImportError as error:
            raise MissingPackage(f"patterns need the package regex, pip install regex: {error}") from error
        try:
            self.expression: Any = regex.compile(pattern)
        except regex.error as error:
            raise ValueError(f"'{pattern}' is no regular expression: {error}") from error
        self._kinds_decide = kinds_decide(self.expression)

    def prefix(self, text: bytes) -> bool:
        """See `Constraint.prefix`."""
        parts = split(text)
        if parts is None or not self._begins(parts[0]):
            return False
        whole, start = parts
        if not start or not self._kinds_decide:
            return True
        said = (character for character in set(whole) if character.encode().startswith(start))
        return any(self._begins(whole + character) for character in (*representatives(start), *said))

    def _begins(self, text: str) -> bool:
        return self.expression.fullmatch(text, partial=True) is not None

    def complete(self, text: bytes) -> bool:
        """See `Constraint.complete`."""
        parts = split(text)
        return parts is not None and not parts[1] and self.expression.fullmatch(parts[0]) is not None


class Parsed(Constraint):
    """The language of a grammar of `llguidance`, over bytes.

    Args:
        rules: in the syntax of llguidance, or a JSON schema as its constructors below make them.

    Raises:
        MissingPackage: llguidance is not installed.
        ValueError: the grammar cannot be read.
    """

    def __init__(self, rules: str) -> None:
        try:
            import llguidance
        except ImportError as error:
            raise MissingPackage(f"grammars need llguidance, pip install llguidance: {error}") from error
        self._start = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), rules, log_level=0)
        if self._start.is_error():
            raise ValueError(f"llguidance cannot read the grammar: {self._start.get_error()}")
        self._text, self._matcher = b"", self._start.deep_copy()

    @classmethod
    def ebnf(cls, ebnf: str) -> Parsed:
        """From EBNF with start ``root``."""
        return cls('%llguidance {"no_forcing": true}\n' + scannerless(ebnf))

    @classmethod
    def schema(cls, schema: dict[str, Any]) -> Parsed:
        """Objects of a JSON schema, with one blank after commas and colons and no escapes of letters by number."""
        import llguidance

        options = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        return cls(llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=options))

    def _at(self, text: bytes) -> Any:
        """The matcher after a text, None where the text is no prefix; onwards from the last text where possible."""
        if not text.startswith(self._text):
            self._text, self._matcher = b"", self._start.deep_copy()
        rest = list(text[len(self._text) :])
        if rest and self._matcher.validate_tokens(rest) != len(rest):
            return None
        if rest and not self._matcher.consume_tokens(rest):
            raise RuntimeError(f"llguidance: {self._matcher.get_error()}")
        self._text = text
        return self._matcher

    def after(self, text: bytes) -> Any:
        """See `Constraint.after`; the text is parsed once."""

        def test(more: bytes) -> bool:
            matcher = self._at(text)
            return matcher is not None and bool(matcher.validate_tokens(list(more)) == len(more))

        return test

    def prefix(self, text: bytes) -> bool:
        """See `Constraint.prefix`."""
        return self._at(text) is not None

    def complete(self, text: bytes) -> bool:
        """See `Constraint.complete`."""
        matcher = self._at(text)
        return matcher is not None and bool(matcher.is_accepting())


class Molecule(Constraint):
    """SMILES of one or more molecules that both `partialsmiles` and RDKit accept.

    Raises:
        MissingPackage: partialsmiles or rdkit is not installed.
    """

    def __init__(self) -> None:
        try:
            import partialsmiles
            from rdkit import Chem, RDLogger
        except ImportError as error:
            raise MissingPackage(
                f"molecules need their parsers, pip install partialsmiles rdkit: {error}"
            ) from error
        RDLogger.DisableLog("rdApp.*")
        self._parse, self._error, self._chem = partialsmiles.ParseSmiles, partialsmiles.Error, Chem

    def _reads(self, text: bytes, partial: bool) -> bool:
        if not text.isascii():
            return False
        try:
            self._parse(text.decode(), partial=partial)
        except self._error:
            return False
        return True

    def prefix(self, text: bytes) -> bool:
        """See `Constraint.prefix`; blanks, which end a SMILES, do not pass."""
        return b" " not in text and b"\t" not in text and (not text or self._reads(text, True))

    def complete(self, text: bytes) -> bool:
        """See `Constraint.complete`."""
        if not text or not self.prefix(text) or not self._reads(text, False):
            return False
        return self._chem.MolFromSmiles(text.decode()) is not None


def grammar_context(grammar: Grammar) -> Context:
    """C of a grammar over tokens, one token at a time."""

    def at(prefix: Sequence[int]) -> Test:
        if isinstance(grammar, ContextFree):
            return lambda token: grammar.admits(prefix, token)
        admitted = frozenset(grammar.admitted(prefix).tolist())
        return admitted.__contains__

    return at
