"""Generation by a pretrained model inside a grammar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness import data
from harness.errors import BadOutput, MissingData
from harness.method import Measurement, Metric, Task, task
from harness.types import Fraction, NonNegativeInt, PositiveFloat, PositiveInt
from methods.decoding.grammar_aligned_decoding.prompts import OWN_PROMPTS, binary_prompt
from methods.decoding.grammars import Grammar, binary_language, grammar_file
from methods.decoding.sampling import (
    Exact,
    Samples,
    divergence,
    divergence_series,
    grammatical,
    log_sum,
)
from methods.decoding.sql import GRAMMAR as SQL


@dataclass
class GenerationProblem:
    """A prompt, a grammar, and how to sample.

    Attributes:
        prompt: text before the strings.
        ebnf: the grammar, with start ``root``.
        finite: whether its language can be enumerated.
        settings: the task, whose parameters say which model and how many strings.
    """

    prompt: str
    ebnf: str
    finite: bool
    settings: GrammarGeneration


@dataclass
class Generated(Samples):
    """Samples of a pretrained model.

    Attributes:
        grammar: over the model's tokens.
        exact: the enumerated language under the model, where it is finite.
    """

    grammar: Grammar
    exact: Exact | None


@task(
    "grammar-generation",
    metrics=[
        Metric("grammatical", "", "higher", "Share of the finished strings that are in the language."),
        Metric("finished", "", "higher", "Share of strings that ended before the length limit."),
        Metric("log_probability", "nats", "higher", "Mean log P of the finished strings."),
        Metric("last_log_probability", "nats", "higher", "Mean log P in the last window."),
        Metric("last_probability", "", "higher", "Mean P in the last window."),
        Metric("last_kl", "nats", "lower", "KL(last window || Q), or P renormalised on the strings seen."),
        Metric("expectation", "", "neither", "Mean Q(w) of the last window."),
        Metric("ideal_expectation", "", "neither", "Mean Q(w) of an exact sampler."),
        Metric("gcd_kl", "nats", "neither", "KL(local masking || Q), exact; 0 where it is not enumerated."),
        Metric("tokens", "", "neither", "Mean tokens of a string, its end of sequence included."),
    ],
    repeats="once",
    amount_unit="strings",
    data=("gad-grammars", "gad-dataset"),
)
class GrammarGeneration(Task[GenerationProblem, Generated]):
    """Strings of a grammar from a pretrained causal model after a prompt.

    Where the language is finite, Q is exact: every token string that spells one of its texts is scored by the model.
    """

    pretrained: str = "TinyLlama/TinyLlama_v1.1"
    """Hugging Face id or local folder of a causal model with a fast tokenizer, or ``<size>:<text>`` of the family."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Of its weights."""
    problems: Literal[
        "binary_len_3", "binary_len_5_0", "binary_len_5_1", "arithmetic", "json", "sql", "SLIA", "BV4", "CP"
    ] = "binary_len_5_0"
    """A binary language, own prompts for a file of ``gad-grammars``, statements over the schema of
    `methods.decoding.sql` without a prompt, or a split of ``ebmoon/GAD-dataset``."""
    problem: NonNegativeInt = 0
    """Which prompt; the binary languages have one."""
    samples: PositiveInt = 300
    """Strings to draw."""
    limit: PositiveInt = 512
    """Most new tokens of a string, its end of sequence included."""
    batch: PositiveInt = 1
    """Strings generated side by side."""
    temperature: PositiveFloat = 1.0
    """Divides the logits; part of the law P."""
    window: Fraction = 0.25
    """Share of the samples in the window at the end."""

    def load(self, seed: int) -> GenerationProblem:
        """Prompt and grammar.

        Raises:
            MissingData: the EBNF files or the data set are not here, or it has no such problem.
        """
        if self.problems.startswith("binary"):
            self._check(1)
            strings = binary_language(self.problems)
            ebnf = "root ::= " + " | ".join(f'"{text}"' for text in strings)
            return GenerationProblem(binary_prompt(len(strings[0])), ebnf, True, self)
        if self.problems == "sql":
            self._check(1)
            return GenerationProblem("", SQL, False, self)
        if self.problems in OWN_PROMPTS:
            prompts = OWN_PROMPTS[self.problems]
            self._check(len(prompts))
            ebnf = grammar_file(self.problems)
            return GenerationProblem(prompts[self.problem], ebnf, False, self)
        hub = data.Hub("ebmoon/GAD-dataset", split=self.problems)
        rows = data.table("gad-dataset", f"{self.problems}.jsonl", hub)
        if not {"prompt", "grammar"} <= set(rows.column_names):
            raise MissingData(f"GAD-dataset has columns {rows.column_names}, not 'prompt' and 'grammar'")
        self._check(len(rows))
        row = rows[self.problem]
        return GenerationProblem(row["prompt"], row["grammar"], False, self)

    def _check(self, count: int) -> None:
        if self.problem >= count:
            raise ValueError(f"'{self.problems}' has {count} problems, so there is no number {self.problem}")

    def amount(self, work: GenerationProblem) -> float:
        """Strings to draw."""
        return float(work.settings.samples)

    def score(self, work: GenerationProblem, output: Generated) -> Measurement:
        """Probabilities of the strings under the model, and their distance from Q.

        Raises:
            BadOutput: the wrong number of strings, or none of the last window is in the language.
        """
        if len(output.strings) != work.settings.samples:
            raise BadOutput(f"{len(output.strings)} strings were drawn, {work.settings.samples} were asked for")
        inside = grammatical(output, output.grammar)
        window = max(1, round(work.settings.samples * self.window))
        last = inside & (np.arange(len(inside)) >= len(inside) - window)
        if not last.any():
            raise BadOutput(f"none of the last {window} strings is finished and in the language")
        if output.exact is not None:
            known = dict(zip(output.exact.strings, output.exact.log_p.tolist(), strict=True))
        else:
            known = {
                s: float(p) for s, p, fits in zip(output.strings, output.log_p, inside, strict=True) if fits
            }
        mass = log_sum(np.array(list(known.values())))
        log_q = {string: log - mass for string, log in known.items()}
        drawn = [s for s, fits in zip(output.strings, last, strict=True) if fits]
        valid = [s for s, fits in zip(output.strings, inside, strict=True) if fits]
        metrics = {
            "grammatical": float(inside.sum() / output.finished.sum()),
            "finished": float(output.finished.mean()),
            "log_probability": float(output.log_p[inside].mean()),
            "last_log_probability": float(output.log_p[last].mean()),
            "last_probability": float(np.exp(output.log_p[last]).mean()),
            "last_kl": divergence(drawn, log_q),
            "expectation": float(np.mean(np.exp([log_q[string] for string in drawn]))),
            "ideal_expectation": float(np.sum(np.exp(2 * np.array(list(log_q.values()))))),
            "gcd_kl": 0.0 if output.exact is None else output.exact.gcd_divergence,
            "tokens": float(np.mean([len(string) for string in output.strings])),
        }
        return Measurement(metrics, {"kl": divergence_series(valid, log_q, window)})
