"""The log-density, on laws that are known exactly: mixtures, and linear flows, whose log-density is a Gaussian's."""

import gc
import math
import warnings

import numpy as np
import pytest
import torch
from mixtures import exact_field, mixture
from scipy.integrate import solve_ivp
from scipy.stats import multivariate_normal, norm

import interpolants as ip
from models import SiT
from training import Field
from training.likelihood import Likelihood, dequantize, log_likelihood

A = torch.tensor([[0.3, 0.9, -0.2], [-0.5, -0.4, 0.6], [0.1, 0.2, 0.5]], dtype=torch.float64)


def linear_flow(matrix=A):
    """dx = A x dt: samples are exp(A) noise, the divergence is tr A at any x and t."""
    return Field(lambda x, t: x @ matrix.to(x.dtype).T, ip.linear())


def linear_flow_log_prob(x, matrix=A):
    root = torch.linalg.matrix_exp(matrix)
    return torch.from_numpy(np.atleast_1d(multivariate_normal(cov=(root @ root.T).numpy()).logpdf(x.numpy())))


def mixture_of(d):
    if d == 2:
        return mixture()
    generator = torch.Generator().manual_seed(d)
    means = torch.randn(3, d, generator=generator, dtype=torch.float64)
    stds = 0.4 + 0.5 * torch.rand(3, d, generator=generator, dtype=torch.float64)
    return ip.oracle.GaussianMixture(means, stds, torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64))


def field_of(m, path, prediction="velocity"):
    return Field(lambda x, t: getattr(m, prediction)(x, t, path), path, prediction)


def prior_mismatch(m, path, x, start=0.0, stop=1.0):
    """log N(x_start; 0, sigma(start)^2) - log p_start(x_start), x_start where scipy carries alpha(stop) x."""
    shape = x.shape

    def velocity(t, state):
        return m.velocity(torch.from_numpy(state).view(shape), t, path).numpy().ravel()

    solution = solve_ivp(velocity, (stop, start), path.alpha(stop) * x.ravel(), rtol=1e-9, atol=1e-10)
    end = torch.from_numpy(solution.y[:, -1]).view(shape)
    gaussian = torch.from_numpy(norm(scale=path.sigma(start)).logpdf(end.numpy())).sum(1)
    return gaussian - m.log_prob(end, start, path)


def signs(seed, indices, count, d):
    """The probes of each sample by hand; shape (samples, count, d)."""
    drawn = []
    for index in indices:
        state = int(np.random.SeedSequence((seed, index), spawn_key=(0,)).generate_state(1, np.uint64)[0]) >> 1
        drawn.append(torch.randint(0, 2, (count, d), generator=torch.Generator().manual_seed(state)) * 2.0 - 1.0)
    return torch.stack(drawn).double()


@pytest.mark.parametrize("d", [2, 8])
@pytest.mark.parametrize("path", [ip.linear(), ip.gvp()], ids=lambda p: p.name)
def test_it_is_the_density_of_the_mixture(path, d):
    m = mixture_of(d)
    x = m.sample(8, torch.Generator().manual_seed(0))
    result = log_likelihood(field_of(m, path), x)
    assert isinstance(result, Likelihood)
    exact = m.log_prob(x, 1.0, path)
    torch.testing.assert_close(result.nats, exact, rtol=0.0, atol=d * 1e-4)
    torch.testing.assert_close(result.bits_per_dim, -result.nats / (d * math.log(2)), rtol=1e-14, atol=0.0)
    assert result.standard_error.tolist() == [0.0] * 8


@pytest.mark.parametrize(
    ("path", "d", "largest"),
    [(ip.vp(), 2, 0.03), (ip.vp(), 8, 0.1), (ip.Path("1", "30*(1-t)+0.002"), 2, 0.2)],
    ids=["vp-2", "vp-8", "variance-exploding"],
)
def test_where_noise_does_not_start_alone_the_prior_is_what_samples_start_from(path, d, largest):
    """On vp alpha(0) = 0.0066: the density is exact for N(0, sigma(0)^2) at t = 0, and so much off for the data."""
    m = mixture_of(d)
    x = m.sample(8, torch.Generator().manual_seed(0))
    result = log_likelihood(field_of(m, path), x)
    mismatch = prior_mismatch(m, path, x)
    assert 1e-3 < mismatch.abs().max() < largest
    exact = m.log_prob(x, 1.0, path) + mismatch
    torch.testing.assert_close(result.nats, exact, rtol=0.0, atol=d * 1e-4)


@pytest.mark.parametrize("prediction", ["data", "noise", "score"])
def test_where_a_pole_cuts_the_interval_it_is_the_density_of_the_data_next_to_its_end(prediction):
    m, path = mixture(), ip.linear()
    x = m.sample(8, torch.Generator().manual_seed(0))
    result = log_likelihood(exact_field(path, prediction), x, rtol=1e-7, atol=1e-8)
    start, stop = path.ode(prediction).interval()
    assert (start > 0.0, stop < 1.0) == {"data": (False, True), "noise": (True, False), "score": (True, False)}[
        prediction
    ]
    alpha = path.alpha(stop)
    exact = m.log_prob(alpha * x, stop, path) + 2 * math.log(alpha) + prior_mismatch(m, path, x, start, stop)
    torch.testing.assert_close(result.nats, exact, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "bound"),
    # fehlberg2 controls the error of its solution of order 1, scaled by 1/512; dopri8 is exact to more than is asked.
    [("dopri5", 1e-5), ("dopri8", 1e-5), ("bosh3", 1e-5), ("fehlberg2", 1e-3), ("adaptive_heun", 1e-5)],
)
def test_adaptive_methods_follow_their_tolerances_inside_the_interval(method, bound):
    times, x = [], torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)

    def network(x, t):
        times.append(t[0].item())
        return x @ A.T

    errors = []
    for tolerance in (1e-2, 1e-6):
        nats = log_likelihood(Field(network, ip.linear()), x, method=method, rtol=tolerance, atol=tolerance).nats
        errors.append((nats - linear_flow_log_prob(x)).abs().item())
    assert errors[1] < bound
    assert errors[1] < max(errors[0] / 4, 1e-8)
    assert 0.0 <= min(times) <= max(times) <= 1.0


def test_either_tolerance_asks_for_more_steps():
    x, calls = mixture().sample(4, torch.Generator().manual_seed(0)), {}
    for rtol, atol in ((1e-3, 1e-9), (1e-9, 1e-3), (1e-9, 1e-9)):
        field = exact_field(ip.gvp())
        log_likelihood(field, x, rtol=rtol, atol=atol)
        calls[rtol, atol] = field.model.calls
    assert max(calls[1e-3, 1e-9], calls[1e-9, 1e-3]) < calls[1e-9, 1e-9]


@pytest.mark.parametrize(
    ("method", "order", "calls"), [("euler", 1, 1), ("midpoint", 2, 2), ("heun2", 2, 2), ("heun3", 3, 3), ("rk4", 4, 4)]
)
def test_fixed_step_methods_converge_at_their_order(method, order, calls):
    m, path, errors = mixture(), ip.gvp(), []
    x = m.sample(4, torch.Generator().manual_seed(0))
    for num_steps in (25, 50):
        field = exact_field(path)
        nats = log_likelihood(field, x, method=method, num_steps=num_steps).nats
        errors.append((nats - m.log_prob(x, 1.0, path)).abs().max().item())
        assert field.model.calls == calls * num_steps
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.3)


def test_fixed_step_methods_make_50_steps_unless_told():
    field = exact_field(ip.gvp())
    log_likelihood(field, mixture().sample(2), method="euler")
    assert field.model.calls == 50


def test_the_defaults_are_dopri5_to_1e5_with_the_exact_divergence():
    x = mixture().sample(4, torch.Generator().manual_seed(0))
    default = log_likelihood(exact_field(ip.gvp()), x)
    spelled = log_likelihood(exact_field(ip.gvp()), x, probes=None, method="dopri5", rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(default, spelled, rtol=0.0, atol=0.0)
    probed = log_likelihood(exact_field(ip.gvp()), x, probes=3)
    spelled = log_likelihood(exact_field(ip.gvp()), x, probes=3, probe="rademacher", seed=0, indices=range(4))
    torch.testing.assert_close(probed, spelled, rtol=0.0, atol=0.0)


def test_each_probe_is_one_vector_for_the_whole_solve():
    """For dx = A x dt the estimate is log N(exp(-A) x) - e^T A e: any second draw would leave this number."""
    x = torch.tensor([[0.5, -1.0, 2.0], [0.1, 0.2, 0.3]], dtype=torch.float64)
    result = log_likelihood(linear_flow(), x, probes=3, seed=7, indices=[4, 2], rtol=1e-9, atol=1e-10)
    e = signs(7, [4, 2], 3, 3)
    estimates = linear_flow_log_prob(x)[:, None] + A.trace() - torch.einsum("bki,ij,bkj->bk", e, A, e)
    torch.testing.assert_close(result.nats, estimates.mean(1), rtol=0.0, atol=1e-7)
    torch.testing.assert_close(result.standard_error, estimates.std(1) / math.sqrt(3), rtol=0.0, atol=1e-7)


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_hutchinsons_estimate_is_unbiased_and_knows_its_error(probe):
    """400 independent estimates of one sample, as a batch: their mean, their spread, and what each says of itself."""
    m, path = mixture(), ip.gvp()
    x = m.sample(1, torch.Generator().manual_seed(3))
    result = log_likelihood(field_of(m, path), x.expand(400, 2), probes=4, probe=probe, method="rk4", num_steps=20)
    exact = log_likelihood(field_of(m, path), x, method="rk4", num_steps=20).nats
    spread = result.nats.std().item()
    assert spread > 0.1  # so that the test can see a bias
    assert abs(result.nats.mean() - exact).item() < 3 * spread / 20
    # Five percent: the relative error of the spread of 400 is 1 / sqrt(800), and kurtosis adds to it.
    assert result.standard_error.square().mean().sqrt().item() == pytest.approx(spread, rel=0.12)


def test_the_variance_of_one_probe_is_that_of_its_law():
    """2 sum over i != j of S_ij^2 for signs, 2 sum of S_ij^2 for Gaussians, S the symmetric part of A."""
    x = torch.zeros(1500, 3, dtype=torch.float64)
    symmetric = (A + A.T) / 2
    off_diagonal = symmetric - torch.diag(symmetric.diag())
    for probe, matrix in (("rademacher", off_diagonal), ("gaussian", symmetric)):
        nats = log_likelihood(linear_flow(), x, probes=1, probe=probe, method="euler", num_steps=1).nats
        assert nats.var().item() == pytest.approx(2 * matrix.square().sum().item(), rel=0.15)


def test_signs_are_exact_for_a_diagonal_jacobian_and_gaussians_are_not():
    """The data have independent coordinates, so the velocity does."""
    stds = torch.tensor([[0.3, 0.8, 1.5]], dtype=torch.float64)
    m = ip.oracle.GaussianMixture(torch.tensor([[0.5, -1.0, 0.2]], dtype=torch.float64), stds)
    x = m.sample(4, torch.Generator().manual_seed(0))
    rademacher = log_likelihood(field_of(m, ip.gvp()), x, probes=3)
    assert rademacher.standard_error.max() < 1e-10
    torch.testing.assert_close(rademacher.nats, m.log_prob(x, 1.0, ip.gvp()), rtol=0.0, atol=3e-4)
    gaussian = log_likelihood(field_of(m, ip.gvp()), x, probes=3, probe="gaussian")
    assert gaussian.standard_error.min() > 0.01


def test_a_single_probe_has_no_standard_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = log_likelihood(linear_flow(), torch.zeros(2, 3), probes=1)
    assert result.standard_error.isnan().all()
    assert result.nats.isfinite().all()
    assert log_likelihood(linear_flow(), torch.zeros(2, 3), probes=2).standard_error.isfinite().all()


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_a_sample_of_a_seed_has_the_same_probes_in_any_batch(probe):
    x = mixture().sample(6, torch.Generator().manual_seed(0))

    def nats(rows, seed=3):
        field = exact_field(ip.gvp())
        settings = {"probes": 2, "probe": probe, "method": "rk4", "num_steps": 10}
        return log_likelihood(field, x[rows], seed=seed, indices=rows, **settings).nats

    whole = nats(range(6))
    torch.testing.assert_close(torch.cat([nats([0, 1]), nats([2, 3, 4, 5])]), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(nats([5, 2]), whole[[5, 2]], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(nats(range(6), seed=4), whole)


@pytest.mark.parametrize(("path", "method"), [(ip.linear(), "dopri5"), (ip.gvp(), "rk4")], ids=["linear", "gvp"])
def test_its_gradient_is_the_score(path, method):
    m = mixture()
    x = m.sample(4, torch.Generator().manual_seed(0)).requires_grad_()
    result = log_likelihood(exact_field(path), x, method=method, rtol=1e-6, atol=1e-7)
    (gradient,) = torch.autograd.grad(result.nats.sum(), x, retain_graph=True)
    torch.testing.assert_close(gradient, m.score(x, 1.0, path).detach(), rtol=0.0, atol=1e-4)
    (gradient,) = torch.autograd.grad(result.bits_per_dim.sum(), x)
    torch.testing.assert_close(gradient, -m.score(x, 1.0, path).detach() / (2 * math.log(2)), rtol=0.0, atol=1e-4)


def test_the_gradient_goes_through_attention_and_reaches_the_network():
    """The fused kernels of attention have no second derivative."""
    torch.manual_seed(0)
    model = SiT(input_size=2, patch_size=1, in_channels=1, hidden_size=16, depth=1, num_heads=2, num_classes=2).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, step = torch.randn(2, 1, 2, 2, dtype=torch.float64), 1e-5 * torch.randn(2, 1, 2, 2, dtype=torch.float64)
    field, settings = (
        Field(model, ip.linear()),
        {"y": torch.tensor([0, 1]), "method": "rk4", "num_steps": 3, "probes": 2},
    )
    result = log_likelihood(field, x.requires_grad_(), **settings)
    assert not result.standard_error.requires_grad
    result.nats.sum().backward()
    with torch.no_grad():
        difference = log_likelihood(field, x + step, **settings).nats - log_likelihood(field, x - step, **settings).nats
    torch.testing.assert_close((x.grad * step).flatten(1).sum(1), difference / 2, rtol=1e-5, atol=1e-12)
    assert all(parameter.grad is not None for parameter in model.blocks.parameters())


def test_without_a_gradient_to_the_data_nothing_of_the_graph_is_kept():
    model = torch.nn.Linear(617, 617)
    field = Field(lambda x, t: model(x), ip.linear())
    result = log_likelihood(field, torch.randn(2, 617), probes=2, method="euler", num_steps=2)
    assert not any(part.requires_grad for part in result)
    with torch.no_grad():
        result = log_likelihood(field, torch.randn(2, 617, requires_grad=True), probes=2, method="euler", num_steps=2)
    assert not any(part.requires_grad for part in result)

    alive = []

    def network(x, t):
        alive.append(sum(torch.is_tensor(o) and o.numel() == 2 * 617 for o in gc.get_objects()))
        return model(x)

    gc.collect()
    gc.freeze()  # what was there before is not looked at
    log_likelihood(Field(network, ip.linear()), torch.randn(2, 617), probes=2, method="euler", num_steps=20)
    gc.unfreeze()
    assert max(alive[5:]) <= alive[4]


def test_it_works_in_inference_mode():
    x, y = torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([1])
    embedding = torch.nn.Embedding(2, 3)
    field = Field(lambda x, t, y: x @ A.float().T * embedding(y), ip.linear())
    expected = log_likelihood(field, x, y=y)
    with torch.inference_mode():
        result = log_likelihood(field, x.clone(), y=y.clone())
    torch.testing.assert_close(result, expected)


def test_labels_and_guidance_reach_the_network():
    """Guidance u + 2.5 (c - u) of linear flows is a linear flow."""
    scales = torch.tensor([0.5, -0.3, 0.2], dtype=torch.float64)

    class Network:
        null_class = 2

        def __call__(self, x, t, y):
            return scales[y][:, None, None] * x

    x, y = torch.randn(2, 1, 3, dtype=torch.float64), torch.tensor([0, 1])
    for guidance_scale in (1.0, 2.5):
        field = Field(Network(), ip.linear(), guidance_scale=guidance_scale)
        scale = scales[2] + guidance_scale * (scales[y] - scales[2])
        deviations = scale.exp()[:, None, None].numpy()
        exact = torch.from_numpy(norm(scale=deviations).logpdf(x.numpy())).sum((1, 2))
        result = log_likelihood(field, x, y=y, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(result.nats, exact, rtol=0.0, atol=1e-5)
        torch.testing.assert_close(result.bits_per_dim, -exact / (3 * math.log(2)), rtol=0.0, atol=1e-5)


def test_a_network_in_training_mode_is_evaluated_and_stays_in_it():
    class Noisy(torch.nn.Module):
        def forward(self, x, t):
            return x * math.nan if self.training else x

    model = Noisy().train()
    assert log_likelihood(Field(model, ip.linear()), torch.zeros(1, 2)).nats.isfinite().all()
    assert model.training


@pytest.mark.parametrize(
    ("given", "result"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_the_state_is_float32_at_least_and_the_network_sees_the_dtype_of_the_data(given, result):
    seen, x = set(), torch.tensor([[0.5, -1.0, 2.0]])

    def network(state, t):
        seen.add((state.dtype, t.dtype))
        return (state.double() @ A.T).to(state.dtype)

    likelihood = log_likelihood(Field(network, ip.linear()), x.to(given), method="heun2", num_steps=100)
    assert seen == {(given, result)}
    assert {part.dtype for part in likelihood} == {result}
    tolerance = {torch.bfloat16: 0.05, torch.float32: 1e-3, torch.float64: 1e-3}[given]
    torch.testing.assert_close(likelihood.nats.double(), linear_flow_log_prob(x.double()), rtol=0.0, atol=tolerance)


def test_dequantization_is_uniform_noise_of_one_bin_from_the_images_own_stream():
    images = torch.tensor([[[0, 255], [128, 7]], [[1, 2], [3, 4]]], dtype=torch.uint8)
    x = dequantize(images, seed=5, indices=[9, 4])
    for row, index in enumerate([9, 4]):
        state = int(np.random.SeedSequence((5, index), spawn_key=(1,)).generate_state(1, np.uint64)[0]) >> 1
        u = torch.rand(2, 2, generator=torch.Generator().manual_seed(state))
        torch.testing.assert_close(x[row], (images[row].float() + u - 0.5) / 127.5 - 1, rtol=0.0, atol=1e-6)
    assert x.dtype == torch.float32
    torch.testing.assert_close(dequantize(images), dequantize(images, seed=0, indices=range(2)), rtol=0.0, atol=0.0)
    bins = (dequantize(torch.full((50, 200), 9, dtype=torch.uint8)) + 1) * 127.5 - 9
    assert -0.5 <= bins.min() < -0.499 < 0.499 < bins.max() <= 0.5
    assert bins.mean().item() == pytest.approx(0.0, abs=4 / math.sqrt(12 * 10_000))


def test_the_probes_are_independent_of_the_noise_on_the_images():
    images = torch.full((400, 8), 100, dtype=torch.uint8)
    u = (dequantize(images, seed=1) + 1) * 127.5 - 100
    correlation = (u.double() * signs(1, range(400), 1, 8)[:, 0]).mean() * math.sqrt(12)
    assert abs(correlation) < 4 / math.sqrt(3200)


def test_bits_of_images_are_those_of_their_probability():
    """Samples of the flow are N(0, 0.5^2), nearly constant over a bin: the bound is the probability's, to 1e-4 bits."""
    rate = math.log(0.5)
    field = Field(lambda x, t: rate * x, ip.linear())
    images = torch.tensor([[[0, 60], [127, 128]], [[200, 255], [90, 150]]], dtype=torch.uint8)
    result = log_likelihood(field, images, seed=3, indices=[7, 8], rtol=1e-6, atol=1e-6)
    x = dequantize(images, seed=3, indices=[7, 8]).double().numpy()
    nats = torch.from_numpy(norm(scale=0.5).logpdf(x).sum((1, 2)))
    torch.testing.assert_close(result.nats.double(), nats, rtol=0.0, atol=1e-4)
    edges = (images.double().numpy() - 0.5) / 127.5 - 1, (images.double().numpy() + 0.5) / 127.5 - 1
    probability = norm(scale=0.5).cdf(edges[1]) - norm(scale=0.5).cdf(edges[0])
    bits = torch.from_numpy(-np.log2(probability).mean((1, 2)))
    torch.testing.assert_close(result.bits_per_dim.double(), bits, rtol=0.0, atol=0.03)
    assert result.nats.dtype == torch.float32


def test_bits_of_images_bound_their_probability_from_above_by_jensens_gap():
    """With a deviation of half a bin log p is far from constant over it; its mean over u is known in closed form."""
    deviation, count = 0.5 / 127.5, 4000
    field = Field(lambda x, t: math.log(deviation) * x, ip.linear())
    # The mean of the samples is 0, half a bin above k = 127.
    images = torch.full((count, 1), 127, dtype=torch.uint8)
    bits = log_likelihood(field, images, method="rk4", num_steps=40).bits_per_dim.double()
    second_moment = 0.25 + 1 / 12  # of (k' - 127.5) in bins
    expected = 0.5 * math.log2(2 * math.pi * 0.25) + second_moment / (2 * 0.25 * math.log(2))
    assert bits.mean().item() == pytest.approx(expected, abs=4 * bits.std().item() / math.sqrt(count))
    assert expected > -math.log2(norm.cdf(0.0) - norm.cdf(-2.0)) + 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "dopri"}, "method must be one of euler, midpoint, heun2, heun3, rk4, dopri5, .*, got 'dopri'"),
        ({"probe": "sphere", "probes": 1}, "probe must be one of rademacher, gaussian, got 'sphere'"),
        ({"probe": "sphere"}, "probe must be one of rademacher, gaussian, got 'sphere'"),
        ({"probes": 0}, r"probes must be an integer of at least 1, got 0\. Leave it out, or None, for the exact"),
        ({"probes": True}, "probes must be an integer of at least 1, got True"),
        ({"probes": 2.0}, "probes must be an integer of at least 1, got 2.0"),
        ({"num_steps": 0}, "num_steps must be an integer of at least 1, got 0"),
        ({"num_steps": 2.5}, "num_steps must be an integer of at least 1, got 2.5"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": False}, "seed must be an integer of at least 0, got False"),
        ({"rtol": 0.0}, "rtol must be positive and finite, got 0.0"),
        ({"atol": math.inf}, "atol must be positive and finite, got inf"),
        ({"atol": math.nan}, "atol must be positive and finite, got nan"),
        ({"indices": [1]}, "indices must have one index a sample, 2, got 1"),
        ({"indices": [1, -1]}, "each of indices must be an integer of at least 0, got -1"),
        ({"indices": [1, 0.5]}, "each of indices must be an integer of at least 0, got 0.5"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^log_likelihood: {message}"):
        log_likelihood(linear_flow(), torch.zeros(2, 3), **arguments)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            torch.zeros(2, 3, dtype=torch.int64),
            TypeError,
            "must be floating point .*, or uint8 images, got torch.int64",
        ),
        (np.zeros((2, 3)), TypeError, "must be a torch.Tensor, got ndarray"),
        (torch.zeros(3), ValueError, r"must be of shape \(batch, ...\) and not empty, got \(3,\)"),
        (torch.zeros(3, dtype=torch.uint8), ValueError, r"must be of shape \(batch, ...\) and not empty, got \(3,\)"),
        (torch.zeros(0, 3), ValueError, r"must be of shape \(batch, ...\) and not empty, got \(0, 3\)"),
        (torch.tensor([[0.0, math.inf]]), ValueError, "must be finite, got NaN or infinity"),
    ],
)
def test_wrong_data_are_refused(data, error, message):
    with pytest.raises(error, match=f"^log_likelihood: data {message}"):
        log_likelihood(linear_flow(), data)


@pytest.mark.parametrize(
    ("images", "arguments", "error", "message"),
    [
        (torch.zeros(2, 3), {}, TypeError, "images must be of torch.uint8, got torch.float32"),
        ([[0]], {}, TypeError, "images must be a torch.Tensor, got list"),
        (torch.zeros(2, dtype=torch.uint8), {}, ValueError, r"images must be of shape \(batch, ...\) and not empty"),
        (torch.zeros(2, 3, dtype=torch.uint8), {"seed": -1}, ValueError, "seed must be an integer of at least 0"),
        (torch.zeros(2, 3, dtype=torch.uint8), {"indices": [1]}, ValueError, "indices must have one index a sample"),
        (torch.zeros(1, 3, dtype=torch.uint8), {"indices": [-1]}, ValueError, "each of indices must be an integer"),
    ],
)
def test_wrong_images_are_refused(images, arguments, error, message):
    with pytest.raises(error, match=f"^dequantize: {message}"):
        dequantize(images, **arguments)


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_a_network_that_is_not_finite_is_reported(method):
    data = torch.tensor([[0.0, 1.0], [2.0, 1.0], [0.0, 0.0]])
    field = Field(lambda x, t: torch.where(x > 1.5, math.nan, x), ip.linear())
    with pytest.raises(ValueError, match=r"NaN or infinity for 1 of 3 samples at t = 1\. Check the network"):
        log_likelihood(field, data, method=method)
    field = Field(lambda x, t: x.abs().sqrt(), ip.linear())  # finite at 0, but its derivative is not
    with pytest.raises(ValueError, match=r"velocity and its divergence must be finite, got NaN or infinity for 2 of 3"):
        log_likelihood(field, data, method=method)


def test_the_base_density_is_that_of_the_noise():
    """dx/dt = 0.3 x carries noise of a Laplace law to data of one that is e^0.3 times as wide."""
    laplace = torch.distributions.Laplace(0.0, 1.0)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    field = Field(lambda x, t: 0.3 * x, ip.linear())
    got = log_likelihood(field, x, rtol=1e-8, atol=1e-9, base=lambda noise: laplace.log_prob(noise).sum(1)).nats
    expected = torch.distributions.Laplace(0.0, math.exp(0.3)).log_prob(x).sum(1)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=r"base must return one number a sample, shape \(5,\), got \(5, 3\)"):
        log_likelihood(field, x, base=laplace.log_prob)
