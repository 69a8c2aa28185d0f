"""Exponential steps: exact for polynomial predictions, by integrals in sympy and quadrature in mpmath."""

import functools

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from scipy.integrate import solve_ivp

import interpolants as ip
from interpolants.exponential import ancestral, noise_ratio, steps

PATHS = [ip.linear(), ip.gvp(), ip.vp(), ip.edm(), ip.Path("t**2", "1-t")]
TIMES = np.array([0.15, 0.25, 0.38, 0.5, 0.65, 0.75])
h, r, q = sp.symbols("h r q", positive=True)


def half_log_snr(path, time):
    return mpmath.log(alpha(path, time) / sigma(path, time))


def alpha(path, time):
    return evaluated(path.alpha.expr, time)


def sigma(path, time):
    return evaluated(path.sigma.expr, time)


def evaluated(expr, time):
    return mpmath.mpf(sp.N(expr.subs(ip.t, sp.Rational(time)), 30))


@functools.cache
def by_sympy(nodes, order, growth=1):
    """The weights that integrate every polynomial of lower degree exactly: int growth e^(growth (y - h)) y^k, y from 0
    to h, with the step's start at y = 0.
    """
    y = sp.Symbol("y")
    unknown = sp.symbols(f"w:{order}")
    equations = [
        sum(w * node**k for w, node in zip(unknown, nodes, strict=True))
        - sp.integrate(growth * sp.exp(growth * (y - h)) * y**k, (y, 0, h))
        for k in range(order)
    ]
    solution = sp.solve(equations, unknown, dict=True)[0]
    return [solution[w] for w in unknown]


# Order conditions, symbolically


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_local_error_of_a_step_has_one_power_of_h_more_than_its_order(order):
    """For a prediction y^k, with earlier nodes at -r h and -q h and int_0^h e^(y-h) y^k dy as a power series in h."""

    def integral(k):
        return sum(
            (-1) ** j * sp.Rational(sp.factorial(k), sp.factorial(k + j + 1)) * h ** (k + j + 1) for j in range(5)
        )

    nodes = (0, -r * h, -q * h)[:order]
    vandermonde = sp.Matrix([[node**k for node in nodes] for k in range(order)])
    weights = vandermonde.LUsolve(sp.Matrix([integral(k) for k in range(order)]))
    for k in range(order + 2):
        error = sp.cancel(integral(k) - sum(w * node**k for w, node in zip(weights, nodes, strict=True)))
        lowest = sp.Poly(error, h).monoms()[-1][0] if error != 0 else None
        assert lowest is None if k < order else lowest == k + 1


def test_the_published_weights_of_dpm_solver_meet_the_second_order_and_not_the_polynomial():
    """DPM-Solver++ (2M): (1 - e^-h) [(1 + 1 / 2r) D_n - D_{n-1} / 2r], Lu et al. (2022), algorithm 2."""
    published = [(1 - sp.exp(-h)) * (1 + 1 / (2 * r)), -(1 - sp.exp(-h)) / (2 * r)]
    for ours, theirs in zip(by_sympy((0, -r * h), 2), published, strict=True):
        difference = sp.series(ours - theirs, h, 0, 3).removeO()
        assert all(sp.simplify(difference.coeff(h, k)) == 0 for k in range(2))
        assert sp.simplify(difference.coeff(h, 2)) != 0


@pytest.mark.parametrize("path", PATHS[::2], ids=lambda p: p.name)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("w", [0, ip.diffusion.kl_optimal(0.5)], ids=["ode", "sde"])
def test_weights_in_the_log_snr_are_those_that_sympy_solves_for(path, order, w):
    table = steps(path, TIMES, order, w=w)
    growth = 1 if w == 0 else sp.Rational(3, 2)
    levels = [half_log_snr(path, time) for time in TIMES]
    n = 3
    step, back, further = levels[n + 1] - levels[n], levels[n] - levels[n - 1], levels[n] - levels[n - 2]
    values = {h: step, r: back / step, q: further / step}
    scale = alpha(path, TIMES[n + 1])
    for nodes, row in (((0, -r * h, -q * h), table.weights[n]), ((h, 0, -r * h, -q * h), table.corrector[n])):
        solved = by_sympy(nodes[: len(row)], len(row), growth)
        expected = [float(scale * sp.N(weight.subs(values), 30)) for weight in solved]
        np.testing.assert_allclose(row, expected, rtol=1e-11)
    kept = mpmath.exp(-(growth - 1) * step)
    assert table.carry[n] == pytest.approx(float(sigma(path, TIMES[n + 1]) / sigma(path, TIMES[n]) * kept), rel=1e-14)
    assert table.noise[n] == pytest.approx(float(sigma(path, TIMES[n + 1]) * mpmath.sqrt(1 - kept**2)), rel=1e-12)


def test_steps_of_a_high_order_integrate_every_power():
    """Of theta = y / h on [0, h], against exp(y - h), by quadrature in mpmath."""
    path, order, n = ip.gvp(), 8, 8
    times = np.linspace(0.1, 0.9, 10)
    table = steps(path, times, order)
    levels = path.log_snr(times) / 2
    step = levels[n + 1] - levels[n]
    theta = (levels - levels[n]) / step
    for k in range(order):
        integral = mpmath.quad(lambda x, k=k: x**k * step * mpmath.exp(step * (x - 1)), [0, 1])
        got = sum(table.weights[n, i] * theta[n - i] ** k for i in range(order))
        scale = sum(abs(table.weights[n, i] * theta[n - i] ** k) for i in range(order))
        assert got == pytest.approx(path.alpha(times[n + 1]) * float(integral), abs=1e-13 * scale)


def test_a_constant_ratio_in_the_log_snr_needs_no_quadrature(monkeypatch):
    monkeypatch.setattr("interpolants.exponential._MAX_PANELS", 0)
    for w in (0, "kl_optimal", ip.diffusion.kl_optimal(10**6)):
        assert np.isfinite(steps(ip.vp(), TIMES, 3, w=w).weights).all()
        with pytest.raises(ArithmeticError, match="the quadrature with w / g"):
            steps(ip.vp(), TIMES, 3, variable="t", w=w)


# Exactness on any path, with any w


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
@pytest.mark.parametrize("w", [0, "sigma", "sin_squared", "1", "2*sin(t)"])
@pytest.mark.parametrize("variable", ["t", "log_snr"])
def test_a_step_solves_the_equation_of_a_polynomial_prediction(path, w, variable):
    """Mean and variance of dx = (a x + b D(t)) dt + sqrt(w) dW, with the coefficients of ``path.sde``, by scipy."""
    order, n = 3, 3
    equation = path.sde("data", w=w)
    table = steps(path, TIMES, order, variable=variable, w=w)
    place = (lambda time: time) if variable == "t" else (lambda time: float(half_log_snr(path, time)))

    def prediction(time):
        return 0.3 - 1.1 * place(time) + 0.7 * place(time) ** 2

    def slope(time, state):
        a = equation.a(time)
        return [a * state[0] + equation.b(time) * prediction(time), 2 * a * state[1] + equation.w(time)]

    solution = solve_ivp(slope, TIMES[n : n + 2], [1.3, 0.0], method="DOP853", rtol=1e-11, atol=1e-12)
    mean, variance = solution.y[:, -1]
    step = table.carry[n] * 1.3 + sum(table.weights[n, i] * prediction(TIMES[n - i]) for i in range(order))
    assert step == pytest.approx(mean, abs=1e-9)
    assert table.noise[n] ** 2 == pytest.approx(variance, abs=1e-9)
    corrected = table.carry[n] * 1.3 + sum(
        table.corrector[n, i] * prediction(TIMES[n + 1 - i]) for i in range(order + 1)
    )
    assert corrected == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
@pytest.mark.parametrize("variable", ["t", "log_snr"])
@pytest.mark.parametrize("w", [0, "sigma", "kl_optimal"])
def test_with_constant_data_the_marginals_are_met_exactly_from_end_to_end(path, variable, w):
    """x = alpha D + sigma z stays so: its mean by carry and weights, its variance by carry and noise."""
    times = np.linspace(0.0, 1.0, 8)
    table = steps(path, times, 3, variable=variable, w=w)
    a, s = path.alpha(times), path.sigma(times)
    np.testing.assert_allclose(table.carry * a[:-1] + table.weights.sum(1), a[1:], atol=1e-13)
    np.testing.assert_allclose(table.carry * a[:-1] + table.corrector.sum(1), a[1:], atol=1e-13)
    kept = (table.carry * s[:-1]) ** 2
    np.testing.assert_allclose(kept + table.noise**2 if w != 0 else kept, s[1:] ** 2, atol=1e-13)
    assert (table.noise > 0).sum() == (0 if w == 0 else int((s[1:] > 0).sum()))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_steps_of_the_velocity_are_those_of_adams(order):
    """On equal steps the weights are the classical ones of Adams-Bashforth and Adams-Moulton."""
    bashforth = {1: [1], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}
    moulton = {1: [1 / 2, 1 / 2], 2: [5 / 12, 8 / 12, -1 / 12], 3: [9 / 24, 19 / 24, -5 / 24, 1 / 24]}
    table = steps(ip.vp(), np.linspace(0.0, 1.0, 9), order, space="velocity")
    assert table.carry.shape == table.noise.shape == (8,)
    assert (table.weights.shape, table.corrector.shape) == ((8, order), (8, order + 1))
    np.testing.assert_allclose(table.weights[-1] * 8, bashforth[order], rtol=1e-12)
    if order in moulton:
        np.testing.assert_allclose(table.corrector[-1] * 8, moulton[order], rtol=1e-12)
    np.testing.assert_array_equal(table.carry, 1.0)
    np.testing.assert_array_equal(table.noise, 0.0)
    # The first steps have fewer predictions behind them: Euler's, then of order two.
    np.testing.assert_allclose(table.weights[0] * 8, [1, 0, 0, 0][:order], atol=1e-15)
    np.testing.assert_allclose(table.weights[1] * 8, (bashforth[min(2, order)] + [0, 0])[:order], atol=1e-13)


@pytest.mark.parametrize("path", [ip.linear(), ip.gvp(), ip.vp()], ids=lambda p: p.name)
def test_next_to_an_infinite_log_snr_a_polynomial_in_t_extrapolates_and_one_in_the_log_snr_does_not(path):
    times = np.linspace(0.0, 1.0, 6)
    in_t, in_log_snr = (steps(path, times, 3, variable=variable) for variable in ("t", "log_snr"))
    np.testing.assert_allclose(
        in_t.weights[-1], [3, -3, 1], atol=1e-10
    )  # the parabola through the last three, at t = 1
    np.testing.assert_allclose(in_log_snr.weights[-1], [1, 0, 0], atol=1e-13)
    if path.alpha(0.0) == 0:
        # No polynomial passes through a node at minus infinity: the start counts alone, then not at all.
        assert in_log_snr.corrector[0, 0] == 0.0
        assert (in_log_snr.weights[1:3, 1:] == 0.0)[[0, 1], [0, 1]].all()


# The noise


def test_the_noise_ratio_is_of_w_to_that_of_the_forward_sde():
    assert noise_ratio(ip.gvp(), "kl_optimal").expr == 1
    assert noise_ratio(ip.gvp(), ip.diffusion.kl_optimal(0.25)).expr == sp.Rational(1, 4)
    assert noise_ratio(ip.linear(), "sigma").expr == ip.t  # 2 (1 - t) beside 2 (1 - t) / t
    assert noise_ratio(ip.linear(), 0).expr == 0


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_ancestral_steps_are_those_of_the_exact_reversal(path):
    """Mean and variance of q(x_s | x_t, data) of the forward process, by Bayes' rule."""
    table = ancestral(path, TIMES)
    np.testing.assert_array_equal(table.times, TIMES)
    assert table.space == "data"
    for n in range(len(TIMES) - 1):
        (a_t, s_t), (a_s, s_s) = ((path.alpha(x), path.sigma(x)) for x in TIMES[n : n + 2])
        ratio = a_t / a_s
        added = s_t**2 - ratio**2 * s_s**2  # variance of x_t given x_s
        precision = ratio**2 / added + 1 / s_s**2
        assert table.carry[n] == pytest.approx(ratio / added / precision, rel=1e-12)
        assert table.weights[n, 0] == pytest.approx(a_s / s_s**2 / precision, rel=1e-12)
        assert table.noise[n] == pytest.approx(precision**-0.5, rel=1e-12)
    exact = steps(path, TIMES, 1, w="kl_optimal")
    for name in ("carry", "weights", "noise"):
        np.testing.assert_allclose(getattr(table, name), getattr(exact, name), rtol=1e-12)


def test_eta_scales_the_noise_of_ddpm_and_at_zero_is_ddim():
    path, full, half = ip.vp(), ancestral(ip.vp(), TIMES), ancestral(ip.vp(), TIMES, eta=0.5)
    np.testing.assert_allclose(half.noise, full.noise / 2, rtol=1e-13)
    ddim, ode = ancestral(path, TIMES, eta=0.0), steps(path, TIMES, 1)
    np.testing.assert_allclose(ddim.weights, ode.weights, rtol=1e-12)
    np.testing.assert_allclose(ddim.carry, ode.carry, rtol=1e-12)
    np.testing.assert_array_equal(ddim.noise, 0.0)
    np.testing.assert_array_equal(half.corrector, np.column_stack([np.zeros(5), half.weights]))
    a, s = path.alpha(TIMES), path.sigma(TIMES)
    np.testing.assert_allclose(half.carry * a[:-1] + half.weights[:, 0], a[1:], rtol=1e-13)
    np.testing.assert_allclose((half.carry * s[:-1]) ** 2 + half.noise**2, s[1:] ** 2, rtol=1e-13)


def test_predictions_of_another_noise_are_left_out():
    """On the linear path with w = 20 (1 - t), w / g^2 = 10 t and d lambda = dt / (t (1 - t)), so that c is a power."""
    times = np.linspace(0.3, 0.9, 13)
    table = steps(ip.linear(), times, 3, w="20*(1-t)")
    kept = ((1 - times[1:]) / (1 - times[:-1])) ** 10
    np.testing.assert_allclose(table.noise, (1 - times[1:]) * np.sqrt(1 - kept**2), rtol=1e-10)
    for n in range(2, 12):
        expected = [True, kept[n - 1] > 0.3, kept[n - 1] * kept[n - 2] > 0.3]
        assert (table.weights[n] != 0).tolist() == expected
    assert 0 < (kept > 0.3).sum() < 12
    assert (steps(ip.linear(), times, 3).weights[2:] != 0).all()


def test_with_noise_no_prediction_is_amplified():
    """A last step much longer than those before extrapolates far: for a smooth prediction, but not for a noisy one."""
    times = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.99])
    for w, bound in (("0.01*(1-t)", 8.0), (0, 100.0)):
        weights = steps(ip.linear(), times, 3, variable="t", w=w).weights
        amplification = np.abs(weights).sum(1) / weights.sum(1)
        assert amplification.max() <= bound
        assert (weights[2:4] != 0).all()  # even steps keep all three
        assert (amplification[-1] > 8.0) == (w == 0)
    # The same where the noise ends at t = 1.
    whole = steps(ip.linear(), [*times, 1.0], 3, variable="t", w="0.01*(1-t)")
    assert whole.noise[-1] == 0.0
    assert (np.abs(whole.weights[:-1]).sum(1) <= 8.0 * whole.weights[:-1].sum(1)).all()


def test_amplification_is_in_proportion_to_the_weight_of_the_prediction():
    """Next to the noise all weights of the data are small: a step 17 times as long as the one before is none the less
    an extrapolation by (1 + 17 / 2) + 17 / 2, about, of what is their sum.
    """
    for w in (0, "0.01*(1-t)"):
        (new, old) = steps(ip.linear(), [0.01, 0.02, 0.03, 0.2], 2, variable="t", w=w).weights[-1]
        assert abs(new) + abs(old) < 8.0
        assert ((abs(new) + abs(old)) / (new + old) > 8.0) == (w == 0)
        assert (old == 0.0) == (w != 0)
        assert new + old > 0.1


def test_no_more_predictions_are_left_out_than_amplify():
    """A step four times as long as those before: the sum of the absolute weights is about 20 for three, 5 for two."""
    times, w = [0.3, 0.35, 0.4, 0.6], "0.001*(1-t)"
    three, two = (steps(ip.linear(), times, order, variable="t", w=w) for order in (3, 2))
    np.testing.assert_array_equal(three.weights[-1], [*two.weights[-1], 0.0])
    assert (two.weights[-1] != 0.0).all()


@pytest.mark.parametrize("variable", ["t", "log_snr"])
@pytest.mark.parametrize("w", [0, "sigma"])
def test_one_step_to_the_data_is_its_prediction(variable, w):
    table = steps(ip.linear(), [0.5, 1.0], 2, variable=variable, w=w)
    assert (table.carry.tolist(), table.weights.tolist(), table.noise.tolist()) == ([0.0], [[1.0, 0.0]], [0.0])


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times": [0.5]}, "times: must be at least two increasing times in"),
        ({"times": [0.5, 0.5]}, "times: must be"),
        ({"times": [0.0, 1.1]}, "times: must be"),
        ({"times": [-0.1, 1.0]}, "times: must be"),
        ({"times": [[0.0, 1.0]]}, "times: must be"),
        ({"order": 0}, "order: must be an integer of at least 1, got 0"),
        ({"order": 1.5}, "order: must be an integer"),
        ({"space": "noise"}, "space: must be one of data, velocity, got 'noise'"),
        ({"variable": "s"}, "variable: must be one of log_snr, t, got 's'"),
        ({"space": "velocity", "w": "sigma"}, "w: must be 0 in the space of the velocity, got 'sigma'"),
        ({"path": ip.linear().in_paper_time()}, "path: must be a Path with data at t = 1"),
        ({"path": "linear"}, "path: must be a Path"),
    ],
)
def test_wrong_input_is_refused(arguments, message):
    given = {"path": ip.linear(), "times": [0.0, 0.5, 1.0], "order": 2} | arguments
    with pytest.raises(ValueError, match=message):
        steps(**given)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_eta_is_between_none_and_all_of_the_noise(eta):
    with pytest.raises(ValueError, match=r"eta: must be in \[0, 1\]"):
        ancestral(ip.linear(), [0.0, 1.0], eta)


def test_a_w_that_no_quadrature_resolves_is_refused(monkeypatch):
    monkeypatch.setattr("interpolants.exponential._MAX_PANELS", 32)
    steps(ip.linear(), [0.0, 0.5, 0.9], 2, w="t*(1-t)")
    with pytest.raises(ArithmeticError, match="the quadrature with w / g"):
        steps(ip.linear(), [0.0, 0.5, 0.9], 2, w="10**6*t*(1-t)")


def test_times_may_be_a_tensor_and_are_kept():
    table = steps(ip.linear(), torch.tensor([0.0, 0.25, 1.0]), 1)
    np.testing.assert_array_equal(table.times, [0.0, 0.25, 1.0])
    assert table.space == "data"
