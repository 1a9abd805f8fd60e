"""Tasks that train a sparse transformer: recall of pairs far back, and long text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.errors import BadOutput, RequestError
from harness.method import Metric, Task, task
from harness.seeding import torch_generator
from harness.types import Fraction, PositiveInt
from methods.common.corpora import corpus, split, windows

KEYS, VALUES, VOCABULARY = 64, 64, 256
"""Tokens 0..63 are keys, 64..127 values, the rest is filler."""

_APART = 65
"""Slots of two tokens between the two places of a pair, at least: more than 128 tokens."""


@dataclass(frozen=True)
class Recall:
    """Sequences in which every pair of a key and its value stands twice.

    Attributes:
        tokens: int64, shape (sequences, n).
        answers: positions of the second values, int64, shape (sequences, pairs).
    """

    tokens: Tensor
    answers: Tensor


@task(
    "associative-recall",
    metrics=[Metric("accuracy", doc="Share of second values that are predicted from all tokens before them.")],
    repeats="once",
    amount_unit="sequences",
)
class AssociativeRecall(Task[Recall, Tensor]):
    """Train on sequences of fillers with pairs of a key and its value at random places, each twice, over 128 tokens
    apart; predict the value when the key comes again. Each sequence draws the values of its keys anew."""

    length: PositiveInt = 512
    """n, tokens of a sequence; at least 2 (2 pairs + 65)."""
    pairs: PositiveInt = 24
    """Different keys of a sequence, at most 64."""
    test_sequences: PositiveInt = 64
    """Sequences to answer."""

    def load(self, seed: int) -> Recall:
        return self.draw(torch_generator(seed, "test sequences"), self.test_sequences)

    def draw(self, generator: torch.Generator, count: int) -> Recall:
        """`count` random sequences, for training."""
        slots, pairs = self.length // 2, self.pairs
        if pairs > KEYS or slots < 2 * pairs + _APART:
            raise RequestError(
                f"{pairs} pairs need a length of {2 * (2 * pairs + _APART)} and at most {KEYS} keys, not "
                f"{self.length} tokens"
            )
        # First places are among the slots before a random cut, second places at least 65 slots further on.
        cut = torch.randint(pairs, slots - _APART - pairs + 2, (count, 1), generator=generator)
        slot = torch.arange(slots)

        def places(allowed: Tensor) -> Tensor:
            order = torch.rand(count, slots, generator=generator).masked_fill(~allowed, -1.0)
            return order.topk(pairs, dim=-1).indices

        first, second = places(slot < cut), places(slot >= cut + _APART - 1)
        keys = torch.rand(count, KEYS, generator=generator).argsort(-1)[:, :pairs]
        values = KEYS + torch.randint(VALUES, (count, pairs), generator=generator)
        tokens = torch.randint(KEYS + VALUES, VOCABULARY, (count, self.length), generator=generator)
        for place in (first, second):
            tokens.scatter_(1, 2 * place, keys).scatter_(1, 2 * place + 1, values)
        return Recall(tokens, 2 * second + 1)

    def amount(self, work: Recall) -> float:
        return float(len(work.tokens))

    def score(self, work: Recall, output: Tensor) -> dict[str, float]:
        """`output`: log-probabilities of tokens 1..n-1, (sequences, n - 1, vocabulary)."""
        expected = (len(work.tokens), self.length - 1, VOCABULARY)
        if tuple(output.shape) != expected:
            raise BadOutput(f"the log-probabilities have shape {tuple(output.shape)}, not {expected}")
        guess = output.argmax(-1).cpu().gather(1, work.answers - 1)
        return {"accuracy": float((guess == work.tokens.gather(1, work.answers)).double().mean())}


CORPORA = {
    "middlemarch": ("gutenberg-novels/middlemarch.txt.gz",),
    "novels": (
        "gutenberg-novels/middlemarch.txt.gz",
        "gutenberg-novels/moby-dick.txt.gz",
        "gutenberg-novels/war-and-peace.txt.gz",
        "gutenberg-novels/tinyshakespeare.txt.gz",
    ),
}


@dataclass(frozen=True)
class Books:
    """Bytes to train on, uint8, (bytes,), and windows to predict, int64, (windows, n + 1)."""

    train: Tensor
    test: Tensor


@task(
    "long-text-training",
    metrics=[
        Metric("bits_per_byte", "bits/byte", "lower", "Mean -log2 p of the bytes of held-out windows."),
        Metric("word_perplexity", better="lower", doc="exp of the nats of a window over its words."),
    ],
    repeats="once",
    amount_unit="tokens",
    data=("gutenberg-novels", "wikitext-103"),
)
class LongTextTraining(Task[Books, Tensor]):
    """Train a byte-level model on long windows of books and predict windows of what was held out."""

    corpus: Literal["middlemarch", "novels", "wikitext-103"] = "middlemarch"
    """A novel; three novels and Shakespeare; or WikiText-103, whose test part is then what is predicted (files
    `wiki.train.tokens` and `wiki.test.tokens` of the data set wikitext-103)."""
    length: PositiveInt = 1024
    """n, bytes of a window."""
    held_out: Fraction = 0.1
    """Share at the end of each book that training never sees; WikiText-103 has a part for it."""
    test_windows: PositiveInt = 32
    """Windows to predict, at random places."""

    def load(self, seed: int) -> Books:
        if self.corpus == "wikitext-103":
            train, held = (corpus(f"wikitext-103/wiki.{part}.tokens") for part in ("train", "test"))
        else:
            parts = [split(corpus(name), self.held_out) for name in CORPORA[self.corpus]]
            train, held = (torch.cat(side) for side in zip(*parts, strict=True))
        draws = torch_generator(seed, "test windows")
        return Books(train, windows(held, self.test_windows, self.length + 1, draws))

    def draw(self, work: Books, generator: torch.Generator, count: int) -> Tensor:
        """`count` windows to train on, int64, (count, n + 1)."""
        return windows(work.train, count, self.length + 1, generator)

    def amount(self, work: Books) -> float:
        return float(work.test[:, 1:].numel())

    def score(self, work: Books, output: Tensor) -> dict[str, float]:
        """`output`: log-probabilities of bytes 1..n of each window, in nats, (windows, n, 256)."""
        expected = (self.test_windows, self.length, 256)
        if tuple(output.shape) != expected:
            raise BadOutput(f"the log-probabilities have shape {tuple(output.shape)}, not {expected}")
        targets = work.test[:, 1:].to(output.device)
        nats = -float(output.gather(-1, targets[..., None]).double().sum())
        # A word is what white space ends; a line feed counts as a word of its own, as WikiText counts it.
        text = work.test
        space = (text == 32) | (text == 10)
        ends = (space[:, 1:] & ~space[:, :-1]).sum() + (text[:, 1:] == 10).sum()
        return {
            "bits_per_byte": nats / math.log(2) / targets.numel(),
            "word_perplexity": math.exp(min(700.0, nats / max(1, int(ends)))),
        }
