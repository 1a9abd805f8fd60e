from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

from harness import cli, schema
from harness.catalog import Catalog
from harness.errors import RequestError
from harness.store import Store
from reports import formats
from tests.reports.conftest import EVIL, TOYS, records


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "r.sqlite")
    for each in records():
        made.add(each)
    return made


def write(catalog: Catalog, store: Store, out: Path, *names: str) -> set[str]:
    written = formats.write(catalog, store, out, papers=["timsort"], formats=names)
    assert all(path.is_file() for path in written)
    found = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert found == {str(p.relative_to(out)) for p in written}
    return found


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("html", {"index.html"}),
        ("markdown", {"claims.md", "comment.md"}),
        ("csv", {"verdicts.csv", "records.csv"}),
        ("parquet", {"verdicts.parquet", "records.parquet", "samples.parquet"}),
        ("json", {"verdicts.json"}),
        ("jsonl", {"records.jsonl"}),
        ("latex", {"latex/timsort.tex", "latex/all.tex"}),
        ("badge", {"badge.svg", "summary.md"}),
    ],
)
def test_writes_what_is_asked_for_and_nothing_else(
    catalog: Catalog, store: Store, tmp_path: Path, name: str, files: set[str]
) -> None:
    assert write(catalog, store, tmp_path / "out", name) == files


def test_figures_in_both_forms(catalog: Catalog, store: Store, tmp_path: Path) -> None:
    found = write(catalog, store, tmp_path / "out", "svg", "pdf")
    assert {Path(f).suffix for f in found} == {".svg", ".pdf"}
    assert {"figures/overview.svg", "figures/timsort-claims.pdf"} < found
    assert {f.removesuffix(".svg") for f in found if f.endswith("svg")} == {
        f.removesuffix(".pdf") for f in found if f.endswith("pdf")
    }


def test_every_format_has_a_line_in_the_docs() -> None:
    text = (TOYS.parents[1] / "docs" / "reports.md").read_text(encoding="utf-8")
    for name in formats.FORMATS:
        assert f"`{name}`" in text


def test_by_default_the_page_and_small_files(catalog: Catalog, store: Store, tmp_path: Path) -> None:
    found = write(catalog, store, tmp_path / "out")
    assert {"index.html", "claims.md", "verdicts.csv", "verdicts.json", "badge.svg"} < found
    assert not [f for f in found if f.endswith((".parquet", ".pdf", ".jsonl"))]


def test_verdicts_fit_their_schema(catalog: Catalog, store: Store, tmp_path: Path) -> None:
    write(catalog, store, tmp_path / "out", "json")
    document = json.loads((tmp_path / "out" / "verdicts.json").read_text(encoding="utf-8"))
    checked_in = json.loads(
        (TOYS.parents[1] / "docs" / "schemas" / "verdicts.schema.json").read_text(encoding="utf-8")
    )
    jsonschema.Draft202012Validator.check_schema(checked_in)
    jsonschema.validate(document, checked_in)
    assert json.loads(schema.text("verdicts.schema.json")) == checked_in
    by_claim = {v["claim"]: v for v in document["verdicts"]}
    assert set(by_claim) == {"sorts", "faster", "on-gpu", "unknowable"}
    assert by_claim["faster"]["figure"]["value"] == pytest.approx(3.0)
    assert by_claim["faster"]["claimed"]["value"] == 2.0


def test_records_of_other_papers_are_left_out(catalog: Catalog, store: Store, tmp_path: Path) -> None:
    store.add(records()[0].model_copy(update={"key": "other", "paper": None}))
    write(catalog, store, tmp_path / "out", "csv")
    assert len(pd.read_csv(tmp_path / "out" / "records.csv")) == len(records())


def test_records_that_no_longer_count_are_there_and_say_so(
    catalog: Catalog, store: Store, tmp_path: Path
) -> None:
    old = records()[0].model_copy(update={"key": "old", "started": "2025-01-01T00:00:00"})
    store.add(old)
    write(catalog, store, tmp_path / "out", "csv", "jsonl")
    frame = pd.read_csv(tmp_path / "out" / "records.csv").set_index("key")
    assert list(frame.index) == store.keys(papers=["timsort"])
    assert not frame.loc["old", "current"]
    assert frame.loc[records()[0].key, "current"]
    assert (tmp_path / "out" / "records.jsonl").read_text(encoding="utf-8").count("\n") == len(frame)


def test_an_empty_store_makes_a_report(catalog: Catalog, tmp_path: Path) -> None:
    found = write(catalog, Store(tmp_path / "none.sqlite"), tmp_path / "out", *formats.FORMATS)
    assert "index.html" in found
    assert "not measured" in (tmp_path / "out" / "claims.md").read_text(encoding="utf-8")
    assert not (tmp_path / "none.sqlite").exists()


def run(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["harness", *arguments])
    try:
        cli.main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_command_writes_the_formats_asked_for(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = [
        "report",
        "--store",
        store.location,
        "--out",
        str(out),
        "--methods",
        str(TOYS),
        "--paper",
        "timsort",
    ]
    assert run([*arguments, "--format", "markdown", "--format", "badge"], monkeypatch) == 0
    assert {p.name for p in out.iterdir()} == {"claims.md", "comment.md", "badge.svg", "summary.md"}
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "htm"], "did you mean 'html'?"),
        (["--paper", "timsrt"], "timsort"),
        (["--compare", "nowhere.sqlite", "profile:cpu"], "nowhere.sqlite"),
        (["--compare", "profile:cpu", "profile:cpu", "--format", "pdf"], "'pdf' is not a format"),
    ],
)
def test_a_wrong_request_is_one_clear_error(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    start = ["report", "--store", store.location, "--out", str(tmp_path / "out"), "--methods", str(TOYS)]
    assert run([*start, *arguments], monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error


def test_a_folder_that_cannot_be_made_is_named(catalog: Catalog, store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot be written to"):
        formats.write(catalog, store, tmp_path / "file" / "out")


def test_hostile_text_is_markup_nowhere(catalog: Catalog, store: Store, tmp_path: Path) -> None:
    write(catalog, store, tmp_path / "out", "markdown", "badge", "latex", "svg")
    for path in (tmp_path / "out").rglob("*.*"):
        assert "<script" not in path.read_text(encoding="utf-8"), path
    assert EVIL[:20] not in (tmp_path / "out" / "claims.md").read_text(encoding="utf-8")
