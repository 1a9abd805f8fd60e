"""Documents of familiar and of novel domains, each from a natural start.

The first tokens of a text decide what it is about, so documents start where such text starts: at a sentence, a `def` or
`class`, a line of a speaker. Cut at random places instead, all methods are much worse at finding what is new.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Literal

import numpy as np

from harness import data
from harness.errors import MissingData, RequestError, nearest
from methods.common.corpora import STANDARD_LIBRARY, corpus

Part = Literal["learning", "judging"]
"""Documents that models may learn from, and those kept for the judge and for held-out losses: disjoint sources."""

ENGLISH, DIGESTS = "english", "digests"
"""The familiar domains: sentences of articles, and base64 of SHA-256 digests, which nothing can predict."""

_PYTHON = re.compile(r"^ *((?:(?:def|class|import|from|if|for|while|with|return)\b|try:|@\w))", re.MULTILINE)
_JAVA = re.compile(
    r"^ *((?:public|private|protected|static|final|abstract|class|interface|enum|import|package|for|if|while|try|return|"
    r"void|int|long|boolean|String|List|Map|Set|[A-Z]\w*(?:<[\w, <>?]+>)?(?:\[\])? \w+ =|@[A-Z]\w*)\b)",
    re.MULTILINE,
)
_SPEAKER = re.compile(r"(?:(?<=\n\n)|\A)[A-Z][A-Za-z ]+:\n")
_SENTENCE = re.compile(r"(?<=[.?!] )[A-Z][a-z']* ")
_FUNCTION = re.compile(r"^(?:public|private|protected|internal|static|override)\b", re.MULTILINE)
_FOREIGN = re.compile(r"[^\x00-\x7f]+")
_PARAGRAPH = re.compile(r"(?:(?<=\n\n)|\A)\S.*$", re.MULTILINE)


def plain(text: str) -> str:
    """Text in ASCII with spaces for tabs: accents are dropped, what has no ASCII form becomes ``?``."""
    if text.isascii():
        return text.expandtabs(4).replace("\r\n", "\n")
    for typographic, ascii_form in (("–", "-"), ("—", "-"), ("‘", "'"), ("’", "'"), ("“", '"'), ("”", '"')):
        text = text.replace(typographic, ascii_form)
    return _FOREIGN.sub(_folded, text).expandtabs(4).replace("\r\n", "\n")


def _folded(found: re.Match[str]) -> str:
    parts = unicodedata.normalize("NFKD", found.group())
    return "".join(c for c in parts if not unicodedata.combining(c)).encode("ascii", "replace").decode()


def draw(
    domain: str, count: int, length: int, part: Part, rng: np.random.Generator, without: Collection[str] = ()
) -> tuple[str, ...]:
    """`count` documents of a domain, each of exactly `length` characters and from another start.

    Documents are drawn without replacement from all natural starts. Where starts are less than `length` characters
    apart, documents may overlap; those of the two parts never do.

    Args:
        domain: ``english``, ``digests``, ``python``, ``java``, ``csharp``, ``shakespeare``, ``sums``, or a text of
            `methods.common.corpora.corpus`, whose documents start at its paragraphs.
        count: documents.
        length: characters.
        part: whose documents.
        rng: the stream.
        without: documents of texts that are not drawn.

    Raises:
        MissingData: the texts are not here, or have too few starts.
        RequestError: no such domain.
    """
    if domain == DIGESTS:
        return tuple(_digests(int(first), length) for first in _numbers(count, part, rng))
    if domain == "sums":
        return tuple(_sums(rng, length) for _ in range(count))
    text, starts = _starts(domain, part)
    found: list[str] = []
    left_out = frozenset(without)
    for place in rng.permutation(len(starts)).tolist():
        if len(found) == count:
            break
        document = text[starts[place] : starts[place] + length]
        if len(document) == length and document not in left_out:
            found.append(document)
    if len(found) < count:
        raise MissingData(
            f"the domain '{domain}' has {len(found)} starts of {length} characters for {part}; asked for {count}"
        )
    return tuple(found)


def check(domains: Sequence[str]) -> None:
    """Raise `RequestError` where a name is neither a domain nor ``<data set>/<file>``, or comes twice."""
    for name in domains:
        if name not in (*_TEXTS, "sums") and "/" not in name and name != STANDARD_LIBRARY:
            raise RequestError(
                f"there is no domain '{name}'; novel ones are {', '.join((*_TEXTS, 'sums'))} or '<data set>/<file>'",
                hint=nearest(name, (*_TEXTS, "sums")),
            )
    if len(set(domains)) < len(domains):
        raise RequestError(f"a novel domain is named twice: {', '.join(domains)}")


def _numbers(count: int, part: Part, rng: np.random.Generator) -> np.ndarray:
    """Places in the stream of digests, a hundred apart; even hundreds to learn from, odd ones for the judge."""
    return 100 * (2 * rng.choice(100_000, count, replace=False) + (part == "judging"))


def _digests(first: int, length: int) -> str:
    lines: list[str] = []
    while sum(map(len, lines)) + len(lines) < length:
        digest = hashlib.sha256(str(first + len(lines)).encode()).digest()
        lines.append(base64.b64encode(digest).decode())
    return "\n".join(lines)[:length]


def _sums(rng: np.random.Generator, length: int) -> str:
    terms: list[str] = []
    while sum(map(len, terms)) + len(terms) < length:
        a, b = rng.integers(0, 999, 2).tolist()
        terms.append(f"{a} + {b} = {a + b} ;")
    return " ".join(terms)[:length]


@cache
def _starts(domain: str, part: Part) -> tuple[str, tuple[int, ...]]:
    """The text of a part and where its documents may start."""
    if domain in _TEXTS:
        texts, pattern = _TEXTS[domain]
        text = texts(part)
    else:
        pattern = _PARAGRAPH
        text = _part(corpus(domain).numpy().tobytes().decode(errors="replace"), part)
    text = plain(text)
    return text, tuple(match.start(match.lastindex or 0) for match in pattern.finditer(text))


def _part(text: str, part: Part) -> str:
    """The first three quarters to learn from, the rest for the judge."""
    cut = len(text) * 3 // 4
    return text[:cut] if part == "learning" else text[cut:]


def _wikitext(part: Part) -> str:
    """Articles without their headings; the judge has half of the file ``test``."""
    first, second = ("wikitext-2/wiki.valid.tokens.txt.gz", "wikitext-2/wiki.test.tokens.txt.gz")
    valid, test = (gzip.decompress(data.file(*n.split("/", 1)).read_bytes()).decode() for n in (first, second))
    half = len(test) // 2
    text = valid + test[:half] if part == "learning" else test[half:]
    lines = (line.strip() for line in text.split("\n"))
    return " ".join(line for line in lines if line and not line.startswith("="))


def _python(part: Part) -> str:
    """Two megabytes from the start of the standard library, in the order of its paths, or one from its end."""
    source = corpus(STANDARD_LIBRARY).numpy()
    return (
        (source[:2_000_000] if part == "learning" else source[-1_000_000:]).tobytes().decode(errors="replace")
    )


def _java(part: Part) -> str:
    """Code blocks of answers, every third question for the judge."""
    rows = [
        json.loads(line) for line in data.text("conala", "java_pages.jsonl.gz").splitlines() if line.strip()
    ]
    kept = [row for place, row in enumerate(rows) if (place % 3 == 2) == (part == "judging")]
    blocks = (block["code"] for row in kept for answer in row["answers"] for block in answer["blocks"])
    return "\n".join(blocks)


def _csharp(part: Part) -> str:
    name = "train" if part == "learning" else "test"
    rows = data.text("java-cs-translation", f"{name}.jsonl.gz").splitlines()
    return "\n".join(json.loads(row)["cs"] for row in rows if row.strip())


def _shakespeare(part: Part) -> str:
    return _part(data.text("gutenberg-novels", "tinyshakespeare.txt.gz"), part)


_TEXTS: dict[str, tuple[Callable[[Part], str], re.Pattern[str]]] = {
    ENGLISH: (_wikitext, _SENTENCE),
    "python": (_python, _PYTHON),
    "java": (_java, _JAVA),
    "csharp": (_csharp, _FUNCTION),
    "shakespeare": (_shakespeare, _SPEAKER),
}
