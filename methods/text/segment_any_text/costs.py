"""The work of a token model and of a character model, per character of text.

The unit is a block equivalent: the 24 d^2 operations that the matrices of one transformer block spend on one position
of width d. Attention adds 4 n d for a position that attends to n others.
"""

from __future__ import annotations

CHARACTERS_PER_TOKEN = 4.07
"""Characters of a subword of XLM-R on the test part of UD English-EWT."""


def token_blocks(layers: int, characters_per_token: float = CHARACTERS_PER_TOKEN) -> float:
    """Block equivalents per character of a model on subwords."""
    return layers / characters_per_token


def character_blocks(layers: int, downsampling: int = 4, convolutions: float = 0.8) -> float:
    """Block equivalents per character of CANINE: a block at either end on characters, the deep ones on every fourth.

    Args:
        layers: deep blocks.
        downsampling: characters of a deep position.
        convolutions: of the way down and up; 2 d^2 + 16 d^2 operations are 0.75 block equivalents.
    """
    return 2 + layers / downsampling + convolutions


def ratio(layers: int) -> float:
    """How many times the work of a token model a character model of as many layers does on the same text."""
    return character_blocks(layers) / token_blocks(layers)


def token_flops(layers: int, hidden: int, n: float, characters_per_token: float) -> float:
    """Operations per character of a model on subwords whose tokens attend to `n` tokens."""
    return layers * (24 * hidden**2 + 4 * n * hidden) / characters_per_token


def character_flops(layers: int, hidden: int, n: float, local: int = 128, downsampling: int = 4) -> float:
    """Operations per character of CANINE in windows of `n` characters.

    The first block attends within `local` characters, the last one to all of the window, the deep ones to n / 4 places.
    """
    ends = 2 * 24 * hidden**2 + 4 * local * hidden + 4 * n * hidden
    deep = layers * (24 * hidden**2 + 4 * (n / downsampling) * hidden) / downsampling
    return ends + deep + 18 * hidden**2
