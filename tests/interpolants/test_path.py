"""Paths: what is one, the conversions between quantities, and the reversal of time."""

import math
import pickle

import pytest
import sympy as sp
import torch
from gaussian import conditional_mean_of_data, gaussian_log_marginal, tensor
from hypothesis import given
from hypothesis import strategies as st
from strategies import LIBRARY, PATHS, inner_times, paths, quantities, real, stds

import interpolants as ip
from interpolants import t


@given(path=paths(), t=inner_times, mean=real, std=stds, x=real, source=st.sampled_from(["velocity", "noise", "data"]))
def test_score_of_any_prediction_is_the_gradient_of_the_log_marginal(path, t, mean, std, x, source):
    """For data ~ N(mean, std^2) the marginal is known in closed form, and autograd differentiates it."""
    t, x = tensor(t), tensor(x).requires_grad_()
    (score,) = torch.autograd.grad(gaussian_log_marginal(x, t, path, mean, std).sum(), x)
    x = x.detach()
    data = conditional_mean_of_data(x, t, path, mean, std)
    noise = (x - path.alpha(t) * data) / path.sigma(t)
    predictions = {"data": data, "noise": noise, "velocity": path.d_alpha(t) * data + path.d_sigma(t) * noise}
    converted = path.convert(predictions[source], x, t[0], source=source, target="score")
    torch.testing.assert_close(converted, score, rtol=1e-7, atol=1e-7)


@given(path=paths(), t=inner_times, data=real, noise=real, source=quantities(), target=quantities())
def test_every_conversion_maps_one_target_to_the_other_and_back(path, t, data, noise, source, target):
    data, noise = tensor(data), tensor(noise)
    x_t = path.interpolate(data, noise, t)
    given_value, wanted = path.target(source, data, noise, t), path.target(target, data, noise, t)
    converted = path.convert(given_value, x_t, t, source=source, target=target)
    torch.testing.assert_close(converted, wanted, rtol=1e-8, atol=1e-8)
    back = path.convert(converted, x_t, t, source=target, target=source)
    torch.testing.assert_close(back, given_value, rtol=1e-7, atol=1e-7)


@given(path=paths(), t=inner_times, data=real, noise=real)
def test_velocity_is_the_time_derivative_of_the_interpolant(path, t, data, noise):
    time = tensor(t).requires_grad_()
    data, noise = tensor(data), tensor(noise)
    (derivative,) = torch.autograd.grad(path.interpolate(data, noise, time).sum(), time)
    torch.testing.assert_close(path.target("velocity", data, noise, time.detach()), derivative, rtol=1e-9, atol=1e-9)


def test_targets_are_the_table():
    data, noise, t = tensor(2.0), tensor(-3.0), tensor(0.25)
    path = ip.linear()
    assert path.interpolate(data, noise, t).item() == 0.25 * 2 - 0.75 * 3
    assert path.target("velocity", data, noise, t).item() == 5.0
    assert path.target("score", data, noise, t).item() == 3.0 / 0.75
    assert path.target("noise", data, noise, t).item() == -3.0
    assert path.target("data", data, noise, t).item() == 2.0


def test_ends_of_the_library_are_exact():
    data, noise = torch.randn(2, 4, 3)
    for path in LIBRARY:
        assert torch.equal(path.interpolate(data, noise, 1.0), data)
    for path in (ip.linear(), ip.gvp()):
        assert torch.equal(path.interpolate(data, noise, 0.0), noise)


@pytest.mark.parametrize(
    ("alpha", "sigma", "message"),
    [
        ("1-t", "t", r"log-SNR must increase .* at t = \S+ it is -1"),
        ("t-0.5", "1-t", r"alpha must be finite, real and > 0 on \(0, 1\); at t = \S+ it is -0"),
        ("t", "sqrt(0.5-t)", r"sigma must be finite, real and > 0 .* at t = 0\.5 it is 0"),
        ("t", "1/(t-0.5)**2-t", r"sigma must be finite"),
        ("t", "1+t", r"t = 1 must be the data end, with sigma / alpha at most 1/4, got 2.000 / 1.000"),
        ("1", "2-t", r"t = 0 must be the noise end, with alpha / sigma at most 1/4, got 1.000 / 2.000"),
        ("t-1/10**7", "1-t", r"alpha must be finite, real and > 0 .* it is -"),
        ("t", "1-1/10**7-t", r"sigma must be finite, real and > 0 .* it is -"),
        ("t", "1/t-1", r"t = 0 must be the noise end, .* got 0 / oo"),
        ("0", "1-t", r"alpha must be finite"),
        ("t*(1-t)", "(1-t)**2", r"t = 1 must be the data end, .* got 0 / 0\."),
        ("t", "1-t-2*exp(-1000000*(t-0.3)**2)", r"sigma must be finite, real and > 0 on \(0, 1\); at t = 0\.3"),
        ("t", "1-t-2*exp(-1000000*(t-0.7)**2)", r"sigma must be finite, .*; at t = 0\.7 it is -1\.7"),
        ("t", "0.99999-t", r"sigma must be finite, real and > 0 on \(0, 1\); at t = 1 - \S+ it is -"),
        ("t+sin(2*pi*t)/(2*pi)", "1-t-sin(2*pi*t)/(2*pi)", r"log-SNR must increase .* at t = 0.5 it is 0"),
        ("t", "s", r"^sigma: unknown name 's'"),
        ("s", "1-t", r"^alpha: unknown name 's'"),
    ],
)
def test_what_is_no_path_is_refused_with_the_reason_and_the_time(alpha, sigma, message):
    with pytest.raises(ValueError, match=message):
        ip.Path(alpha, sigma)


def test_a_float_pi_makes_a_path_and_constants_may_be_irrational():
    quarter = ip.Path(sp.sin(math.pi * ip.t / 2), sp.cos(math.pi * ip.t / 2))
    assert quarter.alpha(0.3) == pytest.approx(math.sin(0.15 * math.pi))
    s = "(1/(1+exp(3-6*t))-1/(1+exp(3)))/(1/(1+exp(-3))-1/(1+exp(3)))"  # sigmoid schedule, arXiv:2301.10972
    sigmoid = ip.Path(f"sqrt({s})", f"sqrt(1-{s})")
    assert sigmoid.alpha(0.5) == pytest.approx(math.sqrt(0.5))
    slow = ip.Path("t**0.8", "(1-t)**1.5")
    assert slow.conversion("velocity", "data")[1](0.0) == 0.0


def test_an_end_is_a_number_even_where_sympy_does_not_know_that_it_is_finite():
    assert math.isclose(ip.Path("tan(t*exp(1/4))", "1-t").alpha(1.0), math.tan(math.exp(0.25)))


def test_alpha_may_fall_where_the_ratio_still_rises():
    ip.Path("4*t*(1.1-t)", "1-t")


def test_unknown_quantities_are_refused_with_the_valid_ones():
    path, x = ip.linear(), torch.zeros(2, 3)
    for where, call in (
        ("target: quantity", lambda: path.target("velocty", x, x, 0.5)),
        ("row: quantity", lambda: path.row("velocty")),
        ("conversion: source", lambda: path.conversion("velocty", "score")),
        ("conversion: target", lambda: path.conversion("score", "velocty")),
        ("convert: source", lambda: path.convert(x, x, 0.5, source="velocty", target="velocty")),
        ("ode: prediction", lambda: path.ode("velocty")),
        ("sde: prediction", lambda: path.sde("velocty", w=1)),
        ("loss_weight: prediction", lambda: path.loss_weight("velocty", space="noise")),
        ("loss_weight: space", lambda: path.loss_weight("noise", space="velocty")),
        ("error_terms: prediction", lambda: path.error_terms("velocty", space="noise")),
        ("error_terms: space", lambda: path.error_terms("noise", space="velocty")),
        ("weight: prediction", lambda: path.weight("min_snr", "velocty")),
    ):
        message = f"^{where} must be one of velocity, score, noise, data, got 'velocty'. Did you mean"
        with pytest.raises(ValueError, match=message):
            call()


def test_shapes_that_differ_are_refused():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"noise: must have the shape of data, \(2, 3\), got \(3,\)"):
        ip.linear().interpolate(x, x[0], 0.5)
    with pytest.raises(ValueError, match=r"prediction must have the shape of x_t"):
        ip.linear().convert(x[:1], x, 0.5, source="noise", target="data")


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_paper_time_reverses_the_velocity_and_keeps_what_has_no_direction(path):
    reversed_path = path.in_paper_time()
    assert (path.data_end, reversed_path.data_end) == (1, 0)
    data, noise, t = tensor(0.7, -1.1), tensor(1.3, 0.2), tensor(0.2, 0.65)
    torch.testing.assert_close(reversed_path.interpolate(data, noise, 1 - t), path.interpolate(data, noise, t))
    for quantity, sign in (("velocity", -1), ("score", 1), ("noise", 1), ("data", 1)):
        torch.testing.assert_close(
            reversed_path.target(quantity, data, noise, 1 - t), sign * path.target(quantity, data, noise, t)
        )
    assert ip.Path.from_paper_time(reversed_path.alpha.expr, reversed_path.sigma.expr) == path
    assert reversed_path.in_paper_time() is reversed_path


def test_text_sympy_and_library_give_one_path_and_a_path_can_be_stored():
    text = ip.Path("sin(pi*t/2)", "cos(pi*t/2)")
    assert text == ip.gvp() == ip.Path(sp.sin(sp.pi * ip.t / 2), sp.cos(sp.pi * ip.t / 2))
    assert hash(text) == hash(ip.gvp())
    assert text != ip.linear()
    assert pickle.loads(pickle.dumps(ip.vp())) == ip.vp()
    for path in PATHS:  # str(expr) is the form in which a checkpoint keeps a path
        assert ip.Path(str(path.alpha.expr), str(path.sigma.expr)) == path
    assert "sin" in text._repr_latex_()


def test_library_by_name_and_its_parameters():
    assert ip.by_name("vp") == ip.vp(0.1, 20.0)
    assert ip.vp(0.1, 10.0) != ip.vp()
    with pytest.raises(ValueError, match="Did you mean 'linear'"):
        ip.by_name("lineer")
    for bad in ((0.0, 20.0), (5.0, 1.0), (-1.0, 2.0)):
        with pytest.raises(ValueError, match="0 < beta_min <= beta_max"):
            ip.vp(*bad)
    with pytest.raises(ValueError, match="must be the noise end"):
        ip.vp(0.1, 1.0)


# Parameters and composition


def test_parameters_are_numbers_by_name():
    assert ip.Path("t**p", "1-t**p", p=2) == ip.Path("t**2", "1-t**2")
    assert ip.Path("t", "1-(1-s)*t", s=0.1).sigma.expr == 1 - sp.Rational(9, 10) * t
    assert ip.Path.from_paper_time("(1-t)**p", "t", p=3) == ip.Path("t**3", "1-t")
    p = sp.Symbol("p")
    assert ip.Path(t**p, 1 - t, p=0.5) == ip.Path("sqrt(t)", "1-t")
    with pytest.raises(ValueError, match="unknown name 'p'"):
        ip.Path("t**p", "1-t")
    with pytest.raises(ValueError, match="Path: a parameter must occur in an expression, got 'q'"):
        ip.Path("t**p", "1-t", p=2, q=3)
    with pytest.raises(ValueError, match="log-SNR must increase"):
        ip.Path("t**p", "1-t", p=-2)


@given(path=paths(), time=st.floats(0.05, 0.95), data=real, noise=real)
def test_after_a_change_of_time_the_state_is_that_at_the_changed_time_and_the_velocity_is_scaled(
    path, time, data, noise
):
    changed, data, noise = path.after("t**2"), tensor(data), tensor(noise)
    torch.testing.assert_close(
        changed.interpolate(data, noise, tensor(time)),
        path.interpolate(data, noise, tensor(time**2)),
        rtol=1e-9,
        atol=1e-9,
    )
    torch.testing.assert_close(
        changed.target("velocity", data, noise, tensor(time)),
        2 * time * path.target("velocity", data, noise, tensor(time**2)), rtol=1e-8, atol=1e-8,
    )  # fmt: skip
    assert changed.data_end == 1


def test_after_takes_parameters_names_and_the_papers_time():
    assert ip.linear().after("t**p", p=3) == ip.Path("t**3", "1-t**3")
    assert ip.linear().after("t**2").name == "linear after t**2"
    assert ip.linear().after(t**2, name="squared").name == "squared"
    assert ip.linear().in_paper_time().after("t**2").data_end == 0
    assert ip.gvp().after("t") == ip.gvp()
    with pytest.raises(ValueError, match=r"^time_map: a parameter must occur in an expression, got 'q'"):
        ip.linear().after("t**p", p=2, q=3)


@pytest.mark.parametrize(
    ("time_map", "message"),
    [
        ("1-t", r"time_map: must lead from 0 to 1, got 1 - t, from 1 to 0"),
        ("t/2", r"must lead from 0 to 1, got t/2, from 0 to 1/2"),
        ("t+sin(2*pi*t)", r"no path"),
        ("t*u", r"time_map: unknown name 'u'"),
    ],
)
def test_what_is_no_change_of_time_is_refused(time_map, message):
    with pytest.raises(ValueError, match=message):
        ip.linear().after(time_map)


def test_log_snr_is_one_logarithm_of_the_ratio():
    assert ip.gvp().log_snr.expr == 2 * sp.log(sp.tan(sp.pi * t / 2))
    assert ip.linear().log_snr.expr == 2 * sp.log(t / (1 - t))


def test_weight_is_that_of_the_prediction():
    """min-SNR multiplies the error of the data; the noise's is sigma^2/alpha^2 of it, and the velocity is both."""
    linear = ip.linear()
    weight = linear.weight("min_snr", "noise")
    assert weight(0.5) == pytest.approx(1.0)  # SNR 1 < 5, times sigma^2/alpha^2 = 1
    assert weight(0.8) == pytest.approx(5 / 16)
    assert linear.weight("3*t", "velocity")(0.5) == 1.5
    with pytest.raises(ValueError, match="weight: prediction must be one of"):
        linear.weight("min_snr", "velocty")


def test_a_path_has_a_name_and_prints_as_an_equation():
    path = ip.Path("t", "1-t")
    assert path.name == "(t, 1 - t)"
    assert repr(path) == "Path((t, 1 - t): x_t = (t) data + (1 - t) noise)"
    assert path._repr_latex_() == (
        r"$\displaystyle x_t = \left(t\right) \mathrm{data} + \left(1 - t\right) \mathrm{noise}$"
    )
    assert ip.Path("t", "1-t", name="straight").in_paper_time().name == "straight, paper time"
    assert ip.Path.from_paper_time("1-t", "t", name="turned").name == "turned"


def test_the_derived_functions_by_hand_and_derived_once():
    path = ip.Path("t**2", "1-t")
    by_hand = {"d_alpha": 2 * t, "d_sigma": -1, "wronskian": 2 * t - t**2, "log_snr": 2 * sp.log(t**2 / (1 - t))}
    for name, expr in by_hand.items():
        assert sp.expand(getattr(path, name).expr - expr) == 0
        assert getattr(path, name) is getattr(path, name)
    assert sp.expand(path.in_paper_time().wronskian.expr - (t**2 - 1)) == 0
    for call in (lambda: path.row("score"), lambda: path.conversion("noise", "data"), lambda: path.ode("noise")):
        assert call() is call() is not None
    assert path.row("score") != path.row("noise")


def test_equations_and_weights_of_the_straight_line_by_hand():
    """v = (x - noise) / t, and v + sigma score = v + t v - x."""
    linear, s = ip.linear(), 1 - t
    ode, sde, forward, weight = (
        linear.ode("noise"), linear.sde("velocity", "sigma"), linear.forward_sde(), linear.weight("min_snr", "noise"),
    )  # fmt: skip
    for found, by_hand in (
        ((ode.a, ode.b, ode.w), (1 / t, -1 / t, 0)),
        ((sde.a, sde.b, sde.w), (-1, 1 + t, 2 * s)),
        (forward, (-1 / t, 2 * s / t)),
        (linear.in_paper_time().forward_sde(), (-1 / s, 2 * t / s)),
        (linear.row("score"), (0, -1 / s)),
        (linear.error_terms("score", space="noise"), (-s, 0, 1)),
        ((linear.loss_weight("noise", space="velocity"), weight), (t**-2, sp.Min(1, 5 * s**2 / t**2))),
    ):
        assert [sp.simplify(c.expr - expr) for c, expr in zip(found, by_hand, strict=True)] == [0] * len(by_hand)
    assert linear.plot().get_suptitle() == "linear"


def test_paths_are_equal_where_functions_and_direction_are():
    path = ip.linear()
    turned = path.in_paper_time()
    assert (turned.alpha.expr, turned.sigma.expr) == (1 - t, t)
    assert path != turned
    assert path != "linear"
    assert path == ip.Path("t", "1-t", name="other")
    assert (path.end("noise"), path.end("data"), turned.end("noise"), turned.end("data")) == (0, 1, 1, 0)


def test_the_interval_of_a_path_is_that_of_its_coefficients():
    a, b = ip.linear().conversion("noise", "velocity")
    assert ip.Path.interval(a, b, max_gain=2.0) == (0.5, 1.0)
    assert 1 / ip.linear().interval(a, b)[0] == pytest.approx(1e3, rel=0.01)


def test_an_end_may_keep_a_quarter_of_the_other():
    ip.Path("1/4+3*t/4", "1-t")
    ip.Path("t", "1-3*t/4")
    for alpha, sigma, end in (("0.26+t", "1-t", 0), ("t", "1.26-t", 1)):
        with pytest.raises(ValueError, match=rf"t = {end} must be the .* at most 1/4, got 0.2600 / 1.000\. Time runs"):
            ip.Path(alpha, sigma)


def test_a_path_in_the_papers_time_is_told_so():
    hint = r" \(it decreases everywhere: Path.from_paper_time takes data at 0\)"
    with pytest.raises(ValueError, match=rf"must increase from noise to data, .* in that direction{hint}; at t = "):
        ip.Path("1-t", "t")
    for alpha, sigma in (("t+sin(2*pi*t)/2", "1-t"), ("(t+sin(2*pi*t)/2)/10", "1-t"), ("1/2", "1/2")):
        with pytest.raises(ValueError, match=r"must increase from noise to data, .* in that direction; at t = "):
            ip.Path(alpha, sigma)
