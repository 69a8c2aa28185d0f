"""Text is parsed by whitelist: what is mathematics comes through unchanged, everything else is refused at once."""

import re
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from interpolants.effort import bounded
from interpolants.expression import ARGUMENTS, FUNCTIONS, check_parameters, exact, exchanged, parse, t, to_expr, written

HALF = sp.Rational(1, 2)
BOUND = r"must be finite, real and at most 1e\+09"


def refused(message):
    """Exactly this message, given as text and not as a pattern."""
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


# What comes through


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t", t), ("1-t", 1 - t), ("t*pi", sp.pi * t), ("2/t", 2 / t), ("-t**2 + +3", 3 - t**2), (" t ", t),
        ("2**t", 2**t),
        ("t**64", t**64), ("t**-64", t**-64), ("(1 - t)*(1 + t)", (1 - t) * (1 + t)), ("t - 1 - t**3", t - 1 - t**3),
        ("sin(pi*t/2)", sp.sin(sp.pi * t / 2)), ("cos(t)", sp.cos(t)), ("tan(t)", sp.tan(t)),
        ("asin(t)", sp.asin(t)), ("acos(t)", sp.acos(t)), ("atan(t)", sp.atan(t)),
        ("sinh(t)", sp.sinh(t)), ("cosh(t)", sp.cosh(t)), ("tanh(t)", sp.tanh(t)),
        ("exp(-0.1*(1-t))", sp.exp(-(1 - t) / 10)), ("log(1+t)", sp.log(1 + t)),
        ("sqrt(1 - t**2)", sp.sqrt(1 - t**2)),
        ("sigmoid(2*t)", 1 / (1 + sp.exp(-2 * t))), ("exp(64*log(t))", t**64), ("exp(1)*t", sp.E * t),
        ("abs(t - 0.5)", sp.Abs(t - HALF)), ("Abs(0.5 - t)", sp.Abs(t - HALF)), ("abs(-t)", t),
        ("sqrt((1-t)**2)", sp.Abs(1 - t)),
        ("Max(t, 1-t)", sp.Max(t, 1 - t)), ("Min(1-t, t, 0.5)", sp.Min(t, 1 - t, HALF)), ("Max(t, -1)", t),
        ("tan(pi/2 - t)", sp.cot(t)), ("cot(t)", sp.cot(t)), ("sec(t)", sp.sec(t)), ("csc(t)", sp.csc(t)),
        ("E*t", sp.E * t),
        ("exp(1000*(t-1))", sp.exp(1000 * t - 1000)), ("sin(65*log(1+t))", sp.sin(65 * sp.log(1 + t))),
        ("1e9", sp.Integer(10) ** 9), ("12.5E-1", sp.Rational(5, 4)), (".5", HALF), ("1.", sp.Integer(1)),
        ("1e-70", sp.Rational(1, 10**70)), ("1e+2", sp.Integer(100)),
        ("0.1000000000000000000000000001", sp.Rational(10**27 + 1, 10**28)),
    ],
)  # fmt: skip
def test_mathematics_comes_through(text, expected):
    assert parse(text) == expected
    assert to_expr(text) == expected
    assert to_expr(expected) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, sp.Rational(1, 10)), (3, sp.Integer(3)), (Fraction(1, 3), sp.Rational(1, 3)),
        (-1e9, -sp.Integer(10**9)),
        (np.float32(0.1), sp.Rational(1, 10)), (np.float64(0.1), sp.Rational(1, 10)), (np.int64(-7), sp.Integer(-7)),
        (sp.Rational(2, 7), sp.Rational(2, 7)), (sp.Float("0.1"), sp.Rational(1, 10)), (10**9, sp.Integer(10**9)),
        (Fraction(1, 2**255), sp.Rational(1, 2**255)),
    ],
)  # fmt: skip
def test_a_number_is_the_rational_that_it_prints_as(value, expected):
    assert exact(value) == to_expr(value) == expected
    assert type(exact(value)) is type(expected)
    assert to_expr("p", parameters={"p": value}) == expected


def test_floats_within_sympy_are_the_decimals_they_print_as():
    assert to_expr(0.1 * t + 0.25) == t / 10 + sp.Rational(1, 4)


class Deceptive(str):
    """Text that lies about itself."""

    __slots__ = ()

    def __len__(self):
        return 1

    def isascii(self):
        return True

    def strip(self, *_):
        return "t"

    def __str__(self):
        return "t"


def test_a_subclass_of_str_is_read_by_its_characters():
    assert parse(Deceptive("1-t")) == 1 - t
    for text in ("\u0430", "t" * 501):
        with pytest.raises(ValueError, match="must be"):
            parse(Deceptive(text))


# What does not

# Beside each group, what its message must say.
HOSTILE = {
    "at most 500 characters, got": ["(" * 10_000 + "t" + ")" * 10_000, "9" * 5000, "t" * 501],
    "printable ASCII without comments": [
        "t\x00", "t\n", "\u0430", "\uff11", "\u03c3", "t\u200b", "\u200bt", "t\u00b2", "t#", "t\ud800",
    ],
    "is not an expression": [
        "", " ", "t; t", "yield", "t := 1", "import os", "(" * 249 + "t" + ")" * 249, "t t", "2t", "007", "t\\", "*t",
    ],
    "Call is not allowed": ["__import__('os').system('true')", "(lambda: 1)()", "sin(t)(t)"],
    "unknown call": ["open(t)", "factorial(10**9)", "__import__('os')", "eval('t')", "p(t)", "max(t, t)", "Add(t, t)"],
    "sin takes one argument": ["sin()", "sin(t, t)"],
    "sin takes no argument by name": ["sin(x=t)", "sin(**t)", "sin(t, x=t)"],
    "abs takes one argument": ["abs()", "abs(t, t)"],
    "Max takes two arguments or more": ["Max()", "Max(t)"],
    "sympy does not evaluate it": ["Max(asin(2+t), t)", "Min(t, 1, log(-1-t**2))"],
    "is not allowed": [
        "t.__class__", "1.0.real", "[t for t in (1,)]", "{t for t in (1,)}", "(t for t in (1,))", "f'{t}'",
        "(t := 1)",
        "t if t else t", "t[0]", "sin(*t)", "t @ t", "t // 1", "t % 1", "t << 2", "t | t", "t & t", "~t",
        "~" * 499 + "t",
        "not t", "not " * 124 + "t", "t < 1", "t and t", "t, t", "[t]", "{t}", "{}", "await t", "lambda: t",
    ],
    "a number must be decimal": [
        "'t'", "b't'", "'t'*10**9", "1j", "True", "None", "...", "1_000", "0x10", "0b1", "0o7", "1e999", "1e400",
        "1e-400", "1e-99999999",
    ],
    "unknown name": ["E1", "I", "oo", "zoo", "nan", "S", "N", "e", "T", "GoldenRatio", "tt", "sin", "t" * 500, "self"],
    "0 must have a rational exponent": ["0**t", "(t-t)**sqrt(2)", "0**pi"],
    "an exponent must be at most 64": [
        "9**9**9", "9**999999999", "2**-65", "t**65", "t**(-65)", "t**(129/2)",
        "exp(10**8*log(2))", "exp(10**8*log(2*t))", "exp(-10**8*log(3*t))", "exp(1+t+65*log(3*t))",
        "sigmoid(65*log(2*t))",
        "2**(10**8*log(3*t)/log(2))", "2**(t-65*log(3*t)/log(2))",
    ],
    "a power must be short when it is multiplied out": [
        "60**((1+t)/(1/9999-999999937))", "0.1**(10**9*(1+t))", "7**(t+10**9)", "((1/70)**t)**(10**9/t)",
        "(1+exp(-64))**(9999+t)", "(1+t)**(10**5+t)",
        "0.5**acos(cos(10**9))", "(2*3**t)**(10**9/t)", "exp((64+t)**64*log(2))", "(t**t*2**t)**(10**9/t)",
    ],
    "the multiple of a logarithm must be at most 4096": ["sec(10**9*log(1+t)/t)", "cosh(5000*log(1+t))"],
    "a root of a number must be at most the 10000th": [
        "(64*7e-9)**7e-9", "(sqrt(2)*t)**0.0001", "sqrt((2*t)**(1/5001))",
        "exp(0.5*log(2*t)+0.00001*log(3*t))", "((2*t)**0.001*(3*t)**0.5)**0.0002", "(2*t)**(1/10001)",
        "(0.5/t + 2)**7e-9", "-(2*t)**(-0.00001)",
        "sqrt(" * 39 + "2" + ")" * 39,
        "((24/7*t)**0.0007)**0.0007", "exp(0.00001*log(2))",
    ],
    "a number may have 256 bits at most": [
        "9" * 400, "0." + "1" * 400, "1e-80", "((((1/10**9)**64)**64)**64)**64", "((((3*t)**64)**64)**64)**64",
        "9" * 78,
        "(" * 20 + "9" + ")**9" * 20, "exp(64*log(exp(64*log(exp(64*log(3*t))))))",
    ],
    "a constant must be real and at most 1e+09": [
        "1000000001", "10**10", "exp(exp(exp(exp(9))))", "exp(" * 30 + "1" + ")" * 30,
        "sinh(" * 39 + "1" + ")" * 39, "asin(2)", "acos(-2)",
        "(-8)**(1/3)", "log(sin(sigmoid(3**0.5))/atan(log(tanh(999999937))))", "1/cos(asin(sin(1)**2+cos(1)**2))",
        "1/(sin(1)**2+cos(1)**2-1)",
         "t + exp(21)", "t*(-9*10**9)",
    ],
    "an expression must be finite and real": ["sqrt(-1)", "1/0", "sqrt(t-t-1)", "log(0)", "sqrt(-t)", "log(t-t)",
    "1/(t-t)",
    "tan(pi/2)"],
    "powers and functions may nest to degree 256 at most": [
        "((t+1)**64)**64", "1-((1-t)**64)**8", "(1+t)**64*(2+t)**64*(3+t)**64*(4+t)**64*t", "t**t**t**t**t",
        "(1+t**64)**t",
        "sin(" * 6 + "t" + ")" * 6, "exp(" * 30 + "t" + ")" * 30, "1/(1+t**-64)**5",
    ],
    "operations may nest to depth 40 at most": [
        "-" * 499 + "t", "+" * 41 + "t", "t*" * 240 + "t", "t+" * 240 + "t", "t**" * 150 + "t",
        "exp(" * 90 + "t" + ")" * 90, "sqrt(" * 80 + "t" + ")" * 80,
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("what", "text"),
    [(what, text) for what, texts in HOSTILE.items() for text in texts],
    ids=lambda text: text[:24].encode("ascii", "replace").decode(),
)
def test_hostile_text_is_refused_at_once(what, text):
    with bounded(500_000), pytest.raises(ValueError, match=rf"^alpha: .*{re.escape(what)}\W"):
        to_expr(text, where="alpha")  # what it guards against takes minutes


# sympy spends minutes on these, and raises what is no ValueError on the last.
ENDLESS = [
    "log(asin(sqrt(cosh(sinh(asin(sinh(1/120)-0.5)/tan(t**1e-70/t/0.1)))))/((0.1/1e9)/((2*t+E-1)/(2-1e-70))))",
    "log(csc(cot(((1+t)**7-1.5001+(cot(7)+120))/1e-70)))/sqrt(sec(1.4+(t+sigmoid(0.5)/60)**60))",
    "asin(csc(sinh((1e9-64)+exp(1e9/(((64/t)/(999999937+asin(2*t)**exp((1-t)**(1/120)+3))))))))",
    "sigmoid(" * 39 + "pi" + ")" * 39,
    "sin(atan(" * 20 + "pi" + "))" * 20,
    "abs((1+t)**64*(2+t)**64 - 1)",
    "exp(-" * 19 + "pi" + ")" * 19,
    "(sinh(sin(t+1/t)-t*atan(1.5)-1e9-(sin(64)-21+t)))**cosh(Min(t/3600,0.1**(t+E),sqrt(Max(7,2))))"
    "*exp(sqrt(tanh(asin(sin(2*pi*(3*tanh(999999937))))))**(acos(csc(t/1.5))*120))",
]


@pytest.mark.parametrize("text", ENDLESS, ids=range(len(ENDLESS)))
def test_what_sympy_does_not_end_is_refused_soon(text):
    with pytest.raises(ValueError, match=r"^w: .*(must be simpler|sympy does not evaluate it|1000 nodes at most)"):
        parse(text, where="w")


@pytest.mark.parametrize(
    "text",
    [
        "exp(t**(1/9999))", "t**(1/9999)", "(1+t)**64", "sigmoid(cosh(t**-0.5))", "exp(-exp(1/t))",
        "cosh(4*tan(pi*t/4))",
        "exp(" * 5 + "t**0.01" + ")" * 5, "log(" * 5 + "t" + ")" * 5, "tan(acos(" * 6 + "t" + "))" * 6, "cos(pi/120)",
        "sin(123456789*pi/999999937)", "tan(pi/65537 + t)", "2**(1/9999)*3**(1/9998)*5**(1/9997)*7**(1/9995)",
        "exp(-1/t**64)", "atan(tan(10**9))", "t**pi**pi", "(exp(t))**(1/9999)", "(1+2*t)**(64*t)", "2**(-100*(1-t))",
        "0.01**(0.12345*(1-t))", "2**(0.123456789*t)",
        "cosh(4096*log(1+t))", "Max(t**64, (1+t)**(64*t))", "t**(64*tanh(999999937))", "abs((log(t)+t+sin(t))**28)",
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_what_is_odd_is_read_at_once(text):
    with bounded(2_000_000):
        assert parse(text).free_symbols <= {t}


@pytest.mark.parametrize(
    "nest", ["sin(" * 39, "tan(" * 39, "atan(" * 39, "asin(sin(" * 19, "sqrt(" * 13], ids=lambda nest: nest[:8]
)
def test_deep_constants_are_computed_at_once(nest):
    with bounded(2_000_000):
        assert parse(nest + "9" + ")" * nest.count("(")).is_number


def test_bounds_are_attained():
    assert parse("(1+t)**64*(2+t)**64*(3+t)**64*(4+t)**64").is_Mul
    assert parse("t" + " " * 499) == t
    assert parse("1/2**29/2**29/2**29/2**29/2**29/2**29/2**29/2**29/2**23").q == 2**255
    assert parse("sqrt((2*t)**(1/5000))") == (2 * t) ** sp.Rational(1, 10000)
    assert parse("(2*t**pi)**0.5") == sp.sqrt(2) * t ** (sp.pi / 2)
    assert parse("(24*t)**(1/10000)") == (24 * t) ** sp.Rational(1, 10000)
    assert parse("(1-t)**7e-9*t**1e-9") == (1 - t) ** sp.Rational(7, 10**9) * t ** sp.Rational(1, 10**9)
    assert parse("t**t**t**t") == t ** (t ** (t**t))
    assert parse("sin(" * 5 + "t" + ")" * 5).has(sp.sin)


@pytest.mark.parametrize(
    ("before", "after"), [("+", ""), ("-", ""), ("", "+t"), ("", "-t"), ("t+(", ")"), ("0.5*(", ")"), ("0*sin(", ")")]
)
def test_operations_nest_to_a_depth_of_40(before, after):
    levels = 20 if "sin" in before else 40
    assert parse(before * levels + "t" + after * levels).free_symbols <= {t}
    with pytest.raises(ValueError, match="operations may nest to depth 40 at most"):
        parse(before * levels + "+t" + after * levels)


def test_an_error_says_what_and_where_and_what_was_meant():
    with refused("expression: unknown call sinn(...); did you mean 'sin'?, at column 3 of '1-sinn(t)'."):
        parse(" 1-sinn(t)")
    with refused(
        f"expression: unknown call zeta(...); functions are {', '.join(FUNCTIONS)}, at column 1 of 'zeta(t)'."
    ):
        parse("zeta(t)")
    with refused(
        "sigma: unknown name 'q' (known are t, pi, E, p and functions; a parameter needs a value, as q=2), "
        "at column 3 of '1-q'."
    ):
        parse("1-q", where="sigma", parameters={"p": 2})
    with pytest.raises(ValueError, match=r"unknown name 'sigma' \(.*; a parameter needs another name\)"):
        parse("1-sigma")
    with refused("expression: the operator BitXor is not allowed; a power is written **, at column 1 of 't^2'."):
        parse("t^2")
    with refused("expression: the operator Mod is not allowed, at column 1 of 't%2'."):
        parse("t%2")
    with refused("expression: Compare is not allowed, at column 1 of 't<1'."):
        parse("t<1")
    with refused("expression: a number must be decimal, such as 12, 0.5 or 1e-3, at column 3 of '1+0x2'."):
        parse("1+0x2")
    with refused("expression: 'sin(t' is not an expression: '(' was never closed."):
        parse("sin(t")
    with refused(f"expression: '{'(' * 60}' is not an expression: too many nested parentheses."):
        parse("(" * 249)
    with refused("expression: text must be printable ASCII without comments, got 't\\x00'."):
        parse("t\x00")
    with refused("expression: text must be at most 500 characters, got 501."):
        parse("t" * 501)


# sympy


def test_a_symbol_of_ones_own_is_named():
    with refused(
        "expression: must depend on interpolants.t alone, got the symbols ['t']. "
        "Use interpolants.t, not a symbol of your own."
    ):
        to_expr(sp.Symbol("t") ** 2)
    with refused("w: must depend on interpolants.t alone, got the symbols ['beta', 'gamma']. Give their values."):
        to_expr(sp.Symbol("gamma") * sp.Symbol("beta") * t, where="w")
    for value in (None, b"t", [t], 1j, sp.Eq(t, 1)):
        with pytest.raises(TypeError, match=f"^w: must be text, .* or a number, got {type(value).__name__}\\.$"):
            to_expr(value, where="w")


@pytest.mark.parametrize(
    ("expr", "what"),
    [
        (sp.erf(t), "erf"), (sp.Piecewise((t, t < 1), (1, True)), "Piecewise"), (sp.LambertW(t), "LambertW"),
        (sp.I * t, "ImaginaryUnit"), (sp.Function("f")(t), "f"), (sp.oo * (t + 1), "Infinity"), (sp.nan, "NaN"),
        (sp.Integral(t, (t, 0, 1)), "Integral"), (sp.Derivative(sp.exp(t), t), "Derivative"),
        (t + sp.O(t**2), "Order"),
        (sp.Mod(t, 2), "Mod"), (sp.sign(t - 1), "sign"), (sp.gamma(t), "gamma"),
    ],
)  # fmt: skip
def test_sympy_beyond_the_whitelist_is_refused(expr, what):
    with refused(f"w: must be real and made of {', '.join(FUNCTIONS)}, powers and numbers, got {what}, in {expr}."):
        to_expr(expr, where="w")


@pytest.mark.parametrize(
    "expr",
    [
        sp.cot(t), sp.sec(t), sp.csc(t), sp.Abs(t - HALF), sp.E**t, sp.GoldenRatio * t, sp.Max(t, 1 - t),
        sp.Min(t, HALF, 1 - t),
    ],
)  # fmt: skip
def test_sympy_that_sympy_itself_makes_of_the_whitelist_is_not(expr):
    assert to_expr(expr) == expr


def test_a_kink_has_the_degree_of_its_steepest_argument():
    for kink in ("abs((1+t)**64 - 2)", "Max((1+t)**64, 2)", "Min(2, t, (1+t)**64)"):
        text = f"{kink}*(2+t)**64*(3+t)**64*(4+t)**64"
        assert parse(text).has(sp.Abs, sp.Max, sp.Min)
        with pytest.raises(ValueError, match="degree 256 at most"):
            parse(f"t*{text}")


@pytest.mark.parametrize(
    ("expr", "what"),
    [
        ((1 + (1 + t) ** 64) ** 5, "powers and functions may nest to degree 256 at most"),
        (t**257, "powers and functions may nest to degree 256 at most"),
        (sp.Integer(10) ** 10, "a constant must be real and at most 1e+09"),
        (t**3 * sp.exp(sp.exp(10)), "a constant must be real and at most 1e+154"),
        (t * sp.asin(2), "a constant must be real and at most 1e+154"),
        (t / 2**256, "a number may have 256 bits at most"),
        (t * sp.Rational(3**200, 3**200 + 1), "a number may have 256 bits at most"),
    ],
)
def test_sympy_has_the_bounds_of_text(expr, what):
    with refused(f"w: {what}, in {expr}."):
        to_expr(expr, where="w")


def test_sympy_is_bounded_as_a_whole():
    expr = sp.sqrt(1 + (1 + (1 + t) ** 64) ** 5)
    assert to_expr(expr) == expr
    with pytest.raises(ValueError, match=f"^w: a number {BOUND}"):
        to_expr(sp.Float(1e-100) * t, where="w")


def test_text_that_exhausts_the_parser_is_refused(monkeypatch):
    for error in (RecursionError, MemoryError):
        monkeypatch.setattr("ast.parse", lambda *_, error=error, **__: (_ for _ in ()).throw(error()))
        with refused("w: '1-t' is not an expression: it nests too deep."):
            parse("1-t", where="w")


# Numbers and parameters


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (float("nan"), ", got nan."), (float("inf"), ", got inf."), (-float("inf"), ", got -inf."),
        (np.float32("inf"), ", got "),
        (1e9 + 1, ": a constant must be real and at most 1e+09."),
        (-(10**9) - 1, ": a constant must be real and at most 1e+09."),
        (10**5000, ": a number may have 256 bits at most."),
        (Fraction(1, 10**5000), ": a number may have 256 bits at most."),
        (1e-100, ": a number may have 256 bits at most."),
    ],
    ids=range(9),
)  # fmt: skip
def test_a_number_out_of_bounds_is_refused(value, got):
    with pytest.raises(ValueError, match=f"^expression: a number {BOUND}{re.escape(got)}"):
        exact(value)
    with pytest.raises(ValueError, match=f"^w: a number {BOUND}{re.escape(got)}"):
        to_expr(value, where="w")
    with pytest.raises(ValueError, match=f"^sigma: the parameter p {BOUND}{re.escape(got)}"):
        to_expr("p*t", where="sigma", parameters={"p": value})


@pytest.mark.parametrize("value", [True, np.True_, "2", None, 1j, [2], sp.pi, np.array([2.0])], ids=repr)
def test_what_is_no_real_number_is_refused(value):
    with pytest.raises(TypeError, match=f"^w: the parameter p {BOUND}, got {re.escape(repr(value))}\\.$"):
        to_expr("p*t", where="w", parameters={"p": value})
    with pytest.raises(TypeError, match=f"^expression: a number {BOUND}, got {re.escape(repr(value))}\\.$"):
        exact(value)


def test_true_is_no_expression():
    with pytest.raises(TypeError, match=f"^w: a number {BOUND}, got True"):
        to_expr(True, where="w")


p = sp.Symbol("p")


@pytest.mark.parametrize("value", ["t**p + p*q", t**p + p * sp.Symbol("q", positive=True)])
def test_parameters_are_replaced_by_their_numbers(value):
    assert to_expr(value, parameters={"p": 0.1, "q": 3}) == t ** sp.Rational(1, 10) + sp.Rational(3, 10)
    assert to_expr(value, parameters={"p": 2, "q": np.float32(0.1), "unused": 1}) == t**2 + sp.Rational(1, 5)


@pytest.mark.parametrize(
    ("text", "expr", "value", "what"),
    [
        ("t**p", t**p, 65, "an exponent must be at most 64"),
        ("3**p", 3**p, 10**9, "an exponent must be at most 64"),
        ("exp(p*log(2*t))", sp.exp(p * sp.log(2 * t)), -(10**9), "an exponent must be at most 64"),
        ("(1+(1+t)**64)**p", (1 + (1 + t) ** 64) ** p, 5, "powers and functions may nest to degree 256 at most"),
        ("t*exp(exp(exp(p)))", t * sp.exp(sp.exp(sp.exp(p))), 9, "a constant must be real and at most 1e+"),
        ("t+sqrt(p)", t + sp.sqrt(p), -1, "an expression must be finite and real"),
        ("t/p", t / p, 0, "an expression must be finite and real"),
        ("(p*t)**64", (p * t) ** 64, 1000, "a number may have 256 bits at most"),
    ],
)
def test_bounds_hold_for_what_parameters_make(text, expr, value, what):
    for stated in (text, expr):
        with pytest.raises(ValueError, match=f"^alpha: {re.escape(what)}"):
            to_expr(stated, where="alpha", parameters={"p": value})


def test_functions_of_large_multiples_of_logarithms_are_not_powers():
    assert to_expr(sp.sin(p * sp.log(1 + t)), parameters={"p": 65}) == sp.sin(65 * sp.log(1 + t))
    assert to_expr(t**p, parameters={"p": 0.123456789}) == t ** sp.Rational(123456789, 10**9)
    for value in ("(p*t)**(1/10001)", (p * t) ** sp.Rational(1, 10001)):
        with pytest.raises(ValueError, match="a root of a number must be at most the 10000th"):
            to_expr(value, parameters={"p": 2})


def test_a_declared_symbol_has_a_value_as_declared():
    positive = sp.Symbol("p", positive=True)
    assert to_expr(t ** sp.sqrt(positive**2), parameters={"p": 2}) == t**2
    with refused("w: p must be positive=True, as it is declared, got -2."):
        to_expr(t**positive, where="w", parameters={"p": -2})
    with refused("w: n must be integer=True, as it is declared, got 1/2."):
        to_expr(t * sp.cos(2 * sp.pi * sp.Symbol("n", integer=True) * t), where="w", parameters={"n": 0.5})


@pytest.mark.parametrize(
    "name",
    [
        *ARGUMENTS,
        "t",
        "pi",
        "E",
        "sin",
        "sigmoid",
        "Max",
        "lambda",
        "True",
        "",
        "2p",
        "p q",
        "p.q",
        "\u03b2",
        "\u0430",
        "p\x00",
        3,
        None,
    ],
)
def test_a_name_that_text_could_not_hold_is_refused(name):
    what = (
        "a parameter's name must be an ASCII identifier and neither a keyword nor t, a constant, a function or "
        f"one of {', '.join(ARGUMENTS)}, got {name!r}. Rename it."
    )
    for value in ("t", t):
        with refused(f"w: {what}"):
            to_expr(value, where="w", parameters={name: 2})
    with refused(f"expression: {what}"):
        check_parameters({name: 2}, t)


def test_a_parameter_that_occurs_nowhere_is_refused_by_name():
    check_parameters({}, t, "1-t", 2)
    check_parameters({"p": 2, "q": 3, "r_1": 1}, "t**p", 1 - t ** sp.Symbol("q"), 0.5, "2*r_1")
    with refused("Path: a parameter must occur in an expression, got 'bta', which does not. Did you mean 'beta'?"):
        check_parameters({"bta": 2}, "t**beta", t, where="Path")
    with refused(
        "expression: a parameter must occur in an expression, got 'q', which does not. "
        "The names without a value are ['alpha', 'p']."
    ):
        check_parameters({"k": 1, "q": 2}, "k*t**p", sp.Symbol("alpha"), None)
    # The exponent of a number and the names of t and functions are no parameters.
    for text in ("1e5*t", "2.e5*t"):
        with pytest.raises(ValueError, match=r"got 'e5'.*The names without a value are \[\]\.$"):
            check_parameters({"e5": 2}, text)
    with pytest.raises(ValueError, match=r"got 'si'.*The names without a value are \[\]\."):
        check_parameters({"si": 2}, "sin(pi*t)")
    with pytest.raises(TypeError, match=f"^Path: the parameter p {BOUND}, got 'x'"):
        check_parameters({"p": "x"}, "p", where="Path")


# Any text, and any mathematics


def check_result(expr):
    assert isinstance(expr, sp.Expr)
    assert expr.free_symbols <= {t}
    assert to_expr(expr) == expr
    assert parse(written(expr)) == expr


TIME = Fraction(3, 8)
EXACT_TIME = sp.Rational(3, 8)
GRAMMAR = ["t", "t", "pi", "0", "1", "2", "0.5", "1e-3", "64", "(", "(", ")", ")", "+", "-", "*", "/", "**", " ", ",",
           "sin(", "cos(", "tan(", "asin(", "atan(", "exp(", "log(", "sqrt(", "sigmoid(", "abs(", "Max(", "Min(",
           "cot(", "E", ".", "e", "=",
           "#"]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(GRAMMAR), max_size=25).map("".join))
def test_any_text_gives_an_expression_in_t_or_a_value_error(text):
    try:
        expr = parse(text)
    except ValueError:
        expr = t
    check_result(expr)


BINARY = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
    "Max": max,
    "Min": min,
}
UNARY = {
    "sin": mpmath.sin, "cos": mpmath.cos, "tan": mpmath.tan, "asin": mpmath.asin, "acos": mpmath.acos,
    "atan": mpmath.atan, "sinh": mpmath.sinh, "cosh": mpmath.cosh, "tanh": mpmath.tanh, "exp": mpmath.exp,
    "log": mpmath.log, "sqrt": mpmath.sqrt, "cot": mpmath.cot, "sec": mpmath.sec, "csc": mpmath.csc, "abs": abs,
    "Abs": abs,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)), "-": lambda x: -x,
    "+": lambda x: +x,
}  # fmt: skip


def trees(leaves, binary, unary, max_leaves):
    def branches(inner):
        return st.tuples(st.sampled_from(binary), inner, inner) | st.tuples(st.sampled_from(unary), inner)

    return st.recursive(st.sampled_from(leaves), branches, max_leaves=max_leaves)


def spelled(tree):
    match tree:
        case str():
            return tree
        case (function, inner):
            return f"{function}({spelled(inner)})"
        case (op, left, right) if op.isalpha():
            return f"{op}({spelled(left)}, {spelled(right)})"
        case (op, left, right):
            return f"({spelled(left)}) {op} ({spelled(right)})"


def value_of(tree):
    """The value at TIME by mpmath alone; None where it, or what it is made of, is not real, or too large or small."""
    if isinstance(tree, str):
        value = {"t": mpmath.mpf(TIME.numerator) / TIME.denominator, "pi": +mpmath.pi}.get(tree)
        return mpmath.mpf(tree) if value is None else value
    inner = [value_of(branch) for branch in tree[1:]]
    if None in inner:
        return None
    try:
        value = (UNARY if len(inner) == 1 else BINARY)[tree[0]](*inner)
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
    return value if isinstance(value, mpmath.mpf) and (value == 0 or 1e-9 < abs(value) < 1e9) else None


def agrees(expr, value):
    return abs(expr.evalf(60, subs={t: EXACT_TIME}) - value) <= 1e-15 * max(1, abs(value))


@settings(max_examples=300, deadline=None)
@given(trees(["t", "t", "1", "2", "0", "3", "0.5", "0.1", "64", "1e-3", "pi"], [*BINARY], [*UNARY], max_leaves=12))
def test_the_value_of_a_parsed_tree_is_the_value_of_the_tree(tree):
    try:
        expr = parse(spelled(tree))
    except ValueError as error:
        assert re.search(r"at most|finite and real|rational exponent|simpler|not evaluate", str(error))  # noqa: PT017
        return
    check_result(expr)
    with mpmath.workdps(40):
        value = value_of(tree)
        assert value is None or agrees(expr, value)


@given(
    trees(
        ["t", "1", "2", "0.5"],
        ["+", "-", "*", "Max", "Min"],
        ["sin", "cos", "exp", "atan", "sigmoid", "abs", "-"],
        max_leaves=4,
    )
)
def test_what_is_tame_is_never_refused(tree):
    if spelled(tree).count("exp") + spelled(tree).count("sigmoid") > 2 or len(spelled(tree)) > 60:
        return
    with mpmath.workdps(40):
        assert agrees(parse(spelled(tree)), value_of(tree) or 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sqrt(sigmoid(t**3-t))", (1 + sp.exp(t - t**3)) ** -HALF),
        ("(4*sigmoid(t+log(1+t)))**1.5", 8 * (1 + sp.exp(-t) / (1 + t)) ** (-3 * HALF)),
        ("((1+(2-t**t)**0.7)**-2)**0.3", (1 + (2 - t**t) ** sp.Rational(7, 10)) ** sp.Rational(-3, 5)),
        ("sqrt(cosh(t-2)**-3)", sp.cosh(t - 2) ** (-3 * HALF)),
        ("sqrt(1/(1-t))", sp.sqrt(1 / (1 - t))),
        ("sqrt((t-1/2)**2)", sp.Abs(t - HALF)),
    ],
)
def test_powers_of_powers_are_opened_where_the_form_tells_that_they_are_positive(text, expected):
    assert parse(text) == to_expr(expected)
    with mpmath.workdps(30):
        for time in (0.1, 0.45, 0.9):
            assert abs(sp.lambdify(t, parse(text) - expected, "mpmath")(mpmath.mpf(time))) < 1e-25


def test_a_change_of_time_asks_for_no_sign():
    """sympy asks whether each power and logarithm of what is changed is positive, or 0, and does not end here."""
    bump = "t+0.0201533*t*(1-t)*exp(-4.34e+03*(t-0.761)**2)"
    outer, inner = parse(f"sqrt(sigmoid(2.72*log(({bump})/(1-({bump})))))"), parse("(1-2*acos(t)/pi)**8")
    with bounded(1_000_000):
        found = exchanged(exchanged(outer, {t: inner}), {t: 1 - t})
    with mpmath.workdps(30):
        of_outer, of_inner, got = (sp.lambdify(t, e, "mpmath") for e in (outer, inner, found))
        for time in map(mpmath.mpf, (0.01, 0.04, 0.6)):
            assert abs(got(time) / of_outer(of_inner(1 - time)) - 1) < 1e-20
