"""Another way of writing the same Python program: other names, other spellings, the same steps.

Pairs of a program and its rewriting have one idea by construction. They teach how alike two programs must be to count as
one idea.
"""

from __future__ import annotations

import ast
import builtins
import random

NAMES = (
    "value", "item", "left", "right", "total", "result", "index", "first", "second", "current", "limit", "amount",
    "target", "source", "entry", "data", "text", "number", "size", "best", "other", "begin", "end", "part", "answer",
)  # fmt: skip
_FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE, ast.Eq: ast.Eq, ast.NotEq: ast.NotEq,
}  # fmt: skip


def rewrite(source: str, seed: int) -> str:
    """A program that does the same in the same way, without comments.

    Variables, arguments and functions get other names; ``a += b`` of a name becomes ``a = a + b``; comparisons are turned
    round; ``if`` with ``else`` has its branches exchanged. Names that it does not bind, attributes and imports stay.

    Raises:
        SyntaxError: it is not Python.
    """
    tree = ast.parse(source.replace("\r\n", "\n"))
    return ast.unparse(ast.fix_missing_locations(_Rewriter(_renaming(tree, seed)).visit(tree)))


def _renaming(tree: ast.Module, seed: int) -> dict[str, str]:
    bound, taken = dict[str, None](), set(dir(builtins))
    kept: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                bound[name] = None
            case ast.Name(id=name):
                taken.add(name)
            case ast.alias(name=name, asname=alias):
                kept.add((alias or name).partition(".")[0])
            case ast.keyword(arg=str(name)):
                kept.add(name)  # an argument by name, perhaps of a function from elsewhere
            case ast.ClassDef(name=name, body=body):
                # Methods and fields are reached as attributes, which stay.
                kept |= {name, *(n for part in body for n in _own(part))}
    stream = random.Random(seed)
    pool = [*NAMES, *(f"{name}_{number}" for number in range(2, 20) for name in NAMES)]
    fresh = iter([name for name in pool if name not in taken | set(bound) | kept])
    names = [name for name in bound if name not in kept and not name.startswith("__")]
    stream.shuffle(names)
    return dict(zip(names, fresh, strict=False))


def _own(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef):
        return [statement.name]
    return [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


class _Rewriter(ast.NodeTransformer):
    def __init__(self, renaming: dict[str, str]) -> None:
        self.renaming = renaming

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.renaming.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        self.generic_visit(node)
        node.arg = self.renaming.get(node.arg, node.arg)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.name = self.renaming.get(node.name, node.name)
        if ast.get_docstring(node) is not None and len(node.body) > 1:
            node.body = node.body[1:]
        return node

    def visit_Global(self, node: ast.Global) -> ast.Global:
        node.names = [self.renaming.get(name, name) for name in node.names]
        return node

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.Nonlocal:
        node.names = [self.renaming.get(name, name) for name in node.names]
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.ExceptHandler:
        self.generic_visit(node)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.stmt:
        self.generic_visit(node)
        if not isinstance(node.target, ast.Name):
            return node  # the target would be evaluated twice
        left = ast.Name(node.target.id, ast.Load())
        return ast.Assign([node.target], ast.BinOp(left, node.op, node.value))

    def visit_Compare(self, node: ast.Compare) -> ast.Compare:
        self.generic_visit(node)
        if len(node.ops) != 1 or (flipped := _FLIPPED.get(type(node.ops[0]))) is None:
            return node
        return ast.Compare(node.comparators[0], [flipped()], [node.left])

    def visit_If(self, node: ast.If) -> ast.If:
        self.generic_visit(node)
        if not node.orelse:
            return node
        return ast.If(ast.UnaryOp(ast.Not(), node.test), node.orelse, node.body)
