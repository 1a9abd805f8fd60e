"""Character-level recurrent models: small enough to be trained, updated and sampled from on one core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness import seeding
from methods.decoding.contrastive_generation.models import IGNORED, TextModel

UNKNOWN = "\x1a"
"""Stands for a character that is not in the alphabet."""

ALPHABET = "\n" + "".join(map(chr, range(32, 127))) + UNKNOWN
"""Tokens 1, 2, ...; token 0 is the start of a document."""

_PLACES = {character: place for place, character in enumerate(ALPHABET, 1)}


class Recurrent(nn.Module):
    """Embedding, one layer of gated recurrent units, logits.

    Args:
        hidden: units H.
        embedding: width E of the embedding.
        size: entries V of the vocabulary.
    """

    def __init__(self, hidden: int = 256, embedding: int = 64, size: int = len(ALPHABET) + 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, embedding)
        self.recurrent = nn.GRU(embedding, hidden, batch_first=True)
        self.output = nn.Linear(hidden, size)

    def forward(self, ids: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (rows, n, V) after each of ids (rows, n), and the last state (1, rows, H)."""
        hidden, last = self.recurrent(self.embedding(ids), state)
        return self.output(hidden), last


class CharacterModel(TextModel):
    """A `Recurrent` network over `ALPHABET`."""

    module: Recurrent

    def __init__(self, module: Recurrent) -> None:
        self.module, self.start, self.banned = module, 0, (0,)
        self.size = module.output.out_features

    @classmethod
    def fresh(cls, hidden: int, seed: int) -> CharacterModel:
        """With initial weights that depend on `seed` alone."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seeding.derive(seed, "initial weights"))
            return cls(Recurrent(hidden).eval())

    def encode(self, text: str) -> list[int]:
        return [_PLACES.get(character, _PLACES[UNKNOWN]) for character in text]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(ALPHABET[token - 1] for token in tokens if token)

    def logits(self, ids: Tensor) -> Tensor:
        result: Tensor = self.module(ids)[0]
        return result

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = self.module(tokens[:, None], state)
        return logits[:, 0], state

    def reorder(self, state: Any, rows: Tensor) -> Any:
        return state[:, rows]

    @torch.no_grad()
    def example_gradients(self, ids: Tensor, targets: Tensor, few: int = 32) -> Iterator[list[Tensor]]:
        """See `TextModel.example_gradients`; in closed form, a few rows at once.

        Autograd would run the network once for each row. Here the errors of all gates at all times come from one
        way back through time for all rows, and a row's gradient is a product of its errors and its inputs.
        """
        names = [name for name, p in self.module.named_parameters() if p.requires_grad]
        for rows, expected in zip(ids.split(few), targets.split(few), strict=True):
            gradients = _example_gradients(self.module, rows, expected)
            yield [gradients[name] for name in names]


def _example_gradients(module: Recurrent, ids: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Gradient of each row's mean loss for every parameter: name to shape (rows, *parameter)."""
    cell = module.recurrent
    x = module.embedding(ids)
    h, _ = cell(x)
    before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
    from_input = x @ cell.weight_ih_l0.T + cell.bias_ih_l0
    from_state = before @ cell.weight_hh_l0.T + cell.bias_hh_l0
    r_input, z_input, n_input = from_input.chunk(3, -1)
    r_state, z_state, n_state = from_state.chunk(3, -1)
    r, z = torch.sigmoid(r_input + r_state), torch.sigmoid(z_input + z_state)
    n = torch.tanh(n_input + r * n_state)

    seen = targets != IGNORED
    error = torch.softmax(module.output(h), -1)
    error.scatter_add_(-1, targets.clamp_min(0)[..., None], -torch.ones_like(error[..., :1]))
    error *= (seen.to(error) / seen.sum(1, keepdim=True))[..., None]
    back = error @ module.output.weight

    # h_t = (1 - z) n + z h_{t-1}; each factor of a gate's error that does not depend on what comes later, at once.
    to_n, to_z = (1 - z) * (1 - n * n), (before - n) * z * (1 - z)
    to_r = n_state * r * (1 - r)
    inputs, states = torch.empty_like(from_input), torch.empty_like(from_state)
    later = torch.zeros_like(h[:, 0])
    for t in range(ids.shape[1] - 1, -1, -1):
        here = back[:, t] + later
        d_n = here * to_n[:, t]
        d_r, d_z = d_n * to_r[:, t], here * to_z[:, t]
        torch.cat([d_r, d_z, d_n], -1, out=inputs[:, t])
        torch.cat([d_r, d_z, d_n * r[:, t]], -1, out=states[:, t])
        later = here * z[:, t] + states[:, t] @ cell.weight_hh_l0

    which = torch.zeros(*ids.shape, module.embedding.num_embeddings, dtype=x.dtype, device=x.device)
    which.scatter_(-1, ids[..., None], 1.0)
    return {
        "embedding.weight": which.mT @ (inputs @ cell.weight_ih_l0),
        "recurrent.weight_ih_l0": inputs.mT @ x,
        "recurrent.weight_hh_l0": states.mT @ before,
        "recurrent.bias_ih_l0": inputs.sum(1),
        "recurrent.bias_hh_l0": states.sum(1),
        "output.weight": error.mT @ h,
        "output.bias": error.sum(1),
    }
