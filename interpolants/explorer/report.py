"""What a path's page shows, as numbers and LaTeX: functions of time, formulas, exact ends. Nothing is drawn here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import sympy as sp
from sympy.printing.latex import LatexPrinter

from interpolants import diffusion
from interpolants.coefficient import Coefficient
from interpolants.diffusion import DiffusionLike
from interpolants.path import Path
from interpolants.quantities import QUANTITIES

FloatArray = npt.NDArray[np.float64]

_SYMBOLS: Final = {
    "velocity": sp.Symbol("v"), "score": sp.Symbol("s"),
    "noise": sp.Symbol(r"{\,\text{noise}\,}"), "data": sp.Symbol(r"{\,\text{data}\,}"),
}  # fmt: skip

TIMES: Final = np.linspace(0.0, 1.0, 201)
"""Where the curves of a page are evaluated."""


@dataclass(frozen=True)
class End:
    """What a function does at an end of time.

    Attributes:
        limit: The exact one-sided limit, in LaTeX.
        value: The same as a number; signed infinity at a pole.
        behaviour: Where the limit is infinite, the leading behaviour and the order of the pole, in LaTeX; else empty.
    """

    limit: str
    value: float
    behaviour: str


@dataclass(frozen=True)
class Function:
    r"""A function of time as a page shows it.

    Attributes:
        name: In words, for legends.
        symbol: What stands left of the equals sign, in LaTeX.
        formula: The exact expression, in LaTeX.
        values: At ``TIMES``; infinite at a pole.
        ends: At t = 0 and t = 1.
    """

    name: str
    symbol: str
    formula: str
    values: FloatArray
    ends: tuple[End, End]


@dataclass(frozen=True)
class Conversion:
    """target = a x_t + b source; ``formula`` is the equation with a and b put in, in LaTeX."""

    a: Function
    b: Function
    formula: str


@dataclass(frozen=True)
class Report:
    """All that follows from a path and one w.

    Attributes:
        name: Of the path.
        x_t: The path's equation, in LaTeX.
        alpha, sigma, d_alpha, d_sigma, wronskian, log_snr: As in ``Path``.
        conversions: target = a x_t + b source, by (source, target).
        forward: f and g^2 of the SDE from data to noise.
        choices: w of each name in ``diffusion.CHOICES``.
        w: The name of the chosen w.
        sde: a, b and w of the SDE dx = (a x + b velocity) dt + sqrt(w) dW with the chosen w.
    """

    name: str
    x_t: str
    alpha: Function
    sigma: Function
    d_alpha: Function
    d_sigma: Function
    wronskian: Function
    log_snr: Function
    conversions: dict[tuple[str, str], Conversion]
    forward: tuple[Function, Function]
    choices: tuple[Function, ...]
    w: str
    sde: tuple[Function, Function, Function]


def report(path: Path, w: DiffusionLike = "sigma") -> Report:
    """Derive what the page of ``path`` shows.

    Args:
        path: With data at t = 1.
        w: Squared noise amplitude of the SDE, as in ``Path.sde``.

    Raises:
        ValueError: If data is not at t = 1, or w is no choice, or negative or not finite inside (0, 1).
        ArithmeticError: If a limit at an end is not established.
    """
    check_direction(path)
    chosen = diffusion.choose(w)
    sde = path.sde("velocity", chosen)
    f, g_squared = path.forward_sde()
    return Report(
        name=path.name,
        x_t=_equation(sp.Symbol("x_t"), _exprs(path), _SYMBOLS["data"], _SYMBOLS["noise"]),
        alpha=_function("alpha", r"\alpha", path.alpha),
        sigma=_function("sigma", r"\sigma", path.sigma),
        d_alpha=_function("alpha'", r"\dot\alpha", path.d_alpha),
        d_sigma=_function("sigma'", r"\dot\sigma", path.d_sigma),
        wronskian=_function("W", "W", path.wronskian),
        log_snr=_function("log-SNR", r"\lambda", path.log_snr),
        conversions={
            (source, target): _conversion(path, source, target)
            for source in QUANTITIES
            for target in QUANTITIES
            if source != target
        },
        forward=(_function("f", "f", f), _function("g^2", "g^2", g_squared)),
        choices=tuple(
            _function(name, rf"w^\text{{{name.replace('_', ' ')}}}", Coefficient(choice().expr(*_exprs(path))))
            for name, choice in diffusion.CHOICES.items()
        ),
        w=chosen.name,
        sde=(_function("a", "a", sde.a), _function("b", "b", sde.b), _function("w", "w", sde.w)),
    )


def check_direction(path: Path) -> None:
    """Raise ValueError unless data is at t = 1."""
    if not isinstance(path, Path):
        raise TypeError(f"explorer: path must be a Path, got {type(path).__name__}. interpolants.Path makes one.")
    if path.data_end != 1:
        raise ValueError(
            f"explorer: path must have data at t = 1, got {path.name}, with data at 0. "
            "path.in_paper_time() of it turns it round."
        )


def _exprs(path: Path) -> tuple[sp.Expr, sp.Expr]:
    return path.alpha.expr, path.sigma.expr


def _conversion(path: Path, source: str, target: str) -> Conversion:
    a, b = path.conversion(source, target)
    return Conversion(
        _function("a", "a", a),
        _function("b", "b", b),
        _equation(_SYMBOLS[target], (a.expr, b.expr), sp.Symbol("x_t"), _SYMBOLS[source]),
    )


class _Printer(LatexPrinter):  # type: ignore[misc]
    """LaTeX whose fractions in exponents are written in one line, where they would be too small to read."""

    def _print_ExpBase(self, expr: sp.Expr, exp: str | None = None) -> str:
        inner = sp.latex(expr.args[0], fold_short_frac=True)
        return rf"e^{{{inner}}}" if exp is None else rf"\left(e^{{{inner}}}\right)^{{{exp}}}"


def latex(expr: sp.Expr) -> str:
    """The LaTeX of an expression."""
    return str(_Printer().doprint(expr))


def _equation(of: sp.Symbol, weights: tuple[sp.Expr, sp.Expr], *terms: sp.Symbol) -> str:
    return f"{latex(of)} = {latex(sp.Add(*(weight * term for weight, term in zip(weights, terms, strict=True))))}"


def _function(name: str, symbol: str, coefficient: Coefficient) -> Function:
    values: FloatArray = coefficient(TIMES)
    return Function(name, symbol, latex(coefficient.expr), values, (_end(coefficient, 0), _end(coefficient, 1)))


def _end(coefficient: Coefficient, end: int) -> End:
    limit = coefficient.limit(end)
    return End(latex(_short(limit)), coefficient(float(end)), _pole(coefficient, end) if limit.is_infinite else "")


def _pole(coefficient: Coefficient, end: int) -> str:
    try:
        leading, power = coefficient.leading(end)
    except ArithmeticError:
        return r"\text{slower than any power}"
    distance = sp.Symbol("t" if end == 0 else "{(1 - t)}")
    return rf"\sim {latex(_short(leading) * distance**power)}, \ \text{{order }} {latex(-power)}"


def _short(number: sp.Expr) -> sp.Expr:
    """The number itself where it is short, else its first five digits."""
    return number if sp.count_ops(number) <= 8 and len(str(number)) <= 24 else sp.N(number, 5)
