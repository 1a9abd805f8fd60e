"""What the models are asked, in our own words. The paper's prompts were not copied."""

from __future__ import annotations

from collections.abc import Sequence

from methods.decoding.plansearch.problems import CodeProblem
from methods.decoding.plansearch.search import Grounds


def problem(one: CodeProblem) -> str:
    """The problem as every request begins with it."""
    starter = f"\n\n```python\n{one.starter.rstrip()}\n```" if one.starter else ""
    return f"Here is a programming problem, to be solved in Python.\n\n{one.statement}{starter}\n\n"


def bullets(observations: Sequence[object]) -> str:
    """Observations, one a line."""
    return "\n".join(f"- {text}" for text in observations)


def observe(one: CodeProblem, count: int) -> str:
    """First-layer observations."""
    return (
        f"{problem(one)}Do not solve it yet, and write no code. Make {count} short observations that could lead to a"
        " correct and efficient solution: properties of the input, hidden cases, quantities that can be computed, known"
        " techniques that fit. Leave out what the statement says outright. Give your reason for each."
    )


def derive(one: CodeProblem, given: Sequence[object], count: int) -> str:
    """Observations derived from others; from none they are asked for as in the first layer."""
    if not given:
        return observe(one, count)
    return (
        f"{problem(one)}These observations have been made about it and are correct:\n{bullets(given)}\n\nDo not solve it"
        " yet, and write no code. First say what follows from them, taken together. Then make"
        f" {count} short new observations that build on them and could lead to a correct and efficient solution. Repeat"
        " none of those above. Give your reason for each."
    )


LIST = "List the observations, one a line, each a sentence or two that can be understood without the others."
FILTER = (
    "Go through the list and keep the observations that are true and useful for a solution. Leave out those that are"
    " wrong, trivial or said twice. List what is left."
)
PYTHON_LIST = "Print that list as a Python list of strings in one code block, and nothing else. Escape quotes."


def sketch(one: CodeProblem, observations: Sequence[object]) -> str:
    """A solution in words, which quotes the observations that it stands on."""
    if not observations:
        return f"{problem(one)}Describe in words, step by step, how to solve it. Write no code."
    return (
        f"{problem(one)}Use these observations:\n{bullets(observations)}\n\nDescribe in words, step by step, how to solve"
        " the problem with them. Quote an observation word for word where a step rests on it. Write no code."
    )


CRITICISE = (
    "This solution is probably wrong. Find the mistake: say where its reasoning fails, and give an input for which it"
    " would return a wrong result, with the result that is right."
)
FIX = (
    "Now say how to mend it, and describe the whole mended solution in words, step by step, so that it can be understood"
    " without what was said before. Write no code."
)


def pseudocode(one: CodeProblem, grounds: Grounds) -> str:
    """Pseudocode from a sketch, or from observations where there is none."""
    return f"{problem(one)}{_grounds(grounds)}Write pseudocode for this solution, with every step spelled out."


def code(one: CodeProblem, grounds: Grounds) -> str:
    """The program; from nothing but the problem it is the prompt of repeated sampling."""
    return f"{problem(one)}{_grounds(grounds)}{_CODE}"


def think_and_code(one: CodeProblem) -> str:
    """The program after a chain of thought."""
    return f"{problem(one)}Think step by step about how to solve it. Then {_CODE[0].lower()}{_CODE[1:]}"


_CODE = "Write the complete program in one Python code block, with all imports that it needs. Do not call it."


def _grounds(grounds: Grounds) -> str:
    if grounds.pseudocode is not None:
        return f"Follow this pseudocode:\n\n{grounds.pseudocode}\n\n"
    if grounds.sketch is not None:
        return f"Follow this solution in words:\n\n{grounds.sketch}\n\n"
    if grounds.observations:
        return f"Use these observations:\n{bullets(grounds.observations)}\n\n"
    return ""


def describe(one: CodeProblem, program: str) -> str:
    """The idea of a program, for the judge."""
    return (
        f"{problem(one)}Here is a program for it:\n\n```python\n{program}\n```\n\nSay in two or three sentences which"
        " idea it is based on: the algorithm and how it goes about it, whether it is right or not. Leave out style."
    )


def same_idea(one: CodeProblem, first: str, second: str) -> str:
    """Whether two ideas are one, for the judge."""
    return (
        f"{problem(one)}Here are the ideas of two programs for it.\n\nFirst: {first}\n\nSecond: {second}\n\nAre they the"
        " same idea, in that both go about the problem in the same way? Answer with yes or no."
    )
