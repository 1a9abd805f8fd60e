"""Generation under a black-box constraint, the weights of single draws, and cost against divergence."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from harness.errors import BadOutput
from harness.method import Measurement, Metric, Task, task
from harness.seeding import rng
from harness.types import NonNegativeInt, PositiveFloat, PositiveInt
from methods.decoding.adaptive_weighted_rejection.constraints import HEADER, Pattern
from methods.decoding.adaptive_weighted_rejection.generation import Generations, Problem, patterns
from methods.decoding.adaptive_weighted_rejection.headers import header_lines, header_ngram, held_out_perplexity
from methods.decoding.adaptive_weighted_rejection.particles import mean_log
from methods.decoding.adaptive_weighted_rejection.weights import MaskedContexts, Pair, WeightSums
from methods.decoding.language_models import FloatArray
from methods.decoding.sql import SCHEMA

Domain = Literal["headers", "json", "sql", "molecules", "patterns"]


@task(
    "constrained-generation",
    metrics=[
        Metric("valid", "", "higher", "Weight of the strings in the language, a mean over the answers."),
        Metric("answered", "", "higher", "Share of the answers with a string of positive weight."),
        Metric("ended", "", "higher", "Share of the strings that ended before the limit."),
        Metric("evaluations", "", "lower", "Evaluations of the constraint for each token drawn."),
        Metric("reduction", "x", "higher", "Tokens of the vocabulary over the evaluations for each token."),
        Metric("sampler_time", "s", "lower", "For each token, the constraint included, the model left out."),
        Metric("model_time", "s", "lower", "For each token, in the language model."),
        Metric("tokens", "", "neither", "Tokens drawn for each answer, over all particles."),
        Metric("log_probability", "nats", "higher", "Weighted mean log P of the strings."),
        Metric("log_mass", "nats", "neither", "Log of the mean weight, which estimates P(language)."),
        Metric("divergence", "nats", "neither", "Mean -log Z of the tokens; of exact Z only, else -1."),
        Metric("rejections", "", "neither", "Mean 1/Z of the tokens, the draws of plain rejection; else -1."),
        Metric("kl", "nats", "lower", "Of the answers to P given the language, at most so much; else -1."),
        Metric(
            "perplexity", "", "lower", "Of the n-gram model for each token of held-out headers; else 0.", True
        ),
    ],
    repeats="once",
    amount_unit="answers",
    data=("regex-patterns", "conala"),
)
class ConstrainedGeneration(Task[Problem, Generations]):
    """Generate strings of a language that is known by a test alone, from a language model.

    An answer is a weighted set of strings, and what it is worth is the normalised weight of its correct strings: in
    `patterns` those that match the expression, elsewhere those in the language.

    Where weights are proper, the mean weight M of an answer has E[M] = P(language), and a string that is drawn from the
    answer in proportion to the weights has a law whose KL divergence from Q, P given the language, is at most
    log E[M] - E[log M]. `kl` estimates that over the answers that have a weight above 0. For masking with one particle it
    is the divergence of locally constrained decoding itself, elsewhere a bound from above.
    """

    domain: Domain = "headers"
    """Headers of Python functions, JSON of a schema, SQL of a schema, SMILES, or a pattern of ``regex-patterns``."""
    pattern: NonNegativeInt = 0
    """Which pattern of the data set, in `patterns`."""
    model: str = "ngram"
    """A size of the family of small transformers, then on the text of the domain; ``<size>:<text>``; ``ngram`` over the
    headers; or a Hugging Face id."""
    order: Literal[1, 2, 3, 4] = 3
    """n of the n-gram model."""
    entries: PositiveInt = 32768
    """Entries of its byte-level BPE vocabulary, without the end of sequence."""
    spelling: Literal["lines", "headers"] = "lines"
    """What that is trained on: all lines of the standard library, or its headers alone."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights of a transformer."""
    prompted: bool = False
    """Tell the model in words what to write, in its chat format if it has one; for instruction-tuned models."""
    answers: PositiveInt = 20
    """Answers to draw."""
    limit: PositiveInt = 50
    """Most tokens of a string, its end of sequence included."""

    def load(self, seed: int) -> Problem:
        """What to generate. Does not depend on `seed`.

        Raises:
            MissingData: the data set of the domain is not here.
        """
        pattern = HEADER if self.domain == "headers" else ""
        if self.domain == "patterns":
            known = patterns()
            if self.pattern >= len(known):
                raise ValueError(f"there are {len(known)} patterns, so there is no number {self.pattern}")
            pattern = known[self.pattern]
        return Problem(self, self._prompt(pattern) if self.prompted else "", pattern)

    def _prompt(self, pattern: str) -> str:
        wanted = {
            "headers": "the header of a Python function on one line",
            "json": "a JSON object with the keys question, intent and snippet about a question on Python",
            "sql": f"one SQL SELECT statement over the tables {', '.join(SCHEMA)}",
            "molecules": "the SMILES of one drug-like molecule",
            "patterns": f"a string that the regular expression {pattern} matches as a whole",
        }[self.domain]
        return f"Write {wanted}. Answer with it alone and nothing else."

    @property
    def named(self) -> str:
        """The model's full name."""
        from methods.decoding.small_models import FAMILY

        text = {"headers": "python-headers", "patterns": "python-lines"}.get(self.domain, self.domain)
        return f"{self.model}:{text}" if self.model in FAMILY else self.model

    def amount(self, work: Problem) -> float:
        """Answers to draw."""
        return float(self.answers)

    def score(self, work: Problem, output: Generations) -> Measurement:
        """Validity and cost.

        Raises:
            BadOutput: there is no answer, or no token was drawn.
        """
        cost, answers = output.cost, output.populations
        if not answers or not cost.tokens:
            raise BadOutput(f"{len(answers)} answers were drawn with {cost.tokens} tokens")
        constraint = work.constraint()
        known = {text: constraint.complete(text) for text in {t for one in answers for t in one.texts}}
        shares = [one.shares() for one in answers]
        fits = [
            np.array([known[t] and e for t, e in zip(one.texts, one.ended, strict=True)], float)
            for one in answers
        ]
        alive = [bool(share.sum() > 0) for share in shares]
        masses = np.array([mean_log(one.log_weights) for one in answers])
        kl = divergence = rejections = -1.0
        if output.proper and any(alive):
            kl = max(0.0, mean_log(masses[alive]) - float(masses[alive].mean()))
        if output.exact and any(cost.weights):
            z = np.array([w for w in cost.weights if w > 0])
            divergence, rejections = float(-np.log(z).mean()), float((1 / z).mean())
        likely = [float(s @ one.log_p) for s, one, lives in zip(shares, answers, alive, strict=True) if lives]
        per_token = cost.calls / cost.tokens
        return Measurement(
            {
                "valid": float(np.mean([s @ f for s, f in zip(shares, fits, strict=True)])),
                "answered": float(np.mean(alive)),
                "ended": float(np.mean([e for one in answers for e in one.ended])),
                "evaluations": per_token,
                "reduction": output.vocabulary / per_token if per_token else float(output.vocabulary),
                "sampler_time": cost.sampler / cost.tokens,
                "model_time": cost.model / cost.tokens,
                "tokens": cost.tokens / len(answers),
                "log_probability": float(np.mean(likely)) if likely else -1e9,
                "log_mass": max(-1e9, mean_log(masses)),
                "divergence": divergence,
                "rejections": rejections,
                "kl": kl,
                "perplexity": held_out_perplexity(self.order, self.entries, self.spelling)
                if self.named == "ngram"
                else 0.0,
            }
        )


# --- weights of single draws ---------------------------------------------------------------------------


@task(
    "weight-estimates",
    metrics=[
        Metric("largest_error", "", "lower", "Largest |mean w - Z| in standard errors, over the pairs."),
        Metric("failures", "", "lower", "Pairs beyond four standard errors."),
        Metric("outside_bound", "", "lower", "Pairs beyond a bound that needs no normal law: see the task."),
        Metric("relative_bias", "", "neither", "Mean over the pairs of (mean w - Z) / Z."),
        Metric("deviation", "", "lower", "Mean over the pairs of the standard deviation of w over Z."),
        Metric("evaluations", "", "lower", "Mean evaluations for each draw."),
        Metric("law_failures", "", "lower", "Pairs whose tokens fail a chi-square test at 1e-5."),
        Metric("undecided", "", "neither", "Pairs left out: see the task."),
    ],
    repeats="once",
    amount_unit="draws",
)
class WeightEstimates(Task[list[Pair], WeightSums]):
    """Draw single tokens from random laws, and compare the mean weight with the exact Z.

    p ~ Dirichlet(a), a in {0.05, 0.3, 1}; V in {2, 5, 16, 64}; each token passes with probability 0.05, 0.3 or 0.9, at
    least one does. Four standard errors are a bound only where the mean is close to normal: pairs whose Z x draws is
    below 100, where events that carry the mean are not seen, are left out and counted. Even so the spread of what was
    drawn says nothing of an event that was not: with Z = 1 - 1e-7 every weight drawn is 1. Beside that test stands one
    which holds for whatever is between 0 and 1, as weights are, at the same level for each pair: the empirical Bernstein
    bound of Maurer and Pontil (arXiv 0907.3740, theorem 4).
    """

    pairs: PositiveInt = 200
    """Random laws."""
    draws: PositiveInt = 20_000
    """For each."""
    errors: PositiveFloat = 4.0
    """Standard errors that the mean may be away from Z."""

    def load(self, seed: int) -> list[Pair]:
        """The pairs, other ones for each seed."""
        stream = rng(seed, "pairs")
        found = []
        for number in range(self.pairs):
            size = (2, 5, 16, 64)[number % 4]
            p = stream.dirichlet(np.full(size, (0.05, 0.3, 1.0)[number // 4 % 3]))
            p = np.maximum(p, 1e-300) / np.maximum(p, 1e-300).sum()
            passes = stream.random(size) < (0.05, 0.3, 0.9)[number // 12 % 3]
            passes[stream.integers(size)] |= not passes.any()
            found.append(Pair(p, passes))
        return found

    def amount(self, work: list[Pair]) -> float:
        """Draws in all."""
        return float(self.pairs * self.draws)

    def score(self, work: list[Pair], output: WeightSums) -> Measurement:
        """Distances of the means from Z in standard errors."""
        from scipy import stats

        mass = np.array([pair.mass for pair in work])
        enough = mass * output.draws >= 100
        if not enough.any():
            raise BadOutput(f"{output.draws} draws decide none of the {len(work)} pairs")
        variance = np.maximum(output.square - output.mean**2, 0.0)
        off = np.abs(output.mean - mass)
        # An estimator without variance must be right up to rounding.
        error = np.where(off <= 1e-9 * mass, 0.0, off / np.maximum(np.sqrt(variance / output.draws), 1e-300))
        # Each side at the level of its side of the other test.
        tail = math.log(2 / float(stats.norm.sf(self.errors)))
        bound = np.sqrt(2 * variance * tail / output.draws) + 7 * tail / (3 * max(output.draws - 1, 1))
        law = 0
        for pair, counts, decided in zip(work, output.tokens, enough, strict=True):
            expected = np.where(pair.passes, pair.p, 0) / pair.mass * counts.sum()
            seen = expected >= 5
            if counts[~pair.passes].any():
                law += 1
            elif decided and seen.sum() > 1:
                o = np.append(counts[seen], counts[~seen].sum())
                e = np.append(expected[seen], expected[~seen].sum())
                kept = e > 1e-9 if e[-1] < 5 else e > 0
                o, e = (o[:-1], e[:-1] * (o[:-1].sum() / e[:-1].sum())) if e[-1] < 5 else (o[kept], e[kept])
                law += int(stats.chisquare(o, e).pvalue < 1e-5)
        return Measurement(
            {
                "largest_error": float(min(error[enough].max(), 1e9)),
                "failures": float((error[enough] > self.errors).sum()),
                "outside_bound": float((off > bound)[enough].sum()),
                "relative_bias": float(((output.mean - mass) / mass)[enough].mean()),
                "deviation": float((np.sqrt(variance) / mass)[enough].mean()),
                "evaluations": float(output.calls[enough].mean()),
                "law_failures": float(law),
                "undecided": float((~enough).sum()),
            }
        )


# --- cost against divergence ----------------------------------------------------------------------------


@task(
    "divergence-bins",
    metrics=[
        Metric("correlation", "", "higher", "Spearman's, of log evaluations and mean -log Z over the bins."),
        Metric("bins", "", "neither", "Bins of (n, context).", True),
        Metric("exponent", "", "neither", "Slope of log evaluations over -log Z."),
        Metric("least_divergence", "nats", "neither", "Smallest mean -log Z of a bin."),
        Metric("most_divergence", "nats", "neither", "Largest mean -log Z of a bin."),
    ],
    repeats="once",
    amount_unit="draws",
)
class DivergenceBins(Task[MaskedContexts, list[FloatArray]]):
    """How the evaluations for a token depend on -log Z = KL(constrained || unconstrained) of its context.

    Contexts are prefixes of held-out headers that the pattern admits, cut at random tokens; each is masked in full once,
    which gives Z under the n-gram models of all orders. A bin is an order and a range of -log Z.
    """

    contexts: PositiveInt = 16
    """Prefixes of headers."""
    entries: PositiveInt = 32768
    """Entries of the vocabulary, without the end of sequence."""
    bins: PositiveInt = 4
    """For each of the four orders."""
    draws: PositiveInt = 200
    """For each order and context."""

    def load(self, seed: int) -> MaskedContexts:
        """Contexts, laws and masks, other ones for each seed."""
        from methods.decoding.ngram import source_tokenizer

        tokenizer, stream = source_tokenizer(self.entries), rng(seed, "contexts")
        models = [header_ngram(order, self.entries) for order in (1, 2, 3, 4)]
        constraint = Pattern(HEADER)
        lines = [line for line in header_lines()[1] if constraint.complete(line.encode())]
        prefixes = []
        while len(prefixes) < self.contexts:
            ids = tokenizer.encode(lines[stream.integers(len(lines))]).ids
            prefixes.append(ids[: stream.integers(1, len(ids) + 1)])
        masks = [constraint.mask(models[0].vocabulary, prefix) for prefix in prefixes]
        laws = [[np.exp(model.log_probabilities(prefix)) for prefix in prefixes] for model in models]
        return MaskedContexts([[p / p.sum() for p in of] for of in laws], masks)

    def amount(self, work: MaskedContexts) -> float:
        """Draws in all."""
        return float(len(work.laws) * len(work.masks) * self.draws)

    def score(self, work: MaskedContexts, output: list[FloatArray]) -> Measurement:
        """Over the bins. `output` holds the mean evaluations of each context, an array for each order."""
        from scipy import stats

        x, y = [], []
        for laws, calls in zip(work.laws, output, strict=True):
            kl = np.array([-math.log(p[mask].sum()) for p, mask in zip(laws, work.masks, strict=True)])
            for part in np.array_split(np.argsort(kl), self.bins):
                if len(part):
                    x.append(float(kl[part].mean()))
                    y.append(float(np.log(calls[part].mean())))
        return Measurement(
            {
                "correlation": float(stats.spearmanr(x, y).statistic),
                "bins": float(len(x)),
                "exponent": float(np.polyfit(x, y, 1)[0]),
                "least_divergence": min(x),
                "most_divergence": max(x),
            }
        )
