"""An equal expression that evaluates accurately in floating point.

Equal as functions, but without the cancellations that cost digits: exp(a) - exp(b) for a near b, 1 + cos(a) for a near
pi, and a polynomial near its root.
"""

from __future__ import annotations

import functools
from typing import Final

import sympy as sp

from interpolants.effort import operations
from interpolants.enclosure import value
from interpolants.expression import rebuilt, t
from interpolants.simplify import MAX_ARGUMENT, addition_theorem, is_wave, phase

MAX_SIZE: Final = 200
"""Operations in a sum of two terms, up to which these are set against each other."""


class expm1(sp.Function):  # type: ignore[misc]  # noqa: N801 - as all libraries call it; sympy has no types
    """exp(x) - 1. To build its own, sympy factors x in search of its sign."""

    nargs = 1


class log1p(sp.Function):  # type: ignore[misc]  # noqa: N801
    """log(1 + x)."""

    nargs = 1


@functools.lru_cache(maxsize=2048)
def stable(expr: sp.Expr) -> sp.Expr:
    """An equal expression that loses few digits when it is evaluated as it is written."""
    expr = expr.rewrite([sp.cot, sp.sec, sp.csc], sp.tan) if expr.has(sp.cot, sp.sec, sp.csc) else expr
    if expr.has(sp.sin, sp.cos):  # expanded, cos(pi (1 - t) / 2) is sin(pi t / 2)
        expr = expr.replace(is_wave, lambda wave: wave.func(sp.expand(wave.args[0], log=False)))
    return _with_stable_sums(expr)


@functools.lru_cache(maxsize=8192)
def _with_stable_sums(expr: sp.Expr) -> sp.Expr:
    if not expr.args:
        return expr
    found = rebuilt(expr, tuple(map(_with_stable_sums, expr.args)))
    return _stable_sum(found) if found.is_Add else found


@functools.lru_cache(maxsize=8192)
def _stable_sum(expr: sp.Expr) -> sp.Expr:
    if _is_rational_polynomial(expr):
        return sp.factor(expr)
    if len(expr.args) == 2 and operations(expr) <= MAX_SIZE:
        return (
            _exponential_difference(*expr.args)
            or _half_angle(*expr.args)
            or _cosines(*expr.args)
            or addition_theorem(*expr.args)
            or _arc(*expr.args)
            or _power_difference(*expr.args)
            or expr
        )
    return expr


def _is_rational_polynomial(expr: sp.Expr) -> bool:
    numbers_and_t = all(atom == t or atom.is_Rational for atom in expr.atoms()) and not expr.has(sp.Function)
    return numbers_and_t and all(power.exp.is_Integer and power.exp > 0 for power in expr.atoms(sp.Pow))


def _exponential_difference(first: sp.Expr, second: sp.Expr) -> sp.Expr | None:
    """p - p exp(v) as -p expm1(v), with v <= 0 so that nothing overflows; None where the sum is no such difference."""
    factors = (factor.as_base_exp() for term in (first, second) for factor in sp.Mul.make_args(term))
    if not any(exponent.has(t) and not base.has(t) for base, exponent in factors):
        return None
    for base, other in ((first, second), (second, first)):
        exponent = _as_exponent(-other / base)
        if exponent is None:
            return None
        is_short = operations(exponent) <= MAX_ARGUMENT
        if is_short:
            exponent = sp.expand(exponent, log=False)
        if _is_rational_polynomial(exponent) or (is_short and exponent.is_polynomial(t)):
            exponent = sp.factor(exponent)
        if value(exponent, sp.Rational(1, 2)) <= 0:
            return -base * expm1(exponent)
    return None


def _as_exponent(product: sp.Expr) -> sp.Expr | None:
    """v of a product of exponentials that is exp(v); None where it has other factors."""
    total = sp.S.Zero
    for base, exponent in (factor.as_base_exp() for factor in sp.Mul.make_args(product)):
        if base.has(t) or not base.is_positive or not (exponent.has(t) or base == sp.E):
            return None
        total += exponent * sp.log(base)
    return total


def _half_angle(first: sp.Expr, second: sp.Expr) -> sp.Expr | None:
    """p + p cos(a) as 2 p cos(a/2)^2, and p - p cos(a) as 2 p sin(a/2)^2; None where the sum is neither."""
    for base, other in ((first, second), (second, first)):
        ratio = other / base
        if ratio.func is sp.cos:
            return 2 * base * sp.cos(ratio.args[0] / 2) ** 2
        if (-ratio).func is sp.cos:
            return 2 * base * sp.sin((-ratio).args[0] / 2) ** 2
    return None


def _arc(first: sp.Expr, second: sp.Expr) -> sp.Expr | None:
    """p pi/2 - p acos(x) as p asin(x), and alike; None where the sum is not that."""
    for number, arc in ((first, second), (second, first)):
        factors = [f for f in sp.Mul.make_args(arc) if isinstance(f, (sp.acos, sp.asin))]
        if len(factors) == 1 and 2 * number == -sp.pi * (arc / factors[0]):
            other = sp.asin if isinstance(factors[0], sp.acos) else sp.acos
            return -arc / factors[0] * other(factors[0].args[0])
    return None


def _power_difference(first: sp.Expr, second: sp.Expr) -> sp.Expr | None:
    """p - p (1 - x)^r as -p expm1(r log1p(-x)), and for a square root as p x / (1 + root); None where the sum is no
    such difference.
    """
    for base, other in ((first, second), (second, first)):
        bases, powers = zip(*(factor.as_base_exp() for factor in sp.Mul.make_args(-other / base)), strict=True)
        r = powers[0]
        if not (r.is_Rational and r.is_positive and not r.is_Integer and set(powers) == {r}):
            continue
        product = sp.Mul(*bases)
        constant, rest = (sp.expand(product) if product.is_polynomial(t) else product).as_coeff_Add()
        if constant == 1 and rest.has(t):
            return -base * (rest / (1 + sp.sqrt(1 + rest)) if 2 * r == 1 else expm1(r * log1p(rest)))
    return None


def _cosines(first: sp.Expr, second: sp.Expr) -> sp.Expr | None:
    """p (cos(a) - cos(b)) as 2 p sin((a + b) / 2) sin((b - a) / 2), and alike for sines and for squares; None where the
    sum is not that.
    """
    (p, power_a), (q, power_b) = (_wave(term) for term in (first, second))
    (wave_a, k), (wave_b, m) = power_a.as_base_exp(), power_b.as_base_exp()
    if k != m or k not in (1, 2) or p not in (q, -q) or (k == 2 and p == q) or not is_wave(wave_a, wave_b):
        return None
    (a, b), half = (phase(wave) for wave in (wave_a, wave_b)), sp.Rational(1, 2)
    difference, total = (
        2 * sp.sin(sp.expand(half * (a + c), log=False)) * sp.sin(sp.expand(half * (c - a), log=False))
        for c in (b, b + sp.pi)
    )
    if k == 2:
        return p * difference * total
    return p * (difference if p == -q else total)


def _wave(term: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """A term as a factor and a power of one sine or cosine."""
    waves = [f for f in sp.Mul.make_args(term) if is_wave(f.as_base_exp()[0])]
    wave = waves[0] if waves else sp.Integer(1)
    return term / wave, wave
