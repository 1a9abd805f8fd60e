"""Shared marks of the tests."""

from __future__ import annotations

import os
import tempfile

import pytest

from harness import data, machine

pytest_plugins = "pytester"

# Comparisons of tests do not wait for those of another process of the tests, nor for what else is measured here.
_TURNS = tempfile.TemporaryDirectory(prefix="harness-tests-")
os.environ[machine.VARIABLE] = _TURNS.name


def needs_data(*names: str) -> pytest.MarkDecorator:
    """Skip a test where one of the data sets is not under ``HARNESS_DATA``."""
    missing = [name for name in names if not data.available(name)]
    return pytest.mark.skipif(
        bool(missing), reason=f"needs the data set {', '.join(missing)} under {data.VARIABLE}"
    )
