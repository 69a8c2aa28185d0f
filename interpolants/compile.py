"""From a sympy expression in time to a function of arrays that is accurate on all of [0, 1], both ends included.

An expression may be exact and its evaluation worthless: 1 - exp(u) loses every digit where u is small, cos(pi t / 2)
half of them next to t = 1, and sin(x)/x is NaN at 0. So an expression is compiled in whichever form a comparison with
60-digit arithmetic finds accurate, cheapest first:

    as a function of t,
    as a function of 1 - t (exact in floating point on [1/2, 1]),
    the first on [0, 1/2] and the second on (1/2, 1],
    next to an end as s^p times a polynomial in the distance s to it,

and where the value at an end itself is not the limit, the limit is put in its place.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import mpmath
import numpy as np
import sympy as sp

from interpolants.expression import t
from interpolants.limits import evaluate, leading, limit
from interpolants.printer import ArrayFunction, lambdified, namespace, quiet, to_float
from interpolants.simplify import simplified
from interpolants.stable import stable

TOLERANCE: Final = 4e-15
"""The relative error that is good enough to look for no other form."""
SERIES_TOLERANCE: Final = 1e-12
"""The relative error above which a polynomial next to an end is tried, which costs more operations."""
SERIES_WIDTHS: Final = (2**-4, 2**-7, 2**-10)
"""Tried in this order: a singularity beyond the end may be near."""
SERIES_LENGTH: Final = 14

_END_PROBES = tuple(10.0**-k for k in (1, 2, 3, 5, 7, 10))
_SERIES_PROBES = tuple(width * x for width in SERIES_WIDTHS for x in (0.3, 0.6, 0.95))
_MIDDLE_PROBES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True)
class Series:
    """s^power (coefficients[0] + coefficients[1] s + ...), for s <= width the distance to an end."""

    width: float
    power: float
    coefficients: tuple[float, ...]


@dataclass(frozen=True)
class Form:
    """A way to evaluate: ``in_t`` at t, or ``in_one_minus_t`` at 1 - t, or each on its half where both are given; next
    to an end by its series where it has one.
    """

    in_t: sp.Expr | None
    in_one_minus_t: sp.Expr | None = None
    near_noise: Series | None = None
    near_data: Series | None = None


@functools.cache
def compiled(expr: sp.Expr, backend: str = "torch") -> ArrayFunction:
    """A function from an array of times in [0, 1] to the values of ``expr``, limits at the ends, of equal shape.

    Args:
        expr: Free of symbols but ``t``; a Piecewise has conditions t <= c.
        backend: "torch", "numpy" or "jax".
    """
    if not expr.has(t):
        return lambdified(expr, backend)
    if isinstance(expr, sp.Piecewise):
        return _piecewise(expr, backend)
    form = _most_accurate_form(expr)
    wrong_ends = _wrong_ends(expr, form)
    function = _assemble(form, backend)
    return _with_limits(function, wrong_ends, backend) if wrong_ends else function


def sampled(expr: sp.Expr, times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``expr`` at ``times`` inside (0, 1), in plain float64: to look at an expression of which nothing is known yet."""
    values: np.ndarray[Any, Any] = lambdified(stable(expr), "numpy")(times)
    return values


def most_accurate(*equal: sp.Expr) -> sp.Expr:
    """That of several equal expressions whose best form has the smallest error; the first where it is exact enough."""
    errors = []
    for expr in equal:
        errors.append(_error(_most_accurate_form(expr), expr) if expr.has(t) else 0.0)
        if errors[-1] <= 10 * TOLERANCE:
            return expr
    return equal[int(np.argmin(errors))]


# A form as a function of arrays


def _assemble(form: Form, backend: str) -> ArrayFunction:
    function = _on_halves(form, backend)
    for end, series in ((0, form.near_noise), (1, form.near_data)):
        if series is not None:
            function = _with_series(function, end, series, backend)
    return function


def _on_halves(form: Form, backend: str) -> ArrayFunction:
    near_noise = lambdified(form.in_t, backend) if form.in_t is not None else None
    near_data = lambdified(form.in_one_minus_t, backend) if form.in_one_minus_t is not None else None
    if near_data is None:
        assert near_noise is not None
        return near_noise
    if near_noise is None:
        return lambda time: near_data(1 - time)
    where = namespace(backend)["where"]

    def halves(time: Any) -> Any:
        first = time <= 0.5
        return where(first, near_noise(where(first, time, 0.5)), near_data(where(first, 0.5, 1 - time)))

    return halves


def _with_series(elsewhere: ArrayFunction, end: int, series: Series, backend: str) -> ArrayFunction:
    where = namespace(backend)["where"]
    power = int(series.power) if series.power == int(series.power) else series.power

    def near_the_end(time: Any) -> Any:
        distance = time if end == 0 else 1 - time
        near = distance <= series.width
        s = where(near, distance, series.width)
        value = series.coefficients[-1]
        for coefficient in series.coefficients[-2::-1]:
            value = value * s + coefficient
        return where(near, s**power * value if power else value, elsewhere(where(near, 0.5, time)))

    return quiet(near_the_end, backend)


def _with_limits(function: ArrayFunction, ends: tuple[tuple[float, float], ...], backend: str) -> ArrayFunction:
    where = namespace(backend)["where"]

    def with_limits(time: Any) -> Any:
        inside = time
        for end, _ in ends:  # the formula never sees the end, so that its derivative is not NaN there
            inside = where(time == end, 0.5, inside)
        value = function(inside)
        for end, limiting in ends:
            value = where(time == end, limiting, value)
        return value

    return with_limits


def _piecewise(expr: sp.Piecewise, backend: str) -> ArrayFunction:
    where = namespace(backend)["where"]
    *pieces, (last, _) = expr.args
    function = compiled(last, backend)
    for piece, condition in reversed(pieces):
        if not (isinstance(condition, sp.Le) and condition.lhs == t and condition.rhs.is_Rational):
            raise ValueError(f"compiled: a Piecewise must have conditions t <= c, got {condition}.")
        function = _joined(where, float(condition.rhs), compiled(piece, backend), function)
    return function


def _joined(where: Any, at: float, before: ArrayFunction, after: ArrayFunction) -> ArrayFunction:
    def joined(time: Any) -> Any:
        first = time <= at
        return where(first, before(where(first, time, at)), after(where(first, at, time)))

    return joined


# The choice of a form


@functools.cache
def _most_accurate_form(expr: sp.Expr) -> Form:
    in_t = stable(expr)
    best = Form(in_t)
    error = _error(best, expr)
    if error > TOLERANCE:
        in_one_minus_t = stable(_around_data(expr))
        for form in (Form(None, in_one_minus_t), Form(in_t, in_one_minus_t)):
            form_error = _error(form, expr)
            if form_error < error / 2:
                best, error = form, form_error
            if error <= TOLERANCE:
                break
    for end, place in ((0, "near_noise"), (1, "near_data")):
        if _error(best, expr, end) > SERIES_TOLERANCE:
            forms = [replace(best, **{place: series}) for series in _series(expr, end)]
            best = min((best, *forms), key=lambda form: _error(form, expr, end))
    return best


def _around_data(expr: sp.Expr) -> sp.Expr:
    """``expr`` as a function of the distance 1 - t to the data end, which the symbol t then stands for."""
    mirrored = expr.subs(t, 1 - t)
    expanded = mirrored.replace(lambda e: e.is_Function, lambda e: e.func(*(sp.expand(a) for a in e.args)))
    return simplified(expanded)


def _series(expr: sp.Expr, end: int) -> Iterator[Series]:
    """Chebyshev interpolation of expr / s^p next to the end; none where expr is no power there."""
    try:
        power = leading(expr, end)[1]
    except ArithmeticError:
        return
    exponent = mpmath.mpf(int(power.p)) / int(power.q)

    def remainder(s: mpmath.mpf) -> mpmath.mpf:
        return evaluate(expr, s if end == 0 else 1 - s) / s**exponent

    for width in SERIES_WIDTHS:
        with mpmath.workdps(60):
            coefficients = mpmath.chebyfit(remainder, [mpmath.mpf(10) ** -30, width], SERIES_LENGTH)
            yield Series(width, float(exponent), tuple(float(c) for c in reversed(coefficients)))


def _wrong_ends(expr: sp.Expr, form: Form) -> tuple[tuple[float, float], ...]:
    """Each end where the form does not evaluate to the limit, and the limit."""
    in_numpy = _assemble(form, "numpy")
    limits = ((float(end), to_float(limit(expr, end))) for end in (0, 1))
    return tuple((end, value) for end, value in limits if not _agree(float(in_numpy(np.float64(end))), value))


def _agree(got: float, limiting: float) -> bool:
    return got == limiting or (math.isfinite(got) and abs(got - limiting) <= 4e-16 * abs(limiting))


def _error(form: Form, expr: sp.Expr, end: int | None = None) -> float:
    """The largest relative error in float64 over times next to both ends and between them, or next to one end."""
    function = _assemble(form, "numpy")
    distances = (*_END_PROBES, *_SERIES_PROBES) if end is not None else _END_PROBES
    times = [d if near == 0 else 1 - d for near in (0, 1) if end in (near, None) for d in distances]
    times += _MIDDLE_PROBES if end is None else ()
    return max(_relative_error(float(function(np.float64(time))), expr, time) for time in times)


def _relative_error(got: float, expr: sp.Expr, time: float) -> float:
    exact = evaluate(expr, mpmath.mpf(time), digits=60)
    if not math.isfinite(got):
        return math.inf
    # Between the ends a coefficient may cross zero, where only the absolute error means anything.
    floor = 1.0 if time in _MIDDLE_PROBES else 0.0
    scale = max(abs(exact), floor)
    return float(abs(got - exact) / scale) if scale else abs(got)
