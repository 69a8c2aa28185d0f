"""The regression that trains a network on a path."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import Tensor

from interpolants import Path
from interpolants.coefficient import Coefficient, at, check_interval
from interpolants.quantities import check_quantity
from interpolants.time_density import TimeDensity, importance_sampled, uniform
from interpolants.weights import WeightLike, choose
from training.fields import Labels, as_labels, require_data_at_one

MAX_NOISE: Final = 2.6
"""Largest root mean square of the weight of the error over times, in units of its mean, where a pole is near."""

MAX_CUT: Final = 1e-3
"""Largest part of the times at an end that is left out for it."""


class InterpolantLoss:
    r"""Squared error of a prediction, measured in the space of any quantity:

    .. math:: \mathbb E \, w(t) \,
        \| b(t) \, \mathrm{model}(x_t, t) - p(t) \, \mathrm{data} - q(t) \, \mathrm{noise} \|^2 / d

    where b is the coefficient that converts the prediction to ``space``, and p and q are the row of the prediction
    times b, so that a predicted score is trained in the noise's space with b = -sigma, p = 0, q = 1 and meets no pole.
    The expectation is over t too, of density ``time``.

    Args:
        path: Data at t = 1.
        prediction: What the network predicts.
        space: In which quantity the error is measured; None is the prediction's own, but the noise's for a score, whose
            own error is unbounded at the data end (denoising score matching weighted by sigma^2).
        interval: Times lie in it. None is [0, 1] unless b, p, q or w has a pole at an end. What is left out there, at
            most 0.001 unless one of b, p, q and the square root of w exceeds 1,000 before that, makes the root mean
            square of the weight of the error, w (p^2 + q^2), over the times that are drawn, at most 2.6 times its mean:
            else rare times near the pole would make the loss noisy. For a velocity on VP that is about 1e-5, as in the
            official release.
        time: The density of t; what of it lies outside the interval is cut off, and the rest normalised. None is
            uniform on the interval.
        weight: w: from ``interpolants.weights``, or its name, which say whose error they multiply, whatever the
            network predicts; or text, sympy in ``interpolants.t`` or a number, which multiply that of ``space``. None
            is 1.
        proposal: The density that t is drawn from where it is not ``time``: the loss of a sample is then multiplied by
            time / proposal, which leaves its expectation as it is. ``time_density.optimal`` gives one.
        time_steps: Times are rounded down to multiples of 1 / time_steps, as in DDPM, whose 1,000 are 0, 0.001, ...,
            0.999; None leaves them continuous.

    Attributes:
        time, proposal: The two densities, on the interval.
        weight: w, the Coefficient of the squared error in the space in which it is evaluated, or None.

    Raises:
        ValueError: If a quantity or weight is unknown, the interval is not inside [0, 1] or has no time in common with
            the densities, ``proposal`` does not cover ``time``, ``space`` is given with a weight that has its own, or
            times are rounded out of the interval or with a ``proposal``.
    """

    def __init__(
        self,
        path: Path,
        prediction: str = "velocity",
        space: str | None = None,
        interval: tuple[float, float] | None = None,
        time: TimeDensity | None = None,
        weight: WeightLike | None = None,
        proposal: TimeDensity | None = None,
        time_steps: int | None = None,
    ) -> None:
        check_quantity(prediction, "InterpolantLoss: prediction")
        require_data_at_one(path, "InterpolantLoss")
        self.path, self.prediction = path, prediction
        choice = choose(weight) if weight is not None else None
        own = choice.space if choice is not None else None
        if own is not None and space is not None:
            raise ValueError(
                f"InterpolantLoss: space must be None with a weight of the error of the {own}, got {space!r}. "
                "It is the weight that says whose error it multiplies."
            )
        # The network's own error, or that of the noise for a score, is the one whose terms have the fewest poles.
        usual = "noise" if prediction == "score" else prediction
        self.space = space or own or usual
        check_quantity(self.space, "InterpolantLoss: space")
        evaluated = usual if own is not None else self.space
        self._terms = path.error_terms(prediction, space=evaluated)
        self.weight: Coefficient | None = None
        if choice is not None:
            self.weight = path.weight(choice, evaluated)
        self.interval = interval or self._default_interval(uniform() if time is None else time, proposal)
        check_interval(self.interval, "InterpolantLoss: interval")
        self._is_uniform = time is None
        self.time = uniform(*self.interval) if time is None else time.truncated(*self.interval)
        self.proposal = proposal.truncated(*self.interval) if proposal is not None else None
        self.time_steps = time_steps
        if time_steps is not None:
            self._check_rounded(time_steps)
        if self.proposal is not None:
            self._importance = importance_sampled(torch.ones_like, self.time, self.proposal)[1]

    def _default_interval(self, density: TimeDensity, proposal: TimeDensity | None) -> tuple[float, float]:
        low, high = self.path.interval(*self._terms)
        if self.weight is not None:
            start, stop = self.path.interval(self.weight, max_gain=1e6)  # 1,000^2: a weight is of squares
            low, high = max(low, start), min(high, stop)
        if (low, high) == (0.0, 1.0):
            return low, high

        def moments(time: Tensor) -> Tensor:
            """Of the times that are drawn, of the loss, and of its square; shape (3, *time.shape)."""
            _, p, q = (c.kernel(time) for c in self._terms)
            loss = (p**2 + q**2) * (1.0 if self.weight is None else self.weight.kernel(time)) * density(time)
            drawn = density(time) if proposal is None else proposal(time)
            return torch.stack([drawn, loss, loss**2 / drawn.clamp(min=torch.finfo(drawn.dtype).tiny)])

        return _steady(moments, low, high)

    def _check_rounded(self, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"InterpolantLoss: time_steps must be at least 1, or None, got {steps!r}.")
        if self.proposal is not None:
            raise ValueError("InterpolantLoss: time_steps must be None with a proposal, whose times are continuous.")
        low = self.interval[0]
        if math.floor(low * steps) / steps < low:
            raise ValueError(
                f"InterpolantLoss: with time_steps the interval must start at a multiple of 1 / {steps}, got {low!r}."
            )

    def __call__(
        self,
        model: Callable[..., Tensor],
        data: Tensor,
        y: Labels | None = None,
        *,
        noise: Tensor | None = None,
        t: Tensor | None = None,
    ) -> Tensor:
        """The loss of each sample, at a random time and with random noise from torch's default generator.

        Args:
            model: Called as ``model(x, t, y)``, or ``model(x, t)`` where y is None.
            data: Shape (batch, ...), floating point.
            y: Labels, shape (batch,), or None.
            noise: Drawn already, the shape of ``data``.
            t: Drawn already, by ``sample_times``; shape (batch,).

        Returns:
            Weighted mean squared error over the dimensions of each sample, shape (batch,).
        """
        noise = torch.randn_like(data) if noise is None else noise
        t = self.sample_times(data) if t is None else t
        loss = self.at(model, data, noise, t, as_labels(y, data))
        return loss if self.proposal is None else loss * self._importance(t).to(loss.dtype)

    def sample_times(self, data: Tensor) -> Tensor:
        """A time for each sample, from ``proposal`` or else ``time``, rounded where asked, from torch's default
        generator: shape (batch,), float32 or the wider dtype of ``data``.
        """
        low, high = self.interval
        dtype = torch.promote_types(data.dtype, torch.float32)
        if self.proposal is not None or not self._is_uniform:
            t = (self.proposal or self.time).sample(data.shape[0], dtype=dtype, device=data.device)
        else:
            t = low + (high - low) * torch.rand(data.shape[0], dtype=dtype, device=data.device)
        return t if self.time_steps is None else (t * self.time_steps).floor() / self.time_steps

    def at(
        self, model: Callable[..., Tensor], data: Tensor, noise: Tensor, t: Tensor, y: Tensor | None = None
    ) -> Tensor:
        """The loss of each sample at given noise and times, whatever their density; shapes as in ``__call__``."""
        x_t = self.path.interpolate(data, noise, t)
        prediction = model(x_t, t) if y is None else model(x_t, t, y)
        if prediction.shape != data.shape:
            raise ValueError(
                f"InterpolantLoss: the network must return the shape of data, {tuple(data.shape)}, "
                f"got {tuple(prediction.shape)}."
            )
        b, p, q = at(self._terms, t, data)
        error = b * prediction - p * data - q * noise
        squared = error.square() if self.weight is None else at((self.weight,), t, data)[0] * error.square()
        return squared.flatten(1).mean(1)


def _steady(moments: Callable[[Tensor], Tensor], low: float, high: float) -> tuple[float, float]:
    """The part of [low, high] on which the root mean square of the loss is at most MAX_NOISE times its mean.

    At an end that is not that of [0, 1] a distance to it is left out: the same at both ends, and at most MAX_CUT.
    """
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(8))

    def integrals(edges: Tensor, time: Callable[[Tensor], Tensor], speed: Callable[[Tensor], Tensor]) -> Tensor:
        """Of the moments over each cell between ``edges`` in u, where dt = speed(u) du; shape (3, cells)."""
        half = edges.diff()[:, None] / 2
        u = edges[:-1, None] + half * (1 + nodes)
        return (moments(time(u)) * speed(u) * half) @ weights

    distances = {0: low, 1: 1 - high}
    start, stop = (max(low, MAX_CUT) if low > 0 else 0.0), (min(high, 1 - MAX_CUT) if high < 1 else 1.0)
    middle = integrals(torch.linspace(start, stop, 1025, dtype=torch.float64), lambda u: u, torch.ones_like)
    nearest = min(distance for distance in distances.values() if distance > 0)
    cuts = torch.from_numpy(np.geomspace(MAX_CUT, min(nearest, MAX_CUT), 129))  # from which one is chosen
    total = torch.cat([middle.sum(1, keepdim=True), torch.zeros(3, len(cuts) - 1, dtype=torch.float64)], dim=1)
    for end, distance in distances.items():
        if distance > 0:
            inner = cuts.clamp(min=distance).log()  # cells nearer to the end than its distance have no width
            total[:, 1:] -= integrals(inner, torch.exp if end == 0 else (lambda u: 1 - u.exp()), torch.exp)
    drawn, loss, square = total.cumsum(1)
    steady = square * drawn <= (MAX_NOISE * loss) ** 2
    cut = float(cuts[max(0, int(steady.long().cumprod(0).sum()) - 1)])
    return (max(low, cut) if low > 0 else 0.0), (min(high, 1 - cut) if high < 1 else 1.0)
