"""The Routing Transformer (Roy et al., TACL 2021): tokens attend to those of their cluster."""

from __future__ import annotations

from torch import Tensor, cat

from harness.method import method
from harness.types import NonNegativeInt
from methods.attention.pairs import PATTERN
from methods.attention.routing_transformer import routing
from methods.attention.routing_transformer.layers import Centred
from methods.attention.routing_transformer.training import Trained
from methods.attention.work import Inputs


@method("routing-attention", task=("self-attention", "self-attention-gradient"), metrics=PATTERN)
class RoutingAttention(Centred):
    """One routing head: the members of a cluster are the tokens nearest to its centroid.

    The centroids are what training would have made of them: k-means over the layer's own queries and keys, in
    `prepare`.
    """

    iterations: NonNegativeInt = 10
    """Of k-means."""

    def initial(self, x: Inputs) -> Tensor:
        keys = x.k.repeat_interleave(x.group, 0)
        tokens = x.q if self.shared else cat([x.q, keys], 1)
        draws = self.context.torch_generator("first centroids")
        return routing.k_means(routing.normalise(tokens.float()), self.count, self.iterations, draws)


@method("routing-transformer", task=("associative-recall", "long-text-training"))
class RoutingTransformer(Trained):
    """Half of the heads are local, half route by centroids that online k-means moves."""

    other = "routing"
