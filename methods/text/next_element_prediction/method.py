"""The methods that the paper compares (arXiv 1811.00062).

From machine learning: Markov chains, AKOM, Active LeZi, hidden Markov models, recurrent networks. From grammar inference:
ALERGIA and spectral learning. From process mining: transition systems and discovered Petri nets.
"""

from __future__ import annotations

from itertools import product
from typing import Literal

from harness.method import method
from harness.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from methods.text.next_element_prediction import alergia, hidden_markov, petri_forecast
from methods.text.next_element_prediction.active_lezi import ActiveLeZi
from methods.text.next_element_prediction.forecaster import Forecaster, NextElementMethod, choose
from methods.text.next_element_prediction.hidden_markov import HiddenMarkov, random_parameters
from methods.text.next_element_prediction.markov import MarkovChain, choose_all_orders
from methods.text.next_element_prediction.sequences import Sequences, Traces
from methods.text.next_element_prediction.spectral import Hankel, Spectral
from methods.text.next_element_prediction.transition_system import ABSTRACTIONS, TransitionSystem


@method("markov-chain", task=("next-element", "next-element-online"))
class MarkovChainMethod(NextElementMethod):
    """A Markov chain of fixed order: what followed the last elements; nothing in a context that was not seen."""

    order: NonNegativeInt = 1
    """Elements of the context, padded at the start of a trace."""

    def fit(self, work: Sequences) -> Forecaster:
        """Count."""
        return MarkovChain(work.train, work.symbols, self.order)


@method("akom", task=("next-element", "next-element-online"))
class Akom(NextElementMethod):
    """All-k-th-order Markov: the longest context that was seen, of an order chosen on the validation traces."""

    orders: PositiveInt = 19
    """The largest order to choose from."""

    def fit(self, work: Sequences) -> Forecaster:
        """Count, and choose the order."""
        return choose_all_orders(work, self.orders)


@method("active-lezi", task=("next-element", "next-element-online"))
class ActiveLeZiMethod(NextElementMethod):
    """Active LeZi: all contexts in a window as long as the longest LZ78 phrase, blended as PPM does."""

    def fit(self, work: Sequences) -> Forecaster:
        """Count."""
        return ActiveLeZi(work.train, work.symbols)


@method("hidden-markov-model", task=("next-element", "next-element-online"))
class HiddenMarkovMethod(NextElementMethod):
    """A hidden Markov model with ratio x K states, fitted by expectation maximisation."""

    ratios: tuple[float, ...] = (0.1, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
    """States for each of the K symbols to choose from; at least one state."""
    stops: tuple[Literal["likelihood", "parameters"], ...] = ("likelihood", "parameters")
    """Stopping rules to choose from: a small change of the likelihood of a symbol, or of every probability."""
    tolerance: PositiveFloat = 0.0001
    """What a small change is, in nats or in probability."""
    iterations: PositiveInt = 10_000
    """Steps at most while settings are chosen."""
    final_iterations: PositiveInt = 50_000
    """Steps at most on all training traces."""

    def fit(self, work: Sequences) -> Forecaster:
        """Choose states and stopping rule, and fit."""

        def fitted(setting: tuple[float, Literal["likelihood", "parameters"]], traces: Traces) -> HiddenMarkov:
            ratio, stop = setting
            states = max(1, round(ratio * work.symbols))
            begin = random_parameters(states, work.symbols, self.context.rng("hidden Markov model", states))
            most = self.final_iterations if traces is work.train else self.iterations
            return hidden_markov.fit(traces, begin, iterations=most, stop=stop, tolerance=self.tolerance)[0]

        return choose(product(self.ratios, self.stops), fitted, work)[1]


@method("recurrent-network", task=("next-element", "next-element-online"))
class RecurrentNetwork(NextElementMethod):
    """A recurrent network trained on the Brier score, with the epoch chosen on the validation traces."""

    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    """Kind of its layers."""
    layers: PositiveInt = 1
    """How many."""
    units: PositiveInt = 64
    """Width of a layer."""
    embedding: NonNegativeInt = 64
    """Width of the learned input; 0 feeds one-hot vectors as the authors do."""
    dropout: Fraction = 0.0
    """Between layers and before the output."""
    l1: NonNegativeFloat = 0.0
    """Weight of the penalty on the absolute weights."""
    l2: NonNegativeFloat = 0.0
    """Weight of the penalty on the squared weights."""
    batch: PositiveInt = 32
    """Traces of a step."""
    learning_rate: PositiveFloat = 0.005
    """Of Adam."""
    epochs: PositiveInt = 25
    """At most."""
    patience: PositiveInt = 8
    """Epochs without a better validation score after which training stops."""
    refit: bool = True
    """Whether a fresh network is trained on all training traces for the chosen number of epochs."""

    def fit(self, work: Sequences) -> Forecaster:
        """Train."""
        from methods.text.next_element_prediction import neural

        recipe = neural.Recipe(
            cell=self.cell,
            layers=self.layers,
            units=self.units,
            embedding=self.embedding,
            dropout=self.dropout,
            l1=self.l1,
            l2=self.l2,
            batch=self.batch,
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            patience=self.patience,
        )
        seed, device = self.context.derive("network"), self.context.device
        trained = neural.train(
            work.fitting, work.symbols, recipe, seed=seed, device=device, validation=work.validation
        )
        if not self.refit:
            return trained.model
        return neural.refit(work.train, work.symbols, recipe, trained.epochs, seed=seed, device=device)


@method("recurrent-network-search", task=("next-element", "next-element-online"), packages=("optuna>=4",))
class RecurrentNetworkSearch(NextElementMethod):
    """The authors' recurrent network: one-hot inputs, its recipe found by a tree-structured Parzen search."""

    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    """Kind of its layers."""
    draws: PositiveInt = 60
    """Recipes that are tried: layers, units, dropout, penalties, batch, learning rate."""
    epochs: PositiveInt = 200
    """Of each training, at most."""
    patience: PositiveInt = 20
    """Epochs without a better validation score after which a training stops."""

    def fit(self, work: Sequences) -> Forecaster:
        """Search on the fitting and validation traces; train the best recipe on all training traces."""
        from methods.text.next_element_prediction import neural, neural_search

        base = neural.Recipe(cell=self.cell, embedding=0, epochs=self.epochs, patience=self.patience)
        seed, device = self.context.derive("network"), self.context.device
        recipe, trained = neural_search.search(work, base, self.draws, seed=seed, device=device)
        return neural.refit(work.train, work.symbols, recipe, trained.epochs, seed=seed, device=device)


@method("transition-system", task=("next-element", "next-element-online"))
class TransitionSystemMethod(NextElementMethod):
    """A transition system over abstractions of the last elements; zeros in a state that was not seen."""

    windows: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Numbers of last elements to choose from."""
    abstractions: tuple[Literal["set", "multiset", "sequence"], ...] = ("set", "multiset", "sequence")
    """What of them makes a state, to choose from."""

    def fit(self, work: Sequences) -> Forecaster:
        """Choose window and abstraction, and count."""
        settings = product(self.windows, [a for a in ABSTRACTIONS if a in self.abstractions])
        return choose(settings, lambda s, traces: TransitionSystem(traces, work.symbols, *s), work)[1]


@method("alergia", task=("next-element", "next-element-online"))
class AlergiaMethod(NextElementMethod):
    """ALERGIA: states of the prefix tree are merged where a Hoeffding bound finds their futures compatible."""

    alphas: tuple[float, ...] = (0.000001, 0.0001, 0.01, 0.05, 0.2, 0.5, 0.8)
    """Of the bound, to choose from; a larger one means fewer merges."""

    def fit(self, work: Sequences) -> Forecaster:
        """Choose alpha, and merge."""
        return choose(
            self.alphas,
            lambda alpha, traces: alergia.Alergia(alergia.merge(traces, alpha), work.symbols),
            work,
        )[1]


@method("spectral-automaton", task=("next-element", "next-element-online"))
class SpectralMethod(NextElementMethod):
    """Spectral learning: a weighted automaton from the singular value decomposition of a Hankel matrix."""

    ranks: tuple[int, ...] = (5, 10, 20, 40, 80)
    """Numbers of states to choose from."""
    basis: PositiveInt = 400
    """Rows and columns of the matrix: the most frequent prefixes and stretches."""
    reach: PositiveInt = 6
    """Elements of the longest stretch."""

    def fit(self, work: Sequences) -> Forecaster:
        """Choose the rank, and decompose."""
        hankels: dict[bool, Hankel] = {}

        def fitted(rank: int, traces: Traces) -> Spectral:
            final = traces is work.train
            if final not in hankels:
                hankels[final] = Hankel(traces, work.symbols, self.basis, self.reach)
            return Spectral(hankels[final], rank)

        return choose(self.ranks, fitted, work)[1]


@method("petri-net", task=("next-element", "next-element-online"))
class PetriNetMethod(NextElementMethod):
    """A Petri net found by the Inductive Miner; forecasts are the frequencies in the markings that are reached."""

    shares: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4)
    """Shares of the strongest edge out of an activity below which edges are dropped, to choose from."""
    weighting: Literal["frequency", "uniform"] = "frequency"
    """Relative frequencies of what the net allows, or equal shares of it."""

    def fit(self, work: Sequences) -> Forecaster:
        """Choose the share, discover the net, and replay the training traces."""
        return choose(
            self.shares,
            lambda share, traces: petri_forecast.mine(traces, work.symbols, share, self.weighting),
            work,
        )[1]
