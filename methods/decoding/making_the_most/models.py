"""The base models of parts A and C: small transformers that are trained once and kept, or a model by its name."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness import seeding
from harness.cache import artefact
from methods.common.corpora import corpus, windows
from methods.common.language_model import Precision, fit
from methods.decoding.making_the_most.states import CausalModel, Decoder, PretrainedDecoder

MIDDLEMARCH = "gutenberg-novels/middlemarch.txt.gz"
HELD_OUT = 1_600_000
"""Bytes of Middlemarch that models are trained on; what follows is held out."""


@dataclass(frozen=True)
class Recipe:
    """Shape and training of a base model. Training is AdamW, betas (0.9, 0.95), on uniformly drawn windows."""

    texts: tuple[tuple[str, int | None], ...] = ((MIDDLEMARCH, HELD_OUT),)
    """Named texts and how many bytes of each are used; None: all."""
    entries: int = 0
    """Entries of a byte-level BPE; 0 takes bytes as tokens."""
    layers: int = 2
    width: int = 64
    heads: int = 4
    context: int = 128
    """Tokens of a window."""
    batch: int = 16
    steps: int = 900
    lr: float = 3e-3
    """Peak learning rate; warm-up over 5 % of the steps, then a cosine down to 0."""
    precision: Precision = "float32"
    seed: int = 0


RECIPES: dict[str, Recipe] = {
    # For smoke runs: nothing is trained.
    "untrained": Recipe(layers=1, width=32, heads=2, steps=0),
    "novel-bytes": Recipe(),
    # About ten minutes of an edge GPU.
    "novel-subwords": Recipe(
        entries=4096, layers=6, width=384, heads=6, context=256, batch=32, steps=6000, lr=1e-3
    ),
    # An hour or two of a datacenter GPU. Moby-Dick is held out whole.
    "books-100m": Recipe(
        texts=(
            (MIDDLEMARCH, HELD_OUT),
            ("gutenberg-novels/war-and-peace.txt.gz", None),
            ("wikitext-2/wiki.valid.tokens.txt.gz", None),
        ),
        entries=16384, layers=12, width=768, heads=12, context=512, batch=64, steps=20_000, lr=6e-4,
        precision="bfloat16",
    ),
}  # fmt: skip
"""The base models by name; every other name is a model of transformers."""

_VERSION = 1
"""Raise it when training changes: models of older versions are then made anew."""


@dataclass(frozen=True)
class Base:
    """A language model and its tokens.

    Attributes:
        model: in evaluation mode.
        encode: tokens of bytes (uint8): int64, shape (tokens,).
        token_bytes: bytes that each token stands for: int64, shape (vocabulary,).
        digest: names everything that made the model, for what is trained from it.
    """

    model: CausalModel
    encode: Callable[[Tensor], Tensor]
    token_bytes: Tensor
    digest: str


def load_base(name: str, *, device: str = "cpu", directory: Path | None = None, dtype: str = "float32") -> Base:
    """The base model of a name, on `device`.

    Args:
        name: of `RECIPES`, or a causal model of transformers by its id or folder.
        device: torch device.
        directory: of the cache.
        dtype: of a model of transformers.

    Raises:
        MissingModel: a model of transformers that cannot be loaded.
        MissingData: a text of the recipe is not here.
    """
    if name in RECIPES:
        return _own(RECIPES[name], device, directory)
    from methods.decoding.language_models import hugging_face_vocabulary, load_hugging_face

    model, tokenizer = load_hugging_face(name, device, dtype)
    spelled = hugging_face_vocabulary(tokenizer, model.config.vocab_size)

    def encode(text: Tensor) -> Tensor:
        ids = tokenizer(text.numpy().tobytes().decode(errors="replace"), add_special_tokens=False)["input_ids"]
        return torch.tensor(ids)

    sizes = torch.tensor([len(token) for token in spelled.tokens])
    return Base(PretrainedDecoder(model), encode, sizes, f"{name}/{_digest_of(model)}")


def _digest_of(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for key, tensor in model.state_dict().items():
        digest.update(f"{key}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().flatten()[:64].numpy().tobytes())
    return digest.hexdigest()[:16]


def _own(recipe: Recipe, device: str, directory: Path | None) -> Base:
    from safetensors.torch import load_file

    if recipe.steps == 0:
        model = Decoder(256, recipe.width, recipe.layers, recipe.heads, seed=recipe.seed)
        return Base(model.to(device).eval(), _bytes, torch.ones(256, dtype=torch.long), "untrained")
    texts = [corpus(name, cap) for name, cap in recipe.texts]
    digest = hashlib.sha256(b"".join(text.numpy().tobytes() for text in texts)).hexdigest()
    content = {**dataclasses.asdict(recipe), "text": digest, "version": _VERSION}
    content["texts"] = [list(text) for text in recipe.texts]
    encode, sizes = _bytes, torch.ones(256, dtype=torch.long)
    if recipe.entries:
        encode, sizes = subwords(texts, recipe.entries, directory)

    def make(path: Path) -> None:
        _train(recipe, torch.cat([encode(text) for text in texts]), len(sizes), device, path)

    path = artefact("making-the-most-base", content, make, directory)
    model = Decoder(len(sizes), recipe.width, recipe.layers, recipe.heads, seed=recipe.seed)
    model.load_state_dict(load_file(path))
    return Base(model.to(device).eval(), encode, sizes, path.name)


def _bytes(text: Tensor) -> Tensor:
    return text.long()


def subwords(
    texts: list[Tensor], entries: int, directory: Path | None = None
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A byte-level BPE of some texts: how it encodes bytes, and the bytes of each of its tokens.

    It is trained on the texts once and kept in the cache.
    """
    tokenizer = byte_level_bpe([text.numpy().tobytes() for text in texts], entries, directory)

    def encode(text: Tensor) -> Tensor:
        # Lines are encoded apart, which the library does in parallel; a token never crosses a line's end anyway.
        lines = text.numpy().tobytes().decode(errors="replace").splitlines(keepends=True)
        ids = [one.ids for one in tokenizer.encode_batch_fast(lines, add_special_tokens=False)]
        return torch.from_numpy(np.concatenate([np.array(row, np.int64) for row in ids if row]))

    # A byte-level token spells one character for each byte.
    sizes = [len(tokenizer.id_to_token(place)) for place in range(tokenizer.get_vocab_size())]
    return encode, torch.tensor(sizes)


def byte_level_bpe(
    texts: list[bytes], entries: int, directory: Path | None = None, special: tuple[str, ...] = ()
) -> Any:
    """A byte-level BPE with `special` tokens in front, as a tokenizer of the library tokenizers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    def make(path: Path) -> None:
        fresh = Tokenizer(models.BPE())
        fresh.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        fresh.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=entries, initial_alphabet=alphabet, special_tokens=list(special), show_progress=False
        )
        lines = (line for text in texts for line in text.decode(errors="replace").splitlines(keepends=True))
        fresh.train_from_iterator(lines, trainer)
        fresh.save(str(path))

    digest = hashlib.sha256(b"\x00".join(texts)).hexdigest()
    content = {"entries": entries, "texts": digest, "special": list(special), "version": _VERSION}
    return Tokenizer.from_file(str(artefact("making-the-most-bpe", content, make, directory)))


def _train(recipe: Recipe, tokens: Tensor, vocabulary: int, device: str, target: Path) -> None:
    from safetensors.torch import save_file

    model = Decoder(vocabulary, recipe.width, recipe.layers, recipe.heads, seed=recipe.seed).to(device)
    places = seeding.torch_generator(recipe.seed, "pretraining windows")
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.95), weight_decay=0.01)

    def loss(_: int) -> Tensor:
        batch = windows(tokens, recipe.batch, recipe.context + 1, places, device)
        logits = model(model.embed(batch[:, :-1])).logits
        return F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())

    fit(model, optimizer, loss, steps=recipe.steps, schedule="cosine", warmup=0.05, precision=recipe.precision)
    save_file({name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}, target)
