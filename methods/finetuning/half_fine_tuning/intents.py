"""Stages over intents: a sentence encoder that learns one domain of CLINC150 after another.

What it may forget is its similarity space, seen as zero-shot accuracy on another data set: a query of
BANKING77 goes to the label whose name is nearest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness import data
from methods.finetuning.encoder import SentenceClassifier, encoder, tokenize
from methods.finetuning.half_fine_tuning.stages import Host, LabelStage, StagedWork


@dataclass(frozen=True)
class Sentences:
    """Tokens and mask, int64 (sentences, length), and labels, int64 (sentences,)."""

    tokens: Tensor
    mask: Tensor
    labels: Tensor


@dataclass(frozen=True)
class IntentWork(StagedWork):
    """Domains to learn one after another with one output layer over all intents.

    Attributes:
        tests: per domain its test sentences.
        queries: of the other data set, with the index of their label.
        names: the names of its labels, tokenised; their `labels` are 0, 1, ....
        classes: outputs of the new layer.
        seed: of the new layer's weights.
    """

    host: Host
    stages: Sequence[LabelStage]
    tests: Sequence[Sentences]
    queries: Sentences
    names: Sentences
    classes: int
    seed: int
    fresh_parameters: tuple[str, ...] = ("head.",)

    def base(self, cache: Path | None, device: str) -> SentenceClassifier:
        return SentenceClassifier(encoder(), self.classes, self.seed).to(device)

    @torch.no_grad()
    def accuracy(self, model: SentenceClassifier, domain: int) -> float:
        """Share of the domain's test sentences that get their intent out of all intents."""
        test = self.tests[domain]
        return _share(model(*_on(model, test)).argmax(-1), test.labels)

    @torch.no_grad()
    def zero_shot(self, model: SentenceClassifier) -> float:
        """Share of the queries whose nearest label name by cosine is their own."""
        names = model.embed(*_on(model, self.names))
        found = []
        for tokens, mask in zip(*(t.split(128) for t in _on(model, self.queries)), strict=True):
            found.append((model.embed(tokens, mask) @ names.T).argmax(-1))
        return _share(torch.cat(found), self.queries.labels)


def _on(model: nn.Module, sentences: Sentences) -> tuple[Tensor, Tensor]:
    device = next(model.parameters()).device
    return sentences.tokens.to(device), sentences.mask.to(device)


def _share(found: Tensor, wanted: Tensor) -> float:
    return (found.cpu() == wanted).double().mean().item()


def load(
    *,
    host: Host,
    batch: int,
    domains: int,
    length: int,
    test_per_intent: int,
    queries_per_label: int,
    seed: int,
) -> IntentWork:
    """The first `domains` domains of CLINC150 in its own order, and BANKING77's test queries.

    Raises:
        MissingData: one of the data sets is not here.
    """
    table = json.loads(data.text("clinc150", "domains.json"))
    if domains > len(table):
        raise ValueError(f"CLINC150 has {len(table)} domains, not {domains}")
    order = list(table)[:domains]
    index = {intent: i for i, intent in enumerate(i for domain in table.values() for i in domain)}
    rows = {part: _rows("clinc150", f"{part}.jsonl.gz") for part in ("train", "test")}

    def sentences(part: str, domain: str, per_intent: int | None) -> Sentences:
        chosen = [
            row
            for intent in table[domain]
            for row in [r for r in rows[part] if r["intent"] == intent][:per_intent]
        ]
        tokens, mask = tokenize([row["text"] for row in chosen], length)
        return Sentences(tokens, mask, torch.tensor([index[row["intent"]] for row in chosen]))

    train = [sentences("train", domain, None) for domain in order]
    labels = json.loads(data.text("banking77", "categories.json"))
    frame = data.table("banking77", "test.csv.gz").to_pandas()
    frame = frame.groupby("category", sort=False).head(queries_per_label)
    tokens, mask = tokenize(frame["text"].tolist(), length)
    wanted = torch.from_numpy(np.array([labels.index(c) for c in frame["category"]]))
    named = tokenize([label.replace("_", " ").replace("?", "").lower() for label in labels], length)
    return IntentWork(
        host=host,
        stages=[LabelStage(s.tokens, s.mask, s.labels, batch) for s in train],
        tests=[sentences("test", domain, test_per_intent) for domain in order],
        queries=Sentences(tokens, mask, wanted),
        names=Sentences(*named, torch.arange(len(labels))),
        classes=len(index),
        seed=seed,
    )


def _rows(name: str, filename: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.text(name, filename).splitlines()]
