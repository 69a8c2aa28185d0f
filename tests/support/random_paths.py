"""Random texts of paths, and of what is nearly one: ``draw(seed)`` is a case, with what is known of it by construction.

The words of the grammar are rises: texts in x that lead from 0 at x = 0 to 1 at x = 1 and increase between them. Rises
of rises, products and mixtures of rises are rises, and alpha = a rise, sigma = 1 - a rise is a path, since

    W = alpha' sigma - alpha sigma' > 0.

So are the other shapes below, each by a line of calculus. A fault (a dip below zero, a log-SNR that falls, a pole) is
put where no grid of a thousand times would see it; the case says where to look.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from many_digits import UndecidedError, jet_function
from mpmath import mpf, workdps

MAX_TEXT = 400
"""Characters; a text of a path may have 500."""
NAMES = ("p", "k", "rate")
"""Of parameters."""


@dataclass(frozen=True)
class Feature:
    """Something narrow where the increasing text ``inner`` is ``level``; ``width`` is its width in ``inner``.

    ``is_bump`` says that it goes on as exp(-(distance / width)^2), never 0.
    """

    inner: str
    level: float
    width: float
    is_bump: bool = False

    def is_lost(self, end: int) -> bool:
        """Whether that is too small at an end for any number that is looked at, though not 0."""
        return self.is_bump and ((end - self.level) / self.width) ** 2 > 200


@dataclass(frozen=True)
class Case:
    """What one seed draws.

    Attributes:
        seed: Of ``draw``.
        shape: The name of its shape or fault.
        alpha, sigma, parameters: For ``Path(alpha, sigma, **parameters)``.
        claim: Whether it is a path, by construction; None if only evaluation can tell.
        features: Where to look, in the time of alpha and sigma.
        time_map, map_parameters: For ``path.after(time_map, **map_parameters)``, or None.
        map_features: Where to look, in the time of the composition.
        w, w_claim, w_features: Text of a squared noise amplitude in the time of the composition, whether it is finite
            and not negative, and where to look; None without one.
    """

    seed: int
    shape: str
    alpha: str
    sigma: str
    parameters: dict[str, float]
    claim: bool | None
    features: tuple[Feature, ...] = ()
    time_map: str | None = None
    map_parameters: dict[str, float] = field(default_factory=dict)
    map_features: tuple[Feature, ...] = ()
    w: str | None = None
    w_claim: bool | None = None
    w_features: tuple[Feature, ...] = ()

    def __str__(self) -> str:
        text = f"Path({_arguments((self.alpha, self.sigma), self.parameters)})"
        if self.time_map is not None:
            text += f".after({_arguments((self.time_map,), self.map_parameters)})"
        return text + (f" with w = {self.w!r}" if self.w is not None else "")


def _arguments(texts: tuple[str, ...], parameters: Mapping[str, float]) -> str:
    return ", ".join([*map(repr, texts), *(f"{name}={value!r}" for name, value in parameters.items())])


class Grammar:
    """Draws texts; remembers their parameters, at most ``most_parameters``, and where they are narrow."""

    def __init__(self, rng: random.Random, most_parameters: int = 3) -> None:
        self.rng = rng
        self.most_parameters = most_parameters
        self.parameters: dict[str, float] = {}
        self.features: list[Feature] = []

    def number(self, low: float, high: float) -> str:
        """Three digits, of a number that is spread evenly, or in its logarithm where the range is wide."""
        wide = low > 0 and high / low > 20
        value = low * (high / low) ** self.rng.random() if wide else self.rng.uniform(low, high)
        return f"{value:.3g}"

    def constant(self, low: float, high: float) -> str:
        """A number, or the name of a parameter that has it."""
        digits = self.number(low, high)
        if self.rng.random() < 0.12 and len(self.parameters) < self.most_parameters:
            name = NAMES[len(self.parameters)]
            self.parameters[name] = float(digits)
            return name
        return digits

    def value(self, constant: str) -> float:
        """The number of a constant."""
        return self.parameters.get(constant) or float(constant)

    def near(self, inner: str, level: float, width: float, is_bump: bool = False) -> None:
        """Remember a narrow place."""
        self.features.append(Feature(inner, level, width, is_bump))

    # Rises

    def rise(self, depth: int, x: str = "t") -> str:
        """The text of a rise in x, with rises nested up to ``depth`` times."""
        kind = self.rng.random()
        if depth == 0 or kind < 0.45:
            return self.rng.choice(RISES if self.rng.random() < 0.96 else RARE_RISES)(self, x)
        if kind < 0.65:
            return self.rng.choice(SHORT_RISES)(self, f"({self.rise(depth - 1, x)})")
        if kind < 0.8:
            return f"({self.rise(depth - 1, x)})*({self.rise(depth - 1, x)})"
        if kind < 0.9:
            share = self.constant(0.1, 0.9)
            return f"{share}*({self.rise(depth - 1, x)})+(1-{share})*({self.rise(depth - 1, x)})"
        return f"1-({self.fall(depth - 1, x)})" if kind < 0.95 else f"({self.rise(depth - 1, x)})**{self.power()}"

    def fall(self, depth: int, x: str = "t") -> str:
        """The text of 1 - a rise, or of a rise in 1 - x."""
        if self.rng.random() < 0.5:
            return f"1-({self.rise(depth, x)})"
        backwards = Grammar(self.rng, self.most_parameters)
        backwards.parameters = self.parameters
        text = backwards.rise(depth, f"(1-{x})")
        mirrored = [Feature(f"1-({f.inner})", 1 - f.level, f.width, f.is_bump) for f in backwards.features]
        self.features += mirrored
        return text

    def power(self) -> str:
        return self.rng.choice(["2", "3", "0.5", "0.7", "1.5", "(7/3)", "(1/3)", "0.25", "5", "8", "2.718", "1.01"])

    def between(self) -> str:
        """A place well inside (0, 1)."""
        return self.rng.choice(["0.5", "0.25", self.number(0.1, 0.9), self.number(0.3, 0.7)])


RiseRule = Callable[[Grammar, str], str]


def _of_constant(form: str, low: float, high: float) -> RiseRule:
    return lambda g, x: form.format(x=x, k=g.constant(low, high))


def _power(g: Grammar, x: str) -> str:
    return f"{x}**{g.power()}"


def _exponential(g: Grammar, x: str) -> str:
    k = g.constant(0.01, 500)
    g.near(x, 1 / g.value(k), 1 / g.value(k))
    return f"(1-exp(-{k}*{x}))/(1-exp(-{k}))"


def _steep_tanh(g: Grammar, x: str) -> str:
    k = g.constant(1, 200)
    g.near(x, 1 / g.value(k), 1 / g.value(k))
    return f"tanh({k}*{x})/tanh({k})"


def _sigmoid(g: Grammar, x: str) -> str:
    k = g.constant(1, 80)
    g.near(x, 0.5, 1 / g.value(k))
    return f"(sigmoid({k}*({x}-0.5))-sigmoid(-{k}/2))/(sigmoid({k}/2)-sigmoid(-{k}/2))"


def _shift(g: Grammar, x: str) -> str:
    s = g.constant(1e-4, 1e4)
    g.near(x, g.value(s) / (1 + g.value(s)), g.value(s) / (1 + g.value(s)) ** 2)
    return f"{x}/({x}+{s}*(1-{x}))"


def _kink(g: Grammar, x: str) -> str:
    """Slope 1 - k before c, 1 + k after it."""
    k, c = g.number(0.1, 0.9), g.between()
    g.near(x, float(c), 1e-6)
    return f"({x}+{k}*sqrt(({x}-{c})**2)-{k}*{c})/(1+{k}-2*{k}*{c})"


def bump(height: float, c: str, K: str, x: str = "t") -> str:
    """A bump of x (1 - x), so that both ends stay, whose steepest slope is about -``height`` at its far side.

    Where the bump is narrow: the slope of A exp(-K (x - c)^2) is at most A sqrt(2 K / e).
    """
    place, steepness = float(c), float(K)
    amplitude = height / (2 * steepness / 2.718281828) ** 0.5 / (place * (1 - place))
    return f"{amplitude:.6g}*{x}*(1-{x})*exp(-{K}*({x}-{c})**2)"


def _bumpy(g: Grammar, x: str) -> str:
    c, K = g.number(0.2, 0.8), g.number(1e3, 1e7)
    g.near(x, float(c), float(K) ** -0.5, is_bump=True)
    return f"{x}+{bump(g.rng.uniform(0.2, 0.6), c, K, x)}"


RISES: list[RiseRule] = [
    lambda g, x: x,
    _power,
    _power,
    _power,
    _of_constant("{x}*(1+{k}*(1-{x}))", 0.05, 0.95),
    _of_constant("{x}*(1-{k}*(1-{x}))", 0.05, 0.95),
    lambda g, x: f"{x}**2*(3-2*{x})",
    lambda g, x: f"{x}**3*(10-15*{x}+6*{x}**2)",
    lambda g, x: f"{x}**4*(35-84*{x}+70*{x}**2-20*{x}**3)",
    lambda g, x: f"sin(pi*{x}/2)",
    lambda g, x: f"1-cos(pi*{x}/2)",
    lambda g, x: f"sin(pi*{x}/2)**2",
    lambda g, x: f"tan(pi*{x}/4)",
    _of_constant("{x}+{k}*sin(4*pi*{x})/(4*pi)", 0.1, 0.9),
    _exponential,
    _of_constant("(exp({k}*{x})-1)/(exp({k})-1)", 1e-3, 20),
    _of_constant("sinh({k}*{x})/sinh({k})", 1e-2, 20),
    _of_constant("(cosh({k}*{x})-1)/(cosh({k})-1)", 0.1, 20),
    _of_constant("log(1+{k}*{x})/log(1+{k})", 1e-4, 1e8),
    _steep_tanh,
    _steep_tanh,
    _sigmoid,
    _of_constant("atan({k}*{x})/atan({k})", 0.1, 300),
    lambda g, x: f"2*asin({x})/pi",
    lambda g, x: f"1-2*acos({x})/pi",
    lambda g, x: f"2*acos(1-{x})/pi",
    lambda g, x: f"1-sqrt(1-{x}**{g.rng.choice('1234')})",
    lambda g, x: f"sqrt(1-(1-{x})**{g.rng.choice('234')})",
    lambda g, x: f"sqrt({x}*(2-{x}))",
    _of_constant("sqrt((1-exp(-{k}*{x}))/(1-exp(-{k})))", 0.1, 40),
    _shift,
    lambda g, x: f"{x}**3/({x}**3+(1-{x})**3)",
    lambda g, x: f"exp(1-1/{x})",
    lambda g, x: f"{x}**(2-{x})",
    lambda g, x: f"2**{x}-1",
    _kink,
    _kink,
    _bumpy,
]
RARE_RISES: list[RiseRule] = [
    lambda g, x: f"exp(1-1/{x}**2)",
    lambda g, x: f"exp(exp(1)-exp(1/{x}))",
    lambda g, x: f"1/(1-log({x}))",
]
"""Whose ends are no powers."""
SHORT_RISES: list[RiseRule] = [
    _power,
    _power,
    lambda g, x: f"sin(pi*{x}/2)",
    lambda g, x: f"1-cos(pi*{x}/2)",
    _of_constant("(exp({k}*{x})-1)/(exp({k})-1)", 1e-3, 20),
    _exponential,
    _of_constant("log(1+{k}*{x})/log(1+{k})", 1e-4, 1e8),
    _steep_tanh,
    _sigmoid,
    _of_constant("atan({k}*{x})/atan({k})", 0.1, 300),
    lambda g, x: f"2*asin({x})/pi",
    lambda g, x: f"1-sqrt(1-{x}**2)",
    lambda g, x: f"{x}**2*(3-2*{x})",
    lambda g, x: f"exp(1-1/{x})",
    _shift,
]
"""In few copies of x, which may be long."""


# Shapes of paths: texts of alpha and sigma, and whether they are a path

Shape = Callable[[Grammar], tuple[str, str, bool | None]]


def _scaled(g: Grammar, text: str) -> str:
    if g.rng.random() < 0.75:
        return text
    return f"{g.constant(1e-8, 1e8)}*({text})"


def rise_and_fall(g: Grammar) -> tuple[str, str, bool]:
    return _scaled(g, g.rise(2)), _scaled(g, g.fall(2)), True


def rise_and_its_rest(g: Grammar) -> tuple[str, str, bool]:
    rise = g.rise(2)
    return rise, f"1-({rise})", True


def angle(g: Grammar) -> tuple[str, str, bool]:
    rise = g.rise(1)
    return f"sin(pi*({rise})/2)", f"cos(pi*({rise})/2)", True


def variance_preserving(g: Grammar) -> tuple[str, str, bool]:
    """alpha from exp(-K) to 1; sigma / alpha there is above 4 for K > 1.42."""
    exponent = f"{g.constant(1.5, 30)}*({g.fall(1)})"
    alpha, square = f"exp(-{exponent})", f"exp(-2*{exponent})"
    return alpha, g.rng.choice([f"sqrt(1-{square})", f"1-{square}"]), True


def circle(g: Grammar) -> tuple[str, str, bool]:
    rise = g.rise(1)
    power = g.rng.choice([("2", "0.5"), ("3", "(1/3)"), ("1.5", "(2/3)"), ("4", "0.25")])
    if g.rng.random() < 0.5:
        return rise, f"(1-({rise})**{power[0]})**{power[1]}", True
    fall = g.fall(1)
    return f"(1-({fall})**{power[0]})**{power[1]}", fall, True


def variance_exploding(g: Grammar) -> tuple[str, str, bool]:
    high, low = g.constant(4.1, 500), g.constant(1e-6, 0.24)
    rise = g.rise(1)
    sigma = g.rng.choice([f"{high}*({low}/{high})**({rise})", f"{low}+({high}-{low})*(1-({rise}))"])
    return "1", sigma, True


def finite_ends(g: Grammar) -> tuple[str, str, bool]:
    a, s = g.constant(0.001, 0.24), g.constant(0.001, 0.24)
    return f"{a}+(1-{a})*({g.rise(1)})", f"1-(1-{s})*({g.rise(1)})", True


def by_log_snr(g: Grammar) -> tuple[str, str, bool]:
    """alpha^2 + sigma^2 = 1 with a given log-SNR; at a finite end it must be 2 log 4 or more."""
    if g.rng.random() < 0.5:
        low, high = g.constant(2.8, 30), g.constant(2.8, 30)
        level = f"({low}+{high})*({g.rise(1)})-{low}"
    else:
        rise = g.rise(1)
        level = f"{g.constant(0.3, 3)}*log(({rise})/(1-({rise})))"
    return f"sqrt(sigmoid({level}))", f"sqrt(sigmoid(-({level})))", True


def common_factor(g: Grammar) -> tuple[str, str, bool]:
    """A positive factor of both leaves alpha / sigma alone, however it winds: W is multiplied by its square."""
    factors = [
        f"(1+0.9*sin({g.number(2, 40)}*t))",
        f"exp(-{g.number(0.1, 8)}*t*(1-t))",
        f"sqrt(1+{g.number(0.1, 1e4)}*(t-{g.between()})**2)",
        f"(0.3+t**{g.power()})",
        f"(2-({g.rise(0)}))",
    ]
    factor = g.rng.choice(factors)
    if g.rng.random() < 0.3:
        c, K = g.number(0.1, 0.9), g.number(50, 1e6)
        g.near("t", float(c), float(K) ** -0.5, is_bump=True)
        factor = f"(1+{g.number(0.1, 20)}*exp(-{K}*(t-{c})**2))"
    return f"{factor}*({g.rise(1)})", f"{factor}*({g.fall(1)})", True


def free(g: Grammar) -> tuple[str, str, None]:
    """A rise and a fall with waves added, of which evaluation must tell."""
    n, m = g.rng.choice("123"), g.rng.choice("246")
    wave = f"{g.number(0.02, 0.6)}*sin({n}*pi*t)"
    other = f"{g.number(0.01, 0.2)}*sin({m}*pi*t)*t"
    alpha, sigma = g.rise(1), g.fall(1)
    texts = [(f"{alpha}+{wave}", sigma), (alpha, f"{sigma}+{other}"), (f"({alpha})*(1+{other})", sigma)]
    return *g.rng.choice(texts), None


SHAPES: list[tuple[int, Shape]] = [
    (30, rise_and_fall), (12, rise_and_its_rest), (6, angle), (8, variance_preserving), (8, circle),
    (5, variance_exploding), (6, finite_ends), (7, by_log_snr), (10, common_factor), (8, free),
]  # fmt: skip


# Faults: nearly a path


def _value_at(g: Grammar, text: str, time: str) -> float:
    with workdps(40):
        return float(jet_function(text, g.parameters)((mpf(time), mpf(1)))[0])


def narrow_dip(g: Grammar) -> tuple[str, str, bool]:
    """alpha or sigma is below zero at c, and not far from it: no path, nor is it where the dip stops short of zero,
    for the log-SNR then falls beside it.
    """
    c, K = g.number(0.1, 0.9), g.number(1e3, 9e8)
    g.near("t", float(c), float(K) ** -0.5)
    alpha, sigma = g.rise(1), g.fall(0)
    depth = g.rng.uniform(0.9, 2.0)

    def dip(text: str) -> str:
        return f"{text}-{depth * _value_at(g, text, c):.6g}*exp(-{K}*(t-{c})**2)"

    return (dip(alpha), sigma, False) if g.rng.random() < 0.3 else (alpha, dip(sigma), False)


def falling_bump(g: Grammar) -> tuple[str, str, bool]:
    """The log-SNR is a function of t + a bump, which falls beside c."""
    c, K = g.number(0.2, 0.8), g.number(1e3, 9e8)
    g.near("t", float(c), float(K) ** -0.5)
    time = f"t+{bump(g.rng.choice([1.5, 3, 20]), c, K)}"
    return g.rng.choice([(time, f"1-({time})", False), (f"sin(pi*({time})/2)", f"cos(pi*({time})/2)", False)])


def pole_inside(g: Grammar) -> tuple[str, str, bool]:
    c = g.number(0.1, 0.9)
    alpha, sigma, size = g.rise(0), g.fall(0), g.number(1e-9, 1e-2)
    g.near("t", float(c), float(size) / 10)
    distance = f"(t-{c})"
    pole = g.rng.choice([f"/{distance}**2", f"/{distance}", f"/sqrt({distance}**2)", f"*log({distance}**2)"])
    pole = f"{size}{pole}"
    return g.rng.choice([(f"{alpha}+{pole}", sigma, False), (alpha, f"{sigma}+{pole}", False)])


def not_real(g: Grammar) -> tuple[str, str, bool]:
    c = float(g.number(0.1, 0.9))
    alpha, sigma = g.rise(0), g.fall(0)
    g.near("t", c, 1e-3)
    return g.rng.choice([
        (alpha, f"sqrt(1-t/{c})", False), (f"log(t-{c})", sigma, False), (f"asin(t/{c})", sigma, False),
        (f"(t-{c})**0.7", sigma, False), (alpha, f"acos(t/{c})", False), (f"tan(pi*t/{2 * c:.6g})", sigma, False),
    ])  # fmt: skip


def wrong_end(g: Grammar) -> tuple[str, str, bool]:
    rise, fall, high = g.rise(1), g.fall(1), g.number(0.3, 0.9)
    return g.rng.choice([
        (fall, rise, False), (f"{high}+(1-{high})*({rise})", fall, False), (rise, f"1-(1-{high})*({g.rise(1)})", False),
        (rise, "1/t-1", False), ("t*(1-t)", "(1-t)**2", False), ("t**2", "t*(1-t)", False), (f"({rise})/2", "1", False),
        ("1", fall, False), ("1/(1-t)", "1-t", False),
    ])  # fmt: skip


def kink_that_turns(g: Grammar) -> tuple[str, str, bool]:
    """The slope before c is 1 - k < 0, or 0 where k = 1: alpha stands still there."""
    c, k = g.number(0.1, 0.9), g.rng.choice(["1", g.number(1.05, 3)])
    g.near("t", float(c), 0.01)
    time = f"(t+{k}*sqrt((t-{c})**2)-{k}*{c})/(1+{k}-2*{k}*{c})"
    return time, f"1-{time}", False


def wrong_next_to_an_end(g: Grammar) -> tuple[str, str, bool]:
    """alpha or sigma is below zero next to an end only."""
    width = g.number(1e-9, 1e-3)
    g.near("t", float(width) / 2, float(width) / 8)
    g.near("t", 1 - float(width) / 2, float(width) / 8)
    return g.rng.choice([
        (f"t*(t-{width})", "1-t", False), ("t", f"(1-t)*(1-{width}-t)", False), (f"t**2-{width}*t", g.fall(0), False),
        ("t", f"1-t-{width}*t", False),
    ])  # fmt: skip


FAULTS: list[Shape] = [
    narrow_dip, narrow_dip, falling_bump, falling_bump, pole_inside, not_real, wrong_end, kink_that_turns,
    wrong_next_to_an_end,
]  # fmt: skip


# Changes of time, and w


def _time_map(g: Grammar) -> tuple[str, bool]:
    """A map from 0 to 1, and whether it increases."""
    if g.rng.random() < 0.85:
        return g.rise(1), True
    c, K = g.number(0.2, 0.8), g.number(1e3, 1e8)
    g.near("t", float(c), float(K) ** -0.5)
    return g.rng.choice([f"t+{bump(3, c, K)}", "t/2", "1-t", "t+0.4*sin(2*pi*t)", f"{g.rise(0)}+0.1*t"]), False


def _noise(g: Grammar) -> tuple[str, bool]:
    """A text for w, and whether it is finite and not negative."""
    c, K = g.number(0.1, 0.9), g.number(1e3, 1e8)
    if g.rng.random() < 0.75:
        return g.rng.choice([
            f"{g.number(0.01, 100)}*t*(1-t)", f"{g.number(0.1, 9)}*sin(pi*t)**2", f"exp(-{g.number(0.1, 50)}*t)",
            f"2*({g.fall(0)})", f"{g.number(0.1, 9)}*(1-t)**{g.power()}", f"t**{g.power()}*(1-t)", g.number(1e-6, 1e6),
            f"1+exp(-{K}*(t-{c})**2)", f"(t-{c})**2", "0",
        ]), True  # fmt: skip
    g.near("t", float(c), float(K) ** -0.5)
    return g.rng.choice([
        f"1-1.001*exp(-{K}*(t-{c})**2)", f"t-{c}", f"1/(t-{c})", "sin(3*pi*t)", f"1-t/{c}", f"sqrt({c}-t)",
    ]), False  # fmt: skip


def draw(seed: int) -> Case:
    """The case of a seed."""
    rng = random.Random(seed)
    while True:
        try:
            case = _draw(seed, rng)
        except UndecidedError:  # the depth of a dip below a function whose value is not known
            continue
        if max(map(len, (case.alpha, case.sigma, case.time_map or ""))) <= MAX_TEXT:
            return case


def _draw(seed: int, rng: random.Random) -> Case:
    g = Grammar(rng)
    weights, shapes = zip(*SHAPES, strict=True)
    shape = rng.choice(FAULTS) if rng.random() < 0.2 else rng.choices(shapes, weights)[0]
    alpha, sigma, claim = shape(g)
    case = Case(seed, shape.__name__, alpha, sigma, _used(g.parameters, alpha, sigma), claim, _spelled(g))
    changes = {}
    if rng.random() < 0.2:
        m = Grammar(rng)
        text, increases = _time_map(m)
        changes |= {"time_map": text, "map_parameters": _used(m.parameters, text), "map_features": _spelled(m)}
        changes["claim"] = claim if increases else False
    if rng.random() < 0.3:
        noise = Grammar(rng, most_parameters=0)
        text, valid = _noise(noise)
        changes |= {"w": text, "w_claim": valid, "w_features": tuple(noise.features)}
    return replace(case, **changes)


def _used(parameters: Mapping[str, float], *texts: str) -> dict[str, float]:
    return {n: value for n, value in parameters.items() if any(re.search(rf"\b{n}\b", text) for text in texts)}


def _spelled(g: Grammar) -> tuple[Feature, ...]:
    """The features, with numbers in place of parameters."""

    def spell(text: str) -> str:
        return re.sub(r"\b(" + "|".join(NAMES) + r")\b", lambda name: repr(g.parameters[name[0]]), text)

    return tuple(replace(feature, inner=spell(feature.inner)) for feature in g.features)
