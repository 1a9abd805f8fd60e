from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.catalog import Catalog
from harness.store import Store
from reports.collect import collect
from reports.numbers import duration, ranges, short
from reports.pagedata import compressed, embedded
from reports.write import write_page
from tests.reports.conftest import EVIL


class Reader(HTMLParser):
    """Tags with their attributes, and the text inside each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.tags.append(("after", {}))
            self.inside.append("")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.inside[-1] += data

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(a, text) for (t, a), text in zip(self.tags, self.inside, strict=True) if t == tag]


@pytest.fixture(scope="module")
def reader(page: Path) -> Reader:
    return Reader(page.read_text(encoding="utf-8"))


def core(reader: Reader) -> Any:
    (found,) = [text for a, text in reader.of("script") if a.get("id") == "core"]
    return json.loads(found)


def chunk(reader: Reader, slug: str) -> Any:
    (found,) = [text for a, text in reader.of("script") if a.get("id") == f"chunk-{slug}"]
    return json.loads(gzip.decompress(base64.b64decode(found)))


def test_page_stands_alone(reader: Reader) -> None:
    for tag, attributes in reader.tags:
        assert tag not in ("iframe", "img", "object", "embed"), tag
        for name in ("src", "href"):
            value = attributes.get(name) or ""
            assert not re.match(r"(https?:)?//", value), value
        assert not [n for n in attributes if n.startswith("on")]
        assert "style" not in attributes


def test_policy_allows_this_script_and_style_alone(reader: Reader) -> None:
    (policy,) = [a["content"] for t, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy"]
    (script,) = [text for a, text in reader.of("script") if "type" not in a]
    ((_, style),) = reader.of("style")
    for name, text in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}';" in str(policy)
    assert str(policy).startswith("default-src 'none';")


def test_places_that_links_name_are_there(reader: Reader) -> None:
    ids = {a.get("id") for _, a in reader.tags}
    claims = {f"#claim/{'timsort'}/{c['id']}/{c['profile']}" for c in core(reader)["claims"]}
    for tag, attributes in reader.tags:
        href = attributes.get("href") or ""
        if tag == "a" and not href.startswith("#claims?"):
            assert href.removeprefix("#") in ids or href in claims, href


def test_text_from_records_stays_text(page: Path, reader: Reader) -> None:
    text = page.read_text(encoding="utf-8")
    assert EVIL not in text
    assert len(reader.of("script")) == 3  # the claims, the script, and one paper's chunk
    assert "\u2028" not in "".join(t for a, t in reader.of("script") if a.get("id") == "core")
    assert EVIL in chunk(reader, "timsort")["methods"]


def test_scoreboard_counts_by_profile_and_family(reader: Reader) -> None:
    links = [a["href"] for a, _ in reader.of("a") if str(a.get("href")).startswith("#claims?")]
    assert "#claims?profile=cpu&family=sorting&verdict=consistent" in links
    assert "#claims?verdict=not%20measured" in links


def test_claims_carry_both_figures_settings_rule_and_reason(reader: Reader) -> None:
    data = core(reader)
    faster = next(c for c in data["claims"] if c["id"] == "faster")
    assert faster["claimed"] == "twice"
    assert faster["setting"] == "one thousand numbers"
    assert faster["here"] == "size=1000, source=random"
    assert faster["ratio"][0] == pytest.approx(1.5)
    assert faster["bounds"] == [1, None]
    assert data["outcomes"][faster["outcome"]] == "consistent"
    details = chunk(reader, "timsort")["claims"]["faster/cpu"]
    assert details["rules"][0]["conditions"][0]["bounds"] == "≥ 2"
    assert len(details["records"]) == 6


def test_what_was_not_measured_says_how(reader: Reader) -> None:
    by_id = {c["id"]: c for c in core(reader)["claims"]}
    assert by_id["on-gpu"]["reason"] == "needs the profile datacenter-gpu"
    assert "how" not in by_id["unknowable"]


def test_provenance_has_machine_versions_revision_seeds_and_commands(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for expected in (
        "A CPU, 2 usable cores, 8.0 GiB, no GPU, Linux",
        "python 3.12.1",
        "abc123",
        "1000–1002",
        "20 s",
    ):
        assert expected in text
    assert "harness run toys --comparison from-file --profile cpu<" in text
    assert "harness run toys --comparison trouble --profile cpu --retry<" in text


def test_an_empty_store_makes_a_page(catalog: Catalog, tmp_path: Path) -> None:
    content = collect(catalog, Store(tmp_path / "none.sqlite"), [], [])
    text = write_page(catalog, content, tmp_path / "out").read_text(encoding="utf-8")
    assert "Nothing was measured yet" in text
    assert len(core(Reader(text))["claims"]) == 4


def test_the_same_records_make_the_same_page(
    catalog: Catalog, content: Any, page: Path, tmp_path: Path
) -> None:
    assert write_page(catalog, content, tmp_path).read_bytes() == page.read_bytes()


NUMBERS = st.integers(-(2**50), 2**50) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_embedded_data_comes_back_and_holds_no_markup(data: Any) -> None:
    text = embedded(data)
    assert json.loads(text) == data
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(gzip.decompress(base64.b64decode(compressed(data)))) == data


@given(st.floats())
def test_short_numbers_are_finite_and_near(value: float) -> None:
    found = short(value)
    if not math.isfinite(value):
        assert found is None
    else:
        assert found == pytest.approx(value, rel=1e-4)


@given(st.sets(st.integers(0, 60)))
def test_ranges_name_every_number(numbers: set[int]) -> None:
    named: set[int] = set()
    for part in filter(None, ranges(numbers).split(", ")):
        first, _, last = part.partition("–")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == numbers


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (240, "4 min"), (9000, "2.5 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
