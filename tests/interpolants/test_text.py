"""What a path writes is read as the same path: all expressions that are admitted, in either direction of time."""

import inspect
import json
import re
import time

import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import interpolants as ip
from interpolants import Path, verbatim
from interpolants.expression import ARGUMENTS, parse, t, to_expr, written

R = sp.Rational


def through_json(alpha, sigma, name="any", data_end=1):
    return ip.text.read(json.loads(json.dumps(ip.text.write(alpha, sigma, name, data_end))))


# Expressions

ODD = [
    "tan(pi/2 - pi*t/4)", "sqrt((1-t)**2)", "exp(1)", "exp(1)*t", "1/exp(t)", "exp(-(t+1)**-2)", "2**(1/3)*t",
    "t**(1/3)",
    "(t/3)**-1.5", "t**-t", "2**-t", "-(t+1)*exp(t)", "2*(t+1)*exp(t)", "t/(20*(3-2*t))", "1/(2*(1+t))", "-(1-t)",
    "-(-t)**2",
    "(-1)**2*t", "1/2**29/2**29/2**29/2**29/2**29/2**29/2**29/2**29/2**23", "t*1e9/3", "(1+t)**15/1e9", "1e-70*t",
    "sin(t+pi/2)", "csc(t)", "1/cos(t)", "sec(1+t)**2", "Max(t, 1-t, 0.5)", "Min(abs(t-0.5), t**2)", "abs(log(t))",
    "sqrt(2)*sqrt(3)*t", "sqrt(8)", "6**0.5*t**0.5", "cos(pi/60)*t", "asin(0.1)*t", "sigmoid(sigmoid(t))", "t**pi",
    "pi**t",
    "+".join(f"sin({k}*t)/{k}" for k in range(1, 31)), "*".join(f"({k}+t)" for k in range(1, 41)), "tan(atan(t)/2)",
    "tan(acos(tan(acos(t))))", "exp(t*log(5000))", "exp(log(t)/3)", "0.1*t + 0.2", "0", "1", "-3", "-1/3", "pi",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD, ids=lambda text: text[:20])
def test_text_of_an_expression_is_read_as_the_same(text):
    expr = parse(text)
    alpha, sigma, *_ = through_json(expr, 1 - t)
    assert (alpha, sigma) == (expr, 1 - t)
    assert sp.srepr(alpha) == sp.srepr(expr)


BIG = 10**5000 + 1


@pytest.mark.parametrize(
    "expr",
    [
        sp.Mul(2, t + 1, evaluate=False), sp.Add(1, t, evaluate=False), sp.Add(t, 1, evaluate=False),
        sp.Mul(-1, sp.Mul(-1, t, evaluate=False), evaluate=False),
        sp.Pow(sp.Pow(t, 2, evaluate=False), R(1, 2), evaluate=False),
        sp.sin(sp.pi, evaluate=False) + t, sp.exp(sp.log(t, evaluate=False), evaluate=False), sp.Abs(t, evaluate=False),
        sp.Max(t, 0, evaluate=False), sp.Pow(sp.E, t, evaluate=False), sp.Add(t, sp.Add(t, 1), evaluate=False),
        t**257 - t**256,
        sp.GoldenRatio * t, sp.Catalan * t + sp.EulerGamma + sp.TribonacciConstant, t / 2**255, t * R(3**160, 2**255),
        (1 + t) ** 256, t * R(BIG, BIG - 2), t + R(-1, BIG), sum((k * t**k for k in range(200)), sp.Integer(0)),
    ],
    ids=range(20),
)  # fmt: skip
def test_a_tree_that_sympy_would_build_otherwise_comes_back(expr):
    assert parse(written(expr)) == expr


@pytest.mark.parametrize(
    "conditions",
    [(t <= R(1, 2), True), (t >= sp.sqrt(2) / 2, True), (t < R(1, 3), t <= R(1, 2), True), (1 - t > R(1, 7), True)],
    ids=range(4),
)
def test_pieces_that_a_change_of_time_makes_of_kinks_come_back(conditions):
    expr = t * sp.Piecewise(*((t**k * sp.exp(t), c) for k, c in enumerate(conditions)), evaluate=False)
    assert parse(written(expr)) == expr
    with pytest.raises(ValueError, match="got Piecewise"):
        to_expr(expr)


def test_what_a_person_writes_stays_as_it_is():
    for text in (
        "t",
        "1 - t",
        "sin(pi*t/2)",
        "sqrt(1 - t**2)",
        "exp(-t*log(5000))",
        "Max(t, 1 - t)",
        "Abs(t - 1)",
        "cot(t)",
    ):
        assert written(parse(text)) == text
    assert written(sp.Mul(2, t + 1, sp.exp(t))) == "exactly(Mul(2, Add(1, t), exp(t)))"


@pytest.mark.parametrize(
    "expr", [sp.erf(t), sp.sign(t - 1), sp.oo, sp.nan, sp.I * t, sp.Symbol("p") * t, sp.Float(0.1) * t]
)
def test_what_has_no_text_is_refused_where_it_is_written(expr):
    with pytest.raises(ValueError, match=r"^alpha: must be an expression that has a text, got one that has none: "):
        written(expr, where="alpha")


def test_a_text_too_long_to_be_read_is_not_written():
    expr = sp.Add(*(R(3**9000, 2 ** (9000 + k)) * t**k for k in range(30)))
    with pytest.raises(ValueError, match="longer than 100000 characters"):
        written(expr)


# Any expression

LEAVES = ["t", "t", "1 - t", "pi", "E", "0", "1", "2", "3", "64", "0.5", "1e-3", "1e9", "1/3", "1/9999", "7/60"]
FUNCTIONS = [
    "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "sqrt",
    "sigmoid",
    "abs", "-",
]  # fmt: skip


def calls(inner):
    one = st.builds("{}({})".format, st.sampled_from(FUNCTIONS), inner)
    two = st.builds("({1}) {0} ({2})".format, st.sampled_from(["+", "-", "*", "/", "**"]), inner, inner)
    kinks = st.builds("{}({}, {})".format, st.sampled_from(["Max", "Min"]), inner, inner)
    return one | two | two | kinks


TEXTS = st.recursive(st.sampled_from(LEAVES), calls, max_leaves=14)


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.sampled_from([0, 1]))
def test_every_path_that_text_states_comes_back(text, data_end):
    try:
        expr = parse(text)
    except ValueError:
        return
    assert through_json(expr, 1 - t, "any", data_end) == (expr, 1 - t, "any", data_end)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.floats(0.01, 60), st.fractions(0, 100, max_denominator=10**60))
def test_with_numbers_for_names_it_comes_back(text, p, q):
    try:
        expr = to_expr(f"({text.replace('64', 'p')})*q + p", parameters={"p": p, "q": q})
    except ValueError:
        return
    assert parse(written(expr)) == expr


# Paths

SOME = [
    *ip.library.LIBRARY.values(), lambda: ip.polynomial(0.3), lambda: ip.fm_ot(0.01), lambda: ip.from_beta("30/(1+t)"),
    lambda: ip.from_log_snr("-2*log(tan(pi*(1-t)/2))"), lambda: ip.shifted(ip.vp(), 3.0),
    lambda: ip.cosine().after("t**2"),
    lambda: Path("t**p", "(1-t)**q", p=2.5, q=1 / 3), lambda: Path("t", "sqrt((1-t)**2)"),
    lambda: Path("sin(pi*t/2)", "sin(pi/2 - pi*t/2)"), lambda: Path("2*t*(t+1)*exp(t)", "(1-t)*2*exp(t)"),
]  # fmt: skip


@pytest.mark.parametrize("make", SOME, ids=range(len(SOME)))
def test_a_path_comes_back_in_either_direction(make):
    for path in (make(), make().in_paper_time()):
        text = json.loads(json.dumps(path.to_text()))
        again = Path.from_text(text)
        assert again == path
        assert (again.name, again.data_end) == (path.name, path.data_end)
        assert again.to_text() == text


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(["t**p", "sin(pi*t**p/2)", "tanh(p*t)", "1 - exp(-p*t)*(1-t)", "t*sigmoid(p*t)"]),
    st.sampled_from(["1 - t**p", "cos(pi*t/2)", "(1-t)**p", "tan(pi/4 - pi*t/4)", "sqrt((1-t)**2)", "q*(1-t)"]),
    st.sampled_from([0.5, 0.7, 1, 1.25, 2, 3.3]),
)
def test_paths_with_parameters_come_back(alpha, sigma, p):
    try:
        path = Path(
            alpha,
            sigma,
            **{name: p for name in "pq" if name in f"{alpha} {sigma}".replace("exp", "").replace("sqrt", "")},
        )
    except ValueError:
        return
    assert Path.from_text(path.to_text()) == path
    later = path.after("t**2*(3 - 2*t)")
    assert Path.from_text(later.to_text()) == later


def test_only_what_is_not_the_rule_is_written():
    assert ip.linear().to_text() == {"alpha": "t", "sigma": "1 - t", "name": "linear"}
    assert ip.linear().in_paper_time().to_text() == {
        "alpha": "1 - t", "sigma": "t", "name": "linear, paper time", "data_end": 0,
    }  # fmt: skip
    assert Path.from_text({"alpha": "t", "sigma": "1-t"}).name == "(t, 1 - t)"
    assert Path.from_text({"alpha": "t", "sigma": "1-t", "name": None}) == ip.linear()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"alpha": "t", "sigma": "1-t", "p": 2},
            "Path.from_text: text must have no fields but alpha, sigma, name, data_end",
        ),
        ({"alpha": "t", "sigma": "1-t", "data_end": 2}, "Path.from_text: data_end must be 0 or 1, got 2."),
        ({"alpha": "t", "sigma": "1-t", "data_end": True}, "Path.from_text: data_end must be 0 or 1, got True."),
        ({"alpha": "1-t", "sigma": "t"}, "(1 - t, t) is no path: "),
        ({"alpha": "t", "sigma": "1-t", "data_end": 0}, "(t, 1 - t) is no path: "),
        ({"alpha": "__import__('os')", "sigma": "1-t"}, "alpha: unknown call __import__"),
    ],
)
def test_fields_that_are_not_those_of_a_path_are_refused(fields, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        Path.from_text(fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("t", "text must be a mapping with alpha and sigma, got str."),
        ({"alpha": "t"}, "sigma must be text, got None."),
        ({"alpha": t, "sigma": "1-t"}, "alpha must be text, got t."),
        ({"alpha": "t", "sigma": "1-t", "name": 2}, "name must be text, got 2."),
    ],
)
def test_what_is_no_text_is_refused(fields, message):
    with pytest.raises(TypeError, match=f"^Path.from_text: {re.escape(message)}$"):
        Path.from_text(fields)


# Trees as text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exactly()", "')' is not allowed, at column 9"),
        ("exactly(t", "a name, a number, a comma or a parenthesis must stand here, at column 10"),
        ("exactly(t, t)", "there must be one expression"), ("exactly(True)", "there must be one expression"),
        ("exactly(LessThan(t, 1))", "there must be one expression"),
        ("exactly(Piecewise(t, t))", "Piecewise may not have these"),
        ("exactly(Add(True, t))", "Add may not have these"),
        ("exactly(ExprCondPair(t, True))", "there must be one expression"),
        ("exactly(Piecewise(ExprCondPair(t, t)))", "ExprCondPair may not have these arguments"),
        ("exactly(LessThan(Piecewise(ExprCondPair(t, LessThan(t, 1))), 1))", "LessThan may not have these"),
        ("exactly(t) + 1", "the text goes on after its end"),
        ("exactly(1 - t)", "a name, a number, a comma or a parenthesis must stand here"),
        ("exactly(t t)", "a comma or a parenthesis must stand here, not 't'"),
        ("exactly(Pow(t))", "Pow may not have these arguments"),
        ("exactly(Add(t))", "Add may not have these arguments"),
        ("exactly(sin(t, t))", "sin may not have these arguments"), ("exactly(sin())", "')' is not allowed"),
        ("exactly(x)", "'x' is not allowed"), ("exactly(open(t))", "'open(' is not allowed"),
        ("exactly(t())", "'t(' is not allowed"),
        ("exactly(__import__(t))", "a name, a number"), ("exactly(t.x)", "a name, a number"),
        ("exactly('t')", "a name, a number"),
        ("exactly(sigmoid(t))", "'sigmoid(' is not allowed"), ("exactly(Symbol(t))", "'Symbol(' is not allowed"),
        ("exactly(1/0)", "'1/0' is not allowed"), ("exactly(1/0x00)", "'1/0x00' is not allowed"),
        ("exactly(007)", "'007' is not allowed"),
        ("exactly(1/2/3)", "'1/2/3' is not"),
        ("exactly(0xg)", "'0x' is not allowed"), ("exactly(" + "9" * 5000 + ")", "is not allowed"),
        ("exactly(\u0661)", "a name, a number"),
        ("exactly(" + "t" * 100_000, "text must be at most 100000 characters, got 100008"),
        ("exactly(" + "sin(" * 10_000, "nodes may nest to depth 200 at most"),
        ("exactly(Pow(9, Pow(9, Pow(9, 9))))", "a constant must be real and at most 2e+308, in "),
        ("exactly(Pow(-1, 1/2))", "a constant must be real"), ("exactly(Pow(0, -1))", "a constant must be real"),
        ("exactly(Pow(t, 70000))", "powers and functions may nest to degree 65536 at most"),
        ("exactly(Mul(t, 0x" + "f" * 20_000 + "))", "a number may have 65536 bits at most"),
        ("exactly(" + "exp(Mul(-1, " * 60 + "pi" + "))" * 60 + ")", "must be simpler: it takes more than 12000000"),
    ],
    ids=lambda value: value[:20].encode('ascii', 'replace').decode(),
)  # fmt: skip
def test_a_tree_that_is_not_one_is_refused_soon(text, message):
    start = time.process_time()
    with pytest.raises(ValueError, match=rf"^sigma: .*{re.escape(message)}"):
        parse(text, where="sigma")
    assert time.process_time() - start < 10  # measured at most 3 s, where calls are counted up to the bound


def test_the_longest_text_is_read_soon():
    terms = ", ".join(f"Mul({k}/7, sin(Mul({k}, t)))" for k in range(1, 3000))
    start = time.process_time()
    expr = parse(f"exactly(Add({terms}))")
    assert time.process_time() - start < 10  # measured 1 s
    assert len(expr.args) == 2999


def test_numbers_of_any_length_are_written():
    for number in (0, -1, 7, 2**4096, -(2**4096), 10**4000, 3**20_000):
        text = verbatim.write(sp.Integer(number), {}, {})
        assert verbatim.read(text, {}, {}) == number
        assert verbatim.read(verbatim.write(R(number, 3**9000), {}, {}), {}, {}) == R(number, 3**9000)


# Names


def test_no_parameter_is_called_as_an_argument():
    taking = [Path.__init__, Path.from_paper_time.__func__, Path.after]
    names = {
        name
        for function in taking
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    assert names == {*ARGUMENTS}


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize(
    "make",
    [
        lambda text, **p: Path(text, "1-t", **p), lambda text, **p: Path("t", f"1-{text}", **p),
        lambda text, **p: Path.from_paper_time("1-t", text, **p), lambda text, **p: ip.linear().after(text, **p),
        lambda text, **p: ip.library.from_texts(text, "1-t", p),
    ],
)  # fmt: skip
def test_a_parameter_that_is_called_so_is_refused_with_the_reason(make, name):
    with pytest.raises(ValueError, match=rf"name .*, got ('{name}'|2)\. Rename"):
        make(f"t**{name}", **{name: 2})
