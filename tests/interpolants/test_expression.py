"""Text is parsed by whitelist: what is mathematics comes through unchanged, everything else is refused."""

import time

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from interpolants.expression import parse, t, to_expr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t", t),
        ("1-t", 1 - t),
        ("sin(pi*t/2)", sp.sin(sp.pi * t / 2)),
        ("sqrt(1 - t**2)", sp.sqrt(1 - t**2)),
        ("exp(-0.1*(1-t))", sp.exp(-(1 - t) / 10)),
        ("-t**2 + +3", 3 - t**2),
        ("2**t", 2**t),
        (" t ", t),
    ],
)
def test_mathematics_comes_through(text, expected):
    assert parse(text) == expected


HOSTILE = [
    "__import__('os').system('true')", "t.__class__", "(lambda: 1)()", "[t for t in (1,)]", "9**9**9", "9**999999999",
    "(" * 10_000 + "t" + ")" * 10_000,
    "t\x00", "E1", "\u0442", "t if t else t", "t; t", "",
    "'t'", "f'{t}'", "t[0]", "sin", "sin(t, t)", "sin(x=t)", "sin(*t)", "open(t)", "1e999",
    "True", "1j", "t @ t", "t // 1",
    "t % 1", "~t", "not t", "t < 1", "t and t", "yield", "sqrt(-1)", "1/0", "log(0)", "factorial(10**9)",
    "-" * 499 + "t",
    "10**10", "2**exp(exp(exp(exp(9))))", "((((1/10**64)**64)**64)**64)**64", "exp(exp(exp(exp(9**9))))",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:20].encode("ascii", "replace").decode())
def test_hostile_text_is_refused_at_once(text):
    start = time.process_time()
    with pytest.raises(ValueError, match="alpha"):
        to_expr(text, where="alpha")
    # A hang would be minutes; one second leaves room for a busy machine.
    assert time.process_time() - start < 1.0


@given(st.text(max_size=60) | st.text(alphabet="t01+-*/().**sincoexplgqrt ", max_size=40))
def test_any_text_gives_an_expression_in_t_or_a_value_error(text):
    try:
        expr = parse(text)
    except ValueError:
        return
    assert expr.free_symbols <= {t}


def test_an_error_says_what_and_where_and_what_was_meant():
    with pytest.raises(
        ValueError, match=r"unknown call sinn\(\.\.\.\); did you mean 'sin'\? at column 3 of '1-sinn\(t\)'"
    ):
        parse("1-sinn(t)")


def test_a_caret_is_told_how_a_power_is_written():
    with pytest.raises(ValueError, match=r"BitXor is not allowed; a power is written \*\*"):
        parse("t^2")
    with pytest.raises(ValueError, match=r"'sin\(t' is not an expression: '\(' was never closed\.$"):
        parse("sin(t")


def test_a_symbol_of_ones_own_is_named():
    with pytest.raises(ValueError, match=r"got the symbols \['t'\]\. Use interpolants\.t"):
        to_expr(sp.Symbol("t") ** 2)
    with pytest.raises(ValueError, match=r"\['beta'\]"):
        to_expr(sp.Symbol("beta") * t)
    with pytest.raises(TypeError, match="NoneType"):
        to_expr(None)


def test_powers_do_not_nest_without_bound():
    for text in ("((t+1)**64)**64", "1-((1-t)**64)**8", "sin(" * 8 + "t" + ")" * 8):
        with pytest.raises(ValueError, match="may nest to degree"):
            parse(text)


def test_sympy_beyond_the_whitelist_is_refused():
    for expr in (sp.erf(t), sp.Piecewise((t, t < 1), (1, True)), sp.Max(t, 1 - t), sp.I * t, sp.Function("f")(t)):
        with pytest.raises(ValueError, match="must be real and made of"):
            to_expr(expr)


def test_floats_are_the_decimals_they_print_as():
    assert to_expr(0.1) == sp.Rational(1, 10)
    assert to_expr(0.1 * t) == t / 10
