from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness import yamlfile
from harness.errors import RequestError, RequestErrors
from harness.paper import Paper

HERE = Path("some.yaml")

# Line breaks other than \n are PyYAML's own trouble: it writes some that it cannot read back.
# And 1e5 is a number in YAML 1.2 and a word, which needs no quotes, in PyYAML's 1.1.
words = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), max_size=20
).filter(lambda word: not re.fullmatch(r"[-+]?[0-9][0-9_.]*[eE][-+]?[0-9]+", word))
scalars = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | words
documents = st.dictionaries(
    words.filter(bool),
    st.recursive(scalars, lambda c: st.lists(c, max_size=3) | st.dictionaries(words, c, max_size=3)),
    max_size=4,
)


@given(documents)
def test_reads_what_yaml_wrote(document: dict[str, object]) -> None:
    text = yaml.safe_dump(document, allow_unicode=True)
    if "&" in text or "*" in text:
        return
    # Words that YAML 1.1 quotes because it would read them as booleans come back as the same words.
    assert yamlfile.loads(text, HERE).data == document


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(RequestError):
        yamlfile.loads(text, HERE)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1e9", 1e9),
        ("5", 5),
        ("0.5", 0.5),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("~", None),
    ],
)
def test_scalars(text: str, value: object) -> None:
    read = yamlfile.loads(f"key: {text}", HERE).data["key"]
    assert read == value
    assert type(read) is type(value)


def test_lines_of_keys_and_items() -> None:
    document = yamlfile.loads("a:\n  b:\n    - 1\n    - 2\nc: 3\n", HERE)
    assert document.line(("a", "b", 1)) == 4
    assert document.line(("c",)) == 5
    assert document.line(("a", "b", "nowhere")) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2", "stands twice"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: !!python/object/apply:os.system [ls]", "tag"),
        ("a: [1", "is not YAML"),
        ("[" * 40 + "]" * 40, "nested"),
    ],
)
def test_refuses(text: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        yamlfile.loads(text, HERE)
    assert caught.value.line is not None


def test_refuses_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text("a: " + "x" * (yamlfile.MAX_BYTES + 1))
    with pytest.raises(RequestError, match="at most"):
        yamlfile.load(path)


def test_every_wrong_field_has_its_line_and_a_hint() -> None:
    text = "titel: x\nyear: soon\nsummary: s\nclaims:\n  - id: a\n"
    with pytest.raises(RequestErrors) as caught:
        yamlfile.validate(Paper, yamlfile.loads(text, HERE))
    messages = [str(e) for e in caught.value.errors]
    assert any("some.yaml:1: titel: unknown field 'titel' (did you mean 'title'?)" in m for m in messages)
    assert any("some.yaml:2: year" in m and "not 'soon'" in m for m in messages)
    assert any("some.yaml:5: claims.0: the field 'kind' is missing" in m for m in messages)
