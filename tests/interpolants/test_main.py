"""The command line: formulas, ledger, exit codes."""

import subprocess
import sys

import pytest

from interpolants import __main__ as command


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


def test_names_parameters_and_latex(capsys):
    assert command.main(["t**p", "1-t**p", "--parameter", "p=2", "--latex"]) == 0
    out = capsys.readouterr().out
    assert "alpha = t^{2}" in out
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
