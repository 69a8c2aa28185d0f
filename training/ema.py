r"""Averages of the weights: what is sampled from.

Two kinds. The exponential one forgets at a fixed rate. That of a power function weights step tau of t by
(gamma + 1) tau^gamma / t^(gamma + 1), so that its width stays the same part of the run however long that is. From
snapshots of one or more of these, any other width is had after training, as their combination nearest to it.

Source: Karras et al. (2024), Analyzing and Improving the Training Dynamics of Diffusion Models, arXiv:2312.02696.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from training.checkpoint import UNFINISHED, write_tensors
from training.progress import side_progress

Tensors: TypeAlias = "tuple[Tensor, ...] | list[Tensor]"

WIDEST: Final = 12.0**-0.5
"""The relative width of the average of all steps, gamma = 0."""

WIDTH: Final = "ema-width-"
SNAPSHOTS: Final = "snapshots"


def make_averages(model: nn.Module, decays: Sequence[float], widths: Sequence[float]) -> dict[str, AveragedModel]:
    """Every average of a run by its name: "ema" is that of the first decay, "ema-0.999" that of another decay, and
    "ema-width-0.05" that of a power function.
    """
    named = {"ema" if n == 0 else f"ema-{decay:g}": make_ema(model, decay) for n, decay in enumerate(decays)}
    return named | {f"{WIDTH}{width:g}": make_power_ema(model, width) for width in widths}


def make_ema(model: nn.Module, decay: float) -> AveragedModel:
    r"""A copy of the network whose weights follow it, after each call of ``update_parameters(model)``, as

    .. math:: \theta_{ema} \leftarrow d_n \theta_{ema} + (1 - d_n) \theta, \qquad
        d_n = \min\left(\mathrm{decay}, \frac{1 + n}{10 + n}\right)

    where n is the number of updates before, ``n_averaged``; the first one copies. The warm-up keeps a short run from
    averaging in its random start. Buffers are copied, not averaged.

    Args:
        model: The network; it is not changed.
        decay: In [0, 1); about 1 / (1 - decay) steps are averaged.

    Raises:
        ValueError: If decay is outside [0, 1).
    """
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"make_ema: decay must be in [0, 1), got {decay!r}. 0.9999 is usual for long runs.")
    return _average(model, lambda n: min(decay, (1 + n) / (10 + n)))


def make_power_ema(model: nn.Module, width: float) -> AveragedModel:
    r"""A copy of the network whose weights are, after t calls of ``update_parameters(model)``,

    .. math:: \sum_{\tau = 1}^{t} p(\tau) \, \theta_\tau, \qquad
        p(\tau) \approx (\gamma + 1) \, \frac{\tau^\gamma}{t^{\gamma + 1}},

    by the recursion of decay (1 - 1/t)^(gamma + 1).

    Args:
        model: The network; it is not changed.
        width: The standard deviation of tau / t under p, in (0, 1/sqrt(12)].

    Raises:
        ValueError: If it is outside.
    """
    exponent = power_of_width(width) + 1
    return _average(model, lambda n: (1 - 1 / (n + 1)) ** exponent)


def power_of_width(width: float) -> float:
    r"""The gamma >= 0 whose density (gamma + 1) u^gamma on [0, 1] has this standard deviation:

    .. math:: \mathrm{width}^2 = \frac{\gamma + 1}{(\gamma + 2)^2 (\gamma + 3)}

    Raises:
        ValueError: If there is none.
    """
    if not 0.0 < width <= WIDEST:
        raise ValueError(f"power_of_width: width must be in (0, {WIDEST:.4f}], got {width!r}. 0.05 and 0.1 are usual.")
    inverse = width**-2.0
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return max(0.0, float(np.max(roots.real[np.abs(roots.imag) < 1e-6])))


def _average(model: nn.Module, decay: Callable[[int], float]) -> AveragedModel:
    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, n_averaged: Tensor | int) -> None:
        torch._foreach_lerp_(averaged, current, 1.0 - decay(int(n_averaged)))

    return AveragedModel(model, multi_avg_fn=update).requires_grad_(False)


# Any width, after training


def save_snapshot(run: str | Path, step: int, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write the weights of averages, by their names, for ``combine``: in float16, as each is needed at many steps.

    Raises:
        OSError: If the folder cannot be written.
    """
    folder = Path(run) / SNAPSHOTS
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{name}/{key}": value.half() for name, state in weights.items() for key, value in state.items()}
    file = f"step-{step:08d}.safetensors"
    temporary = folder / f"{UNFINISHED}{step:08d}"  # a folder: safetensors writes to another file first
    temporary.mkdir()
    write_tensors(temporary / file, tensors)
    os.replace(temporary / file, folder / file)
    temporary.rmdir()


def combine(run: str | Path, width: float, step: int | None = None) -> tuple[dict[str, Tensor], float]:
    r"""The weights of an average of any width, from the snapshots of a run.

    The combination of the snapshots' densities that is nearest to the wanted one in the L2 norm over the run.

    Args:
        run: Folder of the run.
        width: Wanted, relative to the run.
        step: At which the average ends; None is that of the last snapshot. Later snapshots are not used.

    Returns:
        The state dict, float32, and the distance that is left, of densities, relative to the norm of the wanted one.

    Raises:
        ValueError: If there are no snapshots up to this step, or the width is not one.
    """
    files = {int(file.stem[5:]): file for file in sorted((Path(run) / SNAPSHOTS).glob("step-*.safetensors"))}
    steps = [at for at in files if step is None or at <= step]
    if not steps or (step is not None and step not in files):
        there = ", ".join(str(at) for at in files) or "none"
        raise ValueError(f"combine: step must be one of the snapshots in {run}, {there}, got {step!r}.")
    columns = [(at, name) for at in steps for name in _averages_in(files[at])]
    powers = [power_of_width(float(name.removeprefix(WIDTH))) for _, name in columns]
    weights, distance = mixture(powers, [at for at, _ in columns], power_of_width(width), steps[-1])
    weight_of = dict(zip(columns, weights.tolist(), strict=True))
    total: dict[str, Tensor] = {}
    for at in side_progress(steps, desc="averages", unit="snapshot"):
        for key, value in load_file(files[at]).items():
            average, parameter = key.split("/")
            part = weight_of[at, average] * value.float()
            total[parameter] = total[parameter] + part if parameter in total else part
    return total, distance


def _averages_in(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as content:
        return sorted({key.split("/")[0] for key in content.keys()})  # noqa: SIM118 - it is no dict


def mixture(
    powers: Sequence[float], ends: Sequence[float], power: float, end: float
) -> tuple[NDArray[np.float64], float]:
    r"""The weights x, of sum 1, that make :math:`\sum_i x_i p_i` nearest to p in L2.

    p_i is the density of gamma_i that ends at t_i.
    The products in the normal equations have the closed form

    .. math:: \int p_a p_b \, d\tau = \frac{(\gamma_a + 1)(\gamma_b + 1)}{\gamma_a + \gamma_b + 1}
        \frac{\min(t_a, t_b)^{\gamma_a + \gamma_b + 1}}{t_a^{\gamma_a + 1} t_b^{\gamma_b + 1}}.

    Returns:
        The weights, and the distance that is left relative to the norm of p.
    """
    gram = _products(powers, ends, powers, ends)
    wanted = _products(powers, ends, [power], [end])[:, 0]
    ones = np.ones((len(gram), 1))
    bordered = np.block([[gram, ones], [ones.T, np.zeros((1, 1))]])  # Lagrange's, for the sum
    weights = np.linalg.lstsq(bordered, np.append(wanted, 1.0), rcond=1e-13)[0][:-1]
    norm = _products([power], [end], [power], [end])[0, 0]
    left = norm - 2 * weights @ wanted + weights @ gram @ weights
    return weights, float(np.sqrt(max(0.0, left) / norm))


def _products(
    powers_a: Iterable[float], ends_a: Iterable[float], powers_b: Iterable[float], ends_b: Iterable[float]
) -> NDArray[np.float64]:
    a, b = np.array([*powers_a])[:, None], np.array([*powers_b])[None, :]
    s, t = np.array([*ends_a], dtype=float)[:, None], np.array([*ends_b], dtype=float)[None, :]
    ratio = np.where(s < t, (s / t) ** b, (t / s) ** a)  # never of large powers of large times
    product: NDArray[np.float64] = (a + 1) * (b + 1) / (a + b + 1) * ratio / np.maximum(s, t)
    return product
