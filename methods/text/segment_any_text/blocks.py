"""Training blocks: where a line ended, which mark came next, and what is taken out of the input.

Every line end is gone from the input and is the label of the token before it. Whole blocks are corrupted as text,
before they are tokenised. Marks are deleted from the tokens of a batch, anew each time a block is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from methods.text.marks import MARKS, corrupt
from methods.text.segment_any_text.subwords import SPACE, Pieces, Subwords, Tokenizer


@dataclass(frozen=True)
class Blocks:
    """Equally long rows of tokens with special tokens at both ends of each, padded on the right.

    Attributes:
        ids: int64, shape (rows, block).
        line_end: bool, shape (rows, block): whether a line ended behind the token.
        lengths: int64, shape (rows,): tokens of each row, the special ones counted.
    """

    ids: NDArray[np.int64]
    line_end: NDArray[np.bool_]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)


def label(tokenizer: Tokenizer, text: str, separator: str = " ") -> tuple[Pieces, NDArray[np.bool_]]:
    """The tokens of `text` without its line ends, and the tokens that a line ended behind.

    Args:
        tokenizer: of the subwords.
        text: tidy text, one line per sentence.
        separator: what stands between the lines in the input, "" for languages without spaces.

    Returns:
        The pieces, and bool, shape (n,). A line end at the very end of `text` counts.
    """
    lines = text.split("\n")
    last = len(lines) - 1
    ends = np.cumsum([len(line) + len(separator) * (i < last) for i, line in enumerate(lines)])
    ends[:last] -= len(separator)
    (pieces,) = tokenizer.encode([separator.join(lines)])
    marked = np.zeros(len(pieces.ids), dtype=bool)
    if len(marked):
        # The token that holds the last character of the line: the first whose end is not before it.
        wanted = ends[:last] if lines[last] else ends[: max(0, last)]
        holders = np.searchsorted(pieces.ends, wanted[wanted > 0], side="left")
        marked[np.minimum(holders, len(marked) - 1)] = True
    return pieces, marked


def cut(subwords: Subwords, lines: Sequence[str], room: int) -> list[str]:
    """The lines as texts of at most `room` tokens each, cut at any word; line ends stay in them."""
    words: list[tuple[str, int]] = []
    starts = np.array([t.startswith(SPACE) for t in _tokens(subwords)])
    for line, pieces in zip(lines, subwords.encode(lines), strict=True):
        if not len(pieces.ids):
            continue
        firsts = np.flatnonzero(starts[pieces.ids])
        firsts = firsts if len(firsts) and firsts[0] == 0 else np.concatenate([[0], firsts])
        counts = np.diff(np.append(firsts, len(pieces.ids)))
        edges = np.append(np.where(firsts > 0, pieces.ends[firsts - 1], 0), len(line))
        for k, count in enumerate(counts):
            end = "\n" if k == len(counts) - 1 else ""
            words.append((line[edges[k] : edges[k + 1]] + end, int(count)))
    texts: list[str] = []
    held: list[str] = []
    size = 0
    for word, count in words:
        if held and size + count > room:
            texts.append("".join(held))
            held, size = [], 0
        held.append(word)
        size += count
    return [text.lstrip(" ") for text in (*texts, "".join(held)) if text.strip()]


def _tokens(subwords: Subwords) -> list[str]:
    return [subwords.tokenizer.id_to_token(i) for i in range(len(subwords))]


def tokenise(tokenizer: Tokenizer, texts: Sequence[str], block: int, separator: str = " ") -> Blocks:
    """Texts with line ends as rows of `block` tokens; what is longer is cut off."""
    ids = np.full((len(texts), block), tokenizer.pad, dtype=np.int64)
    line_end = np.zeros((len(texts), block), dtype=bool)
    lengths = np.zeros(len(texts), dtype=np.int64)
    for row, text in enumerate(texts):
        pieces, marked = label(tokenizer, text, separator)
        n = min(len(pieces.ids), block - 2)
        ids[row, 0], ids[row, n + 1] = tokenizer.cls, tokenizer.sep
        ids[row, 1 : n + 1], line_end[row, 1 : n + 1] = pieces.ids[:n], marked[:n]
        lengths[row] = n + 2
    return Blocks(ids, line_end, lengths)


def thin(texts: Sequence[str], share: float, draw: np.random.Generator) -> list[str]:
    """`texts` with at most `share` of them such that half of their lines or more end in no mark."""
    bare = np.array([_unpunctuated(text) for text in texts], dtype=bool)
    keep = ~bare
    allowed = int(share / (1 - share) * keep.sum()) if share < 1 else len(texts)
    there = np.flatnonzero(bare)
    keep[draw.permutation(there)[:allowed]] = True
    return [text for text, kept in zip(texts, keep, strict=True) if kept]


def _unpunctuated(text: str) -> bool:
    lines = text.rstrip("\n").split("\n")
    # The last line of a block goes on in the next one, unless a line end follows.
    whole = lines if text.endswith("\n") else lines[:-1]
    return bool(whole) and sum(line[-1:] not in MARKS for line in whole) * 2 >= len(whole)


@dataclass(frozen=True)
class Batch:
    """Rows to train on.

    Attributes:
        ids: int64, shape (rows, n), padded on the right.
        valid: bool, shape (rows, n): what is not padding.
        line_end: bool, shape (rows, n).
        next_mark: int64, shape (rows, n): auxiliary class of the token that followed, deleted or not.
        counted: bool, shape (rows, n): tokens of the text, over which losses are averaged.
    """

    ids: NDArray[np.int64]
    valid: NDArray[np.bool_]
    line_end: NDArray[np.bool_]
    next_mark: NDArray[np.int64]
    counted: NDArray[np.bool_]


def batch(
    rows: Sequence[tuple[Blocks, int]],
    classes: NDArray[np.int64],
    pad: int,
    deleted: float,
    draw: np.random.Generator,
) -> Batch:
    """Rows of blocks, clean and corrupted ones side by side, each mark deleted with probability `deleted`.

    The label of a line end goes to the last token before it that is left. Of several marks in a row that are deleted
    the first is the label of the token before them.
    """
    found = [
        without(
            blocks.ids[r, : blocks.lengths[r]], blocks.line_end[r, : blocks.lengths[r]], classes, deleted, draw
        )
        for blocks, r in rows
    ]
    n = max(len(ids) for ids, _, _ in found)
    made = Batch(
        np.full((len(rows), n), pad, dtype=np.int64),
        np.zeros((len(rows), n), dtype=bool),
        np.zeros((len(rows), n), dtype=bool),
        np.zeros((len(rows), n), dtype=np.int64),
        np.zeros((len(rows), n), dtype=bool),
    )
    for i, (ids, line_end, next_mark) in enumerate(found):
        k = len(ids)
        made.ids[i, :k], made.valid[i, :k] = ids, True
        made.line_end[i, :k], made.next_mark[i, :k] = line_end, next_mark
        made.counted[i, 1 : k - 1] = True
    return made


def without(
    ids: NDArray[np.int64],
    line_end: NDArray[np.bool_],
    classes: NDArray[np.int64],
    share: float,
    draw: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """One row without a random `share` of its marks: ids, line ends, and the class of the token that followed."""
    kind = classes[ids]
    next_mark = np.append(kind[1:], 0)
    keep = (kind == 0) | (draw.random(len(ids)) >= share)
    place = np.arange(len(ids))
    last_kept = np.maximum.accumulate(np.where(keep, place, 0))
    moved = np.zeros(len(ids), dtype=bool)
    moved[last_kept[line_end]] = True
    moved[0] = False
    return ids[keep], moved[keep], next_mark[keep]


def corrupted(texts: Sequence[str]) -> list[str]:
    """Each text fully corrupted, with a final line end where it had one."""
    return [_corrupted(text, corrupt) for text in texts]


def _corrupted(text: str, change: Callable[[str], str]) -> str:
    changed = change(text)
    return changed + "\n" if changed and text.endswith("\n") else changed
