"""Pairs of a source and a target for part B, and their tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import data
from harness.seeding import rng
from methods.common.corpora import corpus
from methods.decoding.making_the_most.models import HELD_OUT, MIDDLEMARCH, byte_level_bpe

Pair = tuple[str, str]

SPECIAL = ("<pad>", "<s>", "</s>", "<mask>")
"""Ids 0 to 3 of our own tokens."""


@dataclass(frozen=True)
class Tokens:
    """How texts become token ids.

    Attributes:
        encode: token ids of a text, without special tokens.
        decode: the text of token ids; special tokens are left out.
        size: number of ids.
        pad, start, end, mask: special ids.
        special: all special ids, which corruption never draws.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    size: int
    pad: int
    start: int
    end: int
    mask: int
    special: tuple[int, ...]


def byte_tokens() -> Tokens:
    """Bytes, after four special ids."""
    own = len(SPECIAL)

    def decode(ids: Sequence[int]) -> str:
        return bytes(i - own for i in ids if i >= own).decode(errors="replace")

    return Tokens(
        lambda text: [byte + own for byte in text.encode()], decode, 256 + own, 0, 1, 2, 3, (0, 1, 2, 3)
    )


def subword_tokens(texts: Sequence[str], entries: int, directory: Path | None = None) -> Tokens:
    """A byte-level BPE of `texts`, after four special ids; trained once and kept in the cache."""
    bpe = byte_level_bpe([text.encode() for text in texts], entries, directory, SPECIAL)
    return Tokens(
        lambda text: bpe.encode(text, add_special_tokens=False).ids,
        lambda ids: bpe.decode(list(ids)),
        bpe.get_vocab_size(),
        0, 1, 2, 3, (0, 1, 2, 3),
    )  # fmt: skip


def pretrained_tokens(tokenizer: Any, size: int) -> Tokens:
    """The tokens of a tokenizer of transformers with start (or [CLS]), end (or [SEP]), pad and mask."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    unused = range(len(tokenizer), size)
    return Tokens(
        lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
        lambda ids: tokenizer.decode(ids, skip_special_tokens=True),
        size,
        tokenizer.pad_token_id,
        start,
        end,
        tokenizer.mask_token_id,
        (*tokenizer.all_special_ids, *unused),
    )


def restoring_pairs(count: int, seed: int, held_out: bool) -> list[Pair]:
    """Snippets of 24 to 32 bytes of Middlemarch without spaces and in lower case, and the snippets themselves.

    They begin and end with words. Those of the held-out part of the novel are for tests.

    Raises:
        MissingData: the novel is not here.
    """
    raw = corpus(MIDDLEMARCH)
    part = raw[HELD_OUT:] if held_out else raw[:HELD_OUT]
    words = part.numpy().tobytes().decode("ascii", errors="ignore").split()
    stream = rng(seed, "snippets", str(held_out))
    pairs: list[Pair] = []
    while len(pairs) < count:
        first, longest = int(stream.integers(len(words) - 40)), int(stream.integers(24, 33))
        snippet = words[first]
        for word in words[first + 1 : first + 40]:
            if len(snippet) + 1 + len(word) > longest:
                break
            snippet += f" {word}"
        if 24 <= len(snippet) <= 32:
            pairs.append((snippet.lower().replace(" ", ""), snippet))
    return pairs


def code_pairs(part: str) -> list[Pair]:
    """Java functions and the same in C#: `part` is train, valid or test of the data set java-cs-translation.

    Raises:
        MissingData: the data set is not here.
    """
    lines = data.text("java-cs-translation", f"{part}.jsonl.gz").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return [(row["java"], row["cs"]) for row in rows]


def padded(rows: Sequence[Sequence[int]], pad: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Rows of ids in one tensor, int64 (rows, longest), and which of them are not padding, bool."""
    longest = max(1, max(len(row) for row in rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[place, : len(row)] = True
    return ids.to(device), mask.to(device)
