"""Coefficients: accurate to rounding on all of [0, 1], exact at the ends, and careful about what they are given."""

import math
import pickle
import re

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf
from strategies import LIBRARY, PATHS, inner_times, paths
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import interpolants as ip
from interpolants.coefficient import Coefficient, at, check_interval, interval

R = sp.Rational
NEAR_ENDS = [10.0**-k for k in range(1, 8)] + [1 - 10.0**-k for k in range(1, 8)] + [0.0, 0.25, 0.5, 0.75, 1.0]


def log_alpha_vp(t):
    s = 1 - t
    return -(s**2) * (mpf(20) - mpf("0.1")) / 4 - s * mpf("0.1") / 2


HAND_WRITTEN = {
    ("linear", "alpha"): lambda t: t,
    ("linear", "sigma"): lambda t: 1 - t,
    ("gvp", "alpha"): lambda t: mpmath.sin(mpmath.pi * t / 2),
    ("gvp", "sigma"): lambda t: mpmath.cos(mpmath.pi * t / 2),
    ("gvp", "d_sigma"): lambda t: -mpmath.pi / 2 * mpmath.sin(mpmath.pi * t / 2),
    ("vp", "alpha"): lambda t: mpmath.exp(log_alpha_vp(t)),
    ("vp", "sigma"): lambda t: mpmath.sqrt(1 - mpmath.exp(2 * log_alpha_vp(t))),
    ("vp", "d_alpha"): lambda t: mpmath.exp(log_alpha_vp(t)) * ((1 - t) * mpf("9.95") + mpf("0.05")),
    ("vp", "log_snr"): lambda t: mpmath.log(mpmath.exp(2 * log_alpha_vp(t)) / (1 - mpmath.exp(2 * log_alpha_vp(t)))),
}


@pytest.mark.parametrize(("name", "attribute"), HAND_WRITTEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_agree_with_sixty_digit_arithmetic_next_to_both_ends(name, attribute, dtype):
    coefficient = getattr(ip.by_name(name), attribute)
    times = torch.tensor(NEAR_ENDS, dtype=dtype)
    if attribute == "log_snr":
        times = times[(times > 0) & (times < 1)]
    with mpmath.workdps(60):
        exact = [HAND_WRITTEN[name, attribute](mpf(time)) for time in times.tolist()]
        errors = [abs(mpf(got) - want) for got, want in zip(coefficient(times).tolist(), exact, strict=True)]
        # float32: correctly rounded but for the last bit. float64: a few roundings of the formula.
        bound = 0.51 * 2.0**-23 if dtype == torch.float32 else 40 * 2.0**-53
        for time, error, want in zip(times.tolist(), errors, exact, strict=True):
            assert error <= bound * abs(want) or error < 1e-50, f"t = {time}: {want}"


@given(path=paths(), t=inner_times)
def test_derivatives_agree_with_autograd_and_the_wronskian_with_its_definition(path, t):
    time = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    d_alpha, d_sigma = (torch.autograd.grad(f(time) + 0 * time, time)[0] for f in (path.alpha, path.sigma))
    torch.testing.assert_close(path.d_alpha(time), d_alpha, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(path.d_sigma(time), d_sigma, rtol=1e-12, atol=1e-12)
    wronskian = d_alpha * path.sigma(time) - path.alpha(time) * d_sigma
    torch.testing.assert_close(path.wronskian(time), wronskian, rtol=1e-11, atol=1e-12)
    assert path.log_snr(t) == pytest.approx(2 * math.log(path.alpha(t) / path.sigma(t)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_no_conversion_is_nan_and_each_is_infinite_exactly_where_its_limit_is(path):
    times = torch.tensor(NEAR_ENDS, dtype=torch.float64)
    for source in ip.QUANTITIES:
        for target in ip.QUANTITIES:
            for coefficient in path.conversion(source, target):
                values = coefficient(times)
                assert not values.isnan().any()
                for end in (0, 1):
                    at_end = coefficient(float(end))
                    assert at_end == pytest.approx(float(coefficient.limit(end)), rel=1e-14)
                assert values[(times > 0) & (times < 1)].isfinite().all()


def test_limits_are_those_found_by_hand():
    a, b = ip.vp().conversion("velocity", "score")
    assert (a.limit(1), b.limit(1)) == (-1, 20)  # score = (alpha / alpha') v - x, and alpha'(1) = 1/20
    a, b = ip.linear().conversion("velocity", "score")
    assert (a.limit(0), a.limit(1), b.limit(1)) == (-1, -sp.oo, sp.oo)
    assert ip.gvp().wronskian.expr == sp.pi / 2
    assert ip.vp().alpha.limit(0) == sp.exp(sp.Rational(-201, 40))


def test_gradients_through_removable_singularities_and_poles_are_not_nan():
    removable = Coefficient(sp.sin(sp.pi * ip.t) / ip.t)
    time = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64, requires_grad=True)
    value = removable(time)
    assert value[0].item() == pytest.approx(math.pi)
    value.sum().backward()
    assert torch.isfinite(time.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (0,)])
def test_tensor_in_tensor_of_equal_shape_and_dtype_out(dtype, shape):
    for coefficient in (ip.vp().sigma, ip.linear().d_alpha):
        value = coefficient(torch.full(shape, 0.5, dtype=dtype))
        assert (value.shape, value.dtype) == (shape, dtype)
    assert isinstance(ip.vp().sigma(0.5), float)
    assert ip.vp().sigma(np.full(3, 0.5, np.float32)).dtype == np.float32


def test_torch_and_numpy_and_float_agree():
    times = np.linspace(0, 1, 101)
    for path in LIBRARY:
        for coefficient in (path.alpha, path.sigma, path.d_alpha, *path.conversion("noise", "velocity")):
            from_torch = coefficient(torch.from_numpy(times)).numpy()
            np.testing.assert_allclose(from_torch, coefficient(times), rtol=1e-13)
            assert coefficient(0.3) == pytest.approx(coefficient(times)[30], rel=1e-13)


def test_a_compiled_graph_and_vmap_give_the_same_values():
    coefficient = ip.gvp().conversion("velocity", "score")[1]
    times = torch.linspace(0, 0.9, 8, dtype=torch.float64)
    compiled = torch.compile(coefficient, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(times), coefficient(times))
    torch.testing.assert_close(torch.func.vmap(coefficient)(times), coefficient(times))


@pytest.mark.parametrize("bad", [-1e-3, 1.001, math.nan, math.inf])
def test_a_time_outside_the_unit_interval_is_refused(bad):
    for time in (bad, torch.tensor([0.5, bad]), np.array([0.5, bad])):
        with pytest.raises(ValueError, match=r"t: must lie in \[0, 1\]"):
            ip.linear().alpha(time)


@pytest.mark.parametrize("path", [ip.linear(), ip.vp()], ids=lambda p: p.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_time_that_rounding_moved_beyond_an_end_is_that_end(path, dtype):
    """As 3 * (1/3 + 2^-54) is, and 1 - 3 * 0.333...: on the CPU as on an accelerator, whose times nobody looks at."""
    eps = torch.finfo(dtype).eps
    for end, beyond in ((0.0, -eps / 4), (1.0, 1 + eps), (1.0, 1 + 2 * eps)):
        for coefficient in (path.alpha, path.sigma, path.d_alpha):
            want = coefficient(torch.tensor(end, dtype=dtype))
            assert torch.equal(coefficient(torch.tensor(beyond, dtype=dtype)), want)
            assert coefficient(np.array([beyond], dtype=str(dtype)[6:]))[0] == want
    assert path.alpha(1 + 2.0**-52) == path.alpha(1.0)
    x = torch.randn(2, 3, dtype=dtype)
    moved = path.interpolate(x, x, torch.full((2,), 1 + eps, dtype=dtype))
    assert torch.equal(moved, path.interpolate(x, x, torch.ones(2, dtype=dtype)))


def test_a_time_of_the_wrong_type_or_shape_is_refused():
    with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64\. For step k of n pass k / n"):
        ip.linear().alpha(torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="got str"):
        ip.linear().alpha("0.5")
    x = torch.zeros(4, 3, 8, 8)
    for shape in ((3,), (4, 1), (1, 4), (1,)):
        with pytest.raises(ValueError, match=r"must be a scalar or have shape \(batch,\) = \(4,\)"):
            ip.linear().interpolate(x, x, torch.zeros(shape))
    with pytest.raises(TypeError, match=r"state must be a floating point torch.Tensor, got torch\.uint8"):
        ip.linear().interpolate(x.byte(), x.byte(), 0.5)
    with pytest.raises(TypeError, match=r"state must be a floating point torch.Tensor, got ndarray"):
        ip.linear().interpolate(x.numpy(), x.numpy(), 0.5)


@given(batch=st.integers(1, 4), dims=st.integers(0, 3), scalar=st.booleans())
def test_broadcasting_is_per_sample(batch, dims, scalar):
    x = torch.ones((batch, *range(2, 2 + dims)), dtype=torch.float64)
    time = torch.tensor(0.25) if scalar else torch.arange(batch) / 8
    (value,) = at((ip.linear().alpha,), time, x)
    expected = [0.25 if scalar else i / 8 for i in range(batch)]
    assert ((value * x).reshape(batch, -1)[:, -1]).tolist() == expected


def test_intervals_stop_where_the_gain_is_reached_and_their_ends_are_float32():
    linear, vp = ip.linear(), ip.vp()
    assert interval(linear.conversion("velocity", "noise")) == (0.0, 1.0)
    start, stop = interval(linear.conversion("noise", "velocity"))  # 1/t and -1/t
    assert stop == 1.0
    assert start == pytest.approx(1e-3, rel=0.01)
    assert start >= 1e-3
    assert linear.conversion("noise", "velocity")[0](start) <= 1e3
    start, stop = interval(vp.conversion("noise", "velocity"))  # of order 1 / sqrt(1 - t)
    assert start == 0.0
    assert 0.99999 < stop < 1.0
    assert np.float32(stop) == stop
    with pytest.raises(ValueError, match="Raise max_gain"):
        interval(linear.conversion("noise", "velocity"), max_gain=0.5)


def test_an_interval_is_the_longest_on_which_every_gain_is_at_most_the_bound():
    far, near, weak = (Coefficient(c / ip.t) for c in (sp.Integer(1), R(1, 10), R(1, 10**9)))
    assert interval((near, far), 100.0)[0] == interval((far, near), 100.0)[0] == pytest.approx(0.01, rel=1e-2)
    far, near, mirrored = (Coefficient(c.expr.subs(ip.t, 1 - ip.t)) for c in (far, near, weak))
    assert interval((near, far), 100.0)[1] == interval((far, near), 100.0)[1] == pytest.approx(0.99, rel=1e-4)
    nearest = np.nextafter(np.float32(1), np.float32(0))  # the pole itself is left out
    assert interval((weak, mirrored)) == (1 - nearest, nearest)
    assert interval((Coefficient(1 / ip.t),), max_gain=2.0) == (0.5, 1.0)
    with pytest.raises(ValueError, match=r"interval: 1/t exceeds max_gain = 1.5 up to t = 1/2\. Raise max_gain"):
        interval((Coefficient(1 / ip.t),), max_gain=1.5)


@pytest.mark.parametrize("given", [(0.5, 0.5), (0.6, 0.5), (-0.1, 1.0), (0.0, 1.1), (math.nan, 1.0)])
def test_a_part_of_the_time_is_inside_and_not_empty(given):
    with pytest.raises(ValueError, match=rf"^mine: interval must be .* not empty, got {re.escape(str(given))}\.$"):
        check_interval(given, "mine: interval")
    check_interval((0.0, 1.0), "mine: interval")


def test_latex_and_repr_show_the_expression():
    assert ip.gvp().wronskian._repr_latex_() == r"$\displaystyle \frac{\pi}{2}$"
    assert repr(ip.linear().sigma) == "Coefficient(1 - t)"


def test_what_comes_out_is_not_the_tensor_that_went_in():
    time = torch.full((3,), 0.5, dtype=torch.float64)
    ip.linear().alpha(time).add_(1)
    assert time.tolist() == [0.5] * 3


class DtypesSeen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.dtypes = set()

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        result = operation(*arguments, **(keywords or {}))
        if isinstance(result, torch.Tensor):
            self.dtypes.add(result.dtype)
        return result


def test_placeholders_of_tracers_have_no_values_to_look_at():
    sigma = ip.vp().sigma
    assert sigma(torch.empty(4, device="meta")).shape == (4,)
    with FakeTensorMode():
        assert sigma(torch.rand(4)).shape == (4,)
        outside = torch.full((4,), 2.0)
    assert isinstance(sigma(outside), FakeTensor)
    with FakeTensorMode(), DtypesSeen() as seen:
        assert sigma(torch.empty(4, device="mps")).dtype == torch.float32
    assert seen.dtypes == {torch.float32}  # Metal has no other
    times = torch.tensor([0.1, 0.6])
    for mode in ("real", "fake", "symbolic"):
        graph = make_fx(lambda t: sigma(t), tracing_mode=mode)(torch.rand(2))
        assert not any("item" in str(node.target) or "local_scalar" in str(node.target) for node in graph.graph.nodes)
        torch.testing.assert_close(graph(times), sigma(times))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        sigma(torch.nn.Parameter(torch.tensor([2.0])))


def test_a_conversion_in_one_graph_is_the_eager_one():
    path = ip.vp()
    path.conversion("velocity", "data")
    velocity, x_t, time = torch.randn(4, 3), torch.randn(4, 3), torch.rand(4)

    def convert(velocity, x_t, time):
        return path.convert(velocity, x_t, time, source="velocity", target="data") * path.sigma(time)[:, None]

    compiled = torch.compile(convert, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(velocity, x_t, time), convert(velocity, x_t, time))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
def test_first_and_second_derivatives_by_autograd_are_right_inside(path):
    time = torch.tensor([0.11, 0.5, 0.87], dtype=torch.float64, requires_grad=True)
    for coefficient in (path.alpha, path.sigma, path.log_snr, *path.conversion("velocity", "score")):
        if coefficient.expr.has(ip.t):
            assert torch.autograd.gradcheck(coefficient, time)
            assert torch.autograd.gradgradcheck(coefficient, time)
            exact = [float(sp.diff(coefficient.expr, ip.t).subs(ip.t, x).evalf(30)) for x in time.tolist()]
            assert torch.func.jacrev(coefficient)(time).diag().tolist() == pytest.approx(exact, rel=1e-10)
            assert torch.func.vmap(torch.func.grad(coefficient))(time).tolist() == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize(
    ("coefficient", "end", "slope"),
    [
        (ip.gvp().sigma, 1, -math.pi / 2),
        (ip.vp().alpha, 1, 0.05),
        (ip.vp().log_snr, 0, 19.95 + 0.05 + 20.0 * math.exp(-10.05) / (1 - math.exp(-10.05)) ),
        (Coefficient(sp.sin(3 * ip.t) / ip.t + 2 * ip.t), 0, 2.0),
    ],
)  # fmt: skip
def test_derivatives_at_the_ends_are_right(coefficient, end, slope):
    time = torch.tensor(float(end), dtype=torch.float64, requires_grad=True)
    (got,) = torch.autograd.grad(coefficient(time), time)
    assert got.item() == pytest.approx(slope, rel=1e-9)


def test_arrays_of_jax_are_taken_under_jit_grad_and_vmap():
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    sigma, times = ip.gvp().sigma, jnp.asarray([0.0, 0.25, 1.0], dtype=jnp.float32)
    want = np.sin(np.pi / 2 * (1 - np.asarray(times)))
    for function in (sigma, jax.jit(sigma), jax.vmap(sigma)):
        value = function(times)
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, want, rtol=1e-6)
    slope = jax.vmap(jax.jit(jax.grad(sigma)))(times)
    np.testing.assert_allclose(slope, -np.pi / 2 * np.cos(np.pi / 2 * (1 - np.asarray(times))), rtol=1e-6, atol=1e-6)
    assert sigma(jnp.zeros((0,))).shape == (0,)
    for bad in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"t: must lie in \[0, 1\]"):
            sigma(jnp.asarray([0.5, bad]))
    with pytest.raises(TypeError, match=r"must be floating point, got int32\. For step k of n pass k / n"):
        sigma(jnp.asarray([0, 1]))
    with pytest.raises(TypeError, match=r"must be a tensor, an array or a number in \[0, 1\], got str"):
        sigma("0.5")


def test_arrays_are_looked_at_in_full_and_empty_ones_pass():
    alpha = ip.linear().alpha
    assert alpha(np.zeros(0)).shape == (0,)
    for bad in ([0.5, 1.0001], [-0.0001, 0.5], [1.2], [-0.3], [0.2, float("nan")]):
        with pytest.raises(ValueError, match=r"t: must lie in \[0, 1\]"):
            alpha(np.array(bad))
    assert alpha(np.array([0.0, 1.0])).tolist() == [0.0, 1.0]


def test_a_coefficient_is_its_expression():
    one, other = Coefficient(ip.t), Coefficient(1 - ip.t)
    assert one == Coefficient(ip.t) != other
    assert one != ip.t
    assert pickle.loads(pickle.dumps(other)) == other
    assert other.leading(1) == (1, 1)
    assert other.leading(0) == (1, 0)


def test_a_number_as_the_time_is_exact_and_checked_where_states_meet_it():
    x = torch.zeros(2, 3, 4)
    (value,) = at((ip.linear().alpha,), 0.1, x.double())
    assert value.item() == 0.1
    assert value.shape == ()
    (value,) = at((ip.linear().alpha,), torch.tensor([0.25, 0.5]), x)
    assert value.shape == (2, 1, 1)
    for bad in (1.5, -0.5, float("nan"), torch.tensor(1.5), torch.tensor([0.5, -0.5])):
        with pytest.raises(ValueError, match=r"t: must lie in \[0, 1\] \(0 is noise, 1 is data\), got"):
            at((ip.linear().alpha,), bad, x)
    with pytest.raises(ValueError, match=r"got nan \(NaN\)\."):
        ip.linear().alpha(float("nan"))
    with pytest.raises(ValueError, match=r"got -0.25\."):
        ip.linear().alpha(np.array([-0.25, 0.5]))
    for inside in (0.0, 0.25):
        with pytest.raises(ValueError, match=r"got 1.5\."):
            ip.linear().alpha(np.array([inside, 1.5]))


def test_a_number_is_a_time_in_double_precision():
    """In float32 1 + 1e-9 would be 1, and 0.1 would be 0.10000000149."""
    x, p = torch.ones(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    got = ip.gvp().convert(x, p, 0.1, source="velocity", target="data")
    as_tensor = ip.gvp().convert(x, p, torch.tensor([0.1], dtype=torch.float64), source="velocity", target="data")
    assert torch.equal(got, as_tensor)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        ip.gvp().convert(x, p, 1 + 1e-9, source="velocity", target="data")
