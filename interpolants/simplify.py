"""Exact simplification, and the rewriting that makes an expression accurate in floating point.

``simplified`` is for algebra: it cancels, so that a removable singularity is gone before anything is compiled.
``stable`` is for evaluation: equal to its argument as a function, but without the cancellations that cost digits:
exp(a) - exp(b) for a near b, 1 + cos(a) for a near pi, and a polynomial near its root.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import sympy as sp
from sympy.codegen.cfunctions import expm1
from sympy.functions.elementary.trigonometric import TrigonometricFunction

from interpolants.expression import t

MAX_OPERATIONS: Final = 80
"""Above so many operations the search for identities is left out: its time grows without bound."""


@functools.cache
def simplified(expr: sp.Expr) -> sp.Expr:
    """The expression with what cancels cancelled.

    Identities are searched for within one family, trigonometric functions or exponentials; other functions of t, and
    mixtures, are taken as unknowns of which the expression is a rational function. What is then not cancelled is met
    when it is compiled, by limits.
    """
    opaque, meanings = _constants_as_symbols(_powers_as_exponentials(expr))
    if opaque.is_rational_function(t):
        result = sp.factor(opaque) if sp.count_ops(opaque) <= 4 * MAX_OPERATIONS else opaque
    elif _in_one_family(opaque, bool(meanings)) and sp.count_ops(opaque) <= MAX_OPERATIONS:
        result = sp.simplify(opaque).rewrite(sp.functions.elementary.hyperbolic.HyperbolicFunction, sp.exp)
    else:
        result = _cancelled_over_functions(opaque)
    return result.xreplace(meanings)


def _powers_as_exponentials(expr: sp.Expr) -> sp.Expr:
    """c**f(t) as exp(f(t) log c), for a constant c."""
    return expr.replace(
        lambda e: e.is_Pow and e.exp.has(t) and not e.base.has(t), lambda e: sp.exp(e.exp * sp.log(e.base))
    )


def _constants_as_symbols(expr: sp.Expr) -> tuple[sp.Expr, dict[sp.Symbol, sp.Expr]]:
    """Irrational constants as symbols, since sympy would search them for identities too; and what they stand for."""
    symbols: dict[sp.Expr, sp.Symbol] = {}

    def symbol(constant: sp.Expr) -> sp.Symbol:
        if constant not in symbols:
            signs = {"positive": constant.is_positive, "negative": constant.is_negative}
            symbols[constant] = sp.Dummy(f"c{len(symbols)}", **signs)
        return symbols[constant]

    opaque = expr.replace(lambda e: (e.is_Function or e.is_Pow) and e.is_number and not e.is_Rational, symbol)
    return opaque, {new: constant for constant, new in symbols.items()}


def _in_one_family(expr: sp.Expr, has_constants: bool) -> bool:
    functions = {type(f) for f in expr.atoms(sp.Function)}
    roots = [p for p in expr.atoms(sp.Pow) if p.has(t) and not p.exp.is_Integer and p.base != sp.E]
    if all(issubclass(f, TrigonometricFunction) for f in functions):
        return (not roots and not has_constants) or not functions
    return functions == {sp.exp} and all((2 * p.exp).is_Integer for p in roots if p.exp.is_Rational)


def _cancelled_over_functions(expr: sp.Expr) -> sp.Expr:
    def is_unknown(e: sp.Expr) -> bool:
        return (e.is_Function or (e.is_Pow and not e.exp.is_Integer)) and e.has(t)

    unknowns = {e: sp.Dummy(f"f{i}") for i, e in enumerate(_outermost(expr, is_unknown))}
    rational = expr.xreplace(unknowns)
    if sp.count_ops(rational) > 2 * MAX_OPERATIONS:
        return expr
    return sp.cancel(rational).xreplace({symbol: e for e, symbol in unknowns.items()})


def _outermost(expr: sp.Expr, wanted: Callable[[sp.Expr], bool]) -> list[sp.Expr]:
    """The largest subexpressions that are wanted, each once."""
    if wanted(expr):
        return [expr]
    return list(dict.fromkeys(e for argument in expr.args for e in _outermost(argument, wanted)))


def stable(expr: sp.Expr) -> sp.Expr:
    """An equal expression that loses few digits when it is evaluated as it is written."""
    expr = expr.rewrite([sp.cot, sp.sec, sp.csc], sp.tan) if expr.has(sp.cot, sp.sec, sp.csc) else expr
    return expr.replace(lambda e: e.is_Add, _stable_sum)


def _stable_sum(expr: sp.Expr) -> sp.Expr:
    if expr.is_polynomial(t) and all(c.is_Rational for c in sp.Poly(expr, t).coeffs()):
        return sp.factor(expr)
    if len(expr.args) == 2:
        return _exponential_difference(*expr.args) or _half_angle(*expr.args) or expr
    return expr


def _exponential_difference(first: sp.Expr, second: sp.Expr) -> sp.Expr | None:
    """p - p exp(v) as -p expm1(v), with v <= 0 so that nothing overflows; None where the sum is no such difference."""
    for base, other in ((first, second), (second, first)):
        ratio = sp.powsimp(-other / base)
        if ratio.func is not sp.exp:
            return None
        exponent = sp.factor(sp.expand(ratio.args[0]))
        if exponent.subs(t, sp.Rational(1, 2)).evalf() <= 0:
            return -base * expm1(exponent)
    return None


def _half_angle(first: sp.Expr, second: sp.Expr) -> sp.Expr | None:
    """p + p cos(a) as 2 p cos(a/2)^2, and p - p cos(a) as 2 p sin(a/2)^2; None where the sum is neither."""
    for base, other in ((first, second), (second, first)):
        ratio = other / base
        if ratio.func is sp.cos:
            return 2 * base * sp.cos(ratio.args[0] / 2) ** 2
        if (-ratio).func is sp.cos:
            return 2 * base * sp.sin((-ratio).args[0] / 2) ** 2
    return None
