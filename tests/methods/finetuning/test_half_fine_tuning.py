"""Half fine-tuning: the selection, what stays and what moves, the half reset, the variants."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.method import Method
from harness.seeding import rng
from harness.testing import prepared, run_once
from methods.common.language_model import llama
from methods.finetuning.half_fine_tuning import selection
from methods.finetuning.half_fine_tuning.baselines import (
    L2SP,
    FrozenBottom,
    FullFineTuning,
    FullFineTuningStep,
    Lora,
    MultiTask,
)
from methods.finetuning.half_fine_tuning.method import (
    HalfFineTunedInference,
    HalfFineTuning,
    HalfFineTuningQuadratic,
    HalfFineTuningStep,
    HalfReset,
    PenalisedQuadratic,
)
from methods.finetuning.half_fine_tuning.stages import Stages
from methods.finetuning.half_fine_tuning.tasks import (
    ContinualStages,
    FineTunedInference,
    FineTuningStep,
    QuadraticStage,
)

TEXT = ("python-stdlib",)


def stages(**changes: Any) -> ContinualStages:
    """Stages over the standard library, so that no data set is needed."""
    return ContinualStages(
        **{
            "base_text": TEXT[0], "stage_texts": TEXT, "cap": 60_000, "evaluated": 200,
            "hidden": 16, "feed_forward": 40, "layers": 2, "heads": 2, "context": 16,
            "base_steps": 3, "steps": 3, "batch": 4, "weight_decay": 0.1, "lr": 1e-2, **changes,
        }
    )  # fmt: skip


def run(method: Method[Any, Any], task: ContinualStages, cache: Path) -> Stages:
    output: Stages = prepared(method, task, cache=cache).run()
    return output


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def moved(output: Stages, stage: int = 1) -> set[str]:
    before, after = output.snapshots[stage - 1], output.snapshots[stage]
    return {name for name in after if not torch.equal(before[name], after[name])}


def tensors(modules: Any) -> set[str]:
    return {f"{module}.weight" for module in modules}


# --- selection -------------------------------------------------------------------------------------


def test_counts_of_the_category_selection() -> None:
    model = llama(hidden=16, feed_forward=40, heads=2, layers=4)
    every = selection.layers(model)
    assert [len(layer.modules) for layer in every] == [4 + 3 + 2] * 4
    for seed in range(50):
        frozen = selection.select(model, 0.5, rng(seed, "selection"))
        assert [len(frozen & set(layer.attention)) for layer in every] == [2] * 4
        assert sorted(len(frozen & set(layer.feed_forward)) for layer in every) == [1, 1, 2, 2]
        assert [len(frozen & set(layer.norms)) for layer in every] == [1] * 4


def test_each_module_is_frozen_half_of_the_time() -> None:
    model = llama(hidden=4, feed_forward=8, heads=2, layers=4)
    stream = rng(0, "draws")
    counts = collections.Counter(m for _ in range(2000) for m in selection.select(model, 0.5, stream))
    assert set(counts) == set(selection.selectable(model))
    assert all(abs(count / 2000 - 0.5) < 0.05 for count in counts.values())


def test_seven_billion_parameters() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=32, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert sum(p.numel() for p in model.parameters()) == 6_738_415_616
    frozen = selection.select(model, 0.5, rng(0, "selection"))
    assert selection.size(model, frozen) == 3_238_133_760


def test_gpt2_and_bert_have_two_matrix_feed_forward_layers() -> None:
    from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=8, n_head=2, n_layer=3, vocab_size=11, n_positions=4))
    for layer in selection.layers(gpt2):
        frozen = selection.select(gpt2, 0.5, rng(1, layer.norms[0]))
        assert len(layer.attention) == len(layer.feed_forward) == len(layer.norms) == 2
        assert all(len(frozen & set(category)) == 1 for category in layer.categories)
    bert = BertModel(
        BertConfig(
            hidden_size=8, num_attention_heads=2, num_hidden_layers=3, intermediate_size=16, vocab_size=11
        )
    )
    frozen = selection.select(bert, 0.5, rng(2, "bert"))
    for layer in selection.layers(bert):
        assert [len(frozen & set(category)) for category in layer.categories] == [2, 1, 1]
    selection.freeze(bert, frozen)
    stuck = {name for name, p in bert.named_parameters() if not p.requires_grad}
    assert stuck == {f"{module}.{kind}" for module in frozen for kind in ("weight", "bias")}


def test_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="Linear"):
        selection.layers(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="share"):
        selection.select(llama(hidden=4, heads=2), 1.5, rng(0, "selection"))


@settings(max_examples=40, deadline=None)
@given(ratio=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_other_shares_are_as_near_as_a_single_exchange_gets(ratio: float, seed: int) -> None:
    model = llama(hidden=12, feed_forward=44, heads=2, layers=3)
    frozen = selection.select(model, ratio, rng(seed, "selection"))
    for layer in selection.layers(model):
        here = frozen & set(layer.modules)
        if ratio == 0.5:
            continue
        goal = ratio * selection.size(model, layer.modules)
        miss = abs(selection.size(model, here) - goal)
        for matrix in layer.matrices:
            assert miss <= abs(selection.size(model, here ^ {matrix}) - goal) + 1e-9
        assert miss <= 12 * 44 / 2 + 12


@pytest.mark.parametrize(("ratio", "share"), [(0.0, 0), (1.0, 1)])
@pytest.mark.parametrize("level", ["category", "layer", "model"])
def test_no_share_and_the_whole(ratio: float, share: int, level: Any) -> None:
    model = llama(hidden=4, feed_forward=8, heads=2)
    frozen = selection.select(model, ratio, rng(0, "selection"), level)
    assert len(frozen) == share * len(selection.selectable(model))


def test_layer_and_model_level() -> None:
    model = llama(hidden=4, feed_forward=8, heads=2, layers=4)
    every = selection.layers(model)
    whole = selection.select(model, 0.5, rng(3, "selection"), "layer")
    assert sorted(len(whole & set(layer.modules)) for layer in every) == [0, 0, 9, 9]
    matrices = {m for layer in every for m in layer.matrices}
    counts = set()
    for seed in range(20):
        some = selection.select(model, 0.5, rng(seed, "selection"), "model")
        assert len(some & matrices) == 14
        assert len(some - matrices) == 4
        counts.update(len(some & set(layer.attention)) for layer in every)
    assert len(counts) > 1


# --- a stage ---------------------------------------------------------------------------------------


def test_frozen_tensors_stay_and_all_others_move(tmp_path: Path) -> None:
    method = HalfFineTuning()
    output = run(method, stages(), tmp_path)
    frozen = selection.select(method.base, 0.5, method.context.rng("selection", 0))
    assert moved(output) == set(output.snapshots[0]) - tensors(frozen)
    kept = selection.size(method.base, frozen)
    total = sum(p.numel() for p in method.base.parameters())
    moving = sum(1 for _ in method.base.parameters()) - len(frozen)
    assert output.trainable == [1 - kept / total]
    # Two moments of four bytes an entry, and a step count a tensor.
    assert output.state_bytes == [8 * (total - kept) + 4 * moving]


def test_nothing_frozen_is_full_fine_tuning(tmp_path: Path) -> None:
    task = stages(stage_texts=TEXT * 2)
    half, full = run(HalfFineTuning(ratio=0.0), task, tmp_path), run(FullFineTuning(), task, tmp_path)
    assert all(same(a, b) for a, b in zip(half.snapshots, full.snapshots, strict=True))
    assert len(moved(full)) == len(full.snapshots[0])
    slower = run(FullFineTuning(lr_factor=0.5), task, tmp_path)
    assert not same(slower.snapshots[1], full.snapshots[1])


def test_everything_frozen_changes_nothing(tmp_path: Path) -> None:
    task = stages()
    method = HalfFineTuning(ratio=1.0, freeze_outside=True)
    output = run(method, task, tmp_path)
    assert moved(output) == set()
    assert output.trainable == [0.0]
    measured = task.score(method.work, output).metrics
    assert measured["forgetting"] == measured["backward_transfer"] == 0.0
    assert moved(run(HalfFineTuning(ratio=1.0), task, tmp_path)) == {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
    }


def test_another_half_in_the_next_stage(tmp_path: Path) -> None:
    task = stages(stage_texts=TEXT * 2)
    output = run(HalfFineTuning(), task, tmp_path)
    assert (set(output.snapshots[0]) - moved(output, 1)) & moved(output, 2)
    fixed = run(HalfFineTuning(redraw=False), task, tmp_path)
    assert moved(fixed, 1) == moved(fixed, 2)


def test_element_level_keeps_half_of_the_entries(tmp_path: Path) -> None:
    method = HalfFineTuning(level="element")
    output = run(method, stages(), tmp_path)
    before, after = output.snapshots
    inside = {f"{m}.weight" for m in selection.selectable(method.base)}
    for name in before:
        kept = int((before[name] == after[name]).sum())
        if name in inside:
            assert kept == pytest.approx(before[name].numel() / 2, abs=1)
    kept = sum(before[name].numel() // 2 for name in inside)
    assert output.trainable[0] == pytest.approx(1 - kept / sum(t.numel() for t in before.values()))


def test_runs_are_repeatable(tmp_path: Path) -> None:
    method = prepared(HalfFineTuning(), stages(), cache=tmp_path)
    first, second = method.run(), method.run()
    assert all(same(a, b) for a, b in zip(first.snapshots, second.snapshots, strict=True))


# --- half reset ------------------------------------------------------------------------------------


def test_a_half_and_its_complement_add_up() -> None:
    base = llama(hidden=8, feed_forward=16, heads=2, seed=0)
    tuned = llama(hidden=8, feed_forward=16, heads=2, seed=1).state_dict()
    start = base.state_dict()
    chosen = selection.select(base, 0.5, rng(0, "reset"))
    rest = {name.removesuffix(".weight") for name in start} - chosen
    one = selection.half_reset(start, tuned, chosen)
    other = selection.half_reset(start, tuned, rest)
    for name in start:
        assert torch.equal(one[name] + other[name], start[name] + tuned[name])
        reset = name.removesuffix(".weight") in chosen
        assert torch.equal(one[name], (start if reset else tuned)[name])


def test_half_reset_is_full_fine_tuning_with_half_set_back(tmp_path: Path) -> None:
    task = stages()
    full, method = run(FullFineTuning(), task, tmp_path), HalfReset()
    reset = run(method, task, tmp_path)
    inside = {f"{m}.weight" for m in selection.selectable(method.base)}
    back = {n for n in inside if torch.equal(reset.snapshots[1][n], full.snapshots[0][n])}
    assert len(back) == (2 + 2) + (1 + 2) + (1 + 1)  # attention, feed-forward and norms of two layers
    rest = set(full.snapshots[1]) - back
    assert all(torch.equal(reset.snapshots[1][n], full.snapshots[1][n]) for n in rest)
    with pytest.raises(ValueError, match="modules"):
        HalfReset(level="element")


# --- baselines -------------------------------------------------------------------------------------


def test_lora_moves_matrices_by_low_rank_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    method = Lora(rank=2)
    output = run(method, stages(), tmp_path)
    matrices = {f"{m}.weight" for layer in selection.layers(method.base) for m in layer.matrices}
    assert moved(output) == matrices
    assert output.snapshots[0].keys() == output.snapshots[1].keys()
    for name in matrices:
        singular = torch.linalg.svdvals(output.snapshots[1][name] - output.snapshots[0][name])
        assert singular[2] < 1e-4 * singular[0]


def test_l2_sp_pulls_towards_the_start(tmp_path: Path) -> None:
    def distance(method: Method[Any, Any]) -> float:
        before, after = run(method, stages(weight_decay=0.0, steps=20), tmp_path).snapshots
        return sum(float((after[n] - before[n]).square().sum()) for n in before)

    full = distance(FullFineTuning())
    assert distance(L2SP(alpha=1e-9)) == pytest.approx(full, rel=0.05)
    assert distance(L2SP(alpha=100.0)) < 0.5 * full


def test_frozen_bottom(tmp_path: Path) -> None:
    method = FrozenBottom()
    output = run(method, stages(), tmp_path)
    bottom = tensors(selection.layers(method.base)[0].modules)
    assert moved(output) == set(output.snapshots[0]) - bottom


def test_multi_task_is_one_run_over_all_stages(tmp_path: Path) -> None:
    task = stages(stage_texts=TEXT * 2)
    method = MultiTask()
    output = run(method, task, tmp_path)
    assert same(output.snapshots[1], output.snapshots[2])
    assert len(output.snapshots) == 3
    metrics = task.score(method.work, output).metrics
    assert metrics["new_task_fit"] == metrics["new_after"]
    # With one stage it is full fine-tuning.
    single = run(MultiTask(), stages(), tmp_path)
    assert same(single.snapshots[1], run(FullFineTuning(), stages(), tmp_path).snapshots[1])


# --- one step, inference, the quadratic ------------------------------------------------------------


def test_half_of_the_weight_gradients_and_five_sixths_of_the_flops() -> None:
    task = FineTuningStep(hidden=64, feed_forward=176, layers=4, context=32, batch=4)
    full = run_once(FullFineTuningStep(), task).metrics
    half = run_once(HalfFineTuningStep(), task).metrics
    tokens, matrices = 4 * 32, 4 * (4 * 64**2 + 3 * 64 * 176)
    head = 6 * tokens * 64 * 256
    assert full["matmul_flops"] - head == 6 * tokens * matrices
    assert half["matmul_flops"] - head == 5 * tokens * matrices
    assert half["optimizer_bytes"] < 0.65 * full["optimizer_bytes"]
    assert half["loss"] == full["loss"]


def test_checkpointing_leaves_about_seven_eighths() -> None:
    """Less than 7/8 by one matrix: nothing needs the output of a layer's last product again."""
    task = FineTuningStep(hidden=64, feed_forward=176, layers=4, context=32, batch=4, checkpointing=True)
    tokens, head = 4 * 32, 6 * 4 * 32 * 64 * 256
    matrices, last = 4 * (4 * 64**2 + 3 * 64 * 176), 4 * 64 * 176
    half = run_once(HalfFineTuningStep(), task).metrics["matmul_flops"] - head
    full = run_once(FullFineTuningStep(), task).metrics["matmul_flops"] - head
    assert half == tokens * (7 * matrices - 2 * last)
    assert full == tokens * (8 * matrices - 2 * last)


@pytest.mark.parametrize("phase", ["forward", "forward-backward", "step"])
def test_only_a_whole_step_moves_the_weights(phase: Any) -> None:
    task = FineTuningStep(hidden=16, feed_forward=40, heads=2, layers=2, context=8, batch=2, phase=phase)
    method = prepared(HalfFineTuningStep(), task)
    before = {n: p.detach().clone() for n, p in method.model.named_parameters()}
    method.run()
    moved = {n for n, p in method.model.named_parameters() if not torch.equal(before[n], p)}
    trained = {n for n, p in method.model.named_parameters() if p.requires_grad}
    assert moved == (trained if phase == "step" else set())


def test_architecture_and_logits_are_unchanged() -> None:
    task = FineTunedInference(hidden=16, feed_forward=40, heads=2, layers=2, context=8, batch=2)
    assert run_once(HalfFineTunedInference(), task).metrics == {
        "same_architecture": 1.0,
        "logits_difference": 0.0,
    }
    method = prepared(HalfFineTunedInference(), task)
    output = method.run()
    output.model.model.norm = torch.nn.LayerNorm(16, bias=False)
    assert task.score(method.work, output)["same_architecture"] == 0.0


@pytest.mark.parametrize("penalty", [1.0, 30.0, 1000.0])
def test_freezing_is_the_limit_of_a_penalty(penalty: float) -> None:
    task = QuadraticStage(blocks=5, size=8)
    method = prepared(PenalisedQuadratic(penalty=penalty), task)
    work, theta = method.work, method.run()
    expected = work.goal.clone()
    expected[work.held] = (work.start + (work.goal - work.start) / (1 + 2 * penalty))[work.held]
    np.testing.assert_allclose(theta, expected, rtol=1e-8, atol=1e-8)
    assert task.score(work, theta)["held_shift"] == pytest.approx(1 / (1 + 2 * penalty), rel=1e-5)
    frozen = prepared(HalfFineTuningQuadratic(), task).run()
    assert torch.equal(frozen[work.held], work.start[work.held])
    np.testing.assert_allclose(frozen[~work.held], work.goal[~work.held], rtol=1e-10)
