"""Text of a domain for part C: a piece to tune on and another one to score."""

from __future__ import annotations

import numpy as np

from harness.errors import RequestError
from methods.common.corpora import corpus
from methods.decoding.making_the_most.work import Piece


def piece_of(text: str, first: int, tuning: int, scored: int, random: np.random.Generator) -> Piece:
    """A piece to tune on from the first half of a text and one to score from the second, at random places.

    Args:
        text: a named text (`methods.common.corpora.corpus`).
        first: bytes at its beginning that are left out.
        tuning: bytes to tune on.
        scored: bytes to score.
        random: the stream of the places.

    Raises:
        MissingData: the text is not here.
        RequestError: the text is too short.
    """
    part = corpus(text)[first:]
    half = len(part) // 2
    if max(tuning, scored) > half:
        raise RequestError(f"'{text}' has {len(part)} bytes: {tuning} and {scored} do not fit into its halves")
    a, b = random.integers([half - tuning + 1, half - scored + 1]).tolist()
    return Piece(part[a : a + tuning], part[half + b : half + b + scored])
