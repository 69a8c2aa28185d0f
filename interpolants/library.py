r"""Named paths, each with its source: alpha and sigma at t, with noise at t = 0 and data at t = 1.

Sources that count time from the data write tau = 1 - t, as the docstrings do. Of several equal forms of an expression,
the one written here has no cancellation that can be avoided: sigma^2 is a product where 1 - alpha^2 would lose digits.

Parameters are numbers, and enter exactly: 0.1 is 1/10.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Final

import sympy as sp

from interpolants import effort, enclosure
from interpolants.conditions import positive, undecided
from interpolants.expression import CONSTANTS, ExpressionLike, check_names, exact, t, to_expr
from interpolants.limits import limit
from interpolants.path import Path
from interpolants.pieces import KINKS, derivative, modulus
from interpolants.simplify import is_zero, simplified

MAX_INTEGRAND: Final = 20
"""Operations in a term of from_beta's rate: above, no antiderivative is searched for."""
MAX_CALLS: Final = 30_000_000
"""Most function calls that the integral of a rate may take to become alpha and sigma."""


def linear() -> Path:
    r"""Straight line: alpha = t, sigma = 1 - t.

    The Wronskian is 1. Source: Lipman et al. (2023), arXiv:2210.02747; Liu et al. (2023), arXiv:2209.03003.
    """
    return Path(t, 1 - t, name="linear")


def fm_ot(sigma_min: float) -> Path:
    r"""Straight line to a Gaussian of width sigma_min about the data: alpha = t, sigma = 1 - (1 - sigma_min) t.

    Args:
        sigma_min: sigma at the data end, 0 <= sigma_min <= 1/4; at 0 the path is ``linear()``.

    Raises:
        ValueError: If sigma_min is out of range.

    Source: Lipman et al. (2023), arXiv:2210.02747, the conditional optimal-transport path.
    """
    (low,) = _parameters("fm_ot", "0 <= sigma_min <= 1/4", lambda s: 0 <= s <= sp.Rational(1, 4), sigma_min=sigma_min)
    return Path(t, 1 - (1 - low) * t, name=_name("fm_ot", sigma_min))


def polynomial(n: float) -> Path:
    r"""Powers of time: alpha = t^n, sigma = 1 - t^n; alpha + sigma = 1.

    Args:
        n: Any real number > 0; at 1 the path is ``linear()``.

    Raises:
        ValueError: If n is not positive.

    Source: PolynomialConvexScheduler of flow_matching, Lipman et al. (2024), arXiv:2412.06264.
    """
    (power,) = _parameters("polynomial", "n > 0", lambda n: n > 0, n=n)
    return Path(t**power, 1 - t**power, name=_name("polynomial", n))


def gvp() -> Path:
    r"""Generalized variance-preserving path: alpha = sin(pi t / 2), sigma = cos(pi t / 2).

    alpha^2 + sigma^2 = 1 at all t, and the Wronskian is the constant pi/2, so no conversion from the velocity to
    data or noise is singular. Source: Albergo et al. (2023), arXiv:2303.08797; Ma et al. (2024), arXiv:2401.08740.
    """
    return Path(sp.sin(sp.pi * t / 2), sp.cos(sp.pi * t / 2), name="gvp")


def linear_vp() -> Path:
    r"""Variance-preserving path whose alpha is linear: alpha = t, sigma = sqrt(1 - t^2).

    Source: LinearVPScheduler of flow_matching, Lipman et al. (2024), arXiv:2412.06264.
    """
    return Path(t, sp.sqrt(1 - t**2), name="linear_vp")


def vp(beta_min: float = 0.1, beta_max: float = 20.0) -> Path:
    r"""Variance-preserving diffusion with a noise rate linear in time, beta = beta_min + tau (beta_max - beta_min).

    .. math:: \log \alpha = -\tfrac14 \tau^2 (\beta_{max} - \beta_{min}) - \tfrac12 \tau \beta_{min}, \quad
        \sigma = \sqrt{1 - \alpha^2}, \quad \tau = 1 - t

    Args:
        beta_min, beta_max: The noise rate at the data end and at the noise end, 0 < beta_min <= beta_max.

    Raises:
        ValueError: If the rates are not positive and in order, or too small to reach noise.

    Source: Song et al. (2021), arXiv:2011.13456, equation 32.
    """
    log_alpha = _linear_rate("vp", beta_min, beta_max)
    name = _name("vp", beta_min, beta_max, default=(0.1, 20.0))
    return Path(sp.exp(log_alpha), sp.sqrt(1 - sp.exp(2 * log_alpha)), name=name)


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> Path:
    r"""Diffusion with the alpha of ``vp`` and less noise at all t: sigma = 1 - alpha^2.

    Args:
        beta_min, beta_max: As in ``vp``.

    Raises:
        ValueError: If the rates are not positive and in order, or too small to reach noise.

    Source: Song et al. (2021), arXiv:2011.13456, the sub-VP SDE.
    """
    log_alpha = _linear_rate("sub_vp", beta_min, beta_max)
    name = _name("sub_vp", beta_min, beta_max, default=(0.1, 20.0))
    return Path(sp.exp(log_alpha), 1 - sp.exp(2 * log_alpha), name=name)


def cosine(s: float = 0.008) -> Path:
    r"""The cosine schedule of improved DDPM, in continuous time and without its clipping of beta.

    .. math:: \alpha^2 = \frac{\cos^2\left(\frac{\tau + s}{1 + s} \frac\pi2\right)}
        {\cos^2\left(\frac{s}{1 + s} \frac\pi2\right)}, \quad \tau = 1 - t, \quad \text{that is} \quad
        \alpha = \frac{\sin a t}{\sin a}, \quad
        \sigma = \frac{\sqrt{\sin a (1 - t) \, \sin a (1 + t)}}{\sin a}, \quad a = \frac{\pi}{2 (1 + s)}

    Args:
        s: The offset that keeps the noise rate up next to the data, s >= 0; at 0 the path is ``gvp()``.

    Raises:
        ValueError: If s is negative.

    Source: Nichol and Dhariwal (2021), arXiv:2102.09672, equation 17.
    """
    (offset,) = _parameters("cosine", "s >= 0", lambda s: s >= 0, s=s)
    if offset == 0:
        return Path(*(c.expr for c in (gvp().alpha, gvp().sigma)), name=_name("cosine", s))
    a = sp.pi / (2 * (1 + offset))
    sigma = sp.sqrt(sp.sin(a * (1 - t)) * sp.sin(a * (1 + t))) / sp.sin(a)
    return Path(sp.sin(a * t) / sp.sin(a), sigma, name=_name("cosine", s, default=(0.008,)))


def sigmoid(start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Path:
    r"""Variance-preserving path whose alpha^2 is a piece of a logistic curve S(z) = 1 / (1 + exp(-z)).

    .. math:: \alpha^2 = \frac{S(end / \tau) - S(z)}{S(end / \tau) - S(start / \tau)}, \quad
        z = \frac{end - t \, (end - start)}{\tau}

    Args:
        start, end: Where the curve is cut at the data end and at the noise end, start < end.
        tau: Temperature > 0; small ones make the curve steep. Here, as in the source, it is not a time.

    Raises:
        ValueError: If start < end or tau > 0 does not hold.

    Source: Jabri et al. (2022), arXiv:2212.11972; Chen (2023), arXiv:2301.10972.
    """
    first, last, temperature = _parameters(
        "sigmoid", "start < end and tau > 0", lambda s, e, tau: s < e and tau > 0, start=start, end=end, tau=tau
    )
    # With y = exp(-width (1 - t)) both are rational in y: S(z) - S(start / tau) is proportional to (1 - y) / (y + low).
    width, low = (last - first) / temperature, sp.exp(first / temperature)
    y, y_at_noise = sp.exp(-width * (1 - t)), sp.exp(-width)
    # A root for each factor, so that at the ends they cancel.
    bottom = sp.sqrt(1 - y_at_noise) * sp.sqrt(y + low)
    alpha = sp.sqrt(1 + low) * sp.sqrt(y - y_at_noise) / bottom
    sigma = sp.sqrt(y_at_noise + low) * sp.sqrt(1 - y) / bottom
    return Path(alpha, sigma, name=_name("sigmoid", start, end, tau, default=(-3.0, 3.0, 1.0)))


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> Path:
    r"""Variance-exploding diffusion, sigma in geometric progression.

    .. math:: \alpha = 1, \quad \sigma = \sigma_{max} (\sigma_{min} / \sigma_{max})^t

    Args:
        sigma_min, sigma_max: sigma at the data end and at the noise end, data units, 0 < sigma_min <= 1/4 and
            sigma_max >= 4.

    Raises:
        ValueError: If a width is out of range.

    Source: Song et al. (2021), arXiv:2011.13456, the VE SDE.
    """
    low, high = _widths("ve", sigma_min, sigma_max)
    return Path(1, high * sp.exp(-t * sp.log(high / low)), name=_name("ve", sigma_min, sigma_max, default=(0.01, 50.0)))


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Path:
    r"""Variance-exploding path on which equal steps of time are the noise levels of EDM: alpha = 1 and

    .. math:: \sigma = \left(\sigma_{max}^{1/\rho} + t \, (\sigma_{min}^{1/\rho} - \sigma_{max}^{1/\rho})\right)^\rho

    Args:
        sigma_min, sigma_max: sigma at the data end and at the noise end, data units, 0 < sigma_min <= 1/4 and
            sigma_max >= 4.
        rho: Exponent > 0; large ones put more of the time at little noise.

    Raises:
        ValueError: If a width or rho is out of range.

    Source: Karras et al. (2022), arXiv:2206.00364, equation 5.
    """
    low, high = _widths("edm", sigma_min, sigma_max)
    (power,) = _parameters("edm", "rho > 0", lambda rho: rho > 0, rho=rho)
    root = (low / high) ** (1 / power)
    name = _name("edm", sigma_min, sigma_max, rho, default=(0.002, 80.0, 7.0))
    return Path(1, high * (1 - t * (1 - root)) ** power, name=name)


def from_beta(beta: ExpressionLike) -> Path:
    r"""The variance-preserving diffusion dX = -beta/2 X dtau + sqrt(beta) dW, from data to noise, with any noise rate.

    .. math:: \alpha = \exp\left(-\tfrac12 \int_t^1 \beta(s) \, ds\right), \quad \sigma = \sqrt{1 - \alpha^2}

    Args:
        beta: The rate at time t, per unit of time, positive on (0, 1): text, sympy in ``interpolants.t`` or a number.
            In this time the linear rate of ``vp()`` is "20 - 19.9*t".

    Raises:
        ValueError: If beta is not positive on (0, 1), its integral up to the data is infinite or has no closed form
            that is found, or the noise end is not reached.

    Source: Song et al. (2021), arXiv:2011.13456, the VP SDE.
    """
    rate = to_expr(beta, where="beta")
    try:
        with effort.bounded(MAX_CALLS):  # of a sum of dozens of powers sympy asks at length what sign each has
            undecided("from_beta", [positive(f"beta = {rate}", rate)])  # the path is asked the same, and tells
            log_alpha = -_integral_to_data(rate) / 2
            alpha, sigma = sp.exp(log_alpha), sp.sqrt(1 - sp.exp(2 * log_alpha))
    except effort.EffortError as error:
        raise ValueError(f"from_beta: beta must be of fewer terms, got {rate}: {error}.") from None
    return Path(alpha, sigma, name=f"from_beta({rate})")


def from_log_snr(log_snr: ExpressionLike) -> Path:
    r"""The variance-preserving path with a given log-SNR: with S(z) = 1 / (1 + exp(-z)) the logistic curve,

    .. math:: \alpha^2 = S(\log SNR), \quad \sigma^2 = S(-\log SNR)

    Args:
        log_snr: log(alpha^2 / sigma^2), increasing on (0, 1), where it must be finite; at the ends it may be infinite.
            Text, sympy in ``interpolants.t`` or a number. "-2*log(tan(pi*(1-t)/2))" is ``gvp()``.

    Raises:
        ValueError: If the log-SNR does not increase, or the ends are not noise and data.

    Source: Kingma et al. (2021), arXiv:2107.00630; the example, Hoogeboom et al. (2023), arXiv:2301.11093.
    """
    half = to_expr(log_snr, where="log_snr") / 2
    # alpha / sigma = exp(half) = (p / q) exp(r): the logarithms make p and q, which may vanish at an end. Their
    # quotient is never formed, so that nothing is infinite there.
    p, q, r = sp.Integer(1), sp.Integer(1), sp.Integer(0)
    for term in sp.Add.make_args(sp.expand_mul(half, deep=False)):
        factor, function = term.as_independent(t, as_Add=False)
        if function.func is not sp.log:
            r += term
            continue
        top, bottom = sp.fraction(sp.together(_without_tangents(function.args[0])))
        p, q = (p * top**factor, q * bottom**factor) if factor > 0 else (p * bottom**-factor, q * top**-factor)
    p, q = (factor.replace(sp.Abs, modulus) for factor in (p, q))
    of_alpha, of_sigma = p**2 + q**2 * sp.exp(-2 * r), q**2 + p**2 * sp.exp(2 * r)
    if r == 0 and not of_alpha.has(*KINKS):  # of these the normal form has pieces, which no path is stated by
        of_alpha = of_sigma = simplified(of_alpha)
    return Path(p / sp.sqrt(of_alpha), q / sp.sqrt(of_sigma), name=f"from_log_snr({2 * half})")


LIBRARY: Final[dict[str, Callable[[], Path]]] = {
    path.__name__: path for path in (linear, gvp, linear_vp, vp, sub_vp, cosine, sigmoid, ve, edm)
}
"""The paths that need no arguments."""

_WITH_ARGUMENTS = (polynomial, fm_ot, from_beta, from_log_snr)


def by_name(name: str) -> Path:
    """The path of the library with that name, with its default parameters.

    Raises:
        ValueError: If there is none; lists the names.
    """
    if name in LIBRARY:
        return LIBRARY[name]()
    near = difflib.get_close_matches(str(name), LIBRARY, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if name in (path.__name__ for path in _WITH_ARGUMENTS):
        hint = f" {name} needs arguments: call interpolants.{name}."
    raise ValueError(f"path: must be one of {', '.join(LIBRARY)}, got {name!r}.{hint}")


def from_texts(alpha: str, sigma: str | None, parameters: Mapping[str, float], where: str = "parameters") -> Path:
    """The path that two texts state, or that of the library whose name is ``alpha`` alone, as a person types them.

    Args:
        alpha: alpha(t), or a name.
        sigma: sigma(t); None with a name.
        parameters: Numbers for the other names in the two.
        where: What the message of an error calls the parameters.

    Raises:
        ValueError: If they state none; says why.
    """
    if sigma is None and (alpha in {str(t), *CONSTANTS} or not alpha.isidentifier()):
        raise ValueError(f"sigma: must be given after alpha = {alpha!r}, such as 1-t.")
    if sigma is not None and alpha in LIBRARY:
        raise ValueError(f"sigma: must be left out with alpha = {alpha!r}, the name of a path, got {sigma!r}.")
    if sigma is None and parameters:
        raise ValueError(f"{where}: must not be given with a path of the library, got {', '.join(parameters)}.")
    check_names(parameters, where)
    return by_name(alpha) if sigma is None else Path(alpha, sigma, name=None, **parameters)


def parameter(text: str, where: str = "parameters") -> tuple[str, float]:
    """The name and the number of a text such as p=2.

    Raises:
        ValueError: If it is none; ``where`` opens the message.
    """
    name, _, number = text.partition("=")
    try:
        return name.strip(), float(number)
    except ValueError:
        raise ValueError(f"{where}: must be NAME=NUMBER, such as p=2, got {text!r}.") from None


def _parameters(where: str, contract: str, holds: Callable[..., bool], **values: float) -> tuple[sp.Rational, ...]:
    """The parameters as exact numbers, which must be finite and fulfil the contract."""
    got = ", ".join(f"{name}={value!r}" for name, value in values.items())
    message = f"{where}: must have {contract}, got {got}."
    for value in values.values():
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{message} Pass numbers.")
    if not (all(map(math.isfinite, values.values())) and holds(*map(exact, values.values()))):
        raise ValueError(message)
    return tuple(map(exact, values.values()))


def _linear_rate(where: str, beta_min: float, beta_max: float) -> sp.Expr:
    """log alpha where the noise rate is linear in time."""
    contract = "0 < beta_min <= beta_max"
    low, high = _parameters(where, contract, lambda low, high: 0 < low <= high, beta_min=beta_min, beta_max=beta_max)
    return -((1 - t) ** 2) * (high - low) / 4 - (1 - t) * low / 2


def _widths(where: str, sigma_min: float, sigma_max: float) -> tuple[sp.Rational, ...]:
    return _parameters(
        where,
        "0 < sigma_min <= 1/4 and sigma_max >= 4",
        lambda low, high: 0 < 4 * low <= 1 and high >= 4,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
    )


def _name(path: str, *values: float, default: tuple[float, ...] | None = None) -> str:
    return path if values == default else f"{path}({', '.join(f'{float(value):.15g}' for value in values)})"


def _integral_to_data(rate: sp.Expr) -> sp.Expr:
    """The integral of ``rate`` from t to 1, in powers of 1 - t where it is a polynomial."""
    integral = sum((_antiderivative(term, rate) for term in sp.Add.make_args(sp.expand(rate))), sp.Integer(0))
    at_data = limit(integral, 1)
    if at_data.is_infinite:
        raise ValueError(f"from_beta: beta must have a finite integral up to t = 1, the data, got {rate}.")
    if not integral.is_polynomial(t):
        return at_data - integral
    in_tau = sp.Poly(at_data - integral.subs(t, 1 - t), t)
    return sum((c * (1 - t) ** k for (k,), c in in_tau.terms()), sp.Integer(0))


def _antiderivative(term: sp.Expr, rate: sp.Expr) -> sp.Expr:
    refusal = ValueError(
        f"from_beta: beta must have an antiderivative that is found in closed form, none was for {term} in {rate}. "
        "If you know the path, state it as Path(alpha, sigma)."
    )
    if not _is_searched_soon(term):
        raise refusal
    # Imported here: they take as long to import as the rest of this package.
    from sympy.integrals.manualintegrate import manualintegrate
    from sympy.integrals.rationaltools import ratint

    integral = ratint(term, t) if term.is_rational_function(t) else manualintegrate(term, t)
    # log |x|, whose derivative is that of log x, is real on either side of 0.
    integral = integral.replace(sp.log, lambda x: sp.log(modulus(x)))
    try:
        integral = to_expr(integral)
    except ValueError:
        raise refusal from None
    if not _integrates(integral, term):
        raise refusal
    return integral


def _is_searched_soon(term: sp.Expr) -> bool:
    """Whether the search for an antiderivative takes a second or so: it may take minutes, and find none."""
    if term.is_rational_function(t):
        _, factors = sp.factor_list(sp.fraction(sp.together(term))[1], t)
        return all(sp.degree(factor, t) <= 2 for factor, _ in factors)
    nested = any(f.args[0].has(sp.Function) for f in term.atoms(sp.Function))
    functions = [f for f in term.atoms(sp.Function, sp.Pow) if f.has(t) and not (f.is_Pow and f.exp.is_Integer)]
    return not nested and len(functions) <= 2 and sp.count_ops(term) <= MAX_INTEGRAND


def _without_tangents(expr: sp.Expr) -> sp.Expr:
    """Sines over cosines, since a tangent has a pole where neither has."""
    expr = expr.replace(sp.tan, lambda x: sp.sin(sp.expand(x)) / sp.cos(sp.expand(x)))
    return expr.replace(sp.cot, lambda x: sp.cos(sp.expand(x)) / sp.sin(sp.expand(x)))


def _integrates(integral: sp.Expr, term: sp.Expr) -> bool:
    """Whether the integral is proved to be one of ``term`` on (0, 1).

    An antiderivative from a table may jump. One that is finite at all times does not: of the functions that text knows,
    none jumps where it is finite.
    """
    return is_zero(derivative(integral) - term) and enclosure.is_finite(integral)
