"""Parts A, C and D of Making the Most of your Model on a causal model by its name: a tiny GPT-2 in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import MissingModel
from harness.testing import run_once
from methods.decoding.making_the_most.baselines import (
    CachedScoring,
    DynamicEvaluation,
    NeuralBeamSearch,
    NeuralExactSearch,
    NeuralForcedLengthBeamSearch,
    PlainPrompt,
)
from methods.decoding.making_the_most.method import (
    HiddenStateOptimisation,
    NeuralConditionalBeamSearch,
    OptimisedPrompt,
    RecurrentWindows,
)
from methods.decoding.making_the_most.models import byte_level_bpe, load_base
from methods.decoding.making_the_most.tasks import (
    FewShotLabels,
    NeuralModeSearch,
    SegmentScoring,
    WindowReading,
)
from tests.conftest import needs_data

END = "<|end|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A GPT-2 with random weights and a byte-level BPE, saved."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    where = tmp_path_factory.mktemp("gpt2")
    inner = byte_level_bpe([b"the quick brown fox jumps over the lazy dog"], 262, where / "cache", (END,))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END, pad_token=END)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=2048,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(where / "model")
    tokenizer.save_pretrained(where / "model")
    return str(where / "model")


def test_tokens_of_a_named_model_are_bytes_of_its_text(folder: str) -> None:
    """The bytes of the tokens add up to those of the text; a name that leads nowhere is said so."""
    import torch

    base = load_base(folder)
    text = torch.frombuffer(bytearray(b"the lazy dog, twice"), dtype=torch.uint8)
    ids = base.encode(text)
    assert int(base.token_bytes[ids].sum()) == len(text)
    assert len(ids) < len(text)
    with pytest.raises(MissingModel):
        load_base(f"{folder}-nowhere")


@needs_data("gutenberg-novels", "java-cs-translation", "mmlu-subset")
def test_parts_a_and_c(folder: str, tmp_path: Path) -> None:
    """Scoring, reading and labelling."""
    task = SegmentScoring(model=folder, bytes=260, tuning=200, streams=2)
    methods: list[Any] = [
        CachedScoring(),
        HiddenStateOptimisation(etas=(0.01, 0.1)),
        DynamicEvaluation(etas=(0.01,), cache=16),
    ]
    for method in methods:
        assert 3 < run_once(method, task, cache=tmp_path).metrics["far"] < 8
    reading = WindowReading(model=folder, bytes=400, streams=2, steps=1, batch=2, span=32)
    assert 3 < run_once(RecurrentWindows(), reading, cache=tmp_path).metrics["nats_per_byte"] < 8
    labels = FewShotLabels(source="mmlu-subset", model=folder, episodes=2, demonstrations=1)
    for labeller in (PlainPrompt(), OptimisedPrompt(steps=1)):
        assert 0 <= run_once(labeller, labels, cache=tmp_path).metrics["accuracy"] <= 1


@pytest.mark.parametrize("repetition", [0, 1])
def test_part_d(folder: str, tmp_path: Path, repetition: int) -> None:
    """Searches with a learned classifier, by force, for any string, and exact ones that give up."""
    task = NeuralModeSearch(model=folder, prompt="the", lengths=(3,), beams=(1, 2), repetition=repetition)
    guided = NeuralConditionalBeamSearch(draws=400, steps=3, hidden=8, top=5)
    metrics = run_once(guided, task, cache=tmp_path).metrics
    assert metrics["satisfied"] == 1
    if repetition:
        assert metrics["repetition"] == 0
    assert run_once(NeuralForcedLengthBeamSearch(), task, cache=tmp_path).metrics["log_probability"] < 0
    run_once(NeuralBeamSearch(longest=4), task, cache=tmp_path)
    exact = run_once(NeuralExactSearch(longest=3, most=20), task, cache=tmp_path).metrics
    assert exact["expansions"] <= 20
