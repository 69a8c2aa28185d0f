r"""A grid of times made for one network: many steps where its velocity bends along the trajectories, few elsewhere.

A step h of a method of order p errs in proportion to h^{p+1} |d^p v / dt^p|, the derivative along the trajectory. The
least sum of these errors has steps in proportion to that derivative to the power -1 / (p + 1). A few trajectories,
integrated once in many steps, show it: least squares fit a polynomial in time to the velocities along each, so that the
rounding errors of a network in float32 or bfloat16, which differences would multiply by N^p, stay small.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from interpolants import Path, time_grid
from interpolants.time_grid import FloatArray, TimeGrid
from training import multistep
from training.fields import Field

_DEGREE: Final = 20
_PLACES: Final = 1000


def fit_grid(field: Field, noise: Tensor, *, y: Tensor | None = None, order: int = 2, num_steps: int = 100) -> TimeGrid:
    """The grid of times for a network, from its velocity along the trajectories of a few samples.

    Made once, it serves any number of samples and steps: ``sample_ode(..., method="adams_pc2", grid=grid)``.

    Args:
        field: The trained network on its path, with the guidance that it is sampled with.
        noise: Standard normal, shape (batch, ...); 32 samples are enough.
        y: Labels, shape (batch,), or None.
        order: p above, from 1 to 4. For the few steps of adams_pc2 2 is best, one less than its order in many.
        num_steps: Calls of the network that are spent, at least 40.

    Returns:
        A grid that is valid on the path of the field alone.

    Raises:
        ValueError: If an argument is not valid, or the network's velocity is not finite or the same at all times.
    """
    _check(field, noise, order, num_steps)
    path, dynamics = field.path, field.path.ode(field.prediction)
    start, stop = dynamics.interval()
    places = -np.cos(np.pi * np.arange(num_steps + 1) / num_steps)  # of Chebyshev, dense at both ends
    times = start + (stop - start) * (1 + places) / 2
    times[0], times[-1] = start, stop
    fit = np.linalg.pinv(chebyshev.chebvander(places[:-1], _DEGREE))  # (degree + 1, num_steps)
    method = multistep.ODE_METHODS["adams_pc2"]
    with torch.inference_mode(), field.evaluation_mode():
        x = float(path.sigma(start)) * noise.to(torch.promote_types(noise.dtype, torch.float32))
        series = x.new_zeros(_DEGREE + 1, len(x), x[0].numel())  # (degree + 1, batch, d)

        def velocity(n: int, state: Tensor) -> Tensor:
            prediction = field.predict(state if field.dtype is not None else state.to(noise.dtype), times[n], y)
            v = dynamics.drift(state, prediction.to(state.dtype), times[n])
            series.add_(torch.from_numpy(fit[:, n]).to(series)[:, None, None] * v.flatten(1))
            return v

        multistep.integrate(method.steps(path, tuple(times)), method, x, velocity, _ignore, _no_noise)
        series = series.cpu().double()
        products = torch.einsum("ibd,jbd->bij", series, series).numpy()  # (batch, degree + 1, degree + 1)
    where = np.linspace(-1.0, 1.0, _PLACES)
    derivative = chebyshev.chebval(where, chebyshev.chebder(np.eye(_DEGREE + 1), order)).T  # (places, degree + 1)
    squares = np.einsum("ti,bij,tj->tb", derivative, products, derivative, optimize=True).clip(min=0.0)
    known = (squares ** (0.5 / (order + 1))).mean(1)
    if not (np.isfinite(known).all() and known.any()):
        raise ValueError("field: must have a finite velocity that changes along the trajectories, got none.")

    def density(on: Path, wanted: FloatArray) -> FloatArray:
        if on != path:
            raise ValueError(f"grid: was fitted on the path {path.name}, got {on.name}. Fit one on that path.")
        result: FloatArray = np.interp(wanted, start + (stop - start) * (1 + where) / 2, known)
        return result

    return time_grid.from_density("fitted", density)


def _ignore(number: int, state: Tensor) -> None:
    """Steps are told of, and nobody asks."""


def _no_noise() -> Tensor:
    raise AssertionError("the ODE has no noise")


def _check(field: Field, noise: Tensor, order: int, num_steps: int) -> None:
    if not isinstance(field, Field):
        raise TypeError(f"field: must be a training.Field, got {type(field).__name__}. Field(model, path) is one.")
    if not isinstance(noise, Tensor) or not noise.is_floating_point() or noise.dim() < 2 or len(noise) == 0:
        raise ValueError("noise: must be floating point of shape (batch, ...).")
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order: must be an integer from 1 to 4, got {order!r}. 2 suits adams_pc2.")
    if num_steps < 2 * _DEGREE:
        raise ValueError(f"num_steps: must be at least {2 * _DEGREE}, got {num_steps!r}.")
