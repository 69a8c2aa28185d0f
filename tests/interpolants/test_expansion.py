"""Expansions next to a point: leading terms known by hand, and a remainder that holds what it leaves out."""

import mpmath
import pytest
import sympy as sp
from flint import arb

from interpolants import enclosure
from interpolants.expansion import Undecided, _Huge, _Local, is_zero_constant, near
from interpolants.expression import parse, t

ZERO, ONE, R = sp.S.Zero, sp.S.One, sp.Rational


@pytest.mark.parametrize(
    ("text", "end", "coefficient", "power", "logs"),
    [
        ("t-sin(t)", 0, R(1, 6), 3, 0), ("1-sqrt(1-t**3)", 0, R(1, 2), 3, 0), ("1-t**0.7", 1, R(7, 10), 1, 0),
        ("sqrt(1-t**2)", 1, sp.sqrt(2), R(1, 2), 0), ("acos(t)", 1, sp.sqrt(2), R(1, 2), 0),
        ("asin(2*t-1)+pi/2", 0, 2, R(1, 2), 0), ("t*log(1/t)**2", 0, 1, 1, 2), ("1/log(1/t)", 0, 1, 0, -1),
        ("log(t)", 0, -1, 0, 1), ("cos(pi*t/2)", 1, sp.pi / 2, 1, 0), ("tan(pi*t/2)", 1, 2 / sp.pi, -1, 0),
        ("t**t-1", 0, -1, 1, 1), ("atan(1/t)", 0, sp.pi / 2, 0, 0), ("pi/2-atan(1/t)", 0, 1, 1, 0),
        ("tanh(1/t)-1+t", 0, 1, 1, 0), ("abs(t-1/2)", 0, R(1, 2), 0, 0), ("t+exp(1-1/t)", 0, 1, 1, 0),
        ("exp(20)-exp(20*t)", 1, 20 * sp.exp(20), 1, 0), ("Min(5, 1/t)", 0, 5, 0, 0), ("Max(t, t**2)", 0, 1, 1, 0),
        ("2**(t**2)-1", 0, sp.log(2), 2, 0), ("cosh(3*t)-1", 0, R(9, 2), 2, 0),
        ("1-tanh(tan(pi*t/2))*(1-t)", 0, 1, 0, 0),
        ("1/(1+exp(1/t)) + t", 0, 1, 1, 0),
        ("(1-t)**(-6*t-6)", 1, 1, -12, 0), ("1/(t**5+7*t**6*log(t)+t**6)", 0, 1, -5, 0),
        ("exp(3/t)*exp(-2/t-1/t)*t", 0, 1, 1, 0),
        ("cos(pi*log(1+1.99*t)/(2*log(2.99)))", 1, sp.pi * R(199, 598) / sp.log(R(299, 100)), 1, 0),
        ("log((5051-51-5000*exp(t))/(5000*(1-exp(t))))+t", 0, 1, 1, 0),
    ],
)  # fmt: skip
def test_leading_terms_found_by_hand(text, end, coefficient, power, logs):
    beside = near(parse(text), sp.Integer(end), sp.Integer(1 - end))
    assert (beside.power, beside.logs) == (power, logs)
    assert abs(sp.N(beside.coefficient - coefficient, 40)) < 1e-35
    assert beside.sign == sp.sign(coefficient)


@pytest.mark.parametrize(("text", "sign"), [("exp(1/t)", 1), ("t**9-exp(1/t**2)", -1), ("cosh(1/t)*t", 1)])
def test_what_outgrows_all_powers_is_infinite(text, sign):
    assert near(parse(text), ZERO, ONE).coefficient == sign * sp.oo


@pytest.mark.parametrize("text", ["exp(-1/t)", "exp(-exp(1/t))", "1/cosh(1/t)", "t*sin(1/t)"])
def test_what_is_below_the_remainder_is_small_and_of_no_known_sign(text):
    beside = near(parse(text), ZERO, ONE)
    assert (beside.sign, beside.coefficient) == (0, 0)


@pytest.mark.parametrize("text", ["sin(1/t)", "sqrt(t-1)", "log(t-1)", "log(log(1/t))"])
def test_what_has_no_such_expansion_has_none(text):
    assert near(parse(text), ZERO, ONE) is None


@pytest.mark.parametrize(
    "text",
    ["sin(3*t)/(1+sqrt(t))", "exp(-2*sqrt(t)+t**0.7)", "log(1+t)*log(t)", "(1-cos(2*t))**(1/3)", "t**t",
     "tanh(5*t)**0.3",
     "asin(1-t)", "1/log(1/t)+t**2", "1/(2+exp(1/t))+t**3", "sqrt(sin(t)-sin(t)**2)", "atan(t/(1-t))", "1/sinh(t)-1/t"],
)  # fmt: skip
def test_the_remainder_holds_what_is_left_out(text):
    """At several distances the function, in 60 digits, is within the terms and the ball of the remainder."""
    expr = parse(text)
    function = sp.lambdify(t, expr, "mpmath")
    with enclosure.precision(600, 9):
        local = _Local(arb(2) ** -10, 8)
        found = local.expansion(expr)
        assert not isinstance(found, _Huge)
        for k in (10, 13, 25, 60):
            with mpmath.workdps(250):
                s = mpmath.mpf(2) ** -k
                exact = arb(mpmath.nstr(function(s), 120))
            distance, log = arb(2) ** -k, arb(2).log() * k
            total = sum(
                (n.ball * distance ** (arb(e.numerator) / e.denominator) * log**j for (e, j), n in found.terms.items()),
                arb(0),
            )
            if found.order is not None:
                rest = found.rest * distance ** (arb(found.order.numerator) / found.order.denominator)
                assert (total + rest).overlaps(exact + exact * arb(0, 1e-110))
            else:
                assert abs(total - exact) < 1e-60


def test_a_remainder_that_is_too_small_is_noticed():
    """The test above is no test of nothing: with a hundredth of the remainder the sine is outside."""
    with enclosure.precision(300, 5):
        local = _Local(arb(2) ** -2, 4)
        found = local.expansion(sp.sin(t))
        s = arb(2) ** -2
        total = sum((n.ball * s ** int(e) for (e, _), n in found.terms.items()), arb(0))
        assert (total + found.rest * s ** int(found.order)).overlaps(s.sin())
        assert not (total + found.rest / 100 * s ** int(found.order)).overlaps(s.sin())


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (sp.sqrt(2 + sp.sqrt(3)) - (sp.sqrt(6) + sp.sqrt(2)) / 2, True),
        (sp.tan(sp.pi / 4 - sp.pi / 504) * (1 + sp.tan(sp.pi / 504)) - 1 + sp.tan(sp.pi / 504), True),
        (sp.sin(sp.pi / 7) * sp.sin(2 * sp.pi / 7) * sp.sin(3 * sp.pi / 7) - sp.sqrt(7) / 8, True),
        (sp.exp(-700), False), (sp.Rational(1, 10**300), False), (sp.exp(sp.log(2) / 3) - sp.cbrt(2), True),
    ],
    ids=str,
)  # fmt: skip
def test_zeros_are_proved(number, expected):
    assert is_zero_constant(number) is expected


def test_a_function_that_is_not_known_has_no_expansion():
    with enclosure.precision(300, 5), pytest.raises(Undecided):
        _Local(arb(2) ** -4, 4).expansion(sp.Function("f")(t))
