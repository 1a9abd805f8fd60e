"""Files from elsewhere are read or refused, in bounded time and memory, and reach nothing else."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness import cache, data, expression, parameters, suite, suitefile, yamlfile
from harness.catalog import Catalog
from harness.errors import RequestError, RequestErrors
from harness.gate.against import read
from harness.gate.markdown import markdown
from harness.gate.model import Finding, GateResult, Side
from harness.record import Record
from harness.suitefile import Suite

HERE = Path("some.yaml")


# -- YAML --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 200_000, "nest"),
        ("{a: " * 33, "nested more than 32 deep"),
        ("- " * 40 + "a", "nested more than 32 deep"),
        ("a: &x [1]\nb: [*x, *x]", "aliases"),
        ("!!python/object/apply:os.system [echo]", "tag"),
        ("!!python/name:os.system", "tag"),
        ("a: !!binary aGk=", "tag"),
        ("? [a, b]\n: c", "a key must be a word"),
        ("a: 1\na: 2", "stands twice"),
        ('title: "\\e]0;owned\\a"', "control character"),
        ('"\\e[2J": 1', "control character"),
        ('title: "safe\\u202Eevil"', "control character"),
        ("9" * 5000, "not YAML"),
        ("a: 2001-01-01: b", "not YAML"),
    ],
)
def test_yaml_that_is_refused(text: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        yamlfile.loads(text, HERE)


def test_dates_and_words_of_older_yaml_are_words() -> None:
    assert yamlfile.loads("[2001-01-01, yes, on, 0x10, 1:30]", HERE).data == [
        "2001-01-01",
        "yes",
        "on",
        "0x10",
        "1:30",
    ]


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/proc", "/etc"])
def test_only_files_are_read(path: str) -> None:
    with pytest.raises(RequestError):
        yamlfile.load(Path(path))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(RequestError, match="is not a file"):
        yamlfile.load(tmp_path / "pipe.yaml")


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("{}[]:,-?&*!|>%@`\"'\\# \n\tab01~<"), max_size=120))
def test_yaml_is_read_or_refused(text: str) -> None:
    try:
        found = yamlfile.loads(text, HERE)
        yamlfile.validate(Suite, found)
    except (RequestError, RequestErrors):
        return


# -- expressions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "().__class__", "latency.__class__", "[x for x in (1,)]", "lambda: 1",
        "f'{1}'", "(a := 1)", "latency(*['a'])", "latency('a', **{})", "1 if 2 else 3", "9**9**9", "1/0", "(-8)**0.5",
        "'a'*9", "-'a'", "1" * 40, "x" + ".a" * 900, "-" * 1900 + "1", "+".join("1" * 900), "latency('a', n={})",
        "latency('a', n=1+2j)", "latency('a', n=[[1]])", "1 < 2 < 3", "...", "b'x'", "\0", "",
    ],
)  # fmt: skip
def test_expressions_that_are_refused(text: str) -> None:
    with pytest.raises(RequestError):
        expression.parse(text)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("latency(\"a'),.=+-*/<>[]{}:0123456789e _jn\\x"), max_size=60))
def test_an_expression_is_read_or_refused(text: str) -> None:
    try:
        parsed = expression.parse(text)
    except RequestError:
        return
    assert all(reference.metric.isidentifier() for reference in parsed.references)


@pytest.mark.parametrize(
    "annotation",
    [
        "__import__('os')",
        "int.__class__",
        "Ge(2**99999)",
        "list[open]",
        "(lambda: 1)()",
        "Annotated[int, Ge(x)]",
        "Annotated[1.5, Ge(1)]",
        "int[",
        "Ge()",
        "1 | 2",
    ],
)
def test_types_that_are_refused(annotation: str) -> None:
    with pytest.raises(RequestError):
        parameters._adapter(annotation, ())


# -- suites ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["1e999GB", "1..2GB", ".GB", "-1GB", "0B", "9" * 400 + "GB", "4 gigs", "٣GB", "GB"]
)
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        suitefile.size_in_bytes(text)


@given(st.text(max_size=20) | st.integers())
def test_a_size_is_a_size_or_refused(value: str | int) -> None:
    try:
        size = suitefile.size_in_bytes(value)
    except ValueError:
        return
    assert 0 < size < 1 << 63


def expand(toys: Catalog, folder: Path, body: str) -> None:
    (folder / "one.yaml").write_text(f"title: One\n{body}")
    suite.expand(toys, [str(folder / "one.yaml")], "cpu")


def test_a_grid_has_an_end(toys: Catalog, tmp_path: Path) -> None:
    axis = f"[{', '.join(map(str, range(1, 2001)))}]"
    grid = (
        f"comparisons: {{one: {{task: sorting, methods: [timsort], seeds: 1000000, grid: {{size: {axis}}}}}}}"
    )
    with pytest.raises(RequestErrors, match="2000000000 method runs; at most 1000000"):
        expand(toys, tmp_path, grid)
    override = "comparisons: {one: {task: sorting, methods: [timsort], profiles: {cpu: {seeds: 100000000}}}}"
    with pytest.raises(RequestErrors, match="at most 1000000"):
        expand(toys, tmp_path, override)


@pytest.mark.parametrize("name", ["../../secret.yaml", "/etc/passwd", "/etc/secret.yaml", "sub/other.yaml"])
def test_a_suite_includes_no_files_by_path(toys: Catalog, tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match="is not the name of a suite"):
        expand(toys, tmp_path, f"include: [{{suites: [{name}]}}]")


# -- names that become paths -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["..", "../secret", "a/../../secret", "/etc", "", "a\0b"])
def test_data_stays_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x").write_text("x")
    (tmp_path / "data" / "set").mkdir(parents=True)
    monkeypatch.setenv(data.VARIABLE, str(tmp_path / "data"))
    for attempt in (lambda: data.folder(name), lambda: data.available(name), lambda: data.file("set", name)):
        with pytest.raises(RequestError, match="is not the name"):
            attempt()


@given(st.text(st.sampled_from("./\\a\0~ "), max_size=12))
def test_a_name_stays_inside_or_is_refused(name: str) -> None:
    try:
        inside = data._inside(name)
    except RequestError:
        return
    assert os.path.normpath(os.path.join("/folder", inside)).startswith("/folder")


@pytest.mark.parametrize("kind", ["../x", "/x", "a/b", "", ".", "..", "a\0", "-x"])
def test_an_artefact_stays_in_the_cache(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match="kind of an artefact"):
        cache.artefact(kind, {}, lambda path: path.write_text("x"), tmp_path / "cache")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


# -- records -----------------------------------------------------------------------------------------------------

_RECORD = {
    "key": "k", "suite": "s", "comparison": "c", "task": "t", "task_parameters": {}, "method": "m", "label": "m",
    "method_parameters": {}, "seed": 1, "profile": "cpu", "source": "x", "status": "ok",
}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency": {"samples": [], "first": 1}},
        {"latency": {"samples": [-1.0], "first": 1}},
        {"latency": {"samples": ["NaN"], "first": 1}},
        {"latency": {"samples": [1], "first": 1, "blocks": {"launch": [0], "round": [], "size": [1]}}},
        {"latency": {"samples": [1], "first": 1, "runs_per_sample": 0}},
        {"metrics": {"a": float("nan")}},
        {"series": {"a": {"x": [1], "y": []}}},
        {"status": "fine"},
        {"unknown": 1},
    ],
)
def test_records_that_are_none(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Record.model_validate({**_RECORD, **wrong})


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x95",
        b"[" * 100_000,
        b'{"key": ' * 10_000,
        b"\xff\xfe",
        b"null",
        b'{"__reduce__": ["os.system"]}',
    ],
)
@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.parquet", "x.sqlite"])
def test_files_of_records_that_are_none(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError):
        list(read(str(tmp_path / name)))


_figures = st.none() | st.floats()
_texts = st.text(max_size=20) | st.sampled_from(["<script>", "@all", "| a |", "](x)", "\x1b[2J", "</td>"])
_anything = st.recursive(
    _texts | _figures | st.booleans(), lambda inner: st.lists(inner, max_size=2), max_leaves=4
)
_findings = st.builds(
    Finding,
    comparison=_texts, task=_texts, method=_texts, label=_texts, reason=_texts, unit=_texts,
    task_parameters=st.dictionaries(_texts, _anything, max_size=2),
    metric=st.sampled_from(["latency", "peak_memory", "status", "accuracy"]) | _texts,
    **dict.fromkeys(("base", "head", "ratio", "low", "high", "threshold", "p_value"), _figures),
)  # fmt: skip
_sides = st.builds(Side, name=_texts, versions=st.dictionaries(_texts, _texts, max_size=2))
_results = st.builds(
    GateResult, findings=st.lists(_findings, max_size=3), base=_sides, head=_sides, timed=st.just([]),
    suite=_texts, profile=_texts, started=_texts, seconds=st.floats(0, 1e9), notes=st.lists(_texts, max_size=2),
    machine=st.dictionaries(_texts, _anything, max_size=2), conditions=st.dictionaries(_texts, _anything, max_size=2),
    disturbances=st.dictionaries(_texts | st.sampled_from(["load", "frequency"]), _anything, max_size=2),
)  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(_results)
def test_any_result_of_a_gate_is_rendered(result: GateResult) -> None:
    """What a pull request made is rendered where a workflow may write comments."""
    text = re.sub("<code>.*?</code>", "", markdown(result))  # where nobody is mentioned
    assert "<script" not in text
    assert "\x1b" not in text
    assert not re.search(r"(?<![\w`&;])@all", text)


def test_nothing_of_ours_reads_pickles() -> None:
    """No module that reads files loads what could run code."""
    home = Path(yamlfile.__file__).parents[1]
    dangerous = ("import pickle", "pickle.load", "yaml.load(", "yaml.unsafe", "allow_pickle=True", "weights_only=False",
                 "joblib.load", "dill", "marshal.load", "shelve", "trust_remote_code=True")  # fmt: skip
    for package in ("harness", "reports", "methods"):
        for file in (home / package).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            assert not [word for word in dangerous if word in text], file
