r"""Loss weights: an error in one quantity is an error in another, times a function of time.

From target = a x_t + b source at equal x_t, error(target) = b error(source), so
||target error||^2 = b(t)^2 ||source error||^2.
"""

from __future__ import annotations

import sympy as sp

from interpolants.quantities import conversion, row
from interpolants.simplify import simplified


def loss_weight(prediction: str, space: str, alpha: sp.Expr, sigma: sp.Expr) -> sp.Expr:
    """b(t)^2, with which the squared error of ``prediction`` is the squared error of ``space``."""
    return simplified(conversion(prediction, space, alpha, sigma)[1] ** 2)


def error_terms(prediction: str, space: str, alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """(b, p, q) of the error b prediction - (p data + q noise) in ``space``.

    p and q are b times the row of the prediction, multiplied out before anything is evaluated: for a predicted score
    in the space of the noise they are 0 and 1, although the score itself has a pole.
    """
    b = conversion(prediction, space, alpha, sigma)[1]
    p, q = row(prediction, alpha, sigma)
    return b, simplified(b * p), simplified(b * q)
