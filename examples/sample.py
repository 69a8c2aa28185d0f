"""Pictures of samples by the ODE and by the SDE; samples of a run are shown beside real images.

Commands::

    python examples/sample.py --config examples/configs/digits.yaml
    python examples/sample.py --config examples/configs/digits.yaml --sampler ode --sampling.ode.method dopri5
    python examples/sample.py --config examples/configs/digits.yaml --sampling.sde.w sin_squared
    python examples/sample.py --pretrained SiT-XL-2-256x256.pt --vae stabilityai/sd-vae-ft-ema --output pictures
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from matplotlib.figure import Figure
from torch import Tensor

from models import SiT
from training import Field, sample_ode, sample_sde
from training.checkpoint import Checkpoint, run_of
from training.config import ODEConfig, SamplingConfig, SDEConfig, run_script
from training.decoder import Decoder
from training.fields import unwrapped
from training.figures import COLUMNS, name_of, sample_grid, trajectory_figure
from training.files import write_png
from training.fingerprint import class_names
from training.generate import as_sampled, draw, initial_noise, labels_of
from training.images import to_unit_range
from training.latents import Latents
from training.precision import products, require_tf32
from training.samplers import default_ode_method
from training.settings import one_of
from training.shards import write_arrays
from training.trained import SAMPLERS, Drawing, identity

ROWS, ALONE = 8, 100
"""Samples in a picture: of each class, and where there is one class only."""


@dataclass(frozen=True, kw_only=True)
class Pictures(Drawing):
    """The samples to draw: those that the picture shows, or ``sampling.num_samples``; the samplers are in ``sampling``.

    Args:
        output: Folder to write to; null is that of the run.
        sampler: ode or sde; null is both.
    """

    output: str | None = None
    sampler: str | None = one_of(SAMPLERS, None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained is not None and self.output is None:
            raise ValueError("config: output must be set with pretrained, got null. There is no run to write to.")

    def checkpoint(self) -> Checkpoint | None:
        """See Trained; also checks that the run held out what is shown as held out."""
        checkpoint = super().checkpoint()
        if checkpoint is not None:
            checkpoint.require_settings(dataclasses.asdict(self), only=("data.held_out",))
        return checkpoint

    def samplers(self) -> dict[str, ODEConfig | SDEConfig]:
        """The chosen samplers, by name."""
        return {name: getattr(self.sampling, name) for name in SAMPLERS if self.sampler in (name, None)}


def main(config: Pictures) -> None:
    """Draw, and write samples, grids and trajectories."""
    folder, settings = Path(config.output or run_of(config.run) or config.run), config.sampling
    device = config.torch_device()
    require_tf32(config.precision, device, "precision")
    checkpoint, field = config.checkpoint(), as_sampled(config.field(device), settings)
    model = cast(SiT, unwrapped(field.model))
    settings = as_shown(settings, model.num_classes)
    decode = Decoder(config, model.input_shape, device).images
    real = None if checkpoint is None else real_examples(config, decode)
    known = {} if checkpoint is None or not model.num_classes else checkpoint.meta.get("data", {})  # not in older runs
    names = class_names(known) if known else []
    digest = identity(field)["sha256"] if checkpoint is None else checkpoint.digest
    of = f"of {config.pretrained}" if checkpoint is None else f"after {checkpoint.step} steps"
    if config.precision == "bfloat16":
        model.blocks.bfloat16()
    folder.mkdir(parents=True, exist_ok=True)
    with products(config.precision):
        for kind, sampler in config.samplers().items():
            samples, labels = draw(field, sampler, settings)
            about = {
                "checkpoint": digest,
                "sampler": str(sampler),
                "guidance_scale": settings.guidance_scale,
                "guidance_interval": settings.guidance_interval,
                "guidance_channels": settings.guidance_channels,
                "classes": settings.classes,
                "seed": settings.seed,
                "path": field.path.to_text(),
            }
            arrays = {"samples": samples, "labels": labels, "about": json.dumps(about)}
            write_arrays(folder / f"samples_{kind}.npz", arrays)
            shown = first_of_each(labels)
            figure = sample_grid(decode(samples[shown]), labels[shown], f"Samples: {sampler}", real=real, names=names)
            write_png(folder / f"samples_{kind}.png", figure.savefig)
            seen = "all" if len(shown) == len(samples) else len(shown)
            print(
                f"{len(samples)} samples by {sampler}, {of}: {folder}/samples_{kind}.npz, "
                f"{seen} of them in samples_{kind}.png"
            )
        if others := [sampler for sampler in config.samplers().values() if not sampler.official]:
            write_png(folder / "trajectory.png", trajectory(field, others, config, decode, names).savefig)
            print(f"the same noise from t = 0 to t = 1: {folder}/trajectory.png")


def as_shown(settings: SamplingConfig, num_classes: int) -> SamplingConfig:
    """The settings of as many samples as a picture shows, of the classes that it shows, unless they have a number."""
    if settings.num_samples is not None:
        return settings
    labels_of(settings, num_classes, ())  # refuses classes that the network does not have
    if settings.classes == "random":
        return dataclasses.replace(settings, num_samples=ROWS * COLUMNS)
    asked = range(max(1, num_classes)) if settings.classes == "balanced" else settings.classes
    shown = tuple(sorted({*asked})[:COLUMNS])
    settings = dataclasses.replace(settings, num_samples=ROWS * len(shown) if len(shown) > 1 else ALONE)
    return dataclasses.replace(settings, classes=shown) if num_classes else settings


def first_of_each(labels: Tensor, rows: int = ROWS, classes: int = COLUMNS) -> list[int]:
    """The samples to show: the first ones of each of the first classes, or more if there is one class only."""
    shown = sorted(set(labels.tolist()))[:classes]
    rows = rows if len(shown) > 1 else ALONE
    return [index for label in shown for index in (labels == label).nonzero()[:rows, 0].tolist()]


def real_examples(config: Pictures, decode: Callable[[Tensor], Tensor], count: int = 400) -> tuple[Tensor, Tensor, str]:
    """Images in [-1, 1], their labels (zeros if the network has no classes), and their title."""
    source = config.data_source(config.data.measured, flip=False)
    indices: Sequence[int] = range(0, len(source), max(1, len(source) // count))
    if isinstance(source, Latents):
        indices = first_of_each(source.labels)
    batch = source.batch(indices, [(config.seed, index) for index in indices])
    what = "Real, held out" if config.data.measured == "heldout" else "Real, from the training data"
    what += ", decoded" if isinstance(source, Latents) else ""
    images, labels = decode(to_unit_range(batch.data)), batch.labels
    return images, labels if config.model.num_classes else torch.zeros_like(labels), what


def trajectory(
    field: Field,
    samplers: Sequence[ODEConfig | SDEConfig],
    config: Pictures,
    decode: Callable[[Tensor], Tensor],
    names: Sequence[str] = (),
    num_steps: int = 80,
    columns: int = 9,
) -> Figure:
    """The states of the samplers, which are not official, from the same noise, one row a sample."""
    settings, device, model = config.sampling, config.torch_device(), cast(SiT, unwrapped(field.model))
    rows = range(min(10, model.num_classes or 10))
    labels = labels_of(settings, model.num_classes, rows)
    y = labels.to(device) if model.num_classes else None
    noise = initial_noise(model.input_shape, settings.seed, rows).to(device)
    states = {}
    for sampler in samplers:
        arguments = dataclasses.asdict(sampler) | {"num_steps": num_steps}
        del arguments["official"]
        if isinstance(sampler, ODEConfig):
            name = f"ODE, {sampler.method or default_ode_method(field)}"
            xs = sample_ode(field, noise, y=y, trajectory=True, progress=True, **arguments)
        else:
            name = f"SDE, {sampler.method if sampler.w is None else f'w = {sampler.w}'}"
            xs = sample_sde(field, noise, y=y, trajectory=True, progress=True, seed=settings.seed, **arguments)
        states[name] = xs[:: num_steps // (columns - 1)].cpu()
    images = {name: torch.stack([decode(x) for x in xs]) for name, xs in states.items()}
    of_rows = [name_of(label, names) for label in labels.tolist()] if model.num_classes else []
    return trajectory_figure(images, times=torch.linspace(0, 1, columns).tolist(), labels=of_rows)


if __name__ == "__main__":
    run_script(main, Pictures)
