"""Text from elsewhere on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import console

EVIL = "a\x1b]0;owned\x07\x1b[2Jb\x9b31mc\u202edbe\r"


def test_control_characters_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    console.console.cache_clear()
    try:
        out = console.console()
        out.print(EVIL)
        table = console.table(EVIL, ["column"])
        table.add_row(EVIL)
        out.print(table)
    finally:
        console.console.cache_clear()
    printed = capsys.readouterr().out
    assert not set(printed) & {"\x1b", "\x07", "\x9b", "\u202e", "\r"}
    assert "a␛]0;owned␇␛[2Jb�31mc�dbe␍" in printed


@given(st.text())
def test_other_text_stays(text: str) -> None:
    shown = console.visible(text)
    assert len(shown) == len(text)
    assert all(a == b for a, b in zip(text, shown, strict=True) if a.isprintable())
    assert console.visible(shown) == shown
