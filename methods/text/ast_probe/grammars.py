"""Snippets of Python, JavaScript and Go by tree-sitter, as the paper has them."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

from harness.errors import MissingPackage
from methods.text.ast_probe.python_source import Snippet
from methods.text.ast_probe.trees import Node, Tree

LANGUAGES = ("python", "javascript", "go")
_STRINGS = {
    "python": {"string"},
    "javascript": {"string", "template_string", "regex"},
    "go": {"interpreted_string_literal", "raw_string_literal", "rune_literal"},
}


@lru_cache(maxsize=3)
def parser(language: str) -> Any:
    """The tree-sitter parser of a language.

    Raises:
        MissingPackage: tree-sitter or the grammar is not installed.
    """
    package = f"tree-sitter-{language}"
    try:
        tree_sitter = importlib.import_module("tree_sitter")
        grammar = importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        raise MissingPackage(f"snippets of {language} need: pip install tree-sitter {package}") from error
    return tree_sitter.Parser(tree_sitter.Language(grammar.language()))


def parse(source: str, language: str) -> Snippet | None:
    """The tokens and the tree of `source`; None where it has an error or nothing in it.

    Inner nodes of tree-sitter are nodes, its leaves are tokens. Comments and Python's docstrings are left out, a
    string literal is one token.
    """
    root = parser(language).parse(source.encode()).root_node
    if root.has_error:
        return None
    tokens: list[str] = []

    def visit(node: Any) -> Tree | None:
        if node.type == "comment" or _is_docstring(node, language):
            return None
        if node.child_count == 0 or node.type in _STRINGS[language]:
            text = node.text.decode()
            if not text.strip():
                return None  # line ends that a grammar has as tokens
            tokens.append(text)
            return len(tokens) - 1
        children = [kept for child in node.children if (kept := visit(child)) is not None]
        return Node(node.type, tuple(children)) if children else None

    tree = visit(root)
    return Snippet(tuple(tokens), tree) if isinstance(tree, Node) and len(tokens) > 1 else None


def _is_docstring(node: Any, language: str) -> bool:
    """Whether a node is the first statement of a body of Python, and a string."""
    if language != "python" or node.type != "expression_statement" or node.parent is None:
        return False
    if (
        node.parent.type not in ("block", "module")
        or node.child_count != 1
        or node.children[0].type != "string"
    ):
        return False
    before = [child for child in node.parent.children if child.start_byte < node.start_byte]
    return all(child.type == "comment" for child in before)
