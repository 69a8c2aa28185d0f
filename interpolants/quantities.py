"""What a network can predict, each linear in (data, noise), and the conversions between them.

====================  =========  =============
quantity              data       noise
====================  =========  =============
x_t                   alpha      sigma
velocity = dx_t/dt    alpha'     sigma'
score                 0          -1/sigma
noise                 0          1
data                  1          0
====================  =========  =============

The row of the score says that E[noise | x_t] = -sigma grad log p_t(x_t) (Tweedie). Conditional expectations keep linear
relations, so a conversion found for one (data, noise) holds for a network that predicts the conditional mean.
Source: Albergo et al. (2023), arXiv:2303.08797; Ma et al. (2024), arXiv:2401.08740.
"""

from __future__ import annotations

import difflib
from typing import Final

import sympy as sp

from interpolants.composition import wronskian as wronskian
from interpolants.pieces import derivative
from interpolants.simplify import simplified

QUANTITIES: Final = ("velocity", "score", "noise", "data")

Row = tuple[sp.Expr, sp.Expr]
"""The weights of data and of noise."""


_ELSEWHERE: Final = {
    "eps": "noise", "epsilon": "noise", "denoiser": "data", "x0": "data", "x1": "data", "x_0": "data", "x_1": "data",
    "sample": "data", "v": "velocity", "vel": "velocity", "v_prediction": "velocity", "s": "score",
}  # fmt: skip
"""What other projects call them."""


def check_quantity(name: str, argument: str) -> None:
    """Raise ValueError unless ``name`` is a quantity that a network can predict."""
    if name not in QUANTITIES:
        near = difflib.get_close_matches(str(name), QUANTITIES, n=1)
        meant = _ELSEWHERE.get(str(name), near[0] if near else None)
        hint = f" Did you mean {meant!r}?" if meant else ""
        raise ValueError(f"{argument} must be one of {', '.join(QUANTITIES)}, got {name!r}.{hint}")


def row(quantity: str, alpha: sp.Expr, sigma: sp.Expr) -> Row:
    """The weights of data and noise in ``quantity``, on the path x_t = alpha data + sigma noise."""
    table: dict[str, Row] = {
        "velocity": (derivative(alpha), derivative(sigma)),
        "score": (sp.Integer(0), -1 / sigma),
        "noise": (sp.Integer(0), sp.Integer(1)),
        "data": (sp.Integer(1), sp.Integer(0)),
    }
    return table[quantity]


def simplified_row(quantity: str, alpha: sp.Expr, sigma: sp.Expr) -> Row:
    """The same in lowest terms."""
    of_data, of_noise = row(quantity, alpha, sigma)
    return simplified(of_data), simplified(of_noise)


def log_snr(alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr]:
    """log(alpha^2 / sigma^2)."""
    return (2 * sp.log(simplified(alpha / sigma)),)


def conversion(source: str, target: str, alpha: sp.Expr, sigma: sp.Expr) -> Row:
    """The a and b of target = a x_t + b source. From the velocity the determinant is minus the Wronskian."""
    return between(row(source, alpha, sigma), row(target, alpha, sigma), alpha, sigma)


def between(source: Row, target: Row, alpha: sp.Expr, sigma: sp.Expr) -> Row:
    r"""The a and b of target = a x_t + b source, for the rows of any two quantities: the solution of

    .. math:: a (\alpha, \sigma) + b\, \mathrm{row}_{source} = \mathrm{row}_{target},

    by Cramer's rule, in lowest terms.
    """
    determinant = _beside_state(source, alpha, sigma)
    a = (target[0] * source[1] - target[1] * source[0]) / determinant
    b = _beside_state(target, alpha, sigma) / determinant
    return simplified(a), simplified(b)


def _beside_state(of: Row, alpha: sp.Expr, sigma: sp.Expr) -> sp.Expr:
    """The determinant of the rows of x_t and of a quantity."""
    if of == row("velocity", alpha, sigma):
        return -wronskian(alpha, sigma)
    return alpha * of[1] - sigma * of[0]
