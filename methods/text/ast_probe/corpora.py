"""Named pools of snippets: the standard library, MBPP, HumanEval and CodeSearchNet."""

from __future__ import annotations

import hashlib
import json
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from harness import cache, data
from harness.errors import MissingData, RequestError
from harness.seeding import rng
from methods.text.ast_probe import grammars
from methods.text.ast_probe.python_source import Snippet, functions
from methods.text.ast_probe.trees import from_plain, to_plain

CODE_SEARCH_NET = "code-search-net"
_PER_FILE = 10
"""Functions of one file of the standard library at most, so that a pool comes from many authors."""
_VERSION = 1
_NOT_OURS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib2to3"}


@dataclass(frozen=True)
class Limits:
    """Which snippets are kept: their tokens, and the characters of these with blanks between them."""

    least_tokens: int
    most_tokens: int
    most_characters: int

    def keep(self, snippet: Snippet) -> bool:
        """Whether `snippet` is within them."""
        if not self.least_tokens <= len(snippet.tokens) <= self.most_tokens:
            return False
        return len(" ".join(snippet.tokens)) <= self.most_characters


@lru_cache(maxsize=4)
def pool(corpus: str, limits: Limits, size: int) -> tuple[Snippet, ...]:
    """`size` different snippets of a corpus, the same on every call; from the cache where they have been made before.

    Args:
        corpus: ``python-stdlib``, ``mbpp``, ``humaneval``, or ``code-search-net/<language>`` with a language of
            `grammars`.
        limits: which are kept.
        size: how many; of ``mbpp`` and ``humaneval`` all that there are where these are fewer.

    Raises:
        MissingData, MissingPackage: the corpus or a grammar is not here.
        RequestError: there is no such corpus, or it has not so many snippets.
    """
    recipe = {
        "corpus": corpus, "limits": [limits.least_tokens, limits.most_tokens, limits.most_characters], "size": size,
        "python": platform.python_version(), "version": _VERSION,
    }  # fmt: skip

    def make(path: Path) -> None:
        found: dict[tuple[str, ...], Snippet] = {}
        for snippet in _snippets(corpus):
            if limits.keep(snippet):
                found.setdefault(snippet.tokens, snippet)
            if len(found) == size:
                break
        if len(found) < size and corpus not in ("mbpp", "humaneval"):
            raise RequestError(f"{size} snippets were asked for, '{corpus}' has {len(found)} within {limits}")
        rows = [[snippet.tokens, to_plain(snippet.tree)] for snippet in found.values()]
        path.write_text(json.dumps(rows), encoding="utf-8")

    rows = json.loads(cache.artefact("ast-snippets", recipe, make).read_text(encoding="utf-8"))
    return tuple(Snippet(tuple(tokens), from_plain(tree)) for tokens, tree in rows)


def digest(snippets: tuple[Snippet, ...]) -> str:
    """Sixteen hexadecimal digits of the tokens of snippets in their order."""
    return hashlib.sha256(repr([snippet.tokens for snippet in snippets]).encode()).hexdigest()[:16]


def _snippets(corpus: str) -> Iterator[Snippet]:
    if corpus == "python-stdlib":
        yield from _standard_library()
    elif corpus in ("mbpp", "humaneval"):
        yield from _problems(corpus)
    elif corpus.startswith(f"{CODE_SEARCH_NET}/") and corpus.partition("/")[2] in grammars.LANGUAGES:
        yield from _code_search_net(corpus.partition("/")[2])
    else:
        names = ["python-stdlib", "mbpp", "humaneval", *(f"{CODE_SEARCH_NET}/{x}" for x in grammars.LANGUAGES)]
        raise RequestError(f"there is no corpus '{corpus}'", hint="there are: " + ", ".join(names))


def _standard_library() -> Iterator[Snippet]:
    """Functions of the files in a random order that is always the same, and within a file likewise."""
    base = Path(sysconfig.get_path("stdlib"))
    files = sorted(
        path for path in base.rglob("*.py") if not _NOT_OURS & set(path.relative_to(base).parts[:-1])
    )
    if not files:
        raise MissingData(f"this Python has no sources of its standard library in {base}")
    for place in rng(0, "ast-probe", "files").permutation(len(files)):
        found = _functions_of(files[place].read_text(encoding="utf-8", errors="replace"))
        order = rng(0, "ast-probe", files[place].name).permutation(len(found))
        yield from (found[number] for number in order[:_PER_FILE])


def _functions_of(source: str) -> list[Snippet]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the parser thinks of other people's string escapes
        try:
            return list(functions(source))
        except (SyntaxError, ValueError):
            return []  # sources of another version, kept for tests of tools


def _problems(name: str) -> Iterator[Snippet]:
    file = "mbpp.jsonl.gz" if name == "mbpp" else "HumanEval.jsonl.gz"
    for line in data.text(name, file).splitlines():
        row = json.loads(line)
        yield from _functions_of(row["code"] if name == "mbpp" else row["prompt"] + row["canonical_solution"])


def _code_search_net(language: str) -> Iterator[Snippet]:
    grammars.parser(language)
    hub = data.Hub("code-search-net/code_search_net", "train", language)
    table = data.table(CODE_SEARCH_NET, f"{language}/train.jsonl.gz", hub)
    field = next((n for n in ("func_code_string", "original_string") if n in table.column_names), None)
    if field is None:
        raise MissingData(f"CodeSearchNet's {language} has neither func_code_string nor original_string")
    for place in rng(0, "ast-probe", language).permutation(len(table)):
        if (snippet := grammars.parse(table[int(place)][field], language)) is not None:
            yield snippet
