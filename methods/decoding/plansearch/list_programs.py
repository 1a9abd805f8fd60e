"""Programs of four operations over lists of whole numbers, and tasks that examples of their inputs and outputs state."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from harness.seeding import derive

BOUND = 99
"""Values are clipped to [-BOUND, BOUND] after every operation."""
LENGTH = 4
"""Operations of a program."""
INPUTS = 12
"""Inputs of a task, of 3 to 7 values in [-9, 9]."""
PUBLIC = 4
"""Inputs whose outputs are shown; all of them judge."""

List = tuple[int, ...]
Program = tuple[int, ...]
"""Places in `OPERATIONS`."""

OPERATIONS: dict[str, Callable[[List], Sequence[int]]] = {
    "add 1": lambda xs: [x + 1 for x in xs],
    "subtract 1": lambda xs: [x - 1 for x in xs],
    "double": lambda xs: [2 * x for x in xs],
    "negate": lambda xs: [-x for x in xs],
    "square": lambda xs: [x * x for x in xs],
    "floor half": lambda xs: [x // 2 for x in xs],
    "keep even": lambda xs: [x for x in xs if x % 2 == 0],
    "keep odd": lambda xs: [x for x in xs if x % 2],
    "keep positive": lambda xs: [x for x in xs if x > 0],
    "reverse": lambda xs: xs[::-1],
    "sort": sorted,
    "drop first": lambda xs: xs[1:],
    "drop last": lambda xs: xs[:-1],
    "first 3": lambda xs: xs[:3],
    "drop 2": lambda xs: xs[2:],
    "unique": lambda xs: list(dict.fromkeys(xs)),
    "running sum": lambda xs: list(accumulate(xs)),
    "differences": lambda xs: [b - a for a, b in pairwise(xs)],
    "absolute value": lambda xs: [abs(x) for x in xs],
    "append mirror": lambda xs: (*xs, *xs[::-1]),
}
NAMES = tuple(OPERATIONS)
_FUNCTIONS = tuple(OPERATIONS.values())


def program(*names: str) -> Program:
    """The program of operations by name."""
    return tuple(NAMES.index(name) for name in names)


def run(code: Program, xs: Sequence[int]) -> List:
    """What a program makes of a list."""
    values = tuple(xs)
    for operation in code:
        made = _FUNCTIONS[operation](values)
        values = tuple([-BOUND if x < -BOUND else BOUND if x > BOUND else x for x in made])
    return values


@dataclass(frozen=True)
class ListTask:
    """Find a program that does to every input what `program` does; the first `PUBLIC` outputs are shown."""

    program: Program
    inputs: tuple[List, ...]
    outputs: tuple[List, ...]

    def solved_by(self, code: Program, examples: int = INPUTS) -> bool:
        """Whether a program gives the outputs of the first `examples` inputs."""
        pairs = zip(self.inputs[:examples], self.outputs[:examples], strict=True)
        return all(run(code, xs) == ys for xs, ys in pairs)


def held_out(code: Program) -> bool:
    """Whether a program is kept from training: one in eight, the same everywhere."""
    return zlib.crc32(bytes(code)) % 8 == 0


def draw_tasks(count: int, seed: int, test: bool) -> list[ListTask]:
    """Random tasks whose programs are all held out (`test`) or none is.

    A task is kept when it has at least 8 distinct outputs, the first four are not empty, and none of the operations
    can be left out.
    """
    stream = random.Random(derive(seed, "list programs", "test" if test else "training"))
    tasks: list[ListTask] = []
    while len(tasks) < count:
        code = tuple(stream.randrange(len(NAMES)) for _ in range(LENGTH))
        if held_out(code) != test:
            continue
        inputs = tuple(tuple(stream.randint(-9, 9) for _ in range(stream.randint(3, 7))) for _ in range(INPUTS))
        outputs = tuple(run(code, xs) for xs in inputs)
        if not all(outputs[:PUBLIC]) or len(set(outputs)) < 8:
            continue
        task = ListTask(code, inputs, outputs)
        if not any(task.solved_by(code[:place] + code[place + 1 :]) for place in range(LENGTH)):
            tasks.append(task)
    return tasks
