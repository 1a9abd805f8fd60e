"""From a model's windows to probabilities of a sentence end behind each token, and from those to sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.text.segment_any_text.subwords import Pieces, Tokenizer
from methods.text.sentence_views import Scored

Weighting = Literal["uniform", "hat"]
"""How overlapping windows count: all alike, or less towards their ends, 1 - |x| for x from -1 to 1."""

Score = Callable[[Tensor, Tensor], Tensor]
"""Logits (rows, n, labels) of ids int64 (rows, n) and mask bool (rows, n)."""


@dataclass(frozen=True)
class Inference:
    """How a text of any length goes through a model.

    Attributes:
        window: tokens of a window, special tokens counted.
        stride: tokens from the start of one window to that of the next, at most what a window holds.
        weighting: see `Weighting`.
        batch: windows at a time.
        special: whether a window begins and ends with a special token.
        multiple: the length of a batch is filled up to a multiple of this.
    """

    window: int = 512
    stride: int = 64
    weighting: Weighting = "uniform"
    batch: int = 32
    special: bool = True
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.room < 1:
            raise ValueError(f"a window of {self.window} tokens has no room for text")
        if not 1 <= self.stride <= self.room:
            raise ValueError(
                f"a stride of {self.stride} leaves tokens out: a window holds {self.room} tokens of text"
            )

    @property
    def room(self) -> int:
        """Tokens of text in a window."""
        return self.window - 2 * self.special


def starts(n: int, room: int, stride: int) -> list[int]:
    """Where the windows over `n` tokens begin; the last one begins early enough to be full."""
    if n <= room:
        return [0]
    return [*range(0, n - room, stride), n - room]


def weights(n: int, weighting: Weighting) -> NDArray[np.float64]:
    """Weights of the `n` places of a window; all are positive."""
    if weighting == "uniform":
        return np.ones(n)
    edge = 1 - 1 / n
    return 1 - np.abs(np.linspace(-edge, edge, n))


@torch.inference_mode()
def stitch(
    score: Score, tokenizer: Tokenizer, texts: Sequence[Pieces], how: Inference, device: str = "cpu"
) -> list[NDArray[np.float64]]:
    """The logit of a line end behind each token: weighted means over the windows that the token is in."""
    places = [
        (t, s) for t, p in enumerate(texts) if len(p.ids) for s in starts(len(p.ids), how.room, how.stride)
    ]
    sizes = [min(how.room, len(texts[t].ids)) for t, _ in places]
    # Windows of like lengths go together, so that little is filled up.
    order = sorted(range(len(places)), key=lambda i: sizes[i])
    total = [np.zeros(len(p.ids)) for p in texts]
    weight = [np.zeros(len(p.ids)) for p in texts]
    for first in range(0, len(order), how.batch):
        members = order[first : first + how.batch]
        longest = max(sizes[i] for i in members) + 2 * how.special
        longest = -(-longest // how.multiple) * how.multiple
        ids = np.full((len(members), longest), tokenizer.pad, dtype=np.int64)
        mask = np.zeros((len(members), longest), dtype=bool)
        for row, i in enumerate(members):
            (t, s), n = places[i], sizes[i]
            ids[row, how.special : n + how.special] = texts[t].ids[s : s + n]
            if how.special:
                ids[row, 0], ids[row, n + 1] = tokenizer.cls, tokenizer.sep
            mask[row, : n + 2 * how.special] = True
        found = score(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))
        logits = found[:, :, 0].double().cpu().numpy()
        for row, i in enumerate(members):
            (t, s), n = places[i], sizes[i]
            w = weights(n, how.weighting)
            total[t][s : s + n] += w * logits[row, how.special : n + how.special]
            weight[t][s : s + n] += w
    return [a / b for a, b in zip(total, weight, strict=True)]


def probabilities(
    score: Score,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    how: Inference,
    device: str = "cpu",
) -> list[Scored]:
    """For each text the ends of its tokens and the probability that a sentence ends there."""
    pieces = tokenizer.encode(texts)
    logits = stitch(score, tokenizer, pieces, how, device)
    with np.errstate(over="ignore"):
        return [Scored(p.ends, 1 / (1 + np.exp(-x))) for p, x in zip(pieces, logits, strict=True)]


def split(text: str, scored: Scored, threshold: float, *, at_line_ends: bool = False) -> list[tuple[int, int]]:
    """The sentences of `text`: contiguous spans that end where the probability is above `threshold`.

    White space between two sentences belongs to the first. With `at_line_ends` a line end ends a sentence, too.
    """
    ends = {_past_space(text, int(e)) for e in scored.ends[scored.probabilities > threshold] if e > 0}
    if at_line_ends:
        ends |= {_past_space(text, i + 1) for i, c in enumerate(text) if c == "\n"}
    return list(pairwise(sorted({0, *ends, len(text)})))


def paragraphs(
    text: str, scored: Scored, threshold: float, paragraph_threshold: float = 0.5
) -> list[list[tuple[int, int]]]:
    """The sentences of each paragraph; a paragraph ends where the probability is above its own threshold."""
    edges = {end for _, end in split(text, scored, paragraph_threshold)}
    found: list[list[tuple[int, int]]] = [[]]
    for start, end in split(text, scored, min(threshold, paragraph_threshold)):
        found[-1].append((start, end))
        if end in edges:
            found.append([])
    return [paragraph for paragraph in found if paragraph]


def _past_space(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place
