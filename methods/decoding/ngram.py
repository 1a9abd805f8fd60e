"""An n-gram language model over byte-level BPE tokens of the standard library's source lines.

Interpolated with Witten-Bell weights: P_k(v | h) = l(h) count(h v) / count(h) + (1 - l(h)) P_{k-1}(v | h'),
where h' drops the oldest token of h, l(h) = count(h) / (count(h) + distinct followers of h), and P_0 is uniform.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import cache as store
from methods.common.corpora import STANDARD_LIBRARY, corpus
from methods.decoding.language_models import FloatArray, IntArray, LanguageModel, Vocabulary


@dataclass(frozen=True)
class Counts:
    """How often tokens follow the contexts of one length.

    Attributes:
        contexts: sorted keys of the contexts seen, int64, shape (contexts,).
        starts: where the followers of each begin, int64, shape (contexts + 1,).
        tokens: the followers, sorted within a context, int64, shape (followers,).
        cumulated: counts of the followers, summed up from the first: int64, shape (followers + 1,).
    """

    contexts: IntArray
    starts: IntArray
    tokens: IntArray
    cumulated: IntArray

    @classmethod
    def of(cls, contexts: IntArray, tokens: IntArray) -> Counts:
        """Count pairs of a context's key and the token after it."""
        order = np.lexsort((tokens, contexts))
        contexts, tokens = contexts[order], tokens[order]
        new_context = np.append(True, contexts[1:] != contexts[:-1])
        first = np.flatnonzero(new_context | np.append(True, tokens[1:] != tokens[:-1]))
        return cls(
            contexts[new_context],
            np.append(np.flatnonzero(new_context[first]), len(first)),
            tokens[first],
            np.append(first, len(tokens)),
        )

    def rows(self, keys: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
        """Where the contexts with these keys are, and which of them have been seen."""
        row = np.minimum(np.searchsorted(self.contexts, keys), len(self.contexts) - 1)
        return row, self.contexts[row] == keys


class Ngram(LanguageModel):
    """An interpolated n-gram model (Witten-Bell).

    Args:
        counts: for contexts of 0, 1, ..., order - 1 tokens.
        vocabulary: the tokens; the key of a context counts the beginning of a line as one token more.
    """

    def __init__(self, counts: Sequence[Counts], vocabulary: Vocabulary) -> None:
        self.counts, self.vocabulary = list(counts), vocabulary
        self.order = len(self.counts)
        # Every context ends in the law without context, the only one with followers by the ten thousand.
        self._unigram = np.zeros(len(vocabulary))
        self._unigram += self._add(self._unigram, 0, 0, 1.0) / len(vocabulary)

    @classmethod
    def fit(cls, lines: Sequence[Sequence[int]], vocabulary: Vocabulary, order: int) -> Ngram:
        """Count the n-grams of token strings (without their end of sequence), n = 1 ... order."""
        lengths = np.array([len(line) for line in lines]) + 1
        padding = order - 1
        total = int(lengths.sum()) + padding * len(lines)
        ends = np.cumsum(lengths + padding)
        stream = np.full(total, len(vocabulary), np.int64)
        inside = np.ones(total, bool)
        for shift in range(padding):
            inside[ends - lengths - padding + shift] = False
        stream[inside] = np.concatenate(
            [np.append(np.asarray(line, np.int64), vocabulary.eos) for line in lines]
        )
        places = np.flatnonzero(inside)
        counts = []
        for length in range(order):
            keys = np.zeros(len(places), np.int64)
            for back in range(length, 0, -1):
                keys = keys * (len(vocabulary) + 1) + stream[places - back]
            counts.append(Counts.of(keys, stream[places]))
        return cls(counts, vocabulary)

    def _keys(self, prefixes: IntArray, length: int) -> IntArray:
        """Keys of the last `length` tokens of prefixes (batch, t), padded with beginnings of the line."""
        beginning = np.full((len(prefixes), length), len(self.vocabulary), np.int64)
        context = np.concatenate([beginning, prefixes], axis=1)[:, prefixes.shape[1] :]
        keys = np.zeros(len(prefixes), np.int64)
        for column in range(length):
            keys = keys * (len(self.vocabulary) + 1) + context[:, column]
        return keys

    def _add(self, p: FloatArray, length: int, row: int, left: float) -> float:
        """Add a context's own share of the probability `left` to p; what is left for shorter contexts."""
        counts = self.counts[length]
        start, stop = int(counts.starts[row]), int(counts.starts[row + 1])
        cumulated = counts.cumulated[start : stop + 1]
        whole = int(cumulated[-1] - cumulated[0]) + stop - start
        p[counts.tokens[start:stop]] += (cumulated[1:] - cumulated[:-1]) * (left / whole)
        return left * (stop - start) / whole

    def _probabilities(self, prefix: Sequence[int]) -> FloatArray:
        """P(v | the last order - 1 tokens of prefix)."""
        prefixes = np.asarray([prefix], np.int64).reshape(1, -1)
        found: list[tuple[int, int]] = []
        for length in range(1, self.order):
            row, seen = self.counts[length].rows(self._keys(prefixes, length))
            if not seen[0]:
                break  # a longer context cannot have been seen either
            found.append((length, int(row[0])))
        p = np.zeros(len(self.vocabulary))
        left = 1.0
        for length, place in reversed(found):
            left = self._add(p, length, place, left)
        p += left * self._unigram
        return p

    def log_probabilities(self, prefix: Sequence[int]) -> FloatArray:
        """Log P(v | the last order - 1 tokens of prefix): float64, shape (vocabulary,)."""
        result: FloatArray = np.log(self._probabilities(prefix))
        return result

    def log_probabilities_of(self, tokens: IntArray, prefix: Sequence[int]) -> FloatArray:
        """See `LanguageModel.log_probabilities_of`; takes the logarithm of the asked ones alone."""
        result: FloatArray = np.log(self._probabilities(prefix)[tokens])
        return result

    def sample_next(self, prefixes: IntArray, rng: np.random.Generator) -> IntArray:
        """Next tokens of prefixes (batch, t), drawn by backing off: all rows of an order at once."""
        drawn = rng.integers(len(self.vocabulary), size=len(prefixes))
        pending = np.arange(len(prefixes))
        for length in range(self.order - 1, -1, -1):
            counts = self.counts[length]
            row, seen = counts.rows(self._keys(prefixes[pending], length))
            start, stop = counts.starts[row], counts.starts[row + 1]
            count = counts.cumulated[stop] - counts.cumulated[start]
            stays = seen & (rng.random(len(pending)) * (count + stop - start) < count)
            place = counts.cumulated[start] + (rng.random(len(pending)) * count).astype(np.int64)
            follower = np.searchsorted(counts.cumulated, place, side="right") - 1
            drawn[pending[stays]] = counts.tokens[follower[stays]]
            pending = pending[~stays]
        return drawn


@cache
def source_lines() -> tuple[str, ...]:
    """Lines of the standard library's sources, stripped, without blank lines and comments.

    Raises:
        MissingData: this Python has no sources of its standard library.
    """
    text = corpus(STANDARD_LIBRARY).numpy().tobytes().decode(errors="replace")
    stripped = (line.strip() for line in text.split("\n"))
    return tuple(line for line in stripped if line and not line.startswith("#"))


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def source_tokenizer(entries: int, directory: Path | None = None, start: str = "") -> Any:
    """A byte-level BPE `tokenizers.Tokenizer` with `entries` entries, trained on `source_lines` and cached.

    Args:
        entries: of the vocabulary.
        directory: of the cache; default `harness.cache.default_directory`.
        start: only lines that start with it.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    lines = [line for line in source_lines() if line.startswith(start)]

    def train(path: Path) -> None:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.train_from_iterator(
            lines, trainers.BpeTrainer(vocab_size=entries, initial_alphabet=alphabet, show_progress=False)
        )
        tokenizer.save(str(path))

    recipe = {"entries": entries, "lines": _digest(lines)}
    return Tokenizer.from_file(str(store.artefact("source-bpe", recipe, train, directory)))


def byte_level_vocabulary(tokenizer: Any) -> Vocabulary:
    """The tokens of a byte-level BPE, and one id more for the end of sequence."""
    printable = {code: chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))}
    others = [code for code in range(256) if code not in printable]
    byte_of = {character: code for code, character in printable.items()}
    byte_of |= {chr(256 + place): code for place, code in enumerate(others)}
    size = tokenizer.get_vocab_size()
    names = (tokenizer.id_to_token(token) for token in range(size))
    return Vocabulary((*[bytes(byte_of[c] for c in name) for name in names], b""), eos=size)


def source_ngram(
    order: int, entries: int = 32768, start: str = "", *, distinct: bool = False, directory: Path | None = None
) -> Ngram:
    """An n-gram model of the standard library's lines, trained once and cached.

    Args:
        order: n, at most 4.
        entries: of the BPE vocabulary.
        start: only lines that start with it.
        distinct: count every distinct line once.
        directory: of the cache; default `harness.cache.default_directory`.
    """
    if not 1 <= order <= 4:
        raise ValueError(f"the order of the n-gram model is 1 to 4, not {order}")
    tokenizer = source_tokenizer(entries, directory)
    vocabulary = byte_level_vocabulary(tokenizer)
    lines = [line for line in source_lines() if line.startswith(start)]
    if distinct:
        lines = list(dict.fromkeys(lines))
    names = ("contexts", "starts", "tokens", "cumulated")

    def count(path: Path) -> None:
        encoded = [encoding.ids for encoding in tokenizer.encode_batch_fast(lines)]
        model = Ngram.fit(encoded, vocabulary, order)
        arrays = {f"{name}{k}": getattr(c, name) for k, c in enumerate(model.counts) for name in names}
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    recipe = {"order": order, "entries": entries, "lines": _digest(lines), "bpe": _digest(source_lines())}
    with np.load(store.artefact("source-ngram", recipe, count, directory), allow_pickle=False) as arrays:
        counts = [Counts(*(arrays[f"{name}{k}"] for name in names)) for k in range(order)]
    return Ngram(counts, vocabulary)
