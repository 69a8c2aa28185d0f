"""Signs by interval arithmetic: never claimed where there is another one, and found where the function is clear."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import sympy as sp
from hypothesis import example, given
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


def cell(low, high):
    return np.array([low]), np.array([high])


@pytest.mark.parametrize(
    ("expr", "low", "high", "bounds"),
    [
        (sp.Abs(t - Rational(1, 8)), 0.25, 0.75, (0.125, 0.625)),
        (sp.Abs(t - 2), 0.25, 0.75, (1.25, 1.75)),
        (sp.Abs(t - Rational(5, 8)), 0.25, 0.75, (0.0, 0.375)),
        (sp.cosh(t - Rational(5, 8)), 0.25, 0.75, (1.0, np.cosh(0.375))),
        (sp.sin(100 * t), 0.0, 1.0, (-1.0, 1.0)),
        (sp.sin(t), 0.0, 0.02, (np.sin(0.01) - 0.01, np.sin(0.01) + 0.01)),
        (sp.tan(3 + t), 0.1, 0.2, (np.tan(3.1), np.tan(3.2))),
        (sp.tan(t), 2.0, 2.1, (np.tan(2.0), np.tan(2.1))),
        (sp.exp(-2 * t), 0.0, 1.0, (np.exp(-2.0), 1.0)),
        (sp.Integer(0), 0.25, 0.75, (0.0, 0.0)),
    ],
    ids=str,
)  # fmt: skip
def test_bounds_of_one_cell_by_hand(expr, low, high, bounds):
    got = signs.enclosed(expr, cell(low, high))
    assert (got[0][0], got[1][0]) == pytest.approx(bounds, rel=1e-13, abs=1e-13)


def test_each_cell_may_lie_on_another_side_of_a_pole():
    low, high = signs.enclosed(1 / (t - Rational(1, 2)), (np.array([0.1, 0.6]), np.array([0.4, 0.9])))
    assert (low.tolist(), high.tolist()) == (pytest.approx([-10, 2.5]), pytest.approx([-2.5, 10]))


def encloses(interval, exact):
    (low,), (high,) = interval
    return Fraction(float(low)) <= min(exact) and max(exact) <= Fraction(float(high))


numbers = st.floats(-1e12, 1e12).map(lambda x: x if abs(x) > 1e-20 else 0.0)  # nothing underflows
ends = st.tuples(numbers, numbers).map(sorted)


@given(a=ends, b=ends, power=st.integers(2, 9))
@example(a=[-4280387012.0, 1.0], b=[0.2550690257394217, 2.0], power=2)  # of the larger term the larger bound counts
@example(a=[0.2550690257394217, 2.0], b=[-4280387012.0, 1.0], power=3)
def test_sums_products_and_powers_enclose_the_exact_ones(a, b, power):
    """In rational arithmetic at the corners, between which each of them is monotone, and at a zero."""
    exact_a, exact_b = ([Fraction(x) for x in ab] for ab in (a, b))
    assert encloses(signs.plus(cell(*a), cell(*b)), [x + y for x, y in zip(exact_a, exact_b, strict=True)])
    assert encloses(signs.multiplied(cell(*a), cell(*b)), [x * y for x in exact_a for y in exact_b])
    inner = [Fraction(0)] if a[0] <= 0 <= a[1] else []
    assert encloses(signs.raised(cell(*a), power), [x**power for x in exact_a + inner])


@given(x=st.floats(0.9, 1.1) | st.floats(1e-3, 1e3), exponent=st.sampled_from([0.3, 2.5, -2.5, 0.7]))
def test_a_power_of_a_number_encloses_it_and_is_narrow(x, exponent):
    low, high = signs.enclosed(sp.Pow(t, sp.Rational(str(exponent))), cell(x, x))
    with mpmath.workdps(40):
        exact = mpmath.mpf(x) ** mpmath.mpf(str(exponent))
        assert low[0] <= exact <= high[0]
    assert high[0] - low[0] <= 2e-13 * low[0]


def test_a_sine_next_to_its_zero_is_enclosed_although_the_bounds_cancel():
    for high in 1e-9 * np.linspace(1, 2, 101):
        low = high * 1e-12
        down, up = signs._RULES["sin"](low, high)
        assert down <= low * (1 - 1e-16)
        assert up >= high
        down, up = signs._RULES["sin"](-high, -low)
        assert down <= -high
        assert up >= -low * (1 - 1e-16)


def test_the_cells_leave_nothing_out():
    low, high = signs.cells()
    assert low[0] == signs.NEAREST
    assert high[-1] == 1 - signs.NEAREST
    assert np.array_equal(low[1:], high[:-1])
    assert np.all(low < high)
    assert np.max(high - low) <= 0.002 + 1e-12
    assert np.all((high - low) <= 0.1 * np.minimum(high, 1 - low) + 1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1-exp(-t)", 1), ("exp(t)-exp(1)", -1), ("sin(pi*t/2)", 1), ("cos(pi*t/2)", 1), ("-1-t", -1), ("log(t)", -1),
        ("t-1/2", 0), ("cos(3*t)", 0), ("(t-1/2)**2", 0), ("-(t-1/2)**2", 0), ("1-2*exp(-1000000*(t-0.3)**2)", 0),
        ("t-0.00001", 0), ("t-0.0000012", 0), ("1-t-0.0000012", 0), ("1+10**(-3)-exp(-1000*(t-0.3)**2)", 1),
    ],
)  # fmt: skip
def test_signs(text, expected):
    expr = parse(text)
    assert signs.sign(lambda time: signs.enclosed(expr, time)) == expected


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("margin", "found"), [(0.1, True), (1e-4, True), (1e-6, True), (-1e-6, False)])
def test_an_enclosure_too_wide_by_the_width_of_a_cell_is_refined(sign, margin, found):
    """Of |t - c| + margin, which is positive, or has two roots about c."""

    def enclose(time, c=0.3017):
        low, high = time
        distances = np.abs(low - c), np.abs(high - c)
        least = np.where((low < c) & (c < high), 0.0, np.minimum(*distances))
        bounds = least + margin - (high - low), np.maximum(*distances) + margin + (high - low)
        return bounds if sign == 1 else (-bounds[1], -bounds[0])

    assert signs.sign(enclose) == (sign if found else 0)


@given(c=st.floats(1e-4, 1 - 1e-4), sign=st.sampled_from([1, -1]))
def test_a_dip_anywhere_in_a_cell_is_seen(c, sign):
    expr = sign * (sp.Abs(t - Rational(str(c))) - Rational(1, 10**9))
    assert signs.sign(lambda time: signs.enclosed(expr, time)) == 0


def test_a_jump_between_two_cells_is_seen():
    def enclose(time):
        values = np.where(time[0] < 0.5, -1.0, 1.0)
        return values, values

    assert signs.sign(enclose) == 0
    assert signs.sign(lambda time: (-(enclose(time)[0] ** 2), -(enclose(time)[1] ** 2))) == -1


@pytest.mark.parametrize("sign", [1, -1])
def test_a_cell_of_the_other_sign_is_seen_although_only_its_parts_show_it(sign):
    """The bounds of the whole cell reach zero, as those of all others do not."""
    whole = signs.cells()[0][200], signs.cells()[1][200]

    def enclose(time):
        inside = (time[0] >= whole[0]) & (time[1] <= whole[1])
        high = np.where(inside & (time[1] - time[0] < whole[1] - whole[0]), -0.5, 0.5)
        bounds = np.where(inside, -1.0, 0.25), np.where(inside, high, 0.75)
        return bounds if sign == 1 else (-bounds[1], -bounds[0])

    assert signs.sign(enclose) == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_a_square_that_seems_to_reach_zero_is_refined(sign):
    """t (t - 1) + 0.2505 is at least 0.0005; term by term, on a cell of width 2^-9, it is not."""
    expr = sign * (t * (t - 1) + Rational(501, 2000)) ** 2
    assert signs.sign(lambda time: signs.enclosed(expr, time)) == sign


@pytest.mark.parametrize(
    "expr",
    [
        sp.sqrt(t - 1), sp.sqrt(t - Rational(1, 2)), sp.log(t - 1), 1 / (t - sp.Rational(1, 2)), sp.tan(4 * t),
        sp.Function("f")(t), sp.I, sp.I * t, sp.oo, sp.nan,
    ],
    ids=str,
)  # fmt: skip
def test_what_has_no_rule_is_unknown(expr):
    with pytest.raises(signs.Unknown), np.errstate(all="raise"):
        signs.enclosed(expr, signs.cells())


@pytest.mark.parametrize(
    ("expr", "low", "high"),
    [
        (sp.tan(t), [1.0], [2.0]),
        (sp.exp(1000 * t), [0.1, 0.5], [0.2, 1.0]),
        (sp.log(t), [0.0, 0.25], [0.25, 0.5]),
        (sp.sqrt(t - Rational(1, 2)), [0.25, 0.6], [0.75, 0.9]),
        (1 / t, [0.0, 0.25], [0.25, 0.5]),
    ],
    ids=str,
)
def test_a_pole_or_an_overflow_in_one_cell_is_unknown(expr, low, high):
    with pytest.raises(signs.Unknown):
        signs.enclosed(expr, (np.array(low), np.array(high)))


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


def test_a_cell_whose_every_part_is_unclear_has_no_sign():
    """Its neighbours are positive, and it is not until the last round that it is looked at as it is."""
    hard = signs.cells()[0][40], signs.cells()[1][40]

    def enclose(time):
        inside = (time[0] >= hard[0]) & (time[1] <= hard[1])
        return np.where(inside, -1.0, 1.0), np.full_like(time[0], 2.0)

    assert signs.sign(enclose) == 0
