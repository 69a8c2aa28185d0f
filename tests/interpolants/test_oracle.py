"""Gaussian mixtures as the data: against autograd, joint Gaussian conditioning, torch.distributions and mpmath."""

import math
import re

import mpmath
import pytest
import torch
from strategies import LIBRARY
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import interpolants as ip
from interpolants import two_sided
from interpolants.oracle import GaussianMixture, TwoSidedMixture

ROOT = ip.Path("sqrt(t)", "sqrt(1-t)", name="root")  # alpha' is infinite at t = 0, sigma' at t = 1
PATHS = [*LIBRARY, ROOT, ip.Path("1", "80*(1-t)+0.002", name="ve"), ip.linear().in_paper_time()]
QUANTITIES = ("data", "noise", "velocity", "score", "log_prob", "score_divergence", "velocity_divergence")
MEANS = torch.tensor([[1.5, -0.5, 0.2], [-1.0, 0.8, -0.4], [0.0, 2.0, 1.0]], dtype=torch.float64)
STDS = torch.tensor([[0.3, 0.5, 0.4], [0.7, 0.2, 0.3], [0.4, 0.4, 0.9]], dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

on_paths = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
on_both = pytest.mark.parametrize("kind", ["diagonal", "full"])


def mixture(kind="diagonal", d=3):
    if kind == "diagonal":
        return GaussianMixture(MEANS[:, :d], STDS[:, :d], WEIGHTS)
    return GaussianMixture(MEANS[:, :d], weights=WEIGHTS, covariances=covariances(kind)[:, :d, :d])


def covariances(kind):
    if kind == "diagonal":
        return torch.diag_embed(STDS**2)
    factor = torch.tensor([[0.5, 0.0, 0.0], [0.4, 0.3, 0.0], [-0.3, 0.1, 0.6]], dtype=torch.float64)
    factors = torch.stack([factor, factor.flip(0), factor * torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)])
    return factors @ factors.mT


def states(n=6, d=3, seed=0):
    return 1.5 * torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def law(means, covariances_, weights=WEIGHTS):
    """A mixture by torch.distributions."""
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances_))


def marginal(path, time, kind="diagonal"):
    alpha, sigma = path.alpha(time), path.sigma(time)
    return law(alpha * MEANS, alpha**2 * covariances(kind) + sigma**2 * torch.eye(3, dtype=torch.float64))


def conditioned(x, of_x, components, weights=WEIGHTS):
    """E[of_z z | of_x z = x] and Cov, by conditioning a Gaussian vector z on a linear map of it, mixed over components.

    components: a list of (mean, covariance) of z; of_x maps z to x. Returns responsibilities, means and covariances.
    """
    logs, means, covs = [], [], []
    for weight, (mean, cov) in zip(weights, components, strict=True):
        cross, inner = cov @ of_x.T, of_x @ cov @ of_x.T
        logs.append(weight.log() + MultivariateNormal(of_x @ mean, inner).log_prob(x))
        gain = cross @ torch.linalg.inv(inner)
        means.append(mean + (x - of_x @ mean) @ gain.T)
        covs.append(cov - gain @ cross.T)
    return torch.softmax(torch.stack(logs, -1), -1), torch.stack(means, 1), torch.stack(covs)


def one_sided_conditioned(x, path, time, kind):
    """Of z = (data, noise)."""
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    of_x = torch.cat([path.alpha(time) * eye, path.sigma(time) * eye], 1)
    components = [
        (torch.cat([m, zero]), torch.block_diag(c, eye)) for m, c in zip(MEANS, covariances(kind), strict=True)
    ]
    return conditioned(x, of_x, components)


# One-sided: laws inside (0, 1)


@on_paths
@on_both
@pytest.mark.parametrize("time", [0.02, 0.4, 0.97])
def test_the_marginal_its_gradient_and_its_laplacian_are_those_of_torch_distributions(path, kind, time):
    m, x, reference = mixture(kind), states(), marginal(path, time, kind)
    torch.testing.assert_close(m.log_prob(x, time, path), reference.log_prob(x), rtol=1e-10, atol=1e-10)
    score = torch.func.grad(lambda y: reference.log_prob(y).sum())
    torch.testing.assert_close(m.score(x, time, path), score(x), rtol=1e-9, atol=1e-9)
    hessian = torch.func.vmap(torch.func.jacrev(torch.func.grad(lambda y: reference.log_prob(y))))(x)
    laplacian = hessian.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(m.score_divergence(x, time, path), laplacian, rtol=1e-8, atol=1e-8)


@on_paths
@on_both
@pytest.mark.parametrize("time", [0.05, 0.4, 0.95])
def test_quantities_and_posterior_are_those_of_conditioning_a_joint_gaussian(path, kind, time):
    m, x = mixture(kind), states()
    r, means, covs = one_sided_conditioned(x, path, time, kind)
    both = (r[..., None] * means).sum(1)
    data, noise = both[:, :3], both[:, 3:]
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(m.data(x, time, path), data, **close)
    torch.testing.assert_close(m.noise(x, time, path), noise, **close)
    velocity = path.d_alpha(time) * data + path.d_sigma(time) * noise
    torch.testing.assert_close(m.velocity(x, time, path), velocity, **close)
    posterior = m.posterior(x, time, path)
    torch.testing.assert_close(posterior.weights, r, **close)
    torch.testing.assert_close(posterior.means, means[..., :3], **close)
    torch.testing.assert_close(posterior.covariances, covs[:, :3, :3].expand(6, 3, 3, 3), **close)
    torch.testing.assert_close(posterior.mean(), data, **close)
    second = covs[:, :3, :3] + means[..., :3, None] * means[..., None, :3]
    expected = (r[..., None, None] * second).sum(1) - data[:, :, None] * data[:, None, :]
    torch.testing.assert_close(posterior.covariance(), expected, **close)


@on_paths
@on_both
def test_probability_is_conserved(path, kind):
    """d/dt log p_t + div v + v . score = 0, by autograd in t, and div v by autograd in x."""
    m, x = mixture(kind), states()
    times = torch.tensor([0.05, 0.2, 0.5, 0.7, 0.9, 0.97], dtype=torch.float64, requires_grad=True)
    (rate,) = torch.autograd.grad(m.log_prob(x, times, path).sum(), times)
    times = times.detach()
    velocity, score = m.velocity(x, times, path), m.score(x, times, path)
    divergence = m.velocity_divergence(x, times, path)
    torch.testing.assert_close(
        rate + divergence + (velocity * score).sum(1), torch.zeros(6).double(), rtol=0, atol=1e-8
    )
    jacobian = torch.func.jacrev(lambda y: m.velocity(y, times, path).sum(0))(x)  # (d, batch, d)
    torch.testing.assert_close(divergence, torch.einsum("ibi->b", jacobian), rtol=1e-9, atol=1e-9)


@on_both
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_each_sample_has_its_own_time(kind, quantity):
    m, x, path = mixture(kind), states(3), ip.gvp()
    times = torch.tensor([0.0, 0.6, 1.0], dtype=torch.float64)
    both = getattr(m, quantity)(x, times, path)
    assert both.shape == (x.shape if quantity in ip.QUANTITIES else (3,))
    for i in range(3):
        torch.testing.assert_close(both[i : i + 1], getattr(m, quantity)(x[i : i + 1], times[i].item(), path))
        torch.testing.assert_close(both[i : i + 1], getattr(m, quantity)(x[i : i + 1], times[i], path))


def test_a_covariance_that_is_diagonal_is_one_by_its_deviations():
    m, n = mixture(), GaussianMixture(MEANS, weights=WEIGHTS, covariances=torch.diag_embed(STDS**2))
    for quantity in QUANTITIES:
        got, expected = (getattr(each, quantity)(states(), 0.6, ip.vp()) for each in (n, m))
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    assert m.basis is None
    rebuilt = n.basis @ torch.diag_embed(n.stds**2) @ n.basis.mT
    torch.testing.assert_close(rebuilt, torch.diag_embed(STDS**2))
    one = GaussianMixture(MEANS, STDS[:, 0], WEIGHTS)
    assert torch.equal(one.stds, STDS[:, :1].expand(3, 3))
    assert torch.equal(one.means, MEANS)


def test_weights_are_normalised_and_equal_where_not_given():
    torch.testing.assert_close(mixture().weights, WEIGHTS / 6)
    torch.testing.assert_close(GaussianMixture(MEANS, STDS).weights, torch.full((3,), 1 / 3).double())
    scaled = GaussianMixture(MEANS, STDS, 7 * WEIGHTS)
    torch.testing.assert_close(scaled.log_prob(states(), 0.5, ROOT), mixture().log_prob(states(), 0.5, ROOT))


def test_products_are_derived_once(monkeypatch):
    m, x, path = mixture(), states(), ip.Path("t**3", "1-t**2")
    first = m.velocity(x, 0.5, path)
    monkeypatch.setattr("interpolants.oracle.Coefficient", None)
    assert torch.equal(m.velocity(x, 0.5, path), first)
    assert torch.equal(m.velocity(x, 0.5, ip.Path("t**3", "1-t**2")), first)


# One-sided: the ends, in closed form


@on_paths
@on_both
def test_at_the_data_x_is_the_data(path, kind):
    m, x, end = mixture(kind), states(), path.data_end
    if path.sigma(end) > 0:
        return
    torch.testing.assert_close(m.data(x, end, path), x / path.alpha(end), rtol=1e-12, atol=1e-12)
    assert torch.equal(m.noise(x, end, path), torch.zeros_like(x))
    log_prob = law(MEANS, covariances(kind)).log_prob
    torch.testing.assert_close(m.log_prob(x, end, path), log_prob(x), rtol=1e-10, atol=1e-10)
    score = torch.func.grad(lambda y: log_prob(y).sum())(x)
    growth = {"root": -0.5, "vp": -0.05, "linear": 0.0, "gvp": 0.0}.get(path.name, 0.0)  # sigma sigma' by hand
    slope = {"root": 0.5, "vp": 0.05, "linear": 1.0, "gvp": 0.0}.get(path.name, -1.0)  # alpha' by hand
    torch.testing.assert_close(m.velocity(x, end, path), slope * x - growth * score, rtol=1e-10, atol=1e-10)
    laplacian = m.score_divergence(x, end, path)
    expected = 3 * slope - growth * laplacian
    torch.testing.assert_close(m.velocity_divergence(x, end, path), expected, rtol=1e-9, atol=1e-9)
    posterior = m.posterior(x, end, path)
    torch.testing.assert_close(posterior.sample(2, torch.Generator().manual_seed(0)), x.expand(2, *x.shape))
    assert posterior.variances.count_nonzero() == 0


def centred(kind):
    """Two components, whose mean is zero."""
    means = torch.tensor([[1.0, -2.0, 0.5], [-0.5, 1.0, -0.25]], dtype=torch.float64)
    weights = torch.tensor([1.0, 2.0], dtype=torch.float64)
    full = covariances(kind)[:2]
    m = (
        GaussianMixture(means, STDS[:2], weights)
        if kind == "diagonal"
        else GaussianMixture(means, weights=weights, covariances=full)
    )
    w = (weights / 3)[:, None, None]
    return m, (w * (full + means[:, :, None] * means[:, None, :])).sum(0)


@on_both
def test_at_the_noise_nothing_is_known_of_the_data(kind):
    m, x = mixture(kind), states()
    mean = (WEIGHTS / 6) @ MEANS
    for path in (ip.linear(), ip.gvp(), ROOT):
        torch.testing.assert_close(m.data(x, 0.0, path), mean.expand_as(x))
        torch.testing.assert_close(m.noise(x, 0.0, path), x)
        torch.testing.assert_close(m.score(x, 0.0, path), -x)
        torch.testing.assert_close(m.score_divergence(x, 0.0, path), torch.full((6,), -3.0).double())
        posterior = m.posterior(x, 0.0, path)
        torch.testing.assert_close(posterior.weights, m.weights.expand(6, 3))
        torch.testing.assert_close(posterior.means, MEANS.expand(6, 3, 3))
        torch.testing.assert_close(posterior.covariances, covariances(kind).expand(6, 3, 3, 3))
    torch.testing.assert_close(m.velocity(x, 0.0, ip.linear()), mean - x)
    torch.testing.assert_close(m.velocity(x, 0.0, ip.gvp()), math.pi / 2 * mean.expand_as(x))
    torch.testing.assert_close(m.velocity_divergence(x, 0.0, ip.linear()), torch.full((6,), -3.0).double())
    torch.testing.assert_close(m.velocity_divergence(x, 0.0, ip.gvp()), torch.zeros(6).double())


@on_both
def test_an_infinite_derivative_of_alpha_at_the_noise_is_met_by_its_limit(kind):
    """alpha = sqrt(t), sigma = sqrt(1-t): E[data | x] = m + sqrt(t) Cov x + O(t), and v -> (Cov x - x) / 2 if m = 0."""
    m, covariance = centred(kind)
    x = states()
    torch.testing.assert_close(m.velocity(x, 0.0, ROOT), (x @ covariance - x) / 2)
    expected = ((covariance.trace() - 3) / 2).expand(6)
    torch.testing.assert_close(m.velocity_divergence(x, 0.0, ROOT), expected)
    jacobian = torch.func.jacrev(lambda y: m.velocity(y, 0.0, ROOT).sum(0))(x)
    torch.testing.assert_close(torch.einsum("ibi->b", jacobian), expected)
    # where the mean is not zero the velocity is infinite, and its divergence is not
    spread = mixture(kind).moments(1.0, ROOT)[1].trace()
    torch.testing.assert_close(mixture(kind).velocity_divergence(x, 0.0, ROOT), ((spread - 3) / 2).expand(6))
    # and with sigma(0) = 2, where v -> (Cov x / 4 - x) / 2
    wide = ip.Path("sqrt(t)", "2*sqrt(1-t)")
    torch.testing.assert_close(m.velocity(x, 0.0, wide), (x @ covariance / 4 - x) / 2)
    torch.testing.assert_close(m.velocity_divergence(x, 0.0, wide), ((covariance.trace() / 4 - 3) / 2).expand(6))
    # next to the end, of order sqrt(t) from it
    torch.testing.assert_close(m.velocity(x, 1e-12, ROOT), m.velocity(x, 0.0, ROOT), rtol=0, atol=1e-3)
    times = torch.tensor([0.0, 1e-12, 0.0, 0.5, 0.0, 1.0], dtype=torch.float64)
    mixed = m.velocity_divergence(x, times, ROOT)
    torch.testing.assert_close(mixed[times == 0], expected[times == 0])
    torch.testing.assert_close(mixed[1], expected[1], rtol=0, atol=1e-3)


@pytest.mark.parametrize("unit", [1.0, 2.0**-20, 2.0**20])
def test_a_mean_that_is_zero_but_for_rounding_counts_as_zero(unit):
    means, stds = unit * torch.tensor([[0.1], [0.2], [-0.3]], dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    m, x = GaussianMixture(means, stds), states(d=1)
    assert (m.weights @ means).item() != 0
    variance = 1 + unit**2 * 0.14 / 3  # 1 + (0.01 + 0.04 + 0.09) / 3
    torch.testing.assert_close(m.velocity(x, 0.0, ROOT), x * (variance - 1) / 2, rtol=1e-7, atol=1e-15)
    shifted = GaussianMixture(means + unit * 1e-14, stds)
    assert torch.equal(shifted.velocity(x, 0.0, ROOT), torch.full_like(x, torch.inf))


def test_one_gaussian_of_mean_zero_has_a_finite_velocity_there():
    m, x = GaussianMixture(torch.zeros(1, 3, dtype=torch.float64), STDS[:1]), states()
    torch.testing.assert_close(m.velocity(x, 0.0, ROOT), (STDS[0] ** 2 * x - x) / 2)


def test_a_mean_that_is_not_zero_makes_the_velocity_infinite_there_with_its_sign():
    m = GaussianMixture(torch.tensor([[0.5, -3.0]], dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    velocity = m.velocity(states(d=2), 0.0, ROOT)
    assert torch.equal(velocity, torch.tensor([torch.inf, -torch.inf]).double().expand(6, 2))


# Far tails and narrow components, by mpmath


def by_mpmath(x, means, covs, weights, alpha, sigma, d_alpha, d_sigma):
    """All quantities in two dimensions, with 2 x 2 inverses written out, in 60 digits."""
    with mpmath.workdps(60):
        x, alpha, sigma = mpmath.matrix(x), mpmath.mpf(alpha), mpmath.mpf(sigma)
        parts, laplacians = [], []
        for mu, c, w in zip(means, covs, weights, strict=True):
            mu, c = mpmath.matrix(mu), mpmath.matrix(c)
            a, b, d = (alpha**2 * c[i, j] + (sigma**2 if i == j else 0) for i, j in ((0, 0), (0, 1), (1, 1)))
            det = a * d - b * b
            inverse = mpmath.matrix([[d, -b], [-b, a]]) / det
            y = x - alpha * mu
            r = inverse * y
            parts.append(
                (w * mpmath.exp(-(y.T * r)[0] / 2) / (2 * mpmath.pi * mpmath.sqrt(det)), r, mu + alpha * c * r)
            )
            laplacians.append((r.T * r)[0] - inverse[0, 0] - inverse[1, 1])
        total = sum(p for p, _, _ in parts)
        residual = sum((p / total * r for p, r, _ in parts), mpmath.zeros(2, 1))
        data = sum((p / total * m for p, _, m in parts), mpmath.zeros(2, 1))
        laplacian = sum(p / total * v for (p, _, _), v in zip(parts, laplacians, strict=True))
        results = {
            "log_prob": [mpmath.log(total / sum(weights))],
            "score": list(-residual),
            "data": list(data),
            "noise": list(sigma * residual),
            "velocity": list(d_alpha * data + d_sigma * sigma * residual),
            "score_divergence": [laplacian - (residual.T * residual)[0]],
        }
        return {name: torch.tensor([float(v) for v in values], dtype=torch.float64) for name, values in results.items()}


@pytest.mark.parametrize("time", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("far", [300.0, -4000.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("stds", [(0.5, 0.75), (2.0**-20, 1.0), (2.0**-60, 2.0**-30)])
def test_far_tails_and_narrow_components(time, far, dtype, stds):
    means, weights = [[0.5, 0.25], [-1.0, 0.75]], [1.0, 3.0]
    x = [far, 0.5]
    diagonal = [[[s**2, 0.0], [0.0, s**2]] for s in stds]
    full = [[[s**2, s**2 / 4], [s**2 / 4, s**2]] for s in stds]
    tensors = torch.tensor(means, dtype=dtype), torch.tensor(weights, dtype=dtype)
    for covs, m in (
        (diagonal, GaussianMixture(tensors[0], torch.tensor(stds, dtype=dtype), tensors[1])),
        (full, GaussianMixture(tensors[0], weights=tensors[1], covariances=torch.tensor(full, dtype=dtype))),
    ):
        expected = by_mpmath(x, means, covs, weights, time, 1 - time, 1, -1)
        for name, values in expected.items():
            got = getattr(m, name)(torch.tensor([x], dtype=dtype), time, ip.linear())[0].reshape(-1)
            assert got.dtype == dtype
            rtol = 1e-8 if dtype == torch.float64 else 1e-6
            # what is a difference of large numbers is known to the rounding of these
            atol = 1e-13 * max(1.0, abs(far)) if name in ("data", "velocity", "noise") else 1e-9
            torch.testing.assert_close(got, values.to(dtype), rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


@on_both
@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("time", [0.0, 0.3, 1.0])
def test_float32_is_float64_rounded_once(kind, quantity, time):
    m, x = mixture(kind), states().float()
    covs = covariances(kind).float()
    single = {"stds": STDS.float()} if kind == "diagonal" else {"covariances": covs}
    double = {name: value.double() for name, value in single.items()}
    m = GaussianMixture(MEANS.float(), weights=WEIGHTS.float(), **single)
    n = GaussianMixture(MEANS.float().double(), weights=WEIGHTS, **double)
    got, expected = (getattr(each, quantity)(y, time, ROOT) for each, y in ((m, x), (n, x.double())))
    assert got.dtype == torch.float32
    assert torch.equal(got, expected.float())
    times = torch.full((6,), time)
    assert torch.equal(getattr(m, quantity)(x, times, ROOT), getattr(n, quantity)(x.double(), times, ROOT).float())


def test_images_and_a_thousand_components_need_no_matrices():
    generator = torch.Generator().manual_seed(0)
    m = GaussianMixture(torch.randn(1000, 3072, generator=generator), torch.full((1000,), 0.5))
    x = m.sample_at(1, 0.5, ip.linear(), generator)
    assert m.velocity_divergence(x, 0.5, ip.linear()).isfinite().all()
    torch.testing.assert_close(m.posterior(x, 0.5, ip.linear()).mean(), m.data(x, 0.5, ip.linear()))


# Moments and samples


@on_both
def test_moments_are_those_of_the_sum(kind):
    m, w = mixture(kind), (WEIGHTS / 6)[:, None, None]
    mean = (WEIGHTS / 6) @ MEANS
    covariance = (w * (covariances(kind) + MEANS[:, :, None] * MEANS[:, None, :])).sum(0) - mean[:, None] * mean
    for time in (0.0, 0.5, torch.tensor(0.75, dtype=torch.float64), 1.0):
        got = m.moments(time, ROOT)
        torch.testing.assert_close(got[0], float(time) ** 0.5 * mean)
        torch.testing.assert_close(got[1], float(time) * covariance + (1 - float(time)) * torch.eye(3).double())
    times = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    means, covs = m.moments(times, ROOT)
    assert means.shape == (4, 3)
    for i, time in enumerate(times.tolist()):
        for got, expected in zip((means[i], covs[i]), m.moments(time, ROOT), strict=True):
            torch.testing.assert_close(got, expected)
    single = GaussianMixture(MEANS.float(), STDS.float()).moments(0.5, ROOT)
    assert [v.dtype for v in single] == [torch.float32, torch.float32]


@on_both
def test_one_component_is_a_gaussian(kind):
    spread, eye = covariances(kind)[:1], torch.eye(3, dtype=torch.float64)
    m, x = GaussianMixture(MEANS[:1], covariances=spread), states()
    mean, covariance = m.moments(0.64, ROOT)
    torch.testing.assert_close(mean, 0.8 * MEANS[0])
    torch.testing.assert_close(covariance, 0.64 * spread[0] + 0.36 * eye)
    score = -torch.linalg.solve(covariance, (x - mean).mT).mT
    torch.testing.assert_close(m.score(x, 0.64, ROOT), score)
    torch.testing.assert_close(m.posterior(x, 0.64, ROOT).mean(), MEANS[0] - 0.8 * score @ spread[0])


def assert_moments(samples, mean, covariance):
    """Mean and covariance within five standard errors, of the covariance as estimated from the samples."""
    n = len(samples)
    error = 5 * (covariance.diagonal() / n).sqrt()
    assert ((samples.mean(0) - mean).abs() < error).all()
    centred = samples - mean
    products = centred[:, :, None] * centred[:, None, :]
    assert ((products.mean(0) - covariance).abs() < 5 * products.std(0) / math.sqrt(n)).all()


@on_both
def test_samples_have_the_moments_of_the_marginals(kind):
    m, generator = mixture(kind), torch.Generator().manual_seed(1)
    assert_moments(m.sample(100_000, generator), *m.moments(1.0, ip.linear()))
    assert_moments(m.sample_at(100_000, 0.25, ROOT, generator), *m.moments(0.25, ROOT))
    times = torch.tensor([0.2, 0.7], dtype=torch.float64).repeat(50_000)
    samples = m.sample_at(100_000, times, ip.vp(), generator)
    for i, time in enumerate((0.2, 0.7)):
        assert_moments(samples[i::2], *m.moments(time, ip.vp()))


@on_both
def test_posterior_samples_have_the_moments_of_the_posterior(kind):
    m, x = mixture(kind), states(2)
    posterior = m.posterior(x, 0.5, ip.linear())
    samples = posterior.sample(50_000, torch.Generator().manual_seed(2))
    assert samples.shape == (50_000, 2, 3)
    for i in range(2):
        assert_moments(samples[:, i], posterior.mean()[i], posterior.covariance()[i])


@on_both
def test_components_are_drawn_with_their_own_weights_and_shapes(kind):
    """Means so far apart that the component of each sample is seen."""
    m = GaussianMixture(1e3 * MEANS, weights=WEIGHTS, covariances=covariances(kind))
    samples = m.sample(60_000, torch.Generator().manual_seed(3))
    nearest = torch.cdist(samples, m.means).argmin(1)
    for k in range(3):
        count, p = int((nearest == k).sum()), WEIGHTS[k].item() / 6
        assert abs(count - 60_000 * p) < 5 * math.sqrt(60_000 * p * (1 - p))
        assert_moments(samples[nearest == k], m.means[k], covariances(kind)[k])


def test_a_generator_makes_samples_reproducible():
    m, path = mixture("full"), ip.linear()
    posterior = m.posterior(states(), 0.5, path)
    for draw in (lambda g: m.sample(5, g), lambda g: m.sample_at(5, 0.5, path, g), lambda g: posterior.sample(5, g)):
        first, again, other = (draw(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
    assert m.sample(2).shape == (2, 3)
    single = GaussianMixture(MEANS.float(), STDS.float())
    assert single.sample(2).dtype == torch.float32
    assert single.posterior(states().float(), 0.5, path).sample(2).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_dtype_and_device_are_those_of_the_mixture_whatever_the_defaults(dtype):
    """float64 where the default is float32, with all its digits, and the reverse; on the host where that is meta."""
    other = torch.float32 if dtype == torch.float64 else torch.float64
    path, x = ip.linear(), states(d=1).to(dtype)
    zero, one = torch.zeros(1, 1, dtype=dtype), torch.ones(1, 1, dtype=dtype)
    default = torch.get_default_dtype()
    for kind in ({"stds": one}, {"covariances": one[None]}):
        m = GaussianMixture(zero, **kind)
        both = TwoSidedMixture(m, m)
        torch.set_default_dtype(other)
        try:
            with torch.device("meta"):
                m = GaussianMixture(zero, **kind)
                samples = [
                    m.sample(5), m.sample_at(5, 0.5, path), both.sample_at(5, 0.5, two_sided.linear()),
                    m.posterior(x, 0.5, path).sample(5),
                ]  # fmt: skip
                results = [*m.moments(0.5, path), *(getattr(m, quantity)(x, 0.5, path) for quantity in QUANTITIES)]
                results += [getattr(both, name)(x, 0.5, two_sided.linear()) for name in ("log_prob", "velocity")]
        finally:
            torch.set_default_dtype(default)
        for value in (*samples, *results):
            assert (value.dtype, value.device.type) == (dtype, "cpu")
        for value in samples:
            assert torch.equal(value, value.float().to(dtype)) == (dtype == torch.float32)


# Two-sided

BRIDGES = [
    two_sided.linear(),
    two_sided.trigonometric("t*(1-t)"),
    two_sided.TwoSided("sqrt(1-t)", "sqrt(t)", "sqrt(2*t*(1-t))", name="roots"),
    two_sided.encoder_decoder(),
]
SOURCE = torch.tensor([[0.3, -1.0, 0.6], [-0.9, 0.5, 0.1]], dtype=torch.float64)
SOURCE_WEIGHTS = torch.tensor([1.0, 3.0], dtype=torch.float64)
on_bridges = pytest.mark.parametrize("bridge", BRIDGES, ids=lambda b: b.name)
on_kinds = pytest.mark.parametrize("kinds", ["diagonal diagonal", "full diagonal", "diagonal full", "full full"])


def source_mixture(kind):
    if kind == "diagonal":
        return GaussianMixture(SOURCE, STDS[1:], SOURCE_WEIGHTS)
    return GaussianMixture(SOURCE, weights=SOURCE_WEIGHTS, covariances=source_covariances(kind))


def source_covariances(kind):
    return torch.diag_embed(STDS[1:] ** 2) if kind == "diagonal" else covariances("full").flip(1, 2)[:2]


def pair(kinds):
    first, second = kinds.split()
    m = TwoSidedMixture(source_mixture(first), mixture(second))
    return m, source_covariances(first), covariances(second)


def pair_weights():
    return (SOURCE_WEIGHTS[:, None] * WEIGHTS).flatten()


@on_bridges
@on_kinds
@pytest.mark.parametrize("time", [0.1, 0.5, 0.8])
def test_two_sided_quantities_are_those_of_conditioning_a_joint_gaussian(bridge, kinds, time):
    (m, cov_source, cov_data), x = pair(kinds), states()
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    alpha, beta, gamma = (c(time) for c in (bridge.alpha, bridge.beta, bridge.gamma))
    components = [
        (torch.cat([a, b, zero]), torch.block_diag(c, d, eye))
        for a, c in zip(SOURCE, cov_source, strict=True)
        for b, d in zip(MEANS, cov_data, strict=True)
    ]
    of_x = torch.cat([alpha * eye, beta * eye, gamma * eye], 1)
    r, means, _ = conditioned(x, of_x, components, pair_weights())
    source, data, noise = (r[..., None] * means).sum(1).split(3, 1)
    close = {"rtol": 1e-8, "atol": 1e-8}
    torch.testing.assert_close(m.source(x, time, bridge), source, **close)
    torch.testing.assert_close(m.data(x, time, bridge), data, **close)
    torch.testing.assert_close(m.noise(x, time, bridge), noise, **close)
    rates = [c(time) for c in (bridge.d_alpha, bridge.d_beta, bridge.d_gamma)]
    velocity = sum(rate * value for rate, value in zip(rates, (source, data, noise), strict=True))
    torch.testing.assert_close(m.velocity(x, time, bridge), velocity, **close)
    reference = law(
        torch.stack([of_x @ mean for mean, _ in components]),
        torch.stack([of_x @ cov @ of_x.T for _, cov in components]),
        pair_weights(),
    )
    torch.testing.assert_close(m.log_prob(x, time, bridge), reference.log_prob(x), **close)
    score = torch.func.grad(lambda y: reference.log_prob(y).sum())(x)
    torch.testing.assert_close(m.score(x, time, bridge), score, **close)


@on_bridges
@on_kinds
def test_two_sided_probability_is_conserved_and_each_sample_has_its_own_time(bridge, kinds):
    (m, *_), x = pair(kinds), states()
    times = torch.tensor([0.05, 0.2, 0.45, 0.7, 0.9, 0.97], dtype=torch.float64, requires_grad=True)
    log_prob = m.log_prob(x, times, bridge)
    (rate,) = torch.autograd.grad(log_prob.sum(), times)
    times = times.detach()
    jacobian = torch.func.jacrev(lambda y: m.velocity(y, times, bridge).sum(0))(x)
    velocity, score = m.velocity(x, times, bridge), m.score(x, times, bridge)
    change = rate + torch.einsum("ibi->b", jacobian) + (velocity * score).sum(1)
    torch.testing.assert_close(change, torch.zeros(6).double(), rtol=0, atol=1e-8)
    for i, time in enumerate(times.tolist()):
        torch.testing.assert_close(velocity[i : i + 1], m.velocity(x[i : i + 1], time, bridge))
        torch.testing.assert_close(log_prob[i : i + 1].detach(), m.log_prob(x[i : i + 1], time, bridge))


@on_kinds
def test_two_sided_ends_in_closed_form(kinds):
    (m, cov_source, cov_data), x = pair(kinds), states()
    laws = law(SOURCE, cov_source, SOURCE_WEIGHTS), law(MEANS, cov_data)
    scores = [torch.func.grad(lambda y, p=p: p.log_prob(y).sum())(x) for p in laws]
    bridge = two_sided.linear()
    means = (SOURCE_WEIGHTS / 4) @ SOURCE, (WEIGHTS / 6) @ MEANS
    for end in (0, 1):
        known, unknown = (("source", "data"), ("data", "source"))[end]
        torch.testing.assert_close(m.log_prob(x, end, bridge), laws[end].log_prob(x))
        torch.testing.assert_close(m.score(x, end, bridge), scores[end])
        torch.testing.assert_close(getattr(m, known)(x, end, bridge), x)
        torch.testing.assert_close(getattr(m, unknown)(x, end, bridge), means[1 - end].expand_as(x))
        assert torch.equal(m.noise(x, end, bridge), torch.zeros_like(x))
    # b = data - source - gamma gamma' score, with gamma gamma' = 1/2 - t
    torch.testing.assert_close(m.velocity(x, 0.0, bridge), means[1] - x - scores[0] / 2)
    torch.testing.assert_close(m.velocity(x, 1.0, bridge), x - means[0] + scores[1] / 2)


@on_both
def test_two_sided_infinite_derivatives_are_met_by_their_limits(kind):
    """alpha = sqrt(1-t), beta = sqrt(t), gamma gamma' = 1 - 2t; both laws of mean zero."""
    (m, covariance), x = centred(kind), states()
    both, bridge = TwoSidedMixture(m, m), BRIDGES[2]
    score = m.score(x, 1.0, ip.linear())
    expected = -x / 2 - (score @ covariance) / 2 - score
    torch.testing.assert_close(both.velocity(x, 0.0, bridge), expected)
    torch.testing.assert_close(both.velocity(x, 1.0, bridge), -expected)


@on_kinds
@pytest.mark.parametrize("bridge", BRIDGES[:3], ids=lambda b: b.name)
def test_from_standard_noise_two_sides_are_one(kinds, bridge):
    """x_t has the law of beta data + sqrt(alpha^2 + gamma^2) noise, and the velocity too."""
    first, second = kinds.split()
    origin, unit = torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    normal = {"stds": unit} if first == "diagonal" else {"covariances": torch.diag_embed(unit)}
    both, m = TwoSidedMixture(GaussianMixture(origin, **normal), mixture(second)), mixture(second)
    x, times = states(), torch.tensor([0.05, 0.2, 0.5, 0.7, 0.9, 0.97], dtype=torch.float64)
    path = bridge.one_sided()
    for quantity in ("log_prob", "score", "velocity", "data"):
        got, expected = getattr(both, quantity)(x, times, bridge), getattr(m, quantity)(x, times, path)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@on_kinds
def test_two_sided_samples_have_the_moments_of_the_sum(kinds):
    m, *_ = pair(kinds)
    first, second = m.of_source, m.of_data
    generator, times = torch.Generator().manual_seed(4), torch.tensor([0.2, 0.7], dtype=torch.float64)
    samples = m.sample_at(60_000, times.repeat(30_000), BRIDGES[0], generator)
    (mean0, cov0), (mean1, cov1) = (each.moments(1.0, ip.linear()) for each in (first, second))
    for i, t in enumerate(times.tolist()):
        covariance = (1 - t) ** 2 * cov0 + t**2 * cov1 + t * (1 - t) * torch.eye(3).double()
        assert_moments(samples[i::2], (1 - t) * mean0 + t * mean1, covariance)
    again = m.sample_at(3, 0.5, BRIDGES[0], torch.Generator().manual_seed(0))
    assert torch.equal(again, m.sample_at(3, 0.5, BRIDGES[0], torch.Generator().manual_seed(0)))


@on_kinds
def test_two_sided_far_tails_are_finite_and_float32_is_rounded_once(kinds):
    (m, *covs), x = pair(kinds), torch.tensor([[1e3, 0.0, -2e3]], dtype=torch.float64)
    laws = zip((m.of_source, m.of_data), covs, strict=True)
    single = TwoSidedMixture(
        *(GaussianMixture(a.means.float(), weights=a.weights.float(), covariances=c.float()) for a, c in laws)
    )
    for quantity in ("log_prob", "score", "velocity", "noise", "data", "source"):
        for time in (0.0, 0.4, 1.0):
            got = getattr(single, quantity)(x.float(), time, BRIDGES[0])
            assert got.dtype == torch.float32
            expected = getattr(m, quantity)(x, time, BRIDGES[0]).float()
            torch.testing.assert_close(got, expected, rtol=2e-5, atol=1e-3)


# Wrong input


def refused(error, message, *args, **kwargs):
    with pytest.raises(error, match=re.escape(message)):
        GaussianMixture(*args, **kwargs)


def test_shapes_that_disagree_are_refused():
    ones = torch.ones
    refused(ValueError, "GaussianMixture: means must have shape (K, d), got (2,). A", ones(2), ones(2), ones(2))
    refused(ValueError, "means must have shape (K, d), got (2,)", ones(2), ones(2))
    refused(ValueError, "means must have shape (K, d), got (0, 2)", ones(0, 2), ones(0))
    refused(ValueError, "means must have shape (K, d), got (2, 0)", ones(2, 0), ones(2))
    contract = "for means of shape (K, d) = (2, 3), got"
    refused(ValueError, f"stds must have shape (K,) or (K, d) {contract} (3,).", ones(2, 3), ones(3), ones(2))
    refused(ValueError, f"weights must have shape (K,) {contract} (3,).", ones(2, 3), ones(2), ones(3))
    refused(ValueError, f"covariances must have shape (K, d, d) {contract} (2, 3).", ones(2, 3), covariances=ones(2, 3))


def test_deviations_or_covariances_are_given():
    message = "GaussianMixture: stds or covariances must be given, and not both, got"
    refused(ValueError, f"{message} neither.", MEANS)
    refused(ValueError, f"{message} both.", MEANS, STDS, covariances=covariances("full"))


def test_numbers_out_of_range_are_refused_with_their_component():
    def with_value(values, index, value):
        changed = values.clone()
        changed[index] = value
        return changed

    for value, shown in ((0.0, "0.0"), (-1.0, "-1.0"), (math.inf, "inf"), (math.nan, "nan")):
        message = f"must be positive and finite, got {shown} in component 1. Leave out"
        refused(ValueError, f"GaussianMixture: weights {message}", MEANS, STDS, with_value(WEIGHTS, 1, value))
        refused(ValueError, f"GaussianMixture: stds {message}", MEANS, with_value(STDS, (1, 2), value), WEIGHTS)
        refused(ValueError, f"stds {message}", MEANS, with_value(STDS[:, 0], 1, value), WEIGHTS)
    for value, square in ((1e-170, "0.0"), (1e170, "inf")):
        message = f"squares of stds must be positive and finite, got {square} in component 2"
        refused(ValueError, message, MEANS, with_value(STDS, (2, 0), value))
    for value in (math.inf, math.nan):
        message = "must be finite, got [-1.0, {value}, -0.4] in component 1."
        refused(
            ValueError, f"GaussianMixture: means {message.format(value=value)}", with_value(MEANS, (1, 1), value), STDS
        )
        broken = with_value(covariances("full"), (2, 0, 0), value)
        with pytest.raises(ValueError, match=r"covariances must be finite, got \[\[(inf|nan), .* in component 2"):
            GaussianMixture(MEANS, covariances=broken)


def test_covariances_are_symmetric_and_definite_or_refused_with_their_component():
    skew = covariances("full").clone()
    skew[1, 0, 2] += 0.25
    message = "covariances must be symmetric, got C with max|C - C.mT| = 0.25 in component 1. (C + C.mT) / 2 is."
    refused(ValueError, message, MEANS, covariances=skew)
    eye = torch.eye(3, dtype=torch.float64)
    message = "covariances must be positive definite, got least and largest eigenvalue {} and {} in component {}. Add"
    negative = torch.stack([eye, eye, torch.diag(torch.tensor([2.0, -0.5, 1.0]).double())])
    refused(ValueError, message.format("-0.5", 2, 2), MEANS, covariances=negative)
    refused(ValueError, message.format(0, 0, 0), MEANS, covariances=torch.stack([0 * eye, eye, eye]))
    ones = torch.stack([eye, torch.ones(3, 3, dtype=torch.float64), -eye])
    with pytest.raises(ValueError, match=r"positive definite, got least .* and 3 in component 1"):
        GaussianMixture(MEANS, covariances=ones)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_definite_and_symmetric_mean_within_the_rounding_of_the_dtype(dtype):
    bound, eye = 16 * torch.finfo(dtype).eps, torch.eye(2, dtype=dtype)  # 8 d eps
    means, skew = torch.zeros(1, 2, dtype=dtype), torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=dtype)
    refusal = pytest.raises(ValueError, match="in component 0")
    GaussianMixture(means, covariances=torch.diag(torch.tensor([4.0, 4.25 * bound], dtype=dtype))[None])
    with refusal:
        GaussianMixture(means, covariances=torch.diag(torch.tensor([4.0, 4 * bound], dtype=dtype))[None])
    GaussianMixture(means, covariances=(4 * eye + 4 * bound * skew)[None])
    with refusal:
        GaussianMixture(means, covariances=(4 * eye + 4.25 * bound * skew)[None])


def test_dtypes_that_differ_are_refused():
    half = "must have the dtype of means, torch.float64, got torch.float32. Cast one."
    refused(TypeError, f"GaussianMixture: stds {half}", MEANS, STDS.float())
    refused(TypeError, f"GaussianMixture: weights {half}", MEANS, STDS, WEIGHTS.float())
    refused(TypeError, f"GaussianMixture: covariances {half}", MEANS, covariances=covariances("full").float())
    refused(TypeError, "GaussianMixture: means must be floating point, got torch.int64.", torch.ones(2, 3).long(), STDS)
    refused(TypeError, "GaussianMixture: stds must be a tensor, got list. torch.tensor(stds)", MEANS, [1.0, 1.0])
    message = r"x: must have the dtype of the mixture, torch\.float64, got torch\.float32\. Cast"
    both = TwoSidedMixture(mixture(), mixture())
    for quantity in (*QUANTITIES, "posterior"):
        with pytest.raises(TypeError, match=message):
            getattr(mixture(), quantity)(states().float(), 0.5, ip.linear())
    with pytest.raises(TypeError, match=message):
        both.velocity(states().float(), 0.5, BRIDGES[0])
    with pytest.raises(
        TypeError, match=r"TwoSidedMixture: data must have the dtype of source, torch\.float64, got torch\.float32"
    ):
        TwoSidedMixture(mixture(), GaussianMixture(MEANS.float(), STDS.float()))


def test_states_of_another_shape_are_refused():
    for x in (states()[0], states(d=2), states()[None]):
        message = re.escape(f"x: must have shape (batch, d) with d = 3, got {tuple(x.shape)}. x.flatten(1)")
        with pytest.raises(ValueError, match=message):
            mixture().velocity(x, 0.5, ip.linear())
        with pytest.raises(ValueError, match=message):
            TwoSidedMixture(mixture(), mixture()).score(x, 0.5, BRIDGES[0])
    with pytest.raises(ValueError, match=r"TwoSidedMixture: data must have the dimension of source, 3, got 2\. Both"):
        TwoSidedMixture(mixture(), mixture(d=2))
    with pytest.raises(ValueError, match="t: must lie in"):
        mixture().velocity(states(), 1.5, ip.linear())
    with pytest.raises(ValueError, match="t: must be a scalar or have shape"):
        mixture().moments(torch.zeros(2, 2), ip.linear())
