"""The engine on random paths, and laws of what judges it: the grammar, the oracle, and the trial."""

import contextlib
import itertools

import mpmath
import pytest
import sympy as sp
from engine_trial import OutOfTime, limited
from float_errors import spacing
from many_digits import OutsideError, UndecidedError, jet_function, settled
from mpmath import mpf
from path_oracle import CONVERSIONS, PathOracle, Values, approach, is_noise, is_path, joined
from random_paths import Case, draw
from trial_processes import outcomes

import interpolants as ip
from interpolants.expression import to_expr

SEEDS = range(200)
CHUNK = 10
TIMES = [mpf("0.0123"), mpf("0.2"), mpf("0.37"), mpf("0.61803"), mpf("0.975")]
LINEAR = Case(0, "by hand", "t", "1-t", {}, True)


@pytest.mark.parametrize("first", SEEDS[::CHUNK])
def test_random_texts_are_paths_or_not_as_many_digits_say(first):
    """Nothing that is no path is accepted, no path is refused, alpha and sigma are accurate, and what is known by
    construction does not contradict evaluation.

    ``benchmarks/engine.py random`` looks at all other coefficients, identities, inverses, grids and durations too.
    """
    cases = map(draw, SEEDS[first : first + CHUNK])
    wrong = [
        f"seed {outcome.case.seed}: {finding}; {outcome.case}"
        for outcome in outcomes(cases, seconds=10.0, jobs=1, thorough=False)
        for finding in outcome.findings
        if finding.kind != "time"
    ]
    assert not wrong, "\n".join(wrong)


# The grammar


def texts(seed):
    case = draw(seed)
    yield from ((text, case.parameters) for text in (case.alpha, case.sigma))
    yield from ((text, case.map_parameters) for text in (case.time_map,) if text is not None)
    yield from ((text, {}) for text in (case.w,) if text is not None)


def values(text, parameters):
    """(time, value, derivative) wherever the text has them."""
    function = jet_function(text, parameters)
    for time in TIMES:
        try:
            yield time, *settled(lambda time=time: function((time, mpf(1))))
        except (OutsideError, UndecidedError):
            continue


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_the_function_of_a_text_is_that_of_its_sympy_parse(first):
    """The parser may refuse a few texts, which are beyond its bounds."""
    drawn = list(itertools.chain.from_iterable(map(texts, range(first, first + 20))))
    refused = 0
    for text, parameters in drawn:
        try:
            parsed = sp.lambdify(ip.t, to_expr(text, parameters=parameters), "mpmath")
        except ValueError:
            refused += 1
            continue
        for time, value, _ in values(text, parameters):
            with mpmath.workdps(200):
                assert mpmath.almosteq(parsed(time), value, rel_eps=1e-20), (text, parameters, time)
    assert refused <= len(drawn) / 10


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_the_derivative_of_a_text_is_its_difference_quotient(first):
    """The step is far below the width of the narrowest feature, 3e-5."""
    for text, parameters in itertools.chain.from_iterable(map(texts, range(first, first + 20))):
        function = jet_function(text, parameters)
        for time, _, slope in values(text, parameters):
            with mpmath.workdps(200):
                quotient = mpmath.diff(lambda x, function=function: function((x, mpf(1)))[0], time)
                assert mpmath.almosteq(quotient, slope, rel_eps=1e-15, abs_eps=1e-150), (text, parameters, time)


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_evaluation_does_not_contradict_what_is_known_of_w_by_construction(first):
    for case in map(draw, range(first, first + 50)):
        if case.w is not None:
            joined(case.w_claim, is_noise(PathOracle(case)))


def test_a_seed_draws_one_case_and_a_fifth_of_the_cases_are_no_paths():
    assert draw(7) == draw(7) != draw(8)
    claims = [draw(seed).claim for seed in range(500)]
    assert 0.15 < claims.count(False) / 500 < 0.3
    assert claims.count(True) > 250


# The oracle


@pytest.mark.parametrize(
    ("alpha", "sigma", "holds"),
    [
        ("t", "1-t", True), ("sin(pi*t/2)", "cos(pi*t/2)", True), ("1", "80*(1-t)+0.002", True),
        ("exp(1-1/t)", "1-exp(1-1/t)", True), ("sqrt(t)", "1-sqrt(t)", True), ("1-t", "t", False),
        ("t-0.001", "1-t", False), ("t", "sqrt(0.5-t)", False), ("0.3+0.7*t", "1-t", False), ("t", "1/t-1", False),
        ("t/2", "1", False), ("t+0.3*sin(4*pi*t)", "1-t", False),
    ],
)  # fmt: skip
def test_verdicts_on_what_is_known(alpha, sigma, holds):
    assert is_path(PathOracle(Case(0, "by hand", alpha, sigma, {}, None))).holds is holds


@pytest.mark.parametrize(("source", "target"), CONVERSIONS)
def test_conversions_by_hand_hold_for_any_data_and_noise(source, target):
    alpha, sigma, d_alpha, d_sigma, data, noise = map(mpf, ("0.3", "0.8", "1.7", "-0.4", "1.3", "-0.7"))
    v = Values(mpf("0.3"), alpha, sigma, d_alpha, d_sigma, d_alpha * sigma - alpha * d_sigma, mpf("nan"))
    known = {"data": data, "noise": noise, "score": -noise / sigma, "velocity": d_alpha * data + d_sigma * noise}
    a, b = (formula(v) for formula in CONVERSIONS[source, target])
    assert mpmath.almosteq(a * (alpha * data + sigma * noise) + b * known[source], known[target])


@pytest.mark.parametrize(
    ("function", "limit", "power"),
    [
        (lambda s: 2 + mpmath.sqrt(s), 2, True), (lambda s: 3 * s, 0, True), (lambda s: -1 / s, -mpmath.inf, True),
        (mpmath.log, -mpmath.inf, False), (lambda s: 1 / (1 - mpmath.log(s)), 0, False), (lambda s: mpf(7), 7, True),
        (lambda s: 1 + 1 / (1 - mpmath.log(s)), None, False),
    ],
)  # fmt: skip
def test_limits_are_told_from_values_at_three_distances(function, limit, power):
    with mpmath.workdps(100):
        found = approach(*(function(mpf(10) ** -exponent) for exponent in (20, 40, 80)))
    assert found.power is power
    assert found.value == limit if limit in (None, 0, -mpmath.inf) else abs(found.value - limit) < 1e-18


def test_a_value_that_no_precision_settles_is_undecided():
    with pytest.raises(UndecidedError):
        settled(lambda: (mpmath.sin(mpmath.mpf(mpmath.mp.prec)),))
    with pytest.raises(OutsideError):
        settled(lambda: jet_function("sqrt(t-1)")((mpf("0.5"), mpf(1))))
    with pytest.raises(UndecidedError):  # at a kink
        settled(lambda: jet_function("t+0.3*sqrt((t-0.5)**2)")((mpf("0.5"), mpf(1))))
    assert spacing(mpf(1), 53) == 2.0**-52
    assert spacing(mpf("0.99"), 24) == 2.0**-24


# The trial


def findings(case, seconds=10.0):
    (outcome,) = outcomes([case], seconds=seconds, jobs=1, thorough=True)
    return outcome.findings


def test_nothing_is_wrong_with_the_linear_path():
    assert findings(LINEAR) == []


def test_a_flipped_sign_is_found(monkeypatch):
    conversion = ip.Path.conversion
    monkeypatch.setattr(ip.Path, "conversion", lambda self, *names: conversion(self, *names)[::-1])
    found = findings(LINEAR)
    assert {finding.kind for finding in found} >= {"inaccurate float64", "inaccurate float32"}


def test_a_wrong_decision_is_found():
    assert [f.kind for f in findings(Case(0, "by hand", "t", "1-t", {}, False))] == ["grammar"]
    assert [f.kind for f in findings(Case(0, "by hand", "t", "2**t", {}, None))] == []


@pytest.mark.parametrize("never_ends", ["python", "c"])
def test_a_stage_that_does_not_end_is_found(monkeypatch, never_ends):
    """In C no signal handler of Python runs: the process is killed."""

    def prove(path):
        return str(10**10**8) if never_ends == "c" else sum(1 for _ in itertools.count())

    monkeypatch.setattr(ip, "prove", prove)
    assert "time" in {finding.kind for finding in findings(LINEAR, seconds=2.0)}


def endless():
    while True:
        with contextlib.suppress(Exception):
            sum(range(1000))


def test_time_is_up_in_spite_of_handlers():
    with pytest.raises(OutOfTime), limited(0.1):
        endless()
