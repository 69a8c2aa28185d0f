"""Exact simplification, and the rewriting that makes an expression accurate in floating point.

``simplified`` is for algebra: it cancels, so that a removable singularity is gone before anything is compiled.
``stable`` is for evaluation: equal to its argument as a function, but without the cancellations that cost digits:
exp(a) - exp(b) for a near b, 1 + cos(a) for a near pi, and a polynomial near its root.
"""

from __future__ import annotations

import functools

import sympy as sp
from sympy.codegen.cfunctions import expm1
from sympy.functions.elementary.hyperbolic import HyperbolicFunction
from sympy.functions.elementary.trigonometric import TrigonometricFunction

from interpolants.expression import t


@functools.cache
def simplified(expr: sp.Expr) -> sp.Expr:
    """The expression with everything cancelled that sympy cancels in bounded time.

    Exponentials and trigonometric functions in one expression share no identity, and sympy's search for one does not
    end: such an expression is left as it is. What has then not been cancelled is met when it is compiled, by limits.
    """
    if expr.is_rational_function(t):
        return sp.factor(expr)
    if expr.has(TrigonometricFunction) and expr.has(sp.exp, HyperbolicFunction):
        return expr
    result = sp.simplify(expr)
    return result if expr.has(HyperbolicFunction) else result.rewrite(HyperbolicFunction, sp.exp)


def stable(expr: sp.Expr) -> sp.Expr:
    """An equal expression that loses few digits when it is evaluated as it is written."""
    expr = expr.rewrite([sp.cot, sp.sec, sp.csc], sp.tan) if expr.has(sp.cot, sp.sec, sp.csc) else expr
    return expr.replace(lambda e: e.is_Add, _stable_sum)


def _stable_sum(expr: sp.Expr) -> sp.Expr:
    if expr.is_polynomial(t):
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
