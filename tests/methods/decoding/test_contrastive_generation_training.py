"""Training for contrastive generative exploration: gradients one by one, DP-SGD, adapters, Hugging Face models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.errors import MissingModel, RequestError
from harness.method import Context
from methods.decoding.contrastive_generation.characters import CharacterModel
from methods.decoding.contrastive_generation.contrast import Contrast, contrastive_scores
from methods.decoding.contrastive_generation.generation import beam_sampling
from methods.decoding.contrastive_generation.method import IterativeCge, StaticCge
from methods.decoding.contrastive_generation.mixture import Problem
from methods.decoding.contrastive_generation.models import (
    CausalTransformer,
    TextModel,
    batch_of,
    mean_log_probability,
    rows_of,
)
from methods.decoding.contrastive_generation.tasks import NoveltyExploration
from methods.decoding.contrastive_generation.training import (
    attention_matrices,
    clipped_sum,
    epsilon,
    noise_of,
    norms,
    train_privately,
    tune,
    with_adapters,
)

TEXTS = ["one text", "another one", "x", "and the last of them"]


def test_gradients_in_closed_form_are_those_of_autograd() -> None:
    model = CharacterModel.fresh(7, 0)
    model.module.double()
    batch = batch_of(model, rows_of(model, TEXTS, 15))
    exact = [torch.cat(each) for each in zip(*TextModel.example_gradients(model, *batch), strict=True)]
    found = [torch.cat(each) for each in zip(*model.example_gradients(*batch, few=3), strict=True)]
    assert len(found) == 7
    for one, other in zip(found, exact, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_clipped_sum() -> None:
    model = CharacterModel.fresh(6, 0)
    rows = rows_of(model, TEXTS, 12)
    each = list(TextModel.example_gradients(model, *batch_of(model, rows)))
    lengths = torch.cat([norms(one) for one in each])
    clip = float(lengths.median())
    expected = [
        sum(g[0] * min(1.0, clip / float(length)) for g, length in zip(parts, lengths, strict=True))
        for parts in zip(*each, strict=True)
    ]
    for one, other in zip(clipped_sum(model, rows, clip), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    single = clipped_sum(model, rows[:1], 1e-3)
    assert float(norms([g[None] for g in single])) == pytest.approx(1e-3, rel=1e-4)
    assert all(not g.any() for g in clipped_sum(model, [], 1.0))


def test_private_steps_without_noise_are_those_of_clipped_gradients() -> None:
    recipe = replace(
        NoveltyExploration().recipe(0), private_steps=2, private_batch=4, private_rate=0.5, clip_norm=0.3
    )
    model, rows = CharacterModel.fresh(6, 0), []
    rows = rows_of(model, TEXTS, 12)
    by_hand = model.copy()
    train_privately(model, rows, recipe, 0.0, torch.Generator().manual_seed(0))  # every document in every step
    for _ in range(2):
        total = clipped_sum(by_hand, rows, 0.3)
        with torch.no_grad():
            for p, g in zip(by_hand.module.parameters(), total, strict=True):
                p -= 0.5 * g / 4
    for p, q in zip(model.module.parameters(), by_hand.module.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert not model.module.training


def test_private_noise_has_its_size() -> None:
    recipe = replace(
        NoveltyExploration().recipe(0), private_steps=1, private_batch=2, private_rate=1.0, clip_norm=0.5
    )
    model = CharacterModel.fresh(40, 0)
    rows = rows_of(model, TEXTS, 12)
    moved = model.copy()
    train_privately(moved, rows, recipe, 1000.0, torch.Generator().manual_seed(1))
    pairs = zip(model.module.parameters(), moved.module.parameters(), strict=True)
    steps = torch.cat([(p - q).detach().flatten() for p, q in pairs])
    assert float(steps.std()) == pytest.approx(1000 * 0.5 / 2, rel=0.03)


def test_accounting() -> None:
    pytest.importorskip("opacus")
    base = NoveltyExploration(private_batch=32, private_steps=500).recipe(0)
    noisy = replace(base, noise_multiplier=1.0)
    assert noise_of(noisy, 2000) == 1.0
    spent = epsilon(noisy, 2000)
    assert epsilon(replace(base, noise_multiplier=2.0), 2000) < spent
    found = replace(base, target_epsilon=spent)
    # Accounting and its inverse.
    assert noise_of(found, 2000) == pytest.approx(1.0, abs=0.02)
    assert epsilon(found, 2000) <= spent
    # Without sampling one step is a Gaussian mechanism, whose Rényi divergence is order / (2 noise^2).
    one = replace(base, noise_multiplier=1.0, private_batch=100, private_steps=1)
    orders = np.array([1 + x / 10 for x in range(1, 100)] + list(range(12, 64)))
    rdp = orders / 2
    bound = rdp + np.log1p(-1 / orders) - (np.log(1 / 100) + np.log(orders)) / (orders - 1)
    assert epsilon(one, 100) == pytest.approx(bound.min(), rel=1e-6)


# --- Hugging Face models -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model with random weights and its tokenizer, saved as a user would have one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    letters = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {letter: number for number, letter in enumerate(sorted(letters))} | {"<|end|>": 256}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    path = tmp_path_factory.mktemp("model")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=260, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=256, eos_token_id=256
        )
        GPT2LMHeadModel(config).save_pretrained(path)
    return str(path)


def test_steps_of_a_transformer_are_its_logits(folder: str) -> None:
    model = CausalTransformer.load(folder, "cpu", "float32")
    assert (model.start, model.banned, model.size) == (256, (256,), 260)
    row = rows_of(model, ["some text"], 20)[0]
    assert model.decode(row[1:]) == "some text"
    ids = torch.tensor([row, row[::-1]])
    with torch.inference_mode():
        whole = model.logits(ids)
        state = None
        for place in range(4):
            logits, state = model.step(ids[:, place], state)
            torch.testing.assert_close(logits, whole[:, place], rtol=1e-4, atol=1e-5)
        swapped = model.reorder(state, torch.tensor([1, 0]))
        # The rows have changed places: the state of one goes on with its own text.
        logits, _ = model.step(ids[[1, 0], 4], swapped)
        torch.testing.assert_close(logits, whole[[1, 0], 4], rtol=1e-4, atol=1e-5)
    law = model.log_law(whole).exp()
    assert not law[..., 256].any()
    torch.testing.assert_close(law.sum(-1), torch.ones(2, len(row)))


def test_scores_of_a_padded_batch_are_those_of_single_texts(folder: str) -> None:
    model = CausalTransformer.load(folder, "cpu", "float32")
    rows = rows_of(model, ["a", "longer text", "medium"], 30)
    together = mean_log_probability(model, rows)
    alone = torch.cat([mean_log_probability(model, [row]) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_beams_of_a_transformer_are_scored_as_whole_texts(folder: str) -> None:
    tuned = CausalTransformer.load(folder, "cpu", "float32")
    reference = tuned.copy()
    tune(
        tuned,
        ["aaaa bbbb"] * 8,
        replace(NoveltyExploration().recipe(0), tuning_epochs=20, tuning_rate=1e-2, batch=8, length=8),
    )
    streams = [torch.Generator().manual_seed(k) for k in range(2)]
    rows = beam_sampling(Contrast(tuned, reference, alpha=0.3), 4, 8, streams).tolist()
    assert all(256 not in row for row in rows)
    score = contrastive_scores(tuned, reference, [[256, *row] for row in rows])
    random = contrastive_scores(tuned, reference, [[256, *range(60, 68)]])
    assert (score > random).all()


def test_adapters_move_the_attention_alone(folder: str) -> None:
    pytest.importorskip("peft")
    model = CausalTransformer.load(folder, "cpu", "float32")
    names = attention_matrices(model.module)
    assert names == [f"transformer.h.{k}.attn.{part}" for k in (0, 1) for part in ("c_attn", "c_proj")]
    before = {name: p.detach().clone() for name, p in model.module.named_parameters()}
    recipe = replace(
        NoveltyExploration().recipe(0), adapter="lora", tuning_epochs=3, tuning_rate=0.05, batch=4, length=10
    )
    tune(model, TEXTS, recipe)
    moved = {name for name, p in model.module.named_parameters() if not torch.equal(p, before[name])}
    assert set(dict(model.module.named_parameters())) == set(before)
    assert moved <= {f"{name}.weight" for name in names}
    assert len(moved) == 4
    # Private: the same, one gradient at a time.
    tune(model, TEXTS, replace(recipe, noise_multiplier=0.1, private_steps=2, private_batch=2))
    assert not any(p.isnan().any() for p in model.module.parameters())


def test_adapters_need_attention() -> None:
    pytest.importorskip("peft")
    with pytest.raises(RequestError, match="no attention"):
        with_adapters(torch.nn.Sequential(torch.nn.Linear(2, 2)))


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_a_pretrained_model_goes_through_the_same_code(
    folder: str, adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    task = NoveltyExploration(
        pretrained=folder, adapter=adapter, novel=("sums",), length=12, tuning_epochs=1, batch=4, texts=3
    )
    words = tuple(f"word {k} of some" for k in range(12))
    sums = tuple(f"{k} + 1 = {k + 1} ;" for k in range(8))
    problem = Problem(task.recipe(1), (), words, {"sums": sums}, words[:3], {"english": words, "sums": sums})
    results: list[Any] = []
    for method in (StaticCge(batch=1), IterativeCge(rate=0.0), IterativeCge(rate=1e-3)):
        method.task, method.work, method.context = task, problem, Context(cache=tmp_path)
        method.prepare(problem)
        before = {n: t.clone() for n, t in method.tuned.module.state_dict().items()}
        results.append(method.run())
        assert all(torch.equal(t, before[n]) for n, t in method.tuned.module.state_dict().items())
        metrics = method.measure(results[-1]).metrics
        assert set(metrics) == {m.name for m in (*task.metrics, *method.metrics)}
    assert results[0] == results[1]
    assert len(list(tmp_path.glob("novelty-tuned-*.json"))) == 1


def test_models_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(MissingModel):
        CausalTransformer.load(str(tmp_path / "nothing"), "cpu", "float32")
