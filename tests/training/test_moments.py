"""Moments against numpy, distances against scipy's root, torchmetrics and closed forms."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.image.fid import _compute_fid

from training.data import digits
from training.moments import FeatureStatistics, Gaussian, frechet, frechet_distance
from training.resampling import estimate


def features(seed: int, count: int, width: int) -> torch.Tensor:
    """Correlated, off centre."""
    generator = torch.Generator().manual_seed(seed)
    mix, shift = (torch.randn(n, width, generator=generator, dtype=torch.float64) for n in (width, 1))
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mix + shift


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return frechet_distance(Gaussian.of(a), Gaussian.of(b))


# Moments


@given(cuts=st.lists(st.integers(1, 29), max_size=5), offset=st.sampled_from([0.0, 1e6]), split=st.integers(0, 30))
def test_in_any_batches_and_on_any_ranks_they_are_those_of_numpy(cuts, offset, split):
    """At an offset of 1e6 sums of squares would lose the variance to rounding."""
    x = features(0, 30, 4) + offset
    ranks = FeatureStatistics(4), FeatureStatistics(4)
    for statistics, part in zip(ranks, (x[:split], x[split:]), strict=True):
        for batch in np.split(part, sorted(cut for cut in cuts if cut < len(part))):
            statistics.update(torch.as_tensor(batch))
    ranks[0].merge(ranks[1])
    found = ranks[0].gaussian()
    assert found.count == 30
    np.testing.assert_allclose(found.mu, x.numpy().mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.sigma, np.cov(x.numpy(), rowvar=False), rtol=1e-8, atol=1e-10)


def test_float32_is_added_up_in_float64():
    x = features(0, 1000, 3).float()
    found = Gaussian.of(x)
    assert found.sigma.dtype == torch.float64
    np.testing.assert_allclose(found.sigma, np.cov(x.double().numpy(), rowvar=False), rtol=1e-12)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(3, 5), r"features must have shape \(n, 4\), got \(3, 5\)"),
        (torch.zeros(4), r"features must have shape \(n, 4\), got \(4,\)"),
        (torch.full((3, 4), torch.nan), "features must be finite"),
    ],
)
def test_what_has_no_moments_is_refused(batch, message):
    statistics = FeatureStatistics(4)
    with pytest.raises(ValueError, match=f"FeatureStatistics.update: {message}"):
        statistics.update(batch)
    statistics.update(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="there must be at least 2 features, got 1"):
        statistics.gaussian()


# The distance


def by_sqrtm(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook formula, with scipy's root of a general matrix."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root).real)


@given(seed=st.integers(0, 1000), width=st.integers(2, 12), extra=st.integers(1, 30), scale=st.floats(0.1, 10))
def test_it_is_the_textbook_formula_and_that_of_torchmetrics(seed, width, extra, scale):
    a, b = features(seed, width + extra + 5, width), scale * features(seed + 1, width + 2 * extra + 5, width)
    found = distance(a, b)
    assert found == pytest.approx(by_sqrtm(a.numpy(), b.numpy()), rel=1e-6, abs=1e-6)
    assert found == pytest.approx(float(_compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())), rel=1e-6, abs=1e-6)


@given(means=st.lists(st.floats(-5, 5), min_size=2, max_size=2), stds=st.lists(st.floats(0, 5), min_size=6, max_size=6))
def test_on_diagonal_covariances_it_is_in_closed_form(means, stds):
    """Points +-s e_i sqrt(n-1)/sqrt(2) along each axis have exactly the covariance diag(s^2).

    A covariance knows a standard deviation to 1e-8 of the largest, the root of what it is rounded to.
    """

    def points(mean, std):
        axes = torch.diag(torch.tensor(std, dtype=torch.float64)) * (5 / 2) ** 0.5
        return torch.cat([axes, -axes]) + mean

    a, b = points(means[0], stds[:3]), points(means[1], stds[3:])
    expected = 3 * (means[0] - means[1]) ** 2 + sum((s - r) ** 2 for s, r in zip(stds[:3], stds[3:], strict=True))
    assert distance(a, b) == pytest.approx(expected, rel=1e-10, abs=2e-6)


def test_equal_sets_are_at_zero_even_with_constant_and_dependent_features():
    images = digits("train")[0]  # Some pixels of the digits are always blank.
    twice = torch.cat([images.flatten(1), images.flatten(1)], dim=1)
    assert distance(images, images) == pytest.approx(0, abs=1e-10)
    assert distance(twice, twice.flip(0)) == pytest.approx(0, abs=1e-10)


def test_it_is_symmetric_and_moves_with_both_sets():
    a, b = features(0, 40, 6), features(1, 30, 6)
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-12)
    assert distance(3 * a + 2, 3 * b + 2) == pytest.approx(9 * distance(a, b), rel=1e-12)


@pytest.mark.parametrize("of", [frechet_distance, lambda a, b: frechet(torch.zeros(3, 4), b)])
def test_features_of_other_widths_have_no_distance(of):
    with pytest.raises(ValueError, match="frechet_distance: widths must be equal, got 4 and 5"):
        of(Gaussian.of(torch.zeros(3, 4)), Gaussian.of(torch.zeros(3, 5)))


# As a statistic


@given(seed=st.integers(0, 1000))
def test_a_row_that_counts_thrice_is_as_if_it_were_there_three_times(seed):
    a, reference = features(seed, 40, 5), Gaussian.of(features(seed + 1, 30, 5))
    counts = torch.from_numpy(np.random.default_rng(seed).integers(0, 4, (3, 40)))
    found = frechet(a, reference).values(counts.double())
    repeated = [frechet_distance(Gaussian.of(a.repeat_interleave(each, 0)), reference) for each in counts]
    assert found[:, 0].tolist() == pytest.approx(repeated, rel=1e-8)


def test_the_estimate_is_the_distance():
    a, reference = features(0, 50, 6), Gaussian.of(features(1, 30, 6))
    found = estimate(frechet(a, reference), replicates=0)
    assert found.value == pytest.approx(frechet_distance(Gaussian.of(a), reference), rel=1e-10)
    assert found.low is found.high is None
