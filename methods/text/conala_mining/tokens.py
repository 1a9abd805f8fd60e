"""Words of intents and of code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")
_CODE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\sA-Za-z0-9_]|[^\x00-\x7f]+")

UNKNOWN = "<unk>"


def words(intent: str) -> list[str]:
    """Lower-cased words and punctuation marks."""
    return _WORD.findall(intent.lower())


def code_tokens(code: str) -> list[str]:
    """Tokens of code in lower case, with names split at underscores and where a capital begins a word."""
    return [token.lower() for token in _CODE.findall(code)]


class Vocabulary:
    """Numbers for the tokens that occur more than `least` times; the others share one.

    Attributes:
        tokens: the known ones, by number, `UNKNOWN` first.
    """

    def __init__(self, texts: Iterable[Sequence[str]], least: int) -> None:
        counts = Counter(token for text in texts for token in text)
        self.tokens = [UNKNOWN, *sorted(t for t, n in counts.items() if n > least)]
        self._number = {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: Sequence[str]) -> list[int]:
        """The numbers of the tokens, 0 for unknown ones."""
        return [self._number.get(token, 0) for token in text]
