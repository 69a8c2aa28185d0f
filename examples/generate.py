"""Draw many samples of a run. The same command resumes, on any number of GPUs.

``samples.npz`` is for the evaluator of ADM, made of ``images-000000.npy``, ..., one a batch, and ``labels.npy``.

Commands::

    python examples/generate.py --config examples/configs/digits.yaml --output samples --sampling.num_samples 5000
    python examples/generate.py --config examples/configs/digits.yaml --output samples-sde --sampler sde --png true
    torchrun --nproc_per_node 8 -- examples/generate.py --config examples/configs/imagenet256-XL.yaml --output samples
"""

import dataclasses
import zipfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models import SiT
from training import Field
from training.autoencoder import Autoencoder
from training.config import ODEConfig, SDEConfig, run_script
from training.files import write_file
from training.generate import draw_some, guided, labels_of, require_finite
from training.images import to_pixels
from training.latents import Latents
from training.processes import join
from training.settings import one_of, require_choices
from training.shards import ArrayShards, write_array, write_missing
from training.trained import Trained, identity

SAMPLERS: Final = ("ode", "sde")
PRECISIONS: Final = ("float32", "bfloat16")
CHUNK: Final = 16
"""Images that are decoded at a time."""


@dataclass(frozen=True, kw_only=True)
class Generation(Trained):
    """What to draw: the settings of a run, of which ``sampling`` says how many and how.

    Args:
        sampler: ode or sde, with the settings in sampling.ode or sampling.sde.
        precision: float32, or bfloat16 for the products of the blocks.
        vae: Folder or name on the hub of the VAE that decodes latents; null is that of the data of the run.
        png: Whether to write each sample to png/000000.png, ... too.
    """

    sampler: str = one_of(SAMPLERS, "ode")
    precision: str = one_of(PRECISIONS, "float32")
    vae: str | None = None
    png: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choices(self)
        if self.vae is not None and self.data.normalization == "per_channel":
            raise ValueError("config: vae must be null for latents that are normalized per channel. Set data.vae.")

    def chosen(self) -> ODEConfig | SDEConfig:
        """The settings of the sampler."""
        return self.sampling.ode if self.sampler == "ode" else self.sampling.sde

    def settings(self, field: Field, decoder: "Decoder") -> dict[str, Any]:
        """All that the images depend on."""
        unused = [name for name in SAMPLERS if name != self.sampler]
        sampling = {name: value for name, value in dataclasses.asdict(self.sampling).items() if name not in unused}
        settings = {"sampler": self.sampler, "sampling": sampling, "precision": self.precision}
        return {**settings, "network": identity(field), "vae": decoder.settings}


class Decoder:
    """From what a network is trained on to pixels.

    Attributes:
        shape: (H, W, C) of an image.
        settings: All that it depends on, plain data; None where there is nothing to decode.

    Raises:
        ValueError: If there are latents, but no VAE that decodes them.
    """

    def __init__(self, config: Generation, shape: tuple[int, int, int], device: torch.device) -> None:
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
            raise ValueError(f"config: vae must have {channels} channels, as the samples, got {self._vae.channels}.")
        self.shape = (height * self._vae.factor, width * self._vae.factor, 3)
        self._offset, self._scale = offset.to(device), scale.to(device)
        self.settings = {
            "sha256": self._vae.digest,
            "offset": offset.flatten().tolist(),
            "scale": scale.flatten().tolist(),
        }

    def pixels(self, samples: Tensor, indices: range) -> NDArray[np.uint8]:
        """Images of samples, shape (B, H, W, C); so many at a time are decoded that the memory is bounded.

        Raises:
            FloatingPointError: If one is not finite; has its index.
        """
        parts = []
        for start in range(0, len(samples), CHUNK):
            x, some = samples[start : start + CHUNK], indices[start : start + CHUNK]
            images = x if self._vae is None else self._vae.decode(x / self._scale + self._offset)
            require_finite(images, some, "so the VAE has decoded them.")
            parts.append(to_pixels(images))
        return np.concatenate(parts)


def generate(
    images: ArrayShards, shards: list[int], field: Field, decoder: Decoder, config: Generation
) -> Generator[int, None, None]:
    """Draw and write some shards, each as a batch; yields the number of images of each."""
    for shard in shards:
        indices = images.of(shard)
        samples, _ = draw_some(field, config.chosen(), config.sampling, indices)
        images.write(shard, decoder.pixels(samples, indices))
        yield len(indices)


def rgb(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, 3) of that, or of grey images (N, H, W, 1)."""
    return np.broadcast_to(images, (*images.shape[:3], 3))


def write_npz(stream: IO[bytes], images: ArrayShards, labels: NDArray[np.int64]) -> None:
    """``arr_0``, uint8, (N, H, W, 3), and ``arr_1``, the labels; with one shard in memory at a time."""
    height, width, _ = images.shape
    header = {"descr": "|u1", "fortran_order": False, "shape": (images.count, height, width, 3)}
    with zipfile.ZipFile(stream, "w") as file:
        with file.open("arr_0.npy", "w", force_zip64=True) as array:
            np.lib.format.write_array_header_1_0(array, header)
            for shard in images.shards:
                array.write(rgb(images.read(shard)).tobytes())
        with file.open("arr_1.npy", "w", force_zip64=True) as array:
            np.lib.format.write_array(array, labels)


def write_png(folder: Path, images: ArrayShards, shards: list[int]) -> None:
    """Each image of some shards, named by its index."""
    folder.mkdir(exist_ok=True)
    for shard in shards:
        for index, image in zip(images.of(shard), rgb(images.read(shard)), strict=True):
            Image.fromarray(image).save(folder / f"{index:06d}.png")


def main(config: Generation) -> None:
    """Draw what is not there yet, until a signal comes; the first process puts all together."""
    processes = join(config.torch_device())
    field = config.field(processes.device)
    model = cast(SiT, field.model)
    decoder = Decoder(config, model.input_shape, processes.device)
    labels = labels_of(config.sampling, model.num_classes, range(config.sampling.num_samples)).numpy()
    images = ArrayShards(
        config.output,
        config.settings(field, decoder),
        len(labels),
        config.sampling.batch_size,
        name="images",
        shape=decoder.shape,
        dtype="uint8",
    )
    if config.precision == "bfloat16":
        model.blocks.bfloat16()
    field = guided(field, config.sampling)
    if not write_missing(images, processes, lambda shards: generate(images, shards, field, decoder, config)):
        return
    if config.png:
        write_png(images.folder / "png", images, list(images.shards[processes.rank :: processes.count]))
    if processes.is_first:
        write_array(images.folder / "labels.npy", labels)
        write_file(images.folder / "samples.npz", lambda stream: write_npz(stream, images, labels))
        print(f"{len(labels):,} samples by {config.chosen()}: {images.folder}/samples.npz")


if __name__ == "__main__":
    run_script(main, Generation)
