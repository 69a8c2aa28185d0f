r"""Densities of the time at which a loss is taken, on [0, 1] with t = 0 the noise and t = 1 the data.

A density is a density of any increasing function of time. With lambda = log_snr(t) on a path, W its Wronskian,

.. math:: p(t) = p(\lambda) \, \frac{d\lambda}{dt}, \qquad \frac{d\lambda}{dt} = \frac{2 W}{\alpha \sigma}

and the expected loss E_p[w loss] is that under any other density q that covers p, with the weight w p / q.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from interpolants.coefficient import Coefficient, precise
from interpolants.conditions import check_not_negative
from interpolants.expression import exact, t
from interpolants.limits import limit
from interpolants.path import Path
from interpolants.simplify import simplified
from interpolants.time_change import time_at_log_snr
from interpolants.weights import d_log_snr

TensorFunction = Callable[[Tensor], Tensor]

log_snr: Final = sp.Symbol("log_snr", real=True)
"""log(alpha^2 / sigma^2), the variable of a ``LogSNRDensity``."""

_BISECTIONS: Final = 60
_CELLS: Final = 4096


class TimeDensity:
    """A normalised density p(t) on a part of [0, 1], zero elsewhere.

    Args:
        name: For messages.
        expr: p(t) on the support, sympy in ``interpolants.t``, or None where there is no closed form.
        cdf: Its integral from the low end, a function of float64 times in the support.
        quantile: The inverse of ``cdf``, on [0, 1].
        support: (low, high).
        p: What evaluates ``expr`` or stands for it, a function of float64 times in the support; None compiles it.
    """

    def __init__(
        self,
        name: str,
        expr: sp.Expr | None,
        cdf: TensorFunction,
        quantile: TensorFunction,
        support: tuple[float, float] = (0.0, 1.0),
        p: TensorFunction | None = None,
    ) -> None:
        self.name, self.expr, self.support = name, expr, support
        self._p = p if p is not None else Coefficient(expr).kernel
        self._cdf, self._quantile = cdf, quantile

    @classmethod
    def from_quantile(cls, name: str, quantile: sp.Expr) -> TimeDensity:
        """The law of quantile(u) for uniform u, by bisection where its inverse is needed: p(t) = 1 / quantile'(u(t)).

        Args:
            name: For messages.
            quantile: Increasing from 0 to 1 on [0, 1]; sympy, with ``interpolants.t`` in the place of u.
        """
        forward, slope = Coefficient(quantile).kernel, Coefficient(sp.diff(quantile, t)).kernel
        inverse = functools.partial(_bisected, forward)
        return cls(name, None, inverse, forward, p=lambda time: 1 / slope(inverse(time)))

    def __call__(self, time: Tensor) -> Tensor:
        """p(t), shape and dtype of ``time``; 0 outside the support."""
        low, high = self.support
        at = precise(time)
        value = self._p(at.clamp(low, high))
        return torch.where((at >= low) & (at <= high), value, 0.0).to(time.dtype)

    def cdf(self, time: Tensor) -> Tensor:
        """The probability of a time below ``time``; shape and dtype of ``time``."""
        low, high = self.support
        at = precise(time)
        value = self._cdf(at.clamp(low, high)).clamp(0, 1)
        return torch.where(at <= low, 0.0, torch.where(at >= high, 1.0, value)).to(time.dtype)

    def quantile(self, probability: Tensor) -> Tensor:
        """The time below which lies ``probability``, in [0, 1]; shape and dtype of ``probability``."""
        return self._quantile(precise(probability)).clamp(*self.support).to(probability.dtype)

    def sample(
        self,
        shape: int | Sequence[int],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Independent times, as quantiles of uniform numbers: found in float64 and rounded once.

        Args:
            shape: A number of times, or the shape of the result.
            generator: Torch's default one where None.
            dtype, device: Of the result.
        """
        size = (shape,) if isinstance(shape, int) else tuple(shape)
        uniform_dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        return self.quantile(torch.rand(size, generator=generator, dtype=uniform_dtype, device=device)).to(dtype)

    def truncated(self, low: float, high: float) -> TimeDensity:
        """The law of a time given that it lies in [low, high]: p / (F(high) - F(low)) there, with F the ``cdf``.

        Raises:
            ValueError: If the support has no part with a positive probability in [low, high].
        """
        low, high = max(low, self.support[0]), min(high, self.support[1])
        start, stop = self.cdf(torch.tensor([low, high], dtype=torch.float64)).tolist()
        if not stop > start:
            raise ValueError(
                f"truncated: [low, high] must hold a part of the support {self.support} of {self.name}, "
                f"got {(low, high)!r} in common."
            )
        mass = stop - start
        return TimeDensity(
            self.name,
            self.expr / exact(mass) if self.expr is not None else None,
            lambda time: (self.cdf(time) - start) / mass,
            lambda u: self.quantile(start + mass * u),
            (low, high),
            lambda time: self._p(time) / mass,
        )

    def in_log_snr(self, path: Path) -> sp.Expr:
        """p(log_snr) = p(t) / (d log_snr / dt), as an expression in t.

        Raises:
            ValueError: If p has no closed form.
        """
        if self.expr is None:
            raise ValueError(f"in_log_snr: the density must have a closed form, got {self.name}.")
        return _simplified(self.expr / d_log_snr(path.alpha.expr, path.sigma.expr))

    def __repr__(self) -> str:
        return f"TimeDensity({self.name} on [{self.support[0]:g}, {self.support[1]:g}])"


@dataclass(frozen=True)
class LogSNRDensity:
    """A law of the log-SNR, which is a law of time on every path.

    Args:
        name: For messages.
        cdf: Sympy in ``time_density.log_snr``, from 0 at -oo to 1 at oo; of powers, exp, atan and erfc.
        quantile: Its inverse, a function of float64 numbers in [0, 1].
    """

    name: str
    cdf: sp.Expr
    quantile: TensorFunction

    @property
    def expr(self) -> sp.Expr:
        """p(log_snr), the derivative of the cdf."""
        return sp.diff(self.cdf, log_snr)

    def on(self, path: Path) -> TimeDensity:
        """p(t) = p(log_snr) d log_snr/dt on ``path``, normalised over the log-SNRs that the path has.

        Raises:
            ValueError: If the path has its data at t = 0, or hardly a log-SNR of the law.
        """
        return self._on(path, functools.partial(time_at_log_snr, path))

    def _on(self, path: Path, time_at: TensorFunction) -> TimeDensity:
        if path.data_end != 1:
            raise ValueError(f"{self.name}: path must have data at t = 1, got {path.name!r}. Pass the original path.")
        ends = [sp.limit(self.cdf, log_snr, path.log_snr.limit(end)) for end in (0, 1)]
        mass = ends[1] - ends[0]
        start, total = float(sp.N(ends[0], 30)), float(sp.N(mass, 30))
        if not total > 1e-6:
            raise ValueError(
                f"{self.name}: must have a log-SNR of the path {path.name!r} with a probability above 1e-06, "
                f"got {total:.3g}. Choose a mean nearer to the path's log-SNRs."
            )
        cdf, p = (sp.lambdify(log_snr, e, modules=[_TORCH]) for e in (self.cdf, self.expr))
        rate = Coefficient(d_log_snr(path.alpha.expr, path.sigma.expr))

        def product(time: Tensor) -> Tensor:
            value = p(path.log_snr.kernel(time))
            return torch.where(value > 0, value * rate.kernel(time) / total, 0.0)  # 0, not 0 times infinity

        expr = _simplified(self.expr.subs(log_snr, path.log_snr.expr) * rate.expr) / mass
        return TimeDensity(
            self.name,
            expr,
            lambda time: (cdf(path.log_snr.kernel(time)) - start) / total,
            lambda u: time_at(self.quantile(start + total * u)),
            p=product if expr.has(sp.log) else None,
        )


def _simplified(expr: sp.Expr) -> sp.Expr:
    """The expression in lowest terms, but for one with a logarithm: nothing cancels with it."""
    return expr if expr.has(sp.log) else simplified(expr)


_TORCH: Final = {
    "atan": torch.atan, "exp": torch.exp, "erfc": torch.special.erfc, "pi": math.pi, "sqrt": lambda x: x**0.5,
}  # fmt: skip


def normal(mean: float, std: float) -> LogSNRDensity:
    """log_snr ~ N(mean, std^2)."""
    _check_positive(std, "normal: std")
    m, s = exact(mean), exact(std)
    return LogSNRDensity(
        f"normal({mean:g}, {std:g})",
        sp.erfc((m - log_snr) / (s * sp.sqrt(2))) / 2,
        lambda u: mean + std * torch.special.ndtri(u),
    )


def sech() -> LogSNRDensity:
    """The hyperbolic secant law, of density 1 / (2 pi cosh(log_snr / 2))."""
    return LogSNRDensity(
        "sech",
        2 * sp.atan(sp.exp(log_snr / 2)) / sp.pi,
        lambda u: 2 * torch.log(torch.tan(torch.pi * u / 2)),
    )


def uniform(low: float = 0.0, high: float = 1.0) -> TimeDensity:
    """p(t) = 1 / (high - low) on [low, high].

    Raises:
        ValueError: Unless 0 <= low < high <= 1.
    """
    if not 0.0 <= low < high <= 1.0:
        raise ValueError(f"uniform: low and high must have 0 <= low < high <= 1, got {(low, high)!r}.")
    return TimeDensity(
        f"uniform({low:g}, {high:g})",
        1 / (exact(high) - exact(low)),
        lambda time: (time - low) / (high - low),
        lambda u: low + (high - low) * u,
        (low, high),
    )


def logit_normal(mean: float = 0.0, std: float = 1.0) -> TimeDensity:
    r"""log(t / (1 - t)) ~ N(mean, std^2):

    .. math:: p(t) = \frac{1}{s \sqrt{2 \pi} \, t (1 - t)} \exp\left(-\frac{(\mathrm{logit}(t) - m)^2}{2 s^2}\right)

    A positive mean favours times near the data. In its source t = 0 is the data: the m there is minus this one. Source:
    Esser et al. (2024), arXiv:2403.03206.
    """
    _check_positive(std, "logit_normal: std")
    law = replace(normal(2 * mean, 2 * std), name=f"logit_normal({mean:g}, {std:g})")
    return law._on(_linear(), _time_on_the_line)


def mode(scale: float = 1.29) -> TimeDensity:
    r"""The law of t = u + scale (u - sin(pi u / 2)^2) for uniform u: heavy tails, and a mode at t = 1/2 if scale > 0.

    Symmetric about 1/2, so that it is the same in the time of its source, where t = 0 is the data:
    1 - t = 1 - u - scale (cos(pi u / 2)^2 - 1 + u). Source: Esser et al. (2024), arXiv:2403.03206.

    Args:
        scale: -1 < scale < 2 / (pi - 2) = 1.75; 0 is uniform.

    Raises:
        ValueError: If ``scale`` is not in the range where t increases with u.
    """
    largest = 2 / (math.pi - 2)
    if not -1.0 < scale < largest:
        raise ValueError(f"mode: scale must be in (-1, 2 / (pi - 2)) = (-1, {largest:.4f}), got {scale!r}.")
    return TimeDensity.from_quantile(f"mode({scale:g})", t + exact(scale) * (t - sp.sin(sp.pi * t / 2) ** 2))


def cos_map() -> TimeDensity:
    """p(t) = 2 / (pi (1 - 2 t + 2 t^2)): on the straight line, the log-SNRs of the cosine schedule.

    Symmetric about 1/2. Source: Esser et al. (2024), arXiv:2403.03206.
    """
    return replace(sech(), name="cos_map")._on(_linear(), _time_on_the_line)


def cosh(path: Path) -> TimeDensity:
    """p(log_snr) = sech(log_snr / 2) / (2 pi), and p(t) = 2 W / (pi (alpha^2 + sigma^2)): the cosine schedule's.

    Normalised over the log-SNRs of ``path``. Source: Kingma & Gao (2023), arXiv:2303.00848.
    """
    return replace(sech(), name="cosh").on(path)


def log_normal_sigma(path: Path, mean: float = -1.2, std: float = 1.2) -> TimeDensity:
    """log(sigma / alpha) ~ N(mean, std^2), so that log_snr ~ N(-2 mean, (2 std)^2).

    Normalised over the log-SNRs of ``path``. Source: Karras et al. (2022), arXiv:2206.00364, table 1.
    """
    _check_positive(std, "log_normal_sigma: std")
    return replace(normal(-2 * mean, 2 * std), name=f"log_normal_sigma({mean:g}, {std:g})").on(path)


def proportional_to(
    function: TensorFunction, support: tuple[float, float] = (0.0, 1.0), name: str = "tabulated"
) -> TimeDensity:
    """The density proportional to ``function``, constant on each of 4,096 cells, with the integrals of it over them.

    What is drawn has this density, steps included: a weight with it in the denominator is unbiased.

    Args:
        function: Of float64 times inside the support, >= 0 and of finite integral. Never called at the ends.
        support: (low, high).
        name: For messages.

    Raises:
        ValueError: If ``function`` is negative, not finite or zero everywhere.
    """
    low, high = support
    edges = torch.linspace(low, high, _CELLS + 1, dtype=torch.float64)
    nodes, node_weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(5))
    width = (high - low) / _CELLS
    values = function(edges[:-1, None] + width / 2 * (nodes + 1)).to(edges.dtype)
    mass = values @ node_weights
    if not (bool((values >= 0).all()) and math.isfinite(mass.sum()) and mass.sum() > 0):
        raise ValueError(f"proportional_to: {name} must be finite, >= 0 and not zero everywhere inside {support}.")
    below = torch.cat([torch.zeros(1, dtype=torch.float64), mass.cumsum(0)])
    mass, below = mass / below[-1], below / below[-1]
    last = int(mass.nonzero().max())  # quantile(1) is its end

    def cell(sorted_table: Tensor, value: Tensor) -> Tensor:
        return (torch.searchsorted(sorted_table.to(value), value.contiguous(), right=True) - 1).clamp(0, _CELLS - 1)

    def p(time: Tensor) -> Tensor:
        return (mass / width).to(time)[cell(edges, time)]

    def cdf(time: Tensor) -> Tensor:
        i = cell(edges, time)
        return below.to(time)[i] + (time - edges.to(time)[i]) * (mass / width).to(time)[i]

    def quantile(u: Tensor) -> Tensor:
        i = cell(below, u).clamp(max=last)
        return edges.to(u)[i] + (u - below.to(u)[i]) / (mass / width).to(u)[i]

    return TimeDensity(name, None, cdf, quantile, support, p)


def optimal(weight: Coefficient, density: TimeDensity) -> TimeDensity:
    """The q proportional to w p: of all densities, that whose weight w p / q varies least, being constant.

    Raises:
        ValueError: If w p has no finite integral, or w is negative or not finite somewhere inside the support of p.
    """
    low, high = map(exact, density.support)
    check_not_negative(weight.expr, "optimal", f"weight = {weight.expr}", low, high)
    expr = weight.expr * (density.expr if density.expr is not None else 1)
    for end, distance in ((0, t), (1, 1 - t)):
        if density.support[end] == end and limit(simplified(distance * expr), end) != 0:
            raise ValueError(
                f"optimal: weight times density must have a finite integral, got {expr} at t = {end}. "
                "Truncate the density."
            )
    return proportional_to(
        lambda time: weight.kernel(time) * density(time), density.support, f"optimal for {density.name}"
    )


def importance_sampled(
    weight: TensorFunction, density: TimeDensity, proposal: TimeDensity
) -> tuple[TimeDensity, TensorFunction]:
    r"""(q, w p / q), with the expected loss of (p, w):

    .. math:: \mathbb E_{t \sim q}\left[\frac{w p}{q}(t) \, \ell(t)\right] = \mathbb E_{t \sim p}[w(t) \, \ell(t)]

    Args:
        weight: w, such as a Coefficient.
        density: p.
        proposal: q, positive where p is.

    Raises:
        ValueError: If the support of q does not hold that of p.
    """
    (low, high), (start, stop) = proposal.support, density.support
    if not (low <= start and stop <= high):
        raise ValueError(
            f"importance_sampled: the support of proposal must hold that of density, {density.support}, "
            f"got {proposal.support}."
        )

    def importance(time: Tensor) -> Tensor:
        at = precise(time).clamp(low, high)  # a time rounded to float32 may lie a little outside
        return (weight(at) * density(at) / proposal(at)).to(time.dtype)

    return proposal, importance


def _linear() -> Path:
    return Path(t, 1 - t, name="linear")


def _time_on_the_line(value: Tensor) -> Tensor:
    return torch.sigmoid(value / 2)


def _bisected(increasing: TensorFunction, value: Tensor) -> Tensor:
    """The u in [0, 1] with increasing(u) = value."""
    low, high = torch.zeros_like(value), torch.ones_like(value)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        below = increasing(middle) < value
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _check_positive(value: float, where: str) -> None:
    if not value > 0:
        raise ValueError(f"{where} must be positive, got {value!r}.")
