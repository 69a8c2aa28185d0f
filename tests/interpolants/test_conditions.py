"""What must hold on all of (0, 1), against values by mpmath at the time that a message states."""

import re
import warnings
from fractions import Fraction

import mpmath
import pytest
import sympy as sp

import interpolants as ip
from interpolants.conditions import check_not_negative, nonnegative, positive, shown, tell, undecided
from interpolants.enclosure import UndecidedWarning
from interpolants.expression import parse

R, t = sp.Rational, ip.t
TOUCHING = parse("t**2-2*t/sqrt(5)+1/5")  # (t - 1/sqrt(5))^2


def time_in(message):
    """The exact time that the message of a refusal states."""
    return Fraction(re.search(r"; at t = (?:1 - )?(\S+) it is", message).group(1))


REFUTED = [
    "1-t-2*exp(-1e9*(t-0.4567)**2)", "t-1e-25", "sqrt(t*(1-t))-3*exp(-1e7*(t-0.4567)**2)", "t*(1-t)*(t-1/3)**2",
    "(t-2/7)**2*exp(t)", "t*(1-t)*(1+1e-9/(t-1/sqrt(5)))", "abs(t-1/2)", "abs(3*t-1)*(1+t)", "1/(t-3/11)**2",
    "log(t)**2-1/4", "0.3-t",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUTED)
def test_a_refusal_states_a_time_and_the_value_of_the_function_there(text):
    with pytest.raises(ValueError, match=r"^mine: f must be finite, real and > 0 on \(0, 1\); at t = ") as error:
        undecided("mine", [positive("f", parse(text))])
    time, stated = time_in(str(error.value)), str(error.value).rsplit(" it is ", 1)[1].rstrip(".")
    with mpmath.workdps(60):
        at = mpmath.mpf(time.numerator) / time.denominator
        try:
            value = sp.lambdify(t, parse(text), "mpmath")(at)
        except ZeroDivisionError:
            assert stated == "nan"
            return
        assert value <= 1e-55
        assert abs(mpmath.mpf(stated) - value) <= mpmath.mpf(10) ** -5 * abs(value) + mpmath.mpf(10) ** -55


def test_a_time_is_written_exactly_where_that_is_short_and_never_as_an_end():
    assert shown(t, R(1, 2)) == "at t = 0.5 it is 0.5"
    assert shown(t, R(1, 3)) == "at t = 1/3 it is 0.333333"
    assert shown(t - 1, 1 - R(1, 10**30)) == "at t = 1 - 1e-30 it is -1.0e-30"
    assert shown(t, R(10**9 + 7, 2**40)) == f"at t = {(10**9 + 7) / 2**40!r} it is 0.000909495"


def test_what_is_not_decided_is_returned_and_told():
    left = undecided("mine", [positive("a", t), positive("b", TOUCHING), nonnegative("c", TOUCHING)])
    assert left == ("b must be finite, real and > 0 on (0, 1)", "c must be finite, real and >= 0 on (0, 1)")
    with pytest.warns(
        UndecidedWarning, match=r"^mine: not decided whether this holds: b must .*; c must .*\.$"
    ) as told:
        tell("mine", left, stacklevel=1)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell("mine", (), stacklevel=1)
        check_not_negative(t, "w", "name")
    with pytest.warns(
        UndecidedWarning, match=r"^w: not decided .*: name must be finite and >= 0 on \(0, 1\)\.$"
    ) as told:
        check_not_negative(TOUCHING, "w", "name")


@pytest.mark.parametrize(
    ("expr", "value", "time"),
    [
        (t - R(15, 10**4), r"-0\.00\d+", r"1/1024"),
        (R(9985, 10**4) - t, r"-0\.00\d+", r"1023/1024"),
        (sp.log(t - R(1, 3)), "nan", r"\S+"),
        (sp.Integer(-1), r"-1\.0", "0.5"),
    ],
    ids=str,
)
def test_a_function_that_is_negative_or_not_finite_anywhere_inside_is_refused_with_a_place(expr, value, time):
    message = rf"^w: name must be finite and >= 0 on \(0, 1\); at t = {time} it is {value}\.$"
    with pytest.raises(ValueError, match=message):
        check_not_negative(expr, "w", "name")


@pytest.mark.parametrize("expr", [sp.Integer(0), 1 / t, sp.exp(1000 * t), -sp.log(1 - t), (t - R(1, 2)) ** 2], ids=str)
def test_zeros_inside_and_poles_at_the_ends_are_allowed(expr):
    check_not_negative(expr, "w", "name")
