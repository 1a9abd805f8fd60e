"""Documents with gold sentences: United States legal decisions, English web text, and made-up opinions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness import data
from harness.seeding import rng

if TYPE_CHECKING:
    import numpy as np

Span = tuple[int, int]
"""Character offsets of a sentence: start, and end exclusive."""

LEGAL = {
    "bva": "CD_bva_test.jsonl.gz",
    "ip": "CD_intellectual_property_test.jsonl.gz",
    "scotus": "CD_scotus_test.jsonl.gz",
}
"""The sets of MultiLegalSBD: Board of Veterans' Appeals, intellectual property, Supreme Court."""

NOVELS = ("middlemarch", "moby-dick", "war-and-peace")


@dataclass(frozen=True)
class Document:
    """A text and its gold sentences.

    Attributes:
        text: the raw text.
        spans: the sentences in order of their starts. They may nest, and text between them belongs to none.
    """

    text: str
    spans: tuple[Span, ...]


def _lines(table: str) -> list[str]:
    """The lines of JSON lines: at line feeds only, for the strings may hold other line separators."""
    return [line for line in table.split("\n") if line.strip()]


def legal(*sets: str) -> list[Document]:
    """The documents of the sets of `LEGAL` that are named, in that order.

    Raises:
        MissingData: there is no folder ``legal-sbd``.
    """
    documents = []
    for name in sets:
        for line in _lines(data.text("legal-sbd", LEGAL[name])):
            record = json.loads(line)
            spans = sorted((start, end) for start, end, _ in record["spans"])
            documents.append(Document(record["text"], tuple(spans)))
    return documents


def web_treebank() -> list[Document]:
    """The test part of UD English-EWT: the sentences of a paragraph joined by a space, paragraphs by a blank line.

    Raises:
        MissingData: there is no folder ``ud-english-ewt-sentences``.
    """
    lines = _lines(data.text("ud-english-ewt-sentences", "test.jsonl.gz"))
    return [assemble(json.loads(line)["paragraphs"]) for line in lines]


def treebank_sentences(part: Literal["test", "dev"]) -> list[list[str]]:
    """The sentences of each document of UD English-EWT.

    Raises:
        MissingData: there is no folder ``ud-english-ewt-sentences``.
    """
    records = [json.loads(line) for line in _lines(data.text("ud-english-ewt-sentences", f"{part}.jsonl.gz"))]
    return [[sentence for paragraph in r["paragraphs"] for sentence in paragraph] for r in records]


def outermost_sentences(document: Document) -> list[str]:
    """The sentences of a document that lie in no other one, each with single blanks for its white space."""
    found: list[str] = []
    reach = -1
    for start, end in sorted(document.spans, key=lambda span: (span[0], -span[1])):
        if end > reach:
            if sentence := " ".join(document.text[max(start, reach) : end].split()):
                found.append(sentence)
            reach = end
    return found


def sample(documents: Sequence[Sequence[str]], most: int, draw: np.random.Generator) -> list[list[str]]:
    """About equally many neighbouring sentences of each document, at random places; all of them where `most` is 0.

    The first documents that are short leave more to the later ones; in all there are `most` sentences if there
    are as many.
    """
    if not most:
        return [list(document) for document in documents]
    order = sorted(range(len(documents)), key=lambda i: len(documents[i]))
    taken: dict[int, list[str]] = {}
    left = most
    for rank, i in enumerate(order):
        size = min(len(documents[i]), -(-left // (len(order) - rank)))
        start = int(draw.integers(len(documents[i]) - size + 1))
        taken[i] = list(documents[i][start : start + size])
        left -= size
    return [taken[i] for i in range(len(documents)) if taken[i]]


def assemble(paragraphs: Sequence[Sequence[str]]) -> Document:
    """A document from its sentences: a space between sentences, a blank line between paragraphs."""
    text, spans = "", []
    for number, paragraph in enumerate(paragraphs):
        text += "\n\n" if number else ""
        for place, sentence in enumerate(paragraph):
            text += " " if place else ""
            spans.append((len(text), len(text) + len(sentence)))
            text += sentence
    return Document(text, tuple(spans))


def novels(characters: int) -> str:
    """About `characters` of English prose to train on: as much from the beginning of each of three novels.

    Raises:
        MissingData: there is no folder ``gutenberg-novels``.
    """
    share = -(-characters // len(NOVELS))
    return "\n\n".join(data.text("gutenberg-novels", f"{name}.txt.gz")[:share] for name in NOVELS)


def opinions(documents: int = 12, paragraphs: int = 12) -> list[Document]:
    """Made-up legal opinions, the same on every machine: for when no data set is at hand.

    They hold what makes legal text hard (reporters' abbreviations, initials, section signs, quotations), in a
    handful of patterns, so that no figure measured on them says anything about real text.
    """
    draw = rng(0, "made-up opinions")

    def one(choices: Sequence[str]) -> str:
        return choices[int(draw.integers(len(choices)))]

    def number(low: int, high: int) -> str:
        return str(int(draw.integers(low, high)))

    def sentence() -> str:
        pattern = one(_PATTERNS)
        while "{" in pattern:
            key = pattern[pattern.index("{") + 1 : pattern.index("}")]
            value = number(2, 999) if key == "number" else one(_WORDS[key])
            pattern = pattern.replace("{" + key + "}", value, 1)
        return pattern

    return [
        assemble([[sentence() for _ in range(int(draw.integers(2, 6)))] for _ in range(paragraphs)])
        for _ in range(documents)
    ]


_WORDS = {
    "name": ("Smith", "Jones", "Alvarez", "Plessy", "Sharpe", "Okafor", "Lindqvist", "Brown"),
    "initial": ("A", "B", "E", "H", "J", "M", "R", "T"),
    "title": ("Mr.", "Mrs.", "Dr.", "Judge", "Justice"),
    "reporter": ("U.S.", "F.2d", "F. Supp.", "S. Ct.", "Cal. App.", "N.Y.S."),
    "act": ("denied", "granted", "affirmed", "reversed", "vacated", "considered"),
    "object": ("the motion", "the petition", "that judgment", "the order", "the claim"),
}
_PATTERNS = (
    "The court {act} {object}.",
    "{title} {name} {act} {object} under {number} U.S.C. § {number} et seq. and then appealed.",
    "In {name} v. {name} Corp., {number} {reporter} {number}, the court {act} {object}.",
    "We {act} {object} in No. {number}.",
    "{initial}. {initial}. {name} was counsel for {name} Inc. at trial.",
    'The witness said that "{object} was {act}."',
    "Was {object} {act}?",
    "See id. at {number}.",
    "There were {number} claims; {number} of them were {act}.",
)


def cut(document: Document, characters: int) -> list[Document]:
    """A document cut into pieces of at least `characters`, at starts of gold sentences that no sentence spans."""
    pieces: list[Document] = []
    members: list[Span] = []
    begin = reach = 0
    for start, end in document.spans:
        if members and start - begin >= characters and start >= reach:
            pieces.append(_piece(document.text, begin, start, members))
            begin, members = start, []
        members.append((start, end))
        reach = max(reach, end)
    return [*pieces, _piece(document.text, begin, len(document.text), members)]


def _piece(text: str, begin: int, end: int, spans: Sequence[Span]) -> Document:
    return Document(text[begin:end], tuple((a - begin, b - begin) for a, b in spans))


def join(documents: Sequence[Document]) -> Document:
    """The documents as one, with a blank line between them."""
    parts: list[str] = []
    spans: list[Span] = []
    offset = 0
    for document in documents:
        spans.extend((a + offset, b + offset) for a, b in document.spans)
        parts.append(document.text)
        offset += len(document.text) + 2
    return Document("\n\n".join(parts), tuple(spans))


def copy(document: Document, number: int) -> Document:
    """Copy `number` of a document: copy 0 is the document, the others have their digits exchanged.

    A splitter that remembers whole documents or contexts meets text that it has not seen; lengths and
    sentences stay as they are.
    """
    if number == 0:
        return document
    digits = "0123456789"
    exchanged = "".join(str(d) for d in rng(0, "digits", number).permutation(10))
    return Document(document.text.translate(str.maketrans(digits, exchanged)), document.spans)
