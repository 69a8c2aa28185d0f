"""The ODE and the SDEs: their coefficients by hand, and the Fokker-Planck equation on an exact Gaussian."""

import dataclasses
import math
import pickle

import mpmath
import pytest
import sympy as sp
import torch
from gaussian import gaussian_log_marginal, tensor
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf
from strategies import LIBRARY, inner_times, paths, quantities, real, stds

import interpolants as ip

t = ip.t
W_NAMES = list(ip.diffusion.CHOICES)


def exact_gaussian(quantity, x, time, path, mean, std):
    """The conditional mean of each quantity for data ~ N(mean, std^2), by hand."""
    alpha, sigma = path.alpha(time), path.sigma(time)
    residual = (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)
    data, noise = mean + alpha * std**2 * residual, sigma * residual
    velocity = path.d_alpha(time) * data + path.d_sigma(time) * noise
    return {"data": data, "noise": noise, "velocity": velocity, "score": -residual}[quantity]


@given(
    path=paths(),
    prediction=quantities(),
    w=st.sampled_from(["0", *W_NAMES]),
    time=inner_times,
    mean=real,
    std=stds,
    x=real,
)
def test_every_drift_satisfies_the_fokker_planck_equation(path, prediction, w, time, mean, std, x):
    """d log p/dt + drift d log p/dx + d drift/dx - w/2 (d^2 log p/dx^2 + (d log p/dx)^2) = 0, all by autograd."""
    dynamics = path.ode(prediction) if w == "0" else path.sde(prediction, w=w)
    time, x = tensor(time).requires_grad_(), tensor(x).requires_grad_()
    log_p = gaussian_log_marginal(x, time, path, mean, std)
    d_t, d_x = torch.autograd.grad(log_p.sum(), (time, x), create_graph=True)
    (d_xx,) = torch.autograd.grad(d_x.sum(), x)
    fixed = time.detach()
    drift = dynamics.drift(x, exact_gaussian(prediction, x, fixed, path, mean, std), fixed)
    (divergence,) = torch.autograd.grad(drift.sum(), x)
    terms = [d_t, drift * d_x, divergence, -0.5 * dynamics.w(fixed) * (d_xx + d_x**2)]
    scale = max(term.abs().item() for term in terms)
    assert abs(sum(term.item() for term in terms)) <= 1e-9 * max(scale, 1.0)


def test_vp_forward_sde_emerges_from_alpha_alone():
    f, g_squared = ip.vp().forward_sde()
    assert sp.expand(g_squared.expr) == 20 - sp.Rational(199, 10) * t
    assert sp.expand(f.expr + g_squared.expr / 2) == 0  # f = -beta/2
    _, g_squared = ip.vp().in_paper_time().forward_sde()
    assert sp.expand(g_squared.expr) == sp.Rational(1, 10) + sp.Rational(199, 10) * t


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
def test_forward_sde_carries_the_moments_of_the_path_to_noise(path):
    """In tau = 1 - t: d alpha/dtau = f alpha and d sigma^2/dtau = 2 f sigma^2 + g^2."""
    f, g_squared = path.forward_sde()
    for time in (0.1, 0.5, 0.9):
        alpha, sigma = path.alpha(time), path.sigma(time)
        assert -path.d_alpha(time) == pytest.approx(f(time) * alpha)
        assert -2 * sigma * path.d_sigma(time) == pytest.approx(2 * f(time) * sigma**2 + g_squared(time))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
def test_kl_optimal_is_the_forward_amplitude_and_half_of_each_named_w_is_the_official_diffusion(path):
    official = {
        "constant": lambda s: 1.0,
        "sigma": lambda s: path.sigma(s),
        "linear": lambda s: 1 - s,
        "decreasing": lambda s: 0.25 * (torch.cos(tensor(torch.pi * s)).item() + 1) ** 2,
        "sin_squared": lambda s: torch.sin(tensor(torch.pi * s)).item() ** 2,
        "kl_optimal": lambda s: path.forward_sde().g_squared(s) / 2,
    }
    assert official.keys() == ip.diffusion.CHOICES.keys() - {"kl_regularized"}  # which the official code has not
    for name, half in official.items():
        for s in (0.2, 0.5, 0.9):
            assert path.sde("velocity", w=name).w(s) == pytest.approx(2 * half(s))


def test_sde_with_w_of_two_sigma_is_bounded_on_all_of_the_linear_path():
    sde = ip.linear().sde("velocity", w=ip.diffusion.sigma())
    assert (sp.expand(sde.a.expr), sp.expand(sde.b.expr)) == (-1, 1 + t)  # v + sigma score = v + t v - x
    assert sde.interval() == (0.0, 1.0)
    times = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert sde.a(times).isfinite().all()
    assert sde.b(times).isfinite().all()
    assert sde.diffusion(times)[-1] == 0.0


def test_vp_score_and_constant_w_are_bounded_at_the_data_end():
    assert ip.vp().sde("velocity", w="constant").interval() == (0.0, 1.0)
    assert ip.linear().sde("velocity", w="constant").interval()[1] < 1.0


def test_sde_is_the_ode_where_w_is_zero_and_in_paper_time_the_score_pulls_the_other_way():
    for path in LIBRARY:
        sde, ode = path.sde("noise", w=0), path.ode("noise")
        assert [sde.a(0.3), sde.b(0.3)] == pytest.approx([ode.a(0.3), ode.b(0.3)], rel=1e-13)
        forward, backward = path.sde("velocity", w="1"), path.in_paper_time().sde("velocity", w="1")
        x, v, s = tensor(0.4), tensor(-0.3), 0.3
        torch.testing.assert_close(backward.drift(x, -v, 1 - s), -forward.drift(x, v, s))


def test_diffusion_is_the_root_of_w_and_no_noise_enters_the_ode():
    for path in LIBRARY:
        for w in ("sigma", "linear", "0.3"):
            sde, times = path.sde("velocity", w=w), torch.linspace(0, 1, 11, dtype=torch.float64)
            torch.testing.assert_close(sde.diffusion(times) ** 2, sde.w(times))
        assert path.ode("velocity").diffusion(torch.tensor([0.5])).item() == 0.0


@pytest.mark.parametrize("name", W_NAMES)
@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
def test_in_paper_time_w_is_that_of_the_mirrored_time(path, name):
    for w in (name, "0.5*(1-t)"):
        forward, backward = path.sde("velocity", w=w), path.in_paper_time().sde("velocity", w=w)
        for s in (0.1, 0.5, 0.8):
            assert backward.w(1 - s) == pytest.approx(forward.w(s), rel=1e-12)


def test_drifts_of_a_vp_data_prediction_are_accurate_next_to_the_data():
    """a = -alpha' (1 + alpha^2) / (alpha sigma^2) with w = 2 alpha'/alpha, by hand from the table."""
    a = ip.vp().sde("data", w="kl_optimal").a
    for distance in (1e-2, 1e-4, 6e-8, 1e-8):
        with mpmath.workdps(60):
            s = 1 - mpf(1.0 - distance)
            log_alpha, slope = -(s**2) * mpf("19.9") / 4 - s * mpf("0.05"), mpf("9.95") * s + mpf("0.05")
            alpha_squared = mpmath.exp(2 * log_alpha)
            exact = -slope * (1 + alpha_squared) / (1 - alpha_squared)
        assert a(1.0 - distance) == pytest.approx(float(exact), rel=1e-11)


USERS_OWN = [
    ("1", "0.01*5000**(1-t)"),
    ("tanh(3*t)/tanh(3)", "1-tanh(3*t)/tanh(3)"),
    ("log(1+t)/log(2)", "1-log(1+t)/log(2)"),
    ("sin(pi*t/2)", "exp(-5*t)*(1-t)"),
    ("t**0.8", "(1-t)**1.5"),
]


@pytest.mark.parametrize(("alpha", "sigma"), USERS_OWN)
def test_paths_of_many_kinds_have_every_drift_and_no_nan(alpha, sigma):
    path, times = ip.Path(alpha, sigma), torch.linspace(0, 1, 101, dtype=torch.float64)
    for prediction in ip.QUANTITIES:
        for w in ("constant", "sigma", "linear", "kl_optimal"):
            sde = path.sde(prediction, w=w)
            for coefficient in (sde.a, sde.b, sde.w):
                values = coefficient(times)
                assert not values.isnan().any()
                assert values[1:-1].isfinite().all()
            v, s = (path.conversion(prediction, target) for target in ("velocity", "score"))
            half = sde.w(0.4) / 2
            assert sde.a(0.4) == pytest.approx(v[0](0.4) + half * s[0](0.4), rel=1e-9, abs=1e-12)
            assert sde.b(0.4) == pytest.approx(v[1](0.4) + half * s[1](0.4), rel=1e-9, abs=1e-12)


def test_w_in_every_form_is_the_same():
    path = ip.linear()
    forms = [ip.diffusion.linear(), "linear", "2*(1-t)", 2 * (1 - t), "2-2*t"]
    assert len({sp.expand(path.sde("velocity", w=w).w.expr) for w in forms}) == 1
    assert path.sde("velocity", w=0.5).w.expr == sp.Rational(1, 2)


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (-1.0, r"w: -1 must be finite and >= 0 on \(0, 1\); at t = 0\.5 it is -1"),
        ("t-0.5", r"w: .* must be finite and >= 0"),
        ("1/(t-0.5)", r"w: .* must be finite and >= 0"),
        ("sigmaa", r"w: unknown name 'sigmaa'.* Named choices: constant, sigma, linear"),
        (float("nan"), r"number must be finite"),
    ],
)
def test_a_w_that_is_no_squared_amplitude_is_refused(w, message):
    with pytest.raises(ValueError, match=message):
        ip.linear().sde("velocity", w=w)


def test_what_is_neither_a_name_nor_an_expression_is_refused():
    with pytest.raises(TypeError, match=r"^w: must be text, a sympy expression or a number, got list\."):
        ip.diffusion.choose([1])


def test_a_time_and_a_state_of_different_batches_are_refused():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"shape \(batch,\) = \(3,\)"):
        ip.linear().ode("noise").drift(x, x, torch.zeros(2))


def test_a_diffusion_is_finite_where_its_limit_is():
    """w score for w = (1 + cos(pi t))^2 / 2 on the linear path: (1 + cos)^2 = O((1-t)^4) beats 1/(1-t)."""
    sde = ip.linear().sde("velocity", w="decreasing")
    times = 1 - torch.tensor([1e-3, 1e-5, 1e-7, 0.0], dtype=torch.float64)
    s = 1 - times
    expected = -(torch.pi**4) * s**3 / 16  # a = -w/2 / (1-t), 1 + cos(pi t) = pi^2 s^2 / 2 + O(s^4)
    torch.testing.assert_close(sde.a(times), expected, rtol=1e-5, atol=0.0)


# Poles


def test_poles_have_a_place_an_order_and_a_leading_coefficient():
    """On the linear path with w = 2: w score / 2 = (-x + t v) / (1 - t)."""
    poles = ip.linear().sde("velocity", "constant").poles
    assert poles == (
        ip.Pole("a", 1, sp.Integer(1), sp.Integer(-1)), ip.Pole("b", 1, sp.Integer(1), sp.Integer(1)),
    )  # fmt: skip
    assert str(poles[0]) == "a has a pole of order 1 at t = 1, a ~ -1.000 / (1 - t)"
    steep = ip.linear().sde("velocity", "1/t**3").poles
    assert [(p.coefficient, p.end, p.order) for p in steep] == [
        ("a", 0, 3), ("b", 0, 2), ("sqrt(w)", 0, sp.Rational(3, 2)), ("a", 1, 1), ("b", 1, 1),
    ]  # fmt: skip
    assert str(steep[1]) == "b has a pole of order 2 at t = 0, b ~ 0.5000 / t^2"
    assert str(steep[2]) == "sqrt(w) has a pole of order 3/2 at t = 0, sqrt(w) ~ 1.000 / t^(3/2)"
    logarithm = ip.linear().sde("velocity", "-log(t)*(1-t)").poles
    assert [p.order for p in logarithm] == [None, None]
    assert str(logarithm[0]) == "a is infinite at t = 0"
    assert logarithm[0].leading == -sp.oo


@pytest.mark.parametrize("w", W_NAMES)
def test_which_combinations_are_finite_on_the_closed_interval(w):
    """By hand: on linear the score has a pole at t = 1 that w must cancel, and omega one at t = 0."""
    finite = {
        "linear": {"sigma", "linear", "decreasing", "sin_squared", "kl_regularized"},
        "gvp": {"sigma", "linear", "decreasing", "sin_squared", "kl_regularized"},
        "vp": set(W_NAMES),  # where alpha(0) > 0, and sigma^2, not sigma, vanishes linearly
    }
    for name, choices in finite.items():
        sde = ip.by_name(name).sde("velocity", w)
        assert (not sde.poles) == (w in choices), f"{name}: {sde.poles}"
        assert (sde.interval() == (0.0, 1.0)) == (w in choices)
        if w in choices:
            sde.require_finite()
        else:
            with pytest.raises(
                ValueError, match=rf"SDE of the velocity, w = {w}\(1\): must be finite .* pole of order"
            ):
                sde.require_finite()


def test_the_derived_interval_keeps_the_amplitude_bounded_too():
    sde = ip.Path("1", "80*(1-t)+0.002").sde("data", "1/t**4*(80*(1-t)+0.002)**4")
    assert {p.coefficient for p in sde.poles} == {"a", "b", "sqrt(w)"}
    start, stop = ip.linear().sde("velocity", "kl_optimal").interval(max_gain=10.0)
    assert start == pytest.approx(0.1, rel=1e-2)
    assert stop == 1.0


# The regularised choice


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize(("eta", "loss"), [(1.0, "1"), (0.2, "2-t"), (5.0, "exp(-t)")])
def test_kl_regularized_minimises_the_bound_plus_eta_w(path, eta, loss):
    """(1 + e/omega)^2 / (4 e) L + 2 eta e with e = w/2, by evaluation on both sides of the minimum."""
    w = path.sde("velocity", ip.diffusion.kl_regularized(eta, loss)).w
    error = sp.lambdify(t, ip.expression.parse(loss), "mpmath")
    for time in (0.1, 0.5, 0.9):
        omega = path.forward_sde().g_squared(time) / 2

        def price(e, time=time, omega=omega):
            return (1 + e / omega) ** 2 / (4 * e) * error(time) + 2 * eta * e

        best = w(time) / 2
        assert price(best) < price(1.001 * best)
        assert price(best) < price(0.999 * best)
        expected = 2 / (omega**-2 + 8 * eta / float(error(time))) ** 0.5
        assert w(time) == pytest.approx(expected, rel=1e-12)


def test_kl_regularized_is_finite_where_kl_optimal_has_a_pole_and_tends_to_it():
    linear = ip.linear()
    assert linear.sde("velocity", "kl_optimal").w.limit(0) == sp.oo
    assert linear.sde("velocity", "kl_regularized").w.limit(0) == 1 / sp.sqrt(2)  # 2 (8)^(-1/2)
    almost = linear.sde("velocity", ip.diffusion.kl_regularized(1e-9)).w(0.3)
    assert almost == pytest.approx(linear.sde("velocity", "kl_optimal").w(0.3), rel=1e-6)
    with pytest.raises(ValueError, match=r"eta must be > 0, got 0.0. kl_optimal is the limit 0"):
        ip.diffusion.kl_regularized(0.0)
    with pytest.raises(ValueError, match="kl_regularized: loss: unknown name"):
        ip.diffusion.kl_regularized(1.0, "u")


def test_choices_compare_by_what_they_are_and_can_be_stored():
    for make in (ip.diffusion.constant, ip.diffusion.sigma, ip.diffusion.linear, ip.diffusion.decreasing,
                 ip.diffusion.sin_squared, ip.diffusion.kl_optimal):  # fmt: skip
        assert pickle.loads(pickle.dumps(make(2.0))) == make(2)
        assert make() == make(1.0) != make(2.0)
        assert make(0.5).name == f"{make.__name__}(0.5)"
        norm_2 = ip.linear().sde("velocity", make(2)).w(0.3)
        by_hand = {"decreasing": (2 * math.cos(0.3 * math.pi) + 1) ** 2 / 2}
        assert norm_2 == pytest.approx(
            by_hand.get(make.__name__, 2 * ip.linear().sde("velocity", make()).w(0.3)), rel=1e-13
        )
    assert ip.diffusion.constant(1 + 1e-9) != ip.diffusion.constant(1)
    assert dataclasses.replace(ip.diffusion.constant(1), name="other") == ip.diffusion.constant(1)
    assert ip.diffusion.kl_regularized(1.0, "2-t").name == "kl_regularized(1, 2 - t)"
    assert ip.diffusion.choose("2*t") == ip.diffusion.choose(2 * t)
    assert ip.diffusion.choose("sigma") == ip.diffusion.sigma(1.0)


def test_equations_print_as_equations_and_render_as_latex():
    path = ip.linear()
    sde, ode = path.sde("velocity", "linear"), path.ode("velocity")
    assert repr(sde) == ("SDE of the velocity, w = linear(1): dx = [(-1) x + (t + 1) prediction] dt + sqrt(2 - 2*t) dW")
    assert repr(ode) == "ODE of the velocity: dx = [(0) x + (1) prediction] dt + sqrt(0) dW"
    assert sde._repr_latex_() == (
        r"$\displaystyle dX_t = \left[\left(-1\right) X_t + \left(t + 1\right) p_t\right] dt"
        r" + \sqrt{2 - 2 t} \, dW_t$"
    )
    assert ode._repr_latex_() == r"$\displaystyle dX_t = \left[\left(0\right) X_t + \left(1\right) p_t\right] dt$"
    assert repr(path.forward_sde()) == "dX = (-1/t) X dtau + sqrt(2*(1 - t)/t) dW, from data to noise"


def test_the_interval_stops_where_a_coefficient_is_a_thousand():
    start, stop = ip.linear().sde("velocity", "constant").interval()
    assert start == 0.0
    assert 1 / (1 - stop) == pytest.approx(943, rel=0.06)
    assert 1 / (1 - stop) <= 1000.0
    assert ip.linear().sde("velocity", "constant").interval(1500.0)[1] > stop


def test_a_w_that_dips_below_zero_for_a_hundredth_of_the_time_is_found():
    with pytest.raises(ValueError, match=r"^w: 199/200 - t must be finite and >= 0 .* at t = 1023/1024 it is -"):
        ip.linear().sde("velocity", "0.995-t")
    with pytest.raises(ValueError, match=r"^w: t - 1/1000 must be finite and >= 0 .* at t = \S+ it is -"):
        ip.linear().sde("velocity", "t-0.001")
    ip.linear().sde("velocity", "t*(1-t)")


def test_time_runs_from_noise_to_data_unless_it_is_said_otherwise():
    alpha, sigma = t, 1 - t
    sde = ip.dynamics.sde("velocity", ip.diffusion.sigma(), alpha, sigma)
    assert (sp.expand(sde.a.expr), sp.expand(sde.b.expr)) == (-1, 1 + t)
    f, g_squared = ip.dynamics.forward_sde(alpha, sigma)
    assert (sp.expand(f.expr), sp.simplify(g_squared.expr - 2 * (1 - t) / t)) == (-1 / t, 0)
