"""What the paper's methods are held against: floors, logistic regression, other implementations, a transformer."""

from __future__ import annotations

import numpy as np

from harness.method import method
from harness.types import Fraction, PositiveFloat, PositiveInt
from methods.text.next_element_prediction.forecaster import Forecaster, NextElementMethod, choose
from methods.text.next_element_prediction.markov import MarkovChain
from methods.text.next_element_prediction.sequences import Sequences, Traces, count_prefixes, targets, windows


class Constant(Forecaster):
    """The same distribution after every prefix."""

    def __init__(self, distribution: np.ndarray) -> None:
        self.distribution = distribution

    def forecasts(self, traces: Traces) -> np.ndarray:
        """See `Forecaster.forecasts`."""
        return np.tile(self.distribution, (count_prefixes(traces), 1))

    @property
    def size(self) -> int:
        """Nothing is learnt."""
        return 0


@method("uniform-forecast", task=("next-element", "next-element-online"))
class UniformForecast(NextElementMethod):
    """The same probability for each symbol; its Brier score is (1/K)(1 - 1/K)."""

    def fit(self, work: Sequences) -> Forecaster:
        """Nothing to fit."""
        return Constant(np.full(work.symbols, 1 / work.symbols))


@method("unigram-forecast", task=("next-element", "next-element-online"))
class UnigramForecast(NextElementMethod):
    """The shares of the symbols in the training traces, whatever the prefix."""

    def fit(self, work: Sequences) -> Forecaster:
        """Count."""
        return MarkovChain(work.train, work.symbols, 0)


class LogisticForecaster(Forecaster):
    """Multinomial logistic regression on which symbol stands at each of the last `width` places."""

    def __init__(self, traces: Traces, symbols: int, width: int, c: float, iterations: int) -> None:
        from sklearn.linear_model import LogisticRegression

        self.symbols, self.width = symbols, width
        following = targets(traces, symbols)
        rows, counts = np.unique(
            np.column_stack([windows(traces, width, symbols), following]), axis=0, return_counts=True
        )
        self.model = LogisticRegression(C=c, max_iter=iterations)
        self.model.fit(self._one_hot(rows[:, :-1]), rows[:, -1], sample_weight=counts)

    def _one_hot(self, before: np.ndarray):
        from scipy import sparse

        columns = before + np.arange(self.width) * self.symbols
        rows = np.repeat(np.arange(len(before)), self.width)
        ones = np.ones(columns.size)
        return sparse.csr_matrix(
            (ones, (rows, columns.ravel())), shape=(len(before), self.width * self.symbols)
        )

    def forecasts(self, traces: Traces) -> np.ndarray:
        """See `Forecaster.forecasts`."""
        found = self.model.predict_proba(self._one_hot(windows(traces, self.width, self.symbols)))
        out = np.zeros((len(found), self.symbols))
        out[:, self.model.classes_] = found
        return out

    @property
    def size(self) -> int:
        """Weights and biases."""
        return int(self.model.coef_.size + self.model.intercept_.size)


@method("logistic-forecast", task=("next-element", "next-element-online"))
class LogisticForecast(NextElementMethod):
    """scikit-learn's multinomial logistic regression on the last elements, one-hot."""

    width: PositiveInt = 5
    """How many last elements."""
    c: PositiveFloat = 1.0
    """Inverse strength of the L2 penalty."""
    iterations: PositiveInt = 100
    """Of the solver, at most."""

    def fit(self, work: Sequences) -> Forecaster:
        """Fit on all training traces."""
        return LogisticForecaster(work.train, work.symbols, self.width, self.c, self.iterations)


@method("hmmlearn-hmm", task=("next-element", "next-element-online"), packages=("hmmlearn>=0.3.2",))
class HmmlearnMethod(NextElementMethod):
    """hmmlearn's CategoricalHMM, with the forecasts of the hidden Markov model here."""

    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """States for each of the K symbols, to choose from."""
    tolerance: PositiveFloat = 0.1
    """Least gain of the log-likelihood of all traces (nats)."""
    iterations: PositiveInt = 100
    """Steps at most."""

    def fit(self, work: Sequences) -> Forecaster:
        """Choose the number of states, and fit."""
        from hmmlearn.hmm import CategoricalHMM

        from methods.text.next_element_prediction.hidden_markov import HiddenMarkov, Parameters

        def fitted(ratio: float, traces: Traces) -> HiddenMarkov:
            model = CategoricalHMM(
                n_components=max(1, round(ratio * work.symbols)),
                n_features=work.symbols,
                n_iter=self.iterations,
                tol=self.tolerance,
                random_state=self.context.derive("hmmlearn") % 2**32,
            )
            model.fit(targets(traces, work.symbols)[:, None], [len(trace) + 1 for trace in traces])
            return HiddenMarkov(Parameters(model.startprob_, model.transmat_, model.emissionprob_))

        return choose(self.ratios, fitted, work)[1]


class MarkovChainStates(Forecaster):
    """An AALpy Markov chain: each state emits one symbol, and the symbol names which of its successors is next."""

    def __init__(self, chain: object, symbols: int) -> None:
        states = list(chain.states)  # type: ignore[attr-defined]
        row = {id(state): i for i, state in enumerate(states)}
        self.shares = np.zeros((len(states) + 1, symbols))  # the last row is the lost state
        self.moves: list[dict[int, int]] = [{} for _ in states]
        for i, state in enumerate(states):
            for after, probability in state.transitions:
                self.shares[i, after.output] += probability
                self.moves[i][after.output] = row[id(after)]
        self.begin = row[id(chain.initial_state)]  # type: ignore[attr-defined]

    def forecasts(self, traces: Traces) -> np.ndarray:
        """See `Forecaster.forecasts`."""
        lost, rows = len(self.moves), []
        for trace in traces:
            state = self.begin
            rows.append(state)
            for symbol in trace:
                state = lost if state == lost else self.moves[state].get(symbol, lost)
                rows.append(state)
        return self.shares[rows]

    @property
    def size(self) -> int:
        """The frequencies that are not zero."""
        return int(np.count_nonzero(self.shares))


@method("aalpy-alergia", task=("next-element", "next-element-online"), packages=("aalpy>=1.4",))
class AalpyAlergia(NextElementMethod):
    """AALpy's ALERGIA for Markov chains, in which only states after the same element are merged."""

    alphas: tuple[float, ...] = (0.0001, 0.05, 0.5)
    """Of the bound, to choose from."""

    def fit(self, work: Sequences) -> Forecaster:
        """Choose alpha, and merge."""
        from aalpy.learning_algs import run_Alergia

        def fitted(alpha: float, traces: Traces) -> MarkovChainStates:
            data = [["start", *trace, work.end] for trace in traces]
            return MarkovChainStates(run_Alergia(data, "mc", eps=alpha), work.symbols)

        return choose(self.alphas, fitted, work)[1]


@method("causal-transformer", task=("next-element", "next-element-online"))
class CausalTransformer(NextElementMethod):
    """A causal transformer with learned positions, trained as the recurrent networks are: a black box of today."""

    layers: PositiveInt = 2
    """How many."""
    units: PositiveInt = 64
    """Width, a multiple of 4, the number of heads."""
    dropout: Fraction = 0.1
    """In the layers and before the output."""
    batch: PositiveInt = 32
    """Traces of a step."""
    learning_rate: PositiveFloat = 0.001
    """Of Adam."""
    epochs: PositiveInt = 200
    """At most."""
    patience: PositiveInt = 20
    """Epochs without a better validation score after which training stops."""

    def __post_init__(self) -> None:
        if self.units % 4:
            raise ValueError(f"units: {self.units} is not a multiple of 4, the number of heads")

    def fit(self, work: Sequences) -> Forecaster:
        """Train, with the epoch chosen on the validation traces, and again on all training traces."""
        from methods.text.next_element_prediction import neural

        recipe = neural.Recipe(
            cell="transformer",
            layers=self.layers,
            units=self.units,
            dropout=self.dropout,
            batch=self.batch,
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            patience=self.patience,
        )
        seed, device = self.context.derive("network"), self.context.device
        trained = neural.train(
            work.fitting, work.symbols, recipe, seed=seed, device=device, validation=work.validation
        )
        return neural.refit(work.train, work.symbols, recipe, trained.epochs, seed=seed, device=device)
