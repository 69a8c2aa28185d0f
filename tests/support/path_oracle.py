"""What is right for a path of texts, by evaluation to many digits: its coefficients, its limits, whether it is a path.

The formulas are typed from the theory, one by one. Shares no code with the engine.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mpmath
from many_digits import AGREEMENT, DIGITS, Jet, OutsideError, UndecidedError, jet_function, settled
from mpmath import mpf, workdps
from random_paths import Case, Feature

PARTS = (-3, -1, -0.3, 0, 0.3, 1, 3)
"""Times around a feature, in its widths."""
DISTANCES = (100, 200, 400)
"""Exponents of ten: how near to an end a limit is looked for."""
LARGEST_END_RATIO = mpf("0.25")


class Values(NamedTuple):
    """A path at one time."""

    time: mpf
    alpha: mpf
    sigma: mpf
    d_alpha: mpf
    d_sigma: mpf
    wronskian: mpf
    w: mpf
    """Of the case; NaN without one, and where it has no value."""


@dataclass(frozen=True)
class Verdict:
    """Whether something holds: True, False, or None where evaluation cannot tell."""

    holds: bool | None
    reason: str


# The coefficients, by hand

Formula = Callable[[Values], mpf]


def _root_of_the_sum(v: Values) -> mpf:
    """2 omega / sqrt(1 + 8 omega^2), omega = sigma W / alpha."""
    product = v.sigma * v.wronskian
    return 2 * product / mpmath.sqrt(v.alpha**2 + 8 * product**2)


NAMED_W: dict[str, Formula] = {
    "constant": lambda v: mpf(2),
    "sigma": lambda v: 2 * v.sigma,
    "linear": lambda v: 2 * (1 - v.time),
    "decreasing": lambda v: (1 + mpmath.cos(mpmath.pi * v.time)) ** 2 / 2,
    "sin_squared": lambda v: 2 * mpmath.sin(mpmath.pi * v.time) ** 2,
    "kl_optimal": lambda v: 2 * v.sigma * v.wronskian / v.alpha,
    "kl_regularized": _root_of_the_sum,
}
CONVERSIONS: dict[tuple[str, str], tuple[Formula, Formula]] = {
    ("velocity", "score"): (
        lambda v: -v.d_alpha / (v.sigma * v.wronskian),
        lambda v: v.alpha / (v.sigma * v.wronskian),
    ),
    ("velocity", "noise"): (lambda v: v.d_alpha / v.wronskian, lambda v: -v.alpha / v.wronskian),
    ("velocity", "data"): (lambda v: -v.d_sigma / v.wronskian, lambda v: v.sigma / v.wronskian),
    ("score", "velocity"): (lambda v: v.d_alpha / v.alpha, lambda v: v.sigma * v.wronskian / v.alpha),
    ("score", "noise"): (lambda v: mpf(0), lambda v: -v.sigma),
    ("score", "data"): (lambda v: 1 / v.alpha, lambda v: v.sigma**2 / v.alpha),
    ("noise", "velocity"): (lambda v: v.d_alpha / v.alpha, lambda v: -v.wronskian / v.alpha),
    ("noise", "score"): (lambda v: mpf(0), lambda v: -1 / v.sigma),
    ("noise", "data"): (lambda v: 1 / v.alpha, lambda v: -v.sigma / v.alpha),
    ("data", "velocity"): (lambda v: v.d_sigma / v.sigma, lambda v: v.wronskian / v.sigma),
    ("data", "score"): (lambda v: -1 / v.sigma**2, lambda v: v.alpha / v.sigma**2),
    ("data", "noise"): (lambda v: 1 / v.sigma, lambda v: -v.alpha / v.sigma),
}  # fmt: skip
FUNCTIONS: dict[str, Formula] = {
    "alpha": lambda v: v.alpha,
    "sigma": lambda v: v.sigma,
    "d_alpha": lambda v: v.d_alpha,
    "d_sigma": lambda v: v.d_sigma,
    "wronskian": lambda v: v.wronskian,
    "log_snr": lambda v: 2 * mpmath.log(v.alpha / v.sigma) if v.alpha * v.sigma > 0 else mpf("nan"),
}


def drift(w: Formula) -> tuple[Formula, Formula]:
    """a and b of v + w/2 score = a x + b v."""
    return (
        lambda v: -w(v) * v.d_alpha / (2 * v.sigma * v.wronskian),
        lambda v: 1 + w(v) * v.alpha / (2 * v.sigma * v.wronskian),
    )


# A path


class PathOracle:
    """The functions of a case, at any time inside (0, 1)."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._alpha = jet_function(case.alpha, case.parameters)
        self._sigma = jet_function(case.sigma, case.parameters)
        self._map = jet_function(case.time_map, case.map_parameters) if case.time_map is not None else None
        self._w = jet_function(case.w) if case.w is not None else None
        self._known: dict[mpf, Values | ArithmeticError] = {}
        self.beside = functools.cache(self._beside)

    def at(self, time: mpf | float) -> Values:
        """All values at a time.

        Raises:
            UndecidedError: If no digits tell.
            OutsideError: If alpha or sigma is not real or not finite.
        """
        time = mpf(time)
        if time not in self._known:
            try:
                self._known[time] = Values(time, *settled(lambda: self._jets(time)), self._w_at(time, DIGITS))
            except ArithmeticError as error:
                self._known[time] = error
        known = self._known[time]
        if isinstance(known, ArithmeticError):
            raise known
        return known

    def _jets(self, time: mpf) -> tuple[mpf, ...]:
        jet: Jet = (time, mpf(1))
        if self._map is not None:
            jet = self._map(jet)
        (a, da), (s, ds) = self._alpha(jet), self._sigma(jet)
        wronskian = da * s - a * ds
        if not (a and s and wronskian):  # zero, or the rest of a cancellation: all precisions would agree on it
            raise UndecidedError("alpha, sigma or W is zero")
        return a, s, da, ds, wronskian

    def _w_at(self, time: mpf, precisions: Sequence[int]) -> mpf:
        if self._w is None:
            return mpf("nan")
        try:
            return settled(lambda: self._w((time, 0))[:1], precisions)[0]
        except ArithmeticError:
            return mpf("nan")

    def _beside(self, end: int) -> list[Values]:
        """The values at three distances from an end, each much nearer to it.

        Raises:
            UndecidedError, OutsideError: As ``at``.
        """
        return [
            Values(time, *settled(lambda time=time: self._jets(time), enough), self._w_at(time, enough))
            for time, enough in _times_beside(end)
        ]

    def map_beside(self, end: int) -> list[mpf]:
        """The time of alpha and sigma, as ``beside``."""
        return [settled(lambda x=x: self._map((x, 0))[:1], enough)[0] for x, enough in _times_beside(end)]

    def feature_times(self) -> Iterator[mpf]:
        """Times around all that is narrow."""
        yield from itertools.chain.from_iterable(map(self._around, self.case.map_features))
        yield from itertools.chain.from_iterable(map(self._around, self.case.w_features))
        for feature in self.case.features:
            for time in self._around(feature):
                if self._map is None:
                    yield time
                else:
                    found = _where(lambda u: self._map((u, mpf(1)))[0], time)
                    if found is not None:
                        yield found

    def _around(self, feature: Feature) -> Iterator[mpf]:
        inner = jet_function(feature.inner)
        place = _where(lambda time: inner((time, mpf(1)))[0], mpf(feature.level))
        if place is None:
            return
        try:
            slope = inner((place, mpf(1)))[1]
        except (ArithmeticError, ZeroDivisionError):
            return
        for part in PARTS:
            time = place + part * feature.width / slope if slope else place
            if 0 < time < 1:
                yield time


def _times_beside(end: int) -> Iterator[tuple[mpf, Sequence[int]]]:
    """Times next to an end, and the precisions in which they are not the end itself."""
    for exponent in DISTANCES:
        with workdps(2 * exponent):
            distance = mpf(10) ** -exponent
            time = distance if end == 0 else 1 - distance
        yield time, [digits for digits in DIGITS if end == 0 or digits > 2 * exponent]


def _where(increasing: Callable[[mpf], mpf], level: mpf) -> mpf | None:
    """The time at which an increasing function has a value, by bisection to 30 digits; None without one."""
    low, high = mpf(0), mpf(1)
    with workdps(50):
        try:
            for _ in range(110):
                middle = low + (high - low) * mpf("0.49")  # a kink may lie in the middle
                low, high = (middle, high) if increasing(middle) < level else (low, middle)
        except (ArithmeticError, TypeError):
            return None
        return (low + high) / 2 if low > 0 and high < 1 else None


# Limits


class Limit(NamedTuple):
    """A limit, infinite or finite, and a bound on its relative error; None where it is not seen.

    ``power`` says that it is approached as fast as a power of the distance.
    """

    value: mpf | None
    power: bool
    error: float = 0.0


def approach(first: mpf, second: mpf, third: mpf) -> Limit:
    """The limit of three values, at distances s, s^2 and s^4 from an end."""
    change, before = abs(third - second), abs(second - first)
    if change <= AGREEMENT * abs(third):
        return Limit(third, True, float(AGREEMENT))
    if 10 * change <= abs(third) and 3 * change <= before:
        return Limit(third, True, float(2 * change * (change / before) ** 2 / abs(third)))
    infinity = mpmath.sign(third) * mpmath.inf
    if not abs(second) / 1000 < abs(third) < 1000 * abs(second):
        if not _is_steady(first, second, third):
            return Limit(None, False)
        return Limit(mpf(0) if abs(third) < abs(second) else infinity, True)
    if first * second > 0 and second * third > 0:
        growth = (third / second, second / first)
        if min(growth) >= 1.5:  # a logarithm grows by 2
            return Limit(infinity, False)
        if max(growth) <= 1 / 1.5:
            return Limit(mpf(0), False)
    return Limit(None, False)


def _is_steady(first: mpf, second: mpf, third: mpf) -> bool:
    """Whether the change from s^2 to s^4 is at least about the square of that from s to s^2, as of a power."""
    if not (first and second and third):
        return not third
    early, late = mpmath.log(abs(second / first)), mpmath.log(abs(third / second))
    return bool(late / early > 1.5) if early else False


# Verdicts


def times_of_verdict(oracle: PathOracle, near: int, between: int) -> list[mpf]:
    """Times in (0, 1): ``near`` next to each end, from 1e-15, ``between`` evenly, and around what is narrow."""
    with workdps(50):
        steps = [mpf(10) ** (-15 + mpf(15) * i / near) / 2 for i in range(near)]
        even = [mpf(i) / (between + 1) for i in range(1, between + 1)]
        return sorted({*steps, *(1 - s for s in steps), *even, *oracle.feature_times()})


def is_path(oracle: PathOracle, near: int = 40, between: int = 120) -> Verdict:
    """Whether evaluation finds alpha, sigma >= 0 and W > 0 everywhere and the right ends."""
    seen: list[Values] = []
    unknown = 0
    unseen = False
    for time in times_of_verdict(oracle, near, between):
        try:
            v = oracle.at(time)
        except OutsideError as error:
            return Verdict(False, f"at t = {_short(time)}: {error}")
        except UndecidedError:
            unknown += 1
            unseen |= unknown == 2  # one alone is a kink
            continue
        unknown = 0
        for name in ("alpha", "sigma", "wronskian"):
            if getattr(v, name) < 0:
                return Verdict(False, f"at t = {_short(time)}: {name} = {_short(getattr(v, name))}")
        seen.append(v)
    if len(seen) < near + between // 2:
        return Verdict(None, "hardly any time can be evaluated")
    lowest = _least_slope(oracle, seen)
    for verdict in (lowest, _map_ends(oracle), _end(oracle, 0, seen), _end(oracle, 1, seen)):
        if not verdict.holds:
            return verdict
    return Verdict(None if unseen else True, "some times cannot be evaluated" if unseen else "")


def _short(value: mpf) -> str:
    return mpmath.nstr(value, 17)


def _least_slope(oracle: PathOracle, seen: list[Values]) -> Verdict:
    """Whether W stays above zero at its least, looked for between the times where d log(alpha / sigma) is least."""

    def slope(v: Values) -> mpf:
        return v.wronskian / (v.alpha * v.sigma)

    slopes = [slope(v) for v in seen]
    dips = [i for i in range(1, len(seen) - 1) if slopes[i] <= min(slopes[i - 1], slopes[i + 1])]
    for i in sorted(dips, key=lambda i: slopes[i] / min(slopes[i - 1], slopes[i + 1]))[:3]:
        low, high = seen[i - 1].time, seen[i + 1].time
        least = slopes[i]
        with workdps(50):
            for _ in range(12):
                left, right = low + (high - low) / 3, high - (high - low) / 3
                try:
                    values = [slope(oracle.at(time)) for time in (left, right)]
                except UndecidedError:
                    break
                except OutsideError as error:
                    return Verdict(False, f"next to t = {_short(left)}: {error}")
                least = min(least, *values)
                if least < 0:
                    return Verdict(False, f"between t = {_short(left)} and {_short(right)}: W < 0")
                low, high = (low, right) if values[0] < values[1] else (left, high)
        if least < mpf(10) ** -4 * min(slopes[i - 1], slopes[i + 1]):
            return Verdict(None, f"W may be 0 next to t = {_short(low)}")
    return Verdict(True, "")


def _map_ends(oracle: PathOracle) -> Verdict:
    if oracle.case.time_map is None:
        return Verdict(True, "")
    for end in (0, 1):
        try:
            limit = approach(*oracle.map_beside(end))
        except UndecidedError as error:
            return Verdict(None, f"the time map next to {end}: {error}")
        if limit.value is None:
            return Verdict(None, f"the time map next to {end} is slow")
        if abs(limit.value - end) > mpf(10) ** -6:
            return Verdict(False, f"the time map leads to {_short(limit.value)} at {end}")
    return Verdict(True, "")


def _end(oracle: PathOracle, end: int, seen: list[Values]) -> Verdict:
    """At an end, one of the two must have a finite limit above zero, and the other at most a quarter of it."""
    small, large = ("alpha", "sigma") if end == 0 else ("sigma", "alpha")
    try:
        values = oracle.beside(end)
    except (UndecidedError, OutsideError) as error:
        return Verdict(None, f"next to t = {end}: {error}")
    for v in values:
        if min(v.alpha, v.sigma, v.wronskian) < 0:
            return Verdict(False, f"next to t = {end}: alpha, sigma or W is below zero")
    limit = approach(*(getattr(v, large) for v in values)).value
    if limit is None or not (0 < limit < mpmath.inf):
        return Verdict(None if limit is None else False, f"{large} tends to {limit} at t = {end}")
    ratios = [getattr(v, small) / getattr(v, large) for v in [*values, *seen] if getattr(v, large)]
    if min(ratios) < LARGEST_END_RATIO:  # it falls towards the end
        return Verdict(True, "")
    limit = approach(*ratios[:3]).value
    if limit is not None and limit > LARGEST_END_RATIO * (1 + mpf(10) ** -9):
        return Verdict(False, f"{small} / {large} tends to {_short(limit)} at t = {end}")
    return Verdict(None, f"{small} / {large} is about a quarter at t = {end}")


def is_noise(oracle: PathOracle, near: int = 20, between: int = 60) -> Verdict:
    """Whether the text of w is finite and not negative."""
    function = jet_function(oracle.case.w)
    lowest = mpmath.inf
    for time in times_of_verdict(oracle, near, between):
        try:
            (value,) = settled(lambda time=time: function((time, 0))[:1])
        except OutsideError as error:
            return Verdict(False, f"w at t = {_short(time)}: {error}")
        except UndecidedError:
            continue
        if value < 0:
            return Verdict(False, f"w at t = {_short(time)} is {_short(value)}")
        lowest = min(lowest, value)
    return Verdict(True, "")


def joined(claim: bool | None, seen: Verdict) -> Verdict:
    """What is known by construction and by evaluation.

    Raises:
        AssertionError: If they contradict each other: then the grammar is wrong.
    """
    if claim is None or seen.holds is None:
        return seen if claim is None else Verdict(claim, seen.reason or "by construction")
    assert claim == seen.holds, f"by construction {claim}, by evaluation {seen.holds}: {seen.reason}"
    return seen
