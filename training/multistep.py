"""The derived solvers: each step is a sum of the state and the last predictions, and calls the network once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from torch import Tensor

from interpolants import Path
from interpolants.diffusion import DiffusionLike
from interpolants.exponential import Steps, steps
from interpolants.time_grid import FloatArray


@dataclass(frozen=True)
class Multistep:
    """What is interpolated, in which variable, through how many predictions, and whether states are corrected."""

    space: str
    variable: str
    predictions: int
    corrected: bool = False

    @property
    def order(self) -> int:
        """Of convergence."""
        return self.predictions + self.corrected

    @functools.lru_cache(maxsize=64)  # noqa: B019 - methods are constants of this module
    def steps(self, path: Path, times: tuple[float, ...], w: DiffusionLike = 0) -> Steps:
        """The coefficients over the times, derived at the first call: the batches of a run share them.

        The last state is not corrected, which would take a prediction at t = 1. On the data it then has one
        prediction more: where no noise is left it is the data, and errs by h^predictions, not by a power more.
        """
        table = self._table(path, times, self.predictions, w)
        if not self.corrected or self.space != "data" or len(times) < self.predictions + 2:
            return table
        longer = self._table(path, times[-self.predictions - 2 :], self.predictions + 1, w)
        weights = np.pad(table.weights, ((0, 0), (0, 1)))
        weights[-1] = longer.weights[-1]
        return dataclasses.replace(table, weights=weights)

    def _table(self, path: Path, times: tuple[float, ...], order: int, w: DiffusionLike) -> Steps:
        return steps(path, times, order, space=self.space, variable=self.variable, w=w)

    def refined_start(self, times: FloatArray) -> FloatArray:
        """The times, with one more for a method of order four.

        The first step has one prediction and errs by h^2, by h^3 where it is corrected. So methods of order three
        correct their first steps, and order four needs a first step as short as h^(4/3) too.
        """
        if self.order < 4 or len(times) < 3:
            return times
        first = times[1] - times[0]
        return np.insert(times, 1, times[0] + first * (first / (times[-1] - times[0])) ** (1 / 3))


def _family(name: str, space: str, variable: str) -> dict[str, Multistep]:
    predictors = {f"{name}{k}": Multistep(space, variable, k) for k in (2, 3)}
    corrected = "unipc" if name == "dpm_solver" else f"{name}_pc"
    return predictors | {f"{corrected}{k}": Multistep(space, variable, k, corrected=True) for k in (2, 3)}


DDIM: Final = Multistep("data", "t", 1)
ODE_METHODS: Final = {
    **_family("adams", "velocity", "t"),
    "ddim": DDIM,
    **_family("exponential", "data", "t"),
    **_family("dpm_solver", "data", "log_snr"),
}
SDE_METHODS: Final = {
    **{f"exponential{k}": Multistep("data", "t", k) for k in (1, 2, 3)},
    **{f"sde_dpm_solver{k}": Multistep("data", "log_snr", k) for k in (2, 3)},
}


def integrate(
    table: Steps,
    method: Multistep,
    x: Tensor,
    predict: Callable[[int, Tensor], Tensor],
    starts: Callable[[int, Tensor], None],
    normal: Callable[[], Tensor],
) -> Tensor:
    """The state at the last of the times.

    Args:
        table: The coefficients.
        method: Which of the states are corrected: all, or those at the start of a method of order three.
        x: The state at the first of the times.
        predict: The prediction in ``table.space`` for step number n and the state at its start: called once a step.
        starts: Told the number and the state at the start of each step, corrected.
        normal: Standard normal numbers of the shape of x, where the steps have noise.
    """
    carry, noise, weights, corrector = (
        column.tolist() for column in (table.carry, table.noise, table.weights, table.corrector)
    )
    correct_until = len(carry) if method.corrected else method.predictions - 1 if method.predictions > 2 else 0
    history: list[Tensor] = []
    base = x
    for n in range(len(carry)):
        prediction = predict(n, x)
        history = [prediction, *history[: method.predictions]]
        if 0 < n <= correct_until:
            x = _combined(base, corrector[n - 1], history)
        starts(n, x)
        base = carry[n] * x if carry[n] != 1.0 else x
        if noise[n] > 0:
            base = base.add(normal(), alpha=noise[n])
        x = _combined(base, weights[n], history)
    return x


def _combined(base: Tensor, weights: list[float], history: list[Tensor]) -> Tensor:
    for weight, prediction in zip(weights, history, strict=False):
        if weight != 0.0:
            base = base.add(prediction, alpha=weight)
    return base
