"""The trie of approximate expected futures (ASAp)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from methods.decoding.language_models import FloatArray, IntArray
from methods.decoding.sampling import Node, PrefixTree, TokenString, Walk, log_sum

Observer = Callable[[TokenString, float], None]
"""Told of every new value of c~: the prefix and c~(prefix)."""


class FutureNode(Node):
    """A prefix u with c~ of the prefixes one token longer.

    Attributes:
        log_c: log c~(u v) for the admitted tokens v: float64, shape (admitted,). Zero, certainty, until the prefix
            u v has been visited; always zero for the end of sequence.
    """

    __slots__ = ("log_c",)

    def __init__(self, tokens: IntArray, log_p: FloatArray, log_c: FloatArray) -> None:
        super().__init__(tokens, log_p)
        self.log_c = log_c

    @property
    def log_weights(self) -> FloatArray:
        """log P(v | u) c~(u v): ASAp draws the next token in proportion to its exponential."""
        weights: FloatArray = self.log_p + self.log_c
        return weights

    @property
    def log_future(self) -> float:
        """log c~(u) = log sum_v P(v | u) c~(u v), over what the grammar admits."""
        return log_sum(self.log_weights)


class Trie(PrefixTree):
    """Prefixes with over-approximations c~ of their expected futures c.

    One trie belongs to one model, prompt, grammar and temperature.

    Args:
        futures: c of every prefix and 1 for whole strings, to start from instead of 1; what it lacks starts at 0.
        observer: told of every new value of c~.
    """

    root: FutureNode | None

    def __init__(
        self, futures: Mapping[TokenString, float] | None = None, observer: Observer | None = None
    ) -> None:
        super().__init__()
        self.futures, self.observer = futures, observer
        self.log_c_root = 0.0

    def make(self, walk: Walk, tokens: IntArray, log_p: FloatArray) -> FutureNode:
        """A node whose continuations all have c~ = 1, or the preset c."""
        if self.futures is None:
            return FutureNode(tokens, log_p, np.zeros(len(tokens)))
        before = walk.string
        c = [self.futures.get((*before, token), 0.0) for token in tokens.tolist()]
        with np.errstate(divide="ignore"):
            return FutureNode(tokens, log_p, np.log(np.array(c)))

    def update(self, walk: Walk) -> None:
        """c~(u) = sum_v P(v | u) c~(u v) for the prefixes of a walk, the longest first.

        Values change only above the place where the walk ended, so it does not matter whether this happens at every
        new prefix or once at the end of the sample.
        """
        for depth in range(len(walk.nodes) - 1, -1, -1):
            node = walk.nodes[depth]
            assert isinstance(node, FutureNode)
            log_c = node.log_future
            if depth == 0:
                self.log_c_root = log_c
            else:
                parent = walk.nodes[depth - 1]
                assert isinstance(parent, FutureNode)
                parent.log_c[walk.positions[depth - 1]] = log_c
            if self.observer is not None:
                self.observer(walk.string[:depth], float(np.exp(log_c)))

    def __len__(self) -> int:
        """Visited prefixes."""
        return 0 if self.root is None else sum(1 for _ in self.root)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays: 16 for each admitted token of each visited prefix, and 8 for its id.

        Prefixes after which the grammar admits the same tokens share the array of ids, which counts once.
        """
        nodes = [node for node in self.root or () if isinstance(node, FutureNode)]
        ids = {id(node.tokens): node.tokens.nbytes for node in nodes}
        return sum(ids.values()) + sum(node.log_p.nbytes + node.log_c.nbytes for node in nodes)

    def save(self, path: Path) -> None:
        """Write the trie to a NumPy archive."""
        nodes: list[FutureNode] = [] if self.root is None else [self.root]
        parents, positions = [-1] * len(nodes), [-1] * len(nodes)
        for place, node in enumerate(nodes):  # grows while it is read: breadth first
            for position, child in node.children.items():
                assert isinstance(child, FutureNode)
                nodes.append(child)
                parents.append(place)
                positions.append(position)
        empty = [np.empty(0)]
        with open(path, "wb") as file:
            np.savez(
                file,
                parents=np.array(parents, np.int64),
                positions=np.array(positions, np.int64),
                sizes=np.array([len(node.tokens) for node in nodes], np.int64),
                tokens=np.concatenate([node.tokens for node in nodes] or empty).astype(np.int64),
                log_p=np.concatenate([node.log_p for node in nodes] or empty),
                log_c=np.concatenate([node.log_c for node in nodes] or empty),
                log_c_root=np.array(self.log_c_root),
            )

    @classmethod
    def load(cls, path: Path) -> Trie:
        """The trie that `save` wrote."""
        trie = cls()
        nodes: list[FutureNode] = []
        with np.load(path, allow_pickle=False) as arrays:
            ends = np.cumsum(arrays["sizes"])
            tokens, log_p, log_c = arrays["tokens"], arrays["log_p"], arrays["log_c"]
            for start, end in zip(ends - arrays["sizes"], ends, strict=True):
                nodes.append(FutureNode(tokens[start:end], log_p[start:end], log_c[start:end].copy()))
            for node, parent, position in zip(nodes, arrays["parents"], arrays["positions"], strict=True):
                if parent < 0:
                    trie.root = node
                else:
                    nodes[parent].children[int(position)] = node
            trie.log_c_root = float(arrays["log_c_root"])
        return trie
