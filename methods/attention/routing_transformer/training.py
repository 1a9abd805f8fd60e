"""Training of a sparse transformer, the same for every kind of head."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.method import Measurement, Method, Series, as_measurement
from harness.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from methods.attention.routing_transformer.model import Kind, Shape, SparseTransformer
from methods.attention.routing_transformer.tasks import VOCABULARY, AssociativeRecall, LongTextTraining
from methods.common.language_model import fit


class Trained(Method[Any, Tensor]):
    """A decoder of which some heads are local and the others of one kind, trained from random weights."""

    other: ClassVar[Kind]

    layers: PositiveInt = 2
    """Of attention and feed-forward."""
    local_layers: NonNegativeInt = 0
    """Layers, from the first, with local heads alone; the released model for books has one other layer, the last."""
    width: PositiveInt = 64
    """Of the residual stream."""
    heads: PositiveInt = 4
    """Of each layer."""
    others: NonNegativeInt = 2
    """Heads of a layer that are not local, where the method has such heads."""
    feed_forward: PositiveInt = 128
    """Width of the gated feed-forward layers."""
    block: PositiveInt = 64
    """Tokens of a local block; a query also sees the block before. A stride is as long."""
    clusters: PositiveInt = 8
    """c."""
    window: PositiveInt = 64
    """w, tokens of a cluster."""
    token_shift: bool = True
    """Whether half of each input of attention is that of the token before."""
    variant: Literal["default", "official"] = "default"
    """"default": scores over sqrt(d), a routed token's own key masked, rotary positions. "official", as the authors'
    code for routed heads: no scale, no mask, embeddings of relative ranks in the cluster, eps = 1e-2."""
    decay: Fraction = 0.999
    """Of the centroids' averages."""
    centroid_rule: Literal["counts", "means"] = "counts"
    """How centroids move: by averaged counts and sums, or as in the paper's equation."""
    commitment: NonNegativeFloat = 0.0001
    """beta, weight of the loss that draws tokens to their centroid."""
    dropout: Fraction = 0.0
    """Of the residual branches while training."""
    steps: PositiveInt = 1000
    """Of training."""
    batch: PositiveInt = 8
    """Sequences of a step."""
    learning_rate: PositiveFloat = 0.003
    """Peak of AdamW, after a tenth of the steps, falling along a cosine."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of forward and backward; weights and centroids are float32."""

    def prepare(self, work: Any) -> None:
        self.shape = Shape(
            vocabulary=VOCABULARY,
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            others=self.heads if self.other == "full" else self.others,
            other=self.other,
            local_layers=self.local_layers,
            feed_forward=self.feed_forward,
            block=self.block,
            clusters=self.clusters,
            window=self.window,
            token_shift=self.token_shift,
            variant=self.variant,
            decay=self.decay,
            centroid_rule=self.centroid_rule,
            dropout=self.dropout,
        )
        self.fresh()  # parameters that do not fit together fail here

    def fresh(self) -> SparseTransformer:
        """The model before training."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.context.derive("initial weights"))
            return SparseTransformer(self.shape, self.context.torch_generator("centroids"))

    def run(self) -> Tensor:
        device = self.context.device
        self.model = model = self.fresh().to(device)
        optimizer = torch.optim.AdamW(
            model.parameters(), self.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        draws = self.context.torch_generator("training windows")

        def loss(_: int) -> Tensor:
            some = self._draw(draws).to(device)
            logits = model(some[:, :-1]).float()
            own = F.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten())
            return own + self.commitment * model.commitment()

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.context.derive("dropout"))
            self.losses = fit(model, optimizer, loss, steps=self.steps, warmup=0.1, precision=self.precision)
        return self._predict(model)

    def _draw(self, generator: torch.Generator) -> Tensor:
        """Training sequences, (batch, n + 1)."""
        if isinstance(self.task, AssociativeRecall):
            return self.task.draw(generator, self.batch).tokens
        assert isinstance(self.task, LongTextTraining)
        return self.task.draw(self.work, generator, self.batch)

    @torch.no_grad()
    def _predict(self, model: SparseTransformer) -> Tensor:
        """Log-probabilities, with the centroids as training left them."""
        tokens = self.work.tokens if isinstance(self.task, AssociativeRecall) else self.work.test
        parts = [
            model(some[:, :-1].to(self.context.device)).float().log_softmax(-1)
            for some in tokens.split(self.batch)
        ]
        return torch.cat(parts)

    def measure(self, output: Tensor) -> Measurement:
        losses = self.losses.tolist()
        curve = Series(range(len(losses)), losses, y_label="training loss")
        return as_measurement(self.task.score(self.work, output)) | Measurement({}, {"loss": curve})
