"""The library's paths, against closed forms written by hand in 60-digit arithmetic that shares no code with them."""

import math

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch

import interpolants as ip
from interpolants import library

mp = mpmath.mp.clone()
mp.dps = 60


def number(text):
    return mp.mpf(text)


def logistic(z):
    return 1 / (1 + mp.exp(-z))


def of_beta(integral):
    """alpha and sigma from the integral of the noise rate between the data and t."""
    return lambda t: (mp.exp(-integral(t) / 2), mp.sqrt(-mp.expm1(-integral(t))))


def of_log_snr(log_snr):
    return lambda t: (mp.sqrt(logistic(log_snr(t))), mp.sqrt(logistic(-log_snr(t))))


def linear_rate(t, low, high):
    tau = 1 - t
    return tau**2 * (high - low) / 2 + tau * low


def cosine_by_its_paper(t, s):
    tau = 1 - t
    alpha_bar = mp.cos((tau + s) / (1 + s) * mp.pi / 2) ** 2 / mp.cos(s / (1 + s) * mp.pi / 2) ** 2
    return mp.sqrt(alpha_bar), mp.sqrt(1 - alpha_bar)


def sigmoid_by_its_paper(t, start, end, temperature):
    top, bottom = logistic(end / temperature), logistic(start / temperature)
    here = logistic(((1 - t) * (end - start) + start) / temperature)
    gamma = (top - here) / (top - bottom)
    return mp.sqrt(gamma), mp.sqrt(1 - gamma)


def karras(t, low, high, rho):
    return (high ** (1 / rho) + t * (low ** (1 / rho) - high ** (1 / rho))) ** rho


FORMS = [
    (library.linear(), lambda t: (t, 1 - t)),
    (library.fm_ot(0.001), lambda t: (t, 1 - (1 - number("0.001")) * t)),
    (library.polynomial(2), lambda t: (t**2, 1 - t**2)),
    (library.polynomial(0.5), lambda t: (mp.sqrt(t), 1 - mp.sqrt(t))),
    (library.polynomial(1.3), lambda t: (t ** number("1.3"), 1 - t ** number("1.3"))),
    (library.gvp(), lambda t: (mp.sin(mp.pi * t / 2), mp.cos(mp.pi * t / 2))),
    (library.linear_vp(), lambda t: (t, mp.sqrt(1 - t**2))),
    (library.vp(), of_beta(lambda t: linear_rate(t, number("0.1"), 20))),
    (library.vp(0.1, 10), of_beta(lambda t: linear_rate(t, number("0.1"), 10))),
    (
        library.sub_vp(),
        lambda t: (
            mp.exp(-linear_rate(t, number("0.1"), 20) / 2),
            -mp.expm1(-linear_rate(t, number("0.1"), 20)),
        ),
    ),
    (library.cosine(), lambda t: cosine_by_its_paper(t, number("0.008"))),
    (library.cosine(0.1), lambda t: cosine_by_its_paper(t, number("0.1"))),
    (library.sigmoid(), lambda t: sigmoid_by_its_paper(t, -3, 3, 1)),
    (library.sigmoid(-1, 3, 0.4), lambda t: sigmoid_by_its_paper(t, -1, 3, number("0.4"))),
    (library.ve(), lambda t: (mp.mpf(1), number("0.01") * (50 / number("0.01")) ** (1 - t))),
    (library.edm(), lambda t: (mp.mpf(1), karras(t, number("0.002"), 80, 7))),
    (library.edm(0.01, 50, 2.5), lambda t: (mp.mpf(1), karras(t, number("0.01"), 50, number("2.5")))),
    (library.from_beta("20-19.9*t"), of_beta(lambda t: linear_rate(t, number("0.1"), 20))),
    (library.from_beta("9*exp(-2*t)+1/(2-t)"), of_beta(
        lambda t: 9 * (mp.exp(-2 * t) - mp.exp(-2)) / 2 + mp.log(2 - t))),
    (library.from_log_snr("20*t-10"), of_log_snr(lambda t: 20 * t - 10)),
    (library.from_log_snr("2*log(t/(1-t))+3*t"), lambda t: (
        t / mp.sqrt(t**2 + (1 - t) ** 2 * mp.exp(-3 * t)), (1 - t) / mp.sqrt((1 - t) ** 2 + t**2 * mp.exp(3 * t)))),
]  # fmt: skip
INNER = [0.07, 0.2, 0.31, 0.5, 0.61, 0.85, 0.93]
TIMES = [*INNER, *(10.0**-k for k in range(2, 11)), *(1 - 10.0**-k for k in range(2, 11)), 0.0, 1.0]


ZERO = 1e-40  # of the hand-written forms in 60 digits, where they cancel


def named(forms):
    return pytest.mark.parametrize(("path", "form"), forms, ids=[path.name for path, _ in forms])


@named(FORMS)
def test_float64_is_the_closed_form_next_to_both_ends_and_at_them(path, form):
    times = torch.tensor(TIMES, dtype=torch.float64)
    for k, coefficient in enumerate((path.alpha, path.sigma)):
        exact = [float(form(mp.mpf(time))[k]) for time in TIMES]
        got = coefficient(times)
        assert got.dtype == torch.float64
        worst = np.abs(got.numpy() - exact) / np.maximum(np.abs(exact), ZERO)
        assert worst.max() < 2e-14, (k, TIMES[worst.argmax()], worst.max())


@named(FORMS)
def test_float32_is_the_rounded_closed_form(path, form):
    times = torch.tensor(TIMES, dtype=torch.float32)
    for k, coefficient in enumerate((path.alpha, path.sigma)):
        exact = np.array([float(form(mp.mpf(time))[k]) for time in times.tolist()]).astype(np.float32)
        got = coefficient(times)
        assert got.dtype == torch.float32
        np.testing.assert_array_max_ulp(got.numpy(), exact, maxulp=1)


E = sp.exp
ENDS = {  # alpha(0), alpha(1), sigma(0), sigma(1)
    "linear()": (0, 1, 1, 0),
    "fm_ot(0.001)": (0, 1, 1, sp.Rational(1, 1000)),
    "fm_ot(0)": (0, 1, 1, 0),
    "polynomial(3)": (0, 1, 1, 0),
    "polynomial(0.3)": (0, 1, 1, 0),
    "gvp()": (0, 1, 1, 0),
    "linear_vp()": (0, 1, 1, 0),
    "vp()": (E(-sp.Rational(201, 40)), 1, sp.sqrt(1 - E(-sp.Rational(201, 20))), 0),
    "sub_vp()": (E(-sp.Rational(201, 40)), 1, 1 - E(-sp.Rational(201, 20)), 0),
    "cosine()": (0, 1, 1, 0),
    "cosine(0)": (0, 1, 1, 0),
    "sigmoid()": (0, 1, 1, 0),
    "sigmoid(0, 3, 0.1)": (0, 1, 1, 0),
    "ve()": (1, 1, 50, sp.Rational(1, 100)),
    "edm()": (1, 1, 80, sp.Rational(1, 500)),
    "edm(rho=2.5)": (1, 1, 80, sp.Rational(1, 500)),
    "from_beta('2/t')": (0, 1, 1, 0),
    "from_beta(10)": (E(-5), 1, sp.sqrt(1 - E(-10)), 0),
    "from_log_snr('2*log(t/(1-t))')": (0, 1, 1, 0),
    "from_log_snr('-2*log(tan(pi*(1-t)/2))')": (0, 1, 1, 0),
    "from_log_snr('2*log(t/(1-t))+3*t')": (0, 1, 1, 0),
}


@pytest.mark.parametrize("call", ENDS)
def test_limits_at_the_ends_are_exact_numbers(call):
    path = eval(f"library.{call}")
    limits = tuple(c.limit(end) for c in (path.alpha, path.sigma) for end in (0, 1))
    assert limits == ENDS[call]
    assert not any(value.has(sp.Float) for value in limits)
    values = tuple(c(float(end)) for c in (path.alpha, path.sigma) for end in (0, 1))
    assert values == pytest.approx([float(value) for value in ENDS[call]], rel=4e-16, abs=0.0)


VARIANCE_PRESERVING = [
    library.gvp(), library.linear_vp(), library.vp(), library.cosine(), library.cosine(0.3), library.sigmoid(),
    library.sigmoid(0, 3, 0.3), library.from_beta("2+12*exp(-2*t)"), library.from_log_snr("20*t-10"),
]  # fmt: skip


@pytest.mark.parametrize("path", VARIANCE_PRESERVING, ids=lambda p: p.name)
def test_variance_is_preserved(path):
    times = np.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(path.alpha(times) ** 2 + path.sigma(times) ** 2, 1.0, rtol=0, atol=2e-15)


@pytest.mark.parametrize(
    "path", [library.linear(), library.polynomial(2), library.polynomial(1.3)], ids=lambda p: p.name
)
def test_weights_sum_to_one(path):
    times = np.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(path.alpha(times) + path.sigma(times), 1.0, rtol=0, atol=2e-15)
    assert path.d_alpha.expr == -path.d_sigma.expr


def test_special_cases_are_the_paths_that_they_should_be():
    assert library.polynomial(1) == library.fm_ot(0) == library.linear()
    assert library.cosine(0) == library.gvp()
    assert library.from_beta("20-19.9*t") == library.from_beta(20 - sp.Rational(199, 10) * ip.t) == library.vp()
    assert library.from_beta("10-9.9*t") == library.vp(0.1, 10)
    assert library.from_beta("2/t") == library.linear_vp()
    assert library.sub_vp().alpha == library.vp().alpha
    assert library.from_log_snr("-2*log(tan(pi*(1-t)/2))") == library.gvp()
    assert library.from_log_snr(-2 * sp.log(sp.cot(sp.pi * ip.t / 2))) == library.gvp()
    assert library.edm(rho=1).sigma.expr == 80 - sp.Rational(39999, 500) * ip.t


def test_edm_in_equal_steps_is_the_grid_of_karras():
    low, high, rho, n = 0.002, 80.0, 7.0, 18
    i = np.arange(n)
    grid = (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    np.testing.assert_allclose(library.edm().sigma(i / (n - 1)), grid, rtol=2e-14)


@pytest.mark.parametrize(
    "beta", ["20-19.9*t", "7", "2/t", "3+10*exp(-3*t)", "12+3*sin(7*t)", "8+1/sqrt(1-t)", "9/(2-t)"]
)
def test_the_forward_sde_of_a_rate_has_that_rate(beta):
    """dX = -beta/2 X dtau + sqrt(beta) dW."""
    f, g_squared = library.from_beta(beta).forward_sde()
    rate = sp.lambdify(sp.Symbol("t"), beta, modules="math")
    for time in (0.1, 0.35, 0.7, 0.99):
        assert g_squared(time) == pytest.approx(rate(time), rel=1e-9)
        assert f(time) == pytest.approx(-rate(time) / 2, rel=1e-9)


RATES = ["7", "2/t", "3+10*exp(-3*t)", "12+3*sin(7*t)", "4/(1.2-t)**2", "8+1/sqrt(1-t)", "12*cosh(t)", "9/(2-t)",
         "9+1/(t+1)+t/(t**2+2*t+7)**2", "3+8*t*log(2-t)", "10+5*exp(t)*sin(t)"]  # fmt: skip


@pytest.mark.parametrize("beta", RATES)
def test_alpha_is_the_exponential_of_half_the_integral_of_the_rate(beta):
    path = library.from_beta(beta)
    rate = sp.lambdify(sp.Symbol("t"), beta, modules="mpmath")
    for time in (0.1, 0.35, 0.7, 0.99):
        integral = mpmath.quad(rate, [time, (1 + time) / 2, 1])
        assert path.alpha(time) == pytest.approx(math.exp(-integral / 2), rel=1e-7)
        assert path.sigma(time) == pytest.approx(math.sqrt(-math.expm1(-integral)), rel=1e-7)


@pytest.mark.parametrize(
    "log_snr", ["20*t-10", "2*log(t/(1-t))", "-2*log(tan(pi*(1-t)/2))", "2*log(t/(1-t))+3*t", "log(t)-log(1-t)",
                "-log(exp(0.1*(1-t)+9.95*(1-t)**2)-1)", "2*pi*log(t)-log(1-t)", "log(t**2/(1-t)**2)",
                "log(t/(2-t))+2*log(t/(3-t))-3*log((1-t)/(1+t))-4*log((2-t)/(5+t))"]
)  # fmt: skip
def test_the_log_snr_is_the_one_that_was_asked_for(log_snr):
    path = library.from_log_snr(log_snr)
    exact = sp.lambdify(sp.Symbol("t"), log_snr, modules="mpmath")
    for time in (0.01, 0.2, 0.5, 0.9, 0.99):
        ratio = 2 * math.log(path.alpha(time) / path.sigma(time))
        assert ratio == pytest.approx(float(exact(mpmath.mpf(time))), rel=1e-12, abs=1e-12)
        assert path.alpha(time) ** 2 + path.sigma(time) ** 2 == pytest.approx(1.0, abs=2e-15)


@pytest.mark.parametrize("log_snr", ["2*log(t/(1-t)) + log(1.5+abs(t-0.5))", "3*log(t/(1-t)) + log(abs(t-0.5)+t)"])
def test_a_bend_inside_a_logarithm_stays(log_snr):
    path = library.from_log_snr(log_snr)
    for time in (0.1, 0.4, 0.5, 0.6, 0.9):
        with mpmath.workdps(30):
            exact = eval(log_snr, {"log": mpmath.log, "abs": abs, "t": mpmath.mpf(time)})
        assert path.log_snr(time) == pytest.approx(float(exact), rel=1e-13)


def test_a_path_from_a_log_snr_keeps_its_factors_finite_at_the_ends():
    for log_snr in ("2*log(t/(1-t))", "2*log(t/(1-t))+3*t", "log(t)-log(1-t)"):
        path = library.from_log_snr(log_snr)
        assert path.alpha.expr.subs(ip.t, 0) == path.sigma.expr.subs(ip.t, 1) == 0
        assert path.alpha.expr.subs(ip.t, 1) == path.sigma.expr.subs(ip.t, 0) == 1


def test_a_path_from_a_log_snr_keeps_the_products_that_it_is_given():
    """Where 1 - t^2 stood for (1 - t)(1 + t), a float64 next to 1 would lose half its digits."""
    path = library.from_log_snr("2*log(t*(2-t)/((1-t)*(1+t)))")
    s = 2.0**-30
    odds = number(s) * (2 - number(s)) / ((1 - number(s)) * (1 + number(s)))  # of either end, by symmetry
    exact = float(odds / mp.sqrt(1 + odds**2))
    assert sp.lambdify(ip.t, path.alpha.expr, "math")(s) == pytest.approx(exact, rel=1e-15, abs=0.0)
    assert sp.lambdify(ip.t, path.sigma.expr, "math")(1 - s) == pytest.approx(exact, rel=1e-15, abs=0.0)


@pytest.mark.parametrize("path", [path for path, _ in FORMS], ids=lambda p: p.name)
def test_the_text_of_a_path_states_it(path):
    assert ip.Path(str(path.alpha.expr), str(path.sigma.expr)) == path


NAMES = {
    "linear": library.linear(), "gvp": library.gvp(), "linear_vp": library.linear_vp(), "vp": library.vp(0.1, 20),
    "sub_vp": library.sub_vp(0.1, 20), "cosine": library.cosine(0.008), "sigmoid": library.sigmoid(-3, 3, 1),
    "ve": library.ve(0.01, 50), "edm": library.edm(0.002, 80, 7),
}  # fmt: skip


def test_paths_by_name_have_the_defaults_of_their_sources():
    assert list(library.LIBRARY) == list(NAMES)
    for name, path in NAMES.items():
        assert library.by_name(name) == path
        assert library.by_name(name).name == path.name == name


def test_names_state_parameters_that_are_not_the_defaults():
    assert library.vp(0.1, 10).name == "vp(0.1, 10)"
    assert library.sub_vp(0.2, 20.0).name == "sub_vp(0.2, 20)"
    assert library.cosine(0.01).name == "cosine(0.01)"
    assert library.cosine(0).name == "cosine(0)"
    assert library.sigmoid(0, 3, 0.3).name == "sigmoid(0, 3, 0.3)"
    assert library.ve(0.01, 100).name == "ve(0.01, 100)"
    assert library.edm(rho=5).name == "edm(0.002, 80, 5)"
    assert library.polynomial(sp.Rational(1, 4)).name == "polynomial(0.25)"
    assert library.polynomial(1.23456789).name == "polynomial(1.23456789)"
    assert library.fm_ot(1e-5).name == "fm_ot(1e-05)"
    assert library.from_beta("20 - 19.9*t").name == "from_beta(20 - 199*t/10)"
    assert library.from_log_snr("20*t-10").name == "from_log_snr(20*t - 10)"


def test_unknown_names_are_refused_with_the_names():
    names = "linear, gvp, linear_vp, vp, sub_vp, cosine, sigmoid, ve, edm"
    with pytest.raises(ValueError, match=rf"^path: must be one of {names}, got 'gpv'\. Did you mean 'gvp'\?$"):
        library.by_name("gpv")
    with pytest.raises(ValueError, match=rf"^path: must be one of {names}, got '#'\.$"):
        library.by_name("#")
    with pytest.raises(ValueError, match=rf"{names}, got None\."):
        library.by_name(None)
    for name in ("polynomial", "fm_ot", "from_beta", "from_log_snr"):
        with pytest.raises(ValueError, match=rf"got '{name}'\. {name} needs arguments: call interpolants\.{name}\.$"):
            library.by_name(name)


REFUSED = [
    (lambda: library.fm_ot(-0.1), r"fm_ot: must have 0 <= sigma_min <= 1/4, got sigma_min=-0.1\.$"),
    (lambda: library.fm_ot(0.26), r"fm_ot: .* got sigma_min=0.26"),
    (lambda: library.polynomial(0), r"polynomial: must have n > 0, got n=0\.$"),
    (lambda: library.polynomial(math.nan), r"polynomial: must have n > 0, got n=nan"),
    (lambda: library.polynomial(math.inf), r"polynomial: must have n > 0, got n=inf"),
    (lambda: library.vp(0.0, 20.0), r"vp: must have 0 < beta_min <= beta_max, got beta_min=0.0, beta_max=20.0\.$"),
    (lambda: library.vp(0.1, math.inf), r"vp: must have 0 < beta_min <= beta_max, got beta_min=0.1, beta_max=inf\.$"),
    (lambda: library.vp(5, 1), r"vp: must have 0 < beta_min <= beta_max, got beta_min=5, beta_max=1"),
    (lambda: library.vp(0.1, 1.0), r"vp\(0.1, 1\) is no path: t = 0 must be the noise end"),
    (lambda: library.sub_vp(0, 1), r"sub_vp: must have 0 < beta_min <= beta_max, got beta_min=0, beta_max=1"),
    (lambda: library.cosine(-0.01), r"cosine: must have s >= 0, got s=-0.01\.$"),
    (lambda: library.sigmoid(3, 3), r"sigmoid: must have start < end and tau > 0, got start=3, end=3, tau=1.0\.$"),
    (lambda: library.sigmoid(tau=0), r"sigmoid: must have start < end and tau > 0, got start=-3.0, end=3.0, tau=0"),
    (lambda: library.sigmoid(3, 1, -1), r"sigmoid: must have start < end and tau > 0"),
    (lambda: library.ve(0, 50), r"ve: must have 0 < sigma_min <= 1/4 and sigma_max >= 4, got sigma_min=0, sigma_m"),
    (lambda: library.ve(0.26, 50), r"ve: must have 0 < sigma_min <= 1/4 and sigma_max >= 4"),
    (lambda: library.ve(0.01, 3.9), r"ve: .*, got sigma_min=0.01, sigma_max=3.9\.$"),
    (lambda: library.edm(sigma_max=3.9), r"edm: .*, got sigma_min=0.002, sigma_max=3.9\.$"),
    (lambda: library.edm(rho=0), r"edm: must have rho > 0, got rho=0\.$"),
    (lambda: library.from_beta("3-5*t"), r"from_beta: beta = 3 - 5\*t must be finite, real and > 0 on \(0, 1\); "
        r"at t = 1023/1024 it is -1\.99"),
    (lambda: library.from_beta("20*(0.9985-t)"), r"from_beta: beta = .* at t = 1023/1024 it is -0\.01"),
    (lambda: library.from_beta("20*(t-0.0015)"), r"from_beta: beta = .* at t = 1/1024 it is -0\.01"),
    (lambda: library.from_beta("1+t-1.5*exp(-1e9*(t-0.4567)**2)"), r"at t = 327/716 it is -0\.02"),
    (lambda: library.from_beta(0), r"from_beta: beta = 0 must be finite, real and > 0 .* at t = 0\.5 it is 0"),
    (lambda: library.from_beta("1/(t-0.5)**2"), r"from_beta: beta = .* must be finite, .* at t = 0\.5 it is nan"),
    (lambda: library.from_beta("1"), r"from_beta\(1\) is no path: t = 0 must be the noise end"),
    (lambda: library.from_beta("5/(1-t)"), r"from_beta: beta must have a finite integral up to t = 1, the data, got"),
    (lambda: library.from_beta("9*exp(t**2)"), r"from_beta: beta must have an antiderivative that is found in closed "
        r"form, none was for 9\*exp\(t\*\*2\) in 9\*exp\(t\*\*2\)\. If you know the path, state it as Path\(al"),
    (lambda: library.from_beta("5+sin(t)/t"), r"none was for sin\(t\)/t in 5 \+ sin\(t\)/t"),
    (lambda: library.from_beta("s"), r"beta: unknown name 's'"),
    (lambda: library.from_log_snr("s"), r"log_snr: unknown name 's'"),
    (lambda: library.from_log_snr("10-20*t"), r"from_log_snr\(10 - 20\*t\) is no path: the log-SNR must increase"),
    (lambda: library.from_log_snr("t"), r"is no path: t = 0 must be the noise end"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_parameters_out_of_range_are_refused_with_the_contract(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bounds_belong_to_the_range():
    assert library.fm_ot(0.25).sigma.limit(1) == sp.Rational(1, 4)
    assert library.vp(9, 9).alpha.expr == library.from_beta(9).alpha.expr
    assert library.ve(0.25, 4).sigma.limit(1) == sp.Rational(1, 4)
    assert library.ve(0.25, 4).sigma.limit(0) == 4


@pytest.mark.parametrize("value", ["2", True, None, 1j])
def test_parameters_that_are_no_numbers_are_refused(value):
    for path in (
        library.polynomial,
        library.fm_ot,
        library.vp,
        library.cosine,
        library.sigmoid,
        library.ve,
        library.edm,
    ):
        with pytest.raises(TypeError, match=rf"^{path.__name__}: must have .*, got .*={value!r}.*\. Pass numbers\.$"):
            path(value)


def test_a_rate_whose_integral_would_be_searched_for_long_is_refused_at_once():
    for beta in (
        "9+exp(sin(t)*cos(3*t))",
        "9+tan(t)*exp(t)*sqrt(t+1)",
        "9+1/(t**5+t+1)",
        "9+(t+1)*(2*t+3)**2/(t**3+3*t+7)**3/(t+5)**2",
        "9+t**2*sin(2*t+1)**2*exp(2*t+1)*(3*t+1)**(1/2)",
        "9+t**9*(3*t**2+2*t+1)**3*sin(3*t+1)/(1+t)**2/(t**2+t+1)**3",
    ):
        with pytest.raises(ValueError, match="beta must have an antiderivative that is found in closed form"):
            library.from_beta(beta)


SEARCHED = {  # terms of a rate: powers whose exponent is whole and what does not depend on time are no functions
    "exp(t)*sin(t)": True, "exp(t)*sin(t)*t**2/(t+1)**3": True, "sin(1)*cos(2)*log(3)*exp(t)*sin(t)": True,
    "exp(t)*sqrt(t+1)": True, "exp(t)*sin(t)*sqrt(t+1)": False, "exp(t)*sin(t)*log(t+1)": False,
    "exp(sin(t))": False, "log(cos(t))": False, "exp(t)*sin(t)*t**2*log(2-t)/(t+1)**3": False,
    "1/(t**2+1)**3": True, "1/(t**3+t+1)": False,
}  # fmt: skip


@pytest.mark.parametrize("term", SEARCHED)
def test_an_antiderivative_is_searched_for_where_no_more_than_two_functions_stand_side_by_side(term):
    assert library._is_searched_soon(sp.sympify(term, locals={"t": ip.t})) is SEARCHED[term]


def test_an_antiderivative_is_searched_for_up_to_a_number_of_operations():
    """The sine is one, and the 10 powers have 10 and are joined by 9."""
    term = sp.sin(sum(ip.t**k for k in range(2, 12)))
    assert library._is_searched_soon(term)
    assert not library._is_searched_soon(-term)


def test_an_antiderivative_with_a_jump_is_no_integral(monkeypatch):
    t = ip.t
    jumping = sp.atan(sp.tan(7 * t / 2) / sp.sqrt(3)) * 2 / (7 * sp.sqrt(3))  # of the term, up to jumps at tan's poles
    assert not library._integrates(jumping, 1 / (2 + sp.cos(7 * t)))
    assert library._integrates(sp.sin(7 * t) / 7, sp.cos(7 * t))
    assert library._integrates(2 * t, sp.Integer(2))
    assert not library._integrates(-sp.sin(7 * t) / 7, sp.cos(7 * t))
    assert not library._integrates(sp.Integer(1), sp.cos(7 * t))
    for jump in (0.02, 0.3, 0.5, 0.98):
        from_the_jump = t - sp.Rational(str(jump))
        assert not library._integrates(sp.atan(1 / from_the_jump), -1 / (1 + from_the_jump**2))
    between = sp.Rational(995, 1000)  # a jump next to an end, and one of 1e-12 beside an integral of 1
    for jump, size in ((between, 1), (sp.Rational(1, 100), sp.Rational(1, 10**12))):
        jumping_there = 7 * t + size * sp.atan(1 / (t - jump))
        assert not library._integrates(jumping_there, sp.diff(jumping_there, t))
    for unit in (sp.Rational(1, 10**12), sp.Integer(10) ** 12):
        assert library._integrates(unit * sp.sin(7 * t), unit * 7 * sp.cos(7 * t))
        assert not library._integrates(-unit * sp.sin(7 * t), unit * 7 * sp.cos(7 * t))
    # Rounding is no jump: next to 1/2 the integral is zero beside its values, which are zero elsewhere.
    assert library._integrates((t - sp.Rational(1, 2)) ** 2 - sp.Rational(61, 130) ** 2, 2 * t - 1)
    monkeypatch.setattr("sympy.integrals.manualintegrate.manualintegrate", lambda term, t: 12 * jumping)
    with pytest.raises(ValueError, match="beta must have an antiderivative that is found in closed form"):
        library.from_beta(12 / (2 + sp.cos(7 * t)))
