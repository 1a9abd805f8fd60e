"""Another way of writing the same Python program, and a program without what is only wording.

Pairs of a program and its rewriting (other names, other spellings, the same steps) have one idea by construction. They
teach how alike two programs must be to count as one idea. Names and docstrings say what a program is for, which all
programs for a problem share, so that they are taken out before programs are compared.
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
    round; ``if`` with ``else`` has its branches exchanged; what is returned is given a name first. Names that it does not
    bind, attributes and imports stay.

    Raises:
        SyntaxError: it is not Python.
    """
    tree = ast.parse(source.replace("\r\n", "\n"))
    bound, taken = _names(tree)
    stream = random.Random(seed)
    fresh = [*NAMES, *(f"{name}_{number}" for number in range(2, 20) for name in NAMES)]
    free = [name for name in fresh if name not in taken and name not in bound]
    stream.shuffle(bound)
    renaming = dict(zip(bound, free, strict=False))
    spare = next(name for name in free[len(bound) :] if name)
    return ast.unparse(ast.fix_missing_locations(_Respeller(renaming, spare).visit(tree)))


def normalise(source: str) -> str:
    """A program with its names numbered, without docstrings and comments; what is not Python stays as it is."""
    try:
        tree = ast.parse(source.replace("\r\n", "\n"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return source
    bound, taken = _names(tree)
    numbered = (name for number in range(10**6) if (name := f"v{number}") not in taken)
    renaming = dict(zip(bound, numbered, strict=False))
    return ast.unparse(ast.fix_missing_locations(_Renamer(renaming).visit(tree)))


def _names(tree: ast.Module) -> tuple[list[str], set[str]]:
    """The names that may be changed, and those that must not be given to them."""
    bound, taken, kept = dict[str, None](), set(dir(builtins)), set[str]()
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
            case ast.ExceptHandler(name=str(name)):
                kept.add(name)
    names = [name for name in bound if name not in kept and not name.startswith("__")]
    return names, (taken | kept) - set(names)


def _own(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef):
        return [statement.name]
    return [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


class _Renamer(ast.NodeTransformer):
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


class _Respeller(_Renamer):
    def __init__(self, renaming: dict[str, str], spare: str) -> None:
        super().__init__(renaming)
        self.spare = spare

    def visit_Return(self, node: ast.Return) -> ast.Return | list[ast.stmt]:
        self.generic_visit(node)
        if node.value is None or isinstance(node.value, ast.Name | ast.Constant):
            return node
        made = ast.Assign([ast.Name(self.spare, ast.Store())], node.value)
        return [made, ast.Return(ast.Name(self.spare, ast.Load()))]

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
