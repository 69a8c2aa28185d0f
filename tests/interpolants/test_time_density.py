"""Densities of time, against quadrature, scipy.stats and by hand."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import sympy as sp
import torch
from gaussian import tensor

import interpolants as ip
from interpolants import t, time_density
from interpolants.expression import parse
from interpolants.time_density import TimeDensity

LINE, GVP, VP = ip.linear(), ip.gvp(), ip.vp()
EDM = ip.Path("1", "80*(1-t)+0.002", name="edm")  # the log-SNR is finite at both ends
SHORT = ip.Path("t+1/10", "11/10-t", name="short")

DENSITIES = [
    time_density.uniform(),
    time_density.uniform(0.2, 0.7),
    time_density.logit_normal(),
    time_density.logit_normal(0.5, 0.7),
    time_density.mode(),
    time_density.mode(-0.6),
    time_density.cos_map(),
    *(time_density.cosh(path) for path in (LINE, GVP, VP, EDM, SHORT)),
    *(time_density.log_normal_sigma(path) for path in (LINE, GVP, VP, EDM)),
    time_density.log_normal_sigma(SHORT, 0.4, 2.0),
    time_density.logit_normal().truncated(0.1, 0.4),
    time_density.mode().truncated(0.3, 1.0),
    time_density.cosh(VP).truncated(0.0, 0.9).truncated(0.2, 1.0),
    time_density.proportional_to(lambda s: s**2 * (1 - s), (0.1, 0.8)),
]
each_density = pytest.mark.parametrize("density", DENSITIES, ids=lambda d: f"{d.name}{d.support}")


def value(function, time):
    return function(tensor(time)).item()


def integral(function, low, high):
    """By 12-point Gauss-Legendre on 500 panels, in s = sqrt(t - low) and sqrt(high - t): no 1/sqrt pole."""
    nodes, node_weights = np.polynomial.legendre.leggauss(12)
    edges = np.linspace(0.0, math.sqrt((high - low) / 2), 501)
    half = np.diff(edges)[:, None] / 2
    s = torch.from_numpy(edges[:-1, None] + half * (nodes + 1))
    both = function(low + s**2) + function(high - s**2)
    return float((both * 2 * s * torch.from_numpy(half * node_weights)).sum())


@each_density
def test_densities_are_normalised_and_the_cdf_is_their_integral(density):
    low, high = density.support
    coarse = {"rel": 1e-5 if density.name == "tabulated" else 1e-8}
    assert integral(density, low, high) == pytest.approx(1.0, **coarse)
    middle = low + 0.37 * (high - low)
    expected = integral(density, middle, low + 0.81 * (high - low))
    got = value(density.cdf, low + 0.81 * (high - low)) - value(density.cdf, middle)
    assert got == pytest.approx(expected, **coarse)
    assert density.cdf(tensor(0.0, low, high, 1.0)).tolist() == [0.0, 0.0, 1.0, 1.0]


@each_density
def test_the_quantile_is_the_inverse_of_the_cdf(density):
    u = torch.linspace(0.01, 0.99, 33, dtype=torch.float64)
    times = density.quantile(u)
    assert (times.diff() > 0).all()
    torch.testing.assert_close(density.cdf(times), u, rtol=0, atol=1e-11)
    ends = density.quantile(tensor(0.0, 1.0))
    torch.testing.assert_close(ends, tensor(*density.support), rtol=0, atol=1e-12)


@each_density
def test_samples_follow_the_density(density):
    """Kolmogorov-Smirnov against the integral of p(t) by the trapezoidal rule, which shares nothing with the cdf."""
    low, high = density.support
    grid = low + (high - low) * (1 - np.cos(np.linspace(0, np.pi, 20_001))) / 2
    p = density(torch.from_numpy(grid)).numpy()
    p = np.where(np.isfinite(p), p, 0.0)
    below = scipy.integrate.cumulative_trapezoid(p, grid, initial=0.0)
    samples = density.sample(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert low <= samples.min()
    assert samples.max() <= high
    distance, p_value = scipy.stats.kstest(samples.numpy(), lambda s: np.interp(s, grid, below))
    assert p_value > 0.01, distance


@each_density
def test_an_expression_is_what_is_evaluated_and_nothing_lies_outside_the_support(density):
    low, high = density.support
    for time in (low + 0.1 * (high - low), low + 0.7 * (high - low)):
        if density.expr is not None:
            assert value(density, time) == pytest.approx(float(density.expr.subs(t, time)), rel=1e-10)
    if low > 0:
        assert value(density, low / 2) == 0.0
    if high < 1:
        assert value(density, (1 + high) / 2) == 0.0
    assert density(torch.tensor([[0.5]])).dtype == density.quantile(torch.tensor([[0.5]])).dtype == torch.float32
    assert density.cdf(torch.tensor([[0.5]])).shape == (1, 1)
    assert density.cdf(torch.tensor([[0.5]])).dtype == torch.float32


def test_logit_normal_is_scipys():
    law = scipy.stats.norm(0.5, 0.7)
    density = time_density.logit_normal(0.5, 0.7)
    for time in (1e-3, 0.2, 0.5, 0.9):
        logit = math.log(time / (1 - time))
        assert value(density, time) == pytest.approx(law.pdf(logit) / (time * (1 - time)), rel=1e-12)
        assert value(density.cdf, time) == pytest.approx(law.cdf(logit), rel=1e-12)
    assert density(tensor(0.0, 1.0)).tolist() == [0.0, 0.0]
    standard = time_density.logit_normal()
    assert value(standard, 0.2) == pytest.approx(scipy.stats.norm.pdf(math.log(0.25)) / 0.16, rel=1e-12)


@pytest.mark.parametrize("path", [LINE, GVP, VP, EDM], ids=lambda p: p.name)
def test_log_normal_sigma_is_scipys_over_the_noise_levels_of_the_path(path):
    s = lambda time: path.sigma(time) / path.alpha(time)  # noqa: E731
    largest = 1e300 if path in (LINE, GVP) else s(0.0)
    law = scipy.stats.lognorm(s=1.2, scale=math.exp(-1.2))
    mass = law.cdf(largest) - law.cdf(s(1.0) if path == EDM else 0.0)
    density = time_density.log_normal_sigma(path)
    for time in (0.1, 0.5, 0.9):
        slope = (s(time - 1e-6) - s(time + 1e-6)) / 2e-6
        assert value(density, time) == pytest.approx(law.pdf(s(time)) * slope / mass, rel=1e-7)
        assert value(density.cdf, time) == pytest.approx((law.cdf(largest) - law.cdf(s(time))) / mass, rel=1e-9)


def test_cosh_is_the_law_of_the_cosine_schedule():
    assert time_density.cosh(GVP).expr == 1  # the schedule itself: uniform times
    assert sp.simplify(time_density.cosh(LINE).expr - time_density.cos_map().expr) == 0
    assert sp.simplify(time_density.cos_map().expr - 2 / (sp.pi - 2 * sp.pi * t + 2 * sp.pi * t**2)) == 0
    torch.testing.assert_close(time_density.cos_map()(tensor(0.0, 1.0)), tensor(2 / math.pi, 2 / math.pi))
    # The map of the source: t = 1 - 1 / (tan(pi u / 2) + 1).
    u = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    torch.testing.assert_close(time_density.cos_map().quantile(u), 1 - 1 / (torch.tan(torch.pi * u / 2) + 1))
    for path in (LINE, VP, SHORT):
        start, stop = path.log_snr(0.0), path.log_snr(1.0)
        mass = scipy.integrate.quad(lambda x: 1 / (2 * math.pi * math.cosh(x / 2)), max(start, -80), min(stop, 80))[0]
        slope = (path.log_snr(0.3 + 1e-6) - path.log_snr(0.3 - 1e-6)) / 2e-6
        expected = slope / (2 * math.pi * math.cosh(path.log_snr(0.3) / 2)) / mass
        assert value(time_density.cosh(path), 0.3) == pytest.approx(expected, rel=1e-7)


def test_mode_is_the_map_of_its_source_in_our_time():
    u = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
    for scale in (1.29, -0.9, 0.0):
        theirs = 1 - u - scale * (torch.cos(torch.pi * u / 2) ** 2 - 1 + u)  # data at 0
        torch.testing.assert_close(time_density.mode(scale).quantile(u), 1 - theirs)
        assert value(time_density.mode(scale), 0.5) == pytest.approx(1 / (1 + scale * (1 - math.pi / 2)))
    torch.testing.assert_close(time_density.mode().quantile(u), time_density.mode(1.29).quantile(u), rtol=0, atol=0)


def test_densities_in_log_snr_are_those_they_came_from():
    log_snr = math.log((0.3 / 0.7) ** 2)
    for density, expected in (
        (time_density.cosh(LINE), 1 / (2 * math.pi * math.cosh(log_snr / 2))),
        (time_density.log_normal_sigma(LINE), scipy.stats.norm.pdf(log_snr, 2.4, 2.4)),
        (time_density.uniform(), 0.3 * 0.7 / 2),  # d log_snr/dt = 2 / (t (1 - t))
    ):
        assert float(density.in_log_snr(LINE).subs(t, 0.3)) == pytest.approx(expected, rel=1e-12)
    assert float(time_density.sech().expr.subs(time_density.log_snr, 3.0)) == pytest.approx(
        1 / (2 * math.pi * math.cosh(1.5))
    )
    assert float(time_density.normal(1.0, 2.0).expr.subs(time_density.log_snr, 3.0)) == pytest.approx(
        scipy.stats.norm.pdf(3.0, 1.0, 2.0)
    )


@pytest.mark.parametrize("density", [d for d in DENSITIES if d.expr is not None], ids=lambda d: f"{d.name}{d.support}")
def test_the_derivative_of_the_cdf_by_autograd_is_the_density(density):
    low, high = density.support
    time = (low + (high - low) * tensor(0.2, 0.5, 0.9)).requires_grad_()
    (slope,) = torch.autograd.grad(density.cdf(time).sum(), time)
    torch.testing.assert_close(density(time).detach(), slope, rtol=1e-10, atol=1e-14)


def test_a_law_of_ones_own_is_written_in_the_real_symbol_log_snr():
    """Student's with two degrees of freedom, of F(x) = 1/2 + x / (2 sqrt(x^2 + 2)); x and 1/2 -> 0/0 at infinity."""
    assert time_density.log_snr == sp.Symbol("log_snr", real=True)
    x, student = time_density.log_snr, scipy.stats.t(2)
    law = time_density.LogSNRDensity(
        "student", sp.Rational(1, 2) + x / (2 * sp.sqrt(x**2 + 2)), lambda u: (2 * u - 1) / torch.sqrt(2 * u * (1 - u))
    )
    times, u = tensor(0.01, 0.4, 0.8), torch.linspace(0.0, 1.0, 7, dtype=torch.float64)
    for path, lowest in ((GVP, -math.inf), (SHORT, -2 * math.log(11))):
        density, log_snr = law.on(path), path.log_snr(times)
        mass = student.cdf(-lowest) - student.cdf(lowest)
        slope = (path.log_snr(times + 1e-6) - path.log_snr(times - 1e-6)) / 2e-6
        expected = torch.from_numpy(student.pdf(log_snr)) * slope / mass
        torch.testing.assert_close(density(times), expected, rtol=1e-6, atol=0)
        below = torch.from_numpy(student.cdf(log_snr) - student.cdf(lowest)) / mass
        torch.testing.assert_close(density.cdf(times), below, rtol=1e-12, atol=0)
        torch.testing.assert_close(density.cdf(density.quantile(u)), u, rtol=0, atol=1e-14)


def test_a_law_is_taken_if_the_path_has_more_than_a_millionth_of_it():
    """Cauchy's law of a scale by which [-2 log(11), 2 log(11)], what SHORT has, holds the probability asked for."""

    def cauchy(probability):
        scale = 2 * sp.log(11) / sp.tan(sp.pi * probability / 2)
        return time_density.LogSNRDensity(
            "cauchy",
            sp.Rational(1, 2) + sp.atan(time_density.log_snr / scale) / sp.pi,
            lambda u: float(scale) * torch.tan(torch.pi * (u - 0.5)),
        )

    slope = 2 / (0.4 * 0.8) * 1.2  # of log((t + 0.1)^2 / (1.1 - t)^2) at t = 0.3
    density = cauchy(sp.Rational(5, 4) / 10**6).on(SHORT)  # of a constant p(log_snr), but for 1e-12
    assert value(density, 0.3) == pytest.approx(slope / (4 * math.log(11)), rel=1e-9)
    with pytest.raises(ValueError, match=r"^cauchy: .* with a probability above 1e-06, got 1e-06\."):
        cauchy(sp.Rational(1, 10**6)).on(SHORT)


def test_every_density_has_the_name_of_what_made_it():
    for density, name in [
        (time_density.sech().on(GVP), "sech"),
        (time_density.normal(-0.5, 2).on(GVP), "normal(-0.5, 2)"),
        (time_density.logit_normal(0.5, 0.7), "logit_normal(0.5, 0.7)"),
        (time_density.mode(), "mode(1.29)"),
        (time_density.cos_map(), "cos_map"),
        (time_density.cosh(GVP), "cosh"),
        (time_density.log_normal_sigma(GVP), "log_normal_sigma(-1.2, 1.2)"),
        (time_density.uniform(), "uniform(0, 1)"),
    ]:
        assert repr(density) == f"TimeDensity({name} on [0, 1])"


def test_a_density_on_a_path_follows_the_density_of_its_log_snr():
    samples = time_density.normal(1.0, 2.0).on(GVP).sample(4000, generator=torch.Generator().manual_seed(1))
    log_snr = GVP.log_snr(samples.double()).numpy()
    assert scipy.stats.kstest(log_snr, scipy.stats.norm(1.0, 2.0).cdf).pvalue > 0.01


def test_truncation_is_the_conditional_law():
    whole, part = time_density.logit_normal(), time_density.logit_normal().truncated(0.1, 0.4)
    mass = value(whole.cdf, 0.4) - value(whole.cdf, 0.1)
    assert part.support == (0.1, 0.4)
    for time in (0.1, 0.25, 0.4):
        assert value(part, time) == pytest.approx(value(whole, time) / mass, rel=1e-13)
    assert part.truncated(0.0, 0.3).support == (0.1, 0.3)
    assert part.truncated(0.2, 1.0).support == (0.2, 0.4)
    assert time_density.mode().truncated(0.1, 0.4).expr is None
    assert repr(part) == "TimeDensity(logit_normal(0, 1) on [0.1, 0.4])"


def test_a_probability_is_in_0_1_whatever_is_lost_in_rounding():
    """As a cdf found in float32 may be a little off next to the ends."""
    inexact = TimeDensity("inexact", sp.Integer(1), lambda s: 1.00001 * s - 0.000005, lambda u: u)
    assert inexact.cdf(tensor(1e-7, 0.5, 1 - 1e-7)).tolist() == [0.0, 0.5, 1.0]


def test_samples_have_the_shape_dtype_and_generator_asked_for():
    density = time_density.logit_normal()
    samples = [density.sample((2, 3), generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert samples[0].shape == (2, 3)
    assert samples[0].dtype == torch.float32
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])
    assert density.sample(5, dtype=torch.float64).dtype == torch.float64
    torch.manual_seed(3)
    first, u = density.sample(4, dtype=torch.float64), None
    torch.manual_seed(3)
    u = torch.rand(4, dtype=torch.float64)
    assert torch.equal(first, density.quantile(u))
    assert density.sample(5, device="meta").device.type == "meta"


WEIGHTED = [
    (ip.Coefficient(t**2), time_density.uniform()),
    (ip.Coefficient(1 / sp.sqrt(1 - t)), time_density.uniform()),  # an integrable pole
    (ip.Coefficient(1 + sp.cos(sp.pi * t) ** 2), time_density.mode()),
    (ip.Coefficient(1 / t), time_density.logit_normal().truncated(0.1, 0.9)),
    (ip.Coefficient(1 / t), time_density.logit_normal()),
]


@pytest.mark.parametrize(("weight", "density"), WEIGHTED, ids=str)
def test_importance_sampling_keeps_the_expected_loss(weight, density):
    """By quadrature, for the optimal density, a closed one and a loss that is any function of time."""
    low, high = density.support
    expected = integral(lambda s: weight(s) * density(s) * (2 + torch.sin(7 * s)), low, high)
    for proposal in (time_density.optimal(weight, density), time_density.uniform(low, high), time_density.cos_map()):
        q, importance = time_density.importance_sampled(weight, density, proposal)
        assert q is proposal
        # Gauss-Legendre on the cells of a tabulated density: it is smooth within each, and steps between them.
        nodes, node_weights = np.polynomial.legendre.leggauss(12)
        edges = np.linspace(low, high, 4097)
        times = torch.from_numpy(edges[:-1, None] + (nodes + 1) / 2 * np.diff(edges)[:, None])
        values = (q(times) * importance(times) * (2 + torch.sin(7 * times))).numpy()
        assert (values @ node_weights * np.diff(edges) / 2).sum() == pytest.approx(expected, rel=1e-3)
        mean_over_samples = q.quantile((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000)
        estimate = (importance(mean_over_samples) * (2 + torch.sin(7 * mean_over_samples))).mean().item()
        assert estimate == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(("weight", "density"), WEIGHTED, ids=str)
def test_the_optimal_density_is_proportional_to_weight_times_density(weight, density):
    low, high = density.support
    total = integral(lambda s: weight(s) * density(s), low, high)
    q, importance = time_density.importance_sampled(weight, density, time_density.optimal(weight, density))
    assert q.name == f"optimal for {density.name}"
    assert q.support == density.support
    for time in (0.15, 0.5, 0.85):
        assert value(q, time) == pytest.approx(weight(time) * value(density, time) / total, rel=5e-3)
        assert value(importance, time) == pytest.approx(total, rel=5e-3)  # constant: no variance is left
    assert importance(torch.tensor([0.5])).dtype == torch.float32


def test_a_time_rounded_out_of_the_support_has_the_importance_of_its_end():
    p, q = time_density.uniform(0.1, 0.3), time_density.uniform(0.1, 0.6)
    importance = time_density.importance_sampled(lambda s: 2 * s, p, q)[1]
    assert importance(tensor(0.1 - 1e-9, 0.2, 0.4)).tolist() == pytest.approx([0.2 * 2.5, 0.4 * 2.5, 0.0])


def test_tabulated_densities_are_constant_in_a_cell_and_exact_in_the_mass():
    density = time_density.proportional_to(lambda s: 3 * s**2)
    assert (density.name, density.support) == ("tabulated", (0.0, 1.0))
    edges = torch.arange(4097, dtype=torch.float64) / 4096
    torch.testing.assert_close(density.cdf(edges), edges**3, rtol=0, atol=1e-13)
    assert value(density, 10.2 / 4096) == value(density, 10.8 / 4096) == pytest.approx((11**3 - 10**3) / 4096**2)
    assert value(density.cdf, 10.25 / 4096) == pytest.approx((10**3 + 0.25 * (11**3 - 10**3)) / 4096**3)


def test_a_tabulated_density_may_be_zero_on_any_part():
    """On the middle of [1/4, 3/4]: no quantile lies where it is 0, those of 0 and 1 included."""
    u = tensor(0.0, 0.1, 0.5, 0.9, 1.0)
    late = time_density.proportional_to(lambda s: torch.where(s < 0.5, 0.0, 1.0))
    torch.testing.assert_close(late.quantile(u), 0.5 + u / 2, rtol=0, atol=1e-12)
    early = time_density.proportional_to(lambda s: torch.where(s < 0.5, 1.0, 0.0))
    torch.testing.assert_close(early.quantile(u), u / 2, rtol=0, atol=1e-12)
    split = time_density.proportional_to(lambda s: torch.where((s - 0.5).abs() < 0.25, 0.0, 1.0))
    times = tensor(0.0, 0.05, 0.75, 0.95, 1.0)
    torch.testing.assert_close(split.quantile(u), times, rtol=0, atol=1e-12)
    for density in (late, early, split):
        torch.testing.assert_close(density.cdf(density.quantile(u)), u, rtol=0, atol=1e-12)
    # A sum over the cells that rounds to less than 1 leaves nothing for those after the last of any mass.
    growing = time_density.proportional_to(lambda s: torch.where(s < 0.5, 1 + s**4, 0.0))
    assert growing.quantile(tensor(1 - 2.0**-53, 1.0)).tolist() == pytest.approx([0.5, 0.5], rel=1e-12)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_a_tabulated_density_does_not_depend_on_a_constant_factor(factor):
    density = time_density.proportional_to(lambda s: factor * (s + 0.5))
    assert value(density, 0.25 + 0.5 / 4096) == pytest.approx(0.75 + 0.5 / 4096, rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: time_density.uniform(0.5, 0.5),
            r"^uniform: low and high must have 0 <= low < high <= 1, got \(0.5, 0.5",
        ),
        (lambda: time_density.uniform(-0.1, 0.5), r"got \(-0.1, 0.5\)"),
        (lambda: time_density.uniform(0.5, 1.1), r"got \(0.5, 1.1\)"),
        (lambda: time_density.logit_normal(0.0, 0.0), "^logit_normal: std must be positive, got 0.0"),
        (lambda: time_density.log_normal_sigma(LINE, 0.0, -1.0), "^log_normal_sigma: std must be positive, got -1.0"),
        (lambda: time_density.normal(0.0, 0.0), "^normal: std must be positive, got 0.0"),
        (lambda: time_density.mode(1.76), r"^mode: scale must be in .* = \(-1, 1.7519\), got 1.76"),
        (lambda: time_density.mode(-1.0), r"^mode: scale must be in .*got -1.0"),
        (
            lambda: time_density.cosh(LINE.in_paper_time()),
            "^cosh: path must have data at t = 1, got 'linear, paper time'",
        ),
        (
            lambda: time_density.normal(200.0, 1.0).on(SHORT),
            r"^normal\(200, 1\): must have a log-SNR .* 'short'.* got 0",
        ),
        (lambda: time_density.mode().in_log_snr(LINE), r"^in_log_snr: the density must have .*got mode\(1.29\)"),
        (
            lambda: time_density.uniform(0, 0.5).truncated(0.5, 1.0),
            r"^truncated: .*\(0, 0.5\) of uniform.*got \(0.5, 0.5\)",
        ),
        (lambda: time_density.uniform().truncated(0.6, 0.5), r"^truncated: .*got \(0.6, 0.5\)"),
        (lambda: time_density.uniform().truncated(0.5, 0.5), r"^truncated: .*got \(0.5, 0.5\)"),
        (lambda: time_density.uniform(0.0, 0.5).truncated(0.6, 0.8), r"^truncated: .*got \(0.6, 0.5\)"),
        (
            lambda: time_density.proportional_to(lambda s: torch.where(s < 0.5, 0.0, 1.0)).truncated(0.1, 0.4),
            r"^truncated: .*got \(0.1, 0.4\)",
        ),
        (
            lambda: time_density.importance_sampled(torch.ones_like, DENSITIES[0], DENSITIES[1]),
            r"^importance_sampled: the support of proposal .* \(0.0, 1.0\), got \(0.2, 0.7\)",
        ),
        (
            lambda: time_density.importance_sampled(
                torch.ones_like, time_density.uniform(0.2, 0.8), time_density.uniform(0.3, 1.0)
            ),
            r"^importance_sampled: .*got \(0.3, 1.0\)",
        ),
        (
            lambda: time_density.importance_sampled(
                torch.ones_like, time_density.uniform(0.2, 0.8), time_density.uniform(0.2, 0.7)
            ),
            r"^importance_sampled: .*got \(0.2, 0.7\)",
        ),
        (
            lambda: time_density.proportional_to(lambda s: s - 0.1, name="it"),
            r"^proportional_to: it must be finite, >= 0",
        ),
        (lambda: time_density.proportional_to(torch.zeros_like), r"tabulated must be .*inside \(0.0, 1.0\)"),
        (lambda: time_density.proportional_to(lambda s: s / 0), "must be finite"),
        (
            lambda: time_density.optimal(ip.Coefficient(1 / t), DENSITIES[0]),
            "^optimal: weight .*finite integral.* t = 0",
        ),
        (
            lambda: time_density.optimal(ip.Coefficient(1 / (1 - t)), time_density.mode()),
            r"finite integral, got 1/\(1 - t\) at t = 1\.",
        ),
    ],
)
def test_what_is_no_density_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("weight", ["1-2*exp(-1e9*(t-0.4567)**2)", "1/(t-3/11)"])
def test_a_weight_that_is_negative_in_a_narrow_place_of_the_support_has_no_density(weight):
    weight = ip.Coefficient(parse(weight))
    with pytest.raises(ValueError, match=r"^optimal: weight = .* must be finite and >= 0 on \(0, 9/10\); at t = "):
        time_density.optimal(weight, time_density.uniform(0.0, 0.9))
    time_density.optimal(weight, time_density.uniform(0.5, 1.0))


def test_the_integral_of_a_weight_need_be_finite_only_in_the_support():
    assert time_density.optimal(ip.Coefficient(1 / t), time_density.uniform(0.1, 1.0)).support == (0.1, 1.0)
    assert isinstance(time_density.optimal(ip.Coefficient(1 / (1 - t)), time_density.uniform(0.0, 0.9)), TimeDensity)
