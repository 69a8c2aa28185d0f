"""Probability paths x_t = alpha(t) data + sigma(t) noise, and all that follows from the two functions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import sympy as sp
from torch import Tensor

from interpolants import diffusion, dynamics, quantities, text, weights
from interpolants.coefficient import Coefficient, at, interval, is_symbolic, made_of
from interpolants.composition import Made, Slope, of_slopes
from interpolants.conditions import Condition, positive, tell, undecided
from interpolants.diffusion import DiffusionLike
from interpolants.dynamics import Dynamics, ForwardSDE
from interpolants.enclosure import is_positive, sign
from interpolants.expression import ExpressionLike, check_name, check_parameters, exchanged, t, to_expr
from interpolants.limits import limit
from interpolants.pieces import derivative, resolved
from interpolants.plot import plot
from interpolants.simplify import simplified
from interpolants.weights import WeightLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Derived = TypeVar("Derived")
MAX_END_RATIO = sp.Rational(1, 4)
"""At the noise end alpha / sigma, and at the data end sigma / alpha, must be at most this."""


class Path:
    r"""A probability path x_t = alpha(t) data + sigma(t) noise from noise at t = 0 to data at t = 1.

    Args:
        alpha, sigma: Text (``"sin(pi*t/2)"``), sympy in ``interpolants.t``, or a number.
        name: For messages and plots.
        **parameters: Numbers for the other names in ``alpha`` and ``sigma``: ``Path("t**p", "1-t**p", p=2)``.

    Attributes:
        alpha, sigma: The two functions.
        d_alpha, d_sigma: Their time derivatives.
        wronskian: W = alpha' sigma - alpha sigma', positive exactly where the log-SNR increases.
        log_snr: log(alpha^2 / sigma^2).
        undecided: The conditions of a path on (0, 1) that are neither proved nor refuted: empty but for odd functions,
            of which an ``UndecidedWarning`` tells.

    Raises:
        ValueError: If the two are no path: alpha or sigma is not positive or not finite inside (0, 1), the log-SNR does
            not increase everywhere, or the ends are not noise and data. The message says which, and at which t. Or if
            a name has no value, or a parameter occurs in neither.
    """

    def __init__(
        self, alpha: ExpressionLike, sigma: ExpressionLike, /, *, name: str | None = None, **parameters: float
    ) -> None:
        check_name(name, "Path")
        self._setup(*_to_exprs(alpha, sigma, parameters), name, towards_data=1)

    def _setup(self, alpha: sp.Expr, sigma: sp.Expr, name: str | None, towards_data: int) -> None:
        self.name = name or f"({alpha}, {sigma})"
        self._towards_data = towards_data
        self._derived: dict[Hashable, Any] = {}
        try:
            # In the ledger, a path in another time: a path as the first one is.
            self.undecided = () if is_symbolic() else _check_path(self.name, alpha, sigma, towards_data)
            self.alpha, self.sigma = Coefficient(alpha), Coefficient(sigma)
        except ArithmeticError as error:
            raise ValueError(f"{self.name}: must be a path that can be evaluated at all times. {error}") from error

    @property
    def d_alpha(self) -> Coefficient:
        """alpha'."""
        return self._once("d_alpha", lambda: _slope(self.alpha.expr))

    @property
    def d_sigma(self) -> Coefficient:
        """sigma'."""
        return self._once("d_sigma", lambda: _slope(self.sigma.expr))

    @property
    def wronskian(self) -> Coefficient:
        """W = alpha' sigma - alpha sigma'."""
        a, s = self.alpha.expr, self.sigma.expr
        return self._once(
            "wronskian", lambda: Coefficient(simplified(quantities.wronskian(a, s)), Made(of_slopes, (), a, s))
        )

    @property
    def log_snr(self) -> Coefficient:
        """log(alpha^2 / sigma^2)."""
        return self._once("log_snr", lambda: self._made(quantities.log_snr)[0])

    def copied(self) -> Path:
        """The same path, of which nothing is derived that is not derived already."""
        path = copy.copy(self)
        path._derived = dict(self._derived)
        return path

    def _once(self, key: Hashable, derive: Callable[[], Derived]) -> Derived:
        """What ``derive`` gives, derived at the first call with this key."""
        if key not in self._derived:
            self._derived[key] = derive()
        result: Derived = self._derived[key]
        return result

    # Time conventions

    @classmethod
    def from_paper_time(
        cls, alpha: ExpressionLike, sigma: ExpressionLike, /, *, name: str | None = None, **parameters: float
    ) -> Path:
        """The path whose alpha and sigma are given in the paper's time, where 0 is data and 1 is noise."""
        check_name(name, "Path.from_paper_time")
        return cls(*(e.subs(t, 1 - t) for e in _to_exprs(alpha, sigma, parameters)), name=name)

    def in_paper_time(self) -> Path:
        """The same path, time running from data at 0 to noise at 1: t -> 1 - t in alpha and sigma, all else follows.

        For formulas, not for sampling: everything in ``training`` takes paths with data at t = 1.
        """
        return self if self.data_end == 0 else self._reversed()

    def _reversed(self) -> Path:
        alpha, sigma = (c.expr.subs(t, 1 - t) for c in (self.alpha, self.sigma))
        return Path._directed(alpha, sigma, f"{self.name}, paper time", -self._towards_data)

    @classmethod
    def _directed(cls, alpha: sp.Expr, sigma: sp.Expr, name: str | None, towards_data: int) -> Path:
        path = object.__new__(cls)
        path._setup(alpha, sigma, name, towards_data)
        return path

    def after(self, time_map: ExpressionLike, /, *, name: str | None = None, **parameters: float) -> Path:
        """The path composed with a change of time, x_t = alpha(m(t)) data + sigma(m(t)) noise.

        Args:
            time_map: m(t), increasing from 0 to 1: text, or sympy in ``interpolants.t``.
            name: Of the result.
            **parameters: Numbers for the other names in ``time_map``.

        Raises:
            ValueError: If m does not lead from 0 to 1, or the result is no path, because m does not increase.
        """
        check_name(name, "Path.after")
        check_parameters(parameters, time_map, where="time_map")
        m = to_expr(time_map, where="time_map", parameters=parameters)
        if (limit(m, 0), limit(m, 1)) != (0, 1):
            raise ValueError(f"time_map: must lead from 0 to 1, got {m}, from {limit(m, 0)} to {limit(m, 1)}.")
        composed = (exchanged(c.expr, {t: m}) for c in (self.alpha, self.sigma))
        alpha, sigma = (min(expr, simplified(expr), key=sp.count_ops) for expr in composed)
        return Path._directed(alpha, sigma, name or f"{self.name} after {m}", self._towards_data)

    @property
    def data_end(self) -> int:
        """The time of the data, 1, or 0 in the paper's time."""
        return self.end("data")

    def end(self, of: str) -> int:
        """The time, 0 or 1, of the end that is ``of``: "noise" or "data"."""
        return int((of == "data") == (self._towards_data == 1))

    # States and targets

    def interpolate(self, data: Tensor, noise: Tensor, t: Tensor | float) -> Tensor:
        """x_t = alpha(t) data + sigma(t) noise.

        Args:
            data, noise: Equal shape (batch, ...).
            t: Scalar or shape (batch,), in [0, 1].
        """
        return self._combine((self.alpha, self.sigma), data, noise, t)

    def target(self, quantity: str, data: Tensor, noise: Tensor, t: Tensor | float) -> Tensor:
        """The value of ``quantity`` at known data and noise: what a network that predicts it should output."""
        quantities.check_quantity(quantity, "target: quantity")
        return self._combine(self.row(quantity), data, noise, t)

    def _combine(
        self, weights: tuple[Coefficient, Coefficient], data: Tensor, noise: Tensor, t: Tensor | float
    ) -> Tensor:
        if data.shape != noise.shape:
            raise ValueError(
                f"noise: must have the shape of data, {tuple(data.shape)}, got {tuple(noise.shape)}. "
                "torch.randn_like(data) has."
            )
        of_data, of_noise = at(weights, t, data)
        return of_data * data + of_noise * noise

    def row(self, quantity: str) -> tuple[Coefficient, Coefficient]:
        """The weights of data and noise in ``quantity``."""
        quantities.check_quantity(quantity, "row: quantity")
        return self._once(("row", quantity), lambda: self._pair(quantities.simplified_row, quantity))

    def _made(self, formula: Callable[..., Any], *arguments: Any) -> tuple[Coefficient, ...]:
        return made_of(formula, *arguments, alpha=self.alpha.expr, sigma=self.sigma.expr)

    def _pair(self, formula: Callable[..., Any], *arguments: Any) -> tuple[Coefficient, Coefficient]:
        a, b = self._made(formula, *arguments)
        return a, b

    # Conversions

    def conversion(self, source: str, target: str) -> tuple[Coefficient, Coefficient]:
        """(a, b) of target = a x_t + b source, for any two of velocity, score, noise and data."""
        quantities.check_quantity(source, "conversion: source")
        quantities.check_quantity(target, "conversion: target")
        return self._once(("conversion", source, target), lambda: self._pair(quantities.conversion, source, target))

    def convert(self, prediction: Tensor, x_t: Tensor, t: Tensor | float, *, source: str, target: str) -> Tensor:
        """The ``target`` that belongs to a ``source`` predicted at x_t; shapes as ``x_t``, t scalar or (batch,)."""
        if prediction.shape != x_t.shape:
            raise ValueError(
                f"convert: prediction must have the shape of x_t, {tuple(x_t.shape)}, got {tuple(prediction.shape)}."
            )
        if source == target:
            quantities.check_quantity(source, "convert: source")
            return prediction
        a, b = at(self.conversion(source, target), t, x_t)
        return a * x_t + b * prediction

    # Dynamics

    def ode(self, prediction: str) -> Dynamics:
        """The probability-flow ODE dx = v dt = (a x + b prediction) dt."""
        quantities.check_quantity(prediction, "ode: prediction")
        return self._once(("ode", prediction), lambda: dynamics.ode(prediction, self.alpha.expr, self.sigma.expr))

    def sde(self, prediction: str, w: DiffusionLike) -> Dynamics:
        """The SDE dx = (v + w/2 score) dt + sqrt(w) dW from noise to data, with drift a x + b prediction.

        Args:
            prediction: What the network predicts.
            w: From ``interpolants.diffusion``, or its name, or text, sympy in ``interpolants.t``, or a number.

        Raises:
            ValueError: If w is negative or not finite somewhere inside (0, 1).
        """
        quantities.check_quantity(prediction, "sde: prediction")
        return dynamics.sde(prediction, diffusion.choose(w), self.alpha.expr, self.sigma.expr, self._towards_data)

    def forward_sde(self) -> ForwardSDE:
        """The SDE from data to noise, dX = f X dtau + g dW with tau the time from the data; unpacks to (f, g^2)."""
        return dynamics.forward_sde(self.alpha.expr, self.sigma.expr, self._towards_data)

    # Losses

    def loss_weight(self, prediction: str, *, space: str) -> Coefficient:
        """b(t)^2, with which the squared error of ``prediction`` is the squared error of ``space``."""
        quantities.check_quantity(prediction, "loss_weight: prediction")
        quantities.check_quantity(space, "loss_weight: space")
        return self._made(weights.loss_weight, prediction, space)[0]

    def error_terms(self, prediction: str, *, space: str) -> tuple[Coefficient, Coefficient, Coefficient]:
        """(b, p, q) of the error b prediction - (p data + q noise), measured in ``space``."""
        quantities.check_quantity(prediction, "error_terms: prediction")
        quantities.check_quantity(space, "error_terms: space")
        b, p, q = self._made(weights.error_terms, prediction, space)
        return b, p, q

    def weight(self, choice: WeightLike, prediction: str) -> Coefficient:
        """The weight w(t) of the squared error of ``prediction`` that a choice of ``interpolants.weights`` means.

        Args:
            choice: From ``interpolants.weights``, or its name, or text, sympy in ``interpolants.t``, or a number.
            prediction: What the network predicts.
        """
        chosen = weights.choose(choice)
        return Coefficient(chosen.expr(self.alpha.expr, self.sigma.expr, prediction, self._towards_data))

    def plot(self) -> Figure:
        """alpha and sigma, the log-SNR, the gains of conversions, and the noise of SDEs, as a matplotlib figure.

        Raises:
            ImportError: Without the extra ``plot``.
        """
        return plot(self)

    @staticmethod
    def interval(*coefficients: Coefficient, max_gain: float = 1e3) -> tuple[float, float]:
        """The longest part of [0, 1] on which all ``coefficients`` are bounded; see ``coefficient.interval``."""
        return interval(coefficients, max_gain)

    # Text

    def to_text(self) -> dict[str, Any]:
        """The path as plain data: ``alpha`` and ``sigma`` as text, ``name``, and ``data_end`` in the paper's time.

        ``Path.from_text(path.to_text()) == path``: the same expressions, in the same direction of time.

        Raises:
            ValueError: If an expression has no text, as a function has that text does not know.
        """
        return text.write(self.alpha.expr, self.sigma.expr, self.name, self.data_end)

    @classmethod
    def from_text(cls, fields: Mapping[str, Any], /) -> Path:
        """The path of the fields that ``to_text`` writes.

        Raises:
            ValueError: If a field is unknown or cannot be read, or the expressions are no path.
            TypeError: If ``fields`` is no mapping, or alpha, sigma or the name is missing or no text.
        """
        alpha, sigma, name, data_end = text.read(fields)
        return cls._directed(alpha, sigma, name, towards_data=1 if data_end == 1 else -1)

    # Identity

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Path) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Coefficient, Coefficient, int]:
        return self.alpha, self.sigma, self._towards_data

    def __repr__(self) -> str:
        return f"Path({self.name}: x_t = ({self.alpha.expr}) data + ({self.sigma.expr}) noise)"

    def _repr_latex_(self) -> str:
        alpha, sigma = sp.latex(self.alpha.expr), sp.latex(self.sigma.expr)
        return rf"$\displaystyle x_t = \left({alpha}\right) \mathrm{{data}} + \left({sigma}\right) \mathrm{{noise}}$"


def _to_exprs(alpha: ExpressionLike, sigma: ExpressionLike, parameters: dict[str, float]) -> tuple[sp.Expr, sp.Expr]:
    check_parameters(parameters, alpha, sigma, where="Path")
    return to_expr(alpha, where="alpha", parameters=parameters), to_expr(sigma, where="sigma", parameters=parameters)


def _slope(expr: sp.Expr) -> Coefficient:
    return Coefficient(simplified(derivative(expr)), Slope(expr))


def _check_path(name: str, alpha: sp.Expr, sigma: sp.Expr, towards_data: int) -> tuple[str, ...]:
    """Refuse what is proved to be no path; return the conditions that are neither proved nor refuted."""
    rises = Condition(
        "the log-SNR must increase from noise to data, the sign of alpha' sigma - alpha sigma' in that direction",
        towards_data * quantities.wronskian(alpha, sigma),
        is_positive,
        forms=(lambda expr: resolved(simplified(expr)), resolved),
        hint=_falls,
    )
    left = undecided(f"{name} is no path", (positive("alpha", alpha), positive("sigma", sigma), rises))
    noise_end, data_end = (0, 1) if towards_data == 1 else (1, 0)
    _check_end(name, "noise", noise_end, "alpha / sigma", alpha, sigma)
    _check_end(name, "data", data_end, "sigma / alpha", sigma, alpha)
    tell(name, left, stacklevel=4)
    return left


def _falls(wronskian: sp.Expr) -> str:
    is_reversed = sign(wronskian).value == -1
    return " (it decreases everywhere: Path.from_paper_time takes data at 0)" if is_reversed else ""


def _check_end(name: str, end: str, time: int, ratio: str, vanishing: sp.Expr, other: sp.Expr) -> None:
    small, large = limit(vanishing, time), limit(other, time)
    if large.is_infinite or not (large > 0 and small >= 0 and small / large <= MAX_END_RATIO):
        raise ValueError(
            f"{name} is no path: t = {time} must be the {end} end, with {ratio} at most {MAX_END_RATIO}, "
            f"got {sp.N(small, 4)} / {sp.N(large, 4)}. Time runs from noise at 0 to data at 1; "
            "Path.from_paper_time takes the reverse."
        )
