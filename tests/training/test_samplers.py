"""Samplers, on laws that are known exactly: the flow of a Gaussian, the moments and the density of a mixture."""

import gc
import math

import numpy as np
import pytest
import torch
from gaussian import conditional_mean_of_data
from mixtures import Counted, exact_field, mixture, moments
from strategies import LIBRARY

import interpolants as ip
from training import Field, log_likelihood, sample_ode, sample_sde

MEAN, STD = 0.7, 0.5


def gaussian_field(path, prediction="velocity"):
    """A network that is exact for data ~ N(MEAN, STD^2), from the closed form of two Gaussian numbers."""

    def network(x, t):
        t = t[:, None]
        data = conditional_mean_of_data(x, t, path, MEAN, STD)
        alpha, sigma = path.alpha(t), path.sigma(t)
        residual = (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
        # sigma sigma', by hand: on a variance-preserving path sigma' itself is infinite at t = 1.
        slope = sigma * path.d_sigma(t) if path.name == "linear" else -alpha * path.d_alpha(t)
        velocity = path.d_alpha(t) * data + slope * residual
        return {"data": data, "noise": sigma * residual, "velocity": velocity}[prediction]

    return Field(Counted(network), path, prediction)


def exact_flow(path, x):
    """The ODE maps the standard score of x at t = 0 to the same standard score at t = 1."""
    start = math.sqrt(path.alpha(0.0) ** 2 * STD**2 + path.sigma(0.0) ** 2)
    return MEAN + STD * (path.sigma(0.0) * x - path.alpha(0.0) * MEAN) / start


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun2", 2), ("heun3", 3), ("rk4", 4)])
def test_fixed_step_methods_converge_at_their_order_to_the_exact_flow(method, order):
    path, x = ip.gvp(), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    errors = []
    for num_steps in (20, 40):
        samples = sample_ode(gaussian_field(path), x, num_steps=num_steps, method=method)
        errors.append((samples - exact_flow(path, x)).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("prediction", ["velocity", "noise", "data"])
@pytest.mark.parametrize("method", ["heun2", "dopri5"])
def test_any_prediction_on_any_path_flows_to_the_data(path, prediction, method):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    samples = sample_ode(gaussian_field(path, prediction), x, num_steps=200, method=method, rtol=1e-6, atol=1e-8)
    # At a pole the interval ends 1e-3 short; the mean that is then missing at the noise end is of that size.
    torch.testing.assert_close(samples, exact_flow(path, x), rtol=0.0, atol=3e-3)


@pytest.mark.parametrize(
    ("method", "calls"), [("euler", 30), ("heun2", 60), ("midpoint", 60), ("heun3", 90), ("rk4", 120)]
)
def test_network_calls_of_ode_methods(method, calls):
    field = exact_field(ip.linear())
    sample_ode(field, torch.randn(4, 2, dtype=torch.float64), num_steps=30, method=method)
    assert field.model.calls == calls


@pytest.mark.parametrize("num_steps", [1, 3, 7, 10, 49, 250])
@pytest.mark.parametrize("trajectory", [False, True])
def test_sde_calls_the_network_exactly_once_a_step(num_steps, trajectory):
    field = exact_field(ip.linear())
    noise = torch.randn(4, 2, dtype=torch.float64)
    sample_sde(field, noise, w="sigma", num_steps=num_steps, seed=0, trajectory=trajectory)
    assert field.model.calls == num_steps


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("w", ["sigma", "linear", "sin_squared", "decreasing", "0.3*(1-t)**2"])
def test_sde_makes_the_euler_maruyama_steps_of_its_definition(path, w):
    """x + h (v + w/2 s) + sqrt(w h) z by hand, with velocity and score of the mixture and the same increments z."""
    m, noise, steps = mixture(), torch.randn(3, 2, dtype=torch.float64), 20
    amplitude = {
        "sigma": lambda t: 2 * path.sigma(t),
        "linear": lambda t: 2 * (1 - t),
        "sin_squared": lambda t: 2 * math.sin(math.pi * t) ** 2,
        "decreasing": lambda t: (math.cos(math.pi * t) + 1) ** 2 / 2,
        "0.3*(1-t)**2": lambda t: 0.3 * (1 - t) ** 2,
    }[w]
    streams = []
    for index in range(3):
        state = int(np.random.SeedSequence((5, index)).generate_state(1, np.uint64)[0]) >> 1
        streams.append(torch.Generator().manual_seed(state))
    x, h = path.sigma(0.0) * noise, 1 / steps
    for k in range(steps):
        t = k * h
        z = torch.stack([torch.empty(2, dtype=torch.float64).normal_(generator=g) for g in streams])
        drift = m.velocity(x, t, path) + amplitude(t) / 2 * m.score(x, t, path)
        x = x + h * drift + math.sqrt(amplitude(t) * h) * z
    samples = sample_sde(exact_field(path), noise, w=w, num_steps=steps, seed=5)
    torch.testing.assert_close(samples, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("w", ["sigma", "sin_squared"])
def test_sde_samples_have_the_moments_of_the_mixture(path, w):
    mean, covariance = moments()
    noise = torch.randn(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    samples = sample_sde(exact_field(path), noise, w=w, num_steps=100, seed=0)
    # Five standard errors of 4,000 samples, and the bias of 100 Euler steps.
    torch.testing.assert_close(samples.mean(0), mean, rtol=0.0, atol=5 * 1.3 / math.sqrt(4000) + 0.03)
    torch.testing.assert_close(torch.cov(samples.T), covariance, rtol=0.0, atol=5 * 2.0 / math.sqrt(4000) + 0.05)


def test_a_sample_of_a_seed_is_the_same_in_any_batch():
    noise = torch.randn(6, 2, dtype=torch.float64)

    def sample(rows, seed=3):
        return sample_sde(exact_field(ip.gvp()), noise[rows], w="sigma", num_steps=10, seed=seed, indices=rows)

    whole = sample(list(range(6)))
    torch.testing.assert_close(torch.cat([sample([0, 1]), sample([2, 3, 4, 5])]), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sample([5, 2]), whole[[5, 2]], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(sample(list(range(6)), seed=4), whole)
    assert not torch.allclose(whole[0] - noise[0], whole[1] - noise[1])


@pytest.mark.parametrize("sampler", ["ode", "sde"])
def test_only_the_current_state_is_kept(sampler):
    """The number of tensors of the state's size that are alive does not grow with the steps."""
    alive = []
    gc.collect()
    gc.freeze()  # what was there before is not looked at

    def network(x, t):
        alive.append(sum(torch.is_tensor(o) and o.numel() == 2 * 1234 for o in gc.get_objects()))
        return torch.zeros_like(x)

    field, noise = Field(network, ip.linear()), torch.randn(1234, 2)
    if sampler == "ode":
        sample_ode(field, noise, num_steps=30, method="euler")
    else:
        sample_sde(field, noise, w="sigma", num_steps=30, seed=0)
    gc.unfreeze()
    assert max(alive[5:]) <= alive[4]


def test_a_trajectory_runs_from_the_noise_to_the_samples():
    noise, field = torch.randn(3, 2, dtype=torch.float64), exact_field(ip.gvp())
    for states, last in (
        (sample_ode(field, noise, num_steps=7, trajectory=True), sample_ode(field, noise, num_steps=7)),
        (
            sample_sde(field, noise, w="sigma", num_steps=7, seed=0, trajectory=True),
            sample_sde(field, noise, w="sigma", num_steps=7, seed=0),
        ),
    ):
        assert states.shape == (8, 3, 2)
        torch.testing.assert_close(states[0], noise)
        torch.testing.assert_close(states[-1], last)


def test_an_adaptive_method_takes_what_it_needs_and_never_leaves_the_interval():
    times = []
    exact = gaussian_field(ip.vp())

    def network(x, t):
        times.append(t[0].item())
        return exact.model(x, t)

    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    samples = sample_ode(Field(network, ip.vp()), x, method="dopri5", rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(samples, exact_flow(ip.vp(), x), rtol=1e-4, atol=1e-4)
    assert max(times) <= 1.0


def test_the_first_step_of_an_adaptive_method_does_not_probe_beyond_the_data():
    """Where almost nothing moves, torchdiffeq's first guess of a step is many times the interval."""
    times = []

    def network(x, t):
        times.append(t[0].item())
        return 1e-4 * x

    sample_ode(Field(network, ip.linear()), torch.ones(2, 3), method="dopri5")
    assert 0.0 <= min(times) <= max(times) <= 1.0


def test_an_adaptive_method_lands_on_the_data_and_does_not_interpolate_past_it():
    """dopri5 has two stages at the end of a step: only there is t = 1, but for the last bit."""
    times = []

    def network(x, t):
        times.append(t[0].item())
        return exact_field(ip.gvp()).model(x, t)

    noise = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sample_ode(Field(network, ip.gvp()), noise, method="dopri5")
    assert sum(time > 1 - 1e-12 for time in times) == 2


def test_a_state_of_low_precision_is_integrated_in_float32_by_a_network_of_its_own_dtype():
    path, x = ip.gvp(), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    exact, seen = gaussian_field(path), set()

    def network(state, t):
        seen.add((state.dtype, t.dtype))
        return exact.model(state.double(), t.double()).to(state.dtype)

    errors = []
    for num_steps in (10, 500):
        samples = sample_ode(Field(network, path), x.bfloat16(), num_steps=num_steps, method="heun2")
        assert samples.dtype == torch.bfloat16
        errors.append((samples.double() - exact_flow(path, x)).abs().max().item())
    assert seen == {(torch.bfloat16, torch.float32)}
    assert errors[1] < 0.02  # a bfloat16 state would gather 500 roundings of up to 0.004


def test_images_and_labels_pass_through():
    def network(x, t, y):
        return y.to(x.dtype)[:, None, None, None].expand_as(x)

    noise, y = torch.zeros(3, 1, 4, 4), torch.tensor([1, 2, 3])
    field = Field(network, ip.linear())
    expected = y.float()[:, None, None, None].expand(3, 1, 4, 4)
    torch.testing.assert_close(sample_ode(field, noise, num_steps=4, y=y), expected)
    assert sample_sde(field, noise, w="0", num_steps=4, seed=0, y=y).shape == noise.shape
    torch.testing.assert_close(sample_sde(field, noise, w="0", num_steps=4, seed=0, y=y), expected)


def test_a_network_in_training_mode_drops_no_class_while_it_samples_and_stays_in_it():
    class Dropping(torch.nn.Module):
        def forward(self, x, t, y):
            return torch.zeros_like(x) if self.training else y.to(x.dtype)[:, None].expand_as(x)

    noise, y = torch.zeros(2, 3), torch.tensor([1, 2])
    model = Dropping().train()
    field = Field(model, ip.linear())
    for samples in (
        sample_ode(field, noise, num_steps=2, y=y),
        sample_sde(field, noise, w="0", num_steps=2, seed=0, y=y),
    ):
        assert samples[:, 0].tolist() == [1.0, 2.0]
        assert model.training


@pytest.mark.parametrize("path", [ip.linear(), ip.gvp()], ids=lambda p: p.name)
def test_log_likelihood_is_the_density_of_the_mixture(path):
    x = mixture().sample(16, torch.Generator().manual_seed(0))
    result = log_likelihood(exact_field(path), x, rtol=1e-7, atol=1e-8)
    exact = mixture().log_prob(x, 1.0, path)
    torch.testing.assert_close(result.nats, exact, rtol=0.0, atol=1e-4)
    torch.testing.assert_close(result.bits_per_dim, -exact / (2 * math.log(2)), rtol=0.0, atol=1e-4)


def test_log_likelihood_of_a_data_prediction_is_that_of_the_data_next_to_the_end():
    x = mixture().sample(16, torch.Generator().manual_seed(0))
    path = ip.linear()
    result = log_likelihood(exact_field(path, "data"), x, rtol=1e-7, atol=1e-8)
    stop = path.ode("data").interval()[1]
    alpha = path.alpha(stop)
    exact = mixture().log_prob(alpha * x, stop, path) + 2 * math.log(alpha)
    torch.testing.assert_close(result.nats, exact, rtol=0.0, atol=1e-4)


def test_hutchinson_probes_estimate_the_same_density():
    x = mixture().sample(8, torch.Generator().manual_seed(0))
    exact = mixture().log_prob(x, 1.0, ip.gvp())
    estimates = torch.stack([log_likelihood(exact_field(ip.gvp()), x, probes=4, seed=s).nats for s in range(30)])
    assert estimates.std(0).min() > 0
    standard_error = estimates.std(0) / math.sqrt(30)
    assert ((estimates.mean(0) - exact).abs() < 5 * standard_error + 1e-3).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "huen2"}, "method: must be one of euler, midpoint, heun2"),
        ({"num_steps": 0}, "num_steps: must be an integer of at least 1, got 0"),
        ({"num_steps": 2.5}, "num_steps: must be an integer"),
    ],
)
def test_wrong_ode_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_ode(exact_field(ip.linear()), torch.zeros(2, 2), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"w": -1.0}, "w: must be finite and >= 0"),
        ({"w": "constant"}, r"w = constant\(1\): must be finite on \[0, 1\], but a has a pole of order 1 at t = 1"),
        ({"w": "kl_optimal"}, r"a has a pole of order 1 at t = 0"),
        ({"w": "sigma", "num_steps": 0}, "num_steps: must be"),
        ({"w": "sigma", "interval": (0.9, 0.1)}, r"interval: must be inside \[0, 1\] and not empty"),
        ({"w": "sigma", "indices": [1]}, "indices: must have one index a sample, 2, got 1"),
    ],
)
def test_wrong_sde_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_sde(exact_field(ip.linear()), torch.zeros(2, 2), seed=0, **arguments)


def test_an_interval_admits_a_w_with_a_pole():
    noise = torch.randn(4, 2, dtype=torch.float64)
    samples = sample_sde(exact_field(ip.linear()), noise, w="constant", num_steps=50, seed=0, interval=(0.0, 0.96))
    assert samples.isfinite().all()


def test_a_network_that_returns_nan_is_reported():
    field = Field(lambda x, t: torch.where(x > 100, x, math.nan), ip.linear())
    with pytest.raises(ValueError, match="3 of 3 samples are not finite"):
        sample_ode(field, torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"noise: must be floating point of shape \(batch, \.\.\.\)"):
        sample_ode(field, torch.zeros(3))
