import numpy as np
import pytest
import torch

import interpolants as ip
from training import Field
from training.config import ODEConfig
from training.images import to_pixels
from training.preview import sample_picture, side_by_side

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


def tiles(picture, rows, columns):
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    return [
        picture[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(rows)
        for column in range(columns)
    ]


def test_the_samples_are_the_noise_of_the_seed_moved_by_the_network():
    still = constant(lambda y: 0.0)
    picture = sample_picture(still, (9, 3, 4, 5), EULER, seed=7)
    noise = torch.randn(9, 3, 4, 5, generator=torch.Generator().manual_seed(7))
    assert picture.shape == (12, 15, 3)
    for tile, sample in zip(tiles(picture, 3, 3), noise, strict=True):
        assert np.array_equal(tile, to_pixels(sample))
    moved = sample_picture(constant(lambda y: 0.25), (9, 3, 4, 5), EULER, seed=7)
    for tile, sample in zip(tiles(moved, 3, 3), noise, strict=True):
        assert np.abs(tile.astype(int) - to_pixels(sample + 0.25)).max() <= 1
    assert not np.array_equal(sample_picture(still, (9, 3, 4, 5), EULER, seed=8), picture)


def test_each_sample_is_of_its_label_and_grey_is_grey_in_colour():
    y = torch.tensor([1, 0, 0, 1, 1])
    field = constant(lambda y: (200.0 * y - 100).view(-1, 1, 1, 1))
    picture = sample_picture(field, (5, 1, 2, 2), EULER, y=y)
    assert picture.shape == (4, 6, 3)
    assert [set(tile.ravel().tolist()) for tile in tiles(picture, 2, 3)] == [{255}, {0}, {0}, {255}, {255}, {0}]
    grey = sample_picture(constant(lambda y: 0.0), (1, 1, 8, 8), EULER)
    assert len(np.unique(grey)) > 10
    assert np.array_equal(grey[..., 0], grey[..., 1])
    assert np.array_equal(grey[..., 0], grey[..., 2])


def test_latents_are_decoded():
    seen = []

    def decode(latents):
        seen.append((latents.shape, torch.is_inference_mode_enabled()))
        return torch.full((len(latents), 3, 16, 16), 1.0)

    picture = sample_picture(constant(lambda y: 0.0), (2, 4, 2, 2), EULER, decode=decode)
    assert seen == [((2, 4, 2, 2), True)]
    assert np.array_equal(picture, np.full((16, 32, 3), 255))
    with pytest.raises(ValueError, match="decode must be given for samples of 4 channels, got None"):
        sample_picture(constant(lambda y: 0.0), (2, 4, 2, 2), EULER)


def test_the_generator_of_the_training_is_left_as_it_is():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    sample_picture(constant(lambda y: 0.0), (4, 1, 2, 2), EULER)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("count", "shape"), [(1, (2, 3)), (2, (2, 6)), (3, (4, 6)), (6, (4, 9)), (7, (6, 9))])
def test_there_are_about_as_many_rows_as_columns(count, shape):
    pixels = np.arange(1, count + 1, dtype=np.uint8).repeat(2 * 3).reshape(count, 2, 3, 1)
    picture = side_by_side(pixels)
    assert picture.shape == (*shape, 3)
    shown = [tile[0, 0, 0] for tile in tiles(picture, shape[0] // 2, shape[1] // 3)]
    assert shown == [*range(1, count + 1), *[0] * (len(shown) - count)]
