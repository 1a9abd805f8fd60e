"""One family of small transformers for the decoding papers, and any Hugging Face causal model by its name.

`load_causal_model` takes a name. ``"small:python-lines"`` is the size ``small`` of the family on the text
``python-lines``: it is trained once by the recipe of that size and kept in the cache under everything that made
it. All sizes on one text share one byte-level BPE, so that their next-token laws can be compared and combined. Every
other name is a Hugging Face id or a local folder. Both come as a `transformers` causal model and a fast tokenizer.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import seeding
from harness.cache import artefact
from methods.decoding.documents import documents
from methods.decoding.language_models import HuggingFaceModel, load_hugging_face

if TYPE_CHECKING:
    import numpy as np

END = "<|end|>"
"""The token before and after every document."""

_VERSION = 1
"""Raise it when training changes: models of older versions are then made anew."""


@dataclass(frozen=True)
class Recipe:
    """Shape and training of one size. Training is AdamW, betas (0.9, 0.95), on windows of the packed documents."""

    hidden: int
    feed_forward: int
    layers: int
    heads: int
    context: int
    """Tokens of a window."""
    steps: int
    batch: int
    """Windows a step."""
    lr: float
    """Peak learning rate; warm-up over 5 % of the steps, then a cosine down to 0."""
    entries: int = 4096
    """Of the byte-level BPE, the end of a document included. Texts that are short give fewer."""
    held_out: int = 20
    """Every so-many-th document is kept out of training, for `perplexity`."""
    seed: int = 0


FAMILY: dict[str, Recipe] = {
    "tiny": Recipe(hidden=64, feed_forward=172, layers=2, heads=2, context=64, steps=150, batch=16, lr=6e-3),
    "small": Recipe(hidden=128, feed_forward=344, layers=4, heads=4, context=96, steps=500, batch=24, lr=3e-3),
    "medium": Recipe(
        hidden=256, feed_forward=688, layers=6, heads=8, context=192, steps=2000, batch=32, lr=2e-3
    ),
}
"""``tiny`` trains in seconds on one core, ``small`` in about two minutes, ``medium`` is for a GPU or patience."""


def parse_name(name: str) -> tuple[Recipe, str] | None:
    """The recipe and the text of ``"size:text"``; None for the name of a Hugging Face model.

    Raises:
        ValueError: the family has no such size.
    """
    size, colon, text = name.partition(":")
    if not colon:
        return None
    if size not in FAMILY or not text:
        raise ValueError(
            f"a model is '<size>:<text>' with size {', '.join(FAMILY)}, or a Hugging Face id, not '{name}'"
        )
    return FAMILY[size], text


def load_causal_model(
    name: str, device: str = "cpu", dtype: str = "float32", directory: Path | None = None
) -> tuple[Any, Any]:
    """A causal model in evaluation mode and its fast tokenizer.

    Args:
        name: ``"size:text"`` of the family, a Hugging Face id, or a local folder.
        device: torch device to put it on.
        dtype: name of a torch dtype, e.g. ``"bfloat16"``. The family is trained in float32 and then cast.
        directory: of the cache; default `harness.cache.default_directory`.

    Raises:
        MissingModel: a Hugging Face model that cannot be loaded.
        MissingData, MissingPackage: the text of the family is not here.
    """
    import torch

    parsed = parse_name(name)
    if parsed is None:
        return load_hugging_face(name, device, dtype)
    model, tokenizer = train_or_load(*parsed, device=device, directory=directory)
    return model.to(device=device, dtype=getattr(torch, dtype)), tokenizer


def language_model(
    name: str, prompt: str = "", *, device: str = "cpu", dtype: str = "float32", temperature: float = 1.0
) -> HuggingFaceModel:
    """The law of the token strings that continue `prompt`; the arguments are those of `load_causal_model`."""
    model, tokenizer = load_causal_model(name, device, dtype)
    return HuggingFaceModel(model, tokenizer, prompt, temperature)


def train_or_load(
    recipe: Recipe, text: str, *, device: str = "cpu", directory: Path | None = None
) -> tuple[Any, Any]:
    """The model of a recipe on a named text, float32, and its tokenizer; trained on first use, on `device`."""
    from safetensors.torch import load_file

    kept = documents(text)
    training = [document for place, document in enumerate(kept) if place % recipe.held_out]
    tokenizer = _tokenizer(training, recipe.entries, directory)
    content = {**dataclasses.asdict(recipe), "documents": _digest(training), "version": _VERSION}

    def make(path: Path) -> None:
        _train(recipe, _pack(tokenizer, training), tokenizer, device, path)

    path = artefact("small-transformer", content, make, directory)
    model = _fresh(recipe, tokenizer)
    model.load_state_dict(load_file(path))
    return model.to(device).eval(), tokenizer


def perplexity(name: str, *, device: str = "cpu", most: int = 500, directory: Path | None = None) -> float:
    """Perplexity per token of a model of the family on documents that it was not trained on, their ends included.

    Args:
        name: ``"size:text"``.
        device: torch device.
        most: documents to score.
        directory: of the cache.

    Raises:
        ValueError: not a model of the family, whose held-out documents are not known.
    """
    import torch
    import torch.nn.functional as F

    parsed = parse_name(name)
    if parsed is None:
        raise ValueError(f"'{name}' is not of the family, so its held-out documents are not known")
    recipe, text = parsed
    model, tokenizer = train_or_load(recipe, text, device=device, directory=directory)
    end = tokenizer.eos_token_id
    nats, count = 0.0, 0
    for document in documents(text)[:: recipe.held_out][:most]:
        ids = torch.tensor([[end, *tokenizer.encode(document, add_special_tokens=False), end]], device=device)
        with torch.inference_mode():
            logits = model(input_ids=ids[:, :-1]).logits[0].float()
        nats += float(F.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    return float(torch.tensor(nats / count).exp())


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\x00")
    return digest.hexdigest()


def _tokenizer(training: Sequence[str], entries: int, directory: Path | None) -> Any:
    """A byte-level BPE as a fast tokenizer; encoding a prompt puts the start of a document in front."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    def make(path: Path) -> None:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=entries, initial_alphabet=alphabet, special_tokens=[END], show_progress=False
        )
        tokenizer.train_from_iterator(training, trainer)
        end = tokenizer.token_to_id(END)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{END} $A", special_tokens=[(END, end)]
        )
        tokenizer.save(str(path))

    content = {"entries": entries, "documents": _digest(training), "version": _VERSION}
    path = artefact("small-transformer-bpe", content, make, directory)
    return PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token=END, pad_token=END)


def _fresh(recipe: Recipe, tokenizer: Any) -> Any:
    from methods.common.language_model import llama

    model = llama(
        len(tokenizer),
        recipe.hidden,
        recipe.feed_forward,
        recipe.layers,
        recipe.heads,
        recipe.context,
        seed=recipe.seed,
    )
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.eos_token_id
    return model


def _pack(tokenizer: Any, training: Sequence[str]) -> np.ndarray:
    """All documents in one row, in a fixed random order, with an end between them: int32, shape (tokens,)."""
    import numpy as np

    order = seeding.rng(0, "order of documents").permutation(len(training))
    end = tokenizer.eos_token_id
    encoded = tokenizer.backend_tokenizer.encode_batch_fast(
        [training[place] for place in order], add_special_tokens=False
    )
    return np.concatenate([np.array([end]), *(np.array([*one.ids, end]) for one in encoded)]).astype(np.int32)


def _train(recipe: Recipe, stream: np.ndarray, tokenizer: Any, device: str, target: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from methods.common.language_model import fit, next_token_loss, windows

    model = _fresh(recipe, tokenizer).to(device)
    text = torch.from_numpy(stream)
    places = seeding.torch_generator(recipe.seed, "training windows")
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.95), weight_decay=0.01)

    def loss(_: int) -> Any:
        return next_token_loss(model, windows(text, recipe.batch, recipe.context + 1, places, device))

    fit(model, optimizer, loss, steps=recipe.steps, schedule="cosine", warmup=0.05)
    save_file({name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}, target)
