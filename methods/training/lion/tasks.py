"""What an update rule does to each coordinate, and the search for an optimizer program."""

from __future__ import annotations

import math

import torch

from harness.errors import BadOutput
from harness.method import Metric, Task, task
from harness.seeding import derive, rng
from harness.types import Fraction, NonNegativeFloat, PositiveInt
from methods.training.lion.programs import InvalidProgram, adamw, kinds
from methods.training.lion.proxies import Proxy, digits
from methods.training.lion.search import Found, Search
from methods.training.loop import GivenGradients, Outcome, Workload

RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""Learning rates of AdamW that are tried before the search."""


@task(
    "optimizer-updates",
    metrics=[
        Metric(
            "step_deviation",
            better="lower",
            doc="Largest | |change| / lr - 1 | of a coordinate that changed, over all steps.",
        ),
        Metric(
            "scale_dependence",
            better="lower",
            doc="Largest difference, in units of lr, that gradients 1024 times as large make to the path.",
        ),
    ],
)
class OptimizerUpdates(Task[Workload, Outcome]):
    """Feed an optimizer gradients of very different sizes in float64 and look at each coordinate's moves.

    Coordinates come in two halves with the same initial values; the second half's gradients are those of the
    first times 1024. Sizes are spread log-uniformly over `decades`, and `zeros` of the coordinates have no
    gradient until half the steps are over.
    """

    coordinates: PositiveInt = 2000
    """Coordinates of one half."""
    steps: PositiveInt = 50
    """Updates."""
    decades: NonNegativeFloat = 8.0
    """log10 of the largest over the smallest scale of a gradient."""
    zeros: Fraction = 0.1
    """Share of coordinates whose gradient is 0 in the first half of the steps."""

    def load(self, seed: int) -> GivenGradients:
        """Initial values are standard normal."""
        random = rng(seed, "gradients")
        scale = 10.0 ** random.uniform(-self.decades / 2, self.decades / 2, self.coordinates)
        gradients = scale * random.standard_normal((self.steps, self.coordinates))
        gradients[: self.steps // 2, random.random(self.coordinates) < self.zeros] = 0.0
        half = torch.from_numpy(gradients)
        values = torch.from_numpy(random.standard_normal(self.coordinates))
        return GivenGradients(values.repeat(2), torch.cat([half, 1024.0 * half], dim=1))

    def score(self, work: Workload, output: Outcome) -> dict[str, float]:
        """Deviations in units of the learning rate."""
        if output.path is None:
            raise BadOutput("the path of the parameters is missing")
        lr = float(output.optimizer.param_groups[0]["lr"])
        path = output.path.cpu()
        moves = path.diff(dim=0).abs() / lr
        moved = moves[moves > 0]
        first, second = path.chunk(2, dim=1)
        return {
            "step_deviation": float((moved - 1).abs().max()) if len(moved) else 0.0,
            "scale_dependence": float((first - second).abs().max()) / lr,
        }


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
        # A training that diverges knows no more than a uniform guess over ten digits.
        loss, proxy_loss = (
            score if math.isfinite(score := proxy.score(output.program)) else math.log(10)
            for proxy in (work.target, work.proxy)
        )
        return {
            "test_loss": loss,
            "gain": work.target.score(work.start) - loss,
            "proxy_gain": work.proxy.score(work.start) - proxy_loss,
            "statements": float(len(output.program)),
        }
