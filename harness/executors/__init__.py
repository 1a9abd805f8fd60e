"""Where comparisons run: this machine, a Ray cluster, a Slurm cluster.

A module of this package is an executor of the module's name. It has a function ``make(address, cluster)`` that returns
an `Executor`; nothing is registered anywhere. An installed package brings its own through the entry point group
``harness.executors``, whose value is such a module.

The unit that is placed is a comparison: taking turns needs one machine.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from harness.catalog import Catalog
from harness.comparing import Progress
from harness.errors import RequestError, nearest
from harness.planning import Step
from harness.record import Record

ENTRY_POINTS = "harness.executors"
_HELPERS = ("cluster", "placed")

Group = Sequence[Step]
"""The methods of one comparison that are measured together."""

Finished = Generator[tuple[Group, list[Record]], None, None]
"""Groups with their records, as they are finished."""


@dataclass(frozen=True)
class Work:
    """What an executor carries out.

    Attributes:
        catalog: where tasks and methods are.
        groups: what is placed, each whole and on one machine.
        progress: a display; told what starts. The runner tells it what has finished.
        should_stop: asked before a group is placed; once True no further one is.
        claim: keeps other runs of this machine from measuring a group for the same store while its body runs, up to where
            its records are stored. Gives the records where another run has stored them since this one was planned.
    """

    catalog: Catalog
    groups: Sequence[Group]
    progress: Progress
    should_stop: Callable[[], bool]
    claim: Callable[[Group], AbstractContextManager[list[Record] | None]] = lambda group: nullcontext()


class Executor(ABC):
    """A way of carrying out comparisons."""

    @abstractmethod
    def carry_out(self, work: Work) -> Finished:
        """Each group with a record for each of its steps, in their order, as groups are finished.

        A method that goes wrong, or a machine that is lost too often, is a record. The runner closes the iterator when it
        stops early, on an interrupt for instance; whatever still runs is then ended and its results are dropped.

        Raises:
            HarnessError: the executor cannot work, so that no further group would come through.
        """


def names() -> list[str]:
    """The executors that there are."""
    own = [m.name for m in pkgutil.iter_modules(__path__) if m.name not in _HELPERS]
    return sorted({*own, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def make(name: str = "local", address: str | None = None, cluster: Path | None = None) -> Executor:
    """The executor `name`.

    Args:
        name: "local", "ray", "slurm" or that of an installed package.
        address: of a cluster, for executors that connect to one.
        cluster: a YAML file with what comparisons of each profile ask the cluster for.

    Raises:
        RequestError, RequestErrors: there is no such executor, it is not installed, or what it is given is wrong.
    """
    if name not in (known := names()):
        raise RequestError(f"there is no executor '{name}'", hint=nearest(name, known))
    module: Any
    for point in entry_points(group=ENTRY_POINTS, name=name):
        module = point.load()
        break
    else:
        module = importlib.import_module(f"{__name__}.{name}")
    executor = module.make(address, cluster)
    assert isinstance(executor, Executor)
    return executor
