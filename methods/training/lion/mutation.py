"""Random changes of a program: insert, delete or modify a statement, with equal weights (paper, section 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from methods.training.lion.operations import OPERATIONS
from methods.training.lion.programs import (
    INPUTS,
    OUTPUTS,
    Argument,
    Program,
    Statement,
    functional_hash,
    is_valid,
)

NAMES = tuple(OPERATIONS)
CONSTANT_SHARE = 0.3
"""How often a drawn argument is a constant; otherwise it is a variable."""


@dataclass
class Mutator:
    """Draws mutations.

    Attributes:
        random: where all draws come from.
        longest: programs with more statements are not made.
        rejected: how many drawn mutants were invalid or computed the same as their parent.
        drawn: how many mutants were drawn.
    """

    random: np.random.Generator
    longest: int
    rejected: int = 0
    drawn: int = 0

    def __call__(self, parent: Program, parent_hash: str) -> tuple[Program, str]:
        """A valid program that computes something else than `parent`, and its hash.

        Mutations that are invalid or without effect are replaced by new ones, again from the parent.
        """
        while True:
            self.drawn += 1
            child = self._mutate(parent)
            if child is not None and is_valid(child):
                child_hash = functional_hash(child)
                if child_hash != parent_hash:
                    return child, child_hash
            self.rejected += 1

    def _mutate(self, program: Program) -> Program | None:
        change = (self._insert, self._delete, self._modify)[self.random.integers(3)]
        statements = change(list(program.statements))
        return Program(tuple(statements)) if statements is not None else None

    def _insert(self, statements: list[Statement]) -> list[Statement] | None:
        if len(statements) >= self.longest:
            return None
        place = int(self.random.integers(len(statements) + 1))
        op = NAMES[self.random.integers(len(NAMES))]
        known = _known(statements[:place])
        args = tuple(self._argument(known) for _ in range(OPERATIONS[op].arity))
        # Any variable of the program may be set, or a new one.
        targets = [*sorted({s.target for s in statements} | set(OUTPUTS)), _fresh(statements)]
        target = targets[self.random.integers(len(targets))]
        return [*statements[:place], Statement(target, op, args), *statements[place:]]

    def _delete(self, statements: list[Statement]) -> list[Statement] | None:
        if not statements:
            return None
        place = int(self.random.integers(len(statements)))
        return statements[:place] + statements[place + 1 :]

    def _modify(self, statements: list[Statement]) -> list[Statement] | None:
        if not statements:
            return None
        place = int(self.random.integers(len(statements)))
        old = statements[place]
        which = int(self.random.integers(len(old.args)))
        args = list(old.args)
        if isinstance(args[which], float) and self.random.random() < 0.5:
            args[which] = float(args[which] * 2.0 ** self.random.standard_normal())
        else:
            args[which] = self._argument(_known(statements[:place]))
        return [*statements[:place], Statement(old.target, old.op, tuple(args)), *statements[place + 1 :]]

    def _argument(self, known: list[str]) -> Argument:
        if self.random.random() < CONSTANT_SHARE:
            return float(self.random.standard_normal())
        return known[self.random.integers(len(known))]


def _known(before: list[Statement]) -> list[str]:
    """The variables that are set before a place, inputs included."""
    return sorted({*INPUTS, *(statement.target for statement in before)})


def _fresh(statements: list[Statement]) -> str:
    """A name that no statement sets."""
    taken = {statement.target for statement in statements}
    return next(name for i in range(len(statements) + 1) if (name := f"t{i}") not in taken)
