"""Functions of functions, F(g(t)): each of the two has digits to keep, and a derivative, of its own."""

from __future__ import annotations

import functools
from collections import Counter

import sympy as sp

from interpolants.expression import t
from interpolants.printer import u

INNER, REST = sp.symbols("inner rest", real=True)
"""g and 1 - g."""


@functools.lru_cache(maxsize=4096)
def inner(expr: sp.Expr) -> sp.Expr | None:
    """The largest g of which ``expr`` is a function F(g), neither F nor g of first degree; None without one."""
    counts = Counter(sp.preorder_traversal(expr))
    nested = [e for e in counts if e not in (t, expr) and e.has(t) and counts[e] * _occurrences(e) == counts[t]]
    for g in sorted(nested, key=sp.count_ops, reverse=True):
        if not (_is_affine(g) or _is_affine(expr.xreplace({g: t}))):
            return g
    return None


def outer(expr: sp.Expr, g: sp.Expr) -> sp.Expr:
    """F of expr = F(g), as a function of t."""
    return expr.xreplace({g: t})


def of_inner(function: sp.Expr) -> sp.Expr:
    """A function of t, and of u = 1 - t, in ``INNER`` and ``REST``."""
    return function.xreplace({1 - t: REST, t - 1: -REST, u: REST}).xreplace({t: INNER})


@functools.lru_cache(maxsize=65536)
def _occurrences(expr: sp.Expr) -> int:
    """Of t."""
    return 1 if expr == t else sum(map(_occurrences, expr.args))


def _is_affine(expr: sp.Expr) -> bool:
    return bool(expr.is_polynomial(t)) and sp.degree(expr, t) <= 1
