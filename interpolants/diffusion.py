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

from interpolants.expression import ExpressionLike, exact, t, to_expr
from interpolants.quantities import wronskian
from interpolants.simplify import simplified


@dataclass(frozen=True)
class Diffusion:
    """A named w(t), which may depend on the path."""

    name: str
    of_path: Callable[[sp.Expr, sp.Expr], sp.Expr] = field(compare=False)

    def expr(self, alpha: sp.Expr, sigma: sp.Expr, towards_data: int = 1) -> sp.Expr:
        """w on the path (alpha, sigma); with ``towards_data`` -1, the path's time and that of w is the paper's."""
        if towards_data == -1:
            return self.expr(alpha.subs(t, 1 - t), sigma.subs(t, 1 - t)).subs(t, 1 - t)
        return simplified(self.of_path(alpha, sigma))


DiffusionLike: TypeAlias = "Diffusion | ExpressionLike"


def constant(norm: float = 1.0) -> Diffusion:
    """w = 2 norm."""
    return Diffusion(f"constant({norm:g})", lambda alpha, sigma: 2 * exact(norm))


def sigma(norm: float = 1.0) -> Diffusion:
    """w = 2 norm sigma: w score is finite at the data end although the score is not."""
    return Diffusion(f"sigma({norm:g})", lambda alpha, sigma: 2 * exact(norm) * sigma)


def linear(norm: float = 1.0) -> Diffusion:
    """w = 2 norm (1 - t)."""
    return Diffusion(f"linear({norm:g})", lambda alpha, sigma: 2 * exact(norm) * (1 - t))


def decreasing(norm: float = 1.0) -> Diffusion:
    """w = (norm cos(pi t) + 1)^2 / 2."""
    return Diffusion(f"decreasing({norm:g})", lambda alpha, sigma: (exact(norm) * sp.cos(sp.pi * t) + 1) ** 2 / 2)


def sin_squared(norm: float = 1.0) -> Diffusion:
    """w = 2 norm sin(pi t)^2, the official code's "increasing-decreasing"."""
    return Diffusion(f"sin_squared({norm:g})", lambda alpha, sigma: 2 * exact(norm) * sp.sin(sp.pi * t) ** 2)


def kl_optimal(norm: float = 1.0) -> Diffusion:
    """w = 2 norm sigma W / alpha = norm g^2 of the forward SDE: the paper's w^KL, the official code's "SBDM"."""

    def of_path(alpha: sp.Expr, sigma: sp.Expr) -> sp.Expr:
        return 2 * exact(norm) * sigma * wronskian(alpha, sigma) / alpha

    return Diffusion(f"kl_optimal({norm:g})", of_path)


CHOICES: dict[str, Callable[[float], Diffusion]] = {
    choice.__name__: choice for choice in (constant, sigma, linear, decreasing, sin_squared, kl_optimal)
}


def choose(w: DiffusionLike) -> Diffusion:
    """A Diffusion from one, from the name of a choice, from text in t, from sympy or from a number.

    t is 0 at the noise and 1 at the data here, whichever way the time of the path runs that it is used on.

    Raises:
        ValueError: If text is neither the name of a choice nor an expression in t.
    """
    if isinstance(w, Diffusion):
        return w
    if isinstance(w, str) and w in CHOICES:
        return CHOICES[w](1.0)
    try:
        expr = to_expr(w, where="w")
    except ValueError as error:
        raise ValueError(f"{error} Named choices: {', '.join(CHOICES)}.") from None
    return Diffusion(str(expr), lambda alpha, sigma: expr)
