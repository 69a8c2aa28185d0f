"""A sympy expression in time as a function of arrays of torch, numpy or jax, or of mpmath's numbers.

The code is one operation a line, and no operation is done twice (value numbering). Each constant is one number, however
it is written, since its factors alone may be complex where the product is real: a float, so that no constant is a
tensor, or in mpmath as many digits as are asked for.
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import mpmath
import numpy as np
import sympy as sp

from interpolants.expression import is_constant, t

ArrayFunction = Callable[[Any], Any]
BACKENDS: Final = {"torch": "torch", "numpy": "numpy", "jax": "jax.numpy"}

u: Final = sp.Symbol("u", nonnegative=True)
"""1 - t, the distance to the data end: exact in floating point on [1/2, 1]."""

NAMES: Final = {
    "sin": "sin", "cos": "cos", "tan": "tan", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
    "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "exp": "exp", "expm1": "expm1", "log": "log",
    "log1p": "log1p", "Abs": "abs", "sign": "sign", "Max": "maximum", "Min": "minimum",
}  # fmt: skip
"""Of sympy's functions, in all three libraries."""

_IN_MPMATH: Final = {"arcsin": mpmath.asin, "arccos": mpmath.acos, "arctan": mpmath.atan, "abs": abs,
                     "maximum": max, "minimum": min}  # fmt: skip


@functools.lru_cache(maxsize=4096)
def lambdified(expr: sp.Expr, backend: str) -> ArrayFunction:
    """A function from an array of times to the values of ``expr``, as it is written, of equal shape.

    Args:
        expr: In ``t``, and in ``u`` for 1 - t.
        backend: "torch", "numpy" or "jax".

    Raises:
        ValueError: If the expression has a function that the libraries have not, or there is no such backend.
        ImportError: If the library is not installed.
    """
    functions = namespace(backend)
    if is_constant(expr):
        return _constant(to_float(expr), functions["full_like"])
    function = function_of(expr, to_float, lambda number: repr(float(number)), functions)
    return quiet(function, backend)


@functools.lru_cache(maxsize=4096)
def of_symbols(expr: sp.Expr, symbols: tuple[sp.Symbol, ...], backend: str) -> Callable[..., Any]:
    """A function of times and of the values that symbols stand for, arrays all, to the values of ``expr``."""
    literal = lambda number: repr(float(number))  # noqa: E731
    return function_of(expr, to_float, literal, namespace(backend), symbols=symbols)


def named_in(constants: dict[str, Any]) -> Callable[[Any], str]:
    """Literals for numbers that no float can be: each is put into ``constants``, and its name there is written."""

    def name(number: Any) -> str:
        constants[f"c{len(constants)}"] = number
        return f"c{len(constants) - 1}"

    return name


@functools.lru_cache(maxsize=1024)
def high_precision(expr: sp.Expr, digits: int) -> ArrayFunction:
    """A function of one of mpmath's numbers, constants correct to ``digits`` digits and more."""
    constants: dict[str, Any] = {}

    def number(value: sp.Expr) -> Any:
        with mpmath.workdps(digits + 10):
            if value.is_Rational:
                return mpmath.mpf(int(value.p)) / int(value.q)
            return mpmath.re(mpmath.mpmathify(sp.N(value, digits + 10)))

    functions = {name: _IN_MPMATH.get(name) or getattr(mpmath, name) for name in (*NAMES.values(), "sqrt")}
    functions["full_like"] = lambda time, value: value
    if is_constant(expr):
        constant = number(expr)
        return lambda time: constant
    return function_of(expr, number, named_in(constants), functions, constants)


def quiet(function: ArrayFunction, backend: str) -> ArrayFunction:
    """Without numpy's warnings at a pole, which has a value, the signed infinity."""
    return np.errstate(all="ignore")(function) if backend == "numpy" else function


@functools.lru_cache(maxsize=4096)
def to_float(value: sp.Expr) -> float:
    """A constant or an infinity of sympy's as the nearest float."""
    if value.is_Rational:
        try:
            return int(value.p) / int(value.q)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if value in (sp.oo, -sp.oo):
        return math.inf if value == sp.oo else -math.inf
    return float(sp.re(sp.N(value, 30)))


@functools.cache
def namespace(backend: str) -> dict[str, Any]:
    """The functions of a library that expressions are printed with.

    Raises:
        ValueError: If there is no such backend.
        ImportError: If its library is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"compiled: backend must be one of {', '.join(BACKENDS)}, got {backend!r}.")
    library = importlib.import_module(BACKENDS[backend])
    names = (*NAMES.values(), "sqrt", "where", "full_like", "clip")
    return {name: getattr(library, name) for name in names}


def _constant(value: float, full_like: Callable[..., Any]) -> ArrayFunction:
    return lambda time: full_like(time, value)


def function_of(
    expr: sp.Expr,
    number: Callable[[sp.Expr], Any],
    literal: Callable[[Any], str],
    functions: dict[str, Any],
    constants: dict[str, Any] | None = None,
    symbols: Sequence[sp.Symbol] = (),
) -> Callable[..., Any]:
    """The code of ``expr`` as a function of t, and of the symbols if there are any, with the functions of a library."""
    source = code_of(expr, number, literal, symbols)
    return executed(source, {"inf": math.inf, **functions, **({} if constants is None else constants)})


def code_of(
    expr: sp.Expr, number: Callable[[sp.Expr], Any], literal: Callable[[Any], str], symbols: Sequence[sp.Symbol] = ()
) -> str:
    """The code of ``expr`` as a function of t and of the symbols."""
    code = _Code(number, literal)
    result = code.operand(expr)
    body = "".join(f"    {name} = {operation}\n" for operation, name in code.lines.items())
    arguments = ", ".join(["t", *(symbol.name for symbol in symbols)])
    return f"def coefficient({arguments}):\n{body}    return {result}\n"


def executed(source: str, scope: dict[str, Any]) -> Callable[..., Any]:
    """The function of the code, with what its names stand for."""
    exec(source, scope)  # of names that this module makes and numbers alone
    function: Callable[..., Any] = scope["coefficient"]
    function.__doc__ = source
    return function


class _Code:
    """Lines of code, one for each operation that differs from those before."""

    def __init__(self, number: Callable[[sp.Expr], Any], literal: Callable[[Any], str]) -> None:
        self._number, self._literal = number, literal
        self.lines: dict[str, str] = {}
        self._operands: dict[sp.Expr, str] = {}

    def operand(self, expr: sp.Expr) -> str:
        """The name or the literal that stands for an expression, after the lines so far."""
        if expr not in self._operands:
            self._operands[expr] = self._new_operand(expr)
        return self._operands[expr]

    def _line(self, operation: str) -> str:
        return self.lines.setdefault(operation, f"x{len(self.lines)}")

    def _new_operand(self, expr: sp.Expr) -> str:
        if is_constant(expr):
            literal = self._literal(self._number(expr))
            return f"({literal})" if literal.startswith("-") else literal
        if expr == t:
            return "t"
        if expr.is_Symbol and expr != u:
            return str(expr.name)
        if expr == u:
            return self._line("1 - t")
        if expr.is_Add:
            return self._sum(expr)
        if expr.is_Mul:
            return self._product(expr)
        if expr.is_Pow:
            return self._power(expr.base, expr.exp)
        name = type(expr).__name__
        if name not in NAMES:
            raise ValueError(f"compiled: the function {name} has no counterpart in arrays, in {expr}.")
        if name in ("Max", "Min"):
            return functools.reduce(lambda a, b: self._line(f"{NAMES[name]}({a}, {b})"), map(self._array, expr.args))
        return self._line(f"{NAMES[name]}({self.operand(expr.args[0])})")

    def _array(self, expr: sp.Expr) -> str:
        # One of the two may be a number, which torch's maximum does not take.
        value = self.operand(expr)
        return self._line(f"full_like(t, {value})") if is_constant(expr) else value

    def _sum(self, expr: sp.Expr) -> str:
        constant, terms = _constants_apart(expr)
        if self._number is to_float and len(terms) == 1 and (line := self._from_root(constant, terms[0])):
            return line
        signed = [(_is_negative(term), term) for term in terms]
        signed.sort(key=lambda pair: pair[0])
        total = self.operand(constant) if constant != 0 else None
        for negative, term in signed:
            value = self.operand(-term if negative else term)
            if total is None:
                total = self._negated(value) if negative else value
            else:
                total = self._line(f"{total} {'-' if negative else '+'} {value}")
        assert total is not None
        return total

    def _from_root(self, constant: sp.Expr, term: sp.Expr) -> str | None:
        """a t + b as a (t - c) where c is in (0, 1), next to which a t + b has the rounding of a t and of c."""
        slope, time = term.as_coeff_Mul()
        if time not in (t, u) or not (constant.is_Rational and slope.is_Rational and 0 < -constant / slope < 1):
            return None
        root = -constant / slope
        nearest = sp.Rational(*to_float(root).as_integer_ratio())
        above, below = (time, nearest) if slope > 0 else (nearest, time)  # c - t, not -(t - c), which may be -0
        distance = self._line(f"{self.operand(above)} - {self.operand(below)}")
        if root != nearest:
            distance = self._line(f"{distance} - {self.operand(sp.sign(slope) * (root - nearest))}")
        return distance if abs(slope) == 1 else self._line(f"{self.operand(abs(slope))} * {distance}")

    def _product(self, expr: sp.Expr) -> str:
        constant, factors = _constants_apart(expr)
        above: list[str] = []
        below: list[str] = []
        for factor in factors:
            base, exponent = factor.as_base_exp() if factor.is_Pow else (factor, sp.Integer(1))
            inverse = exponent.is_Rational and exponent.is_negative
            (below if inverse else above).append(self._power(base, abs(exponent)) if inverse else self.operand(factor))
        negative = constant == -1
        number = None if negative or constant == 1 else self.operand(constant)
        top = self._chain([number, *above] if number else above)
        if below:
            top = self._line(f"{top or '1'} / {self._chain(below)}")
        assert top is not None
        return self._negated(top) if negative else top

    def _negated(self, value: str) -> str:
        # 0 - x is 0 where x is, and not -0: the root of -expm1(u) and what a user divides by it keep their sign.
        return self._line("-t" if value == "t" else f"0 - {value}")

    def _chain(self, factors: Sequence[str]) -> str | None:
        return functools.reduce(lambda a, b: self._line(f"{a} * {b}"), factors) if factors else None

    def _power(self, base: sp.Expr, exponent: sp.Expr) -> str:
        if not exponent.is_Rational:
            return self._line(f"{self.operand(base)} ** {self.operand(exponent)}")
        if exponent.is_negative:
            return self._line(f"1 / {self._power(base, -exponent)}")
        of_base = self.operand(base)
        if exponent == 1:
            return of_base
        if exponent == sp.Rational(1, 2):
            return self._line(f"sqrt({of_base})")
        if self._number is to_float and exponent > 1 and sp.Rational(to_float(exponent)) != exponent:
            return self._in_two(of_base, exponent)
        return self._line(f"{of_base} ** {exponent if exponent.is_Integer else self.operand(exponent)}")

    def _in_two(self, of_base: str, exponent: sp.Expr) -> str:
        """x^p as x^(n / 64) x^(p - n / 64). The float p has an error, and x^p one of |log x| times it."""
        first = sp.floor(64 * exponent) / 64
        positive = self._line(f"clip({of_base}, {sys.float_info.min!r}, None)")  # at 0 the derivative is infinite
        rest = self._line(f"{positive} ** {self.operand(exponent - first)}")
        return self._line(f"{self._line(f'{of_base} ** {self.operand(first)}')} * {rest}")


def _constants_apart(expr: sp.Expr) -> tuple[sp.Expr, list[sp.Expr]]:
    """The constant terms of a sum, or factors of a product, as one, and the others."""
    constants = [argument for argument in expr.args if is_constant(argument)]
    return expr.func(*constants), [argument for argument in expr.args if not is_constant(argument)]


def _is_negative(term: sp.Expr) -> bool:
    return bool(term.is_Mul and term.args[0].is_Number and term.args[0].is_negative)
