"""Learning Punkt's tables from bare text (Kiss and Strunk, 2006, with the settings of arXiv 2504.04131)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from methods.text.legal_sentence_boundaries.punkt_tables import (
    BEGIN_LOWER,
    BEGIN_UPPER,
    INSIDE_LOWER,
    INSIDE_UPPER,
    UNKNOWN_LOWER,
    UNKNOWN_UPPER,
    Tables,
)
from methods.text.legal_sentence_boundaries.punkt_tokens import Token, classify, is_abbreviation_like, tokenize

_FLAG = {
    ("begin", "upper"): BEGIN_UPPER,
    ("inside", "upper"): INSIDE_UPPER,
    ("unknown", "upper"): UNKNOWN_UPPER,
    ("begin", "lower"): BEGIN_LOWER,
    ("inside", "lower"): INSIDE_LOWER,
    ("unknown", "lower"): UNKNOWN_LOWER,
}


@dataclass(frozen=True)
class Settings:
    """The thresholds of training.

    Attributes:
        abbreviation: least score of an abbreviation (NLTK: 0.3).
        backoff: how often a type must occur with a period to be scored; rarer ones need a telling context.
        longest: characters of the longest abbreviation, internal periods included.
        boost: factor of the log-likelihood ratio (NLTK: 1).
        collocation, starter: least log-likelihood ratios.
        least: how often a collocation or starter must occur.
    """

    abbreviation: float = 0.1
    backoff: int = 10
    longest: int = 9
    boost: float = 1.5
    collocation: float = 5.0
    starter: float = 25.0
    least: int = 5


def abbreviation_ratio(a: int, b: int, k: int, total: int, boost: float = 1.5) -> float:
    """How much likelier the periods after a type are if it is an abbreviation.

    LL = -2 [k ln p0 + (a-k) ln(1-p0) - k ln 0.99 - (a-k) ln 0.01] * boost, with p0 = b/total.

    Args:
        a: how often the type occurs with and without a period.
        b: how many tokens end in a period.
        k: how often the type occurs with a period.
        total: tokens.
        boost: a factor.
    """
    p0 = b / total
    chance = k * _log(p0) + (a - k) * _log(1 - p0)
    abbreviation = k * math.log(0.99) + (a - k) * math.log(0.01)
    return -2 * (chance - abbreviation) * boost


def abbreviation_score(candidate: str, a: int, b: int, k: int, total: int, boost: float = 1.5) -> float:
    """The score of a candidate abbreviation, written without its final period.

    LL * exp(-m) * (internal periods + 1) * penalty * (1 + k/a), with m = 1 + characters that are not periods and
    penalty = 1 up to three characters, m^(-(a-k)/2) for longer ones.
    """
    inner = candidate.count(".")
    m = 1 + len(candidate) - inner
    penalty = 1.0 if len(candidate) <= 3 else m ** (-0.5 * (a - k))
    return abbreviation_ratio(a, b, k, total, boost) * math.exp(-m) * (inner + 1) * penalty * (1 + k / a)


def collocation_ratio(a: int, b: int, both: int, total: int) -> float:
    """Dunning's log-likelihood ratio that two events come together: -2 ln(L(p, p) / L(p1, p2)).

    Args:
        a: how often the first event occurs.
        b: how often the second occurs.
        both: how often the second follows the first.
        total: tokens.
    """
    p, p1 = b / total, both / a
    p2 = (b - both) / (total - a) if total > a else 1.0
    together = _binomial(both, a, p) + _binomial(b - both, total - a, p)
    apart = _binomial(both, a, p1) + _binomial(b - both, total - a, p2)
    return -2 * (together - apart)


def _binomial(successes: int, trials: int, p: float) -> float:
    """ln(p^successes (1-p)^(trials-successes)), where 0 ln 0 is 0."""
    failures = trials - successes
    return (successes * _log(p) if successes else 0.0) + (failures * _log(1 - p) if failures else 0.0)


def _log(x: float) -> float:
    return math.log(max(x, 1e-300))


def train(text: str, settings: Settings = Settings(), known: Sequence[str] = ()) -> Tables:
    """Learn the tables from a text.

    Args:
        text: raw text; blank lines separate paragraphs.
        settings: the thresholds.
        known: abbreviations that are known before, lower-case and without their final period.
    """
    tokens, parts = _tokens(text)
    counts = Counter(token.type for token in tokens)
    periods = sum(token.period for token in tokens)
    tables = Tables(abbreviations={*known})
    total = len(tokens)
    for kind, k in counts.items():
        if kind.endswith(".") and k >= settings.backoff and _candidate(kind[:-1], settings):
            a = k + counts[kind[:-1]]
            score = abbreviation_score(kind[:-1], a, periods, k, total, settings.boost)
            if score >= settings.abbreviation:
                tables.abbreviations.add(kind[:-1])
    breaks = _first_pass(tokens, tables)
    _orthography(tokens, parts, breaks, tables)
    starters, pairs = _second_pass(tokens, breaks, counts, settings, tables)
    sentences = sum(breaks)
    for kind, count in starters.items():
        whole = counts[kind] + counts[f"{kind}."]
        if count < settings.least or whole < count:
            continue
        if (
            total / sentences > whole / count
            and collocation_ratio(sentences, whole, count, total) >= settings.starter
        ):
            tables.starters.add(kind)
    for (first, second), count in pairs.items():
        a, b = (counts[kind] + counts[f"{kind}."] for kind in (first, second))
        if second in tables.starters or min(a, b) < max(count, 2) or count < settings.least:
            continue
        if total / a > b / count and collocation_ratio(a, b, count, total) >= settings.collocation:
            tables.collocations.add((first, second))
    return tables


def _tokens(text: str) -> tuple[list[Token], list[str]]:
    """The tokens, and for each whether it begins a "paragraph", a "line" or nothing ("")."""
    seen = cache(classify)
    tokens: list[Token] = []
    parts: list[str] = []
    after_blank = False
    for line in text.split("\n"):
        words = tokenize(line)
        if words:
            tokens.extend(map(seen, words))
            parts.append("paragraph" if after_blank else "line")
            parts.extend([""] * (len(words) - 1))
        after_blank = not words
    return tokens, parts


def _candidate(word: str, settings: Settings) -> bool:
    return len(word) <= settings.longest and is_abbreviation_like(word)


def _first_pass(tokens: Sequence[Token], tables: Tables) -> list[bool]:
    """Which tokens end a sentence as far as they themselves show."""
    return [
        token.mark
        or (token.period and not token.ellipsis and not (token.candidate and tables.abbreviates(token.bare)))
        for token in tokens
    ]


def _orthography(tokens: Sequence[Token], parts: Sequence[str], breaks: Sequence[bool], tables: Tables) -> None:
    """Record where each type was seen with which first letter."""
    place = "inside"
    for token, part, ends in zip(tokens, parts, breaks, strict=True):
        if part == "paragraph" and place != "unknown":
            place = "begin"
        if part and place == "inside":
            place = "unknown"
        case = "upper" if token.upper else "lower" if token.lower else ""
        if case:
            kind = token.bare if ends else token.type
            tables.orthography[kind] = tables.orthography.get(kind, 0) | _FLAG[place, case]
        if ends:
            place = "unknown" if token.number or token.initial else "begin"
        else:
            place = "unknown" if token.period or token.ellipsis else "inside"


def _second_pass(
    tokens: Sequence[Token], breaks: Sequence[bool], counts: Counter[str], settings: Settings, tables: Tables
) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Rare abbreviations (added to `tables`), and counts of possible starters and collocations."""
    starters: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for place in range(len(tokens) - 1):
        token, ends = tokens[place], breaks[place]
        if not (token.period and ends):
            continue
        following = tokens[place + 1]
        kind = following.bare if breaks[place + 1] else following.type
        if _is_rare_abbreviation(token, following, kind, counts, settings, tables):
            tables.abbreviations.add(token.bare)
        if token.number or token.initial:
            if token.word and following.word:
                pairs[token.bare, kind] += 1
        elif following.alphabetic:
            starters[following.type] += 1
    return starters, pairs


def _is_rare_abbreviation(
    token: Token, following: Token, kind: str, counts: Counter[str], settings: Settings, tables: Tables
) -> bool:
    """A type too rare to be scored, before a comma or the like, or before a word that is small only here."""
    if not token.candidate or not _candidate(token.bare, settings):
        return False
    if tables.abbreviates(token.bare) or counts[f"{token.bare}."] + counts[token.bare] >= settings.backoff:
        return False
    if following.text[0] in ",:;":
        return True
    seen = tables.orthography.get(kind, 0)
    return following.lower and bool(seen & BEGIN_UPPER) and not seen & INSIDE_UPPER
