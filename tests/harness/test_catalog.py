from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.catalog import Catalog, install_packages
from harness.errors import RequestError
from harness.method import Metric


def test_finds_everything_by_name(toys: Catalog) -> None:
    assert set(toys.papers) == {"timsort"}
    assert {"sorting", "training"} <= set(toys.tasks)
    assert toys.method("timsort").paper == "timsort"
    assert toys.method("timsort").role == "method"
    assert toys.method("numpy-sort").paper is None
    assert toys.method("numpy-sort").role == "baseline"
    assert set(toys.suites) >= {"toys"}


def test_reads_fields_metrics_and_docs(toys: Catalog) -> None:
    field = toys.task("sorting").fields["size"]
    assert (field.annotation, field.default, field.doc) == ("PositiveInt", 1000, "How many numbers.")
    assert toys.method("trainer").metrics == (
        Metric("state_bytes", unit="B", better="lower", deterministic=True),
    )
    assert toys.task("training").repeats == "once"
    assert toys.task("sorting").data == ("numbers",)


def test_unknown_name_has_the_nearest(toys: Catalog) -> None:
    with pytest.raises(RequestError, match="did you mean 'timsort'"):
        toys.method("timsrot")


def test_listing_imports_no_torch_and_no_method() -> None:
    code = (
        "import sys\nfrom harness.catalog import Catalog\nc = Catalog()\n"
        "list(c.methods), list(c.tasks), list(c.papers), list(c.suites)\n"
        "heavy = {'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules)\n"
        "ours = [m for m in sys.modules if m.startswith('methods.')]\n"
        "assert not heavy and not ours, (heavy, ours)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def _family(root: Path, text: str, file: str = "method.py") -> Catalog:
    folder = root / "family" / "some_paper"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text("from harness.method import Metric, Method, Task, method, task\n" + text)
    return Catalog([root], builtin=False, entry_point_roots=False)


def test_inherited_fields_and_metrics_of_other_files(tmp_path: Path) -> None:
    _family(
        tmp_path,
        "COMMON = (Metric('a'), Metric('b', better='lower'))\nclass Base(Method):\n    x: int = 1\n",
        "shared.py",
    )
    catalog = _family(
        tmp_path,
        "from .shared import COMMON, Base\n"
        "@method('m', task='t', metrics=(*COMMON, Metric('c')))\nclass M(Base):\n    y: float = 2.0\n    '''Doc.'''\n",
    )
    entry = catalog.method("m")
    assert list(entry.fields) == ["x", "y"]
    assert [m.name for m in entry.metrics] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("@method('m', task='t')\nclass M(Method):\n    x: int = len('ab')\n", "not a literal"),
        ("@method('m', task='t', metrics=[f() for _ in '']) \nclass M(Method): pass\n", "list of Metric"),
        ("def f(:\n", "is not Python"),
        (
            "@method('m', task='t')\nclass A(Method): pass\n@method('m', task='t')\nclass B(Method): pass\n",
            "also declared",
        ),
    ],
)
def test_a_wrong_declaration_is_an_error_with_a_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        _ = _family(tmp_path, text).methods
    assert caught.value.line is not None
    assert caught.value.file is not None


def test_digest_follows_imports(tmp_path: Path) -> None:
    helper = tmp_path / "family" / "some_paper" / "helper.py"
    text = "from .helper import f\n@method('m', task='t')\nclass M(Method): pass\n"
    catalog = _family(tmp_path, text)
    helper.write_text("def f(): return 1\n")
    before = catalog.digest(catalog.method("m"))
    helper.write_text("def f(): return 2\n")
    later = Catalog([tmp_path], builtin=False, entry_point_roots=False)
    assert later.digest(later.method("m")) != before
    (tmp_path / "family" / "some_paper" / "unrelated.py").write_text("x = 1\n")
    again = Catalog([tmp_path], builtin=False, entry_point_roots=False)
    assert again.digest(again.method("m")) == later.digest(later.method("m"))


def test_index_gives_the_same_answer(toys: Catalog, tmp_path: Path) -> None:
    first = {n: list(m.fields.values()) for n, m in toys.methods.items()}
    toys.save_index()
    second = Catalog(toys.folders, builtin=False, entry_point_roots=False)
    assert {n: list(m.fields.values()) for n, m in second.methods.items()} == first


def test_an_unwritable_cache_costs_nothing(toys: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", os.devnull)
    fresh = Catalog(toys.folders, builtin=False, entry_point_roots=False)
    assert fresh.methods
    fresh.save_index()


def test_what_the_source_says_is_what_the_class_has() -> None:
    """The catalog reads text; the worker imports classes. Both must mean the same, for every method we ship."""
    catalog = Catalog(entry_point_roots=False)
    install_packages(catalog.modules())
    for entry in (*catalog.tasks.values(), *catalog.methods.values()):
        cls = entry.load()
        declared = {f.name: f.default for f in dataclasses.fields(cls) if f.init}
        read = {
            n: tuple(f.default) if isinstance(f.default, list) else f.default for n, f in entry.fields.items()
        }
        assert read == declared, entry.name
        assert cls.name == entry.name
        assert tuple(cls.metrics) == entry.metrics, entry.name


def test_every_method_attempts_a_task_that_exists() -> None:
    catalog = Catalog(entry_point_roots=False)
    for entry in catalog.methods.values():
        for task in entry.attempts:
            assert task in catalog.tasks, f"{entry.name} attempts {task}"


def test_imports_go_one_way() -> None:
    """harness imports neither methods nor reports; a paper's folder imports no other paper's."""
    import ast

    root = Path(__file__).parents[2]

    def modules(path: Path) -> list[str]:
        found = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found += [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.append(node.module or "")
        return found

    for path in (root / "harness").rglob("*.py"):
        assert not [m for m in modules(path) if m.split(".")[0] in ("methods", "reports")], path
    for path in (root / "methods").rglob("*.py"):
        parts = path.relative_to(root).parts
        for module in modules(path):
            names = module.split(".")
            assert names[0] != "reports", path
            if names[0] == "methods" and len(names) > 2 and names[1] != "common" and parts[1] != "common":
                assert names[1] == parts[1], f"{path} imports {module} of another family"
                if (root / "methods" / names[1] / names[2]).is_dir():
                    assert names[2] == parts[2], f"{path} imports {module} of another paper"
