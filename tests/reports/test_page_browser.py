"""The page in a browser. Skipped where there is none; see `tests.reports.browser`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.reports.browser import DESKTOP, PHONE, Browser
from tests.reports.conftest import EVIL

CLAIMS = ["faster", "on-gpu", "sorts", "unknowable"]


@pytest.fixture
def shown(chromium: Browser, page: Path) -> Browser:
    chromium.look()
    chromium.open(page)
    return chromium


def ids(browser: Browser) -> list[str]:
    return [text.split(" · ")[1] for text in browser.texts("#rows .claim .meta")]


def type_into(browser: Browser, selector: str, value: str) -> None:
    browser.run(
        "const n = document.querySelector(arguments[0]); n.value = arguments[1];"
        "n.dispatchEvent(new Event(n.tagName === 'SELECT' ? 'change' : 'input'))",
        selector,
        value,
    )
    browser.settle()


@pytest.mark.parametrize(
    "fragment", ["", "#claim/timsort/faster/cpu", "#paper/timsort", "#claims?verdict=consistent"]
)
def test_loads_without_errors_and_asks_nobody_for_anything(
    chromium: Browser, page: Path, fragment: str
) -> None:
    chromium.look()
    chromium.open(page, fragment)
    assert chromium.messages == []
    asked = [r for r in chromium.requests if not r.startswith("data:")]
    assert asked == [page.as_uri()]
    assert sorted(set(ids(chromium))) >= ["faster"]


def test_a_request_would_be_noticed_and_is_refused(shown: Browser) -> None:
    shown.run("new Image().src = 'https://example.org/x.png'")
    shown.settle()
    assert any("Content Security Policy" in m for m in shown.messages)


def test_filters_by_text_verdict_and_choice(shown: Browser) -> None:
    assert sorted(ids(shown)) == CLAIMS
    assert shown.texts("#found") == ["4 claims"]
    type_into(shown, "#q", "slowed copy")
    assert ids(shown) == ["faster"]
    assert shown.fragment == "#claims?q=slowed%20copy"
    type_into(shown, "#q", "no such words")
    assert "No claim matches" in shown.texts("#rows")[0]
    shown.click("#reset")
    assert sorted(ids(shown)) == CLAIMS
    shown.click("[data-verdict='not measured']")
    assert sorted(ids(shown)) == ["on-gpu", "unknowable"]
    shown.click("[data-verdict='reproduced']")
    assert sorted(ids(shown)) == ["on-gpu", "sorts", "unknowable"]
    for choice, value in (("paper", "timsort"), ("family", "sorting"), ("profile", "cpu")):
        type_into(shown, f"#{choice}", value)
    assert shown.texts("#found") == ["3 of 4 claims"]


def test_a_number_of_the_scoreboard_leads_to_its_claims(shown: Browser) -> None:
    cell = ".board tbody a[href$='verdict=reproduced']"
    assert shown.texts(cell)[0].startswith("1")
    shown.click(cell)
    assert ids(shown) == ["sorts"]


def test_sorts(shown: Browser) -> None:
    type_into(shown, "#sort", "verdict")
    found = [t.strip() for t in shown.texts("#rows .verdict")]
    assert found == ["reproduced", "consistent", "not measured", "not measured"]
    shown.click("#direction")
    assert shown.texts("#rows .verdict")[0].strip() == "not measured"
    shown.click("th[data-sort='ratio'] button")
    assert ids(shown)[0] == "faster"
    assert (
        shown.run("return document.querySelector('th[data-sort=ratio]').getAttribute('aria-sort')")
        == "ascending"
    )
    shown.click("th[data-sort='ratio'] button")
    assert (
        shown.run("return document.querySelector('th[data-sort=ratio]').getAttribute('aria-sort')")
        == "descending"
    )


def test_a_state_of_the_filter_can_be_shared(chromium: Browser, page: Path) -> None:
    chromium.open(page, "#claims?q=numbers&verdict=consistent,not%20measured&sort=claim&order=down")
    assert ids(chromium) == ["on-gpu", "faster"]
    assert chromium.run("return document.querySelector('#q').value") == "numbers"


def test_a_claim_can_be_shared_even_when_the_filter_hides_it(chromium: Browser, page: Path) -> None:
    chromium.open(page, "#claims?verdict=reproduced")
    chromium.run("location.hash = '#claim/timsort/faster/cpu'")
    chromium.settle()
    (inside,) = chromium.texts(".detail .inside")
    assert "Rule in a scaled setting, which decided" in inside
    assert "6 records behind it" in inside
    assert chromium.focused == "Details of faster"
    top = chromium.run("return document.querySelector('.claim.target').getBoundingClientRect().top")
    assert 0 <= top < DESKTOP[1]


def test_an_unknown_claim_is_searched_for(chromium: Browser, page: Path) -> None:
    chromium.open(page, "#claim/gone/fast/cpu")
    assert chromium.messages == []
    assert ids(chromium) == ["faster"]


def test_claimed_against_measured_is_drawn(shown: Browser) -> None:
    (label,) = shown.run(
        "return [...document.querySelectorAll('.claim')].filter(r => r.textContent.includes('faster'))"
        ".map(r => r.querySelector('.forest').getAttribute('aria-label'))"
    )
    assert label.startswith("Measured is 1.5 times the paper's figure")
    place = (
        "const row = [...document.querySelectorAll('.claim')].find(r => r.textContent.includes('faster'));"
        "const r = row.querySelector('.forest');"
        "const mid = n => { const b = n.getBoundingClientRect(); return b.x + b.width / 2 };"
        "return [mid(r.querySelector('.paper')), mid(r.querySelector('use'))]"
    )
    claimed, measured = shown.run(place)
    assert measured > claimed + 5


def test_a_paper_draws_what_is_behind_its_claims(chromium: Browser, page: Path) -> None:
    chromium.look()
    chromium.open(page, "#paper/timsort/growth/cpu")
    titles = chromium.texts(".entry figcaption")
    for expected in (
        "Latency of a run",
        "Memory",
        "disorder against latency",
        "disorder against peak memory",
        "Growth of latency with size",
        "curve",
    ):
        assert any(t.startswith(expected) for t in titles), expected
    assert "timsort: exponent 1.00 [1.00, 1.00]" in chromium.texts(".entry .legend li")
    # One method wins in both, so there is no frontier to draw a line along.
    assert chromium.run("return document.querySelectorAll('.entry svg.plot .front').length") == 0
    colours = chromium.run(
        "return [...document.querySelectorAll('.entry .legend li')].map(n => [n.textContent.split(':')[0], n.className])"
    )
    assert len({tuple(c) for c in colours}) == 2  # a method keeps its colour in all plots


def test_a_setting_can_be_chosen(chromium: Browser, page: Path) -> None:
    chromium.open(page, "#paper/timsort/growth/cpu")
    medians = chromium.texts(".entry svg.plot text.label")
    chromium.run(
        "const s = document.querySelectorAll('.choose select')[1]; s.focus(); s.value = '0';"
        "s.dispatchEvent(new Event('change'))"
    )
    assert chromium.texts(".entry svg.plot text.label") != medians
    assert chromium.run("return document.activeElement.tagName") == "SELECT"


def test_text_from_records_stays_text(chromium: Browser, page: Path) -> None:
    chromium.open(page, "#paper/timsort/trouble/cpu")
    chromium.run("document.querySelectorAll('.entry details').forEach(d => d.open = true)")
    chromium.settle()
    assert any(EVIL in text for text in chromium.texts(".entry td"))
    assert any(EVIL in text for text in chromium.texts("#provenance ~ * td"))
    assert chromium.run("return window.evil ?? null") is None
    assert chromium.run("return document.querySelectorAll('main img, main script').length") == 0
    assert chromium.messages == []


def test_works_with_the_keyboard_alone(shown: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    shown.keys(Keys.TAB)
    assert shown.focused == "Skip to the claims"
    shown.keys(Keys.ENTER)
    assert shown.fragment == "#claims"
    shown.keys(Keys.TAB, *"copy")
    assert ids(shown) == ["faster"]
    for _ in range(30):
        shown.keys(Keys.TAB)
        if shown.focused == "Details of faster":
            break
    shown.keys(Keys.ENTER)
    assert "Rule in a scaled setting" in shown.texts(".detail")[0]
    assert shown.focused == "Details of faster"
    shown.keys(Keys.ENTER)
    assert shown.texts(".detail") == []
    outline = shown.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(chromium: Browser, page: Path, size: tuple[int, int], dark: bool) -> None:
    package = pytest.importorskip("selenium_axe_python", reason="needs selenium-axe-python from the test extra")
    axe = Path(package.__file__).parent / "axe-core" / "axe.min.js"
    chromium.look(size=size, dark=dark)
    chromium.open(page, "#paper/timsort/growth/cpu")
    chromium.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    chromium.run("location.hash = '#claim/timsort/faster/cpu'")
    chromium.settle()
    chromium.run(axe.read_text(encoding="utf-8"))
    found: Any = chromium.driver.execute_async_script("axe.run(document).then(arguments[0])")
    bad = [
        (v["id"], v["impact"], [n["html"][:120] for n in v["nodes"][:3]])
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    assert bad == [], json.dumps(bad, indent=1)
    assert len(found["passes"]) > 20


@pytest.mark.parametrize("fragment", ["", "#paper/timsort/growth/cpu", "#claim/timsort/faster/cpu"])
def test_nothing_sticks_out_of_a_phone(chromium: Browser, page: Path, fragment: str) -> None:
    chromium.look(size=PHONE)
    chromium.open(page, fragment)
    assert chromium.run("return document.documentElement.scrollWidth") <= PHONE[0]


def test_a_theme_can_be_chosen(shown: Browser) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = shown.run(ground)
    shown.click("#theme")
    assert shown.run(ground) == light
    shown.click("#theme")
    assert shown.run(ground) != light
    shown.click("#theme")
    assert shown.texts("#theme") == ["Theme: auto"]


def test_prints_all_that_matches(shown: Browser) -> None:
    shown.run("window.dispatchEvent(new Event('beforeprint'))")
    assert sorted(ids(shown)) == CLAIMS
    shown.run("window.dispatchEvent(new Event('afterprint'))")
    printed = shown.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(printed["data"]) > 10_000


def test_redraws_for_another_width(chromium: Browser, page: Path) -> None:
    width = "return document.querySelector('.entry svg.plot').viewBox.baseVal.width"
    chromium.look()
    chromium.open(page, "#paper/timsort/growth/cpu")
    before = chromium.run(width)
    chromium.look(size=PHONE)
    for _ in range(20):
        chromium.settle()
        if chromium.run(width) < before:
            break
    assert chromium.run(width) < before
