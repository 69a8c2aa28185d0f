r"""The expansion of a function next to a point, with a rigorous remainder.

For s in (0, delta], the distance to the point, and L = log(1/s),

.. math:: f = \sum_{e < N} c_{e,j} \, s^e L^j + R(s) \, s^N

with rational exponents, whole powers j >= 0 of the logarithm, and R(s) in a ball. The coefficients are balls that know
how they were made, so that whether one is zero is decided exactly. exp(-1/s), which is smaller than any power, is all
remainder. Source: Tucker (2011), Validated Numerics, on Taylor models; here with powers and logarithms.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import sympy as sp
from flint import arb, arb_series

from interpolants import effort, enclosure
from interpolants.expression import exchanged, t

Exponents = tuple[Fraction, int]

BITS: Final = 320
TRIES: Final = ((4, 4), (4, 10), (10, 10), (4, 30), (10, 40), (24, 24), (10, 100), (10, 400))
"""Terms of the Taylor series of a function and of an expansion, and w of the width 2^-w: tried in turn."""
MAX_WORK: Final = 4000
"""Terms times operations of a function: what takes longer is not tried."""
MIN_FLAT, MAX_FLAT = 3, 64
"""exp(-1/s) is used as smaller than a power of s between these."""
MAX_ALGEBRAIC: Final = 120
"""Operations in a number, and parts of a turn in its angles, up to which it is asked whether it is zero."""
MAX_PARTS: Final = 300
"""Most parts of a number whose exact expression is returned."""
FEW_PARTS: Final = 30
"""Parts up to which that takes no time."""
MAX_CALLS: Final = 1_000_000
"""Most function calls that the expression of more may take, or the proof that a number of too many parts is zero."""
_TINY: Final = 1e-40
MAX_KNOWN: Final = 20_000
"""Expansions that are kept."""
PERIODIC: Final = (sp.sin, sp.cos, sp.tan, sp.cot, sp.sec, sp.csc)
_SLACK: Final = Fraction(1, 16)  # s^e L^j is s^(e - slack) times what is bounded


DIGITS_60: Final = 200
"""Bits of them."""


class Undecided(Exception):  # noqa: N818 - an answer, not an error
    """A function without an expansion of this kind, or one whose leading term is not clear."""


class Hopeless(Undecided):
    """So it is at whatever distance and order."""


@dataclass(frozen=True)
class Beside:
    """The behaviour of a function within ``width`` of a point: c s^power log(1/s)^logs (1 + ...), of one sign.

    Attributes:
        sign: 1 or -1 where that is its sign on (0, width]; 0 where the function is zero to all orders.
        coefficient: c, exactly or to 60 digits; NaN where neither is known.
        roots: The denominators of the exponents, relative to the power.
    """

    sign: int
    width: sp.Rational
    coefficient: sp.Expr
    power: sp.Rational
    logs: int
    roots: tuple[int, ...] = ()


@functools.lru_cache(maxsize=2048)
def near(expr: sp.Expr, point: sp.Rational, towards: sp.Rational) -> Beside | None:
    """The expansion of ``expr`` next to ``point``, on the side of ``towards``, if there is one whose sign is clear."""
    distance, small = around(expr, point, towards), None
    for order, width in TRIES:
        delta = sp.Rational(1, 2**width)
        if delta > abs(towards - point) / 2 or order * effort.operations(expr) > MAX_WORK:
            continue
        try:
            with enclosure.precision(BITS, order + 1):
                local = _local(width, order)
                found = local.expansion(distance)
                if isinstance(found, _Huge):
                    return Beside(found.sign, delta, found.sign * sp.oo, sp.S.Zero, 0)
                if not found.terms:  # zero, or of unknown sign and at most of the order of the remainder
                    if found.order is None or found.order > 0:
                        small = Beside(0, delta, sp.S.Zero, sp.S.Zero, 0)
                    if found.order is None or order == TRIES[-1][0]:
                        break
                    continue
                (power, logs), number, sign = *local.leading(found), local.sign(found)
                roots = tuple({(e - power).denominator for (e, _), n in found.terms.items() if not n.ball.is_zero()})
                c, p = number.exact(), sp.Rational(power.numerator, power.denominator)
                return Beside(sign, delta, c, p, logs, roots)
        except Hopeless:
            return None
        except Undecided:
            continue
    return small


def around(expr: sp.Expr, point: sp.Rational, towards: sp.Rational) -> sp.Expr:
    """``expr`` as a function of the distance to a point, which the symbol t then stands for."""
    if point == 0:
        return expr
    moved = exchanged(expr, {t: point + t if towards > point else point - t})
    if not moved.has(*PERIODIC):
        return moved
    # Of a wave, so that cos(pi (1 - s) / 2) is sin(pi s / 2); elsewhere sympy would search for signs without bound.
    return moved.replace(lambda e: isinstance(e, PERIODIC), lambda e: e.func(sp.expand(e.args[0], log=False)))


class _Number:
    """A real number: a ball, and, when it is asked for, the exact expression, unless it is of too many parts."""

    __slots__ = ("_exact", "ball", "parts")

    def __init__(self, ball: arb, exact: sp.Expr | Callable[[], sp.Expr], parts: int = 1) -> None:
        self.ball, self._exact, self.parts = ball, exact, parts

    def exact(self) -> sp.Expr:
        """The expression, or 60 digits where it is long, or long in the making; NaN where the ball has fewer."""
        if self.parts <= MAX_PARTS:
            with suppress(effort.EffortError), self._bounded(FEW_PARTS):
                return self.whole()
        return sp.Float(self.ball.mid().str(60, radius=False), 60) if self.has_digits else sp.nan

    @property
    def has_digits(self) -> bool:
        """Whether 60 digits are known."""
        return bool(self.ball.is_exact() or self.ball.rel_accuracy_bits() >= DIGITS_60)

    def whole(self) -> sp.Expr:
        """The expression, of however many parts."""
        if not isinstance(self._exact, sp.Basic):
            self._exact = self._exact()
        return self._exact

    def _bounded(self, parts: int) -> AbstractContextManager[None]:
        """Bounds the work on a number of more parts than that."""
        return effort.bounded(MAX_CALLS) if self.parts > parts else nullcontext()

    def _is_proved_zero(self) -> bool:
        if not abs(self.ball) < _TINY:
            return False
        try:
            with self._bounded(MAX_PARTS):
                return is_zero_constant(self.whole())
        except effort.EffortError:
            return False

    def __add__(self, other: _Number) -> _Number:
        return _Number(self.ball + other.ball, lambda: self.whole() + other.whole(), self.parts + other.parts)

    def __mul__(self, other: _Number) -> _Number:
        return _Number(self.ball * other.ball, lambda: self.whole() * other.whole(), self.parts + other.parts)

    def over(self, other: _Number) -> _Number:
        return _Number(self.ball / other.ball, lambda: self.whole() / other.whole(), self.parts + other.parts)

    def is_zero(self) -> bool:
        """Whether it is zero; Undecided where neither is proved."""
        if self.ball.is_zero():
            return True
        if not self.ball.contains(0):
            return False
        if self._is_proved_zero():
            self.ball, self._exact, self.parts = arb(0), sp.S.Zero, 1
            return True
        raise Hopeless


@functools.lru_cache(maxsize=1024)
def is_zero_constant(number: sp.Expr) -> bool:
    """Whether a number is proved to be 0: by its normal form, as a sum of waves, or by its minimal polynomial."""
    from sympy.simplify.fu import TR8

    from interpolants.simplify import is_zero, simplified

    if number == 0 or is_zero(number):
        return True
    if sp.count_ops(number) > MAX_ALGEBRAIC:
        return False
    number = _in_primes(number).replace(lambda e: isinstance(e, PERIODIC), lambda e: e.func(simplified(e.args[0])))
    if number == 0:
        return True
    if number.has(*PERIODIC):  # above the line the products of waves are sums of waves, which cancel
        waves = number.replace(sp.tan, lambda x: sp.sin(x) / sp.cos(x))
        if is_zero(sp.expand(TR8(sp.expand(sp.fraction(sp.together(waves))[0])))):
            return True
    turns = [angle / sp.pi for wave in number.atoms(*PERIODIC) for angle in wave.args]
    parts = [turn.q if turn.is_Rational else MAX_ALGEBRAIC + 1 for turn in turns]
    if number.has(sp.exp, sp.log) or not number.is_algebraic or math.lcm(*parts) > MAX_ALGEBRAIC:
        return False
    x = sp.Dummy("x")
    return bool(sp.minimal_polynomial(number, x) == x)


def _in_primes(number: sp.Expr) -> sp.Expr:
    """With the logarithms of rational numbers as sums of those of primes, which have no relations."""
    from interpolants.simplify import prime_powers

    def of_integer(integer: sp.Integer) -> sp.Expr:
        return sp.Add(*(int(k) * sp.log(int(p)) for p, k in prime_powers(int(integer)).items()))

    def of_rational(rational: sp.Rational) -> sp.Expr:
        return of_integer(rational.p) - of_integer(rational.q)

    def is_of_rational(e: sp.Expr) -> bool:
        return isinstance(e, sp.log) and e.args[0].is_Rational and e.args[0].is_positive

    return number.replace(is_of_rational, lambda e: of_rational(e.args[0]))


def _number(expr: sp.Expr) -> _Number:
    ball = enclosure.constant(expr)
    if not ball.is_finite():
        raise Hopeless
    return _Number(ball, expr)


@dataclass(frozen=True)
class _Expansion:
    terms: dict[Exponents, _Number]
    order: Any
    """N, a Fraction; None without a remainder."""
    rest: arb
    is_flat: bool = False
    """Whether the function is positive and has no terms, as exp(-1/s)."""

    @property
    def low(self) -> Fraction:
        """The function is s to this power times what is bounded."""
        exponents = [e - (_SLACK if j > 0 else 0) for (e, j), n in self.terms.items() if not n.ball.is_zero()]
        return min([*exponents, *([] if self.order is None else [self.order])], default=Fraction(10**6))


@dataclass(frozen=True)
class _Huge:
    """sign / flat, with flat > 0 smaller than any power: exp(1/s), say."""

    sign: int
    flat: _Expansion

    @property
    def low(self) -> Fraction:
        """There is none; it tends to infinity."""
        return Fraction(-(10**6))


class _Local:
    """Arithmetic of expansions on (0, delta]. ``Any`` stands for an ``_Expansion`` or a ``_Huge``."""

    def __init__(self, delta: arb, count: int) -> None:
        self.delta, self.log, self.count = delta, -delta.log(), count
        self._known: dict[sp.Expr, _Expansion] = {}

    # Parts

    def power(self, exponent: Fraction, logs: int = 0) -> arb:
        """A ball that holds s^exponent L^logs; exponent > 0, or 0 without a positive power of L."""
        if exponent < 0 or (exponent == 0 and logs > 0):
            raise Undecided
        if exponent == 0 and logs == 0:
            return arb(1)
        e = arb(exponent.numerator) / exponent.denominator
        at_delta = self.delta**e * self.log**logs
        if logs > 0 and not self.log > arb(logs) / e:  # it falls again before delta
            peak = (arb(logs) / e) ** logs * arb(-logs).exp()
            at_delta = at_delta.union(peak)
        return arb(0).union(at_delta.upper())

    def made(self, terms: dict[Exponents, _Number], order: Fraction | None, rest: arb) -> _Expansion:
        """An expansion of at most ``count`` terms, none of them of the order of the remainder."""
        kept = [item for item in sorted(terms.items(), key=lambda i: (i[0][0], -i[0][1])) if not item[1].ball.is_zero()]
        cut = kept[self.count :]
        if order is not None:
            cut += [item for item in kept[: self.count] if item[0][0] >= order]
        if not cut:
            return _Expansion(dict(kept), order, rest)
        # s^e L^j is of the order s^N for an N below e only.
        new = min(e - (_SLACK if j > 0 else 0) for (e, j), _ in cut)
        new = new if order is None else min(new, order)
        while any(e == new and j > 0 for (e, j), _ in kept):
            new -= _SLACK
        cut = [item for item in kept if item[0][0] >= new]
        if order is not None:
            rest = rest * self.power(order - new)
        rest += sum((number.ball * self.power(e - new, j) for (e, j), number in cut), arb(0))
        return _Expansion({key: number for key, number in kept if key[0] < new}, new, rest)

    def moved(self, f: _Expansion, order: Fraction) -> arb:
        """The remainder of f as R in R s^order, for an order up to its own."""
        if f.order is None:
            return arb(0)
        return f.rest * self.power(f.order - order)

    def bounded(self, f: _Expansion, low: Fraction) -> arb:
        """A ball that holds f / s^low."""
        total = self.moved(f, low) if f.order is not None else arb(0)
        for (e, j), number in f.terms.items():
            if not number.ball.is_zero():
                total += number.ball * self.power(e - low, j)
        return total

    def plus(self, f: Any, g: Any) -> Any:
        """The sum."""
        if isinstance(f, _Huge) and isinstance(g, _Huge):  # 1/a + 1/b is 1/c, with c below both
            if f.sign != g.sign:
                raise Undecided
            return f if f.flat.order >= g.flat.order else g
        if isinstance(g, _Huge):
            return self.plus(g, f)
        if isinstance(f, _Huge):  # s/a + g = s/a (1 + s a g), and 1 + s a g is above a half
            change = self.times(f.flat, g)
            if not abs(self.bounded(change, Fraction(0))) < 0.5:
                raise Undecided
            return _Huge(f.sign, self.times(f.flat, self.expansion(sp.Integer(2))))
        terms = dict(f.terms)
        for key, number in g.terms.items():
            terms[key] = terms[key] + number if key in terms else number
        orders = [h.order for h in (f, g) if h.order is not None]
        if not orders:
            return self.made(terms, None, arb(0))
        order = min(orders)
        return self.made(terms, order, self.moved(f, order) + self.moved(g, order))

    def times(self, f: Any, g: Any) -> Any:
        """The product."""
        if isinstance(f, _Huge) and isinstance(g, _Huge):
            return _Huge(f.sign * g.sign, self.times(f.flat, g.flat))
        if isinstance(g, _Huge):
            return self.times(g, f)
        if isinstance(f, _Huge):
            return _Huge(f.sign * self.sign(g), self.magnitude(self.times(f.flat, self.raised(g, Fraction(-1)))))
        terms: dict[Exponents, _Number] = {}
        for (e, j), a in f.terms.items():
            for (d, k), b in g.terms.items():
                key = (e + d, j + k)
                terms[key] = terms[key] + a * b if key in terms else a * b
        orders = [h.order + other.low for h, other in ((f, g), (g, f)) if h.order is not None and _is_some(other)]
        if not orders:
            return self.made(terms, None, arb(0))
        order, rest = min(orders), arb(0)
        if f.is_flat and g.is_flat:
            return _Expansion({}, order, arb(0).union((f.rest * g.rest).upper()), is_flat=True)
        if f.order is not None and _is_some(g):
            rest += f.rest * self.bounded(g, g.low) * self.power(f.order + g.low - order)
        if g.order is not None and f.terms:
            exact = _Expansion(f.terms, None, arb(0))
            rest += g.rest * self.bounded(exact, exact.low) * self.power(max(g.order + exact.low - order, Fraction(0)))
        return self.made(terms, order, rest)

    def sign(self, f: _Expansion) -> int:
        """The sign on all of (0, delta]."""
        total = self.relative(f, self.leading(f)[0])
        if not (total > 0 or total < 0):
            raise Undecided
        return 1 if total > 0 else -1

    def magnitude(self, f: _Expansion) -> _Expansion:
        """The absolute value of what is remainder alone."""
        if f.terms or f.order is None:
            raise Undecided
        return _Expansion({}, f.order, arb(0).union(abs(f.rest).upper()), is_flat=True)

    def leading(self, f: _Expansion) -> tuple[Exponents, _Number]:
        """The exponents and the coefficient of the first term; Undecided where that is not clear."""
        for key in sorted(f.terms, key=lambda key: (key[0], -key[1])):
            if not f.terms[key].is_zero():
                return key, f.terms[key]
        raise Undecided

    def relative(self, f: _Expansion, key: Exponents) -> arb:
        """A ball that holds f / (s^e L^j), where that is the leading term."""
        (e, j), total = key, arb(0)
        for (d, k), number in f.terms.items():
            if number.ball.is_zero():
                continue
            total += number.ball if (d, k) == key else number.ball * self.quotient(d - e, k - j)
        return total + (f.rest * self.quotient(f.order - e, -j) if f.order is not None else arb(0))

    def quotient(self, exponent: Fraction, logs: int) -> arb:
        """A ball that holds s^exponent L^logs, which tends to 0."""
        if exponent <= 0 and not (exponent == 0 and logs <= 0):
            raise Undecided
        return arb(0).union(self.power(exponent, max(logs, 0)).upper() * self.log ** min(logs, 0))

    def scaled(self, f: _Expansion, key: Exponents, number: _Number) -> _Expansion:
        """f / (c s^e L^j), for its leading term."""
        e, j = key
        terms = {(d - e, k - j): n.over(number) for (d, k), n in f.terms.items() if not n.ball.is_zero()}
        terms[Fraction(0), 0] = _number(sp.S.One)
        if f.order is None:
            return _Expansion(terms, None, arb(0))
        if j < 0:
            raise Undecided
        return _Expansion(terms, f.order - e, f.rest / number.ball * arb(0).union(self.log**-j))

    # Functions

    def composed(self, function: Any, f: _Expansion) -> Any:
        """An analytic function of f, which tends to a finite number."""
        terms = dict(f.terms)
        origin = terms.pop((Fraction(0), 0), None) or _number(sp.S.Zero)
        h = _Expansion(terms, f.order, f.rest)
        if not h.terms and h.order is None:
            return self.made({(Fraction(0), 0): _value_of(function, origin, 0)}, None, arb(0))
        low = h.low
        if low <= 0:
            raise Undecided
        code = enclosure.enclosed(function)
        at_origin = code(arb_series([origin.ball, 1]))
        everywhere = code(arb_series([origin.ball + self.bounded(h, Fraction(0)), 1]))
        numbers = [_value_of(function, origin, k, at_origin[k]) for k in range(self.count)]
        last = everywhere[self.count]
        if not (last.is_finite() and all(n.ball.is_finite() for n in numbers)):
            raise Undecided
        power = _Expansion({(Fraction(0), 0): _number(sp.S.One)}, None, arb(0))
        total = _Expansion({}, None, arb(0))
        for number in numbers:
            total = self.plus(total, self.times(_Expansion({(Fraction(0), 0): number}, None, arb(0)), power))
            power = self.times(power, h)
        size = self.bounded(h, low) ** self.count
        return self.plus(total, _Expansion({}, low * self.count, last * size))

    def raised(self, f: Any, exponent: Fraction) -> Any:
        """f^exponent; f > 0 unless the exponent is whole."""
        if isinstance(f, _Huge):
            if f.sign < 0 and exponent.denominator != 1:
                raise Undecided
            sign = f.sign if exponent.numerator % 2 else 1
            power = self.raised(f.flat, abs(exponent))
            if exponent > 0:
                return _Huge(sign, power)
            return self.times(self.expansion(sp.Integer(sign)), power)
        if exponent.denominator == 1 and 0 <= exponent <= self.count:
            result = _Expansion({(Fraction(0), 0): _number(sp.S.One)}, None, arb(0))
            for _ in range(int(exponent)):
                result = self.times(result, f)
            return result
        if f.is_flat and f.order is not None and exponent > 0:
            e = arb(exponent.numerator) / exponent.denominator
            return _Expansion({}, f.order * exponent, arb(0).union(f.rest.upper() ** e), is_flat=True)
        key, number = self.leading(f)
        logs = key[1] * exponent
        if logs.denominator != 1 or (exponent.denominator != 1 and not number.ball > 0):
            raise Undecided
        p = sp.Rational(exponent.numerator, exponent.denominator)
        one = self.composed(t**p, self.scaled(f, key, number))
        factor = _Number(enclosure.power(number.ball, p), lambda: number.whole() ** p, number.parts)
        return self.times(_Expansion({(key[0] * exponent, int(logs)): factor}, None, arb(0)), one)

    def exponential(self, f: Any) -> Any:
        """exp(f)."""
        if isinstance(f, _Huge):  # |f| >= s^-N / R
            flat = self.decaying(1 / f.flat.rest.upper(), f.flat.order)
            return _Huge(1, flat) if f.sign > 0 else flat
        growing = {key: number for key, number in f.terms.items() if key[0] < 0 or (key[0] == 0 and key[1] > 1)}
        if (f.order is not None and f.order <= 0) or any(not n.is_zero() for n in growing.values()):
            return self.flat(f)
        factor = Fraction(0)
        if (slope := f.terms.get((Fraction(0), 1))) is not None and not slope.is_zero():
            exact = slope.exact()  # exp(c L) is s^-c
            if not exact.is_Rational:
                exact = sp.nsimplify(exact) if exact.is_number and exact.is_rational else exact
            if not exact.is_Rational:
                raise Hopeless
            factor = -Fraction(int(exact.p), int(exact.q))
        rest = {key: n for key, n in f.terms.items() if key != (Fraction(0), 1) and key not in growing}
        value = self.composed(sp.exp(t), _Expansion(rest, f.order, f.rest))
        return self.times(_Expansion({(factor, 0): _number(sp.S.One)}, None, arb(0)), value)

    def flat(self, f: _Expansion) -> Any:
        """exp(f) for f that tends to infinity, plus or minus, at least as fast as a power."""
        key, _ = self.leading(f)
        ratio = self.relative(f, key)
        if not (ratio < 0 or ratio > 0):
            raise Undecided
        if key[0] == 0 and key[1] < 1:
            raise Undecided
        if key[0] == 0:  # exp(-a L^j) is below s^N for N = a L^(j - 1) at delta
            order = math.floor(min(float((abs(ratio) * self.log ** (key[1] - 1)).lower()), MAX_FLAT))
            if order < MIN_FLAT:
                raise Undecided
            flat = _Expansion({}, Fraction(order), arb(0).union(1), is_flat=True)
            return flat if ratio < 0 else _Huge(1, flat)
        flat = self.decaying(abs(ratio).lower(), -key[0])
        return flat if ratio < 0 else _Huge(1, flat)

    def decaying(self, size: arb, power: Fraction) -> _Expansion:
        """The interval from 0 to exp(-size s^-power) on (0, delta], as a remainder R s^N."""
        exponent = size * self.delta ** (-(arb(power.numerator) / power.denominator))
        order = math.floor(min(float((exponent * power.numerator / power.denominator).lower()), MAX_FLAT))
        if order < MIN_FLAT:  # exp(-size s^-power) s^-N increases on (0, delta] for N below this
            raise Undecided
        size = ((-exponent).exp() * self.delta**-order).upper()
        return _Expansion({}, Fraction(order), arb(0).union(size), is_flat=True)

    def logarithm(self, f: Any) -> Any:
        """log(f), for f > 0."""
        if isinstance(f, _Huge):
            raise Undecided
        key, number = self.leading(f)
        if key[1] or not number.ball > 0:
            raise Undecided
        one = self.composed(sp.log(t), self.scaled(f, key, number))
        terms = {(Fraction(0), 0): _Number(number.ball.log(), lambda: sp.log(number.whole()), number.parts)}
        if key[0]:
            terms[Fraction(0), 1] = _number(sp.Rational(-key[0].numerator, key[0].denominator))
        return self.plus(self.made(terms, None, arb(0)), one)

    def expansion(self, expr: sp.Expr) -> Any:
        """That of an expression in the distance t."""
        if expr not in self._known:
            found = self.new_expansion(expr)
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[expr] = found
        return self._known[expr]

    def new_expansion(self, expr: sp.Expr) -> Any:
        if not expr.has(t):
            return self.made({(Fraction(0), 0): _number(expr)}, None, arb(0))
        if expr == t:
            return _Expansion({(Fraction(1), 0): _number(sp.S.One)}, None, arb(0))
        if expr.is_Add:
            return functools.reduce(self.plus, map(self.expansion, expr.args))
        if expr.is_Mul:  # exp(a) exp(b) may be bounded where exp(a) is not
            exponents = [factor.args[0] for factor in expr.args if isinstance(factor, sp.exp)]
            if len(exponents) > 1:
                others = [factor for factor in expr.args if not isinstance(factor, sp.exp)]
                return self.expansion(sp.Mul(sp.exp(sp.Add(*exponents)), *others))
            return functools.reduce(self.times, map(self.expansion, expr.args))
        if expr.is_Pow and expr.exp.is_Rational:
            return self.raised(self.expansion(expr.base), Fraction(int(expr.exp.p), int(expr.exp.q)))
        if expr.is_Pow:
            return self.exponential(self.times(self.expansion(expr.exp), self.logarithm(self.expansion(expr.base))))
        if isinstance(expr, (sp.Max, sp.Min)):
            return functools.reduce(functools.partial(self.extreme, expr.func), map(self.expansion, expr.args))
        inner = self.expansion(expr.args[0]) if len(expr.args) == 1 else None
        if isinstance(expr, sp.exp):
            return self.exponential(inner)
        if isinstance(expr, sp.log):
            return self.logarithm(inner)
        return self.of_function(expr, inner)

    def extreme(self, kind: type[sp.Expr], f: Any, g: Any) -> Any:
        """The larger or the smaller of two."""
        difference = self.plus(f, self.times(g, self.expansion(sp.Integer(-1))))
        if not isinstance(difference, _Huge) and not difference.terms and difference.order is None:
            return f
        larger = (difference.sign if isinstance(difference, _Huge) else self.sign(difference)) > 0
        return f if larger == (kind is sp.Max) else g

    def of_function(self, expr: sp.Expr, inner: Any | None) -> Any:
        if inner is None:
            raise Undecided
        argument = expr.args[0]
        if isinstance(expr, (sp.Abs, sp.sign)):
            sign = inner.sign if isinstance(inner, _Huge) else self.sign(inner)
            return self.expansion(sp.Integer(sign) if isinstance(expr, sp.sign) else sign * argument)
        limit = None if inner.low < 0 else inner.terms.get((Fraction(0), 0), _number(sp.S.Zero))
        if limit is None or any(key == 0 and logs for key, logs in inner.terms):  # it tends to infinity
            positive = inner.sign > 0 if isinstance(inner, _Huge) else self.leading(inner)[1].ball > 0
            if isinstance(expr, sp.atan):
                return self.expansion((sp.pi / 2 if positive else -sp.pi / 2) - sp.atan(1 / argument))
            if isinstance(expr, sp.tanh):
                decaying = sp.exp(-2 * argument) if positive else sp.exp(2 * argument)
                return self.expansion((1 if positive else -1) * (1 - decaying) / (1 + decaying))
            if isinstance(expr, (sp.sinh, sp.cosh)):
                return self.expansion(expr.rewrite(sp.exp, deep=False))
            if isinstance(expr, (sp.sin, sp.cos)):  # without a limit, and bounded
                return _Expansion({}, Fraction(0), arb(0, 1))
            raise Undecided
        if isinstance(expr, (sp.asin, sp.acos)) and not abs(limit.ball) < 1:
            # Next to 1 and -1 by the half of the angle, whose sine has an expansion.
            side = 1 if limit.ball > 0 else -1
            angle = 2 * sp.asin(sp.sqrt((1 - side * argument) / 2))
            if isinstance(expr, sp.asin):
                return self.expansion(side * (sp.pi / 2 - angle))
            return self.expansion(angle if side == 1 else sp.pi - angle)
        if isinstance(expr, (sp.tan, sp.cot, sp.sec, sp.csc)):
            sine, cosine = sp.sin(argument), sp.cos(argument)
            above = {sp.tan: sine, sp.cot: cosine}.get(expr.func, sp.S.One)
            below = cosine if expr.func in (sp.tan, sp.sec) else sine
            return self.times(self.expansion(above), self.raised(self.expansion(below), Fraction(-1)))
        try:
            return self.composed(expr.func(t), inner)
        except ValueError:  # a function that has no enclosure
            raise Undecided from None


@functools.lru_cache(maxsize=4 * len(TRIES))
def _local(width: int, order: int) -> _Local:
    """Shared by all expressions, which have parts in common."""
    return _Local(arb(2) ** -width, order)


def _is_some(f: _Expansion) -> bool:
    return bool(f.terms) or f.order is not None


def _value_of(function: sp.Expr, origin: _Number, order: int, ball: arb | None = None) -> _Number:
    """A Taylor coefficient at a number."""

    def exact() -> sp.Expr:
        return sp.diff(function, t, order).subs(t, origin.whole()) / sp.factorial(order)

    if ball is None:
        ball = enclosure.enclosed(function)(origin.ball)
    return _Number(ball, exact, (1 + order) * origin.parts)
