"""Segment Any Text's parts against the paper's arithmetic, brute force and limits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.text import sentence_data
from methods.text.marks import MARKS, corrupt, social, tidy, without_marks
from methods.text.segment_any_text import blocks, canine, costs, subwords, training, windows
from methods.text.segment_any_text import model as models
from methods.text.segment_any_text.model import Shape
from methods.text.segment_any_text.subwords import Pieces
from methods.text.segment_any_text.windows import Inference
from methods.text.sentence_views import (
    Scored,
    View,
    best_threshold,
    exact_at,
    f1,
    f1_at,
    inner,
    joined,
    views,
)
from tests.conftest import needs_data

WORDS = st.text(alphabet="abEF .,!\"'…—é", min_size=0, max_size=60)
SMALL = Shape(60, hidden=24, layers=3, heads=2, positions=200, auxiliary=False)


@pytest.fixture(scope="module")
def tokenizer():
    lines = [d.text[a:b] for d in sentence_data.opinions() for a, b in d.spans]
    return subwords.train([*lines, "Ab cd. Ef"], 500)


# --- lookahead --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 3, 5])
def test_no_output_depends_on_more_of_the_future_than_the_lookahead(layers):
    model = models.fresh(Shape(60, 24, layers, 2, positions=160, lookahead=48, auxiliary=False))
    ids = torch.randint(3, 60, (1, 150), generator=torch.Generator().manual_seed(0))
    model.double()  # so that what passes through every layer is more than rounding
    changed = ids.clone()
    changed[0, 100] = (ids[0, 100] - 2) % 57 + 3
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.inference_mode():
        differs = (model(ids, mask) != model(changed, mask)).any(-1)[0].nonzero().flatten()
    ahead = 48 // layers * layers
    assert ahead <= 48
    assert differs[0] >= 100 - ahead
    if layers <= 3:  # through more layers with small weights what is left is rounded off
        assert differs[0] == 100 - ahead
    assert differs[-1] == 149


def test_without_a_limit_the_first_outputs_change():
    model = models.fresh(Shape(60, 24, 3, 2, positions=160, lookahead=None, auxiliary=False))
    ids = torch.randint(3, 60, (1, 150), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[0, 100] = 3 if ids[0, 100] != 3 else 4
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.inference_mode():
        assert (model(ids, mask) != model(changed, mask)).any(-1)[0, 0]


def test_a_lookahead_longer_than_the_text_is_no_limit():
    ids = torch.randint(3, 60, (2, 40), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 30:] = False
    limited, free = (
        models.fresh(Shape(60, 24, 3, 2, positions=50, lookahead=n), seed=4) for n in (3 * 40, None)
    )
    with torch.inference_mode():
        torch.testing.assert_close(limited(ids, mask)[mask], free(ids, mask)[mask])


def test_visible_by_hand():
    mask = torch.tensor([[True, True, True, False]])
    expected = [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]]
    assert models.visible(mask, 1)[0, 0].int().tolist() == expected
    assert models.visible(mask, None)[0, 0].int().tolist() == [[1, 1, 1, 0]] * 4


def test_padding_changes_nothing():
    model = models.fresh(SMALL)
    ids = torch.randint(3, 60, (1, 30), generator=torch.Generator().manual_seed(2))
    padded = torch.cat([ids, torch.ones(1, 9, dtype=torch.int64)], 1)
    mask = torch.arange(39)[None] < 30
    with torch.inference_mode():
        alone = model(ids, torch.ones_like(ids, dtype=torch.bool))
        torch.testing.assert_close(model(padded, mask)[:, :30], alone, atol=1e-5, rtol=1e-5)


# --- labels and corruption --------------------------------------------------------------------------------------------


def test_a_line_end_is_the_label_of_the_token_before_it(tokenizer):
    pieces, marked = blocks.label(tokenizer, "Ab cd.\nEf")
    text = "Ab cd. Ef"
    (same,) = tokenizer.encode([text])
    # The input is that of the text with a blank: nothing is left of the line end.
    assert pieces.ids.tolist() == same.ids.tolist()
    assert "\n" not in tokenizer.tokenizer.decode(pieces.ids.tolist())
    assert marked.sum() == 1
    assert text[: pieces.ends[np.argmax(marked)]] == "Ab cd."
    assert tokenizer.tokenizer.id_to_token(int(pieces.ids[np.argmax(marked)])) == "."


def test_languages_without_blanks_have_none_for_a_line_end():
    tokenizer = subwords.train(["天気がいい。", "行こう。", "はい！"], 60)
    pieces, marked = blocks.label(tokenizer, "天気がいい。\n行こう。\nはい！\n", separator="")
    assert pieces.ids.tolist() == tokenizer.encode(["天気がいい。行こう。はい！"])[0].ids.tolist()
    assert pieces.ends[marked].tolist() == [6, 10, 13]


@given(st.lists(st.text(alphabet="aBc.é", min_size=1, max_size=8), min_size=1, max_size=8), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_line_end_has_its_label(tokenizer, lines, final):
    text = "\n".join(lines) + "\n" * final
    pieces, marked = blocks.label(tokenizer, text)
    ends = np.cumsum([len(line) + 1 for line in lines]) - 1
    assert pieces.ends[marked].tolist() == (ends if final else ends[:-1]).tolist()


def test_cut_texts_hold_all_words_and_fit(tokenizer):
    lines = [d.text[a:b] for d in sentence_data.opinions(documents=3) for a, b in d.spans]
    texts = blocks.cut(tokenizer, lines, 30)
    assert " ".join(texts).split() == " ".join(lines).split()
    assert sum(text.count("\n") for text in texts) == len(lines)
    lengths = [len(p.ids) for p in tokenizer.encode([t.replace("\n", " ").strip() for t in texts])]
    assert max(lengths) <= 30
    assert np.mean(lengths[:-1]) > 25
    made = blocks.tokenise(tokenizer, texts, 32)
    assert made.line_end.sum() == len(lines)
    assert (made.ids[np.arange(len(made)), made.lengths - 1] == tokenizer.sep).all()


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_deleted_marks_leave_their_labels(seed, share):
    draw = np.random.default_rng(seed)
    n = int(draw.integers(3, 40))
    classes = np.array([0] * 10 + [1, 2, 3])
    ids = np.concatenate([[0], draw.integers(1, 13, n), [0]])
    line_end = np.zeros(n + 2, dtype=bool)
    line_end[1:-1] = draw.random(n) < 0.3
    kept, ends, following = blocks.without(ids, line_end, classes, share, draw)
    assert kept[0] == kept[-1] == 0
    words = [i for i in ids if classes[i] == 0]
    assert [i for i in kept if classes[i] == 0] == words
    if share == 0:
        assert kept.tolist() == ids.tolist()
        assert ends.tolist() == line_end.tolist()
        assert following.tolist() == [*classes[ids[1:]], 0]
    # By brute force for all marks gone: a line end goes back to the last word before it.
    bare, ends, following = blocks.without(ids, line_end, classes, 1.1, draw)
    expected, marks, groups = [], [], []
    for i, end in zip(ids, line_end, strict=True):
        if classes[i] == 0:
            expected.append(bool(end))
            marks.append(0)
            groups.append(i)
        else:
            expected[-1] |= bool(end) and len(groups) > 1
            marks[-1] = marks[-1] or int(classes[i])
    assert bare.tolist() == groups
    assert ends.tolist() == expected
    assert following.tolist() == marks


def test_unpunctuated_blocks_are_thinned():
    texts = ["One.\nTwo.\n"] * 90 + ["one\ntwo\n"] * 90
    kept = blocks.thin(texts, 0.1, np.random.default_rng(0))
    assert kept.count("One.\nTwo.\n") == 90
    assert kept.count("one\ntwo\n") == 10


@given(st.one_of(WORDS, st.text(max_size=60)))
@settings(max_examples=300, deadline=None)
def test_full_corruption_is_idempotent_and_complete(text):
    once = corrupt(text)
    assert corrupt(once) == once
    assert not set(once) & set(MARKS)
    assert once.lower() == once
    assert tidy(once) == once


def test_marks():
    assert len(MARKS) == len(set(MARKS)) == 109
    assert corrupt("Dr. Ö said: «No!»\n— Yes…\n") == "dr ö said no\nyes"
    assert without_marks("A - b") == "A b"


def test_social_media_by_its_probabilities():
    draw = np.random.default_rng(0)
    made = [social("Ab.", draw) for _ in range(4000)]
    assert np.mean(["." not in s for s in made]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([s.startswith("ab") for s in made]) == pytest.approx(0.5, abs=0.03)
    # c more copies with probability 2^-(c + 1), so that two more or further ones are a quarter.
    assert np.mean(["..." in s for s in made]) == pytest.approx(0.5 / 4, abs=0.02)


# --- windows and thresholds -------------------------------------------------------------------------------------------


class Ids:
    """A tokenizer of digits: each character is its own code."""

    cls, pad, sep = 0, 1, 2

    def encode(self, texts):
        return [Pieces(np.array([ord(c) % 50 + 3 for c in t]), np.arange(1, len(t) + 1)) for t in texts]


def no_context(ids, mask):
    """Logits that depend on the token alone."""
    return torch.sin(ids.double() * 1.7)[..., None]


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_windows_cover_every_token_and_are_full(n, room, stride):
    stride = min(stride, room)
    begins = windows.starts(n, room, stride)
    assert begins[0] == 0
    assert sorted(set(begins)) == begins
    assert all(b - a <= stride for a, b in pairwise(begins))
    assert max(begins) + room == max(n, room)


@pytest.mark.parametrize("weighting", ["uniform", "hat"])
def test_without_context_stitched_is_unstitched(weighting):
    texts = ["".join(chr(48 + i * 7 % 40) for i in range(n)) for n in (0, 1, 9, 10, 11, 57)]
    pieces = Ids().encode(texts)
    for stride in (1, 3, 8):
        how = Inference(window=10, stride=stride, weighting=weighting, batch=3)
        for p, logits in zip(pieces, windows.stitch(no_context, Ids(), pieces, how), strict=True):
            np.testing.assert_allclose(logits, np.sin(p.ids * 1.7))


def test_a_text_in_one_window_is_the_same_for_every_stride():
    model = models.fresh(SMALL)
    pieces = Ids().encode(["abcdefgh" * 5, "xyz"])
    found = [
        windows.stitch(model, Ids(), pieces, Inference(64, stride, weighting, batch=1))
        for stride in (7, 62)
        for weighting in ("uniform", "hat")
    ]
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_overlapping_windows_by_brute_force():
    model = models.fresh(SMALL, seed=3)
    (piece,) = Ids().encode(["abcdefghij" * 6])
    how = Inference(window=22, stride=8, weighting="hat", batch=2)
    total, weight = np.zeros(60), np.zeros(60)
    for start in (0, 8, 16, 24, 32, 40):
        ids = torch.tensor([[0, *piece.ids[start : start + 20].tolist(), 2]])
        with torch.inference_mode():
            logits = model(ids, torch.ones_like(ids, dtype=torch.bool))[0, 1:-1, 0].double().numpy()
        w = 1 - np.abs((np.arange(20) - 9.5) / 10)
        total[start : start + 20] += w * logits
        weight[start : start + 20] += w
    (found,) = windows.stitch(model, Ids(), [piece], how)
    np.testing.assert_allclose(found, total / weight, rtol=1e-4, atol=1e-6)


def test_strides_and_windows_that_leave_text_out_are_refused():
    with pytest.raises(ValueError, match="leaves tokens out"):
        Inference(window=10, stride=9)
    with pytest.raises(ValueError, match="no room"):
        Inference(window=2, stride=1)


@given(st.text(alphabet="ab \n.", max_size=30), st.integers(0, 999))
@settings(max_examples=100, deadline=None)
def test_thresholds(text, seed):
    ends = np.array([i + 1 for i, c in enumerate(text) if not c.isspace()], dtype=np.int64)
    scored = Scored(ends, np.random.default_rng(seed).uniform(1e-9, 1, len(ends)))
    counts = []
    for threshold in (0, 0.2, 0.4, 0.6, 0.8, 1):
        spans = windows.split(text, scored, threshold)
        assert "".join(text[a:b] for a, b in spans) == text
        counts.append(len(spans))
    assert counts == sorted(counts, reverse=True)
    # At 0 behind every token, at 1 never; white space before the first token is a span of its own.
    assert counts[-1] == (1 if text else 0)
    assert counts[0] >= len(ends)
    grouped = windows.paragraphs(text, scored, 0.3, 0.6)
    assert [s for paragraph in grouped for s in paragraph] == windows.split(text, scored, 0.3)
    assert len(grouped) == len(windows.split(text, scored, 0.6))


def test_line_ends_can_end_sentences():
    scored = Scored(np.array([2, 6]), np.array([0.9, 0.1]))
    assert windows.split("ab cd\nef", scored, 0.5) == [(0, 3), (3, 8)]
    assert windows.split("ab cd\nef", scored, 0.5, at_line_ends=True) == [(0, 3), (3, 6), (6, 8)]


# --- scores -----------------------------------------------------------------------------------------------------------


def test_f1_by_hand():
    gold, predicted = {5, 11, 20}, {5, 14, 20}
    assert f1(len(gold & predicted), len(predicted), len(gold)) == pytest.approx(2 / 3)


def test_the_end_of_a_text_counts_for_nobody():
    text, ends = joined(["Ab.", "Cd.", "Ef."])
    assert text == "Ab. Cd. Ef."
    assert ends.tolist() == [3, 7]
    view = View((text,), (ends,))
    # One inner end found, one missed, one wrong; the last is not counted, white space before an end neither.
    scored = Scored(np.array([4, 6, 11]), np.array([0.9, 0.8, 0.7]))
    assert inner(text, scored.ends).tolist() == [3, 6, 0]
    assert f1_at(view, [scored], 0.5) == pytest.approx(2 * 1 / (2 + 2))
    assert f1_at(view, [scored], 0.85) == pytest.approx(2 / 3)
    assert exact_at(view, [Scored(np.array([3, 8]), np.ones(2))], 0.5) == 1
    assert exact_at(view, [scored], 0.5) == 0


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_best_threshold_by_brute_force(seed):
    draw = np.random.default_rng(seed)
    texts = ["x" * 30, "y" * 20]
    golds = [np.unique(draw.integers(1, len(t), 4)) for t in texts]
    outputs = [Scored(np.arange(1, len(t) + 1), np.round(0.9 * draw.random(len(t)), 1) + 0.05) for t in texts]
    view = View(tuple(texts), tuple(golds))
    found = f1_at(view, outputs, best_threshold(view, outputs))
    assert found == pytest.approx(max(f1_at(view, outputs, t) for t in np.linspace(0, 1, 11)))


def test_views():
    made = views([["A b.", "?", "C d!"], ["E."], ["F.", "G.", "H."]], corrupt, 2)
    assert made["clean"].texts == ("A b. ? C d! E. F. G. H.",)
    assert made["corrupted"].texts == ("a b c d e f g h",)
    assert made["corrupted"].ends[0].tolist() == [3, 7, 9, 11, 13]
    assert made["short"].texts == ("A b. ?", "F. G.")
    assert [e.tolist() for e in made["short"].ends] == [[4], [2]]


def test_labelled_sentences_are_drawn_from_all_documents():
    documents = [[f"{d}{i}" for i in range(n)] for d, n in zip("abc", (2, 30, 40), strict=True)]
    taken = sentence_data.sample(documents, 20, np.random.default_rng(1))
    assert [len(run) for run in taken] == [2, 9, 9]
    for run, document in zip(taken, documents, strict=True):
        at = document.index(run[0])
        assert run == document[at : at + len(run)]
    assert sentence_data.sample(documents, 0, np.random.default_rng(1)) == documents


def test_outermost_sentences():
    document = sentence_data.Document("A (b c.) d.  E\nf.", ((0, 11), (3, 7), (13, 18)))
    assert sentence_data.outermost_sentences(document) == ["A (b c.) d.", "E f."]


# --- adaptation and cost ----------------------------------------------------------------------------------------------


def test_low_rank_matrices_begin_as_nothing_and_count_as_they_should():
    pytest.importorskip("peft")
    model = models.fresh(Shape(10, hidden=768, layers=1, heads=12, positions=8, auxiliary=False))
    ids = torch.tensor([[0, 5, 6, 2]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.inference_mode():
        before = model(ids, mask)
    adapted = training.add_lora(model, 16, 32.0, "attention", seed=0, train_head=False)
    with torch.inference_mode():
        torch.testing.assert_close(adapted(ids, mask), before, rtol=0, atol=0)
    square = 2 * 16 * 768
    assert square == 24_576
    assert training.trainable(adapted) == 4 * square
    wide = models.fresh(Shape(10, hidden=24, layers=2, heads=2, positions=8, auxiliary=False))
    wide = training.add_lora(wide, 4, 8.0, "attention and feed-forward", seed=0)
    assert training.trainable(wide) == 2 * (4 * 2 * 4 * 24 + 2 * 4 * (24 + 96)) + 24 + 1


def test_one_logit_keeps_the_line_end():
    model = models.fresh(Shape(30, 24, 1, 2, positions=20))
    ids = torch.tensor([[0, 5, 6, 2]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.inference_mode():
        before = model(ids, mask)
        assert before.shape[-1] == 1 + 1 + 109
        after = models.with_one_logit(model)(ids, mask)
    torch.testing.assert_close(after, before[..., :1])


def test_the_loss_by_hand():
    logits = torch.zeros(1, 3, 111)
    counted = torch.tensor([[False, True, True]])
    value = models.loss(logits, counted & False, torch.zeros(1, 3, dtype=torch.int64), counted)
    assert float(value) == pytest.approx(np.log(2) + np.log(110))
    value = models.loss(logits[..., :1], counted & False, torch.zeros(1, 3, dtype=torch.int64), counted)
    assert float(value) == pytest.approx(np.log(2))


def test_unused_embeddings_can_go():
    model = models.fresh(SMALL)
    ids = torch.tensor([[0, 9, 33, 9, 2]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.inference_mode():
        before = model(ids, mask)
        used = torch.tensor([0, 1, 2, 9, 33])
        models.shrink(model, used)
        torch.testing.assert_close(model(torch.searchsorted(used, ids), mask), before)


def test_costs_by_hand():
    assert costs.ratio(3) == pytest.approx((2 + 3 / 4 + 0.8) / (3 / 4.07))
    assert costs.ratio(3) == pytest.approx(4.82, abs=0.005)
    assert costs.ratio(12) == pytest.approx(1.97, abs=0.005)
    # Without attention and at the width's limit the counts of operations have the same ratio.
    flops = costs.character_flops(3, 768, 0, 0) / costs.token_flops(3, 768, 0, 4.07)
    assert flops == pytest.approx(costs.ratio(3), rel=0.02)


def test_characters():
    (pieces,) = canine.Characters().encode(["aé𝄞"])
    assert pieces.ids.tolist() == [97, 0xE9, 0x1D11E]
    assert pieces.ends.tolist() == [1, 2, 3]
    model = canine.fresh(1, 24, 2)
    with torch.inference_mode():
        assert model(torch.full((2, 12), 97), torch.ones(2, 12, dtype=torch.bool)).shape == (2, 12, 1)


@needs_data("ud-english-ewt-sentences")
def test_the_subwords_of_xlm_r():
    pytest.importorskip("blingfire")
    real = subwords.XlmRoberta()
    text = " ".join(s for run in sentence_data.treebank_sentences("test") for s in run)
    (pieces,) = real.encode([text])
    # The figure comes from another division of the treebank's text; here it is 3.93, and 4.03 on the development part.
    assert len(text) / len(pieces.ids) == pytest.approx(costs.CHARACTERS_PER_TOKEN, abs=0.15)
    assert pieces.ends[-1] == len(text)


def test_offsets_of_the_subwords_of_xlm_r_count_characters():
    pytest.importorskip("blingfire")
    text = "Ünïcödé 日本語です。 ok"
    (pieces,) = subwords.XlmRoberta().encode([text])
    assert pieces.ends[-1] == len(text)
    assert text.index(" ") in pieces.ends.tolist()
    assert subwords.XlmRoberta().encode([""])[0].ids.size == 0
