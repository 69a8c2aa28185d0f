"""A picture of samples, drawn from the same noise at any step of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import ODEConfig
from training.fields import Field
from training.generate import integrate
from training.images import to_pixels


def sample_picture(
    field: Field,
    shape: tuple[int, int, int, int],
    sampler: ODEConfig,
    *,
    y: Tensor | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    decode: Callable[[Tensor], Tensor] | None = None,
) -> NDArray[np.uint8]:
    """Samples side by side, in about as many rows as columns, row by row.

    The noise depends on the seed and the shape alone, and torch's default generator is left as it is.

    Args:
        field: The network, of averaged weights, on its path.
        shape: Of all samples, (N, C, H, W).
        sampler: How to integrate.
        y: Labels, shape (N,), or None.
        seed: Of the noise.
        device: Of the network and of y.
        decode: From latents to images in [-1, 1], (N, C, H, W) -> (N, C', H', W') with C' 1 or 3; None where the
            samples are images.

    Returns:
        RGB, shape (rows H', columns W', 3); what is left of the last row is black.

    Raises:
        ValueError: If the samples are no images and there is no ``decode``; see also ``integrate``.
    """
    if decode is None and shape[1] not in (1, 3):
        raise ValueError(f"sample_picture: decode must be given for samples of {shape[1]} channels, got None.")
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
    samples = integrate(field, noise, sampler, y=y)
    if decode is not None:
        with torch.inference_mode():
            samples = decode(samples)
    return side_by_side(to_pixels(samples))


def side_by_side(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Images (N, H, W, C) with C 1 or 3 as one, (rows H, columns W, 3)."""
    count, height, width, _ = pixels.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.zeros((rows * columns, height, width, 3), np.uint8)
    grid[:count] = pixels  # grey becomes RGB
    tiles = grid.reshape(rows, columns, height, width, 3).swapaxes(1, 2)  # (rows, H, columns, W, 3)
    return tiles.reshape(rows * height, columns * width, 3)
