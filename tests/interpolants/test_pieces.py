"""Kinks: pieces against evaluation, paths with kinks against their own halves, and the ledger of them."""

import mpmath
import numpy as np
import pytest
import sympy as sp

import interpolants as ip
from interpolants.effort import bounded
from interpolants.expression import parse, t
from interpolants.pieces import NotFoundError, derivative, pieces, resolved

R = sp.Rational


@pytest.mark.parametrize(
    "text",
    ["abs(t-1/2)", "abs(t**2-1/5)*t", "Max(t, 1-t**2)", "Min(1/2, t, 1-t)", "sqrt((sin(t)-0.5)**2)",
     "abs(abs(t-1/2)-1/4)",
     "exp(-abs(3*t-1))", "abs(t+1)", "abs(exp(t)-2)+Max(t**3, 1/8)", "abs(t**5-t/3-1/9)"],
)  # fmt: skip
def test_pieces_are_the_function(text):
    expr = parse(text)
    found = resolved(expr)
    assert not any(piece.has(sp.Abs, sp.Max, sp.Min) for piece, _, _ in pieces(expr))
    exact = sp.lambdify(t, expr, "mpmath")
    for time in np.linspace(0.003, 0.997, 41):
        got = sp.lambdify(t, found.subs(t, sp.Rational(*float(time).as_integer_ratio())), "mpmath")(0)
        assert abs(got - exact(mpmath.mpf(time))) < 1e-12


def test_slopes_and_jumps_within_the_pieces():
    slope = resolved(sp.diff(sp.Abs(t - R(1, 2)), t))
    assert [slope.subs(t, time) for time in (R(1, 4), R(3, 4))] == [-1, 1]
    assert resolved(sp.diff(sp.Abs(t - R(1, 2)), t, 2)) == 0
    assert resolved(sp.sign(1 + t)) == 1
    assert resolved(sp.DiracDelta(t - 1)) == 0


@pytest.mark.parametrize("text", ["abs(sin(1/t))", "abs(t**2*sin(20/t)-t**3)", "Max(t, t+sin(1/t))"])
def test_a_kink_whose_places_are_not_all_found_stays_as_it_is(text):
    """Infinitely many, next to the noise: no sign may be taken for that of all of (0, 1)."""
    assert resolved(parse(text)) == parse(text)
    with pytest.raises(NotFoundError, match="not isolated"):
        pieces(parse(text))


KINKED = [
    ("t", "(1-t)*(1+sqrt((t-0.5)**2))"), ("t", "sqrt((1-t)**2)"), ("t", "(1-t)*(1+sqrt((sin(t)-0.5)**2)/4)"),
    ("t+sqrt((t-sqrt(5)/5)**2)/3-sqrt(5)/15", "1-t"), ("Max(t**2, t/2)", "1-t"), ("t", "Min(1-t/2, 2-2*t)"),
]  # fmt: skip


@pytest.mark.parametrize(("alpha", "sigma"), KINKED)
def test_a_path_with_kinks_has_a_ledger_and_its_coefficients_are_those_of_its_smooth_parts(alpha, sigma):
    path = ip.Path(alpha, sigma)
    assert path.undecided == ()
    ledger = ip.prove(path)
    # The place of the kink of |sin t - 1/2| is known to 50 digits, and that of its square's composition to as many.
    assert {entry.status for entry in ledger.entries} <= (
        {"proved", "bounded", "undecided"} if "sin" in sigma else {"proved"}
    )
    exact = [sp.lambdify(t, parse(text), "mpmath") for text in (alpha, sigma)]
    with mpmath.workdps(40):
        for time in (0.07, 0.31, 0.449, 0.62, 0.71, 0.93):
            at, h = mpmath.mpf(time), mpmath.mpf(10) ** -15
            a, s = (f(at) for f in exact)
            da, ds = ((f(at + h) - f(at - h)) / (2 * h) for f in exact)
            w = da * s - a * ds
            assert path.wronskian(time) == pytest.approx(float(w), rel=1e-12)
            assert path.log_snr(time) == pytest.approx(float(2 * mpmath.log(a / s)), rel=1e-12)
            assert path.conversion("velocity", "score")[1](time) == pytest.approx(float(a / (s * w)), rel=1e-12)


def test_a_kink_that_lets_the_log_snr_fall_is_refused():
    with pytest.raises(ValueError, match="log-SNR must increase"):
        ip.Path("t", "(1-t)*(1+9*sqrt((t-0.5)**2))")


@pytest.mark.parametrize(("alpha", "sigma"), KINKED[:2])
def test_a_change_of_time_and_the_paper_s_time_take_the_kinks_along(alpha, sigma):
    path = ip.Path(alpha, sigma)
    assert path.after("t**2").sigma(0.6) == pytest.approx(path.sigma(0.36), rel=1e-14)
    assert path.in_paper_time().d_sigma(0.25) == pytest.approx(-path.d_sigma(0.75), rel=1e-14)


def test_the_slope_of_an_absolute_value_is_real_where_sympy_does_not_know_its_argument_to_be():
    path = ip.Path("0.7*t+0.3*(2*sqrt((t-0.5)**2)+2*t-1)", "1-t").after("1-sqrt(1-t**2)")
    times = np.array([0.1, 0.5, 0.8, 0.9, 0.99])
    m, slope = 1 - np.sqrt(1 - times**2), times / np.sqrt(1 - times**2)
    np.testing.assert_allclose(path.alpha(times), 0.7 * m + np.where(m > 0.5, 0.6 * (2 * m - 1), 0), rtol=1e-14)
    np.testing.assert_allclose(path.d_alpha(times), np.where(m > 0.5, 1.9, 0.7) * slope, rtol=1e-14)
    np.testing.assert_allclose(
        path.conversion("velocity", "noise")[1](times) * path.wronskian(times), -path.alpha(times)
    )


def test_so_is_the_slope_of_a_sign():
    square_root = sp.Abs(sp.sqrt(1 - t**2) - sp.Rational(1, 2))
    curvature = derivative(derivative(square_root))
    for time in (0.3, 0.95):
        exact = -((1 - time**2) ** -1.5) * (1 if time < 0.75**0.5 else -1)
        assert float(curvature.subs(t, time)) == pytest.approx(exact, rel=1e-12)


def test_the_ledger_differentiates_so_too():
    path = ip.Path("0.7*t+0.3*(2*sqrt((t-0.5)**2)+2*t-1)", "1-t").after("1-sqrt(1-t**2)")
    statuses = {entry.name: entry.status for entry in ip.prove(path).entries}
    assert statuses["derivative of the Wronskian"] == statuses["likelihood weight"] == "proved"


@pytest.mark.parametrize(
    "text",
    [
        "t**t*sin(3*t)",
        "(2-t)**(t*t)",
        "exp(sin(t)**2/(1+t))",
        "atan(t)**3-log(1+t)*cosh(t)",
        "sqrt(1+tan(t/2))",
        "acos(t)*3",
    ],
)
def test_slopes_are_those_of_differences(text):
    expr = parse(text)
    function, slope = (sp.lambdify(t, e, "mpmath") for e in (expr, derivative(expr)))
    with mpmath.workdps(40):
        for time in map(mpmath.mpf, (0.2, 0.5, 0.9)):
            assert abs(mpmath.diff(function, time) - slope(time)) < 1e-12


def test_the_slope_of_a_power_asks_for_no_sign():
    """sympy builds the logarithm of the base, and to tell its sign factors polynomials in exp(1/20)."""
    base = parse("(t+t*exp(12.7)-exp(6.35)*t**2)/(1+exp(6.35))**2+1")
    with bounded(50_000):
        slope = derivative(base**7)
    assert sp.expand(slope - 7 * base**6 * sp.diff(base, t)) == 0


def test_parts_that_occur_often_are_looked_at_once():
    expr = sp.Abs(t - R(1, 3))
    for _ in range(14):  # a tree of 2^14 leaves
        expr = sp.exp(expr) + expr**3
    with bounded(200_000):
        found = resolved(expr)
    assert [condition for _, condition in found.args] == [t <= R(1, 3), True]
