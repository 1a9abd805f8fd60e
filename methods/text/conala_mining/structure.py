"""Structural features of candidates: where in its block and answer a snippet stands, and what it looks like.

Where the blocks of a page are unknown (the Python pages), a candidate is a whole block if its lines are no proper
contiguous part of another candidate of the page, and starts or ends a block if they begin or end a whole one. Features of
answers are then absent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from methods.text.conala_mining.pages import Page, squeezed

PLACES = ("start_of_block", "end_of_block", "whole_block")
COMMON = (
    *PLACES,
    "assignment",
    "single_value",
    "import",
    "no_assignment_and_end",
    "no_assignment_and_one_line",
    "lines_0",
    "lines_1",
    "lines_2",
    "lines_3",
    "lines_to_5",
    "lines_to_10",
    "lines_to_15",
    "lines_over_15",
)
"""Features that both languages have."""
OF_ANSWERS = ("accepted", "only_block", "accepted_only_whole", "rank_0", "rank_1", "rank_2")
"""Features of the answer that a candidate is from."""
NAMES = (*COMMON, *OF_ANSWERS)


@dataclass(frozen=True)
class Place:
    """Where a candidate occurs: does it start, end, or fill its block, and in which answer."""

    start: bool
    end: bool
    whole: bool
    accepted: bool = False
    alone: bool = False
    rank: int = -1


def _lines(code: str) -> tuple[str, ...]:
    stripped = (line.strip() for line in code.split("\n"))
    return tuple(line for line in stripped if line and line != "pass")


def _contains(whole: tuple[str, ...], part: tuple[str, ...]) -> bool:
    n = len(part)
    return any(whole[i : i + n] == part for i in range(len(whole) - n + 1))


def places_among(candidates: tuple[str, ...]) -> list[list[Place]]:
    """The places of the candidates of a page whose blocks are unknown, from each other."""
    lines = [_lines(code) for code in candidates]
    # A run of lines is looked for only in candidates that hold its first line.
    holders: dict[str, list[int]] = {}
    for i, code in enumerate(lines):
        for line in set(code):
            holders.setdefault(line, []).append(i)
    whole = [
        not any(
            len(lines[i]) > len(code) and _contains(lines[i], code)
            for i in (holders[code[0]] if code else range(len(lines)))
        )
        for code in lines
    ]
    blocks = [code for code, is_whole in zip(lines, whole, strict=True) if is_whole]
    found = []
    for code, is_whole in zip(lines, whole, strict=True):
        start = any(block[: len(code)] == code for block in blocks)
        end = any(block[len(block) - len(code) :] == code for block in blocks if len(block) >= len(code))
        found.append([Place(start, end, is_whole)])
    return found


def places_in_blocks(page: Page) -> list[list[Place]]:
    """The places of each candidate in the blocks of its page.

    A candidate may have closing braces that its run of lines lacks. White space does not count. What is found in no
    block, because it was printed otherwise, has no place.
    """
    wholes, starts, ends = [], [], []
    for block in page.blocks:
        text, at, after = "", {0}, set()
        for line in block.code.split("\n"):
            piece = squeezed(line)
            if piece:
                at.add(len(text))
                text += piece
                after.add(len(text))
        wholes.append(text)
        starts.append(at)
        ends.append(after)
    found = []
    for code in page.candidates:
        full = squeezed(code)
        places = []
        for block, text, at, after in zip(page.blocks, wholes, starts, ends, strict=True):
            place = _find(full, text, at, after)
            if place is not None:
                start, end = place
                whole = start == 0 and end == len(text)
                places.append(
                    Place(start == 0, end == len(text), whole, block.accepted, block.alone, block.rank)
                )
        found.append(places)
    return found


def _find(full: str, text: str, at: set[int], after: set[int]) -> tuple[int, int] | None:
    """Where whole lines of `text` give `full`, whose last closing braces may be missing there."""
    for missing in range(len(full) - len(full.rstrip("}")) + 1):
        part = full[: len(full) - missing]
        start = text.find(part) if part else -1
        while start >= 0:
            if start in at and start + len(part) in after:
                return start, start + len(part)
            start = text.find(part, start + 1)
    return None


_SIGN = r"(?:[-+*/%&|^]|//|\*\*|<<|>>)?=(?!=)"
_NAME = r"[A-Za-z_][\w.]*(?:\[[^\]]*\])*"
_ASSIGNS = {
    "python": re.compile(rf"^\(?{_NAME}(?:\s*,\s*{_NAME})*\)?\s*{_SIGN}"),
    "java": re.compile(rf"^(?:[\w.<>\[\],? ]+\s+)?{_NAME}\s*{_SIGN}"),
}
_ASSIGNS["made-up"] = _ASSIGNS["python"]
_VALUE = re.compile(r"""^(?:[A-Za-z_]\w*|-?\d+(?:\.\d+)?[fFlLdD]?|"[^"]*"|'[^']*');?$""")
_IMPORT = re.compile(r"^(?:import\s+\S|from\s+\S+\s+import\b)")


def looks(code: str, language: str) -> dict[str, bool]:
    """The features of the code itself, by regular expressions: much of it is Python 2, which no parser here reads."""
    lines = [line.strip() for line in code.strip().split("\n") if line.strip()]
    body = [line for line in lines if not _IMPORT.match(line)]
    count = len(lines)
    return {
        "assignment": bool(body) and bool(_ASSIGNS[language].match(body[0])),
        "single_value": count == 1 and bool(_VALUE.match(lines[0])),
        "import": len(body) < count,
        "lines_0": count == 0,
        "lines_1": count == 1,
        "lines_2": count == 2,
        "lines_3": count == 3,
        "lines_to_5": 3 < count <= 5,
        "lines_to_10": 5 < count <= 10,
        "lines_to_15": 10 < count <= 15,
        "lines_over_15": count > 15,
    }


def features(page: Page, *, common: bool = False) -> np.ndarray:
    """The structural features of every candidate: float64 [candidates, len(NAMES)], or of `COMMON` alone.

    A candidate that occurs several times has a feature of place if it has it anywhere.
    """
    places = places_in_blocks(page) if page.blocks else places_among(page.candidates)
    names = COMMON if common else NAMES
    rows = []
    for code, where in zip(page.candidates, places, strict=True):
        row = looks(code, page.language)
        row["start_of_block"] = any(p.start for p in where)
        row["end_of_block"] = any(p.end for p in where)
        row["whole_block"] = any(p.whole for p in where)
        row["no_assignment_and_end"] = not row["assignment"] and row["end_of_block"]
        row["no_assignment_and_one_line"] = not row["assignment"] and row["lines_1"]
        row["accepted"] = any(p.accepted for p in where)
        row["only_block"] = any(p.alone for p in where)
        row["accepted_only_whole"] = any(p.accepted and p.alone and p.whole for p in where)
        for rank in range(3):
            row[f"rank_{rank}"] = any(p.rank == rank for p in where)
        rows.append([row[name] for name in names])
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(names))
