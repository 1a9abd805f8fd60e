"""Latency samples in long form: one row per sample."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.record import Record

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Samples:
    """The latency samples of many records, gathered compactly."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._counts = array("q")
        self._seconds = array("d")
        self._blocks = array("q")  # blocks of each record
        self._launch, self._round, self._size = array("q"), array("q"), array("q")

    def add(self, record: Record) -> None:
        """Take the samples of a record in."""
        latency = record.latency
        taken = latency.samples if latency else []
        self._keys.append(record.key)
        self._counts.append(len(taken))
        self._seconds.extend(taken)
        blocks = latency.blocks if latency else None
        if blocks is None or sum(blocks.size) != len(taken):  # a single run is in no block
            self._blocks.append(1)
            launch, rounds, size = [0], [0], [len(taken)]
        else:
            self._blocks.append(len(blocks.size))
            launch, rounds, size = blocks.launch, blocks.round, blocks.size
        self._launch.extend(launch)
        self._round.extend(rounds)
        self._size.extend(size)

    @staticmethod
    def schema() -> pa.Schema:
        """The columns."""
        import pyarrow as pa

        return pa.schema(
            [
                ("key", pa.dictionary(pa.int32(), pa.string())),
                ("run", pa.int32()),
                ("launch", pa.int32()),
                ("round", pa.int32()),
                ("seconds", pa.float64()),
            ]
        )

    def tables(self, batch: int) -> Iterator[tuple[int, pa.Table]]:
        """The samples of `batch` records at a time, each table with the number of its first record."""
        import numpy as np
        import pyarrow as pa

        counts, blocks = _numbers(self._counts), _numbers(self._blocks)
        sizes, launch, rounds = _numbers(self._size), _numbers(self._launch), _numbers(self._round)
        ends = np.concatenate([[0], np.cumsum(counts)])
        last_block = np.concatenate([[0], np.cumsum(blocks)])
        for start in range(0, max(len(self._keys), 1), batch):
            keys, many = self._keys[start : start + batch], counts[start : start + batch]
            stop = start + len(keys)
            low, high = ends[start], ends[stop]
            here = slice(last_block[start], last_block[stop])
            columns = [
                pa.DictionaryArray.from_arrays(
                    pa.array(np.repeat(np.arange(len(keys), dtype=np.int32), many)), pa.array(keys, pa.string())
                ),
                pa.array((np.arange(low, high) - np.repeat(ends[start:stop], many)).astype(np.int32)),
                pa.array(np.repeat(launch[here], sizes[here]).astype(np.int32)),
                pa.array(np.repeat(rounds[here], sizes[here]).astype(np.int32)),
                pa.array(np.array(self._seconds[low:high], dtype=np.float64)),
            ]
            yield start, pa.table(columns, schema=self.schema())


def _numbers(values: array[int]) -> np.ndarray:
    import numpy as np

    return np.array(values, dtype=np.int64)
