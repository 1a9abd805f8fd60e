from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.verdict import Verdict
from reports import latex
from reports.collect import Content, PaperPart, Row

ODD = "\\input{/etc/passwd} {a} $x$ 50 % & #1 _y_ ^ ~ < > | \" ' ` -- – — ≤ ≥ ± × µ μ α Ω ² ⁻ é ß ∞ 日 🙂 ﬁ № \x07"


@pytest.fixture
def part(content: Content) -> PaperPart:
    found = next(p for p in content.parts if p.slug == "timsort")
    row = next(r for r in found.rows if r.verdict.figure)
    claim = row.claim.model_copy(update={"statement": ODD})
    more = [Row(claim, row.verdict)] * (latex.MOST_ROWS + 3)
    return PaperPart(found.slug, found.family, found.paper, [*found.rows, *more], found.records)


@settings(deadline=None)
@given(st.text(max_size=40))
@example(ODD)
def test_escaped_text_has_no_commands_of_its_own(text: str) -> None:
    escaped = latex.escape(text)
    for command in re.findall(r"\\([a-zA-Z]+|.)", escaped):
        made = {found for value in latex._SPECIAL.values() for found in re.findall(r"\\([a-zA-Z]+|.)", value)}
        assert command in made
    plain = re.sub(r"\\[a-zA-Z]+|\\.|\$[^$]*\$", "", escaped)
    assert not re.search(r"[$&#%_^]", plain)
    assert plain.count("{") == plain.count("}")
    assert all(c.isascii() or 0xC0 <= ord(c) <= 0xFF for c in escaped)


def test_a_character_that_has_no_form_is_not_lost() -> None:
    assert "U+65E5" in latex.escape("日")


def test_long_papers_go_on_in_further_tables(part: PaperPart) -> None:
    text = latex.table(part)
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 2
    assert r"\label{tab:timsort}" in text
    assert r"\label{tab:timsort-2}" in text
    assert "(continued)" in text
    assert "further claims were not measured" in text
    for line in text.splitlines():
        if " & " in line:
            assert len(re.findall(r"(?<!\\)&", line)) == 3, line
            assert line.endswith("\\\\")


def test_nothing_measured_is_said(part: PaperPart) -> None:
    rows = [
        Row(r.claim, Verdict(paper="timsort", claim="x", profile="cpu", outcome="not measured", reason="no"))
        for r in part.rows
    ]
    assert "No claim has been measured yet." in latex.table(part, rows)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_compiles(part: PaperPart, tmp_path: Path) -> None:
    (tmp_path / "timsort.tex").write_text(latex.table(part), encoding="utf-8")
    (tmp_path / "all.tex").write_text(latex.document(["timsort"]), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "Missing character" not in (tmp_path / "all.log").read_text(errors="replace")
