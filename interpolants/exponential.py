r"""Steps that are exact for a polynomial prediction: solvers that call the network once a step.

In the space of the data the drift v + w/2 score = a x + b data is linear in x. With lambda = log(alpha / sigma) and g^2
the squared amplitude of the forward SDE its solution from time t to s is, for any w,

.. math:: x_s = \frac{\sigma_s}{\sigma_t} c_t x_t + \sigma_s \int_t^s \mathrm{data}(u) \, d\!\left[c_u
    \frac{\alpha_u}{\sigma_u}\right] + \sigma_s \sqrt{1 - c_t^2} \, z, \qquad
    c_u = \exp\left(-\int_u^s \frac{w}{g^2} \, d\lambda\right)

with z standard normal: c is the part of the noise in x that is kept, and 1 for the probability-flow ODE. The integral
over the polynomial through the last predictions, in lambda or in t, is a sum of them with weights that depend on the
path and the grid alone. In the space of the velocity the same reads x_s = x_t + int v du.

One prediction gives DDIM, or with w = g^2 the ancestral step of DDPM; two and three give exponential Adams-Bashforth,
whose integrals DPM-Solver++ (2M, 3M) and its SDE version approximate, and in the velocity Adams-Bashforth; with the
prediction at s among them they give the corrector of UniPC, or of Adams-Moulton. Sources: Song et al. (2021),
arXiv:2010.02502; Hochbruck & Ostermann (2010), doi:10.1017/S0962492910000048; Lu et al. (2022), arXiv:2211.01095; Zhao
et al. (2023), arXiv:2302.04867; Xue et al. (2023), arXiv:2309.05019.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from interpolants.coefficient import Coefficient
from interpolants.diffusion import DiffusionLike, choose
from interpolants.expression import t
from interpolants.path import Path
from interpolants.simplify import simplified
from interpolants.time_change import time_at_log_snr
from interpolants.time_grid import FloatArray, as_times

SPACES: Final = ("data", "velocity")
VARIABLES: Final = ("log_snr", "t")
TOLERANCE: Final = 1e-12
"""Two resolutions of a quadrature agree to this."""

_DEPTH: Final = 40.0  # e^-40 is nothing beside 1
_NODES: Final = 16  # of Gauss-Legendre's rule in a panel
_MAX_PANELS: Final = 4096
_MEMORY: Final = 0.3
_AMPLIFICATION: Final = 8.0


@dataclass(frozen=True)
class Steps:
    """x_{n+1} = carry[n] x_n + sum_i weights[n, i] q_{n-i} + noise[n] z, with q the prediction in ``space``.

    Attributes:
        times: The N + 1 times.
        space: data or velocity.
        carry: Shape (N,).
        weights: Of the newest prediction first, shape (N, order); 0 where there is none yet.
        noise: Standard deviation of the fresh noise, shape (N,).
        corrector: Weights of q_{n+1}, q_n, ..., shape (N, order + 1): they take the place of ``weights`` once q_{n+1}
            is known, and raise the order by one.
    """

    times: FloatArray
    space: str
    carry: FloatArray
    weights: FloatArray
    noise: FloatArray
    corrector: FloatArray


def steps(
    path: Path, times: Any, order: int, *, space: str = "data", variable: str = "log_snr", w: DiffusionLike = 0
) -> Steps:
    r"""The steps over a grid of times that are exact for a prediction which is a polynomial of degree ``order - 1``.

    The first steps, with fewer predictions behind them, are of lower order. So are those that touch an end where the
    log-SNR is infinite, if the polynomial is one in the log-SNR. With w each prediction has a noise of its own: a step
    leaves out those since which most of the noise is fresh, c < 0.3, and those that would amplify it, by weights whose
    absolute sum is above 8 times their sum.

    Args:
        path: With data at t = 1.
        times: N + 1 increasing times in [0, 1].
        order: Number of predictions in a step, at least 1.
        space: What is interpolated: "data" or "velocity".
        variable: Of the polynomial in the space of the data: "log_snr" or "t". That of the velocity is t.
        w: Squared noise amplitude, as in ``Path.sde``; only in the space of the data.

    Returns:
        The coefficients: in closed form where the variable is the log-SNR and w / g^2 is constant, as it is for the ODE
        and ``diffusion.kl_optimal``, and in the space of the velocity; else by quadrature to 1e-12.

    Raises:
        ValueError: If an argument is not valid.
        ArithmeticError: If a quadrature does not converge, for a w many thousand times g^2.
    """
    grid = _checked(path, times)
    if not isinstance(order, numbers.Integral) or order < 1:
        raise ValueError(f"order: must be an integer of at least 1, got {order!r}.")
    for name, value, valid in (("space", space, SPACES), ("variable", variable, VARIABLES)):
        if value not in valid:
            raise ValueError(f"{name}: must be one of {', '.join(valid)}, got {value!r}.")
    ratio = noise_ratio(path, w)
    if space == "velocity":
        if ratio.expr != 0:
            raise ValueError(f"w: must be 0 in the space of the velocity, got {w!r}. Take space='data'.")
        moments = np.diff(grid)[:, None] / np.arange(1.0, order + 2)
        kept, carry, position = np.ones(len(grid) - 1), np.ones(len(grid) - 1), grid
    else:
        alpha, sigma = path.alpha(grid), path.sigma(grid)
        kept, moments = _in_data_space(path, grid, ratio, variable, order + 1)
        carry, moments = sigma[1:] / sigma[:-1] * kept, alpha[1:, None] * moments
        position = _half_log_snr(path, grid) if variable == "log_snr" else grid
    noise = path.sigma(grid)[1:] * np.sqrt((1.0 - kept) * (1.0 + kept))
    weights, corrector = np.zeros((len(carry), order)), np.zeros((len(carry), order + 1))
    for n in range(len(carry)):
        nodes = position[max(0, n - order + 1) : n + 2][::-1]  # of the step's end, of its start, and of those before
        count = _remembered(kept[:n], order)
        row = _weights(nodes[1 : count + 1], position[n], position[n + 1], moments[n])
        while noise.any() and count > 1 and np.abs(row).sum() > _AMPLIFICATION * row.sum():
            count -= 1
            row = _weights(nodes[1 : count + 1], position[n], position[n + 1], moments[n])
        weights[n, :count] = row
        corrector[n, : len(nodes)] = _weights(nodes, position[n], position[n + 1], moments[n])
    return Steps(grid, space, carry, weights, noise, corrector)


def _remembered(kept: FloatArray, order: int) -> int:
    """How many predictions, that of the state at hand among them, were made of mostly the same noise."""
    since = np.cumprod(kept[::-1][: order - 1])
    return 1 + int((since > _MEMORY).sum())


def ancestral(path: Path, times: Any, eta: float = 1.0) -> Steps:
    r"""The steps of DDIM with noise, c^2 = 1 - eta^2 (1 - e^{-2h}) with h the step in lambda, of order one.

    eta = 0 is DDIM. eta = 1 is the ancestral step of DDPM and, for constant data, the exact solution with w = g^2.
    Source: Song et al. (2021), arXiv:2010.02502, equations 12 and 16.

    Raises:
        ValueError: If an argument is not valid.
    """
    grid = _checked(path, times)
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta: must be in [0, 1], got {eta!r}. 0 is DDIM, 1 is DDPM.")
    alpha, sigma = path.alpha(grid), path.sigma(grid)
    refreshed = -(eta**2) * np.expm1(-2 * np.diff(_half_log_snr(path, grid)))
    carry = sigma[1:] / sigma[:-1] * np.sqrt(1 - refreshed)
    weights = (alpha[1:] - carry * alpha[:-1])[:, None]
    corrector = np.concatenate([np.zeros_like(weights), weights], axis=1)
    return Steps(grid, "data", carry, weights, sigma[1:] * np.sqrt(refreshed), corrector)


def noise_ratio(path: Path, w: DiffusionLike) -> Coefficient:
    """w / g^2, with g^2 = 2 sigma W / alpha that of the forward SDE: 0 for the ODE, 1 for ``diffusion.kl_optimal``."""
    g_squared = path.forward_sde().g_squared.expr
    return Coefficient(simplified(choose(w).expr(path.alpha.expr, path.sigma.expr) / g_squared))


def _in_data_space(
    path: Path, grid: FloatArray, ratio: Coefficient, variable: str, count: int
) -> tuple[FloatArray, FloatArray]:
    r"""c_t, and :math:`(\sigma_s / \alpha_s) \int \theta^k \, d[c \alpha / \sigma]` for k < count, shape (N, count).

    theta runs from 0 to 1 over a step. With y = lambda - lambda_s in [-h, 0] the measure is
    :math:`(1 + w / g^2) c e^y dy`, of mass 1 - c_t e^{-h}.
    """
    half_log_snr = _half_log_snr(path, grid)
    h, end = np.diff(half_log_snr), half_log_snr[1:]
    is_constant = not ratio.expr.has(t)
    log_kept = -float(ratio.expr) * h if is_constant and ratio.expr != 0 else np.zeros(len(h))
    moments = np.ones((len(h), count))  # where the step ends without noise, all of the measure is at its end
    inner = np.isfinite(end)
    if is_constant and variable == "log_snr":
        moments[inner] = _gamma_moments(h[inner], 1.0 + float(ratio.expr), count)
    else:
        moments[inner], log_kept[inner] = _converged(path, ratio, variable, grid, inner, count)
    moments[:, 0] = -np.expm1(log_kept - h)
    return np.exp(log_kept), moments


def _gamma_moments(h: FloatArray, kappa: float, count: int) -> FloatArray:
    r"""int theta^k kappa e^{kappa y} dy over [-h, 0], theta = 1 + y / h, by the binomial theorem from

    .. math:: \int_{-h}^0 (-y)^j \kappa e^{\kappa y} \, dy = j! \, P(j + 1, \kappa h) / \kappa^j

    with P the regularised lower incomplete gamma function. Where h is infinite, theta is 1 where the measure is.
    """
    x = kappa * torch.from_numpy(h)[:, None]
    j = torch.arange(count, dtype=torch.float64)
    raw = torch.exp(torch.lgamma(j + 1)) * torch.special.gammainc(j + 1, x) / (-x) ** j
    binomials = torch.tensor([[math.comb(k, i) for i in range(count)] for k in range(count)], dtype=torch.float64)
    moments: FloatArray = (raw @ binomials.T).numpy()
    return moments


def _converged(
    path: Path, ratio: Coefficient, variable: str, grid: FloatArray, inner: npt.NDArray[np.bool_], count: int
) -> tuple[FloatArray, FloatArray]:
    """The moments of the inner steps and log c at their starts, with as many panels as they need."""
    panels, before = 4, None
    while panels <= _MAX_PANELS:
        now = _quadrature(path, ratio, variable, grid, inner, count, panels)
        if before is not None and all(
            np.abs(a - b).max(initial=0.0) < TOLERANCE for a, b in zip(now, before, strict=True)
        ):
            return now
        panels, before = 2 * panels, now
    fix = "Choose a smaller w." if ratio.expr != 0 else "Choose another grid or variable."
    raise ArithmeticError(f"steps: the quadrature with w / g^2 = {ratio.expr} on {path.name} does not converge. {fix}")


def _quadrature(
    path: Path,
    ratio: Coefficient,
    variable: str,
    grid: FloatArray,
    inner: npt.NDArray[np.bool_],
    count: int,
    panels: int,
) -> tuple[FloatArray, FloatArray]:
    half_log_snr = _half_log_snr(path, grid)
    end, h = half_log_snr[1:][inner], np.diff(half_log_snr)[inner]
    depth = np.where(np.isinf(h), _DEPTH, h)[:, None, None]
    nodes, weights, cumulative = _legendre()
    v = (np.arange(panels)[:, None] + (1 + nodes) / 2) / panels
    left, slope = _graded(v)
    y, width = -depth * left, depth * slope / panels / 2
    time = time_at_log_snr(path, torch.from_numpy(2 * (end[:, None, None] + y))).numpy()
    rho = ratio(time)
    # -log c: from a node to the end of its panel, and from there to the end of the step.
    of_panel = (width * rho) @ weights
    after = np.cumsum(of_panel[:, ::-1], axis=1)[:, ::-1]
    exponent = after[:, :, None] - (width * rho) @ cumulative.T
    density = width * weights * (1 + rho) * np.exp(y - exponent)
    start, stop = (times[inner][:, None, None] for times in (grid[:-1], grid[1:]))
    theta = (time - start) / (stop - start) if variable == "t" else 1 + y / h[:, None, None]
    moments = np.stack([(theta**k * density).sum((1, 2)) for k in range(count)], axis=1)
    return moments, -after[:, 0]


def _graded(v: FloatArray) -> tuple[FloatArray, FloatArray]:
    r"""1 - phi(v) and phi'(v), with phi from 0 to 1 and phi' proportional to (v (1 - v))^5.

    As a function of the log-SNR the time is often like a root at an end of a step; as one of v it is smooth there.
    """
    power = 6
    left = np.zeros_like(v)
    for k in range(power, 2 * power):
        left += math.comb(2 * power - 1, k) * (1 - v) ** k * v ** (2 * power - 1 - k)
    scale = math.factorial(2 * power - 1) / math.factorial(power - 1) ** 2
    return left, scale * (v * (1 - v)) ** (power - 1)


def _legendre() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Nodes and weights on [-1, 1], and the matrix that integrates from -1 to each node."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    values = np.polynomial.legendre.legvander(nodes, _NODES)
    k = np.arange(_NODES)
    integrals = np.column_stack([nodes + 1, (values[:, 2:] - values[:, :-2]) / (2 * k[1:] + 1)])
    # Coefficient k of a function is (k + 1/2) times its scalar product with the polynomial P_k.
    return nodes, weights, integrals @ ((k[:, None] + 0.5) * values[:, :-1].T * weights)


def _weights(nodes: FloatArray, start: float, stop: float, moments: FloatArray) -> FloatArray:
    """The weights at the nodes that give int theta^k dm for every degree below their number.

    Next to an infinite log-SNR the prediction at the start counts alone; a node there counts for nothing.
    """
    result = np.zeros(len(nodes))
    if np.isinf(start) or np.isinf(stop):
        result[nodes == start] = moments[0]
        return result
    used = np.isfinite(nodes)
    theta = (nodes[used] - start) / (stop - start)
    result[used] = np.linalg.solve(np.vander(theta, increasing=True).T, moments[: len(theta)])
    return result


def _half_log_snr(path: Path, grid: FloatArray) -> FloatArray:
    values: FloatArray = path.log_snr(grid) / 2
    return values


def _checked(path: Path, times: Any) -> FloatArray:
    """The times as an array of float64."""
    if not isinstance(path, Path) or path.data_end != 1:
        raise ValueError(f"path: must be a Path with data at t = 1, got {path!r}.")
    return as_times(times, "times")
