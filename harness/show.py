"""Papers and verdicts in the terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness import paper as papers
from harness.catalog import Catalog
from harness.console import console, styled, table
from harness.paper import Claim
from harness.selecting import records_behind
from harness.store import Store
from harness.verdict import OUTCOMES, Verdict, decide


def paper(catalog: Catalog, slug: str, store: str | None, profiles: Sequence[str], as_json: bool) -> None:
    """Print a paper, its claims and what is known about them."""
    from rich.markup import escape

    entry = catalog.paper(slug)
    described, _ = papers.load(entry.file)
    found = records_behind(catalog, Store(store), [slug], profiles)
    verdicts = decide(catalog, found, papers=[slug], profiles=profiles)
    catalog.save_index()
    if as_json:
        methods = [m.name for m in catalog.methods_of(slug)]
        print(
            json.dumps(
                {
                    "name": slug,
                    "family": entry.family,
                    **described.model_dump(mode="json", exclude_none=True),
                    "methods": methods,
                    "verdicts": [v.model_dump(mode="json") for v in verdicts],
                },
                indent=2,
                ensure_ascii=False,
            )
        )
        return
    out = console()
    out.print(f"[bold]{escape(described.title)}[/]")
    where = [
        str(described.year),
        described.venue,
        described.arxiv and f"arXiv {described.arxiv}",
        described.code,
    ]
    out.print(escape(", ".join(str(w) for w in where if w)), style="dim")
    out.print(escape(" ".join(described.summary.split())))
    for note in described.notes:
        out.print(f"[dim]note[/] {escape(' '.join(note.split()))}")
    out.print()
    for method in catalog.methods_of(slug):
        out.print(f"  [bold]{method.name}[/] [dim]{method.role}, {', '.join(method.attempts)}[/]")
        out.print(f"    {escape(method.source.summary)}")
    out.print()
    by_claim: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_claim.setdefault(verdict.claim, []).append(verdict)
    for claim in described.claims:
        _claim(claim, by_claim[claim.id])


def _claim(claim: Claim, verdicts: Sequence[Verdict]) -> None:
    from rich.markup import escape

    out = console()
    out.print(f"[bold]{claim.id}[/] [dim]{claim.kind}, {escape(claim.source)}[/]")
    out.print(f"  {escape(claim.statement)}")
    out.print(f"  claimed   {escape(claim.claimed.text)} [dim]({escape(claim.setting.text)})[/]")
    for kind, rule in claim.rules:
        conditions = "; ".join(f"{c.quantity} {c.describe()}" for c in rule.all)
        out.print(f"  {kind:<10} if {escape(conditions)} [dim](on {', '.join(rule.profiles)})[/]")
    for verdict in verdicts:
        out.print(
            f"  {verdict.profile:<9} {styled(verdict.outcome)}: {escape(verdict.reason)}{_stale(verdict)}"
        )
        for name, control in verdict.controls.items():
            out.print(f"            [dim]{escape(name)}: {escape(str(control))}[/]")
    if claim.note:
        out.print(f"  [dim]{escape(' '.join(claim.note.split()))}[/]")
    out.print()


def claims_table(catalog: Catalog, verdicts: Sequence[Verdict]) -> None:
    """Print verdicts: what was measured as a table, what was not by its reason, and how many there are of each."""
    from rich.markup import escape

    out = console()
    if not verdicts:
        out.print("no claims")
        return
    several = len({v.profile for v in verdicts}) > 1
    described = {slug: _claims(catalog, slug) for slug in {v.paper for v in verdicts}}
    columns = ["paper", "claim", *(["profile"] if several else []), "claimed", "measured", "verdict", "why"]
    made = table("claims", columns)
    made.columns[columns.index("verdict")].no_wrap = True
    last = None
    for v in verdicts:
        if v.outcome == "not measured":
            continue
        made.add_row(
            escape(v.paper) if v.paper != last else "",
            escape(v.claim),
            *([v.profile] if several else []),
            escape(described[v.paper][v.claim].claimed.text),
            escape(str(v.figure)) if v.figure else "",
            styled(v.outcome),
            escape(_short(v)),
        )
        last = v.paper
    if made.row_count:
        out.print(made)
    missing: dict[str, list[Verdict]] = {}
    for v in verdicts:
        if v.outcome == "not measured":
            missing.setdefault(f"{v.profile}: {v.reason}" if several else v.reason, []).append(v)
    if missing:
        listed = table("not measured", ["why", "claims"])
        for reason, found in sorted(missing.items(), key=lambda kv: -len(kv[1])):
            listed.add_row(escape(reason), escape(", ".join(v.claim for v in found)))
        out.print(listed)
    out.print(summary(verdicts))


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many verdicts there are of each outcome, as rich markup."""
    counts = Counter(v.outcome for v in verdicts)
    return f"{len(verdicts)} claim{'s' if len(verdicts) != 1 else ''}: " + ", ".join(
        f"{counts[o]} {styled(o)}" for o in OUTCOMES if counts[o]
    )


def _stale(verdict: Verdict) -> str:
    """What a reader has to know of a verdict whose records are not of the source as it is now."""
    if not verdict.stale:
        return ""
    which = "all" if verdict.stale == len(verdict.keys) else f"{verdict.stale} of {len(verdict.keys)}"
    return f"; stale: the source has changed since {which} of its records were measured".replace(
        "all of its", "its"
    )


def _short(verdict: Verdict) -> str:
    return _decisive(verdict) + _stale(verdict)


def _decisive(verdict: Verdict) -> str:
    if verdict.outcome == "not measured" or not verdict.conditions:
        return verdict.reason
    decisive = next((c for c in verdict.conditions if c.outcome == verdict.outcome), verdict.conditions[0])
    text = f"must be {decisive.bounds}"
    if decisive is not verdict.conditions[0]:
        text = f"{decisive.quantity} = {decisive.figure}; {text}"
    return f"{text}; {decisive.why}" if decisive.why else text


def _claims(catalog: Catalog, slug: str) -> dict[str, Any]:
    described, _ = papers.load(catalog.papers[slug].file)
    return {claim.id: claim for claim in described.claims}
