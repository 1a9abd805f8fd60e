"""Functions of Python sources as tokens and trees, by the standard library's own `ast` and `tokenize`."""

from __future__ import annotations

import ast
import io
import tokenize
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from methods.text.ast_probe.trees import Node, Tree

Place = tuple[int, int]
"""Line, from 1, and column in characters, from 0."""
_SILENT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
    tokenize.ENDMARKER,
}  # fmt: skip
_BODIES = ("body", "orelse", "finalbody")
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Snippet:
    """A piece of code: its tokens, and the tree over them."""

    tokens: tuple[str, ...]
    tree: Tree


@dataclass(frozen=True)
class _Token:
    text: str
    start: Place
    end: Place


def functions(source: str) -> Iterator[Snippet]:
    """The functions and methods of a source that are not inside other functions, from the top down.

    Decorators, comments and docstrings are left out; a string literal is one token. Every `ast` object that has a
    position is
    a node, but for names and constants; so are `block`, for every list of statements, and `arguments`. A function is
    dropped if nothing but its docstring is in it, or if the spans of its nodes are not strictly nested.

    Raises:
        SyntaxError, ValueError: `source` is not Python.
    """
    parsed = ast.parse(source)
    tokens = _tokens(source)
    lines = source.splitlines(keepends=True)
    for function in _outermost(parsed):
        if (snippet := _snippet(function, tokens, lines)) is not None:
            yield snippet


def _outermost(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        elif isinstance(child, ast.stmt | ast.ExceptHandler):
            yield from _outermost(child)


def _tokens(source: str) -> list[_Token]:
    """Tokens with a meaning. From Python 3.12 on an f-string is several tokens, which are put together again."""
    opening, closing = getattr(tokenize, "FSTRING_START", -1), getattr(tokenize, "FSTRING_END", -1)
    found: list[_Token] = []
    lines = source.splitlines(keepends=True)
    depth, began = 0, (0, 0)
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == opening:
                began = began if depth else token.start
                depth += 1
            elif token.type == closing:
                depth -= 1
                if not depth:
                    found.append(_Token(_between(lines, began, token.end), began, token.end))
            elif not depth and token.type not in _SILENT:
                found.append(_Token(token.string, token.start, token.end))
    except (tokenize.TokenError, IndentationError) as error:
        raise ValueError(f"cannot be split into tokens: {error}") from error
    return found


def _between(lines: list[str], start: Place, end: Place) -> str:
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    middle = lines[start[0] : end[0] - 1]
    return "".join([lines[start[0] - 1][start[1] :], *middle, lines[end[0] - 1][: end[1]]])


def _docstring(node: ast.AST) -> ast.Expr | None:
    """The statement that is the docstring of a function or class."""
    if isinstance(node, _DOCUMENTED) and node.body and isinstance(first := node.body[0], ast.Expr):
        value = first.value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return first
    return None


class _Spans:
    """First and last token of nodes, over the tokens of one function without its docstrings."""

    def __init__(self, tokens: list[_Token], lines: list[str]) -> None:
        self.tokens, self._lines = tokens, lines
        self._starts = [token.start for token in tokens]
        self._ends = [token.end for token in tokens]

    def place(self, line: int, offset: int) -> Place:
        """`ast` counts bytes of UTF-8, `tokenize` characters."""
        text = self._lines[line - 1]
        return line, offset if text.isascii() else len(text.encode()[:offset].decode(errors="ignore"))

    def of(self, first: ast.AST, last: ast.AST | None = None) -> tuple[int, int] | None:
        """From the first token in `first` to the last one in `last`; None where there is none."""
        last = last or first
        low = bisect_left(self._starts, self.place(first.lineno, first.col_offset))  # type: ignore[attr-defined]
        high = bisect_right(self._ends, self.place(last.end_lineno, last.end_col_offset)) - 1  # type: ignore[attr-defined]
        return (low, high) if low <= high else None

    def arguments(self, node: ast.arguments) -> tuple[int, int] | None:
        """All parameters with the stars, slashes and commas around them."""
        parts = [part for part in ast.walk(node) if hasattr(part, "lineno")]
        if not parts:
            return None
        spans = [span for part in parts if (span := self.of(part))]
        low, high = min(span[0] for span in spans), max(span[1] for span in spans)
        while low and self.tokens[low - 1].text in ("*", "**", ",", "/"):
            low -= 1
        while high + 1 < len(self.tokens) and self.tokens[high + 1].text in (",", "/"):
            high += 1
        return low, high


def _snippet(
    function: ast.FunctionDef | ast.AsyncFunctionDef, tokens: list[_Token], lines: list[str]
) -> Snippet | None:
    whole = _Spans(tokens, lines)
    outer = whole.of(function)
    if outer is None:
        return None
    silent = {id(found) for node in ast.walk(function) if (found := _docstring(node))}
    dropped = [span for node in ast.walk(function) if (found := _docstring(node)) and (span := whole.of(found))]
    gone = {place for low, high in dropped for place in range(low, high + 1)}
    kept = [tokens[place] for place in range(outer[0], outer[1] + 1) if place not in gone]
    spans = _Spans(kept, lines)
    nodes: list[tuple[int, int, int, str]] = []

    def add(span: tuple[int, int] | None, depth: int, label: str) -> None:
        if span is not None:
            nodes.append((span[0], -span[1], depth, label))

    def visit(node: ast.AST, depth: int) -> bool:
        if isinstance(node, ast.arguments):
            add(spans.arguments(node), depth, "arguments")
        elif hasattr(node, "lineno") and not isinstance(node, ast.Name | ast.Constant):
            add(spans.of(node), depth, type(node).__name__)
        if isinstance(node, ast.JoinedStr):
            return True  # its parts have no tokens of their own
        for field, value in ast.iter_fields(node):
            if node is function and field == "decorator_list":
                continue
            values = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, ast.AST)]
            statements = [v for v in values if id(v) not in silent]
            deeper = depth + 1
            if field in _BODIES and isinstance(value, list) and values:
                if not statements:
                    return False  # nothing is left but a docstring
                add(spans.of(statements[0], statements[-1]), deeper, "block")
                deeper += 1
            if not all(visit(v, deeper) for v in statements):
                return False
        return True

    if not visit(function, 0):
        return None
    tree = nest(nodes, len(kept))
    return Snippet(tuple(token.text for token in kept), tree) if tree is not None else None


def nest(nodes: list[tuple[int, int, int, str]], tokens: int) -> Node | None:
    """The tree of spans over tokens; None where two spans cross, or none covers all tokens.

    Args:
        nodes: (first token, minus the last token, depth, label); of equal spans the smaller depth is outside.
        tokens: how many there are; one that no child covers is a leaf.
    """
    ordered = sorted(nodes)
    place = 0

    def build(low: int, high: int, label: str) -> Node | None:
        nonlocal place
        children: list[Tree] = []
        at = low
        while place < len(ordered) and ordered[place][0] <= high:
            start, end, inner = ordered[place][0], -ordered[place][1], ordered[place][3]
            if start < at or end > high:
                return None
            children.extend(range(at, start))
            place += 1
            child = build(start, end, inner)
            if child is None:
                return None
            children.append(child)
            at = end + 1
        children.extend(range(at, high + 1))
        return Node(label, tuple(children))

    if not ordered or ordered[0][0] != 0 or -ordered[0][1] != tokens - 1:
        return None
    place = 1
    root = build(0, tokens - 1, ordered[0][3])
    return root if place == len(ordered) else None
