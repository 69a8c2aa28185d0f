"""torchdiffeq's solvers, with a bound on their calls and errors that say where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torchdiffeq
from torch import Tensor

ADAPTIVE_METHODS: Final = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")

MAX_CALLS: Final = 10_000
"""Calls of the network of an adaptive method, after which it is given up."""

ADJOINT: Final = "adjoint"
GRADIENTS: Final = ("steps", ADJOINT)
"""How a gradient goes through a solve: back through its steps, whose states are kept, or by the adjoint ODE."""

_NO_STEP: Final = ("underflow in dt", "non-finite values")
"""How torchdiffeq's assertions begin."""


def odeint(
    function: Callable[[Tensor, Any], Any],
    state: Any,
    times: Tensor,
    *,
    method: str,
    where: str,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    options: dict[str, object] | None = None,
    max_calls: int | None = None,
    starts: Callable[[Tensor, Any], object] = lambda t, state: None,
    parameters: Sequence[Tensor] | None = None,
) -> Any:
    """The states of dx/dt = function(t, x) at ``times``, as torchdiffeq.odeint returns them.

    Args:
        function, state, times, method, rtol, atol, options: As torchdiffeq has them.
        where: What the messages begin with.
        max_calls: Most calls of ``function``; None sets no bound.
        starts: Called as starts(t, x) at the start of each step, for methods that tell of their steps.
        parameters: If given, gradients are those of the adjoint method, with respect to these and the state.

    Raises:
        ValueError: If the method finds no step, or calls ``function`` more often than ``max_calls``; the message has
            the step and the time.
    """
    calls, steps, time, tells = 0, 0, times[0], method != "scipy_solver"

    callback = "callback_accept_step" if method in ADAPTIVE_METHODS else "callback_step"

    def at() -> str:
        return f"at t = {float(time.detach()):.6g}"

    def here() -> str:
        return f"in step {steps + 1}, {at()}" if tells else at()

    def counted(t: Tensor, x: Any) -> Any:
        nonlocal calls, time
        calls, time = calls + 1, t
        if max_calls is not None and calls > max_calls:
            raise ValueError(
                f"{where}: {method} must arrive with at most max_calls = {max_calls:,} calls of the network, and is "
                f"{here()}. Raise max_calls, rtol and atol, or take a method of fixed steps."
            )
        return function(t, x)

    def started(t: Tensor, x: Any, length: Tensor | None = None) -> None:
        nonlocal steps
        steps += 1
        starts(t, x)

    if tells:
        setattr(counted, callback, started)
    arguments: dict[str, Any] = {"rtol": rtol, "atol": atol, "method": method, "options": options}
    try:
        if parameters is None:
            states = torchdiffeq.odeint(counted, state, times, **arguments)
        else:
            states = torchdiffeq.odeint_adjoint(counted, state, times, adjoint_params=tuple(parameters), **arguments)
    except AssertionError as error:
        if not str(error).startswith(_NO_STEP):
            raise
        raise ValueError(
            f"{where}: {method} finds no step {here()}: {error}. The drift is too steep or not finite there. Check "
            "the network, or take a method of fixed steps."
        ) from None
    if isinstance(states, Tensor) and len(states) != len(times):  # scipy's solvers end early without a word
        raise ValueError(
            f"{where}: the method {method} stopped {at()}, short of t = {float(times[-1]):.6g}. Take "
            "another method, or check the network there."
        )
    return states
