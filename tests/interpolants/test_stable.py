"""Each rewriting keeps the value, and the digits where the expression as it was loses them."""

import mpmath
import numpy as np
import pytest
import sympy as sp

from interpolants.effort import bounded
from interpolants.expression import parse, t
from interpolants.printer import lambdified
from interpolants.stable import stable

R = sp.Rational
exp, sin, cos, pi, sqrt = sp.exp, sp.sin, sp.cos, sp.pi, sp.sqrt
NEAR_NOISE = (1e-9, 1e-6, 1e-3, 0.3, 0.7)
NEAR_DATA = (0.3, 0.7, 1 - 1e-3, 1 - 1e-6, 1 - 1e-9)
INSIDE = (0.2, 0.3, 0.55, 0.8)


@pytest.mark.parametrize(
    ("expr", "times"),
    [
        (1 - exp(-3 * t), NEAR_NOISE),
        (exp(2 * t) - 1, NEAR_NOISE),
        (t * exp(t) - t * exp(3 * t), NEAR_NOISE),
        (exp(-5 * t) - exp(-5), NEAR_DATA),
        (2 - 2 * sqrt(1 - t**2), NEAR_NOISE),
        (t - t * (1 + 3 * t) ** R(1, 3), NEAR_NOISE),
        (1 - (1 - t**4) ** R(7, 4), NEAR_NOISE),
        (3**t - 1, NEAR_NOISE),
        (sqrt(1 - exp(-3 * t)), NEAR_NOISE),
        (1 - cos(pi * t), NEAR_NOISE),
        (t - t * cos(2 * t), NEAR_NOISE),
        (cos(t) - cos(3 * t), NEAR_NOISE),
        (sin(2 + t) - sin(2), NEAR_NOISE),
        (cos(t) ** 2 - cos(2 * t) ** 2, NEAR_NOISE),
        (3 * sin(t + 1) ** 2 - 3 * sin(1) ** 2, NEAR_NOISE),
        (sin(t + 1) * cos(1) - cos(t + 1) * sin(1), NEAR_NOISE),
        (cos(1) * cos(pi / 2 - 1 - t) - sin(1) * sin(pi / 2 - 1 - t), NEAR_NOISE),
        (t**2 - 2 * t + 1, NEAR_DATA),
        (1 - t**3, NEAR_DATA),
        (exp(t) - exp(1 - t), (0.3, 0.5 + 1e-9, 0.7)),
        (sin(t + 1) + sin(t - 1), NEAR_NOISE),
    ],
    ids=str,
)
def test_digits_are_kept_where_the_expression_as_it_stands_loses_them(expr, times):
    as_it_stands, kept = (lambdified(e, "numpy") for e in (expr, stable(expr)))
    with mpmath.workdps(60):
        want = [sp.lambdify(t, expr, "mpmath")(mpmath.mpf(at)) for at in times]
        errors = [
            [abs(mpmath.mpf(float(f(np.float64(at)))) / w - 1) for at, w in zip(times, want, strict=True)]
            for f in (as_it_stands, kept)
        ]
    assert max(errors[1]) < 1e-14, stable(expr)
    assert max(errors[0]) > 1e-12


@pytest.mark.parametrize(
    "expr",
    [
        5 + 5 * cos(3 * t), t + t * cos(t), 3 * exp(t) - 3, exp(-t) - 1,
        1 + cos(3 * t), 1 - cos(3 * t), 2 * t - 2 * t * cos(t), -1 - cos(t), cos(t) - 1, cos(t) + cos(2 * t),
        sin(t) - sin(2 * t), sin(t) + sin(2 * t), sin(t) - cos(2 * t), sin(t) + cos(2 * t),
        cos(t) ** 2 - sin(2 * t) ** 2, cos(t) ** 2 - cos(2 * t), cos(t) - cos(2 * t) ** 2,
        sin(t) ** 2 - sin(2 * t) ** 2, cos(t) ** 2 + cos(2 * t) ** 2, cos(t) ** 3 - cos(2 * t) ** 3,
        2 * cos(t) - cos(2 * t),
        sin(t) * cos(2 * t) + cos(t) * sin(2 * t), sin(t) * cos(2 * t) - cos(t) * sin(2 * t),
        cos(t) * cos(2 * t) + sin(t) * sin(2 * t), cos(t) * cos(2 * t) - sin(t) * sin(2 * t),
        3 * t * sin(t) * cos(2) + 3 * t * cos(t) * sin(2), sin(t) * cos(2 * t) + 2 * cos(t) * sin(2 * t),
        sin(t) * cos(3 * t) + cos(t) * sin(2 * t), sin(t) + cos(t) * sin(2 * t),
        exp(t) - exp(2 * t), exp(-t) + exp(t), exp(t) - 2 * exp(2 * t), 3 - 3 * exp(t**2 - t), exp(2 * t) - t,
        1 - sin(t),
        sp.cot(t) + sp.sec(t) + sp.csc(t), cos(pi * (1 - t) / 2), t**2 - sqrt(2) * t + 1, (1 - t) ** 2 + t,
        t + exp(t) + 1,
    ],
    ids=str,
)  # fmt: skip
def test_the_value_stays(expr):
    got = stable(expr)
    for at in INSIDE:
        assert abs(sp.N((got - expr).subs(t, R(str(at))), 30)) < 1e-28, got


@pytest.mark.parametrize(
    ("expr", "form"),
    [
        (1 + cos(3 * t), 2 * cos(3 * t / 2) ** 2),
        (t - t * cos(t), 2 * t * sin(t / 2) ** 2),
        (cos(pi * (1 - t) / 2), sin(pi * t / 2)),
        (sin(t + 1) * cos(1) - cos(t + 1) * sin(1), sin(t)),
        (t**2 - 2 * t + 1, (t - 1) ** 2),
    ],
)
def test_forms_known_by_hand(expr, form):
    assert stable(expr) == form


def test_only_rational_coefficients_are_factored():
    """A common factor such as exp(1000) overflows, and 355/113 t - pi t loses the digits that (355/113 - pi) t has."""
    for expr in (t + exp(-1000), R(1, 10**10) + (R(355, 113) - pi) * t):
        got = lambdified(stable(expr), "numpy")(np.array(INSIDE))
        want = [float(sp.N(expr.subs(t, R(str(at))), 30)) for at in INSIDE]
        np.testing.assert_allclose(got, want, rtol=1e-15)


def test_expm1_is_never_given_what_overflows():
    """Of the two forms p - p exp(v) and the one with -v, that whose exponent is negative in the middle."""
    for expr in (
        exp(900 * t) - exp(899 * t), 1 - exp(800 * t), 1 - exp(800 * t * (t - 1)), 1 - exp(800 * (t - R(3, 4))),
        1 - exp(800 * (t - R(2, 5))),
    ):  # fmt: skip
        exponents = [e.args[0] for e in stable(expr).atoms(sp.Function) if type(e).__name__ == "expm1"]
        assert [sp.sign(e.subs(t, R(1, 2))) for e in exponents] == [-1]


def test_no_exponent_is_factored_with_its_constants():
    """exp(127/20) and exp(127/10) are powers of exp(1/20) to sympy, of which it factors polynomials."""
    level = parse("(t+t*exp(12.7)-exp(6.35)*t**2)/(1+exp(6.35))**2+t/(exp(-6.35)+3+exp(6.35))+t**3/(exp(-12.7)+2)")
    expr = 1 - exp(-level, evaluate=False)
    with bounded(100_000):
        found = stable(expr)
    assert "expm1" in {type(e).__name__ for e in found.atoms(sp.Function)}
    exact = sp.lambdify(t, expr, "mpmath")
    with mpmath.workdps(40):
        want = [float(exact(mpmath.mpf(time))) for time in NEAR_NOISE]
    np.testing.assert_allclose(lambdified(found, "numpy")(np.array(NEAR_NOISE)), want, rtol=2e-15)
