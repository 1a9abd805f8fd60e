"""Heads with the structure that trained ones have, and prompts with needles, drawn from a seed.

A head's score for query i and key j is a sum of contributions, each in coordinates of its own, so that what a
query attends to is known: tokens nearby, the first tokens ("sinks"), a few columns that every query sees, one
diagonal, the tokens of its topic. With r = sqrt(d), a contribution of strength s has sqrt(s r) on the query and
the key, and s in the scaled score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.errors import RequestError
from harness.seeding import torch_generator

LEAST_DIM = 56
"""Coordinates that the contributions of a head take."""

_WAVES = 8
_TOPIC_TOKENS = 128
_TOPIC_DIMS = 20
_SINKS = 4
_NOISE = 0.35


@dataclass(frozen=True)
class Kind:
    """What a head attends to.

    Attributes:
        local: score of the query's own place; it falls to about half within ten tokens.
        sink: score of the first four keys.
        column: score of the columns for the queries that see them best; the others have 0.7 to 1 times it.
        columns: how many keys are columns, at random places.
        offset: of the diagonal that is attended to as strongly as what is near; 0: none.
        topic: score of keys whose topic is the query's.
        topics: how many there are; topics change every 128 tokens.
    """

    local: float
    sink: float
    column: float
    columns: int
    offset: int = 0
    topic: float = 0.0
    topics: int = 12


KINDS = {
    "vertical": Kind(local=5, sink=6, column=6, columns=48),
    "sharp": Kind(local=12, sink=16, column=15, columns=48),
    "slash": Kind(local=5, sink=6, column=6, columns=8, offset=700),
    "topic": Kind(local=5, sink=4, column=4, columns=8, topic=8),
}


def structured(
    kinds: Sequence[str], seed: int, group: int, length: int, head_dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """q, float32, shape (key heads * group, length, head_dim); k and v, (key heads, length, head_dim).

    Args:
        kinds: of each key head, names of `KINDS`. The query heads that share one differ in topics, in how much
            they see of the columns, and in noise.
        seed: of everything; values are N(1, 1).
        group: query heads that share a key head.

    Raises:
        RequestError: head_dim is too small.
    """
    if head_dim < LEAST_DIM:
        raise RequestError(f"structured heads need head_dim of at least {LEAST_DIM}, not {head_dim}")
    drawn = [_head(KINDS[kind], seed, place, group, length, head_dim) for place, kind in enumerate(kinds)]
    v = 1 + torch.randn(len(kinds), length, head_dim, generator=torch_generator(seed, "structured values"))
    return torch.cat([q for q, _ in drawn]), torch.stack([k for _, k in drawn]), v


def _head(kind: Kind, seed: int, place: int, group: int, n: int, d: int) -> tuple[Tensor, Tensor]:
    """q, (group, n, d), and k, (n, d), of one head."""
    generator = torch_generator(seed, "structured head", place)
    r = math.sqrt(d)
    q = _NOISE * torch.randn(group, n, d, generator=generator)
    k = _NOISE * torch.randn(n, d, generator=generator)

    waves = _waves(torch.arange(n), kind.local * r)
    q[..., :16] += waves
    k[:, :16] += waves
    q[..., 32] += math.sqrt(kind.sink * r)
    k[:_SINKS, 32] += math.sqrt(kind.sink * r)
    q[..., 33] += math.sqrt(kind.column * r) * (0.7 + 0.3 * torch.rand(group, n, generator=generator))
    columns = torch.randperm(n, generator=generator)[: kind.columns]
    k[columns, 33] += math.sqrt(kind.column * r)
    if kind.offset:
        q[..., 16:32] += _waves(torch.arange(n) - kind.offset, kind.local * r)
        k[:, 16:32] += waves
    if kind.topic:
        topics = torch.randn(kind.topics, _TOPIC_DIMS, generator=generator)
        topics *= math.sqrt(kind.topic * r) / topics.norm(dim=-1, keepdim=True)
        segment = torch.arange(n) // _TOPIC_TOKENS
        shape = (group + 1, -(-n // _TOPIC_TOKENS))
        which = torch.randint(kind.topics, shape, generator=generator)
        q[..., 36:LEAST_DIM] += topics[which[:group, segment]]
        k[:, 36:LEAST_DIM] += topics[which[group, segment]]
    return q, k


def _waves(places: Tensor, strength: float) -> Tensor:
    """Coordinates, (n, 16), whose products fall with the distance of two places and are `strength` at 0."""
    lengths = 4.0 * 2.0 ** torch.arange(_WAVES, dtype=torch.float64)
    angles = places.double()[:, None] * (2 * math.pi / lengths)
    return (math.sqrt(strength / _WAVES) * torch.cat([angles.cos(), angles.sin()], -1)).float()


# --- needles ------------------------------------------------------------------------------------------

WORDS = 2000
NEEDLE_DIM = 64
_CODE = slice(24, 64)
_SINK = 16
_MATCH = 28.0
_OTHER = 0.2
_NEEDLE_SINK = 12.0
_NEEDLE_LOCAL = 8.0


@dataclass(frozen=True)
class Haystack:
    """Prompts in which some queries ask for a word that stands at one place.

    Attributes:
        q, k, v: shape (heads, n, 64).
        asking: rows that ask, int64, shape (heads, rows).
        answers: the word that each should find, int64, shape (heads, rows).
        codebook: value of each word, unit vectors, shape (2000, 64).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    asking: Tensor
    answers: Tensor
    codebook: Tensor


def haystack(seed: int, heads: int, length: int, needles: int, repeat: int, *, middle: bool) -> Haystack:
    """Prompts of random words, each head with its own.

    Each token's key holds the code of its word, a unit vector of 40 dimensions; a query that asks for a word
    scores 28 on that word's key, 12 on the first four keys and 8 on its own place. Other queries hold the code of
    a random word at a fifth of the size.

    Args:
        needles: words that are asked for; each stands at one place, between n / 32 and 7 n / 8 and at least n / 16
            before the first row that asks.
        repeat: consecutive rows that ask for the same word.
        middle: whether the asking rows end at 3 n / 4, so that the last rows ask for nothing; else at the end.

    Raises:
        RequestError: there is no room for the needles.
    """
    end = 3 * length // 4 if middle else length
    rows = torch.arange(end - needles * repeat, end)
    first, last = length // 32, min(7 * length // 8, end - needles * repeat - length // 16)
    if last - first < needles or needles >= WORDS:
        raise RequestError(
            f"{needles} needles asked for in {repeat} rows each do not fit into a prompt of {length} tokens"
        )
    r = math.sqrt(NEEDLE_DIM)
    generator = torch_generator(seed, "haystack")

    def units(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=generator)
        return x / x.norm(dim=-1, keepdim=True)

    codes, codebook = units(heads, WORDS, 40), units(WORDS, NEEDLE_DIM)
    # The last `needles` words of a random order are the needles' and stand nowhere else.
    order = torch.stack([torch.randperm(WORDS, generator=generator) for _ in range(heads)])
    common = torch.randint(WORDS - needles, (2, heads, length), generator=generator)
    words, mentioned = (order.gather(1, x) for x in common)
    asked = order[:, WORDS - needles :]
    places = torch.stack(
        [first + torch.randperm(last - first, generator=generator)[:needles] for _ in range(heads)]
    )
    words.scatter_(1, places, asked)
    answers = asked.repeat_interleave(repeat, 1)

    strength = torch.full((heads, length, 1), _OTHER)
    strength[:, rows] = 1.0
    mentioned[:, rows] = answers
    q, k = torch.zeros(2, heads, length, NEEDLE_DIM)
    waves = _waves(torch.arange(length), _NEEDLE_LOCAL * r)
    for x in (q, k):
        x[..., :16] = waves
    q[..., _SINK] = math.sqrt(_NEEDLE_SINK * r)
    k[:, :_SINKS, _SINK] = math.sqrt(_NEEDLE_SINK * r)
    size = math.sqrt(_MATCH * r)
    head = torch.arange(heads)[:, None]
    q[..., _CODE] = size * strength * codes[head, mentioned]
    k[..., _CODE] = size * codes[head, words]
    return Haystack(q, k, codebook[words], rows.expand(heads, -1), answers, codebook)
