"""Sentences of a novel as strings of 27 symbols, and the character trigram model of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np

from methods.common.corpora import corpus
from methods.decoding.making_the_most.chain import Chain

SYMBOLS = "abcdefghijklmnopqrstuvwxyz "
"""Letters and the space. The symbol after them ends a sentence."""

TITLES = "Mr|Mrs|Messrs|Dr|St|Rev|Hon|Esq|Sir|No|Vol"
"""Abbreviations whose full stop ends no sentence."""


def split(raw: str, titles: bool = True) -> list[str]:
    """The sentences of a text, in lower case, letters and single spaces only.

    A sentence ends with '.', '!' or '?', with closing quotes or brackets after it, before white space.

    Args:
        raw: the text.
        titles: the full stop of a title such as "Mr." or of an initial ends no sentence.
    """
    whole = re.sub(rf"\b({TITLES}|[A-Z])\.", r"\1", raw) if titles else raw
    parts = re.split(r"(?<=[.!?])[\"'”’)\]]*\s+", whole)
    plain = (re.sub(r"[^a-z]+", " ", part.lower().replace("'", "").replace("’", "")).strip() for part in parts)
    return [part for part in plain if part]


@cache
def sentences(text: str, titles: bool = True) -> tuple[str, ...]:
    """The sentences of a named text (`methods.common.corpora.corpus`), see `split`.

    Raises:
        MissingData: the text is not here.
    """
    return tuple(split(corpus(text).numpy().tobytes().decode(errors="replace"), titles))


def dictionary(text: str, least: int = 5) -> frozenset[str]:
    """The words that occur at least `least` times in a text, a stand-in for a dictionary of its language."""
    counts = Counter(word for sentence in sentences(text) for word in sentence.split())
    return frozenset(word for word, count in counts.items() if count >= least)


def triples(rows: Sequence[str]) -> np.ndarray:
    """How often each symbol, or the end, follows two others, starts among them: float64, shape (28, 28, 28)."""
    v = len(SYMBOLS)
    # Two starts in front of each row and an end behind it, all with the code v; rows are counted in one go.
    mark = chr(ord("a") + 26)
    raw = np.frombuffer("".join(f"{mark}{mark}{row}{mark}" for row in rows).encode(), np.uint8).astype(np.int64)
    codes = np.where(raw == ord(" "), 26, np.where(raw == ord(mark), v, raw - ord("a")))
    # What would follow into the starts of the next row is no triple.
    begins = np.cumsum([0, *(len(row) + 3 for row in rows[:-1])])
    inside = np.ones(len(codes), bool)
    inside[begins] = inside[begins + 1] = False
    last = np.flatnonzero(inside)
    flat = (codes[last - 2] * (v + 1) + codes[last - 1]) * (v + 1) + codes[last]
    return np.bincount(flat, minlength=(v + 1) ** 3).reshape((v + 1,) * 3).astype(float)


@cache
def trigram_chain(text: str, empty: float = 0.005, weight: float = 5.0, titles: bool = True) -> Chain:
    """The character trigram model of a text's sentences, with `empty` x sentences empty ones mixed in.

    P(c | a b) = (n(a b c) + w P(c | b)) / (n(a b) + w), the same for P(c | b) over P(c), and P(c) over the uniform
    law. The state is the last two symbols; two starts stand before the first.

    Args:
        text: a named text.
        empty: empty sentences for each sentence of the text.
        weight: w, of the law with a shorter context.
        titles: see `split`.

    Raises:
        MissingData: the text is not here.
    """
    v = len(SYMBOLS)  # the end; as a context this code is the start
    kept = sentences(text, titles)
    counts = triples([*kept, *[""] * round(empty * len(kept))])
    unigram = counts.sum((0, 1))
    p1 = (unigram + weight / (v + 1)) / (unigram.sum() + weight)
    bigram = counts.sum(0)
    p2 = (bigram + weight * p1) / (bigram.sum(1, keepdims=True) + weight)
    p3 = (counts + weight * p2) / (counts.sum(2, keepdims=True) + weight)
    pairs = state_pairs().tolist()
    number = {(a, b): place for place, (a, b) in enumerate(pairs)}
    after = np.array([[*(number[b, c] for c in range(v)), -1] for _, b in pairs])
    first, second = np.array(pairs).T
    return Chain(np.log(p3[first, second]), after, 0, SYMBOLS)


def repeated(string: str | tuple[int, ...], n: int = 4) -> float:
    """Share of the n-grams of characters or tokens that occurred before; 0 for a string with none."""
    grams = [string[place : place + n] for place in range(len(string) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def dictionary_share(text: str, words: frozenset[str]) -> float:
    """Share of the words of `text` that are in `words`; 0 for a text without words."""
    found = text.split()
    return sum(word in words for word in found) / len(found) if found else 0.0


def state_pairs() -> np.ndarray:
    """The last two symbols of each state of `trigram_chain`; the end's code stands for a start: int64 (states, 2)."""
    v = len(SYMBOLS)
    pairs = [(v, v), *((v, c) for c in range(v)), *((a, b) for a in range(v) for b in range(v))]
    return np.array(pairs)


def good_text(name: str) -> Chain:
    """The trigram model of a text's sentences without the little of the empty string that its back-off has."""
    chain = trigram_chain(name, 0.0)
    log_p = chain.log_p.copy()
    log_p[chain.start, chain.end] = -np.inf
    log_p[chain.start] -= np.logaddexp.reduce(log_p[chain.start])
    return Chain(log_p, chain.after, chain.start, chain.symbols)
