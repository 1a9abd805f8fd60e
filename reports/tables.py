"""Verdicts as Markdown: a full form, and a short one that fits into a comment on a pull request.

Text from papers, suites and records is escaped, so that it neither becomes markup nor mentions anybody.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from harness.verdict import OUTCOMES
from reports.collect import Content, PaperPart, Row

COMMENT_LIMIT = 60_000
"""Characters of the short form; GitHub takes 65,536 in a comment."""

_SPECIAL = re.compile(r"[\\`*_{}\[\]&<>|~$]|[@#](?=\w)|\b(?:https?|ftp|mailto|www)(?=[:.])", re.IGNORECASE)
_ENTITIES = {"&": "&amp;", "|": "&#124;", "<": "&lt;", ">": "&gt;", "$": "&#36;", "~": "&#126;"}
_BLOCK = re.compile(r"([-+=]|#{1,6}|\d{1,9}[.)])(?=\s|$)|[-=]{2}")
# How bad it is to miss: what a reader of a pull request wants to see first.
_URGENT = ("contradicted", "inconclusive", "consistent", "reproduced")


def escape(text: str) -> str:
    """`text` as Markdown that shows it as it is, on one line, within a table too.

    An empty comment stands after ``@`` and ``#`` and within an address: code hosts would notify people, refer to
    issues and make links even where those are written as character references.
    """
    flat = _SPECIAL.sub(_escaped, " ".join(text.split()))
    found = _BLOCK.match(flat)
    if found is None:
        return flat
    # What would start a list, a heading or a line at the beginning of a line: its last character is the sign.
    at = found.end() - 1
    return f"{flat[:at]}&#{ord(flat[at])};{flat[at + 1 :]}"


def _escaped(found: re.Match[str]) -> str:
    text = found[0]
    if text in _ENTITIES:
        return _ENTITIES[text]
    return f"{text}<!-- -->" if text in "@#" or len(text) > 1 else "\\" + text


def line(cells: Iterable[str]) -> str:
    """A row of a Markdown table; cells are Markdown already."""
    return "| " + " | ".join(cells) + " |"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """A Markdown table as lines; the columns `right` are aligned to the right."""
    numbers = set(right)
    rule = ["--:" if i in numbers else "---" for i in range(len(head))]
    return [line(head), line(rule), *(line(row) for row in rows)]


def counted(counts: Counter[str]) -> str:
    """How many verdicts there are of each outcome, in words, with the total first."""
    total = sum(counts.values())
    found = ", ".join(f"{counts[o]} {o}" for o in OUTCOMES if counts[o])
    return f"{total} claim{'' if total == 1 else 's'}: {found}" if total else "no claims"


def markdown(content: Content) -> str:
    """The full form: scoreboards, every claim with its setting and rule, what was skipped or failed, and where it ran."""
    total: Counter[str] = sum((part.counts() for part in content.parts), Counter())
    lines = ["# Claims and what was measured", "", f"{counted(total)}.", ""]
    lines += _legend()
    if content.parts:
        lines += ["", "## By paper", "", *_by_paper(content.parts), "", "## By profile and family", ""]
        lines += _by_family(content)
    several = len(content.profiles) > 1
    for part in content.parts:
        lines += ["", f"## {escape(part.paper.title)}", "", *_about(part), ""]
        lines += _claims(part.rows, several)
    return "\n".join([*lines, *_provenance(content)]) + "\n"


def comment(content: Content, limit: int = COMMENT_LIMIT) -> str:
    """The short form: counts, then claims by how much they matter, as many as fit into `limit` characters.

    What was measured stands open; a list of what was not is folded away.
    """
    total: Counter[str] = sum((part.counts() for part in content.parts), Counter())
    lines = [f"**{counted(total)}**", ""]
    shown = [part for part in content.parts if any(o != "not measured" for o in part.counts())]
    lines += [*_by_paper(shown, total=len(shown) > 1), ""] if shown else []
    several = len(content.profiles) > 1
    head = ["paper", "claim", *(["profile"] if several else []), "claimed", "measured", "verdict"]
    rows = [
        line(
            [
                escape(part.slug),
                escape(row.claim.id),
                *([row.verdict.profile] if several else []),
                escape(row.claim.claimed.text),
                escape(str(row.verdict.figure)) if row.verdict.figure else "",
                _outcome(row),
            ]
        )
        for outcome in _URGENT
        for part in content.parts
        for row in part.rows
        if row.verdict.outcome == outcome
    ]
    missing = _missing(content)
    room = limit - sum(len(each) + 1 for each in lines) - 400
    kept = _fitting(rows, room)
    if kept:
        lines += [*table(head, []), *kept, ""]
    if len(kept) < len(rows):
        lines += [f"{len(rows) - len(kept)} further claims that were measured are in the full report.", ""]
    room -= sum(len(each) + 1 for each in kept)
    folded = _fitting(missing, room)
    if folded:
        lines += [
            f"<details><summary>{total['not measured']} claims were not measured</summary>", "",
            *table(["why", "claims"], []), *folded,
        ]  # fmt: skip
        if len(folded) < len(missing):
            lines += ["", f"{len(missing) - len(folded)} further reasons are in the full report."]
        lines += ["", "</details>", ""]
    elif missing:
        lines += [f"{total['not measured']} claims were not measured.", ""]
    machines = "; ".join(_machine(m) for m in content.machines[:3])
    return "\n".join(lines) + (f"\n<sub>{machines}</sub>\n" if machines else "")


def _fitting(rows: Sequence[str], room: int) -> list[str]:
    kept: list[str] = []
    for row in rows:
        room -= len(row) + 1
        if room < 0:
            break
        kept.append(row)
    return kept


def _legend() -> list[str]:
    return [
        "*Reproduced*: measured in the paper's own setting, within the tolerance fixed beforehand. *Consistent*:"
        " measured in a scaled setting, where the rule fixed beforehand holds. *Contradicted*: the 95 % interval"
        " lies outside the rule. *Inconclusive*: it straddles it. Brackets are 95 % intervals."
    ]


def _by_paper(parts: Sequence[PaperPart], *, total: bool = True) -> list[str]:
    rows = [[escape(part.slug), *_numbers(part.counts())] for part in parts]
    if total:
        everything: Counter[str] = sum((part.counts() for part in parts), Counter())
        rows.append(["**all**", *_numbers(everything)])
    return table(["paper", *OUTCOMES], rows, right=range(1, 1 + len(OUTCOMES)))


def _by_family(content: Content) -> list[str]:
    rows = []
    for profile in content.profiles:
        for family in dict.fromkeys(part.family for part in content.parts):
            counts: Counter[str] = Counter(
                row.verdict.outcome
                for part in content.parts
                if part.family == family
                for row in part.rows
                if row.verdict.profile == profile
            )
            rows.append([profile, escape(family), *_numbers(counts)])
    return table(["profile", "family", *OUTCOMES], rows, right=range(2, 2 + len(OUTCOMES)))


def _numbers(counts: Counter[str]) -> list[str]:
    return [str(counts[o]) if counts[o] else "" for o in OUTCOMES]


def _about(part: PaperPart) -> list[str]:
    paper = part.paper
    where = [str(paper.year), paper.venue, f"arXiv {paper.arxiv}" if paper.arxiv else None]
    what = ", ".join(escape(w) for w in where if w)
    return [f"`{part.slug}`, {escape(part.family)}; {what}. {counted(part.counts())}."]


def _claims(rows: Sequence[Row], several: bool) -> list[str]:
    head = [
        "claim", *(["profile"] if several else []), "claimed", "the paper's setting", "measured", "the measured setting",
        "rule", "verdict", "why",
    ]  # fmt: skip
    cells = []
    for row in rows:
        claim, verdict = row.claim, row.verdict
        cells.append(
            [
                f"{escape(claim.statement)} (`{claim.id}`, {escape(claim.source)})",
                *([verdict.profile] if several else []),
                escape(claim.claimed.text),
                escape(claim.setting.text),
                escape(str(verdict.figure)) if verdict.figure else "",
                escape(", ".join(f"{k}={v}" for k, v in verdict.setting.items())),
                rule_text(row),
                _outcome(row),
                escape(verdict.reason),
            ]
        )
    return table(head, cells)


def rule_text(row: Row) -> str:
    """The conditions that decided, as Markdown; empty where none could."""
    conditions = row.verdict.conditions
    return "; ".join(f"{escape(' '.join(c.quantity.split()))} {escape(c.bounds)}" for c in conditions)


def _outcome(row: Row) -> str:
    outcome = row.verdict.outcome
    return outcome if outcome == "not measured" else f"**{outcome}**"


def _missing(content: Content) -> list[str]:
    """Rows of reasons why claims were not measured, the most frequent first."""
    reasons: dict[str, list[str]] = {}
    several = len(content.profiles) > 1
    for part in content.parts:
        for row in part.rows:
            if row.verdict.outcome == "not measured":
                reason = f"{row.verdict.profile}: {row.verdict.reason}" if several else row.verdict.reason
                reasons.setdefault(reason, []).append(row.claim.id)
    ordered = sorted(reasons.items(), key=lambda kv: -len(kv[1]))
    return [line([escape(reason), escape(", ".join(claims))]) for reason, claims in ordered]


def _provenance(content: Content) -> list[str]:
    lines = ["", "## Where it ran", ""]
    lines += [f"- {_machine(machine)}" for machine in content.machines] or ["- nothing has run yet"]
    if content.versions:
        lines.append("- " + ", ".join(f"{escape(k)} {escape(str(v))}" for k, v in content.versions.items()))
    for source in content.sources:
        state = "" if source.get("clean") else ", with uncommitted changes"
        lines.append(f"- revision `{escape(str(source.get('revision', 'unknown')))[:12]}`{state}")
    if content.first:
        lines.append(
            f"- measured from {escape(content.first)} to {escape(content.last)}, {content.seconds:.0f} s in all"
        )
    if content.skipped:
        lines += ["", "## Skipped", ""]
        lines += table(
            ["records", "why"], [[str(n), escape(reason)] for reason, n in content.skipped], right=[0]
        )
    unstable = Counter(r.unstable for r in content.records if r.unstable)
    if unstable:
        lines += ["", "## Measured on a disturbed machine", "", "Times of these records decide nothing.", ""]
        rows = [[str(n), escape(reason)] for reason, n in unstable.most_common()]
        lines += table(["records", "why"], rows, right=[0])
    if content.failed:
        lines += ["", "## Failed", ""]
        lines += table(
            ["comparison", "method", "seed", "status", "why"],
            [
                [escape(r.comparison), escape(r.label), str(r.seed), r.status, escape(r.reason or "")]
                for r in content.failed
            ],
        )
    return lines


def _machine(machine: dict[str, object]) -> str:
    gpus = machine.get("gpus") or []
    memory = machine.get("memory")
    parts = [
        str(machine.get("host") or "unnamed machine"),
        str(machine.get("cpu") or "unknown processor"),
        f"{machine['threads']} threads" if machine.get("threads") else "",
        f"{memory / 2**30:.0f} GiB" if isinstance(memory, int | float) else "",
        ", ".join(map(str, gpus)) if isinstance(gpus, list) and gpus else "no GPU",
        str(machine.get("system") or ""),
    ]
    return escape(", ".join(p for p in parts if p))
