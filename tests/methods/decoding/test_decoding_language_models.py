"""The n-gram model against its formula in plain Python, and the laws of bit strings."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from harness import seeding
from harness.errors import MissingModel
from methods.decoding import ngram
from methods.decoding.language_models import (
    BitStrings,
    Vocabulary,
    fair_coin,
    load_hugging_face,
    random_bits,
)
from methods.decoding.ngram import Ngram

SMALL = Vocabulary((b"a", b"b", b"c", b"d", b""), eos=4)
LINES = [[0, 1, 0], [0, 1, 2], [1, 0], [0], [2, 2, 1, 0], [0, 1, 0], []]


def witten_bell(order: int, prefix: list[int]) -> np.ndarray:
    """Interpolated Witten-Bell as its definition says, by counting in the lines."""
    beginning = -1
    p = np.full(5, 1 / 5)
    context = [beginning] * (order - 1) + prefix
    for length in range(order):
        history = tuple(context[len(context) - length :])
        followers: Counter[int] = Counter()
        for line in LINES:
            padded = [beginning] * (order - 1) + line + [4]
            for place in range(order - 1, len(padded)):
                if tuple(padded[place - length : place]) == history:
                    followers[padded[place]] += 1
        count, kinds = sum(followers.values()), len(followers)
        if count:
            own = count / (count + kinds)
            p = (1 - own) * p + own * np.array([followers[v] / count for v in range(5)])
    return p


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("prefix", [[], [0], [0, 1], [2, 2], [3], [1, 3, 0], [0, 1, 0]])
def test_ngram_law_is_the_formula(order: int, prefix: list[int]) -> None:
    model = Ngram.fit(LINES, SMALL, order)
    expected = witten_bell(order, prefix)
    assert expected.sum() == pytest.approx(1)
    assert np.exp(model.log_probabilities(prefix)) == pytest.approx(expected)
    tokens = np.array([4, 1])
    assert np.exp(model.log_probabilities_of(tokens, prefix)) == pytest.approx(expected[tokens])


@pytest.mark.parametrize("prefix", [[], [0, 1], [3], [2, 2, 1]])
def test_ngram_draws_follow_its_law(prefix: list[int]) -> None:
    model = Ngram.fit(LINES, SMALL, 3)
    drawn = model.sample_next(np.tile(np.array(prefix, np.int64), (20_000, 1)), np.random.default_rng(0))
    expected = np.exp(model.log_probabilities(prefix)) * 20_000
    assert stats.chisquare(np.bincount(drawn, minlength=5), expected).pvalue > 1e-4


def test_ngram_draws_of_a_batch_use_each_row_of_its_own() -> None:
    model = Ngram.fit(LINES, SMALL, 2)
    prefixes = np.array([[0], [3]] * 10_000)
    drawn = model.sample_next(prefixes, np.random.default_rng(0))
    for row, prefix in enumerate(([0], [3])):
        expected = np.exp(model.log_probabilities(prefix)) * 10_000
        assert stats.chisquare(np.bincount(drawn[row::2], minlength=5), expected).pvalue > 1e-4


def test_bit_strings_end_after_their_length() -> None:
    model = BitStrings(np.array([0.25, 0.5, 0.125]))
    assert np.exp(model.log_probabilities([])) == pytest.approx([0.75, 0.25, 0])
    assert np.exp(model.log_probabilities([1])) == pytest.approx([0.875, 0.125, 0])
    assert np.exp(model.log_probabilities([0, 1])) == pytest.approx([0, 0, 1])
    with pytest.raises(ValueError, match="no prefix"):
        model.log_probabilities([0, 1, 0])
    with pytest.raises(ValueError, match="2\\*\\*length"):
        BitStrings(np.array([0.5, 0.5]))
    assert np.exp(fair_coin(3).log_probabilities([0])) == pytest.approx([0.5, 0.5, 0])


def test_random_bits_follow_their_dirichlet() -> None:
    model = random_bits(12, 0.6, seeding.rng(0, "test"))
    assert len(model.ones) == 4095
    assert stats.kstest(model.ones, stats.beta(0.6, 0.6).cdf).pvalue > 1e-4
    drawn = model.sample_next(np.tile([[1, 0]], (20_000, 1)), np.random.default_rng(0))
    expected = np.exp(model.log_probabilities([1, 0]))
    assert drawn.max() < 2
    assert stats.chisquare(np.bincount(drawn, minlength=2), expected[:2] * 20_000).pvalue > 1e-4


def test_model_of_source_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("def f(x):", "return f(x)", "print(x)", "print(f(x))", "# ünï", "def g(y):") * 3
    monkeypatch.setattr(ngram, "source_lines", lambda: lines)
    model = ngram.source_ngram(3, entries=270, directory=tmp_path)
    made = sorted(path.name for path in tmp_path.iterdir())
    again = ngram.source_ngram(3, entries=270, directory=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == made
    assert np.array_equal(model.log_probabilities([5]), again.log_probabilities([5]))
    assert {bytes([code]) for code in range(256)} <= set(model.vocabulary.tokens)
    tokenizer = ngram.source_tokenizer(270, tmp_path)
    for line in lines:
        assert model.vocabulary.spell(tokenizer.encode(line).ids) == line.encode()
    narrow = ngram.source_tokenizer(262, tmp_path, start="def ")
    assert narrow.encode("print").tokens == [*"print"] != tokenizer.encode("print").tokens
    generator = np.random.default_rng(0)
    tokens: list[int] = []
    while not tokens or tokens[-1] != model.vocabulary.eos:
        tokens.append(int(model.sample_next(np.array([tokens], np.int64).reshape(1, -1), generator)[0]))
    only = ngram.source_ngram(2, entries=270, start="def ", distinct=True, directory=tmp_path)
    counts = only.counts[0]
    assert int(counts.cumulated[-1]) == sum(
        len(tokenizer.encode(t).ids) + 1 for t in ("def f(x):", "def g(y):")
    )
    recipes = [json.loads(path.read_text())["recipe"] for path in tmp_path.glob("source-bpe*.json")]
    assert sorted(recipe["entries"] for recipe in recipes) == [262, 270]
    with pytest.raises(ValueError, match="1 to 4"):
        ngram.source_ngram(5, directory=tmp_path)


def test_models_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingModel, match="cannot be loaded"):
        load_hugging_face(str(tmp_path / "nothing"), "cpu", "float32")
