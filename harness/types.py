"""Constrained numbers for the parameters of tasks and methods.

A parameter's annotation is checked before anything runs, so ``block: PositiveInt`` turns a suite's
``block: -1`` into one clear error instead of a crash in the middle of a run.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le

PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
"""A number in [0, 1]."""
