"""From files of images to pixels: which files are images, decoding, ADM's centre crop, and the range of training."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION
from torch import Tensor

from training.progress import side_progress

SUFFIXES: Final = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)
"""Of the formats that Pillow reads, such as .png."""

UNREADABLE: Final = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow's decoders raise for damaged files."""


NO_DATA: Final = frozenset({"@eaDir", "@Recycle", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information"})
"""Names of folders that systems make for themselves. What begins with a dot is theirs too."""


def holds_data(name: str) -> bool:
    """Whether a file or folder of this name is part of a data set, and not hidden or left there by a system."""
    return not name.startswith(".") and name not in NO_DATA


def image_files(folder: Path) -> list[Path]:
    """All files in a folder, at any depth, whose names end like those of images, sorted.

    Links to files and folders are followed, but for a link to a folder that it lies in. See ``holds_data`` for what is
    passed over.
    """
    found = _image_files(str(folder), ())
    return sorted(side_progress(found, desc=f"looking into {folder}", unit="image"))


def _image_files(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    here = os.stat(folder)
    if (here.st_dev, here.st_ino) in above:
        return
    above = (*above, (here.st_dev, here.st_ino))
    with os.scandir(folder) as entries:
        for entry in filter(lambda entry: holds_data(entry.name), entries):
            if entry.is_dir():
                yield from _image_files(entry.path, above)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                yield Path(entry.path)


def decode(source: bytes | str | Path, channels: int) -> Image.Image:
    """An image with 3 channels (RGB) or 1 (grey), read to its last byte, as a viewer on a white page shows it.

    It is turned as its EXIF orientation says, transparent parts are white, and of several frames it is the first.
    Whole numbers of 16 bits and floating-point numbers in [0, 1] are scaled to 0, ..., 255.

    Raises:
        One of UNREADABLE: If it is damaged, no image, or of numbers whose range is not known.
    """
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith(("I", "F")):
            image = _in_8_bits(image, opened)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            page = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(page, image)
        return image.convert("RGB" if channels == 3 else "L")


def _in_8_bits(image: Image.Image, opened: Image.Image) -> Image.Image:
    """An image of one channel of more than 8 bits, scaled by its full range."""
    values, tags = np.asarray(image), getattr(opened, "tag_v2", {})  # the tags of TIFF
    if image.mode == "F":
        full, contract = 1.0, "floating-point pixels must be in [0, 1]"
    else:
        full = 2.0 ** tags.get(BITSPERSAMPLE, (16,))[0] - 1
        contract = f"whole numbers must be in [0, {full:.0f}]"
    known = image.mode != "I" or opened.format in ("PNG", "PPM")  # else they have 32 bits, which nobody fills
    low, high = values.min(), values.max()
    if not (known and low >= 0 and high <= full and tags.get(PHOTOMETRIC_INTERPRETATION) != 0):  # NaN is refused too
        raise ValueError(f"{contract}, 0 black, got {opened.format} of mode {image.mode} from {low} to {high}")
    return Image.fromarray((values * (255 / full)).round().astype(np.uint8))


def center_crop(image: Image.Image, height: int, width: int) -> NDArray[np.uint8]:
    """The middle of an image, scaled so that it just covers the size: (height, width, channels), uint8.

    Halved by box averages while it is at least twice as large, then scaled by a bicubic filter. Source: Dhariwal &
    Nichol (2021), arXiv:2105.05233, the preprocessing of ADM, DiT and SiT, there of squares.
    """
    while image.height >= 2 * height and image.width >= 2 * width:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = max(height / image.height, width / image.width)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.array(image.crop((left, top, left + width, top + height)))
    return pixels.reshape(height, width, -1)


def to_unit_range(pixels: Tensor) -> Tensor:
    """Pixels 0, ..., 255 as float32 in [-1, 1]; what is floating point already as it is."""
    return pixels if pixels.is_floating_point() else pixels.float() / 127.5 - 1


def to_pixels(x: Tensor) -> NDArray[Any]:
    """The reverse, rounded and cut off: (..., C, H, W) in [-1, 1] to uint8 (..., H, W, C)."""
    scaled = ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.movedim(-3, -1).cpu().numpy()
