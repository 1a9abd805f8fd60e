"""A small learned model that proposes programs over lists: observations are operations that a program may use.

It stands where the paper has a language model. What it has in common with one is all that search needs: it has seen
problems with solutions, it can say what may help, it can be told what to use, and a temperature makes its samples
differ.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import seeding
from harness.cache import artefact
from methods.decoding.plansearch.list_programs import BOUND, LENGTH, NAMES, PUBLIC, ListTask, draw_tasks

SHOWN = 14
"""Values of a list that are features; with six more numbers for each list, 68 for an example."""
FEATURES = 2 * (2 * SHOWN + 6)
KINDS = len(NAMES)

_VERSION = 1
"""Raise it when the tasks, the features or training change."""


@dataclass(frozen=True)
class Recipe:
    """Shape and training of a net: Adam on batches of tasks, in full precision."""

    hidden: int
    tasks: int
    steps: int
    batch: int = 128
    lr: float = 1e-3
    weight: float = 4.0
    """Of the observation head's loss beside the decoder's."""
    seed: int = 0


NETS: dict[str, Recipe] = {
    "strong": Recipe(hidden=128, tasks=12_000, steps=4000),
    "weak": Recipe(hidden=64, tasks=12_000, steps=400),
    "smoke": Recipe(hidden=64, tasks=1500, steps=150),
}


def _signed_log(value: float) -> float:
    return math.copysign(math.log1p(abs(value)), value) / math.log1p(BOUND)


def _described(xs: Sequence[int]) -> list[float]:
    """A list as numbers: signed logs and parities of the first values, then six of the whole list."""
    values = xs[:SHOWN]
    padding = [0.0] * (SHOWN - len(values))
    whole = [math.log1p(len(xs)) / 3]
    if xs:
        whole += [_signed_log(sum(xs) / len(xs)), _signed_log(max(xs)), _signed_log(min(xs))]
    else:
        whole += [0.0] * 3
    whole += [float(list(xs) == sorted(xs)), float(len(set(xs)) == len(xs))]
    return [*map(_signed_log, values), *padding, *(1.0 if x % 2 else -1.0 for x in values), *padding, *whole]


def features(tasks: Sequence[ListTask]) -> Tensor:
    """The shown examples: float32, shape (tasks, PUBLIC, FEATURES)."""
    rows = [
        [
            _described(xs) + _described(ys)
            for xs, ys in zip(task.inputs[:PUBLIC], task.outputs[:PUBLIC], strict=True)
        ]
        for task in tasks
    ]
    return torch.tensor(rows, dtype=torch.float32).reshape(len(tasks), PUBLIC, FEATURES)


class ProposalNet(nn.Module):
    """Examples to a vector; the vector and a set of operations to observations, and to a program.

    Sets are plans and given observations alike: 0 or 1 for each operation, shape (rows, KINDS).

    Args:
        hidden: width h of everything.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        h = hidden
        self.example = nn.Sequential(nn.Linear(FEATURES, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU())
        self.task = nn.Sequential(nn.Linear(h, h), nn.ReLU())
        self.observation = nn.Sequential(nn.Linear(h + KINDS, h), nn.ReLU(), nn.Linear(h, KINDS))
        self.start = nn.Linear(h + KINDS, h)
        self.previous = nn.Embedding(KINDS + 1, 16)
        self.cell = nn.GRUCell(16 + KINDS + h, h)
        self.operation = nn.Linear(h, KINDS)

    def encode(self, examples: Tensor) -> Tensor:
        """The vector z of each task, shape (tasks, h), from `features`: a mean over the examples."""
        return self.task(self.example(examples).mean(1))  # type: ignore[no-any-return]

    def observe(self, z: Tensor, given: Tensor) -> Tensor:
        """Log odds that each operation is used, given that those in `given` are: shape (rows, KINDS)."""
        return self.observation(torch.cat([z, given], 1))  # type: ignore[no-any-return]

    def begin(self, z: Tensor, plan: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's first state and what it sees at every step beside the operation before."""
        context = torch.cat([plan, z], 1)
        return torch.tanh(self.start(context)), context

    def step(self, state: Tensor, context: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """The next state, and logits over the next operation; `before` is KINDS at the first step."""
        state = self.cell(torch.cat([self.previous(before), context], 1), state)
        return state, self.operation(state)


def loss(net: ProposalNet, examples: Tensor, programs: Tensor, plan: Tensor, weight: float) -> Tensor:
    """Cross-entropy of the program given the plan + `weight` times that of what is used given the plan, nats.

    Args:
        net: the net.
        examples: float32, shape (rows, PUBLIC, FEATURES).
        programs: int64, shape (rows, LENGTH).
        plan: a part of each program's operations, float32, shape (rows, KINDS).
        weight: of the second term.
    """
    z = net.encode(examples)
    state, context = net.begin(z, plan)
    before = torch.full((len(programs),), KINDS)
    spelled = torch.zeros(())
    for place in range(LENGTH):
        state, logits = net.step(state, context, before)
        before = programs[:, place]
        spelled = spelled + F.cross_entropy(logits, before) / LENGTH
    used = torch.zeros(len(programs), KINDS).scatter_(1, programs, 1.0)
    return spelled + weight * F.binary_cross_entropy_with_logits(net.observe(z, plan), used)


def part_of(programs: Tensor, generator: torch.Generator) -> Tensor:
    """A random part of every program's operations: a share of them that is itself uniform."""
    share = torch.rand(len(programs), 1, generator=generator)
    kept = (torch.rand(programs.shape, generator=generator) < share).float()
    return torch.zeros(len(programs), KINDS).scatter_reduce_(1, programs, kept, "amax")


def train(recipe: Recipe) -> ProposalNet:
    """A net trained on tasks whose programs are not held out."""
    tasks = draw_tasks(recipe.tasks, recipe.seed, test=False)
    examples, programs = features(tasks), torch.tensor([task.program for task in tasks])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeding.derive(recipe.seed, "weights of the proposal net"))
        net = ProposalNet(recipe.hidden)
    stream = seeding.torch_generator(recipe.seed, "batches of the proposal net")
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.lr)
    for _ in range(recipe.steps):
        rows = torch.randint(len(tasks), (recipe.batch,), generator=stream)
        chosen = programs[rows]
        value = loss(net, examples[rows], chosen, part_of(chosen, stream), recipe.weight)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
    return net.eval()


def load(name: str, directory: Path | None = None) -> ProposalNet:
    """The net of `NETS`, trained on first use and kept in the cache."""
    from safetensors.torch import load_file, save_file

    recipe = NETS[name]

    def make(path: Path) -> None:
        save_file(train(recipe).state_dict(), path)

    content = {**dataclasses.asdict(recipe), "operations": list(NAMES), "version": _VERSION}
    net = ProposalNet(recipe.hidden)
    net.load_state_dict(load_file(artefact("list-proposals", content, make, directory)))
    return net.eval()


Chances = Literal["calibrated", "tempered"]
"""What ideas are drawn from: the observation head's probabilities as they are, or at the temperature of the programs."""


class Proposals:
    """The answers of a net on a list of tasks, in batches, with its random numbers.

    Args:
        net: the net.
        tasks: problems of a search are places in this list.
        temperature: divides the decoder's logits.
        chances: see `Chances`.
        seed: of a `torch.Generator`.
    """

    def __init__(
        self, net: ProposalNet, tasks: Sequence[ListTask], temperature: float, chances: Chances, seed: int
    ) -> None:
        self.net, self.temperature = net, temperature
        self.idea_temperature = temperature if chances == "tempered" else 1.0
        self.generator = torch.Generator().manual_seed(seed)
        self.symbols = 0
        """Operations that were generated, in observations, plans and programs."""
        with torch.inference_mode():
            self.z = net.encode(features(tasks))

    def observations(
        self, problems: Sequence[int], given: Sequence[frozenset[int]], count: int
    ) -> list[list[int]]:
        """`count` distinct operations outside `given`, without replacement in proportion to P(used | given)^(1/T)."""
        found: list[list[int]] = []
        for rows, held in self._batches(problems, given):
            with torch.inference_mode():
                log_p = F.logsigmoid(self.net.observe(self.z[rows], held)) / self.idea_temperature
                # Sorting by log p + Gumbel noise draws without replacement.
                uniform = torch.rand(log_p.shape, generator=self.generator, dtype=torch.float64)
                keys = log_p.double() - torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
                keys[held.bool()] = -torch.inf
                best = keys.sort(1, descending=True)
            for row, values in zip(
                best.indices[:, :count].tolist(), best.values[:, :count].tolist(), strict=True
            ):
                found.append([kind for kind, key in zip(row, values, strict=True) if key > -math.inf])
        self.symbols += sum(map(len, found))
        return found

    def plans(self, problems: Sequence[int]) -> list[frozenset[int]]:
        """A set of operations for each problem, each in it independently by the head's chance without anything given."""
        found: list[frozenset[int]] = []
        for rows, held in self._batches(problems, [frozenset()] * len(problems)):
            with torch.inference_mode():
                chance = torch.sigmoid(self.net.observe(self.z[rows], held) / self.idea_temperature)
                used = torch.rand(chance.shape, generator=self.generator) < chance
            found += [frozenset(np.flatnonzero(row).tolist()) for row in used.numpy()]
        self.symbols += sum(map(len, found))
        return found

    def programs(self, problems: Sequence[int], plans: Sequence[frozenset[int]]) -> list[tuple[int, ...]]:
        """A program for each problem and plan, operation by operation from softmax(logits / T)."""
        found: list[tuple[int, ...]] = []
        for rows, plan in self._batches(problems, plans):
            with torch.inference_mode():
                state, context = self.net.begin(self.z[rows], plan)
                before = torch.full((len(rows),), KINDS)
                spelled = []
                for _ in range(LENGTH):
                    state, logits = self.net.step(state, context, before)
                    law = torch.softmax(logits / self.temperature, 1)
                    before = torch.multinomial(law, 1, generator=self.generator)[:, 0]
                    spelled.append(before)
            found += map(tuple, torch.stack(spelled, 1).tolist())
        self.symbols += LENGTH * len(found)
        return found

    def _batches(
        self, problems: Sequence[int], sets: Sequence[frozenset[int]], size: int = 4096
    ) -> list[tuple[Tensor, Tensor]]:
        rows, held = torch.tensor(problems), torch.zeros(len(problems), KINDS)
        pairs = [(row, kind) for row, one in enumerate(sets) for kind in one]
        if pairs:
            held[tuple(torch.tensor(pairs).T)] = 1.0
        return list(zip(rows.split(size), held.split(size), strict=True))
