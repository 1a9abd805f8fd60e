"""lm-eval over byte-level models gives what direct computation gives."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance

from harness.seeding import rng
from methods.common import language_model as lm
from methods.common.lm_evaluation import (
    HELD_OUT_TEXT,
    MULTIPLE_CHOICE,
    ByteLM,
    LocalTask,
    evaluate,
    hugging_face_lm,
    write_lines,
)

CONTEXT = 16
MODEL = lm.llama(256, 16, 40, 2, 2, CONTEXT)


def request(kind: str, *arguments: object) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def nats(line: list[int], start: int, context: int) -> float:
    """log p(line[start:]) by one forward pass over what fits."""
    window = line[max(0, len(line) - 1 - context) :]
    kept = len(line) - start
    logits = MODEL(input_ids=torch.tensor([window[:-1]])).logits[0, -kept:]
    return -F.cross_entropy(logits, torch.tensor(line[start:]), reduction="sum").item()


@settings(max_examples=25, deadline=None)
@given(
    before=st.text(max_size=20),
    after=st.text(alphabet="abcé", min_size=1, max_size=8),
    batch=st.integers(1, 3),
)
def test_continuation_after_context(before: str, after: str, batch: int) -> None:
    model = ByteLM(MODEL, CONTEXT, batch)
    requests = [request("loglikelihood", before, after), request("loglikelihood", "", "a longer one")]
    (value, _), _ = model.loglikelihood(requests)
    given_bytes = list(before.encode()) or [lm.START]
    assert value == pytest.approx(nats(given_bytes + list(after.encode()), len(given_bytes), CONTEXT), rel=1e-5)


def test_long_continuation_is_scored_in_pieces() -> None:
    text = "It was the best of times, it was the worst."
    (value, greedy), *_ = ByteLM(MODEL, CONTEXT).loglikelihood([request("loglikelihood", "ab", text)])
    line = list(("ab" + text).encode())
    pieces = range(2, len(line), CONTEXT // 2)
    expected = sum(nats(line[: min(p + CONTEXT // 2, len(line))], p, CONTEXT) for p in pieces)
    assert value == pytest.approx(expected, rel=1e-5)
    assert greedy is False


def test_greedy_continuation_is_recognised() -> None:
    model = ByteLM(MODEL, CONTEXT)
    with torch.no_grad():
        best = MODEL(input_ids=torch.tensor([list(b"abc")])).logits[0, -1, :128].argmax().item()
        top = MODEL(input_ids=torch.tensor([list(b"abc")])).logits[0, -1].argmax().item()
    other = chr((best + 1) % 128)
    answers = model.loglikelihood(
        [request("loglikelihood", "abc", chr(best)), request("loglikelihood", "abc", other)]
    )
    assert answers[0][1] is (best == top)
    assert answers[1][1] is False


def test_bits_per_byte_equals_direct_computation(tmp_path: Path) -> None:
    texts = {"long": "It was a dark and stormy night — 42.\r\n" * 5, "short": "x\n"}
    tasks = [
        LocalTask(name, HELD_OUT_TEXT, write_lines(tmp_path / f"{name}.jsonl", [{"text": text}]))
        for name, text in texts.items()
    ]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    results = evaluate(ByteLM(MODEL, CONTEXT, batch=4), tasks)
    assert torch.equal(torch.get_rng_state(), before)
    for name, text in texts.items():
        direct = lm.bits_per_byte(MODEL, lm.encode(text), CONTEXT)
        assert results[name]["bits_per_byte"] == pytest.approx(direct, rel=1e-6)
        assert results[name]["byte_perplexity"] == pytest.approx(2**direct, rel=1e-6)
    words = len(texts["long"].split()) + 1  # lm-eval counts the empty string after the last blank
    total = results["long"]["bits_per_byte"] * len(texts["long"].encode()) * math.log(2)
    assert results["long"]["word_perplexity"] == pytest.approx(math.exp(total / words), rel=1e-6)


def test_multiple_choice_equals_direct_computation(tmp_path: Path) -> None:
    random = rng(0, "choices")
    rows = [
        {
            "query": "".join(chr(c) for c in random.integers(97, 123, 6)),
            "choices": ["".join(chr(c) for c in random.integers(97, 123, n)) for n in (3, 4, 5)],
            "label": int(random.integers(3)),
        }
        for _ in range(20)
    ]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    result = evaluate(ByteLM(MODEL, CONTEXT), [LocalTask("choice", MULTIPLE_CHOICE, file)])["choice"]
    right = normed = 0
    for row in rows:
        scores = [nats(list((row["query"] + c).encode()), 6, CONTEXT) for c in row["choices"]]
        right += max(range(3), key=scores.__getitem__) == row["label"]
        each = [score / len(choice) for score, choice in zip(scores, row["choices"], strict=True)]
        normed += max(range(3), key=each.__getitem__) == row["label"]
    assert result["acc"] == pytest.approx(right / 20)
    assert result["acc_norm"] == pytest.approx(normed / 20)
    fewer = evaluate(ByteLM(MODEL, CONTEXT), [LocalTask("choice", MULTIPLE_CHOICE, file)], limit=1)
    assert fewer["choice"]["acc"] in (0.0, 1.0)


def test_generation_is_greedy_and_stops() -> None:
    # Most of an untrained model's bytes are not text, so one that prefers letters is used.
    model = lm.llama(256, 16, 40, 2, 2, CONTEXT)
    model.model.embed_tokens.weight.data *= 50
    model.lm_head.weight.data *= 50
    model.lm_head.weight.data[123:] = 0
    model.lm_head.weight.data[:97] = 0
    byte_lm = ByteLM(model, CONTEXT)
    line = list(b"abcd")
    with torch.no_grad():
        for _ in range(8):
            line.append(int(model(input_ids=torch.tensor([line])).logits[0, -1].argmax()))
    expected = lm.decode(line[4:])
    (text,) = byte_lm.generate_until([request("generate_until", "abcd", {"until": [], "max_gen_toks": 8})])
    assert text == expected
    assert len(set(expected)) > 2
    stop = expected[3]
    (cut,) = byte_lm.generate_until(
        [request("generate_until", "abcd", {"until": [stop], "max_gen_toks": 8, "temperature": 0})]
    )
    assert cut == expected[: expected.find(stop)]
    with pytest.raises(ValueError, match="beams"):
        byte_lm.generate_until([request("generate_until", "abcd", {"beams": 4})])


def test_hugging_face_model_runs_the_same_task(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=alphabet[0])
    file = write_lines(tmp_path / "text.jsonl", [{"text": "A short text."}])
    task = LocalTask("text", HELD_OUT_TEXT, file)
    value = evaluate(hugging_face_lm(MODEL, tokenizer), [task])["text"]["bits_per_byte"]
    tokens = tokenizer("A short text.", add_special_tokens=False)["input_ids"]
    line = [tokenizer.eos_token_id, *tokens]
    assert value == pytest.approx(-nats(line, 1, CONTEXT) / 13 / math.log(2), rel=1e-5)
