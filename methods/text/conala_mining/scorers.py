"""Likelihoods of code given intent and intent given code, from models that are trained here on pairs of the two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from harness.seeding import rng
from methods.text.conala_mining import pages as sources
from methods.text.conala_mining.ibm_model import IbmModel1
from methods.text.conala_mining.pages import Page
from methods.text.conala_mining.tokens import code_tokens, words

Corpus = Literal["annotated", "mined", "java-names", "made-up"]


def training_pairs(
    corpus: Corpus, without: Sequence[Page], seed: int, at_most: int = 0
) -> list[tuple[list[str], list[str]]]:
    """Pairs of intent and code as tokens, none of a question in `without`.

    Args:
        corpus: annotated Python snippets, the mined Python corpus, names and bodies of Java methods, or made-up pages
            drawn with another seed.
        without: pages that are evaluated.
        seed: of made-up pages, and of the choice where there are more pairs than `at_most`.
        at_most: how many pairs; 0 for all.

    Raises:
        MissingData: a data set is not here.
    """
    match corpus:
        case "annotated":
            pairs = sources.annotated_pairs(without)
        case "mined":
            return [(words(a), code_tokens(b)) for a, b in sources.mined_pairs(without, at_most or 1_000_000)]
        case "java-names":
            pairs = sources.java_name_pairs()
        case "made-up":
            others = sources.made_up_pages(60, rng(seed, "other pages"))
            pairs = [(page.intent, code) for page in others for code in page.gold]
    if at_most and len(pairs) > at_most:
        kept = rng(seed, "pairs").permutation(len(pairs))[:at_most]
        pairs = [pairs[i] for i in kept]
    return [(words(intent), code_tokens(code)) for intent, code in pairs]


def _flat(pages: Sequence[Page]) -> tuple[list[tuple[list[str], list[str]]], np.ndarray]:
    """Intent and candidate of every candidate, and where each page's end."""
    pairs = [(words(page.intent), code_tokens(code)) for page in pages for code in page.candidates]
    return pairs, np.cumsum([len(page.candidates) for page in pages])[:-1]


def by_ibm_model(
    pages: Sequence[Page], pairs: Sequence[tuple[list[str], list[str]]], iterations: int
) -> list[np.ndarray]:
    """Likelihoods per token of the candidates of each page by IBM model 1, one for each direction."""
    intents, codes = [a for a, _ in pairs], [b for _, b in pairs]
    forward = IbmModel1(intents, codes, iterations=iterations)
    backward = IbmModel1(codes, intents, iterations=iterations)
    asked, edges = _flat(pages)
    found = np.array([[forward.per_token(a, b), backward.per_token(b, a)] for a, b in asked]).reshape(-1, 2)
    return np.split(found, edges)


def by_translation(
    pages: Sequence[Page],
    pairs: Sequence[tuple[list[str], list[str]]],
    *,
    units: int,
    epochs: int,
    least: int,
    seed: int,
    device: str,
) -> list[np.ndarray]:
    """Likelihoods per token of the candidates of each page by two encoder-decoders, one for each direction."""
    from methods.text.conala_mining.translation import Translator

    intents, codes = [a for a, _ in pairs], [b for _, b in pairs]
    options = {"units": units, "epochs": epochs, "least": least, "device": device}
    forward = Translator(intents, codes, seed=seed, **options)  # type: ignore[arg-type]
    backward = Translator(codes, intents, seed=seed + 1, **options)  # type: ignore[arg-type]
    asked, edges = _flat(pages)
    columns = [forward.per_token(asked), backward.per_token([(b, a) for a, b in asked])]
    return np.split(np.column_stack(columns), edges)


def agreement(ours: Sequence[np.ndarray], pages: Sequence[Page]) -> float:
    """Spearman's rank correlation with the released likelihoods within a page, mean over pages and both directions.

    Pages without released likelihoods, with fewer than three candidates or without spread are left out; 0 if none is
    left.
    """
    from scipy import stats

    found = []
    for values, page in zip(ours, pages, strict=True):
        if page.likelihoods is None or len(values) < 3:
            continue
        for column in range(2):
            a, b = values[:, column], page.likelihoods[:, column]
            if np.ptp(a) > 0 and np.ptp(b) > 0:
                found.append(stats.spearmanr(a, b).statistic)
    return float(np.mean(found)) if found else 0.0
