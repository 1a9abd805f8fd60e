"""Black-box constraints against the libraries behind them, and every way of generating under them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.decoding.adaptive_weighted_rejection import baselines
from methods.decoding.adaptive_weighted_rejection.characters import range_of, representatives, split
from methods.decoding.adaptive_weighted_rejection.constraints import (
    HEADER,
    JSON_SCHEMA,
    Constraint,
    Molecule,
    Parsed,
    Pattern,
)
from methods.decoding.adaptive_weighted_rejection.generation import chat, patterns
from methods.decoding.adaptive_weighted_rejection.method import AdaptiveWeightedRejection
from methods.decoding.adaptive_weighted_rejection.tasks import ConstrainedGeneration
from methods.decoding.grammars import ContextFree
from methods.decoding.language_models import FloatArray, LanguageModel, Vocabulary
from methods.decoding.sampling import log_sum
from methods.decoding.sql import GRAMMAR, statement
from tests.conftest import needs_data

LETTERS = Vocabulary((b"a", b"b", b"ab", b"c", b"\xc3", b"\xa9", b"", b""), eos=7)


class Letters(LanguageModel):
    """Always the same law over eight tokens."""

    vocabulary = LETTERS

    def __init__(self) -> None:
        # Lone bytes get no probability: each could begin a character, and a string that took it would be stuck.
        with np.errstate(divide="ignore"):
            self.law = np.log([0.25, 0.15, 0.15, 0.25, 0, 0, 0.05, 0.15])

    def log_probabilities(self, prefix: object) -> FloatArray:
        return self.law


def work(answers: int = 30, limit: int = 12) -> SimpleNamespace:
    """`(ab)+c?` under the letters."""
    return SimpleNamespace(
        settings=ConstrainedGeneration(answers=answers, limit=limit, model="letters"),
        model=lambda device: Letters(),
        constraint=lambda: Pattern("(ab)+c?"),
    )


def ready(method: baselines.Sampler, answers: int = 30, limit: int = 12) -> baselines.Sampler:
    """The method after `prepare`."""
    from harness.method import Context

    given = work(answers, limit)
    method.task, method.work, method.context = given.settings, given, Context(seed=1000)
    method.prepare(given)
    return method


def exact_mass(limit: int = 12) -> float:
    """P of the token strings of `(ab)+c?` within the limit, by counting spellings of each text."""
    p = np.exp(Letters().law)
    pair = p[0] * p[1]  # "a" "b"; or the token "ab"
    total = 0.0
    lengths = {0: {0: 1.0}}  # repetitions -> tokens used -> probability
    for count in range(1, limit):
        now: dict[int, float] = {}
        for used, mass in lengths[count - 1].items():
            now[used + 2] = now.get(used + 2, 0) + mass * pair
            now[used + 1] = now.get(used + 1, 0) + mass * p[2]
        lengths[count] = now
        total += sum(mass * p[7] for used, mass in now.items() if used + 1 <= limit)
        total += sum(mass * p[3] * p[7] for used, mass in now.items() if used + 2 <= limit)
    return total


@pytest.mark.parametrize(
    "method",
    [
        AdaptiveWeightedRejection(),
        AdaptiveWeightedRejection(particles=5),
        AdaptiveWeightedRejection(version="two-loop"),
        AdaptiveWeightedRejection(accepts=3),
        baselines.TokenMasking(),
        baselines.TokenMasking(prune=True),
        baselines.SampleRerank(particles=50),
        baselines.TwistedSmc(particles=50),
    ],
    ids=lambda m: f"{type(m).__name__}-{getattr(m, 'particles', 1)}",
)
def test_mean_weight_is_the_mass_of_the_language(method: baselines.Sampler) -> None:
    output = ready(method, 300).run()
    means = np.array([np.exp(one.log_weights).mean() for one in output.populations])
    assert abs(means.mean() - exact_mass()) < 4 * means.std() / np.sqrt(len(means))
    for one in output.populations:
        for text, share, ended in zip(one.texts, one.shares(), one.ended, strict=True):
            assert share == 0 or (ended and Pattern("(ab)+c?").complete(text))


def test_masking_costs_the_vocabulary_and_rejection_does_not() -> None:
    costs = {type(m): ready(m).run().cost for m in (baselines.TokenMasking(), AdaptiveWeightedRejection())}
    forced = 30  # at most one forced end for each answer costs one evaluation
    masking = costs[baselines.TokenMasking]
    assert masking.calls >= 8 * (masking.tokens - forced)
    assert masking.calls <= 8 * masking.tokens
    assert costs[AdaptiveWeightedRejection].calls <= 6 * costs[AdaptiveWeightedRejection].tokens


def test_score_of_every_method() -> None:
    for method in (AdaptiveWeightedRejection(), baselines.BaseSampling(), baselines.TokenMasking(answers=10)):
        ready(method)
        metrics = method.measure(method.run()).metrics
        assert set(metrics) == {m.name for m in ConstrainedGeneration.metrics}
        if not isinstance(method, baselines.BaseSampling):
            assert metrics["valid"] == pytest.approx(metrics["answered"])
            assert metrics["answered"] > 0.8
        else:
            assert metrics["valid"] < 1
            assert metrics["evaluations"] == 0


@pytest.mark.slow  # the package alone takes seconds to import
def test_the_authors_package_agrees() -> None:
    pytest.importorskip("genlm.control")
    output = ready(baselines.GenlmAwrs(), 60).run()
    w = np.array([np.exp(one.log_weights).mean() for one in output.populations])
    assert abs(w.mean() - exact_mass()) < 4 * w.std() / np.sqrt(len(w))
    ours = ready(AdaptiveWeightedRejection(), 200).run().cost
    assert output.cost.calls / output.cost.tokens == pytest.approx(ours.calls / ours.tokens, rel=0.25)


# --- constraints -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraint", "inside", "outside"),
    [
        (Pattern(HEADER), "def f(a, *b, c: int=None) -> list[int]:", "def f(a b):"),
        (Pattern(r"é+(a|b)\1"), "ééaa", "éab"),
        (
            Parsed.ebnf(GRAMMAR),
            "SELECT name, MAX(age) FROM singer WHERE age > 3 LIMIT 5",
            "SELECT title FROM singer",
        ),
        (
            Parsed.schema(JSON_SCHEMA),
            json.dumps({"question": 1, "intent": "é\n", "snippet": "x"}, ensure_ascii=False),
            '{"question": "1"}',
        ),
        (Molecule(), "C1=CC=CC=C1[N+]([O-])=O", "C(C)(C)(C)(C)C"),
    ],
)
def test_every_beginning_of_a_string_is_a_prefix(constraint: Constraint, inside: str, outside: str) -> None:
    text = inside.encode()
    assert all(constraint.prefix(text[:length]) for length in range(len(text) + 1))
    assert constraint.complete(text)
    wrong = outside.encode()
    assert not constraint.complete(wrong)
    fits = [constraint.prefix(wrong[:length]) for length in range(len(wrong) + 1)]
    assert fits == sorted(fits, reverse=True)
    assert not fits[-1]


def test_bytes_that_are_not_text_are_outside() -> None:
    pattern = Pattern("é")
    assert pattern.prefix(b"\xc3")
    assert not pattern.complete(b"\xc3")
    assert not pattern.prefix(b"\xc3\xc3")
    assert not Molecule().prefix(b"C C")
    assert not Molecule().complete(b"")


def test_statements_are_in_the_grammar() -> None:
    grammar, rng = Parsed.ebnf(GRAMMAR), np.random.default_rng(0)
    assert all(grammar.complete(statement(rng).encode()) for _ in range(100))


def test_one_token_is_admitted_as_by_the_mask() -> None:
    grammar = ContextFree('root ::= ("ab")+ "c"?', LETTERS)
    for prefix in ([], [0], [2], [2, 3], [3], [0, 1, 0]):
        admitted = set(grammar.admitted(prefix).tolist())
        assert {v for v in range(8) if grammar.admits(prefix, v)} == admitted


def test_unusual_tokens_never_pass() -> None:
    test = Pattern("a*").context(LETTERS)([0])
    assert [test(token) for token in range(8)] == [True, False, False, False, False, False, False, True]
    assert not any(map(Pattern("a*").context(LETTERS)([0, 4]), range(8)))


@pytest.mark.parametrize("pattern", [HEADER, r"a[^b]\d*", r"(\w+)-\1", r"\s*", r"[!-~]+", r"(?>a.|\S\S)"])
def test_the_beginning_of_a_character_passes_where_a_character_does(pattern: str) -> None:
    constraint = Pattern(pattern)
    for whole in ("", "a", "def é", "def f()", "é-", "éß-é", "\xa0"):
        assert constraint._kinds_decide
        for lead in range(0xC2, 0xE1):
            first, last = range_of(bytes([lead]))
            some = any(constraint.prefix((whole + chr(code)).encode()) for code in range(first, last + 1))
            assert constraint.prefix(whole.encode() + bytes([lead])) == some, (whole, lead)


@pytest.mark.parametrize(
    "pattern", [r"\p{Greek}", "é+", r"\xe9", "(?i)k+", r"[[:alpha:]]", "(?:foo){e<=1}", r"\N{DIGIT ONE}"]
)
def test_expressions_that_tell_more_apart_are_not_second_guessed(pattern: str) -> None:
    assert not Pattern(pattern)._kinds_decide


@given(st.characters(min_codepoint=0x80, exclude_categories=["Cs"]))
def test_the_range_of_the_beginning_of_a_character_holds_it(character: str) -> None:
    spelled = character.encode()
    for length in range(1, len(spelled)):
        first, last = range_of(spelled[:length])
        assert first <= ord(character) <= last
        assert all(chr(code).encode().startswith(spelled[:length]) for code in (first, last))
        assert split(b"ab" + spelled[:length]) == ("ab", spelled[:length])
        some = representatives(spelled[:length])
        assert some
        assert all(one.encode().startswith(spelled[:length]) for one in some)
    assert split(b"\xc3\xc3") is None


@needs_data("regex-patterns")
@pytest.mark.parametrize("text", [b"", b"def", b"def f(", b"def f(x: in", b"def f(x='\xc3", b"def f():"])
def test_the_mask_of_all_tokens_is_the_test_of_each(text: bytes) -> None:
    rng = np.random.default_rng(0)
    parts = [
        b"def ",
        b"f",
        b"(",
        b")",
        b":",
        b" ->",
        b", ",
        b"x",
        b"=",
        b"1",
        b" ",
        b"'",
        b"\xc3",
        b"\xa9",
        b"int",
    ]
    made = {b"".join(parts[k] for k in rng.integers(len(parts), size=rng.integers(1, 4))) for _ in range(400)}
    vocabulary = Vocabulary((text, *sorted(made, key=lambda token: token[::-1]), b"", b""), eos=len(made) + 2)
    constraint, prefix = Pattern(HEADER), [0] if text else []
    test = constraint.context(vocabulary)(prefix)
    mask = constraint.mask(vocabulary, prefix)
    assert mask.tolist() == [test(token) for token in range(len(vocabulary))]
    assert mask.any()


def test_all_patterns_compile() -> None:
    known = patterns()
    assert len(known) == 454
    for pattern in known:
        assert Pattern(pattern).prefix(b"") in (True, False)


def test_divergence_of_masking_is_estimated() -> None:
    method = ready(baselines.TokenMasking(), 300, limit=60)
    output = method.run()
    logs = np.concatenate([one.log_weights for one in output.populations])
    metrics = method.measure(output).metrics
    # KL(LCD || Q) = log Z - E[log W], with the exact Z of the language.
    exact = np.log(exact_mass(60)) - logs.mean()
    assert metrics["kl"] == pytest.approx(exact, abs=0.1)
    assert metrics["log_mass"] == pytest.approx(log_sum(logs) - np.log(len(logs)))


def test_more_particles_have_a_smaller_bound_on_the_divergence() -> None:
    found = []
    for method in (AdaptiveWeightedRejection(), AdaptiveWeightedRejection(particles=16)):
        found.append(ready(method, 150, limit=30).measure(method.run()).metrics["kl"])  # type: ignore[arg-type]
    assert 0 <= found[1] < found[0] / 2
    for method in (AdaptiveWeightedRejection(version="improper"), baselines.BaseSampling()):
        assert ready(method, 5).measure(method.run()).metrics["kl"] == -1  # type: ignore[arg-type]


def test_pruning_gives_the_mask_of_fewer_evaluations() -> None:
    full, pruned = (ready(baselines.TokenMasking(prune=prune), 40).run() for prune in (False, True))
    assert [one.texts for one in full.populations] == [one.texts for one in pruned.populations]
    assert full.cost.weights == pytest.approx(pruned.cost.weights)
    assert pruned.cost.calls < full.cost.calls


class Speaker:
    """A tokenizer that marks beginnings, with a chat format that does too."""

    bos_token, bos_token_id = "<s>", 5
    chat_template: str | None = "any"

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [5, 1]}

    def apply_chat_template(
        self, turns: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool
    ) -> str:
        return "<s>[" + turns[0]["content"] + "]"


def test_requests_in_the_format_of_the_model() -> None:
    speaker = Speaker()
    assert chat(speaker, "Do it.") == "[Do it.]"  # encoding adds the beginning
    speaker.chat_template = None
    assert chat(speaker, "Do it.") == "Do it.\nAnswer: "
    assert chat(speaker, "") == ""
    asked = ConstrainedGeneration(domain="sql", prompted=True).load(1000)
    assert "singer" in asked.prompt
