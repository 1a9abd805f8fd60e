"""What generated texts are about, by a judge that learnt from documents which no model has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.errors import BadOutput

ENOUGH = 3
"""Texts of a domain from which on it counts as found."""


class Judge:
    """Character 1-3-gram tf-idf (of those in at least two documents) and logistic regression.

    Args:
        documents: texts by domain. Of each domain a quarter is kept back for `accuracy`.
    """

    def __init__(self, documents: Mapping[str, Sequence[str]]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        learnt = [(text, name) for name, texts in documents.items() for text in texts[len(texts) // 4 :]]
        kept = [(text, name) for name, texts in documents.items() for text in texts[: len(texts) // 4]]
        self._words = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False, min_df=2)
        self._pipeline: Any = make_pipeline(self._words, LogisticRegression(max_iter=1000))
        self._pipeline.fit(*map(list, zip(*learnt, strict=True)))
        texts, names = map(list, zip(*kept, strict=True))
        self.accuracy = float(self._pipeline.score(texts, names))

    def domains(self, texts: Sequence[str]) -> list[str]:
        """The most probable domain of each text."""
        return [str(name) for name in self._pipeline.predict(list(texts))]

    def similarity(self, texts: Sequence[str]) -> float:
        """Mean cosine of the tf-idf vectors of two different texts; 1 where there is one text only."""
        vectors = self._words.transform(list(texts))
        total = np.asarray(vectors.sum(0)).ravel()
        own = float(vectors.multiply(vectors).sum())
        pairs = len(texts) * (len(texts) - 1)
        return (float(total @ total) - own) / pairs if pairs else 1.0


def coverage(found: Sequence[str], novel: Sequence[str]) -> dict[str, float]:
    """How much of the novel domains a set of texts shows.

    Args:
        found: the domain of each text.
        novel: the domains that are novel.

    Returns:
        ``novel_rate`` (share of the texts in a novel domain), ``domains`` (novel ones with at least `ENOUGH` texts) and
        ``entropy`` in nats of the law of the domains among the novel texts, 0 where there is none.
    """
    if not found:
        raise BadOutput("no text was generated")
    counts = Counter(name for name in found if name in novel)
    total = sum(counts.values())
    shares = np.array(list(counts.values())) / max(total, 1)
    return {
        "novel_rate": total / len(found),
        "domains": float(sum(count >= ENOUGH for count in counts.values())),
        "entropy": float(-(shares * np.log(shares)).sum()) + 0.0,
    }


def area(scores: np.ndarray, novel: np.ndarray) -> float:
    """Area under the ROC of telling novel documents by a higher score.

    Raises:
        BadOutput: all documents are of one kind, so that there is no area, or a score is not finite.
    """
    from sklearn.metrics import roc_auc_score

    if novel.all() or not novel.any():
        raise BadOutput("all documents are novel or all are familiar: there is no area under the ROC")
    if not np.isfinite(scores).all():
        raise BadOutput(f"{(~np.isfinite(scores)).sum()} of {len(scores)} scores are not finite")
    return float(roc_auc_score(novel, scores))
