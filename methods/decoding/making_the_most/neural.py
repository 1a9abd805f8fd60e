"""Any causal model of transformers as a stepper of the searches (part D)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from methods.decoding.language_models import FloatArray, IntArray
from methods.decoding.making_the_most.prefix_classifier import Featured
from methods.decoding.making_the_most.states import CausalModel, States, rows_of


@dataclass(frozen=True)
class Prefixes:
    """What the model knows of some prefixes of one length.

    Attributes:
        states: cached keys and values of the prompt and the prefixes.
        log_p: next-token law: float64, shape (prefixes, vocabulary).
        hidden: output of the last layer at the last token, shape (prefixes, width).
        position: of the next token.
    """

    states: States
    log_p: FloatArray
    hidden: Tensor
    position: int


class NeuralStepper(Featured):
    """A causal model that continues a prompt; its features are the last layer's output at the last token.

    Args:
        model: in evaluation mode.
        prompt: token ids before the string, at least one.
        end: the token that ends a string.
        batch: prefixes that are run at a time.
    """

    def __init__(self, model: CausalModel, prompt: list[int], end: int, batch: int = 256) -> None:
        self.model, self.prompt, self.end, self.batch = model, prompt, end, batch
        self.vocabulary, self.width = model.vocabulary, model.width

    def _run(self, tokens: Tensor, past: States | None, position: int) -> Prefixes:
        parts = []
        with torch.inference_mode():
            for first in range(0, len(tokens), self.batch):
                rows = torch.arange(first, min(first + self.batch, len(tokens)), device=tokens.device)
                inputs = self.model.embed(tokens[rows])
                parts.append(self.model(inputs, rows_of(past, rows) if past else None, start=position))
            log_p = torch.cat([torch.log_softmax(part.logits[:, -1].double(), 1) for part in parts])
            hidden = torch.cat([part.hidden[-1][:, -1].float() for part in parts])
            states = [
                (
                    torch.cat([part.states[layer][0] for part in parts]),
                    torch.cat([part.states[layer][1] for part in parts]),
                )
                for layer in range(self.model.layers)
            ]
        return Prefixes(states, log_p.cpu().numpy(), hidden, position + tokens.shape[1])

    def start(self) -> Prefixes:
        """Run the prompt."""
        device = next(self.model.parameters()).device
        return self._run(torch.tensor([self.prompt], device=device), None, 0)

    def log_p(self, state: Prefixes) -> FloatArray:
        """The law of the last pass; the caller may write to it."""
        return state.log_p.copy()

    def advance(self, state: Prefixes, rows: IntArray, tokens: IntArray) -> Prefixes:
        """One forward pass over the new tokens."""
        device = state.hidden.device
        chosen = torch.from_numpy(np.ascontiguousarray(rows)).to(device)
        next_tokens = torch.from_numpy(np.ascontiguousarray(tokens)).to(device)[:, None]
        return self._run(next_tokens, rows_of(state.states, chosen), state.position)

    def features(self, state: Any) -> Tensor:
        """Hidden vectors of the last layer."""
        hidden: Tensor = state.hidden.clone()
        return hidden
