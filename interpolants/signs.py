"""The sign of a function on (0, 1), by interval arithmetic on cells that shrink towards both ends.

Every operation takes intervals, arrays of lower and upper bounds with one element a cell, to intervals that enclose its
values, widened for rounding. A sign that is found holds at all times but those nearer to an end than ``NEAREST``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
import sympy as sp

from interpolants.expression import t

NEAREST: Final = 1e-6
_ROUNDING: Final = 1e-15
_EDGES: Final = 65
"""Of the parts of a cell on which a sign is not clear."""
_MAX_UNCLEAR: Final = 100

Interval: TypeAlias = tuple[Any, Any]


class Unknown(Exception):  # noqa: N818 - not an error
    """A function without a rule, or an argument outside of where its rule holds."""


def sign(enclose: Callable[[Interval], Interval]) -> int:
    """1 or -1 where that is the sign on all cells of what ``enclose`` encloses, 0 where it is not clear."""
    time, found = cells(), set[float]()
    for _ in range(3):
        low, high = enclose(time)
        unclear = ~((low > 0) | (high < 0))
        found.update(np.sign(low[~unclear]))
        if len(found) > 1 or unclear.sum() > _MAX_UNCLEAR:
            return 0
        if not unclear.any():
            return int(found.pop())
        edges = np.linspace(time[0][unclear], time[1][unclear], _EDGES)
        time = edges[:-1].ravel(), edges[1:].ravel()
    return 0


@functools.cache
def cells() -> Interval:
    """The cells between NEAREST and 1 - NEAREST: 0.002 wide, or a tenth of the distance to the nearer end."""
    distances = np.geomspace(NEAREST, 0.02, 105)
    middle = np.linspace(distances[-1], 1 - distances[-1], 481)
    edges = np.concatenate([distances, middle[1:-1], 1 - distances[::-1]])
    return edges[:-1], edges[1:]


def enclosed(expr: sp.Expr, time: Interval) -> Interval:
    """Bounds of ``expr`` on each cell.

    Raises:
        Unknown: If it has a function that has no rule here, or a power or logarithm of what may not be positive.
    """
    if expr == t:
        return time
    if not expr.has(t):
        value = sp.N(expr, 17)
        if not value.is_Float and not value.is_Integer:
            raise Unknown
        values = np.full_like(time[0], float(value))
        return _widened(values, values)
    arguments = [enclosed(argument, time) for argument in expr.args]
    with np.errstate(all="ignore"):
        if expr.is_Add:
            return functools.reduce(plus, arguments)
        if expr.is_Mul:
            return functools.reduce(multiplied, arguments)
        if expr.is_Pow:
            return _power(arguments[0], arguments[1], expr.exp)
        name = type(expr).__name__
        if name not in _RULES:
            raise Unknown
        return _widened(*_RULES[name](*arguments[0]))


def plus(a: Interval, b: Interval) -> Interval:
    """Bounds of a sum; the rounding is relative to the larger term, since the two may cancel."""
    size = _ROUNDING * (np.abs(a).max(0) + np.abs(b).max(0))
    return a[0] + b[0] - size, a[1] + b[1] + size


def multiplied(a: Interval, b: Interval) -> Interval:
    """Bounds of a product."""
    products = np.stack([x * y for x in a for y in b])
    return _widened(products.min(0), products.max(0))


def raised(a: Interval, exponent: int) -> Interval:
    """Bounds of a whole power, >= 0."""
    low, high = a if exponent % 2 else _abs(*a)
    return _widened(low**exponent, high**exponent)


def _power(base: Interval, exponent: Interval, symbol: sp.Expr) -> Interval:
    if symbol.is_Integer and symbol.is_positive:
        return raised(base, int(symbol))
    if symbol.is_Integer and np.all((base[0] > 0) | (base[1] < 0)):
        low, high = raised(base, -int(symbol))
        return _widened(1 / high, 1 / low)
    # The logarithm of what may not be positive is not finite, which _widened refuses.
    low, high = multiplied((np.log(base[0]), np.log(base[1])), exponent)
    return _widened(np.exp(low), np.exp(high))


def _widened(low: Any, high: Any) -> Interval:
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
        raise Unknown
    return low - _ROUNDING * np.abs(low), high + _ROUNDING * np.abs(high)


def _increasing(function: Callable[[Any], Any]) -> Callable[[Any, Any], Interval]:
    return lambda low, high: (function(low), function(high))


def _wave(function: Callable[[Any], Any]) -> Callable[[Any, Any], Interval]:
    def bounds(low: Any, high: Any) -> Interval:
        middle, radius = function((low + high) / 2), (high - low) / 2
        lower, upper = np.clip([middle - radius, middle + radius], -1.0, 1.0)
        return lower - _ROUNDING, upper + _ROUNDING

    return bounds


def _tan(low: Any, high: Any) -> Interval:
    if np.any(np.floor(low / np.pi + 0.5) != np.floor(high / np.pi + 0.5)):
        raise Unknown
    return np.tan(low), np.tan(high)


def _abs(low: Any, high: Any) -> Interval:
    return np.max([low, -high, 0 * low], axis=0), np.max([-low, high], axis=0)


_RULES: Final[dict[str, Callable[[Any, Any], Interval]]] = {
    "exp": _increasing(np.exp), "log": _increasing(np.log), "asin": _increasing(np.arcsin),
    "acos": lambda low, high: (np.arccos(high), np.arccos(low)), "atan": _increasing(np.arctan),
    "sinh": _increasing(np.sinh), "tanh": _increasing(np.tanh),
    "cosh": lambda low, high: _increasing(np.cosh)(*_abs(low, high)),
    "sin": _wave(np.sin), "cos": _wave(np.cos), "tan": _tan, "Abs": _abs,
}  # fmt: skip
