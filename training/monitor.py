"""What happens beside an integration: a progress bar, a callback, the trajectory, a look at the network's output."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType

import torch
from torch import Tensor

from training.progress import progress as bar

Callback = Callable[[int, float, Tensor], object]
"""callback(step, t, x): the state x at time t, from which step number ``step`` (from 0) starts."""


class Monitor:
    """Sees the state at the start of every step, and every prediction of the network.

    Args:
        num_steps: In all; None where an adaptive method chooses.
        progress: Show a bar.
        callback: Called with (step, t, x) at the start of every step.
        trajectory: Keep the states.
    """

    def __init__(
        self,
        num_steps: int | None,
        progress: bool = False,
        callback: Callback | None = None,
        trajectory: bool = False,
    ) -> None:
        self.num_steps, self.callback = num_steps, callback
        self.states: list[Tensor] | None = [] if trajectory else None
        self._bar = bar(total=num_steps, unit="step", desc="sampling", disable=not progress)
        self._step = -1
        self._unread: list[tuple[int, float | Tensor, Tensor]] = []

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def start_of_step(self, step: int, t: float | Tensor, x: Tensor) -> None:
        """Step number ``step`` starts from the state x at time t."""
        self._bar.update(step - max(self._step, 0))
        self._step = step
        if self.callback is not None:
            self.callback(step, float(t), x)
        if self.states is not None:
            self.states.append(x)

    def prediction(self, t: float | Tensor, prediction: Tensor, step: int | None = None) -> None:
        """The network returned ``prediction`` at time t, in the step that started last if not in ``step``.

        Its sum is not finite if it is not. On the CPU the sum is read at once; on an accelerator at the end, since
        reading it would wait for the device, and there numbers so large that their sum overflows are reported too.

        Raises:
            ValueError: If it is not finite.
        """
        total, number = prediction.detach().sum(), max(self._step, 0) if step is None else step
        if total.device.type == "cpu":
            if not math.isfinite(total.item()) and not bool(torch.isfinite(prediction).all()):
                self._require_finite(number, t, total.item())
        else:
            self._unread.append((number, t, total))

    def read(self) -> None:
        """Look at the predictions that were not looked at yet, and wait for the device.

        Raises:
            ValueError: If one is not finite; the message has the step and the time of the first.
        """
        if self._unread:
            sums = torch.stack([total for _, _, total in self._unread]).tolist()
            for (step, t, _), total in zip(self._unread, sums, strict=True):
                self._require_finite(step, t, total)
            self._unread.clear()

    def _require_finite(self, step: int, t: float | Tensor, total: float) -> None:
        if not math.isfinite(total):
            of = f" of {self.num_steps}" if self.num_steps is not None else ""
            time = t if isinstance(t, float) else float(t.flatten()[0])
            raise ValueError(
                f"sampling: the network must return finite numbers, got a sum of {total} in step {step + 1}{of}, "
                f"at t = {time:.6g}. Check its weights, and its input at that time."
            )

    def finished(self, x: Tensor) -> Tensor:
        """The samples x, or the states of the trajectory up to them.

        Raises:
            ValueError: If a prediction or a sample is not finite.
        """
        self.read()
        self._bar.update((self.num_steps or self._step + 1) - max(self._step, 0))
        if not bool(torch.isfinite(x).all()):
            bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
            raise ValueError(f"sampling: {bad} of {len(x)} samples are not finite, although the network's output is.")
        return x if self.states is None else torch.stack([*self.states, x])
