r"""The ledger: named identities that hold on every path, checked on the formulas that were derived for this one.

Each identity sets a derived coefficient beside a statement that was not used to derive it, and its status is

    proved     the difference is zero in normal form, exactly, for all t in (0, 1);
    bounded    the normal form was too large; ball arithmetic bounds the difference on [1/16, 15/16];
    failed     the two sides differ at a rational t: a ball about the difference there does not hold 0;
    undecided  none of the three, within a bounded effort.

The continuity and Fokker-Planck equations are stated for data ~ N(m, S) with m and S free: with u = x - alpha m and
V = alpha^2 S + sigma^2, every conditional mean is linear in u, and both sides are polynomials in u, m, V and w whose
coefficients, functions of t alone, are compared one by one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import sympy as sp

from interpolants import diffusion
from interpolants.coefficient import Coefficient, symbolic
from interpolants.enclosure import PRECISIONS, Shared, bound, value
from interpolants.expression import t
from interpolants.path import Path
from interpolants.pieces import derivative, resolved
from interpolants.quantities import QUANTITIES
from interpolants.simplify import is_zero

Equation = tuple[sp.Expr, sp.Expr]
"""The two sides: the derived one and the stated one."""

LOW, HIGH = sp.Rational(1, 16), sp.Rational(15, 16)
"""Where a difference is bounded that is not proved to be zero."""

_PROBES: Final = tuple(sp.Rational(p, 97) for p in range(3, 97, 15))
_ACCURATE_PROBE: Final = _PROBES[3]
"""The probe at which an equation is evaluated at every precision."""
STATUSES: Final = ("proved", "bounded", "undecided", "failed")
_MAX_BOUND: Final = 1e-6


@dataclass(frozen=True)
class Entry:
    """One identity on one path.

    Attributes:
        name: What it says.
        statement: In LaTeX.
        status: "proved", "bounded", "failed" or "undecided".
        equations: How many equations of coefficients it is made of.
        bound: Of the difference of the two sides, where the status is "bounded".
        counterexample: Where the status is "failed": the equation, the time and both sides.
        reason: Where the status is "undecided": why.
    """

    name: str
    statement: str
    status: str
    equations: int
    bound: float | None = None
    counterexample: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Ledger:
    """The identities of a path; prints as a table, and as LaTeX in a notebook.

    Attributes:
        path: Its name.
        entries: One for each identity.
        undecided: The conditions of a path on (0, 1) that are neither proved nor refuted.
    """

    path: str
    entries: tuple[Entry, ...]
    undecided: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no identity failed; one that is undecided has not."""
        return all(entry.status != "failed" for entry in self.entries)

    def __getitem__(self, name: str) -> Entry:
        return next(entry for entry in self.entries if entry.name == name)

    def __str__(self) -> str:
        width = max(len(entry.name) for entry in self.entries)
        lines = [f"{self.path}: {self._summary()}", *(f"  undecided, that it is a path: {u}" for u in self.undecided)]
        for entry in self.entries:
            note = f" < {entry.bound:.1e} on [{LOW}, {HIGH}]" if entry.bound is not None else ""
            note += f": {entry.counterexample or entry.reason}" if entry.counterexample or entry.reason else ""
            lines.append(f"  {entry.name:{width}}  {entry.status}{note}")
        return "\n".join(lines)

    def _summary(self) -> str:
        counts = {status: sum(e.status == status for e in self.entries) for status in STATUSES}
        return ", ".join(f"{count} {status}" for status, count in counts.items() if count)

    def latex(self) -> str:
        """A LaTeX array of names, statements and statuses."""
        rows = [
            rf"\text{{{entry.name}}} & {entry.statement} & \text{{{entry.status}}}"
            + (rf"\ < {sp.latex(sp.Float(entry.bound, 2))}" if entry.bound is not None else "")
            for entry in self.entries
        ]
        return "\\begin{array}{lll}\n" + " \\\\\n".join(rows) + "\n\\end{array}"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"


def prove(path: Path) -> Ledger:
    """Check every identity on the derived formulas of ``path``.

    >>> import interpolants as ip
    >>> ip.prove(ip.linear()).ok
    True
    """
    if not isinstance(path, Path):
        raise TypeError(f"prove: path must be a Path, got {type(path).__name__}. Only these have a ledger.")
    with symbolic():
        copy = path.copied()
        shared = Shared()
        entries = tuple(_entry(name, what, list(of(copy)), shared) for name, what, of in IDENTITIES)
    return Ledger(path.name, entries, path.undecided)


def _entry(name: str, statement: str, equations: list[Equation], shared: Shared | None = None) -> Entry:
    largest, reason = 0.0, None
    for left, right in equations:
        is_proved = is_zero(left - right)
        found = _counterexample(left, right, is_proved, shared)
        if found is not None:
            return Entry(name, statement, "failed", len(equations), counterexample=found)
        if is_proved or reason is not None:  # once undecided, an entry stays so
            continue
        try:
            largest = max(largest, math.nextafter(float(bound(resolved(left - right), LOW, HIGH, shared)), math.inf))
        except ArithmeticError as error:
            reason = str(error)
        if largest > _MAX_BOUND:
            reason = f"the difference is bounded by {largest:.1e} only"
    if reason is not None:
        return Entry(name, statement, "undecided", len(equations), reason=reason)
    return Entry(name, statement, "bounded" if largest else "proved", len(equations), largest or None)


def _counterexample(left: sp.Expr, right: sp.Expr, is_proved: bool = False, shared: Shared | None = None) -> str | None:
    """A rational time at which the two sides are proved to differ; None if there is none among a few.

    Proved equations are checked too, at lower precision: the proof and the values share no code.
    """
    difference = resolved(left - right)
    for probe in () if difference == 0 else _PROBES:
        precisions = PRECISIONS[:1] if is_proved else PRECISIONS if probe == _ACCURATE_PROBE else PRECISIONS[:2]
        ball = value(difference, probe, 1, precisions, shared)
        if ball > 0 or ball < 0:
            a, b = (value(side, probe).str(6, radius=False) for side in (left, right))
            return f"{left} is not {right} at t = {probe}: {a} and {b}"
    return None


# The identities. Each is a function from a path to equations; ``a``, ``s`` and their derivatives are alpha and sigma.

Identity = tuple[str, str, Callable[[Path], Iterator[Equation]]]
IDENTITIES: list[Identity] = []


def _identity(name: str, statement: str) -> Callable[[Any], Any]:
    def register(of: Callable[[Path], Iterator[Equation]]) -> Callable[[Path], Iterator[Equation]]:
        IDENTITIES.append((name, statement, of))
        return of

    return register


def _alpha_sigma(path: Path) -> tuple[sp.Expr, sp.Expr, sp.Expr, sp.Expr]:
    a, s = path.alpha.expr, path.sigma.expr
    return a, s, derivative(a), derivative(s)


def _wronskian(path: Path) -> sp.Expr:
    a, s, da, ds = _alpha_sigma(path)
    return da * s - a * ds


def _rows(path: Path) -> dict[str, tuple[sp.Expr, sp.Expr]]:
    """The weights of data and noise in each quantity, as the literature states them."""
    _, sigma, d_alpha, d_sigma = _alpha_sigma(path)
    zero, one = sp.Integer(0), sp.Integer(1)
    return {"velocity": (d_alpha, d_sigma), "score": (zero, -1 / sigma), "noise": (zero, one), "data": (one, zero)}


def _exprs(coefficients: tuple[Coefficient, ...]) -> tuple[sp.Expr, ...]:
    return tuple(c.expr for c in coefficients)


def _pairs() -> Iterator[tuple[str, str]]:
    return ((source, target) for source in QUANTITIES for target in QUANTITIES if source != target)


@_identity("derivatives", r"\dot\alpha = d\alpha/dt, \quad \dot\sigma = d\sigma/dt")
def _derivatives(path: Path) -> Iterator[Equation]:
    _, _, da, ds = _alpha_sigma(path)
    yield path.d_alpha.expr, da
    yield path.d_sigma.expr, ds


@_identity("Wronskian", r"W = \dot\alpha\sigma - \alpha\dot\sigma")
def _wronskian_definition(path: Path) -> Iterator[Equation]:
    yield path.wronskian.expr, _wronskian(path)


@_identity("derivative of the Wronskian", r"\dot W = \ddot\alpha\sigma - \alpha\ddot\sigma")
def _wronskian_derivative(path: Path) -> Iterator[Equation]:
    a, s, da, ds = _alpha_sigma(path)
    yield derivative(path.wronskian.expr), derivative(da) * s - a * derivative(ds)


@_identity("log-SNR", r"e^{\lambda} = \alpha^2 / \sigma^2")
def _log_snr(path: Path) -> Iterator[Equation]:
    a, s, _, _ = _alpha_sigma(path)
    yield _snr(path), a**2 / s**2


def _snr(path: Path) -> sp.Expr:
    """exp(log_snr)."""
    number, logarithm = path.log_snr.expr.as_coeff_Mul()
    # Asked for exp of a logarithm, sympy may search for minutes.
    return logarithm.args[0] ** number if isinstance(logarithm, sp.log) else sp.exp(path.log_snr.expr)


@_identity("derivative of the log-SNR", r"\dot\lambda = 2 W / (\alpha\sigma)")
def _log_snr_derivative(path: Path) -> Iterator[Equation]:
    a, s, _, _ = _alpha_sigma(path)
    yield derivative(path.log_snr.expr), 2 * _wronskian(path) / (a * s)


def _conversions_from(source: str) -> Callable[[Path], Iterator[Equation]]:
    def equations(path: Path) -> Iterator[Equation]:
        alpha, sigma, _, _ = _alpha_sigma(path)
        rows = _rows(path)
        for target in QUANTITIES:
            a, b = _exprs(path.conversion(source, target))
            for of_x, of_source, wanted in zip((alpha, sigma), rows[source], rows[target], strict=True):
                yield a * of_x + b * of_source, wanted

    return equations


for _source in QUANTITIES:
    _identity(
        f"conversions from the {_source}",
        rf"a \cdot (\alpha, \sigma) + b \cdot \mathrm{{row}}_\text{{{_source}}} = \mathrm{{row}}_\text{{target}}",
    )(_conversions_from(_source))


@_identity("conversions invert each other", r"b_{st} b_{ts} = 1, \quad a_{ts} + b_{ts} a_{st} = 0")
def _inverses(path: Path) -> Iterator[Equation]:
    for source, target in _pairs():
        (a, b), (a_back, b_back) = _exprs(path.conversion(source, target)), _exprs(path.conversion(target, source))
        yield b * b_back, sp.Integer(1)
        yield b_back * a, -a_back


@_identity("conversions compose", r"b_{su} = b_{tu} b_{st}, \quad a_{su} = a_{tu} + b_{tu} a_{st}")
def _composition(path: Path) -> Iterator[Equation]:
    for source, middle in _pairs():
        for target in QUANTITIES:
            (a1, b1), (a2, b2) = _exprs(path.conversion(source, middle)), _exprs(path.conversion(middle, target))
            a, b = _exprs(path.conversion(source, target))
            yield b, b2 * b1
            yield a, a2 + b2 * a1


@_identity("score from velocity", r"s = (\alpha v - \dot\alpha x) / (\sigma W)")
def _score_from_velocity(path: Path) -> Iterator[Equation]:
    alpha, sigma, d_alpha, _ = _alpha_sigma(path)
    a, b = _exprs(path.conversion("velocity", "score"))
    yield a, -d_alpha / (sigma * _wronskian(path))
    yield b, alpha / (sigma * _wronskian(path))


@_identity("velocity from score", r"v = (\dot\alpha / \alpha) x + (\sigma W / \alpha) s")
def _velocity_from_score(path: Path) -> Iterator[Equation]:
    alpha, sigma, d_alpha, _ = _alpha_sigma(path)
    a, b = _exprs(path.conversion("score", "velocity"))
    yield a, d_alpha / alpha
    yield b, sigma * _wronskian(path) / alpha


@_identity("Tweedie's formula", r"\mathrm{data} = (x + \sigma^2 s) / \alpha, \quad \mathrm{noise} = -\sigma s")
def _tweedie(path: Path) -> Iterator[Equation]:
    alpha, sigma, _, _ = _alpha_sigma(path)
    a, b = _exprs(path.conversion("score", "data"))
    yield a, 1 / alpha
    yield b, sigma**2 / alpha
    a, b = _exprs(path.conversion("score", "noise"))
    yield a, sp.Integer(0)
    yield b, -sigma


@_identity(
    "data and noise from velocity",
    r"\mathrm{data} = (\sigma v - \dot\sigma x) / W, \quad \mathrm{noise} = (\dot\alpha x - \alpha v) / W",
)
def _from_velocity(path: Path) -> Iterator[Equation]:
    alpha, sigma, d_alpha, d_sigma = _alpha_sigma(path)
    w = _wronskian(path)
    stated = {"data": (-d_sigma / w, sigma / w), "noise": (d_alpha / w, -alpha / w)}
    for target, sides in stated.items():
        yield from zip(_exprs(path.conversion("velocity", target)), sides, strict=True)


@_identity("targets", r"\mathrm{row}(\mathrm{target}) = (p, q): \ p \, \mathrm{data} + q \, \mathrm{noise}")
def _targets(path: Path) -> Iterator[Equation]:
    for quantity, row in _rows(path).items():
        yield from zip(_exprs(path.row(quantity)), row, strict=True)


@_identity("probability-flow ODE", r"a x + b p = v \text{ for each prediction } p")
def _ode(path: Path) -> Iterator[Equation]:
    alpha, sigma, d_alpha, d_sigma = _alpha_sigma(path)
    for prediction, (of_data, of_noise) in _rows(path).items():
        ode = path.ode(prediction)
        yield ode.a.expr * alpha + ode.b.expr * of_data, d_alpha
        yield ode.a.expr * sigma + ode.b.expr * of_noise, d_sigma


# Gaussian data: the equations of the marginal density

_u, _m, _V, _w = sp.symbols("u m V w")
_alpha, _sigma, _da, _ds, _a, _b = sp.symbols("alpha sigma dalpha dsigma a b")


@functools.cache
def _density_equation(prediction: str, noisy: bool) -> tuple[Equation, ...]:
    r"""The coefficients, in u, m, V and w, of V^2/p times both sides of

    d p/dt = - d(drift p)/dx + w/2 d^2 p/dx^2, with drift = a x + b prediction, plus w/2 score where ``noisy``.
    """
    spread = (_V - _sigma**2) / _alpha**2  # S
    d_variance = 2 * _alpha * _da * spread + 2 * _sigma * _ds
    score = -_u / _V
    data, noise = _m + _alpha * spread * _u / _V, _sigma * _u / _V
    means = {"velocity": _da * data + _ds * noise, "score": score, "noise": noise, "data": data}
    drift = _a * (_u + _alpha * _m) + _b * means[prediction] + (_w / 2 * score if noisy else 0)
    d_log_p = _da * _m * _u / _V + _u**2 * d_variance / (2 * _V**2) - d_variance / (2 * _V)
    w = _w if noisy else sp.Integer(0)
    flow = -(sp.diff(drift, _u) + drift * score) + w / 2 * (sp.diff(score, _u) + score**2)
    left, right = (sp.Poly(sp.expand(side * _V**2), _u, _m, _V, _w) for side in (d_log_p, flow))
    monomials = sorted({*left.monoms(), *right.monoms()})
    return tuple((left.coeff_monomial(monomial), right.coeff_monomial(monomial)) for monomial in monomials)


def _on_path(equations: tuple[Equation, ...], path: Path, a: sp.Expr, b: sp.Expr) -> Iterator[Equation]:
    symbols = (_alpha, _sigma, _da, _ds, _a, _b)
    values = dict(zip(symbols, (*_alpha_sigma(path), a, b), strict=True))
    for left, right in equations:
        yield sp.sympify(left).xreplace(values), sp.sympify(right).xreplace(values)


@_identity("continuity equation", r"\partial_t p + \nabla \cdot (v p) = 0 \text{ for data} \sim N(m, S)")
def _continuity(path: Path) -> Iterator[Equation]:
    for prediction in QUANTITIES:
        ode = path.ode(prediction)
        yield from _on_path(_density_equation(prediction, noisy=False), path, ode.a.expr, ode.b.expr)


@_identity(
    "Fokker-Planck equation, any w",
    r"\partial_t p + \nabla \cdot ((v + \tfrac w2 s) p) = \tfrac w2 \Delta p \text{ for data} \sim N(m, S)",
)
def _fokker_planck(path: Path) -> Iterator[Equation]:
    for prediction in QUANTITIES:
        a, b = _exprs(path.conversion(prediction, "velocity"))
        yield from _on_path(_density_equation(prediction, noisy=True), path, a, b)


@_identity("drift of the SDE, each named w", r"a = a_v + \tfrac w2 a_s, \quad b = b_v + \tfrac w2 b_s")
def _sde(path: Path) -> Iterator[Equation]:
    named = [("velocity", choice) for choice in diffusion.CHOICES]
    for prediction, choice in [*named, *((prediction, "constant") for prediction in QUANTITIES[1:])]:
        sde = path.sde(prediction, choice)
        v, s = (_exprs(path.conversion(prediction, target)) for target in ("velocity", "score"))
        for derived, of_v, of_s in zip((sde.a.expr, sde.b.expr), v, s, strict=True):
            yield derived, of_v + sde.w.expr / 2 * of_s


@_identity(
    "named w",
    r"w^{KL} = 2\omega, \quad w^{KL,\eta} = 2 (\omega^{-2} + 8\eta / L)^{-1/2}, \quad \omega = \sigma W / \alpha",
)
def _named_w(path: Path) -> Iterator[Equation]:
    alpha, sigma, _, _ = _alpha_sigma(path)
    omega = sigma * _wronskian(path) / alpha
    pi_t = sp.pi * t
    stated = {
        "constant": sp.Integer(2), "sigma": 2 * sigma, "linear": 2 - 2 * t, "decreasing": (1 + sp.cos(pi_t)) ** 2 / 2,
        "sin_squared": 2 * sp.sin(pi_t) ** 2, "kl_optimal": 2 * omega,
    }  # fmt: skip
    for name, w in stated.items():
        yield path.sde("velocity", name).w.expr, w
    regularized = path.sde("velocity", "kl_regularized").w.expr
    product = sigma * _wronskian(path)  # alpha omega
    yield regularized**2 * (alpha**2 + 8 * product**2), 4 * product**2


@_identity("diffusion is the root of w", r"\text{amplitude}^2 = w")
def _amplitudes(path: Path) -> Iterator[Equation]:
    for choice in diffusion.CHOICES:
        sde = path.sde("velocity", choice)
        yield sde.amplitude.expr**2, sde.w.expr


@_identity("forward SDE", r"\dot\alpha = -f\alpha, \quad -d\sigma^2/dt = 2 f \sigma^2 + g^2")
def _forward(path: Path) -> Iterator[Equation]:
    alpha, sigma, d_alpha, d_sigma = _alpha_sigma(path)
    f, g_squared = _exprs(tuple(path.forward_sde()))
    yield -f * alpha, d_alpha
    yield 2 * f * sigma**2 + g_squared, -2 * sigma * d_sigma


@_identity("reversal of the forward SDE", r"v + \tfrac12 g^2 s = -f x + g^2 s, \quad w^{KL} = g^2")
def _reversal(path: Path) -> Iterator[Equation]:
    f, g_squared = _exprs(tuple(path.forward_sde()))
    sde = path.sde("score", "kl_optimal")
    yield sde.a.expr, -f
    yield sde.b.expr, g_squared
    yield sde.w.expr, g_squared


@_identity(
    "time reversal",
    r"\text{in the paper's time } 1 - t: \ v \to -v, \ W \to -W, \text{ data, noise, score as they are}",
)
def _time_reversal(path: Path) -> Iterator[Equation]:
    reverse = path.in_paper_time()
    signs = {"velocity": -1, "score": 1, "noise": 1, "data": 1}
    yield reverse.wronskian.expr, -path.wronskian.expr.subs(t, 1 - t)
    yield _snr(reverse), _snr(path).subs(t, 1 - t)
    for source, target in _pairs():
        (a, b), (ra, rb) = _exprs(path.conversion(source, target)), _exprs(reverse.conversion(source, target))
        yield ra, signs[target] * a.subs(t, 1 - t)
        yield rb, signs[source] * signs[target] * b.subs(t, 1 - t)


@_identity("change of time", r"v_{\text{path} \circ m}(t) = \dot m \, v_{\text{path}}(m), \quad m = t^2")
def _change_of_time(path: Path) -> Iterator[Equation]:
    m = t**2
    composed = path.after(m)
    _, _, d_alpha, d_sigma = _alpha_sigma(path)
    yield composed.d_alpha.expr, 2 * t * d_alpha.subs(t, m)
    yield composed.d_sigma.expr, 2 * t * d_sigma.subs(t, m)
    yield composed.wronskian.expr, 2 * t * path.wronskian.expr.subs(t, m)


@_identity(
    "loss weights", r"\|\mathrm{error}_u\|^2 = b_{su}^2 \, \|\mathrm{error}_s\|^2, \quad b_{su}^2 = b_{st}^2 b_{tu}^2"
)
def _loss_weights(path: Path) -> Iterator[Equation]:
    for source, space in _pairs():
        weight = path.loss_weight(source, space=space).expr
        yield weight, path.conversion(source, space)[1].expr ** 2
        yield path.loss_weight(source, space="data").expr, weight * path.loss_weight(space, space="data").expr


@_identity(
    "loss weights by hand",
    r"\text{noise to data } \sigma^2/\alpha^2, \text{ noise to } v \ W^2/\alpha^2, \text{ data to } v \ W^2/\sigma^2",
)
def _loss_weights_by_hand(path: Path) -> Iterator[Equation]:
    alpha, sigma, _, _ = _alpha_sigma(path)
    w = _wronskian(path)
    yield path.loss_weight("noise", space="data").expr, (sigma / alpha) ** 2
    yield path.loss_weight("noise", space="velocity").expr, (w / alpha) ** 2
    yield path.loss_weight("data", space="velocity").expr, (w / sigma) ** 2
    yield path.loss_weight("score", space="noise").expr, sigma**2


@_identity(
    "loss in another space",
    r"b \, \hat p - p \, \mathrm{data} - q \, \mathrm{noise}: \ (p, q) = b \cdot \mathrm{row}_\text{prediction}",
)
def _error_terms(path: Path) -> Iterator[Equation]:
    for prediction in QUANTITIES:
        for space in QUANTITIES:
            b, p, q = _exprs(path.error_terms(prediction, space=space))
            row = _exprs(path.row(prediction))
            yield b, path.conversion(prediction, space)[1].expr
            yield p, b * row[0]
            yield q, b * row[1]


@_identity(
    "likelihood weight",
    r"\tfrac12 \dot\lambda \, \|\mathrm{error}_\text{noise}\|^2"
    r" = \tfrac12 (e^\lambda)^{\cdot} \, \|\mathrm{error}_\text{data}\|^2",
)
def _likelihood(path: Path) -> Iterator[Equation]:
    alpha, sigma, _, _ = _alpha_sigma(path)
    snr = alpha**2 / sigma**2
    yield path.weight("elbo", "noise").expr, derivative(snr) / (2 * snr)
    yield path.weight("elbo", "data").expr, derivative(snr) / 2


@_identity(
    "EDM and sigmoid weights",
    r"c_\text{out}^{-2} = 4 + e^\lambda \text{ at } \sigma_\text{data} = \tfrac12, \quad"
    r"\mathrm{sigmoid}(-\lambda) = \sigma^2 / (\alpha^2 + \sigma^2)",
)
def _weights(path: Path) -> Iterator[Equation]:
    alpha, sigma, _, _ = _alpha_sigma(path)
    yield path.weight("edm", "data").expr, 4 + alpha**2 / sigma**2
    yield path.weight("sigmoid", "noise").expr, sigma**2 / (alpha**2 + sigma**2)
