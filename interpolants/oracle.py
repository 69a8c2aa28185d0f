r"""Gaussian mixtures: on any path their marginals are mixtures again, so velocity, score and log-density are exact.

For data ~ sum_k pi_k N(mu_k, s_k^2) and x_t = alpha data + sigma noise,

.. math:: p_t = \sum_k \pi_k N(\alpha \mu_k, c_k), \qquad c_k = \alpha^2 s_k^2 + \sigma^2,

and with responsibilities r_k(x) every posterior mean is a sum over k of linear functions of x.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from interpolants.coefficient import Coefficient, at
from interpolants.path import Path
from interpolants.simplify import simplified


class GaussianMixture:
    """A mixture with diagonal covariances, as the law of the data.

    Args:
        means: Shape (K, d).
        stds: Standard deviations, shape (K,) or (K, d), positive.
        weights: Shape (K,), positive; normalised here.

    Raises:
        ValueError: If shapes disagree, or a deviation or weight is not positive.
    """

    def __init__(self, means: Tensor, stds: Tensor, weights: Tensor) -> None:
        if means.dim() != 2:
            raise ValueError(f"means: must have shape (K, d), got {tuple(means.shape)}.")
        if stds.shape not in (means.shape, means.shape[:1]):
            raise ValueError(
                f"stds: must have shape (K,) or (K, d) for means {tuple(means.shape)}, got {tuple(stds.shape)}."
            )
        if weights.shape != means.shape[:1]:
            raise ValueError(f"weights: must have shape (K,) = {tuple(means.shape[:1])}, got {tuple(weights.shape)}.")
        if not (bool((stds > 0).all()) and bool((weights > 0).all())):
            raise ValueError("stds and weights: must be positive.")
        self.means = means
        self.stds = stds if stds.dim() == 2 else stds[:, None].expand_as(means)
        self.weights = weights / weights.sum()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` exact samples of the data, shape (n, d)."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(
            n, self.means.shape[1], dtype=self.means.dtype, device=self.means.device, generator=generator
        )
        return self.means[component] + self.stds[component] * noise

    def log_prob(self, x: Tensor, t: Tensor | float, path: Path) -> Tensor:
        """log p_t(x), in nats, shape (batch,), for x of shape (batch, d)."""
        return torch.logsumexp(self._joint_log_prob(x, t, path), dim=1)

    def score(self, x: Tensor, t: Tensor | float, path: Path) -> Tensor:
        """grad_x log p_t(x), shape (batch, d)."""
        residual, responsibility, _ = self._posterior(x, t, path)
        return -(responsibility * residual).sum(1)

    def data(self, x: Tensor, t: Tensor | float, path: Path) -> Tensor:
        """E[data | x_t = x], shape (batch, d)."""
        residual, responsibility, (alpha, *_) = self._posterior(x, t, path)
        return (responsibility * (self.means + alpha * self.stds**2 * residual)).sum(1)

    def noise(self, x: Tensor, t: Tensor | float, path: Path) -> Tensor:
        """E[noise | x_t = x], shape (batch, d)."""
        residual, responsibility, (_, sigma, *_) = self._posterior(x, t, path)
        return (responsibility * sigma * residual).sum(1)

    def velocity(self, x: Tensor, t: Tensor | float, path: Path) -> Tensor:
        """E[dx_t/dt | x_t = x] = alpha' E[data | x] + sigma' E[noise | x], shape (batch, d).

        sigma' sigma is formed as one function: where sigma is the root of something it is finite, and sigma' is not.
        """
        residual, responsibility, (alpha, _, d_alpha, drift) = self._posterior(x, t, path)
        data = self.means + alpha * self.stds**2 * residual
        return (responsibility * (d_alpha * data + drift * residual)).sum(1)

    def _joint_log_prob(self, x: Tensor, t: Tensor | float, path: Path) -> Tensor:
        alpha, sigma = (c[..., None] for c in at((path.alpha, path.sigma), t, x))
        variance = alpha**2 * self.stds**2 + sigma**2  # (batch or 1, K, d)
        square = (x[:, None, :] - alpha * self.means) ** 2 / variance
        log_normal = -0.5 * (square + torch.log(2 * math.pi * variance)).sum(2)
        return log_normal + torch.log(self.weights)

    def _posterior(self, x: Tensor, t: Tensor | float, path: Path) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """(x - alpha mu_k) / c_k, the responsibilities, and alpha, sigma, alpha', sigma sigma'; over (batch, K, d)."""
        product = Coefficient(simplified(path.sigma.expr * path.d_sigma.expr))
        coefficients = tuple(c[..., None] for c in at((path.alpha, path.sigma, path.d_alpha, product), t, x))
        alpha, sigma = coefficients[:2]
        residual = (x[:, None, :] - alpha * self.means) / (alpha**2 * self.stds**2 + sigma**2)
        responsibility = torch.softmax(self._joint_log_prob(x, t, path), dim=1)[:, :, None]
        return residual, responsibility, coefficients
