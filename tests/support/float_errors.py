"""Errors of floats against many digits, in units of their last place, and what is forgiven next to a zero."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import mpmath
from mpmath import mpf
from path_oracle import FUNCTIONS, Formula, PathOracle, Values

ULPS_64 = 64
ULPS_32 = 1
MOST_64 = 4096
"""In ulp of float64, 1e-12 in relative terms: what is forgiven where t, changed in its last digit, does as much."""
LARGEST_64, LARGEST_32 = mpf(2) ** 1024, mpf(2) ** 128


def spacing(value: mpf, digits: int) -> mpf:
    """The distance of neighbouring floats of 53 or 24 bits."""
    lowest = mpf(2) ** (-1074 if digits == 53 else -149)
    return max(mpmath.ldexp(mpf(1), mpmath.frexp(value)[1] - digits), lowest) if value else lowest


@dataclass(frozen=True)
class Crossing:
    """A zero inside (0, 1) of alpha', sigma' or the log-SNR, and the path beside it, at 1 -+ 1e-9 and 1 + 1e-10."""

    time: mpf
    before: Values
    after: Values
    nearer: Values


def crossings(oracle: PathOracle, seen: list[Values]) -> list[Crossing]:
    """The zeros that lie between neighbours in ``seen``."""
    found = []
    for name in ("d_alpha", "d_sigma", "log_snr"):
        of = FUNCTIONS[name]
        for left, right in itertools.pairwise(v for v in seen if of(v) != 0):
            if of(left) * of(right) < 0:
                try:
                    found.append(_crossing(oracle, of, left.time, right.time))
                except ArithmeticError:
                    continue
    return found


def _crossing(oracle: PathOracle, of: Formula, low: mpf, high: mpf) -> Crossing:
    with mpmath.workdps(40):
        sign = of(oracle.at(low))
        for _ in range(45):
            middle = (low + high) / 2
            low, high = (middle, high) if of(oracle.at(middle)) * sign > 0 else (low, middle)
        return Crossing(low, *(oracle.at(low * (1 + part)) for part in (-mpf("1e-9"), mpf("1e-9"), mpf("1e-10"))))


def floor(formula: Formula, value: mpf, time: mpf, zeros: list[Crossing]) -> mpf:
    """Next to a zero at t0, the change of the function where t0 changes in its last digit, over that of one: |c'| t0.

    No formula in floating point that is not written around t0 does better.
    """
    largest = mpf(0)
    for zero in zeros:
        before, after, nearer = (formula(v) for v in (zero.before, zero.after, zero.nearer))
        room = min(zero.time, 1 - zero.time)
        if not (before * after < 0 and abs(nearer) < abs(after) / 5 and abs(time - zero.time) <= room / 4):
            continue
        slope = abs(after - before) / (zero.after.time - zero.before.time)
        line, rounding = slope * abs(time - zero.time), slope * room * mpf(2) ** -50
        if line <= 2 * abs(value) + rounding and abs(value) <= 2 * line + rounding:
            largest = max(largest, slope * room)
    return largest


@dataclass(frozen=True)
class Error:
    """An error in units of what is allowed; ``kind`` as in Findings."""

    size: float
    kind: str


def error_64(got: float, right: mpf, least: mpf) -> Error:
    """In ulp of float64."""
    if abs(right) >= LARGEST_64 * (1 - mpf(2) ** -50):
        return Error(0.0 if abs(got) >= 1.7e308 and (got > 0) == (right > 0) else math.inf, "inaccurate float64")
    if not math.isfinite(got):
        return Error(math.inf, "not finite")
    if abs(right) < mpf(2) ** -1022:
        return Error(0.0 if abs(got) <= 2.0**-1021 else math.inf, "inaccurate float64")
    return Error(float(abs(got - right) / spacing(max(abs(right), least), 53)), "inaccurate float64")


def error_32(got: float, right: mpf, least: mpf) -> Error:
    """In ulp of float32, beyond what an error of float64 explains."""
    if abs(right) >= LARGEST_32 * (1 - mpf(2) ** -24):
        return Error(0.0 if abs(got) >= 3.4e38 and (got > 0) == (right > 0) else math.inf, "inaccurate float32")
    if not math.isfinite(got):
        return Error(math.inf, "not finite")
    allowed = ULPS_64 * spacing(max(abs(right), least), 53)
    return Error(float(max(abs(got - right) - allowed, 0) / spacing(right, 24)), "inaccurate float32")
