"""A picture of samples, drawn from the same noise at any step of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from training.config import ODEConfig
from training.fields import Field
from training.figures import by_class, tile_figure
from training.generate import integrate


def sample_picture(
    field: Field,
    shape: tuple[int, int, int, int],
    sampler: ODEConfig,
    *,
    y: Tensor | None = None,
    names: Sequence[str] = (),
    seed: int = 0,
    device: torch.device | str = "cpu",
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Figure:
    """Samples, in columns by class or in a square; see ``figures.by_class``.

    The noise depends on the seed and the shape alone, and torch's default generator is left as it is.

    Args:
        field: The network, of averaged weights, on its path.
        shape: Of all samples, (N, C, H, W).
        sampler: How to integrate.
        y: Labels, shape (N,), or None.
        names: Names of the classes, by label.
        seed: Of the noise.
        device: Of the network and of y.
        decode: From latents to images in [-1, 1], (N, C, H, W) -> (N, C', H', W') with C' 1 or 3; None where the
            samples are images.

    Raises:
        ValueError: If the samples are not images and there is no ``decode``; see also ``integrate``.
    """
    if decode is None and shape[1] not in (1, 3):
        raise ValueError(f"sample_picture: decode must be given for samples of {shape[1]} channels, got None.")
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
    samples = integrate(field, noise, sampler, y=y)
    if decode is not None:
        with torch.inference_mode():
            samples = decode(samples)
    labels = torch.zeros(len(samples), dtype=torch.int64) if y is None else y.cpu()
    return tile_figure([by_class(samples.cpu(), labels, sorted(set(labels.tolist())), names)])
