"""Find programs: over lists, stated by examples, and in Python, stated in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from harness.errors import BadOutput
from harness.method import Measurement, Metric, Series, Task, task
from harness.types import Fraction, NonNegativeInt, PositiveFloat, PositiveInt
from methods.decoding.plansearch.list_programs import PUBLIC, ListTask, Program, draw_tasks
from methods.decoding.plansearch.problems import CodeProblem, Source, judge, load_problems
from methods.decoding.plansearch.scores import (
    Judged,
    diversity,
    pass_metrics,
    pass_series,
    relative_gain,
)


@dataclass
class ListWork:
    """Problems over lists and how to sample programs for them.

    Attributes:
        tasks: the problems.
        net: name of the proposal net.
        samples: programs for each problem.
    """

    tasks: list[ListTask]
    net: Literal["strong", "weak", "smoke"]
    samples: int


@dataclass
class Proposed:
    """Programs over lists.

    Attributes:
        programs: for each problem as many as were asked for.
        symbols: operations generated for them in all, those of observations and plans included.
    """

    programs: list[list[Program]]
    symbols: int


class Judge:
    """Runs the programs for one problem, each distinct one once."""

    def __init__(self, problem: ListTask) -> None:
        self.problem = problem
        self._known: dict[Program, tuple[bool, bool]] = {}

    def __call__(self, programs: Sequence[Program]) -> Judged:
        """How the programs did."""
        for code in set(programs) - self._known.keys():
            public = self.problem.solved_by(code, PUBLIC)
            self._known[code] = (public and self.problem.solved_by(code), public)
        found = [self._known[code] for code in programs]
        return Judged([right for right, _ in found], [public for _, public in found])


def list_diversity(programs: Sequence[Sequence[Program]]) -> float:
    """Mean over problems of the share of pairs whose operations, counted, differ."""
    return float(np.mean([diversity([tuple(sorted(code)) for code in own]) for own in programs]))


def check_counts(programs: Sequence[Sequence[object]], problems: int, samples: int) -> None:
    """Refuse too many or too few programs.

    Raises:
        BadOutput: not `samples` programs for each of `problems` problems.
    """
    if [len(own) for own in programs] != [samples] * problems:
        raise BadOutput(f"{samples} programs were asked for each of {problems} problems")


@task(
    "list-programs",
    metrics=(
        Metric("pass_at_1", "", "higher", "Probability that one program is right."),
        Metric("pass_at_5", "", "higher", "That one of 5 is."),
        Metric("pass_at_20", "", "higher", "That one of 20 is."),
        Metric("pass_at_k", "", "higher", "That one of k is; k is a parameter of the task."),
        Metric("filtered_pass_at_1", "", "higher", "pass@1 among those that are right on the shown examples."),
        Metric("filtered_pass_at_20", "", "higher", "pass@20 among those."),
        Metric("pass_at_budget", "", "higher", "pass@k at the k that `budget` symbols pay for."),
        Metric("diversity", "", "higher", "Probability that two programs have different operations."),
        Metric(
            "symbols", "symbols", "lower", "Operations generated for each program, those of ideas included."
        ),
    ),
    repeats="once",
    amount_unit="programs",
)
class ListPrograms(Task[ListWork, Proposed]):
    """Programs of four of twenty operations over lists, from four examples; twelve judge.

    Programs are proposed by a small net that was trained on other programs (`proposals.py`), and are run.
    """

    net: Literal["strong", "weak", "smoke"] = "strong"
    """Which proposal net."""
    temperature: PositiveFloat = 0.3
    """Divides the logits of the net's decoder."""
    tasks: PositiveInt = 150
    """Problems."""
    samples: PositiveInt = 200
    """n, programs for each problem."""
    k: PositiveInt = 200
    """Of `pass_at_k`."""
    budget: PositiveInt = 400
    """Symbols for a problem, of `pass_at_budget`."""

    def __post_init__(self) -> None:
        """Check that pass@k is defined."""
        if self.samples < max(self.k, 20):
            raise ValueError(f"pass@20 and pass@{self.k} need as many samples, not {self.samples}")

    def load(self, seed: int) -> ListWork:
        """Random problems; none of their programs was seen in training."""
        return ListWork(draw_tasks(self.tasks, seed, test=True), self.net, self.samples)

    def amount(self, work: ListWork) -> float:
        """Programs."""
        return float(len(work.tasks) * work.samples)

    def score(self, work: ListWork, output: Proposed) -> Measurement:
        """Run all programs.

        Raises:
            BadOutput: the wrong number of programs.
        """
        check_counts(output.programs, len(work.tasks), work.samples)
        judged = [Judge(problem)(own) for problem, own in zip(work.tasks, output.programs, strict=True)]
        cost = output.symbols / (len(work.tasks) * work.samples)
        metrics = pass_metrics(judged, self.k, self.budget, cost)
        metrics |= {"diversity": list_diversity(output.programs), "symbols": cost}
        return Measurement(metrics, {"pass_at_k": pass_series(judged, work.samples)})


@dataclass(frozen=True)
class Cell:
    """One way of searching at one temperature."""

    search: Literal["repeated-sampling", "idea-search", "plansearch"]
    temperature: float


@task(
    "list-program-cells",
    metrics=(
        Metric("correlation", "", "higher", "Spearman's, between diversity and relative gain over the cells."),
        Metric("cells", "", "neither", "Ways of searching times temperatures.", True),
        Metric("least_diversity", "", "neither", "Smallest diversity of a cell."),
        Metric("most_diversity", "", "neither", "Largest diversity of a cell."),
        Metric("base_pass_at_1", "", "neither", "pass@1 of repeated sampling, mean over the temperatures."),
    ),
    repeats="once",
    amount_unit="programs",
)
class ListProgramCells(Task[ListWork, Mapping[Cell, list[list[Program]]]]):
    """Does diversity predict what search gains? Three ways of searching at several temperatures, with one net.

    The relative gain of a cell is (its pass@k - pass@1 of repeated sampling at its temperature) over the latter. Where
    repeated sampling solves nothing, half a program in all counts as right.
    """

    net: Literal["strong", "weak", "smoke"] = "strong"
    """Which proposal net."""
    temperatures: tuple[float, ...] = (0.15, 0.3, 0.45, 0.6, 1.0)
    """Each divides the logits of the net's decoder in three cells."""
    tasks: PositiveInt = 150
    """Problems."""
    samples: PositiveInt = 200
    """n, programs for each problem and cell."""
    k: PositiveInt = 200
    """Of the relative gain."""

    def __post_init__(self) -> None:
        """Check that pass@k and a rank correlation are defined."""
        if self.samples < self.k:
            raise ValueError(f"pass@{self.k} needs as many samples, not {self.samples}")
        if not self.temperatures or min(self.temperatures) <= 0:
            raise ValueError("temperatures are at least one number above zero")

    def load(self, seed: int) -> ListWork:
        """Random problems; none of their programs was seen in training."""
        return ListWork(draw_tasks(self.tasks, seed, test=True), self.net, self.samples)

    def amount(self, work: ListWork) -> float:
        """Programs."""
        return float(3 * len(self.temperatures) * len(work.tasks) * work.samples)

    def score(self, work: ListWork, output: Mapping[Cell, list[list[Program]]]) -> Measurement:
        """Run all programs of all cells.

        Raises:
            BadOutput: a cell is missing, or has the wrong number of programs.
        """
        from scipy import stats

        if {cell.temperature for cell in output} != set(self.temperatures) or len(output) != 3 * len(
            set(self.temperatures)
        ):
            raise BadOutput("there is one cell for each of three ways of searching and each temperature")
        judges = [Judge(problem) for problem in work.tasks]
        passed: dict[Cell, tuple[float, float]] = {}
        varied: dict[Cell, float] = {}
        for cell, programs in output.items():
            check_counts(programs, len(work.tasks), work.samples)
            found = [run(own) for run, own in zip(judges, programs, strict=True)]
            passed[cell] = tuple(float(np.mean([one.passes(k) for one in found])) for k in (1, self.k))  # type: ignore[assignment]
            varied[cell] = list_diversity(programs)
        least = 0.5 / (len(work.tasks) * work.samples)
        bases = {t: passed[Cell("repeated-sampling", t)][0] for t in self.temperatures}
        cells = sorted(output, key=varied.__getitem__)
        gains = [relative_gain(passed[cell][1], max(bases[cell.temperature], least)) for cell in cells]
        x = [varied[cell] for cell in cells]
        if len(set(x)) < 2 or len(set(gains)) < 2:
            raise BadOutput("all cells have one diversity or one gain, so nothing can be predicted")
        metrics = {
            "correlation": float(stats.spearmanr(x, gains).statistic),
            "cells": float(len(cells)),
            "least_diversity": x[0],
            "most_diversity": x[-1],
            "base_pass_at_1": float(np.mean(list(bases.values()))),
        }
        return Measurement(metrics, {"gain": Series(x, gains, "diversity", "relative gain")})


@dataclass
class PythonWork:
    """Problems in words and how to sample programs for them.

    Attributes:
        problems: with their tests.
        settings: the task, whose parameters say which model and how many programs.
    """

    problems: list[CodeProblem]
    settings: PythonProblems


@dataclass
class Written:
    """Python programs.

    Attributes:
        codes: for each problem as many as were asked for; "" where a reply had no program.
        tokens: generated for them in all, those of ideas included.
        judged: how each did, once it has been run.
    """

    codes: list[list[str]]
    tokens: int
    judged: list[Judged] = field(default_factory=list)


@task(
    "python-problems",
    metrics=(
        Metric("pass_at_1", "", "higher", "Probability that one program passes all tests."),
        Metric("pass_at_5", "", "higher", "That one of 5 does."),
        Metric("pass_at_20", "", "higher", "That one of 20 does."),
        Metric("pass_at_k", "", "higher", "That one of k does; k is a parameter of the task."),
        Metric("filtered_pass_at_1", "", "higher", "pass@1 among those that pass the public tests."),
        Metric("filtered_pass_at_20", "", "higher", "pass@20 among those."),
        Metric("pass_at_budget", "", "higher", "pass@k at the k that `budget` tokens pay for."),
        Metric("programs", "", "higher", "Share of replies that had a program in them."),
        Metric(
            "tokens", "tokens", "lower", "Tokens generated for each program handed in, those of ideas included."
        ),
    ),
    repeats="once",
    amount_unit="programs",
    data=("humaneval", "mbpp"),
)
class PythonProblems(Task[PythonWork, Written]):
    """Python programs for problems in words, from a pretrained model that follows instructions.

    Programs run in `harness.sandbox` with the data set's tests. Public are the examples in the docstring (HumanEval) or
    the first test (MBPP), which the model is shown.
    """

    source: Source = "humaneval"
    """Data set; of MBPP the customary test split."""
    problems: PositiveInt = 40
    """How many, spread evenly over the data set."""
    pretrained: str = "Qwen/Qwen2.5-Coder-1.5B-Instruct"
    """Hugging Face id or local folder of a causal model with a chat template: the code model."""
    idea_pretrained: str = ""
    """The idea model; empty for the code model."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Of their weights."""
    temperature: PositiveFloat = 0.9
    """Of ideas and programs."""
    top_p: Fraction = 0.95
    """Tokens are drawn from the likeliest that have this share of the probability together."""
    limit: PositiveInt = 4096
    """Most tokens of a reply."""
    batch: PositiveInt = 32
    """Replies generated side by side."""
    samples: PositiveInt = 40
    """n, programs for each problem."""
    k: PositiveInt = 20
    """Of `pass_at_k`."""
    budget: PositiveInt = 10000
    """Generated tokens for a problem, of `pass_at_budget`."""
    time: PositiveFloat = 5.0
    """Seconds that a program with its tests may take."""
    parallel: NonNegativeInt = 0
    """Programs run side by side when they are judged; 0: one for each processor."""

    def __post_init__(self) -> None:
        """Check that pass@k and top-p are defined."""
        if self.samples < max(self.k, 20):
            raise ValueError(f"pass@20 and pass@{self.k} need as many samples, not {self.samples}")
        if self.top_p == 0:
            raise ValueError("top_p is above zero")

    def load(self, seed: int) -> PythonWork:
        """The problems. Does not depend on `seed`.

        Raises:
            MissingData: the data set is not here, or has fewer problems.
        """
        return PythonWork(load_problems(self.source, self.problems), self)

    def amount(self, work: PythonWork) -> float:
        """Programs."""
        return float(len(work.problems) * self.samples)

    def score(self, work: PythonWork, output: Written) -> Measurement:
        """Run every distinct program with its problem's tests.

        Raises:
            BadOutput: the wrong number of programs.
            Unavailable: programs may not be run, or cannot be locked in.
        """
        check_counts(output.codes, len(work.problems), self.samples)
        output.judged = judge(work.problems, output.codes, self.time, self.parallel)
        count = len(work.problems) * self.samples
        cost = max(output.tokens, 1) / count
        metrics = pass_metrics(output.judged, self.k, self.budget, cost)
        written = sum(code != "" for own in output.codes for code in own)
        metrics |= {"programs": written / count, "tokens": output.tokens / count}
        return Measurement(metrics, {"pass_at_k": pass_series(output.judged, self.samples)})
