"""CoNaLa mining: the classifier, its baselines, and the models of correspondence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadOutput, RequestError
from harness.seeding import derive
from harness.testing import prepared, run_once
from methods.text.conala_mining import baselines, method, ranking, scorers
from methods.text.conala_mining.ibm_model import IbmModel1
from methods.text.conala_mining.tasks import SnippetMining
from methods.text.conala_mining.tokens import Vocabulary, code_tokens, words
from methods.text.conala_mining.translation import EncoderDecoder, Translator, uniform_loss
from tests.conftest import needs_data

MADE_UP = SnippetMining(language="made-up", questions=20)


def test_tokens():
    assert words("How do I open a file?") == ["how", "do", "i", "open", "a", "file", "?"]
    assert code_tokens("my_file.readLines(HTTPServer2)") == [
        "my", "file", ".", "read", "lines", "(", "http", "server", "2", ")"
    ]  # fmt: skip
    vocabulary = Vocabulary([["a", "b"], ["a"], ["a", "b"]], 2)
    assert vocabulary.tokens == ["<unk>", "a"]
    assert vocabulary.encode(["b", "a", "z"]) == [0, 1, 0]


# -- IBM model 1 -----------------------------------------------------------------------------------------------


def test_ibm_model_against_nltk():
    nltk = pytest.importorskip("nltk.translate")
    pairs = [
        (["the", "house"], ["das", "haus"]),
        (["the", "book"], ["das", "buch"]),
        (["a", "book"], ["ein", "buch"]),
    ]
    ours = IbmModel1([a for a, _ in pairs], [b for _, b in pairs], iterations=5, share=0.0)
    theirs = nltk.IBMModel1([nltk.AlignedSent(b, a) for a, b in pairs], 5)
    # What never occurs together NLTK leaves at its uniform start.
    for source, target in {pair for a, b in pairs for pair in itertools.product(a, b)}:
        i, j = ours.sources.encode([source])[0], ours.targets.encode([target])[0]
        assert ours.table[i, j] == pytest.approx(theirs.translation_table[target][source], abs=1e-9)
    assert ours.table.sum(axis=1)[1:] == pytest.approx(1)


def test_ibm_model_by_enumeration():
    model = IbmModel1([["a"], ["a", "b"]], [["x"], ["x", "y"]], iterations=3, share=0.1)
    # P(t | s) sums over all alignments of the targets to the source words and the empty one.
    source, target = ["a", "b"], ["y", "x"]
    i = [*model.sources.encode(source), len(model.sources)]
    j = model.targets.encode(target)
    mixed = 0.9 * model.table + 0.1 / len(model.targets)
    total = sum(
        np.prod([mixed[a, t] for a, t in zip(way, j, strict=True)]) for way in itertools.product(i, repeat=2)
    )
    assert model.per_token(source, target) == pytest.approx(np.log(total / 9) / 2)
    assert model.per_token(source, []) == 0
    assert np.isfinite(model.per_token(["never"], ["seen"]))


# -- the encoder-decoder ---------------------------------------------------------------------------------------


def test_the_decoder_is_a_distribution_over_sequences():
    torch.manual_seed(0)
    network = EncoderDecoder(4, 1, 5, 0.0, 0.0).double().eval()
    source = torch.tensor([[1, 2, 3]])
    # Tokens are one word and the end; the probabilities of "end", "w end", "w w end" and "w w w" sum to one.
    total = 0.0
    for n in range(3):
        target = torch.tensor([[0] * n + [network.end]])
        # The head knows the words, then begin, then end.
        total += network(source, target).sum().exp().item()
    begins = torch.tensor([[0, 0, 0]])
    rest = network(source, begins).sum().exp().item()
    assert 0 < total + rest <= 1 + 1e-9
    step = sum(network(source, torch.tensor([[token]])).exp().item() for token in range(3))
    assert step == pytest.approx(1)


def test_filling_changes_nothing():
    torch.manual_seed(0)
    network = EncoderDecoder(6, 5, 8, 0.3, 0.2).eval()
    source = torch.tensor([[1, 2], [3, 4]])
    short, long = [2, network.end], [1, 3, 4, network.end]
    filled = torch.tensor([short + [network.fill] * 2, long])
    both = network(source, filled)
    assert both[0, 2:].tolist() == [0, 0]
    assert torch.allclose(both[0, :2], network(source[:1], torch.tensor([short]))[0], atol=1e-6)


def test_a_translator_learns_and_repeats():
    pairs = [(["open", thing], ["open", "(", thing, ")"]) for thing in ("file", "list", "date")] * 20
    options = {
        "units": 16,
        "epochs": 6,
        "least": 0,
        "batch": 8,
        "dropout": 0.1,
        "learning_rate": 0.01,
        "seed": 3,
    }
    translator = Translator([a for a, _ in pairs], [b for _, b in pairs], **options)
    assert translator.losses[-1] < 0.6 * uniform_loss(translator)
    right, wrong = translator.per_token([(["open", "file"], pairs[0][1]), (["open", "file"], pairs[1][1])])
    assert right > wrong
    again = Translator([a for a, _ in pairs], [b for _, b in pairs], **options)
    assert again.losses == translator.losses
    empty = translator.per_token([([], ["x"]), (["open"], [])])
    assert np.isfinite(empty).all()


# -- splits, classifier, baselines -----------------------------------------------------------------------------


def test_folds_are_those_of_scikit_learn():
    from sklearn.model_selection import KFold

    work = SnippetMining(language="made-up", questions=17).load(1003)
    folds = KFold(5, shuffle=True, random_state=derive(1003, "folds") % 2**32).split(np.arange(17))
    assert [(a, b) for a, b in work.splits] == [(tuple(a), tuple(b)) for a, b in folds]


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_the_area_under_the_curve_is_that_of_scikit_learn(rows):
    from sklearn.metrics import roc_auc_score

    scores, right = np.array([float(s) for s, _ in rows]), np.array([r for _, r in rows])
    area = ranking.area_under_roc(scores, right)
    if right.all() or not right.any():
        assert np.isnan(area)
    else:
        assert area == pytest.approx(roc_auc_score(right, scores), abs=1e-12)


def test_no_question_is_in_two_folds():
    work = MADE_UP.load(1000)
    tested = [i for _, test in work.splits for i in test]
    assert sorted(tested) == list(range(20)) == work.tested
    assert all(not set(train) & set(test) for train, test in work.splits)
    held = SnippetMining(language="made-up", labelled=5, held_out=10).load(1000)
    ((train, test),) = held.splits
    assert (len(train), len(test)) == (5, 10)
    assert not set(train) & set(test)
    more = SnippetMining(language="made-up", labelled=9, held_out=10).load(1000)
    assert set(train) < set(more.splits[0][0])
    assert test == more.splits[0][1]


def test_wrong_requests():
    with pytest.raises(RequestError, match="more than the 40"):
        SnippetMining(language="made-up", labelled=30, held_out=20).load(0)
    with pytest.raises(RequestError, match="folds"):
        SnippetMining(language="made-up", questions=3).load(0)
    work = MADE_UP.load(0)
    with pytest.raises(BadOutput, match="score for each"):
        MADE_UP.score(work, [np.zeros(1)])
    with pytest.raises(BadOutput, match="finite"):
        MADE_UP.score(work, [np.full(len(p.candidates), np.nan) for p in work.pages])


def test_the_classifier_finds_planted_snippets_and_shuffled_labels_hide_them():
    alone = run_once(method.MiningClassifier(features="structure"), MADE_UP).metrics
    both = run_once(method.MiningClassifier(), MADE_UP).metrics
    assert both["average_precision"] > alone["average_precision"] + 0.1
    assert both["roc_auc"] > 0.9
    control = SnippetMining(language="made-up", questions=20, shuffled_labels=True)
    assert (
        run_once(method.MiningClassifier(), control).metrics["average_precision"]
        < both["average_precision"] / 2
    )
    heuristics = run_once(baselines.AllBlocks(), MADE_UP).metrics
    assert heuristics["max_f1"] >= 0
    assert heuristics["all_recall"] == both["all_recall"]


@pytest.mark.parametrize(
    "each",
    [
        baselines.AcceptOnly(),
        baselines.RandomRanking(),
        baselines.MiningIbmModel(corpus="made-up", iterations=3),
        method.MiningTranslation(corpus="made-up", units=8, epochs=1, least=0, at_most=20),
    ],
    ids=lambda each: each.name,
)
def test_methods_on_made_up_pages(each):
    measured = run_once(each, MADE_UP).metrics
    assert measured["candidates"] == MADE_UP.amount(MADE_UP.load(1000))
    assert 0 <= measured["average_precision"] <= 1
    if each.name == "mining-translation":
        assert measured["pairs"] == 20
        assert -1 <= measured["released_agreement"] <= 1


def test_agreement_with_released_scores():
    pages = MADE_UP.load(0).pages
    assert scorers.agreement([page.likelihoods for page in pages], pages) == pytest.approx(1)
    assert scorers.agreement([-page.likelihoods for page in pages], pages) == pytest.approx(-1)
    assert scorers.agreement([np.zeros_like(page.likelihoods) for page in pages], pages) == 0


@needs_data("conala")
def test_the_released_pages():
    python = SnippetMining(language="python")
    work = python.load(1000)
    control = SnippetMining(language="python", shuffled_labels=True)
    assert run_once(method.MiningClassifier(), control).metrics["average_precision"] < 0.08
    random = run_once(baselines.RandomRanking(), python).metrics
    assert random["average_precision"] == pytest.approx(random["base_rate"], abs=0.01)
    assert len(work.pages) == 110
    with pytest.raises(RequestError, match="no released likelihoods"):
        prepared(method.MiningClassifier(), SnippetMining(language="java"))
    crossed = SnippetMining(language="java", train_language="python").load(0)
    assert (len(crossed.training), len(crossed.pages)) == (110, 100)
    same = SnippetMining(language="java", train_language="java").load(0)
    assert len(same.splits) == 5
