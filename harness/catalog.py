"""Finds papers, methods, tasks and suites by name, without running or importing any of them.

Decorators, fields and docstrings are read from the source text (`harness.source`), so that listing costs
milliseconds, a broken file is an error with a line, and nothing happens at import time.

Several roots are searched: the harness's own ``methods/``, installed packages that advertise the entry point
group ``harness.methods``, and folders the user names. A root is laid out as
``<family>/<paper>/paper.yaml``; its suites are in ``suites/`` beside or inside it.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from harness.errors import RequestError, nearest
from harness.source import ClassSource, FieldSource, Sources

Found = TypeVar("Found")

ENTRY_POINTS = "harness.methods"
_FILES = ("tasks.py", "baselines.py", "method.py")
_HOME = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Root:
    """A folder of families and the package name that its modules are imported under."""

    path: Path
    package: str
    installed: bool = False
    """An installed package, which Python imports by itself."""

    @property
    def suites(self) -> tuple[Path, ...]:
        """Folders where this root's suites are."""
        return tuple(p for p in (self.path / "suites", self.path.parent / "suites") if p.is_dir())


@dataclass(frozen=True)
class Entry:
    """A task or a method as its source text declares it.

    Attributes:
        name: catalog name.
        family: e.g. "attention".
        paper: slug of the paper in whose folder it is, or None when the family shares it.
        source: the class; its module, file, line, fields and metrics.
    """

    name: str
    family: str
    paper: str | None
    source: ClassSource

    @property
    def fields(self) -> dict[str, FieldSource]:
        """Parameters by name."""
        return self.source.fields

    @property
    def metrics(self) -> tuple[Any, ...]:
        """Declared metrics, as `harness.method.Metric`."""
        return self.source.metrics

    def load(self) -> type[Any]:
        """Import the class. This is where torch may come in."""
        module = importlib.import_module(self.source.module)  # `install_packages` has been called
        loaded: type[Any] = getattr(module, self.source.name)
        return loaded


@dataclass(frozen=True)
class TaskEntry(Entry):
    """A task."""

    @property
    def repeats(self) -> str:
        """Default timing: "adaptive" or "once"."""
        return str(self.source.arguments.get("repeats", "adaptive"))

    @property
    def amount_unit(self) -> str:
        """Unit of the amount of work, "" when the task has none."""
        return str(self.source.arguments.get("amount_unit", ""))

    @property
    def data(self) -> tuple[str, ...]:
        """Data sets that it may need."""
        return tuple(self.source.arguments.get("data", ()))


@dataclass(frozen=True)
class MethodEntry(Entry):
    """A method: a paper's own, or a baseline."""

    @property
    def role(self) -> str:
        """ "method" for a paper's own, "baseline" for what it is compared with."""
        return "method" if self.source.file.name == "method.py" else "baseline"

    @property
    def attempts(self) -> tuple[str, ...]:
        """Names of the tasks that it attempts."""
        tasks = self.source.arguments.get("task", ())
        return (tasks,) if isinstance(tasks, str) else tuple(tasks)

    @property
    def packages(self) -> tuple[str, ...]:
        """Optional packages that it needs, as requirement strings."""
        return tuple(self.source.arguments.get("packages", ()))

    @property
    def runs_generated_code(self) -> bool:
        """Whether it runs programs that a language model writes."""
        return bool(self.source.arguments.get("runs_generated_code", False))


@dataclass(frozen=True)
class PaperEntry:
    """A paper's folder."""

    slug: str
    family: str
    file: Path


@dataclass
class Catalog:
    """Everything there is, by name.

    Args:
        folders: further roots, e.g. those of ``--methods DIR``.
        builtin: whether the harness's own papers are there.
        entry_point_roots: whether installed packages are searched.
        home: where the harness's own ``methods/`` and ``suites/`` lie; another checkout, for comparing revisions.
    """

    folders: Sequence[Path] = ()
    builtin: bool = True
    entry_point_roots: bool = True
    home: Path = _HOME
    _sources: Sources = field(default_factory=Sources)
    _pairs: dict[tuple[str, str], str | None] = field(default_factory=dict, repr=False)

    @cached_property
    def roots(self) -> tuple[Root, ...]:
        """All roots in order of precedence: ours, installed packages, the user's folders."""
        roots = [Root(self.home / "methods", "methods")] if self.builtin else []
        if self.entry_point_roots:
            roots += _installed_roots()
        for folder in self.folders:
            path = folder.expanduser().resolve()
            if not path.is_dir():
                raise RequestError(
                    f"there is no folder '{folder}'", hint="--methods takes a folder of families"
                )
            roots.append(Root(path, _package_name(path)))
        return tuple(roots)

    @cached_property
    def papers(self) -> dict[str, PaperEntry]:
        """Papers by slug."""
        found: dict[str, PaperEntry] = {}
        for root in self.roots:
            for file in sorted(root.path.glob("*/*/paper.yaml")):
                slug = slug_of(file.parent)
                if slug in found:
                    raise RequestError(
                        f"the paper '{slug}' is also in {found[slug].file}", file=file, hint="rename the folder"
                    )
                found[slug] = PaperEntry(slug, file.parent.parent.name, file)
        return found

    @cached_property
    def tasks(self) -> dict[str, TaskEntry]:
        """Tasks by name."""
        return self._entries("task", TaskEntry)

    @cached_property
    def methods(self) -> dict[str, MethodEntry]:
        """Methods by name."""
        return self._entries("method", MethodEntry)

    @cached_property
    def suites(self) -> dict[str, Path]:
        """Suite files by name."""
        found: dict[str, Path] = {}
        for root in self.roots:
            for folder in root.suites:
                for file in sorted(folder.glob("*.yaml")):
                    found.setdefault(file.stem, file)
        return found

    def task(self, name: str) -> TaskEntry:
        """The task `name`. Raises `RequestError` with the nearest name."""
        return _get(self.tasks, name, "task")

    def method(self, name: str) -> MethodEntry:
        """The method `name`. Raises `RequestError` with the nearest name."""
        return _get(self.methods, name, "method")

    def paper(self, slug: str) -> PaperEntry:
        """The paper `slug`. Raises `RequestError` with the nearest slug."""
        return _get(self.papers, slug, "paper")

    def suite(self, name: str) -> Path:
        """The file of suite `name`, which may also be a path.

        Raises:
            RequestError: there is no such suite.
        """
        path = Path(name)
        if path.suffix in (".yaml", ".yml") or os.sep in name:
            if not path.is_file():
                raise RequestError(f"there is no suite file '{name}'", hint=nearest(path.stem, self.suites))
            return path
        return _get(self.suites, name, "suite")

    def methods_of(self, slug: str) -> list[MethodEntry]:
        """The methods in a paper's folder, its own before its baselines."""
        own = [m for m in self.methods.values() if m.paper == slug]
        return sorted(own, key=lambda m: (m.role != "method", m.name))

    def modules(self) -> dict[str, Path]:
        """Folders that have to be made importable, by package name, for `install_packages`."""
        return {root.package: root.path for root in self.roots if not root.installed}

    def _packages(self) -> dict[str, Path]:
        return {root.package: root.path for root in self.roots}

    def digest(self, entry: Entry) -> str:
        """A digest of the source of `entry` and of all it imports from the roots."""
        return self._sources.digest(entry.source.file, self._packages())

    def source_of(self, task: str, method: str) -> str | None:
        """What records call the source of a method on a task; None where one of them is not there."""
        from harness.record import key_of  # and pydantic with it, which listing does not wait for

        pair = (task, method)
        if pair not in self._pairs:
            self._pairs[pair] = None
            if task in self.tasks and method in self.methods:
                parts = {"task": self.digest(self.tasks[task]), "method": self.digest(self.methods[method])}
                self._pairs[pair] = key_of(parts)[:16]
        return self._pairs[pair]

    def save_index(self) -> None:
        """Keep what was read from source files for the next process."""
        self._sources.save()

    def _entries(self, decorator: str, kind: type[Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        modules = self._packages()
        for root in self.roots:
            for file in _module_files(root.path):
                parts = file.relative_to(root.path).with_suffix("").parts
                module = ".".join((root.package, *parts))
                paper = slug_of(file.parent) if len(parts) == 3 else None
                for source in self._sources.classes(file, module, decorator, modules):
                    name = source.declared_name
                    if name in found:
                        other = found[name].source
                        raise RequestError(
                            f"the {decorator} '{name}' is also declared in {other.file}:{other.line}",
                            file=file,
                            line=source.line,
                            hint="names are unique; rename one",
                        )
                    found[name] = kind(name, parts[0], paper, source)
        return dict(sorted(found.items()))


def slug_of(folder: Path) -> str:
    """A paper's name from its folder: hyphens where the folder has underscores."""
    return folder.name.replace("_", "-")


def install_packages(modules: dict[str, Path]) -> None:
    """Make folders importable as packages under their names, wherever they are.

    A folder named ``methods`` in the current directory must not stand in for ours, and a user's folder
    need not be on any path; so the packages are put in place directly.
    """
    for package, path in modules.items():
        if package not in sys.modules:
            module = ModuleType(package)
            module.__path__ = [str(path)]
            sys.modules[package] = module


def _module_files(root: Path) -> Iterable[Path]:
    for family in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "_"))):
        if family.name == "suites":
            continue
        for folder in (family, *sorted(p for p in family.iterdir() if p.is_dir())):
            for name in _FILES:
                if (folder / name).is_file():
                    yield folder / name


def _installed_roots() -> list[Root]:
    roots = []
    for point in entry_points(group=ENTRY_POINTS):
        spec = PathFinder.find_spec(point.value.split(".")[0], sys.path)
        locations = list(spec.submodule_search_locations or []) if spec else []
        if not locations:
            raise RequestError(
                f"the entry point '{point.name}' of group {ENTRY_POINTS} names the package"
                f" '{point.value}', which is not there",
                hint="reinstall the package that declares it",
            )
        path = Path(locations[0], *point.value.split(".")[1:])
        roots.append(Root(path, point.value, installed=True))
    return roots


def _package_name(path: Path) -> str:
    """A package name for a user's folder that cannot collide with an installed package."""
    import zlib

    bare = re.sub(r"\W", "_", path.name)
    return f"harness_user_{bare}_{zlib.crc32(str(path).encode()):08x}"


def _get(found: dict[str, Found], name: str, kind: str) -> Found:
    if name not in found:
        raise RequestError(f"there is no {kind} '{name}'", hint=nearest(name, found))
    return found[name]
