"""Cropping against averages and slices by hand; pixels there and back."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from training.images import UNREADABLE, center_crop, decode, to_pixels, to_unit_range


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels, kind):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_an_image_of_the_size_is_left_as_it_is_and_of_a_longer_one_the_middle():
    pixels = picture(8, 8)
    np.testing.assert_array_equal(center_crop(Image.fromarray(pixels), 8), pixels)
    for height, width, rows, columns in ((8, 13, slice(None), slice(2, 10)), (11, 8, slice(1, 9), slice(None))):
        longer = picture(height, width)
        np.testing.assert_array_equal(center_crop(Image.fromarray(longer), 8), longer[rows, columns])


def test_large_images_are_halved_by_averages_of_four_pixels():
    pixels = picture(32, 48)
    halves = pixels.reshape(16, 2, 24, 2, 3).mean((1, 3)).round()
    quarters = halves.reshape(8, 2, 12, 2, 3).mean((1, 3))
    got = center_crop(Image.fromarray(pixels), 8).astype(float)
    assert np.abs(got - quarters[:, 2:10]).max() <= 2.0  # rounded to whole numbers twice, halves upwards


def test_other_sizes_are_scaled_to_the_shorter_side():
    flat = np.full((20, 30, 3), (10, 20, 30), dtype=np.uint8)
    got = center_crop(Image.fromarray(flat), 12)
    assert got.shape == (12, 12, 3)
    assert (got == [10, 20, 30]).all()
    ramp = np.repeat(np.linspace(0, 255, 24).astype(np.uint8)[None, :, None], 24, 0).repeat(3, 2)
    got = center_crop(Image.fromarray(ramp), 16)[8, :, 0].astype(float)
    exact = np.interp((np.arange(16) + 0.5) * 1.5 - 0.5, np.arange(24), np.linspace(0, 255, 24))
    assert np.abs(got - exact)[2:-2].max() <= 1.5


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_formats_are_read_with_the_channels_asked_for(kind, channels, tmp_path):
    grey = np.full((6, 5, 3), 77, dtype=np.uint8)
    for source in (encoded(grey, kind), tmp_path / f"grey.{kind.lower()}"):
        if not isinstance(source, bytes):
            source.write_bytes(encoded(grey, kind))
        image = decode(source, channels)
        assert (len(image.getbands()), image.size) == (channels, (5, 6))
        assert np.abs(np.asarray(image).astype(int) - 77).max() <= 1


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b"no image", lambda b: b[: len(b) // 2], lambda b: b[:40]])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_damaged_images_raise_what_is_caught(kind, damage):
    with pytest.raises(UNREADABLE):
        decode(damage(encoded(picture(40, 40), kind)), 3)


def test_pixels_go_to_minus_one_and_one_and_back():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = to_unit_range(pixels)
    assert (x.min(), x.max(), x.dtype) == (-1.0, 1.0, torch.float32)
    np.testing.assert_array_equal(to_pixels(x)[0, :, :, 0], pixels[0, 0].numpy())
    assert to_pixels(torch.tensor([-3.0, 3.0]).view(1, 1, 2)).ravel().tolist() == [0, 255]
    latent = torch.randn(2, 4, 2, 2)
    assert to_unit_range(latent) is latent
