"""Byte-level language models: text, windows, training, scoring, cache."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import MissingData, MissingModel
from harness.seeding import torch_generator
from methods.common import language_model as lm
from tests.conftest import needs_data

SMALL = lm.Recipe(
    corpora=(lm.STANDARD_LIBRARY,), cap=60_000, hidden=16, feed_forward=40, layers=2, heads=2, context=16,
    steps=60, batch=8, lr=1e-2,
)  # fmt: skip


def small(seed: int = 0) -> torch.nn.Module:
    return lm.llama(256, 16, 40, 2, 2, 16, seed=seed)


def test_default_shape_has_the_stated_number_of_parameters() -> None:
    model = lm.llama()
    assert sum(p.numel() for p in model.parameters()) == 857_216
    assert lm.Recipe(corpora=("python-stdlib",)).parameters() == 857_216
    tied = dataclasses.replace(SMALL, tied=True)
    assert sum(p.numel() for p in tied.fresh().parameters()) == tied.parameters()


def test_weights_depend_on_the_seed_alone_and_leave_global_randomness_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = small(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = small(seed=3), small(seed=4)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_hidden_must_divide_by_heads() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        lm.llama(hidden=10, heads=4)


def test_standard_library_text_is_capped_and_has_no_tests() -> None:
    text = lm.corpus(lm.STANDARD_LIBRARY, 50_000)
    assert text.dtype == torch.uint8
    assert text.shape == (50_000,)
    assert "def " in lm.decode(text)
    longer = lm.corpus(lm.STANDARD_LIBRARY, 60_000)
    assert torch.equal(longer[:50_000], text)


def test_unknown_corpora_are_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    with pytest.raises(MissingData, match="nothing"):
        lm.corpus("nothing/here.txt")
    with pytest.raises(ValueError, match="data set"):
        lm.corpus("nothing")


def test_corpora_of_data_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_bytes("für\r\n".encode())
    (tmp_path / "set" / "b.jsonl").write_text('{"code": "x = 1"}\n{"code": "y = 2"}\n')
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    assert lm.corpus("set/a.txt").tolist() == list("für\r\n".encode())
    assert lm.decode(lm.corpus("set/b.jsonl#code")) == "x = 1\n\ny = 2"
    assert lm.corpus("set/a.txt", 2).tolist() == [102, 195]


@needs_data("gutenberg-novels")
def test_compressed_novel() -> None:
    assert len(lm.corpus("gutenberg-novels/war-and-peace.txt.gz")) > 3_000_000


def test_split_keeps_the_end() -> None:
    train, held = lm.split(torch.arange(100), 0.05)
    assert train.tolist() == list(range(95))
    assert held.tolist() == list(range(95, 100))
    with pytest.raises(ValueError, match="share"):
        lm.split(torch.arange(100), 0.0)


def test_windows_are_slices_and_reach_both_ends() -> None:
    text = torch.arange(20, dtype=torch.uint8)
    drawn = lm.windows(text, 400, 6, torch_generator(0, "windows"))
    assert drawn.dtype == torch.int64
    assert torch.equal(drawn, drawn[:, :1] + torch.arange(6))
    assert drawn[:, 0].min() == 0
    assert drawn[:, 0].max() == 14
    assert torch.equal(drawn, lm.windows(text, 400, 6, torch_generator(0, "windows")))
    with pytest.raises(ValueError, match="no window"):
        lm.windows(text, 1, 21, torch_generator(0, "windows"))


@given(text=st.text(max_size=40))
def test_encode_and_decode_are_inverse(text: str) -> None:
    assert lm.decode(lm.encode(text)) == text


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 40), context=st.integers(1, 12), batch=st.integers(1, 3))
def test_bits_per_byte_is_the_sum_over_single_bytes(length: int, context: int, batch: int) -> None:
    """Against one forward pass per byte with the context that the definition gives it."""
    model = small()
    text = torch.randint(256, (length,), generator=torch_generator(length, "text"))
    line = torch.cat([torch.tensor([lm.START]), text])
    total = 0.0
    for i in range(length):
        start = i // context * context
        if start + context > length:
            start = max(0, length - context)
        logits = model(input_ids=line[None, start : i + 1]).logits[0, -1]
        total -= F.log_softmax(logits, -1)[text[i]].item()
    expected = total / math.log(2) / length
    assert lm.bits_per_byte(model, text, context, batch) == pytest.approx(expected, rel=1e-5)


def test_uniform_model_has_eight_bits() -> None:
    model = small()
    torch.nn.init.zeros_(model.lm_head.weight)
    assert lm.bits_per_byte(model, lm.corpus(lm.STANDARD_LIBRARY, 100), 16) == pytest.approx(8.0)


def test_schedules() -> None:
    assert [lm.rate(s, 4, "constant") for s in range(4)] == [1.0] * 4
    assert [lm.rate(s, 4, "linear") for s in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert lm.rate(2, 4, "cosine") == pytest.approx(0.5)
    warm = [lm.rate(s, 10, "constant", 0.3) for s in range(10)]
    assert warm[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_fit_with_plain_gradient_descent_is_gradient_descent() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = lm.fit(
        model, optimizer, lambda _: model.weight.square().sum() / 2, steps=3, schedule="constant", clip=None
    )
    assert losses.tolist() == pytest.approx([2.0, 2.0 * 0.81, 2.0 * 0.81**2])
    assert model.weight.item() == pytest.approx(2.0 * 0.9**3)
    assert model.weight.grad is None
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_pretrained_learns_is_repeatable_and_is_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lm.pretrained(SMALL, cache=tmp_path)
    held = SMALL.parts()[0][1][:800]
    fresh = lm.bits_per_byte(SMALL.fresh(), held, SMALL.context)
    assert lm.bits_per_byte(model, held, SMALL.context) < fresh - 1.0
    twin = lm.pretrained(SMALL, cache=tmp_path / "elsewhere")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    monkeypatch.setattr(lm, "_train", lambda *_: pytest.fail("trained again"))
    cached = lm.pretrained(SMALL, cache=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), cached.parameters(), strict=True))


def test_another_text_is_another_model(tmp_path: Path) -> None:
    recipe = dataclasses.replace(SMALL, steps=1)
    lm.pretrained(recipe, cache=tmp_path)
    lm.pretrained(dataclasses.replace(recipe, cap=59_000), cache=tmp_path)
    lm.pretrained(dataclasses.replace(recipe, seed=1), cache=tmp_path)
    assert len(list(tmp_path.glob("byte-llama-*.json"))) == 3


def test_tied_model_goes_through_the_cache(tmp_path: Path) -> None:
    recipe = dataclasses.replace(SMALL, steps=1, tied=True)
    model = lm.pretrained(recipe, cache=tmp_path)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_missing_model_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(MissingModel, match="no-such-model"):
        lm.from_hub(str(tmp_path / "no-such-model"))


def test_saved_model_is_loaded_by_path(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: F401

    model = small()
    model.save_pretrained(tmp_path)
    vocabulary = {chr(i + 256): i for i in range(256)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary)))
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = lm.from_hub(str(tmp_path))
    tokens = torch.arange(10)[None]
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)
