r"""Changes of time: a path exchanged after training, the inverse of the log-SNR, and shifts.

In polar coordinates alpha = rho sin(theta), sigma = rho cos(theta) the angle is the SNR and the radius a scale: two
states at equal angles differ by the scale alone. So a network trained on one path serves every other. At time t of the
path that is sampled it is asked at the time tau of equal SNR on the path of its training, with the state divided by c:

.. math:: \frac{\alpha_r(\tau)}{\sigma_r(\tau)} = \frac{\alpha_s(t)}{\sigma_s(t)}, \qquad
    c(t) = \frac{\rho_s(t)}{\rho_r(\tau)} = \frac{\alpha_s(t)}{\alpha_r(\tau)} = \frac{\sigma_s(t)}{\sigma_r(\tau)}.

Of the three ratios two are 0/0 at an end, that of the radii at none. With the Wronskians W of the two paths,
d tau / dt = W_s(t) / (c^2 W_r(tau)). Source: Karras et al. (2022), arXiv:2206.00364, section 2.
"""

from __future__ import annotations

import functools
import itertools
import math
import numbers
from collections.abc import Callable, Iterator
from typing import Any, Final

import mpmath
import numpy as np
import sympy as sp
import torch
from torch import Tensor

from interpolants import probes
from interpolants.coefficient import Coefficient, at, made_of, precise
from interpolants.composition import wronskian
from interpolants.enclosure import value
from interpolants.expression import exact, t
from interpolants.limits import evaluate
from interpolants.path import Path
from interpolants.quantities import check_quantity
from interpolants.simplify import simplified

Network = Callable[..., Tensor]

_TIME: Final = Coefficient(t)
_INSIDE: Final = 2.0**-53  # from an end; there the derivative is taken that may be 0/0 at the end itself
_FURTHER: Final = 2.0**-26  # from the data, where it is that or oo/oo and tau, rounded next to 1, is too coarse
_LOWEST, _HIGHEST = -710.0, 40.0  # of the logit of time: past them exp overflows, and 1 - t is lost in rounding
_MAX_STEPS: Final = 200
_NEIGHBOURS: Final = 8  # units in the last place by which a time may be off
_MAX_OPERATIONS: Final = 80
_MAX_POWER: Final = 4


# A path exchanged after training


class SNRMatch:
    r"""The time tau(t) on ``trained`` and the scale c(t) of equal SNR with ``sampled`` at t; from ``match_snr``.

    The marginals are equal but for the scale, p_sampled(x, t) = c^-d p_trained(x / c, tau), and so is what x tells of
    data and noise: E[data | x, t] on ``sampled`` is E[data | x / c, tau] on ``trained``.

    Where the log-SNR at an end is finite, the sampled path may go beyond the trained one. No time has that SNR, and the
    nearest is taken: tau is 0 or 1, and the state is brought to the radius there, c = rho_s(t) / rho_r(tau).

    Attributes:
        trained, sampled: The two paths.
        interval: The sampled times whose SNR the trained path covers, [0, 1] for most pairs. It is never empty: alpha /
            sigma runs from 1/4 or less to 4 or more on every path.
        time_expr, scale_expr: tau and c in ``interpolants.t``, valid inside ``interval``, where a formula of moderate
            length is found that agrees to 30 digits at times all over it; else None, and tau is found by iteration.
    """

    def __init__(self, trained: Path, sampled: Path) -> None:
        self.trained, self.sampled = trained, sampled
        covered, needed = _log_snr_range(trained), torch.tensor(_log_snr_range(sampled), dtype=torch.float64)
        self._ends: tuple[float, float] = tuple(time_at_log_snr(trained, needed).tolist())
        start, stop = time_at_log_snr(sampled, torch.tensor(covered, dtype=torch.float64)).tolist()
        self.interval: tuple[float, float] = start, stop
        slopes = {path.wronskian.limit(1) for path in (sampled, trained)}
        undefined = slopes in ({0}, {sp.oo})
        self._last = 1 - (_FURTHER if undefined else _INSIDE)
        self.time_expr = _closed_form(trained, sampled, self.interval)
        self.scale_expr = None if self.time_expr is None else _scale_expr(trained, sampled, self.time_expr)
        self._guess = None if self.time_expr is None else _accurate(self.time_expr, self.interval)

    @property
    def is_closed_form(self) -> bool:
        """Whether tau is known as an expression."""
        return self.time_expr is not None

    def time(self, time: Any) -> Any:
        """tau(t): a tensor, an array or a float in [0, 1] in, the same type, shape, dtype and device out.

        Found in float64 to rounding; differentiable to any order.

        Raises:
            ValueError: If a time is outside [0, 1].
            TypeError: If ``time`` is none of these.
        """
        return _in_float64(self._time, time)

    def scale(self, time: Any) -> Any:
        """c(t), by which the state is divided before the network sees it; otherwise as ``time``."""
        return _in_float64(self._scale, time)

    def _time(self, time: Tensor) -> Tensor:
        inside = time + (time.clamp(_INSIDE, self._last) - time).detach()
        within = torch.where(_at_end(time), inside, time).clamp(*self.interval)
        tau = _apply(_MatchedTime, within, self)
        start, stop = self.interval
        tau = torch.where(time < start, 0.0, torch.where(time > stop, 1.0, tau))
        exact_tau = torch.where(time == 0, self._ends[0], torch.full_like(time, self._ends[1]))
        return torch.where(_at_end(time), tau + (exact_tau - tau).detach(), tau)

    def _scale(self, time: Tensor) -> Tensor:
        sampled, trained = _squared_radius(self.sampled), _squared_radius(self.trained)
        return torch.sqrt(sampled.kernel(time) / trained.kernel(self._time(time)))

    def _solve(self, time: Tensor) -> Tensor:
        """tau by formula or iteration, and then one step of Newton's method on the ratio of the SNRs, whose logarithm
        keeps the digits that the difference of the log-SNRs loses.
        """
        log_snr = self.sampled.log_snr.kernel(time).clamp(*_log_snr_range(self.trained))
        tau = _solve(self.trained, log_snr) if self._guess is None else self._guess.kernel(time).clamp(0, 1)
        (alpha_s, sigma_s), (alpha_r, sigma_r) = (
            (path.alpha.kernel(at), path.sigma.kernel(at)) for path, at in ((self.sampled, time), (self.trained, tau))
        )
        excess = 2 * torch.log((alpha_r * sigma_s) / (sigma_r * alpha_s))
        polished = tau - excess * _slope(self.trained).kernel(tau)
        return torch.where(polished.isfinite(), polished, tau).clamp(0, 1)

    # Predictions

    def convert(self, prediction: Tensor, x_t: Tensor, t: Tensor | float, *, source: str, target: str) -> Tensor:
        """``target`` on the sampled path at (x_t, t), from what the network said at (x_t / c, tau).

        Data and noise are the same on both paths; ``target`` is their combination by its row on the sampled path.

        Args:
            prediction: Output of the network, the shape of ``x_t``.
            x_t: State on the sampled path, shape (batch, ...).
            t: Sampled time, scalar or shape (batch,).
            source: What the network predicts on the trained path: velocity, score, noise or data.
            target: One of the same.

        Raises:
            ValueError: If a name is unknown, or shapes disagree.
        """
        check_quantity(source, "convert: source")
        check_quantity(target, "convert: target")
        state, tau, scale = self._matched(x_t, t)
        if source == target == "score":  # the gradient of log p(x / c), finite where the noise that it implies is not
            return prediction / scale
        weights = zip(("data", "noise"), self.sampled.row(target), strict=True)
        return sum(
            (
                at((weight,), t, x_t)[0] * self.trained.convert(prediction, state, tau, source=source, target=part)
                for part, weight in weights
                if weight.expr != 0
            ),
            torch.zeros_like(x_t),
        )

    def predict(
        self,
        network: Network,
        x_t: Tensor,
        t: Tensor | float,
        *,
        prediction: str = "velocity",
        target: str = "velocity",
        **condition: Any,
    ) -> Tensor:
        """``target`` on the sampled path at (x_t, t), by one call ``network(x_t / c, tau, **condition)``.

        Args:
            network: Trained on the trained path; called with a state of shape (batch, ...) and times of shape (batch,),
                float32 or the wider dtype of the state.
            x_t: State on the sampled path, shape (batch, ...).
            t: Sampled time, scalar or shape (batch,).
            prediction: What the network predicts: velocity, score, noise or data.
            target: One of the same.
            condition: Further arguments of the network, such as y=labels.
        """
        check_quantity(prediction, "predict: prediction")
        state, tau, _ = self._matched(x_t, t)
        dtype = torch.promote_types(x_t.dtype, torch.float32)  # bfloat16 would round 0.998 to 1
        output = network(state, tau.to(dtype).expand(len(x_t)), **condition)
        return self.convert(output, x_t, t, source=prediction, target=target)

    def _matched(self, x_t: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """The state for the network, its time in float64, and the scale, shaped to divide the state."""
        at((_TIME,), t, x_t)  # which checks them
        time = precise(t if isinstance(t, Tensor) else torch.tensor(float(t), dtype=torch.float64, device=x_t.device))
        scale = self._scale(time).to(x_t.dtype)
        scale = scale.reshape(scale.shape + (1,) * (x_t.dim() - 1) if scale.dim() else ())
        return x_t / scale, self._time(time), scale

    def __repr__(self) -> str:
        how = f"tau = {self.time_expr}" if self.is_closed_form else "tau by iteration"
        return f"SNRMatch(trained={self.trained.name}, sampled={self.sampled.name}: {how})"


def match_snr(trained: Path, sampled: Path) -> SNRMatch:
    """How a network trained on one path is asked on another: its time tau(t), and the scale c(t) of the state.

    >>> import interpolants as ip
    >>> change = match_snr(trained=ip.gvp(), sampled=ip.linear())
    >>> change.time_expr
    2*atan(t/(1 - t))/pi
    >>> change.time(0.5), change.scale(1.0)
    (0.5, 1.0)

    Raises:
        ValueError: If a path is in the paper's time.
    """
    _check_direction(trained, "match_snr: trained")
    _check_direction(sampled, "match_snr: sampled")
    return SNRMatch(trained, sampled)


class _MatchedTime(torch.autograd.Function):
    """tau(t) strictly inside (0, 1), with the derivative of the implicit function."""

    @staticmethod
    def forward(time: Tensor, match: SNRMatch) -> Tensor:
        return match._solve(time)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, SNRMatch], output: Tensor) -> None:
        time, ctx.match = inputs
        ctx.save_for_backward(time, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        time, tau = ctx.saved_tensors
        sampled, trained = ctx.match.sampled, ctx.match.trained
        squared_scale = _squared_radius(sampled).kernel(time) / _squared_radius(trained).kernel(tau)
        return gradient * sampled.wronskian.kernel(time) / (squared_scale * trained.wronskian.kernel(tau)), None


def _apply(function: type[torch.autograd.Function], values: Tensor, argument: Any) -> Tensor:
    result: Tensor = function.apply(values, argument)  # type: ignore[no-untyped-call]
    return result


def _at_end(time: Tensor) -> Tensor:
    return (time == 0) | (time == 1)


def _in_float64(function: Callable[[Tensor], Tensor], time: Any) -> Any:
    """The function at ``time`` of any kind that a Coefficient takes, which also checks it."""
    _TIME(time)
    if isinstance(time, Tensor):
        return function(precise(time)).to(time.dtype)
    value = function(torch.from_numpy(np.array(time, dtype=np.float64))).numpy()
    return value.astype(time.dtype) if isinstance(time, np.ndarray) else float(value)


# The formula for tau


def _closed_form(trained: Path, sampled: Path, interval: tuple[float, float]) -> sp.Expr | None:
    """tau(t), where the ratio alpha / sigma of the trained path, or its square, can be unwrapped; else None."""
    if (trained.alpha, trained.sigma) == (sampled.alpha, sampled.sigma):
        return t
    ratio_r, ratio_s = (simplified(path.alpha.expr / path.sigma.expr) for path in (trained, sampled))
    y = sp.Dummy("y", positive=True)
    for power in (1, 2):  # the square may have a simpler normal form: that of sin / (1 - sin) is in half of the angle
        for formula in itertools.islice(_inverses(simplified(ratio_r**power), y), 16):
            tau = _composed(formula, y, ratio_s**power)
            if tau is not None and _solves(tau, ratio_r, ratio_s, interval):
                return tau
    return None


def _composed(outer: sp.Expr, symbol: sp.Symbol, inner: sp.Expr) -> sp.Expr | None:
    """outer(inner(t)) in its shorter form; None where it is long or of high degree, since sympy looks for the sign of a
    polynomial, and of its derivatives one by one, whenever it makes an expression of it.
    """
    operations = sp.count_ops(outer) + outer.count(symbol) * sp.count_ops(inner)
    if operations > _MAX_OPERATIONS or _highest_power(outer) * _highest_power(inner) > _MAX_POWER:
        return None
    expr = outer.xreplace({symbol: inner})
    return min(simplified(expr), expr, key=sp.count_ops)


def _highest_power(expr: sp.Expr) -> sp.Rational:
    return max((abs(p.exp) for p in expr.atoms(sp.Pow) if p.exp.is_Rational), default=sp.Integer(1))


def _inverses(expr: sp.Expr, y: sp.Expr) -> Iterator[sp.Expr]:
    """Expressions tau(y), among them the solution of expr(tau) = y if it is found by unwrapping one function, power or
    rational function of degree two after the other.
    """
    if expr == t:
        yield y
        return
    if expr.func in _INVERSE_FUNCTIONS:
        yield from _inverses(expr.args[0], _INVERSE_FUNCTIONS[expr.func](y))
        return
    constant, base, exponent = _as_power(expr)
    if exponent != 1:
        yield from _inverses(base, (y / constant) ** (1 / exponent))
        return
    for rational, symbol, meaning in _as_rational(expr):
        for root in _roots(rational, symbol, y):
            yield from _inverses(meaning, root)


_INVERSE_FUNCTIONS: Final[dict[Any, Callable[[sp.Expr], sp.Expr]]] = {
    sp.exp: sp.log, sp.log: sp.exp, sp.sin: sp.asin, sp.cos: sp.acos, sp.tan: sp.atan,
    sp.asin: sp.sin, sp.acos: sp.cos, sp.atan: sp.tan,
}  # fmt: skip


def _as_power(expr: sp.Expr) -> tuple[sp.Expr, sp.Expr, sp.Rational]:
    """(c, b, n) with expr = c b^n, n as large as possible, and b positive where n is whole."""
    names = {f: sp.Dummy("f") for f in _functions(expr)}  # inside them sympy would search for factors without bound
    factored = sp.factor(expr.xreplace(names)).xreplace({name: f for f, name in names.items()})
    constant, rest = factored.as_independent(t, as_Add=False)
    powers = [f.as_base_exp() if f.is_Pow and f.exp.is_Rational else (f, sp.Integer(1)) for f in sp.Mul.make_args(rest)]
    common = _common_divisor([n for _, n in powers])
    base = sp.Mul(*(b ** (n / common) for b, n in powers))
    if common.is_Integer and value(base, sp.Rational(1, 2)) < 0:
        constant, base = constant * (-1) ** common, -base
    return constant, base, common


def _functions(expr: sp.Expr) -> list[sp.Expr]:
    """The functions of t, other than integer powers, of which the expression is a rational function with t."""
    if expr.has(t) and (expr.is_Function or (expr.is_Pow and not expr.exp.is_Integer)):
        return [expr]
    return list(dict.fromkeys(f for argument in expr.args for f in _functions(argument)))


def _common_divisor(numbers: list[sp.Rational]) -> sp.Rational:
    return functools.reduce(lambda m, n: m.gcd(n), numbers, sp.Integer(0))


def _as_rational(expr: sp.Expr) -> Iterator[tuple[sp.Expr, sp.Symbol, sp.Expr]]:
    """(r, g, f): the expression is the rational function r of g, where g stands for one f(t)."""
    g = sp.Dummy("g", positive=True)
    for rewritten, meaning in _with_one_function(expr, g):
        if rewritten.free_symbols <= {g} and rewritten.is_rational_function(g):
            yield sp.cancel(rewritten), g, meaning


def _with_one_function(expr: sp.Expr, g: sp.Symbol) -> Iterator[tuple[sp.Expr, sp.Expr]]:
    """The expression with g in place of t, of a function of t, or of that of which several are powers."""
    functions = _functions(expr)
    if not functions:
        yield expr.xreplace({t: g}), t
    for f in functions:
        yield expr.xreplace({f: g}), f
    if len(functions) > 1 and all(isinstance(f, sp.exp) for f in functions):
        logs = [f.exp for f in functions]
        multiples = [sp.cancel(log / logs[0]) for log in logs]
        if all(m.is_Rational for m in multiples):
            unit = _common_divisor(multiples)
            powers = {f: g ** (m / unit) for f, m in zip(functions, multiples, strict=True)}
            yield expr.xreplace(powers), sp.exp(logs[0] * unit)
    for angle in {f.args[0] for f in functions if isinstance(f, sp.sin | sp.cos)}:
        yield _in_tangent(expr, angle, g), sp.tan(angle)


def _in_tangent(expr: sp.Expr, angle: sp.Expr, tangent: sp.Symbol) -> sp.Expr:
    """sin and cos of the angle by its tangent, and by a cosine where that is then left in odd powers."""
    cosine = sp.Dummy("c", positive=True)
    replaced = expr.xreplace({sp.sin(angle): tangent * cosine, sp.cos(angle): cosine, sp.tan(angle): tangent})
    return sp.cancel(replaced).replace(
        lambda e: e.is_Pow and e.base == cosine and e.exp % 2 == 0,
        lambda e: (1 + tangent**2) ** (-e.exp / 2),
    )


def _roots(rational: sp.Expr, symbol: sp.Symbol, y: sp.Expr) -> Iterator[sp.Expr]:
    """The positive solutions of rational(g) = y, of degree one or two in a power of g; each quadratic root both as
    (-b + s) / 2a and as 2c / (-b - s), of which one or the other keeps its digits.
    """
    numerator, denominator = sp.fraction(rational)
    value = sp.Dummy("v", positive=True)  # y itself would be searched for factors
    poly = sp.Poly(numerator - value * denominator, symbol)
    power = math.gcd(*(n for (n,) in poly.monoms()))
    degree = poly.degree() // power if power else 0
    coefficients = [poly.coeff_monomial(symbol ** (power * k)) for k in range(degree + 1)]
    if degree == 1:
        c, b = coefficients
        yield sp.cancel(-c / b).xreplace({value: y}) ** sp.Rational(1, power)
    elif degree == 2:
        c, b, a = coefficients
        root = sp.sqrt(sp.factor(b**2 - 4 * a * c))
        for sign in (1, -1):
            for solution in (2 * c / (-b + sign * root), (-b - sign * root) / (2 * a)):
                yield solution.xreplace({value: y}) ** sp.Rational(1, power)


def _solves(tau: sp.Expr, ratio_r: sp.Expr, ratio_s: sp.Expr, interval: tuple[float, float]) -> bool:
    """Whether ratio_r(tau(t)) = ratio_s(t), to 30 digits, at times all over the interval."""
    with mpmath.workdps(80):
        for time in _inside(interval):
            value = evaluate(tau, time, 80)
            if not (0 <= value <= 1):
                return False
            got, wanted = evaluate(ratio_r, value, 80), evaluate(ratio_s, time, 80)
            if not abs(got - wanted) <= mpmath.mpf(10) ** -30 * abs(wanted):
                return False
    return True


def _inside(interval: tuple[float, float]) -> list[mpmath.mpf]:
    start, stop = (mpmath.mpf(end) for end in interval)
    return [start + (stop - start) * probe for probe in probes.EVERYWHERE]


def _accurate(tau: sp.Expr, interval: tuple[float, float]) -> Coefficient | None:
    """The formula compiled, where float64 gives it half of the digits or more next to both ends; else None."""
    try:
        guess = Coefficient(tau)
    except ArithmeticError:  # no limit is found at an end: the formula is right, but not to be evaluated there
        return None
    for time in (float(time) for time in _inside(interval)):
        exact_tau = evaluate(tau, mpmath.mpf(time), 60)
        if not abs(guess(time) - exact_tau) <= 1e-9 * min(exact_tau, 1 - exact_tau) + 2.0**-52:
            return None
    return guess


def _scale_expr(trained: Path, sampled: Path, tau: sp.Expr) -> sp.Expr | None:
    for of_sampled, of_trained, power in (
        (_squared_radius(sampled), _squared_radius(trained), 1),
        (sampled.alpha, trained.alpha, 2),
        (sampled.sigma, trained.sigma, 2),
    ):
        composed = _composed(of_trained.expr, t, tau)
        if composed is not None:
            return _square_root(simplified((of_sampled.expr / composed) ** power))
    return None


def _square_root(squared: sp.Expr) -> sp.Expr:
    """The positive root of an expression that is positive on (0, 1)."""
    constant, base, exponent = _as_power(squared)
    if exponent % 2 != 0:
        return sp.sqrt(squared)
    return sp.sqrt(constant) * base ** (exponent / 2)


# The inverse of the log-SNR


def time_at_log_snr(path: Path, log_snr: Tensor) -> Tensor:
    r"""The time at which the log-SNR of ``path`` is ``log_snr``: the inverse of ``path.log_snr``.

    Found in float64 to rounding, and differentiable to any order: with W the Wronskian,

    .. math:: \frac{dt}{d\lambda} = \frac{\alpha \sigma}{2 W}.

    Args:
        path: With noise at t = 0 and data at t = 1.
        log_snr: log(alpha^2 / sigma^2), any shape, floating point. Beyond the values at the two ends, which are finite
            on some paths, the time is 0 or 1, and its derivative 0.

    Returns:
        Times in [0, 1], of the shape, dtype and device of ``log_snr``; NaN where that is NaN.

    Raises:
        TypeError: If ``log_snr`` is not a floating point tensor.
        ValueError: If ``path`` is in the paper's time.
        ArithmeticError: If a time that was found has not the log-SNR that was asked for.
    """
    _check_direction(path, "time_at_log_snr: path")
    if not isinstance(log_snr, Tensor) or not log_snr.is_floating_point():
        kind = log_snr.dtype if isinstance(log_snr, Tensor) else type(log_snr).__name__
        raise TypeError(f"time_at_log_snr: log_snr must be a floating point tensor, got {kind}.")
    within = precise(log_snr).clamp(*_log_snr_range(path))
    return _apply(_TimeAtLogSNR, within, path).to(log_snr.dtype)


class _TimeAtLogSNR(torch.autograd.Function):
    @staticmethod
    def forward(log_snr: Tensor, path: Path) -> Tensor:
        time: Tensor = _solve(path, log_snr)
        return time

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Path], output: Tensor) -> None:
        ctx.path = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (time,) = ctx.saved_tensors
        return gradient * _slope(ctx.path).kernel(time), None


def _solve(path: Path, log_snr: Tensor) -> Tensor:
    """Newton's method on the logit of time, in which the log-SNR is close to linear next to both ends; bisection
    wherever a step leaves the bracket or does not halve the one before it. The last step is taken in time itself.
    """
    log_snr_at, slope_at = path.log_snr.kernel, _slope(path).kernel
    wanted = log_snr.nan_to_num()
    lowest, highest = _log_snr_range(path)
    low, high = torch.full_like(wanted, _LOWEST), torch.full_like(wanted, _HIGHEST)
    logit = (wanted / 2).clamp(_LOWEST, _HIGHEST)
    last = torch.full_like(wanted, _HIGHEST - _LOWEST)  # no step leads far from where the answer is
    # At the ends, or nearer to them than any time but they.
    first, final = (log_snr_at(torch.full_like(wanted, time)) for time in (math.exp(_LOWEST), 1 - 2.0**-53))
    at_noise, at_data = (log_snr <= lowest) | (wanted < first), (log_snr >= highest) | (wanted > final)
    found = at_noise | at_data
    for _ in range(_MAX_STEPS):
        time = torch.sigmoid(logit)
        excess = log_snr_at(time) - wanted
        low, high = torch.where(excess < 0, logit, low), torch.where(excess > 0, logit, high)
        slope = slope_at(time)
        in_time = torch.where(slope > 0, excess * slope, math.nan)  # it underflows next to t = 0
        newton = in_time / (time * (1 - time))
        is_safe = (newton.abs() <= last / 2) & (logit - newton >= low) & (logit - newton <= high)
        moved = torch.where(is_safe, logit - newton, (low + high) / 2)
        moved = torch.where(found | (excess == 0), logit, moved)
        last, logit = (moved - logit).abs(), moved
        are_neighbours = torch.sigmoid(high) - torch.sigmoid(low) <= 2.0**-53 * time
        found = found | (last <= 1e-8) | are_neighbours | ((in_time.abs() <= 2.0**-53 * time) & (time < 1))
        if bool(found.all()):
            break
    time = torch.sigmoid(logit)
    excess = log_snr_at(time) - wanted
    polished = (time - excess * slope_at(time)).clamp(0, 1)
    better = (log_snr_at(polished) - wanted).abs() <= excess.abs()
    time = torch.where(better, polished, time)
    time = torch.where(at_noise, 0.0, torch.where(at_data, 1.0, time))
    _check_found(path, wanted, time)
    result: Tensor = torch.where(log_snr.isnan(), log_snr, time)
    return result


def _check_found(path: Path, wanted: Tensor, time: Tensor) -> None:
    """Raise ArithmeticError unless each log-SNR lies between those of two times next to the one that was found."""
    step = _NEIGHBOURS * torch.finfo(time.dtype).eps
    before, after = (path.log_snr.kernel((time * (1 + side * step)).clamp(0, 1)) for side in (-1, 1))
    rounding = step * wanted.abs()
    wrong = ~((before - rounding <= wanted) & (wanted <= after + rounding)) & (time > 0) & (time < 1)
    if bool(wrong.any()):
        asked, got = wanted[wrong][0].item(), time[wrong][0].item()
        raise ArithmeticError(
            f"time_at_log_snr: found no time at which the log-SNR of {path.name} is {asked:.6g}: "
            f"at t = {got:.6g} it is {path.log_snr(got):.6g}."
        )


# Functions of one path


@functools.lru_cache(maxsize=128)
def _slope(path: Path) -> Coefficient:
    """dt / d log_snr."""
    return made_of(_time_per_log_snr, alpha=path.alpha.expr, sigma=path.sigma.expr)[0]


def _time_per_log_snr(alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr]:
    return (simplified(alpha * sigma / (2 * wronskian(alpha, sigma))),)


@functools.lru_cache(maxsize=128)
def _squared_radius(path: Path) -> Coefficient:
    return made_of(_sum_of_squares, alpha=path.alpha.expr, sigma=path.sigma.expr)[0]


def _sum_of_squares(alpha: sp.Expr, sigma: sp.Expr) -> tuple[sp.Expr]:
    return (simplified(alpha**2 + sigma**2),)


@functools.lru_cache(maxsize=128)
def _log_snr_range(path: Path) -> tuple[float, float]:
    low, high = (float(path.log_snr.limit(end)) for end in (0, 1))
    return low, high


def _check_direction(path: Path, argument: str) -> None:
    if path.data_end != 1:
        raise ValueError(f"{argument} must have its data at t = 1, got {path.name!r}. Use .in_paper_time() to undo it.")


# Shifts


def shifted(path: Path, shift: float) -> Path:
    r"""The path with its time shifted towards noise, for shift > 1: the time map of high resolutions,

    .. math:: t \mapsto \frac{t}{t + shift\,(1 - t)}.

    On the linear path it divides alpha / sigma by ``shift`` at all times. Shifts multiply: one by a after one by b is
    one by a b, and one by 1 is none. Source: Esser et al. (2024), arXiv:2403.03206, section 5.3.2.

    Raises:
        ValueError: If ``shift`` is not a positive finite number.
    """
    if isinstance(shift, bool) or not isinstance(shift, numbers.Real) or not 0 < shift < math.inf:
        raise ValueError(f"shifted: shift must be a positive finite number, got {shift!r}. 1 leaves the path as it is.")
    shifted_time = t / (t + exact(shift) * (1 - t))
    return path.after(shifted_time, name=f"{path.name}, shift {shift:g}")
