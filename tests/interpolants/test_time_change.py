"""Changes of time: against 40-digit root finding, formulas by hand, autograd, and exact Gaussian mixtures."""

import functools
import math
import types

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from mpmath import mpf
from sympy import sin, sqrt

import interpolants as ip
from interpolants import time_change
from interpolants.expression import t
from interpolants.time_change import shifted, time_at_log_snr

# Written by hand in mpmath, of the time and of 1 - time, so that nothing is lost next to the data either.
HAND = {
    "linear": (lambda u, v: u, lambda u, v: v),
    "gvp": (lambda u, v: mpmath.sin(mpmath.pi * u / 2), lambda u, v: mpmath.sin(mpmath.pi * v / 2)),
    "vp": (lambda u, v: mpmath.exp(log_alpha(v)), lambda u, v: mpmath.sqrt(-mpmath.expm1(2 * log_alpha(v)))),
    "quadratic": (lambda u, v: u**2, lambda u, v: v),
    "cubic": (lambda u, v: u**3 + u, lambda u, v: v),
    "squares": (lambda u, v: mpmath.sin(mpmath.pi * u / 2) ** 2, lambda u, v: mpmath.sin(mpmath.pi * v / 2) ** 2),
    "exponential": (lambda u, v: mpmath.expm1(u), lambda u, v: -(mpmath.e**2) * mpmath.expm1(-2 * v)),
    "widening": (lambda u, v: mpf(1), lambda u, v: 80 * v + mpf("0.002")),
    "mirrored": (lambda u, v: u, lambda u, v: v**2),
    "root": (lambda u, v: mpmath.sqrt(u), lambda u, v: mpmath.sqrt(v)),
    "steeper": (lambda u, v: mpmath.sqrt(u), lambda u, v: 3 * mpmath.sqrt(v) / 2),
    "cosine": (
        lambda u, v: mpmath.sin(125 * mpmath.pi * u / 252) / mpmath.cos(mpmath.pi / 252),
        lambda u, v: (
            mpmath.sqrt(mpmath.sin(125 * mpmath.pi * v / 252) * mpmath.sin(mpmath.pi * (125 * v + 2) / 252))
            / mpmath.cos(mpmath.pi / 252)
        ),
    ),
}
FLAT = "999/1000*(4*(t-1/2)**3+1/2)+t/1000"
PATHS = {
    "linear": ip.linear(),
    "gvp": ip.gvp(),
    "vp": ip.vp(),
    "quadratic": ip.Path("t**2", "1-t", name="quadratic"),
    "mirrored": ip.Path("t", "(1-t)**2", name="mirrored"),
    "root": ip.Path("sqrt(t)", "sqrt(1-t)", name="root"),
    "steeper": ip.Path("sqrt(t)", "3*sqrt(1-t)/2", name="steeper"),
    "cubic": ip.Path("t**3+t", "1-t", name="cubic"),
    "squares": ip.Path("sin(pi*t/2)**2", "cos(pi*t/2)**2", name="squares"),
    "exponential": ip.Path("exp(t)-1", "exp(2)-exp(2*t)", name="exponential"),
    "widening": ip.Path("1", "80*(1-t)+0.002", name="widening"),
    "cosine": ip.cosine(),
    "flat": ip.Path(f"({FLAT})", f"1-({FLAT})", name="flat"),  # slope 1/1000 in the middle
    "steps": ip.Path("t-0.158*sin(2*pi*t)", "1-t+0.158*sin(2*pi*t)", name="steps"),  # small slopes at both ends
}
PAIRS = [
    ("linear", "gvp"), ("gvp", "linear"), ("linear", "vp"), ("vp", "linear"), ("cubic", "gvp"),
    ("quadratic", "squares"), ("widening", "linear"), ("exponential", "linear"), ("steeper", "mirrored"),
    ("quadratic", "cosine"), ("gvp", "squares"), ("root", "cubic"),
]  # fmt: skip
TIMES = (
    [10.0**-k for k in (1, 2, 3, 5, 8, 12, 40, 50, 60)] + [0.3, 0.5, 0.7] + [1 - 10.0**-k for k in (1, 2, 3, 5, 8, 12)]
)
pairs = pytest.mark.parametrize(("trained", "sampled"), PAIRS)


match_snr = functools.cache(time_change.match_snr)


def tensor(*values, **options):
    return torch.tensor(values, dtype=torch.float64, **options)


def log_alpha(v):
    return -(v**2) * mpf("19.9") / 4 - v * mpf("0.1") / 2


def log_ratio(name, u, v):
    alpha, sigma = HAND[name]
    return mpmath.log(alpha(u, v) / sigma(u, v))


def time_by_root_finding(name, log_of_ratio):
    """The logit of the time at which log(alpha / sigma) has that value, to 40 digits, and the time."""

    def excess(logit):
        return log_ratio(name, 1 / (1 + mpmath.exp(-logit)), 1 / (1 + mpmath.exp(logit))) - log_of_ratio

    low, high = mpf(-150), mpf(150)
    for _ in range(35):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    logit = mpmath.findroot(excess, (low, high), solver="secant", tol=1e-70)
    return 1 / (1 + mpmath.exp(-logit)), 1 / (1 + mpmath.exp(logit))


# The time and the scale


@pairs
def test_time_and_scale_agree_with_root_finding_next_to_both_ends(trained, sampled):
    change = match_snr(PATHS[trained], PATHS[sampled])
    start, stop = change.interval
    times = [time for time in TIMES if start < time < stop]
    assert len(times) >= 5
    taus, scales = change.time(tensor(*times)).tolist(), change.scale(tensor(*times)).tolist()
    with mpmath.workdps(40):
        for time, got, scale in zip(times, taus, scales, strict=True):
            u, v = mpf(time), 1 - mpf(time)
            tau, rest = time_by_root_finding(trained, log_ratio(sampled, u, v))
            # Rounding of tau, and of the few operations of each path: in units of 2^-53, relative to tau.
            assert abs(mpf(got) - tau) <= 20 * 2.0**-53 * tau
            part = 0 if u > 0.5 else 1
            exact_scale = HAND[sampled][part](u, v) / HAND[trained][part](tau, rest)
            assert abs(mpf(scale) - exact_scale) <= 40 * 2.0**-53 * exact_scale


@pytest.mark.parametrize(
    ("trained", "sampled", "direct"),
    [("gvp", "linear", True), ("linear", "gvp", True), ("quadratic", "cosine", True), ("gvp", "squares", True),
     ("root", "cubic", True), ("vp", "linear", True), ("steeper", "mirrored", True), ("squares", "root", True),
     ("cubic", "linear", False)],
)  # fmt: skip
def test_a_formula_is_used_where_it_keeps_half_of_the_digits(trained, sampled, direct, monkeypatch):
    """Elsewhere the time is searched for, the formula notwithstanding."""
    change, searches = match_snr(PATHS[trained], PATHS[sampled]), []
    solve = time_change._solve
    monkeypatch.setattr(time_change, "_solve", lambda *arguments: searches.append(1) or solve(*arguments))
    change.time(0.3)
    assert (searches == []) == direct
    assert change.is_closed_form == (trained != "cubic")


def test_formulas_found_by_hand():
    to_gvp = match_snr(ip.gvp(), ip.linear())
    assert sp.simplify(to_gvp.time_expr - 2 / sp.pi * sp.atan(t / (1 - t))) == 0
    assert sp.simplify(to_gvp.scale_expr - sp.sqrt(t**2 + (1 - t) ** 2)) == 0
    sine, cosine = sp.sin(sp.pi * t / 2), sp.cos(sp.pi * t / 2)
    to_linear = match_snr(ip.linear(), ip.gvp())
    assert sp.simplify(to_linear.time_expr - sine / (sine + cosine)) == 0
    assert sp.simplify(to_linear.scale_expr - (sine + cosine)) == 0
    assert sp.simplify(match_snr(PATHS["quadratic"], ip.linear()).time_expr.subs(t, sp.Rational(1, 2))) == (
        (sp.sqrt(5) - 1) / 2
    )
    # linear <-> vp: alpha / (alpha + sigma), and the positive root s = 1 - tau of 9.95 s^2 + 0.1 s = log(1 + 1/SNR)
    log_alpha_at = -sp.Rational(199, 40) * (1 - t) ** 2 - (1 - t) / 20
    from_vp = sp.exp(log_alpha_at) / (sp.exp(log_alpha_at) + sp.sqrt(1 - sp.exp(2 * log_alpha_at)))
    m = sp.log(1 + (1 - t) ** 2 / t**2)
    to_vp = 1 - (sp.sqrt(sp.Rational(1, 100) + sp.Rational(199, 5) * m) - sp.Rational(1, 10)) / sp.Rational(199, 10)
    for change, by_hand in (
        (match_snr(ip.linear(), ip.vp()), from_vp),
        (match_snr(ip.vp(), ip.linear()), to_vp),
    ):
        assert change.is_closed_form
        for time in (sp.Rational(1, 10), sp.Rational(1, 2), sp.Rational(9, 10)):
            assert abs(sp.N((change.time_expr - by_hand).subs(t, time), 30)) < 1e-28


# alpha and sigma of a path, and tau(t) by hand for sampling on the linear path: alpha / sigma at tau is t / (1 - t).
BY_HAND = [
    ("sinh(5*t)", "1", lambda t: mpmath.asinh(t / (1 - t)) / 5),
    ("9*tanh(3*t)", "1", lambda t: mpmath.atanh(t / (9 - 9 * t)) / 3),
    ("tanh(3*t)", "1-tanh(3*t)/tanh(3)", lambda t: mpmath.atanh(t / (1 - t + t / mpmath.tanh(3))) / 3),
    ("atan(t)", "pi/4-atan(t)", lambda t: mpmath.tan(mpmath.pi * t / 4)),
    ("asin(t)", "pi/2-asin(t)", lambda t: mpmath.sin(mpmath.pi * t / 2)),
    ("pi/2-acos(t)", "acos(t)", lambda t: mpmath.sin(mpmath.pi * t / 2)),
    ("log(1+t)", "log(2)-log(1+t)", lambda t: 2**t - 1),
    ("2**t-1", "2-2**t", lambda t: mpmath.log(1 + t) / mpmath.log(2)),
    ("sqrt(exp(2*t)-1)", "sqrt(exp(2)-exp(2*t))", lambda t: mpmath.log(
        ((1 - t) ** 2 + mpmath.e**2 * t**2) / ((1 - t) ** 2 + t**2)) / 2),
    ("exp(t)-1", "exp(2)-exp(2*t)", lambda t: mpmath.log(
        (t - 1 + mpmath.sqrt((1 - t) ** 2 + 4 * t * (1 - t + t * mpmath.e**2))) / (2 * t))),
    ("2**t-1", "4-4**t", lambda t: mpmath.log(
        (t - 1 + mpmath.sqrt((1 - t) ** 2 + 4 * t * (1 + 3 * t))) / (2 * t)) / mpmath.log(2)),
    ("tan(pi*t/4)", "1-tan(pi*t/4)", lambda t: 4 * mpmath.atan(t) / mpmath.pi),
    ("1-cos(pi*t/2)", "cos(pi*t/2)", lambda t: 2 * mpmath.acos(1 - t) / mpmath.pi),
    ("sin(pi*t/2)", "1-sin(pi*t/2)", lambda t: 2 * mpmath.asin(t) / mpmath.pi),
    ("sin(pi*t/2)**2", "1-sin(pi*t/2)**4", lambda t: 2 / mpmath.pi * mpmath.asin(
        mpmath.sqrt((t - 1 + mpmath.sqrt((1 - t) ** 2 + 4 * t**2)) / (2 * t)))),
    ("sin(pi*t/2)**2", "cos(pi*t/2)**2+sin(pi*t/2)*cos(pi*t/2)", lambda t: 2 / mpmath.pi * mpmath.atan(
        (t + mpmath.sqrt(t**2 + 4 * t * (1 - t))) / (2 * (1 - t)))),
    ("1-(1-t)**2", "(1-t)**2", lambda t: 1 - mpmath.sqrt(1 - t)),
    ("t**2", "1-t**4", lambda t: mpmath.sqrt((t - 1 + mpmath.sqrt((1 - t) ** 2 + 4 * t**2)) / (2 * t))),
    ("t**3", "(1-t)**3", lambda t: mpmath.cbrt(t) / (mpmath.cbrt(t) + mpmath.cbrt(1 - t))),
    ("t**3", "8*(1-t)**3", lambda t: 2 * mpmath.cbrt(t) / (2 * mpmath.cbrt(t) + mpmath.cbrt(1 - t))),
    ("t**2+t", "1-t", lambda t: (-1 + mpmath.sqrt(1 + 4 * t * (1 - t))) / (2 * (1 - t))),
]  # fmt: skip


@pytest.mark.parametrize(("alpha", "sigma", "tau"), BY_HAND, ids=[f"{alpha}, {sigma}" for alpha, sigma, _ in BY_HAND])
def test_the_ratio_is_unwrapped_function_by_function(alpha, sigma, tau):
    change = time_change.match_snr(ip.Path(alpha, sigma), ip.linear())
    noise = sp.lambdify(sp.Symbol("t"), sp.sympify(sigma), "mpmath")
    with mpmath.workdps(40):
        for time in (sp.Rational(1, 8), sp.Rational(1, 2), sp.Rational(7, 8)):
            exact = tau(mpf(time.p) / time.q)
            scale = (1 - mpf(time.p) / time.q) / noise(exact)
            for expr, function, expected in (
                (change.time_expr, change.time, exact), (change.scale_expr, change.scale, scale),
            ):  # fmt: skip
                assert abs(mpf(sp.N(expr.subs(t, time), 35)._mpf_) - expected) < mpf(10) ** -30
                assert abs(function(float(time)) - expected) <= 4e-15 * abs(expected)


@pytest.mark.parametrize(
    ("alpha", "sigma", "low"),
    [("t**1.01*(atan(148*t)/atan(148))", "1-exp(1-1/t)", -math.inf), ("1/(1-log(t))", "1-1/(1-log(t))", -14.0),
     ("t", "1-t", -1e4)],
)  # fmt: skip
def test_beyond_all_floats_between_them_the_times_are_the_ends(alpha, sigma, low):
    """At the first the slope dt / d log-SNR underflows long before the time does."""
    path = ip.Path(alpha, sigma)
    asked = tensor(-math.inf, low, 74.7, 90.0, math.inf)
    assert ip.time_at_log_snr(path, asked).tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
    inside = tensor(-8.0, -3.0, 0.0, 3.0, 60.0)
    assert path.log_snr(ip.time_at_log_snr(path, inside)).tolist() == pytest.approx(
        inside.tolist(), rel=1e-3, abs=1e-13
    )


LONG = (
    "t*(1+sin(t)+exp(t)+cos(t)*exp(-t)+log(1+t)+sqrt(1+t)+tanh(t)+atan(t)+sinh(t)*cos(2*t)+exp(3*t)*sin(2*t)"
    "+log(2+t)*exp(t**2)+t**3*sinh(t**2)+exp(2*t**3)*cos(t**2))"
)


@pytest.mark.parametrize(
    ("trained", "alpha", "found"),
    [("gvp", "t**4", True), ("gvp", "t**5", False), ("root", "t**2", True), ("root", "t**3", False),
     ("root", LONG, False)],
)  # fmt: skip
def test_a_formula_that_is_long_or_of_high_degree_is_left_to_iteration(trained, alpha, found):
    change = time_change.match_snr(PATHS[trained], ip.Path(alpha, "1-t"))
    assert change.is_closed_form == found == (change.scale_expr is not None)
    alpha_at = sp.lambdify(sp.Symbol("t"), sp.sympify(alpha), "mpmath")
    for time in (0.125, 0.5, 0.875):
        ratio = alpha_at(mpf(time)) / (1 - mpf(time))
        exact = 2 * mpmath.atan(ratio) / mpmath.pi if trained == "gvp" else ratio**2 / (1 + ratio**2)
        assert change.time(time) == pytest.approx(float(exact), rel=1e-14)


@pytest.mark.parametrize(
    ("alpha", "sigma"),
    [("sqrt(1+exp(t))-sqrt(2)+exp(t)-1", "exp(1)-exp(t)"), ("sin(pi*t/2)", "exp(-t)-exp(-1)"),
     ("2**t-1", "exp(1)-exp(t)")],
)  # fmt: skip
def test_a_ratio_of_more_than_one_function_is_left_to_iteration(alpha, sigma):
    change = match_snr(ip.Path(alpha, sigma), ip.linear())
    assert (change.time_expr, change.scale_expr) == (None, None)
    ratio = sp.lambdify(sp.Symbol("t"), sp.sympify(f"({alpha})/({sigma})"), "math")
    for time in (0.125, 0.5, 0.875):
        assert ratio(change.time(time)) == pytest.approx(time / (1 - time), rel=1e-13)


y = sp.Symbol("y", positive=True)
g = sp.Symbol("g", positive=True)


@pytest.mark.parametrize(
    ("rational", "number"),
    [
        (3 * g + 1, 1), (g / (2 + g), 1), ((2 * g**3 - 1) / (g**3 + 5), 1),  # of degree one, in a power
        (g**2 + 3 * g, 4), (g**2 / (1 - g), 4), ((3 - g + 2 * g**2) / (g + 7), 4), (g**4 - 5 * g**2 + 2, 4),  # of two
        (g**3 + g, 0), (sp.Integer(5), 0),
    ],
    ids=str,
)  # fmt: skip
def test_each_root_is_one(rational, number):
    """Of a quadratic equation both, in two forms each; at a y where they are complex too."""
    roots = list(time_change._roots(rational, g, y))
    assert len(roots) == number
    values = {sp.Rational(2, 7), sp.Rational(31, 3)}
    for value in values:
        found = [sp.N(root.xreplace({y: value}), 30) for root in roots]
        for root in found:
            assert abs(sp.N(rational.xreplace({g: root}), 30) - value) < 1e-22
        assert (
            len({round(complex(root).real, 9) + 1j * round(complex(root).imag, 9) for root in found}) == number // 2
            or number < 2
        )


@pytest.mark.parametrize(
    ("expr", "power"),
    [
        (5 * t**3, 3), (-2 * (t - 1) ** 3, 3), (3 * (t - 1) ** 2, 2), (sqrt(t) / sqrt(1 - t), sp.Rational(1, 2)),
        (-7 * (sin(t) - 2) ** 5, 5), (t**2 / (t - 1) ** 4, 2), (sqrt(2) * t / (t - 3), 1), (2 - t, 1),
        ((t - 1) ** sp.Rational(2, 3) * t ** sp.Rational(4, 3), sp.Rational(2, 3)), (t**2 - 2 * t + 1, 2),
        (t**sp.pi / (1 - t), 1), (sp.exp(t) ** 2 * (sp.exp(t) - 5) ** 4, 1),
    ],
    ids=str,
)  # fmt: skip
def test_as_a_power_an_expression_is_the_same_with_a_positive_base(expr, power):
    constant, base, exponent = time_change._as_power(expr)
    assert exponent == power
    assert not constant.has(t)
    for time in (0.13, 0.5, 0.77):
        assert complex(sp.N((constant * base**exponent - expr).xreplace({t: sp.Float(time, 30)}), 30)) == pytest.approx(
            0.0, abs=1e-12
        )
        assert base.xreplace({t: sp.Float(time)}) > 0 or not exponent.is_Integer


@pytest.mark.parametrize("function", [sp.exp, sp.log, sp.sin, sp.cos, sp.tan, sp.asin, sp.acos, sp.atan])
def test_functions_are_undone_by_their_inverses(function):
    (inverse,) = time_change._inverses(function(t), y)
    for value in (sp.Rational(1, 5), sp.Rational(4, 5)):
        assert sp.N(function(inverse.xreplace({y: value})), 25) == pytest.approx(sp.N(value, 25), rel=1e-20)


@pytest.mark.parametrize(
    "expr",
    [
        t**2 + 1,
        sp.exp(t) / (1 + sp.exp(t)),
        sp.exp(2 * t) - sp.exp(-3 * t),
        sp.sin(t) / (1 + sp.cos(t)),
        sp.sin(2 * t) ** 2 / sp.cos(2 * t),
        sp.tan(t) * sp.sin(t),
        sqrt(t) + t,
        sp.exp(t) + sp.exp(t**2),
    ],
    ids=str,
)
def test_with_one_function_an_expression_is_the_same(expr):
    found = list(time_change._with_one_function(expr, g))
    assert found
    for rewritten, meaning in found:
        for time in (sp.Rational(1, 5), sp.Rational(3, 7)):
            value = rewritten.xreplace({g: meaning})
            for cosine in value.free_symbols - {t}:  # which is left where it is in odd powers
                value = value.xreplace({cosine: sp.cos(meaning.args[0])})
            assert abs(sp.N((value - expr).xreplace({t: time}), 25)) < 1e-20


def test_a_formula_is_taken_if_it_solves_the_equation_to_thirty_digits():
    ratio, double = t / (1 - t), 2 * t / (1 - t)
    tau = 2 * t / (1 + t)
    for wrong, solves in ((0, True), (sp.Rational(1, 10**40), True), (sp.Rational(1, 10**25), False), (t, False)):
        assert time_change._solves(tau - wrong * (1 - t) * t, ratio, double, (0.0, 1.0)) == solves
    assert not time_change._solves(2 * t, ratio, 2 * t / (1 - 2 * t), (0.0, 1.0))  # beyond 1
    assert time_change._solves(2 * t, ratio, 2 * t / (1 - 2 * t), (0.0, 0.5))


def test_of_two_forms_of_a_formula_the_shorter_is_shown():
    change = match_snr(ip.Path("2**t-1", "2-2**t"), ip.linear())
    assert (change.time_expr, change.scale_expr) == (sp.log(1 + t) / sp.log(2), 1)
    change = match_snr(ip.linear(), ip.Path("2**t-1", "2-2**t"))
    assert change.time_expr in (2**t - 1, sp.exp(t * sp.log(2)) - 1)


@pairs
def test_the_expressions_have_the_values(trained, sampled):
    change = match_snr(PATHS[trained], PATHS[sampled])
    assert change.is_closed_form == (trained != "cubic") == (change.time_expr is not None)
    if not change.is_closed_form:
        return
    start, stop = change.interval
    for fraction in (0.1, 0.5, 0.9):
        time = start + fraction * (stop - start)
        exact = {t: sp.Float(time, 40)}
        assert change.time(time) == pytest.approx(float(change.time_expr.evalf(30, subs=exact)), rel=1e-13)
        assert change.scale(time) == pytest.approx(float(change.scale_expr.evalf(30, subs=exact)), rel=1e-13)


@pytest.mark.parametrize("trained", ["linear", "gvp", "cubic"])
@pytest.mark.parametrize("sampled", ["gvp", "squares"])
def test_pure_noise_is_pure_noise_and_data_is_data(trained, sampled):
    change = match_snr(PATHS[trained], PATHS[sampled])
    assert change.interval == (0.0, 1.0)
    assert (change.time(0.0), change.time(1.0)) == (0.0, 1.0)
    alphas = PATHS[sampled].alpha(1.0) / PATHS[trained].alpha(1.0)
    assert (change.scale(0.0), change.scale(1.0)) == (1.0, alphas)


def test_finite_ends_meet_the_time_of_their_snr_and_beyond_the_range_the_end_itself():
    vp, widening = PATHS["vp"], PATHS["widening"]
    change = match_snr(ip.linear(), vp)
    alpha = math.exp(-5.025)
    assert change.interval == (0.0, 1.0)
    assert change.time(0.0) == pytest.approx(alpha / (alpha + math.sqrt(1 - alpha**2)), rel=1e-14)
    assert change.scale(0.0) == pytest.approx(alpha + math.sqrt(1 - alpha**2), rel=1e-14)
    change = match_snr(vp, ip.linear())
    start = alpha / (alpha + math.sqrt(1 - alpha**2))
    assert change.interval == (pytest.approx(start, rel=1e-13), 1.0)
    below = tensor(0.0, start / 2, start * (1 - 1e-9), requires_grad=True)
    assert change.time(below).tolist() == [0.0, 0.0, 0.0]
    assert torch.autograd.grad(change.time(below).sum(), below)[0].tolist() == [0.0, 0.0, 0.0]
    assert change.scale(start / 2) == pytest.approx(math.hypot(start / 2, 1 - start / 2), rel=1e-14)
    assert change.time(start * 1.01) > 0
    change = match_snr(widening, ip.linear())  # (1, s) has alpha / sigma = 1 / s: it ends at t = 1 / (1 + s)
    assert change.interval == (pytest.approx(1 / 81.002, rel=1e-13), pytest.approx(1 / 1.002, rel=1e-13))
    assert (change.time(0.01), change.time(0.999), change.time(1.0)) == (0.0, 1.0, 1.0)
    assert change.scale(1.0) == pytest.approx(1 / math.hypot(1, 0.002), rel=1e-14)
    change = match_snr(widening, widening)
    assert change.interval == (0.0, 1.0)
    assert (change.time_expr, change.scale_expr) == (t, 1)


@pytest.mark.parametrize(("first", "second"), [("linear", "gvp"), ("cubic", "linear")])
def test_there_and_back_is_the_identity_and_two_changes_are_one(first, second):
    times = tensor(0.0, 1e-9, 1e-3, 0.2, 0.5, 0.8, 0.999, 1.0)
    there, back = match_snr(PATHS[first], PATHS[second]), match_snr(PATHS[second], PATHS[first])
    torch.testing.assert_close(back.time(there.time(times)), times, rtol=1e-13, atol=0.0)
    torch.testing.assert_close(
        back.scale(there.time(times)) * there.scale(times), torch.ones(8).double(), rtol=1e-13, atol=0
    )
    onward, direct = match_snr(PATHS["vp"], PATHS[first]), match_snr(PATHS["vp"], PATHS[second])
    inner = times[2:-1].clamp(min=0.3)
    torch.testing.assert_close(onward.time(there.time(inner)), direct.time(inner), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(
        onward.scale(there.time(inner)) * there.scale(inner), direct.scale(inner), rtol=1e-12, atol=0.0
    )


@pairs
def test_derivatives(trained, sampled):
    change = match_snr(PATHS[trained], PATHS[sampled])
    times = tensor(0.25, 0.5, 0.85, requires_grad=True)
    for function in (change.time, change.scale):
        if function(times).requires_grad:  # between two paths of radius 1 the scale is constant
            assert torch.autograd.gradcheck(function, times)
            assert torch.autograd.gradgradcheck(function, times)
        else:
            assert change.scale_expr == 1


def test_derivatives_at_the_ends_are_the_limits():
    times = tensor(0.0, 1.0, requires_grad=True)
    for trained, sampled, expected in (
        ("gvp", "linear", [2 / math.pi, 2 / math.pi]),
        ("linear", "gvp", [math.pi / 2, math.pi / 2]),
        ("linear", "quadratic", [0.0, 1.0]),
        ("quadratic", "squares", [math.pi / 2, 0.0]),  # both Wronskians are zero at t = 0
        ("mirrored", "squares", [0.0, math.pi / 2]),  # and these at t = 1
        ("root", "steeper", [4 / 9, 9 / 4]),  # and these infinite at both ends
        ("cubic", "squares", [0.0, 0.0]),
    ):
        change = match_snr(PATHS[trained], PATHS[sampled])
        got = torch.autograd.grad(change.time(times).sum(), times)[0]
        torch.testing.assert_close(got, tensor(*expected), rtol=1e-7, atol=1e-14)


@pytest.mark.parametrize("trained", ["gvp", "cubic"])
def test_what_goes_in_comes_out(trained):
    change = match_snr(PATHS[trained], ip.linear())
    exact = change.time(0.3)
    assert isinstance(exact, float)
    for function in (change.time, change.scale):
        value = function(0.3)
        assert function(np.float64(0.3)) == value
        assert function(1) == function(1.0)
        for dtype in (np.float32, np.float64):
            times = np.linspace(0.1, 0.9, 16, dtype=dtype).reshape(2, 8)
            got = function(times)
            assert got.dtype == dtype
            assert got.tolist() == function(times.astype(np.float64)).astype(dtype).tolist()
            np.testing.assert_allclose(got[0, 0], function(0.1), rtol=1e-7 if dtype == np.float32 else 1e-15)
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            time = torch.full((2, 1), 0.25, dtype=dtype)
            assert function(time).dtype == dtype
            assert function(time).tolist() == torch.full((2, 1), function(0.25), dtype=torch.float64).to(dtype).tolist()
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            function(1.5)
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            function(tensor(-0.5))
        with pytest.raises(TypeError, match="must be a tensor, an array or a number"):
            function("half")


def test_paths_in_paper_time_are_refused_and_changes_show_themselves():
    backwards = ip.linear().in_paper_time()
    for arguments, name in (((backwards, ip.gvp()), "trained"), ((ip.gvp(), backwards), "sampled")):
        with pytest.raises(
            ValueError, match=f"match_snr: {name} must have its data at t = 1, got 'linear, paper time'"
        ):
            match_snr(*arguments)
    with pytest.raises(ValueError, match="time_at_log_snr: path must have its data at t = 1"):
        time_at_log_snr(backwards, tensor(0.0))
    change = match_snr(ip.linear(), ip.gvp())
    assert (change.trained, change.sampled) == (ip.linear(), ip.gvp())
    assert repr(change) == f"SNRMatch(trained=linear, sampled=gvp: tau = {change.time_expr})"
    assert repr(match_snr(PATHS["cubic"], ip.gvp())) == "SNRMatch(trained=cubic, sampled=gvp: tau by iteration)"
    cubic = match_snr(PATHS["cubic"], ip.gvp())
    assert (cubic.time_expr, cubic.scale_expr) == (None, None)


# Predictions


def mixture():
    means = tensor([1.5, -0.5], [-1.0, 0.8])
    return ip.oracle.GaussianMixture(means, tensor(0.4, 0.6), tensor(1.0, 2.0))


@pytest.mark.parametrize(("trained", "sampled"), [("linear", "gvp"), ("cubic", "vp")])
def test_an_exact_network_is_exact_on_the_other_path(trained, sampled):
    """The marginals are p_s(x, t) = c^-d p_r(x / c, tau), and every quantity follows from every other."""
    m, change = mixture(), match_snr(PATHS[trained], PATHS[sampled])
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    times = tensor(0.1, 0.4, 0.7, 0.95)
    tau, scale = change.time(times), change.scale(times)
    log_prob = m.log_prob(x / scale[:, None], tau, PATHS[trained]) - 2 * scale.log()
    torch.testing.assert_close(m.log_prob(x, times, PATHS[sampled]), log_prob, rtol=1e-11, atol=1e-11)
    for source in ip.QUANTITIES:

        def network(state, time, source=source):
            assert time.shape == (4,)
            return getattr(m, source)(state, time, PATHS[trained])

        output = network(x / scale[:, None], tau)
        for target in ip.QUANTITIES:
            exact = getattr(m, target)(x, times, PATHS[sampled])
            got = change.convert(output, x, times, source=source, target=target)
            torch.testing.assert_close(got, exact, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(
                change.predict(network, x, times, prediction=source, target=target), exact, rtol=1e-9, atol=1e-9
            )
        # one time for all, and the velocity where nothing else is asked for
        expected = m.velocity(x, 0.4, PATHS[sampled])
        for time in (0.4, tensor(0.4).squeeze()):
            torch.testing.assert_close(
                change.predict(network, x, time, prediction=source), expected, rtol=1e-9, atol=1e-9
            )


def test_a_velocity_is_exact_at_both_ends_and_a_score_is_scaled_there():
    m, change = mixture(), match_snr(ip.linear(), ip.gvp())
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for time in (0.0, 1.0):
        for target in ("velocity", "data", "noise"):
            exact = getattr(m, target)(x, time, ip.gvp())
            got = change.predict(
                lambda x, t: m.velocity(x, t, ip.linear()), x, time, prediction="velocity", target=target
            )
            torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)
    to_wide = match_snr(ip.linear(), PATHS["widening"])
    score = torch.ones_like(x)
    got = to_wide.convert(score, x, 0.0, source="score", target="score")
    torch.testing.assert_close(got, score / to_wide.scale(0.0))
    assert change.convert(score, x, 1.0, source="score", target="score").tolist() == score.tolist()


def test_states_keep_their_dtype_and_shape_and_the_network_is_called_once():
    change, calls = match_snr(ip.gvp(), ip.linear()), []
    x = torch.randn(3, 2, 4, 4)

    def network(state, time):
        calls.append((state, time))
        return state

    got = change.predict(network, x, torch.tensor([0.0, 0.3, 1.0]), prediction="noise", target="noise")
    ((state, time),) = calls
    assert (state.dtype, time.dtype, time.shape) == (torch.float32, torch.float32, (3,))
    scales = torch.tensor([1.0, math.hypot(0.3, 0.7), 1.0])[:, None, None, None]
    torch.testing.assert_close(state, x / scales)
    torch.testing.assert_close(time, torch.tensor([0.0, 2 / math.pi * math.atan(3 / 7), 1.0]))
    assert torch.equal(got, state)


def test_what_else_a_network_takes_is_passed_on_and_a_velocity_is_expected():
    m, change = mixture(), match_snr(ip.linear(), ip.gvp())
    x, given = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), []

    def network(state, time, y, text=None):
        given.append((y, text))
        return m.velocity(state, time, ip.linear())

    got = change.predict(network, x, 0.4, y=[3, 1, 4], text="a cat")
    torch.testing.assert_close(got, m.velocity(x, 0.4, ip.gvp()), rtol=1e-9, atol=1e-9)
    assert given == [([3, 1, 4], "a cat")]
    with pytest.raises(TypeError, match="unexpected keyword argument 'predicton'"):
        change.predict(network, x, 0.4, y=None, predicton="noise")


def test_a_network_in_half_precision_is_told_the_time_in_float32():
    """bfloat16 would round tau = 0.998 to 1."""
    times = []
    change = match_snr(ip.linear(), ip.linear())
    change.predict(lambda x, t: times.append(t) or x, torch.zeros(2, 3, dtype=torch.bfloat16), 0.998)
    torch.testing.assert_close(times[0], torch.full((2,), 0.998))


@pytest.mark.parametrize("trained", ["gvp", "cubic"])
def test_a_time_that_is_a_number_goes_to_the_device_of_the_states_with_all_its_digits(trained):
    change = match_snr(PATHS[trained], ip.linear())
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(3, 2, dtype=dtype, generator=torch.Generator().manual_seed(0))

        def network(state, time, dtype=dtype):
            assert (time.dtype, time.device.type) == (dtype, "cpu")
            return state * time[:, None]

        with torch.device("meta"):  # the default device, where these states are not
            got = change.predict(network, x, 0.3, prediction="data", target="data")
        torch.testing.assert_close(
            got, x / change.scale(0.3) * change.time(0.3), rtol=4 * torch.finfo(dtype).eps, atol=0
        )


def test_wrong_predictions_are_refused():
    change, x = match_snr(ip.gvp(), ip.linear()), torch.randn(3, 2)
    with pytest.raises(ValueError, match="convert: source must be one of"):
        change.convert(x, x, 0.5, source="speed", target="data")
    with pytest.raises(ValueError, match="convert: target must be one of"):
        change.convert(x, x, 0.5, source="data", target="speed")
    with pytest.raises(ValueError, match="predict: prediction must be one of"):
        change.predict(lambda x, t: x, x, 0.5, prediction="speed")
    with pytest.raises(ValueError, match="prediction must have the shape of x_t"):
        change.convert(x[:2], x, 0.5, source="noise", target="data")
    with pytest.raises(ValueError, match=r"must be a scalar or have shape \(batch,\)"):
        change.convert(x, x, torch.rand(2), source="noise", target="data")
    with pytest.raises(TypeError, match=r"the state must be a floating point torch\.Tensor"):
        change.convert(x, x.long(), 0.5, source="noise", target="data")


# The inverse of the log-SNR


@pytest.mark.parametrize("name", ["linear", "gvp", "vp", "cubic", "squares", "widening"])
def test_time_at_log_snr_agrees_with_root_finding(name):
    low, high = {"vp": (-10.0, 60.0), "widening": (-8.7, 12.4)}.get(name, (-90.0, 60.0))
    values = [low, low / 2, -3.0, -0.1, 0.0, 0.1, 2.0, 8.0, high / 2, high]
    got = time_at_log_snr(PATHS[name], tensor(*values)).tolist()
    with mpmath.workdps(40):
        for value, time in zip(values, got, strict=True):
            u, _ = time_by_root_finding(name, mpf(value) / 2)
            slope = abs(time_by_root_finding(name, mpf(value) / 2 + mpf(10) ** -9)[0] - u) * mpf(10) ** 9
            # The rounding of the time itself, and that of the log-SNR where the path evaluates it.
            assert abs(mpf(time) - u) <= 2.0**-53 * (2 * u + 4 * max(1, abs(value)) * slope)


def test_time_at_log_snr_of_the_linear_path_is_a_logistic_function_far_into_both_ends():
    values = tensor(-1500.0, -600.0, -100.0, -1.0, 0.0, 1.0, 20.0, 70.0, 75.0, 79.0, 143.0, 2000.0)
    expected = torch.sigmoid(values / 2)
    torch.testing.assert_close(time_at_log_snr(ip.linear(), values), expected, rtol=1e-13, atol=0.0)
    # sin^2 and cos^2 keep 1 - t apart from 0 far longer: alpha / sigma = tan^2
    got = time_at_log_snr(PATHS["squares"], values[5:])
    torch.testing.assert_close(got, 2 / math.pi * torch.atan(torch.exp(values[5:] / 4)), rtol=3e-16, atol=0.0)


@pytest.mark.parametrize("name", ["linear", "gvp", "vp", "cubic", "widening"])
def test_time_at_log_snr_is_differentiable_twice(name):
    values = tensor(-6.0, -1.0, 0.0, 2.0, 7.0, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: time_at_log_snr(PATHS[name], v), values)
    assert torch.autograd.gradgradcheck(lambda v: time_at_log_snr(PATHS[name], v), values)


@pytest.mark.parametrize(
    ("name", "looks"),
    [("linear", 1), ("root", 2), ("gvp", 4), ("quadratic", 4), ("squares", 4), ("cosine", 5), ("vp", 7),
     ("widening", 9), ("flat", 9), ("steps", 6)],
)  # fmt: skip
def test_time_at_log_snr_looks_at_the_path_a_few_times(name, looks, monkeypatch):
    """Once where the log-SNR is twice the logit of time, from which the search starts, and twice where it is any other
    multiple, since Newton's method is exact then; bisection alone looks 40 times.
    """
    seen, slope = [], time_change._slope(PATHS[name])
    low, high = (float(PATHS[name].log_snr.limit(end)) for end in (0, 1))
    values = torch.linspace(max(low, -12.0), min(high, 12.0), 50, dtype=torch.float64)[1:-1]

    def kernel(time):
        seen.append(time)
        return slope.kernel(time)

    monkeypatch.setattr(time_change, "_slope", lambda path: types.SimpleNamespace(kernel=kernel))
    got = time_at_log_snr(PATHS[name], values)
    assert len(seen) <= looks + 1  # and once to polish
    torch.testing.assert_close(PATHS[name].log_snr(got), values, rtol=0.0, atol=1e-11)
    if high == math.inf:  # where neighbouring times are far apart in log-SNR the search ends, by bisection at worst
        seen.clear()
        time_at_log_snr(PATHS[name], torch.linspace(20.0, 70.0, 50, dtype=torch.float64))
        assert len(seen) <= 40


def test_time_at_log_snr_beyond_the_ends_is_the_end():
    values = tensor(-math.inf, -8.8, 12.5, math.inf, math.nan, requires_grad=True)
    times = time_at_log_snr(PATHS["widening"], values)
    assert times[:4].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert times[4].isnan()
    assert torch.autograd.grad(times[:4].sum(), values)[0][:4].tolist() == [0.0] * 4
    assert time_at_log_snr(ip.linear(), tensor(-math.inf, math.inf)).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_time_at_log_snr_keeps_shape_and_dtype(dtype):
    values = torch.linspace(-4, 4, 6).reshape(2, 3).to(dtype)
    times = time_at_log_snr(ip.gvp(), values)
    assert times.dtype == dtype
    expected = 2 / math.pi * torch.atan(torch.exp(values.double() / 2))
    torch.testing.assert_close(times, expected.to(dtype), rtol=0.0, atol=1e-15)
    assert time_at_log_snr(ip.gvp(), values[:0]).shape == (0, 3)


@pytest.mark.parametrize(("wrong", "got"), [(torch.tensor([1]), "torch.int64"), (0.5, "float")])
def test_time_at_log_snr_refuses_what_is_no_tensor_of_floats(wrong, got):
    with pytest.raises(TypeError, match=f"log_snr must be a floating point tensor, got {got}"):
        time_at_log_snr(ip.linear(), wrong)


# Shifts


@pytest.mark.parametrize("shift", [0.5, 3, 3.16])
def test_a_shift_divides_alpha_over_sigma_of_the_linear_path(shift):
    path = shifted(ip.linear(), shift)
    times = np.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(path.alpha(times) / path.sigma(times) * shift, times / (1 - times), rtol=1e-14)
    np.testing.assert_allclose(path.alpha(times) + path.sigma(times), 1.0, rtol=1e-15)
    in_noise_time = shift * (1 - times) / (1 + (shift - 1) * (1 - times))  # as Esser et al. write it, 1 is noise
    np.testing.assert_allclose(path.sigma(times), in_noise_time, rtol=1e-14)
    assert path.name == f"linear, shift {shift:g}"


def test_shifts_multiply_and_one_is_none():
    for path, numbers in ((ip.linear(), (6, 1.5, 4)), (PATHS["quadratic"], (2, 4, 0.5))):
        once, twice = shifted(path, numbers[0]), shifted(shifted(path, numbers[1]), numbers[2])
        assert sp.simplify(once.alpha.expr / once.sigma.expr - twice.alpha.expr / twice.sigma.expr) == 0
        assert shifted(path, 1) == path
        for time in (0.0, 1e-8, 0.3, 0.8, 1.0):
            assert once.alpha(time) == pytest.approx(twice.alpha(time), rel=1e-13)
    there_and_back = shifted(shifted(ip.linear(), 0.25), 4)
    assert sp.simplify(there_and_back.alpha.expr - t) == 0
    assert match_snr(ip.linear(), shifted(ip.linear(), 3)).time_expr.equals(t / (3 - 2 * t))


@pytest.mark.parametrize("wrong", [0, -1.0, math.inf, math.nan, "3", True, None])
def test_a_shift_is_a_positive_number(wrong):
    with pytest.raises(ValueError, match="shifted: shift must be a positive finite number, got"):
        shifted(ip.linear(), wrong)
