"""Recurrence for a pretrained decoder, and the other ways to read a text longer than a window (part A).

A text is cut into windows of w tokens. A `Reader` says what a window knows of those before it: nothing ("plain"), one
vector that is computed from their hidden states ("recurrence"), c tokens that are read again ("overlap"), or the cached
states of the window before, through which no gradient flows ("cache", as in Transformer-XL).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness import seeding
from harness.errors import RequestError
from methods.decoding.making_the_most.states import CausalModel, States, newest

Mode = Literal["plain", "recurrence", "overlap", "cache"]


class Recurrence(nn.Module):
    """f: LayerNorm, Linear(D, 2D), GELU, Linear(2D, D); the last layer is zero, so training begins with r = 0.

    Args:
        width: D.
        seed: of the first layer's weights.
    """

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seeding.derive(seed, "recurrence"))
            self.norm = nn.LayerNorm(width)
            self.up = nn.Linear(width, 2 * width)
            self.down = nn.Linear(2 * width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, mean: Tensor) -> Tensor:
        """r of the next window from the mean hidden state of this one, both of shape (rows, D)."""
        return self.down(F.gelu(self.up(self.norm(mean))))  # type: ignore[no-any-return]


class Reader(nn.Module):
    """A decoder that reads a text window by window, in order.

    Args:
        model: the pretrained decoder; it is fine-tuned in place.
        mode: what a window knows of those before it.
        window: w, tokens of a window.
        context: c, tokens that are read again (overlap) or cached (cache).
        layer: whose output is averaged for the recurrence; -1 is the last.
        seed: of f.
    """

    def __init__(
        self,
        model: CausalModel,
        mode: Mode,
        window: int,
        context: int = 0,
        layer: int = -1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if mode in ("overlap", "cache") and context < 1:
            raise RequestError(f"the mode {mode} needs a context of at least one token")
        if mode == "cache" and model.positions is not None:
            raise RequestError(
                "cached states carry their old positions: the mode cache needs relative positions"
            )
        self.model, self.mode, self.window, self.context, self.layer = model, mode, window, context, layer
        self.f = Recurrence(model.width, seed) if mode == "recurrence" else None
        self.checkpointing = True

    def first(self, rows: int) -> Tensor:
        """r of the first window: zeros, shape (rows, D)."""
        weight = next(self.model.parameters())
        return torch.zeros(rows, self.model.width, device=weight.device, dtype=weight.dtype)

    def recurrent(self, piece: Tensor, r: Tensor, masked: bool = False) -> tuple[Tensor, Tensor]:
        """One window of the recurrence.

        Args:
            piece: tokens, shape (rows, w + 1); the last is only a target.
            r: shape (rows, D).
            masked: hide r from the tokens.

        Returns:
            Nats of the targets, shape (rows, w), and r of the next window.
        """
        if self.f is None:
            raise RequestError(f"a reader of the mode {self.mode} has no recurrence")
        inputs = torch.cat([r[:, None], self.model.embed(piece[:, :-1])], 1)
        out = self.model(inputs, lead=1, masked=masked)
        return _nats(out.logits, piece[:, 1:]), self.f(out.hidden[self.layer].mean(1))

    def cached(self, piece: Tensor, past: States | None) -> tuple[Tensor, States]:
        """One window after cached states: nats of its targets, and the states of the next, cut off from the gradient."""
        out = self.model(self.model.embed(piece[:, :-1]), past)
        kept = [(k.detach(), v.detach()) for k, v in newest(out.states, self.context)]
        return _nats(out.logits, piece[:, 1:]), kept

    def windows(self, tokens: Tensor) -> list[Tensor]:
        """Nats of the targets of each window in order; the windows of a row share what they carry.

        Gradients flow through the recurrence from window to window, and each window's activations are computed again in
        the backward pass, so that only one window's are alive at a time.

        Args:
            tokens: shape (rows, n + 1).
        """
        n = tokens.shape[1] - 1
        r, nats = self.first(len(tokens)), []
        past: States | None = None
        for start in range(0, n, self.window):
            piece = tokens[:, start : start + self.window + 1]
            if self.mode == "recurrence":
                if self.checkpointing and torch.is_grad_enabled():
                    each, r = checkpoint(self.recurrent, piece, r, use_reentrant=False)
                else:
                    each, r = self.recurrent(piece, r)
            elif self.mode == "cache":
                each, past = self.cached(piece, past)
            else:
                each = self._independent(tokens, start, piece)
            nats.append(each)
        return nats

    def _independent(self, tokens: Tensor, start: int, piece: Tensor) -> Tensor:
        again = min(start, self.context) if self.mode == "overlap" else 0
        inputs = self.model.embed(tokens[:, start - again : start + piece.shape[1] - 1])
        return _nats(self.model(inputs).logits, piece[:, 1:])

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean nats of the targets of rows of B windows, shape (rows, B w + 1)."""
        if self.mode == "plain":  # windows know nothing of each other, so all are one batch
            pieces = tokens.unfold(1, self.window + 1, self.window).flatten(0, 1)
            return _nats(self.model(self.model.embed(pieces[:, :-1])).logits, pieces[:, 1:]).mean()
        return torch.cat(self.windows(tokens), 1).mean()

    def accumulate(self, tokens: Tensor) -> None:
        """The same gradients with the activations of one window at a time: a backward pass for each window."""
        n = tokens.shape[1] - 1
        count = len(tokens) * n
        if self.mode == "recurrence":
            self._through_time([tokens[:, s : s + self.window + 1] for s in range(0, n, self.window)], count)
            return
        past: States | None = None
        for start in range(0, n, self.window):
            piece = tokens[:, start : start + self.window + 1]
            if self.mode == "cache":
                each, past = self.cached(piece, past)
            else:
                each = self._independent(tokens, start, piece)
            (each.sum() / count).backward()

    def _through_time(self, pieces: list[Tensor], count: int) -> None:
        """Forward for the vector that each window begins with, then back from the last window to the first."""
        carried = [self.first(len(pieces[0]))]
        with torch.no_grad():
            for piece in pieces[:-1]:
                carried.append(self.recurrent(piece, carried[-1])[1])
        gradient: Tensor | None = None
        for piece, r in zip(reversed(pieces), reversed(carried), strict=True):
            nats, following = self.recurrent(piece, r.requires_grad_())
            loss = nats.sum() / count
            # What later windows want of this one comes through the vector that it hands on.
            (loss if gradient is None else loss + (following * gradient).sum()).backward()
            gradient = r.grad

    @torch.no_grad()
    def read(self, tokens: Tensor) -> Tensor:
        """Nats of every target, carried across windows in order: shape (rows, n)."""
        return torch.cat(self.windows(tokens), 1)

    def flops_per_token(self) -> float:
        """Multiply-adds x 2 of a forward pass, per token that is scored.

        Weights cost two per entry and token; attention 4 D for each pair of a token and a slot that it sees, per layer.
        """
        core = sum(p.numel() for p in self.model.parameters()) - self.model.vocabulary * self.model.width
        w, c = self.window, self.context
        inputs = {"plain": w, "recurrence": w + 1, "overlap": w + c, "cache": w}[self.mode]
        pairs = inputs * (inputs + 1) / 2 + (w * c if self.mode == "cache" else 0)
        extra = 2 * sum(p.numel() for p in self.f.parameters()) if self.f else 0
        return (2 * core * inputs + 4 * self.model.width * self.model.layers * pairs + extra) / w


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of the targets (rows, n); what stands in front of the last n logits predicts nothing that counts."""
    lead = logits.shape[1] - targets.shape[1]
    # Labels that are ignored, and not a slice of the logits, which would be a copy of them.
    labels = F.pad(targets, (lead, 0), value=-100)
    flat = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none")
    return flat.view_as(labels)[:, lead:]


def finetune(
    reader: Reader,
    tokens: Tensor,
    *,
    steps: int,
    batch: int,
    windows: int,
    lr: float,
    only: Literal["all", "recurrence"] = "all",
    seed: int = 0,
) -> Tensor:
    """Fine-tune with truncated back-propagation over rows of B windows; the training losses.

    Every mode sees the same tokens: rows start at the same places and are as long.

    Args:
        reader: fine-tuned in place.
        tokens: the training text, int64 (tokens,).
        steps: of AdamW, warm-up over 5 % of them, then a cosine down to 0.
        batch: rows a step.
        windows: B; rows have B w tokens where w is the reader's window.
        lr: peak learning rate.
        only: "recurrence" leaves the decoder's weights alone.
        seed: of the places.
    """
    from methods.common.corpora import windows as draw
    from methods.common.language_model import fit

    if only == "recurrence" and reader.f is None:
        raise RequestError(f"a reader of the mode {reader.mode} has no recurrence to train alone")
    moved = reader.f.parameters() if only == "recurrence" and reader.f else reader.parameters()
    optimizer = torch.optim.AdamW(list(moved), lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
    device = str(next(reader.parameters()).device)
    places = seeding.torch_generator(seed, "fine-tuning rows")

    def loss(_: int) -> Tensor:
        return reader.loss(draw(tokens, batch, windows * reader.window + 1, places, device))

    return fit(reader, optimizer, loss, steps=steps, schedule="cosine", warmup=0.05)
