import numpy as np
import pytest
import torch

import interpolants as ip
from training import Field
from training.config import ODEConfig
from training.figures import GAP
from training.preview import sample_picture

EULER = ODEConfig("euler", 4)


def constant(velocity) -> Field:
    """Noise is moved by ``velocity``, or that of its label."""
    return Field(lambda x, t, y=0: torch.zeros_like(x) + velocity(y), ip.linear())


def times_asked(sampler) -> list[float]:
    asked = []
    field = Field(lambda x, t: asked.append(t[0].item()) or x, ip.linear())
    sample_picture(field, (1, 1, 2, 2), sampler)
    return asked


def test_the_sampler_is_the_one_that_is_asked_for():
    assert times_asked(ODEConfig("euler", 4)) == [0, 0.25, 0.5, 0.75]
    assert times_asked(ODEConfig("heun2", 2)) == [0, 0.5, 0.5, 1]
    odds = np.tan(np.pi / 2 * np.array([0, 0.25, 0.5, 0.75]))  # t / (1 - t), in equal steps of the angle
    assert times_asked(ODEConfig("euler", 4, "cosine")) == pytest.approx(odds / (1 + odds))


def tiles(figure, size) -> list[np.ndarray]:
    """The images of a picture row by row, (height, width, 3) in [0, 1], or (height, width) in [-1, 1] of grey ones."""
    height, width = size
    picture = figure.axes[0].images[0].get_array()
    rows = range(0, picture.shape[0], height + GAP)
    return [picture[y : y + height, x : x + width] for y in rows for x in range(0, picture.shape[1], width + GAP)]


def test_the_samples_are_the_noise_of_the_seed_moved_by_the_network():
    for velocity in (0.0, 0.25):
        figure = sample_picture(constant(lambda y, v=velocity: v), (9, 3, 4, 5), EULER, seed=7)
        noise = torch.randn(9, 3, 4, 5, generator=torch.Generator().manual_seed(7))
        for tile, sample in zip(tiles(figure, (4, 5)), noise, strict=True):
            expected = (sample + velocity).clamp(-1, 1).add(1).div(2).permute(1, 2, 0)
            np.testing.assert_allclose(tile, expected, atol=1e-6)
    other = sample_picture(constant(lambda y: 0.25), (9, 3, 4, 5), EULER, seed=8)
    assert not np.array_equal(tiles(figure, (4, 5))[0], tiles(other, (4, 5))[0])


def test_each_sample_is_of_its_label_in_the_column_with_its_name():
    y = torch.tensor([1, 0, 0, 1, 1])
    field = constant(lambda y: (200.0 * y - 100).view(-1, 1, 1, 1))
    figure = sample_picture(field, (5, 1, 2, 2), EULER, y=y, names=["cats", "dogs"])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["cats", "dogs"]
    shown = tiles(figure, (2, 2))
    assert [set(np.unique(tile)) for tile in shown[:4] + shown[5:]] == [{-1.0}, {1.0}, {-1.0}, {1.0}, {1.0}]
    assert np.ma.getmaskarray(shown[4]).all()  # there is no third sample of a cat


def test_latents_are_decoded():
    seen = []

    def decode(latents):
        seen.append((latents.shape, torch.is_inference_mode_enabled()))
        return torch.full((len(latents), 3, 16, 16), 1.0)

    figure = sample_picture(constant(lambda y: 0.0), (2, 4, 2, 2), EULER, decode=decode)
    assert seen == [((2, 4, 2, 2), True)]
    assert [np.array_equal(tile, np.ones((16, 16, 3))) for tile in tiles(figure, (16, 16))] == [True, True]
    with pytest.raises(ValueError, match="decode must be given for samples of 4 channels, got None"):
        sample_picture(constant(lambda y: 0.0), (2, 4, 2, 2), EULER)


def test_the_generator_of_the_training_is_left_as_it_is():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    sample_picture(constant(lambda y: 0.0), (4, 1, 2, 2), EULER)
    assert torch.equal(torch.random.get_rng_state(), before)
