"""Samples by their number: sample i of a seed has its own class, its own noise at t = 0 and its own Brownian path.

So it is the same one, but for rounding, in any batch, among any number of samples and on any number of processes. The
noise at t = 0 is drawn on the CPU, and is the same for every sampler and device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final, cast

import torch
from torch import Tensor

from models import SiT
from training.adaptive import TABLEAUS
from training.brownian import SampleNoise, stream
from training.config import ODEConfig, SamplingConfig, SDEConfig, path_of
from training.fields import Field, unwrapped
from training.monitor import Callback
from training.official import sample_official_ode, sample_official_sde
from training.progress import side_progress
from training.samplers import sample_ode, sample_sde

_OF_NOISE, _OF_CLASSES = 2, 3  # streams of their own: those of the likelihood are 0 and 1
_CPU: Final = torch.device("cpu")


def draw(field: Field, sampler: ODEConfig | SDEConfig, settings: SamplingConfig) -> tuple[Tensor, Tensor]:
    """All samples of the settings.

    Args:
        field: A trained SiT on its path, with its guidance.
        sampler: How to integrate.
        settings: Number of samples, batch size, seed, classes.

    Returns:
        Samples, shape (num_samples, C, H, W), and their classes, shape (num_samples,), both on the CPU.

    Raises:
        ValueError, FloatingPointError: See ``draw_some``.
    """
    count, size = settings.count, settings.batch_size
    batches = [range(start, min(start + size, count)) for start in range(0, count, size)]
    samples, labels = [], []
    with side_progress(total=count, desc=str(sampler), unit="sample") as bar:
        for batch in batches:
            x, y = draw_some(field, sampler, settings, batch)
            samples.append(x.cpu())
            labels.append(y)
            bar.update(len(batch))
    return torch.cat(samples), torch.cat(labels)


def draw_some(
    field: Field, sampler: ODEConfig | SDEConfig, settings: SamplingConfig, indices: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The samples of some numbers, as one batch.

    Returns:
        Samples, shape (batch, C, H, W), on the device of the network, and their classes, shape (batch,), on the CPU.

    Raises:
        ValueError: If a setting does not fit the network; see also ``sample_ode`` and ``sample_sde``.
        FloatingPointError: If a sample is not finite; has its number.
    """
    model = cast(SiT, unwrapped(field.model))
    device = model.pos_embed.device
    labels = labels_of(settings, model.num_classes, indices)
    noise = initial_noise(model.input_shape, settings.seed, indices).to(device)
    y = labels.to(device) if model.num_classes else None
    last: list[tuple[float, Tensor]] = []

    def keep(step: int, t: float, x: Tensor) -> None:
        last[:] = [(t, x)]

    try:
        samples = integrate(field, noise, sampler, y=y, seed=settings.seed, indices=indices, callback=keep)
    except ValueError as error:
        for t, x in last:  # which sample it was, the sampler does not know
            with torch.inference_mode(), field.evaluation_mode():
                require_finite(x + field.predict(x, t, y), indices, str(error))
        raise
    return samples, labels


def integrate(
    field: Field,
    noise: Tensor,
    sampler: ODEConfig | SDEConfig,
    *,
    y: Tensor | None = None,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Samples drawn from noise at t = 0 by the sampler of the settings, (batch, ...) -> (batch, ...).

    Args:
        field: The network on its path.
        noise: Standard normal, shape (batch, ...).
        sampler: How to integrate.
        y: Labels, shape (batch,), or None.
        seed, indices: Seed and index of each sample, which give the noise of an SDE; None numbers the batch from 0.
        callback: Called as callback(step, t, x) at the start of every step; official samplers do not call it.

    Raises:
        ValueError: See ``sample_ode``, ``sample_sde`` and their official counterparts.
    """
    arguments = asdict(sampler)
    indices = range(len(noise)) if indices is None else indices
    if not arguments.pop("official"):
        if isinstance(sampler, ODEConfig):
            return sample_ode(field, noise, y=y, per_sample=sampler.method in TABLEAUS, callback=callback, **arguments)
        return sample_sde(field, noise, y=y, seed=seed, indices=indices, callback=callback, **arguments)
    del arguments["grid"]  # the settings hold it uniform
    if isinstance(sampler, ODEConfig):
        return sample_official_ode(field, noise, y=y, **arguments | {"method": sampler.method or "dopri5"})
    del arguments["eta"]
    normal = SampleNoise(noise, indices, seed)
    return sample_official_sde(field, noise, y=y, increments=lambda _: normal.normal(), **arguments)


def labels_of(settings: SamplingConfig, num_classes: int, indices: Sequence[int]) -> Tensor:
    """Of the samples of some numbers, int64, shape (len(indices),); zeros where there are no classes.

    Raises:
        ValueError: If the settings ask for others than the network has.
    """
    asked = settings.classes
    if asked == "balanced":
        return torch.tensor([index % max(1, num_classes) for index in indices])
    if isinstance(asked, str):
        if not num_classes:
            raise ValueError(f"config: sampling.classes must be balanced for a network without classes, got {asked!r}.")
        streams = (stream(settings.seed, index, _CPU, _OF_CLASSES) for index in indices)
        return torch.tensor([int(torch.randint(num_classes, (), generator=generator)) for generator in streams])
    if not all(0 <= label < num_classes for label in asked):
        raise ValueError(f"config: sampling.classes must be below {num_classes}, as the network's, got {asked}.")
    return torch.tensor([asked[index % len(asked)] for index in indices])


def initial_noise(shape: tuple[int, ...], seed: int, indices: Sequence[int]) -> Tensor:
    """Standard normal noise at t = 0 of the samples of some numbers, float32, shape (len(indices), *shape)."""
    streams = (stream(seed, index, _CPU, _OF_NOISE) for index in indices)
    return torch.stack([torch.randn(shape, generator=generator) for generator in streams])


def require_finite(values: Tensor, indices: Sequence[int], reason: str) -> None:
    """Raise FloatingPointError with the numbers of the samples whose values, shape (batch, ...), are not finite."""
    finite = torch.isfinite(values).flatten(1).all(1).tolist()
    bad = [str(index) for index, is_finite in zip(indices, finite, strict=True) if not is_finite]
    if bad:
        raise FloatingPointError(f"generate: samples must be finite, and not finite are {', '.join(bad)}: {reason}")


def as_sampled(field: Field, settings: SamplingConfig) -> Field:
    """The same network, with the guidance and on the path of the settings."""
    guided = Field(field.model, field.path, field.prediction, guidance=settings.guidance(), dtype=field.dtype)
    return guided if settings.path is None else guided.on(path_of(settings.path))
