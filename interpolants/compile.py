"""From a sympy expression in time to a function of arrays that is accurate on all of [0, 1], both ends included.

An expression may be exact and its evaluation worthless: 1 - exp(u) loses every digit where u is small, cos(pi t / 2)
half of them next to t = 1, and sin(x)/x is NaN at 0. So an expression is compiled in whichever of three forms a
comparison with 60-digit arithmetic finds accurate, cheapest first:

    as a function of t,
    as a function of 1 - t (exact in floating point on [1/2, 1]),
    the first on [0, 1/2] and the second on (1/2, 1];

and where the value at an end itself is not the limit, the limit is put in its place.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import sympy as sp
import torch
from sympy.printing.pycode import PythonCodePrinter

from interpolants.expression import t
from interpolants.limits import evaluate, limit
from interpolants.simplify import simplified, stable

ArrayFunction = Callable[[Any], Any]

FUNCTIONS = ("sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "expm1", "log", "sqrt", "where", "full_like")
_RENAMED = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "Abs": "abs"}
_EXAMPLE = {"torch": torch.tensor([0.3], dtype=torch.float64), "numpy": np.array([0.3])}
_TOLERANCE = 4e-15
_END_PROBES = tuple(10.0**-k for k in (1, 2, 3, 5, 7, 10))
_MIDDLE_PROBES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True)
class Form:
    """A way to evaluate: ``in_t`` at t, or ``in_one_minus_t`` at 1 - t, or each on its half where both are given."""

    in_t: sp.Expr | None
    in_one_minus_t: sp.Expr | None


@functools.cache
def compiled(expr: sp.Expr, backend: str = "torch") -> ArrayFunction:
    """A function from an array of times in [0, 1] to the values of ``expr``, limits at the ends, of equal shape.

    Args:
        expr: Free of symbols but ``t``.
        backend: "torch" or "numpy".
    """
    if not expr.has(t):
        return _lambdify(expr, backend)
    form = _most_accurate_form(expr)
    function = _assemble(form, backend)
    in_numpy = _assemble(form, "numpy")
    wrong_ends = tuple(
        (float(end), value)
        for end in (0, 1)
        if not _agree(float(in_numpy(np.float64(end))), value := _to_float(limit(expr, end)))
    )
    return _with_limits(function, wrong_ends, backend) if wrong_ends else function


def sampled(expr: sp.Expr, times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``expr`` at ``times`` inside (0, 1), in plain float64: to look at an expression of which nothing is known yet."""
    values: np.ndarray[Any, Any] = _lambdify(stable(expr), "numpy")(times)
    return values


def _with_limits(function: ArrayFunction, ends: tuple[tuple[float, float], ...], backend: str) -> ArrayFunction:
    where = _namespace(backend)["where"]

    def with_limits(time: Any) -> Any:
        inside = time
        for end, _ in ends:  # the formula never sees the end, so that its derivative is not NaN there
            inside = where(time == end, 0.5, inside)
        value = function(inside)
        for end, limiting in ends:
            value = where(time == end, limiting, value)
        return value

    return with_limits


def _assemble(form: Form, backend: str) -> ArrayFunction:
    near_noise = _lambdify(form.in_t, backend) if form.in_t is not None else None
    near_data = _lambdify(form.in_one_minus_t, backend) if form.in_one_minus_t is not None else None
    if near_data is None:
        assert near_noise is not None
        return near_noise
    if near_noise is None:
        return lambda time: near_data(1 - time)
    where = _namespace(backend)["where"]

    def halves(time: Any) -> Any:
        first = time <= 0.5
        return where(first, near_noise(where(first, time, 0.5)), near_data(where(first, 0.5, 1 - time)))

    return halves


def most_accurate(*equal: sp.Expr) -> sp.Expr:
    """That of several equal expressions whose best form has the smallest error; the first where it is exact enough."""
    errors = []
    for expr in equal:
        errors.append(_error(_most_accurate_form(expr), expr) if expr.has(t) else 0.0)
        if errors[-1] <= 10 * _TOLERANCE:
            return expr
    return equal[int(np.argmin(errors))]


@functools.cache
def _most_accurate_form(expr: sp.Expr) -> Form:
    in_t = stable(expr)
    best, error = Form(in_t, None), _error(Form(in_t, None), expr)
    if error > _TOLERANCE:
        in_one_minus_t = stable(_around_data(expr))
        for form in (Form(None, in_one_minus_t), Form(in_t, in_one_minus_t)):
            form_error = _error(form, expr)
            if form_error < error / 2:
                best, error = form, form_error
            if error <= _TOLERANCE:
                break
    return best


def _around_data(expr: sp.Expr) -> sp.Expr:
    """``expr`` as a function of the distance 1 - t to the data end, which the symbol t then stands for."""
    mirrored = expr.subs(t, 1 - t)
    expanded = mirrored.replace(lambda e: e.is_Function, lambda e: e.func(*(sp.expand(a) for a in e.args)))
    return simplified(expanded)


def _error(form: Form, expr: sp.Expr) -> float:
    """The largest relative error in float64 over times next to both ends and between them."""
    function = _assemble(form, "numpy")
    times = (*_END_PROBES, *_MIDDLE_PROBES, *(1 - p for p in _END_PROBES))
    return max(_relative_error(float(function(np.float64(time))), expr, time) for time in times)


def _relative_error(got: float, expr: sp.Expr, time: float) -> float:
    exact = evaluate(expr, mpmath.mpf(time), digits=60)
    if not math.isfinite(got):
        return math.inf
    # Between the ends a coefficient may cross zero, where only the absolute error means anything.
    floor = 1.0 if time in _MIDDLE_PROBES else 0.0
    scale = max(abs(exact), floor)
    return float(abs(got - exact) / scale) if scale else abs(got)


def _agree(got: float, limiting: float) -> bool:
    return got == limiting or (math.isfinite(got) and abs(got - limiting) <= 4e-16 * abs(limiting))


def _to_float(value: sp.Expr) -> float:
    return float(sp.N(value, 30)) if value.is_finite else (math.inf if value == sp.oo else -math.inf)


@functools.cache
def _namespace(backend: str) -> dict[str, Any]:
    libraries = {"torch": torch, "numpy": np}
    if backend not in libraries:
        raise ValueError(f"compiled: backend must be one of {sorted(libraries)}, got {backend!r}.")
    library = libraries[backend]
    names = (*FUNCTIONS, *_RENAMED.values())
    return {name: getattr(library, name) for name in names}


def _lambdify(expr: sp.Expr, backend: str) -> ArrayFunction:
    if not expr.has(t):
        value, full_like = _to_float(expr), _namespace(backend)["full_like"]
        return lambda time: full_like(time, value)
    function: ArrayFunction = sp.lambdify(
        t, _with_float_constants(expr), modules=[_namespace(backend)], printer=_ArrayPrinter(), cse=True
    )
    if isinstance(constant := function(_EXAMPLE[backend]), float):  # all that depended on t was a common subexpression
        full_like = _namespace(backend)["full_like"]
        return lambda time: full_like(time, constant)
    # A pole has a value, the signed infinity: numpy's warnings about it are of no use.
    return np.errstate(all="ignore")(function) if backend == "numpy" else function


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
            return f"({_to_float(expr)!r})" if expr.is_negative else repr(_to_float(expr))
        result: str = super()._print(expr, **kwargs)
        return result

    def _print_Function(self, expr: sp.Expr) -> str:
        name = type(expr).__name__
        name = _RENAMED.get(name, name)
        if name not in FUNCTIONS and name not in _RENAMED.values():
            raise ValueError(f"compiled: the function {name} has no counterpart in arrays, in {expr}.")
        return f"{name}({', '.join(self._print(a) for a in expr.args)})"

    def _print_Pow(self, expr: sp.Expr, **kwargs: Any) -> str:
        base = f"({self._print(expr.base)})"
        if not expr.exp.is_number:
            return f"{base}**({self._print(expr.exp)})"
        power = f"sqrt{base}" if abs(expr.exp) == sp.Rational(1, 2) else base
        if abs(expr.exp) not in (1, sp.Rational(1, 2)):
            exponent = abs(expr.exp)
            power = f"{base}**{int(exponent) if exponent.is_Integer else _to_float(exponent)}"
        return f"(1/{power})" if expr.exp.is_negative else power


for _name in ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "expm1", "log", "Abs"):
    setattr(_ArrayPrinter, f"_print_{_name}", _ArrayPrinter._print_Function)
