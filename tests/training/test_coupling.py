import itertools

import pytest
import torch

from training.coupling import optimal_transport


def cost(data, noise):
    return (data - noise).square().sum().item()


@pytest.mark.parametrize("seed", range(5))
def test_no_permutation_is_cheaper(seed):
    generator = torch.Generator().manual_seed(seed)
    data, noise = torch.randn(2, 6, 3, 2, generator=generator)
    found = optimal_transport(data, noise)
    assert sorted(found.tolist()) == list(range(6))
    least = min(cost(data, noise[list(order)]) for order in itertools.permutations(range(6)))
    assert cost(data, noise[found]) == pytest.approx(least, rel=1e-6)


def test_each_class_is_by_itself():
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 12, 4, generator=generator)
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 1, 0, 3, 1, 0, 1])
    found = optimal_transport(data, noise, labels)
    assert torch.equal(labels[found], labels)
    for label in range(4):
        rows = (labels == label).nonzero().flatten()
        alone = optimal_transport(data[rows], noise[rows])
        assert torch.equal(found[rows], rows[alone])


def test_on_a_line_the_order_is_kept():
    """Where the optimal map is known: sorted goes with sorted."""
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 100, 1, generator=generator)
    found = optimal_transport(3 * data + 1, noise)
    assert torch.equal(noise[found][data[:, 0].argsort()], noise.sort(0).values)
