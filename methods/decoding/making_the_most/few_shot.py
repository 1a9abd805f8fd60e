"""Few-shot prompts for part C: random maps from symbols to labels, and multiple-choice questions."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness import data, seeding
from harness.cache import artefact
from harness.errors import RequestError
from methods.decoding.making_the_most.states import Decoder


@dataclass(frozen=True)
class Episodes:
    """Prompts with demonstrations, a query each, and the candidates for its label.

    Tokens are given for maps of symbols; questions are text, which the method encodes with its model's tokens.

    Attributes:
        prompts: demonstrations of each episode as pairs of an input and a label.
        queries: input of each query.
        candidates: labels to choose from, for each episode.
        answers: index of the right candidate.
    """

    prompts: list[list[tuple[Any, Any]]]
    queries: list[Any]
    candidates: list[list[Any]]
    answers: list[int]

    def __len__(self) -> int:
        return len(self.queries)


def symbol_map(
    rows: int, symbols: int, labels: int, demonstrations: int, random: np.random.Generator, once: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Demonstrations and a query of random maps.

    Args:
        rows: episodes.
        symbols, labels: sizes of the map's domain and range; labels are the codes after the symbols.
        demonstrations: in a prompt.
        random: the stream.
        once: the query's symbol is among the demonstrations exactly once; else at least once.

    Returns:
        int64 (rows, demonstrations + 1, 2): symbols and labels, the query last; and the place of the query's symbol.

    Raises:
        RequestError: there is no symbol left for the other demonstrations.
    """
    if symbols < 2 or demonstrations < 1:
        raise RequestError("a map needs at least two symbols, and a prompt at least one demonstration")
    maps = random.integers(labels, size=(rows, symbols)) + symbols
    shown = random.integers(symbols, size=(rows, demonstrations))
    place = random.integers(demonstrations, size=rows)
    query = shown[np.arange(rows), place]
    if once:
        # Other demonstrations of the query's symbol become another symbol, uniformly.
        other = (query[:, None] + random.integers(1, symbols, size=shown.shape)) % symbols
        shown = np.where(
            (shown == query[:, None]) & (np.arange(demonstrations) != place[:, None]), other, shown
        )
    shown = np.concatenate([shown, query[:, None]], 1)
    return np.stack([shown, np.take_along_axis(maps, shown, 1)], 2), place


def symbol_episodes(
    rows: int, symbols: int, labels: int, demonstrations: int, random: np.random.Generator
) -> Episodes:
    """Episodes whose query's symbol was shown once."""
    table, _ = symbol_map(rows, symbols, labels, demonstrations, random, once=True)
    prompts = [[(int(a), int(b)) for a, b in row[:-1]] for row in table]
    candidates = list(range(symbols, symbols + labels))
    return Episodes(
        prompts, table[:, -1, 0].tolist(), [candidates] * rows, (table[:, -1, 1] - symbols).tolist()
    )


def question_episodes(source: str, rows: int, demonstrations: int, random: np.random.Generator) -> Episodes:
    """Multiple-choice questions with demonstrations of the same task or subject; the labels are the choices' texts.

    Raises:
        MissingData: the data set is not here.
        RequestError: no task has more questions than demonstrations.
    """
    name = {"bigbench-lite-mc": "bigbench_lite_mc.jsonl.gz", "mmlu-subset": "mmlu_test_first25.jsonl.gz"}[
        source
    ]
    items = [json.loads(line) for line in data.text(source, name).splitlines() if line.strip()]
    groups: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        groups.setdefault(item.get("task") or item["subject"], []).append(item)
    large = [group for group in groups.values() if len(group) > demonstrations]
    if not large:
        raise RequestError(f"no task of '{source}' has more than {demonstrations} questions")
    episodes = Episodes([], [], [], [])
    for _ in range(rows):
        group = large[int(random.integers(len(large)))]
        chosen = [group[int(i)] for i in random.choice(len(group), demonstrations + 1, replace=False)]
        *shown, asked = chosen
        episodes.prompts.append([(_question(item), f" {item['choices'][item['label']]}") for item in shown])
        episodes.queries.append(_question(asked))
        episodes.candidates.append([f" {choice}" for choice in asked["choices"]])
        episodes.answers.append(int(asked["label"]))
    return episodes


def _question(item: dict[str, Any]) -> str:
    return f"Question: {item.get('input') or item['question']}\nAnswer:"


@dataclass(frozen=True)
class Learner:
    """A transformer that learns to learn maps: AdamW on fresh random maps, loss on every label."""

    symbols: int = 8
    labels: int = 4
    demonstrations: int = 12
    layers: int = 2
    width: int = 64
    heads: int = 4
    steps: int = 1000
    batch: int = 64
    lr: float = 3e-3
    seed: int = 0


def learner(recipe: Learner, *, device: str = "cpu", directory: Path | None = None) -> Decoder:
    """The in-context learner, on `device`, in evaluation mode; trained on first use."""
    from safetensors.torch import load_file, save_file

    from methods.common.language_model import fit

    def fresh() -> Decoder:
        return Decoder(
            recipe.symbols + recipe.labels, recipe.width, recipe.layers, recipe.heads, seed=recipe.seed
        )

    def make(path: Path) -> None:
        model = fresh().to(device)
        random = seeding.rng(recipe.seed, "maps")
        optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.95), weight_decay=0.01)

        def loss(_: int) -> Tensor:
            table, _place = symbol_map(
                recipe.batch, recipe.symbols, recipe.labels, recipe.demonstrations, random, once=False
            )
            row = torch.from_numpy(table).flatten(1).to(device)
            logits = model(model.embed(row[:, :-1])).logits[:, ::2]
            return F.cross_entropy(logits.flatten(0, 1), row[:, 1::2].flatten())

        fit(model, optimizer, loss, steps=recipe.steps, schedule="cosine", warmup=0.05)
        save_file({key: tensor.detach().cpu().clone() for key, tensor in model.state_dict().items()}, path)

    path = artefact("making-the-most-learner", {**dataclasses.asdict(recipe), "version": 1}, make, directory)
    model = fresh()
    model.load_state_dict(load_file(path))
    return model.to(device).eval()
