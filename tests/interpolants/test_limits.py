"""Limits and leading powers at the ends, against those found by hand."""

import mpmath
import pytest
import sympy as sp

import interpolants as ip
from interpolants import limits
from interpolants.effort import bounded
from interpolants.expression import parse, t
from interpolants.limits import evaluate, leading, limit

R = sp.Rational
exp, log, sin, cos, tan, sqrt, pi = sp.exp, sp.log, sp.sin, sp.cos, sp.tan, sp.sqrt, sp.pi


@pytest.mark.parametrize(
    ("expr", "end", "value"),
    [
        (t, 0, 0), (t, 1, 1), (sp.Integer(7), 0, 7), (sp.sqrt(2), 1, sp.sqrt(2)),
        (sin(t) / t, 0, 1), ((exp(3 * t) - 1) / t, 0, 3), ((1 - cos(t)) / t**2, 0, R(1, 2)),
        (cos(pi * t / 2) / (1 - t), 1, pi / 2), (1 / t, 0, sp.oo), (-1 / t, 0, -sp.oo), (1 / (1 - t), 1, sp.oo),
        (1 / (t - 1), 1, -sp.oo), (1 / sqrt(1 - t), 1, sp.oo), (tan(pi * t / 2), 1, sp.oo), (tan(pi * t / 2), 0, 0),
        (1 / tan(pi * t / 2), 1, 0), (log(t), 0, -sp.oo), (-log(1 - t), 1, sp.oo), (log(t), 1, 0),
        (t * log(t), 0, 0), (log(t) / (1 - t), 1, -1), (exp(-1 / t), 0, 0), (exp(1 / t), 0, sp.oo),
        (t ** R(1, 3), 0, 0), (t ** R(3, 2) / sin(t) ** R(3, 2), 0, 1), ((1 - t**2) / (1 - t), 1, 2),
        ((sqrt(1 + t) - 1) / t, 0, R(1, 2)), (exp(-5 * (1 - t)), 0, exp(-5)),
        (sp.Piecewise((1 / t, t <= R(1, 2)), (t + 3, True)), 0, sp.oo),
        (sp.Piecewise((1 / t, t <= R(1, 2)), (t + 3, True)), 1, 4),
        (sp.Min(1 / t, 5), 0, 5), (sp.Max(t, R(1, 4)), 0, R(1, 4)),
        (2 * sp.atan(t / (1 - t)) / pi, 1, 1), (t + sp.atan((1 - t) / t), 0, pi / 2),
        *((t * sin(k / t), 0, 0) for k in range(1, 5)),
    ],
    ids=str,
)  # fmt: skip
def test_limits_are_those_found_by_hand(expr, end, value):
    got = limit(expr, end)
    assert got == value or abs(sp.N(got - value, 25)) < 1e-18


@pytest.mark.parametrize(
    ("expr", "end", "coefficient", "power"),
    [
        (t, 0, 1, 1), (1 - t, 1, 1, 1), (t, 1, 1, 0), (1 - t**2, 1, 2, 1), (3 / t**2, 0, 3, -2),
        (-2 / (1 - t) ** 3, 1, -2, -3), (sqrt(1 - t), 1, 1, R(1, 2)), (sqrt(1 - exp(-2 * t)), 0, sqrt(2), R(1, 2)),
        (1 - cos(t), 0, R(1, 2), 2), (tan(pi * t / 2), 1, 2 / pi, -1), (tan(pi * t / 2), 0, pi / 2, 1),
        (sin(pi * t) ** 2, 1, pi**2, 2), (sin(t) - t, 0, R(-1, 6), 3), (t ** R(2, 3) * (1 - t), 0, 1, R(2, 3)),
        (log(t), 1, -1, 1), (cos(pi * t / 2) / t, 1, pi / 2, 1), (sp.Integer(0), 0, 0, 0), (sp.Integer(5), 1, 5, 0),
        (sin(t) ** 2 + cos(t) ** 2 - 1, 0, 0, 0), (sqrt(t) + t, 0, 1, R(1, 2)),
        (sp.Piecewise((t**2, t <= R(1, 2)), ((1 - t) / 2, True)), 1, R(1, 2), 1),
        (sp.Piecewise((t, t <= R(1, 4)), (t**2, t <= R(1, 2)), (3 * t, True)), 1, 3, 0),
        (t * exp(1 + t), 0, sp.E, 1), (t * (2 + t) ** pi, 0, 2**pi, 1),
        *((c * (sin(t) ** 2 + cos(t) ** 2), 1, c, 0) for c in (sqrt(2), sqrt(3), pi, sp.E, log(2), R(1, 3))),
    ],
    ids=str,
)  # fmt: skip
def test_leading_powers_are_those_found_by_hand(expr, end, coefficient, power):
    got, exponent = leading(expr, end)
    assert exponent == power
    assert abs(sp.N(got - coefficient, 25)) < 1e-18
    assert not got.has(sp.Float)


@pytest.mark.parametrize("expr", [log(t), t * log(t), exp(-1 / t), t**2 * (1 + log(t) / 10**13)], ids=str)
def test_what_is_no_power_of_the_distance_is_refused(expr):
    with pytest.raises(ArithmeticError, match="no power"):
        leading(expr, 0)


@pytest.mark.parametrize("end", [2, -1, 0.5])
@pytest.mark.parametrize("function", [limit, leading])
def test_only_the_two_ends_have_limits(function, end):
    with pytest.raises(ValueError, match=rf"limit: end must be 0 \(noise\) or 1 \(data\), got {end}\."):
        function(t, end)


@pytest.mark.parametrize("digits", [15, 60, 120, 200])
def test_evaluation_has_the_digits_that_are_asked_for(digits):
    at = mpmath.mpf("0.375")
    with mpmath.workdps(digits + 20):
        want = mpmath.sqrt(mpmath.mpf(1) / 3) * mpmath.sin(mpmath.pi * at) + mpmath.exp(-at) ** 2 / 7
        got = evaluate(sqrt(R(1, 3)) * sin(pi * t) + exp(-2 * t) / 7, at, digits)
        assert abs(got - want) <= mpmath.mpf(10) ** (2 - digits)


def test_evaluation_at_a_pole_is_infinite_and_off_the_real_line_no_number():
    assert evaluate(1 / t, mpmath.mpf(0)) == mpmath.inf
    assert mpmath.isnan(evaluate(sqrt(t - 1), mpmath.mpf("0.5")))
    assert evaluate(R(1, 4) + 0 * t, mpmath.mpf("0.5")) == 0.25


@pytest.mark.parametrize(
    ("text", "end", "expected"),
    [
        ("1/(1-log(t))", 0, 0), ("t*(1-log(t))", 0, 0), ("-sqrt(1-log(t))", 0, -sp.oo),
        ("2*log(30*t**(1/50))", 0, -sp.oo), ("t**(1/50)", 0, 0), ("1/(1-log(1-t))", 1, 0),
        ("(1-(1-t)**1.2)/(1-t**1.5)**0", 1, 1), ("acos(t)/sqrt(1-t)", 1, sp.sqrt(2)),
        ("1/sqrt(1-log(t))", 0, 0), ("t**(1/200)", 0, 0), ("t**(-1/400)", 0, sp.oo), ("-t**(-1/400)", 0, -sp.oo),
        ("3-t**(1/50)", 0, 3), ("3-sqrt(t)", 0, 3),
    ],
)  # fmt: skip
def test_slow_approaches_and_roots(text, end, expected):
    found = limit(parse(text), end)
    assert found == expected or float(found) == pytest.approx(float(expected), rel=1e-14)


@pytest.mark.parametrize(
    ("expr", "number"),
    [
        (10**20 + 1 / (1 - log(t)), sp.Integer(10) ** 20),
        (1 + 1 / (1 - log(t)) / 10**17, sp.Integer(1)),
        (R(1, 1000) + 1 / (1 - log(t)) / 10**17, R(1, 1000)),
    ],
    ids=str,
)
def test_a_number_that_is_reached_slowly_is_that_number_where_fifteen_digits_of_it_are(expr, number):
    assert limit(expr, 0) == number


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1 + 1/(1-log(t))", 1), ("1/2 - 48/(1-log(t))", R(1, 2)), ("1/2 - 70/(1-log(t))", R(1, 2))],
)
def test_what_is_approached_as_slowly_as_by_a_logarithm(text, expected):
    """At every distance that a computer has, the second and the third are far from their limit, and below 0."""
    assert limit(parse(text), 0) == expected
    assert limit(-parse(text), 0) == -expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1/(t*(1-log(t))**2)", sp.oo), ("log(t)/(1-log(t))", -1), ("t*log(t)**3/(1-log(t))", 0),
        ("sqrt(1-log(t))-log(t)", sp.oo), ("tanh(1/(1-log(t)))*log(t)", -1), ("cos(1/log(t))", 1),
        ("(1-sqrt(1-1/(1-log(t))**2))*log(t)**2", R(1, 2)), ("log(1-log(t))-log(2-log(t))", 0),
    ],
)  # fmt: skip
def test_powers_of_the_logarithm(text, expected):
    """With L = -log(t), which tends to infinity: -L / (1 + L), (1 - sqrt(1 - x^2)) / x^2 for x = 1 / (1 + L)."""
    assert limit(parse(text), 0) == expected
    assert limit(parse(text.replace("t)", "(1-t))").replace("t*", "(1-t)*")), 1) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exp(1/t)/(1-log(t))", sp.oo), ("exp(-1/t)*t/(exp(-1/t)*t**2+exp(-2/t))", sp.oo),
        ("exp(1-1/t)*t**2/(exp(1-1/t)+exp(1-1/t)*t**2*sin(t))", 0), ("exp(1/t)-exp(1/t+t)", -sp.oo),
        ("(exp(-1/t+2*t)-exp(-1/t))/(t*exp(-1/t))", 2), ("log(exp(-1/t)*t)*t", -1), ("t**(1/t)", 0),
        ("exp(exp(1/t))*exp(-exp(1/t)-1/t)", 0), ("(1-exp(-exp(-1/t)/3))*exp(1/t)", R(1, 3)),
        ("(exp(2/sqrt(exp(t)-1))*t-t**2)*exp(-1/sqrt(exp(t)-1))/(1+t)", sp.oo),
        ("(pi/2-atan(exp(1/t)))*exp(1/t)", 1), ("log(1+exp(-1/t))*exp(1/t)/t", sp.oo),
    ],
)  # fmt: skip
def test_exponentials_that_are_no_powers(text, expected):
    """Where exp(-1/t) occurs above and below, only what multiplies it counts."""
    assert limit(parse(text), 0) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("t**pi", 0), ("t**sqrt(2)/tan(t)", 0), ("t/t**sqrt(2)", sp.oo), ("t**sin(t**t)/t**sin(1)", 1)],
)
def test_irrational_powers(text, expected):
    assert limit(parse(text), 0) == expected


@pytest.mark.parametrize("text", ["sqrt(t-1)", "sin(1/t)", "t**2*sin(1/t)/t**2"])
def test_what_has_no_limit_or_none_that_is_established(text):
    with pytest.raises(ArithmeticError, match="no limit was found"):
        limit(parse(text), 0)


@pytest.mark.parametrize(
    ("text", "end", "expected"),
    [("log(1-log(t))", 0, sp.oo), ("-3*log(1-t)", 1, sp.oo), ("2*log(1+t)", 1, 2 * sp.log(2)), ("log(t)/2", 0, -sp.oo)],
)
def test_the_limit_of_a_logarithm_is_the_logarithm_of_the_limit(text, end, expected):
    assert limit(parse(text), end) == expected


def test_a_limit_that_is_a_simple_number_is_that_number():
    """Corrections of a small power of the distance hide it from substitution, not from evaluation at 1e-80."""
    b = ip.Path("t", "(1-t)**1.2").sde("velocity", "sin_squared").b
    assert b.limit(1) == 1
    assert leading(parse("(1-t)**0.3 + (1-t)**0.5/3"), 1) == (1, sp.Rational(3, 10))
    coefficient, power = leading(10**30 * sp.acos(t), 1)  # acos(1 - s) = sqrt(2 s) (1 + s/12 + ...)
    assert power == R(1, 2)
    assert float(coefficient) == pytest.approx(1e30 * 2**0.5, rel=1e-14)


def test_zeros_of_high_order():
    assert leading(t - sp.sin(t), 0) == (sp.Rational(1, 6), 3)
    assert leading(1 - t - sp.sin(1 - t), 1) == (sp.Rational(1, 6), 3)
    assert leading(sp.sin(t - 1) - (t - 1), 1) == (sp.Rational(1, 6), 3)
    cosine = 1 - t**2 / 2 + t**4 / 24 - t**6 / 720
    assert leading(sp.cos(t) - cosine, 0) == (sp.Rational(1, 40320), 8)
    sine = t - t**3 / 6 + t**5 / 120 - t**7 / 5040
    assert leading(sp.sin(t) - sine, 0) == (sp.Rational(1, 362880), 9)


@pytest.mark.parametrize(
    ("expr", "end", "expected"),
    [
        (sp.sin(t) / t / 10**20, 0, sp.Integer(10) ** -20),
        (t ** sp.Rational(-1, 1000), 0, sp.oo),
        (-((1 - t) ** sp.Rational(-1, 1000)), 1, -sp.oo),
    ],
    ids=str,
)
def test_what_is_small_or_grows_slowly_is_not_taken_for_zero_or_finite(expr, end, expected):
    assert limit(expr, end) == expected


def test_a_large_number_is_not_taken_for_a_rational():
    c, power = limits.leading(10**30 * sp.acos(t), 1)  # acos(1 - s) = sqrt(2 s) + ...
    assert power == sp.Rational(1, 2)
    assert float(c) == pytest.approx(1e30 * 2**0.5, rel=1e-15)


@pytest.mark.parametrize(
    "zero",
    [
        sqrt(2 + sqrt(3)) - (sqrt(6) + sqrt(2)) / 2,
        sp.cbrt(2 + sqrt(5)) - (1 + sqrt(5)) / 2,
        sin(pi / 7) * sin(2 * pi / 7) * sin(3 * pi / 7) - sqrt(7) / 8,
    ],
    ids=str,
)
def test_a_zero_that_no_normal_form_shows_is_one(zero):
    """Nested roots, and an identity of Gauss: to any number of digits they are 0."""
    assert limit(zero + sin(t), 0) == 0
    assert leading((zero + t) / t**2, 0) == (1, -1)
    coefficient, power = leading((zero + sin(t)) * (2 + t), 0)
    assert power == 1
    assert abs(sp.N(coefficient - 2, 50)) < 1e-45
    assert leading(sqrt(zero + t**2), 0) == (1, 1)
    assert limit((zero - t) / t**2, 0) == -sp.oo


def test_a_number_that_is_merely_small_is_no_zero():
    small = R(1, 10**100)
    assert limit(small + t**2, 0) == small
    assert limit(small * exp(t), 0) == small


def test_constants_that_cancel_without_being_seen_to_are_not_taken_for_a_limit():
    """alpha / sigma at t = 1: sigma is 0 there, by a relation between exponentials that no normal form shows."""
    path = ip.Path("t**0.7", "1-t**0.7").after(
        "(sinh(0.04*t)/sinh(0.04))/((sinh(0.04*t)/sinh(0.04))+8*(1-sinh(0.04*t)/sinh(0.04)))"
    )
    assert path.log_snr.limit(1) == sp.oo
    path = ip.Path("exp(-15*(1-(cosh(3*t)-1)/(cosh(3)-1)*t))", "1-exp(-30*(1-(cosh(3*t)-1)/(cosh(3)-1)*t))")
    assert path.log_snr.limit(1) == sp.oo


@pytest.mark.parametrize("k", [100, 20_000])
def test_a_sum_whose_largest_terms_cancel_has_the_sign_of_the_rest(k):
    bump = exp(-k * (1 - t / 2) ** 2)
    expr = 1 - t**2 + 3 * bump * t - bump * t**3
    assert sp.simplify(limit(expr, 1) - 2 * exp(-sp.Rational(k, 4))) == 0


def test_a_limit_of_many_parts_has_the_digits_that_it_shows():
    """1 - tanh(106)^2 is 1e-92: as a difference it has lost 92 digits, of which an enclosure keeps few."""
    rise = "(sigmoid(2.11*(t-0.5))-sigmoid(-2.11/2))/(sigmoid(2.11/2)-sigmoid(-2.11/2))"
    root = "sqrt((1-exp(-13.2*t))/(1-exp(-13.2)))"
    path = ip.Path(f"1.1*tanh(106*{rise})/tanh(106)", f"151*(1-{root}/({root}+0.00855*(1-{root})))")
    drift = path.sde("velocity", w="sigma").a
    with mpmath.workdps(900):
        beside = evaluate(drift.expr, 1 - mpmath.mpf(10) ** -100, digits=900)
        assert abs(mpmath.mpf(str(sp.N(drift.limit(1), 40))) / beside - 1) < 1e-30


def test_the_root_of_digits_times_exact_numbers_is_digits():
    """sympy opens such a root without end."""
    digits = sp.Float("0.115592962160719767001128288249933597373622398985234378085173", 60)
    exact = sp.Integer(2) ** R(3, 16) * 79 ** R(19, 40) * pi ** R(-19, 20) * (1 - exp(R(-79, 2))) ** R(-19, 40)
    with bounded(1_000_000):
        found = limits._Term(sp.Mul(digits, exact)).raised(R(1, 2)).coefficient
    with mpmath.workdps(60):
        want = mpmath.sqrt(mpmath.mpf(str(digits)) * sp.lambdify((), exact, "mpmath")())
        assert abs(mpmath.mpf(str(found)) / want - 1) < 1e-50
