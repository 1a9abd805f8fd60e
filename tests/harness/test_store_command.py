"""``harness store`` as a user meets it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from harness import cli
from harness.store import Store
from tests.harness.stored import record
from tests.harness.test_store_files import earlier


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with five records, three of them of one measurement; their methods are not in the catalog."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    store = Store("r.sqlite")
    store.add(
        *(record(f"old-{i}", started=f"2026-01-0{i + 1}T00:00:00+00:00") for i in range(3)),
        record("other", comparison="d", seed=7, status="failed", reason="\x1b[31mred", started="2026-02-01"),
        record(
            "skip", comparison="e", status="skipped", reason="no GPU", profile="edge-gpu", started="2026-02-02"
        ),
    )
    store.close()
    return "r.sqlite"


def harness(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as leaving:
        cli.main(["store", *arguments])
    out = capsys.readouterr()
    return int(leaving.value.code or 0), out.out, out.err


def test_list(capsys: pytest.CaptureFixture[str], location: str) -> None:
    code, out, _ = harness(capsys, "list", "--store", location, "--json")
    rows = json.loads(out)
    assert code == 0
    assert [(r["comparison"], r["records"], r["ok"], r["failed"], r["skipped"], r["stale"]) for r in rows] == [
        ("c", 3, 3, 0, 0, 3), ("d", 1, 0, 1, 0, 1), ("e", 1, 0, 0, 1, 0),
    ]  # fmt: skip
    code, out, _ = harness(capsys, "list", "--store", location, "--status", "ok", "--json")
    assert [r["comparison"] for r in json.loads(out)] == ["c"]
    code, out, _ = harness(capsys, "list", "--store", location)
    assert "5 records in r.sqlite; 4 stale, their source has changed since" in out
    code, out, _ = harness(
        capsys, "list", "--store", location, "--stale", "--records", "--limit", "2", "--json"
    )
    assert [r["key"] for r in json.loads(out)] == ["other", "old-2"]
    code, out, _ = harness(capsys, "list", "--store", location, "--records")
    assert "\x1b[31mred" not in out
    assert "no GPU" in out
    assert "5 of 5 records" in out
    code, out, _ = harness(capsys, "list", "--store", "absent.sqlite")
    assert (code, out) == (0, "no records in absent.sqlite\n")
    assert not Path("absent.sqlite").exists()


def test_prune(capsys: pytest.CaptureFixture[str], location: str) -> None:
    code, _, err = harness(capsys, "prune", "--store", location)
    assert code == 2
    assert "needs to be told which records" in err
    code, out, _ = harness(capsys, "prune", "--store", location, "--superseded", "--dry-run", "--json")
    assert json.loads(out) == {"chosen": 2, "deleted": 0, "store": location}
    code, _, err = harness(capsys, "prune", "--store", location, "--superseded")
    assert code == 2
    assert "2 records would be deleted" in err
    assert Store(location).count() == 5
    code, out, _ = harness(capsys, "prune", "--store", location, "--superseded", "--yes")
    assert (code, out) == (0, "2 records deleted from r.sqlite\n")
    assert Store(location).keys() == ["old-2", "other", "skip"]
    code, out, _ = harness(capsys, "prune", "--store", location, "--before", "2026-01-31", "--stale", "-y")
    assert Store(location).keys() == ["other", "skip"]
    code, out, _ = harness(capsys, "prune", "--store", location, "--status", "skipped", "-y")
    assert Store(location).keys() == ["other"]
    with sqlite3.connect(location) as connection:
        connection.execute("UPDATE records SET document = 'x'")
    code, out, _ = harness(capsys, "prune", "--store", location, "--damaged", "-y")
    assert Store(location).keys() == []


def test_export_import_merge_and_check(capsys: pytest.CaptureFixture[str], location: str) -> None:
    code, out, _ = harness(capsys, "export", "x.parquet", "--store", location)
    assert (code, out) == (0, "5 records: x.parquet\n")
    code, out, _ = harness(capsys, "import", "x.parquet", "x.parquet", "--store", "new.sqlite", "--json")
    assert [(f["new"], f["same"]) for f in json.loads(out)] == [(5, 0), (0, 5)]
    code, out, _ = harness(capsys, "merge", location, "--store", "new.sqlite")
    assert "r.sqlite: 0 new, 5 here already" in out
    assert "5 records in new.sqlite" in out
    code, out, _ = harness(capsys, "check", "--store", "new.sqlite")
    assert (code, out) == (0, "5 records in new.sqlite; all sound\n")
    with sqlite3.connect("new.sqlite") as connection:
        connection.execute("UPDATE records SET status = 'ok' WHERE key = 'skip'")
    code, out, _ = harness(capsys, "check", "--store", "new.sqlite", "--json")
    assert code == 1
    assert json.loads(out)["faults"] == [
        {"what": "its column 'status' says 'ok' and its document 'skipped'", "key": "skip"}
    ]
    assert harness(capsys, "check", "--store", "gone.sqlite")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list", "--status", "splendid"], "'splendid' is not a status"),
        (["list", "--before", "yesterday"], "'yesterday' is not a time"),
        (["export", "x.csv"], "is neither Parquet nor JSON lines"),
        (["import", "gone.jsonl"], "there is no file 'gone.jsonl'"),
        (["merge", "gone.sqlite"], "there is no store 'gone.sqlite'"),
        (["merge", "r.sqlite", "--keep", "best"], "'best' cannot be kept"),
        (["merge", "r.sqlite"], "is the store that it would be merged into"),
    ],
)
def test_wrong_requests(
    capsys: pytest.CaptureFixture[str], location: str, arguments: list[str], says: str
) -> None:
    code, _, err = harness(capsys, *arguments, "--store", location)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


def test_the_user_is_told_of_a_migration(capsys: pytest.CaptureFixture[str], location: str) -> None:
    earlier(Path("old.sqlite"), record())
    code, _, _ = harness(capsys, "list", "--store", "old.sqlite")
    assert code == 0
    assert len(list(Path().glob("old.v1-*.sqlite"))) == 1
