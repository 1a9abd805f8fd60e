"""Passages from clean and corrupted sources, and the language model that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import MissingModel
from harness.method import Context
from harness.testing import run_once
from methods.retrieval.data_importance import passages
from methods.retrieval.data_importance.baselines import AllSources, SourceAccuracyPrune
from methods.retrieval.data_importance.retrievals import Retrievals
from methods.retrieval.data_importance.tasks import (
    PassageSourceSelection,
    Selection,
    SelectionWork,
    SourceSelection,
    selection_score,
)


class Oracle:
    """Answers rightly where the right answer is in the passage."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.right = answers

    def answers(self, asked: Sequence[tuple[str, str]]) -> list[str]:
        return [self.right[q].upper() if self.right[q] in p else "no idea" for p, q in asked]


@pytest.fixture
def small_collection(monkeypatch: pytest.MonkeyPatch) -> Oracle:
    texts = [{"_id": f"p{i}", "text": f"The town of Place{i} has the river Stream{i}."} for i in range(12)]
    asked = [
        {"_id": str(i), "text": f"Which river has Place{i}?", "passage_id": f"p{i}", "answers": [f"Stream{i}"]}
        for i in range(12)
    ]
    monkeypatch.setattr(passages, "_lines", lambda name: texts if "passages" in name else asked)
    return Oracle({q["text"]: q["answers"][0] for q in asked})


def collect(reader: Any, corrupted: float) -> Retrievals:
    return passages.retrieve(
        reader, questions=10, sources=6, corrupted=corrupted, coverage=0.7, depth=2, seed=4
    )


def test_corrupted_sources_hold_wrong_answers(small_collection: Oracle) -> None:
    clean, mixed = collect(small_collection, 0.0), collect(small_collection, 0.5)
    np.testing.assert_array_equal(clean.sources, mixed.sources)  # same passages, same holders
    changed = clean.utilities != mixed.utilities
    assert changed.any()
    assert len(set(mixed.sources[changed])) == 3
    for row in range(10):
        first = clean.sources[row] != 6
        assert clean.utilities[row][first][0] == 1  # the right passage is retrieved first
    work = SelectionWork(mixed, mixed, np.arange(6), 6, np.zeros((1, 6)))
    pruning = SourceAccuracyPrune()
    pruning.task, pruning.work, pruning.context = SourceSelection(votes=3), work, Context()
    pruning.prepare(work)
    plain = selection_score(work, Selection(np.ones(6)), 3)
    assert selection_score(work, pruning.run(), 3)["accuracy"] >= plain["accuracy"]


def test_replacing_and_comparing_answers() -> None:
    assert passages.replaced("In 1999 and 99 days.", ["99", "1999"], "x") == "In x and x days."
    assert passages.normalised("  The Denver, Broncos! ") == "denver broncos"


def test_too_many_questions_are_refused(small_collection: Oracle) -> None:
    with pytest.raises(ValueError, match="there are 12"):
        passages.retrieve(
            small_collection,  # type: ignore[arg-type]
            questions=13,
            sources=2,
            corrupted=0.0,
            coverage=1.0,
            depth=1,
            seed=0,
        )


@pytest.mark.slow
def test_a_missing_model_is_said_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "nothing").mkdir()
    reader = passages.Reader(str(tmp_path / "nothing"), "cpu", "float32", 2)
    with pytest.raises(MissingModel, match="cannot be loaded"):
        reader.answers([("a passage", "a question")])


@pytest.mark.slow
def test_a_language_model_answers_and_answers_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_collection: Oracle
) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.train_from_iterator(
        ["The town has the river."] * 3, trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<end>"])
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")
    fast.save_pretrained(tmp_path / "model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=len(fast), n_positions=512, n_embd=16, n_layer=1, n_head=2)
        )
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))

    task = PassageSourceSelection(model=str(tmp_path / "model"), questions=8, sources=4, passages=2, batch=3)
    work = task.load(1)
    assert work.validation.count == 4
    assert len(list((tmp_path / "cache").glob("passage-answers-*.json"))) == 1
    reader = passages.Reader(str(tmp_path / "model"), "cpu", "float32", 3)
    pairs = [("A long passage about a river and a town.", "Which?"), ("Short.", "Who?")]
    one_by_one = [reader.answers([pair])[0] for pair in pairs]
    assert reader.answers(pairs) == one_by_one  # padding changes nothing
    monkeypatch.setattr(passages.Reader, "_generate", lambda *_: pytest.fail("the answers were kept"))
    np.testing.assert_array_equal(task.load(1).test.utilities, work.test.utilities)
    assert run_once(AllSources(), task, seed=1).metrics["kept"] == 1.0
