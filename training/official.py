r"""The samplers of the official SiT release, number for number: for comparison with published samples and figures.

Fed the same Gaussian numbers, they give the samples that the release gives, from half its network calls. The release
evaluates the velocity and the score each by a call of the network; here the drift is a(t) x + b(t) prediction, with a
and b tabulated before the first step. What they share with the release, and ``sample_ode`` and ``sample_sde`` do not:

- The state at t = 0 is the noise itself, not sigma(0) noise, which differs on the VP path by 2e-5.
- Times are those of a float32 grid of num_steps points, so of num_steps - 1 equal steps.
- The SDE stops at 1 - last_step_size, from where one step without noise leads to the data.
- One stream of Gaussian numbers serves the whole batch, so that a sample depends on the batch it stands in.
- An adaptive ODE method steps beyond the end and interpolates back, so it may ask the network for a t above 1.

Guidance is that of the field, on all channels; the released code guides the first three.

Source: Ma et al. (2024), arXiv:2401.08740, and its code.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable
from typing import Final, TypeAlias

import torch
from torch import Tensor

from interpolants import Coefficient, Path, diffusion, gvp, linear, vp
from interpolants.diffusion import Diffusion, DiffusionLike
from training.fields import Field
from training.odeint import MAX_CALLS, odeint
from training.samplers import LAST_STEPS, Interval

FORMS: Final[dict[str, Callable[[float], Diffusion]]] = {
    "constant": diffusion.constant,
    "SBDM": diffusion.kl_optimal,
    "sigma": diffusion.sigma,
    "linear": diffusion.linear,
    "decreasing": diffusion.decreasing,
    "increasing-decreasing": diffusion.sin_squared,
}
"""The release's ``diffusion_form``, a D(t) with noise sqrt(2 D) dW, as the choice with w = 2 D."""

PREDICTIONS: Final = ("velocity", "noise", "score")
METHODS: Final = ("euler", "heun")
LAST_STEP_SIZE: Final = 0.04

Increments: TypeAlias = "Tensor | Callable[[int], Tensor]"
Drift: TypeAlias = Callable[[int, Tensor], Tensor]


def official_w(form: str, norm: float = 1.0) -> Diffusion:
    r"""w = 2 D for a ``diffusion_form`` and ``diffusion_norm`` of the release.

    =====================  ===================================================  ====================
    form                   D                                                    ``ip.diffusion``
    =====================  ===================================================  ====================
    constant               norm                                                 constant
    SBDM                   norm (sigma^2 alpha' / alpha - sigma sigma')         kl_optimal
    sigma                  norm sigma                                           sigma
    linear                 norm (1 - t)                                         linear
    decreasing             (norm cos(pi t) + 1)^2 / 4                           decreasing
    increasing-decreasing  norm sin(pi t)^2                                     sin_squared
    =====================  ===================================================  ====================

    Raises:
        ValueError: If there is no such form; lists the forms.
    """
    _require(form in FORMS, "official_w", "form", f"be one of {', '.join(FORMS)}", form)
    return FORMS[form](norm)


@torch.no_grad()
def sample_official_sde(
    field: Field,
    noise: Tensor,
    *,
    w: DiffusionLike = "sigma",
    num_steps: int = 250,
    method: str = "euler",
    last_step: str | None = "mean",
    last_step_size: float = LAST_STEP_SIZE,
    sample_eps: float | None = None,
    interval: Interval | None = None,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
    increments: Increments | None = None,
) -> Tensor:
    r"""Draw samples by the release's SDE sampler.

    With drift f = v + w/2 score, step h and standard normal z, a step of ``euler`` and one of ``heun``, which adds the
    noise first, are

    .. math:: x \leftarrow x + h f(x, t) + \sqrt{w(t) h} \, z \\
        \hat x = x + \sqrt{w(t) h} \, z, \quad k = f(\hat x, t), \quad
        x \leftarrow \hat x + \tfrac h2 \left[k + f(\hat x + h k, t + h)\right]

    and the last step, of size s from t = 1 - s, is x + s f for ``mean``, x + s v for ``euler``, and
    E[data | x] = (x + sigma^2 score) / alpha for ``tweedie``. The grid begins at 0, or at ``sample_eps`` on the linear
    and GVP paths where the network does not predict the velocity or w is ``kl_optimal``. It ends at 1 - s, or at
    1 - ``sample_eps`` where s is 0.

    Args:
        field: A network that predicts velocity, noise or score on the linear, gvp or vp path; called once a step, or
            twice by heun, and once in the last step.
        noise: The state at the start, standard normal, shape (batch, ...); the state keeps its dtype.
        w: Squared noise amplitude; ``official_w`` gives that of a ``diffusion_form``.
        num_steps: Points of the grid, at least 2. As in the release, with the last step included, these are its steps.
        method: euler or heun.
        last_step: mean, euler or tweedie, or None for none, which makes s 0.
        last_step_size: s, in [0, 1).
        sample_eps: Distance to keep from the ends, in [0, 1/2). None is the release's: 0 for a velocity on the linear
            and GVP paths, else 1e-3.
        interval: Ends of the grid, instead of those that follow from ``sample_eps`` and ``last_step_size``; the last
            step then leads from its end to 1. None uses these two.
        y: Labels, shape (batch,), or None.
        generator: Draws z in float32 on its own device, a batch a step. None is torch's default one on the CPU, from
            which the release draws.
        increments: The z themselves instead: a tensor, shape (num_steps - 1, batch, ...), or a function of the step's
            number, from 0, to shape (batch, ...).

    Returns:
        Samples, shape (batch, ...).

    Raises:
        ValueError: If an argument is not valid, w is negative or infinite at a time of the grid (where the release
            returns NaN), or the samples are not finite.
    """
    where = "sample_official_sde"
    _check(where, field, noise, num_steps)
    _require(method in METHODS, where, "method", f"be one of {', '.join(METHODS)}", method)
    _require(last_step in LAST_STEPS, where, "last_step", f"be one of {', '.join(map(str, LAST_STEPS))}", last_step)
    _require(0 <= last_step_size < 1, where, "last_step_size", "be in [0, 1)", last_step_size)
    _require(sample_eps is None or 0 <= sample_eps < 0.5, where, "sample_eps", "be in [0, 1/2), or None", sample_eps)
    standard_normal = _standard_normal(where, noise, num_steps - 1, generator, increments)
    path, chosen = field.path, diffusion.choose(w)
    sde, ode = path.sde(field.prediction, w=chosen), path.ode(field.prediction)

    eps = _sample_eps(field) if sample_eps is None else sample_eps
    size = 0.0 if last_step is None else last_step_size
    late = not _is_vp(path) and (field.prediction != "velocity" or chosen.form is diffusion.kl_optimal().form)
    start, stop = eps if late else 0.0, 1.0 - (size or eps)
    if interval is not None:
        given = sample_eps is None and last_step_size == LAST_STEP_SIZE
        _require(given, where, "interval", "be None where sample_eps or last_step_size is given", interval)
        (start, stop), size = interval, 1.0 - interval[1]
    holds = 0.0 <= start < stop <= 1.0
    _require(holds, where, "the interval", "not be empty, nor leave [0, 1]", (start, stop), "Take a smaller last step.")

    grid = torch.linspace(start, stop, num_steps, dtype=torch.float32)
    step = grid[1] - grid[0]
    h, root_h = step.item(), step.sqrt().item()  # the release rounds both to float32
    times = grid[:-1].to(torch.promote_types(noise.dtype, torch.float32))

    def tabulated(a: Coefficient, b: Coefficient, times: Tensor) -> Drift:
        of_x, of_prediction = (_finite(where, chosen, c, times) for c in (a, b))
        time = times.tolist()
        return lambda k, x: of_x[k] * x + of_prediction[k] * field.predict(x, time[k], y)

    amplitude = _finite(where, chosen, sde.amplitude, times)
    drift = tabulated(sde.a, sde.b, times)
    # By rounding the last of these may exceed 1.
    drift_ahead = tabulated(sde.a, sde.b, (times + step).clamp(max=1.0)) if method == "heun" else drift

    x = noise
    with field.evaluation_mode():
        for k in range(num_steps - 1):
            kick = amplitude[k] * root_h * standard_normal(k)
            if method == "euler":
                x = x + h * drift(k, x) + kick
            else:
                x = x + kick
                slope = drift(k, x)
                x = x + h / 2 * (slope + drift_ahead(k, x + h * slope))
        if last_step == "tweedie":
            x = tabulated(*path.conversion(field.prediction, "data"), grid[-1:])(0, x)
        elif last_step is not None:
            last = sde if last_step == "mean" else ode
            x = x + size * tabulated(last.a, last.b, grid[-1:])(0, x)
    return _checked(where, x)


@torch.no_grad()
def sample_official_ode(
    field: Field,
    noise: Tensor,
    *,
    method: str = "dopri5",
    num_steps: int = 50,
    rtol: float = 1e-3,
    atol: float = 1e-6,
    interval: Interval | None = None,
    max_calls: int = MAX_CALLS,
    y: Tensor | None = None,
) -> Tensor:
    """Draw samples by the release's ODE sampler: dx = v dt by torchdiffeq, on a float32 grid of ``num_steps`` points.

    The grid is [0, 1] for a network that predicts the velocity on the linear and GVP paths, [1e-3, 1 - 1e-3] for one
    that does not, and [0, 1 - 1e-3] on the VP path.

    Args:
        field: A network that predicts velocity, noise or score on the linear, gvp or vp path.
        noise: The state at the start, standard normal, shape (batch, ...); the state keeps its dtype.
        method: Any of torchdiffeq.
        num_steps: Points of the grid, at least 2: num_steps - 1 steps of a fixed-step method. An adaptive one takes its
            own, and its result does not depend on it.
        rtol, atol: Of an adaptive method; its error norm is over the whole batch.
        interval: Ends of the grid; None is the above.
        max_calls: Most calls of the network (adaptive methods only).
        y: Labels, shape (batch,), or None.

    Returns:
        Samples, shape (batch, ...).

    Raises:
        ValueError: If an argument is not valid, or the samples are not finite; if an adaptive method finds no step,
            as on the VP path from a noise, where sigma is not real at the t > 1 that it tries.
    """
    where = "sample_official_ode"
    _check(where, field, noise, num_steps)
    eps = _sample_eps(field)
    start, stop = interval or (0.0 if _is_vp(field.path) else eps, 1.0 - eps)
    _require(0.0 <= start < stop <= 1.0, where, "interval", "not be empty, nor leave [0, 1]", interval)
    grid = torch.linspace(start, stop, num_steps, dtype=torch.float32, device=noise.device)
    ode = field.path.ode(field.prediction)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        # The kernels, which do not check their times: an adaptive method steps beyond the end.
        a, b = (c.kernel(t.double()).to(x.dtype) for c in (ode.a, ode.b))
        return a * x + b * field.predict(x, t, y)

    with field.evaluation_mode():
        states = odeint(velocity, noise, grid, method=method, where=where, rtol=rtol, atol=atol, max_calls=max_calls)
    return _checked(where, states[-1].clone())


@functools.cache
def _paths() -> tuple[Path, Path, Path]:
    return linear(), gvp(), vp()


def _is_vp(path: Path) -> bool:
    return path == _paths()[2]


def _sample_eps(field: Field) -> float:
    return 0.0 if field.prediction == "velocity" and not _is_vp(field.path) else 1e-3


def _standard_normal(
    where: str, noise: Tensor, count: int, generator: torch.Generator | None, increments: Increments | None
) -> Callable[[int], Tensor]:
    """z of step k, in the dtype and on the device of the noise."""
    if increments is None:
        device = torch.device("cpu") if generator is None else generator.device
        return lambda _: torch.randn(noise.shape, generator=generator, dtype=torch.float32, device=device).to(noise)
    _require(generator is None, where, "generator", "be None where increments are given", generator)
    if isinstance(increments, Tensor):
        shape = (count, *noise.shape)
        _require(increments.shape == shape, where, "increments", f"have shape {shape}", tuple(increments.shape))
    given = increments.__getitem__ if isinstance(increments, Tensor) else increments

    def standard_normal(k: int) -> Tensor:
        z = given(k)
        contract = f"have the shape of the noise, {tuple(noise.shape)}"
        _require(z.shape == noise.shape, where, "increments", contract, tuple(z.shape))
        return z.to(noise)

    return standard_normal


def _finite(where: str, w: Diffusion, coefficient: Coefficient, times: Tensor) -> list[float]:
    """The values at the times of the grid, which must be finite."""
    values = coefficient(times.double())
    bad = times[~values.isfinite()]
    if bad.numel():
        raise ValueError(
            f"{where}: w must make drift and noise finite on the grid, got w = {w.name}, where they are not at "
            f"t = {bad[0].item():g}. Pass an interval that leaves it out, such as (0.001, 0.96), or another w."
        )
    table: list[float] = values.tolist()
    return table


def _check(where: str, field: Field, noise: Tensor, num_steps: int) -> None:
    paths, predictions = "be linear(), gvp() or vp()", f"be one of {', '.join(PREDICTIONS)}"
    _require(field.path in _paths(), where, "path", paths, field.path.name, "sample_ode and sample_sde take any.")
    _require(field.prediction in PREDICTIONS, where, "prediction", predictions, field.prediction)
    valid = isinstance(num_steps, numbers.Integral) and num_steps >= 2
    _require(valid, where, "num_steps", "be an integer of at least 2", num_steps)
    tensor = noise.is_floating_point() and noise.dim() >= 2
    got = f"{noise.dtype} of shape {tuple(noise.shape)}"
    _require(tensor, where, "noise", "be floating point of shape (batch, ...)", got)


def _checked(where: str, samples: Tensor) -> Tensor:
    bad = int((~samples.isfinite()).flatten(1).any(1).sum())
    if bad:
        raise ValueError(f"{where}: {bad} of {len(samples)} samples are not finite. Check the network's output.")
    return samples


def _require(holds: bool, where: str, argument: str, contract: str, value: object, fix: str = "") -> None:
    if not holds:
        raise ValueError(f"{where}: {argument} must {contract}, got {value!r}. {fix}".rstrip())
