"""The engine put to a random case: what it decides and derives, against the oracle.

A case has five stages, of limited processor time each: ``path``, ``conversions`` (all of them, and the log-SNR),
``SDEs`` (for each named w), ``ledger``, and ``inverse`` (of the log-SNR, and the grids). A trial that is not thorough
has the first alone, with alpha and sigma at a few times. What is wrong is a ``Finding``.
"""

from __future__ import annotations

import itertools
import math
import random
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import torch
from float_errors import (
    LARGEST_64,
    MOST_64,
    ULPS_32,
    ULPS_64,
    Crossing,
    Error,
    crossings,
    error_32,
    error_64,
    floor,
    spacing,
)
from mpmath import mpf
from path_oracle import (
    CONVERSIONS,
    FUNCTIONS,
    NAMED_W,
    Formula,
    Limit,
    PathOracle,
    Values,
    Verdict,
    approach,
    drift,
    is_noise,
    is_path,
    joined,
)
from random_paths import Case

import interpolants as ip
from interpolants import diffusion, identities, time_grid  # noqa: F401, here so that no worker imports them

NUM_STEPS = 12
"""Of grids."""
STAGES = ("path", "conversions", "SDEs", "ledger", "inverse")
WRONG = (
    "accepted", "refused", "exception", "not finite", "inaccurate float64", "inaccurate float32", "end", "ledger",
    "inverse", "grid", "time", "crash", "grammar",
)  # fmt: skip
"""Kinds of findings.

accepted, refused: no path, or a w that is negative, is taken; or a path, or a w that is right, is not.
exception: another than the contract states. not finite: NaN or infinite, where the truth is a number.
time: no end in time. grammar: the oracle contradicts what is known by construction, a fault of the tester.
"""


@dataclass(frozen=True)
class Finding:
    """Something wrong."""

    kind: str
    what: str
    got: str
    right: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}: got {self.got}, right {self.right}"


Derivable = tuple[str, Formula, Callable[[], Any]]
"""A label, the formula of the oracle, and how to have the engine's coefficient."""


class OutOfTime(BaseException):
    """Not an Exception, so that no handler of the engine takes it."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTime after so much processor time; end the process if that does not help."""

    def stop(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGPROF, stop)
    used = time.process_time()
    least, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + 1.5 * seconds) + 3, most))
    signal.setitimer(signal.ITIMER_PROF, seconds, 1.0)  # again, should something have swallowed it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (least, most))
        signal.signal(signal.SIGPROF, before)


# Times


def times_of(oracle: PathOracle, thorough: bool) -> list[float]:
    """Times from 1e-12 to the middle in powers of ten, mirrored, around what is narrow, and between.

    They are float32 numbers wherever these are fine enough, so that they serve both.
    """
    rng = random.Random(oracle.case.seed)
    exponents = range(-12, 0) if thorough else (-12, -9, -6, -4, -2)
    times = {0.5}
    for exponent in exponents:
        first, second = (10.0**exponent * rng.choice([1.0, rng.uniform(1, 5)]) for _ in range(2))
        times |= {_short(first), _short(1 - second) if second > 1e-6 else 1 - second}
    times |= {_short(rng.uniform(0.05, 0.95)) for _ in range(9 if thorough else 3)}
    features = list(oracle.feature_times())
    rng.shuffle(features)
    times |= {_short(float(time)) for time in features[: 9 if thorough else 3]}
    return sorted(time for time in times if 0 < time < 1)


def _short(value: float) -> float:
    return float(np.float32(value))


def _is_short(value: float) -> bool:
    return _short(value) == value


# The stages of a case


class Trial:
    """One case in this process. What is found is told as (kind, payload), at once."""

    def __init__(self, case: Case, seconds: float, thorough: bool, tell: Callable[[str, Any], None]) -> None:
        self.case, self.seconds, self.thorough, self.tell = case, seconds, thorough, tell
        self.oracle = PathOracle(self.case)
        self.labels: dict[str, Formula] = {}
        self.zeros: list[Crossing] = []
        self.seen: list[Values] = []
        self.ends: dict[int, list[Values] | None] = {}
        self.at = ""

    def wrong(self, kind: str, what: str, got: object, right: object) -> None:
        self.tell("finding", Finding(kind, what, _short_text(got), _short_text(right)))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Limit the time of a part of a stage; OutOfTime is a finding."""
        self.tell("stage", name)
        self.at = ""
        begin = time.process_time()
        try:
            with limited(self.seconds), mpmath.workdps(15):  # mpmath as the engine finds it elsewhere
                yield
            self.tell("seconds", (name, time.process_time() - begin))
        except OutOfTime:
            self.wrong("time", f"{name} {self.at}".strip(), f"no end in {self.seconds:g} s", "an end")

    def run(self) -> None:
        """All stages."""
        near, between = (40, 120) if self.thorough else (16, 40)
        with mpmath.workdps(50):
            try:
                verdict = joined(self.case.claim, is_path(self.oracle, near, between))
            except AssertionError as error:
                self.wrong("grammar", "the path", error, "no contradiction")
                return
            self.tell("verdict", verdict)
            for time_ in times_of(self.oracle, self.thorough):
                try:
                    self.seen.append(self.oracle.at(time_))
                except ArithmeticError:
                    continue
            path, results = None, {}
            with self.stage("path"):
                path = self.construct(verdict)
                if path is not None:
                    self.collect(self.functions(path, ("alpha", "sigma")), results)
            if path is not None and self.thorough:
                self.derive(path, results)
            self.zeros = crossings(self.oracle, self.seen)
            for label, result in results.items():
                self.compare(label, *result)
            if path is not None and self.thorough:
                if verdict.holds:
                    self.ledger(path)
                self.inverse(path)

    def derive(self, path: ip.Path, results: dict[str, tuple[Formula, Any]]) -> None:
        """The stages of coefficients."""
        with self.stage("conversions"):
            self.collect(self.functions(path), results)
            self.collect(self.conversions(path), results)
        with self.stage("SDEs"):
            self.collect(self.drifts(path), results)
            if self.case.w is not None:
                self.at = "of a text"
                self.collect_text(path, results)

    # The path

    def construct(self, verdict: Verdict) -> ip.Path | None:
        """The path, if it is one that the engine takes; a wrong decision is a finding."""
        case, path = self.case, None
        try:
            path = ip.Path(case.alpha, case.sigma, **case.parameters)
            if case.time_map is not None:
                path = path.after(case.time_map, **case.map_parameters)
        except ValueError as error:
            if "no path" not in str(error) and "time_map: must lead" not in str(error):
                self.tell("note", f"refused: {error}")  # by a bound of the parser
            elif verdict.holds:
                self.wrong("refused", "the path", error, verdict.reason or "a path")
            self.tell("engine", "refused")
            return None
        except Exception as error:
            self.exception("the path", error, ("alpha", "sigma"))
            return None
        self.tell("engine", "undecided" if path.undecided else "accepted")
        if verdict.holds is False:
            if not path.undecided:
                self.wrong("accepted", "the path", "a path", verdict.reason or "no path, by construction")
            return None
        return path

    def exception(self, what: str, error: Exception, labels: Iterable[str]) -> None:
        """ArithmeticError is the contract's where a finite limit is approached as slowly as by a logarithm, and the
        oracle knows no limit; all else is wrong.
        """
        limits = [self.limit_of(label)(end) for label in labels for end in (0, 1)]
        if type(error) is ArithmeticError and not all(
            limit.power or mpmath.isinf(limit.value or 0) for limit in limits
        ):
            self.tell("note", f"{what}: {error}")
            return
        where = traceback.extract_tb(error.__traceback__)[-1]
        self.wrong("exception", what, f"{type(error).__name__}: {error} ({where.name})", "none")

    # Coefficients

    def functions(self, path: ip.Path, names: Iterable[str] = tuple(FUNCTIONS)) -> Iterator[Derivable]:
        for name in names:
            yield name, FUNCTIONS[name], lambda name=name: getattr(path, name)

    def conversions(self, path: ip.Path) -> Iterator[Derivable]:
        for (source, target), formulas in CONVERSIONS.items():
            for i, formula in enumerate(formulas):
                label = f"{source} -> {target} {'ab'[i]}"
                yield label, formula, lambda s=source, target=target, i=i: path.conversion(s, target)[i]

    def drifts(self, path: ip.Path) -> Iterator[Derivable]:
        for name, part in itertools.product(diffusion.CHOICES, "ab"):
            formula = drift(NAMED_W[name])["ab".index(part)]
            yield f"sde {name} {part}", formula, lambda n=name, part=part: getattr(path.sde("velocity", n), part)

    def collect(self, functions: Iterable[Derivable], results: dict[str, tuple[Formula, Any]]) -> None:
        """Every coefficient's values, or the exception in its place."""
        for label, formula, derive in functions:
            self.at = label
            results[label] = (formula, self.values(derive))

    def collect_text(self, path: ip.Path, results: dict[str, tuple[Formula, Any]]) -> None:
        formulas = drift(lambda v: v.w)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                sde = path.sde("velocity", self.case.w)
            except ValueError as error:
                results["sde of a text"] = (formulas[0], error)
                return
            except Exception as error:
                results["sde of a text a"] = (formulas[0], error)
                return
        undecided = any("not decided" in str(warning.message) for warning in told)
        results["sde of a text"] = (formulas[0], "undecided" if undecided else "accepted")
        for part, formula in zip("ab", formulas, strict=True):
            results[f"sde of a text {part}"] = (formula, self.values(lambda part=part: getattr(sde, part)))

    def values(self, derive: Callable[[], Any]) -> Any:
        times = np.array([float(v.time) for v in self.seen])
        try:
            coefficient = derive()
            in_64 = coefficient(torch.from_numpy(times)).numpy()
            in_32 = coefficient(times.astype(np.float32))  # by numpy's kernel
            return in_64, in_32, coefficient(np.array([0.0, 1.0])).tolist()
        except Exception as error:
            return error

    def compare(self, label: str, formula: Formula, result: Any) -> None:
        """A finding for the worst value of a coefficient in each precision, if it is wrong."""
        if label == "sde of a text":
            self.compare_decision(result)
            return
        self.labels[label] = formula
        if isinstance(result, Exception):
            self.exception(label, result, (label,))
            return
        in_64, in_32, ends = result
        for kind, found, measure, most in (
            ("inaccurate float64", in_64, error_64, ULPS_64),
            ("inaccurate float32", in_32, error_32, ULPS_32),
        ):
            worst, where = Error(0.0, kind), None
            for got, v in zip(found.tolist(), self.seen, strict=True):
                if kind == "inaccurate float32" and not _is_short(float(v.time)):
                    continue
                right = formula(v)
                if mpmath.isnan(right):
                    continue
                error = measure(got, right, floor(formula, right, v.time, self.zeros))
                if measure is error_64 and most < error.size <= MOST_64:  # float32 times are exact in float64
                    error = Error(max(error.size - self.by_rounding(formula, v), 0.0), error.kind)
                if error.size > worst.size:
                    worst, where = error, (got, v, right)
            if worst.size > most and where is not None:
                got, v, right = where
                size = f", {worst.size:.3g} ulp" if math.isfinite(worst.size) else ""
                dtype = kind.removeprefix("inaccurate ")
                self.wrong(worst.kind, f"{label} at t = {float(v.time)!r} in {dtype}", f"{got!r}{size}", right)
            elif kind == "inaccurate float64" and where is not None:
                self.tell("worst", (worst.size, f"{label} at t = {float(where[1].time)!r}"))
        for end, got in enumerate(ends):
            self.compare_end(label, end, got)

    def by_rounding(self, formula: Formula, v: Values) -> float:
        """By how many ulp the value changes where t changes by two of its own."""
        near = self.oracle.at(float(v.time * (1 - mpf("1e-9"))))
        change = abs(formula(near) / formula(v) - 1) * mpf("1e9")
        return min(float(2 * change), MOST_64)

    def compare_decision(self, result: Any) -> None:
        right = joined(self.case.w_claim, is_noise(self.oracle))
        if isinstance(result, ValueError):
            if right.holds:
                self.wrong("refused", f"w = {self.case.w!r}", result, right.reason or "right")
        elif right.holds is False and result == "accepted":
            self.wrong("accepted", f"w = {self.case.w!r}", "a w", right.reason)

    def limit_of(self, label: str) -> Callable[[int], Limit]:
        """The limits of a coefficient, by the oracle."""
        formula = self.labels.get(label) or FUNCTIONS[label]

        def at(end: int) -> Limit:
            if end not in self.ends:
                try:
                    self.ends[end] = self.oracle.beside(end)
                except ArithmeticError:
                    self.ends[end] = None
            beside = self.ends[end]
            try:
                with mpmath.workdps(1000):  # the times have that many
                    return Limit(None, False) if beside is None else approach(*map(formula, beside))
            except ArithmeticError:
                return Limit(None, False)

        return at

    def compare_end(self, label: str, end: int, got: float) -> None:
        limit = self.limit_of(label)(end)
        if limit.value is None or mpmath.isnan(limit.value) or limit.error > 1e-18:
            return
        has_no_digits = any(value == 0 or mpmath.isinf(value) for value in (limit.value, got))
        if has_no_digits and any(f.is_lost(end) for f in self.case.features):  # a pole may have a factor 1e-2000
            return
        if limit.value == 0:
            right = got == 0
        elif mpmath.isinf(limit.value):
            right = got == float(limit.value)
        else:
            right = error_64(got, limit.value, mpf(0)).size <= ULPS_64
        if not right:
            self.wrong("end", f"{label} at t = {end}", got, limit.value)

    # The ledger

    def ledger(self, path: ip.Path) -> None:
        ledger = None
        with self.stage("ledger"):
            try:
                ledger = ip.prove(path)
            except Exception as error:
                self.exception("prove", error, ())
        for entry in ledger.entries if ledger is not None else ():
            if entry.status == "failed":
                self.wrong("ledger", entry.name, entry.counterexample, "no failure")

    # The inverse of the log-SNR, and grids

    def inverse(self, path: ip.Path) -> None:
        log_snr = FUNCTIONS["log_snr"]
        seen = [v for v in self.seen if abs(log_snr(v)) < LARGEST_64]
        levels = torch.tensor([float(log_snr(v)) for v in seen], dtype=torch.float64)
        found, grids = None, {}
        with self.stage("inverse"):
            try:
                found = ip.time_at_log_snr(path, levels).tolist()
            except Exception as error:
                self.exception("time_at_log_snr", error, ("log_snr",))
            for grid in (time_grid.log_snr(), time_grid.edm(), time_grid.cosine()):
                try:
                    grids[grid.name] = grid.times(path, NUM_STEPS).tolist()
                except ValueError as error:
                    grids[grid.name] = error
                except Exception as error:
                    self.exception(f"grid {grid.name}", error, ("log_snr",))
        if found is not None:
            self.compare_times(found, seen, levels.tolist())
        for name, got in grids.items():
            self.compare_grid(name, got)

    def compare_times(self, found: list[float], seen: list[Values], levels: list[float]) -> None:
        """A time is right to a few of its last digits, or to what the error allowed in the log-SNR makes of it; a
        finding for the worst.
        """
        worst, where = mpf(1), None
        for got, v, level in zip(found, seen, levels, strict=True):
            slope = _slope(v)
            in_time, in_level = 4 * spacing(v.time, 53), ULPS_64 * spacing(mpf(level), 53)
            error = abs(got - v.time) / (in_time + in_level / slope) if math.isfinite(got) else mpmath.inf
            if error > worst and not self.is_level(got, level, in_level + in_time * slope):
                worst, where = error, (level, got, v.time)
        if where is not None:
            level, got, right = where
            self.wrong("inverse", f"time_at_log_snr({level!r})", got, right)

    def is_level(self, time_: float, level: float, tolerance: mpf) -> bool:
        """Whether the log-SNR at a time is what it should be."""
        try:
            if time_ in (0.0, 1.0):
                there = self.limit_of("log_snr")(int(time_)).value
                return there is not None and abs(there - level) <= tolerance
            return 0 < time_ < 1 and abs(FUNCTIONS["log_snr"](self.oracle.at(time_)) - level) <= tolerance
        except ArithmeticError:
            return False

    def compare_grid(self, name: str, got: Any) -> None:
        """Equal steps in the variable of the grid; a finding for the worst."""
        limits = [self.limit_of("log_snr")(end) for end in (0, 1)]
        ends = [limit.value for limit in limits]
        if None in ends or any(mpmath.isfinite(limit.value) and limit.error > 1e-18 for limit in limits):
            return
        levels = _levels_of_grid(name, *ends)
        if isinstance(got, ValueError):
            if all(ends[0] < level < ends[1] for level in levels) and self.distinct(levels):
                self.wrong("grid", name, got, "distinct times")
            return
        worst, where = mpf(1), None
        for time_, level in zip(got[1:-1], levels, strict=True):
            try:
                v = self.oracle.at(time_)
            except ArithmeticError:
                continue
            found = FUNCTIONS["log_snr"](v)
            error = abs(found - level) / (4 * spacing(v.time, 53) * _slope(v) + mpf("1e-12") * max(1, abs(level)))
            if error > worst:
                worst, where = error, (time_, found, level)
        if where is not None:
            time_, found, level = where
            self.wrong("grid", f"{name}, log-SNR at its time {time_!r}", found, level)

    def distinct(self, levels: list[mpf]) -> bool:
        """Whether float64 times can tell the levels apart, by bisection."""
        times = [mpf(0)]
        for level in levels:
            low, high = times[-1], mpf(1)
            for _ in range(60):
                middle = (low + high) / 2
                try:
                    below = FUNCTIONS["log_snr"](self.oracle.at(middle)) < level
                except ArithmeticError:
                    return False
                low, high = (middle, high) if below else (low, middle)
            times.append(low)
        return all(b - a > 4 * spacing(b, 53) for a, b in zip(times, [*times[1:], mpf(1)], strict=True))


def _slope(v: Values) -> mpf:
    """The derivative of the log-SNR."""
    return 2 * v.wronskian / (v.alpha * v.sigma)


def _levels_of_grid(name: str, lowest: mpf, highest: mpf) -> list[mpf]:
    """The log-SNRs of the inner times, by the definition of each grid."""
    shares = [mpf(i) / NUM_STEPS for i in range(1, NUM_STEPS)]
    if name.startswith("cosine"):
        return [2 * mpmath.log(mpmath.tan(mpmath.pi / 2 * share)) for share in shares]
    if name.startswith("log_snr"):
        low, high = max(mpf(-8), lowest), min(mpf(8), highest)
        return [low + (high - low) * share for share in shares]
    low = max(-2 * mpmath.log(mpf(80)), lowest)
    high = min(-2 * mpmath.log(mpf("0.002")), highest)
    first, last = mpmath.exp(-low / 14), mpmath.exp(-high / 14)
    return [-14 * mpmath.log(first + (last - first) * share) for share in shares]


def _short_text(value: object) -> str:
    text = mpmath.nstr(value, 17) if isinstance(value, mpf) else str(value)
    return " ".join(text.split())[:300]
