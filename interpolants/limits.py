"""What a function of time does at the two ends of [0, 1]: c s^p to leading order in the distance s to the end.

Read off its expansion with a rigorous remainder (``expansion``), whose coefficients are exact.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final, NamedTuple

import mpmath
import sympy as sp

from interpolants.composition import How
from interpolants.enclosure import sign_of, value
from interpolants.expansion import DIGITS_60, Beside, near
from interpolants.expression import t
from interpolants.nesting import nested
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
    for form in (expr,) if made is None else (expr, made.stated):
        number, function = form.as_coeff_Mul()
        if isinstance(function, sp.log) and (term := _term(_piece(function.args[0], end), end)) is not None:
            result: sp.Expr = number * sp.log(_limit(term, end)).subs(sp.zoo, -sp.oo)
            return result
    term = _term(expr, end, made)
    if term is None:
        raise _unknown(expr, end)
    return _limit(term, end)


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
    if beside is None and (term := _term(expr, end, made)) is not None and term.is_power:
        return _shorter(term.coefficient), term.power
    if beside is None or beside.logs or beside.coefficient.is_infinite or (beside.sign == 0 and not is_zero(expr)):
        raise _unknown(expr, end)
    return _shorter(beside.coefficient), beside.power


def _shorter(number: sp.Expr) -> sp.Expr:
    return min(number, simplified(number), key=sp.count_ops)


def _beside(expr: sp.Expr, end: int, made: How | None) -> Beside | None:
    there, other = sp.Integer(end), sp.Integer(1 - end)
    stated = (lambda e: e,) if made is None or expr.has(*KINKS) else (lambda e: e, lambda e: made.stated)
    forms = (form(expr) for form in (*stated, simplified, decaying))
    every = (near(form, there, other) for form in forms)
    return next((found for found in every if found is not None and found.coefficient is not sp.nan), None)


class _Term(NamedTuple):
    """c s^power L^logs exp(exponent), L = log(1/s) and c != 0, where the exponent is 0 or tends to infinity; to the
    power oo it is smaller than all powers, or 0, and to the power -oo larger.
    """

    coefficient: sp.Expr
    power: sp.Expr = sp.S.Zero
    logs: sp.Expr = sp.S.Zero
    exponent: sp.Expr = sp.S.Zero

    @property
    def sign(self) -> int:
        return sign_of(value(self.coefficient, sp.S.Zero))

    @property
    def is_power(self) -> bool:
        return bool(self.power.is_finite and self.logs == 0 and self.exponent == 0)

    def raised(self, e: sp.Expr) -> _Term:
        return _Term(_plain(self.coefficient) ** e, self.power * e, self.logs * e, self.exponent * e)


def _plain(number: sp.Expr) -> sp.Expr:
    """A product of digits and exact numbers as digits: sympy may open a root of the product without end."""
    if number.is_Float or not number.has(sp.Float):
        return number
    return sp.Float(value(number, sp.S.Zero, DIGITS_60).mid().str(60, radius=False), 60)


@functools.cache
def _term(expr: sp.Expr, end: int, made: How | None = None) -> _Term | None:
    """The leading term: of the expansion, or else by the laws of leading terms, to which 1/log(s) and exp(-1/s) s are
    terms too.
    """
    if not expr.has(t):
        return _Term(expr) if expr.is_finite and _is_nonzero(expr) else None
    beside = None if isinstance(expr, sp.log) else _beside(expr, end, made)
    if beside is not None and beside.coefficient.is_finite and beside.coefficient != 0:
        return _Term(beside.coefficient, beside.power, sp.Integer(beside.logs))
    stated = expr if made is None else made.stated
    term = _by_laws(expr, end) or _by_laws(stated, end) or _of_inner(expr, end)
    if term is not None or beside is None:
        return term
    return _Term(sp.S.One, sp.oo) if beside.coefficient == 0 else _Term(sp.Integer(beside.sign), -sp.oo)


def _is_nonzero(number: sp.Expr) -> bool:
    """Whether a number is proved not to be 0."""
    return sign_of(value(number, sp.S.Zero, bits=1)) != 0


def _by_laws(expr: sp.Expr, end: int) -> _Term | None:
    if expr.is_Pow and expr.exp.has(t):
        return _exponential(expr.exp * sp.log(expr.base), end)
    terms = [term for argument in expr.args if (term := _term(argument, end)) is not None]
    if len(terms) < max(len(expr.args), 1):
        return None
    if expr.is_Mul:
        return _product(terms, end)
    if expr.is_Add:
        return _sum(terms, end)
    first = terms[0]
    if expr.is_Pow:
        is_defined = (first.power != sp.oo or expr.exp > 0) and (expr.exp.is_Integer or first.sign > 0)
        return first.raised(expr.exp) if is_defined else None
    if isinstance(expr, sp.exp):
        return _exponential(expr.args[0], end)
    if isinstance(expr, sp.log) and first.exponent != 0:
        return _term(first.exponent, end)
    if isinstance(expr, sp.log) and first.power.is_finite and first.power != 0:
        return _Term(-first.power, logs=sp.S.One)
    limits = [_limit(term, end) for term in terms]
    result = expr.func(*limits)
    is_number = result.is_finite and result.is_comparable
    return _Term(result) if is_number and _is_nonzero(result) else None


def _of_inner(expr: sp.Expr, end: int) -> _Term | None:
    """The term of F(g) by that of F next to the limit of g."""
    of_one = expr.is_Function and len(expr.args) == 1
    composed = (expr.func(t), expr.args[0]) if of_one else nested(expr)
    if composed is None:
        return None
    outer, g = composed
    if (term := _term(g, end)) is None:
        return None
    limiting = _limit(term, end)
    if limiting.is_infinite:
        distance, argument = term.raised(sp.S.NegativeOne), 1 / t
    else:
        from_limit = None if g == limiting else _term(g - limiting, end)
        if from_limit is None:
            return None
        distance, argument = from_limit, limiting + t
    side = distance.sign
    beside = _beside(outer.xreplace({t: argument.xreplace({t: side * t})}), 0, None)
    if beside is None or beside.logs or beside.coefficient.is_infinite or beside.coefficient == 0:
        return None
    distance = distance._replace(coefficient=side * distance.coefficient)
    return _product([_Term(beside.coefficient), distance.raised(beside.power)], end)


def _exponential(exponent: sp.Expr, end: int) -> _Term | None:
    """The term of exp(exponent); None where that is between a power and a logarithm."""
    term = _term(exponent, end)
    if term is None:
        return None
    limiting = _limit(term, end)
    if limiting.is_finite:
        return _Term(sp.exp(limiting))
    if term.exponent != 0 or term.power != 0 or term.logs > 1:
        return _Term(sp.S.One, exponent=exponent)
    if term.logs < 1:
        return None
    rest = exponent + term.coefficient * sp.log(t if end == 0 else 1 - t)  # exp(c L) is s^-c
    if is_zero(rest):
        return _Term(sp.S.One, -term.coefficient)
    of_rest = _exponential(rest, end)
    return None if of_rest is None else _product([of_rest, _Term(sp.S.One, -term.coefficient)], end)


def _product(terms: Sequence[_Term], end: int) -> _Term | None:
    coefficient = sp.Mul(*(term.coefficient for term in terms))
    power, logs, exponent = (sp.Add(*(term[i] for term in terms)) for i in (1, 2, 3))
    if power is sp.nan or (power.is_infinite and exponent != 0):  # which of the two decides is not known
        return None
    if exponent != 0:  # the product of exponentials may be one of a finite exponent
        exponent = simplified(exponent)
        together = _Term(sp.S.One) if exponent == 0 else _exponential(exponent, end)
        if together is None:
            return None
        coefficient, exponent = coefficient * together.coefficient, together.exponent
    return _Term(coefficient, power, logs, exponent)


def _sum(terms: Sequence[_Term], end: int) -> _Term | None:
    """That of the largest terms; None where it is not proved that these do not cancel."""
    first, *others = terms
    total = sp.S.One
    for term in others:
        if first.power == term.power == sp.oo:
            continue
        ratio = _product([term, first.raised(sp.S.NegativeOne)], end)
        if ratio is None:
            return None
        limiting = _limit(ratio, end)
        if limiting.is_infinite:
            first, total = term, sp.S.One
        else:
            total += limiting
    return first._replace(coefficient=first.coefficient * total) if total == 1 or _is_nonzero(total) else None


def _limit(term: _Term, end: int) -> sp.Expr:
    if term.exponent != 0:
        exponent = _term(term.exponent, end)
        return sp.S.Zero if exponent is not None and exponent.sign < 0 else term.sign * sp.oo
    if term.power == 0 and term.logs == 0:
        return _shorter(term.coefficient)
    return sp.S.Zero if term.power > 0 or (term.power == 0 and term.logs < 0) else term.sign * sp.oo


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
