"""What a gate found as JUnit XML, which Jenkins, GitLab, Azure and GitHub's test reporters read.

The format knows four outcomes. ``failure`` is for what regressed and nothing else, so that a CI system that turns
red by this file agrees with the exit code. Improved and unchanged pass. Unstable, new and gone are ``skipped`` with
the reason: nothing was decided about them, a pass would say more than was seen, a failure would fail builds
that the gate lets through, and ``error`` means to every reader of the format that the run itself broke.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import defaultdict

from harness.gate import wording
from harness.gate.model import Finding, GateResult

_SKIPPED = ("unstable", "new", "gone")
_NOT_XML = re.compile(
    "[^\u0009\u000a\u000d\u0020-\u007e\u0085\u00a0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]"
)


def clean(text: object) -> str:
    """`text` without characters that XML 1.0 does not allow or discourages, on one line."""
    return _NOT_XML.sub("\ufffd", wording.plain(text))


def junit(result: GateResult) -> str:
    """The result as JUnit XML: a suite for each comparison, a case for each metric of each method.

    ``classname`` is the gate's suite and the comparison, ``name`` the method with what varies and the metric; both
    stay the same as long as the suite does, which is how CI systems recognise a case. The ``time`` of a case is the
    latency of the head in seconds where it is about latency, so that their trends show it; 0 otherwise.
    """
    names = wording.short_names(result.findings)
    comparisons: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in result.findings:
        comparisons[finding.comparison].append(finding)
    root = ET.Element("testsuites", name=clean(f"harness gate {result.suite}"))
    for comparison, findings in comparisons.items():
        suite = ET.SubElement(
            root,
            "testsuite",
            name=clean(comparison),
            tests=str(len(findings)),
            failures=str(sum(f.change == "regressed" for f in findings)),
            errors="0",
            skipped=str(sum(f.change in _SKIPPED for f in findings)),
            time=_seconds(sum(_time(f) for f in findings)),
            timestamp=clean(result.started),
            hostname=clean(result.machine.get("host", "")),
        )
        _properties(suite, result)
        for finding in findings:
            _case(suite, result, finding, names[finding.name])
    for total in ("tests", "failures", "errors", "skipped"):
        root.set(total, str(sum(int(suite.get(total, "0")) for suite in root)))
    root.set("time", _seconds(sum(_time(f) for f in result.findings)))
    ET.indent(root)
    return "<?xml version='1.0' encoding='utf-8'?>\n" + ET.tostring(root, encoding="unicode") + "\n"


def _properties(suite: ET.Element, result: GateResult) -> None:
    listed = ET.SubElement(suite, "properties")
    known = {
        "profile": result.profile,
        "base": wording.side(result.base),
        "head": wording.side(result.head),
        "machine": wording.machine(result),
        "measured": wording.measured(result),
        "versions": wording.versions(result),
        **{f"note {i}": note for i, note in enumerate(result.notes, 1)},
    }
    for name, value in known.items():
        if value:
            ET.SubElement(listed, "property", name=name, value=clean(value))


def _case(suite: ET.Element, result: GateResult, finding: Finding, name: str) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        # A dot starts a package in the trees that CI systems draw.
        classname=clean(f"{_stem(result.suite)}.{finding.comparison}"),
        name=clean(f"{name[len(finding.comparison) + 1 : -1]}: {finding.metric}"),
        time=_seconds(_time(finding)),
    )
    text = clean(told(finding))
    if finding.change == "regressed":
        failure = ET.SubElement(case, "failure", type="regressed", message=text)
        failure.text = "\n".join([text, f"method: {clean(finding.name)}", f"seeds: {finding.seeds}"])
    elif finding.change in _SKIPPED:
        skipped = ET.SubElement(case, "skipped", type=finding.change, message=text)
        skipped.text = text
    else:
        ET.SubElement(case, "system-out").text = text


def told(finding: Finding) -> str:
    """The finding in one line: the change, both figures, the limit and the reason."""
    figures = ""
    if finding.base is not None or finding.head is not None:
        base, head = (wording.figure(value, finding.unit) for value in (finding.base, finding.head))
        figures = f", {base} in the base and {head} in the head"
    change = f" {wording.change(finding)}" if finding.ratio is not None else ""
    limit = f" (limit {wording.limit(finding)})" if finding.threshold is not None else ""
    return f"{finding.metric} {finding.change}{change}{figures}{limit}: {finding.reason}"


def _stem(suite: str) -> str:
    """A suite's name without folder and extension, whose signs would make levels of the tree."""
    return re.sub(r"\.ya?ml$", "", suite.replace("\\", "/").rsplit("/", 1)[-1])


def _time(finding: Finding) -> float:
    return finding.head if finding.metric == "latency" and finding.head is not None else 0.0


def _seconds(value: float) -> str:
    return f"{value:.9f}"
