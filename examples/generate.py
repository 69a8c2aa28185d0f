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
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models import SiT
from training import Field
from training.config import ODEConfig, SDEConfig, run_script
from training.decoder import Decoder
from training.files import write_file, write_png
from training.generate import as_sampled, draw_some, labels_of
from training.precision import products, require_tf32
from training.processes import join
from training.progress import side_progress
from training.settings import one_of, require_choices
from training.shards import ArrayShards, write_array, write_missing
from training.trained import SAMPLERS, Drawing, identity


@dataclass(frozen=True, kw_only=True)
class Generation(Drawing):
    """The samples to draw; their number, and the sampler, are in ``sampling``.

    Args:
        output: Folder to write to.
        sampler: ode or sde, with the settings in sampling.ode or sampling.sde.
        png: Whether to write each sample to png/000000.png, ... too.
    """

    output: str
    sampler: str = one_of(SAMPLERS, "ode")
    png: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choices(self)

    def chosen(self) -> ODEConfig | SDEConfig:
        """The settings of the sampler."""
        return self.sampling.ode if self.sampler == "ode" else self.sampling.sde

    def settings(self, field: Field, decoder: Decoder) -> dict[str, Any]:
        """All that the images depend on."""
        unused = [name for name in SAMPLERS if name != self.sampler]
        sampling = {name: value for name, value in dataclasses.asdict(self.sampling).items() if name not in unused}
        sampling["num_samples"] = self.sampling.count
        settings = {"sampler": self.sampler, "sampling": sampling, "precision": self.precision}
        return {**settings, "network": identity(field), "vae": decoder.settings}


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
            for shard in side_progress(images.shards, desc="samples.npz", unit="file"):
                array.write(rgb(images.read(shard)).tobytes())
        with file.open("arr_1.npy", "w", force_zip64=True) as array:
            np.lib.format.write_array(array, labels)


def write_pngs(folder: Path, images: ArrayShards, shards: list[int]) -> None:
    """Each image of some shards, named by its index."""
    folder.mkdir(exist_ok=True)
    for shard in side_progress(shards, desc=str(folder), unit="file"):
        for index, image in zip(images.of(shard), rgb(images.read(shard)), strict=True):
            write_png(folder / f"{index:06d}.png", Image.fromarray(image).save)


def main(config: Generation) -> None:
    """Draw what is not there yet, until a signal comes; the first process puts all together."""
    processes = join(config.torch_device())
    require_tf32(config.precision, processes.device, "precision")
    field = config.field(processes.device)
    model = cast(SiT, field.model)
    decoder = Decoder(config, model.input_shape, processes.device)
    labels = labels_of(config.sampling, model.num_classes, range(config.sampling.count)).numpy()
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
    field = as_sampled(field, config.sampling)
    with products(config.precision):
        complete = write_missing(images, processes, lambda shards: generate(images, shards, field, decoder, config))
    if not complete:
        return
    if config.png:
        write_pngs(images.folder / "png", images, list(images.shards[processes.rank :: processes.count]))
    if processes.is_first:
        write_array(images.folder / "labels.npy", labels)
        write_file(images.folder / "samples.npz", lambda stream: write_npz(stream, images, labels))
        print(f"{len(labels):,} samples by {config.chosen()}: {images.folder}/samples.npz")


if __name__ == "__main__":
    run_script(main, Generation)
