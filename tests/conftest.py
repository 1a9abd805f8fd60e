"""Shared marks of the tests."""

from __future__ import annotations

import pytest

from harness import data

pytest_plugins = "pytester"


def needs_data(*names: str) -> pytest.MarkDecorator:
    """Skip a test where one of the data sets is not under ``HARNESS_DATA``."""
    missing = [name for name in names if not data.available(name)]
    return pytest.mark.skipif(
        bool(missing), reason=f"needs the data set {', '.join(missing)} under {data.VARIABLE}"
    )
