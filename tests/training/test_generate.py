import dataclasses

import pytest
import torch

import interpolants as ip
from models import create_model
from training.config import ODEConfig, SamplingConfig, SDEConfig
from training.fields import Field
from training.generate import draw


@pytest.fixture(scope="module")
def field():
    torch.manual_seed(0)
    model = create_model("SiT-T/8", input_size=8, in_channels=1, num_classes=3).eval()
    for parameter in model.parameters():  # A fresh network returns zero, whatever it is asked.
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return Field(model, ip.linear())


@pytest.mark.parametrize(
    "sampler",
    [
        ODEConfig("heun2", 4),
        ODEConfig("unipc2", 4, "edm"),
        SDEConfig("sigma", 4),
        SDEConfig("sigma", 4, "exponential2", "cosine"),
    ],
    ids=str,
)
def test_samples_do_not_depend_on_the_batch_in_which_they_are_drawn(field, sampler):
    settings = SamplingConfig(num_samples=7, batch_size=7, seed=3)
    samples, labels = draw(field, sampler, settings)
    assert samples.shape == (7, 1, 8, 8)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    apart, _ = draw(field, sampler, dataclasses.replace(settings, batch_size=3))
    torch.testing.assert_close(apart, samples, rtol=1e-4, atol=1e-5)
    other, _ = draw(field, sampler, dataclasses.replace(settings, seed=4))
    assert (other - samples).abs().max() > 0.1


def test_each_sample_is_asked_for_its_class(field):
    asked = []

    class Spy(torch.nn.Module):
        input_shape, num_classes, pos_embed = field.model.input_shape, 3, torch.zeros(1)

        def forward(self, x, t, y):
            asked.append(y.tolist())
            return x

    draw(Field(Spy(), ip.linear()), ODEConfig("euler", 1), SamplingConfig(num_samples=5, batch_size=4))
    assert asked == [[0, 1, 2, 0], [1]]
