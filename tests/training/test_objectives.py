"""The loss, against the official formulas written by hand, and its times."""

import pytest
import torch
from strategies import LIBRARY

import interpolants as ip
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
    assert InterpolantLoss(ip.linear(), "noise").interval == (0.0, 1.0)
    assert InterpolantLoss(ip.linear(), "noise", "velocity").interval[0] == pytest.approx(1e-3, rel=0.01)


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
