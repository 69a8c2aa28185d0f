"""Coefficients on arrays of jax, compiled, differentiated and mapped, against closed forms; and a sampler in jax."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import interpolants as ip

jax = pytest.importorskip("jax")
jnp = jax.numpy

TIMES = np.linspace(0.05, 0.95, 19)
GVP = np.pi / 2
# Each by hand: the function and its derivative.
CLOSED: dict[str, tuple[ip.Coefficient, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "gvp, alpha": (ip.gvp().alpha, lambda t: np.sin(GVP * t), lambda t: GVP * np.cos(GVP * t)),
    "linear, log SNR": (ip.linear().log_snr, lambda t: 2 * np.log(t / (1 - t)), lambda t: 2 / t + 2 / (1 - t)),
    "linear, score of velocity: b": (
        ip.linear().conversion("velocity", "score")[1],
        lambda t: t / (1 - t),
        lambda t: 1 / (1 - t) ** 2,
    ),
    "gvp, data of velocity: b": (
        ip.gvp().conversion("velocity", "data")[1],
        lambda t: np.cos(GVP * t) / GVP,
        lambda t: -np.sin(GVP * t),
    ),
    "linear, ODE of the noise: a": (ip.linear().ode("noise").a, lambda t: 1 / t, lambda t: -1 / t**2),
    "linear, SDE of the velocity, w = 1 - t: a": (
        ip.linear().sde("velocity", w="1-t").a,  # v + (1 - t)/2 score, score = (t v - x) / (1 - t)
        lambda t: -0.5 + 0 * t,
        lambda t: 0 * t,
    ),
    "linear, SDE of the velocity, w = 1 - t: b": (
        ip.linear().sde("velocity", w="1-t").b,
        lambda t: 1 + t / 2,
        lambda t: 0.5 + 0 * t,
    ),
    "vp, alpha": (
        ip.vp(0.1, 20.0).alpha,
        lambda t: np.exp(-19.9 * (1 - t) ** 2 / 4 - 0.05 * (1 - t)),
        lambda t: (19.9 * (1 - t) / 2 + 0.05) * np.exp(-19.9 * (1 - t) ** 2 / 4 - 0.05 * (1 - t)),
    ),
}


@pytest.fixture(params=[False, True], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[Any]:
    with jax.enable_x64(request.param):
        yield jnp.float64 if request.param else jnp.float32


@pytest.mark.parametrize("name", CLOSED)
def test_a_coefficient_and_its_derivative_are_the_closed_forms(name: str, dtype: Any) -> None:
    coefficient, value, slope = CLOSED[name]
    t = jnp.asarray(TIMES, dtype=dtype)
    tolerance = {"rtol": 1e-13, "atol": 1e-13} if dtype == jnp.float64 else {"rtol": 2e-5, "atol": 2e-5}
    for found in (coefficient(t), jax.jit(jax.vmap(coefficient))(t)):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, value(TIMES), **tolerance)
    found = jax.jit(jax.vmap(jax.grad(coefficient)))(t)
    np.testing.assert_allclose(found, slope(TIMES), **tolerance)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_at_the_ends_it_is_the_limit_and_at_a_pole_infinite(compiled: bool, dtype: Any) -> None:
    wrap = jax.jit if compiled else lambda function: function
    ends = jnp.asarray([0.0, 1.0], dtype=dtype)
    a, b = ip.vp().conversion("velocity", "data")
    np.testing.assert_allclose(wrap(a)(ends)[1], 1.0, rtol=1e-6)  # sigma' is infinite there
    np.testing.assert_allclose(wrap(b)(ends)[1], 0.0, atol=1e-6)
    score_of_noise = ip.linear().conversion("noise", "score")[1]
    assert wrap(score_of_noise)(ends).tolist() == [-1.0, -np.inf]
    assert wrap(ip.linear().log_snr)(ends).tolist() == [-np.inf, np.inf]


def test_a_gradient_with_respect_to_the_time_goes_through_the_state() -> None:
    """d/dt of alpha data + sigma noise is the velocity."""
    path = ip.vp()
    with jax.enable_x64(True):
        data, noise, t = jnp.asarray([1.0, -2.0]), jnp.asarray([0.3, 0.7]), jnp.asarray(0.4)
        velocity = jax.jacfwd(lambda t: path.alpha(t) * data + path.sigma(t) * noise)(t)
        np.testing.assert_allclose(velocity, path.d_alpha(t) * data + path.d_sigma(t) * noise, rtol=1e-12)


def test_a_compiled_loop_with_derived_steps_reaches_the_law_of_its_data() -> None:
    """On Gaussian data, whose flow is known, steps of two predictions converge with order 2."""
    path, s, mean = ip.fm_ot(0.1), 0.5, 2.0  # a finite log-SNR at the data, where the order is met
    with jax.enable_x64(True):
        noise = jnp.asarray(np.random.default_rng(0).normal(size=(50, 3)))
        # E[data | x_t] of N(mean, s^2), by hand.
        data = lambda x, t: (  # noqa: E731
            (mean * path.sigma(t) ** 2 + s**2 * path.alpha(t) * x) / (path.sigma(t) ** 2 + s**2 * path.alpha(t) ** 2)
        )

        @jax.jit
        def sampled(noise: Any, carry: Any, weights: Any, times: Any) -> Any:
            def step(state: Any, row: Any) -> Any:
                x, before = state
                carry, weight, t = row
                prediction = data(x, t)
                return (carry * x + weight[0] * prediction + weight[1] * before, prediction), None

            (x, _), _ = jax.lax.scan(step, (noise, jnp.zeros_like(noise)), (carry, weights, times))
            return x

        errors = []
        for num_steps in (32, 64):
            times = np.linspace(0.0, 1.0, num_steps + 1)
            table = ip.exponential.steps(path, times, 2, variable="t")
            x = sampled(noise, table.carry, table.weights, times[:-1])
            errors.append(float(jnp.abs(x - (mean + np.hypot(s, 0.1) * noise)).max()))
        assert errors[1] < 1e-2
        assert np.log2(errors[0] / errors[1]) > 1.8
