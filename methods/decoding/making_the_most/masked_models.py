"""The masked language models of part B: trained once on the sources and targets and kept, or a model by its name."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import seeding
from harness.cache import artefact
from harness.errors import MissingModel, first_line
from methods.decoding.making_the_most.denoising import masked_loss, plain_ids
from methods.decoding.making_the_most.pairs import (
    Pair,
    Tokens,
    byte_tokens,
    padded,
    pretrained_tokens,
    subword_tokens,
)
from methods.decoding.making_the_most.seq2seq import bert


@dataclass(frozen=True)
class Recipe:
    """Shape and training of a masked language model: AdamW on batches of whole sources and targets, both kinds alike."""

    entries: int = 0
    """Entries of a byte-level BPE; 0 takes bytes as tokens."""
    layers: int = 4
    width: int = 96
    heads: int = 4
    positions: int = 64
    """Most tokens of a text."""
    steps: int = 400
    batch: int = 32
    lr: float = 2e-3
    masked: float = 0.2
    """Share of the tokens that are predicted."""
    seed: int = 0


RECIPES: dict[str, Recipe] = {
    "tiny-mlm": Recipe(layers=2, width=32, heads=2, steps=30, batch=16),
    "bytes-mlm": Recipe(),
    "subwords-mlm": Recipe(
        entries=4096, layers=6, width=384, heads=6, positions=384, steps=8000, batch=32, lr=5e-4
    ),
}
"""The masked language models by name; every other name is a model of transformers."""

_VERSION = 1


@dataclass(frozen=True)
class Masked:
    """A masked language model.

    Attributes:
        model: of transformers.
        tokens: its tokens.
        positions: most tokens of a text, special ones included.
        digest: names everything that made it.
    """

    model: Any
    tokens: Tokens
    positions: int
    digest: str


def load_masked(
    name: str, pairs: Sequence[Pair], *, device: str = "cpu", directory: Path | None = None
) -> Masked:
    """The masked language model of a name, on `device`, in evaluation mode.

    Args:
        name: of `RECIPES`, or a model of transformers by its id or folder, e.g. ``microsoft/codebert-base-mlm``.
        pairs: what a model of our own is trained on.
        device: torch device.
        directory: of the cache.

    Raises:
        MissingModel: a model of transformers that cannot be loaded, or of another shape than BERT's.
    """
    if name not in RECIPES:
        return _pretrained(name, device)
    from safetensors.torch import load_file

    recipe = RECIPES[name]
    texts = [text for pair in pairs for text in pair]
    tokens = subword_tokens(texts, recipe.entries, directory) if recipe.entries else byte_tokens()
    digest = hashlib.sha256("\x00".join(texts).encode()).hexdigest()
    content = {**dataclasses.asdict(recipe), "texts": digest, "version": _VERSION}

    def fresh() -> Any:
        return bert(tokens.size, recipe.width, recipe.layers, recipe.heads, recipe.positions, recipe.seed)

    def make(path: Path) -> None:
        from safetensors.torch import save_file

        model = fresh().to(device)
        _train(model, recipe, [tokens.encode(text)[: recipe.positions - 1] for text in texts], tokens, device)
        save_file({key: tensor.detach().cpu().clone() for key, tensor in model.state_dict().items()}, path)

    path = artefact("making-the-most-mlm", content, make, directory)
    model = fresh()
    model.load_state_dict(load_file(path))
    return Masked(model.to(device).eval(), tokens, recipe.positions, path.name)


def _train(model: Any, recipe: Recipe, rows: list[list[int]], tokens: Tokens, device: str) -> None:
    from methods.common.language_model import fit

    generator = seeding.torch_generator(recipe.seed, "masked language model")
    plain = plain_ids(tokens, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.01)

    def loss(_: int) -> Tensor:
        chosen = torch.randint(len(rows), (recipe.batch,), generator=generator).tolist()
        ids, mask = padded([rows[row] for row in chosen], tokens.pad, device)
        return masked_loss(model, ids, mask, tokens, plain, generator, recipe.masked)

    fit(model, optimizer, loss, steps=recipe.steps, schedule="cosine", warmup=0.05)


def _pretrained(name: str, device: str) -> Masked:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        # Without dropout: models of our own have none either.
        plain = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        model = AutoModelForMaskedLM.from_pretrained(name, **plain)
    except (OSError, ValueError, ImportError) as error:
        raise MissingModel(
            f"the masked language model '{name}' cannot be loaded here: {first_line(error)}"
        ) from error
    layers = getattr(getattr(model.base_model, "encoder", None), "layer", None)
    if layers is None or not hasattr(layers[0], "attention"):
        raise MissingModel(f"'{name}' is not of BERT's shape: it has no encoder.layer[i].attention")
    # RoBERTa's positions begin after the padding's.
    extra = model.config.pad_token_id + 1 if "roberta" in model.config.model_type else 0
    positions = model.config.max_position_embeddings - extra
    return Masked(
        model.to(device).eval(), pretrained_tokens(tokenizer, model.config.vocab_size), positions, name
    )
