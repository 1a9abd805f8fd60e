"""A learned classifier of prefixes: how many tokens are to come, and whether the string will repeat itself (part D).

It reads what the language model knows of a prefix (a feature vector) and a candidate for the next token, so that one
step of the language model serves all candidates. It is trained on strings that the model itself draws, because the
condition is about the model's own continuations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import seeding
from methods.decoding.language_models import FloatArray, IntArray
from methods.decoding.making_the_most.search import ChainStepper, Condition, Found, Stepper


class Featured(Stepper, ABC):
    """A stepper that shows what it knows of its prefixes.

    Attributes:
        width: length of a feature vector.
    """

    width: int

    @abstractmethod
    def features(self, state: Any) -> Tensor:
        """Float32, shape (prefixes, width)."""


class FeaturedChain(ChainStepper, Featured):
    """A chain whose features are its last two symbols, one-hot, read off the path that leads to a state.

    Args:
        chain: whose states are pairs of symbols.
        pairs: the two symbols of each state; the code `vocabulary - 1` stands for "none yet": int64, shape (states, 2).
    """

    def __init__(self, chain: Any, pairs: IntArray) -> None:
        super().__init__(chain)
        self.pairs = torch.from_numpy(np.asarray(pairs))
        self.width = 2 * self.vocabulary

    def features(self, state: IntArray) -> Tensor:
        """Two one-hot vectors."""
        return F.one_hot(self.pairs[torch.from_numpy(state)], self.vocabulary).flatten(1).float()


def repeats(string: Sequence[int], n: int) -> bool:
    """Whether some n tokens in a row occur twice."""
    grams = [tuple(string[place : place + n]) for place in range(len(string) - n + 1)]
    return len(set(grams)) < len(grams)


class PrefixClassifier(nn.Module):
    """Two layers over [features; embedding of the token; depth], with a head for each attribute.

    Args:
        features: width of the feature vectors.
        vocabulary: number of tokens.
        longest: remaining lengths 0..longest have a class each; longer ones share one more.
        hidden: width of the hidden layer.
        seed: of the weights.
    """

    def __init__(self, features: int, vocabulary: int, longest: int, hidden: int = 128, seed: int = 0) -> None:
        super().__init__()
        self.longest = longest
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seeding.derive(seed, "prefix classifier"))
            self.token = nn.Embedding(vocabulary, 32)
            # How deep the string is already decides what is left of it where the model itself keeps no count.
            self.body = nn.Sequential(nn.Linear(features + 33, hidden), nn.GELU())
            self.remaining = nn.Linear(hidden, longest + 2)
            self.fresh = nn.Linear(hidden, 1)

    def forward(self, features: Tensor, tokens: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the remaining length (n, longest + 2), and of "no repetition" (n,), after `tokens` (n,)."""
        place = torch.log1p(depth.float())[:, None]
        inner = self.body(torch.cat([features, self.token(tokens), place], 1))
        return self.remaining(inner), self.fresh(inner)[:, 0]


def train_classifier(
    stepper: Featured,
    strings: Sequence[Found],
    longest: int,
    *,
    n: int = 4,
    steps: int = 600,
    batch: int = 512,
    lr: float = 3e-3,
    hidden: int = 128,
    seed: int = 0,
    device: str = "cpu",
) -> PrefixClassifier:
    """The classifier, trained on every prefix of strings that the model drew.

    Args:
        stepper: the language model.
        strings: drawn from it, see `search.sample`.
        longest: of the remaining lengths that have a class of their own.
        n: a string repeats itself where n tokens in a row occur twice in it.
        steps: of AdamW.
        batch: prefixes a step.
        lr: peak learning rate; a cosine down to 0.
        hidden: width of the hidden layer.
        seed: of the weights and the order.
        device: torch device.
    """
    from methods.common.language_model import fit

    features, tokens, depth, left, fresh = _prefixes(stepper, strings, longest, n)
    features, tokens, depth = features.to(device), tokens.to(device), depth.to(device)
    left, fresh = left.to(device), fresh.to(device)
    model = PrefixClassifier(stepper.width, stepper.vocabulary, longest, hidden, seed).to(device)
    order = seeding.torch_generator(seed, "prefixes")

    def loss(_: int) -> Tensor:
        rows = torch.randint(len(tokens), (batch,), generator=order).to(device)
        remaining, unrepeated = model(features[rows], tokens[rows], depth[rows])
        return F.cross_entropy(remaining, left[rows]) + F.binary_cross_entropy_with_logits(
            unrepeated, fresh[rows]
        )

    fit(model, torch.optim.AdamW(model.parameters(), lr=lr), loss, steps=steps, schedule="cosine", warmup=0.05)
    return model


def _prefixes(
    stepper: Featured, strings: Sequence[Found], longest: int, n: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Per prefix of every string: features before its last token, that token, depth, what is left, no repetition."""
    inner = [found.string[:-1] for found in strings if len(found.string) > 1]
    fine = np.array([not repeats(string, n) for string in inner])
    sizes = np.array([len(string) for string in inner])
    order = np.argsort(-sizes, kind="stable")
    features, tokens, depth, left, fresh = [], [], [], [], []
    state, rows = stepper.start(), np.zeros(len(inner), np.int64)
    alive = order
    for t in range(int(sizes.max())):
        keep = sizes[alive] > t
        alive, rows = alive[keep], rows[keep]
        here = np.array([inner[row][t] for row in alive])
        features.append(stepper.features(state).cpu()[torch.from_numpy(rows)])
        tokens.append(here)
        depth.append(np.full(len(alive), t))
        left.append(np.minimum(sizes[alive] - t - 1, longest + 1))
        fresh.append(fine[alive])
        state = stepper.advance(state, rows, here)
        rows = np.arange(len(alive))
    parts = (np.concatenate(part) for part in (tokens, depth, left))
    a, b, c = (torch.from_numpy(part) for part in parts)
    return torch.cat(features), a, b, c, torch.from_numpy(np.concatenate(fresh)).float()


class LearnedCondition(Condition):
    """Length, no repetition, or both, by the learned classifier; finished strings are checked exactly.

    Args:
        stepper: the language model.
        classifier: of its prefixes.
        length: the string has so many tokens before its end; None: any length.
        n: no n tokens in a row occur twice; None: they may.
    """

    def __init__(
        self, stepper: Featured, classifier: PrefixClassifier, length: int | None, n: int | None = None
    ) -> None:
        if length is not None and length > classifier.longest:
            raise ValueError(f"the classifier knows lengths up to {classifier.longest}, not {length}")
        self.stepper, self.classifier, self.length, self.n = stepper, classifier, length, n

    @torch.no_grad()
    def log_c(self, state: Any, prefixes: IntArray, tokens: IntArray) -> FloatArray:
        """The classifier's estimate for every candidate; the two attributes are taken as independent given the prefix."""
        count, t = prefixes.shape
        k = tokens.shape[1]
        weight = self.classifier.token.weight
        features = self.stepper.features(state).to(weight.device).repeat_interleave(k, 0)
        flat = torch.tensor(tokens.reshape(-1)).to(weight.device)
        remaining, fresh = self.classifier(features, flat, torch.full_like(flat, t))
        value = torch.zeros(count * k, dtype=torch.float64, device=weight.device)
        if self.length is not None:
            if t < self.length:
                value += torch.log_softmax(remaining.double(), 1)[:, self.length - t - 1]
            else:
                value += -torch.inf
        if self.n is not None:
            value += F.logsigmoid(fresh.double())
        result: FloatArray = value.view(count, k).cpu().numpy()
        if self.n is not None:
            # A repetition that is there already can never be undone.
            pairs = zip(prefixes.tolist(), tokens.tolist(), strict=True)
            bad = np.array([[repeats((*row, v), self.n) for v in some] for row, some in pairs])
            result = np.where(bad, -np.inf, result)
        ended = tokens == self.stepper.end
        fits = np.array([self.length is None or t == self.length])
        if self.n is not None:
            fits = np.array([fits[0] and not repeats(row, self.n) for row in prefixes.tolist()])
        return np.where(ended, np.where(fits, 0.0, -np.inf)[:, None], result)
