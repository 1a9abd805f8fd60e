"""UTF-8 that ends inside a character, and whether an expression could go on with that character."""

from __future__ import annotations

import codecs
import re
from functools import cache
from typing import Any


def split(text: bytes) -> tuple[str, bytes] | None:
    """The whole characters of a text and the bytes of an unfinished one at its end.

    Returns:
        None where the text is not the beginning of UTF-8.
    """
    if text.isascii():
        return text.decode(), b""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return decoder.decode(text), decoder.getstate()[0]
    except UnicodeDecodeError:
        return None


def range_of(start: bytes) -> tuple[int, int]:
    """The first and the last code point whose UTF-8 begins with the bytes of an unfinished character."""
    lead = start[0]
    missing = (2 if lead < 0xE0 else 3 if lead < 0xF0 else 4) - len(start)
    least, most = [0x80] * missing, [0xBF] * missing
    if len(start) == 1:  # overlong forms, surrogates and what is above U+10FFFF are no UTF-8
        least[0] = {0xE0: 0xA0, 0xF0: 0x90}.get(lead, 0x80)
        most[0] = {0xED: 0x9F, 0xF4: 0x8F}.get(lead, 0xBF)
    return ord((start + bytes(least)).decode()), ord((start + bytes(most)).decode())


@cache
def representatives(start: bytes) -> tuple[str, ...]:
    """One character of each kind (digit, other word character, blank, none of them) that begins with these bytes."""
    import regex

    first, last = range_of(start)
    characters = "".join(map(chr, range(first, last + 1)))
    found = (regex.search(kind, characters) for kind in (r"\d", r"[^\W\d]", r"\s", r"[^\w\s]"))
    return tuple(match[0] for match in found if match)


_TELLS_MORE_APART = re.compile(
    r"""\\[^wWdDsSbBAZGgntrfv1-9\W_]  # properties, characters by number, and other escapes of letters
    | \[: | \(\?[a-zA-Z0-9-]*[iIfFlLw] | \{[^}]*[a-z<]""",  # named classes, flags that fold letters, fuzzy matches
    re.VERBOSE,
)


def kinds_decide(expression: Any) -> bool:
    """Whether an expression treats alike all characters beyond ASCII of a kind of `representatives`.

    So it is where the pattern is ASCII and has no classes but ``\\w \\d \\s``, their negations, and ranges of ASCII; a
    reference back adds only characters that are in the text already. The answer is no wherever this is not plain to see.

    Args:
        expression: compiled by `regex`.
    """
    import regex

    folds = expression.flags & (regex.IGNORECASE | regex.LOCALE | regex.WORD | regex.FULLCASE)
    return not folds and expression.pattern.isascii() and not _TELLS_MORE_APART.search(expression.pattern)
