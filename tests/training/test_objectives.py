"""The loss, against the official formulas written by hand, and its times."""

import math

import mpmath as mp
import pytest
import torch
from gaussian import tensor
from strategies import LIBRARY

import interpolants as ip
import interpolants.time_density
import interpolants.weights
from training import InterpolantLoss


def batch(dims=(3, 4, 4)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn((6, *dims), dtype=torch.float64, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
def test_losses_are_the_official_ones(path):
    data, noise, out = batch()
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    alpha, sigma, d_alpha, d_sigma = (
        c(t)[:, None, None, None] for c in (path.alpha, path.sigma, path.d_alpha, path.d_sigma)
    )
    d = d_alpha / alpha * sigma**2 - sigma * d_sigma
    expected = {
        ("velocity", None): out - (d_alpha * data + d_sigma * noise),
        ("noise", None): out - noise,
        ("data", None): out - data,
        ("score", None): sigma * out + noise,
        ("noise", "velocity"): d / sigma * (out - noise),
        ("score", "velocity"): d / sigma * (sigma * out + noise),
        ("score", "score"): out + noise / sigma,
    }
    for (prediction, space), error in expected.items():
        loss = InterpolantLoss(path, prediction, space).at(lambda x, t: out, data, noise, t)
        torch.testing.assert_close(loss, error.square().mean((1, 2, 3)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("prediction", ip.QUANTITIES)
def test_a_network_sees_the_interpolant_and_its_exact_answer_costs_nothing(path, prediction):
    data, noise, _ = batch()
    t = torch.linspace(0.2, 0.8, 6, dtype=torch.float64)

    def network(x, time, y):
        torch.testing.assert_close(
            x, path.alpha(t)[:, None, None, None] * data + path.sigma(t)[:, None, None, None] * noise
        )
        assert torch.equal(time, t)
        assert y.tolist() == [0, 1, 2, 3, 4, 5]
        return path.target(prediction, data, noise, t)

    loss = InterpolantLoss(path, prediction).at(network, data, noise, t, torch.arange(6))
    torch.testing.assert_close(loss, torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-20)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("prediction", ip.QUANTITIES)
@pytest.mark.parametrize("space", [None, *ip.QUANTITIES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_are_finite_at_both_ends_of_the_interval(path, prediction, space, dtype):
    data, noise, out = (v.to(dtype) for v in batch())
    objective = InterpolantLoss(path, prediction, space)
    for end in objective.interval:
        assert objective.at(lambda x, t: out, data, noise, torch.full((6,), end)).isfinite().all()


def test_intervals_are_those_of_the_official_code_or_longer():
    assert InterpolantLoss(ip.linear()).interval == (0.0, 1.0)
    assert InterpolantLoss(ip.gvp()).interval == (0.0, 1.0)
    start, stop = InterpolantLoss(ip.vp()).interval  # the velocity's sigma' has a pole at t = 1
    assert start == 0.0
    assert 1 - 1e-5 < stop < 1.0
    assert stop == pytest.approx(1 - 1e-5, abs=2e-6)
    assert InterpolantLoss(ip.linear(), "noise").interval == (0.0, 1.0)
    assert InterpolantLoss(ip.linear(), "noise", "velocity").interval[0] == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize(
    ("path", "of_loss"),
    [
        (ip.vp(), lambda t: mp.diff(vp_alpha, t) ** 2 + mp.diff(lambda s: mp.sqrt(1 - vp_alpha(s) ** 2), t) ** 2),
        (ip.Path("t", "(1-t)**0.6"), lambda t: 1 + (0.6 * (1 - t) ** -0.4) ** 2),
        (ip.Path("t**0.6", "1-t"), lambda t: (0.6 * t**-0.4) ** 2 + 1),
    ],
)
def test_the_loss_keeps_away_from_a_pole_as_far_as_its_second_moment_asks(path, of_loss):
    """Moments by mpmath's quadrature of alpha'^2 + sigma'^2, in the distance to the pole."""
    low, high = InterpolantLoss(path).interval
    cut, end = (low, 0) if low else (1 - high, 1)

    def noise(distance):
        with mp.workdps(40):
            at = lambda u: of_loss(mp.exp(u) if end == 0 else 1 - mp.exp(u)) * mp.exp(u / 2)  # noqa: E731
            steps = [
                mp.log(distance),
                *[mp.log(mp.mpf(10) ** -k) for k in range(14, -1, -1) if 10.0**-k > 2 * distance],
            ]
            mean = mp.quad(lambda u: at(u) * mp.exp(u / 2), steps)
            return mp.sqrt(mp.quad(lambda u: at(u) ** 2, steps) * (1 - distance)) / mean

    assert noise(cut) <= 2.6 * (1 + 1e-6)
    assert noise(cut / 1.3) > 2.6


def vp_alpha(t):
    return mp.exp(-(mp.mpf("9.95") * (1 - t) ** 2 + mp.mpf("0.1") * (1 - t)) / 2)


def test_a_loss_is_not_noisier_than_asked_unless_that_takes_a_thousandth_of_the_times():
    """By sampling it; for a network of zeros and data of unit variance the mean square of chi^2 / d is 1 + 2 / d."""
    torch.manual_seed(0)
    d = 16
    density, proposal = ip.time_density.logit_normal(0.0, 1.5), ip.time_density.mode()
    for options in ({}, {"weight": "1+t"}, {"time": density}, {"time": density, "proposal": proposal}):
        loss = InterpolantLoss(ip.vp(), **options)
        values = torch.cat([loss(lambda x, t: torch.zeros_like(x), torch.randn(200_000, d)) for _ in range(5)]).double()
        noise = (values.square().mean() / (1 + 2 / d)).sqrt() / values.mean()
        assert noise < 2.8
        assert 0 < 1 - loss.interval[1] < 1e-3
    score = InterpolantLoss(ip.linear(), "score", "score")
    assert score.interval[1] == pytest.approx(1 - 1e-3, abs=1e-5)


def test_times_are_uniform_on_the_interval_and_drawn_where_the_data_is():
    objective = InterpolantLoss(ip.linear(), interval=(0.25, 0.75))
    times = objective.sample_times(torch.zeros(20_000, 1))
    assert 0.25 <= times.min() < 0.251
    assert 0.749 < times.max() <= 0.75
    histogram = torch.histc(times, bins=10, min=0.25, max=0.75)
    assert (histogram - 2000).abs().max() < 5 * 2000**0.5  # five standard deviations
    assert objective.sample_times(torch.zeros(2, 1, dtype=torch.bfloat16)).dtype == torch.float32


def test_one_seed_gives_one_loss_and_a_value_for_each_sample():
    data = batch()[0].float()
    objective = InterpolantLoss(ip.gvp())
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(objective(lambda x, t: x, data))
    assert losses[0].shape == (6,)
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_a_network_of_another_shape_is_refused_not_broadcast():
    data = batch()[0]
    with pytest.raises(ValueError, match=r"must return the shape of data, \(6, 3, 4, 4\), got \(6, 1, 4, 4\)"):
        InterpolantLoss(ip.linear())(lambda x, t: x[:, :1], data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prediction": "velocty"}, "prediction must be one of"),
        ({"space": "x"}, "space must be one of"),
        ({"interval": (0.5, 0.5)}, r"interval must be inside \[0, 1\]"),
        ({"interval": (0.0, 1.5)}, r"interval must be inside \[0, 1\]"),
    ],
)
def test_wrong_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        InterpolantLoss(ip.linear(), **arguments)


@pytest.mark.parametrize("prediction", ip.QUANTITIES)
@pytest.mark.parametrize(
    ("weight", "space", "by_hand"),
    [
        ("edm", "data", lambda alpha, sigma: 4 + (alpha / sigma) ** 2),
        (
            ip.weights.sigmoid(1.0),
            "noise",
            lambda alpha, sigma: 1 / (1 + torch.exp(-tensor(1.0)) * (alpha / sigma) ** 2),
        ),
    ],
    ids=["edm", "sigmoid"],
)
def test_a_named_weight_multiplies_the_error_of_its_own_quantity(prediction, weight, space, by_hand):
    path, (data, noise, out) = ip.gvp(), batch()
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    x = path.interpolate(data, noise, t)
    target = path.target(space, data, noise, t)
    error = path.convert(out, x, t, source=prediction, target=space) - target
    objective = InterpolantLoss(path, prediction, weight=weight)
    assert objective.space == space
    expected = by_hand(path.alpha(t), path.sigma(t)) * error.square().mean((1, 2, 3))
    torch.testing.assert_close(objective.at(lambda x, t: out, data, noise, t), expected, rtol=1e-9, atol=1e-9)


def test_a_weight_that_is_text_multiplies_the_error_in_the_space():
    data, noise, out = batch()
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    for prediction, space in (("velocity", None), ("velocity", "noise"), ("score", None), ("data", "velocity")):
        plain = InterpolantLoss(ip.linear(), prediction, space)
        weighted = InterpolantLoss(ip.linear(), prediction, space, weight="1+t**2")
        assert weighted.space == plain.space
        losses = [loss.at(lambda x, t: out, data, noise, t) for loss in (plain, weighted)]
        torch.testing.assert_close(losses[1], (1 + t**2) * losses[0])


def test_the_interval_stops_where_a_weight_is_the_square_of_the_largest_gain():
    assert InterpolantLoss(ip.linear(), "data", weight="elbo").interval[0] == 0.0
    stop = InterpolantLoss(ip.linear(), "data", weight="edm").interval[1]  # 4 + t^2 / (1 - t)^2 = 1e6
    assert stop == pytest.approx(1 - 1e-3, abs=2e-5)
    both = InterpolantLoss(ip.linear(), "noise", "velocity", weight="1/(1-t)**2").interval  # the gain is 1 / t
    assert both == (pytest.approx(1e-3, rel=0.01), pytest.approx(1 - 1e-3, abs=2e-5))
    assert InterpolantLoss(ip.linear(), weight="edm").interval == (0.0, 1.0)  # of the velocity it has no pole


def test_times_have_the_density_asked_for_within_the_interval():
    density = ip.time_density.logit_normal()
    objective = InterpolantLoss(ip.linear(), time=density)
    torch.manual_seed(0)
    times = objective.sample_times(torch.zeros(20_000, 1))
    assert times.dtype == torch.float32
    logit = torch.logit(times.double())
    assert abs(logit.mean().item()) < 5 / 20_000**0.5
    assert logit.std().item() == pytest.approx(1.0, abs=5 / 40_000**0.5)
    cut = InterpolantLoss(ip.linear(), interval=(0.25, 0.75), time=density)
    assert cut.time.support == (0.25, 0.75)
    times = cut.sample_times(torch.zeros(20_000, 1))
    assert 0.25 <= times.min() < 0.251
    assert 0.749 < times.max() <= 0.75
    assert (times < 0.5).double().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / 20_000**0.5)
    assert objective.sample_times(torch.zeros(2, 1, dtype=torch.bfloat16)).dtype == torch.float32
    assert InterpolantLoss(ip.linear(), interval=(0.25, 0.75)).time.support == (0.25, 0.75)


def test_times_of_ddpm_are_its_thousand_equally_often():
    loss = InterpolantLoss(ip.vp(), "noise", time_steps=10)
    torch.manual_seed(0)
    times = loss.sample_times(torch.zeros(20_000, 1, dtype=torch.float64))
    values, counts = times.unique(return_counts=True)
    assert torch.equal(values, torch.arange(10, dtype=torch.float64) / 10)  # 1 would be the data, without noise
    assert float((counts / 2000 - 1).abs().max()) < 0.1  # 4.5 standard deviations
    by_density = InterpolantLoss(ip.linear(), time=ip.time_density.logit_normal(), time_steps=4)
    counts = by_density.sample_times(torch.zeros(20_000, 1)).unique(return_counts=True)[1] / 20_000
    quarter = 0.5 * math.erfc(math.log(3) / math.sqrt(2))  # logit(1/4) = -log 3
    assert counts.tolist() == pytest.approx([quarter, 0.5 - quarter, 0.5 - quarter, quarter], abs=0.015)


def test_uniform_times_are_those_that_torch_draws():
    """Bit for bit: runs that are resumed draw the times that they would have drawn."""
    objective = InterpolantLoss(ip.linear(), interval=(0.25, 0.75))
    torch.manual_seed(0)
    times = objective.sample_times(torch.zeros(7, 1))
    torch.manual_seed(0)
    assert torch.equal(times, 0.25 + 0.5 * torch.rand(7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("time", [None, ip.time_density.cos_map()])
def test_a_proposal_leaves_the_expected_loss_and_takes_its_variance(time, dtype):
    """For a network that is wrong by 1 everywhere, with the weight 3 t^2: the loss is E[3 t^2]."""
    path = ip.linear()
    weight = ip.Coefficient(3 * ip.t**2)
    density = time or ip.time_density.uniform()
    proposal = ip.time_density.optimal(weight, density)
    objective = InterpolantLoss(path, time=time, weight="3*t**2", proposal=proposal)
    grid = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    expected = torch.trapezoid(3 * grid**2 * density(grid), grid).item()
    data = torch.zeros(4000, 1, dtype=dtype)
    torch.manual_seed(0)
    noise = torch.randn_like(data)  # what the loss draws first
    torch.manual_seed(0)
    losses = objective(lambda x, t: 1 - noise, data)  # velocity = data - noise
    assert losses.dtype == dtype
    assert losses.mean().item() == pytest.approx(expected, rel=2e-3)
    assert losses.std().item() < 0.05  # 0.9 under the density itself
    t = torch.tensor([0.5], dtype=dtype)
    at_half = objective.at(lambda x, t: 1 - noise[:1], data[:1], noise[:1], t)
    assert at_half.item() == pytest.approx(0.75)  # at a given time no density is in it


def test_densities_of_the_loss_are_cut_to_its_interval():
    density = ip.time_density.uniform(0.1, 0.9)
    objective = InterpolantLoss(ip.linear(), interval=(0.25, 1.0), time=density, proposal=ip.time_density.mode())
    assert (objective.time.support, objective.proposal.support) == ((0.25, 0.9), (0.25, 1.0))
    assert InterpolantLoss(ip.linear()).proposal is None
    assert InterpolantLoss(ip.linear()).weight is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": "min_snrr"}, "^weight: .*Did you mean 'min_snr'"),
        ({"weight": "edm", "space": "noise"}, "space must be None with a weight of the error of the data, got 'noise'"),
        ({"time": ip.time_density.uniform(0.1, 0.2), "interval": (0.5, 1.0)}, "^truncated: "),
        ({"proposal": ip.time_density.uniform(0.1, 1.0)}, "^importance_sampled: the support of proposal must hold"),
        ({"proposal": ip.time_density.uniform(), "time_steps": 10}, "time_steps must be None with a proposal"),
        ({"interval": (0.25, 1.0), "time_steps": 10}, "interval must start at a multiple of 1 / 10, got 0.25"),
        ({"time_steps": 0}, "time_steps must be at least 1, or None, got 0"),
    ],
)
def test_weights_and_densities_that_disagree_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        InterpolantLoss(ip.linear(), **arguments)
