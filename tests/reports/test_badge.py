from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.verdict import OUTCOMES
from reports import badge, figures
from reports.collect import Content

SVG = "{http://www.w3.org/2000/svg}"
COUNTS = st.dictionaries(st.sampled_from(OUTCOMES), st.integers(0, 5000)).map(Counter)


@settings(deadline=None)
@given(st.text(max_size=40), COUNTS)
def test_a_badge_is_well_formed_and_says_its_counts(label: str, counts: Counter[str]) -> None:
    root = ElementTree.fromstring(badge.badge(label, counts))
    title = root.find(f"{SVG}title")
    assert title is not None
    shown = [o for o in OUTCOMES if counts[o]]
    for outcome in shown:
        assert f"{counts[outcome]} {outcome}" in (title.text or "")
    texts = list(root.iter(f"{SVG}text"))
    assert len(texts) == 1 + max(len(shown), 1)
    assert {e.tag for e in root.iter()} == {
        f"{SVG}{n}" for n in ("svg", "title", "clipPath", "rect", "g", "text")
    }


def test_fields_lie_side_by_side_and_hold_their_text() -> None:
    root = ElementTree.fromstring(badge.badge("claims", Counter({"reproduced": 15, "not measured": 112})))
    rects = list(root.iter(f"{SVG}rect"))[1:]
    texts = list(root.iter(f"{SVG}text"))
    for rect, text in zip(rects, texts, strict=True):
        left, width = float(rect.attrib["x"]), float(rect.attrib["width"])
        start, length = float(text.attrib["x"]), float(text.attrib["textLength"])
        assert left < start
        assert start + length < left + width
    assert float(rects[-1].attrib["x"]) + float(rects[-1].attrib["width"]) >= float(root.attrib["width"])


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [badge.LABEL_COLOUR, *figures.OUTCOME_COLOURS.values()])
def test_white_text_is_readable_on_every_field(colour: str) -> None:
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_snippet_shows_the_badge_and_counts(content: Content) -> None:
    text = badge.snippet(content, "index.html")
    assert "](badge.svg)](index.html)" in text
    assert "of 4 claims of 1 paper were measured on cpu" in text
    assert badge.snippet(content, None).startswith("![")
