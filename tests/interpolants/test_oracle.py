"""The Gaussian mixture, against autograd, quadrature and sampling."""

import math

import pytest
import torch
from strategies import LIBRARY

import interpolants as ip


def mixture(d=2):
    means = torch.tensor([[1.5, -0.5, 0.2], [-1.0, 0.8, -0.4], [0.0, 2.0, 1.0]], dtype=torch.float64)[:, :d]
    stds = torch.tensor([[0.3, 0.5, 0.4], [0.7, 0.2, 0.3], [0.4, 0.4, 0.9]], dtype=torch.float64)[:, :d]
    return ip.oracle.GaussianMixture(means, stds, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("time", [0.0, 0.3, 0.9, 1.0])
def test_score_is_the_gradient_of_log_prob(path, time):
    m, x = mixture(), torch.randn(16, 2, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(m.log_prob(x, time, path).sum(), x)
    torch.testing.assert_close(m.score(x.detach(), time, path), gradient)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("time", [0.2, 0.6, 0.95])
def test_quantities_are_posterior_means_by_quadrature(path, time):
    m, x = mixture(d=1), 0.4
    data = torch.linspace(-6, 8, 40_001, dtype=torch.float64)
    alpha, sigma = path.alpha(time), path.sigma(time)
    log_prior = torch.logsumexp(
        torch.log(m.weights) - 0.5 * ((data[:, None] - m.means[:, 0]) / m.stds[:, 0]) ** 2 - torch.log(m.stds[:, 0]), 1
    )
    posterior = torch.softmax(log_prior - 0.5 * ((x - alpha * data) / sigma) ** 2, 0)
    noise = (x - alpha * data) / sigma
    state = torch.tensor([[x]], dtype=torch.float64)
    expected = {
        "data": data,
        "noise": noise,
        "velocity": path.d_alpha(time) * data + path.d_sigma(time) * noise,
        "score": -noise / sigma,
    }
    for quantity, values in expected.items():
        got = getattr(m, quantity)(state, time, path).item()
        assert got == pytest.approx((posterior * values).sum().item(), rel=1e-8, abs=1e-8), quantity


def test_log_prob_integrates_to_one_and_times_may_differ_in_a_batch():
    m, path = mixture(d=1), ip.gvp()
    x = torch.linspace(-8, 10, 20_001, dtype=torch.float64)[:, None]
    for time in (0.0, 0.5, 1.0):
        assert torch.trapezoid(m.log_prob(x, time, path).exp(), x[:, 0]).item() == pytest.approx(1.0, abs=1e-9)
    times = torch.tensor([0.1, 0.7], dtype=torch.float64)
    both = m.velocity(x[:2], times, path)
    for i in range(2):
        torch.testing.assert_close(both[i : i + 1], m.velocity(x[i : i + 1], times[i].item(), path))


def test_samples_have_the_moments_of_the_mixture():
    m = mixture()
    x = m.sample(200_000, torch.Generator().manual_seed(0))
    mean = (m.weights[:, None] * m.means).sum(0)
    second = (m.weights[:, None] * (m.means**2 + m.stds**2)).sum(0)
    error = 5 * second.sqrt() / math.sqrt(len(x))  # five standard errors
    assert ((x.mean(0) - mean).abs() < error).all()
    torch.testing.assert_close((x**2).mean(0), second, rtol=0.03, atol=0.0)


def test_everything_is_finite_at_both_ends():
    m, x = mixture(), torch.randn(8, 2, dtype=torch.float64)
    for path in LIBRARY:
        for time in (0.0, 1.0):
            for quantity in ip.QUANTITIES:
                values = getattr(m, quantity)(x, time, path)
                assert values.isfinite().all(), (path.name, time, quantity)


@pytest.mark.parametrize(
    ("means", "stds", "weights", "message"),
    [
        ((2,), (2,), (2,), r"means: must have shape \(K, d\)"),
        ((2, 3), (3,), (2,), r"stds: must have shape"),
        ((2, 3), (2,), (3,), r"weights: must have shape"),
    ],
)
def test_shapes_that_disagree_are_refused(means, stds, weights, message):
    with pytest.raises(ValueError, match=message):
        ip.oracle.GaussianMixture(torch.ones(means), torch.ones(stds), torch.ones(weights))
    with pytest.raises(ValueError, match="must be positive"):
        ip.oracle.GaussianMixture(torch.ones(2, 3), torch.zeros(2), torch.ones(2))
