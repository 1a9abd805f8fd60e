"""Named texts as documents, each of which a language model learns to begin and to end."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from harness import data
from harness.errors import MissingData, MissingPackage
from harness.seeding import rng
from methods.common.corpora import STANDARD_LIBRARY, corpus
from methods.decoding.ngram import source_lines
from methods.decoding.sql import statement

LONGEST = 2000
"""Characters of the longest document of the texts below."""


def documents(name: str) -> tuple[str, ...]:
    """The documents of a named text, in a fixed order.

    Args:
        name: ``python-lines`` (lines of the standard library), ``python-headers`` (its distinct lines that begin
            with ``def``), ``python-functions`` (its short functions, whole), ``json`` (questions and snippets of
            the data set ``conala`` as JSON objects), ``sql`` (made-up statements over one schema), ``molecules``
            (the SMILES of NCI compounds that RDKit carries), or a text of `methods.common.corpora.corpus`, whose
            paragraphs are the documents.

    Raises:
        MissingData, MissingPackage: what the text is made from is not here.
        ValueError: no such text.
    """
    if name in TEXTS:
        return TEXTS[name]()
    if "/" not in name:
        raise ValueError(f"the texts are {', '.join(TEXTS)} or '<data set>/<file>', not '{name}'")
    return _paragraphs(name)


@cache
def _paragraphs(name: str) -> tuple[str, ...]:
    text = corpus(name).numpy().tobytes().decode(errors="replace")
    parts = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    kept = tuple(part for part in parts if 0 < len(part) <= LONGEST)
    if not kept:
        raise MissingData(f"the text '{name}' has no paragraph of at most {LONGEST} characters")
    return kept


@cache
def _headers() -> tuple[str, ...]:
    return tuple(dict.fromkeys(line for line in source_lines() if line.startswith("def ")))


@cache
def _functions() -> tuple[str, ...]:
    """Top-level functions; files that this Python cannot parse on its own (templates) are."""
    source = corpus(STANDARD_LIBRARY).numpy().tobytes().decode(errors="replace")
    found: dict[str, None] = {}
    for block in re.findall(r"^def .*(?:\n(?:[ \t].*)?)*", source, re.MULTILINE):
        text = block.strip()
        if len(text) <= LONGEST and _parses(text):
            found.setdefault(text)
    return tuple(found)


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


@cache
def _json() -> tuple[str, ...]:
    rows = [json.loads(line) for line in data.text("conala", "annotated.train.jsonl.gz").splitlines() if line]
    return tuple(
        json.dumps(
            {"question": row["question_id"], "intent": row["intent"], "snippet": row["snippet"]},
            ensure_ascii=False,
        )
        for row in rows
        if len(row["intent"]) + len(row["snippet"]) <= 160
    )


@cache
def _sql() -> tuple[str, ...]:
    stream = rng(0, "sql statements")
    return tuple(statement(stream) for _ in range(20_000))


@cache
def _molecules() -> tuple[str, ...]:
    try:
        from rdkit import RDConfig
    except ImportError as error:
        raise MissingPackage(f"the text 'molecules' needs rdkit, pip install rdkit: {error}") from error
    path = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
    if not path.exists():
        raise MissingData(f"this rdkit carries no {path}")
    return tuple(dict.fromkeys(line.split()[0] for line in path.read_text().splitlines() if line.strip()))


TEXTS: dict[str, Callable[[], tuple[str, ...]]] = {
    "python-lines": source_lines,
    "python-headers": _headers,
    "python-functions": _functions,
    "json": _json,
    "sql": _sql,
    "molecules": _molecules,
}
"""The named texts that are not files of a data set."""
