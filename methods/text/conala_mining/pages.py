"""Pages of a question-and-answer site: a question, its answers' code blocks, the snippets cut out of them, and the gold.

The Python pages of the paper's released data have no blocks, ranks or accepted answers, but have the scores of its
translation models; the Java pages have everything but these scores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from harness import data
from harness.seeding import rng

Language = Literal["python", "java", "made-up"]


@dataclass(frozen=True)
class Block:
    """A code block of an answer.

    Attributes:
        code: its text.
        rank: of its answer by score, 0 for the best.
        accepted: whether its answer is the accepted one.
        alone: whether its answer has no other block.
    """

    code: str
    rank: int
    accepted: bool
    alone: bool


@dataclass(frozen=True)
class Page:
    """A question with its candidates.

    Attributes:
        question: its number.
        language: of the code.
        intents: how the question is put into words; the title first.
        candidates: the code of each candidate.
        gold: snippets that annotators marked as an answer.
        blocks: of its three best answers; empty where they are unknown.
        likelihoods: float64 [candidates, 2]: the released log-likelihoods per token, of the code given the intent and of
            the intent given the code; None where there are none.
    """

    question: int
    language: Language
    intents: tuple[str, ...]
    candidates: tuple[str, ...]
    gold: tuple[str, ...]
    blocks: tuple[Block, ...] = ()
    likelihoods: np.ndarray | None = field(default=None, compare=False)

    @property
    def intent(self) -> str:
        """The title, or the first intent."""
        return self.intents[0] if self.intents else ""


def squeezed(code: str) -> str:
    """The code without any white space: what the normal forms of two printers have in common."""
    return re.sub(r"\s+", "", code)


_PRINT = re.compile(r"^print\s*\((.*)\)$|^print\s+(.*)$|^System\.out\.println?\s*\((.*)\);$", re.DOTALL)
_RETURN = re.compile(r"^return\s+(.*)$", re.DOTALL)
_TARGET = re.compile(r"^(?:[\w.<>\[\], ]+\s)?[\w.\[\]'\"]+\s*=(?!=)\s*(.*)$", re.DOTALL)


def bare(code: str) -> str:
    """One statement without its outer print, ``return`` or assignment target."""
    text = code.strip()
    for pattern in (_PRINT, _RETURN, _TARGET):
        found = pattern.match(text)
        if found:
            return next(group for group in found.groups() if group is not None).strip()
    return text


def labels(page: Page, *, relaxed: bool = False) -> np.ndarray:
    """Which candidates equal a gold snippet once white space is gone: bool [candidates].

    Args:
        page: the page.
        relaxed: whether a one-line candidate also counts where it equals a gold snippet without its outer print,
            assignment target or ``return``.
    """
    gold = {squeezed(snippet) for snippet in page.gold}

    def right(code: str) -> bool:
        if squeezed(code) in gold:
            return True
        return relaxed and "\n" not in code.strip() and squeezed(bare(code)) in gold

    return np.array([right(code) for code in page.candidates], dtype=bool)


def _rows(filename: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.text("conala", filename).split("\n") if line.strip()]


def python_pages() -> list[Page]:
    """The 110 Python questions of the replication data.

    Raises:
        MissingData: the data set ``conala`` is not here.
    """
    pages = []
    for row in _rows("python_candidates.jsonl.gz"):
        scores = [[c["ll_nl2code"], c["ll_code2nl"]] for c in row["candidates"]]
        pages.append(
            Page(
                question=row["question_id"],
                language="python",
                intents=tuple(row["intents"]),
                candidates=tuple(c["code"] for c in row["candidates"]),
                gold=tuple(row["gold"]),
                likelihoods=np.array(scores, dtype=np.float64).reshape(-1, 2),
            )
        )
    return pages


def java_pages() -> list[Page]:
    """The 100 Java questions of the replication data.

    Raises:
        MissingData: the data set ``conala`` is not here.
    """
    pages = []
    for row in _rows("java_pages.jsonl.gz"):
        accepted = row["accepted_answer_post_id"]
        blocks = tuple(
            Block(block["code"], answer["rank"], answer["id"] == accepted, len(answer["blocks"]) == 1)
            for answer in row["answers"]
            for block in answer["blocks"]
        )
        candidates, gold = tuple(row["candidates"]), tuple(row["gold"])
        pages.append(Page(row["question_id"], "java", (row["title"],), candidates, gold, blocks))
    return pages


def annotated_pairs(without: Sequence[Page]) -> list[tuple[str, str]]:
    """Intents and Python snippets of the annotated training set, none of a question in `without`.

    Raises:
        MissingData: the data set ``conala`` is not here.
    """
    held_out = {page.question for page in without}
    rows = [row for row in _rows("annotated.train.jsonl.gz") if row["question_id"] not in held_out]
    return [(row["rewritten_intent"] or row["intent"], row["snippet"]) for row in rows]


def mined_pairs(without: Sequence[Page], at_most: int) -> list[tuple[str, str]]:
    """The most probable pairs of the corpus that the paper's authors mined, none of a question in `without`.

    Raises:
        MissingData: neither a folder ``conala-mined`` nor the hub has it.
    """
    held_out = {page.question for page in without}
    hub = data.Hub("neulab/conala", split="train", config="mined")
    table = data.table("conala-mined", "mined.jsonl.gz", hub)
    pairs = []
    for row in table:  # sorted by probability
        if row["question_id"] not in held_out:
            pairs.append((row["intent"], row["snippet"]))
        if len(pairs) == at_most:
            break
    return pairs


_METHOD = re.compile(r"(\w+)\s*\([^)]*\)[^{;]*\{(.*)\}\s*$", re.DOTALL)


def java_name_pairs() -> list[tuple[str, str]]:
    """Names of Java methods, as words, and the methods' bodies: a small substitute for titles and code of Java posts.

    Raises:
        MissingData: the data set ``java-cs-translation`` is not here.
    """
    lines = data.text("java-cs-translation", "train.jsonl.gz").split("\n")
    pairs = []
    for line in lines:
        found = _METHOD.search(json.loads(line)["java"]) if line.strip() else None
        if found and found[2].strip():
            words = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", found[1]).replace("_", " ").lower()
            pairs.append((words, found[2].strip()))
    return pairs


_THINGS = ("file", "list", "string", "date", "image", "table", "number", "socket", "window", "thread")
_ACTS = ("open", "sort", "split", "parse", "copy", "merge", "count", "close", "filter", "print")


def made_up_pages(pages: int, draw: np.random.Generator) -> list[Page]:
    """Pages with four blocks of five lines, one run of lines in them planted: its words are those of the title.

    All runs of lines are candidates. The likelihoods are noise plus a bonus for words shared with the title.
    """
    from methods.text.conala_mining.extraction import runs

    made = []
    for number in range(pages):
        act, thing = str(draw.choice(_ACTS)), str(draw.choice(_THINGS))
        blocks = []
        for _ in range(4):
            lines = [f"x{i} = load_{draw.integers(100)}()" for i in range(5)]
            blocks.append(lines)
        place, start = int(draw.integers(4)), int(draw.integers(4))
        length = int(draw.integers(1, 3))
        for i in range(start, min(start + length, 5)):
            blocks[place][i] = f"{act}_{thing}({i})"
        gold = "\n".join(blocks[place][start : min(start + length, 5)])
        codes = list(dict.fromkeys(code for lines in blocks for code in runs("\n".join(lines))))
        overlap = [code.count(f"{act}_{thing}") / (code.count("\n") + 1) for code in codes]
        scores = draw.normal(-4, 0.5, (len(codes), 2)) + 2 * np.array(overlap)[:, None]
        made.append(
            Page(
                question=number,
                language="made-up",
                intents=(f"How do I {act} a {thing}?",),
                candidates=tuple(codes),
                gold=(gold,),
                blocks=tuple(
                    Block("\n".join(lines), min(rank, 2), rank == place, rank < 2)
                    for rank, lines in enumerate(blocks)
                ),
                likelihoods=scores,
            )
        )
    return made


def pages_of(language: Language, seed: int) -> list[Page]:
    """The pages of a language; those that are made up depend on the seed.

    Raises:
        MissingData: a data set is not here.
    """
    if language == "made-up":
        return made_up_pages(40, rng(seed, "pages"))
    return python_pages() if language == "python" else java_pages()
