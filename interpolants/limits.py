"""What a function of time does at the two ends of [0, 1]: c s^p to leading order in the distance s to the end.

Found exactly where the normal form allows it, else by evaluation next to the end; either way confirmed in 800-digit
arithmetic at distances 1e-40 and 1e-80, where what is smaller by a root of the distance is smaller by 20 digits.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Final

import mpmath
import sympy as sp

from interpolants.expression import t
from interpolants.printer import high_precision
from interpolants.simplify import is_zero, simplified

_DIGITS: Final = 800
with mpmath.workdps(_DIGITS):
    _NEAR, _NEARER = mpmath.mpf(10) ** -40, mpmath.mpf(10) ** -80
_TOLERANCE: Final = 1e-15
MAX_ORDER: Final = 8
"""Of the zero of a factor at an end, up to which it is found exactly."""


def evaluate(expr: sp.Expr, at: mpmath.mpf, digits: int = _DIGITS) -> mpmath.mpf:
    """The value of ``expr`` at time ``at``, in ``digits``-digit arithmetic; infinite where it divides by zero."""
    with mpmath.workdps(digits):
        try:
            value = high_precision(expr, digits)(at)
        except ZeroDivisionError:
            return mpmath.inf
        return mpmath.re(value) if mpmath.im(value) == 0 else mpmath.nan


@functools.cache
def limit(expr: sp.Expr, end: int) -> sp.Expr:
    """The one-sided limit of ``expr`` at ``end``, from inside [0, 1]: oo, -oo, or an exact number; where none is found
    exactly, the value to 15 digits or more that evaluation next to the end approaches.

    Raises:
        ValueError: If ``end`` is neither 0 nor 1.
        ArithmeticError: If there is no limit that evaluation next to the end confirms.
    """
    _check_end(end)
    expr = _piece(expr, end)
    if not expr.has(t):
        return expr
    factor, logarithm = expr.as_coeff_Mul()
    if isinstance(logarithm, sp.log):
        inner = limit(logarithm.args[0], end)
        return factor * (-sp.oo if inner == 0 else sp.log(inner))
    near, nearer = _probes(expr, end)
    if abs(nearer) > 1.15 * abs(near) and abs(nearer) > 1:  # a logarithm grows by a factor of two from one to the other
        return sp.oo if nearer > 0 else -sp.oo
    candidate = _substituted(expr, end)
    if _confirmed(candidate, near, nearer):
        return sp.Integer(0) if _vanishes(candidate) else candidate
    try:
        coefficient, power = leading(expr, end)
    except ArithmeticError:
        if abs(nearer) < abs(near) / 1.15 and near * nearer > 0:  # as 1 / log(s) does
            return sp.Integer(0)
        raise
    if power < 0:
        return sp.oo if coefficient > 0 else -sp.oo
    return sp.Integer(0) if power > 0 else coefficient


@functools.cache
def leading(expr: sp.Expr, end: int) -> tuple[sp.Expr, sp.Rational]:
    r"""(c, p) of expr = c s^p (1 + o(1)), with s = t at end 0 and s = 1 - t at end 1; c is not 0.

    A pole has p < 0: its order is -p. For ``expr`` = 0 it is (0, 0).

    Raises:
        ArithmeticError: If the expression is no power of s next to the end, such as a logarithm.
    """
    _check_end(end)
    expr = _piece(expr, end)
    if is_zero(expr):
        return sp.Integer(0), sp.Integer(0)
    near, nearer = _probes(expr, end)
    try:
        product = simplified(expr).replace(sp.tan, lambda u: sp.sin(u) / sp.cos(u))
        coefficient, power = _leading_of_product(product, end)
    except ArithmeticError:
        coefficient, power = sp.nan, _power(expr, near, nearer, end)
    with mpmath.workdps(_DIGITS):
        scaled = [value / step ** _number(power) for value, step in ((near, _NEAR), (nearer, _NEARER))]
    if _confirmed(coefficient, *scaled):
        return coefficient, power
    power = _power(expr, near, nearer, end)
    with mpmath.workdps(_DIGITS):
        first, second = (value / step ** _number(power) for value, step in ((near, _NEAR), (nearer, _NEARER)))
        if abs(first - second) <= _TOLERANCE * abs(second):
            return _recognised(second), power
    raise ArithmeticError(f"limit: {expr} is no power of the distance to t = {end}, and no limit was found.")


def _check_end(end: int) -> None:
    if end not in (0, 1):
        raise ValueError(f"limit: end must be 0 (noise) or 1 (data), got {end!r}.")


def _piece(expr: sp.Expr, end: int) -> sp.Expr:
    """The piece of a piecewise function that reaches the end."""
    if isinstance(expr, sp.Piecewise):
        result: sp.Expr = expr.args[0 if end == 0 else -1][0]
        return result
    return expr


def _probes(expr: sp.Expr, end: int) -> tuple[mpmath.mpf, mpmath.mpf]:
    with mpmath.workdps(_DIGITS):
        near, nearer = (evaluate(expr, end + (1 - 2 * end) * step) for step in (_NEAR, _NEARER))
    return near, nearer


def _leading_of_product(expr: sp.Expr, end: int) -> tuple[sp.Expr, sp.Rational]:
    coefficient, power = sp.Integer(1), sp.Integer(0)
    for factor in sp.Mul.make_args(expr):
        base, exponent = factor.as_base_exp() if not isinstance(factor, sp.exp) else (factor, sp.Integer(1))
        if not exponent.is_Rational:
            base, exponent = factor, sp.Integer(1)
        of_base, order = _leading_of_factor(base, end)
        coefficient, power = coefficient * of_base**exponent, power + order * exponent
    return coefficient, power


def _leading_of_factor(factor: sp.Expr, end: int) -> tuple[sp.Expr, sp.Rational]:
    """By Taylor's formula: the first derivative that is not zero at the end."""
    derivative = factor
    for order in range(MAX_ORDER + 1):
        value = _substituted(derivative, end)
        if not value.is_finite:
            break
        if not _vanishes(value):
            return (1 - 2 * end) ** order * value / sp.factorial(order), sp.Integer(order)
        derivative = sp.diff(derivative, t)
    raise ArithmeticError(f"limit: {factor} is not smooth at t = {end}.")


def _vanishes(number: sp.Expr) -> bool:
    """Whether a number is 0, by its digits: of nested roots no normal form shows it."""
    return bool(abs(evaluate(number, _NEAR)) < _NEARER**8)


def _substituted(expr: sp.Expr, end: int) -> sp.Expr:
    try:
        value = expr.subs(t, end)
        return value if value.is_number else sp.nan  # such as the interval that sympy makes of atan at a pole
    except (ValueError, TypeError):  # sympy's comparisons of what is not a number, in Min and Max
        return sp.nan


def _power(expr: sp.Expr, near: mpmath.mpf, nearer: mpmath.mpf, end: int) -> sp.Rational:
    """The exponent that two evaluations next to the end imply."""
    with mpmath.workdps(_DIGITS):
        if mpmath.isfinite(near) and mpmath.isfinite(nearer) and near and nearer:
            power = mpmath.log(abs(near / nearer)) / mpmath.log(_NEAR / _NEARER)
            nearest = _nearest_rational(power)
            if abs(power - _number(nearest)) < 1e-12:
                return nearest
    raise ArithmeticError(f"limit: {expr} is no power of the distance to t = {end}, and no limit was found.")


def _recognised(value: mpmath.mpf) -> sp.Expr:
    """A rational of small denominator where the value is one to 25 digits, else the number itself."""
    with mpmath.workdps(_DIGITS):
        nearest = _nearest_rational(value)
        return nearest if abs(value - _number(nearest)) <= 1e-25 * min(1, abs(value)) else sp.Float(value, 30)


def _nearest_rational(value: mpmath.mpf) -> sp.Rational:
    nearest = Fraction(mpmath.nstr(value, 40)).limit_denominator(1000)
    return sp.Rational(nearest.numerator, nearest.denominator)


def _confirmed(value: sp.Expr, near: mpmath.mpf, nearer: mpmath.mpf) -> bool:
    if not value.is_finite:
        return False
    with mpmath.workdps(_DIGITS):
        exact = mpmath.mpmathify(sp.N(value, _DIGITS))
        if mpmath.im(exact) != 0:
            return False
        # A limit may be approached slowly, as a small power of the distance: then each probe must come nearer to it.
        distance, before = abs(nearer - exact), abs(near - exact)
        return bool(distance <= _TOLERANCE * max(1, abs(exact)) or distance <= before / 2)


def _number(value: sp.Rational) -> mpmath.mpf:
    return mpmath.mpf(int(value.p)) / int(value.q)
