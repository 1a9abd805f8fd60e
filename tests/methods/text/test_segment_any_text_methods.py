"""Segment Any Text's methods on made-up opinions, and against the package that the authors published."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from harness.errors import BadOutput, MissingModel, MissingPackage, RequestError
from harness.seeding import rng
from harness.testing import prepared, run_once
from methods.text import sentence_views
from methods.text.baselines import RegexSplitter
from methods.text.segment_any_text import baselines, lines, subwords, training, windows
from methods.text.segment_any_text import model as models
from methods.text.segment_any_text.method import (
    LoraAdaptation,
    SatSplitter,
    SegmentAnyText,
    SubwordSegmenter,
    SupervisedMixture,
)
from methods.text.segment_any_text.model import Shape
from methods.text.segment_any_text.tasks import SegmentationLatency
from methods.text.segment_any_text.windows import Inference
from methods.text.tasks import RobustSentenceBoundaries, SentenceBoundaries
from tests.conftest import needs_data

OPINIONS = RobustSentenceBoundaries(corpus="opinions", sentences=120, labelled=60)
TINY = {
    "corpora": ("opinions",),
    "lines": 400,
    "vocabulary": 400,
    "hidden": 32,
    "layers": 2,
    "heads": 2,
    "block": 32,
    "batch": 8,
    "lr": 5e-3,
    "steps": 60,
    "stride": 20,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_it_learns_and_corruption_helps_without_marks(cache):
    robust = run_once(SegmentAnyText(**TINY, corrupt=0.5), OPINIONS, cache=cache).metrics
    plain = run_once(SegmentAnyText(**TINY, corrupt=0.0), OPINIONS, cache=cache).metrics
    # So short a training is far from what the method can do; the effect is there.
    assert plain["f1_clean_tuned"] > 0.35
    assert robust["f1_corrupted_tuned"] > plain["f1_corrupted_tuned"]
    assert robust["f1_corrupted_clean_threshold"] > plain["f1_corrupted_clean_threshold"]
    assert run_once(RegexSplitter(), OPINIONS).metrics["f1_corrupted"] == 0


def test_a_model_is_trained_once(cache, monkeypatch):
    first = prepared(SegmentAnyText(**TINY, corrupt=0.5), OPINIONS, cache=cache)
    monkeypatch.setattr(training, "_pretrain", None)
    again = prepared(SegmentAnyText(**TINY, corrupt=0.5), OPINIONS, cache=cache)
    for a, b in zip(first.run().test, again.run().test, strict=True):
        np.testing.assert_array_equal(a.probabilities, b.probabilities)
    with pytest.raises(TypeError):  # another seed is another model
        prepared(SegmentAnyText(**TINY, corrupt=0.5), OPINIONS, seed=1001, cache=cache)


def test_supervision(cache):
    learning = {"learning_block": 32, "learning_batch": 4, "learning_steps": 25, "learning_rate": 3e-3}
    mixed = SupervisedMixture(**TINY, corrupt=0.5, **learning)
    measured = run_once(mixed, OPINIONS, cache=cache).metrics
    base = run_once(SegmentAnyText(**TINY, corrupt=0.5), OPINIONS, cache=cache).metrics
    assert measured["f1_clean_tuned"] > base["f1_clean_tuned"]
    assert mixed.own == 0.25
    assert mixed.model.net.classifier.out_features == 1


def test_adaptation(cache):
    pytest.importorskip("peft")
    learning = {"learning_block": 32, "learning_batch": 4, "learning_steps": 15, "learning_rate": 3e-3}
    adapted = run_once(LoraAdaptation(**TINY, corrupt=0.5, rank=4, **learning), OPINIONS, cache=cache).metrics
    scratch = run_once(
        LoraAdaptation(**TINY, corrupt=0.5, rank=4, start="untrained", **learning), OPINIONS, cache=cache
    ).metrics
    assert adapted["trainable_parameters"] == 2 * (4 * 2 * 4 * 32 + 2 * 4 * (32 + 128)) + 32 + 1
    assert adapted["f1_clean_tuned"] > scratch["f1_clean_tuned"]


def test_beside_other_splitters(cache):
    splitter = SatSplitter(**TINY, corrupt=0.5, threshold=0.5)
    measured = run_once(splitter, SentenceBoundaries(corpus="opinions"), cache=cache).metrics
    assert measured["f1_raw"] == measured["f1_stripped"]
    whole = prepared(
        SatSplitter(**TINY, corrupt=0.5, threshold=0.5, trim=False),
        SentenceBoundaries(corpus="opinions"),
        cache=cache,
    )
    for text, spans in zip(whole.texts, whole.run(), strict=True):
        assert "".join(text[a:b] for a, b in spans) == text


@pytest.mark.parametrize("texts", [0, 5])
def test_latency(texts, cache):
    task = SegmentationLatency(corpus="opinions", characters=600, short_texts=texts)
    precision = "bfloat16" if texts else "float32"
    small = {"layers": 1, "hidden": 32, "heads": 2, "window": 64, "stride": 32, "precision": precision}
    ours = run_once(SubwordSegmenter(**small, subwords="trained"), task, cache=cache).metrics
    theirs = run_once(baselines.CanineSegmenter(**small), task).metrics
    assert ours["characters"] == theirs["characters"]
    assert ours["tokens_per_character"] < 0.8 < theirs["tokens_per_character"] == 1
    assert ours["flops_per_character"] < theirs["flops_per_character"]
    with pytest.raises(BadOutput, match="restore"):
        task.score(task.load(0), [[(0, 3)]] * len(task.load(0).texts))


def test_outputs_that_cannot_be_scored():
    work = OPINIONS.load(1000)
    with pytest.raises(BadOutput, match="lists of sentences"):
        sentence_views.scores(work, [])
    with pytest.raises(BadOutput, match="outputs for"):
        sentence_views.scores(work, sentence_views.Thresholded([], [], 0.5))
    beyond = [sentence_views.Scored(np.array([10**6]), np.ones(1))] * len(work.texts)
    with pytest.raises(BadOutput, match="outside a text"):
        sentence_views.scores(work, sentence_views.Thresholded(beyond, [], 0.5))


def test_gold_sentences_have_full_marks():
    work = OPINIONS.load(1000)

    def gold(of):
        return [
            sentence_views.Scored(np.append(e, len(t)), np.ones(len(e) + 1))
            for name in sentence_views.VIEWS
            for t, e in zip(of[name].texts, of[name].ends, strict=True)
        ]

    found = sentence_views.scores(work, sentence_views.Thresholded(gold(work.test), gold(work.tuning), 0.5))
    assert {v for k, v in found.items() if k.startswith(("f1_", "exact_"))} == {1.0}
    other = OPINIONS.load(1001)
    assert other.test["clean"].texts == work.test["clean"].texts
    assert other.labelled != work.labelled
    assert sum(map(len, work.labelled)) == 60


def test_what_is_not_there():
    with pytest.raises(MissingModel, match="cannot be loaded"):
        models.published("./no/such/model")
    with pytest.raises(MissingModel, match="tokenizer"):
        subwords.pretrained("./no/such/tokenizer")
    with pytest.raises(RequestError, match="no corpus"):
        lines.lines(("ulysses",), 10)


@needs_data("wikitext-2")
def test_paragraphs_of_wikipedia():
    found = lines.lines(("wikitext-valid",), 50, natural=True)
    assert len(found) == 50
    assert not any(" , " in p or " @-@ " in p or p.startswith("=") for p in found)


def published_folder(folder, auxiliary=True):
    """A tiny checkpoint as the authors keep theirs."""
    texts = lines.paragraphs("opinions")[:40]
    tokenizer = subwords.train(texts, 300)
    model = models.fresh(Shape(len(tokenizer), 32, 3, 2, 66, lookahead=12, auxiliary=auxiliary), seed=5)
    with torch.no_grad():
        model.net.classifier.weight *= 20
    model.net.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "xlm-token",
        "architectures": ["SubwordXLMForTokenClassification"],
        "lookahead": 12,
    }
    (folder / "config.json").write_text(json.dumps(config))
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.tokenizer,
        cls_token="<s>",
        bos_token="<s>",
        sep_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    return tokenizer, model, texts


def test_checkpoints_of_the_authors_can_be_loaded(tmp_path):
    tokenizer, model, texts = published_folder(tmp_path)
    loaded, again = models.published(str(tmp_path)), subwords.pretrained(str(tmp_path))
    assert loaded.ahead == 4
    how = Inference(60, 30)
    for a, b in zip(
        windows.probabilities(model, tokenizer, texts[:3], how),
        windows.probabilities(loaded, again, texts[:3], how),
        strict=True,
    ):
        np.testing.assert_allclose(a.probabilities, b.probabilities)
        np.testing.assert_array_equal(a.ends, b.ends)


class ForOnnx(torch.nn.Module):
    """A model with the inputs that the published ONNX files have: the mask in half precision."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, attention_mask, input_ids):
        return self.model(input_ids, attention_mask > 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "pytorch"])
def test_the_published_package_agrees(tmp_path, runtime):
    pytest.importorskip("wtpsplit")
    tokenizer, model, texts = published_folder(tmp_path)
    options = {"checkpoint": str(tmp_path), "checkpoint_tokenizer": str(tmp_path), "window": 60, "stride": 30}
    if runtime == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
        mask = torch.ones(2, 20, dtype=torch.float16)
        mask[1, 15:] = 0
        free = {0: "rows", 1: "n"}
        torch.onnx.export(
            ForOnnx(model),
            (mask, torch.randint(3, 90, (2, 20))),
            tmp_path / "model_optimized.onnx",
            input_names=["attention_mask", "input_ids"],
            output_names=["logits"],
            dynamic_axes={"attention_mask": free, "input_ids": free, "logits": free},
            dynamo=False,
        )
    published = baselines.SatPublished(**options, runtime=runtime)
    try:
        prepared(published, OPINIONS)
    except MissingPackage as error:
        pytest.skip(str(error))
    assert published.own_threshold() == 0.025
    for weighting in ("uniform", "hat"):
        published.weighting = weighting
        theirs = published.published_probabilities(published.segmenter, texts[:4])
        # Its windows count text alone, ours special tokens as well.
        ours = windows.probabilities(model, tokenizer, texts[:4], Inference(62, 30, weighting))
        for a, b in zip(theirs, ours, strict=True):
            # Ours has a probability for a token without characters too, such as a blank at the beginning.
            of_end = {
                end: p for end, p in zip(b.ends.tolist(), b.probabilities.tolist(), strict=True) if end > 0
            }
            assert a.ends.tolist() == list(of_end)
            np.testing.assert_allclose(a.probabilities, list(of_end.values()), atol=5e-3)


@pytest.mark.slow
def test_without_the_checkpoint_the_published_package_says_so(monkeypatch):
    pytest.importorskip("wtpsplit")
    with pytest.raises(MissingModel, match="download segment-any-text"):
        baselines.SatPublished(checkpoint="./no/such/model", checkpoint_tokenizer="./none").load_published(
            "cpu"
        )


def test_the_mixture_is_made_of_three_versions():
    tokenizer = subwords.train(lines.paragraphs("opinions"), 300)
    runs = [["Was it so?", "It was. "], ["He v. She Corp., 3 U.S. 4, said no."]] * 20
    clean, spoken, chatty = training.mixture(runs, tokenizer, 40, rng(0, "test"))
    assert clean.line_end.sum() == spoken.line_end.sum() == 60
    # Closing a block early loses no sentence; a sentence that is cut off at the block's end would.
    assert 55 <= chatty.line_end.sum() <= 60
    assert len(chatty) > len(clean)
    decoded = tokenizer.tokenizer.decode(spoken.ids[0].tolist(), skip_special_tokens=True)
    assert "?" not in decoded
