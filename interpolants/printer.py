"""A sympy expression in time as a function of arrays of torch, numpy or jax: subexpressions shared, constants floats.

sympy's own printer for torch has no rule for sqrt(2) or expm1, and returns integers for constants.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import sympy as sp
from sympy.printing.pycode import PythonCodePrinter

from interpolants.expression import t

ArrayFunction = Callable[[Any], Any]
BACKENDS: Final = {"torch": "torch", "numpy": "numpy", "jax": "jax.numpy"}

_NAMES: Final = {
    "sin": "sin", "cos": "cos", "tan": "tan", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
    "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "exp": "exp", "expm1": "expm1", "log": "log", "Abs": "abs",
    "Max": "maximum", "Min": "minimum",
}  # fmt: skip
"""Of sympy's functions, in all three libraries."""


def lambdified(expr: sp.Expr, backend: str) -> ArrayFunction:
    """A function from an array of times to the values of ``expr``, as it is written, of equal shape."""
    if not expr.has(t):
        return _constant(to_float(expr), backend)
    function: ArrayFunction = sp.lambdify(
        t, _with_float_constants(expr), modules=[namespace(backend)], printer=_ArrayPrinter(), cse=True
    )
    if isinstance(constant := function(_example(backend)), float):  # all that depended on t was shared and cancelled
        return _constant(constant, backend)
    return quiet(function, backend)


def quiet(function: ArrayFunction, backend: str) -> ArrayFunction:
    """Without numpy's warnings at a pole, which has a value, the signed infinity."""
    return np.errstate(all="ignore")(function) if backend == "numpy" else function


def to_float(value: sp.Expr) -> float:
    """A constant or an infinity of sympy's as the nearest float."""
    return float(sp.N(value, 30)) if value.is_finite else (math.inf if value == sp.oo else -math.inf)


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
    return {name: getattr(library, name) for name in (*_NAMES.values(), "sqrt", "where", "full_like", "zeros_like")}


def _constant(value: float, backend: str) -> ArrayFunction:
    full_like = namespace(backend)["full_like"]
    return lambda time: full_like(time, value)


def _example(backend: str) -> Any:
    library = importlib.import_module(BACKENDS[backend])
    return library.asarray([0.3])


def _with_float_constants(expr: sp.Expr) -> sp.Expr:
    """Each irrational constant as one number: its factors alone may be complex where the product is real."""
    if expr.is_number:
        return expr if expr.is_Rational else sp.Float(sp.re(sp.N(expr, 30)), 30)
    if expr.is_Mul or expr.is_Add:
        constants = [argument for argument in expr.args if argument.is_number]
        others = [_with_float_constants(argument) for argument in expr.args if not argument.is_number]
        return expr.func(_with_float_constants(expr.func(*constants)), *others)
    return expr.func(*map(_with_float_constants, expr.args)) if expr.args else expr


class _ArrayPrinter(PythonCodePrinter):  # type: ignore[misc]
    """Python source over bare function names; every constant is one float literal, so no constant is a tensor."""

    def _print(self, expr: Any, **kwargs: Any) -> str:
        if isinstance(expr, sp.Expr) and expr.is_number:
            return f"({to_float(expr)!r})" if expr.is_negative else repr(to_float(expr))
        result: str = super()._print(expr, **kwargs)
        return result

    def _print_Function(self, expr: sp.Expr) -> str:
        name = type(expr).__name__
        if name not in _NAMES:
            raise ValueError(f"compiled: the function {name} has no counterpart in arrays, in {expr}.")
        return f"{_NAMES[name]}({', '.join(self._print(a) for a in expr.args)})"

    def _print_extremum(self, expr: sp.Expr) -> str:
        # One of the two may be a number, which torch's maximum does not take.
        name = _NAMES[type(expr).__name__]
        return functools.reduce(lambda a, b: f"{name}({a}, {b})", map(self._print_array, expr.args))

    def _print_array(self, expr: sp.Expr) -> str:
        return self._print(expr) if expr.free_symbols else f"full_like({t.name}, {self._print(expr)})"

    def _print_Pow(self, expr: sp.Expr, **kwargs: Any) -> str:
        base = f"({self._print(expr.base)})"
        if not expr.exp.is_number:
            return f"{base}**({self._print(expr.exp)})"
        exponent = abs(expr.exp)
        if exponent == sp.Rational(1, 2):
            power = f"sqrt{base}"
        elif exponent == 1:
            power = base
        else:
            power = f"{base}**{int(exponent) if exponent.is_Integer else to_float(exponent)}"
        return f"(1/{power})" if expr.exp.is_negative else power


for _name in _NAMES:
    setattr(_ArrayPrinter, f"_print_{_name}", _ArrayPrinter._print_Function)
_ArrayPrinter._print_Max = _ArrayPrinter._print_Min = _ArrayPrinter._print_extremum
