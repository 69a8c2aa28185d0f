"""Limits at the two ends of time, found by sympy and checked against 120-digit evaluation next to the end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import mpmath
import sympy as sp

from interpolants.expression import t

_DIGITS = 120
_NEAR, _NEARER = mpmath.mpf(10) ** -20, mpmath.mpf(10) ** -40


def evaluate(expr: sp.Expr, at: mpmath.mpf, digits: int = _DIGITS) -> mpmath.mpf:
    """The value of ``expr`` at time ``at``, in ``digits``-digit arithmetic; infinite where it divides by zero."""
    with mpmath.workdps(digits):
        try:
            value = _high_precision(expr)(at)
        except ZeroDivisionError:
            return mpmath.inf
        return mpmath.re(value) if mpmath.im(value) == 0 else mpmath.nan


@functools.cache
def limit(expr: sp.Expr, end: int) -> sp.Expr:
    """The one-sided limit of ``expr`` at ``end``, from inside [0, 1]: oo, -oo, or an exact number; where sympy finds
    none, the value to 15 digits or more that evaluation next to the end approaches.

    Raises:
        ValueError: If ``end`` is neither 0 nor 1.
        ArithmeticError: If there is no limit that sympy finds or the evaluation next to the end confirms.
    """
    if end not in (0, 1):
        raise ValueError(f"limit: end must be 0 (noise) or 1 (data), got {end!r}.")
    if not expr.has(t):
        return expr
    with mpmath.workdps(_DIGITS):
        near, nearer = (evaluate(expr, end + (1 - 2 * end) * step) for step in (_NEAR, _NEARER))
    if _grows(near, nearer):
        return sp.oo if nearer > 0 else -sp.oo
    candidates: tuple[Callable[[], sp.Expr], ...] = (
        lambda: expr.subs(t, end),
        lambda: sp.limit(expr, t, end, "+" if end == 0 else "-"),
    )
    for candidate in candidates:
        try:
            value = candidate()
        except (NotImplementedError, ValueError, TypeError):
            continue
        if value.is_number and _confirmed(value, near, nearer):
            return value
    if mpmath.isfinite(nearer) and abs(near - nearer) <= mpmath.mpf(10) ** -15 * max(1, abs(nearer)):
        return sp.Float(nearer, 30)
    raise ArithmeticError(f"limit: {expr} has no limit at t = {end} that could be established.")


def _confirmed(value: sp.Expr, near: mpmath.mpf, nearer: mpmath.mpf) -> bool:
    if not value.is_finite:
        return False
    with mpmath.workdps(_DIGITS):
        exact = mpmath.mpmathify(sp.N(value, _DIGITS))
        if mpmath.im(exact) != 0:
            return False
        # A limit may be approached slowly, as a small power of the distance: then each probe must come nearer to it.
        distance, before = abs(nearer - exact), abs(near - exact)
        return bool(distance <= mpmath.mpf(10) ** -15 * max(1, abs(exact)) or distance <= before / 2)


def _grows(near: mpmath.mpf, nearer: mpmath.mpf) -> bool:
    return bool(abs(nearer) > 1.5 * abs(near) and abs(nearer) > 1)


@functools.lru_cache(maxsize=256)
def _high_precision(expr: sp.Expr) -> Callable[[mpmath.mpf], Any]:
    function: Callable[[mpmath.mpf], Any] = sp.lambdify(t, expr, modules="mpmath")
    return function
