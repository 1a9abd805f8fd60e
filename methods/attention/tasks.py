"""Tasks of the attention family: one layer's attention, forward or with its gradient, a layer that reads a prompt, and a
language model."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from harness.errors import BadOutput, RequestError
from harness.method import Metric, Task, task
from harness.seeding import torch_generator
from harness.types import NonNegativeInt, PositiveInt
from methods.attention.heads import KINDS, haystack, structured
from methods.attention.inputs import draw
from methods.attention.layer_scores import SCORES, layer_scores
from methods.attention.llama import held_out, long_context_recipe
from methods.attention.prefill_scores import (
    KINDS_SCORES,
    PREFILL_SCORES,
    kinds_scores,
    needle_scores,
    prefill_scores,
)
from methods.attention.work import Attended, Inputs, Prompt, Text


@task(
    "self-attention",
    metrics=SCORES,
    amount_unit="tokens",
    data=("gutenberg-novels",),
)
class SelfAttention(Task[Inputs, Attended]):
    """softmax(Q K^T / sqrt(d)) V of one layer, forward."""

    length: PositiveInt = 4096
    """n, tokens."""
    heads: PositiveInt = 1
    """Heads of queries."""
    key_heads: NonNegativeInt = 0
    """Heads of keys and values, of which `heads` is a multiple (grouped-query attention); 0: one for each
    head of queries."""
    batch: PositiveInt = 1
    """Sequences, all of the same length."""
    head_dim: PositiveInt = 64
    """d of queries, keys and values."""
    causal: bool = False
    """Whether a query sees only the keys up to its own place."""
    inputs: Literal["gaussian", "clustered", "shared-clusters", "language-model"] = "gaussian"
    """Independent standard normal; queries and keys around shared centres (see `inputs.clustered`); normalised
    vectors around centres that are queries and keys at once (see `inputs.shared_clusters`); or those of the
    last layer of a byte-level model with this many heads, trained on this length and cached, on held-out
    text."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of queries, keys and values; scores are computed from these in float32."""
    scored_rows: PositiveInt = 4096
    """Queries that are scored, drawn at random, when there are more (see `methods.attention.error`)."""

    def load(self, seed: int) -> Inputs:
        key_heads = self.key_heads or self.heads
        if self.heads % key_heads:
            raise RequestError(f"heads ({self.heads}) must be a multiple of key_heads ({key_heads})")
        q, k, v = draw(
            self.inputs, seed, self.heads, self.length, self.head_dim, key_heads=key_heads, batch=self.batch
        )
        rows = torch.randperm(self.length, generator=torch_generator(seed, "scored rows"))
        dtype = getattr(torch, self.dtype)
        return Inputs(
            q.to(dtype), k.to(dtype), v.to(dtype), self.causal, self.upstream(seed, q), rows[: self.scored_rows]
        )

    def upstream(self, seed: int, q: Tensor) -> Tensor | None:
        """The gradient that the backward pass starts from, of the output's shape, which is that of `q`."""
        return None

    def amount(self, work: Inputs) -> float:
        return float(self.batch * self.length)

    def score(self, work: Inputs, output: Attended) -> dict[str, float]:
        return layer_scores(work, output)


@task(
    "self-attention-gradient",
    metrics=(
        *SCORES,
        Metric(
            "gradient_error",
            better="lower",
            doc="Frobenius norm of the error of the queries' gradient over that of the gradient.",
        ),
    ),
    amount_unit="tokens",
    data=("gutenberg-novels",),
)
class SelfAttentionGradient(SelfAttention):
    """softmax(Q K^T / sqrt(d)) V of one layer, forward and backward to Q, K and V from a random gradient."""

    def upstream(self, seed: int, q: Tensor) -> Tensor | None:
        up = torch.randn(q.shape, generator=torch_generator(seed, "upstream"))
        return up.to(getattr(torch, self.dtype))


@task(
    "long-context-language-model",
    metrics=[
        Metric("perplexity", better="lower", doc="exp of the mean loss in nats."),
        Metric(
            "perplexity_base_2",
            better="lower",
            doc="2 to the power of the mean loss in nats, as the authors of HyperAttention computed it.",
        ),
    ],
    amount_unit="tokens",
    data=("gutenberg-novels",),
)
class LongContextLanguageModel(Task[Text, Tensor]):
    """The log-probability of each byte of held-out text given the bytes before it in its window.

    The model is a byte-level transformer, trained at this length on the rest of the text and cached. The
    methods differ in how its layers attend.
    """

    length: PositiveInt = 4096
    """n, bytes of a window."""
    windows: PositiveInt = 4
    """Windows of held-out text, drawn at random."""
    layers: PositiveInt = 4
    """Of the model."""
    heads: PositiveInt = 2
    """Of each layer."""
    head_dim: PositiveInt = 64
    """Of each head."""
    feed_forward: PositiveInt = 344
    """Width of the gated feed-forward layers."""
    steps: NonNegativeInt = 250
    """Of training, each on one window; 0 leaves the weights random, when only time matters."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the model when it is evaluated."""

    def load(self, seed: int) -> Text:
        recipe = long_context_recipe(
            self.length, self.layers, self.heads, self.head_dim, self.feed_forward, self.steps
        )
        return Text(held_out(recipe, seed, self.windows), recipe)

    def amount(self, work: Text) -> float:
        return float(work.tokens.numel())

    def score(self, work: Text, output: Tensor) -> dict[str, float]:
        """`output`: log-probabilities in nats of bytes 1..n-1 of each window, float32, (windows, n - 1)."""
        expected = (self.windows, self.length - 1)
        if tuple(output.shape) != expected:
            raise BadOutput(f"the log-probabilities have shape {tuple(output.shape)}, not {expected}")
        loss = -float(output.double().mean())
        if not loss < 700:
            raise BadOutput(f"the mean loss is {loss}")
        return {"perplexity": torch.tensor(loss).double().exp().item(), "perplexity_base_2": 2.0**loss}


@task("prefill-attention", metrics=PREFILL_SCORES, amount_unit="tokens", data=("gutenberg-novels",))
class PrefillAttention(Task[Inputs, Attended]):
    """Causal attention of one layer over a whole prompt, as before the first token is generated.

    An output without `pairs` is taken as one that attended to every key. Scores are over all queries, from exact
    attention in float32 to the same inputs.
    """

    length: PositiveInt = 4096
    """n, tokens."""
    heads: PositiveInt = 4
    """Heads of queries."""
    key_heads: NonNegativeInt = 0
    """Heads of keys and values, of which `heads` is a multiple (grouped-query attention); 0: one for each
    head of queries."""
    batch: PositiveInt = 1
    """Sequences, all of the same length."""
    head_dim: PositiveInt = 64
    """d of queries, keys and values."""
    inputs: Literal[
        "all-kinds", "vertical", "sharp", "slash", "topic", "topic-sharp", "language-model", "gaussian"
    ] = "all-kinds"
    """Key heads of that kind (see `methods.attention.heads`), or of several kinds in turn: all four for
    "all-kinds". Those of the last layer of a byte-level model trained on this length, on held-out text; or
    independent standard normal."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of queries, keys and values."""

    def kinds(self) -> list[str]:
        """The kind of each key head of a sequence."""
        key_heads = self.key_heads or self.heads
        names = list(KINDS) if self.inputs == "all-kinds" else self.inputs.split("-")
        return [names[head % len(names)] for head in range(key_heads)]

    def load(self, seed: int) -> Inputs:
        key_heads = self.key_heads or self.heads
        if self.heads % key_heads:
            raise RequestError(f"heads ({self.heads}) must be a multiple of key_heads ({key_heads})")
        if self.inputs in ("language-model", "gaussian"):
            drawn = draw(
                self.inputs, seed, self.heads, self.length, self.head_dim, key_heads=key_heads, batch=self.batch
            )
        else:
            drawn = structured(
                self.kinds() * self.batch, seed, self.heads // key_heads, self.length, self.head_dim
            )
        q, k, v = (x.to(getattr(torch, self.dtype)) for x in drawn)
        return Inputs(q, k, v, True, None, torch.arange(self.length))

    def amount(self, work: Inputs) -> float:
        return float(self.batch * self.length)

    def score(self, work: Inputs, output: Attended) -> dict[str, float]:
        return prefill_scores(work, output)[0]


@task(
    "mixed-heads-attention",
    metrics=(
        *PREFILL_SCORES,
        *KINDS_SCORES,
    ),
    amount_unit="tokens",
    data=("gutenberg-novels",),
)
class MixedHeadsAttention(PrefillAttention):
    """Causal attention over a prompt with heads of all four kinds, each kind also scored alone.

    `inputs` stays "all-kinds".
    """

    def load(self, seed: int) -> Inputs:
        if set(self.kinds()) != set(KINDS):
            raise RequestError("mixed-heads-attention needs inputs 'all-kinds' and four heads of keys or more")
        return super().load(seed)

    def score(self, work: Inputs, output: Attended) -> dict[str, float]:
        return kinds_scores(work, output, self.kinds() * self.batch)


@task(
    "needle-retrieval",
    metrics=[
        Metric("accuracy", doc="Share of the asking rows whose output is nearest to the value of their word."),
        Metric(
            "density", better="lower", doc="Pairs attended to over all causal pairs; not those of the search."
        ),
    ],
    amount_unit="tokens",
)
class NeedleRetrieval(Task[Inputs, Attended]):
    """Find words in a prompt, each of which stands at one place, with one head of attention."""

    length: PositiveInt = 4096
    """n, tokens."""
    prompts: PositiveInt = 16
    """Prompts, each a head."""
    needles: PositiveInt = 1
    """Words that are asked for in each prompt."""
    repeat: PositiveInt = 1
    """Consecutive rows that ask for the same word."""
    asked: Literal["end", "middle"] = "end"
    """Where the asking rows end: at the end of the prompt, or at three quarters of it."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of queries, keys and values."""

    def load(self, seed: int) -> Prompt:
        hay = haystack(
            seed, self.prompts, self.length, self.needles, self.repeat, middle=self.asked == "middle"
        )
        q, k, v = (x.to(getattr(torch, self.dtype)) for x in (hay.q, hay.k, hay.v))
        return Prompt(q, k, v, True, None, torch.arange(self.length), hay.asking, hay.answers, hay.codebook)

    def amount(self, work: Inputs) -> float:
        return float(self.prompts * self.length)

    def score(self, work: Inputs, output: Attended) -> dict[str, float]:
        assert isinstance(work, Prompt)
        return needle_scores(work, output)
