"""The heuristics that the classifier is held against: every whole block, and the accepted answer's only one."""

from __future__ import annotations

import numpy as np

from methods.text.conala_mining import structure
from methods.text.conala_mining.pages import Page


def _where(page: Page, name: str) -> np.ndarray:
    return structure.features(page)[:, structure.NAMES.index(name)] > 0


def all_blocks(page: Page) -> np.ndarray:
    """Every candidate that is a whole block: bool [candidates]."""
    return _where(page, "whole_block")


def accept_only(page: Page) -> np.ndarray:
    """The candidate that is the whole and only block of the accepted answer; none where blocks are unknown."""
    return _where(page, "accepted_only_whole")


def has_single_accepted_block(page: Page) -> bool:
    """Whether the accepted answer has exactly one block, whether or not it is a candidate."""
    return any(block.accepted and block.alone for block in page.blocks)
