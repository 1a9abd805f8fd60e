"""Small byte-level language models, trained once and kept, for methods that need a pretrained model.

A Hugging Face id is used where it can be loaded (`from_hub`). Otherwise a `Recipe` says which text a
Llama-shaped model is trained on and how, and `pretrained` trains it on first use and caches the weights
under a key that holds the whole recipe and a digest of the text.

A token is a byte: the vocabulary is 256, nothing is out of vocabulary, and bits per byte of different
models on the same text can be compared.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import seeding
from harness.cache import artefact
from harness.errors import MissingModel, first_line
from methods.common.corpora import STANDARD_LIBRARY, corpus, decode, encode, split, windows

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

__all__ = [
    "STANDARD_LIBRARY",
    "START",
    "Precision",
    "Recipe",
    "Schedule",
    "bits_per_byte",
    "corpus",
    "decode",
    "encode",
    "fit",
    "from_hub",
    "llama",
    "next_token_loss",
    "pretrained",
    "rate",
    "split",
    "windows",
]

Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["float32", "bfloat16"]

START = 10
"""The byte in front of the first byte of a text, a line feed: bytes have no special tokens."""


# --- models ----------------------------------------------------------------------------------------


def llama(
    vocabulary: int = 256,
    hidden: int = 128,
    feed_forward: int = 344,
    layers: int = 4,
    heads: int = 4,
    context: int = 96,
    *,
    tied: bool = False,
    seed: int = 0,
    attention: Literal["sdpa", "eager"] = "sdpa",
) -> LlamaForCausalLM:
    """A Llama-shaped model with fresh weights, float32 on the CPU, in evaluation mode.

    The weights depend on `seed` alone; the global random state is neither read nor changed.

    Args:
        vocabulary: number of token ids.
        hidden: width of the residual stream, a multiple of `heads`.
        feed_forward: width of the gated feed-forward layer.
        layers: decoder layers.
        heads: attention heads (as many for keys and values).
        context: longest sequence that it is trained for; positions are rotary, so longer input runs.
        tied: whether the output layer shares the embedding's weights.
        seed: of the initial weights.
        attention: "eager" computes attention probabilities explicitly, for methods that read them.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    if hidden % heads:
        raise ValueError(f"hidden ({hidden}) must be a multiple of heads ({heads})")
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        attn_implementation=attention,
    )
    # Only the CPU's generator is saved, seeded and restored: torch.manual_seed would also seed the GPU's.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeding.derive(seed, "initial weights"))
        model = LlamaForCausalLM(config)
    return model.eval()


def from_hub(
    name: str, *, device: str = "cpu", dtype: str = "float32", attention: str = "sdpa"
) -> tuple[Any, Any]:
    """The causal language model `name` (a Hugging Face id or a local folder) and its tokenizer.

    Raises:
        MissingModel: it cannot be loaded here.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(
            name, dtype=getattr(torch, dtype), attn_implementation=attention
        )
    except (OSError, ValueError, ImportError) as error:
        raise MissingModel(f"the model '{name}' cannot be loaded here: {first_line(error)}") from error
    return model.to(device).eval(), tokenizer


# --- training and scoring --------------------------------------------------------------------------


def next_token_loss(model: Any, batch: Tensor) -> Tensor:
    """Mean cross-entropy in nats of the last n - 1 tokens of each row of `batch`, int64 (rows, n)."""
    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())


def rate(step: int, steps: int, schedule: Schedule, warmup: float = 0.0) -> float:
    """Share of the peak learning rate at `step` of `steps`: linear warm-up, then `schedule` down to 0.

    Args:
        warmup: share of the steps that warm up.
    """
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (math.floor(rising) + 1)
    progress = (step - rising) / max(1.0, steps - rising)
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return 1.0 - progress
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def fit(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    schedule: Schedule = "cosine",
    warmup: float = 0.0,
    clip: float | None = 1.0,
    precision: Precision = "float32",
) -> Tensor:
    """Minimise `loss` for `steps` steps of `optimizer`; only its parameters move.

    Args:
        model: put into training mode during the steps and into evaluation mode afterwards.
        loss: the loss of a step, by the number of the step.
        schedule, warmup: see `rate`; the peak is the learning rate of each of the optimizer's groups.
        clip: largest 2-norm of the gradient over all its parameters, or None.
        precision: "bfloat16" computes forward and backward under autocast; weights stay as they are.

    Returns:
        The losses, shape (steps,), on the model's device.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    moved = [p for group in optimizer.param_groups for p in group["params"]]
    kind = next(model.parameters()).device.type
    losses = []
    model.train()
    for step in range(steps):
        share = rate(step, steps, schedule, warmup)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * share
        with torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16"):
            value = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(moved, clip)
        optimizer.step()
        losses.append(value.detach())
    optimizer.zero_grad(set_to_none=True)
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        group["lr"] = peak
    model.eval()
    return torch.stack(losses) if losses else torch.empty(0)


@torch.no_grad()
def bits_per_byte(
    model: Any, text: Tensor, context: int, batch: int = 64, precision: Precision = "float32"
) -> float:
    """Mean -log2 p of the bytes of `text` under a byte-level `model`; lower is better.

    Each byte is scored once: `START` stands before the first, the windows do not overlap, and the last one
    begins earlier so that it is full. So it is the ``bits_per_byte`` of lm-eval's rolling likelihood.

    Args:
        model: maps input ids int64 (rows, n) to ``.logits`` (rows, n, 256).
        text: integers 0..255, shape (bytes,).
        context: tokens of a window.
        batch: windows at a time.
    """
    if len(text) == 0:
        raise ValueError("an empty text has no bits per byte")
    device = next(model.parameters()).device
    line = torch.cat([torch.tensor([START]), text.cpu().long()]).to(device)
    full = len(text) // context
    inputs = line[: full * context].view(full, context)
    targets = line[1 : full * context + 1].view(full, context)
    total = 0.0
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        for rows, expected in zip(inputs.split(batch), targets.split(batch), strict=True):
            if len(rows):
                total += _nats(model, rows, expected)
        if rest := len(text) - full * context:
            start = max(0, len(text) - context)
            rows, expected = line[start:-1][None], line[start + 1 :][None]
            total += _nats(model, rows, expected, rest)
    return total / math.log(2) / len(text)


def _nats(model: Any, rows: Tensor, expected: Tensor, scored: int | None = None) -> float:
    """Total cross-entropy of the last `scored` positions (all by default) of each row."""
    logits = model(input_ids=rows, use_cache=False).logits.float()
    each = F.cross_entropy(logits.flatten(0, 1), expected.flatten(), reduction="none").view_as(expected)
    return float(each[:, -scored:].double().sum() if scored else each.double().sum())


# --- pretrained models -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """What a cached model is made of: the text, the shape and the training.

    Two equal recipes over equal text are the same model. Shape fields are those of `llama`; training is
    AdamW with betas (0.9, 0.95) on uniformly drawn windows of ``context + 1`` bytes.
    """

    corpora: tuple[str, ...]
    """Names of texts, see `corpus`; windows are drawn from all of them in proportion to their bytes."""
    cap: int | None = None
    """Bytes kept of each text; None: all."""
    held_out: float = 0.05
    """Share at the end of each text that training never sees."""
    hidden: int = 128
    feed_forward: int = 344
    layers: int = 4
    heads: int = 4
    context: int = 96
    tied: bool = False
    steps: int = 700
    batch: int = 24
    """Windows a step."""
    lr: float = 2e-3
    """Peak learning rate."""
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    """Share of the steps that warm up linearly."""
    weight_decay: float = 0.0
    clip: float = 1.0
    precision: Precision = "float32"
    """With "bfloat16", forward and backward run under autocast."""
    seed: int = 0
    """Of the initial weights and of the windows' places."""

    def __post_init__(self) -> None:
        if not self.corpora:
            raise ValueError("a recipe needs at least one corpus")

    def parts(self) -> list[tuple[Tensor, Tensor]]:
        """Per corpus its part to train on and its held-out part, uint8."""
        return [split(corpus(name, self.cap), self.held_out) for name in self.corpora]

    def fresh(self) -> LlamaForCausalLM:
        """The model before training."""
        return llama(
            256,
            self.hidden,
            self.feed_forward,
            self.layers,
            self.heads,
            self.context,
            tied=self.tied,
            seed=self.seed,
        )

    def parameters(self) -> int:
        """Number of parameters of the model."""
        attention, mlp = 4 * self.hidden**2, 3 * self.hidden * self.feed_forward
        embeddings = 256 * self.hidden * (1 if self.tied else 2)
        return self.layers * (attention + mlp + 2 * self.hidden) + self.hidden + embeddings


# Raise it when `pretrained` trains differently: models of older versions are then made anew.
_VERSION = 1


def pretrained(recipe: Recipe, *, cache: Path | None = None, device: str = "cpu") -> LlamaForCausalLM:
    """The model of `recipe` on `device`, in evaluation mode; trained there once and then read from `cache`.

    Training 857,216 parameters for 700 steps of 24 windows of 96 bytes takes about three minutes of one
    CPU core. Call it in `prepare`.

    Raises:
        MissingData: a text of the recipe is not here.
    """
    from safetensors.torch import load_file

    text = torch.cat([part for part, _ in recipe.parts()])
    content = {
        **dataclasses.asdict(recipe),
        "corpora": list(recipe.corpora),
        "text": hashlib.sha256(text.numpy().tobytes()).hexdigest(),
        "version": _VERSION,
    }
    path = artefact("byte-llama", content, lambda target: _train(recipe, text, device, target), cache)
    model = recipe.fresh()
    model.load_state_dict(load_file(path))
    return model.to(device).eval()


def _train(recipe: Recipe, text: Tensor, device: str, target: Path) -> None:
    from safetensors.torch import save_file

    model = recipe.fresh().to(device)
    places = seeding.torch_generator(recipe.seed, "pretraining windows")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
    )

    def loss(_: int) -> Tensor:
        batch = windows(text, recipe.batch, recipe.context + 1, places, device)
        return next_token_loss(model, batch)

    fit(
        model,
        optimizer,
        loss,
        steps=recipe.steps,
        schedule=recipe.schedule,
        warmup=recipe.warmup,
        clip=recipe.clip,
        precision=recipe.precision,
    )
    # Tied weights are one tensor under two names; safetensors wants copies that do not share memory.
    state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    save_file(state, target)
