r"""How a coefficient is made of alpha, sigma, their derivatives and W = alpha' sigma - alpha sigma'.

All that is derived from a path is a formula in these five. Where the expression that it simplifies to loses digits, the
five, each accurate, and few operations keep them: a conversion is a product of their powers, and no drift from a
predicted velocity has a difference in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import sympy as sp

from interpolants.expression import t
from interpolants.nesting import INNER, REST, inner, of_inner, outer
from interpolants.pieces import KINKS
from interpolants.simplify import simplified

ALPHA, SIGMA, WRONSKIAN, NOISE = (sp.Function(f"_{name}")(t) for name in ("alpha", "sigma", "wronskian", "w"))
"""Functions of time without values, of which formulas are written."""
_FIVE: Final = (sp.diff(ALPHA, t), sp.diff(SIGMA, t), WRONSKIAN, ALPHA, SIGMA)

Part = tuple[sp.Symbol, sp.Expr, "How | None"]
"""A symbol, the expression it stands for, and how that expression is made in turn."""


def wronskian(alpha: sp.Expr, sigma: sp.Expr) -> sp.Expr:
    """W = alpha' sigma - alpha sigma', positive exactly where the log-SNR increases."""
    if (alpha, sigma) == (ALPHA, SIGMA):
        return WRONSKIAN
    return of_slopes(alpha, sigma)[0]


def of_slopes(alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr]:
    """W in terms of alpha' and sigma': on most paths no difference, since sigma falls."""
    return (sp.diff(alpha, t) * sigma - alpha * sp.diff(sigma, t),)


@dataclass(frozen=True)
class Made:
    """An expression as ``formula(*arguments, alpha, sigma)[item]``.

    Attributes:
        formula: A function of a module, which returns a tuple of expressions.
        arguments: Before alpha and sigma.
        alpha, sigma: Of the path.
        item: The index of the expression among the results of ``formula``.
        w: The expression that ``NOISE`` stands for, if the formula takes it, and how that expression is made.
    """

    formula: Callable[..., Any]
    arguments: tuple[Any, ...]
    alpha: sp.Expr
    sigma: sp.Expr
    item: int = 0
    w: tuple[sp.Expr, Made | None] | None = None

    @property
    def whole(self) -> sp.Expr:
        """The formula in symbols, and in t where it holds other functions of that."""
        return _named(self)[0]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The symbols with their meanings."""
        return _named(self)[1]

    @property
    def ingredients(self) -> tuple[sp.Expr, ...]:
        """alpha, sigma, and w if it is among the arguments."""
        return (self.alpha, self.sigma) if self.w is None else (self.alpha, self.sigma, self.w[0])

    def of(self, ingredients: Sequence[sp.Expr]) -> Made:
        """The same formula of others."""
        alpha, sigma, *rest = ingredients
        if self.w is None:
            return replace(self, alpha=alpha, sigma=sigma)
        of_w = None if self.w[1] is None else self.w[1].of((alpha, sigma))
        return replace(self, alpha=alpha, sigma=sigma, w=(rest[0], of_w))

    @property
    def has_kinks(self) -> bool:
        """Whether it is made of what has kinks."""
        return any(expr.has(*KINKS) for expr in self.ingredients)

    @property
    def is_nonnegative(self) -> bool:
        """Whether that is plain from the formula, since alpha, sigma and W are positive on a path."""
        positive = {function: sp.Dummy(positive=True) for function in (ALPHA, SIGMA, WRONSKIAN)}
        return bool(_written(self.formula, self.arguments)[self.item].xreplace(positive).is_nonnegative)

    @property
    def stated(self) -> sp.Expr:
        """The formula in t, as it is stated: nothing in it is multiplied out or cancelled."""
        slopes = sp.diff(self.alpha, t), sp.diff(self.sigma, t)
        meanings = dict(zip(_FIVE, (*slopes, wronskian(self.alpha, self.sigma), self.alpha, self.sigma), strict=True))
        if self.w is not None:
            meanings[NOISE] = self.w[0] if self.w[1] is None else self.w[1].stated
        return _written(self.formula, self.arguments)[self.item].xreplace(meanings)


@dataclass(frozen=True)
class Slope:
    """A derivative, by the rules for functions of functions, products and sums.

    Attributes:
        function: What is differentiated.
    """

    function: sp.Expr

    @property
    def whole(self) -> sp.Expr:
        """The rule in symbols."""
        return _differentiated(self.function)[0]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The symbols with their meanings."""
        return _differentiated(self.function)[1]

    @property
    def ingredients(self) -> tuple[sp.Expr, ...]:
        """The function."""
        return (self.function,)

    def of(self, ingredients: Sequence[sp.Expr]) -> Slope:
        """The derivative of another function."""
        return Slope(*ingredients)

    @property
    def has_kinks(self) -> bool:
        """Whether the function has."""
        return bool(self.function.has(*KINKS))

    @property
    def stated(self) -> sp.Expr:
        """The derivative as sympy writes it."""
        return sp.diff(self.function, t)


How = Made | Slope


@functools.lru_cache(maxsize=2048)
def _differentiated(function: sp.Expr) -> tuple[sp.Expr, tuple[Part, ...]]:
    parts: dict[sp.Expr, Part] = {}

    def part(expr: sp.Expr, how: How | None = None) -> sp.Expr:
        if not expr.has(t) or expr == t:
            return expr
        return parts.setdefault(expr, (sp.Symbol(f"p{len(parts)}", real=True), expr, how))[0]

    def slope(expr: sp.Expr) -> sp.Expr:
        return part(simplified(sp.diff(expr, t)), Slope(expr))

    if (g := inner(function)) is not None:
        rate = of_inner(simplified(sp.diff(outer(function, g), t)))
        whole = rate.xreplace({INNER: part(g), REST: part(1 - g)}) * slope(g)
    elif function.is_Add:
        whole = sp.Add(*map(slope, function.args))
    elif function.is_Mul:
        factors = function.args
        whole = sp.Add(*(slope(f) * sp.Mul(*(part(other) for other in factors if other is not f)) for f in factors))
    else:
        whole = part(simplified(sp.diff(function, t)))
    return whole, tuple(part for part in parts.values() if whole.has(part[0]))


@functools.lru_cache(maxsize=2048)
def _named(made: Made) -> tuple[sp.Expr, tuple[Part, ...]]:
    written = _written(made.formula, made.arguments)[made.item]
    alpha, sigma = made.alpha, made.sigma
    hows: tuple[How | None, ...] = (Slope(alpha), Slope(sigma), Made(of_slopes, (), alpha, sigma), None, None)
    meanings = dict(zip(_FIVE, zip(_five(alpha, sigma), hows, strict=True), strict=True))
    if made.w is not None:
        meanings[NOISE] = made.w
    parts: dict[sp.Expr, Part] = {}

    def named(expr: sp.Expr) -> sp.Expr:
        if not expr.has(t) or expr == t:
            return expr
        if not expr.has(*meanings) or expr in meanings:
            value, of_value = meanings.get(expr, (expr, None))
            if not value.has(t):
                return value
            return parts.setdefault(expr, (sp.Symbol(f"p{len(parts)}", real=True), value, of_value))[0]
        return expr.func(*map(named, expr.args))

    return named(written), tuple(parts.values())


@functools.lru_cache(maxsize=2048)
def _written(formula: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[sp.Expr, ...]:
    return tuple(formula(*arguments, ALPHA, SIGMA))


@functools.lru_cache(maxsize=256)
def _five(alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr, ...]:
    slopes = (simplified(sp.diff(e, t)) for e in (alpha, sigma))
    return (*slopes, simplified(wronskian(alpha, sigma)), alpha, sigma)
