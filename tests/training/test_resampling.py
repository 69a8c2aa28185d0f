"""Intervals against closed forms, and on populations that are known."""

import numpy as np
import pytest
import torch

from training.metrics import Neighbourhoods, kid
from training.moments import Gaussian, frechet, frechet_distance
from training.resampling import Estimate, Statistic, at_infinity, estimate, jackknife, mean

CPU = torch.device("cpu")


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def covered(intervals, truth):
    return np.mean([found.low <= truth <= found.high for found in intervals])


def test_the_interval_of_a_mean_is_as_wide_as_known():
    """1.96 standard errors to each side; 1,000 replicates are within 10 % of it."""
    x = normal(torch.Generator().manual_seed(0), 500)
    found = estimate(mean(x), replicates=1000)
    assert found.value == pytest.approx(x.mean().item(), rel=1e-12)
    error = 1.96 * x.std().item() / 500**0.5
    assert (found.high - found.value, found.value - found.low) == pytest.approx((error, error), rel=0.1)


def test_rows_are_drawn_as_many_as_there_are():
    seen = []

    def values(counts):
        seen.append(counts)
        return counts.sum(1, keepdim=True)

    estimate(Statistic(30, values, CPU), replicates=50)
    counts = seen[0]
    assert counts.shape == (51, 30)
    assert torch.equal(counts[0], torch.ones(30, dtype=torch.float64))
    assert torch.equal(counts.sum(1), torch.full((51,), 30.0, dtype=torch.float64))
    assert counts[1:].var().item() == pytest.approx(1, abs=0.1)  # of a count that is nearly Poisson


def test_it_depends_on_the_seed_alone():
    statistic = mean(normal(torch.Generator().manual_seed(0), 50))
    assert estimate(statistic, seed=1) == estimate(statistic, seed=1) != estimate(statistic, seed=2)


def test_parts_have_a_spread_and_one_has_none():
    two = Statistic(4, lambda counts: torch.tensor([[1.0, 5.0]]).expand(len(counts), 2), CPU)
    assert estimate(two, replicates=0) == Estimate(3, std=2)
    assert estimate(mean(torch.ones(4)), replicates=0) == Estimate(1)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    """Exactly, with a group for each row, times the quantile of Student's distribution: 2.0930 for 19."""
    x = normal(torch.Generator().manual_seed(0), 20)
    found = jackknife(mean(x))
    half = 2.0930240544 * x.std().item() / 20**0.5
    assert (found.low, found.value, found.high) == pytest.approx(
        (x.mean().item() - half, x.mean().item(), x.mean().item() + half), rel=1e-9
    )


def test_a_bias_that_falls_as_one_over_n_is_gone():
    statistic = Statistic(64, lambda counts: 3 + 5 / counts.sum(1, keepdim=True), CPU)
    found = at_infinity(statistic, Estimate(3 + 5 / 64, 2.9, 3.2))
    assert found.value == pytest.approx(3, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((2.9 - 5 / 64, 3.2 - 5 / 64))
    assert at_infinity(statistic, Estimate(3.0)).low is None


def test_each_row_is_in_one_part_of_each_kind():
    seen = []

    def values(counts):
        seen.append(counts)
        return counts[:, :1]

    at_infinity(Statistic(10, values, CPU), Estimate(0), parts=(1, 2, 4))
    for number, counts in zip((1, 2, 4), seen, strict=True):
        assert counts.shape == (number, 10)
        assert torch.equal(counts.sum(0), torch.ones(10, dtype=torch.float64))
        assert counts.sum(1).max() - counts.sum(1).min() <= 1


def test_the_distance_of_known_gaussians_is_found_in_the_interval_and_without_bias():
    """Samples of N(mu, S), of which the distance to the reference is in closed form; 80 sets of 200.

    The interval of the distance itself is of its mean over sets of 200, which the mean over the 80 stands for. With a
    probability of 0.95, 80 trials give 66 or less once in 10,000 times.
    """
    generator = torch.Generator().manual_seed(0)
    width, count = 6, 200
    mix = torch.eye(width, dtype=torch.float64) + 0.4 * normal(generator, width, width)
    population = Gaussian(torch.full((width,), 0.2, dtype=torch.float64), mix @ mix.T, None)
    reference = Gaussian(torch.zeros(width, dtype=torch.float64), torch.eye(width, dtype=torch.float64), None)
    truth = frechet_distance(population, reference)
    found, infinite = [], []
    for seed in range(80):
        statistic = frechet(normal(generator, count, width) @ mix.T + population.mu, reference)
        found.append(estimate(statistic, replicates=100, seed=seed))
        infinite.append(at_infinity(statistic, found[-1], seed=seed))
    expected = np.mean([each.value for each in found])
    bias, left = expected - truth, np.mean([each.value for each in infinite]) - truth
    error = np.std([each.value for each in infinite]) / 80**0.5
    assert bias > 3 * error
    assert abs(left) < min(3 * error, bias / 2)
    assert covered(found, expected) >= 67 / 80
    assert covered(infinite, truth) >= 67 / 80
    width_of = np.mean([each.high - each.low for each in infinite])
    assert width_of == pytest.approx(2 * 1.96 * np.std([each.value for each in infinite]), rel=0.25)


def test_the_interval_of_kid_holds_the_distance_of_known_populations():
    """With y = 0 given k(x, y) = 1, and of one number x ~ N(1, 1) it is E (x x' + 1)^3 - 1 = 4 + 3 * 4 + 3 = 19.

    E (x x' + 1)^3 = m3^2 + 3 m2^2 + 3 m1^2 + 1 of the moments m1 = 1, m2 = 2, m3 = 4.
    """
    truth = 4**2 + 3 * 2**2 + 3 + 1 - 1
    generator = torch.Generator().manual_seed(0)
    zeros = torch.zeros(2, 1, dtype=torch.float64)
    found = [estimate(kid(1 + normal(generator, 400, 1), zeros), replicates=200, seed=seed) for seed in range(80)]
    assert np.mean([each.value for each in found]) == pytest.approx(truth, rel=0.05)
    assert covered(found, truth) >= 67 / 80


def test_the_intervals_of_neighbours_are_no_narrower_than_the_figures_vary():
    generator = torch.Generator().manual_seed(0)
    real = normal(generator, 300, 4)
    found = {"precision": [], "density": [], "recall": [], "coverage": []}
    for seed in range(30):
        each = Neighbourhoods(0.7 * normal(generator, 150, 4), real)
        precision, density = each.precision_and_density()
        found["precision"].append(estimate(precision, replicates=100, seed=seed))
        found["density"].append(estimate(density, replicates=100, seed=seed))
        found["recall"].append(jackknife(each.recall(), seed=seed))
        found["coverage"].append(jackknife(each.coverage(), seed=seed))
    for name, estimates in found.items():
        spread = np.std([each.value for each in estimates], ddof=1)
        half = np.mean([each.high - each.low for each in estimates]) / 2 / 1.96
        assert 0.75 * spread < half < 2 * spread, name
