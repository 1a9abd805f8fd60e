"""Lines to learn from: sentences of novels and of Wikipedia found without labels, paragraphs, made-up opinions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness import cache, data
from harness.errors import MissingPackage, RequestError
from methods.text import sentence_data

NOVELS = ("middlemarch", "moby-dick", "war-and-peace")
CORPORA = (*NOVELS, "wikitext-valid", "wikitext-test", "opinions")

_BLANK_LINE = re.compile(r"\n\s*\n")
_JOINED = re.compile(r" @(.)@ ")
_BEFORE_MARK = re.compile(r" ([.,;:!?%)\]}]|'[a-z]+\b|n't\b)")
_AFTER_MARK = re.compile(r"([(\[{$£]) ")
_QUOTED = re.compile(r'" ([^"]*) "')


def lines(corpora: Sequence[str], most: int, natural: bool = False, directory: Path | None = None) -> list[str]:
    """About `most` lines of text, as many from the beginning of each of `corpora`; 0 for all there are.

    Args:
        corpora: names in `CORPORA`. Those of made-up opinions are their gold sentences.
        most: lines in all.
        natural: lines as the texts have them, one for a paragraph, instead of sentences.
        directory: of the cache; the sentences are found once.

    Raises:
        MissingData: a text is not here.
        MissingPackage: nupunkt, which finds the sentences, is not installed.
        RequestError: there is no such corpus.
    """
    if unknown := [name for name in corpora if name not in CORPORA]:
        raise RequestError(f"there is no corpus '{unknown[0]}'", hint=f"there are: {', '.join(CORPORA)}")
    if not corpora:
        raise RequestError("a model needs a corpus to learn from", hint=f"there are: {', '.join(CORPORA)}")
    share = -(-most // len(corpora)) if most else None
    found: list[str] = []
    for name in corpora:
        found += (paragraphs(name) if natural else _sentences(name, directory))[:share]
    return found[:most] if most else found


def paragraphs(name: str) -> list[str]:
    """The paragraphs of a corpus, white space tidied; headings are among them.

    Raises:
        MissingData: the text is not here.
    """
    if name == "opinions":
        opinions = sentence_data.opinions(documents=60)
        return [p for document in opinions for p in document.text.split("\n\n")]
    if name.startswith("wikitext-"):
        text = data.text("wikitext-2", f"wiki.{name.removeprefix('wikitext-')}.tokens.txt.gz")
        # A line that begins with "=" is a heading.
        raw = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("=")]
        return [_untokenized(line) for line in raw]
    text = data.text("gutenberg-novels", f"{name}.txt.gz")
    return [" ".join(p.split()) for p in _BLANK_LINE.split(text) if p.strip()]


def _untokenized(line: str) -> str:
    """A line of WikiText without the blanks that its tokens stand between."""
    line = _JOINED.sub(r"\1", line.strip())
    line = _QUOTED.sub(r'"\1"', line)
    return " ".join(_AFTER_MARK.sub(r"\1", _BEFORE_MARK.sub(r"\1", line)).split())


def _sentences(name: str, directory: Path | None) -> list[str]:
    if name == "opinions":
        return [d.text[a:b] for d in sentence_data.opinions(documents=60) for a, b in d.spans]
    try:
        import nupunkt
    except ImportError as error:
        raise MissingPackage(
            "sentences to learn from are found by the package nupunkt: pip install 'nupunkt<0.6'"
        ) from error
    texts = paragraphs(name)
    recipe = {
        "version": 1,
        "nupunkt": nupunkt.__version__,
        "text": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
    }

    def make(path: Path) -> None:
        tokenizer = nupunkt.load_default_model()
        path.write_text("\n".join(_split(texts, tokenizer.tokenize)), encoding="utf-8")

    path = cache.artefact("silver-sentences", recipe, make, directory)
    return path.read_text(encoding="utf-8").split("\n")


def _split(texts: Sequence[str], split: Callable[[str], Sequence[str]]) -> Iterator[str]:
    for text in texts:
        for sentence in split(text):
            if bare := " ".join(sentence.split()):
                yield bare
