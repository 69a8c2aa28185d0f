"""The regression that trains a network on a path."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from interpolants import Path
from interpolants.coefficient import Coefficient, at
from interpolants.quantities import check_quantity
from interpolants.time_density import TimeDensity, importance_sampled, uniform
from interpolants.weights import WeightLike, choose
from training.fields import require_data_at_one


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
        interval: Times lie in it; None is the longest part of [0, 1] on which b, p, q and the square root of w are
            bounded, or at most 1,000 next to a pole.
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
        self.interval = interval or self._bounded()
        if not 0.0 <= self.interval[0] < self.interval[1] <= 1.0:
            raise ValueError(f"InterpolantLoss: interval must be inside [0, 1] and not empty, got {self.interval!r}.")
        self._is_uniform = time is None
        self.time = uniform(*self.interval) if time is None else time.truncated(*self.interval)
        self.proposal = proposal.truncated(*self.interval) if proposal is not None else None
        self.time_steps = time_steps
        if time_steps is not None:
            self._check_rounded(time_steps)
        if self.proposal is not None:
            self._importance = importance_sampled(torch.ones_like, self.time, self.proposal)[1]

    def _bounded(self) -> tuple[float, float]:
        low, high = self.path.interval(*self._terms)
        if self.weight is None:
            return low, high
        start, stop = self.path.interval(self.weight, max_gain=1e6)  # 1,000^2: a weight is of squares
        return max(low, start), min(high, stop)

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
        y: Tensor | None = None,
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
        loss = self.at(model, data, noise, t, y)
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
