"""The log-likelihood of images under a run. The same command resumes, on any number of GPUs.

The images are those of ``data``, not flipped: the training part or the held-out part. For integer-valued images, bits
per dimension bound the code length; for digits and latents they are those of a density in the units of training. The
results of each image are in ``likelihood-000000.npy``, ..., one file per batch, with the columns nats, bits per
dimension, and standard error of the nats over the probes.

Commands::

    python examples/likelihood.py --config examples/configs/digits.yaml --output likelihood --part heldout
    torchrun --nproc_per_node 8 -- examples/likelihood.py --config examples/configs/digits.yaml --output likelihood
"""

import dataclasses
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from models import SiT
from training import Field, log_likelihood
from training.carried import carried_interval, is_bounded
from training.config import run_script
from training.data import Source
from training.images import to_unit_range
from training.likelihood import Likelihood
from training.odeint import ADAPTIVE_METHODS
from training.processes import join
from training.samplers import FIXED_METHODS
from training.settings import such_as
from training.shards import ArrayShards, write_json, write_missing
from training.trained import Measuring, identity, read_images, require_fit, spread


@dataclass(frozen=True)
class LikelihoodConfig:
    """How many images to measure, and how precisely; see training.log_likelihood.

    Args:
        count: Number of images, spread evenly over all; null is all.
        batch_size: Images at a time.
        probes: Probes of Hutchinson's estimate of the divergence; null computes it exactly, by a backward pass for each
            dimension.
        seed: Seed of the probes, and of the noise that dequantizes integer-valued images.
        method: Method of torchdiffeq, such as dopri5 or heun2.
        num_steps: Number of steps (fixed-step methods only).
        rtol: Relative tolerance (adaptive methods only).
        atol: Absolute tolerance (adaptive methods only).
        interval: Times to integrate over; null is what the network's prediction carries, found on the first batch.
    """

    count: int | None = None
    batch_size: int = 100
    probes: int | None = 4
    seed: int = 0
    method: str = such_as((*FIXED_METHODS, *ADAPTIVE_METHODS), "dopri5")
    num_steps: int = 50
    rtol: float = 1e-5
    atol: float = 1e-5
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("count", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"config: likelihood.{name} must be at least 1, got {value}.")


@dataclass(frozen=True, kw_only=True)
class Measurement(Measuring):
    """Which images to measure under which network, which is not guided.

    Args:
        output: Folder that is written to.
        likelihood: How.
    """

    output: str
    likelihood: LikelihoodConfig = field(default_factory=LikelihoodConfig)

    def settings(self, field: Field, source: Source) -> dict[str, Any]:
        """All that the results depend on."""
        images, likelihood = self.identity_of_images(source), dataclasses.asdict(self.likelihood)
        return {**images, "likelihood": likelihood, "network": identity(field)}


def measure(
    results: ArrayShards,
    shards: list[int],
    field: Field,
    source: Source,
    chosen: Sequence[int],
    settings: LikelihoodConfig,
    interval: tuple[float, float],
) -> Generator[int, None, None]:
    """Measure and write some shards, each as a batch; yields the number of images of each.

    Raises:
        ValueError: If an image cannot be read.
    """
    for shard in shards:
        indices = [chosen[place] for place in results.of(shard)]
        images, y = read_images(source, indices, settings.seed, cast(SiT, field.model))
        result = log_likelihood(
            field,
            images,
            y=y,
            probes=settings.probes,
            seed=settings.seed,
            indices=indices,
            method=settings.method,
            num_steps=settings.num_steps,
            rtol=settings.rtol,
            atol=settings.atol,
            interval=interval,
        )
        results.write(shard, torch.stack(result, dim=1).double().cpu().numpy())  # (n, 3)
        yield len(indices)


def carried(field: Field, source: Source, indices: Sequence[int], seed: int) -> tuple[float, float]:
    """The interval over which the network's prediction carries the ODE, found on some images."""
    if is_bounded(field):  # then no image need be read
        return 0.0, 1.0
    images, y = read_images(source, indices, seed, cast(SiT, field.model))
    return carried_interval(field, to_unit_range(images), y=y, seed=seed, indices=indices)


def figures(rows: NDArray[np.float64], dims: int) -> dict[str, dict[str, float | None]]:
    """The means over the images, with their standard errors from the spread over images and over probes.

    Args:
        rows: Nats, bits per dimension and the standard error of the nats of each image, shape (N, 3).
        dims: Of an image.

    Returns:
        None for an error that is not known: from a single image, or a single probe.
    """
    count, (nats, bits, errors) = len(rows), rows.T
    over_images = nats.std(ddof=1) / math.sqrt(count) if count > 1 else math.nan
    spread = {"over_images": over_images, "over_probes": math.sqrt((errors**2).sum()) / count}

    def figure(values: NDArray[np.float64], unit: float) -> dict[str, float | None]:
        known = {name: None if math.isnan(error) else float(error / unit) for name, error in spread.items()}
        return {"mean": float(values.mean()), **known}

    return {"nats": figure(nats, 1.0), "bits_per_dim": figure(bits, dims * math.log(2))}


def main(config: Measurement) -> None:
    """Measure what is not there yet, until a signal comes; the first process says what it is in all."""
    processes = join(config.torch_device())
    field, source, settings = config.field(processes.device), config.images(), config.likelihood
    model = cast(SiT, field.model)
    require_fit(model, source)
    chosen = spread(settings.count, source)
    wanted = len(chosen)
    results = ArrayShards(
        config.output,
        config.settings(field, source),
        wanted,
        settings.batch_size,
        name="likelihood",
        shape=(len(Likelihood._fields),),
        dtype="float64",
    )
    interval = settings.interval or carried(field, source, chosen[: settings.batch_size], settings.seed)
    if interval[1] < 1.0 and processes.is_first:
        noise = float(field.path.sigma(interval[1]) / field.path.alpha(interval[1]))
        print(f"up to t = {interval[1]:.6g}: the density is of the data with a noise of deviation {noise:.2g} on it")
    complete = write_missing(
        results, processes, lambda shards: measure(results, shards, field, source, chosen, settings, interval)
    )
    if not (complete and processes.is_first):
        return
    rows = np.concatenate([results.read(shard) for shard in results.shards])
    found = figures(rows, math.prod(model.input_shape))
    write_json(results.folder / "likelihood.json", {"images": wanted, "of": len(source), "interval": interval, **found})
    of = f"all {wanted:,} images" if wanted == len(source) else f"only {wanted:,} of {len(source):,} images"
    for name, each in found.items():
        images, probes = ("unknown" if error is None else f"{error:.2g}" for error in list(each.values())[1:])
        print(f"{name} {each['mean']:.4f} of {of}; standard error {images} over images, {probes} over probes")


if __name__ == "__main__":
    run_script(main, Measurement)
