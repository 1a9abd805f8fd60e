from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.catalog import Catalog
from reports import figures, plots
from reports.collect import Content, PaperPart
from reports.figures import Drawing
from reports.tradeoff import frontier
from tests.reports.conftest import EVIL

POINTS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def drawn(catalog: Catalog, content: Content) -> list[Drawing]:
    part = next(p for p in content.parts if p.slug == "timsort")
    return list(plots.figures(catalog, part))


def test_all_kinds_are_drawn(drawn: list[Drawing]) -> None:
    names = [d.name for d in drawn]
    assert names[0] == "timsort-claims"
    for kind in ("latency", "growth-size", "frontier-disorder", "memory", "curve"):
        assert any(name.startswith("timsort-growth-cpu-") and kind in name for name in names), kind
    assert len(set(names)) == len(names)


def test_sizes_are_those_of_a_column(drawn: list[Drawing]) -> None:
    for drawing in drawn:
        assert drawing.figure.get_figwidth() in (figures.SINGLE, figures.DOUBLE)
        assert drawing.figure.get_figheight() < 9


def test_nothing_is_cut_off_or_empty(drawn: list[Drawing]) -> None:
    for drawing in drawn:
        with figures.style():
            drawing.figure.draw_without_rendering()
        box = drawing.figure.get_tightbbox()
        assert box is not None
        assert box.x0 > -0.02, drawing.name
        assert box.x1 < drawing.figure.get_figwidth() + 0.02, drawing.name
        for axes in drawing.figure.axes:
            assert axes.get_xlabel(), drawing.name
            assert axes.lines or axes.patches, drawing.name


def test_labels_of_rows_do_not_overlap(drawn: list[Drawing]) -> None:
    for drawing in drawn:
        with figures.style():
            drawing.figure.draw_without_rendering()
        for axes in drawing.figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                boxes = [
                    t.get_window_extent() for t in axis.get_ticklabels() if t.get_text() and t.get_visible()
                ]
                low, high = axis.get_view_interval()
                shown = [b for b, at in zip(boxes, axis.get_majorticklocs(), strict=False) if low <= at <= high]
                for one, other in itertools.pairwise(shown):
                    assert not one.overlaps(other), f"{drawing.name}: tick labels overlap"


def test_svg_is_well_formed_and_says_what_it_shows(drawn: list[Drawing]) -> None:
    for drawing in drawn:
        tree = ElementTree.fromstring(drawing.svg())
        title = next(iter(tree))
        assert title.tag.endswith("title")
        assert title.text == drawing.title
        assert not [e for e in tree.iter() if e.tag.endswith(("script", "image", "foreignObject"))]


def test_pdf_embeds_its_fonts_and_is_the_same_each_time(drawn: list[Drawing]) -> None:
    pdf = drawn[0].pdf()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert drawn[0].pdf() == pdf


def test_hostile_text_stays_text(catalog: Catalog, content: Content) -> None:
    part = next(p for p in content.parts if p.slug == "timsort")
    odd = "$\\frac{$ \x00\x1f--> ]]> " + EVIL
    renamed = [r.model_copy(update={"label": odd}) if r.label == "slowed" else r for r in part.records]
    for drawing in plots.figures(catalog, PaperPart(part.slug, part.family, part.paper, part.rows, renamed)):
        svg = drawing.svg()
        assert "<script" not in svg
        ElementTree.fromstring(svg)


def test_times_of_a_disturbed_machine_are_marked(catalog: Catalog, content: Content) -> None:
    part = next(p for p in content.parts if p.slug == "timsort")
    shaken = [r.model_copy(update={"unstable": "load"}) if r.label == "slowed" else r for r in part.records]
    made = plots.figures(catalog, PaperPart(part.slug, part.family, part.paper, part.rows, shaken))
    latency = next(d for d in made if d.name.endswith("-latency"))
    labels = {t.get_text() for t in latency.figure.axes[0].get_yticklabels()}
    assert labels == {"slowed †", "timsort"}
    assert "disturbed" in latency.title


def test_a_method_has_one_colour_in_all_figures(drawn: list[Drawing]) -> None:
    from matplotlib.colors import to_hex

    allowed = {c.lower() for c in figures.COLOURS[:3]}  # the paper has three labels
    for drawing in drawn[1:]:
        for axes in drawing.figure.axes:
            used = {to_hex(line.get_color()).lower() for line in axes.lines}
            assert used <= allowed | {"#999999", "#888888", "#ffffff"}, drawing.name


@settings(deadline=None)
@given(POINTS, st.sampled_from(["higher", "lower"]))
def test_frontier_is_what_nothing_beats(points: list[tuple[float, float]], better: str) -> None:
    def beats(p: tuple[float, float], q: tuple[float, float]) -> bool:
        as_good = p[1] >= q[1] if better == "higher" else p[1] <= q[1]
        return p[0] <= q[0] and as_good and p != q

    expected = sorted({p for p in points if not any(beats(q, p) for q in points)})
    assert frontier(points, better) == expected


@settings(deadline=None)
@given(st.floats(1e-12, 1e12))
def test_tick_labels_are_short_and_right(value: float) -> None:
    text = figures.number(value)
    assert len(text) <= 14
    if "10" not in text or "·" not in text:
        return
    digits, _, power = text.partition("·10")
    exponent = int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")))
    assert float(digits) * 10.0**exponent == pytest.approx(value, rel=1e-4)


def test_names_of_files_are_plain() -> None:
    assert figures.slug("../A b", "Ünïcode/..", "", 0) == "a-b-n-code-0"
