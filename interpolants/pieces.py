"""Functions of time with kinks, as smooth pieces: |g|, sign(g), Max and Min change where an argument changes its sign.

Within a piece each of them is what it is of arguments of one sign, and a Dirac delta, the slope of a jump, is 0.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Final

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from interpolants.enclosure import roots, sign, value
from interpolants.expression import is_constant, rebuilt, t

KINKS: Final = (sp.Abs, sp.sign, sp.Max, sp.Min, sp.Heaviside, sp.DiracDelta, sp.Piecewise)

Piece = tuple[sp.Expr, sp.Expr, sp.Expr]
"""An expression, and the times from which and up to which it holds."""


class NotFoundError(ArithmeticError):
    """Not all places are found at which a function changes its sign."""


@functools.lru_cache(maxsize=8192)
def derivative(expr: sp.Expr) -> sp.Expr:
    """The time derivative of a real function.

    sympy's takes g in |g| and sign(g) for complex unless it knows better, and builds the logarithm of the base of every
    power, for whose sign it searches without bound.
    """
    if is_constant(expr):
        return sp.S.Zero
    if expr == t:
        return sp.S.One
    in_t = [(i, argument) for i, argument in enumerate(expr.args) if not is_constant(argument)]
    if expr.is_Add:
        return sp.Add(*(derivative(argument) for _, argument in in_t))
    if expr.is_Mul:
        return sp.Add(*(sp.Mul(*expr.args[:i], derivative(f), *expr.args[i + 1 :]) for i, f in in_t))
    if expr.is_Pow:
        slope = derivative(expr.base) * expr.exp / expr.base
        return expr * (slope if is_constant(expr.exp) else slope + derivative(expr.exp) * sp.log(expr.base))
    if isinstance(expr, sp.Piecewise):
        return expr.func(*((derivative(piece), condition) for piece, condition in expr.args))
    if isinstance(expr, AppliedUndef) or not expr.is_Function:
        return sp.diff(expr, t)

    def of_argument(i: int) -> sp.Expr:
        if isinstance(expr, sp.Abs):
            return sp.sign(expr.args[0])
        return 2 * sp.DiracDelta(expr.args[0]) if isinstance(expr, sp.sign) else expr.fdiff(i + 1)

    return sp.Add(*(of_argument(i) * derivative(argument) for i, argument in in_t))


@functools.cache
def resolved(expr: sp.Expr) -> sp.Expr:
    """The expression as a Piecewise of smooth ones with conditions t <= c, or as one of them.

    Kinks whose places are not found stay as they are.
    """
    if not has_kinks(expr):
        return expr
    try:
        found = pieces(expr)
    except NotFoundError:
        return expr
    return joined((piece, high) for piece, _, high in found)


def joined(parts: Iterable[tuple[sp.Expr, sp.Expr]]) -> sp.Expr:
    """One function of expressions, each with the time up to which it holds."""
    kept: list[tuple[sp.Expr, sp.Expr]] = []
    for piece, high in parts:
        if kept and kept[-1][0] == piece:
            kept.pop()
        kept.append((piece, high))
    if len(kept) == 1:
        return kept[0][0]
    conditions = [*(t <= high for _, high in kept[:-1]), True]
    return sp.Piecewise(*((piece, c) for (piece, _), c in zip(kept, conditions, strict=True)), evaluate=False)


def modulus(expr: sp.Expr) -> sp.Expr:
    """The absolute value of ``expr``, without bars where its sign on (0, 1) is proved."""
    side = sign(expr).value
    return side * expr if side else sp.Abs(expr)


def each(of: Callable[[sp.Expr], sp.Expr], expr: sp.Piecewise) -> sp.Expr:
    """A function of each piece of what is resolved."""
    return joined((of(piece), sp.S.One if condition == sp.true else condition.rhs) for piece, condition in expr.args)


def pieces(*exprs: sp.Expr) -> list[tuple[sp.Expr, ...]]:
    """(*pieces of the expressions, low, high) for each part of (0, 1) in which all of them are smooth.

    Raises:
        NotFoundError: If the place of a kink is not found.
    """
    times = sorted({time for expr in exprs for time in _changes(expr)}, key=lambda c: sp.N(c, 30))
    parts = itertools.pairwise((sp.S.Zero, *times, sp.S.One))
    return [(*(_on(expr, low, high) for expr in exprs), low, high) for low, high in parts]


@functools.lru_cache(maxsize=65536)
def has_kinks(expr: sp.Basic) -> bool:
    """Whether there is a function with a kink in it; cached part by part."""
    return isinstance(expr, KINKS) or any(map(has_kinks, expr.args))


@functools.lru_cache(maxsize=8192)
def _changes(expr: sp.Basic) -> frozenset[sp.Expr]:
    if not has_kinks(expr):
        return frozenset()
    changes = frozenset().union(*map(_changes, expr.args))
    if isinstance(expr, sp.Piecewise):
        relations = {relation for _, condition in expr.args for relation in condition.atoms(Relational)}
        return changes.union(*(_roots(relation.lhs - relation.rhs) for relation in relations))
    return changes.union(*map(_roots, _arguments(expr))) if isinstance(expr, KINKS) else changes


def _arguments(part: sp.Expr) -> list[sp.Expr]:
    """What changes its sign where the function has a kink."""
    if isinstance(part, (sp.Max, sp.Min)):
        return [a - b for a, b in itertools.combinations(part.args, 2)]
    return [part.args[0]]


@functools.cache
def _roots(expr: sp.Expr) -> tuple[sp.Expr, ...]:
    """Where the expression changes its sign in (0, 1): exactly, or to 50 digits."""
    if not expr.has(t) or sign(expr).value:
        return ()
    if has_kinks(expr):
        smooth = pieces(expr)
        inner = {root for e, low, high in smooth for root in _roots(e) if low < root < high}
        return tuple(inner | {high for _, _, high in smooth[:-1]})
    if expr.is_polynomial(t) and sp.degree(expr, t) == 1:
        root = sp.solve(expr, t)[0]
        return (root,) if 0 < root < 1 else ()
    if not (expr.is_polynomial(t) and all(c.is_Rational for c in sp.Poly(expr, t).all_coeffs())):
        isolated = roots(expr)
        if isolated is None:
            raise NotFoundError(f"pieces: the changes of sign of {expr} in (0, 1) were not isolated.")
        return isolated
    found = [root for root, power in sp.Poly(expr, t).real_roots(multiple=False) if power % 2]
    return tuple(root if not root.has(sp.CRootOf) else sp.Rational(root.evalf(50)) for root in found if 0 < root < 1)


@functools.lru_cache(maxsize=8192)
def _on(expr: sp.Expr, low: sp.Expr, high: sp.Expr) -> sp.Expr:
    """The expression between two neighbouring times of change."""
    if not has_kinks(expr):
        return expr
    if isinstance(expr, sp.Piecewise):
        middle = (low + high) / 2
        return next(_on(piece, low, high) for piece, condition in expr.args if condition.subs(t, middle) == sp.true)
    arguments = [_on(argument, low, high) for argument in expr.args]
    if isinstance(expr, (sp.Max, sp.Min)):
        return functools.reduce(
            lambda a, b: a if (_sign(a - b, low, high) > 0) == isinstance(expr, sp.Max) else b, arguments
        )
    if not isinstance(expr, KINKS):
        return rebuilt(expr, tuple(arguments))
    side = _sign(arguments[0], low, high)
    values = {sp.Abs: side * arguments[0], sp.sign: side, sp.Heaviside: (1 + side) / 2, sp.DiracDelta: 0}
    return sp.sympify(values[expr.func])


def _sign(expr: sp.Expr, low: sp.Expr, high: sp.Expr) -> sp.Integer:
    """The sign between two neighbouring changes of it."""
    middle = sp.Rational(((low + high) / 2).evalf(20))
    ball = value(expr, middle)
    return sp.Integer(int(ball > 0) - int(ball < 0))
