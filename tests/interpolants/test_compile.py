"""Every form of evaluation: chosen where it is needed, and right to 1e-13 next to both ends."""

import math
import re

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import interpolants as ip
from interpolants import compile as engine
from interpolants.compile import compiled, sampled
from interpolants.expression import t
from interpolants.limits import evaluate
from interpolants.printer import u

R = sp.Rational
exp, sin, cos, tan, log, sqrt, pi = sp.exp, sp.sin, sp.cos, sp.tan, sp.log, sp.sqrt, sp.pi
TIMES = [10.0**-k for k in range(1, 13)] + [1 - 10.0**-k for k in range(1, 13)] + [0.3, 0.5, 0.5 + 1e-9, 0.7]


def form(expr):
    return engine._most_accurate_form(expr)


def assert_accurate(expr, times=TIMES):
    values = compiled(expr, "torch")(torch.tensor(times, dtype=torch.float64)).tolist()
    with mpmath.workdps(80):
        exact = sp.lambdify(t, expr, "mpmath")
        for at, got in zip(times, values, strict=True):
            want = mpmath.re(exact(mpmath.mpf(at)))
            assert abs(got - want) <= 1e-13 * abs(want), f"{expr} at {at}: {got}, not {mpmath.nstr(want, 17)}"
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
        (exp(-100 * t), {t}),  # as inaccurate in all forms: the first is the cheapest
        (tan(pi * t / 2), {t, u}),
        (tan(pi * t / 2) ** 2, {t, u}),
        (sin(pi * t / 2) * cos(pi * t / 2) * exp(-3 * t), {t, u}),
    ],
    ids=lambda v: None if callable(v) or isinstance(v, set) else str(v),
)
def test_one_formula_in_t_or_in_the_distance_to_the_data_or_in_both(expr, written_in):
    chosen = form(expr)
    assert chosen.whole.free_symbols == written_in
    assert (chosen.data_half, chosen.near_noise, chosen.near_data) == (None, None, None)
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
    assert (chosen.whole.free_symbols, chosen.data_half.free_symbols) == ({t}, {u})
    assert (chosen.near_noise, chosen.near_data) == (None, None)
    assert_accurate(expr)


@pytest.mark.parametrize(
    ("expr", "place", "other"),
    [
        (sin(t) - t, "near_noise", "near_data"),
        (sqrt(exp(t) - 1 - t), "near_noise", "near_data"),
        ((t - sin(t)) ** R(1, 6), "near_noise", "near_data"),
        (2 * log(1 + t), "near_noise", "near_data"),
        ((sin(1 - t) - (1 - t)) * (2 + t), "near_data", "near_noise"),
    ],
    ids=lambda v: None if callable(v) or isinstance(v, set) else str(v),
)
def test_a_polynomial_next_to_an_end(expr, place, other):
    chosen = form(expr)
    assert getattr(chosen, place) is not None
    assert getattr(chosen, other) is None
    assert_accurate(expr)


@pytest.mark.parametrize("end", [0, 1])
def test_a_series_is_the_function_in_the_chebyshev_points_and_near_it_between_them(end):
    """A pole close beyond the end, at s = -1/100, leaves an error that is seen between the points of the widest."""
    s = t if end == 0 else 1 - t
    all_series = list(engine._series(s ** R(-3, 2) / (s + R(1, 100)), end))
    assert [(series.root, series.width) for series in all_series] == [
        (1, 2**-4), (1, 2**-7), (1, 2**-10), (2, 2**-4), (2, 2**-7), (2, 2**-10),
    ]  # fmt: skip
    for series in all_series:
        points = np.polynomial.chebyshev.chebpts1(14)
        errors = []
        for x in (points, (points[1:] + points[:-1]) / 2):
            r = series.width ** (1 / series.root) * (1 + x) / 2
            polynomial = np.polynomial.Polynomial(series.coefficients)(r)
            errors.append(np.max(np.abs(polynomial * (r**series.root + 0.01) - 1)))
        assert series.power == -1.5
        assert len(series.coefficients) == 14
        assert errors[0] < 1e-9
        assert series.width < 2**-4 or 1e-6 < errors[1] < 1e-3


@pytest.mark.parametrize("backend", ["torch", "numpy"])
@pytest.mark.parametrize("place", ["near_noise", "near_data"])
@pytest.mark.parametrize(
    ("power", "root", "by_hand"),
    [
        (1.5, 2, lambda s: s**1.5 * (1 - 2 * s**0.5 + 3 * s)),
        (2.0, 1, lambda s: s**2 * (1 - 2 * s + 3 * s**2)),
        (0.0, 1, lambda s: 1 - 2 * s + 3 * s**2),
        (-1.0, 1, lambda s: 1 / s - 2 + 3 * s if s else np.inf),
    ],
)
def test_a_series_is_a_power_times_a_polynomial_in_the_distance_or_in_its_root(power, root, by_hand, place, backend):
    series = engine.Series(width=0.25, power=power, root=root, coefficients=(1.0, -2.0, 3.0))
    function = engine._assemble(engine.Form(7 * t + 1, **{place: series}), backend)
    times = np.array([0.0, 1e-9, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
    distances = times if place == "near_noise" else 1 - times
    want = [by_hand(s) if s < 0.25 else 7 * time + 1 for s, time in zip(distances, times, strict=True)]
    got = function(torch.from_numpy(times) if backend == "torch" else times)
    np.testing.assert_allclose(got, want, rtol=1e-14)


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
    for condition in (t < R(1, 2), t**2 <= R(1, 4), t <= 1 - t):
        with pytest.raises(ValueError, match=rf"must have conditions t <= c, got {re.escape(str(condition))}\."):
            compiled(sp.Piecewise((t, condition), (1 - t, True)))


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
