"""The data inside the page: what it needs at once, and a chunk for each paper that it unpacks when someone looks.

Claims and papers are plain JSON. A paper's records and the details of its claims are compressed, so that a store with a
hundred thousand records makes a page of a few megabytes of which a browser reads what is looked at.
"""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

from harness.catalog import Catalog
from harness.paper import Claim, Condition, Rule
from harness.verdict import OUTCOMES, Decided, Figure
from reports.aggregate import Place, aggregate, plain
from reports.collect import Content, PaperPart, Row
from reports.howto import HowTo
from reports.numbers import short

# Escaped, because the HTML parser ends a script at "</script" wherever it stands, and older parsers of JavaScript end a
# line at the two separators.
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def embedded(data: Any) -> str:
    """`data` as JSON that may stand inside a script element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


def compressed(data: Any) -> str:
    """`data` as JSON, compressed with gzip, in base64. The same data gives the same text."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def core(content: Content, how: HowTo) -> dict[str, Any]:
    """What the page shows before anything is opened."""
    return {
        "outcomes": list(OUTCOMES),
        "profiles": content.profiles,
        "papers": [_paper(part) for part in content.parts],
        "claims": [_claim(i, part, row, how) for i, part in enumerate(content.parts) for row in part.rows],
    }


def chunk(catalog: Catalog, part: PaperPart) -> dict[str, Any]:
    """What the page shows of one paper when it or one of its claims is opened."""
    comparisons, places = aggregate(catalog, part)
    return {
        "methods": part.labels,
        "comparisons": comparisons,
        "claims": {f"{r.claim.id}/{r.verdict.profile}": _details(r, places) for r in part.rows},
    }


def _paper(part: PaperPart) -> dict[str, Any]:
    paper = part.paper
    return _filled(
        slug=part.slug,
        family=part.family,
        title=paper.title,
        authors=paper.authors,
        year=paper.year,
        venue=paper.venue,
        arxiv=paper.arxiv,
        doi=paper.doi,
        url=paper.url,
        code=paper.code,
        summary=paper.summary,
        notes=paper.notes,
        records=len(part.records),
    )


def _claim(paper: int, part: PaperPart, row: Row, how: HowTo) -> dict[str, Any]:
    claim, verdict = row.claim, row.verdict
    bounds = _rule_as_ratio(row)
    value = claim.claimed.value
    spread = [
        short(end / value) if end is not None and value else None
        for end in (claim.claimed.low, claim.claimed.high)
    ]
    unmeasured = verdict.outcome == "not measured"
    return _filled(
        paper=paper,
        id=claim.id,
        profile=verdict.profile,
        outcome=OUTCOMES.index(verdict.outcome),
        statement=claim.statement,
        source=claim.source,
        claimed=claim.claimed.text,
        setting=_setting(claim),
        figure=_figure(verdict.figure) if verdict.figure else None,
        basis=_basis(verdict.figure, verdict.conditions[0]) if verdict.figure and verdict.conditions else None,
        here=", ".join(f"{k}={plain(v)}" for k, v in verdict.setting.items()),
        rule=verdict.rule,
        reason=verdict.reason,
        ratio=[short(v) for v in row.ratio] if row.ratio else None,
        why_no_ratio=_why_no_ratio(row),
        bounds=bounds,
        spread=spread if any(spread) else None,
        how=how.claim(part.slug, claim, verdict.profile) if unmeasured else None,
    )


def _figure(figure: Figure) -> dict[str, Any]:
    return _filled(**{"is": [short(v) for v in (figure.value, figure.low, figure.high)], "unit": figure.unit})


def _setting(claim: Claim) -> str:
    s = claim.setting
    named = [("data", s.data), ("model", s.model), ("hardware", s.hardware), ("profile", s.profile)]
    more = [f"{name}: {value}" for name, value in named if value and value not in s.text]
    return "; ".join([s.text, *more])


def _basis(figure: Figure, decided: Decided) -> str:
    parts = [f"{figure.seeds} seed{'s' if figure.seeds != 1 else ''}"] if figure.seeds else []
    parts += [f"{figure.samples} runs"] if figure.samples else []
    parts += ["no interval"] if figure.low is None and decided.why else []
    return ", ".join(parts)


def _why_no_ratio(row: Row) -> str | None:
    if row.ratio is not None or row.verdict.figure is None:
        return None
    if row.claim.claimed.value is None:
        return "the paper gives no number"
    if row.claim.claimed.value == 0:
        return "the paper's figure is zero"
    if row.verdict.figure.unit != row.claim.claimed.unit:
        return "the rule looks at another quantity than the paper's figure"
    return "the two have different signs"


def _rule_as_ratio(row: Row) -> list[float | None] | None:
    """Where the deciding rule's first condition holds, as multiples of the paper's figure; None for an open end."""
    claimed = row.claim.claimed.value
    rule = dict(row.claim.rules).get(row.verdict.rule) if row.verdict.rule else None
    if row.ratio is None or rule is None or not claimed:
        return None
    low, high = sorted(end / claimed for end in rule.all[0].bounds)
    return [short(low), short(high)]


def _details(row: Row, places: dict[str, Place]) -> dict[str, Any]:
    verdict = row.verdict
    return _filled(
        rules=[{"kind": kind, **_rule(rule)} for kind, rule in row.claim.rules],
        conditions=[
            _filled(
                quantity=c.quantity, measured=_figure(c.figure), bounds=c.bounds, outcome=c.outcome, why=c.why
            )
            for c in verdict.conditions
        ],
        controls=[
            [name, control if isinstance(control, str) else _figure(control)]
            for name, control in verdict.controls.items()
        ],
        compared=_compared(row.claim),
        note=row.claim.note,
        records=[list(places[key]) for key in verdict.keys if key in places],
        elsewhere=sum(key not in places for key in verdict.keys),
    )


def _rule(rule: Rule) -> dict[str, Any]:
    def place(condition: Condition) -> str:
        on = rule.selection(condition)
        where = ", ".join(f"{k}={plain(v)}" for k, v in on.where.items())
        within = f" in {' or '.join(on.comparisons)}" if on.comparisons else ""
        return f"task {on.task}{within}{' with ' + where if where else ''}"

    return {
        "profiles": rule.profiles,
        "conditions": [{"quantity": c.quantity, "bounds": c.describe(), "on": place(c)} for c in rule.all],
        "any": rule.contradicted_if == "any",
    }


def _compared(claim: Claim) -> str | None:
    if claim.compared is None:
        return None

    def names(given: str | list[str]) -> str:
        return given if isinstance(given, str) else " and ".join(given)

    against = f" against {names(claim.compared.baseline)}" if claim.compared.baseline else ""
    return names(claim.compared.method) + against


def _filled(**fields: Any) -> dict[str, Any]:
    """The fields that say something; a thousand claims need not each name what they lack."""
    return {k: v for k, v in fields.items() if v is not None and v != "" and v != []}
