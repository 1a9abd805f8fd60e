"""Step-unrolled denoising: how a bidirectional decoder is trained and how it writes (part B; the loss is SUNDAE's)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.decoding.making_the_most.pairs import Tokens
from methods.decoding.making_the_most.seq2seq import OFFSETS, Translator


def plain_ids(tokens: Tokens, device: str = "cpu") -> Tensor:
    """The ids that corruption draws from: all but the special ones."""
    special = set(tokens.special)
    return torch.tensor([i for i in range(tokens.size) if i not in special], device=device)


def corrupted(target: Tensor, alpha: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
    """Each token of a row replaced with the row's probability alpha by a uniform draw from `ids`.

    Args:
        target: int64, shape (rows, n).
        alpha: shape (rows,), on the CPU.
        ids: see `plain_ids`.
        generator: on the CPU.
    """
    hit = (torch.rand(target.shape, generator=generator) < alpha[:, None]).to(target.device)
    drawn = torch.randint(len(ids), target.shape, generator=generator).to(target.device)
    return torch.where(hit, ids[drawn], target)


def _drawn(logits: Tensor, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
    """One token per position from softmax(logits / temperature), by inversion of one uniform number from the CPU."""
    cumulated = torch.softmax(logits.float() / temperature, -1).cumsum(-1)
    uniform = torch.rand(logits.shape[:-1], generator=generator).to(logits.device)
    place = torch.searchsorted(cumulated, (uniform * cumulated[..., -1])[..., None], right=True)[..., 0]
    # The product can round up to the total; the last token of positive weight is where that is reached.
    return torch.minimum(place, torch.searchsorted(cumulated, cumulated[..., -1:].contiguous())[..., 0])


@dataclass(frozen=True)
class Batch:
    """Sources and targets, padded.

    Attributes:
        source, source_mask: shape (rows, m).
        target, target_mask: shape (rows, n).
    """

    source: Tensor
    source_mask: Tensor
    target: Tensor
    target_mask: Tensor


def _cross_entropy(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    each = F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), reduction="none").view_as(target)
    return (each * mask).sum() / mask.sum()


def sundae_loss(
    model: Translator,
    batch: Batch,
    ids: Tensor,
    generator: torch.Generator,
    alpha: Tensor | None = None,
    special: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(CE(logits1, y) + CE(logits2, y)) / 2, and the cross-entropy of the length.

    logits1 are of the corrupted target x0, logits2 of x1 ~ softmax(logits1); no gradient flows through the draw.

    Args:
        model: with a bidirectional decoder.
        batch: sources and targets.
        ids: see `plain_ids`.
        generator: of the corruption and the draws, on the CPU.
        alpha: corruption of each row, shape (rows,); None draws it uniformly from (0, 1).
        special: ids that x1 never has.
    """
    states = model.encode(batch.source, batch.source_mask)
    if alpha is None:
        alpha = torch.rand(len(batch.target), generator=generator)
    x0 = torch.where(batch.target_mask, corrupted(batch.target, alpha, ids, generator), batch.target)
    first = model.decode(x0, batch.target_mask)
    with torch.no_grad():
        seen = first if special is None else first.index_fill(-1, special, -torch.inf)
        x1 = torch.where(batch.target_mask, _drawn(seen, generator), batch.target)
    second = model.decode(x1, batch.target_mask)
    mask = batch.target_mask.float()
    loss = (_cross_entropy(first, batch.target, mask) + _cross_entropy(second, batch.target, mask)) / 2
    return loss, length_loss(model, states, batch)


def length_loss(model: Translator, states: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of |y| - |x|, cut at -64 and 64; only the classifier gets a gradient."""
    offset = batch.target_mask.sum(1) - batch.source_mask.sum(1)
    labels = offset.clamp(-OFFSETS, OFFSETS) + OFFSETS
    return F.cross_entropy(model.length_logits(states, batch.source_mask), labels)


def next_token_loss(model: Translator, batch: Batch, tokens: Tokens) -> Tensor:
    """Cross-entropy of the target and its end under an autoregressive decoder, teacher-forced."""
    model.encode(batch.source, batch.source_mask)
    rows = len(batch.target)
    start = torch.full((rows, 1), tokens.start, device=batch.target.device)
    inputs = torch.cat([start, batch.target], 1)
    labels = torch.cat([batch.target, torch.full_like(start, tokens.pad)], 1)
    sizes = batch.target_mask.sum(1)
    labels = labels.scatter(1, sizes[:, None], tokens.end)
    mask = torch.arange(inputs.shape[1], device=sizes.device) <= sizes[:, None]
    return _cross_entropy(model.decode(inputs, mask), labels, mask.float())


@torch.inference_mode()
def refine(
    model: Translator,
    source: Tensor,
    mask: Tensor,
    ids: Tensor,
    generator: torch.Generator,
    *,
    passes: int = 4,
    candidates: int = 2,
    share: float = 0.5,
    temperature: float = 0.0,
    longest: int = 512,
    lengths: Tensor | None = None,
) -> list[list[int]]:
    """Write targets by refining random tokens.

    Args:
        model: with a bidirectional decoder, in evaluation mode.
        source, mask: shape (rows, m).
        ids: see `plain_ids`; nothing else is ever written.
        generator: on the CPU.
        passes: T decoder passes.
        candidates: the so many most probable lengths are tried, and the one with the best mean log-probability is kept.
        share: random share of the positions that a pass may change; the first pass changes all, so that no random
            token is left by chance.
        temperature: of the draws; 0 takes the most probable token.
        longest: most tokens of a target.
        lengths: use these lengths, shape (rows,), instead of the classifier's.

    Returns:
        Token ids of each row.
    """
    states = model.encode(source, mask)
    if lengths is None:
        best = model.length_logits(states, mask).topk(candidates, 1).indices - OFFSETS
        sizes = (mask.sum(1, keepdim=True) + best).clamp(1, longest)
    else:
        candidates, sizes = 1, lengths[:, None]
    model.repeat(candidates)
    size = sizes.flatten()
    n = int(size.max())
    inside = torch.arange(n, device=size.device) < size[:, None]
    x = ids[torch.randint(len(ids), (len(size), n), generator=generator).to(size.device)]
    scores = torch.zeros(len(size), device=size.device)
    for turn in range(passes):
        law = torch.log_softmax(model.decode(x, inside).float()[..., ids], -1)
        place = law.argmax(-1) if temperature == 0 else _drawn(law, generator, temperature)
        free = (
            torch.rand(x.shape, generator=generator).to(x.device) < share if turn else torch.ones_like(inside)
        )
        # `law` has columns for the plain ids alone; where a token stays, its column is looked up for the score.
        x = torch.where(free & inside, ids[place], x)
        column = torch.searchsorted(ids, x.contiguous()).clamp(max=len(ids) - 1)
        each = law.gather(-1, column[..., None])[..., 0]
        scores = (each * inside).sum(1) / size
    chosen = scores.view(-1, candidates).argmax(1) + torch.arange(len(source), device=x.device) * candidates
    return [x[row, : int(size[row])].tolist() for row in chosen.tolist()]


@torch.inference_mode()
def greedy(model: Translator, source: Tensor, mask: Tensor, tokens: Tokens, longest: int) -> list[list[int]]:
    """Write targets token by token with cached keys and values, until the end or `longest` tokens."""
    model.encode(source, mask)
    token = torch.full((len(source), 1), tokens.start, device=source.device)
    done = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    written, cache = [], None
    for _ in range(longest):
        logits, cache = model.step(token, cache)
        token = logits.argmax(-1, keepdim=True)
        done |= token[:, 0] == tokens.end
        if bool(done.all()):
            break
        written.append(token[:, 0])
    rows = torch.stack(written, 1).tolist() if written else [[] for _ in range(len(source))]
    return [row[: row.index(tokens.end)] if tokens.end in row else row for row in rows]


def masked_loss(
    mlm: object,
    ids: Tensor,
    mask: Tensor,
    tokens: Tokens,
    plain: Tensor,
    generator: torch.Generator,
    share: float,
) -> Tensor:
    """BERT's loss: a share of the tokens is predicted, of which 80 % are masked, 10 % random and 10 % as they are."""
    hit = (torch.rand(ids.shape, generator=generator) < share).to(ids.device) & mask
    kind = torch.rand(ids.shape, generator=generator).to(ids.device)
    drawn = plain[torch.randint(len(plain), ids.shape, generator=generator).to(ids.device)]
    inputs = torch.where(hit & (kind < 0.8), tokens.mask, ids)
    inputs = torch.where(hit & (kind >= 0.9), drawn, inputs)
    logits = mlm(input_ids=inputs, attention_mask=mask.long()).logits  # type: ignore[operator]
    return _cross_entropy(logits, ids, hit.float())
