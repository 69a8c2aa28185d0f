"""Coefficients computed from alpha, sigma, their derivatives and W."""

import itertools
import pickle

import mpmath
import pytest
import sympy as sp
import torch

import interpolants as ip
from interpolants import diffusion, dynamics, nesting, quantities
from interpolants.coefficient import Coefficient
from interpolants.compile import compiled
from interpolants.composition import Made, Slope
from interpolants.quantities import QUANTITIES
from interpolants.simplify import is_zero

t = ip.t
PAIRS = list(itertools.permutations(QUANTITIES, 2))
HARD = [
    ip.Path("0.04+0.96*t**2", "1-0.868*sin(pi*t/2)").after("(atan(240*t)/atan(240))*(1-2*acos(t)/pi)"),
    ip.Path("sqrt(1+3*t)-1", "1-t**0.7"),
    ip.Path("t**2", "cos(pi*t/2)").after("(t+0.8*sqrt((t-0.5)**2)-0.4)"),
    ip.Path("exp(-22*(1-sqrt(1-(1-t)**4)))", "1-exp(-44*(1-sqrt(1-(1-t)**4)))"),
    ip.Path("exp(exp(1)-exp(1/t))", "1-0.874*t-0.126*exp(1-1/t)"),
]


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("name", ["linear", "gvp", "vp", "edm"])
def test_what_is_stated_is_what_is_derived(name, source, target):
    path = getattr(ip, name)()
    for coefficient in path.conversion(source, target):
        assert is_zero(coefficient._made.stated - coefficient.expr)


@pytest.mark.parametrize("w", diffusion.CHOICES)
def test_drifts_too(w):
    sde = ip.Path("t**2", "1-t").sde("velocity", w)
    for coefficient in (sde.a, sde.b, sde.w):
        assert is_zero(coefficient._made.stated - coefficient.expr)


@pytest.mark.parametrize("w", [None, *diffusion.CHOICES])
def test_every_way_to_make_it_is_the_same(w):
    path, time = ip.Path("t**2", "1-t"), sp.Rational(3, 8)
    sde = None if w is None else path.sde("velocity", w)
    derived = [sde.a, sde.b, sde.w, sde.amplitude] if sde else [c for pair in PAIRS for c in path.conversion(*pair)]
    for coefficient in derived:
        for whole, parts in coefficient._made.ways:
            made = whole.xreplace({name: expr for name, expr, _ in parts})
            assert made.subs(t, time).equals(coefficient.expr.subs(t, time))
    assert max(len(coefficient._made.ways) for coefficient in derived) == 3


@pytest.mark.parametrize("path", HARD, ids=range(len(HARD)))
def test_what_is_made_of_accurate_functions_is_accurate(path):
    conversions = [c for pair in PAIRS for c in path.conversion(*pair)]
    drifts = [c for w in ("sigma", "kl_regularized") for c in (path.sde("velocity", w).a, path.sde("velocity", w).b)]
    for coefficient in (*conversions, *drifts):
        assert coefficient.error("float32", 300) <= 1.01
        assert coefficient.error("float64", 300) <= 2e4  # as an exponent of hundreds makes of a rounding of t


def swapped(source, target, alpha, sigma):
    return quantities.conversion(target, source, alpha, sigma)


def test_what_is_not_what_it_is_made_of_is_refused():
    """At a path of which no formula in t is accurate, so that the parts are asked."""
    path = HARD[1]
    a, s = path.alpha.expr, path.sigma.expr
    of_data, _ = quantities.conversion("velocity", "data", a, s)
    assert compiled(of_data, "numpy", Made(quantities.conversion, ("velocity", "data"), a, s)) is not None
    with pytest.raises(ArithmeticError, match="is not what it is made of"):
        compiled(of_data, "numpy", Made(swapped, ("velocity", "data"), a, s))


@pytest.mark.parametrize(
    "function",
    [
        sp.tanh(3 * t) ** 3 * (10 - 15 * sp.tanh(3 * t) + 6 * sp.tanh(3 * t) ** 2),
        (1 - (1 - sp.sin(t)) ** 4) ** sp.Rational(1, 3),
        sp.exp(2 * t) * sp.log(2 + t) * (1 - t**2),
        t**2 + sp.sin(3 * t) - 5,
        sp.exp(1 - 1 / t),
    ],
    ids=range(5),
)
def test_the_rules_of_differentiation(function):
    slope = Slope(function)
    ((whole, parts),) = slope.ways
    meanings = {name: expr for name, expr, _ in parts}
    derivative = sp.diff(function, t)
    for time in (0.1, 0.37, 0.9):
        assert float(whole.xreplace(meanings).subs(t, time)) == pytest.approx(
            float(derivative.subs(t, time)), rel=1e-12
        )


def test_where_no_rule_holds_there_is_no_way():
    assert Slope(t ** (2 - t)).ways == ()


def test_functions_of_functions_are_taken_apart():
    g = sp.sin(t) + t
    assert nesting.nested(3 * g**2 + sp.exp(g)) == (3 * t**2 + sp.exp(t), g)
    assert nesting.nested(sp.sqrt(1 - (1 - t) ** 2)) == (sp.sqrt(t), 1 - (1 - t) ** 2)
    grows = sp.exp(-1 / t)  # of which sympy writes a product with e in two ways
    assert nesting.nested(sp.sin(sp.exp(1 - 1 / t)) + 3 * sp.E * grows) == (sp.sin(sp.E * t) + 3 * sp.E * t, grows)
    for alone in (t, 2 * t + 1, sp.sin(t), sp.sin(3 * t), sp.sin(t) * t, 1 - sp.sin(t)):
        assert nesting.nested(alone) is None


def test_w_is_not_negative_by_its_formula():
    for name in ("sigma", "kl_optimal", "kl_regularized"):
        assert Made(dynamics._noise, (diffusion.choose(name),), t, 1 - t).is_nonnegative
    for text in ("t-1", "1-t", "sin(9*t)"):
        assert not Made(dynamics._noise, (diffusion.choose(text),), t, 1 - t).is_nonnegative


def test_a_coefficient_that_is_stored_is_computed_as_before():
    path = HARD[0]
    times = torch.linspace(0, 1, 101, dtype=torch.float64)
    for coefficient in path.conversion("velocity", "data"):
        again = pickle.loads(pickle.dumps(coefficient))
        assert torch.equal(again(times), coefficient(times))
    assert Coefficient(t)._made is None


def test_kinks_and_their_pieces():
    """The same formula of smooth pieces, on each of which it is accurate."""
    for coefficient in HARD[2].conversion("velocity", "score"):
        assert isinstance(coefficient.expr, sp.Piecewise)
        assert coefficient.error(times=300) <= 16


def test_no_digits_are_taken_for_want_of_better():
    """The plain formula of alpha is constant below 1e-8, and that of sigma is NaN at a few times."""
    odds = "log((1-sqrt(1-t**3))/sqrt(1-t**3))"
    path = ip.Path(f"sqrt(sigmoid(2.95*{odds}))", f"sqrt(sigmoid(-2.95*{odds}))")
    for coefficient in (path.alpha, path.sigma, path.d_alpha):
        assert coefficient.error(times=600) <= 16


def test_the_slope_of_a_function_of_what_is_negative():
    path = ip.Path("1-sqrt(1-t*(2-t))+0.127*sin(pi*t)", "1-t**2").after("1-tanh(99.8*(1-t))/tanh(99.8)")
    with mpmath.workdps(120):
        c = mpmath.mpf("99.8")

        def alpha(time):
            tau = 1 - mpmath.tanh(c * (1 - time)) / mpmath.tanh(c)
            return tau + mpmath.mpf("0.127") * mpmath.sin(mpmath.pi * tau)

        want = [float(mpmath.diff(alpha, mpmath.mpf(time))) for time in (0.03, 0.5, 0.99)]
    got = path.d_alpha(torch.tensor([0.03, 0.5, 0.99], dtype=torch.float64))
    assert got.tolist() == pytest.approx(want, rel=1e-13)
