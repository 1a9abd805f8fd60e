"""Contrastive generative exploration: the contrast, generation by it, and the checks of its known answers."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from harness.errors import BadOutput, RequestError
from harness.method import Context
from methods.decoding.contrastive_generation import domains
from methods.decoding.contrastive_generation.baselines import FineTunedSampling, GradientNorm
from methods.decoding.contrastive_generation.characters import ALPHABET, CharacterModel, Recurrent
from methods.decoding.contrastive_generation.contrast import (
    Contrast,
    contrastive_scores,
    plausible,
    token_scores,
)
from methods.decoding.contrastive_generation.generation import beam_sampling, best_of
from methods.decoding.contrastive_generation.judge import Judge, area, coverage
from methods.decoding.contrastive_generation.method import (
    ContrastiveScore,
    IterativeCge,
    PoolRanking,
    StaticCge,
)
from methods.decoding.contrastive_generation.mixture import Problem
from methods.decoding.contrastive_generation.models import mean_log_probability, rows_of
from methods.decoding.contrastive_generation.reference import NgramModel
from methods.decoding.contrastive_generation.tasks import NoveltyDetection, NoveltyExploration
from methods.decoding.contrastive_generation.training import Learner

P1, P0 = torch.tensor([0.5, 0.3, 0.15, 0.04, 0.01]), torch.tensor([0.6, 0.1, 0.2, 0.05, 0.05])


def streams(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed * 10_000 + k) for k in range(count)]


def network(seed: int, hidden: int = 8, scale: float = 1.0) -> CharacterModel:
    """In float64, so that what is generated does not depend on the size of a batch."""
    model = CharacterModel.fresh(hidden, seed)
    model.module.double()
    with torch.no_grad():
        model.module.output.weight.mul_(scale)
    return model


class Fixed(CharacterModel):
    """The same law at every place, over a few tokens after the start."""

    def __init__(self, law: torch.Tensor) -> None:
        super().__init__(Recurrent(1, 1, len(law) + 1))
        self.law = torch.cat([torch.tensor([-torch.inf]), law.log()])

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        return self.law.expand(*ids.shape, -1)

    def step(self, tokens: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
        return self.law.expand(len(tokens), -1), torch.zeros(1, len(tokens), 1)


# --- the contrast ------------------------------------------------------------------------------------


def test_worked_step() -> None:
    scores = token_scores(P1.log(), P0.log(), gamma=1.0, alpha=0.1)
    assert plausible(P1.log(), 0.1).tolist() == [True, True, True, False, False]
    assert scores[:3].tolist() == pytest.approx([-0.1823, 1.0986, -0.2877], abs=1e-4)
    assert scores[3:].tolist() == [-math.inf, -math.inf]
    assert scores.softmax(0)[:3].tolist() == pytest.approx([0.1818, 0.6545, 0.1636], abs=1e-4)


def test_worked_step_is_what_is_drawn() -> None:
    contrast = Contrast(Fixed(P1), Fixed(P0), gamma=1.0, alpha=0.1)
    drawn = best_of(contrast, 1, 1, streams(4000))[:, 0] - 1
    counts = np.bincount(drawn, minlength=5)
    assert not counts[3:].any()
    assert stats.chisquare(counts[:3], np.array([2, 7.2, 1.8]) / 11 * 4000).pvalue > 1e-4


def test_equal_models_are_uniform_over_the_plausible() -> None:
    model = network(1)
    contrast = Contrast(model, model.copy(), gamma=1.0, alpha=0.1)
    scores, _ = contrast.step(torch.zeros(1, dtype=torch.int64), None)
    kept = scores[scores > -torch.inf]
    assert len(kept) > 10
    assert kept.abs().max() == 0
    rows = rows_of(model, ["anything", "at all"], 8)
    assert contrastive_scores(model, model.copy(), rows).abs().max() == 0


@given(st.integers(0, 1000), st.floats(0.01, 1), st.floats(0, 2))
@settings(max_examples=30, deadline=None)
def test_scores_are_those_of_the_definition(seed: int, alpha: float, gamma: float) -> None:
    rng = np.random.default_rng(seed)
    p1, p0 = rng.dirichlet(np.full(7, 0.5)) + 1e-9, rng.dirichlet(np.full(7, 0.5)) + 1e-9
    p1, p0 = p1 / p1.sum(), p0 / p0.sum()
    found = token_scores(torch.from_numpy(p1).log(), torch.from_numpy(p0).log(), gamma, alpha).numpy()
    clear = np.abs(p1 - alpha * p1.max()) > 1e-12
    expected = np.where(p1 >= alpha * p1.max(), np.log(p1) - gamma * np.log(p0), -np.inf)
    assert found[clear] == pytest.approx(expected[clear], abs=1e-9)
    assert np.isfinite(found[p1.argmax()])


def test_gamma_needs_a_reference() -> None:
    with pytest.raises(ValueError, match="reference"):
        token_scores(P1.log(), None, gamma=1.0, alpha=0.1)


# --- generation --------------------------------------------------------------------------------------


def test_gamma_zero_is_plain_sampling() -> None:
    contrast = Contrast(Fixed(P1), Fixed(P0), gamma=0.0, alpha=0.0)
    drawn = best_of(contrast, 1, 8, streams(500)).flatten() - 1
    assert stats.chisquare(np.bincount(drawn, minlength=5), P1.numpy() / P1.sum() * 4000).pvalue > 1e-4


@pytest.mark.parametrize("draw", [beam_sampling, best_of])
def test_alpha_one_is_greedy(draw: object) -> None:
    tuned, expected, state = network(2, scale=20), [], None
    token = torch.zeros(1, dtype=torch.int64)
    for _ in range(12):
        logits, state = tuned.step(token, state)
        token = tuned.log_law(logits).argmax(-1)
        expected.append(int(token))
    for reference in (network(3), network(4)):
        found = draw(Contrast(tuned, reference, gamma=1.0, alpha=1.0), 4, 12, streams(3))
        assert found.tolist() == [expected] * 3


@pytest.mark.parametrize("draw", [beam_sampling, best_of])
def test_texts_do_not_depend_on_their_neighbours(draw: object) -> None:
    contrast = Contrast(network(5, scale=4), network(6), alpha=0.3)
    together = draw(contrast, 4, 20, streams(6)).tolist()
    alone = [draw(contrast, 4, 20, [stream])[0].tolist() for stream in streams(6)]
    assert together == alone
    assert len({tuple(row) for row in together}) == 6


def test_best_of_has_the_highest_score_of_its_samples() -> None:
    tuned, reference = network(7, scale=4), network(8)
    contrast, stream = Contrast(tuned, reference, alpha=0.2), streams(1)
    best = best_of(contrast, 4, 15, stream)[0].tolist()
    score = contrastive_scores(tuned, reference, [[0, *best]])[0]
    plain = best_of(contrast, 1, 15, streams(40, seed=1)).tolist()
    others = contrastive_scores(tuned, reference, [[0, *row] for row in plain])
    # The larger of four is above the median of all samples but for one time in sixteen; fixed by the seed.
    assert score > others.median()


def test_beam_sampling_follows_the_beams_it_kept() -> None:
    # A token and its mirror image at the next place: only a state that moves with its beam can tell.
    class Echo(Fixed):
        def step(self, tokens: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
            first = tokens if state is None or bool((state == 0).all()) else state
            law = torch.full((len(tokens), 5), -torch.inf)
            started = tokens > 0
            law[~started, 1:] = 0
            law[started, first[started]] = 0
            return law, torch.where(started, first, tokens)

        def reorder(self, state: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return state[rows]

    echo, flat = Echo(torch.ones(4) / 4), Fixed(torch.ones(4) / 4)
    rows = beam_sampling(Contrast(echo, flat, alpha=0.1), 4, 6, streams(20))
    assert (rows == rows[:, :1]).all()
    assert len(set(rows[:, 0].tolist())) == 4


def test_first_draw_of_beams_takes_different_tokens() -> None:
    # With as many beams as tokens the best one is the token with the largest score, whatever the noise.
    rows = beam_sampling(Contrast(Fixed(P1), Fixed(P0), alpha=0.0), 5, 1, streams(50))
    assert (rows - 1 == 1).all()


# --- updates -----------------------------------------------------------------------------------------


def test_a_step_makes_a_text_less_new() -> None:
    tuned, moving = CharacterModel.fresh(32, 1), CharacterModel.fresh(32, 2)
    row = rows_of(moving, ["def f(x):\n    return x + 1\n"], 40)[0]
    scores = [float(contrastive_scores(tuned, moving, [row])[0])]
    learner = Learner(moving, 3e-3)
    for steps in (1, 49):
        learner.learn(row, steps)
        scores.append(float(contrastive_scores(tuned, moving, [row])[0]))
    assert scores[0] > scores[1] > scores[2]
    assert scores[2] < -1
    assert not moving.module.training


def test_ascent_makes_a_text_less_probable() -> None:
    moving = CharacterModel.fresh(16, 3)
    row = rows_of(moving, ["unlearn this"], 40)[0]
    before = mean_log_probability(moving, [row])
    Learner(moving, 1e-3, ascend=True).learn(row)
    assert mean_log_probability(moving, [row]) < before


def test_ngram_reference_counts_texts() -> None:
    like = network(1)
    rows = rows_of(like, ["abcabcabc", "abcabd"], 20)
    model = NgramModel(like, rows, order=3)
    taken = best_of(Contrast(model, model, gamma=0.0, alpha=1.0), 1, 5, streams(1))[0].tolist()
    assert model.decode(taken) == "abcab"
    text = [rows[0], rows_of(like, ["zzzz"], 9)[0]]
    score = mean_log_probability(model, text)
    assert score[0] > score[1]
    twin = model.copy()
    twin.learn(text[1], 5)
    assert mean_log_probability(twin, text)[1] > score[1] + 1
    assert mean_log_probability(model, text)[1] == score[1]
    laws = model.log_law(model.logits(torch.tensor([rows[1][:4]]))).exp().sum(-1)
    assert laws == pytest.approx(torch.ones_like(laws), abs=1e-5)


# --- the methods, on a problem that needs no data set ------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of the models, and of the judge, which a task keeps where the harness does."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("HARNESS_CACHE", str(folder))
        yield folder


def a_problem(novel: int = 30) -> tuple[NoveltyExploration, Problem]:
    """Digests and colours are familiar; sums and shouts are new."""
    colours = ["red", "green", "blue", "grey", "black", "white", "pink"]

    def words(rng: np.random.Generator, which: list[str]) -> str:
        return " ".join(rng.choice(which, 20))[:24]

    def some(count: int, part: str) -> dict[str, tuple[str, ...]]:
        rng = np.random.default_rng(len(part))
        return {
            "colours": tuple(words(rng, colours) for _ in range(count)),
            "sums": domains.draw("sums", count, 24, "learning", rng),
            "shouts": tuple(words(rng, ["NO!", "YES!", "STOP!", "GO!"]) for _ in range(count)),
        }

    task = NoveltyExploration(
        hidden=32, length=24, novel=("sums", "shouts"), pretraining_epochs=8, pretraining_rate=1e-2,
        tuning_epochs=8, tuning_rate=5e-3, batch=16, texts=12,
    )  # fmt: skip
    learning, judging = some(150, "learning"), some(40, "judge")
    taught = {name: learning[name][:novel] for name in ("sums", "shouts")}
    return task, Problem(
        task.recipe(1000),
        learning["colours"],
        learning["colours"][:90],
        taught,
        judging["colours"][:10],
        judging,
    )


def ready(method: object, cache: object, novel: int = 30) -> object:
    method.task, method.work = a_problem(novel)
    method.context = Context(cache=cache)
    method.prepare(method.work)
    return method


def test_finds_what_is_new_and_leaves_the_tuned_model_alone(cache: object) -> None:
    method = ready(IterativeCge(rate=3e-3), cache)
    before = copy.deepcopy(method.tuned.module.state_dict())
    base = copy.deepcopy(method.reference.module.state_dict())
    texts = method.run()
    for name, tensor in method.tuned.module.state_dict().items():
        assert torch.equal(tensor, before[name])
    for name, tensor in method.reference.module.state_dict().items():
        assert torch.equal(tensor, base[name])
    assert method.run() == texts  # from the same start each time
    metrics = method.measure(texts).metrics
    assert set(metrics) == {m.name for m in (*method.task.metrics, *method.metrics)}
    assert metrics["novel_rate"] > 0.6
    assert metrics["judge_accuracy"] > 0.9


@pytest.mark.parametrize("decoding", ["beam-sampling", "best-of"])
def test_rate_zero_is_static(cache: object, decoding: str) -> None:
    static = ready(StaticCge(batch=1, decoding=decoding), cache).run()
    assert ready(IterativeCge(rate=0.0, decoding=decoding), cache).run() == static


def test_nothing_new_is_nothing_found(cache: object) -> None:
    cge, plain = ready(StaticCge(), cache, novel=0), ready(FineTunedSampling(), cache, novel=0)
    rates = [method.measure(method.run()).metrics["novel_rate"] for method in (cge, plain)]
    counts = [[round(12 * rate), 12 - round(12 * rate)] for rate in rates]
    assert stats.fisher_exact(counts).pvalue > 0.05
    detection = ready(ContrastiveScore(), cache, novel=0)
    scores, task = detection.run(), NoveltyDetection(novel=("sums", "shouts"))
    with pytest.raises(BadOutput, match="no area"):
        task.score(detection.work, scores)


@pytest.mark.parametrize(
    "variant",
    [
        IterativeCge(update="unlearning", rate=1e-4),
        IterativeCge(reference_kind="ngram", ngram_texts=40, ngram_order=3),
        StaticCge(gamma=0.0),
        PoolRanking(pool=60, rate=1e-3, every=5),
        PoolRanking(candidates="documents"),
    ],
    ids=["unlearning", "ngram", "gamma-zero", "pool", "documents"],
)
def test_variants(cache: object, variant: object) -> None:
    method = ready(variant, cache)
    before = copy.deepcopy(method.tuned.module.state_dict())
    texts = method.run()
    assert len(texts) == 12
    assert all(torch.equal(t, before[n]) for n, t in method.tuned.module.state_dict().items())
    metrics = method.measure(texts).metrics
    assert set(metrics) == {m.name for m in (*method.task.metrics, *method.metrics)}
    if isinstance(variant, PoolRanking):
        assert metrics["novel_rate"] > 0.6


def test_pool_smaller_than_the_texts(cache: object) -> None:
    with pytest.raises(RequestError, match="pool of 10 candidates"):
        ready(PoolRanking(pool=10), cache)


def test_detection(cache: object) -> None:
    detection = ready(ContrastiveScore(batch=50), cache)
    task = NoveltyDetection(novel=("sums", "shouts"))
    found = task.score(detection.work, detection.run())
    assert found.metrics["auc"] > 0.95
    assert found.series["auc"].x_label == "sums, shouts"
    assert task.amount(detection.work) == 150
    norms = ready(GradientNorm(batch=50), cache)
    assert norms.run() == pytest.approx(ready(GradientNorm(batch=7), cache).run(), rel=1e-3)
    with pytest.raises(BadOutput, match="scores for 150 documents"):
        task.score(detection.work, np.zeros(3))


# --- the judge ---------------------------------------------------------------------------------------


def test_coverage() -> None:
    names = ["a", "b", "c", "d"]
    rng = np.random.default_rng(0)
    entropies = [coverage(rng.choice(names, 60).tolist(), names)["entropy"] for _ in range(20)]
    assert np.mean(entropies) == pytest.approx(math.log(4), abs=0.05)
    exact = coverage([*names * 15, *["old"] * 60], names)
    assert exact == {"novel_rate": 0.5, "domains": 4, "entropy": pytest.approx(math.log(4))}
    assert coverage(["a"] * 60, names) == {"novel_rate": 1, "domains": 1, "entropy": 0}
    assert coverage(["old"] * 5, names) == {"novel_rate": 0, "domains": 0, "entropy": 0}
    assert coverage(["a", "a", "old"], names)["domains"] == 0
    with pytest.raises(BadOutput):
        coverage([], names)


def test_judge_tells_domains(tmp_path: Path) -> None:
    _, problem = a_problem()
    judge = Judge(problem.judging, tmp_path)
    assert judge.accuracy > 0.95
    assert judge.domains(["12 + 30 = 42 ; 1 + 1", "NO! NO! STOP!"]) == ["sums", "shouts"]
    assert judge.similarity(["same text"] * 4) == pytest.approx(1)
    assert judge.similarity(["abc", "xyz"]) < judge.similarity(["red green", "green red"])
    assert judge.similarity(["one"]) == 1


@pytest.mark.parametrize("names", [("colours", "sums", "shouts"), ("shouts", "colours")])
def test_judge_is_kept_as_it_was_fitted(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, problem = a_problem()
    judging = {name: problem.judging[name] for name in names}
    fitted = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False, min_df=2),
        LogisticRegression(max_iter=1000),
    )
    texts = [(text, name) for name, own in judging.items() for text in own[10:]]
    fitted.fit([text for text, _ in texts], [name for _, name in texts])
    Judge(judging, tmp_path)
    monkeypatch.setattr("methods.decoding.contrastive_generation.judge._teach", None)
    judge = Judge(judging, tmp_path)
    unseen = [*problem.familiar[:20], *problem.novel["sums"], "neither", "NO! 1 + 1", "green 17 = blue"]
    assert judge.domains(unseen) == fitted.predict(unseen).tolist()
    vectors = fitted[0].transform(unseen).toarray()
    cosines = (vectors @ vectors.T)[~np.eye(len(unseen), dtype=bool)]
    assert judge.similarity(unseen) == pytest.approx(cosines.mean())


def test_judge_of_other_documents_is_another(tmp_path: Path) -> None:
    _, problem = a_problem()
    Judge(problem.judging, tmp_path)
    Judge({"words": problem.judging["colours"], "sums": problem.judging["sums"]}, tmp_path)
    assert len(list(tmp_path.glob("novelty-judge-*.lock"))) == 2


def test_area() -> None:
    assert area(np.array([3.0, 2.0, 1.0]), np.array([True, True, False])) == 1
    with pytest.raises(BadOutput, match="not finite"):
        area(np.array([np.nan, 1.0]), np.array([True, False]))


# --- the parameters ----------------------------------------------------------------------------------


def test_documents_have_the_length_and_disjoint_parts() -> None:
    rng = np.random.default_rng(0)
    assert {len(text) for text in domains.draw("digests", 5, 100, "judging", rng)} == {100}
    for text in domains.draw("sums", 20, 60, "learning", rng):
        a, plus, b, equals, total, end = text.split()[:6]
        assert (plus, equals, end) == ("+", "=", ";")
        assert int(a) + int(b) == int(total)
    learnt = domains.draw("python", 50, 160, "learning", rng)
    kept = domains.draw("python", 50, 160, "judging", rng, learnt)
    assert not set(learnt) & set(kept)
    assert all(text.isascii() and len(text) == 160 for text in (*learnt, *kept))
    text = domains.plain("naïve – “so”\tx\u4e2d")
    assert text.isascii()
    assert text.startswith('naive - "so"')
    assert domains.draw("digests", 1, 44, "learning", np.random.default_rng(1))[0].endswith("=")


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"novel": ("pyton",)}, "did you mean 'python'"),
        ({"novel": ("sums", "sums")}, "named twice"),
        ({"noise_multiplier": 1.0, "target_epsilon": 8.0}, "exactly one"),
        ({"adapter": "lora"}, "no attention"),
    ],
)
def test_parameters_that_cannot_be(given_: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        NoveltyDetection(**given_).load(1000)


def test_characters_come_back() -> None:
    model = network(0)
    text = "".join(ALPHABET[:-1])
    assert model.decode(model.encode(text)) == text
    assert model.encode("é") == [len(ALPHABET)]
