"""Method and Task: the two interfaces that an author implements.

A task loads work from a seed and scores an output. A method does the work: `prepare` builds what it
needs, `run` is the timed region, `measure` scores the output. Both are plain dataclasses: their fields
are the parameters that a suite sets by name, each with a type, a default and a docstring.

    @task("sorting", metrics=[Metric("disorder", better="lower", doc="Share of neighbours out of order.")])
    class Sorting(Task[list[float], list[float]]):
        \"\"\"Sort random numbers.\"\"\"

        size: PositiveInt = 1000
        \"\"\"How many numbers.\"\"\"

        def load(self, seed: int) -> list[float]:
            return rng(seed, "numbers").random(self.size).tolist()

        def score(self, work: list[float], output: list[float]) -> dict[str, float]:
            return {"disorder": float(np.mean(np.diff(output) < 0))}

    @method("timsort", task="sorting")
    class Timsort(Method[list[float], list[float]]):
        \"\"\"The sort of the standard library.\"\"\"

        def prepare(self, work: list[float]) -> None:
            self.numbers = work

        def run(self) -> list[float]:
            return sorted(self.numbers)

The catalog reads decorators, fields and docstrings from the source text without running it. Their
arguments and the fields' defaults are therefore literals.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar, dataclass_transform

from harness import seeding

Work = TypeVar("Work")
Output = TypeVar("Output")

Better = Literal["higher", "lower", "neither"]
Repeats = Literal["adaptive", "once"]


@dataclass(frozen=True)
class Metric:
    """A number that a task or a method reports, declared once.

    Attributes:
        name: a Python identifier; claims refer to it by this name.
        unit: "" for a pure number, a share or a ratio; otherwise a unit such as "B", "s", "bits/byte".
        better: which way is better; "neither" for a figure that only describes.
        doc: one line for tables and tooltips.
        deterministic: True when the same parameters give the same value whatever the seed (a count of
            bytes, say), so that one measurement decides.
    """

    name: str
    unit: str = ""
    better: Better = "higher"
    doc: str = ""
    deterministic: bool = False


@dataclass(frozen=True)
class Series:
    """A curve for plots, e.g. accuracy per epoch. `x` and `y` have the same length."""

    x: Sequence[float]
    y: Sequence[float]
    x_label: str = "step"
    y_label: str = ""

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"a series has {len(self.x)} x values but {len(self.y)} y values")


@dataclass(frozen=True)
class Measurement:
    """Named metrics and series of one output."""

    metrics: Mapping[str, float]
    series: Mapping[str, Series] = field(default_factory=dict)

    def __or__(self, other: Measurement | Mapping[str, float]) -> Measurement:
        """This measurement with the metrics and series of another added."""
        other = other if isinstance(other, Measurement) else Measurement(other)
        return Measurement({**self.metrics, **other.metrics}, {**self.series, **other.series})


@dataclass(frozen=True)
class Context:
    """What a method may know about where it runs.

    Attributes:
        seed: the seed of the record. Draw from `rng` or `torch_generator`, never from global state.
        device: a torch device string: "cpu" or "cuda".
        profile: the profile's name.
        cache: folder for prepared artefacts; use `harness.cache` rather than writing there directly.
    """

    seed: int = 1000
    device: str = "cpu"
    profile: str = "cpu"
    cache: Path | None = None

    def derive(self, *names: str | int) -> int:
        """See `harness.seeding.derive`."""
        return seeding.derive(self.seed, *names)

    def rng(self, *names: str | int) -> Any:
        """A NumPy generator for the stream `names` of this record's seed."""
        return seeding.rng(self.seed, *names)

    def torch_generator(self, *names: str | int, device: str = "cpu") -> Any:
        """A torch generator for the stream `names` of this record's seed."""
        return seeding.torch_generator(self.seed, *names, device=device)


class Task(ABC, Generic[Work, Output]):
    """A problem with inputs and a measure of success, shared by all methods that attempt it."""

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    repeats: ClassVar[Repeats]
    amount_unit: ClassVar[str]

    @abstractmethod
    def load(self, seed: int) -> Work:
        """The work for `seed`: the same on every machine. Tensors are on the CPU.

        Raises:
            MissingData: a data set is nowhere to be found; the comparison is skipped.
        """

    @abstractmethod
    def score(self, work: Work, output: Output) -> Measurement | Mapping[str, float]:
        """The quality of `output`: exactly the task's metrics.

        Raises:
            BadOutput: `output` is not of the form that the task asks for.
        """

    def amount(self, work: Work) -> float | None:
        """How much `work` there is in `amount_unit`; gives the record its ``throughput``."""
        return None


class Method(ABC, Generic[Work, Output]):
    """One way of doing a task: a paper's algorithm or a baseline.

    The engine sets `task`, `work` and `context` before it calls `prepare`.
    """

    name: ClassVar[str]
    attempts: ClassVar[tuple[str, ...]]
    metrics: ClassVar[tuple[Metric, ...]]
    packages: ClassVar[tuple[str, ...]]
    runs_generated_code: ClassVar[bool]

    task: Task[Work, Output]
    work: Work
    context: Context

    @abstractmethod
    def prepare(self, work: Work) -> None:
        """Build everything that `run` needs. Never timed as latency; its own time is recorded apart."""

    @abstractmethod
    def run(self) -> Output:
        """Do the task once and nothing else: no logging, no scoring, no loading of data.

        It may be called many times and does the same amount of work each time. On CUDA it may return
        before the device has finished; the instrument synchronises.
        """

    def measure(self, output: Output) -> Measurement | Mapping[str, float]:
        """The quality of `output`, by default the task's score.

        Called once, with the output of the first `run`, so that it does not depend on how often the
        instrument repeats.
        """
        return self.task.score(self.work, output)


T = TypeVar("T", bound=type)


def _as_dataclass(cls: T) -> T:
    """`cls` as a keyword-only dataclass whose parameters are the annotations that have a default.

    An annotation without a default declares state that `prepare` sets. Plain classes between `cls` and
    `Method` or `Task` count too: what they declare is a parameter of everything built on them.
    """
    for part in reversed(cls.__mro__):
        if part.__module__ in (__name__, "builtins", "abc", "typing"):
            continue
        if "__dataclass_fields__" in part.__dict__:
            continue
        for name in inspect.get_annotations(part):
            if name not in part.__dict__:
                setattr(part, name, dataclasses.field(init=False, repr=False))
        dataclass(kw_only=True, eq=False)(part)
    return cls


@dataclass_transform(kw_only_default=True)
def task(
    name: str,
    *,
    metrics: Sequence[Metric],
    repeats: Repeats = "adaptive",
    amount_unit: str = "",
    data: Sequence[str] = (),
) -> Callable[[T], T]:
    """Make a class a task: a keyword-only dataclass with a name.

    Args:
        name: kebab-case, unique among tasks.
        metrics: what `score` returns.
        repeats: "adaptive" for work that is repeated until its latency is known; "once" for runs too
            long to repeat, such as a training: one run per seed and no warm-up.
        amount_unit: unit of `Task.amount`, plural, e.g. "characters".
        data: names of the data sets that it may need, for ``harness doctor``.
    """

    def decorate(cls: T) -> T:
        made: Any = _as_dataclass(cls)
        made.name, made.metrics = name, tuple(metrics)
        made.repeats, made.amount_unit, made.data = repeats, amount_unit, tuple(data)
        return cls

    return decorate


@dataclass_transform(kw_only_default=True)
def method(
    name: str,
    *,
    task: str | Sequence[str],
    metrics: Sequence[Metric] = (),
    packages: Sequence[str] = (),
    runs_generated_code: bool = False,
) -> Callable[[T], T]:
    """Make a class a method: a keyword-only dataclass with a name.

    Args:
        name: kebab-case, unique among methods.
        task: the task that it attempts, or several.
        metrics: what its `measure` adds to the task's metrics.
        packages: optional packages that it imports, as requirement strings ("nupunkt>=0.5"); where one
            is missing the method is skipped with the command that installs it. Import them in
            `prepare` or at the top of a module that only `prepare` imports.
        runs_generated_code: whether it runs programs that a language model writes, through `harness.sandbox`; it is
            then skipped unless the user allows that.
    """

    def decorate(cls: T) -> T:
        made: Any = _as_dataclass(cls)
        made.name = name
        made.attempts = (task,) if isinstance(task, str) else tuple(task)
        made.metrics, made.packages = tuple(metrics), tuple(packages)
        made.runs_generated_code = runs_generated_code
        return cls

    return decorate


def parameters(thing: Task[Any, Any] | Method[Any, Any]) -> dict[str, Any]:
    """The parameters of a task or method and their values."""
    return {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing) if f.init}  # type: ignore[arg-type]


def as_measurement(result: Measurement | Mapping[str, float]) -> Measurement:
    """What `score` or `measure` returned, as a `Measurement`."""
    return result if isinstance(result, Measurement) else Measurement(dict(result))
