from __future__ import annotations

from pathlib import Path

import pytest

from harness import parameters
from harness.catalog import Catalog, Entry
from harness.errors import RequestError


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    folder = tmp_path / "family" / "paper"
    folder.mkdir(parents=True)
    (folder / "method.py").write_text(
        "from typing import Literal\nfrom harness.method import Method, method\n"
        "from harness.types import Fraction, PositiveInt\nKind = Literal['a', 'b']\n"
        "@method('m', task='t')\nclass M(Method):\n"
        "    n: PositiveInt = 1\n    share: Fraction = 0.5\n    kind: Kind = 'a'\n    maybe: int | None = None\n"
        "    sizes: tuple[int, ...] = (1, 2)\n    flag: bool = False\n    rate: float = 1.0\n"
    )
    return Catalog([tmp_path], builtin=False, entry_point_roots=False).method("m")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 3),
        ("share", 1),
        ("kind", "b"),
        ("maybe", None),
        ("maybe", 4),
        ("sizes", [3]),
        ("flag", True),
        ("rate", 2),
    ],
)
def test_accepts(entry: Entry, name: str, value: object) -> None:
    assert parameters.check(entry, name, value) == value


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("n", 0, "greater than 0"),
        ("n", 1.5, "integer"),
        ("n", "3", "integer"),
        ("n", True, "integer"),
        ("share", 1.5, "less than or equal to 1"),
        ("kind", "c", "'a' or 'b'"),
        ("sizes", ["x"], "integer"),
        ("flag", 1, "boolean"),
        ("rate", "fast", "number"),
        ("sizs", [1], "did you mean 'sizes'"),
    ],
)
def test_refuses(entry: Entry, name: str, value: object, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        parameters.check(entry, name, value)
