"""Mean and covariance of features, one batch at a time, and the Frechet distance between two pairs of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.progress import side_progress
from training.resampling import Statistic


@dataclass(frozen=True)
class Gaussian:
    """The two moments that a Frechet distance compares.

    Attributes:
        mu: Mean, float64, shape (d,).
        sigma: Covariance, unbiased, float64, shape (d, d).
        count: Of the samples that they are of; None where nobody says.
    """

    mu: Tensor
    sigma: Tensor
    count: int | None

    @classmethod
    def of(cls, features: Tensor) -> Gaussian:
        """Those of features, shape (N, ...), flattened to vectors.

        Raises:
            ValueError: If there are fewer than 2, or one is not finite.
        """
        statistics = FeatureStatistics(features.flatten(1).shape[1], features.device)
        statistics.update(features.flatten(1))
        return statistics.gaussian()

    def to(self, device: torch.device | str) -> Gaussian:
        """The same on another device."""
        return Gaussian(self.mu.to(device), self.sigma.to(device), self.count)


class FeatureStatistics:
    r"""Mean and covariance of features that come in batches, in memory that does not grow with their number.

    .. math:: S_{ab} = S_a + S_b + \frac{n_a n_b}{n_a + n_b} \, \delta \delta^T, \quad \delta = \mu_b - \mu_a

    with S = sum (x - mu)(x - mu)^T. Source: Chan, Golub & LeVeque (1979). All is in float64.

    Args:
        width: Of the features.
        device: Where to keep them.

    Attributes:
        count: Of the features so far.
        mean: Of them, shape (width,).
        scatter: S, shape (width, width).
    """

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(width, width, dtype=torch.float64, device=device)

    def update(self, features: Tensor) -> None:
        """Add a batch, shape (n, width).

        Raises:
            ValueError: If the width is another, or a feature is not finite.
        """
        width = len(self.mean)
        if features.ndim != 2 or features.shape[1] != width:
            raise ValueError(
                f"FeatureStatistics.update: features must have shape (n, {width}), got {tuple(features.shape)}."
            )
        if not bool(torch.isfinite(features).all()):
            raise ValueError("FeatureStatistics.update: features must be finite, got NaN or infinity.")
        features = features.detach().to(self.mean)
        mean = features.mean(0)
        self._join(len(features), mean, (features - mean).T @ (features - mean))

    def merge(self, other: FeatureStatistics) -> None:
        """Add those of another, such as of another process."""
        self._join(other.count, other.mean.to(self.mean), other.scatter.to(self.scatter))

    def gaussian(self) -> Gaussian:
        """Mean and covariance.

        Raises:
            ValueError: If there are fewer than 2 features.
        """
        if self.count < 2:
            raise ValueError(f"FeatureStatistics.gaussian: there must be at least 2 features, got {self.count}.")
        return Gaussian(self.mean, self.scatter / (self.count - 1), self.count)

    def _join(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if not count:
            return
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.scatter = self.scatter + scatter + torch.outer(delta, delta) * (self.count * count / total)
        self.count = total


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    r"""Squared Frechet (2-Wasserstein) distance of two Gaussians:

    .. math:: \|\mu_a - \mu_b\|^2 + \mathrm{tr} \left( S_a + S_b - 2 (S_a^{1/2} S_b S_a^{1/2})^{1/2} \right)

    With S = R^T R the last trace is the sum of the singular values of R_a R_b^T, where no small eigenvalue is lost to
    rounding before its root is taken: two equal ones are at 0, also where features are constant or dependent.

    Returns:
        In squared units of the features, computed in float64.

    Raises:
        ValueError: If the widths differ.

    Source: Dowson & Landau (1982); Heusel et al. (2017), arXiv:1706.08500.
    """
    _require_equal_widths(len(a.mu), len(b.mu))
    cross = torch.linalg.svdvals(_root(a.sigma) @ _root(b.sigma).T).sum()
    return float((a.mu - b.mu).square().sum() + a.sigma.trace() + b.sigma.trace() - 2 * cross)


def frechet(features: Tensor, reference: Gaussian) -> Statistic:
    """The Frechet distance of features, shape (N, d), from a reference, on the device of the features.

    Each of the counts takes a product of N d^2 and the eigenvalues of a matrix of d x d.

    Raises:
        ValueError: If the widths differ.
    """
    _require_equal_widths(features.shape[1], len(reference.mu))
    reference = reference.to(features.device)
    x = features.detach().double() - reference.mu
    z = x @ _root(reference.sigma).T
    z -= z.mean(0)  # its covariance is R S R^T, whose eigenvalues are those under the root of the distance
    lengths = x.square().sum(1)

    def one(counts: Tensor) -> Tensor:
        rows, n = counts > 0, counts.sum()
        p = counts[rows] / n
        mu, mean = p @ x[rows], p @ z[rows]
        unbiased = n / (n - 1)
        covariance = ((z[rows] * p[:, None]).T @ z[rows] - torch.outer(mean, mean)) * unbiased
        spread = (p @ lengths[rows] - mu @ mu) * unbiased + reference.sigma.trace()
        cross = torch.linalg.eigvalsh(covariance).clamp(min=0).sqrt().sum()
        distance: Tensor = mu @ mu + spread - 2 * cross
        return distance

    def values(counts: Tensor) -> Tensor:
        each = side_progress(counts, desc="Frechet distances", unit="set")
        return torch.stack([one(of_one) for of_one in each])[:, None]

    return Statistic(len(x), values, x.device)


def _require_equal_widths(first: int, second: int) -> None:
    if first != second:
        raise ValueError(f"frechet_distance: widths must be equal, got {first} and {second}.")


def _root(sigma: Tensor) -> Tensor:
    """R with R^T R = sigma, shape (d, d)."""
    values, vectors = torch.linalg.eigh(sigma)
    root: Tensor = (values.clamp(min=0).sqrt() * vectors).T  # rounding makes zeros negative
    return root
