from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import paper
from harness.catalog import Catalog
from harness.paper import Claim
from harness.store import Store
from reports.collect import collect
from reports.howto import HowTo
from reports.provenance import Provenance, provenance
from tests.reports.conftest import record, records


@pytest.fixture
def how(catalog: Catalog) -> HowTo:
    return HowTo(catalog)


def found(catalog: Catalog, how: HowTo, folder: Path, *stored: Any) -> Provenance:
    store = Store(folder / "r.sqlite")
    store.add(*stored)
    return provenance(collect(catalog, store, [], ["cpu"]), how)


def test_machines_stand_apart_with_what_they_measured(catalog: Catalog, how: HowTo, tmp_path: Path) -> None:
    other = record(seed=1005, environment={"machine": {"cpu": "Another", "memory": 2**30, "gpus": ["A GPU"]}})
    where = found(catalog, how, tmp_path, record(), record(seed=1001), other)
    assert [(m.cpu, m.details, m.records) for m in where.machines] == [
        ("A CPU", "2 usable cores, 8.0 GiB, no GPU, Linux", 2),
        ("Another", "1.0 GiB, A GPU", 1),
    ]
    assert where.seeds == "1000–1001, 1005"
    assert where.took == "3 s"
    assert where.counts == [("ok", 3)]


def test_versions_of_a_mixed_store_are_all_named(catalog: Catalog, how: HowTo, tmp_path: Path) -> None:
    stored = [
        record(seed=s, environment={"versions": {"torch": v}}) for s, v in ((1000, "2.12"), (1001, "2.13"))
    ]
    assert found(catalog, how, tmp_path, *stored).versions == [("torch", "2.12 and 2.13")]


def test_what_disturbed_is_summed_up(catalog: Catalog, how: HowTo, tmp_path: Path) -> None:
    stored = [
        record(
            seed=1000 + i,
            unstable="others worked" if share > 0.25 else None,
            environment={
                "disturbances": {"governor": "performance", "others": share, "stolen": None, "throttled": 0}
            },
        )
        for i, share in enumerate((0.01, 0.02, 0.5))
    ]
    where = found(catalog, how, tmp_path, *stored)
    assert where.unstable == [("others worked", 1)]
    assert where.conditions == (
        "frequency governor performance; other processes used 2.0% of the processors as a rule, 50.0% at most;"
        " the processor was throttled during 0 of 3 measurements"
    )


def test_seeds_that_failed_alike_are_one_line_with_its_command(
    catalog: Catalog, how: HowTo, tmp_path: Path
) -> None:
    stored = [
        record(seed=s, status="timeout", reason="took too long", latency=None) for s in (1000, 1001, 1003)
    ]
    (missing,) = found(catalog, how, tmp_path, *stored).missing
    assert missing.seed_text == "1000–1001, 1003"
    assert missing.command == "harness run toys --comparison growth --profile cpu --retry"


def test_claims_with_one_reason_stand_together(catalog: Catalog, how: HowTo, tmp_path: Path) -> None:
    by_reason = {u.reason: u.claims for u in found(catalog, how, tmp_path, *records()).unmeasured}
    assert by_reason["needs the profile datacenter-gpu"] == [("timsort", "on-gpu")]
    assert by_reason["needs the author"] == [("timsort", "unknowable")]


def claims(catalog: Catalog) -> dict[str, Claim]:
    described, _ = paper.load(catalog.papers["timsort"].file)
    return {c.id: c for c in described.claims}


def test_the_command_of_a_claim_names_a_suite_that_measures_it(catalog: Catalog, how: HowTo) -> None:
    known = claims(catalog)
    assert (
        how.claim("timsort", known["sorts"], "cpu")
        == "harness run toys --comparison sorting-growth --profile cpu"
    )
    on_gpu = "harness run toys --comparison sorting-growth --profile datacenter-gpu"
    assert how.claim("timsort", known["on-gpu"], "cpu") == on_gpu
    assert how.claim("timsort", known["unknowable"], "cpu") is None
