"""ASAp against enumeration, a step-by-step reference, and the limits where it equals its baseline."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.errors import BadOutput
from harness.method import Context
from harness.testing import prepared, run_once
from methods.decoding.baselines import (
    ExactSampling,
    GrammarConstrainedDecoding,
    ImportanceResampledGcd,
    RejectionSampling,
    UnconstrainedSampling,
    free_strings,
)
from methods.decoding.grammar_aligned_decoding.method import Asap, known_futures
from methods.decoding.grammar_aligned_decoding.trie import FutureNode, Trie
from methods.decoding.grammars import FiniteLanguage, Grammar, binary_language
from methods.decoding.language_models import BITS, BitStrings, LanguageModel, Vocabulary, fair_coin, random_bits
from methods.decoding.sampling import (
    PrefixTree,
    Problem,
    TokenString,
    Walk,
    divergence,
    draw,
    enumerate_language,
    gather,
    log_sum,
    total_variation,
)
from methods.decoding.tasks import BitStringSampling


def bits(text: str) -> TokenString:
    """A bit string as tokens, with its end of sequence."""
    return (*map(int, text), BITS.eos)


def coin_problem(name: str = "binary_len_5_0", samples: int = 100) -> Problem:
    strings = binary_language(name)
    return Problem(fair_coin(len(strings[0])), FiniteLanguage(strings, BITS), samples, len(strings[0]) + 1)


def force(trie: Trie, problem: Problem, string: TokenString) -> None:
    """Let the trie see one sample, whatever it would have drawn."""
    walk = Walk()
    for place, token in enumerate(string):
        prefix = list(string[:place])
        tokens = problem.grammar.admitted(prefix)
        node = trie.at(walk) or trie.add(walk, tokens, problem.model.log_probabilities_of(tokens, prefix))
        walk.nodes.append(node)
        walk.positions.append(int(np.flatnonzero(node.tokens == token)[0]))
    trie.update(walk)


def future(trie: Trie, text: str) -> float:
    """c~ of a prefix."""
    if not text:
        return math.exp(trie.log_c_root)
    node = trie.root
    for token in map(int, text[:-1]):
        assert node is not None
        node = node.children[int(np.flatnonzero(node.tokens == token)[0])]  # type: ignore[assignment]
    assert node is not None
    return math.exp(node.log_c[int(np.flatnonzero(node.tokens == int(text[-1]))[0])])


# -- closed forms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["binary_len_5_0", "binary_len_5_1"])
def test_exact_law_of_the_skewed_language_under_a_fair_coin(name: str) -> None:
    problem = coin_problem(name)
    exact = enumerate_language(problem.model, problem.grammar)
    assert exact.mass == pytest.approx(17 / 32)
    assert exact.q == pytest.approx(np.full(17, 1 / 17))
    alone = exact.strings.index(bits("00000" if name.endswith("0") else "11111"))
    expected = np.full(17, 1 / 32)
    expected[alone] = 0.5
    assert np.exp(exact.log_gcd) == pytest.approx(expected)
    assert exact.gcd_divergence == pytest.approx(0.5 * math.log(8.5) + 0.5 * math.log(17 / 32))
    assert exact.gcd_divergence == pytest.approx(0.753772, abs=1e-6)
    assert exact.gcd_variation == pytest.approx(0.441176, abs=1e-6)


def test_exact_law_of_three_bits_under_a_fair_coin() -> None:
    problem = coin_problem("binary_len_3")
    exact = enumerate_language(problem.model, problem.grammar)
    assert sorted(exact.strings) == [bits(t) for t in ("000", "100", "101", "110", "111")]
    assert exact.futures[()] == pytest.approx(1 / 8 + 4 / 8)
    assert exact.futures[(0,)] == pytest.approx(1 / 4)
    assert exact.futures[(1,)] == pytest.approx(1.0)
    assert math.exp(exact.log_gcd[exact.strings.index(bits("000"))]) == pytest.approx(0.5)


def test_one_sample_on_the_narrow_branch_teaches_everything() -> None:
    problem, trie = coin_problem(), Trie()
    force(trie, problem, bits("00000"))
    got = [future(trie, text) for text in ("0000", "000", "00", "0", "")]
    assert got == pytest.approx([0.5, 0.25, 0.125, 0.0625, 0.53125], rel=1e-12)


def test_a_first_sample_on_the_wide_branch_teaches_nothing() -> None:
    problem, trie = coin_problem(), Trie()
    force(trie, problem, bits("10110"))
    assert future(trie, "") == pytest.approx(1.0)
    assert future(trie, "0") == 1.0


@given(seed=st.integers(0, 10**6), length=st.integers(1, 6), keep=st.floats(0.1, 1.0))
@settings(max_examples=40, deadline=None)
def test_enumeration_equals_brute_force_over_all_strings(seed: int, length: int, keep: float) -> None:
    generator = np.random.default_rng(seed)
    model = random_bits(length, 0.6, generator)
    strings = ["".join(s) for s in product("01", repeat=length)]
    kept = [s for s in strings if generator.random() < keep] or strings[:1]
    exact = enumerate_language(model, FiniteLanguage(kept, BITS))

    def probability(text: str) -> float:
        p = 1.0
        for place, bit in enumerate(text):
            one = model.ones[2**place - 1 + int("0" + text[:place], 2)]
            p *= one if bit == "1" else 1 - one
        return p

    whole = {text: probability(text) for text in strings}
    assert sum(whole.values()) == pytest.approx(1)
    assert exact.mass == pytest.approx(sum(whole[text] for text in kept))
    for string, log in zip(exact.strings, exact.log_p, strict=True):
        assert math.exp(log) == pytest.approx(whole["".join(map(str, string[:-1]))])
    for prefix, c in exact.futures.items():
        if BITS.eos in prefix:
            continue
        start = "".join(map(str, prefix))
        below = sum(p for text, p in whole.items() if text.startswith(start))
        inside = sum(whole[text] for text in kept if text.startswith(start))
        assert c * below == pytest.approx(inside)


# -- a reference in dictionaries, with an update at every new prefix --------------------------------------


def reference_asap(problem: Problem, samples: int, generator: np.random.Generator) -> list[TokenString]:
    """ASAp as it is written: c~ in a dictionary, recomputed for all ancestors as soon as a prefix is new."""
    c: dict[TokenString, float] = {}
    law: dict[TokenString, dict[int, float]] = {}
    drawn = []
    for _ in range(samples):
        u: TokenString = ()
        while not (u and u[-1] == BITS.eos):
            if u not in law:
                p = np.exp(problem.model.log_probabilities(u))
                law[u] = {int(v): float(p[v]) for v in problem.grammar.admitted(u)}
                for length in range(len(u), -1, -1):
                    a = u[:length]
                    c[a] = sum(p_v * c.get((*a, v), 1.0) for v, p_v in law[a].items())
            weights = np.array([p_v * c.get((*u, v), 1.0) for v, p_v in law[u].items()])
            place = np.searchsorted(np.cumsum(weights), generator.random() * weights.sum(), side="right")
            u = (*u, list(law[u])[min(int(place), len(weights) - 1)])
        drawn.append(u)
    return drawn


@pytest.mark.parametrize("name", ["binary_len_3", "binary_len_5_0", "binary_len_5_1"])
def test_same_samples_as_the_reference_that_updates_at_every_step(name: str) -> None:
    task = BitStringSampling(language=name, model="dirichlet-3", samples=300)  # type: ignore[arg-type]
    method = prepared(Asap(), task)
    expected = reference_asap(task.load(0), 300, Context(seed=1000).rng("samples"))
    assert method.run().strings == expected


def test_without_learning_it_is_constrained_decoding_sample_for_sample() -> None:
    task = BitStringSampling(model="dirichlet-1", samples=300)
    frozen = prepared(Asap(learning=False), task).run()
    masked = prepared(GrammarConstrainedDecoding(), task).run()
    assert frozen.strings == masked.strings
    assert np.array_equal(frozen.log_p, masked.log_p)
    assert prepared(Asap(), task).run().strings != masked.strings


def test_first_sample_is_a_masked_sample() -> None:
    task = BitStringSampling(model="dirichlet-1", samples=1)
    for seed in range(1000, 1040):
        first = prepared(Asap(), task, seed=seed).run()
        assert first.strings == prepared(GrammarConstrainedDecoding(), task, seed=seed).run().strings


def test_a_grammar_that_admits_everything_leaves_the_model_alone() -> None:
    strings = ["".join(s) for s in product("01", repeat=4)]
    model = random_bits(4, 0.6, np.random.default_rng(5))
    problem = Problem(model, FiniteLanguage(strings, BITS), 200, 5)
    trie, plain = Trie(), PrefixTree()
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    for _ in range(problem.samples):
        walk = trie.walk(problem, one, lambda node: node.log_weights)  # type: ignore[attr-defined]
        trie.update(walk)
        assert walk.string == plain.walk(problem, other, lambda node: node.log_p).string
    assert trie.root is not None
    for node in trie.root:
        assert isinstance(node, FutureNode)
        assert np.exp(node.log_c) == pytest.approx(np.ones(len(node.tokens)))
    exact = enumerate_language(model, problem.grammar)
    assert exact.gcd_divergence == pytest.approx(0, abs=1e-12)
    free = free_strings(problem, 20_000, np.random.default_rng(2), reject=False)
    counts = [free.count(s) for s in exact.strings]
    assert stats.chisquare(counts, exact.q * 20_000).pvalue > 1e-4


def test_with_exact_futures_the_very_first_sample_follows_the_target() -> None:
    problem = coin_problem()
    exact = enumerate_language(problem.model, problem.grammar)
    trie, generator = Trie(exact.futures), np.random.default_rng(3)
    # Without an update the trie stays as it was before the first sample.
    walks = [
        trie.walk(problem, generator, lambda node: node.log_weights).string  # type: ignore[attr-defined]
        for _ in range(20_000)
    ]
    counts = [walks.count(string) for string in exact.strings]
    assert sum(counts) == 20_000
    assert stats.chisquare(counts, exact.q * 20_000).pvalue > 1e-4


# -- guarantees -------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), keep=st.floats(0.1, 0.9))
@settings(max_examples=25, deadline=None)
def test_futures_are_never_too_small_and_never_rise(seed: int, keep: float) -> None:
    generator = np.random.default_rng(seed)
    model = random_bits(5, 0.6, generator)
    strings = ["".join(s) for s in product("01", repeat=5)]
    kept = [s for s in strings if generator.random() < keep] or strings[:1]
    problem = Problem(model, FiniteLanguage(kept, BITS), 200, 6)
    c = enumerate_language(model, problem.grammar).futures
    latest: dict[TokenString, float] = {}

    def look(prefix: TokenString, value: float) -> None:
        assert value >= c[prefix] - 1e-9
        assert value <= latest.get(prefix, 1.0) + 1e-12
        latest[prefix] = value

    trie = Trie(observer=look)
    for _ in range(problem.samples):
        trie.update(trie.walk(problem, generator, lambda node: node.log_weights))  # type: ignore[attr-defined]
    for prefix, bound in known_futures(trie, BITS.eos).items():
        assert bound <= c[prefix] + 1e-9


def test_root_future_reaches_the_mass_when_all_prefixes_are_visited() -> None:
    for name in ("binary_len_3", "binary_len_5_0", "binary_len_5_1"):
        problem = coin_problem(name)
        exact = enumerate_language(problem.model, problem.grammar)
        trie = Trie()
        roots = []
        for string in exact.strings:
            force(trie, problem, string)
            roots.append(math.exp(trie.log_c_root))
        assert all(np.diff(roots) <= 1e-12)
        assert min(roots) >= exact.mass - 1e-12
        assert roots[-1] == pytest.approx(exact.mass)
        assert known_futures(trie, BITS.eos)[()] == pytest.approx(exact.mass)


def test_probabilities_far_below_the_smallest_float() -> None:
    ones = np.full(2**12 - 1, 1e-40)
    narrow = Problem(BitStrings(ones), FiniteLanguage(["0" * 11 + "1", "1" * 12], BITS), 50, 13)
    trie, generator = Trie(), np.random.default_rng(0)
    for _ in range(50):
        trie.update(trie.walk(narrow, generator, lambda node: node.log_weights))  # type: ignore[attr-defined]
    # P(0...01) = 1e-40; the other string has probability 1e-480, which no float holds.
    assert trie.log_c_root == pytest.approx(math.log(1e-40), rel=1e-9)


class DeadEnd(Grammar):
    """Admits 0 at first, after which nothing can follow, or 1 and the end."""

    vocabulary = BITS

    def admitted(self, prefix: object) -> np.ndarray:
        following = {(): [0, 1], (1,): [2]}
        return np.array(following.get(tuple(prefix), []), np.int64)  # type: ignore[call-overload]


class Coin(LanguageModel):
    """Any token with probability one third."""

    vocabulary = BITS

    def log_probabilities(self, prefix: object) -> np.ndarray:
        return np.full(3, -math.log(3))


def test_a_dead_end_gets_no_future_and_is_not_visited_again() -> None:
    problem, trie, generator = Problem(Coin(), DeadEnd(), 100, 5), Trie(), np.random.default_rng(0)
    walks = []
    for _ in range(100):
        walks.append(trie.walk(problem, generator, lambda node: node.log_weights))  # type: ignore[attr-defined]
        trie.update(walks[-1])
    assert sum(not walk.finished for walk in walks) == 1
    assert math.exp(trie.log_c_root) == pytest.approx(1 / 9)
    assert not gather(walks).finished.all()


def test_strings_at_the_limit_are_unfinished_and_keep_their_future() -> None:
    problem, trie = coin_problem(), Trie()
    problem.limit = 3
    walk = trie.walk(problem, np.random.default_rng(0), lambda node: node.log_weights)  # type: ignore[attr-defined]
    trie.update(walk)
    assert not walk.finished
    assert len(walk.string) == 3
    assert gather([walk]).log_p[0] == pytest.approx(3 * math.log(0.5))


def test_reloaded_trie_has_the_same_next_laws(tmp_path: Path) -> None:
    problem, trie, generator = coin_problem(), Trie(), np.random.default_rng(0)
    for _ in range(20):
        trie.update(trie.walk(problem, generator, lambda node: node.log_weights))  # type: ignore[attr-defined]
    trie.save(tmp_path / "trie.npz")
    again = Trie.load(tmp_path / "trie.npz")
    assert again.log_c_root == trie.log_c_root
    assert len(again) == len(trie)
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    for _ in range(200):
        a = trie.walk(problem, one, lambda node: node.log_weights)  # type: ignore[attr-defined]
        b = again.walk(problem, other, lambda node: node.log_weights)  # type: ignore[attr-defined]
        assert a.string == b.string
        assert a.nodes[2].log_p.tolist() == b.nodes[2].log_p.tolist()
        trie.update(a)
        again.update(b)


def test_empty_trie_can_be_saved(tmp_path: Path) -> None:
    Trie().save(tmp_path / "trie.npz")
    again = Trie.load(tmp_path / "trie.npz")
    assert again.root is None
    assert len(again) == 0


# -- the task and the contenders --------------------------------------------------------------------------


def test_asap_converges_and_masking_does_not() -> None:
    task = BitStringSampling(samples=2000)
    aligned, masked = run_once(Asap(), task).metrics, run_once(GrammarConstrainedDecoding(), task).metrics
    assert aligned["grammatical"] == aligned["finished"] == masked["grammatical"] == 1
    assert aligned["last_kl_over_noise"] < 1
    assert masked["last_kl"] == pytest.approx(0.7538, abs=0.2)
    assert aligned["root_future"] == pytest.approx(17 / 32)
    assert aligned["future_violation"] < 1e-9
    assert aligned["future_increase"] < 1e-12


def test_exact_start_follows_the_target_at_once_and_keeps_its_futures() -> None:
    got = run_once(Asap(start="exact"), BitStringSampling(model="dirichlet-2", samples=1000)).metrics
    assert got["last_kl_over_noise"] < 1
    assert abs(got["future_violation"]) < 1e-9
    assert got["future_increase"] < 1e-12


@pytest.mark.parametrize("make", [ExactSampling, RejectionSampling, ImportanceResampledGcd])
def test_exact_baselines_agree_with_the_enumerated_target(make: type) -> None:
    task = BitStringSampling(model="dirichlet-1", samples=2000)
    got = run_once(make(), task).metrics
    assert got["grammatical"] == 1
    assert got["kl"] < 5 * 16 / (2 * 1000)
    if make is RejectionSampling:
        assert got["acceptance"] == pytest.approx(got["mass"], abs=0.02)
    if make is ImportanceResampledGcd:
        assert got["mass_estimate"] == pytest.approx(got["mass"], abs=0.05)
        assert 1 <= got["effective_samples"] <= 2000


def test_free_samples_are_in_the_language_as_often_as_its_mass() -> None:
    got = run_once(UnconstrainedSampling(), BitStringSampling(samples=4000)).metrics
    assert got["grammatical"] == pytest.approx(17 / 32, abs=0.04)
    assert got["finished"] == 1


def test_rejection_gives_up() -> None:
    with pytest.raises(BadOutput, match="too few"):
        run_once(RejectionSampling(batch=10, most=20), BitStringSampling(samples=500))


def test_random_laws_are_the_same_for_every_seed_and_differ_by_number() -> None:
    task = BitStringSampling(model="dirichlet-1")
    one, other = task.load(1), task.load(2)
    different = BitStringSampling(model="dirichlet-2").load(1)
    assert np.array_equal(one.model.ones, other.model.ones)  # type: ignore[attr-defined]
    assert not np.array_equal(one.model.ones, different.model.ones)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="fair-coin"):
        BitStringSampling(model="biased-coin")


def test_divergence_and_variation_by_hand() -> None:
    log_q = {(0,): math.log(0.25), (1,): math.log(0.75)}
    drawn = [(0,), (0,), (1,), (1,)]
    assert divergence(drawn, log_q) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert total_variation(drawn, log_q) == pytest.approx(0.25)
    with pytest.raises(BadOutput):
        divergence([(2,)], log_q)
    with pytest.raises(BadOutput):
        divergence([], log_q)


def test_draw_follows_its_weights_and_knows_when_there_is_nothing() -> None:
    generator = np.random.default_rng(0)
    log_w = np.array([-math.inf, math.log(0.2), -math.inf, math.log(0.8), -math.inf])
    places = [draw(log_w - 800, generator) for _ in range(5000)]
    counts = np.bincount([p for p in places if p is not None], minlength=5)
    assert counts[[0, 2, 4]].sum() == 0
    assert stats.binomtest(int(counts[1]), 5000, 0.2).pvalue > 1e-4
    assert draw(np.full(3, -math.inf), generator) is None
    assert draw(np.empty(0), generator) is None
    assert log_sum(np.empty(0)) == -math.inf


def test_a_vocabulary_needs_an_end_that_spells_nothing() -> None:
    with pytest.raises(ValueError, match="must spell nothing"):
        Vocabulary((b"a", b"b"), eos=1)
    with pytest.raises(ValueError, match="not one of"):
        Vocabulary((b"a", b""), eos=2)
