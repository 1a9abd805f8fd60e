"""Candidates: every run of whole lines of a code block that, brought to a normal form, can be parsed."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable
from typing import Literal

from methods.text.conala_mining.pages import Page, squeezed

_PROMPT = re.compile(r"^\s*(?:>>>|\.\.\.|In\s*\[\d*\]:|\.{3,}:)\s?")
_OUTPUT = re.compile(r"^\s*Out\s*\[\d*\]:")


def runs(block: str) -> list[str]:
    """All runs of whole lines that are not empty, duplicates left out: at most L (L + 1) / 2 of L lines."""
    lines = [line for line in block.split("\n") if line.strip()]
    found = ("\n".join(lines[i : j + 1]) for i in range(len(lines)) for j in range(i, len(lines)))
    return list(dict.fromkeys(found))


def python_normal_form(code: str) -> str | None:
    """A run of lines as Python's own printer writes it; None where it does not parse.

    Prompts of the console and of IPython go with the output between them, comments and common indentation go, and a run
    that ends with a colon gets a ``pass``. Only Python 3 is parsed.
    """
    lines = code.split("\n")
    if any(_PROMPT.match(line) for line in lines):
        # What has no prompt among lines that do is output.
        lines = [_PROMPT.sub("", line, count=1) for line in lines if _PROMPT.match(line)]
    lines = [line for line in lines if line.strip() and not _OUTPUT.match(line)]
    text = textwrap.dedent("\n".join(lines)).rstrip()
    if text.endswith(":"):
        last = text.split("\n")[-1]
        text += "\n" + " " * (len(last) - len(last.lstrip()) + 4) + "pass"
    try:
        return ast.unparse(ast.parse(text)) or None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # Most runs of lines are no programs; that is how they are told from those that are.
        return None


def without_last_print(normal: str) -> str:
    """A block of a single compound statement without the ``print`` that ends it, where something else is left in it."""
    tree = ast.parse(normal)
    if len(tree.body) != 1 or not isinstance(getattr(tree.body[0], "body", None), list):
        return normal
    body = tree.body[0].body  # type: ignore[attr-defined]
    last = body[-1]
    prints = (
        isinstance(last, ast.Expr)
        and isinstance(last.value, ast.Call)
        and isinstance(last.value.func, ast.Name)
        and last.value.func.id == "print"
    )
    if not prints or len(body) == 1:
        return normal
    del body[-1]
    return ast.unparse(tree)


_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|/\*.*?\*/', re.DOTALL)


def java_normal_form(code: str) -> str | None:
    """A run of lines of Java, without comments and with the braces that it leaves open closed; None if it does not parse.

    It is tried as a file, as members of a class and as statements of a method, which is what posts hold.
    """
    text = _STRING_OR_COMMENT.sub(lambda found: "" if found[0][0] == "/" else found[0], code)
    text = "\n".join(line.rstrip() for line in textwrap.dedent(text).split("\n") if line.strip())
    depth = 0
    for sign in re.findall(r"[{}]", _STRING_OR_COMMENT.sub('""', text)):
        depth += 1 if sign == "{" else -1
        if depth < 0:
            return None
    text += "\n}" * depth
    if not text or not re.search(r"[;}]$", text):
        return None
    return text if _parses(text) else None


def _parses(text: str) -> bool:
    import javalang

    for before, after in (("class X { void m() {", "}}"), ("class X {", "}"), ("", "")):
        try:
            javalang.parse.parse(before + text + after)
        except (javalang.parser.JavaParserBaseException, javalang.tokenizer.LexerError, StopIteration):
            continue
        return True
    return False


def candidates(block: str, language: Literal["python", "java"], *, longest: int = 0) -> list[str]:
    """The normal forms of all runs of a block that have one, each once, in order.

    Args:
        block: the code.
        language: of the code.
        longest: blocks of more lines give none; 0 for no limit.
    """
    if longest and sum(bool(line.strip()) for line in block.split("\n")) > longest:
        return []
    form: Callable[[str], str | None] = python_normal_form if language == "python" else java_normal_form
    found = [normal for run in runs(block) if (normal := form(run)) is not None]
    if language == "python":
        found = [without_last_print(normal) for normal in found]
    return list(dict.fromkeys(found))


def agreement(page: Page, found: list[str]) -> tuple[int, int, int]:
    """How many candidates `found` and the released ones share, and how many each has; without white space."""
    ours, theirs = {squeezed(code) for code in found}, {squeezed(code) for code in page.candidates}
    return len(ours & theirs), len(ours), len(theirs)
