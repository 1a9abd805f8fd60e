from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reports import tables
from reports.collect import Content
from tests.reports.conftest import EVIL

MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=60)


def shown(tokens: Any) -> str:
    """The text that a reader sees; comments are not seen, and no other markup may be there."""
    found = ""
    for token in tokens:
        if token.type == "html_inline":
            assert token.content == "<!-- -->"
        else:
            assert token.type in ("text", "text_special"), token
            found += token.content
    return found


@settings(deadline=None)
@given(TEXT)
@example("a | b")
@example('latency("a")[0] * 2 ** `x` _y_ ~~z~~ <b> & &amp; \\| $x$ #1 @me https://a.b www.a.b 1. - + -- ==')
@example("# heading")
@example("10) list")
@example("- list")
@example("a@b.cc")
def test_escaped_text_is_shown_as_it_is(text: str) -> None:
    table = "\n".join(tables.table(["a", "b"], [[tables.escape(text), "end"]]))
    tokens = MARKDOWN.parse(table)
    cells = [t for t in tokens if t.type == "inline"]
    assert len(cells) == 4, "the text added a cell or ended the table"
    flat = " ".join(text.split())
    # GFM reads \| inside of a table before anything else, so nothing may depend on it.
    assert shown(cells[2].children).split() == flat.split()
    assert cells[3].content == "end"


@settings(deadline=None)
@given(TEXT.filter(lambda t: t.strip()))
@example("# heading")
@example("1. list")
@example("---")
@example("- list")
@example("+ list")
def test_escaped_text_starts_no_block(text: str) -> None:
    tokens = MARKDOWN.parse(tables.escape(text))
    assert [t.type for t in tokens] == ["paragraph_open", "inline", "paragraph_close"]


def test_nobody_is_notified() -> None:
    assert not re.search(r"[@#]\w|https?:", tables.escape("@someone #12 https://example.org"))


def test_full_form_has_every_claim_and_both_scoreboards(content: Content) -> None:
    text = tables.markdown(content)
    for part in content.parts:
        for row in part.rows:
            assert f"`{row.claim.id}`" in text
    assert "## By paper" in text
    assert "## By profile and family" in text
    assert "A CPU" in text
    assert "data set 'numbers' is not here" in text
    assert "<script" not in text
    assert EVIL not in text
    MARKDOWN.parse(text)


def test_disturbed_records_are_named(content: Content) -> None:
    part = content.parts[0]
    shaken = [r.model_copy(update={"unstable": "the | load was 9"}) for r in part.records[:2]]
    text = tables.markdown(replace(content, parts=[replace(part, records=shaken)]))
    assert "| 2 | the &#124; load was 9 |" in text


def test_short_form_fits_a_comment(content: Content) -> None:
    text = tables.comment(content)
    assert text.startswith("**4 claims")
    assert "faster" in text
    assert "<details>" in text
    assert len(text) < tables.COMMENT_LIMIT


@pytest.mark.parametrize("limit", [700, 1000, 1500])
def test_short_form_keeps_to_its_limit_and_says_what_it_leaves_out(content: Content, limit: int) -> None:
    text = tables.comment(content, limit)
    assert len(text) <= limit
    if len(text) < len(tables.comment(content)):
        assert "in the full report" in text or "were not measured." in text


def test_urgent_claims_come_first(content: Content) -> None:
    outcomes = re.findall(r"\*\*(contradicted|inconclusive|consistent|reproduced)\*\*", tables.comment(content))
    order = ["contradicted", "inconclusive", "consistent", "reproduced"]
    assert outcomes == sorted(outcomes, key=order.index)
