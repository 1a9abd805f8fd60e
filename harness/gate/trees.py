"""Lays out the two revisions of a gate side by side, and finds an environment for each.

Both trees are copies in one temporary folder, under names of equal length, so that neither has a warmer cache or a longer
path than the other, and editing goes on while they are measured. The instrument is one and the same for both sides:
that of the harness which runs the gate. What differs is the methods, and the packages where a revision declares others.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cache import default_directory
from harness.catalog import Catalog
from harness.errors import HarnessError, RequestError
from harness.gate.model import Side

_LOCKS = ("uv.lock", "poetry.lock", "pdm.lock", "requirements.txt", "constraints.txt")
_WORKSHOP = ("test", "tests", "lint", "dev", "docs")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Tree:
    """One side, ready to be measured.

    Attributes:
        side: what it is, for the result.
        catalog: its papers, methods, tasks and suites.
        python: the interpreter of its environment.
    """

    side: Side
    catalog: Catalog
    python: str


@dataclass(frozen=True)
class Repository:
    """A git checkout: its top folder."""

    top: Path

    @classmethod
    def around(cls, folder: Path) -> Repository:
        """The checkout that `folder` is in.

        Raises:
            RequestError: it is in none, or git is missing.
        """
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), "rev-parse", "--show-toplevel"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise RequestError("the gate needs git, which is not installed") from error
        if done.returncode != 0:
            raise RequestError(
                f"'{folder}' is in no git checkout, so there is no base revision to compare with",
                hint="run the gate inside the repository, or name an environment with --base-env",
            )
        return cls(Path(done.stdout.strip()))

    def git(self, *arguments: str) -> str:
        """Output of a git command. Raises `HarnessError` with git's own words."""
        done = subprocess.run(
            ["git", "-C", str(self.top), *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise HarnessError(f"git {arguments[0]}: {done.stderr.strip() or 'failed'}")
        return done.stdout

    def commit(self, revision: str) -> str:
        """The commit that `revision` names. Raises `RequestError` where there is none."""
        try:
            return self.git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").strip()
        except HarnessError:
            raise RequestError(
                f"there is no revision '{revision}' in {self.top}",
                hint="fetch it first; a shallow clone has only its last commit",
            ) from None

    def export(self, commit: str, folder: Path) -> None:
        """Write the tree of a commit into `folder`."""
        with tempfile.TemporaryFile() as stream:
            done = subprocess.run(
                ["git", "-C", str(self.top), "archive", "--format=tar", commit],
                stdout=stream, stderr=subprocess.PIPE, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise HarnessError(f"git archive: {done.stderr.decode(errors='replace').strip()}")
            stream.seek(0)
            with tarfile.open(fileobj=stream) as archive:
                archive.extractall(folder, filter="data")

    def copy(self, folder: Path) -> None:
        """Write the working tree into `folder`: tracked files as they are, and those that git does not ignore."""
        names = self.git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in filter(None, names.split("\0")):
            source, target = self.top / name, folder / name
            if not source.is_file():
                continue  # deleted, or a submodule's folder
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)

    def time(self, commit: str) -> str:
        """When a commit was made, ISO 8601."""
        return self.git("show", "-s", "--format=%cI", commit).strip()

    def clean(self) -> bool:
        """Whether the working tree is exactly its commit."""
        return self.git("status", "--porcelain") == ""


@dataclass
class Trees:
    """Both sides, and the folder they lie in; a context manager that removes it."""

    base: Tree
    head: Tree
    notes: list[str]
    _folder: tempfile.TemporaryDirectory[str]

    def __enter__(self) -> Trees:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def lay_out(
    *,
    base: str | None,
    base_env: Path | None,
    folders: Sequence[Path] = (),
    where: Path | None = None,
    say: Say = lambda text: None,
) -> Trees:
    """Both sides of a gate.

    Args:
        base: the base revision; None only with `base_env`.
        base_env: an environment that is already built: a folder of ``python -m venv`` or an interpreter. With `base` its
            packages are used with that revision's methods, without it the methods installed there.
        folders: further folders of methods, as given to ``--methods``; those inside the checkout are taken from each
            revision.
        where: a folder of the checkout (default: the current one).
        say: told what takes time.

    Raises:
        RequestError: no such revision or environment.
        HarnessError: git or the installation failed.
    """
    if base is None and base_env is None:
        raise RequestError(
            "the gate needs a base to compare with", hint="name one with --base REV or --base-env"
        )
    repository = Repository.around((where or Path.cwd()).resolve())
    commit = repository.commit(base) if base is not None else None
    temporary = tempfile.TemporaryDirectory(prefix="harness-gate-")
    try:
        head_folder, base_folder = Path(temporary.name, "head"), Path(temporary.name, "base")
        say("laying out both revisions")
        repository.copy(head_folder)
        head_commit = repository.git("rev-parse", "HEAD").strip()
        notes: list[str] = []
        base_python = _interpreter(base_env) if base_env is not None else sys.executable
        head_python = sys.executable
        if commit is not None:
            repository.export(commit, base_folder)
            base_catalog = _catalog(repository, base_folder, folders)
            if base_env is None:
                head_python, base_python, note = _environments(head_folder, base_folder, say)
                notes.append(note)
        else:
            base_catalog = _installed(base_python, folders, repository)
            notes.append(f"the base is what is installed in {base_env}")
        return Trees(
            base=Tree(
                Side(
                    name=base or str(base_env), revision=commit, clean=True if commit else None, python=base_python,
                    versions=_versions(base_python), time=repository.time(commit) if commit else None,
                ),
                base_catalog,
                base_python,
            ),
            head=Tree(
                Side(
                    name="working tree", revision=head_commit, clean=repository.clean(), python=head_python,
                    versions=_versions(head_python), time=repository.time(head_commit),
                ),
                _catalog(repository, head_folder, folders),
                head_python,
            ),
            notes=notes,
            _folder=temporary,
        )  # fmt: skip
    except BaseException:
        temporary.cleanup()
        raise


def _catalog(repository: Repository, folder: Path, methods: Sequence[Path]) -> Catalog:
    """The catalog of a laid-out tree: the harness's own methods from there too where the checkout is the harness's."""
    mapped = []
    for given in methods:
        path = given.expanduser().resolve()
        if path.is_relative_to(repository.top):
            there = folder / path.relative_to(repository.top)
            if there.is_dir():  # a revision before the folder was added has nothing to compare
                mapped.append(there)
        else:
            mapped.append(path)
    ours = (folder / "methods").is_dir() and (folder / "harness" / "method.py").is_file()
    return Catalog(tuple(mapped), home=folder) if ours else Catalog(tuple(mapped))


def _installed(python: str, folders: Sequence[Path], repository: Repository) -> Catalog:
    """The catalog of the harness that is installed in an environment."""
    script = (
        "import importlib.util, json; s = importlib.util.find_spec('harness');"
        " print(json.dumps(list(s.submodule_search_locations) if s else []))"
    )
    found = _ask(python, script)
    if not found:
        raise RequestError(
            f"no harness is installed in the environment of {python}", hint="install the base there"
        )
    inside = [p for p in folders if p.expanduser().resolve().is_relative_to(repository.top)]
    if inside:
        raise RequestError(
            f"--methods {inside[0]} lies in the checkout, and with --base-env alone there is no base revision of it",
            hint="name the base revision as well, with --base",
        )
    return Catalog(tuple(folders), home=Path(found[0]).parent)


def _interpreter(environment: Path) -> str:
    path = environment.expanduser()
    for candidate in (path / "bin" / "python", path):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            # Not resolved: an environment's interpreter is a link, and its place is what makes it that environment's.
            return str(candidate.absolute())
    raise RequestError(f"there is no environment '{environment}'", hint="a folder made by python -m venv")


def _ask(python: str, script: str) -> Any:
    """What a script prints as JSON, run by another interpreter away from any checkout."""
    done = subprocess.run(
        [python, "-I", "-c", script], capture_output=True, text=True, check=False, cwd=tempfile.gettempdir()
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise HarnessError(f"{python} does not work: {last}")
    return json.loads(done.stdout)


def _versions(python: str) -> dict[str, str]:
    from harness import environment

    if python == sys.executable:
        return environment.versions()
    names = json.dumps([*environment.PACKAGES])
    script = (
        "import json, platform\nfrom importlib import metadata\nfound = {'python': platform.python_version()}\n"
        f"for name in json.loads({names!r}):\n    try:\n        found[name] = metadata.version(name)\n"
        "    except metadata.PackageNotFoundError:\n        pass\nprint(json.dumps(found))"
    )
    versions: dict[str, str] = _ask(python, script)
    return versions


# -- environments -----------------------------------------------------------------------------------------


def _environments(head: Path, base: Path, say: Say) -> tuple[str, str, str]:
    """Interpreters of head and base, and a sentence on them."""
    declared = [_declared(head), _declared(base)]
    if declared[0] == declared[1]:
        return (
            sys.executable,
            sys.executable,
            "both revisions declare the same packages and use those installed here",
        )
    say("the revisions declare different packages; building an environment for each (minutes, the first time)")
    pythons = [_build(folder, key, say) for folder, key in zip((head, base), declared, strict=True)]
    return pythons[0], pythons[1], "the revisions declare different packages; each was installed with its own"


def _declared(folder: Path) -> str:
    """A digest of everything in a tree that decides what is installed with it."""
    digest = hashlib.sha256()
    project = folder / "pyproject.toml"
    if project.is_file():
        try:
            parsed = tomllib.loads(project.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise RequestError(f"is not TOML: {error}", file=project) from error
        table = parsed.get("project", {})
        parts = {k: table.get(k) for k in ("dependencies", "optional-dependencies", "requires-python")}
        if parts["optional-dependencies"]:
            # What is only for working on the project changes nothing that is measured.
            extras = parts["optional-dependencies"]
            parts["optional-dependencies"] = {k: v for k, v in extras.items() if k not in _WORKSHOP}
        digest.update(json.dumps(parts, sort_keys=True).encode())
    for name in _LOCKS:
        if (folder / name).is_file():
            digest.update(name.encode() + (folder / name).read_bytes())
    return digest.hexdigest()[:16]


def _build(folder: Path, key: str, say: Say) -> str:
    """An environment with the packages that a tree declares, kept for the next gate. Returns its interpreter."""
    if not (folder / "pyproject.toml").is_file():
        raise RequestError(
            "one of the revisions has no pyproject.toml, so its environment cannot be built",
            hint="use --base-env",
        )
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    place = default_directory() / "environments" / f"{key}-{version}"
    python = place / "bin" / "python"
    done = place / "complete"
    if done.is_file():
        return str(python)
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    extras = "[all]" if "all" in project.get("optional-dependencies", {}) else ""
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        [str(python), "-m", "pip", "install", "--quiet", f"{folder}{extras}"],
    ):
        say(" ".join(command[1:]))
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            last = (finished.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise HarnessError(f"the environment of {folder.name} cannot be built: {last}")
    done.touch()
    return str(python)
