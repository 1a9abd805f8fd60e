"""HumanEval and MBPP: problems in words, what a model is shown of their tests, and the judgement of programs."""

from __future__ import annotations

import ast
import doctest
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness import data, sandbox
from harness.errors import MissingData
from methods.decoding.plansearch.scores import Judged

Source = Literal["humaneval", "mbpp"]


@dataclass(frozen=True)
class CodeProblem:
    """A problem.

    Attributes:
        name: in its data set.
        statement: what the model is shown.
        starter: the program's beginning that the model is shown; "" for none.
        preamble: source in front of every program, such as imports of the starter.
        entry: name of the function that the tests call.
        public: test statements that the model may see.
        tests: all test statements.
    """

    name: str
    statement: str
    starter: str
    preamble: str
    entry: str
    public: str
    tests: str

    def program(self, code: str) -> str:
        """The source that is run for a reply's code, which may be only the body of the starter's function."""
        if self.starter and not _defines(code, self.entry):
            return self.starter + code
        return f"{self.preamble}\n{code}" if self.preamble else code


def _defines(code: str, name: str) -> bool:
    """Whether source defines `name` at the top. A body alone is indented or has a return outside of a function."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return f"def {name}" in code
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return True
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return True
    return False


def load_problems(source: Source, count: int) -> list[CodeProblem]:
    """`count` problems, spread evenly over the data set; of MBPP the test split, numbers 11 to 510.

    Raises:
        MissingData: the data set is not here, or has fewer problems.
    """
    rows = _humaneval() if source == "humaneval" else mbpp_rows(11, 510)
    if count > len(rows):
        raise MissingData(f"'{source}' has {len(rows)} problems, not {count}")
    chosen = [rows[place * len(rows) // count] for place in range(count)]
    return [from_humaneval(row) if source == "humaneval" else from_mbpp(row) for row in chosen]


def _humaneval() -> list[Mapping[str, Any]]:
    return list(
        data.table("humaneval", "HumanEval.jsonl.gz", data.Hub("openai/openai_humaneval", split="test"))
    )


def mbpp_rows(first: int, last: int) -> list[Mapping[str, Any]]:
    """The rows of MBPP with these numbers: 11 to 510 are its test split, 511 to 600 its validation split.

    Raises:
        MissingData: it is not here.
    """
    hub = data.Hub("google-research-datasets/mbpp", split="train+test+validation+prompt", config="full")
    rows = data.table("mbpp", "mbpp.jsonl.gz", hub)
    return sorted((row for row in rows if first <= row["task_id"] <= last), key=lambda row: row["task_id"])


def from_humaneval(row: Mapping[str, Any]) -> CodeProblem:
    """A row of HumanEval: complete the function that the prompt begins. Its docstring's examples are public."""
    prompt, entry = row["prompt"], row["entry_point"]
    return CodeProblem(
        name=row["task_id"],
        statement=f"Complete the function `{entry}` of this program.",
        starter=prompt,
        preamble=prompt[: prompt.index(f"def {entry}(")],
        entry=entry,
        public=examples(prompt),
        tests=f"{row['test']}\ncheck({entry})\n",
    )


def examples(source: str) -> str:
    """Assertions from the examples of a docstring (``>>> call`` and its result on the next line).

    Examples whose result is not an expression, such as an exception or what is printed, are left out.
    """
    try:
        found = doctest.DocTestParser().get_examples(source)
    except ValueError:
        return ""  # prose that looks like an example and is none
    lines = []
    for one in found:
        try:
            call = ast.unparse(ast.parse(one.source.strip(), mode="eval"))
            want = ast.unparse(ast.parse(one.want.strip(), mode="eval"))
        except SyntaxError:
            continue
        lines.append(f"assert ({call}) == ({want})")
    return "\n".join(lines)


def from_mbpp(row: Mapping[str, Any]) -> CodeProblem:
    """A row of MBPP: write a function. The first of its tests is public; without it the name would not be known."""
    setup, tests = row["test_setup_code"].replace("\r", ""), list(row["test_list"])
    return CodeProblem(
        name=f"MBPP/{row['task_id']}",
        statement=f"{row['text'].strip()}\n\nThis test must pass:\n{tests[0]}",
        starter="",
        preamble="",
        entry="",
        public=f"{setup}\n{tests[0]}",
        tests="\n".join([setup, *tests]),
    )


def judge(
    problems: Sequence[CodeProblem], codes: Sequence[Sequence[str]], seconds: float, parallel: int
) -> list[Judged]:
    """Run every distinct program of a problem once with all tests, and those that fail with the public ones alone.

    Args:
        problems: the problems.
        codes: programs for each; "" counts as wrong and is not run.
        seconds: that one run may take.
        parallel: runs side by side; 0: one for each processor.

    Raises:
        Unavailable: programs may not be run, or cannot be locked in.
    """
    limits = sandbox.Limits(time=seconds, cpu_time=max(seconds, 1.0))
    parallel = parallel or os.cpu_count() or 1
    distinct = [(place, code) for place, own in enumerate(codes) for code in dict.fromkeys(own) if code.strip()]

    def passing(chosen: Sequence[tuple[int, str]], public: bool) -> set[tuple[int, str]]:
        programs = [
            sandbox.Program(
                problems[place].program(code), problems[place].public if public else problems[place].tests
            )
            for place, code in chosen
        ]
        results = sandbox.run_programs(programs, limits=limits, parallel=parallel)
        return {one for one, result in zip(chosen, results, strict=True) if result.passed}

    right = passing(distinct, public=False)
    # What passes all tests passes the public ones of MBPP; those of HumanEval are examples, which the tests cover.
    public = right | passing([one for one in distinct if one not in right], public=True)
    return [
        Judged([(place, code) in right for code in own], [(place, code) in public for code in own])
        for place, own in enumerate(codes)
    ]
