r"""How a coefficient is made of functions that are each accurate.

All that is derived from a path is a formula in alpha, sigma, their derivatives, W = alpha' sigma - alpha sigma' and
omega = sigma W / alpha. Where the expression that it simplifies to loses digits, these, each accurate, and few
operations keep them: a conversion is a product of their powers, and no drift from a predicted velocity has a difference
in it. Where alpha or sigma is below all floats, and the value is not, the logarithmic derivatives take the place of

.. math:: \alpha' = \alpha L, \qquad \sigma' = \sigma K, \qquad W = \alpha \sigma (L - K),

and what is 0 / 0 in floating point cancels in symbols.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import sympy as sp
from sympy.core.function import AppliedUndef

from interpolants.enclosure import is_nonnegative
from interpolants.expression import t
from interpolants.nesting import INNER, REST, nested, of_inner
from interpolants.pieces import KINKS, derivative
from interpolants.simplify import simplified

ALPHA, SIGMA, WRONSKIAN, RATE, NOISE, _LOG_ALPHA, _LOG_SIGMA, _LOG_RATIO = (
    sp.Function(f"_{name}")(t)
    for name in ("alpha", "sigma", "wronskian", "rate", "w", "d_log_alpha", "d_log_sigma", "d_log_ratio")
)
"""Functions of time without values, of which formulas are written."""
_D_ALPHA, _D_SIGMA = sp.diff(ALPHA, t), sp.diff(SIGMA, t)
_LOGARITHMIC: Final = {_D_ALPHA: ALPHA * _LOG_ALPHA, _D_SIGMA: SIGMA * _LOG_SIGMA}
_WAYS: Final[tuple[dict[sp.Expr, sp.Expr], ...]] = (
    {},
    {**_LOGARITHMIC, WRONSKIAN: ALPHA * RATE / SIGMA},
    {**_LOGARITHMIC, WRONSKIAN: ALPHA * SIGMA * _LOG_RATIO, RATE: SIGMA**2 * _LOG_RATIO},
)
"""Three ways to write a formula: the functions in it that each replaces, and their replacements."""

Part = tuple[sp.Symbol, sp.Expr, "How | None"]
"""A symbol, the expression it stands for, and how that expression is made in turn."""
Way = tuple[sp.Expr, tuple[Part, ...]]
"""An expression in symbols, and in t where it holds other functions of that, and the symbols with their meanings."""


def wronskian(alpha: sp.Expr, sigma: sp.Expr) -> sp.Expr:
    """W = alpha' sigma - alpha sigma', positive exactly where the log-SNR increases."""
    if (alpha, sigma) == (ALPHA, SIGMA):
        return WRONSKIAN
    return of_slopes(alpha, sigma)[0]


def of_slopes(alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr]:
    """W in terms of alpha' and sigma': on most paths no difference, since sigma falls."""
    return (derivative(alpha) * sigma - alpha * derivative(sigma),)


def rate(alpha: sp.Expr, sigma: sp.Expr) -> sp.Expr:
    """omega = sigma W / alpha: half of g^2 of the SDE from data to noise."""
    return RATE if (alpha, sigma) == (ALPHA, SIGMA) else of_wronskian(alpha, sigma)[0]


def of_wronskian(alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr]:
    """omega in terms of W."""
    return (sigma * wronskian(alpha, sigma) / alpha,)


def of_logarithms(alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr]:
    """L - K: W / alpha sigma, a half of the derivative of the log-SNR."""
    if (alpha, sigma) == (ALPHA, SIGMA):
        return (_LOG_ALPHA - _LOG_SIGMA,)
    return (derivative(alpha) / alpha - derivative(sigma) / sigma,)


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
    def ways(self) -> tuple[Way, ...]:
        """The formula, as it is and with logarithmic derivatives."""
        return _worth_it(_named(self, way) for way in range(len(_WAYS)))

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
        positive = {function: sp.Dummy(positive=True) for function in (ALPHA, SIGMA, WRONSKIAN, RATE)}
        return bool(_written(self.formula, self.arguments)[self.item].xreplace(positive).is_nonnegative)

    @property
    def stated(self) -> sp.Expr:
        """The formula in t, as it is stated: nothing in it is multiplied out or cancelled."""
        written = _written(self.formula, self.arguments)[self.item]
        meanings = {name: _stated(name, self.alpha, self.sigma)[0] for name in _names_in(written)}
        if self.w is not None:
            meanings[NOISE] = self.w[0] if self.w[1] is None else self.w[1].stated
        return written.xreplace(meanings)


@dataclass(frozen=True)
class Slope:
    """A derivative, by the rules for functions of functions, products and sums.

    Attributes:
        function: The function whose derivative this is.
    """

    function: sp.Expr

    @property
    def ways(self) -> tuple[Way, ...]:
        """The rule."""
        return _worth_it([_differentiated(self.function)])

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
        return derivative(self.function)


How = Made | Slope


def _worth_it(ways: Iterable[Way]) -> tuple[Way, ...]:
    """Those that are not one part alone, each once."""
    return tuple(dict.fromkeys((whole, parts) for whole, parts in ways if not whole.is_Symbol or whole == t))


@functools.lru_cache(maxsize=2048)
def _differentiated(function: sp.Expr) -> Way:
    parts: dict[sp.Expr, Part] = {}

    def part(expr: sp.Expr, how: How | None = None) -> sp.Expr:
        if not expr.has(t) or expr == t:
            return expr
        return parts.setdefault(expr, (sp.Symbol(f"p{len(parts)}", real=True), expr, how))[0]

    def slope(expr: sp.Expr) -> sp.Expr:
        return part(simplified(derivative(expr)), Slope(expr))

    if (composed := nested(function)) is not None:
        outer, g = composed
        rate = derivative(outer)
        if all(is_nonnegative(inside).holds for inside in (g, 1 - g)):  # simplified as functions on (0, 1) are
            rate = simplified(rate)
        rate = of_inner(rate)
        whole = rate.xreplace({INNER: part(g), REST: part(1 - g)}) * slope(g)
    elif function.is_Add:
        whole = sp.Add(*map(slope, function.args))
    elif function.is_Mul:
        factors = function.args
        whole = sp.Add(*(slope(f) * sp.Mul(*(part(other) for other in factors if other is not f)) for f in factors))
    else:
        whole = part(simplified(derivative(function)))
    return whole, tuple(part for part in parts.values() if whole.has(part[0]))


@functools.lru_cache(maxsize=2048)
def _named(made: Made, way: int) -> Way:
    written = _written(made.formula, made.arguments)[made.item].xreplace(_WAYS[way])
    meanings = {name: _meaning(name, made.alpha, made.sigma) for name in _names_in(written)}
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


def _names_in(written: sp.Expr) -> set[sp.Expr]:
    """The functions without values, but for ``NOISE``."""
    names: set[sp.Expr] = written.atoms(sp.Derivative, AppliedUndef) - {NOISE}
    return names


@functools.lru_cache(maxsize=2048)
def _meaning(name: sp.Expr, alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr, How | None]:
    """The expression that a function without values stands for, in its normal form, and how it is made."""
    stated, how = _stated(name, alpha, sigma)
    return (stated if how is None else simplified(stated)), how


def _stated(name: sp.Expr, alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr, How | None]:
    if name in (ALPHA, SIGMA):
        return (alpha if name == ALPHA else sigma), None
    if name in (_D_ALPHA, _D_SIGMA):
        function = alpha if name == _D_ALPHA else sigma
        return derivative(function), Slope(function)
    if name in (_LOG_ALPHA, _LOG_SIGMA):
        function = alpha if name == _LOG_ALPHA else sigma
        return derivative(function) / function, Slope(sp.expand_log(sp.log(function), force=True))
    formula = {WRONSKIAN: of_slopes, RATE: of_wronskian, _LOG_RATIO: of_logarithms}[name]
    return formula(alpha, sigma)[0], Made(formula, (), alpha, sigma)
