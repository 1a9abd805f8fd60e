"""What the search for optimizer programs is compared with."""

from __future__ import annotations

import numpy as np

from harness.method import Metric, method
from harness.types import PositiveFloat
from methods.training.lion.evolution import Scores, random_search
from methods.training.lion.mutation import Mutator
from methods.training.lion.search import ProgramSearch


@method(
    "program-random-search",
    task="optimizer-program-search",
    metrics=(
        Metric("trained", "programs", "lower", "Different programs that were trained on the cheap proxy."),
        Metric("cached_share", doc="Share of the scores that the functional hash saved."),
        Metric(
            "rejected_share", better="neither", doc="Share of mutants that were invalid or computed the same."
        ),
    ),
)
class ProgramRandomSearch(ProgramSearch):
    """Random chains of mutations of AdamW without selection; validated and simplified as in evolution."""

    depth: PositiveFloat = 4.0
    """Mean number of mutations between AdamW and a candidate; at least 1."""

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"a candidate is at least one mutation away from AdamW, not {self.depth}")

    def candidates_of(self, scores: Scores, mutate: Mutator, random: np.random.Generator) -> None:
        """Score independent candidates."""
        random_search(self.work.start, scores, mutate, random, candidates=self.candidates, depth=self.depth)
