"""Recurrent networks and a causal transformer that read a whole trace and forecast after each of its prefixes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Cell = Literal["rnn", "lstm", "gru", "transformer"]


class NextSymbolNetwork(nn.Module):
    """Symbols before each place in, logits of the symbol at each place out: int64 [b, t] -> float32 [b, t, K].

    The output at a place depends on the symbols up to it alone, so that one pass over a trace gives the forecasts of all
    its prefixes, the same as a pass over each.

    Args:
        symbols: K; END stands for the start of the trace.
        cell: what kind of layers.
        layers: how many.
        units: width of each; for a transformer a multiple of 4, the number of its heads.
        embedding: width of a learned input; 0 feeds one-hot vectors.
        dropout: between layers and before the output.
        longest: of the places, for a transformer's learned positions; later places share the last one.
    """

    def __init__(
        self,
        symbols: int,
        *,
        cell: Cell = "lstm",
        layers: int = 1,
        units: int = 64,
        embedding: int = 64,
        dropout: float = 0.0,
        longest: int = 512,
    ) -> None:
        super().__init__()
        self.symbols = symbols
        self.cell = cell
        width = units if cell == "transformer" else embedding
        self.embed = nn.Embedding(symbols, width) if width else None
        self.dropout = nn.Dropout(dropout)
        if cell == "transformer":
            self.positions = nn.Embedding(longest, units)
            layer = nn.TransformerEncoderLayer(
                units, 4, 4 * units, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            self.body: nn.Module = nn.TransformerEncoder(
                layer, layers, norm=nn.LayerNorm(units), enable_nested_tensor=False
            )
        else:
            kind = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell]
            between = dropout if layers > 1 else 0.0
            self.body = kind(width or symbols, units, layers, batch_first=True, dropout=between)
        self.head = nn.Linear(units, symbols)

    def forward(self, before: Tensor) -> Tensor:
        """Logits."""
        if self.embed is None:
            inputs = nn.functional.one_hot(before, self.symbols).to(self.head.weight.dtype)
        else:
            inputs = self.embed(before)
        if self.cell == "transformer":
            length = before.shape[1]
            places = torch.arange(length, device=before.device).clamp(max=self.positions.num_embeddings - 1)
            mask = nn.Transformer.generate_square_subsequent_mask(length, before.device, inputs.dtype)
            hidden = self.body(inputs + self.positions(places), mask=mask, is_causal=True)
        else:
            hidden, _ = self.body(inputs)
        return self.head(self.dropout(hidden))

    def penalised(self) -> list[Tensor]:
        """The weights that l1 and l2 penalties apply to: the matrices of the layers, no biases."""
        return [p for name, p in self.body.named_parameters() if p.dim() > 1 and "norm" not in name]
