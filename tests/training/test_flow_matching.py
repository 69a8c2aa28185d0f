"""With flow_matching: its solver on our Field, its networks in our samplers, its schedulers as paths, and back."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from flow_matching.path import AffineProbPath, CondOTProbPath
from flow_matching.path.scheduler import (
    CondOTScheduler,
    CosineScheduler,
    LinearVPScheduler,
    PolynomialConvexScheduler,
    Scheduler,
    ScheduleTransformedModel,
    VPScheduler,
)
from flow_matching.solver import ODESolver
from flow_matching.utils import ModelWrapper
from pages import names_of
from torch import Tensor

import interpolants as ip
from training import Field, Guidance, InterpolantLoss, log_likelihood, sample_ode

PAGE = names_of("howto/flow-matching.md")
THEIRS: list[tuple[Scheduler, ip.Path]] = [
    (CondOTScheduler(), ip.linear()),
    (PolynomialConvexScheduler(2.5), ip.polynomial(2.5)),
    (CosineScheduler(), ip.gvp()),
    (LinearVPScheduler(), ip.linear_vp()),
    (VPScheduler(0.1, 20.0), ip.vp(0.1, 20.0)),
]
IDS = [type(scheduler).__name__ for scheduler, _ in THEIRS]


class Network(ModelWrapper):
    """Of theirs, with a label by its name: N(label, 0.5^2) on the linear path, whose velocity is known."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Identity())

    def forward(self, x: Tensor, t: Tensor, **extras: Tensor) -> Tensor:
        t = t.to(x.dtype).expand(len(x))[:, None]
        mean = extras["label"].to(x.dtype)[:, None]
        return mean + (0.25 * t - (1 - t)) / (0.25 * t**2 + (1 - t) ** 2) * (x - t * mean)


@pytest.mark.parametrize(("theirs", "path"), THEIRS, ids=IDS)
def test_a_scheduler_of_theirs_is_a_path_and_a_path_is_a_scheduler(theirs: Scheduler, path: ip.Path) -> None:
    ours = PAGE["PathScheduler"](path)
    t = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    expected, found = vars(theirs(t)), vars(ours(t))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)
    ratio = theirs(t).alpha_t / theirs(t).sigma_t
    torch.testing.assert_close(ours.snr_inverse(ratio), t, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(ours.snr_inverse(ratio), theirs.snr_inverse(ratio), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("theirs", "path"), THEIRS, ids=IDS)
def test_their_path_on_our_scheduler_makes_their_states_and_targets(theirs: Scheduler, path: ip.Path) -> None:
    data, noise = torch.randn(2, 6, 3, dtype=torch.float64)
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    expected = AffineProbPath(scheduler=theirs).sample(x_0=noise, x_1=data, t=t)
    found = AffineProbPath(scheduler=PAGE["PathScheduler"](path)).sample(x_0=noise, x_1=data, t=t)
    torch.testing.assert_close(found.x_t, expected.x_t)
    torch.testing.assert_close(found.dx_t, expected.dx_t)
    torch.testing.assert_close(path.interpolate(data, noise, t), expected.x_t)
    torch.testing.assert_close(path.target("velocity", data, noise, t), expected.dx_t)


def test_their_scheduler_is_nan_at_the_data_where_the_derived_one_is_not() -> None:
    """VP, velocity to data: a formula that divides by d_sigma, which is infinite there, against the limit."""
    theirs, path = AffineProbPath(scheduler=VPScheduler()), ip.vp()
    data, noise, t = torch.ones(1, 2), torch.full((1, 2), 0.3), torch.ones(1)
    x_t = path.interpolate(data, noise, t)
    velocity = torch.full_like(x_t, 0.7)  # any: at t = 1 the state is the data
    assert theirs.velocity_to_target(velocity=velocity, x_t=x_t, t=t[:, None]).isnan().all()
    assert torch.equal(path.convert(velocity, x_t, t, source="velocity", target="data"), data)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun3", "rk4"])
def test_their_solver_makes_our_samples_of_a_field(method: str) -> None:
    mixture = ip.oracle.GaussianMixture(
        torch.tensor([[-1.0, 0.5], [1.0, 0.0]]).double(), torch.tensor([0.3, 0.4]).double()
    )
    path = ip.gvp()
    field = Field(lambda x, t: mixture.noise(x, t, path), path, "noise")
    noise = torch.randn(5, 2, dtype=torch.float64)
    grid = torch.linspace(0.002, 1, 17, dtype=torch.float64)  # a predicted noise has a pole at t = 0
    ours = sample_ode(field, noise, method=method, grid=grid)
    start = float(path.sigma(0.002)) * noise
    theirs = ODESolver(velocity_model=field.velocity).sample(
        x_init=start, step_size=None, method=method, time_grid=grid
    )
    torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-6)


def test_labels_and_guidance_go_through_their_solver() -> None:
    network = Network()
    adapted = lambda x, t, y: network(x, t, label=y)  # noqa: E731
    field = Field(adapted, ip.linear(), guidance=Guidance(2.0, y_negative=0))
    noise, y = torch.randn(4, 1, dtype=torch.float64), torch.tensor([1, 2, 3, 0])
    grid = torch.linspace(0, 1, 201, dtype=torch.float64)
    theirs = ODESolver(velocity_model=field.velocity).sample(
        x_init=noise, step_size=None, method="rk4", time_grid=grid, y=y
    )
    # Guided, the velocity is that of the mean 2 y, and its flow is known: mean + 0.5 noise.
    torch.testing.assert_close(theirs, 2.0 * y[:, None] + 0.5 * noise, rtol=1e-6, atol=1e-6)


def test_a_network_of_theirs_is_sampled_and_measured_by_ours() -> None:
    network = Network()
    field = Field(lambda x, t, y: network(x, t, label=y), ip.linear())
    noise, y = torch.randn(6, 1, dtype=torch.float64), torch.tensor([0, 1, 2, 3, -1, 5])
    samples = sample_ode(field, noise, num_steps=100, method="adams_pc3", y=y)
    torch.testing.assert_close(samples, y[:, None] + 0.5 * noise, rtol=1e-4, atol=1e-4)
    expected = -0.5 * (noise[:, 0] ** 2 + math.log(2 * math.pi)) - math.log(0.5)
    found = log_likelihood(field, samples, y=y, probes=None)
    torch.testing.assert_close(found.nats, expected, rtol=1e-3, atol=1e-3)


def test_our_loss_is_theirs_on_the_same_draws() -> None:
    network = torch.nn.Linear(2, 2)
    model = lambda x, t: network(x) * t[:, None]  # noqa: E731
    data, noise, t = torch.randn(7, 2), torch.randn(7, 2), torch.rand(7)
    sample = CondOTProbPath().sample(x_0=noise, x_1=data, t=t)
    expected = (model(sample.x_t, sample.t) - sample.dx_t).square().mean(1)
    found = InterpolantLoss(ip.linear())(model, data, noise=noise, t=t)
    torch.testing.assert_close(found, expected)


def test_a_change_of_path_after_training_is_theirs() -> None:
    """A network of the linear path, sampled on VP: at equal SNR, the state rescaled."""
    mixture = ip.oracle.GaussianMixture(torch.tensor([[-1.0], [1.0]]).double(), torch.tensor([0.3, 0.4]).double())
    trained, sampled = ip.linear(), ip.vp()
    velocity: Any = lambda x, t: mixture.velocity(x, t.expand(len(x)), trained)  # noqa: E731
    theirs = ScheduleTransformedModel(velocity, original_scheduler=CondOTScheduler(), new_scheduler=VPScheduler())
    change = ip.match_snr(trained=trained, sampled=sampled)
    x, t = torch.randn(5, 1, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    tau, scale = change.time(t), change.scale(t)
    data = Field(velocity, trained).data(x / scale, tau)
    ours = sampled.convert(data, x, t, source="data", target="velocity")
    torch.testing.assert_close(ours, theirs(x, t), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours, mixture.velocity(x, t.expand(5), sampled), rtol=1e-6, atol=1e-6)
