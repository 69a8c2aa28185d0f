"""What must hold at all times of (0, 1): refused with a time where it is refuted, told where it is not decided."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import mpmath
import sympy as sp

from interpolants.enclosure import UndecidedWarning, Verdict, is_nonnegative, is_positive, value
from interpolants.pieces import resolved
from interpolants.simplify import simplified
from interpolants.stable import stable

Form = Callable[[sp.Expr], sp.Expr]


def as_it_is(expr: sp.Expr) -> sp.Expr:
    """The expression itself."""
    return expr


def _nothing(expr: sp.Expr) -> str:
    return ""


FORMS: Final[tuple[Form, ...]] = (as_it_is, resolved, lambda expr: resolved(simplified(expr)))


@dataclass(frozen=True)
class Condition:
    """That a function of time is finite, real, and > 0 or >= 0 on (0, 1).

    Attributes:
        what: The condition in words: what must hold.
        expr: The function.
        holds: ``enclosure.is_positive`` or ``is_nonnegative``.
        forms: Equal forms of ``expr``, of which the first that is decided decides.
        hint: What to add to ``what`` where it is refuted, from ``expr``.
    """

    what: str
    expr: sp.Expr
    holds: Callable[[sp.Expr], Verdict]
    forms: tuple[Form, ...] = FORMS
    hint: Callable[[sp.Expr], str] = _nothing

    @property
    def verdict(self) -> Verdict:
        """Whether it holds, as far as a bounded effort decides."""
        verdicts = (self.holds(form(self.expr)) for form in self.forms)
        return next((verdict for verdict in verdicts if verdict.holds is not None), Verdict(None))


def positive(name: str, expr: sp.Expr) -> Condition:
    """That a function is finite, real and above 0."""
    return Condition(f"{name} must be finite, real and > 0 on (0, 1)", expr, is_positive)


def nonnegative(name: str, expr: sp.Expr) -> Condition:
    """That a function is finite, real and at least 0."""
    return Condition(f"{name} must be finite, real and >= 0 on (0, 1)", expr, is_nonnegative)


def undecided(refusal: str, conditions: Iterable[Condition]) -> tuple[str, ...]:
    """The conditions that are neither proved nor refuted.

    Raises:
        ValueError: If one is refuted. The message is ``refusal``, the condition, a time and the value there.
    """
    left = []
    for condition in conditions:
        verdict = condition.verdict
        if verdict.time is not None:
            what = condition.what + condition.hint(condition.expr)
            raise ValueError(f"{refusal}: {what}; {shown(condition.expr, verdict.time)}.")
        if not verdict.holds:
            left.append(condition.what)
    return tuple(left)


def tell(where: str, left: tuple[str, ...], stacklevel: int) -> None:
    """Warn of conditions that are not decided."""
    if left:
        message = f"{where}: not decided whether this holds: {'; '.join(left)}."
        warnings.warn(message, UndecidedWarning, stacklevel=stacklevel + 1)


def check_not_negative(
    expr: sp.Expr, where: str, name: str, low: sp.Rational = sp.S.Zero, high: sp.Rational = sp.S.One
) -> None:
    """Raise ValueError if ``expr`` is proved to be negative or not finite inside (low, high); warn if undecided."""
    holds = functools.partial(is_nonnegative, low=low, high=high)
    condition = Condition(f"{name} must be finite and >= 0 on ({low}, {high})", stable(expr), holds, (as_it_is,))
    tell(where, undecided(where, [condition]), stacklevel=3)


def shown(expr: sp.Expr, time: sp.Rational) -> str:
    """A time, exactly if it is short, and the value there."""
    written = f"{float(time):.6g}"
    if sp.Rational(written) != time:
        long = f"1 - {float(1 - time):.6g}" if 1 - time < 1e-9 else repr(float(time))
        written = str(time) if time.q < 10**6 else long
    ball = value(expr, time)
    got = mpmath.mpf(0) if ball.is_finite() and ball.contains(0) else mpmath.mpf(ball.mid().str(radius=False))
    return f"at t = {written} it is {'0' if got == 0 else mpmath.nstr(got, 6)}"
