r"""Formulas for the pages, derived by the engine while a page is built, each with what the ledger says of it.

``ANY`` is a path whose alpha and sigma are two functions without values. What the engine derives from it is derived
for every path at once, and an identity of the ledger that is zero for it in normal form, where alpha, sigma and their
derivatives are generators which know nothing of each other, is proved for every path. One that is not raises, and
with it the build of the page.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import sympy as sp

import interpolants as ip
from interpolants import diffusion, dynamics, quantities, weights
from interpolants.expression import t
from interpolants.identities import IDENTITIES
from interpolants.simplify import is_zero, simplified

alpha, sigma = (sp.Function(name, positive=True)(t) for name in ("alpha", "sigma"))
PATHS: Final = (ip.linear, ip.gvp, ip.vp)


@dataclass(frozen=True)
class Formula:
    """A coefficient without values: what is derived, and no kernel."""

    expr: sp.Expr


@dataclass(frozen=True)
class Drift:
    """dx = (a x + b prediction) dt + sqrt(w) dW."""

    a: Formula
    b: Formula
    w: Formula

    @property
    def amplitude(self) -> Formula:
        """sqrt(w)."""
        return Formula(simplified(sp.sqrt(self.w.expr)))


@dataclass(frozen=True)
class AnyPath:
    """What ``interpolants.Path`` derives, by the same functions of the engine, and without compiling it."""

    a: sp.Expr = alpha
    s: sp.Expr = sigma
    towards_data: int = 1

    @property
    def alpha(self) -> Formula:
        return Formula(self.a)

    @property
    def sigma(self) -> Formula:
        return Formula(self.s)

    @property
    def d_alpha(self) -> Formula:
        return Formula(simplified(sp.diff(self.a, t)))

    @property
    def d_sigma(self) -> Formula:
        return Formula(simplified(sp.diff(self.s, t)))

    @property
    def wronskian(self) -> Formula:
        return Formula(simplified(quantities.wronskian(self.a, self.s)))

    @property
    def log_snr(self) -> Formula:
        return Formula(2 * sp.log(simplified(self.a / self.s)))

    def row(self, quantity: str) -> tuple[Formula, ...]:
        return _formulas(quantities.row(quantity, self.a, self.s))

    def conversion(self, source: str, target: str) -> tuple[Formula, ...]:
        return _formulas(quantities.conversion(source, target, self.a, self.s))

    def ode(self, prediction: str) -> Drift:
        return self.sde(prediction, 0)

    def sde(self, prediction: str, w: diffusion.DiffusionLike) -> Drift:
        amplitude = diffusion.choose(w).expr(self.a, self.s, self.towards_data)
        a, b = dynamics.linear_drift(prediction, amplitude, self.towards_data, self.a, self.s)
        return Drift(Formula(a), Formula(b), Formula(amplitude))

    def forward_sde(self) -> tuple[Formula, ...]:
        return _formulas(dynamics.forward_terms(self.towards_data, self.a, self.s))

    def loss_weight(self, prediction: str, *, space: str) -> Formula:
        return Formula(*weights.loss_weight(prediction, space, self.a, self.s))

    def error_terms(self, prediction: str, *, space: str) -> tuple[Formula, ...]:
        return _formulas(weights.error_terms(prediction, space, self.a, self.s))

    def weight(self, choice: weights.WeightLike, prediction: str) -> Formula:
        return Formula(weights.choose(choice).expr(self.a, self.s, prediction, self.towards_data))

    def in_paper_time(self) -> AnyPath:
        return AnyPath(self.a.subs(t, 1 - t), self.s.subs(t, 1 - t), -self.towards_data)

    def after(self, time_map: sp.Expr) -> AnyPath:
        return AnyPath(self.a.subs(t, time_map), self.s.subs(t, time_map), self.towards_data)


def _formulas(exprs: Iterable[sp.Expr]) -> tuple[Formula, ...]:
    return tuple(Formula(expr) for expr in exprs)


ANY: Final = AnyPath()


# What the ledger says


@functools.cache
def require(name: str, path: AnyPath | ip.Path = ANY) -> None:
    """Raise ArithmeticError unless the identity of the ledger is proved on ``path``, which may stand for every path."""
    of = next(of for identity, _, of in IDENTITIES if identity == name)
    for left, right in of(path):  # type: ignore[arg-type]
        if not is_zero(left - right):
            raise ArithmeticError(f"{name}: must hold, but {left} is not {right} in normal form.")


def _ledger(library_path: Callable[[], ip.Path]) -> ip.Ledger:
    ledger = ip.prove(library_path())
    if not ledger.ok:
        raise ArithmeticError(str(ledger))
    return ledger


# What a page shows


@dataclass(frozen=True)
class Shown:
    """Markdown, for the last line of a cell."""

    text: str

    def _repr_markdown_(self) -> str:
        return self.text


def equations(*sides: tuple[str, sp.Expr | str], by: str) -> Shown:
    """Displayed equations, left in LaTeX and right derived, under the identity of the ledger that proves them."""
    require(by)
    lines = r" \\[0.6em] ".join(rf"{left} &= {_latex(right)}" for left, right in sides)
    return Shown(f"$$\n\\begin{{aligned}} {lines} \\end{{aligned}}\n$$\n\n{_proof(by)}")


def statements(*names: str) -> Shown:
    """Identities of the ledger, as they stand there."""
    stated = {name: statement for name, statement, _ in IDENTITIES}
    for name in names:
        require(name)
    return Shown("\n\n".join(f"$$\n{stated[name]}\n$$\n\n{_proof(name)}" for name in names))


def table(head: Iterable[str], rows: Iterable[Iterable[str]], by: str | None = None) -> Shown:
    """A table of cells that are Markdown, under the identity that proves it."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    if by is None:
        return Shown(text)
    require(by)
    return Shown(f"{text}\n\n{_proof(by)}")


def math(expr: sp.Expr | str) -> str:
    """Inline mathematics, for the cells of a table."""
    return f"${_latex(expr)}$"


def affine(a: sp.Expr, b: sp.Expr, prediction: str) -> str:
    r"""LaTeX of a x_t + b prediction."""
    terms = [(a, "x_t"), (b, SYMBOLS[prediction])]
    parts = []
    for factor, symbol in terms:
        written = in_symbols(factor)
        if written == 0:
            continue
        negative = written.could_extract_minus_sign()
        magnitude = -written if negative else written
        coefficient = "" if magnitude == 1 else sp.latex(magnitude) + r" \, "
        if magnitude.is_Add:
            coefficient = rf"\left({sp.latex(magnitude)}\right) "
        sign = "-" if negative else "+" if parts else ""
        parts.append(f"{sign} {coefficient}{symbol}")
    return " ".join(parts).strip()


SYMBOLS: Final = {
    "velocity": "v", "score": "s", "noise": r"\mathrm{noise}", "data": r"\mathrm{data}", "x_t": "x_t",
}  # fmt: skip
"""In formulas: the conditional means given x_t, and what they are of."""


def conversion_to(target: str, source: str) -> Shown:
    """One conversion, for every path."""
    a, b = ANY.conversion(source, target)
    return equations((SYMBOLS[target], affine(a.expr, b.expr, source)), by=f"conversions from the {source}")


def conversions() -> Shown:
    """All of them: the row is what is predicted, the column what is wanted."""
    for source in quantities.QUANTITIES:
        require(f"conversions from the {source}")
    rows = []
    for source in quantities.QUANTITIES:
        cells = [_named(source)]
        for target in quantities.QUANTITIES:
            a, b = (formula.expr for formula in ANY.conversion(source, target))
            cells.append(f"${affine(a, b, source)}$")
        rows.append(cells)
    shown = table(["predicted", *quantities.QUANTITIES], rows)
    return Shown(f"{shown.text}\n\n{_proof('conversions from the velocity, score, noise, data')}")


def rows() -> Shown:
    """The weights of data and noise in each quantity."""
    names = [_named(name) for name in quantities.QUANTITIES]
    weights_of = [[math(c.expr) for c in ANY.row(name)] for name in quantities.QUANTITIES]
    of_x = ["**state** $x_t$", math(alpha), math(sigma)]
    found = [of_x, *([name, *cells] for name, cells in zip(names, weights_of, strict=True))]
    return table(["quantity", "of data", "of noise"], found, by="targets")


def sde(prediction: str) -> Shown:
    """The SDE for any w, by one prediction."""
    w = sp.Function("w", positive=True)(t)
    any_w = diffusion.Diffusion("w", lambda alpha, sigma: w, ())
    derived = ANY.sde(prediction, any_w)
    (a_v, b_v), (a_s, b_s) = (ANY.conversion(prediction, target) for target in ("velocity", "score"))
    for found, of_v, of_s in ((derived.a, a_v, a_s), (derived.b, b_v, b_s)):
        if not is_zero(found.expr - of_v.expr - w / 2 * of_s.expr):
            raise ArithmeticError(f"sde: the drift must be that of v + w/2 score, got {found.expr}.")
    drift = affine(derived.a.expr, derived.b.expr, prediction)
    shown = rf"dX_t = \left[ {drift} \right] dt + \sqrt{{w}} \, dW_t".replace("x_t", "X_t")
    require("Fokker-Planck equation, any w")
    return Shown(f"$$\n{shown}\n$$\n\n{_proof('Fokker-Planck equation, any w')}")


def named_w() -> Shown:
    """The choices of ``interpolants.diffusion``."""
    found = [
        [f"`{name}`", math(ANY.sde("velocity", name).w.expr), *(_of_path(name, path()) for path in PATHS)]
        for name in diffusion.CHOICES
    ]
    return table(["choice", "$w$", *(f"on `{path.__name__}`" for path in PATHS)], found, by="named w")


def _of_path(choice: str, path: ip.Path) -> str:
    w = path.sde("velocity", choice).w
    text = sp.latex(w.expr)
    ends = ", ".join(sp.latex(w.limit(end)) for end in (0, 1))
    return f"${text}$" if len(text) < 60 else f"from ${ends.replace(', ', '$ to $')}$"


def loss_weights() -> Shown:
    """b^2 between all quantities: the row is what is predicted, the column where the error is measured."""
    found = [
        [f"**{source}**", *(math(ANY.loss_weight(source, space=space).expr) for space in quantities.QUANTITIES)]
        for source in quantities.QUANTITIES
    ]
    return table(["predicted", *quantities.QUANTITIES], found, by="loss weights")


def named_weights() -> Shown:
    """The choices of ``interpolants.weights``, for each prediction."""
    require("likelihood weight")
    require("EDM and sigmoid weights")
    predictions = ("data", "noise", "velocity")
    snr = (alpha / sigma) ** 2
    for name, of_data in (("min_snr", sp.Min(snr, 5)), ("snr_truncated", sp.Max(snr, 1))):
        if ANY.weight(name, "data").expr != of_data:
            raise ArithmeticError(f"{name}: the weight of the data must be {of_data}.")
    found = []
    for name in weights.CHOICES:
        exprs = [ANY.weight(name, prediction).expr for prediction in predictions]
        for prediction, expr in zip(predictions, exprs, strict=True):
            factor = ANY.loss_weight(prediction, space="data").expr
            if not all(any(is_zero(p - factor * q) for q in _cases(exprs[0])) for p in _cases(expr)):
                raise ArithmeticError(
                    f"{name}: the weight of the {prediction} must be {factor} times that of the data."
                )
        found.append([f"`{name}`", *map(math, exprs)])
    return table(["weight", "of the data", "of the noise", "of the velocity"], found, by="loss weights")


def _cases(expr: sp.Expr) -> tuple[sp.Expr, ...]:
    return expr.args if isinstance(expr, (sp.Min, sp.Max)) else (expr,)


def conversions_from_velocity(path: ip.Path) -> Shown:
    """Data, noise and score on one path, with what the coefficients are at both ends."""
    by = "conversions from the velocity"
    require(by, path)
    found = []
    for target in ("data", "noise", "score"):
        a, b = path.conversion("velocity", target)
        ends = [f"{math(c.limit(0))}, {math(c.limit(1))}" for c in (a, b)]
        found.append([target, math(a.expr), ends[0], math(b.expr), ends[1]])
    shown = table(["wanted", "$a$", "at $t = 0$, $1$", "$b$", "at $t = 0$, $1$"], found)
    return Shown(f"{shown.text}\n\n[proved on this path: {by}]{{.proved}}")


def ledger_table() -> Shown:
    """Every identity, for every path and on some."""
    paths = (ip.linear, ip.vp)
    ledgers = [_ledger(path) for path in paths]
    found = []
    for name, statement, _ in IDENTITIES:
        require(name)
        stated = statement.replace(r"\|", r"\Vert ")  # a bar would end the cell
        statuses = ["proved", *(ledger[name].status for ledger in ledgers)]
        found.append([f"{name}<br>${stated}$", *("✓" if status == "proved" else status for status in statuses)])
    return table(["identity", "every path", *(f"`{path.__name__}`" for path in paths)], found)


def exponential_step() -> Shown:
    """The step that is exact for constant data: its mean and variance solve the equations of those of the SDE."""
    c, w = (sp.Function(name, positive=True)(t) for name in ("c", "w"))
    state, alpha_t, sigma_t, data = sp.symbols(r"x_t alpha_t sigma_t \mathrm{data}", positive=True)
    a, b = dynamics.linear_drift("data", w, 1, alpha, sigma)
    slope = -w / ANY.forward_sde()[1].expr * sp.diff(ANY.log_snr.expr, t) / 2 * c
    of_state, of_data = sigma / sigma_t * c, alpha - c * alpha_t * sigma / sigma_t
    mean, deviation = of_state * state + of_data * data, sigma * sp.sqrt(1 - c**2)
    variance = deviation**2
    for moment, rate in ((mean, a * mean + b * data), (variance, 2 * a * variance + w)):
        if not is_zero(sp.diff(moment, t).xreplace({sp.diff(c, t): slope}) - rate):
            raise ArithmeticError(f"exponential_step: {moment} does not solve its equation.")
    letters = {alpha: sp.Symbol("alpha_s"), sigma: sp.Symbol("sigma_s"), c: sp.Symbol("c")}
    first, second, third = (sp.latex(part.xreplace(letters)) for part in (of_state, of_data, deviation))
    kept = r"c = \exp\left(-\int_t^s \frac{w}{g^2} \, d\log\frac{\alpha}{\sigma}\right)"
    return Shown(
        f"$$\nx_s = {first} \\, x_t + \\left({second}\\right) \\mathrm{{data}} + {third} \\, z, \\qquad {kept}\n$$\n\n"
        "[proved for every path and w: its mean and variance solve the moment equations of the SDE]{.proved}"
    )


def _named(quantity: str) -> str:
    letter = SYMBOLS[quantity]
    return f"**{quantity}**" if quantity in letter else f"**{quantity}** ${letter}$"


def _proof(name: str) -> str:
    return f"[proved for every path: {name}]{{.proved}}"


# LaTeX


def _latex(expr: sp.Expr | str) -> str:
    return expr if isinstance(expr, str) else sp.latex(in_symbols(expr))


def in_symbols(expr: sp.Expr) -> sp.Expr:
    """alpha, its derivative and the Wronskian by their letters, of two ways to write it the shorter."""
    a, s, da, ds, W, w = sp.symbols(r"alpha sigma \dot{\alpha} \dot{\sigma} W w", positive=True)
    generic_w = sp.Function("w", positive=True)(t)
    written = expr.xreplace({sp.diff(alpha, t): da, sp.diff(sigma, t): ds}).xreplace({alpha: a, sigma: s, generic_w: w})
    recognised = written.xreplace({a * ds - s * da: -W, s * da - a * ds: W})
    eliminated = sp.simplify(written.xreplace({ds: (da * s - W) / a}))
    return min((recognised, eliminated), key=lambda e: (sp.count_ops(e), e is eliminated))
