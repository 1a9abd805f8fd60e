"""Splitting text with Punkt's tables: candidates, the decision at each, realignment, and memories for speed."""

from __future__ import annotations

import re
from functools import lru_cache

from methods.text.legal_sentence_boundaries.punkt_tables import (
    ANY_LOWER,
    ANY_UPPER,
    BEGIN_LOWER,
    INSIDE_UPPER,
    Tables,
)
from methods.text.legal_sentence_boundaries.punkt_tokens import NUMBER, Token, classify, first_token, last_token
from methods.text.sentence_data import Span

_CANDIDATE = re.compile(
    r"""
    (?: (?P<ellipsis> \.(?:\s*\.){2,} | \.{2,} | … ) | [?!]+ | \. )    # the mark: a run of periods, or ? ! .
    (?= \s+(?P<next>\S+) | (?P<closer>[)";}\]*:@'({\[”’“‘]) | \s*\Z ) # what follows it
    # Of several marks in one stretch without white space, as in `this.").`, only the last is a candidate.
    (?! \S{1,48}?[.?!](?:[)";}\]*:@'({\[”’“‘\s]|\Z) )
    """,
    re.VERBOSE,
)
_REALIGNED = re.compile(r"""["'”’)\]}]+(?=\s|--|\Z)""")
_NEVER_STARTS = frozenset(";:,.!?")
_REACH = 48
"""Characters before a mark in which the word that it ends is looked for; the longest abbreviations have about 20."""


class PunktSplitter:
    """Punkt's decisions over the candidates of a text.

    Args:
        tables: what Punkt knows.
        next_word: whether the decision at a period sees the word after it; without it only
            abbreviations count, and collocations, starters and orthography never do.
        trim: whether sentences come without the white space at their ends; otherwise they are contiguous
            and each but the first begins with the white space before it.
        memory: how many tokens, and how many decisions, are remembered; 0 for none.
        document_memory: how many documents are remembered with their sentences; 0 for none.
    """

    def __init__(
        self,
        tables: Tables,
        *,
        next_word: bool = True,
        trim: bool = False,
        memory: int = 32768,
        document_memory: int = 0,
    ) -> None:
        self.tables = tables
        self.next_word = next_word
        self.trim = trim
        self._sizes = (memory, document_memory)
        self.forget()

    def forget(self) -> None:
        """Start with empty memories."""
        memory, document_memory = self._sizes
        self._token = lru_cache(memory)(classify) if memory else classify
        self._last = lru_cache(memory)(self._last_of) if memory else self._last_of
        self._breaks = lru_cache(memory)(self.breaks) if memory else self.breaks
        self._document = lru_cache(document_memory)(self._split) if document_memory else self._split

    def split(self, text: str) -> list[Span]:
        """The sentences of a text: spans in order that cover it, but for white space where `trim` is set."""
        return list(self._document(text))

    def _split(self, text: str) -> tuple[Span, ...]:
        if not text:
            return ()
        # Most lines of a collection have no mark at all; three searches in C settle them.
        if "." not in text and "?" not in text and "!" not in text and "…" not in text:
            return self._spans(text, [])
        ends: list[int] = []
        breaks, realigned = self._breaks, _REALIGNED.match
        for match in _CANDIDATE.finditer(text):
            end = match.end()
            following = match["closer"] or match["next"] or ""
            if match["ellipsis"]:
                # Whatever word it follows: of "etc. . . . The" the abbreviation's period is part of the ellipsis.
                found = following[:1].isupper()
            elif text[end - 1] != ".":
                found = True
            else:
                start = end - _REACH if end > _REACH else 0
                # The last word before the mark; the split in C is faster than a search for white space.
                found = breaks(
                    text[start:end].rsplit(None, 1)[-1], following if self.next_word else match["closer"] or ""
                )
            if found:
                closing = realigned(text, end)
                ends.append(closing.end() if closing else end)
        return self._spans(text, ends)

    def _spans(self, text: str, ends: list[int]) -> tuple[Span, ...]:
        """Spans from the ends of sentences; what is left over belongs to the last, white space alone to no new one."""
        if ends and not text[ends[-1] :].strip():
            ends.pop()
        starts, ends = [0, *ends], [*ends, len(text)]
        if not self.trim:
            return tuple(zip(starts, ends, strict=True))
        spans = []
        for start, end in zip(starts, ends, strict=True):
            sentence = text[start:end]
            bare = sentence.strip()
            if bare:
                left = start + len(sentence) - len(sentence.lstrip())
                spans.append((left, left + len(bare)))
        return tuple(spans)

    def _last_of(self, chunk: str) -> Token:
        return self._token(last_token(chunk))

    def breaks(self, before: str, after: str) -> bool:
        """Whether a sentence ends at the period that ends `before`.

        Args:
            before: the text up to and with the period, back to the last white space.
            after: the text after it without white space at its start, up to the next; empty when it is
                not to be seen or there is none.
        """
        token = self._last(before)
        abbreviation = token.candidate and self.tables.abbreviates(token.bare)
        word = first_token(after)
        if not word:
            return not abbreviation
        following = self._token(word)
        kind = self._kind(following)
        if (token.bare, kind) in self.tables.collocations:
            return False
        if abbreviation and not token.initial:
            starts = self._starts_sentence(following, kind)
            return starts is True or (following.upper and kind in self.tables.starters)
        if token.initial or token.bare == NUMBER:
            starts = self._starts_sentence(following, kind)
            if starts is False:
                return False
            never_small = not self.tables.orthography.get(kind, 0) & ANY_LOWER
            if starts is None and token.initial and following.upper and never_small:
                return False
        return not abbreviation

    def _kind(self, token: Token) -> str:
        """The type of the word after a period, without a period that would end a sentence itself."""
        ends = token.period and not token.ellipsis and not token.mark
        return (
            token.bare if ends and not (token.candidate and self.tables.abbreviates(token.bare)) else token.type
        )

    def _starts_sentence(self, token: Token, kind: str) -> bool | None:
        """Whether orthography says that `token` begins a sentence; None when it does not tell."""
        if token.text in _NEVER_STARTS:
            return False
        seen = self.tables.orthography.get(kind, 0)
        if token.upper and seen & ANY_LOWER and not seen & INSIDE_UPPER:
            return True
        if token.lower and (seen & ANY_UPPER or not seen & BEGIN_LOWER):
            return False
        return None
