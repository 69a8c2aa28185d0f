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
import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

import mpmath
import numpy as np
import sympy as sp
import torch

from interpolants import probes
from interpolants.expression import t
from interpolants.limits import evaluate, leading, limit
from interpolants.printer import ArrayFunction, lambdified, namespace, quiet, to_float, u
from interpolants.simplify import simplified
from interpolants.stable import stable

TOLERANCE: Final = 4e-15
"""The relative error that is good enough to look for no other form."""
SERIES_TOLERANCE: Final = 1e-12
"""The relative error above which a polynomial next to an end is tried, which costs more operations."""
SERIES_WIDTHS: Final = (2**-4, 2**-7, 2**-10)
"""Tried in this order: a singularity beyond the end may be near."""
SERIES_LENGTH: Final = 14


@dataclass(frozen=True)
class Series:
    """s^power (coefficients[0] + coefficients[1] r + ...), r = s^(1 / root), for s <= width the distance to an end."""

    width: float
    power: float
    root: int
    coefficients: tuple[float, ...]


@dataclass(frozen=True)
class Form:
    """A way to evaluate: ``whole`` everywhere, or up to t = 1/2 where ``data_half`` is given, which is for the other
    half; next to an end by its series where it has one. Each is an expression in t and u = 1 - t.
    """

    whole: sp.Expr
    data_half: sp.Expr | None = None
    near_noise: Series | None = None
    near_data: Series | None = None


@dataclass(frozen=True)
class End:
    """An end where a form is not the limit: ``excess`` too large, by rounding, or worthless. The value is then
    limit + slope * distance, so that the derivative there is right too.
    """

    time: int
    limit: float
    excess: float = 0.0
    slope: float = 0.0


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
    factor, logarithm = expr.as_coeff_Mul()
    if isinstance(logarithm, sp.log) and _error(form, expr) > SERIES_TOLERANCE:
        return _logarithm(float(factor), compiled(logarithm.args[0], backend), backend)
    wrong_ends = tuple(_wrong_ends(expr, form))
    function = _assemble(form, backend)
    return _with_limits(function, wrong_ends, backend) if wrong_ends else function


def _logarithm(factor: float, argument: ArrayFunction, backend: str) -> ArrayFunction:
    """factor * log(argument): the argument may have a series next to an end where the logarithm has none."""
    log = namespace(backend)["log"]
    return quiet(lambda time: factor * log(argument(time)), backend)


def sampled(expr: sp.Expr, times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``expr`` at ``times`` inside (0, 1), in plain float64: to look at an expression of which nothing is known yet."""
    values: np.ndarray[Any, Any] = lambdified(stable(expr), "numpy")(times)
    return values


def sampled_slope(expr: sp.Expr, times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The derivative of ``expr`` at ``times`` inside (0, 1), by autograd, which is faster than to derive it."""
    if not expr.has(t):
        return np.zeros_like(times)
    with torch.inference_mode(False), torch.enable_grad():
        time = torch.tensor(times, device="cpu", requires_grad=True)
        (slope,) = torch.autograd.grad(lambdified(stable(expr), "torch")(time).sum(), time)
    values: np.ndarray[Any, Any] = slope.numpy()
    return values


# A form as a function of arrays


def _assemble(form: Form, backend: str) -> ArrayFunction:
    function = _on_halves(form, backend)
    for end, series in ((0, form.near_noise), (1, form.near_data)):
        if series is not None:
            function = _with_series(function, end, series, backend)
    return function


def _on_halves(form: Form, backend: str) -> ArrayFunction:
    first = lambdified(form.whole, backend)
    if form.data_half is None:
        return first
    # Neither half sees the other's times, so that no derivative is NaN.
    functions, last = namespace(backend), lambdified(form.data_half, backend)
    return _joined(functions["where"], functions["clip"], 0.5, first, last)


def _with_series(elsewhere: ArrayFunction, end: int, series: Series, backend: str) -> ArrayFunction:
    where, sqrt = namespace(backend)["where"], namespace(backend)["sqrt"]
    power = int(series.power) if series.power == int(series.power) else series.power

    def near_the_end(time: Any) -> Any:
        distance = time if end == 0 else 1 - time
        near = distance <= series.width
        s = where(near, distance, series.width)
        r = sqrt(s) if series.root == 2 else s
        value = series.coefficients[-1]
        for coefficient in series.coefficients[-2::-1]:
            value = value * r + coefficient
        return where(near, s**power * value if power else value, elsewhere(where(near, 0.5, time)))

    return quiet(near_the_end, backend)


def _with_limits(function: ArrayFunction, ends: tuple[End, ...], backend: str) -> ArrayFunction:
    where = namespace(backend)["where"]

    def with_limits(time: Any) -> Any:
        inside = time
        for end in ends:  # the formula never sees an end where it fails, so that its derivative is not NaN there
            if not end.excess:
                inside = where(time == end.time, 0.5, inside)
        value = function(inside)
        for end in ends:
            if end.excess:
                at_end = value - end.excess
            else:
                at_end = end.limit + end.slope * (time - end.time) if end.slope else end.limit
            value = where(time == end.time, at_end, value)
        return value

    return with_limits


def _piecewise(expr: sp.Piecewise, backend: str) -> ArrayFunction:
    functions = namespace(backend)
    *pieces, (last, _) = expr.args
    function = compiled(last, backend)
    for piece, condition in reversed(pieces):
        if not (isinstance(condition, sp.Le) and condition.lhs == t and condition.rhs.is_Rational):
            raise ValueError(f"compiled: a Piecewise must have conditions t <= c, got {condition}.")
        function = _joined(
            functions["where"], functions["clip"], float(condition.rhs), compiled(piece, backend), function
        )
    return function


def _joined(
    where: Callable[..., Any], clip: Callable[..., Any], at: float, before: ArrayFunction, after: ArrayFunction
) -> ArrayFunction:
    return lambda time: where(time <= at, before(clip(time, None, at)), after(clip(time, at, None)))


# The choice of a form


@functools.cache
def _most_accurate_form(expr: sp.Expr) -> Form:
    best, error = Form(expr), math.inf
    for form in _forms(expr):
        form_error = _error(form, expr)
        if form_error < error / 2:
            best, error = form, form_error
        if error <= TOLERANCE:
            break
    for end, place in ((0, "near_noise"), (1, "near_data")):
        if error > SERIES_TOLERANCE and _error(best, expr, end) > SERIES_TOLERANCE:
            forms = [replace(best, **{place: series}) for series in _series(expr, end)]
            best = min((best, *forms), key=lambda form: _error(form, expr, end))
    return best


def _forms(expr: sp.Expr) -> Iterator[Form]:
    in_t = stable(expr)
    yield Form(in_t)
    around_data = _around_data(expr)
    in_u = stable(around_data).xreplace({t: u})
    yield Form(in_u)
    yield Form(_by_factors(in_t))
    yield Form(in_t, in_u)
    normal_in_u = stable(simplified(around_data)).xreplace({t: u})
    yield Form(normal_in_u)
    yield Form(in_t, normal_in_u)


def _around_data(expr: sp.Expr) -> sp.Expr:
    """``expr`` as a function of the distance 1 - t to the data end, which the symbol t then stands for."""
    mirrored = expr.subs(t, 1 - t)
    return mirrored.replace(lambda e: e.is_Function, lambda e: e.func(*(sp.expand(a) for a in e.args)))


def _by_factors(expr: sp.Expr) -> sp.Expr:
    """Each factor in t or in u, whichever is more accurate."""
    if expr.is_Mul or expr.is_Pow:
        return expr.func(*map(_by_factors, expr.args))
    if not expr.has(t):
        return expr
    if isinstance(expr, sp.tan):
        return _by_factors(sp.sin(expr.args[0])) / _by_factors(sp.cos(expr.args[0]))
    forms = (Form(expr), Form(stable(_around_data(expr)).xreplace({t: u})))
    return min(forms, key=lambda form: _error(form, expr)).whole


def _series(expr: sp.Expr, end: int) -> Iterator[Series]:
    """Polynomials in s, or in its square root, that equal expr / s^p in the Chebyshev points next to the end; none
    where expr is no power there.
    """
    try:
        power = leading(expr, end)[1]
    except ArithmeticError:
        return

    @functools.cache
    def scaled(root: int, r: mpmath.mpf) -> mpmath.mpf:
        s = r**root
        return evaluate(expr, s if end == 0 else 1 - s, digits=60) / s ** (mpmath.mpf(int(power.p)) / int(power.q))

    for root, width in itertools.product((1, 2), SERIES_WIDTHS):
        with mpmath.workdps(60):
            polynomial = mpmath.chebyfit(functools.partial(scaled, root), [0, mpmath.root(width, root)], SERIES_LENGTH)
        yield Series(width, float(power), root, tuple(map(float, reversed(polynomial))))


def _wrong_ends(expr: sp.Expr, form: Form) -> Iterator[End]:
    # In a thread of its own, which no grad mode, transform or tracer of the caller reaches.
    with ThreadPoolExecutor(1) as thread:
        values, slopes = thread.submit(_at_ends, _assemble(form, "torch")).result()
    for time, got, slope in zip((0, 1), values, slopes, strict=True):
        limiting = to_float(limit(expr, time))
        if math.isclose(got, limiting, rel_tol=4e-16):
            if math.isnan(slope) and (exact := _slope(expr, time)) is not None:
                yield End(time, limiting, slope=exact)
        elif math.isclose(got, limiting, rel_tol=SERIES_TOLERANCE):
            yield End(time, limiting, excess=got - limiting)
        else:
            yield End(time, limiting, slope=_slope(expr, time) or 0.0)


def _at_ends(function: ArrayFunction) -> tuple[list[float], list[float]]:
    """The values at both ends, and the derivatives by autograd."""
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device="cpu", requires_grad=True)
    values = function(ends)
    (slopes,) = torch.autograd.grad(values.sum() + 0 * ends.sum(), ends)  # a form may turn out to be constant
    return values.tolist(), slopes.tolist()


def _slope(expr: sp.Expr, end: int) -> float | None:
    """The derivative at an end, by differences of which each is much nearer to it; None where they do not agree."""
    with mpmath.workdps(120):
        steps = [mpmath.mpf(10) ** -k for k in (10, 20, 40)]
        values = [evaluate(expr, end + (1 - 2 * end) * step) for step in steps]
        farther, nearer = ((1 - 2 * end) * (values[i] - values[i + 1]) / (steps[i] - steps[i + 1]) for i in range(2))
        return float(nearer) if abs(nearer - farther) <= 1e-6 * (1 + abs(nearer)) else None


def _error(form: Form, expr: sp.Expr, end: int | None = None) -> float:
    """The largest relative error in float64 over times next to both ends and between them, or next to one end."""
    distances = (*probes.NEAR, *(width / part for width in SERIES_WIDTHS for part in (1, 2, 3)))
    times = probes.EVERYWHERE if end is None else [d if end == 0 else 1 - d for d in distances]
    values = _assemble(form, "numpy")(np.array(times)).tolist()
    return max(_relative_error(got, expr, time) for got, time in zip(values, times, strict=True))


def _relative_error(got: float, expr: sp.Expr, time: float) -> float:
    exact = _exact(expr, time)
    if not math.isfinite(got):
        return math.inf
    # Between the ends a coefficient may cross zero, where only the absolute error means anything.
    floor = 1.0 if time in probes.BETWEEN else 0.0
    scale = max(abs(exact), floor)
    return float(abs(got - exact) / scale) if scale else abs(got)


@functools.lru_cache(maxsize=4096)
def _exact(expr: sp.Expr, time: float) -> mpmath.mpf:
    return evaluate(expr, mpmath.mpf(time), digits=60)
