r"""A mixture of five Gaussians in the plane carried along a path, by its exact predictions: no network, no training.

The particles take steps of ``interpolants.exponential``, which meet no pole at either end. The errors of solvers are
distances to a reference: 256 steps of Runge-Kutta's classical method, extrapolated from 128.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from interpolants import diffusion, exponential
from interpolants.diffusion import DiffusionLike
from interpolants.explorer.report import FloatArray, check_direction
from interpolants.oracle import GaussianMixture
from interpolants.path import Path

_ANGLES: Final = 2 * math.pi * torch.arange(5, dtype=torch.float64) / 5 + math.pi / 2
MIXTURE: Final = GaussianMixture(
    2.0 * torch.stack([_ANGLES.cos(), _ANGLES.sin()], dim=1),
    torch.tensor([0.22, 0.3, 0.38, 0.3, 0.22], dtype=torch.float64),
    torch.tensor([0.3, 0.2, 0.15, 0.15, 0.2], dtype=torch.float64),
)
"""The law of the data: five Gaussians on a ring of radius 2."""

SCALES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Factors on w for which the SDE is run."""

NUM_PARTICLES: Final = 256
NUM_FRAMES: Final = 41
_STEPS_PER_FRAME: Final = 4

NUM_STEPS: Final = (4, 8, 16, 32, 64, 128)
_REFERENCE_STEPS: Final = 128
_NUM_STARTS: Final = 64


@dataclass(frozen=True)
class Flow:
    """Particles from noise to data, by the ODE and by the SDE with w times each of ``SCALES``.

    Attributes:
        times: Of the frames, shape (frames,).
        w: Name of the choice.
        ode: Shape (frames, particles, 2).
        sde: By scale, shape (scales, frames, particles, 2).
        centres, radii: Of the mixture's components at the frames, in exact law: shapes (frames, 5, 2) and (frames, 5);
            the radius is two standard deviations.
        extent: States are divided by this to be drawn: max(1, sqrt(alpha^2 + sigma^2)), shape (frames,).
    """

    times: FloatArray
    w: str
    ode: FloatArray
    sde: FloatArray
    centres: FloatArray
    radii: FloatArray
    extent: FloatArray


def flow(path: Path, w: DiffusionLike = "sigma", *, seed: int = 0) -> Flow:
    """Carry ``NUM_PARTICLES`` exact samples of the law at t = 0 to t = 1.

    Raises:
        ValueError: If data is not at t = 1 or w is not valid.
    """
    check_direction(path)
    chosen = diffusion.choose(w)
    amplitude = path.sde("velocity", chosen).w  # refuses a w that is negative or infinite inside
    times = np.linspace(0.0, 1.0, (NUM_FRAMES - 1) * _STEPS_PER_FRAME + 1)
    start = MIXTURE.sample_at(NUM_PARTICLES, 0.0, path, torch.Generator().manual_seed(seed))
    ode = _carried(path, exponential.steps(path, times, 2, variable="t"), start)
    sde = [_diffused(path, times, scale * amplitude((times[:-1] + times[1:]) / 2), start, seed + 1) for scale in SCALES]
    frames = times[::_STEPS_PER_FRAME]
    alpha, sigma = path.alpha(frames), path.sigma(frames)
    stds = MIXTURE.stds[:, 0].numpy()
    return Flow(
        times=frames,
        w=chosen.name,
        ode=ode[::_STEPS_PER_FRAME].numpy(),
        sde=torch.stack(sde)[:, ::_STEPS_PER_FRAME].numpy(),
        centres=alpha[:, None, None] * MIXTURE.means.numpy(),
        radii=2 * np.sqrt(alpha[:, None] ** 2 * stds**2 + sigma[:, None] ** 2),
        extent=np.maximum(1.0, np.sqrt(alpha**2 + sigma**2)),
    )


def _carried(path: Path, steps: exponential.Steps, x: Tensor) -> Tensor:
    """The states at all times, shape (times, particles, 2), from that at the first one, by steps without noise."""
    states, past = [x], list[Tensor]()
    for n, time in enumerate(steps.times[:-1].tolist()):
        past = [getattr(MIXTURE, steps.space)(x, time, path), *past][: steps.weights.shape[1]]
        x = steps.carry[n] * x + sum(weight * q for weight, q in zip(steps.weights[n], past, strict=False))
        states.append(x)
    return torch.stack(states)


def _diffused(path: Path, times: FloatArray, w: FloatArray, x: Tensor, seed: int) -> Tensor:
    r"""The states at all times of the SDE, by steps of the ODE (DDIM), each followed by one of Langevin's equation,

    .. math:: x \to x + V (1 - e^{-r}) \, s(x) + \sqrt{V (1 - e^{-2r})} \, z, \qquad r = \frac{w h}{2 V},

    with V the variance of the narrowest component at that time. It is Euler's step where w h is small beside V, is
    stable however large w is, and leaves a Gaussian of variance V as it is. ``w`` is that in the middle of each step.
    """
    steps = exponential.steps(path, times, 1)
    alpha, sigma = path.alpha(times[1:]), path.sigma(times[1:])
    variance = alpha**2 * float(MIXTURE.stds.min()) ** 2 + sigma**2
    kept = np.exp(-w * np.diff(times) / (2 * variance))
    drift, noise = variance * (1 - kept), np.sqrt(variance * (1 - kept**2))
    states, generator = [x], torch.Generator().manual_seed(seed)
    for n, (time, after) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True)):
        x = steps.carry[n] * x + steps.weights[n, 0] * MIXTURE.data(x, time, path)
        z = torch.randn(x.shape, dtype=x.dtype, generator=generator)
        x = x + drift[n] * MIXTURE.score(x, after, path) + noise[n] * z
        states.append(x)
    return torch.stack(states)


@dataclass(frozen=True)
class Convergence:
    """The error of a solver of the probability-flow ODE against its number of equal steps.

    Attributes:
        solver: Its name.
        calls: Evaluations of the velocity or of the data in a step.
        errors: Root mean square distance to the reference at the last time, at ``NUM_STEPS``.
        slope: Of log error against log steps over the last doublings that are ten times above ``floor``; NaN if fewer
            than two are.
    """

    solver: str
    calls: int
    errors: FloatArray
    slope: float


@dataclass(frozen=True)
class Errors:
    """Of each solver, on the interval of time that all of them integrate.

    Attributes:
        solvers: One a curve.
        floor: Estimated error of the reference.
        interval: [0, 1], or the part of it on which alpha' and sigma' are at most 1,000.
    """

    solvers: tuple[Convergence, ...]
    floor: float
    interval: tuple[float, float]


def errors(path: Path, *, seed: int = 0) -> Errors:
    """Measure solvers on the mixture's exact velocity and data.

    Raises:
        ValueError: If data is not at t = 1.
    """
    check_direction(path)
    interval = Path.interval(path.d_alpha, path.d_sigma)
    start = MIXTURE.sample_at(_NUM_STARTS, interval[0], path, torch.Generator().manual_seed(seed))

    def velocity(x: Tensor, time: float) -> Tensor:
        return MIXTURE.velocity(x, time, path)

    def grid(count: int) -> FloatArray:
        return np.linspace(*interval, count + 1)

    reference, floor = _reference(velocity, interval, start)
    runs: dict[str, tuple[int, Callable[[FloatArray], Tensor]]] = {
        "Euler": (1, lambda times: _one_step(velocity, times, start, _euler)),
        "Heun": (2, lambda times: _one_step(velocity, times, start, _heun)),
        "Runge-Kutta 4": (4, lambda times: _one_step(velocity, times, start, _runge_kutta)),
        "DDIM": (1, lambda times: _multistep(path, times, start, 1, "data")),
        "multistep 2, velocity": (1, lambda times: _multistep(path, times, start, 2, "velocity")),
        "multistep 3, velocity": (1, lambda times: _multistep(path, times, start, 3, "velocity")),
        "multistep 3, data": (1, lambda times: _multistep(path, times, start, 3, "data")),
    }
    solvers = []
    for name, (calls, run) in runs.items():
        distances = np.array([_distance(run(grid(count)), reference) for count in NUM_STEPS])
        solvers.append(Convergence(name, calls, distances, _slope(distances, floor)))
    return Errors(tuple(solvers), floor, interval)


Velocity = Callable[[Tensor, float], Tensor]
OneStep = Callable[[Velocity, Tensor, float, float], Tensor]


def _reference(velocity: Velocity, interval: tuple[float, float], start: Tensor) -> tuple[Tensor, float]:
    """The state at the last time, and its estimated error.

    In the variable u of t = t0 + (t1 - t0) sin(pi u / 2)^2 a velocity that grows as a root at either end is smooth.
    """
    first, last = interval

    def by_u(x: Tensor, u: float) -> Tensor:
        time = first + (last - first) * math.sin(math.pi * u / 2) ** 2
        return (last - first) * math.pi / 2 * math.sin(math.pi * u) * velocity(x, min(time, last))

    coarse, fine = (
        _one_step(by_u, np.linspace(0.0, 1.0, k * _REFERENCE_STEPS + 1), start, _runge_kutta) for k in (1, 2)
    )
    correction = (fine - coarse) / 15
    return fine + correction, _distance(correction, torch.zeros_like(correction))


def _one_step(velocity: Velocity, times: FloatArray, x: Tensor, step: OneStep) -> Tensor:
    for time, after in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        x = step(velocity, x, time, after)
    return x


def _euler(velocity: Velocity, x: Tensor, time: float, after: float) -> Tensor:
    return x + (after - time) * velocity(x, time)


def _heun(velocity: Velocity, x: Tensor, time: float, after: float) -> Tensor:
    h, first = after - time, velocity(x, time)
    return x + h / 2 * (first + velocity(x + h * first, after))


def _runge_kutta(velocity: Velocity, x: Tensor, time: float, after: float) -> Tensor:
    h, middle = after - time, (time + after) / 2
    first = velocity(x, time)
    second = velocity(x + h / 2 * first, middle)
    third = velocity(x + h / 2 * second, middle)
    return x + h / 6 * (first + 2 * second + 2 * third + velocity(x + h * third, after))


def _multistep(path: Path, times: FloatArray, x: Tensor, order: int, space: str) -> Tensor:
    return _carried(path, exponential.steps(path, times, order, space=space, variable="t"), x)[-1]


def _distance(x: Tensor, y: Tensor) -> float:
    return float((x - y).square().sum(1).mean().sqrt())


def _slope(distances: FloatArray, floor: float) -> float:
    used = np.flatnonzero(distances > 10 * floor)[-3:]
    if len(used) < 2:
        return math.nan
    return float(np.polyfit(np.log(np.array(NUM_STEPS)[used]), np.log(distances[used]), 1)[0])
