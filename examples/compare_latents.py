"""Decode latents beside the images that they were made of: python examples/compare_latents.py --latents LATENTS."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.encode_latents import Encoding
from training.config import Config, run_script
from training.data import Images
from training.figures import reconstruction_figure
from training.files import write_png
from training.images import to_unit_range
from training.latents import Latents

SIDES = ("the images", "their mirror images")


@dataclass(frozen=True)
class Comparison:
    """Which latents to compare.

    Args:
        latents: Their folder.
        count: Number of images, spread over all.
        output: The picture; null is comparison.png in the folder.
        vae: What decodes; null is the VAE that they were encoded by.
        verify: Whether to verify the checksums of all files.
        device: auto (an accelerator where there is one), or cpu, cuda, ...
    """

    latents: str
    count: int = 8
    output: str | None = None
    vae: str | None = None
    verify: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"config: count must be at least 1, got {self.count}.")


def main(config: Comparison) -> None:
    """Print how far they are apart, and draw them."""
    latents = Latents(config.latents)
    if config.verify:
        latents.verify()
        print(f"{config.latents}: every file is, to the byte, what was written")
    vae = latents.autoencoder(config.vae, Config(device=config.device).torch_device())
    chosen = np.unique(np.linspace(0, len(latents) - 1, config.count).round().astype(int)).tolist()
    images, indices = encoded_images(latents)
    originals = to_unit_range(torch.stack([images.pixels(indices[index])[0] for index in chosen]))
    means = torch.from_numpy(np.stack([latents.posterior(index)[0] for index in chosen])).float()  # (N, 2, C, h, w)
    pairs = {
        name: (side, vae.decode(mean))
        for name, side, mean in zip(SIDES, (originals, originals.flip(3)), means.unbind(1), strict=True)
    }
    for name, (original, decoded) in pairs.items():
        error = (decoded - original).abs().mean().item() * 127.5
        print(f"{name}: PSNR {psnr(original, decoded):.2f} dB, mean absolute error {error:.2f} of 255")
    output = Path(config.output or Path(config.latents) / "comparison.png")
    write_png(output, reconstruction_figure(pairs, [indices[index] for index in chosen]).savefig)
    print(f"{len(chosen)} of {len(latents):,} images, and what {vae.name} makes of their latents: {output}")


def encoded_images(latents: Latents) -> tuple[Images, list[int]]:
    """The images that were encoded, and the index among them of each of the latents.

    Raises:
        ValueError: If they are no longer there, or no longer as many.
    """
    manifest = latents.manifest
    names = {field.name for field in dataclasses.fields(Encoding)} & manifest.keys() - {"vae"}
    images = Encoding(output=str(latents.folder), **{name: manifest[name] for name in names}).images()
    if len(images) != manifest["images"]:
        raise ValueError(f"{manifest['source']} must hold the {manifest['images']} images encoded, got {len(images)}.")
    unreadable = [image["index"] for image in manifest["unreadable"]]
    return images, np.delete(np.arange(len(images)), unreadable).tolist()


def psnr(originals: Tensor, decoded: Tensor) -> float:
    """The peak signal-to-noise ratio of images in [-1, 1], 10 log10(4 / squared error), mean over them, in dB."""
    errors = (decoded - originals).square().mean((1, 2, 3))
    return (10 * (4 / errors).log10()).mean().item()


if __name__ == "__main__":
    run_script(main, Comparison)
