"""The terminal: one console, tables in one style, colours of verdicts and statuses.

Text from suites and records may come from anywhere. What a terminal would obey in it is shown instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STYLES = {
    "reproduced": "bold green",
    "consistent": "green",
    "contradicted": "bold red",
    "inconclusive": "yellow",
    "not measured": "dim",
    "ok": "green",
    "failed": "bold red",
    "timeout": "red",
    "out-of-memory": "red",
    "skipped": "dim",
}


# A terminal obeys the control characters; the others turn the order of the text after them.
_PICTURES = {
    **{code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)},
    0x7F: "\u2421",
    **dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"),
}


def visible(text: str) -> str:
    """`text` with a picture of each control character in its place; line breaks and tabs stay."""
    return text.translate(_PICTURES)


@lru_cache(maxsize=2)
def console(stderr: bool = False) -> Console:
    """The console; wide enough for a table when the output is not a terminal."""
    import os
    import sys

    from rich.console import Console

    class Terminal(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(visible(o) if isinstance(o, str) else o for o in objects), **options)

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 140
    return Terminal(stderr=stderr, width=width, highlight=False)


def table(title: str, columns: Sequence[str]) -> Table:
    """An empty table."""
    from rich import box
    from rich.table import Table

    class Shown(Table):
        def add_row(self, *cells: Any, **options: Any) -> None:
            super().add_row(*(visible(c) if isinstance(c, str) else c for c in cells), **options)

    made = Shown(title=visible(title), box=box.SIMPLE, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def styled(word: str) -> str:
    """A verdict or status in its colour, as rich markup."""
    style = STYLES.get(word)
    return f"[{style}]{word}[/]" if style else word
