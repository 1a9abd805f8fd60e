"""``harness run``: from suites to a claims table, with a display that shows what runs and what is left."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import check, executors, profile, runner, stale, suite
from harness import show as showing
from harness.catalog import Catalog
from harness.console import console, styled
from harness.errors import HarnessError, RequestErrors
from harness.record import Record
from harness.runner import Step
from harness.selecting import records_behind
from harness.store import Store
from harness.verdict import Verdict, decide

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from harness.stale import Changed


def main(
    catalog: Catalog,
    suites: Sequence[str],
    *,
    store: str | None,
    papers: Sequence[str],
    tags: Sequence[str],
    only: Sequence[str],
    profiles: Sequence[str],
    fresh: bool,
    retry: bool,
    dry_run: bool,
    executor: str,
    address: str | None,
    cluster: Path | None,
    fail_on_contradicted: bool,
    report: Path | None,
    as_json: bool,
) -> int:
    """Run suites and print what came of them. Returns the exit code."""
    comparisons = planned(catalog, suites, profiles, papers, tags, only)
    place = executors.make(executor, address, cluster)
    served = sorted({c.paper for c in comparisons if c.paper})
    if dry_run:
        _dry_run(catalog, comparisons, Store(store), as_json)
        return 0
    if not comparisons:
        console(stderr=True).print(
            "nothing to run: no comparison of the suite is on the profile, paper and tag asked for"
        )
        return 0
    records = Store(store)
    display = Display(quiet=as_json)
    try:
        summary = runner.run(
            catalog, comparisons, records, fresh=fresh, retry=retry, executor=place, progress=display
        )
    except KeyboardInterrupt:
        display.close()
        console(stderr=True).print(
            "interrupted; what was measured is stored, and the same command goes on from there"
        )
        return 130
    catalog.save_index()
    verdicts = []
    if served:
        verdicts = decide(
            catalog, records_behind(catalog, records, served, profiles), papers=served, profiles=profiles
        )
    page = write_report(catalog, records, report, served, profiles) if report else None
    if as_json:
        print(
            json.dumps(
                {
                    "measured": summary.measured,
                    "stored": summary.stored,
                    "records": [r.model_dump(mode="json", exclude_none=True) for r in summary.records],
                    "verdicts": [v.model_dump(mode="json") for v in verdicts],
                    "report": str(page) if page else None,
                },
                ensure_ascii=False,
            )
        )
    else:
        _conclude(catalog, summary, verdicts, records, page)
    contradicted = any(v.outcome == "contradicted" for v in verdicts)
    return 1 if summary.failed or (fail_on_contradicted and contradicted) else 0


def planned(
    catalog: Catalog,
    suites: Sequence[str],
    profiles: Sequence[str],
    papers: Sequence[str] = (),
    tags: Sequence[str] = (),
    only: Sequence[str] = (),
) -> list[suite.Comparison]:
    """The comparisons of suites on profiles, with the papers they serve checked as well.

    Raises:
        RequestError, RequestErrors: something in the request, the suites or those papers is wrong.
    """
    comparisons: list[suite.Comparison] = []
    for name in profiles:
        profile.get(name)
        comparisons += suite.expand(catalog, suites, name, papers=papers, tags=tags, only=only)
    served = sorted({c.paper for c in comparisons if c.paper})
    if served and (errors := check.papers(catalog, served)):
        raise RequestErrors(errors)
    return comparisons


def write_report(
    catalog: Catalog,
    store: Store,
    out: Path,
    papers: Sequence[str],
    profiles: Sequence[str],
    formats: Sequence[str] = (),
) -> Path:
    """Write the report through the ``reports`` package, which the engine does not depend on.

    Returns:
        The page, or the folder when no page was asked for.
    """
    with progress("report") as say:
        written: list[Path] = _reports("formats").write(
            catalog, store, out, papers=papers, profiles=profiles, formats=formats, progress=say
        )
    return next((path for path in written if path.name == "index.html"), out)


def write_comparison(
    catalog: Catalog,
    store: Store,
    out: Path,
    sides: tuple[str, str],
    papers: Sequence[str],
    profiles: Sequence[str],
    formats: Sequence[str] = (),
) -> Path:
    """Compare two stores, exports or parts of one store; see ``reports.compare``. Returns the page or the folder."""
    with progress("comparison") as say:
        written: list[Path] = _reports("comparison_files").write(
            catalog, store, out, sides, papers=papers, profiles=profiles, formats=formats, progress=say
        )
    return next((path for path in written if path.suffix == ".html"), out)


def _reports(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"reports.{module}")
    except ModuleNotFoundError as error:
        raise HarnessError(f"the reports package is not installed: {error}") from error


@contextmanager
def progress(what: str) -> Iterator[Callable[[str], None]]:
    """Says what is being done: in one line on a terminal, elsewhere in a line every few seconds."""
    started = last = time.monotonic()
    if sys.stderr.isatty():
        from rich.markup import escape

        with console(stderr=True).status(what) as status:
            yield lambda text: status.update(escape(f"{what}: {text}"))
        return

    def say(text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 2:
            last = now
            print(f"{what}: {text} ({now - started:.0f} s)", file=sys.stderr, flush=True)

    yield say


def _dry_run(catalog: Catalog, comparisons: Sequence[suite.Comparison], store: Store, as_json: bool) -> None:
    steps = runner.plan(catalog, comparisons)
    known = store.get(s.key for s in steps)
    earlier = stale.before(store, [s for s in steps if s.key not in known])
    rows = [
        {
            "comparison": s.comparison.name,
            "profile": s.comparison.profile,
            "seed": s.comparison.seed,
            "method": s.contestant.label,
            "task_parameters": dict(s.comparison.parameters),
            "method_parameters": dict(s.contestant.parameters),
            "stored": known[s.key].status if s.key in known else None,
            "stale": earlier.get(s.key) == "source",
        }
        for s in steps
    ]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    todo = sum(r["stored"] in (None, "skipped") for r in rows)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        counts[(str(row["profile"]), str(row["comparison"]))] += 1
    for (place, name), count in counts.items():
        console().print(f"{place:<15} {name:<40} {count} method runs")
    console().print(f"{len(rows)} method runs in {len(comparisons)} comparisons; {todo} are not stored yet")
    if earlier:
        console().print(f"of these, {stale.counted(earlier)}")


def _conclude(
    catalog: Catalog, summary: runner.Summary, verdicts: Sequence[Verdict], store: Store, page: Path | None
) -> None:
    from rich.markup import escape

    out = console()
    if verdicts:
        showing.claims_table(catalog, verdicts)
    skipped: dict[str, int] = defaultdict(int)
    for record in summary.records:
        if record.status == "skipped":
            skipped[record.reason or ""] += 1
    for reason, count in skipped.items():
        out.print(f"[dim]skipped {count}: {escape(reason)}[/]")
    for record in summary.failed:
        what = f"{record.comparison}, {record.label}, seed {record.seed}"
        out.print(f"{styled(record.status)} {escape(what)}: {escape(record.reason or '')}")
    done = f"{summary.measured} measured, {summary.stored} from {store.location}"
    out.print(
        f"{len(summary.records)} records ({done}); {len(summary.failed)} failed, {sum(skipped.values())} skipped"
    )
    if page:
        out.print(f"report: {page}")


@dataclass
class Display(runner.Progress):
    """A progress bar on a terminal, a line per method elsewhere."""

    quiet: bool = False
    _bars: Bars | None = None
    _bar: Any = None
    _todo: list[Step] = field(default_factory=list)
    _done: int = 0
    _seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def changed(self, found: Changed) -> None:
        """Say why something is measured again."""
        if not self.quiet and str(found):
            console(stderr=True).print(str(found))

    def begin(self, steps: Sequence[Step], stored: int) -> None:
        """Say how much there is to do."""
        self._todo = list(steps)
        out = console(stderr=True)
        already = f", {stored} are stored" if stored else ""
        if not self.quiet:
            out.print(f"{len(steps)} method runs to measure{already}")
        if self.quiet or not steps or not sys.stderr.isatty():
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=out,
            transient=True,
        )
        self._bars.start()
        self._bar = self._bars.add_task("", total=len(steps), left="")

    def phase(self, step: Step, name: str) -> None:
        """Show what is running."""
        if self._bars is not None:
            title = f"{step.comparison.name} [bold]{step.contestant.label}[/] seed {step.comparison.seed} [dim]{name}[/]"
            self._bars.update(self._bar, description=title, left=self._estimate())

    def finish(self, step: Step, record: Record) -> None:
        """Count it, and say how it went."""
        from rich.markup import escape

        self._done += 1
        if record.status != "skipped":
            self._seconds[_kind(step)].append(record.duration or 0.0)
        if self._bars is not None:
            self._bars.update(self._bar, completed=self._done, left=self._estimate())
            if record.status not in ("ok", "skipped"):
                self._bars.console.print(
                    f"{styled(record.status)} {escape(step.comparison.name)} {escape(step.contestant.label)}:"
                    f" {escape(record.reason or '')}"
                )
            if self._done == len(self._todo):
                self._bars.stop()
        elif not self.quiet:
            # A log gets a line a second at most, and every line that reports trouble.
            trouble = record.status not in ("ok", "skipped")
            now = time.monotonic()
            if trouble or self._done == len(self._todo) or now - getattr(self, "_last", 0.0) > 1:
                self._last = now
                console(stderr=True).print(
                    f"{self._done}/{len(self._todo)} {escape(step.comparison.name)} {escape(step.contestant.label)}"
                    f" seed {step.comparison.seed} {styled(record.status)} {record.duration or 0:.1f} s"
                    + (f" {escape(record.reason or '')}" if trouble else f" [dim]{self._estimate()}[/]"),
                    soft_wrap=True,
                )

    def close(self) -> None:
        """Give the terminal back."""
        if self._bars is not None:
            self._bars.stop()

    def _estimate(self) -> str:
        """What is left, from what the same methods took so far; a guess while most kinds have not run yet."""
        left = self._todo[self._done :]
        if not left or not self._seconds:
            return f"{len(left)} left" if left else ""
        means = {kind: sum(taken) / len(taken) for kind, taken in self._seconds.items()}
        everything = [seconds for taken in self._seconds.values() for seconds in taken]
        typical = sum(everything) / len(everything)
        seconds = sum(means.get(_kind(step), typical) for step in left)
        known = sum(_kind(step) in means for step in left)
        about = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        return f"about {about} left" if known * 2 >= len(left) else f"{len(left)} left, perhaps {about}"


def _kind(step: Step) -> str:
    return f"{step.comparison.name}/{step.contestant.label}"
