"""The paper's classifier: logistic regression over structural and correspondence features, split by split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from harness.errors import RequestError
from methods.text.conala_mining import correspondence, structure
from methods.text.conala_mining.pages import Page
from methods.text.conala_mining.tasks import Mining

FeatureSet = Literal["all", "structure", "correspondence"]
PAPER_C = {"python": 0.1, "java": 50.0, "made-up": 0.1}
"""Inverse strength of the L2 penalty by the language that is learnt from."""


def page_features(
    page: Page, likelihoods: np.ndarray | None, features: FeatureSet, *, common: bool = False
) -> np.ndarray:
    """The features of the candidates of a page: float64 [candidates, features].

    Raises:
        RequestError: correspondence features are asked for and there are no likelihoods.
    """
    parts = []
    if features != "correspondence":
        parts.append(structure.features(page, common=common))
    if features != "structure":
        if likelihoods is None:
            raise RequestError(
                f"the {page.language} pages have no released likelihoods",
                hint="use features: structure, or a method that computes likelihoods",
            )
        parts.append(correspondence.features(likelihoods))
    return np.concatenate(parts, axis=1)


def rank(
    work: Mining, training: Sequence[np.ndarray], tested: Sequence[np.ndarray], c: float
) -> list[np.ndarray]:
    """P(right) of every candidate of each tested page, by a classifier that has not seen the page's split.

    Args:
        work: the splits and labels.
        training: features of each training page.
        tested: features of each page.
        c: inverse strength of the penalty; 0 for the paper's value for the language that is learnt from.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found: dict[int, np.ndarray] = {}
    for train, test in work.splits:
        x = np.concatenate([training[i] for i in train])
        y = np.concatenate([work.training_labels[i] for i in train])
        if y.all() or not y.any():
            # Nothing to tell apart: every candidate is as likely as the others.
            found |= {i: np.full(len(tested[i]), float(y.mean())) for i in test}
            continue
        strength = c or PAPER_C[work.training[train[0]].language]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        model.fit(x, y)
        for i in test:
            found[i] = model.predict_proba(tested[i])[:, 1] if len(tested[i]) else np.zeros(0)
    return [found[i] for i in work.tested]
