"""Next elements: networks and their search, logistic regression, and every method on one made-up log."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.seeding import rng
from harness.testing import prepared, run_once
from methods.text.next_element_prediction import baselines, method, neural, score, sequences
from methods.text.next_element_prediction.networks import NextSymbolNetwork
from methods.text.next_element_prediction.neural import NeuralForecaster, Recipe
from methods.text.next_element_prediction.tasks import NextElement

TASK = NextElement(log="automaton", traces=60)
WORK = TASK.load(1000)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru", "transformer"])
def test_a_pass_over_a_trace_is_a_pass_over_each_prefix(cell):
    torch.manual_seed(0)
    network = NextSymbolNetwork(3, cell=cell, layers=2, units=8, embedding=0, dropout=0.3, longest=4)
    model = NeuralForecaster(network, "cpu")
    trace = (0, 1, 1, 0, 0, 1)
    whole = model.forecasts([trace, (1,)])
    single = [model.forecasts([trace[:i]])[-1] for i in range(len(trace) + 1)]
    assert np.allclose(whole[:7], single, atol=1e-6)
    assert np.allclose(whole.sum(axis=1), 1, atol=1e-12)


def test_the_loss_is_the_brier_score():
    recipe = Recipe(units=8, embedding=4)
    torch.manual_seed(0)
    network = NextSymbolNetwork(3, units=8, embedding=4)
    batch = neural._tensors(WORK.fitting, 3, "cpu")
    p = NeuralForecaster(network, "cpu").forecasts(WORK.fitting)
    expected = score.brier(p, sequences.targets(WORK.fitting, 3))
    assert neural._loss(network, batch, recipe).item() == pytest.approx(expected, abs=1e-6)
    weights = [p for name, p in network.body.named_parameters() if "weight" in name]
    penalised = Recipe(units=8, embedding=4, l1=0.01, l2=0.1)
    extra = sum((0.01 * w.abs().sum() + 0.1 * (w**2).sum()).item() for w in weights)
    assert neural._loss(network, batch, penalised).item() == pytest.approx(expected + extra, rel=1e-5)


def test_training_learns_keeps_the_best_epoch_and_repeats():
    log = sequences.automaton(240, rng(3, "log"))
    work = sequences.divide(log, 0, 1 / 3, 0.2)
    recipe = Recipe(units=16, embedding=0, batch=16, learning_rate=0.02, epochs=8, patience=3)
    trained = neural.train(work.fitting, 3, recipe, seed=1, validation=work.validation)
    following = sequences.targets(work.validation, 3)
    assert score.brier(trained.model.forecasts(work.validation), following) == pytest.approx(
        trained.best, abs=1e-6
    )
    assert trained.validation[trained.epochs - 1] == trained.best
    unigram = score.brier(np.tile(score.order_zero(work.train, 3), (len(following), 1)), following)
    assert trained.best < unigram - 0.02
    again = neural.train(work.fitting, 3, recipe, seed=1, validation=work.validation)
    assert again.validation == trained.validation
    assert neural.refit(work.train, 3, recipe, 2, seed=1, device="cpu").size == trained.model.size


def test_patience_stops():
    recipe = Recipe(units=2, embedding=0, learning_rate=1e-12, epochs=50, patience=2)
    trained = neural.train(WORK.fitting, 3, recipe, seed=1, validation=WORK.validation)
    assert len(trained.validation) < 50


def test_the_search_stays_in_the_authors_space():
    optuna = pytest.importorskip("optuna")
    from methods.text.next_element_prediction import neural_search

    recipe, trained = neural_search.search(WORK, Recipe(embedding=0, epochs=1), 3, seed=2**40, device="cpu")
    assert 1 <= recipe.layers <= 3
    assert 10 <= recipe.units <= 150
    assert 8 <= recipe.batch <= 64
    assert 1e-5 <= recipe.learning_rate <= 1e-2
    assert trained.epochs == 1
    fixed = optuna.trial.FixedTrial(
        {"layers": 2, "units": 10, "dropout": 0.5, "l1": 1e-5, "l2": 1e-1, "batch": 8, "learning_rate": 1e-2}
    )
    assert neural_search.suggested(fixed, Recipe(cell="gru")) == Recipe(
        cell="gru", layers=2, units=10, dropout=0.5, l1=1e-5, l2=1e-1, batch=8, learning_rate=1e-2
    )


def test_logistic_regression_on_one_element_is_the_markov_chain():
    log = sequences.automaton(300, rng(5, "log")).traces
    from methods.text.next_element_prediction.markov import MarkovChain

    logistic = baselines.LogisticForecaster(log, 3, 1, 1e6, 1000)
    assert np.allclose(logistic.forecasts(log[:20]), MarkovChain(log, 3, 1).forecasts(log[:20]), atol=0.01)


SMALL = {
    "HiddenMarkovMethod": {"ratios": (0.5, 1.0), "iterations": 5, "final_iterations": 5},
    "RecurrentNetwork": {"units": 8, "epochs": 1},
    "RecurrentNetworkSearch": {"draws": 1, "epochs": 1, "cell": "gru"},
    "CausalTransformer": {"units": 8, "epochs": 1},
    "HmmlearnMethod": {"ratios": (1.0,), "iterations": 3},
    "SpectralMethod": {"ranks": (2, 3), "basis": 30},
}
EVERY = [
    value
    for module in (method, baselines)
    for value in vars(module).values()
    if isinstance(value, type) and value.__module__ == module.__name__ and hasattr(value, "attempts")
]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.name)
def test_every_method(kind):
    for package in kind.packages:
        pytest.importorskip(package.split(">")[0])
    each = kind(**SMALL.get(kind.__name__, {}))
    measured = run_once(each, TASK).metrics
    assert measured["simplex_error"] < 1e-6
    assert measured["brier"] < 2 / 3
    if kind.name not in ("uniform-forecast", "active-lezi", "petri-net", "causal-transformer", "recurrent-network-search",
                         "recurrent-network"):  # fmt: skip
        unigram = run_once(baselines.UnigramForecast(), TASK).metrics["brier"]
        assert measured["brier"] <= unigram + 1e-12


def test_methods_refuse_and_honour_their_parameters():
    with pytest.raises(ValueError, match="multiple of 4"):
        baselines.CausalTransformer(units=10)
    assert prepared(method.TransitionSystemMethod(windows=(2,), abstractions=("set",)), TASK).model.window == 2
    assert prepared(method.AlergiaMethod(alphas=(0.5,)), TASK).model.states >= 1
    early = prepared(method.RecurrentNetwork(units=4, epochs=1, refit=False), TASK)
    assert early.model.size == sum(p.numel() for p in early.model.network.parameters())
