"""What simplification gives equals what it got, at 30 digits; what it finds to be zero is zero; in bounded time."""

import mpmath
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from interpolants import simplify
from interpolants.effort import bounded
from interpolants.expression import t, to_expr
from interpolants.simplify import addition_theorem, is_wave, is_zero, phase, simplified

TIMES = ("0.0371", "0.17", "0.3003", "0.55", "0.71", "0.93")
R = sp.Rational
ROOTS = [R(1, 2), R(1, 3), R(-1, 2), R(3, 2), R(2, 3)]
ARGUMENTS = [
    t, 1 - t, -t, 2 * t, t / 3, sp.pi * t / 2, sp.pi * t, 3 * sp.pi * t, sp.sqrt(2) * t, 3 * t - 1,
    sp.pi * (1 - t) / 2, t + R(1, 2), sp.pi * t / 2 + R(1, 3),
]  # fmt: skip
LEAVES = [t, 1 - t, t + 1, 2 * t - 1, t - R(1, 2), R(1, 3), R(-2), R(3), sp.pi, sp.sqrt(2)]
FUNCTIONS = [sp.exp, sp.sin, sp.cos, sp.tan, sp.tanh, sp.log, sp.sqrt]


def grown(inner):
    return st.one_of(
        st.builds(lambda a, b: a + b, inner, inner),
        st.builds(lambda a, b: a - b, inner, inner),
        st.builds(lambda a, b: a * b, inner, inner),
        st.builds(lambda a, b: a / b, inner, inner),
        st.builds(lambda a, k: a**k, inner, st.sampled_from([2, 3, -1, -2, *ROOTS])),
    )


leaves = st.one_of(
    st.sampled_from(LEAVES), st.builds(lambda f, u: f(u), st.sampled_from(FUNCTIONS), st.sampled_from(ARGUMENTS))
)
expressions = st.recursive(leaves, grown, max_leaves=5).filter(lambda e: not e.has(sp.zoo, sp.nan, sp.oo, sp.I))


def exact(expr, at):
    """By sympy's own printer: a number where the expression is real and finite, else None."""
    with mpmath.workdps(50):
        try:
            value = sp.lambdify(t, expr, "mpmath")(mpmath.mpf(at))
        except (ZeroDivisionError, ValueError):
            return None
        return None if mpmath.im(value) or not mpmath.isfinite(value) else mpmath.re(value)


def assert_equal(got, expr, times=TIMES):
    for at in times:
        want = exact(expr, at)
        if want is not None:
            value = exact(got, at)
            assert value is not None, f"{expr} became {got}, which is no number at {at}"
            assert abs(value - want) <= mpmath.mpf(10) ** -30 * max(1, abs(want)), f"{expr} became {got}, at {at}"


@settings(max_examples=60)
@given(expr=expressions)
def test_a_simplified_expression_has_the_same_values(expr):
    assert_equal(simplified(expr), expr)


@settings(max_examples=40)
@given(expr=expressions)
def test_what_is_found_to_be_zero_is_zero(expr):
    if is_zero(expr):
        assert all(abs(value) < mpmath.mpf(10) ** -40 for at in TIMES if (value := exact(expr, at)) is not None)


u = st.sampled_from(ARGUMENTS)
v = st.sampled_from(LEAVES[:5])


@given(x=u, y=u, a=v, b=v)
def test_what_is_rewritten_by_hand_differs_by_zero(x, y, a, b):
    zero = [
        sp.sin(2 * x) - 2 * sp.sin(x) * sp.cos(x),
        sp.cos(2 * x) - 1 + 2 * sp.sin(x) ** 2,
        sp.tan(x) * sp.cos(x) - sp.sin(x),
        sp.sin(sp.Add(x, y)) - sp.sin(x) * sp.cos(y) - sp.cos(x) * sp.sin(y),
        sp.exp(sp.Add(x, y)) - sp.exp(x) * sp.exp(y),
        sp.tanh(x) - (sp.exp(2 * x) - 1) / (sp.exp(2 * x) + 1),
        (a + b) ** 3 - sp.expand((a + b) ** 3),
        sp.sqrt(2 + x) * sp.sqrt(3 - t) - sp.sqrt(2 + x) * (3 - t) / sp.sqrt(3 - t) if x == t else sp.Integer(0),
        1 / (1 + t) + 1 / (2 + t) - (3 + 2 * t) / ((1 + t) * (2 + t)),
        sp.sqrt(1 - t**2) - sp.sqrt(1 - t) * sp.sqrt(1 + t),
        (sp.sqrt(1 + t) - 1) * (sp.sqrt(1 + t) + 1) - t,
        (1 + (1 + t) ** R(1, 3)) ** 3 - 3 * (1 + t) ** R(1, 3) - 3 * (1 + t) ** R(2, 3) - 2 - t,
    ]
    for expr in zero:
        assert is_zero(expr), expr
        assert is_zero(expr + R(1, 10**9)) is False, expr
        assert not is_zero(expr - t**7), expr


W = sp.sqrt(2) * t
"""An angle that is no rational multiple of t."""
NOUGHT = sp.sin(t) ** 2 + sp.cos(t) ** 2 - 1
"""Zero, which sympy does not see by itself."""
LOGARITHMS = sp.prod([sp.log(t + k) for k in range(1, 17)])
LARGE_PRODUCT = 2 + sp.sin(15 * t) * sp.sin(16 * t)


@pytest.mark.parametrize(
    ("expr", "result"),
    [
        (sp.sin(sp.pi * t / 2) ** 2 + sp.cos(sp.pi * t / 2) ** 2, 1),
        ((t**2 - 1) / (t - 1), t + 1),
        ((1 - sp.exp(2 * t)) / (1 + sp.exp(t)), 1 - sp.exp(t)),
        (sp.sqrt(t) * sp.sqrt(t**3), t**2),
        (sp.sqrt(1 - t**2) / sp.sqrt(1 - t), sp.sqrt(1 + t)),
        (sp.Abs(t - 2), 2 - t),
        (sp.Abs(1 + t) * sp.sign(t - 2), -t - 1),
        (sp.cos(t) * sp.tan(t), sp.sin(t)),
        (sp.cosh(t) + sp.sinh(t), sp.exp(t)),
        (2 ** R(1, 2) * 8 ** R(1, 2) * t, 4 * t),
        (sp.Piecewise((t**2 / t, t <= R(1, 2)), (t + t, True)), sp.Piecewise((t, t <= R(1, 2)), (2 * t, True))),
        (sp.Integer(0), 0),
        (t + 1 / t, (t**2 + 1) / t),
        (sp.log((t**2 - 1) / (t - 1)), sp.log(t + 1)),
        ((t**2 - 1) / (t - 1) * sp.asin(t), (t + 1) * sp.asin(t)),
        ((t**2 - 1) / (t - 1) * sp.exp(t) * sp.cos(t) * LOGARITHMS, (t + 1) * sp.exp(t) * sp.cos(t) * LOGARITHMS),
        ((t**2 - 1) / (t - 1) * LARGE_PRODUCT, (t + 1) * LARGE_PRODUCT),
        ((t + 1) ** 70 * (t + 2) + t * NOUGHT, (t + 1) ** 70 * (t + 2)),
        (t * NOUGHT + sp.exp(t) * NOUGHT, 0),
        (1 / NOUGHT, 1 / NOUGHT),
    ],
)
def test_normal_forms_known_by_hand(expr, result):
    assert simplified(expr) == result


@pytest.mark.parametrize(
    ("expr", "result"),
    [
        (t**2 + t, t * (t + 1)),
        (t - t**2, t * (1 - t)),
        (t**3 + t - 2, t**3 + t - 2),
        ((1 - sp.exp(t)) * (1 + sp.exp(t)), 1 - sp.exp(2 * t)),
        ((1 - 2 * sp.cos(t)) * (1 + 2 * sp.cos(t)), 1 - 4 * sp.cos(t) ** 2),
        ((1 - 2 * sp.cos(t)) * (1 + 2 * sp.cos(t)) * sp.cos(W), (1 - 4 * sp.cos(t) ** 2) * sp.cos(W)),
        ((1 + 2 * sp.cos(t)) * (2 + 3 * sp.cos(t)), (1 + 2 * sp.cos(t)) * (2 + 3 * sp.cos(t))),
        (sp.cos(t) - sp.cos(W), sp.cos(t) - sp.cos(W)),
        (sp.sin(t) * sp.sin(W), sp.sin(t) * sp.sin(W)),
    ],
    ids=str,
)
def test_a_product_is_written_out_only_where_that_makes_it_no_longer(expr, result):
    assert simplified(expr) == result


@pytest.mark.parametrize(
    ("expr", "result"),
    [
        (sp.sin(t) * sp.csc(t), 1),
        (sp.cos(t) * sp.sec(t), 1),
        (sp.sin(t) * sp.cot(t), sp.cos(t)),
        (sp.cosh(t) * sp.sech(t), 1),
        (sp.sin(t) / (1 + sp.cos(t)), sp.tan(t / 2)),
        (sp.sin(t) / (1 + sp.cos(t)) ** 2, sp.tan(t / 2) / (2 * sp.cos(t / 2) ** 2)),
        (sp.sin(t) * (1 + sp.cos(t)), 2 * sp.sin(t) * sp.cos(t / 2) ** 2),
        (sp.sin(t) * (1 - sp.cos(t)), 2 * sp.sin(t) * sp.sin(t / 2) ** 2),
        (1 / (sp.sin(t) * (1 + sp.cos(t))), 1 / (2 * sp.sin(t) * sp.cos(t / 2) ** 2)),
        (1 + sp.cos(t), 2 * sp.cos(t / 2) ** 2),
        (sp.sqrt(1 + sp.cos(t)), sp.sqrt(2) * sp.cos(t / 2)),
        (sp.sqrt(1 + sp.sin(t)), sp.sin(t / 2) + sp.cos(t / 2)),
        (1 / sp.sqrt(1 - sp.cos(t)), 1 / (sp.sqrt(2) * sp.sin(t / 2))),
        (sp.sin(t / 2) ** 3 * sp.cos(t / 2), sp.sin(t / 2) ** 3 * sp.cos(t / 2)),
        ((sp.sin(t) * sp.cos(t)) ** R(3, 2), sp.sin(t) ** R(3, 2) * sp.cos(t) ** R(3, 2)),
        (sp.sin(t) ** 2 / sp.cos(t), sp.sin(t) * sp.tan(t)),
        (sp.sin(t) / sp.cos(t) ** 2, sp.tan(t) / sp.cos(t)),
        (sp.cos(t) / sp.sin(t), 1 / sp.tan(t)),
        (sp.cos(t) ** 2 / sp.sin(t), sp.cos(t) / sp.tan(t)),
        (sp.sqrt(sp.sin(t)) / sp.sqrt(sp.cos(t)), sp.sqrt(sp.tan(t))),
        (sp.sin(3 * t) / sp.sin(t), 4 * sp.cos(t) ** 2 - 1),
        ((2 + sp.cos(t) ** 9) * (1 - sp.cos(t) ** 2) / sp.sin(t) ** 2, 2 + sp.cos(t) ** 9),
        (sp.sin(t) * sp.cos(W) + sp.cos(t) * sp.sin(W), sp.sin(t + W)),
        (sp.sin(sp.pi * (1 - t) / 2), sp.cos(sp.pi * t / 2)),
        (sp.tan(sp.pi * (1 - t) / 2) * sp.tan(sp.pi * t / 2), 1),
        (sp.sin(3 * t - 2) / sp.cos(3 * t - 2), sp.tan(3 * t - 2)),
        (sp.sin(sp.pi * (t - R(5, 2))) + sp.cos(sp.pi * t), 0),
        (sp.sin(sp.pi * (t - R(5, 2))), -sp.cos(sp.pi * t)),
        (sp.sin(sp.pi * (1 - t) / 2 + sp.pi * t / 2), 1),
        (sp.exp(t * (1 - t) - t + t**2), 1),
        ((sp.exp(2 * t + 2 * sp.pi) - 1) / (sp.exp(t + sp.pi) - 1), sp.exp(t + sp.pi) + 1),
        (sp.sin(2 * t + 1) - 2 * sp.sin(t + R(1, 2)) * sp.cos(t + R(1, 2)), 0),
        (sp.exp(16 * t) - 1 - (sp.exp(t) - 1) * sum(sp.exp(k * t) for k in range(16)), 0),
        (sp.tanh(1 - t) * sp.cosh(1 - t) - sp.sinh(1 - t), 0),
        (sp.sin(sp.pi * t + sp.pi / 4) ** 2 + sp.cos(sp.pi * t + sp.pi / 4) ** 2, 1),
        ((4**t - 1) / (2**t + 1), sp.exp(t * sp.log(2)) - 1),
        ((sp.exp(t) - 1) / (sp.exp(t / 3) - 1), sp.exp(2 * t / 3) + sp.exp(t / 3) + 1),
        ((sp.exp(2 * t + 2 * W) - 1) / (sp.exp(t + W) - 1), sp.exp(t + W) + 1),
        ((sp.exp(2 * t + 2 * W) - sp.exp(2 * t)) / (sp.exp(t + W) - sp.exp(t)), (sp.exp(W) + 1) * sp.exp(t)),
        (sp.E**2 * t + sp.E * t, sp.E * t * (1 + sp.E)),
    ],
    ids=str,
)
def test_functions_are_related_and_written_in_the_fewest(expr, result):
    assert simplified(expr) == result


ROOT = sp.sqrt(1 + t)


@pytest.mark.parametrize(
    ("expr", "result"),
    [
        (sp.sqrt(4 * t + 4), 2 * ROOT),
        (sp.sqrt(t / 4 + R(1, 4)), ROOT / 2),
        (sp.sqrt(12 * t + 12), 2 * sp.sqrt(3) * ROOT),
        (1 / sp.sqrt(12 * t + 12), sp.sqrt(3) / (6 * ROOT)),
        ((27 * t + 27) ** R(2, 3), 9 * (t + 1) ** R(2, 3)),
        ((8 * t / 27 + R(8, 27)) ** R(-1, 3), 3 / (2 * (t + 1) ** R(1, 3))),
        ((2 * sp.sqrt(2) * t + 2 * sp.sqrt(2)) ** R(1, 3), sp.sqrt(2) * (t + 1) ** R(1, 3)),
        ((t * (2 * t - 1) ** 3 / (8 * t**3 - 12 * t**2 + 6 * t - 1)) ** R(1, 3), t ** R(1, 3)),
        (t * (1 + ROOT) + ROOT - t, (1 + t) ** R(3, 2)),
        ((ROOT - 1) * (ROOT + 1), t),
        ((ROOT + sp.sqrt(2 + t)) ** 2 - 2 * ROOT * sp.sqrt(2 + t), 2 * t + 3),
        ((1 + (1 + t) ** R(1, 3)) ** 2 - (1 + t) ** R(2, 3) - 1, 2 * (1 + t) ** R(1, 3)),
        (sp.sqrt(t**2 - 4 * t + 4), 2 - t),
        (sp.sqrt(1 + sp.cos(2 * t)), sp.sqrt(2) * sp.cos(t)),
        (((1 + sp.cos(t + 4)) ** 3) ** R(1, 3), 2 * sp.cos(t / 2 + 2) ** 2),
        (sp.sqrt(sp.expand((t + 1) * (t + 2) ** 2)) * (sp.sin(t + 4) ** 2 + sp.cos(t + 4) ** 2), (t + 2) * ROOT),
        (sp.sqrt(NOUGHT), 0),
        (sp.sqrt(-1 - t), sp.sqrt(-1 - t)),
    ],
    ids=str,
)
def test_roots_are_drawn_and_reduced(expr, result):
    assert simplified(expr) == result


NEARLY_ZERO = sp.expand((t - R(1, 3)) ** 2 + R(1, 10**15))
DENSE = 3 + sp.exp(15 * t) + sp.exp(t) - t**40
UNCLEAR = sp.exp(15 * t) + sp.exp(t) - t**40 - 20
UNKNOWN = UNCLEAR.subs(sp.exp(t), sp.Function("f")(t))


@pytest.mark.parametrize(
    ("expr", "result"),
    [
        (sp.Abs(1 - t / 2), 1 - t / 2),
        (sp.sign(1 - t / 2), 1),
        (sp.sign(t / 2 - 1), -1),
        (sp.Abs(sp.cos(t)), sp.cos(t)),
        (
            sp.Abs(sp.expand((t + 1) * (2 * t - 1))),
            sp.Piecewise(((t + 1) * (1 - 2 * t), t <= R(1, 2)), ((t + 1) * (2 * t - 1), True)),
        ),
        (sp.Abs(NOUGHT), 0),
        (sp.sign(NOUGHT), 0),
        (sp.Abs(NEARLY_ZERO), NEARLY_ZERO),
        (sp.Abs(DENSE), DENSE),
        (UNCLEAR / sp.expand(-2 * t * UNCLEAR), -1 / (2 * t)),
        (UNKNOWN / sp.expand(-UNKNOWN), -1),
    ],
    ids=str,
)
def test_signs_are_proved_before_a_magnitude_is_resolved(expr, result):
    assert simplified(expr) == result


a, b = sp.symbols("a b")


def test_the_addition_theorem():
    assert addition_theorem(sp.sin(a) * sp.cos(b), sp.cos(a) * sp.sin(b)) == sp.sin(a + b)
    assert addition_theorem(3 * t * sp.cos(a) * sp.cos(b), -3 * t * sp.sin(a) * sp.sin(b)) == 3 * t * sp.cos(a + b)
    assert addition_theorem(sp.cos(a) * sp.cos(b), sp.sin(a) * sp.sin(b)) == sp.cos(a - b)
    for no_sum in (
        (sp.sin(a) * sp.cos(b), 2 * sp.cos(a) * sp.sin(b)),
        (sp.sin(a) * sp.cos(b), sp.sin(a)),
        (sp.sin(a) * sp.cos(b) * sp.cos(t), sp.cos(a) * sp.sin(b) * sp.cos(t)),
        (sp.tan(a) * sp.cos(b), sp.cos(a) * sp.tan(b)),
    ):
        assert addition_theorem(*no_sum) is None
    assert is_wave(sp.sin(a), sp.cos(b))
    assert not is_wave(sp.sin(a), sp.tan(b))
    assert phase(sp.cos(a)) == a
    assert phase(sp.sin(a)) == a - sp.pi / 2


NARROW = sp.expand(((t - R(3, 10)) ** 2 - R(2, 10**6)) ** 2)
"""The square of what is negative between 0.2986 and 0.3014 only."""


@pytest.mark.parametrize(
    "expr",
    [
        sp.sqrt(NARROW),
        1 / sp.sqrt(NARROW),
        sp.sqrt((t - R(1, 2)) ** 2),
        sp.sqrt(sp.expand((t - R(1, 2)) ** 2)),
        sp.sqrt(sp.cos(3 * sp.pi * t) ** 2),
        sp.sqrt(1 - sp.sin(3 * sp.pi * t) ** 2),
        (1 - 2 * t) ** R(1, 3),
        (1 - 2 * t) ** R(1, 3) * (1 - 2 * t) ** R(1, 3),
        sp.sqrt((1 - 2 * t) ** 6),
        sp.sqrt((t - 1) * (t - 2)),
        sp.sqrt((t - R(1, 3)) * (t - R(2, 3)) * (t - R(1, 3)) * (t + 1)),
        sp.sqrt(sp.log(t) ** 2),
        sp.sqrt(-sp.log(t)) * sp.sqrt(1 - t),
        sp.sqrt(sp.exp(-2 * t) * (t - 2) ** 2),
        sp.sqrt(sp.sin(2 * sp.pi * t) ** 2 + 1 - 1),
        (-t + 2) ** R(1, 2) / (4 - 2 * t) ** R(1, 3),
        sp.sqrt(sp.expand((t + 1) * (2 * t - 1) ** 2)),
        sp.sqrt(1 + sp.cos(t + 4)),
        sp.sqrt(1 + sp.cos(t + 6)),
        sp.sqrt(1 - sp.cos(t + 7)),
        sp.sqrt(1 + sp.cos(5 * t)),
        sp.sqrt(-sp.sin(t + 4)),
        sp.tan(t + R(7, 2)) ** R(1, 3),
        sp.sqrt(sp.sin(t + R(7, 2)) * sp.cos(t + R(7, 2))),
    ],
    ids=str,
)
def test_roots_stay_on_their_branch(expr):
    assert_equal(simplified(expr), expr, ("0.1", "0.29", "0.3", "0.3001", "0.33", "0.45", "0.5001", "0.6", "0.9"))
    assert not is_zero(expr)


@pytest.mark.parametrize(
    "text",
    [
        "(1-t)**64",
        "(t+1)**60/(t+2)**50 + 1/(t+3)**56",
        "sin(200*t)",
        "+".join(f"exp({k}*t)" for k in range(1, 40)),
        "+".join(f"exp(t/{k})" for k in range(1, 30)),
        "exp(t)+exp(2*t/3)+exp(t/7)+exp(t/11)+exp(t/13)+exp(sqrt(2)*t)+exp(sqrt(3)*t)",
        "1/(" + "+".join(f"sin({k}*t)" for k in range(1, 17)) + ")",
        "*".join(f"sin({k}*t)" for k in range(1, 17)),
        "+".join(f"1/(t+{k})**6" for k in range(1, 35)),
        "1/(" + "+".join(f"sqrt(t+{k})" for k in range(1, 12)) + ")",
        "(1+sin(3*t))**20*(1+cos(5*t))**20+1",
        "tan(t)**16+tan(16*t)",
        "(sqrt(1+sqrt(1+sqrt(1+t)))+1)**12",
        "1/((1+t)**(1/7)+(2+t)**(1/11)+(3+t)**(1/13))**4",
        "sin(16*t+16*sqrt(2)*t+16*sqrt(3)*t)*sin(t)*sin(sqrt(2)*t)*sin(sqrt(3)*t)",
    ],
    ids=lambda text: text[:30],
)
def test_no_text_takes_long(text):
    expr = to_expr(text)
    for form in (expr, sp.diff(expr, t)):
        with bounded(20_000_000):  # a few seconds
            result = simplified(form)
        assert_equal(result, form, TIMES[1:3])


@pytest.mark.parametrize(("limit", "number"), [("MAX_PRODUCTS", 3), ("MAX_TERMS", 3)])
def test_too_large_a_normal_form_is_no_proof_and_leaves_the_expression(limit, number, monkeypatch):
    expr = (t + sp.exp(t)) ** 3 - sp.expand((t + sp.exp(t)) ** 3) + sp.Integer(0) * t
    is_zero.cache_clear()
    assert is_zero(expr)
    monkeypatch.setattr(simplify, limit, number)
    is_zero.cache_clear()
    simplified.cache_clear()
    assert is_zero(expr) is False
    assert simplified(expr) == expr
    is_zero.cache_clear()
    simplified.cache_clear()


def test_roots_of_integers_with_large_prime_factors():
    """sympy factors large integers by its own numbers, which need not be Python's."""
    prime = sp.nextprime(10**12)
    root = simplified(sp.sqrt(prime**2 * sp.nextprime(10**13) * (1 + t)))
    assert sp.N(root.subs(t, sp.Rational(1, 3)) ** 2 / (prime**2 * sp.nextprime(10**13)), 30) == pytest.approx(4 / 3)
