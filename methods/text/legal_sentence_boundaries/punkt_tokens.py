"""The tokens of Punkt and what a single token shows: its type, whether it could be an abbreviation, an initial."""

from __future__ import annotations

import re
from typing import NamedTuple

NUMBER = "##number##"
"""The one type of all numbers."""

_CLOSES_WORD = r"[)\";}\]*:@'({\[!?\s]"
_RUN = r"(?:-{2,}|\.{2,}|(?:\.\s+){2,}\.|…)"
_TOKEN = re.compile(
    rf"""
    {_RUN}                                        # dashes and ellipses
    | (?=[^(\"`{{\[:;&\#*@)}}\]\-,]) \S+?         # a word: up to white space, a mark that ends words, or a run
      (?= \s | $ | {_CLOSES_WORD} | {_RUN} | ,(?=$|\s|{_CLOSES_WORD}|{_RUN}) )
    | \S                                          # any other mark by itself
    """,
    re.VERBOSE,
)
_NUMBER = re.compile(r"-?[.,]?\d[\d,.\-]*\.?")
_INITIAL = re.compile(r"[^\W\d]\.")
_ALPHABETIC = re.compile(r"[^\W\d]+")
_WORD_LIKE = re.compile(r"[^\W\d]")
_ABBREVIATION_LIKE = re.compile(r"[A-Za-z0-9.]+")
_ELLIPSIS = re.compile(r"\.{2,}|…|\.(?:\s+\.){2,}")
_MARKS = frozenset(".?!")


class Token(NamedTuple):
    """What is to be seen in a token by itself."""

    text: str
    """As written."""
    type: str
    """Lower-case, numbers all alike; with its final period."""
    bare: str
    """The type without a final period."""
    period: bool
    """Ends in a period."""
    candidate: bool
    """Could be an abbreviation: ends in a period, and has letters, digits and periods only, letters foremost."""
    mark: bool
    """Is a single ``.``, ``?`` or ``!``."""
    ellipsis: bool
    """Is a run of periods or ``…``."""
    number: bool
    """Is a number, with or without a final period."""
    initial: bool
    """Is one letter and a period."""
    alphabetic: bool
    """Has letters only."""
    word: bool
    """Has a letter, or is a number."""
    upper: bool
    """Begins with an upper-case letter."""
    lower: bool
    """Begins with a lower-case letter."""


def tokenize(line: str) -> list[str]:
    """The tokens of a line: words with their final period, other punctuation mark by mark."""
    return _TOKEN.findall(line)


def last_token(chunk: str) -> str:
    """The last token of a piece of text without white space; empty when there is none."""
    tokens = _TOKEN.findall(chunk)
    return tokens[-1] if tokens else ""


def first_token(chunk: str) -> str:
    """The first token of a piece of text without white space at its start; empty when there is none."""
    match = _TOKEN.match(chunk)
    return match.group() if match else ""


def classify(text: str) -> Token:
    """What is to be seen in the token `text`."""
    number = _NUMBER.fullmatch(text) is not None
    period = text.endswith(".")
    kind = NUMBER if number else text.lower()
    bare = kind[:-1] if kind.endswith(".") and len(kind) > 1 else kind
    return Token(
        text=text,
        type=f"{NUMBER}." if number and period else kind,
        bare=bare,
        period=period,
        candidate=period and not number and is_abbreviation_like(text),
        mark=text in _MARKS,
        ellipsis=_ELLIPSIS.fullmatch(text) is not None,
        number=number,
        initial=_INITIAL.fullmatch(text) is not None,
        alphabetic=_ALPHABETIC.fullmatch(text) is not None,
        word=number or _WORD_LIKE.search(text) is not None,
        upper=text[:1].isupper(),
        lower=text[:1].islower(),
    )


def is_abbreviation_like(text: str) -> bool:
    """Letters, digits and periods only, with a letter and no more digits than letters."""
    if _ABBREVIATION_LIKE.fullmatch(text) is None:
        return False
    letters = sum(map(str.isalpha, text))
    return letters > 0 and letters >= sum(map(str.isdigit, text))
