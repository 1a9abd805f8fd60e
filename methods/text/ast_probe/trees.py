"""Syntax trees, their tuples (d, c, u), and how much of one tree another has.

A tree's leaves are the tokens of a snippet, in order. Its tuple comes from its binary form: (1) a node with one
non-terminal child is merged with it, labels joined; (2) a node with more than two children becomes a chain, the first
child left and a node labelled `EMPTY` with the others right; (3) a chain of non-terminals that ends in a single
token becomes
the unary label of that token. Of the token pairs (i - 1, i), d has the height of their lowest common ancestor and c its
label; u has the unary labels of the tokens. Only the order of d matters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

EMPTY = "<empty>"
SEPARATOR = "+"


@dataclass(frozen=True)
class Node:
    """A non-terminal: a label and its children, from left to right; a child that is a number is that token."""

    label: str
    children: tuple[Node | int, ...]


Tree = Node | int


@dataclass(frozen=True)
class TreeTuple:
    """A tree as a tuple.

    Attributes:
        d: heights, or any numbers in the same order; one less than there are tokens.
        c: labels of the lowest common ancestors, as many.
        u: unary labels of the tokens.
    """

    d: tuple[float, ...]
    c: tuple[str, ...]
    u: tuple[str, ...]


def check_label(label: str) -> str:
    """`label`. Raises `ValueError` where it cannot be told from a joined or an empty one."""
    if not label or label == EMPTY or SEPARATOR in label:
        raise ValueError(f"a label of a tree is not empty, not '{EMPTY}', and has no '{SEPARATOR}': '{label}'")
    return label


def to_tuple(tree: Tree) -> TreeTuple:
    """The tuple of a tree whose leaves are the tokens 0, 1, 2, ...

    Raises:
        ValueError: a node has no children, or a label cannot be joined.
    """
    _, d, c, u = _encode(tree)
    return TreeTuple(tuple(d), tuple(c), tuple(u))


def _encode(tree: Tree) -> tuple[int, list[float], list[str], list[str]]:
    labels: list[str] = []
    while isinstance(tree, Node):
        labels.append(check_label(tree.label))
        if len(tree.children) != 1:
            break
        tree = tree.children[0]
    label = SEPARATOR.join(labels) or EMPTY
    if not isinstance(tree, Node):
        return 0, [], [], [label]
    if not tree.children:
        raise ValueError(f"the node '{tree.label}' has no children")
    return _chain([_encode(child) for child in tree.children], label)


def _chain(
    parts: list[tuple[int, list[float], list[str], list[str]]], label: str
) -> tuple[int, list[float], list[str], list[str]]:
    """Parts side by side under `label`: the first left, the others right, under `EMPTY` where there are several."""
    height, d, c, u = parts[-1]
    for place in range(len(parts) - 2, -1, -1):
        left_height, left_d, left_c, left_u = parts[place]
        height = max(left_height, height) + 1
        d = [*left_d, height, *d]
        c = [*left_c, label if place == 0 else EMPTY, *c]
        u = [*left_u, *u]
    return height, d, c, u


def from_tuple(encoded: TreeTuple) -> tuple[Tree, ...]:
    """The tree of a tuple, without its `EMPTY` nodes, whose children move up.

    It is split where d is largest, at the first of equals. Of a predicted tuple whose root is `EMPTY`, several trees
    stand side by side.

    Raises:
        ValueError: d, c and u do not fit together.
    """
    d, c, u = encoded.d, encoded.c, encoded.u
    if not len(d) == len(c) == len(u) - 1:
        raise ValueError(f"a tuple of {len(u)} tokens has {len(d)} heights and {len(c)} labels")

    def under(label: str, children: Sequence[Tree]) -> list[Tree]:
        if label == EMPTY:
            return list(children)
        for name in reversed(label.split(SEPARATOR)):
            children = [Node(name, tuple(children))]
        return list(children)

    def build(low: int, high: int) -> list[Tree]:
        if low == high:
            return under(u[low], [low])
        at = max(range(low, high), key=lambda place: (d[place], -place))
        return under(c[at], [*build(low, at), *build(at + 1, high)])

    return tuple(build(0, len(u) - 1))


Constituent = tuple[str, int, int]


def constituents(trees: Sequence[Tree]) -> Counter[Constituent]:
    """(label, first token, last token) of every non-terminal, and how often each occurs."""
    found: Counter[Constituent] = Counter()

    def visit(tree: Tree) -> tuple[int, int]:
        if not isinstance(tree, Node):
            return tree, tree
        spans = [visit(child) for child in tree.children]
        span = spans[0][0], spans[-1][1]
        found[tree.label, *span] += 1
        return span

    for tree in trees:
        visit(tree)
    return found


def overlap(gold: Counter[Constituent], predicted: Counter[Constituent]) -> tuple[float, float, float]:
    """Precision, recall and F1 of constituents as multisets; 0 where there is nothing to find or nothing found."""
    hits = (gold & predicted).total()
    return _rates(hits, hits, gold.total(), predicted.total())


def membership(gold: Counter[Constituent], predicted: Counter[Constituent]) -> tuple[float, float, float]:
    """The same as the authors' code counts: a constituent that occurs twice is right twice if the other side
    has it once."""
    right = sum(count for each, count in predicted.items() if each in gold)
    found = sum(count for each, count in gold.items() if each in predicted)
    return _rates(right, found, gold.total(), predicted.total())


def _rates(right: int, found: int, gold: int, predicted: int) -> tuple[float, float, float]:
    precision, recall = right / predicted if predicted else 0.0, found / gold if gold else 0.0
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else 0.0


def to_plain(tree: Tree) -> Any:
    """A tree as lists, for JSON: a token is a number, a node is [label, child, ...]."""
    return [tree.label, *map(to_plain, tree.children)] if isinstance(tree, Node) else tree


def from_plain(plain: Any) -> Tree:
    """The tree of `to_plain`."""
    if isinstance(plain, list):
        return Node(plain[0], tuple(from_plain(child) for child in plain[1:]))
    return int(plain)
