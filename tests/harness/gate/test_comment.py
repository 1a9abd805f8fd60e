"""The comment on a pull request, from results that anybody may have written, and the workflows around it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.gate.comment import comment, main
from harness.gate.markdown import MARK
from harness.gate.output import to_json
from tests.harness.gate.made_up import finding, result

ROOT = Path(__file__).resolve().parent.parent.parent.parent
WORKFLOWS = ROOT / ".github" / "workflows"
RUN = "https://github.com/o/r/actions/runs/1"


def workflow(name: str) -> dict[Any, Any]:
    read: dict[Any, Any] = yaml.safe_load((WORKFLOWS / name).read_text())
    return read


def test_a_result_becomes_a_comment(tmp_path: Path) -> None:
    (tmp_path / "gate.json").write_text(to_json(result([finding("regressed")])))
    assert main([str(tmp_path / "gate.json"), "--run", RUN, "--out", str(tmp_path / "c.md")]) == 0
    text = (tmp_path / "c.md").read_text()
    assert text.startswith(MARK + "\n")
    assert "1 regressed" in text
    assert RUN in text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "did not get as far"),
        (b"{", "not what this version writes"),
        (b'{"suite": "<script>"}', "Field required"),
    ],
)
def test_no_result_is_said(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "gate.json").write_bytes(content)
    text = comment(tmp_path / "gate.json", RUN)
    assert text.startswith(MARK + "\n")
    assert reason in text


def test_a_result_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.gate.comment.MOST_BYTES", 10)
    (tmp_path / "gate.json").write_text(to_json(result([])))
    assert "larger than any gate" in comment(tmp_path / "gate.json", RUN)


def test_the_comment_needs_nothing_but_pydantic() -> None:
    code = (
        "import sys; import harness.gate.comment;"
        "print(*{n.partition('.')[0] for n in sys.modules} - set(sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
                          capture_output=True, text=True, check=True, cwd=ROOT)  # fmt: skip
    loaded = {name for name in done.stdout.split() if not name.startswith(("_", "pydantic"))}
    assert loaded <= {"harness", "annotated_types", "typing_extensions", "typing_inspection", "sitecustomize"}


def test_what_runs_the_pull_request_may_only_read() -> None:
    gate = workflow("gate.yml")
    assert gate["permissions"] == {"contents": "read"}
    assert "permissions" not in gate["jobs"]["gate"]
    steps = gate["jobs"]["gate"]["steps"]
    assert steps[0]["with"] == {"fetch-depth": 0, "persist-credentials": False}
    assert all("${{" not in step.get("run", "") for step in steps)
    assert any("nox -s gate -- --base" in step.get("run", "") for step in steps)


def test_what_may_comment_runs_nothing_of_the_pull_request() -> None:
    text = workflow("gate-comment.yml")
    assert text[True] == {"workflow_run": {"workflows": [workflow("gate.yml")["name"]], "types": ["completed"]}}
    job = text["jobs"]["comment"]
    assert job["permissions"] == {"actions": "read", "contents": "read", "pull-requests": "write"}
    checkout = job["steps"][0]["with"]
    assert "ref" not in checkout  # the default branch
    assert all("${{" not in step.get("run", "") for step in job["steps"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], False),
        (["--base", "main"], False),
        (["--base=main", "--json"], False),
        (["--base", "main", "smoke"], True),
        (["smoke", "--base", "main"], True),
        (["--json", "smoke"], True),
    ],
)
def test_the_session_gates_the_suite_ci_unless_another_is_named(arguments: list[str], named: bool) -> None:
    pytest.importorskip("nox")
    from noxfile import _names_a_suite

    assert _names_a_suite(arguments) is named
