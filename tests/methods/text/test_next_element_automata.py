"""Next elements: ALERGIA, hidden Markov models, spectral learning, discovered Petri nets."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.seeding import rng
from methods.text.next_element_prediction import alergia, hidden_markov, sequences
from methods.text.next_element_prediction.inductive_miner import discover
from methods.text.next_element_prediction.markov import MarkovChain
from methods.text.next_element_prediction.petri_forecast import PetriForecaster, mine
from methods.text.next_element_prediction.petri_net import fire, from_tree
from methods.text.next_element_prediction.process_tree import SILENT, leaf, node
from methods.text.next_element_prediction.sequences import targets
from methods.text.next_element_prediction.spectral import Hankel, Spectral

TRACES = st.lists(st.lists(st.integers(0, 3), max_size=6).map(tuple), min_size=1, max_size=10)
MADE_UP = sequences.automaton(500, rng(1, "log")).traces


# -- ALERGIA -----------------------------------------------------------------------------------------------


def test_hoeffding_radius():
    assert alergia.hoeffding_radius(100, 50, 0.05) == pytest.approx(0.327875, abs=5e-7)


@pytest.mark.parametrize("alpha", [0.005, 0.05])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_alergia_finds_the_three_states(alpha, seed):
    log = sequences.automaton(20_000, rng(seed, "log"))
    model = alergia.Alergia(alergia.merge(log.traces, alpha), 3)
    assert model.states == 3
    begin, after_a, after_b = model.forecasts([(0,), (1,)])[[0, 1, 3]]
    assert np.allclose(begin, [0.6, 0.4, 0], atol=0.02)
    assert np.allclose(after_a, [0.3, 0, 0.7], atol=0.02)
    assert np.allclose(after_b, [0, 0.5, 0.5], atol=0.02)


@given(TRACES, TRACES)
@settings(max_examples=50, deadline=None)
def test_alergia_between_the_prefix_tree_and_the_unigram(train, test):
    counts: dict = {}
    for trace in train:
        for i, symbol in enumerate((*trace, 4)):
            counts.setdefault(trace[:i], np.zeros(5))[symbol] += 1
    rows = [counts.get(trace[:i], np.zeros(5)) for trace in test for i in range(len(trace) + 1)]
    tree = np.array([row / max(row.sum(), 1) for row in rows])
    assert np.allclose(alergia.Alergia(alergia.merge(train, 0.05, 0.0), 5).forecasts(test), tree)
    one = alergia.Alergia(alergia.merge(train, 0.05, math.inf), 5)
    assert one.states == 1
    known = {a for trace in train for a in trace}
    seen = [trace for trace in test if set(trace) <= known]
    if seen:
        assert np.allclose(one.forecasts(seen), MarkovChain(train, 5, 0).forecasts(seen))


@given(TRACES, st.sampled_from([0.01, 0.5, 1.5]))
@settings(max_examples=50, deadline=None)
def test_merging_loses_no_trace(train, alpha):
    automaton = alergia.merge(train, alpha)
    states = automaton.reachable()
    assert sum(automaton.ends[q] for q in states) == len(train)
    for symbol in range(4):
        taken = sum(automaton.counts[q].get(symbol, 0) for q in states)
        assert taken == sum(trace.count(symbol) for trace in train)
    # What flows into a state flows out of it.
    into = Counter({0: float(len(train))})
    for q in states:
        for symbol, after in automaton.moves[q].items():
            into[after] += automaton.counts[q][symbol]
    assert all(into[q] == automaton.total(q) for q in states)


def test_alergia_against_aalpy():
    pytest.importorskip("aalpy")
    from aalpy.learning_algs import run_Alergia

    from methods.text.next_element_prediction.baselines import MarkovChainStates

    # AALpy merges only states after the same element, so the two agree where the minimal automaton is of that kind.
    log = sequences.automaton(4000, rng(4, "log")).traces
    theirs = MarkovChainStates(run_Alergia([["start", *t, 2] for t in log], "mc", eps=0.05), 3)
    ours = alergia.Alergia(alergia.merge(log, 0.05), 3)
    test = MADE_UP[:60]
    assert np.abs(theirs.forecasts(test) - ours.forecasts(test)).max() < 0.12


# -- hidden Markov models ------------------------------------------------------------------------------------


def test_one_state_is_the_unigram():
    begin = hidden_markov.random_parameters(1, 3, np.random.default_rng(0))
    model, _ = hidden_markov.fit(MADE_UP, begin, iterations=2)
    assert np.allclose(model.forecasts(MADE_UP[:20]), MarkovChain(MADE_UP, 3, 0).forecasts(MADE_UP[:20]))


def test_forward_likelihoods_of_the_next_symbols_sum_to_the_prefix():
    model = hidden_markov.HiddenMarkov(hidden_markov.random_parameters(4, 3, np.random.default_rng(0)))
    for prefix in [(), (0,), (1, 0, 0, 1)]:
        parts = np.exp([model.log_likelihood((*prefix, a)) for a in range(3)])
        assert parts.sum() == pytest.approx(math.exp(model.log_likelihood(prefix)))
        assert np.allclose(model.forecasts([prefix])[-1], parts / parts.sum())


def test_the_likelihood_rises_and_hmmlearn_takes_the_same_steps():
    hmmlearn = pytest.importorskip("hmmlearn.hmm")
    begin = hidden_markov.random_parameters(3, 3, np.random.default_rng(0))
    train = MADE_UP[:80]
    model, history = hidden_markov.fit(train, begin, iterations=5, tolerance=1e-12)
    assert all(b > a for a, b in itertools.pairwise(history))
    theirs = hmmlearn.CategoricalHMM(3, n_features=3, n_iter=5, tol=-np.inf, init_params="")
    theirs.startprob_, theirs.transmat_, theirs.emissionprob_ = begin.start, begin.move, begin.emit
    theirs.fit(targets(train, 3)[:, None], [len(t) + 1 for t in train])
    assert np.allclose(model.parameters.emit, theirs.emissionprob_, atol=1e-8)
    assert np.allclose(model.parameters.move, theirs.transmat_, atol=1e-8)
    assert np.allclose(model.parameters.start, theirs.startprob_, atol=1e-8)


def test_what_no_state_emits_is_an_abstention_and_stops_are_kept():
    begin = hidden_markov.random_parameters(2, 4, np.random.default_rng(0))
    model, history = hidden_markov.fit([(0, 1)] * 5, begin, iterations=500, stop="parameters", tolerance=1e-3)
    assert len(history) < 500
    p = model.forecasts([(2, 0)])
    assert p[0].sum() == pytest.approx(1)
    assert not p[1:].any()


# -- spectral learning ---------------------------------------------------------------------------------------


def test_spectral_learning_is_exact_at_full_rank():
    train = MADE_UP[:60]
    hankel = Hankel(train, 3, 10_000, 60)
    model = Spectral(hankel, 10_000)
    for trace in set(train):
        sequence = (*trace, 2)
        for i in range(len(sequence) + 1):
            share = np.mean([(*t, 2)[:i] == sequence[:i] for t in train])
            assert model.value(sequence[:i]) == pytest.approx(share, abs=1e-8)


def test_spectral_learning_recovers_the_automaton():
    log = sequences.automaton(20_000, rng(0, "log")).traces
    p = Spectral(Hankel(log, 3, 100, 5), 3).forecasts([(0,), (1,)])
    assert np.allclose(p[0], [0.6, 0.4, 0], atol=0.03)
    assert np.allclose(p[1], [0.3, 0, 0.7], atol=0.03)
    assert np.allclose(p[3], [0, 0.5, 0.5], atol=0.03)


# -- process trees and Petri nets ----------------------------------------------------------------------------


def test_inductive_miner():
    assert str(discover([(0, 1, 2, 3), (0, 2, 1, 3)])) == "seq(0, and(1, 2), 3)"
    assert str(discover([(0,), (1, 2)])) == "xor(0, seq(1, 2))"
    assert str(discover([(0, 1), (0,)])) == "seq(0, xor(tau, 1))"
    assert str(discover([(0, 1, 0), (0,), (0, 1, 0, 1, 0)])) == "loop(0, 1)"
    assert str(discover([(0, 0), (0,)])) == "loop(0, tau)"
    assert str(discover([()])) == "tau"
    # Rare behaviour, one trace of a hundred, is dropped with a share.
    rare = [(0, 1, 2)] * 99 + [(0, 2, 1)]
    assert str(discover(rare)) == "seq(0, and(1, 2))"
    assert str(discover(rare, 0.2)) == "seq(0, 1, 2)"


@given(st.lists(st.lists(st.integers(0, 4), max_size=7).map(tuple), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_every_trace_is_a_run_and_replay_agrees_with_the_silent_closure(traces):
    net = from_tree(discover(traces))
    model = PetriForecaster(net, traces, 6, "frequency")
    for trace in traces:
        state = model.begin
        for i, symbol in enumerate((*trace, 5)):
            closure = set().union(*(net.closure(marking) for marking in state))
            enabled = [
                any(fire(m, t) is not None for m in closure for t in net.labelled.get(a, ())) for a in range(5)
            ]
            assert model.allowed(state).tolist() == [*enabled, net.sink in closure]
            assert model.allowed(state)[symbol], f"{trace} does not fit {discover(traces)} at {i}"
            state = model.step(state, symbol) if symbol != 5 else state
    p = model.forecasts(traces)
    assert np.allclose(p.sum(axis=1), 1)


def test_the_flower_counts_as_the_unigram():
    net = from_tree(node("flower", leaf(0), leaf(1)))
    p = PetriForecaster(net, MADE_UP, 3, "frequency").forecasts(MADE_UP[:20])
    assert np.allclose(p, MarkovChain(MADE_UP, 3, 0).forecasts(MADE_UP[:20]))
    assert np.allclose(PetriForecaster(net, (), 3, "uniform").forecasts(MADE_UP[:20]), 1 / 3)


def test_the_net_of_one_trace_is_certain():
    trace = (2, 0, 3, 1)
    p = mine([trace], 5, 0.0, "frequency").forecasts([trace])
    assert np.allclose(p[np.arange(5), [*trace, 4]], 1)
    uniform = mine([trace], 5, 0.0, "uniform").forecasts([trace])
    assert np.allclose(uniform, p)


def test_what_does_not_fit_is_skipped():
    model = mine([(0, 1, 2)], 4, 0.0, "frequency")
    p = model.forecasts([(0, 2, 1, 2)])
    assert p.argmax(axis=1).tolist() == [0, 1, 1, 2, 3]


def test_states_that_training_did_not_reach_are_abstentions():
    net = from_tree(node("parallel", leaf(0), leaf(1)))
    model = PetriForecaster(net, [(0, 1)], 3, "frequency")
    p = model.forecasts([(1, 0)])
    assert p[0].tolist() == [1, 0, 0]
    assert not p[1].any()
    assert p[2].tolist() == [0, 0, 1]


def test_hand_overs_go_and_trees_are_flat():
    assert node("sequence", leaf(0), node("sequence", leaf(1), leaf(2))).parts == (leaf(0), leaf(1), leaf(2))
    assert node("choice", leaf(0)) == leaf(0)
    assert from_tree(SILENT).transitions == []
    flower = from_tree(node("flower", leaf(0)))
    assert (len(flower.transitions), flower.places) == (2, 2)
    nested = from_tree(node("parallel", leaf(0), node("loop", leaf(1), SILENT)))
    assert nested.can_end(nested.source) is False
    with pytest.raises(OverflowError, match="more than 1"):
        nested.closure(nested.source, limit=1)
