"""From a sympy expression in time to a function of arrays that is accurate on all of [0, 1], both ends included.

An expression may be exact and its evaluation worthless: 1 - exp(u) loses every digit where u is small, cos(pi t / 2)
half of them next to t = 1, and sin(x)/x is NaN at 0. So an expression is compiled in the first of these forms whose
error, against rigorous values at times all over (0, 1), is within ``TOLERANCE``:

    as a function of t,
    as a function of 1 - t (exact in floating point on [1/2, 1]),
    of what a path is made of, each accurate (``composition``),
    of F(g(t)), as a function of g and of 1 - g (``nesting``),
    with logarithms opened, in its normal form, with exponentials that decay, and of its own parts, each accurate;

or in one of them on [0, 1/2] and another on (1/2, 1]. If none is accurate, polynomials (``patches``) replace the best
of them wherever it is not. If its value at an end is not the limit, the limit is used instead.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final

import numpy as np
import sympy as sp
import torch
from flint import arb
from sympy.functions.elementary.hyperbolic import HyperbolicFunction

from interpolants import enclosure
from interpolants.composition import How, Part
from interpolants.effort import operations
from interpolants.expansion import around
from interpolants.expression import exchanged, t
from interpolants.limits import limit
from interpolants.nesting import INNER, REST, nested, of_inner
from interpolants.patches import Patch, fitted, patched
from interpolants.pieces import NotFoundError, pieces, resolved
from interpolants.printer import ArrayFunction, lambdified, namespace, of_symbols, quiet, to_float, u
from interpolants.simplify import MAX_OPERATIONS, decaying, simplified
from interpolants.stable import stable

TOLERANCE: Final = 4.0
"""Units in the last place of float64: the error of a form that is good enough."""
OF_PARTS: Final = 16.0
"""The same, for what is made of functions that are each as accurate."""
LOOSE: Final = 4096.0
"""The same, where an exponent of hundreds makes the function as sensitive to the rounding of t:
1e-12 in relative terms, which float32 does not see.
"""
MOST_EXPLAINED: Final = 1024.0
"""Units in the last place, up to which an error may be that of an exponent."""
STAGES: Final = ((TOLERANCE, 64), (64.0, 160), (LOOSE, 160), (1e300, 160))
"""Tolerances, tried in turn, each with the most polynomials that it may take. The last is for poles inside (0, 1), next
to which the rounding of t decides the digits.
"""
FEW: Final = 8
"""Polynomials that what is made of accurate parts may take before other forms are tried."""
_DEEPEST, _NARROWEST = 2.0**-140, 2.0**-30
_EXCESS: Final = 1e-12
_ENOUGH: Final = 80  # bits of a limit
_SLOPE_BITS: Final = 400
_SHORT: Final = 1000  # the largest denominator of a fraction of few digits, and the steps to round others to
_BESIDE: Final = 10  # 2^-10 from a pole a function is some 1,000 times as wrong as t
_STEP: Final = 2.0**-20
_RUN, _ASIDE = 8, 2**24  # neighbouring floats, and how many floats from the first the slope is seen
_NOISIEST: Final = 4
_HALVINGS: Final = 16
_LARGEST: Final = 1.7e308
_MOST_DIGITS: Final = 700.0  # |log x| of a float x that has all its digits
MAX_TURNS: Final = 8
"""Places inside an expression about which more times are looked at."""
_PROBES: Final = (0.03125, 0.375, 0.6875)


@dataclass(frozen=True)
class Form:
    """A way to evaluate: ``whole``, an expression in t and u = 1 - t. Or a function of ``parts`` that have each a form
    of their own, which ``whole`` then is of the symbols that stand for them. Or one form up to t = 1/2 and another from
    there; with parts g and 1 - g, one of g up to g = 1/2, and another of 1 - g. Polynomials where it is not accurate.
    """

    whole: sp.Expr
    parts: tuple[tuple[sp.Symbol, Form], ...] = ()
    halves: tuple[Form, ...] = ()
    patches: tuple[Patch, ...] = ()


@dataclass(frozen=True)
class End:
    """An end where a form is not the limit: ``excess`` too large, by rounding, or worthless. The value is then
    limit + slope * distance, so that the derivative there is right too.
    """

    time: int
    limit: float
    excess: float = 0.0
    slope: float = 0.0


@functools.cache
def compiled(expr: sp.Expr, backend: str = "torch", made: How | None = None) -> ArrayFunction:
    """A function from an array of times in [0, 1] to the values of ``expr``, limits at the ends, of equal shape.

    Args:
        expr: Free of symbols but ``t``; a Piecewise has conditions t <= c.
        backend: "torch", "numpy" or "jax".
        made: How the expression may be computed from alpha, sigma and what else belongs to a path.
    """
    expr = resolved(expr)
    if isinstance(expr, sp.Piecewise):
        return _piecewise(expr, backend, made)
    return _compiled(expr, 0.0, 1.0, backend, None if made is None or made.has_kinks else made)


@functools.cache
def _compiled(expr: sp.Expr, low: float, high: float, backend: str, made: How | None = None) -> ArrayFunction:
    """On [low, high] alone."""
    if not expr.has(t):
        return lambdified(expr, backend)
    form = _most_accurate_form(expr, low, high, made)
    function = _assemble(form, backend)
    wrong_ends = tuple(_wrong_ends(expr, form, [end for end in (0, 1) if end in (low, high)], made))
    return _with_limits(function, wrong_ends, backend) if wrong_ends else function


def sampled(expr: sp.Expr, times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``expr`` at ``times`` inside (0, 1), in plain float64: to look at an expression of which nothing is known yet."""
    values: np.ndarray[Any, Any] = lambdified(stable(expr), "numpy")(times)
    return values


def error(expr: sp.Expr, dtype: str = "float64", times: int = 2000, made: How | None = None) -> float:
    """The largest error of the compiled function, in units in the last place, at that many times all over (0, 1).

    A third of the times is spread over the logarithm of the distance to either end; there are more about each zero.
    """
    total, expr = 0.0, resolved(expr)
    function, kind = compiled(expr, "numpy", made), np.dtype(dtype).type
    for part, low, high in _parts(expr):
        reference = _Reference(part, low, high, times)
        at = np.unique(reference.times.astype(kind))
        at = at[(at > 0) & (at < 1)].astype(np.float64)
        with np.errstate(over="ignore"):
            got = _values(function, at).astype(kind)
        total = max(total, float(reference.errors(got, at).max(initial=0.0)))
    return total


# A form as a function of arrays


def _assemble(form: Form, backend: str) -> ArrayFunction:
    if form.parts:
        function = _of_function(form, backend) if form.halves else _of_parts(form, backend)
        return patched(function, form.patches, backend)
    if form.halves:  # neither sees the other's times, so that no derivative is NaN
        functions, (first, last) = namespace(backend), (_assemble(half, backend) for half in form.halves)
        joined = _joined(functions["where"], functions["clip"], 0.5, first, last)
        return patched(joined, form.patches, backend)
    return patched(lambdified(form.whole, backend), form.patches, backend)


def _of_parts(form: Form, backend: str) -> ArrayFunction:
    names, functions = zip(*((name, _assemble(part, backend)) for name, part in form.parts), strict=True)
    whole = of_symbols(form.whole, names, backend)
    return quiet(lambda time: whole(time, *(function(time) for function in functions)), backend)


def _of_function(form: Form, backend: str) -> ArrayFunction:
    """F(g): neither half sees more than 1/2."""
    where, clip = (namespace(backend)[name] for name in ("where", "clip"))
    (g, rest), (first, last) = ([_assemble(f, backend) for f in fs] for fs in (dict(form.parts).values(), form.halves))

    def function(time: Any) -> Any:
        at = g(time)
        return where(at <= 0.5, first(clip(at, 0.0, 0.5)), last(clip(rest(time), 0.0, 0.5)))

    return quiet(function, backend)


def _with_limits(function: ArrayFunction, ends: tuple[End, ...], backend: str) -> ArrayFunction:
    where = namespace(backend)["where"]

    def with_limits(time: Any) -> Any:
        inside = time
        for end in ends:  # the formula never sees an end where it fails, so that its derivative is not NaN there
            if not end.excess:
                inside = where(time == end.time, 0.5, inside)
        value = function(inside)
        for end in ends:
            if end.excess:
                at_end = value - end.excess
            else:
                at_end = end.limit + end.slope * (time - end.time) if end.slope else end.limit
            value = where(time == end.time, at_end, value)
        return value

    return with_limits


def _parts(expr: sp.Expr) -> list[tuple[sp.Expr, float, float]]:
    """The pieces of a Piecewise, each with the times from which and up to which it holds."""
    if not isinstance(expr, sp.Piecewise):
        return [(expr, 0.0, 1.0)]
    parts, low = [], 0.0
    for piece, condition in expr.args:
        if condition == sp.true:
            high = 1.0
        elif isinstance(condition, sp.Le) and condition.lhs == t and condition.rhs.is_number:
            high = float(condition.rhs)
        else:
            raise ValueError(f"compiled: a Piecewise must have conditions t <= c, got {condition}.")
        parts.append((piece, low, high))
        low = high
    return parts


def _piecewise(expr: sp.Piecewise, backend: str, made: How | None) -> ArrayFunction:
    functions = namespace(backend)
    *parts, last = _smooth_parts(expr, made)
    function = _compiled(*last[:3], backend, last[3])
    for piece, low, high, of_piece in reversed(parts):
        before = _compiled(piece, low, high, backend, of_piece)
        function = _joined(functions["where"], functions["clip"], high, before, function)
    return function


def _smooth_parts(expr: sp.Piecewise, made: How | None) -> list[tuple[sp.Expr, float, float, How | None]]:
    """Pieces, from where to where, and how each is made of smooth functions."""
    plain: list[tuple[sp.Expr, float, float, How | None]] = [(*part, None) for part in _parts(expr)]
    if made is None:
        return plain
    try:
        found = pieces(expr, *made.ingredients)
    except NotFoundError:
        return plain
    return [(piece, float(low), float(high), made.of(ingredients)) for piece, *ingredients, low, high in found]


def _joined(
    where: Callable[..., Any], clip: Callable[..., Any], at: float, before: ArrayFunction, after: ArrayFunction
) -> ArrayFunction:
    return lambda time: where(time <= at, before(clip(time, None, at)), after(clip(time, at, None)))


# The choice of a form


@dataclass
class _Reference:
    """The exact values at times all over a part of (0, 1), by which every form is measured."""

    expr: sp.Expr
    low: float
    high: float
    count: int = 96
    made: How | None = None
    times: np.ndarray[Any, Any] = field(init=False)
    zeros: list[sp.Rational] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        n = self.count // 3
        steps = np.concatenate([np.geomspace(1e-40, 1e-3, n // 2), np.geomspace(1e-3, 0.5, n)[1:]])
        last = 1 - np.geomspace(2.0**-52, 0.5, n)
        shift = (math.sqrt(5) - 1) / 2 / n  # so that the times are no round numbers
        between = self.low + (self.high - self.low) * (np.linspace(0.0, 1.0, n)[:-1] + shift)
        times = np.concatenate([steps, between, last])
        self.times = _inside(times, self.low, self.high)
        ingredients = (self.expr,) if self.made is None else self.made.ingredients
        for place in itertools.chain.from_iterable(map(_turns, ingredients)):
            self._add_beside(place)
        self._find_zeros()

    def _add_beside(self, place: float) -> None:
        """Times on both sides, each nearer to the place than the ones before."""
        distances = 2.0 ** -np.arange(3.0, 50.0, 3.0)
        times = np.concatenate([self.times, place - distances, place + distances])
        self.times = _inside(times, self.low, self.high)

    def exact(self, time: float | arb) -> arb:
        """A ball about the value, to some 100 bits."""
        return _exact(self.expr, self.low, self.high, self.made)(time)

    def nearest(self, end: int, distance: float) -> float:
        """The float that is nearest to the value."""
        return float(self.exact(distance if end == 0 else 1 - distance))

    def beside_pole(self) -> np.ndarray[Any, Any]:
        """Which of the times are next to a change of sign that is no zero."""
        poles = []
        for place in map(float, self.zeros):
            nearer, farther = (abs(self.exact(place + 2.0**-k)) for k in (20, _BESIDE))
            if nearer > farther:
                poles.append(place)
        distances = [np.abs(self.times - pole) for pole in poles]
        return np.min(distances, axis=0, initial=1.0) < 2.0**-_BESIDE if poles else np.zeros(len(self.times), bool)

    def measure(self, function: ArrayFunction) -> np.ndarray[Any, Any]:
        """The errors at the times, to which are added a few at which the function alone is not finite, or, if it is
        accurate so far, at which it is noisy or leaves the floats.
        """
        dense = _dense(self.low, self.high)
        values = _values(function, dense)
        bad = dense[~np.isfinite(values)]
        self._add(bad[:: max(1, len(bad) // 8)])
        errors = self.excess(_values(function, self.times), self.times)
        if errors.max(initial=0.0) <= OF_PARTS:
            suspect = np.concatenate([_noisy(function, dense[::4]), _at_limits_of_floats(function, dense, values)])
            if self._add(suspect):
                errors = self.excess(_values(function, self.times), self.times)
        return errors

    def _add(self, times: np.ndarray[Any, Any]) -> bool:
        """Whether a float is near the exact value at any of the times, which then are looked at too."""
        finite = [x for x in times.tolist() if self.exact(x).is_finite() and abs(self.exact(x)) < _LARGEST]
        self.times = np.unique(np.concatenate([self.times, finite]))
        return bool(finite)

    def _find_zeros(self) -> None:
        around = [x for x in (self.low - _STEP, self.high + _STEP) if 0 < x < 1]  # a kink is where a function is zero
        times = sorted([*around, *self.times.tolist()])
        found = [(x, enclosure.sign_of(self.exact(x))) for x in times if self.exact(x).is_finite()]
        signed = [(sp.Rational(*x.as_integer_ratio()), sign) for x, sign in found if sign]
        for (a, before), (b, after) in itertools.pairwise(signed):
            if before != after:
                self.zeros.append(enclosure.refined(self.expr, a, b, before))
        for zero in self.zeros:
            self._add_beside(float(zero))

    def errors(self, values: np.ndarray[Any, Any], times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """In units in the last place of their dtype."""
        return np.array([_in_ulp(got, self.exact(x)) for got, x in zip(values, times.tolist(), strict=True)])

    def excess(self, values: np.ndarray[Any, Any], times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The errors less what a rounding of the distance to the nearer end would do: where an exponent is of hundreds,
        one of the exponent does as much.
        """
        found = self.errors(values, times)
        for i in np.flatnonzero((found > TOLERANCE) & (found < MOST_EXPLAINED)):
            found[i] = max(found[i] - self.sensitivity(float(times[i])), 0.0)
        return found

    def sensitivity(self, time: float) -> float:
        """s f'(s) / f(s), s the distance to the nearer end; 0 next to a zero inside (0, 1)."""
        end, s = (0.0, time) if time <= 0.5 else (1.0, 1.0 - time)
        if any(abs(float(zero) - time) < s / 8 for zero in self.zeros):
            return 0.0
        other = abs(end - s * (1 - _STEP))
        change = self.exact(other) / self.exact(time) - 1
        moved = abs(abs(end - other) / s - 1)
        return float(abs(change)) / moved if change.is_finite() and moved else 0.0


@functools.lru_cache(maxsize=512)
def _turns(expr: sp.Expr) -> list[float]:
    """Where sums in the expression are zero: about the middle of a bump exp(-k (t - c)^2), however narrow, say."""
    found, times = set(), _dense(0.0, 1.0)
    for part in {part for part in sp.preorder_traversal(expr) if part.is_Add and part.has(t)}:
        at = functools.partial(_values, lambdified(part, "numpy"))
        signs = np.sign(at(times))
        changes = np.flatnonzero(signs[:-1] * signs[1:] < 0)
        low, high, before = times[changes], times[changes + 1], signs[changes]
        for _ in range(64 if len(changes) else 0):
            middle = (low + high) / 2
            is_before = np.sign(at(middle)) == before
            low, high = np.where(is_before, middle, low), np.where(is_before, high, middle)
        found.update(low.tolist())
    return sorted(found)[:MAX_TURNS]


@functools.lru_cache(maxsize=512)
def _exact(expr: sp.Expr, low: float, high: float, made: How | None) -> Callable[[float | arb], arb]:
    """A function from a time to a ball about the value, made of the values of parts where these are enough."""
    known: dict[float, arb] = {}
    ways = [] if made is None else [_exact_as_made(*way, low, high) for way in made.ways]

    def exact(time: float | arb) -> arb:
        if isinstance(time, arb):
            return new(time)
        if time not in known:
            ball = new(time)
            with enclosure.precision(2 * enclosure.ACCURATE):  # it may have thousands of bits
                known[time] = ball + 0
        return known[time]

    def new(time: float | arb) -> arb:
        for i, as_made in enumerate(ways):
            ball = as_made(time)
            if ball.is_finite() and ball.rel_accuracy_bits() >= enclosure.ACCURATE:
                ways.insert(0, ways.pop(i))  # the next time is near this one
                return ball
        return enclosure.value(expr, time)

    for as_made, share in itertools.product(ways, _PROBES):
        time = low + (high - low) * share
        if (ball := as_made(time)).is_finite() and not ball.overlaps(enclosure.value(expr, time)):
            raise ArithmeticError(f"compiled: {expr} is not what it is made of, at t = {time}.")
    return exact


def _exact_as_made(whole: sp.Expr, parts: Iterable[Part], low: float, high: float) -> Callable[[float | arb], arb]:
    exact = [_exact(part, low, high, of_part) for _, part, of_part in parts]
    with enclosure.precision(2 * enclosure.ACCURATE):
        function = enclosure.enclosed_of(whole, tuple(name for name, _, _ in parts))

    def as_made(time: float | arb) -> arb:
        values = [part(time) for part in exact]
        with enclosure.precision(2 * enclosure.ACCURATE):
            return function(arb(time), *values)

    return as_made


def _noisy(function: ArrayFunction, times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Triples of neighbouring floats, next to a few of the times, whose values are so far from a line that one of them
    is wrong by half of ``OF_PARTS``, beyond what a rounding of the time would do: it takes no exact value to see that.
    """
    run, distance = times + np.outer([*range(_RUN), _ASIDE], np.spacing(times)), np.minimum(times, 1 - times)
    *values, aside = _values(function, run.reshape(-1)).reshape(run.shape)
    with np.errstate(all="ignore"):
        by_time = np.abs(aside / values[0] - 1) * distance / (run[-1] - times)
        unit = np.spacing(np.maximum(np.abs(values[0]), np.finfo(float).tiny))
        noise = np.abs(np.diff(values, 2, axis=0)) / (4 * unit) - by_time
    noise = np.where(np.isfinite(noise) & (distance > _STEP), noise, 0.0)  # next to an end neighbours are far apart
    places = np.argsort(noise.max(axis=0))[-_NOISIEST:]
    first = noise[:, places].argmax(axis=0)
    is_noisy = noise[first, places] > OF_PARTS / 2
    return np.concatenate([run[first + k, places][is_noisy] for k in range(3)])


def _at_limits_of_floats(
    function: ArrayFunction, times: np.ndarray[Any, Any], values: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """The last times at which the function is a number but 0, and the first at which it is not: what it is made of may
    have left the floats, or lost its digits, before it does.
    """
    is_lost = _is_lost(values)
    changes = np.flatnonzero(is_lost[1:] != is_lost[:-1])[:MAX_TURNS]
    before, after, was_lost = times[changes], times[changes + 1], is_lost[changes]
    for _ in range(_HALVINGS if len(changes) else 0):
        middle = (before + after) / 2
        is_before = _is_lost(_values(function, middle)) == was_lost
        before, after = np.where(is_before, middle, before), np.where(is_before, after, middle)
    return np.concatenate([before, after])


def _is_lost(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Where values are 0, infinite or NaN."""
    lost: np.ndarray[Any, Any] = (values == 0) | ~np.isfinite(values)
    return lost


@functools.cache
def _dense(low: float, high: float) -> np.ndarray[Any, Any]:
    """Times between the ends of which a third is spread over the logarithm of the distance to either end."""
    steps = np.geomspace(1e-18, 0.5, 700)
    times = np.concatenate([steps, np.linspace(low, high, 601)[1:-1], 1 - steps[steps > 2.0**-52]])
    return _inside(times, low, high)


def _inside(times: np.ndarray[Any, Any], low: float, high: float) -> np.ndarray[Any, Any]:
    return np.unique(times[(times > low) & (times < high) & (times < 1)])


def _in_ulp(got: Any, exact: arb) -> float:
    if not exact.is_finite():
        return 0.0  # at a pole, whatever there is
    with np.errstate(over="ignore"):
        nearest = type(got)(float(exact))
    if not (np.isfinite(got) and np.isfinite(nearest)):
        return 0.0 if got == nearest else math.inf
    if exact.contains(0):
        return 0.0 if abs(got) < 1e-16 else math.inf
    unit = np.spacing(max(abs(nearest), np.finfo(type(got)).tiny))
    return float(abs(arb(float(got)) - exact) / float(unit))


_NO_DIGIT: Final = 1e300
"""Errors beyond it, such as that of 0 or infinity for a number, count as this one."""


@functools.cache
def _most_accurate_form(expr: sp.Expr, low: float = 0.0, high: float = 1.0, made: How | None = None) -> Form:
    reference = _Reference(expr, low, high, made=made)
    best, least = [Form(expr), Form(expr)], [math.inf, math.inf]
    for form in _forms(expr, low, high, made):
        errors = reference.measure(_assemble(form, "numpy"))
        halves = [reference.times <= 0.5, reference.times > 0.5]
        tolerance = OF_PARTS if form.parts and made is not None else TOLERANCE
        accurate = [bool(errors[half].max(initial=0.0) <= tolerance) for half in halves]
        if all(accurate):
            return form
        if tolerance == OF_PARTS and (patches := _within(TOLERANCE, FEW, form, reference)) is not None:
            return replace(form, patches=patches)  # about a zero of what is made of accurate parts
        for i, half in enumerate(halves):
            lost = float(np.log1p(np.minimum(errors[half], _NO_DIGIT)).sum())  # digits, over all times
            if least[i] > 0 and (accurate[i] or lost < 0.8 * least[i]):
                best[i], least[i] = form, 0.0 if accurate[i] else lost
        if least == [0.0, 0.0]:
            return Form(expr, halves=tuple(best))
    form = best[0] if best[0] == best[1] else Form(expr, halves=tuple(best))
    return replace(form, patches=_patches(form, reference))


def _values(function: ArrayFunction, times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.broadcast_to(function(times), times.shape)


def _forms(expr: sp.Expr, low: float, high: float, made: How | None) -> Iterator[Form]:
    def composed() -> Iterator[Form]:
        for whole, parts in () if made is None else made.ways:
            first = None
            for form in _of_accurate(whole, parts, low, high):
                first = first or form
                yield form
            if first is not None and not _leaves_floats(first, low, high):
                return  # another way would lose no fewer digits

    if operations(expr) > MAX_OPERATIONS and (of_parts := [*composed(), *_nested(expr, low, high)]):
        yield from of_parts
        return
    around_data = around(expr, sp.S.One, sp.S.Zero)

    def in_both(form: Callable[[sp.Expr], sp.Expr]) -> Iterator[Form]:
        yield Form(stable(form(expr)))
        yield Form(exchanged(stable(form(around_data)), {t: u}))

    yield from in_both(lambda e: e)
    yield from composed()
    yield from _nested(expr, low, high)
    if expr.has(sp.log):  # a power of a small number may underflow, its logarithm does not
        yield from in_both(lambda e: sp.expand_log(e, force=True))
    yield Form(exchanged(stable(simplified(around_data)), {t: u}))
    if expr.has(sp.exp, HyperbolicFunction):
        yield from in_both(decaying)
    for kinds in ((sp.log,), (sp.log, sp.Mul, sp.Pow)):
        yield from _in_parts(expr, kinds, low, high)
    yield from _of_powers(expr, low, high)


def _of_powers(expr: sp.Expr, low: float, high: float) -> Iterator[Form]:
    """The logarithm of s^p f(s) as p log(s) + log f(s): a power that underflows has a logarithm that does not."""
    number, logarithm = expr.as_coeff_Mul()
    if not isinstance(logarithm, sp.log):
        return
    rest, logs = logarithm.args[0], sp.S.Zero
    exact = _exact(rest, low, high, None)
    for end, distance in ((0, t), (1, 1 - t)):
        if end in (low, high) and (powers := _powers(exact, end)):
            rest, logs = rest / distance ** powers[0][0], logs + powers[0][0] * sp.log(distance)
    if logs != 0:
        name = sp.Symbol("p0", positive=True)
        yield from _of_accurate(number * stable(logs + sp.log(name)), [(name, rest, None)], low, high)


def _nested(expr: sp.Expr, low: float, high: float) -> Iterator[Form]:
    """F(g), as a function of g and as one of 1 - g, which are accurate each."""
    if (composed := nested(expr)) is None:
        return
    function, g = composed
    for form in (stable(function), exchanged(stable(around(function, sp.S.One, sp.S.Zero)), {t: u})):
        whole = of_inner(form)
        parts = [(name, part, None) for name, part in ((INNER, g), (REST, 1 - g)) if whole.has(name)]
        if not any(part == expr for _, part, _ in parts):
            yield from _of_accurate(whole, parts, low, high)
    if any(part.is_Add and part.has(t) for part in sp.preorder_traversal(function)):  # in which digits may cancel
        yield from _of_two(function, g, low, high)


def _of_two(function: sp.Expr, g: sp.Expr, low: float, high: float) -> Iterator[Form]:
    """F(g), as a form of F and forms of g and 1 - g, scaled so that g goes from 0 to 1."""
    with suppress(ArithmeticError):
        ends = [_value_at(g, time) for time in (low, high)]
        if not all(end.is_finite for end in ends) or ends[0] == ends[1]:
            return
        start, stop = (_short(end, end - other) for end, other in (ends, ends[::-1]))
        scaled = [sp.together((g - start) / (stop - start)), sp.together((stop - g) / (stop - start))]
        outer = [exchanged(function, {t: scale}) for scale in (start + (stop - start) * t, stop - (stop - start) * t)]
        inner = tuple(_most_accurate_form(part, low, high) for part in scaled)
        halves = tuple(_most_accurate_form(half, 0.0, 0.5) for half in outer)
        yield Form(function, tuple(zip((INNER, REST), inner, strict=True)), halves)


def _value_at(expr: sp.Expr, time: float) -> sp.Expr:
    """A rational number, or an infinity."""
    exact = limit(expr, int(time)) if time in (0.0, 1.0) else expr.subs(t, sp.Rational(time))
    return exact if exact.is_Rational else sp.Rational(_nearest(exact))


def _short(number: sp.Rational, outwards: sp.Rational) -> sp.Rational:
    """A fraction of few digits, the number or one a little outwards, with which all is quicker."""
    if number.q <= _SHORT:
        return number
    step = abs(outwards) / _SHORT
    step = 2 ** sp.floor(sp.log(step, 2).evalf())
    return (sp.floor if outwards < 0 else sp.ceiling)(number / step) * step


def _of_accurate(whole: sp.Expr, parts: Iterable[Part], low: float, high: float) -> Iterator[Form]:
    """A form made of parts, if each of these has an accurate one."""
    with suppress(ArithmeticError):
        form = Form(whole, tuple((name, _most_accurate_form(part, low, high, how)) for name, part, how in parts))
        yield form
        if (of_ratios := _of_ratios(form, _dense(low, high))) is not None:
            yield of_ratios
        if (under_root := _under_root(whole)) != whole:
            yield replace(form, whole=under_root)


def _under_root(product: sp.Expr) -> sp.Expr:
    """f / sqrt(g) as 1 / sqrt(g / f^2), where f may be so large that f^2 is infinite."""
    roots = [f for f in sp.Mul.make_args(product) if f.is_Pow and f.base.is_Add and f.exp == sp.Rational(-1, 2)]
    if len(roots) != 1 or sp.denom(product / roots[0]) != 1:
        return product
    number, above = (product / roots[0]).as_coeff_Mul()
    return number / sp.sqrt(sp.Add(*(term / above**2 for term in roots[0].base.args)))


def _leaves_floats(form: Form, low: float, high: float) -> bool:
    """Whether a part is 0 or infinite somewhere."""
    values = [_values(_assemble(part, "numpy"), _dense(low, high)) for _, part in form.parts]
    return any(_is_lost(value).any() for value in values)


def _of_ratios(form: Form, times: np.ndarray[Any, Any]) -> Form | None:
    """A product of parts as one of ratios of parts of like size; None where no product of some of them is outside of
    what floats with all their digits can be, and that of all is not.
    """
    number, product = form.whole.as_coeff_Mul()
    parts, powers = dict(form.parts), [factor.as_base_exp() for factor in sp.Mul.make_args(product)]
    if not all(base in parts and power.is_Integer for base, power in powers):
        return None
    with np.errstate(all="ignore"):
        sizes = {name: np.log(np.abs(_values(_assemble(part, "numpy"), times))) for name, part in form.parts}
        above, below = (sum(max(sign * int(n), 0) * sizes[base] for base, n in powers) for sign in (1, -1))
        has_digits = [np.abs(size) < _MOST_DIGITS for size in (above - below, above, below)]
        is_lost = _is_lost(_values(_assemble(form, "numpy"), times))
        lost = has_digits[0] & (is_lost | ~has_digits[1] | ~has_digits[2])
    if not lost.any():
        return None
    at = int(np.argmax(lost))
    above, below = ([base for base, power in powers for _ in range(int(sign * power))] for sign in (1, -1))
    missing = [sp.S.One] * abs(len(above) - len(below))
    above, below = (
        sorted(side, key=lambda name: float(sizes[name][at]) if name in sizes else 0.0)
        for side in ((above + missing, below) if len(above) < len(below) else (above, below + missing))
    )
    ratios = []
    for i, (over, under) in enumerate(zip(above, below, strict=True)):
        used = tuple((name, parts[name]) for name in (over, under) if name in parts)
        ratios.append((sp.Symbol(f"r{i}", real=True), Form(over / under, used)))
    return Form(number * sp.Mul(*(name for name, _ in ratios)), tuple(ratios))


def _in_parts(expr: sp.Expr, kinds: tuple[type[sp.Expr], ...], low: float, high: float) -> Iterator[Form]:
    """A logarithm, a product or a power of parts that have each an accurate form of their own."""
    parts: dict[sp.Expr, sp.Symbol] = {}

    def part(e: sp.Expr, **known: bool) -> sp.Symbol:
        return parts.setdefault(e, sp.Symbol(f"p{len(parts)}", **known))

    def named(e: sp.Expr, in_logarithm: bool = False) -> sp.Expr:
        if not e.has(t):
            return e
        number, rest = e.as_coeff_Mul()
        if number != 1:
            return number * named(rest, in_logarithm)
        if isinstance(e, sp.log) and not in_logarithm:
            return sp.log(named(e.args[0], True))
        if isinstance(e, sp.exp) and in_logarithm and sp.Mul in kinds:
            return sp.exp(part(e.args[0], real=True))
        if isinstance(e, kinds) and not isinstance(e, sp.log) and not (e.is_Pow and not e.exp.is_Rational):
            return e.func(*(named(argument, in_logarithm) for argument in e.args))
        return part(e, positive=True)

    whole = named(expr)
    if whole.as_coeff_Mul()[1] in parts.values():
        return
    for form in _of_accurate(whole, [(name, part, None) for part, name in parts.items()], low, high):
        yield form
        if sp.Mul in kinds and expr.has(sp.log) and form.whole == whole:
            yield replace(form, whole=sp.expand_log(whole))


def _patches(form: Form, reference: _Reference) -> tuple[Patch, ...]:
    """Polynomials for the cells in which the form is not accurate.

    Raises:
        ArithmeticError: If these are too many, and the form is not finite in some.
    """
    for tolerance, most in STAGES:
        if (patches := _within(tolerance, most, form, reference)) is not None:
            return patches
    raise ArithmeticError(f"compiled: no accurate evaluation of {reference.expr} was found.")


def _within(tolerance: float, most: int, form: Form, reference: _Reference) -> tuple[Patch, ...] | None:
    """Polynomials for the cells in which the form misses the tolerance; None if it takes more than ``most``."""
    found = list(itertools.islice(_patches_within(tolerance, form, reference, 2 * most), most + 1))
    if len(found) > most or None in found:
        return None
    patches = tuple(patch for patch in found if patch is not None)
    errors = reference.measure(_assemble(replace(form, patches=patches), "numpy"))
    return patches if errors[~reference.beside_pole()].max(initial=0.0) <= LOOSE else None


def _patches_within(tolerance: float, form: Form, reference: _Reference, most: int) -> Iterator[Patch | None]:
    """The patches; a None ends them where a cell has no patch, or after ``most`` tries."""
    plain, tries = _assemble(form, "numpy"), itertools.count()
    for end in (0, 1):
        bounds = _in_distance(end, reference.low, reference.high)
        cells = [(0.0, 0.5)]
        if bounds[0] == 0 and (beyond := _beyond_floats(end, reference)) > 0:
            cells = [(beyond, 0.5)]
            times, constant = _times_in(end, 0.0, beyond, reference), reference.nearest(end, beyond)
            is_wrong = reference.excess(_values(plain, times), times).max(initial=0.0) > tolerance
            if is_wrong and not math.isnan(constant):
                yield Patch(end, 0.0, beyond, (0.0, 0.0), 1, (0.0, 0.0), 1.0, (constant,))
        while cells:
            low, high = cells.pop()
            if high <= bounds[0] or low >= bounds[1]:
                continue
            times = _times_in(end, low, high, reference)
            if reference.excess(_values(plain, times), times).max(initial=0.0) <= tolerance:
                continue
            if next(tries) >= most:
                yield None
                return
            patch = _accurate_patch(end, low, high, times, reference, min(tolerance, LOOSE))
            if patch is not None:
                yield patch
                continue
            middle = high / 2 if low == 0 else (low + high) / 2
            if middle < _DEEPEST or high - low < _NARROWEST * high:
                yield None
                return
            cells += [(low, middle), (middle, high)]


def _beyond_floats(end: int, reference: _Reference) -> float:
    """The distance from an end up to which the value is smaller or larger than all floats, or no ball encloses it. A
    form may be 0 times infinity there.
    """
    if math.isfinite(value := reference.nearest(end, _DEEPEST if end == 0 else 2.0**-52)) and value != 0:
        return 0.0
    low, high = 0.0, 0.5
    while high - low > _NARROWEST * high:
        middle = (low + high) / 2
        value = reference.nearest(end, middle)
        low, high = (low, middle) if math.isfinite(value) and value != 0 else (middle, high)
    return low


def _in_distance(end: int, low: float, high: float) -> tuple[float, float]:
    return (low, high) if end == 0 else (1 - high, 1 - low)


def _times_in(end: int, low: float, high: float, reference: _Reference) -> np.ndarray[Any, Any]:
    """Times in a cell at which an evaluation is measured: even ones, and those of the reference."""
    first, last = _in_distance(end, reference.low, reference.high)
    distances = np.linspace(max(low, first), min(high, last), 14)[1:-1] * (1 + 1e-9)
    times = np.concatenate([distances if end == 0 else 1 - distances, reference.times])
    start, stop = _in_distance(end, low, high)
    inside = (times >= start) & (times < stop) & (times > reference.low) & (times < reference.high)
    return np.unique(times[inside])


def _accurate_patch(
    end: int, low: float, high: float, times: np.ndarray[Any, Any], reference: _Reference, tolerance: float
) -> Patch | None:
    zeros = [zero if end == 0 else 1 - zero for zero in reference.zeros]
    zeros = [zero for zero in zeros if low <= float(zero) <= high]
    if len(zeros) > 1 or (zeros and low == 0):
        return None
    for power, root in [(sp.S.Zero, 1)] if low > 0 else _powers(reference.exact, end):
        for patch in fitted(reference.exact, end, low, high, power, root, zeros[0] if zeros else None):
            values = patched(lambda time: 0 * time + math.nan, [patch], "numpy")(times)
            if reference.excess(values, times).max(initial=0.0) <= tolerance:
                return patch
    return None


MAX_POWER: Final = 10_000


def _powers(exact: Callable[[Any], arb], end: int) -> list[tuple[sp.Rational, int]]:
    """The power of the distance that values next to an end show, and the roots in which what it multiplies may be a
    series; a patch is measured before it is used.
    """
    ks = (24, 32, 40)
    with enclosure.precision(2 * enclosure.ACCURATE):
        near, nearer, *others = (exact(abs(end - arb(2) ** -k)) for k in (100, 132, *ks))
        if not (enclosure.sign_of(near) and enclosure.sign_of(nearer)):
            return []
        shown = abs(near / nearer).log() / arb(2**32).log()
        if not abs(shown) < MAX_POWER:
            return []  # an essential singularity
        power = _simple(shown, 10_000)
        series = [value * arb(2) ** (k * enclosure.constant(power)) for value, k in zip(others, ks, strict=True)]
        differences = [a - b for a, b in itertools.pairwise(series)]
        roots = {1, 2, int(power.q)}
        if all(map(enclosure.sign_of, differences)):
            roots.add(int(_simple(abs(differences[0] / differences[1]).log() / arb(2**8).log(), 12).q))
    return [(power, root) for root in sorted(roots) if root <= 12]


def _simple(number: arb, most: int) -> sp.Rational:
    """The nearest fraction of a small denominator."""
    nearest = Fraction(float(number)).limit_denominator(most)
    return sp.Rational(nearest.numerator, nearest.denominator)


def _wrong_ends(expr: sp.Expr, form: Form, ends: Sequence[int], made: How | None) -> Iterator[End]:
    # In a thread of its own, which no grad mode, transform or tracer of the caller reaches.
    with ThreadPoolExecutor(1) as thread:
        values, slopes = thread.submit(_at_ends, _assemble(form, "torch")).result()
    in_numpy = _values(_assemble(form, "numpy"), np.array([0.0, 1.0])).tolist()
    for time in ends:
        got, slope, limiting = values[time], slopes[time], _nearest(limit(expr, time, made))
        if not math.isclose(in_numpy[time], got, rel_tol=4e-16):  # it is up to the rounding of a library
            got = math.nan
        if math.isclose(got, limiting, rel_tol=4e-16):
            if math.isnan(slope) and (exact := _slope(expr, time)) is not None:
                yield End(time, limiting, slope=exact)
        elif math.isclose(got, limiting, rel_tol=_EXCESS):
            yield End(time, limiting, excess=got - limiting)
        else:
            yield End(time, limiting, slope=_slope(expr, time) or 0.0)


def _nearest(number: sp.Expr) -> float:
    """The float nearest to a number, of which sympy's digits may be wrong where much cancels."""
    ball = arb.nan() if number.is_infinite else enclosure.value(number, sp.S.Zero)
    return float(ball) if ball.is_finite() and ball.rel_accuracy_bits() >= _ENOUGH else to_float(number)


def _at_ends(function: ArrayFunction) -> tuple[list[float], list[float]]:
    """The values at both ends, and the derivatives by autograd."""
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device="cpu", requires_grad=True)
    values = function(ends)
    (slopes,) = torch.autograd.grad(values.sum() + 0 * ends.sum(), ends)  # a form may turn out to be constant
    return values.tolist(), slopes.tolist()


def _slope(expr: sp.Expr, end: int) -> float | None:
    """The derivative at an end, by differences of which each is much nearer to it; None where they do not agree."""
    steps = [sp.Rational(1, 10**k) for k in (10, 20, 40)]
    values = [
        enclosure.value(expr, end + (1 - 2 * end) * step, _SLOPE_BITS, enclosure.PRECISIONS[1:3]) for step in steps
    ]
    with enclosure.precision(2 * _SLOPE_BITS):
        farther, nearer = (
            (1 - 2 * end) * (values[i] - values[i + 1]) / enclosure.point(steps[i] - steps[i + 1]) for i in range(2)
        )
        agree = abs(nearer - farther) <= 1e-6 * (1 + abs(nearer))
    return float(nearer) if nearer.is_finite() and agree else None
