"""Part B of Making the Most of your Model: a masked language model as a non-autoregressive translator."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from harness.errors import MissingModel, RequestError
from harness.testing import run_once
from methods.decoding.making_the_most.baselines import AutoregressiveTranslator
from methods.decoding.making_the_most.denoising import (
    Batch,
    corrupted,
    greedy,
    masked_loss,
    next_token_loss,
    plain_ids,
    refine,
    sundae_loss,
)
from methods.decoding.making_the_most.masked_models import load_masked
from methods.decoding.making_the_most.method import DenoisingTranslator
from methods.decoding.making_the_most.pairs import byte_tokens, padded, restoring_pairs, subword_tokens
from methods.decoding.making_the_most.seq2seq import OFFSETS, Translator, bert
from methods.decoding.making_the_most.tasks import PairTranslation
from tests.conftest import needs_data

TOKENS = byte_tokens()
PLAIN = plain_ids(TOKENS)


def mlm() -> Any:
    """A tiny BERT with random weights."""
    return bert(TOKENS.size, 16, 2, 2, 24).eval()


def batch() -> Batch:
    """Two pairs of different lengths."""
    pairs = [("helloworld", "Hello world"), ("ab", "A b")]
    source = padded([TOKENS.encode(a) for a, _ in pairs], TOKENS.pad)
    return Batch(*source, *padded([TOKENS.encode(b) for _, b in pairs], TOKENS.pad))


def stream() -> torch.Generator:
    """A generator that begins anew."""
    return torch.Generator().manual_seed(0)


def test_corruption() -> None:
    """alpha = 0 changes nothing (check 3), alpha = 1 draws everything anew, and never a special id."""
    target = batch().target
    zero = torch.zeros(2)
    assert torch.equal(corrupted(target, zero, PLAIN, stream()), target)
    all_new = corrupted(target.repeat(50, 20), torch.ones(100), PLAIN, stream())
    assert all_new.min() >= 4
    assert (all_new == target.repeat(50, 20)).float().mean() < 0.05
    half = corrupted(target.repeat(50, 20), torch.full((100,), 0.5), PLAIN, stream())
    assert (half != target.repeat(50, 20)).float().mean() == pytest.approx(0.5, abs=0.05)


def test_the_decoder_begins_as_the_masked_model() -> None:
    """With cross-attention's output at zero the logits are the masked model's, whatever the source (check 3)."""
    model, both = mlm(), batch()
    translator = Translator(model, "mlm").eval()
    with torch.no_grad():
        translator.encode(both.source, both.source_mask)
        first = translator.decode(both.target, both.target_mask)
        translator.encode(both.source.flip(1), both.source_mask.flip(1))
        second = translator.decode(both.target, both.target_mask)
        plain = model(input_ids=both.target, attention_mask=both.target_mask.long()).logits
        assert torch.equal(first, second)
        torch.testing.assert_close(first[both.target_mask], plain[both.target_mask], atol=1e-5, rtol=1e-4)
        # With a projection that is not zero the source counts, and what is padding does not.
        for cross in translator.cross:
            torch.nn.init.normal_(cross.out.weight)
        third = translator.decode(both.target, both.target_mask)
        changed = both.source.flip(1).masked_fill(~both.source_mask.flip(1), 77)
        translator.encode(changed, both.source_mask.flip(1))
        fourth = translator.decode(both.target, both.target_mask)
    assert not torch.allclose(third, second, atol=1e-3)
    torch.testing.assert_close(third, fourth)


def test_initialisations_differ_in_what_they_copy() -> None:
    """Both halves, the encoder alone, nothing."""
    model = mlm()
    key = "encoder.layer.0.attention.self.query.weight"
    for initial, encoder, decoder in (("mlm", True, True), ("encoder", True, False), ("random", False, False)):
        translator = Translator(model, initial, seed=3)  # type: ignore[arg-type]
        expected = model.base_model.state_dict()[key]
        assert torch.equal(translator.encoder.base_model.state_dict()[key], expected) is encoder
        assert torch.equal(translator.decoder.base_model.state_dict()[key], expected) is decoder


def test_the_bidirectional_decoder_sees_both_sides_and_the_causal_one_does_not() -> None:
    """A later token changes earlier logits only without the causal mask."""
    both = batch()
    other = both.target.clone()
    other[0, 8] = 200
    for autoregressive in (False, True):
        translator = Translator(mlm(), "mlm", autoregressive=autoregressive).eval()
        with torch.no_grad():
            translator.encode(both.source, both.source_mask)
            a, b = (translator.decode(x, both.target_mask)[0, :8] for x in (both.target, other))
        assert torch.allclose(a, b, atol=1e-6) is autoregressive


def test_the_loss_is_finite_and_its_draw_detached() -> None:
    """All-random x0 (check 3); the first term's gradient is not that of the draw; the length's goes to its head alone."""
    translator, both = Translator(mlm(), "mlm"), batch()
    loss, length = sundae_loss(translator, both, PLAIN, stream(), torch.ones(2), torch.tensor([0, 1, 2, 3]))
    assert torch.isfinite(loss)
    assert torch.isfinite(length)
    # From uniform logits both terms are log of the vocabulary.
    assert float(loss.detach()) == pytest.approx(math.log(TOKENS.size), rel=0.3)
    encoder = [p for p in translator.encoder.parameters() if p.requires_grad]
    assert all(g is None for g in torch.autograd.grad(length, encoder, retain_graph=True, allow_unused=True))
    head = torch.autograd.grad(length, translator.length.weight)[0]
    assert (head != 0).any()
    # alpha = 0: the first term is the cross-entropy of the clean target, so without a second draw that is known.
    translator.eval()
    with torch.no_grad():
        clean = translator.decode(both.target, both.target_mask)
        expected = F.cross_entropy(clean[both.target_mask], both.target[both.target_mask])
        twice = [
            float(sundae_loss(translator, both, PLAIN, torch.Generator().manual_seed(s), torch.zeros(2))[0])
            for s in (1, 2)
        ]
    assert twice[0] != twice[1]
    assert abs(twice[0] - float(expected)) < 1.5


def test_refinement_writes_plain_tokens_of_the_wanted_length() -> None:
    """Given lengths, predicted lengths, and a model that knows the answer."""
    translator, both = Translator(mlm(), "random", seed=2).eval(), batch()
    rows = refine(translator, both.source, both.source_mask, PLAIN, stream(), lengths=torch.tensor([5, 2]))
    assert [len(row) for row in rows] == [5, 2]
    assert all(i >= 4 for row in rows for i in row)
    with torch.no_grad():
        translator.length.bias[OFFSETS + 3] = 100.0
    rows = refine(translator, both.source, both.source_mask, PLAIN, stream(), candidates=1, longest=20)
    assert [len(row) for row in rows] == [13, 5]
    # A candidate is a row of its own: the source is repeated beside it.
    rows = refine(
        translator, both.source, both.source_mask, PLAIN, stream(), candidates=3, longest=20, temperature=0.5
    )
    assert len(rows) == 2
    # Where the decoder always says "x", one pass writes it everywhere.
    with torch.no_grad():
        translator.decoder.cls.predictions.bias[TOKENS.encode("x")[0]] = 1000.0
    rows = refine(
        translator, both.source, both.source_mask, PLAIN, stream(), passes=1, lengths=torch.tensor([3, 4])
    )
    assert [TOKENS.decode(row) for row in rows] == ["xxx", "xxxx"]


def test_greedy_decoding_with_a_cache_is_greedy_decoding() -> None:
    """Against a full forward pass for each token, for BERT's shape."""
    translator, both = Translator(mlm(), "random", autoregressive=True, seed=5).eval(), batch()
    for cross in translator.cross:
        torch.nn.init.normal_(cross.out.weight, std=0.3)
    rows = greedy(translator, both.source, both.source_mask, TOKENS, 8)
    with torch.no_grad():
        translator.encode(both.source, both.source_mask)
        written = torch.full((2, 1), TOKENS.start)
        for _ in range(8):
            logits = translator.decode(written, torch.ones_like(written, dtype=torch.bool))
            written = torch.cat([written, logits[:, -1].argmax(-1, keepdim=True)], 1)
    for row, expected in zip(rows, written[:, 1:].tolist(), strict=True):
        assert row == (expected[: expected.index(TOKENS.end)] if TOKENS.end in expected else expected)


def test_autoregressive_training_learns_to_stop() -> None:
    """A handful of steps on one batch: the loss falls and the output is the target, with its end."""
    translator, both = Translator(bert(TOKENS.size, 32, 1, 2, 24), "random", autoregressive=True), batch()
    optimizer = torch.optim.Adam(translator.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = next_token_loss(translator, both, TOKENS)
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.1
    rows = greedy(translator.eval(), both.source, both.source_mask, TOKENS, 15)
    assert [TOKENS.decode(row) for row in rows] == ["Hello world", "A b"]


def test_masked_loss_is_that_of_the_masked_tokens() -> None:
    """A model that copies is right but for what is masked or random: the loss counts chosen places alone."""
    both = batch()
    seen: list[Any] = []

    def copying(input_ids: Any, attention_mask: Any) -> Any:
        seen.append(input_ids)
        logits = 50.0 * F.one_hot(input_ids, TOKENS.size).float()
        return type("Out", (), {"logits": logits})

    loss = masked_loss(copying, both.target, both.target_mask, TOKENS, PLAIN, stream(), 0.5)
    changed = (seen[0] != both.target) & both.target_mask
    chosen = (torch.rand(both.target.shape, generator=stream()) < 0.5) & both.target_mask
    assert (changed <= chosen).all()
    assert float(loss) == pytest.approx(50.0 * float(changed.sum() / chosen.sum()), rel=1e-3)


@pytest.mark.parametrize("shape", ["bert", "roberta"])
def test_a_masked_model_by_its_folder(tmp_path: Any, shape: str) -> None:
    """A tiny model of transformers and its tokenizer, saved and named; losses of both decoders are finite."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

    words = ["<s>", "<pad>", "</s>", "<mask>", "<unk>", *"abcdefgh"]
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        mask_token="<mask>",
        unk_token="<unk>",
    )
    if shape == "bert":
        model = bert(len(words) + 3, 16, 2, 2, 24)
        model.config.pad_token_id = 1
    else:
        config = RobertaConfig(
            vocab_size=len(words) + 3, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=26, type_vocab_size=1,
        )  # fmt: skip
        model = RobertaForMaskedLM(config)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    masked = load_masked(str(tmp_path), [])
    assert masked.positions == 24
    assert masked.tokens.mask == 3
    ids = plain_ids(masked.tokens)
    assert set(ids.tolist()) == set(range(5, 13))
    rows = [masked.tokens.encode("a b c d"), masked.tokens.encode("e f")]
    both = Batch(*padded(rows, masked.tokens.pad), *padded(rows[::-1], masked.tokens.pad))
    nar, ar = Translator(masked.model, "mlm"), Translator(masked.model, "mlm", autoregressive=True)
    assert torch.isfinite(sundae_loss(nar, both, ids, stream())[0])
    assert torch.isfinite(next_token_loss(ar, both, masked.tokens))
    assert len(greedy(ar.eval(), both.source, both.source_mask, masked.tokens, 6)) == 2
    assert len(refine(nar.eval(), both.source, both.source_mask, ids, stream(), longest=20)) == 2


def test_what_is_refused(tmp_path: Any) -> None:
    """A model that is nowhere, and a decoder without a source."""
    with pytest.raises(MissingModel, match="cannot be loaded"):
        load_masked(str(tmp_path / "nothing"), [])
    with pytest.raises(RequestError, match="no source"):
        Translator(mlm(), "mlm").decode(batch().target, batch().target_mask)


def test_subwords_spell_their_texts(tmp_path: Any) -> None:
    """Encoding and decoding are inverse, and no text has a special id."""
    texts = ["public void f() {return x;}", "public override void F(){return x;}"] * 5
    tokens = subword_tokens(texts, 300, tmp_path)
    for text in texts:
        ids = tokens.encode(text)
        assert tokens.decode(ids) == text
        assert min(ids) >= 4
    assert tokens.size <= 300


@needs_data("gutenberg-novels")
def test_pairs_and_methods(tmp_path: Any) -> None:
    """Snippets have 24 to 32 bytes and their sources no spaces; both translators measure what they declare."""
    for source, target in restoring_pairs(20, 0, True):
        assert 24 <= len(target) <= 32
        assert source == target.lower().replace(" ", "")
    assert restoring_pairs(5, 0, True) == restoring_pairs(5, 0, True) != restoring_pairs(5, 1, True)
    task = PairTranslation(mlm="tiny-mlm", count=60, test=4, steps=1, batch=4, together=3)
    for method in (DenoisingTranslator(passes=2), AutoregressiveTranslator()):
        metrics = run_once(method, task, cache=tmp_path).metrics
        assert 0 <= metrics["token_accuracy"] <= 1
        assert metrics["validation_loss"] > 0
    with pytest.raises(RequestError, match="positions"):
        run_once(
            DenoisingTranslator(), PairTranslation(mlm="tiny-mlm", count=60, test=4, longest=64), cache=tmp_path
        )
