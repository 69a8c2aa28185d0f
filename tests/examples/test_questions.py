"""Laws on the line against closed forms of Gaussians and other ways to compute them; the bound; and what is written."""

import copy
import json
import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import erfinv
from scripts import call

import interpolants as ip
from examples.questions import (
    ALL_CLASSES,
    CLASS,
    DATA,
    NAMED,
    NOISES,
    PATH,
    RATIOS,
    SCALES,
    Law,
    Questions,
    best_ratio,
    bound,
    by_flow,
    by_fokker_planck,
    centres,
    exact,
    marginal,
    section,
    squared_error,
    tilted,
)
from interpolants.oracle import GaussianMixture
from training import Field, Guidance, sample_ode

STOP = 0.9999


def gaussian(mean, std):
    return GaussianMixture(torch.tensor([[mean]], dtype=torch.float64), torch.tensor([std], dtype=torch.float64))


def wrong(mixture, offset, slope):
    """A field whose velocity errs by offset + slope x."""
    return Field(lambda x, t: mixture.velocity(x, t, PATH) + offset + slope * x, PATH)


def log_normal(x, mean, variance):
    return -((x - mean) ** 2) / (2 * variance) - np.log(2 * np.pi * variance) / 2


def kl_of_gaussians(m, v, mean, variance):
    """KL(N(m, v) || N(mean, variance))."""
    return (math.log(variance / v) + (v + (m - mean) ** 2) / variance - 1) / 2


# The Fokker-Planck equation


@pytest.mark.parametrize("w", ["sigma", "sin_squared", "decreasing", "0.02 * (1 - t)"])
def test_without_error_every_w_leads_to_the_data(w):
    """Up to the error of the scheme, whose square the divergence is: a quarter or less on a grid twice as fine."""

    def kl(fineness):
        x, times = centres(250 * fineness), np.linspace(0.0, STOP, 60 * fineness + 1)
        (law,) = by_fokker_planck(exact(DATA), [PATH.sde("velocity", w)], marginal(DATA, 0.0, x), times)
        return marginal(DATA, STOP, x).kl(law)

    coarse, fine = kl(1), kl(2)
    assert 0 < fine < 0.4 * coarse
    assert fine < 1e-2


@pytest.mark.parametrize("n", [0.5, 8.0])
def test_of_a_linear_error_the_law_is_the_gaussian_of_two_ordinary_equations(n):
    """drift = v + e + n/2 (t (v + e) - x), the score being (t v - x) / (1 - t), with v of N(mean, std^2) by hand."""
    mean, std, offset, slope = 0.4, 0.6, 0.3, -0.5
    x, data = centres(700), gaussian(mean, std)

    def moments(t, state):
        m, variance = state
        gain = (t * std**2 - (1 - t)) / (t**2 * std**2 + (1 - t) ** 2)  # v = mean + gain (x - t mean)
        linear = (1 + n * t / 2) * (gain + slope) - n / 2
        constant = (1 + n * t / 2) * (mean - gain * t * mean + offset)
        return [linear * m + constant, 2 * linear * variance + n * (1 - t)]

    def solved(steps):
        times = np.linspace(0.0, STOP, steps + 1)
        field, equation = wrong(data, offset, slope), PATH.sde("velocity", f"{n} * (1 - t)")
        (law,) = by_fokker_planck(field, [equation], marginal(data, 0.0, x), times)
        return np.array([*law.moments().values(), marginal(data, STOP, x).kl(law)])

    m, variance = solve_ivp(moments, (0.0, STOP), [0.0, 1.0], rtol=1e-10, atol=1e-12).y[:, -1]
    kl = kl_of_gaussians(STOP * mean, STOP**2 * std**2 + (1 - STOP) ** 2, m, variance)
    assert kl > 0.05
    coarse, fine = solved(150), solved(300)
    np.testing.assert_allclose(2 * fine - coarse, [m, variance, kl], rtol=0.025)  # Euler's error is linear in the steps


def test_several_w_are_solved_as_each_by_itself_and_keep_all_mass():
    x, times = centres(200), np.linspace(0.0, STOP, 41)
    equations = [PATH.sde("velocity", w) for w in ("sigma", "sin_squared", "4 * (1 - t)")]
    field, start = wrong(DATA, 0.2, 0.1), marginal(DATA, 0.0, x)
    together = by_fokker_planck(field, equations, start, times)
    for equation, law in zip(equations, together, strict=True):
        (alone,) = by_fokker_planck(field, [equation], start, times)
        np.testing.assert_allclose(law.log_density, alone.log_density, atol=1e-9)
        assert np.exp(law.log_density).sum() == pytest.approx(np.exp(start.log_density).sum(), rel=1e-12)


def test_with_little_noise_the_sde_has_the_law_of_the_ode():
    x = centres(500)
    field = wrong(CLASS, 0.2, -0.3)
    equation, times = PATH.sde("velocity", "0.01 * (1 - t)"), np.linspace(0.0, STOP, 301)
    (law,) = by_fokker_planck(field, [equation], marginal(CLASS, 0.0, x), times)
    assert marginal(CLASS, 1.0, x).kl(law) > 0.03
    assert by_flow(field, x, 1e-5).kl(law) < 2e-3


def test_by_the_flow_quantiles_of_the_noise_become_those_of_the_samples():
    """The distribution function of the samples at the places where sample_ode leads quantiles of the noise."""
    levels = np.linspace(0.02, 0.98, 25)
    noise = torch.from_numpy(math.sqrt(2) * erfinv(2 * levels - 1))[:, None]
    field, x = exact(CLASS, Guidance(2.0, weak=exact(ALL_CLASSES))), centres(700)
    places = sample_ode(field, noise, method="dopri5", rtol=1e-6, atol=1e-6)[:, 0].numpy()
    density = np.exp(by_flow(field, x, 1e-5).log_density)
    below = np.cumsum((density[1:] + density[:-1]) / 2) * (x[1] - x[0])
    np.testing.assert_allclose(np.interp(places, x[1:], below), levels, atol=1e-3)  # of the trapezoidal rule


# The bound


@pytest.mark.parametrize(
    ("w", "formula"),
    [
        ("3 * (1 - t)", lambda t: 3 * (1 - t)),
        ("sin_squared", lambda t: 2 * mpmath.sin(mpmath.pi * t) ** 2),
        ("kl_optimal", lambda t: 2 * (1 - t) / t),
        ("kl_regularized", lambda t: 2 * ((1 - t) / t) / mpmath.sqrt(1 + 8 * ((1 - t) / t) ** 2)),
    ],
)
def test_the_bound_is_its_integral(w, formula):
    """By mpmath, of L = 0.2 + t^2 and omega = (1 - t) / t."""

    def integrand(t):
        return (1 + formula(t) / (2 * (1 - t) / t)) ** 2 / (2 * formula(t)) * (0.2 + t**2)

    start, stop = 0.01, 0.999
    expected = mpmath.quad(integrand, [start, 0.05, 0.5, 0.95, 0.99, stop])
    assert bound(PATH.sde("velocity", w), lambda t: 0.2 + t**2, start, stop) == pytest.approx(float(expected), rel=1e-6)


def test_no_n_has_a_lesser_bound_than_the_best():
    def error(t):
        return 0.1 + (1 - t) ** 2

    def at(n):
        return bound(PATH.sde("velocity", ip.diffusion.sigma(n / 2)), error, 0.001, 0.999)

    best = best_ratio(error, 0.001, 0.999)
    assert at(best) < min(at(0.98 * best), at(1.02 * best))


def test_the_error_is_its_expectation():
    """E (offset + slope x_t)^2 for data N(mean, std^2)."""
    times = np.array([0.0, 0.3, 1.0])
    found = squared_error(wrong(gaussian(0.5, 0.7), 0.2, 0.4), gaussian(0.5, 0.7), times, centres(1000))
    variance = times**2 * 0.7**2 + (1 - times) ** 2
    np.testing.assert_allclose(found, (0.2 + 0.4 * 0.5 * times) ** 2 + 0.4**2 * variance, rtol=1e-9)


# Guidance


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
def test_of_gaussians_of_one_variance_guidance_samples_the_tilted_density(scale):
    """It is N(scale mean, std^2): both velocities have one slope, and v is linear in the mean."""
    x, of_class, of_all = centres(1000), gaussian(0.7, 0.5), gaussian(0.0, 0.5)
    expected = log_normal(x, scale * 0.7, 0.25)
    near = expected > -50
    np.testing.assert_allclose(tilted(of_class, of_all, scale, x).log_density[near], expected[near], atol=1e-9)
    law = by_flow(exact(of_class, Guidance(scale, weak=exact(of_all))), x, 1e-6)
    np.testing.assert_allclose(law.log_density[near], expected[near], atol=1e-4)


@pytest.mark.parametrize(("scale", "interval"), [(2.0, None), (3.0, None), (3.0, (0.2, 0.8))])
def test_of_gaussians_of_one_mean_it_samples_another_variance_than_the_tilted(scale, interval):
    """The slope of v is d log std_t / dt, so the samples have std_c (r_1 / r_0)^(scale - 1), with r = std_c,t / std_u,t
    at the ends of the interval; the precisions of the tilted density add up.
    """
    x, of_class, of_all = centres(400), gaussian(0.0, 0.5), gaussian(0.0, 0.8)

    def ratio(t):
        return math.sqrt((t**2 * 0.5**2 + (1 - t) ** 2) / (t**2 * 0.8**2 + (1 - t) ** 2))

    low, high = interval or (0.0, 1.0)
    std = 0.5 * (ratio(high) / ratio(low)) ** (scale - 1)
    variance = 1 / (scale / 0.5**2 + (1 - scale) / 0.8**2)
    law = by_flow(exact(of_class, Guidance(scale, weak=exact(of_all), interval=interval)), x, 1e-5)
    assert law.moments() == {"mean": pytest.approx(0.0, abs=1e-4), "variance": pytest.approx(std**2, rel=5e-3)}
    supposed = tilted(of_class, of_all, scale, x)
    assert supposed.moments()["variance"] == pytest.approx(variance, rel=1e-9)
    assert supposed.kl(law) == pytest.approx(kl_of_gaussians(0.0, variance, 0.0, std**2), rel=0.02)


def test_unguided_it_samples_the_class():
    x = centres(400)
    law = by_flow(exact(CLASS, Guidance(1.0, weak=exact(ALL_CLASSES))), x, 1e-7)
    assert 0 <= tilted(CLASS, ALL_CLASSES, 1.0, x).kl(law) < 1e-6
    np.testing.assert_allclose(tilted(CLASS, ALL_CLASSES, 0.0, x).log_density, marginal(ALL_CLASSES, 1.0, x)[1])


def test_moments_of_a_law():
    x = centres(700)
    assert Law(x, log_normal(x, 0.4, 0.3)).moments() == pytest.approx({"mean": 0.4, "variance": 0.3})
    first, second = Law(x, log_normal(x, 0.4, 0.3)), Law(x, log_normal(x, 0.1, 0.5))
    assert first.kl(second) == pytest.approx(kl_of_gaussians(0.4, 0.3, 0.1, 0.5))


# What is written


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    tiny = {"networks": 2, "steps": 60, "batch_size": 64, "width": 8, "cells": 200, "times": 50, "tolerance": 1e-4}
    assert call("questions.py", f"--output={folder}", *(f"--{name}={value}" for name, value in tiny.items())) == 0
    for name in ("w", "guidance"):
        assert (folder / f"questions-{name}.png").stat().st_size > 10_000
    found = json.loads((folder / "questions.json").read_text())
    assert {name: found["settings"][name] for name in tiny} == tiny
    return found


def test_the_bound_holds_for_every_network_and_w(found):
    assert len(found["w"]["networks"]) == 2
    for network in found["w"]["networks"]:
        rows = [*network["family"], *network["named"].values()]
        assert len(rows) == len(RATIOS) + len(NAMED)
        for row in rows:
            assert found["w"]["without_error"] < row["kl"] <= row["bound"]
        # Through three rows of P / n + Q + R n
        some = network["family"][::8]
        P, _, R = np.linalg.solve([[1 / row["n"], 1, row["n"]] for row in some], [row["bound"] for row in some])
        assert network["best_by_bound"] == pytest.approx(math.sqrt(P / R), rel=1e-6)
        # Little noise is almost none
        assert network["family"][0]["kl"] == pytest.approx(network["ode"], rel=0.1)


def test_every_scale_is_answered(found):
    rows = found["guidance"]["scales"]
    assert [row["scale"] for row in rows] == list(SCALES)
    assert abs(rows[0]["laws"]["ODE"]["kl"]) < 1e-4  # of the tolerance
    assert all(row["laws"][f"SDE, n = {n:g}"]["kl"] < rows[-1]["laws"]["ODE"]["kl"] for row in rows for n in NOISES)


def test_the_page_has_the_figures_and_the_numbers(found):
    page = section(found, "images")
    assert "(images/questions-w.png)" in page
    assert "(images/questions-guidance.png)" in page
    assert f"At s = 4 it is {found['guidance']['scales'][-1]['laws']['ODE']['kl']:.3g} by the ODE" in page
    for network in found["w"]["networks"]:
        assert f"{network['ode']:.3f}" in page
    assert max(map(len, page.split("|")[0].splitlines())) <= 120


def test_the_page_says_what_the_numbers_do(found):
    """Whatever they are."""
    planted = copy.deepcopy(found)
    for network in planted["w"]["networks"]:
        network["ode"] = 1e-3
    planted["w"]["networks"][0]["family"][3]["bound"] = 0.0
    for row in planted["guidance"]["scales"]:
        row["laws"]["ODE, interval"]["kl"] = row["laws"]["SDE, n = 8"]["kl"] = 9.0
    before, after = (" ".join(section(each, "images").split()) for each in (found, planted))
    assert "for 42 of 42 pairs" in before
    assert "for 41 of 42 pairs" in after
    assert "less than 0.99 for 0 of 2 networks" in after
    assert "at all t for 4 of 4." in before
    assert "at all t for 0 of 4." in after
    assert "For 0 of 4 scales above 1 each step" in after


@pytest.mark.parametrize("name", ["networks", "cells", "times"])
def test_wrong_settings_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least .*got 0"):
        Questions(**{name: 0})
