"""A coefficient: a function of time that is an exact expression, a pair of limits, and a compiled kernel."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from interpolants.compile import compiled, error
from interpolants.composition import How, Made
from interpolants.limits import leading, limit

_is_symbolic: ContextVar[bool] = ContextVar("_is_symbolic", default=False)
_TRACING = (torch._C._TorchDispatchModeKey.FAKE, torch._C._TorchDispatchModeKey.PROXY)


class Coefficient:
    r"""A function c(t) on [0, 1], such as alpha, sigma, or the a of a conversion target = a x_t + b source.

    ``c.expr`` is exact; ``c(t)`` evaluates in float64 and rounds once to the dtype of t, ``c.kernel`` evaluates in that
    of t and checks nothing; ``c.limit(1)`` is the exact one-sided limit. At an end where the expression is 0/0,
    ``c(t)`` is the limit, and at a pole the signed infinity.

    >>> import interpolants as ip
    >>> a, b = ip.vp().conversion("velocity", "score")
    >>> a.expr, b.limit(1)
    (-1, 20)
    """

    __slots__ = ("__weakref__", "_made", "expr", "kernel")

    def __init__(self, expr: sp.Expr, made: How | None = None) -> None:
        self.expr = expr
        self._made = made
        # Compiled here, not at the first call: torch.compile then meets a plain function, and never sympy.
        self.kernel: Callable[[Tensor], Tensor] = _no_kernel if is_symbolic() else compiled(expr, "torch", made)

    def __call__(self, time: Any) -> Any:
        """The value at ``time``: a tensor, an array or a float in, the same type, shape, dtype and device out.

        Arrays of jax are evaluated in their own dtype, which is float64 only where ``jax_enable_x64`` is set.

        Raises:
            ValueError: If a time is outside [0, 1] by more than rounding. Times on an accelerator are not looked at, as
                that would wait for it; those outside count as the nearer end.
        """
        if isinstance(time, Tensor):
            _check_tensor(time)
            return self.kernel(precise(time).clamp(0.0, 1.0)).to(time.dtype)
        if isinstance(time, np.ndarray):
            _check_range(float(time.min(initial=1.0)), float(time.max(initial=0.0)), np.finfo(time.dtype).eps)
            return compiled(self.expr, "numpy", self._made)(time.astype(np.float64).clip(0.0, 1.0)).astype(time.dtype)
        if isinstance(time, numbers.Real):
            _check_range(float(time), float(time))
            return float(compiled(self.expr, "numpy", self._made)(np.float64(time).clip(0.0, 1.0)))
        if _is_jax(time):
            _check_jax(time)
            where = sys.modules["jax"].numpy.where  # whose gradient at an end is 1, and that of clip a half
            time = where(time < 0.0, 0.0, where(time > 1.0, 1.0, time))
            return compiled(self.expr, "jax", self._made)(time)
        raise TypeError(f"t: must be a tensor, an array or a number in [0, 1], got {type(time).__name__}.")

    def limit(self, end: int) -> sp.Expr:
        """The exact one-sided limit at t = 0 (noise) or t = 1 (data); ``oo`` or ``-oo`` at a pole."""
        return limit(self.expr, end, self._made)

    def leading(self, end: int) -> tuple[sp.Expr, sp.Rational]:
        """(c, p) of the leading behaviour c s^p at an end, s the distance to it; a pole of order n has p = -n.

        Raises:
            ArithmeticError: If it is no power of s there, such as the log-SNR.
        """
        return leading(self.expr, end, self._made)

    def error(self, dtype: str = "float64", times: int = 2000) -> float:
        """The largest error of ``c(t)``, in units in the last place of ``dtype``, measured against rigorous values.

        Args:
            dtype: "float64" or "float32".
            times: How many, a third of them spread over the logarithm of the distance to either end, down to 1e-40 and
                2^-52; more next to each zero. At a pole inside (0, 1) nothing is measured.
        """
        return error(self.expr, dtype, times, self._made)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coefficient) and self.expr == other.expr

    def __hash__(self) -> int:
        return hash(self.expr)

    def __reduce__(self) -> tuple[type[Coefficient], tuple[sp.Expr, How | None]]:
        return Coefficient, (self.expr, self._made)

    def __repr__(self) -> str:
        return f"Coefficient({self.expr})"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {sp.latex(self.expr)}$"


@contextmanager
def symbolic() -> Iterator[None]:
    """Coefficients made in this block have expressions but no kernels, which saves most of the time."""
    before = _is_symbolic.set(True)
    try:
        yield
    finally:
        _is_symbolic.reset(before)


def is_symbolic() -> bool:
    """Whether this is such a block."""
    return _is_symbolic.get()


def _no_kernel(time: Tensor) -> Tensor:
    raise TypeError("Coefficient: made to be looked at, and has no kernel.")


def made_of(formula: Callable[..., Any], *arguments: Any, alpha: sp.Expr, sigma: sp.Expr) -> tuple[Coefficient, ...]:
    """The coefficients of ``formula(*arguments, alpha, sigma)``, a tuple of expressions."""
    exprs = formula(*arguments, alpha, sigma)
    return tuple(Coefficient(expr, Made(formula, arguments, alpha, sigma, i)) for i, expr in enumerate(exprs))


def at(coefficients: Sequence[Coefficient], time: Tensor | float, like: Tensor) -> tuple[Tensor, ...]:
    """The coefficients at ``time``, in the dtype of ``like`` and shaped to multiply it: (batch, 1, ..., 1) or ().

    This is the one place where times meet states.

    Args:
        coefficients: What to evaluate.
        time: A scalar or shape (batch,), in [0, 1].
        like: The state, shape (batch, ...), floating point.

    Raises:
        TypeError: If ``time`` or ``like`` is not floating point.
        ValueError: If the shape of ``time`` is neither () nor (batch,), or a time is outside [0, 1].
    """
    if not isinstance(like, Tensor) or not like.is_floating_point():
        kind = like.dtype if isinstance(like, Tensor) else type(like).__name__
        raise TypeError(
            f"x: the state must be a floating point torch.Tensor, got {kind}. Cast images with .float() first; with "
            "arrays of numpy or jax use the coefficients, as in a(t) * x + b(t) * prediction."
        )
    if not isinstance(time, Tensor):
        value = float(time)
        _check_tensor(torch.full((), value, dtype=torch.float64))
        time = torch.full((), value, dtype=precise_dtype(like.device), device=like.device)  # filled there, not copied
    else:
        _check_tensor(time)
    if time.dim() != 0 and time.shape != like.shape[:1]:
        raise ValueError(
            f"t: must be a scalar or have shape (batch,) = {tuple(like.shape[:1])}, got {tuple(time.shape)}. "
            "Pass one time a sample; t.flatten() or t.expand(len(x)) often is what is meant."
        )
    time = precise(time).clamp(0.0, 1.0)
    shape = time.shape + (1,) * (like.dim() - 1) if time.dim() else ()
    return tuple(c.kernel(time).to(like.dtype).reshape(shape) for c in coefficients)


def precise_dtype(device: torch.device) -> torch.dtype:
    """float64, in which a scalar a sample costs nothing; float32 on Metal, which has no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def precise(values: Tensor) -> Tensor:
    """The values in the widest dtype of their device."""
    return values.to(precise_dtype(values.device))


_ROUNDINGS: Final = 4
_MOST_SLACK: Final = 1e-6
"""Where an eps of the dtype, as that of bfloat16, is no longer small."""


def _check_tensor(time: Tensor) -> None:
    if not time.is_floating_point():
        raise TypeError(f"t: must be floating point, got {time.dtype}. For step k of n pass k / n.")
    if _has_values(time):
        low, high = torch.aminmax(time.detach())
        _check_range(low.item(), high.item(), torch.finfo(time.dtype).eps)


def _has_values(time: Tensor) -> bool:
    """Whether there are values to look at, at no cost: on the CPU, and no placeholder of a tracer or a transform."""
    return (
        time.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and type(time) in (Tensor, torch.nn.Parameter)
        and not torch._C._functorch.is_functorch_wrapped_tensor(time)
        and not any(torch._C._get_dispatch_mode(mode) for mode in _TRACING)
        and time.numel() > 0
    )


def _is_jax(time: Any) -> bool:
    """An array or a tracer of jax, if anything has imported jax."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(time, jax.Array)


def _check_jax(time: Any) -> None:
    jax = sys.modules["jax"]
    if not jax.numpy.issubdtype(time.dtype, jax.numpy.floating):
        raise TypeError(f"t: must be floating point, got {time.dtype}. For step k of n pass k / n.")
    if not isinstance(time, jax.core.Tracer) and time.size:
        _check_range(float(time.min()), float(time.max()), float(jax.numpy.finfo(time.dtype).eps))


def _check_range(low: float, high: float, eps: float = sys.float_info.epsilon) -> None:
    """Times that rounding has moved out of [0, 1] count as its ends."""
    slack = min(_ROUNDINGS * eps, _MOST_SLACK)
    if not (low >= -slack and high <= 1.0 + slack):
        worst = low if not low >= -slack else high
        nan = " (NaN)" if math.isnan(worst) else ""
        raise ValueError(f"t: must lie in [0, 1] (0 is noise, 1 is data), got {worst!r}{nan}.")


def check_interval(given: tuple[float, float], where: str) -> None:
    """Raise ValueError unless 0 <= start < stop <= 1."""
    start, stop = given
    if not 0.0 <= start < stop <= 1.0:
        raise ValueError(f"{where} must be inside [0, 1] and not empty, got {given!r}.")


def interval(coefficients: Sequence[Coefficient], max_gain: float = 1e3) -> tuple[float, float]:
    """The longest [t0, t1] on which every coefficient is bounded: [0, 1] where all limits at the ends are finite.

    Next to a pole the interval stops where the coefficient reaches ``max_gain``: a network's error is amplified at
    most so many times. Both ends are float32 numbers, so that a time rounded to float32 is inside too.

    Raises:
        ValueError: If a coefficient exceeds ``max_gain`` all the way to t = 1/2.
    """
    ends = []
    for end in (0, 1):
        poles = [c for c in coefficients if c.limit(end).is_infinite]
        inner = max((_distance(c, end, max_gain) for c in poles), default=0.0)
        ends.append(abs(end - inner))
    return ends[0], ends[1]


def _distance(pole: Coefficient, end: int, max_gain: float) -> float:
    """How far from the end |c| is still above ``max_gain``, to three digits and rounded away from the end."""
    distances = np.geomspace(2.0**-24, 0.5, 4001).astype(np.float32).astype(np.float64)
    times = distances if end == 0 else 1.0 - distances
    times = times.astype(np.float32).astype(np.float64)
    above = np.flatnonzero(np.abs(pole(times)) > max_gain)
    first = 0 if above.size == 0 else int(above[-1]) + 1
    if first == len(times):
        raise ValueError(f"interval: {pole.expr} exceeds max_gain = {max_gain:g} up to t = 1/2. Raise max_gain.")
    return float(abs(end - times[first]))
