"""Intervals that a prediction carries: of predictions whose error is planted, and of exact ones."""

import pytest
import torch
from mixtures import exact_field, mixture

import interpolants as ip
from training import Field, log_likelihood
from training.carried import _noise, carried_interval, require_carried
from training.samplers import encode

DATA = mixture().sample(2000, generator=torch.Generator().manual_seed(0))


def erring(path, prediction, error):
    """The exact prediction with an error of this deviation, of a sign of its own at each state."""
    exact = exact_field(path, prediction).model
    return Field(lambda x, t: exact(x, t) + error * torch.sign(torch.sin(1e6 * x)), path, prediction)


@pytest.mark.parametrize("path", [ip.linear(), ip.gvp(), ip.vp()], ids=lambda p: p.name)
@pytest.mark.parametrize("error", [0.01, 0.1])
def test_a_predicted_data_carries_until_its_error_is_half_of_the_noise(path, error):
    low, high = carried_interval(erring(path, "data", error), DATA)
    assert low == 0.0
    left = float(path.sigma(high) / path.alpha(high))
    assert 1.6 * error < left < 3.0 * error


def test_a_predicted_noise_carries_from_where_its_error_is_half_of_the_data():
    path, error = ip.linear(), 0.01
    low, high = carried_interval(erring(path, "noise", error), DATA)
    assert high == 1.0
    size = float(DATA.square().mean().sqrt())
    assert 1.6 * error < size * float(path.alpha(low) / path.sigma(low)) < 3.0 * error


@pytest.mark.parametrize("path", [ip.linear(), ip.gvp(), ip.vp()], ids=lambda p: p.name)
@pytest.mark.parametrize("prediction", ip.QUANTITIES)
def test_an_exact_prediction_carries_wherever_its_coefficients_are_bounded(path, prediction):
    field = exact_field(path, prediction)
    assert carried_interval(field, DATA) == path.ode(prediction).interval()
    require_carried("here", field, DATA)


def test_a_likelihood_beyond_what_is_carried_is_refused_and_within_it_right():
    """Of the data with the noise of the end on them, whose density the mixture knows."""
    path = ip.linear()
    field = erring(path, "data", 0.03)
    with pytest.raises(ValueError, match=r"at t = 0\.99\d+ the noise that it implies errs by \d\d\.. times"):
        log_likelihood(field, DATA[:50])
    with pytest.raises(ValueError, match=r"encode: the data that the network predicts must carry"):
        encode(field, DATA[:50])
    interval = carried_interval(field, DATA)
    smooth = Field(lambda x, t: exact_field(path, "data").model(x, t) + 0.03 * torch.sign(x), path, "data")
    got = log_likelihood(smooth, DATA[:50], interval=interval).nats.mean()
    m, noise = mixture(), float(path.sigma(interval[1]) / path.alpha(interval[1]))
    blurred = ip.oracle.GaussianMixture(m.means, (m.stds**2 + noise**2).sqrt(), m.weights)
    assert abs(got - blurred.log_prob(DATA[:50], 1.0, path).mean()) < 0.25
    with pytest.raises(ValueError, match="interval must be inside"):
        log_likelihood(field, DATA, interval=(0.5, 0.5))
    encode(field, DATA[:5], interval=interval, method="dopri5", rtol=1e-2)


def test_a_network_that_has_not_learnt_is_told():
    field = Field(lambda x, t: torch.full_like(x, 50.0), ip.linear(), "data")
    with pytest.raises(ValueError, match="the noise that the network's data implies must err by less than itself"):
        carried_interval(field, DATA)


def test_the_noise_of_a_sample_does_not_depend_on_the_batch():
    whole = _noise(DATA[:8], 3, None)
    halves = [_noise(DATA[k : k + 4], 3, range(k, k + 4)) for k in (0, 4)]
    assert torch.equal(torch.cat(halves), whole)
    assert not torch.equal(_noise(DATA[:8], 4, None), whole)
