"""Every form of evaluation: chosen where it is needed, and right to a few units in the last place, ends included."""

import math
import sys

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import interpolants as ip
from interpolants import compile as engine
from interpolants.compile import compiled, sampled
from interpolants.effort import bounded
from interpolants.expression import t
from interpolants.limits import evaluate
from interpolants.patches import Patch, patched
from interpolants.printer import u

R = sp.Rational
exp, sin, cos, tan, log, sqrt, pi = sp.exp, sp.sin, sp.cos, sp.tan, sp.log, sp.sqrt, sp.pi
TIMES = [10.0**-k for k in range(1, 13)] + [1 - 10.0**-k for k in range(1, 13)] + [0.3, 0.5, 0.5 + 1e-9, 0.7]


def form(expr):
    return engine._most_accurate_form(expr)


def assert_accurate(expr, times=TIMES):
    values = compiled(expr, "torch")(torch.tensor(times, dtype=torch.float64)).tolist()
    with mpmath.workdps(400):
        exact = sp.lambdify(t, expr, "mpmath")
        for at, got in zip(times, values, strict=True):
            want = mpmath.re(exact(mpmath.mpf(at)))
            assert abs(got - want) <= 1e-13 * abs(want) + 5e-324, f"{expr} at {at}: {got}, not {mpmath.nstr(want, 17)}"
    numpy_values = compiled(expr, "numpy")(np.array(times))
    np.testing.assert_allclose(values, numpy_values, rtol=2e-15)


@pytest.mark.parametrize(
    ("expr", "written_in"),
    [
        (t, {t}),
        (sin(pi * t / 2), {t}),
        (sqrt(1 - exp(-2 * t)), {t}),
        (cos(pi * t / 2), {u}),
        (cos(pi * t / 2) ** 2 * exp(t), {u}),
    ],
    ids=lambda v: None if callable(v) or isinstance(v, set) else str(v),
)
def test_one_formula_in_t_or_in_the_distance_to_the_data_or_in_both(expr, written_in):
    chosen = form(expr)
    assert chosen.whole.free_symbols == written_in
    assert (chosen.halves, chosen.parts, chosen.patches) == ((), (), ())
    assert_accurate(expr)


@pytest.mark.parametrize(
    "expr",
    [
        sin(pi * t),
        sin(pi * t) * (t * (1 - t) / (1 + t) + sin(pi * t) ** 2),  # the second half is accurate only as it stands
        1 / t - 1 / (t * (2 - t)),  # and here only in its normal form, (1 - t) / (t (2 - t))
    ],
    ids=str,
)
def test_a_formula_for_each_half(expr):
    chosen = form(expr)
    assert [half.whole.free_symbols for half in chosen.halves] == [{t}, {u}]
    assert chosen.patches == ()
    assert_accurate(expr)


@pytest.mark.parametrize(
    ("expr", "end"),
    [
        (sin(t) - t, 0),
        (sqrt(exp(t) - 1 - t), 0),
        ((t - sin(t)) ** R(1, 6), 0),
        ((sin(1 - t) - (1 - t)) * (2 + t), 1),
        (sqrt(1 + 3 * t) - 1 + t ** R(7, 10) - t ** R(7, 10), 0),
        (sin(t) - t + t ** R(9, 2), 0),
    ],
    ids=str,
)
def test_polynomials_where_digits_cancel_next_to_an_end(expr, end):
    chosen = form(expr)
    assert chosen.patches == () or any(patch.low == 0 for patch in chosen.patches if patch.end == end)
    assert_accurate(expr)
    assert engine.error(expr) <= 16


@pytest.mark.parametrize(
    "expr",
    [log(t / (1 - t)), sin(7 * t) - R(1, 3), log(tan(pi * t / 2)), exp(t) - R(3, 2)],
    ids=str,
)  # fmt: skip
def test_digits_are_kept_next_to_a_zero(expr):
    """Relative to the function, however small it is: at distances from 1e-1 to 1e-15 of its zeros."""
    assert engine.error(expr, times=300) <= 8
    zeros = engine._Reference(expr, 0.0, 1.0).zeros
    assert zeros
    near = [float(zero) + side * 10.0**-k for zero in zeros for k in range(2, 15) for side in (-1, 1)]
    got = compiled(expr, "numpy")(np.array(near))
    with mpmath.workdps(80):
        exact = sp.lambdify(t, expr, "mpmath")
        for at, value in zip(near, got.tolist(), strict=True):
            want = exact(mpmath.mpf(at))
            assert abs(value - want) <= 2e-15 * abs(want)


@pytest.mark.parametrize(
    "expr",
    [
        1600 * exp(800 * t) / ((1 - t) * (1600 * t * exp(800 * t) - exp(1600 * t) - 1600 * exp(800 * t) + 1)),
        t + exp(-5000 * (t - R(1, 2)) ** 2) / 1000 - exp(-1250) / 1000,
        (exp(2000 * t) - 1) / (exp(2000 * t) + 1),
        2 * log((exp(2000 * t) - 1) / ((1 - t) * (exp(2000 * t) + 1))),
        exp(1000) * t * exp(-1000 * t) / (exp(1000) + 1),
    ],
    ids=lambda expr: str(expr)[:40],
)
def test_what_overflows_on_the_way_is_finite(expr):
    times = [1e-12, 1e-3, 0.1, 0.3, 0.4, 0.49, 0.61, 0.8, 0.95, 1 - 1e-9]
    values = compiled(expr, "torch")(torch.tensor(times, dtype=torch.float64)).tolist()
    with mpmath.workdps(1500):
        exact = sp.lambdify(t, expr, "mpmath")
        for at, got in zip(times, values, strict=True):
            want = exact(mpmath.mpf(at))
            assert abs(got - want) <= 1e-12 * abs(want) + 1e-320


@pytest.mark.parametrize("backend", ["torch", "numpy", "jax"])
def test_patches_are_polynomials_in_their_cells_and_the_function_elsewhere(backend):
    if backend == "jax":
        pytest.importorskip("jax")
    at_noise = Patch(0, 0.0, 0.25, (1.5, 0.125), 2, (0.0, 0.0), 0.5, (1.0, -2.0, 3.0))
    inner = Patch(0, 0.375, 0.5, (0.0, 0.0), 1, (0.4375, 0.0), 0.0625, (2.0, 1.0))
    about_a_zero = Patch(1, 0.125, 0.25, (0.0, 0.0), 1, (0.2, 1e-17), 0.125, (0.0, 5.0, 1.0))
    steep = Patch(0, 0.5625, 0.625, (0.0, 0.0), 1, (0.59375, 0.0), 0.03125, (1.0, 2.0), -3.0)
    function = patched(lambda time: 7 * time + 1, [at_noise, inner, about_a_zero, steep], backend)

    def by_hand(x):
        if x <= 0.25:
            z = x**0.5 / 0.5
            correction = 1 + 0.125 * math.log(x) if x else 1  # of x^0.125, which is 1e-17 in earnest
            return x**1.5 * (1 - 2 * z + 3 * z**2) * correction
        if 0.375 <= x < 0.5:
            return 2 + (x - 0.4375) / 0.0625
        if 0.5625 <= x < 0.625:
            return -3 * math.exp(1 + 2 * (x - 0.59375) / 0.03125)
        if 0.75 <= x < 0.875:
            z = ((1 - x) - 0.2 - 1e-17) / 0.125
            return 5 * z + z**2
        return 7 * x + 1

    times = np.array([0.0, 1e-9, 0.1, 0.25, 0.3, 0.375, 0.4, 0.499, 0.5, 0.57, 0.61, 0.7, 0.75, 0.8, 0.87, 0.875, 1.0])
    given = torch.from_numpy(times) if backend == "torch" else times
    if backend == "jax":
        given = sys.modules["jax"].numpy.asarray(times)
    tolerance = 1e-14 if backend != "jax" or given.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(np.asarray(function(given)), [by_hand(x) for x in times], rtol=tolerance, atol=tolerance)
    if backend == "torch":
        inside = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
        function(inside).backward()
        assert inside.grad == pytest.approx(16.0)
        over = torch.func.vmap(torch.func.grad(lambda x: function(x)))(
            torch.tensor([0.4, 0.55, 0.8], dtype=torch.float64)
        )
        assert over.tolist() == pytest.approx([16.0, 7.0, -(5 + 2 * (0.2 - 0.2) / 0.125) / 0.125], abs=1e-9)


@pytest.mark.parametrize("k", [5e3, 5.82e6, 3e9])
def test_a_narrow_bump_is_seen_wherever_it_is(k):
    """About 1/sqrt(k) wide: no even times would meet it."""
    c, steepness = R(257, 1000), sp.Rational(k)
    expr = sin(pi * (t + t * (1 - t) * exp(-steepness * (t - c) ** 2) / sqrt(steepness)) / 2)
    near = [float(c) + side * x / k**0.5 for x in (0.01, 0.1, 0.5, 1, 2, 5) for side in (-1, 1)]
    assert_accurate(expr, near)
    assert_accurate(1 - expr, near)
    assert_accurate(log(expr / (1 - expr)), near)


@pytest.mark.parametrize(
    "expr",
    [
        1 - (1 - sp.tanh(R(55, 2) * t) ** R(7, 3) / sp.tanh(R(55, 2)) ** R(7, 3)) ** 4,
        sqrt(1 - (1 - (1 - sqrt(1 - t**4))) ** 2),
        (1 - sqrt(1 - sin(pi * t / 2) ** 4)) / (2 - sqrt(1 - sin(pi * t / 2) ** 4)),
        2 * log((1 - t) ** (1 + t) / log(1 + t / 300) ** 8),
        exp(3 * sp.E * exp(-1 / t)) - 1 - sin(3 * exp(1 - 1 / t)),
        3 * exp(sp.tanh(3 * t)) - 3 - 2 * sp.tanh(3 * t) - sin(sp.tanh(3 * t)),
    ],
    ids=range(6),
)
def test_functions_of_functions(expr):
    assert_accurate(expr)


def test_a_zero_at_a_kink():
    """Next to 2/3, which is no float."""
    assert_accurate(sp.Abs(2 * cos(pi * t) + 1), [2 / 3 + side * 2.0**-k for k in (5, 20, 30) for side in (-1, 1)])


def test_what_an_exponent_of_hundreds_does_is_no_lost_digit():
    """exp(-500) has a relative error of 500 times that of its argument."""
    reference = engine._Reference(exp(1 - 1 / t), 0.0, 1.0)
    time = 1 / 512
    assert reference.sensitivity(time) == pytest.approx(512, rel=1e-3)
    assert reference.sensitivity(1 - 1e-3) == pytest.approx(1e-3, rel=1e-2)
    assert form(exp(1 - 1 / t)) == engine.Form(exp(1 - 1 / t))


def test_the_error_of_a_coefficient_can_be_asked_for():
    assert engine.error(1 - t) <= 0.5
    assert engine.error(cos(pi * t / 2), "float32") <= 0.5001
    assert 100 < engine.error(exp(-5000 * t) * (1 + t)) < 4096  # of t itself, times 5000


@pytest.mark.parametrize(
    ("expr", "at_noise", "at_data"),
    [
        (sin(3 * t) / t, 3.0, np.sin(3.0)),
        ((exp(t) - 1) / t, 1.0, np.e - 1),
        (log(t) / (1 - t), -np.inf, -1.0),
        (t * log(t), 0.0, 0.0),
        (1 / t, np.inf, 1.0),
        (1 / (t - 1), -1.0, -np.inf),
        (exp(-1 / t), 0.0, np.exp(-1)),
        (50 * exp(-t * log(5000)), 50.0, 0.01),
    ],
    ids=lambda v: None if callable(v) or isinstance(v, set) else str(v),
)
def test_the_value_at_an_end_is_the_limit(expr, at_noise, at_data):
    for value in (
        compiled(expr, "torch")(torch.tensor([0.0, 1.0]).double()),
        compiled(expr, "numpy")(np.array([0.0, 1.0])),
    ):
        assert value.tolist() == pytest.approx([at_noise, at_data], rel=4e-16, abs=0.0)
    assert_accurate(expr, [at for at in TIMES if 1e-2 < at < 0.999])


@pytest.mark.parametrize(
    ("expr", "slopes"),
    [
        (sin(3 * t) / t + 2 * t, (2.0, 3 * np.cos(3.0) - np.sin(3.0) + 2)),
        ((exp(3 * t) - 1) / t, (4.5, 2 * np.exp(3) + 1)),
        (50 * exp(-t * log(5000)), (-50 * np.log(5000), -0.01 * np.log(5000))),
        (cos(pi * t / 2), (0.0, -np.pi / 2)),
        (sin(pi * t), (np.pi, -np.pi)),
        (exp(-1 / t), (0.0, np.exp(-1))),
        (t * log(t), (0.0, 1.0)),
        (t * sqrt(t) * exp(t), (0.0, 2.5 * np.e)),
        (sin(3 * (1 - t)) / (1 - t) + 2 * t, (np.sin(3.0) - 3 * np.cos(3.0) + 2, 2.0)),
        ((exp(3 * (1 - t)) - 1) / (1 - t), (-2 * np.exp(3) - 1, -4.5)),
        (2 + sqrt(t) * sqrt(sin(t)), (1.0, (np.sin(1.0) + np.cos(1.0)) / (2 * np.sqrt(np.sin(1.0))))),
        (1 / (t - 1), (-1.0, 0.0)),
    ],
    ids=lambda v: None if callable(v) or isinstance(v, set) else str(v),
)
def test_the_derivative_at_an_end_is_right_where_it_is_finite(expr, slopes):
    """Of t log t it is infinite at 0, and of 1 / (t - 1) at 1, where it is 0 here: never NaN."""
    time = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    compiled(expr, "torch")(time).sum().backward()
    assert time.grad.tolist() == pytest.approx(slopes, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("expr", "curvatures"),
    [
        (cos(pi * t / 2), (-(np.pi**2) / 4, 0.0)),
        (sin(pi * t / 2) + 1, (0.0, -(np.pi**2) / 4)),
        (exp(-3 * t), (9.0, 9 * np.exp(-3))),
        (50 * exp(-t * log(5000)), (50 * np.log(5000) ** 2, 0.01 * np.log(5000) ** 2)),
    ],
    ids=str,
)
def test_the_second_derivative_at_an_end_is_that_of_the_formula(expr, curvatures):
    time = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(compiled(expr, "torch")(time).sum(), time, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), time)
    assert curvature.tolist() == pytest.approx(curvatures, rel=1e-12, abs=1e-12)


def test_pieces_are_each_compiled_for_themselves():
    expr = sp.Piecewise((sin(t) / t, t <= R(1, 4)), (1 / (t - R(1, 8)), t <= R(3, 4)), (cos(pi * t / 2), True))
    times = torch.tensor([0.0, 0.1, 0.25, 0.2500001, 0.75, 0.7500001, 1 - 1e-9, 1.0], dtype=torch.float64)
    by_hand = [
        np.sinc(x / np.pi) if x <= 0.25 else 1 / (x - 0.125) if x <= 0.75 else np.sin(np.pi / 2 * (1 - x))
        for x in times.tolist()
    ]
    np.testing.assert_allclose(compiled(expr, "torch")(times), by_hand, rtol=1e-14)
    np.testing.assert_allclose(compiled(expr, "numpy")(times.numpy()), by_hand, rtol=1e-14)
    times.requires_grad_()
    compiled(expr, "torch")(times).sum().backward()
    assert times.grad.isfinite().all()
    for condition in (t < R(1, 2), t**2 <= R(1, 4), t <= 1 - t, sp.Gt(R(1, 2), t)):
        function = compiled(sp.Piecewise((t, condition), (3 - t, True)), "numpy")
        np.testing.assert_allclose(
            function(np.array([0.0, 0.3, 0.49, 0.51, 1.0])), [0.0, 0.3, 0.49, 2.49, 2.0], rtol=1e-15
        )


@pytest.mark.parametrize(
    ("expr", "by_hand"),
    [
        (sp.Min(1 / t, 5), lambda x: min(1 / x, 5) if x else 5),
        (sp.Max(t / (1 - t), 1), lambda x: max(x / (1 - x), 1) if x < 1 else np.inf),
    ],
    ids=lambda v: None if callable(v) or isinstance(v, set) else str(v),
)
def test_the_smaller_and_the_larger_of_two(expr, by_hand):
    times = [0.0, 0.1, 0.3, 0.5, 0.9, 1.0]
    assert compiled(expr, "torch")(torch.tensor(times, dtype=torch.float64)).tolist() == pytest.approx(
        [by_hand(x) for x in times], rel=1e-14
    )


def test_a_pole_inside_is_infinite_and_leaves_all_else_accurate():
    time = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    assert compiled(1 / (2 * t - 1))(time).tolist() == [-1.0, -2.0, math.inf, 2.0, 1.0]


def test_a_look_at_an_expression_needs_no_limits():
    times = np.array([0.25, 0.5])
    np.testing.assert_allclose(sampled(1 / (1 - 2 * t), times), [2.0, np.inf])
    np.testing.assert_allclose(sampled(1 - exp(t), np.array([1e-12])), -np.expm1(1e-12), rtol=1e-15)


def test_constants_have_the_shape_of_the_times():
    assert compiled(pi / 2)(torch.zeros(2, 3)).shape == (2, 3)
    assert compiled(pi / 2, "numpy")(np.zeros(2)).tolist() == [np.pi / 2] * 2


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, FakeTensorMode, lambda: torch.device("meta")])
def test_a_first_compilation_does_not_depend_on_where_it_happens(context):
    compiled.cache_clear()
    expr = sin(3 * t) / t + 2 * t
    with context():
        function = compiled(expr)
    time = torch.tensor([0.0, 0.5], dtype=torch.float64, requires_grad=True)
    function(time).sum().backward()
    assert time.grad.tolist() == pytest.approx([2.0, 6 * np.cos(1.5) - 4 * np.sin(1.5) + 2])


def test_a_first_compilation_inside_a_transform():
    compiled.cache_clear()
    slopes = torch.func.vmap(torch.func.grad(lambda time: compiled(sin(2 * t) / t)(time)))(torch.tensor([0.0, 0.5]))
    assert slopes.tolist() == pytest.approx([0.0, 4 * np.cos(1.0) - 4 * np.sin(1.0)], abs=1e-6)


def test_what_turns_out_to_be_constant_has_the_shape_of_the_times():
    expr = sp.Add(sp.Mul(sp.Add(t, 1, evaluate=False), sp.Pow(t + 1, -1), evaluate=False), 1, evaluate=False)
    assert expr.has(t)
    assert compiled(expr)(torch.zeros(3)).tolist() == [2.0] * 3


def test_two_powers_half_an_order_apart_have_a_series_in_the_root_of_the_distance():
    """An SDE's drift is a sum of such powers where sigma is a root; its digits are lost next to t = 1 otherwise."""
    path = ip.Path("log(1+t)/log(2)", "sqrt(log(2-t))")
    a, s = sp.log(1 + t) / sp.log(2), sp.sqrt(sp.log(2 - t))
    # Of the noise, with w = 2 sigma: sigma' - alpha' sigma / alpha - w / (2 sigma).
    drift = sp.diff(s, t) - sp.diff(a, t) * s / a - 1
    b = path.sde("noise", "sigma").b
    for distance in (1e-3, 1e-7, 1e-9, 1e-12):
        time = 1 - distance
        exact = evaluate(drift, mpmath.mpf(time), 60)
        assert abs(b(time) - exact) <= 1e-11 * abs(exact)


@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_a_logarithm_is_taken_of_an_accurate_argument(backend):
    expr = 2 * sp.log(t ** sp.Rational(3, 2) / (1 - t ** sp.Rational(3, 2)))
    times = np.array([0.3, 1 - 1e-9, 1 - 1e-12])
    with mpmath.workdps(60):
        exact = [float(2 * mpmath.log(mpmath.mpf(x) ** 1.5 / (1 - mpmath.mpf(x) ** 1.5))) for x in times]
    found = compiled(expr, backend)(torch.tensor(times) if backend == "torch" else times)
    assert np.asarray(found) == pytest.approx(exact, rel=1e-13)
    assert float(compiled(expr, "numpy")(np.float64(1.0))) == math.inf


def test_a_zero_beside_a_float_keeps_its_distance_from_it():
    """log tan(pi (t + b(t)) / 2) is zero where t + b(t) = 1/2, some 1e-226 below 1/2."""
    expr = log(tan(pi * (t / 2 + t * (1 - t) * exp(-18000 * (t - R(331, 1000)) ** 2) / 200)))
    assert_accurate(expr, [0.3, 0.331, 0.5 - 2.0**-54, 0.5, 0.5 + 2.0**-53, 0.6])
    assert 0 < compiled(expr, "numpy")(np.array([0.5]))[0] < 1e-200


@pytest.mark.parametrize(
    "expr",
    [
        log(sp.asin(tan(pi * t / 4) ** 8) / (1 - t ** R(7, 3))),
        2 * log(sp.tanh(15 * t) ** 8 * sp.atan(120 * t) / (1 - t) ** R(27, 10)),
        -log(sp.atan(sin(t) ** 12) * (1 + t)),
    ],
    ids=str,
)
def test_the_logarithm_of_a_power_that_underflows(expr):
    assert_accurate(expr, [1e-60, 1e-45, 1e-41, *TIMES])


def test_a_logarithm_of_a_product_of_ratios_is_written_in_its_own_parts():
    scale = "sqrt(1+3.61e+03*(t-0.5)**2)"
    path = ip.Path(f"{scale}*log(1+2.49e+04*t)/log(1+2.49e+04)", f"{scale}*(1-exp(1-1/t**2))")
    drift = path.sde("velocity", w="exp(-4.02*t)").a
    with mpmath.workdps(60):
        want = evaluate(drift.expr, mpmath.mpf(0.3), digits=60)
    assert float(drift(torch.tensor(0.3, dtype=torch.float64))) == pytest.approx(float(want), rel=1e-13)


def test_a_ratio_of_what_is_below_all_floats_is_accurate():
    path = ip.Path("(exp(0.0019*exp(1-1/t**2))-1)/(exp(0.0019)-1)", "1-t")
    times = [1e-18, 1e-3, 0.03, 0.0366, 0.1, 0.5]
    with mpmath.workdps(40):
        x = [mpmath.mpf("0.0019") * mpmath.exp(1 - 1 / mpmath.mpf(time) ** 2) for time in times]
        want = [float(2 / mpmath.mpf(time) ** 3 * (y / -mpmath.expm1(-y))) for time, y in zip(times, x, strict=True)]
    got = path.conversion("score", "velocity")[0](torch.tensor(times, dtype=torch.float64))
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-15)


def test_what_goes_under_a_root_is_not_multiplied_out():
    x, y = sp.symbols("x y", positive=True)
    product = 3 * x / sqrt((x + y + 1) ** 60 + x**2)
    with bounded(100_000):
        found = engine._under_root(product)
    values = {x: R(3, 7), y: R(1, 9)}
    assert sp.N((found / product).subs(values), 30) == pytest.approx(1, abs=1e-25)


def test_a_logarithm_is_never_asked_whether_it_is_infinite():
    """In the search for an answer sympy turns the sign of atan(...) forth and back until Python gives up."""
    rise, kink = "atan(0.359*((exp(0.433*t)-1)/(exp(0.433)-1)))/atan(0.359)", "sqrt(((1-t)-0.5)**2)"
    path = ip.Path(f"8.77*(2*asin({rise})/pi)", f"1-t+0.779*{kink}-0.779/2")
    with mpmath.workdps(30):
        for time in (0.2, 0.7):
            x = mpmath.mpf(time)
            turn = mpmath.atan(0.359 * mpmath.expm1(0.433 * x) / mpmath.expm1(0.433)) / mpmath.atan(0.359)
            sigma = 1 - x + 0.779 * (abs(0.5 - x) - 0.5)
            want = 2 * mpmath.log(8.77 * 2 * mpmath.asin(turn) / mpmath.pi / sigma)
            assert path.log_snr(time) == pytest.approx(float(want), rel=1e-13)
