"""Masked generation with Hugging Face models: logits processors for local masking and for ASAp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from methods.decoding.grammar_aligned_decoding.trie import FutureNode, Trie
from methods.decoding.grammars import Grammar
from methods.decoding.language_models import FloatArray, HuggingFaceModel
from methods.decoding.sampling import Node, PrefixTree, Samples, Walk, gather


class GrammarProcessor(LogitsProcessor):  # type: ignore[misc]
    """Local masking: the log probabilities of what the grammar admits, minus infinity elsewhere (GCD).

    The first law that is seen after a prefix is kept, so that rounding does not change it between visits. One
    processor belongs to one model, prompt, grammar and temperature, and every one has a tree of its own.

    Args:
        grammar: over the tokens of the model.
        prompt_length: tokens of the prompt.
        temperature: divides the logits here, so that it is part of P; generate with temperature 1.
        tree: to continue with; default a fresh one.
    """

    def __init__(
        self, grammar: Grammar, prompt_length: int, temperature: float = 1.0, tree: PrefixTree | None = None
    ) -> None:
        self.grammar, self.prompt_length, self.temperature = grammar, prompt_length, temperature
        self.tree = PrefixTree() if tree is None else tree
        self.walks: list[Walk] = []
        self._ended: list[bool] = []

    def log_weights(self, node: Node) -> FloatArray:
        """What the next token is drawn in proportion to: log P(v | u)."""
        return node.log_p

    def finish(self, ids: Tensor) -> list[Walk]:
        """The ways of the rows of what was generated: ids int64, shape (batch, prompt + new).

        The last new token is the one that no call has seen yet.
        """
        self._advance(ids[:, -1].tolist())
        return self.walks

    def _advance(self, tokens: Sequence[int]) -> None:
        """Follow each row's last token; rows that have ended are padded by the caller of the model."""
        eos = self.grammar.vocabulary.eos
        for row, (walk, token) in enumerate(zip(self.walks, tokens, strict=True)):
            if self._ended[row]:
                continue
            node = walk.nodes[-1]
            position = int(np.searchsorted(node.tokens, token))
            if position == len(node.tokens) or node.tokens[position] != token:
                self._ended[row] = True  # a dead end, from which only the end of sequence was left
                continue
            walk.positions.append(position)
            self._ended[row] = walk.finished = token == eos

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Mask one step.

        Args:
            input_ids: int64, shape (batch, prompt + generated).
            scores: raw logits, shape (batch, vocabulary).

        Returns:
            Log weights, same shape and dtype; minus infinity for what must not be drawn.
        """
        if input_ids.shape[1] == self.prompt_length:
            self.walks = [Walk() for _ in range(len(input_ids))]
            self._ended = [False] * len(input_ids)
        else:
            self._advance(input_ids[:, -1].tolist())
        masked = torch.full_like(scores, -torch.inf)
        for row, walk in enumerate(self.walks):
            node = None if self._ended[row] else self._node(walk, scores[row])
            weights = np.empty(0) if node is None else self.log_weights(node)
            if node is None or weights.max(initial=-np.inf) == -np.inf:
                masked[row, self.grammar.vocabulary.eos] = 0.0
                continue
            tokens = torch.from_numpy(node.tokens).to(scores.device)
            masked[row, tokens] = torch.from_numpy(weights).to(scores.device, scores.dtype)
        return masked

    def _node(self, walk: Walk, logits: Tensor) -> Node:
        node = self.tree.at(walk)
        if node is None:
            tokens = self.grammar.admitted(walk.string)
            admitted = torch.from_numpy(tokens).to(logits.device)
            log_p = torch.log_softmax(logits.double() / self.temperature, 0)[admitted]
            node = self.tree.add(walk, tokens, log_p.cpu().numpy())
        walk.nodes.append(node)
        return node


class AsapProcessor(GrammarProcessor):
    """ASAp as a logits processor: log P(v | u) + log c~(u v), and an update of c~ after each batch.

    Args:
        grammar, prompt_length, temperature: see `GrammarProcessor`.
        trie: to continue with; default a fresh one.
    """

    tree: Trie

    def __init__(
        self, grammar: Grammar, prompt_length: int, temperature: float = 1.0, trie: Trie | None = None
    ) -> None:
        super().__init__(grammar, prompt_length, temperature, Trie() if trie is None else trie)

    def log_weights(self, node: Node) -> FloatArray:
        """log P(v | u) c~(u v)."""
        assert isinstance(node, FutureNode)
        return node.log_weights

    def finish(self, ids: Tensor) -> list[Walk]:
        """See `GrammarProcessor.finish`; then the samples of the batch teach the trie."""
        walks = super().finish(ids)
        for walk in walks:
            self.tree.update(walk)
        return walks


def generate(
    model: HuggingFaceModel, processor: GrammarProcessor, samples: int, limit: int, batch: int, seed: int
) -> Samples:
    """Draw strings with `transformers`' own sampling loop.

    Args:
        model: with its prompt.
        processor: fresh, for this prompt.
        samples: how many strings.
        limit: most new tokens of a string.
        batch: strings generated side by side, with one tree.
        seed: of torch's generators, which are put back afterwards.
    """
    device = model.model.device
    prompt = torch.tensor([model.prompt_ids], device=device)
    walks: list[Walk] = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.inference_mode():
        torch.manual_seed(seed)
        while len(walks) < samples:
            rows = min(batch, samples - len(walks))
            ids: Any = model.model.generate(
                prompt.expand(rows, -1),
                attention_mask=torch.ones(rows, prompt.shape[1], dtype=torch.int64, device=device),
                logits_processor=LogitsProcessorList([processor]),
                generation_config=_plain(model, limit),
            )
            walks += processor.finish(ids)
    return gather(walks)


def _plain(model: HuggingFaceModel, limit: int) -> GenerationConfig:
    """Sampling from exactly what the processor returns, whatever the defaults of the model."""
    eos = model.vocabulary.eos
    return GenerationConfig(
        do_sample=True, temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, num_beams=1,
        min_new_tokens=None, max_new_tokens=limit, eos_token_id=eos, pad_token_id=eos,
    )  # fmt: skip
