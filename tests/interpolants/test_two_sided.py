"""Two-sided interpolants, against jointly Gaussian numbers in closed form, numerical rank and autograd."""

import functools
import itertools
import pickle
import re
import warnings
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from gaussian import tensor

import interpolants as ip
from interpolants import two_sided
from interpolants.enclosure import UndecidedWarning
from interpolants.expression import parse
from interpolants.two_sided import QUANTITIES, TwoSided

t = ip.t
pi = torch.pi

BY_HAND = {  # alpha, beta, gamma, for torch
    "brownian": (lambda s: 1 - s, lambda s: s, lambda s: (s * (1 - s)) ** 0.5),
    "quadratic": (lambda s: 1 - s, lambda s: s, lambda s: s * (1 - s)),
    "trigonometric": (
        lambda s: torch.cos(pi * s / 2),
        lambda s: torch.sin(pi * s / 2),
        lambda s: torch.sin(pi * s) ** 2,
    ),
    "unequal": (lambda s: (1 - s) ** 2, lambda s: s**3, lambda s: 2 * s * (1 - s) ** 2),
    "encoder_decoder": (
        lambda s: torch.where(s <= 0.5, torch.cos(pi * s) ** 2, 0 * s),
        lambda s: torch.where(s <= 0.5, 0 * s, torch.cos(pi * s) ** 2),
        lambda s: torch.sin(pi * s) ** 2,
    ),
}
PATHS = {
    "brownian": two_sided.linear(),
    "quadratic": two_sided.linear(two_sided.quadratic()),
    "trigonometric": two_sided.trigonometric(two_sided.sin_squared()),
    "unequal": TwoSided("(1-t)**2", "t**3", "2*t*(1-t)**2", name="unequal"),
    "encoder_decoder": two_sided.encoder_decoder(),
}
TIMES = (0.13, 0.37, 0.62, 0.88)
MEANS, STDS = tensor(0.7, -1.2, 0.0), tensor(0.6, 1.7, 1.0)  # of source, data and noise
every_path = pytest.mark.parametrize("name", PATHS)


@functools.cache
def weights(name, time):
    """(alpha, beta, gamma) by hand, and their derivatives by autograd."""
    time = torch.tensor(time, dtype=torch.float64)
    values = torch.stack([f(time) for f in BY_HAND[name]])
    slopes = torch.stack([torch.func.grad(f)(time) for f in BY_HAND[name]])
    return values, slopes


def log_marginal(name, x, time):
    values = torch.stack([f(time) for f in BY_HAND[name]])
    mean, variance = (values * MEANS).sum(), (values**2 * STDS**2).sum()
    return -0.5 * (x - mean) ** 2 / variance - 0.5 * torch.log(2 * pi * variance)


def posterior_unknowns(name, x, time):
    """E[(source, data, noise) | x_t = x] for independent Gaussians, by the formula of two jointly Gaussian numbers."""
    values = torch.stack([f(torch.as_tensor(time, dtype=torch.float64)) for f in BY_HAND[name]])
    return MEANS + STDS**2 * values / (values**2 * STDS**2).sum() * (x - (values * MEANS).sum())


def posterior_means(name, x, time):
    source, data, noise = unknowns = posterior_unknowns(name, x, time)
    score = torch.func.grad(lambda y: log_marginal(name, y, torch.as_tensor(time, dtype=torch.float64)))(x)
    velocity = (weights(name, time)[1] * unknowns).sum()
    return {"velocity": velocity, "score": score, "noise": noise, "data": data, "source": source}


def rows(name, time):
    values, slopes = weights(name, time)
    unit = torch.eye(3, dtype=torch.float64)
    score = -unit[2] / values[2]
    return {"x_t": values, "velocity": slopes, "score": score, "noise": unit[2], "data": unit[1], "source": unit[0]}


def is_determined(name, known, target):
    """By the numerical rank at times on both halves."""
    for time in TIMES:
        row = rows(name, time)
        matrix = torch.stack([row[q] for q in ("x_t", *known)])
        if torch.linalg.matrix_rank(torch.cat([matrix, row[target][None]])) > torch.linalg.matrix_rank(matrix):
            return False
    return True


# The functions


@every_path
def test_functions_and_derivatives_are_those_by_hand(name):
    path = PATHS[name]
    for time in TIMES:
        values, slopes = weights(name, time)
        for i, (c, d) in enumerate([(path.alpha, path.d_alpha), (path.beta, path.d_beta), (path.gamma, path.d_gamma)]):
            assert c(time) == pytest.approx(values[i].item(), rel=1e-13, abs=1e-15)
            assert d(time) == pytest.approx(slopes[i].item(), rel=1e-12, abs=1e-15)
        product = (values[2] * slopes[2]).item()
        assert path.gamma_d_gamma(time) == pytest.approx(product, rel=1e-12)
    assert path.d_alpha is path.d_alpha
    assert path.gamma_d_gamma is path.gamma_d_gamma


@every_path
def test_rows_are_those_of_the_table(name):
    for time in TIMES:
        for quantity in QUANTITIES:
            got = torch.stack([tensor(c(time))[0] for c in PATHS[name].row(quantity)])
            torch.testing.assert_close(got, rows(name, time)[quantity], rtol=1e-12, atol=1e-14)


@every_path
def test_x_t_is_the_source_at_0_and_the_data_at_1(name):
    source, data, noise = torch.randn(3, 4, 2, dtype=torch.float64)
    assert torch.equal(PATHS[name].interpolate(source, data, noise, 0.0), source)
    assert torch.equal(PATHS[name].interpolate(source, data, noise, 1.0), data)


@every_path
def test_interpolate_and_target_are_linear_in_the_unknowns(name):
    unknowns = torch.randn(3, len(TIMES), 2, dtype=torch.float64)
    times = tensor(*TIMES)
    for i, time in enumerate(TIMES):
        row = rows(name, time)
        x = PATHS[name].interpolate(*unknowns, times)
        torch.testing.assert_close(x[i], torch.einsum("u,ud->d", row["x_t"], unknowns[:, i]))
        for quantity in QUANTITIES:
            got = PATHS[name].target(quantity, *unknowns, times)
            torch.testing.assert_close(got[i], torch.einsum("u,ud->d", row[quantity], unknowns[:, i]))


def test_the_product_of_a_brownian_gamma_and_its_derivative_is_finite_at_the_ends():
    path = two_sided.linear(two_sided.brownian(3))
    assert sp.expand(path.gamma_d_gamma.expr) == sp.Rational(3, 2) - 3 * t
    assert path.gamma_d_gamma(0.0) == 1.5
    assert (path.d_gamma.limit(0), path.d_gamma.limit(1)) == (sp.oo, -sp.oo)
    weights_of = path.conversion(("source", "data", "score"), "velocity")
    assert [sp.expand(c.expr) for c in weights_of] == [0, -1, 1, 3 * t - sp.Rational(3, 2)]


# Conversions


@pytest.mark.parametrize(("name", "sizes"), [("quadratic", (1,)), ("encoder_decoder", (1, 2))])
def test_a_quantity_is_determined_exactly_if_the_rank_says_so(name, sizes):
    for size in sizes:
        for known in itertools.combinations(QUANTITIES, size):
            for target in QUANTITIES:
                if is_determined(name, known, target):
                    assert len(PATHS[name].conversion(known, target)) == 1 + size
                else:
                    with pytest.raises(ValueError, match=rf"{', '.join(known)} -> {target} is not determined"):
                        PATHS[name].conversion(known, target)


@every_path
@pytest.mark.parametrize(
    "known",
    [("velocity",), ("noise",), ("velocity", "noise"), ("source", "data"), ("velocity", "data")],
    ids=" ".join,
)
def test_a_conversion_takes_posterior_means_to_posterior_means(name, known):
    xs = tensor(-0.8, 0.4, 1.3, 0.9)
    means = [posterior_means(name, x, time) for x, time in zip(xs, TIMES, strict=True)]
    values = {q: torch.stack([m[q] for m in means]) for q in QUANTITIES}
    for target in QUANTITIES:
        if is_determined(name, known, target):
            predictions = [values[q] for q in known]
            got = PATHS[name].convert(predictions, xs, tensor(*TIMES), known=known, target=target)
            torch.testing.assert_close(got, values[target], rtol=1e-9, atol=1e-9)


def test_what_is_not_determined_states_the_rank_and_what_would_determine_it():
    path = PATHS["quadratic"]
    for known, target, reason in [
        (
            "velocity",
            "score",
            "velocity -> score is not determined: x_t and velocity are 2 equations for 3 unknowns "
            "(source, data, noise); give one more of score, noise, data, source.",
        ),
        (
            ("noise", "score"),
            "data",
            "noise, score -> data is not determined: x_t, noise and score are 2 equations for 3 unknowns "
            "(source, data, noise); give one more of velocity, data, source.",
        ),
    ]:
        with pytest.raises(ValueError, match=rf"^{re.escape(reason)}$"):
            path.conversion(known, target)
    with pytest.raises(
        ValueError, match=r"noise -> source is not determined for 1/2 < t < 1: .* one more of source\.$"
    ):
        PATHS["encoder_decoder"].conversion("noise", "source")
    with pytest.raises(ValueError, match=r"velocity -> data is not determined for 0 < t < 1/2: .* one more of data\.$"):
        PATHS["encoder_decoder"].conversion("velocity", "data")


def test_functions_in_a_constant_ratio_on_one_piece_leave_no_new_equation_there():
    """gamma = 3 beta before 1/2 and 3 alpha after it: x_t and velocity hold this function times one sum alike."""
    half, rise = sp.Rational(1, 2), t * (1 + sp.sqrt(t * (1 - t)))
    fall = rise.subs(t, 1 - t)
    path = TwoSided(fall, rise, sp.Piecewise((3 * rise, t <= half), (3 * fall, True)))
    for known, other, where in (("source", "data", "0 < t < 1/2"), ("data", "source", "1/2 < t < 1")):
        reason = (
            f"{known}, velocity -> {other} is not determined for {where}: x_t, {known} and velocity are 2 equations "
            f"for 3 unknowns (source, data, noise); give one more of score, noise, {other}."
        )
        with pytest.raises(ValueError, match=rf"^{re.escape(reason)}$"):
            path.conversion((known, "velocity"), other)


def test_weights_prefer_the_target_itself_then_the_known_in_their_order_then_x_t():
    path, gamma = PATHS["quadratic"], t * (1 - t)

    def exprs(known, target):
        return [sp.expand(c.expr) for c in path.conversion(known, target)]

    assert exprs(("noise", "score"), "score") == [0, 0, 1]
    assert exprs(("score", "noise"), "noise") == [0, 0, 1]
    assert exprs(("noise", "score"), "noise") == [0, 1, 0]
    assert exprs("noise", "score") == [0, sp.expand(-1 / gamma)]
    assert exprs("score", "noise") == [0, sp.expand(-gamma)]
    assert exprs(("source", "data", "noise"), "velocity") == [0, -1, 1, 1 - 2 * t]
    assert exprs(("score", "noise", "velocity", "data"), "source")[2] == 0
    assert exprs(("velocity", "noise"), "data") == [1, 1 - t, sp.expand(-((1 - t) ** 2))]  # x + (1-t) v - (1-t)^2 noise


def test_the_encoder_decoder_needs_one_prediction():
    """noise = (alpha v - alpha' x) / W on either half, with W = pi sin(2 pi t), by hand."""
    path = PATHS["encoder_decoder"]
    a, b = path.conversion("velocity", "noise")
    for time in (*TIMES, 0.5):
        assert a(time) == pytest.approx(1.0, rel=1e-14)
        assert b(time) == pytest.approx(1 / (2 * pi * np.tan(pi * time)), rel=1e-12, abs=1e-15)
    a, b = path.conversion("velocity", "score")
    for time in TIMES:
        assert a(time) == pytest.approx(-1 / np.sin(pi * time) ** 2, rel=1e-12)
        assert b(time) == pytest.approx(-1 / np.tan(pi * time) / (2 * pi * np.sin(pi * time) ** 2), rel=1e-12)


def test_predictions_may_be_one_tensor_and_what_has_weight_zero_may_be_infinite():
    path, x = PATHS["brownian"], torch.randn(3, 2)
    noise = torch.randn(3, 2)
    got = path.convert(noise, x, torch.tensor([0.2, 0.5, 0.5]), known="noise", target="score")
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, -noise / torch.tensor([[0.4], [0.5], [0.5]]))
    infinite = torch.full_like(x, torch.inf)
    assert torch.equal(path.convert([noise, infinite], x, 0.0, known=("noise", "score"), target="noise"), noise)


def test_weights_are_as_precise_as_the_state_when_predictions_are_not():
    x, velocity, noise = tensor(0.1, 0.2), torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 4.0])
    got = PATHS["quadratic"].convert((velocity, noise), x, tensor(0.3, 0.3), known=("velocity", "noise"), target="data")
    torch.testing.assert_close(got, tensor(0.1 + 0.7 + 0.49, 0.2 + 1.4 - 4 * 0.49), rtol=1e-14, atol=0)


# Dynamics


def predicted(name, known, x, time):
    means = posterior_means(name, x, time)
    return [means[q] for q in known]


@every_path
@pytest.mark.parametrize("known", [("velocity", "noise"), ("score", "velocity")], ids=" ".join)
@pytest.mark.parametrize("kind", ["ode", "forward", "backward"])
def test_every_drift_satisfies_its_fokker_planck_equation(name, known, kind):
    """d log p/dt + f d log p/dx + df/dx = +-w/2 (d^2 log p/dx^2 + (d log p/dx)^2), + forward and - backward in time."""
    path, w = PATHS[name], "(t*(1-t))**2*(1+t)"
    dynamics = path.ode(known) if kind == "ode" else path.sde(known, w, kind)
    sign = {"ode": 0.0, "forward": 1.0, "backward": -1.0}[kind]
    for time, x in zip(TIMES, tensor(-0.8, 0.4, 1.3, 0.9), strict=True):
        s = tensor(time)[0].requires_grad_()
        x.requires_grad_()
        d_t, d_x = torch.autograd.grad(log_marginal(name, x, s), (s, x), create_graph=True)
        (d_xx,) = torch.autograd.grad(d_x, x)
        drift = dynamics.drift(x, predicted(name, known, x, time), time)
        (divergence,) = torch.autograd.grad(drift, x)
        amplitude = (time * (1 - time)) ** 2 * (1 + time)
        terms = [d_t, drift * d_x, divergence, -sign * 0.5 * amplitude * (d_xx + d_x**2)]
        assert abs(sum(terms)) <= 1e-9 * max(abs(term) for term in terms)


@pytest.mark.parametrize("kind", ["ode", "forward", "backward"])
@pytest.mark.parametrize("name", ["quadratic", "trigonometric"])
def test_moments_are_carried_from_source_to_data_and_back(name, kind):
    """For a drift linear in x: m' = f(m) and var' = 2 f' var +- w, by Runge-Kutta with 50 steps, of error 1e-5."""
    known, w = ("source", "data", "noise"), two_sided.sin_squared()
    dynamics = PATHS[name].ode(known) if kind == "ode" else PATHS[name].sde(known, w, kind)
    sign = {"ode": 0.0, "forward": 1.0, "backward": -1.0}[kind]
    begin, end = (1.0, 0.0) if kind == "backward" else (0.0, 1.0)
    first, last = (1, 0) if kind == "backward" else (0, 1)
    zero, one = tensor(0.0, 1.0)

    def slope(time, moments):
        at_zero, at_one = (dynamics.drift(x, tuple(posterior_unknowns(name, x, time)), time) for x in (zero, one))
        gain = at_one - at_zero
        noise = sign * dynamics.diffusion(tensor(time))[0] ** 2
        return torch.stack([at_zero + gain * moments[0], 2 * gain * moments[1] + noise])

    num_steps = 50
    h, moments = (end - begin) / num_steps, torch.stack([MEANS[first], STDS[first] ** 2])
    for k in range(num_steps):
        time = begin + k * h
        k1 = slope(time, moments)
        k2 = slope(time + h / 2, moments + h / 2 * k1)
        k3 = slope(time + h / 2, moments + h / 2 * k2)
        k4 = slope(min(max(time + h, 0.0), 1.0), moments + h * k3)
        moments = moments + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    torch.testing.assert_close(moments, torch.stack([MEANS[last], STDS[last] ** 2]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("direction", "sign"), [("forward", -1), ("backward", 1)])
def test_w_score_is_finite_where_the_score_is_not(direction, sign):
    """w = gamma^2: w/2 score = -gamma/2 noise."""
    for name, gamma in [("brownian", sp.sqrt(t * (1 - t))), ("quadratic", t * (1 - t))]:
        sde = PATHS[name].sde(("velocity", "noise"), gamma**2, direction)
        assert PATHS[name].row("score")[2].limit(0) == -sp.oo
        assert (sde.a.expr, sde.b[0].expr) == (0, 1)
        assert sp.simplify(sde.b[1].expr - sign * gamma / 2) == 0
        assert sde.interval() == (0.0, 1.0)
        times = torch.linspace(0, 1, 11, dtype=torch.float64)
        torch.testing.assert_close(sde.b[1](times) ** 2 * 4, sde.w(times))
        x = torch.ones(11, dtype=torch.float64)
        assert sde.drift(x, (x, x), times).isfinite().all()
        torch.testing.assert_close(sde.diffusion(times) ** 2, sde.w(times))


def test_the_direction_is_forward_unless_told_and_w_comes_in_every_form():
    path = PATHS["quadratic"]
    assert repr(path.sde(("velocity", "noise"), "2*t*(1-t)")) == (
        "forward SDE of the velocity and noise, w = 2*t*(1 - t): "
        "dx = [(0) x + (1) velocity + (-1) noise] dt + sqrt(2*t*(1 - t)) dW"
    )
    assert [path.sde(("velocity", "noise"), w).w.expr for w in ("t/2", t / 2, 0.5)] == [t / 2, t / 2, sp.Rational(1, 2)]
    assert repr(path.ode("velocity")) == "ODE of the velocity: dx = [(0) x + (1) velocity] dt + sqrt(0) dW"
    assert path.ode("velocity").known == ("velocity",)
    assert path.sde("velocity", 0).b[0].expr == 1


def test_the_interval_ends_where_a_gain_is_too_large():
    sde = PATHS["quadratic"].sde(("velocity", "score"), 1)
    assert sde.interval() == (0.0, 1.0)
    low, high = PATHS["quadratic"].sde(("velocity", "noise"), 2).interval(max_gain=100)
    assert low == pytest.approx(0.01, rel=0.05)  # 1 / (t (1-t)) = 100
    assert high == pytest.approx(0.99, rel=0.01)
    assert PATHS["quadratic"].sde(("velocity", "noise"), 2).interval()[0] == pytest.approx(1e-3, rel=0.05)


def test_a_pole_inside_is_no_interval():
    """From the noise alone the velocity is -2 pi tan(pi t) (x - sin^2 noise) + ..., on both halves."""
    third = sp.Rational(1, 3)
    parts = TwoSided(
        sp.Piecewise((1 - 3 * t, t <= third), (0, True)),
        sp.Piecewise((0, t <= third), ((3 * t - 1) / 2, True)),
        two_sided.brownian(),
    )
    for side in ("data", "source"):  # alpha'/alpha has its pole before 1/3, beta'/beta after it
        with pytest.raises(ValueError, match=rf"interval: ODE of the noise and {side} has a pole at t = 1/3, inside"):
            parts.ode(("noise", side)).interval()
    quarter, half = sp.Rational(1, 4), sp.Rational(1, 2)  # alpha'/alpha has its pole at the end of the second piece
    alpha = sp.Piecewise((1 - t, t <= quarter), (3 * (1 - 2 * t) / 2, t <= half), (0, True))
    with pytest.raises(ValueError, match=r"interval: ODE of the noise and data has a pole at t = 1/2, inside"):
        TwoSided(alpha, t, two_sided.quadratic()).ode(("noise", "data")).interval()
    path = PATHS["encoder_decoder"]
    with pytest.raises(ValueError, match=r"interval: ODE of the noise has a pole at t = 1/2, inside the interval, in "):
        path.ode("noise").interval()
    assert path.ode("velocity").interval() == (0.0, 1.0)
    assert path.sde("velocity", "sin(pi*t)**4").interval() == (0.0, 1.0)
    low, high = path.sde("velocity", "sin(pi*t)**2").interval()
    assert 0.0 < low < 0.01
    assert 0.99 < high < 1.0


# One-sided


@pytest.mark.parametrize("name", ["brownian", "quadratic"])
def test_with_a_gaussian_source_the_marginals_are_those_of_a_one_sided_path(name):
    path = PATHS[name].one_sided()
    assert path.name == f"{PATHS[name].name}, one-sided"
    for time in TIMES:
        (alpha, beta, gamma), (d_alpha, d_beta, d_gamma) = weights(name, time)
        assert path.alpha(time) == pytest.approx(beta.item(), rel=1e-14)
        assert path.sigma(time) ** 2 == pytest.approx((alpha**2 + gamma**2).item(), rel=1e-14)
        # E[alpha' source + gamma' noise | their sum in x_t] = (alpha alpha' + gamma gamma') / sigma^2 times the sum
        slope = (alpha * d_alpha + gamma * d_gamma).item() / path.sigma(time)
        assert path.d_sigma(time) == pytest.approx(slope, rel=1e-12)
        assert path.d_alpha(time) == pytest.approx(d_beta.item(), rel=1e-14)


def test_where_sigma_squared_is_a_square_its_root_is_the_one_that_is_positive_inside():
    wave = sp.pi * t / 2
    assert TwoSided(sp.cos(wave) ** 2, sp.sin(wave), sp.sin(wave) * sp.cos(wave)).one_sided() == ip.gvp()
    line = TwoSided((1 - t) ** 2, t, (1 - t) * sp.sqrt(t * (2 - t))).one_sided()
    assert sp.expand(line.sigma.expr) == 1 - t


def test_a_bend_inside_a_function_stays():
    path = TwoSided("(1-t)*(1+abs(t-0.3))/1.3", "t", "t*(1-t)").one_sided()
    for time in TIMES:
        alpha, gamma = (1 - time) * (1 + abs(time - 0.3)) / 1.3, time * (1 - time)
        assert path.sigma(time) == pytest.approx((alpha**2 + gamma**2) ** 0.5, rel=1e-14)


def test_a_path_that_returns_to_noise_is_not_one_sided():
    with pytest.raises(ValueError, match="one-sided is no path: the log-SNR must increase"):
        TwoSided("1-t", "t", "20*t**4*(1-t)").one_sided()
    with pytest.raises(ValueError, match=r"one_sided: the interpolant must be of one piece, got encoder-decoder"):
        PATHS["encoder_decoder"].one_sided()


# Families


def test_the_families_of_gamma():
    assert two_sided.brownian() == sp.sqrt(t * (1 - t))
    assert sp.expand(two_sided.brownian(0.5) ** 2) == sp.expand(t * (1 - t) / 2)
    assert two_sided.quadratic() == t * (1 - t)
    assert two_sided.sin_squared() == sp.sin(sp.pi * t) ** 2
    for path in (two_sided.linear(), two_sided.trigonometric()):
        assert sp.expand(path.gamma.expr**2) == sp.expand(t * (1 - t))
    assert (two_sided.linear().alpha.expr, two_sided.linear().beta.expr) == (1 - t, t)
    assert two_sided.trigonometric().alpha.expr == sp.cos(sp.pi * t / 2)
    assert two_sided.trigonometric().beta.expr == sp.sin(sp.pi * t / 2)
    assert two_sided.linear("t*(1-t)").name == "two-sided linear, gamma = t*(1-t)"
    assert two_sided.trigonometric("t*(1-t)").name == "two-sided trigonometric, gamma = t*(1-t)"
    assert two_sided.encoder_decoder().name == "encoder-decoder"


@pytest.mark.parametrize("f", [10, 3.5])
def test_the_sigmoid_gamma_is_the_difference_of_sigmoids_next_to_the_ends_too(f):
    def s(x):
        return 1 / (1 + mpmath.exp(-x))

    def exact(time):
        y = f * (mpmath.mpf(time) - 0.5)
        return s(y + 1) - s(y - 1) - s(1 - mpmath.mpf(f) / 2) + s(-1 - mpmath.mpf(f) / 2)

    path = two_sided.linear(two_sided.sigmoid() if f == 10 else two_sided.sigmoid(f))
    assert (path.gamma(0.0), path.gamma(1.0)) == (0.0, 0.0)
    with mpmath.workdps(50):
        for time in (1e-9, 1e-3, 0.2, 0.5, 0.9, 1 - 1e-9):
            assert path.gamma(time) == pytest.approx(float(exact(time)), rel=1e-13)
            assert path.d_gamma(time) == pytest.approx(
                float(mpmath.diff(exact, mpmath.mpf(time))), rel=1e-11, abs=1e-15
            )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: two_sided.brownian(0), r"brownian: a must be positive, got 0\."),
        (lambda: two_sided.brownian(-1.5), r"brownian: a must be positive, got -1.5"),
        (lambda: two_sided.sigmoid(0.0), r"sigmoid: f must be positive, got 0.0"),
        (lambda: two_sided.sigmoid(50.5), r"sigmoid: f must be at most 50, got 50.5"),
    ],
)
def test_a_parameter_outside_its_range_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    two_sided.sigmoid(50)


# Wrong input


def time_in(message):
    """The exact time that the message of a refusal states, or its distance from 1."""
    return Fraction(re.search(r"; at t = (?:1 - )?(\S+) it is", message).group(1))


@pytest.mark.parametrize(
    ("alpha", "beta", "gamma", "message"),
    [
        ("2-2*t", "t", "t*(1-t)", r"alpha must be 1 at t = 0, got 2\.000\. Time runs from the source at 0"),
        ("1-t/2", "t", "t*(1-t)", r"alpha must be 0 at t = 1, got 0\.5000"),
        ("1-t", "(1+t)/2", "t*(1-t)", r"beta must be 0 at t = 0, got 0\.5000"),
        ("1-t", "2*t", "t*(1-t)", r"beta must be 1 at t = 1, got 2\.000"),
        ("1-t", "t", "1-t", r"gamma must be 0 at t = 0, got 1\.000"),
        ("1-t", "t", "t", r"gamma must be 0 at t = 1, got 1\.000"),
        ("(1-t)/t", "t", "t*(1-t)", r"alpha must be 1 at t = 0, got oo"),
        ("1-t", "t", 0, r"gamma must be finite, real and > 0 on \(0, 1\); at t = 0\.5 it is 0"),
        ("1-t", "t", "t*(1-t)*(0.5-t)", r"gamma must be finite, real and > 0 on \(0, 1\); at t = \S+ it is -"),
        ("(1-t)*(1-2*t)", "t", "t*(1-t)", r"alpha must be finite, real and >= 0 on \(0, 1\); at t = \S+ it is -0"),
        (
            "1-t",
            "t*(2*t-1)",
            "t*(1-t)",
            r"beta must be finite, real and >= 0 on \(0, 1\); at t = \S+ it is -0",
        ),
        ("1-t", "t", "t*(1-t)/(t-0.5)**2", r"gamma must be finite, real and > 0 on \(0, 1\); at t = 0\.5 it is nan"),
        ("1-t", "t", "sqrt(t-0.5)", r"gamma must be finite, real and > 0 on \(0, 1\); at t = \S+ it is (0|nan)"),
        ("s", "t", "t*(1-t)", r"^alpha: .*'s'"),
        ("1-t", "s", "t*(1-t)", r"^beta: .*'s'"),
        ("1-t", "t", "s*t*(1-t)", r"^gamma: .*'s'"),
    ],
)
def test_what_is_no_two_sided_interpolant_is_refused_with_the_time(alpha, beta, gamma, message):
    with pytest.raises(ValueError, match=message):
        TwoSided(alpha, beta, gamma, name="mine")
    if "must be" in message:
        with pytest.raises(ValueError, match=r"^mine is no two-sided interpolant: "):
            TwoSided(alpha, beta, gamma, name="mine")


def test_pieces_of_ones_own_join():
    third = sp.Rational(1, 3)
    rise = sp.Piecewise((0, t < third), ((3 * t - 1) / 2, True))
    path = TwoSided(1 - t, rise, "t*(1-t)")
    assert (path.beta(0.25), path.beta(0.5), path.d_beta(0.25), path.d_beta(0.5)) == (0.0, 0.25, 0.0, 1.5)
    assert path.name == f"({1 - t}, {path.beta.expr}, {t * (1 - t)})"
    # Before 1/3 x_t has no data, so that x_t and the source give the noise; after it they do not.
    with pytest.raises(ValueError, match=r"source -> noise is not determined for 1/3 < t < 1"):
        path.conversion("source", "noise")
    with pytest.raises(ValueError, match=r"the pieces of beta must join at t = 1/3, got 0 and 0\.6653\."):
        TwoSided(1 - t, sp.Piecewise((0, t <= third), (2 * t - t**6, True)), "t*(1-t)")


def test_there_may_be_more_than_two_pieces():
    """A plateau of gamma from 1/8 to 1/2, and noise = (x + (1 - t) velocity - data) / (gamma + (1 - t) gamma')."""
    eighth, half = sp.Rational(1, 8), sp.Rational(1, 2)
    path = TwoSided(1 - t, t, sp.Piecewise((2 * t, t <= eighth), (sp.Rational(1, 4), t <= half), ((1 - t) / 2, True)))
    for time, gamma, slope in ((0.0625, 0.125, 2.0), (0.25, 0.25, 0.0), (0.375, 0.25, 0.0), (0.75, 0.125, -0.5)):
        assert (path.gamma(time), path.d_gamma(time)) == (gamma, slope)
        assert path.gamma_d_gamma(time) == gamma * slope
        assert [c(time) for c in path.row("velocity")] == [-1.0, 1.0, slope]
        assert path.conversion("noise", "score")[1](time) == -1 / gamma
    with pytest.raises(ValueError, match=r"^data, velocity -> noise is not determined for 1/2 < t < 1: "):
        path.conversion(("data", "velocity"), "noise")
    with pytest.raises(ValueError, match=r"the pieces of gamma must join at t = 1/2, got 0\.2500 and 0\.5000\."):
        TwoSided(1 - t, t, sp.Piecewise((2 * t, t <= eighth), (sp.Rational(1, 4), t <= half), (1 - t, True)))


@pytest.mark.parametrize(
    "piecewise",
    [
        sp.Piecewise((0, t > sp.Rational(1, 2)), (t, True)),
        sp.Piecewise((0, t <= sp.Rational(1, 2)), (t, t <= 1)),
        sp.Piecewise((0, t <= sp.sqrt(2) / 2), (t, True)),
        sp.Piecewise((0, t <= 2), (t, True)),
        sp.Piecewise((0, t <= sp.Rational(3, 2)), (t, True)),
        sp.Piecewise((t, t <= 1), (0, True)),
        sp.Piecewise((0, t <= 0), (t, True)),
        sp.Piecewise((0, 2 * t**2 <= 1), (t, True)),
    ],
)
def test_other_conditions_of_pieces_are_refused(piecewise):
    with pytest.raises(ValueError, match="beta: the conditions of a Piecewise must be t <= time, rational, increasing"):
        TwoSided(1 - t, piecewise, "t*(1-t)")


def test_pieces_are_checked_like_whole_expressions():
    stranger = sp.Piecewise((0, t <= sp.Rational(1, 2)), (sp.Symbol("s"), True))
    with pytest.raises(ValueError, match=r"beta: .*'s'"):
        TwoSided(1 - t, stranger, "t*(1-t)")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p: p.row("speed"),
            r"row: quantity must be one of velocity, score, noise, data, source, got 'speed'\.$",
        ),
        (lambda p: p.conversion("velocty", "noise"), r"conversion: known must be .* got 'velocty'. Did you mean 'vel"),
        (lambda p: p.conversion("velocity", "nois"), r"conversion: target must be one of .* Did you mean 'noise'\?"),
        (
            lambda p: p.conversion(("noise", "noise"), "score"),
            r"conversion: known must be one quantity or several diff",
        ),
        (lambda p: p.conversion((), "score"), r"conversion: known must be one quantity or several different ones, got"),
        (lambda p: p.ode("sorce"), r"ode: known must be one of .* Did you mean 'source'\?"),
        (lambda p: p.sde("speed", 1), r"sde: known must be one of"),
        (lambda p: p.sde("velocity", 1, "up"), r"sde: direction must be one of forward, backward, got 'up'"),
        (lambda p: p.sde("velocity", 1), r"velocity -> score is not determined: x_t and velocity are 2 equations"),
        (lambda p: p.sde("noise", 1), r"noise -> velocity is not determined"),
        (lambda p: p.ode("noise"), r"noise -> velocity is not determined"),
        (
            lambda p: p.sde(("velocity", "noise"), -1),
            r"w: -1 must be finite and >= 0 on \(0, 1\); at t = 0\.5 it is -1\.0",
        ),
        (lambda p: p.sde(("velocity", "noise"), "t-0.5"), r"w: t - 1/2 must be finite and >= 0 .* it is -0"),
        (lambda p: p.sde(("velocity", "noise"), "t-1e-5"), r"w: .* must be finite and >= 0 .* at t = .* it is -"),
        (
            lambda p: p.sde(("velocity", "noise"), "0.99999-t"),
            r"w: .* must be finite and >= 0 .* at t = .* it is -",
        ),
        (lambda p: p.sde(("velocity", "noise"), "0.75-t"), r"w: 3/4 - t must be finite .* at t = \S+ it is -"),
        (lambda p: p.sde(("velocity", "noise"), "1/(t-0.5)**2"), r"w: .* must be finite .* at t = 0\.5 it is nan"),
        (lambda p: p.sde(("velocity", "noise"), "q"), r"w: "),
    ],
)
def test_wrong_names_and_amplitudes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(PATHS["quadratic"])


@pytest.mark.parametrize("middle", [0.02, 0.07, 0.15, 0.28, 0.305, 0.42, 0.455, 0.57, 0.655, 0.8, 0.905, 0.98])
def test_an_amplitude_that_is_negative_over_a_hundredth_of_the_time_is_refused_with_the_time(middle):
    with pytest.raises(ValueError, match=r"^w: .* must be finite and >= 0 on \(0, 1\); at t = .* it is -") as error:
        PATHS["quadratic"].sde(("velocity", "noise"), (t - middle) ** 2 - sp.Rational(5, 1000) ** 2)
    assert abs(float(time_in(str(error.value))) - middle) < 0.005


DIPS = {  # gamma, and where it is at most 0 or infinite
    "sqrt(t*(1-t))-3*exp(-1e9*(t-0.4567)**2)": 0.4567, "t*(1-t)*(1-1.0000000001*exp(-1e4*(t-0.4567)**2))": 0.4567,
    "t*(1-t)*(1+1e-9/(t-1/sqrt(5)))": 1 / 5**0.5, "t*(1-t)/(t-1/sqrt(5))**2": 1 / 5**0.5, "t*(1-t)*(t-1/3)**2": 1 / 3,
    "t*(1-t)*(t-1/sqrt(5))**2": 1 / 5**0.5, "t*(1-t-1e-25)": 1.0, "t*(1-t)*abs(t-2/7)": 2 / 7,
    "t*(1-t)*(1-sin(3*t))": pi / 6,
}  # fmt: skip


@pytest.mark.parametrize("gamma", DIPS)
def test_a_gamma_that_vanishes_in_a_narrow_place_is_refused_there(gamma):
    with pytest.raises(ValueError, match=r"gamma must be finite, real and > 0 on \(0, 1\); at t = ") as error:
        two_sided.linear(gamma)
    time = time_in(str(error.value))
    assert abs(float(time) - DIPS[gamma]) < 1e-4 or (DIPS[gamma] == 1.0 and time < Fraction(1, 10**25))
    with mpmath.workdps(60):
        at = mpmath.mpf(time.numerator) / time.denominator
        value = sp.lambdify(t, parse(gamma), "mpmath")(1 - at if DIPS[gamma] == 1.0 else at)
        # An irrational zero or pole is stated to the digits of a float.
        assert value <= 1e-30 or value > 1e29


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_weight_that_is_negative_in_a_narrow_place_is_refused_there(name):
    dip = "-9*t*(1-t)*exp(-1e9*(t-0.4567)**2)"
    functions = {"alpha": "1-t", "beta": "t", "gamma": "t*(1-t)"}
    with pytest.raises(ValueError, match=rf"{name} must be finite, real and >= 0 on \(0, 1\); at t = ") as error:
        TwoSided(**{**functions, name: functions[name] + dip})
    with mpmath.workdps(60):
        time = time_in(str(error.value))
        at = mpmath.mpf(time.numerator) / time.denominator
        assert sp.lambdify(t, parse(functions[name] + dip), "mpmath")(at) < 0


def test_a_join_is_a_time_like_any_other():
    half = sp.Rational(1, 2)
    valley = sp.Piecewise((t * (half - t), t <= half), ((t - half) * (1 - t), True))
    with pytest.raises(ValueError, match=r"gamma must be finite, real and > 0 on \(0, 1\); at t = 0\.5 it is 0"):
        two_sided.linear(valley)


SMOOTH = "(t**3*(10-15*t+6*t**2))"
TWICE = SMOOTH.replace("t", SMOOTH)


@pytest.mark.parametrize(
    ("alpha", "beta", "gamma"),
    [
        (f"1-{SMOOTH}", SMOOTH, f"sqrt({SMOOTH}*(1-{SMOOTH}))"),
        (f"1-{TWICE}", TWICE, "t*(1-t)"),  # in 30 digits alpha is negative next to 1
        ("1-t", "t", "1e-25*t*(1-t)"),
        ("1-t+1e-25*t*(1-t)", "t-1e-25*t*(1-t)", "t*(1-t)*(1-0.9999999999*exp(-1e4*(t-0.4567)**2))"),
        ("(1-t)*(t-1/sqrt(5))**2*5", "t*(3*t-1)**2/4", "-t*log(t)"),
    ],
)
def test_what_floats_can_hardly_tell_is_proved(alpha, beta, gamma):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TwoSided(alpha, beta, gamma).undecided == ()


def test_ends_are_exact():
    with pytest.raises(ValueError, match=r"gamma must be 0 at t = 0, got 1\.000E-13"):
        two_sided.linear("t*(1-t)+1e-13")
    with pytest.raises(ValueError, match=r"beta must be 0 at t = 0, got 1\.000E-14"):
        TwoSided("1-t", "t+1e-14*(1-t)", "t*(1-t)")
    half = sp.Rational(1, 2)
    with pytest.raises(ValueError, match=r"the pieces of gamma must join at t = 1/2, got "):
        two_sided.linear(sp.Piecewise((t, t <= half), (1 - t + sp.Rational(1, 10**20) * (1 - t), True)))
    assert TwoSided("1-t", "2*t*(cos(pi/7)-cos(2*pi/7)+cos(3*pi/7))", "t*(1-t)").undecided == ()  # that is 1


def test_what_is_not_decided_is_told_and_kept():
    unknown = "2*t*(atan(3/4)+atan(4/3))/pi"  # t, as 3/4 and 4/3 are tangents of two angles of one right triangle
    with pytest.warns(
        UndecidedWarning, match=r"^mine: not decided whether this holds: beta must be 1 at t = 1"
    ) as told:
        path = TwoSided("1-t", unknown, "t*(1-t)", name="mine")
    assert told[0].filename == __file__
    assert path.undecided == ("beta must be 1 at t = 1",)
    touching = "5*(1-t)*(t**2-2*t/sqrt(5)+1/5)"
    with pytest.warns(UndecidedWarning, match="alpha must be finite, real and >= 0"):
        assert TwoSided(touching, "t", "t*(1-t)").undecided == ("alpha must be finite, real and >= 0 on (0, 1)",)
    assert PATHS["encoder_decoder"].undecided == PATHS["brownian"].undecided == ()


def test_a_small_gamma_is_no_zero():
    path = two_sided.linear(sp.exp(-300) * t * (1 - t))  # 1e-131
    source, data, x = (c.expr for c in (*path.conversion(("source", "data"), "noise")[1:], path.gamma))
    assert sp.simplify(source * x) == t - 1
    assert sp.simplify(data * x) == -t


def test_a_w_that_is_negative_in_a_narrow_place_is_refused_there():
    with pytest.raises(ValueError, match=r"^w: .* must be finite and >= 0 on \(0, 1\); at t = ") as error:
        PATHS["quadratic"].sde(("velocity", "noise"), "t*(1-t)-2*exp(-1e9*(t-0.4567)**2)")
    assert abs(float(time_in(str(error.value))) - 0.4567) < 1e-4
    PATHS["quadratic"].sde(("velocity", "noise"), "t*(1-t)*(t-1/sqrt(5))**2")


def test_wrong_shapes_and_counts_are_refused():
    path, x, short = PATHS["quadratic"], torch.zeros(3, 2), torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"source: must have the shape of data, \(3, 2\), got \(2, 2\)"):
        path.interpolate(short, x, x, 0.5)
    with pytest.raises(ValueError, match=r"noise: must have the shape of data, \(3, 2\), got \(2, 2\)"):
        path.interpolate(x, x, short, 0.5)
    with pytest.raises(ValueError, match=r"target: quantity must be one of"):
        path.target("x_t", x, x, x, 0.5)
    with pytest.raises(ValueError, match=r"convert: predictions must be 2, one for each known quantity, got 1"):
        path.convert(x, x, 0.5, known=("velocity", "noise"), target="data")
    with pytest.raises(
        ValueError, match=r"convert: predictions must have the shape of the state, \(3, 2\), got \(2, 2"
    ):
        path.convert(short, x, 0.5, known="noise", target="score")
    dynamics = path.ode(("velocity", "noise"))
    with pytest.raises(ValueError, match=r"drift: predictions must be 2, one for each known quantity, got 3"):
        dynamics.drift(x, (x, x, x), 0.5)
    with pytest.raises(ValueError, match=r"drift: predictions must have the shape of the state"):
        dynamics.drift(x, (x, short), 0.5)
    with pytest.raises(ValueError, match=r"shape \(batch,\) = \(3,\)"):
        path.interpolate(x, x, x, torch.zeros(2))


# Identity


def test_identity_is_that_of_the_three_functions():
    path = PATHS["quadratic"]
    same = TwoSided("1-t", "t", "t*(1-t)", name="other")
    assert path == same
    assert hash(path) == hash(same)
    assert path != PATHS["brownian"]
    assert path != "path"
    assert pickle.loads(pickle.dumps(path)) == path
    assert repr(same) == "TwoSided(other: x_t = (1 - t) source + (t) data + (t*(1 - t)) noise)"
    assert same._repr_latex_() == (
        r"$\displaystyle x_t = \left(1 - t\right) \mathrm{source} + \left(t\right) \mathrm{data} + "
        r"\left(t \left(1 - t\right)\right) \mathrm{noise}$"
    )


@pytest.mark.parametrize("w", ["sigma", "sigma(0.5)", ip.diffusion.sigma()])
def test_named_choices_of_one_sided_paths_are_refused(w):
    with pytest.raises(ValueError, match=r"w: must be an expression, got .* a choice of one-sided paths"):
        ip.two_sided.linear().sde(("velocity", "noise"), w)
