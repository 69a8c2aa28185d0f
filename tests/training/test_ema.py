import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from training.ema import make_ema


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
