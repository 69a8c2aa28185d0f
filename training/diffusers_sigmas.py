r"""The levels of noise of diffusers, its ``sigmas``, as times on any path, and the shift that raises them.

A level is sigma / alpha for networks of DDPM's kind (EulerDiscreteScheduler), and sigma / (alpha + sigma) for those of
flow matching (FlowMatchEulerDiscreteScheduler): on the linear path that is 1 - t. A shift multiplies sigma / alpha by a
factor: Esser et al. (2024), arXiv:2403.03206, section 5.3.2. The factor may depend on the size of the image through mu,
which the pipelines compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import torch

from interpolants import Path
from interpolants.time_change import time_at_log_snr
from interpolants.time_grid import FloatArray, TimeGrid

TIME_SHIFTS: Final[Mapping[str, Callable[[float], float]]] = {"exponential": math.exp, "linear": float}
"""The factor as a function of mu."""


def times_at(
    path: Path, sigmas: FloatArray, *, ratio: bool, factor: float = 1.0, terminal: float | None = None
) -> FloatArray:
    """The times at which ``path`` has the levels ``sigmas``.

    Args:
        path: Any.
        sigmas: Levels, shape (n,). A last 0, the data, is left out.
        ratio: Whether levels are sigma / alpha; else they are sigma / (alpha + sigma).
        factor: Factor that sigma / alpha is then multiplied by (not with ``ratio``).
        terminal: Level that the last one then gets, by stretching all but 1 (not with ``ratio``); None leaves them.

    Raises:
        ValueError: If a level is not positive, or higher than any on the path, or they have another shape; or the last
            is 1 where it is to get ``terminal``.
    """
    if sigmas.ndim != 1:
        raise ValueError(f"set_timesteps: sigmas must have shape (n,), got {sigmas.shape}.")
    levels = sigmas[:-1] if len(sigmas) and sigmas[-1] == 0.0 else sigmas
    highest = math.exp(-float(path.log_snr(0.0)) / 2)
    highest = highest if ratio else 1 / (1 + 1 / highest)
    if not (len(levels) and (levels > 0).all() and (levels <= 1.01 * highest).all()):  # published ones are rounded
        level = "sigma / alpha" if ratio else "sigma / (alpha + sigma)"
        raise ValueError(
            f"set_timesteps: sigmas must lie in (0, {highest:.6g}], as {level} on this path, got {sigmas.tolist()}."
        )
    levels = np.minimum(levels, highest)
    if ratio:
        return _times_at_ratio(path, levels)
    levels = factor * levels / (1 + (factor - 1) * levels)
    if terminal:
        if levels[-1] == 1.0:
            raise ValueError(
                "set_timesteps: the last of sigmas must be below 1 to be stretched to shift_terminal, got "
                f"{sigmas.tolist()}."
            )
        levels = 1 - (1 - levels) * (1 - terminal) / (1 - levels[-1])
    with np.errstate(divide="ignore"):
        return _times_at_ratio(path, levels / (1 - levels))  # infinite where there is noise alone


def shifted(grid: TimeGrid, factor: float) -> TimeGrid:
    """The grid with sigma / alpha multiplied by ``factor`` at all its times."""
    if factor == 1.0:
        return grid

    def places(path: Path, u: FloatArray) -> FloatArray:
        return _times_at_ratio(path, factor * np.exp(-path.log_snr(grid.places(path, u)) / 2))

    return TimeGrid(f"{grid.name}, shifted by {factor:g}", places)


def shift_factor(mu: float | None, time_shift_type: str) -> float:
    """The factor of a dynamic shift.

    Raises:
        ValueError: If ``mu`` is None, or makes no positive factor.
    """
    if mu is None:
        raise ValueError(
            "set_timesteps: mu must be given where use_dynamic_shifting is True, got None. A pipeline computes it "
            "from the size of the image; without one set use_dynamic_shifting=False and a shift."
        )
    try:
        factor = TIME_SHIFTS[time_shift_type](mu)
    except OverflowError:  # of the exponential
        factor = math.inf
    if not 0 < factor < math.inf:
        raise ValueError(f"set_timesteps: mu must make a positive factor, got {mu!r} ({factor:g}).")
    return factor


def _times_at_ratio(path: Path, ratios: FloatArray) -> FloatArray:
    """Where sigma / alpha has these values."""
    with np.errstate(divide="ignore"):
        log_snr = -2 * np.log(ratios)
    times: FloatArray = time_at_log_snr(path, torch.from_numpy(log_snr)).numpy()
    return times
