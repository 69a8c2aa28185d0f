"""The grid fitted to a network, where the velocity along the trajectories is known."""

import numpy as np
import pytest
import scipy.integrate
import torch

import interpolants as ip
from training import Field, fit_grid, sample_ode

MODES = ip.oracle.GaussianMixture(
    2 * torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
    torch.tensor([0.05, 0.1, 0.2, 0.2, 0.4, 0.4], dtype=torch.float64),
)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def exact(path, prediction="velocity", law=MODES, rounded=None):
    """A network without error, or one whose output is rounded to a dtype."""

    def network(x, t):
        out = getattr(law, prediction)(x.double(), t.double(), path)
        return (out if rounded is None else out.to(rounded)).to(x.dtype)

    return Field(network, path, prediction)


@pytest.mark.parametrize("s", [0.2, 1.5])
@pytest.mark.parametrize("order", [1, 2])
def test_steps_are_short_where_the_trajectories_of_a_gaussian_bend(s, order):
    """They are x rho, rho^2 = t^2 s^2 + (1 - t)^2, whence rho'' = s^2 / rho^3 and rho''' = -3 s^2 rho' / rho^4."""
    law = ip.oracle.GaussianMixture(torch.zeros(1, 2).double(), torch.tensor([s]).double())
    grid = fit_grid(exact(ip.linear(), law=law), draw(8, 2), order=order)
    t = np.linspace(0, 1, 20001)
    rho = np.sqrt(t**2 * s**2 + (1 - t) ** 2)
    slope = (t * s**2 - (1 - t)) / rho
    density = rho**-1.5 if order == 1 else np.abs(slope / rho**4) ** (1 / 3)
    share = scipy.integrate.cumulative_trapezoid(density, t, initial=0.0)
    expected = np.interp(np.arange(1, 10) / 10, 0.9 * share / share[-1] + 0.1 * t, t)
    np.testing.assert_allclose(grid.times(ip.linear(), 10)[1:-1], expected, atol=3e-3)


@pytest.mark.parametrize("path", [ip.linear(), ip.gvp()], ids=lambda p: p.name)
def test_at_equal_calls_samples_err_less_than_in_equal_steps(path):
    field, noise = exact(path), draw(256, 3, seed=2)
    grid = fit_grid(field, draw(32, 3, seed=3))
    reference = sample_ode(field, noise, method="dopri8", rtol=1e-10, atol=1e-11)

    def error(times, n):
        samples = sample_ode(field, noise, method="adams_pc2", num_steps=n, grid=times)
        return (samples - reference).square().mean(1).sqrt().median()  # those on a border of modes are of no order

    for n in (12, 24):
        assert error(grid, n) < 0.75 * error("uniform", n)


@pytest.mark.parametrize(("rounded", "steps"), [(torch.bfloat16, 0.2), (None, 1e-4)], ids=["bfloat16", "float32"])
def test_rounding_of_the_network_moves_no_time_by_much_of_a_step(rounded, steps):
    wanted = fit_grid(exact(ip.linear()), draw(32, 3)).times(ip.linear(), 16)
    noise = draw(32, 3, dtype=torch.float32)
    times = fit_grid(exact(ip.linear(), rounded=rounded), noise).times(ip.linear(), 16)
    assert np.abs(times - wanted).max() < steps / 16


@pytest.mark.parametrize("prediction", ["noise", "data", "score"])
def test_the_grid_is_that_of_the_velocity_whatever_the_network_predicts(prediction):
    """Beyond the interval where the conversion is bounded, of 1e-3 at an end, the density is not looked at."""
    wanted = fit_grid(exact(ip.linear()), draw(16, 3)).times(ip.linear(), 12)
    times = fit_grid(exact(ip.linear(), prediction), draw(16, 3)).times(ip.linear(), 12)
    np.testing.assert_allclose(times, wanted, atol=5e-3)


def test_labels_and_guidance_are_those_that_are_sampled_with():
    seen = []

    class Network:
        null_class = 2

        def __call__(self, x, t, y):
            seen.append(y.tolist())
            return torch.where((y == 2)[:, None], -x, x * t[:, None] ** 4)

    fit_grid(Field(Network(), ip.linear(), guidance_scale=2.0), draw(2, 3), y=torch.tensor([0, 1]), num_steps=50)
    assert seen == [[0, 1, 2, 2]] * 50


def test_noise_and_random_state_are_left_as_they_were():
    noise, state = draw(4, 3), torch.get_rng_state()
    before = noise.clone()
    first, second = (fit_grid(exact(ip.linear()), noise).times(ip.linear(), 9) for _ in range(2))
    assert torch.equal(noise, before)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(first, second)


def test_wrong_input_is_refused():
    field, noise = exact(ip.linear()), draw(4, 3)
    with pytest.raises(ValueError, match=r"grid: was fitted on the path linear, got gvp\. Fit one on that path"):
        fit_grid(field, noise).times(ip.gvp(), 4)
    with pytest.raises(TypeError, match=r"field: must be a training\.Field, got function"):
        fit_grid(lambda x, t: x, noise)
    for bad in (noise[0], noise[:0], noise.long(), None):
        with pytest.raises(ValueError, match=r"noise: must be floating point of shape \(batch, \.\.\.\)"):
            fit_grid(field, bad)
    for order in (0, 5, 1.5):
        with pytest.raises(ValueError, match="order: must be an integer from 1 to 4"):
            fit_grid(field, noise, order=order)
    with pytest.raises(ValueError, match="num_steps: must be at least 40, got 39"):
        fit_grid(field, noise, num_steps=39)
    for network in (lambda x, t: torch.full_like(x, torch.nan), lambda x, t: torch.zeros_like(x)):
        with pytest.raises(ValueError, match="field: must have a finite velocity that changes"):
            fit_grid(Field(network, ip.linear()), noise)
