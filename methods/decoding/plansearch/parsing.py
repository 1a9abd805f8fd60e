"""What a model's reply holds: a list of strings, a program, a yes or a no."""

from __future__ import annotations

import ast
import re

_BLOCK = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)


def blocks(reply: str) -> list[str]:
    """The contents of a reply's code blocks; one that is not closed goes to the end."""
    return [block.strip("\n") for block in _BLOCK.findall(reply)]


def strings(reply: str) -> list[str] | None:
    """The Python list of strings in a reply, in a code block or bare; None where there is none.

    It is read as a literal and never evaluated. Strings are stripped, and empty ones left out.
    """
    for text in [*blocks(reply), reply]:
        start, end = text.find("["), text.rfind("]")
        if start < 0 or end < start:
            continue
        try:
            found = ast.literal_eval(text[start : end + 1].strip())
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(item, str) for item in found):
            return [item.strip() for item in found if item.strip()]
    return None


def program(reply: str) -> str:
    """The program of a reply: its last code block that is Python, else its last, else the reply if it is Python.

    "" where there is none.
    """
    found = [block for block in blocks(reply) if block.strip()]
    parsed = [block for block in found if _is_python(block)]
    if parsed or found:
        return (parsed or found)[-1]
    return reply.strip("\n") if reply.strip() and _is_python(reply) else ""


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def is_yes(reply: str) -> bool:
    """Whether the first word of a reply that is yes or no is yes; without either the answer is no."""
    found = re.search(r"\b(yes|no)\b", reply, re.IGNORECASE)
    return found is not None and found[1].lower() == "yes"
