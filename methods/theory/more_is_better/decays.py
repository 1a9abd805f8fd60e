"""Two ways of measuring how a kernel's eigenvalues and a target's coefficients decay."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from methods.theory.more_is_better import samples
from methods.theory.more_is_better.work import Array, Decays, ExponentWork


def proxy_curves(train: Tensor, test: Tensor, y: Tensor, y_test: Tensor, sizes: Array) -> tuple[Array, Array]:
    """(Tr K_n^{-1})^{-1} and the test MSE of ridgeless regression on the first n points, [p] each.

    With K = L L^T, the leading blocks of L and of L^{-1} are those of every K_n, so that one Cholesky
    factor serves all n: Tr K_n^{-1} is the squared norm of the leading block of L^{-1}, and the
    predictions are partial sums over j <= n of (L^{-1} K_{X,test})_j (L^{-1} y)_j.

    Args:
        train: K_{XX} [n, n].
        test: K_{test,X} [t, n].
        y: targets [n, c].
        y_test: targets [t, c].
        sizes: the numbers of points, [p].
    """
    factor = torch.linalg.cholesky(train)
    inverse = torch.linalg.solve_triangular(factor, torch.eye(len(train)).to(factor), upper=False)
    # L^{-1} is lower triangular: its leading n x n block holds all of its first n rows.
    trace = inverse.square().sum(1).cumsum(0)
    whitened, coefficients = inverse @ test.T, inverse @ y
    errors, predicted, last = [], torch.zeros_like(y_test), 0
    for n in sizes.astype(int).tolist():
        predicted = predicted + whitened[last:n].T @ coefficients[last:n]
        errors.append(float((predicted - y_test).square().sum(1).mean()))
        last = n
    index = torch.from_numpy(sizes.astype(np.int64) - 1).to(trace.device)
    return (1 / trace[index]).cpu().numpy(), np.array(errors)


def spectrum_curves(train: Tensor, y: Tensor) -> tuple[Array, Array]:
    """Eigenvalues of K/n, and the target's power in all modes from i on, for i = 1..n, [n] each.

    Coefficients are (1/n)(sqrt(n) U)^T y; where their squares fall as i^-beta, the tails fall as i^(1 - beta).
    """
    n = len(train)
    values, vectors = torch.linalg.eigh(train)
    power = (vectors.T @ y).square().sum(1) / n
    return (values.flip(0) / n).cpu().numpy(), power.cumsum(0).flip(0).cpu().numpy()


def proxies(train: Tensor, test: Tensor, work: ExponentWork) -> Decays:
    """`proxy_curves` of the task's images for kernels [n, n] and [t, n]."""
    device = str(train.device)
    y, y_test = samples.tensor(work.trial.y, device), samples.tensor(work.trial.y_test, device)
    sizes = work.sizes.astype(np.float64)
    return Decays(sizes, *proxy_curves(train, test, y, y_test, sizes))
