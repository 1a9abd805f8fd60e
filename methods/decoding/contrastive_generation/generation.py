"""Texts from the scores of a contrast: beam sampling, and the best of independent samples.

Drawing from a softmax is the largest of the scores after Gumbel noise has been added, and the k largest are k draws
without replacement. Every text has a random stream of its own, so that it does not depend on what is generated
beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from methods.decoding.contrastive_generation.contrast import Contrast

Decoding = Literal["beam-sampling", "best-of"]


def generate(
    contrast: Contrast, decoding: Decoding, beams: int, length: int, streams: Sequence[torch.Generator]
) -> Tensor:
    """One text for each stream, from the start token alone and without an end.

    Args:
        contrast: gives the scores.
        decoding: see `beam_sampling` and `best_of`.
        beams: beams, or samples that the best is chosen from.
        length: tokens of a text.
        streams: one for each text, on the device of the models.

    Returns:
        Tokens without the start: int64, shape (texts, length).
    """
    draw = beam_sampling if decoding == "beam-sampling" else best_of
    return draw(contrast, beams, length, streams)


@torch.inference_mode()
def beam_sampling(contrast: Contrast, beams: int, length: int, streams: Sequence[torch.Generator]) -> Tensor:
    """Beam sampling: `beams` beams a text, of which the best is returned.

    In each step a token's score is added to its beam's. Of the beams x size sums, taken as logits, twice as many as
    there are beams are drawn without replacement, and the largest of those go on. All beams begin as the same one, so
    the first draw is from one copy of it: from several it would draw one token several times.
    """
    texts, device = len(streams), contrast.tuned.device
    tokens = torch.full((texts * beams,), contrast.tuned.start, device=device)
    running = torch.full((texts, beams), -torch.inf, device=device)
    running[:, 0] = 0
    first = torch.arange(texts, device=device)[:, None] * beams
    written = torch.empty((texts, beams, 0), dtype=torch.int64, device=device)
    state = None
    for _ in range(length):
        scores, state = contrast.step(tokens, state)
        size = scores.shape[-1]
        sums = (running[..., None] + scores.view(texts, beams, size)).flatten(1)
        drawn = (sums + _gumbel(sums, streams)).topk(2 * beams).indices
        # Where fewer are plausible than are drawn, the rest has sums of minus infinity and comes last.
        running, best = sums.gather(1, drawn).topk(beams)
        chosen = drawn.gather(1, best)
        parents, fresh = chosen // size, chosen % size
        written = torch.cat([written.gather(1, parents[..., None].expand_as(written)), fresh[..., None]], -1)
        tokens = fresh.flatten()
        state = contrast.reorder(state, (first + parents).flatten())
    return written[:, 0]


@torch.inference_mode()
def best_of(contrast: Contrast, beams: int, length: int, streams: Sequence[torch.Generator]) -> Tensor:
    """The best of `beams` independent samples under the sum of their scores; one is plain sampling."""
    texts, device = len(streams), contrast.tuned.device
    tokens = torch.full((texts * beams,), contrast.tuned.start, device=device)
    total = torch.zeros(texts * beams, device=device)
    written = []
    state = None
    for _ in range(length):
        scores, state = contrast.step(tokens, state)
        noise = _gumbel(scores.view(texts, -1), streams).view_as(scores)
        tokens = (scores + noise).argmax(-1)
        total += scores.gather(1, tokens[:, None])[:, 0]
        written.append(tokens)
    best = total.view(texts, beams).argmax(1)
    return torch.stack(written, -1).view(texts, beams, length)[torch.arange(texts, device=device), best]


def _gumbel(like: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
    """Standard Gumbel noise of the shape (texts, n) of `like`, each row from its own stream."""
    waits = torch.empty_like(like)
    for row, stream in zip(waits, streams, strict=True):
        row.exponential_(generator=stream)
    return -waits.log()
