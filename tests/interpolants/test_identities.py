"""The ledger: the library proves, a planted fault fails, and what is not proved is bounded and says so."""

import math

import pytest
import sympy as sp

import interpolants as ip
from interpolants import identities
from interpolants.coefficient import Coefficient
from interpolants.dynamics import Dynamics, ForwardSDE
from interpolants.library import LIBRARY

t = ip.t
OF = {name: of for name, _, of in identities.IDENTITIES}


def entry(name, path):
    statement = next(s for n, s, _ in identities.IDENTITIES if n == name)
    return identities._entry(name, statement, list(OF[name](path)))


@pytest.mark.parametrize("name", LIBRARY)
def test_the_library_proves(name):
    ledger = ip.prove(LIBRARY[name]())
    assert {e.status for e in ledger.entries} == {"proved"}, str(ledger)
    assert len(ledger.entries) == len(OF) == 31
    assert ledger.ok


@pytest.mark.parametrize(("alpha", "sigma"), [("t**0.8", "(1-t)**1.5"), ("log(1+t)/log(2)", "1-log(1+t)/log(2)")])
def test_users_paths_prove(alpha, sigma):
    ledger = ip.prove(ip.Path(alpha, sigma))
    assert ledger.ok, str(ledger)
    assert sum(e.status == "proved" for e in ledger.entries) >= 27, str(ledger)


# Planted faults. Each key of a path's derived coefficients, and the identities that must notice a fault in it.

PAIRS = [(s, g) for s in ip.QUANTITIES for g in ip.QUANTITIES if s != g]
NOTICE = {
    "d_alpha": ["derivatives"],
    "d_sigma": ["derivatives"],
    "wronskian": ["Wronskian", "derivative of the Wronskian", "time reversal", "change of time"],
    "log_snr": ["log-SNR", "derivative of the log-SNR", "time reversal"],
    **{("row", quantity): ["targets"] for quantity in ip.QUANTITIES},
    **{("ode", prediction): ["probability-flow ODE", "continuity equation"] for prediction in ip.QUANTITIES},
    **{
        ("conversion", s, g): [f"conversions from the {s}", "conversions invert each other", "conversions compose"]
        for s, g in PAIRS
    },
}
NOTICE["conversion", "velocity", "score"] += ["score from velocity", "drift of the SDE, each named w", "time reversal"]
NOTICE["conversion", "score", "velocity"] += ["velocity from score", "Fokker-Planck equation, any w"]
NOTICE["conversion", "score", "data"] += ["Tweedie's formula"]
NOTICE["conversion", "score", "noise"] += ["Tweedie's formula", "loss weights", "loss in another space"]
NOTICE["conversion", "velocity", "data"] += ["data and noise from velocity"]
NOTICE["conversion", "velocity", "noise"] += ["data and noise from velocity"]


def derived(path, key):
    if isinstance(key, str):
        return getattr(path, key)
    kind, *names = key
    return getattr(path, kind)(*names)


FAULTS = {"sign": lambda e: -e, "factor": lambda e: 2 * e, "term": lambda e: e + t / 3}


def planted(key, fault, component):
    """A path with one derived coefficient changed."""
    path = ip.Path("t**2", "1-t")
    found = derived(path, key)
    if isinstance(found, Coefficient):
        path._derived[key] = Coefficient(fault(found.expr))
    elif isinstance(found, Dynamics):
        pair = [found.a, found.b]
        pair[component] = Coefficient(fault(pair[component].expr))
        path._derived[key] = Dynamics(*pair, found.w, found.amplitude, found.name)
    else:
        pair = [c.expr for c in found]
        pair[component] = fault(pair[component])
        path._derived[key] = tuple(map(Coefficient, pair))
    return path


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("key", NOTICE, ids=str)
def test_a_planted_fault_in_a_derived_coefficient_fails_its_identities(key, fault):
    for component in (0, 1):
        path, whole = planted(key, FAULTS[fault], component), planted(key, lambda e: e, component)
        if repr(derived(path, key)) == repr(derived(whole, key)):
            continue  # minus or twice zero
        for name in NOTICE[key]:
            if name in ("loss weights", "loss in another space") and (component == 0 or fault == "sign"):
                continue  # these are of b alone, the first of its square
            found = entry(name, path)
            assert found.status == "failed", f"{key}[{component}], {fault}: {name} says {found.status}"
            assert "at t = " in found.counterexample


METHOD_FAULTS = {
    "forward f": ("forward_sde", lambda s: ForwardSDE(Coefficient(-s.f.expr), s.g_squared), ["forward SDE"]),
    "forward g^2": (
        "forward_sde", lambda s: ForwardSDE(s.f, Coefficient(s.g_squared.expr / 2)),
        ["forward SDE", "reversal of the forward SDE"],
    ),
    "sde a": (
        "sde", lambda s: Dynamics(Coefficient(-s.a.expr), s.b, s.w, s.amplitude, s.name),
        ["drift of the SDE, each named w", "reversal of the forward SDE"],
    ),
    "sde b": (
        "sde", lambda s: Dynamics(s.a, Coefficient(2 * s.b.expr), s.w, s.amplitude, s.name),
        ["drift of the SDE, each named w", "reversal of the forward SDE"],
    ),
    "sde w": (
        "sde", lambda s: Dynamics(s.a, s.b, Coefficient(2 * s.w.expr), s.amplitude, s.name),
        ["drift of the SDE, each named w", "named w", "reversal of the forward SDE"],
    ),
    "loss weight": ("loss_weight", lambda c: Coefficient(2 * c.expr), ["loss weights", "loss weights by hand"]),
    "error terms": (
        "error_terms", lambda c: (c[0], Coefficient(c[1].expr + 1), c[2]), ["loss in another space"],
    ),
    "noise of the error": (
        "error_terms", lambda c: (c[0], c[1], Coefficient(c[2].expr * t)), ["loss in another space"],
    ),
    "weight": ("weight", lambda c: Coefficient(-c.expr), ["likelihood weight", "EDM and sigmoid weights"]),
    "time": ("in_paper_time", lambda p: ip.linear(), ["time reversal"]),
    "composition": ("after", lambda p: ip.linear(), ["change of time"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", METHOD_FAULTS)
def test_a_planted_fault_in_a_derivation_fails_its_identities(fault, monkeypatch):
    method, change, names = METHOD_FAULTS[fault]
    original = getattr(ip.Path, method)
    monkeypatch.setattr(ip.Path, method, lambda self, *a, **k: change(original(self, *a, **k)))
    for name in names:
        assert entry(name, ip.linear()).status == "failed", name


def test_an_amplitude_that_is_no_root_fails(monkeypatch):
    sde = ip.linear().sde("velocity", "sigma")
    sde.amplitude = Coefficient(2 * sde.amplitude.expr)
    monkeypatch.setattr(ip.Path, "sde", lambda *a, **k: sde)
    assert entry("diffusion is the root of w", ip.linear()).status == "failed"


def test_a_failed_entry_makes_the_ledger_fail_and_says_where():
    path = planted("wronskian", FAULTS["factor"], 0)
    ledger = ip.prove(path)
    assert not ledger.ok
    found = ledger["Wronskian"]
    assert found.status == "failed"
    assert found.counterexample == "2*t*(2 - t) is not t**2 + 2*t*(1 - t) at t = 3/97: 0.121798 and 0.0608991"
    assert found.bound is None
    assert "Wronskian                       failed: 2*t*(2 - t) is not t**2" in str(ledger)
    assert str(ledger).startswith("(t**2, 1 - t): 27 proved, 4 failed\n")
    assert r"\text{Wronskian} & W = \dot\alpha\sigma - \alpha\dot\sigma & \text{failed}" in ledger.latex()


def test_what_has_no_normal_form_is_bounded_and_never_called_proved(monkeypatch):
    monkeypatch.setattr(identities, "is_zero", lambda expr: expr == 0)
    left, right = (1 + sp.sin(t)) ** 2, 1 + 2 * sp.sin(t) + sp.sin(t) ** 2
    found = identities._entry("square", "s", [(left, right), (t, t)])
    assert found.status == "bounded"
    assert 0 < found.bound < 1e-11
    assert found.equations == 2
    ledger = identities.Ledger("p", (found,))
    assert ledger.ok
    assert str(ledger).splitlines()[0] == "p: 1 bounded"
    assert f"square  bounded < {found.bound:.1e} on [1/16, 15/16]" in str(ledger)
    assert r"\text{bounded}\ < " in ledger.latex()
    # Equal at every probe to 40 digits, and yet not bounded within the tolerance: it is not let through.
    bump = sp.Rational(1, 10**5) * sp.prod([(t - p) ** 2 for p in identities._PROBES]) * 10**16
    assert identities._entry("bump", "s", [(bump, sp.Integer(0))]).status == "undecided"
    assert "bounded by" in identities._entry("bump", "s", [(bump, sp.Integer(0))]).reason
    unknown = sp.Function("f")(t) * sp.prod([(t - p) for p in identities._PROBES])
    monkeypatch.setattr(identities, "_counterexample", lambda left, right, is_proved, shared: None)
    assert "could not be bounded" in identities._entry("f", "s", [(unknown, sp.Integer(0))]).reason


def test_a_ledger_is_a_table_and_latex():
    ledger = identities.Ledger(
        "name", (identities.Entry("first", "a", "proved", 1), identities.Entry("second", "b", "proved", 2))
    )
    assert str(ledger) == "name: 2 proved\n  first   proved\n  second  proved"
    assert ledger.latex() == (
        "\\begin{array}{lll}\n\\text{first} & a & \\text{proved} \\\\\n"
        "\\text{second} & b & \\text{proved}\n\\end{array}"
    )
    assert ledger._repr_latex_() == f"$\\displaystyle {ledger.latex()}$"
    assert ledger["second"].equations == 2


@pytest.mark.parametrize("digits", [38, 45, 400])
def test_two_sides_that_agree_to_many_digits_are_told_apart_from_equal_ones(digits):
    close = sp.Integer(1) + sp.Rational(1, 10**digits)
    assert identities._counterexample(close * t, t) is not None
    assert identities._counterexample(sp.sin(t) ** 2, 1 - sp.cos(t) ** 2) is None
    assert identities._counterexample(sp.exp(-(10**digits)) * t, sp.Integer(0)) is not None
    assert math.isclose(float(identities.LOW + identities.HIGH), 1.0)


def test_what_has_no_ledger_is_refused_and_a_kink_is_decided_by_pieces():
    with pytest.raises(TypeError, match="prove: path must be a Path, got TwoSided"):
        ip.prove(ip.two_sided.linear())
    kinked = ip.Path("19*t/20+sqrt((t-1/2)**2)/10", "1-t")
    found = entry("derivative of the Wronskian", kinked)
    assert found.status == "proved"
