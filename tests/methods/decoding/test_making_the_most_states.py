"""Parts A and C of Making the Most of your Model: recurrence and hidden-state optimisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import BadOutput, RequestError
from harness.seeding import rng
from harness.testing import run_once
from methods.decoding.making_the_most import domains, labelling, scores
from methods.decoding.making_the_most.baselines import DynamicEvaluation, PlainPrompt
from methods.decoding.making_the_most.dynamic_evaluation import dynamic_evaluation
from methods.decoding.making_the_most.few_shot import Episodes, Learner, question_episodes, symbol_map
from methods.decoding.making_the_most.hidden_state import Slots, Update, adapted, score
from methods.decoding.making_the_most.memory import peak_bytes
from methods.decoding.making_the_most.method import HiddenStateOptimisation, OptimisedPrompt, RecurrentWindows
from methods.decoding.making_the_most.recurrence import Reader, finetune
from methods.decoding.making_the_most.states import CausalModel, Decoder, PretrainedDecoder, slots
from methods.decoding.making_the_most.tasks import FewShotLabels, SegmentScoring, WindowReading
from methods.decoding.making_the_most.work import Nats, Piece, Reading, ReadingWork, SegmentWork
from tests.conftest import needs_data


def gpt2() -> Any:
    """A tiny GPT-2 with random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=50, n_positions=24, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config).eval()


def model_of(kind: str) -> CausalModel:
    """One of three shapes, tiny."""
    if kind == "alibi":
        return Decoder(50, 16, 2, 2, seed=1).eval()
    if kind == "gpt2":
        return PretrainedDecoder(gpt2())
    from methods.common.language_model import llama

    return PretrainedDecoder(llama(50, 16, 32, 2, 2, 24, seed=1))


KINDS = pytest.mark.parametrize("kind", ["alibi", "gpt2", "llama"])


def tokens(rows: int, n: int) -> Tensor:
    """Random tokens."""
    return torch.from_numpy(rng(0, "tokens").integers(50, size=(rows, n)))


@KINDS
def test_cached_states_change_nothing(kind: str) -> None:
    """A pass in pieces equals one pass, and for models of transformers the library's own."""
    model, x = model_of(kind), tokens(2, 12)
    with torch.no_grad():
        whole = model(model.embed(x))
        first = model(model.embed(x[:, :7]))
        second = model(model.embed(x[:, 7:]), first.states, start=7)
    torch.testing.assert_close(torch.cat([first.logits, second.logits], 1), whole.logits, atol=1e-5, rtol=1e-4)
    assert slots(second.states) == 12
    assert len(whole.hidden) == model.layers
    if isinstance(model, PretrainedDecoder):
        with torch.no_grad():
            torch.testing.assert_close(model.model(input_ids=x).logits, whole.logits, atol=1e-5, rtol=1e-4)


@KINDS
def test_with_its_vector_masked_out_the_recurrence_is_the_base_model(kind: str) -> None:
    """f = 0 gives r = 0, and a masked r leaves the logits alone (check 1)."""
    model, x = model_of(kind), tokens(3, 9)
    reader = Reader(model, "recurrence", 8)
    with torch.no_grad():
        masked, r = reader.recurrent(x, reader.first(3), masked=True)
        seen, _ = reader.recurrent(x, reader.first(3))
        logits = model(model.embed(x[:, :-1])).logits
    plain = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="none").view(3, 8)
    torch.testing.assert_close(masked, plain, atol=1e-5, rtol=1e-4)
    assert (r == 0).all()
    assert not torch.allclose(seen, plain, atol=1e-4)


@KINDS
def test_gradients_cross_windows_with_recurrence_only(kind: str) -> None:
    """The loss of window 2 depends on the embeddings of window 1 through r, and not at all without (check 1)."""
    model, x = model_of(kind), tokens(2, 9)
    original, seen = model.embed, []

    def embed(ids: Tensor) -> Tensor:
        seen.append(original(ids).detach().requires_grad_())
        return seen[-1]

    model.embed = embed  # type: ignore[method-assign]
    modes: list[Any] = ["plain", "recurrence", "cache"] if model.positions is None else ["plain", "recurrence"]
    for mode in modes:
        seen.clear()
        reader = Reader(model, mode, 4, 4 if mode == "cache" else 0)
        reader.checkpointing = False
        if reader.f is not None:  # away from its zero start, where r does not move
            torch.nn.init.normal_(reader.f.down.weight)
        second = reader.windows(x)[1].sum()
        found = torch.autograd.grad(second, seen[0], allow_unused=True)[0]
        assert (found is not None and bool((found != 0).any())) == (mode == "recurrence"), mode


@pytest.mark.parametrize("checkpointing", [True, False])
def test_gradients_through_the_recurrence_are_differences(checkpointing: bool) -> None:
    """The third window's loss along its own gradient, by f and by the decoder's weights, against a central difference.

    With r cut off between the windows the gradient would be another one; that it would is checked, too.
    """
    reader, x = Reader(Decoder(50, 16, 2, 2, seed=1), "recurrence", 4), tokens(3, 13)
    reader.checkpointing = checkpointing
    assert reader.f is not None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.nn.init.normal_(reader.f.down.weight, std=0.3)

    def loss() -> Tensor:
        return reader.windows(x)[2].mean()

    for part in (reader.f, reader.model):
        parameters = list(part.parameters())
        gradient = torch.autograd.grad(loss(), parameters, materialize_grads=True, allow_unused=True)
        size = float(torch.cat([g.flatten() for g in gradient]).norm())
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, g in zip(parameters, gradient, strict=True):
                    p += sign * 0.01 * g / size
                values.append(float(loss()))
                for p, g in zip(parameters, gradient, strict=True):
                    p -= sign * 0.01 * g / size
        assert (values[0] - values[1]) / 0.02 == pytest.approx(size, rel=0.01)
    # From window 1 to window 3 alone: what a gradient cut off after one window would lack.
    _, r = reader.recurrent(x[:, :5], reader.first(3))
    _, second = reader.recurrent(x[:, 4:9], r)
    nats, _ = reader.recurrent(x[:, 8:13], second)
    through = torch.autograd.grad(nats.mean(), r)[0]
    assert float(through.norm()) > 1e-4


def test_one_windows_activations_are_kept_and_the_gradients_are_the_same() -> None:
    """Peak memory does not grow with the number of windows (check 2); gradients are those of the plain graph.

    Window by window, backwards, it is little more than that of a plain window with one token more.
    """
    reader = Reader(Decoder(64, 32, 2, 2, seed=0), "recurrence", 16)
    assert reader.f is not None
    torch.nn.init.normal_(reader.f.down.weight, std=0.1)
    peaks: dict[tuple[bool | str, int], int] = {}
    for checkpointing in (True, False):
        reader.checkpointing = checkpointing
        for count in (2, 8):
            x = torch.from_numpy(rng(1, "x").integers(64, size=(8, 16 * count + 1)))
            reader.accumulate(x)  # so that the gradients' buffers are there
            peaks[checkpointing, count] = peak_bytes(lambda x=x: reader.loss(x).backward())
            peaks["apart", count] = peak_bytes(lambda x=x: reader.accumulate(x))
    assert peaks[True, 8] < 1.1 * peaks[True, 2]
    assert peaks[False, 8] > 2 * peaks[False, 2]
    assert peaks["apart", 8] < 1.1 * peaks["apart", 2]
    one_more = Reader(reader.model, "plain", 17)
    assert peaks["apart", 8] < 1.1 * peak_bytes(lambda: one_more.accumulate(x[:, :35]))
    gradients = []
    for checkpointing in (True, False, None):
        reader.checkpointing = bool(checkpointing)
        reader.zero_grad(set_to_none=True)
        if checkpointing is None:
            reader.accumulate(x)
        else:
            reader.loss(x).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in reader.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], gradients[2])


def test_ways_of_reading_agree_in_their_limits() -> None:
    """One window that holds everything is the model; overlap and cache see what they should; accumulation adds up."""
    model, x = Decoder(50, 16, 2, 2, seed=1), tokens(3, 13)
    with torch.no_grad():
        logits = model(model.embed(x[:, :-1])).logits
    whole = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="none").view(3, 12)
    torch.testing.assert_close(Reader(model, "plain", 12).read(x), whole)
    torch.testing.assert_close(Reader(model, "overlap", 4, 12).read(x), whole)
    # A cache of everything is the model too: each layer attends to all before it.
    torch.testing.assert_close(Reader(model, "cache", 4, 12).read(x), whole)
    overlap = Reader(model, "overlap", 4, 2).read(x)
    with torch.no_grad():
        logits = model(model.embed(x[:, 6:12])).logits[:, 2:]
    expected = F.cross_entropy(logits.flatten(0, 1), x[:, 9:13].flatten(), reduction="none").view(3, 4)
    torch.testing.assert_close(overlap[:, 8:], expected)
    modes: tuple[Any, ...] = ("plain", "overlap", "cache", "recurrence")
    for mode in modes:
        reader = Reader(model, mode, 4, 0 if mode in ("plain", "recurrence") else 4)
        found = []
        for compute in (lambda r=reader: r.loss(x).backward(), lambda r=reader: r.accumulate(x)):
            model.zero_grad(set_to_none=True)
            compute()
            found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-4)


def test_fine_tuning_moves_what_it_should() -> None:
    """The recurrence alone, or everything; the loss falls."""
    text = torch.arange(2000) % 7
    reader = Reader(Decoder(50, 16, 1, 2, seed=1), "recurrence", 4)
    before = [p.clone() for p in reader.model.parameters()]
    finetune(reader, text, steps=2, batch=4, windows=3, lr=1e-2, only="recurrence")
    assert all(torch.equal(a, b) for a, b in zip(before, reader.model.parameters(), strict=True))
    losses = finetune(reader, text, steps=30, batch=4, windows=3, lr=1e-2)
    assert losses[-1] < losses[0] - 1
    with pytest.raises(RequestError, match="no recurrence to train"):
        finetune(
            Reader(reader.model, "plain", 4), text, steps=1, batch=2, windows=2, lr=1e-2, only="recurrence"
        )


def test_flops_are_those_of_torch() -> None:
    """The count against torch's own counter, without normalisations and activations."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = Decoder(50, 16, 2, 2)
    x = tokens(1, 13)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        Reader(model, "plain", 12).read(x)
    # torch counts attention over the whole square, this project over what is seen.
    square = 4 * 16 * 2 * (144 - 12 * 13 / 2)
    assert Reader(model, "plain", 12).flops_per_token() * 12 == pytest.approx(
        counter.get_total_flops() - square, rel=0.1
    )


def test_what_a_reader_refuses() -> None:
    """A cache needs relative positions, contexts at least a token, and absolute positions end."""
    with pytest.raises(RequestError, match="relative positions"):
        Reader(PretrainedDecoder(gpt2()), "cache", 4, 4)
    with pytest.raises(RequestError, match="at least one token"):
        Reader(Decoder(50, 16, 1, 2), "overlap", 4)
    model = PretrainedDecoder(gpt2())
    with pytest.raises(RequestError, match="24 positions"):
        model(model.embed(tokens(1, 25)))
    with pytest.raises(RequestError, match="has no recurrence"):
        Reader(model, "plain", 4).recurrent(tokens(1, 5), torch.zeros(1, 16))


# --- C ---------------------------------------------------------------------------------------------


def frozen(kind: str) -> CausalModel:
    """A model whose weights have no gradients."""
    model = model_of(kind)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


@KINDS
def test_without_a_step_size_the_scores_are_plain(kind: str) -> None:
    """eta = 0 is plain inference (check 4); with a cache of everything that is one forward pass."""
    model, x = frozen(kind), tokens(3, 21)
    plain = score(model, x, segment=4, cache=24).nats
    torch.testing.assert_close(
        score(model, x, segment=4, cache=24, update=Update(0.0)).nats, plain, atol=1e-6, rtol=0
    )
    with torch.no_grad():
        logits = model(model.embed(x[:, :-1])).logits
    whole = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="none").view(3, 20)
    torch.testing.assert_close(plain, whole, atol=1e-5, rtol=1e-4)


@KINDS
def test_scores_never_see_the_future(kind: str) -> None:
    """Other tokens after segment j change nothing up to it (check 4); the first segment is not updated with itself."""
    model, x = frozen(kind), tokens(2, 21)
    y = x.clone()
    y[:, 13:] = (y[:, 13:] + 1) % 50
    update = Update(0.1)
    a = score(model, x, segment=4, cache=8, update=update).nats
    b = score(model, y, segment=4, cache=8, update=update).nats
    torch.testing.assert_close(a[:, :12], b[:, :12], atol=1e-6, rtol=0)
    assert not torch.allclose(a[:, 12:], b[:, 12:], atol=1e-3)
    plain = score(model, x, segment=4, cache=8).nats
    torch.testing.assert_close(a[:, :4], plain[:, :4], atol=1e-6, rtol=0)
    assert not torch.allclose(a[:, 4:8], plain[:, 4:8], atol=1e-4)


@KINDS
@pytest.mark.parametrize("rule", ["adam", "sgd"])
def test_a_small_update_lowers_the_loss_of_its_own_segment(kind: str, rule: Any) -> None:
    """The same segment again, after one update with eta = 1e-3 (check 4)."""
    model, x = frozen(kind), tokens(4, 13)
    with torch.no_grad():
        kept = Slots.fresh(model(model.embed(x[:, :8])).states)

    def loss(states: Any) -> Tensor:
        logits = model(model.embed(x[:, 8:12]), states, start=8).logits
        return F.cross_entropy(logits.flatten(0, 1), x[:, 9:13].flatten(), reduction="sum")

    leaves = [(k.requires_grad_(), v.requires_grad_()) for k, v in kept.states]
    before = loss(leaves)
    found = torch.autograd.grad(before, [t for pair in leaves for t in pair])
    moved = kept.moved(list(zip(found[::2], found[1::2], strict=True)), Update(1e-3, rule), 8)
    with torch.no_grad():
        assert loss(moved.states) < before


def test_moments_belong_to_their_slots() -> None:
    """Adam on each slot against torch's own, where one slot has had three updates and the other one."""
    update = Update(0.1, betas=(0.9, 0.99), epsilon=1e-4)
    stream = torch.Generator().manual_seed(0)
    value, other = (torch.randn(1, 1, 1, 3, generator=stream) for _ in range(2))
    kept = Slots.fresh([(value.clone(), value.clone())])
    gradients = [torch.randn(1, 1, 2, 3, generator=stream) for _ in range(3)]
    for g in gradients[:2]:
        kept = kept.moved([(g[:, :, :1], g[:, :, :1])], update, 1)
    both = torch.cat([kept.states[0][0], other], 2)
    kept = kept.extended([(both, both.clone())]).moved([(gradients[2], gradients[2])], update, 2)
    assert kept.steps.tolist() == [3, 1]
    for slot, start, seen in ((0, value, gradients), (1, other, gradients[2:])):
        parameter = torch.nn.Parameter(start[0, 0, 0].clone())
        adam = torch.optim.Adam([parameter], lr=0.1, betas=(0.9, 0.99), eps=1e-4)
        for g in seen:
            parameter.grad = g[0, 0, slot].clone()
            adam.step()
        torch.testing.assert_close(kept.states[0][0][0, 0, slot], parameter.detach())
    # Sliding drops the oldest slot with its moments, and an update may leave the newest alone.
    slid = kept.newest(1)
    assert slid.steps.tolist() == [1]
    assert torch.equal(slid.states[0][0], kept.states[0][0][:, :, 1:])
    still = kept.moved([(gradients[0], gradients[0])], update, 1)
    assert torch.equal(still.states[0][0][:, :, 1], kept.states[0][0][:, :, 1])
    assert still.steps.tolist() == [
        4,
        1,
    ]
    assert kept.bytes("adam") == 3 * kept.bytes("sgd")


def test_streams_do_not_meet() -> None:
    """A row alone has the scores that it has among others."""
    model, x = frozen("alibi"), tokens(3, 17)
    update = Update(0.1)
    together = score(model, x, segment=4, cache=8, update=update).nats
    torch.testing.assert_close(
        score(model, x[1:2], segment=4, cache=8, update=update).nats, together[1:2], atol=1e-4, rtol=1e-3
    )


def test_dynamic_evaluation_against_a_plain_loop() -> None:
    """Mapped over rows it is what a loop over copies of the model gives; without a step it is plain inference."""
    model, x = frozen("alibi"), tokens(2, 13)
    found = dynamic_evaluation(model, x, segment=4, cache=8, eta=0.1)
    torch.testing.assert_close(
        dynamic_evaluation(model, x, segment=4, cache=8, eta=0.0),
        score(model, x, segment=4, cache=8).nats,
        atol=1e-5,
        rtol=1e-4,
    )
    for row in range(2):
        own, past = Decoder(50, 16, 2, 2, seed=1), None
        optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
        for start in range(0, 12, 4):
            piece = x[row : row + 1, start : start + 5]
            out = own(own.embed(piece[:, :-1]), past)
            each = F.cross_entropy(out.logits[0], piece[0, 1:], reduction="none")
            torch.testing.assert_close(found[row, start : start + 4], each.detach(), atol=1e-5, rtol=1e-4)
            optimizer.zero_grad()
            each.mean().backward()
            optimizer.step()
            past = [(k[:, :, -8:].detach(), v[:, :, -8:].detach()) for k, v in out.states]
    slow = dynamic_evaluation(frozen("gpt2"), x, segment=4, cache=24, eta=0.0)
    assert slow.shape == (2, 12)


@KINDS
def test_a_prompts_first_update_is_that_of_its_cached_states(kind: str) -> None:
    """Offsets of zero are the states; a step lowers the prompt's own loss; no step leaves them alone."""
    model, x = frozen(kind), tokens(3, 9)
    weights = torch.ones(3, 8)
    plain = adapted(model, x, weights, Update(0.0), 0)
    inputs = model.embed(x)
    with torch.no_grad():
        for a, b in zip(plain, model(inputs).states, strict=True):
            torch.testing.assert_close(a[0], b[0])
    moved = adapted(model, x, weights, Update(1e-3), 3)
    assert not torch.equal(plain[0][0], moved[0][0])

    # The offsets of the first layer are the difference of the states there; a step along them lowers the loss.
    def loss(offsets: Any) -> float:
        with torch.no_grad():
            logits = model(inputs, offsets=offsets).logits[:, :-1]
        return float(F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="sum"))

    zeros = [(torch.zeros_like(k), torch.zeros_like(v)) for k, v in plain]
    first = [(moved[0][0] - plain[0][0], moved[0][1] - plain[0][1]), *zeros[1:]]
    assert loss(first) < loss(zeros)


def test_maps_show_the_query_once() -> None:
    """Labels are functions of the symbols, and the query's symbol occurs once among the demonstrations."""
    table, place = symbol_map(200, 8, 4, 12, rng(0, "maps"), once=True)
    symbols, labels = table[..., 0], table[..., 1]
    assert ((symbols[:, :-1] == symbols[:, -1:]).sum(1) == 1).all()
    assert (labels[np.arange(200), place] == labels[:, -1]).all()
    assert symbols.max() < 8
    assert labels.min() >= 8
    assert labels.max() < 12
    with pytest.raises(RequestError, match="two symbols"):
        symbol_map(1, 1, 4, 12, rng(0, "maps"), once=True)


def test_methods_of_few_shot_labels(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hardly trained learner guesses; optimised prompts run; the wrong model is refused."""
    monkeypatch.setattr(labelling, "Learner", lambda *sizes: Learner(*sizes, steps=1))
    task = FewShotLabels(episodes=20, symbols=4, labels=2, demonstrations=5)
    for method in (PlainPrompt(), OptimisedPrompt(steps=1), OptimisedPrompt(steps=1, everywhere=True)):
        assert 0 <= run_once(method, task, cache=tmp_path).metrics["accuracy"] <= 1
    with pytest.raises(RequestError, match="questions need a model"):
        FewShotLabels(source="mmlu-subset").load(0)


@needs_data("bigbench-lite-mc", "mmlu-subset")
def test_questions_come_with_demonstrations_of_their_own_task() -> None:
    """Both data sets, and a demand that no task meets."""
    for source in ("bigbench-lite-mc", "mmlu-subset"):
        episodes = question_episodes(source, 5, 3, rng(0, "episodes"))
        assert len(episodes) == 5
        assert all(len(prompt) == 3 for prompt in episodes.prompts)
        assert all(0 <= a < len(c) for a, c in zip(episodes.answers, episodes.candidates, strict=True))
    with pytest.raises(RequestError, match="no task"):
        question_episodes("mmlu-subset", 1, 10_000, rng(0, "episodes"))


@needs_data("gutenberg-novels", "java-cs-translation")
def test_methods_measure_what_they_declare(tmp_path: Any) -> None:
    """Every way of scoring and reading, untrained."""
    scoring = SegmentScoring(model="untrained", bytes=600, tuning=300, streams=4)
    for method in (HiddenStateOptimisation(etas=(0.0, 0.1)), DynamicEvaluation(etas=(0.0,))):
        metrics = run_once(method, scoring, cache=tmp_path).metrics
        assert 5 < metrics["far"] < 7
    reading = WindowReading(model="untrained", bytes=2000, streams=4, steps=1, batch=2, span=32)
    metrics = run_once(RecurrentWindows(), reading, cache=tmp_path).metrics
    assert metrics["training_memory"] > metrics["inference_memory"] > 0


def test_pieces_to_tune_on_and_to_score_never_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """One from each half of what is left of a text, at places of the stream's."""
    monkeypatch.setattr(domains, "corpus", lambda _: torch.arange(200, dtype=torch.uint8))
    pieces = [domains.piece_of("any", 100, 10, 20, rng(seed, "pieces")) for seed in range(20)]
    for piece in pieces:
        assert (len(piece.tuning), len(piece.scored)) == (10, 20)
        assert 100 <= piece.tuning[0] <= 140
        assert 150 <= piece.scored[0] <= 180
    assert len({int(piece.tuning[0]) for piece in pieces}) > 1
    with pytest.raises(RequestError, match="do not fit into its halves"):
        domains.piece_of("any", 100, 10, 51, rng(0, "pieces"))


def test_scores_refuse_what_is_missing() -> None:
    """A domain, much of a text, a label."""
    text = torch.zeros(100, dtype=torch.uint8)
    segments = SegmentWork("untrained", "float32", 1, {"far": Piece(text, text)})
    assert scores.of_segments(segments, Nats({"far": 200.0}, {"far": 100})) == {"far": 2.0}
    with pytest.raises(BadOutput, match="asked for were"):
        scores.of_segments(segments, Nats({"near": 200.0}, {"near": 100}))
    with pytest.raises(BadOutput, match="only 80 of 100 bytes of 'far'"):
        scores.of_segments(segments, Nats({"far": 200.0}, {"far": 80}))
    reading = ReadingWork("untrained", "float32", text, text, 1, 0, 1, 96, 0.001)
    assert scores.of_reading(reading, Reading(150.0, 100, 1.0, 2, 3))["nats_per_byte"] == 1.5
    with pytest.raises(BadOutput, match="only 80 of 100"):
        scores.of_reading(reading, Reading(150.0, 80, 1.0, 2, 3))
    episodes = Episodes([[], []], [0, 1], [[2, 3]] * 2, [0, 1])
    assert scores.of_labels(episodes, torch.tensor([0, 0])) == {"accuracy": 0.5}
    with pytest.raises(BadOutput, match="labels for 2 queries"):
        scores.of_labels(episodes, torch.tensor([0]))
