"""Retrieved answers of the WikiFact relations, as they are and with injected sources.

The data has, for every question, the ranked web hosts and the answer that a small language model gave
when shown that search result, and the registered domain of every host.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness import data
from harness.seeding import rng
from methods.retrieval.data_importance.retrievals import Retrievals

Relation = Literal["place_of_birth", "currency"]
Scenario = Literal["raw", "noise"]

QUALITIES = (0.2, 0.4, 0.6, 0.8, 1.0)
SOURCES_PER_QUALITY = 10


@dataclass(frozen=True)
class Corpus:
    """The questions of a relation.

    Attributes:
        retrieved: all questions, items by host.
        groups: int64[S], the group (registered domain) of every host, in alphabetical order.
        names: names of the groups.
        right: for every question the numbers of its right answers.
        strings: answer strings by number.
    """

    retrieved: Retrievals
    groups: NDArray[np.int64]
    names: list[str]
    right: list[set[int]]
    strings: list[str]


def load(relation: Relation, scenario: Scenario, seed: int) -> Corpus:
    """The corpus of a relation in a scenario; `seed` draws what is injected.

    raw: as retrieved.

    noise: 50 sources of quality 0.2, 0.4, .., 1.0, ten of each. For each quality the ranks of the result
    list are dealt out to its ten sources, so that every search result is held by five sources. A source
    returns it as it is with its quality as the probability, and corrupted otherwise: in a corrupted
    result the right answer is replaced by one wrong answer, the same for the whole question, so a right
    answer turns into that and a wrong answer stays. (The paper replaced the right answers in the text of
    the results and asked the language model again; those answers exist for 19 relations, without the one
    on places of birth, and are not part of the data here.)

    The wrong answers are drawn from what was answered to the relation's other questions. (The paper's third
    scenario, pages written by GPT-3.5, needs those pages.)
    """
    corpus = _raw(relation)
    if scenario == "noise":
        return _with_noise(corpus, seed)
    return corpus


def _lines(filename: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.text("wikifact-retrieval", filename).splitlines() if line]


def _raw(relation: Relation) -> Corpus:
    questions = _lines(f"{relation}.jsonl.gz")
    domains = {
        host: domain["name"]
        for domain in _lines(f"{relation}_websites_by_domain.jsonl.gz")
        for host in domain["elements"]
    }
    names = sorted(set(domains.values()))
    number = {name: i for i, name in enumerate(names)}
    hosts = {host: i for i, host in enumerate(sorted(domains))}
    strings: dict[str, int] = {}
    width = max(len(q["retrieved_answers"]) for q in questions)
    sources = np.full((len(questions), width), len(hosts), dtype=np.int32)
    answers = np.full((len(questions), width), -1, dtype=np.int32)
    right = []
    for row, question in enumerate(questions):
        given = [strings.setdefault(a, len(strings)) for a in question["retrieved_answers"]]
        right.append({strings.setdefault(a, len(strings)) for a in question["correct_answers"]})
        answers[row, : len(given)] = given
        sources[row, : len(given)] = [hosts[h] for h in question["retrieved_websites"]]
    return Corpus(
        Retrievals(sources, _utilities(answers, right), len(hosts), answers),
        np.array([number[domains[host]] for host in hosts]),
        names,
        right,
        list(strings),
    )


def _utilities(answers: NDArray[np.int32], right: list[set[int]]) -> NDArray[np.uint8]:
    """1 where the answer is one of the right ones: uint8[N, M]."""
    return np.stack([np.isin(a, list(r)) for a, r in zip(answers, right, strict=True)]).astype(np.uint8)


def _wrong_answers(corpus: Corpus, generator: np.random.Generator) -> NDArray[np.int32]:
    """A wrong answer for every question, drawn from the answers to all: int32[N, 1]."""
    answers = corpus.retrieved.answers
    assert answers is not None
    given = answers[answers >= 0]
    drawn = generator.choice(given, (len(answers), 1))
    for row, right in enumerate(corpus.right):
        while (bad := np.isin(drawn[row], list(right))).any():
            drawn[row, bad] = generator.choice(given, int(bad.sum()))
    return drawn.astype(np.int32)


def _with_noise(corpus: Corpus, seed: int) -> Corpus:
    draw = rng(seed, "noisy sources")
    answers = corpus.retrieved.answers
    assert answers is not None
    ranks = answers.shape[1]
    kinds = len(QUALITIES)
    labels = draw.permutation(kinds * SOURCES_PER_QUALITY).reshape(kinds, SOURCES_PER_QUALITY)
    holder = np.empty((ranks, kinds), dtype=np.int32)  # the source of each quality that holds a rank
    for kind in range(kinds):
        dealt = np.array_split(draw.permutation(ranks), SOURCES_PER_QUALITY)
        for part, members in enumerate(dealt):
            holder[members, kind] = labels[kind, part]
    order = np.argsort(holder, axis=1)  # copies of one result rank by the number of their source
    holder = np.take_along_axis(holder, order, axis=1)
    quality = np.array(QUALITIES)[order]

    real = np.repeat(answers >= 0, kinds, axis=1)
    copies = np.repeat(answers, kinds, axis=1)
    corrupted = draw.random(copies.shape) >= quality.ravel()
    was_right = np.repeat(corpus.retrieved.utilities == 1, kinds, axis=1)
    wrong = _wrong_answers(corpus, draw)
    copies = np.where(corrupted & was_right, wrong, copies).astype(np.int32)
    count = kinds * SOURCES_PER_QUALITY
    sources = np.where(real, holder.ravel(), count).astype(np.int32)
    return Corpus(
        Retrievals(sources, _utilities(copies, corpus.right), count, copies),
        np.arange(count),
        [f"source-{i:02d}" for i in range(count)],
        corpus.right,
        corpus.strings,
    )
