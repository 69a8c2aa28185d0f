"""A VAE with random weights, images to encode with it, and what it makes of them: diffusers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

SIZE = 16
LATENT = (4, 8, 8)


def save_vae(folder: Path, seed: int = 0, levels: int = 2, **config: Any) -> Path:
    """From 16 x 16 pixels to 4 x 8 x 8 latents and back, in the layout of diffusers; more levels give fewer latents."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=4,
        latent_channels=4,
        **config,
    )
    with torch.no_grad():
        vae.quant_conv.bias += torch.tensor(
            [2.0, -1.0, 0.5, 0.0, -2.0, -1.0, 0.0, -4.0]
        )  # four means, four log-variances
        vae.decoder.conv_out.weight *= 3  # so that some pixels are beyond [-1, 1]
    vae.save_pretrained(folder)
    return folder


@torch.no_grad()
def posterior(folder: Path, pixels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation for uint8 images (n, H, W, 3)."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    found = AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False).encode(x).latent_dist
    return found.mean, found.std


@torch.no_grad()
def reconstruction(folder: Path, latents: Tensor) -> Tensor:
    """Pixels of latents in the VAE's own units, limited to [-1, 1]."""
    return AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False).decode(latents).sample.clamp(-1, 1)


def save_images(folder: Path, count: int = 12, broken: tuple[int, ...] = (4,)) -> tuple[NDArray[np.uint8], list[int]]:
    """JPEG files of different sizes in two classes, one of them grey and some broken.

    Returns:
        Of those that can be read, in the order of their names: the central square, (n, 16, 16, 3), and the class.
    """
    crops, labels = [], []
    for index in range(count):
        file = folder / ("cats" if index < count // 2 else "dogs") / f"{index:02d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        height, width = (SIZE, SIZE + index) if index % 2 else (SIZE + index, SIZE)
        pixels = np.random.default_rng(index).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((width, height)).convert("L" if index == 1 else "RGB")
        image.save(file, quality=95)
        if index in broken:
            file.write_bytes(file.read_bytes()[:200])
            continue
        whole = np.asarray(Image.open(file).convert("RGB"))
        top, left = (height - SIZE) // 2, (width - SIZE) // 2
        crops.append(whole[top : top + SIZE, left : left + SIZE])
        labels.append(int(index >= count // 2))
    return np.stack(crops), labels
