"""One layer of attention to a trained prefix, and its neural tangent kernel.

F(x) = sum_r p_r(x) v_r with p(x) = softmax of q . k_r / sqrt(d), k_r = P_r W_K, v_r = P_r W_V, q = x W_Q: an
input attends to the prefix P, shape (m, d), alone, as in the paper's analysis. Gradient descent on P moves F
along the kernel H = (dF/dP) (dF/dP)^T. For P ~ N(0, I) and m to infinity, m H tends to `infinite_kernel`; the
closer H is to it and the less it moves, the more training is that of a linear model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Regression:
    """Inputs, targets and the frozen layer.

    Attributes:
        x, y: shape (n, d).
        w_q, w_k, w_v: shape (d, d).
    """

    x: Tensor
    y: Tensor
    w_q: Tensor
    w_k: Tensor
    w_v: Tensor

    def to(self, device: str) -> Regression:
        """The same on `device`."""
        return Regression(*(t.to(device) for t in (self.x, self.y, self.w_q, self.w_k, self.w_v)))

    @property
    def slopes(self) -> Tensor:
        """kappa(x) = W_K (x W_Q) / sqrt(d), so that the score of P_r is kappa(x) . P_r: shape (n, d)."""
        return self.x @ self.w_q @ self.w_k.T * self.x.shape[1] ** -0.5


def attend_to(prefix: Tensor, work: Regression) -> Tensor:
    """F of all inputs: shape (n, d)."""
    return torch.softmax(work.slopes @ prefix.T, -1) @ (prefix @ work.w_v)


def tangent_kernel(prefix: Tensor, work: Regression) -> Tensor:
    """H at `prefix`, shape (n d, n d).

    From dF_i(x) / dP_r = p_r(x) ((v_r - F(x))_i kappa(x) + W_V[:, i]).
    """
    kappa, v = work.slopes, prefix @ work.w_v
    p = torch.softmax(kappa @ prefix.T, -1)
    n, (m, d) = len(kappa), prefix.shape
    from_scores = torch.einsum("xri,xc->xirc", v[None] - (p @ v)[:, None], kappa)
    jacobian = p[:, None, :, None] * (from_scores + work.w_v.T[None, :, None, :])
    flat = jacobian.reshape(n * d, m * d)
    return flat @ flat.T


def infinite_kernel(work: Regression) -> Tensor:
    """Limit of m H for P ~ N(0, I), shape (n d, n d).

    Weighted by p(x) p(y), P is N(kappa(x) + kappa(y), I) and the total weight exp(kappa(x) . kappa(y)) / m, and
    F(x) tends to W_V^T kappa(x). What is left are second moments: with a = kappa(x), b = kappa(y) and w_i =
    W_V[:, i],

        exp(a . b) ((1 + a . b) w_i . w_j + (2 + a . b) (b . w_i) (a . w_j)).
    """
    kappa, w = work.slopes, work.w_v
    n, d = kappa.shape
    dot = kappa @ kappa.T
    along = kappa @ w  # kappa(x) . w_i
    first = torch.einsum("xy,ij->xiyj", 1 + dot, w.T @ w)
    second = torch.einsum("xy,yi,xj->xiyj", 2 + dot, along, along)
    return (dot.exp()[:, None, :, None] * (first + second)).reshape(n * d, n * d)
