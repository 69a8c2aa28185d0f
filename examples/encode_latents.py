"""Encode images once, to train on their latents. The same command resumes, on any number of GPUs.

Then train with --data.name latents --data.source LATENTS.

Commands::

    python examples/encode_latents.py --source IMAGES --output LATENTS
    python examples/encode_latents.py --name datasets --source train.parquet --output LATENTS
    torchrun --nproc_per_node 8 -- examples/encode_latents.py --source IMAGES --output LATENTS
"""

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from training.autoencoder import Autoencoder
from training.config import DEVICES, Config, run_script
from training.data import HubImages, ImageFolder, Images, read_ahead
from training.images import UNREADABLE, to_unit_range
from training.latents import DTYPES, MANIFEST, Unreadable, Writer
from training.processes import join
from training.settings import one_of, require_choices, such_as
from training.shards import FINGERPRINT, write_missing


@dataclass(frozen=True)
class Encoding:
    """Which images to encode, and how.

    Args:
        source: Folder of images; or the file, folder or name on the hub that `datasets` loads.
        output: Folder that the latents are written to.
        vae: Folder of an AutoencoderKL of diffusers, or its name on the hub.
        name: folder, of images; or datasets, for what `datasets` loads.
        split: Split to load (datasets only).
        image_column: Column of the images (datasets only); null is the only one of images.
        label_column: Column of the labels (datasets only); null is the only one of class labels.
        image_size: To which the images are cropped and scaled.
        dtype: Type of the latents in the files: float16 or float32.
        batch_size: Images at a time, each with its mirror image, on each process.
        shard_size: Images of a file; what a stop loses is less than one of each process.
        device: auto (an accelerator where there is one), or cpu, cuda, ...
        workers: Processes beside each one that read ahead.
    """

    source: str
    output: str
    vae: str = "stabilityai/sd-vae-ft-ema"
    name: str = one_of(("folder", "datasets"), "folder")
    split: str = "train"
    image_column: str | None = None
    label_column: str | None = None
    image_size: int = 256
    dtype: str = one_of(DTYPES, "float16")
    batch_size: int = 32
    shard_size: int = 4096
    device: str = such_as(DEVICES, "auto")
    workers: int = 0

    def __post_init__(self) -> None:
        require_choices(self)
        for name, minimum in (("image_size", 1), ("batch_size", 1), ("shard_size", 1), ("workers", 0)):
            if (value := getattr(self, name)) < minimum:
                raise ValueError(f"config: {name} must be at least {minimum}, got {value}.")

    def images(self) -> Images:
        """The images."""
        if self.name == "folder":
            return ImageFolder(self.source, self.image_size, flip=False)
        return HubImages(
            self.source,
            self.image_size,
            flip=False,
            split=self.split,
            image_column=self.image_column,
            label_column=self.label_column,
        )

    def settings(self, images: Images, vae: Autoencoder) -> dict[str, Any]:
        """All that the latents depend on."""
        if self.image_size % vae.factor:
            raise ValueError(f"config: image_size must be a multiple of {vae.factor}, got {self.image_size}.")
        side = self.image_size // vae.factor
        attributes = ("scaling_factor", "shift_factor", "factor")
        free = ("output", "device", "workers", "vae")
        return {
            **{name: value for name, value in dataclasses.asdict(self).items() if name not in free},
            "vae": {"name": vae.name, "sha256": vae.digest, **{name: getattr(vae, name) for name in attributes}},
            "crop": "ADM centre crop",
            "shape": (vae.channels, side, side),
            "images": len(images),
            "num_classes": images.num_classes,
            "classes": images.classes,
            FINGERPRINT: images.fingerprint,
        }


class Read(NamedTuple):
    """Some images, uint8, (n, 3, H, W), their labels, and those that could not be read."""

    pixels: Tensor
    labels: list[int]
    unreadable: list[Unreadable]


class Readable(Dataset[Read]):
    """Those of a range of images that can be read."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __getitem__(self, indices: range) -> Read:
        read = Read(torch.empty(len(indices), *self.images.shape, dtype=torch.uint8), [], [])
        for index in indices:
            try:
                read.pixels[len(read.labels)], label = self.images.pixels(index)
                read.labels.append(label)
            except UNREADABLE as error:
                name, kind = self.images.name_of(index), type(error).__name__
                read.unreadable.append({"index": index, "name": name, "error": kind})
        return read._replace(pixels=read.pixels[: len(read.labels)])


def encode(
    writer: Writer, shards: list[int], images: Images, vae: Autoencoder, config: Encoding
) -> Generator[int, None, None]:
    """Encode and write some shards; yields the number of images after each batch."""
    size = config.batch_size
    batches = [
        (shard, writer.of(shard)[k : k + size]) for shard in shards for k in range(0, len(writer.of(shard)), size)
    ]
    pin_memory = vae.device.type == "cuda"
    reads = read_ahead(Readable(images), [batch for _, batch in batches], config.workers, pin_memory)
    mean, std = (np.empty((config.shard_size, 2, *writer.shape), config.dtype) for _ in range(2))
    labels: list[int] = []
    unreadable: list[Unreadable] = []
    for (shard, batch), read in zip(batches, reads, strict=True):
        if read.labels:
            rows = slice(len(labels), len(labels) + len(read.labels))
            mean[rows], std[rows] = both_sides(vae, read.pixels)
        labels, unreadable = labels + read.labels, unreadable + read.unreadable
        if batch[-1] == writer.of(shard)[-1]:
            writer.write(shard, mean[: len(labels)], std[: len(labels)], labels, unreadable)
            labels, unreadable = [], []
        yield len(batch)


def both_sides(vae: Autoencoder, pixels: Tensor) -> list[np.ndarray]:
    """Mean and standard deviation of images and of their mirror images, each (n, 2, C, h, w)."""
    x = to_unit_range(pixels.to(vae.device, non_blocking=True))
    sides = torch.stack([x, x.flip(3)], dim=1)  # (n, 2, 3, H, W)
    return [
        moment.view(*sides.shape[:2], *moment.shape[1:]).cpu().numpy() for moment in vae.encode(sides.flatten(0, 1))
    ]


def main(config: Encoding) -> None:
    """Encode what is not encoded yet, until a signal comes; the first process writes the manifest last."""
    processes = join(Config(device=config.device).torch_device())
    images, vae = config.images(), Autoencoder(config.vae, processes.device)
    writer = Writer(config.output, config.settings(images, vae))
    complete = write_missing(writer, processes, lambda shards: encode(writer, shards, images, vae, config))
    if not (complete and processes.is_first):
        return
    manifest = writer.finish()
    left_out = len(manifest["unreadable"])
    print(f"encoded {manifest['count']:,} images; {left_out:,} could not be read: see {config.output}/{MANIFEST}")


if __name__ == "__main__":
    run_script(main, Encoding)
