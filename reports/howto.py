"""How to make run what was not measured: the command of the suites that measure what a claim's rule asks for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness import suite
from harness.catalog import Catalog
from harness.paper import Claim, Rule
from harness.record import Record


@dataclass
class HowTo:
    """Looks commands up in the suites of a catalog."""

    catalog: Catalog

    @cached_property
    def _specs(self) -> list[tuple[str, str, suite.ComparisonSpec]]:
        """(suite, comparison, spec) of all suites, without what they include from others."""
        found = []
        for path in self.catalog.suites.values():
            described, _ = suite.load(path)
            found += [(path.stem, name, spec) for name, spec in described.comparisons.items()]
        return found

    def claim(self, slug: str, claim: Claim, profile: str) -> str | None:
        """The command that measures what a claim needs, on `profile` where a rule allows it; None when no suite does."""
        if claim.not_measurable is not None:
            return None
        here = [rule for _, rule in claim.rules if profile in rule.profiles]
        for rule in here or [rule for _, rule in claim.rules]:
            for place in [profile] if here else rule.profiles:
                command = self._rule(slug, rule, place)
                if command is not None:
                    return command
        return None

    def _rule(self, slug: str, rule: Rule, place: str) -> str | None:
        commands: list[str] = []
        for condition in rule.all:
            selection = rule.selection(condition)
            wanted = [
                (name, key)
                for name, key, spec in self._specs
                if spec.on_profile(place) is not None
                and (key in selection.comparisons or not selection.comparisons)
                and spec.task == selection.task
                and spec.paper == slug
            ]
            if not wanted:
                return None
            for name, key in wanted if selection.comparisons else wanted[:1]:
                commands.append(f"{name} --comparison {key}")
        suites = {text.split(" ", 1)[0] for text in commands}
        if len(suites) == 1:
            chosen = " ".join(dict.fromkeys(text.split(" ", 1)[1] for text in commands))
            return f"harness run {suites.pop()} {chosen} --profile {place}"
        return " && ".join(dict.fromkeys(f"harness run {text} --profile {place}" for text in commands))

    def record(self, record: Record) -> str:
        """The command that measures again what a skipped or failed record stands for."""
        known = {(name, key) for name, key, _ in self._specs}
        place = f"{record.suite} --comparison {record.comparison}"
        if (record.suite, record.comparison) not in known:
            place = f"{Path(record.suite).name} --comparison {record.comparison}"
        retry = "" if record.status == "skipped" else " --retry"
        return f"harness run {place} --profile {record.profile}{retry}"
