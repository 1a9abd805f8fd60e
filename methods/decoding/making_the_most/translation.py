"""What all translators of part B share: train in `prepare`, kept by content, and measure the trained model."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import torch
from torch import Tensor

from harness import seeding
from harness.cache import artefact
from harness.errors import RequestError
from harness.method import Measurement, Method, as_measurement
from methods.decoding.making_the_most.denoising import (
    Batch,
    next_token_loss,
    plain_ids,
    refine,
    sundae_loss,
)
from methods.decoding.making_the_most.masked_models import load_masked
from methods.decoding.making_the_most.pairs import padded
from methods.decoding.making_the_most.seq2seq import Initial, Translator
from methods.decoding.making_the_most.work import Translations, TranslationWork


class TranslationMethod(Method[TranslationWork, list[list[int]]]):
    """Trains a `Translator` on the task's pairs."""

    def build(self, work: TranslationWork, initial: Initial, *, autoregressive: bool) -> None:
        """Load the masked model, train, and encode the test sources.

        Raises:
            RequestError: the masked model has too few positions.
        """
        from safetensors.torch import load_file, save_file

        device, seed = self.context.device, self.context.derive("translator")
        masked = load_masked(work.mlm, work.training, device=device, directory=self.context.cache)
        if work.longest + 1 > masked.positions:
            raise RequestError(
                f"'{work.mlm}' has {masked.positions} positions, {work.longest} tokens were asked for"
            )
        self.tokens, self.plain = masked.tokens, plain_ids(masked.tokens, device)
        self.special = torch.tensor(sorted(set(masked.tokens.special)), device=device)
        self.autoregressive, self.longest = autoregressive, work.longest
        self.model = Translator(masked.model, initial, autoregressive=autoregressive, seed=seed).to(device)
        encoded = [(masked.tokens.encode(a), masked.tokens.encode(b)) for a, b in work.training]
        rows = [pair for pair in encoded if max(map(len, pair)) <= work.longest and min(map(len, pair)) > 0]
        digest = hashlib.sha256(repr(rows).encode()).hexdigest()
        content = {
            "mlm": masked.digest, "initial": initial, "autoregressive": autoregressive, "steps": work.steps,
            "batch": work.batch, "lr": work.lr, "longest": work.longest, "seed": seed, "pairs": digest,
            "version": 1,
        }  # fmt: skip

        def make(path: Path) -> None:
            self._train(rows, work, seed)
            save_file(
                {
                    key: value.detach().cpu().clone().contiguous()
                    for key, value in self.model.state_dict().items()
                },
                path,
            )

        self.model.load_state_dict(
            load_file(artefact("making-the-most-translator", content, make, self.context.cache))
        )
        self.model.eval()
        self.targets = [masked.tokens.encode(target)[: work.longest] for _, target in work.test]
        self.sources = [masked.tokens.encode(source)[: work.longest] for source, _ in work.test]
        self.groups = [
            padded(self.sources[first : first + work.together], masked.tokens.pad, device)
            for first in range(0, len(self.sources), work.together)
        ]

    def _batch(self, pairs: list[tuple[list[int], list[int]]]) -> Batch:
        device, pad = self.context.device, self.tokens.pad
        return Batch(*padded([a for a, _ in pairs], pad, device), *padded([b for _, b in pairs], pad, device))

    def _loss(
        self, batch: Batch, generator: torch.Generator, alpha: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if self.autoregressive:
            return next_token_loss(self.model, batch, self.tokens), torch.zeros((), device=batch.source.device)
        return sundae_loss(self.model, batch, self.plain, generator, alpha, self.special)

    def _train(self, rows: list[tuple[list[int], list[int]]], work: TranslationWork, seed: int) -> None:
        from methods.common.language_model import fit

        generator = seeding.torch_generator(seed, "denoising")
        moved = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(moved, lr=work.lr, betas=(0.9, 0.98), weight_decay=0.01)

        def loss(_: int) -> Tensor:
            chosen = torch.randint(len(rows), (work.batch,), generator=generator).tolist()
            return sum(self._loss(self._batch([rows[i] for i in chosen]), generator), torch.zeros(()))

        fit(self.model, optimizer, loss, steps=work.steps, schedule="cosine", warmup=0.1)

    def refined(self, passes: int, candidates: int, share: float, temperature: float) -> list[list[int]]:
        """Non-autoregressive outputs of the test sources; the noise is the same in each call."""
        self.passes = passes
        generator = self.context.torch_generator("refinement")
        rows: list[list[int]] = []
        for source, mask in self.groups:
            rows += refine(
                self.model, source, mask, self.plain, generator, passes=passes, candidates=candidates,
                share=share, temperature=temperature, longest=self.longest,
            )  # fmt: skip
        return rows

    def _validation(self, pairs: list[tuple[list[int], list[int]]], alpha: Tensor) -> float:
        """Loss per token of the test pairs, a batch at a time."""
        generator = self.context.torch_generator("validation")
        total, count = 0.0, 0
        for first in range(0, len(pairs), self.work.batch):
            some = pairs[first : first + self.work.batch]
            loss, _ = self._loss(self._batch(some), generator, alpha[first : first + len(some)])
            size = sum(len(target) for _, target in some)
            total, count = total + float(loss) * size, count + size
        return total / count

    def measure(self, output: list[list[int]]) -> Measurement:
        """The task's score, with the loss on the test pairs over evenly spread corruptions."""
        pairs = list(zip(self.sources, self.targets, strict=True))
        order = list(range(len(pairs)))
        random.Random(0).shuffle(order)
        alpha = torch.tensor([(place + 0.5) / len(pairs) for place in order])
        with torch.no_grad():
            loss = self._validation(pairs, alpha)
        hits = sum(
            a == b for x, y in zip(output, self.targets, strict=True) for a, b in zip(x, y, strict=False)
        )
        texts = [self.tokens.decode(row) for row in output]
        lengths = sum(len(x) == len(y) for x, y in zip(output, self.targets, strict=True))
        translations = Translations(
            texts, loss, hits / sum(map(len, self.targets)), lengths / len(pairs), float(self.passes)
        )
        return as_measurement(self.task.score(self.work, translations))
