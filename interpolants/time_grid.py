r"""Grids of times for solvers: where to spend the calls of the network.

A grid is the image of equal steps u = 0, 1/N, ..., 1 under an increasing function, which depends on the path: equal
steps in the log-SNR, in the angle atan(alpha / sigma), or in the accumulated error of a solver on Gaussian data. Each
is stated by its SNR, so that it means the same on every path.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import sympy as sp
import torch

from interpolants.choice import chosen
from interpolants.coefficient import check_interval
from interpolants.compile import sampled
from interpolants.expression import t
from interpolants.path import Path
from interpolants.time_change import time_at_log_snr

FloatArray = npt.NDArray[np.float64]

_EVEN_SHARE: Final = 0.1
_FINE: Final = 4096


@dataclass(frozen=True)
class TimeGrid:
    """A choice of times: places(path, u) are increasing times in [0, 1] for u in [0, 1], up to the two ends."""

    name: str
    places: Callable[[Path, FloatArray], FloatArray] = field(repr=False)

    def times(self, path: Path, num_steps: int, interval: tuple[float, float] = (0.0, 1.0)) -> FloatArray:
        """num_steps + 1 increasing times, the first and the last of which are the ends of ``interval``.

        Args:
            path: With data at t = 1.
            num_steps: At least 1.
            interval: What lies outside is cut off, and the rest is stretched over it in u.

        Raises:
            ValueError: If ``num_steps`` or the interval is not valid, or so many steps do not fit into float64.
        """
        if not isinstance(num_steps, numbers.Integral) or isinstance(num_steps, bool) or num_steps < 1:
            raise ValueError(f"num_steps: must be an integer of at least 1, got {num_steps!r}.")
        check_interval(interval, "interval")
        start, stop = interval
        u = np.linspace(0.0, 1.0, num_steps + 1)
        if interval == (0.0, 1.0):
            grid = self.places(path, u)
        else:
            fine = np.linspace(0.0, 1.0, _FINE + 1)
            low, high = np.interp([start, stop], self.places(path, fine), fine)
            grid = self.places(path, low + (high - low) * u)
        grid[0], grid[-1] = start, stop
        if not (np.diff(grid) > 0).all():
            raise ValueError(f"time grid {self.name}: {num_steps} steps between {start} and {stop} are not distinct.")
        return grid


TimeGridLike: TypeAlias = "TimeGrid | str | Sequence[float] | npt.NDArray[Any] | torch.Tensor"


def uniform() -> TimeGrid:
    """t = u: equal steps in time."""
    return TimeGrid("uniform", lambda path, u: u.copy())


def shifted(shift: float = 3.0) -> TimeGrid:
    """t = u / (shift + (1 - shift) u): more steps at the noise for shift > 1.

    Source: Esser et al. (2024), arXiv:2403.03206, section 5.3.2, on the linear path.

    Raises:
        ValueError: If ``shift`` is not positive.
    """
    if not (shift > 0 and math.isfinite(shift)):
        raise ValueError(f"shifted: shift must be positive and finite, got {shift!r}.")
    return TimeGrid(f"shifted({shift:g})", lambda path, u: u / (shift + (1 - shift) * u))


def log_snr(bound: float = 8.0) -> TimeGrid:
    """Equal steps in log(alpha^2 / sigma^2) from -bound to bound, or to the path's own values where they are nearer.

    The first step starts from t = 0 and the last leads to t = 1, wherever the bounds are.

    Raises:
        ValueError: If ``bound`` is not positive.
    """
    if not (bound > 0 and math.isfinite(bound)):
        raise ValueError(f"log_snr: bound must be positive and finite, got {bound!r}.")

    def places(path: Path, u: FloatArray) -> FloatArray:
        low, high = _levels(path, -bound, bound)
        return _at_log_snr(path, low + (high - low) * u)

    return TimeGrid(f"log_snr({bound:g})", places)


def edm(rho: float = 7.0, ratio_min: float = 0.002, ratio_max: float = 80.0) -> TimeGrid:
    """Equal steps in (sigma / alpha)^(1 / rho) from ratio_max to ratio_min, with the ends as in ``log_snr``.

    Source: Karras et al. (2022), arXiv:2206.00364, equation 5, whose sigma is sigma / alpha here.

    Raises:
        ValueError: If an argument is not positive, or ``ratio_min`` is not below ``ratio_max``.
    """
    if not (0 < rho < math.inf and 0 < ratio_min < ratio_max < math.inf):
        raise ValueError(f"edm: must have rho > 0 and 0 < ratio_min < ratio_max, got {rho}, {ratio_min}, {ratio_max}.")

    def places(path: Path, u: FloatArray) -> FloatArray:
        low, high = _levels(path, -2 * math.log(ratio_max), -2 * math.log(ratio_min))
        first, last = math.exp(-low / (2 * rho)), math.exp(-high / (2 * rho))
        return _at_log_snr(path, -2 * rho * np.log(first + (last - first) * u))

    return TimeGrid(f"edm({rho:g})", places)


def cosine() -> TimeGrid:
    """Equal steps in the angle atan(alpha / sigma): the SNRs of equal steps in time on ``gvp``, or on the path of
    Nichol & Dhariwal (2021), arXiv:2102.09672, but for its offset.
    """

    def places(path: Path, u: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore"):
            return _at_log_snr(path, 2 * np.log(np.tan(np.pi / 2 * u)))

    return TimeGrid("cosine", places)


def optimized(stds: Sequence[float] = (0.5,), order: int = 3, space: str = "velocity") -> TimeGrid:
    r"""Equal shares of the error of a solver on Gaussian data with these standard deviations, taken together.

    On data ~ N(0, s^2) the state moves in proportion to rho = sqrt(alpha^2 s^2 + sigma^2). A step h of a solver of the
    given order, exact but for the p-th derivative of the velocity in t, or of the data in lambda, errs by

    .. math:: h^{p+1} \left|\frac{d^{p+1} \rho}{dt^{p+1}}\right| \quad \text{or} \quad h^{p+1} \alpha
        \left|\frac{d^p}{d\lambda^p} \frac{\alpha s^2}{\rho}\right|

    and the flow carries that to t = 1 in proportion to s / rho. The least sum has steps in proportion to the error
    coefficient to the power -1 / (p + 1). A tenth of the steps is spread evenly, over times where no Gaussian moves.

    Args:
        stds: The standard deviations of the data along its principal axes, within its modes too where it has such.
        order: p, of the solver.
        space: Of the solver: "velocity", as for Adams' methods, or "data".

    Raises:
        ValueError: If an argument is not valid.
    """
    if not stds or not all(0 < s < math.inf for s in stds):
        raise ValueError(f"optimized: stds must be positive and finite, got {stds!r}.")
    if not isinstance(order, numbers.Integral) or not 1 <= order <= 4:
        raise ValueError(f"optimized: order must be an integer from 1 to 4, got {order!r}.")
    if space not in ("velocity", "data"):
        raise ValueError(f"optimized: space must be velocity or data, got {space!r}.")
    errors, fixed = _velocity_errors if space == "velocity" else _data_errors, tuple(float(s) for s in stds)

    def density(path: Path, times: FloatArray) -> FloatArray:
        result: FloatArray = sum(errors(path, fixed, int(order), times)) ** (1 / (order + 1))
        return result

    return from_density(f"optimized({', '.join(f'{s:g}' for s in fixed)})", density)


def scales(smallest: float = 1 / 32, largest: float = 2.0, order: int = 2) -> TimeGrid:
    """``optimized`` for standard deviations from ``smallest`` to ``largest`` by factors of two or a little less: for
    data of about unit scale, of which nothing else is known.

    Raises:
        ValueError: If the scales are not positive, or not in this order, or ``order`` is not valid.
    """
    if not 0 < smallest < largest < math.inf:
        raise ValueError(f"scales: must have 0 < smallest < largest, got {smallest!r}, {largest!r}.")
    stds = np.geomspace(largest, smallest, 1 + math.ceil(math.log2(largest / smallest)))
    return dataclasses.replace(optimized(stds.tolist(), order), name=f"scales({smallest:g}, {largest:g})")


def from_density(name: str, density: Callable[[Path, FloatArray], FloatArray]) -> TimeGrid:
    """As many steps per unit time as ``density(path, times)`` says, up to a factor; a tenth is spread evenly.

    Args:
        name: Of the grid.
        density: For increasing times, shape (n,), not negative and not 0 everywhere, shape (n,).
    """

    def places(path: Path, u: FloatArray) -> FloatArray:
        # Twice as fine at both ends as between them.
        times = 0.5 - 0.5 * np.cos(np.pi * (np.arange(_FINE) + 0.5) / _FINE)
        share = np.cumsum(density(path, times) * np.gradient(times))
        share = (1 - _EVEN_SHARE) * share / share[-1] + _EVEN_SHARE * times
        return np.interp(u, np.r_[0.0, share, 1.0], np.r_[0.0, times, 1.0])

    return TimeGrid(name, places)


def _velocity_errors(path: Path, stds: Sequence[float], order: int, times: FloatArray) -> list[FloatArray]:
    """The error coefficients of a step in t, at t = 1; rho by its Taylor series, from that of its square."""
    squares = [_taylor(c.expr**2, order + 1, times) for c in (path.alpha, path.sigma)]
    errors = []
    for s in stds:
        square = [a * s**2 + b for a, b in zip(*squares, strict=True)]
        rho = [np.sqrt(square[0])]
        for k in range(1, order + 2):
            rho.append((square[k] - sum(rho[j] * rho[k - j] for j in range(1, k))) / (2 * rho[0]))
        errors.append(math.factorial(order + 1) * np.abs(rho[-1]) * s / rho[0])
    return errors


def _taylor(expr: sp.Expr, order: int, times: FloatArray) -> list[FloatArray]:
    """The coefficients of the expansion about each time."""
    series = []
    for k in range(order + 1):
        series.append(sampled(expr, times) / math.factorial(k))
        expr = sp.diff(expr, t)
    return series


def _data_errors(path: Path, stds: Sequence[float], order: int, times: FloatArray) -> list[FloatArray]:
    """The error coefficients of a step in lambda, at t = 1, for a step in t; alpha / rho is a function of lambda."""
    x = sp.Symbol("x", real=True)
    share = sp.exp(x) / sp.sqrt(1 + sp.exp(2 * x))  # alpha s / rho, of x = lambda + log s
    error = sp.lambdify(x, share * sp.diff(share, x, order), "numpy")
    half_log_snr = path.log_snr(times) / 2
    speed = np.gradient(half_log_snr, times)
    return [s * np.abs(error(half_log_snr + math.log(s))) * speed ** (order + 1) for s in stds]


CHOICES: Final[dict[str, Callable[..., TimeGrid]]] = {
    choice.__name__: choice for choice in (uniform, shifted, log_snr, edm, cosine, optimized, scales)
}


def choose(grid: TimeGridLike) -> TimeGrid | FloatArray:
    """A TimeGrid from one, or from a choice such as ``shifted`` or ``shifted(2)``; or the times, if these are given.

    Raises:
        ValueError: If a name is unknown, or the times are not increasing numbers in [0, 1].
    """
    if isinstance(grid, TimeGrid):
        return grid
    if isinstance(grid, str):
        if (named := chosen(grid, CHOICES, "grid")) is None:
            raise ValueError(f"grid: must be one of {', '.join(CHOICES)}, or increasing times, got {grid!r}.")
        return named
    return as_times(grid, "grid")


def as_times(values: Any, where: str) -> FloatArray:
    """The values as an array of float64, if they are at least two increasing times in [0, 1]; else ValueError."""
    try:
        times = np.asarray(values, dtype=np.float64).copy()
    except (TypeError, ValueError):
        times = np.empty(0)
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) > 0).all() or not 0 <= times[0] < times[-1] <= 1:
        raise ValueError(
            f"{where}: must be at least two increasing times in [0, 1], got {values!r}. "
            "time_grid.edm().times(path, num_steps) gives such."
        )
    return times


def _levels(path: Path, low: float, high: float) -> tuple[float, float]:
    """The bounds on the log-SNR, or the path's own values where they are between them."""
    return max(low, float(path.log_snr(0.0))), min(high, float(path.log_snr(1.0)))


def _at_log_snr(path: Path, values: FloatArray) -> FloatArray:
    times: FloatArray = time_at_log_snr(path, torch.from_numpy(values)).numpy()
    return times
