"""Samplers, on laws that are known exactly: the flow of a Gaussian, the moments and the density of a mixture."""

import functools
import gc
import itertools
import math

import numpy as np
import pytest
import torch
from copies import Copies
from gaussian import conditional_mean_of_data
from mixtures import Counted, exact_field, mixture, moments
from scipy.stats import ks_2samp
from strategies import LIBRARY

import interpolants as ip
from training import Field, Guidance, encode, sample_ode, sample_sde
from training.brownian import SampleNoise
from training.multistep import ODE_METHODS as DERIVED
from training.samplers import ODE_METHODS, SDE_METHODS, default_ode_method

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


def measured_order(path, method, grid, steps):
    """log2 of the quotient of the errors at two numbers of steps, for Gaussian data, whose flow is known exactly."""
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    one = torch.ones(1, 1, dtype=torch.float64)
    gaussian = ip.oracle.GaussianMixture(MEAN * one, STD * one[0], one[0])
    field = Field(lambda x, t: gaussian.velocity(x, t, path), path)
    (a0, s0), (a1, s1) = ((path.alpha(end), path.sigma(end)) for end in (0.0, 1.0))
    widening = math.sqrt((a1**2 * STD**2 + s1**2) / (a0**2 * STD**2 + s0**2))
    exact = a1 * MEAN + widening * (s0 * x - a0 * MEAN)
    errors = [
        (sample_ode(field, x, num_steps=n, method=method, grid=grid) - exact).abs().max().item()
        for n in (steps, 2 * steps)
    ]
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize(
    ("method", "order", "steps"),
    [
        ("euler", 1, 320), ("midpoint", 2, 80), ("heun2", 2, 80), ("heun3", 3, 80), ("rk4", 4, 40),
        ("adams2", 2, 80), ("adams3", 3, 160), ("adams_pc2", 3, 80), ("adams_pc3", 4, 80),
        ("ddim", 1, 40), ("exponential2", 2, 40), ("exponential3", 3, 160), ("exponential_pc2", 3, 40),
        ("dpm_solver2", 2, 40), ("unipc2", 3, 40),
    ],
)  # fmt: skip
def test_methods_converge_at_their_order_to_the_exact_flow(method, order, steps):
    """On EDM's path, whose log-SNR is finite at both ends, in equal steps of it."""
    grid = ip.time_grid.log_snr(100.0)
    assert measured_order(ip.edm(), method, grid, steps) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(("method", "order"), [("dpm_solver3", 3), ("exponential_pc3", 4), ("unipc3", 4)])
def test_methods_of_high_order_converge_at_it_on_a_mixture(method, order):
    """Where the Gaussian above makes their leading error vanish."""
    path, x = ip.edm(), torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field, grid = exact_field(path), ip.time_grid.log_snr(100.0)
    exact = sample_ode(field, x, method="dopri8", rtol=1e-12, atol=1e-13)
    errors = [
        (sample_ode(field, x, num_steps=n, method=method, grid=grid) - exact).square().mean().sqrt().item()
        for n in (200, 400)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("path", [ip.linear(), ip.gvp()], ids=lambda p: p.name)
@pytest.mark.parametrize(
    ("method", "order"),
    [("adams2", 2), ("adams3", 3), ("adams_pc2", 3), ("exponential2", 2), ("exponential3", 3), ("exponential_pc2", 2)],
)
def test_the_order_holds_up_to_data_without_noise(path, method, order):
    """In equal steps of t; a corrected state on the data has the order of one that is not, as the docs say."""
    x = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field = exact_field(path)
    exact = sample_ode(field, x, method="dopri8", rtol=1e-12, atol=1e-13)
    errors = [
        (sample_ode(field, x, num_steps=n, method=method) - exact).square().mean().sqrt().item() for n in (320, 640)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("prediction", ["velocity", "noise", "data"])
@pytest.mark.parametrize("method", ["heun2", "dopri5"])
def test_any_prediction_on_any_path_flows_to_the_data(path, prediction, method):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    samples = sample_ode(gaussian_field(path, prediction), x, num_steps=200, method=method, rtol=1e-6, atol=1e-8)
    # At a pole the interval ends 1e-3 short; the mean that is then missing at the noise end is of that size.
    torch.testing.assert_close(samples, exact_flow(path, x), rtol=0.0, atol=3e-3)


def test_implicit_adams_iterates_to_its_tolerance_over_equal_steps():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    samples = sample_ode(gaussian_field(ip.gvp()), x, method="implicit_adams", num_steps=64, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(samples, exact_flow(ip.gvp(), x), rtol=0.0, atol=1e-6)


def test_explicit_adams_is_stable_and_of_order_four():
    path, x = ip.gvp(), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    errors = []
    for steps in (64, 128, 256):
        field = gaussian_field(path)
        samples = sample_ode(field, x, method="explicit_adams", num_steps=steps)
        errors.append((samples - exact_flow(path, x)).abs().max().item())
        assert field.model.calls == steps + 2 * 3  # Runge-Kutta's in the first two steps
    assert math.log2(errors[1] / errors[2]) == pytest.approx(4, abs=0.15)
    assert errors[0] < 1e-4


@pytest.mark.parametrize("method", ["explicit_adams", "implicit_adams"])
def test_steps_that_must_be_equal_are_checked(method):
    with pytest.raises(ValueError, match=f"grid: must have equal steps for the method {method}"):
        sample_ode(gaussian_field(ip.gvp()), torch.ones(2, 1), method=method, grid="shifted")


@pytest.mark.parametrize("path", [ip.linear(), ip.gvp()], ids=lambda p: p.name)
def test_scipys_solver_follows_its_tolerance_and_shows_its_states(path):
    x, seen = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None], []
    field = gaussian_field(path)
    states = sample_ode(
        field,
        x,
        method="scipy_solver",
        num_steps=4,
        rtol=1e-8,
        atol=1e-9,
        trajectory=True,
        callback=lambda step, t, x: seen.append((step, t)),
    )
    torch.testing.assert_close(states[-1], exact_flow(path, x), rtol=0.0, atol=2e-6)
    assert states.shape == (5, 9, 1)
    by_dopri8 = sample_ode(field, x, method="dopri8", num_steps=4, rtol=1e-8, atol=1e-9, trajectory=True)
    torch.testing.assert_close(states, by_dopri8, rtol=0.0, atol=1e-5)
    assert [step for step, _ in seen] == list(range(len(seen)))
    assert seen[0][1] == field.path.ode("velocity").interval()[0]


@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("method", DERIVED)
def test_derived_methods_take_any_prediction_on_any_path(method, path, prediction):
    x = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = "log_snr" if path.name == "vp" or DERIVED[method].variable == "log_snr" else "uniform"
    samples = sample_ode(exact_field(path, prediction), x, num_steps=80, method=method, grid=grid)
    exact = sample_ode(exact_field(path), x, method="dopri8", rtol=1e-10, atol=1e-10)
    error = (samples - exact).square().mean().sqrt().item()
    assert error < (0.1 if DERIVED[method].order == 1 else 0.01)


@pytest.mark.parametrize(
    ("method", "calls"),
    [("euler", 30), ("heun2", 60), ("midpoint", 60), ("heun3", 90), ("rk4", 120)]
    + [(method, 30 + (solver.order == 4)) for method, solver in DERIVED.items()],
)
def test_network_calls_of_ode_methods(method, calls):
    field = exact_field(ip.linear())
    sample_ode(field, torch.randn(4, 2, dtype=torch.float64), num_steps=30, method=method)
    assert field.model.calls == calls


@pytest.mark.parametrize("method", SDE_METHODS)
def test_network_calls_of_sde_methods(method):
    field = exact_field(ip.linear())
    w = None if method == "ancestral" else "sigma"
    sample_sde(field, torch.randn(4, 2, dtype=torch.float64), w=w, num_steps=30, seed=0, method=method)
    assert field.model.calls == (60 if method in ("srk", "heun", "midpoint") else 30)


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


EVERY_W = [*ip.diffusion.CHOICES, "3*t*(1-t)"]


def projected(path, w, method, num_steps):
    """4,000 samples along two directions, from a network that takes ten points at once, and as many of the mixture."""
    exact = exact_field(path)

    def network(x, t):
        return exact.model(x.reshape(-1, 2), t.repeat_interleave(10)).reshape(x.shape)

    noise = torch.randn(400, 10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    samples = sample_sde(
        Field(network, path), noise, w=w, num_steps=num_steps, seed=0, method=method, grid=ip.time_grid.log_snr(9.0)
    )
    others = mixture().sample(20_000, torch.Generator().manual_seed(2))
    directions = torch.tensor([[1.0, 0.3], [-0.4, 1.0]], dtype=torch.float64)
    return samples.reshape(-1, 2), samples.reshape(-1, 2) @ directions, others @ directions


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("w", EVERY_W)
def test_derived_samples_have_the_law_of_the_mixture_for_every_w(path, w):
    """Its mean, covariance, and two-sample tests by Kolmogorov and Smirnov: also of a w with a pole, which is met
    exactly.
    """
    mean, covariance = moments()
    samples, ours, exact = projected(path, w, "exponential3", 80)
    torch.testing.assert_close(samples.mean(0), mean, rtol=0.0, atol=5 * 1.3 / math.sqrt(4000) + 0.01)
    torch.testing.assert_close(torch.cov(samples.T), covariance, rtol=0.0, atol=5 * 2.0 / math.sqrt(4000) + 0.02)
    assert min(ks_2samp(ours[:, k], exact[:, k]).pvalue for k in range(2)) > 1e-3


@pytest.mark.parametrize("method", [method for method in SDE_METHODS if method not in ("exponential3", "ancestral")])
def test_samples_of_every_method_have_the_law_of_the_mixture(method):
    _, ours, exact = projected(ip.gvp(), "sin_squared", method, 400 if method.endswith("1") else 150)
    assert min(ks_2samp(ours[:, k], exact[:, k]).pvalue for k in range(2)) > 1e-3


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ancestral_samples_have_the_moments_of_the_mixture(eta):
    mean, covariance = moments()
    noise = torch.randn(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    samples = sample_sde(exact_field(ip.gvp()), noise, num_steps=150, seed=0, method="ancestral", eta=eta)
    torch.testing.assert_close(samples.mean(0), mean, rtol=0.0, atol=5 * 1.3 / math.sqrt(4000) + 0.02)
    torch.testing.assert_close(torch.cov(samples.T), covariance, rtol=0.0, atol=5 * 2.0 / math.sqrt(4000) + 0.08)


class Coupled(SampleNoise):
    """One Brownian motion for every number of steps: its increments and integrals over long steps are made of short
    ones.
    """

    total = 1024

    def __init__(self, like, indices, seed):
        super().__init__(like, indices, seed)
        generator = torch.Generator().manual_seed(seed)
        small = torch.randn(2, self.total, *like.shape, dtype=like.dtype, generator=generator)
        self.increments, self.inner = small[0], small[0] / 2 + small[1] / math.sqrt(12)
        self.place = 0

    def over(self, count):
        """W and U of the next step, as long as ``count`` short ones, both in units in which it has length 1."""
        rows = slice(self.place, self.place + count)
        self.place += count
        before = self.increments[rows].cumsum(0) - self.increments[rows]
        w, u = self.increments[rows].sum(0), (before + self.inner[rows]).sum(0)
        return w / math.sqrt(count), u / count**1.5

    def normal(self):
        return self.over(self.total // self.steps)[0]

    def __call__(self, start, stop, return_U=False):
        self.step = int(start)
        w, u = self.over(self.total // self.steps)
        return (w, u) if return_U else w


@pytest.mark.parametrize(
    ("method", "order"),
    [("euler", 1.0), ("heun", 1.0), ("midpoint", 1.0), ("srk", 1.5), ("exponential1", 1.0), ("exponential2", 1.0)],
)
def test_methods_converge_strongly_at_their_order(method, order, monkeypatch):
    """To the solution along one Brownian path; the noise is additive, for which Euler's order is 1 and not 1/2."""
    monkeypatch.setattr("training.samplers.SampleNoise", Coupled)
    noise = torch.randn(400, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def sample(method, num_steps):
        Coupled.steps = num_steps
        return sample_sde(exact_field(ip.gvp()), noise, w="sin_squared", num_steps=num_steps, seed=0, method=method)

    exact = sample("srk", 1024)
    errors = [(sample(method, n) - exact).abs().mean().item() for n in (32, 256)]
    assert math.log2(errors[0] / errors[1]) / 3 == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(
    ("method", "order"),
    [("exponential1", 1), ("exponential2", 2), ("exponential3", 3), ("sde_dpm_solver2", 2), ("sde_dpm_solver3", 3)],
)
def test_the_drift_of_derived_sde_methods_is_integrated_at_its_order(method, order, monkeypatch):
    """Without the noise's numbers the steps solve dx = (a x + b prediction) dt, the SDE's drift."""
    monkeypatch.setattr(SampleNoise, "normal", lambda self: torch.zeros(self.shape, dtype=torch.float64))
    path, grid = ip.edm(), ip.time_grid.log_snr(100.0)
    noise = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def sample(num_steps, method=method):
        settings = {"w": ip.diffusion.kl_optimal(0.5), "seed": 0, "grid": grid, "interval": (0.0, 1.0)}
        return sample_sde(exact_field(path), noise, num_steps=num_steps, method=method, **settings)

    exact = sample(4000, "sde_dpm_solver3")
    errors = [(sample(n) - exact).square().mean().sqrt().item() for n in (400, 800)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("method", ["heun", "midpoint", "srk"])
def test_stages_lie_in_their_own_step_of_an_uneven_grid(method):
    """The same scheme by hand on the drift and amplitude in t, with the same increments."""
    path, times, m = ip.gvp(), [0.0, 0.1, 0.4, 0.5, 1.0], mixture()
    noise = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    stream = SampleNoise(noise, range(3), 7)

    def drift(t, x):
        return m.velocity(x, t, path) + path.sigma(t) * m.score(x, t, path)

    def amplitude(t):
        return math.sqrt(2 * path.sigma(t))

    x = noise
    for start, stop in itertools.pairwise(times):
        h = stop - start
        w = math.sqrt(h) * stream.normal()
        f, g = drift(start, x), amplitude(start)
        if method == "heun":
            last = x + h * f + g * w
            x = x + h / 2 * (f + drift(stop, last)) + (g + amplitude(stop)) / 2 * w
        elif method == "midpoint":
            middle = start + h / 2
            x = x + h * drift(middle, x + h / 2 * f + g * w / 2) + amplitude(middle) * w
        else:  # SRA1 of Roessler (2010): c = 0, 3/4
            u = h * w / 2 + h**1.5 * stream.normal() / math.sqrt(12)
            third = start + 3 * h / 4
            stage = x + 3 / 4 * h * f + 3 / 2 * amplitude(stop) * u / h
            x = x + h * (f / 3 + 2 / 3 * drift(third, stage)) + amplitude(stop) * (w - u / h) + g * u / h
    samples = sample_sde(exact_field(path), noise, w="sigma", seed=7, method=method, grid=times)
    torch.testing.assert_close(samples, x, rtol=1e-8, atol=1e-8)


def test_a_sample_of_a_seed_is_the_same_in_any_batch():
    noise = torch.randn(6, 2, dtype=torch.float64)

    def sample(rows, seed=3):
        return sample_sde(exact_field(ip.gvp()), noise[rows], w="sigma", num_steps=10, seed=seed, indices=rows)

    whole = sample(list(range(6)))
    torch.testing.assert_close(torch.cat([sample([0, 1]), sample([2, 3, 4, 5])]), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sample([5, 2]), whole[[5, 2]], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(sample(list(range(6)), seed=4), whole)
    assert not torch.allclose(whole[0] - noise[0], whole[1] - noise[1])


@pytest.mark.parametrize("method", ["euler", "rk4", *DERIVED, *SDE_METHODS[1:]])
def test_only_the_current_state_and_the_last_predictions_are_kept(method):
    """The number of tensors of the state's size that are alive does not grow with the steps."""
    alive = []
    gc.collect()
    gc.freeze()  # what was there before is not looked at

    def network(x, t):
        alive.append(sum(torch.is_tensor(o) and o.numel() == 2 * 1234 for o in gc.get_objects()))
        return torch.zeros_like(x)

    field, noise = Field(network, ip.linear()), torch.randn(1234, 2)
    if method in ODE_METHODS:
        sample_ode(field, noise, num_steps=30, method=method)
    else:
        w = None if method == "ancestral" else "sigma"
        sample_sde(field, noise, w=w, num_steps=30, seed=0, method=method)
    gc.unfreeze()
    assert max(alive[8:]) <= max(alive[4:8])


@pytest.mark.parametrize("method", ["euler", "adams_pc2", "unipc2"])
def test_a_compiled_network_is_compiled_once(method):
    """Its times are tensors: a new time is no new graph."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def network(x, t):
        return -x * t[:, None]

    torch.compiler.reset()
    noise = torch.randn(4, 2)
    compiled = Field(torch.compile(network, backend=backend, fullgraph=True), ip.linear())
    samples = sample_ode(compiled, noise, num_steps=8, method=method)
    assert len(graphs) == 1
    torch.testing.assert_close(samples, sample_ode(Field(network, ip.linear()), noise, num_steps=8, method=method))


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


# Back to the noise


@pytest.mark.parametrize("method", ["euler", "heun2", "rk4", "ddim"])
@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
def test_encoding_inverts_the_very_steps_of_a_fixed_method(method, path):
    """Also where these are so few that the ODE itself is far off."""
    noise = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    settings = {"num_steps": 12, "method": method, "grid": "cosine"}
    data = sample_ode(exact_field(path), noise, **settings)
    returned = encode(exact_field(path), data, rtol=1e-10, atol=1e-10, **settings)
    torch.testing.assert_close(returned, noise, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("path", [ip.linear(), ip.gvp()], ids=lambda p: p.name)
def test_encoding_and_decoding_return_within_the_tolerance_of_an_adaptive_method(path, per_sample):
    data = mixture().sample(8, torch.Generator().manual_seed(0))
    settings = {"rtol": 1e-7, "atol": 1e-8, "method": "dopri5", "per_sample": per_sample}
    noise = encode(exact_field(path), data, **settings)
    torch.testing.assert_close(sample_ode(exact_field(path), noise, **settings), data, rtol=0.0, atol=2e-5)
    # Of Gaussian data the noise is known.
    encoded = encode(gaussian_field(path), data[:, :1], **settings)
    torch.testing.assert_close(exact_flow(path, encoded), data[:, :1], rtol=0.0, atol=2e-5)


def test_a_step_too_long_to_invert_is_reported():
    field = Field(lambda x, t: -9.0 * x, ip.linear())
    with pytest.raises(ArithmeticError, match="encode: a step was not inverted by at most 100 iterations"):
        encode(field, torch.ones(2, 2), method="euler", num_steps=2)


# Steps of each sample's own


@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_with_steps_of_its_own_a_sample_does_not_depend_on_its_neighbours(method):
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = sample_ode(exact_field(ip.gvp()), x, method=method, per_sample=True)
    alone = torch.cat([sample_ode(exact_field(ip.gvp()), row[None], method=method, per_sample=True) for row in x])
    torch.testing.assert_close(together, alone, rtol=0.0, atol=1e-12)
    coupled = torch.cat([sample_ode(exact_field(ip.gvp()), row[None], method=method) for row in x])
    assert (sample_ode(exact_field(ip.gvp()), x, method=method) - coupled).abs().max() > 1e-6


@pytest.mark.parametrize(("method", "power"), [("dopri5", 5), ("bosh3", 3)])
def test_the_error_of_steps_of_its_own_follows_the_tolerance(method, power):
    x = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = sample_ode(exact_field(ip.linear()), x, method="dopri8", rtol=1e-12, atol=1e-13)
    calls, errors = [], []
    for tolerance in (1e-4, 1e-7):
        field = exact_field(ip.linear())
        samples = sample_ode(field, x, method=method, per_sample=True, rtol=tolerance, atol=tolerance)
        calls.append(field.model.calls)
        errors.append((samples - exact).abs().max().item())
    assert errors[1] < 1e-5 < errors[0] < 1e-2
    # A method of order p takes steps in proportion to tolerance^(1/p).
    assert math.log(calls[1] / calls[0]) / math.log(1e3) == pytest.approx(1 / power, abs=0.12)


@pytest.mark.parametrize(("method", "order"), [("dopri5", 5), ("bosh3", 3)])
def test_the_tableaus_solve_polynomials_of_their_order(method, order):
    """int of t^k over a step exactly for k < p, and the error estimate of the lower method for k < p - 1 alone."""
    from training.adaptive import TABLEAUS

    tableau = TABLEAUS[method]
    nodes = np.array([0.0, *tableau.nodes])
    weights = np.array([*tableau.stages[-1], 0.0])
    for k in range(order):
        assert weights @ nodes**k == pytest.approx(1 / (k + 1), abs=1e-14)
        assert (abs(np.array(tableau.error) @ nodes**k) < 1e-14) == (k < order - 1)
    for node, stage in zip(tableau.nodes, tableau.stages, strict=True):
        assert sum(stage) == pytest.approx(node, abs=1e-14)


# Another path than that of the training


@pytest.mark.parametrize("sampled", [ip.gvp(), ip.vp(), ip.Path("t**2", "1-t")], ids=lambda p: p.name)
def test_a_network_on_another_path_draws_the_same_samples(sampled):
    """The flow of a law does not depend on the path, up to what is left of the data at t = 0."""
    trained, change = ip.linear(), ip.match_snr(trained=ip.linear(), sampled=sampled)
    network = exact_field(trained).model

    def matched(x, t):
        return change.predict(network, x, t, prediction="velocity", target="data")

    noise = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    there = sample_ode(Field(matched, sampled, "data"), noise, method="exponential3", grid="log_snr", num_steps=200)
    here = sample_ode(exact_field(trained), noise, method="dopri5", rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(there, here, rtol=0.0, atol=0.02 if sampled.alpha(0.0) > 0 else 2e-3)


# What happens beside


@pytest.mark.parametrize("method", ["euler", "rk4", "adams_pc2", "unipc3", "dopri5"])
def test_the_callback_sees_the_start_of_every_step(method):
    seen = []
    field, noise = exact_field(ip.linear()), torch.randn(3, 2, dtype=torch.float64)
    settings = {"num_steps": 8, "method": method}
    sample_ode(field, noise, callback=lambda *start: seen.append(start), **settings)
    numbers, times, states = zip(*seen, strict=True)
    assert numbers == tuple(range(len(seen)))
    if method != "dopri5":
        trajectory = sample_ode(field, noise, trajectory=True, **settings)
        torch.testing.assert_close(torch.stack(states), trajectory[:-1])
        assert len(seen) == 8 + (method == "unipc3")
        assert times[-1] == 7 / 8
    assert times[0] == 0.0
    assert sorted(times) == list(times)


@pytest.mark.parametrize("method", SDE_METHODS)
def test_the_callback_sees_the_start_of_every_step_of_an_sde(method):
    seen, w = [], None if method == "ancestral" else "sigma"
    field, noise = exact_field(ip.linear()), torch.randn(3, 2, dtype=torch.float64)
    settings = {"num_steps": 8, "method": method, "seed": 0, "w": w, "grid": "cosine"}
    sample_sde(field, noise, callback=lambda *start: seen.append(start), **settings)
    numbers, times, states = zip(*seen, strict=True)
    assert numbers == tuple(range(8))
    assert times == tuple(ip.time_grid.cosine().times(ip.linear(), 8)[:-1])
    torch.testing.assert_close(torch.stack(states), sample_sde(field, noise, trajectory=True, **settings)[:-1])


def test_a_progress_bar_counts_the_steps(capsys):
    noise = torch.randn(3, 2)
    field = Field(lambda x, t: -x, ip.linear())
    sample_ode(field, noise, num_steps=7, method="adams2", progress=True)
    sample_sde(field, noise, w="sigma", num_steps=9, seed=0, progress=True)
    sample_ode(field, noise, num_steps=7)
    shown = capsys.readouterr().err
    assert "sampling: 7 of 7 steps" in shown
    assert "sampling: 9 of 9 steps" in shown
    assert shown.count(" of 7") == 2  # the first and the last


def test_samples_can_take_part_in_autograd():
    weight = torch.ones(2, requires_grad=True)
    field = Field(lambda x, t: -x * weight, ip.linear())
    noise = torch.randn(3, 2)
    for samples in (
        sample_ode(field, noise, num_steps=2),
        sample_sde(field, noise, w="sigma", num_steps=2, seed=0),
        encode(field, noise, method="dopri5"),
    ):
        assert not samples.is_inference()
        (samples * weight).sum().backward()


@pytest.mark.parametrize("method", ["heun2", "adams_pc2", "unipc2"])
def test_the_state_may_be_wider_than_the_noise_and_the_network_narrower(method):
    path, x, seen = ip.gvp(), torch.linspace(-2, 2, 9)[:, None], set()
    exact = gaussian_field(path)

    def network(state, t):
        seen.add(state.dtype)
        return exact.model(state.double(), t.double()).to(state.dtype)

    samples = sample_ode(Field(network, path), x, method=method, state_dtype=torch.float64)
    assert samples.dtype == torch.float32
    assert seen == {torch.float32}
    seen.clear()
    low = sample_ode(Field(network, path, dtype=torch.bfloat16), x, method=method)
    assert seen == {torch.bfloat16}
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, samples, rtol=0.0, atol=0.02)
    with pytest.raises(ValueError, match="state_dtype: must be floating point"):
        sample_ode(Field(network, path), x, state_dtype=torch.int64)


def test_times_of_ones_own():
    field, noise = exact_field(ip.linear()), torch.randn(4, 2, dtype=torch.float64)
    times = [0.0, 0.3, 0.7, 1.0]
    x = noise
    for start, stop in itertools.pairwise(times):
        x = x + (stop - start) * mixture().velocity(x, start, ip.linear())
    torch.testing.assert_close(sample_ode(field, noise, method="euler", grid=times), x)
    torch.testing.assert_close(sample_sde(field, noise, w=0, grid=times, seed=0), x)
    part = sample_ode(field, noise, method="euler", grid=[0.1, 0.5])  # then one Euler step to t = 1
    x = 0.9 * noise
    for start, stop in ((0.1, 0.5), (0.5, 1.0)):
        x = x + (stop - start) * mixture().velocity(x, start, ip.linear())
    torch.testing.assert_close(part, x)
    sample_ode(exact_field(ip.linear(), "noise"), noise, grid=[0.01, 0.3, 1.0])
    with pytest.raises(ValueError, match="interval: must be None where the grid is given by its times"):
        sample_ode(field, noise, grid=times, interval=(0.0, 0.7))
    with pytest.raises(ValueError, match=r"grid: must lie in \[0.00\d+, 1\], where the coefficients of the noise"):
        sample_ode(exact_field(ip.linear(), "noise"), noise, grid=times)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "huen2"}, "method: must be one of euler, midpoint, heun2"),
        ({"num_steps": 0}, "num_steps: must be an integer of at least 1, got 0"),
        ({"num_steps": 2.5}, "num_steps: must be an integer"),
        ({"grid": "linear"}, "grid: must be one of uniform, shifted, log_snr"),
        ({"interval": (0.9, 0.1)}, r"interval must be inside \[0, 1\] and not empty"),
        ({"per_sample": True}, "per_sample: must be False for the method 'heun2'; it is for dopri5, bosh3"),
        ({"per_sample": True, "method": "dopri5", "trajectory": True}, "trajectory: must be False with per_sample"),
        ({"method": "dopri5", "rtol": -1.0}, "rtol, atol: must be finite and >= 0, and not both 0, got -1.0, 1e-06"),
        ({"method": "dopri5", "atol": math.nan}, "rtol, atol: must be"),
        ({"method": "dopri5", "rtol": 0.0, "atol": 0.0}, "rtol, atol: must be"),
    ],
)
def test_wrong_ode_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_ode(exact_field(ip.linear()), torch.zeros(2, 2), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"w": -1.0}, r"w: .* must be finite and >= 0"),
        ({"w": "constant"}, r"w = constant\(1\): must be finite on \[0, 1\], but a has a pole of order 1 at t = 1"),
        ({"w": "kl_optimal"}, r"a has a pole of order 1 at t = 0"),
        ({"w": "sigma", "num_steps": 0}, "num_steps: must be"),
        ({"w": "sigma", "interval": (0.9, 0.1)}, r"interval must be inside \[0, 1\] and not empty"),
        ({"w": "sigma", "indices": [1]}, "indices: must have one index a sample, 2, got 1"),
        ({"w": "sigma", "indices": [1, -1]}, "seed, indices: must be integers of at least 0"),
        ({"w": "sigma", "method": "milstein"}, "method: must be one of euler, srk, heun, midpoint, exponential1"),
        ({}, "w: must be given, or None for the method ancestral, whose noise is eta's; got None for euler"),
        ({"w": "sigma", "method": "ancestral"}, "w: must be given, or None for the method ancestral"),
        ({"method": "ancestral", "eta": 2.0}, r"eta: must be in \[0, 1\]"),
        ({"w": "sigma", "eta": 0.5}, "eta: must be 1 for the method euler, got 0.5"),
        ({"w": "sigma", "seed": None}, "seed, indices: must be integers of at least 0, got None"),
        ({"w": "sigma", "seed": True}, "seed, indices: must be integers"),
        ({"w": "sigma", "indices": [0.2, 0.7]}, "seed, indices: must be integers"),
        ({"w": "kl_optimal"}, "Or pass interval=, or take exponential1, exponential2"),
        ({"w": "sigma", "y": torch.zeros(3)}, "y: must have one label a sample, 2, got 3"),
        ({"w": "-1", "method": "exponential1"}, r"w: .* must be finite and >= 0"),
        ({"w": "sigma(-1)"}, r"w: .* must be finite and >= 0"),
        ({"w": "sigma", "last_step": "Mean"}, "last_step: must be one of mean, euler, tweedie, None, got 'Mean'"),
        (
            {"w": "sigma", "last_step": "tweedie"},
            "last_step: must be 'mean' where the interval ends at t = 1, got 'twe",
        ),
        (
            {"w": "sigma", "last_step": None, "interval": (0.2, 1.0)},
            "last_step: must be 'mean' where the interval ends",
        ),
    ],
)
def test_wrong_sde_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_sde(exact_field(ip.linear()), torch.zeros(2, 2), **({"seed": 0} | arguments))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("method", ["euler", "heun", "exponential2", "ancestral"])
def test_the_last_step_is_that_of_its_definition(path, method):
    """From the state where the interval ends, with velocity, score and mean of the mixture by the score alone."""
    m, noise, stop = mixture(), torch.randn(3, 2, dtype=torch.float64), 0.9
    w, half_w = (None, 0.0) if method == "ancestral" else ("0.3*(1-t)**2", 0.15 * (1 - stop) ** 2)
    field, settings = exact_field(path), {"num_steps": 6, "seed": 5, "method": method, "interval": (0.1, stop)}
    x, calls = sample_sde(field, noise, w=w, last_step=None, **settings), field.model.calls
    velocity, score = m.velocity(x, stop, path), m.score(x, stop, path)
    expected = {
        "mean": x + (1 - stop) * (velocity + half_w * score),
        "euler": x + (1 - stop) * velocity,
        "tweedie": (x + path.sigma(stop) ** 2 * score) / path.alpha(stop),
    }
    for last_step, samples in expected.items():
        field.model.calls = 0
        torch.testing.assert_close(sample_sde(field, noise, w=w, last_step=last_step, **settings), samples)
        assert field.model.calls == calls + 1
    assert torch.equal(
        sample_sde(field, noise, w=w, **settings), sample_sde(field, noise, w=w, last_step="mean", **settings)
    )


def test_an_interval_admits_a_w_with_a_pole():
    noise = torch.randn(4, 2, dtype=torch.float64)
    samples = sample_sde(exact_field(ip.linear()), noise, w="constant", num_steps=50, seed=0, interval=(0.0, 0.96))
    assert samples.isfinite().all()


@pytest.mark.parametrize("method", dict.fromkeys([*ODE_METHODS, *SDE_METHODS]))
def test_a_network_that_returns_nan_is_reported_with_its_step_and_time(method):
    times = []

    def network(x, t):
        times.append(t[0].item())
        return torch.where(t[:, None] > 0.52, math.nan, -x)

    field, noise = Field(network, ip.linear()), torch.ones(3, 2)
    sampler = sample_ode
    if method in SDE_METHODS and method not in ODE_METHODS:
        sampler = functools.partial(sample_sde, seed=0, w=None if method == "ancestral" else "sigma")
    with pytest.raises(ValueError, match="the network must return finite numbers, got a sum of nan in step") as error:
        sampler(field, noise, method=method, num_steps=10)
    assert f"at t = {times[-1]:.6g}" in str(error.value)
    assert sum(time > 0.52 for time in times) == 1
    if method in ("euler", "adams2", "exponential1"):
        assert "in step 7 of 10, at t = 0.6." in str(error.value)


def test_samples_that_overflow_are_reported():
    with pytest.raises(ValueError, match="3 of 3 samples are not finite, although the network's output is"):
        sample_ode(
            Field(lambda x, t: torch.full_like(x, 3e37), ip.linear()),
            torch.full((3, 2), 3.3e38),
            num_steps=1,
            method="euler",
        )


def test_a_network_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"the network must return the shape of x, \(3, 2\), got \(3, 1\)"):
        sample_ode(Field(lambda x, t: x[:, :1], ip.linear()), torch.ones(3, 2), method="unipc2")


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match=r"field: must be a training.Field, got function. Field\(model, path\) is one"):
        sample_ode(lambda x, t: x, torch.zeros(2, 2))
    with pytest.raises(TypeError, match=r"data: must be a torch.Tensor, got ndarray"):
        encode(exact_field(ip.linear()), np.zeros((2, 2)))


def test_nothing_of_the_caller_is_changed_and_nothing_that_the_network_reuses_is_kept():
    buffer = torch.empty(4, 3)

    def network(x, t):
        return buffer.copy_(-x * (1 + t[:, None]))

    noise = torch.randn(4, 3)
    for method in ("adams2", "adams_pc2", "rk4"):
        fresh = sample_ode(Field(lambda x, t: -x * (1 + t[:, None]), ip.linear()), noise, method=method, num_steps=6)
        torch.testing.assert_close(
            sample_ode(Field(network, ip.linear()), noise, method=method, num_steps=6), fresh, rtol=0.0, atol=1e-6
        )
    kept = noise.clone()
    encode(Field(network, ip.linear()), noise, callback=lambda step, t, x: x.zero_())
    torch.testing.assert_close(noise, kept, rtol=0.0, atol=0.0)
    state = torch.get_rng_state()
    for method in SDE_METHODS:
        w = None if method == "ancestral" else "sigma"
        sample_sde(Field(network, ip.linear()), noise, w=w, num_steps=3, seed=0, method=method)
    assert torch.equal(torch.get_rng_state(), state)


def test_labels_go_with_their_samples_where_each_has_its_own_steps():
    def network(x, t, y):
        return -(1 + 3 * y[:, None]) * x

    field, noise, y = Field(network, ip.linear()), torch.ones(3, 2, dtype=torch.float64), torch.tensor([4.0, 0.0, 1.0])
    samples = sample_ode(field, noise, y=y, method="dopri5", per_sample=True, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(samples, torch.exp(-(1 + 3 * y[:, None])).double() * noise, rtol=1e-5, atol=1e-6)
    guided = Field(network, ip.linear(), guidance=Guidance(scale=2.0, y_negative=torch.tensor([1, 2, 3])))
    with pytest.raises(ValueError, match=r"per_sample: must be False with one guidance.y_negative a sample"):
        sample_ode(guided, noise, y=y, method="dopri5", per_sample=True)


def test_the_trajectory_of_an_adaptive_method_is_at_the_times_of_the_grid():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    settings = {"method": "dopri5", "rtol": 1e-8, "atol": 1e-9}
    states = sample_ode(gaussian_field(ip.gvp()), x, num_steps=4, trajectory=True, **settings)
    assert states.shape == (5, 9, 1)
    half = sample_ode(gaussian_field(ip.gvp()), x, interval=(0.0, 0.5), trajectory=True, num_steps=1, **settings)
    torch.testing.assert_close(states[0], x)
    torch.testing.assert_close(states[-1], exact_flow(ip.gvp(), x), rtol=0.0, atol=1e-5)
    assert not torch.allclose(states[2], states[3])
    assert half.shape == (2, 9, 1)


def test_the_callback_of_steps_of_its_own_has_the_least_time():
    times = []
    noise = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sample_ode(
        exact_field(ip.gvp()), noise, method="dopri5", per_sample=True, callback=lambda step, t, x: times.append(t)
    )
    slowest = []
    for row in noise:
        field = exact_field(ip.gvp())
        sample_ode(field, row[None], method="dopri5", per_sample=True)
        slowest.append(field.model.calls)
    assert times == sorted(times)
    assert times[0] == 0.0
    assert len(times) == (max(slowest) - 2) // 6  # two calls for the first step's length, six a step


def test_the_table_of_a_corrected_method_has_one_prediction_more_in_its_last_step():
    path = ip.linear()
    for count in (4, 9):  # the fewest times that have it, and more
        times = tuple(np.linspace(0.0, 1.0, count).tolist())
        table = DERIVED["exponential_pc2"].steps(path, times)
        longer, shorter = (ip.exponential.steps(path, times, order, variable="t") for order in (3, 2))
        np.testing.assert_allclose(table.weights[-1], longer.weights[-1], atol=1e-10)
        np.testing.assert_allclose(table.weights[:-1, :2], shorter.weights[:-1], atol=1e-12)
        assert DERIVED["adams_pc2"].steps(path, times).weights.shape == (count - 1, 2)
    times = tuple(np.linspace(0.1, 0.8, 8).tolist())
    of_unipc, of_t = (DERIVED[method].steps(path, times).weights for method in ("unipc2", "exponential_pc2"))
    np.testing.assert_allclose(of_unipc[:-1, :2], ip.exponential.steps(path, times, 2).weights[:-1], atol=1e-12)
    assert abs(of_unipc - of_t).max() > 1e-3


def test_methods_of_order_four_start_with_a_short_step():
    times = np.linspace(0.2, 1.0, 9)  # steps of an eighth of the way, whose cube root is a half
    refined = DERIVED["adams_pc3"].refined_start(times)
    np.testing.assert_allclose(refined, [0.2, 0.25, *times[1:]])
    for method, short in (("adams_pc3", np.array([0.0, 1.0])), ("adams_pc2", times)):
        np.testing.assert_array_equal(DERIVED[method].refined_start(short), short)


def test_times_beyond_where_the_coefficients_are_bounded_are_refused():
    field = exact_field(ip.linear(), "data")  # whose velocity has a pole at t = 1
    with pytest.raises(ValueError, match=r"grid: must lie in \[0, 0.99\d*\], where the coefficients of the data"):
        sample_ode(field, torch.randn(2, 2, dtype=torch.float64), grid=[0.0, 0.5, 1.0], method="heun2")


def test_noise_has_a_batch():
    for sampler, name in ((sample_ode, "noise"), (encode, "data")):
        with pytest.raises(ValueError, match=name + r": must be floating point of shape \(batch, \.\.\.\)"):
            sampler(exact_field(ip.linear()), torch.zeros(3))
        with pytest.raises(ValueError, match=r"got torch.float32 of shape \(0, 2\)"):
            sampler(exact_field(ip.linear()), torch.zeros(0, 2))


# Accelerators


@pytest.mark.parametrize("method", [*DERIVED, *(f"sde {method}" for method in SDE_METHODS)])
def test_steps_neither_wait_for_the_device_nor_copy_to_it(method, monkeypatch):
    """A tensor of the device "meta" has no numbers that could be waited for: the first look at one raises.

    That a graph of CUDA can be captured needs just this. The samples are looked at once, after the last call.
    """
    monkeypatch.setattr("training.brownian.stream", lambda *_: None)  # there are no generators of this device
    model = Counted(lambda x, t: -x * t[:, None])
    field, noise = Field(model, ip.linear()), torch.zeros(3, 2, device="meta")
    w = None if "ancestral" in method else "sigma"
    sampler = sample_ode if method in DERIVED else functools.partial(sample_sde, seed=0, w=w)
    with Copies() as copies, pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        sampler(field, noise, num_steps=8, method=method.removeprefix("sde "))
    assert model.calls >= 8
    assert copies.seen == []


@pytest.mark.parametrize("path", [ip.linear(), ip.gvp(), ip.vp()], ids=lambda p: p.name)
@pytest.mark.parametrize("prediction", ip.QUANTITIES)
def test_the_default_method_does_not_amplify_the_error_of_a_network(path, prediction):
    """The samples of an erring network are about as far from those of an exact one as its error; by heun2, whose last
    step divides the error of a predicted data by the length of the step, they are farther.
    """
    exact = exact_field(path, prediction)
    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    is_bounded = path.ode(prediction).interval() == (0.0, 1.0)
    erring = Field(lambda x, t: exact.model(x, t) + 0.05 * torch.sign(torch.sin(1e6 * x)), path, prediction)
    assert default_ode_method(erring) == ("heun2" if is_bounded else "unipc2")

    def off(method):
        samples = (sample_ode(field, noise, method=method, num_steps=25) for field in (erring, exact))
        return float((next(samples) - next(samples)).square().mean().sqrt())

    if prediction == "data":
        assert off(None) < 0.09
        assert off("heun2") > 10 * off(None)
