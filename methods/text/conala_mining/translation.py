"""The attentional encoder-decoder whose log-likelihoods are correspondence features (Bahdanau et al., 2015).

One LSTM layer reads the source; at each step the decoder's LSTM reads the last target token and a mean of the encoder's
states, weighted by a perceptron's attention. Dropout is on embeddings and outputs; recurrent dropout is a mask per
sequence on the states that recur.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from methods.text.conala_mining.tokens import Vocabulary

Tokens = Sequence[str]


class EncoderDecoder(nn.Module):
    """log P of each target token: sources int64 [b, s], targets int64 [b, t] -> float32 [b, t].

    Sources of a batch have equal lengths. Numbers after the last token of the target vocabulary: begin, then end, then
    filling.
    """

    def __init__(
        self, sources: int, targets: int, units: int, dropout: float, recurrent_dropout: float
    ) -> None:
        super().__init__()
        self.begin, self.end, self.fill = targets, targets + 1, targets + 2
        self.embed_source = nn.Embedding(sources, units)
        self.embed_target = nn.Embedding(targets + 3, units)
        self.encoder = nn.LSTMCell(units, units)
        self.decoder = nn.LSTMCell(2 * units, units)
        self.keys = nn.Linear(units, units, bias=False)
        self.query = nn.Linear(units, units)
        self.weigh = nn.Linear(units, 1, bias=False)
        self.join = nn.Linear(2 * units, units)
        self.head = nn.Linear(units, targets + 2)
        self.dropout = nn.Dropout(dropout)
        self.recurrent_dropout = nn.Dropout(recurrent_dropout)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Log-probabilities of the tokens of `target`, each given those before it; 0 at filling."""
        batch, units = len(source), self.keys.in_features
        words = self.dropout(self.embed_source(source))
        keep = self.recurrent_dropout(words.new_ones(batch, units))
        h = c = words.new_zeros(batch, units)
        states = []
        for i in range(source.shape[1]):
            h, c = self.encoder(words[:, i], (h * keep, c))
            states.append(h)
        memory = torch.stack(states, dim=1)
        keys = self.keys(memory)
        before = torch.cat([target.new_full((batch, 1), self.begin), target[:, :-1]], dim=1)
        tokens = self.dropout(self.embed_target(before))
        keep = self.recurrent_dropout(words.new_ones(batch, units))
        context = torch.zeros_like(h)
        outputs = []
        for j in range(target.shape[1]):
            h, c = self.decoder(torch.cat([tokens[:, j], context], dim=1), (h * keep, c))
            attention = self.weigh(torch.tanh(keys + self.query(h)[:, None])).softmax(dim=1)
            context = (attention * memory).sum(dim=1)
            outputs.append(torch.tanh(self.join(torch.cat([h, context], dim=1))))
        logits = self.head(self.dropout(torch.stack(outputs, dim=1)))
        filling = target == self.fill
        chosen = logits.log_softmax(-1).gather(-1, target.masked_fill(filling, 0)[..., None])[..., 0]
        return chosen.masked_fill(filling, 0.0)


class Translator:
    """An encoder-decoder with its vocabularies, trained on pairs.

    Args:
        sources, targets: token lists; pairs with an empty side are left out.
        units: of embeddings, states and attention.
        epochs: passes over the pairs.
        seed: of initial weights, order and dropout.
        device: where it runs.
        least: tokens that occur at most so often are unknown.
        batch: pairs of a step, all with sources of one length.
        dropout, recurrent_dropout: shares.
        learning_rate: of Adam.
        longest: tokens of a side that are read at most.
    """

    def __init__(
        self,
        sources: Sequence[Tokens],
        targets: Sequence[Tokens],
        *,
        units: int = 256,
        epochs: int = 10,
        seed: int = 0,
        device: str = "cpu",
        least: int = 2,
        batch: int = 32,
        dropout: float = 0.5,
        recurrent_dropout: float = 0.2,
        learning_rate: float = 1e-3,
        longest: int = 150,
    ) -> None:
        self.sources, self.targets = Vocabulary(sources, least), Vocabulary(targets, least)
        self.device, self.longest = device, longest
        pairs = [(s, t) for s, t in zip(sources, targets, strict=True) if len(s) and len(t)]
        self.losses: list[float] = []
        with torch.random.fork_rng([torch.cuda.current_device()] if device.startswith("cuda") else []):
            torch.manual_seed(seed)
            size = (len(self.sources), len(self.targets))
            self.network = EncoderDecoder(*size, units, dropout, recurrent_dropout).to(device)
            optimizer = torch.optim.Adam(self.network.parameters(), learning_rate)
            for _ in range(epochs):
                total = count = 0.0
                for numbers in _equal_lengths([len(s[:longest]) for s, _ in pairs], batch, shuffled=True):
                    source, target = self._tensors([pairs[n] for n in numbers])
                    log_p = self.network(source, target)
                    tokens = int((target != self.network.fill).sum())
                    loss = -log_p.sum() / tokens
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
                    optimizer.step()
                    total, count = total + loss.item() * tokens, count + tokens
                self.losses.append(total / max(1.0, count))
        self.network.eval()

    def _tensors(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> tuple[Tensor, Tensor]:
        source = torch.tensor([self.sources.encode(s[: self.longest]) for s, _ in pairs], device=self.device)
        rows = [[*self.targets.encode(t[: self.longest]), self.network.end] for _, t in pairs]
        width = max(map(len, rows))
        filled = [row + [self.network.fill] * (width - len(row)) for row in rows]
        return source, torch.tensor(filled, device=self.device)

    @torch.no_grad()
    def per_token(self, pairs: Sequence[tuple[Tokens, Tokens]], batch: int = 128) -> np.ndarray:
        """ln P(target and its end | source) per token, for each pair; an empty source is one unknown token."""
        out = np.zeros(len(pairs))
        whole = [(s if len(s) else ("",), t) for s, t in pairs]
        for numbers in _equal_lengths([len(s[: self.longest]) for s, _ in whole], batch, shuffled=False):
            source, target = self._tensors([whole[n] for n in numbers])
            log_p = self.network(source, target).sum(dim=1)
            out[numbers] = (log_p / (target != self.network.fill).sum(dim=1)).cpu().numpy()
        return out


def _equal_lengths(lengths: Sequence[int], batch: int, *, shuffled: bool) -> list[list[int]]:
    """Batches of numbers of equal lengths; shuffled by torch's global generator if asked for."""
    order = torch.randperm(len(lengths)).tolist() if shuffled else range(len(lengths))
    groups: dict[int, list[int]] = {}
    for n in order:
        groups.setdefault(lengths[n], []).append(n)
    batches = [g[i : i + batch] for g in groups.values() for i in range(0, len(g), batch)]
    if shuffled:
        batches = [batches[i] for i in torch.randperm(len(batches)).tolist()]
    return batches


def uniform_loss(translator: Translator) -> float:
    """The loss of a model that knows nothing, in nats per token."""
    return math.log(len(translator.targets) + 2)
