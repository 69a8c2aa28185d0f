"""Solvers that do not arrive say where they are; gradients through a solve, against the closed form of a linear ODE."""

import math

import pytest
import torch
from torch import nn

import interpolants as ip
from training import Field, log_likelihood, sample_ode
from training.odeint import ADAPTIVE_METHODS, MAX_CALLS
from training.samplers import ODE_METHODS, encode

STEPS = 4


def steep(rate=1e5):
    """dx/dt = rate cos(rate t), in which an adaptive method has to follow every wave."""
    return Field(lambda x, t: rate * torch.cos(rate * t)[:, None].expand_as(x), ip.linear())


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("method", [*ADAPTIVE_METHODS, "scipy_solver"])
def test_a_method_that_does_not_arrive_is_given_up_with_its_time(method):
    calls = []
    field = steep()
    counted = Field(lambda x, t: calls.append(0) or field.model(x, t), ip.linear())
    with pytest.raises(ValueError, match=rf"{method} must arrive with at most max_calls = 300 .* at t = [\d.e-]+"):
        sample_ode(counted, noise(2, 3), method=method, rtol=1e-9, atol=1e-9, max_calls=300)
    assert len(calls) == 300
    with pytest.raises(ValueError, match="max_calls: must be at least 1, got 0"):
        sample_ode(field, noise(2, 3), method=method, max_calls=0)


@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_samples_by_themselves_are_given_up_too(method):
    with pytest.raises(ValueError, match=rf"{method} must arrive with at most .* 2 samples are in step"):
        sample_ode(steep(), noise(2, 3), method=method, rtol=1e-9, atol=1e-9, max_calls=300, per_sample=True)


def test_encoding_and_likelihood_are_given_up_too():
    with pytest.raises(ValueError, match="dopri5 must arrive with at most max_calls = 300"):
        encode(steep(), noise(2, 3), rtol=1e-9, max_calls=300)
    waves = Field(lambda x, t: torch.sin(1e4 * x), ip.linear())
    with pytest.raises(ValueError, match="log_likelihood: dopri5 must arrive with at most max_calls = 300"):
        log_likelihood(waves, noise(2, 3), max_calls=300)
    assert MAX_CALLS == 10_000


@pytest.mark.parametrize("method", ["bosh3", "fehlberg2", "adaptive_heun"])
def test_a_velocity_that_blows_up_is_told_with_step_and_time(method):
    """dx/dt = 50 x^3 from x = 1 is at infinity at t = 0.01."""
    field = Field(lambda x, t: 50 * x**3, ip.linear())
    with pytest.raises(ValueError, match=rf"sampling: {method} finds no step in step \d+, at t = 0\.01\d*: underflow"):
        sample_ode(field, torch.ones(1, 1), method=method)


def test_a_solver_of_scipy_that_stops_early_is_told():
    """It returns the times that it reached, and no more."""
    field = Field(lambda x, t: 50 * x**3, ip.linear())
    with pytest.raises(ValueError, match=r"scipy_solver (stopped|must arrive).*at t = 0\.0|finite numbers"):
        sample_ode(field, torch.ones(1, 1), method="scipy_solver")


# Gradients


class Rate(nn.Module):
    """The velocity k x: x(1) = x(0) e^k."""

    def __init__(self):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, x, t):
        return self.k * x


@pytest.mark.parametrize("gradient", ["steps", "adjoint"])
@pytest.mark.parametrize("method", ["dopri5", "rk4", "dopri8", "heun3", "explicit_adams"])
def test_gradients_reach_the_noise_and_the_network(method, gradient):
    model, start = Rate(), noise(3, 2).requires_grad_()
    field = Field(model, ip.linear())
    with torch.no_grad():  # of the caller, who asks for a gradient here
        samples = sample_ode(field, start, method=method, num_steps=40, rtol=1e-9, atol=1e-9, gradient=gradient)
    samples.sum().backward()
    growth = math.exp(0.7)
    torch.testing.assert_close(samples, start * growth, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(start.grad, torch.full_like(start, growth), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(model.k.grad, start.detach().sum() * growth, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", [m for m in ODE_METHODS if m != "scipy_solver"])
def test_gradients_through_steps_are_those_of_finite_differences(method):
    path, start = ip.gvp(), noise(2, 3)

    def sample(x, gradient=None):
        field = Field(lambda state, t: torch.sin(state) * (1 + t[:, None]), path)
        return sample_ode(field, x, method=method, num_steps=STEPS, rtol=1e-7, atol=1e-7, gradient=gradient)

    x, direction = start.clone().requires_grad_(), noise(3, 2).T
    (gradient,) = torch.autograd.grad((sample(x, "steps") * direction).sum(), x)
    h = 1e-5
    difference = ((sample(start + h * direction) - sample(start - h * direction)) * direction).sum() / (2 * h)
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-5, atol=1e-7)
    assert not sample(x).requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient": "yes"}, "gradient: must be None or one of steps, adjoint, got 'yes'"),
        ({"gradient": "steps", "per_sample": True, "method": "dopri5"}, "gradient: must be None with per_sample"),
        ({"gradient": "adjoint", "method": "scipy_solver"}, "gradient: must be None .* for scipy_solver"),
        ({"gradient": "adjoint", "method": "ddim"}, "gradient: must be 'steps' for the method ddim, got 'adjoint'"),
    ],
)
def test_gradients_that_cannot_be_had_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sample_ode(Field(Rate(), ip.linear()), noise(1, 2), **options)
