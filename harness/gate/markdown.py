"""What a gate found as Markdown that fits into a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable

from harness.gate import wording
from harness.gate.model import Change, Finding, GateResult

LIMIT = 60_000
"""Bytes of the whole text; GitHub takes 65,536 characters in a comment, and a marker of the workflow comes on top."""

MARK = "<!-- harness gate -->"
"""The first line, by which a workflow finds the comment that it is to update."""

_IN_FULL: tuple[Change, ...] = ("regressed", "improved")
_TITLES: dict[Change, str] = {
    "unstable": "nothing can be said about them",
    "new": "only in the head",
    "gone": "only in the base",
}
_LONGEST_NAME, _LONGEST_REASON = 160, 300

# Within code nothing is a mention, a reference or a link; what remains special there, and in a table, is written as
# character references, which never are structure.
_SPECIAL = re.compile(r"[&<>|\\`*_\[\]~$\"]")
_TELLING = re.compile(r"[@#](?=\w)|\b(?:https?|ftp|mailto|www)(?=[:.])|\bGH(?=-\d)", re.IGNORECASE)


def prose(text: str) -> str:
    """`text` on one line as Markdown that shows it as it is and notifies nobody.

    An empty comment breaks what code hosts would make a mention, a reference or a link of.
    """
    parts = []
    at = 0
    flat = wording.plain(text)
    for found in _TELLING.finditer(flat):
        parts.append(_SPECIAL.sub(_reference, flat[at : found.end()]) + "<!-- -->")
        at = found.end()
    return "".join([*parts, _SPECIAL.sub(_reference, flat[at:])])


def code(text: str) -> str:
    """`text` on one line as code."""
    return f"<code>{_SPECIAL.sub(_reference, wording.plain(text))}</code>"


def markdown(result: GateResult) -> str:
    """The result as GitHub-flavoured Markdown of at most `LIMIT` bytes.

    Regressions and improvements come first and in full, the rest folded. Where that is too long, reasons are left out
    first; what still does not fit is counted.
    """
    head = [MARK, f"### harness gate: {_headline(result)}", "", prose(wording.verdict(result)) + "."]
    foot = _foot(result)
    budget = LIMIT - sum(_size(line) for line in [*head, *foot])
    names = wording.short_names(result.findings)
    body: list[str] = []
    groups = wording.grouped(result.findings)
    for change in [*_IN_FULL, *(c for c in groups if c not in _IN_FULL)]:
        if change in groups:
            section, budget = _section(change, groups[change], names, budget)
            body += section
    return "\n".join([*head, *body, *foot]) + "\n"


def _headline(result: GateResult) -> str:
    regressed = result.count("regressed")
    if regressed:
        return f"❌ {regressed} regressed"
    return "✅ nothing regressed" if result.findings else "nothing was compared"


def _section(
    change: Change, findings: list[Finding], names: dict[str, str], budget: int
) -> tuple[list[str], int]:
    """A table of findings within `budget` bytes, and what is left of it."""
    count = f"{len(findings)} {change}"
    if change in _IN_FULL:
        before, after = ["", f"**{count}**", ""], []
    else:
        about = f": {_TITLES[change]}" if change in _TITLES else ""
        before, after = ["", f"<details><summary>{count}{about}</summary>", ""], ["", "</details>"]
    frame = sum(_size(line) for line in [*before, *after, "", _left(len(findings))])
    explained = change in _IN_FULL or any(wording.needs_reason(finding) for finding in findings)
    table = _table(findings, names, explained)
    if explained and frame + sum(_size(line) for line in table) > budget:
        # Rather every finding without its reason than some of them with it.
        table = _table(findings, names, False)
    budget -= frame
    kept = []
    for line in table:
        if _size(line) > budget:
            break
        kept.append(line)
        budget -= _size(line)
    if len(kept) <= 2:
        return ["", _left(len(findings), change)], budget
    missing = len(table) - len(kept)
    return [*before, *kept, *(["", _left(missing)] if missing else []), *after], budget


def _left(count: int, change: str = "more") -> str:
    return f"{'and ' if change == 'more' else ''}{count} {change}, which are in the gate's JSON"


def _table(findings: Iterable[Finding], names: dict[str, str], explained: bool) -> list[str]:
    columns = ["method", "metric", "base", "head", "change", "limit"]
    rule = ["---", "---", "--:", "--:", "--:", "--:"]
    lines = [_row([*columns, "why"]), _row([*rule, "---"])] if explained else [_row(columns), _row(rule)]
    for finding in findings:
        cells = [
            code(wording.clipped(wording.plain(names[finding.name]), _LONGEST_NAME)),
            code(wording.clipped(wording.plain(finding.metric), _LONGEST_NAME)),
            *(
                prose(wording.clipped(wording.figure(v, finding.unit), 60))
                for v in (finding.base, finding.head)
            ),
            prose(wording.change(finding)),
            wording.limit(finding),
        ]
        if explained:
            cells.append(prose(wording.clipped(wording.plain(finding.reason), _LONGEST_REASON)))
        lines.append(_row(cells))
    return lines


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _foot(result: GateResult) -> list[str]:
    lines = ["", "---", ""]
    told = [
        f"Base: {wording.side(result.base)}. Head: {wording.side(result.head)}.",
        f"Machine: {wording.machine(result)}." if wording.machine(result) else "",
        f"Measured {wording.plain(result.started)}, in {result.seconds:.0f} s: {wording.measured(result)}.",
        f"Versions: {wording.versions(result)}." if wording.versions(result) else "",
        *result.notes[:20],
    ]
    # One after another: each line of its own would make the footer longer than the tables.
    lines += [f"<sub>{prose(wording.clipped(text, 1000))}</sub>  " for text in told if text]
    return lines


def _reference(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"


def _size(line: str) -> int:
    return len(line.encode()) + 1
