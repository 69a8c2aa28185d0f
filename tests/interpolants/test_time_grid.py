"""Time grids, by what they promise: equal steps in their own variable, on any path."""

import math

import numpy as np
import pytest
import scipy.integrate
import sympy as sp
import torch

import interpolants as ip
from interpolants import time_grid

PATHS = [ip.linear(), ip.gvp(), ip.vp(), ip.edm(), ip.cosine()]
ALL = [choice() for choice in time_grid.CHOICES.values()]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
@pytest.mark.parametrize("grid", [*ALL, time_grid.optimized((1.0, 0.05), 2, "data")], ids=lambda g: g.name)
@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.02, 1.0), (0.1, 0.93)])
def test_every_grid_increases_from_end_to_end(path, grid, interval):
    for num_steps in (1, 2, 17):
        times = grid.times(path, num_steps, interval)
        assert times.shape == (num_steps + 1,)
        assert (times[0], times[-1]) == interval
        assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_steps_are_equal_in_the_variable_of_the_grid(path):
    def inner(grid):
        times = grid.times(path, 12)[1:-1]
        return times, path.alpha(times) / path.sigma(times)

    times, _ = inner(time_grid.uniform())
    np.testing.assert_allclose(times, np.arange(1, 12) / 12)
    _, ratio = inner(time_grid.cosine())
    np.testing.assert_allclose(np.arctan(ratio), np.pi / 2 * np.arange(1, 12) / 12, rtol=1e-9)
    _, ratio = inner(time_grid.log_snr(4.0))
    np.testing.assert_allclose(2 * np.log(ratio), np.linspace(-4, 4, 13)[1:-1], atol=1e-9)
    _, ratio = inner(time_grid.edm(3.0, 0.2, 5.0))
    np.testing.assert_allclose(ratio ** (-1 / 3), np.linspace(5 ** (1 / 3), 0.2 ** (1 / 3), 13)[1:-1], rtol=1e-9)


def test_bounds_stop_at_the_path_where_its_own_log_snr_is_nearer():
    path = ip.edm()  # sigma / alpha from 80 to 0.002, with the times of its authors
    np.testing.assert_allclose(time_grid.edm(7.0, 1e-9, 1e9).times(path, 8), np.linspace(0, 1, 9), atol=1e-9)
    np.testing.assert_allclose(time_grid.edm().times(path, 8), np.linspace(0, 1, 9), atol=1e-9)
    low, high = path.log_snr(0.0), path.log_snr(1.0)
    times = time_grid.log_snr(100.0).times(path, 10)
    np.testing.assert_allclose(path.log_snr(times), np.linspace(low, high, 11), atol=1e-8)
    bounded = time_grid.log_snr().times(ip.linear(), 16)
    np.testing.assert_allclose(ip.linear().log_snr(bounded[1:-1]), np.arange(-7, 8), atol=1e-9)


def test_the_default_grids_are_those_of_their_sources():
    """Karras et al. equation 5 at rho = 7, 0.002, 80; Esser et al. t' = 3 t' / (1 + 2 t') with t' the noise's time."""
    times = time_grid.edm().times(ip.linear(), 10)
    sigmas = np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 11)[1:-1] ** 7
    np.testing.assert_allclose((1 - times[1:-1]) / times[1:-1], sigmas, rtol=1e-9)
    noise_time = 1 - np.linspace(0, 1, 11)
    np.testing.assert_allclose(1 - time_grid.shifted().times(ip.linear(), 10), 3 * noise_time / (1 + 2 * noise_time))
    same_snr = torch.from_numpy(ip.shifted(ip.linear(), 5.0).log_snr(np.linspace(0, 1, 5)))
    shifted = time_grid.shifted(5.0).times(ip.linear(), 4)
    np.testing.assert_allclose(shifted, ip.time_at_log_snr(ip.linear(), same_snr), atol=1e-12)


def test_the_angle_at_the_end_is_no_division_by_zero_that_is_reported():
    with np.errstate(all="raise"):
        time_grid.cosine().times(ip.linear(), 3)


def test_an_interval_cuts_and_stretches_the_steps():
    whole = time_grid.cosine().times(ip.linear(), 1000)
    part = time_grid.cosine().times(ip.linear(), 8, (float(whole[200]), float(whole[600])))
    np.testing.assert_allclose(part, whole[200:601:50], atol=1e-6)


# The optimised grid


def velocity_error(times, s, order):
    """The p-th Taylor term of the velocity in each step, carried to t = 1, on the linear path, by autograd."""
    middle = torch.tensor((times[1:] + times[:-1]) / 2, requires_grad=True)
    rho = torch.sqrt(middle**2 * s**2 + (1 - middle) ** 2)
    derivative = rho
    for _ in range(order + 1):
        (derivative,) = torch.autograd.grad(derivative.sum(), middle, create_graph=True)
    return (torch.from_numpy(np.diff(times)) ** (order + 1) * derivative.abs() * s / rho).detach().numpy()


@pytest.mark.parametrize("space", ["velocity", "data"])
@pytest.mark.parametrize(("s", "atol"), [(1e-3, 0.02), (0.1, 1e-3), (0.5, 3e-4), (2.0, 3e-4)])
def test_for_a_solver_of_order_one_the_share_is_an_angle_and_a_tenth_is_even(s, atol, space):
    """On the linear path rho'' = s^2 / rho^3, and the root of s rho'' / rho integrates to atan(s t / (1 - t)). The
    tolerance is half a cell of 4,096, in which the angle changes the more the smaller s is.
    """
    times = time_grid.optimized((s,), 1, space).times(ip.linear(), 40)[1:-1]
    share = 2 / np.pi * np.arctan(s * times / (1 - times))
    np.testing.assert_allclose(0.9 * share + 0.1 * times, np.arange(1, 40) / 40, atol=atol)


def assert_shares(times, places, density, order):
    """The integral of the root of the summed errors from the first place on, at N - 1 times of N equal steps. Of the
    tolerance 1e-3 is what the grid does not see next to t = 1, where at order 4 the root has an integrable pole.
    """
    share = scipy.integrate.cumulative_trapezoid(density ** (1 / (order + 1)), places[0], initial=0.0)
    expected = 0.9 * np.interp(places[1](times), places[0], share / share[-1]) + 0.1 * times
    np.testing.assert_allclose(expected, np.arange(1, len(times) + 1) / (len(times) + 1), atol=2e-3)


@pytest.mark.parametrize(("path", "order"), [(ip.linear(), 2), (ip.linear(), 4), (ip.gvp(), 3)], ids=str)
@pytest.mark.parametrize("stds", [(0.5,), (0.3, 1.5)])
def test_shares_in_the_velocity_are_integrals_of_the_derivative_of_rho(path, order, stds):
    rhos = [sp.sqrt(path.alpha.expr**2 * sp.Rational(str(s)) ** 2 + path.sigma.expr**2) for s in stds]
    error = sum(sp.Abs(sp.diff(rho, ip.t, order + 1)) * s / rho for s, rho in zip(stds, rhos, strict=True))
    fine = np.linspace(0.0, 1.0, 20_001)
    density = sp.lambdify(ip.t, error, "numpy")(fine)
    times = time_grid.optimized(stds, order).times(path, 20)[1:-1]
    assert_shares(times, (fine, lambda time: time), density, order)


@pytest.mark.parametrize("path", [ip.linear(), ip.gvp()], ids=lambda p: p.name)
@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("stds", [(0.5,), (0.3, 1.5)])
def test_shares_in_the_data_are_integrals_in_lambda(path, order, stds):
    """alpha s / rho = z^(1/2), with z = 1 / (1 + exp(-2 x)), x = lambda + log s and dz^a/dx = 2 a (z^a - z^(a+1))."""
    powers = {0.5: 1.0}
    for _ in range(order):
        derivative = dict.fromkeys([*powers, max(powers) + 1], 0.0)
        for a, c in powers.items():
            derivative[a] += 2 * a * c
            derivative[a + 1] -= 2 * a * c
        powers = derivative
    half_log_snr = np.linspace(-100.0, 100.0, 100_001)
    density = 0
    for s in stds:
        z = 1 / (1 + np.exp(-2 * (half_log_snr + np.log(s))))
        density = density + s * np.abs(sum(c * z ** (a + 0.5) for a, c in powers.items()))
    times = time_grid.optimized(stds, order, "data").times(path, 20)[1:-1]
    assert_shares(times, (half_log_snr, lambda time: path.log_snr(time) / 2), density, order)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("s", [0.1, 0.5])
def test_an_optimised_grid_has_the_least_error_of_the_proxy(s, order):
    """Beside every grid of other stds, orders and kinds; and its own error is spread over the steps."""
    path, num_steps = ip.linear(), 400
    best = velocity_error(time_grid.optimized((s,), order).times(path, num_steps), s, order)
    named = [grid for grid in ALL if grid.name != time_grid.optimized().name]
    others = [time_grid.optimized((s * 3,), order), time_grid.optimized((s / 3,), order), *named]
    for other in others:
        assert best.sum() < velocity_error(other.times(path, num_steps), s, order).sum()
    spread = best[best > 0.05 * best.max()]
    assert len(spread) > 0.6 * num_steps


@pytest.mark.parametrize("path", [ip.linear(), ip.vp()], ids=lambda p: p.name)
def test_the_optimised_grid_of_the_data_is_a_grid_of_snrs(path):
    """The data of a Gaussian is a function of lambda + log s alone, and so are the steps but for the even share."""
    s, order = 0.3, 2
    times = time_grid.optimized((s,), order, "data").times(path, 2000)
    x = path.log_snr(times[200:-200]) / 2 + math.log(s)
    y = torch.tensor((x[1:] + x[:-1]) / 2, requires_grad=True)
    share = torch.exp(y) / torch.sqrt(1 + torch.exp(2 * y))
    derivative = share
    for _ in range(order):
        (derivative,) = torch.autograd.grad(derivative.sum(), y, create_graph=True)
    error = (share * derivative.abs()).detach().numpy() * np.diff(x) ** (order + 1)
    inner = np.abs(x[1:]) < 1.0
    relative = error[inner] / np.median(error[inner])
    assert (np.abs(np.log(relative[relative > 0.2])) < 1.2).mean() > 0.9


def test_several_stds_add_their_errors():
    path = ip.linear()
    small, large, both = (time_grid.optimized(stds, 2).times(path, 500) for stds in ((0.02,), (1.0,), (0.02, 1.0)))

    def share(times, low, high):
        return ((times > low) & (times < high)).mean()

    assert share(small, 0.9, 1.0) > share(both, 0.9, 1.0) > share(large, 0.9, 1.0)
    assert share(large, 0.2, 0.8) > share(both, 0.2, 0.8) > share(small, 0.2, 0.8)


def test_all_scales_are_those_of_an_octave_each():
    octaves = (2.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)
    for path in (ip.linear(), ip.vp()):
        wanted = time_grid.optimized(octaves, 2).times(path, 15)
        np.testing.assert_allclose(time_grid.scales().times(path, 15), wanted, atol=1e-12)
    wanted = time_grid.optimized((1.0, 3**-0.5, 1 / 3), 1).times(ip.linear(), 15)
    np.testing.assert_allclose(time_grid.scales(1 / 3, 1.0, 1).times(ip.linear(), 15), wanted, atol=1e-12)


def test_a_density_says_where_the_steps_are():
    """Nine tenths of them: here in the second half, in proportion to t there."""
    grid = time_grid.from_density("late", lambda path, times: np.where(times > 0.5, times, 0.0))
    t = np.linspace(0.0, 1.0, 10001)
    share = 0.1 * t + 0.9 * np.clip(t**2 - 0.25, 0.0, None) / 0.75
    np.testing.assert_allclose(grid.times(ip.linear(), 10), np.interp(np.arange(11) / 10, share, t), atol=1e-3)
    assert grid.name == "late"


# Choices and arguments


def test_a_choice_is_a_grid_a_name_or_times():
    names = ["uniform", "shifted(3)", "log_snr(8)", "edm(7)", "cosine", "optimized(0.5)", "scales(0.03125, 2)"]
    assert [time_grid.choose(name).name for name in time_grid.CHOICES] == names
    assert repr(time_grid.edm(5.0)) == "TimeGrid(name='edm(5)')"
    assert time_grid.optimized((0.5, 2.0)).name == "optimized(0.5, 2)"
    assert time_grid.choose(ALL[0]) is ALL[0]
    for times in ([0.0, 0.3, 1.0], np.array([0.0, 0.3, 1.0]), torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)):
        np.testing.assert_array_equal(time_grid.choose(times), [0.0, 0.3, 1.0])
    for given in ([0.1, 0.5, 0.9], [0, 1], torch.tensor([0.25, 0.5])):
        np.testing.assert_array_equal(time_grid.choose(given), given)
        assert time_grid.choose(given).dtype == np.float64
    given = np.array([0.2, 0.4])
    assert not np.shares_memory(time_grid.choose(given), given)


def test_the_defaults_of_the_optimised_grid_are_order_three_and_the_velocity():
    given = time_grid.optimized((0.5,), 3, "velocity").times(ip.linear(), 10)
    np.testing.assert_array_equal(time_grid.optimized().times(ip.linear(), 10), given)


def test_arguments_below_one_are_as_good_as_others():
    times = time_grid.log_snr(0.5).times(ip.linear(), 4)
    np.testing.assert_allclose(ip.linear().log_snr(times[1:-1]), [-0.25, 0.0, 0.25], atol=1e-12)
    times = time_grid.edm(0.5, 0.25, 0.5).times(ip.linear(), 4)  # equal steps in the square of the ratio
    ratio = (1 - times[1:-1]) / times[1:-1]
    np.testing.assert_allclose(ratio**2, [13 / 64, 5 / 32, 7 / 64], rtol=1e-12)
    times = time_grid.shifted(0.5).times(ip.linear(), 4)  # u / (1/2 + u/2)
    np.testing.assert_allclose(times, [0.0, 0.4, 2 / 3, 6 / 7, 1.0], rtol=1e-14)
    assert time_grid.uniform().times(ip.linear(), np.int64(2), (0.0, 0.5)).tolist() == [0.0, 0.25, 0.5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: time_grid.choose("linear"),
            "grid: must be one of uniform, shifted, log_snr, edm, cosine, optimized, scales",
        ),
        (lambda: time_grid.choose([0.0, 0.0, 1.0]), "grid: must be at least two increasing times"),
        (lambda: time_grid.choose([0.5]), "grid: must be at least two"),
        (lambda: time_grid.choose(time_grid.edm), "grid: must be at least two"),
        (lambda: ip.exponential.steps(ip.linear(), "edm", 2), r"times: .*got 'edm'. time_grid.edm\(\).times\(path"),
        (lambda: time_grid.choose([-0.1, 1.0]), "grid: must be at least two"),
        (lambda: time_grid.choose([0.0, 1.1]), "grid: must be at least two"),
        (lambda: time_grid.choose([0.0, 0.5, 1.1]), "grid: must be at least two"),
        (lambda: time_grid.choose([[0.0, 1.0]]), "grid: must be at least two"),
        (lambda: time_grid.choose([[0.0, 0.4], [0.5, 1.0]]), "grid: must be at least two"),
        (lambda: time_grid.choose(0.5), "grid: must be at least two"),
        (lambda: time_grid.uniform().times(ip.linear(), 0), "num_steps: must be an integer of at least 1, got 0"),
        (lambda: time_grid.uniform().times(ip.linear(), True), "num_steps: must be"),
        (lambda: time_grid.uniform().times(ip.linear(), 1.5), "num_steps: must be"),
        (lambda: time_grid.uniform().times(ip.linear(), 2, (0.5, 0.5)), r"interval must be inside \[0, 1\] and not"),
        (lambda: time_grid.uniform().times(ip.linear(), 2, (0.5, 1.5)), "interval must be inside"),
        (lambda: time_grid.uniform().times(ip.linear(), 2, (-0.5, 0.5)), "interval must be inside"),
        (lambda: time_grid.shifted(0.0), "shifted: shift must be positive and finite, got 0.0"),
        (lambda: time_grid.shifted(math.inf), "shifted: shift must be"),
        (lambda: time_grid.log_snr(0.0), "log_snr: bound must be positive and finite, got 0.0"),
        (lambda: time_grid.log_snr(-1.0), "log_snr: bound must be positive and finite, got -1.0"),
        (lambda: time_grid.log_snr(math.inf), "log_snr: bound must be"),
        (lambda: time_grid.log_snr(600.0).times(ip.linear(), 3000), "3000 steps between 0.0 and 1.0 are not distinct"),
        (lambda: time_grid.edm(0.0), "edm: must have rho > 0 and 0 < ratio_min < ratio_max, got 0.0"),
        (lambda: time_grid.edm(math.inf), "edm: must have rho > 0"),
        (lambda: time_grid.edm(7.0, 2.0, 1.0), "edm: must have"),
        (lambda: time_grid.edm(7.0, 1.0, 1.0), "edm: must have"),
        (lambda: time_grid.edm(7.0, 0.0, 1.0), "edm: must have"),
        (lambda: time_grid.edm(7.0, 1.0, math.inf), "edm: must have"),
        (lambda: time_grid.optimized(()), "optimized: stds must be positive and finite"),
        (lambda: time_grid.optimized((0.0,)), "optimized: stds must be"),
        (lambda: time_grid.optimized((math.inf,)), "optimized: stds must be"),
        (lambda: time_grid.optimized((0.5, -1.0)), "optimized: stds must be"),
        (lambda: time_grid.optimized((1.0,), 5), "optimized: order must be an integer from 1 to 4, got 5"),
        (lambda: time_grid.optimized((1.0,), 0), "optimized: order must be"),
        (lambda: time_grid.optimized((1.0,), 1.5), "optimized: order must be"),
        (lambda: time_grid.scales(0.0), "scales: must have 0 < smallest < largest, got 0.0, 2.0"),
        (lambda: time_grid.scales(2.0), "scales: must have 0 < smallest < largest"),
        (lambda: time_grid.scales(1.0, math.inf), "scales: must have"),
        (lambda: time_grid.scales(0.5, 1.0, 5), "optimized: order must be an integer from 1 to 4, got 5"),
        (lambda: time_grid.optimized((1.0,), 2, "noise"), "optimized: space must be velocity or data, got 'noise'"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
