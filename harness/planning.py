"""What is to be measured, and what of it is stored already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness import environment
from harness.catalog import Catalog
from harness.record import Record, key_of
from harness.suite import Comparison, Contestant


@dataclass(frozen=True)
class Step:
    """One method of one comparison."""

    comparison: Comparison
    contestant: Contestant
    key: str
    source: str


def plan(catalog: Catalog, comparisons: Iterable[Comparison]) -> list[Step]:
    """All methods of all comparisons, with the keys of their records."""
    steps = []
    for comparison in comparisons:
        catalog.task(comparison.task)
        for contestant in comparison.contestants:
            catalog.method(contestant.method)
            source = catalog.source_of(comparison.task, contestant.method)
            assert source is not None
            steps.append(Step(comparison, contestant, _key(comparison, contestant, source), source))
    return steps


def groups(steps: Sequence[Step]) -> list[list[Step]]:
    """Steps by comparison, in order."""
    groups: list[list[Step]] = []
    for step in steps:
        if groups and groups[-1][0].comparison is step.comparison:
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def remaining(
    group: Sequence[Step], known: Mapping[str, Record], retry: bool
) -> tuple[list[list[Step]], list[Record]]:
    """What of a comparison is measured now, as groups that take turns, and the stored records that stay."""
    missing = []
    for step in group:
        record = known.get(step.key)
        if record is None or record.status == "skipped" or (retry and record.status != "ok"):
            missing.append(step)
    if not missing:
        return [], [known[step.key] for step in group]
    if group[0].comparison.repeats == "once":
        return [[step] for step in missing], [known[s.key] for s in group if s not in missing]
    skips = [s for s in missing if s.key in known and known[s.key].status == "skipped"]
    if len(skips) == len(missing) and len(missing) < len(group):
        # What was missing then is most likely missing still; asking costs less than measuring the others again.
        return [skips], [known[s.key] for s in group if s not in skips]
    return [list(group)], []


def _key(comparison: Comparison, contestant: Contestant, source: str) -> str:
    """What makes two measurements the same: everything that decides the figures, and nothing else."""
    return key_of(
        {
            "comparison": comparison.name,
            "task": comparison.task,
            "task_parameters": dict(comparison.parameters),
            "method": contestant.method,
            "label": contestant.label,
            "method_parameters": dict(contestant.parameters),
            "seed": comparison.seed,
            "profile": comparison.profile,
            "repeats": comparison.repeats,
            "threads": comparison.threads,
            "flush_cache": comparison.flush_cache,
            **({"share": True} if comparison.share else {}),
            "source": source,
            "versions": environment.versions(),
        }
    )
