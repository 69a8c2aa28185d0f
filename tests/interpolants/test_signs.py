"""Signs by interval arithmetic: never claimed where there is another one, and found where the function is clear."""

import mpmath
import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from sympy import Rational

from interpolants import signs
from interpolants.expression import parse, t
from interpolants.simplify import is_zero, simplified

FUNCTIONS = [
    "t", "3 - 7*t", "t**3 - t**2", "(t-1/3)**2", "(1+t)**(-3)", "t**0.3", "(2+t)**(-2.5)", "exp(-3*t)", "log(2+t)",
    "sin(7*t)", "cos(7*t)", "tan(t)", "asin(t)", "acos(t)", "atan(5*t)", "sinh(t-1/2)", "cosh(2*t-1)", "tanh(3*t)",
    "pi*t", "1/(t-2)", "1/(t-2)**3", "exp(sin(9*t))*(t-1/2)",
]  # fmt: skip


@pytest.mark.parametrize("text", FUNCTIONS)
def test_an_enclosure_holds_every_value(text):
    expr = parse(text)
    low, high = signs.enclosed(expr, signs.cells())
    exact = sp.lambdify(t, expr, "mpmath")
    left, right = signs.cells()
    for i in range(0, len(left), 37):
        for part in (0, 0.3, 1):
            value = exact(mpmath.mpf(left[i]) + part * (mpmath.mpf(right[i]) - mpmath.mpf(left[i])))
            assert low[i] <= value <= high[i]
        assert high[i] - low[i] <= 60 * (right[i] - left[i]) + 1e-10 + 0.5 * abs(low[i])


def test_the_absolute_value_and_squares_reach_zero_where_the_argument_crosses_it():
    cell = np.array([0.25]), np.array([0.75])
    for expr in (sp.Abs(t - Rational(1, 2)), (t - Rational(1, 2)) ** 2):
        low, high = signs.enclosed(expr, cell)
        assert low[0] == 0.0
        assert high[0] == pytest.approx(0.25 if expr.is_Pow is not True else 0.0625, rel=1e-9)
    low, high = signs.enclosed(sp.cosh(t - Rational(1, 2)), cell)
    assert low[0] == pytest.approx(1.0)


def test_the_cells_leave_nothing_out():
    low, high = signs.cells()
    assert low[0] == signs.NEAREST
    assert high[-1] == 1 - signs.NEAREST
    assert np.array_equal(low[1:], high[:-1])
    assert np.all(low < high)
    assert np.max(high - low) <= 2.0**-8
    assert np.all((high - low) <= 0.11 * np.minimum(high, 1 - low) + 1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1-exp(-t)", 1), ("exp(t)-exp(1)", -1), ("sin(pi*t/2)", 1), ("cos(pi*t/2)", 1), ("-1-t", -1), ("log(t)", -1),
        ("t-1/2", 0), ("cos(3*t)", 0), ("(t-1/2)**2", 0), ("1-2*exp(-1000000*(t-0.3)**2)", 0), ("t-0.00001", 0),
        ("1+10**(-3)-exp(-1000*(t-0.3)**2)", 1),
    ],
)  # fmt: skip
def test_signs(text, expected):
    expr = parse(text)
    assert signs.sign(lambda time: signs.enclosed(expr, time)) == expected


@pytest.mark.parametrize(
    "expr", [sp.sqrt(t - 1), sp.log(t - 1), 1 / (t - sp.Rational(1, 2)), sp.tan(4 * t), sp.Function("f")(t)]
)
def test_what_has_no_rule_is_unknown(expr):
    with pytest.raises(signs.Unknown), np.errstate(all="ignore"):
        signs.enclosed(expr, signs.cells())


ODD = Rational(1, 10**5)


@pytest.mark.parametrize(
    "expr",
    [
        sp.Abs(t - ODD) - (t - ODD),
        parse("sqrt((t-0.00001)**2)-t+0.00001"),
        sp.sqrt((t - ODD) * (t - 2 * ODD)) - sp.sqrt(t - ODD) * sp.sqrt(t - 2 * ODD),
        parse("sqrt((1-2*exp(-1000000*(t-0.3)**2))**2)-1+2*exp(-1000000*(t-0.3)**2)"),
        parse("sqrt(cos(3*pi*t)**2)-cos(3*pi*t)"),
    ],
    ids=lambda e: str(e)[:30],
)
def test_a_root_of_what_changes_its_sign_is_not_resolved(expr):
    """Each is zero on most of (0, 1), and not on all of it."""
    assert not is_zero(expr)
    assert simplified(expr) != 0


@given(root=st.integers(1, 10**6 - 1), scale=st.sampled_from([10**6, 10**9, 10**12]))
def test_polynomials_in_time_are_decided_exactly(root, scale):
    inside = Rational(root, 10**6) if scale == 10**6 else Rational(root, scale)
    assert not is_zero(sp.Abs(t - inside) - (t - inside))
    assert is_zero(sp.Abs(t + inside) - (t + inside))
    assert is_zero(sp.sqrt((t - 1 - inside) ** 2) - (1 + inside - t))
