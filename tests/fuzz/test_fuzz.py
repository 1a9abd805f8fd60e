"""A few seconds of fuzzing, so that a parser that a change breaks, or the fuzzer itself, is noticed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="needs atheris: pip install paper-harness[fuzz]"
)
def test_a_few_seconds_find_nothing(tmp_path: Path) -> None:
    script = Path(__file__).with_name("parsers.py")
    done = subprocess.run(
        [
            sys.executable,
            script,
            "-runs=1500",
            "-seed=1",
            "-max_total_time=20",
            f"-artifact_prefix={tmp_path}/",
        ],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done 1" in done.stderr
