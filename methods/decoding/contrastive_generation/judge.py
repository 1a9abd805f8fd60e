"""What generated texts are about, by a judge that learnt from documents which no model has seen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# At the top, so that the processes of all methods have them from the one that they are forked from.
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from harness.cache import artefact
from harness.errors import BadOutput
from methods.decoding.contrastive_generation.mixture import digest

ENOUGH = 3
"""Texts of a domain from which on it counts as found."""

_VERSION = 1
"""Raise it when what the judge learns changes: judges of older versions are then made anew."""


class Judge:
    """Character 1-3-gram tf-idf (of those in at least two documents) and logistic regression.

    It learns on first use and is kept in the cache under its documents, so that all methods are judged by the same one.

    Args:
        documents: texts by domain. Of each domain a quarter is kept back for `accuracy`.
        directory: the cache; by default that of the harness.
    """

    def __init__(self, documents: Mapping[str, Sequence[str]], directory: Path | None = None) -> None:
        from safetensors import safe_open

        content = {
            "documents": [[name, digest(texts)] for name, texts in documents.items()],
            "version": _VERSION,
        }
        path = artefact("novelty-judge", content, lambda to: _teach(documents, to), directory)
        with safe_open(path, "numpy") as kept:
            note = kept.metadata()
            idf, coefficients, intercept = map(kept.get_tensor, ("idf", "coefficients", "intercept"))
        self.accuracy = float(note["accuracy"])
        self._words = _words(vocabulary=json.loads(note["words"]))
        self._words.idf_ = idf
        self._law = LogisticRegression()
        self._law.classes_ = np.array(json.loads(note["domains"]))
        self._law.coef_, self._law.intercept_ = coefficients, intercept

    def domains(self, texts: Sequence[str]) -> list[str]:
        """The most probable domain of each text."""
        return [str(name) for name in self._law.predict(self._words.transform(list(texts)))]

    def similarity(self, texts: Sequence[str]) -> float:
        """Mean cosine of the tf-idf vectors of two different texts; 1 where there is one text only."""
        vectors = self._words.transform(list(texts))
        total = np.asarray(vectors.sum(0)).ravel()
        own = float(vectors.multiply(vectors).sum())
        pairs = len(texts) * (len(texts) - 1)
        return (float(total @ total) - own) / pairs if pairs else 1.0


def _words(**more: Any) -> TfidfVectorizer:
    return TfidfVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False, **more)


def _teach(documents: Mapping[str, Sequence[str]], path: Path) -> None:
    """Fit the judge of `documents` and write it to `path`."""
    from safetensors.numpy import save_file

    learnt = [(text, name) for name, texts in documents.items() for text in texts[len(texts) // 4 :]]
    kept = [(text, name) for name, texts in documents.items() for text in texts[: len(texts) // 4]]
    words, law = _words(min_df=2), LogisticRegression(max_iter=1000)
    texts, names = map(list, zip(*learnt, strict=True))
    law.fit(words.fit_transform(texts), names)
    texts, names = map(list, zip(*kept, strict=True))
    note = {
        "accuracy": repr(float(law.score(words.transform(texts), names))),
        "domains": json.dumps(law.classes_.tolist()),
        "words": json.dumps(words.get_feature_names_out().tolist()),
    }
    found = {"idf": words.idf_, "coefficients": law.coef_, "intercept": law.intercept_}
    # safetensors writes an array's memory as it lies, and that of the coefficients lies by columns.
    save_file({name: np.ascontiguousarray(array) for name, array in found.items()}, path, note)


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
    if novel.all() or not novel.any():
        raise BadOutput("all documents are novel or all are familiar: there is no area under the ROC")
    if not np.isfinite(scores).all():
        raise BadOutput(f"{(~np.isfinite(scores)).sum()} of {len(scores)} scores are not finite")
    return float(roc_auc_score(novel, scores))
