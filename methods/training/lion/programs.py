"""Optimizers as programs: straight-line functions `train(w, g, m, v, lr)` that return an update, m and v.

A program is checked without running it (`kinds`), has a hash of what it computes rather than of how it is
written (`functional_hash`), and compiles to a NumPy function (`compiled`). Paper, section 2.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from methods.training.lion.operations import OPERATIONS, Kind, Layout, Value

Argument = str | float
"""A variable or a constant."""

INPUTS: Mapping[str, Kind] = {
    "w": Kind.ARRAY,
    "g": Kind.ARRAY,
    "m": Kind.ARRAY,
    "v": Kind.ARRAY,
    "lr": Kind.SCALAR,
}
"""Weights, gradient, two states (zero at first) and the scheduled learning rate."""
STATES = ("m", "v")
OUTPUTS = ("update", *STATES)


class InvalidProgram(ValueError):
    """A program that abstract execution refuses; the message names the statement."""


@dataclass(frozen=True)
class Statement:
    """`target = op(*args)`."""

    target: str
    op: str
    args: tuple[Argument, ...]

    def __str__(self) -> str:
        return f"{self.target} = {self.op}({', '.join(map(str, self.args))})"

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables among its arguments."""
        return tuple(arg for arg in self.args if isinstance(arg, str))


@dataclass(frozen=True)
class Program:
    """Statements, carried out from top to bottom. `str` and `parse` are inverse to one another."""

    statements: tuple[Statement, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.statements))

    def __len__(self) -> int:
        return len(self.statements)


def parse(text: str) -> Program:
    """The program written as lines such as ``m = interp(g, m, 0.9)``; # begins a comment.

    Raises:
        InvalidProgram: a line is not of this form.
    """
    statements = []
    for node in ast.parse(text).body:
        match node:
            case ast.Assign(
                targets=[ast.Name(id=target)], value=ast.Call(func=ast.Name(id=op), args=args, keywords=[])
            ):
                statements.append(Statement(target, op, tuple(map(_argument, args))))
            case _:
                raise InvalidProgram(f"'{ast.unparse(node)}' is not of the form x = f(y, 0.5)")
    return Program(tuple(statements))


def _argument(node: ast.expr) -> Argument:
    if isinstance(node, ast.Name):
        return node.id
    try:
        return float(ast.literal_eval(node))
    except (TypeError, ValueError) as error:
        raise InvalidProgram(f"'{ast.unparse(node)}' is neither a variable nor a number") from error


def adamw(rate: float, weight_decay: float = 0.01) -> Program:
    """AdamW without bias correction, where the search begins (Program 2 of the paper)."""
    return parse(f"""
m = interp(g, m, 0.9)
g2 = square(g)
v = interp(g2, v, 0.999)
root = sqrt(v)
root = add(root, 1e-08)
update = divide(m, root)
decay = multiply(w, {weight_decay!r})
update = add(update, decay)
scale = multiply(lr, {rate!r})
update = multiply(update, scale)
""")


def lion(rate: float, weight_decay: float = 0.0, beta1: float = 0.9, beta2: float = 0.99) -> Program:
    """What the paper's search ended in (Program 1)."""
    return parse(f"""
update = interp(g, m, {beta1!r})
update = sign(update)
m = interp(g, m, {beta2!r})
decay = multiply(w, {weight_decay!r})
update = add(update, decay)
scale = multiply(lr, {rate!r})
update = multiply(update, scale)
""")


# --- abstract execution ------------------------------------------------------------------------------


def kinds(program: Program) -> list[Kind]:
    """The kind of each statement's value, found without computing any.

    Raises:
        InvalidProgram: a variable is read before it is set, an operation does not exist or does not take such
            arguments, a constant is not finite, or an output is not an array.
    """
    known = dict(INPUTS)
    found = []
    for number, statement in enumerate(program.statements):
        where = f"statement {number} ({statement})"
        operation = OPERATIONS.get(statement.op)
        if operation is None:
            raise InvalidProgram(f"{where}: there is no operation '{statement.op}'")
        if len(statement.args) != operation.arity:
            raise InvalidProgram(f"{where}: {statement.op} takes {operation.arity} arguments")
        given = []
        for arg in statement.args:
            if isinstance(arg, str) and arg not in known:
                raise InvalidProgram(f"{where}: '{arg}' is not set")
            if not isinstance(arg, str) and not np.isfinite(arg):
                raise InvalidProgram(f"{where}: {arg} is not finite")
            given.append(known[arg] if isinstance(arg, str) else Kind.SCALAR)
        kind = operation.kind(given)
        if kind is None:
            raise InvalidProgram(f"{where}: {statement.op} does not take {[k.name for k in given]}")
        known[statement.target] = kind
        found.append(kind)
    for name in OUTPUTS:
        if known.get(name) is not Kind.ARRAY:
            raise InvalidProgram(f"'{name}' is not an array at the end")
    return found


def is_valid(program: Program) -> bool:
    """Whether abstract execution accepts the program."""
    try:
        kinds(program)
    except InvalidProgram:
        return False
    return True


# --- what a program computes -------------------------------------------------------------------------


def _sources(program: Program) -> tuple[dict[str, int | str], list[tuple[int | str | float, ...]]]:
    """Where each output and each argument comes from: a statement's number, an input's name, or a constant."""
    latest: dict[str, int | str] = {name: name for name in INPUTS}
    arguments = []
    for number, statement in enumerate(program.statements):
        arguments.append(tuple(latest[a] if isinstance(a, str) else a for a in statement.args))
        latest[statement.target] = number
    return {name: latest[name] for name in OUTPUTS}, arguments


def live(program: Program) -> tuple[list[int], list[str]]:
    """The statements that matter for the updates of all steps, in order, and the states that they use.

    A state matters when the update reads it, or when the next value of a state that matters does.
    """
    outputs, arguments = _sources(program)
    needed: set[int] = set()
    states: set[str] = set()
    open_: list[int | str] = [outputs["update"]]
    while open_:
        source = open_.pop()
        if isinstance(source, str):
            if source in STATES and source not in states:
                states.add(source)
                open_.append(outputs[source])
        elif source not in needed:
            needed.add(source)
            open_ += [a for a in arguments[source] if not isinstance(a, float)]
    return sorted(needed), [name for name in STATES if name in states]


def functional_hash(program: Program) -> str:
    """A digest of what a valid program computes, built from the bottom up: hash(op, hashes of the arguments).

    A variable stands for the hash of its value. So names, the order of independent statements, statements
    without effect on any update, the order of the arguments of commutative operations and the roles of m and v
    (both begin at zero) are without influence.
    """
    outputs, arguments = _sources(program)
    needed, states = live(program)

    def digest(names: Mapping[str, str]) -> str:
        values: dict[int | str, str] = {name: names.get(name, name) for name in INPUTS}
        for number in needed:
            op = program.statements[number].op
            parts = [values[a] if not isinstance(a, float) else f"={a!r}" for a in arguments[number]]
            if OPERATIONS[op].commutes:
                parts.sort()
            values[number] = _digest(op, *parts)
        kept = sorted(f"{names[state]}:{values[outputs[state]]}" for state in states)
        return _digest("program", values[outputs["update"]], *kept)

    return min(digest({"m": "s0", "v": "s1"}), digest({"m": "s1", "v": "s0"}))


def _digest(*parts: str) -> str:
    return hashlib.blake2b(",".join(parts).encode(), digest_size=16).hexdigest()


def without_dead_statements(program: Program) -> Program:
    """The program without statements that matter for no update, as far as it stays valid."""
    wanted = functional_hash(program)
    for number in sorted(set(range(len(program))) - set(live(program)[0]), reverse=True):
        shorter = Program(program.statements[:number] + program.statements[number + 1 :])
        if is_valid(shorter) and functional_hash(shorter) == wanted:
            program = shorter
    return program


# --- running a program -------------------------------------------------------------------------------

Update = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float], tuple[np.ndarray, ...]]
"""(w, g, m, v, lr) to (update, m, v); vectors of all weights, and the learning rate as a number."""


def compiled(program: Program, layout: Layout, dtype: type[np.floating] = np.float32) -> Update:
    """A function that carries out the statements of a valid program that matter; m and v that do not stay.

    Domain errors give NaN, as in NumPy.

    Args:
        program: a valid program.
        layout: of the weights.
        dtype: of the vectors; constants are rounded to it.

    Raises:
        InvalidProgram: see `kinds`.
    """
    found = kinds(program)
    outputs, arguments = _sources(program)
    needed, states = live(program)
    place: dict[int | str, int] = {name: i for i, name in enumerate(INPUTS)}
    constants: list[Value] = [None] * len(INPUTS)
    steps = []
    for number in needed:
        places, given = [], []
        for source in arguments[number]:
            if isinstance(source, float):
                constants.append(dtype(source))
                places.append(len(constants) - 1)
                given.append(Kind.SCALAR)
            else:
                places.append(place[source])
                given.append(INPUTS[source] if isinstance(source, str) else found[source])
        operation = OPERATIONS[program.statements[number].op]
        constants.append(None)
        place[number] = len(constants) - 1
        steps.append((operation.on(layout, given), tuple(places), place[number]))
    ends = [place[outputs["update"]], *(place[outputs[s] if s in states else s] for s in STATES)]

    def update(w: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, lr: float) -> tuple[np.ndarray, ...]:
        values = [w, g, m, v, dtype(lr), *constants[len(INPUTS) :]]
        for function, places, target in steps:
            values[target] = function(*[values[i] for i in places])
        return tuple(values[i] for i in ends)

    return update
