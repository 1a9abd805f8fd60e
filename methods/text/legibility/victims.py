"""Texts to attack, classifiers to attack, and how much of an attacked text can be read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness import cache, data, seeding
from methods.text import encoders
from methods.text.legibility.glyphs import unifont
from methods.text.legibility.pairs import WORD, polarity, word_counts
from methods.text.legibility.reader import Reader

Corpus = Literal["sentence-polarity", "clinc150"]
Attacked = Mapping[str, Sequence[str]]
"""The changed texts by the strength they were changed with, from weak to strong."""
LONGEST = 128
"""Tokens of a text that a victim sees."""


@dataclass(frozen=True)
class AttackWork:
    """Texts and their labels; `counts` are the words of the whole corpus, for the reader."""

    training: tuple[str, ...]
    training_labels: tuple[int, ...]
    test: tuple[str, ...]
    test_labels: tuple[int, ...]
    counts: Mapping[str, int]

    def reader(self) -> Reader:
        """The reader over the corpus's words."""
        return Reader(unifont(), self.counts)


def texts_of(corpus: Corpus) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Labelled texts to draw from, for training and for tests; the same list where a corpus has no split.

    Raises:
        MissingData: the corpus is not here.
    """
    if corpus == "sentence-polarity":
        return list(polarity()), list(polarity())
    parts = []
    for split in ("train", "test"):
        rows = [json.loads(line) for line in data.text("clinc150", f"{split}.jsonl.gz").splitlines()]
        parts.append([(row["text"], row["intent"]) for row in rows if row["intent"] != "oos"])
    number = {intent: place for place, intent in enumerate(sorted({intent for _, intent in parts[0]}))}
    train, test = ([(text, number[intent]) for text, intent in part] for part in parts)
    return train, test


def build_work(corpus: Corpus, training: int, test: int, seed: int) -> AttackWork:
    """Texts drawn with `seed`, no text in both parts."""
    source, held_out = texts_of(corpus)
    draw = seeding.rng(seed, "attacked texts")
    if source == held_out:
        order = draw.permutation(len(source))
        rows = [source[place] for place in order[:training]]
        others = [held_out[place] for place in order[training : training + test]]
    else:
        rows = [source[place] for place in draw.permutation(len(source))[:training]]
        others = [held_out[place] for place in draw.permutation(len(held_out))[:test]]
    counts = word_counts([text for text, _ in (source if source == held_out else [*source, *held_out])])
    return AttackWork(
        tuple(text for text, _ in rows), tuple(label for _, label in rows),
        tuple(" ".join(text.split()) for text, _ in others), tuple(label for _, label in others),
        counts,
    )  # fmt: skip


def recovered(reader: Reader, clean: Sequence[str], changed: Sequence[str]) -> tuple[float, float, float]:
    """Shares of words of `clean` texts that the noise-free reader reads in the `changed` ones.

    Words are what stands between white space and has only the letters a to z; a changed text has the same number of
    tokens.

    Returns:
        The share over all words, over words that were changed (1 where none was), and the share that was changed.
    """
    truth: list[str] = []
    shown: list[str] = []
    for before, after in zip(clean, changed, strict=True):
        for word, seen in zip(before.split(), after.split(" "), strict=True):
            if WORD.fullmatch(word):
                truth.append(word)
                shown.append(seen)
    distinct = sorted(set(shown))
    reading = dict(zip(distinct, reader.read(distinct), strict=True))
    right = np.array([reading[seen] == word for word, seen in zip(truth, shown, strict=True)], bool)
    differ = np.array([word != seen for word, seen in zip(truth, shown, strict=True)], bool)
    return float(right.mean()), float(right[differ].mean()) if differ.any() else 1.0, float(differ.mean())


@dataclass
class Victim:
    """A trained classifier.

    Attributes:
        embed: texts to vectors, shape (texts, width).
        weight, bias: of its linear layer: shape (classes, width) and (classes,).
        clean_accuracy: on the test texts as they are.
    """

    embed: Any
    weight: np.ndarray
    bias: np.ndarray
    clean_accuracy: float = 0.0

    def accuracy(self, texts: Sequence[str], labels: Sequence[int]) -> float:
        """Share of `texts` whose highest logit is that of their label."""
        logits = self.embed(texts) @ self.weight.T + self.bias
        return float((logits.argmax(1) == np.asarray(labels)).mean())


class Embedder:
    """The unit mean state of an encoder over the tokens of a text.

    Args:
        name: of `encoders`.
        state: weights that replace those of the encoder, of a fine-tuned one.
    """

    def __init__(self, name: str, state: Mapping[str, Any] | None = None) -> None:
        import torch

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = encoders.load_tokenizer(name)
        self.model = encoders.load_encoder(name)
        if state is not None:
            self.model.load_state_dict(state)
        self.model = self.model.to(self.device).eval()

    def tokens(self, texts: Sequence[str]) -> Any:
        """A batch of ids and masks on the device."""
        return self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        ).to(self.device)

    def states(self, texts: Sequence[str]) -> Any:
        """Unit mean states with their gradients, shape (texts, width)."""
        import torch.nn.functional as F

        batch = self.tokens(texts)
        hidden = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def __call__(self, texts: Sequence[str], batch: int = 32) -> np.ndarray:
        """Unit mean states: float32, shape (texts, width); texts of like length go together."""
        import torch

        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: np.ndarray | None = None
        with torch.inference_mode():
            for start in range(0, len(order), batch):
                rows = order[start : start + batch]
                states = self.states([texts[row] for row in rows]).float().cpu().numpy()
                found = np.zeros((len(texts), states.shape[1]), np.float32) if found is None else found
                found[rows] = states
        return np.zeros((0, 0), np.float32) if found is None else found


def victim(kind: str, encoder: str, work: AttackWork, epochs: int, lr: float) -> Victim:
    """The classifier trained on the work's texts, from the cache where it has been trained before.

    Args:
        kind: ``embedding``: a logistic regression on the encoder's mean states; ``fine-tuned``: the encoder and a
            linear layer.
        encoder: of `encoders`.
        work: what it learns from, and whose test texts give its clean accuracy.
        epochs, lr: of the fine-tuning.
    """
    from safetensors.numpy import load_file, save_file

    text = repr((work.training, work.training_labels, work.test, work.test_labels))
    recipe: dict[str, Any] = {
        "kind": kind, "encoder": encoders.identity(encoder), "version": 1,
        "texts": hashlib.sha256(text.encode()).hexdigest()[:16],
    }  # fmt: skip
    if kind == "fine-tuned":
        recipe |= {"epochs": epochs, "lr": lr}

    def make(path: Path) -> None:
        embed = Embedder(encoder)
        state: dict[str, np.ndarray] = {}
        if kind == "fine-tuned":
            weight, bias = _fine_tune(embed, work, epochs, lr)
            state = {f"encoder.{key}": value.cpu().numpy() for key, value in embed.model.state_dict().items()}
        else:
            weight, bias = _regression(embed(work.training), work.training_labels)
        clean = Victim(embed, weight, bias).accuracy(work.test, work.test_labels)
        save_file({"weight": weight, "bias": bias, "clean": np.array([clean])} | state, path)

    kept = load_file(cache.artefact("legibility-victim", recipe, make))
    state = {key.removeprefix("encoder."): value for key, value in kept.items() if key.startswith("encoder.")}
    if state:
        import torch

        embed = Embedder(encoder, {key: torch.from_numpy(value) for key, value in state.items()})
    else:
        embed = Embedder(encoder)
    return Victim(embed, kept["weight"], kept["bias"], float(kept["clean"][0]))


def _regression(vectors: np.ndarray, labels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of a logistic regression, one row for each class."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(max_iter=1000).fit(vectors, labels)
    classes = max(labels) + 1
    weight, bias = np.zeros((classes, vectors.shape[1]), np.float32), np.full(classes, -np.inf, np.float32)
    if len(fitted.classes_) == 2:  # one row stands for the difference of two
        bias[fitted.classes_] = 0.0, fitted.intercept_[0]
        weight[fitted.classes_[1]] = fitted.coef_[0]
    else:
        weight[fitted.classes_], bias[fitted.classes_] = fitted.coef_, fitted.intercept_
    return weight, bias


def _fine_tune(embed: Embedder, work: AttackWork, epochs: int, lr: float) -> tuple[np.ndarray, np.ndarray]:
    """Train the encoder in place with a linear layer on its unit mean state times the root of its width."""
    import torch
    import torch.nn.functional as F

    classes, width = max(work.training_labels) + 1, embed.model.config.hidden_size
    generator = seeding.torch_generator(0, "legibility", "victim")
    head = torch.nn.Parameter((0.02 * torch.randn(classes, width, generator=generator)).to(embed.device))
    bias = torch.nn.Parameter(torch.zeros(classes, device=embed.device))
    optimizer = torch.optim.AdamW([*embed.model.parameters(), head, bias], lr=lr)
    labels = torch.tensor(work.training_labels, device=embed.device)
    embed.model.train()
    for module in embed.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(32):
            states = embed.states([work.training[row] for row in rows.tolist()])
            loss = F.cross_entropy(width**0.5 * states @ head.T + bias, labels[rows.to(embed.device)])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    embed.model.eval()
    scaled = (width**0.5 * head).detach().cpu().numpy().astype(np.float32)
    return scaled, bias.detach().cpu().numpy()
