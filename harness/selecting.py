"""Which stored records the verdicts of some papers can rest on, so that a large store need not be read whole."""

from __future__ import annotations

from collections.abc import Sequence

from harness import paper
from harness.catalog import Catalog
from harness.current import current
from harness.record import Record
from harness.store import Store


def records_behind(
    catalog: Catalog, store: Store, papers: Sequence[str] = (), profiles: Sequence[str] = ()
) -> list[Record]:
    """The records that count and that a claim of one of `papers` looks at.

    Args:
        catalog: where the papers are.
        store: where the records are.
        papers: slugs; empty for all papers, and then for all records.
        profiles: only records of these profiles; empty for all.

    Returns:
        Records for `harness.verdict.decide`, which decides these papers' claims as if it had all of the store.

    Raises:
        RequestError: there is no such paper.
    """
    if not papers:
        return current(catalog, store.records(newest=True, profiles=profiles))
    asked = tasks_behind(catalog, papers)
    if not asked:
        return current(catalog, ())
    return current(catalog, store.records(newest=True, profiles=profiles, comparisons=asked))


def tasks_behind(catalog: Catalog, papers: Sequence[str]) -> dict[str, list[str]]:
    """The tasks that rules of these papers select, with the comparisons that they name; none means all of the task."""
    found: dict[str, set[str] | None] = {}
    for slug in papers:
        described, _ = paper.load(catalog.paper(slug).file)
        for claim in described.claims:
            for _, rule in claim.rules:
                for selection in (rule.on, *(rule.selection(condition) for condition in rule.all)):
                    names = found.get(selection.task, set())
                    if names is None or not selection.comparisons:
                        found[selection.task] = None
                    else:
                        found[selection.task] = names | set(selection.comparisons)
    return {task: sorted(names or ()) for task, names in found.items()}
