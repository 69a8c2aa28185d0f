"""A field gives every quantity of the mixture from a network that predicts any one of them, and guides it."""

import pytest
import torch
from mixtures import exact_field, mixture
from strategies import LIBRARY

import interpolants as ip
from training import Field


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("prediction", ip.QUANTITIES)
def test_every_quantity_of_an_exact_network_is_the_mixtures(path, prediction):
    m, field = mixture(), exact_field(path, prediction)
    x = torch.randn(8, 2, dtype=torch.float64)
    t = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    for quantity in ip.QUANTITIES:
        expected = getattr(m, quantity)(x, t, path)
        torch.testing.assert_close(getattr(field, quantity)(x, t), expected, rtol=1e-6, atol=1e-6)
        one = getattr(field, quantity)(x[:1], 0.1)
        torch.testing.assert_close(one, getattr(m, quantity)(x[:1], 0.1, path), rtol=1e-6, atol=1e-6)


class Labelled:
    """A network whose output tells its label: y, and -7 for the null class 10."""

    null_class = 10

    def __init__(self):
        self.batches = []

    def __call__(self, x, t, y):
        self.batches.append(len(x))
        return torch.where(y == 10, -7.0, y.to(x.dtype))[:, None].expand_as(x)


def test_guidance_extrapolates_from_the_null_class_in_one_call():
    network = Labelled()
    field = Field(network, ip.linear(), guidance_scale=1.5)
    x, y = torch.zeros(3, 2), torch.tensor([0, 4, 9])
    expected = torch.tensor([-7 + 1.5 * (c + 7) for c in (0.0, 4.0, 9.0)])
    torch.testing.assert_close(field.predict(x, 0.3, y)[:, 0], expected)
    assert network.batches == [6]


def test_guidance_of_scale_one_is_not_computed():
    network = Labelled()
    field = Field(network, ip.linear())
    assert field.predict(torch.zeros(3, 2), 0.3, torch.tensor([0, 4, 9]))[:, 0].tolist() == [0.0, 4.0, 9.0]
    assert network.batches == [3]


def test_guided_quantities_are_guided_conversions():
    """A conversion is affine in the prediction, so guiding before it and after it is the same."""
    path, x, y = ip.linear(), torch.randn(3, 2), torch.tensor([1, 2, 3])
    guided = Field(Labelled(), path, guidance_scale=2.0).score(x, 0.4, y)
    plain = Field(Labelled(), path)
    with_label, without = plain.score(x, 0.4, y), plain.score(x, 0.4, torch.full_like(y, 10))
    torch.testing.assert_close(guided, without + 2.0 * (with_label - without))


def test_wrong_input_is_refused():
    with pytest.raises(
        ValueError, match=r"Field: prediction must be one of .* got 'velocty'\. Did you mean 'velocity'"
    ):
        Field(Labelled(), ip.linear(), "velocty")
    with pytest.raises(ValueError, match=r"guidance_scale must be 1 for a network without model\.null_class"):
        Field(lambda x, t: x, ip.linear(), guidance_scale=2.0)
    with pytest.raises(ValueError, match="y must be given"):
        Field(Labelled(), ip.linear(), guidance_scale=2.0).predict(torch.zeros(1, 2), 0.5)
    with pytest.raises(ValueError, match=r"must return the shape of x, \(4, 2\), got \(4, 1\)"):
        Field(lambda x, t: x[:, :1], ip.linear()).predict(torch.zeros(4, 2), 0.5)
    with pytest.raises(ValueError, match=r"alpha must be 1 at the data end.* got sqrt\(2\)"):
        Field(Labelled(), ip.Path("sqrt(2)*t", "sqrt(2)*(1-t)"))
    with pytest.raises(TypeError, match=r"path must be an interpolants\.Path, got str"):
        Field(Labelled(), "linear")
    with pytest.raises(ValueError, match="guidance_scale must be finite"):
        Field(Labelled(), ip.linear(), guidance_scale=float("nan"))
    with pytest.raises(ValueError, match="in the paper's time"):
        Field(Labelled(), ip.linear().in_paper_time())
