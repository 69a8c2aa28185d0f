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


class Stepper:
    """The steps of a table one after another, each from the predictions that were observed.

    A step is observe, at its start, perhaps corrected, and advance.

    Args:
        table: The coefficients.
        method: Which of the states are corrected: all, or those at the start of a method of order three.
    """

    def __init__(self, table: Steps, method: Multistep) -> None:
        self._carry, self._noise, self._weights, self._corrector = (
            column.tolist() for column in (table.carry, table.noise, table.weights, table.corrector)
        )
        self._kept = method.predictions
        start = method.predictions - 1 if method.predictions > 2 else 0
        self._correct_until = len(self._carry) if method.corrected else start
        self._history: list[Tensor] = []
        self._base: Tensor | None = None
        self.number = 0

    def observe(self, prediction: Tensor) -> None:
        """Take the prediction, in the space of the table, at the start of the step, for the state before correction."""
        self._history = [prediction, *self._history[: self._kept]]

    def corrected(self, x: Tensor) -> Tensor:
        """The state at the start of the step: x, or the one before led on once more with the prediction here."""
        return self.recombined() if 0 < self.number <= self._correct_until else x

    def recombined(self) -> Tensor:
        """The state of the step before led on with the prediction at its end among the others."""
        assert self._base is not None, "a step came before"
        return _combined(self._base, self._corrector[self.number - 1], self._history)

    def advance(self, x: Tensor, normal: Callable[[], Tensor]) -> Tensor:
        """The state at the end of the step from that at its start; ``normal`` gives its noise, where it has some."""
        n, self.number = self.number, self.number + 1
        base = self._carry[n] * x if self._carry[n] != 1.0 else x
        if self._noise[n] > 0:
            base = base.add(normal(), alpha=self._noise[n])
        self._base = base
        return _combined(base, self._weights[n], self._history)


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
        table, method: See Stepper.
        x: The state at the first of the times.
        predict: The prediction in ``table.space`` for step number n and the state at its start: called once a step.
        starts: Told the number and the state at the start of each step, corrected.
        normal: Standard normal numbers of the shape of x, where the steps have noise.
    """
    stepper = Stepper(table, method)
    for n in range(len(table.carry)):
        stepper.observe(predict(n, x))
        x = stepper.corrected(x)
        starts(n, x)
        x = stepper.advance(x, normal)
    return x


def _combined(base: Tensor, weights: list[float], history: list[Tensor]) -> Tensor:
    for weight, prediction in zip(weights, history, strict=False):
        if weight != 0.0:
            base = base.add(prediction, alpha=weight)
    return base
