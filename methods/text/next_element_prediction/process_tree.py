"""Process trees: what a block-structured process may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Operator = Literal["sequence", "choice", "parallel", "loop", "flower"]
_SHORT = {"sequence": "seq", "choice": "xor", "parallel": "and", "loop": "loop", "flower": "flower"}


@dataclass(frozen=True)
class Tree:
    """A leaf or an operator over subtrees.

    Attributes:
        activity: of a leaf; None for a leaf that does nothing, and for operators.
        operator: None for leaves. A loop does its first part, then any number of times one of its others and the first
            again; a flower does its leaves in any order, each any number of times.
        parts: of an operator.
    """

    activity: int | None = None
    operator: Operator | None = None
    parts: tuple[Tree, ...] = ()

    def __str__(self) -> str:
        if self.operator is None:
            return "tau" if self.activity is None else str(self.activity)
        return f"{_SHORT[self.operator]}({', '.join(map(str, self.parts))})"


SILENT = Tree()


def leaf(activity: int) -> Tree:
    """The process of one activity."""
    return Tree(activity=activity)


def node(operator: Operator, *parts: Tree) -> Tree:
    """An operator over `parts`; parts of a sequence, choice or parallel of the same kind are taken up into it."""
    if operator in ("sequence", "choice", "parallel"):
        flat = [p for part in parts for p in (part.parts if part.operator == operator else (part,))]
        return flat[0] if len(flat) == 1 else Tree(operator=operator, parts=tuple(flat))
    return Tree(operator=operator, parts=parts)
