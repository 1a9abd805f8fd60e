"""The harness from Python and notebooks: run suites, get records and verdicts as data frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.catalog import Catalog
from harness.executors import Executor
from harness.runner import Progress, Summary
from harness.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from harness.verdict import Verdict


def run(
    suites: str | Sequence[str],
    *,
    profile: str | Sequence[str] = "cpu",
    papers: Sequence[str] = (),
    tags: Sequence[str] = (),
    comparisons: Sequence[str] = (),
    methods: Sequence[str | Path] = (),
    store: str | Path | None = None,
    fresh: bool = False,
    retry: bool = False,
    allow_generated_code: bool | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Summary:
    """Measure what suites ask for and the store does not have yet.

    Args:
        suites: names or files of suites.
        profile: one profile or several.
        papers: only comparisons of these papers.
        tags: only comparisons with one of these tags.
        comparisons: only comparisons of these names.
        methods: folders with further papers and methods.
        store: an SQLite file or an SQLAlchemy URL; default as on the command line.
        fresh: measure again what is stored.
        retry: measure again what is stored as failed, timed out or out of memory.
        allow_generated_code: let methods run programs that language models write, locked in by `harness.sandbox`;
            by default as the environment variable ``HARNESS_ALLOW_GENERATED_CODE`` says: no, unless it is 1.
        executor: where comparisons run, from `harness.executors.make`; on this machine unless another is given.
        progress: whether to show what is running.

    Returns:
        How the run went, with all its records.

    Raises:
        RequestError, RequestErrors: the request is wrong; nothing was run or written.
    """
    from harness import runner, running, sandbox

    catalog = _catalog(methods)
    names = [suites] if isinstance(suites, str) else list(suites)
    places = [profile] if isinstance(profile, str) else list(profile)
    chosen = running.planned(catalog, names, places, papers, tags, comparisons)
    display: Progress = running.Display() if progress else Progress()
    with sandbox.allowing(sandbox.allowed() if allow_generated_code is None else allow_generated_code):
        return runner.run(
            catalog, chosen, Store(store), fresh=fresh, retry=retry, executor=executor, progress=display
        )


def records(
    *,
    store: str | Path | None = None,
    papers: Sequence[str] = (),
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
    profiles: Sequence[str] = (),
    statuses: Sequence[str] = (),
) -> pd.DataFrame:
    """Stored records, one row each; see `harness.store.Store.frame` for the columns."""
    return Store(store).frame(papers=papers, tasks=tasks, methods=methods, profiles=profiles, statuses=statuses)


def verdicts(
    *,
    store: str | Path | None = None,
    papers: Sequence[str] = (),
    profiles: Sequence[str] = (),
    methods: Sequence[str | Path] = (),
) -> pd.DataFrame:
    """A verdict for every claim on every profile that has records, one row each.

    Columns: paper, claim, profile, outcome, reason, rule, quantity, value, low, high, unit, seeds, samples, records and
    how many of those are stale.
    """
    import pandas as pd

    rows = []
    for verdict in _decide(store, papers, profiles, methods):
        figure = verdict.figure
        rows.append(
            {
                "paper": verdict.paper,
                "claim": verdict.claim,
                "profile": verdict.profile,
                "outcome": verdict.outcome,
                "reason": verdict.reason,
                "rule": verdict.rule,
                "quantity": figure.quantity if figure else None,
                "value": figure.value if figure else None,
                "low": figure.low if figure else None,
                "high": figure.high if figure else None,
                "unit": figure.unit if figure else None,
                "seeds": figure.seeds if figure else None,
                "samples": figure.samples if figure else None,
                "records": len(verdict.keys),
                "stale": verdict.stale,
            }
        )
    return pd.DataFrame(rows)


def claims(*, papers: Sequence[str] = (), methods: Sequence[str | Path] = ()) -> pd.DataFrame:
    """The claims of papers, one row each: paper, claim, kind, statement, source, claimed, value, unit, measurable."""
    import pandas as pd

    from harness import paper

    catalog = _catalog(methods)
    rows = []
    for slug in papers or sorted(catalog.papers):
        described, _ = paper.load(catalog.paper(slug).file)
        for claim in described.claims:
            rows.append(
                {
                    "paper": slug,
                    "claim": claim.id,
                    "kind": claim.kind,
                    "statement": claim.statement,
                    "source": claim.source,
                    "claimed": claim.claimed.text,
                    "value": claim.claimed.value,
                    "unit": claim.claimed.unit,
                    "measurable": claim.not_measurable is None,
                }
            )
    return pd.DataFrame(rows)


def _decide(
    store: str | Path | None,
    papers: Sequence[str],
    profiles: Sequence[str],
    methods: Sequence[str | Path],
) -> list[Verdict]:
    from harness.selecting import records_behind
    from harness.verdict import decide

    catalog = _catalog(methods)
    records = records_behind(catalog, Store(store), papers, profiles)
    return decide(catalog, records, papers=papers, profiles=profiles)


def _catalog(methods: Sequence[str | Path]) -> Catalog:
    return Catalog(tuple(Path(folder) for folder in methods))
