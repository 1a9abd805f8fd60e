"""Vectors of code tokens from the layers of a frozen encoder."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from harness import cache
from harness.errors import HarnessError, RequestError
from methods.text import encoders
from methods.text.ast_probe.corpora import digest
from methods.text.ast_probe.python_source import Snippet

Weights = Literal["pretrained", "random-layers"]
_LAYERS = (".layer.", ".layers.", ".block.", ".h.")
"""How the names of parameters of transformer layers are told from those of embeddings."""


def spans(tokens: Sequence[str]) -> tuple[str, list[int]]:
    """Tokens with a blank in front of each but the first, and for each character the number of its token; -1
    for a blank."""
    owners: list[int] = []
    for number, token in enumerate(tokens):
        owners.extend([-1] * bool(number) + [number] * len(token))
    return " ".join(tokens), owners


def owners_of(offsets: Sequence[tuple[int, int]], owners: Sequence[int]) -> list[int]:
    """The token that each sub-word belongs to, by its last character; -1 for special tokens and blanks."""
    return [owners[end - 1] if end > start else -1 for start, end in offsets]


def load(name: str, weights: Weights, random_seed: int, device: str) -> Any:
    """An encoder; with ``random-layers`` its embeddings are kept and all transformer layers are drawn anew.

    Raises:
        MissingModel: it cannot be loaded.
    """
    model = encoders.load_encoder(name, device)
    if weights == "random-layers":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_seed)
            fresh = type(model)(model.config)
        state = fresh.state_dict()
        for key, value in model.state_dict().items():
            if not any(part in f".{key}" for part in _LAYERS):
                state[key] = value
        fresh.load_state_dict(state)
        model = fresh.to(device).eval()
    return model


@torch.inference_mode()
def encode(
    model: Any,
    tokenizer: Any,
    snippets: Sequence[Snippet],
    layers: Sequence[int] | None = None,
    batch: int = 32,
) -> dict[int, Tensor]:
    """States of all code tokens of `snippets`, one snippet after the other: float32, shape (tokens, width), by layer.

    A code token's vector is the mean of those of its sub-words; special tokens are in none. Layer 0 is the embeddings.

    Args:
        model: the encoder.
        tokenizer: its fast tokenizer.
        snippets: what is encoded; those of like length go together.
        layers: which are kept, all by default.
        batch: snippets at a time.

    Raises:
        RequestError: the encoder has no such layer.
        HarnessError: a code token has no sub-word, because the snippet is too long for the encoder.
    """
    device = next(model.parameters()).device
    most = min(int(getattr(model.config, "max_position_embeddings", 0) or 10**6), 512)
    starts = [0]
    for snippet in snippets:
        starts.append(starts[-1] + len(snippet.tokens))
    order = sorted(range(len(snippets)), key=lambda number: len(" ".join(snippets[number].tokens)))
    found: dict[int, Tensor] = {}
    for first in range(0, len(order), batch):
        numbers = order[first : first + batch]
        texts = [spans(snippets[number].tokens) for number in numbers]
        made = tokenizer(
            [text for text, _ in texts],
            return_offsets_mapping=True,
            padding=True,
            truncation=True,
            max_length=most,
        )
        # Tokens of this batch one snippet after the other, and where they stand among all tokens.
        local = [0]
        for number in numbers:
            local.append(local[-1] + len(snippets[number].tokens))
        everywhere = torch.cat([torch.arange(starts[number], starts[number + 1]) for number in numbers])
        rows = [
            [begin + owner if owner >= 0 else -1 for owner in owners_of(offsets, owners)]
            for begin, offsets, (_, owners) in zip(local[:-1], made["offset_mapping"], texts, strict=True)
        ]
        mask = torch.tensor(made["attention_mask"], device=device)
        states = model(
            input_ids=torch.tensor(made["input_ids"], device=device),
            attention_mask=mask,
            output_hidden_states=True,
        ).hidden_states
        if layers is not None and not all(0 <= layer < len(states) for layer in layers):
            raise RequestError(f"the encoder has the layers 0 to {len(states) - 1}, not {max(layers)}")
        target = torch.tensor(rows, device=device)
        used = (target >= 0) & mask.bool()
        places = target[used]
        counts = torch.zeros(local[-1], device=device)
        counts.index_add_(0, places, torch.ones(len(places), device=device))
        if not counts.all():
            lost = int((counts == 0).nonzero()[0])
            number = numbers[bisect_right(local, lost) - 1]
            raise HarnessError(
                f"a token of a snippet has no sub-word: '{' '.join(snippets[number].tokens)[:60]}...';"
                f" lower most_characters, the encoder takes {most} sub-words"
            )
        for layer in range(len(states)) if layers is None else layers:
            width = states[layer].shape[-1]
            kept = found.setdefault(layer, torch.zeros(starts[-1], width))
            sums = torch.zeros(local[-1], width, device=device).index_add_(
                0, places, states[layer][used].float()
            )
            kept[everywhere] = (sums / counts[:, None]).cpu()
    return found


def layer_states(
    name: str, snippets: tuple[Snippet, ...], layer: int, weights: Weights, random_seed: int, device: str,
    directory: Path | None, kept: bool,
) -> Tensor:  # fmt: skip
    """States of one layer, of `encode`.

    Args:
        name: the encoder, of `methods.text.encoders`.
        snippets: what is encoded.
        layer: 0 for the embeddings.
        weights: see `load`.
        random_seed: of random layers.
        device: torch device of the encoder.
        directory: of the cache.
        kept: whether all layers are computed in one pass and kept in the cache, or this one alone and not.

    Raises:
        RequestError: the encoder has no such layer.
        MissingModel: it cannot be loaded.
    """
    if not kept:
        model, tokenizer = load(name, weights, random_seed, device), encoders.load_tokenizer(name)
        return encode(model, tokenizer, snippets, [layer])[layer]
    from safetensors import safe_open
    from safetensors.torch import save_file

    recipe = {
        "encoder": encoders.identity(name), "snippets": digest(snippets), "weights": weights,
        "random_seed": random_seed if weights == "random-layers" else 0, "version": 1,
    }  # fmt: skip

    def make(path: Path) -> None:
        model, tokenizer = load(name, weights, random_seed, device), encoders.load_tokenizer(name)
        save_file({str(number): states for number, states in encode(model, tokenizer, snippets).items()}, path)

    with safe_open(cache.artefact("layer-states", recipe, make, directory), "pt") as file:
        if str(layer) not in file.keys():  # noqa: SIM118 - it is no dictionary
            raise RequestError(f"the encoder has the layers 0 to {len(file.keys()) - 1}, not {layer}")
        return file.get_tensor(str(layer))
