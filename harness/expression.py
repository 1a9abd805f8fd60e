"""The language of quantities: arithmetic over metrics of contenders.

An expression is parsed as Python syntax and checked here; nothing of it is ever run as code. `harness.evaluation`
computes it from records. ``docs/adding-a-paper.md`` lists the functions.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import RequestError, nearest
from harness.record import INSTRUMENT_METRICS

ELEMENTWISE = ("log", "log10", "exp", "sqrt", "abs")
FUNCTIONS = (
    "argbest", "at", "best", "first", "greatest_step", "last", "least_step", "max", "mean", "min", "nearest",
    "rank_correlation", "share", "slope", "spread", "standard_error", "sum", *ELEMENTWISE,
)  # fmt: skip


@dataclass(frozen=True)
class Signature:
    """How a function is written: positional arguments, and keywords that it needs or may have."""

    least: int
    most: int | None
    needs: tuple[str, ...] = ()
    may: tuple[str, ...] | None = ()
    """None: any."""


_SIGNATURES = {
    **dict.fromkeys(ELEMENTWISE, Signature(1, 1)),
    **dict.fromkeys(("max", "min", "mean", "sum", "spread", "share"), Signature(1, None)),
    **dict.fromkeys(("best", "argbest", "first", "last", "least_step", "greatest_step"), Signature(2, 2)),
    "at": Signature(1, 1, may=None),
    "nearest": Signature(1, 1, needs=("by", "to", "over")),
    "rank_correlation": Signature(3, 3),
    "slope": Signature(2, 2, may=("last",)),
    "standard_error": Signature(1, 1),
}


@dataclass(frozen=True)
class Reference:
    """A metric of a contender, as an expression names it."""

    metric: str
    label: str
    fixed: tuple[tuple[str, Any], ...]
    seeds: str = "mean"


@dataclass(frozen=True)
class Expression:
    """A parsed quantity."""

    text: str
    tree: ast.expr

    @property
    def references(self) -> list[Reference]:
        """The metrics that it needs, in the order they stand."""
        return [
            reference_of(node)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call) and called(node) not in FUNCTIONS
        ]


def parse(text: str) -> Expression:
    """Parse a quantity.

    Raises:
        RequestError: it is not an expression of the language; the caller adds file and line.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error"
            )  # what Python is about to give up, such as unknown escapes, is no part of this
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError, Warning) as error:
        raise RequestError(f"'{text}' is not an expression: {getattr(error, 'msg', error)}") from None
    _measure(tree)
    _check(tree, text, 0)
    return Expression(text, tree)


BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    # Of whole numbers a power can be too long for the machine's memory.
    ast.Pow: lambda a, b: (float(a) if isinstance(a, int) else a) ** b,
}
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}


_DEEPEST = 40


def _measure(tree: ast.AST) -> None:
    """Refuse what is nested so deeply that writing it into an error, or computing it, would exhaust the stack."""
    level: list[ast.AST] = [tree]
    for _ in range(3 * _DEEPEST):  # a call counts three levels: itself, a keyword, its value
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    raise RequestError("the expression is nested too deeply")


def _check(node: ast.expr, text: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise RequestError(f"'{text[:60]}...' is nested too deeply")
    match node:
        case ast.Constant(value=int(value)) if abs(value) >= 1 << 63:
            raise RequestError("a whole number in an expression has at most 18 digits")
        case ast.Constant(value=bool() | int() | float() | str()):
            return
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=str())):
            raise RequestError(f"'{ast.unparse(node)}' computes with a word")
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            _check(operand, text, depth + 1)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            for side in (left, right):
                if isinstance(side, ast.Constant) and isinstance(side.value, str):
                    raise RequestError(f"'{ast.unparse(node)}' computes with a word")
                _check(side, text, depth + 1)
            _check_constant(node)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARE:
            _check(left, text, depth + 1)
            _check(right, text, depth + 1)
        case ast.Call(func=ast.Name()):
            name = called(node)
            if name not in FUNCTIONS:
                reference_of(node)
                return
            _check_call(node, name)
            for part in (*node.args, *(k.value for k in node.keywords)):
                _check(part, text, depth + 1)
        case ast.Name(id=name):
            raise RequestError(
                f"'{name}' in '{text}' stands alone; names of methods and parameters are in quotes"
            )
        case _:
            raise RequestError(
                f"'{ast.unparse(node)}' in '{text}' is not part of the language of quantities",
                hint='numbers, + - * / **, comparisons, metric("label", parameter=value) and functions',
            )


def _check_constant(node: ast.BinOp) -> None:
    """Refuse arithmetic without records that has no result, such as 1 / 0."""
    if any(isinstance(part, (ast.Call, ast.Compare)) for part in ast.walk(node)):
        return
    try:
        computed = isinstance(_constant(node), (int, float))
    except ArithmeticError:
        computed = False
    if not computed:
        raise RequestError(f"'{ast.unparse(node)}' has no value")


def _constant(node: ast.expr) -> Any:
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            return BINARY[type(op)](_constant(left), _constant(right))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_constant(operand)
        case ast.UnaryOp(operand=operand):
            return _constant(operand)
        case ast.Constant(value=value):
            return value
    raise TypeError(f"{type(node).__name__} is not a constant")


def _check_call(node: ast.Call, name: str) -> None:
    signature, text = _SIGNATURES[name], ast.unparse(node)
    given = [str(k.arg) for k in node.keywords]
    most = signature.most
    if len(node.args) < signature.least or (most is not None and len(node.args) > most):
        count = str(signature.least) if most == signature.least else f"at least {signature.least}"
        raise RequestError(f"'{text}': {name} takes {count} arguments before any keyword, not {len(node.args)}")
    for keyword in signature.needs:
        if keyword not in given:
            raise RequestError(f"'{text}': {name} needs {keyword}=...")
    for keyword in given:
        if signature.may is not None and keyword not in (*signature.needs, *signature.may):
            raise RequestError(f"'{text}': {name} has no {keyword}=...")
    for argument in node.args[1:] if name != "rank_correlation" else node.args[2:]:
        if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
            raise RequestError(
                f"'{text}': {name} takes names of parameters in quotes after what it is applied to"
            )


def called(node: ast.Call) -> str:
    """Name of the metric or function that a call names."""
    if not isinstance(node.func, ast.Name):
        raise RequestError(f"'{ast.unparse(node)}' does not call a metric or a function by name")
    return node.func.id


def reference_of(node: ast.Call) -> Reference:
    """The metric that a call refers to. Raises `RequestError` when it is not written as one."""
    name = called(node)
    text = ast.unparse(node)
    if len(node.args) != 1 or not (
        isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    ):
        raise RequestError(
            f"'{text}': a metric takes one label in quotes, then parameter=value",
            hint=nearest(name, FUNCTIONS) if nearest(name, FUNCTIONS) else None,
        )
    fixed: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise RequestError(f"'{text}': parameters are written out, as name=value")
        fixed[keyword.arg] = _literal(keyword.value, keyword.arg, text)
    seeds = fixed.pop("seeds", "mean")
    if seeds not in ("mean", "each"):
        raise RequestError(f'\'{text}\': seeds is "mean" or "each", not {seeds!r}')
    return Reference(name, node.args[0].value, tuple(sorted(fixed.items())), seeds)


def _literal(node: ast.expr, name: str, text: str) -> Any:
    """The value that a parameter is fixed at: a number, a word, True, False, None, or a list of them."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        value = ...
    for part in value if isinstance(value, (list, tuple)) else (value,):
        if not (part is None or isinstance(part, (bool, int, float, str))):
            raise RequestError(f"'{text}': the value of '{name}' is not a number, a word or a list of them")
    return value


def check_names(
    expression: Expression,
    metrics_of: Callable[[str], Mapping[str, Any] | None],
    parameters_of: Callable[[str], Iterable[str] | None],
) -> None:
    """Check metrics and parameters of an expression against what is declared.

    Args:
        expression: the quantity.
        metrics_of: metrics by name that a label can have, or None when the label is unknown.
        parameters_of: names of the parameters that a label can fix, or None when it is unknown.

    Raises:
        RequestError: a metric that no task has, an unknown label, or an unknown parameter.
    """
    for reference in expression.references:
        metrics = metrics_of(reference.label)
        if metrics is None:
            raise RequestError(f"no suite has a method or label '{reference.label}'")
        if reference.metric not in metrics and reference.metric not in INSTRUMENT_METRICS:
            raise RequestError(
                f"'{reference.metric}' is neither a metric of '{reference.label}' and its task nor a function",
                hint=nearest(reference.metric, [*metrics, *INSTRUMENT_METRICS, *FUNCTIONS]),
            )
        known = parameters_of(reference.label)
        for name, _ in reference.fixed:
            if known is not None and name not in known:
                raise RequestError(
                    f"'{reference.label}' and its task have no parameter '{name}'", hint=nearest(name, known)
                )
