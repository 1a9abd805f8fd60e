"""How much of the true attention an output over chosen keys holds, and at what share of the pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.errors import BadOutput
from harness.method import Metric
from methods.attention.block_sparse import attend_causal
from methods.attention.heads import KINDS
from methods.attention.layer_scores import checked
from methods.attention.work import Attended, Inputs, Prompt

PREFILL_SCORES = (
    Metric("mass_recall", doc="Share of a query's softmax mass on the keys attended to, over all queries."),
    Metric("least_mass_recall", doc="The same in the head where it is lowest."),
    Metric("density", better="lower", doc="Pairs attended to over all causal pairs; not those of the search."),
    Metric("density_std", better="neither", doc="Standard deviation of the density over the heads."),
    Metric(
        "relative_error", better="lower", doc="Frobenius norm of the output's error over that of the output."
    ),
    Metric("output_recall", doc="Share of the output's entries with an absolute error below 0.01."),
    Metric("fine_output_recall", doc="Share of the output's entries with an absolute error below 0.005."),
)

KINDS_SCORES = (
    Metric("vertical_mass_recall", doc="Mean over the vertical heads."),
    Metric("sharp_mass_recall", doc="Mean over the sharp heads."),
    Metric("slash_mass_recall", doc="Mean over the slash heads."),
    Metric("topic_mass_recall", doc="Mean over the topic heads."),
    Metric("vertical_density", better="lower", doc="Mean over the vertical heads."),
    Metric("sharp_density", better="lower", doc="Mean over the sharp heads."),
    Metric("slash_density", better="lower", doc="Mean over the slash heads."),
    Metric("topic_density", better="lower", doc="Mean over the topic heads."),
    Metric("vertical_output_recall", doc="Mean over the vertical heads."),
    Metric("sharp_output_recall", doc="Mean over the sharp heads."),
    Metric("slash_output_recall", doc="Mean over the slash heads."),
    Metric("topic_output_recall", doc="Mean over the topic heads."),
)

_NEAR, _NEARER = 0.01, 0.005


def densities(work: Inputs, output: Attended) -> Tensor:
    """Pairs attended to over all causal pairs, float64, shape (heads,), on the CPU."""
    heads, n, _ = work.q.shape
    if output.pairs is None:
        return torch.ones(heads, dtype=torch.float64)
    if output.pairs.shape != (heads,):
        raise BadOutput(f"pairs have shape {tuple(output.pairs.shape)}, not {(heads,)}")
    return output.pairs.cpu().double() / (n * (n + 1) / 2)


def prefill_scores(work: Inputs, output: Attended) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The metrics `PREFILL_SCORES` and, of some, their values for each head, float64, (heads,), on the CPU.

    The softmax mass that the keys attended to have of a query is exp(lse - exact lse), whatever those keys are.

    Raises:
        BadOutput: the output has the wrong shape, is not finite, or lacks the log-sum-exp.
    """
    checked(work, output)
    if output.pairs is not None and output.lse is None:
        raise BadOutput("an output over some of the keys needs its log-sum-exp")
    density = densities(work, output)
    each: dict[str, list[float]] = {
        name: [] for name in ("mass_recall", "output_recall", "fine_output_recall", "error", "size")
    }
    device = output.out.device
    for head in range(len(work.q)):
        q, k, v = (x[None].to(device).float() for x in _head(work, head))
        exact = attend_causal(q, k, v, scale=work.scale)
        error = output.out[head].float() - exact.out[0]
        mass = 1.0
        if output.lse is not None:
            mass = float((output.lse[head] - exact.lse[0]).exp().clamp(max=1.0).double().mean())
        each["mass_recall"].append(mass)
        each["output_recall"].append(float((error.abs() < _NEAR).double().mean()))
        each["fine_output_recall"].append(float((error.abs() < _NEARER).double().mean()))
        each["error"].append(float(error.double().square().sum()))
        each["size"].append(float(exact.out.double().square().sum()))
    values = {name: torch.tensor(x, dtype=torch.float64) for name, x in each.items()} | {"density": density}
    scores = {
        "mass_recall": float(values["mass_recall"].mean()),
        "least_mass_recall": float(values["mass_recall"].min()),
        "density": float(density.mean()),
        "density_std": float(density.std(correction=0)),
        "relative_error": float((values["error"].sum() / values["size"].sum()).sqrt()),
        "output_recall": float(values["output_recall"].mean()),
        "fine_output_recall": float(values["fine_output_recall"].mean()),
    }
    return scores, values


def _head(work: Inputs, head: int) -> tuple[Tensor, Tensor, Tensor]:
    return work.q[head], work.k[head // work.group], work.v[head // work.group]


def kinds_scores(work: Inputs, output: Attended, kinds: Sequence[str]) -> dict[str, float]:
    """The metrics `PREFILL_SCORES` and `KINDS_SCORES`; `kinds` are those of all key heads, all four among them."""
    scores, each = prefill_scores(work, output)
    of_head = [kind for kind in kinds for _ in range(work.group)]
    for kind in KINDS:
        mine = torch.tensor([k == kind for k in of_head])
        for name in ("mass_recall", "density", "output_recall"):
            scores[f"{kind}_{name}"] = float(each[name][mine].mean())
    return scores


def needle_scores(work: Prompt, output: Attended) -> dict[str, float]:
    """``accuracy``: share of the asking rows whose output is nearest to their word's value; and ``density``."""
    if output.out.shape != work.q.shape:
        raise BadOutput(f"the output has shape {tuple(output.out.shape)}, not {tuple(work.q.shape)}")
    head = torch.arange(len(work.asking))[:, None]
    found = (output.out.cpu()[head, work.asking].float() @ work.codebook.T).argmax(-1)
    return {
        "accuracy": float((found == work.answers).float().mean()),
        "density": float(densities(work, output).mean()),
    }
