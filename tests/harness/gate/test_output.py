"""All forms of a gate's output: that other tools read them, and that nothing in a name breaks them."""

from __future__ import annotations

import io
import json
import re
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from harness import schema
from harness.gate import output, wording
from harness.gate.markdown import code, prose
from harness.gate.model import CHANGES, GateResult, Timed
from harness.record import Latency
from tests.harness.gate.made_up import finding, result

# Characters that mean something in one of the formats, and any others.
NAMES = st.text(
    st.one_of(
        st.sampled_from("|`*_[]()<>&#@~$\\\"'\n\r\t\x00\x1b\x07\x85\u2028\u202e\ufffe!:.-+="), st.characters()
    ),
    max_size=40,
).map(lambda text: text.encode("utf-8", "replace").decode())
EACH = [finding(change, label=change) for change in CHANGES]


def shown(found: GateResult, width: int = 140, **how: Any) -> str:
    stream = io.StringIO()
    output.table(found, Console(file=stream, width=width), **how)
    return stream.getvalue()


def rendered(text: str) -> ET.Element:
    """GitHub-flavoured Markdown as a tree of HTML."""
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    return ET.fromstring(f"<body>{html}</body>")


def words(element: ET.Element) -> str:
    return "".join(element.itertext())


# -- the terminal -----------------------------------------------------------------------------------------


def test_what_regressed_comes_first_and_what_did_not_change_is_counted() -> None:
    text = shown(result(EACH))
    blocks = re.findall(r"^(\w+) \(1\)", text, re.MULTILINE)
    assert blocks == ["regressed", "unstable", "improved", "new", "gone"]
    assert text.splitlines()[-1].startswith("ci on cpu, 6 methods: 1 regressed, 1 unstable")
    assert "1 unchanged" in text.splitlines()[-1]
    assert "+8 % [+7, +9]" in text


def test_unchanged_findings_are_shown_when_asked_for() -> None:
    assert "unchanged (1)" in shown(result(EACH), everything=True)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_finding_is_one_line_at_any_width(width: int) -> None:
    many = [finding("unstable", label=f"method-{i}", reason="too disturbed, " * 30) for i in range(7)]
    text = shown(result(many), width)
    assert len([line for line in text.splitlines() if "latency" in line]) == 7
    assert all(len(line) <= width for line in text.splitlines()[:-1])


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(NAMES, NAMES)
def test_no_name_steers_the_terminal(name: str, reason: str) -> None:
    text = shown(result([finding("new", label=name, reason=reason, metric=name, unit=name)]))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028]", text)


def test_nothing_to_compare_is_said() -> None:
    assert "nothing was compared" in shown(result([]))


# -- wording ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.0123456, "s", "12.35 ms"),
        (2e-7, "s", "200 ns"),
        (0.0, "s", "0 s"),
        (12.0, "s", "12 s"),
        (3 * 2**20, "B", "3 MiB"),
        (12.0, "B", "12 B"),
        (0.98765, "", "0.9877"),
        (float("inf"), "B", "inf B"),
        (None, "s", "–"),
    ],
)
def test_figures(value: float | None, unit: str, expected: str) -> None:
    assert wording.figure(value, unit) == expected


def test_limits_have_the_sign_of_worse() -> None:
    assert wording.limit(finding(better="higher", threshold=0.01)) == "-1 %"
    assert wording.limit(finding(better="lower", threshold=0.025)) == "+2.5 %"
    assert wording.limit(finding(threshold=None)) == ""
    assert wording.limit(finding(threshold=0.01, base=0.0, unit="")) == "+0.01"


def test_short_names_keep_what_varies_and_tell_methods_apart() -> None:
    findings = [
        finding(task_parameters={"size": n, "kind": "a"}, method_parameters={"delay": d, "width": 3})
        for n in (1, 2)
        for d in (0, 1)
    ]
    names = wording.short_names(findings)
    assert len(set(names.values())) == len(names) == 4
    assert names[findings[0].name] == "sorting-growth[timsort, size=1, delay=0]"


@given(
    st.lists(st.tuples(*[st.sampled_from([0, 1, True, "1", None])] * 3), min_size=1, max_size=6, unique_by=repr)
)
def test_short_names_are_as_unique_as_the_full_ones(points: list[tuple[Any, Any, Any]]) -> None:
    findings = [finding(task_parameters={"a": a, "b": b}, method_parameters={"c": c}) for a, b, c in points]
    names = wording.short_names(findings)
    assert len(set(names.values())) == len({f.name for f in findings})


# -- Markdown ---------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(NAMES)
def test_markdown_shows_any_text_as_it_is(text: str) -> None:
    tree = rendered(f"| a | b |\n| --- | --- |\n| {code(text)} | {prose(text)} |\n")
    (row,) = tree.findall("./table/tbody/tr")
    cells = row.findall("td")
    assert len(cells) == 2
    for cell in cells:
        assert " ".join(words(cell).split()) == wording.plain(text)
        # Nothing in it became an element: a comment at most, and the code that we wrote.
        assert {child.tag for child in cell.iter()} <= {"td", "code"}


def test_markdown_notifies_nobody() -> None:
    text = prose("thanks @someone, see #12 and GH-7, https://example.org and www.example.org")
    assert not re.search(r"@\w|#\d|GH-\d|https?:|www\.", re.sub(r"&#\d+;", "", text))


def test_a_comment_fits_github_with_five_hundred_findings() -> None:
    unchanged = [
        finding(label=f"method-{i}", method_parameters={"a_rather_long_parameter": i, "other": "|" * 20})
        for i in range(440)
    ]
    decided = [
        finding(change, label=f"m{i}-{change}") for i in range(30) for change in ("regressed", "improved")
    ]
    text = output.markdown(result([*unchanged, *decided], notes=["x" * 5000] * 40))
    assert len(text.encode()) < 65_536
    for each in decided:
        assert f"{each.label}&#93;" in text
    found = re.search(r"and (\d+) more", text)
    assert found is not None
    assert text.count("<code>sorting-growth") + int(found[1]) == 500


@pytest.mark.parametrize("change", CHANGES)
def test_a_comment_fits_github_whatever_the_findings_are(change: str) -> None:
    findings = [finding(change, label=f"{i}" + "|" * 300, reason="<" * 900) for i in range(500)]
    text = output.markdown(result(findings))
    assert len(text.encode()) < 65_536
    assert f"500 {change}" in text


def test_the_comment_folds_what_needs_no_attention_and_says_how_it_was_measured() -> None:
    text = output.markdown(result(EACH, notes=["The suite changed."]))
    folded = text[text.index("<details>") :]
    assert "1 unchanged" in folded
    assert "**1 regressed**" in text[: text.index("<details>")]
    assert "**1 improved**" in text[: text.index("<details>")]
    for part in (
        "main (aaaaaaaaaaaa)",
        "with uncommitted changes",
        "Intel",
        "6 launches",
        "stolen 0.001",
        "The suite",
    ):
        assert part in words(rendered(text.replace("<!-- harness gate -->", "")))


# -- JSON -------------------------------------------------------------------------------------------------


def test_json_is_what_its_schema_says() -> None:
    described = json.loads(schema.text("gate.schema.json"))
    text = output.to_json(result(EACH))
    jsonschema.validate(json.loads(text), described, cls=jsonschema.Draft202012Validator)
    assert GateResult.model_validate_json(text) == result(EACH)


# -- JUnit ------------------------------------------------------------------------------------------------


def structure(root: ET.Element) -> dict[str, tuple[set[str], set[str]]]:
    """For each tag: the attributes and the children it occurs with."""
    found: defaultdict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for element in root.iter():
        attributes, children = found[element.tag]
        attributes |= set(element.attrib)
        children |= {child.tag for child in element}
    return found


def test_junit_has_the_structure_that_pytest_writes(tmp_path: Path) -> None:
    (tmp_path / "test_each.py").write_text(
        "import pytest\n"
        "def test_pass(): print('x')\n"
        "def test_fail(): assert 0\n"
        "def test_skip(): pytest.skip('why')\n"
        "def test_property(record_testsuite_property): record_testsuite_property('a', 'b')\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-o",
        "junit_logging=all",
        "--junitxml=x.xml",
    ]
    subprocess.run([*command, "test_each.py"], cwd=tmp_path, capture_output=True, check=False)
    theirs = structure(ET.parse(tmp_path / "x.xml").getroot())
    ours = structure(ET.fromstring(output.junit(result(EACH)).encode()))
    assert set(ours) <= set(theirs)
    totals = {"tests", "failures", "errors", "skipped", "time"}
    more = {"testsuites": totals, "failure": {"type"}}  # of JUnit's own schema, which pytest does not write
    for tag, (attributes, children) in ours.items():
        assert attributes <= theirs[tag][0] | more.get(tag, set())
        assert children <= theirs[tag][1]
    for tag in ("testsuite", "testcase"):
        assert ours[tag][0] == theirs[tag][0]


def test_junit_fails_what_regressed_and_skips_what_is_undecided() -> None:
    root = ET.fromstring(output.junit(result(EACH)).encode())
    outcome = {
        case.get("name"): next((c.tag for c in case if c.tag != "system-out"), "passed")
        for case in root.iter("testcase")
    }
    assert {str(name).partition(":")[0]: tag for name, tag in outcome.items()} == {
        "regressed": "failure",
        "improved": "passed",
        "unchanged": "passed",
        "unstable": "skipped",
        "new": "skipped",
        "gone": "skipped",
    }
    (suite,) = root.iter("testsuite")
    assert [suite.get(k) for k in ("tests", "failures", "errors", "skipped")] == ["6", "1", "0", "3"]
    assert [root.get(k) for k in ("tests", "failures", "errors", "skipped")] == ["6", "1", "0", "3"]
    assert "as the interval says" in str(root.findall(".//failure")[0].get("message"))


@settings(max_examples=150)
@given(NAMES, st.sampled_from(CHANGES))
def test_junit_is_valid_xml_whatever_is_in_a_name(text: str, change: str) -> None:
    each = finding(change, comparison=text, label=text, metric=text, reason=text, unit=text)
    written = output.junit(result([each], suite=text, notes=[text]))
    root = ET.fromstring(written.encode())
    assert len(list(root.iter("testcase"))) == 1
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", written)


# -- pytest-benchmark -------------------------------------------------------------------------------------


def test_pytest_benchmark_reads_both_files(tmp_path: Path) -> None:
    found = result(
        [finding(label="one"), finding("regressed", label="other"), finding(metric="disorder", label="one")]
    )
    output.write(found, tmp_path)
    done = subprocess.run(
        [
            Path(sys.executable).parent / "pytest-benchmark",
            "compare",
            "base.json",
            "head.json",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "benchmark 'sorting-growth': 4 tests" in done.stdout
    for name in ("one", "other"):
        assert len(re.findall(rf"^sorting-growth\[{name}", done.stdout, re.MULTILINE)) == 2


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=30))
def test_statistics_are_of_the_samples(samples: list[float]) -> None:
    each = finding()
    latency = Latency(samples=samples, first=1.0, runs_per_sample=7)
    base, head = output.pytest_benchmark(result([each], [Timed(name=each.name, base=latency)]))
    assert head["benchmarks"] == []
    (one,) = base["benchmarks"]
    stats = one["stats"]
    assert stats["data"] == samples
    assert (stats["min"], stats["max"], stats["rounds"]) == (min(samples), max(samples), len(samples))
    assert stats["median"] == statistics.median(samples)
    assert stats["mean"] == pytest.approx(statistics.fmean(samples))
    assert stats["iterations"] == 7
    assert stats["q1"] <= stats["median"] <= stats["q3"]
    assert set(stats) >= {
        "stddev", "iqr", "iqr_outliers", "stddev_outliers", "outliers", "ld15iqr", "hd15iqr", "ops", "total",
    }  # fmt: skip


def test_sessions_say_which_side_they_are() -> None:
    base, head = output.pytest_benchmark(result(EACH))
    assert base["commit_info"]["id"] == "a" * 40
    assert base["commit_info"]["dirty"] is False
    assert head["commit_info"]["dirty"] is True
    assert base["machine_info"]["cpu"]["brand_raw"] == "Intel(R) Xeon(R)"
    assert [b["fullname"] for b in base["benchmarks"]] == [b["fullname"] for b in head["benchmarks"]]


# -- files ------------------------------------------------------------------------------------------------


def test_every_form_is_written(tmp_path: Path) -> None:
    paths = output.write(result([finding(task_parameters={"limit": float("inf")})]), tmp_path / "a" / "b")
    assert [p.name for p in paths] == [
        "gate.md",
        "gate.json",
        "gate.xml",
        "base.json",
        "head.json",
    ]
    for path in paths:
        assert path.read_text(encoding="utf-8")
    for name in ("gate.json", "base.json"):
        json.loads(paths[0].with_name(name).read_text(), parse_constant=pytest.fail)
