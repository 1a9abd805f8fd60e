"""The search for an optimizer program, the second part of the paper."""

from __future__ import annotations

from harness.errors import BadOutput
from harness.method import Metric, Task, task
from harness.seeding import derive
from harness.types import PositiveInt
from methods.training.lion.programs import InvalidProgram, adamw, kinds
from methods.training.lion.proxies import Proxy, digits
from methods.training.lion.search import Found, Search

RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""Learning rates of AdamW that are tried before the search."""


@task(
    "optimizer-program-search",
    metrics=[
        Metric("test_loss", "nats", "lower", "Of the target training with the program that was found."),
        Metric("gain", "nats", doc="Test loss of AdamW with a tuned learning rate minus that of the program."),
        Metric("proxy_gain", "nats", doc="The same on the cheap proxy that the search sees."),
        Metric("statements", better="lower", doc="Length of the program."),
    ],
    repeats="once",
)
class OptimizerProgramSearch(Task[Search, Found]):
    """Find a program that trains better than AdamW with a tuned learning rate.

    Programs train perceptrons on scikit-learn's digits. The cheap proxy and the stages are validated on images
    that the target training does not use.
    """

    steps: PositiveInt = 60
    """Steps of a training on the cheap proxy."""
    hidden: PositiveInt = 16
    """Hidden units of the cheap proxy."""
    batch: PositiveInt = 32
    """Images of a step."""
    trainings: PositiveInt = 1
    """Trainings with different weights that a score on the cheap proxy is the mean of."""
    stages: PositiveInt = 2
    """Stages of meta-validation; stage k has 2**k times the steps and hidden units, and k more trainings."""

    def load(self, seed: int) -> Search:
        """Weights and batches of all trainings depend on the seed; the split of the images does not."""
        data = digits()
        proxy = Proxy(
            data.train,
            data.validation,
            self.hidden,
            self.steps,
            self.batch,
            tuple(derive(seed, "proxy", i) for i in range(self.trainings)),
        )
        stages = tuple(
            Proxy(
                data.train,
                data.validation,
                self.hidden * 2**k,
                self.steps * 2**k,
                self.batch,
                tuple(derive(seed, "stage", k, i) for i in range(self.trainings + k)),
            )
            for k in range(1, self.stages + 1)
        )
        last = stages[-1]
        target = Proxy(
            data.train,
            data.test,
            last.hidden,
            last.steps,
            self.batch,
            tuple(derive(seed, "target", i) for i in range(4)),
        )
        start = min((adamw(rate) for rate in RATES), key=proxy.score)
        return Search(start, proxy, stages, target)

    def score(self, work: Search, output: Found) -> dict[str, float]:
        """Losses of the program and of AdamW on the target and on the cheap proxy."""
        try:
            kinds(output.program)
        except InvalidProgram as error:
            raise BadOutput(f"the program is not valid: {error}") from error
        loss = work.target.score(output.program)
        return {
            "test_loss": loss,
            "gain": work.target.score(work.start) - loss,
            "proxy_gain": work.proxy.score(work.start) - work.proxy.score(output.program),
            "statements": float(len(output.program)),
        }
