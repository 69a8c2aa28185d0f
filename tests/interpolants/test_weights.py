"""Loss weights: the squared error of one quantity is a multiple of that of another."""

import pytest
import sympy as sp
import torch
from gaussian import tensor
from hypothesis import given
from strategies import LIBRARY, inner_times, paths, quantities, real

import interpolants as ip


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
