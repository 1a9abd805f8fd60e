from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

import harness
from harness import api, check, doctor, schema, yamlfile
from harness.catalog import Catalog
from harness.errors import RequestErrors

ROOT = Path(__file__).resolve().parents[2]
TOYS = ROOT / "tests" / "toys"


@pytest.mark.parametrize("name", list(schema.FILES))
def test_checked_in_schemas_are_current(name: str) -> None:
    path = ROOT / "docs" / "schemas" / name
    assert path.read_text() == schema.text(name), "run: nox -s schemas"


def test_what_we_ship_fits_the_schemas() -> None:
    import json

    catalog = Catalog(entry_point_roots=False)
    pairs = [("paper.schema.json", [p.file for p in catalog.papers.values()])]
    pairs += [("suite.schema.json", list(catalog.suites.values()))]
    for name, files in pairs:
        validator = jsonschema.Draft202012Validator(json.loads(schema.text(name)))
        for file in files:
            errors = [e.message for e in validator.iter_errors(yamlfile.load(file).data)]
            assert not errors, f"{file}: {errors}"


def test_all_papers_and_suites_fit_together() -> None:
    errors = check.everything(Catalog(entry_point_roots=False))
    assert not errors, "\n".join(map(str, errors))


def test_frames_from_python(tmp_path: Path) -> None:
    store = tmp_path / "r.sqlite"
    summary = harness.run("toys", methods=[TOYS], papers=["timsort"], store=store, progress=False)
    assert summary.measured == 21
    records = harness.records(store=store, tasks=["training"])
    assert sorted(records["method.lr"].unique()) == [0.05, 0.1, 0.2]
    verdicts = harness.verdicts(store=store, papers=["timsort"], methods=[TOYS])
    assert dict(zip(verdicts["claim"], verdicts["outcome"], strict=True))["sorts"] == "reproduced"
    claims = harness.claims(papers=["timsort"], methods=[TOYS])
    assert claims.set_index("claim").loc["unknowable", "measurable"] == False  # noqa: E712
    bad = tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump({"title": "x", "comparisons": {"a": {"task": "sorting", "methods": ["q"]}}}))
    with pytest.raises(RequestErrors):
        api.run(str(bad), methods=[TOYS], store=tmp_path / "none.sqlite")
    assert not (tmp_path / "none.sqlite").exists()


def test_doctor_names_what_is_missing(toys: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    found = doctor.examine(toys)
    assert found["missing_packages"][0]["methods"] == ["needs-package"]
    assert found["data"] == [{"name": "numbers", "here": False, "tasks": ["sorting"]}]
    assert found["suites"]["toys"]["cpu"] > 0
    assert {p["name"]: p["here"] for p in found["profiles"]}["cpu"] is True


def test_papers_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "their_papers"
    family = package / "sorting2" / "some_paper"
    family.mkdir(parents=True)
    (package / "__init__.py").touch()
    (family / "method.py").write_text(
        "from harness.method import Method, method\n@method('theirs', task='sorting')\nclass Theirs(Method):\n"
        "    def prepare(self, work): self.work_ = work\n    def run(self): return sorted(self.work_)\n"
    )
    info = tmp_path / "their_papers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-papers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[harness.methods]\ntheirs = their_papers\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    catalog = Catalog([TOYS], builtin=False)
    assert catalog.method("theirs").source.module == "their_papers.sorting2.some_paper.method"
    assert catalog.method("theirs").load().name == "theirs"
