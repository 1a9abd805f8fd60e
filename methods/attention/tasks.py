"""Tasks of the attention family: one layer's attention, forward or with its gradient, and a language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.errors import BadOutput, RequestError
from harness.method import Metric, Task, task
from harness.seeding import torch_generator
from harness.types import NonNegativeInt, PositiveInt
from methods.attention.error import exact_lse, exact_rows, spectral_norm
from methods.attention.heads import KINDS, haystack, structured
from methods.attention.inputs import draw
from methods.attention.llama import held_out, long_context_recipe
from methods.attention.prefill_scores import densities, prefill_scores
from methods.common.language_model import Recipe


@dataclass(frozen=True)
class Inputs:
    """Queries, keys and values of a layer.

    Attributes:
        q: shape (heads, n, d), the heads of all sequences of the batch one after another.
        k, v: shape (key heads, n, d), of the same dtype; query head h sees key head h // `group`.
        causal: whether query i sees only keys 0..i.
        upstream: gradient with respect to the output, shape of `q`, when the gradient is part of the task.
        rows: queries whose output is scored, int64, shape (rows,), in random order.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    causal: bool
    upstream: Tensor | None
    rows: Tensor

    @property
    def scale(self) -> float:
        """Of the scores: d ** -0.5."""
        return float(self.q.shape[-1] ** -0.5)

    @property
    def group(self) -> int:
        """Query heads that share a head of keys and values."""
        return len(self.q) // len(self.k)

    def to(self, device: str) -> Inputs:
        """The same on `device`."""
        up = None if self.upstream is None else self.upstream.to(device)
        q, k, v, rows = (x.to(device) for x in (self.q, self.k, self.v, self.rows))
        return Inputs(q, k, v, self.causal, up, rows)


@dataclass(frozen=True)
class Attended:
    """What a method returns.

    Attributes:
        out: shape (heads, n, d).
        lse: log of the row sums of exp(scaled scores), float32, shape (heads, n); None where the method has
            none.
        gradients: with respect to q, k and v, each of its shape, when that is the task.
        pairs: (query, key) pairs of each head that were attended to, shape (heads,); None for all of them.
    """

    out: Tensor
    lse: Tensor | None = None
    gradients: tuple[Tensor, Tensor, Tensor] | None = None
    pairs: Tensor | None = None


SCORES = (
    Metric(
        "operator_error",
        better="lower",
        doc="Operator norm of the error over those of the softmax matrix and of V.",
    ),
    Metric(
        "relative_error",
        better="lower",
        doc="Frobenius norm of the error over that of the output; above 1 is common when V has mean zero.",
    ),
    Metric("softmax_norm", better="neither", doc="Operator norm of the softmax matrix."),
    Metric("alpha", better="neither", doc="n times the largest squared column norm of the softmax matrix."),
)


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
        if output.out.shape != work.q.shape:
            raise BadOutput(f"the output has shape {tuple(output.out.shape)}, not {tuple(work.q.shape)}")
        if not bool(output.out.isfinite().all()):
            raise BadOutput("the output is not finite everywhere")
        each = [self._score_head(work, output, head) for head in range(len(work.q))]
        return {name: sum(head[name] for head in each) / len(each) for name in each[0]}

    def exact_lse(self, work: Inputs, device: torch.device) -> Tensor:
        """Log row sums of exp(scaled scores) at the scored rows, for methods that estimate them: (heads,
        rows)."""
        keys = work.k.to(device).repeat_interleave(work.group, 0)
        heads = zip(work.q.to(device), keys, strict=True)
        rows = work.rows.to(device)
        return torch.stack([exact_lse(q, k, rows, causal=work.causal, scale=work.scale) for q, k in heads])

    def _score_head(self, work: Inputs, output: Attended, head: int) -> dict[str, float]:
        device = output.out.device
        shared = head // work.group
        q, k, v, rows = (x.to(device) for x in (work.q[head], work.k[shared], work.v[shared], work.rows))
        up = None if work.upstream is None else work.upstream[head].to(device)
        exact = exact_rows(q, k, v, rows, causal=work.causal, scale=work.scale, upstream=up)
        error = output.out[head, rows].float() - exact.out
        stretch = (self.length / len(rows)) ** 0.5
        scores = {
            "operator_error": spectral_norm(error) * stretch / (exact.norm * spectral_norm(v.float())),
            "relative_error": float(error.norm() / exact.out.norm()),
            "softmax_norm": exact.norm,
            "alpha": exact.alpha,
        }
        if exact.query_gradient is None:
            return scores
        if output.gradients is None:
            raise BadOutput("the gradients are missing")
        if not all(bool(g.isfinite().all()) for g in output.gradients):
            raise BadOutput("a gradient is not finite everywhere")
        difference = output.gradients[0][head, rows].float() - exact.query_gradient
        return scores | {"gradient_error": float(difference.norm() / exact.query_gradient.norm())}


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


@dataclass(frozen=True)
class Text:
    """Text for a language model.

    Attributes:
        tokens: bytes as int64, shape (windows, n).
        recipe: what the model is made of; 0 steps leave its weights random.
    """

    tokens: Tensor
    recipe: Recipe


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


PREFILL_SCORES = (
    Metric("mass_recall", doc="Share of a query's softmax mass on the keys attended to, over all queries."),
    Metric("least_mass_recall", doc="The same in the head where it is lowest."),
    Metric("density", better="lower", doc="Pairs attended to over all causal pairs; not those of the search."),
    Metric("density_std", better="neither", doc="Standard deviation of the density over the heads."),
    Metric(
        "relative_error", better="lower", doc="Frobenius norm of the output's error over that of the output."
    ),
    Metric("output_recall", doc="Share of the output's entries with an absolute error below 0.01."),
    Metric("fine_output_recall", doc="Share of the output's entries with an absolute error below 0.005."),
)


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
        Metric("vertical_mass_recall", doc="Mean over the vertical heads."),
        Metric("sharp_mass_recall", doc="Mean over the sharp heads."),
        Metric("slash_mass_recall", doc="Mean over the slash heads."),
        Metric("topic_mass_recall", doc="Mean over the topic heads."),
        Metric("vertical_density", better="lower", doc="Mean over the vertical heads."),
        Metric("sharp_density", better="lower", doc="Mean over the sharp heads."),
        Metric("slash_density", better="lower", doc="Mean over the slash heads."),
        Metric("topic_density", better="lower", doc="Mean over the topic heads."),
        Metric("vertical_output_recall", doc="Mean over the vertical heads."),
        Metric("sharp_output_recall", doc="Mean over the sharp heads."),
        Metric("slash_output_recall", doc="Mean over the slash heads."),
        Metric("topic_output_recall", doc="Mean over the topic heads."),
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
        scores, each = prefill_scores(work, output)
        of_head = [kind for kind in self.kinds() * self.batch for _ in range(work.group)]
        for kind in KINDS:
            mine = torch.tensor([k == kind for k in of_head])
            for name in ("mass_recall", "density", "output_recall"):
                scores[f"{kind}_{name}"] = float(each[name][mine].mean())
        return scores


@dataclass(frozen=True)
class Prompt(Inputs):
    """Inputs in which some rows ask for a word.

    Attributes:
        asking, answers, codebook: see `methods.attention.heads.Haystack`.
    """

    asking: Tensor
    answers: Tensor
    codebook: Tensor


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
        if output.out.shape != work.q.shape:
            raise BadOutput(f"the output has shape {tuple(output.out.shape)}, not {tuple(work.q.shape)}")
        head = torch.arange(len(work.asking))[:, None]
        found = (output.out.cpu()[head, work.asking].float() @ work.codebook.T).argmax(-1)
        return {
            "accuracy": float((found == work.answers).float().mean()),
            "density": float(densities(work, output).mean()),
        }
