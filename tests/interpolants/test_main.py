"""The command line: formulas, ledger, exit codes."""

import subprocess
import sys

import pytest
import sympy as sp

from interpolants import Path, diffusion, t
from interpolants import __main__ as command

R = sp.Rational


def test_a_path_prints_its_formulas_and_its_ledger(capsys):
    assert command.main(["t", "1-t"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "alpha = t" in lines
    assert "sigma' = -1" in lines
    assert "W = 1" in lines
    assert "log-SNR = 2*log(t/(1 - t))" in lines
    assert "data from velocity = velocity*(1 - t) + x" in lines
    assert "score from noise = -noise/(1 - t)" in lines
    assert "f = -1/t" in lines
    assert "g^2 = 2*(1 - t)/t" in lines
    assert "w, sigma = 2 - 2*t" in lines
    assert "drift, sigma = velocity*(t + 1) - x" in lines
    assert "(t, 1 - t): 31 proved" in lines
    assert sum(" from " in line and "=" in line for line in lines) == 12


def test_the_formulas_hold_at_a_time_on_a_path_that_is_no_straight_line():
    """alpha = t^2 and sigma = 1 - t at t = 1/4, for data 2 and noise -3, by hand."""
    data, noise, time = 2, -3, sp.Rational(1, 4)
    quantity = {"velocity": 2 * time * data - noise, "score": -noise / (1 - time), "noise": noise, "data": data}
    x = time**2 * data + (1 - time) * noise
    values = {sp.Symbol("x"): x, t: time, **{sp.Symbol(name): value for name, value in quantity.items()}}
    formulas = {name: sp.sympify(expr).subs(values) for name, expr in command.formulas(Path("t**2", "1-t"))}
    of_path = {
        "alpha": R(1, 16), "sigma": R(3, 4), "alpha'": R(1, 2), "sigma'": -1, "W": R(7, 16),
        "log-SNR": 2 * sp.log(R(1, 12)), "f": -8, "g^2": R(21, 2),
    }  # fmt: skip
    w = {name: formulas[f"w, {name}"] for name in diffusion.CHOICES}
    assert [w[name] for name in ("constant", "sigma", "linear", "kl_optimal")] == [2, R(3, 2), R(3, 2), R(21, 2)]
    expected = {
        **of_path,
        **{f"{b} from {a}": quantity[b] for a in quantity for b in quantity if a != b},
        **{f"w, {name}": value for name, value in w.items()},
        **{f"drift, {name}": quantity["velocity"] + value / 2 * quantity["score"] for name, value in w.items()},
    }
    assert formulas.keys() == expected.keys()
    for name, value in expected.items():
        assert sp.simplify(formulas[name] - value) == 0, name


def test_help_says_what_to_give(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for phrase in (
        "usage: python -m interpolants [-h]", "[--parameter NAME=NUMBER] [--latex] alpha [sigma]",
        "from a path, noise at t = 0, data at 1. positional", 'alpha(t), such as "t", or one of linear, gvp, ',
        'sigma(t), such as "1-t" options', "NAME=NUMBER such as p=2 --latex LaTeX instead of plain text",
    ):  # fmt: skip
        assert phrase in text
    assert text.endswith("plain text")


def test_names_parameters_and_latex(capsys):
    assert command.main(["t**p*q", "1-t**p", "--parameter", " p = 2", "--parameter", "q=1", "--latex"]) == 0
    out = capsys.readouterr().out
    assert "alpha = t^{2}\n" in out
    assert r"\begin{array}{lll}" in out
    assert command.main(["linear"]) == 0
    assert "linear: 31 proved" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1-t", "t"], "log-SNR must increase"),
        (["lineer"], "Did you mean 'linear'"),
        (["t**2"], "sigma: must be given after alpha = 't**2', such as 1-t."),
        (["__import__('os')", "1-t"], "alpha: unknown call"),
        (["t**p", "1-t", "--parameter", "p"], "--parameter: must be NAME=NUMBER, such as p=2, got 'p'"),
        (["vp", "--parameter", "p=2"], "--parameter: must not be given with a path of the library, got p."),
        (["t**name", "1-t", "--parameter", "name=2"], "--parameter: must be another name than 'name'"),
        (["t", "1-t", "--parameter", "p=2"], "a parameter must occur in an expression, got 'p'"),
    ],
)
def test_wrong_input_is_said_in_one_line_and_exits_with_2(arguments, message, capsys):
    assert command.main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1


def test_a_failed_identity_exits_with_1(monkeypatch, capsys):
    from interpolants.identities import Entry, Ledger

    ledger = Ledger("p", (Entry("x", "x", "failed", 1, counterexample="1 is not 2"),))
    monkeypatch.setattr(command, "prove", lambda path: ledger)
    assert command.main(["t", "1-t"]) == 1
    assert "x  failed: 1 is not 2" in capsys.readouterr().out


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "interpolants", "t", "2-t"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "must be the data end" in done.stderr
