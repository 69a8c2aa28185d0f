"""The scale of a loss whose gradients are computed in float16, where small ones would vanish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GROWTH_STEPS: Final = 2000


@dataclass
class LossScale:
    """A power of two that is halved where the gradient overflows, and doubled after 2,000 steps without.

    torch.amp.GradScaler with a difference: whether the gradient is finite is asked of its norm over all processes, so
    that they agree where each has but a part of it. At 1 it stays.

    Source: Micikevicius et al. (2018), Mixed Precision Training, arXiv:1710.03740.

    Attributes:
        value: By which the loss is multiplied, and the gradient divided.
        steps: Since it changed last.
    """

    value: float = 1.0
    steps: int = 0

    def update(self, finite: bool) -> None:
        """After each step: whether its gradient was finite."""
        if self.value == 1.0:
            return
        self.steps += 1
        if not finite:
            self.value, self.steps = self.value / 2, 0
        elif self.steps == GROWTH_STEPS:
            self.value, self.steps = self.value * 2, 0
