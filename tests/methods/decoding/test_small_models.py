"""The family of small transformers: names, texts, training that is repeated bit by bit, and its use as a law."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from harness.errors import MissingModel
from methods.decoding import documents as texts
from methods.decoding import small_models
from methods.decoding.documents import documents
from methods.decoding.small_models import FAMILY, load_causal_model, parse_name, perplexity, train_or_load
from tests.conftest import needs_data

LINES = tuple(
    f"def {a}_{b}({c}):"
    for a in ("get", "set", "run")
    for b in ("one", "two", "all")
    for c in ("x", "self", "")
)
SMALLEST = dataclasses.replace(
    FAMILY["tiny"], hidden=16, feed_forward=32, layers=1, context=16, steps=40, batch=8, entries=300
)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(texts.TEXTS, "lines", lambda: LINES * 4)
    monkeypatch.setitem(FAMILY, "smallest", SMALLEST)


def test_names() -> None:
    assert parse_name("tiny:sql") == (FAMILY["tiny"], "sql")
    assert parse_name("Qwen/Qwen2.5-0.5B-Instruct") is None
    for wrong in ("huge:sql", "tiny:"):
        with pytest.raises(ValueError, match="size"):
            parse_name(wrong)
    with pytest.raises(ValueError, match="texts are"):
        documents("nothing")


@pytest.mark.usefixtures("lines")
def test_training_is_cached_and_repeats(tmp_path: Path) -> None:
    model, tokenizer = train_or_load(SMALLEST, "lines", directory=tmp_path / "a")
    again, _ = train_or_load(SMALLEST, "lines", directory=tmp_path / "b")
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert one.equal(other)
    made = {path.name for path in (tmp_path / "a").iterdir()}
    train_or_load(SMALLEST, "lines", directory=tmp_path / "a")
    assert {path.name for path in (tmp_path / "a").iterdir()} == made
    assert tokenizer.encode("def get")[0] == tokenizer.eos_token_id
    assert tokenizer.decode(tokenizer.encode(LINES[0], add_special_tokens=False)) == LINES[0]


@pytest.mark.usefixtures("lines")
def test_a_model_of_the_family_is_a_law(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    model = small_models.language_model("smallest:lines", "def get")
    law = np.exp(model.log_probabilities([]))
    assert law.sum() == pytest.approx(1)
    assert len(law) == len(model.vocabulary)
    spelled = model.vocabulary.spell(model.tokenizer.encode("def é", add_special_tokens=False))
    assert spelled == "def é".encode()
    assert perplexity("smallest:lines") < len(law) / 4  # training has learned something
    halved, _ = load_causal_model("smallest:lines", dtype="bfloat16")
    assert str(halved.dtype) == "torch.bfloat16"


def test_a_model_that_is_not_here(tmp_path: Path) -> None:
    with pytest.raises(MissingModel):
        load_causal_model(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="held-out"):
        perplexity("some/model")


def test_texts() -> None:
    assert all(line.startswith("def ") for line in documents("python-headers"))
    assert documents("sql") == documents("sql")
    functions = documents("python-functions")
    assert len(functions) > 500
    assert isinstance(ast.parse(functions[7]).body[0], ast.FunctionDef)


@needs_data("conala")
def test_json_text() -> None:
    assert set(json.loads(documents("json")[0])) == {"question", "intent", "snippet"}


def test_molecules() -> None:
    pytest.importorskip("rdkit")
    assert len(documents("molecules")) > 4000
