"""What the work of an attention kernel cannot do without: arithmetic, and memory traffic.

A kernel is as good as it can be when it takes no longer than the larger of `flops` over the machine's peak rate of
matrix products and `bytes` over its memory bandwidth. docs/studies/attention_floors.py measures both rates and
how far the kernels are from that time.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.method import Metric

FLOOR = (
    Metric(
        "floor_flops",
        unit="FLOP",
        better="lower",
        doc="Multiplications and additions of the matrix products that the method needs.",
        deterministic=True,
    ),
    Metric(
        "floor_bytes",
        unit="B",
        better="lower",
        doc="Inputs read once and outputs written once.",
        deterministic=True,
    ),
)


@dataclass(frozen=True)
class Floor:
    """Least work: multiplications and additions, and bytes read and written."""

    flops: float
    bytes: float

    def seconds(self, peak_flops: float, bandwidth: float) -> float:
        """The least time at `peak_flops` FLOP/s and `bandwidth` B/s, both overlapping."""
        return max(self.flops / peak_flops, self.bytes / bandwidth)

    def metrics(self) -> dict[str, float]:
        """As the metrics of `FLOOR`."""
        return {"floor_flops": float(self.flops), "floor_bytes": float(self.bytes)}


def attention_floor(
    pairs: float, queries: int, keys: int, head_dim: int, itemsize: int, value_dim: int | None = None
) -> Floor:
    """Of attention that computes `pairs` scores.

    Args:
        pairs: (query, key) pairs over all heads: 2 d FLOPs each for the score, 2 d_v for the weighted sum.
        queries, keys: over all heads, each read once; the output is written once.
        head_dim: d.
        itemsize: bytes of a number.
        value_dim: d_v; default d.
    """
    dv = value_dim or head_dim
    return Floor(2 * pairs * (head_dim + dv), (queries + keys) * (head_dim + dv) * itemsize)
