"""A function of time from its text, with its derivative, to as many digits as it takes. Shares no code with the engine.

A jet is the pair (value, derivative) in mpmath's current precision; the derivative of a constant is the int 0, and a
derivative that happens to be zero is not. Each node of the text is a function from the jet of
t to its own jet, by the chain rule, so that composition with a change of time is a jet of other values.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mpmath
from mpmath import mpf

Jet = tuple[mpf, mpf | int]
JetFunction = Callable[[Jet], Jet]

DIGITS = (50, 80, 160, 320, 640, 1280, 2560)
"""Precisions that are tried one after the other, until two agree."""
AGREEMENT = mpf(10) ** -25
LARGEST_EXPONENT = mpf(10) ** 1000
"""Of exp: beyond it the exponent itself has too many digits."""


class UndecidedError(ArithmeticError):
    """No value is found: at a kink or a pole, or beyond the precisions and magnitudes that are tried."""


class TooLargeError(UndecidedError):
    """An exponent has too many digits."""


class OutsideError(ArithmeticError):
    """The function is not real here."""


def jet_function(text: str, parameters: Mapping[str, float] | None = None) -> JetFunction:
    """The function of jets that ``text`` states, in numbers, t, pi, the names of ``parameters`` and FUNCTIONS."""
    return _node(ast.parse(text, mode="eval").body, {name: repr(value) for name, value in (parameters or {}).items()})


def settled(values: Callable[[], Sequence[mpf]], precisions: Sequence[int] = DIGITS) -> tuple[mpf, ...]:
    """What ``values`` gives in two precisions alike, to 25 digits of each number.

    Raises:
        UndecidedError: If no two precisions agree.
        OutsideError: If two precisions agree that the function is not real.
    """
    before: tuple[mpf, ...] | type[ArithmeticError] | None = None
    for digits in precisions:
        with mpmath.workdps(digits):
            try:
                now = tuple(values())
            except (OutsideError, TooLargeError) as error:
                if before is type(error):
                    raise
                before = type(error)
            except (UndecidedError, ZeroDivisionError):
                before = None
            else:
                if isinstance(before, tuple) and all(map(_agree, before, now)):
                    return now
                before = now
    raise UndecidedError("no two precisions agree")


def _agree(a: mpf, b: mpf) -> bool:
    return bool(abs(a - b) <= AGREEMENT * abs(b))


# The nodes of a text


def _node(node: ast.expr, parameters: Mapping[str, str]) -> JetFunction:
    match node:
        case ast.Constant():
            return _constant(repr(node.value))
        case ast.Name(id="t"):
            return lambda t: t
        case ast.Name(id="pi"):
            return lambda t: (+mpmath.pi, 0)
        case ast.Name(id=name):
            return _constant(parameters[name])
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _node(operand, parameters)
            return lambda t: _product((mpf(-1), 0), inner(t))
        case ast.BinOp(left=left, op=op, right=right):
            operation, first, second = OPERATIONS[type(op)], _node(left, parameters), _node(right, parameters)
            return lambda t: operation(first(t), second(t))
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            function, inner = FUNCTIONS[name], _node(argument, parameters)

            def call(t: Jet) -> Jet:
                x, dx = inner(t)
                y, slope = function(x, not _is_constant(dx))
                return y, slope * dx

            return call
    raise ValueError(f"jet_function: no rule for {ast.dump(node)}.")


def _constant(digits: str) -> JetFunction:
    return lambda t: (_number(digits, mpmath.mp.prec), 0)


@functools.lru_cache(maxsize=4096)
def _number(digits: str, precision: int) -> mpf:
    return mpf(digits)


def _is_constant(slope: mpf | int) -> bool:
    return isinstance(slope, int)


def _difference(a: Jet, b: Jet) -> Jet:
    """Where no digit is left of a function of time, more may be right: 1 - sqrt(1 - t^2) is not 0 at 1e-100."""
    if a[0] == b[0] != 0 and not (_is_constant(a[1]) and _is_constant(b[1])):
        raise UndecidedError("a difference without a digit")
    return a[0] - b[0], a[1] - b[1]


def _product(a: Jet, b: Jet) -> Jet:
    if _is_constant(a[1]) and _is_constant(b[1]):
        return a[0] * b[0], 0
    return a[0] * b[0], a[1] * b[0] + a[0] * b[1]


def _quotient(a: Jet, b: Jet) -> Jet:
    if _is_constant(a[1]) and _is_constant(b[1]):
        return a[0] / b[0], 0
    return a[0] / b[0], (a[1] - a[0] * b[1] / b[0]) / b[0]


def _power(a: Jet, b: Jet) -> Jet:
    (base, slope), (exponent, exponent_slope) = a, b
    if _is_constant(exponent_slope) and exponent == int(exponent):
        n = int(exponent)
        return base**n, 0 if n == 0 or _is_constant(slope) else n * base ** (n - 1) * slope
    _require(base, "power")
    if base == 0:
        raise UndecidedError("the slope of a root at zero")
    logarithm = mpmath.log(base)
    value = _exp(exponent * logarithm)
    if _is_constant(slope) and _is_constant(exponent_slope):
        return value, 0
    return value, value * (exponent_slope * logarithm + exponent * slope / base)


def _require(distance: mpf, name: str) -> None:
    """That the argument of a function is inside its domain by ``distance``, or may be, by rounding."""
    if distance < 0:
        if abs(distance) < mpf(10) ** (-mpmath.mp.dps // 2):
            raise UndecidedError(f"{name}: next to the border of its domain")
        raise OutsideError(f"{name}: outside of its domain")


def _exp(x: mpf) -> mpf:
    if abs(x) > LARGEST_EXPONENT:
        raise TooLargeError("exp: too large an exponent")
    return mpmath.exp(x)


Rule = Callable[[mpf, bool], tuple[mpf, mpf | int]]
"""From x to f(x) and f'(x); the second only where it is wanted, since it may be infinite."""


def _rule(f: Callable[[mpf], mpf], slope: Callable[[mpf, mpf], mpf]) -> Rule:
    def rule(x: mpf, sloped: bool) -> tuple[mpf, mpf | int]:
        y = f(x)
        return y, slope(x, y) if sloped else 0

    return rule


def _inside(f: Callable[[mpf], mpf], distance: Callable[[mpf], mpf], name: str) -> Callable[[mpf], mpf]:
    def checked(x: mpf) -> mpf:
        _require(distance(x), name)
        return f(x)

    return checked


def _log(x: mpf) -> mpf:
    if x == 0:
        raise UndecidedError("log of zero, or of the rest of a cancellation")
    return mpmath.log(x)


def _sigmoid(x: mpf) -> mpf:
    return 1 / (1 + _exp(-x))


def _unit(x: mpf) -> mpf:
    return 1 - abs(x)


def _arc(x: mpf) -> mpf:
    return mpmath.sqrt((1 - x) * (1 + x))


FUNCTIONS: dict[str, Rule] = {
    "sin": _rule(mpmath.sin, lambda x, y: mpmath.cos(x)),
    "cos": _rule(mpmath.cos, lambda x, y: -mpmath.sin(x)),
    "tan": _rule(mpmath.tan, lambda x, y: 1 + y * y),
    "asin": _rule(_inside(mpmath.asin, _unit, "asin"), lambda x, y: 1 / _arc(x)),
    "acos": _rule(_inside(mpmath.acos, _unit, "acos"), lambda x, y: -1 / _arc(x)),
    "atan": _rule(mpmath.atan, lambda x, y: 1 / (1 + x * x)),
    "sinh": _rule(mpmath.sinh, lambda x, y: mpmath.cosh(x)),
    "cosh": _rule(mpmath.cosh, lambda x, y: mpmath.sinh(x)),
    "tanh": _rule(mpmath.tanh, lambda x, y: 1 / mpmath.cosh(x) ** 2),
    "exp": _rule(_exp, lambda x, y: y),
    "log": _rule(_inside(_log, lambda x: x, "log"), lambda x, y: 1 / x),
    "sqrt": _rule(_inside(mpmath.sqrt, lambda x: x, "sqrt"), lambda x, y: 1 / (2 * y)),
    "sigmoid": _rule(_sigmoid, lambda x, y: y * _sigmoid(-x)),
}
OPERATIONS: dict[Any, Callable[[Jet, Jet], Jet]] = {
    ast.Add: lambda a, b: (a[0] + b[0], a[1] + b[1]),
    ast.Sub: _difference,
    ast.Mult: _product,
    ast.Div: _quotient,
    ast.Pow: _power,
}
