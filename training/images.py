"""From an encoded image to pixels: decoding, the centre crop of ADM, and the range that networks are trained in."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

SUFFIXES: Final = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)
"""Of the formats that Pillow reads, such as .png."""

UNREADABLE: Final = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow's decoders raise for damaged files."""


def decode(source: bytes | str | Path, channels: int) -> Image.Image:
    """An image with 3 channels (RGB) or 1 (grey), read to its last byte.

    Raises:
        One of UNREADABLE: If it is damaged, or no image.
    """
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        return image.convert("RGB" if channels == 3 else "L")


def center_crop(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The central square of an image, scaled so that its shorter side is ``size``: (size, size, channels), uint8.

    Halved by box averages while it is at least twice as large, then scaled by a bicubic filter. Source: Dhariwal &
    Nichol (2021), arXiv:2105.05233, the preprocessing of ADM, DiT and SiT.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    pixels = np.array(image.crop((left, top, left + size, top + size)))
    return pixels.reshape(size, size, -1)


def to_unit_range(pixels: Tensor) -> Tensor:
    """Pixels 0, ..., 255 as float32 in [-1, 1]; what is floating point already as it is."""
    return pixels if pixels.is_floating_point() else pixels.float() / 127.5 - 1


def to_pixels(x: Tensor) -> NDArray[Any]:
    """The reverse, rounded and cut off: (..., C, H, W) in [-1, 1] to uint8 (..., H, W, C)."""
    scaled = ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.movedim(-3, -1).cpu().numpy()
