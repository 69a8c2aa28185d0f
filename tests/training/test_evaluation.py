import itertools

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.data import digits
from training.evaluation import DigitsClassifier, class_gaussians, frechet_distance, nearest_distances


@pytest.fixture(scope="module")
def classifier():
    return DigitsClassifier(*digits("train"))


def features(seed: int, count: int, width: int) -> torch.Tensor:
    """Correlated, off centre."""
    generator = torch.Generator().manual_seed(seed)
    mix, shift = (torch.randn(n, width, generator=generator, dtype=torch.float64) for n in (width, 1))
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mix + shift


def by_sqrtm(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook formula, with scipy's root of a general matrix."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root).real)


@given(seed=st.integers(0, 1000), width=st.integers(2, 12), extra=st.integers(1, 30), scale=st.floats(0.1, 10))
def test_it_is_the_textbook_formula(seed, width, extra, scale):
    a, b = features(seed, width + extra + 5, width), scale * features(seed + 1, width + 2 * extra + 5, width)
    assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a.numpy(), b.numpy()), rel=1e-6, abs=1e-6)


@given(means=st.lists(st.floats(-5, 5), min_size=2, max_size=2), stds=st.lists(st.floats(0, 5), min_size=6, max_size=6))
def test_on_diagonal_covariances_it_is_in_closed_form(means, stds):
    """Points +-s e_i sqrt(n-1)/sqrt(2) along each axis have exactly the covariance diag(s^2)."""

    def points(mean, std):
        axes = torch.diag(torch.tensor(std, dtype=torch.float64)) * (5 / 2) ** 0.5
        return torch.cat([axes, -axes]) + mean

    a, b = points(means[0], stds[:3]), points(means[1], stds[3:])
    expected = 3 * (means[0] - means[1]) ** 2 + sum((s - r) ** 2 for s, r in zip(stds[:3], stds[3:], strict=True))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_equal_sets_are_at_zero_even_with_constant_and_dependent_features():
    images = digits("train")[0]  # Some pixels of the digits are always blank.
    twice = torch.cat([images.flatten(1), images.flatten(1)], dim=1)
    assert frechet_distance(images, images) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(twice, twice.flip(0)) == pytest.approx(0, abs=1e-10)


def test_it_is_symmetric_and_moves_with_both_sets():
    a, b = features(0, 40, 6), features(1, 30, 6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)
    assert frechet_distance(3 * a + 2, 3 * b + 2) == pytest.approx(9 * frechet_distance(a, b), rel=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 5), "widths must be equal, got 4 and 5"),
        (torch.zeros(1, 4), torch.zeros(3, 4), r"a must have at least 2 samples, got shape \(1, 4\)"),
        (torch.zeros(3, 4), torch.zeros(4), r"b must have at least 2 samples, got shape \(4,\)"),
        (torch.zeros(3, 4), torch.full((3, 4), torch.nan), "b must be finite"),
    ],
)
def test_what_has_no_distance_is_refused(a, b, message):
    with pytest.raises(ValueError, match=f"frechet_distance: {message}"):
        frechet_distance(a, b)


def test_the_nearest_is_found():
    generator = torch.Generator().manual_seed(0)
    samples, reference = (torch.randn(n, 1, 3, 3, generator=generator) for n in (5, 7))
    expected = [min(np.linalg.norm((s.double() - r.double()).numpy()) for r in reference) for s in samples]
    assert nearest_distances(samples, reference).tolist() == pytest.approx(expected, rel=1e-12)
    assert nearest_distances(reference[2:4], reference).tolist() == [0, 0]


def test_the_classifier_knows_digits_that_it_has_not_seen(classifier):
    images, labels = digits("heldout")
    assert classifier.agreement(images, labels) >= 0.97
    assert classifier.agreement(images, (labels + 1) % 10) < 0.03
    assert classifier.predict(images).dtype == torch.int64
    assert classifier.agreement(images, labels) == (classifier.predict(images) == labels).sum().item() / len(labels)


def test_its_features_decide_its_answer(classifier):
    """Of the classes 0-9 the one that wins most of the 45 pairs, counted by hand, is the answer."""
    images = digits("heldout")[0]
    margins = classifier.features(images)
    assert margins.shape == (len(images), 45)
    votes = torch.zeros(len(images), 10)
    for margin, (first, second) in zip(margins.T, itertools.combinations(range(10), 2), strict=True):
        votes[:, first] += margin > 0
        votes[:, second] += margin <= 0
    clear = votes.max(1).values == 9
    assert clear.float().mean() > 0.9
    assert torch.equal(votes.argmax(1)[clear], classifier.predict(images)[clear])


def test_class_gaussians_have_the_mean_and_covariance_of_their_class():
    images = features(0, 60, 4)
    labels = torch.arange(60) % 2
    count = 40_000
    samples = class_gaussians(images, labels, torch.arange(2 * count) % 2, seed=0)
    for label in (0, 1):
        drawn, of_class = samples[label::2], images[labels == label]
        scale = of_class.std(0).max()
        assert (drawn.mean(0) - of_class.mean(0)).abs().max() < 5 * scale / count**0.5
        assert (drawn.T.cov() - of_class.T.cov()).abs().max() < 5 * 2**0.5 * scale**2 / count**0.5


def test_class_gaussians_follow_what_is_asked_and_the_seed():
    images, labels = digits("train")
    asked = torch.tensor([3, 3, 7])
    samples = class_gaussians(images, labels, asked, seed=1)
    assert samples.shape == (3, 1, 8, 8)
    assert torch.equal(samples, class_gaussians(images, labels, asked, seed=1))
    assert not torch.equal(samples, class_gaussians(images, labels, asked, seed=2))
    with pytest.raises(ValueError, match="class 11 must have at least 2 images, got 0"):
        class_gaussians(images, labels, torch.tensor([11]), seed=0)
