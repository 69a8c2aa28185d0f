r"""Two-sided stochastic interpolants: from any law of the source to any law of the data, over a bridge of noise.

.. math:: x_t = \alpha(t)\, \mathrm{source} + \beta(t)\, \mathrm{data} + \gamma(t)\, \mathrm{noise}

with alpha(0) = beta(1) = 1, alpha(1) = beta(0) = gamma(0) = gamma(1) = 0 and gamma > 0 between: x_t is the source at
t = 0 and the data at t = 1. The noise ~ N(0, I) is independent of both; source and data may be coupled.

====================  =========  =========  =============
quantity              source     data       noise
====================  =========  =========  =============
x_t                   alpha      beta       gamma
velocity = dx_t/dt    alpha'     beta'      gamma'
score                 0          0          -1/gamma
noise (denoiser)      0          0          1
data                  0          1          0
source                1          0          0
====================  =========  =========  =============

What a network predicts is the conditional mean of a row given x_t (of the score's, grad log p_t: Tweedie), and
conditional means keep linear relations. So a quantity follows from x_t and predictions exactly if its row lies in
the span of theirs, at all t. Three unknowns need two predictions beside x_t; noise and score follow from each other.
Source: Albergo, Boffi and Vanden-Eijnden (2023), arXiv:2303.08797.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeAlias, TypeVar

import sympy as sp
from torch import Tensor

from interpolants.choice import chosen
from interpolants.coefficient import Coefficient, at, interval
from interpolants.conditions import check_not_negative, nonnegative, positive, tell, undecided
from interpolants.diffusion import CHOICES, Diffusion
from interpolants.enclosure import PRECISIONS, UndecidedWarning, sign_of, value
from interpolants.expansion import is_zero_constant
from interpolants.expression import ExpressionLike, exact, t, to_expr
from interpolants.limits import limit
from interpolants.path import Path
from interpolants.pieces import KINKS, derivative, modulus
from interpolants.simplify import is_zero, simplified

QUANTITIES: Final = ("velocity", "score", "noise", "data", "source")
MAX_STEEPNESS: Final = 50
DIRECTIONS: Final = {"forward": 1, "backward": -1}

Row: TypeAlias = "tuple[sp.Expr, sp.Expr, sp.Expr]"
"""The weights of source, data and noise."""
Known: TypeAlias = "str | Sequence[str]"
Predictions: TypeAlias = "Tensor | Sequence[Tensor]"
Derived = TypeVar("Derived")


class TwoSided:
    r"""x_t = alpha(t) source + beta(t) data + gamma(t) noise, from the source at t = 0 to the data at t = 1.

    Args:
        alpha, beta, gamma: Text (``"sqrt(t*(1-t))"``), sympy in ``interpolants.t``, or a number. A sympy ``Piecewise``
            may join functions continuously, with conditions ``t <= time`` in increasing order and ``True`` last.
        name: For messages and plots.

    Attributes:
        alpha, beta, gamma: The three functions.
        d_alpha, d_beta, d_gamma: Their time derivatives.
        gamma_d_gamma: gamma gamma', finite at the ends of a bridge although its gamma' is not.
        undecided: The conditions above that are neither proved nor refuted: empty but for odd functions, of which an
            ``UndecidedWarning`` tells.

    Raises:
        ValueError: If it is proved that a function has not its value at an end, that it is negative or not finite
            inside, that gamma vanishes inside, or that pieces do not join. The message says which, and at which t.
    """

    def __init__(
        self, alpha: ExpressionLike, beta: ExpressionLike, gamma: ExpressionLike, *, name: str | None = None
    ) -> None:
        exprs = _to_expr(alpha, "alpha"), _to_expr(beta, "beta"), _to_expr(gamma, "gamma")
        self.name = name or f"({', '.join(map(str, exprs))})"
        self._derived: dict[Hashable, Any] = {}
        self.undecided = _check(self.name, *exprs)
        self.alpha, self.beta, self.gamma = map(Coefficient, exprs)

    @property
    def d_alpha(self) -> Coefficient:
        """alpha'."""
        return self.row("velocity")[0]

    @property
    def d_beta(self) -> Coefficient:
        """beta'."""
        return self.row("velocity")[1]

    @property
    def d_gamma(self) -> Coefficient:
        """gamma'."""
        return self.row("velocity")[2]

    @property
    def gamma_d_gamma(self) -> Coefficient:
        """gamma gamma', formed as one product: velocity = alpha' source + beta' data - gamma gamma' score."""
        return self._once(
            "gamma_d_gamma", lambda: Coefficient(*self._by_piece(lambda p: (p.exprs[2] * p.derivatives[2],)))
        )

    def _once(self, key: Hashable, derive: Callable[[], Derived]) -> Derived:
        """What ``derive`` gives, derived at the first call with this key."""
        if key not in self._derived:
            self._derived[key] = derive()
        result: Derived = self._derived[key]
        return result

    @property
    def _exprs(self) -> Row:
        return self.alpha.expr, self.beta.expr, self.gamma.expr

    def _by_piece(self, derive: Callable[[_Piece], Sequence[sp.Expr]]) -> tuple[sp.Expr, ...]:
        """What ``derive`` makes of each piece, simplified, and joined over the pieces."""
        pieces = list(_pieces(*self._exprs))
        results = [[simplified(expr) for expr in derive(piece)] for piece in pieces]
        return tuple(_join(column, pieces) for column in zip(*results, strict=True))

    # States and targets

    def interpolate(self, source: Tensor, data: Tensor, noise: Tensor, t: Tensor | float) -> Tensor:
        """x_t = alpha(t) source + beta(t) data + gamma(t) noise.

        Args:
            source, data, noise: Equal shape (batch, ...).
            t: Scalar or shape (batch,), in [0, 1].

        Raises:
            ValueError: If shapes disagree, or a time is outside [0, 1].
        """
        return self._of_unknowns((self.alpha, self.beta, self.gamma), source, data, noise, t)

    def target(self, quantity: str, source: Tensor, data: Tensor, noise: Tensor, t: Tensor | float) -> Tensor:
        """The value of ``quantity`` at known source, data and noise: what a network that predicts it should output.

        Infinite where its row has a pole: the score at both ends, and the velocity where gamma' has one.
        """
        return self._of_unknowns(self.row(_quantity(quantity, "target: quantity")), source, data, noise, t)

    @staticmethod
    def _of_unknowns(
        weights: Sequence[Coefficient], source: Tensor, data: Tensor, noise: Tensor, t: Tensor | float
    ) -> Tensor:
        for name, state in (("source", source), ("noise", noise)):
            if state.shape != data.shape:
                raise ValueError(
                    f"{name}: must have the shape of data, {tuple(data.shape)}, got {tuple(state.shape)}. "
                    "Each sample of the data has one source and one noise."
                )
        return _combine(weights, (source, data, noise), t)

    def row(self, quantity: str) -> tuple[Coefficient, Coefficient, Coefficient]:
        """The weights of source, data and noise in ``quantity``."""
        _quantity(quantity, "row: quantity")

        def derive() -> tuple[Coefficient, Coefficient, Coefficient]:
            source, data, noise = map(Coefficient, self._by_piece(lambda p: _row(quantity, p.exprs, p.derivatives)))
            return source, data, noise

        return self._once(("row", quantity), derive)

    # Conversions

    def conversion(self, known: Known, target: str) -> tuple[Coefficient, ...]:
        """The weights of x_t and of each known quantity in ``target``, in this order.

        The target itself is used where it is known; else the known in their order, and x_t last: what is then linearly
        dependent on what came before has weight 0.

        Args:
            known: One quantity or several: velocity, score, noise, data, source.
            target: Any of these.

        Raises:
            ValueError: If ``target`` is not determined by x_t and ``known``, with the rank of what is known and the
                quantities of which one more determines it; or if a name is unknown or repeated.
        """
        names = _names(known, "conversion: known")
        _quantity(target, "conversion: target")

        def derive() -> tuple[Coefficient, ...]:
            weights = self._by_piece(lambda piece: piece.weights(names, target))
            return tuple(map(Coefficient, weights))

        return self._once(("conversion", names, target), derive)

    def convert(self, predictions: Predictions, x_t: Tensor, t: Tensor | float, *, known: Known, target: str) -> Tensor:
        """The ``target`` that belongs to predictions at x_t, shape of ``x_t``.

        Args:
            predictions: A tensor for each known quantity, in this order, of the shape of ``x_t``; one may stand alone.
            x_t: Shape (batch, ...).
            t: Scalar or shape (batch,), in [0, 1].
            known: What is predicted.
            target: What is wanted.

        Raises:
            ValueError: As ``conversion``, or if predictions are not one for each known quantity, or of another shape.
        """
        weights = self.conversion(known, target)
        return _combine(weights, (x_t, *_states(predictions, x_t, len(weights) - 1, "convert")), t)

    # Dynamics

    def ode(self, known: Known) -> TwoSidedDynamics:
        """The probability-flow ODE dx = velocity dt, from source to data or back.

        Raises:
            ValueError: If the velocity is not determined by x_t and ``known``.
        """
        names = _names(known, "ode: known")
        return self._dynamics(names, sp.Integer(0), 1, f"ODE of the {' and '.join(names)}")

    def sde(self, known: Known, w: ExpressionLike, direction: str = "forward") -> TwoSidedDynamics:
        r"""The SDE that has the marginals of x_t, for any squared amplitude w(t) >= 0:

        .. math:: dX_t = \left(\mathrm{velocity} \pm \tfrac12 w\, \mathrm{score}\right) dt + \sqrt{w}\, dW_t

        with + for "forward", from the source at t = 0 to the data, and - for "backward", integrated from the data at
        t = 1 to the source in steps dt < 0, each with noise of variance w \|dt\|.

        Args:
            known: What the networks predict; velocity and noise together determine the drift, and so does any other
                pair whose rows and that of x_t are linearly independent.
            w: Text, sympy in ``interpolants.t`` or a number. w = O(gamma) at the ends keeps w score bounded there.
            direction: "forward" or "backward".

        Raises:
            ValueError: If velocity or score is not determined by x_t and ``known``, or w is negative or not finite
                inside (0, 1).
        """
        names = _names(known, "sde: known")
        if direction not in DIRECTIONS:
            raise ValueError(f"sde: direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}.")
        if isinstance(w, Diffusion) or (isinstance(w, str) and chosen(w, CHOICES, "w") is not None):
            raise ValueError(
                f"w: must be an expression, got {w!r}, a choice of one-sided paths. State it: '2*(1 - t)'."
            )
        amplitude = to_expr(w, where="w")
        check_not_negative(amplitude, "w", str(amplitude))
        name = f"{direction} SDE of the {' and '.join(names)}, w = {amplitude}"
        return self._dynamics(names, amplitude, DIRECTIONS[direction], name)

    def _dynamics(self, known: tuple[str, ...], w: sp.Expr, sign: int, name: str) -> TwoSidedDynamics:
        def drift(piece: _Piece) -> list[sp.Expr]:
            velocity = piece.weights(known, "velocity")
            if w == 0:
                return velocity
            score = piece.weights(known, "score")
            return [b + sign * w / 2 * s for b, s in zip(velocity, score, strict=True)]

        a, *b = self._by_piece(drift)
        joins = tuple(piece.high for piece in _pieces(*self._exprs))[:-1]
        return TwoSidedDynamics(a, b, w, known, name, joins)

    # Relation to one-sided paths

    def one_sided(self) -> Path:
        r"""The path with the same marginals and velocity where the source is N(0, I) and independent of the data:

        .. math:: x_t = \beta\, \mathrm{data} + \sqrt{\alpha^2 + \gamma^2}\, \mathrm{noise}

        Raises:
            ValueError: If the interpolant has pieces, or this is no ``Path``, since its log-SNR need not increase.
        """
        alpha, beta, gamma = self._exprs
        if any(isinstance(e, sp.Piecewise) for e in self._exprs):
            raise ValueError(f"one_sided: the interpolant must be of one piece, got {self.name}.")
        squared = alpha**2 + gamma**2
        sigma = sp.sqrt(squared if squared.has(*KINKS) else simplified(squared))
        return Path(beta, sigma.replace(sp.Abs, modulus), name=f"{self.name}, one-sided")

    # Identity

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TwoSided) and self._exprs == other._exprs

    def __hash__(self) -> int:
        return hash(self._exprs)

    def __repr__(self) -> str:
        alpha, beta, gamma = self._exprs
        return f"TwoSided({self.name}: x_t = ({alpha}) source + ({beta}) data + ({gamma}) noise)"

    def _repr_latex_(self) -> str:
        names = ("source", "data", "noise")
        terms = (rf"\left({sp.latex(e)}\right) \mathrm{{{n}}}" for e, n in zip(self._exprs, names, strict=True))
        return rf"$\displaystyle x_t = {' + '.join(terms)}$"


class TwoSidedDynamics:
    """dx = (a x + sum_i b_i prediction_i) dt + sqrt(w) dW; w = 0 is the probability-flow ODE.

    Attributes:
        a: The drift's coefficient of x.
        b: Those of the predictions, in the order of ``known``.
        w: The squared noise amplitude.
        known: What is predicted.
    """

    def __init__(
        self, a: sp.Expr, b: Sequence[sp.Expr], w: sp.Expr, known: tuple[str, ...], name: str, joins: Sequence[sp.Expr]
    ) -> None:
        self.a, self.b, self.w = Coefficient(a), tuple(map(Coefficient, b)), Coefficient(w)
        self.known, self.name = known, name
        self._joins = joins
        self._amplitude = Coefficient(simplified(sp.sqrt(w)))

    def drift(self, x: Tensor, predictions: Predictions, t: Tensor | float) -> Tensor:
        """a(t) x + sum_i b_i(t) prediction_i, shape of ``x``; ``t`` is a scalar or has shape (batch,).

        Raises:
            ValueError: If predictions are not one for each known quantity, or not of the shape of ``x``.
        """
        return _combine((self.a, *self.b), (x, *_states(predictions, x, len(self.b), "drift")), t)

    def diffusion(self, t: Tensor) -> Tensor:
        """sqrt(w(t)), shape and dtype of ``t``."""
        amplitude: Tensor = self._amplitude(t)
        return amplitude

    def interval(self, max_gain: float = 1e3) -> tuple[float, float]:
        """[0, 1] where the drift's coefficients are bounded on it, else the part on which those with a pole at an end
        are at most ``max_gain`` in absolute value. See ``coefficient.interval``.

        Raises:
            ValueError: If a coefficient has a pole inside, where pieces join, so that no interval avoids it.
        """
        coefficients = (self.a, *self.b)
        for coefficient in coefficients:
            for piece in _pieces(coefficient.expr, joins=self._joins):
                for end, time in enumerate((piece.low, piece.high)):
                    if time in self._joins and limit(piece.stretched(), end).is_infinite:
                        raise ValueError(
                            f"interval: {self.name} has a pole at t = {time}, inside the interval, in "
                            f"{coefficient.expr}. Predict other quantities."
                        )
        return interval(coefficients, max_gain)

    def __repr__(self) -> str:
        terms = (f"({c.expr}) {name}" for c, name in zip((self.a, *self.b), ("x", *self.known), strict=True))
        return f"{self.name}: dx = [{' + '.join(terms)}] dt + sqrt({self.w.expr}) dW"


def _combine(weights: Sequence[Coefficient], states: Sequence[Tensor], t: Tensor | float) -> Tensor:
    """The sum of the weighted states; what has weight 0 is left out, so that it may be infinite."""
    used = [(c, state) for c, state in zip(weights, states, strict=True) if c.expr != 0]
    values = at([c for c, _ in used], t, states[0])
    terms = [value * state for value, (_, state) in zip(values, used, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _states(predictions: Predictions, x: Tensor, count: int, where: str) -> Sequence[Tensor]:
    states = (predictions,) if isinstance(predictions, Tensor) else tuple(predictions)
    if len(states) != count:
        raise ValueError(f"{where}: predictions must be {count}, one for each known quantity, got {len(states)}.")
    for state in states:
        if state.shape != x.shape:
            raise ValueError(
                f"{where}: predictions must have the shape of the state, {tuple(x.shape)}, got {tuple(state.shape)}."
            )
    return states


def _quantity(name: str, argument: str) -> str:
    if name not in QUANTITIES:
        near = difflib.get_close_matches(str(name), QUANTITIES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{argument} must be one of {', '.join(QUANTITIES)}, got {name!r}.{hint}")
    return name


def _names(known: Known, argument: str) -> tuple[str, ...]:
    names = tuple(_quantity(name, argument) for name in ((known,) if isinstance(known, str) else known))
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{argument} must be one quantity or several different ones, got {known!r}.")
    return names


# The linear algebra, piece by piece


def _row(quantity: str, functions: Sequence[sp.Expr], derivatives: Sequence[sp.Expr]) -> Row:
    """The weights of source, data and noise in ``quantity``, for functions = (alpha, beta, gamma)."""
    zero, one = sp.Integer(0), sp.Integer(1)
    table: dict[str, Sequence[sp.Expr]] = {
        "x_t": functions,
        "velocity": derivatives,
        "score": (zero, zero, -1 / functions[2]),
        "noise": (zero, zero, one),
        "data": (zero, one, zero),
        "source": (one, zero, zero),
    }
    source, data, noise = table[quantity]
    return source, data, noise


@dataclass(frozen=True)
class _Piece:
    """Expressions on low <= t <= high that no further case distinction divides: alpha, beta and gamma, or one."""

    low: sp.Rational
    high: sp.Rational
    exprs: tuple[sp.Expr, ...]

    @property
    def derivatives(self) -> tuple[sp.Expr, ...]:
        """Those of the expressions."""
        return tuple(map(derivative, self.exprs))

    def weights(self, known: tuple[str, ...], target: str) -> list[sp.Expr]:
        """The weights of x_t and of each of ``known`` in ``target``.

        Raises:
            ValueError: If ``target`` is not in the span of their rows.
        """
        solution, rank = self._solve(known, target)
        if solution is None:
            given = ("x_t", *known)
            more = [q for q in QUANTITIES if q not in known and self._solve((*known, q), target)[0] is not None]
            where = "" if (self.low, self.high) == (0, 1) else f" for {self.low} < t < {self.high}"
            raise ValueError(
                f"{', '.join(known)} -> {target} is not determined{where}: {', '.join(given[:-1])} and {given[-1]} are "
                f"{rank} equations for 3 unknowns (source, data, noise); give one more of {', '.join(more)}."
            )
        return solution

    def _solve(self, known: tuple[str, ...], target: str) -> tuple[list[sp.Expr] | None, int]:
        """The weights, None where there are none, and the rank of what is known; by row reduction.

        The functions and their derivatives are symbols meanwhile, so that all entries are rational functions of six
        unknowns; whether a pivot is 0 is asked of what it stands for.
        """
        order = sorted((*known, "x_t"), key=lambda name: name != target)
        exprs = (*self.exprs, *self.derivatives)
        symbols = [e if e.is_number else sp.Dummy() for e in exprs]
        meanings = dict(zip(symbols, exprs, strict=True))
        rows = sp.Matrix([_row(name, symbols[:3], symbols[3:]) for name in (*order, target)])
        reduced, pivots = rows.T.rref(iszerofunc=lambda e: self._vanishes(e.xreplace(meanings)), simplify=sp.cancel)
        if len(order) in pivots:
            return None, len(pivots) - 1
        found = {order[column]: reduced[i, len(order)] for i, column in enumerate(pivots)}
        weights = [sp.cancel(found.get(name, sp.Integer(0))).xreplace(meanings) for name in ("x_t", *known)]
        return weights, len(pivots)

    def _vanishes(self, expr: sp.Expr) -> bool:
        """Whether an expression is 0 at all t. It counts as that, with a warning, where neither is proved."""
        time = self.low + (self.high - self.low) * sp.Rational(237, 1000)
        if sign_of(value(expr, time, 1, PRECISIONS[:2])):
            return False
        if is_zero(expr):
            return True
        if sign_of(value(expr, time, 1)):
            return False
        warnings.warn(f"not decided whether {expr} is 0 at all t.", UndecidedWarning, stacklevel=2)
        return True

    def stretched(self) -> sp.Expr:
        """Its one expression as a function on [0, 1]."""
        return self.exprs[0].subs(t, self.low + (self.high - self.low) * t)


def _pieces(*exprs: sp.Expr, joins: Sequence[sp.Expr] = ()) -> Iterator[_Piece]:
    """The parts of [0, 1] between the times at which one of the expressions changes, and ``joins``."""
    changes = {condition.rhs for e in exprs if isinstance(e, sp.Piecewise) for _, condition in e.args[:-1]}
    for low, high in pairwise((sp.Integer(0), *sorted({*changes, *joins}), sp.Integer(1))):
        yield _Piece(low, high, tuple(_on(e, (low + high) / 2) for e in exprs))


def _on(expr: sp.Expr, time: sp.Rational) -> sp.Expr:
    if not isinstance(expr, sp.Piecewise):
        return expr
    return next(piece for piece, condition in expr.args if condition.subs(t, time) == sp.true)


def _join(exprs: Sequence[sp.Expr], pieces: Sequence[_Piece]) -> sp.Expr:
    conditions = [*(t <= piece.high for piece in pieces[:-1]), True]
    return sp.Piecewise(*zip(exprs, conditions, strict=True))


# Checks


def _to_expr(value: ExpressionLike, where: str) -> sp.Expr:
    if not isinstance(value, sp.Piecewise):
        return to_expr(value, where=where)
    *changes, last = (condition for _, condition in value.args)
    times = [c.rhs for c in changes if isinstance(c, (sp.Le, sp.Lt)) and c.lhs == t and c.rhs.is_Rational]
    if not (len(times) == len(changes) and last == sp.true and all(a < b for a, b in pairwise([0, *times, 1]))):
        raise ValueError(
            f"{where}: the conditions of a Piecewise must be t <= time, rational, increasing in (0, 1), and True last, "
            f"got {value}."
        )
    conditions = [*(t <= time for time in times), True]
    return sp.Piecewise(*((to_expr(e, where=where), c) for (e, _), c in zip(value.args, conditions, strict=True)))


def _check(name: str, alpha: sp.Expr, beta: sp.Expr, gamma: sp.Expr) -> tuple[str, ...]:
    """Refuse what is proved to be no two-sided interpolant; return the conditions that are not decided."""
    refusal = f"{name} is no two-sided interpolant"
    conditions = nonnegative("alpha", alpha), nonnegative("beta", beta), positive("gamma", gamma)
    left = [*undecided(refusal, conditions)]
    ends = {"alpha": (1, 0), "beta": (0, 1), "gamma": (0, 0)}
    pieces = list(_pieces(alpha, beta, gamma))
    for i, (function, values) in enumerate(ends.items()):
        for end, wanted in enumerate(values):
            what, got = f"{function} must be {wanted} at t = {end}", limit(pieces[-end].exprs[i], end)
            if (equal := _equal(got, sp.Integer(wanted))) is False:
                raise ValueError(
                    f"{refusal}: {what}, got {sp.N(got, 4)}. "
                    "Time runs from the source at 0 to the data at 1, and there is no noise at either."
                )
            left += [what] if equal is None else []
    for before, after in pairwise(pieces):
        for function, first, second in zip(ends, before.exprs, after.exprs, strict=True):
            what = f"the pieces of {function} must join at t = {before.high}"
            one, other = first.subs(t, before.high), second.subs(t, before.high)
            if (equal := _equal(one, other)) is False:
                raise ValueError(f"{refusal}: {what}, got {sp.N(one, 4)} and {sp.N(other, 4)}.")
            left += [what] if equal is None else []
    tell(name, tuple(left), stacklevel=3)
    return tuple(left)


def _equal(got: sp.Expr, wanted: sp.Expr) -> bool | None:
    """Whether two numbers are equal; None where neither is proved."""
    if got == wanted:
        return True
    if got.is_infinite or got is sp.nan or sign_of(value(got - wanted, 0)):
        return False
    return True if is_zero_constant(got - wanted) else None


# Families


def brownian(a: float = 1.0) -> sp.Expr:
    """gamma = sqrt(a t (1 - t)), the standard deviation of a Brownian bridge; gamma' has poles at both ends.

    Raises:
        ValueError: If ``a`` is not positive.
    """
    return sp.sqrt(_positive(a, "brownian: a") * t * (1 - t))


def quadratic() -> sp.Expr:
    """gamma = t (1 - t)."""
    return t * (1 - t)


def sin_squared() -> sp.Expr:
    """gamma = sin(pi t)^2, flat at both ends."""
    return sp.sin(sp.pi * t) ** 2


def sigmoid(f: float = 10.0) -> sp.Expr:
    r"""A plateau that rises and falls within about 1/f, and vanishes at both ends: with s(x) = 1 / (1 + exp(-x)),

    .. math:: \gamma = s(f(t - \tfrac12) + 1) - s(f(t - \tfrac12) - 1) - s(-\tfrac f2 + 1) + s(-\tfrac f2 - 1),

    which is one product, since s(x + 1) - s(x - 1) = 2 sinh(1) e^x / ((e^x + e) (e^x + 1/e)).

    Raises:
        ValueError: Unless 0 < f <= 50. Exact algebra in powers of e^(f t) takes the longer the larger f is.
    """
    steepness = _positive(f, "sigmoid: f")
    if steepness > MAX_STEEPNESS:
        raise ValueError(f"sigmoid: f must be at most {MAX_STEEPNESS}, got {f!r}.")
    middle, half = sp.exp(steepness * (t - sp.Rational(1, 2))), steepness / 2
    vanishing = (middle - sp.exp(-half)) * (1 - sp.exp(steepness * (t - 1)))
    height = 2 * sp.sinh(1) / ((1 + sp.exp(1 - half)) * (1 + sp.exp(-1 - half)))
    return height * vanishing / ((middle + sp.E) * (middle + 1 / sp.E))


def _positive(value: float, argument: str) -> sp.Rational:
    number = exact(value)
    if number <= 0:
        raise ValueError(f"{argument} must be positive, got {value!r}.")
    return number


def linear(gamma: ExpressionLike = "sqrt(t*(1-t))") -> TwoSided:
    """alpha = 1 - t, beta = t, and any gamma, of the Brownian bridge if none is given."""
    return TwoSided(1 - t, t, gamma, name=f"two-sided linear, gamma = {gamma}")


def trigonometric(gamma: ExpressionLike = "sqrt(t*(1-t))") -> TwoSided:
    """alpha = cos(pi t / 2), beta = sin(pi t / 2), and any gamma, of the Brownian bridge if none is given."""
    return TwoSided(
        sp.cos(sp.pi * t / 2), sp.sin(sp.pi * t / 2), gamma, name=f"two-sided trigonometric, gamma = {gamma}"
    )


def encoder_decoder() -> TwoSided:
    """From the source to pure noise at t = 1/2, and from there to the data: cos(pi t)^2 on its half, sin(pi t)^2 noise.

    Each half has two unknowns, so x_t and one prediction, the velocity say, determine all that there is.
    """
    half, cosine = sp.Rational(1, 2), sp.cos(sp.pi * t) ** 2
    alpha, beta = (sp.Piecewise((first, t <= half), (last, True)) for first, last in ((cosine, 0), (0, cosine)))
    return TwoSided(alpha, beta, sp.sin(sp.pi * t) ** 2, name="encoder-decoder")
