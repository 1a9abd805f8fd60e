"""Pretraining on lines without labels, the supervised mixture, and adaptation with low-rank matrices."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from harness import seeding
from harness.cache import artefact
from harness.errors import MissingPackage
from methods.common.language_model import Precision, fit
from methods.text.marks import corrupt, social, tidy
from methods.text.segment_any_text import blocks, lines, subwords
from methods.text.segment_any_text.blocks import Batch, Blocks
from methods.text.segment_any_text.model import Shape, TokenClassifier, fresh, loss
from methods.text.segment_any_text.subwords import Subwords

# Raise it when models are trained differently: those of older versions are then made anew.
_VERSION = 2


@dataclass(frozen=True)
class Recipe:
    """What a pretrained model is made of. Equal recipes over equal texts are the same model.

    Attributes:
        corpora: names of texts, see `lines.CORPORA`.
        lines: lines of them in all; 0 for all.
        natural: lines are paragraphs, as the texts have them, instead of sentences found by nupunkt.
        vocabulary: subwords.
        hidden, layers, heads, lookahead, dropout: see `Shape`.
        auxiliary: whether the model also learns which mark comes next.
        corrupt: probability that a block is corrupted as a whole.
        deleted: probability that a mark is deleted from the input.
        unpunctuated: largest share of blocks whose lines end in no mark.
        block: tokens of a block, special ones counted.
        batch: blocks of a step.
        lr: peak learning rate of AdamW, which falls linearly.
        warmup: share of the steps that warm up.
        steps: steps.
        precision: with "bfloat16", forward and backward run under autocast.
        seed: of weights, blocks and corruption.
    """

    corpora: tuple[str, ...]
    lines: int = 20_000
    natural: bool = False
    vocabulary: int = 4000
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    lookahead: int | None = 48
    dropout: float = 0.0
    auxiliary: bool = True
    corrupt: float = 0.1
    deleted: float = 0.2
    unpunctuated: float = 0.1
    block: int = 256
    batch: int = 64
    lr: float = 1e-4
    warmup: float = 0.025
    steps: int = 200_000
    precision: Precision = "float32"
    seed: int = 0

    def shape(self, vocabulary: int) -> Shape:
        """The model's, for a tokenizer of `vocabulary` tokens."""
        return Shape(
            vocabulary,
            self.hidden,
            self.layers,
            self.heads,
            self.block,
            self.lookahead,
            self.auxiliary,
            self.dropout,
        )


def pretrained(
    recipe: Recipe, *, cache: Path | None = None, device: str = "cpu"
) -> tuple[Subwords, TokenClassifier]:
    """The tokenizer and the model of `recipe`, in evaluation mode on `device`; trained once, then read from `cache`.

    Raises:
        MissingData: a text of the recipe is not here.
        MissingPackage: nupunkt, which finds the sentences of novels, or tokenizers is not installed.
    """
    from safetensors.torch import load_file

    text = lines.lines(recipe.corpora, recipe.lines, recipe.natural, cache)
    tokenizer = subwords.trained(text, recipe.vocabulary, cache)
    content = {
        **dataclasses.asdict(recipe),
        "corpora": list(recipe.corpora),
        "text": hashlib.sha256("\n".join(text).encode()).hexdigest(),
        "version": _VERSION,
    }
    path = artefact(
        "sat-model", content, lambda target: _pretrain(recipe, text, tokenizer, device, target), cache
    )
    model = fresh(recipe.shape(len(tokenizer)), recipe.seed)
    model.load_state_dict(load_file(path))
    return tokenizer, model.to(device).eval()


def _pretrain(recipe: Recipe, text: Sequence[str], tokenizer: Subwords, device: str, target: Path) -> None:
    from safetensors.torch import save_file

    draw = seeding.rng(recipe.seed, "blocks")
    # Text is cut once; a corrupted version of each block stands ready beside it.
    texts = blocks.thin(blocks.cut(tokenizer, text, recipe.block - 2), recipe.unpunctuated, draw)
    clean = blocks.tokenise(tokenizer, texts, recipe.block)
    spoilt = blocks.tokenise(tokenizer, blocks.corrupted(texts), recipe.block) if recipe.corrupt else clean
    model = fresh(recipe.shape(len(tokenizer)), recipe.seed).to(device)
    order = _epochs(len(clean), draw)

    def next_batch() -> Batch:
        rows = [next(order) for _ in range(recipe.batch)]
        # With probability `corrupt` each; the rest of the batch is clean.
        bad = draw.random(len(rows)) < recipe.corrupt
        chosen = [(spoilt if b else clean, row) for row, b in zip(rows, bad, strict=True)]
        return blocks.batch(chosen, tokenizer.classes, tokenizer.pad, recipe.deleted, draw)

    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.0)
    fit(
        model,
        optimizer,
        lambda _: _loss(model, next_batch(), device),
        steps=recipe.steps,
        schedule="linear",
        warmup=recipe.warmup,
        precision=recipe.precision,
    )
    state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    save_file(state, target)


def _epochs(count: int, draw: np.random.Generator) -> Any:
    """Rows in random order, all of them before any comes again."""
    while True:
        yield from draw.permutation(count).tolist()


def _loss(model: nn.Module, batch: Batch, device: str) -> Tensor:
    """The loss of a batch; 0 where no token is left in it."""
    ids, valid, line_end, next_mark, counted = (
        torch.from_numpy(x).to(device)
        for x in (batch.ids, batch.valid, batch.line_end, batch.next_mark, batch.counted)
    )
    logits = model(ids, valid)
    return loss(logits, line_end, next_mark, counted) if batch.counted.any() else 0.0 * logits.sum()


# --- supervised ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Supervision:
    """How a model learns from labelled sentences.

    Attributes:
        block: tokens of a block, special ones counted.
        batch: blocks of a step.
        lr: peak learning rate of AdamW, which falls linearly.
        warmup: share of the steps that warm up.
        weight_decay: decoupled, times the learning rate.
        steps: steps; 0 for as many as `epochs` take.
        epochs: times that each block is seen, when there is no number of steps.
        precision: with "bfloat16", forward and backward run under autocast.
    """

    block: int = 256
    batch: int = 64
    lr: float = 3e-4
    warmup: float = 0.1
    weight_decay: float = 0.0
    steps: int = 0
    epochs: int = 30
    precision: Precision = "float32"


def pack(sentences: Sequence[str], tokenizer: Subwords, room: int) -> list[str]:
    """Sentences one after the other as texts of at most `room` tokens, cut at any word."""
    return blocks.cut(tokenizer, [bare for s in sentences if (bare := tidy(s))], room)


def supervise(
    model: TokenClassifier,
    tokenizer: Subwords,
    parts: Sequence[Blocks],
    how: Supervision,
    draw: np.random.Generator,
    device: str = "cpu",
) -> Tensor:
    """Train what of `model` has gradients on sentence ends; each row of a batch comes from a random one of `parts`.

    Args:
        model: with one logit, see `model.with_one_logit`.
        tokenizer: its own.
        parts: labelled blocks, mixed evenly.
        how: steps and rates.
        draw: of the blocks.
        device: where the model is.

    Returns:
        The losses, shape (steps,).
    """
    none = np.zeros(len(tokenizer), dtype=np.int64)
    orders = [_epochs(len(part), draw) for part in parts]
    size = max(len(part) for part in parts)
    batch_size = min(how.batch, size)
    steps = how.steps or how.epochs * -(-size // batch_size)

    def next_batch() -> Batch:
        chosen = [(parts[i], next(orders[i])) for i in draw.integers(len(parts), size=batch_size)]
        return blocks.batch(chosen, none, tokenizer.pad, 0.0, draw)

    moved = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(moved, lr=how.lr, weight_decay=how.weight_decay)
    return fit(
        model,
        optimizer,
        lambda _: _loss(model, next_batch(), device),
        steps=steps,
        schedule="linear",
        warmup=how.warmup,
        precision=how.precision,
    )


def mixture(
    runs: Sequence[Sequence[str]], tokenizer: Subwords, block: int, draw: np.random.Generator
) -> list[Blocks]:
    """The supervised mixture: the sentences clean, as from speech recognition, and as in social media.

    In the social version a block is closed early with probability 0.5, at a random sentence, and the blank after a
    sentence that ends in a mark is dropped with probability 0.1.
    """
    sentences = [s for run in runs for s in run]
    spoken = [corrupt(s) for s in sentences]
    chatty = [social(s, draw) for s in sentences]
    early = [part for text in pack(chatty, tokenizer, block - 2) for part in _closed_early(text, draw)]
    return [
        blocks.tokenise(tokenizer, pack(sentences, tokenizer, block - 2), block),
        blocks.tokenise(tokenizer, pack(spoken, tokenizer, block - 2), block),
        _without_some_blanks(tokenizer, early, block, draw),
    ]


def _closed_early(text: str, draw: np.random.Generator) -> list[str]:
    parts = text.removesuffix("\n").split("\n")
    if len(parts) < 2 or draw.random() < 0.5:
        return [text]
    place = int(draw.integers(1, len(parts)))
    rest = "\n" if text.endswith("\n") else ""
    return ["\n".join(parts[:place]) + "\n", "\n".join(parts[place:]) + rest]


def _without_some_blanks(
    tokenizer: Subwords, texts: Sequence[str], block: int, draw: np.random.Generator
) -> Blocks:
    """Rows of `texts` in which one in ten sentences that end in a mark is followed by the next without a blank."""
    rows = []
    for text in texts:
        parts = text.removesuffix("\n").split("\n")
        joined, ends = "", []
        for i, part in enumerate(parts):
            joined += part
            last = i == len(parts) - 1
            if not last or text.endswith("\n"):
                ends.append(len(joined))
            glued = part[-1:] in _FINAL and draw.random() < 0.1
            joined += "" if last or glued else " "
        rows.append((joined, np.array(ends, dtype=np.int64)))
    made = blocks.tokenise(tokenizer, [text for text, _ in rows], block)
    for row, (pieces, (_, ends)) in enumerate(zip(tokenizer.encode([t for t, _ in rows]), rows, strict=True)):
        holders = np.searchsorted(pieces.ends, ends, side="left") + 1
        made.line_end[row, holders[holders < block - 1]] = True
    return made


_FINAL = frozenset(".?!…。！？")


Matrices = Literal["attention and feed-forward", "attention"]
_TARGETS = {
    "attention": r".*attention\.(self\.(query|key|value)|output\.dense)",
    "attention and feed-forward": (
        r".*(attention\.self\.(query|key|value)|(attention\.)?output\.dense|intermediate\.dense)"
    ),
}


def add_lora(
    model: TokenClassifier, rank: int, alpha: float, matrices: Matrices, seed: int, train_head: bool = True
) -> TokenClassifier:
    """`model` with low-rank matrices beside its own, B = 0 and A random; all else, or all but the head, is frozen.

    Raises:
        MissingPackage: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingPackage("low-rank adaptation needs the package peft: pip install 'peft>=0.15'") from error
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeding.derive(seed, "low-rank matrices"))
        config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=_TARGETS[matrices])
        model.net = inject_adapter_in_model(config, model.net)
    if train_head:
        model.net.classifier.requires_grad_(True)
    return model


def trainable(model: nn.Module, but: Callable[[str], bool] = lambda _: False) -> int:
    """Parameters that have gradients, without those whose names `but` is true of."""
    return sum(p.numel() for name, p in model.named_parameters() if p.requires_grad and not but(name))


def labelled_blocks(runs: Sequence[Sequence[str]], tokenizer: Subwords, block: int) -> list[Blocks]:
    """Labelled sentences as one part to learn from."""
    sentences = [s for run in runs for s in run]
    return [blocks.tokenise(tokenizer, pack(sentences, tokenizer, block - 2), block)]
