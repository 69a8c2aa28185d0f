r"""The equations that carry noise to data, and back, from one prediction of a network.

With v the velocity and s the score, for any w(t) >= 0,

.. math:: dX_t = v \, dt, \qquad dX_t = \left(v + \tfrac12 w s\right) dt + \sqrt{w} \, dW_t

have the marginals of x_t = alpha data + sigma noise. Both drifts are a x + b prediction, with a and b simplified
before they are compiled: w s is finite wherever the product is, although s is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import sympy as sp
from torch import Tensor

from interpolants.coefficient import Coefficient, at, interval, made_of
from interpolants.composition import NOISE, Made
from interpolants.conditions import check_not_negative
from interpolants.diffusion import Diffusion
from interpolants.pieces import derivative
from interpolants.quantities import Row, conversion, wronskian
from interpolants.simplify import simplified

ZERO: Final = Coefficient(sp.S.Zero)


@dataclass(frozen=True)
class Pole:
    """Where a coefficient of an equation is infinite: coefficient ~ leading / s^order, s the distance to ``end``.

    ``order`` is None, and ``leading`` infinite, where it grows as no power of s, such as a logarithm.
    """

    coefficient: str
    end: int
    order: sp.Rational | None
    leading: sp.Expr

    def __str__(self) -> str:
        if self.order is None:
            return f"{self.coefficient} is infinite at t = {self.end}"
        distance = "t" if self.end == 0 else "(1 - t)"
        power = "" if self.order == 1 else f"^{self.order}" if self.order.is_Integer else f"^({self.order})"
        return (
            f"{self.coefficient} has a pole of order {self.order} at t = {self.end}, "
            f"{self.coefficient} ~ {sp.N(self.leading, 4)} / {distance}{power}"
        )


class Dynamics:
    """dx = (a x + b prediction) dt + sqrt(w) dW; w = 0 is the probability-flow ODE.

    Attributes:
        a, b: The drift's coefficients.
        w: The squared noise amplitude.
        amplitude: sqrt(w).
        poles: Where a, b or sqrt(w) is infinite: none on most paths for a predicted velocity.
    """

    def __init__(self, a: Coefficient, b: Coefficient, w: Coefficient, amplitude: Coefficient, name: str) -> None:
        self.a, self.b, self.w, self.amplitude = a, b, w, amplitude
        self.name = name

    @property
    def poles(self) -> tuple[Pole, ...]:
        """Derived from the limits at both ends; sqrt(w) is among the coefficients."""
        named = {"a": self.a, "b": self.b, "sqrt(w)": self.amplitude}
        return tuple(
            _pole(name, coefficient, end)
            for end in (0, 1)
            for name, coefficient in named.items()
            if coefficient.limit(end).is_infinite
        )

    def require_finite(self) -> None:
        """Raise ValueError, with the place and the order of each pole, unless all coefficients are finite on [0, 1]."""
        if self.poles:
            raise ValueError(
                f"{self.name}: must be finite on [0, 1], but {'; '.join(map(str, self.poles))}. Integrate on "
                "interval(), or choose another prediction or a w that is 0 there as fast as sigma, such as "
                "diffusion.sigma()."
            )

    def drift(self, x: Tensor, prediction: Tensor, time: Tensor | float) -> Tensor:
        """a(t) x + b(t) prediction, shape of ``x``; ``time`` is a scalar or has shape (batch,)."""
        a, b = at((self.a, self.b), time, x)
        return a * x + b * prediction

    def diffusion(self, time: Tensor) -> Tensor:
        """sqrt(w(t)), shape and dtype of ``time``."""
        amplitude: Tensor = self.amplitude(time)
        return amplitude

    def interval(self, max_gain: float = 1e3) -> tuple[float, float]:
        """[0, 1] where the coefficients are bounded on it, else the part on which they are at most ``max_gain`` in
        absolute value. See ``coefficient.interval``.
        """
        return interval((self.a, self.b, self.amplitude), max_gain)

    def __repr__(self) -> str:
        return f"{self.name}: dx = [({self.a.expr}) x + ({self.b.expr}) prediction] dt + sqrt({self.w.expr}) dW"

    def _repr_latex_(self) -> str:
        a, b, w = (sp.latex(c.expr) for c in (self.a, self.b, self.w))
        noise = rf" + \sqrt{{{w}}} \, dW_t" if self.w.expr != 0 else ""
        return rf"$\displaystyle dX_t = \left[\left({a}\right) X_t + \left({b}\right) p_t\right] dt{noise}$"


def _pole(name: str, coefficient: Coefficient, end: int) -> Pole:
    try:
        leading, power = coefficient.leading(end)
    except ArithmeticError:
        return Pole(name, end, None, coefficient.limit(end))
    return Pole(name, end, -power, leading)


def ode(prediction: str, alpha: sp.Expr, sigma: sp.Expr) -> Dynamics:
    """The probability-flow ODE dx = v dt, driven by a network that predicts ``prediction``."""
    a, b = made_of(conversion, prediction, "velocity", alpha=alpha, sigma=sigma)
    return Dynamics(a, b, ZERO, ZERO, f"ODE of the {prediction}")


def sde(prediction: str, w: Diffusion, alpha: sp.Expr, sigma: sp.Expr, towards_data: int = 1) -> Dynamics:
    """The SDE from noise to data with squared amplitude w.

    Args:
        towards_data: 1 where time runs from noise to data, -1 for the paper's time, integrated backwards.

    Raises:
        ValueError: If w is negative or not finite somewhere inside (0, 1).
    """
    noise = w.expr(alpha, sigma, towards_data)
    of_w = noise, Made(_noise, (w,), alpha, sigma) if towards_data == 1 else None
    if of_w[1] is None or not of_w[1].is_nonnegative:
        check_not_negative(noise, "w", w.name)
    a, b = (
        Coefficient(expr, Made(linear_drift, (prediction, NOISE, towards_data), alpha, sigma, i, of_w))
        for i, expr in enumerate(linear_drift(prediction, noise, towards_data, alpha, sigma))
    )
    amplitude = Coefficient(simplified(sp.sqrt(noise)), Made(_amplitude, (NOISE,), alpha, sigma, w=of_w))
    return Dynamics(a, b, Coefficient(*of_w), amplitude, f"SDE of the {prediction}, w = {w.name}")


def _noise(w: Diffusion, alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr]:
    return (w.expr(alpha, sigma),)


def _amplitude(w: sp.Expr, alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr]:
    return (sp.sqrt(w),)


def linear_drift(prediction: str, w: sp.Expr, towards_data: int, alpha: sp.Expr, sigma: sp.Expr) -> Row:
    """The a and b of v + w/2 score = a x + b prediction, each simplified after w has met the pole of the score."""
    (a_v, b_v), (a_s, b_s) = (conversion(prediction, target, alpha, sigma) for target in ("velocity", "score"))
    half = towards_data * w / 2
    return simplified(a_v + simplified(half * a_s)), simplified(b_v + simplified(half * b_s))


class ForwardSDE:
    """dX = f X dtau + g dW from data to noise, tau the time from the data: the process whose reversal generates.

    Attributes:
        f: Coefficient of the linear drift.
        g_squared: Squared noise amplitude.
    """

    def __init__(self, f: Coefficient, g_squared: Coefficient) -> None:
        self.f, self.g_squared = f, g_squared

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter((self.f, self.g_squared))

    def __repr__(self) -> str:
        return f"dX = ({self.f.expr}) X dtau + sqrt({self.g_squared.expr}) dW, from data to noise"


def forward_sde(alpha: sp.Expr, sigma: sp.Expr, towards_data: int = 1) -> ForwardSDE:
    r"""The linear SDE from data to noise with the path's marginals, as functions of t:

    .. math:: f = -\frac{\alpha'}{\alpha}, \qquad g^2 = \frac{2 \sigma W}{\alpha}, \quad
        W = \alpha' \sigma - \alpha \sigma'
    """
    return ForwardSDE(*made_of(forward_terms, towards_data, alpha=alpha, sigma=sigma))


def forward_terms(towards_data: int, alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """f and g^2 of the SDE from data to noise."""
    f = simplified(-towards_data * derivative(alpha) / alpha)
    return f, simplified(towards_data * 2 * sigma * wronskian(alpha, sigma) / alpha)
