"""The formulas of the theory pages cannot be wrong: a fault in the engine stops the page that would show it."""

import importlib
import sys
from pathlib import Path

import pytest
import sympy as sp

import interpolants as ip
from interpolants import composition, diffusion, dynamics, quantities, weights
from interpolants.identities import IDENTITIES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def formulas(monkeypatch):
    """docs/formulas.py, imported anew, so that nothing is remembered from before a fault."""
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.delitem(sys.modules, "formulas", raising=False)
    yield importlib.import_module("formulas")
    sys.modules.pop("formulas", None)
    for remembered in (composition._written, composition._named):  # that of a fault, for the tests after it
        remembered.cache_clear()


def test_every_identity_is_proved_for_every_path(formulas):
    """For alpha and sigma without values: this is what "proved for every path" on the pages says."""
    for name, _, _ in IDENTITIES:
        formulas.require(name)


@pytest.mark.parametrize(
    "show",
    [
        lambda f: f.rows(), lambda f: f.conversions(), lambda f: f.sde("velocity"), lambda f: f.sde("data"),
        lambda f: f.named_w(), lambda f: f.loss_weights(), lambda f: f.named_weights(), lambda f: f.exponential_step(),
        lambda f: f.statements("Wronskian"), lambda f: f.conversions_from_velocity(ip.gvp()),
    ],
)  # fmt: skip
def test_what_is_shown_names_its_proof(formulas, show):
    assert "{.proved}" in show(formulas).text


def test_formulas_are_those_of_the_literature(formulas):
    """As the paper and Tweedie write them."""
    assert formulas.affine(*(c.expr for c in formulas.ANY.conversion("score", "data")), "score") == (
        r"\frac{1}{\alpha} \, x_t + \frac{\sigma^{2}}{\alpha} \, s"
    )
    assert formulas.affine(*(c.expr for c in formulas.ANY.conversion("velocity", "score")), "velocity") == (
        r"- \frac{\dot{\alpha}}{W \sigma} \, x_t + \frac{\alpha}{W \sigma} \, v"
    )
    assert sp.latex(formulas.in_symbols(formulas.ANY.forward_sde()[1].expr)) == r"\frac{2 W \sigma}{\alpha}"


@pytest.mark.parametrize("quantity", ["velocity", "score", "data"])
def test_letters_stand_for_what_is_derived(formulas, quantity):
    """What is shown, with the functions put back in the place of their letters, is the derived expression."""
    time = ip.t
    alpha, sigma = sp.sin(sp.pi * time / 2), 1 - time**2
    letters = {
        "alpha": alpha, "sigma": sigma, r"\dot{\alpha}": sp.diff(alpha, time), r"\dot{\sigma}": sp.diff(sigma, time),
        "W": sp.diff(alpha, time) * sigma - alpha * sp.diff(sigma, time),
    }  # fmt: skip
    for found, expected in zip(
        formulas.ANY.conversion(quantity, "noise"), ip.Path(alpha, sigma).conversion(quantity, "noise"), strict=True
    ):
        shown = formulas.in_symbols(found.expr)
        value = shown.subs({symbol: letters[symbol.name] for symbol in shown.free_symbols}).subs(
            time, sp.Rational(1, 3)
        )
        assert abs(sp.N(value - expected.expr.subs(time, sp.Rational(1, 3)), 20)) < 1e-15


def _flipped(of):
    """The function with the sign of the second of its results flipped."""

    def faulty(*arguments, **named):
        first, second, *rest = of(*arguments, **named)
        return (first, -second, *rest)

    return faulty


def _doubled(of):
    def faulty(*arguments, **named):
        result = of(*arguments, **named)
        return tuple(2 * expr for expr in result) if isinstance(result, tuple) else 2 * result

    return faulty


@pytest.mark.parametrize(
    ("module", "name", "fault", "show"),
    [
        (quantities, "conversion", _flipped, lambda f: f.conversions()),
        (quantities, "row", _flipped, lambda f: f.rows()),
        (quantities, "wronskian", _doubled, lambda f: f.statements("Wronskian")),
        (dynamics, "linear_drift", _flipped, lambda f: f.sde("velocity")),
        (dynamics, "linear_drift", _flipped, lambda f: f.exponential_step()),
        (dynamics, "forward_terms", _flipped, lambda f: f.equations(("g^2", "x"), by="forward SDE")),
        (dynamics, "forward_terms", _flipped, lambda f: f.exponential_step()),
        (weights, "loss_weight", _doubled, lambda f: f.loss_weights()),
        (weights, "error_terms", _flipped, lambda f: f.statements("loss in another space")),
        (diffusion.Diffusion, "expr", _doubled, lambda f: f.named_w()),
        (weights.LossWeight, "expr", _doubled, lambda f: f.named_weights()),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)  # fmt: skip
def test_a_fault_in_the_engine_stops_the_page(formulas, monkeypatch, module, name, fault, show):
    monkeypatch.setattr(module, name, fault(getattr(module, name)))
    with pytest.raises(ArithmeticError):
        show(formulas)
