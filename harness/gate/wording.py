"""How findings are worded, the same in every form that people read."""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from harness.gate.model import CHANGES, Change, Finding, GateResult, Side

ORDER: tuple[Change, ...] = ("regressed", "unstable", "improved", "new", "gone", "unchanged")
"""What a reader wants to see first."""

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def plain(text: object) -> str:
    """`text` on one line: control characters, which could steer a terminal, become spaces or a replacement sign.

    What a method is called, and what it says when it fails, comes from the change under test.
    """
    kept = []
    for sign in str(text):
        kind = unicodedata.category(sign)
        if sign.isspace() or kind in ("Zl", "Zp"):
            kept.append(" ")
        elif (
            kind in ("Cc", "Cs", "Cn")
            or sign in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"
        ):
            kept.append("\ufffd")
        else:
            kept.append(sign)
    return " ".join("".join(kept).split())


def clipped(text: str, most: int) -> str:
    """`text` in at most `most` characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def figure(value: float | None, unit: str) -> str:
    """A figure with its unit, four significant digits, in the prefix that suits it; "–" where there is none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return f"{value} {unit}".rstrip()
    size = abs(value)
    if unit == "s" and size < 1000:
        scale, prefixed = next(((s, u) for s, u in _SECONDS if size >= s), _SECONDS[-1])
        return f"{value / scale:.4g} {prefixed}" if value else "0 s"
    if unit == "B":
        scale, prefixed = next(((s, u) for s, u in _BYTES if size >= s), (1, "B"))
        return f"{value / scale:.4g} {prefixed}"
    return f"{value:.4g} {unit}".rstrip()


def change(finding: Finding) -> str:
    """The relative change with its interval, as ``+5.2 % [+4.1, +6.3]``; "" where there is none."""
    if finding.ratio is None:
        return ""
    text = f"{_percent(finding.ratio)} %"
    if finding.low is None or finding.high is None or finding.low == finding.high == finding.ratio:
        return text
    return f"{text} [{_percent(finding.low)}, {_percent(finding.high)}]"


def limit(finding: Finding) -> str:
    """The change that counts, with the sign of worse: ``+2.5 %`` for a time, ``-1 %`` for an accuracy.

    Of a figure that is 0 in the base nothing is a share; there the threshold is in the figure's own unit.
    """
    if finding.threshold is None:
        return ""
    sign = "-" if finding.better == "higher" else "+"
    if finding.base == 0:
        return sign + figure(finding.threshold, finding.unit)
    return f"{sign}{100 * finding.threshold:.3g} %"


def _percent(ratio: float) -> str:
    percent = 100 * (ratio - 1)
    if not math.isfinite(percent):
        return f"{percent:+}"
    if abs(percent) < 0.005:
        return "0"
    return f"{percent:+.3g}" if abs(percent) < 1000 else f"{percent:+.0f}"


def needs_reason(finding: Finding) -> bool:
    """Whether the figures alone do not say what the finding is."""
    return finding.change in ("unstable", "new", "gone") or finding.metric == "status" or finding.ratio is None


def grouped(findings: Iterable[Finding]) -> dict[Change, list[Finding]]:
    """Findings by change, in `ORDER`, each in the order of the suite; changes that did not occur are left out."""
    found: dict[Change, list[Finding]] = {name: [] for name in ORDER}
    for finding in findings:
        found[finding.change].append(finding)
    return {name: those for name, those in found.items() if those}


def short_names(findings: Sequence[Finding]) -> dict[str, str]:
    """By `Finding.name`: ``comparison[label, what varies]`` without the parameters that all of a kind share.

    A parameter of the task is left out where it is the same in the whole comparison, a parameter of the method where it
    is the same in all methods of that label.
    """
    tasks: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    methods: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for finding in findings:
        tasks[finding.comparison].append(finding.task_parameters)
        methods[finding.comparison, finding.label].append(finding.method_parameters)
    of_task = {key: _varying(several) for key, several in tasks.items()}
    of_method = {key: _varying(several) for key, several in methods.items()}
    named: dict[str, str] = {}
    for finding in findings:
        if finding.name in named:
            continue
        shown = {
            **{k: v for k, v in finding.task_parameters.items() if k in of_task[finding.comparison]},
            **{
                k: v
                for k, v in finding.method_parameters.items()
                if k in of_method[finding.comparison, finding.label]
            },
        }
        named[finding.name] = f"{finding.comparison}[{', '.join([finding.label, *_pairs(shown)])}]"
    return named


def _varying(several: list[dict[str, Any]]) -> set[str]:
    values: defaultdict[str, set[str]] = defaultdict(set)
    for parameters in several:
        for name in {key for other in (several[0], parameters) for key in other}:
            values[name].add(repr(parameters[name]) if name in parameters else "")
    return {name for name, seen in values.items() if len(seen) > 1}


def _pairs(parameters: dict[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in parameters.items()]


def counts(result: GateResult) -> str:
    """How many findings there are of each change: ``1 regressed, 57 unchanged``."""
    found = [f"{result.count(name)} {name}" for name in ORDER if result.count(name)]
    return ", ".join(found) or "nothing was compared"


def verdict(result: GateResult) -> str:
    """The outcome in one line: which suite, how many methods and metrics, what changed."""
    methods = len({finding.name for finding in result.findings})
    return (
        f"{plain(result.suite)} on {plain(result.profile)}, {methods} method{'' if methods == 1 else 's'}:"
        f" {counts(result)}"
    )


def side(part: Side) -> str:
    """A side as the user named it, with its commit and whether the tree was that commit."""
    known = []
    if part.revision and part.revision != part.name:
        known.append(part.revision[:12])
    if part.clean is False:
        known.append("with uncommitted changes")
    return plain(part.name) + (f" ({', '.join(known)})" if known else "")


def machine(result: GateResult) -> str:
    """The machine in one line; "" where nothing is known of it."""
    found = result.machine
    parts = [str(found["cpu"])] if found.get("cpu") else []
    if found.get("threads"):
        parts.append(f"{found['threads']} processors")
    if isinstance(found.get("memory"), int | float):
        parts.append(f"{found['memory'] / 2**30:.0f} GiB")
    parts += [str(gpu) for gpu in found.get("gpus") or ()]
    if found.get("system"):
        parts.append(str(found["system"]))
    return plain(", ".join(parts))


def measured(result: GateResult) -> str:
    """How it was measured, in one line."""
    launches = {f.launches for f in result.findings if f.launches}
    parts = []
    if launches:
        least, most = min(launches), max(launches)
        parts.append(f"{least if least == most else f'{least} to {most}'} launches of each method and side")
    for name, value in result.conditions.items():
        parts.append(f"{name} {_flat(value)}")
    disturbed = [
        f"{name} {_flat(value, ' to ')}" for name, value in result.disturbances.items()
        if name != "seconds" and not isinstance(value, dict) and value not in (None, [], {})
    ]  # fmt: skip
    if disturbed:
        parts.append("disturbances: " + ", ".join(disturbed))
    return plain("; ".join(parts))


def versions(result: GateResult) -> str:
    """The versions behind the figures; where the sides differ, both."""
    base, head = result.base.versions, result.head.versions
    shown = []
    for name in {**base, **head}:
        before, after = base.get(name), head.get(name)
        if before == after or before is None or after is None:
            shown.append(f"{name} {after or before}")
        else:
            shown.append(f"{name} {before} in the base and {after} in the head")
    return plain(", ".join(shown))


def _flat(value: Any, between: str = ", ") -> str:
    if isinstance(value, list | tuple):
        return between.join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


assert set(ORDER) == set(CHANGES)
