"""What a function of time does at the two ends of [0, 1]: c s^p to leading order in the distance s to the end.

Read off its expansion with a rigorous remainder (``expansion``), whose coefficients are exact.
"""

from __future__ import annotations

import functools
from typing import Final, NamedTuple

import mpmath
import sympy as sp

from interpolants.composition import How
from interpolants.enclosure import sign_of, value
from interpolants.expansion import Beside, is_zero_constant, near
from interpolants.expression import t
from interpolants.pieces import KINKS, resolved
from interpolants.printer import high_precision
from interpolants.simplify import decaying, is_zero, simplified

_DIGITS: Final = 800


def evaluate(expr: sp.Expr, at: mpmath.mpf, digits: int = _DIGITS) -> mpmath.mpf:
    """The value of ``expr`` at time ``at``, in ``digits``-digit arithmetic; infinite where it divides by zero."""
    with mpmath.workdps(digits):
        try:
            found = high_precision(expr, digits)(at)
        except ZeroDivisionError:
            return mpmath.inf
        return mpmath.re(found) if mpmath.im(found) == 0 else mpmath.nan


@functools.cache
def limit(expr: sp.Expr, end: int, made: How | None = None) -> sp.Expr:
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
    number, function = expr.as_coeff_Mul()
    if isinstance(function, sp.log):
        return number * sp.log(limit(function.args[0], end)).subs(sp.zoo, -sp.oo)
    term = _term(expr, end, made)
    if term is None:
        raise _unknown(expr, end)
    return term.limit


@functools.cache
def leading(expr: sp.Expr, end: int, made: How | None = None) -> tuple[sp.Expr, sp.Rational]:
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


def _beside(expr: sp.Expr, end: int, made: How | None) -> Beside | None:
    there, other = sp.Integer(end), sp.Integer(1 - end)
    stated = (lambda e: e,) if made is None or expr.has(*KINKS) else (lambda e: e, lambda e: made.stated)
    forms = (form(expr) for form in (*stated, simplified, decaying))
    return next((found for form in forms if (found := near(form, there, other)) is not None), None)


class _Term(NamedTuple):
    """c s^power L^logs, L = log(1/s), with c != 0; to the power oo it is smaller than all powers, or 0."""

    coefficient: sp.Expr
    power: sp.Expr
    logs: sp.Rational = sp.S.Zero

    @property
    def limit(self) -> sp.Expr:
        if self.power == 0 and self.logs == 0:
            return _shorter(self.coefficient)
        return sp.S.Zero if self.power > 0 or (self.power == 0 and self.logs < 0) else self.sign * sp.oo

    @property
    def sign(self) -> int:
        return sign_of(value(self.coefficient, sp.S.Zero))

    def times(self, other: _Term) -> _Term:
        return _Term(self.coefficient * other.coefficient, self.power + other.power, self.logs + other.logs)


@functools.cache
def _term(expr: sp.Expr, end: int, made: How | None = None) -> _Term | None:
    """The leading term: of the expansion, or else by the laws of leading terms, to which 1/log(s) is a term too."""
    beside = None if isinstance(expr, sp.log) else _beside(expr, end, made)
    if beside is not None:
        if beside.coefficient == 0:
            return _Term(sp.S.One, sp.oo)
        if beside.coefficient.is_infinite:
            return _Term(sp.Integer(beside.sign), -sp.oo)
        return _Term(beside.coefficient, beside.power, sp.Integer(beside.logs))
    terms = [term for argument in expr.args if (term := _term(argument, end)) is not None]
    if len(terms) < max(len(expr.args), 1):
        return None
    if expr.is_Mul:
        term = functools.reduce(_Term.times, terms)
        return None if term.power is sp.nan else term
    if expr.is_Add:
        first = min(terms, key=lambda term: (term.power, -term.logs))
        same = sp.Add(*(term.coefficient for term in terms if term[1:] == first[1:]))
        return None if first.power.is_infinite or is_zero_constant(same) else first._replace(coefficient=same)
    inner = terms[0]
    if expr.is_Pow and not expr.exp.has(t):
        is_defined = (inner.power != sp.oo or expr.exp > 0) and (expr.exp.is_Integer or inner.sign > 0)
        return _Term(inner.coefficient**expr.exp, *(e * expr.exp for e in inner[1:])) if is_defined else None
    if isinstance(expr, sp.log) and inner.power.is_finite and inner.power != 0:
        return _Term(-inner.power, sp.S.Zero, sp.S.One)
    if isinstance(expr, sp.exp) and (inner.power < 0 or (inner.power == 0 and inner.logs > 1)):
        return _Term(sp.S.One, -inner.sign * sp.oo)
    result = expr.func(*(term.limit for term in terms))
    is_number = result.is_finite and result.is_comparable
    return _Term(result, sp.S.Zero) if is_number and not is_zero_constant(result) else None


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
