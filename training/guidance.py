r"""Guidance: a prediction is led away from a weaker one, and further than the network itself would go.

With the strong prediction c (of the label) and the weak one u (of the null class, of a negative class, or of a weaker
network), the guided one is

.. math:: g = u + \mathrm{scale} \, (c - u)

Conversions between quantities are affine in the prediction with one x for both, so g is formed in the network's own
quantity, and guidance there is guidance in all of them. Its rescale is not: in a ``space`` with the conversion
a x + b prediction, where c and g are U = a x + b c and W = a x + b g, it replaces W by

.. math:: W' = (1 - \phi + \phi \, \mathrm{std} \, U / \mathrm{std} \, W) \, W.

Going back would divide W' - W by b, which vanishes where x alone determines the quantity. But U - W = b (c - g), and
std^2 U - std^2 W = cov(U - W, U + W), so b cancels:

.. math:: g' = g + \frac{W' - W}{b}
    = g + \phi \, \frac{\mathrm{cov}(c - g, U + W)}{\mathrm{std} \, W \, (\mathrm{std} \, U + \mathrm{std} \, W)} \, W

This is the same for a multiple of a and b: the score and the noise are one space.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interpolants.coefficient import check_interval
from interpolants.quantities import check_quantity

if TYPE_CHECKING:
    from training.fields import Field


@dataclass(frozen=True)
class Guidance:
    """How a Field is guided; see the equations at the head of this file.

    Args:
        scale: 1 is unguided, and then nothing of it is computed; 0 is the weak prediction. Source: classifier-free
            guidance of Ho & Salimans (2022), arXiv:2207.12598, whose w is scale - 1.
        channels: Only the first so many channels are guided, and the others are of the strong prediction; None is all.
            The released SiT guides 3 of 4. The state then has shape (batch, C, ...).
        interval: The times t0 <= t <= t1 that are guided, of those from 0 (noise) to 1 (data); no weak prediction is
            computed at others. None is [0, 1], short of an end where a conversion that ``weak`` or ``space`` needs has
            a pole: up to where its coefficients are 1,000. Source: Kynkaanniemi et al. (2024), arXiv:2404.07724.
        weak: A weaker network, asked with the same label instead of the null class: a Field on the same path, that
            may predict another quantity and may be guided itself, or a network that predicts what the guided one does.
            Source: autoguidance of Karras et al. (2024), arXiv:2406.02507.
        y_negative: Labels of the weak prediction instead of ``model.null_class``: a class, or shape (batch,).
        rescale: phi in [0, 1]: from the guided prediction (0) to that with the standard deviation, over the guided
            channels of a sample, of the strong one (1). A prediction without deviation is left as it is. Source:
            Lin et al. (2023), arXiv:2305.08891, section 3.4.
        space: The quantity whose deviation ``rescale`` matches; None is the network's own. Without rescale it makes
            no difference.

    Raises:
        ValueError: If an argument is not of the kind stated, the interval is not inside [0, 1] or is empty, or both
            ``weak`` and ``y_negative`` are given.
    """

    scale: float = 1.0
    channels: int | None = None
    interval: tuple[float, float] | None = None
    weak: Field | Callable[..., Tensor] | None = None
    y_negative: int | Tensor | None = None
    rescale: float = 0.0
    space: str | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without a network."""
        if not math.isfinite(self.scale):
            raise ValueError(f"Guidance: scale must be finite, got {self.scale!r}. 1 is unguided.")
        k = self.channels
        if k is not None and (not isinstance(k, numbers.Integral) or isinstance(k, bool) or k < 1):
            raise ValueError(f"Guidance: channels must be an integer of at least 1, got {k!r}. None guides all.")
        if self.interval is not None:
            check_interval(self.interval, "Guidance: interval")
        if self.weak is not None and self.y_negative is not None:
            raise ValueError(
                f"Guidance: y_negative must be None with a weak network, got {self.y_negative!r}. "
                "A weak network is asked with the label itself."
            )
        if not 0.0 <= self.rescale <= 1.0:
            raise ValueError(f"Guidance: rescale must be in [0, 1], got {self.rescale!r}. 0 is none.")
        if self.space is not None:
            check_quantity(self.space, "Guidance: space")

    def check_state(self, x: Tensor) -> None:
        """Raise ValueError unless states of this shape can be guided."""
        if (self.channels is not None or self.rescale) and x.dim() < 2:
            raise ValueError(
                f"Guidance: x must have shape (batch, C, ...) with channels or rescale, got {tuple(x.shape)}."
            )
        if self.channels is not None and self.channels > x.shape[1]:
            raise ValueError(
                f"Guidance: channels must be at most those of the state, {x.shape[1]}, got {self.channels}. "
                "None guides all."
            )

    def combine(
        self, strong: Tensor, weak: Tensor, x: Tensor, a: Tensor | float = 0.0, b: Tensor | float = 1.0
    ) -> Tensor:
        """The guided prediction.

        Args:
            strong, weak: Predictions of one quantity, of equal shape.
            x: The state, of the same shape.
            a, b: Of the conversion a x + b prediction to ``space``; needed with ``rescale`` alone.
        """
        k = self.channels
        c, u, state = (strong, weak, x) if k is None else (strong[:, :k], weak[:, :k], x[:, :k])
        guided = u + self.scale * (c - u)
        if self.rescale:
            guided = guided + self.rescale * _to_deviation_of(c, guided, a * state + b * c, a * state + b * guided)
        return guided if k is None else torch.cat([guided, strong[:, k:]], dim=1)


def _to_deviation_of(c: Tensor, g: Tensor, U: Tensor, W: Tensor) -> Tensor:
    """What g lacks to the prediction whose W has the deviation of U, for each sample."""
    dims = tuple(range(1, g.dim()))
    std_U, std_W = (v.std(dims, correction=0, keepdim=True) for v in (U, W))
    total = U + W
    cov = ((c - g) * (total - total.mean(dims, keepdim=True))).mean(dims, keepdim=True)
    scale = std_W * (std_U + std_W)
    return cov / scale.masked_fill(scale == 0, math.inf) * W  # what has no deviation cannot be stretched
