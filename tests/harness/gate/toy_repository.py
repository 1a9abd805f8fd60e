"""A repository of methods for gates to be tried on: each method a copy of the same, but for what is named."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

TASKS = """
from harness.method import Metric, Task, task

@task("counting", metrics=[Metric("accuracy"), Metric("loss", better="lower"), Metric("seen", better="neither")])
class Counting(Task):
    "Count."

    def load(self, seed):
        return seed

    def score(self, work, output):
        return {"accuracy": output, "loss": 1.0 - output, "seen": output}
"""


def baselines(**changed: str) -> str:
    """The source of the methods: each a copy of the same, but for what is named."""
    parts = ["import numpy as np", "from harness.method import Method, method", ""]
    for name in changed:
        body = {
            "steps": "20_000",
            "kept": "1",
            "answer": "0.9",
            "prepare": "pass",
            **json.loads(changed[name] or "{}"),
        }
        cls = name.title()
        parts.append(
            f'@method("{name}", task="counting")\nclass {cls}(Method):\n    "One."\n'
            f"    def prepare(self, work):\n        self.block = np.ones({body['kept']} << 20, dtype=np.uint8)\n"
            f"        {body['prepare']}\n"
            f"    def run(self):\n        total = 0\n        for i in range({body['steps']}):\n            total += i\n"
            f"        return {body['answer']}\n"
        )
    return "\n".join(parts)


SUITE = """
title: Gate
comparisons:
  counting:
    task: counting
    methods: [{methods}]
    limits: {{time: 60, memory: 2GB}}
"""


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def write(folder: Path, methods: dict[str, str]) -> None:
    family = folder / "mine" / "family"
    family.mkdir(parents=True, exist_ok=True)
    (family / "tasks.py").write_text(TASKS)
    (family / "baselines.py").write_text(baselines(**methods))
    (folder / "mine" / "suites").mkdir(exist_ok=True)
    (folder / "mine" / "suites" / "mine.yaml").write_text(SUITE.format(methods=", ".join(methods)))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    write(
        folder,
        {
            "steady": "",
            "slower": "",
            "larger": "",
            "worse": "",
            "broken": "",
            "mended": '{"steps": "None"}',
            "left": "",
        },
    )
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "base")
    monkeypatch.chdir(folder)
    return folder
