"""From noise to data by torchdiffeq's and torchsde's solvers, and the likelihood of data.

All of them integrate a drift a(t) x + b(t) prediction on the interval where a and b are bounded: [0, 1], unless the
prediction's conversion has a pole at an end, such as that of the noise at t = 0 on the linear path, where a network's
error would be amplified without bound. From an interval that ends short of t = 1 one Euler step leads to t = 1, with
one more call of the network. The state is integrated in float32 at least; the network sees the dtype of the noise.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
import torchdiffeq
import torchsde
from torch import Tensor

from interpolants.diffusion import DiffusionLike
from interpolants.dynamics import Dynamics
from training.fields import Field

FIXED_METHODS: Final = ("euler", "midpoint", "heun2", "heun3", "rk4")
ADAPTIVE_METHODS: Final = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")

Interval = tuple[float, float]


@torch.no_grad()
def sample_ode(
    field: Field,
    noise: Tensor,
    *,
    num_steps: int = 50,
    method: str = "heun2",
    y: Tensor | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-6,
    interval: Interval | None = None,
    trajectory: bool = False,
) -> Tensor:
    r"""Draw samples by integrating the probability-flow ODE dx = v dt from noise (t = 0) to data (t = 1).

    Args:
        field: The trained network on its path.
        noise: Standard normal, shape (batch, ...); its dtype is that of the state.
        num_steps: Equal steps of a fixed-step method; an adaptive one takes its own steps, and this is only the
            number of states of its trajectory.
        method: Of torchdiffeq. euler calls the network once a step, heun2 and midpoint twice, heun3 three times, rk4
            four; there is one more call where the interval ends before 1.
        y: Labels, shape (batch,), or None.
        rtol, atol: Tolerances of an adaptive method.
        interval: Where to integrate; None is where the drift's coefficients are bounded.
        trajectory: Return all states, not only the last. Without it only the current one is kept.

    Returns:
        Samples at t = 1, shape (batch, ...), or (num_steps + 1, batch, ...) with ``trajectory``.

    Raises:
        ValueError: If the method or an argument is not valid, or the samples are not finite.
    """
    _check_steps(num_steps)
    _check_method(method, (*FIXED_METHODS, *ADAPTIVE_METHODS))
    dynamics = field.path.ode(field.prediction)
    start, stop = _checked(interval, dynamics)
    grid = torch.linspace(start, stop, num_steps + 1, dtype=torch.float64, device=noise.device)
    options: dict[str, object] = (
        {"step_t": grid[-1:]} if method in ADAPTIVE_METHODS else {"grid_constructor": lambda *_: grid}
    )

    def drift(t: Tensor, x: Tensor) -> Tensor:
        time = t.clamp(start, stop)  # the guess of a first step may probe beyond the end
        return dynamics.drift(x, _predict(field, x, time, y, noise.dtype), time)

    times = grid if trajectory else grid[[0, -1]]
    with field.evaluation_mode():
        states = torchdiffeq.odeint(
            drift, _initial_state(field, noise, start), times, rtol=rtol, atol=atol, method=method, options=options
        )
        states = _finish(states, lambda x: drift(grid[-1], x), stop)
    return (states if trajectory else states[-1]).to(noise.dtype)


@torch.no_grad()
def sample_sde(
    field: Field,
    noise: Tensor,
    *,
    w: DiffusionLike,
    num_steps: int = 250,
    seed: int,
    y: Tensor | None = None,
    indices: Sequence[int] | None = None,
    interval: Interval | None = None,
    trajectory: bool = False,
) -> Tensor:
    r"""Draw samples by integrating the SDE from noise (t = 0) to data (t = 1), by Euler-Maruyama of torchsde.

    .. math:: dX_t = [v(X_t, t) + \tfrac12 w(t) s(X_t, t)] \, dt + \sqrt{w(t)} \, dW_t

    Args:
        field: The trained network on its path; called once a step, and once more where the interval ends before 1.
        noise: State at t = 0, standard normal, shape (batch, ...).
        w: Squared noise amplitude, data units^2 per unit time: from ``interpolants.diffusion``, or an expression.
        num_steps: Steps of equal length.
        seed: Of the Brownian path. Sample i of a seed has the same Brownian path in whatever batch it stands.
        y: Labels, shape (batch,), or None.
        indices: The i of each sample; None numbers the batch from 0.
        interval: Where to integrate; None is where the drift's coefficients are bounded.
        trajectory: Return all states, not only the last. Without it only the current one is kept.

    Returns:
        Samples at t = 1, shape (batch, ...), or (num_steps + 1, batch, ...) with ``trajectory``.

    Raises:
        ValueError: If w is negative anywhere, or makes the drift unbounded on [0, 1] for a network without error and
            no ``interval`` is given; if another argument is not valid, or the samples are not finite.
    """
    _check_steps(num_steps)
    if interval is None:
        _check_bounded(field, w)
    dynamics = field.path.sde(field.prediction, w=w)
    start, stop = _checked(interval, dynamics)
    equation = _UnitSteps(dynamics, field, y, torch.linspace(start, stop, num_steps + 1, dtype=torch.float64), noise)
    initial = _initial_state(field, noise, start).flatten(1)
    brownian = SampleNoise(initial, range(len(noise)) if indices is None else indices, seed)
    times = torch.arange(num_steps + 1, dtype=torch.float64)

    def drift(x: Tensor) -> Tensor:
        return dynamics.drift(x, _predict(field, x, stop, y, noise.dtype), stop)

    with field.evaluation_mode():
        states = torchsde.sdeint(
            equation,
            initial,
            times if trajectory else times[[0, -1]],
            bm=brownian,
            dt=1.0,
            method="euler",
        )
        states = _finish(states.reshape(-1, *noise.shape), drift, stop)
    return (states if trajectory else states[-1]).to(noise.dtype)


class _UnitSteps:
    """The SDE in the step's number u, in which every step of the time grid has length exactly 1.

    With h the length of the current step in t, dX = h drift du + sqrt(h) sqrt(w) dW_u. So torchsde, which adds up its
    step lengths, makes num_steps steps and no extra one for the rounding error of their sum.
    """

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, dynamics: Dynamics, field: Field, y: Tensor | None, grid: Tensor, noise: Tensor) -> None:
        self.dynamics, self.field, self.y, self.shape, self.dtype = dynamics, field, y, noise.shape, noise.dtype
        self.times, self.lengths = grid[:-1].tolist(), grid.diff().tolist()
        self.amplitudes = (dynamics.diffusion(grid[:-1]) * grid.diff().sqrt()).tolist()
        self._last: tuple[float, Tensor, Tensor] | None = None

    def f(self, u: Tensor, x: Tensor) -> Tensor:
        # torchsde asks for the drift at the start once more, to learn its shape: the network is not called again.
        if self._last is None or self._last[0] != float(u) or self._last[1] is not x:
            step, state = int(u), x.reshape(self.shape)
            time = self.times[step]
            drift = self.lengths[step] * self.dynamics.drift(state, self._predict(state, time), time)
            self._last = float(u), x, drift.flatten(1)
        return self._last[2]

    def _predict(self, state: Tensor, time: float) -> Tensor:
        return _predict(self.field, state, time, self.y, self.dtype)

    def g(self, u: Tensor, x: Tensor) -> Tensor:
        return x.new_full((1, 1), self.amplitudes[int(u)]).expand_as(x)


class SampleNoise:
    """Brownian increments over consecutive unit steps, each sample from a stream of its own, seeded by (seed, index).

    Args:
        like: A tensor with the shape (batch, size), dtype and device of the increments.
        indices: Of the samples.
        seed: Of all of them.
    """

    levy_area_approximation = "none"

    def __init__(self, like: Tensor, indices: Sequence[int], seed: int) -> None:
        if len(indices) != len(like):
            raise ValueError(f"indices: must have one index a sample, {len(like)}, got {len(indices)}.")
        self.shape = like.shape
        self._like = like
        self._streams = [_stream(seed, int(index), like.device) for index in indices]

    def __call__(self, start: Tensor, stop: Tensor) -> Tensor:
        assert float(stop - start) == 1.0, "an increment is asked for once, in order, over a unit step"
        increments = self._like.new_empty(self.shape)
        for row, stream in zip(increments, self._streams, strict=True):
            row.normal_(generator=stream)
        return increments


def _stream(seed: int, index: int, device: torch.device) -> torch.Generator:
    state = np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


class Likelihood(NamedTuple):
    """Log-density of each sample, in two units."""

    nats: Tensor
    bits_per_dim: Tensor


def log_likelihood(
    field: Field,
    data: Tensor,
    *,
    y: Tensor | None = None,
    probes: int | None = None,
    seed: int = 0,
    method: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Likelihood:
    r"""Log-density of the data under the probability-flow ODE, by the instantaneous change of variables:

    .. math:: \log p_1(x_1) = \log p_0(x_0) - \int_0^1 \nabla \cdot v(x_t, t) \, dt

    Args:
        field: The trained network on its path.
        data: Shape (batch, ...).
        y: Labels, shape (batch,), or None.
        probes: None for the exact divergence, one backward pass a dimension; else the number of Rademacher probes of
            Hutchinson's estimate, drawn once for the whole solve, so that an adaptive solver sees a smooth function.
        seed: Of the probes.
        method, rtol, atol: Of torchdiffeq; adaptive methods only.

    Returns:
        ``nats`` and ``bits_per_dim`` = -nats / (d log 2), each of shape (batch,): the density of ``data`` as given.

    Where the interval ends at a t before 1, the density is that of alpha(t) data at t, in the units of the data: of the
    data with a noise of deviation sigma(t) / alpha(t) on it.

    Raises:
        ValueError: If an argument is not valid.

    Source: Song et al. (2021), arXiv:2011.13456, appendix D; Grathwohl et al. (2019), arXiv:1810.01367.
    """
    _check_method(method, ADAPTIVE_METHODS)
    if probes is not None and probes < 1:
        raise ValueError(f"probes: must be at least 1, or None for the exact divergence, got {probes!r}.")
    if not data.is_floating_point() or data.dim() < 2:
        raise ValueError(f"data: must be floating point of shape (batch, ...), got {data.dtype}, {tuple(data.shape)}.")
    start, stop = field.path.ode(field.prediction).interval()
    alpha = float(field.path.alpha(stop))
    dims = data.shape[1:].numel()
    if probes is None:
        directions = torch.eye(dims, dtype=data.dtype, device=data.device)[:, None].expand(-1, len(data), -1)
    else:
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (probes, len(data), dims), generator=generator) * 2 - 1
        directions = signs.to(data)
    scale = 1.0 if probes is None else 1.0 / probes

    def augmented(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        time = t.clamp(start, stop)
        with torch.enable_grad():
            x = state[0].detach().requires_grad_()
            velocity = field.velocity(x, time, y)
            flat = velocity.flatten(1)
            divergence = torch.zeros_like(state[1])
            for direction in directions:
                (gradient,) = torch.autograd.grad(flat, x, direction, retain_graph=True)
                divergence += scale * (gradient.flatten(1) * direction).sum(1)
        return velocity.detach(), divergence.detach()

    with torch.no_grad(), field.evaluation_mode():
        times = torch.tensor([stop, start], dtype=torch.float64, device=data.device)
        initial = (alpha * data, torch.zeros(len(data), dtype=data.dtype, device=data.device))
        x, integral = torchdiffeq.odeint(
            augmented, initial, times, rtol=rtol, atol=atol, method=method, options={"step_t": times[1:]}
        )
    # Integrated from data to noise, the integral has the sign that the formula wants.
    std = float(field.path.sigma(start))
    log_prior = -0.5 * (x[-1] / std).square().flatten(1).sum(1) - dims * (math.log(std) + 0.5 * math.log(2 * math.pi))
    nats = log_prior + integral[-1] + dims * math.log(alpha)
    return Likelihood(nats, -nats / (dims * math.log(2)))


def _initial_state(field: Field, noise: Tensor, start: float) -> Tensor:
    """x at the start of the interval, where the path is sigma noise, in float32 at least."""
    if not noise.is_floating_point() or noise.dim() < 2:
        raise ValueError(
            f"noise: must be floating point of shape (batch, ...), got {noise.dtype} of shape {tuple(noise.shape)}."
        )
    return float(field.path.sigma(start)) * noise.to(torch.promote_types(noise.dtype, torch.float32))


def _predict(field: Field, x: Tensor, time: Tensor | float, y: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The prediction of a network that works in ``dtype``, for a state that is kept in a wider one."""
    return field.predict(x.to(dtype), time, y).to(x.dtype)


def _finish(states: Tensor, drift: Callable[[Tensor], Tensor], stop: float) -> Tensor:
    """The states, the last one led on from ``stop`` to t = 1 by an Euler step where the interval ends before it."""
    if stop < 1.0:
        last = states[-1] + (1.0 - stop) * drift(states[-1])
        states = torch.cat([states[:-1], last[None]])
    if not bool(torch.isfinite(states[-1]).all()):
        bad = int((~torch.isfinite(states[-1])).flatten(1).any(1).sum())
        raise ValueError(f"sampling: {bad} of {states.shape[1]} samples are not finite. Check the network's output.")
    return states


def _checked(interval: Interval | None, dynamics: Dynamics) -> Interval:
    """The interval, or that on which the coefficients of the dynamics are bounded."""
    if interval is None:
        return dynamics.interval()
    if not 0.0 <= interval[0] < interval[1] <= 1.0:
        raise ValueError(f"interval: must be inside [0, 1] and not empty, got {interval!r}.")
    return interval


def _check_steps(num_steps: int) -> None:
    if not isinstance(num_steps, numbers.Integral) or isinstance(num_steps, bool) or num_steps < 1:
        raise ValueError(f"num_steps: must be an integer of at least 1, got {num_steps!r}.")


def _check_method(method: str, valid: Sequence[str]) -> None:
    if method not in valid:
        raise ValueError(f"method: must be one of {', '.join(valid)}, got {method!r}.")


def _check_bounded(field: Field, w: DiffusionLike) -> None:
    """Raise unless the drift of an exact velocity is bounded: a pole of w score at an end is no error of a network."""
    field.path.sde("velocity", w=w).require_finite()
