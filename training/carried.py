r"""How near to the ends of time a network's prediction carries an ODE that is solved from data to noise.

Where the velocity has a pole in the prediction, the network's error is amplified without bound. A predicted data, for
one, errs by some 0.03 however little noise is left; as sigma / alpha falls below that, the noise that it implies,
(x - alpha data) / sigma, errs by more than the noise itself, and an ODE that starts there starts with a wrong noise of
many deviations. So at the data end the error of the implied noise tells how far a prediction carries, and at the noise
end that of the implied data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from training.brownian import stream
from training.fields import Field, Labels

Interval = tuple[float, float]

CARRIES: Final = math.sqrt(1.25)
"""Root mean square of the error, over that of what is predicted. An exact prediction, the mean of what it predicts, has
at most 1; the rest is the network's own, whose square is then at most a quarter."""

REFUSED: Final = 1.5
"""From here on a solve is refused."""

IMPLIED: Final = ("data", "noise")
"""The quantities whose errors count: the implied data at t = 0, the implied noise at t = 1."""

_OF_NOISE: Final = 4
"""Number of the random stream, apart from those of generate and of the likelihood."""


def is_bounded(field: Field) -> bool:
    """Whether the velocity is bounded in the prediction on all of [0, 1]."""
    return field.path.ode(field.prediction).interval() == (0.0, 1.0)


def carried_interval(
    field: Field,
    data: Tensor,
    *,
    y: Labels | None = None,
    seed: int = 0,
    indices: Sequence[int] | None = None,
) -> Interval:
    """The longest interval at whose ends the implied noise and data err little more than exact ones; see CARRIES.

    It is [0, 1] where the velocity is bounded in the prediction. Else the network is called at up to 33 times for each
    end at which it is not.

    Args:
        field: The trained network on its path.
        data: Some that the network was trained for, in the units of training, shape (batch, ...).
        y: Labels, shape (batch,), or None.
        seed: Seed of the noise that is added to the data.
        indices: The number of each sample, of which its noise depends; None numbers the batch from 0.

    Raises:
        ValueError: If there is no such interval: the network has not learnt to predict.
    """
    low, high = field.path.ode(field.prediction).interval()
    noise = _noise(data, seed, indices)
    ends = []
    for end, stop in ((0, low), (1, high)):
        distance = abs(end - stop)
        tried = [distance, *np.geomspace(max(distance, 1e-8), 0.5, 33)] if distance else [0.0]
        times = (abs(end - float(each)) for each in tried)
        found = next((t for t in times if t in (0.0, 1.0) or _error(field, data, noise, y, t, end) <= CARRIES), None)
        if found is None:
            raise ValueError(
                f"carried_interval: the {IMPLIED[end]} that the network's {field.prediction} implies must err by less "
                "than itself somewhere, and does not. Train it longer, or check data, labels and weights."
            )
        ends.append(found)
    return ends[0], ends[1]


def require_carried(
    where: str,
    field: Field,
    data: Tensor,
    *,
    y: Labels | None = None,
    seed: int = 0,
    indices: Sequence[int] | None = None,
) -> None:
    """Check that the prediction carries an ODE over all of the interval on which its coefficients are bounded.

    Raises:
        ValueError: If it does not; the message has the interval over which it does.
    """
    if is_bounded(field):
        return
    low, high = field.path.ode(field.prediction).interval()
    noise = _noise(data, seed, indices)
    errors = [(_error(field, data, noise, y, t, end), t, end) for end, t in ((0, low), (1, high)) if t != end]
    error, t, end = max(errors)
    if error <= REFUSED:
        return
    start, stop = carried_interval(field, data, y=y, seed=seed, indices=indices)
    raise ValueError(
        f"{where}: the {field.prediction} that the network predicts must carry the ODE over [{low:.4g}, {high:.6g}], "
        f"and at t = {t:.6g} the {IMPLIED[end]} that it implies errs by {error:.3g} times itself. Pass interval="
        f"({start:.4g}, {stop:.4g}), over which it does."
    )


def _noise(data: Tensor, seed: int, indices: Sequence[int] | None) -> Tensor:
    each = range(len(data)) if indices is None else indices
    streams = (stream(seed, index, torch.device("cpu"), _OF_NOISE) for index in each)
    return torch.stack([torch.randn(data.shape[1:], generator=generator) for generator in streams]).to(data)


def _error(field: Field, data: Tensor, noise: Tensor, y: Labels | None, t: float, end: int) -> float:
    """Root mean square error of the quantity that counts at ``end``, divided by the quantity's own root mean square."""
    with torch.no_grad(), field.evaluation_mode():
        x = field.path.interpolate(data, noise, torch.tensor(t, dtype=torch.float64))
        got, right = (field.noise(x, t, y), noise) if end == 1 else (field.data(x, t, y), data)
        return float((got - right).square().mean().sqrt() / right.square().mean().sqrt())
