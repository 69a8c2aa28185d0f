"""Text and numbers to sympy, by whitelist.

Text is parsed by Python's own grammar into a syntax tree, and each node of the tree is translated by a table of the
few constructions that a function of time needs. Nothing is evaluated: neither ``eval`` nor ``sympify`` sees the text,
so attribute access, calls of unknown names, strings, lambdas and comprehensions have no translation and are refused.

Each result is bounded before anything is built on it, since sympy computes c**n at once, however many digits it has.
"""

from __future__ import annotations

import ast
import difflib
import keyword
import math
import numbers
import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import numpy as np
import sympy as sp

t: Final = sp.Symbol("t", nonnegative=True)
"""Time: 0 is noise, 1 is data."""

ExpressionLike: TypeAlias = "str | sp.Expr | float"

FUNCTIONS: Final[dict[str, Callable[[sp.Expr], sp.Expr]]] = {
    "sin": sp.sin, "cos": sp.cos, "tan": sp.tan,
    "asin": sp.asin, "acos": sp.acos, "atan": sp.atan,
    "sinh": sp.sinh, "cosh": sp.cosh, "tanh": sp.tanh,
    "exp": sp.exp, "log": sp.log, "sqrt": sp.sqrt,
    "sigmoid": lambda x: 1 / (1 + sp.exp(-x)),
}  # fmt: skip
CONSTANTS: Final[dict[str, sp.Expr]] = {"pi": sp.pi}

MAX_LENGTH: Final = 500
MAX_DEPTH: Final = 40
MAX_NUMBER: Final = 10**9
MAX_EXPONENT: Final = 64
MAX_ROOT: Final = 10**4
MAX_BITS: Final = 256
MAX_DEGREE: Final = 256
FUNCTION_DEGREE: Final = 3

_OPERATIONS: Final[dict[type[ast.operator], Callable[[sp.Expr, sp.Expr], sp.Expr]]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
}
_NODES: Final = (
    sp.Symbol, sp.Rational, sp.Float, sp.NumberSymbol, sp.Add, sp.Mul, sp.Pow,
    *(function for function in FUNCTIONS.values() if isinstance(function, type)),
    sp.cot, sp.sec, sp.csc, sp.Abs,  # sympy writes them of its own accord, as in sqrt((t - 1)**2)
)  # fmt: skip
_DECIMAL: Final = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?")
_NAME: Final = re.compile(r"(?<![\w.])[A-Za-z_]\w*", re.ASCII)


def exact(value: float | numbers.Real, *, where: str = "expression", argument: str = "a number") -> sp.Rational:
    """A number as the rational that its shortest decimal form denotes: 0.1 is 1/10, and so is ``np.float32(0.1)``.

    Raises:
        ValueError: If it is not finite, above ``MAX_NUMBER``, or a fraction of more than ``MAX_BITS`` bits.
        TypeError: If it is no real number; True and False are none.
    """
    contract = f"{where}: {argument} must be finite, real and at most {MAX_NUMBER:.0e}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{contract}, got {value!r}.")
    if isinstance(value, numbers.Rational):
        number = sp.Rational(int(value.numerator), int(value.denominator))
    elif math.isfinite(value):
        number = sp.Rational(str(value) if isinstance(value, np.floating) else repr(float(value)))
    else:
        raise ValueError(f"{contract}, got {value!r}.")
    if fault := _fault(number):
        raise ValueError(f"{contract}: {fault}.")
    return number


def to_expr(
    value: ExpressionLike, *, where: str = "expression", parameters: Mapping[str, float] | None = None
) -> sp.Expr:
    """An expression in ``t`` from text, sympy or a number.

    Args:
        value: Text such as ``"t**p"``, sympy in ``interpolants.t``, or a number.
        where: What the expression is, for messages.
        parameters: Numbers by name. Each name, in text or as a sympy symbol, is replaced by its number at once.

    Raises:
        ValueError: If text holds anything but numbers, ``t``, ``pi``, parameters, + - * / ** and the functions in
            ``FUNCTIONS``; if a sympy expression has another free symbol or function; if something is not real and
            finite; or if powers and functions nest beyond the bounds of this module.
        TypeError: If ``value`` is none of the three, or a parameter is no real number.
    """
    if isinstance(value, str):
        return parse(value, where=where, parameters=parameters)
    if isinstance(value, sp.Expr):
        return _substituted(value, where, _exact_parameters(parameters, where))
    if isinstance(value, numbers.Real):
        return exact(value, where=where)
    raise TypeError(f"{where}: must be text, a sympy expression or a number, got {type(value).__name__}.")


def check_parameters(parameters: Mapping[str, float], *values: ExpressionLike, where: str = "expression") -> None:
    """Refuse a parameter that occurs in none of the expressions, which is a misspelt one.

    Raises:
        ValueError: If a name occurs in none of ``values``, or is not allowed, or its value is not finite.
        TypeError: If a value is no real number.
    """
    _exact_parameters(parameters, where)
    names = {name for value in values for name in _names(value)}
    unknown = sorted(names - {"t", *CONSTANTS, *FUNCTIONS, *parameters})
    for name in parameters:
        if name not in names:
            near = difflib.get_close_matches(name, unknown)
            fix = f"Did you mean {near[0]!r}?" if near else f"The names without a value are {unknown}."
            raise ValueError(f"{where}: a parameter must occur in an expression, got {name!r}, which does not. {fix}")


def _names(value: ExpressionLike) -> set[str]:
    if isinstance(value, sp.Expr):
        return {symbol.name for symbol in value.free_symbols}
    return set(_NAME.findall(value)) if isinstance(value, str) else set()


def _exact_parameters(parameters: Mapping[str, float] | None, where: str) -> dict[str, sp.Rational]:
    for name in parameters or {}:
        allowed = isinstance(name, str) and name.isascii() and name.isidentifier() and not keyword.iskeyword(name)
        if not allowed or name in {"t", *CONSTANTS, *FUNCTIONS}:
            raise ValueError(
                f"{where}: the name of a parameter must be an ASCII identifier and neither a keyword nor t, pi or a "
                f"function, got {name!r}. Rename it."
            )
    return {
        name: exact(value, where=where, argument=f"the parameter {name}") for name, value in (parameters or {}).items()
    }


def _substituted(expr: sp.Expr, where: str, parameters: Mapping[str, sp.Rational]) -> sp.Expr:
    """A sympy expression with numbers for parameters and rationals for floats."""
    values = {symbol: parameters[symbol.name] for symbol in expr.free_symbols if symbol.name in parameters}
    strangers = sorted(symbol.name for symbol in expr.free_symbols - {t, *values})
    if strangers:
        fix = "Use interpolants.t, not a symbol of your own." if "t" in strangers else "Give their values."
        raise ValueError(f"{where}: must depend on interpolants.t alone, got the symbols {strangers}. {fix}")
    for symbol, number in values.items():
        # sympy has used what it was told: sqrt(p**2) is p where p is positive.
        facts = symbol.assumptions0
        if broken := [fact for fact in facts if getattr(number, f"is_{fact}") is not facts[fact]]:
            fact = min(broken, key=lambda fact: (not facts[fact], len(fact), fact))
            raise ValueError(f"{where}: {symbol.name} must be {fact}={facts[fact]}, as it is declared, got {number}.")
    values |= {number: exact(number, where=where) for number in expr.atoms(sp.Float)}

    def refuse(what: str) -> ValueError:
        return ValueError(f"{where}: {what}, in {expr}.")

    def build(node: sp.Expr) -> sp.Expr:
        if not isinstance(node, _NODES):
            known = f"made of {', '.join(FUNCTIONS)}, powers and numbers"
            raise refuse(f"must be real and {known}, got {type(node).__name__}")
        arguments = tuple(build(argument) for argument in node.args)
        result = values.get(node, node)
        if arguments != node.args:
            base = arguments[0] if node.is_Pow else sp.E
            if isinstance(node, (sp.Pow, sp.exp)) and (fault := _power_fault(base, arguments[-1])):
                raise refuse(fault)
            result = node.func(*arguments)
        if result.is_number and (fault := _fault(result, largest=2 ** (2 * MAX_BITS))):
            raise refuse(fault)
        return result

    result = build(expr)
    if fault := _fault(result):
        raise refuse(fault)
    return result


def parse(text: str, *, where: str = "expression", parameters: Mapping[str, float] | None = None) -> sp.Expr:
    """The sympy expression that ``text`` states, e.g. ``parse("sin(pi*t/2)")``; arguments as in ``to_expr``.

    Raises:
        ValueError: What is not allowed, and where it stands in the text.
    """
    names = {"t": t, **CONSTANTS, **_exact_parameters(parameters, where)}
    text = str.__str__(text)  # of a subclass, its characters and nothing else
    if len(text) > MAX_LENGTH:
        raise ValueError(f"{where}: text must be at most {MAX_LENGTH} characters, got {len(text)}.")
    if not text.isascii() or not text.isprintable() or "#" in text:
        raise ValueError(f"{where}: text must be printable ASCII without comments, got {text!r}.")
    text = text.strip()
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it nests too deep"
        raise ValueError(f"{where}: {text[:60]!r} is not an expression: {reason}.") from None
    return _substituted(_Translator(text, where, names).translate(tree.body, depth=0), where, {})


def _fault(expr: sp.Expr, largest: int = MAX_NUMBER) -> str | None:
    """What is wrong with an expression that another may be built on, if anything; in order of what it costs."""
    if any(max(abs(number.p), number.q).bit_length() > MAX_BITS for number in expr.atoms(sp.Rational)):
        return f"a number may have {MAX_BITS} bits at most"
    if expr.has(sp.I, sp.zoo):
        return "an expression must be finite and real"
    if expr.is_number and not _is_real_and_at_most(largest, expr):
        return f"a constant must be real and at most {largest:.0e}"
    if _degree(expr) > MAX_DEGREE:
        return f"powers and functions may nest to degree {MAX_DEGREE} at most"
    return None


def _is_real_and_at_most(largest: int, constant: sp.Expr) -> bool:
    try:
        value = constant.evalf(15)
    except (ZeroDivisionError, OverflowError):  # in a part that is zero, or too large, to all digits that mpmath takes
        return False
    return isinstance(value, (sp.Float, sp.Rational)) and bool(abs(value) <= largest)


def _power_fault(base: sp.Expr, exponent: sp.Expr) -> str | None:
    """What is wrong with base**exponent, if anything: sympy computes powers of numbers at once.

    Where logarithms stand in an exponent there is a power in hiding: exp(n log c) is c**n, and so is
    b**(n log(c) / log(b)). And the n-th root of a product of primes is written as that of one integer of up to n times
    as many digits.
    """
    if base.is_zero and not exponent.is_Rational:
        return "0 must have a rational exponent"
    exponents = [term.as_coeff_Mul()[0] for term in sp.Add.make_args(exponent) if term.has(sp.log)]
    root = max((e.q for e in exponents), default=1)
    if base != sp.E and exponent.is_number:
        exponents.append(exponent)
        factors = [factor for term in sp.Add.make_args(base) for factor in sp.Mul.make_args(term)]
        has_number = any(f.as_base_exp()[0].is_Rational and abs(f) != 1 for f in factors)
        if exponent.is_Rational and has_number:
            inner = [factor.exp.q for factor in factors if factor.is_Pow and factor.exp.is_Rational]
            root = exponent.q * max(inner, default=1)
    if any(abs(e) > MAX_EXPONENT for e in exponents):
        return f"an exponent must be at most {MAX_EXPONENT}"
    return f"a root of a number must be at most the {MAX_ROOT}th" if root > MAX_ROOT else None


def _degree(expr: sp.Expr) -> float:
    """A bound on the degree as a polynomial in t.

    A function counts as a power of FUNCTION_DEGREE, and a variable exponent as the exp(exponent log(base)) that it is.
    """
    if not expr.args:
        return float(expr == t)
    inner = [_degree(argument) for argument in expr.args]
    if expr.is_Pow:
        if expr.exp.is_number:
            return inner[0] * abs(float(expr.exp))
        return FUNCTION_DEGREE * (inner[1] + FUNCTION_DEGREE * inner[0])
    if expr.is_Mul:
        return sum(inner)
    return max(inner) * (1 if expr.is_Add else FUNCTION_DEGREE)


class _Translator:
    """Syntax tree to sympy; one case a kind of node, no default that lets a node pass."""

    def __init__(self, text: str, where: str, names: Mapping[str, sp.Expr]) -> None:
        self.text, self.where, self.names = text, where, names

    def refuse(self, node: ast.expr, what: str) -> ValueError:
        return ValueError(f"{self.where}: {what}, at column {node.col_offset + 1} of {self.text!r}.")

    def translate(self, node: ast.expr, depth: int) -> sp.Expr:
        """The expression of a node, within bounds."""
        if depth > MAX_DEPTH:
            raise self.refuse(node, f"operations may nest to depth {MAX_DEPTH} at most")
        result = self.dispatch(node, depth)
        if fault := _fault(result):
            raise self.refuse(node, fault)
        return result

    def dispatch(self, node: ast.expr, depth: int) -> sp.Expr:
        match node:
            case ast.Constant():
                return self.number(node)
            case ast.Name(id=name):
                if name in self.names:
                    return self.names[name]
                known = ", ".join(self.names)
                hint = f"known are {known} and functions; a parameter needs a value, as {name}=2"
                raise self.refuse(node, f"unknown name {name!r} ({hint})")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.translate(operand, depth + 1)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.translate(operand, depth + 1)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
                base, exponent = self.translate(left, depth + 1), self.translate(right, depth + 1)
                if isinstance(op, ast.Pow) and (fault := _power_fault(base, exponent)):
                    raise self.refuse(node, fault)
                return _OPERATIONS[type(op)](base, exponent)
            case ast.BinOp(op=op):
                hint = "; a power is written **" if isinstance(op, ast.BitXor) else ""
                raise self.refuse(node, f"the operator {type(op).__name__} is not allowed{hint}")
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
                inner = self.translate(argument, depth + 1)
                power = (inner, sp.Rational(1, 2)) if name == "sqrt" else (sp.E, inner)
                if name in {"exp", "sigmoid", "sqrt"} and (fault := _power_fault(*power)):
                    raise self.refuse(node, fault)
                return FUNCTIONS[name](inner)
            case ast.Call(func=ast.Name(id=name)):
                if name in FUNCTIONS:
                    raise self.refuse(node, f"{name} takes one argument")
                near = difflib.get_close_matches(name, FUNCTIONS)
                hint = f"did you mean {near[0]!r}?" if near else f"functions of one argument are {', '.join(FUNCTIONS)}"
                raise self.refuse(node, f"unknown call {name}(...); {hint}")
            case _:
                raise self.refuse(node, f"{type(node).__name__} is not allowed")

    def number(self, node: ast.Constant) -> sp.Expr:
        digits = self.text[node.col_offset : node.end_col_offset]
        if not _DECIMAL.fullmatch(digits):
            raise self.refuse(node, "a number must be decimal, such as 12, 0.5 or 1e-3")
        return sp.Rational(digits)
