"""The VAE between images and the latents that a network is trained on: an AutoencoderKL of diffusers."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import Tensor

from models.quantization import quiet_import
from training.hub import sha256

CONFIG: Final = "config.json"
WEIGHTS: Final = "diffusion_pytorch_model.safetensors"


class Autoencoder:
    """An encoder of images to a Gaussian posterior of latents, and a decoder back.

    Args:
        name: Folder with ``config.json`` and ``diffusion_pytorch_model.safetensors``, or a repository of the hub that
            has them, such as stabilityai/sd-vae-ft-ema.
        device: Where to compute.
        dtype: In which to compute.

    Attributes:
        channels: Of the latents.
        factor: Height and width of an image over those of its latents; 8 for those of Stable Diffusion.
        scaling_factor, shift_factor: (latents - shift_factor) * scaling_factor have a variance of about 1.
        digest: SHA-256 of the file of the weights, which the hub shows too.

    Raises:
        ValueError: If it cannot be loaded, or the file does not hold all of its weights.
        ImportError: If diffusers is not installed.
    """

    def __init__(
        self, name: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.name, self.device, self.dtype = str(name), torch.device(device), dtype
        folder = _folder(self.name)
        self._vae = _load(folder, self.name, dtype).to(self.device).eval().requires_grad_(False)
        self.digest = sha256(folder / WEIGHTS)
        config = self._vae.config
        self.channels: int = config.latent_channels
        self.factor: int = 2 ** (len(config.block_out_channels) - 1)
        self.scaling_factor: float = config.scaling_factor
        self.shift_factor: float = config.shift_factor or 0.0

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior of images, N(mean, std^2) for each number of the latents.

        Args:
            pixels: In [-1, 1], shape (B, 3, H, W); H and W are multiples of ``factor``.

        Returns:
            Mean and standard deviation in the VAE's own units, float32, each (B, channels, H / factor, W / factor).

        Raises:
            ValueError: If the images have another shape, or are not floating point.
        """
        fits = pixels.ndim == 4 and pixels.shape[1] == 3 and not any(n % self.factor for n in pixels.shape[2:])
        if not (fits and pixels.is_floating_point()):
            raise ValueError(
                f"Autoencoder.encode: pixels must be floating point of shape (B, 3, H, W), H and W multiples of "
                f"{self.factor}, got {pixels.dtype} of {tuple(pixels.shape)}."
            )
        posterior = self._vae.encode(pixels.to(self.device, self.dtype)).latent_dist
        return posterior.mean.float(), posterior.std.float()

    @torch.inference_mode()
    def decode(self, latents: Tensor, chunk: int = 16) -> Tensor:
        """Images of latents.

        Args:
            latents: In the VAE's own units, shape (B, channels, h, w).
            chunk: So many at a time, to bound the memory.

        Returns:
            Pixels limited to [-1, 1], float32, shape (B, 3, h * factor, w * factor), on the device of the latents.

        Raises:
            ValueError: If the latents have another shape.
        """
        if latents.ndim != 4 or latents.shape[1] != self.channels:
            raise ValueError(
                f"Autoencoder.decode: latents must have shape (B, {self.channels}, h, w), got {tuple(latents.shape)}."
            )
        parts = (self._vae.decode(part.to(self.device, self.dtype)).sample for part in latents.split(chunk))  # type: ignore[no-untyped-call]
        return torch.cat([part.float().clamp(-1, 1).to(latents.device) for part in parts])


def _folder(name: str) -> Path:
    if os.path.isdir(name):
        return Path(name)
    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except (OSError, ValueError) as error:
        raise _not_loaded(name, error) from error


def _load(folder: Path, name: str, dtype: torch.dtype) -> Any:
    try:
        with quiet_import():  # here, as it takes seconds that other data need not pay
            from diffusers import AutoencoderKL
    except ImportError as error:
        message = "autoencoder: `diffusers` must be installed. pip install 'sit-interpolants[vae]' brings it."
        raise ImportError(message) from error
    options = {"use_safetensors": True, "low_cpu_mem_usage": False, "output_loading_info": True, "torch_dtype": dtype}
    try:
        vae, found = AutoencoderKL.from_pretrained(folder, **options)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise _not_loaded(name, error) from error
    for problem in ("missing_keys", "unexpected_keys"):  # of which it only warns, and leaves random what is not there
        if keys := found[problem]:
            raise _not_loaded(name, f"{WEIGHTS} has {len(keys)} {problem.replace('_', ' ')}, such as {min(keys)}")
    return vae


def _not_loaded(name: str, reason: object) -> ValueError:
    line = textwrap.shorten(str(reason), 300)
    return ValueError(f"autoencoder: {name!r} must be a diffusers AutoencoderKL, and cannot be loaded: {line}")
