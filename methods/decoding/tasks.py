"""Draw strings of a language with the probabilities of a language model."""

from __future__ import annotations

import hashlib
import json
import keyword
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from harness import cache
from harness.errors import BadOutput
from harness.method import Measurement, Metric, Series, Task, task
from harness.seeding import derive, rng
from harness.types import Fraction, NonNegativeInt, PositiveFloat, PositiveInt
from methods.decoding.baselines import free_strings, log_probability
from methods.decoding.ebnf import call_expressions
from methods.decoding.grammars import ContextFree, FiniteLanguage, Grammar, binary_language, grammar_file
from methods.decoding.language_models import BITS, LanguageModel, fair_coin, random_bits
from methods.decoding.ngram import source_lines, source_ngram
from methods.decoding.sampling import (
    Exact,
    Problem,
    Samples,
    TokenString,
    divergence,
    divergence_series,
    enumerate_language,
    grammatical,
    log_sum,
    total_variation,
)

SHARED = (
    Metric("grammatical", "", "higher", "Share of the finished strings that are in the language."),
    Metric("finished", "", "higher", "Share of strings that ended before the length limit and in no dead end."),
    Metric("log_probability", "nats", "higher", "Mean log P of the finished strings."),
    Metric("last_log_probability", "nats", "higher", "Mean log P in the last window."),
    Metric("tokens", "", "neither", "Mean tokens of a string, its end of sequence included."),
)


@dataclass
class FiniteProblem(Problem):
    """A problem whose language is finite and enumerated: the exact target is known."""

    exact: Exact


@dataclass
class OpenProblem(Problem):
    """A problem whose language cannot be enumerated.

    Attributes:
        reference: strings of the language that rejection sampling found, exact draws from the target.
        reference_log_p: log P of each: float64, shape (reference strings,).
        draws: strings that were drawn from the model to find them.
    """

    reference: list[TokenString]
    reference_log_p: np.ndarray
    draws: int


def window_of(samples: int, share: float) -> int:
    """The last `share` of the samples, at least one."""
    return max(1, round(samples * share))


def _shared(work: Problem, output: Samples, window: int) -> tuple[dict[str, float], np.ndarray]:
    """The metrics that need no target, and which samples are strings of the language."""
    if len(output.strings) != work.samples:
        raise BadOutput(f"{len(output.strings)} strings were drawn, {work.samples} were asked for")
    inside = grammatical(output, work.grammar)
    finished = np.asarray(output.finished, bool)
    last = np.arange(len(inside)) >= len(inside) - window
    if not (inside & last).any():
        raise BadOutput(f"none of the last {window} strings is finished and in the language")
    return {
        "grammatical": float(inside.sum() / finished.sum()),
        "finished": float(finished.mean()),
        "log_probability": float(output.log_p[finished].mean()),
        "last_log_probability": float(output.log_p[finished & last].mean()),
        "tokens": float(np.mean([len(string) for string in output.strings])),
    }, inside


@task(
    "bit-strings",
    metrics=(
        *SHARED,
        Metric("kl", "nats", "lower", "KL(all strings || Q); strings outside of the language left out."),
        Metric("last_kl", "nats", "lower", "KL(strings of the last window || Q)."),
        Metric(
            "last_kl_over_noise",
            "",
            "lower",
            "last_kl over five times the noise of Q itself, 5 (K - 1) / (2 n).",
        ),
        Metric("unconverged", "", "lower", "The smaller of last_kl_over_noise and 10 last_kl / gcd_kl."),
        Metric("variation", "", "lower", "Total variation between all strings and Q."),
        Metric("last_variation", "", "lower", "Total variation between the last window and Q."),
        Metric("expectation", "", "neither", "Mean Q(w) of the strings of the last window."),
        Metric("ideal_expectation", "", "neither", "Mean Q(w) of an exact sampler.", True),
        Metric("gcd_kl", "nats", "neither", "KL(local masking || Q), exact.", True),
        Metric("gcd_variation", "", "neither", "Total variation between local masking and Q, exact.", True),
        Metric("mass", "", "neither", "Z = P(language), exact.", True),
    ),
    amount_unit="strings",
    data=("gad-grammars",),
)
class BitStringSampling(Task[FiniteProblem, Samples]):
    """Draw bit strings of a skewed finite language from Q(w) = P(w) / P(language)."""

    language: Literal["binary_len_3", "binary_len_5_0", "binary_len_5_1"] = "binary_len_5_0"
    """One branch holds a single string, the other all strings."""
    model: str = "fair-coin"
    """``fair-coin``, or ``dirichlet-<k>``: the k-th random law; the same for every seed of the record."""
    concentration: PositiveFloat = 0.6
    """Of the Dirichlet distribution of (P(0 | u), P(1 | u)) of a random law."""
    grammar: Literal["prefixes", "ebnf"] = "prefixes"
    """Recognise by the set of all prefixes, or parse the EBNF file of the data set ``gad-grammars``."""
    samples: PositiveInt = 500
    """Strings to draw."""
    window: Fraction = 0.25
    """Share of the samples in the window at the end."""

    def __post_init__(self) -> None:
        """Check the name of the model."""
        if not re.fullmatch(r"fair-coin|dirichlet-\d+", self.model):
            raise ValueError(f"the model is 'fair-coin' or 'dirichlet-<number>', not '{self.model}'")

    def load(self, seed: int) -> FiniteProblem:
        """The model, the recogniser and, by enumeration, the exact target. Does not depend on `seed`."""
        strings = binary_language(self.language)
        length = len(strings[0])
        model: LanguageModel
        if self.model == "fair-coin":
            model = fair_coin(length)
        else:
            # Language and length are no part of the stream: the law over five bits is the same in both languages.
            model = random_bits(length, self.concentration, rng(0, "bit-strings", self.model))
        recogniser: Grammar = (
            FiniteLanguage(strings, BITS)
            if self.grammar == "prefixes"
            else ContextFree(grammar_file(self.language), BITS)
        )
        exact = enumerate_language(model, recogniser)
        return FiniteProblem(model, recogniser, self.samples, length + 1, exact)

    def amount(self, work: FiniteProblem) -> float:
        """Strings to draw."""
        return float(work.samples)

    def score(self, work: FiniteProblem, output: Samples) -> Measurement:
        """Distances between the frequencies of the strings and Q.

        Raises:
            BadOutput: the wrong number of strings, or none in the language.
        """
        window = window_of(work.samples, self.window)
        metrics, inside = _shared(work, output, window)
        q, exact = work.exact.q, work.exact
        log_q = dict(zip(exact.strings, np.log(q).tolist(), strict=True))
        valid = [string for string, fits in zip(output.strings, inside, strict=True) if fits]
        last = [s for s, fits in zip(output.strings[-window:], inside[-window:], strict=True) if fits]
        last_kl = divergence(last, log_q)
        over_noise = last_kl / (5 * (len(q) - 1) / (2 * len(last)))
        over_tenth = 10 * last_kl / exact.gcd_divergence if exact.gcd_divergence > 0 else over_noise
        return Measurement(
            metrics
            | {
                "kl": divergence(valid, log_q),
                "last_kl": last_kl,
                "last_kl_over_noise": over_noise,
                "unconverged": min(over_noise, over_tenth),
                "variation": total_variation(valid, log_q),
                "last_variation": total_variation(last, log_q),
                "expectation": float(np.mean(np.exp([log_q[string] for string in last]))),
                "ideal_expectation": float((q**2).sum()),
                "gcd_kl": exact.gcd_divergence,
                "gcd_variation": exact.gcd_variation,
                "mass": exact.mass,
            },
            {"kl": divergence_series(valid, log_q, window)},
        )


@task(
    "source-strings",
    metrics=(
        *SHARED,
        Metric("seen_kl", "nats", "lower", "KL(last window || P renormalised on the strings seen)."),
        Metric("expectation", "", "neither", "Mean P(w) / P(strings seen) in the last window."),
        Metric("ideal_expectation", "", "neither", "The same for P renormalised on the strings seen."),
        Metric("seen_mass", "", "neither", "P(distinct strings seen by the method or by the reference)."),
        Metric("mass", "", "neither", "P(language), estimated by rejection sampling."),
        Metric(
            "target_log_probability", "nats", "neither", "Mean log P of the target; see `SourceStringSampling`."
        ),
    ),
    amount_unit="strings",
    data=("gad-grammars",),
)
class SourceStringSampling(Task[OpenProblem, Samples]):
    """Draw strings of a large language from an n-gram model of the standard library's source lines.

    The language has too many strings to enumerate. The reference is a rejection sample, which is exact. The strings
    seen are the distinct ones of the method and of the reference together. `target_log_probability` is the mean log P
    of the reference; where it has fewer than 100 strings, that of P renormalised on the strings seen.
    """

    language: Literal["calls", "arithmetic", "json", "c", "chess"] = "calls"
    """``calls``: call expressions over frequent identifiers; the others are files of ``gad-grammars``."""
    names: PositiveInt = 200
    """Identifiers of the call expressions, the most frequent of the standard library."""
    arguments: NonNegativeInt = 3
    """Most arguments of a call."""
    depth: PositiveInt = 2
    """How deep calls nest."""
    order: Literal[1, 2, 3, 4] = 3
    """n of the n-gram model."""
    entries: PositiveInt = 32768
    """Entries of its byte-level BPE vocabulary, without the end of sequence."""
    samples: PositiveInt = 2000
    """Strings to draw."""
    limit: PositiveInt = 48
    """Most tokens of a string, its end of sequence included."""
    window: Fraction = 0.25
    """Share of the samples in the window at the end."""
    reference_draws: NonNegativeInt = 300_000
    """Strings drawn from the model for the reference; only those in the language are kept."""

    def load(self, seed: int) -> OpenProblem:
        """The model, the grammar and the reference, all cached. Does not depend on `seed`.

        Raises:
            MissingData: the EBNF file or the sources of the standard library are not here.
        """
        model = source_ngram(self.order, self.entries)
        if self.language == "calls":
            ebnf = call_expressions(frequent_names(self.names), self.arguments, self.depth)
        else:
            ebnf = grammar_file(self.language)
        problem = Problem(model, ContextFree(ebnf, model.vocabulary), self.samples, self.limit)
        strings, log_p = self._reference(problem, ebnf) if self.reference_draws else ([], np.empty(0))
        return OpenProblem(
            **vars(problem), reference=strings, reference_log_p=log_p, draws=self.reference_draws
        )

    def _reference(self, problem: Problem, ebnf: str) -> tuple[list[TokenString], np.ndarray]:
        def make(path: Path) -> None:
            stream = rng(derive(0, "source-strings"), "reference")
            strings: list[TokenString] = []
            for start in range(0, self.reference_draws, 100_000):
                count = min(100_000, self.reference_draws - start)
                strings += free_strings(problem, count, stream, reject=True)
            logs = {string: log_probability(problem, string) for string in set(strings)}
            with open(path, "wb") as file:
                np.savez(
                    file,
                    tokens=np.array([token for string in strings for token in string], np.int64),
                    lengths=np.array([len(string) for string in strings], np.int64),
                    log_p=np.array([logs[string] for string in strings]),
                )

        recipe = {
            "draws": self.reference_draws, "limit": self.limit, "order": self.order, "entries": self.entries,
            "lines": hashlib.sha256("\n".join(source_lines()).encode()).hexdigest(),
            "grammar": hashlib.sha256(ebnf.encode()).hexdigest(),
        }  # fmt: skip
        with np.load(cache.artefact("source-reference", recipe, make), allow_pickle=False) as arrays:
            ends = np.cumsum(arrays["lengths"])[:-1]
            parts = np.split(arrays["tokens"], ends) if len(arrays["lengths"]) else []
            return [tuple(part.tolist()) for part in parts], arrays["log_p"]

    def amount(self, work: OpenProblem) -> float:
        """Strings to draw."""
        return float(work.samples)

    def score(self, work: OpenProblem, output: Samples) -> Measurement:
        """Log probabilities of the strings, and distances on the strings seen.

        Raises:
            BadOutput: the wrong number of strings, or none in the language.
        """
        window = window_of(work.samples, self.window)
        metrics, inside = _shared(work, output, window)
        seen = dict(zip(work.reference, work.reference_log_p.tolist(), strict=True))
        seen |= {s: float(l) for s, l, fits in zip(output.strings, output.log_p, inside, strict=True) if fits}
        log_p = np.fromiter(seen.values(), float, len(seen))
        log_mass = log_sum(log_p)
        log_q = {string: log - log_mass for string, log in seen.items()}
        q = np.exp(log_p - log_mass)
        valid = [string for string, fits in zip(output.strings, inside, strict=True) if fits]
        last = [s for s, fits in zip(output.strings[-window:], inside[-window:], strict=True) if fits]
        enough = len(work.reference) >= 100
        means = _running_mean(output.log_p[inside], window)
        return Measurement(
            metrics
            | {
                "seen_kl": divergence(last, log_q),
                "expectation": float(np.mean(np.exp([log_q[string] for string in last]))),
                "ideal_expectation": float((q**2).sum()),
                "seen_mass": float(np.exp(log_mass)),
                "mass": len(work.reference) / work.draws if work.draws else 0.0,
                "target_log_probability": float(work.reference_log_p.mean() if enough else (q * log_p).sum()),
            },
            {"kl": divergence_series(valid, log_q, window), "log_probability": means},
        )


def _running_mean(values: np.ndarray, window: int) -> Series:
    """The mean in a window that slides over the values, at most 40 times."""
    window = min(window, len(values))
    ends = np.unique(np.linspace(window, len(values), min(40, len(values) - window + 1)).astype(int))
    return Series(
        [float(end) for end in ends],
        [float(values[end - window : end].mean()) for end in ends],
        "samples",
        "mean log P in the window",
    )


def frequent_names(count: int) -> list[str]:
    """The most frequent identifiers of the standard library's lines, without the keywords of Python; cached."""
    lines = "\n".join(source_lines())

    def make(path: Path) -> None:
        found = Counter(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", lines))
        names = [word for word, _ in found.most_common() if not keyword.iskeyword(word)]
        path.write_text(json.dumps(names[:count]))

    recipe = {"count": count, "lines": hashlib.sha256(lines.encode()).hexdigest()}
    names: list[str] = json.loads(cache.artefact("source-names", recipe, make).read_text())
    return names
