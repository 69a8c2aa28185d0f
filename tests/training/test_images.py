"""Cropping against averages and slices by hand; pixels there and back."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from training.images import UNREADABLE, center_crop, decode, image_files, to_pixels, to_unit_range


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels, kind):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_an_image_of_the_size_is_left_as_it_is_and_of_a_longer_one_the_middle():
    pixels = picture(8, 8)
    np.testing.assert_array_equal(center_crop(Image.fromarray(pixels), 8, 8), pixels)
    for height, width, rows, columns in ((8, 13, slice(None), slice(2, 10)), (11, 8, slice(1, 9), slice(None))):
        longer = picture(height, width)
        np.testing.assert_array_equal(center_crop(Image.fromarray(longer), 8, 8), longer[rows, columns])


def test_large_images_are_halved_by_averages_of_four_pixels():
    pixels = picture(32, 48)
    halves = pixels.reshape(16, 2, 24, 2, 3).mean((1, 3)).round()
    quarters = halves.reshape(8, 2, 12, 2, 3).mean((1, 3))
    got = center_crop(Image.fromarray(pixels), 8, 8).astype(float)
    assert np.abs(got - quarters[:, 2:10]).max() <= 2.0  # rounded to whole numbers twice, halves upwards


def test_other_sizes_are_scaled_to_the_shorter_side():
    flat = np.full((20, 30, 3), (10, 20, 30), dtype=np.uint8)
    got = center_crop(Image.fromarray(flat), 12, 12)
    assert got.shape == (12, 12, 3)
    assert (got == [10, 20, 30]).all()
    ramp = np.repeat(np.linspace(0, 255, 24).astype(np.uint8)[None, :, None], 24, 0).repeat(3, 2)
    got = center_crop(Image.fromarray(ramp), 16, 16)[8, :, 0].astype(float)
    exact = np.interp((np.arange(16) + 0.5) * 1.5 - 0.5, np.arange(24), np.linspace(0, 255, 24))
    assert np.abs(got - exact)[2:-2].max() <= 1.5


@pytest.mark.parametrize(("height", "width"), [(4, 8), (8, 4), (6, 6)])
def test_of_an_image_just_as_much_is_cut_off_as_the_shape_asks(height, width):
    pixels = picture(64, 64)
    got = center_crop(Image.fromarray(pixels), height, width)
    assert got.shape == (height, width, 3)
    cut_rows, cut_columns = (64 - 64 * min(height, width) // width) // 2, (64 - 64 * min(height, width) // height) // 2
    kept = pixels[cut_rows : 64 - cut_rows, cut_columns : 64 - cut_columns]
    blocks = kept.reshape(height, kept.shape[0] // height, width, -1, 3) if height != width else None
    if blocks is not None:  # by powers of two, so that all are averages
        assert np.abs(got - blocks.mean((1, 3))).max() <= 3.0


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


RAMP = np.linspace(0, 1, 64).reshape(8, 8)
"""From black to white."""


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.fromarray((RAMP * 65535).round().astype(np.uint16)), "PNG"),
        (Image.fromarray((RAMP * 65535).round().astype(np.uint16)), "TIFF"),
        (Image.fromarray((RAMP * 65535).round().astype(np.uint16)), "PPM"),
        (Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
        (Image.fromarray((RAMP * 255).round().astype(np.uint8)), "PNG"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_16_bits_and_floating_point_ones_are_scaled_by_their_range(image, kind, channels):
    got = np.asarray(decode(saved(image, kind), channels)).reshape(8, 8, channels)
    assert np.abs(got.astype(float) - 255 * RAMP[..., None]).max() <= 0.51


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "pixels",
    [RAMP.astype(np.float32) * 2, RAMP.astype(np.float32) - 0.1, (RAMP * 1e9).astype(np.int32), RAMP * np.nan],
)
def test_pixels_of_an_unknown_range_are_left_out(pixels):
    with pytest.raises(ValueError, match=r"(numbers|pixels) must be in \[0, \d+\]"):
        decode(saved(Image.fromarray(pixels.astype(np.float32) if pixels.dtype == float else pixels), "TIFF"), 3)


def test_of_16_bits_white_may_not_be_zero():
    image = Image.fromarray((RAMP * 65535).astype(np.uint16))
    with pytest.raises(ValueError, match=r"0 black"):
        decode(saved(image, "TIFF", tiffinfo={262: 0}), 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_are_turned_as_their_orientation_says(orientation, kind):
    """The EXIF standard says of each value where the first row and the first column of the file lie on the page."""
    shown = np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((16, 16), np.uint8))
    top_left_to = {  # how the rows of the file are made of what is shown
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose,
        6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).T, 8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    image = Image.fromarray(np.ascontiguousarray(top_left_to[orientation](shown))).convert("RGB")
    exif = image.getexif()
    exif[0x0112] = orientation
    got = np.asarray(decode(saved(image, kind, exif=exif), 1)).astype(int)
    assert np.abs(got - shown).max() <= 8


def test_what_is_transparent_is_white_whatever_colour_it_hides():
    opaque, clear, half = (200, 0, 0, 255), (0, 200, 0, 0), (0, 0, 0, 128)
    pixels = np.array([[opaque, clear, half]], np.uint8)
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([200, 0, 0, 0, 200, 0])
    grey = Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8), "LA")
    keyed = Image.fromarray(pixels[:, :2, :3])
    for source, expected in (
        (saved(Image.fromarray(pixels), "PNG"), [[200, 0, 0], [255, 255, 255], [127, 127, 127]]),
        (saved(palette, "PNG", transparency=1), [[200, 0, 0], [255, 255, 255]]),
        (saved(palette, "GIF", transparency=1), [[200, 0, 0], [255, 255, 255]]),
        (saved(grey, "PNG"), [[10, 10, 10], [255, 255, 255]]),
        (saved(keyed, "PNG", transparency=(0, 200, 0)), [[200, 0, 0], [255, 255, 255]]),
    ):
        assert np.asarray(decode(source, 3))[0].tolist() == expected


def test_files_of_images_are_found_through_links_and_what_systems_leave_is_not(tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "images"
    names = ("cats/2.png", "cats/1.PNG", "cats/deep/er/3.jpg", "0.webp")
    hidden = (".x/1.png", "@eaDir/1.png", "cats/__MACOSX/1.png", "cats/._1.png", "cats/notes.txt", "cats/x.png/")
    for name in (*names, *hidden):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).mkdir() if name.endswith("/") else (folder / name).write_bytes(b"")
    elsewhere.mkdir()
    (elsewhere / "4.png").write_bytes(b"")
    (folder / "dogs").symlink_to(elsewhere)
    (folder / "cats" / "more").symlink_to(elsewhere)
    (folder / "cats" / "5.png").symlink_to(elsewhere / "4.png")
    (folder / "cats" / "loop").symlink_to(folder)
    found = [str(file.relative_to(folder)) for file in image_files(folder)]
    assert found == sorted([*names, "dogs/4.png", "cats/more/4.png", "cats/5.png"])


def test_pixels_go_to_minus_one_and_one_and_back():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x = to_unit_range(pixels)
    assert (x.min(), x.max(), x.dtype) == (-1.0, 1.0, torch.float32)
    np.testing.assert_array_equal(to_pixels(x)[0, :, :, 0], pixels[0, 0].numpy())
    assert to_pixels(torch.tensor([-3.0, 3.0]).view(1, 1, 2)).ravel().tolist() == [0, 255]
    latent = torch.randn(2, 4, 2, 2)
    assert to_unit_range(latent) is latent
