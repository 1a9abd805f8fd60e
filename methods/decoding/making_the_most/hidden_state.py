"""Hidden-state optimisation: cached states of a frozen model move along the gradient of the text just seen (part C).

A text is scored segment by segment. The score of a segment is taken before anything is updated with it; then the
gradient of its loss with respect to the cached keys and values moves them, and they are what the next segment attends to.
No weight changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.decoding.making_the_most.states import CausalModel, States, newest, slots, state_bytes

Rule = Literal["adam", "sgd"]


@dataclass(frozen=True)
class Update:
    """How cached states move.

    Attributes:
        eta: step size; 0 leaves the states alone.
        rule: "adam", or plain gradient descent.
        betas: decay of Adam's first and second moments.
        epsilon: added to the root of the second moment.
        own: whether the states of the segment itself move too before they enter the cache.
    """

    eta: float
    rule: Rule = "adam"
    betas: tuple[float, float] = (0.9, 0.99)
    epsilon: float = 1e-4
    own: bool = True


@dataclass
class Slots:
    """Cached states with Adam's moments, which belong to a slot and move with it through the sliding cache.

    Attributes:
        states: keys and values of each layer, (rows, heads, slots, head width).
        first, second: the moments of each, in the same shapes.
        steps: updates that each slot has had: int64, shape (slots,).
    """

    states: States
    first: States
    second: States
    steps: Tensor

    @classmethod
    def fresh(cls, states: States) -> Slots:
        """Slots that were never updated."""
        device = states[0][0].device
        return cls(
            states, _zeros(states), _zeros(states), torch.zeros(slots(states), dtype=torch.long, device=device)
        )

    def extended(self, states: States) -> Slots:
        """The states of a longer cache whose first slots are these; the others begin with zero moments."""
        more = slots(states) - slots(self.states)
        pad = [(F.pad(k, (0, 0, 0, more)), F.pad(v, (0, 0, 0, more))) for k, v in self.first]
        squares = [(F.pad(k, (0, 0, 0, more)), F.pad(v, (0, 0, 0, more))) for k, v in self.second]
        return Slots(states, pad, squares, F.pad(self.steps, (0, more)))

    def moved(self, gradients: States, update: Update, last: int) -> Slots:
        """One update of the first `last` slots along `gradients`, which have the shapes of the states."""
        if update.eta == 0 or last == 0:
            return self
        b1, b2 = update.betas
        mask = torch.arange(slots(self.states), device=self.steps.device) < last
        steps = self.steps + mask
        # Slots that have had no update divide by one, and are left alone below.
        count = steps.clamp(min=1).to(self.states[0][0].dtype)[:, None]
        first, second, states = [], [], []
        for pair, m_pair, v_pair, g_pair in zip(self.states, self.first, self.second, gradients, strict=True):
            here = []
            for x, m, v, g in zip(pair, m_pair, v_pair, g_pair, strict=True):
                g = g * mask[:, None]
                if update.rule == "sgd":
                    here.append((x - update.eta * g, m, v))
                    continue
                # Slots that are left alone keep their moments as well.
                m = torch.where(mask[:, None], b1 * m + (1 - b1) * g, m)
                v = torch.where(mask[:, None], b2 * v + (1 - b2) * g * g, v)
                step = (m / (1 - b1**count)) / ((v / (1 - b2**count)).sqrt() + update.epsilon)
                here.append((x - update.eta * step * mask[:, None], m, v))
            (k, mk, vk), (w, mw, vw) = here
            states.append((k, w))
            first.append((mk, mw))
            second.append((vk, vw))
        return Slots(states, first, second, steps)

    def newest(self, count: int) -> Slots:
        """The last `count` slots; the oldest are dropped."""
        drop = max(0, slots(self.states) - count)
        if drop == 0:
            return self
        cut = slots(self.states) - drop
        return Slots(
            newest(self.states, cut), newest(self.first, cut), newest(self.second, cut), self.steps[drop:]
        )

    def bytes(self, rule: Rule) -> int:
        """Bytes of the states, and of the moments where the rule keeps them."""
        return state_bytes(self.states) * (3 if rule == "adam" else 1)


def _zeros(states: States) -> States:
    return [(torch.zeros_like(k), torch.zeros_like(v)) for k, v in states]


@dataclass
class Scored:
    """Scores of a text.

    Attributes:
        nats: -log p of every target, shape (rows, n).
        bytes: largest size of the cache with its moments.
    """

    nats: Tensor
    bytes: int = 0
    segments: list[float] = field(default_factory=list)
    """Mean nats of each segment."""


def score(
    model: CausalModel,
    tokens: Tensor,
    *,
    segment: int = 16,
    cache: int = 128,
    update: Update | None = None,
) -> Scored:
    """Score rows of text that are read side by side, each with a cache of its own.

    Args:
        model: frozen; its parameters need no gradients.
        tokens: int64, shape (rows, n + 1); the first is given, the others are scored.
        segment: s, tokens read and scored at a time.
        cache: C, slots that are kept.
        update: how states move after each segment; None never moves them.
    """
    kept: Slots | None = None
    nats, largest = [], 0
    for start in range(0, tokens.shape[1] - 1, segment):
        piece = tokens[:, start : start + segment + 1]
        inputs, targets = model.embed(piece[:, :-1]).detach(), piece[:, 1:]
        moving = update is not None and update.eta != 0
        with torch.set_grad_enabled(moving):
            past = None
            if kept is not None:
                past = [
                    (k.detach().requires_grad_(moving), v.detach().requires_grad_(moving))
                    for k, v in kept.states
                ]
            # The first segment has no cached state; its own states depend on its inputs.
            out = model(inputs.requires_grad_(moving), past, start=start)
            each = F.cross_entropy(out.logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(
                targets
            )
            nats.append(each.detach())
            whole = [(k.detach(), v.detach()) for k, v in out.states]
            before = slots(past)
            now = Slots.fresh(whole) if kept is None else kept.extended(whole)
            if update is not None and moving:
                # Rows do not meet, so the gradient of the sum is each row's own.
                leaves = [t for pair in out.states for t in pair]
                found = torch.autograd.grad(each.sum(), leaves)
                gradients = list(zip(found[::2], found[1::2], strict=True))
                last = slots(whole) if update.own else before
                now = now.moved(gradients, update, last)
        kept = now.newest(cache)
        largest = max(
            largest, kept.bytes(update.rule) if update is not None and moving else state_bytes(kept.states)
        )
    joined = torch.cat(nats, 1)
    return Scored(joined, largest, [float(part.mean()) for part in nats])


def adapted(model: CausalModel, prompt: Tensor, weights: Tensor, update: Update, steps: int) -> States:
    """The cached states of a prompt after some updates towards predicting its own tokens (few-shot form).

    The states are k + d_k and v + d_v in every layer. Each step runs the prompt with the current offsets and moves them
    along the gradient of the weighted loss, so that the first step is exactly an update of the cached states.

    Args:
        model: frozen.
        prompt: int64, shape (rows, n).
        weights: weight of the loss of each target `prompt[:, 1:]`, shape (rows, n - 1); ones at the labels of the
            demonstrations, say.
        update: how states move; every state of the prompt does.
        steps: updates.
    """
    inputs = model.embed(prompt).detach()
    with torch.no_grad():
        plain = model(inputs).states
    kept = Slots.fresh(_zeros(plain))
    for _ in range(steps):
        offsets = [(k.detach().requires_grad_(), v.detach().requires_grad_()) for k, v in kept.states]
        out = model(inputs, offsets=offsets)
        logits = out.logits[:, :-1]
        each = F.cross_entropy(logits.flatten(0, 1), prompt[:, 1:].flatten(), reduction="none").view_as(weights)
        found = torch.autograd.grad((each * weights).sum(), [t for pair in offsets for t in pair])
        kept = kept.moved(list(zip(found[::2], found[1::2], strict=True)), update, prompt.shape[1])
    with torch.no_grad():
        return model(inputs, offsets=kept.states).states if steps else plain
