import itertools

import numpy as np
import pytest
import torch

from training.data import digits
from training.evaluation import DigitsClassifier, class_gaussians, nearest_distances


@pytest.fixture(scope="module")
def classifier():
    return DigitsClassifier(*digits("train"))


def features(seed: int, count: int, width: int) -> torch.Tensor:
    """Correlated, off centre."""
    generator = torch.Generator().manual_seed(seed)
    mix, shift = (torch.randn(n, width, generator=generator, dtype=torch.float64) for n in (width, 1))
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mix + shift


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
