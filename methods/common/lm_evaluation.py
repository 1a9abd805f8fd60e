"""Evaluation of language models through lm-eval: our models as its ``LM``, its task YAML over local files.

The same tasks run on a byte-level model (`ByteLM`) and on a model of the Hugging Face hub
(`hugging_face_lm`), and a task of lm-eval's own collection runs by its name where its data is at hand.

    lm = ByteLM(model, context=96)
    evaluate(lm, [LocalTask("novels", HELD_OUT_TEXT, path)])["novels"]["bits_per_byte"]
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows
from torch import Tensor

from methods.common.corpora import decode
from methods.common.language_model import START

TEMPLATES = Path(__file__).parent / "lm_tasks"
HELD_OUT_TEXT = TEMPLATES / "held_out_text.yaml"
"""Bits per byte; JSON lines with the field ``text``."""
MULTIPLE_CHOICE = TEMPLATES / "multiple_choice.yaml"
"""Accuracy; JSON lines with the fields ``query``, ``choices``, ``label``."""


# --- models ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Window:
    """Input tokens, and the targets of its last ``len(targets)`` outputs."""

    inputs: list[int]
    targets: list[int]


class ByteLM(LM):  # type: ignore[misc]
    """A byte-level causal language model as lm-eval sees one: strings in, log-likelihoods in nats out.

    Args:
        model: maps input ids int64 (rows, n) to ``.logits`` (rows, n, 256 or more); ``generate`` as in
            transformers is needed for `generate_until` only.
        context: longest input in bytes.
        batch: inputs at a time.
    """

    def __init__(self, model: Any, context: int, batch: int = 64) -> None:
        super().__init__()
        self.model, self.context, self.batch = model, context, batch
        self._device = next(model.parameters()).device

    @property
    def tokenizer_name(self) -> str:
        """Part of the name under which lm-eval would cache requests."""
        return "bytes"

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation after its context, and whether greedy decoding gives it.

        What does not fit is cut from the context's left. A continuation that is longer than the model's
        context is scored piece by piece, each piece after as much as fits before it.
        """
        pieces = [list(self._pieces(*request.args)) for request in requests]
        scores = iter(self._score([w for windows in pieces for w in windows]))
        answers = []
        for windows in pieces:
            parts = [next(scores) for _ in windows]
            answers.append((sum(nats for nats, _ in parts), all(greedy for _, greedy in parts)))
        return answers

    def _pieces(self, before: str, after: str) -> Iterator[_Window]:
        given, wanted = list(before.encode()) or [START], list(after.encode())
        line = given + wanted
        size = self.context if len(wanted) <= self.context else max(1, self.context // 2)
        for start in range(len(given), len(line), size):
            end = min(start + size, len(line))
            yield _Window(line[max(0, end - 1 - self.context) : end - 1], line[start:end])

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood of each whole text, every byte scored once in windows that do not overlap."""
        windows = [
            [
                _Window(inputs, targets)
                for inputs, targets in get_rolling_token_windows(
                    list(request.args[0].encode()), START, self.context, 1
                )
            ]
            for request in requests
        ]
        scores = iter(self._score([w for text in windows for w in text]))
        return [sum(next(scores)[0] for _ in text) for text in windows]

    @torch.no_grad()
    def _score(self, windows: Sequence[_Window]) -> list[tuple[float, bool]]:
        """Total log-probability of each window's targets, and whether all are the likeliest.

        Windows of like length share a batch. Shorter ones are padded on the right, which a causal model
        does not see.
        """
        order = sorted(range(len(windows)), key=lambda i: -len(windows[i].inputs))
        answers: list[tuple[float, bool]] = [(0.0, True)] * len(windows)
        for first in range(0, len(order), self.batch):
            chosen = order[first : first + self.batch]
            width = len(windows[chosen[0]].inputs)
            inputs = torch.zeros(len(chosen), width, dtype=torch.int64)
            targets = torch.full((len(chosen), width), -100)
            for row, i in enumerate(chosen):
                window = windows[i]
                end = len(window.inputs)
                inputs[row, :end] = torch.tensor(window.inputs)
                targets[row, end - len(window.targets) : end] = torch.tensor(window.targets)
            inputs, targets = inputs.to(self._device), targets.to(self._device)
            logits = self.model(input_ids=inputs, use_cache=False).logits.float()
            nats = -F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            totals = nats.view_as(targets).double().sum(1).tolist()
            greedy = ((logits.argmax(-1) == targets) | (targets < 0)).all(1).tolist()
            for row, i in enumerate(chosen):
                answers[i] = (totals[row], greedy[row])
        return answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """A continuation of each context up to the first of its stop strings.

        Generation arguments: ``until``, ``max_gen_toks`` (bytes, 256 by default), ``do_sample``,
        ``temperature``, ``top_k``, ``top_p``.
        """
        return [self._generate(context, dict(arguments)) for context, arguments in (r.args for r in requests)]

    @torch.no_grad()
    def _generate(self, context: str, arguments: dict[str, Any]) -> str:
        until = arguments.pop("until", [])
        stops = [until] if isinstance(until, str) else list(until)
        length = int(arguments.pop("max_gen_toks", 256))
        sampled = bool(arguments.pop("do_sample", False))
        options = {k: arguments.pop(k) for k in ("temperature", "top_k", "top_p") if k in arguments}
        if arguments:
            raise ValueError(f"unknown generation arguments: {', '.join(sorted(arguments))}")
        prompt = torch.tensor([list(context.encode())[-self.context :] or [START]], device=self._device)
        made = self.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=length,
            do_sample=sampled,
            pad_token_id=0,
            stopping_criteria=[_Stop(prompt.shape[1], stops)],
            **(options if sampled else {}),
        )
        text = decode(made[0, prompt.shape[1] :])
        ends = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text


class _Stop:
    """Ends a generation of one row once a stop string is in it."""

    def __init__(self, start: int, stops: Sequence[str]) -> None:
        self.start, self.stops = start, [stop.encode() for stop in stops if stop]

    def __call__(self, tokens: Tensor, scores: Any, **_: Any) -> Tensor:
        text = bytes(tokens[0, self.start :].tolist())
        found = any(text.endswith(stop) for stop in self.stops)
        return torch.tensor([found], device=tokens.device)


def hugging_face_lm(model: Any, tokenizer: Any, batch: int = 16) -> LM:
    """A loaded model of transformers with its tokenizer as lm-eval sees one (lm-eval's own ``HFLM``)."""
    from lm_eval.models.huggingface import HFLM

    with _quiet():
        return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)


# --- tasks -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalTask:
    """An lm-eval task over a file of this machine.

    Attributes:
        name: name in the results.
        template: a task YAML without name and data: `HELD_OUT_TEXT`, `MULTIPLE_CHOICE` or one's own.
        file: JSON lines, possibly ending in ``.gz``, with the fields that the template uses.
    """

    name: str
    template: Path
    file: Path


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write `rows` as JSON lines to `path`, which is returned."""
    path.write_text("".join(json.dumps(dict(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def evaluate(
    lm: LM,
    tasks: Sequence[LocalTask | str],
    *,
    limit: int | None = None,
    fewshot: int | None = None,
    seed: int = 1234,
) -> dict[str, dict[str, float]]:
    """Run lm-eval on `tasks` and return task -> metric -> value.

    Args:
        lm: e.g. a `ByteLM`.
        tasks: local ones, or names in lm-eval's own collection (their data must be in reach of
            `datasets`; local tasks never touch the network).
        limit: documents per task.
        fewshot: worked examples in front of each document; None: as the task says.
        seed: of sampled generation and of the choice of examples.
    """
    import yaml
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    local = [task for task in tasks if isinstance(task, LocalTask)]
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        folder = Path(scratch) / "tasks"
        folder.mkdir()
        for task in local:
            definition = {
                "include": str(task.template.resolve()),
                "task": task.name,
                "dataset_kwargs": {
                    "data_files": {"test": str(task.file.resolve())},
                    "cache_dir": str(Path(scratch) / "datasets"),
                },
            }
            (folder / f"{task.name}.yaml").write_text(yaml.safe_dump(definition))
        manager = TaskManager(include_path=str(folder), include_defaults=len(local) < len(tasks))
        # lm-eval seeds global generators; ours stay as they were, and only torch's matter to our models.
        with torch.random.fork_rng(devices=[]):
            result = simple_evaluate(
                model=lm,
                tasks=[task.name if isinstance(task, LocalTask) else task for task in tasks],
                task_manager=manager,
                num_fewshot=fewshot,
                limit=limit,
                bootstrap_iters=0,
                log_samples=False,
                random_seed=None,
                numpy_random_seed=None,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
    return {
        name: {
            key.partition(",")[0]: float(value)
            for key, value in metrics.items()
            if isinstance(value, int | float) and "_stderr" not in key
        }
        for name, metrics in result["results"].items()
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no log lines of lm-eval and datasets."""
    import datasets

    logger = logging.getLogger("lm_eval")
    level, bars = logger.level, datasets.utils.logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    datasets.utils.logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        if bars:
            datasets.utils.logging.enable_progress_bar()
