"""An adaptive Runge-Kutta method in which every sample has its own steps, so that none depends on its neighbours.

torchdiffeq's error norm is over the whole batch: a sample there takes the steps of the most difficult one beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

Drift = Callable[[Tensor, Tensor, Tensor], Tensor]
"""drift(t, x, rows): of the samples number ``rows``, times of shape (rows,)."""


@dataclass(frozen=True)
class Tableau:
    """An embedded pair whose last stage is the first of the next step; ``error`` is its weights less the other's."""

    order: int
    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]


TABLEAUS: Final = {
    # Dormand & Prince (1980), doi:10.1016/0771-050X(80)90013-3
    "dopri5": Tableau(
        order=5,
        nodes=(1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
        stages=(
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        error=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    ),
    # Bogacki & Shampine (1989), doi:10.1016/0893-9659(89)90079-7
    "bosh3": Tableau(
        order=3,
        nodes=(1 / 2, 3 / 4, 1.0),
        stages=((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    ),
}


def integrate_each(
    drift: Drift,
    x: Tensor,
    start: float,
    stop: float,
    method: str,
    rtol: float,
    atol: float,
    starts: Callable[[int, Tensor, Tensor], None] = lambda step, t, x: None,
    max_calls: int | None = None,
) -> Tensor:
    """The solution of dx = drift dt at ``stop``, each sample by steps of its own; those that arrived are not computed.

    Args:
        drift: Of a part of the samples at a time each.
        x: The states at ``start``, shape (batch, ...).
        start, stop: ``stop`` may be below ``start``.
        method: Of ``TABLEAUS``.
        rtol, atol: A step is accepted if the root mean square over a sample of error / (atol + rtol |x|) is below 1.
        starts: Told the number of each step, the least of the times, and the states.
        max_calls: Most calls of the drift; None sets no bound.

    Raises:
        ValueError: If a sample does not arrive.
    """
    tableau, x = TABLEAUS[method], x.clone()
    rows = torch.arange(len(x), device=x.device)
    t = torch.full((len(x),), start, dtype=torch.float64, device=x.device)
    slope = drift(t, x, rows)
    h = _first_step(drift, x, t, slope, stop - start, tableau.order, rtol, atol, rows)
    for step in itertools.count():
        if max_calls is not None and 2 + (step + 1) * len(tableau.nodes) > max_calls:
            raise ValueError(
                f"sampling: {method} must arrive with at most max_calls = {max_calls:,} calls of the network, and "
                f"{len(rows)} samples are in step {step + 1}, the first at t = {float(t[0]):.6g}. Raise max_calls, "
                "rtol and atol, or take a method of fixed steps."
            )
        starts(step, t.min() if stop > start else t.max(), x)
        last = (stop - t).abs() <= h.abs()
        h = torch.where(last, stop - t, h)
        state, slopes = x[rows], [slope]
        for node, weights in zip(tableau.nodes, tableau.stages, strict=True):
            time = torch.where(last & (node == 1.0), torch.full_like(t, stop), t + node * h)
            stage = state + _each(h, x) * _sum(weights, slopes)
            slopes.append(drift(time, stage, rows))
        error = _each(h, x) * _sum(tableau.error, slopes)
        size = _size(error, atol + rtol * torch.maximum(state.abs(), stage.abs()))
        accepted = size <= 1.0
        x[rows] = torch.where(_each(accepted, x), stage, state)
        slope = torch.where(_each(accepted, x), slopes[-1], slope)
        t = torch.where(accepted, t + h, t)
        growth = 0.9 * size.clamp(min=1e-10) ** (-1 / tableau.order)
        h = h * growth.clamp(0.2, 10.0).where(~accepted | (growth > 1.0), torch.ones_like(h))
        going = ~(accepted & last)
        if not bool(going.any()):
            break
        rows, t, h, slope = rows[going], t[going], h[going], slope[going]
    return x


def _first_step(
    drift: Drift, x: Tensor, t: Tensor, slope: Tensor, length: float, order: int, rtol: float, atol: float, rows: Tensor
) -> Tensor:
    """A guess from the size of the first two derivatives. Source: Hairer, Norsett & Wanner (1993), II.4."""
    scale = atol + rtol * x.abs()
    state, first = _size(x, scale), _size(slope, scale)
    sign, longest = (1.0 if length > 0 else -1.0), abs(length)
    h0 = torch.where((state < 1e-5) | (first < 1e-5), torch.full_like(t, 1e-6), 0.01 * state / first)
    h0 = sign * h0.clamp(max=longest)
    second = _size(drift(t + h0, x + _each(h0, x) * slope, rows) - slope, scale) / h0.abs()
    largest = torch.maximum(first, second)
    h1 = torch.where(largest <= 1e-15, (1e-3 * h0.abs()).clamp(min=1e-6), (0.01 / largest) ** (1 / order))
    return sign * torch.minimum(100 * h0.abs(), h1).clamp(max=longest)


def _size(values: Tensor, scale: Tensor) -> Tensor:
    """The root mean square of values / scale over each sample, in float64."""
    return (values / scale).flatten(1).double().square().mean(1).sqrt()


def _each(values: Tensor, like: Tensor) -> Tensor:
    """One number a sample, shaped to multiply states."""
    shaped = values.reshape(-1, *(1,) * (like.dim() - 1))
    return shaped if shaped.dtype == torch.bool else shaped.to(like.dtype)


def _sum(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight != 0.0:
            total = total.add_(slope, alpha=weight)
    return total
