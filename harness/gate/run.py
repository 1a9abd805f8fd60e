"""``harness gate``: lays out, measures in two stages, decides."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from harness import environment, machine, profile
from harness.catalog import Catalog
from harness.errors import RequestError
from harness.gate import sides
from harness.gate.decide import LEVEL, TIME, Figure, decide, figures
from harness.gate.model import Finding, GateResult, Timed
from harness.gate.rounds import Rounds, Stage, threads_of
from harness.gate.sides import Pair, Selection
from harness.gate.trees import Trees, lay_out
from harness.measure import disturbance

_SHARE = 0.5
"""Of a pair's time, for either stage; what is acquitted early gives its rest back."""

_CONFIRM_LEAST = 10
_CONFIRM_STRETCH = 6.0
"""What is under suspicion may take this many times its share, so that something can be said of it."""


@dataclass(frozen=True)
class Options:
    """What is asked of a gate.

    Attributes:
        suite: name or file.
        base, base_env: see `harness.gate.trees.lay_out`.
        profile: where to measure.
        selection: what of the suite.
        folders: further folders of methods.
        time: seconds of machine time per method, where the suite says nothing.
    """

    suite: str
    base: str | None = None
    base_env: Path | None = None
    profile: str = "cpu"
    selection: Selection = field(default_factory=Selection)
    folders: Sequence[Path] = ()
    time: float | None = None


def run(
    options: Options,
    say: Callable[[str], None] = lambda text: None,
    tell: Callable[[str, int, int], None] = lambda text, done, of: None,
) -> GateResult:
    """Measure a suite's methods in the base revision against the working tree.

    Args:
        options: what is asked.
        say: told what takes time before measuring.
        tell: told what is measured, how many are done and how many there are in this pass.

    Raises:
        RequestError, RequestErrors: the request or the suite is wrong; nothing was measured.
        HarnessError: a revision cannot be laid out, or one of the environments does not work.
    """
    place = profile.get(options.profile).recognise()
    if not place.here:
        raise RequestError(f"the gate cannot run on {options.profile} here: {place.reason}")
    what = {"gate": options.suite}
    with (
        lay_out(base=options.base, base_env=options.base_env, folders=options.folders, say=say) as trees,
        machine.reserved(what, waiting=lambda: say("waiting for the machine, which is being measured")),
    ):
        return gate(trees, options, tell)


def gate(trees: Trees, options: Options, tell: Callable[[str, int, int], None]) -> GateResult:
    """The gate between two trees that are laid out."""
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    suite = _inside(options.suite, trees)
    matched = sides.match(trees.head.catalog, trees.base.catalog, suite, options.profile, options.selection)
    watch = disturbance.Watch(gpu=profile.get(options.profile).device == "cuda")
    rounds = Rounds(trees.base, trees.head, options.profile, tell=tell)
    pairs = matched.pairs
    catalog = trees.head.catalog
    screening = screen(rounds, pairs, options, catalog)
    _, findings = confirm(rounds, pairs, screening, options, catalog)
    return GateResult(
        suite=options.suite,
        profile=options.profile,
        base=trees.base.side,
        head=trees.head.side,
        started=started,
        seconds=round(time.monotonic() - began, 1),
        findings=[*findings, *matched.unpaired],
        timed=_timed(pairs, screening, findings),
        machine=environment.machine(),
        conditions=_conditions(options.profile, pairs, rounds.fixed_addresses),
        disturbances=watch.stop(),
        notes=trees.notes,
    )


def screen(rounds: Rounds, pairs: Sequence[Pair], options: Options, catalog: Catalog) -> list[Stage]:
    """The first stage: all pairs, each until its figures are clear, one way or the other, or its time is used up."""

    def settled(pair: Pair, stage: Stage) -> bool:
        found = figures(pair, stage, None, catalog)
        return bool(found) and (all(f.acquitted() for f in found) or any(f.accused() for f in found))

    return rounds.measure(
        pairs, lambda pair: _SHARE * _seconds(options, pair), what="screening", settled=settled
    )


def confirm(
    rounds: Rounds, pairs: Sequence[Pair], screening: Sequence[Stage], options: Options, catalog: Catalog
) -> tuple[list[Stage | None], list[Finding]]:
    """The second stage, of what looked worse, and what both stages come to."""
    doubtful = [i for i, pair in enumerate(pairs) if _doubtful(pair, screening[i], catalog)]
    confirmation: list[Stage | None] = [None] * len(pairs)
    if doubtful:
        # Enough launches that the corrected p-value can fall below the level at all.
        least = max(_CONFIRM_LEAST, math.ceil(math.log2(len(doubtful) / LEVEL)) + 2)
        wanted = [_launches(figures(pairs[i], screening[i], None, catalog)) for i in doubtful]
        found = rounds.measure(
            [pairs[i] for i in doubtful],
            lambda pair: _SHARE * _seconds(options, pair),
            what="confirming",
            passes=2,
            least=[max(least, count) for count in wanted],
            stretch=_CONFIRM_STRETCH,
            needed=least,
            score_always=True,
        )
        for i, stage in zip(doubtful, found, strict=True):
            confirmation[i] = stage
    return confirmation, _findings(pairs, screening, confirmation, catalog)


def _launches(found: Sequence[Figure]) -> int:
    """Launches after which the confirmation tells a change of twice the threshold from one of the threshold.

    Their number comes from the spread in the screening, which knows nothing of the confirmation, so that the level of the
    second test is what it says.
    """
    return max((figure.launches_needed() for figure in found if figure.suspicious()), default=0)


def _seconds(options: Options, pair: Pair) -> float:
    return options.time or pair.contestant.gate.time or TIME


def _inside(suite: str, trees: Trees) -> str:
    """A suite named by its file: the copy of that file in the head's tree, so that an edit meanwhile changes nothing."""
    path = Path(suite)
    if path.suffix not in (".yaml", ".yml"):
        return suite
    home = trees.head.catalog.home
    inside = home / path
    return str(inside) if not path.is_absolute() and inside.is_file() else suite


def _doubtful(pair: Pair, stage: Stage, catalog: Catalog) -> bool:
    assert stage.base is not None
    assert stage.head is not None
    if not stage.head.active:
        return stage.base.active
    return stage.base.active and any(figure.suspicious() for figure in figures(pair, stage, None, catalog))


def _findings(
    pairs: Sequence[Pair], screening: Sequence[Stage], confirmation: Sequence[Stage | None], catalog: Catalog
) -> list[Finding]:
    found: list[list[Figure]] = []
    launches: list[int] = []
    for pair, first, second in zip(pairs, screening, confirmation, strict=True):
        through = _through(first) and (second is None or _through(second))
        found.append(figures(pair, first, second, catalog) if through else [])
        launches.append(first.launches + (second.launches if second else 0))
    decided = decide(pairs, found, launches)
    findings: list[Finding] = []
    for pair, first, second, own in zip(pairs, screening, confirmation, decided, strict=True):
        findings += own or [_status(pair, first, second)]
    return findings


def _timed(pairs: Sequence[Pair], screening: Sequence[Stage], findings: Sequence[Finding]) -> list[Timed]:
    """The samples of the first stage, under the names of the findings."""
    names = {finding.name for finding in findings if finding.metric == "latency"}
    found = []
    for pair, stage in zip(pairs, screening, strict=True):
        name = pair.finding(metric="latency", change="unchanged", reason="").name
        if name in names and stage.base is not None and stage.head is not None:
            found.append(Timed(name=name, base=stage.base.latency(), head=stage.head.latency()))
    return found


def _through(stage: Stage) -> bool:
    return stage.base is not None and stage.head is not None and stage.base.active and stage.head.active


def _status(pair: Pair, first: Stage, second: Stage | None) -> Finding:
    """The finding on a method that did not get through on one side or both."""
    assert first.base is not None
    assert first.head is not None
    base, head = first.base, first.head
    told = {"metric": "status", "better": "higher", "launches": first.launches}
    if not base.active and not head.active:
        return pair.finding(change="unchanged", reason=f"does not run on either side: {head.reason}", **told)
    if not base.active:
        what = "skipped" if base.status == "skipped" else "failing"
        return pair.finding(change="improved", reason=f"was {what}: {base.reason}", **told)
    if head.active:
        assert second is not None
        worse = second.head if second.head is not None and not second.head.active else second.base
        reason = worse.reason if worse is not None else "no reason given"
        return pair.finding(
            change="unstable", reason=f"ran at first, not when measured again: {reason}", **told
        )
    if head.status == "skipped":
        return pair.finding(
            change="regressed", reason=f"ran in the base and cannot run now: {head.reason}", **told
        )
    again = second.head if second is not None else None
    if again is not None and again.active:
        reason = f"failed once and then ran: {head.reason}"
        return pair.finding(change="unstable", reason=reason, **told)
    return pair.finding(change="regressed", reason=f"ran in the base and fails now: {head.reason}", **told)


def _conditions(place: str, pairs: Sequence[Pair], fixed_addresses: bool) -> dict[str, object]:
    threads = {threads_of(pair, place) for pair in pairs}
    return {
        "threads": sorted(threads),
        "cpus": environment.cpus(),
        "addresses": "shared" if fixed_addresses else "random",
    }
