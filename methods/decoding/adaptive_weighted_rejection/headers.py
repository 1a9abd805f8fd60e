"""N-gram models of the headers of the standard library's functions."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness import cache
from harness.seeding import rng
from methods.decoding.language_models import LanguageModel

HELD_OUT = 1000


def header_lines() -> tuple[list[str], list[str]]:
    """Distinct lines that begin with ``def``: those to train on, and a thousand held out."""
    from methods.decoding.documents import documents

    lines = documents("python-headers")
    held = set(
        rng(0, "held-out headers").choice(len(lines), min(HELD_OUT, len(lines) // 10), replace=False).tolist()
    )
    return [l for i, l in enumerate(lines) if i not in held], [l for i, l in enumerate(lines) if i in held]


Spelling = Literal["lines", "headers"]
"""What the tokenizer is trained on: all lines of the standard library, or those that begin with ``def``."""


def header_tokenizer(entries: int, spelling: Spelling = "lines") -> Any:
    """A byte-level BPE with `entries` entries, trained once and cached."""
    from methods.decoding.ngram import source_tokenizer

    return source_tokenizer(entries, start="" if spelling == "lines" else "def ")


def header_ngram(order: int, entries: int, spelling: Spelling = "lines") -> LanguageModel:
    """The n-gram model of the headers that are not held out; counting takes a second, the tokenizer is cached."""
    from methods.decoding.ngram import Ngram, byte_level_vocabulary

    tokenizer = header_tokenizer(entries, spelling)
    encoded = [one.ids for one in tokenizer.encode_batch_fast(header_lines()[0])]
    return Ngram.fit(encoded, byte_level_vocabulary(tokenizer), order)


def held_out_perplexity(order: int, entries: int, spelling: Spelling = "lines") -> float:
    """Of `header_ngram` for each token of the held-out headers, their ends included; computed once and cached."""
    training, held = header_lines()

    def make(path: Path) -> None:
        model, tokenizer = header_ngram(order, entries, spelling), header_tokenizer(entries, spelling)
        nats, count = 0.0, 0
        for line in held:
            ids = [*tokenizer.encode(line).ids, model.vocabulary.eos]
            for place, token in enumerate(ids):
                nats -= float(model.log_probabilities_of(np.array([token]), ids[:place])[0])
            count += len(ids)
        path.write_text(json.dumps(math.exp(nats / count)))

    digest = hashlib.sha256("\n".join([*training, "", *held]).encode()).hexdigest()
    recipe = {"order": order, "entries": entries, "spelling": spelling, "lines": digest, "version": 2}
    return float(json.loads(cache.artefact("header-perplexity", recipe, make).read_text()))
