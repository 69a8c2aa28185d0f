r"""Choices of w(t) >= 0, the squared noise amplitude of the SDE dx = (v + w/2 score) dt + sqrt(w) dW.

Every w gives the same marginals when the velocity and score are exact; they differ in how they treat the error of a
network. w is the paper's; the official SiT code's ``diffusion`` is w/2. Names and forms: Ma et al. (2024),
arXiv:2401.08740, section 3.4 and table 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import sympy as sp

from interpolants.choice import chosen
from interpolants.composition import ALPHA, RATE, SIGMA, rate, wronskian
from interpolants.expression import ExpressionLike, exact, t, to_expr
from interpolants.simplify import simplified

Form: TypeAlias = Callable[..., sp.Expr]


@dataclass(frozen=True)
class Diffusion:
    """A named w(t), which may depend on the path: ``form(alpha, sigma, *arguments)``."""

    name: str = field(compare=False)
    form: Form
    arguments: tuple[sp.Expr, ...]

    def expr(self, alpha: sp.Expr, sigma: sp.Expr, towards_data: int = 1) -> sp.Expr:
        """w on the path (alpha, sigma); with ``towards_data`` -1, the path's time and that of w is the paper's."""
        if towards_data == -1:
            return self.expr(alpha.subs(t, 1 - t), sigma.subs(t, 1 - t)).subs(t, 1 - t)
        return simplified(self.form(alpha, sigma, *self.arguments))


DiffusionLike: TypeAlias = "Diffusion | ExpressionLike"


def constant(norm: float = 1.0) -> Diffusion:
    """w = 2 norm."""
    return Diffusion(f"constant({norm:g})", _constant, (exact(norm),))


def sigma(norm: float = 1.0) -> Diffusion:
    """w = 2 norm sigma: w score is finite at the data end although the score is not."""
    return Diffusion(f"sigma({norm:g})", _sigma, (exact(norm),))


def linear(norm: float = 1.0) -> Diffusion:
    """w = 2 norm (1 - t)."""
    return Diffusion(f"linear({norm:g})", _linear, (exact(norm),))


def decreasing(norm: float = 1.0) -> Diffusion:
    """w = (norm cos(pi t) + 1)^2 / 2."""
    return Diffusion(f"decreasing({norm:g})", _decreasing, (exact(norm),))


def sin_squared(norm: float = 1.0) -> Diffusion:
    """w = 2 norm sin(pi t)^2, the official code's "increasing-decreasing"."""
    return Diffusion(f"sin_squared({norm:g})", _sin_squared, (exact(norm),))


def kl_optimal(norm: float = 1.0) -> Diffusion:
    r"""w = 2 norm omega, omega = sigma W / alpha: norm g^2 of the forward SDE, the paper's w^KL, "SBDM" in its code.

    At norm 1 it minimises the bound on the divergence of the samples from the data that a velocity error
    :math:`L(t) = E \|\hat v - v\|^2` allows, over w:

    .. math:: KL \le \int \frac{(1 + w / 2 \omega)^2}{2 w} L \, dt
    """
    return Diffusion(f"kl_optimal({norm:g})", _kl_optimal, (exact(norm),))


def kl_regularized(eta: float = 1.0, loss: ExpressionLike = 1) -> Diffusion:
    r"""w = 2 omega / sqrt(1 + 8 eta omega^2 / L): the paper's w^{KL,eta}, finite where w^KL has a pole.

    It minimises the bound of ``kl_optimal`` plus :math:`\eta \int w \, dt`: with :math:`\epsilon = w / 2`,

    .. math:: \frac{\partial}{\partial \epsilon} \left[\frac{(1 + \epsilon / \omega)^2}{4 \epsilon} L + 2 \eta
        \epsilon\right] = 0 \iff \frac{1}{\epsilon^2} = \frac{1}{\omega^2} + \frac{8 \eta}{L}.

    Args:
        eta: The price of noise, > 0.
        loss: L(t), the squared error of the network's velocity at each time: text, sympy or a number, positive.

    Raises:
        ValueError: If eta is not positive.
    """
    if not eta > 0:
        raise ValueError(f"kl_regularized: eta must be > 0, got {eta!r}. kl_optimal is the limit 0.")
    error = to_expr(loss, where="kl_regularized: loss")
    return Diffusion(f"kl_regularized({eta:g}, {error})", _kl_regularized, (exact(eta), error))


def _constant(alpha: sp.Expr, sigma: sp.Expr, norm: sp.Expr) -> sp.Expr:
    return 2 * norm


def _sigma(alpha: sp.Expr, sigma: sp.Expr, norm: sp.Expr) -> sp.Expr:
    return 2 * norm * sigma


def _linear(alpha: sp.Expr, sigma: sp.Expr, norm: sp.Expr) -> sp.Expr:
    return 2 * norm * (1 - t)


def _decreasing(alpha: sp.Expr, sigma: sp.Expr, norm: sp.Expr) -> sp.Expr:
    return (norm * sp.cos(sp.pi * t) + 1) ** 2 / 2


def _sin_squared(alpha: sp.Expr, sigma: sp.Expr, norm: sp.Expr) -> sp.Expr:
    return 2 * norm * sp.sin(sp.pi * t) ** 2


def _kl_optimal(alpha: sp.Expr, sigma: sp.Expr, norm: sp.Expr) -> sp.Expr:
    return 2 * norm * rate(alpha, sigma)


def _kl_regularized(alpha: sp.Expr, sigma: sp.Expr, eta: sp.Expr, loss: sp.Expr) -> sp.Expr:
    if (alpha, sigma) == (ALPHA, SIGMA):
        return 2 * RATE / sp.sqrt(1 + 8 * eta * RATE**2 / loss)
    # Over alpha, so that nothing is infinite where alpha is 0.
    product = simplified(sigma * wronskian(alpha, sigma))
    return 2 * product / sp.sqrt(simplified(alpha**2 + 8 * eta * product**2 / loss))


def _given(alpha: sp.Expr, sigma: sp.Expr, expr: sp.Expr) -> sp.Expr:
    return expr


CHOICES: dict[str, Callable[..., Diffusion]] = {
    choice.__name__: choice for choice in (constant, sigma, linear, decreasing, sin_squared, kl_optimal, kl_regularized)
}


def choose(w: DiffusionLike) -> Diffusion:
    """A Diffusion from one, from a choice such as ``sigma`` or ``sigma(0.5)``, from text in t, sympy or a number.

    t is 0 at the noise and 1 at the data here, whichever way the time of the path runs that it is used on.

    Raises:
        ValueError: If text is neither a choice nor an expression in t.
    """
    if isinstance(w, Diffusion):
        return w
    if isinstance(w, str) and (named := chosen(w, CHOICES, "w")) is not None:
        return named
    try:
        expr = to_expr(w, where="w")
    except ValueError as error:
        raise ValueError(f"{error} Named choices: {', '.join(CHOICES)}.") from None
    return Diffusion(str(expr), _given, (expr,))
