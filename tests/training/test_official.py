"""The release's samplers, against its algorithm written anew: two network calls a drift, and formulas by hand."""

import math

import numpy as np
import pytest
import torch
import torchdiffeq

import interpolants as ip
from training import Field, sample_sde
from training.config import ODEConfig, SDEConfig
from training.generate import integrate
from training.official import FORMS, official_w, sample_official_ode, sample_official_sde

PATHS = {"linear": ip.linear(), "gvp": ip.gvp(), "vp": ip.vp()}
PREDICTIONS = ["velocity", "noise", "score"]
STEPS = 6
ALL_FORMS = ["constant", "SBDM", "sigma", "linear", "decreasing", "increasing-decreasing"]
F32, F64 = torch.float32, torch.float64
TOLERANCE = {F64: 1e-12, F32: 1e-5}
"""Of float32, the roundings of the release's formulas, which divide by t next to t = 0."""


class Network:
    """Smooth, not linear, such that the state stays of order 1; counts its calls and keeps its times."""

    def __init__(self, prediction):
        self.prediction, self.times = prediction, []

    def __call__(self, x, t, y=None):
        self.times.append(t)
        t = t.reshape(-1, *(1,) * (x.dim() - 1))
        ripple = 0.1 * t * torch.sin(2 * x + 3 * t)
        if y is not None:
            ripple = ripple + 0.1 * t * y.reshape(t.shape)
        variance = t**2 / 4 + (1 - t) ** 2
        return {
            "velocity": (t / 4 - (1 - t)) / variance * x + ripple,
            "noise": (1 - t) / variance * x + ripple,
            "score": -x / variance + ripple,
        }[self.prediction]


def schedule(path, t):
    """alpha, alpha', sigma, sigma' by hand."""
    if path == "linear":
        return t, torch.ones_like(t), 1 - t, -torch.ones_like(t)
    if path == "gvp":
        a = math.pi / 2
        return torch.sin(a * t), a * torch.cos(a * t), torch.cos(a * t), -a * torch.sin(a * t)
    log_alpha = -((1 - t) ** 2) * (20 - 0.1) / 4 - (1 - t) * 0.1 / 2
    d_log_alpha = (1 - t) * (20 - 0.1) / 2 + 0.1 / 2
    alpha, sigma = torch.exp(log_alpha), torch.sqrt(-torch.expm1(2 * log_alpha))
    return alpha, alpha * d_log_alpha, sigma, -(alpha**2) * d_log_alpha / sigma


class Release:
    """The algorithm of the release: velocity and score each from a call of their own."""

    def __init__(self, path, prediction, y=None):
        self.path, self.prediction, self.network, self.y = path, prediction, Network(prediction), y

    def at(self, x, t):
        t = t.reshape(-1, *(1,) * (x.dim() - 1))
        alpha, d_alpha, sigma, d_sigma = schedule(self.path, t)
        sbdm = d_alpha / alpha * sigma**2 - sigma * d_sigma
        if self.path == "vp":  # half the noise rate, which is defined at t > 1 too
            sbdm = (0.1 + (1 - t) * (20 - 0.1)) / 2
        return alpha, d_alpha, sigma, d_sigma, sbdm

    def velocity(self, x, t):
        out = self.network(x, t, self.y)
        if self.prediction == "velocity":
            return out
        alpha, d_alpha, sigma, _, sbdm = self.at(x, t)
        return d_alpha / alpha * x + sbdm * (out if self.prediction == "score" else -out / sigma)

    def score(self, x, t):
        out = self.network(x, t, self.y)
        alpha, d_alpha, sigma, d_sigma, _ = self.at(x, t)
        if self.prediction == "velocity":
            ratio = alpha / d_alpha
            return (ratio * out - x) / (sigma**2 - ratio * d_sigma * sigma)
        return out if self.prediction == "score" else -out / sigma

    def sde(self, x, z, form, norm, method, last_step, size, eps):
        if last_step is None:
            size = 0.0
        t0 = eps if self.path != "vp" and (form == "SBDM" or self.prediction != "velocity") else 0.0
        t1 = 1 - eps if size == 0 else 1 - size
        grid = torch.linspace(t0, t1, len(z) + 1)
        h = grid[1] - grid[0]

        def diffusion(x, t):
            _, _, sigma, _, sbdm = self.at(x, t)
            t = t.reshape(sigma.shape)
            return {
                "constant": norm * torch.ones_like(t),
                "SBDM": norm * sbdm,
                "sigma": norm * sigma,
                "linear": norm * (1 - t),
                "decreasing": 0.25 * (norm * torch.cos(math.pi * t) + 1) ** 2,
                "increasing-decreasing": norm * torch.sin(math.pi * t) ** 2,
            }[form]

        def drift(x, t):
            return self.velocity(x, t) + diffusion(x, t) * self.score(x, t)

        for time, normal in zip(grid[:-1], z, strict=True):
            t = torch.ones(len(x)).to(x) * time
            dw = normal.to(x) * torch.sqrt(h)
            if method == "euler":
                x = x + drift(x, t) * h + torch.sqrt(2 * diffusion(x, t)) * dw
            else:
                x_hat = x + torch.sqrt(2 * diffusion(x, t)) * dw
                k1 = drift(x_hat, t)
                k2 = drift(x_hat + h * k1, t + h)
                x = x_hat + 0.5 * h * (k1 + k2)
        t = torch.ones(len(x)).to(x) * grid[-1]
        if last_step == "mean":
            return x + drift(x, t) * size
        if last_step == "euler":
            return x + self.velocity(x, t) * size
        if last_step == "tweedie":
            alpha, _, sigma, _, _ = self.at(x, t)
            return x / alpha + sigma**2 / alpha * self.score(x, t)
        return x

    def ode(self, x, method, num_steps, rtol, atol):
        eps = release_eps(self.path, self.prediction)
        grid = torch.linspace(0.0 if self.path == "vp" else eps, 1 - eps, num_steps)

        def drift(t, x):
            return self.velocity(x, torch.ones(len(x)).to(x) * t)

        return torchdiffeq.odeint(drift, x, grid, method=method, rtol=rtol, atol=atol)[-1]


def release_eps(path, prediction):
    return 0.0 if path != "vp" and prediction == "velocity" else 1e-3


def normals(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def field_of(path, prediction="velocity"):
    return Field(Network(prediction), PATHS[path], prediction)


@pytest.mark.parametrize("form", ALL_FORMS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("path", PATHS)
def test_sde_samples_are_those_of_the_release_from_half_its_network_calls(path, prediction, form):
    noise, z = normals(4, 3), normals(STEPS - 1, 4, 3, seed=1)
    eps, given = release_eps(path, prediction), None
    if form == "SBDM" and eps == 0.0:
        eps = given = 1e-3  # at the release's own 0 it divides by 0, which a later test has refused
    runs = [("euler", "mean", F64), ("heun", "tweedie", F64), ("heun", "mean", F32)]
    if form == "sigma":
        runs += [("euler", last, F64) for last in ("euler", "tweedie", None)] + [("heun", "euler", F64)]
    if form == "sigma" and eps > 0.0:
        runs.append(("heun", None, F64))  # else its second stage is at t = 1, where the release divides 0 by 0
    for method, last_step, dtype in runs:
        release, field = Release(path, prediction), field_of(path, prediction)
        expected = release.sde(noise.to(dtype), z, form, 0.7, method, last_step, 0.04, eps)
        samples = sample_official_sde(
            field,
            noise.to(dtype),
            w=official_w(form, 0.7),
            num_steps=STEPS,
            method=method,
            last_step=last_step,
            sample_eps=given,
            increments=z,
        )
        torch.testing.assert_close(samples, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
        one_call = last_step in ("euler", "tweedie")  # of the velocity or of the score alone
        assert 2 * len(field.model.times) == len(release.network.times) + one_call


def normals_of_samples(seed, steps, *shape):
    """The numbers of the samples 0, 1, ... of a seed, each from a stream of its own, by hand."""
    streams = []
    for index in range(shape[0]):
        state = int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0]) >> 1
        streams.append(torch.Generator().manual_seed(state))
    step = lambda: torch.stack([torch.empty(shape[1:], dtype=F64).normal_(generator=g) for g in streams])  # noqa: E731
    return torch.stack([step() for _ in range(steps)])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("last_step", ["mean", "euler", "tweedie", None])
def test_the_last_steps_of_other_samplers_are_those_of_the_release(path, last_step):
    """With its N times as N - 1 steps on [0, 0.96]; it rounds them to float32."""
    noise, N = normals(4, 3), 12
    z, stop = normals_of_samples(7, N - 1, 4, 3), 0.96
    start = float(PATHS[path].sigma(0.0)) * noise  # as the state begins there, and not at the noise
    eps = 1 - stop  # where there is no last step, the release stops at 1 - eps
    expected = Release(path, "velocity").sde(start, z, "sigma", 0.5, "euler", last_step, 1 - stop, eps)
    field = field_of(path)
    settings = {"num_steps": N - 1, "seed": 7, "interval": (0.0, stop), "last_step": last_step}
    samples = sample_sde(field, noise, w="sigma(0.5)", **settings)
    torch.testing.assert_close(samples, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize(("interval", "size"), [(None, 0.04), ((0.0, 0.9), 0.1)])
def test_settings_reach_the_sde_of_the_release(path, method, interval, size):
    noise, z = normals(4, 3), normals_of_samples(7, STEPS - 1, 4, 3)
    sampler = SDEConfig("sigma(0.5)", STEPS, method, interval=interval, last_step="tweedie", official=True)
    samples = integrate(field_of(path), noise, sampler, seed=7)
    expected = Release(path, "velocity").sde(noise, z, "sigma", 0.5, method, "tweedie", size, 1e-3)
    torch.testing.assert_close(samples, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("sampler", [ODEConfig(official=True), ODEConfig("rk4", 5, official=True)], ids=str)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_settings_reach_the_ode_of_the_release(sampler, prediction):
    noise = normals(4, 3)
    expected = Release("linear", prediction).ode(noise, sampler.method or "dopri5", sampler.num_steps, 1e-3, 1e-6)
    samples = integrate(field_of("linear", prediction), noise, sampler)
    torch.testing.assert_close(samples, expected, rtol=1e-9, atol=1e-9)  # an adaptive step amplifies roundings


@pytest.mark.parametrize("path", PATHS)
def test_an_interval_is_that_of_two_distances(path):
    """interval is where the grid begins and ends; the release says it by sample_eps and last_step_size."""
    noise, z = normals(4, 3), normals(STEPS - 1, 4, 3, seed=1)
    late = path != "vp"
    for last_step, size in (("mean", 0.1), ("euler", 0.1), (None, 0.0)):
        by_two = {"sample_eps": 0.01, "last_step_size": size}
        interval = (0.01 if late else 0.0, 1 - (size or 0.01))
        sampled = [
            sample_official_sde(
                field_of(path, "noise"), noise, num_steps=STEPS, last_step=last_step, increments=z, **given
            )
            for given in (by_two, {"interval": interval})
        ]
        torch.testing.assert_close(*sampled, rtol=1e-12, atol=1e-12)
    field = field_of(path, "noise")
    sample_official_ode(field, noise, method="euler", num_steps=3, interval=(0.1, 0.7))
    assert [round(float(t[0]), 6) for t in field.model.times] == [0.1, 0.4]


@pytest.mark.parametrize("path", PATHS)
def test_sde_defaults_are_those_of_the_release(path):
    noise, z = normals(4, 3), normals(249, 4, 3, seed=1)
    expected = Release(path, "velocity").sde(noise, z, "sigma", 1.0, "euler", "mean", 0.04, 1e-3)
    field = field_of(path)
    samples = sample_official_sde(field, noise, increments=z)
    torch.testing.assert_close(samples, expected, rtol=1e-11, atol=1e-11)
    assert len(field.model.times) == 250


@pytest.mark.parametrize(
    ("path", "prediction", "arguments", "first", "last"),
    [
        ("linear", "velocity", {}, 0.0, 0.96),
        ("linear", "velocity", {"last_step_size": 0.1}, 0.0, 0.9),
        ("linear", "velocity", {"last_step_size": 0.0}, 0.0, 1.0),
        ("linear", "velocity", {"sample_eps": 1e-2}, 0.0, 0.96),
        ("gvp", "velocity", {"sample_eps": 1e-2, "w": "kl_optimal"}, 1e-2, 0.96),
        ("gvp", "velocity", {"sample_eps": 1e-2, "last_step_size": 0.0}, 0.0, 0.99),
        ("linear", "noise", {}, 1e-3, 0.96),
        ("gvp", "score", {"last_step_size": 0.0}, 1e-3, 1 - 1e-3),
        ("vp", "score", {"last_step_size": 0.0, "w": "kl_optimal"}, 0.0, 1 - 1e-3),
    ],
)
def test_the_sde_runs_on_the_interval_of_the_release(path, prediction, arguments, first, last):
    field = field_of(path, prediction)
    sample_official_sde(field, normals(2, 3, dtype=F32), num_steps=4, **arguments)
    times = torch.stack(field.model.times)
    assert times.dtype == F32
    assert torch.equal(times, torch.linspace(first, last, 4)[:, None].expand(4, 2))


def test_drift_that_is_zero_over_zero_for_the_release_has_its_limit():
    """On the linear path v + sigma score = (1 + t) v - x, by hand, which at t = 1 the release computes as NaN."""
    noise, z, network = normals(4, 3), normals(STEPS - 1, 4, 3, seed=1), Network("velocity")

    def drift(x, t):
        return (1 + t) * network(x, torch.full((4,), t, dtype=F64)) - x

    grid, x = torch.linspace(0, 1, STEPS).tolist(), noise
    h = grid[1]
    for t, normal in zip(grid, z, strict=False):
        x_hat = x + math.sqrt(2 * (1 - t) * h) * normal
        slope = drift(x_hat, t)
        x = x_hat + h / 2 * (slope + drift(x_hat + h * slope, t + h))
    field = field_of("linear")
    samples = sample_official_sde(field, noise, num_steps=STEPS, method="heun", last_step=None, increments=z)
    torch.testing.assert_close(samples, x, rtol=1e-7, atol=1e-7)  # the release's root of h is a float32
    assert max(t.max() for t in field.model.times) == 1.0


def test_gaussian_numbers_come_from_a_generator_in_the_order_of_the_release():
    noise, seeded = normals(4, 3), torch.Generator().manual_seed(5)
    z = torch.stack([torch.randn(4, 3, generator=seeded, dtype=F32) for _ in range(STEPS - 1)])

    def sample(**source):
        return sample_official_sde(field_of("gvp"), noise, num_steps=STEPS, **source)

    expected = sample(increments=z)
    assert expected.dtype == F64
    assert torch.equal(sample(increments=lambda k: z[k]), expected)
    assert torch.equal(sample(generator=torch.Generator().manual_seed(5)), expected)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        assert torch.equal(sample(), expected)


def test_images_and_labels_pass_through_both_samplers():
    noise, z, y = normals(2, 1, 4, 4), normals(STEPS - 1, 2, 1, 4, 4, seed=1), torch.tensor([1, 5])
    release = Release("gvp", "noise", y)
    samples = sample_official_sde(field_of("gvp", "noise"), noise, num_steps=STEPS, increments=z, y=y)
    expected = release.sde(noise, z, "sigma", 1.0, "euler", "mean", 0.04, 1e-3)
    torch.testing.assert_close(samples, expected, rtol=1e-12, atol=1e-12)
    samples = sample_official_ode(field_of("gvp", "noise"), noise, method="euler", num_steps=STEPS, y=y)
    torch.testing.assert_close(samples, release.ode(noise, "euler", STEPS, 1e-3, 1e-6), rtol=1e-12, atol=1e-12)


def test_a_network_is_in_evaluation_mode_and_without_gradients_while_it_samples_and_then_as_before():
    class Dropping(torch.nn.Module):
        def forward(self, x, t):
            return torch.full_like(x, math.nan if self.training or torch.is_grad_enabled() else 0.0)

    model, noise = Dropping().train(), torch.ones(2, 3)
    assert torch.equal(sample_official_sde(Field(model, PATHS["linear"]), noise, w="0", num_steps=2), noise)
    assert torch.equal(sample_official_ode(Field(model, PATHS["linear"]), noise), noise)
    assert model.training


@pytest.mark.parametrize("method", ["dopri5", "heun3", "euler"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("path", PATHS)
def test_ode_samples_are_those_of_the_release(path, prediction, method):
    # The choice of a step amplifies roundings, to the tolerance of the solver where one is accepted and not the other.
    tolerances = {F64: 1e-9, F32: 1e-3} if method == "dopri5" else {F64: 1e-12, F32: 3e-5}
    if prediction == "velocity":
        tolerances = {F64: 0.0, F32: 0.0}
    for dtype, tolerance in tolerances.items():
        release, field, noise = Release(path, prediction), field_of(path, prediction), normals(4, 3, dtype=dtype)
        if (path, prediction, method) == ("vp", "noise", "dopri5"):
            assert_both_fail_beyond_the_data(release, field, noise)
            continue
        expected = release.ode(noise, method, 7, 1e-4, 1e-5)
        samples = sample_official_ode(field, noise, method=method, num_steps=7, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(samples, expected, rtol=tolerance, atol=tolerance)
        if dtype == F64:
            times = torch.stack(release.network.times)
            torch.testing.assert_close(torch.stack(field.model.times), times, rtol=100 * tolerance, atol=0.0)


def assert_both_fail_beyond_the_data(release, field, noise):
    """sigma = sqrt(1 - alpha^2) of the VP path is not real at t > 1."""
    with pytest.raises(AssertionError, match="underflow"):
        release.ode(noise, "dopri5", 7, 1e-4, 1e-5)
    with pytest.raises(ValueError, match=r"^sample_official_ode: dopri5 finds no step .*t = 1.*underflow"):
        sample_official_ode(field, noise, method="dopri5", rtol=1e-4, atol=1e-5)


def test_ode_defaults_are_those_of_the_release_and_ask_for_times_beyond_the_data():
    noise, release, field = normals(4, 3), Release("linear", "velocity"), field_of("linear")
    samples = sample_official_ode(field, noise)
    assert torch.equal(samples, release.ode(noise, "dopri5", 50, 1e-3, 1e-6))
    assert torch.equal(torch.stack(field.model.times), torch.stack(release.network.times))
    assert max(t.max() for t in field.model.times) > 1.0
    assert samples.untyped_storage().nbytes() == samples.nbytes  # the other states are not kept
    euler = sample_official_ode(field_of("linear"), noise, method="euler")
    assert torch.equal(euler, release.ode(noise, "euler", 50, 1e-3, 1e-6))


def test_the_forms_are_those_of_the_release():
    assert list(FORMS) == ALL_FORMS
    assert official_w("SBDM") == ip.diffusion.kl_optimal(1.0)
    with pytest.raises(ValueError, match=r"official_w: form must be one of constant, SBDM, .*decreasing, got 'sbdm'\."):
        official_w("sbdm")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "Heun"}, r"method must be one of euler, heun, got 'Heun'\.$"),
        ({"last_step": "Mean"}, "last_step must be one of mean, euler, tweedie, None, got 'Mean'"),
        ({"last_step_size": 1.0}, r"last_step_size must be in \[0, 1\), got 1.0"),
        ({"last_step_size": -0.1}, r"last_step_size must be in \[0, 1\), got -0.1"),
        ({"sample_eps": 0.5}, r"sample_eps must be in \[0, 1/2\), or None, got 0.5"),
        ({"sample_eps": -0.1}, r"sample_eps must be in \[0, 1/2\)"),
        (
            {"w": "kl_optimal", "sample_eps": 0.25, "last_step_size": 0.75},
            r"interval must not be empty, nor leave .* got \(0.25, 0.25\)",
        ),
        ({"num_steps": 1}, "num_steps must be an integer of at least 2, got 1"),
        ({"interval": (0.5, 0.5)}, r"interval must not be empty, nor leave \[0, 1\], got \(0.5, 0.5\)"),
        ({"interval": (0.5, 1.5)}, "interval must not be empty, nor leave"),
        (
            {"interval": (0.0, 0.9), "sample_eps": 0.1},
            "interval must be None where sample_eps or last_step_size is given",
        ),
        ({"num_steps": 2.0}, "num_steps must be an integer"),
        ({"num_steps": True}, "num_steps must be an integer"),
        ({"w": official_w("sigma", -1.0)}, r"w: .* must be finite and >= 0"),
        ({"w": "kl_optimal"}, r"got w = kl_optimal\(1\), where they are not at t = 0\. Pass an interval"),
        ({"w": "constant", "last_step_size": 0.0}, r"got w = constant\(1\), where they are not at t = 1"),
        ({"increments": torch.zeros(4, 2, 3)}, r"increments must have shape \(3, 2, 3\), got \(4, 2, 3\)"),
        (
            {"increments": lambda k: torch.zeros(2)},
            r"increments must have the shape of the noise, \(2, 3\), got \(2,\)",
        ),
        ({"increments": torch.zeros(3, 2, 3), "generator": torch.Generator()}, "generator must be None where increm"),
    ],
)
def test_wrong_sde_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_official_sde(field_of("linear"), torch.zeros(2, 3), **{"num_steps": 4, **arguments})


@pytest.mark.parametrize("sampler", [sample_official_sde, sample_official_ode])
def test_what_the_release_has_not_is_refused(sampler):
    noise, network = torch.zeros(2, 3), Network("velocity")
    where = f"^{sampler.__name__}: "
    with pytest.raises(
        ValueError, match=where + r"path must be linear\(\), gvp\(\) or vp\(\), got 'cosine'\. sample_ode"
    ):
        sampler(Field(network, ip.cosine()), noise)
    with pytest.raises(ValueError, match=where + "prediction must be one of velocity, noise, score, got 'data'"):
        sampler(Field(network, ip.linear(), "data"), noise)
    with pytest.raises(ValueError, match=where + "num_steps must be an integer of at least 2, got 1"):
        sampler(field_of("linear"), noise, num_steps=1)
    for bad in (torch.zeros(2), torch.zeros(2, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match=where + r"noise must be floating point of shape \(batch, \.\.\.\)"):
            sampler(field_of("linear"), bad)
    if sampler is sample_official_ode:
        with pytest.raises(ValueError, match=where + "dopri5 finds no step in step 1, at t = 1e-06: underflow"):
            sampler(Field(lambda x, t: torch.full_like(x, math.nan), ip.linear()), noise)
    broken = Field(lambda x, t: x.new_tensor([[0.0], [math.inf]]).expand_as(x), ip.linear())
    with pytest.raises(ValueError, match=where + "1 of 2 samples are not finite"):
        sampler(broken, noise, method="euler")


def test_an_assertion_of_the_network_is_its_own():
    def network(x, t):
        raise AssertionError("of the network")

    with pytest.raises(AssertionError, match=r"^of the network$"):
        sample_official_ode(Field(network, ip.linear()), torch.zeros(2, 3))


def test_an_unknown_ode_method_is_refused_with_the_names_of_torchdiffeq():
    with pytest.raises(ValueError, match=r"dopri6.*dopri5"):
        sample_official_ode(field_of("linear"), torch.zeros(2, 3), method="dopri6")
