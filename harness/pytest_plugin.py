"""A plugin of pytest: ``pytest suites/ci.yaml`` collects a suite's methods and times them with pytest-benchmark.

Each item is one method on one seed of one comparison: the task loads its work, the method prepares, the ``benchmark``
fixture times ``run``, and the first output is scored into the fixture's ``extra_info``. All of it happens in pytest's
own process, so that a method that crashes or hangs takes pytest with it, and the suite's limits and budgets do
not apply: that is for ``harness run`` and ``harness gate``.

The module is imported in every run of pytest in an environment where the harness is installed. It therefore
imports nothing of the harness before a suite is collected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _pytest._code.code import TerminalRepr

    from harness.catalog import Catalog
    from harness.suite import Comparison, Contestant

_SUITE = re.compile(r"^comparisons\s*:", re.MULTILINE)
_INCLUDING = re.compile(r"^include\s*:", re.MULTILINE)
_TITLED = re.compile(r"^title\s*:", re.MULTILINE)

_OF_PYTEST = frozenset(
    (
        "benchmark",
        "filterwarnings",
        "parametrize",
        "skip",
        "skipif",
        "timeout",
        "usefixtures",
        "xdist_group",
        "xfail",
    )
)
"""Marks that do something; a tag of that name is not made one."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the plugin."""
    group = parser.getgroup("harness", "suites of the harness")
    group.addoption(
        "--harness-profile",
        metavar="PROFILE",
        default="cpu",
        help="Profile whose comparisons are collected: cpu, edge-gpu or datacenter-gpu (default cpu).",
    )
    group.addoption(
        "--harness-methods",
        metavar="DIR",
        action="append",
        default=[],
        help="A folder with further papers and methods. May be repeated.",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> SuiteFile | None:
    """Collect a suite that is named on the command line; no other YAML file is looked at."""
    if file_path.suffix not in (".yaml", ".yml") or not parent.session.isinitpath(file_path):
        return None
    text = file_path.read_text(encoding="utf-8", errors="replace")
    if _SUITE.search(text) or (_TITLED.search(text) and _INCLUDING.search(text)):
        found: SuiteFile = SuiteFile.from_parent(parent, path=file_path)
        return found
    return None


class SuiteFile(pytest.Module):
    """A suite. A kind of module, so that fixtures of module scope and other plugins find what they expect."""

    def _getobj(self) -> ModuleType:
        return ModuleType(re.sub(r"\W", "_", self.path.stem), f"The suite {self.path}.")

    def collect(self) -> Iterable[pytest.Item]:
        """An item for each method on each seed of each comparison.

        Raises:
            RequestError, RequestErrors: the suite or an option is wrong.
        """
        from harness import profile, suite
        from harness.gate.wording import plain

        catalog = _catalog(self.config)
        place = profile.get(self.config.getoption("--harness-profile")).name
        comparisons = suite.expand(catalog, [str(self.path)], place)
        if not comparisons:
            self.warn(
                pytest.PytestCollectionWarning(
                    f"no comparison of {self.path.name} runs on the profile '{place}'"
                )
            )
        catalog.save_index()
        _, document = suite.load(self.path)
        taken: dict[str, int] = {}
        for comparison, contestant, varying in _points(comparisons):
            name = plain(f"{comparison.name}[{'-'.join([contestant.label, *varying])}]")
            taken[name] = taken.get(name, 0) + 1
            if taken[name] > 1:
                name = f"{name[:-1]}-{taken[name]}]"
            item: SuiteItem = SuiteItem.from_parent(
                self, name=name, callobj=_test(catalog, comparison, contestant)
            )
            item.line = document.lines.get(("comparisons", comparison.name), 1)
            item.add_marker(pytest.mark.benchmark(group=comparison.name))
            for mark in (*comparison.tags, *([comparison.paper] if comparison.paper else [])):
                self._mark(item, mark)
            yield item

    def _mark(self, item: pytest.Item, name: str) -> None:
        if name in _OF_PYTEST:
            self.warn(
                pytest.PytestCollectionWarning(f"the tag '{name}' is no mark here: pytest has one of that name")
            )
            return
        registered = self.config.stash.setdefault(_MARKS, set())
        if name not in registered:
            registered.add(name)
            self.config.addinivalue_line("markers", f"{name}: a tag or paper of a suite of the harness")
        item.add_marker(getattr(pytest.mark, name))

    def repr_failure(  # type: ignore[override]  # as pytest's own collectors have it, without a style
        self, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> str | TerminalRepr:
        """What is wrong with a suite, a line each, in place of a traceback through the harness."""
        from harness.errors import HarnessError

        if isinstance(excinfo.value, HarnessError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class SuiteItem(pytest.Function):
    """One method on one seed of one comparison."""

    line: int = 1

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the comparison stands in the suite."""
        return self.path, self.line - 1, self.name


_CATALOG = pytest.StashKey["Catalog"]()
_MARKS = pytest.StashKey[set[str]]()


def _catalog(config: pytest.Config) -> Catalog:
    """The catalog of this run, read once."""
    from harness.catalog import Catalog

    if _CATALOG not in config.stash:
        folders = [config.invocation_params.dir / folder for folder in config.getoption("--harness-methods")]
        config.stash[_CATALOG] = Catalog(tuple(folders))
    return config.stash[_CATALOG]


def _points(comparisons: Iterable[Comparison]) -> Iterator[tuple[Comparison, Contestant, list[str]]]:
    """Every method of every comparison, with the parameters and the seed that tell it from others of its name."""
    listed = [(c, contestant) for c in comparisons for contestant in c.contestants]
    values: dict[tuple[str, ...], dict[str, set[str]]] = {}

    def see(key: tuple[str, ...], parameters: dict[str, Any]) -> None:
        for name, value in parameters.items():
            values.setdefault(key, {}).setdefault(name, set()).add(repr(value))

    def varying(key: tuple[str, ...], parameters: dict[str, Any]) -> list[str]:
        return [f"{name}={value}" for name, value in parameters.items() if len(values[key][name]) > 1]

    for comparison, contestant in listed:
        see((comparison.name,), {**comparison.parameters, "seed": comparison.seed})
        see((comparison.name, contestant.label), {**contestant.parameters})
    for comparison, contestant in listed:
        found = varying((comparison.name,), {**comparison.parameters, "seed": comparison.seed})
        if contestant.parameters:
            found += varying((comparison.name, contestant.label), {**contestant.parameters})
        yield comparison, contestant, found


def _test(catalog: Catalog, comparison: Comparison, contestant: Contestant) -> Callable[[Any], None]:
    """The function of an item, which asks for the fixture ``benchmark`` by the name of its argument."""

    def measured(benchmark: Any) -> None:
        __tracebackhide__ = True
        from harness.errors import Unavailable

        try:
            _measure(catalog, comparison, contestant, benchmark)
        except Unavailable as error:
            pytest.skip(str(error))

    return measured


def _measure(catalog: Catalog, comparison: Comparison, contestant: Contestant, benchmark: Any) -> None:
    __tracebackhide__ = True
    from harness import profile
    from harness.cache import default_directory
    from harness.catalog import install_packages
    from harness.errors import Unavailable
    from harness.method import Context
    from harness.runner import missing_packages

    place = profile.get(comparison.profile)
    if not (seen := place.recognise()).here:
        raise Unavailable(seen.reason)
    entry = catalog.method(contestant.method)
    if reason := missing_packages(entry):
        raise Unavailable(reason)
    install_packages(catalog.modules())
    task = _made(catalog.task(comparison.task).load(), comparison.parameters)
    method = _made(entry.load(), contestant.parameters)
    # What `--benchmark-group-by=param:NAME` goes by; the fixture copies it when it starts.
    benchmark.param = contestant.label
    benchmark.params = {**comparison.parameters, **contestant.parameters, "method": contestant.label}
    with _threads(comparison.threads):
        method.task = task
        method.context = Context(
            seed=comparison.seed, device=place.device, profile=place.name, cache=default_directory()
        )
        method.work = task.load(comparison.seed)
        method.prepare(method.work)
        run = _synchronised(method.run) if place.device.startswith("cuda") else method.run
        if comparison.repeats == "once":
            output = benchmark.pedantic(run, rounds=1)
        elif benchmark.disabled:
            output = benchmark(run)
        else:
            # The first output is what is scored, and `benchmark` returns the last; this run also warms up.
            output = run()
            benchmark(run)
    metrics = _score(task, method, output)
    benchmark.extra_info.update(
        paper=comparison.paper,
        task=comparison.task,
        method=contestant.method,
        label=contestant.label,
        parameters={"task": dict(comparison.parameters), "method": dict(contestant.parameters)},
        seed=comparison.seed,
        profile=comparison.profile,
        metrics=metrics,
    )


def _made(cls: type[Any], parameters: Any) -> Any:
    return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in parameters.items()})


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Hold numerical libraries to `count` threads, where the suite says so, and let them go again."""
    if count is None:
        yield
        return
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def _synchronised(run: Callable[[], Any]) -> Callable[[], Any]:
    """`run` until the device is done, which on CUDA is later than when it returns."""
    import torch

    def synchronised() -> Any:
        output = run()
        torch.cuda.synchronize()
        return output

    return synchronised


def _score(task: Any, method: Any, output: Any) -> dict[str, float]:
    """The metrics of an output.

    Raises:
        BadOutput: a metric is not a finite number, or the metrics are not those that are declared.
    """
    import math

    from harness.errors import BadOutput
    from harness.method import as_measurement

    metrics = {name: float(value) for name, value in as_measurement(method.measure(output)).metrics.items()}
    declared = {metric.name for metric in (*task.metrics, *method.metrics)}
    if set(metrics) != declared:
        raise BadOutput(f"the metrics {sorted(declared)} are declared, but {sorted(metrics)} were measured")
    if wrong := [name for name, value in metrics.items() if not math.isfinite(value)]:
        raise BadOutput(f"'{wrong[0]}' is {metrics[wrong[0]]}")
    return metrics
