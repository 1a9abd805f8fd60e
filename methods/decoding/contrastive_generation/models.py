"""What is contrasted: causal language models over token ids, whatever they are made of.

A `TextModel` is a network with its tokens: the character-level recurrent model of the cpu profile and every Hugging Face
causal model answer the same few questions, so that generation, scoring and updates are written once.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import MissingModel
from methods.decoding.language_models import load_hugging_face

IGNORED = -100
"""The target of a place that is not predicted."""


class TextModel(ABC):
    """A causal language model and its tokens.

    Attributes:
        module: the network; in evaluation mode except in a training step.
        start: the token in front of every document.
        banned: tokens that are never generated and have no probability: the start and the end of a sequence.
        size: entries of the vocabulary.
    """

    module: nn.Module
    start: int
    banned: tuple[int, ...]
    size: int

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without the start."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""

    @abstractmethod
    def logits(self, ids: Tensor) -> Tensor:
        """Float32 logits of the token after each place: ids int64 (rows, n), result (rows, n, size)."""

    @abstractmethod
    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One token further.

        Args:
            tokens: the last token of each row, int64, shape (rows,).
            state: what `step` returned before; None at the start.

        Returns:
            Float32 logits of the next token, shape (rows, size), and the state after `tokens`.
        """

    @abstractmethod
    def reorder(self, state: Any, rows: Tensor) -> Any:
        """The state of the given rows, int64, shape (rows,): a beam may be followed by several."""

    def example_gradients(self, ids: Tensor, targets: Tensor) -> Iterator[list[Tensor]]:
        """Gradients of each row's own mean loss, for the parameters that require one.

        Args:
            ids, targets: int64, shape (rows, n); `IGNORED` targets count nothing.

        Yields:
            One tensor for each parameter, with one gradient for each of the next few rows: shape (few, *parameter).
            Here one row at a time, which any network can do.
        """
        moving = trainable(self.module)
        for row, target in zip(ids, targets, strict=True):
            gradients = torch.autograd.grad(loss(self, row[None], target[None]), moving, allow_unused=True)
            yield [
                (torch.zeros_like(p) if g is None else g)[None] for p, g in zip(moving, gradients, strict=True)
            ]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.module.parameters()).device

    def copy(self) -> TextModel:
        """The same model with weights of its own."""
        twin = copy.copy(self)
        twin.module = copy.deepcopy(self.module)
        return twin

    def log_law(self, logits: Tensor) -> Tensor:
        """Log probabilities given that the text goes on: banned tokens have none, the others sum to one."""
        return torch.log_softmax(logits.index_fill(-1, self._banned(logits.device), -torch.inf), -1)

    def _banned(self, device: torch.device) -> Tensor:
        return torch.tensor(self.banned, dtype=torch.int64, device=device)


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient."""
    return [p for p in module.parameters() if p.requires_grad]


def rows_of(model: TextModel, texts: Sequence[str], length: int) -> list[list[int]]:
    """Texts as rows of tokens: the start and at most `length` tokens."""
    return [[model.start, *model.encode(text)[:length]] for text in texts]


def batch_of(model: TextModel, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows as inputs and targets on the model's device: int64, shape (rows, longest - 1), filled up on the right."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), model.start)
    targets = torch.full((len(rows), width), IGNORED)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = targets[place, : len(row)] = torch.tensor(row)
    return ids[:, :-1].to(model.device), targets[:, 1:].to(model.device)


def loss(model: TextModel, ids: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of all predicted tokens, in nats."""
    return F.cross_entropy(model.logits(ids).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


@torch.inference_mode()
def mean_log_probability(model: TextModel, rows: Sequence[Sequence[int]], batch: int = 64) -> Tensor:
    """(1 / |x|) sum of log p(x_i | x_<i) of each row: float64, shape (rows,), on the CPU.

    Args:
        rows: tokens, the start first and at least one more.
        batch: rows at a time.
    """
    found = []
    for first in range(0, len(rows), batch):
        ids, targets = batch_of(model, rows[first : first + batch])
        seen = targets != IGNORED
        each = model.log_law(model.logits(ids)).gather(-1, targets.clamp_min(0)[..., None])[..., 0]
        found.append((each.where(seen, 0).double().sum(1) / seen.sum(1)).cpu())
    return torch.cat(found) if found else torch.empty(0, dtype=torch.float64)


class CausalTransformer(TextModel):
    """A Hugging Face causal model with its tokenizer.

    The start is the tokenizer's beginning of sequence, or its end of sequence where it has none.
    """

    def __init__(self, module: Any, tokenizer: Any) -> None:
        self.module, self.tokenizer = module, tokenizer
        end = tokenizer.eos_token_id
        self.start = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self.banned = tuple(sorted({self.start, end}))
        self.size = module.config.vocab_size
        # transformers 5 calls keys and values `cache`, in arguments and outputs; releases before `past_key_values`.
        arguments = inspect.signature(module.forward).parameters
        self._cache = "cache" if "cache" in arguments else "past_key_values"

    @classmethod
    def load(cls, name: str, device: str, dtype: str) -> CausalTransformer:
        """By hub name or local folder. Raises `MissingModel` where it cannot be loaded."""
        if not hasattr(torch, dtype):
            raise MissingModel(f"torch has no dtype '{dtype}' to load '{name}' in")
        return cls(*load_hugging_face(name, device, dtype))

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def logits(self, ids: Tensor) -> Tensor:
        result: Tensor = self.module(input_ids=ids, use_cache=False).logits.float()
        return result

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        out = self.module(input_ids=tokens[:, None], use_cache=True, **{self._cache: state})
        return out.logits[:, -1].float(), out[self._cache]

    def reorder(self, state: Any, rows: Tensor) -> Any:
        state.reorder_cache(rows)
        return state
