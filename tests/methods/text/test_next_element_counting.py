"""Next elements: scores, splits, and the methods that count."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BadOutput, RequestError
from harness.seeding import rng
from harness.testing import run_once
from methods.text.next_element_prediction import score, sequences
from methods.text.next_element_prediction.active_lezi import ActiveLeZi
from methods.text.next_element_prediction.baselines import Constant
from methods.text.next_element_prediction.forecaster import choose
from methods.text.next_element_prediction.markov import AllOrders, ContextTree, MarkovChain, choose_all_orders
from methods.text.next_element_prediction.method import MarkovChainMethod
from methods.text.next_element_prediction.score import Forecasts
from methods.text.next_element_prediction.sequences import targets, windows
from methods.text.next_element_prediction.tasks import NextElement, NextElementOnline
from methods.text.next_element_prediction.transition_system import ABSTRACTIONS, TransitionSystem
from tests.conftest import needs_data

WORKED = ((0, 1, 2), (0, 2, 1), (0, 1, 2), (0, 1))
TRACES = st.lists(st.lists(st.integers(0, 3), max_size=7).map(tuple), min_size=1, max_size=12)
MADE_UP = sequences.automaton(400, rng(1, "log"))


@pytest.mark.parametrize(
    ("order", "squared", "brier", "right"),
    [(0, 11.2, 0.186667, 4), (1, 4.833333, 0.080556, 11), (2, 2.833333, 0.047222, 13)],
)
def test_worked_example(order, squared, brier, right):
    following = targets(WORKED, 4)
    p = MarkovChain(WORKED, 4, order).forecasts(WORKED)
    assert len(p) == 15
    assert score.brier(p, following) == pytest.approx(brier, abs=1e-6)
    assert score.brier(p, following) * 15 * 4 == pytest.approx(squared, abs=1e-5)
    found = score.scores(Forecasts(p, 0), following, score.order_zero(WORKED, 4)).metrics
    if order:
        assert found["accuracy"] * 15 == pytest.approx(right)
    else:
        # a, b and END are each 4 of the 15 symbols, so that a tie decides which one is always said.
        assert sorted(np.bincount(following)) == [3, 4, 4, 4]
        assert found["accuracy"] * 15 == pytest.approx(right)


def test_uniform_forecast():
    following = np.arange(28)
    p = Constant(np.full(28, 1 / 28)).forecasts([tuple(range(27))])
    assert score.brier(p, following) == pytest.approx(0.0344388, abs=5e-8)
    assert score.brier(p, following) == pytest.approx((1 / 28) * (1 - 1 / 28))


def test_scores_against_their_definitions():
    draw = np.random.default_rng(0)
    p = draw.dirichlet(np.ones(5), 200)
    p[::7] = 0
    following = draw.integers(0, 5, 200)
    fallback = np.array([0.1, 0.2, 0.3, 0.25, 0.15])
    found = score.scores(Forecasts(p, 3), following, fallback).metrics
    truth = np.eye(5)[following]
    silent = ~p.any(axis=1)
    assert found["brier"] == pytest.approx(((p - truth) ** 2).mean())
    assert found["brier_filled"] == pytest.approx(
        ((np.where(silent[:, None], fallback, p) - truth) ** 2).mean()
    )
    assert found["abstained"] == silent.mean()
    assert found["log_loss"] == pytest.approx(
        np.mean([-np.log(max(p[i, following[i]], 1e-12)) for i in range(200)])
    )
    assert found["accuracy"] == np.mean([not silent[i] and p[i].argmax() == following[i] for i in range(200)])
    # All zeros cost 1/K, a wrong certainty 2/K.
    assert score.brier(np.zeros((1, 5)), following[:1]) == pytest.approx(1 / 5)
    assert score.brier(np.eye(5)[[1]], np.array([2])) == pytest.approx(2 / 5)


def test_calibration_error():
    confidence = np.repeat([0.5, 0.9], [100, 200])
    assert score.calibration_error(confidence, np.tile([1.0, 0.0], 150)) == pytest.approx(0.4 * 200 / 300)
    right = np.concatenate([np.tile([1.0, 0.0], 50), np.repeat([1.0, 0.0], [180, 20])])
    assert score.calibration_error(confidence, right) == pytest.approx(0)
    # Where the confidence is the probability of being right, the error goes to zero.
    draw = np.random.default_rng(0)
    confidence = draw.random(40_000)
    assert score.calibration_error(confidence, (draw.random(40_000) < confidence).astype(float)) < 0.02


@pytest.mark.parametrize("change", [0.1, -0.1, np.nan])
def test_what_is_no_distribution_is_refused(change):
    p = np.full((4, 4), 0.25)
    p[2, 1] += change
    with pytest.raises(BadOutput, match="simplex"):
        score.scores(Forecasts(p, 0), np.zeros(4, dtype=int), np.full(4, 0.25))
    with pytest.raises(BadOutput, match="shape"):
        score.scores(Forecasts(p[:3], 0), np.zeros(4, dtype=int), np.full(4, 0.25))


@given(TRACES, st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_windows_are_the_last_elements(traces, width):
    found = windows(traces, width, 5)
    expected = [
        [trace[i - lag] if i >= lag else 4 for lag in range(1, width + 1)]
        for trace in traces
        for i in range(len(trace) + 1)
    ]
    assert found.tolist() == expected


@given(TRACES, TRACES, st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_markov_chains_and_akom_against_dictionaries(train, test, order):
    def context(trace, i, k):
        return ((4,) * k + trace[:i])[len(trace[:i]) :]

    tables: list[dict] = [{} for _ in range(order + 1)]
    for trace in train:
        for i, symbol in enumerate((*trace, 4)):
            for k in range(order + 1):
                tables[k].setdefault(context(trace, i, k), np.zeros(5))[symbol] += 1
    fixed, backed_off = [], []
    for trace in test:
        for i in range(len(trace) + 1):
            rows = [tables[k].get(context(trace, i, k)) for k in range(order + 1)]
            fixed.append(np.zeros(5) if rows[order] is None else rows[order] / rows[order].sum())
            seen = next(row for row in reversed(rows) if row is not None)
            backed_off.append(seen / seen.sum())
    assert np.allclose(MarkovChain(train, 5, order).forecasts(test), fixed)
    assert np.allclose(AllOrders(ContextTree(train, 5, order), order).forecasts(test), backed_off)


@given(TRACES, TRACES, st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_transition_systems(train, test, window):
    systems = {a: TransitionSystem(train, 5, window, a).forecasts(test) for a in ABSTRACTIONS}
    assert np.allclose(systems["sequence"], MarkovChain(train, 5, window).forecasts(test))
    if window == 1:
        assert np.allclose(systems["set"], systems["sequence"])
        assert np.allclose(systems["multiset"], systems["sequence"])

    def state(kind, last):
        return frozenset(last) if kind == "set" else tuple(sorted(last))

    for kind in ("set", "multiset"):
        counts: dict = {}
        for trace in train:
            for i, symbol in enumerate((*trace, 4)):
                counts.setdefault(state(kind, trace[max(0, i - window) : i]), np.zeros(5))[symbol] += 1
        rows = [
            counts.get(state(kind, trace[max(0, i - window) : i]), np.zeros(5))
            for trace in test
            for i in range(len(trace) + 1)
        ]
        expected = np.array([row / max(row.sum(), 1) for row in rows])
        assert np.allclose(systems[kind], expected)


def test_a_window_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="smaller window"):
        TransitionSystem(WORKED, 48, 12, "sequence")


def test_in_sample_the_order_helps_and_out_of_sample_it_has_a_best():
    log = sequences.automaton(300, rng(2, "log"))
    work = sequences.divide(log, 0, 1 / 3, 0.2)
    inside, outside = [], []
    for order in range(7):
        model = MarkovChain(work.train, work.symbols, order)
        inside.append(score.brier(model.forecasts(work.train), targets(work.train, work.symbols)))
        outside.append(score.brier(model.forecasts(work.test), work.targets()))
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(inside))
    assert 0 < int(np.argmin(outside)) < 6


def test_akom_chooses_the_order_that_validates_best():
    work = sequences.divide(MADE_UP, 3, 1 / 3, 0.2)
    chosen = choose_all_orders(work, 8)

    def fit(order, traces):
        return AllOrders(ContextTree(traces, work.symbols, order), order)

    order, model = choose(range(1, 9), fit, work)
    assert chosen.order == order
    assert np.array_equal(chosen.forecasts(work.test), model.forecasts(work.test))
    with pytest.raises(ValueError, match="no setting"):
        choose([], fit, work)


@given(TRACES, TRACES)
@settings(max_examples=25, deadline=None)
def test_active_lezi_is_a_distribution(train, test):
    p = ActiveLeZi(train, 5).forecasts(test)
    assert (p >= 0).all()
    assert np.allclose(p.sum(axis=1), 1)


def test_active_lezi_by_hand():
    # Phrases of one trace START a END: START, a, END; the window holds one element, so that only order 0 counts.
    model = ActiveLeZi([(0,)], 2)
    assert model.longest == 1
    assert np.allclose(model.forecasts([(0,)]), 0.5)
    # The second trace makes the phrase START a, and contexts of one element count from then on.
    model = ActiveLeZi([(0,), (0, 0)], 2)
    assert model.longest == 2
    # After START: once followed by a (the first trace saw no context): 1 of 2, and an escape of 1/2 to order 0, 3/5.
    assert model.forecasts([()])[0, 0] == pytest.approx(0.5 + 0.5 * 3 / 5)


def test_the_split_keeps_traces_whole():
    log = sequences.Log(("a",), tuple((0,) * n for n in range(1, 91)))
    work = sequences.divide(log, 5, 1 / 3, 0.2)
    assert (len(work.train), len(work.test), len(work.validation)) == (60, 30, 12)
    assert sorted(work.train + work.test) == sorted(log.traces)
    assert sorted(work.fitting + work.validation) == sorted(work.train)
    assert sequences.divide(log, 6, 1 / 3, 0.2).test != work.test


def test_tasks():
    task = NextElement(log="automaton", traces=60)
    measured = run_once(MarkovChainMethod(), task).metrics
    assert measured["prefixes"] == task.amount(task.load(1000))
    online = NextElementOnline(log="automaton", traces=60, queries=7)
    whole, asked = run_once(MarkovChainMethod(), task), run_once(MarkovChainMethod(), online)
    assert asked.metrics["prefixes"] == 7
    assert whole.metrics["prefixes"] > 7
    work = online.load(1000)
    assert all(any(t[: len(q)] == q for t in task.load(1000).test) for q in work.test)
    with pytest.raises(RequestError, match="leave"):
        NextElement(log="automaton", traces=2).load(0)


@needs_data("event-logs")
def test_the_logs():
    counts = {"receipt": (1434, 8577, 27), "sepsis": (1050, 15214, 16), "nasa": (2566, 36819, 47)}
    for name, expected in counts.items():
        log = sequences.read(name)
        assert (len(log.traces), sum(map(len, log.traces)), len(log.activities)) == expected
    assert NextElement(log="receipt", traces=90).load(0).symbols <= 28
