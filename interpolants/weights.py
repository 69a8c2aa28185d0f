r"""Loss weights: an error in one quantity is an error in another, times a function of time.

From target = a x_t + b source at equal x_t, error(target) = b error(source), so
||target error||^2 = b(t)^2 ||source error||^2. A weight w of the one is therefore the weight b^2 w of the other, and a
weight that a paper states for a network that predicts the data serves every network.

With SNR = alpha^2 / sigma^2 and W = alpha' sigma - alpha sigma',

.. math:: \frac{d \log \mathrm{SNR}}{dt} = \frac{2 W}{\alpha \sigma}
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import sympy as sp

from interpolants.choice import chosen
from interpolants.conditions import check_not_negative
from interpolants.expression import ExpressionLike, exact, t, to_expr
from interpolants.quantities import check_quantity, conversion, row, wronskian
from interpolants.simplify import simplified


def loss_weight(prediction: str, space: str, alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr]:
    """b(t)^2, with which the squared error of ``prediction`` is the squared error of ``space``."""
    return (simplified(conversion(prediction, space, alpha, sigma)[1] ** 2),)


def error_terms(prediction: str, space: str, alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """(b, p, q) of the error b prediction - (p data + q noise) in ``space``.

    p and q are b times the row of the prediction, multiplied out before anything is evaluated: for a predicted score
    in the space of the noise they are 0 and 1, although the score itself has a pole.
    """
    b = conversion(prediction, space, alpha, sigma)[1]
    p, q = row(prediction, alpha, sigma)
    return b, simplified(b * p), simplified(b * q)


def d_log_snr(alpha: sp.Expr, sigma: sp.Expr) -> sp.Expr:
    """d log_snr / dt = 2 W / (alpha sigma)."""
    return simplified(2 * wronskian(alpha, sigma) / (alpha * sigma))


@dataclass(frozen=True)
class LossWeight:
    """A named weight of the squared error of one quantity, which may depend on the path.

    Args:
        name: For messages.
        of_path: (alpha, sigma) to w, both sympy in ``interpolants.t``, data at t = 1.
        space: Whose squared error w multiplies: velocity, score, noise or data; None is whatever is predicted.

    Raises:
        ValueError: If ``space`` is no quantity.
    """

    name: str
    of_path: Callable[[sp.Expr, sp.Expr], sp.Expr] = field(compare=False)
    space: str | None

    def __post_init__(self) -> None:
        if self.space is not None:
            check_quantity(self.space, "LossWeight: space")

    def expr(self, alpha: sp.Expr, sigma: sp.Expr, prediction: str, towards_data: int = 1) -> sp.Expr:
        """b^2 w, the weight of the squared error of ``prediction`` itself, with b of ``prediction`` to ``space``.

        With ``towards_data`` -1 the path's time and that of the result is the paper's.
        """
        check_quantity(prediction, "weight: prediction")
        if towards_data == -1:
            return self.expr(alpha.subs(t, 1 - t), sigma.subs(t, 1 - t), prediction).subs(t, 1 - t)
        (b_squared,) = loss_weight(prediction, self.space or prediction, alpha, sigma)
        return _product(b_squared, self.of_path(alpha, sigma))

    def in_log_snr(self) -> LossWeight:
        r"""This weight times 1/2 d log_snr/dt: the weight that it is when the loss is integrated over 1/2 log_snr.

        .. math:: \int w \, \| \cdot \|^2 \, \tfrac12 \frac{d \log \mathrm{SNR}}{dt} \, dt
            = \tfrac12 \int w \, \| \cdot \|^2 \, d \log \mathrm{SNR}

        For a w that depends on the SNR alone the loss under uniform times is then the same on all paths. Source:
        Kingma & Gao (2023), arXiv:2303.00848.
        """

        def of_path(alpha: sp.Expr, sigma: sp.Expr) -> sp.Expr:
            return _product(d_log_snr(alpha, sigma) / 2, self.of_path(alpha, sigma))

        return LossWeight(f"{self.name} in log_snr", of_path, self.space)


def _product(factor: sp.Expr, weight: sp.Expr) -> sp.Expr:
    """factor * weight in lowest terms, for a factor >= 0, which a minimum or maximum takes inside: there it cancels."""
    if isinstance(weight, (sp.Min, sp.Max)):
        return weight.func(*(_product(factor, argument) for argument in weight.args))
    return simplified(factor * weight)


WeightLike: TypeAlias = "LossWeight | ExpressionLike"


def min_snr(gamma: float = 5.0) -> LossWeight:
    """min(SNR, gamma) of the data error; min(1, gamma / SNR) of the noise error. gamma > 0.

    Source: Hang et al. (2023), arXiv:2303.09556.
    """
    bound = _positive(gamma, "min_snr: gamma")
    return LossWeight(f"min_snr({_shown(gamma)})", lambda alpha, sigma: sp.Min(_snr(alpha, sigma), bound), "data")


def snr_truncated() -> LossWeight:
    """max(SNR, 1) of the data error: the larger of the errors of data and noise.

    Source: Salimans & Ho (2022), arXiv:2202.00512, section 4.
    """
    return LossWeight("snr_truncated", lambda alpha, sigma: sp.Max(_snr(alpha, sigma), 1), "data")


def edm(sigma_data: float = 0.5) -> LossWeight:
    """(s^2 + sigma_data^2) / (s sigma_data)^2 of the data error, with s = sigma / alpha. sigma_data > 0.

    The weight 1 / c_out^2 of the preconditioned network, whose target then has unit variance at all noise levels. Its
    source draws s log-normally: ``time_density.log_normal_sigma``. Source: Karras et al. (2022), arXiv:2206.00364.
    """
    variance = _positive(sigma_data, "edm: sigma_data") ** 2

    def of_path(alpha: sp.Expr, sigma: sp.Expr) -> sp.Expr:
        return 1 / variance + _snr(alpha, sigma)

    return LossWeight(f"edm({_shown(sigma_data)})", of_path, "data")


def sigmoid(bias: float = 0.0) -> LossWeight:
    """The logistic function of bias - log_snr, 1 / (1 + exp(-bias) SNR), of the noise error.

    Its source weighs the variational bound with it, ``sigmoid(bias).in_log_snr()``. Source: Kingma & Gao (2023),
    arXiv:2303.00848.
    """
    factor = sp.exp(-exact(bias))

    def of_path(alpha: sp.Expr, sigma: sp.Expr) -> sp.Expr:
        return sigma**2 / (sigma**2 + factor * alpha**2)

    return LossWeight(f"sigmoid({_shown(bias)})", of_path, "noise")


def elbo() -> LossWeight:
    """1/2 d log_snr/dt of the noise error, which is 1/2 dSNR/dt of the data error.

    Under uniform times the loss, summed over dimensions, is then the variational bound on the negative log-likelihood,
    but for terms without the network. Source: Kingma et al. (2021), arXiv:2107.00630.
    """
    return LossWeight("elbo", lambda alpha, sigma: d_log_snr(alpha, sigma) / 2, "noise")


CHOICES: dict[str, Callable[..., LossWeight]] = {
    choice.__name__: choice for choice in (min_snr, snr_truncated, edm, sigmoid, elbo)
}


def choose(weight: WeightLike) -> LossWeight:
    """A LossWeight from one, from a choice such as ``min_snr`` or ``min_snr(3)``, or from text in t, sympy or a number.

    The last three are weights of the error of whatever is predicted, with t = 0 at the noise and 1 at the data.

    Raises:
        ValueError: If text is neither a choice nor an expression in t, or the expression is negative or
            not finite somewhere inside (0, 1).
        TypeError: If ``weight`` is none of these.
    """
    if isinstance(weight, LossWeight):
        return weight
    if isinstance(weight, str) and (named := chosen(weight, CHOICES, "weight")) is not None:
        return named
    try:
        expr = to_expr(weight, where="weight")
    except ValueError as error:
        near = difflib.get_close_matches(str(weight), CHOICES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{error} Named choices: {', '.join(CHOICES)}.{hint}") from None
    check_not_negative(expr, "weight", str(expr))
    return LossWeight(str(expr), lambda alpha, sigma: expr, None)


def _snr(alpha: sp.Expr, sigma: sp.Expr) -> sp.Expr:
    return alpha**2 / sigma**2


def _shown(value: float) -> str:
    # All digits: weights are equal where their names are.
    return repr(float(value)).removesuffix(".0")


def _positive(value: float, where: str) -> sp.Rational:
    if not value > 0:
        raise ValueError(f"{where} must be positive, got {value!r}.")
    return exact(value)
