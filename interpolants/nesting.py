"""Functions of functions, F(g(t)): each of the two has digits to keep, and a derivative, of its own."""

from __future__ import annotations

import functools
from collections import Counter

import sympy as sp

from interpolants.expression import exchanged, t
from interpolants.printer import u

INNER, REST = sp.symbols("inner rest", real=True)
"""g and 1 - g."""


@functools.lru_cache(maxsize=4096)
def nested(expr: sp.Expr) -> tuple[sp.Expr, sp.Expr] | None:
    """F, a function of t, and the largest g with expr = F(g), neither of first degree; None without these."""
    found = [pair for e in (expr, _without_constants(expr)) if (pair := _nested(e)) is not None]
    return max(found, key=lambda pair: sp.count_ops(pair[1]), default=None)


def _nested(expr: sp.Expr) -> tuple[sp.Expr, sp.Expr] | None:
    counts = Counter(sp.preorder_traversal(expr))
    inner = [e for e in counts if e not in (t, expr) and e.has(t) and counts[e] * _occurrences(e) == counts[t]]
    for g in sorted(inner, key=sp.count_ops, reverse=True):
        if not (_is_affine(g) or _is_affine(function := exchanged(expr, {g: t}))):
            return function, g
    return None


def _without_constants(expr: sp.Expr) -> sp.Expr:
    """exp(c + f) as exp(c) exp(f), the way in which sympy multiplies: both may be in one expression."""
    return expr.replace(
        lambda e: isinstance(e, sp.exp) and e.args[0].is_Add,
        lambda e: sp.Mul(*map(sp.exp, e.args[0].as_independent(t, as_Add=True))),
    )


def of_inner(function: sp.Expr) -> sp.Expr:
    """A function of t, and of u = 1 - t, in ``INNER`` and ``REST``."""
    return exchanged(function, {1 - t: REST, t - 1: -REST, u: REST, t: INNER})


@functools.lru_cache(maxsize=65536)
def _occurrences(expr: sp.Expr) -> int:
    """How often t occurs."""
    return 1 if expr == t else sum(map(_occurrences, expr.args))


def _is_affine(expr: sp.Expr) -> bool:
    """Whether it is of first degree as it is written."""
    in_t = [argument for argument in expr.args if argument.has(t)]
    linear = expr.is_Add or (expr.is_Mul and len(in_t) == 1)
    return expr == t or not expr.has(t) or bool(linear and all(map(_is_affine, in_t)))
