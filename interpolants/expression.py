"""Text and numbers to sympy, by whitelist.

Text is parsed by Python's own grammar into a syntax tree, and each node of the tree is translated by a table of the
few constructions that a function of time needs. Nothing is evaluated: neither ``eval`` nor ``sympify`` sees the text,
so attribute access, calls of unknown names, strings, lambdas and comprehensions have no translation and are refused.

Each result is bounded before anything is built on it, since sympy computes c**n at once, however many digits it has,
and multiplies out, or evaluates, an argument to find out whether it is real.

``written`` is the way back. It writes what sympy prints where that is read as the same expression, else the tree itself
(see ``verbatim``), whose bounds are wider: it comes from an expression that was within the bounds above.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import keyword
import math
import numbers
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np
import sympy as sp
from sympy.functions.elementary.piecewise import ExprCondPair
from sympy.logic.boolalg import BooleanTrue

from interpolants import effort, verbatim

t: Final = sp.Symbol("t", nonnegative=True)
"""Time: 0 is noise, 1 is data."""

ExpressionLike: TypeAlias = "str | sp.Expr | float"

FUNCTIONS: Final[dict[str, Callable[..., sp.Expr]]] = {
    "sin": sp.sin, "cos": sp.cos, "tan": sp.tan, "cot": sp.cot, "sec": sp.sec, "csc": sp.csc,
    "asin": sp.asin, "acos": sp.acos, "atan": sp.atan,
    "sinh": sp.sinh, "cosh": sp.cosh, "tanh": sp.tanh,
    "exp": sp.exp, "log": sp.log, "sqrt": lambda x: raised(x, sp.Rational(1, 2)),
    "sigmoid": lambda x: 1 / (1 + sp.exp(-x)),
    "abs": sp.Abs, "Abs": sp.Abs, "Max": sp.Max, "Min": sp.Min,
}  # fmt: skip
KINKS: Final = (sp.Abs, sp.Max, sp.Min)
"""At each time they are one of their arguments, or its negative."""
CONSTANTS: Final[dict[str, sp.Expr]] = {"pi": sp.pi, "E": sp.E}
ARGUMENTS: Final = ("self", "cls", "alpha", "sigma", "name", "time_map")
"""Arguments of the functions that take parameters by name. No parameter may have the name of one."""

MAX_LENGTH: Final = 500
MAX_DEPTH: Final = 40
MAX_NUMBER: Final = 10**9
MAX_EXPONENT: Final = 64
MAX_ROOT: Final = 10**4
MAX_BITS: Final = 256
MAX_DEGREE: Final = 256
FUNCTION_DEGREE: Final = 3
MAX_COEFFICIENT: Final = 4096
MAX_NODES: Final = 1000
MAX_CALLS: Final = 3_000_000
"""Function calls, most of them within sympy, that reading a text may take: about half a second."""

_OPERATIONS: Final[dict[type[ast.operator], Callable[[sp.Expr, sp.Expr], sp.Expr]]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: raised(a, b),  # defined below
}
_BRANCHES: Final[dict[str, type[sp.Expr]]] = {
    node.__name__: node
    for node in (sp.Add, sp.Mul, sp.Pow, *(node for node in FUNCTIONS.values() if isinstance(node, type)))
}
_PIECES: Final[dict[str, type[sp.Basic]]] = {
    node.__name__: node
    for node in (sp.Piecewise, ExprCondPair, sp.LessThan, sp.GreaterThan, sp.StrictLessThan, sp.StrictGreaterThan)
}
"""A change of time makes them of kinks. No one types them."""
_LEAVES: Final = {
    str(leaf): leaf
    for leaf in (t, sp.pi, sp.E, sp.GoldenRatio, sp.TribonacciConstant, sp.EulerGamma, sp.Catalan, sp.true)
}
_KINDS: Final = (sp.Symbol, sp.Rational, sp.Float, sp.NumberSymbol, *_BRANCHES.values())
_IN_TERMS_OF_EXP: Final = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")
"""sympy writes them so to find out whether they are real, and then an exp of a logarithm is a power."""
_DECIMAL: Final = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?")
_NAME: Final = re.compile(r"(?<![\w.])[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class _Bounds:
    """What an expression may be at most.

    Attributes:
        number: The absolute value of a constant.
        part: That of a constant within an expression.
        bits: Digits of a rational number.
        degree: See ``_degree``.
        nodes: Nodes of its tree.
        kinds: Their types.
    """

    number: float
    part: float
    bits: int
    degree: float
    nodes: float
    kinds: tuple[type[sp.Basic], ...]


_TYPED: Final = _Bounds(MAX_NUMBER, MAX_NUMBER, MAX_BITS, MAX_DEGREE, MAX_NODES, _KINDS)
_GIVEN: Final = _Bounds(MAX_NUMBER, 2 ** (2 * MAX_BITS), MAX_BITS, MAX_DEGREE, math.inf, _KINDS)
"""For sympy expressions."""
_STORED: Final = _Bounds(
    number=sys.float_info.max,
    part=sys.float_info.max,
    bits=MAX_BITS**2,
    degree=MAX_DEGREE**2,
    nodes=math.inf,
    kinds=(*_KINDS, *_PIECES.values(), BooleanTrue),
)
"""For trees as text. A change of time makes expressions beyond the bounds of those that are typed."""


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
    if fault := _fault(number, _TYPED):
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
        ValueError: If text holds anything but numbers, ``t``, parameters, + - * / **, ``CONSTANTS`` and ``FUNCTIONS``,
            or takes too long to read; if a sympy expression has another free symbol or function; if something is not
            real and finite; or if powers and functions nest beyond the bounds of this module.
        TypeError: If ``value`` is none of the three, or a parameter is no real number.
    """
    if isinstance(value, str):
        return parse(value, where=where, parameters=parameters)
    if isinstance(value, sp.Expr):
        return _substituted(value, where, _exact_parameters(parameters, where), _GIVEN)
    if isinstance(value, numbers.Real):
        return exact(value, where=where)
    raise TypeError(f"{where}: must be text, a sympy expression or a number, got {type(value).__name__}.")


@functools.lru_cache(maxsize=65536)
def is_constant(expr: sp.Expr) -> bool:
    """Whether an expression has no symbol; cached part by part, as sympy does not cache it."""
    return not expr.is_Symbol and all(map(is_constant, expr.args))


def raised(base: sp.Expr, exponent: sp.Expr) -> sp.Expr:
    """base**exponent, with the powers in the base opened where they are positive.

    sympy opens sqrt(1 / (1 + exp(f))) only if it finds the sign of what is in it, for which it searches without bound,
    and again whenever the power is built. Here the form tells.
    """
    if base.is_Add and exponent.is_Rational and exponent not in (0, 1) and not is_constant(base):
        return sp.Pow(base, exponent, evaluate=False)  # sympy would ask whether a term is infinite
    if not exponent.is_Rational or exponent.is_Integer or is_constant(base):
        return base**exponent
    open_factors: list[sp.Expr] = []
    rest: list[sp.Expr] = []
    for factor in sp.Mul.make_args(base):
        inner, power = factor.as_base_exp()
        is_open = (inner == sp.E or power != 1) and not is_constant(factor) and _is_never_negative(inner)
        (open_factors if is_open else rest).append(inner ** (power * exponent) if is_open else factor)
    return sp.Mul(*open_factors, sp.Mul(*rest) ** exponent) if open_factors else base**exponent


@functools.lru_cache(maxsize=65536)
def _is_never_negative(expr: sp.Expr) -> bool:
    """Whether the form tells that the value is at least 0 at all times at which its parts are real."""
    if is_constant(expr):
        return bool(expr.is_nonnegative)
    if expr.is_Add or expr.is_Mul:
        return all(map(_is_never_negative, expr.args))
    if expr.is_Pow and expr.exp.is_Rational:
        return not expr.exp.is_Integer or expr.exp.is_even or _is_never_negative(expr.base)
    return expr == t or isinstance(expr, (sp.exp, sp.cosh, sp.acos, sp.Abs))


def exchanged(expr: sp.Expr, parts: Mapping[sp.Expr, sp.Expr]) -> sp.Expr:
    """The expression with each of the parts exchanged for another, wherever it stands."""
    known = dict(parts)

    def changed(part: sp.Expr) -> sp.Expr:
        if part not in known:
            known[part] = rebuilt(part, tuple(map(changed, part.args)))
        return known[part]

    return changed(expr)


def rebuilt(expr: sp.Expr, arguments: tuple[sp.Expr, ...]) -> sp.Expr:
    """The same function of other arguments, without questions of sympy's whose answers no one needs.

    To build log(f) it asks whether f is 0, and to build exp(f g) whether f is a real number, of whatever size.
    """
    if arguments == expr.args:
        return expr
    if expr.is_Pow:
        return raised(*arguments)
    inner = arguments[0]
    if isinstance(expr, (sp.exp, sp.log)) and not is_constant(inner):
        factors = (factor for term in sp.Add.make_args(inner) for factor in sp.Mul.make_args(term))
        is_inverse = isinstance(inner, sp.exp) if isinstance(expr, sp.log) else any(f.func == sp.log for f in factors)
        return expr.func(inner, evaluate=is_inverse)
    return expr.func(*arguments)


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


def check_names(names: Iterable[str], where: str) -> None:
    """Refuse what is no name of a parameter.

    Raises:
        ValueError: If a name is no ASCII identifier, has a meaning in text, or is one of ``ARGUMENTS``.
    """
    for name in names:
        allowed = isinstance(name, str) and name.isascii() and name.isidentifier() and not keyword.iskeyword(name)
        if not allowed or name in {"t", *CONSTANTS, *FUNCTIONS, *ARGUMENTS}:
            raise ValueError(
                f"{where}: a parameter's name must be an ASCII identifier and neither a keyword nor t, a constant, "
                f"a function or one of {', '.join(ARGUMENTS)}, got {name!r}. Rename it."
            )


def check_name(name: object, where: str) -> None:
    """Refuse what is no name of a path, such as the number of a parameter called ``name``.

    Raises:
        ValueError: If it is neither text nor None.
    """
    if not (name is None or isinstance(name, str)):
        raise ValueError(
            f"{where}: name must be text, that of the path, got {name!r}. Rename a parameter of that name."
        )


def _exact_parameters(parameters: Mapping[str, float] | None, where: str) -> dict[str, sp.Rational]:
    check_names(parameters or {}, where)
    return {
        name: exact(value, where=where, argument=f"the parameter {name}") for name, value in (parameters or {}).items()
    }


def _substituted(expr: sp.Expr, where: str, parameters: Mapping[str, sp.Rational], bounds: _Bounds) -> sp.Expr:
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
        return ValueError(f"{where}: {what}, in {_shown(expr)}.")

    def build(node: sp.Expr) -> sp.Expr:
        if not isinstance(node, bounds.kinds):
            known = f"made of {', '.join(FUNCTIONS)}, powers and numbers"
            raise refuse(f"must be real and {known}, got {type(node).__name__}")
        arguments = tuple(build(argument) for argument in node.args)
        result = values.get(node, node)
        if arguments != node.args:
            base = arguments[0] if node.is_Pow else sp.E
            if isinstance(node, (sp.Pow, sp.exp)) and (fault := _power_fault(base, arguments[-1])):
                raise refuse(fault)
            result = rebuilt(node, arguments)
        if result.is_number and (fault := _fault(result, replace(bounds, number=bounds.part))):
            raise refuse(fault)
        return result

    result = build(expr)
    if fault := _fault(result, bounds):
        raise refuse(fault)
    return result


def _shown(expr: sp.Expr) -> str:
    if _nodes(expr) > MAX_NODES:
        return f"an expression of {_nodes(expr)} nodes"
    try:
        return str(expr)
    except ValueError:  # of Python, which writes no integer of thousands of digits
        return "an expression with a long number"


def parse(text: str, *, where: str = "expression", parameters: Mapping[str, float] | None = None) -> sp.Expr:
    """The sympy expression that ``text`` states, e.g. ``parse("sin(pi*t/2)")``; arguments as in ``to_expr``.

    Raises:
        ValueError: What is not allowed, and where it stands in the text.
    """
    names = {"t": t, **CONSTANTS, **_exact_parameters(parameters, where)}
    text = str.__str__(text)  # of a subclass, its characters and nothing else
    if text.startswith(verbatim.OPENING):
        return _verbatim(text, where)
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
    try:
        with effort.bounded(MAX_CALLS):
            return _substituted(_Translator(text, where, names).translate(tree.body, depth=0), where, {}, _GIVEN)
    except (effort.EffortError, RecursionError) as error:
        raise ValueError(f"{where}: {text!r} must be simpler: {_reason(error)}.") from None


def _verbatim(text: str, where: str) -> sp.Expr:
    try:
        expr = verbatim.read(text, {**_BRANCHES, **_PIECES}, _LEAVES)
    except ValueError as error:
        raise ValueError(f"{where}: {error}.") from None
    try:
        with effort.bounded(4 * MAX_CALLS):  # enough for the longest
            return _substituted(expr, where, {}, _STORED)
    except (effort.EffortError, RecursionError) as error:
        raise ValueError(f"{where}: {text[:60]!r} must be simpler: {_reason(error)}.") from None


def _reason(error: Exception) -> str:
    return "it nests too deep for sympy" if isinstance(error, RecursionError) else str(error)


def written(expr: sp.Expr, *, where: str = "expression") -> str:
    """Text that ``parse`` reads as exactly this expression.

    Raises:
        ValueError: If it has no such text: it is not made of what text is made of, or beyond all bounds.
    """
    if _nodes(expr) <= MAX_NODES:
        with contextlib.suppress(ValueError):  # str raises it too, of an integer of thousands of digits
            plain = str(expr)
            if parse(plain) == expr:
                return plain
    try:
        text = verbatim.write(expr, {**_BRANCHES, **_PIECES}, _LEAVES)
        if parse(text) == expr:
            return text
        reason = "sympy builds it in another form."
    except ValueError as error:
        reason = str(error)
    raise ValueError(f"{where}: must be an expression that has a text, got one that has none: {reason}")


def _fault(expr: sp.Expr, bounds: _Bounds) -> str | None:
    """What is wrong with an expression that another may be built on, if anything; in order of what it costs."""
    if _nodes(expr) > bounds.nodes:
        return f"an expression may have {bounds.nodes} nodes at most, as sympy writes it"
    if expr.is_Rational and _bits(expr) <= bounds.bits and abs(expr) <= bounds.number:
        return None
    if any(_bits(number) > bounds.bits for number in expr.atoms(sp.Rational)):
        return f"a number may have {bounds.bits} bits at most"
    if expr.has(sp.I, sp.zoo):
        return "an expression must be finite and real"
    if expr.is_number and not _is_real_and_at_most(bounds.number, expr):
        return f"a constant must be real and at most {bounds.number:.0e}"
    if _degree(expr) > bounds.degree:
        return f"powers and functions may nest to degree {bounds.degree} at most"
    return None


def _bits(number: sp.Rational) -> int:
    return int(max(abs(number.p), number.q).bit_length())


def _is_real_and_at_most(largest: float, constant: sp.Expr) -> bool:
    try:
        value = constant.evalf(15)
    except (ZeroDivisionError, OverflowError):  # in a part that is zero, or too large, to all digits that mpmath takes
        return False
    return isinstance(value, (sp.Float, sp.Rational)) and bool(abs(value) <= largest)


def _power_fault(base: sp.Expr, exponent: sp.Expr) -> str | None:
    """What is wrong with base**exponent, if anything: sympy computes powers of numbers at once, and multiplies out.

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
    if not all(_is_real_and_at_most(MAX_EXPONENT, e) for e in exponents):
        return f"an exponent must be at most {MAX_EXPONENT}"
    if root > MAX_ROOT:
        return f"a root of a number must be at most the {MAX_ROOT}th"
    return "a power must be short when it is multiplied out" if _is_long(base, exponent) else None


def _is_long(base: sp.Expr, exponent: sp.Expr) -> bool:
    """Whether multiplying out base**exponent, where that varies, may make a number of many digits, or many terms.

    c**(n + t) is c**n c**t, and (c**t)**(n / t) is c**n, which sympy computes; (1 + t)**(n + t) has n + 1 terms. And
    c**(1/n + t) has an n-th root.
    """
    for factor in sp.Mul.make_args(base):
        inner, power = factor.as_base_exp()
        if power.is_Rational and exponent.is_Rational:
            continue
        product = power * exponent
        if inner == sp.E:
            logarithms = [term for term in sp.Add.make_args(product) if term.has(sp.log)]
            size = sum(map(_coefficients, logarithms))
        elif inner.is_Rational:
            root = sp.expand_mul(product).as_coeff_Add()[0].q
            size = max(_coefficients(product) / MAX_EXPONENT, root / MAX_ROOT) * _bits(inner)
        elif inner.is_Add:
            size = _coefficients(product)
        elif power != 1 and _is_long(inner, product):
            return True
        else:
            continue
        if not size <= MAX_COEFFICIENT:  # or is not a number, as infinity times zero
            return True
    return False


@functools.lru_cache(maxsize=4096)
def _coefficients(expr: sp.Expr) -> float:
    """A bound on the sum of the absolute values of the coefficients after multiplying out."""
    if expr.is_Rational:
        return float(min(abs(expr), MAX_NUMBER**2))
    inner = [_coefficients(argument) for argument in expr.args]
    if expr.is_Add:
        return sum(inner)
    if expr.is_Mul:
        return math.prod(inner)
    if expr.is_Pow and expr.exp.is_Integer and expr.exp > 0:
        return math.prod([inner[0]] * min(int(expr.exp), MAX_DEGREE))
    return 1.0


@functools.lru_cache(maxsize=4096)
def _nodes(expr: sp.Expr) -> int:
    return 1 + sum(map(_nodes, expr.args))


@functools.lru_cache(maxsize=4096)
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
    return max(inner) * (1 if isinstance(expr, (sp.Add, *KINKS, *_PIECES.values())) else FUNCTION_DEGREE)


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
        if fault := _fault(result, _TYPED):
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
                need = "another name" if name in ARGUMENTS else f"a value, as {name}=2"
                hint = f"known are {known} and functions; a parameter needs {need}"
                raise self.refuse(node, f"unknown name {name!r} ({hint})")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.translate(operand, depth + 1)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.translate(operand, depth + 1)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
                base, exponent = self.translate(left, depth + 1), self.translate(right, depth + 1)
                if isinstance(op, ast.Pow) and (fault := _power_fault(base, exponent)):
                    raise self.refuse(node, fault)
                return self.evaluate(node, _OPERATIONS[type(op)], base, exponent)
            case ast.BinOp(op=op):
                hint = "; a power is written **" if isinstance(op, ast.BitXor) else ""
                raise self.refuse(node, f"the operator {type(op).__name__} is not allowed{hint}")
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
                return self.call(node, name, [self.translate(argument, depth + 1) for argument in arguments])
            case ast.Call(func=ast.Name(id=name)):
                if name in FUNCTIONS:
                    raise self.refuse(node, f"{name} takes no argument by name")
                near = difflib.get_close_matches(name, FUNCTIONS)
                hint = f"did you mean {near[0]!r}?" if near else f"functions are {', '.join(FUNCTIONS)}"
                raise self.refuse(node, f"unknown call {name}(...); {hint}")
            case _:
                raise self.refuse(node, f"{type(node).__name__} is not allowed")

    def call(self, node: ast.Call, name: str, arguments: list[sp.Expr]) -> sp.Expr:
        several = FUNCTIONS[name] in (sp.Max, sp.Min)
        if len(arguments) < 2 if several else len(arguments) != 1:
            raise self.refuse(node, f"{name} takes {'two arguments or more' if several else 'one argument'}")
        power = (arguments[0], sp.Rational(1, 2)) if name == "sqrt" else (sp.E, arguments[0])
        if name in {"exp", "sigmoid", "sqrt"} and (fault := _power_fault(*power)):
            raise self.refuse(node, fault)
        if name in _IN_TERMS_OF_EXP and _is_long(sp.E, arguments[0]):
            raise self.refuse(node, f"the multiple of a logarithm must be at most {MAX_COEFFICIENT}")
        return self.evaluate(node, FUNCTIONS[name], *arguments)

    def evaluate(self, node: ast.expr, function: Callable[..., sp.Expr], *arguments: sp.Expr) -> sp.Expr:
        try:
            return function(*arguments)
        except (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError) as error:
            # Max and Min raise ValueError where an argument is not real. The others are faults of sympy.
            raise self.refuse(node, f"sympy does not evaluate it ({type(error).__name__}: {error})") from None

    def number(self, node: ast.Constant) -> sp.Expr:
        digits = self.text[node.col_offset : node.end_col_offset]
        if not _DECIMAL.fullmatch(digits):
            raise self.refuse(node, "a number must be decimal, such as 12, 0.5 or 1e-3")
        return sp.Rational(digits)
