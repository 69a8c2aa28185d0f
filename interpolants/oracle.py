r"""Gaussian mixtures: on any path their marginals are mixtures again, so all that a network estimates is known exactly.

For data ~ sum_k pi_k N(mu_k, C_k) and x_t = alpha data + sigma noise,

.. math:: p_t = \sum_k \pi_k N(\alpha \mu_k, S_k), \qquad S_k = \alpha^2 C_k + \sigma^2 I.

With the residuals R_k = S_k^{-1} (x - alpha mu_k) and the responsibilities r_k = P(component k | x_t = x),

.. math::
    E[\mathrm{data} | x] = \sum_k r_k (\mu_k + \alpha C_k R_k), \quad
    E[\mathrm{noise} | x] = \sigma \sum_k r_k R_k, \quad
    \nabla \log p_t = -\sum_k r_k R_k, \quad
    v = \sum_k r_k (\alpha' \mu_k + (\alpha \alpha' C_k + \sigma \sigma') R_k).

The eigenvectors of C_k are those of S_k at every t: each C_k is diagonalised once, and S_k is inverted by divisions.
The products alpha alpha' and sigma sigma' are halves of derivatives of squares: finite where alpha or sigma is a root
and its derivative infinite. Everything is computed in float64 (float32 where the device has none), with one rounding to
the dtype of the mixture at the end. Memory is a few tensors of shape (batch, K, d).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import sympy as sp
import torch
from torch import Tensor

from interpolants.coefficient import Coefficient, at, precise_dtype
from interpolants.expression import t as time
from interpolants.path import Path
from interpolants.pieces import each
from interpolants.simplify import simplified
from interpolants.two_sided import TwoSided


class GaussianMixture:
    r"""The law sum_k pi_k N(mu_k, C_k) of the data.

    Args:
        means: mu_k, shape (K, d).
        stds: Standard deviations of diagonal C_k, shape (K,) or (K, d), positive.
        weights: pi_k, shape (K,), positive; normalised here. Equal where not given.
        covariances: C_k, shape (K, d, d), symmetric positive definite; instead of ``stds``.

    Attributes:
        means, weights: As given, weights normalised.
        stds: Standard deviations along the principal axes, shape (K, d).
        basis: The principal axes as columns, shape (K, d, d); None where they are those of the coordinates.

    All tensors have one dtype, which is that of the states x and of all results. In the methods x has shape (batch, d)
    and t is a scalar or has shape (batch,).

    Raises:
        TypeError: If the tensors are not floating point, or not of one dtype; in the methods if x is of another.
        ValueError: If shapes disagree, a number is not finite, or a weight, deviation or covariance is not positive
            (definite): the message names the component. A covariance whose least eigenvalue is within the rounding of
            its largest is not definite.
    """

    def __init__(
        self,
        means: Tensor,
        stds: Tensor | None = None,
        weights: Tensor | None = None,
        *,
        covariances: Tensor | None = None,
    ) -> None:
        if (stds is None) == (covariances is None):
            got = "neither" if stds is None else "both"
            raise ValueError(f"GaussianMixture: stds or covariances must be given, and not both, got {got}.")
        given = {"means": means, "stds": stds, "weights": weights, "covariances": covariances}
        for name, values in given.items():
            if values is not None and not isinstance(values, Tensor):
                kind = type(values).__name__
                raise TypeError(f"GaussianMixture: {name} must be a tensor, got {kind}. torch.tensor({name}) is one.")
        _check_means(means)
        (K, d), wide = means.shape, precise_dtype(means.device)
        weights = means.new_ones(K) if weights is None else weights
        _check_like(means, "weights", weights, "(K,)", (K,))
        _check_positive("weights", weights)
        basis = None
        if stds is not None:
            _check_like(means, "stds", stds, "(K,) or (K, d)", (K,), (K, d))
            _check_positive("stds", stds)
            stds = stds if stds.dim() == 2 else stds[:, None].expand_as(means)
            variances = stds.to(wide) ** 2
            _check_positive("squares of stds", variances)
        else:
            assert covariances is not None
            _check_like(means, "covariances", covariances, "(K, d, d)", (K, d, d))
            _check_finite("covariances", covariances)
            _check_symmetric(covariances)
            variances, basis = torch.linalg.eigh(covariances.to(wide))
            _check_definite(variances, covariances)
            stds = variances.sqrt().to(means.dtype)
        self.means, self.stds, self.weights = means, stds, weights / weights.sum()
        self.basis = None if basis is None else basis.to(means.dtype)
        self._means, self._variances, self._basis = means.to(wide), variances, basis
        self._weights = weights.to(wide) / weights.to(wide).sum()

    def log_prob(self, x: Tensor, t: Tensor | float, path: Path) -> Tensor:
        """log p_t(x), in nats, shape (batch,)."""
        return torch.logsumexp(self._given(x, t, path).log_joint, dim=1).to(x.dtype)

    def score(self, x: Tensor, t: Tensor | float, path: Path) -> Tensor:
        """grad_x log p_t(x), shape (batch, d)."""
        return -self._given(x, t, path).mean_residual.to(x.dtype)

    def data(self, x: Tensor, t: Tensor | float, path: Path) -> Tensor:
        """E[data | x_t = x], shape (batch, d)."""
        given = self._given(x, t, path)
        return given.mean(self._data_means(given)).to(x.dtype)

    def noise(self, x: Tensor, t: Tensor | float, path: Path) -> Tensor:
        """E[noise | x_t = x], shape (batch, d)."""
        given = self._given(x, t, path)
        return (given.sigma * given.mean_residual).to(x.dtype)

    def velocity(self, x: Tensor, t: Tensor | float, path: Path) -> Tensor:
        """E[dx_t/dt | x_t = x] = alpha' E[data | x] + sigma' E[noise | x], shape (batch, d)."""
        given = self._given(x, t, path)
        moved = self._moved_means(given.responsibility, given.mean_residual, given.alpha, given.d_alpha, given.growth)
        return (moved + given.mean(self._spreading(given))).to(x.dtype)

    def score_divergence(self, x: Tensor, t: Tensor | float, path: Path) -> Tensor:
        r"""div grad log p_t(x), the trace of the Hessian, shape (batch,).

        .. math:: \sum_k r_k (|R_k - \bar R|^2 - \mathrm{tr} S_k^{-1}), \qquad \bar R = \sum_k r_k R_k
        """
        given = self._given(x, t, path)
        trace = (1 / given.variance).sum(-1)
        return given.average((given.deviation**2).sum(-1) - trace).to(x.dtype)

    def velocity_divergence(self, x: Tensor, t: Tensor | float, path: Path) -> Tensor:
        r"""div v(x, t), shape (batch,): minus the rate of change of log p_t along the flow.

        .. math:: \sum_k r_k [\mathrm{tr}(K_k) - v_k \cdot (R_k - \bar R)], \qquad
            K_k = (\alpha \alpha' C_k + \sigma \sigma') S_k^{-1}, \quad v_k = \alpha' \mu_k + K_k (x - \alpha \mu_k)
        """
        given = self._given(x, t, path)
        trace = (self._gain(given) / given.variance).sum(-1)
        starts = given.alpha == 0  # there R_k = x / sigma^2 for all k, and alpha' may be infinite
        component = given.d_alpha.masked_fill(starts, 0.0)[..., None] * self._means + self._spreading(given)
        inside = given.average(trace - (component * given.deviation).sum(-1))
        scatter = (self._weights[:, None] * (self._means - self._weights @ self._means) ** 2).sum()
        limit = given.growth * scatter / given.sigma.masked_fill(~starts, 1.0) ** 2
        return (inside + torch.where(starts, limit, 0.0).reshape(-1)).to(x.dtype)

    def posterior(self, x: Tensor, t: Tensor | float, path: Path) -> Posterior:
        r"""The law of the data given x_t = x, a mixture for each x.

        .. math:: \sum_k r_k N(\mu_k + \alpha C_k R_k, \; \sigma^2 C_k S_k^{-1})
        """
        given = self._given(x, t, path)
        means = self._data_means(given)
        variances = (given.sigma[..., None] ** 2 * self._variances / given.variance).expand_as(means)
        weights, means, variances = (v.to(x.dtype) for v in (given.responsibility, means, variances))
        return Posterior(weights, means, variances, self.basis)

    def moments(self, t: Tensor | float, path: Path) -> tuple[Tensor, Tensor]:
        """Mean and covariance of p_t, shapes (d,) and (d, d), each with (batch,) before it for t of shape (batch,)."""
        like = self._means[0] if not isinstance(t, Tensor) or t.dim() == 0 else self._means.new_empty(len(t), 1)
        alpha, sigma = at((path.alpha, path.sigma), t, like)
        mean, covariance = _moments(self._weights, self._means, self._variances, self._basis)
        identity = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        spread = alpha[..., None] ** 2 * covariance + sigma[..., None] ** 2 * identity
        return (alpha * mean).to(self.means.dtype), spread.to(self.means.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` exact samples of the data, shape (n, d)."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        deviation = self.stds[component] * self._normal(n, generator)
        return self.means[component] + _rotated_each(deviation, component, self.basis)

    def sample_at(self, n: int, t: Tensor | float, path: Path, generator: torch.Generator | None = None) -> Tensor:
        """``n`` exact samples of p_t, shape (n, d); for t of shape (n,) each of its own p_t."""
        return path.interpolate(self.sample(n, generator), self._normal(n, generator), t)

    def _normal(self, n: int, generator: torch.Generator | None) -> Tensor:
        like = self.means
        return torch.randn(n, like.shape[1], dtype=like.dtype, device=like.device, generator=generator)

    def _given(self, x: Tensor, t: Tensor | float, path: Path) -> _Given:
        _check_state(x, self.means)
        x = x.to(self._means.dtype)
        coefficients = path.alpha, path.sigma, path.d_alpha, _growth(path.alpha), _growth(path.sigma)
        alpha, sigma, d_alpha, growth, noise_growth = at(coefficients, t, x)
        variance = alpha[..., None] ** 2 * self._variances + sigma[..., None] ** 2  # (batch or 1, K, d)
        centred = _rotated(x[:, None, :] - alpha[..., None] * self._means, self._basis, inverse=True)  # (batch, K, d)
        log_normal = -0.5 * (centred**2 / variance + torch.log(2 * math.pi * variance)).sum(2)
        log_joint = log_normal + self._weights.log()
        along = centred / variance
        return _Given(
            alpha, sigma, d_alpha, growth, noise_growth, variance, along, _rotated(along, self._basis), log_joint
        )

    def _data_means(self, given: _Given) -> Tensor:
        """E[data | x_t = x, component k]."""
        return self._means + given.alpha[..., None] * _rotated(self._variances * given.along, self._basis)

    def _gain(self, given: _Given) -> Tensor:
        """The eigenvalues of alpha alpha' C_k + sigma sigma'."""
        return given.growth[..., None] * self._variances + given.noise_growth[..., None]

    def _spreading(self, given: _Given) -> Tensor:
        """(alpha alpha' C_k + sigma sigma') R_k."""
        return _rotated(self._gain(given) * given.along, self._basis)

    def _covariances(self) -> Tensor:
        if self._basis is None:
            return torch.diag_embed(self._variances)
        covariances: Tensor = (self._basis * self._variances[:, None, :]) @ self._basis.mT
        return covariances

    def _pull(self, weighted: Tensor) -> Tensor:
        """sum_k C_k r_k R_k, shape (batch, d), for r_k R_k of shape (batch, K, d)."""
        along = _rotated(weighted, self._basis, inverse=True)
        return _rotated(self._variances * along, self._basis).sum(1)

    def _moved_means(
        self, responsibility: Tensor, mean_residual: Tensor, c: Tensor, d_c: Tensor, growth: Tensor
    ) -> Tensor:
        """c' sum_k r_k mu_k. Where c = 0 its limit, c' E[mu] + c c' E[mu mu^T] R: infinite c' is met by E[mu] = 0."""
        starts = c == 0
        mean = self._weights @ self._means
        rounding = torch.finfo(mean.dtype).eps * (self._weights @ self._means.abs())
        scattered = (mean_residual @ self._means.T * self._weights) @ self._means
        limit = torch.where(mean.abs() <= rounding, 0.0, d_c * mean) + growth * scattered
        return d_c.masked_fill(starts, 0.0) * (responsibility @ self._means) + torch.where(starts, limit, 0.0)


@dataclass(frozen=True)
class Posterior:
    """The laws of the data given each x of a batch, Gaussian mixtures; where sigma = 0 the points x / alpha.

    Attributes:
        weights: Shape (batch, K).
        means: Shape (batch, K, d).
        variances: Along the principal axes, shape (batch, K, d), zero where the data are known.
        basis: The principal axes as columns, shape (K, d, d); None where they are those of the coordinates.
    """

    weights: Tensor
    means: Tensor
    variances: Tensor
    basis: Tensor | None = None

    @property
    def covariances(self) -> Tensor:
        """Of the components, shape (batch, K, d, d)."""
        if self.basis is None:
            return torch.diag_embed(self.variances)
        return (self.basis * self.variances[..., None, :]) @ self.basis.mT

    def mean(self) -> Tensor:
        """E[data | x_t = x], shape (batch, d)."""
        return _moments(self.weights, self.means, self.variances, self.basis)[0]

    def covariance(self) -> Tensor:
        """Cov[data | x_t = x], shape (batch, d, d)."""
        return _moments(self.weights, self.means, self.variances, self.basis)[1]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` exact samples of the data for each x, shape (n, batch, d)."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator).T  # (n, batch)
        each = torch.arange(len(self.weights), device=component.device)
        means, stds = self.means[each, component], self.variances[each, component].sqrt()
        noise = torch.randn(means.shape, dtype=means.dtype, device=means.device, generator=generator)
        return means + _rotated_each(stds * noise, component, self.basis)


class TwoSidedMixture:
    r"""The marginals of x_t = alpha source + beta data + gamma noise, for source and data independent mixtures.

    .. math:: p_t = \sum_{jk} \pi_j \pi_k N(\alpha \mu_j + \beta \mu_k, S_{jk}), \qquad
        S_{jk} = \alpha^2 C_j + \beta^2 C_k + \gamma^2 I

    with j a component of the source and k of the data. Covariances that are not diagonal need not commute: then every
    S_jk is factorised at every t, in memory of (batch, J, K, d, d) for t of shape (batch,). In the methods x has shape
    (batch, d) and t is a scalar or has shape (batch,).

    Args:
        source: The law at t = 0.
        data: The law at t = 1, of the same dimension and dtype.

    Attributes:
        of_source, of_data: The two laws.

    Raises:
        TypeError: If the dtypes differ; in the methods if x is of another.
        ValueError: If the dimensions differ.

    Source: Albergo et al. (2023), arXiv:2303.08797.
    """

    def __init__(self, source: GaussianMixture, data: GaussianMixture) -> None:
        dimensions = source.means.shape[1], data.means.shape[1]
        if dimensions[0] != dimensions[1]:
            raise ValueError(
                f"TwoSidedMixture: data must have the dimension of source, {dimensions[0]}, "
                f"got {dimensions[1]}. Both are laws of points of one space."
            )
        if source.means.dtype != data.means.dtype:
            raise TypeError(
                f"TwoSidedMixture: data must have the dtype of source, {source.means.dtype}, "
                f"got {data.means.dtype}. Cast the tensors of one of them."
            )
        self.of_source, self.of_data = source, data

    def log_prob(self, x: Tensor, t: Tensor | float, interpolant: TwoSided) -> Tensor:
        """log p_t(x), in nats, shape (batch,)."""
        return torch.logsumexp(self._given(x, t, interpolant).log_joint.flatten(1), dim=1).to(x.dtype)

    def score(self, x: Tensor, t: Tensor | float, interpolant: TwoSided) -> Tensor:
        """grad_x log p_t(x), shape (batch, d)."""
        return -self._given(x, t, interpolant).mean_residual.to(x.dtype)

    def source(self, x: Tensor, t: Tensor | float, interpolant: TwoSided) -> Tensor:
        """E[source | x_t = x], shape (batch, d)."""
        given = self._given(x, t, interpolant)
        return (given.of_source @ self.of_source._means + given.alpha * given.source_pull).to(x.dtype)

    def data(self, x: Tensor, t: Tensor | float, interpolant: TwoSided) -> Tensor:
        """E[data | x_t = x], shape (batch, d)."""
        given = self._given(x, t, interpolant)
        return (given.of_data @ self.of_data._means + given.beta * given.data_pull).to(x.dtype)

    def noise(self, x: Tensor, t: Tensor | float, interpolant: TwoSided) -> Tensor:
        """E[noise | x_t = x] = -gamma score, the denoiser, shape (batch, d)."""
        given = self._given(x, t, interpolant)
        return (given.gamma * given.mean_residual).to(x.dtype)

    def velocity(self, x: Tensor, t: Tensor | float, interpolant: TwoSided) -> Tensor:
        """E[dx_t/dt | x_t = x] = alpha' E[source | x] + beta' E[data | x] + gamma' E[noise | x], shape (batch, d)."""
        given = self._given(x, t, interpolant)
        residual = given.mean_residual
        moved_source = self.of_source._moved_means(
            given.of_source, residual, given.alpha, given.d_alpha, given.source_growth
        )
        moved_data = self.of_data._moved_means(given.of_data, residual, given.beta, given.d_beta, given.data_growth)
        spread = (
            given.source_growth * given.source_pull
            + given.data_growth * given.data_pull
            + given.noise_growth * residual
        )
        return (moved_source + moved_data + spread).to(x.dtype)

    def sample_at(
        self, n: int, t: Tensor | float, interpolant: TwoSided, generator: torch.Generator | None = None
    ) -> Tensor:
        """``n`` exact samples of p_t, shape (n, d); for t of shape (n,) each of its own p_t."""
        source, data = self.of_source.sample(n, generator), self.of_data.sample(n, generator)
        return interpolant.interpolate(source, data, self.of_source._normal(n, generator), t)

    def _given(self, x: Tensor, t: Tensor | float, interpolant: TwoSided) -> _GivenTwoSided:
        source, data = self.of_source, self.of_data
        _check_state(x, source.means)
        x = x.to(source._means.dtype)
        functions = interpolant.alpha, interpolant.beta, interpolant.gamma
        alpha, beta, gamma = at(functions, t, x)
        d_alpha, d_beta = at((interpolant.d_alpha, interpolant.d_beta), t, x)
        source_growth, data_growth, noise_growth = at([_growth(c) for c in functions], t, x)
        a, b, c = (value[..., None, None] for value in (alpha, beta, gamma))  # (batch or 1, 1, 1)
        means = a * source._means[:, None] + b * data._means  # (batch or 1, J, K, d)
        centred = x[:, None, None] - means
        if source._basis is None and data._basis is None:
            variance = a**2 * source._variances[:, None] + b**2 * data._variances + c**2
            residual, log_determinant = centred / variance, variance.log().sum(-1)
        else:
            a, b, c = (value[..., None] for value in (a, b, c))
            identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
            covariance = a**2 * source._covariances()[:, None] + b**2 * data._covariances() + c**2 * identity
            factor = torch.linalg.cholesky(covariance)
            residual = torch.cholesky_solve(centred[..., None], factor)[..., 0]
            log_determinant = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        square = (centred * residual).sum(-1)
        log_normal = -0.5 * (square + log_determinant + x.shape[1] * math.log(2 * math.pi))
        log_joint = log_normal + source._weights.log()[:, None] + data._weights.log()  # (batch, J, K)
        responsibility = torch.softmax(log_joint.flatten(1), dim=1).view_as(log_joint)
        weighted = responsibility[..., None] * residual
        return _GivenTwoSided(
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            d_alpha=d_alpha,
            d_beta=d_beta,
            source_growth=source_growth,
            data_growth=data_growth,
            noise_growth=noise_growth,
            log_joint=log_joint,
            of_source=responsibility.sum(2),
            of_data=responsibility.sum(1),
            mean_residual=weighted.sum((1, 2)),
            source_pull=source._pull(weighted.sum(2)),
            data_pull=data._pull(weighted.sum(1)),
        )


class _Given(NamedTuple):
    """What is known given x_t = x, over components k."""

    alpha: Tensor  # () or (batch, 1), as all coefficients
    sigma: Tensor
    d_alpha: Tensor
    growth: Tensor  # alpha alpha'
    noise_growth: Tensor  # sigma sigma'
    variance: Tensor  # eigenvalues of S_k, (batch or 1, K, d)
    along: Tensor  # R_k along the principal axes, (batch, K, d)
    residual: Tensor  # R_k, (batch, K, d)
    log_joint: Tensor  # log pi_k N(x; alpha mu_k, S_k), (batch, K)

    @property
    def responsibility(self) -> Tensor:
        return torch.softmax(self.log_joint, dim=1)

    @property
    def mean_residual(self) -> Tensor:
        return self.mean(self.residual)

    @property
    def deviation(self) -> Tensor:
        return self.residual - self.mean_residual[:, None]

    def mean(self, values: Tensor) -> Tensor:
        """sum_k r_k values_k, of shape (batch, K, d)."""
        return torch.einsum("bk,bkd->bd", self.responsibility, values)

    def average(self, values: Tensor) -> Tensor:
        """sum_k r_k values_k, of shape (batch, K)."""
        return (self.responsibility * values).sum(1)


class _GivenTwoSided(NamedTuple):
    """What is known given x_t = x, of source and data."""

    alpha: Tensor  # () or (batch, 1), as all coefficients
    beta: Tensor
    gamma: Tensor
    d_alpha: Tensor
    d_beta: Tensor
    source_growth: Tensor  # alpha alpha'
    data_growth: Tensor  # beta beta'
    noise_growth: Tensor  # gamma gamma'
    log_joint: Tensor  # (batch, J, K)
    of_source: Tensor  # responsibilities of the components of the source, (batch, J)
    of_data: Tensor  # and of the data, (batch, K)
    mean_residual: Tensor  # sum_jk r_jk R_jk, (batch, d)
    source_pull: Tensor  # sum_jk r_jk C_j R_jk, (batch, d)
    data_pull: Tensor  # sum_jk r_jk C_k R_jk, (batch, d)


@functools.cache
def _growth(c: Coefficient) -> Coefficient:
    """c c' = (c^2)' / 2, finite where c is a square root that vanishes."""

    def growth(expr: sp.Expr) -> sp.Expr:
        return simplified(sp.diff(expr**2, time) / 2)

    return Coefficient(each(growth, c.expr) if isinstance(c.expr, sp.Piecewise) else growth(c.expr))


def _moments(weights: Tensor, means: Tensor, variances: Tensor, basis: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and covariance of mixtures: shapes (..., K), (..., K, d) twice, and (K, d, d) or None."""
    mean = (weights[..., None] * means).sum(-2)
    centred = means - mean[..., None, :]
    between = (weights[..., None] * centred).mT @ centred
    if basis is None:
        within = torch.diag_embed((weights[..., None] * variances).sum(-2))
    else:
        within = ((basis * (weights[..., None] * variances)[..., None, :]) @ basis.mT).sum(-3)
    return mean, between + within


def _rotated(v: Tensor, basis: Tensor | None, inverse: bool = False) -> Tensor:
    """From the principal axes of each component to the coordinates, or back; v of shape (batch, K, d)."""
    if basis is None:
        return v
    return torch.einsum("kji,bkj->bki" if inverse else "kij,bkj->bki", basis, v)


def _rotated_each(v: Tensor, component: Tensor, basis: Tensor | None) -> Tensor:
    """Each v (..., d) from the principal axes of its own component, of shape (...), to the coordinates."""
    if basis is None:
        return v
    rotated = torch.empty_like(v)
    for k, axes in enumerate(basis):  # a matrix for each sample would be larger than all of them together
        rotated[component == k] = v[component == k] @ axes.T
    return rotated


# Checks


def _check_means(means: Tensor) -> None:
    if not means.is_floating_point():
        raise TypeError(
            f"GaussianMixture: means must be floating point, got {means.dtype}. Cast all tensors with .double()."
        )
    if means.dim() != 2 or 0 in means.shape:
        raise ValueError(
            f"GaussianMixture: means must have shape (K, d), got {tuple(means.shape)}. A single mean is means[None]."
        )
    _check_finite("means", means)


def _check_like(means: Tensor, name: str, values: Tensor, contract: str, *shapes: tuple[int, ...]) -> None:
    if values.shape not in shapes:
        raise ValueError(
            f"GaussianMixture: {name} must have shape {contract} for means of shape (K, d) = {tuple(means.shape)}, "
            f"got {tuple(values.shape)}."
        )
    if values.dtype != means.dtype:
        raise TypeError(
            f"GaussianMixture: {name} must have the dtype of means, {means.dtype}, got {values.dtype}. Cast one."
        )


def _check_finite(name: str, values: Tensor) -> None:
    bad = ~values.isfinite().flatten(1).all(1)
    if bad.any():
        k = int(bad.nonzero()[0])
        raise ValueError(f"GaussianMixture: {name} must be finite, got {values[k].tolist()} in component {k}.")


def _check_positive(name: str, values: Tensor) -> None:
    bad = ~((values > 0) & values.isfinite())
    if bad.any():
        index = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"GaussianMixture: {name} must be positive and finite, got {values[index].item()!r} "
            f"in component {index[0]}. Leave out a component of weight zero; a point is one of small deviation."
        )


def _check_symmetric(covariances: Tensor) -> None:
    size, skew = (m.abs().amax((1, 2)) for m in (covariances, covariances - covariances.mT))
    bad = skew > _rounding(covariances) * size
    if bad.any():
        k = int(bad.nonzero()[0])
        raise ValueError(
            f"GaussianMixture: covariances must be symmetric, got C with max|C - C.mT| = {skew[k].item():.3g} "
            f"in component {k}. (C + C.mT) / 2 is."
        )


def _check_definite(eigenvalues: Tensor, covariances: Tensor) -> None:
    least, largest = eigenvalues[:, 0], eigenvalues[:, -1]
    bad = ~(least > _rounding(covariances) * largest)
    if bad.any():
        k = int(bad.nonzero()[0])
        raise ValueError(
            f"GaussianMixture: covariances must be positive definite, got least and largest eigenvalue "
            f"{least[k].item():.3g} and {largest[k].item():.3g} in component {k}. Add a small multiple of the identity."
        )


def _rounding(covariances: Tensor) -> float:
    return 8 * covariances.shape[-1] * torch.finfo(covariances.dtype).eps


def _check_state(x: Tensor, means: Tensor) -> None:
    if x.dtype != means.dtype:
        raise TypeError(f"x: must have the dtype of the mixture, {means.dtype}, got {x.dtype}. Cast x, or the mixture.")
    if x.dim() != 2 or x.shape[1] != means.shape[1]:
        raise ValueError(
            f"x: must have shape (batch, d) with d = {means.shape[1]}, got {tuple(x.shape)}. "
            "x.flatten(1) often is what is meant."
        )
