"""Expressions as functions of arrays: the same values in every library, no operation twice, constants as numbers."""

import math
import subprocess
import sys

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch

from interpolants.expression import t
from interpolants.printer import high_precision, lambdified, namespace, to_float, u
from interpolants.stable import expm1

R = sp.Rational
TIMES = [0.1, 0.25, 0.5, 0.9]
MATH = {
    "sin": math.sin, "cos": math.cos, "tan": math.tan, "asin": math.asin, "acos": math.acos, "atan": math.atan,
    "sinh": math.sinh, "cosh": math.cosh, "tanh": math.tanh, "exp": math.exp, "log": math.log, "Abs": abs,
}  # fmt: skip
EXPRESSIONS = [
    *((getattr(sp, name)(t), function) for name, function in MATH.items()),
    (expm1(t), math.expm1),
    (sp.sign(t - R(1, 2)), lambda x: np.sign(x - 0.5)),
    (sp.Abs(t - R(1, 3)), lambda x: abs(x - 1 / 3)),
    (sp.Max(t, R(1, 3)), lambda x: max(x, 1 / 3)),
    (sp.Min(t, R(1, 3), 1 - t), lambda x: min(x, 1 / 3, 1 - x)),
    (u * t, lambda x: (1 - x) * x),
    (t**2, lambda x: x * x),
    (t**-3, lambda x: 1 / x**3),
    (sp.sqrt(t), math.sqrt),
    (1 / sp.sqrt(t), lambda x: 1 / math.sqrt(x)),
    (t ** R(1, 3), lambda x: x ** (1 / 3)),
    (t ** R(2, 3), lambda x: x ** (2 / 3)),
    (t ** R(-5, 2), lambda x: x**-2.5),
    (t**t, lambda x: x**x),
    (3**t, lambda x: 3**x),
    (-t, lambda x: -x),
    (-t - 1, lambda x: -x - 1),
    (-t - sp.sin(t), lambda x: -x - math.sin(x)),
    (1 - t, lambda x: 1 - x),
    (t - R(1, 4), lambda x: x - 0.25),
    (R(-2, 3) * t * sp.exp(t), lambda x: -2 / 3 * x * math.exp(x)),
    (-3 * t / (sp.exp(t) * sp.sqrt(1 + t)), lambda x: -3 * x / (math.exp(x) * math.sqrt(1 + x))),
    (-1 / (1 + t), lambda x: -1 / (1 + x)),
    (sp.sqrt(2) * sp.pi * t + sp.log(3) + 1, lambda x: math.sqrt(2) * math.pi * x + math.log(3) + 1),
    (sp.sqrt(-2) * sp.sqrt(-3) * t, lambda x: -math.sqrt(6) * x),
]


def library(backend):
    return torch if backend == "torch" else np if backend == "numpy" else pytest.importorskip("jax.numpy")


@pytest.mark.parametrize("backend", ["torch", "numpy", "jax"])
@pytest.mark.parametrize(("expr", "by_hand"), EXPRESSIONS, ids=[str(e) for e, _ in EXPRESSIONS])
def test_every_function_in_every_library(expr, by_hand, backend):
    xp = library(backend)
    dtype = xp.float32 if backend == "jax" else xp.float64
    got = lambdified(expr, backend)(xp.asarray(TIMES, dtype=dtype))
    assert got.dtype == dtype
    tolerance = 2e-6 if backend == "jax" else 1e-14
    np.testing.assert_allclose(np.asarray(got), [by_hand(x) for x in TIMES], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("expr", "by_hand"), EXPRESSIONS, ids=[str(e) for e, _ in EXPRESSIONS])
def test_every_function_in_as_many_digits_as_are_asked_for(expr, by_hand):
    for digits in (20, 70):
        with mpmath.workdps(digits):
            at = mpmath.mpf(1) / 4
            got = mpmath.re(high_precision(expr, digits)(at))
            want = mpmath.mpmathify(sp.re(expr.subs(u, 1 - t).subs(t, R(1, 4)).rewrite(sp.exp).evalf(digits + 5)))
            assert abs(got - want) <= mpmath.mpf(10) ** (3 - digits)
            assert float(got) == pytest.approx(by_hand(0.25), rel=1e-14)


@pytest.mark.parametrize(
    ("expr", "is_zero"),
    [
        (R(1, 3), lambda c: 3 * c - 1), (sp.sqrt(2), lambda c: c**2 - 2),
        (R(1, 3) + t, lambda c: 3 * c - 4), (sp.sqrt(2) * t, lambda c: c**2 - 2),
    ],
    ids=["third", "root", "third + t", "root t"],
)  # fmt: skip
def test_constants_are_correct_beyond_the_digits_that_are_asked_for(expr, is_zero):
    with mpmath.workdps(60):
        assert abs(is_zero(mpmath.mpf(high_precision(expr, 20)(mpmath.mpf(1))))) < 1e-26


@pytest.mark.parametrize("backend", ["torch", "numpy", "jax"])
def test_a_constant_has_the_shape_and_dtype_of_the_times(backend):
    xp = library(backend)
    for dtype in (xp.float32, xp.float16):
        value = lambdified(sp.pi / 2, backend)(xp.zeros((2, 3), dtype=dtype))
        assert (tuple(value.shape), value.dtype) == ((2, 3), dtype)
        assert float(value[1, 2]) == pytest.approx(math.pi / 2, rel=1e-3)


def test_nothing_is_computed_twice():
    expr = sp.sin(t) ** 2 * sp.exp(-t) + sp.sin(t) / (1 + sp.exp(-t)) - (1 + sp.exp(-t)) * sp.sin(t) ** 2
    source = lambdified(expr, "numpy").__wrapped__.__doc__
    assert [source.count(f"{name}(") for name in ("sin", "exp")] == [1, 1]
    assert source.count("** 2") == source.count("1.0 + ") == 1
    assert lambdified(-t * sp.exp(t) + sp.cos(t * sp.exp(t)), "torch").__doc__.count("t * ") == 1


@pytest.mark.parametrize(
    ("expr", "operations"),
    [
        (sp.exp(t) - t, 2),
        (sp.exp(t) - sp.sin(t), 3),
        (2 * t + sp.exp(2 * t), 3),
        (sp.sin(t) / (1 + t), 3),
        (sp.exp(t) + (-1 - t) * sp.sin(t), 5),
    ],
    ids=str,
)
def test_no_operation_is_needless(expr, operations):
    assert lambdified(expr, "torch").__doc__.count(" = ") == operations


def test_the_distance_to_the_data_is_its_own_absolute_value_as_time_is():
    assert [sp.sqrt(s**2) for s in (t, u)] == [t, u]


def test_a_quotient_is_rounded_once_and_a_root_is_no_power():
    times = np.linspace(0.01, 0.99, 99)
    assert np.array_equal(lambdified(t / (3 + t), "numpy")(times), times / (3 + times))
    source = lambdified(sp.sqrt(t), "torch").__doc__
    assert "sqrt(t)" in source
    assert "**" not in source


def test_a_negative_number_is_raised_with_its_sign():
    assert lambdified(sp.Integer(-2) ** t, "numpy")(np.array([0.0, 1.0])).tolist() == [1.0, -2.0]


@pytest.mark.parametrize("expr", [t - R(1, 3), 17 * t - R(51, 10), 2 - 7 * t, R(1, 3) - u, 100 * u - 77], ids=str)
def test_the_distance_from_a_time_that_is_no_float_is_right_to_the_last_digit(expr):
    """However near: t - 1/3 is known for every float t, though 1/3 is none."""
    root = sp.solve(expr.xreplace({u: 1 - t}), t)[0]
    times = np.array([float(root) + side * 2.0**-k for k in range(3, 53, 7) for side in (-1, 1)] + [float(root)])
    exact = [expr.xreplace({u: 1 - t}).subs(t, R(*x.as_integer_ratio())) for x in times.tolist()]
    got = lambdified(expr, "numpy")(times)
    # 1 - t, where that is asked for, is rounded itself.
    spare = 2.0**-53 * (100 if expr.has(u) else 0)
    assert np.all(np.abs(got - np.array(exact, dtype=float)) <= 3e-16 * np.abs(np.array(exact, dtype=float)) + spare)


def test_a_pole_is_infinite_without_a_warning():
    with np.errstate(all="raise"):
        assert lambdified(-1 / t, "numpy")(np.zeros(2)).tolist() == [-math.inf, -math.inf]
        assert lambdified(1 / expm1(-t), "numpy")(np.zeros(1)).tolist() == [-math.inf]  # expm1(-0.0) is -0.0


@pytest.mark.parametrize(
    ("value", "number"),
    [(sp.oo, math.inf), (-sp.oo, -math.inf), (R(1, 10), 0.1), (sp.pi, math.pi), (sp.sqrt(2) - 1, 0.41421356237309503)],
)
def test_numbers_are_the_nearest_floats(value, number):
    assert to_float(value) == number


def test_what_has_no_counterpart_is_refused():
    with pytest.raises(ValueError, match=r"compiled: the function gamma has no counterpart in arrays, in gamma\(t\)"):
        lambdified(sp.gamma(t), "numpy")
    with pytest.raises(ValueError, match=r"in gamma\(u\)\.$"):
        lambdified(sp.gamma(u), "numpy")
    with pytest.raises(ValueError, match=r"compiled: backend must be one of torch, numpy, jax, got 'tf'\."):
        namespace("tf")


def test_jax_is_not_imported_unless_it_is_asked_for():
    code = "import interpolants as ip, sys; ip.vp().sigma(0.5); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("exponent", ["2.718", "7/3", "100/7"])
@pytest.mark.parametrize("base", [1e-100, 1e-17, 1e-3, 0.7])
def test_a_power_keeps_its_digits_where_its_exponent_is_no_float(exponent, base):
    exponent = sp.Rational(exponent)
    with mpmath.workdps(50):
        right = mpmath.mpf(base) ** (mpmath.mpf(int(exponent.p)) / int(exponent.q))
        if right > 1e-300:
            found = lambdified(t**exponent, "numpy")(np.array([base]))[0]
            assert abs(mpmath.mpf(float(found)) / right - 1) < 8 * 2.0**-53
    assert lambdified(t**exponent, "numpy")(np.array([0.0, 1.0])).tolist() == [0.0, 1.0]
