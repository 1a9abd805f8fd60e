"""Forecasting the next element of a trace, after every prefix of many traces or after single prefixes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from harness.errors import RequestError
from harness.method import Measurement, Metric, Task, task
from harness.seeding import rng
from harness.types import Fraction, NonNegativeInt, PositiveInt
from methods.text.next_element_prediction import sequences
from methods.text.next_element_prediction.score import Forecasts, order_zero, scores
from methods.text.next_element_prediction.sequences import Sequences

FORECAST_METRICS = (
    Metric("brier", better="lower", doc="Mean squared error over the K probabilities of a forecast."),
    Metric("brier_filled", better="lower", doc="The same, all-zero forecasts replaced by order 0."),
    Metric("accuracy", doc="Share of prefixes whose likeliest symbol is next; abstentions are misses."),
    Metric("accuracy_filled", doc="The same, all-zero forecasts replaced by order 0."),
    Metric("log_loss", "nats", "lower", "Mean of -ln p of what was next; p at least 1e-12."),
    Metric("log_loss_filled", "nats", "lower", "The same, all-zero forecasts replaced by order 0."),
    Metric("calibration_error", better="lower", doc="Confidence against accuracy, 15 bins of equal width."),
    Metric("classwise_calibration_error", better="lower", doc="The same for each symbol, mean over symbols."),
    Metric("abstained", better="lower", doc="Share of all-zero forecasts."),
    Metric("simplex_error", better="lower", doc="Largest distance of a forecast from the simplex."),
    Metric("model_size", better="lower", doc="Parameters or counts of the model."),
    Metric("prefixes", better="neither", doc="Forecasts."),
)


@task("next-element", metrics=FORECAST_METRICS, amount_unit="prefixes", data=("event-logs",))
class NextElement(Task[Sequences, Forecasts]):
    """Forecast a distribution over the next element, or END, after every prefix of unseen traces.

    Every seed is a repetition of the paper's protocol: the traces are shuffled, the first two thirds are learnt
    from, a shuffled fifth of those chooses settings, and the last third is forecast.
    """

    log: Literal["receipt", "sepsis", "nasa", "bpi12", "helpdesk", "automaton"] = "receipt"
    """The event log: one of the paper's four, the help desk of an Italian company, or draws from a made-up
    automaton of three states (no data needed)."""
    traces: NonNegativeInt = 0
    """How many traces are taken, drawn at random; 0 for all (automaton: 600)."""
    test_share: Fraction = 0.3333333333333333
    """Share of the traces that is forecast."""
    validation_share: Fraction = 0.2
    """Share of the other traces on which settings are chosen."""

    def load(self, seed: int) -> Sequences:
        """The log, shuffled and split by `seed`."""
        if self.log == "automaton":
            log = sequences.automaton(self.traces or 600, rng(seed, "automaton"))
        else:
            log = sequences.read(self.log)
            if self.traces:
                kept = rng(seed, "traces").permutation(len(log.traces))[: self.traces]
                log = replace(log, traces=tuple(log.traces[i] for i in sorted(kept)))
        work = sequences.divide(log, seed, self.test_share, self.validation_share)
        if not (work.test and work.fitting and work.validation):
            raise RequestError(
                f"{len(log.traces)} traces leave {len(work.fitting)} to fit, {len(work.validation)} to "
                f"validate and {len(work.test)} to test; each needs one",
                hint="take more traces or change test_share and validation_share",
            )
        return work

    def score(self, work: Sequences, output: Forecasts) -> Measurement:
        """The metrics of `score.scores`, with the order-0 distribution of the training traces to fall back on."""
        return scores(output, work.targets(), order_zero(work.train, work.symbols))

    def amount(self, work: Sequences) -> float:
        """Prefixes."""
        return float(len(work.targets()))


@task("next-element-online", metrics=FORECAST_METRICS, amount_unit="prefixes", data=("event-logs",))
class NextElementOnline(NextElement):
    """Forecast what follows single prefixes, as a running system asks for it: the latency of one answer."""

    queries: PositiveInt = 1
    """How many prefixes are asked for at once."""

    def load(self, seed: int) -> Sequences:
        """The same split; the prefixes are drawn from all prefixes of the test traces, each as likely."""
        work = super().load(seed)
        draw = rng(seed, "queries")
        weights = [len(trace) + 1 for trace in work.test]
        total = sum(weights)
        prefixes, following = [], []
        for trace in draw.choice(len(work.test), self.queries, p=[w / total for w in weights]):
            whole = work.test[int(trace)]
            cut = int(draw.integers(len(whole) + 1))
            prefixes.append(whole[:cut])
            following.append(whole[cut] if cut < len(whole) else work.end)
        return replace(work, test=tuple(prefixes), whole=False, following=tuple(following))
