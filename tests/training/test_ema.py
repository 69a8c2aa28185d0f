import copy
import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from training.ema import combine, make_averages, make_ema, make_power_ema, mixture, power_of_width, save_snapshot


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.full((2,), 5.0), requires_grad=False)
        self.register_buffer("running", torch.zeros(2))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


@given(decay=st.floats(0.0, 0.9999), values=st.lists(st.floats(-10, 10), min_size=1, max_size=30))
def test_it_follows_the_recursion_in_its_docstring(decay, values):
    net = Net()
    ema = make_ema(net, decay)
    expected = None
    for n, value in enumerate(values):
        net.weight.data.fill_(value)
        ema.update_parameters(net)
        d = min(decay, (1 + n) / (10 + n))
        expected = value if expected is None else d * expected + (1 - d) * value
    assert ema.module.weight.tolist() == pytest.approx([expected] * 3, rel=1e-12, abs=1e-12)
    assert int(ema.n_averaged) == len(values)


def test_buffers_are_copied_and_a_frozen_weight_stays_to_the_bit():
    net = Net()
    ema = make_ema(net, 0.9)
    for step in range(1, 4):
        net.running.fill_(float(step))
        net.count.fill_(step)
        ema.update_parameters(net)
    assert ema.module.running.tolist() == [3.0, 3.0]
    assert int(ema.module.count) == 3
    assert torch.equal(ema.module.frozen, net.frozen)


def test_the_network_is_left_alone_and_the_average_has_no_gradient():
    net = Net()
    before = copy.deepcopy(net.state_dict())
    ema = make_ema(net, 0.5)
    ema.module.weight.data.fill_(7.0)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert net.weight.requires_grad
    assert not any(p.requires_grad for p in ema.parameters())


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_outside_is_refused(decay):
    with pytest.raises(ValueError, match=r"make_ema: decay must be in \[0, 1\), got"):
        make_ema(Net(), decay)


# Averages of power functions


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.2, 12**-0.5])
def test_the_width_is_the_standard_deviation_of_the_power(width):
    power = mpmath.mpf(power_of_width(width))

    def moment(k):
        return mpmath.quad(lambda u: (power + 1) * u ** (power + k), [0, 0.5, 0.9, 1])

    assert float(mpmath.sqrt(moment(2) - moment(1) ** 2)) == pytest.approx(width, rel=1e-6)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.29, float("nan")])
def test_a_width_that_no_power_has_is_refused(width):
    with pytest.raises(ValueError, match=r"width must be in \(0, 0\.2887\], got"):
        make_power_ema(Net(), width)


def history(steps, seed=0):
    """The weights after each step of a random walk."""
    return torch.randn(steps, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).cumsum(0)


def averages_of(values, widths):
    """All averages after each step."""
    net = Net()
    averages = make_averages(net, [0.9], widths)
    for value in values:
        net.weight.data.copy_(value)
        for average in averages.values():
            average.update_parameters(net)
        yield averages


def weighted(values, width):
    """The average in one sum: the weight of step k is the product of the later decays with 1 - the decay of its own."""
    exponent = power_of_width(width) + 1
    steps = range(1, len(values) + 1)
    decays = [(1 - 1 / k) ** exponent for k in steps]
    weights = [(1 - decays[k - 1]) * math.prod(decays[k:]) for k in steps]
    assert sum(weights) == pytest.approx(1)
    return sum(w * v for w, v in zip(weights, values, strict=True))


@pytest.mark.parametrize("width", [0.05, 0.1, 0.25])
def test_the_recursion_is_the_weighted_sum_of_all_steps(width):
    values = history(60)
    *_, averages = averages_of(values, [width])
    torch.testing.assert_close(averages[f"ema-width-{width:g}"].module.weight.detach(), weighted(values, width))


def test_the_weights_of_the_steps_are_those_of_the_power_in_the_limit():
    """Of the weight that each step has, the share of the first half is (1/2)^(gamma + 1)."""
    steps, width = 4000, 0.1
    values = torch.zeros(steps, 3, dtype=torch.float64)
    values[: steps // 2] = 1.0
    assert weighted(values, width)[0].item() == pytest.approx(0.5 ** (power_of_width(width) + 1), rel=1e-2)


def test_the_averages_have_names_and_the_first_is_the_usual_one():
    averages = make_averages(Net(), [0.99, 0.9999], [0.05, 0.1])
    assert list(averages) == ["ema", "ema-0.9999", "ema-width-0.05", "ema-width-0.1"]


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory):
    run, values, widths = tmp_path_factory.mktemp("run"), history(400), (0.05, 0.1)
    for step, averages in enumerate(averages_of(values, widths), start=1):
        if step % 25 == 0:
            kept = {name: each.module.state_dict() for name, each in averages.items() if "width" in name}
            save_snapshot(run, step, kept)
    return run, values


@pytest.mark.parametrize("step", [200, 400])
@pytest.mark.parametrize("width", [0.04, 0.05, 0.075, 0.1, 0.15])
def test_any_width_is_had_afterwards(snapshots, width, step):
    run, values = snapshots
    found, distance = combine(run, width, step)
    wanted = weighted(values[:step], width)
    assert distance < 0.04  # 8 snapshots or 16, of two widths
    spread = values[:step].std(0)
    assert ((found["weight"] - wanted).abs() / spread).max() < 0.03
    torch.testing.assert_close(found["frozen"], torch.full((2,), 5.0), atol=1e-3, rtol=0)


def test_the_mixture_is_the_nearest_one():
    """The distance is that of a fine grid, no other weights of sum 1 come nearer, and one of the powers is itself."""
    powers, ends = [15.0, 5.0, 15.0, 5.0], [60, 60, 100, 100]
    weights, distance = mixture(powers, ends, 9.0, 100)
    times = np.linspace(0, 100, 200001)[1:]
    densities = [
        np.where(times <= t, (p + 1) * times**p / float(t) ** (p + 1), 0) for p, t in zip(powers, ends, strict=True)
    ]
    target = 10 * times**9.0 / 100.0**10

    def left(x):
        return np.sqrt(np.mean((x @ np.array(densities) - target) ** 2) / np.mean(target**2))

    assert sum(weights) == pytest.approx(1)
    assert left(weights) == pytest.approx(distance, rel=1e-3)
    for a, b in itertools.permutations(range(4), 2):
        other = weights.copy()
        other[a] += 0.02
        other[b] -= 0.02
        assert left(other) > distance
    itself, nothing = mixture(powers, ends, 5.0, 60)
    assert itself == pytest.approx([0, 1, 0, 0], abs=1e-6)
    assert nothing == pytest.approx(0, abs=1e-6)


def test_a_step_without_a_snapshot_is_refused(snapshots, tmp_path):
    run, _ = snapshots
    with pytest.raises(ValueError, match=r"step must be one of the snapshots in .*, 25, 50, .*, got 30"):
        combine(run, 0.1, 30)
    with pytest.raises(ValueError, match="none, got None"):
        combine(tmp_path, 0.1)
