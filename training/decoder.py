"""From what a network is trained on to images: latents by their VAE, images as they are."""

from __future__ import annotations

from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.autoencoder import Autoencoder
from training.generate import require_finite
from training.images import to_pixels
from training.latents import Latents
from training.trained import Drawing

CHUNK: Final = 16
"""Images that are decoded at a time."""


class Decoder:
    """Decodes the samples of a network.

    Args:
        config: Settings that name the VAE, or the latents, which know theirs.
        shape: (C, H, W) of a sample.
        device: Where to compute.

    Attributes:
        shape: (H, W, C) of an image.
        settings: All that the decoding depends on, plain data; None if the samples are images already.

    Raises:
        ValueError: If the samples are latents without a VAE, or one for another number of channels.
    """

    def __init__(self, config: Drawing, shape: tuple[int, int, int], device: torch.device) -> None:
        channels, height, width = shape
        self.shape, self.settings = (height, width, channels), None
        self._vae: Autoencoder | None = None
        if config.vae is not None:
            self._vae = Autoencoder(config.vae, device)
            offset, scale = torch.tensor(self._vae.shift_factor), torch.tensor(self._vae.scaling_factor)
        elif config.data.name == "latents":
            latents = cast(Latents, config.data_source())
            self._vae = latents.autoencoder(config.data.vae, device)
            offset, scale = latents.offset, latents.scale
        if self._vae is None:
            if channels not in (1, 3):
                raise ValueError(f"config: vae must be set to decode samples of {channels} channels, got null.")
            return
        if self._vae.channels != channels:
            raise ValueError(f"config: vae must have {channels} channels, as samples do, got {self._vae.channels}.")
        self.shape = (height * self._vae.factor, width * self._vae.factor, 3)
        self._offset, self._scale = offset.to(device), scale.to(device)
        self.settings = {
            "sha256": self._vae.digest,
            "offset": offset.flatten().tolist(),
            "scale": scale.flatten().tolist(),
        }

    def images(self, samples: Tensor) -> Tensor:
        """Images in [-1, 1] of samples, (B, C, H, W) -> (B, C', H', W'), on the device of the samples."""
        if self._vae is None:
            return samples
        return self._vae.decode(samples.to(self._scale.device) / self._scale + self._offset).to(samples.device)

    def pixels(self, samples: Tensor, indices: range) -> NDArray[np.uint8]:
        """Images of samples, uint8, shape (B, H, W, C); decoded CHUNK at a time, to bound the memory.

        Raises:
            FloatingPointError: If one is not finite; the message has its index.
        """
        parts = []
        for start in range(0, len(samples), CHUNK):
            x, some = samples[start : start + CHUNK], indices[start : start + CHUNK]
            images = self.images(x)
            require_finite(images, some, "so the VAE has decoded them.")
            parts.append(to_pixels(images))
        return np.concatenate(parts)
