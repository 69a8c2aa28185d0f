"""Loss weights: the squared error of one quantity is a multiple of that of another."""

import math

import pytest
import scipy.integrate
import sympy as sp
import torch
from gaussian import tensor
from hypothesis import given
from strategies import LIBRARY, PATHS, inner_times, paths, quantities, real

import interpolants as ip
from interpolants import t, weights


@given(path=paths(), t=inner_times, x=real, first=real, second=real, source=quantities(), space=quantities())
def test_weight_is_the_ratio_of_squared_errors(path, t, x, first, second, source, space):
    x, first, second = tensor(x), tensor(first), tensor(second)
    converted = [path.convert(p, x, t, source=source, target=space) for p in (first, second)]
    error, converted_error = (first - second).square(), (converted[0] - converted[1]).square()
    weight = path.loss_weight(source, space=space)(t)
    # The two conversions share a x, which rounding leaves behind in their difference.
    atol = 1e-12 * (1.0 + sum(c.abs().item() for c in converted)) ** 2
    torch.testing.assert_close(converted_error, weight * error, rtol=1e-7, atol=atol)


@given(path=paths(), t=inner_times, data=real, noise=real, out=real, source=quantities(), space=quantities())
def test_error_terms_give_the_error_in_the_space(path, t, data, noise, out, source, space):
    data, noise, out = tensor(data), tensor(noise), tensor(out)
    b, p, q = (c(t) for c in path.error_terms(source, space=space))
    x_t = path.interpolate(data, noise, t)
    expected = path.convert(out, x_t, t, source=source, target=space) - path.target(space, data, noise, t)
    torch.testing.assert_close(b * out - p * data - q * noise, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
def test_the_official_weights(path):
    """(D / sigma)^2 with D = (alpha'/alpha) sigma^2 - sigma sigma' turns a noise error into a velocity error."""
    for time in (0.2, 0.5, 0.8):
        alpha, sigma = path.alpha(time), path.sigma(time)
        d = path.d_alpha(time) / alpha * sigma**2 - sigma * path.d_sigma(time)
        assert path.loss_weight("noise", space="velocity")(time) == pytest.approx((d / sigma) ** 2)


def test_a_score_in_the_space_of_the_noise_has_no_pole():
    for path in LIBRARY:
        b, p, q = path.error_terms("score", space="noise")
        assert (sp.simplify(b.expr + path.sigma.expr), p.expr, q.expr) == (0, 0, 1)
        assert path.interval(b, p, q) == (0.0, 1.0)


def test_own_space_weighs_one():
    for quantity in ip.QUANTITIES:
        assert ip.vp().loss_weight(quantity, space=quantity).expr == 1


def ratios(path, time):
    """SNR, and how fast it grows, by a central difference: nothing that sympy differentiated."""
    step = 1e-6
    snr, later, before = ((path.alpha(s) / path.sigma(s)) ** 2 for s in (time, time + step, time - step))
    return snr, (later - before) / (2 * step)


BY_HAND = {
    "min_snr": ("data", lambda snr, slope: min(snr, 5.0)),
    "snr_truncated": ("data", lambda snr, slope: max(snr, 1.0)),
    "edm": ("data", lambda snr, slope: (1 / snr + 0.25) / (0.25 / snr)),
    "sigmoid": ("noise", lambda snr, slope: 1 / (1 + snr)),
    "elbo": ("data", lambda snr, slope: slope / 2),
}


@pytest.mark.parametrize(
    ("path", "prediction"),
    [*((ip.linear(), q) for q in ip.QUANTITIES), (ip.gvp(), "velocity"), (ip.vp(), "noise")],
    ids=lambda v: getattr(v, "name", v),
)
@pytest.mark.parametrize("name", BY_HAND)
def test_named_weights_are_those_of_their_papers_for_any_prediction(path, name, prediction):
    space, by_hand = BY_HAND[name]
    weight = ip.Coefficient(weights.choose(name).expr(path.alpha.expr, path.sigma.expr, prediction))
    for time in (0.1, 0.4, 0.6, 0.9):
        x, first, second = tensor(0.3), tensor(-1.0), tensor(2.0)
        converted = [path.convert(v, x, tensor(time)[0], source=prediction, target=space) for v in (first, second)]
        error = by_hand(*ratios(path, time)) * (converted[0] - converted[1]).square().item()
        assert weight(time) * 9.0 == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize(
    ("weight", "at_snr_nine", "at_snr_one"),
    [
        (weights.min_snr(2.0), 2.0, 1.0),
        (weights.edm(2.0), (1 / 9 + 4) / (4 / 9), 5 / 4),
        (weights.sigmoid(3.0), 9 / (1 + math.exp(-3) * 9), 1 / (1 + math.exp(-3))),
        (weights.elbo(), 0.5 * 2 * 0.75 / 0.25**3, 0.5 * 2 * 0.5 / 0.5**3),  # SNR' = 2 t / (1 - t)^3
        (weights.snr_truncated(), 9.0, 1.0),
        (weights.choose("t**2"), 0.75**2, 0.25),
    ],
    ids=lambda w: getattr(w, "name", ""),
)
def test_weights_with_other_parameters_on_the_straight_line(weight, at_snr_nine, at_snr_one):
    """For a predicted data, where SNR = (t / (1 - t))^2 is 9 at t = 3/4 and 1 at t = 1/2."""
    expr = weight.expr(t, 1 - t, "data")
    values = [float(expr.subs(t, time)) for time in (sp.Rational(3, 4), sp.Rational(1, 2))]
    assert values == pytest.approx([at_snr_nine, at_snr_one], rel=1e-14)


def test_min_snr_of_the_noise_is_the_smaller_of_one_and_gamma_over_snr():
    alpha, sigma = t, 1 - t
    assert weights.min_snr().expr(alpha, sigma, "noise") == sp.Min(1, 5 * sigma**2 / alpha**2)
    velocity = weights.min_snr().expr(alpha, sigma, "velocity")  # multiplied out: no pole is left
    assert sp.simplify(velocity - sp.Min(t**2, 5 * (1 - t) ** 2)) == 0


def test_edm_weight_is_one_over_the_square_of_c_out():
    """On its own path, alpha = 1 and sigma = s, c_out = s sigma_data / sqrt(s^2 + sigma_data^2)."""
    s = 3 - 2 * t
    c_out = s / 2 / sp.sqrt(s**2 + sp.Rational(1, 4))
    assert sp.simplify(weights.edm().expr(sp.Integer(1), s, "data") - 1 / c_out**2) == 0


def test_elbo_weighs_the_velocity_of_the_straight_line_by_t_over_one_minus_t():
    assert sp.simplify(weights.elbo().expr(t, 1 - t, "noise") - 1 / (t * (1 - t))) == 0
    assert sp.simplify(weights.elbo().expr(t, 1 - t, "velocity") - t / (1 - t)) == 0


def test_d_log_snr_is_the_derivative_of_the_log_snr():
    for path in PATHS:
        later, before = path.log_snr(0.4 + 1e-6), path.log_snr(0.4 - 1e-6)
        slope = ip.Coefficient(weights.d_log_snr(path.alpha.expr, path.sigma.expr))(0.4)
        assert slope == pytest.approx((later - before) / 2e-6, rel=1e-7)


PAIRS = [  # equal log-SNRs at the ends, reached at other times and with another scale
    (("t+1/10", "11/10-t"), ("t**2+1/10", "11/10-t**2")),
    (("t+1/10", "11/10-t"), ("(sin(pi*t/2)+1/10)*exp(t)", "(11/10-sin(pi*t/2))*exp(t)")),
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize("weight", [weights.elbo(), weights.sigmoid(1.0).in_log_snr(), weights.min_snr().in_log_snr()])
def test_a_weight_in_log_snr_gives_one_loss_on_all_paths(first, second, weight):
    """For an error of the weight's own quantity that is any function of the log-SNR."""

    def loss(path):
        w = sp.lambdify(t, weight.expr(path.alpha.expr, path.sigma.expr, weight.space), "numpy")
        return scipy.integrate.quad(lambda s: w(s) * (1 + math.sin(path.log_snr(s))), 0, 1, epsabs=1e-12, limit=200)[0]

    losses = [loss(ip.Path(*first)), loss(ip.Path(*second))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_a_weight_in_log_snr_integrates_over_half_the_log_snr():
    assert weights.sigmoid(2.0).in_log_snr().name == "sigmoid(2) in log_snr"
    snr = (t / (1 - t)) ** 2
    got = weights.sigmoid(2.0).in_log_snr().expr(t, 1 - t, "noise")
    assert sp.simplify(got - sp.diff(sp.log(snr), t) / 2 / (1 + sp.exp(-2) * snr)) == 0
    truncated = weights.min_snr().in_log_snr().expr(t, 1 - t, "data")  # multiplied out: no pole is left at t = 0
    assert sp.simplify(truncated - sp.Min(t / (1 - t) ** 3, 5 / (t * (1 - t)))) == 0
    assert truncated.func == sp.Min
    got = weights.snr_truncated().in_log_snr().expr(t, 1 - t, "data")
    assert float(got.subs(t, sp.Rational(1, 4))) == pytest.approx(1 / (0.25 * 0.75))
    assert float(got.subs(t, sp.Rational(3, 4))) == pytest.approx(9 / (0.25 * 0.75))


@pytest.mark.parametrize("name", [*BY_HAND, "t**2"])
@pytest.mark.parametrize("prediction", ["velocity", "noise"])
def test_paper_time_mirrors_a_weight(name, prediction):
    """On a path of which the one function holds 1 - t and the other does not."""
    mirrored = weights.choose(name).expr(1 - t**2, t, prediction, towards_data=-1)
    forward = weights.choose(name).expr(2 * t - t**2, 1 - t, prediction)
    for time in (sp.Rational(1, 5), sp.Rational(2, 3)):
        assert float(mirrored.subs(t, time)) == pytest.approx(float(forward.subs(t, 1 - time)), rel=1e-14)


def test_choices_by_name_have_the_defaults_of_their_papers():
    names = {name: weights.choose(name).name for name in weights.CHOICES}
    assert names == {
        "min_snr": "min_snr(5)",
        "snr_truncated": "snr_truncated",
        "edm": "edm(0.5)",
        "sigmoid": "sigmoid(0)",
        "elbo": "elbo",
    }
    own = weights.choose("t**2")
    assert (own.name, own.space, own.expr(t, 1 - t, "noise")) == ("t**2", None, t**2)
    assert weights.choose(own) is own
    assert weights.choose(2).expr(t, 1 - t, "score") == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weights.choose("min_snrr"), r"^weight: .*Named choices: min_snr, snr_.* Did you mean 'min_snr'\?$"),
        (lambda: weights.choose("zzz"), "^weight: .*Named choices: min_snr, snr_truncated, edm, sigmoid, elbo.$"),
        (
            lambda: weights.choose("t-1/2"),
            r"^weight: t - 1/2 must be finite and >= 0 on \(0, 1\); at t = \S+ it is -0",
        ),
        (lambda: weights.choose("1/(t-1/2)**64"), r"^weight: \(t - 1/2\)\*\*\(-64\) must be .* at t = 0.5 it is nan"),
        (lambda: weights.min_snr(0.0), "^min_snr: gamma must be positive, got 0.0"),
        (lambda: weights.edm(-1.0), "^edm: sigma_data must be positive, got -1.0"),
        (lambda: weights.sigmoid(math.inf), "must be finite"),
        (lambda: weights.LossWeight("x", lambda a, s: a, "nois"), "^LossWeight: space must be one of .*'noise'"),
        (lambda: weights.elbo().expr(t, 1 - t, "dat"), "^weight: prediction must be one of .*'data'"),
    ],
)
def test_wrong_weights_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_neither_a_name_nor_an_expression_is_refused():
    with pytest.raises(TypeError, match=r"^weight: must be text, a sympy expression or a number, got list\."):
        weights.choose([1])


def test_weights_are_equal_where_all_digits_of_their_parameters_are():
    assert weights.min_snr(5) == weights.min_snr(5.0) != weights.min_snr(5.0000001)
    assert weights.sigmoid(1 / 3) != weights.sigmoid(0.333333)
    assert weights.min_snr().name == "min_snr(5)"
    assert weights.edm().name == "edm(0.5)"


@pytest.mark.parametrize("name", ["min_snr", "elbo", "edm", "t**2"])
def test_in_the_papers_time_a_weight_is_that_of_the_mirrored_time(name):
    path = ip.Path("t**2", "1-t")  # not symmetric in time
    weight, mirrored = path.weight(name, "velocity"), path.in_paper_time().weight(name, "velocity")
    for time in (0.2, 0.7):
        assert mirrored(1 - time) == pytest.approx(weight(time), rel=1e-12)


def test_a_weight_may_be_zero_but_not_negative():
    assert ip.linear().weight("0", "noise")(0.3) == 0.0
    assert ip.linear().weight(0, "noise")(0.3) == 0.0
    with pytest.raises(ValueError, match=r"^weight: t - 1/2 must be finite and >= 0 on \(0, 1\); at t = \S+ it is -0"):
        ip.linear().weight("t-0.5", "noise")
