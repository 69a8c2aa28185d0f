"""Text and numbers to sympy, by whitelist.

Text is parsed by Python's own grammar into a syntax tree, and each node of the tree is translated by a table of the
few constructions that a function of time needs. Nothing is evaluated: neither ``eval`` nor ``sympify`` sees the text,
so attribute access, calls of unknown names, strings, lambdas and comprehensions have no translation and are refused.
"""

from __future__ import annotations

import ast
import difflib
import math
import numbers
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import sympy as sp
from sympy.core.function import Application

t: Final = sp.Symbol("t", nonnegative=True)
"""Time: 0 is noise, 1 is data."""

ExpressionLike: TypeAlias = "str | sp.Expr | float"

FUNCTIONS: Final[dict[str, Callable[[sp.Expr], sp.Expr]]] = {
    "sin": sp.sin, "cos": sp.cos, "tan": sp.tan,
    "asin": sp.asin, "acos": sp.acos, "atan": sp.atan,
    "sinh": sp.sinh, "cosh": sp.cosh, "tanh": sp.tanh,
    "exp": sp.exp, "log": sp.log, "sqrt": sp.sqrt,
}  # fmt: skip
CONSTANTS: Final[dict[str, sp.Expr]] = {"pi": sp.pi}

MAX_LENGTH: Final = 500
MAX_DEPTH: Final = 40
MAX_NUMBER: Final = 10**9
MAX_EXPONENT: Final = 64
MAX_BITS: Final = 256
MAX_DEGREE: Final = 256
FUNCTION_DEGREE: Final = 3


def exact(value: float) -> sp.Rational:
    """A number as the rational that its shortest decimal form denotes: 0.1 is 1/10."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"expression: a number must be finite and real, got {value!r}.")
    return sp.Rational(repr(float(value))) if not isinstance(value, numbers.Rational) else sp.Rational(value)


def to_expr(value: ExpressionLike, *, where: str = "expression") -> sp.Expr:
    """An expression in ``t`` from text, sympy or a number.

    Raises:
        ValueError: If text holds anything but numbers, ``t``, ``pi``, + - * / ** and the functions in ``FUNCTIONS``,
            or if a sympy expression has another free symbol than ``interpolants.t``.
        TypeError: If ``value`` is none of the three.
    """
    if isinstance(value, str):
        return parse(value, where=where)
    if isinstance(value, sp.Expr):
        strangers = sorted(str(s) for s in value.free_symbols - {t})
        if strangers:
            fix = "Use interpolants.t, not a symbol of your own." if "t" in strangers else "Substitute their values."
            raise ValueError(f"{where}: must depend on interpolants.t alone, got the symbols {strangers}. {fix}")
        _check_functions(value, where)
        return value.xreplace({number: exact(float(number)) for number in value.atoms(sp.Float)})
    if isinstance(value, numbers.Real):
        return exact(float(value))
    raise TypeError(f"{where}: must be text, a sympy expression or a number, got {type(value).__name__}.")


def _check_functions(expr: sp.Expr, where: str) -> None:
    known = (*(f for f in FUNCTIONS.values() if isinstance(f, type)), sp.cot, sp.sec, sp.csc, sp.Abs)
    strange = sorted(str(f) for f in expr.atoms(Application) if not isinstance(f, known))
    if strange or expr.has(sp.I, sp.oo, sp.zoo, sp.nan, sp.Integral, sp.Derivative, sp.Sum):
        what = strange[0] if strange else str(expr)
        raise ValueError(f"{where}: must be real and made of {', '.join(FUNCTIONS)}, powers and numbers, got {what}.")


def parse(text: str, *, where: str = "expression") -> sp.Expr:
    """The sympy expression that ``text`` states, e.g. ``parse("sin(pi*t/2)")``.

    Raises:
        ValueError: What is not allowed, and where it stands in the text.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"{where}: text must be at most {MAX_LENGTH} characters, got {len(text)}.")
    if not text.isascii() or not text.isprintable():
        raise ValueError(f"{where}: text must be printable ASCII, got {text!r}.")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it nests too deep"
        raise ValueError(f"{where}: {text[:60]!r} is not an expression: {reason}.") from None
    result = _Translator(text, where).translate(tree.body, depth=0)
    if result.has(sp.zoo, sp.oo, sp.nan, sp.I):
        raise ValueError(f"{where}: {text!r} is not finite and real.")
    if _degree(result) > MAX_DEGREE:
        raise ValueError(f"{where}: powers and functions may nest to degree {MAX_DEGREE} at most, got {text!r}.")
    return result


def _degree(expr: sp.Expr) -> float:
    """A bound on the degree as a polynomial in t; each function counts as a power of FUNCTION_DEGREE."""
    if not expr.args:
        return float(expr == t)
    inner = [_degree(argument) for argument in expr.args]
    if expr.is_Pow:
        return inner[0] * (abs(float(expr.exp)) if expr.exp.is_number else 1.0) + inner[1] * FUNCTION_DEGREE
    if expr.is_Mul:
        return sum(inner)
    return max(inner) * (1 if expr.is_Add else FUNCTION_DEGREE)


class _Translator:
    """Syntax tree to sympy; one method a kind of node, no default that lets a node pass."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where = text, where

    def refuse(self, node: ast.AST, what: str) -> ValueError:
        column = getattr(node, "col_offset", 0) + 1
        return ValueError(f"{self.where}: {what} at column {column} of {self.text!r}.")

    def translate(self, node: ast.expr, depth: int) -> sp.Expr:
        """The expression of a node; a constant one is small, so that what is built on it is computed at once."""
        if depth > MAX_DEPTH:
            raise self.refuse(node, f"more than {MAX_DEPTH} nested operations")
        result = self.dispatch(node, depth)
        if result.is_number and not self.is_small(result):
            raise self.refuse(node, f"a constant must be real and at most {MAX_NUMBER:.0e}, something else stands")
        return result

    @staticmethod
    def is_small(constant: sp.Expr) -> bool:
        if constant.is_Rational and max(abs(constant.p), constant.q).bit_length() > MAX_BITS:
            return False
        return bool(constant.is_extended_real and constant.is_finite and abs(constant.evalf(15)) <= MAX_NUMBER)

    def dispatch(self, node: ast.expr, depth: int) -> sp.Expr:
        match node:
            case ast.Constant(value=bool() | str() | bytes() | complex() | None):
                raise self.refuse(node, "only real numbers are allowed; something else stands")
            case ast.Constant(value=int() | float() as number):
                return self.number(node, number)
            case ast.Name(id=name):
                return self.name(node, name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.translate(operand, depth + 1)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.translate(operand, depth + 1)
            case ast.BinOp(left=left, op=op, right=right):
                return self.binary(node, op, self.translate(left, depth + 1), self.translate(right, depth + 1))
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
                return FUNCTIONS[name](self.translate(argument, depth + 1))
            case ast.Call(func=ast.Name(id=name)):
                near = difflib.get_close_matches(name, FUNCTIONS, n=1)
                hint = (
                    f"; did you mean {near[0]!r}?" if near else f"; functions of one argument: {', '.join(FUNCTIONS)};"
                )
                raise self.refuse(node, f"unknown call {name}(...){hint}")
            case _:
                raise self.refuse(node, f"{type(node).__name__} is not allowed")

    def number(self, node: ast.expr, value: int | float) -> sp.Expr:
        if not abs(value) <= MAX_NUMBER:
            raise self.refuse(node, f"a number must be at most {MAX_NUMBER:.0e}, something larger stands")
        return exact(value)

    def name(self, node: ast.expr, name: str) -> sp.Expr:
        if name == "t":
            return t
        if name in CONSTANTS:
            return CONSTANTS[name]
        raise self.refuse(node, f"unknown name {name!r} (only t, pi and functions are known)")

    def binary(self, node: ast.expr, op: ast.operator, left: sp.Expr, right: sp.Expr) -> sp.Expr:
        operations: dict[type, Callable[[Any, Any], Any]] = {
            ast.Add: lambda a, b: a + b,
            ast.Sub: lambda a, b: a - b,
            ast.Mult: lambda a, b: a * b,
            ast.Div: lambda a, b: a / b,
        }
        if type(op) in operations:
            return operations[type(op)](left, right)
        if isinstance(op, ast.Pow):
            if right.is_number and not abs(right) <= MAX_EXPONENT:
                raise self.refuse(node, f"an exponent must be at most {MAX_EXPONENT}, a larger one stands")
            return left**right
        hint = "; a power is written **" if isinstance(op, ast.BitXor) else ""
        raise self.refuse(node, f"the operator {type(op).__name__} is not allowed{hint}")
