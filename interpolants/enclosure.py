r"""Rigorous values of a function of time: ball arithmetic in any precision, and what is decided by it on an interval.

A ball encloses all values of the function over a ball of times, rounding included (Arb, through python-flint). A sign
on an interval is decided by bisection. On a cell with middle m and half width h

.. math:: f(t) \in f(\text{cell}) \cap [f(m) + f'(\text{cell}) \, [-h, h]].

At the ends of the interval, where the function may vanish or be singular, its expansion with a rigorous remainder
decides (``expansion``). Sources: Johansson (2017), doi:10.1109/TC.2017.2690633; Tucker (2011), Validated Numerics.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import flint
import mpmath
import sympy as sp
from flint import arb, arb_series, fmpq
from sympy.core.function import AppliedUndef

from interpolants.effort import EffortError, bounded, operations
from interpolants.expression import is_constant, t
from interpolants.printer import NAMES, ArrayFunction, code_of, executed, named_in

PRECISION: Final = 128
"""Bits in which cells are enclosed."""
PRECISIONS: Final = (192, 768, 3072, 12288)
"""Bits that are tried in turn where a value needs more."""
ACCURATE: Final = 100
"""Correct bits of a value that is accurate enough."""
UNIT: Final = (sp.S.Zero, sp.S.One)
WITHOUT_VALUES: Final = (AppliedUndef, sp.Derivative, sp.Subs)
FEW_CELLS, MAX_CELLS = 16, 2000
"""Cells that are looked at before the ends are expanded, and before a question is left undecided; fewer of a function
of more than 100 operations.
"""
MAX_ZEROS: Final = 32
"""Cells in whose middle it is asked whether the function is 0 there, which takes long."""
MAX_CALLS: Final = 200_000
"""Most function calls that the proof may take that a function is 0 at a time."""
LOOKS: Final = tuple(sp.Rational(k, 1024) for k in (1, 300, 512, 700, 1023))
ORDER: Final = 12
"""Order of the Taylor series by which a function is bounded."""
BOUND_PRECISION: Final = 160
REMAINDER: Final = 1e-12
"""Of a series, at which a cell is small enough."""
MAX_DEPTH: Final = 5
"""Of the bisection of cells."""


class UndecidedWarning(UserWarning):
    """Something that has to hold on all of (0, 1) is neither proved nor refuted within a bounded effort."""


@contextmanager
def precision(bits: int, order: int = 2) -> Iterator[None]:
    """Ball arithmetic with that many bits, and series with that many coefficients."""
    before = flint.ctx.prec, flint.ctx.cap
    flint.ctx.prec, flint.ctx.cap = bits, order
    try:
        yield
    finally:
        flint.ctx.prec, flint.ctx.cap = before


# Values


def enclosed(expr: sp.Expr) -> ArrayFunction:
    """A function from a ball or a power series of times to the ball or the series of the values of ``expr``.

    In the precision of the context that it is called in. A ball is NaN where the expression is not finite and real at
    each of the times, or is not shown to be.
    """
    return _enclosed(expr, flint.ctx.prec)


@functools.lru_cache(maxsize=4096)
def _enclosed(expr: sp.Expr, bits: int) -> ArrayFunction:
    if not expr.has(t):
        value = constant(expr)
        return lambda time: value if isinstance(time, arb) else arb_series([value])
    try:
        function = enclosed_of(expr, ())
    except ValueError:  # a function that is not known
        return _nowhere

    def finite(time: Any) -> Any:
        try:
            return function(time)
        except ValueError:  # flint's series are not divided by what may vanish
            return _nowhere(time)

    return finite


def enclosed_of(expr: sp.Expr, symbols: tuple[sp.Symbol, ...]) -> Callable[..., Any]:
    """A function of a ball of times, and of balls of what symbols stand for, to a ball of the values of ``expr``."""
    source, constants = _code(expr, symbols)
    return executed(source, {**_FUNCTIONS, **{name: constant(number) for name, number in constants.items()}})


@functools.lru_cache(maxsize=4096)
def _code(expr: sp.Expr, symbols: tuple[sp.Symbol, ...]) -> tuple[str, dict[str, sp.Expr]]:
    """The code, which serves in all precisions, and the constants in it."""
    constants: dict[str, sp.Expr] = {}
    return code_of(_in_waves(expr), lambda number: number, named_in(constants), symbols), constants


class Shared:
    """``enclosed`` for many expressions with common parts: each part is computed once per time."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], dict[sp.Expr, Any]] = {}

    def __call__(self, expr: sp.Expr) -> ArrayFunction:
        def function(time: Any) -> Any:
            coefficients = [time] if isinstance(time, arb) else time.coeffs()
            key = (flint.ctx.prec, flint.ctx.cap, *(part for c in coefficients for part in _exactly(c)))
            known = self._known.setdefault(key, {})
            try:
                value = _value_of(_in_waves(expr), time, known)
                return value if isinstance(value, type(time)) else arb_series([value])
            except (KeyError, ValueError):  # an unknown function, or a series divided by one that may vanish
                return _nowhere(time)

        return function


def _exactly(ball: arb) -> tuple[Any, Any]:
    """Midpoint and radius, each as an integer and a power of 2, from which ``arb`` makes the same ball."""
    return ball.mid().man_exp(), ball.rad().man_exp()


@functools.lru_cache(maxsize=16384)
def _enclosed_at(expr: sp.Expr, middle: Any, radius: Any, bits: int) -> arb:
    """The value on one ball of times, cached: the forms of a coefficient are evaluated at the same times."""
    return enclosed(expr)(arb(middle, radius))


def _value_of(expr: sp.Expr, time: Any, known: dict[sp.Expr, Any]) -> Any:
    if expr not in known:
        known[expr] = _new_value(expr, time, lambda part: _value_of(part, time, known))
    return known[expr]


def _new_value(expr: sp.Expr, time: Any, of: Callable[[sp.Expr], Any]) -> Any:
    if is_constant(expr):
        return constant(expr)
    return time if expr == t else _combined(expr, of)


def _combined(expr: sp.Expr, of: Callable[[sp.Expr], Any]) -> Any:
    """A sum, a product, a power or a function of the values of the parts; KeyError if the function is not known."""
    if expr.is_Add or expr.is_Mul:
        return functools.reduce(operator.add if expr.is_Add else operator.mul, map(of, expr.args))
    if expr.is_Pow and not is_constant(expr.exp):
        return of(expr.base) ** of(expr.exp)
    if expr.is_Pow:
        base, is_below = of(expr.base), expr.exp.is_Rational and expr.exp < 0
        return 1 / power(base, -expr.exp) if is_below else power(base, expr.exp)
    function, values = _FUNCTIONS[NAMES[type(expr).__name__]], list(map(of, expr.args))
    return functools.reduce(function, values) if len(values) > 1 else function(values[0])


def _nowhere(time: Any) -> Any:
    """A function that is not defined at any time."""
    return arb.nan() if isinstance(time, arb) else arb_series([arb.nan()] * flint.ctx.cap)


@functools.lru_cache(maxsize=4096)
def _in_waves(expr: sp.Expr) -> sp.Expr:
    """cot, sec and csc by sine and cosine."""
    for function, above in ((sp.cot, sp.cos), (sp.csc, None), (sp.sec, None)):
        if expr.has(function):
            below = sp.cos if function is sp.sec else sp.sin
            expr = expr.replace(function, lambda x, above=above, below=below: (above(x) if above else 1) / below(x))
    return expr


def constant(expr: sp.Expr) -> arb:
    """A ball about a real number, in the precision of the context."""
    return _constant(expr, flint.ctx.prec)


@functools.lru_cache(maxsize=8192)
def _constant(expr: sp.Expr, bits: int) -> arb:
    if expr.has(*WITHOUT_VALUES):
        return arb.nan()
    if expr.is_Rational:
        return arb(fmpq(int(expr.p), int(expr.q)))
    if expr == sp.pi:
        return arb.pi()
    if expr == sp.E:
        return arb(1).exp()
    try:
        value = _combined(_in_waves(expr), constant)
    except KeyError:
        value = arb.nan()
    return value if value.is_finite() or expr.is_infinite else _by_sympy(expr)


def power(base: arb, exponent: sp.Expr) -> arb:
    if exponent.is_Integer:
        return base ** int(exponent)
    return base.sqrt() if exponent == sp.Rational(1, 2) else base ** constant(exponent)


def _by_sympy(expr: sp.Expr) -> arb:
    """Where factors alone are complex and the product is real."""
    if flint.ctx.prec > PRECISIONS[1]:  # it searches for digits that may not be there
        return arb.nan()
    digits = int(flint.ctx.prec * 0.302) + 10
    number = sp.N(expr, digits)
    real, imaginary = number.as_real_imag()
    if not (real.is_Float and abs(imaginary) <= abs(real) * sp.Float(10) ** (5 - digits)):
        return arb.nan()
    with mpmath.workdps(digits):
        exact = arb(mpmath.nstr(real._to_mpmath(int(digits * 3.33)), digits))
    return exact + exact * arb(0, 1) * arb(10) ** (5 - digits)


def value(
    expr: sp.Expr,
    time: Any,
    bits: int = ACCURATE,
    precisions: Sequence[int] = PRECISIONS,
    shared: Shared | None = None,
) -> arb:
    """A ball about the value at a rational time: sympy's, flint's, an integer or a float.

    Args:
        bits: How many are to be right.
        precisions: Bits of the arithmetic, tried in turn until they are.
        shared: Cache of the values of common parts.
    """
    if isinstance(expr, sp.Piecewise):
        exact = sp.Rational(*float(time).as_integer_ratio()) if isinstance(time, float) else sp.Rational(time)
        expr = next(piece for piece, holds in expr.args if holds == sp.true or exact <= holds.rhs)
    ball = arb.nan()
    for precise in precisions:
        if precise > PRECISIONS[1]:
            from interpolants.stable import stable  # which encloses by this module

            # 1 - exp(-v) of a small v takes as many bits as -expm1(-v) has zeros
            expr = stable(expr)
        with precision(precise):
            place = point(time)
            ball = shared(expr)(place) if shared else _enclosed_at(expr, *_exactly(place), precise)
        if ball.is_exact() or (ball.is_finite() and ball.rel_accuracy_bits() >= bits):
            break
        if not ball.is_finite() and precise > PRECISIONS[1]:
            break
    return ball


def is_zero_at(expr: sp.Expr, time: sp.Rational) -> bool:
    """Whether the value at a rational time is proved to be 0."""
    from interpolants.expansion import is_zero_constant

    ball = value(expr, time)
    if ball.is_zero() or not (expr.has(t) and ball.is_finite() and ball.contains(0)):
        return bool(ball.is_zero())
    # Where nothing cancels, a ball about 0 is as small as the value; and where time is long, so is the number.
    if abs(ball) < arb(2) ** -(3 * PRECISIONS[-1]) or time.q > 2**64:
        return False
    try:
        with bounded(MAX_CALLS):
            return bool(is_zero_constant(expr.subs(t, time)))
    except EffortError:
        return False


def point(time: Any) -> arb:
    """A rational number as a ball."""
    return arb(fmpq(int(time.p), int(time.q))) if isinstance(time, sp.Rational) else arb(time)


def hull(low: Any, high: Any) -> arb:
    """The smallest ball that holds both rational numbers."""
    return point(low).union(point(high))


# Functions of balls and of series


def _from_zero(name: str) -> Callable[[arb], arb]:
    """sinh, tanh or expm1 of a ball, by x + O(x^2) next to 0: Arb keeps only 28 bits where |x| is below 2^-2^62."""

    def function(x: arb) -> arb:
        if abs(x) < arb(2) ** (-2 * flint.ctx.prec):
            return x + x * x * arb(0, 1)  # all three differ from x by less than x^2 up to 1/2
        return getattr(x, name)()

    return function


def _by_slope(of_ball: Callable[[arb], arb], slope: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """A function that flint has for balls alone: y' = slope(x, y) x' gives the coefficients of its series in turn."""

    def function(x: Any) -> Any:
        if isinstance(x, arb):
            return of_ball(x)
        inner = x.coeffs()
        y = [of_ball(inner[0] if inner else arb(0))]
        for k in range(1, flint.ctx.cap):
            d = slope(x, arb_series(y))
            y.append(sum((j * inner[j] * d[k - j] for j in range(1, min(k + 1, len(inner)))), arb(0)) / k)
        return arb_series(y)

    return function


def _absolute(x: Any) -> Any:
    if isinstance(x, arb):
        return abs(x)
    if x[0] >= 0:
        return x
    if x[0] <= 0:
        return 0 - x
    return arb_series([abs(x[0]), *(c * arb(0, 1) for c in x.coeffs()[1:2]), arb.nan()])


def _sign(x: Any) -> Any:
    if isinstance(x, arb):
        return arb(sign_of(x)) if sign_of(x) or x.is_zero() else arb(0, 1)
    return arb_series([arb(sign_of(x[0]))] if sign_of(x[0]) else [arb(0, 1), arb.nan()])


def _maximum(x: Any, y: Any) -> Any:
    return (x + y + _absolute(x - y)) / 2


def _minimum(x: Any, y: Any) -> Any:
    return (x + y - _absolute(x - y)) / 2


def _root(x: Any) -> Any:
    return x.sqrt()


_FUNCTIONS: Final[dict[str, Any]] = {
    **{name: (lambda x, of=of: getattr(x, of)()) for name, of in (
        ("sin", "sin"), ("cos", "cos"), ("tan", "tan"), ("arcsin", "asin"), ("arccos", "acos"), ("arctan", "atan"),
        ("exp", "exp"), ("log", "log"),
    )},
    "sqrt": _root,
    "sinh": _by_slope(_from_zero("sinh"), lambda x, y: (x.exp() + (0 - x).exp()) / 2),
    "cosh": _by_slope(arb.cosh, lambda x, y: (x.exp() - (0 - x).exp()) / 2),
    "tanh": _by_slope(_from_zero("tanh"), lambda x, y: 1 - y * y),
    "expm1": _by_slope(_from_zero("expm1"), lambda x, y: x.exp()),
    "log1p": _by_slope(arb.log1p, lambda x, y: 1 / (1 + x)),
    "abs": _absolute, "sign": _sign, "maximum": _maximum, "minimum": _minimum,
    "full_like": lambda time, number: number,
}  # fmt: skip

# Signs on an interval


@dataclass(frozen=True)
class Sign:
    """The sign of a function on an open interval, as far as it is decided.

    Attributes:
        value: 1 or -1 where it is proved to be positive or negative at all times, else 0.
        weak: 1 or -1 where it is proved to be that at all times but for isolated zeros, else 0.
        positive, negative, zero: Rational times at which it is proved to be that; None where none is known.
        undefined: A rational time at which it is not finite and real.

    A zero or a pole at which the function does not change its sign may be irrational, and is then given to 50 digits.
    """

    value: int
    positive: sp.Rational | None = None
    negative: sp.Rational | None = None
    zero: sp.Rational | None = None
    undefined: sp.Rational | None = None
    weak: int = 0


@dataclass(frozen=True)
class Verdict:
    """Whether something holds at all times of (0, 1): True, False at ``time``, or None where it is not decided."""

    holds: bool | None
    time: sp.Rational | None = None


def is_positive(expr: sp.Expr) -> Verdict:
    """Whether ``expr`` is finite, real and above 0 on (0, 1)."""
    found = sign(expr)
    refuted = next((time for time in (found.undefined, found.negative, found.zero) if time is not None), None)
    return Verdict(True) if found.value == 1 else Verdict(None if refuted is None else False, refuted)


def is_nonnegative(expr: sp.Expr, low: sp.Rational = sp.S.Zero, high: sp.Rational = sp.S.One) -> Verdict:
    """Whether ``expr`` is finite, real and at least 0 on (low, high): it may touch 0."""
    is_even = expr.is_Pow and expr.exp.is_even and expr.exp.is_positive
    if expr == 0 or ((is_even or isinstance(expr, sp.Abs)) and is_finite(expr.args[0], low, high)):
        return Verdict(True)
    if expr.is_Mul or expr.is_Add or (expr.is_Pow and expr.exp.is_Rational and expr.exp.is_positive):
        parts = expr.args[:1] if expr.is_Pow else expr.args
        if all(is_nonnegative(part, low, high).holds for part in parts):
            return Verdict(True)
    if isinstance(expr, sp.Piecewise) and all(
        is_nonnegative(piece, a, b).holds and (b == high or value(piece, b).is_finite())
        for piece, a, b in _pieces(expr, low, high)
    ):
        return Verdict(True)
    found = sign(expr, low, high)
    refuted = next((time for time in (found.undefined, found.negative) if time is not None), None)
    return Verdict(True) if 1 in (found.value, found.weak) else Verdict(None if refuted is None else False, refuted)


@functools.lru_cache(maxsize=4096)
def sign(expr: sp.Expr, low: sp.Rational = sp.S.Zero, high: sp.Rational = sp.S.One) -> Sign:
    """The sign of ``expr`` on the open interval (low, high), proved or refuted where a bounded effort can."""
    middle = (low + high) / 2
    if isinstance(expr, sp.Piecewise):
        return _of_pieces(expr, low, high)
    if not expr.has(t):
        return _witnessed(expr, [middle], sign_of(value(expr, middle)))
    if expr.is_Mul:
        signs = [sign(factor, low, high) for factor in expr.args]
        if all(s.value for s in signs):
            return _witnessed(expr, [middle], math.prod(s.value for s in signs))
    if expr.is_Pow and expr.exp.is_Rational:
        base = sign(expr.base, low, high).value
        if base == 1 or (base and expr.exp.is_Integer):
            return _witnessed(expr, [middle], base if expr.exp.is_odd else 1)
    if isinstance(expr, sp.exp) and is_finite(expr.args[0], low, high):
        return Sign(1, positive=middle)
    if (argument := _of_same_sign(expr)) is not None and (inner := sign(argument, low, high)).value:
        return inner
    found = _bisected(expr, low, high)
    if found.value or any(time is not None for time in (found.negative, found.zero, found.undefined)):
        return found
    if expr.is_Add and all(sign(term, low, high).value == 1 for term in expr.args):
        return Sign(1, positive=middle)
    return _with_crossings(expr, low, high, found)


def _with_crossings(expr: sp.Expr, low: sp.Rational, high: sp.Rational, found: Sign) -> Sign:
    """With the zero of a factor b^2n or |b|, or the pole of any power b^-n, where b changes its sign."""
    factors = {f for f in sp.Mul.make_args(expr) if isinstance(f, sp.Abs) or (f.is_Pow and f.exp.is_even)}
    for part in sp.preorder_traversal(expr):
        is_pole = part.is_Pow and part.exp.is_Rational and part.exp < 0
        if not (is_pole or part in factors):
            continue
        base = sign(part.args[0], low, high)
        if base.positive is not None and base.negative is not None:
            a, b = sorted((base.positive, base.negative))
            if is_finite(part.args[0], a, b):
                place = refined(part.args[0], a, b, 1 if a == base.positive else -1)
                return replace(found, undefined=place) if is_pole else replace(found, zero=place)
    return found


def _of_same_sign(expr: sp.Expr) -> sp.Expr | None:
    """The argument of what increases through 0 at 0, such as tanh(f), or exp(f) - 1."""
    if isinstance(expr, (sp.tanh, sp.sinh, sp.atan)):
        return expr.args[0]
    if expr.is_Add and len(expr.args) == 2 and expr.args[0] == -1 and isinstance(expr.args[1], sp.exp):
        return expr.args[1].args[0]
    return None


def _of_pieces(expr: sp.Piecewise, low: sp.Rational, high: sp.Rational) -> Sign:
    signs = []
    for piece, a, b in _pieces(expr, low, high):
        signs.append(sign(piece, a, b))
        if b < high:
            signs.append(_witnessed(piece, [b], sign_of(value(piece, b, bits=1))))
    if len({s.value for s in signs}) == 1 and signs[0].value:
        return signs[0]
    times = [time for s in signs for time in (s.positive, s.negative, s.zero, s.undefined) if time is not None]
    return _witnessed(expr, times)


def _pieces(expr: sp.Piecewise, low: sp.Rational, high: sp.Rational) -> list[tuple[sp.Expr, sp.Rational, sp.Rational]]:
    """The pieces between two times, each with rational times from which and up to which it holds, or a little beyond.

    A piece holds at its end too.
    """
    times = [low, *(min(max(holds.rhs, low), high) for _, holds in expr.args[:-1]), high]
    parts = zip((piece for piece, _ in expr.args), itertools.pairwise(times), strict=True)
    return [(piece, _rational(a, -1), _rational(b, 1)) for piece, (a, b) in parts if a < b]


def _rational(time: sp.Expr, side: int) -> sp.Rational:
    """A number as it is if it is rational, else a rational that is a little lower or higher."""
    return time if time.is_Rational else sp.Rational(time.evalf(50)) + side * sp.Rational(1, 10**48)


def looks(expr: sp.Expr) -> set[int]:
    """The signs at a few times: what a look tells, which proves nothing of the others."""
    return {sign_of(value(expr, time, 1, PRECISIONS[:2])) for time in LOOKS}


def _witnessed(expr: sp.Expr, times: list[sp.Rational], proved: int = 0) -> Sign:
    """A sign, with what the values at the times prove."""
    found: dict[str, sp.Rational] = {}
    for time in times:
        ball = value(expr, time)
        answer = sign_of(ball)
        if answer or is_zero_at(expr, time):
            found[{1: "positive", -1: "negative", 0: "zero"}[answer]] = time
        elif not ball.is_finite() and is_undefined(expr, time):
            found["undefined"] = time
    return Sign(proved, **found)


def is_undefined(expr: sp.Expr, time: sp.Rational) -> bool:
    """Whether the expression is proved not to be finite and real at a rational time."""
    for part in sp.preorder_traversal(expr):
        if part.is_Pow and not part.exp.is_nonnegative:
            outside = is_zero_at(part.base, time) or (not part.exp.is_Integer and value(part.base, time) < 0)
        elif part.is_Pow and not part.exp.is_Integer:
            outside = value(part.base, time) < 0
        elif isinstance(part, sp.log):
            outside = value(part.args[0], time) < 0 or is_zero_at(part.args[0], time)
        elif isinstance(part, (sp.asin, sp.acos)):
            outside = abs(value(part.args[0], time)) > 1
        else:
            outside = False
        if outside:
            return True
    return False


def is_finite(expr: sp.Expr, low: sp.Rational = sp.S.Zero, high: sp.Rational = sp.S.One) -> bool:
    """Whether ``expr`` is proved to be finite and real on (low, high)."""
    return _bisected(expr, low, high, settled=lambda ball: 1 if ball.is_finite() else 0).value == 1


def sign_of(ball: arb) -> int:
    """1 or -1 where the ball is of that sign, else 0."""
    return int(ball > 0) - int(ball < 0)


def _bisected(expr: sp.Expr, low: sp.Rational, high: sp.Rational, settled: Callable[[arb], int] = sign_of) -> Sign:
    """The one answer of ``settled`` on all of (low, high), or two that differ, each with a time at which it holds."""
    from interpolants.expansion import near  # which encloses by this module

    if expr.has(*WITHOUT_VALUES):
        return Sign(0)
    seen = {time: settled(value(expr, time, bits=1)) for time in (low + (high - low) * share for share in LOOKS)}
    found = {answer: time for time, answer in seen.items() if answer}
    if len(found) > 1:
        return Sign(0, found[1], found[-1])
    # Most functions have a sign up to the ends, where they are enclosed as anywhere. Else their expansion decides.
    zeros: list[sp.Rational] = []
    undecided = _over_cells(expr, (low, high), settled, found, zeros, FEW_CELLS)
    if undecided is None and len(found) == 1:
        return Sign(next(iter(found)), found.get(1), found.get(-1))
    inner, is_closed = [], True
    for point, other in ((low, high), (high, low)):
        beside = near(expr, point, other)
        answer = 0 if beside is None else beside.sign if settled is sign_of else 1
        is_closed = is_closed and answer != 0
        width = beside.width if beside is not None and answer else 0
        inner.append(point + width if other > point else point - width)
        if answer:
            found.setdefault(answer, inner[-1])
    most = MAX_CELLS if is_closed else MAX_CELLS // 10  # then there may be a time of another sign, and no proof of one
    undecided = _over_cells(expr, tuple(inner), settled, found, zeros, most * 100 // max(operations(expr), 100))
    if undecided is not None and undecided not in inner and len(found) < 2:
        return _witnessed(expr, [*found.values(), *zeros, undecided])
    proved = next(iter(found)) if undecided is None and is_closed and len(found) == 1 else 0
    if zeros:
        return Sign(0, found.get(1), found.get(-1), zeros[0], weak=proved)
    return Sign(proved, found.get(1), found.get(-1))


def _over_cells(
    expr: sp.Expr,
    bounds: tuple[sp.Rational, ...],
    settled: Callable[[arb], int],
    found: dict[int, sp.Rational],
    zeros: list[sp.Rational],
    most: int,
) -> sp.Rational | None:
    """Add to ``found`` the answers on the closed cells between the bounds, but for isolated ``zeros``, which it adds.

    Returns:
        None where all cells have one; else a time of a cell without: if possible where the function is 0 or undefined.
    """
    from interpolants.expansion import near

    cells = deque([bounds])
    for tried in range(most):
        if not cells or len(found) > 1:
            return None
        a, b = cells.popleft()
        middle = _simplest((3 * a + b) / 4, (a + 3 * b) / 4)
        answer = _on_cell(expr, a, b, settled)
        if answer:
            found.setdefault(answer, middle)
            continue
        if most == FEW_CELLS:
            cells.extend([(a, middle), (middle, b)])
            continue
        there = value(expr, middle)
        if settled(there) and not settled(value(expr, middle, 1, PRECISIONS[:1])):  # lost to rounding, not to width
            answer = _on_cell(expr, a, b, settled, PRECISIONS[2])
            if answer:
                found.setdefault(answer, middle)
                continue
        if answer := settled(there):
            found.setdefault(answer, middle)
        elif not there.is_finite() and is_undefined(expr, middle):
            return middle
        elif there.is_zero() or (tried < MAX_ZEROS and is_zero_at(expr, middle)):
            sides = [(near(expr, middle, end), end) for end in (a, b)]
            zeros.append(middle)
            for beside, end in sides:
                if beside is None or not beside.sign:
                    return middle
                next_to = middle + (beside.width if end > middle else -beside.width)
                found.setdefault(beside.sign, next_to)
                cells.append((end, next_to) if end < middle else (next_to, end))
            continue
        cells.extend([(a, middle), (middle, b)])
    return bounds[0]


def _simplest(low: sp.Rational, high: sp.Rational) -> sp.Rational:
    """The fraction in [low, high] with the smallest denominator: functions vanish at 1/3 rather than next to it."""
    whole, (a, b, c, d) = [], (int(low.p), int(low.q), int(high.p), int(high.q))
    while -(-a // b) * d > c:  # no integer between a / b and c / d
        whole.append(a // b)
        a, b, c, d = d, c - whole[-1] * d, b, a - whole[-1] * b
    p, q = -(-a // b), 1
    for integer in reversed(whole):
        p, q = integer * p + q, p
    return sp.Rational(p, q)


def _on_cell(
    expr: sp.Expr, low: sp.Rational, high: sp.Rational, settled: Callable[[arb], int], bits: int = PRECISION
) -> int:
    """The answer for all times of a closed cell; 0 where it is not clear."""
    with precision(bits):
        cell, function = hull(low, high), enclosed(expr)
        everywhere = function(arb_series([cell, 1]))
        if answer := settled(everywhere[0]):
            return answer
        middle = function(point((low + high) / 2))
        return settled(middle + everywhere[1] * (cell - cell.mid()))


def roots(expr: sp.Expr) -> tuple[sp.Rational, ...] | None:
    """Where ``expr`` changes its sign inside (0, 1), to 50 digits; None where not all of these are isolated."""
    from interpolants.expansion import near

    inner = []
    for point, other in (UNIT, UNIT[::-1]):
        beside = near(expr, point, other)
        if beside is None or not beside.sign:
            return None
        inner.append(abs(point - beside.width))
    cells, slope = deque([tuple(inner)]), sp.diff(expr, t)
    found: list[sp.Rational] = []
    for _ in range(MAX_CELLS):
        if not cells:
            return tuple(sorted(found))
        a, b = cells.popleft()
        if _on_cell(expr, a, b, sign_of):
            continue
        at_low, at_high = (sign_of(value(expr, time)) for time in (a, b))
        if at_low and at_high and _on_cell(slope, a, b, sign_of):
            if at_low != at_high:
                found.append(refined(expr, a, b, at_low))
            continue
        shifted = a + (b - a) * sp.Rational(31, 64)  # a root may lie in the middle
        cells.extend([(a, shifted), (shifted, b)])
    return None


LAST_POWER: Final = 1080
"""2^-k of it is below all floats."""


def refined(expr: sp.Expr, low: sp.Rational, high: sp.Rational, at_low: int) -> sp.Rational:
    """A change of sign between two times, to 50 digits; ``at_low`` is the sign at the first.

    Next to a simple fraction it is that, or its distance from it has 18 digits.
    """
    while high - low > sp.Rational(1, 2**170):
        middle = (low + high) / 2
        found = sign_of(value(expr, middle, bits=1))
        if found == 0:
            return middle
        low, high = (middle, high) if found == at_low else (low, middle)
    middle = (low + high) / 2
    simple = Fraction(int(middle.p), int(middle.q)).limit_denominator(10**6)
    near_by = sp.Rational(simple.numerator, simple.denominator)
    if not low <= near_by <= high:
        return middle
    found = sign_of(value(expr, near_by, bits=1))
    side = 0 if found == 0 else 1 if found == at_low else -1

    def is_beyond(distance: sp.Rational) -> bool:
        return sign_of(value(expr, near_by + side * distance, bits=1)) == -found

    powers = [170, LAST_POWER]
    while side and powers[1] - powers[0] > 1:
        k = sum(powers) // 2
        powers[0 if is_beyond(sp.Rational(1, 2**k)) else 1] = k
    if not side or powers[1] == LAST_POWER:
        return near_by
    inner, outer = (sp.Rational(1, 2**k) for k in reversed(powers))
    for _ in range(60):
        middle = (inner + outer) / 2
        inner, outer = (inner, middle) if is_beyond(middle) else (middle, outer)
    return near_by + side * (inner + outer) / 2


# Bounds


def bound(expr: sp.Expr, low: sp.Rational, high: sp.Rational, shared: Shared | None = None) -> arb:
    r"""An upper bound of ``|expr|`` on [low, high], proved: with the Taylor coefficients c_k on a cell of half width h

    .. math:: |f| \le \sum_{k < n} |c_k(m)| \, h^k + \sup_{\text{cell}} |c_n| \, h^n.

    For a function that is zero in fact the first sum is of the size of the rounding, 1e-45 here, and the last term
    falls with the n-th power of the cells.

    Raises:
        ArithmeticError: If a function in ``expr`` could not be enclosed, as next to a pole.
    """
    if isinstance(expr, sp.Piecewise):
        return max((bound(*part, shared) for part in _pieces(expr, low, high)), key=float)
    edges = [low + (high - low) * sp.Rational(i, 4) for i in range(5)]
    with precision(BOUND_PRECISION, ORDER + 1):
        return max(
            (_bound_on_cell(expr, a, b, MAX_DEPTH, shared or enclosed) for a, b in itertools.pairwise(edges)), key=float
        )


def _bound_on_cell(
    expr: sp.Expr, low: sp.Rational, high: sp.Rational, depth: int, enclosed: Callable[[sp.Expr], ArrayFunction]
) -> arb:
    middle, function = (low + high) / 2, enclosed(expr)
    h = point((high - low) / 2)
    remainder = abs(function(arb_series([hull(low, high), 1]))[ORDER]) * h**ORDER
    if remainder < REMAINDER or depth == 0:
        at_middle = function(arb_series([point(middle), 1]))
        total = sum((abs(at_middle[k]) * h**k for k in range(ORDER)), remainder)
        if total.is_finite():
            return total.upper()
        if depth == 0:
            raise ArithmeticError(f"enclosure: {expr} could not be bounded on [{low}, {high}].")
    halves = (_bound_on_cell(expr, a, b, depth - 1, enclosed) for a, b in ((low, middle), (middle, high)))
    return max(halves, key=float)
