"""Rigorous values, signs and bounds: against evaluation in many digits."""

import itertools

import flint
import mpmath
import pytest
import sympy as sp
from flint import arb_series
from hypothesis import given
from hypothesis import strategies as st
from sympy.codegen import cfunctions

from interpolants import enclosure
from interpolants.enclosure import bound
from interpolants.expression import parse, t

LOW, HIGH = sp.Rational(1, 16), sp.Rational(15, 16)

FUNCTIONS = [
    "t", "-t**3", "1/(1+t)", "(1+t)**(-5/2)", "t**0.3", "exp(-3*t)", "log(t)", "sin(7*t)", "cos(7*t)", "tan(t)",
    "asin(t)", "acos(t)", "atan(5*t)", "sinh(t)", "cosh(2*t)", "tanh(3*t)", "t**t", "2**(t**2)", "sqrt(1-t**2)/t",
    "pi*t - sqrt(2)", "sin(pi*t)", "exp(sin(3*t))*log(1+t)", "(t-1/2)**4",
    "sin(t**2)", "atan(t**3)", "cot(1+t)/sec(t)**2",
]  # fmt: skip


def largest(expr):
    function = sp.lambdify(t, expr, "mpmath")
    steps = 400
    return max(abs(function(mpmath.mpf(1) / 16 + mpmath.mpf(7 * k) / (8 * steps))) for k in range(steps + 1))


def number(ball):
    """The ends of a ball."""
    with enclosure.precision(2000):
        low, high = (mpmath.mpf(x.str(200, radius=False)) for x in (ball.lower(), ball.upper()))
    return low, high


@pytest.mark.parametrize("text", FUNCTIONS)
def test_a_bound_is_above_every_value_and_near_the_largest(text):
    expr = parse(text)
    with mpmath.workdps(60):
        found, value = number(bound(expr, LOW, HIGH))[1], largest(expr)
        assert found >= value
    assert found <= 1.5 * value + 1e-9


@pytest.mark.parametrize("name", ["sinh", "tanh", "expm1", "log1p"])
@pytest.mark.parametrize("power", [10, 400, 2**62, 10**40])
def test_what_is_x_to_first_order_keeps_its_digits_however_small_x_is(name, power):
    function = enclosure.enclosed(getattr(cfunctions if name in ("expm1", "log1p") else sp, name)(t))
    with enclosure.precision(768):
        x = flint.arb(flint.fmpq(1, 3)) * flint.arb((1, -power))
        found = function(x)
        assert found.rel_accuracy_bits() > 750
    if power > 400:  # where 1 + x is 1 to all digits
        assert found.overlaps(x)
        return
    with enclosure.precision(4000):
        e, log = x.exp(), (1 + x).log()
        right = {"expm1": e - 1, "sinh": (e - 1 / e) / 2, "tanh": 1 - 2 / (e * e + 1), "log1p": log}
        assert found.overlaps(right[name])


def test_the_series_of_log1p_is_that_of_log():
    of_log1p, of_log = (enclosure.enclosed(f) for f in (cfunctions.log1p(t**2 + t), sp.log(1 + t + t**2)))
    with enclosure.precision(200, 6):
        x = arb_series([flint.arb(1) / 7, 1])
        assert all(a.overlaps(b) and a.rel_accuracy_bits() > 150 for a, b in zip(of_log1p(x), of_log(x), strict=True))


@pytest.mark.parametrize("enclosed", [enclosure.enclosed, enclosure.Shared()])
@pytest.mark.parametrize("text", FUNCTIONS)
def test_the_series_encloses_the_taylor_coefficients_at_every_point_and_is_narrow_at_one(text, enclosed):
    expr = parse(text)
    function = sp.lambdify(t, expr, "mpmath")
    middle, width, order = sp.Rational(3, 8), sp.Rational(1, 64), 6
    with enclosure.precision(160, order):
        code = enclosed(expr)
        at_middle = code(arb_series([enclosure.point(middle), 1]))
        on_cell = code(arb_series([enclosure.hull(middle - width, middle + width), 1]))
    with mpmath.workdps(60):
        for place in (middle - width, middle, middle + width):
            exact = mpmath.taylor(function, mpmath.mpf(int(place.p)) / int(place.q), order - 1)
            for k, value in enumerate(exact):
                low, high = number(on_cell[k])
                assert low - mpmath.mpf(10) ** -20 <= value <= high + mpmath.mpf(10) ** -20
                if place == middle:
                    low, high = number(at_middle[k])
                    assert abs((low + high) / 2 - value) <= mpmath.mpf(10) ** -20 * (1 + abs(value))
                    assert high - low <= mpmath.mpf(10) ** -35 * (1 + abs(value))


@pytest.mark.parametrize("text", [*FUNCTIONS, "exp(-1250)*(1+t)", "tanh(180*t) - 1", "abs(t-1/2)", "Max(t, 1-t**2)"])
def test_a_value_has_a_hundred_bits(text):
    expr = parse(text)
    for time in (sp.Rational(1, 3), sp.Rational(1, 10**30), 0.7, 1 - 2.0**-53):
        ball = enclosure.value(expr, time)
        with mpmath.workdps(400):
            at = mpmath.mpf(time) if isinstance(time, float) else mpmath.mpf(int(time.p)) / int(time.q)
            exact = sp.lambdify(t, expr, "mpmath")(at)
            low, high = number(ball)
            assert abs((low + high) / 2 - exact) <= abs(exact) * mpmath.mpf(2) ** -99


SIGNS = [
    ("t", 1), ("t-1", -1), ("1-sqrt(1-t**3)", 1), ("cos(pi*t/2)", 1), ("log(t)", -1), ("t*log(1/t)", 1),
    ("exp(1-1/t)", 1), ("exp(-exp(1/t))", 1), ("1-(2**(exp(1-1/t))-1)", 1), ("tanh(tan(pi*t/2))", 1),
    ("log(1+t**3)/log(2)", 1), ("cos(pi*t**3*(10-15*t+6*t**2)/2)", 1), ("sin(t)-t", -1), ("acos(t)", 1),
    ("1-tanh(30*t)/tanh(30)", 1), ("t+0.001*exp(-5000*(t-0.5)**2)-0.001*exp(-1250)", 1), ("t**(1/9999)", 1),
    ("1+tanh(cos(pi*t))", 1), ("sqrt(2+sqrt(3))-(sqrt(6)+sqrt(2))/2+t**2", 1), ("(1-t)*(1+abs(t-1/2))", 1),
    ("1/log(2/t)", 1), ("t**2-t+0.2501", 1), ("1/t-1/(1-t)+1/(t*(1-t))", 1),
    ("t-1/2", 0), ("t**2-t+0.2499", 0), ("1-t-0.9*exp(-1e9*(t-0.4567)**2)", 0), ("1-t+1e-9/(t-sqrt(5)/5)**2 - 2", 0),
    ("sin(40*t)", 0), ("log(t-1/2)", 0), ("(2*t-1)**2", 0), ("1+cos(2*pi*t)", 0),
    ("t*(1-t)*(t-1/3)**2", 0), ("(t-3/7)**2+0*t", 0), ("1/(t-2/9)**2", 0), ("2+1/(t-5/13)**2", 0),
    ("t*(1-t)*(t-sqrt(5)/5)**2", 0), ("1/(t-sqrt(5)/5)**2", 0), ("exp(-1/(t-sqrt(5)/5)**2)", 0),
    ("(1-t)*abs(t-sqrt(5)/5)", 0),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SIGNS)
def test_signs_on_all_of_the_interval(text, expected):
    expr = parse(text)
    assert enclosure.sign(expr).value == expected
    assert enclosure.sign(sp.Mul(-1, expr, evaluate=False)).value == -expected


@pytest.mark.parametrize("text", [text for text, expected in SIGNS if expected == 0])
def test_what_has_no_sign_is_refuted_at_a_rational_time(text):
    """The time is one at which the function, by itself, is negative, zero, not real or infinite in 50 digits."""
    verdict = enclosure.is_positive(parse(text))
    assert verdict.holds is False
    with mpmath.workdps(60):
        at = mpmath.mpf(int(verdict.time.p)) / int(verdict.time.q)
        try:
            value = sp.lambdify(t, parse(text), "mpmath")(at)
        except ZeroDivisionError:
            return
        assert mpmath.im(value) != 0 or value <= 1e-50 or value > 1e90


@pytest.mark.parametrize(
    ("text", "holds"),
    [("(2*t-1)**2", True), ("1-t", True), ("abs(t-1/3)*exp(t)", True), ("(1+t)*(t-1/2)**4*sqrt(t)", True),
     ("0*t", True),
     ("(t-1/2)*(t-0.51)", False), ("(t-1/3)**2*(t-1/2)*(t-0.51)*exp(t)", False), ("exp(t)*(9*t**2-6*t+1)+0*t", True),
     ("1-2*t*(1-t)-2*(t-1/2)**2-1/2+(t-1/7)**2*(1+cos(2*pi*t))", True), ("cos(2*pi*t)+1", True),
     ("(t-1/2)**3", False), ("-exp(-1e9*(t-0.4567)**2)", False), ("t-1e-9", False), ("1/(t-1/2)", False)],
)  # fmt: skip
def test_what_may_touch_zero_and_what_may_not_go_below(text, holds):
    assert enclosure.is_nonnegative(parse(text)).holds is holds


def test_pieces_have_the_sign_that_they_have_where_they_join_too():
    half, third = sp.Rational(1, 2), sp.Rational(1, 3)
    valley = sp.Piecewise((half - t, t <= half), (t - half, True))
    assert enclosure.is_positive(valley) == enclosure.Verdict(False, half)
    assert enclosure.is_nonnegative(valley).holds is True
    assert enclosure.is_positive(sp.Piecewise((1 + t, t <= third), (2 - t, True))).holds is True
    beside = sp.Piecewise((half - t, t <= half), (t, True))  # 0 at 1/2 itself, and positive on both sides
    assert enclosure.is_positive(beside) == enclosure.Verdict(False, half)
    pole = sp.Piecewise((1 / (third - t), t <= third), (1, True))
    for decide in (enclosure.is_positive, enclosure.is_nonnegative):
        assert decide(pole) == enclosure.Verdict(False, third)
    touching = sp.Piecewise((sp.cos(sp.pi * t) ** 2, t <= half), (0, True))
    assert enclosure.is_nonnegative(touching).holds is True
    assert enclosure.is_positive(touching).holds is False
    below = sp.Piecewise((0, t <= third), ((t - half) * (t - third), True))
    verdict = enclosure.is_nonnegative(below)
    assert verdict.holds is False
    assert third < verdict.time < half


@given(low=st.fractions(0, 1, max_denominator=200), width=st.fractions(0, 1, max_denominator=200))
def test_the_simplest_fraction_has_the_smallest_denominator(low, width):
    low, high = sp.Rational(low), sp.Rational(low + width)
    found = enclosure._simplest(low, high)
    smallest = next(q for q in itertools.count(1) if sp.ceiling(low * q) <= high * q)
    assert low <= found <= high
    assert found.q == smallest


def test_a_question_too_hard_is_left_undecided():
    """Two functions of which no normal form knows that they are one: the difference is 0, which no ball shows."""
    expr = sp.Add(parse("atan(t/(1-t))"), parse("atan((1-t)/t)-pi/2"), evaluate=False)
    assert enclosure.is_positive(expr).holds is not True
    assert enclosure.sign(sp.Function("f")(t)).value == 0


@pytest.mark.parametrize(
    ("text", "exact"),
    [("sin(7*t)", [sp.pi / 7, 2 * sp.pi / 7]), ("exp(t)-3/2", [sp.log(sp.Rational(3, 2))]), ("1+t", [])],
)
def test_changes_of_sign_to_fifty_digits(text, exact):
    found = enclosure.roots(parse(text))
    assert len(found) == len(exact)
    assert all(abs(sp.N(a - b, 60)) < 1e-49 for a, b in zip(found, exact, strict=True))


@pytest.mark.parametrize("text", ["sin(1/t)", "t**2*sin(20/t)-t**3", "cos(2*pi*t)+1"])
def test_changes_of_sign_that_are_not_isolated_are_none_that_are_known(text):
    assert enclosure.roots(parse(text)) is None


def test_the_sign_of_a_sign():
    assert enclosure.sign(sp.sign(t - sp.Rational(1, 2))).value == 0
    assert enclosure.sign(sp.sign(1 + t) + t).value == 1
    assert enclosure.sign(sp.sign(sp.sin(t) - 2) - sp.exp(t)).value == -1


def test_cells_are_halved_until_the_function_is_defined_on_each_and_no_further():
    """t^2 - t + 0.26 is at least 0.01; on a cell of width 1/73 its two terms apart are not above zero."""
    found = bound(sp.log(t**2 - t + sp.Rational(26, 100)), LOW, HIGH)
    assert mpmath.log(100) <= float(found) <= 1.01 * mpmath.log(100)
    assert bound(sp.sin(10**6 * t), LOW, HIGH) >= 1


ZEROS = [
    ("sin(t)**2+cos(t)**2", "1"), ("sqrt(t)*sqrt(1-t)", "sqrt(t-t**2)"), ("log(t**2)", "2*log(t)"),
    ("tanh(3*t)", "(exp(6*t)-1)/(exp(6*t)+1)"), ("atan(t/(1-t))", "pi/2-atan((1-t)/t)"), ("asin(t)", "pi/2-acos(t)"),
    ("sin(40*t)**2", "1-cos(40*t)**2"), ("tan(t)*cos(t)", "sin(t)"), ("t**(1/3)*t**(2/3)", "t"),
    ("cosh(t)**2", "1+sinh(t)**2"),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), ZEROS)
def test_what_is_zero_is_bounded_by_almost_nothing(left, right):
    assert bound(sp.Add(parse(left), -parse(right), evaluate=False), LOW, HIGH) < 1e-9


@given(
    coefficients=st.lists(st.integers(-9, 9), min_size=1, max_size=5), low=st.integers(0, 6), width=st.integers(1, 6)
)
def test_polynomials_are_bounded_by_their_extremes(coefficients, low, width):
    expr = sum((c * t**k for k, c in enumerate(coefficients)), sp.Integer(0))
    low, high = sp.Rational(low, 8), sp.Rational(low + width, 8)
    points = [low, high, *(r for r in sp.Poly(sp.diff(expr, t), t).nroots() if r.is_real and low <= r <= high)]
    value = max(abs(float(expr.subs(t, p))) for p in points)
    assert (
        value * (1 - 1e-12)
        <= float(bound(expr, low, high))
        <= 2 * value + 0.6 * float(high - low) * sum(abs(c) * (k + 1) for k, c in enumerate(coefficients))
    )


@pytest.mark.parametrize("text", ["1/(t-1/2)", "log(t-1/2)", "sqrt(t-1/2)"])
def test_what_cannot_be_enclosed_is_refused(text):
    with pytest.raises(ArithmeticError, match="could not be bounded"):
        bound(parse(text), LOW, HIGH)


@pytest.mark.parametrize("expr", [1 / t, sp.log(1 - t), sp.Function("f")(t), t * sp.sqrt(-2)], ids=str)
def test_what_is_singular_unknown_or_not_real_is_refused(expr):
    with pytest.raises(ArithmeticError, match="could not be bounded"):
        bound(expr, sp.Integer(0), sp.Integer(1))


def test_the_precision_of_ball_arithmetic_is_left_as_it_was():
    before = flint.ctx.prec, flint.ctx.cap
    bound(t, LOW, HIGH)
    enclosure.value(sp.exp(t), 0.5)
    assert (flint.ctx.prec, flint.ctx.cap) == before
