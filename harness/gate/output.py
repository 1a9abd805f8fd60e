"""What a gate found, for people and for other tools.

`table` is for a terminal, `markdown` for a comment on a pull request, `to_json` for scripts, `junit` for CI systems and
`pytest_benchmark` for what draws and compares benchmarks. `write` makes files of all but the first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.gate import wording
from harness.gate.benchmarkfile import pytest_benchmark
from harness.gate.junit import junit
from harness.gate.markdown import markdown
from harness.gate.model import Change, Finding, GateResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["junit", "markdown", "pytest_benchmark", "table", "to_json", "write"]

_STYLES: dict[Change, str] = {
    "regressed": "bold red",
    "unstable": "yellow",
    "improved": "green",
    "new": "cyan",
    "gone": "cyan",
    "unchanged": "dim",
}


_WIDE = 100
"""Columns of a terminal from which on the limits are shown too."""


def table(result: GateResult, console: Console, *, everything: bool = False) -> None:
    """Print what was found: a block for each change, regressed first, a line for each finding.

    Args:
        result: what a gate found.
        console: where to; see `harness.console.console`.
        everything: show unchanged findings too, which are otherwise counted in the last line.
    """
    from rich.text import Text

    names = wording.short_names(result.findings)
    for change, findings in wording.grouped(result.findings).items():
        if change != "unchanged" or everything:
            console.print(_block(change, findings, names, console.width))
    for note in result.notes:
        console.print(Text(f"note: {wording.plain(note)}"), soft_wrap=True)
    against = f"{wording.side(result.base)} against {wording.side(result.head)}, in {result.seconds:.0f} s"
    style = "bold red" if result.exit_code else "bold"
    console.print(Text(f"{wording.verdict(result)}; {against}", style=style), soft_wrap=True)


def _block(change: Change, findings: list[Finding], names: dict[str, str], width: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(
        title=Text(f"{change} ({len(findings)})", style=_STYLES[change]),
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    made.add_column("method")
    made.add_column("metric", no_wrap=True)
    for column in ("base", "head", *(["limit"] if width >= _WIDE else [])):
        made.add_column(column, no_wrap=True, justify="right")
    made.add_column("change")
    for finding in findings:
        told = [wording.change(finding), finding.reason if wording.needs_reason(finding) else ""]
        cells = [
            names[finding.name],
            finding.metric,
            wording.figure(finding.base, finding.unit),
            wording.figure(finding.head, finding.unit),
            *([wording.limit(finding)] if width >= _WIDE else []),
            "; ".join(part for part in told if part),
        ]
        # `Text`, so that a bracket in a name is not taken for a style. Not wrapping is up to the cells and not to their
        # columns, so that names and reasons give way before figures do.
        made.add_row(*(Text(wording.plain(cell), no_wrap=True, overflow="ellipsis") for cell in cells))
    return made


def to_json(result: GateResult) -> str:
    """The result as JSON; ``docs/schemas/gate.schema.json`` describes it. A figure that is not finite becomes null."""
    return result.model_dump_json(indent=2) + "\n"


def _dump(session: dict[str, Any]) -> str:
    from pydantic_core import to_json as dump

    # Parameters may be infinite, for which JSON has no word.
    return dump(session, indent=2, inf_nan_mode="null").decode() + "\n"


def write(result: GateResult, folder: Path) -> list[Path]:
    """Write all forms into `folder`, which is made if need be.

    Returns:
        ``gate.md``, ``gate.json``, ``gate.xml`` (JUnit), ``base.json`` and ``head.json``
        (pytest-benchmark).
    """
    base, head = pytest_benchmark(result)
    texts = {
        "gate.md": markdown(result),
        "gate.json": to_json(result),
        "gate.xml": junit(result),
        "base.json": _dump(base),
        "head.json": _dump(head),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in texts.items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths
