"""Few-shot labelling: score each candidate label after a prompt whose cached states may have been optimised (part C)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.method import Method
from methods.decoding.making_the_most.few_shot import Episodes, Learner, learner
from methods.decoding.making_the_most.hidden_state import Update, adapted
from methods.decoding.making_the_most.models import Base, load_base
from methods.decoding.making_the_most.states import CausalModel, slots


class Labeller(Method[Episodes, Tensor]):
    """Runs each prompt once, lets a method move its states, and scores the candidates."""

    def build(self, work: Episodes) -> None:
        """Load the model, frozen, and encode the prompts."""
        task: Any = self.task
        device, cache = self.context.device, self.context.cache
        if task.source == "symbols":
            recipe = Learner(task.symbols, task.labels, task.demonstrations)
            self.model: CausalModel = learner(recipe, device=device, directory=cache)
            self.base: Base | None = None
        else:
            self.base = load_base(task.model, device=device, directory=cache)
            self.model = self.base.model
        ids = self._ids
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        between = [] if self.base is None else ids("\n\n")
        self.prompts: list[list[int]] = []
        self.at_labels: list[list[float]] = []
        self.tails: list[list[tuple[list[int], list[int]]]] = []
        for shown, query, candidates in zip(work.prompts, work.queries, work.candidates, strict=True):
            prompt: list[int] = []
            weights: list[float] = []
            for given, label in shown:
                first, second = ids(given), ids(label)
                prompt += [*first, *second, *between]
                weights += [0.0] * len(first) + [1.0] * len(second) + [0.0] * len(between)
            self.prompts.append(prompt)
            self.at_labels.append(weights[1:])
            asked = ids(query)
            self.tails.append([(asked, ids(candidate)) for candidate in candidates])

    def _ids(self, x: Any) -> list[int]:
        """Tokens of a symbol or of a text."""
        if self.base is None:
            return [x]
        ids: list[int] = self.base.encode(torch.frombuffer(bytearray(x.encode()), dtype=torch.uint8)).tolist()
        return ids

    def label(self, update: Update | None, steps: int, everywhere: bool, batch: int = 128) -> Tensor:
        """The most probable candidate of each episode: int64, shape (episodes,).

        Args:
            update: how the prompt's states move; None leaves them alone.
            steps: updates.
            everywhere: the loss is that of all tokens of the prompt, not of the labels alone.
            batch: prompts of one length that are run side by side.
        """
        best = torch.zeros(len(self.prompts), dtype=torch.long)
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, (prompt, tails) in enumerate(zip(self.prompts, self.tails, strict=True)):
            shape = (len(prompt), len(tails), *(len(x) for asked, answer in tails for x in (asked, answer)))
            groups.setdefault(shape, []).append(place)
        for members in groups.values():
            for first in range(0, len(members), batch):
                some = members[first : first + batch]
                best[some] = self._some(some, update, steps, everywhere)
        return best

    def _some(self, some: list[int], update: Update | None, steps: int, everywhere: bool) -> Tensor:
        device = self.context.device
        prompt = torch.tensor([self.prompts[i] for i in some], device=device)
        weights = torch.tensor([self.at_labels[i] for i in some], device=device)
        if everywhere:
            weights = torch.ones_like(weights)
        moves = update or Update(0.0)
        states = adapted(self.model, prompt, weights, moves, steps if update else 0)
        scores = []
        with torch.no_grad():
            for choice in range(len(self.tails[some[0]])):
                tails = [self.tails[i][choice] for i in some]
                row = torch.tensor([[*asked, *answer] for asked, answer in tails], device=device)
                size = len(tails[0][1])
                out = self.model(self.model.embed(row[:, :-1]), states, start=slots(states))
                law = torch.log_softmax(out.logits[:, -size:].float(), -1)
                scores.append(law.gather(-1, row[:, -size:, None]).sum((1, 2)))
        return torch.stack(scores, 1).argmax(1).cpu()
