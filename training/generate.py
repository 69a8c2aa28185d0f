"""Samples of all classes from a trained network, each with the same noise whatever the sampler, batch or device."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from models import SiT
from training.config import ODEConfig, SamplingConfig, SDEConfig
from training.fields import Field
from training.samplers import sample_ode, sample_sde


def draw(field: Field, sampler: ODEConfig | SDEConfig, settings: SamplingConfig) -> tuple[Tensor, Tensor]:
    """Samples of all classes in turn: sample i is asked to be of class i mod num_classes.

    Equal seeds and numbers mean equal noise at t = 0, whatever the sampler, batch size or device.

    Args:
        field: A trained SiT on its path.
        sampler: How to integrate.
        settings: Number of samples, batch size, seed.

    Returns:
        Samples, shape (num_samples, C, H, W), and their classes, shape (num_samples,), both on the CPU.
    """
    model = cast(SiT, field.model)
    generator = torch.Generator().manual_seed(settings.seed)
    noise = torch.randn(settings.num_samples, *model.input_shape, generator=generator)
    labels = torch.arange(settings.num_samples) % model.num_classes
    device = model.pos_embed.device
    samples = []
    for start in range(0, settings.num_samples, settings.batch_size):
        rows = range(start, min(start + settings.batch_size, settings.num_samples))
        x, y = noise[rows].to(device), labels[rows].to(device)
        if isinstance(sampler, ODEConfig):
            drawn = sample_ode(field, x, num_steps=sampler.num_steps, method=sampler.method, grid=sampler.grid, y=y)
        else:
            drawn = sample_sde(
                field,
                x,
                w=sampler.w,
                num_steps=sampler.num_steps,
                seed=settings.seed,
                method=sampler.method,
                grid=sampler.grid,
                y=y,
                indices=rows,
            )
        samples.append(drawn.cpu())
    return torch.cat(samples), labels
