"""The logits processors inside `transformers`' sampling loop, with a small random model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.errors import MissingData, MissingModel
from harness.testing import prepared, run_once
from methods.decoding.grammar_aligned_decoding.baselines import GcdGeneration
from methods.decoding.grammar_aligned_decoding.method import AsapGeneration
from methods.decoding.grammar_aligned_decoding.tasks import GrammarGeneration
from methods.decoding.grammars import ContextFree, FiniteLanguage, binary_language
from methods.decoding.language_models import HuggingFaceModel, hugging_face_vocabulary, load_hugging_face
from methods.decoding.sampling import enumerate_language
from methods.decoding.sql import statement
from tests.conftest import needs_data

pytest.importorskip("llguidance")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved causal model of one layer with a byte-level BPE that has tokens of several digits."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    where = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=262, initial_alphabet=alphabet, special_tokens=["</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(["0101", "1100", "0011", "100"] * 5, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(where)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=264, n_positions=256, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0,
            initializer_range=0.6,
        )  # fmt: skip
        GPT2LMHeadModel(config).eval().save_pretrained(where)
    return str(where)


def settings(folder: str, **others: object) -> GrammarGeneration:
    values: dict[str, object] = {
        "pretrained": folder,
        "dtype": "float32",
        "problems": "binary_len_3",
        "limit": 8,
    }
    return GrammarGeneration(**(values | {"samples": 200} | others))  # type: ignore[arg-type]


def test_vocabulary_has_the_bytes_of_every_token(folder: str) -> None:
    _, tokenizer = load_hugging_face(folder, "cpu", "float32")
    vocabulary = hugging_face_vocabulary(tokenizer, 264)
    assert len(vocabulary) == 264
    assert vocabulary.tokens[tokenizer.eos_token_id] == b""
    assert vocabulary.tokens[262:] == (b"", b"")
    for text in ("0101", "1 00\n", "naïve"):
        assert vocabulary.spell(tokenizer(text)["input_ids"]) == text.encode()


def test_grammar_over_its_tokens_is_the_set_of_prefixes(folder: str) -> None:
    _, tokenizer = load_hugging_face(folder, "cpu", "float32")
    vocabulary = hugging_face_vocabulary(tokenizer, 264)
    strings = binary_language("binary_len_5_0")
    finite = FiniteLanguage(strings, vocabulary)
    parsed = ContextFree("root ::= " + " | ".join(f'"{s}"' for s in strings), vocabulary)
    pending: list[tuple[int, ...]] = [()]
    longest = 0
    while pending:
        prefix = pending.pop()
        expected = finite.admitted(prefix)
        assert np.array_equal(expected, parsed.admitted(prefix))
        pending += [(*prefix, v) for v in expected.tolist() if v != vocabulary.eos]
        longest = max([longest, *(len(vocabulary.tokens[v]) for v in expected.tolist())])
    assert longest > 1


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 16])
def test_asap_generation_finds_the_exact_target(folder: str, batch: int) -> None:
    task = settings(folder, samples=400, batch=batch)
    aligned = run_once(AsapGeneration(), task).metrics
    method = GcdGeneration()
    masked = run_once(method, task).metrics
    exact = enumerate_language(method.model, method.grammar)
    assert aligned["grammatical"] == masked["grammatical"] == 1
    assert aligned["finished"] == masked["finished"] == 1
    assert aligned["gcd_kl"] == pytest.approx(exact.gcd_divergence)
    noise = (len(exact.strings) - 1) / (2 * 100)
    assert masked["last_kl"] > exact.gcd_divergence / 2 > 2 * noise
    assert aligned["last_kl"] < 2.5 * noise
    assert aligned["root_future"] >= exact.mass - 1e-6
    assert aligned["root_future"] < 1
    assert aligned["trie_bytes"] >= 16 * aligned["trie_nodes"]


def test_probabilities_of_samples_are_those_of_the_model(folder: str) -> None:
    method = prepared(AsapGeneration(), settings(folder, samples=20, temperature=0.7))
    samples = method.run()
    model: HuggingFaceModel = method.model  # type: ignore[attr-defined]
    for string, log_p in zip(samples.strings, samples.log_p, strict=True):
        ids = torch.tensor([[*model.prompt_ids, *string]])
        logits = model.model(input_ids=ids).logits[0].double() / 0.7
        steps = torch.log_softmax(logits, -1)[len(model.prompt_ids) - 1 : -1]
        whole = steps[torch.arange(len(string)), torch.tensor(string)].sum()
        assert log_p == pytest.approx(whole.item(), abs=1e-3)


def test_the_same_seed_gives_the_same_strings_and_runs_share_nothing(folder: str) -> None:
    state = torch.random.get_rng_state()
    method = prepared(AsapGeneration(), settings(folder, samples=30))
    one = method.run()
    trie = method.last.tree  # type: ignore[attr-defined]
    other = method.run()
    assert one.strings == other.strings
    assert method.last.tree is not trie  # type: ignore[attr-defined]
    assert torch.equal(state, torch.random.get_rng_state())


def test_strings_at_the_limit_are_unfinished(folder: str) -> None:
    samples = prepared(AsapGeneration(), settings(folder, samples=10, limit=1)).run()
    assert not samples.finished.any()
    assert {len(string) for string in samples.strings} == {1}


def test_what_is_not_there(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingModel):
        prepared(GcdGeneration(), settings(folder + "-not"))
    with pytest.raises(ValueError, match="1 problems"):
        settings(folder, problem=1).load(0)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    with pytest.raises(MissingData, match="gad-grammars"):
        settings(folder, problems="json").load(0)


@needs_data("gad-grammars")
def test_own_prompts(folder: str) -> None:
    task = settings(folder, problems="json", problem=9, samples=3, limit=200)
    work = task.load(0)
    assert "JSON" in work.prompt
    assert not work.finite
    with pytest.raises(ValueError, match="10 problems"):
        settings(folder, problems="arithmetic", problem=10).load(0)


def test_a_model_of_the_family_follows_the_grammar_of_sql(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from methods.decoding import documents
    from methods.decoding.small_models import FAMILY

    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    smallest = dataclasses.replace(
        FAMILY["tiny"], hidden=16, feed_forward=32, layers=1, context=24, steps=60, batch=8, entries=300
    )
    monkeypatch.setitem(FAMILY, "smallest", smallest)
    rng = np.random.default_rng(0)
    statements = tuple(statement(rng) for _ in range(200))
    monkeypatch.setitem(documents.TEXTS, "sql", lambda: statements)
    task = GrammarGeneration(
        pretrained="smallest:sql", dtype="float32", problems="sql", samples=6, limit=120, batch=3, window=1.0
    )
    assert run_once(AsapGeneration(), task).metrics["grammatical"] == 1
