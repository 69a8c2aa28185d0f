"""The regression that trains a network on a path."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from interpolants import Path
from interpolants.coefficient import at
from interpolants.quantities import check_quantity
from training.fields import require_data_at_one


class InterpolantLoss:
    r"""Squared error of a prediction, measured in the space of any quantity:

    .. math:: \mathbb E \, \| b(t) \, \mathrm{model}(x_t, t) - p(t) \, \mathrm{data} - q(t) \, \mathrm{noise} \|^2 / d

    where b is the coefficient that converts the prediction to ``space``, and p and q are the row of the prediction
    times b, so that a predicted score is trained in the noise's space with b = -sigma, p = 0, q = 1 and meets no pole.

    Args:
        path: Data at t = 1.
        prediction: What the network predicts.
        space: In which quantity the error is measured; None is the prediction's own, but the noise's for a score, whose
            own error is unbounded at the data end (denoising score matching weighted by sigma^2).
        interval: Times are uniform on it; None is the longest part of [0, 1] on which b, p and q are bounded, or at
            most 1,000 next to a pole.

    Raises:
        ValueError: If a quantity is unknown, or the interval is not inside [0, 1].
    """

    def __init__(
        self,
        path: Path,
        prediction: str = "velocity",
        space: str | None = None,
        interval: tuple[float, float] | None = None,
    ) -> None:
        check_quantity(prediction, "InterpolantLoss: prediction")
        require_data_at_one(path, "InterpolantLoss")
        self.path, self.prediction = path, prediction
        self.space = space or ("noise" if prediction == "score" else prediction)
        check_quantity(self.space, "InterpolantLoss: space")
        self._terms = path.error_terms(prediction, space=self.space)
        self.interval = interval or path.interval(*self._terms)
        if not 0.0 <= self.interval[0] < self.interval[1] <= 1.0:
            raise ValueError(f"InterpolantLoss: interval must be inside [0, 1] and not empty, got {self.interval!r}.")

    def __call__(self, model: Callable[..., Tensor], data: Tensor, y: Tensor | None = None) -> Tensor:
        """The loss of each sample, at a random time and with random noise from torch's default generator.

        Args:
            model: Called as ``model(x, t, y)``, or ``model(x, t)`` where y is None.
            data: Shape (batch, ...), floating point.
            y: Labels, shape (batch,), or None.

        Returns:
            Mean squared error over the dimensions of each sample, shape (batch,).
        """
        return self.at(model, data, torch.randn_like(data), self.sample_times(data), y)

    def sample_times(self, data: Tensor) -> Tensor:
        """A time for each sample, uniform on the interval, shape (batch,), float32 or the wider dtype of ``data``."""
        low, high = self.interval
        dtype = torch.promote_types(data.dtype, torch.float32)
        return low + (high - low) * torch.rand(data.shape[0], dtype=dtype, device=data.device)

    def at(
        self, model: Callable[..., Tensor], data: Tensor, noise: Tensor, t: Tensor, y: Tensor | None = None
    ) -> Tensor:
        """The loss of each sample at given noise and times; shapes as in ``__call__``."""
        x_t = self.path.interpolate(data, noise, t)
        prediction = model(x_t, t) if y is None else model(x_t, t, y)
        if prediction.shape != data.shape:
            raise ValueError(
                f"InterpolantLoss: the network must return the shape of data, {tuple(data.shape)}, "
                f"got {tuple(prediction.shape)}."
            )
        b, p, q = at(self._terms, t, data)
        error = b * prediction - p * data - q * noise
        return error.square().flatten(1).mean(1)
