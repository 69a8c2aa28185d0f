"""What a function of time does at the two ends of [0, 1]: c s^p to leading order in the distance s to the end.

Read off its expansion with a rigorous remainder (``expansion``), whose coefficients are exact.
"""

from __future__ import annotations

import functools
from typing import Final

import mpmath
import sympy as sp

from interpolants.composition import Made
from interpolants.expansion import Beside, near
from interpolants.expression import t
from interpolants.pieces import KINKS, resolved
from interpolants.printer import high_precision
from interpolants.simplify import decaying, is_zero, simplified

_DIGITS: Final = 800


def evaluate(expr: sp.Expr, at: mpmath.mpf, digits: int = _DIGITS) -> mpmath.mpf:
    """The value of ``expr`` at time ``at``, in ``digits``-digit arithmetic; infinite where it divides by zero."""
    with mpmath.workdps(digits):
        try:
            value = high_precision(expr, digits)(at)
        except ZeroDivisionError:
            return mpmath.inf
        return mpmath.re(value) if mpmath.im(value) == 0 else mpmath.nan


@functools.cache
def limit(expr: sp.Expr, end: int, made: Made | None = None) -> sp.Expr:
    """The one-sided limit of ``expr`` at ``end``, from inside [0, 1]: oo, -oo, or an exact number.

    Args:
        made: How the expression is made of the functions of a path, which may be easier to expand.

    Raises:
        ValueError: If ``end`` is neither 0 nor 1.
        ArithmeticError: If no limit is established.
    """
    _check_end(end)
    expr = _piece(expr, end)
    if not expr.has(t):
        return expr
    beside = None if isinstance(expr.as_coeff_Mul()[1], sp.log) else _beside(expr, end, made)
    if beside is None:
        return _by_laws(expr, end)
    if beside.power < 0 or (beside.power == 0 and beside.logs > 0) or beside.coefficient.is_infinite:
        return beside.sign * sp.oo
    return sp.S.Zero if beside.power > 0 or beside.logs < 0 else _shorter(beside.coefficient)


@functools.cache
def leading(expr: sp.Expr, end: int, made: Made | None = None) -> tuple[sp.Expr, sp.Rational]:
    r"""(c, p) of expr = c s^p (1 + o(1)), with s = t at end 0 and s = 1 - t at end 1; c is not 0.

    A pole has p < 0: its order is -p. For ``expr`` = 0 it is (0, 0).

    Raises:
        ArithmeticError: If the expression is no power of s next to the end, such as a logarithm.
    """
    _check_end(end)
    expr = _piece(expr, end)
    beside = _beside(expr, end, made)
    if beside is None or beside.logs or beside.coefficient.is_infinite or (beside.sign == 0 and not is_zero(expr)):
        raise _unknown(expr, end)
    return _shorter(beside.coefficient), beside.power


def _shorter(number: sp.Expr) -> sp.Expr:
    return min(number, simplified(number), key=sp.count_ops)


def _beside(expr: sp.Expr, end: int, made: Made | None) -> Beside | None:
    there, other = sp.Integer(end), sp.Integer(1 - end)
    stated = (lambda e: e,) if made is None or expr.has(*KINKS) else (lambda e: e, lambda e: made.stated)
    forms = (form(expr) for form in (*stated, simplified, decaying))
    return next((found for form in forms if (found := near(form, there, other)) is not None), None)


def _by_laws(expr: sp.Expr, end: int) -> sp.Expr:
    """The limit of a function of what has limits, where that alone decides it."""
    limits = [limit(argument, end) for argument in expr.args]
    result = expr.func(*limits)
    if isinstance(expr, sp.log) and limits == [0]:
        return -sp.oo
    is_one = result in (sp.oo, -sp.oo) or result.is_comparable
    if not limits or not is_one or (expr.is_Pow and limits[0] == 0 and not limits[1].is_positive):
        raise _unknown(expr, end)
    return result


def _unknown(expr: sp.Expr, end: int) -> ArithmeticError:
    return ArithmeticError(f"limit: {expr} is no power of the distance to t = {end}, and no limit was found.")


def _check_end(end: int) -> None:
    if end not in (0, 1):
        raise ValueError(f"limit: end must be 0 (noise) or 1 (data), got {end!r}.")


def _piece(expr: sp.Expr, end: int) -> sp.Expr:
    """The piece of a piecewise function that reaches the end."""
    expr = resolved(expr)
    if isinstance(expr, sp.Piecewise):
        result: sp.Expr = expr.args[0 if end == 0 else -1][0]
        return result
    return expr
