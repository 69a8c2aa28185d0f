"""Rigorous bounds: never below the largest value found by evaluation, and small where the function is zero."""

import mpmath
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from interpolants import enclosure
from interpolants.enclosure import bound
from interpolants.expression import parse, t

LOW, HIGH = sp.Rational(1, 16), sp.Rational(15, 16)

FUNCTIONS = [
    "t", "-t**3", "1/(1+t)", "(1+t)**(-5/2)", "t**0.3", "exp(-3*t)", "log(t)", "sin(7*t)", "cos(7*t)", "tan(t)",
    "asin(t)", "acos(t)", "atan(5*t)", "sinh(t)", "cosh(2*t)", "tanh(3*t)", "t**t", "2**(t**2)", "sqrt(1-t**2)/t",
    "pi*t - sqrt(2)", "sin(pi*t)", "exp(sin(3*t))*log(1+t)", "(t-1/2)**4",
    "sin(t**2)", "atan(t**3)",
]  # fmt: skip


def largest(expr):
    function = sp.lambdify(t, expr, "mpmath")
    steps = 400
    return max(abs(function(mpmath.mpf(1) / 16 + mpmath.mpf(7 * k) / (8 * steps))) for k in range(steps + 1))


@pytest.mark.parametrize("text", FUNCTIONS)
def test_a_bound_is_above_every_value_and_near_the_largest(text):
    expr = parse(text)
    with mpmath.workdps(60):
        found, value = bound(expr, LOW, HIGH), largest(expr)
        assert found >= value
    assert found <= 1.5 * value + 1e-9


def test_a_bound_is_not_rounded_down():
    with mpmath.workdps(60):
        assert bound(t / 3, sp.Integer(0), sp.Integer(1)) >= mpmath.mpf(1) / 3


def ends(interval):
    return mpmath.mpf(interval.a), mpmath.mpf(interval.b)


@pytest.fixture
def digits():
    before, mpmath.iv.dps = mpmath.iv.dps, enclosure.DIGITS
    yield enclosure.DIGITS
    mpmath.iv.dps = before


@pytest.mark.parametrize("text", [f for f in FUNCTIONS if "h(" not in f])
def test_the_series_encloses_the_taylor_coefficients_at_every_point_and_is_narrow_at_one(text, digits):
    expr = parse(text)
    function = sp.lambdify(t, expr, "mpmath")
    middle, width = sp.Rational(3, 8), sp.Rational(1, 64)
    at_middle = enclosure._series(expr, enclosure._interval(middle, middle))
    on_cell = enclosure._series(expr, enclosure._interval(middle - width, middle + width))
    assert len(at_middle) == len(on_cell) == enclosure.ORDER + 1
    with mpmath.workdps(60):
        for place in (middle - width, middle, middle + width):
            exact = mpmath.taylor(function, mpmath.mpf(int(place.p)) / int(place.q), enclosure.ORDER)
            for coefficient, value in zip(on_cell, exact, strict=True):
                low, high = ends(mpmath.iv.mpf(coefficient))
                assert low - mpmath.mpf(10) ** -20 <= value <= high + mpmath.mpf(10) ** -20
            if place == middle:
                low, high = ends(mpmath.iv.mpf(at_middle[0]))
                assert low <= exact[0] <= high
                for coefficient, value in zip(at_middle, exact, strict=True):
                    low, high = ends(mpmath.iv.mpf(coefficient))
                    assert abs((low + high) / 2 - value) <= mpmath.mpf(10) ** -20 * (1 + abs(value))
                    assert high - low <= mpmath.mpf(10) ** -35 * (1 + abs(value))


@pytest.mark.parametrize("expr", [sp.pi, -sp.sqrt(2), sp.Rational(1, 3), sp.Integer(-7), sp.exp(-30)], ids=str)
def test_a_constant_is_enclosed_to_all_digits_but_the_last(expr, digits):
    with mpmath.workdps(100):
        low, high = ends(enclosure._constant(expr))
        exact = mpmath.mpmathify(sp.N(expr, 100))
        assert low <= exact <= high
        assert high - low <= abs(exact) * mpmath.mpf(10) ** (2 - digits)
        assert expr.is_Rational or high - low >= abs(exact) * mpmath.mpf(10) ** -digits


@pytest.mark.parametrize("function", [sp.asin, sp.acos, sp.atan])
def test_an_inverse_function_is_enclosed_to_all_digits_but_the_last(function, digits):
    with mpmath.workdps(100):
        for k in range(-10, 11):
            time = sp.Rational(k, 16)
            low, high = ends(enclosure._series(function(t), enclosure._interval(time, time))[0])
            assert low < getattr(mpmath, function.__name__)(mpmath.mpf(k) / 16) < high
            assert high - low <= mpmath.mpf(10) ** (1 - digits)


def test_cells_are_halved_until_the_function_is_defined_on_each_and_no_further():
    """t^2 - t + 0.26 is at least 0.01; on a cell of width 1/73 its two terms apart are not above zero."""
    found = bound(sp.log(t**2 - t + sp.Rational(26, 100)), LOW, HIGH)
    assert mpmath.log(100) <= found <= 1.01 * mpmath.log(100)
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


@pytest.mark.parametrize(
    ("text", "message"),
    [("1/(t-1/2)", "a power of what may be 0"), ("log(t-1/2)", "a logarithm of what may be negative"),
     ("sqrt(t-1/2)", "a root of what may be negative")],
)  # fmt: skip
def test_what_cannot_be_enclosed_is_refused(text, message):
    with pytest.raises(ArithmeticError, match=rf"^enclosure: {message}\.$"):
        bound(parse(text), LOW, HIGH)


@pytest.mark.parametrize("text", ["1/t", "1/(1-t)**2", "sqrt(t)", "log(t)", "log(1-t)"])
def test_what_is_singular_at_the_very_edge_is_refused(text):
    with pytest.raises(ArithmeticError, match=r"^enclosure: a (power|root|logarithm) of what may be"):
        bound(parse(text), sp.Integer(0), sp.Integer(1))


def test_unknown_functions_and_constants_are_refused():
    with pytest.raises(ArithmeticError, match="no rule for f"):
        bound(sp.Function("f")(t), LOW, HIGH)
    with pytest.raises(ArithmeticError, match="is not a real number"):
        bound(t * sp.sqrt(-2), LOW, HIGH)


def test_the_precision_of_interval_arithmetic_is_left_as_it_was():
    before = mpmath.iv.dps
    bound(t, LOW, HIGH)
    assert mpmath.iv.dps == before
