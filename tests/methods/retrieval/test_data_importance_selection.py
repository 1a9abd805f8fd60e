"""Votes, pruning and leave-one-out against naive loops; selections on real and made-up retrievals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from statistics import mode
from typing import Any

import numpy as np
import pytest

from harness.errors import BadOutput
from harness.method import Context
from harness.testing import run_once
from methods.retrieval.data_importance import recursions, retrievals, wikifact
from methods.retrieval.data_importance.baselines import (
    AllSources,
    FirstAnswer,
    LeaveOneOutPrune,
    RandomPrune,
    SourceAccuracyPrune,
    source_accuracy,
)
from methods.retrieval.data_importance.method import ImportancePrune, ImportanceReweight
from methods.retrieval.data_importance.retrievals import Retrievals
from methods.retrieval.data_importance.tasks import (
    Selection,
    SelectionWork,
    SourceSelection,
    halves,
    selection_score,
)
from tests.conftest import needs_data


def made_up(rows: int, items: int, count: int, seed: int) -> Retrievals:
    """Questions over sources of rising quality, some lists padded; answer 0 is right."""
    draw = np.random.default_rng(seed)
    quality = np.linspace(0.1, 0.9, count)
    sources = draw.integers(0, count, (rows, items)).astype(np.int32)
    right = draw.random(sources.shape) < quality[sources]
    answers = np.where(right, 0, draw.integers(1, 4, sources.shape)).astype(np.int32)
    padding = np.arange(items) >= draw.integers(items // 2, items + 1, rows)[:, None]
    return Retrievals(
        np.where(padding, count, sources).astype(np.int32),
        (right & ~padding).astype(np.uint8),
        count,
        np.where(padding, -1, answers).astype(np.int32),
    )


def work_of(rows: int = 200, items: int = 12, count: int = 20, seed: int = 0) -> SelectionWork:
    validation, test = halves(made_up(rows, items, count, seed), seed)
    groups = np.arange(count) // 2  # two hosts a group
    draws = np.random.default_rng(1).random((16, count // 2))
    return SelectionWork(validation, test, groups, count // 2, draws)


def attempt(method: Any, work: SelectionWork, votes: int = 3) -> Selection:
    method.task, method.work, method.context = SourceSelection(votes=votes), work, Context(seed=5)
    method.prepare(work)
    selection: Selection = method.run()
    again = method.run()
    np.testing.assert_array_equal(selection.existence, again.existence)
    return selection


def naive_vote(retrieved: Retrievals, row: int, exists: np.ndarray, places: int) -> float:
    assert retrieved.answers is not None
    seen = [i for i in range(retrieved.sources.shape[1]) if exists[i]][:places]
    if not seen:
        return 0.0
    winner = mode([int(retrieved.answers[row, i]) for i in seen])  # the first of the most frequent
    return float(next(retrieved.utilities[row, i] for i in seen if retrieved.answers[row, i] == winner))


# -- votes and pruning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [1, 3, 10, 40])
def test_vote_is_the_mode_of_the_first_that_exist(places: int) -> None:
    retrieved = made_up(60, 15, 8, seed=places)
    draw = np.random.default_rng(places)
    exists = (draw.random(retrieved.sources.shape) < 0.6) & (retrieved.sources < 8)
    exists[0] = False
    expected = [naive_vote(retrieved, row, exists[row], places) for row in range(60)]
    np.testing.assert_array_equal(retrievals.vote(retrieved, exists, places), expected)
    assert 0 < np.mean(expected) < 1


def test_ties_go_to_the_earliest() -> None:
    retrieved = Retrievals(
        np.zeros((1, 4)), np.array([[0, 1, 1, 0]]), 1, np.array([[7, 3, 3, 7]], dtype=np.int32)
    )
    assert retrievals.vote(retrieved, np.ones((1, 4), dtype=bool), 4) == 0.0
    assert retrievals.vote(retrieved, np.array([[False, True, True, True]]), 4) == 1.0


def test_a_vote_needs_answers() -> None:
    with pytest.raises(ValueError, match="answers"):
        retrievals.vote(Retrievals(np.zeros((1, 1)), np.zeros((1, 1)), 1), np.ones((1, 1), dtype=bool), 1)


@pytest.mark.parametrize("places", [2, 5])
def test_leave_one_out_by_removing_every_source_in_turn(places: int) -> None:
    retrieved = made_up(50, 10, 6, seed=3)
    expected = np.zeros(6)
    for row in range(50):
        real = retrieved.sources[row] < 6
        for source in range(6):
            without = real & (retrieved.sources[row] != source)
            expected[source] += naive_vote(retrieved, row, real, places)
            expected[source] -= naive_vote(retrieved, row, without, places)
    np.testing.assert_array_equal(retrievals.leave_one_out(retrieved, places), expected)
    assert np.abs(expected).max() > 0


@pytest.mark.parametrize("tenths", range(10))
def test_sources_go_until_the_share_is_gone(tenths: int) -> None:
    draw = np.random.default_rng(tenths)
    documents, order = draw.integers(0, 9, 12), draw.permutation(12)
    kept, gone = set(range(12)), 0
    for source in order:
        if gone >= tenths * documents.sum() / 10:
            break
        kept.discard(int(source))
        gone += documents[source]
    np.testing.assert_array_equal(np.flatnonzero(retrievals.kept_after(order, documents, tenths)), sorted(kept))


def test_tuned_removal_is_the_best_and_then_the_smallest() -> None:
    retrieved = made_up(80, 12, 10, seed=4)
    scores = np.random.default_rng(2).random(10)
    within = np.ones(10, dtype=bool)
    documents, order = retrieved.documents(), np.argsort(scores)
    shares = []
    for tenths in range(10):
        keep = np.append(retrievals.kept_after(order, documents, tenths), False)
        shares.append(retrievals.vote(retrieved, keep[retrieved.sources], 3).mean())
    tenths, keep = retrievals.tuned_removal(retrieved, scores, 3, within)
    assert tenths == int(np.argmax(shares))
    np.testing.assert_array_equal(keep, retrievals.kept_after(order, documents, tenths))
    same = np.zeros(10)
    blind = dataclasses.replace(retrieved, utilities=np.zeros_like(retrieved.utilities))
    assert retrievals.tuned_removal(blind, same, 3, within)[0] == 0


def test_accuracy_draws_sources_with_their_probability() -> None:
    retrieved = Retrievals(
        np.zeros((1, 1), dtype=np.int32), np.ones((1, 1)), 1, np.zeros((1, 1), dtype=np.int32)
    )
    draws = np.random.default_rng(0).random((4000, 1))
    assert retrievals.accuracy(retrieved, np.array([0.3]), 1, draws) == pytest.approx(0.3, abs=0.03)
    assert retrievals.accuracy(retrieved, np.array([1.0]), 1, draws) == 1.0
    assert retrievals.accuracy(retrieved, np.array([0.0]), 1, draws) == 0.0


def test_source_accuracy() -> None:
    retrieved = Retrievals(np.array([[0, 1, 3], [0, 0, 1]]), np.array([[1, 1, 0], [0, 1, 1]]), 3)
    np.testing.assert_allclose(source_accuracy(retrieved), [2 / 3, 1.0, 0.0])


# -- selections -------------------------------------------------------------------------------------------

LEARNERS: list[Callable[[], Any]] = [
    lambda: ImportancePrune(rate=50.0, steps=20),
    lambda: ImportancePrune(rate=50.0, steps=20, groups="average"),
    lambda: ImportanceReweight(rate=50.0, steps=20),
    lambda: RandomPrune(rate=50.0, steps=20),
    lambda: LeaveOneOutPrune(),
    lambda: SourceAccuracyPrune(),
    lambda: AllSources(),
    lambda: FirstAnswer(),
]


@pytest.mark.parametrize("make", LEARNERS)
def test_selections_do_not_look_at_the_test_questions(make: Callable[[], Any]) -> None:
    work = work_of()
    answered = dataclasses.replace(work.test, utilities=1 - work.test.utilities, answers=None)
    blind = dataclasses.replace(work, test=answered)
    np.testing.assert_array_equal(attempt(make(), work).existence, attempt(make(), blind).existence)


def test_pruning_finds_the_good_sources() -> None:
    work = work_of(rows=600)
    selection = attempt(ImportancePrune(rate=50.0, steps=30), work)
    plain = selection_score(work, attempt(AllSources(), work), 3)
    pruned = selection_score(work, selection, 3)
    assert pruned["accuracy"] > plain["accuracy"] + 0.1
    assert pruned["kept"] < 1.0 == plain["kept"]
    assert selection.removed > 0
    assert selection.existence[-1] == 1.0
    assert selection.existence[0] == 0.0
    reweighted = selection_score(work, attempt(ImportanceReweight(rate=50.0, steps=30), work), 3)
    assert reweighted["validation_utility"] > plain["validation_utility"]


def test_averaging_gives_all_hosts_of_a_group_their_mean() -> None:
    work = work_of()
    method = ImportanceReweight(rate=20.0, steps=1, groups="average")
    found = attempt(method, work).existence
    _, gradient = recursions.source_gradient(work.validation, np.full(20, 0.5), 3)
    by_host = np.clip(0.5 + 20.0 * gradient, 0, 1)
    seen = work.validation.documents() > 0
    expected = [by_host[2 * g : 2 * g + 2][seen[2 * g : 2 * g + 2]].mean() for g in range(10)]
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_sharing_gives_a_group_the_sum_of_its_gradients() -> None:
    work = work_of()
    found = attempt(ImportanceReweight(rate=2.0, steps=1), work).existence
    _, gradient = recursions.source_gradient(work.validation, np.full(20, 0.5), 3)
    np.testing.assert_allclose(found, 0.5 + 2.0 * gradient.reshape(10, 2).sum(axis=1), atol=1e-14)


@pytest.mark.parametrize("unseen", ["drop", "keep"])
def test_unseen_sources(unseen: Any) -> None:
    work = work_of()
    elsewhere = np.where(work.validation.sources < 4, 20, work.validation.sources)
    hidden = dataclasses.replace(
        work, validation=dataclasses.replace(work.validation, sources=elsewhere.astype(np.int32))
    )
    for method in (
        ImportancePrune(unseen=unseen),
        ImportanceReweight(unseen=unseen, groups="average"),
        LeaveOneOutPrune(unseen=unseen),
        AllSources(unseen=unseen),
    ):
        existence = attempt(method, hidden).existence
        np.testing.assert_array_equal(existence[:2], float(unseen == "keep"))


def test_random_pruning_removes_as_much() -> None:
    work = work_of(rows=600)
    learned = attempt(ImportancePrune(rate=50.0, steps=30), work)
    random = attempt(RandomPrune(rate=50.0, steps=30), work)
    assert random.removed == learned.removed > 0
    assert not np.array_equal(random.existence, learned.existence)


def test_bad_selections_are_refused() -> None:
    work = work_of()
    for existence in (np.ones(9), np.full(10, 1.5), np.full(10, np.nan)):
        with pytest.raises(BadOutput):
            selection_score(work, Selection(existence), 3)


# -- the WikiFact data ------------------------------------------------------------------------------------


@needs_data("wikifact-retrieval")
def test_wikifact_is_read_whole() -> None:
    corpus = wikifact.load("place_of_birth", "raw", 0)
    assert corpus.retrieved.sources.shape == (1708, 50)
    assert corpus.retrieved.count == 9631
    assert len(corpus.names) == 8179
    assert corpus.names[corpus.groups[corpus.retrieved.sources[0, 0]]] == "everybodywiki.com"
    answers = corpus.retrieved.answers
    assert answers is not None
    assert corpus.strings[answers[0, 0]] == "Kansas City, Missouri"
    assert corpus.retrieved.utilities[0, :5].tolist() == [1, 0, 1, 1, 1]


@needs_data("wikifact-retrieval")
def test_learning_raises_the_utility_on_place_of_birth() -> None:
    work = SourceSelection().load(3)
    grouped = work.validation.grouped(work.groups, work.group_count)
    at_half = recursions.utility(grouped, np.full(work.group_count, 0.5), 10)
    with_all = recursions.utility(grouped, np.ones(work.group_count), 10)
    learned = recursions.utility(grouped, recursions.ascend(grouped, 10, rate=500.0, steps=50), 10)
    assert at_half < with_all < learned


@needs_data("wikifact-retrieval")
@pytest.mark.parametrize("method", [AllSources(), FirstAnswer(), LeaveOneOutPrune(), ImportancePrune(steps=5)])
def test_methods_attempt_source_selection(method: Any) -> None:
    metrics = run_once(method, SourceSelection(relation="currency")).metrics
    assert 0.2 < metrics["accuracy"] < 0.6


@needs_data("wikifact-retrieval")
def test_noisy_sources_are_as_good_as_their_quality() -> None:
    raw = wikifact.load("place_of_birth", "raw", 7).retrieved
    noisy = wikifact.load("place_of_birth", "noise", 7).retrieved
    assert noisy.sources.shape == (1708, 250)
    assert noisy.count == 50
    kept = np.zeros(50)
    for source in range(50):
        held = noisy.sources == source
        was_right = np.repeat(raw.utilities == 1, 5, axis=1)
        kept[source] = noisy.utilities[held & was_right].mean()
        assert held.sum(axis=1).max() == 5  # a tenth of the ranks
        assert not noisy.utilities[held & ~was_right].any()
    np.testing.assert_allclose(np.sort(kept), np.repeat([0.2, 0.4, 0.6, 0.8, 1.0], 10), atol=0.06)
    again = wikifact.load("place_of_birth", "noise", 7).retrieved
    np.testing.assert_array_equal(again.utilities, noisy.utilities)
