"""The whole gate, on a repository made for it: two revisions in which methods changed in every way there is."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest

from harness.errors import HarnessError, RequestError
from harness.gate.model import Finding, GateResult
from harness.gate.run import Options, run
from harness.gate.trees import Repository, lay_out
from tests.harness.gate.toy_repository import TASKS, git, repository, write

__all__ = ["repository"]


@pytest.mark.slow
def test_every_change_is_told_from_every_other(repository: Path) -> None:
    write(
        repository,
        {
            "steady": "",
            "slower": '{"steps": "40_000"}',
            "larger": '{"kept": "32"}',
            "worse": '{"answer": "0.8"}',
            "broken": '{"steps": "None"}',
            "mended": "",
            "added": "",
        },
    )
    told: list[str] = []
    options = Options(suite="mine", base="HEAD", folders=[Path("mine")], time=2.0)
    result = run(options, told.append)
    found = {(f.label, f.metric): f for f in result.findings}

    def change(label: str, metric: str) -> str:
        return found[(label, metric)].change

    assert change("slower", "latency") == "regressed", found[("slower", "latency")]
    assert found[("slower", "latency")].ratio == pytest.approx(2.0, rel=0.3)
    assert change("larger", "peak_memory") == "regressed"
    assert change("worse", "accuracy") == change("worse", "loss") == "regressed"
    assert found[("worse", "accuracy")].ratio == pytest.approx(0.8 / 0.9)
    assert change("broken", "status") == "regressed"
    assert "TypeError" in found[("broken", "status")].reason
    assert change("mended", "status") == "improved"
    assert change("added", "status") == "new"
    assert change("left", "status") == "gone"
    regressed = {key for key, finding in found.items() if finding.change == "regressed"}
    assert regressed == {
        ("slower", "latency"), ("larger", "peak_memory"), ("worse", "accuracy"), ("worse", "loss"), ("broken", "status"),
    }  # fmt: skip
    assert not [key for key in found if key[1] == "seen"]
    assert result.exit_code == 1
    assert result.head.clean is False
    assert result.base.revision
    assert result.timed[0].head is not None
    assert result.timed[0].head.clock == "host-ready"
    assert GateResult.model_validate_json(result.model_dump_json()) == result
    assert told == ["laying out both revisions"]
    assert not _left_behind()


def _left_behind() -> list[str]:
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended since it was listed
            found.append(" ".join(process.cmdline()))
    return [line for line in found if "harness.worker" in line]


def test_the_working_tree_is_copied_as_it_is(repository: Path) -> None:
    (repository / ".gitignore").write_text("ignored\n")
    (repository / "ignored").write_text("x")
    (repository / "added.txt").write_text("new")
    (repository / "mine" / "family" / "tasks.py").write_text("# changed\n")
    with lay_out(base="HEAD", base_env=None, folders=[Path("mine")]) as trees:
        head, base = (Path(t.catalog.folders[0]).parent for t in (trees.head, trees.base))
        assert (head / "added.txt").read_text() == "new"
        assert not (head / "ignored").exists()
        assert (head / "mine" / "family" / "tasks.py").read_text() == "# changed\n"
        assert (base / "mine" / "family" / "tasks.py").read_text() == TASKS
        assert not (base / "added.txt").exists()
        assert len(str(head)) == len(str(base))
        assert trees.head.python == trees.base.python
        assert "use those installed here" in trees.notes[0]
    assert not head.exists()


def test_what_cannot_be_compared_is_one_clear_error(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no revision 'nowhere'"):
        lay_out(base="nowhere", base_env=None)
    with pytest.raises(RequestError, match="needs a base"):
        lay_out(base=None, base_env=None)
    with pytest.raises(RequestError, match="no environment"):
        lay_out(base="HEAD", base_env=tmp_path / "absent")
    with pytest.raises(RequestError, match="no git checkout"):
        Repository.around(tmp_path)
    fake = tmp_path / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho out of order >&2\nexit 3\n")
    fake.chmod(0o755)
    with pytest.raises(HarnessError, match="out of order"):
        lay_out(base=None, base_env=tmp_path)


def test_declared_packages_decide_whether_environments_are_built(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from harness.gate import trees

    project = repository / "pyproject.toml"
    project.write_text(
        '[project]\nname = "mine"\ndependencies = ["numpy"]\n[project.optional-dependencies]\ntest = ["a"]\n'
    )
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "project")
    built: list[str] = []

    def build(folder: Path, key: str, say: object) -> str:
        built.append(folder.name)
        return sys.executable

    monkeypatch.setattr(trees, "_build", build)
    project.write_text(project.read_text().replace('test = ["a"]', 'test = ["b"]').replace("mine", "ours"))
    with lay_out(base="HEAD", base_env=None):
        assert built == []  # what only tests need changes nothing that is measured
    project.write_text(project.read_text().replace("numpy", "numpy<3"))
    with lay_out(base="HEAD", base_env=None) as found:
        assert sorted(built) == ["base", "head"]
        assert "different packages" in found.notes[0]


@pytest.mark.slow
def test_an_environment_that_is_already_built(repository: Path) -> None:
    """The packages of the environment, with the methods of the base revision."""
    import sys
    import sysconfig

    place = repository.parent / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    site = next((place / "lib").glob("python*/site-packages"))
    (site / "linked.pth").write_text(sysconfig.get_path("purelib") + "\n")
    write(repository, {"steady": "", "worse": '{"answer": "0.8"}'})
    options = Options(suite="mine", base="HEAD", base_env=place, folders=[Path("mine")], time=0.6)
    result = run(options)
    found: dict[tuple[str, str], Finding] = {(f.label, f.metric): f for f in result.findings}
    assert result.base.python == str(place / "bin" / "python")
    assert found[("worse", "accuracy")].change == "regressed"
    assert found[("steady", "accuracy")].change == "unchanged"
