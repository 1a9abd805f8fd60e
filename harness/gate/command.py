"""``harness gate`` on a terminal: shows what is measured, prints what came out, writes files."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.console import console
from harness.gate import output
from harness.gate.model import GateResult
from harness.gate.run import Options, run

Tell = Callable[[str, int, int], None]


def main(options: Options, *, against: str | None, out: Path | None, as_json: bool) -> int:
    """Run a gate and print what it found. Returns the exit code.

    Args:
        options: what is asked.
        against: a store or file of records to gate against in place of a base revision.
        out: folder for all forms of output.
        as_json: print JSON and nothing else to the standard output.
    """
    with Display(quiet=as_json) as display:
        if against is not None:
            from harness.gate.against import run_against

            result = run_against(options, against, display.tell)
        else:
            result = run(options, display.say, display.tell)
    if out is not None:
        for path in output.write(result, out):
            display.say(f"wrote {path}")
    show(result, as_json)
    return result.exit_code


def show(result: GateResult, as_json: bool) -> None:
    """Print a result."""
    if as_json:
        print(output.to_json(result))
    else:
        output.table(result, console())


class Display:
    """A progress bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bars: Any = None
        self._bar: Any = None
        self._last = 0.0

    def __enter__(self) -> Display:
        if not self._quiet and sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._bars = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(),
                TimeElapsedColumn(), console=console(stderr=True), transient=True,
            )  # fmt: skip
            self._bars.start()
            self._bar = self._bars.add_task("", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def say(self, text: str) -> None:
        """A line of its own."""
        if not self._quiet:
            console(stderr=True).print(text, markup=False)

    def tell(self, text: str, done: int, of: int) -> None:
        """What is measured now."""
        if self._bars is not None:
            self._bars.update(self._bar, description=text, completed=done, total=of)
        elif not self._quiet and (time.monotonic() - self._last > 5 or done == 0):
            self._last = time.monotonic()
            console(stderr=True).print(f"{done}/{of} {text}", markup=False, soft_wrap=True)
