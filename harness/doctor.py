"""What this machine can and cannot run, and how to get what is missing."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from harness import data, environment, profile, sandbox, suite
from harness.catalog import Catalog
from harness.console import console, table
from harness.errors import RequestError, RequestErrors, Unavailable
from harness.runner import missing_packages


def examine(catalog: Catalog) -> dict[str, Any]:
    """Machine, profiles, packages and data sets, with what is missing, as plain data."""
    packages: dict[str, list[str]] = defaultdict(list)
    for method in catalog.methods.values():
        reason = missing_packages(method)
        if reason is not None:
            packages[reason].append(method.name)
    sets: dict[str, list[str]] = defaultdict(list)
    for task in catalog.tasks.values():
        for name in task.data:
            sets[name].append(task.name)
    counts: dict[str, dict[str, int]] = {}
    for name in catalog.suites:
        counts[name] = {}
        for place in profile.PROFILES:
            try:
                counts[name][place] = len(suite.expand(catalog, [name], place))
            except (RequestError, RequestErrors) as error:
                raise RequestError(f"the suite '{name}' has errors", hint="see 'harness check'") from error
    return {
        "machine": environment.machine(),
        "versions": environment.versions(),
        "profiles": [
            {"name": p.name, "here": seen.here, "found": seen.reason, "about": p.about}
            for p in profile.PROFILES.values()
            for seen in [p.recognise()]
        ],
        "missing_packages": [{"reason": r, "methods": sorted(m)} for r, m in sorted(packages.items())],
        "data_directory": str(data.root()) if data.root() else None,
        "data": [
            {"name": name, "here": data.available(name), "tasks": sorted(set(tasks))}
            for name, tasks in sorted(sets.items())
        ],
        "suites": counts,
        "sandbox": _sandbox(),
    }


def _sandbox() -> dict[str, Any]:
    """Whether programs that a language model writes could be locked in here, and by what."""
    try:
        return {"here": True, "found": sandbox.find().kind}
    except Unavailable as error:
        return {"here": False, "found": str(error)}


def show(found: dict[str, Any]) -> None:
    """Print it, what is missing last."""
    from rich.markup import escape

    out = console()
    machine = found["machine"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    out.print(
        f"[bold]machine[/] {escape(machine['cpu'])}, {machine['threads']} usable cores,"
        f" {machine['memory'] / 2**30:.0f} GiB, {escape(gpus)}, {escape(machine['system'])}"
    )
    out.print("[bold]software[/] " + ", ".join(f"{k} {v}" for k, v in found["versions"].items()))
    profiles = table("profiles", ["profile", "can run", "found"])
    for p in found["profiles"]:
        profiles.add_row(p["name"], "[green]yes[/]" if p["here"] else "[yellow]no[/]", escape(p["found"]))
    out.print(profiles)
    suites = table("comparisons per suite", ["suite", *profile.PROFILES])
    for name, counts in found["suites"].items():
        suites.add_row(name, *(str(counts[p]) for p in profile.PROFILES))
    out.print(suites)
    sets = table("data sets", ["data set", "here", "tasks"])
    for d in found["data"]:
        sets.add_row(d["name"], "[green]yes[/]" if d["here"] else "[yellow]no[/]", ", ".join(d["tasks"]))
    out.print(sets)
    if found["sandbox"]["here"]:
        kind = found["sandbox"]["found"]
        out.print(f"[bold]sandbox[/] {kind}, for programs that models write (with --allow-generated-code)")
    out.print("[bold]what is missing[/]")
    lines = [f"{escape(p['reason'])} [dim]({', '.join(p['methods'])})[/]" for p in found["missing_packages"]]
    absent = [d["name"] for d in found["data"] if not d["here"]]
    if absent:
        where = found["data_directory"]
        how = (
            f"put folders of these names into {escape(where)}"
            if where
            else f"set {data.VARIABLE} to a directory with folders of these names"
        )
        lines.append(f"data: {', '.join(absent)}: {how}")
    lines += [f"{p['name']}: {escape(p['found'])}" for p in found["profiles"] if not p["here"]]
    if not found["sandbox"]["here"]:
        lines.append(f"sandbox: {escape(found['sandbox']['found'])}")
    for line in lines or ["nothing"]:
        out.print(f"  {line}")
