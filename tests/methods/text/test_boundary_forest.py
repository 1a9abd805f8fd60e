"""The forest of CharBoundary and its features, against one character at a time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.testing import prepared, run_once
from methods.text import sentence_data
from methods.text.legal_sentence_boundaries.boundary_features import (
    CANDIDATES,
    EXTRAS,
    OUTSIDE,
    Characters,
    candidates,
    character_class,
    features,
)
from methods.text.legal_sentence_boundaries.boundary_forest import BoundaryForest, Shape
from methods.text.legal_sentence_boundaries.method import BoundaryForestMethod, spans_between
from methods.text.sentence_data import Document
from methods.text.tasks import HeldOutSentenceBoundaries, Texts
from tests.conftest import needs_data

KNOWN = frozenset({"U.S.", "a.", "ab."})
FOLD = HeldOutSentenceBoundaries(corpus="opinions")


@pytest.mark.parametrize(
    ("character", "value"),
    list(
        zip(
            "aZéİ7.;”\n \t\u00a0,)—“§$",
            [1, 26, 27, 9, 0, -1, -1, -1, -2, *[-3] * 3, *[-4] * 4, -5, -5],
            strict=True,
        )
    ),
)
def test_character_classes(character, value):
    assert character_class(character) == value


def observations(text: str, place: int, left: int, right: int) -> list[int]:
    """The window and all observations but those of lists, one character at a time."""
    window = [
        character_class(text[i]) if 0 <= i < len(text) else OUTSIDE
        for i in range(place - left, place + right + 1)
    ]
    here, before = text[place], text[: place + 1]
    start = place
    while start > 0 and (text[start - 1].isalnum() or text[start - 1] == "."):
        start -= 1
    count = before.count
    paired = count('"') % 2 == count("'") % 2 == 0 and count("“") == count("”") and count("‘") == count("’")
    next_lower = place + 1 < len(text) and text[place + 1].islower()
    return [
        *window,
        here == "." and text[start : place + 1] in KNOWN,
        1 if here in ".!?" else -1 if here in "\"”'’;:" else 0,
        paired or here not in "\"“”'‘’",
        not (here in "\"”'’" and next_lower),
        next_lower,
        ":" in text[max(0, place - 10) : place],
    ]


@given(
    st.text(alphabet="abUS .!?;:\"'“”‘’,\n7(é", min_size=1, max_size=60), st.integers(0, 6), st.integers(0, 6)
)
@settings(max_examples=200, deadline=None)
def test_features_against_one_character_at_a_time(text, left, right):
    positions = np.arange(len(text))
    found = features(Characters(text), positions, left, right, KNOWN)
    assert found.shape == (len(text), left + 1 + right + EXTRAS)
    without_lists = np.delete(found, [-3, -2], axis=1)
    expected = [observations(text, place, left, right) for place in range(len(text))]
    np.testing.assert_array_equal(without_lists, np.array(expected, dtype=int))


@pytest.mark.parametrize(
    ("text", "place", "listed"),
    [
        ("(1) the first;", 2, True),  # the mark itself
        ("1. The first", 1, True),
        ("The grounds are: (a) the first", 16, False),
        ("as follows: x", 10, True),  # the colon that introduces
        ("as follows: the first, the second. x", 34, False),  # too far away
        ("Smith v. Jones", 7, False),  # no mark, though it looks like a Roman five
        ("version 1. It", 9, False),
        ("one; (ii) two", 8, True),
        ("\n• one", 1, True),
    ],
)
def test_list_items(text, place, listed):
    assert bool(features(Characters(text), np.array([place]), 0, 0, KNOWN)[0, -3]) is listed


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("one; two", False),
        ("one; two; three", True),
        ("one; two and three", True),
        ("namely: one; two", True),
        ("(a) one; two", True),
        ("x; " + "y" * 60 + "; z", False),
    ],
)
def test_semicolons_in_lists(text, listed):
    assert bool(features(Characters(text), np.array([text.index(";")]), 0, 0, KNOWN)[0, -2]) is listed


def test_candidates_are_marks_and_quotes_and_line_ends_if_asked_for():
    text = "a.b!c?d;e:f\"g'h”i’j,k\nl\r(m)"
    assert [text[i] for i in candidates(Characters(text))] == list(".!?;:\"'”’")
    assert [text[i] for i in candidates(Characters(text), line_ends=True)] == list(".!?;:\"'”’\n\r")


def test_characters_beyond_the_basic_plane_and_lone_surrogates_count_one():
    text = "𝔸.\ud800."
    assert candidates(Characters(text)).tolist() == [1, 3]


@pytest.fixture(scope="module")
def forest() -> BoundaryForest:
    made = BoundaryForest(Shape.named("small"), abbreviations=KNOWN, line_ends=False)
    made.fit(sentence_data.opinions(documents=6), 0.001, np.random.default_rng(0))
    return made


def test_sizes():
    assert Shape.named("small") == Shape(trees=32, depth=16, left=5, right=3, split=8, leaf=4)
    assert Shape.named("medium") == Shape(trees=64, depth=32, left=7, right=5, split=8, leaf=4)
    assert Shape.named("large") == Shape(trees=256, depth=64, left=9, right=7, split=4, leaf=2)


def test_the_forest_has_its_size(forest):
    assert len(forest.forest.estimators_) == 32
    assert max(tree.get_depth() for tree in forest.forest.estimators_) <= 16
    assert forest.forest.n_features_in_ == 5 + 1 + 3 + 8


def test_thresholds_from_every_candidate_to_none(forest):
    texts = [d.text for d in sentence_data.opinions(documents=8)[6:]]
    levels = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.01]
    found = [[set(ends.tolist()) for ends in forest.boundaries(texts, level)] for level in levels]
    for i, text in enumerate(texts):
        assert found[0][i] == {place + 1 for place, c in enumerate(text) if c in CANDIDATES}
        assert found[-1][i] == set()
        for looser, stricter in pairwise(found):
            assert stricter[i] <= looser[i]
    assert found[3] != found[0]


def test_texts_together_are_decided_as_one_by_one(forest):
    texts = ["", "no mark at all", *(d.text for d in sentence_data.opinions(documents=3)), "One. Two."]
    together = forest.boundaries(texts, 0.5)
    assert len(together) == len(texts)
    for text, ends in zip(texts, together, strict=True):
        np.testing.assert_array_equal(ends, forest.boundaries([text], 0.5)[0])


def test_two_documents_as_one_are_decided_alike_away_from_the_seam(forest):
    # Quotes that are balanced in the first document, as all those of the made-up ones are.
    documents = [d for d in sentence_data.opinions(documents=4) if d.text.count("'") % 2 == 0][:2]
    joined = sentence_data.join(documents).text
    offset = len(documents[0].text) + 2
    first, second = forest.boundaries([d.text for d in documents], 0.5)
    apart = {*first.tolist(), *(second + offset).tolist()}
    seam = range(offset - 8, offset + 8)
    together = set(forest.boundaries([joined], 0.5)[0].tolist())
    assert {end for end in together ^ apart if end not in seam} == set()


def test_what_the_forest_learns_from(forest):
    document = Document("Aa bb, cc. Dd ee" + " f" * 500, ((0, 10), (11, 16)))
    rng = np.random.default_rng(0)
    positions, labels = forest._samples(document, 0.0, rng)
    assert positions.tolist() == [9, 15]  # the period, and the last character of a sentence without a mark
    assert labels.tolist() == [1, 1]
    assert len(forest._samples(document, 1.0, rng)[0]) == len(document.text)
    share = len(forest._samples(document, 0.1, rng)[0]) / len(document.text)
    assert 0.05 < share < 0.15


def test_documents_that_teach_nothing():
    made = BoundaryForest(Shape.named("small"), abbreviations=KNOWN, line_ends=False)
    with pytest.raises(ValueError, match="characters that end sentences"):
        made.fit([Document("no mark", ())], 1.0, np.random.default_rng(0))
    method = BoundaryForestMethod(abbreviations="none")
    with pytest.raises(ValueError, match="no documents to learn from"):
        method.prepare(Texts((Document("One.", ((0, 4),)),)))


def test_spans_between():
    text = "One.  Two. "
    assert spans_between(text, np.array([4, 10]), trim=False) == [(0, 4), (4, 10), (10, 11)]
    assert spans_between(text, np.array([4, 10]), trim=True) == [(0, 4), (6, 10)]
    assert spans_between(text, np.array([], dtype=np.int64), trim=True) == [(0, 10)]
    assert spans_between("", np.array([], dtype=np.int64), trim=False) == []


def test_the_method_learns_what_the_regex_does_not_know():
    measured = run_once(BoundaryForestMethod(abbreviations="none"), FOLD).metrics
    assert measured["precision_stripped"] > 0.95
    assert measured["recall_stripped"] > 0.95


@pytest.mark.parametrize(
    "option", [{"trim": True}, {"line_ends": True}, {"size": "medium"}, {"sample_rate": 0.05}]
)
def test_options_change_the_sentences_or_the_forest(option):
    plain = prepared(BoundaryForestMethod(abbreviations="none"), FOLD)
    other = prepared(BoundaryForestMethod(abbreviations="none", **option), FOLD)

    def shape(method: BoundaryForestMethod) -> tuple[int, int]:
        return method.forest.forest.estimators_[0].tree_.node_count, method.forest.forest.n_features_in_

    assert plain.run() != other.run() or shape(plain) != shape(other)


def test_seeds_make_forests():
    first, again, other = (
        prepared(BoundaryForestMethod(abbreviations="none", threshold=0.9), FOLD, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first.run() == again.run()
    probabilities = [
        method.forest.forest.predict_proba(np.zeros((1, 17), np.int16))[0, 1]
        for method in (first, again, other)
    ]
    assert probabilities[0] == probabilities[1] != probabilities[2]


@needs_data("legal-sbd")
def test_a_forest_on_legal_decisions():
    measured = run_once(BoundaryForestMethod(abbreviations="none"), HeldOutSentenceBoundaries(fold=1)).metrics
    assert measured["f1_stripped"] > 0.7
    assert measured["recall_raw"] < measured["recall_stripped"]
