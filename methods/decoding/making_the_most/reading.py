"""What all readers of part A share: fine-tune, read, and account for the cost."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from harness.cache import artefact
from harness.method import Method
from methods.decoding.making_the_most.memory import peak_bytes
from methods.decoding.making_the_most.models import load_base
from methods.decoding.making_the_most.recurrence import Mode, Reader, finetune
from methods.decoding.making_the_most.work import Reading, ReadingWork


class ReadingMethod(Method[ReadingWork, Reading]):
    """Fine-tunes a reader in `prepare` (kept by content) and reads the held-out text in `run`."""

    def build(
        self,
        work: ReadingWork,
        mode: Mode,
        window: int,
        context: int = 0,
        layer: int = -1,
        only: str = "all",
    ) -> None:
        """Fine-tune, measure the memory of a step and of reading, and lay out the held-out text."""
        from safetensors.torch import load_file, save_file

        base = load_base(work.model, device=self.context.device, directory=self.context.cache, dtype=work.dtype)
        seed = self.context.derive("reader")
        reader = Reader(base.model, mode, window, context, layer, seed).to(self.context.device)
        # Rows of every reader have about as many tokens, so that all see as much text.
        windows = max(1, round(work.span / window))
        content = {
            "base": base.digest, "mode": mode, "window": window, "context": context, "layer": layer, "only": only,
            "steps": work.steps, "batch": work.batch, "windows": windows, "lr": work.lr, "seed": seed,
            "text": hashlib.sha256(work.training.numpy().tobytes()).hexdigest(), "version": 1,
        }  # fmt: skip

        def make(path: Path) -> None:
            tokens = base.encode(work.training)
            finetune(
                reader, tokens, steps=work.steps, batch=work.batch, windows=windows, lr=work.lr,
                only="recurrence" if only == "recurrence" else "all", seed=seed,
            )  # fmt: skip
            save_file({key: value.detach().cpu().clone() for key, value in reader.state_dict().items()}, path)

        state = load_file(artefact("making-the-most-reader", content, make, self.context.cache))
        reader.load_state_dict(state)
        self.reader = reader.eval()
        tokens = base.encode(work.held_out)
        each = (len(tokens) - 1) // work.streams
        starts = torch.arange(work.streams) * each
        # Streams overlap by one token: the last target of one is the first input of the next.
        self.rows = tokens[starts[:, None] + torch.arange(each + 1)].to(self.context.device)
        self.read_bytes = int(base.token_bytes[self.rows[:, 1:].cpu()].sum())
        piece = self.rows[:, : windows * window + 1]
        # Once without a look, so that the gradients' own buffers are there already.
        reader.accumulate(piece)
        self.training_memory = peak_bytes(lambda: reader.accumulate(piece), self.context.device)
        self.inference_memory = peak_bytes(lambda: reader.read(piece), self.context.device)
        reader.zero_grad(set_to_none=True)

    def run(self) -> Reading:
        """Read all streams in order, side by side."""
        nats = self.reader.read(self.rows)
        return Reading(
            float(nats.double().sum()),
            self.read_bytes,
            self.reader.flops_per_token(),
            self.training_memory,
            self.inference_memory,
        )
