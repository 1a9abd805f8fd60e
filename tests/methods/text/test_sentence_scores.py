"""Documents with gold sentences, and the scores of a segmentation, against arithmetic and brute force."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BadOutput, MissingModel
from harness.testing import run_once
from methods.text import baselines, sentence_data
from methods.text.sentence_data import Document
from methods.text.sentence_score import boundaries, chunk_cuts, compare, locate, scores, strip
from methods.text.tasks import HeldOutSentenceBoundaries, SentenceBoundaries
from tests.conftest import needs_data

PASSAGE = "Dr. Smith filed under 29 U.S.C. § 621 et seq. in 2013. The court denied it."
TEN = "abcdefghi. bcdefghij"  # a blank at character 10


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Sentences, some of them nested, with or without text between them."""
    text = draw(st.text(alphabet="ab .\n", min_size=1, max_size=60))
    offsets = st.integers(0, len(text))
    spans = draw(st.lists(st.tuples(offsets, offsets).map(lambda s: (min(s), max(s))), max_size=8))
    return Document(text, tuple(sorted(spans)))


def test_a_blank_before_a_sentence_costs_its_start_at_raw_offsets():
    gold, predicted = [(0, 10), (11, 20)], [(0, 10), (10, 20)]
    raw = compare([gold], [predicted])
    assert (raw.hits, raw.predicted, raw.gold) == (3, 3, 4)
    assert (raw.precision, raw.recall) == (1.0, 0.75)
    bare = compare([strip(TEN, gold)], [strip(TEN, predicted)])
    assert bare.precision == bare.recall == bare.f1 == 1.0


@pytest.mark.parametrize("n", [1, 2, 10, 100])
def test_contiguous_spans_have_half_the_recall_at_raw_offsets(n):
    document = sentence_data.assemble([["Aa."] * n])
    ends = [end for _, end in document.spans]
    contiguous = list(zip([0, *ends[:-1]], ends, strict=True))
    raw = compare([document.spans], [contiguous])
    assert raw.recall == pytest.approx((n + 1) / (2 * n))
    assert raw.precision == 1.0


def test_nothing_predicted_and_nothing_to_find():
    nothing = compare([[]], [[]])
    assert (nothing.precision, nothing.recall, nothing.f1) == (0.0, 0.0, 0.0)


def test_nested_gold_sentences_count_their_own_boundaries():
    assert boundaries([(0, 10), (4, 10)]) == {0, 4, 10}


def test_strings_are_searched_from_the_last_one_found():
    text = "A b. A b. C."
    assert locate(text, ["A b.", "A b.", "nowhere", "", "C."]) == [(0, 4), (5, 9), (10, 12)]


@pytest.mark.parametrize("wrong", [[(0, 99)], [(5, 2)], [(-1, 3)], [7], [("a", "b")]])
def test_spans_outside_the_text_cannot_be_scored(wrong):
    with pytest.raises(BadOutput):
        locate("A short text.", wrong)


def test_a_list_for_each_document():
    with pytest.raises(BadOutput, match="for 2 documents"):
        scores([Document("a", ()), Document("b", ())], [[]], k=3)


@given(documents(), documents(), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_chunk_cuts_against_counting(gold, prediction, k):
    document = Document(gold.text, gold.spans)
    n = len(gold.text)
    predicted = strip(gold.text, sorted((min(a, n), min(b, n)) for a, b in prediction.spans))
    found = chunk_cuts([document], [predicted], k)
    borders = [predicted[i][1] for i in range(k - 1, len(predicted) - 1, k)]
    sentences = strip(document.text, document.spans)
    assert found.sentences == len(sentences)
    assert found.borders == len(borders)
    assert found.cut == sum(any(a < border < b for border in borders) for a, b in sentences)
    assert found.inside == sum(any(a < border < b for a, b in sentences) for border in borders)


def test_perfect_sentences_are_not_cut():
    documents = sentence_data.opinions(documents=3, paragraphs=4)
    figures = scores(documents, [d.spans for d in documents], k=2)
    assert figures["fragmentation"] == figures["cut_borders"] == 0
    assert figures["f1_raw"] == figures["f1_stripped"] == 1


def test_pieces_and_joined_documents_keep_every_sentence():
    for document in sentence_data.opinions(documents=4, paragraphs=6):
        pieces = sentence_data.cut(document, 400)
        assert "".join(piece.text for piece in pieces) == document.text
        assert all(len(piece.text) >= 400 for piece in pieces[:-1])
        whole = [document.text[a:b] for a, b in document.spans]
        assert [piece.text[a:b] for piece in pieces for a, b in piece.spans] == whole
        joined = sentence_data.join(pieces)
        assert [joined.text[a:b] for a, b in joined.spans] == whole


def test_a_piece_does_not_begin_inside_a_sentence_around_it():
    document = Document("aaaa bbbb cccc dddd", ((0, 14), (5, 9), (15, 19)))
    assert [piece.spans for piece in sentence_data.cut(document, 5)] == [((0, 14), (5, 9)), ((0, 4),)]


def test_copies_differ_in_their_digits_only():
    document = sentence_data.opinions(documents=1)[0]
    first, second = sentence_data.copy(document, 1), sentence_data.copy(document, 2)
    assert len({document.text, first.text, second.text}) == 3
    assert len(first.text) == len(document.text)
    assert first.spans == document.spans

    def without_digits(text: str) -> str:
        return "".join(c for c in text if not c.isdigit())

    assert without_digits(first.text) == without_digits(document.text)


def test_folds_are_the_documents():
    whole = SentenceBoundaries(corpus="opinions").load(0).documents
    folds = [HeldOutSentenceBoundaries(corpus="opinions", fold=fold).load(0) for fold in range(3)]
    assert {d.text for work in folds for d in work.documents} == {d.text for d in whole}
    for work in folds:
        assert len(work.documents) + len(work.training) == len(whole)
        assert not {d.text for d in work.documents} & {d.text for d in work.training}


@pytest.mark.parametrize("wrong", [{"fold": 3}, {"folds": 1}])
def test_folds_that_there_are_not(wrong):
    with pytest.raises(ValueError, match="fold"):
        HeldOutSentenceBoundaries(**wrong)


def test_the_regex_breaks_at_every_capital():
    spans = baselines.RegexSplitter.split(PASSAGE)
    assert [PASSAGE[a:b] for a, b in spans] == [
        "Dr.",
        "Smith filed under 29 U.S.C. § 621 et seq. in 2013.",
        "The court denied it.",
    ]


def test_untrained_punkt_knows_no_abbreviation():
    pytest.importorskip("nltk")
    method = baselines.NltkPunkt(model="untrained")
    method.work = SentenceBoundaries(corpus="opinions").load(0)
    method.prepare(method.work)
    assert len(list(method.splitter.span_tokenize(PASSAGE))) == 5


def test_the_english_model_is_loaded_or_named_as_missing():
    pytest.importorskip("nltk")
    from nltk.data import find

    method, task = baselines.NltkPunkt(model="english"), SentenceBoundaries(corpus="opinions")
    try:
        find("tokenizers/punkt_tab/english/")
    except LookupError:
        with pytest.raises(MissingModel, match="punkt_tab"):
            run_once(method, task)
    else:
        assert run_once(method, task).metrics["recall_stripped"] > 0.5


@pytest.mark.parametrize(
    ("package", "method"),
    [
        ("re", baselines.RegexSplitter()),
        ("nltk", baselines.NltkPunkt(model="untrained")),
        ("pysbd", baselines.PySbd()),
        ("pysbd", baselines.PySbd(clean=False)),
        ("spacy", baselines.SpacySentencizer()),
        ("sentencex", baselines.Sentencex()),
        ("blingfire", baselines.BlingFire()),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_splitters_find_most_boundaries(package, method):
    pytest.importorskip(package)
    measured = run_once(method, SentenceBoundaries(corpus="opinions")).metrics
    assert measured["recall_stripped"] > 0.8
    assert measured["recall_stripped"] >= measured["recall_raw"] - 0.02
    assert 0.4 < measured["precision_stripped"] < 1


@needs_data("legal-sbd")
def test_the_legal_documents():
    work = SentenceBoundaries().load(0)
    assert (len(work.documents), work.characters) == (12, 311_280)
    assert sum(len(d.spans) for d in work.documents) == 2_234
    repeated = SentenceBoundaries(corpus="bva", copies=2, joined=True).load(0)
    assert len(repeated.documents) == 1
    assert repeated.characters == 2 * 77_712 + 7 * 2


@needs_data("ud-english-ewt-sentences")
def test_the_web_treebank():
    work = SentenceBoundaries(corpus="ewt").load(0)
    assert (len(work.documents), sum(len(d.spans) for d in work.documents)) == (316, 2_077)


@needs_data("gutenberg-novels")
@pytest.mark.slow
def test_training_on_novels_teaches_nltk_titles(tmp_path):
    pytest.importorskip("nltk")
    method = baselines.NltkPunkt(training_characters=200_000)
    run_once(method, SentenceBoundaries(corpus="opinions"), cache=tmp_path)
    assert "mr" in method.splitter._params.abbrev_types
