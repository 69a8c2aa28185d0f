"""A two-dimensional mixture as the law of the data, and a network that is exact for it."""

import torch

import interpolants as ip
from training import Field


def mixture():
    means = torch.tensor([[1.5, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    stds = torch.tensor([0.4, 0.6], dtype=torch.float64)
    return ip.oracle.GaussianMixture(means, stds, torch.tensor([0.4, 0.6], dtype=torch.float64))


def moments():
    """Mean and covariance of the mixture."""
    m = mixture()
    mean = (m.weights[:, None] * m.means).sum(0)
    second = torch.diag_embed(m.stds**2) + m.means[:, :, None] * m.means[:, None, :]
    return mean, (m.weights[:, None, None] * second).sum(0) - mean[:, None] * mean


class Counted:
    """A network that counts its calls."""

    def __init__(self, network):
        self.network, self.calls = network, 0

    def __call__(self, x, t):
        self.calls += 1
        return self.network(x, t)


def exact_field(path, prediction="velocity"):
    m = mixture()
    return Field(Counted(lambda x, t: getattr(m, prediction)(x, t, path)), path, prediction)
