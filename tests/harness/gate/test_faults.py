"""What a gate meets on other people's machines: a base that cannot be built, and a machine that changes meanwhile."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.gate.decide import LATENCY, Figure
from harness.gate.trees import lay_out
from harness.measure.statistics import log_differences
from harness.measure.turns import Block, Plan, Taken, take
from harness.record import Blocks, Latency
from tests.harness.gate.toy_repository import git, repository

__all__ = ["repository"]


@pytest.mark.slow
def test_a_base_that_does_not_build(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One error with the reason of the installer, and nothing left behind."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    project = repository / "pyproject.toml"
    backend = '[build-system]\nrequires = []\nbuild-backend = "nowhere"\nbackend-path = ["."]\n'
    project.write_text(f'{backend}[project]\nname = "mine"\nversion = "1"\ndependencies = []\n')
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "a backend that does not exist")
    project.write_text(project.read_text().replace("dependencies = []", 'dependencies = ["numpy"]'))
    said: list[str] = []
    with pytest.raises(HarnessError, match=r"the environment of (base|head) cannot be built"):
        lay_out(base="HEAD", base_env=None, say=said.append)
    assert any("different packages" in text for text in said)
    assert not list(tmp_path.glob("harness-gate-*"))
    assert not list((tmp_path / "cache").rglob("complete"))


class Machine:
    """Time on a made-up machine, which halves its speed at some point."""

    def __init__(self, halves_at: float) -> None:
        self.now = 0.0
        self.halves_at = halves_at

    def spend(self, work: float) -> float:
        """Seconds that `work` takes now, which pass."""
        took = work * (2.0 if self.now >= self.halves_at else 1.0)
        self.now += took
        return took


class Working:
    """A method whose runs need `work` seconds at full speed, but for a percent of noise."""

    def __init__(self, machine: Machine, work: float, rng: random.Random) -> None:
        self._machine, self._work, self._rng = machine, work, rng

    def run(self, count: int, runs_per_sample: int = 1) -> Block | None:
        noisy = [self._work * runs_per_sample * self._rng.lognormvariate(0, 0.01) for _ in range(count)]
        return Block([self._machine.spend(work) / runs_per_sample for work in noisy], self._work)


def latency(taken: list[Taken]) -> Latency:
    blocks = [(launch, index, b) for launch, each in enumerate(taken) for index, b in each.blocks]
    return Latency(
        samples=[s for _, _, b in blocks for s in b.samples],
        first=0.001,
        stopped="budget",
        blocks=Blocks(
            launch=[launch for launch, _, _ in blocks],
            round=[index for _, index, _ in blocks],
            size=[len(b.samples) for _, _, b in blocks],
        ),
    )


@pytest.mark.parametrize("slowdown", [0.0, 0.05])
@pytest.mark.parametrize("halves_at", [0.3, 0.75, 1.01, 1.3])
def test_a_machine_that_halves_its_speed_in_the_middle(slowdown: float, halves_at: float) -> None:
    """Twelve launches on a made-up machine: both sides are hit alike, whenever it is."""
    rng = random.Random(5)
    machine = Machine(halves_at)
    taken: tuple[list[Taken], list[Taken]] = ([], [])
    for _ in range(12):
        sides = [Working(machine, 0.001 * (1 + slow), rng) for slow in (0.0, slowdown)]
        found = take(sides, Plan(budget=0.1, min_samples=2, max_samples=2000), 1, rng)
        for side, each in zip(taken, found, strict=True):
            side.append(each)
    assert machine.now > halves_at
    differences = log_differences([latency(side) for side in taken])[1].tolist()
    figure = Figure("latency", "s", "lower", LATENCY, 0.001, 0.001, differences, [])
    assert figure.accused() is (slowdown > 0)
    assert figure.acquitted() is (slowdown == 0)
