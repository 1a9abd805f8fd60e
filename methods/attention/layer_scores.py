"""How far a layer's output, and its gradients, are from exact attention."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.errors import BadOutput
from harness.method import Metric
from methods.attention.error import exact_lse, exact_rows, spectral_norm
from methods.attention.work import Attended, Inputs

SCORES = (
    Metric(
        "operator_error",
        better="lower",
        doc="Operator norm of the error over those of the softmax matrix and of V.",
    ),
    Metric(
        "relative_error",
        better="lower",
        doc="Frobenius norm of the error over that of the output; above 1 is common when V has mean zero.",
    ),
    Metric("softmax_norm", better="neither", doc="Operator norm of the softmax matrix."),
    Metric("alpha", better="neither", doc="n times the largest squared column norm of the softmax matrix."),
)


def checked(work: Inputs, output: Attended) -> None:
    """Raises:
    BadOutput: the output does not have the shape of the queries, or is not finite.
    """
    if output.out.shape != work.q.shape:
        raise BadOutput(f"the output has shape {tuple(output.out.shape)}, not {tuple(work.q.shape)}")
    if not bool(output.out.isfinite().all()):
        raise BadOutput("the output is not finite everywhere")


def layer_scores(work: Inputs, output: Attended) -> dict[str, float]:
    """`SCORES`, means over the heads, and ``gradient_error`` where the work asks for gradients.

    Raises:
        BadOutput: the output or its gradients are missing, not finite, or of the wrong shape.
    """
    checked(work, output)
    each = [_of_head(work, output, head) for head in range(len(work.q))]
    return {name: sum(head[name] for head in each) / len(each) for name in each[0]}


def exact_log_sums(work: Inputs, device: torch.device) -> Tensor:
    """Log row sums of exp(scaled scores) at the scored rows, for methods that estimate them: (heads, rows)."""
    keys = work.k.to(device).repeat_interleave(work.group, 0)
    heads = zip(work.q.to(device), keys, strict=True)
    rows = work.rows.to(device)
    return torch.stack([exact_lse(q, k, rows, causal=work.causal, scale=work.scale) for q, k in heads])


def _of_head(work: Inputs, output: Attended, head: int) -> dict[str, float]:
    device = output.out.device
    shared = head // work.group
    q, k, v, rows = (x.to(device) for x in (work.q[head], work.k[shared], work.v[shared], work.rows))
    up = None if work.upstream is None else work.upstream[head].to(device)
    exact = exact_rows(q, k, v, rows, causal=work.causal, scale=work.scale, upstream=up)
    error = output.out[head, rows].float() - exact.out
    stretch = (len(q) / len(rows)) ** 0.5
    scores = {
        "operator_error": spectral_norm(error) * stretch / (exact.norm * spectral_norm(v.float())),
        "relative_error": float(error.norm() / exact.out.norm()),
        "softmax_norm": exact.norm,
        "alpha": exact.alpha,
    }
    if exact.query_gradient is None:
        return scores
    if output.gradients is None:
        raise BadOutput("the gradients are missing")
    if not all(bool(g.isfinite().all()) for g in output.gradients):
        raise BadOutput("a gradient is not finite everywhere")
    difference = output.gradients[0][head, rows].float() - exact.query_gradient
    return scores | {"gradient_error": float(difference.norm() / exact.query_gradient.norm())}
