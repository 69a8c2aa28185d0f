r"""Rigorous bounds of a function of time: interval arithmetic on Taylor series.

On a cell of half width h about m, with the Taylor coefficients c_k enclosed by intervals,

.. math:: |f(t)| \le \sum_{k < n} |c_k(m)| \, h^k + \sup_{\text{cell}} |c_n| \, h^n.

For a function that is zero in fact the first sum is of the size of the rounding, 1e-40 here, and the last term falls
with the n-th power of the cells. Source: Tucker (2011), Validated Numerics; Moore (1979).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import mpmath
import sympy as sp
from mpmath import iv

from interpolants.expression import t

ORDER: Final = 12
DIGITS: Final = 45
REMAINDER: Final = 1e-12
"""Of a series, at which a cell is small enough."""
MAX_DEPTH: Final = 5
"""Of the bisection of cells."""

Series = list[Any]


def bound(expr: sp.Expr, low: sp.Rational, high: sp.Rational, cells: int = 4) -> mpmath.mpf:
    """An upper bound of ``|expr|`` on [low, high]: proved, up to the correctness of mpmath's interval arithmetic.

    Raises:
        ArithmeticError: If a function in ``expr`` could not be enclosed, as next to a pole.
    """
    expr = expr.rewrite(sp.exp) if expr.has(sp.functions.elementary.hyperbolic.HyperbolicFunction) else expr
    edges = [low + (high - low) * sp.Rational(i, cells) for i in range(cells + 1)]
    before = iv.dps
    iv.dps = DIGITS
    try:
        with mpmath.workdps(DIGITS):  # else the bound would be rounded to nearest
            return max(_bound_on_cell(expr, a, b, MAX_DEPTH) for a, b in itertools.pairwise(edges))
    finally:
        iv.dps = before


def _bound_on_cell(expr: sp.Expr, low: sp.Rational, high: sp.Rational, depth: int) -> mpmath.mpf:
    middle, half = (low + high) / 2, (high - low) / 2
    h = _interval(half, half)
    try:
        remainder = abs(_series(expr, _interval(low, high))[ORDER]) * h**ORDER
        if depth == 0 or remainder.b <= REMAINDER:
            at_middle = _series(expr, _interval(middle, middle))
            return mpmath.mpf((sum(abs(c) * h**k for k, c in enumerate(at_middle[:ORDER])) + remainder).b)
    except ArithmeticError:
        if depth == 0:
            raise
    return max(_bound_on_cell(expr, low, middle, depth - 1), _bound_on_cell(expr, middle, high, depth - 1))


def _interval(low: sp.Rational, high: sp.Rational) -> Any:
    return iv.mpf([(iv.mpf(int(low.p)) / int(low.q)).a, (iv.mpf(int(high.p)) / int(high.q)).b])


def _series(expr: sp.Expr, time: Any) -> Series:
    """The Taylor coefficients of ``expr`` up to ORDER at every point of the interval ``time``."""
    if expr == t:
        return [time, iv.mpf(1), *[iv.mpf(0)] * (ORDER - 1)]
    if expr.is_number:
        return [_constant(expr), *[iv.mpf(0)] * ORDER]
    if expr.is_Add:
        return [sum(terms) for terms in zip(*(_series(a, time) for a in expr.args), strict=True)]
    if expr.is_Mul:
        first, *others = (_series(a, time) for a in expr.args)
        for other in others:
            first = _product(first, other)
        return first
    if expr.is_Pow and expr.exp.is_number:
        return _power(_series(expr.base, time), expr.exp)
    if expr.is_Pow:
        return _exp(_product(_log(_series(expr.base, time)), _series(expr.exp, time)))
    rules: dict[type, Callable[[Series], Series]] = {
        sp.exp: _exp, sp.log: _log, sp.asin: _asin, sp.atan: _atan,
        sp.sin: lambda u: _sin_cos(u)[0],
        sp.cos: lambda u: _sin_cos(u)[1],
        sp.tan: lambda u: _product(_sin_cos(u)[0], _power(_sin_cos(u)[1], sp.Integer(-1))),
        sp.acos: lambda u: [_constant(sp.pi / 2) - _asin(u)[0], *(-c for c in _asin(u)[1:])],
    }  # fmt: skip
    if expr.func not in rules:
        raise ArithmeticError(f"enclosure: no rule for {expr.func.__name__}.")
    return rules[expr.func](_series(expr.args[0], time))


def _constant(expr: sp.Expr) -> Any:
    """An interval about a real constant; sympy's evaluation is good to all the digits asked of it, but for the last."""
    if expr.is_Rational:
        return _interval(expr, expr)
    value = sp.N(expr, DIGITS + 10)
    if not value.is_Float:
        raise ArithmeticError(f"enclosure: {expr} is not a real number.")
    with mpmath.workdps(DIGITS + 10):
        number = mpmath.mpf(value._mpf_)
        return iv.mpf(
            [number - abs(number) * mpmath.mpf(10) ** -DIGITS, number + abs(number) * mpmath.mpf(10) ** -DIGITS]
        )


def _product(u: Series, v: Series) -> Series:
    return [sum(u[j] * v[k - j] for j in range(k + 1)) for k in range(ORDER + 1)]


def _power(u: Series, exponent: sp.Expr) -> Series:
    """u^p by u v' = p u' v; whole powers by products where u may be 0."""
    if exponent.is_Integer and exponent >= 0:
        result = [iv.mpf(1), *[iv.mpf(0)] * ORDER]
        for _ in range(int(exponent)):
            result = _product(result, u)
        return result
    _require(not (u[0].a <= 0 <= u[0].b), "a power of what may be 0")
    p = _constant(exponent)
    if exponent.is_Integer:
        first = u[0] ** int(exponent)
    else:
        _require(u[0].a > 0, "a root of what may be negative")
        first = iv.exp(p * iv.log(u[0]))
    v = [first]
    for k in range(1, ORDER + 1):
        v.append(sum((p * j - (k - j)) * u[j] * v[k - j] for j in range(1, k + 1)) / (k * u[0]))
    return v


def _exp(u: Series) -> Series:
    v = [iv.exp(u[0])]
    for k in range(1, ORDER + 1):
        v.append(sum(j * u[j] * v[k - j] for j in range(1, k + 1)) / k)
    return v


def _log(u: Series) -> Series:
    _require(u[0].a > 0, "a logarithm of what may be negative")
    v = [iv.log(u[0])]
    for k in range(1, ORDER + 1):
        v.append((u[k] - sum(j * v[j] * u[k - j] for j in range(1, k)) / k) / u[0])
    return v


def _sin_cos(u: Series) -> tuple[Series, Series]:
    s, c = [iv.sin(u[0])], [iv.cos(u[0])]
    for k in range(1, ORDER + 1):
        s.append(sum(j * u[j] * c[k - j] for j in range(1, k + 1)) / k)
        c.append(-sum(j * u[j] * s[k - j] for j in range(1, k + 1)) / k)
    return s, c


def _asin(u: Series) -> Series:
    """By its derivative u' (1 - u^2)^(-1/2), and monotone at order 0."""
    one_minus_square = [1 - c if k == 0 else -c for k, c in enumerate(_product(u, u))]
    return _integrated(u, _power(one_minus_square, sp.Rational(-1, 2)), mpmath.asin)


def _atan(u: Series) -> Series:
    one_plus_square = [1 + c if k == 0 else c for k, c in enumerate(_product(u, u))]
    return _integrated(u, _power(one_plus_square, sp.Integer(-1)), mpmath.atan)


def _integrated(u: Series, derivative: Series, increasing: Callable[[mpmath.mpf], mpmath.mpf]) -> Series:
    with mpmath.workdps(DIGITS + 10):
        slack = mpmath.mpf(10) ** -DIGITS
        v = [iv.mpf([increasing(mpmath.mpf(u[0].a)) - slack, increasing(mpmath.mpf(u[0].b)) + slack])]
    v += [sum(j * u[j] * derivative[k - j] for j in range(1, k + 1)) / k for k in range(1, ORDER + 1)]
    return v


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ArithmeticError(f"enclosure: {what}.")
