"""The works and outputs of the tasks of `tasks.py`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from methods.decoding.making_the_most.chain import Chain
from methods.decoding.making_the_most.pairs import Pair
from methods.decoding.making_the_most.search import Found


@dataclass
class ModeWork:
    """Lengths and beam widths to search with, and the language model.

    Attributes:
        lengths, beams: every pair of them is searched.
        chain: the trigram model.
        exact: log P of the exact mode of each length.
        words: the dictionary.
    """

    lengths: tuple[int, ...]
    beams: tuple[int, ...]
    chain: Chain
    exact: dict[int, float]
    words: frozenset[str]


Strings = dict[tuple[int, int], Found]
"""The string found for each length and beam width."""


@dataclass
class NeuralModeWork:
    """A causal model by its name, and what is asked of it."""

    model: str
    lengths: tuple[int, ...]
    beams: tuple[int, ...]
    prompt: str
    dtype: str


@dataclass
class Piece:
    """Bytes of one domain: to tune on and to score, uint8 each."""

    tuning: Tensor
    scored: Tensor


@dataclass
class SegmentWork:
    """A model by its name and text of three domains."""

    model: str
    dtype: str
    streams: int
    domains: dict[str, Piece]


@dataclass
class Nats:
    """Total nats and bytes scored of each domain."""

    nats: dict[str, float]
    bytes: dict[str, int]


@dataclass
class ReadingWork:
    """A model by its name, text to fine-tune on and held-out text to read."""

    model: str
    dtype: str
    training: Tensor
    held_out: Tensor
    streams: int
    steps: int
    batch: int
    span: int
    lr: float


@dataclass
class Reading:
    """What reading a text came to; see the metrics of `WindowReading`."""

    nats: float
    bytes: int
    flops_per_token: float
    training_memory: int
    inference_memory: int


@dataclass
class TranslationWork:
    """Pairs to learn from and to be tested on, and the masked language model."""

    mlm: str
    training: list[Pair]
    test: list[Pair]
    together: int
    steps: int
    batch: int
    lr: float
    longest: int


@dataclass
class Translations:
    """What was written, and what the trained model's own losses on the test pairs are."""

    texts: list[str]
    validation_loss: float
    token_accuracy: float
    length_accuracy: float
    passes: float
