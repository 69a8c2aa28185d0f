"""Sample from a run by the ODE and by the SDE, and draw the samples beside real images.

Commands::

    python examples/sample.py --config examples/configs/digits.yaml
    python examples/sample.py --config examples/configs/digits.yaml --sampling.ode.method dopri5
    python examples/sample.py --config examples/configs/digits.yaml --sampling.sde.w sin_squared
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from models import SiT
from training import Field, sample_ode, sample_sde
from training.checkpoint import find
from training.config import Config, run_script
from training.data import Source, digits
from training.figures import sample_grid, trajectory_figure
from training.generate import draw, guided, initial_noise, labels_of
from training.images import to_unit_range
from training.latents import Latents
from training.samplers import default_ode_method


def main(config: Config) -> None:
    """Draw with the EMA weights, and write samples, grids and trajectories into the folder of the run."""
    run, settings = Path(config.run), config.sampling
    checkpoint = find(run)
    checkpoint.require_settings(dataclasses.asdict(config), only=("path", "prediction", "model."))
    field = guided(checkpoint.field(device=config.torch_device()), settings)
    source = dataclasses.replace(config, data=dataclasses.replace(config.data, flip=False)).data_source()
    decode = decoder(config, source)
    real, real_labels, what = real_examples(config, source, decode)
    if not config.model.num_classes:
        real_labels = torch.zeros_like(real_labels)  # as those of the samples
    for kind, sampler in (("ode", settings.ode), ("sde", settings.sde)):
        samples, labels = draw(field, sampler, settings)
        about = {
            "checkpoint": checkpoint.digest,
            "sampler": str(sampler),
            "guidance_scale": settings.guidance_scale,
            "guidance_interval": settings.guidance_interval,
            "classes": settings.classes,
            "seed": settings.seed,
        }
        np.savez(run / f"samples_{kind}.npz", samples=samples, labels=labels, about=json.dumps(about))
        shown = first_of_each(labels)
        images = decode(samples[shown])
        figure = sample_grid(images, labels[shown], real, real_labels, title=f"Samples: {sampler}", real_title=what)
        figure.savefig(run / f"samples_{kind}.png", dpi=150)
        print(f"{len(samples)} samples by {sampler}, after {checkpoint.step} steps: {run}/samples_{kind}.png and .npz")
    trajectory(field, config, decode).savefig(run / "trajectory.png", dpi=150)
    print(f"the same noise from t = 0 to t = 1: {run}/trajectory.png")


def decoder(config: Config, source: Source) -> Callable[[Tensor], Tensor]:
    """From what is trained on to images in [-1, 1], which latents are not yet."""
    if isinstance(source, Latents):
        return source.decoder(config.data.vae, config.torch_device())
    return lambda x: x


def first_of_each(labels: Tensor, rows: int = 8, classes: int = 10) -> list[int]:
    """What a picture shows: the first ones of each of the first classes."""
    shown = sorted(set(labels.tolist()))[:classes]
    return [index for label in shown for index in (labels == label).nonzero()[:rows, 0].tolist()]


def real_examples(
    config: Config, source: Source, decode: Callable[[Tensor], Tensor], count: int = 400
) -> tuple[Tensor, Tensor, str]:
    """Images in [-1, 1], their labels, and what they are."""
    if config.data.name == "digits":
        return *digits("heldout"), "Real, never trained on"
    indices: Sequence[int] = range(0, len(source), max(1, len(source) // count))
    if isinstance(source, Latents):
        indices = first_of_each(source.labels)
    batch = source.batch(indices, [(config.seed, index) for index in indices])
    what = "Real, trained on" + (", decoded" if isinstance(source, Latents) else "")
    return decode(to_unit_range(batch.data)), batch.labels, what


def trajectory(
    field: Field, config: Config, decode: Callable[[Tensor], Tensor], num_steps: int = 80, columns: int = 9
) -> Figure:
    """The states of both samplers from the same noise, one row a sample."""
    settings, device, model = config.sampling, config.torch_device(), cast(SiT, field.model)
    rows = range(min(10, model.num_classes or 10))
    labels = labels_of(settings, model.num_classes, rows)
    y = labels.to(device) if model.num_classes else None
    noise = initial_noise(model.input_shape, settings.seed, rows).to(device)
    by = {sampler: dataclasses.asdict(sampler) | {"num_steps": num_steps} for sampler in (settings.ode, settings.sde)}
    ode = sample_ode(field, noise, y=y, trajectory=True, **by[settings.ode])
    sde = sample_sde(field, noise, y=y, trajectory=True, seed=settings.seed, **by[settings.sde])
    w, method = settings.sde.w, settings.sde.method
    every = num_steps // (columns - 1)
    states = {
        f"ODE, {settings.ode.method or default_ode_method(field)}": ode[::every].cpu(),
        f"SDE, {method if w is None else f'w = {w}'}": sde[::every].cpu(),
    }
    images = {name: torch.stack([decode(x) for x in xs]) for name, xs in states.items()}
    return trajectory_figure(images, times=torch.linspace(0, 1, columns).tolist(), labels=labels.tolist())


if __name__ == "__main__":
    run_script(main)
