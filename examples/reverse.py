"""The noise that leads to given images, by the ODE from data to noise. The same command resumes, on many GPUs too.

The images are those of ``data``, not flipped: the training part or the held-out part. The ODE is that of
``sampling.ode``, with the guidance and on the path of ``sampling``. It writes ``noise.npy``, shape (N, C, H, W), and
``labels.npy``, from which the same ODE leads back to the images. For images like those of the training, the mean square
of the noise is about 1.

Commands::

    python examples/reverse.py --config examples/configs/digits.yaml --output noise --part heldout
    torchrun --nproc_per_node 8 -- examples/reverse.py --config examples/configs/digits.yaml --output noise
"""

import dataclasses
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from models import SiT
from training import Field, encode
from training.config import run_script
from training.data import Source
from training.generate import as_sampled
from training.images import to_unit_range
from training.processes import join
from training.samplers import INVERTIBLE_METHODS
from training.shards import ArrayShards, write_array, write_missing
from training.trained import Measuring, identity, read_images, require_fit, spread


@dataclass(frozen=True, kw_only=True)
class Reversal(Measuring):
    """Which images to carry to noise, and by which network.

    Args:
        output: Folder to write to.
        count: Number of images, spread evenly over all; null is all.
    """

    output: str
    count: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count is not None and self.count < 1:
            raise ValueError(f"config: count must be at least 1, or null, got {self.count}.")
        ode, methods = self.sampling.ode, ", ".join(INVERTIBLE_METHODS)
        if ode.method not in (None, *INVERTIBLE_METHODS):
            raise ValueError(f"config: sampling.ode.method must be one of {methods} in reverse, got {ode.method!r}.")
        if ode.official:
            raise ValueError("config: sampling.ode.official must be false in reverse, got true.")

    def ode(self) -> dict[str, Any]:
        """Arguments of ``encode``; the default method is dopri5."""
        given = dataclasses.asdict(self.sampling.ode)
        del given["official"]
        return given | {"method": self.sampling.ode.method or "dopri5"}

    def settings(self, field: Field, source: Source) -> dict[str, Any]:
        """All that the noise depends on."""
        sampling = dataclasses.asdict(self.sampling)
        used = {name: value for name, value in sampling.items() if name == "path" or "guidance" in name}
        images = self.identity_of_images(source)
        return {**images, "ode": self.ode(), **used, "seed": self.sampling.seed, "network": identity(field)}


def reverse(
    noise: ArrayShards, shards: list[int], field: Field, source: Source, chosen: Sequence[int], config: Reversal
) -> Generator[int, None, None]:
    """Carry and write some shards, each as a batch; yield the number of images in each."""
    for shard in shards:
        indices = [chosen[place] for place in noise.of(shard)]
        images, y = read_images(source, indices, config.sampling.seed, cast(SiT, field.model))
        found = encode(field, to_unit_range(images), y=y, **config.ode())
        labels = np.zeros(len(indices), np.int64) if y is None else y.cpu().numpy()
        write_array(labels_file(noise, shard), labels)  # first, as the file of noise marks the shard as done
        noise.write(shard, found.cpu().numpy())
        yield len(indices)


def labels_file(noise: ArrayShards, shard: int) -> Path:
    """File with the labels of a shard; zeros if the network has no classes."""
    return noise.folder / f"labels-{shard:06d}.npy"


def main(config: Reversal) -> None:
    """Carry the missing shards, unless a signal stops it; the first process joins them."""
    processes = join(config.torch_device())
    field, source = config.field(processes.device), config.images()
    model = cast(SiT, field.model)
    require_fit(model, source)
    chosen = spread(config.count, source)
    noise = ArrayShards(
        config.output,
        config.settings(field, source),
        len(chosen),
        config.sampling.batch_size,
        name="noise",
        shape=model.input_shape,
        dtype="float32",
    )
    field = as_sampled(field, config.sampling)
    if not write_missing(noise, processes, lambda shards: reverse(noise, shards, field, source, chosen, config)):
        return
    if processes.is_first:
        together = np.concatenate([noise.read(shard) for shard in noise.shards])
        write_array(noise.folder / "noise.npy", together)
        labels = np.concatenate([np.load(labels_file(noise, shard)) for shard in noise.shards])
        write_array(noise.folder / "labels.npy", labels)
        square = float(np.square(together, dtype=np.float64).mean())
        print(f"the noise of {len(chosen):,} images: {noise.folder}/noise.npy; mean square {square:.3f}")


if __name__ == "__main__":
    run_script(main, Reversal)
