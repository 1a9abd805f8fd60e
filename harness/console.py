"""The terminal: one console, tables in one style, colours of verdicts and statuses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

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


@lru_cache(maxsize=2)
def console(stderr: bool = False) -> Console:
    """The console; wide enough for a table when the output is not a terminal."""
    import os
    import sys

    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 140
    return Console(stderr=stderr, width=width, highlight=False)


def table(title: str, columns: Sequence[str]) -> Table:
    """An empty table."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, box=box.SIMPLE, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def styled(word: str) -> str:
    """A verdict or status in its colour, as rich markup."""
    style = STYLES.get(word)
    return f"[{style}]{word}[/]" if style else word
