"""Part D of Making the Most of your Model: searches, exact modes and degenerate modes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.seeding import rng
from harness.testing import run_once
from methods.decoding.making_the_most.chain import (
    Chain,
    contaminated,
    entropy,
    global_mode,
    length_law,
    mode_of_length,
    uniform_binary,
)
from methods.decoding.making_the_most.method import SearchedThreshold
from methods.decoding.making_the_most.modes import searched_threshold, threshold
from methods.decoding.making_the_most.prefix_classifier import (
    FeaturedChain,
    LearnedCondition,
    repeats,
    train_classifier,
)
from methods.decoding.making_the_most.search import (
    Always,
    ChainStepper,
    ExactLength,
    beam_search,
    depth_first_mode,
    sample,
)
from methods.decoding.making_the_most.sentences import split, state_pairs, trigram_chain, triples
from methods.decoding.making_the_most.tasks import DegenerateThreshold
from tests.conftest import needs_data


def bigram() -> Chain:
    """start -> a 0.6, b 0.4; a -> end 0.9, a 0.1; b -> end 0.5, b 0.5."""
    with np.errstate(divide="ignore"):
        log_p = np.log(np.array([[0.6, 0.4, 0.0], [0.1, 0.0, 0.9], [0.0, 0.5, 0.5]]))
    return Chain(log_p, np.array([[1, 2, -1], [1, 2, -1], [1, 2, -1]]), 0, "ab")


def random_chain(seed: int, states: int = 4, symbols: int = 3) -> Chain:
    """A chain with random laws whose start is never entered again."""
    stream = rng(seed, "chain")
    log_p = np.log(stream.dirichlet(np.ones(symbols + 1), states))
    after = np.concatenate([stream.integers(1, states, (states, symbols)), np.full((states, 1), -1)], 1)
    return Chain(log_p, after, 0, "abcdefgh"[:symbols])


def strings_of(chain: Chain, length: int) -> dict[tuple[int, ...], float]:
    """Every string of a length and its log P, by enumeration."""
    every = itertools.product(range(chain.end), repeat=length)
    return {(*string, chain.end): chain.log_probability((*string, chain.end)) for string in every}


def test_the_bigram_example_of_the_card() -> None:
    """P("a") = 0.54 is the mode; given two symbols it is "bb", which greedy search finds with the classifier only."""
    chain, stepper = bigram(), ChainStepper(bigram())
    string, log_p = global_mode(chain, 50)
    assert (chain.spell(string), math.exp(log_p)) == ("a", pytest.approx(0.54))
    string, log_p = mode_of_length(chain, 2)
    assert (chain.spell(string), math.exp(log_p)) == ("bb", pytest.approx(0.1))
    mass = math.exp(length_law(chain, 2)[2, 0])
    assert 0.1 / mass == pytest.approx(0.649, abs=5e-4)
    forced = beam_search(stepper, 1, 2, length=2)
    guided = beam_search(stepper, 1, 2, condition=ExactLength(chain, 2))
    assert forced is not None
    assert guided is not None
    assert (chain.spell(forced.string), chain.spell(guided.string)) == ("aa", "bb")
    first = ExactLength(chain, 2).log_c(np.array([0]), np.empty((1, 0), np.int64), np.array([[0, 1]]))
    np.testing.assert_allclose(np.exp(first)[0] * [0.6, 0.4], [0.054, 0.1])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_dynamic_programmes_equal_enumeration(seed: int, length: int) -> None:
    """Modes, laws of the length and searches on random chains, against all strings of a length."""
    chain = random_chain(seed)
    every = strings_of(chain, length)
    law = length_law(chain, length)
    assert math.exp(law[length, 0]) == pytest.approx(math.fsum(map(math.exp, every.values())))
    string, log_p = mode_of_length(chain, length)
    assert log_p == pytest.approx(max(every.values()))
    assert every[string] == pytest.approx(log_p)
    stepper = ChainStepper(chain)
    # As wide as there are prefixes, nothing is lost, with the condition or by force.
    wide = beam_search(stepper, 3**length, length, condition=ExactLength(chain, length))
    forced = beam_search(stepper, 3**length, length, length=length)
    deep = depth_first_mode(stepper, length, length=length)
    assert wide is not None
    assert forced is not None
    assert deep.found is not None
    assert wide.log_p == pytest.approx(log_p)
    assert forced.log_p == pytest.approx(log_p)
    assert deep.complete
    assert deep.found.log_p == pytest.approx(log_p)


def narrow(chain: Chain, beam: int, length: int, conditional: bool) -> tuple[int, ...]:
    """Beam search as the card defines it, from enumerated strings alone.

    A prefix is worth the sum of P over the strings of the length that begin with it, which is P(prefix) P(length |
    prefix); or, by force, P(prefix) itself.
    """
    every = {string: math.exp(log_p) for string, log_p in strings_of(chain, length).items()}

    def worth(prefix: tuple[int, ...]) -> float:
        if not conditional:
            return chain.log_probability(prefix)
        return math.fsum(p for string, p in every.items() if string[: len(prefix)] == prefix)

    kept: list[tuple[int, ...]] = [()]
    for _ in range(length):
        grown = [(*prefix, symbol) for prefix in kept for symbol in range(chain.end)]
        kept = sorted(grown, key=worth, reverse=True)[:beam]
    return max(((*prefix, chain.end) for prefix in kept), key=lambda string: every[string])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 3))
def test_narrow_beams_equal_their_definition(seed: int, length: int, beam: int) -> None:
    """Conditional and forced beam search on random chains, against prefixes that are ranked by enumeration."""
    chain = random_chain(seed)
    stepper = ChainStepper(chain)
    guided = beam_search(stepper, beam, length, condition=ExactLength(chain, length))
    forced = beam_search(stepper, beam, length, length=length)
    assert guided is not None
    assert forced is not None
    assert guided.string == narrow(chain, beam, length, conditional=True)
    assert forced.string == narrow(chain, beam, length, conditional=False)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_a_constant_classifier_is_plain_beam_search(seed: int, beam: int) -> None:
    """c = 1 changes nothing."""
    stepper = ChainStepper(random_chain(seed))
    plain = beam_search(stepper, beam, 12)
    assert beam_search(stepper, beam, 12, condition=Always()) == plain


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_the_depth_first_mode_is_the_global_mode(seed: int) -> None:
    """Both are exact, and a search that is cut off says so."""
    chain = random_chain(seed)
    string, log_p = global_mode(chain, 200)
    search = depth_first_mode(ChainStepper(chain), 60)
    assert search.complete
    assert search.found is not None
    assert search.found.log_p == pytest.approx(log_p)
    assert chain.log_probability(string) == pytest.approx(log_p)
    assert not depth_first_mode(ChainStepper(chain), 60, most=0).complete


def test_lengths_sum_to_one_and_the_entropy_is_that_of_the_strings() -> None:
    """The law of the length, and the entropy against enumeration of a chain of bounded length."""
    assert np.exp(length_law(random_chain(3), 400)[:, 0]).sum() == pytest.approx(1.0)
    assert entropy(uniform_binary(20)) == pytest.approx(20 * math.log(2))
    log_p = [math.log(0.54)] + [math.log(0.6 * 0.1**n * 0.9) for n in range(1, 60)]
    log_p += [math.log(0.4 * 0.5**n * 0.5) for n in range(60)]
    assert entropy(bigram()) == pytest.approx(-math.fsum(math.exp(l) * l for l in log_p), rel=1e-9)


def test_the_threshold_of_contamination() -> None:
    """Uniform strings of 20 bits: the mode is empty iff e / (1 - e) > 2^-20, that is e > 9.5367e-7."""
    chain = uniform_binary(20)
    exact = 2.0**-20 / (1 + 2.0**-20)
    assert exact == pytest.approx(9.5367e-7, rel=1e-4)
    for share, empty in ((exact * (1 - 1e-9), False), (exact * (1 + 1e-9), True)):
        string, _ = global_mode(contaminated(chain, share), 30)
        assert (string == (chain.end,)) is empty
    assert threshold(chain, 30) == pytest.approx(exact)
    assert searched_threshold(chain, 30) == pytest.approx(exact, rel=1e-6)
    measured = run_once(SearchedThreshold(), DegenerateThreshold(length=10)).metrics
    assert measured["relative_error"] < 1e-5


def test_beam_search_that_ranks_ends_may_miss_the_empty_string() -> None:
    """An end that is not among the best 2k candidates does not count in common libraries."""
    chain = contaminated(uniform_binary(12), 0.1)
    always = beam_search(ChainStepper(chain), 1, 20)
    ranked = beam_search(ChainStepper(chain), 1, 20, ending="ranked")
    assert always is not None
    assert always.string == (chain.end,)
    assert ranked is not None
    assert len(ranked.string) == 13


def test_samples_follow_the_law_and_stay_below_the_mode() -> None:
    """Frequencies of lengths against the exact law, and log P of each string."""
    chain = random_chain(5)
    found = sample(ChainStepper(chain), 4000, 100, rng(0, "sample"))
    lengths = np.bincount([len(f.string) - 1 for f in found], minlength=4)[:4] / 4000
    np.testing.assert_allclose(lengths, np.exp(length_law(chain, 3)[:, 0]), atol=0.03)
    assert all(chain.log_probability(f.string) == pytest.approx(f.log_p) for f in found[:50])


def test_a_learned_classifier_approaches_the_exact_one() -> None:
    """Trained on samples of a chain, its law of the remaining length is near to the dynamic programme's."""
    chain = bigram()
    stepper = FeaturedChain(chain, np.array([[2, 2], [2, 0], [2, 1]]))
    drawn = sample(stepper, 3000, 60, rng(0, "drawn"))
    classifier = train_classifier(stepper, drawn, 6, steps=120, batch=256, lr=1e-2, hidden=32)
    learned, exact = LearnedCondition(stepper, classifier, 3), ExactLength(chain, 3)
    state, prefixes, tokens = np.array([0]), np.empty((1, 0), np.int64), np.array([[0, 1, 2]])
    a, b = learned.log_c(state, prefixes, tokens), exact.log_c(state, prefixes, tokens)
    np.testing.assert_allclose(np.exp(a), np.exp(b), atol=0.03)
    found = beam_search(stepper, 1, 3, condition=learned)
    assert found is not None
    assert chain.spell(found.string) == "bbb"
    # With the condition that no symbol comes twice, nothing of three symbols is left.
    assert beam_search(stepper, 5, 3, condition=LearnedCondition(stepper, classifier, 3, 1)) is None
    assert repeats((1, 2, 1, 2), 2)
    assert not repeats((1, 2, 3), 1)


def test_a_chain_must_fit_together() -> None:
    """Shapes, the start, and what cannot be found."""
    chain = bigram()
    with pytest.raises(ValueError, match="do not fit together"):
        Chain(chain.log_p, chain.after, 0, "abc")
    with pytest.raises(ValueError, match="back to the start"):
        Chain(chain.log_p, np.zeros_like(chain.after), 0, "ab")
    with pytest.raises(ValueError, match="share of noise"):
        contaminated(chain, 1.0)
    with pytest.raises(ValueError, match="positive probability"):
        mode_of_length(chain, 0)
    with pytest.raises(ValueError, match="may be the most probable"):
        global_mode(uniform_binary(20), 10)
    with pytest.raises(ValueError, match="empty strings of its own"):
        searched_threshold(contaminated(chain, 0.1), 10)


def test_titles_end_no_sentence() -> None:
    """Nor do initials, unless they shall; quotes and brackets behind the full stop belong to the sentence before."""
    raw = 'Mr. Brooke, J. P., said: "Come!" He isn\'t here (yet.) 1832.'
    assert split(raw) == ["mr brooke j p said come", "he isnt here yet"]
    assert split(raw, titles=False)[:3] == ["mr", "brooke j", "p said come"]


def test_triples_are_counted_within_rows() -> None:
    """Against a loop over the rows."""
    rows = ["ab a", "", "b", "aaa"]
    expected = np.zeros((28, 28, 28))
    for row in rows:
        codes = [27, 27, *(26 if c == " " else ord(c) - ord("a") for c in row), 27]
        for a, b, c in zip(codes, codes[1:], codes[2:], strict=False):
            expected[a, b, c] += 1
    np.testing.assert_array_equal(triples(rows), expected)


@needs_data("gutenberg-novels")
def test_the_mode_of_a_novels_sentences_is_empty() -> None:
    """0.5 % of empty sentences, and beam search returns the empty string for every width."""
    chain = trigram_chain("gutenberg-novels/middlemarch.txt.gz")
    np.testing.assert_allclose(np.exp(chain.log_p).sum(1), 1.0)
    string, log_p = global_mode(chain, 200)
    assert string == (chain.end,)
    assert log_p == pytest.approx(math.log(0.005 / 1.005), abs=0.01)
    for beam in (1, 10, 100):
        found = beam_search(ChainStepper(chain), beam, 100)
        assert found is not None
        assert found.string == (chain.end,)
    # The state after a symbol is named by the last two symbols.
    pairs = state_pairs()
    assert (pairs[chain.after[5, :27], 1] == np.arange(27)).all()
    assert (pairs[chain.after[5, :27], 0] == pairs[5, 1]).all()


def test_a_transformer_is_a_stepper() -> None:
    """Laws with cached states equal a plain forward pass, and exact search under it equals enumeration."""
    import torch

    from methods.common.language_model import llama
    from methods.decoding.making_the_most.neural import NeuralStepper
    from methods.decoding.making_the_most.states import PretrainedDecoder

    model = llama(5, 16, 32, 1, 2, 16, seed=1)
    stepper = NeuralStepper(PretrainedDecoder(model), [4], 4, batch=2)
    state = stepper.advance(stepper.start(), np.array([0, 0, 0]), np.array([0, 1, 2]))
    state = stepper.advance(state, np.array([2, 0, 2]), np.array([3, 3, 1]))
    ids = torch.tensor([[4, 2, 3], [4, 0, 3], [4, 2, 1]])
    with torch.no_grad():
        expected = torch.log_softmax(model(input_ids=ids).logits[:, -1].double(), 1)
    np.testing.assert_allclose(stepper.log_p(state), expected, atol=1e-5)
    assert stepper.features(state).shape == (3, 16)
    search = depth_first_mode(stepper, 3, length=2)
    every = []
    for a, b in itertools.product(range(4), repeat=2):
        with torch.no_grad():
            law = torch.log_softmax(model(input_ids=torch.tensor([[4, a, b]])).logits[0].double(), 1)
        every.append(float(law[0, a] + law[1, b] + law[2, 4]))
    assert search.found is not None
    assert search.found.log_p == pytest.approx(max(every), abs=1e-5)
